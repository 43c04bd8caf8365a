"""Fleets with little in them: no crash, one crash, no time, only crashed hosts, very many hosts. What is said must still be true."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import nbformat
import pandas as pd
import pytest
from prose import describe_fleet, table_of
from views import hand_made
from views.serving import run_notebook

from psodlib.fleet import Fleet
from psodlib.views import charts
from psodlib.views.document import to_html
from psodlib.views.explore import explorer_data, explorer_document
from psodlib.views.study import study, unheard, unknowns
from psodlib.views.words import label
from psodlib.views.writeup import choose_crash, write_up

UNTIMED = "esx00"


@pytest.fixture(scope="module")
def untimed() -> Fleet:
    """One crash, known from a screen's text without a stamp: no boot, no driver, no time, no inventory."""
    whole = hand_made.fleet(hosts=1, crashing=1, simulated=False)
    never = pd.Series(pd.NaT, index=whole.hosts.index, dtype=whole.hosts["first_seen"].dtype)
    crashes = whole.crashes.assign(time=never, driver_version=pd.Series(pd.NA, index=never.index, dtype="string"))
    hosts = whole.hosts.assign(first_seen=never, last_seen=never).drop(columns=["cluster", "users", "vms"])
    return Fleet(hosts=hosts, crashes=crashes, frames=whole.frames)


