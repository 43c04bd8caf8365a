"""Local processes against a Dask cluster, and a new day against a full load: same tables, seconds, peak memory.

python benchmarks/store_and_cluster.py bundles --hosts 100
python benchmarks/store_and_cluster.py raw --gib 1
python benchmarks/store_and_cluster.py day --hosts 500 --days 30
"""

from __future__ import annotations

import argparse
import filecmp
import gzip
import os
import random
import resource
import shutil
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psodlib as psod
from psodlib.store.folder import read_manifest


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def same(one: psod.Fleet, other: psod.Fleet, folder: Path) -> bool:
    """Byte-equal Parquet of all tables."""
    a, b = one.save(folder / "a"), other.save(folder / "b")
    names = sorted(path.name for path in a.iterdir())
    return filecmp.cmpfiles(a, b, names, shallow=False)[0] == names


def timed(call: Any) -> tuple[Any, float]:
    begin = time.perf_counter()
    return call(), time.perf_counter() - begin


def compare(source: Path, work: Path) -> None:
    from distributed import Client, LocalCluster

    nbytes = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    print(f"{sum(1 for _ in source.rglob('*'))} files, {nbytes / 2**20:,.0f} MiB\n")
    print("| way | s | of the pool of 2 | same bytes | peak MB: this process, scheduler, largest worker |")
    print("| --- | --- | --- | --- | --- |")
    pool, pool_seconds = timed(lambda: psod.load(source, jobs=2))
    rows: list[tuple[str, psod.Fleet, float, str]] = [
        ("local pool of 2", pool, pool_seconds, f"{peak_mb():,.0f}, -, -")
    ]
    one, seconds = timed(lambda: psod.load(source, jobs=1))
    rows.append(("one process", one, seconds, f"{peak_mb():,.0f}, -, -"))
    kept, seconds = timed(lambda: psod.load(source, jobs=2, store=work / "pool"))
    rows.append(("local pool of 2, store", kept, seconds, f"{peak_mb():,.0f}, -, -"))
    for workers in (1, 2):
        with (
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as here,
            Client(here) as client,
        ):
            client.run(__import__, "psodlib.fleet")
            for store in (None, work / f"dask{workers}"):
                fleet, seconds = timed(lambda store=store, client=client: psod.load(source, client=client, store=store))
                most = max(client.run(peak_mb).values())
                name = f"Dask, {workers} worker{'s' * (workers > 1)}{', store' if store else ''}"
                rows.append((name, fleet, seconds, f"with scheduler {peak_mb():,.0f}, {most:,.0f}"))
    for name, fleet, seconds, memory in rows:
        print(f"| {name} | {seconds:.1f} | {seconds / pool_seconds:.2f} | {same(pool, fleet, work)} | {memory} |")


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


def day(work: Path, hosts: int, days: int, mib: float) -> None:
    """A fleet whose hosts each leave a packed log a day; then one new day."""
    source = work / "fleet"
    psod.simulate_fleet(source, hosts=hosts, days=days, seed=2, bundles=0.0)
    shutil.rmtree(source / "truth")
    folders = sorted(path for path in source.iterdir() if path.is_dir())
    begin = datetime(2014, 1, 1, tzinfo=UTC)
    for number in range(days):
        data = gzip.compress(filler(int(mib * 2**20), number, begin + timedelta(days=number), timedelta(hours=20)), 1)
        for folder in folders:
            (folder / f"vmkernel.{number:04d}.gz").write_bytes(data)
    old = time.time() - 3600
    for path in source.rglob("*"):
        os.utime(path, (old, old))
    store = work / "store"
    _, first = timed(lambda: psod.load(source, store=store, jobs=2))
    data = filler(int(mib * 2**20), 999, begin + timedelta(days=days), timedelta(hours=20))
    for folder in folders:
        (folder / f"vmkernel.{days:04d}.gz").write_bytes(gzip.compress(data, 1))
    after, new = timed(lambda: psod.load(source, store=store, jobs=2))
    news = read_manifest(store).news
    _, nothing = timed(lambda: psod.load(source, store=store, jobs=2))
    fresh, full = timed(lambda: psod.load(source, jobs=2))
    with open(folders[0] / "vmkernel.9999.log", "wb") as file:
        file.write(data)
    _, single = timed(lambda: psod.load(source, store=store, jobs=2))
    print(
        f"{hosts} hosts, {days} days, {mib:g} MiB of log a host and day; {news['files read']} files read, {news['hosts assembled']} hosts assembled\n"
    )
    print("| load | s | times less than full |\n| --- | --- | --- |")
    for name, seconds in [
        ("full, no store", full),
        ("full, into a store", first),
        ("one new day of every host", new),
        ("a new file of one host", single),
        ("nothing new", nothing),
    ]:
        print(f"| {name} | {seconds:.2f} | {full / seconds:.1f} |")
    print(f"\nbyte-equal tables: {same(after, fresh, work)}")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("what", choices=["bundles", "raw", "day"])
    words.add_argument("--hosts", type=int, default=100)
    words.add_argument("--days", type=int, default=30)
    words.add_argument("--gib", type=float, default=1.0)
    words.add_argument("--mib", type=float, default=0.5)
    chosen = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if chosen.what == "day":
            day(work, chosen.hosts, chosen.days, chosen.mib)
            return
        source = work / "fleet"
        if chosen.what == "bundles":
            psod.simulate_fleet(source, hosts=chosen.hosts, days=chosen.days, seed=1, bundles=1.0)
        else:
            raw(source, chosen.gib)
        compare(source, work)


if __name__ == "__main__":
    main()
