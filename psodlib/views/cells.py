"""What a notebook shows of a result: the sentence first, then a small table."""

from __future__ import annotations

import math
from typing import Any

from psodlib.views.document import Block, Bullets, Section, Table, Text, by_column

from psodlib.views.words import (  # isort: skip
    DAYS_A_YEAR, as_sentence, between, chance, count, day, figure, known, listing, literal, seen,
)  # fmt: skip

WIDTH = 25  # letters of a bar
MOST_TIMES = 100  # that a ratio of rates is told with
ROWS = {
    "hosts": "a host", "crashes": "a purple screen", "frames": "a stack frame", "modules": "a module in a list or map",
    "uptimes": "a boot", "drivers": "an observation of a driver's version", "problems": "a thing that could not be read or believed",
}  # fmt: skip
ADVICE = {
    "keep": "keep", "move_now": "move its hosts now", "next_reboot": "move at the next planned reboot",
    "no_new_installs": "no new installs", "leave": "leave as it is",
}  # fmt: skip
MOVES = ("move_now", "next_reboot")  # the advice that moves hosts
STATUS = {
    "moved": "moved", "waits_for_reboot": "installed, waits for a reboot", "about_to_drift": "another version waits",
    "drifted_back": "went back", "unknown": "not known", "not_moved": "not yet", "other_version": "runs a third version",
    "not_in_fleet": "not in the fleet",
}  # fmt: skip  # of a host, in a roll-out that is under way

WHOLE = "{:,.0f}".format
Blocks = list[Text | Table]


def html(result: Any) -> str:
    """A result as a notebook's cell."""
    makers: dict[str, Any] = {
        "Fleet": _fleet, "DataFrame": lambda table: (rates_blocks if "upper_at_zero" in table else _exposure)(table),
        "RateRatio": _ratio, "PinDecision": _decision, "RolloutPlan": plan_blocks, "RolloutWatch": rollout_state,
    }  # fmt: skip
    return Section("", makers[type(result).__name__](result))._repr_html_()


def bar(low: Any, middle: Any, high: Any, start: float, end: float) -> str:
    """An interval drawn in letters on a scale from start to end; an arrow where it goes on."""
    if not (known(low) and known(high)) or not end > start:
        return ""

    def place(value: float) -> int:
        return min(int((min(max(value, start), end) - start) / (end - start) * WIDTH), WIDTH - 1)

    first, last = place(low), place(high)
    letters = ["·"] * WIDTH
    letters[first : last + 1] = "─" * (last - first + 1)
    letters[first] = "├" if low >= start else "←"
    letters[last] = "┤" if high <= end else "→"
    if known(middle) and start <= middle <= end:
        letters[place(middle)] = "●"
    return "".join(letters)


def _fleet(fleet: Any) -> Blocks:
    made_up = "Simulated. " if fleet.simulated else ""
    crashed = f"{count(len(fleet.crashes), 'crash')} on {count(fleet.crashes['host'].nunique(), 'host')}"
    rows = [(name, f"{len(table):,}", ROWS[name]) for name, table in fleet.tables.items()]
    more = (
        'fleet.crash("id") shows one crash, fleet.host("name") one host, fleet.now("module") who runs which version, '
        "fleet.wide() one wide table."
    )
    head = f"{made_up}{count(len(fleet.hosts), 'host')}{seen(fleet.hosts)}: {crashed}."
    return [Text(head), Table("", ["Table", "Rows", "One row is"], rows, more)]


def _exposure(table: Any) -> Blocks:
    # By version: a row a stretch is for computing.
    if table.empty:
        return [Text("No host-day was watched.")]
    module = literal(table.attrs.get("module", "the driver"))
    counts = table[["host_days", "crashes", "unknown_crashes", "other_crashes"]]
    groups, total = table.groupby("version", dropna=False, observed=True), counts.sum()
    lived, caused, unknown, others = (groups[name].sum().map(WHOLE) for name in counts)
    columns = {
        f"{module} loaded": map(literal, lived.index), "Hosts": groups["host"].nunique().map(WHOLE),
        "Host-days watched": lived, f"Crashes caused by {module}": caused, "Of unknown cause": unknown,
        "Other crashes": others,
    }  # fmt: skip
    watched = f"{count(total['host_days'], 'host-day')} of {module} watched on {count(table['host'].nunique(), 'host')}"
    more = count(total["unknown_crashes"], "more has", "more have")
    note = f"{count(len(table), 'row')}, one a stretch of a boot with one loaded version; table.head() shows them."
    told = f"{watched}: it caused {count(total['crashes'], 'crash')}; {more} no known cause."
    return [Text(told), by_column(columns, note)]


