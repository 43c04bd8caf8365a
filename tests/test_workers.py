"""Worker processes end with whoever started them, however that ended."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

import psodlib as psod
from psodlib.store.folder import is_store, read_manifest
from psodlib.workers import Workers

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="children are counted in /proc")
KILLS = int(os.environ.get("PSOD_KILLS", "3"))


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers") / "fleet"
    psod.simulate_fleet(folder, hosts=8, days=60, seed=3)
    return folder


def below(process: int) -> set[int]:
    """The processes that a process has started, and those that they have."""
    try:
        told = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return set()
    return {int(child) for child in told} | {one for child in told for one in below(int(child))}


def alive(processes: set[int]) -> set[int]:
    found = set()
    for process in processes:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in "ZX":
            found.add(process)
    return found


def loading(evidence: Path, store: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from psodlib.cli import main; main()", "load", str(evidence), "--store", str(store), "--jobs", "2"]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_a_load(evidence: Path, tmp_path: Path, how: signal.Signals) -> None:
    whole, met = psod.load(evidence, jobs=1), 0
    for number in range(KILLS):
        with loading(evidence, tmp_path / "s") as process:
            deadline = time.monotonic() + 60
            while process.poll() is None and len(below(process.pid)) < 3 and time.monotonic() < deadline:
                time.sleep(0.01)  # two workers, and the one who tidies up behind them
            time.sleep(random.Random(number).random() * 0.8)
            workers = below(process.pid)
            met += bool(workers)
            process.send_signal(how)
            answer, told = process.communicate(timeout=60)
            assert "Traceback" not in told, told
            if workers:
                # Where it has told all and is about to end: -15 and -2 (143 and 130 to a shell, as well), or 0 where the
                # interpreter is past the last place at which it looks for signals.
                ends = {signal.SIGKILL: {-9}, signal.SIGTERM: {143, -15}, signal.SIGINT: {130, -2}}[how]
                assert process.returncode in ends | ({0} if answer else set()), (answer, told)
        deadline = time.monotonic() + 30
        while alive(workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(workers)
        if is_store(tmp_path / "s"):
            psod.Fleet.open(tmp_path / "s")
    assert met
    after = psod.load(evidence, store=tmp_path / "s", jobs=1)
    assert after.crashes.equals(whole.crashes) and after.uptimes.equals(whole.uptimes)


def shout(number: int) -> int:
    if number == 3:
        raise psod.InputError("three")
    return number


def die(number: int) -> int:
    os._exit(3)


def test_results_come_and_errors_too() -> None:
    assert sorted(Workers(2).each(shout, [(n,) for n in (1, 2, 4, 5)])) == [1, 2, 4, 5]
    before = below(os.getpid())
    with pytest.raises(psod.InputError, match="three"):
        list(Workers(2).each(shout, [(n,) for n in range(9)]))
    with pytest.raises(psod.InputError, match="a worker process ended before its work was done"):
        list(Workers(2).each(die, [(1,), (2,)]))
    some = Workers(2).each(shout, [(n,) for n in (1, 2, 4)])
    next(some)
    some.close()  # type: ignore[attr-defined]
    assert len(alive(below(os.getpid()) - before)) <= 1  # multiprocessing's own, which tidies up behind workers


@pytest.mark.parametrize("into_store", [False, True])
def test_progress_counts_files_and_their_bytes(evidence: Path, tmp_path: Path, into_store: bool) -> None:
    for jobs in (1, 2):
        told: list[tuple[int, int, int, int]] = []
        psod.load(
            evidence, jobs=jobs, store=tmp_path / f"s{jobs}" if into_store else None,
            progress=lambda what, done, total, told=told: told.append((done, done.nbytes, total, total.nbytes)),
        )  # fmt: skip
        files = [path for path in evidence.rglob("*") if path.is_file() and "truth" not in path.parts]
        assert [done for done, *_ in told] == list(range(1, len(files) + 1))
        assert told[-1][:2] == told[-1][2:] == (len(files), sum(path.stat().st_size for path in files))
        assert all(here[1] <= there[1] for here, there in pairwise(told))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stopped_load_keeps_what_it_had_read(evidence: Path, tmp_path: Path, stop: type[BaseException]) -> None:
    def stopped(what: str, done: int, total: int) -> None:
        if done == 40:
            raise stop

    with pytest.raises(stop):
        psod.load(evidence, store=tmp_path / "s", jobs=1, progress=stopped)
    again = psod.load(evidence, store=tmp_path / "s", jobs=1)
    news = read_manifest(tmp_path / "s").news
    assert news["files adopted from a killed load"] >= 39  # the fortieth was in the reader's hand
    fresh = psod.load(evidence, store=tmp_path / "t", jobs=1)
    for name in fresh.tables:
        pd.testing.assert_frame_equal(again.tables[name], fresh.tables[name])
