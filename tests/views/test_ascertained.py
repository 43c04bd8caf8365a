"""Which hosts gave what: by the manifests where there are some, else by the evidence alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from ascertained import ascertainment
from conftest import DATA

import psodlib as psod
from psodlib.collector.folder import Folder, Manifest, Record


@pytest.fixture(scope="module")
def incident() -> psod.Fleet:
    inventory = pd.DataFrame({"host": ["quiet-host"]})
    return psod.load(DATA / "incident-2014-05-31", inventory=inventory)


def test_without_a_manifest_the_evidence_speaks(incident: psod.Fleet, tmp_path: Path) -> None:
    for collection in (None, tmp_path, tmp_path / "nowhere"):
        table = ascertainment(incident, collection).set_index("host")
        assert set(table.index) == set(incident.hosts.host)
        assert table.gave["quiet-host"] == "nothing" and "no evidence" in table.why["quiet-host"]
        assert (table.gave == "dump").any() and set(table.known_by) == {"evidence"}


def test_a_manifest_says_why_and_names_hosts_that_gave_nothing(incident: psod.Fleet, tmp_path: Path) -> None:
    crashed = incident.crashes.host[0]
    Folder(tmp_path, "dark").save(Manifest("dark", state="failed", why="SSH is off"))
    log = Record("/var/core/vmkernel-log.1", "var/core/vmkernel-log.1", 3, 4, "ab", "whole")
    Folder(tmp_path, crashed).save(Manifest(f"{crashed}.example.org", state="complete", files=[log]))
    table = ascertainment(incident, tmp_path)
    assert table.host.is_unique and crashed not in set(table.host), "the manifest's row stands for the host"
    rows = table.set_index("host")
    assert (rows.gave["dark"], rows.why["dark"], rows.known_by["dark"]) == ("nothing", "SSH is off", "manifest")
    assert rows.gave[f"{crashed}.example.org"] == "dump"
    assert rows.known_by["quiet-host"] == "evidence"
    assert list(table.gave) == sorted(table.gave, key=["nothing", "outputs", "logs", "dump"].index)


def test_a_manifest_is_neither_evidence_nor_a_problem(tmp_path: Path) -> None:
    Folder(tmp_path, "dark").save(Manifest("dark", state="failed", why="host key unknown"))
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen/vmkernel.log").write_text("2014-05-31T15:01:02.123Z cpu1:4097)ScsiDeviceIO: 2331: a line\n")
    fleet = psod.load(tmp_path)
    assert list(fleet.hosts.host) == ["seen"]
    assert not fleet.problems.source.fillna("").str.contains("manifest").any()
