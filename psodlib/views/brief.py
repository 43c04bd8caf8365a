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
from psodlib.risk.rates import driver_league
from psodlib.views.cells import MOVES, option_columns, rollout_state
from psodlib.views.crash import not_whole, reasons_of, where
from psodlib.views.document import Block, Bullets, Document, Picture, Section, Table, Text, by_column, sections
from psodlib.views.study import Study, doubts, only_crashed, reconciliation, unknowns

from psodlib.views.words import (  # isort: skip
    as_sentence, between, chance, count, figure, holding, known, listing, literal, per_year, wait,
)  # fmt: skip
from psodlib.views.writeup import choose_crash, write_up

BLANK = "________"
MOST_LINES = 17  # of orders and versions; with more the picture goes, so that two pages stay two
MOST_CLUSTERS = 10  # rows of orders on the page; all of them are in tables/moves.csv
MOST_BACK = 12  # hosts that go back
MOST_HOSTS = 8  # named a row
MOST_MODULES, MOST_BLAMED = 12, 20
ALIKE = 0.6  # a chance nearer to one half tells nothing
STAY = ("leave", "no_new_installs")  # the advice that moves no host
MOST_DOUBTS = 10  # on the page; the index has them all
TO_DO = {
    "go_on": "The hosts of a wave that has begun move in the order of its turns; later waves wait for their week.",
    "hold": "Begin no further wave until what is named above is answered; hosts that have moved stay where they are.",
    "stop": "Move nobody else. Hosts go back in the order above, one turn after the other, never two of a cluster at once. This "
    "stands above the advice in the table below.",
}  # of a roll-out that is under way
NOBODY = {
    "hardware": "No module: the machine reported the error itself.", "deliberate": "No module: the crash was asked for.",
}  # fmt: skip
NO_MODULE = {"hardware": "hardware error", "deliberate": "asked for"}
NAMES = {"none found": "name none", "hardware error": "by hardware errors", "asked for": "asked for"}
KEEP = "Keep the dump and the logs (psod case packs them for the vendor); the write-up has the commands."


def brief(study: Study, pictures: Sequence[Picture | Text] = (), crash_id: str | None = None) -> Document:
    """The two pages; where there is nothing to choose between, one page about the newest crash and what to do now."""
    title, lead = f"{study.module}: what we run", verdict(study)
    if study.decision is None and study.rollout is None:
        title, lead, parts = _no_choice(study, crash_id)
    else:
        # About how many lines of print the two tables of the first page take.
        rows = [row for table in [*orders(study), versions(study)] if isinstance(table, Table) for row in table.rows]
        lines = sum(max(math.ceil(len(str(cell)) / 34) for cell in row) for row in rows)
        still = Section("What is open, and when we can tell", open_questions(study), overleaf=True)
        parts = [*answer(study, pictures[:1] if lines <= MOST_LINES else ()), still, *sections(
            ("What could make this wrong", doubts(study)[:MOST_DOUBTS]),
            ("How the crashes are counted", [counted(study)]),
            ("When to stop and call", calls(study)),
        )]  # fmt: skip
    return Document(
        title=title, subtitle=study.scope, lead=lead, tone=tone(study), facts=facts(study), sections=parts, notice=study.notice
    )  # fmt: skip


def answer(study: Study, pictures: Sequence[Picture | Text] = ()) -> list[Section]:
    """What to do, the one table and what it is worth; of a roll-out that is under way first how it stands."""
    this_week = ("This week", [*orders(study), Text("Not to do:"), Bullets(forbidden(study))])
    table = ("The versions", [versions(study)] if study.decision else [])
    if study.rollout is None:
        return sections(this_week, table, ("What it is worth", [Bullets(worth(study)), *pictures]))
    return sections(("The roll-out under way", rollout_state(study.rollout, MOST_BACK)[1:]), this_week, table)


# ---- page one --------------------------------------------------------------------------------------------------------


