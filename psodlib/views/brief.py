"""What we run tomorrow -> two pages for whoever decides: orders first, then what they rest on. Where there is nothing to choose
between (one version, one host, no crash, strangers' texts): what there is, and what to do now.

The index and the notebooks show the same sentences, each made from a ``Study`` by one small function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from psodlib.risk.association import FEW, attributes_of_driver
from psodlib.risk.cautions import OVERLAP
from psodlib.risk.decision import LIKELY, NEAR, RATHER, REBOOT_COST, SURE
from psodlib.risk.rates import driver_league
from psodlib.views.cells import ADVICE, MOVES
from psodlib.views.crash import describe_crash, reasons_of
from psodlib.views.document import Block, Bullets, Document, Picture, Section, Table, Text
from psodlib.views.rollout import rollout_state
from psodlib.views.study import Study, doubts, only_crashed, reconciliation, unknowns
from psodlib.views.words import as_sentence, between, chance, count, figure, known, listing, literal, per_year
from psodlib.views.writeup import choose_crash

BLANK = "________"
MOST_LINES = 17  # of orders and versions; with more the picture goes, so that two pages stay two
MOST_CLUSTERS = 10  # rows of orders on the page; all of them are in tables/moves.csv
MOST_BACK = 12  # hosts that go back
MOST_HOSTS = 8  # named a row
MOST_MODULES, MOST_BLAMED = 12, 20
ALIKE = 0.6  # a chance nearer to one half tells nothing
MOST_WEEKS = 104  # said in weeks; a longer wait in years
MOST_DOUBTS = 10  # on the page; the index has them all
TO_DO = {
    "go_on": "The hosts of a wave that has begun move in the order of its turns; later waves wait for their week.",
    "hold": "Begin no further wave until what is named above is answered; hosts that have moved stay where they are.",
    "stop": "Move nobody else. Hosts go back in the order above, one turn after the other, never two of a cluster at once. This "
    "stands above the advice in the table below.",
    "done": "Nothing is left to move.",
}  # of a roll-out that is under way
NOBODY = {
    "hardware": "No module: the machine reported the error itself.", "deliberate": "No module: the crash was asked for.",
}  # fmt: skip
KEEP = "Keep the dump and the logs (psod case packs them for the vendor); the write-up has the commands."


def brief(study: Study, pictures: Sequence[Picture | Text] = (), crash_id: str | None = None) -> Document:
    """The two pages; where there is nothing to choose between, one page about the newest crash and what to do now."""
    title, lead = f"{study.module}: what we run", verdict(study)
    if study.decision is None and study.rollout is None:
        title, lead, sections = _no_choice(study, crash_id)
    else:
        sections = [
            *answer(study, pictures[:1] if _lines(study) <= MOST_LINES else ()),
            Section("What is open, and when we can tell", open_questions(study), overleaf=True),
            Section("What could make this wrong", [Bullets(doubts(study)[:MOST_DOUBTS])]),
            Section("How the crashes are counted", [counted(study)]),
            Section("When to stop and call", [Bullets(calls(study))]),
        ]
    return Document(
        title=title, subtitle=study.scope, lead=lead, tone=tone(study), facts=facts(study), sections=sections,
        notice=study.notice,
    )  # fmt: skip


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


# ---- page one --------------------------------------------------------------------------------------------------------


def verdict(study: Study) -> str:
    """What to do, in a sentence or two."""
    decision, module = study.decision, study.module
    if study.rollout is not None:
        plan = study.rollout.plan
        return f"Roll-out of {literal(plan.module)} {literal(plan.to)}. {literal(study.rollout.sentence)}"
    if decision is None:
        return _no_choice(study, None)[1] if len(study.fleet.crashes) else study.why_none
    best, sentences = literal(decision.best), []
    for row in _by_advice(study, MOVES):
        now = row.advice == "move_now"
        if row.hosts_now:
            who = f"{'Move' if now else 'At their next planned reboot, move'} {_the_hosts(row)}"
            sentences.append(f"{who} on {module} {literal(row.version)} to {best}{' now' if now else ''}.")
    if decision.pin:
        sentences.insert(0, f"Standardise on {module} {literal(decision.pin)}.")
    if not sentences:
        sentences = [f"Change no {module} driver this week: no move is likely enough to help."]
    if rest := _by_advice(study, ("leave", "no_new_installs")):
        which = listing(row.version for row in rest)
        sentences.append(f"Leave hosts on {which} where they are: whether {best} is better is still open.")
    return " ".join(sentences)


def _the_hosts(row: Any) -> str:
    return "the one host" if row.hosts_now == 1 else f"the {count(row.hosts_now, 'host')}"


def _by_advice(study: Study, words: Sequence[str]) -> list[Any]:
    # In the order of the words, so that what is most urgent comes first.
    options: Any = study.decision.options if study.decision else pd.DataFrame()
    return [row for word in words for row in options.itertuples() if row.advice == word]


def tone(study: Study) -> str:
    """The colour beside the verdict: ``good`` for a pin, ``bad`` for hosts to move or a stop, else ``open``."""
    word = study.decision.verdict if study.decision else ""
    word = word if study.rollout is None else study.rollout.word
    return {"go_on": "good", "pin": "good", "stop": "bad", "avoid": "bad"}.get(word, "open")


def facts(study: Study) -> list[tuple[str, str]]:
    """The few figures that stand above the fold."""
    return [
        ("Hosts", f"{len(study.fleet.hosts):,}"), ("Host-days watched", f"{study.exposure['host_days'].sum():,.0f}"),
        ("Crashes", f"{study.counts.crashes:,}"), (f"Caused by {study.driver}", f"{study.counts.module:,}"),
    ]  # fmt: skip


def orders(study: Study) -> list[Block]:
    """Who moves, cluster by cluster, with host names and empty places for owner and date."""
    moves: Any = study.decision.moves if study.decision else pd.DataFrame()
    if study.rollout is not None:
        step = Text(TO_DO["done" if _done(study) else study.rollout.word])
        return [step] if moves.empty else [step, Text("Hosts that the plan does not name:"), *_ordered(study, moves)]
    if len(moves):
        return _ordered(study, moves)
    if study.decision is not None and (study.decision.options["hosts_now"] > 0).any():
        return [Text("No host changes its driver this week.")]
    return [Text("It is not known which version any host runs today.")]


def _done(study: Study) -> bool:
    # A roll-out that is complete orders nothing more.
    return study.rollout is not None and study.rollout.word == "go_on" and len(study.rollout.effect) > 0


def _ordered(study: Study, moves: Any) -> list[Block]:
    rows = []
    keys = ["advice", "cluster", "from_version", "to_version"]
    for (advice, cluster, old, new), group in moves.groupby(keys, observed=True, dropna=False, sort=False):
        change, when = f"{literal(old)} → {literal(new)}", "now" if advice == "move_now" else "next reboot"
        names = listing(group["host"], MOST_HOSTS)
        rows.append([literal(cluster, "no cluster known"), names, change, when, BLANK, BLANK])
    columns = ["Cluster", "Hosts", study.module, "When", "Owner", "Date"]
    left = f"{len(rows) - MOST_CLUSTERS} more clusters are in tables/moves.csv." if len(rows) > MOST_CLUSTERS else ""
    how = (
        f"Begin with one host ({literal(moves['host'].iloc[0])}) and watch it for a week. Then go cluster by cluster, never two hosts of "
        "a cluster at once. The write-up has the commands and the check after each reboot."
    )
    return [Table("", columns, rows[:MOST_CLUSTERS], left, widths=(14, 30, 22, 14, 10, 10)), Text(how)]


def forbidden(study: Study) -> list[str]:
    """What not to do."""
    decision, module = study.decision, study.module
    if study.rollout is not None and not _done(study):
        plan, stopped = study.rollout.plan, study.rollout.word == "stop"
        which = "any further host" if stopped else "a host whose wave has not begun, or that the plan does not name"
        return [f"Do not install {literal(plan.module)} {literal(plan.to)} on {which}."]
    if decision is None:
        return []
    avoided = listing((row.version for row in _by_advice(study, (*MOVES, "no_new_installs"))), empty="")
    stay = listing((row.version for row in _by_advice(study, ("leave", "no_new_installs")) if row.hosts_now), empty="")
    tie = f"Do not make {module} {literal(decision.best)} the standard yet"
    lines = [
        (avoided, f"Do not install {module} {avoided} on any further host."),
        (stay, f"Do not move hosts off {stay} because of this page: there is not enough to gain from it yet."),
        (not decision.pin, f"{tie}: another version may turn out to be as good or better."),
    ]
    return [line for holds, line in lines if holds]


def versions(study: Study) -> Table:
    """The one table: a row a version, as measured, with what to do."""
    options: Any = study.decision.options if study.decision else pd.DataFrame()
    rows = [
        [
            literal(row.version), f"{row.crashes:,}", f"{row.host_days:,.0f}", f"{figure(row.rate)} ({between(row.low, row.high)})" if row.crashes else f"0 (0 to {figure(row.high)})",
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
    columns = ["Advice for a version", "Chance that the best one is better", "And"]
    return Table("", columns, rows, pin, widths=(26, 22, 52))


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
        f" {literal(lowest)} has the lowest measured rate, from {count(tried['crashes'], 'crash')} in "
        f"{count(tried['host_days'], 'host-day')} ({between(tried['low'], tried['high'])} is possible). Adjusted, and with what each may "
        f"still turn out to be, {literal(best)} has the lowest rate to expect."
    )


def worth(study: Study) -> list[str]:
    """What following the advice is worth, and what waiting would cost."""
    decision = study.decision
    if decision is None:
        return []
    stay, follow = decision.crashes_if_stay, decision.crashes_if_followed
    if_not = f"If nothing changes, expect {_crashes(stay)} by {study.module} a year in the whole fleet"
    lines = [f"{if_not}; with the moves above, {figure(follow)}."]
    moved = [row for row in _by_advice(study, MOVES) if row.hosts_now]
    for row in moved:
        off = f"Moving {_the_hosts(row)} off {literal(row.version)} avoids {_crashes(row.avoided)} a year"
        low, high = row.avoided_low, row.avoided_high
        reach = between(low, high) if low >= 0 else f"from {figure(-low)} more to {figure(max(high, 0))} fewer"
        lines.append(f"{off} (90 % range {reach}){_people(study, row)}.")
    if not moved:
        return [*lines, "Nothing to move, so waiting costs nothing that this evidence can show."]
    if not _people(study, moved[0]):
        lines.append("Hours of users cannot be given: no inventory with numbers in a column users.")
    reboots = count(sum(row.hosts_now for row in moved), "reboot")
    month = f"Each month of waiting costs {_crashes((stay - follow) / 12)}{_proof(study, moved)}."
    return [*lines, f"It costs {reboots}. {month}"]


def _crashes(number: float) -> str:
    return f"{figure(number)} {'crash' if figure(number) == '1.0' else 'crashes'}"


def _people(study: Study, row: Any) -> str:
    # User-hours by the users of the hosts that move, where the inventory has them.
    hosts, hours = study.fleet.hosts, study.outage_hours
    if "users" not in hosts or study.decision is None:
        return ""
    mine = study.decision.moves.loc[study.decision.moves["from_version"] == row.version, "host"]
    users = pd.to_numeric(hosts.loc[hosts["host"].isin(mine), "users"], errors="coerce").mean()
    if not known(users):
        return ""
    numbers = (row.avoided, max(row.avoided_low, 0), max(row.avoided_high, 0))
    middle, low, high = (f"{float(f'{number * users * hours:.2g}'):,.0f}" for number in numbers)
    return f": about {middle} user-hours ({low} to {high}), at {hours:g} h for each of the {users:,.0f} users a host"


def _proof(study: Study, moved: Sequence[Any]) -> str:
    # What waiting until the usual proof would take, at today's pace.
    needed: Any = study.needed
    waiting = needed["version"].isin([row.version for row in moved]) & (needed["weeks"] > 0).fillna(False)
    waits = needed.loc[waiting, "weeks"]
    if waits.empty:
        return ""
    cost = sum(row.avoided for row in moved) * float(waits.max()) / 52
    return f"; waiting for proof would take about {_weeks(float(waits.max()))} and {_crashes(cost)}"


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
    best = literal(decision.best)
    rows = [
        [f"{literal(row.version)} against {best}", chance(row.p_worse), *_still(needed.loc[row.version], row.p_worse)]
        for row in _by_advice(study, ("leave", "no_new_installs", "next_reboot"))
    ]
    if not rows:
        return [Text("Every version can be told apart: no further evidence is needed for this advice.")]
    columns = ["Question", f"Chance that {best} is better", "Evidence still needed", "At today's pace"]
    turned = [words for words in decision.would_change if not words.startswith("no number")]
    return [Table("", columns, rows, widths=(30, 22, 30, 18)), *(Text(as_sentence(words)) for words in turned[:2])]


def _still(way: Any, worse: float) -> tuple[str, str]:
    if not known(way["needed"]):
        alike = 1 - ALIKE < worse < ALIKE
        return "more days on both versions; one alone cannot tell", "they look alike so far" if alike else "not known"
    if way["needed"] == 0:
        return "none", "can be told now"
    more = f"{count(math.ceil(way['needed']), 'host-day')} on this version"
    return more, _weeks(way["weeks"]) if known(way["weeks"]) else "no host runs it now"


counted = reconciliation  # from stops to the crashes in the rates


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
    because = study.exposure.attrs.get("why", "")  # where nobody named a driver
    why = f"{study.module} was taken because {because}." if because and study.module else ""
    left = len(found) - MOST_MODULES
    more = f"{left} more modules without a crash are not listed." if left > 0 else ""
    columns = ["Module", "Crashes", "Hosts", "Host-days", "Versions", "Worst against best version"]
    columns.append("Known issues matched")
    return Table("", columns, rows, " ".join(filter(None, [why, more])), widths=(14, 10, 8, 12, 10, 26, 20))


def _worst(row: Any) -> str:
    if not known(row.ratio):
        return "–"
    high = row.high if known(row.high) else math.inf
    return f"{literal(row.worst)}: {figure(row.ratio)} times {literal(row.best)} ({between(row.low, high)})"


# ---- where there is nothing to choose between --------------------------------------------------------------------------


def no_driver_stands_out(study: Study) -> bool:
    """Whether the crashes have many causes and there is no version to choose: then the driver in question is only the first of them."""
    crashes = study.fleet.crashes
    mine = 2 * study.counts.module > crashes["guilty_module"].notna().sum()
    return study.decision is None and study.rollout is None and len(crashes) > 1 and not mine


def _no_choice(study: Study, crash_id: str | None) -> tuple[str, str, list[Section]]:
    # Title, lead and sections of the page.
    if study.fleet.crashes.empty:
        return "No crash was found", _quiet(study), _bullets(("What to do", _go_on(study)))
    together = (f"All crashes by {study.module}", _together(study))
    if no_driver_stands_out(study):
        steps = ["Look at each crash on its own: explorer.html has its text, its suspects and its known issues."]
        if (study.fleet.crashes["known_issues"].fillna("") != "").any():
            steps.append("Where a known issue matches, check its conditions first.")
        lead, table = _scattered(study)
        to_do = ("What to do now", [*steps, KEEP, *_go_on(study)])
        cannot = ("What this cannot say", [study.why_none, *unknowns(study)])
        title = f"{len(study.fleet.crashes):,} crashes, and no driver stands out"
        return title, lead, [Section("Who is blamed", [table]), *_bullets(together, to_do, cannot)]
    row: Any = choose_crash(study.fleet, crash_id, study.module)
    crash = study.fleet.crash(str(row["crash_id"]))
    suspects, issues, doubtful = (reasons_of(study.fleet, row, about) for about in ("suspect", "known_issue", "doubt"))
    many = count(study.counts.module, f"crash by {study.module}", f"crashes by {study.module}")
    what = f"The crash of {literal(crash.host, 'a host that the text does not name')}: what it is"
    title = f"{what if study.counts.module < 2 else f'{many}: what they are'}, and what to do now"
    return title, _lead(study, crash), [Section("What happened", [describe_crash(crash)]), *_bullets(
        ("Who is suspected, and why", suspects or [NOBODY.get(crash.guilt, "No module: the evidence names none.")]), together, ("Known issues that fit", issues),
        ("What to do now", [*_now(study, crash, bool(issues)), *(_go_on(study) if study.module else ())]),
        ("What this cannot say", [study.why_none, *doubtful, *unknowns(study)]),
    )]  # fmt: skip


def _bullets(*parts: tuple[str, list[str]]) -> list[Section]:
    return [Section(title, [Bullets(lines)]) for title, lines in parts if lines]


def _scattered(study: Study) -> tuple[str, Table]:
    # Crashes of many causes, as a folder of other people's texts has them: none is the one to act on.
    crashes = study.fleet.crashes
    blamed = crashes["guilty_module"].astype("string")
    most, nobody = blamed.value_counts(), int(blamed.isna().sum())
    groups = sorted(crashes.groupby(blamed.fillna("none found"), sort=False), key=lambda pair: -len(pair[1]))
    rows = []
    for module, group in groups[:MOST_BLAMED]:
        signatures = group["signature"].astype("string").value_counts().index
        issues = sorted({word for words in group["known_issues"].dropna() for word in str(words).split(";") if word})
        signature = literal(signatures[0] if len(signatures) else None, "–")
        rows.append([literal(module), f"{len(group):,}", signature, literal(", ".join(issues) or None, "–")])
    left = len(groups) - MOST_BLAMED
    note = f"The signature seen most.{f' {left} more modules stand in tables/crashes.csv.' if left > 0 else ''}"
    columns = ["Module", "Crashes", "Signature", "Known issues matched"]
    many = len(most) and most.iloc[0] > 1
    top = f"{literal(most.index[0])} has the most, {most.iloc[0]}" if many else "none is blamed twice"
    named = count(int(blamed.notna().sum()), "crash blames", "crashes blame")
    none = f", {nobody} name none" if nobody else ""
    lead = f"No driver stands out: {named} {count(len(most), 'module')}{none}; {top}. Change no driver because of this page."
    return lead, Table("", columns, rows, note, widths=(18, 10, 44, 28))


def _watched(study: Study) -> Any:
    # The rates of the versions that are known and were watched.
    rates: Any = study.rates
    return rates[rates.index.notna() & (rates["host_days"] > 0)].itertuples()


def _many(study: Study) -> bool:
    # Enough crashes, and of a fleet of which not only the hosts that crashed are there.
    return study.counts.in_rates >= FEW and not only_crashed(study)


def _together(study: Study) -> list[str]:
    # Of one version with many crashes: how often, and what goes with them, as the version cannot be the question.
    if not _many(study):
        return []
    often = [
        f"{study.module} {literal(row.Index)}: {count(row.crashes, 'crash')} in {count(row.host_days, 'host-day')}, "
        f"{per_year(row.rate)} per host-year (95 % interval {per_year(row.low)} to {per_year(row.high)})."
        for row in _watched(study)
    ]
    return [*often, literal(attributes_of_driver(study.fleet, study.module).attrs["says"])]


def _lead(study: Study, crash: Any) -> str:
    if crash.guilt == "hardware":
        return "The machine reported a hardware error. Open a case with its vendor; change no driver because of this crash."
    if crash.guilt == "deliberate":
        return "A person asked for this crash. Change no driver because of it."
    if not known(crash.guilty_module):
        return "The evidence names no driver. Keep the dump and open a case; change no driver because of this crash."
    version = f" {literal(crash.driver_version)}" if known(crash.driver_version) else ""
    issue = " A known issue fits: check it first." if crash.known_issues else ""
    one = "One crash ranks no versions; it says where to look."
    ranks = one if len(study.fleet.crashes) == 1 else study.why_none
    return f"The evidence points at {literal(crash.guilty_module)}{version}.{issue} {ranks}"


def _quiet(study: Study) -> str:
    rates = _watched(study)
    bounds = "; ".join(f"{row.Index}: at most {per_year(row.upper_at_zero)} crashes per host-year" for row in rates)
    days = count(study.exposure["host_days"].sum(), "host-day")
    return f"No crash in {days} watched.{f' {bounds} (95 % bound).' if bounds else ''}"


def _now(study: Study, crash: Any, issue: bool) -> list[str]:
    remedy = "Follow the remedy of the known issue above; check its conditions against this host first."
    steps = [remedy] if issue else []
    module, version = crash.guilty_module, crash.driver_version
    if known(version) and module in set(study.fleet.drivers["module"].dropna()):
        now = study.fleet.now(module)
        waiting = now.loc[now["host"] == crash.host, "pending"].dropna()
        if len(waiting):
            given = f"{literal(crash.host)} was given {module} {literal(waiting.iloc[0])} after the crash"
            steps.append(f"{given}. Check that it is the one loaded; the steps are for the other hosts.")
        same = now.loc[(now["version"] == version).fillna(False), "host"]
        if others := [host for host in same if host != crash.host]:
            too = f"{count(len(others), 'other host runs', 'other hosts run')} {module} {literal(version)} too"
            steps.append(f"{too}: {listing(others)}. Install it nowhere else until the case is answered.")
    return [*steps, KEEP]


def _go_on(study: Study) -> list[str]:
    watched = listing(name for name in study.rates.index if known(name))
    if _many(study):
        only = f"Only {watched} was watched, so no version can be called better"
        return [f"{only}. Try another one on a few hosts first: notebook 07 draws them."]
    none = f"No time with a known version of {study.driver} was watched."
    more = none if watched == "none" else f"Only {watched} was watched."
    return [f"{more} Collect the hosts that did not crash as well (psod collect): without them no rate can be given."]
