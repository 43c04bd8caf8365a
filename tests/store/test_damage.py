"""A store checks its own bytes: no flip gives a silently wrong table, no hostile store more than a sentence."""

from __future__ import annotations

import json
import os
import random
import shutil
from functools import partial
from pathlib import Path

import msgspec
import pytest
from conftest import DATA
from isal import isal_zlib

import psodlib as psod
from psodlib import schema
from psodlib.store import readings, update
from psodlib.store.folder import OLDEST, SCHEMA, Manifest, read_manifest
from psodlib.store.readings import Entry, Piece, read_pieces
from psodlib.store.tables import write_parts

INCIDENT = DATA / "incident-2014-05-31"
NAMES = [*schema.TABLES, *schema.AUXILIARY]
FLIPS = 400 if os.environ.get("PSOD_LONG") else 60
HERE = Path(__file__).parent


def same(one: psod.Fleet, other: psod.Fleet, but: tuple[str, ...] = ()) -> bool:
    return all(
        getattr(one, name).drop(columns=list(but), errors="ignore").equals(getattr(other, name).drop(columns=list(but), errors="ignore"))
        for name in NAMES
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage") / "s"
    psod.load(INCIDENT, DATA / "incident-2014-05-31-restored", store=folder, jobs=1)
    return folder


def test_no_flipped_bit_gives_a_wrong_table_and_a_load_mends_it(store: Path, tmp_path: Path) -> None:
    draw, whole = random.Random(7), psod.Fleet.open(store)
    paths = sorted(p for p in store.rglob("*") if p.is_file() and p.name not in ("lock", "holder"))
    told = 0
    for _ in range(FLIPS):
        path = draw.choice(paths)
        data = bytearray(path.read_bytes())
        at = draw.randrange(len(data))
        data[at] ^= 1 << draw.randrange(8)
        here = tmp_path / "flipped"
        shutil.copytree(store, here)
        (here / path.relative_to(store)).write_bytes(data)
        try:
            assert same(psod.Fleet.open(here), whole), (path.name, at)
        except psod.InputError as error:
            told += 1
            assert path.name in str(error) and ("--verify" in str(error) or "new store" in str(error))
        if path.suffix != ".entries" and path.name != "manifest.json":
            mended = psod.load(INCIDENT, DATA / "incident-2014-05-31-restored", store=here, jobs=1, verify=True)
            assert same(mended, whole) and same(psod.Fleet.open(here), whole), (path.name, at)
        shutil.rmtree(here)
    assert told > FLIPS // 3


def test_damaged_readings_that_no_file_can_tell_again_are_named(tmp_path: Path) -> None:
    root, store = tmp_path / "evidence", tmp_path / "s"
    shutil.copytree(INCIDENT / "incident-host", root / "esx01")
    shutil.copytree(INCIDENT / "incident-host", root / "esx02")
    psod.load(root, store=store, jobs=1)
    for path in (root / "esx01").rglob("vmkernel-log.1"):
        path.unlink()
    psod.load(root, store=store, jobs=1)
    for segment in read_manifest(store).segments:
        (store / segment).write_bytes(bytes(len((store / segment).read_bytes())))
    with pytest.raises(
        psod.InputError, match=r"what 1 files said is damaged, and they are not there to be read again \(.*esx01"
    ):
        psod.load(root, store=store, jobs=1, verify=True)


def altered(store: Path, folder: Path, change: dict[str, object]) -> Path:
    # A store whose maker knew the format: its own hash is right.
    here = folder / "altered"
    shutil.copytree(store, here)
    from psodlib.store import folder as module

    data = {**json.loads((here / "manifest.json").read_text()), **change}
    try:
        manifest = module._checked(msgspec.convert(data, Manifest))
        (here / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    except msgspec.ValidationError:
        (here / "manifest.json").write_text(json.dumps(data))
    return here


PART = {"path": f"tables/crashes/all/{'0' * 24}.parquet", "month": "none", "bucket": -1, "rows": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    "change",
    [
        {"tables": 3}, {"tables": {"crashes": [{**PART, "path": "../../etc/passwd"}]}},
        {"tables": {"crashes": [{**PART, "path": f"tables/crashes/all/{'0' * 24}.parquet\n"}]}},
        {"tables": {"crashes": [PART]}}, {"tables": {"crashes": [{}]}}, {"segments": ["/etc/passwd"]}, {"segments": "abc"},
        {"ledger": "../ledger"}, {"ledger": {}}, {"buckets": 0}, {"buckets": "many"}, {"generation": None}, {"walk": [1]},
        {"simulated": "yes"}, {"strange": 1}, {"schema": "2"}, {"schema": 99}, {"news": {"files": {}}},
    ],
)  # fmt: skip
def test_an_ill_typed_manifest_is_one_sentence(store: Path, tmp_path: Path, change: dict[str, object]) -> None:
    here = altered(store, tmp_path, change)
    with pytest.raises(psod.InputError, match=r"manifest\.json|damaged"):
        psod.Fleet.open(here)
        psod.load(INCIDENT, store=here, jobs=1)


@pytest.mark.parametrize("told", [1 << 31, 100])
def test_a_segment_that_unfolds_without_end_is_not_unfolded(tmp_path: Path, told: int) -> None:
    import zlib

    blob = isal_zlib.compress(bytes(1 << 28), 1)
    (tmp_path / "x.seg").write_bytes(blob)
    entry = Entry(path="x", source="x", root="x", name="x", hint=None, hint_kind=None, collected=None, stamp="", size=0, parser="", segment="x.seg")  # fmt: skip
    piece = Piece(host=None, hint=None, offset=0, length=len(blob), unpacked=told, check=zlib.crc32(blob))
    with pytest.raises(psod.InputError, match=r"x\.seg: damaged \(ValueError: unfolds to other than"):
        read_pieces(tmp_path, [(entry, piece)])


@pytest.mark.parametrize(
    "text", ['[{"source": 1}]', '[{"source":"x","kind":"","crashes":[{"time":"yesterday"}]}]', "[", "{}"]
)
def test_a_segment_can_hold_nothing_but_records(tmp_path: Path, text: str) -> None:
    import zlib

    blob = isal_zlib.compress(text.encode(), 1)
    (tmp_path / "x.seg").write_bytes(blob)
    entry = Entry(path="x", source="x", root="x", name="x", hint=None, hint_kind=None, collected=None, stamp="", size=0, parser="", segment="x.seg")  # fmt: skip
    piece = Piece(host=None, hint=None, offset=0, length=len(blob), unpacked=len(text), check=zlib.crc32(blob))
    with pytest.raises(psod.InputError, match=r"x\.seg: damaged"):
        read_pieces(tmp_path, [(entry, piece)])


def test_the_sweep_removes_only_names_that_a_store_gives(store: Path, tmp_path: Path) -> None:
    here = tmp_path / "s"
    shutil.copytree(store, here)
    mine = {here / "tables/notes.txt", here / "readings/mine.seg", here / "tables/crashes/my.parquet", here / "x.part"}
    for path in mine:
        path.write_bytes(b"mine")
    old = here / "readings" / f"{'a' * 24}.seg"
    old.write_bytes(b"rubbish of a killed load")
    psod.Fleet.open(store).save(here)  # psod load X --store S -o S
    saved = sorted(here.glob("*.parquet"))
    psod.load(INCIDENT, store=here, jobs=1)
    psod.load(INCIDENT, store=here, jobs=1)
    assert all(path.exists() for path in [*mine, *saved]) and len(saved) == len(NAMES) and not old.exists()


@pytest.mark.parametrize("name", ["lock", "holder", "readings", "tables"])
def test_a_store_of_somebody_else_does_not_lead_out_of_itself(store: Path, tmp_path: Path, name: str) -> None:
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    shutil.copytree(store, theirs)
    mine.mkdir()
    (mine / "tables").write_text("mine") if name in ("lock", "holder") else shutil.copytree(
        store / name, mine / "tables"
    )
    held = {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()}
    if (theirs / name).is_dir():
        shutil.rmtree(theirs / name)
    else:
        (theirs / name).unlink(missing_ok=True)
    (theirs / name).symlink_to(mine / "tables")
    with pytest.raises(psod.InputError, match="a link, which no store has"):
        psod.load(INCIDENT, store=theirs, jobs=1)
    assert {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()} == held


@pytest.fixture
def former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # A store as psodlib wrote it until November 2026, of `ev/`; a crash's file was gone before its last load.
    shutil.copytree(HERE / "former", tmp_path / "s")
    log = b"".join(
        b"2014-05-%02dT%02d:00:00Z heartbeat: up %dd%dh0m0s, 3 VMs; [[1 vmx 4kB] [2 vmx 4kB] [3 vmx 4kB]] []\n"
        % (d, h, d - 1, h)
        for d in range(20, 30)
        for h in range(24)
    )
    for host, data in (("esx01", log), ("esx02", log[:2000])):
        (tmp_path / "ev" / host).mkdir(parents=True)
        (tmp_path / "ev" / host / "vmksummary.log").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "s"


def test_readings_that_were_all_packed_are_read_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:  # as a store of format 3 has them
        patch.setattr(readings, "_SHORT", 0)
        patch.setattr(update, "Manifest", partial(Manifest, schema=OLDEST))
        before = psod.load(INCIDENT, store=tmp_path / "s", jobs=1)
    assert read_manifest(tmp_path / "s").schema == OLDEST < SCHEMA
    monkeypatch.setattr(update, "assembler", lambda issues: "another")  # so that all are read
    after = psod.load(INCIDENT, store=tmp_path / "s", jobs=1)
    manifest = read_manifest(tmp_path / "s")
    assert (manifest.schema, manifest.news["files read"]) == (SCHEMA, 0)
    assert after.crashes.equals(before.crashes) and after.uptimes.equals(before.uptimes)


def test_a_store_of_an_earlier_format_is_read_again_and_loses_nothing(former: Path) -> None:
    before = psod.Fleet.open(former)
    assert len(before.crashes) == 1
    held = sorted(path for path in former.rglob("*") if path.is_file() and path.name not in ("lock", "holder"))
    with pytest.raises(
        psod.InputError, match=r"earlier format.* lose 1 of 1 known crashes.*nothing is lost.*new folder"
    ):
        psod.load("ev", store=former, jobs=1)
    assert set(held) <= set(former.rglob("*"))
    psod.Fleet.open(former)
    shutil.copy(next(INCIDENT.rglob("*vmkernel*")), "ev/esx01/vmkernel-log.1")  # the same crash
    after = psod.load("ev", store=former, jobs=1)
    assert len(after.crashes) == 1
    assert read_manifest(former).news["files read again, the store was of an earlier format"] == 3
    psod.load("ev", store=former, jobs=1)
    assert read_manifest(former).news["files read"] == 0 and "earlier" not in str(
        {what for what, count in read_manifest(former).news.items() if count}
    )


def test_a_word_outside_its_closed_list_is_not_written(tmp_path: Path) -> None:
    row = {"source": "a.log", "problem": "no such word"}
    with pytest.raises(psod.InputError, match="'no such word' is not in its closed list"):
        write_parts(tmp_path, "evidence_problems", [row], 0, [])
    with pytest.raises(psod.InputError, match="table evidence_problems"):
        write_parts(tmp_path, "evidence_problems", [{**row, "problem": "empty", "line": 1 << 70}], 0, [])
    assert not list(tmp_path.iterdir())
