"""A load that dies leaves the store whole, wherever it dies; two loads at once do not meet."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import DATA

import psodlib as psod
from psodlib import schema
from psodlib.store.folder import SCHEMA, locked, read_manifest

INCIDENT = DATA / "incident-2014-05-31"
NAMES = [*schema.TABLES, *schema.AUXILIARY]

EVERY = bool(os.environ.get("PSOD_EVERY_STEP"))  # all of them take minutes

# Loads with every step that reaches the disk counted; dies by SIGKILL before step N, or says how many steps there are.
DYING = """
import os, signal, sys
import psodlib as psod
import psodlib.fleet
from pathlib import Path
left = [int(sys.argv[3])]
def counted(real):
    def step(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return step
os.replace, os.fsync, Path.unlink = counted(os.replace), counted(os.fsync), counted(Path.unlink)
psod.load(sys.argv[1], store=sys.argv[2], jobs=1)
print(-left[0])
"""


def dying(root: Path, store: Path, step: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", DYING, str(root), str(store), str(step)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def same(one: psod.Fleet, other: psod.Fleet) -> bool:
    return all(getattr(one, name).equals(getattr(other, name)) for name in NAMES)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_killed_at_every_step_the_store_is_what_it_was_or_what_it_becomes(tmp_path: Path) -> None:
    root, start = tmp_path / "fleet", tmp_path / "start"
    shutil.copytree(INCIDENT / "incident-host", root / "esx01")
    old = psod.load(root, store=start, jobs=1)
    log = (INCIDENT / "incident-host/var/core/vmkernel-log.1").read_bytes()
    (root / "esx02").mkdir()
    (root / "esx02" / "vmkernel-log.1").write_bytes(
        re.sub(rb"2014-05-31T", b"2014-07-02T", log).replace(b"14:10.166", b"14:11.166")
    )
    new = psod.load(root, jobs=1)
    assert len(new.crashes) == 2 and not same(old, new)
    shutil.copytree(start, tmp_path / "count")
    steps = int(dying(root, tmp_path / "count", -1).stdout) - 1
    assert steps > 15
    ends = []
    # Every seventh step in the middle, where one part after another is written; every one at the end, where it is decided.
    for step in [*range(1, steps - 6, 7), *range(steps - 6, steps + 1)] if not EVERY else range(1, steps + 1):
        store = tmp_path / f"at{step}"
        shutil.copytree(start, store)
        assert dying(root, store, step).returncode == -signal.SIGKILL, step
        left = psod.Fleet.open(store)
        assert same(left, old) or same(left, new), step
        ends.append(same(left, new))
        assert same(psod.load(root, store=store, jobs=1), new), step
        named = {*read_manifest(store).files, *read_manifest(store).before, "manifest.json", "lock", "holder"}
        assert {p.relative_to(store).as_posix() for p in store.rglob("*") if p.is_file()} <= named, step
    assert ends == sorted(ends) and not ends[0] and ends[-1]  # one moment decides


def test_what_a_killed_load_had_read_is_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from psodlib.store import update

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(update, "commit", die)
        psod.load(INCIDENT, store=tmp_path / "s", jobs=1)
    fleet = psod.load(INCIDENT, store=tmp_path / "s", jobs=1)
    news = read_manifest(tmp_path / "s").news
    assert news["files read"] == 0 and news["files adopted from a killed load"] > 0
    assert same(fleet, psod.load(INCIDENT, jobs=1))


def test_a_full_disk_is_an_error_and_the_store_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = psod.load(INCIDENT / "incident-host", store=tmp_path / "s", jobs=1)
    steps = iter(range(1000))

    def full(handle: int) -> None:
        if next(steps) == 3:
            raise OSError(28, "No space left on device")

    with (
        monkeypatch.context() as patch,
        pytest.raises(psod.InputError, match=r"No space left.*as it was before, run again"),
    ):
        patch.setattr(os, "fsync", full)
        psod.load(DATA / "incident-2014-05-31-restored", store=tmp_path / "s", jobs=1)
    assert same(psod.Fleet.open(tmp_path / "s"), old)
    assert not list((tmp_path / "s").rglob("*.part"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    # A file system of 2 MiB of its own: only a real one shows what a half-written file is.
    place = tmp_path / "small"
    place.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("not root: a file system cannot be mounted")
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "psodlib-test", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        pytest.skip(f"this machine forbids mounts: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], timeout=20, check=True)


@pytest.mark.parametrize("room", [0, 4, 8, 16, 24, 28])
def test_a_disk_that_is_full_costs_nothing_but_the_load(small_disk: Path, tmp_path: Path, room: int) -> None:
    store, restored = small_disk / "s", DATA / "incident-2014-05-31-restored"
    old = psod.load(INCIDENT / "incident-host", store=store, jobs=1)
    free = shutil.disk_usage(small_disk).free
    (small_disk / "ballast").write_bytes(bytes(free - room * 1024))
    with pytest.raises(psod.InputError, match=r"No space left.*as it was before, run again"):
        psod.load(restored, store=store, jobs=1)
    assert same(psod.Fleet.open(store), old)
    assert not list(store.rglob("*.part"))
    (small_disk / "ballast").unlink()
    new = psod.load(restored, store=store, jobs=1)
    shutil.copytree(store, tmp_path / "again")
    assert not same(new, old) and same(psod.Fleet.open(tmp_path / "again"), new)


def test_a_second_load_at_once_gets_a_clear_error(tmp_path: Path) -> None:
    psod.load(INCIDENT, store=tmp_path / "s", jobs=1)
    with locked(tmp_path / "s"):
        command = [
            sys.executable,
            "-c",
            "from psodlib.cli import main; main()",
            "load",
            str(INCIDENT),
            "--store",
            str(tmp_path / "s"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 2
        assert re.search(rf"process {os.getpid()} on .* is loading into this store", done.stderr)
        assert len(psod.Fleet.open(tmp_path / "s").crashes) == 1  # reading needs no lock
    psod.load(INCIDENT, store=tmp_path / "s", jobs=1)


def test_a_folder_of_something_else_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(psod.InputError, match=r"no store .*holiday\.jpg"):
        psod.load(INCIDENT, store=tmp_path, jobs=1)
    with pytest.raises(psod.InputError, match="no store"):
        psod.load(INCIDENT, store=psod.Fleet().save(tmp_path / "plain"), jobs=1)
    with pytest.raises(psod.InputError, match="an address cannot be locked"):
        psod.load(INCIDENT, store="s3://bucket/store")
    with pytest.raises(psod.InputError, match="standard input cannot go into a store"):
        psod.load("-", store=tmp_path / "s")


@pytest.mark.parametrize("damage", ["manifest", "newer", "part", "ledger", "segment"])
def test_a_damaged_store_says_so(tmp_path: Path, damage: str) -> None:
    store = tmp_path / "s"
    psod.load(INCIDENT, store=store, jobs=1)
    manifest = read_manifest(store)
    target = {
        "manifest": store / "manifest.json", "newer": store / "manifest.json",
        "part": store / manifest.tables["crashes"][0].path, "ledger": store / str(manifest.ledger),
        "segment": store / manifest.segments[0],
    }[damage]  # fmt: skip
    if damage == "newer":
        target.write_text(target.read_text().replace(f'"schema": {SCHEMA}', '"schema": 99'))
    else:
        target.write_bytes(target.read_bytes()[:40] + b"\0" * 40)
    with pytest.raises(psod.InputError, match="load into a new store"):
        psod.Fleet.open(store)
        psod.load(INCIDENT, DATA / "incident-2014-05-31-restored", store=store, jobs=1, known_issues=_other(tmp_path))


def _other(folder: Path) -> Path:
    path = folder / "mine.toml"
    path.write_text(
        '[[issue]]\nid = "M"\ntitle = "x"\nsource = "a test"\nsure = "weak"\nmodule = "x"\nremedy = "none"\n'
    )
    return path
