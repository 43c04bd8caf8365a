"""Notebook 07's own: the plan that it shows, and three made-up roll-outs, lived through wave by wave.

The made-up ones (a good version, a bad one, and one that only looks bad) are for teaching only: their tables come straight from
the simulated history, without logs in between.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import pandas as pd

from psodlib import schema
from psodlib.errors import InputError
from psodlib.fleet import Fleet
from psodlib.risk.exact import ratio_interval
from psodlib.risk.rollout import WEEK, RolloutPlan, learnt, plan_rollout, read_plan
from psodlib.risk.rollout_watch import RolloutWatch, watch_rollout
from psodlib.simulate.process import simulate_history
from psodlib.views.document import Block, Steps, Text
from psodlib.views.study import Study
from psodlib.views.words import count, known, listing, literal
from psodlib.views.writeup import steps_to

__all__ = ["KINDS", "RollOut", "lived_through", "offer", "plan_steps"]

START = pd.Timestamp("2024-01-01", tz="UTC")
BEFORE = 364  # days of the fleet's life before the plan is made
# Truth: the new version's rate over the old one's, hazards of the three hardware models, and the dice.
KINDS: dict[str, dict[str, Any]] = {
    "good": {"ratio_58": 1.0, "model_hazard": (1.0, 1.0, 1.0), "seed": 3},
    "bad": {"ratio_58": 8.0, "model_hazard": (1.0, 1.0, 1.0), "seed": 3},
    "only looks bad": {"ratio_58": 1.0, "model_hazard": (0.3, 6.0, 0.3), "seed": 11},
}


class RollOut(NamedTuple):
    """A roll-out as it was followed: its plan, the fleet at the last look, that look, and the word at each."""

    plan: RolloutPlan
    fleet: Fleet
    last: RolloutWatch
    words: pd.DataFrame


@cache
def lived_through(kind: str) -> RollOut:
    """A roll-out followed to its stop or its end, looked at before each wave."""
    fleet = _fleet(kind, BEFORE, None)
    plan = plan_rollout(fleet, "i40en", "2.0.7.0", start=START + pd.Timedelta(days=BEFORE))
    plan = _oldest_first(plan) if kind == "only looks bad" else plan
    looks: list[RolloutWatch] = []
    for week in range(plan.watched_weeks, 8 * plan.watched_weeks, plan.watched_weeks):
        now = plan.start + week * WEEK
        due = plan.waves[plan.waves["week"] < now]
        moved_at = due["week"] + due["turn"] * pd.Timedelta(hours=4)
        installs = pd.DataFrame({"host": due["host"], "time": moved_at, "version": plan.to})
        fleet = _fleet(kind, BEFORE + 7 * week, installs)
        looks.append(watch_rollout(fleet, plan))
        if looks[-1].word == "stop" or len(looks[-1].effect):
            break
        if looks[-1].word == "hold":  # what has not begun waits
            later = plan.waves["week"] + plan.watched_weeks * WEEK
            plan = replace(
                plan, waves=plan.waves.assign(week=plan.waves["week"].where(plan.waves["week"] < now, later))
            )
    words = [
        (f"{look.at:%Y-%m-%d}", int(look.waves["moved"].sum()), look.judged.crashes, _crude(look), look.word)
        for look in looks
    ]
    names = ["look", "hosts moved", "crashes on the new version", "bare counts say", "the watch says"]
    return RollOut(plan, fleet, looks[-1], pd.DataFrame(words, columns=names))


def _crude(look: RolloutWatch) -> str:
    # Moved hosts against all others, whatever they are.
    sums = look.weeks[["crashes", "host_days", "reference_crashes", "reference_host_days"]].sum()
    found = ratio_interval(*(float(value) for value in sums))
    return f"{found}"


def _oldest_first(plan: RolloutPlan) -> RolloutPlan:
    # As people do: the oldest hardware, which crashes most, is tried first.
    waves = plan.waves.copy()
    oldest = waves["model"].eq(_model(1)) & (waves["wave"] <= 3)
    weeks = waves.drop_duplicates("wave").set_index("wave")["week"]
    waves["wave"] = waves["wave"].mask(oldest, 1).mask(~oldest & waves["wave"].eq(1), 3)
    waves["week"] = waves["wave"].map(weeks)
    waves["turn"] = waves.groupby(["wave", "cluster"]).cumcount() + 1
    plan = replace(plan, waves=waves.sort_values(["wave", "turn", "host"], ignore_index=True))
    return replace(plan, learn=learnt(plan))


def _model(number: int) -> str:
    from psodlib.simulate.stories import story_named

    return story_named("i40en").models[number]


def _fleet(kind: str, days: float, installs: pd.DataFrame | None) -> Fleet:
    nobody = pd.DataFrame({"host": [], "time": [], "version": []})
    history = simulate_history(
        80, days, 16, story="i40en", start=f"{START:%Y-%m-%d}", installs=nobody if installs is None else installs, late_share=0.0,
        gaps_per_host=0.0, load_days=0.0, rollback=0.0, driver_rate=0.5, background_rate=0.0, attribution=1.0, frailty_variance=0.3,
        **KINDS[kind],
    )  # fmt: skip
    boots, crashes = history.boots, history.crashes
    ids = crashes["host"] + "-" + crashes["time"].dt.strftime("%Y%m%d%H%M%S")
    ended = pd.Series(ids.to_numpy(), index=crashes["boot_row"])
    last = boots.groupby("host")["end"].max()
    signature = "i40en | i40en_clean_tx_ring | i40en_poll"
    rows = {
        "hosts": history.hosts.assign(first_seen=START, last_seen=history.hosts["host"].map(last)),
        "uptimes": boots.assign(crash_id=ended.reindex(boots.index), uptime=boots["end"] - boots["boot"], observed=boots["end"] - boots["entry"]),
        "coverage": boots.assign(start=boots["entry"]),
        "drivers": boots.assign(module="i40en", state="loaded", observed_at=boots["boot"], evidence="banner"),
        "crashes": crashes.assign(
            crash_id=ids, guilty_module="i40en", guilt="on_stack", driver_version=crashes["version"], driver_evidence="banner",
            signature=signature, damage="", copies=1,
        ),
    }  # fmt: skip
    tables = {}
    for name in [*schema.TABLES, *schema.AUXILIARY]:
        columns = list(schema.empty(name).columns)
        given = rows.get(name, pd.DataFrame()).reindex(columns=columns)
        tables[name] = schema.conform(name, given) if name in rows else schema.empty(name)
    tables["hosts"] = tables["hosts"].assign(
        cluster=history.hosts["cluster"].astype("string"), users=history.hosts["users"]
    )
    return Fleet(**tables, simulated=True)


def offer(case: Study, to: str | None = None, running: str | None = None) -> tuple[RolloutPlan | None, str]:
    """The plan under way, else one to the version asked for, or of the moves advised; or the sentence why there is none."""
    if running is not None:
        return read_plan(running), ""
    if to is None and (case.decision is None or case.decision.moves.empty):
        return (
            None,
            f"{case.why_none or 'The advice moves no host.'} To try a version on a few hosts first, name it as to.",
        )
    try:
        if to is None and case.decision is not None:
            return plan_rollout(case.fleet, case.module, case.decision.best, hosts=case.decision.moves["host"]), ""
        return plan_rollout(case.fleet, case.module, to or ""), ""
    except InputError as error:
        return None, f"No roll-out can be planned: {error}."


def plan_steps(plan: RolloutPlan) -> list[Block]:
    """The commands, for the hosts on each version, the dry run before the installation; psodlib runs none of them."""
    out: list[Block] = []
    for version, hosts in plan.waves.groupby("from_version", dropna=False):
        came_from = literal(version) if known(version) else None
        names = listing(hosts.sort_values(["wave", "turn", "host"])["host"], 12)
        out += [
            Text(
                f"{count(len(hosts), 'host')} now on {came_from or 'a version that is not known'}, in this order: {names}. On each:"
            ),
            Steps(
                steps_to(
                    plan.module, plan.to, came_from, f"the {plan.module} VIB of {came_from or 'the version before'}"
                )
            ),
        ]
    return out
