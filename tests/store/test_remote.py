"""Evidence behind an address is read as if it lay in a folder here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from collector_servers import Esx, make_key, needs_sshd

import psodlib as psod
from psodlib import schema
from psodlib.evidence.sources import Unit, iter_units
from psodlib.store.folder import read_manifest

NAMES = [*schema.TABLES, *schema.AUXILIARY]


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Outputs of commands with a `date.txt` beside them, whose day is not that of the files.
    folder = tmp_path_factory.mktemp("far") / "fleet"
    psod.simulate_fleet(folder, hosts=3, days=40, seed=9, driver_rate=3.0, bundles=0.3)
    shutil.rmtree(folder / "truth")
    assert list(folder.rglob("date.txt"))
    return folder


def assert_same(far: psod.Fleet, near: psod.Fleet) -> None:
    for name in NAMES:
        one, other = (getattr(fleet, name).drop(columns="source", errors="ignore") for fleet in (far, near))
        pd.testing.assert_frame_equal(one, other)


def test_sizes_and_the_time_of_collection_are_those_of_the_folder(evidence: Path) -> None:
    near = [unit for unit in iter_units(evidence) if isinstance(unit, Unit)]
    far = [unit for unit in iter_units(evidence.as_uri()) if isinstance(unit, Unit)]
    told = [{u.place.name: (u.size, u.place.mtime, u.place.collected) for u in units} for units in (near, far)]
    assert told[0] == told[1] and len(told[0]) > 20
    assert all(size for name, (size, _, _) in told[1].items() if name != "SIMULATED")
    assert any(collected for name, (_, _, collected) in told[1].items() if "commands/" in name)


@pytest.fixture
def server(evidence: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    user, own = make_key(tmp_path / "user"), make_key(tmp_path / "host")
    esx = Esx(tmp_path / "root")
    shutil.copytree(evidence, esx.root / "fleet")
    monkeypatch.setitem(fsspec.config.conf, "sftp", {"key_filename": str(user), "timeout": 20, "look_for_keys": False})
    try:
        esx.start(user_key=user, host_key=own)
        yield f"sftp://root@127.0.0.1:{esx.port}/fleet"
    finally:
        for files in list(fsspec.get_filesystem_class("sftp")._cache.values()):
            files.client.close()
        fsspec.get_filesystem_class("sftp").clear_instance_cache()
        esx.stop()


@needs_sshd
def test_a_fleet_behind_sftp_is_the_fleet_on_disk(server: str, evidence: Path, tmp_path: Path) -> None:
    near = psod.load(evidence, jobs=1)
    far = psod.load(server, store=tmp_path / "s", jobs=1)
    assert len(near.crashes) and near.drivers.observed_at.notna().any()
    assert_same(far, near)
    psod.load(server, store=tmp_path / "s", jobs=1)
    assert read_manifest(tmp_path / "s").news["files read"] == 0


def test_a_password_in_an_address_is_refused() -> None:
    with pytest.raises(psod.InputError, match="a password in an address would stand in every table"):
        psod.load("sftp://root:secret@127.0.0.1/fleet")
