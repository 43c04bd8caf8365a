"""Which module the evidence points at, how strongly, who else is under suspicion, and why the one outweighs the other.

The kinds of evidence, strongest first, are the closed list ``guilt``. The kind says how a module came under suspicion;
*which* module of a stack is meant goes by position: the innermost one that is no plumbing, unless a driver behind VMware's
own layers was ill just before. Some crashes take the stack out of play: a machine check and an I/O fault interrupt whoever
runs, a stalled PCPU is found by another one, and a crash that a person asked for blames nobody.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from psodlib.evidence.psod_lines import modules_named_by_kernel
from psodlib.records import Crash, Frame, Precursor
from psodlib.triage.frames import (
    MAX_MESSAGE,
    MAX_SEARCHED,
    STALLED,
    attribute_frames,
    irrelevant_rule,
    is_lock,
    junk,
    machine_check_frame,
    message_of,
    software_nmi,
    telling_frames,
)
from psodlib.triage.modules import (
    Release,
    class_of,
    is_plumbing,
    module_of_symbol,
    module_of_word,
    prefix_rule,
    release_of,
)
from psodlib.triage.precursors import Said, Standout, heard, standouts

HARDWARE_KINDS = ("machine_check", "nmi")
# (pattern, sample): the platform itself says that it failed.
_HARDWARE = (
    (re.compile(r"Machine Check Exception|machine check error"), "Machine Check Exception on PCPU12 in world 1:idle51"),
    (re.compile(r"encountered a Hardware Error"), "System has encountered a Hardware Error - Please contact"),
    (re.compile(r"IOMMU UNIT \d{1,4} did not complete"), "IOMMU UNIT 3 did not complete processing of a queued invalidation"),
    (re.compile(r"Fatal CPU mismatch|HW feature incompatibility"), 'Fatal CPU mismatch on feature "Hyperthreads per core"; cpu0 value = 0x2, but cpu8 value = 0x1'),
    (re.compile(r"\bLINT1\b"), "LINT1/NMI (motherboard nonmaskable interrupt), undiagnosed."),
    (re.compile(r"PCI bus error|Fatal PCIe"), "PSOD due to PCI bus error"),
    (re.compile(r"ApeiHEST\w*[^\n]{0,80}(?:Fatal error|requested PSOD)"), "ApeiHEST: 420: Fatal error from 00:04.0"),
)  # fmt: skip
_HARDWARE_FRAME = re.compile(r"PCIEDPC_\w+|ApeiHEST\w*")

# vmklinux says where its own checks failed:
# `BUG: failure at vmkdrivers/.../if_vlan.h:425/vlan_put_tag()! (inside vmklinux)`.
_INSIDE = re.compile(r"\(inside (\w[\w.-]{0,60})\)")
# `IOMMU Fault detected for 0000:3b:00.0 (vmnic4/foo)`: the device's name, and its driver's.
_DRIVER_OF_DEVICE = re.compile(r"[(\[](vm[a-z]{2,6}[\dX]{1,4})/([A-Za-z][\w.-]{1,60})[)\]]")
_MASKED = re.compile(r"[xX#*]+|none|unknown|passthru")
_PATH = re.compile(r"(?:[\w.+-]{1,60}/){1,20}[\w.+-]{1,60}\.(?:[chS]|cpp)\b")
# The kernel's own source; a folder's name there is no module's.
_KERNEL_PATH = re.compile(r"(?:^|/)bora/(?:vmkernel|lib|vmcore|public|vmx)/")
_LOCK = re.compile(r"Spin count exceeded \((\w{2,60})\)")
_ADDRESS = re.compile(r"\b(?:([0-9a-fA-F]{4}):)?([0-9a-fA-F]{2,3}):([0-9a-fA-F]{2})\.([0-7])\b")
_NAMES_DEVICE = ("IOMMU", "ApeiHEST", "PCI", "Fatal error from")  # words of a line that tells of a device

# A kind whose stack shows who stumbled, which need not be who dug the hole.
VICTIM = {
    "heap_corruption": "the stack shows who found the heap broken, not who broke it",
    "spin_count": "the panicking PCPU only waited for the lock, another one held it",
    "no_heartbeat": "the panicking PCPU only noticed that another one did not answer",
    "lost_heartbeat": "the panicking PCPU only noticed that another one did not answer",
    "tlb_timeout": "the panicking PCPU only waited for one that did not answer",
}  # fmt: skip
_HEAP = re.compile(r"DLM_\w+|tmalloc_\w+|Heap_\w+|dlmalloc\w*")

# Scores order suspects, nothing else. Above INVOLVED the kernel lists the module in its panic; from there to STACK the
# message names it, or its device; then the stack, nearer to the fault is higher; then a shim's symbol; below 1 the rest.
INVOLVED, PASSING, IN_MESSAGE, AT_DEVICE = 4.0, 3.5, 3.4, 3.2
LOCK_OWNER, STACK, SHIM, WORLD, LOG = 2.4, 2.0, 1.0, 0.9, 0.6


@dataclass(frozen=True, slots=True)
class Suspect:
    """A module under suspicion."""

    module: str  # bare name
    evidence: str  # kind of the strongest evidence against it, a word of the closed list ``guilt``
    why: str  # that evidence in a sentence; after a semicolon, why it outweighs or yields to another suspect
    score: float  # for ordering only


@dataclass(frozen=True, slots=True)
class Verdict:
    """What ``find_guilty`` concludes."""

    module: str | None  # the guilty module and its innermost function on the stack
    function: str | None  # the guilty module and its innermost function on the stack
    guilt: str  # strongest kind of evidence against it; ``hardware`` and ``deliberate`` have no module
    # every module under suspicion, strongest first; the first one is ``module`` unless the stack was out of play
    suspects: tuple[Suspect, ...] = ()
    notes: tuple[str, ...] = ()  # what a reader must know before believing it
    device: str | None = None  # what the message's device is, for the signature: its driver, else its class


@dataclass(frozen=True, slots=True)
class _Case:
    # A crash and what is known of its host.
    crash: Crash
    said: Said
    frames: tuple[Frame, ...]  # those that accuse
    loaded: Collection[str]
    release: Release | None


def find_guilty(crash: Crash, precursors: Said | Sequence[Precursor] = ()) -> Verdict:
    """Weigh all evidence against modules and name the one it points at most strongly."""
    said = heard(precursors, crash)
    return weigh_evidence(attribute_frames(crash, said.loaded, said.release), said)


def weigh_evidence(crash: Crash, precursors: Said | Sequence[Precursor] = ()) -> Verdict:
    """``find_guilty`` for a crash that ``attribute_frames`` has seen."""
    said = heard(precursors, crash)
    traced = [frame for frame in telling_frames(crash) if not junk(frame)]
    case = _Case(crash, said, tuple(_accusing(crash, traced)), _loaded(crash, said), release_of(crash) or said.release)
    ill = _stands_out(case)
    logged = [Suspect(name, "precursor_log", found.why, LOG * found.weight) for name, found in ill.items()]
    at_device = list(_at_device(crash, said.devices))
    suspects = _ranked(
        [*_named(case, ill), *at_device, *_of_lock(case), *_on_stack(case, ill), *_by_world(case), *logged]
    )
    notes = (*_notes(crash, traced, case.frames), *_notes_of_log(ill, suspects))
    device = _device_of(crash, at_device, ill)
    if crash.deliberate or crash.kind == "user_requested":
        asked = "a person asked for this crash: nobody is to blame"
        return Verdict(None, None, "deliberate", suspects, (*notes, asked))
    platform = _hardware(crash)
    if platform and not (suspects and suspects[0].score >= PASSING):
        remark = f"{platform}: the stack only shows what ran at that moment"
        return Verdict(None, None, "hardware", suspects, (*notes, remark), device)
    if not suspects:
        return Verdict(None, None, "none", (), notes, device)
    best = suspects[0]
    return Verdict(best.module, _innermost(case, best.module), best.evidence, suspects, notes, device)


def _ranked(suspects: Iterable[Suspect]) -> tuple[Suspect, ...]:
    # One entry a module: its first, for the evidence comes strongest first.
    best: dict[str, Suspect] = {}
    for suspect in suspects:
        best.setdefault(suspect.module, suspect)
    ranked = sorted(best.values(), key=lambda suspect: -suspect.score)
    if len(ranked) > 1 and "outweighs" not in ranked[0].why:
        first, second = ranked[:2]
        ranked[0] = replace(
            first, why=f"{first.why}; it outweighs {second.module}: {_because(first.score, second.score)}"
        )
    return tuple(ranked)


# From which score on, and what it means for a suspect.
_BANDS = (
    (PASSING, "the kernel itself lists it"),
    (STACK + 1.01, "the message names it"),
    (SHIM + 1.01, "it is on the stack"),
    (SHIM, "a symbol of its own runs under a layer's name"),
    (WORLD, "its own world ran"),
    (0.0, "its words in the log stand out"),
)  # fmt: skip


def _because(score: float, other: float) -> str:
    one, two = (next(words for least, words in _BANDS if value >= least) for value in (score, other))
    if one != two:
        return f"{one}, and of the other there is only this: {two}"
    return "it is nearer to the fault" if score >= SHIM else "its words point at it more clearly"


def _loaded(crash: Crash, said: Said) -> frozenset[str]:
    own = {module.module for module in crash.modules} | {frame.module for frame in crash.frames if frame.module}
    return said.loaded.union(said.drivers, own)


# ---- named by the message --------------------------------------------------------------------------------------------


def _named(case: _Case, ill: Mapping[str, Standout]) -> Iterable[Suspect]:
    # What passes things on is named only because it is on the stack as well: it comes behind every other module named.
    text, message = case.crash.text, message_of(case.crash)
    listed = modules_named_by_kernel(text) if "involved in panic" in text else {}
    named = [(module, "the kernel lists it as involved in the panic") for module in listed]
    named += [(module, f"the message says 'inside {module}'") for module in _INSIDE.findall(message)]
    # The kernel lists whom it finds on the stack of the PCPU that panics: who waited, where another one's stack tells.
    waited = any(frame.backtrace > 0 for frame in case.frames)
    order = {frame.module: -index for index, frame in reversed(list(enumerate(case.frames)))}
    for module, why in named:
        # Of several, an ill driver goes before a layer, then what is nearer to the fault.
        first = module in ill and class_of(module) not in ("layer", "reporter")
        near = 0.3 * first + 0.001 * order.get(module, -len(case.frames))
        score = WORLD if waited and module not in order else PASSING if is_plumbing(module) else INVOLVED + near
        yield Suspect(module, "named_by_kernel", why, score)
    if "/" in message and not named:
        yield from _by_path(message, case)


def _by_path(message: str, case: _Case) -> Iterable[Suspect]:
    # `bora/modules/vmkernel/lsom/x.c`: the folder nearest to the file that is a module's name.
    for path in _PATH.findall(message):
        if _KERNEL_PATH.search(path):
            continue
        for folder in reversed(path.split("/")[:-1]):
            shim = re.sub(r"_\d{1,2}$", "", folder)
            module = shim if is_plumbing(shim) else module_of_word(folder, case.loaded, case.release)
            if module:
                yield Suspect(module, "named_by_kernel", f"the check that failed is in its source, {path}", IN_MESSAGE)
                return


def _at_device(crash: Crash, devices: Mapping[str, str]) -> Iterable[Suspect]:
    for line in _device_lines(crash):
        for device, driver in _DRIVER_OF_DEVICE.findall(line):
            if not _MASKED.fullmatch(driver):
                yield Suspect(
                    driver, "named_by_kernel", f"the message names {driver} as driver of {device}", IN_MESSAGE
                )
        for address in _addresses(line):
            if driver := devices.get(address):
                why = f"the message names the device {address}, which {driver} drives by the host's own lists"
                yield Suspect(driver, "named_by_kernel", why, AT_DEVICE)


def _device_lines(crash: Crash) -> list[str]:
    message = message_of(crash)
    if crash.kind not in (*HARDWARE_KINDS, "iommu_fault", "other"):
        return [message] if "(vm" in message or "[vm" in message else []
    lines = crash.text[:MAX_SEARCHED].split("\n")
    return [message, *(line[:MAX_MESSAGE] for line in lines if any(word in line for word in _NAMES_DEVICE))]


def _addresses(line: str) -> list[str]:
    return [f"{int(a or '0', 16):04x}:{int(b, 16):02x}:{c}.{d}".lower() for a, b, c, d in _ADDRESS.findall(line)]


def _device_of(crash: Crash, named: Sequence[Suspect], ill: Mapping[str, Standout]) -> str | None:
    # For a signature that must be the same in every slot: the device's driver, else what kind of device it is.
    failed = [name for name, found in ill.items() if "device_error" in found.words]
    if named or failed:
        return named[0].module if named else failed[0]
    devices = (device for line in _device_lines(crash) for device, _ in _DRIVER_OF_DEVICE.findall(line))
    return next((re.sub(r"[\dX]+$", "", device) for device in devices), None)


def _of_lock(case: _Case) -> Iterable[Suspect]:
    # A lock bears its module's name: whoever holds it is that module's code, or was let in by it.
    lock = _LOCK.search(message_of(case.crash)) if case.crash.kind == "spin_count" else None
    word = re.split(r"(?<=[a-z0-9])(?=[A-Z])|_", lock[1])[0] if lock else ""
    module = module_of_word(word, case.loaded, case.release)
    if module and lock and not is_plumbing(module):
        # The holder's own stack says more than the lock's name.
        held = any(frame.backtrace > 0 for frame in case.frames)
        yield Suspect(module, "named_by_kernel", f"the lock is called {lock[1]}", WORLD if held else LOCK_OWNER)


# ---- on the stack ----------------------------------------------------------------------------------------------------


def _accusing(crash: Crash, frames: Sequence[Frame]) -> Sequence[Frame]:
    # An I/O fault interrupts whoever runs. A waiter's stack tells of the lock's owner only where a module asked for the
    # lock itself; a lock of the kernel's own may be held by anybody.
    if crash.kind == "iommu_fault":
        return ()
    if crash.kind != "spin_count" or any(frame.backtrace > 0 for frame in frames):
        return frames
    named = (
        frame
        for frame in frames
        if not frame.function or not (is_lock(frame.function) or irrelevant_rule(frame.function))
    )
    asks = next(named, None)
    return frames if asks and asks.module != "vmkernel" else ()


def _on_stack(case: _Case, ill: Mapping[str, Standout]) -> Iterable[Suspect]:
    # A module's first frame decides its place, its best-known frame the kind of evidence.
    strongest: dict[str, tuple[str, Frame]] = {}
    for frame in case.frames:
        for module, evidence in _accused(frame.function, frame.module, frame.module_evidence, case.release):
            known = strongest.get(module)
            if known is None or _STACK_KINDS.index(evidence) < _STACK_KINDS.index(known[0]):
                strongest[module] = (evidence, frame)
    found = []
    for position, (module, (evidence, frame)) in enumerate(strongest.items()):
        # A symbol of a shim's own code (4.x prints every Linux driver as `esx`) is weaker than any module of its own.
        shim = frame.module is not None and is_plumbing(frame.module)
        score = (SHIM if shim else STACK) + 1 / (1 + position)
        found.append(Suspect(module, evidence, _place_of(frame, module, evidence), score))
    return _with_the_log(found, ill)


def _with_the_log(found: list[Suspect], ill: Mapping[str, Standout]) -> list[Suspect]:
    # VMware's own layers run on what drivers hand them: a driver that was ill goes before the layers nearer to the fault.
    layers = []
    for at, suspect in enumerate(found):
        if class_of(suspect.module) in ("layer", "reporter"):
            layers.append(suspect)
        elif layers and suspect.module in ill and len(layers) == at:
            why = (
                f"{suspect.why}; it outweighs {', '.join(one.module for one in layers)}, nearer to the fault, because it was ill "
                f"just before ({ill[suspect.module].why}), and a layer works on what its driver hands it"
            )
            raised = replace(suspect, why=why, score=max(suspect.score, layers[0].score + 0.05))
            return [raised, *found[:at], *found[at + 1 :]]
        else:
            break
    return found


_STACK_KINDS = ("on_stack", "module_map", "symbol_prefix")
_KIND_OF = {"printed": "on_stack", "module_map": "module_map", "symbol_prefix": "symbol_prefix", None: "on_stack"}


@lru_cache(maxsize=1 << 16)
def _accused(
    function: str | None, module: str | None, evidence: str | None, release: Release | None
) -> tuple[tuple[str, str], ...]:
    # (module, kind of evidence) of whom a frame on the stack accuses.
    if function and irrelevant_rule(function):
        return ()
    if module and not is_plumbing(module):
        return ((module, _KIND_OF[evidence]),)
    named = module_of_symbol(function, (), release) if module and module != "vmkernel" and function else None
    return ((named, "symbol_prefix"),) if named else ()


def _place_of(frame: Frame, module: str, evidence: str) -> str:
    where = f"frame {frame.index}, {frame.function or 'symbol unknown'}"
    if evidence == "on_stack":
        return f"{where}, is printed as {module}"
    if evidence == "module_map":
        return f"{where}, lies in {module} by the module map"
    rule = prefix_rule(frame.function or "")
    return f"{where}, begins with {rule.pattern if rule else '?'} (symbol_prefixes.txt:{rule.line if rule else 0})"


# ---- off the stack ---------------------------------------------------------------------------------------------------


def _by_world(case: _Case) -> Iterable[Suspect]:
    name = case.crash.world_name
    if not name or case.crash.kind in (*STALLED, *HARDWARE_KINDS, "iommu_fault", "spin_count"):
        return
    module = module_of_word(name, case.loaded, case.release)
    if module and not is_plumbing(module):
        yield Suspect(module, "world_name", f"the world is called {name}", WORLD)


def _stands_out(case: _Case) -> dict[str, Standout]:
    # Modules whose words before the crash stand out, the clearest first.
    out: dict[str, Standout] = {}
    for found in standouts(case.said, case.crash):
        module = module_of_word(found.module, case.loaded, case.release)
        if module is None and found.module in case.said.drivers:
            module = found.module
        if module and not is_plumbing(module) and class_of(module) != "reporter":
            out.setdefault(module, found)
    return out


def _hardware(crash: Crash) -> str | None:
    # What in the crash says that the platform failed.
    if software_nmi(crash):
        return None
    if crash.kind in HARDWARE_KINDS:
        return f"a crash of kind {crash.kind}"
    message = message_of(crash)
    match = next(filter(None, (pattern.search(message) for pattern, _ in _HARDWARE)), None)
    if match:
        return f"the message says {match[0]!r}"
    frame = machine_check_frame(crash) or next(
        (f for f in crash.frames if f.backtrace == 0 and f.function and _HARDWARE_FRAME.fullmatch(f.function)), None
    )
    return f"{frame.function} is on the stack" if frame else None


def _notes(crash: Crash, traced: Sequence[Frame], accusing: Sequence[Frame]) -> tuple[str, ...]:
    notes = []
    if crash.kind in VICTIM:
        notes.append(f"a victim is not a culprit: {VICTIM[crash.kind]}")
    elif any(frame.function and _of_heap(frame.function) for frame in traced[:4]):
        notes.append(f"a victim is not a culprit: {VICTIM['heap_corruption']}")
    if crash.kind in STALLED and crash.frames and not traced:
        notes.append("the backtrace of the PCPU that stalled is not in the text")
    if crash.kind == "spin_count" and traced and all(frame.backtrace == 0 for frame in traced):
        notes.append("the backtrace of the PCPU that held the lock is not in the text")
    if crash.kind == "iommu_fault" and traced and not accusing:
        notes.append("an I/O fault interrupts whoever runs: the stack accuses nobody")
    if not crash.frames:
        notes.append("there is no backtrace")
    return tuple(notes)


def _notes_of_log(ill: Mapping[str, Standout], suspects: Sequence[Suspect]) -> Iterable[str]:
    # Who is refused memory complains as loudly as who has taken it.
    for module, found in ill.items():
        if found.victim:
            yield f"a victim is not a culprit: all that the log says of {module} ({found.why}) a victim would say too"
    clear = next((module for module, found in ill.items() if not found.victim), None)
    if clear and suspects[0].module != clear:
        yield f"the log points at {clear}, not at {suspects[0].module}: {ill[clear].why}"


@lru_cache(maxsize=1 << 14)
def _of_heap(function: str) -> bool:
    return _HEAP.fullmatch(function) is not None


def _innermost(case: _Case, module: str) -> str | None:
    for frame in case.frames:
        accused = _accused(frame.function, frame.module, frame.module_evidence, case.release)
        if frame.function and module in (name for name, _ in accused):
            return frame.function
    return None
