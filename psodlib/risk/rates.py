"""Crash rates by version, and the ratio of two versions with an interval that holds on real fleets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from psodlib.errors import InputError
from psodlib.risk import cautions, exact
from psodlib.risk.cautions import counted
from psodlib.risk.comparison import ADJUST, Comparison
from psodlib.risk.exact import Interval
from psodlib.risk.exposure import Exposures, check_columns, check_exposure, parts_of
from psodlib.schema import Cell, told_first

DAYS_PER_YEAR = 365.25


def crash_rates(exposure: Exposures, by: str | list[str] = "version", alpha: float = 0.05) -> pd.DataFrame:
    """Crashes of the driver per host-day, by version or any other column.

    Parameters
    ----------
    exposure : pandas.DataFrame, or an iterable of them
        From ``exposure``, or by hand with ``host``, ``version``, ``host_days``, ``crashes``; or the parts of a fleet.
    by : str or list of str
        Columns to group by.
    alpha : float
        1 - confidence of the intervals.

    Returns
    -------
    pandas.DataFrame
        Index: the groups, an unknown one last. ``crashes``, ``host_days``, ``rate``, ``low``, ``high`` (per host-day, times
        365.25 for host-years; Garwood's interval), ``upper_at_zero`` (one-sided bound where there was no crash).

    Raises
    ------
    InputError
        Crashes without host-days beside them, a snapshot of versions, an absent column, an alpha not between 0 and 1.

    Notes
    -----
    A rate by version says nothing of why: use ``rate_ratio`` to compare.

    Example
    -------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"host": ["a"], "version": ["5.5.0.58"], "host_days": [29.833], "crashes": [1]})
    >>> (crash_rates(table)[["rate", "low", "high"]] * 365.25).round(1).values.tolist()
    [[12.2, 0.3, 68.2]]
    """
    exact.check_share(alpha, "alpha")
    keys = [by] if isinstance(by, str) else list(by or ())
    if not keys:
        raise InputError("by names no column; group by version, or by another column of the exposure table")
    parts = []
    for table in map(check_exposure, parts_of(exposure)):
        check_columns(table, keys)
        parts.append(table.groupby(keys, dropna=False, observed=True)[["crashes", "host_days"]].sum().reset_index())
    together = pd.concat(parts) if parts else pd.DataFrame(columns=[*keys, "crashes", "host_days"], dtype=float)
    grouping = by if isinstance(by, str) else keys
    sums = together.groupby(grouping, dropna=False, observed=True, sort=True)[["crashes", "host_days"]].sum()
    limits = [_limits(k, days, alpha) for k, days in zip(sums["crashes"], sums["host_days"], strict=True)]
    out = sums.assign(crashes=sums["crashes"].astype("Int64"))
    out[["rate", "low", "high", "upper_at_zero"]] = np.array(limits, dtype=float).reshape(len(sums), 4)
    return told_first(out)


def _limits(crashes: float, host_days: float, alpha: float) -> tuple[float, float, float, float]:
    if host_days == 0:
        return (math.nan,) * 4
    low, high = exact.poisson_interval(crashes, host_days, alpha)
    return crashes / host_days, low, high, math.nan if crashes else exact.poisson_upper(0, host_days, alpha)


@dataclass(frozen=True, repr=False)
class RateRatio(Cell):
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
    unplaced_crashes: tuple[int, int] = (0, 0)

    @property
    def interval(self) -> Interval:
        """The headline as an ``Interval``."""
        return Interval(self.ratio, self.low, self.high)

    def __str__(self) -> str:
        how = f"adjusted for {', '.join(self.adjusted_for) or 'nothing'}, hosts may differ"
        how = "exact, nothing adjusted" if self.method == "exact_midp" else how
        evidence = (
            f"{100 * (1 - self.alpha):g} % interval, {how}; {counted(self.crashes[0], 'crash')} in "
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


def rate_ratio(
    exposure: Exposures, version: str, reference: str, adjust: Sequence[str] = ADJUST, alpha: float = 0.05
) -> RateRatio:
    """Ratio of the driver's crash rates under two versions.

    Parameters
    ----------
    exposure : pandas.DataFrame, or an iterable of them
        As for ``crash_rates``; no host in two parts. Other versions' rows tell which hosts crash more often.
    version, reference : str
        The two versions; above 1 means that ``version`` crashes more often.
    adjust : sequence of str
        Any of ``model``, ``esxi_build``, ``cluster``, ``uptime``, ``quarter``; ``warnings`` names what is absent or constant.
    alpha : float
        1 - confidence.

    Returns
    -------
    RateRatio

    Raises
    ------
    InputError
        Crashes without host-days, a version that no host had loaded, an unknown term, an alpha not between 0 and 1.

    Notes
    -----
    One penalised shared-gamma-frailty Poisson fit of all versions (``method`` "frailty"): ln rate = version + terms, with
    version ~ N(common, 1.5^2), terms ~ N(0, 1) and ln variance ~ N(ln 0.5, 3^2); normal on the log scale at its mode. Only a
    table made by hand, without terms, in which no host crashed twice or a version is one row, is compared by its bare
    counts ("exact_midp"). The headline is the union over the known crashes, and those with the unplaced, or with the
    unplaced and the unexplained ones. ``adversarial`` lays every unexplained crash on one version and then on the other.
    ``p_lower`` gives the known and all crashes half of the word each; ``p_value`` agrees with the headline interval.
    """
    return ratio_of(Comparison(exposure, adjust), version, reference, alpha)


def ratio_of(comparison: Comparison, version: str, reference: str, alpha: float = 0.05) -> RateRatio:
    """``rate_ratio`` of a table that is already tabulated, so that several contrasts share the work."""
    exact.check_share(alpha, "alpha")
    found = comparison.headline(version, reference, alpha)
    arms, known = found.arms, found.known
    adversarial = comparison.adversarial(found, alpha)
    crude = exact.ratio_interval(*arms.pairs(arms.known), alpha)
    pooled = _by_model(comparison.table, arms.version, arms.reference, alpha)
    by_cluster = comparison.by_cluster(found, alpha)
    warnings = [
        *comparison.lost,
        *comparison.notes(found),
        *cautions.of_data(comparison, arms),
        *cautions.of_result(known, crude, pooled, found.interval, adversarial, bool(found.terms)),
    ]
    sensitivity = [("crude, Clopper-Pearson", exact.ratio_interval(*arms.pairs(arms.known), alpha, "clopper_pearson"))]
    sensitivity += [("frailty shared by cluster", by_cluster)] if by_cluster else []
    sure, unknown, unplaced = ((round(a), round(b)) for a, b in (arms.known, arms.unknown, arms.unplaced))
    return RateRatio(
        version=arms.version, reference=arms.reference, **found.interval._asdict(), alpha=alpha,
        method="exact_midp" if found.exactly else "frailty", known_only=known, with_unknown=found.with_unknown,
        adversarial=adversarial, crude=crude, mantel_haenszel=pooled, frailty_variance=found.fit.variance if found.fit else None,
        crashes=sure, host_days=arms.days, hosts=arms.hosts, p_lower=found.p_lower, warnings=tuple(warnings),
        p_value=found.p_value, adjusted_for=found.terms, unknown_crashes=unknown, sensitivity=tuple(sensitivity), unplaced_crashes=unplaced,
    )  # fmt: skip


def _by_model(table: pd.DataFrame, version: str, reference: str, alpha: float) -> Interval:
    stratum = table["model"] if "model" in table else pd.Series(0, index=table.index)
    sums = table.groupby([stratum, table["version"]], dropna=False)[["crashes", "host_days"]].sum()
    crashes, days = (sums.unstack(fill_value=0)[name] for name in ("crashes", "host_days"))
    return exact.mantel_haenszel(crashes[version], days[version], crashes[reference], days[reference], alpha)
