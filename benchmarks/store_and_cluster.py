"""Local processes against a Dask cluster, and a new day against a full load: same tables, seconds, peak memory.

    python benchmarks/store_and_cluster.py bundles --hosts 500
    python benchmarks/store_and_cluster.py raw --gib 4
    python benchmarks/store_and_cluster.py day --hosts 60 --logs 12
    python benchmarks/store_and_cluster.py weeks --hosts 40 --weeks 52

Files lie in the folder for temporary files (TMPDIR). Ways that would begin after ``--limit`` seconds are left out, and the table says so.
"""

from __future__ import annotations

import argparse
import filecmp
import gzip
import logging
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

import psodlib as psod
import psodlib.fleet
from psodlib import schema
from psodlib.store.folder import read_manifest
from psodlib.store.ledger import RACY

S3_MOST = 256 << 20  # bytes that the made-up S3 holds in this process's memory
# The cluster is another process's, so that the scheduler's memory is its own.
FAR = """
import sys, distributed
if __name__ == "__main__":
    cluster = distributed.LocalCluster(n_workers=int(sys.argv[1]), threads_per_worker=1, dashboard_address="127.0.0.1:0")
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


def peak_mb() -> float:
    """Peak memory of this process; on Linux since the last ``forget_peak``."""
    try:
        with open("/proc/self/status") as file:
            return int(re.search(r"VmHWM:\s+(\d+)", file.read())[1]) / 1024  # type: ignore[index]
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget_peak() -> None:
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def spent() -> float:
    """Processor seconds of this process and of those it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def same(one: psod.Fleet, other: psod.Fleet, folder: Path) -> bool:
    """Byte-equal Parquet of all tables."""
    a, b = one.save(folder / "a"), other.save(folder / "b")
    names = sorted(path.name for path in a.iterdir())
    return filecmp.cmpfiles(a, b, names, shallow=False)[0] == names


def moved(fleet: psod.Fleet, old: str, new: str) -> psod.Fleet:
    """A fleet as if its files had lain elsewhere."""
    tables = {}
    for name in [*schema.TABLES, *schema.AUXILIARY]:
        table: pd.DataFrame = getattr(fleet, name).copy()
        for column in [column for column in ("source", "detail") if column in table]:
            table[column] = table[column].str.replace(old, new, regex=False)
        tables[name] = schema.conform(name, table)
    return psod.Fleet(**tables, simulated=fleet.simulated)


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """The answer, wall seconds, processor seconds here."""
    wall, cpu = time.perf_counter(), spent()
    answer = call()
    return answer, time.perf_counter() - wall, spent() - cpu


