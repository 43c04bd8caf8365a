"""How many crashes a second are signed and judged, on one core.

    python benchmarks/triage_speed.py --crashes 10000

Prints one row a shape of crash. Texts are made and read before the clock starts; every crash that is judged is a fresh
one, moved to an address space of its own, so that nothing is saved by meeting the same object twice.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

from psodlib.evidence.psod import find_crashes
from psodlib.records import Crash, Frame, Module, Precursor
from psodlib.simulate.stories import story_named
from psodlib.simulate.text import dump_text
from psodlib.triage.crashes import judge
from psodlib.triage.precursors import hear

HPSA = story_named("hpsa")
PER_HOST = 5  # crashes of one host
BATCH = 2_000  # crashes alive at a time
KINDS = 300  # different texts a shape
TIME = 1_400_000_000_000  # milliseconds since 1970
CUT, DROPPED = 0.3, 0.1  # share of damaged texts that are cut short; share of lines that the others lose
PLUMBING_FRAMES, MODULES, DEPTH = 6, 60, 18


def simulated(rng: Random) -> Crash:
    """A crash of the simulator, six to ten frames, nine modules."""
    return find_crashes(_text(rng))[0]


def damaged(rng: Random) -> Crash:
    """The same with its text cut, lines lost, letters broken."""
    while True:
        lines = _text(rng).split("\n")
        if rng.random() < CUT:
            lines = lines[: rng.randrange(3, len(lines))]
        lines = [line[: rng.randrange(len(line) + 1)] if rng.random() < DROPPED else line for line in lines]
        found = find_crashes("\n".join(line for line in lines if rng.random() > DROPPED))
        if found:
            return found[0]


def long(rng: Random) -> Crash:
    """Eighteen frames and a map of sixty modules, half of the frames without a printed module."""
    crash = simulated(rng)
    top = max((module.base or 0 for module in crash.modules), default=0)
    modules = [Module(module=f"drv{i}", base=top + 0x40000 * (i + 1)) for i in range(MODULES - len(crash.modules))]
    own = [frame for frame in crash.frames if frame.backtrace == 0]
    frames = [replace(own[i % len(own)], index=i) for i in range(DEPTH)]
    for i in range(PLUMBING_FRAMES):
        module = modules[rng.randrange(len(modules))]
        address = (module.base or 0) + 0x1000 + i
        frames[-1 - i] = Frame(index=DEPTH - 1 - i, function=f"{module.module}_fn{i}", address=address, offset=16)
    return replace(crash, frames=tuple(frames), modules=(*crash.modules, *modules))


def quiet(rng: Random) -> Crash:
    """A stack that is all vmkernel: only the lines before the crash can tell."""
    names = ("Panic", "Heap_Free", "DLM_free", "Timer_BHHandler", "BH_Check", "CpuSched_StartWorld")
    frames = tuple(Frame(index=i, function=name, module="vmkernel", module_evidence="printed", address=0x418000000000 + i)
                   for i, name in enumerate(names))  # fmt: skip
    time = datetime(2014, 5, 1, tzinfo=UTC) + timedelta(minutes=rng.randrange(10**5))
    return Crash(kind="page_fault", message="#PF Exception 14", time=time, frames=frames)


def _text(rng: Random) -> str:
    stack = rng.choice(HPSA.stacks)
    uptime = rng.randrange(10**6, 10**10)
    return dump_text(HPSA, stack.kind, stack.module, TIME, uptime, "1331820", rng, bare=rng.random() < DROPPED)


def moved(crash: Crash, by: int) -> Crash:
    """The same crash in another address space."""
    frames = tuple(replace(frame, address=frame.address and frame.address + by) for frame in crash.frames)
    modules = tuple(replace(module, base=module.base and module.base + by) for module in crash.modules)
    return replace(crash, frames=frames, modules=modules)


def fresh(make: Callable[[Random], Crash], count: int) -> Iterator[list[Crash]]:
    """Batches of new crashes of one shape."""
    rng = Random(1)
    templates = [make(rng) for _ in range(KINDS)]
    for begin in range(0, count, BATCH):
        yield [moved(rng.choice(templates), 0x200000 * rng.randrange(1000)) for _ in range(min(BATCH, count - begin))]


def warnings_of(crash: Crash) -> list[Precursor]:
    """Two hundred lines of the two weeks before, most of them on the last day."""
    if crash.time is None:
        return []
    spans = [timedelta(hours=i / 8) for i in range(160)] + [timedelta(hours=30 + 8 * i) for i in range(40)]
    return [Precursor(time=crash.time - span, what="heap_at_maximum", module="hpsa") for span in reversed(spans)]


def seconds(make: Callable[[Random], Crash], count: int, warned: bool) -> float:
    """Processor time to judge so many; what the hosts' logs said is heard once for every five crashes."""
    taken = 0.0
    for batch in fresh(make, count):
        groups = [batch[i : i + PER_HOST] for i in range(0, len(batch), PER_HOST)]
        logs = [warnings_of(group[0]) if warned else [] for group in groups]
        began = time.process_time()
        for group, precursors in zip(groups, logs, strict=True):
            said = hear(precursors, crashes=group) if precursors else ()
            for crash in group:
                judge(crash, said)
        taken += time.process_time() - began
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crashes", type=int, default=10_000)
    count = parser.parse_args().crashes
    print("| shape | crashes | s | µs a crash | s for 100,000 |\n" + "| --- " * 5 + "|")
    for make, warned in ((simulated, False), (damaged, False), (long, False), (quiet, True)):
        taken = seconds(make, count, warned)
        name = (make.__doc__ or "").split("\n")[0].rstrip(".")
        each = taken / count
        print(f"| {name} | {count:,} | {taken:.2f} | {each * 1e6:.0f} | {each * 1e5:.1f} |", flush=True)
    for size in (300_000, 1_000_000):
        crash = Crash(kind="machine_check", message="Machine Check " * (size // 14), text="bank 1 " * (size // 7))
        began = time.process_time()
        judge(crash)
        judge(replace(crash, kind="other"))
        print(
            f"| A message and a text of {size:,} characters | 2 | {time.process_time() - began:.3f} | | |", flush=True
        )


if __name__ == "__main__":
    main()
