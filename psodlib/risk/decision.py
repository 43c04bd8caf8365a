"""Pin, avoid or undecided: the rule over ratios, what would turn the verdict, what each pin would cost the users."""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from psodlib import schema
from psodlib.errors import InputError
from psodlib.risk import exact
from psodlib.risk.cautions import only_crashed_hosts
from psodlib.risk.comparison import ADJUST, Comparison
from psodlib.risk.exposure import check_exposure
from psodlib.risk.rates import DAYS_PER_YEAR, RateRatio, crash_rates, prior_rate, rate_ratio, ratio_of

__all__ = ["PinDecision", "decide", "decide_pin", "declared", "expected_impact", "hosts_to_run"]

MOST_HOST_DAYS = 1e8  # where the search for a verdict gives up
MOST_CRASHES = 200


@dataclass(frozen=True)
class Rule:
    """What a version must show before it is pinned over another; all three tests, for all three guard different errors.

    Without the loss, tiny differences pin for ever; without the interval, the prior decides; without the probability, a
    wide interval with a bad middle could pass after Holm.
    """

    probability: float = 0.95
    loss: float = 0.01 / DAYS_PER_YEAR  # crashes per host-day
    alpha: float = 0.05

    @classmethod
    def of(cls, probability: float, loss: float, alpha: float) -> Rule:
        """From what ``decide_pin`` is told; ``loss`` in crashes per host-year. InputError where that is no rule."""
        exact.check_share(alpha, "alpha")
        exact.check_share(probability, "probability")
        if not 0 <= loss < math.inf:
            raise InputError(f"loss is {loss}; expected crashes per host-year, 0 or more")
        return cls(probability, loss / DAYS_PER_YEAR, alpha)


@dataclass(frozen=True, repr=False)
class PinDecision:
    """The verdict with all that a reader needs to doubt it."""

    verdict: str
    pin: str | None
    avoid: tuple[str, ...]
    reasons: tuple[str, ...]
    ratios: tuple[RateRatio, ...]
    host_days_needed: Mapping[str, float | None]
    would_change: tuple[str, ...]

    def __str__(self) -> str:
        head = {
            "pin": f"Pin {self.pin}.",
            "avoid": f"Avoid {', '.join(self.avoid)}; pin nothing yet.",
            "undecided": "Undecided.",
        }
        return "\n".join([head[self.verdict], *(f"- {reason}" for reason in self.reasons)])

    __repr__ = __str__

    def as_frame(self) -> pd.DataFrame:
        """One row a contrast.

        Returns
        -------
        pandas.DataFrame
            ``version``, ``reference``, ``ratio``, ``low``, ``high`` (``NA`` where unbounded or undefined), ``text``,
            ``method``, ``p_lower``, ``p_value``, ``crashes``, ``reference_crashes``, ``host_days``,
            ``reference_host_days``.
        """
        rows = [
            (
                r.version,
                r.reference,
                *(value if math.isfinite(value) else None for value in r.interval),
                str(r.interval),
                r.method,
                r.p_lower,
                r.p_value,
                *r.crashes,
                *r.host_days,
            )
            for r in self.ratios
        ]
        names = [
            "version",
            "reference",
            "ratio",
            "low",
            "high",
            "text",
            "method",
            "p_lower",
            "p_value",
            "crashes",
            "reference_crashes",
            "host_days",
            "reference_host_days",
        ]
        out = pd.DataFrame(rows, columns=names)
        return out.astype(dict.fromkeys(["ratio", "low", "high"], "Float64"))