@contextmanager
def cluster(workers: int, folder: Path) -> Iterator[Any]:
    from distributed import Client

    script = folder / "far.py"
    script.write_text(FAR)
    command = [sys.executable, str(script), str(workers)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            with Client(process.stdout.readline().strip(), timeout=60) as client:
                client.wait_for_workers(workers, timeout=60)
                client.run(__import__, "psodlib.fleet")
                yield client
        finally:
            process.stdin.close()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@dataclass
class Ways:
    """The rows of one comparison; the first way is what the others are held against."""

    work: Path
    limit: float
    began: float
    first: psod.Fleet | None = None
    wall: float = 0.0
    cpu: float = 0.0

    def run(self, name: str, call: Callable[[], psod.Fleet], client: Any = None) -> None:
        if time.perf_counter() - self.began > self.limit:
            print(f"| {name} | left out: {self.limit:,.0f} s had passed | | | | | | |", flush=True)
            return
        forget_peak()
        far = sum(client.run(time.process_time).values()) if client else 0.0
        fleet, wall, cpu = timed(call)
        if self.first is None:
            self.first, self.wall, self.cpu = fleet, wall, cpu
        here = peak_mb()
        scheduler, workers = "", ""
        if client:
            cpu += sum(client.run(time.process_time).values()) - far
            scheduler = f"{client.run_on_scheduler(peak_mb):,.0f}"
            workers = ", ".join(f"{mb:,.0f}" for mb in sorted(client.run(peak_mb).values(), reverse=True))
        equal = same(self.first, fleet, self.work)
        cells = [
            name,
            f"{wall:.1f}",
            f"{cpu:.1f}",
            f"{self.wall / wall:.2f}",
            f"{cpu - self.cpu:+.1f}",
            equal,
            f"{here:,.0f}",
            scheduler,
            workers,
        ]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def compare(source: Path, work: Path, limit: float) -> None:
    nbytes = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    print(
        f"{sum(1 for _ in source.rglob('*'))} files, {nbytes / 2**20:,.0f} MiB, load average {os.getloadavg()[0]:.1f}\n"
    )
    print(
        "| way | wall s | processor s | times faster than the pool | overhead, processor s | same bytes | peak MB here | of the scheduler | of each worker |"
    )
    print("| --- " * 9 + "|")
    ways = Ways(work, limit, time.perf_counter())
    ways.run("local pool of 2", lambda: psod.load(source, jobs=2))
    ways.run("one process", lambda: psod.load(source, jobs=1))
    ways.run("local pool of 2, store", lambda: psod.load(source, jobs=2, store=work / "pool"))
    for workers in (1, 2):
        word = f"Dask, {workers} worker{'s' * (workers > 1)}"
        with cluster(workers, work) as client:  # a new one each, so that its peaks are its own
            ways.run(word, lambda client=client: psod.load(source, client=client), client)
        with cluster(workers, work) as client:
            store = work / f"dask{workers}"
            ways.run(f"{word}, store", lambda c=client, s=store: psod.load(source, client=c, store=s), client)
    if nbytes < S3_MOST:
        with bucket(source) as address, cluster(2, work) as client:
            from_s3 = lambda: moved(psod.load(address, client=client, store=work / "s3"), address, str(source))  # noqa: E731
            ways.run("Dask, 2 workers, store, from S3 (moto)", from_s3, client)
    print(f"\nload average at the end {os.getloadavg()[0]:.1f}")


@contextmanager
def bucket(source: Path) -> Iterator[str]:
    """The files in an S3 that this process plays."""
    import s3fs
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    made_up = {
        "AWS_ACCESS_KEY_ID": "made-up", "AWS_SECRET_ACCESS_KEY": "made-up", "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }  # fmt: skip
    before = dict(os.environ)
    os.environ.update(made_up)
    try:
        files = s3fs.S3FileSystem(endpoint_url=made_up["AWS_ENDPOINT_URL"], client_kwargs={"region_name": "us-west-2"})
        files.mkdir("psod-evidence", region_name="us-west-2")
        for path in sorted(source.rglob("*")):
            if path.is_file():
                files.put_file(str(path), f"psod-evidence/fleet/{path.relative_to(source).as_posix()}")
        yield "s3://psod-evidence/fleet"
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.stop()


def filler(size: int, host: int, begin: datetime, span: timedelta) -> bytes:
    """A vmkernel log without a crash, about ``size`` bytes, evenly over ``span``."""
    rng = random.Random(host)
    count = size // 118
    step = span / count
    return b"".join(
        b"%sZ cpu%d:%d)ScsiDeviceIO: 2338: Cmd(0x412e803c%04x) 0x1a, CmdSN 0x%x from world 0 to dev failed H:0x0 D:0x2\n"
        % (
            (begin + i * step).strftime("%Y-%m-%dT%H:%M:%S.000").encode(),
            i % 16,
            32768 + i % 99,
            i % 65536,
            rng.getrandbits(20),
        )
        for i in range(count)
    )


def raw(source: Path, gib: float) -> None:
    psod.simulate_fleet(source, hosts=16, days=60, seed=1)
    begin = datetime(2014, 1, 1, tzinfo=UTC)
    block = filler(64 << 20, 0, begin, timedelta(days=50))
    for host in range(max(1, int(gib * 16))):
        path = source / f"esx{host % 16 + 1:03d}" / f"vmkernel.big{host}.log"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(block)


def settle(source: Path) -> None:
    """Give what was just written a time that a load can believe; what has one keeps it, or it would be looked into again."""
    old = time.time() - 3600
    for path in source.rglob("*"):
        if path.stat().st_mtime > old:
            os.utime(path, (old, old))


class Rotating:
    """Hosts whose vmkernel log rotates as on ESXi: ``vmkernel.log`` grows, is packed to ``.0.gz``, and ``.0.gz`` becomes ``.1.gz``.

    A load comes when ``share`` of a day's log is written: what it sees of the day before has grown, and was packed, by the next one.
    """

    def __init__(self, folders: list[Path], begin: datetime, logs: int, mib: float, share: float) -> None:
        self.folders, self.begin, self.logs, self.size, self.day = folders, begin, logs, int(mib * 2**20), 0
        self.share = share
        for _ in range(logs + 1):
            self.turn(folders)

    def turn(self, folders: list[Path]) -> None:
        text = filler(self.size, self.day, self.begin + timedelta(days=self.day), timedelta(hours=23))
        now = text[: text.index(b"\n", int(self.share * self.size)) + 1]
        for folder in folders:
            log = folder / "scratch/log/vmkernel.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            own = b"2013-11-30T00:00:00.000Z cpu0:32768)Boot: %s\n" % folder.name.encode()
            if log.exists():
                for number in range(self.logs - 1, 0, -1):
                    before = log.with_name(f"vmkernel.{number - 1}.gz")
                    if before.exists():
                        before.replace(log.with_name(f"vmkernel.{number}.gz"))
                log.with_name("vmkernel.0.gz").write_bytes(gzip.compress(own + self.yesterday, 1))
            log.write_bytes(own + now)
        self.yesterday = text
        self.day += 1


def one_load(source: Path, into: Path | None) -> tuple[pd.DataFrame, pd.DataFrame, float, float]:
    fleet, wall, cpu = timed(lambda: psod.load(source, store=into, jobs=1))
    return fleet.crashes, fleet.problems, wall, cpu


def day(work: Path, hosts: int, days: int, logs: int, mib: float, share: float) -> None:
    """A fleet of rotating logs; then one new day, which gives every file of every host another name."""
    source = work / "fleet"
    psod.simulate_fleet(source, hosts=hosts, days=days, seed=2, bundles=0.0)
    shutil.rmtree(source / "truth")
    folders = sorted(path for path in source.iterdir() if path.is_dir())
    rotating = Rotating(folders, datetime(2013, 12, 1, tzinfo=UTC) + timedelta(days=days - logs - 1), logs, mib, share)
    settle(source)
    store = work / "store"
    rows = []

    def load(name: str, into: Path | None) -> tuple[pd.DataFrame, pd.DataFrame]:
        time.sleep(RACY + 1)  # of a file that was written or renamed just now no load believes the time
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # each load a process, as each week's command is
            crashes, problems, wall, cpu = pool.submit(one_load, source, into).result()
        rows.append((name, wall, cpu, read_manifest(into).news if into else {}))
        return crashes, problems

    load("full, into a store", store)
    load("nothing new", store)
    rotating.turn(folders)
    settle(source)
    crashes, problems = load("a new day of every host", store)
    for folder in folders:
        folder.rename(folder.with_name(f"{folder.name}-new"))
    moved_on = work / "elsewhere"
    source.rename(moved_on)
    source, old = moved_on, source
    load("all hosts renamed, the folder moved", store)
    for folder in folders:
        (source / f"{folder.name}-new").rename(source / folder.name)
    source = source.rename(old)
    fresh, _ = load("full, no store", None)
    full_cpu = rows[0][2]
    print(
        f"{hosts} hosts, {days} days, {logs} logs a host of {mib:g} MiB and {share:g} of today's; load average {os.getloadavg()[0]:.1f}; each load in a process of its own\n"
    )
    print(
        "| load | wall s | processor s | times less processor than full into a store | files read | known | hosts assembled |"
    )
    print("| --- " * 7 + "|")
    for name, wall, cpu, news in rows:
        told = [news.get(word, "") for word in ("files read", "files known", "hosts assembled")]
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {full_cpu / cpu:.1f} | {' | '.join(map(str, told))} |")
    lost = set(problems.loc[problems.problem == "vanished", "source"])
    print(f"\nhosts with a log gone for good (it rotated away): {len(lost)}; ", end="")
    same_crashes = crashes.drop(columns=["source"]).equals(fresh.drop(columns=["source"]))
    print(f"crashes as in the full load: {same_crashes}", flush=True)


def weeks(work: Path, hosts: int, number: int) -> None:
    """A load a week for a year: does opening the store, or the load itself, get slower?"""
    source, store = work / "fleet", work / "store"
    psod.simulate_fleet(source, hosts=hosts, days=90, seed=2, bundles=0.0)
    shutil.rmtree(source / "truth")
    folders = sorted(path for path in source.iterdir() if path.is_dir())
    begin = datetime(2014, 3, 2, tzinfo=UTC)
    print(f"{hosts} hosts, a log a host and week\n")
    print(
        "| week | load, processor s | open, processor s | segments | files in the store | ledger kB |\n"
        + "| --- " * 6
        + "|"
    )
    for week in range(number + 1):
        if week:
            data = gzip.compress(filler(1 << 18, week, begin + timedelta(days=7 * week), timedelta(days=6)), 1)
            for folder in folders:
                (folder / f"vmkernel.{week:04d}.gz").write_bytes(data)
        settle(source)
        _, _, load = timed(lambda: psod.load(source, store=store, jobs=1))
        best = min(timed(lambda: psod.Fleet.open(store))[2] for _ in range(3))
        if week in (0, 1, 2, 4, 8, 13, 26, 39, number):
            manifest = read_manifest(store)
            ledger = (store / str(manifest.ledger)).stat().st_size / 1024
            print(
                f"| {week} | {load:.2f} | {best:.2f} | {len(manifest.segments)} | {len(manifest.files)} | {ledger:,.0f} |",
                flush=True,
            )


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("what", choices=["bundles", "raw", "day", "weeks"], nargs="?", default="bundles")
    words.add_argument("--hosts", type=int, default=100)
    words.add_argument("--days", type=int, default=30)
    words.add_argument("--logs", type=int, default=30)
    words.add_argument("--weeks", type=int, default=52)
    words.add_argument("--gib", type=float, default=1.0)
    words.add_argument("--mib", type=float, default=1.0)
    words.add_argument("--share", type=float, default=0.5, help="of a day's log that is written when the load comes")
    words.add_argument("--limit", type=float, default=1200)
    chosen = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if chosen.what == "day":
            day(work, chosen.hosts, chosen.days, chosen.logs, chosen.mib, chosen.share)
            return
        if chosen.what == "weeks":
            weeks(work, chosen.hosts, chosen.weeks)
            return
        source = work / "fleet"
        if chosen.what == "bundles":
            psod.simulate_fleet(source, hosts=chosen.hosts, days=chosen.days, seed=1, bundles=1.0)
        else:
            raw(source, chosen.gib)
        shutil.rmtree(source / "truth")  # the answer key, which only a walk of folders knows to leave alone
        compare(source, work, chosen.limit)


if __name__ == "__main__":
    main()
