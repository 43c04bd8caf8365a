"""Each story, written in its release's words, loads back as what truly happened."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import psodlib as psod
from psodlib.cli import app
from psodlib.errors import InputError
from psodlib.simulate import History, simulate_fleet
from psodlib.simulate.stories import _stories, story_named

FLEET = {"hosts": 12, "days": 200, "clusters": 6, "seed": 11, "driver_rate": 1.5, "background_rate": 0.6, "gaps_per_host": 0.0,
         "rotation_loss": 0.0, "truncated": 0.0, "bundles": 0.2, "no_dump": 0.0, "cut_dump": 0.0}  # fmt: skip
Told = tuple[str, History, psod.Fleet]


@pytest.fixture(scope="module", params=_stories())
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Told:
    out = tmp_path_factory.mktemp(request.param) / "fleet"
    history = simulate_fleet(out, story=request.param, **FLEET)
    return request.param, history, psod.load(out, inventory=out / "inventory.csv", jobs=1)


def test_every_crash_is_found_at_its_time_with_its_culprit(told: Told) -> None:
    _, history, fleet = told
    found = fleet.crashes.set_index(["host", "time"])
    for crash in history.crashes.itertuples():
        row = found.loc[(crash.host, crash.time)]
        assert row["kind"] == crash.kind
        wanted = crash.module if crash.attributed and isinstance(crash.module, str) else None
        assert (row["guilty_module"] if pd.notna(row["guilty_module"]) else None) == wanted
    assert len(found) == len(history.crashes) and history.crashes["driver"].sum() > 15


def test_each_crash_knows_the_driver_version_of_its_boot(told: Told) -> None:
    _, history, fleet = told
    found = fleet.crashes.set_index(["host", "time"])["driver_version"]
    true = history.crashes[history.crashes["driver"] & history.crashes["attributed"]]
    said = [found[(crash.host, crash.time)] for crash in true.itertuples()]
    assert said == true["version"].tolist()


def test_host_days_of_each_version_are_the_true_ones(told: Told) -> None:
    _, history, fleet = told
    found = psod.exposure(fleet, history.story.module)
    true = history.exposure()
    sums = [table.groupby("version", observed=True)["host_days"].sum() for table in (found, true)]
    assert set(sums[0].index) == set(sums[1].index) == set(history.story.versions)
    # A heartbeat an hour, a boot and a stop: an hour or two a boot is all that evidence may miss.
    missing = (sums[1] - sums[0].reindex(sums[1].index)) / sums[1]
    assert np.all(missing.abs() < 0.02), missing
    assert found["crashes"].sum() == (history.crashes["driver"] & history.crashes["attributed"]).sum()


def test_hosts_tell_their_release_and_their_hardware(told: Told) -> None:
    name, history, fleet = told
    story = story_named(name)
    last = history.boots.groupby("host").last()
    hosts = fleet.hosts.set_index("host")
    for host in history.boots["host"].unique():
        assert hosts.loc[host, "esxi_build"] == last.loc[host, "esxi_build"]
        assert hosts.loc[host, "esxi_version"] == story.build(last.loc[host, "esxi_build"]).version
        assert hosts.loc[host, "model"] in story.models and hosts.loc[host, "vendor"] == story.maker


def test_firmware_is_read_from_the_commands(told: Told) -> None:
    name, history, fleet = told
    drivers = fleet.drivers[(fleet.drivers["module"] == history.story.module) & fleet.drivers["firmware"].notna()]
    last = history.boots.groupby("host")["firmware"].last()
    assert set(drivers["host"]) == set(last.index)
    read = drivers.sort_values("observed_at", kind="stable").groupby("host")["firmware"]
    assert dict(read.last().items()) == last.to_dict()
    if name == "firmware":
        seen = history.boots.groupby("host")["firmware"].nunique()
        assert (seen > 1).sum() > 8  # and the captures before a change tell what ran before
        both = read.nunique()
        assert (both > 1).sum() > 4 and (both <= seen.reindex(both.index)).all()


def test_truth_holds_the_rates_of_the_steps(tmp_path: Path) -> None:
    simulate_fleet(tmp_path / "fleet", story="firmware", **FLEET)
    rates = pd.read_csv(tmp_path / "fleet" / "truth" / "rates.csv").set_index("firmware")
    steps = [step.firmware for step in story_named("firmware").steps]
    assert rates.loc[steps, "driver_rate"].tolist() == [1.5, 4.5, 1.5]


def test_lines_are_in_the_release_s_words(tmp_path: Path) -> None:
    heads = {"hpsa": r"cpu\d+:\d+\)", "nhpsa": r"cpu\d+:\d+\)", "i40en": r"cpu\d+:\d+\)",
             "smartpqi": r"(?:In\(182\) vmkernel|Wa\(180\) vmkwarning): cpu\d+:\d+\)"}  # fmt: skip
    marks = {"hpsa": r"heartbeat: ", "nhpsa": r"heartbeat: ", "i40en": r"heartbeat\[\d+\]: "}
    marks["smartpqi"] = r"In\(14\) heartbeat\[\d+\]: "
    for name, head in heads.items():
        simulate_fleet(tmp_path / name, story=name, **{**FLEET, "hosts": 2, "clusters": 1, "bundles": 0.0})
        log = (tmp_path / name / "esx001/var/log/vmkernel.log").read_text().splitlines()
        assert log and all(re.match(r"\S+Z " + head, line) for line in log), name
        assert re.search(f"Z {marks[name]}up ", (tmp_path / name / "esx001/var/log/vmksummary.log").read_text()), name


def test_an_unknown_story_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no story 'hspa'; expected one of hpsa, nhpsa"):
        simulate_fleet(tmp_path / "out", story="hspa")
    assert not (tmp_path / "out").exists()


def test_the_command_line_tells_a_story(tmp_path: Path) -> None:
    words = ["simulate", str(tmp_path / "made"), "--hosts", "2", "--days", "20", "--story", "i40en"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "Driver: i40en" in "".join(file.read_text() for file in (tmp_path / "made").rglob("*nic-get*"))
    assert CliRunner().invoke(app, ["simulate", str(tmp_path / "other"), "--story", "i41en"]).exit_code != 0
