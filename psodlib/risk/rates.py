"""Crash rates by version, the ratio of two versions with an interval that holds on real fleets, and all drivers side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from psodlib.errors import InputError
from psodlib.risk import cautions, exact
from psodlib.risk.cautions import counted
from psodlib.risk.comparison import ADJUST, Comparison
from psodlib.risk.exact import Interval
from psodlib.risk.exposure import Exposures, check_columns, check_exposure, known_modules, of_module, parts_of
from psodlib.schema import Cell, Tables, told_first
from psodlib.triage.known_issues import exposed, load_issues

DAYS_PER_YEAR = 365.25
LEAGUE = {
    "module": "string", "crashes": "Int64", "hosts": "Int64", "host_days": "float64", "versions": "Int64", "worst": "string",
    "best": "string", "ratio": "Float64", "low": "Float64", "high": "Float64", "known_issues": "string", "exposed": "string",
}  # fmt: skip


def crash_rates(exposure: Exposures, by: str | list[str] = "version", alpha: float = 0.05) -> pd.DataFrame:
    """Crashes of the driver per host-day, by version or any other column; to compare versions use ``rate_ratio``.

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
    """
    exact.check_share(alpha, "alpha")
    keys = [by] if isinstance(by, str) else list(by or ())
    if not keys or {"crashes", "host_days"} & set(keys):
        raise InputError(
            f"by is {by!r}; group by version, or by another column of the exposure table but what is counted"
        )
    parts = [pd.DataFrame(columns=[*keys, "crashes", "host_days"], dtype=float)]
    for table in map(check_exposure, parts_of(exposure)):
        check_columns(table, keys)
        parts.append(table.groupby(keys, dropna=False, observed=True)[["crashes", "host_days"]].sum().reset_index())
    grouped = pd.concat(parts[1:] or parts).groupby(by if isinstance(by, str) else keys, dropna=False, observed=True)
    out = with_limits(grouped[["crashes", "host_days"]].sum(), alpha)
    pairs = zip(out["crashes"], out["host_days"], strict=True)
    upper = [math.nan if k or not days else exact.poisson_upper(0, days, alpha) for k, days in pairs]
    return told_first(out.assign(upper_at_zero=np.array(upper, dtype=float)))


def with_limits(sums: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """``crashes`` and ``host_days`` with ``rate`` and Garwood's ``low`` and ``high`` beside them."""
    pairs = list(zip(sums["crashes"], sums["host_days"], strict=True))
    limits = [exact.poisson_interval(k, days, alpha) if days else (math.nan, math.nan) for k, days in pairs]
    out = sums.assign(crashes=sums["crashes"].astype("Int64"), rate=sums["crashes"] / sums["host_days"])
    out[["low", "high"]] = np.array(limits, dtype=float).reshape(len(sums), 2)
    return out


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
        evidence = (
            f"{100 * (1 - self.alpha):g} % interval, {'exact, nothing adjusted' if self.method == 'exact_midp' else how}; "
            f"{counted(self.crashes[0], 'crash')} in {self.host_days[0]:,.0f} host-days against {self.crashes[1]} in {self.host_days[1]:,.0f}"
        )
        if str(self.interval) == "no information":
            return f"No information on {self.version} against {self.reference} ({evidence})"
        if not math.isfinite(self.ratio) and math.isinf(self.high):
            at_least = f"{self.version} crashes at least {self.low:.3g} times as often as {self.reference}"
            return f"{at_least}, the upper end is unbounded ({evidence})"
        return f"{self.version} crashes {self.interval} times as often as {self.reference} ({evidence})"

    def as_frame(self) -> pd.DataFrame:
        """Every estimate, headline first: index ``estimate``; ``ratio``, ``low``, ``high`` (``NA`` where undefined), ``text``."""
        rows = {
            "headline": self.interval, "known crashes only": self.known_only, "with unknown crashes": self.with_unknown,
            "unknown crashes against either": self.adversarial, "crude, mid-P": self.crude,
            "Mantel-Haenszel by model": self.mantel_haenszel, **dict(self.sensitivity),
        }  # fmt: skip
        names = pd.Index(rows, name="estimate")
        out = pd.DataFrame([each.finite() for each in rows.values()], names, ["ratio", "low", "high"]).astype("Float64")
        return out.assign(text=pd.array([str(each) for each in rows.values()], dtype="string"))


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
        As ``crash_rates``; a version that no host had loaded, an unknown term.

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
    arms, table = found.arms, comparison.table
    adversarial = comparison.adversarial(found, alpha)
    crude = exact.ratio_interval(*arms.pairs(arms.known), alpha)
    stratum = table["model"] if "model" in table else pd.Series(0, index=table.index)
    both = table.groupby([stratum, table["version"]], dropna=False)[["crashes", "host_days"]]
    sums = both.sum().unstack(fill_value=0)
    k, days = sums["crashes"], sums["host_days"]
    pooled = exact.mantel_haenszel(k[arms.version], days[arms.version], k[arms.reference], days[arms.reference], alpha)
    by_cluster = comparison.by_cluster(found, alpha)
    warnings = [*comparison.lost, *comparison.notes(found), *cautions.of_data(comparison, arms)]
    warnings += cautions.of_result(found.known, crude, pooled, found.interval, adversarial, bool(found.terms))
    sensitivity = [("crude, Clopper-Pearson", exact.ratio_interval(*arms.pairs(arms.known), alpha, "clopper_pearson"))]
    sensitivity += [("frailty shared by cluster", by_cluster)] if by_cluster else []
    sure, unknown, unplaced = ((round(a), round(b)) for a, b in (arms.known, arms.unknown, arms.unplaced))
    return RateRatio(
        version=arms.version, reference=arms.reference, **found.interval._asdict(), alpha=alpha,
        method="exact_midp" if found.exactly else "frailty", known_only=found.known, with_unknown=found.with_unknown,
        adversarial=adversarial, crude=crude, mantel_haenszel=pooled, frailty_variance=found.fit.variance if found.fit else None,
        crashes=sure, host_days=arms.days, hosts=arms.hosts, p_lower=found.p_lower, warnings=tuple(warnings),
        p_value=found.p_value, adjusted_for=found.terms, unknown_crashes=unknown, sensitivity=tuple(sensitivity), unplaced_crashes=unplaced,
    )  # fmt: skip


