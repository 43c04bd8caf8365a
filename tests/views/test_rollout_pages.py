"""A roll-out on paper: the word and its reasons, the commands, the chart of its waves."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import pandas as pd
import pytest
import rollouts

import psodlib as psod
from psodlib.risk.rollout import plan_rollout
from psodlib.risk.rollout_watch import watch_rollout
from psodlib.views import brief as said
from psodlib.views.cells import plan_blocks, rollout_state
from psodlib.views.charts import numbers
from psodlib.views.document import Section, to_markdown, to_pdf
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
    text = "\n".join(map(str, rollouts.plan_steps(bad.plan)))
    commands = [line for line in text.split("\n") if "vib install" in line]
    assert "--dry-run" in commands[0] and "--dry-run" not in commands[1]


def test_the_brief_says_how_a_running_plan_stands_and_orders_nothing_against_it(bad):
    """The word and sentence of the watch lead; who goes back is an order; no host of the plan is ordered elsewhere."""
    plan, fleet = bad.plan, bad.fleet
    found = study(fleet, plan=plan, today=bad.last.at)
    page = " ".join(to_markdown(said.brief(found)).split())
    assert found.module == "i40en" and found.rollout.word == bad.last.word == "stop"
    assert said.verdict(found).startswith("Roll-out of i40en 2.0.7.0. Stop: ") and bad.last.sentence[6:40] in page
    assert "Who goes back, in this order" in page and said.tone(found) == "bad" and "Move nobody else" in page
    assert found.decision is None or not set(found.decision.moves["host"]) & set(plan.waves["host"])
    assert "Do not install i40en 2.0.7.0 on any further host." in page and "Do not move hosts off" not in page
    back = bad.last.go_back.iloc[0]
    assert said.destination(found, {"host": back["host"]}) == back["to_version"]
    with pytest.raises(psod.InputError, match="the plan moves i40en, and hpsa was asked for"):
        study(fleet, "hpsa", plan=plan)


def test_the_brief_of_a_stopped_roll_out_is_two_pages(bad, tmp_path):
    found = study(bad.fleet, plan=bad.plan, today=bad.last.at)
    file = to_pdf(said.brief(found), tmp_path / "brief.pdf", "brief.typ")
    told = subprocess.run(["pdfinfo", str(file)], capture_output=True, text=True, check=True, timeout=30).stdout
    assert re.search(r"^Pages:\s+2$", told, re.MULTILINE)


def test_a_store_that_nobody_loaded_for_weeks_holds_the_plan_on_every_page(bad):
    found = study(bad.fleet, plan=replace(bad.plan, to="2.9.9.9"), today=bad.last.at + pd.Timedelta(days=30))
    assert found.rollout.word == "hold" and "nobody was watching" in said.verdict(found)
    page = to_markdown(said.brief(found))
    assert "Begin no further wave" in page and "whose wave has not begun" in page


def test_hostile_names_stay_text(bad):
    plan = replace(bad.plan, notes=(HOSTILE,), waves=bad.plan.waves.assign(host=HOSTILE))
    last = replace(bad.last, sentence=HOSTILE, go_back=bad.last.go_back.assign(host=HOSTILE, cluster=HOSTILE))
    html = page([*plan_blocks(plan), *rollouts.plan_steps(plan), *rollout_state(last)])
    assert "<script" not in html and "$x^2$" not in html


def test_while_a_plan_runs_no_other_is_offered(bad, tmp_path):
    plan, why = rollouts.offer(study(bad.fleet, "i40en"), running=str(bad.plan.save(tmp_path / "plan.toml")))
    assert plan is not None and plan.to == bad.plan.to and not why


def test_where_nothing_can_be_planned_a_sentence_says_why():
    fleet = rollouts._fleet("good", 60, None)
    plan, why = rollouts.offer(study(fleet, "i40en"))
    assert plan is None and "nothing to choose between" in why and "name it as to" in why
    assert rollouts.offer(study(fleet, "i40en"), "no version")[0] is None
    plan, why = rollouts.offer(study(fleet, "i40en"), "2.0.7.0")
    assert plan is not None and not why
    assert watch_rollout(fleet, plan).word == "go_on"  # not begun yet
    assert plan_rollout(fleet, "i40en", "2.0.7.0").to_toml() == plan.to_toml()


def test_the_plan_offered_moves_whom_the_advice_moves_and_nobody_else(bad):
    found = study(bad.fleet, "i40en")
    assert found.decision is not None and len(found.decision.moves)
    plan, _ = rollouts.offer(found)
    assert plan is not None and set(plan.waves["host"]) == set(found.decision.moves["host"])
    still = replace(found, decision=replace(found.decision, moves=found.decision.moves.iloc[:0]))
    assert rollouts.offer(still)[0] is None and "moves no host" in rollouts.offer(still)[1]


def test_a_ratio_that_nobody_could_see_is_no_number(bad):
    seen = bad.plan.learn.assign(ratio_seen=839.4)
    assert (
        "839" not in (text := page(plan_blocks(replace(bad.plan, learn=seen))))
        and "only one over 100 times as high" in text
    )
