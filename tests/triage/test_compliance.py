"""Who runs the pinned version, and readings of one boot that contradict each other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pandas as pd
import pytest

from psodlib import schema
from psodlib.errors import InputError
from psodlib.triage.compliance import fleet_compliance, version_conflicts

BOOTS = ("01 00:00", "05 00:00", "09 00:00")
CRASHES = schema.build("crashes", [{"guilty_module": "hpsa"}])
STATES = {"vib_list": "installed", "vib_install": "installed"}


def at(text: str) -> datetime:
    """`04 10:30` -> that moment of May 2014."""
    return datetime.strptime(f"2014-05-{text}", "%Y-%m-%d %H:%M").replace(tzinfo=UTC)


def uptimes(*boots: str) -> pd.DataFrame:
    ends = {"host": "esx1", "end_reason": "reboot"}
    rows = [{"boot": at(boot), "end": at(boot) + timedelta(days=3), **ends} for boot in boots]
    rows[-1]["end_reason"] = "running"
    return schema.build("uptimes", rows)


def reading(evidence: str, time: str, version: str = "5.5.0.58", **more) -> dict:
    return {
        "host": "esx1", "module": "hpsa", "version": version, "state": STATES.get(evidence, "loaded"),
        "observed_at": at(time), "evidence": evidence, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("readings", "status"),
    [
        ([reading("proc", "09 01:00", "5.5.0.50")], "runs"),
        ([reading("proc", "09 01:00", "5.5.0.58")], "other"),
        (
            [reading("proc", "09 01:00", "5.5.0.58"), reading("vib_install", "09 02:00", "5.5.0.50")],
            "installed_not_booted",
        ),
        ([reading("proc", "09 01:00", "5.5.0.50"), reading("vib_install", "09 02:00", "5.5.0.60")], "about_to_drift"),
        ([reading("banner", "05 00:01", "5.5.0.50"), reading("banner", "09 00:01", "5.5.0.44")], "drifted_back"),
        ([], "unknown"),
        # A driver cannot change under a boot: who contradicts himself is not known to run the pin.
        ([reading("banner", "09 00:01", "5.5.0.50"), reading("proc", "09 01:00", "5.5.0.58")], "unknown"),
    ],
)
def test_compliance(readings, status):
    hosts = schema.build("hosts", [{"host": "esx1"}])
    drivers = schema.build("drivers", readings)
    fleet = SimpleNamespace(hosts=hosts, crashes=CRASHES, uptimes=uptimes(*BOOTS), drivers=drivers)
    assert list(fleet_compliance(fleet, "hpsa", "5.5.0.50")["status"]) == [status]


def test_a_host_without_evidence_is_unknown():
    hosts = schema.build("hosts", [{"host": "a"}, {"host": "esx1"}])
    fleet = SimpleNamespace(hosts=hosts, crashes=CRASHES, uptimes=uptimes(*BOOTS), drivers=schema.empty("drivers"))
    assert list(fleet_compliance(fleet, "hpsa", "5.5.0.50")["host"]) == ["a", "esx1"]
    assert set(fleet_compliance(fleet, "hpsa", "5.5.0.50")["status"]) == {"unknown"}


def test_the_pin_may_be_written_as_its_vib_is():
    hosts = schema.build("hosts", [{"host": "esx1"}])
    drivers = schema.build("drivers", [reading("proc", "09 01:00", "5.5.0.50")])
    fleet = SimpleNamespace(hosts=hosts, crashes=CRASHES, uptimes=uptimes(*BOOTS), drivers=drivers)
    assert list(fleet_compliance(fleet, "hpsa", "5.5.0.50-1OEM.550.0.0.1198611")["status"]) == ["runs"]


def test_a_module_that_the_evidence_does_not_know_is_refused():
    hosts, drivers = schema.build("hosts", [{"host": "esx1"}]), schema.build("drivers", [{"module": "lsi_mr3"}])
    fleet = SimpleNamespace(hosts=hosts, crashes=CRASHES, uptimes=uptimes(*BOOTS), drivers=drivers)
    with pytest.raises(InputError, match="no module 'hspa'; did you mean hpsa"):
        fleet_compliance(fleet, "hspa", "5.5.0.50")
    assert list(fleet_compliance(fleet, "hpsa", "5.5.0.50")["status"]) == ["unknown"]  # a crash names it


@pytest.mark.parametrize("pin", ["", "newest"])
def test_a_pin_that_is_no_version_is_an_error(pin):
    hosts = schema.build("hosts", [{"host": "esx1"}])
    fleet = SimpleNamespace(hosts=hosts, crashes=CRASHES, uptimes=uptimes(*BOOTS), drivers=schema.empty("drivers"))
    with pytest.raises(InputError, match="expected a version of hpsa"):
        fleet_compliance(fleet, "hpsa", pin)


def conflicts(*readings):
    drivers = schema.build("drivers", [{"source": f"file {i}", "line": i, **row} for i, row in enumerate(readings, 1)])
    return version_conflicts(uptimes(*BOOTS), drivers)


def test_two_loaded_versions_in_one_boot_are_a_problem_that_names_the_one_not_believed():
    (row,) = conflicts(reading("proc", "01 03:00", "5.5.0.50"), reading("banner", "01 00:01", "5.5.0.58"))
    assert (row["problem"], row["host"], row["source"], row["line"]) == ("version_conflict", "esx1", "file 1", 1)
    assert row["detail"].startswith("hpsa was read as 5.5.0.58 (banner) and as 5.5.0.50 (proc)")
    assert len(schema.build("problems", [row])) == 1


def test_what_is_no_contradiction():
    assert conflicts() == []
    # Another boot, an installed version beside a loaded one, another module, the same twice.
    assert conflicts(reading("banner", "01 00:01"), reading("banner", "05 00:01", "5.5.0.50")) == []
    assert conflicts(reading("banner", "01 00:01"), reading("vib_list", "01 05:00", "5.5.0.50")) == []
    assert conflicts(reading("banner", "01 00:01"), reading("banner", "01 00:01", "5.5.0.100", module="hpvsa")) == []
    assert conflicts(reading("banner", "01 00:01"), reading("proc", "01 05:00")) == []
