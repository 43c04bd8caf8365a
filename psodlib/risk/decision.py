"""Pin, avoid or undecided: the rule over ratios, what would turn the verdict, what each pin would cost the users."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from psodlib.errors import InputError
from psodlib.risk import exact
from psodlib.risk.cautions import only_crashed_hosts
from psodlib.risk.exact import Interval
from psodlib.risk.exposure import check_exposure
from psodlib.risk.rates import ADJUST, DAYS_PER_YEAR, RateRatio, crash_rates, prior_rate, rate_ratio, version_effect

__all__ = ["PinDecision", "decide_pin", "expected_impact"]

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
        could fall; 0 for one that is already placed, None where no amount would do.

    Raises
    ------
    InputError
        Fewer than two candidates, one that no host loaded, crashes without host-days, a snapshot of versions, or a
        table of only the hosts that crashed.

    Notes
    -----
    A beats B when P(A has the lower rate) >= ``probability`` and the expected loss of A is at most ``loss`` and the
    ratio's headline interval excludes 1 after Holm's correction. With three or more candidates a likelihood-ratio test
    of "no version differs" comes first; unless it rejects, nobody wins.
    """
    table, names = _declared(exposure, candidates, reference)
    pairs = (
        [(name, reference) for name in names if name != reference]
        if reference
        else list(itertools.combinations(names, 2))
    )
    ratios = tuple(rate_ratio(table, one, other, adjust, alpha) for one, other in pairs if other is not None)
    rule = Rule(probability, loss / DAYS_PER_YEAR, alpha)
    prior = prior_rate(table)
    differs, reasons = _any_difference(table, names, adjust, alpha)
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
    needed = _host_days_needed(names, ratios, beats, rule, prior)
    reasons += _cautions(ratios)
    return PinDecision(
        verdict="pin" if pin else "avoid" if avoid else "undecided",
        pin=pin,
        avoid=avoid,
        reasons=tuple(reasons),
        ratios=ratios,
        host_days_needed=needed,
        would_change=_would_change(ratios, beats, needed, rule, prior, fleet_hosts or int(table["host"].nunique())),
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


def _declared(
    exposure: pd.DataFrame, candidates: Sequence[str], reference: str | None
) -> tuple[pd.DataFrame, list[str]]:
    table = check_exposure(exposure)
    names = [candidates] if isinstance(candidates, str) else list(dict.fromkeys(candidates))
    if len(names) < 2:
        raise InputError(f"found {len(names)} candidate; a decision needs two or more versions to choose from")
    if reference is not None and reference not in names:
        raise InputError(f"the reference {reference} is not among the candidates {', '.join(names)}; add it")
    if only_crashed_hosts(table):
        raise InputError(
            "every host in the table has crashed, so it was chosen by its crashes and no rate follows; give the whole "
            "roster, hosts without a crash too"
        )
    return table, names


def _any_difference(
    table: pd.DataFrame, names: list[str], adjust: Sequence[str], alpha: float
) -> tuple[bool, list[str]]:
    # One global test before any pair, where there are more pairs than one.
    if len(names) < 3:
        return True, []
    p = version_effect(table, names, adjust)
    if p <= alpha:
        return True, [f"the versions differ as a whole (likelihood-ratio test, p = {_p(p)})"]
    return False, [
        f"that no version differs from another cannot be excluded (likelihood-ratio test, p = {_p(p)}), so none wins"
    ]


def _judge(ratio: RateRatio, adjusted_p: float, rule: Rule, prior: float) -> tuple[str | None, str]:
    # The winner of one contrast, if any, and the sentence that says why or why not.
    better, other, chance = ratio.version, ratio.reference, ratio.p_lower
    if chance < 0.5:
        better, other, chance = other, better, 1 - chance
    cost = _loss(ratio, better == ratio.version, prior)
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


def _loss(ratio: RateRatio, choose_version: bool, prior: float) -> float:
    # E[(rate of the choice - rate of the other)+] per host-day, from what `p_lower` rests on.
    shapes = [count + 0.5 for count in ratio.crashes]
    times = [days + 0.5 / prior for days in ratio.host_days]
    if ratio.method == "exact_midp":
        one, two = (0, 1) if choose_version else (1, 0)
        return exact.expected_loss(shapes[one], times[one], shapes[two], times[two])
    middle = math.log(ratio.known_only.ratio)
    spread = _error(ratio.known_only, ratio.alpha)
    sign = 1.0 if choose_version else -1.0
    # E[(R - 1)+] or E[(1 - R)+] of a log-normal ratio R, times the reference's rate.
    above = math.exp(middle + spread**2 / 2) * special.ndtr(sign * (middle / spread + spread))
    return float(max(sign * (above - special.ndtr(sign * middle / spread)), 0.0) * shapes[1] / times[1])


def _error(interval: Interval, alpha: float) -> float:
    return math.log(interval.high / interval.low) / 2 / float(special.ndtri(1 - alpha / 2))


def _settled(count: float, days: float, other_count: float, other_days: float, rule: Rule, prior: float) -> bool:
    # Would these counts alone place one of the two, by the same three tests?
    shape, rate, other_shape, other_rate = count + 0.5, days + 0.5 / prior, other_count + 0.5, other_days + 0.5 / prior
    chance = exact.p_lower(shape, rate, other_shape, other_rate)
    if max(chance, 1 - chance) < rule.probability or exact.ratio_p(count, days, other_count, other_days) > rule.alpha:
        return False
    pair = (shape, rate, other_shape, other_rate) if chance > 0.5 else (other_shape, other_rate, shape, rate)
    return exact.expected_loss(*pair) <= rule.loss


def _host_days_needed(
    names: list[str], ratios: tuple[RateRatio, ...], beats: set[tuple[str, str]], rule: Rule, prior: float
) -> dict[str, float | None]:
    # The least over a candidate's open contrasts. Holm's first step is the strictest, so it is the one planned for.
    strict = Rule(rule.probability, rule.loss, rule.alpha / len(ratios))
    losers = {loser for _, loser in beats}
    needed: dict[str, float | None] = {}
    for name in names:
        settled = {name, *losers, *(loser for winner, loser in beats if winner == name)}
        open_ones = [
            r for r in ratios if name in (r.version, r.reference) and not {r.version, r.reference} - {name} <= settled
        ]
        if name in losers or not open_ones:
            needed[name] = 0.0
            continue
        options = []
        for ratio in open_ones:
            mine, other = (0, 1) if name == ratio.version else (1, 0)
            counts = [(ratio.crashes[arm], ratio.host_days[arm]) for arm in (mine, other)]
            options.append(_more_days(counts[0], counts[1], strict, prior))
        needed[name] = min((days for days in options if days is not None), default=None)
    return needed


def _more_days(mine: tuple[int, float], other: tuple[int, float], rule: Rule, prior: float) -> float | None:
    # First number of further host-days, at the rate seen so far, at which the counts would settle it.
    def settled(more: float) -> bool:
        return _settled(round(mine[0] * (1 + more / mine[1])), mine[1] + more, other[0], other[1], rule, prior)

    grid = np.geomspace(1.0, MOST_HOST_DAYS, 161)
    first = next((at for at, more in enumerate(grid) if settled(more)), None)
    if first is None:
        return None
    low, high = (float(grid[first - 1]), float(grid[first])) if first else (0.0, 1.0)
    while high - low > max(0.5, 1e-3 * high):
        middle = (low + high) / 2
        low, high = (low, middle) if settled(middle) else (middle, high)
    return high


def _would_change(
    ratios: tuple[RateRatio, ...],
    beats: set[tuple[str, str]],
    needed: Mapping[str, float | None],
    rule: Rule,
    prior: float,
    hosts: int,
) -> tuple[str, ...]:
    found = []
    for name, days in needed.items():
        if days is None:
            found.append(f"no number of further host-days on {name} alone, crashing as so far, would bring a verdict")
        elif days:
            weeks = math.ceil(days / 7 / hosts)
            found.append(
                f"{days:,.0f} further host-days on {name}, crashing as so far, could bring a verdict "
                f"(at {hosts} hosts on {name}: {weeks} {'week' if weeks == 1 else 'weeks'})"
            )
    for ratio in ratios:
        for winner, at in ((ratio.version, 0), (ratio.reference, 1)):
            if (winner, ratio.reference if at == 0 else ratio.version) in beats:
                found += _undone(ratio, winner, at, rule, prior)
    return tuple(found)


def _undone(ratio: RateRatio, winner: str, at: int, rule: Rule, prior: float) -> list[str]:
    # What would take a win back: more crashes on the winner, or the unexplained ones laid on it.
    found = []
    mine, other = (ratio.crashes[at], ratio.host_days[at]), (ratio.crashes[1 - at], ratio.host_days[1 - at])

    def stands(more: int) -> bool:
        return _settled(mine[0] + more, mine[1], other[0], other[1], rule, prior)

    # Where counts alone never showed the win, they cannot say what would undo it either.
    more = next((n for n in range(1, MOST_CRASHES) if not stands(n)), None) if stands(0) else None
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

    Parameters
    ----------
    exposure : pandas.DataFrame
        From ``exposure``, or by hand.
    candidates : sequence of str
        The versions.
    hosts : pandas.DataFrame, optional
        ``fleet.hosts``: one row a host; its columns ``users`` and ``vms`` (a host) are used where they are.
    fleet_hosts : int, optional
        Hosts that would run the candidate; default: the rows of ``hosts``, else the hosts in ``exposure``.
    outage_hours : float
        Hours until the users of a crashed host work again.
    adjust, alpha
        As for ``rate_ratio``.

    Returns
    -------
    pandas.DataFrame
        Index: candidates in the order given. ``crashes_per_year``, ``crashes_low``, ``crashes_high``, and with
        ``users`` or ``vms`` in the inventory ``user_hours_per_year``, ``user_hours_low``, ``user_hours_high`` and the
        same for ``vm_hours``.

    Raises
    ------
    InputError
        As ``rate_ratio``.

    Notes
    -----
    The candidate with most crashes sets the level (Garwood's interval). Another with 5 crashes or more comes as that
    level times the adjusted ratio, with both errors; one with fewer has its own rate and Garwood's interval. A host
    without a number of users counts as the average one.
    """
    table = check_exposure(exposure)
    names = [candidates] if isinstance(candidates, str) else list(candidates)
    rates = crash_rates(table, alpha=alpha)
    absent = [name for name in names if name not in rates.index]
    if absent:
        raise InputError(
            f"no host-days with {absent[0]} loaded; the table has {', '.join(map(str, rates.index.dropna()))}"
        )
    by_crashes = rates.loc[names, "crashes"]
    anchor = names[int(by_crashes.argmax())]
    count = fleet_hosts or (len(hosts) if hosts is not None else int(table["host"].nunique()))
    per_year = np.array([_rate(table, rates, name, anchor, adjust, alpha) for name in names]) * DAYS_PER_YEAR * count
    out = pd.DataFrame(
        per_year, index=pd.Index(names, name="version"), columns=["crashes_per_year", "crashes_low", "crashes_high"]
    )
    for column, word in (("users", "user_hours"), ("vms", "vm_hours")):
        if hosts is not None and column in hosts and hosts[column].notna().any():
            each = float(pd.to_numeric(hosts[column]).mean()) * outage_hours
            out[[f"{word}_per_year", f"{word}_low", f"{word}_high"]] = per_year * each
    return out


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
    return exact.wald(level, math.hypot(_error(ratio.interval, alpha), 1 / math.sqrt(ratio.crashes[1])), alpha)


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 0.0001 else "below 0.0001"


def _small(number: float) -> str:
    return f"{number:.2g}" if number >= 0.001 else "less than 0.001"


def _chance(chance: float) -> str:
    return f"{chance:.3f}" if chance < 0.9995 else "above 0.999"
