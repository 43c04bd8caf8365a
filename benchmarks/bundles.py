"""vm-support bundles: what `load` costs against only unpacking them, by stage, with two processes, and in memory.

    python benchmarks/bundles.py cost readers --against /path/to/another/checkout   # before and after, in turn
    python benchmarks/bundles.py stages memory spread small

Bundles are made up from a seed in the shape that ESXi 6.7, 7.0 and 8.0 give them: one flat folder of outputs, current and
rotated logs, a log a VM, settings, a dump. `plain` is the shape of a quiet host, most of it text that says nothing of
crashes; `dense` has real shares of the logs that are read line by line.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import pstats
import random
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from isal import igzip, igzip_lib
from reading import Best, by_tree, measured, paired

import psodlib as psod

BEGAN = 1_700_000_000
DAEMONS = (
    "fdm", "hostd", "vpxa", "syslog", "shell", "auth", "rhttpproxy", "dhclient", "usb", "sysboot", "storagerm", "hostd-probe",
    "clomd", "vsanmgmt", "epd", "envoy", "apiForwarder", "lacp",
)  # fmt: skip
# What the logs' lines say behind their stamp. `n` counts, `x` is any number.
SAYS = {
    "hostd": "info hostd[{n}] [Originator@6876 sub=Vimsvc.TaskManager opID=esxui-{x:08x}] Task Completed : haTask-{n}-vim.VirtualMachine.powerOn Status success",
    "vpxa": "verbose vpxa[{n}] [Originator@6876 sub=VpxaHalCnxHostagent opID=WFU-{x:08x}] [WaitForUpdatesDone] Starting next WaitForUpdates() call to hostd",
    "vmkernel": 'cpu{c}:{n})ScsiDeviceIO: 2338: Cmd(0x4124{x:08x}) 0x1a, CmdSN 0x{n:x} from world 0 to dev "naa.600508b1001c{x:08x}" failed H:0x0 D:0x2 P:0x0 Valid sense data: 0x5 0x24 0x0.',
    "rows": "cpu{c}:{n})<4>hpsa 0000:03:00.0: resetting device {c}:0:0:{n}",
    "vmx": "| vcpu-{c}| I125: VMMouse: CMD Read ID {x:08x}, tools heartbeat {n} of guest, latency {x} us",
    "vobd": "[scsiCorrelator] {us}us: [vob.scsi.scsipath.pathstate.dead] scsiPath vmhba{c}:C0:T{c}:L{n} changed state from on",
    "esxupdate": "esxupdate: {n}: vmware.runcommand: INFO: runcommand called with: args = '['/sbin/bootOption', '-rp', '{x:08x}']', outfile = 'None'",
    "heartbeat": "heartbeat: up {days}d{hours}h{minutes}m{seconds}s, {c} VMs; [[{n} vmx 16777216kB] [{x} vmx 4194304kB] [{n} vmx 4194304kB]] []",
}
DAEMON = "info {name}[{n}] [Originator@6876 sub=Default] session {x:08x} polled {n} objects in {c} ms, nothing to do"
OUTPUTS = (
    "localcli_network-nic-stats-get--n-vmnic{n}", "esxcfg-info_-a--F-{n}", "localcli_storage-core-path-stats-get-{n}", "vsish_-e-cat-vmkModules-{n}",
    "nicinfo.sh_{n}", "vmkfstools_-P-{n}", "net-stats_-{n}", "localcli_vm-process-list-{n}",
)  # fmt: skip
SETTINGS = (
    "etc/vmware/esx{n}.conf",
    "etc/opt/vmware/{n}.json",
    "etc/vmware/firewall/{n}.xml",
    "var/lib/iofilters/{n}.cfg",
)
TELLING = {
    "vmware_-vl": b"VMware ESXi 7.0.3 build-20328353\nVMware ESXi 7.0 Update 3\n",
    "uname_-a": b"VMkernel %s 7.0.3 #1 SMP Release build-20328353 Aug  1 2022 20:01:33 x86_64 x86_64 x86_64 ESXi\n",
    "localcli_software-vib-list": b"Name          Version                              Vendor  Acceptance Level    Install Date\n"
    b"------------  -----------------------------------  ------  ------------------  ------------\n"
    b"nhpsa         70.0051.0.100-1OEM.700.1.0.15843807  Micro   VMwareCertified     2022-08-02\n",
    "localcli_storage-core-adapter-list": b"HBA Name  Driver    Link State  UID\nvmhba0  nhpsa  link-n/a  sas.5001438024ab1230  (0000:03:00.0) Smart Array P420i\n",
}


def log(kind: str, size: int, rng: random.Random, release: str, begin: float = BEGAN, step: float = 0.7) -> bytes:
    """About so many bytes of one log, its stamps in order."""
    says = SAYS.get(kind) or DAEMON.replace("{name}", kind)
    severity = "In(182) " if release == "8.0" and kind not in ("vmx", "heartbeat") else ""
    lines, have, moment = [], 0, begin
    while have < size:
        x = rng.getrandbits(31)
        moment += step * (0.5 + (x & 1023) / 1024)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
        up = int(moment - BEGAN) + 3600
        body = says.format(
            c=x & 31,
            n=x & 65535,
            x=x,
            us=up * 1_000_000,
            days=up // 86_400,
            hours=up % 86_400 // 3600,
            minutes=up % 3600 // 60,
            seconds=up % 60,
        )
        lines.append(f"{stamp}.{x % 1000:03d}Z{'| ' if kind == 'vmx' else ' '}{severity}{body.removeprefix('| ')}\n")
        have += len(lines[-1])
    return "".join(lines).encode()


def filler(size: int, rng: random.Random) -> bytes:
    """An output or a file of settings that says nothing to us."""
    lines, have = [], 0
    while have < size:
        x = rng.getrandbits(32)
        lines.append(f'   /adv/Option{x & 255}/value{x >> 20} = "{x:08x}"   Default Int Value: {x & 4095}\n')
        have += len(lines[-1])
    return "".join(lines).encode()


def plain_members(scale: float, rng: random.Random, release: str, host: str) -> Iterator[tuple[str, bytes]]:
    """A quiet host: (name, bytes) of each member."""
    logs = "var/run/log" if release != "6.7" else "var/log"
    many = max(1, round(10 * scale))
    for name, text in TELLING.items():
        yield f"commands/{name}.txt", text.replace(b"%s", host.encode())
    for number in range(max(2, int(720 * scale))):
        yield f"commands/{OUTPUTS[number % len(OUTPUTS)].format(n=number)}.txt", filler(rng.randrange(500, 30_000), rng)
    yield f"{logs}/vmkernel.log", log("vmkernel", 4 << 20, rng, release)
    for number in range(many):
        yield (
            f"{logs}/vmkernel.{number}.gz",
            igzip.compress(log("vmkernel", 7 << 20, rng, release, BEGAN - 99_000 * (number + 1)), 2),
        )
    for name in DAEMONS[: max(3, int(18 * scale))]:
        for number in range(4):
            text = log(name, 6 << 20 if number else 1 << 20, rng, release, BEGAN - 60_000 * number)
            yield (
                f"{logs}/{name}.{number - 1}.gz" if number else f"{logs}/{name}.log",
                igzip.compress(text, 2) if number else text,
            )
    pool = log("vmx", 2 << 20, rng, release)
    for number in range(max(1, int(280 * scale))):
        begin = pool.find(b"\n", rng.randrange(1 << 20)) + 1
        name = f"vmfs/volumes/datastore1/vm{number // 7}/vmware{f'-{number % 7}' if number % 7 else ''}.log"
        yield name, pool[begin : begin + rng.randrange(200_000, 900_000)]
    for number in range(max(2, int(1500 * scale))):
        yield SETTINGS[number % len(SETTINGS)].format(n=number), filler(rng.randrange(200, 9000), rng)
    yield "var/core/vmkernel-zdump.1", rng.randbytes(int((95 << 20) * scale))


def dense_members(scale: float, rng: random.Random, release: str, host: str) -> Iterator[tuple[str, bytes]]:
    """A host with much to tell: the logs that are read line by line, by the share they have in a year's bundle."""
    logs = "var/run/log"
    for name, text in TELLING.items():
        yield f"commands/{name}.txt", text.replace(b"%s", host.encode())
    for number in range(max(2, int(400 * scale))):
        yield f"commands/localcli_software-vib-list-{number}.txt", TELLING["localcli_software-vib-list"] + b"\n"
    size = int((16 << 20) * scale)
    for kind, name, step in (
        ("heartbeat", "vmksummary", 3600),
        ("esxupdate", "esxupdate", 5),
        ("vobd", "vobd", 9),
        ("hostd", "hostd", 0.7),
    ):
        yield f"{logs}/{name}.log", log(kind, size // 4 if kind == "heartbeat" else size, rng, release, step=step)
    calm, rows = log("vmkernel", size, rng, release).splitlines(True), log("rows", size, rng, release).splitlines(True)
    yield f"{logs}/vmkernel.log", b"".join(rows)
    yield f"{logs}/vmkernel.0.gz", igzip.compress(b"".join(calm), 2)


MEMBERS = {"plain": plain_members, "dense": dense_members}


def write_bundle(folder: Path, shape: str = "plain", scale: float = 1.0, seed: int = 1, release: str = "7.0") -> Path:
    """One bundle; its path."""
    rng, host = random.Random(f"{shape}{seed}{release}"), f"esx{seed:03d}.lab"
    path = folder / f"esx-{host}-2023-12-01--10.{seed % 60:02d}-{seed}.tgz"
    with (
        igzip.open(path, "wb", compresslevel=2) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as archive,
    ):
        for name, data in MEMBERS[shape](scale, rng, release, host):
            info = tarfile.TarInfo(f"{path.name.removesuffix('.tgz')}/{name}")
            info.size, info.mtime = len(data), BEGAN
            archive.addfile(info, io.BytesIO(data))
    return path


# --- what unpacking alone costs ---------------------------------------------------------------------------------------


def inflate(path: Path) -> int:
    """`isal` on the outer gz."""
    buffer, total = memoryview(bytearray(1 << 19)), 0
    with igzip.open(path, "rb") as file:
        while got := file.readinto(buffer):
            total += got
    return total


def walk(path: Path, inner: bool) -> tuple[int, int]:
    """tarfile over it, without or with the members inflated as well; (members, bytes)."""
    members = total = 0
    with igzip.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r|", bufsize=1 << 18) as archive:
        for info in archive:
            members += 1
            data = archive.extractfile(info) if info.isreg() else None
            first = data.read(1 << 18) if data else b""
            engine = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP) if first[:2] == b"\x1f\x8b" and inner else None
            while data and first:
                total += len(engine.decompress(first)) if engine else len(first)
                first = data.read(1 << 18)
    return members, total


