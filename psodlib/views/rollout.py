"""A roll-out on paper: the plan with its waves and commands, and the state of a running one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from psodlib.errors import InputError
from psodlib.risk.rollout import RolloutPlan, plan_rollout, read_plan
from psodlib.views.document import Block, Bullets, Steps, Table, Text
from psodlib.views.runbook import steps_to
from psodlib.views.words import between, count, day, figure, known, listing, literal

if TYPE_CHECKING:
    from psodlib.risk.rollout_watch import RolloutWatch
    from psodlib.views.study import Study

__all__ = ["offer", "plan_blocks", "plan_steps", "rollout_state"]

MOST_ROWS = 30
STATUS = {
    "moved": "moved", "waits_for_reboot": "installed, waits for a reboot", "about_to_drift": "another version waits", "drifted_back": "went back",
    "unknown": "not known", "not_moved": "not yet", "other_version": "runs a third version", "not_in_fleet": "not in the fleet",
}  # fmt: skip


def offer(case: Study, to: str | None = None, running: str | None = None) -> tuple[RolloutPlan | None, str]:
    """The plan under way, else one to the version asked for, or to the best one; or the sentence why there is none."""
    if running is not None:
        return read_plan(running), ""
    if to is None and case.decision is None:
        return None, case.why_none
    try:
        return plan_rollout(case.fleet, case.module, to or (case.decision.best if case.decision else "")), ""
    except InputError as error:
        return None, f"No roll-out can be planned: {error}."


def plan_blocks(plan: RolloutPlan) -> list[Block]:
    """The plan: what each wave holds and could show, and who stays behind."""
    rows = []
    for wave, hosts in plan.waves.groupby("wave"):
        learnt: Any = plan.learn.set_index("wave").loc[wave]
        seen = f"{figure(learnt['ratio_seen'])} times" if known(learnt["ratio_seen"]) else "no difference in rates"
        turns = f"{hosts['turn'].max()}"
        rows.append(
            (f"{wave}", day(hosts["week"].min()), f"{len(hosts):,}", turns, listing(sorted(hosts["host"]), 8), seen)
        )
    columns = ["Wave", "From", "Hosts", "Turns", "Which", "Could show by its end"]
    note = "Hosts of one turn may move at once; no two of them are of one cluster. The last column: the least ratio of the rates that is seen with 80 % probability."
    head = f"{literal(plan.module)} {literal(plan.to)}: {count(len(plan.waves), 'host')} move in {count(len(rows), 'wave')}, each watched for {count(plan.watched_weeks, 'week')}."
    return [
        Text(head),
        Table("", columns, rows, note),
        *([Bullets([literal(one) for one in plan.notes])] if plan.notes else []),
    ]


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


def rollout_state(result: RolloutWatch, most: int = MOST_ROWS) -> list[Block]:
    """A running plan: the word, who has moved wave by wave, what speaks against the new version, and what then."""
    plan, judged = result.plan, result.judged
    when = f" Evidence until {day(result.at)}." if known(result.at) else ""
    counts = (
        f"{count(judged.crashes, 'crash')} on {literal(plan.to)}, where the past of these models would give {figure(judged.expected)}. "
        f"Against hosts of the same model in the same weeks it crashes {figure(judged.ratio.ratio)} times as often (90 % range "
        f"{between(judged.ratio.low, judged.ratio.high)}); e-value {figure(judged.e_value)}, alarm at 20."
    )
    out: list[Block] = [Text(f"{literal(result.sentence)}{when}"), *([] if judged.against else [Text(counts)])]
    if len(result.reasons) > 1:
        out.append(Bullets([literal(reason) for reason in result.reasons[1:]]))
    out.append(_waves(result))
    news: Any = result.news.itertuples()
    rows = [
        (literal(row.crash_id), literal(row.host), literal(row.signature), f"{row.days_on_it:.0f}", literal(row.known_issues, "none"),
         f"{literal(row.similar)} ({100 * row.likeness:.0f} %)" if known(row.similar) else "none")
        for row in news
    ]  # fmt: skip
    columns = ["Crash", "Host", "Signature", "Days on it", "Known issue", "Most like"]
    out += _table("Never seen before", columns, rows, most, ())
    back: Any = result.go_back.itertuples()
    rows = [
        (f"{row.order}", f"{row.turn}", literal(row.host), literal(row.cluster), literal(row.to_version), row.why) for row in back
    ]  # fmt: skip
    columns = ["Order", "Turn", "Host", "Cluster", "To", "Why"]
    out += _table("Who goes back, in this order", columns, rows, most, (8, 8, 18, 18, 14, 34))
    if result.decision is not None:
        head = literal(str(result.decision).splitlines()[0])
        out.append(
            Text(f"The decision rule, which turns round an advice that was followed only when sure, says now: {head}")
        )
    return [*out, *_effect(result)]


def _table(
    caption: str, columns: Sequence[str], rows: Sequence[tuple[str, ...]], most: int, widths: Sequence[int]
) -> list[Table]:
    note = f"{len(rows) - most:,} more: psod watch lists them all." if len(rows) > most else ""
    return [Table(caption, columns, rows[:most], note, widths=widths)] if rows else []


def _waves(result: RolloutWatch) -> Table:
    rows = []
    for row in result.waves.to_dict("records"):
        who = ", ".join(f"{row[status]:,} {words}" for status, words in STATUS.items() if row[status])
        watched = f"{row['host_days']:,.0f} ({row['host_days_planned']:,.0f})"
        rows.append((f"{row['wave']}", day(row["week"]), f"{row['hosts']:,}", who, f"{row['crashes']:,}", watched))
    columns = [
        "Wave",
        "From",
        "Hosts",
        "Where they are",
        "Crashes since",
        "Host-days since (planned until the next wave)",
    ]
    return Table("Wave by wave", columns, rows, widths=(8, 14, 9, 35, 12, 22))


def _effect(result: RolloutWatch) -> list[Block]:
    effect: Any = result.effect.itertuples()
    rows = [
        (row.what, f"{row.hosts:,}", f"{row.crashes:,}", f"{row.host_days:,.0f}", f"{figure(row.rate)} ({between(row.low, row.high)})")
        for row in effect
    ]  # fmt: skip
    note = (
        "Before and after differ by all that changed with the months; the hosts not yet moved in the same weeks do not."
    )
    columns = ["When", "Hosts", "Crashes", "Host-days", "Crashes per host-year (95 % interval)"]
    return [Table("What the roll-out did", columns, rows, note, widths=(34, 10, 10, 14, 32))] if rows else []