def verdict(study: Study) -> str:
    """What to do, in a sentence or two."""
    decision, module = study.decision, study.module
    if study.rollout is not None:
        plan = study.rollout.plan
        return f"Roll-out of {literal(plan.module)} {literal(plan.to)}. {literal(study.rollout.sentence)}"
    if decision is None:
        return _no_choice(study, None)[1]
    best, pin = literal(decision.best), f"Standardise on {module} {literal(decision.pin)}."
    moves = []
    for word, begin, end in (("move_now", "Move", " now"), ("next_reboot", "At their next planned reboot, move", "")):
        rows = [row for row in _by_advice(study, [word]) if row.hosts_now]
        who = listing((f"{_the_hosts(row)} on {module} {row.version}" for row in rows), empty="")
        moves += holding((who, f"{begin} {who} to {best}{end}."))
    rest = listing((row.version for row in _by_advice(study, STAY) if row.hosts_now), empty="")
    mine, counts = study.counts.module, study.counts
    why = " this week: no move is likely enough to help" if mine else ": no crash was caused by it"
    lines = holding(
        (decision.pin, pin), *((True, move) for move in moves),
        (not decision.pin and not moves, f"Change no {module} driver{why}."),
        (rest and mine, f"Leave hosts on {rest} where they are: whether {best} is better is still open."),
        (counts.deliberate + counts.hardware + counts.others > mine,
         f"Most crashes have another cause: {module} caused {mine or 'none'} of {counts.crashes:,}."),
    )  # fmt: skip
    return " ".join(lines)


def _the_hosts(row: Any) -> str:
    return "the one host" if row.hosts_now == 1 else f"the {count(row.hosts_now, 'host')}"


def _by_advice(study: Study, words: Sequence[str]) -> list[Any]:
    # In the order of the words, so that what is most urgent comes first.
    options: Any = study.decision.options if study.decision else pd.DataFrame()
    return [row for word in words for row in options.itertuples() if row.advice == word]


def tone(study: Study) -> str:
    """The colour beside the verdict: ``good`` for a pin, ``bad`` for hosts to move or a stop, else ``open``."""
    word = study.rollout.word if study.rollout else study.decision.verdict if study.decision else ""
    return {"go_on": "good", "pin": "good", "stop": "bad", "avoid": "bad"}.get(word, "open")


def facts(study: Study) -> list[tuple[str, str]]:
    """The few figures that stand above the fold."""
    return [
        ("Hosts", f"{len(study.fleet.hosts):,}"), ("Host-days watched", f"{study.exposure['host_days'].sum():,.0f}"),
        ("Crashes", f"{study.counts.crashes:,}"), (f"Caused by {study.driver}", f"{study.counts.module:,}"),
    ]  # fmt: skip


def _done(study: Study) -> bool:
    # A roll-out that is complete orders nothing more.
    return study.rollout is not None and study.rollout.word == "go_on" and len(study.rollout.effect) > 0


def orders(study: Study) -> list[Block]:
    """Who moves, cluster by cluster, with host names and empty places for owner and date."""
    decision, blocks = study.decision, []
    moves: Any = decision.moves if decision else pd.DataFrame()
    if study.rollout is not None:
        blocks = [Text("Nothing is left to move." if _done(study) else TO_DO[study.rollout.word])]
        blocks += [Text("Hosts that the plan does not name:")] if len(moves) else []
    elif moves.empty:
        runs = decision is not None and (decision.options["hosts_now"] > 0).any()
        unsure = "It is not known which version any host runs today."
        stays = "No host changes its driver this week." if runs else unsure
        # That no version is better makes no crash go away.
        go_on = f"The {study.counts.in_rates} crashes by {study.module} go on meanwhile: open a case with its vendor (psod case packs it)."
        more = [go_on, _goes_with(study)] if study.counts.in_rates >= FEW else []
        blocks = [Text(words) for words in (stays, *more)]
    if moves.empty:
        return list(blocks)
    rows = [
        [literal(cluster, "no cluster known"), listing(group["host"], MOST_HOSTS), f"{literal(old)} → {literal(new)}",
         "now" if advice == "move_now" else "next reboot", BLANK, BLANK]
        for (advice, cluster, old, new), group in moves.groupby(
            ["advice", "cluster", "from_version", "to_version"], observed=True, dropna=False, sort=False)
    ]  # fmt: skip
    columns = ["Cluster", "Hosts", study.module, "When", "Owner", "Date"]
    left = f"{len(rows) - MOST_CLUSTERS} more clusters are in tables/moves.csv." if len(rows) > MOST_CLUSTERS else ""
    how = (
        f"Begin with one host ({literal(moves['host'].iloc[0])}) and watch it for a week. Then go cluster by cluster, never two hosts of "
        "a cluster at once. The write-up has the commands and the check after each reboot."
    )
    few = f"These moves rest on {count(study.counts.in_rates, 'crash')} alone. If a reboot is dear here, wait for more."
    table = Table("", columns, rows[:MOST_CLUSTERS], left, widths=(14, 30, 22, 14, 10, 10))
    return [*blocks, table, *(Text(words) for words in holding((True, how), (study.counts.in_rates < FEW, few)))]


