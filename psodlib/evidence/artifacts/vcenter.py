"""What `collect_vcenter` wrote of a host: its inventory, packages, modules, devices and events, each with its own word of evidence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from psodlib.evidence.artifacts.findings import Findings, Part
from psodlib.evidence.versions import normalise
from psodlib.records import Alive, DriverReading, HostFact, Mark, Problem

__all__ = ["AWAY", "OF_CLUSTER", "meaning_of", "read_vcenter"]

Row = dict[str, Any]
Rows = Iterable[tuple[int, Row]]

# An event's id -> what it says, in our words. An id that ends in a dot stands for all that begin with it; capitals differ in vCenter
# itself. `what` are marks of boots or of how they ended, or what vCenter saw of the host, which is no sign of life of it.
MEANINGS = {
    "esx.audit.host.boot": "booted", "esx.audit.host.stop.reboot": "rebooting", "esx.audit.host.stop.shutdown": "powering_off",
    "esx.audit.host.reboot.reason.": "rebooting", "esx.audit.host.quickboot.reason.": "rebooting", "esx.audit.host.poweroff.reason.": "powering_off",
    "esx.audit.host.crash.": "core_dump_found", "esx.problem.host.coredump": "dump_unread",
    "com.vmware.vc.ha.dashostfailedevent": "failed_over", "dashostfailedevent": "failed_over", "com.vmware.vc.ha.dashostisolatedevent": "isolated",
    "dashostisolatedevent": "isolated", "com.vmware.vc.ha.hoststatechangedevent": "ha_state",
    "com.vmware.vc.ha.clusterfailoveractioninitiatedevent": "failover_begun", "com.vmware.vc.ha.clusterfailoveractioncompletedevent": "failover_done",
    "com.vmware.vc.ha.vmrestartedbyhaevent": "vm_restarted", "vmrestartedonalternatehostevent": "vm_restarted", "vmfailoverfailed": "vm_lost",
    "hostconnectionlostevent": "disconnected", "hostconnectedevent": "reconnected", "hostdisconnectedevent": "taken_out", "hostaddedevent": "added",
    "enteredmaintenancemodeevent": "maintenance", "exitmaintenancemodeevent": "maintenance_over", "hostshutdownevent": "powering_off",
    "esx.problem.hostd.core.dumped": "hostd_dumped", "esx.audit.esximage.": "patched", "esx.audit.software.apply.succeeded": "patched",
}  # fmt: skip
_BEGINNINGS = tuple(word for word in MEANINGS if word.endswith("."))
ENDS = ("rebooting", "powering_off")
AWAY = ("failed_over", "disconnected")
OF_CLUSTER = (
    "failover_begun",
    "failover_done",
    "vm_restarted",
    "vm_lost",
)  # name the cluster or the host that took over
NOTICED = timedelta(minutes=5)  # that HA and vCenter may need to see that a host is gone
BOOTING = timedelta(minutes=30)
DUMP_DELAY = timedelta(hours=1)


def meaning_of(kind: str | None) -> str | None:
    """What an event says, by its id; None where it is nothing to us."""
    word = (kind or "").lower()
    return MEANINGS.get(word) or next((MEANINGS[begin] for begin in _BEGINNINGS if word.startswith(begin)), None)


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
    for number, row in rows:
        what, time = meaning_of(_text(row.get("kind"))), _time(row.get("time"))
        if what and time:
            among = row.get("among")
            text = " ".join(
                filter(
                    None,
                    [
                        _text(row.get("words")),
                        f"({among} hosts were lost then)" if isinstance(among, int) and among > 1 else "",
                    ],
                )
            )
            found.marks.append(
                Mark(
                    time=time,
                    what=what,
                    evidence="vcenter",
                    text=text or what,
                    vm=_text(row.get("vm")),
                    source=source,
                    line=number,
                )
            )
    found.marks.sort(key=lambda mark: mark.time)
    _lives(found, source, _time(head.get("events_since")))


def _lives(found: Findings, source: str, since: datetime | None) -> None:
    # As long as events are kept, a host lived from its boot to what ended it; the last boot's life is in the inventory. A host
    # that was lost and came back without a boot had lived on.
    start, until, end, back, fell = since, None, None, None, False
    for at, mark in enumerate(found.marks):
        since_boot = mark.time - start if start and start != since else None
        if mark.what == "booted":
            if back and mark.time - back > BOOTING:
                end = None
            fell = end is not None and end.what in AWAY
            until = end.time - (NOTICED if fell else timedelta(0)) if end else mark.time - NOTICED
            if start and end:
                until = max(start, until)
                found.alive.append(Alive(start=start, end=until, evidence="vcenter", source=source, line=end.line))
            start, end, back = mark.time, None, None
        elif mark.what in ENDS and until and since_boot is not None and since_boot <= BOOTING:
            found.marks[at] = replace(mark, time=until)  # why it booted, told after the boot
        elif mark.what in (*ENDS, *AWAY):
            if end is None or (back and back > end.time):
                end, back = mark, None
        elif mark.what == "reconnected":
            back = mark.time
        elif mark.what == "dump_unread" and fell and since_boot is not None and since_boot <= DUMP_DELAY:
            found.marks[at] = replace(mark, what="core_dump_found")  # it may be an old one, but not after a fall


_READERS: dict[str, Callable[[Rows, str, Row, Findings], None]] = {
    "host": _host, "packages": _packages, "modules": _modules, "devices": _devices, "events": _events,
}  # fmt: skip