def table(title: str, best: dict[str, Best], against: str) -> None:
    """Seconds, and how many times those of the full walk."""
    print(f"\n### {title}\n\n| what | wall s | processor s | processor against {against} |\n| --- | --- | --- | --- |")
    for name, (wall, cpu) in best.items():
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {cpu / best[against].cpu:.2f} |")
    sys.stdout.flush()


def bench_cost(folder: Path, scale: float, rounds: int, against: Path | None) -> None:
    """Both shapes against the full walk, in turn."""
    for shape in MEMBERS:
        (folder / shape).mkdir()
        path = write_bundle(folder / shape, shape, scale)
        psod.load(path, jobs=1)
        members, total = walk(path, inner=True)
        rows: dict[str, Callable[[], object]] = {
            "isal, outer gz": lambda path=path: inflate(path), "tar walk": lambda path=path: walk(path, False),
            "full walk": lambda path=path: walk(path, True), "load, jobs=1": lambda path=path: psod.load(path, jobs=1),
            **by_tree("load", "load", path, against),
        }  # fmt: skip
        size = path.stat().st_size
        table(
            f"{shape}: {size >> 20} MB packed, {inflate(path) >> 20} MB of tar, {total >> 20} MB unfolded, {members} members",
            paired(rows, rounds),
            "full walk",
        )


