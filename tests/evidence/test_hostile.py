"""What a hostile or broken source may do: nothing raises, nothing is written, each trouble is a Problem that says what."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import socket
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from psodlib.errors import InputError
from psodlib.evidence import streams, vmkernel
from psodlib.evidence import tar as tar_walk
from psodlib.evidence.archives import Item
from psodlib.evidence.reading import read_item
from psodlib.evidence.sources import Limits, iter_items
from psodlib.fleet import load
from psodlib.records import FileReading, Problem
from psodlib.schema import CLOSED_LISTS

LINE = b"2014-05-31T15:57:32.579Z cpu14:9607609)ScsiDeviceIO: 2337: Cmd 0x1a to dev failed H:0x0 D:0x2 P:0x0 no %d\n"
LOG = b"".join(LINE % number for number in range(20_000))


def read(*given: str | Path, limits: Limits | None = None) -> tuple[list[FileReading], list[Problem]]:
    """All readings and all problems of a source, as a loader collects them."""
    readings, problems = [], []
    for found in iter_items(*given, limits=limits):
        if isinstance(found, Problem):
            problems.append(found)
            continue
        for reading in read_item(found):
            readings.append(reading)
            problems += reading.problems
    assert {problem.problem for problem in problems} <= set(CLOSED_LISTS["problem"])
    return readings, problems


def words(problems: list[Problem]) -> list[str]:
    return sorted({problem.problem for problem in problems})


def member(name: str, data: bytes = LOG, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def write_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return path


# --- archives -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../evil.log", "a/../../evil.log", "esx01/var/../../../evil.log"])
@pytest.mark.parametrize("form", ["tar", "zip"])
def test_a_name_that_climbs_is_left_alone(tmp_path: Path, name: str, form: str) -> None:
    inner = tmp_path / "in"
    inner.mkdir()
    if form == "tar":
        write_tar(inner / "a.tgz", member(name), member("good.log"))
    else:
        with zipfile.ZipFile(inner / "a.zip", "w") as archive:
            archive.writestr(name, LOG)
            archive.writestr("good.log", LOG)
    readings, problems = read(inner)
    assert [reading.source.rpartition("!")[2] for reading in readings] == ["good.log"]
    assert words(problems) == ["unsafe_member"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["in", "a.tgz" if form == "tar" else "a.zip"])


@pytest.mark.parametrize("name", ["/var/log/vmkernel.log", "//var/log/vmkernel.log", "C:/var/log/vmkernel.log"])
def test_an_absolute_name_is_read_where_it_cannot_harm(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / "a.tgz", member(name))
    readings, problems = read(tmp_path)
    assert [reading.kind for reading in readings] == ["vmkernel"]
    assert words(problems) == ["unsafe_member"]
    assert "var/log/vmkernel.log" in problems[0].detail


def test_links_and_devices_are_not_followed(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "a.tgz",
        member("etc/passwd", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("var/log/up", b"", type=tarfile.SYMTYPE, linkname="../../../../secret"),
        member("var/log/mirror.log", b"", type=tarfile.SYMTYPE, linkname="../run/log/vmkernel.log"),
        member("hard", b"", type=tarfile.LNKTYPE, linkname="../outside"),
        member("dev/sda", b"", type=tarfile.BLKTYPE),
        member("dev/pipe", b"", type=tarfile.FIFOTYPE),
        member("var/run/log/vmkernel.log"),
    )
    readings, problems = read(tmp_path)
    assert len(readings) == 1
    assert [problem.detail.split(",")[0] for problem in problems] == ["3 links that leave the archive", "2 devices"]
    assert words(problems) == ["unsafe_member"]


def test_two_members_of_one_name_are_both_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tgz", member("vmkernel.log", LOG[:2000]), member("vmkernel.log", LOG[:4000]))
    readings, problems = read(tmp_path)
    assert [reading.size for reading in readings] == [2000, 4000]
    assert len({reading.source for reading in readings}) == 2
    assert words(problems) == ["unsafe_member"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_bomb_is_named_and_stopped(
    tmp_path: Path, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "RATIO_FLOOR", 1 << 20)
    (tmp_path / "vmkernel.0.gz").write_bytes(pack(bytes(24 << 20)))
    readings, problems = read(tmp_path)
    assert "too_large" in words(problems)
    assert "MAX_RATIO" in next(problem.detail for problem in problems if problem.problem == "too_large")
    assert readings[0].size < 8 << 20


def test_the_limits_can_be_moved(tmp_path: Path) -> None:
    (tmp_path / "vmkernel.0.gz").write_bytes(gzip.compress(LOG))
    assert read(tmp_path)[1] == []
    readings, problems = read(tmp_path, limits=Limits(size=1 << 20))
    assert words(problems) == ["too_large"]
    assert "MAX_SIZE" in problems[0].detail
    assert 0 < readings[0].size <= 1 << 20
    write_tar(tmp_path / "a.tgz", *(member(f"{number}.log", LINE % 1) for number in range(5)))
    assert "MAX_MEMBERS" in read(tmp_path / "a.tgz", limits=Limits(members=3))[1][0].detail


def test_a_bomb_within_archives_is_counted_over_all_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "RATIO_FLOOR", 1 << 20)
    inner = gzip.compress(bytes(40 << 20))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(write_tar(tmp_path / "inner.tgz", *(member(f"{n}.gz", inner) for n in range(4))), "inner.tgz")
    os.remove(tmp_path / "inner.tgz")
    _, problems = read(tmp_path)
    assert "too_large" in words(problems)


def test_a_header_that_is_a_flood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_walk, "MAX_HEADER", 1 << 20)
    info = tarfile.TarInfo("vmkernel.log")
    info.size, info.pax_headers = 10, {"comment": os.urandom(2 << 20).hex()}
    with tarfile.open(tmp_path / "a.tgz", "w:gz", format=tarfile.PAX_FORMAT, compresslevel=1) as archive:
        archive.addfile(info, io.BytesIO(b"0123456789"))
    _, problems = read(tmp_path)
    assert words(problems) == ["too_large", "unknown_format"]  # the member behind it is read all the same


def test_a_locked_zip_asks_for_unpacking(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("vmkernel.log", LOG)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[6] |= 1  # the flag in the local header
    directory = data.rfind(b"PK\x01\x02")
    data[directory + 8] |= 1  # and in the directory
    (tmp_path / "a.zip").write_bytes(data)
    assert words(read(tmp_path)[1]) == ["encrypted"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_data_before_a_cut_is_used(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    noise = random.Random(7)
    log = b"".join(LINE % noise.getrandbits(60) for _ in range(15_000))
    packed = pack(log)
    (tmp_path / "vmkernel.0.gz").write_bytes(packed[: len(packed) * 3 // 5])
    (reading,), problems = read(tmp_path)
    assert words(problems) == ["truncated"]
    assert reading.kind == "vmkernel"
    assert reading.size > len(log) * 0.35


@pytest.mark.parametrize(
    ("name", "magic"), [("7z", b"7z\xbc\xaf\x27\x1c"), ("RAR", b"Rar!\x1a\x07\1\0"), ("LZ4", b"\x04\x22\x4d\x18")]
)
def test_an_archive_that_is_not_read_here_asks_for_unpacking(tmp_path: Path, name: str, magic: bytes) -> None:
    (tmp_path / "bundles.bin").write_bytes(magic + os.urandom(2000))
    (problem,) = read(tmp_path)[1]
    assert problem.problem == "not_text" and problem.detail.startswith(f"packed as {name}, ")


def test_data_before_the_damage_is_used(tmp_path: Path) -> None:
    noise = random.Random(7)
    log = b"".join(LINE % noise.getrandbits(60) for _ in range(15_000))
    packed = bytearray(gzip.compress(log))
    middle = len(packed) // 2
    packed[middle : middle + 64] = b"\xff" * 64
    (tmp_path / "vmkernel.0.gz").write_bytes(packed)
    (reading,), problems = read(tmp_path)
    assert words(problems) == ["damaged_archive"]
    assert reading.size > len(log) * 0.35


@pytest.mark.parametrize("share", [0.001, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("form", ["tgz", "zip"])
def test_a_cut_archive_gives_what_came_before(tmp_path: Path, share: float, form: str) -> None:
    noise = random.Random(7)
    parts = {f"{n}.log": b"".join(LINE % noise.getrandbits(60) for _ in range(3000)) for n in range(6)}
    path = tmp_path / "in" / f"a.{form}"
    path.parent.mkdir()
    if form == "tgz":
        write_tar(path, *(member(name, data) for name, data in parts.items()))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in parts.items():
                archive.writestr(name, data)
    data = path.read_bytes()
    path.write_bytes(data[: max(20, int(len(data) * share))])
    readings, problems = read(path.parent)
    assert problems
    if form == "tgz" and share > 0.1:
        assert "truncated" in words(problems)
        assert sum(reading.size for reading in readings) > 0.6 * share * sum(map(len, parts.values()))


@pytest.mark.parametrize("share", [0.3, 0.999])
def test_a_zip_without_its_list_of_members_is_told(tmp_path: Path, share: float) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("vmkernel.log", LOG)
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data[: int(len(data) * share)])
    readings, problems = read(tmp_path)
    assert readings == [] and words(problems) == ["damaged_archive"]


PAX_TROUBLE = {
    "a size that cannot be": ({"size": "-5"}, "damaged_archive"),
    "a size that is no number": ({"size": "many"}, "damaged_archive"),
    "a sparse file": ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x"}, "unsafe_member"),
}


@pytest.mark.parametrize("case", PAX_TROUBLE)
def test_an_odd_header_costs_its_own_member_alone(tmp_path: Path, case: str) -> None:
    headers, problem = PAX_TROUBLE[case]
    with tarfile.open(tmp_path / "a.tgz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for number, more in enumerate(({}, headers, {})):
            info, data = member(f"{number}.log", LOG)
            info.pax_headers = more
            archive.addfile(info, io.BytesIO(data))
    readings, problems = read(tmp_path)
    names = [reading.source.rpartition("!")[2] for reading in readings]
    assert names == ["0.log", "2.log"] if problem == "unsafe_member" else ["0.log", "1.log", "2.log"]
    assert all(reading.size == len(LOG) for reading in readings)
    assert words(problems) == [problem]


def test_bytes_that_are_no_header_are_passed_over(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tgz", *(member(f"{number}.log") for number in range(3)))
    data = bytearray(gzip.decompress(path.read_bytes()))
    second = data.find(b"1.log")
    data[second : second + 512] = os.urandom(512)
    path.write_bytes(gzip.compress(bytes(data), 1))
    readings, problems = read(tmp_path)
    assert [reading.source.rpartition("!")[2] for reading in readings] == ["0.log", "2.log"]
    assert words(problems) == ["damaged_archive"]


def test_a_bomb_costs_its_own_member_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "RATIO_FLOOR", 1 << 20)
    bomb, noise = gzip.compress(bytes(4 << 20)), random.Random(7)
    log = b"".join(LINE % noise.getrandbits(60) for _ in range(200))
    for count in (2, streams.MAX_BOMBS + 2):
        bombs = [member(f"{number}.gz", bomb) for number in range(count)]
        write_tar(tmp_path / "a.tgz", *bombs, member("z.gz", gzip.compress(log)))
        readings, problems = read(tmp_path)
        whole = {reading.source.rpartition("!")[2] for reading in readings if reading.size == len(log)}
        assert "too_large" in words(problems)
        assert whole == ({"z.gz"} if count == 2 else set()), "after so many, all of it is one"


def test_a_gz_of_many_members_is_read_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Bytes that are moved grow with the file and not with its square.
    moved = [0]
    engine = streams._DECOMPRESSORS["gz"]

    class Counting:
        def __init__(self) -> None:
            self._engine = engine()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._engine, name)

        def decompress(self, data: Any, most: int) -> bytes:
            moved[0] += len(data)
            return bytes(self._engine.decompress(data, most))

    monkeypatch.setitem(streams._DECOMPRESSORS, "gz", Counting)
    one = gzip.compress(b"x", mtime=0)
    (tmp_path / "a.gz").write_bytes(one * 4000)
    readings, _ = read(tmp_path)
    assert readings[0].size == 4000
    assert moved[0] < 64 * len(one) * 4000


@pytest.mark.parametrize("at", [0.2, 0.5, 0.9])
def test_one_wrong_bit_in_a_gz_is_told(tmp_path: Path, at: float) -> None:
    packed = bytearray(gzip.compress(LOG))
    packed[int(len(packed) * at)] ^= 0x10
    (tmp_path / "vmkernel.0.gz").write_bytes(packed)
    readings, problems = read(tmp_path)
    assert words(problems) == ["damaged_archive"]
    assert len(readings) == 1


# --- folders and files ----------------------------------------------------------------------------------------------------


def test_pipes_and_sockets_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "vmkernel.log")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("sock.log")
        readings, problems = read(tmp_path)
    assert readings == []
    assert words(problems) == ["unreadable"]
    assert len(problems) == 2


def test_links_stay_in_the_folder_and_loops_end(tmp_path: Path) -> None:
    root, outside = tmp_path / "evidence", tmp_path / "outside"
    (root / "esx01").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.log").write_bytes(LOG)
    (root / "esx01" / "vmkernel.log").write_bytes(LOG)
    (root / "esx01" / "loop").symlink_to(root, target_is_directory=True)
    (root / "esx01" / "mirror.log").symlink_to(root / "esx01" / "vmkernel.log")
    (root / "esx01" / "out").symlink_to(outside, target_is_directory=True)
    (root / "esx01" / "out.log").symlink_to(outside / "secret.log")
    readings, problems = read(root)
    assert [reading.source for reading in readings] == [f"{root}/esx01/vmkernel.log"]
    assert [problem.problem for problem in problems] == ["unsafe_member"] * 2


def test_a_file_that_vanishes(tmp_path: Path) -> None:
    for name in ("a.log", "b.log"):
        (tmp_path / name).write_bytes(LOG)
    found = iter_items(tmp_path)
    first = next(found)
    os.remove(tmp_path / "b.log")
    assert isinstance(first, Item)
    os.remove(tmp_path / "a.log")
    assert words([problem for reading in read_item(first) for problem in reading.problems]) == ["vanished"]
    assert [item.problem for item in found if isinstance(item, Problem)] == ["vanished"]


@pytest.mark.parametrize("new_size", [100, len(LOG) + 1000])
def test_a_file_that_changes_under_the_reading(tmp_path: Path, new_size: int) -> None:
    (tmp_path / "a.log").write_bytes(LOG)
    (item,) = iter_items(tmp_path)
    assert isinstance(item, Item)
    with item.open() as stream:
        stream.peek(100)
        with open(tmp_path / "a.log", "r+b") as file:
            file.truncate(new_size)
        data = stream.read()
    assert len(data) <= len(LOG)
    assert words(stream.problems) == ["changed"]


@pytest.fixture
def nobody() -> Iterator[Path]:
    # A folder that anybody may list, and no right to read what is in it: root gives its rights up for the while.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    was = os.geteuid()
    (folder / "esx01").mkdir()
    (folder / "esx01" / "a.log").write_bytes(LOG)
    (folder / "esx01" / "a.log").chmod(0)
    (folder / "esx01" / "closed").mkdir(mode=0)
    if was == 0:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(was)
        (folder / "esx01" / "closed").chmod(0o700)
        shutil.rmtree(folder)


def test_what_may_not_be_read(nobody: Path) -> None:
    told = read(nobody)[1]
    assert {Path(problem.source).name for problem in told if problem.problem == "unreadable"} == {"a.log", "closed"}
    assert all("ermission" in problem.detail for problem in told)


def test_names_no_table_could_hold(tmp_path: Path) -> None:
    for name in (b"bad\xff.log", b"new\nline.log", b"tab\t.log", "ünï.log".encode()):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            file.write(LOG)
    readings, problems = read(tmp_path)
    assert problems == []
    assert len(readings) == 4
    for reading in readings:
        assert reading.source.encode("utf-8").decode().isprintable()


# --- text -----------------------------------------------------------------------------------------------------------------


NASTY = {
    "nothing": (b"", ["empty"]),
    "one NUL": (b"\0", None),
    "NULs": (bytes(300_000), None),
    "NULs before a log": (bytes(300_000) + LOG, ["bad_line"]),
    "one long line": (b"x" * (8 << 20), None),
    "one long log line": (LINE[:-1] + b"x" * (8 << 20), None),
    "only ends": (b"\n" * 300_000, None),
    "CR only": (LOG.replace(b"\n", b"\r"), None),
    "CRLF": (LOG.replace(b"\n", b"\r\n"), []),
    "not UTF-8": (LOG.replace(b"dev", b"d\xff\xfev"), []),
    "colours": (LOG.replace(b"cpu", b"\x1b[45mcpu\x1b[0m"), []),
    "deep JSON": (b"[" * 200_000, None),
    "entities": (b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa">]><output><field name="Version"><string>&a;</string></field></output>', None),
    "numbers": (b"9" * 5_000 + b"\n", None),
    "long numbers in a heartbeat": (b"2014-05-31T15:00:01Z heartbeat: up 999999d99h99m99s, 999999 VMs; []\n", None),
    "impossible stamps": (b"2014-99-99T99:99:99Z heartbeat: up 1d0h0m0s, 3 VMs; [[]]\n" * 3, ["bad_time"]),
    "impossible stamps of a kernel": (LOG.replace(b"2014-05-31", b"2014-02-31"), ["bad_time"]),
    "stamps without a year": (LOG.replace(b"2014-05-31T15:57:32.579Z", b"May 31 15:57:32 vmkernel: 7:21:06:31.383"), ["bad_time"]),
    "a receiver without years": (b"May 31 15:57:32 esx01 vmkernel: cpu1:2)hello\n" * 9, ["bad_time"]),
    "a receiver's heartbeats without years": (b"May 31 15:00:01 esx01 heartbeat: up 1d0h0m0s, 3 VMs; [] []\n" * 9, ["bad_time"]),
    "a table of dashes": (b"Name  Version\n----  -------\n" * 3000, None),
    "many prompts": (b"[root@esx01:~] esxcli system version get\n" * 20_000, None),
    "many IDs": (b"Installing " + b"A_bootbank_b_1-1, " * 20_000 + b"\n", None),
    "half a zip": (b"PK\x03\x04" + bytes(100), ["damaged_archive"]),
    "a zdump": (b"vmkernel-zdump\0" + bytes(range(256)) * 300, None),
}  # fmt: skip


@pytest.mark.parametrize("case", NASTY)
def test_nasty_text_is_read_or_listed(tmp_path: Path, case: str) -> None:
    data, expected = NASTY[case]
    (tmp_path / "vmkernel.log").write_bytes(data)
    readings, problems = read(tmp_path)
    assert not any("please report" in problem.detail for problem in problems)
    if expected is not None:
        assert words(problems) == expected
    # Used, recognised as irrelevant, or listed: nothing is dropped in silence.
    assert problems or any(reading.kind for reading in readings)


SAMPLES = st.sampled_from(
    [LOG[:3000], gzip.compress(LOG[:3000]), b"VIBs Installed: A_bootbank_scsi-hpsa_5.5.0.58-1OEM.550.0.0.1331820\n",
     b"scsi-hpsa  5.5.0.58-1OEM.550.0.0.1331820  HP  VMwareCertified  2014-03-20\n", b"HP HPSA Driver (v 5.5.0.58-1OEM)\n",
     b'[{"Name": "scsi-hpsa", "Version": "5.5.0.58-1OEM", "Vendor": "HP"}]', b"Name,Version,Vendor\nscsi-hpsa,1.0-1,HP\n",
     b"2014-05-31T15:00:01Z heartbeat: up 29d19h16m41s, 25 VMs; []\n", b"<134>May 31 15:57:32 esx01 vmkernel: cpu1:2)hello\n",
     b"Feb 25 15:01:01 h logger: (1235592061) hb: vmk loaded, 5166.82, 5166.348, 20, 110268, 110268\n",
     b"[root@esx01:~] esxcli system version get\n   Product: VMware ESXi\n   Version: 5.5.0\n   Build: Releasebuild-1331820\n"]
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sample=SAMPLES, at=st.integers(0, 3000), noise=st.binary(max_size=60), cut=st.integers(0, 3000))
def test_any_change_to_any_file_is_survived(tmp_path: Path, sample: bytes, at: int, noise: bytes, cut: int) -> None:
    (tmp_path / "vmkernel.log").write_bytes(sample[:at] + noise + sample[at:][: cut + 20])
    readings, problems = read(tmp_path)
    assert not any("please report" in problem.detail for problem in problems)
    assert problems or any(reading.kind for reading in readings)


CRASH = (
    b"2014-05-31T15:57:32.579Z cpu14:960)@BlueScreen: Spin count exceeded (iplLock) - possible deadlock\n"
    b"2014-05-31T15:57:32.580Z cpu14:960)Code start: 0x418018200000 VMK uptime: 29:20:14:10.166\n"
    b"2014-05-31T15:57:32.581Z cpu14:960)0x412426e5dda0:[0x418018b7e594]hpsa_scan_start@<None>#<None>+0x39c stack: 0x410b0c037060\n"
)


@pytest.mark.parametrize(
    "data",
    [bytes(70_000) + CRASH, LOG + bytes(700_000) + CRASH, CRASH.replace(b"\n", b"\r\n"), CRASH.replace(b"exceeded ", b"exceeded\r "),
     CRASH.replace(b"@", b"\x1b[45m@").replace(b"\n", b"\x1b[0m\n"), CRASH.replace(b" - ", b" \xff\xfe "), b"x" * (3 << 20) + b"\n" + CRASH,
     CRASH + b"x" * (3 << 20), bytes(5 << 20) + b"\n" + CRASH],
    ids=["NULs", "NULs within", "CRLF", "CR inside a message", "colours", "not UTF-8", "a long line before", "a long line after", "5 MB of NULs"],
)  # fmt: skip
def test_a_crash_is_found_in_spite_of_it(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "vmkernel.log").write_bytes(data)
    readings, _ = read(tmp_path)
    (crash,) = [crash for reading in readings for crash in reading.crashes]
    assert (crash.kind, len(crash.frames), crash.frames[0].function) == ("spin_count", 1, "hpsa_scan_start")
    assert crash.line == data.count(b"\n", 0, crash.offset) + 1
    assert data[crash.offset :].startswith(b"2014-05-31T15:57:32.579Z")


@pytest.mark.parametrize("line", [b"@BlueScreen: \n", CRASH.split(b"\n")[0] + b"\n"])
def test_a_flood_of_headers_ends(tmp_path: Path, line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vmkernel.log").write_bytes(line * 12_000)
    readings, _ = read(tmp_path)
    assert 1 <= len(readings[0].crashes) <= 10


def test_a_flood_of_crashes_is_cut_off_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmkernel, "_CRASH_LIMIT", 20)
    hours = [(n, CRASH.replace(b"31T15", b"%02dT%02d" % (1 + n // 24, n % 24))) for n in range(60)]
    flood = b"".join(crash.replace(b":10.166", b":10.%03d" % n) for n, crash in hours)
    (tmp_path / "vmkernel.log").write_bytes(flood)
    readings, problems = read(tmp_path)
    assert len(readings[0].crashes) == 20
    assert words(problems) == ["too_large"]


def test_nothing_of_all_that_raises_out_of_load(tmp_path: Path) -> None:
    for number, (data, _) in enumerate(NASTY.values()):
        (tmp_path / "esx01").mkdir(exist_ok=True)
        (tmp_path / "esx01" / f"vmkernel.{number}").write_bytes(data)
    os.mkfifo(tmp_path / "esx01" / "pipe")
    link = member("l", b"", type=tarfile.SYMTYPE, linkname="/x")
    write_tar(tmp_path / "esx01" / "a.tgz", member("../evil.log"), member("/abs.log"), link)
    fleet = load(tmp_path, jobs=1)
    wanted = {"empty", "bad_line", "bad_time", "damaged_archive", "unsafe_member", "unreadable"}
    assert wanted <= set(fleet.problems.problem)
    assert fleet.problems.source.notna().all()


def test_a_thousandfold_of_lines_takes_no_more_memory(tmp_path: Path) -> None:
    # A gz of blanks and a plain log without a line end: neither is held as a whole.
    import tracemalloc

    (tmp_path / "a.gz").write_bytes(zlib.compress(b" " * (60 << 20), 1, 31))
    (tmp_path / "b.log").write_bytes(b"x" * (60 << 20))
    tracemalloc.start()
    try:
        read(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 << 20


def test_limits_are_set_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zeros.gz").write_bytes(gzip.compress(bytes(80 << 20), 1))
    monkeypatch.setenv("PSOD_MAX_SIZE", "1000000")
    (problem,) = load(tmp_path, jobs=1).problems.query("problem == 'too_large'").itertuples()
    assert "PSOD_MAX_SIZE" in problem.detail
    monkeypatch.setenv("PSOD_MAX_SIZE", "much")
    with pytest.raises(InputError, match="PSOD_MAX_SIZE is 'much'; expected a number"):
        load(tmp_path, jobs=1)
