"""Exact ratio of two Poisson rates over strata: what few crashes allow without forgetting that hosts differ.

A likelihood needs some crashes in each arm before its standard error means anything; conditioning needs none. Given the
crashes of each stratum, only the ratio is left to tell who had them, however many strata there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special, stats

from psodlib.errors import InputError
from psodlib.risk.exact import LARGEST_LOG, Interval, RatioMethod, ratio_interval, ratio_p

__all__ = ["Strata"]

SLACK = 1e-6  # of the bracket, for rounding

Floats = np.ndarray[Any, np.dtype[np.float64]]


class Strata(NamedTuple):
    """Crashes and host-days of two groups, stratum by stratum; all of shape (strata,)."""

    counts: Floats
    exposures: Floats
    reference_counts: Floats
    reference_exposures: Floats

    @classmethod
    def of(
        cls,
        counts: Sequence[float] | Floats,
        exposures: Sequence[float] | Floats,
        reference_counts: Sequence[float] | Floats,
        reference_exposures: Sequence[float] | Floats,
    ) -> Strata:
        """From plain sequences."""
        d1, t1, d0, t0 = (
            np.asarray(each, dtype=float) for each in (counts, exposures, reference_counts, reference_exposures)
        )
        if not all((np.isfinite(each) & (each >= 0)).all() for each in (d1, t1, d0, t0)):
            raise InputError("found a stratum whose counts or times are negative or unknown; expected 0 or more")
        keep = (t1 > 0) & (t0 > 0) & (d1 + d0 > 0)
        return cls(d1[keep], t1[keep], d0[keep], t0[keep])

    def interval(self, alpha: float = 0.05, method: RatioMethod = "midp") -> Interval:
        """Exact conditional estimate and interval of the common ratio.

        Notes
        -----
        Given the events n_s of stratum s, those of the first group are Binomial(n_s, p_s) with odds ratio * t1_s / t0_s,
        and their sum is sufficient: its distribution is the convolution of the strata's, taken here up to the smaller
        group's sum. One stratum gives ``ratio_interval``. Martin & Austin 1996, Epidemiology 7:29,
        doi:10.1097/00001648-199601000-00006.
        """
        one, two = float(self.counts.sum()), float(self.reference_counts.sum())
        if len(self.counts) < 2:
            whole = (float(self.exposures.sum()), float(self.reference_exposures.sum()))
            return ratio_interval(one, whole[0], two, whole[1], alpha, method)
        if two < one:  # count the smaller group
            ratio, low, high = Strata(*self[2:], *self[:2]).interval(alpha, method)
            return Interval(*(math.inf if each == 0 else 1 / each for each in (ratio, high, low)))
        pooled = ratio_interval(one, 1.0, two, 1.0, alpha, method)
        low = self._at(lambda odds: self._tail(odds, method) - alpha / 2, pooled.low)
        high = self._at(lambda odds: alpha / 2 - self._tail(odds, method, above=False), pooled.high)
        return Interval(self._at(self._surplus, pooled.ratio), low, high)

    def p_value(self, method: RatioMethod = "midp") -> float:
        """Twice the smaller tail at a ratio of 1; 1 without an event. It agrees with the interval."""
        if len(self.counts) < 2:
            d1, t1, d0, t0 = (float(each.sum()) for each in self)
            return ratio_p(d1, t1, d0, t0, method=method)
        one, two = self.counts.sum(), self.reference_counts.sum()
        few = Strata(*self[2:], *self[:2]) if two < one else self
        return min(1.0, 2 * min(few._tail(0.0, method), few._tail(0.0, method, above=False)))

    def expected(self) -> tuple[float, float]:
        """Events of either group were the rates the same in each stratum: what plain time at risk would be, adjusted."""
        share = self._shares(0.0)
        events = self.counts + self.reference_counts
        return float(events @ share), float(events @ (1 - share))

    def information(self) -> float:
        """What the strata tell of the logarithm of the ratio, near a ratio of 1: the variance of the sum they
        condition.

        It depends on how many events there were and not on whose they were.
        """
        share = self._shares(0.0)
        return float((self.counts + self.reference_counts) @ (share * (1 - share)))

    def _shares(self, log_ratio: float) -> Floats:
        return np.asarray(special.expit(log_ratio + np.log(self.exposures / self.reference_exposures)))

    def _surplus(self, log_ratio: float) -> float:
        # Expected events of the first group over those seen.
        events = self.counts + self.reference_counts
        return float(events @ self._shares(log_ratio) - self.counts.sum())

    def _tail(self, log_ratio: float, method: RatioMethod, above: bool = True) -> float:
        # P(first group has as many as seen, or more): above; or fewer. Mid-P takes half of "as many".
        most = int(self.counts.sum())
        chances = np.ones(1)
        for events, share in zip(self.counts + self.reference_counts, self._shares(log_ratio), strict=True):
            here = stats.binom.pmf(np.arange(min(most, int(events)) + 1), events, share)
            chances = np.convolve(chances, here)[: most + 1]
        equal = float(chances[most]) if len(chances) > most else 0.0
        fewer = float(chances[:most].sum())
        weight = 0.5 if method == "midp" else 1.0
        return max(1 - fewer - (1 - weight) * equal, 0.0) if above else fewer + weight * equal

    def _at(self, rising: Callable[[float], float], pooled: float) -> float:
        # The ratio at which a function of its logarithm is 0. With one exposure ratio r for all strata it would be the
        # pooled odds over r, so it lies between those of the least and the greatest r.
        if pooled in (0.0, math.inf):
            return pooled
        spread = np.log(self.exposures / self.reference_exposures)
        ends = math.log(pooled) - float(spread.max()) - SLACK, math.log(pooled) - float(spread.min()) + SLACK
        # Tails nearer to 0 or 1 than rounding have no root: the outer end is then the honest one.
        if rising(ends[0]) >= 0 or rising(ends[1]) <= 0:
            return math.exp(min(ends[0] if rising(ends[0]) >= 0 else ends[1], LARGEST_LOG))
        return math.exp(min(optimize.brentq(rising, *ends, xtol=1e-12), LARGEST_LOG))
