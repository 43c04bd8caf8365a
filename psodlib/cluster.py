"""Reading on many machines: one task a large file or a group of small ones, and what a scheduler may know of them.

A task gets addresses and gives entries of the ledger; log text and readings go from the file to the worker to the store. So
a lost worker costs its tasks only, and a task that runs twice writes the same segment twice. Spark, SLURM and Kubernetes use
``read_group`` in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from psodlib.errors import InputError
from psodlib.evidence.reading import read_unit
from psodlib.evidence.sources import Unit
from psodlib.records import FileReading, Problem
from psodlib.store.ledger import Job, digest, known_again, unchanged
from psodlib.store.readings import Entry, write_segment

__all__ = ["groups_of", "read_far", "read_group", "read_near", "spread_far"]

GROUP = 32 << 20  # bytes of small files in one task: seconds of work, against milliseconds of overhead
MOST = 256  # files in one task
AHEAD = 4  # tasks waiting for each thread of the cluster; the scheduler knows of no more at a time

Told = tuple[list[FileReading], list[Problem]]
T = TypeVar("T")


def groups_of(items: Sequence[T], size: Callable[[T], int], workers: int) -> list[list[T]]:
    """Items in groups of about one size, the largest first."""
    most = max(1, min(GROUP, sum(map(size, items)) // (AHEAD * max(workers, 1))))
    groups: list[list[T]] = []
    filled = most
    for item in sorted(items, key=size, reverse=True):
        if filled + size(item) > most or len(groups[-1]) >= MOST:
            groups.append([])
            filled = 0
        groups[-1].append(item)
        filled += max(size(item), most // MOST)
    return groups


def read_group(folder: Path, jobs: Sequence[Job]) -> list[Entry]:
    """Read some files into a segment of the store: a pure function of their bytes, wherever and however often it runs."""
    same: list[Entry] = []

    def found() -> Iterator[tuple[Entry, list[FileReading], list[Problem]]]:
        for job in jobs:
            entry = digest(job)
            if unchanged(job, entry):
                same.append(known_again(job, entry))
            else:
                yield entry, *read_unit(job.unit)

    return [*write_segment(folder, found()), *same]


def read_far(client: Any, folder: Path, jobs: Sequence[Job]) -> Iterator[Entry]:
    """``read_group`` over a Dask cluster; entries as they come."""
    folder = folder.resolve()
    groups = groups_of(jobs, lambda job: job.entry.size, _threads(client))
    for entries in _each(client, read_group, [(folder, group) for group in groups]):
        yield from entries


def read_near(client: Any, units: Sequence[Unit]) -> Iterator[tuple[Unit, Told]]:
    """Read on a Dask cluster without a store: the readings come straight from the workers, past the scheduler."""
    groups = groups_of(units, lambda unit: unit.size, _threads(client))
    for group in _each(client, _read_units, [(group,) for group in groups]):
        yield from group


def _read_units(units: Sequence[Unit]) -> list[tuple[Unit, Told]]:
    return [(unit, read_unit(unit)) for unit in units]


def spread_far(client: Any, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
    """As ``map`` over a Dask cluster, in any order."""
    return _each(client, function, [(task,) for task in tasks])


def _threads(client: Any) -> int:
    return sum(client.nthreads().values()) or 1


def _each(client: Any, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    # A window of tasks over the calls; each result is fetched from its worker and then forgotten.
    from distributed import as_completed

    waiting = iter(calls)
    first: list[Any] = []
    try:
        ahead = AHEAD * _threads(client)
        first += [client.submit(function, *call, pure=False, retries=2) for call in islice(waiting, ahead)]
        running = as_completed(first, loop=client.loop)  # type: ignore[no-untyped-call]
        for future in running:
            result = client.gather(future, direct=True)
            future.release()
            for call in islice(waiting, 1):
                running.add(client.submit(function, *call, pure=False, retries=2))  # type: ignore[no-untyped-call]
            yield result
    except InputError:
        raise
    except Exception as error:  # what a lost scheduler raises differs by the moment
        detail = f"{type(error).__name__}: {error}".strip(": ")
        raise InputError(f"the cluster gave up ({detail}); a store is as it was before, run again") from error
    finally:
        for future in first:
            future.release()
