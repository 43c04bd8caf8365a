"""How fast evidence is read, next to tools that only search it; all of it in memory (a tmpfs), paired in one run.

    python benchmarks/reading.py --folder /dev/shm/psodlib-bench raw gz memory --against /path/to/another/checkout

Prints a table a part. Every row of a part is run in turn, several times over, and the best of each counts: what else the
machine does then hits all alike. The log repeats a few MB of lines as a host writes them, with a crash in each file.
Another checkout's package is run in turn with this one's, each in a process of its own.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from isal import igzip

import psodlib as psod
from psodlib.evidence.reading import read_unit
from psodlib.evidence.sources import Unit, iter_units

CORES = 2
WORD = "BlueScreen"
LINES = (
    'cpu{c}:{w})ScsiDeviceIO: 2338: Cmd(0x4124{x:08x}) 0x1a, CmdSN 0x{n:x} from world 0 to dev "naa.600508b1001c{x:08x}" failed H:0x0 D:0x2 P:0x0 Valid sense data: 0x5 0x24 0x0.',
    'cpu{c}:{w})NMP: nmp_ThrottleLogForDevice:2321: Cmd 0x85 (0x4124{x:08x}, 34545) to dev "naa.600508b1001c{x:08x}" on path "vmhba2:C0:T0:L1" Failed: H:0x0 D:0x2 P:0x0 Valid sense data: 0x5 0x20 0x0. Act:NONE',
    "cpu{c}:{w})Net: 2312: connected XENAPP{n:02d} eth0 to VM Network, portID 0x{x:x}",
    "cpu{c}:{w})World: 8773: vmm0:XENAPP{n:02d}: vmm group {x}",
    "cpu{c}:{w})<6>bnx2x 0000:04:00.0: vmnic0: NIC Link is Up, 10000 Mbps full duplex",
    "cpu{c}:{w})WARNING: ScsiDeviceIO: 1223: Device naa.600508b1001c{x:08x} performance has deteriorated. I/O latency increased from average value of 1832 microseconds to {n} microseconds.",
    "cpu{c}:{w})Config: 681: \"SIOControlFlag2\" = {n}, Old Value: 1, (Status: 0x0)",
    "cpu{c}:{w})VSCSI: 2447: handle {n}(vscsi0:0):Reset request on FSS handle {x} (0 outstanding commands) from (vmm0:XENAPP{n:02d})",
    "cpu{c}:{w})J3: 2797: Extending transaction for journal [HB state abcdef02 offset {x} gen {n}]",
)  # fmt: skip
CRASH = (
    "cpu14:960)@BlueScreen: Spin count exceeded (iplLock) - possible deadlock",
    "cpu14:960)Code start: 0x418018200000 VMK uptime: 29:20:14:10.{seed:03d}",
    *(f"cpu14:960)0x412426e5d{n:03x}:[0x418018b7{n:04x}]hpsa_scan_start@<None>#<None>+0x{n:x} stack: 0x410b0c037060" for n in range(300, 320)),
)  # fmt: skip
DAY = b"2014-05-01T"


def stamped(bodies: Iterator[str], second: float, step: float) -> Iterator[bytes]:
    """Lines with a stamp in front, so many seconds apart."""
    for number, body in enumerate(bodies):
        moment = time.gmtime(second + number * step)
        yield f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{number % 1000:03d}Z {body}\n".encode()


def log_text(size: int, seed: int) -> bytes:
    """About so many bytes of a log: the lines of one day, and one crash in the middle."""
    rng = random.Random(seed)
    filled = (rng.choice(LINES) for _ in range(size // 170))
    bodies = [
        line.format(c=rng.randrange(32), w=rng.randrange(99_999), x=rng.getrandbits(31), n=rng.randrange(99))
        for line in filled
    ]
    bodies[len(bodies) // 2 : len(bodies) // 2] = [line.format(seed=seed) for line in CRASH]
    return b"".join(stamped(iter(bodies), 1_398_902_400, 86_300 / len(bodies)))


def days_of(piece: bytes, size: int) -> Iterator[bytes]:
    """The same day's lines again and again, each time a day later and without the crash."""
    calm = b"\n".join(line for line in piece.split(b"\n") if b"cpu14:960)" not in line)
    written, day = len(piece), 1
    yield piece
    while written < size:
        stamp = time.strftime("%Y-%m-%dT", time.gmtime(1_398_902_400 + day * 86_400)).encode()
        yield calm.replace(DAY, stamp)
        written, day = written + len(calm), day + 1


