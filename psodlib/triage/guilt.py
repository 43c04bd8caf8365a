"""Which module the evidence points at, how strongly, and who else is under suspicion.

The kinds of evidence, strongest first, are the closed list ``guilt``. The kind says how a module came under suspicion;
*which* module of a stack is meant goes by position: the innermost one that is no plumbing. Some crashes take the stack
out of play: a machine check interrupts whoever runs, a stalled PCPU is found by another one, and a crash that a person
asked for blames nobody.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from psodlib.evidence.vmkernel import modules_named_by_kernel
from psodlib.records import Crash, Frame, Precursor
from psodlib.triage.lists import Rule, first_match, read_rules
from psodlib.triage.precursors import Said, Standout, hear, standouts

__all__ = [
    "Suspect",
    "Verdict",
    "attribute_frames",
    "find_guilty",
    "irrelevant_rule",
    "is_plumbing",
    "junk",
    "machine_check_frame",
    "telling_frames",
    "weigh_evidence",
]

# No module's code is longer (bytes): an address farther behind a base belongs to a module that the map lacks.
MAX_TEXT = 16 * 2**20
MAX_MESSAGE = 2_000  # characters of a message that are searched
MAX_OFFSET = 2**31  # bytes into a function; beyond it the "symbol" is junk at the end of a stack

LONG_PREFIX = 5  # letters: no other module's symbols begin with `hpsa_`; with `be_` they may

# Whose own stack is printed when another PCPU does not answer.
STALLED = ("no_heartbeat", "lost_heartbeat", "tlb_timeout")
_MESSENGER = re.compile(r"Heartbeat_\w+|TLBDoInvalidate|TLB_\w+")
_PCPU = re.compile(r"\bPCPU\s{0,3}(\d{1,5})\b")

HARDWARE_KINDS = ("machine_check", "nmi")
# (pattern, sample): the platform itself says that it failed.
_HARDWARE = (
    (re.compile(r"Machine Check Exception|machine check error"), "Machine Check Exception on PCPU12 in world 1:idle51"),
    (re.compile(r"encountered a Hardware Error"), "System has encountered a Hardware Error - Please contact"),
    (re.compile(r"\bLINT1\b"), "LINT1/NMI (motherboard nonmaskable interrupt), undiagnosed."),
    (re.compile(r"PCI bus error|Fatal PCIe"), "PSOD due to PCI bus error"),
    (re.compile(r"ApeiHEST\w*[^\n]{0,80}(?:Fatal error|requested PSOD)"), "ApeiHEST: 420: Fatal error from 00:04.0"),
)  # fmt: skip
_HARDWARE_FRAME = re.compile(r"PCIEDPC_\w+|ApeiHEST\w*")
_MACHINE_CHECK = re.compile(r"MC[AE](_\w+|[A-Z]\w*)")
_DELIVERY = 6  # frames: its handler farther out would be another crash's

# vmklinux says where its own checks failed:
# `BUG: failure at vmkdrivers/.../if_vlan.h:425/vlan_put_tag()! (inside vmklinux)`.
_INSIDE = re.compile(r"\(inside (\w[\w.-]{0,60})\)")

# A kind whose stack shows who stumbled, which need not be who dug the hole.
VICTIM = {
    "heap_corruption": "the stack shows who found the heap broken, not who broke it",
    "spin_count": "the stack shows who waited for the lock, not who held it",
    "no_heartbeat": "the panicking PCPU only noticed that another one did not answer",
    "lost_heartbeat": "the panicking PCPU only noticed that another one did not answer",
    "tlb_timeout": "the panicking PCPU only waited for one that did not answer",
}  # fmt: skip
_HEAP_SUFFIX = re.compile(r"(?:[-_.]?[Hh]eap)?(?:[-_.]?\d{1,5})?$")
_HEAP = re.compile(r"DLM_\w+|tmalloc_\w+|Heap_\w+|dlmalloc\w*")


@dataclass(frozen=True, slots=True)
class Suspect:
    """A module under suspicion."""

    module: str  # bare name
    evidence: str  # kind of the strongest evidence against it, a word of the closed list ``guilt``
    why: str  # that evidence in a sentence
    # for ordering only: above 3 named by the kernel, 2 to 3 on the stack (nearer to the fault is higher), below 1 the
    # rest
    score: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What ``find_guilty`` concludes."""

    module: str | None  # the guilty module and its innermost function on the stack
    function: str | None  # the guilty module and its innermost function on the stack
    guilt: str  # strongest kind of evidence against it; ``hardware`` and ``deliberate`` have no module
    # every module under suspicion, strongest first; the first one is ``module`` unless the stack was out of play
    suspects: tuple[Suspect, ...] = ()
    notes: tuple[str, ...] = ()  # what a reader must know before believing it


