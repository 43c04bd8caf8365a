"""Whose frame it is, and which of a crash's backtraces can tell of the cause."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from dataclasses import replace

from psodlib.records import Crash, Frame
from psodlib.triage.lists import matcher
from psodlib.triage.modules import Release, module_of_symbol, prefix_rule, release_of

# No module's code is longer (bytes): an address farther behind a base belongs to a module that the map lacks.
MAX_TEXT = 16 * 2**20
MAX_MESSAGE, MAX_SEARCHED = 2_000, 40_000  # characters of a message, of a text, that are searched
MAX_OFFSET = 2**31  # bytes into a function; beyond it the "symbol" is junk at the end of a stack

LONG_PREFIX = 5  # letters: no other module's symbols begin with `hpsa_`; with `be_` they may

# Whose own stack shows only who noticed that another PCPU does not answer.
STALLED = ("no_heartbeat", "lost_heartbeat", "tlb_timeout")
_MESSENGER = re.compile(r"Heartbeat_\w+|TLBDoInvalidate|TLB_\w+")
_SOFTWARE_NMI = re.compile(r"\bNMI IPI\b")
_PCPU = re.compile(r"\bP?CPU(?:\(s\))?[\s:#]{0,3}(\d{1,5})\b")
_LOCKED = re.compile(r"\bPCPU (\d{1,5})(?:: no heartbeat| didn't have a heartbeat| locked up)")
_MACHINE_CHECK = re.compile(r"MC[AE](_\w+|[A-Z]\w*)")
_DELIVERY = 6  # frames: its handler farther out would be another crash's


irrelevant_rule = matcher("irrelevant.txt")  # symbols that stand on the stack of any crash
family_of = matcher("prefix.txt", mapped=True)  # symbols that name a means, not a place


def is_lock(name: str) -> bool:
    """Whether a symbol takes a lock: who waits is not who holds it."""
    family = family_of(name)
    return family is not None and (family.value or "").partition("=")[0] == "lock"


def junk(frame: Frame) -> bool:
    """Whether a frame's symbol is nonsense, as the last frame of many dumps is: an offset no function can have."""
    return frame.offset is not None and not 0 <= frame.offset < MAX_OFFSET


def message_of(crash: Crash) -> str:
    """What is searched of a crash's message."""
    return (crash.message or "")[:MAX_MESSAGE]


def software_nmi(crash: Crash) -> bool:
    """Whether a PCPU stopped because another one asked it to: the NMI is a message between PCPUs, not the board's."""
    return crash.kind == "nmi" and _SOFTWARE_NMI.search(message_of(crash)) is not None


def telling_frames(crash: Crash) -> tuple[Frame, ...]:
    """The backtrace that can tell of the cause, innermost frame first.

    Notes
    -----
    The saved backtrace of the PCPU that the message names as stuck, or as the holder of the lock, or that the text says has
    no heartbeat; where nothing names one, the first saved. Without any, the PCPU's own, unless that shows only the messenger.
    """
    own = tuple(frame for frame in crash.frames if frame.backtrace == 0)
    if crash.kind not in (*STALLED, "spin_count") and not software_nmi(crash):
        return own  # what went wrong went wrong on the PCPU that panicked
    if saved := [frame for frame in crash.frames if frame.backtrace > 0]:
        named: list[int | None] = [int(number) for number in _PCPU.findall(message_of(crash))]
        named += [int(number) for number in _LOCKED.findall(crash.text[:MAX_SEARCHED])]
        # A trace that lost its number may be anybody's; one that bears another number is a bystander's. The message of an NMI
        # names the PCPU that got it, so there a saved trace is what the NMI was sent for.
        wanted = [*named, None] if named else []
        if software_nmi(crash):
            wanted = [pcpu for pcpu in wanted if pcpu != crash.pcpu]
        if software_nmi(crash) or not named:
            wanted.append(saved[0].pcpu)
        first = next((frame for pcpu in wanted for frame in saved if frame.pcpu == pcpu), None)
        if first:
            chosen = [frame for frame in saved if frame.backtrace == first.backtrace]
            # What the NMI saved of this PCPU stands on its own stack as well, and may be cut there.
            names = {frame.function for frame in own}
            cut = first.pcpu == crash.pcpu and len(chosen) < len(own) and {frame.function for frame in chosen} <= names
            return own if cut else tuple(chosen)
    # Without the messenger's own functions on it, this is the stack of the PCPU that was told to stop.
    if crash.kind in STALLED and any(frame.function and _MESSENGER.fullmatch(frame.function) for frame in own):
        return ()
    return own


def machine_check_frame(crash: Crash) -> Frame | None:
    """The frame of a machine check's handler, by which a text that lost its header still says what it was."""
    if crash.kind != "other":
        return None
    inner = (frame for frame in crash.frames if frame.backtrace == 0 and frame.index < _DELIVERY and frame.function)
    return next((frame for frame in inner if _MACHINE_CHECK.fullmatch(frame.function or "")), None)


def attribute_frames(crash: Crash, loaded: Collection[str] = (), host_runs: Release | None = None) -> Crash:
    """Name the module of frames that print none, by the dump's module map or by their symbol.

    Notes
    -----
    By the map: the largest base at or below the address, no farther than 16 MiB, and with no frame of another printed
    module in between (then the map lacks a module). A symbol that a long prefix gives to a module that the map lacks
    overrules it: then a line of the map is lost. By symbol: the longest matching prefix, of its modules one that was
    ``loaded``, else one that can be on the release, the crash's own or what the ``host_runs`` by its files.
    """
    if all(frame.module for frame in crash.frames):
        return crash
    bases = sorted((module.base, module.module) for module in crash.modules if module.base)
    listed = {module.module for module in crash.modules}
    printed = sorted((frame.address, frame.module) for frame in crash.frames if frame.module and frame.address)
    there = listed | {frame.module for frame in crash.frames if frame.module} | set(() if listed else loaded)
    release = release_of(crash) or host_runs
    frames = []
    for frame in crash.frames:
        if not frame.module and not junk(frame):
            named = module_of_symbol(frame.function, there, release) if frame.function else None
            mapped = _in_map(frame.address, bases, printed) if frame.address else None
            rule = prefix_rule(frame.function or "") if mapped and named and named not in listed else None
            if mapped and not (rule and len(rule.pattern) >= LONG_PREFIX):
                frame = _with_module(frame, mapped, "module_map")
            elif named:
                frame = _with_module(frame, named, "symbol_prefix")
        frames.append(frame)
    return replace(crash, frames=tuple(frames))


def _with_module(frame: Frame, module: str, evidence: str) -> Frame:
    # `dataclasses.replace` by hand: at a hundred thousand crashes it is a third of the time.
    return Frame(
        crash_id=frame.crash_id, backtrace=frame.backtrace, pcpu=frame.pcpu, index=frame.index,
        frame_pointer=frame.frame_pointer, address=frame.address, function=frame.function, module=module,
        module_version=frame.module_version, offset=frame.offset, stack=frame.stack, module_evidence=evidence,
    )  # fmt: skip


def _in_map(address: int, bases: Sequence[tuple[int, str]], printed: Sequence[tuple[int, str]]) -> str | None:
    at = bisect_right(bases, (address, "\U0010ffff")) - 1
    base, module = bases[at] if at >= 0 else (address, None)
    between = printed[bisect_left(printed, (base, "")) : bisect_right(printed, (address, "\U0010ffff"))]
    return None if address - base > MAX_TEXT or any(name != module for _, name in between) else module