def driver_league(fleet: Tables) -> pd.DataFrame:
    """All modules of a fleet: who has the crashes, and whether its versions differ.

    Parameters
    ----------
    fleet : Fleet

    Returns
    -------
    pandas.DataFrame
        One row a module, most crashes first: ``crashes`` (laid to it, watched or not), ``hosts``, ``host_days`` and
        ``versions`` (watched), ``worst`` and ``best`` version by expected rate, their ``ratio`` with ``low`` and ``high``
        (95 %; NA where unbounded or without a crash), ``known_issues`` (ids that its crashes matched) and ``exposed`` (ids
        that name a version seen here and matched no crash), both joined by ``;``.
    """
    issues, rows = load_issues(), []
    table = known_modules(fleet).sort_values(["crashes", "versions", "module"], ascending=[False, False, True])
    for module, crashes in table[["module", "crashes"]].itertuples(index=False, name=None):
        stretches = of_module(fleet, module)
        known = stretches[stretches["version"].notna()]
        versions = sorted(known["version"].unique())
        matched = {one for ids in stretches.attrs["known_issues"].values() for one in ids}
        # Issues that name a version which ran here, and that no crash here matched.
        named = {issue.id for version in versions for issue in exposed(issues, module, version)}
        row: dict[str, Any] = {
            "module": module, "crashes": crashes, "hosts": known["host"].nunique(), "host_days": float(known["host_days"].sum()),
            "versions": len(versions), "known_issues": ";".join(sorted(matched)) or None, "exposed": ";".join(sorted(named - matched)) or None,
        }  # fmt: skip
        if len(versions) > 1 and known["crashes"].sum() > 0:
            # Adjusted for the model alone: quick, and what a league needs; ``decide_pin`` adjusts for uptime and season too.
            comparison = Comparison(stretches, ("model",))
            names = comparison.watched()
            rates = comparison.fit(comparison.arms(names[0], names[1]), "known").rates()
            seen = {name: rates.get(name, 0.0) for name in names}
            # One that never crashed is not the worst, however little it was tried.
            crashed = set(known.loc[known["crashes"] > 0, "version"])
            worst = max((name for name in names if name in crashed), key=seen.__getitem__)
            best = min((name for name in names if name != worst), key=seen.__getitem__)
            found = ratio_of(comparison, worst, best).interval.finite()
            row |= {"worst": worst, "best": best, **dict(zip(("ratio", "low", "high"), found, strict=True))}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(LEAGUE)).astype(LEAGUE)
