"""The made-up life of one host -> the text of its logs, dump logs and command outputs, as its release writes them.

Each writer takes a `Life` and gives lines with their times; `folder.py` rotates, packs and damages them. A gap in the
logs is no line at all. Addresses of a PSOD follow one made-up but consistent layout of modules, so that a module map can
name what the frames of 5.5 print as ``<None>``; later releases print a driver in parentheses.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any, NamedTuple

from psodlib.simulate.stories import Story

HOUR, DAY = 3_600_000, 86_400_000
_EPOCH = datetime(1970, 1, 1)
LAYERS = {"vmkernel": "vmkernel#nover", "vmklinux_9": "com.vmware.driverAPI#9.2"}
PCPUS = 24


class Line(NamedTuple):
    """One log entry: milliseconds since 1970, and what it says behind its time."""

    time: int
    text: str


@dataclass(frozen=True)
class Life:
    """All that happened to one host, and when its evidence was collected; times in milliseconds since 1970.

    The rows are those of a ``History``. A boot's ``entry`` is when the study began to see it. A crash's ``form`` says
    what is left of it: whole, bare (nobody named), cut (ends early), none (no dump log).
    """

    story: Story
    host: str
    model: str
    vms: int
    boots: list[Any]  # start, entry, end, end_reason, version, build, firmware
    crashes: list[Any]  # time, boot, kind, module, form
    installs: list[Any]  # time, version, removed, firmware, firmware_removed
    gaps: list[Any]  # start, end
    collected: int
    chatty: bool = False

    def seen(self, lines: Iterable[Line]) -> list[Line]:
        """Lines in order of time, without those in a gap or after the collection."""
        said = sorted((line for line in lines if line.time <= self.collected), key=lambda line: line.time)
        return [line for line in said if not any(gap.start <= line.time < gap.end for gap in self.gaps)]


def vmksummary_log(life: Life) -> list[Line]:
    """Heartbeats on the hour, and how each boot began and ended."""
    lines = life.seen(line for number in range(len(life.boots)) for line in _summary_of_boot(life, number))
    if life.story.release < "7":
        return lines
    # From 7.0 on the writers' process ids stand there, from 8.0 on severity and program as in every log.
    head, out = "In(14) " if life.story.release >= "8" else "", []
    for line in lines:
        program, _, rest = line.text.partition(": ")
        pid = 2_000_000 + zlib.crc32(f"{life.host}{program}".encode()) % 200_000
        out.append(Line(line.time, f"{head}{program}[{pid}]: {rest}"))
    return out


def _summary_of_boot(life: Life, number: int) -> Iterator[Line]:
    boot = life.boots[number]
    up = boot.start + 150_000  # the services that write this log come up a while after the kernel
    if boot.start >= boot.entry and up < boot.end:
        yield Line(up - 20_000, "mark: storage-path-claim-completed")
        if number and life.boots[number - 1].end_reason == "crash":
            yield Line(up - 4_000, "bootstop: partition core dump found")
        yield Line(up, "bootstop: Host has booted")
    first = -(-max(up, boot.entry) // HOUR) * HOUR + 1000
    for time in range(first, boot.end, HOUR):
        seconds = (time - boot.start) // 1000
        clock = f"{seconds // 86400}d{seconds // 3600 % 24}h{seconds // 60 % 60}m{seconds % 60}s"
        yield Line(time, f"heartbeat: up {clock}, {life.vms} VMs; [] []")
    if boot.end_reason == "reboot":
        yield Line(boot.end - 1000, "bootstop: Host is rebooting")


def vmkernel_lines(life: Life, rng: Random) -> list[Line]:
    """What the vmkernel said: boot banners, driver loads, ordinary noise, and what foretells some driver crashes."""
    lines: list[Line] = []
    for boot in life.boots:
        if boot.start >= boot.entry:
            lines += (line for line in _boot_lines(life.story, boot, rng) if line.time < boot.end)
        lines += _noise(life, boot, rng)
    for crash in life.crashes:
        if crash.module == life.story.module and crash.form == "whole":
            lines += _precursors(life.story, crash, rng)
    said = sorted(lines, key=lambda line: line.time)
    return [Line(line.time, kernel_line(life.story, line.text)) for line in said]


def _boot_lines(story: Story, boot: Any, rng: Random) -> Iterator[Line]:
    time = boot.start + 2_000
    yield Line(time, f"cpu0:32768)VMware ESXi {story.build(boot.build).version} [Releasebuild-{boot.build} x86_64]")
    for number, module in enumerate(story.loads):
        time += rng.randrange(200, 1200)
        world = f"cpu{rng.randrange(24)}:{33200 + number})"
        yield Line(time, f"{world}Loading module {module} ...")
        licence = "VMware" if module == "vmfs3" else "GPL"
        yield Line(time + 4, f"{world}Elf: 1861: module {module} has license {licence}")
        if module == story.module:
            for extra, words in enumerate(story.banner):
                yield Line(time + 31 + extra, f"{world}{words.format(version=boot.version)}")
        yield Line(time + 90, f"{world}Mod: 4780: Initialization of {module} succeeded with module ID {number + 40}.")
        yield Line(time + 91, f"{world}{module} loaded successfully.")


def _noise(life: Life, boot: Any, rng: Random) -> Iterator[Line]:
    # Ordinary talk: nothing of this is a crash, or foretells one.
    noise = life.story.noise
    time = float(boot.entry)
    while True:
        # A chatty host fills its log in the last weeks before the collection, one complaint over and over.
        storm = life.chatty and time > life.collected - 30 * DAY
        time += rng.uniform(0.5, 1.5) * (4 * 60_000 if storm else 2 * DAY)
        if time >= boot.end - 1000:
            return
        text = noise[0] if storm else rng.choice(noise)
        body = text.format(n=rng.randrange(2**28), m=rng.randrange(1, 60))
        yield Line(int(time), f"cpu{rng.randrange(24)}:{rng.randrange(32768, 99999)}){body}")


def _precursors(story: Story, crash: Any, rng: Random) -> Iterator[Line]:
    # What a sick driver says before it takes the host with it.
    if rng.random() < 0.6:
        return
    first = max(crash.time - rng.randrange(5, 40) * 60_000, crash.boot + 180_000)
    for number, text in enumerate(rng.sample(story.precursors, rng.randint(1, 3))):
        time = first + number * 45_000
        if time < crash.time:
            cpu, body = rng.randrange(24), text.format(n=rng.randrange(2**24, 2**28), m=number + 11)
            yield Line(time, f"cpu{cpu}:33202){body}")


def esxupdate_log(life: Life) -> list[Line]:
    """Every change of the installed driver, from the day the host was built; flashing a firmware leaves no line."""
    story, first, lines = life.story, life.boots[0], list[Line]()
    name, installs = f"{story.vib_vendor}_bootbank_{story.vib}_", [] if story.of_firmware else life.installs
    built = (first.start - DAY, installs[0].removed if installs else first.version, "")
    for time, version, removed in (built, *((install.time, install.version, install.removed) for install in installs)):
        gone = (
            [f"Transaction: INFO: Final list of VIBs being removed is {name}{_vib(story, removed)}"] if removed else []
        )
        said = (
            f"HostImage: INFO: Attempting to download VIB {story.vib}",
            f"Transaction: INFO: Final list of VIBs being installed is {name}{_vib(story, version)}",
            *gone,
            "HostImage: DEBUG: Host is remediated by installer: locker, boot",
            "vmware.runcommand: INFO: runcommand called with: args = '/sbin/backup.sh 0 /altbootbank', outfile = "
            "'None', returnoutput = 'True', timeout = '0.0'.",
            "BootBankInstaller.pyc: INFO: boot config of '/altbootbank' is being updated, 5",
            "root: DEBUG: Finished execution of command = vib.install",
        )
        pid = 60_000 + time // DAY % 9_000
        head = "esxupdate: " if story.release < "6" else f"esxupdate: {pid}: "
        head = f"In(14) esxupdate[{pid}]: " if story.release >= "8" else head
        lines += [Line(time + (number - len(said)) * 2000, f"{head}{text}") for number, text in enumerate(said)]
    return [line for line in lines if line.time <= life.collected]


def _vib(story: Story, version: str) -> str:
    return next(step.vib for step in story.steps if step.version == version)


def dump_log(life: Life, crash: Any, said: Sequence[Line], rng: Random) -> str:
    """The text of one crash's dump log: the last lines of the kernel's ring buffer, then the PSOD."""
    boot = next(boot for boot in life.boots if boot.start == crash.boot)
    ring = [line for line in said if crash.boot <= line.time < crash.time][-12:]
    up, bare = crash.time - crash.boot, crash.form != "whole"
    text = dump_text(life.story, crash.kind, crash.module, crash.time, up, boot.build, rng, bare)
    if crash.form == "cut":
        text = text[: text.index("Code start") + rng.randrange(60, 120)]
    return "".join(f"{stamp(line.time)} {line.text}\n" for line in ring) + text


def command_outputs(life: Life) -> dict[str, str]:
    """What the host answered when the evidence was collected, by file name as a support bundle spells it."""
    boot = life.boots[-1]  # that was running, or had just ended, when the evidence was collected
    installed = life.installs[-1].version if life.installs else boot.version
    build, serial = life.story.build(boot.build), f"CZ{zlib.crc32(life.host.encode()):08X}"
    out = {
        **_clock(life, boot, life.collected),
        "localcli_system-version-get.txt": f"   Product: VMware ESXi\n   Version: {build.version}\n"
        f"   Build: Releasebuild-{boot.build}\n   Update: {build.update}\n",
        "localcli_hardware-platform-get.txt": "Platform Information\n"
        "   UUID: 0x6 0x4d 0x15 0x53 0x6a 0xf0 0xe1 0x11 0xa6 0xcf 0x0 0x1e 0x67 0x62 0xca 0xa\n"
        f"   Product Name: {life.model}\n   Vendor Name: {life.story.maker}\n   Serial Number: {serial}\n"
        f"   Enclosure Serial Number: {serial}\n   BIOS Asset Tag: \n   IPMI Supported: true\n",
        "localcli_software-vib-list.txt": _vib_list(life, installed),
        "esxcfg-module_-q.txt": "".join(f"{module}\n" for module in ("vmkernel", *life.story.loads)),
        **_device_outputs(life.story, boot),
    }
    if installed != boot.version:
        out["localcli_software-vib-list---rebooting-image.txt"] = _vib_list(life, installed)
    return out


def earlier_outputs(life: Life) -> Iterator[tuple[int, dict[str, str]]]:
    """Captures taken a while before each change of firmware, by time: the only witnesses of what ran before."""
    for install in life.installs:
        time = install.time - DAY // 2
        boot = next((boot for boot in life.boots if max(boot.start, boot.entry) + HOUR < time < boot.end), None)
        if boot and install.firmware != install.firmware_removed and boot.firmware == install.firmware_removed:
            yield time, {**_clock(life, boot, time), **_device_outputs(life.story, boot)}


def _clock(life: Life, boot: Any, now: int) -> dict[str, str]:
    seconds, date = (now - boot.start) // 1000, (_EPOCH + timedelta(milliseconds=now)).ctime()
    return {
        "date.txt": f"{date[:-5]} UTC{date[-5:]}\n",
        "uname_-a.txt": f"VMkernel {life.host} {life.story.build(boot.build).version} #1 SMP Release build-{boot.build} "
        "Feb  1 2014 03:04:31 x86_64 GNU/Linux\n",
        "uptime.txt": f" {stamp(now)[11:19]} up {seconds // 86400} days, {seconds // 3600 % 24:02d}:"
        f"{seconds // 60 % 60:02d}:{seconds % 60:02d}, load average: 0.21, 0.19, 0.20\n",
        "localcli_system-stats-uptime-get.txt": f"{(now - boot.start) * 1000}\n",
    }


def _device_outputs(story: Story, boot: Any) -> dict[str, str]:
    words = {"version": boot.version, "firmware": boot.firmware, "vib": _vib(story, boot.version)}
    return {name: text.format(**words) for name, text in story.outputs.items()}


def _vib_list(life: Life, installed: str) -> str:
    day = stamp(life.installs[-1].time if life.installs else life.boots[0].start - DAY)[:10]
    built = stamp(life.boots[0].start - DAY)[:10]
    rows = [
        ("Name", "Version", "Vendor", "Acceptance Level", "Install Date"),
        *((name, version.format(build=life.boots[-1].build), *rest, built) for name, version, *rest in life.story.vibs),
        (life.story.vib, _vib(life.story, installed), life.story.vib_vendor, "VMwareCertified", day),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines) + "\n"


def dump_text(
    story: Story, kind: str, module: str | None, time: int, uptime: int, build: str, rng: Random, bare: bool
) -> str:
    """The PSOD block of one crash, with its module map."""
    # A boot's code start moves in steps of 2 MB, as the kernel's own randomisation does. What stands behind `@` in a frame
    # of a module without a name is by now `#` alone where a web page ate the tags.
    start, nameless = story.code + 0x200000 * rng.randrange(1, 400), rng.choice(("<None>#<None>",) * 3 + ("#",))
    ways = [stack for stack in story.stacks if (stack.kind, stack.module) == (kind, module)]
    stack = story.bare if bare else rng.choices(ways, [way.weight for way in ways])[0]
    pcpu, world = rng.randrange(PCPUS), rng.randrange(32768, 9_700_000)
    pointer, other = 0x412400000000 + rng.randrange(0x10, 0xFFFF) * 0x10000, (pcpu + 5) % PCPUS
    frames = _frames(story, stack.frames, start, nameless, pointer, rng)
    message = stack.message.format(
        world=f"{world}:{stack.world}", ip=frames[0].split("[")[1].split("]")[0],
        address=rng.choice(("0x0", "0x0", "0x8", "0x1d0", "0x4108fffffff0")),
        ptes="".join(f"0x{rng.randrange(2**24, 2**26):x}023;" for _ in range(3)) + "0x0;", pcpu=pcpu, other=other,
    )  # fmt: skip
    theirs = _frames(story, stack.saved, start, nameless, pointer + 0x40000, rng)
    saved = [f"pcpu {other} Heartbeat NMI: {one}" for one in theirs]
    hours, rest = divmod(uptime, 3_600_000)
    clock = f"{hours // 24}:{hours % 24:02d}:{rest // 60_000:02d}:{rest // 1000 % 60:02d}.{rest % 1000:03d}"
    body = [
        f"VMware ESXi {story.build(build).version} [Releasebuild-{build} x86_64]",
        f"@BlueScreen: {message}",
        f"Code start: 0x{start:x} VMK uptime: {clock}",
        *([f"Saved backtrace from: pcpu {other} Heartbeat NMI", *saved] if saved else []),
        *frames,
        f"base fs=0x0 gs=0x{story.code + 0x40000000 + pcpu * 0x400000:x} Kgs=0x0",
        "vmkernel 0x0 .data 0x0 .bss 0x0",
    ]
    for number, (name, distance) in enumerate(list(story.layout.items())[1:]):
        data = 0x417FC0000000 + 0x200000 * number + distance
        body.append(f"{name} 0x{start + distance:x} .data 0x{data:x} .bss 0x{data + 0x8000:x}")
    # Each frame takes the kernel a fraction of a millisecond to print.
    said = (kernel_line(story, f"cpu{pcpu}:{world}){line}") for line in body)
    return "".join(f"{stamp(time + number // 3)} {line}\n" for number, line in enumerate(said))


def kernel_line(story: Story, text: str) -> str:
    """A vmkernel entry behind its time: from 8.0 on with severity and program."""
    if story.release < "8":
        return text
    warns = text.partition(")")[2].startswith("WARNING:")
    return f"{'Wa(180) vmkwarning' if warns else 'In(182) vmkernel'}: {text}"


def stamp(time: int, fraction: bool = True) -> str:
    """Milliseconds since 1970 -> ``2014-05-31T15:57:32.579Z``, or without the fraction."""
    moment = _EPOCH + timedelta(milliseconds=time)
    return moment.isoformat(timespec="milliseconds" if fraction else "seconds") + "Z"


def _frames(story: Story, functions: str, start: int, nameless: str, pointer: int, rng: Random) -> list[str]:
    lines = []
    for entry in functions.split():
        function, offset = entry.split("+")
        module = next((owner for begin, owner in story.owners.items() if function.startswith(begin)), "vmkernel")
        # Where a function begins in its module never changes: its name says where.
        inside = zlib.crc32(function.encode()) % (0x600000 if module == "vmkernel" else 0x18000)
        address = start + story.layout[module] + inside + int(offset, 16)
        owner = LAYERS.get(module) or (nameless if story.release < "6.5" else f"({module})#<None>")
        word = rng.choice((0, 0, pointer + 0x40, 0x100D, 0x410B00000000 + rng.randrange(2**28)))
        lines.append(f"0x{pointer:x}:[0x{address:x}]{function}@{owner}+{offset} stack: 0x{word:x}")
        pointer += rng.choice((0x10, 0x20, 0x70, 0x80, 0xA0))
    return lines
