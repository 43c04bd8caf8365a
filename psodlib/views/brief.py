"""A fleet and one driver -> the content of the two-page brief for management, and the sentences that every page shares.

Each sentence with a number is made from the tables by one small function. ``document.py`` turns the content into HTML and
PDF.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from psodlib.errors import InputError
from psodlib.fleet import Fleet
from psodlib.risk.decision import PinDecision, decide_pin, expected_impact
from psodlib.risk.exposure import exposure, unplaced_crashes
from psodlib.risk.rates import RateRatio, crash_rates
from psodlib.views.document import Bullets, Document, Picture, Section, Table, Text
from psodlib.views.pace import still_needed
from psodlib.views.prose import unheard
from psodlib.views.words import between, count, days, figure, known, listing, literal, per_year, share
from psodlib.views.writeup import SIMULATED

__all__ = [
    "Study", "brief", "cautions", "cost", "facts", "next_steps", "reasons", "scope", "shown", "study", "tone", "turns", "unknowns",
    "verdict",
]  # fmt: skip

# For a reader who has never met an interval.
RANGES = (
    "A line below is the range in which the true multiple lies, as far as this evidence can tell: of 20 ranges made this "
    "way, 19 hold the truth. A range across 1 means that either version may be the better one."
)
# What `expected_impact` reckons with, so that nobody multiplies a rate by the hosts and finds another number.
BASIS = (
    "The version with most crashes stands with its own rate; others with 5 crashes or more with that rate times their "
    "adjusted ratio; those with fewer with their own rate, unadjusted."
)
MOST_CAUTIONS = 3  # in two pages; the report's first page has them all
MOST_WEEKS = 104  # said in weeks; a longer wait in years
MOST_REASONS = 4
MOST_TURNS = 3
MOST_CANDIDATES = 3  # by default; each pair is a contrast, and each contrast makes the others harder to tell


@dataclass(frozen=True)
class Study:
    """What a fleet says of one driver, computed once for every page."""

    fleet: Fleet  # the tables
    module: str  # the driver in question
    exposure: pd.DataFrame  # what ``exposure`` and ``crash_rates`` gave
    rates: pd.DataFrame  # what ``exposure`` and ``crash_rates`` gave
    candidates: tuple[str, ...]  # the versions to choose between
    decision: PinDecision | None  # none where no decision can be made; ``why_none`` says why
    why_none: str = ""  # A sentence, empty when there is a decision
    outage_hours: float = 1.0  # hours until the users of a crashed host work again

    @cached_property
    def hosts_now(self) -> pd.Series:
        """Hosts by the version they loaded last; index ``version``, unknown left out."""
        newest = self.exposure.sort_values("start").groupby("host", observed=True).tail(1)
        return newest["version"].dropna().value_counts()


def study(
    fleet: Fleet, module: str = "hpsa", candidates: Sequence[str] | None = None, outage_hours: float = 1.0
) -> Study:
    """Exposure, rates and decision of one driver."""
    if not outage_hours > 0:
        raise InputError(f"outage_hours is {outage_hours}; expected a number of hours above 0")
    stretches = exposure(fleet, module=module)
    rates = crash_rates(stretches, by="version")
    seen = rates[rates.index.notna()].nlargest(MOST_CANDIDATES, "host_days").index
    strange = [name for name in candidates or () if name not in rates.index]
    if strange:
        raise InputError(
            f"candidate {strange[0]!r}: no host had it loaded; the evidence shows {listing(rates.index.dropna())}"
        )
    chosen = tuple(candidates or sorted(seen))
    decision, why_none = _decided(stretches, module, chosen)
    return Study(fleet, module, stretches, rates, chosen, decision, why_none, outage_hours)


def _decided(stretches: pd.DataFrame, module: str, chosen: Sequence[str]) -> tuple[PinDecision | None, str]:
    if len(chosen) < 2:
        seen = f"only {module} {literal(chosen[0])}" if chosen else f"no known version of {module}"
        return None, f"There is nothing to choose between: {seen} has host-days that were watched."
    try:
        return decide_pin(stretches, chosen), ""
    except InputError as error:  # such as: only hosts that crashed are given
        return None, f"No decision can be made: {error}."


def brief(study: Study, pictures: Sequence[Picture | Text] = ()) -> Document:
    """The management brief of a study: two pages."""
    return Document(
        title=f"Which {study.module} driver to pin",
        subtitle=scope(study),
        lead=verdict(study),
        tone=tone(study),
        notice=SIMULATED if study.fleet.simulated else "",
        facts=facts(study),
        sections=[
            Section("What the evidence shows", [*pictures[:1], Bullets(shown(study))]),
            Section("What each choice costs", cost(study)),
            *([Section("How the versions came and went", pictures[2:3])] if len(pictures) > 2 else []),
            Section(
                "How sure that is",
                [
                    *(Text(RANGES) for drawn in pictures[1:2] if isinstance(drawn, Picture)),
                    *pictures[1:2],
                    Bullets(reasons(study)[:MOST_REASONS]),
                ],
            ),
            Section("What we do not know", [Bullets([*unknowns(study), *cautions(study)[:MOST_CAUTIONS]])]),
            Section("What would change the answer", [Bullets(turns(study)[:MOST_TURNS])]),
            Section("What happens next", [Bullets(next_steps(study))]),
        ],
    )


# ---- the sentences -------------------------------------------------------------------------------------------


def verdict(study: Study) -> str:
    """The answer in one sentence."""
    decision = study.decision
    if decision is None:
        return study.why_none
    if decision.verdict == "pin":
        return f"Pin {study.module} {literal(decision.pin)}: {listing(_contrasts(decision, decision.pin))}."
    if decision.verdict == "avoid":
        others = listing(name for name in study.candidates if name not in decision.avoid)
        return (
            f"Move off {study.module} {listing(decision.avoid)}. Which of the others to pin ({others}) the evidence"
            " does not decide yet."
        )
    return f"Undecided: no version of {study.module} can be called better yet. {_needed(study)}"


def tone(study: Study) -> str:
    """The colour beside the verdict: ``good`` for a pin, ``bad`` for a version to leave, else ``open``."""
    word = study.decision.verdict if study.decision else "undecided"
    return {"pin": "good", "avoid": "bad"}.get(word, "open")


def _contrasts(decision: PinDecision, pin: str | None) -> list[str]:
    # The pinned version against each other one, always told from the other's side: how much worse it is.
    return [_worse(ratio, ratio.version != pin) for ratio in decision.ratios if pin in (ratio.version, ratio.reference)]


def _worse(ratio: RateRatio, as_is: bool) -> str:
    name = literal(ratio.version if as_is else ratio.reference)
    middle, low, high = (
        (ratio.ratio, ratio.low, ratio.high) if as_is else (_over(ratio.ratio), _over(ratio.high), _over(ratio.low))
    )
    percent = f"{100 * (1 - ratio.alpha):g} % interval"
    if low <= 0 and math.isinf(high):
        return f"of {name} nothing can be said yet"
    if math.isinf(middle) or math.isnan(middle):
        return f"{name} crashes at least {figure(low)} times as often ({percent})"
    return f"{name} crashes {figure(middle)} times as often ({percent} {between(low, high)})"


def _over(value: float) -> float:
    return math.inf if value == 0 else 1 / value


def _rate(row: pd.Series) -> str:
    rates = f"{per_year(row['rate'])} per host-year, 95 % interval {between(row['low'] * 365.25, row['high'] * 365.25)}"
    return f"{count(row['crashes'], 'crash', 'crashes')} in {count(row['host_days'], 'host-day')} ({rates})"


def _needed(study: Study) -> str:
    # At the pace of the hosts as they run now: nobody should load a suspect everywhere to learn the sooner.
    table: Any = still_needed(study.decision, study.exposure)
    waiting = table[(table["weeks"] > 0).fillna(False)]
    if len(waiting):
        first = waiting.loc[waiting["weeks"].idxmin()]
        weeks = math.ceil(first["weeks"])
        soonest = count(weeks, "week") if weeks <= MOST_WEEKS else f"{weeks / 52:,.0f} years"
        more = f"{count(math.ceil(first['needed']), 'more host-day')} on {literal(first['version'])}"
        return f"As the hosts run now, the soonest that a verdict could fall is in {soonest}, after {more}."
    if (table["needed"] > 0).fillna(False).any():
        return "No verdict is under way: no host runs a version that lacks host-days."
    return "No number of further host-days on one version alone would decide it, were they to go on as so far."


def scope(study: Study) -> str:
    """Of which fleet and which time this speaks."""
    hosts = study.fleet.hosts
    seen = hosts["first_seen"].min(), hosts["last_seen"].max()
    dates = f", {days(*seen)}" if known(seen[0]) else ""
    return f"{count(len(hosts), 'host')}{dates}; evidence read by psodlib"


def facts(study: Study) -> list[tuple[str, str]]:
    """The few figures that stand above the fold."""
    return [
        ("Hosts", f"{len(study.fleet.hosts):,}"),
        ("Host-days watched", f"{study.exposure['host_days'].sum():,.0f}"),
        (f"Crashes laid at {study.module}", _laid(study)),
        ("Crashes with no module found", _nobody(study)),
    ]


def _nobody(study: Study) -> str:
    # Boots that ended in a crash whose text is lost are counted as such crashes too, in rates and under the charts.
    named, lost = int((study.fleet.crashes["guilt"] == "none").sum()), _lost_texts(study.fleet)
    return f"{named + lost:,}" + (f"; {lost:,} without a text" if lost else "")


def _laid(study: Study) -> str:
    # Rates count fewer crashes than the table holds; said where the two numbers first meet.
    laid = int((study.fleet.crashes["guilty_module"] == study.module).sum())
    counted = int(study.exposure["crashes"].sum())
    return f"{laid:,} of {len(study.fleet.crashes):,}" + (f"; {counted:,} in rates" if counted != laid else "")


def shown(study: Study) -> list[str]:
    """What the evidence shows of each version."""
    named = study.rates[study.rates["rate"].notna()]
    named = named[named.index.notna()]
    lines = [f"{study.module} {literal(version)}: {_rate(row)}." for version, row in named.head(6).iterrows()]
    return lines or [f"No host-day with a known version of {study.module} was seen."]


def reasons(study: Study) -> list[str]:
    """Why the verdict is what it is, as the decision gives it, without its ``cautions``."""
    if study.decision is None:
        return [study.why_none]
    warnings = _warnings(study)
    return [_sentence(reason) for reason in study.decision.reasons if not reason.endswith(warnings)]


def cautions(study: Study) -> list[str]:
    """What the decision warns of: adjustments it could not make, and how far it can be trusted."""
    warnings = _warnings(study)
    given = study.decision.reasons if study.decision else ()
    return [_sentence(reason) for reason in given if reason.endswith(warnings)]


def _warnings(study: Study) -> tuple[str, ...]:
    # As the ratios bear them; among the reasons one may stand behind the name of its contrast.
    return tuple(line for ratio in (study.decision.ratios if study.decision else ()) for line in ratio.warnings)


def _sentence(words: object) -> str:
    # The decision speaks in clauses; a page wants a capital letter and a full stop.
    text = literal(words).strip()
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


def cost(study: Study) -> list[Table | Text]:
    """What a year with every host on one version would cost, a row a candidate."""
    if not study.candidates:
        return [Text(f"Not to be said: no known version of {study.module} has host-days that were watched.")]
    hosts = _with_numbers(study.fleet.hosts)
    try:
        impact = expected_impact(study.exposure, study.candidates, hosts=hosts, outage_hours=study.outage_hours)
    except InputError as error:
        return [Text(f"Not to be said: {error}.")]
    kinds = [("crashes", "crashes_per_year", "Crashes a year")]
    kinds += [
        (word, f"{word}_per_year", f"{label} a year")
        for word, label in (("user_hours", "User-hours"), ("vm_hours", "VM-hours"))
        if f"{word}_per_year" in impact
    ]
    rows = [
        [
            literal(version),
            *(
                f"{figure(row[middle])} ({between(row[f'{word}_low'], row[f'{word}_high'])})"
                for word, middle, _ in kinds
            ),
        ]
        for version, row in impact.iterrows()
    ]
    return [
        Table(
            f"A year with all {len(hosts):,} hosts on one version (95 % interval)",
            ["Version", *(label for *_, label in kinds)],
            rows,
        ),
        Text(f"{BASIS} {_assumption(study, len(kinds) > 1)}"),
    ]


def _with_numbers(hosts: pd.DataFrame) -> pd.DataFrame:
    # An inventory may hold anything; only numbers count as users.
    return hosts.assign(
        **{name: pd.to_numeric(hosts[name], errors="coerce") for name in ("users", "vms") if name in hosts}
    )


def _assumption(study: Study, with_people: bool) -> str:
    if not with_people:
        return "User-hours cannot be said: no inventory with a column users or vms was given."
    return (
        f"Reckoned with {study.outage_hours:g} h until the users of a crashed host work again (an assumption)"
        " and the average number of users and virtual machines a host in the inventory."
    )


def unknowns(study: Study) -> list[str]:
    """What cannot be said, and how much of it there is."""
    fleet = study.fleet
    lines = [
        _unwatched(fleet),
        _unplaced(study),
        _unversioned(study),
        _unblamed(fleet),
        _textless(fleet),
        _unexplained(fleet),
        _unheard(fleet),
        _only_crashed(fleet),
        _unread(fleet),
    ]
    if "cluster" not in fleet.hosts or fleet.hosts["cluster"].isna().all():
        lines.append(
            "No cluster is known for any host (no inventory was given, or it has no such column), so clusters are not"
            " told apart."
        )
    return [line for line in lines if line] or [
        "Nothing was found missing in the evidence; causes other than the driver are still not ruled out."
    ]


def _unwatched(fleet: Fleet) -> str:
    lived, watched = (fleet.uptimes[name].dt.total_seconds().sum() / 86400 for name in ("uptime", "observed"))
    if lived - watched < 1:
        return ""
    gap = lived - watched
    return (
        f"{count(gap, 'host-day')} ({share(gap, lived)} of the time hosts were up) have no evidence; crashes in them"
        " are not counted."
    )


def _unplaced(study: Study) -> str:
    lost = unplaced_crashes(study.fleet, study.module)
    if lost.empty:
        return ""
    lies, laid = count(len(lost), "crash lies", "crashes lie"), int((lost["guilty_module"] == study.module).sum())
    return f"{lies} in time that nobody watched and {'is' if len(lost) == 1 else 'are'} in no rate ({laid:,} laid at {study.module})."


def _unversioned(study: Study) -> str:
    stretches = study.exposure
    unnamed = stretches.loc[stretches["version"].isna(), "host_days"].sum()
    if not unnamed:
        return ""
    return (
        f"For {count(unnamed, 'host-day')} ({share(unnamed, stretches['host_days'].sum())} of those watched) it is not known"
        f" which version of {study.module} was loaded."
    )


def _unblamed(fleet: Fleet) -> str:
    number = int((fleet.crashes["guilt"] == "none").sum())
    if not number:
        return ""
    crashes = count(number, "crash names", "crashes name")
    return f"{crashes} no module. The ratio is given with and without them."


def _lost_texts(fleet: Fleet) -> int:
    boots = fleet.uptimes
    return int(((boots["end_reason"] == "crash") & boots["crash_id"].isna()).sum())


def _textless(fleet: Fleet) -> str:
    number = _lost_texts(fleet)
    ended = count(number, "boot ended in a crash", "boots ended in a crash")
    return f"{ended} whose text is lost; each counts as a crash with no module found." if number else ""


def _unexplained(fleet: Fleet) -> str:
    number = int((fleet.uptimes["end_reason"] == "unexplained").sum())
    return (
        f"{count(number, 'stop')} of a host left no explanation: each may be a crash whose dump was lost."
        if number
        else ""
    )


def _unheard(fleet: Fleet) -> str:
    number = len(unheard(fleet))
    return f"{count(number, 'host')} of the inventory left no evidence at all." if number else ""


def _only_crashed(fleet: Fleet) -> str:
    # Dumps are sent in by those who crashed: a fleet of such hosts alone has rates that no other fleet has.
    hosts = set(fleet.uptimes["host"].dropna()) | set(fleet.crashes["host"].dropna())
    if len(hosts) < 2 or not hosts <= set(fleet.crashes["host"].dropna()):
        return ""
    return (
        f"All {len(hosts):,} hosts in the evidence crashed. If only hosts that crashed were collected, every rate here is"
        " too high, and a version that kept its hosts quiet is missing."
    )


def _unread(fleet: Fleet) -> str:
    # Hosts without evidence and crashes in no rate have a sentence of their own.
    number = int((~fleet.problems["problem"].isin(["no_evidence", "unplaced_crash"])).sum())
    if not number:
        return ""
    return f"{count(number, 'file or line', 'files or lines')} could not be read or believed; the table of problems lists them."


def turns(study: Study) -> list[str]:
    """What evidence would turn the answer."""
    if study.decision is None:
        return [f"Evidence of a second version of {study.module} loaded on some hosts, with its host-days."]
    found = [_sentence(words) for words in study.decision.would_change]
    return found or ["Nothing that was looked at: more host-days of the same sort would only make it firmer."]


def next_steps(study: Study) -> list[str]:
    """What to do now, in order."""
    decision, running = study.decision, study.hosts_now
    again = "Whoever made this report: collect the evidence again each week and make it anew; it says when the answer changes."
    if decision is None or decision.verdict == "undecided":
        hold = f"Whoever runs the hosts: change no driver because of this report. {_needed(study) if decision else ''}".strip()
        apart = (
            "Where the write-up of a crash names a known issue, its steps stand: they rest on that crash, not on rates."
        )
        return [hold, apart, _pace(study), again]
    leaving = (
        running.drop(labels=[decision.pin], errors="ignore")
        if decision.verdict == "pin"
        else running.reindex(list(decision.avoid)).dropna()
    )
    target = (
        f"to {study.module} {literal(decision.pin)}"
        if decision.pin
        else f"off {study.module} {listing(decision.avoid)}"
    )
    if leaving.sum() == 0:
        return ["No host that the evidence shows needs to change: none runs a version to leave.", again]
    which = listing(f"{count(hosts, 'host')} on {version}" for version, hosts in leaving.items())
    return [
        f"Whoever runs the hosts: take {which} {target}, one host first, then in waves, each after a week without a new crash signature.",
        "The write-up of the newest crash holds the commands, and the check to make after each reboot.",
        again,
    ]


def _pace(study: Study) -> str:
    if study.hosts_now.empty:
        return (
            "Collect the boot logs or command outputs that name the loaded driver version: without them no day counts"
            " for any version."
        )
    hosts = listing(f"{count(number, 'host')} on {version}" for version, number in study.hosts_now.items())
    return f"Go on collecting: {hosts} add as many host-days each day."
