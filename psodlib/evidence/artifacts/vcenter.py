"""What `collect_vcenter` wrote of a host: its inventory, packages, modules, devices and events, each with its own word of evidence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from psodlib.evidence.artifacts.findings import Findings, Part
from psodlib.evidence.versions import normalise
from psodlib.records import Alive, DriverReading, HostFact, Mark, Problem

__all__ = ["read_vcenter"]

Row = dict[str, Any]
Rows = Iterable[tuple[int, Row]]

# What an event says of a boot or of how it ended. A crash is told at the boot after it, as a found dump is. An event about a host
# (HA, a lost connection) is no sign of life of it.
MARKS = {
    "esx.audit.host.boot": "booted", "esx.audit.host.stop.reboot": "rebooting", "esx.audit.host.stop.shutdown": "powering_off",
    "esx.audit.host.crash.reason": "core_dump_found", "esx.audit.host.crash.available": "core_dump_found",
    "esx.audit.host.crash.unavailable": "core_dump_found", "com.vmware.vc.HA.DasHostFailedEvent": "failed_over", "DasHostFailedEvent": "failed_over",
}  # fmt: skip
PLANNED = ("esx.audit.host.reboot.reason.", "esx.audit.host.quickboot.reason.")
POWERED = ("esx.audit.host.poweroff.reason.",)


def read_vcenter(part: Part, found: Findings) -> None:
    """One file of it: a head that says what it holds, then a JSON object a line."""
    lines = iter(part.lines)
    try:
        head: Row = dict(json.loads(next(lines)[1]))
    except (ValueError, TypeError, RecursionError, StopIteration):
        found.problems.append(
            Problem(source=part.source, problem="bad_line", line=1, detail="no head that can be read")
        )
        return
    found.host = str(head.get("host")) if head.get("host") else found.host
    read = _READERS.get(str(head.get("psod_vcenter")))
    rows: list[tuple[int, Row]] = []
    for number, text in lines:
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append((number, row))
        else:
            found.problems.append(Problem(source=part.source, problem="bad_line", line=number, detail="no JSON object"))
    if read is not None:
        found.understood = True
        read(rows, part.source, head, found)


def _time(value: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return time if time.tzinfo and 1990 < time.year < 2200 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _host(rows: Rows, source: str, head: Row, found: Findings) -> None:
    # Host-days from a boot time favour survivors: they are counted back to the oldest event kept, and no further.
    taken, since = _time(head.get("taken")), _time(head.get("events_since"))
    for number, row in rows:
        found.facts.append(HostFact(
            host=found.host, esxi_version=_text(row.get("esxi_version")), esxi_build=_text(row.get("esxi_build")), vendor=_text(row.get("vendor")),
            model=_text(row.get("model")), time=taken, source=source,
            columns=tuple((name, row[name]) for name in ("cluster", "datacenter", "vms", "bios", "connection") if isinstance(row.get(name), (str, int))),
        ))  # fmt: skip
        boot = _time(row.get("boot_time"))
        if boot and taken and boot <= taken and row.get("connection") == "connected":
            start = max(boot, since) if since else taken
            found.alive.append(Alive(start=start, end=taken, boot=boot, evidence="vcenter", source=source, line=number))


def _packages(rows: Rows, source: str, head: Row, found: Findings) -> None:
    # Installed is not loaded: a package may wait for a boot.
    taken = _time(head.get("taken"))
    for number, row in rows:
        name, version = _text(row.get("name")), _text(row.get("version"))
        if name and version:
            module = (
                name.partition("-")[2]
                if name.startswith(
                    ("scsi-", "net-", "sata-", "block-", "misc-", "ima-", "ipmi-", "uhci-", "ohci-", "ehci-", "xhci-")
                )
                else name
            )
            found.drivers.append(DriverReading(
                module=module.replace("-", "_"), version=normalise(version, module.replace("-", "_")), vib=name, state="installed", observed_at=taken,
                evidence="vib_list", source=source, line=number,
            ))  # fmt: skip


def _modules(rows: Rows, source: str, head: Row, found: Findings) -> None:
    taken = _time(head.get("taken"))
    for number, row in rows:
        name, version = _text(row.get("name")), _text(row.get("version"))
        if name and row.get("loaded") is True:
            words = version.removeprefix("Version ").split(",")[0].strip() if version else None
            found.drivers.append(DriverReading(
                module=name, version=normalise(words, name) if words else None, state="loaded", observed_at=taken, evidence="live_module", source=source, line=number,
            ))  # fmt: skip


def _devices(rows: Rows, source: str, head: Row, found: Findings) -> None:
    taken = _time(head.get("taken"))
    for number, row in rows:
        driver = _text(row.get("driver"))
        if driver:
            version = _text(row.get("version"))
            found.drivers.append(DriverReading(
                module=driver, version=normalise(version, driver) if version else None, state="loaded", observed_at=taken, evidence="adapter_list",
                device=_text(row.get("device")), address=_text(row.get("pci")), firmware=_text(row.get("firmware")), source=source, line=number,
            ))  # fmt: skip


def _events(rows: Rows, source: str, head: Row, found: Findings) -> None:
    # As long as events are kept, a host lived from its boot to the event that ends it; the last boot is in the inventory.
    for number, row in rows:
        kind, time = _text(row.get("kind")) or "", _time(row.get("time"))
        what = MARKS.get(kind) or (
            "rebooting" if kind.startswith(PLANNED) else "powering_off" if kind.startswith(POWERED) else None
        )
        if what and time:
            found.marks.append(Mark(time=time, what=what, evidence="vcenter", source=source, line=number))
    since, boot = _time(head.get("events_since")), None
    for mark in sorted(found.marks, key=lambda mark: mark.time):
        if mark.what == "booted":
            since = boot = mark.time
        elif mark.what != "core_dump_found" and since is not None:
            found.alive.append(
                Alive(start=since, end=mark.time, boot=boot, evidence="vcenter", source=source, line=mark.line)
            )
            since = boot = None


_READERS: dict[str, Callable[[Rows, str, Row, Findings], None]] = {
    "host": _host, "packages": _packages, "modules": _modules, "devices": _devices, "events": _events,
}  # fmt: skip
