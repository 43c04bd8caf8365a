"""Every way a file may come: plain, compressed, in archives, in fragments, at an address; and what its place says."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import pickle
import sys
import tarfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from psodlib.errors import InputError
from psodlib.evidence.archives import Item
from psodlib.evidence.reading import read_unit
from psodlib.evidence.sources import iter_items, iter_units, open_unit
from psodlib.records import Problem

TEXT = b"2014-05-31T15:57:32.579Z cpu14:960)hello\n" * 50
BUNDLE = "esx-esx-07.lab-2014-06-01--10.05-34567"


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


def tar(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_401_552_000
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return sink.getvalue()


def read(*sources: str | Path) -> tuple[dict[str, tuple[Item, bytes]], list[Problem]]:
    """Items by name with their bytes, and all problems, those of the streams too."""
    items, problems = {}, []
    for found in iter_items(*sources):
        if isinstance(found, Problem):
            problems.append(found)
        else:
            stream = found.open()
            items[found.name] = (found, stream.read())
            problems += stream.problems
    return items, problems


WRAPPED = {
    "plain": TEXT, "gz": gzip.compress(TEXT), "bz2": bz2.compress(TEXT), "xz": lzma.compress(TEXT), "zst": zstd(TEXT),
    "gz of two members": gzip.compress(TEXT[:400]) + gzip.compress(TEXT[400:]), "padded gz": gzip.compress(TEXT) + bytes(512),
    "gz in gz": gzip.compress(gzip.compress(TEXT)),
}  # fmt: skip


@pytest.mark.parametrize("form", WRAPPED)
def test_content_decides_and_not_the_name(tmp_path: Path, form: str) -> None:
    (tmp_path / "vmkernel.txt").write_bytes(WRAPPED[form])
    items, problems = read(tmp_path)
    assert items["vmkernel.txt"][1] == TEXT
    assert problems == []


@pytest.mark.parametrize("form", ["plain", "gz", "zst"])
def test_an_item_on_disk_opens_again_and_after_the_walk(tmp_path: Path, form: str) -> None:
    (tmp_path / "a.log").write_bytes(WRAPPED[form])
    (item,) = list(iter_items(tmp_path))
    assert isinstance(item, Item)
    assert item.open().read() == TEXT == item.open().read()


ARCHIVES = {
    "tgz": tar({f"{BUNDLE}/var/log/vmkernel.log": TEXT}),
    "tar": tar({f"{BUNDLE}/var/log/vmkernel.log": TEXT}, "w:"),
    "tar.xz": lzma.compress(tar({f"{BUNDLE}/var/log/vmkernel.log": TEXT}, "w:")),
    "zip": zipped({f"{BUNDLE}/var/log/vmkernel.log": TEXT}),
    "gz inside": tar({f"{BUNDLE}/var/log/vmkernel.log": gzip.compress(TEXT)}),
    "vCenter zip of tgz": zipped(
        {"esx-07.lab-vm2014-6-01@10-05-26.tgz": tar({f"{BUNDLE}/var/log/vmkernel.log": TEXT})}
    ),
    "zip in tgz": tar({"export.zip": zipped({f"{BUNDLE}/var/log/vmkernel.log": TEXT})}),
}


@pytest.mark.parametrize("form", ARCHIVES)
def test_archives_are_read_as_a_stream_with_their_place(tmp_path: Path, form: str) -> None:
    (tmp_path / "evidence.bin").write_bytes(ARCHIVES[form])
    items, problems = read(tmp_path)
    ((item, data),) = items.values()
    assert data == TEXT
    assert problems == []
    assert (item.hint, item.hint_kind) == ("esx-07.lab", "bundle")
    assert item.collected == datetime(2014, 6, 1, 10, 5, tzinfo=UTC)
    assert item.source.startswith(f"{tmp_path}/evidence.bin!")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evidence.bin"]  # nothing was extracted


def test_three_archives_in_one_another_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"b.tgz": tar({"c.tgz": tar({"d.log": TEXT})})}))
    items, problems = read(tmp_path)
    assert items == {}
    assert [problem.problem for problem in problems] == ["too_deep"]


@pytest.mark.parametrize("nested", [False, True])
def test_the_trouble_of_a_member_is_told_once(tmp_path: Path, nested: bool) -> None:
    cut = gzip.compress(os.urandom(400))[:-30]
    inner = {"a/var/log/vmkernel.1.gz": cut, "a/commands/uptime.txt": b"10"}
    data = zipped({"esx.tgz": tar(inner)}) if nested else tar(inner)
    (tmp_path / "bundle.tgz").write_bytes(data)
    found, problems = [], []
    for unit in iter_units(tmp_path):
        told, more = read_unit(unit)
        found += [problem for reading in told for problem in reading.problems]
        problems += more
    assert [problem.problem for problem in found + problems if problem.problem == "truncated"] == ["truncated"]


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_a_nested_archive_that_is_cut_says_so(tmp_path: Path, mode: str) -> None:
    whole = tar({f"a/{n}.log": os.urandom(3000) for n in range(9)}, mode)
    (tmp_path / "outer.zip").write_bytes(zipped({"esx.tgz": whole[:-9000]}))
    problems = [found for unit in iter_units(tmp_path) for found in open_unit(unit) if isinstance(found, Problem)]
    assert len(problems) == 1 and problems[0].problem in ("truncated", "damaged_archive")


def test_a_member_is_gone_when_the_archive_has_moved_on(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(tar({"one.log": TEXT, "two.log": TEXT}))
    first, _ = list(iter_items(tmp_path))
    assert isinstance(first, Item)
    with pytest.raises(InputError, match="before the next item"):
        first.open()


def test_fragments_are_one_file_by_number(tmp_path: Path) -> None:
    for number, piece in ((0, TEXT[:700]), (1, TEXT[700:900]), (2, TEXT[900:])):
        (tmp_path / f"vmkernel.log.FRAG-{number:05d}").write_bytes(piece)
    items, problems = read(tmp_path)
    assert {name: data for name, (_, data) in items.items()} == {"vmkernel.log": TEXT}
    assert problems == []


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("numbers", "runs"), [((0, 1, 3, 4), ["01", "34"]), ((2, 3), ["23"]), ((3, 0, 2, 1), ["0123"])]
)
def test_fragments_are_never_glued_over_a_hole(
    tmp_path: Path, numbers: tuple[int, ...], runs: list[str], packed: bool
) -> None:
    pieces = {f"{BUNDLE}/var/core/dump.FRAG-{number:05d}": str(number).encode() for number in numbers}
    if packed:
        (tmp_path / "b.tgz").write_bytes(tar(pieces))
    else:
        for name, data in pieces.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
    found = list(iter_items(tmp_path))
    read_runs = []
    for item in iter_items(tmp_path):
        if isinstance(item, Item):
            read_runs.append(item.open().read().decode())
    assert read_runs == runs
    holes = [item.problem for item in found if isinstance(item, Problem)]
    assert holes == (["fragment_missing"] if runs != ["0123"] else [])
    assert len({item.source for item in found if isinstance(item, Item)}) == len(runs)


PLACES = {
    "esx01/vmkernel.log": ("esx01", "folder"),
    "esx01/commands/uname_-a.txt": ("esx01", "folder"),
    f"case7/{BUNDLE}/var/log/vmkernel.log": ("esx-07.lab", "bundle"),
    "case7/esx-localhost-2014-06-01--10.05-3/var/log/vmkernel.log": ("case7", "folder"),
    "case7/vm-support-2014-06-01--10.05/var/log/vmkernel.log": ("case7", "folder"),
    "loose.log": (None, None),
}


def test_the_place_hints_at_the_host(tmp_path: Path) -> None:
    for name in PLACES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(TEXT)
    items, _ = read(tmp_path)
    assert {name: (item.hint, item.hint_kind) for name, (item, _) in items.items()} == PLACES


@pytest.mark.parametrize("name", ["vmkernel.log", "commands/uname_-a.txt", "var/log/vmkernel.log"])
@pytest.mark.parametrize("relative", [False, True])
def test_a_folder_that_is_one_host_gives_its_name(
    tmp_path: Path, name: str, relative: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "esx09" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(TEXT)
    monkeypatch.chdir(tmp_path / "esx09")
    items, _ = read("." if relative else tmp_path / "esx09")
    assert [item.hint for item, _ in items.values()] == ["esx09"]


def test_a_single_file_hints_at_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "esx03").mkdir()
    (tmp_path / "esx03" / "vmkernel-log.1").write_bytes(TEXT)
    monkeypatch.chdir(tmp_path / "esx03")
    items, _ = read("vmkernel-log.1")
    assert items["vmkernel-log.1"][0].hint == "esx03"


def test_a_date_beside_the_outputs_tells_the_collection(tmp_path: Path) -> None:
    folder = tmp_path / "esx01" / "commands"
    folder.mkdir(parents=True)
    (folder / "date.txt").write_bytes(b"Mon Jun  2 10:00:00 UTC 2014\n")
    (folder / "uptime.txt").write_bytes(b" 10:00:00 up 5 days, 01:00:00, load average: 0\n")
    items, _ = read(tmp_path)
    assert items["esx01/commands/uptime.txt"][0].collected == datetime(2014, 6, 2, 10, tzinfo=UTC)


@pytest.mark.parametrize(("marker", "expected"), [("", set()), ("evidence", set()), (None, {"truth/crashes.csv"})])
def test_the_answer_key_is_read_only_where_nothing_is_simulated(
    tmp_path: Path, marker: str | None, expected: set[str]
) -> None:
    (tmp_path / "truth").mkdir()
    (tmp_path / "evidence").mkdir()
    (tmp_path / "truth" / "crashes.csv").write_bytes(b"host,time\n")
    if marker is not None:
        (tmp_path / marker / "SIMULATED").write_text("This fleet is made up.\n")
    items, _ = read(tmp_path)
    assert {name for name in items if name.startswith("truth")} == expected


def test_units_pickle_and_open_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(TEXT)
    (tmp_path / "b.tgz").write_bytes(tar({"esx01/var/log/vmkernel.log": TEXT}))
    units = pickle.loads(pickle.dumps(list(iter_units(tmp_path))))
    seen = {}
    for unit in units:
        for item in open_unit(unit):
            assert isinstance(item, Item)
            seen[item.source] = item.open().read()
    assert seen == {f"{tmp_path}/a.log": TEXT, f"{tmp_path}/b.tgz!esx01/var/log/vmkernel.log": TEXT}


def test_a_members_stream_knows_its_hash_as_stored(tmp_path: Path) -> None:
    packed = gzip.compress(TEXT)
    (tmp_path / "a.gz").write_bytes(packed)
    (tmp_path / "b.tgz").write_bytes(tar({"var/log/vmkernel.0.gz": packed, "var/log/vmkernel.log": TEXT}))
    seen = {}
    for item in iter_items(tmp_path):
        assert isinstance(item, Item)
        stream = item.open()
        assert stream.peek(10) == TEXT[:10]
        while stream.read(100):
            pass
        seen[item.source.rpartition("/")[2]] = (stream.sha256, stream.count)
    hashed = {name: hashlib.sha256(data).hexdigest() for name, data in (("packed", packed), ("text", TEXT))}
    assert seen == {
        "a.gz": (None, len(TEXT)),  # whoever needs it hashes the file itself
        "vmkernel.0.gz": (hashed["packed"], len(TEXT)),
        "vmkernel.log": (hashed["text"], len(TEXT)),
    }


@pytest.mark.parametrize(
    "data",
    [TEXT, gzip.compress(TEXT), tar({"vmkernel.log": TEXT}), zipped({"vmkernel.log": TEXT})],
    ids=["text", "gz", "tar", "zip"],
)
def test_stdin(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    contents = [item.open().read() for item in iter_items("-") if isinstance(item, Item)]
    assert contents == [TEXT]


def test_addresses(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/wing/esx01/vmkernel.log", TEXT)
    files.pipe(f"/wing/{BUNDLE}.tgz", ARCHIVES["tgz"])
    try:
        items, problems = read("memory://wing")
        assert sorted((item.hint, data) for item, data in items.values()) == [("esx-07.lab", TEXT), ("esx01", TEXT)]
        assert problems == []
        with pytest.raises(InputError, match="does not exist"):
            list(iter_items("memory://wing/nothing.log"))
        with pytest.raises(InputError, match="nosuch"):
            list(iter_items("nosuch://x/y"))
    finally:
        files.rm("/wing", recursive=True)


@pytest.mark.parametrize("sources", [(), ("/no/such/place",), ("",)])
def test_only_misuse_raises(sources: tuple[str, ...]) -> None:
    with pytest.raises(InputError):
        list(iter_items(*sources))


def test_an_empty_folder_and_hidden_files(tmp_path: Path) -> None:
    assert list(iter_items(tmp_path)) == []
    (tmp_path / ".hidden.log").write_bytes(TEXT)
    items, _ = read(tmp_path)
    assert list(items) == [".hidden.log"]


def test_the_order_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("b/2.log", "a/10.log", "a/9.log", "c.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(TEXT)
    names = [item.name for item in iter_items(tmp_path) if isinstance(item, Item)]
    assert names == ["c.log", "a/10.log", "a/9.log", "b/2.log"]
    assert os.fspath(tmp_path) in next(iter(iter_items(tmp_path))).source


def test_an_archive_of_many_hosts_keeps_them_apart(tmp_path: Path) -> None:
    # The folder that a lone archive lies in says nothing of the hosts in it.
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    with zipfile.ZipFile(downloads / "evidence.zip", "w") as archive:
        for name in ("esx-a/vmkernel.log", "evidence/esx-b/var/log/vmkernel.log", "loose.log"):
            archive.writestr(name, "2014-01-01T00:00:00.000Z cpu0:1)x\n")
    hints = [item.hint for item in iter_items(downloads / "evidence.zip") if isinstance(item, Item)]
    assert hints == ["esx-a", "esx-b", None]


def test_a_lone_file_is_its_folders_hosts_only_where_the_folder_is_one(tmp_path: Path) -> None:
    def host_of(folder: str, *others: str) -> list[str | None]:
        desk = tmp_path / folder
        desk.mkdir()
        for name in ("crash.txt", *others):
            (desk / name).write_text("2014-05-31T15:57:32.579Z cpu14:96)Net: 1: up\n")
        return [unit.place.hint for unit in iter_units(desk / "crash.txt")]

    assert host_of("anna", "letter.txt") == [None], "where people keep all sorts of things"
    assert host_of("bert", "vmkernel.log", "vmksummary.log") == ["bert"], "named as a host names its logs"
