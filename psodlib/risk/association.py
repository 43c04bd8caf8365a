"""Which attribute goes with a signature: model, firmware, ESXi build, driver version, uptime band, cluster.

It lives here and not in ``triage/``: an association is a comparison of rates, and rates need host-days at risk.

The attributes hang together: a model comes with its firmware, a roll-out goes by cluster, a new driver has young boots.
So each is tested inside strata of its parents, and once more inside strata of all the others that are not its own
consequence: what stands in the first test only may be another attribute's shadow, and is said to be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from psodlib.errors import InputError
from psodlib.risk import exact
from psodlib.risk.exposure import Floats, check_exposure, last_before, of_module, split_stretches
from psodlib.schema import Tables

# Attribute -> its parents: what decides, or comes before, which value a host has. In the order of testing.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "model": (),
    "firmware": ("model",),
    "esxi_build": ("model", "firmware"),
    "version": ("model", "firmware", "esxi_build"),
    "uptime": ("model", "version"),
    "cluster": ("model", "firmware", "esxi_build", "version"),
}
# A cluster decides all the others of its hosts: given the cluster, model or version have nothing left to vary.
SHADOWS = ("model", "firmware", "esxi_build", "version", "uptime")
BANDS = ("0-7 d", "7-15 d", "15-30 d", "30-60 d", "60-120 d", "over 120 d")
FEW = 3  # crashes; with fewer nothing is tested

_WHAT = "counted "  # stands for which crashes
_COLUMNS = ("attribute", "value", "crashes", "expected", "host_days", "hosts", "ratio", "low", "high", "p", "p_holm",
            "p_given_others", "found", "note")  # fmt: skip


def attributes_of_signature(fleet: Tables, signature: str, alpha: float = 0.05) -> pd.DataFrame:
    """Which attributes go with the crashes of one signature, per host-day at risk.

    Parameters
    ----------
    fleet : Fleet
    signature : str
        As in ``crashes.signature``.
    alpha : float
        Chance of any false finding that is accepted, over all that is tested.

    Returns
    -------
    pandas.DataFrame
        One row a value of an attribute, the least ``p`` first; ``found`` where it stands; ``attrs["says"]`` is the sentence.

    Raises
    ------
    InputError
        The fleet has no crash of that signature.

    Notes
    -----
    Over the watched host-days of the whole fleet. The version is that of the driver which most crashes of the signature are
    laid to. ``esxi_build`` is what the boot ran; ``model`` and ``cluster`` are the host's newest. ``associations`` has the test.
    """
    mine = fleet.crashes["signature"].eq(signature).fillna(False).astype(bool)
    if not mine.any():
        some = ", ".join(map(repr, fleet.crashes["signature"].dropna().unique()[:5])) or "none"
        raise InputError(f"no crash has the signature {signature!r}; expected one of crashes.signature, such as {some}")
    guilty = fleet.crashes.loc[mine, "guilty_module"].dropna()
    module = "nobody" if guilty.empty else str(guilty.mode().iloc[0])
    # The fleet in which only the signature's crashes are the driver's.
    crashes = fleet.crashes.assign(guilty_module=np.where(mine, module, "another"), guilt="on_stack", deliberate=False)
    tables: Any = SimpleNamespace(
        hosts=fleet.hosts, crashes=crashes, uptimes=fleet.uptimes, drivers=fleet.drivers,
        coverage=getattr(fleet, "coverage", None),
    )  # fmt: skip
    out = attributes_of_driver(tables, module, alpha)
    out.attrs |= {"signature": signature, "says": out.attrs["says"].replace(_WHAT, f"of {signature!r} ")}
    return out


def attributes_of_driver(fleet: Tables, module: str, alpha: float = 0.05) -> pd.DataFrame:
    """``associations`` of all crashes of one driver, its firmware among the attributes."""
    return associations(_with_firmware(of_module(fleet, module), fleet.drivers, module), alpha)


def associations(exposure: pd.DataFrame, alpha: float = 0.05) -> pd.DataFrame:
    """Which attributes go with the crashes that an exposure table counts.

    Notes
    -----
    Inside a stratum with D crashes, of which a share q of the host-days has the value, the crashes with it are
    Binomial(D, q) when the attribute does not matter; their sum over strata is compared with its exact distribution,
    p = twice the smaller mid-P tail. One lemon host crashes again and again, so a second p comes from the score's
    variance between hosts, and the larger of the two counts. Holm's correction covers every value of every attribute.

    A roll-back after a crash is no independent event: a version that hosts fled from is better compared by ``rate_ratio``.
    """
    table = _pieces(exposure)
    crashes, days = int(table["crashes"].sum()), float(table["host_days"].sum())
    seen = {name: table.loc[table["host_days"] > 0, name].dropna().unique() for name in ATTRIBUTES}
    left_out = {
        name: f"the same everywhere: {values[0]}" if len(values) else "not in the evidence"
        for name, values in seen.items()
        if len(values) < 2
    }
    tested = [name for name in ATTRIBUTES if name not in left_out] if crashes >= FEW else []
    rows = [row for name in tested for row in _tested(table, name, tested, alpha)]
    out = pd.DataFrame(rows, columns=list(_COLUMNS))
    out["p_holm"] = exact.holm(out["p"])
    clear = out["p_holm"] <= alpha
    out.loc[clear & out["p_given_others"].isna(), "note"] = "cannot be told apart from the other attributes"
    shadow = clear & (out["p_given_others"] > alpha)
    out.loc[shadow, "note"] = "goes with another attribute: nothing is left of it inside that one's strata"
    out["found"] = (clear & ~shadow).astype("boolean")
    out = out.astype({"attribute": "string", "value": "string", "note": "string", "crashes": "Int64", "hosts": "Int64"})
    out = out.sort_values(["p", "attribute", "value"], kind="stable", ignore_index=True)
    out.attrs = {"says": _says(out, crashes, days), "left_out": left_out, "crashes": crashes, "host_days": days}
    return out


def _pieces(exposure: pd.DataFrame) -> pd.DataFrame:
    # Cut where the uptime band changes; columns that are not there are unknown.
    table = check_exposure(exposure).reset_index(drop=True)
    absent = {name: pd.array([None] * len(table), dtype="string") for name in ATTRIBUTES if name not in table}
    table = table.assign(**absent)
    if not {"start", "end", "uptime_start"} <= set(table):
        return table
    pieces = split_stretches(table, uptime=True)
    table = table.iloc[pieces["row"]].reset_index(drop=True)
    bands = pd.array([BANDS[code] if code >= 0 else None for code in pieces["uptime"]], dtype="string")
    crashes = table["crashes"].where(pieces["last"], 0.0)
    return table.assign(host_days=pieces["host_days"], crashes=crashes, uptime=bands)


def _with_firmware(stretches: pd.DataFrame, drivers: pd.DataFrame, module: str) -> pd.DataFrame:
    # What was last read before the stretch's end; a host whose every reading agrees had it all along.
    known = drivers[drivers["module"].eq(module).fillna(False) & drivers["firmware"].notna()]
    if known.empty:
        return stretches.assign(firmware=pd.Series(pd.NA, index=stretches.index, dtype="string"))
    per_time = known.groupby(["host", "observed_at"], dropna=False)["firmware"]
    read = per_time.agg(lambda texts: ", ".join(sorted(set(texts)))).astype("string").reset_index()
    by_host = read.groupby("host")["firmware"]
    steady = by_host.first()[by_host.nunique() == 1]
    ends = last_before(stretches[["host", "end"]], "end", read[read["observed_at"].notna()], "observed_at")
    return stretches.assign(firmware=stretches["host"].map(steady).astype("string").fillna(ends["firmware"]))


class _Cells(NamedTuple):
    # Host-days and crashes by (host, stratum, value), as numbers.
    host: Any
    stratum: Any
    value: Any
    days: Floats
    crashes: Floats

    def by_stratum(self, numbers: Any) -> Any:
        return np.bincount(self.stratum, numbers, int(self.stratum.max()) + 1 if len(self.stratum) else 0)


def _cells(table: pd.DataFrame, name: str, within: Sequence[str]) -> tuple[_Cells, list[str]]:
    known = table[table[name].notna() & (table["host_days"] > 0)]
    keys = [known[parent].astype("string").fillna("unknown") for parent in within]
    stratum = pd.factorize(pd.MultiIndex.from_arrays(keys))[0] if keys else np.zeros(len(known), dtype=np.int64)
    value, names = pd.factorize(known[name].astype("string"), sort=True)
    sums = pd.DataFrame({
        "host": pd.factorize(known["host"])[0], "stratum": stratum, "value": value,
        "days": known["host_days"].to_numpy(dtype=float), "crashes": known["crashes"].to_numpy(dtype=float),
    }).groupby(["host", "stratum", "value"], as_index=False).sum()  # fmt: skip
    return _Cells(*(sums[column].to_numpy() for column in _Cells._fields)), list(names)


def _tested(table: pd.DataFrame, name: str, tested: Sequence[str], alpha: float) -> list[dict[str, Any]]:
    within = [parent for parent in ATTRIBUTES[name] if parent in tested]
    others = [other for other in SHADOWS if other in tested and other != name]
    (cells, values), (wide, _) = _cells(table, name, within), _cells(table, name, others)
    rows: list[dict[str, Any]] = []
    for code, value in enumerate(values):
        if (result := _test(cells, code)) is None:
            continue
        p, observed, expected = result
        again = _test(wide, code) if others != within else result
        has = cells.value == code
        sums = [cells.by_stratum(each * side) for side in (has, ~has) for each in (cells.crashes, cells.days)]
        hosts = len(set(cells.host[has & (cells.crashes > 0)]))
        rows.append({
            "attribute": name, "value": value, "crashes": int(np.sum(cells.crashes[has])), "expected": expected,
            "host_days": float(np.sum(cells.days[has])), "hosts": hosts,
            **exact.mantel_haenszel(sums[0], sums[1], sums[2], sums[3], alpha)._asdict(), "p": p,
            "note": "all of them on one host" if observed > 1 and hosts == 1 else None, "p_given_others": again[0] if again else math.nan,
        })  # fmt: skip
    # Two values mirror each other: one test, told by the value with more crashes than expected.
    return [max(rows, key=lambda row: row["crashes"] - row["expected"])] if len(rows) == len(values) == 2 else rows


def _test(cells: _Cells, code: int) -> tuple[float, float, float] | None:
    # p, crashes observed and expected; None when no stratum holds a crash and host-days both with and without the value.
    has = cells.value == code
    days, total = cells.by_stratum(cells.days), cells.by_stratum(cells.crashes)
    days = np.where(days > 0, days, 1.0)
    share = cells.by_stratum(cells.days * has) / days
    telling = (share > 0) & (share < 1) & (total > 0)
    if not telling.any():
        return None
    inside = telling[cells.stratum]
    observed, expected = float(np.sum((cells.crashes * has)[inside])), float(np.sum((total * share)[telling]))
    # Score test with the variance taken between hosts: what one host alone does proves nothing.
    residual = (has - share[cells.stratum]) * (cells.crashes - (total / days)[cells.stratum] * cells.days)
    scores = np.bincount(cells.host[inside], residual[inside])
    spread = math.sqrt(float(np.sum(scores**2)))
    by_host = float(2 * stats.norm.sf(abs(float(scores.sum())) / spread)) if spread > 0 else 1.0
    return max(_exact_p(observed, total[telling], share[telling]), by_host), observed, expected


def _exact_p(observed: float, totals: Any, shares: Any) -> float:
    # Two-sided mid-P against the sum of one binomial a stratum.
    chance, at = np.ones(1), round(observed)
    for total, share in zip(totals, shares, strict=True):
        chance = np.convolve(chance, stats.binom.pmf(np.arange(int(total) + 1), int(total), share))
    half = chance[at] / 2
    return float(min(1.0, 2 * min(chance[:at].sum() + half, chance[at + 1 :].sum() + half)))


def _says(out: pd.DataFrame, crashes: int, days: float) -> str:
    where = f"{crashes} crash{'es' if crashes != 1 else ''} {_WHAT}in {days:,.0f} watched host-days"
    if crashes < FEW:
        return f"Nothing tested: {where}, and fewer than {FEW} crashes can tell of nothing."
    found = out[out["found"]]
    if found.empty:
        tried = ", ".join(dict.fromkeys(out["attribute"])).replace("_", " ") or "nothing"
        return f"Nothing found: {where}; tested {tried}, and none goes with them more often than chance may have it."
    rows: Any = found.assign(by_chance=100 * found["p_holm"].clip(lower=0.001)).itertuples()
    told = [f"{row.attribute.replace('_', ' ')} {row.value} ({row.crashes} crashes where {row.expected:.1f} were expected; chance does "
            f"this in {row.by_chance:.1g} % of fleets at most)" for row in rows]  # fmt: skip
    return f"Found: {'; '.join(told)}. {where}."
