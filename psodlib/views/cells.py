"""What a notebook shows of a result: the sentence first, then a small table."""

from __future__ import annotations

import math
from typing import Any

from psodlib.views.document import Section, Table, Text
from psodlib.views.rollout import plan_blocks, rollout_state
from psodlib.views.words import DAYS_A_YEAR, between, chance, count, figure, known, listing, literal, seen

__all__ = ["bar", "html", "rates_blocks"]

WIDTH = 25  # letters of a bar
ROWS = {
    "hosts": "a host", "crashes": "a purple screen", "frames": "a stack frame", "modules": "a module in a list or map",
    "uptimes": "a boot", "drivers": "an observation of a driver's version", "problems": "a thing that could not be read or believed",
}  # fmt: skip
ADVICE = {
    "keep": "keep", "move_now": "move its hosts now", "next_reboot": "move at the next planned reboot",
    "no_new_installs": "no new installs", "leave": "leave as it is",
}  # fmt: skip
MOVES = ("move_now", "next_reboot")  # the advice that moves hosts


def html(result: Any) -> str:
    """A result as a notebook's cell."""
    makers: dict[str, Any] = {
        "Fleet": _fleet, "DataFrame": _shown, "RateRatio": _ratio, "PinDecision": _decision, "RolloutPlan": plan_blocks, "RolloutWatch": rollout_state,
    }  # fmt: skip
    return Section("", makers[type(result).__name__](result))._repr_html_()


def bar(low: Any, middle: Any, high: Any, start: float, end: float) -> str:
    """An interval drawn in letters on a scale from start to end; an arrow where it goes on."""
    if not (known(low) and known(high)) or not end > start:
        return ""
    place = [_place(float(value), start, end) for value in (low, high)]
    letters = ["·"] * WIDTH
    letters[place[0] : place[1] + 1] = "─" * (place[1] - place[0] + 1)
    letters[place[0]] = "├" if low >= start else "←"
    letters[place[1]] = "┤" if high <= end else "→"
    if known(middle) and start <= middle <= end:
        letters[_place(float(middle), start, end)] = "●"
    return "".join(letters)


def _place(value: float, start: float, end: float) -> int:
    share = (min(max(value, start), end) - start) / (end - start)
    return min(int(share * WIDTH), WIDTH - 1)


def _fleet(fleet: Any) -> list[Text | Table]:
    made_up = "Simulated. " if fleet.simulated else ""
    crashed = f"{count(len(fleet.crashes), 'crash')} on {count(fleet.crashes['host'].nunique(), 'host')}"
    rows = [(name, f"{len(table):,}", ROWS[name]) for name, table in fleet.tables.items()]
    told = 'fleet.crash("id") shows one crash, fleet.host("name") one host, fleet.now("module") who runs which version, fleet.wide() one wide table.'
    return [
        Text(f"{made_up}{count(len(fleet.hosts), 'host')}{seen(fleet.hosts)}: {crashed}."),
        Table("", ["Table", "Rows", "One row is"], rows, told),
    ]


def _shown(table: Any) -> list[Text | Table]:
    return rates_blocks(table) if "upper_at_zero" in table else _exposure(table)


def _exposure(table: Any) -> list[Text | Table]:
    # By version: a row a stretch is for computing.
    if table.empty:
        return [Text("No host-day was watched.")]
    counts, days = ["crashes", "unknown_crashes", "other_crashes"], table["host_days"].sum()
    module = literal(table.attrs.get("module", "the driver"))
    sums = table.groupby("version", dropna=False, observed=True).agg(
        hosts=("host", "nunique"), days=("host_days", "sum"), **{name: (name, "sum") for name in counts}
    )
    caused, unknown = (int(table[name].sum()) for name in counts[:2])
    rows = [
        [literal(version), f"{row.hosts:,}", f"{row.days:,.0f}", *(f"{getattr(row, name):,.0f}" for name in counts)]
        for version, row in zip(sums.index, sums.itertuples(), strict=True)
    ]
    columns = [
        f"{module} loaded",
        "Hosts",
        "Host-days watched",
        f"Crashes caused by {module}",
        "Of unknown cause",
        "Other crashes",
    ]
    return [
        Text(f"{count(days, 'host-day')} of {module} watched on {count(table['host'].nunique(), 'host')}: it caused "
             f"{count(caused, 'crash')}; {count(unknown, 'more has', 'more have')} no known cause."),
        Table("", columns, rows, f"{count(len(table), 'row')}, one a stretch of a boot with one loaded version; table.head() shows them."),
    ]  # fmt: skip


