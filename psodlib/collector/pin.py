"""Which hosts run the pinned driver right now: the version evidence is collected and read, nothing is inferred from history."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from psodlib.collector.folder import Folder
from psodlib.collector.plan import Target, safe_module
from psodlib.collector.pool import MAX_POOL, Collection, collect
from psodlib.collector.vcenter import collect_vcenter
from psodlib.errors import InputError
from psodlib.evidence.archives import Item
from psodlib.evidence.reading import read_item
from psodlib.evidence.sources import iter_items
from psodlib.evidence.versions import normalise
from psodlib.records import DriverReading
from psodlib.triage.boots import LOADED
from psodlib.triage.compliance import status


def verify(
    hosts: str | Path | Iterable[str | Target], out: str | Path, *, module: str = "hpsa", pin: str, **options: Any
) -> pd.DataFrame:
    """Ask every host which version of a driver it runs, and compare it with the pin.

    Parameters
    ----------
    hosts, out
        As for ``collect``; only the outputs that tell versions are fetched.
    module, pin : str
        Bare module name; version that every host should run, in any form.
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
    InputError, Interrupted
        As ``collect``, or a pin that is no version.
    """
    wanted = _wanted(pin, module)
    run = collect(hosts, out, module=module, version_only=True, **options)
    return _against(run, wanted, module, "commands")


def verify_vcenter(address: str, out: str | Path, *, module: str = "hpsa", pin: str, **options: Any) -> pd.DataFrame:
    """The same of every host of a vCenter, with further options of ``collect_vcenter``; ``why`` says where a version is only installed."""
    wanted = _wanted(pin, module)
    run = collect_vcenter(address, out, version_only=True, **{"pool": MAX_POOL, **options})
    return _against(run, wanted, module, "vcenter")


def _wanted(pin: str, module: str) -> str:
    wanted = normalise(pin, safe_module(module))
    if wanted is None:
        raise InputError(f"{pin!r} is no version; expected one as in 5.5.0.50")
    return wanted


def _against(run: Collection, pin: str, module: str, below: str) -> pd.DataFrame:
    rows = []
    for host, state, why in zip(run.hosts["host"], run.hosts["state"], run.hosts["why"], strict=True):
        reached = state in ("complete", "partial")
        readings = _readings(Folder(run.out, host), below, module) if reached else []
        version, evidence, waiting = _judge(readings)
        notes = [why]
        if version is None and waiting and not any(r.evidence != "vib_list" for r in readings):
            # vCenter's word for what is installed; the host may not have booted since.
            version, evidence, waiting = waiting, "vib_of_boot", None
            notes.append("installed; whether the host booted since is not known")
        elif reached and version is None:
            notes.insert(0, f"reached, but nothing there tells which version of {module} is loaded")
        if evidence == "conflict":
            both = " and ".join(sorted({f"{r.version} ({r.evidence})" for r in readings if r.evidence in LOADED}))
            notes.insert(0, f"two readings of one boot contradict each other: {both}")
        found = status(version, evidence, waiting, False, pin=pin)
        rows.append((host, version, evidence, waiting, found, "; ".join(filter(None, notes))))
    names = ["host", "version", "driver_evidence", "waiting", "status", "why"]
    table = pd.DataFrame(rows, columns=names, dtype="string")
    table.attrs |= {"trusted": run.trusted, "stopped": run.stopped}
    return table


def _readings(folder: Folder, below: str, module: str) -> list[DriverReading]:
    # Of the latest visit alone: what older visits gave lies in folders below, or was told at another time.
    files, manifest = sorted((folder.path / below).glob("*")), folder.manifest()
    items = iter_items(*(path for path in files if path.is_file())) if files else ()
    found = [reading for item in items if isinstance(item, Item) for reading in read_item(item)]
    told = [driver for reading in found for driver in reading.drivers if driver.module == module and driver.version]
    if below == "vcenter":
        told = [r for r in told if manifest and r.observed_at and r.observed_at.isoformat() == manifest.started]
    return told


def _judge(readings: list[DriverReading]) -> tuple[str | None, str, str | None]:
    # (version loaded, by which evidence, another version that waits for the next boot)
    loaded = [(r.version, LOADED[by]) for by in LOADED for r in readings if r.evidence == by and r.state == "loaded"]
    version, evidence = loaded[0] if loaded else (None, "none")
    if len({found for found, _ in loaded}) > 1:
        evidence = "conflict"  # one visit sees one boot, and a driver cannot change under a boot
    held = [r.version for state in ("pending", "installed") for r in readings if r.state == state]
    waiting = held[0] if held and held[0] != version else None
    return version, evidence, waiting