def rates_blocks(table: Any) -> Blocks:
    """Rates by group, as measured."""
    if table.empty:
        return [Text("No host-day was watched.")]
    crashes, days = int(table["crashes"].sum()), float(table["host_days"].sum())
    yearly = table.assign(**{name: table[name] * DAYS_A_YEAR for name in ("rate", "low", "high", "upper_at_zero")})
    end, rows = _end(yearly), []
    for row in yearly.itertuples():
        group = ", ".join(map(literal, row.Index if isinstance(row.Index, tuple) else (row.Index,)))
        none = f"none; at most {figure(row.upper_at_zero)}" if row.host_days > 0 else "no host-day"
        rate = f"{figure(row.rate)} ({between(row.low, row.high)})" if row.crashes and row.host_days > 0 else none
        line = bar(row.low, row.rate, row.high, 0, end)
        rows.append([group, f"{row.crashes:,}", f"{row.host_days:,.0f}", rate, line])
    by = listing(str(name).replace("_", " ") for name in table.index.names)
    whole = f": {figure(crashes * DAYS_A_YEAR / days)} per host-year" if days > 0 else ""
    columns = [by.capitalize(), "Crashes", "Host-days", "Crashes per host-year (interval)", f"0 to {figure(end)}"]
    head = f"{count(crashes, 'crash')} in {count(days, 'host-day')}{whole}"
    return [Text(f"{head}. Rates by {by} do not say why; rate_ratio compares."), Table("", columns, rows)]


def _end(table: Any) -> float:
    # Of a scale for intervals: those of groups that crashed, where there are any.
    crashed = float(table["high"].where(table["crashes"] > 0).max())
    return crashed if known(crashed) else float(table["high"].max())


def _ratio(ratio: Any) -> Blocks:
    named: dict[str, Any] = {
        "headline": (ratio.ratio, ratio.low, ratio.high), "known crashes only": ratio.known_only,
        "unknown crashes counted too": ratio.with_unknown, "worst cases of the unknown": ratio.adversarial,
        "bare counts": ratio.crude,
    }  # fmt: skip
    ends = [abs(math.log(end)) for _, *limits in named.values() for end in limits if known(end) and 0 < end < math.inf]
    reach = min(max(ends, default=1.0) * 1.05, math.log(1000))
    rows = []
    for name, limits in named.items():
        middle, low, high = (math.log(end) if end > 0 else -math.inf if end <= 0 else math.nan for end in limits)
        rows.append((name, figure(limits[0]), between(*limits[1:]), bar(low, middle, high, -reach, reach)))
    scale = f"{figure(math.exp(-reach))} to {figure(math.exp(reach))}, equal in the middle"
    sides = zip((ratio.version, ratio.reference), ratio.crashes, ratio.host_days, strict=True)
    arms = (f"{literal(name)}: {count(crashes, 'crash')} in {count(span, 'host-day')}" for name, crashes, span in sides)
    percent = f"{100 * (1 - ratio.alpha):g} % interval"
    columns = ["Counted", "Ratio", percent, scale]
    warned = [Text(as_sentence(warning)) for warning in ratio.warnings[:3]]
    return [Text(_ratio_words(ratio, percent)), Table("", columns, rows, f"{'; '.join(arms)}."), *warned]


def _ratio_words(ratio: Any, percent: str) -> str:
    one, other, interval = literal(ratio.version), literal(ratio.reference), between(ratio.low, ratio.high)
    if not known(ratio.ratio) or (ratio.low <= 0 and math.isinf(ratio.high)):
        return f"Nothing can be said yet of {one} against {other}."
    if ratio.low <= 1 <= ratio.high:
        return f"Whether {one} or {other} crashes more often is open ({percent} of the ratio: {interval})."
    if ratio.ratio >= 1:
        return f"{one} crashes {figure(ratio.ratio)} times as often as {other} ({percent}: {interval})."
    less = f"{100 * (1 - ratio.ratio):.0f} % less often"
    return f"{one} crashes {less} than {other} ({percent} of the ratio: {interval})."


def _decision(decision: Any) -> Blocks:
    options, best = decision.options, literal(decision.best)
    head = {
        "pin": f"Standardise on {literal(decision.pin)}.",
        "avoid": f"Move hosts off {', '.join(map(literal, decision.avoid))}; no version is sure enough to be the standard.",
        "undecided": f"No move is likely enough to help yet; {best} has the lowest expected rate.",
    }[decision.verdict]
    end = _end(options)
    drawn = {f"0 to {figure(end)}": [bar(row.low, row.rate, row.high, 0, end) for row in options.itertuples()]}
    as_it_is, followed = figure(decision.crashes_if_stay), figure(decision.crashes_if_followed)
    worth = f"Expected crashes a year in the whole fleet: {as_it_is} as it is, {followed} if this is followed."
    return [Text(f"{head} {worth}"), by_column(option_columns(decision) | drawn)]


def option_columns(decision: Any) -> dict[str, Any]:
    """A decision's versions, column by column: as measured, with what to do."""
    options, rows = decision.options, list(decision.options.itertuples())
    return {
        "Version": options["version"].map(literal), "Crashes": options["crashes"].map(WHOLE), "Host-days": options["host_days"].map(WHOLE),
        "Crashes per host-year (95 % interval)": [f"{figure(row.rate)} ({between(row.low, row.high)})" for row in rows],
        "Hosts now": options["hosts_now"].map(WHOLE), "Advice": options["advice"].astype(str).map(ADVICE),
        f"Chance that {literal(decision.best)} is better": ["—" if row.version == decision.best else chance(row.p_worse) for row in rows],
    }  # fmt: skip


