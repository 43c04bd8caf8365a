"""A roll-out on paper: the word and its reasons, the commands, the chart of its waves."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import rollouts

import psodlib as psod
from psodlib.risk.rollout import plan_rollout
from psodlib.risk.rollout_watch import watch_rollout
from psodlib.views.charts import numbers
from psodlib.views.document import Section
from psodlib.views.rollout import offer, plan_blocks, plan_steps, rollout_state
from psodlib.views.study import study

HOSTILE = "<script>alert(1)</script>$x^2$"


@pytest.fixture(scope="module")
def bad():
    return rollouts.lived_through("bad")


def page(blocks):
    return Section("", blocks)._repr_html_()


def test_a_bad_version_is_stopped_and_the_page_says_who_goes_back(bad):
    assert bad.last.word == "stop" and bad.words["the watch says"].tolist()[-1] == "stop"
    html = page(rollout_state(bad.last))
    assert "Stop: the new version is worse" in html and "Who goes back, in this order" in html
    assert all(host in html for host in bad.last.go_back["host"]) and "What the roll-out did" not in html
    assert bad.last._repr_html_() == html


def test_only_the_oldest_hardware_stops_no_version():
    seeming = rollouts.lived_through("only looks bad")
    assert "stop" not in set(seeming.words["the watch says"])
    assert "What the roll-out did" in page(rollout_state(seeming.last))
    first = seeming.words["bare counts say"].iloc[0]
    assert float(re.findall(r"\(([\d.]+)", first)[0]) > 1  # bare counts are sure that it is worse


def test_the_chart_counts_what_the_watch_counted(bad):
    ax = psod.plot_waves(bad.last, simulated=True)
    table = numbers(ax)
    assert table["crashes"].sum() == bad.last.weeks["crashes"].sum() and table["hosts"].iloc[-1] == len(
        bad.last.go_back
    )
    assert ax.get_title(loc="left").startswith(f"Stop: {bad.last.judged.crashes} crashes on 2.0.7.0")
    drawn = {line.get_gid() for line in ax.lines}
    assert "e_value" in drawn
    empty = psod.plot_waves(replace(bad.last, weeks=bad.last.weeks.iloc[:0]))
    assert "not begun" in empty.get_title(loc="left")


def test_the_dry_run_stands_before_the_installation(bad):
    text = "\n".join(map(str, plan_steps(bad.plan)))
    commands = [line for line in text.split("\n") if "vib install" in line]
    assert "--dry-run" in commands[0] and "--dry-run" not in commands[1]


def test_hostile_names_stay_text(bad):
    plan = replace(bad.plan, notes=(HOSTILE,), waves=bad.plan.waves.assign(host=HOSTILE))
    last = replace(bad.last, sentence=HOSTILE, go_back=bad.last.go_back.assign(host=HOSTILE, cluster=HOSTILE))
    html = page([*plan_blocks(plan), *plan_steps(plan), *rollout_state(last)])
    assert "<script" not in html and "$x^2$" not in html


def test_where_nothing_can_be_planned_a_sentence_says_why():
    fleet = rollouts._fleet("good", 60, None)
    plan, why = offer(study(fleet, "i40en"))
    assert plan is None and "nothing to choose between" in why
    assert offer(study(fleet, "i40en"), "no version")[0] is None
    plan, why = offer(study(fleet, "i40en"), "2.0.7.0")
    assert plan is not None and not why
    assert watch_rollout(fleet, plan).word == "go_on"  # not begun yet
    assert plan_rollout(fleet, "i40en", "2.0.7.0").to_toml() == plan.to_toml()