def rates_blocks(table: Any) -> list[Text | Table]:
    """Rates by group, as measured."""
    if table.empty:
        return [Text("No host-day was watched.")]
    crashes, days = int(table["crashes"].sum()), float(table["host_days"].sum())
    yearly = table[["rate", "low", "high", "upper_at_zero"]] * DAYS_A_YEAR
    end = float(yearly["high"].where(table["crashes"] > 0).max())
    end = end if known(end) else float(yearly["high"].max())
    rows = []
    for name, row, per_year in zip(table.index, table.itertuples(), yearly.itertuples(), strict=True):
        group = ", ".join(map(literal, name if isinstance(name, tuple) else (name,)))
        most = f"none; at most {figure(per_year.upper_at_zero)}"
        rate = f"{figure(per_year.rate)} ({between(per_year.low, per_year.high)})" if row.crashes else most
        rows.append(
            [
                group,
                f"{row.crashes:,}",
                f"{row.host_days:,.0f}",
                rate if row.host_days > 0 else "no host-day",
                bar(per_year.low, per_year.rate, per_year.high, 0, end),
            ]
        )
    by = listing(str(name).replace("_", " ") for name in table.index.names)
    whole = f": {figure(crashes * DAYS_A_YEAR / days)} per host-year" if days > 0 else ""
    return [
        Text(f"{count(crashes, 'crash')} in {count(days, 'host-day')}{whole}. Rates by {by} do not say why; rate_ratio compares."),
        Table("", [by.capitalize(), "Crashes", "Host-days", "Crashes per host-year (interval)", f"0 to {figure(end)}"], rows),
    ]  # fmt: skip


def _ratio(ratio: Any) -> list[Text | Table]:
    named = [
        ("headline", (ratio.ratio, ratio.low, ratio.high)), ("known crashes only", ratio.known_only),
        ("unknown crashes counted too", ratio.with_unknown), ("worst cases of the unknown", ratio.adversarial),
        ("bare counts", ratio.crude),
    ]  # fmt: skip
    ends = [
        abs(math.log(value))
        for _, (_, low, high) in named
        for value in (low, high)
        if known(value) and 0 < value < math.inf
    ]
    reach = min(max(ends, default=1.0) * 1.05, math.log(1000))
    rows = [
        (name, figure(middle), between(low, high), _log_bar(low, middle, high, reach))
        for name, (middle, low, high) in named
    ]
    scale = f"{figure(math.exp(-reach))} to {figure(math.exp(reach))}, equal in the middle"
    sides = zip((ratio.version, ratio.reference), ratio.crashes, ratio.host_days, strict=True)
    counts = "; ".join(
        f"{literal(name)}: {count(crashes, 'crash')} in {count(span, 'host-day')}" for name, crashes, span in sides
    )
    percent = f"{100 * (1 - ratio.alpha):g} % interval"
    return [
        Text(_ratio_words(ratio, percent)), Table("", ["Counted", "Ratio", percent, scale], rows, f"{counts}."),
        *(Text(f"{warning[:1].upper()}{warning[1:]}.") for warning in ratio.warnings[:3]),
    ]  # fmt: skip


def _ratio_words(ratio: Any, percent: str) -> str:
    one, other = literal(ratio.version), literal(ratio.reference)
    if not known(ratio.ratio) or (ratio.low <= 0 and math.isinf(ratio.high)):
        return f"Nothing can be said yet of {one} against {other}."
    if ratio.low <= 1 <= ratio.high:
        return f"Whether {one} or {other} crashes more often is open ({percent} of the ratio: {between(ratio.low, ratio.high)})."
    if ratio.ratio >= 1:
        return f"{one} crashes {figure(ratio.ratio)} times as often as {other} ({percent}: {between(ratio.low, ratio.high)})."
    return f"{one} crashes {100 * (1 - ratio.ratio):.0f} % less often than {other} ({percent} of the ratio: {between(ratio.low, ratio.high)})."


def _log_bar(low: float, middle: float, high: float, reach: float) -> str:
    if not (known(low) and known(high)):
        return ""
    ends = [math.log(value) if value > 0 else -math.inf for value in (low, high)]
    return bar(ends[0], math.log(middle) if known(middle) and 0 < middle < math.inf else None, ends[1], -reach, reach)


def _decision(decision: Any) -> list[Text | Table]:
    head = {
        "pin": f"Standardise on {literal(decision.pin)}.",
        "avoid": f"Move hosts off {', '.join(map(literal, decision.avoid))}; no version is sure enough to be the standard.",
        "undecided": f"No move is likely enough to help yet; {literal(decision.best)} has the lowest expected rate.",
    }[decision.verdict]
    options = decision.options
    end = (
        float(options["high"].where(options["crashes"] > 0).max())
        if options["crashes"].any()
        else float(options["high"].max())
    )
    rows = [
        (
            literal(row.version), f"{row.hosts_now:,}", f"{row.crashes:,}", f"{row.host_days:,.0f}",
            f"{figure(row.rate)} ({between(row.low, row.high)})", bar(row.low, row.rate, row.high, 0, end),
            "–" if row.version == decision.best else chance(row.p_worse), ADVICE[str(row.advice)],
        )
        for row in options.itertuples()
    ]  # fmt: skip
    columns = [
        "Version", "Hosts now", "Crashes", "Host-days", "Crashes per host-year (95 % interval)", f"0 to {figure(end)}",
        f"Chance that {literal(decision.best)} is better", "Advice",
    ]  # fmt: skip
    worth = f"Expected crashes a year in the whole fleet: {figure(decision.crashes_if_stay)} as it is, {figure(decision.crashes_if_followed)} if this is followed."
    return [Text(f"{head} {worth}"), Table("", columns, rows)]
