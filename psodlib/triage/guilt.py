"""Which module the evidence points at, how strongly, who else is under suspicion, and why the one outweighs the other.

The kinds of evidence, strongest first, are the closed list ``guilt``. The kind says how a module came under suspicion;
*which* module of a stack is meant goes by position: the innermost one that is no plumbing, unless a driver behind VMware's
own layers was ill just before. Some crashes take the stack out of play: a machine check and an I/O fault interrupt whoever
runs, a stalled PCPU is found by another one, and a crash that a person asked for blames nobody.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile

from psodlib.evidence.psod_lines import modules_named_by_kernel
from psodlib.records import Crash, Frame, Precursor

from psodlib.triage.frames import (  # isort: skip
    MAX_MESSAGE, MAX_SEARCHED, STALLED, attribute_frames, irrelevant_rule, is_lock, junk, machine_check_frame,
    message_of, software_nmi, telling_frames,
)  # fmt: skip
from psodlib.triage.modules import (  # isort: skip
    Release, class_of, is_plumbing, module_of_symbol, module_of_word, prefix_rule, release_of,
)  # fmt: skip
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
_of_heap = lru_cache(maxsize=1 << 14)(re.compile(r"DLM_\w+|tmalloc_\w+|Heap_\w+|dlmalloc\w*").fullmatch)

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

    crash: Crash  # with the modules of its frames named
    guilt: str  # strongest kind of evidence against the module; ``hardware`` and ``deliberate`` have no module
    module: str | None = None
    function: str | None = None  # the guilty module's innermost on the stack
    # every module under suspicion, strongest first; the first one is ``module`` unless the stack was out of play
    suspects: tuple[Suspect, ...] = ()
    notes: tuple[str, ...] = ()  # what a reader must know before believing it
    device: str | None = None  # what the message's device is, for the signature: its driver, else its class


@dataclass(frozen=True, slots=True)
class _Case:
    # A crash and what is known of its host.
    crash: Crash
    message: str
    frames: Sequence[Frame]  # those that accuse
    elsewhere: bool  # ... as saved of another PCPU, which panicked not
    loaded: Collection[str]
    release: Release | None
    ill: Mapping[str, Standout]  # modules whose words before the crash stand out, the clearest first

    def module_of(self, word: str) -> str | None:
        module = module_of_word(word, self.loaded, self.release)
        return None if module is None or is_plumbing(module) else module


def find_guilty(crash: Crash, precursors: Said | Sequence[Precursor] = ()) -> Verdict:
    """Weigh all evidence against modules and name the one it points at most strongly."""
    said = heard(precursors, crash)
    crash = attribute_frames(crash, said.loaded, said.release)
    traced = [frame for frame in telling_frames(crash) if not junk(frame)]
    frames = _accusing(crash, traced)
    own = {module.module for module in crash.modules} | {frame.module for frame in crash.frames if frame.module}
    loaded, release = said.loaded.union(said.drivers, own), release_of(crash) or said.release
    ill: dict[str, Standout] = {}
    for found in standouts(said, crash):
        name = module_of_word(found.module, loaded, release) or (found.module if found.module in said.drivers else None)
        if name and not is_plumbing(name) and class_of(name) != "reporter":
            ill.setdefault(name, found)
    elsewhere = any(frame.backtrace > 0 for frame in frames)
    case = _Case(crash, message_of(crash), frames, elsewhere, loaded, release, ill)
    at_device = list(_at_device(case, said.devices))
    logged = [Suspect(name, "precursor_log", found.why, LOG * found.weight) for name, found in ill.items()]
    suspects = _ranked([*_named(case), *at_device, *_of_lock(case), *_on_stack(case), *_by_world(case), *logged])
    notes = [*_notes(crash, traced), *_notes_of_log(ill, suspects)]
    platform = _hardware(case)
    device = _device_of(case, at_device)
    if crash.deliberate or crash.kind == "user_requested":
        guilt, device = "deliberate", None
        notes.append("a person asked for this crash: nobody is to blame")
    elif platform and not (suspects and suspects[0].score >= PASSING):
        guilt = "hardware"
        notes.append(f"{platform}: the stack only shows what ran at that moment")
    elif suspects:
        best = suspects[0]
        function = next((f.function for f in frames if f.function and best.module in _accused(f, release)), None)
        return Verdict(crash, best.evidence, best.module, function, suspects, tuple(notes), device)
    else:
        guilt = "none"
    return Verdict(crash, guilt, suspects=suspects, notes=tuple(notes), device=device)


# From which score on, and what it means for a suspect.
_BANDS = (
    (PASSING, "the kernel itself lists it"),
    (STACK + 1.01, "the message names it"),
    (SHIM + 1.01, "it is on the stack"),
    (SHIM, "a symbol of its own runs under a layer's name"),
    (WORLD, "its own world ran"),
    (0.0, "its words in the log stand out"),
)  # fmt: skip


def _ranked(suspects: Iterable[Suspect]) -> tuple[Suspect, ...]:
    # One entry a module: its first, for the evidence comes strongest first.
    best: dict[str, Suspect] = {}
    for suspect in suspects:
        best.setdefault(suspect.module, suspect)
    ranked = sorted(best.values(), key=lambda suspect: -suspect.score)
    if len(ranked) > 1 and "outweighs" not in ranked[0].why:
        first, second = ranked[:2]
        one, two = (next(words for least, words in _BANDS if s.score >= least) for s in (first, second))
        nearer = "it is nearer to the fault" if first.score >= SHIM else "its words point at it more clearly"
        why = nearer if one == two else f"{one}, and of the other there is only this: {two}"
        ranked[0] = replace(first, why=f"{first.why}; it outweighs {second.module}: {why}")
    return tuple(ranked)


# ---- named by the message --------------------------------------------------------------------------------------------


def _named(case: _Case) -> Iterator[Suspect]:
    text = case.crash.text
    listed = modules_named_by_kernel(text) if "involved in panic" in text else {}
    named = [(module, "the kernel lists it as involved in the panic") for module in listed]
    named += [(module, f"the message says 'inside {module}'") for module in _INSIDE.findall(case.message)]
    order = {frame.module: -index for index, frame in reversed(list(enumerate(case.frames)))}
    for module, why in named:
        # Of several, an ill driver goes before a layer, then what is nearer to the fault.
        first = module in case.ill and class_of(module) not in ("layer", "reporter")
        near = 0.3 * first + 0.001 * order.get(module, -len(case.frames))
        # The kernel lists whom it finds on the stack of the PCPU that panics: who waited, where another one's stack tells.
        # What passes things on is named only because it is on the stack as well: it comes behind every other module named.
        waited = case.elsewhere and module not in order
        score = WORLD if waited else PASSING if is_plumbing(module) else INVOLVED + near
        yield Suspect(module, "named_by_kernel", why, score)
    # `bora/modules/vmkernel/lsom/x.c`: the folder nearest to the file that is a module's name.
    paths = _PATH.findall(case.message) if "/" in case.message and not named else []
    for path in paths:
        folders = [] if _KERNEL_PATH.search(path) else path.split("/")[:-1]
        for folder in reversed(folders):
            shim = re.sub(r"_\d{1,2}$", "", folder)
            owner = shim if is_plumbing(shim) else module_of_word(folder, case.loaded, case.release)
            if owner:
                yield Suspect(owner, "named_by_kernel", f"the check that failed is in its source, {path}", IN_MESSAGE)
                return


def _at_device(case: _Case, devices: Mapping[str, str]) -> Iterator[Suspect]:
    for line in _device_lines(case):
        for device, driver in _DRIVER_OF_DEVICE.findall(line):
            if not _MASKED.fullmatch(driver):
                why = f"the message names {driver} as driver of {device}"
                yield Suspect(driver, "named_by_kernel", why, IN_MESSAGE)
        for domain, bus, slot, function in _ADDRESS.findall(line):
            address = f"{int(domain or '0', 16):04x}:{int(bus, 16):02x}:{slot}.{function}".lower()
            if driver := devices.get(address):
                why = f"the message names the device {address}, which {driver} drives by the host's own lists"
                yield Suspect(driver, "named_by_kernel", why, AT_DEVICE)


def _device_lines(case: _Case) -> list[str]:
    if case.crash.kind not in (*HARDWARE_KINDS, "iommu_fault", "other"):
        return [case.message] if "(vm" in case.message or "[vm" in case.message else []
    lines = case.crash.text[:MAX_SEARCHED].split("\n")
    return [case.message, *(line[:MAX_MESSAGE] for line in lines if any(word in line for word in _NAMES_DEVICE))]


def _device_of(case: _Case, named: Sequence[Suspect]) -> str | None:
    # For a signature that must be the same in every slot: the device's driver, else what kind of device it is.
    names = [suspect.module for suspect in named]
    names += [name for name, found in case.ill.items() if "device_error" in found.words]
    devices = (device for line in _device_lines(case) for device, _ in _DRIVER_OF_DEVICE.findall(line))
    return names[0] if names else next((re.sub(r"[\dX]+$", "", device) for device in devices), None)


def _of_lock(case: _Case) -> Iterator[Suspect]:
    # A lock bears its module's name: whoever holds it is that module's code, or was let in by it. The holder's own stack
    # says more than the lock's name.
    lock = _LOCK.search(case.message) if case.crash.kind == "spin_count" else None
    if lock and (module := case.module_of(re.split(r"(?<=[a-z0-9])(?=[A-Z])|_", lock[1])[0])):
        score = WORLD if case.elsewhere else LOCK_OWNER
        yield Suspect(module, "named_by_kernel", f"the lock is called {lock[1]}", score)


# ---- on the stack ----------------------------------------------------------------------------------------------------


def _accusing(crash: Crash, frames: Sequence[Frame]) -> Sequence[Frame]:
    # An I/O fault interrupts whoever runs. A waiter's stack tells of the lock's owner only where a module asked for the
    # lock itself; a lock of the kernel's own may be held by anybody.
    if crash.kind == "iommu_fault":
        return ()
    if crash.kind != "spin_count" or any(frame.backtrace > 0 for frame in frames):
        return frames
    names = ((frame, frame.function) for frame in frames)
    asks = next((frame for frame, name in names if not name or not (is_lock(name) or irrelevant_rule(name))), None)
    return frames if asks and asks.module != "vmkernel" else ()


def _on_stack(case: _Case) -> list[Suspect]:
    # A module's first frame decides its place, its best-known frame the kind of evidence.
    strongest: dict[str, tuple[str, Frame]] = {}
    for frame in case.frames:
        for module, evidence in _accused(frame, case.release).items():
            known = strongest.get(module)
            if known is None or _STACK_KINDS.index(evidence) < _STACK_KINDS.index(known[0]):
                strongest[module] = (evidence, frame)
    found = []
    for position, (module, (evidence, frame)) in enumerate(strongest.items()):
        # A symbol of a shim's own code (4.x prints every Linux driver as `esx`) is weaker than any module of its own.
        shim = frame.module is not None and is_plumbing(frame.module)
        score = (SHIM if shim else STACK) + 1 / (1 + position)
        found.append(Suspect(module, evidence, _place_of(frame, module, evidence), score))
    # VMware's own layers run on what drivers hand them: a driver that was ill goes before the layers nearer to the fault.
    layers = list(takewhile(lambda suspect: class_of(suspect.module) in ("layer", "reporter"), found))
    behind = found[len(layers) :]
    if layers and behind and behind[0].module in case.ill:
        driver, *others = behind
        why = (
            f"{driver.why}; it outweighs {', '.join(one.module for one in layers)}, nearer to the fault, because it was ill "
            f"just before ({case.ill[driver.module].why}), and a layer works on what its driver hands it"
        )
        return [replace(driver, why=why, score=max(driver.score, layers[0].score + 0.05)), *layers, *others]
    return found


_STACK_KINDS = ("on_stack", "module_map", "symbol_prefix")


def _accused(frame: Frame, release: Release | None) -> Mapping[str, str]:
    return _accused_by(frame.function, frame.module, frame.module_evidence, release)


@lru_cache(maxsize=1 << 16)
def _accused_by(
    function: str | None, module: str | None, evidence: str | None, release: Release | None
) -> Mapping[str, str]:
    # Whom a frame on the stack accuses -> the kind of evidence.
    if function and irrelevant_rule(function):
        return {}
    if module and not is_plumbing(module):
        return {module: "on_stack" if evidence in (None, "printed") else evidence}
    named = module_of_symbol(function, (), release) if module and module != "vmkernel" and function else None
    return {named: "symbol_prefix"} if named else {}


def _place_of(frame: Frame, module: str, evidence: str) -> str:
    where = f"frame {frame.index}, {frame.function or 'symbol unknown'}"
    if evidence == "on_stack":
        return f"{where}, is printed as {module}"
    if evidence == "module_map":
        return f"{where}, lies in {module} by the module map"
    rule = prefix_rule(frame.function or "")
    return f"{where}, begins with {rule.pattern if rule else '?'} (symbol_prefixes.txt:{rule.line if rule else 0})"


# ---- off the stack ---------------------------------------------------------------------------------------------------


def _by_world(case: _Case) -> Iterator[Suspect]:
    name, others = case.crash.world_name, (*STALLED, *HARDWARE_KINDS, "iommu_fault", "spin_count")
    if name and case.crash.kind not in others and (module := case.module_of(name)):
        yield Suspect(module, "world_name", f"the world is called {name}", WORLD)


def _hardware(case: _Case) -> str | None:
    # What in the crash says that the platform failed.
    crash = case.crash
    if software_nmi(crash):
        return None
    if crash.kind in HARDWARE_KINDS:
        return f"a crash of kind {crash.kind}"
    for pattern, _ in _HARDWARE:
        if match := pattern.search(case.message):
            return f"the message says {match[0]!r}"
    own = (f for f in crash.frames if f.backtrace == 0 and f.function and _HARDWARE_FRAME.fullmatch(f.function))
    frame = machine_check_frame(crash) or next(own, None)
    return f"{frame.function} is on the stack" if frame else None


def _notes(crash: Crash, traced: Sequence[Frame]) -> Iterator[str]:
    heap = any(frame.function and _of_heap(frame.function) for frame in traced[:4])
    victim = VICTIM.get(crash.kind, VICTIM["heap_corruption"] if heap else "")
    waiter = crash.kind == "spin_count" and bool(traced) and all(frame.backtrace == 0 for frame in traced)
    doubts = {
        f"a victim is not a culprit: {victim}": bool(victim),
        "the backtrace of the PCPU that stalled is not in the text": crash.kind in STALLED
        and crash.frames
        and not traced,
        "the backtrace of the PCPU that held the lock is not in the text": waiter,
        "an I/O fault interrupts whoever runs: the stack accuses nobody": crash.kind == "iommu_fault" and traced,
        "there is no backtrace": not crash.frames,
    }
    return (words for words, holds in doubts.items() if holds)


def _notes_of_log(ill: Mapping[str, Standout], suspects: Sequence[Suspect]) -> Iterator[str]:
    # Who is refused memory complains as loudly as who has taken it.
    for module, found in ill.items():
        if found.victim:
            yield f"a victim is not a culprit: all that the log says of {module} ({found.why}) a victim would say too"
    clear = next((module for module, found in ill.items() if not found.victim), None)
    if clear and suspects[0].module != clear:
        yield f"the log points at {clear}, not at {suspects[0].module}: {ill[clear].why}"
