"""Write-ups of crashes of every sort, read as a person reads them: what they say must fit the crash."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from conftest import DATA
from views import hand_made

import psodlib as psod
from psodlib.fleet import Fleet
from psodlib.triage.known_issues import load_issues
from psodlib.views.brief import brief
from psodlib.views.document import to_markdown, to_pdf
from psodlib.views.report import CHARTS, _picture
from psodlib.views.study import study
from psodlib.views.writeup import choose_crash, write_up


@pytest.fixture(scope="module")
def demo() -> Fleet:
    return psod.load(DATA / "demo-fleet", inventory=DATA / "inventory.csv", jobs=1)


def _words(fleet: Fleet, crash_id: str, go_to: str | None = None) -> str:
    text = to_markdown(write_up(fleet, choose_crash(fleet, crash_id), issues=load_issues(), go_to=go_to))
    assert not re.search(r"<NA>|\bNaT\b|\bnan\b|\bNone\b|Traceback", text), text
    return text.replace("\\", "")


def _first(fleet: Fleet, column: str, value: str) -> str:
    return str(fleet.crashes.loc[(fleet.crashes[column] == value).fillna(False), "crash_id"].iloc[0])


def test_a_hardware_error_accuses_no_driver(demo: Fleet) -> None:
    text = _words(demo, _first(demo, "guilt", "hardware"))
    assert "its message reports a hardware error, and the evidence points at no driver" in text
    assert "Certainty that hardware is at fault: strong" in text and "no root cause" not in text
    assert "esxcli hardware ipmi sel list" in text and "vib install" not in text
    assert "Which module is at fault" not in text and "run the same driver" not in text and "Its VIB" not in text


def test_a_crash_on_purpose_has_no_culprit(demo: Fleet) -> None:
    text = _words(demo, _first(demo, "guilt", "deliberate"))
    assert "a person asked for it" in text and "Nothing was at fault" in text and "Who asked for this crash" in text
    assert "open a support case" not in text and "Does the vendor know" not in text


def test_a_second_module_has_its_own_versions_and_commands(demo: Fleet) -> None:
    text = _words(demo, _first(demo, "guilty_module", "bnx2x"), go_to="1.78.80.v55.3")
    assert "From bnx2x 1.72.56.v55.2 to 1.78.80.v55.3" in text
    assert text.count("# esxcli system module get -m bnx2x | grep -i version") == 2
    assert "--dry-run" in text and "The name of the bundle with bnx2x 1.78.80.v55.3 is not in the evidence" in text
    assert "VIBs Removed: net-bnx2x" in text
    assert "hpsa" not in text.partition("## What to do")[2]


def test_a_known_bundle_needs_no_trial(demo: Fleet) -> None:
    crash = _first(demo, "known_issues", "KB2075978")
    assert "--dry-run" not in _words(demo, crash, go_to="5.5.0.50")


def test_the_time_between_crash_and_boot_is_told(demo: Fleet) -> None:
    text = _words(demo, _first(demo, "guilt", "hardware"))
    assert "The host was down for 20 min 57 s; meanwhile the dump was written and vSphere HA, where it is on," in text


def test_without_an_inventory_nobody_is_counted() -> None:
    fleet = hand_made.fleet()
    bare = Fleet(
        **{**fleet.tables, "hosts": fleet.hosts.drop(columns=["cluster", "users", "vms"])}, coverage=fleet.coverage
    )
    text = _words(bare, str(bare.crashes["crash_id"].iloc[0]))
    assert "How many users were hit cannot be said" in text and "The inventory lists" not in text


def test_the_brief_of_the_demo_fleet_is_exactly_two_pages(demo: Fleet, tmp_path: Path) -> None:
    (tmp_path / "charts").mkdir()
    found = study(demo)
    pictures = [_picture(chart, found, tmp_path) for chart in CHARTS if chart.in_brief]
    file = to_pdf(brief(found, pictures), tmp_path / "brief.pdf", "brief.typ")
    told = subprocess.run(["pdfinfo", str(file)], capture_output=True, text=True, check=True, timeout=30).stdout
    assert re.search(r"^Pages:\s+2$", told, re.MULTILINE)


def test_the_brief_of_the_incident_is_one_page_and_says_one_day_once(tmp_path: Path) -> None:
    # One host and one crash fill no second page; an empty one would be worse than none.
    fleet = psod.load(DATA / "incident-2014-05-31", jobs=1)
    file = to_pdf(brief(study(fleet), []), tmp_path / "brief.pdf", "brief.typ")
    told = subprocess.run(["pdfinfo", str(file)], capture_output=True, text=True, check=True, timeout=30).stdout
    assert re.search(r"^Pages:\s+1$", told, re.MULTILINE)
    read = subprocess.run(
        ["pdftotext", "-layout", str(file), "-"], capture_output=True, text=True, check=True, timeout=30
    )
    text = " ".join(read.stdout.split())
    assert "1 host, 2014-05-31; evidence" in text
    assert "The crash of incident-host: what it is, and what to do now" in text
    assert "Roll back to hpsa 5.5.0.50" in text and "ranks no versions" in text
