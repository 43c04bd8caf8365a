"""The string that groups crashes of one cause, and how it came about.

1. A crash that a person asked for, a machine check, the board's NMI, an I/O fault and a failed check in the source sign
   by what they name (bank, device's driver or class, source line), never by the stack: the stack only shows who was
   interrupted, or who called the check.
2. Otherwise the backtrace that can tell is taken: the panicking PCPU's, the stalled one's, that of the lock's holder.
3. Behind the panic machinery, everything up to a *sentinel* (``rules/sentinel.txt``) delivered the exception, and goes.
4. *Irrelevant* frames (``rules/irrelevant.txt``) go, wherever they are; so does junk at the end of the stack, and so do
   the locks that a stopped PCPU was waiting for.
5. The first frame that is left is the signature; while it is a *prefix* (``rules/prefix.txt``), or cannot be read, the
   next is added. Of prefixes of one family in a row only the outermost stays, by the name that all layers share.

Symbols are compared without what ``rules/strip.txt`` cuts off. Offsets, addresses, versions, world ids and host names
are never looked at. The kind is not part of a stack's signature: one bad pointer faults as #PF or as #GP by chance,
and an excerpt without its header must meet the whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from psodlib.records import Crash, Frame

from psodlib.triage.frames import (  # isort: skip
    MAX_SEARCHED, STALLED, family_of, irrelevant_rule, is_lock, junk, machine_check_frame, message_of, software_nmi, telling_frames,
)  # fmt: skip
from psodlib.triage.lists import matcher, read_rules
from psodlib.triage.modules import is_plumbing

# Goes up with every change of a rule or list that can move a signature (CHANGELOG, "Changed results").
SIGNATURE_VERSION = 6
MAX_LENGTH = 255  # characters
MAX_FRAMES = 40  # frames looked at
SENTINEL_DEPTH = 10  # a sentinel farther out belongs to an older interrupt, not to this crash
# Kinds whose panic is entered through an exception's or an NMI's gate.
DELIVERED = (
    "page_fault", "general_protection", "divide_error", "invalid_opcode", "double_fault", "no_heartbeat", "lost_heartbeat", "nmi",
)  # fmt: skip
# Kinds whose message says what went wrong, in words that every host uses.
WORDED = ("assert", "not_reached", "not_implemented", "panic", "spin_count", "heap_corruption", "other")
UNREADABLE = "?"  # stands for a frame whose symbol the text lost
JOINT = " | "


@dataclass(frozen=True, slots=True)
class Draft:
    """What a rule sees and gives back: the frames still in play, the signature once it is found, the notes so far."""

    crash: Crash
    device: str | None = None
    frames: tuple[Frame, ...] = ()
    signature: str | None = None
    notes: tuple[str, ...] = ()  # each rule's change, in order, ``rule: what``

    @property
    def proto_signature(self) -> str | None:
        """All functions of the backtrace, unreduced; None without frames."""
        frames = self.crash.frames
        return JOINT.join(map(frame_name, [frame for frame in frames if frame.backtrace == 0] or frames)) or None


def sign(crash: Crash, device: str | None = None) -> Draft:
    """Sign one crash; ``device`` is the driver, or the class, of the device that its message names."""
    draft = Draft(crash, device)
    for rule in RULES:
        if draft.signature is None:
            draft = _apply(rule, draft)
    return replace(draft, signature=(draft.signature or f"no frames: {crash.kind}")[:MAX_LENGTH])


def _apply(rule: Callable[[Draft], Draft], draft: Draft) -> Draft:
    # A rule that fails does not lose the crash; the others still sign it.
    name = rule.__name__
    try:
        new = rule(draft)
    except Exception as error:
        return replace(draft, notes=(*draft.notes, f"{name}: failed, {type(error).__name__}: {error}"))
    if new.signature is not None:
        return replace(new, notes=(*new.notes, f"{name}: -> {new.signature}"))
    return new


# ---- signed by what the message names --------------------------------------------------------------------------------

_DEVICE = re.compile(r"(?<!\w)(?:[\da-fA-F#X]{4}:)?[\da-fA-F#X]{2,3}:[\da-fA-F#X]{2}\.[0-7#X](?!\w)")
_BANK = re.compile(
    r"\b[Bb]ank[ :]{0,2}(\d{1,3})\b|\b(?:G[0-9a-fA-F]{1,2}|MCE?: ?(?:PCPU|cpu)\d{1,4}:?) B:?([0-9a-fA-F]{1,2}):? S"
)
_UNCORRECTED = re.compile(r"\b(?:UC |UC=1\b|[Uu]ncorrect|[Ff]atal|SRAR|Machine Check|MC: ?PCPU)")
_APEI = re.compile(r"ApeiHEST|Fatal error from|IOMMU")
_SOURCE = re.compile(
    r"\b(?:ASSERT|NOT_REACHED|NOT_IMPLEMENTED|VERIFY|PANIC|BUG|Failed at)\b[^\n]{0,200}?([\w.-]{1,80}\.[chS]):(\d{1,7})"
)
_NUMBER = re.compile(r"(?:0x)?(?=[a-fA-F#X]{0,16}[\d#])[\da-fA-F#X]{1,32}(?!\w)|\d{1,32}")
_ERROR = re.compile(r"\b(?!Hardware E)([A-Z][A-Za-z/ -]{2,40} (?:[Ee]rror|ERROR))\b")


def by_request(draft: Draft) -> Draft:
    """A person asked for it."""
    crash = draft.crash
    deliberate = crash.deliberate or crash.kind == "user_requested"
    return replace(draft, signature="deliberate") if deliberate else draft


def by_machine_check(draft: Draft) -> Draft:
    """Bank and error, of the uncorrected one; a log also holds corrected ones, which did not crash."""
    if draft.crash.kind != "machine_check" and not machine_check_frame(draft.crash):
        return draft
    text = _around(_UNCORRECTED, _words(draft.crash))
    bank = _BANK.search(text)
    parts = [f"bank {int(bank[1]) if bank[1] else int(bank[2], 16)}"] if bank else []
    parts += [error for error in _ERROR.findall(text) if "achine check" not in error][:1]
    return replace(draft, signature="machine_check: " + (" ".join(parts) or "bank unknown"))


def by_device(draft: Draft) -> Draft:
    """The device that an NMI or an I/O fault names, by its driver or class: its address says only in which slot it sits."""
    crash = draft.crash
    if crash.kind not in ("nmi", "iommu_fault") or software_nmi(crash):
        return draft
    words = f"{message_of(crash)} {_around(_APEI, _words(crash))}"
    named = draft.device or ("PCI device" if _DEVICE.search(words) else "device unknown")
    return replace(draft, signature=f"{crash.kind}: {named}")


def by_source(draft: Draft) -> Draft:
    """File and line of a failed check.

    The line moves between builds, but one file holds many checks, and a wrong merge hides more than a split.
    """
    match = _SOURCE.search(message_of(draft.crash))
    return replace(draft, signature=f"{draft.crash.kind}: {match[1]}:{match[2]}") if match else draft


def _around(pattern: re.Pattern[str], text: str) -> str:
    # What stands on the lines that hold the pattern, near it.
    parts, done = [], 0
    for match in pattern.finditer(text):
        if match.start() >= done:
            begin = max(text.rfind("\n", done, match.start()) + 1, match.start() - 200, done)
            stop = text.find("\n", match.end(), match.end() + 400)
            done = stop if stop >= 0 else match.end() + 400
            parts.append(text[begin:done])
    return " ".join(parts)


def _words(crash: Crash) -> str:
    return f"{message_of(crash)}\n{crash.text[:MAX_SEARCHED]}"


# ---- signed by the stack ---------------------------------------------------------------------------------------------


def pick_backtrace(draft: Draft) -> Draft:
    """The backtrace that can tell; without one, a bucket of its own."""
    crash = draft.crash
    if not crash.frames:
        return replace(draft, signature=_by_words(crash) or f"no frames: {crash.kind}")
    frames = telling_frames(crash)
    if not frames:
        return replace(draft, signature=f"{crash.kind}: stalled PCPU's backtrace not in the text")
    notes = (*draft.notes, f"pick_backtrace: number {frames[0].backtrace}, {len(frames)} frames")
    return replace(draft, frames=frames[:MAX_FRAMES], notes=notes)


def drop_delivery(draft: Draft) -> Draft:
    """Everything up to the innermost sentinel, when it is an exception that was delivered.

    A gate farther out belongs to an older interrupt, whose handler is what crashed: so the stack must begin with the
    panic machinery, and no driver may stand before the sentinel.
    """
    frames = draft.frames[:SENTINEL_DEPTH]
    at = next((i for i, frame in enumerate(frames) if frame.function and _sentinel(frame.function)), None)
    if draft.crash.kind not in DELIVERED or at is None or not irrelevant_rule(frame_name(frames[0])):
        return draft
    if any(frame.module and not is_plumbing(frame.module) for frame in frames[:at]):
        return draft
    note = f"drop_delivery: {at + 1} frames up to {frames[at].function}"
    return replace(draft, frames=draft.frames[at + 1 :], notes=(*draft.notes, note))


def drop_irrelevant(draft: Draft) -> Draft:
    """Frames of any crash, and junk."""
    kept, notes = [], list(draft.notes)
    for frame in draft.frames:
        rule = irrelevant_rule(frame_name(frame)) if frame.function else None
        if rule:
            notes.append(f"drop_irrelevant: {frame.function} ({rule.file}:{rule.line}, {rule.reason})")
        elif junk(frame):
            notes.append(f"drop_irrelevant: {frame.function} (no function is that long)")
        else:
            kept.append(frame)
    return replace(draft, frames=tuple(kept), notes=tuple(notes))


def drop_waits(draft: Draft) -> Draft:
    """The lock that a stopped PCPU waited for when it was caught: it might have been caught a moment earlier.

    Not on the stack of who ran into the lock's limit: there the wait is what stopped the host.
    """
    crash, frames = draft.crash, draft.frames
    if not frames or not (crash.kind in STALLED or software_nmi(crash) or frames[0].backtrace > 0):
        return draft
    at = next((i for i, frame in enumerate(frames) if not is_lock(frame_name(frame))), len(frames))
    if not 0 < at < len(frames):
        return draft
    note = f"drop_waits: {', '.join(frame_name(frame) for frame in frames[:at])}"
    return replace(draft, frames=frames[at:], notes=(*draft.notes, note))


def first_telling(draft: Draft) -> Draft:
    """Frames up to and with the first that names a place."""
    names: list[str] = []
    notes, family = list(draft.notes), ""
    for frame in draft.frames:
        name = frame_name(frame)
        prefix = None if name == UNREADABLE else family_of(name)
        group, _, written = (prefix.value or "").partition("=") if prefix else ("", "", "")
        if written and written != name:
            notes.append(f"first_telling: {name} is written {written}")
            name = written
        if names and group and group == family:  # depth is chance, of recursion as of the allocator
            if names[-1] != name:
                notes.append(f"first_telling: {names[-1]} is {family} inside {name}")
            names[-1] = name
        elif not names or names[-1] != name:
            names.append(name)
        family = group
        if name != UNREADABLE and prefix is None:
            break
    if not any(name != UNREADABLE for name in names):
        return replace(draft, signature=_by_words(draft.crash) or f"no telling frames: {draft.crash.kind}")
    return replace(draft, signature=JOINT.join(names), notes=tuple(notes))


def _by_words(crash: Crash) -> str | None:
    # Without a frame that tells, what the message says, where it is more than an exception's or a PCPU's number.
    if crash.kind not in WORDED or crash.exception is not None or not crash.message:
        return None
    words = message_of(crash).partition("possible deadlock")[0].rstrip(" -–—")  # the lock's name is before it
    return f"{crash.kind}: {_NUMBER.sub('N', words)}"


RULES: tuple[Callable[[Draft], Draft], ...] = (
    # These read the message alone, in the order of how little the stack can say.
    by_request, by_machine_check, by_device, by_source,
    # These read the stack. Sentinels before irrelevant frames, which would hide them.
    pick_backtrace, drop_delivery, drop_irrelevant, drop_waits, first_telling,
)  # fmt: skip


def telling_names(crash: Crash) -> tuple[str, ...]:
    """The functions of a crash that its signature is made of or could be, innermost first."""
    draft = Draft(crash)
    for rule in (pick_backtrace, drop_delivery, drop_irrelevant, drop_waits):
        draft = _apply(rule, draft)
    return tuple(frame_name(frame) for frame in draft.frames)


@lru_cache(maxsize=1 << 16)
def _stripped(function: str) -> str:
    for rule in read_rules("strip.txt", mapped=True):
        function = re.sub(rule.regex or rule.pattern, rule.value or "", function)
    return function


def frame_name(frame: Frame) -> str:
    """A frame as signatures name it: its bare symbol, else ``module:?``, else ``?``."""
    if frame.function:
        return _stripped(frame.function) or UNREADABLE
    return f"{frame.module}:{UNREADABLE}" if frame.module else UNREADABLE


_sentinel = matcher("sentinel.txt")