# ---- frames ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 14)
def is_plumbing(module: str) -> bool:
    """Whether a module stands between drivers and the kernel (``rules/plumbing.txt``)."""
    return first_match(read_rules("plumbing.txt"), module) is not None


@lru_cache(maxsize=1 << 16)
def irrelevant_rule(function: str) -> Rule | None:
    """The line of ``rules/irrelevant.txt`` that a symbol matches, or None."""
    return first_match(read_rules("irrelevant.txt"), function)


@lru_cache(maxsize=1 << 16)
def _prefix_rule(function: str) -> Rule | None:
    rules = [
        rule for rule in read_rules("symbol_prefixes.txt", mapped=True, plain=True) if function.startswith(rule.pattern)
    ]
    return max(rules, key=lambda rule: len(rule.pattern), default=None)


def junk(frame: Frame) -> bool:
    """Whether a frame's symbol is nonsense, as the last frame of many dumps is: an offset no function can have."""
    return frame.offset is not None and not 0 <= frame.offset < MAX_OFFSET


def telling_frames(crash: Crash) -> tuple[Frame, ...]:
    """The backtrace that can tell of the cause, innermost frame first."""
    own = tuple(frame for frame in crash.frames if frame.backtrace == 0)
    if crash.kind not in STALLED:
        return own
    saved = [frame for frame in crash.frames if frame.backtrace > 0]
    if saved:
        stalled = {int(number) for number in _PCPU.findall(_message(crash))}
        first = next((frame for frame in saved if frame.pcpu in stalled), saved[0])
        return tuple(frame for frame in saved if frame.backtrace == first.backtrace)
    # Without the messenger's own functions on it, this is the stack of the PCPU that was told to stop.
    if any(frame.function and _MESSENGER.fullmatch(frame.function) for frame in own):
        return ()
    return own


def attribute_frames(crash: Crash) -> Crash:
    """Name the module of frames that print none, by the dump's module map or by their symbol.

    Notes
    -----
    By the map: the largest base at or below the address, no farther than 16 MiB, and with no frame of another printed
    module in between (then the map lacks a module). A symbol that a long prefix gives to a module that the map lacks
    overrules it: then a line of the map is lost. By symbol: the longest matching prefix.
    """
    if all(frame.module for frame in crash.frames):
        return crash
    bases = sorted((module.base, module.module) for module in crash.modules if module.base)
    listed = {module.module for module in crash.modules}
    printed = sorted((frame.address, frame.module) for frame in crash.frames if frame.module and frame.address)
    frames = tuple(frame if frame.module else _attribute(frame, bases, listed, printed) for frame in crash.frames)
    return replace(crash, frames=frames)


def _attribute(
    frame: Frame, bases: Sequence[tuple[int, str]], listed: Iterable[str], printed: Sequence[tuple[int, str]]
) -> Frame:
    if junk(frame):
        return frame
    module = _in_map(frame.address, bases, printed) if frame.address else None
    named = _by_symbol(frame.function, listed) if frame.function else None
    if module and not (named and named not in listed and _speaks_for_itself(frame.function or "")):
        return _with_module(frame, module, "module_map")
    return _with_module(frame, named, "symbol_prefix") if named else frame


def _with_module(frame: Frame, module: str, evidence: str) -> Frame:
    # `dataclasses.replace` by hand: at a hundred thousand crashes it is a third of the time.
    return Frame(
        crash_id=frame.crash_id, backtrace=frame.backtrace, pcpu=frame.pcpu, index=frame.index,
        frame_pointer=frame.frame_pointer, address=frame.address, function=frame.function, module=module,
        module_version=frame.module_version, offset=frame.offset, stack=frame.stack, module_evidence=evidence,
    )  # fmt: skip


def _speaks_for_itself(function: str) -> bool:
    rule = _prefix_rule(function)
    return rule is not None and len(rule.pattern) >= LONG_PREFIX


def _in_map(address: int, bases: Sequence[tuple[int, str]], printed: Sequence[tuple[int, str]]) -> str | None:
    at = bisect_right(bases, (address, "\U0010ffff")) - 1
    if at < 0:
        return None
    base, module = bases[at]
    between = printed[bisect_left(printed, (base, "")) : bisect_right(printed, (address, "\U0010ffff"))]
    if address - base > MAX_TEXT or any(name != module for _, name in between):
        return None
    return module


