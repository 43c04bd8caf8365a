"""Crash rates by version, and the ratio of two versions with an interval that holds on real fleets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from psodlib.errors import InputError
from psodlib.risk import cautions, exact
from psodlib.risk.exact import Interval
from psodlib.risk.exposure import check_exposure
from psodlib.risk.frailty import Fit, HostCells, estimable, fit_frailty, fit_poisson, parameters, tabulate

__all__ = [
    "ADJUST",
    "DAYS_PER_YEAR",
    "FEW_CRASHES",
    "Interval",
    "RateRatio",
    "crash_rates",
    "prior_rate",
    "rate_ratio",
    "version_effect",
]

DAYS_PER_YEAR = 365.25
ADJUST = ("model", "uptime", "quarter")
TERMS = ("model", "esxi_build", "cluster", "uptime", "quarter")
FEW_CRASHES = 5  # below this in either arm a likelihood has no maximum worth its standard error: exact instead
CRASHES_PER_PARAMETER = 3  # a model with more parameters than this allows is not fitted
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

    @property
    def interval(self) -> Interval:
        """The headline as an ``Interval``."""
        return Interval(self.ratio, self.low, self.high)

    def __str__(self) -> str:
        evidence = (
            f"{100 * (1 - self.alpha):g} % interval, {self.method.replace('_', ' ')}; {_crashes(self.crashes[0])} in "
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
    mid-P ("exact_midp"), which adjusts for nothing. ``adversarial`` spans the intervals with every unexplained crash
    laid on one version and then on the other. ``p_lower`` is normal on the log scale under the frailty fit, else from
    gamma posteriors with half a crash at the fleet's own pooled rate as prior. ``p_value`` tests a ratio of 1 and
    agrees with the headline interval.
    """
    exact.check_share(alpha, "alpha")
    table, warnings = _usable(exposure, version, reference)
    terms, left_out = _present(table, adjust)
    cells = tabulate(table, terms)
    arms = _Arms.of(table, cells, version, reference)
    frailty = min(arms.known) >= FEW_CRASHES
    if frailty:
        terms, more = _affordable(cells, terms, (version, reference))
        left_out += more
        estimates, fit = _by_frailty(cells, terms, version, reference, alpha)
        warnings += _of_fit(cells, fit, terms, version, reference, alpha)
    else:
        terms, estimates, fit = (), _by_counts(arms, alpha), None
        warnings.append(_few(arms))
    known, both, adversarial, p_value = estimates
    crude = exact.ratio_interval(*arms.pairs(arms.known), alpha)
    pooled = _mantel_haenszel(table, version, reference, alpha)
    low, high = min(known.low, both.low), max(known.high, both.high)
    warnings += left_out + cautions.of_terms(table, terms) + cautions.of_data(table, version, reference)
    warnings += cautions.of_result(known, crude, pooled, Interval(known.ratio, low, high), adversarial, frailty)
    return RateRatio(
        version=version,
        reference=reference,
        ratio=known.ratio,
        low=low,
        high=high,
        alpha=alpha,
        method="frailty" if frailty else "exact_midp",
        known_only=known,
        with_unknown=both,
        adversarial=adversarial,
        crude=crude,
        mantel_haenszel=pooled,
        frailty_variance=fit.variance if fit else None,
        crashes=_whole(arms.known),
        host_days=arms.days,
        hosts=arms.hosts,
        p_lower=_p_lower(table, arms, fit),
        warnings=tuple(warnings),
        p_value=p_value,
        adjusted_for=terms,
        unknown_crashes=_whole(arms.unknown),
        sensitivity=_sensitivity(table, cells, arms, terms, frailty, alpha),
        error=fit.log_ratio(version, reference)[1] if fit else None,
    )


@dataclass(frozen=True)
class _Arms:
    # Sums of the two versions; every pair is (version, reference).
    version: str
    reference: str
    known: tuple[float, float]
    unknown: tuple[float, float]
    days: tuple[float, float]
    hosts: tuple[int, int]

    @classmethod
    def of(cls, table: pd.DataFrame, cells: HostCells, version: str, reference: str) -> _Arms:
        def pair(matrix: Any) -> tuple[float, float]:
            by_cell = np.asarray(matrix.sum(axis=0)).ravel()
            return float(by_cell[cells.of_version(version)].sum()), float(by_cell[cells.of_version(reference)].sum())

        at_risk = table[table["host_days"] > 0]
        hosts = [int(at_risk.loc[at_risk["version"] == name, "host"].nunique()) for name in (version, reference)]
        return cls(version, reference, pair(cells.known), pair(cells.unknown), pair(cells.days), (hosts[0], hosts[1]))

    def pairs(self, counts: tuple[float, float]) -> tuple[float, float, float, float]:
        return counts[0], self.days[0], counts[1], self.days[1]


