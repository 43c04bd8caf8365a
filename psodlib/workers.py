"""One way of spreading work, with two back ends: this machine's processes, and a Dask cluster's workers.

A task gets addresses and gives little: what a file says goes from the file to the worker to the store. So a lost worker costs
its tasks only, and a task that runs twice writes the same. Spark, SLURM and Kubernetes call the same functions.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from psodlib.errors import InputError

GROUP = 32 << 20  # bytes of small files in one task: seconds of work, against milliseconds of overhead
MOST = 256  # files in one task
AHEAD = 4  # tasks waiting for each worker; a scheduler knows of no more at a time
FILE = 16 << 10  # bytes that cost as much as opening a file
SMALL = 8 << 20  # below this a pool of processes costs more than it saves (measured: 0.6 s to start one)
PATIENCE = 10  # seconds without a worker on the cluster

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


@dataclass(frozen=True)
class Workers:
    """Who does the work: a Dask ``client``'s workers, or ``jobs`` processes of this machine (default: one a core)."""

    jobs: int | None = None
    client: Any = None

    @property
    def count(self) -> int:
        """How many there are."""
        if self.client is None:
            # Those that this process may use, where the system tells.
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            return self.jobs or cores
        threads = self.client.nthreads()
        if not threads:
            try:
                self.client.wait_for_workers(1, timeout=PATIENCE)
            except Exception as error:  # its own kind of timeout
                raise InputError(
                    f"the cluster at {self.client.scheduler.address} has no workers ({PATIENCE} s waited); start some there "
                    "(dask worker ADDRESS) and run again"
                ) from error
            threads = self.client.nthreads()
        return sum(threads.values())

    def groups(self, items: Sequence[T], size: Callable[[T], int]) -> list[list[T]] | None:
        """These files as tasks for others; None where they are better read here."""
        if self.client is None:
            few = self.jobs is None and sum(map(size, items)) + FILE * len(items) < SMALL
            if self.jobs == 1 or len(items) < 2 or few or self.count == 1:
                return None
        return groups_of(items, size, self.count)

    def each(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """The results of the calls, in any order."""
        if self.client is not None:
            yield from self._far(function, calls)
        elif min(self.count, len(calls)) <= 1:
            yield from (function(*call) for call in calls)
        else:
            yield from self._near(function, calls)

    def _near(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        # Spawned, not forked: the caller may hold threads. Each worker holds the end of a pipe: when we let go of the other
        # end, or die in whatever way, it ends at once.
        context = multiprocessing.get_context("spawn")
        theirs, ours = context.Pipe(duplex=False)
        workers = min(self.count, len(calls))
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_watch, initargs=(theirs,))
        waiting = iter(calls)
        try:
            with _anonymous_main():
                running = {pool.submit(function, *call) for call in islice(waiting, AHEAD * workers)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(function, *call) for call in islice(waiting, len(done))}
                yield from (future.result() for future in done)
        except BrokenProcessPool as error:
            raise InputError(
                "a worker process ended before its work was done (killed, or out of memory); a store is as it was before, "
                "run again, with fewer --jobs if memory is short"
            ) from error
        except BaseException:
            ours.close()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            ours.close()
            theirs.close()

    def _far(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        # A window of tasks over the calls; each result is fetched from its worker and then forgotten.
        from distributed import as_completed

        client, waiting = self.client, (self.client.submit(function, *call, pure=False, retries=2) for call in calls)
        first: list[Future[Any]] = []
        try:
            first += islice(waiting, AHEAD * self.count)
            running = as_completed(first, loop=client.loop)  # type: ignore[no-untyped-call]
            for future in running:
                result = client.gather(future, direct=True)
                future.release()
                for more in islice(waiting, 1):
                    running.add(more)  # type: ignore[no-untyped-call]
                yield result
        except InputError:
            raise
        except Exception as error:  # what a lost scheduler raises differs by the moment
            detail = f"{type(error).__name__}: {error}".strip(": ")
            raise InputError(f"the cluster gave up ({detail}); a store is as it was before, run again") from error
        finally:
            for future in first:
                future.release()  # type: ignore[attr-defined]


def _watch(pipe: Any) -> None:
    # In a worker: Ctrl-C is the caller's, and the end of the caller is ours.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait_for_the_end() -> None:
        try:
            pipe.poll(None)
        finally:
            os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()


@contextmanager
def _anonymous_main() -> Iterator[None]:
    # A spawned process runs the caller's script again, unless that script guards itself; six lines of Python in a file do
    # not. Without a file or spec there is nothing to run again, and the work needs nothing of it.
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if getattr(main, name, None) is not None}
    try:
        for name in hidden:
            setattr(main, name, None)
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)