def _by_symbol(function: str, listed: Iterable[str]) -> str | None:
    rule = _prefix_rule(function)
    if rule is None or rule.value is None:
        return None
    choices = rule.value.split("|")
    loaded = [module for module in choices if module in listed]
    return loaded[0] if len(loaded) == 1 else choices[0]


# ---- evidence --------------------------------------------------------------------------------------------------------


def find_guilty(crash: Crash, precursors: Said | Sequence[Precursor] = ()) -> Verdict:
    """Weigh all evidence against modules and name the one it points at most strongly."""
    return weigh_evidence(attribute_frames(crash), precursors)


def weigh_evidence(crash: Crash, precursors: Said | Sequence[Precursor] = ()) -> Verdict:
    """``find_guilty`` for a crash that ``attribute_frames`` has seen."""
    frames = [frame for frame in telling_frames(crash) if not junk(frame)]
    told = _stands_out(crash, precursors) if precursors else {}
    logged = [Suspect(name, "precursor_log", found.why, 0.6 * found.weight) for name, found in told.items()]
    suspects = _ranked([*_named(crash), *_on_stack(frames), *_by_world(crash), *logged])
    notes = (*_notes(crash, frames), *_notes_of_log(told, suspects))
    if crash.deliberate or crash.kind == "user_requested":
        return Verdict(
            None, None, "deliberate", suspects, (*notes, "a person asked for this crash: nobody is to blame")
        )
    said = _hardware(crash)
    if said and not (suspects and suspects[0].evidence == "named_by_kernel"):
        return Verdict(
            None, None, "hardware", suspects, (*notes, f"{said}: the stack only shows what ran at that moment")
        )
    if not suspects:
        return Verdict(None, None, "none", (), notes)
    best = suspects[0]
    return Verdict(best.module, _innermost(frames, best.module), best.evidence, suspects, notes)


def _ranked(suspects: Iterable[Suspect]) -> tuple[Suspect, ...]:
    # One entry a module: its first, for the evidence comes strongest first.
    best: dict[str, Suspect] = {}
    for suspect in suspects:
        best.setdefault(suspect.module, suspect)
    return tuple(sorted(best.values(), key=lambda suspect: -suspect.score))


def _named(crash: Crash) -> Iterable[Suspect]:
    # What passes things on is named only because it is on the stack as well: it comes behind every other module named.
    listed = modules_named_by_kernel(crash.text) if "involved in panic" in crash.text else ()
    named = [(module, "the kernel lists it as involved in the panic") for module in listed]
    named += [(module, f"the message says 'inside {module}'") for module in _INSIDE.findall(_message(crash))]
    for module, why in named:
        yield Suspect(module, "named_by_kernel", why, 3.5 if is_plumbing(module) else 4.0)


def _on_stack(frames: Sequence[Frame]) -> Iterable[Suspect]:
    # A module's first frame decides its place, its best-known frame the kind of evidence.
    strongest: dict[str, tuple[str, Frame]] = {}
    for frame in frames:
        for module, evidence in _accused(frame.function, frame.module, frame.module_evidence):
            known = strongest.get(module)
            if known is None or _STACK_KINDS.index(evidence) < _STACK_KINDS.index(known[0]):
                strongest[module] = (evidence, frame)
    for position, (module, (evidence, frame)) in enumerate(strongest.items()):
        # A symbol of a shim's own code (4.x prints every Linux driver as `esx`) is weaker than any module of its own.
        shim = frame.module is not None and is_plumbing(frame.module)
        score = (1.0 if shim else 2.0) + 1 / (1 + position)
        yield Suspect(module, evidence, _told(frame, module, evidence), score)


_STACK_KINDS = ("on_stack", "module_map", "symbol_prefix")
_KIND_OF = {"printed": "on_stack", "module_map": "module_map", "symbol_prefix": "symbol_prefix", None: "on_stack"}


@lru_cache(maxsize=1 << 16)
def _accused(function: str | None, module: str | None, evidence: str | None) -> tuple[tuple[str, str], ...]:
    # (module, kind of evidence) of whom a frame on the stack accuses.
    if function and irrelevant_rule(function):
        return ()
    if module and not is_plumbing(module):
        return ((module, _KIND_OF[evidence]),)
    named = _by_symbol(function, ()) if module and module != "vmkernel" and function else None
    return ((named, "symbol_prefix"),) if named else ()


def _told(frame: Frame, module: str, evidence: str) -> str:
    where = f"frame {frame.index}, {frame.function or 'symbol unknown'}"
    if evidence == "on_stack":
        return f"{where}, is printed as {module}"
    if evidence == "module_map":
        return f"{where}, lies in {module} by the module map"
    rule = _prefix_rule(frame.function or "")
    return f"{where}, begins with {rule.pattern if rule else '?'} (symbol_prefixes.txt:{rule.line if rule else 0})"