def bench_readers(folder: Path, scale: float, rounds: int, against: Path | None) -> None:
    """Each log that is read line by line, alone: MB a second on one core."""
    print("\n### One log each\n\n| log | MB/s | before |\n| --- | --- | --- |")
    logs = {"vmksummary": ("heartbeat", 3600.0), "esxupdate": ("esxupdate", 5.0), "vobd": ("vobd", 9.0), "hostd": ("hostd", 0.7), "vmkernel": ("rows", 0.7)}  # fmt: skip
    for name, (kind, step) in {**logs, "vmkernel, a line a minute": ("rows", 60.0)}.items():
        path = folder / name / f"{name.partition(',')[0]}.log"
        path.parent.mkdir()
        path.write_bytes(log(kind, int((16 << 20) * scale), random.Random(1), "7.0", step=step))
        here = Path(psod.__file__).parents[1]
        best = paired(by_tree("", "read", path.parent, against or here), rounds)
        speeds = {when: f"{path.stat().st_size / cpu / 1e6:.0f}" for when, (_, cpu) in best.items()}
        print(f"| {name} | {speeds[', after']} | {speeds[', before'] if against else ''} |", flush=True)


def bench_stages(folder: Path, scale: float, rounds: int, against: Path | None) -> None:
    """Where the time of one load goes, by file of the package."""
    for shape in MEMBERS:
        path = write_bundle(folder, shape, scale, seed=2)
        psod.load(path, jobs=1)
        profile = cProfile.Profile()
        profile.runcall(psod.load, path, jobs=1)
        by_place: dict[str, float] = {}
        for (file, _, name), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
            place = file.partition("psodlib/psodlib/")[2] or Path(file).name if file != "~" else name
            by_place[place] = by_place.get(place, 0.0) + own
        print(
            f"\n### Stages of a {shape} bundle (under a profiler, which makes small functions dearer)\n\n| where | s |\n| --- | --- |"
        )
        for place, seconds in sorted(by_place.items(), key=lambda one: -one[1])[:18]:
            print(f"| {place} | {seconds:.3f} |")