def decide_pin(
    exposure: pd.DataFrame,
    candidates: Sequence[str],
    *,
    reference: str | None = None,
    adjust: Sequence[str] = ADJUST,
    alpha: float = 0.05,
    probability: float = 0.95,
    loss: float = 0.01,
    fleet_hosts: int | None = None,
) -> PinDecision:
    """Which of the candidate versions to pin, if the evidence can tell.

    Parameters
    ----------
    exposure : pandas.DataFrame
        From ``exposure``, or by hand.
    candidates : sequence of str
        Two or more versions. Naming them declares the contrasts: all pairs, or each against ``reference``.
    reference : str, optional
        One of the candidates that all others are held against.
    adjust : sequence of str
        As for ``rate_ratio``.
    alpha : float
        Chance of any false winner over all contrasts (Holm).
    probability : float
        That the winner has the lower rate, at least.
    loss : float
        Crashes per host-year that choosing the winner may cost on average, should it be the worse one after all.
    fleet_hosts : int, optional
        How many hosts would run a candidate, for turning host-days into weeks; default: the hosts in ``exposure``.

    Returns
    -------
    PinDecision
        ``pin``: one candidate beats every other. ``avoid``: some lose, none beats all. ``undecided``: none loses.
        ``host_days_needed``: further host-days on that candidate alone, crashing as often as so far, until a verdict
        could fall; 0 for one that is already placed, None where no amount would do (``would_change`` says what holds
        the verdict back).

    Raises
    ------
    InputError
        Fewer than two candidates, one that is unknown or that no host loaded, crashes without host-days, a snapshot of
        versions, a table of only the hosts that crashed; alpha or probability not between 0 and 1, no fleet hosts.

    Notes
    -----
    A beats B when P(A has the lower rate) >= ``probability`` and the expected loss of A is at most ``loss`` and the
    ratio's headline interval excludes 1 after Holm's correction. With three or more candidates a likelihood-ratio test
    of "no version differs" comes first; unless it rejects, nobody wins.

    ``host_days_needed`` asks the same three tests. Under the frailty model the headline's distance from 1, in standard
    errors, is taken to grow as that of the crude counts would: further time is supposed to come from further hosts.
    """
    rule = Rule.of(probability, loss, alpha)
    table, names = declared(exposure, candidates, reference)
    return decide(Comparison(table, adjust), names, reference, rule, hosts_to_run(table, fleet_hosts))


def decide(comparison: Comparison, names: Sequence[str], reference: str | None, rule: Rule, hosts: int) -> PinDecision:
    """``decide_pin`` from a comparison, whatever its sufficient rows were made of."""
    pairs = (
        [(name, reference) for name in names if name != reference]
        if reference
        else list(itertools.combinations(names, 2))
    )
    ratios = tuple(ratio_of(comparison, one, other, rule.alpha) for one, other in pairs if other is not None)
    prior = prior_rate(comparison.table)
    differs, reasons = _any_difference(comparison, names, rule.alpha)
    adjusted = exact.holm([ratio.p_value for ratio in ratios])
    beats = set()
    for ratio, p in zip(ratios, adjusted, strict=True):
        winner, reason = _judge(ratio, float(p), rule, prior)
        reasons.append(reason)
        if winner and differs:
            beats.add((winner, ratio.reference if winner == ratio.version else ratio.version))
    if len(ratios) > 1:
        reasons.append(f"{len(ratios)} contrasts were declared; their p-values are corrected together (Holm)")
    pin = next((name for name in names if all((name, other) in beats for other in names if other != name)), None)
    losers = {loser for _, loser in beats}
    avoid = tuple(name for name in names if name in losers)
    strict = replace(rule, alpha=rule.alpha / len(ratios))  # Holm's first step, so that no later one asks for more
    open_ones = {name: _open(name, ratios, beats) for name in names}
    needed = {name: _host_days_needed(name, open_ones[name], strict, prior) for name in names}
    change = _would_change(open_ones, needed, strict, prior, hosts)
    if reference and not pin and len(names) > 2:
        change.append(_all_against_one(names, reference))
    for ratio in ratios:
        change += _undone(ratio, beats, rule, prior)
    reasons += _cautions(ratios)
    return PinDecision(
        verdict="pin" if pin else "avoid" if avoid else "undecided",
        pin=pin,
        avoid=avoid,
        reasons=tuple(reasons),
        ratios=ratios,
        host_days_needed=needed,
        would_change=tuple(change),
    )


def _cautions(ratios: tuple[RateRatio, ...]) -> list[str]:
    # Each warning once; one that not all contrasts share says whose it is.
    found = dict.fromkeys(warning for ratio in ratios for warning in ratio.warnings)
    out = []
    for warning in found:
        mine = [ratio for ratio in ratios if warning in ratio.warnings]
        pairs = "; ".join(f"{ratio.version} against {ratio.reference}" for ratio in mine)
        out.append(warning if len(mine) == len(ratios) else f"{pairs}: {warning}")
    return out