# ---- roll-outs ---------------------------------------------------------------------------------------------------------


def plan_blocks(plan: Any) -> list[Block]:
    """The plan: what each wave holds and could show, and who stays behind."""
    seen, rows = plan.learn.set_index("wave")["ratio_seen"], []
    for wave, hosts in plan.waves.groupby("wave"):
        shows = f"{figure(seen[wave])} times" if known(seen[wave]) else "no difference in rates"
        shows = f"only one over {MOST_TIMES} times as high" if known(seen[wave]) and seen[wave] > MOST_TIMES else shows
        which, begins = listing(sorted(hosts["host"]), 8), day(hosts["week"].min())
        rows.append((f"{wave}", begins, f"{len(hosts):,}", f"{hosts['turn'].max()}", which, shows))
    columns = ["Wave", "From", "Hosts", "Turns", "Which", "Could show by its end"]
    note = (
        "Hosts of one turn may move at once; no two of them are of one cluster. The last column: the least ratio of the "
        "rates that is seen with 80 % probability."
    )
    moved = f"{count(len(plan.waves), 'host')} move in {count(len(rows), 'wave')}"
    head = f"{literal(plan.module)} {literal(plan.to)}: {moved}, each watched for {count(plan.watched_weeks, 'week')}."
    notes = [Bullets([literal(one) for one in plan.notes])] if plan.notes else []
    return [Text(head), Table("", columns, rows, note), *notes]


def rollout_state(result: Any, most: int = 30) -> list[Block]:
    """A running plan: the word, who has moved wave by wave, what speaks against the new version, and what then."""
    plan, judged, effect = result.plan, result.judged, result.effect
    until = f" Evidence until {day(result.at)}." if known(result.at) else ""
    out: list[Block] = [Text(f"{literal(result.sentence)}{until}")]
    if not judged.against:
        ratio, expected = judged.ratio, figure(judged.expected)
        counts = f"{count(judged.crashes, 'crash')} on {literal(plan.to)}, where the past of these models would give {expected}."
        often = f"it crashes {figure(ratio.ratio)} times as often (90 % range {between(ratio.low, ratio.high)})"
        alarm = f"e-value {figure(judged.e_value)}, alarm at 20."
        out.append(Text(f"{counts} Against hosts of the same model in the same weeks {often}; {alarm}"))
    if len(result.reasons) > 1:
        out.append(Bullets([literal(reason) for reason in result.reasons[1:]]))
    waves = []
    for row in result.waves.to_dict("records"):
        who = ", ".join(f"{row[status]:,} {words}" for status, words in STATUS.items() if row[status])
        watched = f"{row['host_days']:,.0f} ({row['host_days_planned']:,.0f})"
        waves.append((f"{row['wave']}", day(row["week"]), f"{row['hosts']:,}", who, f"{row['crashes']:,}", watched))
    since = ["Where they are", "Crashes since", "Host-days since (planned until the next wave)"]
    columns = ["Wave", "From", "Hosts", *since]
    out.append(Table("Wave by wave", columns, waves, widths=(8, 14, 9, 35, 12, 22)))
    new = [
        (literal(row.crash_id), literal(row.host), literal(row.signature), f"{row.days_on_it:.0f}", literal(row.known_issues, "none"),
         f"{literal(row.similar)} ({100 * row.likeness:.0f} %)" if known(row.similar) else "none")
        for row in result.news.itertuples()
    ]  # fmt: skip
    back = [
        (f"{row.order}", f"{row.turn}", literal(row.host), literal(row.cluster), literal(row.to_version), row.why)
        for row in result.go_back.itertuples()
    ]
    for caption, names, rows, widths in (
        ("Never seen before", ["Crash", "Host", "Signature", "Days on it", "Known issue", "Most like"], new, ()),
        ("Who goes back, in this order", ["Order", "Turn", "Host", "Cluster", "To", "Why"], back, (8, 8, 18, 18, 14, 34)),
    ):  # fmt: skip
        note = f"{len(rows) - most:,} more: psod watch lists them all." if len(rows) > most else ""
        out += [Table(caption, names, rows[:most], note, widths=widths)] if rows else []
    if result.decision is not None:
        rule = "The decision rule, which turns round an advice that was followed only when sure, says now:"
        out.append(Text(f"{rule} {literal(str(result.decision).splitlines()[0])}"))
    if effect.empty:
        return out
    unmoved = "the hosts not yet moved in the same weeks do not"
    note = f"Before and after differ by all that changed with the months; {unmoved}."
    rates = [f"{figure(row.rate)} ({between(row.low, row.high)})" for row in effect.itertuples()]
    days, hosts, crashes = (effect[name].map(WHOLE) for name in ("host_days", "hosts", "crashes"))
    cells = {"When": effect["what"], "Hosts": hosts, "Crashes": crashes, "Host-days": days}
    cells["Crashes per host-year (95 % interval)"] = rates
    return [*out, by_column(cells, note, caption="What the roll-out did", widths=(34, 10, 10, 14, 32))]