def _goes_with(study: Study) -> str:
    return f"What goes with them? {literal(attributes_of_driver(study.fleet, study.module).attrs['says'])}"


def forbidden(study: Study) -> list[str]:
    """What not to do."""
    decision, module = study.decision, study.module
    if study.rollout is not None and not _done(study):
        plan, stopped = study.rollout.plan, study.rollout.word == "stop"
        which = "any further host" if stopped else "a host whose wave has not begun, or that the plan does not name"
        return [f"Do not install {literal(plan.module)} {literal(plan.to)} on {which}."]
    if decision is None:
        return []
    avoided = listing((row.version for row in _by_advice(study, (*MOVES, "no_new_installs"))), empty="", last=" or ")
    stay = listing((row.version for row in _by_advice(study, STAY) if row.hosts_now), empty="", last=" or ")
    tie = f"Do not make {module} {literal(decision.best)} the standard yet"
    return holding(
        (avoided, f"Do not install {module} {avoided} on any further host."),
        (stay, f"Do not move hosts off {stay} because of this page: there is not enough to gain from it yet."),
        (not decision.pin, f"{tie}: another version may turn out to be as good or better."),
    )


def versions(study: Study) -> Table:
    """The one table: a row a version, as measured, with what to do."""
    decision = study.decision
    if decision is None:
        return Table("", [], [])
    options: list[Any] = list(decision.options.itertuples())
    best, lowest = next(row for row in options if row.advice == "keep"), min(options, key=lambda row: float(row.rate))
    # Whoever sees a lower rate in the table than that of the version to move to wants to know why not that one.
    tried = (
        f"{literal(lowest.version)} has the lowest measured rate, from {count(lowest.crashes, 'crash')} in "
        f"{count(lowest.host_days, 'host-day')} ({between(lowest.low, lowest.high)} is possible). Adjusted, and with what each may "
        f"still turn out to be, {literal(best.version)} has the lowest rate to expect."
    )
    thin = best.crashes < FEW and best.high > max(row.high for row in options if row is not best)
    note = holding(
        (thin, f"{literal(best.version)} is barely tried: {figure(best.high)} crashes per host-year are still possible."),
        (True, "Measured rates: crashes over host-days of the loaded version, not adjusted."),
        (True, "The chance is adjusted for hardware, uptime, season and for hosts that differ."),
        (study.rollout, "The probability in the roll-out's sentence is another: it holds only hosts of one model in the same weeks against each other."),
        (study.rollout, "The advice is that of the rule: a move that is under way is turned round at 95 % only."),
        (lowest is not best, tried),
    )  # fmt: skip
    marked = {at for at, row in enumerate(options) if row.advice in MOVES}
    return by_column(option_columns(decision), " ".join(note), widths=(12, 9, 11, 24, 9, 20, 15), marked=marked)


def worth(study: Study) -> list[str]:
    """What following the advice is worth, and what waiting would cost."""
    decision = study.decision
    if decision is None:
        return []
    stay, follow = decision.crashes_if_stay, decision.crashes_if_followed
    expected = f"expect {_crashes(stay)} by {study.module} a year in the whole fleet"
    if_not = f"As the hosts run now and at today's pace, {expected}"
    moved = [row for row in _by_advice(study, MOVES) if row.hosts_now]
    if not moved:
        return [f"{if_not}.", "Nothing to move, so waiting costs nothing that this evidence can show."]
    lines = [f"{if_not}; with the moves above, {figure(follow)}."]
    people = [_people(study, row) for row in moved]
    for row, hours in zip(moved, people, strict=True):
        off = f"Moving {_the_hosts(row)} off {literal(row.version)} avoids {_crashes(row.avoided)} a year"
        low, high = row.avoided_low, row.avoided_high
        reach = between(low, high) if low >= 0 else f"from {figure(-low)} more to {figure(max(high, 0))} fewer"
        lines.append(f"{off} (90 % range {reach}){hours}.")
    lines += holding((not people[0], "Hours of users cannot be given: no inventory with numbers in a column users."))
    # What waiting until the usual proof would take, at today's pace.
    weeks = max((way["weeks"] for row in moved if known((way := _way(study, row.version))["weeks"])), default=0)
    cost = _crashes(sum(row.avoided for row in moved) * float(weeks) / 52)
    proof = f"; waiting for proof would take about {wait(weeks)} and {cost}" if weeks > 0 else ""
    now = sum(row.hosts_now for row in moved if row.advice == "move_now")
    planned = "No host reboots for it alone: all wait for a reboot that is planned anyway."
    planned = f"It costs {count(now, 'reboot')} beside those that are planned anyway." if now else planned
    return [*lines, f"{planned} Each month of waiting costs {_crashes((stay - follow) / 12)}{proof}."]


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