def declared(
    exposure: pd.DataFrame, candidates: Sequence[str], reference: str | None
) -> tuple[pd.DataFrame, list[str]]:
    """The table as ``check_exposure`` gives it, and the candidates, each once; InputError as ``decide_pin`` has it."""
    table = check_exposure(exposure)
    names = _named(candidates)
    if len(names) < 2:
        raise InputError(f"found {len(names)} candidate; a decision needs two or more versions to choose from")
    if reference is not None and reference not in names:
        raise InputError(f"the reference {reference} is not among the candidates {', '.join(map(str, names))}; add it")
    if only_crashed_hosts(table):
        raise InputError(
            "every host in the table has crashed, so it was chosen by its crashes and no rate follows; give the whole "
            "roster, hosts without a crash too"
        )
    return table, names


def _named(candidates: str | Sequence[str] | None) -> list[str]:
    if candidates is not None and not isinstance(candidates, Iterable):
        raise InputError(f"candidates is {candidates!r}; expected a list of versions")
    names = [candidates] if isinstance(candidates, str) else [] if candidates is None else list(candidates)
    if any(not pd.api.types.is_scalar(name) or pd.isna(name) for name in names):
        raise InputError(f"the candidates {names} hold one that is no version; name each by its version, as 5.5.0.58")
    return list(dict.fromkeys(names))


def hosts_to_run(table: pd.DataFrame, fleet_hosts: int | None) -> int:
    """Hosts that would run a candidate: as told, else those that were at risk. InputError where that is no number of
    hosts."""
    if fleet_hosts is None:
        return int(table.loc[table["host_days"] > 0, "host"].nunique())
    if not isinstance(fleet_hosts, numbers.Real) or not 0 < fleet_hosts < math.inf:
        raise InputError(f"fleet_hosts is {fleet_hosts!r}; expected how many hosts would run a candidate, 1 or more")
    return math.ceil(fleet_hosts)


def _any_difference(comparison: Comparison, names: Sequence[str], alpha: float) -> tuple[bool, list[str]]:
    # One global test before any pair, where there are more pairs than one.
    if len(names) < 3:
        return True, []
    p = comparison.effect(names)
    if p <= alpha:
        return True, [f"the versions differ as a whole (likelihood-ratio test, p = {_p(p)})"]
    return False, [
        f"that no version differs from another cannot be excluded (likelihood-ratio test, p = {_p(p)}), so none wins"
    ]


def _judge(ratio: RateRatio, adjusted_p: float, rule: Rule, prior: float) -> tuple[str | None, str]:
    # The winner of one contrast, if any, and the sentence that says why or why not.
    better, other = ratio.version, ratio.reference
    if ratio.p_lower < 0.5:
        better, other = other, better
    _, chance, cost = _evidence(ratio, prior)
    misses = []
    if chance < rule.probability:
        misses.append(f"the probability {chance:.2f} that {better} is the better one is below {rule.probability:g}")
    if cost > rule.loss:
        misses.append(
            f"choosing {better} could cost {cost * DAYS_PER_YEAR:.2g} crashes a host-year, more than "
            f"{rule.loss * DAYS_PER_YEAR:g}"
        )
    if not ratio.interval.excludes_one:
        misses.append("the interval does not exclude a ratio of 1")
    elif adjusted_p > rule.alpha:
        misses.append(f"corrected for the number of contrasts, p = {_p(adjusted_p)}")
    if misses:
        return None, f"{ratio}. No winner: {'; '.join(misses)}"
    return better, (
        f"{ratio}. {better} wins over {other}: it has the lower rate with probability {_chance(chance)}, and it costs "
        f"on average {_small(cost * DAYS_PER_YEAR)} crashes a host-year should that be wrong"
    )


class Evidence(NamedTuple):
    """What the three tests look at, of one contrast."""

    p: float  # of a ratio of 1, not corrected
    chance: float  # that the better one is the better one
    cost: float  # crashes per host-day, of choosing it

    def lacks(self, rule: Rule) -> list[str]:
        """The tests that it fails, in words."""
        found = {
            "the interval (corrected for the number of contrasts) would still include 1": self.p > rule.alpha,
            "the probability of a lower rate would stay too low": self.chance < rule.probability,
            "the expected loss would stay too high": self.cost > rule.loss,
        }
        return [words for words, missed in found.items() if missed]


