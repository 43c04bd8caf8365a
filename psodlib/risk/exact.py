"""Exact answers from two numbers a group, a count of crashes and the time at risk: no tables, hosts or confounding."""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special, stats

from psodlib.errors import InputError

LARGEST_LOG = 700.0  # beyond it a float's exponential overflows
SMALLEST_SHARE = 1e-15  # nearer to 0 or 1 the tails of the distributions are lost in rounding


class Interval(NamedTuple):
    """An estimate with its limits; ``low`` may be 0 and ``high`` infinite, and neither prints as a number then."""

    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isinf(self.low) or math.isnan(self.low + self.high) or (self.low <= 0 and math.isinf(self.high)):
            return "no information"
        point = f"{self.ratio:.3g}" if math.isfinite(self.ratio) else "no estimate"
        return f"{point} ({self.low:.3g} to {'unbounded' if math.isinf(self.high) else f'{self.high:.3g}'})"

    def finite(self) -> tuple[float | None, ...]:
        """The three, None where one is no number."""
        return tuple(value if math.isfinite(value) else None for value in self)

    @property
    def excludes_one(self) -> bool:
        """True when the interval lies wholly below or wholly above 1."""
        return self.low > 1 or self.high < 1


NO_INFORMATION = Interval(math.nan, 0.0, math.inf)


def poisson_interval(
    count: float, exposure: float, alpha: float = 0.05, method: str = "garwood"
) -> tuple[float, float]:
    """Two-sided interval of one Poisson rate, ``garwood`` or ``midp``.

    References
    ----------
    Garwood 1936, Biometrika 28:437, doi:10.1093/biomet/28.3-4.437.
    """
    _check(count, exposure)
    if exposure == 0:
        return 0.0, math.inf
    low, high = stats.chi2.ppf(alpha / 2, 2 * count) / 2 if count else 0.0, stats.chi2.isf(alpha / 2, 2 * count + 2) / 2
    if method == "midp":
        # The means at which P(X > count) + P(X = count) / 2 is alpha/2 and 1 - alpha/2: inside the wider Garwood's limits.
        def off(mean: float, tail: float) -> float:
            return float(stats.poisson.sf(count, mean) + stats.poisson.pmf(count, mean) / 2 - tail)

        low = optimize.brentq(off, 0, 2 * high, (alpha / 2,), xtol=1e-13) if count else 0.0
        high = optimize.brentq(off, 0, 2 * high, (1 - alpha / 2,), xtol=1e-13)
    return float(low) / exposure, float(high) / exposure


def poisson_upper(count: float, exposure: float, alpha: float = 0.05) -> float:
    """One-sided upper bound of one Poisson rate; at 0 events ``-ln(alpha) / exposure``, the "rule of three".

    References
    ----------
    Hanley & Lippman-Hand 1983, JAMA 249:1743, doi:10.1001/jama.1983.03330370053031.
    """
    _check(count, exposure)
    return float(stats.chi2.isf(alpha, 2 * count + 2)) / 2 / exposure if exposure else math.inf


def ratio_interval(
    count: float, exposure: float, other: float, other_exposure: float, alpha: float = 0.05, method: str = "midp"
) -> Interval:
    """Exact conditional interval of the ratio of two Poisson rates, ``midp`` or ``clopper_pearson``.

    Notes
    -----
    Given the sum n, the count is Binomial(n, pi) with odds pi/(1-pi) = ratio * exposure / other_exposure, so limits
    for pi are limits for the ratio. Przyborowski & Wilenski 1940, doi:10.1093/biomet/31.3-4.313.
    """
    total = _total(count, exposure, other, other_exposure)
    if not total:
        return NO_INFORMATION

    def limit(events: float) -> float:  # the share at which so many or more of all have probability alpha / 2
        exact = float(stats.beta.ppf(alpha / 2, events, total - events + 1))
        if method == "clopper_pearson":
            return exact

        def off(share: float) -> float:
            return float(stats.binom.sf(events, total, share) + stats.binom.pmf(events, total, share) / 2) - alpha / 2

        return float(optimize.brentq(off, exact, 1.0, xtol=1e-15, rtol=1e-13))

    scale = other_exposure / exposure
    shares = (limit(count) if count else 0.0, 1 - limit(other) if other else 1.0)
    low, high = (share / (1 - share) * scale if share < 1 else math.inf for share in shares)
    return Interval(count / other * scale if other else math.inf, low, high)


