"""What `collect_vcenter` wrote of a host: its inventory, packages, modules, devices and events, each with its own word of evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from psodlib.evidence.artifacts.findings import Findings, Part
from psodlib.evidence.streams import noted
from psodlib.records import Alive, Mark

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
# These name the cluster, or the host that took over.
OF_CLUSTER = ("failover_begun", "failover_done", "vm_restarted", "vm_lost")
NOTICED = timedelta(minutes=5)  # that HA and vCenter may need to see that a host is gone
BOOTING = timedelta(minutes=30)
DUMP_DELAY = timedelta(hours=1)


def meaning_of(kind: str | None) -> str | None:
    """What an event says, by its id; None where it is nothing to us."""
    word = (kind or "").lower()
    return MEANINGS.get(word) or next((MEANINGS[begin] for begin in _BEGINNINGS if word.startswith(begin)), None)


Word = str | None
Time = Annotated[datetime, msgspec.Meta(tz=True)] | None


class _Row(msgspec.Struct, kw_only=True):
    """What any line of any of the files may hold; the first, the head, says what the others are."""

    psod_vcenter: str = ""
    host: Word = None
    taken: Time = None
    events_since: Time = None
    # the inventory
    esxi_version: Word = None
    esxi_build: Word = None
    vendor: Word = None
    model: Word = None
    bios: Word = None
    cluster: Word = None
    datacenter: Word = None
    vms: int | None = None
    connection: Word = None
    boot_time: Time = None
    # packages, modules, devices
    name: Word = None
    version: Word = None
    loaded: bool = False
    driver: Word = None
    device: Word = None
    pci: Word = None
    firmware: Word = None
    # events
    kind: Word = None
    time: Time = None
    words: Word = None
    vm: Word = None
    among: int = 1

    def __post_init__(self) -> None:
        for name in ("taken", "events_since", "boot_time", "time"):
            told = getattr(self, name)
            if told is not None and not 1990 < told.year < 2200:
                raise ValueError(f"{name} is {told:%Y}; expected a year from 1991 to 2199")


_decode = msgspec.json.Decoder(_Row).decode
Rows = list[tuple[int, _Row]]


def read_vcenter(part: Part, found: Findings) -> None:
    """One file of it: a head that says what it holds, then a JSON object a line."""
    rows: Rows = []
    for number, text in part.lines:
        try:
            if text.strip():
                rows.append((number, _decode(text)))
        except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as error:
            detail = f"found no row of vCenter's: {error}"[:200]
            found.problems.append(noted(part.source, "bad_line", detail, number))
    head = rows[0][1] if rows else _Row()
    if head.psod_vcenter in _READERS:
        found.host, found.understood = head.host or found.host, True
        _READERS[head.psod_vcenter](rows[1:], part, head, found)


def _host(rows: Rows, part: Part, head: _Row, found: Findings) -> None:
    # Host-days from a boot time favour survivors: they are counted back to the oldest event kept, and no further.
    for number, row in rows:
        told = [(name, getattr(row, name)) for name in ("cluster", "datacenter", "vms", "bios", "connection")]
        found.fact(
            part, host=found.host, esxi_version=row.esxi_version, esxi_build=row.esxi_build, vendor=row.vendor, model=row.model,
            time=head.taken, columns=tuple((name, value) for name, value in told if value is not None),
        )  # fmt: skip
        boot, taken = row.boot_time, head.taken
        if boot and taken and boot <= taken and row.connection == "connected":
            start = max(boot, head.events_since) if head.events_since else taken
            lived = Alive(start=start, end=taken, boot=boot, evidence="vcenter", source=part.source, line=number)
            found.alive.append(lived)


def _drivers(rows: Rows, part: Part, head: _Row, found: Findings) -> None:
    # Installed is not loaded: a package may wait for a boot.
    state, evidence = DRIVERS[head.psod_vcenter]
    is_package = evidence == "vib_list"
    for number, row in rows:
        name = row.name or row.driver
        if name and (row.version or not is_package) and (row.loaded or evidence != "live_module"):
            words = (row.version or "").removeprefix("Version ").split(",")[0].strip()
            (found.vib if is_package else found.driver)(
                part, number, name, words, state=state, observed_at=head.taken, evidence=evidence, device=row.device,
                address=row.pci, firmware=row.firmware,
            )  # fmt: skip


def _events(rows: Rows, part: Part, head: _Row, found: Findings) -> None:
    for number, row in rows:
        what = meaning_of(row.kind)
        if what and row.time:
            text = (row.words or what) + (f" ({row.among} hosts were lost then)" if row.among > 1 else "")
            told = Mark(
                time=row.time, what=what, evidence="vcenter", text=text, vm=row.vm, source=part.source, line=number
            )
            found.marks.append(told)
    found.marks.sort(key=lambda mark: mark.time)
    _lives(found, part.source, head.events_since)


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


DRIVERS = {
    "packages": ("installed", "vib_list"), "modules": ("loaded", "live_module"), "devices": ("loaded", "adapter_list"),
}  # fmt: skip
_READERS: dict[str, Callable[[Rows, Part, _Row, Findings], None]] = {
    "host": _host, "events": _events, **dict.fromkeys(DRIVERS, _drivers),
}  # fmt: skip