@dataclass(frozen=True)
class Counts:
    """Crashes and host-days of both versions of a contrast, so far or some day; pairs are (version, reference)."""

    known: tuple[float, float]
    unknown: tuple[float, float]
    days: tuple[float, float]

    @classmethod
    def of(cls, ratio: RateRatio) -> Counts:
        """As they are."""
        return cls(ratio.crashes, ratio.unknown_crashes, ratio.host_days)

    def longer(self, arm: int, more: float) -> Counts:
        """After so many further host-days on one version, crashing as often as so far."""
        times = tuple(1 + more / self.days[arm] if at == arm else 1.0 for at in (0, 1))
        known, unknown, days = (
            (pair[0] * times[0], pair[1] * times[1]) for pair in (self.known, self.unknown, self.days)
        )
        return Counts(known, unknown, days)

    def worse(self, arm: int, more: int) -> Counts:
        """With so many more crashes of one version in the same time."""
        return replace(self, known=(self.known[0] + more * (arm == 0), self.known[1] + more * (arm == 1)))


def _evidence(ratio: RateRatio, prior: float, counts: Counts | None = None) -> Evidence:
    # Of the contrast as it is, or as it would be with these counts.
    return (_of_fit if ratio.error else _of_counts)(ratio, prior, counts or Counts.of(ratio))


def _of_counts(ratio: RateRatio, prior: float, counts: Counts) -> Evidence:
    known = [round(count) for count in counts.known]
    both = [round(count + more) for count, more in zip(counts.known, counts.unknown, strict=True)]
    # On the reference's mixture of strata, so that what few crashes say of the ratio is adjusted here too.
    days = (counts.days[0] * ratio.comparable, counts.days[1])
    p = max(exact.ratio_p(each[0], days[0], each[1], days[1]) for each in (known, both))
    sides = [np.sign(each[0] * days[1] - each[1] * days[0]) for each in (known, both)]
    one, two = ((count + 0.5, time + 0.5 / prior) for count, time in zip(known, days, strict=True))
    chance = exact.p_lower(*one, *two)
    cost = exact.expected_loss(*one, *two) if chance >= 0.5 else exact.expected_loss(*two, *one)
    return Evidence(1.0 if sides[0] * sides[1] < 0 else p, max(chance, 1 - chance), cost)


def _of_fit(ratio: RateRatio, prior: float, counts: Counts) -> Evidence:
    # The fit's and the headline's own distance from 1, stretched as the counts would stretch the crude one.
    now, middle = Counts.of(ratio), math.log(ratio.known_only.ratio)
    wider = math.sqrt(sum(1 / count for count in counts.known) / sum(1 / count for count in now.known))
    moved = [math.log(then.known[0] / then.days[0] * then.days[1] / then.known[1]) for then in (now, counts)]
    away = math.copysign(1.0, -middle) * (moved[0] - moved[1]) + abs(middle)
    share = away / abs(middle) if middle else 1.0
    p = 2 * float(special.ndtr(special.ndtri(ratio.p_value / 2) * share / wider)) if share > 0 else 1.0
    spread = float(ratio.error or 0.0) * wider
    level = (counts.known[1] + 0.5) / (counts.days[1] + 0.5 / prior)
    return Evidence(p, float(special.ndtr(away / spread)), _loss(math.copysign(1.0, middle) * away, spread) * level)


def _loss(middle: float, spread: float) -> float:
    # E[(R - 1)+] or E[(1 - R)+] of a log-normal ratio R: what choosing the lower one costs, over the reference's rate.
    sign = 1.0 if middle < 0 else -1.0
    above = math.exp(middle + spread**2 / 2) * special.ndtr(sign * (middle / spread + spread))
    return float(max(sign * (above - special.ndtr(sign * middle / spread)), 0.0))


def _open(name: str, ratios: tuple[RateRatio, ...], beats: set[tuple[str, str]]) -> list[RateRatio]:
    # Contrasts that could still place this candidate.
    losers = {loser for _, loser in beats}
    if name in losers:
        return []
    placed = {name, *losers}
    return [r for r in ratios if name in (r.version, r.reference) and not {r.version, r.reference} <= placed]


