"""Which hosts run the pinned driver right now: the version evidence is collected and read, nothing is inferred from history."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from psodlib.collector.folder import Folder
from psodlib.collector.hosts import Target
from psodlib.collector.plan import safe_module
from psodlib.collector.pool import collect
from psodlib.errors import InputError
from psodlib.evidence.reading import read_item
from psodlib.evidence.sources import Item, iter_items
from psodlib.evidence.versions import normalise
from psodlib.records import DriverReading
from psodlib.triage.boots import LOADED
from psodlib.triage.compliance import status

__all__ = ["verify"]


def verify(
    hosts: str | Path | Iterable[str | Target], out: str | Path, *, module: str = "hpsa", pin: str, **options: Any
) -> pd.DataFrame:
    """Ask every host which version of a driver it runs, and compare it with the pin.

    Parameters
    ----------
    hosts, out
        As for ``collect``; only the outputs that tell versions are fetched.
    module : str
        Bare module name.
    pin : str
        Version that every host should run, in any form.
    **options
        Further options of ``collect``.

    Returns
    -------
    pandas.DataFrame
        One row a host in the order given: ``host``, ``version`` (loaded now), ``driver_evidence`` (proc, live_module, none, conflict), ``waiting`` (another
        version that the next boot will load), ``status``, ``why``. ``status``: ``runs``; ``about_to_drift`` (runs the pin, another version
        waits); ``installed_not_booted`` (the pin waits for a boot); ``other``; ``unknown`` (not reached, no evidence, or readings that contradict each other).
        ``.attrs["trusted"]`` lists the host keys that were trusted on first use, to be compared, ``.attrs["stopped"]`` why the run ended
        early, "" if it did not.

    Raises
    ------
    InputError
        As ``collect``, or a pin that is no version.
    Interrupted
        As ``collect``.
    """
    wanted = normalise(pin, safe_module(module))
    if wanted is None:
        raise InputError(f"{pin!r} is no version; expected one as in 5.5.0.50")
    run = collect(hosts, out, module=module, version_only=True, **options)
    rows = []
    for host, reached, why in zip(
        run.hosts["host"], run.hosts["state"].isin(["complete", "partial"]), run.hosts["why"], strict=True
    ):
        readings = _readings(Folder(run.out, host).path / "commands", module) if reached else []
        version, evidence, waiting = _judge(readings)
        if reached and version is None:
            why = "; ".join(
                filter(None, [f"reached, but nothing there tells which version of {module} is loaded", why])
            )
        if evidence == "conflict":
            both = " and ".join(sorted({f"{r.version} ({r.evidence})" for r in readings if r.evidence in LOADED}))
            why = "; ".join(filter(None, [f"two readings of one boot contradict each other: {both}", why]))
        rows.append((host, version, evidence, waiting, status(version, evidence, waiting, False, pin=wanted), why))
    columns = ["host", "version", "driver_evidence", "waiting", "status", "why"]
    table = pd.DataFrame(rows, columns=columns, dtype="string")
    table.attrs |= {"trusted": run.trusted, "stopped": run.stopped}
    return table


def _readings(folder: Path, module: str) -> list[DriverReading]:
    # Of the latest visit alone: what older visits gave lies in folders below.
    if not folder.is_dir():
        return []
    items = iter_items(*(path for path in sorted(folder.iterdir()) if path.is_file()))
    found = [reading for item in items if isinstance(item, Item) for reading in read_item(item)]
    return [driver for reading in found for driver in reading.drivers if driver.module == module and driver.version]


def _judge(readings: list[DriverReading]) -> tuple[str | None, str, str | None]:
    # (version loaded, by which evidence, another version that waits for the next boot)
    loaded = [
        (r.version, LOADED[kind]) for kind in LOADED for r in readings if r.evidence == kind and r.state == "loaded"
    ]
    version, evidence = loaded[0] if loaded else (None, "none")
    if len({found for found, _ in loaded}) > 1:
        evidence = "conflict"  # one visit sees one boot, and a driver cannot change under a boot
    held = [r.version for state in ("pending", "installed") for r in readings if r.state == state]
    waiting = held[0] if held and held[0] != version else None
    return version, evidence, waiting