def write_raw(folder: Path, total: int, files: int) -> list[Path]:
    """So many logs of different hosts; each repeats a few MB of lines, with a crash in the first day."""
    paths = []
    for number in range(files):
        path = folder / f"esx{number:03d}" / "var" / "log" / "vmkernel.log"
        path.parent.mkdir(parents=True)
        with open(path, "wb") as file:
            file.writelines(days_of(log_text(4 << 20, number), total // files))
        paths.append(path)
    return paths


class Best(NamedTuple):
    """The least of several runs: seconds on the wall, and of processors, children included."""

    wall: float = float("inf")
    cpu: float = float("inf")


NEVER = Best()


def measured(call: Callable[[], object], known: Best = NEVER) -> Best:
    """One more run; a call may have measured itself."""
    began, spent = time.perf_counter(), cpu_spent()
    told = call()
    if isinstance(told, Best):
        return Best(*map(min, known, told))
    return Best(min(known.wall, time.perf_counter() - began), min(known.cpu, cpu_spent() - spent))


# What a process of its own does: as a load does once, to have all imported, and then again, timed.
ELSEWHERE = """
import resource, sys, time
from pathlib import Path
import psodlib
from psodlib.evidence.reading import read_unit
from psodlib.evidence.sources import Unit, iter_units
def load(folder): psodlib.load(folder, jobs=1)
def read(folder):
    for unit in iter_units(folder):
        if isinstance(unit, Unit): read_unit(unit)
call, folder = {"load": load, "read": read}[sys.argv[1]], Path(sys.argv[2])
call(folder)
spent, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
call(folder)
now = resource.getrusage(resource.RUSAGE_SELF)
print(time.perf_counter() - began, now.ru_utime + now.ru_stime - spent.ru_utime - spent.ru_stime)
"""


def elsewhere(tree: Path, what: str, folder: Path) -> Best:
    """One run of `load` or `read` over a folder by the package of a checkout."""
    told = subprocess.run([sys.executable, "-c", ELSEWHERE, what, str(folder.resolve())], cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, capture_output=True, text=True, check=True)  # fmt: skip
    return Best(*map(float, told.stdout.split()))


def by_tree(name: str, what: str, folder: Path, against: Path | None) -> dict[str, Callable[[], object]]:
    """A row for the other checkout and one for this one, where there is another."""
    trees = {"before": against, "after": Path(psod.__file__).parents[1]} if against else {}
    return {f"{name}, {when}": lambda tree=tree: elsewhere(tree, what, folder) for when, tree in trees.items()}


def cpu_spent() -> float:
    """Seconds of processors that this process and its finished children had so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def paired(rows: dict[str, Callable[[], object]], rounds: int) -> dict[str, Best]:
    """Best times of each, run in turn."""
    best = dict.fromkeys(rows, NEVER)
    for _ in range(rounds):
        best = {name: measured(call, best[name]) for name, call in rows.items()}
    return best


def table(title: str, best: dict[str, Best], size: int, against: str) -> None:
    """Print one part: seconds, GB a second, and how long it took for each second of ``against``."""
    print(
        f"\n### {title}\n\n| what | wall s | processor s | GB/s of processor | wall against {against} | processor against it |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (wall, cpu) in best.items():
        ratios = f"{wall / best[against].wall:.2f} | {cpu / best[against].cpu:.2f}"
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {size / cpu / 1e9:.2f} | {ratios} |")
    sys.stdout.flush()


def run(*command: str, **more: str) -> None:
    """A tool; into a pipe, because grep stops at the first hit where its output goes nowhere."""
    subprocess.run(command, capture_output=True, check=False, env=os.environ | more)


def read_lines(path: Path) -> int:
    """What a first script does: look at each line of a file."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return sum(WORD in line for line in file)


def units_of(folder: Path) -> list[Unit]:
    """The files of a folder as ``load`` sees them."""
    return [unit for unit in iter_units(folder) if isinstance(unit, Unit)]


def bench_raw(folder: Path, total: int, rounds: int, against: Path | None) -> None:
    """Raw logs against ripgrep, grep and a line loop."""
    paths = write_raw(folder, total, 16)
    names, units = [str(path) for path in paths], units_of(folder)
    fleet = psod.load(folder, jobs=1)
    print(f"raw: {fleet}")
    rows: dict[str, Callable[[], object]] = {
        f"rg -c, {CORES} threads": lambda: run("rg", "-c", f"-j{CORES}", WORD, *names),
        "rg -c, 1 thread": lambda: run("rg", "-c", "-j1", WORD, *names),
        "grep -c": lambda: run("grep", "-c", WORD, *names, LC_ALL="C"),
        "wc -l": lambda: run("wc", "-l", *names),
        f"load, jobs={CORES}": lambda: psod.load(folder, jobs=CORES),
        "load, jobs=1": lambda: psod.load(folder, jobs=1),
        "read_unit, one process": lambda: [read_unit(unit) for unit in units],
        **by_tree("read_unit", "read", folder, against),
    }  # fmt: skip
    best = paired(rows, rounds)
    once: dict[str, Callable[[], object]] = {"line loop": lambda: read_lines(paths[0])}
    if shutil.which("lnav"):
        once["lnav, lines with the word"] = lambda: run("lnav", "-N", "-n", "-c", f":filter-in {WORD}", names[0])
    for name, call in once.items():
        one = measured(call)
        best[f"{name} (one file, times 16)"] = Best(16 * one.wall, 16 * one.cpu)
    table(f"16 raw logs, {total / 2**30:g} GiB", best, total, f"rg -c, {CORES} threads")


def inflate(paths: list[Path]) -> None:
    """`isal` alone."""
    buffer = memoryview(bytearray(1 << 19))
    for path in paths:
        with igzip.open(path, "rb") as file:
            while file.readinto(buffer):
                pass


def bench_gz(folder: Path, total: int, rounds: int, against: Path | None) -> None:
    """Rotated logs against inflating them alone, one process each."""
    raw = write_raw(folder, total, 16)
    for path in raw:
        with open(path, "rb") as plain, gzip.open(path.with_name("vmkernel.0.gz"), "wb", compresslevel=6) as packed:
            shutil.copyfileobj(plain, packed, 1 << 20)
        path.unlink()
    paths, units = [path.with_name("vmkernel.0.gz") for path in raw], units_of(folder)
    stored = sum(path.stat().st_size for path in paths)
    rows: dict[str, Callable[[], object]] = {
        "isal": lambda: inflate(paths),
        "read_unit": lambda: [read_unit(unit) for unit in units],
        "load, jobs=1": lambda: psod.load(folder, jobs=1),
        **by_tree("read_unit", "read", folder, against),
    }
    best = paired(rows, rounds)
    table(f"16 gz logs, {total >> 20} MiB in {stored >> 20} MiB", best, total, "isal")
    for name in [name for name in best if name.startswith("read_unit")]:
        print(f"throughput of {name} against isal alone: {best['isal'].cpu / best[name].cpu:.2f} by processor time")


def write_many(file: io.BufferedIOBase | gzip.GzipFile, piece: bytes, size: int) -> None:
    """One piece again and again."""
    for _ in range(size // len(piece)):
        file.write(piece)


def bench_memory(folder: Path) -> None:
    """Peak memory of a process that reads one giant."""
    with open(folder / "line.log", "wb") as file:
        file.write(log_text(1 << 20, 1))
        write_many(file, b"x" * (1 << 20), 1 << 30)
    with gzip.open(folder / "zeros.gz", "wb", compresslevel=1) as packed:
        write_many(packed, bytes(1 << 20), 2 << 30)
    with open(folder / "big.log", "wb") as file:
        file.writelines(days_of(log_text(4 << 20, 2), 10 << 30))
    print(
        "\n### Peak memory of a process\n\n| what it read | MB at the peak | s | problems |\n| --- | --- | --- | --- |"
    )
    code = "import sys,time,resource,psodlib as p;t=time.time();f=p.load(sys.argv[1],jobs=1);print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024,'|',round(time.time()-t,1),'|',', '.join(f.problems.problem.astype(str)))"  # fmt: skip
    giants = {"line.log": "a line of 1 GiB", "zeros.gz": "2 GiB of zeros in a gz", "big.log": "a log of 10 GiB"}
    for name, what in giants.items():
        told = subprocess.run(
            [sys.executable, "-c", code, str(folder / name)], capture_output=True, text=True, check=True
        )
        print(f"| {what} | {told.stdout.strip()} |", flush=True)
    print(f"| nothing | {subprocess.run([sys.executable, '-c', 'import psodlib.fleet,resource;print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024)'], capture_output=True, text=True).stdout.strip()} | | |")  # fmt: skip


def main() -> None:
    """Run the parts that were asked for, each in a folder of its own that is removed again."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=["raw", "gz", "memory"], help="raw and gz, unless told")
    parser.add_argument("--against", type=Path, help="another checkout of the project, run in turn with this one")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/psodlib-bench"))
    parser.add_argument("--total", type=int, default=2 << 30, help="bytes of the raw logs; the gz logs have a quarter")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    parts: dict[str, Callable[[Path], None]] = {
        "raw": lambda folder: bench_raw(folder, given.total, given.rounds, given.against),
        "gz": lambda folder: bench_gz(folder, given.total // 4, given.rounds, given.against),
        "memory": bench_memory,
    }
    for part in given.parts or ("raw", "gz"):
        folder = given.folder / part
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            parts[part](folder)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
