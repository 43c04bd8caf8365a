"""A roll-out on paper: the plan with its waves and commands, and the state of a running one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from psodlib.risk.rollout import RolloutPlan
from psodlib.views.document import Block, Bullets, Table, Text, by_column
from psodlib.views.words import between, count, day, figure, known, listing, literal

if TYPE_CHECKING:
    from psodlib.risk.rollout_watch import RolloutWatch

MOST_ROWS = 30
STATUS = {
    "moved": "moved", "waits_for_reboot": "installed, waits for a reboot", "about_to_drift": "another version waits", "drifted_back": "went back",
    "unknown": "not known", "not_moved": "not yet", "other_version": "runs a third version", "not_in_fleet": "not in the fleet",
}  # fmt: skip


def plan_blocks(plan: RolloutPlan) -> list[Block]:
    """The plan: what each wave holds and could show, and who stays behind."""
    seen: Any = plan.learn.set_index("wave")["ratio_seen"]
    rows = []
    for wave, hosts in plan.waves.groupby("wave"):
        shows = f"{figure(seen[wave])} times" if known(seen[wave]) else "no difference in rates"
        which, begins = listing(sorted(hosts["host"]), 8), day(hosts["week"].min())
        rows.append((f"{wave}", begins, f"{len(hosts):,}", f"{hosts['turn'].max()}", which, shows))
    columns = ["Wave", "From", "Hosts", "Turns", "Which", "Could show by its end"]
    note = "Hosts of one turn may move at once; no two of them are of one cluster. The last column: the least ratio of the rates that is seen with 80 % probability."
    moved = f"{count(len(plan.waves), 'host')} move in {count(len(rows), 'wave')}"
    head = f"{literal(plan.module)} {literal(plan.to)}: {moved}, each watched for {count(plan.watched_weeks, 'week')}."
    notes = [Bullets([literal(one) for one in plan.notes])] if plan.notes else []
    return [Text(head), Table("", columns, rows, note), *notes]


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
    out += _table("Never seen before", ["Crash", "Host", "Signature", "Days on it", "Known issue", "Most like"], [
        (literal(row.crash_id), literal(row.host), literal(row.signature), f"{row.days_on_it:.0f}", literal(row.known_issues, "none"),
         f"{literal(row.similar)} ({100 * row.likeness:.0f} %)" if known(row.similar) else "none")
        for row in news
    ], most, ())  # fmt: skip
    back: Any = result.go_back.itertuples()
    out += _table("Who goes back, in this order", ["Order", "Turn", "Host", "Cluster", "To", "Why"], [
        (f"{row.order}", f"{row.turn}", literal(row.host), literal(row.cluster), literal(row.to_version), row.why) for row in back
    ], most, (8, 8, 18, 18, 14, 34))  # fmt: skip
    if result.decision is not None:
        rule = "The decision rule, which turns round an advice that was followed only when sure, says now:"
        out.append(Text(f"{rule} {literal(str(result.decision).splitlines()[0])}"))
    return [*out, *_effect(result)]


def _table(caption: str, columns: Sequence[str], rows: Any, most: int, widths: Sequence[int]) -> list[Table]:
    note = f"{len(rows) - most:,} more: psod watch lists them all." if len(rows) > most else ""
    return [Table(caption, columns, rows[:most], note, widths=widths)] if rows else []


def _waves(result: RolloutWatch) -> Table:
    rows = []
    for row in result.waves.to_dict("records"):
        who = ", ".join(f"{row[status]:,} {words}" for status, words in STATUS.items() if row[status])
        watched = f"{row['host_days']:,.0f} ({row['host_days_planned']:,.0f})"
        rows.append((f"{row['wave']}", day(row["week"]), f"{row['hosts']:,}", who, f"{row['crashes']:,}", watched))
    columns = ["Wave", "From", "Hosts", "Where they are", "Crashes since"]
    columns.append("Host-days since (planned until the next wave)")
    return Table("Wave by wave", columns, rows, widths=(8, 14, 9, 35, 12, 22))


def _effect(result: RolloutWatch) -> list[Block]:
    effect: Any = result.effect
    if effect.empty:
        return []
    unmoved = "the hosts not yet moved in the same weeks do not"
    note = f"Before and after differ by all that changed with the months; {unmoved}."
    rates = [f"{figure(row.rate)} ({between(row.low, row.high)})" for row in effect.itertuples()]
    days, hosts, crashes = (effect[name].map("{:,.0f}".format) for name in ("host_days", "hosts", "crashes"))
    columns = {"When": effect["what"], "Hosts": hosts, "Crashes": crashes, "Host-days": days}
    columns["Crashes per host-year (95 % interval)"] = rates
    return [by_column(columns, note, caption="What the roll-out did", widths=(34, 10, 10, 14, 32))]