def _host_days_needed(name: str, open_ones: list[RateRatio], rule: Rule, prior: float) -> float | None:
    # The least over a candidate's open contrasts.
    options = [_more_days(ratio, int(name == ratio.reference), rule, prior) for ratio in open_ones]
    return min((days for days in options if days is not None), default=None) if options else 0.0


def _more_days(ratio: RateRatio, arm: int, rule: Rule, prior: float) -> float | None:
    # First whole number of further host-days on one version at which the contrast would be settled.
    def settled(more: float) -> bool:
        return not _evidence(ratio, prior, Counts.of(ratio).longer(arm, more)).lacks(rule)

    grid = np.geomspace(1.0, MOST_HOST_DAYS, 161)
    first = next((at for at, more in enumerate(grid) if settled(more)), None)
    # What is settled by itself and still open is held back by the test over all versions, which no time here mends.
    if first is None or settled(0.0):
        return None
    low, high = (float(grid[first - 1]), float(grid[first])) if first else (0.0, 1.0)
    while high - low > max(0.5, 1e-3 * high):
        middle = (low + high) / 2
        low, high = (low, middle) if settled(middle) else (middle, high)
    return float(math.ceil(high))


def _would_change(
    open_ones: Mapping[str, list[RateRatio]],
    needed: Mapping[str, float | None],
    rule: Rule,
    prior: float,
    hosts: int,
) -> list[str]:
    # What would bring a verdict that is not there yet.
    found = []
    for name, days in needed.items():
        if days is None:
            whys = dict.fromkeys(
                _held_back(ratio, int(name == ratio.reference), rule, prior) for ratio in open_ones[name]
            )
            found.append(
                f"no number of further host-days on {name} alone, crashing as so far, would bring a verdict: "
                + "; ".join(whys)
            )
        elif days:
            weeks = math.ceil(days / 7 / hosts)
            found.append(
                f"{days:,.0f} further host-days on {name}, crashing as so far, could bring a verdict "
                f"(at {hosts} hosts on {name}: {weeks} {'week' if weeks == 1 else 'weeks'})"
            )
    undecided = {(ratio.version, ratio.reference): ratio for each in open_ones.values() for ratio in each}
    return found + [_unexplained(ratio) for ratio in undecided.values() if _hangs_on_unknown(ratio)]


def _hangs_on_unknown(ratio: RateRatio) -> bool:
    return ratio.known_only.excludes_one and not ratio.interval.excludes_one


def _unexplained(ratio: RateRatio) -> str:
    count = sum(ratio.unknown_crashes)
    return (
        f"{ratio.version} against {ratio.reference}: the known crashes alone exclude a ratio of 1; to find the module of "
        f"the {count} {'crash that names' if count == 1 else 'crashes that name'} none could settle it"
    )


def _held_back(ratio: RateRatio, arm: int, rule: Rule, prior: float) -> str:
    # What keeps a contrast open however long one version runs.
    pair = f"{ratio.version} against {ratio.reference}"
    if not _evidence(ratio, prior).lacks(rule):
        return f"{pair} is settled by itself, but the test over all versions is not; declare fewer candidates"
    if ratio.p_value == 1 and any(ratio.unknown_crashes):
        return f"{pair}: the crashes that name no module turn the ratio round"
    best = _evidence(ratio, prior, Counts.of(ratio).longer(arm, MOST_HOST_DAYS))
    other = (ratio.reference, ratio.version)[arm]
    return f"{pair}: {', '.join(best.lacks(rule))} while there is no more evidence on {other}"


def _all_against_one(names: Sequence[str], reference: str) -> str:
    others = ", ".join(str(name) for name in names if name != reference)
    return (
        f"only {reference} can be pinned here, for {others} were held against it and not against each other: without a "
        "reference all pairs are compared, and one of them could be pinned"
    )


