"""Crash rates by version, and the ratio of two versions with an interval that holds on real fleets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from psodlib.errors import InputError
from psodlib.risk import cautions, exact
from psodlib.risk.comparison import ADJUST, FEW_CRASHES, Comparison, Headline
from psodlib.risk.exact import Interval
from psodlib.risk.exposure import check_exposure

__all__ = [
    "ADJUST",
    "DAYS_PER_YEAR",
    "FEW_CRASHES",
    "Interval",
    "RateRatio",
    "crash_rates",
    "prior_rate",
    "rate_ratio",
    "ratio_of",
]

DAYS_PER_YEAR = 365.25
_METHODS = {"frailty": "adjusted, hosts may differ", "exact_midp": "exact, as crashes are few"}
DEFAULT_RATE = 0.2 / DAYS_PER_YEAR  # a driver crash each five host-years, where the fleet itself has none


def crash_rates(exposure: pd.DataFrame, by: str | list[str] = "version", alpha: float = 0.05) -> pd.DataFrame:
    """Crashes of the driver per host-day, by version or any other column.

    Parameters
    ----------
    exposure : pandas.DataFrame
        From ``exposure``, or by hand with ``host``, ``version``, ``host_days``, ``crashes``.
    by : str or list of str
        Columns of ``exposure`` to group by.
    alpha : float
        1 - confidence of the intervals.

    Returns
    -------
    pandas.DataFrame
        Index: the groups in order, an unknown group last. Columns ``crashes`` (count), ``host_days``, ``rate``,
        ``low``, ``high`` (per host-day; Garwood's two-sided interval) and ``upper_at_zero`` (one-sided upper bound
        where there was no crash, else NaN). A group without host-days has no rate.

    Raises
    ------
    InputError
        Crashes without host-days beside them, a snapshot of versions, an absent column or none, an alpha that is not
        between 0 and 1.

    Notes
    -----
    Times 365.25 for host-years. A rate by version says nothing of why: use ``rate_ratio`` to compare.

    Example
    -------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"host": ["a"], "version": ["5.5.0.58"], "host_days": [29.833], "crashes": [1]})
    >>> (crash_rates(table)[["rate", "low", "high"]] * 365.25).round(1).values.tolist()
    [[12.2, 0.3, 68.2]]
    """
    table = check_exposure(exposure)
    exact.check_share(alpha, "alpha")
    keys = [by] if isinstance(by, str) else list(by or ())
    if not keys:
        raise InputError("by names no column; group by version, or by another column of the exposure table")
    absent = [key for key in keys if key not in table]
    if absent:
        raise InputError(
            f"the exposure table has no column {absent[0]}; group by one of {', '.join(map(str, table.columns))}"
        )
    sums = table.groupby(by if isinstance(by, str) else keys, dropna=False, observed=True, sort=True)[
        ["crashes", "host_days"]
    ].sum()
    limits = [_limits(k, days, alpha) for k, days in zip(sums["crashes"], sums["host_days"], strict=True)]
    out = sums.assign(crashes=sums["crashes"].astype("Int64"))
    out[["rate", "low", "high", "upper_at_zero"]] = np.array(limits, dtype=float).reshape(len(sums), 4)
    return out


def _limits(crashes: float, host_days: float, alpha: float) -> tuple[float, float, float, float]:
    if host_days == 0:
        return (math.nan,) * 4
    low, high = exact.poisson_interval(crashes, host_days, alpha)
    return crashes / host_days, low, high, math.nan if crashes else exact.poisson_upper(0, host_days, alpha)


@dataclass(frozen=True, repr=False)
class RateRatio:
    """How many times the crash rate of one version is that of another.

    ``low, high`` is the headline: the union of the interval from crashes known to be the driver's and the one that
    counts every unexplained crash as the driver's too. Pairs are (version, reference).
    """

    version: str
    reference: str
    ratio: float
    low: float
    high: float
    alpha: float
    method: str
    known_only: Interval
    with_unknown: Interval
    adversarial: Interval
    crude: Interval
    mantel_haenszel: Interval
    frailty_variance: float | None
    crashes: tuple[int, int]
    host_days: tuple[float, float]
    hosts: tuple[int, int]
    p_lower: float
    warnings: tuple[str, ...]
    p_value: float = 1.0
    adjusted_for: tuple[str, ...] = ()
    unknown_crashes: tuple[int, int] = (0, 0)
    sensitivity: tuple[tuple[str, Interval], ...] = ()
    error: float | None = None  # standard error of ln(known_only.ratio) under the frailty fit
    comparable: float = 1.0  # times the version's host-days: what they are worth on the reference's mixture of strata

    @property
    def interval(self) -> Interval:
        """The headline as an ``Interval``."""
        return Interval(self.ratio, self.low, self.high)

    def _repr_html_(self) -> str:
        import psodlib  # what a notebook shows is the last wing's business

        return psodlib.cell(self)

    def __str__(self) -> str:
        evidence = (
            f"{100 * (1 - self.alpha):g} % interval, {_METHODS.get(self.method, self.method)}; {_crashes(self.crashes[0])} in "
            f"{self.host_days[0]:,.0f} host-days against {self.crashes[1]} in {self.host_days[1]:,.0f}"
        )
        if str(self.interval) == "no information":
            return f"No information on {self.version} against {self.reference} ({evidence})"
        if not math.isfinite(self.ratio) and math.isinf(self.high):
            at_least = f"{self.version} crashes at least {self.low:.3g} times as often as {self.reference}"
            return f"{at_least}, the upper end is unbounded ({evidence})"
        return f"{self.version} crashes {self.interval} times as often as {self.reference} ({evidence})"

    __repr__ = __str__

    def as_frame(self) -> pd.DataFrame:
        """Every estimate as a table, headline first.

        Returns
        -------
        pandas.DataFrame
            Index ``estimate``; ``ratio``, ``low``, ``high`` (``NA`` where unbounded or undefined) and ``text``, which
            says it in words.
        """
        rows = [
            ("headline", self.interval),
            ("known crashes only", self.known_only),
            ("with unknown crashes", self.with_unknown),
            ("unknown crashes against either", self.adversarial),
            ("crude, mid-P", self.crude),
            ("Mantel-Haenszel by model", self.mantel_haenszel),
            *self.sensitivity,
        ]
        numbers = pd.DataFrame([value for _, value in rows], columns=["ratio", "low", "high"])
        out = numbers.where(np.isfinite(numbers)).astype("Float64")
        out.index = pd.Index([name for name, _ in rows], name="estimate")
        return out.assign(text=pd.array([str(value) for _, value in rows], dtype="string"))


def _crashes(count: int) -> str:
    return f"{count} crash" if count == 1 else f"{count} crashes"


def rate_ratio(
    exposure: pd.DataFrame, version: str, reference: str, adjust: Sequence[str] = ADJUST, alpha: float = 0.05
) -> RateRatio:
    """Ratio of the driver's crash rates under two versions.

    Parameters
    ----------
    exposure : pandas.DataFrame
        From ``exposure``, or by hand with ``host``, ``version``, ``host_days``, ``crashes``. Other versions' rows are
        used too: they tell which hosts crash more than others.
    version, reference : str
        The two versions; above 1 means that ``version`` crashes more often.
    adjust : sequence of str
        Any of ``model``, ``esxi_build``, ``cluster``, ``uptime``, ``quarter``. What is absent, constant, or cannot be
        told from the version is left out, and ``warnings`` says so.
    alpha : float
        1 - confidence.

    Returns
    -------
    RateRatio

    Raises
    ------
    InputError
        Crashes without host-days, a version that no host had loaded, a term that is none of the above, an alpha that is
        not between 0 and 1.

    Notes
    -----
    With 5 crashes or more in each arm: shared-gamma-frailty Poisson (``method`` "frailty"); below: exact conditional
    mid-P ("exact_midp") within strata of what a host is (of those terms model, esxi_build, cluster: each only while half of
    what the crashes tell is left). ``adversarial`` spans the intervals with every unexplained crash laid on one version and
    then on the other. ``p_lower`` is normal on the log scale under the frailty fit, else from
    gamma posteriors with half a crash at the fleet's own pooled rate as prior. ``p_value`` tests a ratio of 1 and
    agrees with the headline interval.
    """
    return ratio_of(Comparison(exposure, adjust), version, reference, alpha)


def ratio_of(comparison: Comparison, version: str, reference: str, alpha: float = 0.05) -> RateRatio:
    """``rate_ratio`` of a table that is already tabulated, so that several contrasts share the work."""
    exact.check_share(alpha, "alpha")
    table, found = comparison.table, comparison.headline(version, reference, alpha)
    arms, known, headline = found.arms, found.known, found.interval
    adversarial = comparison.adversarial(found, alpha)
    crude = exact.ratio_interval(*arms.pairs(arms.known), alpha)
    pooled = _mantel_haenszel(table, version, reference, alpha)
    warnings = [
        *comparison.lost,
        *comparison.notes(found),
        *cautions.of_terms(table, found.terms),
        *cautions.of_data(table, version, reference),
        *cautions.of_result(known, crude, pooled, headline, adversarial, bool(found.fit or found.terms)),
    ]
    return RateRatio(
        version=version,
        reference=reference,
        ratio=headline.ratio,
        low=headline.low,
        high=headline.high,
        alpha=alpha,
        method="frailty" if found.fit else "exact_midp",
        known_only=known,
        with_unknown=found.with_unknown,
        adversarial=adversarial,
        crude=crude,
        mantel_haenszel=pooled,
        frailty_variance=found.fit.variance if found.fit else None,
        crashes=_whole(arms.known),
        host_days=arms.days,
        hosts=arms.hosts,
        p_lower=_p_lower(table, found),
        warnings=tuple(warnings),
        p_value=found.p_value,
        adjusted_for=found.terms,
        unknown_crashes=_whole(arms.unknown),
        sensitivity=(
            ("crude, Clopper-Pearson", exact.ratio_interval(*arms.pairs(arms.known), alpha, "clopper_pearson")),
            *comparison.sensitivity(found, alpha),
        ),
        error=found.fit.log_ratio(version, reference)[1] if found.fit else None,
        comparable=found.comparable,
    )


def _mantel_haenszel(table: pd.DataFrame, version: str, reference: str, alpha: float) -> Interval:
    stratum = table["model"] if "model" in table else pd.Series(0, index=table.index)
    sums = (
        table.groupby([stratum, table["version"]], dropna=False)[["crashes", "host_days"]].sum().unstack(fill_value=0)
    )
    crashes, days = sums["crashes"], sums["host_days"]
    return exact.mantel_haenszel(crashes[version], days[version], crashes[reference], days[reference], alpha)


def prior_rate(table: pd.DataFrame) -> float:
    """Centre of the gamma prior: the table's pooled rate per host-day, or 0.2 a host-year where it has no crash."""
    crashes, days = float(table["crashes"].sum()), float(table["host_days"].sum())
    return crashes / days if crashes else DEFAULT_RATE


def _p_lower(table: pd.DataFrame, found: Headline) -> float:
    arms = found.arms
    if found.fit is not None:
        log_ratio, error = found.fit.log_ratio(arms.version, arms.reference)
        return float(special.ndtr(-log_ratio / error))
    prior = 0.5 / prior_rate(table)
    mine = prior + arms.days[0] * found.comparable
    return exact.p_lower(0.5 + arms.known[0], mine, 0.5 + arms.known[1], prior + arms.days[1])


def _whole(pair: tuple[float, float]) -> tuple[int, int]:
    return round(pair[0]), round(pair[1])