def _by_world(crash: Crash) -> Iterable[Suspect]:
    rule = _world_rule(crash.world_name) if crash.world_name else None
    if rule and rule.value and crash.kind not in STALLED:
        yield Suspect(rule.value, "world_name", f"the world is called {crash.world_name}", 0.9)


@lru_cache(maxsize=1 << 12)
def _world_rule(name: str) -> Rule | None:
    return first_match(read_rules("world_names.txt", mapped=True), name)


def _stands_out(crash: Crash, precursors: Said | Sequence[Precursor]) -> dict[str, Standout]:
    # Modules whose warnings before the crash stand out, the clearest first.
    said = precursors if isinstance(precursors, Said) else hear(precursors, crashes=[crash])
    loaded = {module.module for module in crash.modules} | {frame.module for frame in crash.frames if frame.module}
    out: dict[str, Standout] = {}
    for found in standouts(said, crash):
        module = found.module if found.module in said.drivers else _owner(found.module, loaded)
        if module and not is_plumbing(module):
            out.setdefault(module, found)
    return out


def _owner(name: str, loaded: Set[str]) -> str | None:
    # A heap bears its module's name, or that and a suffix: `hpsa`, `hpsa-heap`, `lpfc_0`.
    bare = _HEAP_SUFFIX.sub("", name)
    return next((word for word in (name, bare) if word in loaded or word in _listed_modules()), None)


@cache
def _listed_modules() -> frozenset[str]:
    # A warning begins with a word that may be a driver's name or any other; only a name that some list knows is suspect.
    tables = (read_rules("symbol_prefixes.txt", mapped=True, plain=True), read_rules("world_names.txt", mapped=True))
    return frozenset(name for rules in tables for rule in rules for name in (rule.value or "").split("|"))


def _hardware(crash: Crash) -> str | None:
    # What in the crash says that the platform failed.
    if crash.kind in HARDWARE_KINDS:
        return f"a crash of kind {crash.kind}"
    message = _message(crash)
    match = next(filter(None, (pattern.search(message) for pattern, _ in _HARDWARE)), None)
    if match:
        return f"the message says {match[0]!r}"
    frame = machine_check_frame(crash) or next(
        (f for f in crash.frames if f.backtrace == 0 and f.function and _HARDWARE_FRAME.fullmatch(f.function)), None
    )
    return f"{frame.function} is on the stack" if frame else None


def machine_check_frame(crash: Crash) -> Frame | None:
    """The frame of a machine check's handler, by which a text that lost its header still says what it was."""
    if crash.kind != "other":
        return None
    inner = (frame for frame in crash.frames if frame.backtrace == 0 and frame.index < _DELIVERY and frame.function)
    return next((frame for frame in inner if _MACHINE_CHECK.fullmatch(frame.function or "")), None)


def _notes(crash: Crash, frames: Sequence[Frame]) -> tuple[str, ...]:
    notes = []
    if crash.kind in VICTIM:
        notes.append(f"a victim is not a culprit: {VICTIM[crash.kind]}")
    elif any(frame.function and _of_heap(frame.function) for frame in frames[:4]):
        notes.append(f"a victim is not a culprit: {VICTIM['heap_corruption']}")
    if crash.kind in STALLED and crash.frames and not frames:
        notes.append("the backtrace of the PCPU that stalled is not in the text")
    if not crash.frames:
        notes.append("there is no backtrace")
    return tuple(notes)


def _notes_of_log(told: Mapping[str, Standout], suspects: Sequence[Suspect]) -> Iterable[str]:
    # Who is refused memory complains as loudly as who has taken it.
    for module, found in told.items():
        if found.victim:
            yield f"a victim is not a culprit: all that the log says of {module} ({found.why}) a victim would say too"
    clear = next((module for module, found in told.items() if not found.victim), None)
    if clear and suspects[0].module != clear:
        yield f"the log points at {clear}, not at {suspects[0].module}: {told[clear].why}"


@lru_cache(maxsize=1 << 14)
def _of_heap(function: str) -> bool:
    return _HEAP.fullmatch(function) is not None


def _innermost(frames: Sequence[Frame], module: str) -> str | None:
    for frame in frames:
        accused = _accused(frame.function, frame.module, frame.module_evidence)
        if frame.function and module in (name for name, _ in accused):
            return frame.function
    return None


def _message(crash: Crash) -> str:
    return (crash.message or "")[:MAX_MESSAGE]