def _undone(ratio: RateRatio, beats: set[tuple[str, str]], rule: Rule, prior: float) -> list[str]:
    # What would take a win back: more crashes on the winner, or the unexplained ones laid on it.
    pair = ratio.version, ratio.reference
    at = next((arm for arm in (0, 1) if (pair[arm], pair[1 - arm]) in beats), None)
    if at is None:
        return []
    winner, found = pair[at], []

    def stands(more: int) -> bool:
        return not _evidence(ratio, prior, Counts.of(ratio).worse(at, more)).lacks(rule)

    more = next((n for n in range(1, MOST_CRASHES) if not stands(n)), None)
    if more:
        found.append(
            f"{more} more {'crash' if more == 1 else 'crashes'} on {winner} in the time it has would undo its win"
        )
    if not ratio.adversarial.excludes_one:
        found.append(
            f"the {sum(ratio.unknown_crashes)} crashes that name no module would undo the win of {winner}, were all its own"
        )
    return found


def expected_impact(
    exposure: pd.DataFrame,
    candidates: Sequence[str],
    *,
    hosts: pd.DataFrame | None = None,
    fleet_hosts: int | None = None,
    outage_hours: float = 1.0,
    adjust: Sequence[str] = ADJUST,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """What a year with the whole fleet on each candidate would cost.

    Notes
    -----
    The candidate with most crashes sets the level (Garwood's interval). Another with 5 crashes or more comes as that
    level times the adjusted ratio, with both errors; one with fewer has its own rate and Garwood's interval. A host
    without a number of users counts as the average one.
    """
    table = check_exposure(exposure)
    names = _named(candidates)
    if not names:
        raise InputError("found no candidate; name one version or more")
    rates = crash_rates(table, alpha=alpha)
    absent = [name for name in names if name not in rates.index]
    if absent:
        raise InputError(
            f"no host-days with {absent[0]} loaded; the table has {', '.join(map(str, rates.index.dropna()))}"
        )
    by_crashes = rates.loc[names, "crashes"]
    anchor = names[int(by_crashes.argmax())]
    roster = None if hosts is None else _roster(hosts, table)
    count = len(roster) if roster is not None and fleet_hosts is None else hosts_to_run(table, fleet_hosts)
    per_year = np.array([_rate(table, rates, name, anchor, adjust, alpha) for name in names]) * DAYS_PER_YEAR * count
    out = pd.DataFrame(
        per_year, index=pd.Index(names, name="version"), columns=["crashes_per_year", "crashes_low", "crashes_high"]
    )
    for column, word in (("users", "user_hours"), ("vms", "vm_hours")):
        if roster is not None and column in roster and roster[column].notna().any():
            each = float(pd.to_numeric(roster[column]).mean()) * outage_hours
            out[[f"{word}_per_year", f"{word}_low", f"{word}_high"]] = per_year * each
    return out


def _roster(hosts: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    # Rows of hosts at risk or in an inventory. Without the columns of evidence the table is itself an inventory; in a
    # fleet's, what an inventory brought are the columns that evidence has not.
    if "first_seen" not in hosts:
        return hosts
    brought = hosts.drop(columns=[column.name for column in schema.TABLES["hosts"] if column.name in hosts])
    at_risk = hosts["host"].isin(table.loc[table["host_days"] > 0, "host"])
    return hosts[at_risk | brought.notna().any(axis=1)]


def _rate(
    table: pd.DataFrame, rates: pd.DataFrame, name: str, anchor: str, adjust: Sequence[str], alpha: float
) -> tuple[float, float, float]:
    low, rate, high = (float(rates[column][name]) for column in ("low", "rate", "high"))
    own = (rate, low, high)
    if name == anchor:
        return own
    ratio = rate_ratio(table, name, anchor, adjust, alpha)
    if ratio.method == "exact_midp":
        return own
    level = math.log(ratio.ratio * float(rates["rate"][anchor]))
    spread = math.log(ratio.high / ratio.low) / 2 / -float(special.ndtri(alpha / 2))
    return exact.wald(level, math.hypot(spread, 1 / math.sqrt(ratio.crashes[1])), alpha)


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 0.0001 else "below 0.0001"


def _small(number: float) -> str:
    return f"{number:.2g}" if number >= 0.001 else "less than 0.001"


def _chance(chance: float) -> str:
    return f"{chance:.3f}" if chance < 0.9995 else "above 0.999"