# ---- page two --------------------------------------------------------------------------------------------------------


def open_questions(study: Study) -> list[Block]:
    """Which versions cannot be told apart yet, and how long that takes as the hosts run now."""
    decision = study.decision
    if decision is None:
        return [Text(study.why_none)]
    best = literal(decision.best)
    rows = [
        [f"{literal(row.version)} against {best}", chance(row.p_worse), *_still(_way(study, row.version), row.p_worse)]
        for row in _by_advice(study, ("leave", "no_new_installs", "next_reboot"))
    ]
    # The drivers that come next: whose versions differ too.
    others = [f"{name} ({count(crashes, 'crash')}, {count(versions, 'version')})"
              for name, crashes, versions in study.exposure.attrs.get("runners_up", ()) if versions > 1]  # fmt: skip
    also = f"Not weighed on this page: {listing(others)}. Each can be in the same way (psod report --module)."
    also_open = [Text(words) for words in holding((others, also))]
    if not rows:
        return [Text("Every version can be told apart: no further evidence is needed for this advice."), *also_open]
    columns = ["Question", f"Chance that {best} is better", "Evidence still needed", "At today's pace"]
    turned = [words for words in decision.would_change if "further host-days" not in words]  # these the table has
    return [
        Table("", columns, rows, widths=(30, 22, 30, 18)),
        *(Text(as_sentence(words)) for words in turned[:3]),
        *also_open,
    ]


def _way(study: Study, version: str) -> Any:
    # The shorter of two ways to tell a version from the best: more time on it, or, of the one that comes nearest, on the best.
    options: Any = study.decision.options if study.decision else pd.DataFrame()
    nearest = options.loc[options["advice"] != "keep"].nsmallest(1, "p_worse")["version"]
    either = (nearest == version).any() & (options["advice"] == "keep")
    ways = study.needed[study.needed["version"].isin([version, *options.loc[either, "version"]])]
    return ways.sort_values(["weeks", "needed"], na_position="last").iloc[0]


def _still(way: Any, worse: float) -> tuple[str, str]:
    if not known(way["needed"]):
        alike = 1 - ALIKE < worse < ALIKE
        return "more days on both versions; one alone cannot tell", "they look alike so far" if alike else "not known"
    if way["needed"] == 0:
        return "none", "can be told now"
    more = f"about {figure(way['needed'])} host-days on {literal(way['version'])}"
    return more, wait(way["weeks"]) if known(way["weeks"]) else "no host runs it now"


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
    for way, table in ((study.decision, "moves"), (study.rollout, "go_back")):
        if crash is not None and way is not None:
            for version in where(getattr(way, table), host=crash["host"])["to_version"].head(1):
                return str(version)
    return None


def league(study: Study) -> Table:
    """All modules side by side: is it a driver at all, and which."""
    found: Any = driver_league(study.fleet)
    rows = []
    for row in found.head(MOST_MODULES).itertuples():
        reach = between(row.low, row.high if known(row.high) else math.inf)
        times = f"{figure(row.ratio)} times {literal(row.best)} ({reach})"
        times = times if known(row.ratio) else f"at least {figure(row.low)} times {literal(row.best)}"
        worst = f"{literal(row.worst)}: {times}" if known(row.ratio) or (known(row.low) and row.low > 0) else "–"
        counts = [f"{row.crashes:,}", f"{row.hosts:,}", f"{row.host_days:,.0f}", f"{row.versions:,}"]
        rows.append([literal(row.module), *counts, worst, literal(row.known_issues, "–")])
    because = study.exposure.attrs.get("why", "")  # where nobody named a driver
    left = len(found) - MOST_MODULES
    note = holding(
        (because and study.module, f"{study.module} was taken because {because}."),
        (left > 0, f"{left} more modules, with fewer crashes or none, are not listed."),
    )
    columns = ["Module", "Crashes", "Hosts watched", "Host-days", "Versions watched", "Worst against best version"]
    columns.append("Known issues matched")
    return Table("", columns, rows, " ".join(note), widths=(14, 10, 8, 12, 10, 26, 20))