def test_charts_follow_one_that_shows_nothing(tmp_path: Any) -> None:
    cells = [nbformat.v4.new_code_cell("a = 1", metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell("import pandas as pd, psodlib as psod\nnone = pd.DataFrame({'time': pd.to_datetime([], utc=True)})")]  # fmt: skip
    cells += [nbformat.v4.new_code_cell("psod.plot_incident(none);") for _ in range(2)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "two.ipynb")
    ran = run_notebook(tmp_path / "two.ipynb")
    pictures = [[o for o in cell.outputs if "image/png" in o.get("data", {})] for cell in ran.cells[2:]]
    assert [len(found) for found in pictures] == [1, 1]


def test_a_host_with_an_undated_crash_is_not_called_silent(untimed: Fleet) -> None:
    assert unheard(untimed) == []
    said = str(describe_fleet(untimed))
    assert "left no evidence" not in said and "unknown to unknown" not in said
    assert "No boot is known" in said
    assert not any("left no evidence" in line for line in unknowns(study(untimed)))


def test_an_undated_crash_says_so(untimed: Fleet) -> None:
    document = write_up(untimed, choose_crash(untimed))
    assert document.title == f"Crash of {UNTIMED}, time unknown"
    assert "evidence points to hpsa (version unknown)." in document.lead
    page = to_html(explorer_document(untimed, "hpsa"))
    assert "version unknown" in page and "No other crash has this signature." in page


def test_the_lives_of_very_many_hosts_add_up() -> None:
    # More than the 292 years that a Timedelta holds.
    fleet = hand_made.fleet(hosts=2, crashing=0)
    boots = pd.concat([fleet.uptimes] * 400, ignore_index=True)
    days = (boots["uptime"] / pd.Timedelta(days=1)).sum()
    assert f"1,600 boots in {days:,.0f} host-days of life" in str(
        describe_fleet(Fleet(hosts=fleet.hosts, uptimes=boots))
    )


@pytest.mark.parametrize(("crashing", "warned"), [(6, True), (5, False)])
def test_a_fleet_of_crashed_hosts_alone_is_warned_of(crashing: int, warned: bool) -> None:
    lines = unknowns(study(hand_made.fleet(hosts=6, crashing=crashing)))
    assert any("All 6 hosts in the evidence crashed" in line for line in lines) == warned


def test_hosts_that_were_chosen_by_their_crashes_decide_nothing() -> None:
    whole = hand_made.fleet(hosts=24, crashing=24)
    assert study(hand_made.fleet(hosts=24, crashing=20)).decision is not None
    # Half of them by another cause: no rate of the driver shows it, and still nobody knows who did not crash.
    other = whole.crashes["guilty_module"].where(whole.crashes.index % 2 == 0, "bnx2x")
    found = study(replace(whole, crashes=whole.crashes.assign(guilty_module=other)), "hpsa")
    assert found.decision is None and "only hosts that crashed" in found.why_none
    asked = study(
        replace(whole, crashes=whole.crashes.assign(guilty_module=other, deliberate=other == "bnx2x")), "hpsa"
    )
    assert asked.decision is not None


def test_without_a_crash_no_ratio_is_drawn() -> None:
    quiet = study(hand_made.fleet(hosts=12, crashing=0))
    assert quiet.decision
    title, _, inside = charts.wording(charts.plot_ratio(quiet.decision.ratios))
    assert title == "Nothing can be said of any ratio yet" and "no ratio" in inside


def test_the_timeline_begins_with_the_boot_that_crashed() -> None:
    fleet = hand_made.fleet(hosts=1, crashing=1)
    hosts = fleet.hosts.assign(first_seen=fleet.crashes["time"].iloc[0], last_seen=fleet.crashes["time"].iloc[0])
    boots = fleet.uptimes.head(1)
    data = explorer_data(Fleet(hosts=hosts, crashes=fleet.crashes, uptimes=boots, drivers=fleet.drivers), "hpsa")
    ((boot,),) = data["boots"].values()
    assert data["span"] == [boot["start"], boot["end"]]


def test_a_long_name_keeps_both_ends() -> None:
    name = f"esx-{'very-' * 300}long.example"
    assert (
        label(name, 24).startswith("esx-very") and label(name, 24).endswith("ng.example") and len(label(name, 24)) <= 24
    )


def test_an_empty_table_is_said() -> None:
    assert repr(table_of(pd.DataFrame({"host": []}))) == "Nothing to show: no row."


def test_an_undated_crash_is_not_called_nothing(untimed: Fleet) -> None:
    title, _, inside = charts.wording(charts.plot_ascertainment(untimed.crashes, untimed.uptimes, untimed.coverage))
    assert title == "No stop has a known time" and inside


def test_many_versions_leave_the_hazard_readable() -> None:
    bands = ["0-7", "7-15"]
    rows = [
        {"version": f"1.{n}", "uptime": band, "crashes": n, "host_days": 100.0, "rate": n / 100, "low": n / 200, "high": n / 50}
        for n in range(12) for band in bands
    ]  # fmt: skip
    ax = charts.plot_hazard(pd.DataFrame(rows))
    shown = [text.get_text() for text in ax.get_legend().get_texts()]
    assert shown == ["1.7", "1.8", "1.9", "1.10", "1.11"]
    assert "7 versions with fewer crashes not drawn" in " ".join(charts.wording(ax)[1].split())
    assert len(charts.numbers(ax)) == 24


def test_a_table_breaks_hashes_and_keeps_times_whole() -> None:
    table = pd.DataFrame(
        {"hash": ["ab" * 32], "when": [pd.Timestamp("2014-05-31 15:57:32", tz="UTC")], "text": ["<wbr>"]}
    )
    shown = table_of(table)._repr_html_()
    assert re.search(rf'class="hash"[^>]*>{"ab" * 32}<', shown) and "&lt;wbr&gt;" in shown
    assert '<td class="whole">2014-05-31 15:57:32 UTC</td>' in shown


def test_crashes_without_a_time_or_a_host_are_not_counted_away(untimed: Fleet) -> None:
    whole = hand_made.fleet(hosts=3, crashing=3, simulated=False)
    times = whole.crashes["time"].where(whole.crashes.index < 1)
    crashes = whole.crashes.assign(time=times, host=whole.crashes["host"].where(whole.crashes.index < 0))
    title, caption, _ = charts.wording(charts.plot_ascertainment(crashes, untimed.uptimes, untimed.coverage))
    assert title.startswith("1 of 1 dated crash left a dump") and "Not drawn: 2 crashes without a time." in caption
    assert "0 hosts" not in caption and "0 hosts" not in charts.wording(charts.plot_modules(crashes))[1]


def test_a_crash_after_the_curves_end_is_not_denied() -> None:
    rows = [("5.5.0.58", day, risk, crashes, alive, 0.9 * alive, alive, 1 - alive)
            for day, risk, crashes, alive in ((1.0, 30, 0, 1.0), (60.0, 12, 0, 1.0), (130.0, 2, 1, 0.5))]  # fmt: skip
    names = ["version", "days", "at_risk", "crashes", "survival", "low", "high", "incidence"]
    title = charts.wording(charts.plot_survival(pd.DataFrame(rows, columns=names)))[0]
    assert title == "Within 60 days of uptime the driver crashed no boot; few were watched for longer"


def test_a_table_of_a_notebook_has_no_digits_that_nobody_knows() -> None:
    assert table_of(pd.DataFrame({"a": [13345.792629, 1.5, float("nan")]})).rows == [["13,346"], ["1.5"], ["unknown"]]


@pytest.mark.parametrize(
    ("ends", "title"), [([3] * 20, "100 % of 20 crashes fell at 0-7"), (range(6, 126, 6), "No uptime stands out")]
)
def test_a_band_of_uptime_stands_out_only_beyond_chance(ends: Any, title: str) -> None:
    rows = [(f"h{n}", end, 1) for n, end in enumerate(ends)] + [(f"q{n}", 120, 0) for n in range(20) if title[0] == "1"]
    table = pd.DataFrame(rows, columns=["host", "host_days", "crashes"])
    start = pd.Series([hand_made.START] * len(table))
    spans = {
        "start": start,
        "end": start + pd.to_timedelta(table["host_days"], unit="D"),
        "uptime_start": pd.Timedelta(0),
    }
    told = charts.plot_uptime_at_crash(table.assign(version="1", unknown_crashes=0, **spans))
    assert charts.wording(told)[0].startswith(title)


def test_evidence_from_after_today_is_a_doubt() -> None:
    whole = hand_made.fleet()
    ahead = whole.hosts["last_seen"].mask(whole.hosts.index == 0, pd.Timestamp("2093-01-02", tz="UTC"))
    lines = unknowns(study(replace(whole, hosts=whole.hosts.assign(last_seen=ahead)), "hpsa"))
    assert any("1 host has evidence from after today (until 2093-01-02)" in line for line in lines)
    assert not any("after today" in line for line in unknowns(study(whole, "hpsa")))
