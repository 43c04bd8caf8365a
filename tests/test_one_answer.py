"""One answer to each question: whatever explains a crash or a version formats what was judged once."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import DATA

import psodlib as psod
from psodlib.collector import pin
from psodlib.evidence.archives import Item
from psodlib.evidence.reading import read_item
from psodlib.evidence.sources import iter_items
from psodlib.triage.compliance import status

PROC = "Drivers: HP HPSA Driver (v 5.5.0.58-1OEM)\n"


@pytest.fixture(scope="module")
def incident() -> psod.Fleet:
    return psod.load(DATA / "incident-2014-05-31")


def test_every_crash_has_its_reasons(incident: psod.Fleet) -> None:
    assert set(incident.reasons.crash_id) == set(incident.crashes.crash_id)
    assert {"signature", "suspect", "known_issue"} <= set(incident.reasons.about)
    suspects = incident.reasons[incident.reasons.about == "suspect"]
    assert suspects.module.iloc[0] == incident.crashes.guilty_module.iloc[0] == "hpsa"


def test_reasons_and_texts_are_saved_and_stored(incident: psod.Fleet, tmp_path: Path) -> None:
    saved = psod.Fleet.open(incident.save(tmp_path / "saved"))
    stored = psod.load(DATA / "incident-2014-05-31", store=tmp_path / "store")
    whole = incident.crash("75b6")
    for fleet in (saved, stored, psod.Fleet.open(tmp_path / "store")):
        assert fleet.reasons.equals(incident.reasons) and fleet.texts.equals(incident.texts)
        assert fleet.crash("75b6") == whole
        assert psod.explain(fleet.crash("75b6")) == psod.explain(whole)
    (tmp_path / "saved/reasons.parquet").unlink()  # a fleet saved before there were any
    assert psod.Fleet.open(tmp_path / "saved").reasons.empty


def test_a_crash_of_the_tables_is_the_crash_of_its_text(incident: psod.Fleet) -> None:
    crash = incident.crash(incident.crashes.crash_id[0])
    alone = psod.parse_crashes(crash.text)[0]
    assert (crash.signature, crash.guilty_module, crash.frames) == (alone.signature, alone.guilty_module, alone.frames)
    assert crash.sha256 == alone.sha256 and crash.uptime == alone.uptime and crash.ip == alone.ip
    with pytest.raises(psod.InputError, match="0 crashes have an id"):
        incident.crash("nonsense")


def test_an_own_known_issue_is_a_reason_too(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[[issue]]\nid = "OURS-1"\ntitle = "our case"\nmodule = "hpsa"\nstack = ["hpsa_scan_start"]\n'
                   'remedy = "call us"\nsource = "us"\nsure = "reported"\n')  # fmt: skip
    fleet = psod.load(DATA / "incident-2014-05-31", known_issues=own)
    assert "OURS-1" in fleet.crashes.known_issues[0]
    assert "OURS-1 (reported): our case" in psod.explain(fleet.crash("75b6"))


def test_verify_and_compliance_judge_alike(tmp_path: Path) -> None:
    """Two readings of one boot that contradict each other are no proof that the pin runs."""
    host = tmp_path / "esx1"
    (host / "commands").mkdir(parents=True)
    (host / "commands/cat_procscsihpsa0.txt").write_text(PROC)
    (host / "commands/vmkload_mod_-s-hpsa.txt").write_text(
        "vmkload_mod module information\n input file: /usr/lib/vmware/vmkmod/hpsa\n Version: 5.5.0.50-1OEM\n"
    )
    (host / "commands/uptime.txt").write_text(" 12:00:00 up 5 days, 03:00:00, load average: 0.01, 0.01, 0.01\n")
    (host / "commands/date.txt").write_text("Sat May 31 12:00:00 UTC 2014\n")
    items = [item for item in iter_items(host) if isinstance(item, Item)]
    readings = [driver for item in items for reading in read_item(item) for driver in reading.drivers]
    version, evidence, waiting = pin._judge([one for one in readings if one.module == "hpsa" and one.version])
    table = psod.fleet_compliance(psod.load(tmp_path), "hpsa", "5.5.0.58")
    assert evidence == "conflict" == table.driver_evidence[0]
    assert status(version, evidence, waiting, False, pin="5.5.0.58") == table.status[0] == "unknown"