def _usable(exposure: pd.DataFrame, version: str, reference: str) -> tuple[pd.DataFrame, list[str]]:
    # Rows whose version is known, and a word on those where it is not.
    table = check_exposure(exposure)
    known = table["version"].notna()
    lost = table[~known]
    warnings = []
    if len(lost):
        warnings.append(
            f"{lost['host_days'].sum():,.0f} host-days with {lost['crashes'].sum():.0f} crashes are left out: "
            "it is not known which version those boots had loaded"
        )
    table = table[known]
    seen = set(table.loc[table["host_days"] > 0, "version"].unique())
    for name in (version, reference):
        if name not in seen:
            raise InputError(
                f"no host-days with {name} loaded; the table has {', '.join(sorted(map(str, seen))) or 'no version'}"
            )
    if version == reference:
        raise InputError(f"version and reference are both {version}; give two versions")
    return table, warnings


def _present(table: pd.DataFrame, adjust: str | Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    # The terms that the table can feed, and a word on each that it cannot.
    adjust = (adjust,) if isinstance(adjust, str) else tuple(dict.fromkeys(adjust or ()))
    strange = [term for term in adjust if term not in TERMS]
    if strange:
        raise InputError(f"cannot adjust for {strange[0]}; choose from {', '.join(TERMS)}")
    terms, notes = [], []
    for term in adjust:
        needed = {"uptime": ["start", "end", "uptime_start"], "quarter": ["start", "end", "uptime_start"]}.get(
            term, [term]
        )
        if any(column not in table or table[column].isna().all() for column in needed):
            notes.append(f"not adjusted for {term}: the table does not hold it")
        elif needed == [term] and table[term].nunique(dropna=False) < 2:
            notes.append(f"not adjusted for {term}: it is the same everywhere")
        else:
            terms.append(term)
    return tuple(terms), notes


def _affordable(
    cells: HostCells, terms: tuple[str, ...], versions: tuple[str, ...]
) -> tuple[tuple[str, ...], list[str]]:
    # Terms that can be told from the versions and that the number of crashes can carry.
    kept: tuple[str, ...] = ()
    notes = []
    crashes = float(cells.known.sum())
    for term in terms:
        more = (*kept, term)
        if len(cells.levels[term]) < 2:
            notes.append(f"not adjusted for {term}: it is the same everywhere")
        elif parameters(cells, more) * CRASHES_PER_PARAMETER > crashes:
            notes.append(
                f"not adjusted for {term}: {crashes:.0f} crashes are too few for its {len(cells.levels[term])} levels"
            )
        elif not estimable(cells, cells.known, more, versions):
            notes.append(f"not adjusted for {term}: it changes with the version, so the two cannot be told apart")
        else:
            kept = more
    return kept, notes


Estimates = tuple[Interval, Interval, Interval, float]  # known only, with unknown, adversarial, p


def _by_counts(arms: _Arms, alpha: float) -> Estimates:
    both = (arms.known[0] + arms.unknown[0], arms.known[1] + arms.unknown[1])
    against = [(both[0], arms.known[1]), (arms.known[0], both[1])]
    known, whole, one, other = (
        exact.ratio_interval(*arms.pairs(counts), alpha) for counts in (arms.known, both, *against)
    )
    p = max(exact.ratio_p(*arms.pairs(counts)) for counts in (arms.known, both))
    return (
        known,
        whole,
        Interval(known.ratio, min(one.low, other.low), max(one.high, other.high)),
        _agreed(p, known, whole),
    )


def _agreed(p: float, known: Interval, whole: Interval) -> float:
    # Two tests that point opposite ways reject nothing: the union of their intervals holds 1.
    return 1.0 if (known.ratio - 1) * (whole.ratio - 1) < 0 else p


def _by_frailty(
    cells: HostCells, terms: tuple[str, ...], version: str, reference: str, alpha: float
) -> tuple[Estimates, Fit]:
    fit = fit_frailty(cells, cells.known, terms)
    known, p = _interval(fit, version, reference, alpha)
    if cells.unknown.sum() == 0:
        return (known, known, known, p), fit
    whole, p_whole = _interval(fit_frailty(cells, cells.known + cells.unknown, terms), version, reference, alpha)
    extremes = []
    for name in (version, reference):
        laid = cells.unknown.multiply(cells.of_version(name)[None, :].astype(float)).tocsr()
        extremes.append(_interval(fit_frailty(cells, cells.known + laid, terms), version, reference, alpha)[0])
    adversarial = Interval(known.ratio, min(one.low for one in extremes), max(one.high for one in extremes))
    return (known, whole, adversarial, _agreed(max(p, p_whole), known, whole)), fit


def _interval(fit: Fit, version: str, reference: str, alpha: float) -> tuple[Interval, float]:
    log_ratio, error = fit.log_ratio(version, reference)
    return exact.wald(log_ratio, error, alpha), float(2 * special.ndtr(-abs(log_ratio) / error))


def _of_fit(
    cells: HostCells, fit: Fit, terms: tuple[str, ...], version: str, reference: str, alpha: float
) -> list[str]:
    # What the fit itself tells the reader to look at.
    notes = []
    if not fit.converged:
        notes.append("the frailty fit did not converge; trust the exact interval more")
    if fit.variance > 0.2:
        notes.append(
            f"hosts differ beyond chance (variance of the host effect {fit.variance:.2g}): look for lemon hosts"
        )
    whole = fit.log_ratio(version, reference)[0]
    for term in ("uptime", "quarter"):
        if term in terms:
            without = fit_frailty(cells, cells.known, tuple(other for other in terms if other != term))
            moved = math.exp(whole - without.log_ratio(version, reference)[0]) - 1
            if abs(moved) > cautions.CONFOUNDED:
                notes.append(f"adjusting for {term} moves the ratio by {100 * moved:+.0f} %: it is a confounder here")
    return notes


def _few(arms: _Arms) -> str:
    return (
        f"{arms.known[0]:.0f} and {arms.known[1]:.0f} crashes: under {FEW_CRASHES} in an arm, so the exact interval is "
        "used and nothing is adjusted for"
    )


def _mantel_haenszel(table: pd.DataFrame, version: str, reference: str, alpha: float) -> Interval:
    stratum = table["model"] if "model" in table else pd.Series(0, index=table.index)
    sums = (
        table.groupby([stratum, table["version"]], dropna=False)[["crashes", "host_days"]].sum().unstack(fill_value=0)
    )
    crashes, days = sums["crashes"], sums["host_days"]
    return exact.mantel_haenszel(crashes[version], days[version], crashes[reference], days[reference], alpha)


def version_effect(exposure: pd.DataFrame, versions: Sequence[str], adjust: Sequence[str] = ADJUST) -> float:
    """p-value of "none of these versions differs from another": the likelihood-ratio test of the frailty model.

    Parameters
    ----------
    exposure : pandas.DataFrame
        From ``exposure``, or by hand.
    versions : sequence of str
        Two or more versions; only their rows are used.
    adjust : sequence of str
        As for ``rate_ratio``.

    Returns
    -------
    float
        1 where there is no crash.

    Raises
    ------
    InputError
        A version that no host had loaded, or a table or term that cannot be used.
    """
    table = check_exposure(exposure)
    table = table[table["version"].isin(list(versions)) & (table["host_days"] > 0)]
    absent = [name for name in versions if not (table["version"] == name).any()]
    if absent:
        raise InputError(f"no host-days with {absent[0]} loaded; leave it out of the comparison")
    if table["crashes"].sum() == 0:
        return 1.0
    terms, _ = _present(table, adjust)
    cells = tabulate(table, terms)
    terms, _ = _affordable(cells, terms, tuple(versions))
    full, null = (fit_frailty(cells, cells.known, terms, by_version=kind) for kind in (True, False))
    gain = 2 * (full.log_likelihood - null.log_likelihood)
    return float(special.chdtrc(table["version"].nunique() - 1, max(gain, 0.0)))


def prior_rate(table: pd.DataFrame) -> float:
    """Centre of the gamma prior: the table's pooled rate per host-day, or 0.2 a host-year where it has no crash."""
    crashes, days = float(table["crashes"].sum()), float(table["host_days"].sum())
    return crashes / days if crashes else DEFAULT_RATE


def _p_lower(table: pd.DataFrame, arms: _Arms, fit: Fit | None) -> float:
    if fit is not None:
        log_ratio, error = fit.log_ratio(arms.version, arms.reference)
        return float(special.ndtr(-log_ratio / error))
    prior = 0.5 / prior_rate(table)
    return exact.p_lower(0.5 + arms.known[0], prior + arms.days[0], 0.5 + arms.known[1], prior + arms.days[1])


def _sensitivity(
    table: pd.DataFrame, cells: HostCells, arms: _Arms, terms: tuple[str, ...], frailty: bool, alpha: float
) -> tuple[tuple[str, Interval], ...]:
    rows = [("crude, Clopper-Pearson", exact.ratio_interval(*arms.pairs(arms.known), alpha, "clopper_pearson"))]
    if frailty:
        pair = arms.version, arms.reference
        rows.append(("Poisson, robust by host", _interval(fit_poisson(cells, cells.known, terms), *pair, alpha)[0]))
        cluster = _clusters(table, cells)
        if cluster is not None:
            grouped = cells.grouped(cluster)
            rows.append(
                ("frailty shared by cluster", _interval(fit_frailty(grouped, grouped.known, terms), *pair, alpha)[0])
            )
    return tuple(rows)


def _clusters(table: pd.DataFrame, cells: HostCells) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    # Cluster code of each host of the cells, where the table knows clusters.
    if "cluster" not in table or table["cluster"].nunique() < 2:
        return None
    of_host = table.groupby("host", sort=False)["cluster"].first().reindex(cells.hosts)
    return np.asarray(pd.factorize(of_host, use_na_sentinel=False)[0], dtype=np.int64)


def _whole(pair: tuple[float, float]) -> tuple[int, int]:
    return round(pair[0]), round(pair[1])
