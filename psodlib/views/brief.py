"""What we run tomorrow -> two pages for whoever decides: orders first, then what they rest on. And the sentences that every
page shares, each made from a ``Study`` by one small function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from psodlib.risk.cautions import OVERLAP
from psodlib.risk.decision import LIKELY, NEAR, RATHER, REBOOT_COST, SURE
from psodlib.risk.league import driver_league
from psodlib.views.cells import ADVICE, MOVES
from psodlib.views.counting import reconciliation
from psodlib.views.document import Block, Bullets, Document, Picture, Section, Table, Text
from psodlib.views.doubts import as_sentence, doubts
from psodlib.views.no_choice import no_choice
from psodlib.views.rollout import rollout_state
from psodlib.views.study import Study
from psodlib.views.words import between, chance, count, figure, known, listing, literal, seen
from psodlib.views.writeup import SIMULATED

__all__ = [
    "brief", "calls", "counted", "destination", "facts", "forbidden", "league", "open_questions", "orders", "rule", "scope", "tone", "verdict", "versions", "worth",
]  # fmt: skip

BLANK = "________"
MOST_LINES = 17  # of orders and versions; with more the picture goes, so that two pages stay two
MOST_CLUSTERS = 10  # rows of orders on the page; all of them are in tables/moves.csv
MOST_BACK = 12  # hosts that go back
MOST_HOSTS = 8  # named a row
MOST_MODULES = 12
ALIKE = 0.6  # a chance nearer to one half tells nothing
MOST_WEEKS = 104  # said in weeks; a longer wait in years
TO_DO = {
    "go_on": "The hosts of a wave that has begun move in the order of its turns; later waves wait for their week.",
    "hold": "Begin no further wave until what is named above is answered; hosts that have moved stay where they are.",
    "stop": "Move nobody else. Hosts go back in the order above, one turn after the other, never two of a cluster at once. This "
    "stands above the advice in the table below.",
    "done": "Nothing is left to move.",
}  # of a roll-out that is under way
MOST_DOUBTS = 10  # on the page; the index has them all


def brief(study: Study, pictures: Sequence[Picture | Text] = (), crash_id: str | None = None) -> Document:
    """The two pages; where there is nothing to choose between, one page about the newest crash and what to do now."""
    if study.decision is None and study.rollout is None:
        return _document(study, *no_choice(study, crash_id))
    return _document(
        study,
        f"{study.module}: what we run",
        verdict(study),
        [
            *answer(study, pictures[:1] if _lines(study) <= MOST_LINES else ()),
            Section("What is open, and when we can tell", open_questions(study), overleaf=True),
            Section("What could make this wrong", [Bullets(doubts(study)[:MOST_DOUBTS])]),
            Section("How the crashes are counted", [counted(study)]),
            Section("When to stop and call", [Bullets(calls(study))]),
        ],
    )


def _lines(study: Study) -> int:
    # About how many lines of print the two tables of the first page take.
    rows = [row for table in [*orders(study), versions(study)] if isinstance(table, Table) for row in table.rows]
    return sum(max(math.ceil(len(str(cell)) / 34) for cell in row) for row in rows)


def answer(study: Study, pictures: Sequence[Picture | Text] = ()) -> list[Section]:
    """What to do, the one table and what it is worth; of a roll-out that is under way first how it stands."""
    this_week = Section("This week", [*orders(study), Text("Not to do:"), Bullets(forbidden(study))])
    table = [Section("The versions", [versions(study)])] if study.decision else []
    if study.rollout is None:
        return [this_week, *table, Section("What it is worth", [Bullets(worth(study)), *pictures])]
    return [Section("The roll-out under way", rollout_state(study.rollout, MOST_BACK)[1:]), this_week, *table]


def _document(study: Study, title: str, lead: str, sections: Sequence[Section]) -> Document:
    return Document(
        title=title, subtitle=scope(study), lead=lead, tone=tone(study), facts=facts(study), sections=list(sections),
        notice=SIMULATED if study.fleet.simulated else "",
    )  # fmt: skip


# ---- page one --------------------------------------------------------------------------------------------------------


def verdict(study: Study) -> str:
    """What to do, in a sentence or two."""
    decision = study.decision
    if study.rollout is not None:
        plan = study.rollout.plan
        return f"Roll-out of {literal(plan.module)} {literal(plan.to)}. {literal(study.rollout.sentence)}"
    if decision is None:
        return no_choice(study, None)[1] if len(study.fleet.crashes) else study.why_none
    moves, rest = _by_advice(study, MOVES), _by_advice(study, ("leave", "no_new_installs"))
    sentences = [
        f"{'Move' if row.advice == 'move_now' else 'At their next planned reboot, move'} {_the_hosts(row)} on {study.module} "
        f"{literal(row.version)} to {literal(decision.best)}{' now' if row.advice == 'move_now' else ''}."
        for row in moves
        if row.hosts_now
    ]
    if decision.pin:
        sentences.insert(0, f"Standardise on {study.module} {literal(decision.pin)}.")
    if not sentences:
        sentences = [f"Change no {study.module} driver this week: no move is likely enough to help."]
    if rest:
        which = listing(row.version for row in rest)
        sentences.append(
            f"Leave hosts on {which} where they are: whether {literal(decision.best)} is better is still open."
        )
    return " ".join(sentences)


def _the_hosts(row: Any) -> str:
    return "the one host" if row.hosts_now == 1 else f"the {count(row.hosts_now, 'host')}"


def _by_advice(study: Study, words: Sequence[str]) -> list[Any]:
    # In the order of the words, so that what is most urgent comes first.
    options: Any = study.decision.options if study.decision else pd.DataFrame()
    return [row for word in words for row in options.itertuples() if row.advice == word]


def tone(study: Study) -> str:
    """The colour beside the verdict: ``good`` for a pin, ``bad`` for hosts to move or a stop, else ``open``."""
    if study.rollout is not None:
        return {"go_on": "good", "stop": "bad"}.get(study.rollout.word, "open")
    word = study.decision.verdict if study.decision else "undecided"
    return {"pin": "good", "avoid": "bad"}.get(word, "open")


def scope(study: Study) -> str:
    """Of which fleet and which time this speaks."""
    return f"{count(len(study.fleet.hosts), 'host')}{seen(study.fleet.hosts)}; evidence read by psodlib"


def facts(study: Study) -> list[tuple[str, str]]:
    """The few figures that stand above the fold."""
    counts = study.counts
    return [
        ("Hosts", f"{len(study.fleet.hosts):,}"),
        ("Host-days watched", f"{study.exposure['host_days'].sum():,.0f}"),
        ("Crashes", f"{counts.texts + counts.lost_text:,}"),
        (f"Caused by {study.module}", f"{counts.module:,}"),
    ]


def orders(study: Study) -> list[Block]:
    """Who moves, cluster by cluster, with host names and empty places for owner and date."""
    moves: Any = study.decision.moves if study.decision else pd.DataFrame()
    if study.rollout is not None:
        step = Text(TO_DO["done" if _done(study) else study.rollout.word])
        return [step] if moves.empty else [step, Text("Hosts that the plan does not name:"), *_ordered(study, moves)]
    if moves.empty:
        if study.decision is not None and (study.decision.options["hosts_now"] > 0).any():
            return [Text("No host changes its driver this week.")]
        return [Text("It is not known which version any host runs today.")]
    return _ordered(study, moves)


def _done(study: Study) -> bool:
    # A roll-out that is complete orders nothing more.
    return study.rollout is not None and study.rollout.word == "go_on" and len(study.rollout.effect) > 0


def _ordered(study: Study, moves: Any) -> list[Block]:
    rows = []
    keys = ["advice", "cluster", "from_version", "to_version"]
    for (advice, cluster, old, new), group in moves.groupby(keys, observed=True, dropna=False, sort=False):
        when = "now" if advice == "move_now" else "next reboot"
        names = listing(group["host"], MOST_HOSTS)
        change = f"{literal(old)} → {literal(new)}"
        rows.append([literal(cluster, "no cluster known"), names, change, when, BLANK, BLANK])
    columns = ["Cluster", "Hosts", study.module, "When", "Owner", "Date"]
    left = f"{len(rows) - MOST_CLUSTERS} more clusters are in tables/moves.csv." if len(rows) > MOST_CLUSTERS else ""
    first = moves["host"].iloc[0]
    how = (
        f"Begin with one host ({literal(first)}) and watch it for a week. Then go cluster by cluster, never two hosts of a cluster at once. The "
        "write-up has the commands and the check after each reboot."
    )
    return [Table("", columns, rows[:MOST_CLUSTERS], left, widths=(14, 30, 22, 14, 10, 10)), Text(how)]


def forbidden(study: Study) -> list[str]:
    """What not to do."""
    decision, module = study.decision, study.module
    if study.rollout is not None and not _done(study):
        plan = study.rollout.plan
        further = (
            "any further host"
            if study.rollout.word == "stop"
            else "a host whose wave has not begun, or that the plan does not name"
        )
        return [f"Do not install {literal(plan.module)} {literal(plan.to)} on {further}."]
    if decision is None:
        return []
    avoided = [row.version for row in _by_advice(study, (*MOVES, "no_new_installs"))]
    left = [row.version for row in _by_advice(study, ("leave", "no_new_installs")) if row.hosts_now]
    lines = [f"Do not install {module} {listing(avoided)} on any further host."] if avoided else []
    if left:
        lines.append(
            f"Do not move hosts off {listing(left)} because of this page: there is not enough to gain from it yet."
        )
    if not decision.pin:
        lines.append(
            f"Do not make {module} {literal(decision.best)} the standard yet: another version may turn out to be as good or better."
        )
    return lines


def versions(study: Study) -> Table:
    """The one table: a row a version, as measured, with what to do."""
    options: Any = study.decision.options if study.decision else pd.DataFrame()
    rows = [
        [
            literal(row.version), f"{row.crashes:,}", f"{row.host_days:,.0f}", _rate(row.crashes, row.rate, row.low, row.high),
            f"{row.hosts_now:,}", ADVICE[str(row.advice)], "—" if row.advice == "keep" else chance(row.p_worse),
        ]
        for row in options.itertuples()
    ]  # fmt: skip
    best = literal(study.decision.best) if study.decision else ""
    columns = ["Version", "Crashes", "Host-days", "Crashes per host-year (95 % interval)", "Hosts now", "Advice"]
    columns.append(f"Chance that {best} is better")
    marked = {at for at, row in enumerate(options.itertuples()) if row.advice in MOVES}
    note = "Measured rates: crashes over host-days of the loaded version, not adjusted. The chance is adjusted for hardware, uptime, season and for hosts that differ."
    if study.rollout is not None:
        note += " The probability in the roll-out's sentence is another: it holds only hosts of one model in the same weeks against each other."
    return Table("", columns, rows, f"{note}{_not_the_lowest(study)}", widths=(12, 9, 11, 24, 9, 20, 15), marked=marked)


def rule() -> Table:
    """The thresholds of the advice, as the decision has them."""
    gain = f"the crashes avoided outweigh {REBOOT_COST:g} crash for each host moved"
    rows = [
        (ADVICE["move_now"], f"at least {100 * SURE:.0f} %", f"{gain}, and the two versions shared hardware and months for {100 * OVERLAP:.0f} % or more"),
        (ADVICE["next_reboot"], f"at least {100 * LIKELY:.0f} %", gain),
        (ADVICE["no_new_installs"], f"at least {100 * RATHER:.0f} %", ""),
        (ADVICE["leave"], "less", ""),
    ]  # fmt: skip
    pin = (
        f"The best version is made the standard where it is, with a chance of {100 * SURE:.0f} % or more, at most {NEAR:g} times as bad as the "
        f"truly best. Advice that was followed is turned round only at {100 * SURE:.0f} %."
    )
    return Table(
        "", ["Advice for a version", "Chance that the best one is better", "And"], rows, pin, widths=(26, 22, 52)
    )


def _not_the_lowest(study: Study) -> str:
    # Whoever sees a lower rate in the table than that of the version to move to wants to know why not that one.
    if study.decision is None:
        return ""
    options: Any = study.decision.options.set_index("version")
    lowest, best = str(options["rate"].astype(float).idxmin()), study.decision.best
    if lowest == best:
        return ""
    tried = options.loc[lowest]
    return (
        f" {literal(lowest)} has the lowest measured rate, from {count(tried['crashes'], 'crash', 'crashes')} in "
        f"{count(tried['host_days'], 'host-day')} ({between(tried['low'], tried['high'])} is possible). Adjusted, and with what each may "
        f"still turn out to be, {literal(best)} has the lowest rate to expect."
    )


def _rate(crashes: int, rate: float, low: float, high: float) -> str:
    return f"{figure(rate)} ({between(low, high)})" if crashes else f"0 (0 to {figure(high)})"


def worth(study: Study) -> list[str]:
    """What following the advice is worth, and what waiting would cost."""
    decision = study.decision
    if decision is None:
        return []
    stay, follow = decision.crashes_if_stay, decision.crashes_if_followed
    lines = [
        f"If nothing changes, expect {_crashes(stay)} by {study.module} a year in the whole fleet; with the moves above, {figure(follow)}."
    ]
    moved = [row for row in _by_advice(study, MOVES) if row.hosts_now]
    for row in moved:
        lines.append(
            f"Moving {_the_hosts(row)} off {literal(row.version)} avoids {_crashes(row.avoided)} a year "
            f"(90 % range {_range(row.avoided_low, row.avoided_high)}){_people(study, row)}."
        )
    if moved:
        if not _people(study, moved[0]):
            lines.append("Hours of users cannot be given: no inventory with numbers in a column users.")
        month = (stay - follow) / 12
        lines.append(
            f"It costs {count(sum(row.hosts_now for row in moved), 'reboot')}. Each month of waiting costs {_crashes(month)}{_proof(study, moved)}."
        )
    else:
        lines.append("Nothing to move, so waiting costs nothing that this evidence can show.")
    return lines


def _crashes(number: float) -> str:
    return f"{figure(number)} {'crash' if figure(number) == '1.0' else 'crashes'}"


def _range(low: float, high: float) -> str:
    return between(low, high) if low >= 0 else f"from {figure(-low)} more to {figure(max(high, 0))} fewer"


def _people(study: Study, row: Any) -> str:
    # User-hours by the users of the hosts that move, where the inventory has them.
    hosts = study.fleet.hosts
    if "users" not in hosts or study.decision is None:
        return ""
    mine = study.decision.moves.loc[study.decision.moves["from_version"] == row.version, "host"]
    users = pd.to_numeric(hosts.loc[hosts["host"].isin(mine), "users"], errors="coerce").mean()
    if not known(users):
        return ""
    low, high = (max(value, 0) * users * study.outage_hours for value in (row.avoided_low, row.avoided_high))
    middle = row.avoided * users * study.outage_hours
    return f": about {_round(middle)} user-hours ({_round(low)} to {_round(high)}), at {study.outage_hours:g} h for each of the {users:,.0f} users a host"


def _round(number: float) -> str:
    return f"{float(f'{number:.2g}'):,.0f}"


def _proof(study: Study, moved: Sequence[Any]) -> str:
    # What waiting until the usual proof would take, at today's pace.
    table: Any = study.needed
    waits = [
        row.weeks
        for row in table.itertuples()
        if row.version in {one.version for one in moved} and known(row.weeks) and row.weeks > 0
    ]
    if not waits:
        return ""
    weeks = max(waits)
    cost = sum(row.avoided for row in moved) * weeks / 52
    return f"; waiting for proof would take about {_weeks(weeks)} and {_crashes(cost)}"


def _weeks(weeks: float) -> str:
    whole = math.ceil(weeks)
    return count(whole, "week") if whole <= MOST_WEEKS else f"{whole / 52:,.0f} years"


# ---- page two --------------------------------------------------------------------------------------------------------


def open_questions(study: Study) -> list[Block]:
    """Which versions cannot be told apart yet, and how long that takes as the hosts run now."""
    decision = study.decision
    if decision is None:
        return [Text(study.why_none)]
    needed: Any = study.needed.set_index("version")
    rows = []
    for row in _by_advice(study, ("leave", "no_new_installs", "next_reboot")):
        way = needed.loc[row.version]
        pair = f"{literal(row.version)} against {literal(decision.best)}"
        rows.append([pair, chance(row.p_worse), *_still(way, row.p_worse)])
    if not rows:
        return [Text("Every version can be told apart: no further evidence is needed for this advice.")]
    better = f"Chance that {literal(decision.best)} is better"
    columns = ["Question", better, "Evidence still needed", "At today's pace"]
    turns = [words for words in decision.would_change if not words.startswith("no number")]
    return [Table("", columns, rows, widths=(30, 22, 30, 18)), *(Text(as_sentence(words)) for words in turns[:2])]


def _still(way: Any, worse: float) -> tuple[str, str]:
    if not known(way["needed"]):
        alike = 1 - ALIKE < worse < ALIKE
        return "more days on both versions; one alone cannot tell", "they look alike so far" if alike else "not known"
    if way["needed"] == 0:
        return "none", "can be told now"
    more = f"{count(math.ceil(way['needed']), 'host-day')} on this version"
    return more, _weeks(way["weeks"]) if known(way["weeks"]) else "no host runs it now"


def counted(study: Study) -> Table:
    """The reconciliation, from stops to the crashes in the rates."""
    return reconciliation(study.counts, study.module)


def calls(study: Study) -> list[str]:
    """When to stop moving hosts and call for help."""
    best = study.decision.best if study.decision else study.module
    target = literal(best if study.rollout is None else study.rollout.plan.to)
    return [
        f"A host that was moved to {target} crashes within its first week, whatever the cause.",
        f"A crash on {target} with a signature that this report does not list.",
        "After its reboot a host does not run the version that was ordered (psod verify says which do).",
        "A cluster loses a second host while one is being moved.",
    ]


def destination(study: Study, crash: Any) -> str | None:
    """The version that this brief sends a crash's host to; None where it lets the host stay."""
    if crash is None:
        return None
    ordered = [each.moves for each in [study.decision] if each] + [each.go_back for each in [study.rollout] if each]
    moves = pd.concat(ordered) if ordered else pd.DataFrame({"host": [], "to_version": []})
    mine = moves.loc[(moves["host"] == crash["host"]).fillna(False), "to_version"]
    return str(mine.iloc[0]) if len(mine) else None


def league(study: Study) -> Table:
    """All modules side by side: is it a driver at all, and which."""
    found: Any = driver_league(study.fleet)
    rows = [
        [
            literal(row.module), f"{row.crashes:,}", f"{row.hosts:,}", f"{row.host_days:,.0f}", f"{row.versions:,}", _worst(row),
            literal(row.known_issues, "–"),
        ]
        for row in found.head(MOST_MODULES).itertuples()
    ]  # fmt: skip
    why = f"{study.module} was taken because {study.why_module}." if study.why_module else ""
    left = len(found) - MOST_MODULES
    more = f"{left} more modules without a crash are not listed." if left > 0 else ""
    columns = [
        "Module",
        "Crashes",
        "Hosts",
        "Host-days",
        "Versions",
        "Worst against best version",
        "Known issues matched",
    ]
    return Table("", columns, rows, " ".join(filter(None, [why, more])), widths=(14, 10, 8, 12, 10, 26, 20))


def _worst(row: Any) -> str:
    if not known(row.ratio):
        return "–"
    return f"{literal(row.worst)}: {figure(row.ratio)} times {literal(row.best)} ({between(row.low, row.high if known(row.high) else math.inf)})"
