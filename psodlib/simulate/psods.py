"""A made-up crash -> the text of its dump log, in the words of its release.

Addresses follow one made-up but consistent layout of modules, so that a module map can name what the frames of 5.5
print as ``<None>``; later releases print a driver in parentheses.
"""

from __future__ import annotations

import functools
import zlib
from datetime import date, timedelta
from random import Random

from psodlib.simulate.stories import Story

LAYERS = {"vmkernel": "vmkernel#nover", "vmklinux_9": "com.vmware.driverAPI#9.2"}
PCPUS = 24


def dump_text(
    story: Story, kind: str, module: str | None, time: int, uptime: int, build: str, rng: Random, bare: bool
) -> str:
    """The PSOD block of one crash, with its module map."""
    # A boot's code start moves in steps of 2 MB, as the kernel's own randomisation does. What stands behind `@` in a frame of a module
    # without a name is by now `#` alone where a web page ate the tags.
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
    saved = [
        f"pcpu {other} Heartbeat NMI: {one}"
        for one in _frames(story, stack.saved, start, nameless, pointer + 0x40000, rng)
    ]
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
    seconds, ms = divmod(time, 1000)
    days, second = divmod(seconds, 86_400)
    hours, minutes = divmod(second // 60, 60)
    return f"{_day(days)}T{hours:02d}:{minutes:02d}:{second % 60:02d}{f'.{ms:03d}' if fraction else ''}Z"


@functools.cache
def _day(days: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=days)).isoformat()


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