def bench_spread(folder: Path, scale: float, rounds: int, against: Path | None) -> None:
    """Eight bundles with one process and with two."""
    for seed in range(8):
        write_bundle(folder, "plain", scale, seed=10 + seed)
    rows: dict[str, Callable[[], object]] = {
        f"load, jobs={jobs}": lambda jobs=jobs: psod.load(folder, jobs=jobs) for jobs in (1, 2)
    }
    best = paired(rows, rounds)
    one, two = best.values()
    print(
        f"\n### Eight bundles\n\njobs=1 {one.wall:.2f} s, jobs=2 {two.wall:.2f} s on the wall: {one.wall / two.wall:.2f} times"
    )


def bench_small(folder: Path, scale: float, rounds: int, against: Path | None) -> None:
    """Folders of small files, loaded once and then again into a store."""
    print(
        "\n### Small files\n\n| files | processor s | us a file | again into a store, s | us a file |\n| --- | --- | --- | --- | --- |"
    )
    rng = random.Random(1)
    for count in (int(25_000 * scale), int(100_000 * scale)):
        root = folder / str(count)
        for number in range(count):
            place = root / f"esx{number // 200:04d}" / "commands"
            if number % 200 == 0:
                place.mkdir(parents=True)
            (place / f"output_{number % 200}.txt").write_bytes(filler(rng.randrange(100, 2000), rng))
        plain = measured(lambda root=root: psod.load(root, jobs=1))
        psod.load(root, jobs=1, store=folder / f"store{count}")
        again = measured(lambda root=root, count=count: psod.load(root, jobs=1, store=folder / f"store{count}"))
        print(
            f"| {count:,} | {plain.cpu:.1f} | {plain.cpu / count * 1e6:.0f} | {again.cpu:.1f} | {again.cpu / count * 1e6:.0f} |",
            flush=True,
        )
        shutil.rmtree(root)


def bench_memory(folder: Path, scale: float, rounds: int, against: Path | None) -> None:
    """Peak memory of a process with a bundle of 500 MB that holds a member of 2 GB."""
    path = folder / "esx-esx099.lab-2023-12-01--10.05-99.tgz"
    rng, text = random.Random(9), log("syslog", 8 << 20, random.Random(8), "7.0")
    with (
        igzip.open(path, "wb", compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        dump = rng.randbytes(16 << 20)  # longer than what deflate looks back
        for name, size, piece in (
            ("var/core/vmkernel-zdump.1", int((400 << 20) * scale), dump),
            ("var/log/giant.log", int((2 << 30) * scale), text),
        ):
            info = tarfile.TarInfo(f"{path.stem}/{name}")
            info.size = size
            archive.addfile(info, Repeated(piece))  # type: ignore[arg-type]
    code = "import sys,time,resource,psodlib as p;t=time.time();f=p.load(sys.argv[1],jobs=1);print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024,'MB,',round(time.time()-t,1),'s,',', '.join(f.problems.problem.astype(str)))"  # fmt: skip
    told = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    print(
        f"\n### Memory\n\n{path.stat().st_size >> 20} MB packed with a member of {int((2 << 30) * scale) >> 20} MB: {told.stdout.strip()}"
    )


class Repeated:
    """A file of any length that says the same again and again."""

    def __init__(self, piece: bytes) -> None:
        self._piece, self._at = piece, 0

    def read(self, size: int) -> bytes:
        data = self._piece[self._at : self._at + size]
        self._at = (self._at + len(data)) % len(self._piece)
        return data + self.read(size - len(data)) if len(data) < size else data


def main() -> None:
    """Run the parts that were asked for, each in a folder of its own that is removed again."""
    parts = {
        "cost": bench_cost,
        "readers": bench_readers,
        "stages": bench_stages,
        "spread": bench_spread,
        "small": bench_small,
        "memory": bench_memory,
    }
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=parts, help="cost, unless told")
    parser.add_argument("--against", type=Path, help="another checkout of the project, run in turn with this one")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/psodlib-bundles"))
    parser.add_argument("--scale", type=float, default=1.0, help="of a bundle's real size")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for part in given.parts or ("cost",):
        folder = given.folder / part
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            parts[part](folder, given.scale, given.rounds, given.against)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
