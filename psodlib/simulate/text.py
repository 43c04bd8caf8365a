"""The made-up life of one host -> the text of its logs and command outputs, as ESXi 5.5 writes them.

Each writer takes a `Story` and gives lines with their times; `folder.py` rotates, packs and damages them. A gap in the
logs is no line at all.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import NamedTuple

from psodlib.simulate.process import MODULE
from psodlib.simulate.psods import dump_text, stamp

__all__ = [
    "VIBS", "Boot", "Crash", "Install", "Line", "Story",
    "command_outputs", "dump_log", "esxupdate_log", "vmkernel_lines", "vmksummary_log",
]  # fmt: skip

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
HOUR, DAY = 3_600_000, 86_400_000
# Driver version -> version of the VIB that brings it. The tail names the ESXi line it was built for, not the host's.
VIBS = {
    "5.5.0.50": "5.5.0.50-1OEM.550.0.0.1198611",
    "5.5.0.58": "5.5.0.58-1OEM.550.0.0.1331820",
    "5.5.0.60": "5.5.0.60-1OEM.550.0.0.1331820",
}
# Drivers in the order in which they load.
LOADED = ("vmklinux_9", "usb", "hpsa", "lpfc", "vmfs3", "e1000", "bnx2x", "tcpip3")
DISK = "naa.600508b1001c2f3a7d1e0b9c4f5a6d7e"


class Line(NamedTuple):
    """One log entry: milliseconds since 1970, and what it says behind its time."""

    time: int
    text: str


class Boot(NamedTuple):
    """One boot; times in milliseconds since 1970. ``entry`` is when the study began to see it."""

    start: int
    entry: int
    end: int
    end_reason: str
    version: str
    build: str


class Crash(NamedTuple):
    """One crash. ``form`` says what is left of it: whole, bare (nobody named), cut (ends early), none (no dump log)."""

    time: int
    boot: int
    kind: str
    module: str | None
    form: str


class Install(NamedTuple):
    """One change of the installed driver."""

    time: int
    version: str
    removed: str


@dataclass(frozen=True)
class Story:
    """All that happened to one host, and when its evidence was collected; times in milliseconds since 1970."""

    host: str
    model: str
    vms: int
    boots: tuple[Boot, ...]
    crashes: tuple[Crash, ...]
    installs: tuple[Install, ...]
    gaps: tuple[tuple[int, int], ...]
    collected: int
    chatty: bool = False

    def seen(self, lines: Iterable[Line]) -> list[Line]:
        """Lines in order of time, without those in a gap or after the collection."""
        return [
            line
            for line in sorted(lines, key=lambda line: line.time)
            if line.time <= self.collected and not any(start <= line.time < end for start, end in self.gaps)
        ]

    @property
    def last(self) -> Boot:
        """The boot that was running, or had just ended, when the evidence was collected."""
        return self.boots[-1]


def vmksummary_log(story: Story) -> list[Line]:
    """Heartbeats on the hour, and how each boot began and ended."""
    return story.seen(line for number in range(len(story.boots)) for line in _summary_of_boot(story, number))


def _summary_of_boot(story: Story, number: int) -> Iterator[Line]:
    boot = story.boots[number]
    up = boot.start + 150_000  # the services that write this log come up a while after the kernel
    if boot.start >= boot.entry and up < boot.end:
        yield Line(up - 20_000, "mark: storage-path-claim-completed")
        if number and story.boots[number - 1].end_reason == "crash":
            yield Line(up - 4_000, "bootstop: partition core dump found")
        yield Line(up, "bootstop: Host has booted")
    first = -(-max(up, boot.entry) // HOUR) * HOUR + 1000
    for time in range(first, boot.end, HOUR):
        seconds = (time - boot.start) // 1000
        clock = f"{seconds // 86400}d{seconds // 3600 % 24}h{seconds // 60 % 60}m{seconds % 60}s"
        yield Line(time, f"heartbeat: up {clock}, {story.vms} VMs; [] []")
    if boot.end_reason == "reboot":
        yield Line(boot.end - 1000, "bootstop: Host is rebooting")


def vmkernel_lines(story: Story, rng: Random) -> list[Line]:
    """What the vmkernel said: boot banners, driver loads, ordinary noise, and what foretells some driver crashes."""
    lines: list[Line] = []
    for boot in story.boots:
        if boot.start >= boot.entry:
            lines += (line for line in _boot_lines(boot, rng) if line.time < boot.end)
        lines += _noise(boot, story.chatty, story.collected, rng)
    for crash in story.crashes:
        if crash.module == MODULE and crash.form == "whole":
            lines += _precursors(crash, rng)
    return sorted(lines, key=lambda line: line.time)


def _boot_lines(boot: Boot, rng: Random) -> Iterator[Line]:
    time = boot.start + 2_000
    yield Line(time, f"cpu0:32768)VMware ESXi 5.5.0 [Releasebuild-{boot.build} x86_64]")
    for number, module in enumerate(LOADED):
        time += rng.randrange(200, 1200)
        world = f"cpu{rng.randrange(24)}:{33200 + number})"
        yield Line(time, f"{world}Loading module {module} ...")
        yield Line(
            time + 4, f"{world}Elf: 1861: module {module} has license {'VMware' if module == 'vmfs3' else 'GPL'}"
        )
        if module == MODULE:
            yield Line(time + 31, f"{world}<6>HP HPSA Driver (v {boot.version}-1OEM)")
            yield Line(time + 32, f"{world}<6>hpsa 0000:03:00.0: hpsa0: <0x323b> at IRQ 56 using DAC")
        yield Line(time + 90, f"{world}Mod: 4780: Initialization of {module} succeeded with module ID {number + 40}.")
        yield Line(time + 91, f"{world}{module} loaded successfully.")


# Ordinary noise: nothing of this is a crash, or foretells one.
NOISE = (
    "ScsiDeviceIO: 2338: Cmd(0x4124{n:08x}) 0x1a, CmdSN 0x{m:x} from world 0 to dev \"" + DISK + "\" failed "
    "H:0x0 D:0x2 P:0x0 Valid sense data: 0x5 0x24 0x0.",
    "NMP: nmp_ThrottleLogForDevice:2321: Cmd 0x85 (0x4124{n:08x}, 34545) to dev \"" + DISK + "\" on path "
    "\"vmhba2:C0:T0:L1\" Failed: H:0x0 D:0x2 P:0x0 Valid sense data: 0x5 0x20 0x0. Act:NONE",
    "World: 8773: vmm0:XENAPP{m:02d}: vmm group {n}",
    "Net: 2312: connected XENAPP{m:02d} eth0 to VM Network, portID 0x20000{m:02x}",
    "<6>bnx2x 0000:04:00.0: vmnic0: NIC Link is Up, 10000 Mbps full duplex",
)  # fmt: skip


def _noise(boot: Boot, chatty: bool, collected: int, rng: Random) -> Iterator[Line]:
    time = float(boot.entry)
    while True:
        # A chatty host fills its log in the last weeks before the collection, one complaint over and over.
        storm = chatty and time > collected - 30 * DAY
        time += rng.uniform(0.5, 1.5) * (4 * 60_000 if storm else 2 * DAY)
        if time >= boot.end - 1000:
            return
        text = NOISE[0] if storm else rng.choice(NOISE)
        body = text.format(n=rng.randrange(2**28), m=rng.randrange(1, 60))
        yield Line(int(time), f"cpu{rng.randrange(24)}:{rng.randrange(32768, 99999)}){body}")


# What an hpsa that runs out of memory says before it takes the host with it.
PRECURSORS = (
    "WARNING: Heap: 2900: Heap_Align(vmklnx_hpsa, 6184/6184 bytes, 8 align) failed.  caller: 0x41801{n:07x}",
    "WARNING: LinDMA: Linux_DMACheckConstraints:149: Cannot map machine address = 0x{n:x}, length = 36 for device "
    "0000:03:00.0; reason = buffer straddles device dma boundary (0xffffffff)",
    "<4>hpsa 0000:03:00.0: out of memory",
    "<4>hpsa 0000:03:00.0: resetting device 2:0:0:1",
)  # fmt: skip


def _precursors(crash: Crash, rng: Random) -> Iterator[Line]:
    if rng.random() < 0.6:
        return
    first = max(crash.time - rng.randrange(5, 40) * 60_000, crash.boot + 180_000)
    for number, text in enumerate(rng.sample(PRECURSORS, rng.randint(1, 3))):
        time = first + number * 45_000
        if time < crash.time:
            yield Line(time, f"cpu{rng.randrange(24)}:{33202}){text.format(n=rng.randrange(2**24, 2**28))}")


def esxupdate_log(story: Story) -> list[Line]:
    """Every change of the installed hpsa driver, from the day the host was built."""
    first = story.boots[0]
    built = Install(first.start - DAY, story.installs[0].removed if story.installs else first.version, "")
    lines = [line for install in (built, *story.installs) for line in _install_lines(install)]
    return [line for line in lines if line.time <= story.collected]


def _install_lines(install: Install) -> Iterator[Line]:
    said = (
        "HostImage: INFO: Attempting to download VIB scsi-hpsa",
        f"Transaction: INFO: Final list of VIBs being installed is {_vib_id(install.version)}",
        *(
            [f"Transaction: INFO: Final list of VIBs being removed is {_vib_id(install.removed)}"]
            if install.removed
            else []
        ),
        "HostImage: DEBUG: Host is remediated by installer: locker, boot",
        "vmware.runcommand: INFO: runcommand called with: args = '/sbin/backup.sh 0 /altbootbank', outfile = 'None', "
        "returnoutput = 'True', timeout = '0.0'.",
        "BootBankInstaller.pyc: INFO: boot config of '/altbootbank' is being updated, 5",
        "root: DEBUG: Finished execution of command = vib.install",
    )
    for number, text in enumerate(said):
        yield Line(install.time + (number - len(said)) * 2000, f"esxupdate: {text}")


def _vib_id(version: str) -> str:
    return f"Hewlett-Packard_bootbank_scsi-hpsa_{VIBS[version]}"


def dump_log(story: Story, crash: Crash, said: Sequence[Line], rng: Random) -> str:
    """The text of one crash's dump log: the last lines of the kernel's ring buffer, then the PSOD."""
    boot = next(boot for boot in story.boots if boot.start == crash.boot)
    ring = [line for line in said if crash.boot <= line.time < crash.time][-12:]
    text = dump_text(
        crash.kind, crash.module, crash.time, crash.time - crash.boot, boot.build, rng, bare=crash.form != "whole"
    )
    if crash.form == "cut":
        text = text[: text.index("Code start") + rng.randrange(60, 120)]
    return "".join(f"{stamp(line.time)} {line.text}\n" for line in ring) + text


# --- Command outputs -----------------------------------------------------------------------------------------------


def command_outputs(story: Story) -> dict[str, str]:
    """What the host answered when the evidence was collected, by file name as a support bundle spells it."""
    boot, now = story.last, story.collected
    seconds = (now - boot.start) // 1000
    loaded, installed = boot.version, story.installs[-1].version if story.installs else boot.version
    out = {
        "date.txt": _date(now),
        "uname_-a.txt": f"VMkernel {story.host} 5.5.0 #1 SMP Release build-{boot.build} Feb  1 2014 03:04:31 x86_64 "
        "GNU/Linux\n",
        "uptime.txt": f" {stamp(now)[11:19]} up {seconds // 86400} days, {seconds // 3600 % 24:02d}:"
        f"{seconds // 60 % 60:02d}:{seconds % 60:02d}, load average: 0.21, 0.19, 0.20\n",
        "localcli_system-stats-uptime-get.txt": f"{(now - boot.start) * 1000}\n",
        "localcli_system-version-get.txt": "   Product: VMware ESXi\n   Version: 5.5.0\n"
        f"   Build: Releasebuild-{boot.build}\n   Update: {0 if boot.build == '1331820' else 1}\n",
        "localcli_hardware-platform-get.txt": _platform(story),
        "localcli_software-vib-list.txt": _vib_list(story, installed),
        "esxcfg-module_-q.txt": "".join(f"{module}\n" for module in ("vmkernel", *LOADED)),
        "cat_procscsihpsa2.txt": f"HP HPSA Driver (v {loaded}-1OEM)\nhpsa0: SCSI host: 2 nr_cmds: 1020\n"
        "c0b0t0l1 00 0x01000040 0x00000000\n",
    }
    if installed != loaded:
        out["localcli_software-vib-list---rebooting-image.txt"] = _vib_list(story, installed)
    return out


def _date(time: int) -> str:
    day = datetime.fromtimestamp(time / 1000, UTC)
    return f"{DAYS[day.weekday()]} {MONTHS[day.month - 1]} {day.day:2d} {day:%H:%M:%S} UTC {day.year}\n"


def _platform(story: Story) -> str:
    serial = f"CZ{zlib.crc32(story.host.encode()):08X}"
    return (
        "Platform Information\n   UUID: 0x6 0x4d 0x15 0x53 0x6a 0xf0 0xe1 0x11 0xa6 0xcf 0x0 0x1e 0x67 0x62 0xca 0xa\n"
        f"   Product Name: {story.model}\n   Vendor Name: HP\n   Serial Number: {serial}\n"
        f"   Enclosure Serial Number: {serial}\n   BIOS Asset Tag: \n   IPMI Supported: true\n"
    )


def _vib_list(story: Story, installed: str) -> str:
    day = stamp(story.installs[-1].time if story.installs else story.boots[0].start - DAY)[:10]
    built = stamp(story.boots[0].start - DAY)[:10]
    rows = [
        ("Name", "Version", "Vendor", "Acceptance Level", "Install Date"),
        ("esx-base", f"5.5.0-1.15.{story.last.build}", "VMware", "VMwareCertified", built),
        ("hp-ams", "550.9.6.0-12.1198610", "Hewlett-Packard", "PartnerSupported", built),
        ("net-bnx2x", "1.72.56.v55.2-1vmw.550.0.0.1331820", "VMware", "VMwareCertified", built),
        ("net-e1000", "8.0.3.1-3vmw.550.0.0.1331820", "VMware", "VMwareCertified", built),
        ("scsi-hpsa", VIBS[installed], "Hewlett-Packard", "VMwareCertified", day),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines) + "\n"
