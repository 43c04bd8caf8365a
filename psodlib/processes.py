"""This machine's threads and processes: files -> what they say, tasks -> results. What ``cluster`` is for other machines."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from psodlib.evidence.reading import is_vmkernel, read_unit
from psodlib.evidence.sources import Unit, head_of
from psodlib.records import FileReading, Problem
from psodlib.store.ledger import Job, digest, known_again, unchanged
from psodlib.store.readings import Entry, write_segment

__all__ = ["read_all", "read_here", "spread_here"]

SMALL = 4 << 20  # bytes: below this a pool of processes costs more than it saves (measured: 0.6 s to start one)
LARGE = 1 << 20  # bytes: a log from this size on is looked into, to see whether a thread is enough

Read = tuple[list[FileReading], list[Problem]]


def read_all(units: Sequence[Unit], jobs: int | None) -> Iterator[tuple[Unit, Read]]:
    """Read files with threads, processes or neither, whichever is quickest for them."""
    workers = min(jobs or _cores(), len(units))
    if workers <= 1 or (jobs is None and sum(unit.size for unit in units) < SMALL):
        yield from ((unit, read_unit(unit)) for unit in units)
        return
    # Largest first, so that no worker is left with a giant at the end.
    order = sorted(units, key=lambda unit: -unit.size)
    searched: list[Unit] = []
    others: list[Unit] = []
    for unit in order:
        (searched if unit.size >= LARGE and is_vmkernel(head_of(unit)) else others).append(unit)
    yield from _in_threads(searched, workers)
    if sum(unit.size for unit in others) < SMALL:
        yield from ((unit, read_unit(unit)) for unit in others)
    else:
        yield from _in_processes(others, workers)


def _in_threads(units: Sequence[Unit], workers: int) -> Iterator[tuple[Unit, Read]]:
    # A large log is searched, inflated and counted by native code that leaves the interpreter to others.
    with ThreadPoolExecutor(workers) as pool:
        yield from zip(units, pool.map(read_unit, units), strict=True)


def _in_processes(units: Sequence[Unit], workers: int) -> Iterator[tuple[Unit, Read]]:
    # Spawned, not forked: the caller may hold threads.
    chunk = max(1, min(16, len(units) // (workers * 8)))
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        with _anonymous_main():
            results = pool.map(read_unit, units, chunksize=chunk)
        yield from zip(units, results, strict=True)


@contextmanager
def _anonymous_main() -> Iterator[None]:
    # A spawned process runs the caller's script again, unless that script guards itself; six lines of Python in a file do
    # not. Without a file or spec there is nothing to run again, and `read_unit` needs nothing of it.
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if getattr(main, name, None) is not None}
    try:
        for name in hidden:
            setattr(main, name, None)
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)


def _cores() -> int:
    # Those that this process may use, where the system tells.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread_here(function: Callable[[Any], Any], tasks: Sequence[Any], jobs: int | None) -> Iterator[Any]:
    workers = min(jobs or _cores(), len(tasks))
    if workers <= 1:
        yield from map(function, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        with _anonymous_main():
            results = pool.map(function, tasks)
        yield from results


def read_here(folder: Path, todo: Sequence[Job], jobs: int | None) -> Iterator[Entry]:
    """Read files into the store with this machine's processes."""
    with ThreadPoolExecutor(jobs or _cores()) as threads:  # hashing frees the interpreter
        looked = list(zip(todo, threads.map(digest, todo), strict=True))
    yield from (known_again(job, entry) for job, entry in looked if unchanged(job, entry))
    entries = {job.unit.paths: entry for job, entry in looked if not unchanged(job, entry)}
    units = [job.unit for job, _ in looked if job.unit.paths in entries]
    read = ((entries[unit.paths], *told) for unit, told in read_all(units, jobs))
    yield from write_segment(folder, read)
