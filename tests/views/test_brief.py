"""The brief's orders: verdict, advice, orders and what is forbidden never contradict each other, whatever the story."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from prose import rule
from views import hand_made

from psodlib import schema
from psodlib.fleet import Fleet
from psodlib.views import brief as said
from psodlib.views import charts
from psodlib.views.document import to_markdown
from psodlib.views.study import Study, still_needed, study
from psodlib.views.writeup import choose_crash


def story(rates: dict[str, float], hosts: int = 40, days: int = 400, seed: int = 1) -> Fleet:
    """A fleet whose hosts run one version each, crashing at these rates a year."""
    rng = np.random.default_rng(seed)
    whole = hand_made.fleet(hosts=hosts, crashing=0)
    like = hand_made.fleet(hosts=1, crashing=1).crashes.iloc[0].to_dict()
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("crashes", "uptimes", "drivers", "coverage")}
    over = hand_made.START + days * hand_made.DAY
    for number in range(hosts):
        host, version = f"esx{number:02d}", list(rates)[number % len(rates)]
        waits = np.cumsum(rng.exponential(365 / max(rates[version], 1e-9), 40))
        stops = [hand_made.START + float(day) * hand_made.DAY for day in waits if day < days]
        boot = hand_made.START
        for step, end in enumerate([*stops, over]):
            crash_id = f"c{number:07d}{step:08d}" if end != over else None
            span = {"host": host, "boot": boot, "source": "vmksummary.log", "evidence": "banner"}
            rows["uptimes"].append({**span, "end": end, "uptime": end - boot, "observed": end - boot, "crash_id": crash_id,
                                    "end_reason": "crash" if crash_id else "running"})  # fmt: skip
            rows["coverage"].append({"host": host, "boot": boot, "start": boot, "end": end})
            rows["drivers"].append(
                {**span, "module": "hpsa", "version": version, "state": "loaded", "observed_at": boot, "line": 1}
            )
            if crash_id:
                rows["crashes"].append(
                    {**like, "crash_id": crash_id, "host": host, "time": end, "driver_version": version}
                )
            boot = end + pd.Timedelta(minutes=14)
    clusters = [f"cluster{number // 8}" for number in range(hosts)]
    tables = {name: schema.build(name, entries) for name, entries in rows.items()}
    return Fleet(hosts=whole.hosts.assign(cluster=clusters), **tables, simulated=True)


STORIES = {
    "three times as bad": {"5.5.0.50": 0.5, "5.5.0.58": 2.5},
    "the newer one is bad": {"5.5.0.50": 0.4, "5.5.0.60": 3.0},
    "all alike": {"5.5.0.50": 1.0, "5.5.0.58": 1.0, "5.5.0.60": 1.0},
    "one of three": {"5.5.0.50": 0.3, "5.5.0.58": 3.0, "5.5.0.60": 0.3},
    "no crash": {"5.5.0.50": 0.0, "5.5.0.60": 0.0},
    "one version": {"5.5.0.58": 2.0},
    "oem tails": {"5.5.0.50": 0.5, "5.5.0.84": 4.0, "5.5.0.124": 0.5},
}


@cache
def studied(name: str, seed: int = 1) -> Study:
    """A story with what a study says of it; several tests look at the same."""
    return study(story(STORIES[name], seed=seed), "hpsa")


@pytest.fixture(scope="module", params=[(name, seed) for name in STORIES for seed in (1, 2)], ids=str)
def told(request: pytest.FixtureRequest) -> Study:
    return studied(*request.param)


def test_verdict_advice_and_orders_agree(told: Study) -> None:
    decision = told.decision
    page = to_markdown(said.brief(told))
    if decision is None:
        assert "| Owner |" not in page and told.why_none
        return
    options = decision.options.set_index("version")
    moved = set(options.index[options["advice"].isin(["move_now", "next_reboot"])])
    assert set(decision.avoid) == moved and set(decision.moves["from_version"]) <= moved
    assert options.loc[decision.best, "advice"] == "keep" and decision.best not in moved
    verdict = said.verdict(told)
    for version in options.index:
        ordered = f" on hpsa {version} " in verdict and f" to {decision.best}" in verdict
        assert ordered == (version in moved and options.loc[version, "hosts_now"] > 0)
    orders = " ".join(to_markdown(said.Document(title="", sections=[said.Section("x", said.orders(told))])).split())
    hosts = set(re.findall(r"esx\d\d", orders))
    assert hosts <= set(decision.moves["host"])
    forbidden = " ".join(said.forbidden(told))
    for version in moved:
        assert f"install hpsa {version}" in forbidden or "," in forbidden or " and " in forbidden
        assert f"move hosts off {version} because" not in forbidden
    if decision.pin:
        assert verdict.startswith(f"Standardise on hpsa {decision.pin}.") and "the standard yet" not in forbidden
    else:
        assert "Standardise" not in verdict
    assert sum(int(n) for n in options["hosts_now"]) == len(told.fleet.hosts)


def test_the_chart_and_the_page_give_the_same_advice(told: Study) -> None:
    chart = charts.plot_options(told.decision)
    table, (title, _, _) = charts.numbers(chart), charts.wording(chart)
    plt.close(chart.figure)
    if told.decision is None:
        assert table.empty and "nothing to choose" in title
        return
    assert dict(zip(table["version"], table["advice"], strict=True)) == {
        row.version: str(row.advice) for row in told.decision.options.itertuples()
    }
    assert ("change nothing" in title) == told.decision.moves.empty


def test_a_bad_version_is_left_and_a_true_tie_is_not_called_proven() -> None:
    bad = studied("three times as bad")
    assert bad.decision and bad.decision.avoid == ("5.5.0.58",) and bad.decision.moves["cluster"].nunique() == 5
    tie = studied("all alike")
    assert tie.decision and tie.decision.pin is None


def test_the_most_urgent_moves_come_first_and_a_lower_measured_rate_is_explained(told: Study) -> None:
    if told.decision is None:
        return
    verdict, options = said.verdict(told), told.decision.options.set_index("version")
    if " now." in verdict and "next planned reboot" in verdict:
        assert verdict.index(" now.") < verdict.index("next planned reboot")
    lower = options["rate"].astype(float).idxmin() != told.decision.best
    assert ("has the lowest measured rate" in str(said.versions(told).note)) == lower


def test_many_crashes_on_one_version_are_one_story_with_a_rate_and_what_goes_with_them() -> None:
    found = studied("one version")
    page = " ".join(to_markdown(said.brief(found)).split())
    assert f"# {found.counts.module} crashes by hpsa: what they are" in page and "per host-year (95 % interval" in page
    assert "tested " in page and "Collect the hosts that did not crash" not in page


def test_a_page_of_many_orders_leaves_the_picture_out() -> None:
    whole = studied("three times as bad")
    assert whole.decision is not None
    moves = pd.concat([whole.decision.moves.assign(cluster=f"c{n}") for n in range(12)])
    crowded = replace(whole, decision=replace(whole.decision, moves=moves))
    picture = said.Text("the picture")
    assert "the picture" in to_markdown(said.brief(whole, [picture]))
    assert "the picture" not in to_markdown(said.brief(crowded, [picture]))


def test_the_pace_of_thousands_of_hosts_is_more_than_a_span_can_hold() -> None:
    # 64 bits of nanoseconds are 292 years.
    found = studied("all alike")
    large = still_needed(found.decision, pd.concat([found.exposure] * 400, ignore_index=True))
    assert large["per_week"].tolist() == pytest.approx((400 * found.needed["per_week"]).tolist())


def test_the_thresholds_shown_are_those_of_the_rule() -> None:
    table = rule()
    assert [row[1] for row in table.rows] == ["at least 95 %", "at least 80 %", "at least 60 %", "less"]


def test_blank_places_for_owner_and_date_are_printed() -> None:
    page = to_markdown(said.brief(studied("three times as bad")))
    assert "| Owner | Date |" in page and page.count(r"\_" * 8) == 10


def test_user_hours_need_users_that_are_numbers() -> None:
    fleet = studied("three times as bad").fleet
    lines = [
        " ".join(said.worth(study(replace(fleet, hosts=fleet.hosts.assign(users=users)), "hpsa")))
        for users in (40, "many")
    ]
    assert "user-hours (" in lines[0] and "Hours of users cannot be given" in lines[1] and "user-hours" not in lines[1]


def test_of_crashes_of_many_causes_no_driver_is_called_the_one() -> None:
    found = study(hand_made.strangers())
    page = to_markdown(said.brief(found, [], "c0"))
    assert page.startswith("# 3 crashes, and no driver stands out")
    assert "2 crashes blame 2 modules, 1 name none; none is blamed twice" in said.verdict(found)
    assert all(f"| {module} | 1 |" in page for module in ("i40en", "lpfc", "none found"))
    asked = found.fleet.crashes.assign(guilt=["on_stack", "on_stack", "hardware"])
    hardware = study(replace(found.fleet, crashes=asked.astype(found.fleet.crashes.dtypes)))
    assert "2 modules, 1 by hardware errors; none" in said.verdict(hardware)
    nobody = study(
        replace(found.fleet, crashes=asked.assign(guilty_module=pd.array([None] * 3, dtype="string"), guilt="none"))
    )
    assert said.verdict(nobody).startswith("No driver stands out: 3 name none. Change no driver")
    assert "| hardware error | 1 |" in to_markdown(said.brief(hardware))
    assert found.exposure.attrs["why"].startswith("it and 1 other caused most crashes (1 crash, 0 versions)")
    twice = hand_made.strangers()
    rows = pd.concat([twice.crashes, twice.crashes.assign(crash_id="d" + twice.crashes["crash_id"]).iloc[[0, 0]]])
    rows["crash_id"] = [f"c{at}" for at in range(len(rows))]
    assert "The evidence points at i40en" in said.verdict(study(replace(twice, crashes=rows.reset_index(drop=True))))


def test_index_and_brief_speak_of_the_crash_that_is_written_up_and_not_of_a_test() -> None:
    whole = hand_made.fleet(hosts=2, crashing=2)
    asked = whole.crashes.iloc[[0]].assign(
        crash_id="asked", deliberate=True, driver_version=pd.NA, time=hand_made.START + 99 * hand_made.DAY
    )
    asked = asked.astype(whole.crashes.dtypes)
    fleet = replace(whole, crashes=pd.concat([whole.crashes, asked], ignore_index=True), drivers=whole.drivers.iloc[:0])
    found = study(fleet, "hpsa")
    assert found.decision is None and not said.no_driver_stands_out(found)
    crash = choose_crash(fleet, None, "hpsa")
    assert crash is not None and crash["crash_id"] != "asked"
    assert said.brief(found, [], str(crash["crash_id"])).lead == said.verdict(found)


def test_one_host_ranks_no_versions_and_is_told_what_its_crashes_are() -> None:
    fleet = story({"5.5.0.58": 9.0}, hosts=1)
    versions = ["5.5.0.58", *["5.5.0.50"] * (len(fleet.drivers) - 1)]
    drivers = fleet.drivers.assign(version=pd.array(versions, dtype=fleet.drivers["version"].dtype))
    found = study(replace(fleet, drivers=drivers), "hpsa")
    assert found.rates.index.nunique() == 2 and found.decision is None
    page = " ".join(to_markdown(said.brief(found)).split())
    assert "One host ranks no versions" in said.verdict(found) and "Change no" not in page
    assert "Only 5.5.0.50 and 5.5.0.58 were watched. Collect the hosts that did not crash" in page
    assert f"esx00 crashed {len(fleet.crashes)} times: have its hardware and firmware checked" in page


def test_a_page_without_a_move_says_what_to_do_about_the_crashes() -> None:
    alike = next(found for seed in range(1, 9) if (found := studied("all alike", seed)).decision.moves.empty)
    page = " ".join(to_markdown(said.brief(alike)).split())
    assert f"The {alike.counts.in_rates} crashes by hpsa go on meanwhile" in page and "with the moves above" not in page
    assert "go on meanwhile" not in to_markdown(said.brief(studied("no crash")))
    assert "go on meanwhile" not in to_markdown(said.brief(studied("three times as bad")))


def _asked(advice: dict[str, tuple[str, float]]) -> Study:
    # The three versions of a story with this advice and these chances.
    whole = studied("one of three")
    assert whole.decision is not None
    options = whole.decision.options.copy()
    options["advice"] = pd.Categorical(
        [advice[name][0] for name in options["version"]], options["advice"].cat.categories
    )
    options["p_worse"] = [advice[name][1] for name in options["version"]]
    return replace(whole, decision=replace(whole.decision, options=options, best="5.5.0.50", pin=None))


def test_orders_to_one_place_are_one_sentence_and_planned_reboots_cost_none() -> None:
    waits = _asked({"5.5.0.50": ("keep", 0.0), "5.5.0.58": ("next_reboot", 0.9), "5.5.0.60": ("next_reboot", 0.85)})
    hosts = waits.decision.options.set_index("version")["hosts_now"] if waits.decision else {}
    both = [f"the {hosts[name]} hosts on hpsa {name}" for name in ("5.5.0.58", "5.5.0.60")]
    assert f"At their next planned reboot, move {both[0]} and {both[1]} to 5.5.0.50." in said.verdict(waits)
    assert "Do not install hpsa 5.5.0.58 or 5.5.0.60 on any further host." in said.forbidden(waits)
    assert "No host reboots for it alone" in said.worth(waits)[-1]
    now = _asked({"5.5.0.50": ("keep", 0.0), "5.5.0.58": ("move_now", 0.99), "5.5.0.60": ("next_reboot", 0.85)})
    assert f"It costs {hosts['5.5.0.58']} reboots beside those that are planned" in said.worth(now)[-1]


def test_nobody_is_told_to_leave_hosts_that_no_version_has() -> None:
    found = _asked({"5.5.0.50": ("keep", 0.0), "5.5.0.58": ("leave", 0.5), "5.5.0.60": ("leave", 0.5)})
    assert "Leave hosts on 5.5.0.58 and 5.5.0.60 where they are" in said.verdict(found)
    assert found.decision is not None
    options = found.decision.options.assign(hosts_now=[40, 0, 0])
    gone = replace(found, decision=replace(found.decision, options=options))
    assert "Leave hosts" not in said.verdict(gone)


def test_a_driver_that_crashed_nobody_is_not_called_open_and_other_causes_are_named() -> None:
    quiet = studied("no crash")
    assert said.verdict(quiet) == "Change no hpsa driver: no crash was caused by it."
    asked = hand_made.fleet(hosts=3, crashing=3).crashes.assign(deliberate=True)
    page = said.verdict(study(replace(quiet.fleet, crashes=asked), "hpsa"))
    assert page.endswith("Most crashes have another cause: hpsa caused none of 3.")
    assert "another cause" not in said.verdict(studied("three times as bad"))


def test_moves_that_rest_on_a_crash_or_two_say_so_and_a_version_barely_tried_is_named() -> None:
    found = _asked({"5.5.0.50": ("keep", 0.0), "5.5.0.58": ("next_reboot", 0.9), "5.5.0.60": ("leave", 0.5)})
    assert found.decision is not None
    few = replace(found)
    few.counts.in_rates = 2
    assert "These moves rest on 2 crashes alone" in str(said.orders(few)[-1]) and "rest on" not in str(
        said.orders(found)
    )
    options = found.decision.options
    assert "barely tried" not in said.versions(found).note
    new = options["version"] == "5.5.0.50"
    thin = options.assign(crashes=options["crashes"].mask(new, 0), high=options["high"].mask(new, 9.0))
    note = said.versions(replace(found, decision=replace(found.decision, options=thin))).note
    assert note.startswith("5.5.0.50 is barely tried: 9.0 crashes per host-year are still possible.")


def test_where_no_version_is_known_the_page_asks_for_what_names_it() -> None:
    found = studied("three times as bad")
    page = to_markdown(said.brief(study(replace(found.fleet, drivers=found.fleet.drivers.iloc[:0]), "hpsa")))
    assert "they name it" in page and "hosts that did not crash" not in page


def test_the_shorter_way_to_tell_two_versions_apart_is_the_one_said() -> None:
    found = _asked({"5.5.0.50": ("keep", 0.0), "5.5.0.58": ("move_now", 0.99), "5.5.0.60": ("next_reboot", 0.9497)})
    needed = pd.DataFrame({"version": ["5.5.0.50", "5.5.0.58", "5.5.0.60"], "host_days": 9.0, "needed": [1519.0, 0.0, 141587.0],
                           "per_week": 9.0, "weeks": [1.0, 0.0, 220.0]})  # fmt: skip
    found.__dict__["needed"] = needed.astype({"version": "string", "needed": "Float64", "weeks": "Float64"})
    page = to_markdown(said.Document(title="", sections=[said.Section("x", said.open_questions(found))]))
    assert "| about 1,500 host-days on 5.5.0.50 | 1 week |" in page and "| 94 % |" in page and "141" not in page
    assert "waiting for proof would take about 1 week and" in said.worth(found)[-1]


def test_the_chart_and_the_table_say_one_chance_alike() -> None:
    found = studied("three times as bad")
    assert found.decision is not None
    chart = charts.plot_options(found.decision)
    labels = " ".join(label.get_text() for label in chart.get_yticklabels())
    plt.close(chart.figure)
    (bad,) = [row for row in said.versions(found).rows if row[0] == "5.5.0.58"]
    assert f"({bad[-1].replace('over ', '>')})" in labels


def test_other_drivers_whose_versions_differ_are_named() -> None:
    fleet = studied("three times as bad").fleet
    other = {"module": "lpfc", "version": ["1.0"] * 9 + ["2.0"] * (len(fleet.drivers) - 9)}
    drivers = pd.concat([fleet.drivers, fleet.drivers.assign(**other)], ignore_index=True).astype(fleet.drivers.dtypes)
    blamed = fleet.crashes["guilty_module"].where(fleet.crashes.index > 2, "lpfc")
    found = study(replace(fleet, drivers=drivers, crashes=fleet.crashes.assign(guilty_module=blamed)))
    page = " ".join(to_markdown(said.brief(found)).split())
    assert found.module == "hpsa" and "Not weighed on this page: lpfc (3 crashes, 2 versions)." in page


def test_a_version_that_crashed_beside_one_that_never_did_is_at_least_so_many_times_as_bad() -> None:
    found = study(story({"5.5.0.50": 0.0, "5.5.0.58": 2.5}), "hpsa")
    (row,) = said.league(found).rows
    assert re.fullmatch(r"5\.5\.0\.58: at least [\d.]+ times 5\.5\.0\.50", str(row[5]))