# ---- where there is nothing to choose between --------------------------------------------------------------------------


def no_driver_stands_out(study: Study) -> bool:
    """Whether the crashes have many causes and no version is to be chosen: then the driver in question is only the first."""
    crashes = study.fleet.crashes
    mine = 2 * study.counts.module > crashes["guilty_module"].notna().sum()
    return study.decision is None and study.rollout is None and len(crashes) > 1 and not mine


def _no_choice(study: Study, crash_id: str | None) -> tuple[str, str, list[Section]]:
    # Title, lead and sections of the page.
    fleet, crashes = study.fleet, study.fleet.crashes
    rates: Any = study.rates
    days = study.exposure["host_days"].sum()
    watched: list[Any] = list(rates[rates.index.notna() & (rates["host_days"] > 0)].itertuples())
    names = rates.index.dropna()
    only = f"Only {listing(names)} {'was' if len(names) == 1 else 'were'} watched"
    only = only if len(names) else f"No time with a known version of {study.driver} was watched"
    go_on = f"{only}. Collect the hosts that did not crash as well (psod collect): without them no rate can be given."
    # Enough crashes, and of a fleet of which not only the hosts that crashed are there.
    many = study.counts.in_rates >= FEW and study.exposure["host"].nunique() > 1 and not only_crashed(study)
    if many:
        on_few = "Try another one on a few hosts first: notebook 07 draws them, for the version that is named as to."
        go_on = f"{only}, so no version can be called better. {on_few}"
    elif not len(names) and days > 0:
        go_on = f"{only}. Collect each boot's logs and the list of VIBs of all hosts (psod collect): they name it."
    if crashes.empty:
        bounds = (f"{one.Index}: at most {per_year(one.upper_at_zero)} crashes per host-year" for one in watched)
        bound = f" {'; '.join(bounds)} (95 % bound)." if watched else ""
        nothing = "No crash was found, but no time was watched either: this says nothing of the hosts."
        lead = f"No crash in {count(days, 'host-day')} watched.{bound}" if days > 0 else nothing
        return "No crash was found", lead, sections(("What to do", [go_on]))
    # Of one version with many crashes: how often, and what goes with them, as the version cannot be the question.
    often = [
        f"{study.module} {literal(row.Index)}: {count(row.crashes, 'crash')} in {count(row.host_days, 'host-day')}, "
        f"{per_year(row.rate)} per host-year (95 % interval {per_year(row.low)} to {per_year(row.high)})."
        for row in watched
    ]
    story = [*often, _goes_with(study)] if many else []
    together, cannot = (f"All crashes by {study.module}", story), [study.why_none, *unknowns(study)]
    if no_driver_stands_out(study):
        issue = (crashes["known_issues"].fillna("") != "").any()
        steps = holding(
            (True, "Look at each crash on its own: explorer.html has its text, its suspects and its known issues."),
            (issue, "Where a known issue matches, check its conditions first."), (True, KEEP), (True, go_on),
        )  # fmt: skip
        lead, table = _scattered(crashes)
        return f"{len(crashes):,} crashes, and no driver stands out", lead, sections(
            ("Who is blamed", [table]), together, ("What to do now", steps), ("What this cannot say", cannot)
        )  # fmt: skip
    row: Any = choose_crash(fleet, crash_id, study.module)
    crash = fleet.crash(str(row["crash_id"]))
    suspects, issues, doubtful = (reasons_of(fleet, row, about) for about in ("suspect", "known_issue", "doubt"))
    what = f"The crash of {literal(crash.host, 'a host that the text does not name')}: what it is"
    all_of_them = f"{count(study.counts.module, '', f'crashes by {study.module}')}: what they are"
    title = f"{what if study.counts.module < 2 else all_of_them}, and what to do now"
    return title, _lead(study, crash), sections(
        ("What happened", [Text(write_up(fleet, row, typed={}).lead)]),
        ("Who is suspected, and why", suspects or [NOBODY.get(crash.guilt, "No module: the evidence names none.")]), together,
        ("How the crashes are counted", [counted(study)] if many else []), ("Known issues that fit", issues),
        ("What to do now", _now(study, crash, bool(issues)) + ([go_on] if study.module else [])),
        ("What this cannot say", [study.why_none, *not_whole(row), *doubtful, *unknowns(study)]),
    )  # fmt: skip


