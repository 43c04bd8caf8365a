"""Which hosts run the version that they should, and where two readings of what ran contradict each other."""

from __future__ import annotations

from typing import Any

import pandas as pd

from psodlib.errors import InputError, known_name
from psodlib.evidence.versions import normalise
from psodlib.triage.boots import LOADED, last_boots, loaded_in_boots, readings_in_their_boot


def fleet_compliance(fleet: Any, module: str, pin: str) -> pd.DataFrame:
    """Which hosts run the pinned version of a driver, and which do not, and why.

    Parameters
    ----------
    fleet : Fleet
        Its tables ``hosts``, ``crashes``, ``uptimes`` and ``drivers`` are read.
    module : str
        Bare module name.
    pin : str
        The version that every host should run, as a VIB, a banner or this library writes it.

    Returns
    -------
    DataFrame
        One row a host, by host: ``host``, ``boot`` (the last one), ``version`` (loaded in it), ``driver_evidence``,
        ``waiting`` (another version that the disk held at last), ``status``: ``runs``; ``installed_not_booted`` (the
        pin waits for a boot); ``about_to_drift`` (runs the pin, another version waits); ``drifted_back`` (ran the pin
        in an earlier boot); ``other``; ``unknown`` (nothing tells, or two readings of that boot contradict each other).

    Raises
    ------
    InputError
        ``pin`` is no version, or the evidence does not know the module; the nearest names are said.
    """
    wanted = normalise(pin, module)
    if wanted is None:
        raise InputError(f"pin is {pin!r}; expected a version of {module}, such as those in drivers.version")
    if names := [*fleet.drivers["module"], *fleet.crashes["guilty_module"]]:
        known_name(module, names, "module")
    boots = loaded_in_boots(fleet.uptimes, fleet.drivers, module)
    table = last_boots(boots, fleet.hosts["host"])[["boot", "version", "driver_evidence", "waiting"]]
    table["driver_evidence"] = table["driver_evidence"].astype("string").fillna("none")
    ran = table.index.isin(boots.loc[boots["version"].eq(wanted).fillna(False), "host"])
    facts = table.drop(columns="boot").astype(object).where(table.notna(), None)
    rows = zip(facts.itertuples(index=False), map(bool, ran), strict=True)
    words = [status(version, how, waiting, had, pin=wanted) for (version, how, waiting), had in rows]
    return table.assign(status=pd.array(words, dtype="string")).reset_index()


def status(version: str | None, evidence: str, waiting: str | None, ran: bool, *, pin: str) -> str:
    """One host against the pin: what it has loaded and how that is known, what waits for its next boot, whether it ever ran the pin."""
    if evidence == "conflict" or version is None:
        return "installed_not_booted" if waiting == pin else "unknown"
    if version == pin:
        return "runs" if waiting is None else "about_to_drift"
    if waiting == pin:
        return "installed_not_booted"
    return "drifted_back" if ran else "other"


def version_conflicts(uptimes: pd.DataFrame, drivers: pd.DataFrame) -> list[dict[str, Any]]:
    """Boots in which one driver was read as loaded in more than one version: a driver cannot change under a boot."""
    loaded = drivers["evidence"].isin(LOADED) & drivers["state"].astype("string").eq("loaded").fillna(False)
    known = drivers[loaded & drivers["version"].notna() & drivers["module"].notna()].reset_index(drop=True)
    placed = readings_in_their_boot(uptimes, known).join(known[["module", "source", "line"]], on="order")
    placed["rank"] = placed["evidence"].map(list(LOADED).index)
    # Only what contradicts itself is looked at one by one: a fleet has thousands of boots that do not.
    differ = placed.groupby(["row", "module"])["version"].transform("nunique") > 1
    ordered = placed[differ].sort_values(["row", "module", "rank", "observed_at"], kind="stable")
    rows = []
    for (_, module), readings in ordered.groupby(["row", "module"], sort=False):
        versions: list[Any] = list(readings.drop_duplicates("version").itertuples())  # the first is believed
        believed, *others = (f"{one.version} ({one.evidence})" for one in versions)
        told, line = versions[1], versions[1].line
        detail = f"{module} was read as {believed} and as {' and '.join(others)} in one boot; the first is used"
        rows.append({
            "source": told.source, "host": told.host, "line": None if pd.isna(line) else int(line),
            "problem": "version_conflict", "detail": detail,
        })  # fmt: skip
    return rows