def ratio_p(
    count: float, exposure: float, other: float, other_exposure: float, ratio: float = 1.0,
    alternative: str = "two_sided", method: str = "midp",
) -> float:  # fmt: skip
    """Exact conditional p-value of "the ratio of the two rates is ``ratio``": ``two_sided``, ``larger`` or ``smaller``."""
    total = _total(count, exposure, other, other_exposure)
    if not ratio > 0:
        raise InputError(f"ratio is {ratio}; expected more than 0")
    if not total:
        return 1.0
    share = ratio * exposure / (ratio * exposure + other_exposure)
    here = (0.5 if method == "midp" else 1.0) * stats.binom.pmf(count, total, share)
    larger = float(stats.binom.sf(count, total, share) + here)
    smaller = float(stats.binom.cdf(count - 1, total, share) + here)
    return {"larger": larger, "smaller": smaller}.get(alternative, min(1.0, 2 * min(larger, smaller)))


def mantel_haenszel(
    counts: Any, exposures: Any, reference: Any, reference_exposures: Any, alpha: float = 0.05
) -> Interval:
    """Rate ratio pooled over strata, for person-time.

    Notes
    -----
    RR = sum(d1 t0 / N) / sum(d0 t1 / N) with var ln RR = sum((d1 + d0) t1 t0 / N^2) / (sum(d1 t0 / N) sum(d0 t1 / N)).
    Greenland & Robins 1985, Biometrics 41:55, doi:10.2307/2530643.
    """
    sums = np.array([counts, exposures, reference, reference_exposures], dtype=float)
    d1, t1, d0, t0 = sums[:, sums[1] + sums[3] > 0]
    whole = t1 + t0
    top, bottom = float(np.sum(d1 * t0 / whole)), float(np.sum(d0 * t1 / whole))
    if top == 0 or bottom == 0:
        return NO_INFORMATION
    error = math.sqrt(float(np.sum((d1 + d0) * t1 * t0 / whole**2)) / (top * bottom))
    return wald(math.log(top / bottom), error, alpha)


def wald(log_ratio: float, error: float, alpha: float) -> Interval:
    """Interval of a ratio from its logarithm and that one's standard error."""
    reach = -float(special.ndtri(alpha / 2)) * error
    return Interval(
        *(math.exp(at) if at < LARGEST_LOG else math.inf for at in log_ratio + np.array([0, -reach, reach]))
    )


def p_lower(shape: float, rate: float, reference_shape: float, reference_rate: float) -> float:
    """Probability that one gamma-distributed rate is below another."""
    return float(stats.beta.cdf(rate / (rate + reference_rate), shape, reference_shape))


def holm(p_values: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Holm's adjusted p-values, in the order given (Holm 1979, Scandinavian Journal of Statistics 6:65)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def check_share(value: float, name: str) -> None:
    """Refuse what is no probability strictly between 0 and 1."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not SMALLEST_SHARE <= value <= 1 - SMALLEST_SHARE:
        raise InputError(f"{name} is {value!r}; expected a number between 0 and 1, such as 0.05")


def _total(count: float, exposure: float, other: float, other_exposure: float) -> float:
    # The events of both; 0 where they tell nothing.
    _check(count, exposure)
    _check(other, other_exposure)
    return count + other if exposure and other_exposure else 0


def _check(count: float, exposure: float) -> None:
    if not (count >= 0 and exposure >= 0 and math.isfinite(count) and math.isfinite(exposure)):
        raise InputError(f"found {count} events in {exposure} at risk; expected finite numbers, 0 or more")