def _scattered(crashes: pd.DataFrame) -> tuple[str, Table]:
    # Crashes of many causes, as a folder of other people's texts has them: none is the one to act on.
    blamed, guilt = crashes["guilty_module"].astype("string"), crashes["guilt"].astype("string")
    most, nobody = blamed.value_counts(), guilt[blamed.isna()].map(NO_MODULE).fillna("none found")
    groups = sorted(crashes.groupby(blamed.fillna(nobody), sort=False), key=lambda pair: -len(pair[1]))
    rows = []
    for module, group in groups[:MOST_BLAMED]:
        signatures = group["signature"].astype("string").value_counts().index
        issues = sorted({word for words in group["known_issues"].dropna() for word in str(words).split(";") if word})
        signature = literal(signatures[0] if len(signatures) else None, "–")
        rows.append([literal(module), f"{len(group):,}", signature, literal(", ".join(issues) or None, "–")])
    left = len(groups) - MOST_BLAMED
    note = f"The signature seen most.{f' {left} more modules stand in tables/crashes.csv.' if left > 0 else ''}"
    many = len(most) and most.iloc[0] > 1
    top = f"{literal(most.index[0])} has the most, {most.iloc[0]}" if many else "none is blamed twice"
    named = f"{count(len(blamed.dropna()), 'crash blames', 'crashes blame')} {count(len(most), 'module')}"
    others = [f"{number} {NAMES[str(what)]}" for what, number in nobody.value_counts().items()]
    parts = [*holding((len(most), named)), *others]
    told = "; ".join([", ".join(parts), *holding((len(most), top))])
    lead = f"No driver stands out: {told}. Change no driver because of this page."
    columns = ["Module", "Crashes", "Signature", "Known issues matched"]
    return lead, Table("", columns, rows, note, widths=(18, 10, 44, 28))


def _lead(study: Study, crash: Any) -> str:
    if crash.guilt == "hardware":
        return "The machine reported a hardware error. Open a case with its vendor; change no driver because of this crash."
    if crash.guilt == "deliberate":
        return "A person asked for this crash. Change no driver because of it."
    if not known(crash.guilty_module):
        return "The evidence names no driver. Keep the dump and open a case; change no driver because of this crash."
    version = f" {literal(crash.driver_version)}" if known(crash.driver_version) else ""
    issue = " A known issue fits: check it first." if crash.known_issues else ""
    alone = len(study.fleet.crashes) == 1
    ranks = "One crash ranks no versions; it says where to look." if alone else study.why_none
    return f"The evidence points at {literal(crash.guilty_module)}{version}.{issue} {ranks}"


def _now(study: Study, crash: Any, issue: bool) -> list[str]:
    follow = "Follow the remedy of the known issue above; check its conditions against this host first."
    steps = holding((issue, follow))
    module, version = crash.guilty_module, crash.driver_version
    if known(version) and module in set(study.fleet.drivers["module"].dropna()):
        now = study.fleet.now(module)
        for waiting in where(now, host=crash.host)["pending"].dropna().head(1):
            given = f"{literal(crash.host)} was given {module} {literal(waiting)} after the crash"
            steps.append(f"{given}. Check that it is the one loaded; the steps are for the other hosts.")
        mine = len(where(study.fleet.crashes, host=crash.host, guilty_module=module))
        again = f"{literal(crash.host)} crashed {mine} times: have its hardware and firmware checked as well."
        steps += holding((mine >= FEW, again))
        if others := [host for host in where(now, version=version)["host"] if host != crash.host]:
            too = f"{count(len(others), 'other host runs', 'other hosts run')} {module} {literal(version)} too"
            steps.append(f"{too}: {listing(others)}. Install it nowhere else until the case is answered.")
    return [*steps, KEEP]
