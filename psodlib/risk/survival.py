"""Time to crash within a boot: does the hazard rise with uptime, and would rebooting now and then help?

A stretch enters the risk set at the uptime where watching began (delayed entry) and leaves it where watching ended.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from psodlib.errors import InputError, SmallSampleWarning
from psodlib.risk import exact
from psodlib.risk.exposure import UPTIME_BANDS, Floats, Whole, check_columns, check_exposure, in_days, split_stretches
from psodlib.risk.frailty import fit_frailty, tabulate
from psodlib.risk.rates import DAYS_PER_YEAR, with_limits

DRIVER, OTHER, REBOOT = 1, 2, 3  # causes that end a boot; 0 is censored
FEWEST_CRASHES = 5  # for a Weibull shape or an effect of uptime
FEW_AT_RISK = 10  # below this the curve is one host's story: it starts where so many are watched


def time_to_crash(exposure: pd.DataFrame, by: str = "version", alpha: float = 0.05) -> pd.DataFrame:
    """How long boots live until the driver crashes them, by version or another column.

    Parameters
    ----------
    exposure : pandas.DataFrame
        From ``exposure``; rows of unknown ``uptime_start`` are left out.
    by : str
        Column to group by.
    alpha : float
        1 - confidence.

    Returns
    -------
    pandas.DataFrame
        One row an uptime at which something ended, by group: ``by``, ``days``, ``at_risk``, ``crashes``, ``other_crashes``,
        ``reboots``, ``survival`` with ``low`` and ``high``, ``hazard``, ``incidence`` and those of the other ends. Each group
        begins at the uptime from which 10 boots are watched; all is conditional on having lived that long.

    Raises
    ------
    InputError
        No host-days, or no ``uptime_start``; a ``SmallSampleWarning`` where a group never has 10 boots under watch at once.

    Notes
    -----
    ``survival`` treats every other end as censoring: the chance to be spared by the driver, were there no other end.
    ``incidence`` (Aalen-Johansen) lets other crashes and reboots compete: the share of boots that the driver does end.
    Frail hosts crash early, so the raw hazard looks falling; read the trend from ``hazard_by_uptime`` with adjustment.
    """
    table, entry, leave, cause = _spells(exposure)
    check_columns(table, [by])
    parts = []
    for name, rows in table.groupby(by, observed=True, sort=True).indices.items():
        ages = np.sort(entry[rows])
        under_watch = np.arange(1, len(ages) + 1) - np.searchsorted(np.sort(leave[rows]), ages, side="right")
        enough = ages[under_watch >= FEW_AT_RISK]
        if not len(enough):
            few = f"{name}: never {FEW_AT_RISK} boots under watch at one uptime; its curve is anecdote"
            warnings.warn(few, SmallSampleWarning, 2)
        part = survival_table(leave[rows], cause[rows], entry[rows], start=[*enough, *ages][0], alpha=alpha)
        part.insert(0, by, [name] * len(part))
        parts.append(part)
    if not parts:
        return survival_table([], []).assign(**{by: None}).iloc[:0]
    return pd.concat(parts, ignore_index=True)


def survival_table(
    leave: Any, cause: Any, entry: Any = None, *, start: float | None = None, alpha: float = 0.05
) -> pd.DataFrame:
    """Kaplan-Meier, Nelson-Aalen and Aalen-Johansen with delayed entry.

    Notes
    -----
    At risk at t is who entered before t and has not left before t. log-log limits as R's ``conf.type="log-log"``.
    """
    leave, cause = np.asarray(leave, dtype=float), np.asarray(cause, dtype=int)
    entry = np.zeros_like(leave) if entry is None else np.asarray(entry, dtype=float)
    start = float(min(entry, default=0.0) if start is None else start)
    keep = leave > start
    leave, cause, entry = leave[keep], cause[keep], np.maximum(entry[keep], start)
    days = np.unique(leave[cause > 0])
    risk = np.searchsorted(np.sort(entry), days, side="left") - np.searchsorted(np.sort(leave), days, side="left")
    ends = [
        np.bincount(np.searchsorted(days, leave[cause == kind]), minlength=len(days))
        for kind in (DRIVER, OTHER, REBOOT)
    ]
    crashes = ends[0]
    survival = np.cumprod(1 - crashes / risk)
    alive = np.concatenate([[1.0], np.cumprod(1 - sum(ends) / risk)[:-1]]) if len(days) else np.empty(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(np.cumsum(crashes / (risk * (risk - crashes.astype(float)))))
        reach = float(special.ndtri(1 - alpha / 2)) * spread / np.log(survival)
        low, high = survival ** np.exp(-reach), survival ** np.exp(reach)
        error = np.where(survival > 0, survival * spread, np.nan)
    unsure = ~np.isfinite(reach)  # nothing happened yet, or nobody is left
    low, high = np.where(unsure, np.where(survival > 0, 1.0, 0.0), low), np.where(unsure, 1.0 * (survival > 0), high)
    out = pd.DataFrame({
        "days": days, "at_risk": risk, "crashes": crashes, "other_crashes": ends[1], "reboots": ends[2],
        "survival": survival, "error": error, "low": low, "high": high, "hazard": np.cumsum(crashes / risk),
        "incidence": np.cumsum(alive * crashes / risk), "incidence_other": np.cumsum(alive * ends[1] / risk),
        "incidence_reboot": np.cumsum(alive * ends[2] / risk),
    })  # fmt: skip
    first = {"days": start, "at_risk": int((entry <= start).sum()), "survival": 1.0, "low": 1.0, "high": 1.0}
    top = pd.DataFrame([first]).reindex(columns=out.columns, fill_value=0).astype(out.dtypes)
    return pd.concat([top, out], ignore_index=True)


def _aged(exposure: pd.DataFrame) -> pd.DataFrame:
    table = check_exposure(exposure)
    if "uptime_start" not in table:
        raise InputError("the table has no uptime_start (uptime when watching began); make one with exposure(fleet)")
    return table[table["uptime_start"].notna() & (table["host_days"] > 0)]


def _spells(exposure: pd.DataFrame) -> tuple[pd.DataFrame, Floats, Floats, Whole]:
    # The rows of known uptime, with the uptime when watching began and ended, and why it did.
    table = _aged(exposure)
    others, ended = table["unknown_crashes"] > 0, pd.Series(False, index=table.index)
    if "other_crashes" in table:
        others |= (table["other_crashes"].fillna(0) > 0).astype(bool)
    if "end_reason" in table:
        ended = table["end_reason"].isin(["reboot", "shutdown", "power", "unexplained"])
    cause = np.select([table["crashes"] > 0, others, ended], [DRIVER, OTHER, REBOOT], 0)
    entry = in_days(table["uptime_start"]).to_numpy(dtype=float)
    return table, entry, entry + table["host_days"].to_numpy(dtype=float), cause


def hazard_by_uptime(exposure: pd.DataFrame, by: str = "version", alpha: float = 0.05) -> pd.DataFrame:
    """Crash rate within bands of uptime, by version or another column."""
    table = _aged(exposure)
    pieces = split_stretches(table, uptime=True)
    row = pieces["row"].to_numpy()
    pieces["crashes"] = np.where(pieces["last"], table["crashes"].to_numpy()[row], 0.0)
    pieces[by] = table[by].to_numpy()[row]
    sums = pieces.groupby([by, "uptime"], observed=True)[["crashes", "host_days"]].sum().reset_index()
    edges = [0, *map(int, UPTIME_BANDS)]
    bands = [*(f"{low}-{high}" for low, high in pairwise(edges)), f"{edges[-1]}+"]
    return with_limits(sums.assign(uptime=[bands[int(code)] for code in sums["uptime"]]), alpha)


def uptime_trend(exposure: pd.DataFrame, by: str = "version", alpha: float = 0.05) -> pd.DataFrame:
    """Weibull shape of the time to a driver crash: above 1 the hazard rises with uptime, as a leak would make it.

    Notes
    -----
    Descriptive: hosts that differ pull the shape below 1. With entry e and exit t the log-likelihood is
    sum d (ln k - k ln s + (k-1) ln t) - sum ((t/s)^k - (e/s)^k).
    """
    table, entry, leave, cause = _spells(exposure)
    rows: dict[Any, tuple[float, ...]] = {}
    for name, at in table.groupby(by, observed=True, sort=True).indices.items():
        hit = cause[at] == DRIVER
        enough = hit.sum() >= FEWEST_CRASHES
        rows[name] = (int(hit.sum()), *(weibull(leave[at], hit, entry[at], alpha) if enough else (math.nan,) * 4))
    out = pd.DataFrame.from_dict(rows, orient="index", columns=["crashes", "shape", "low", "high", "scale"])
    return out.rename_axis(by)


def weibull(leave: Any, observed: Any, entry: Any = None, alpha: float = 0.05) -> tuple[float, float, float, float]:
    """Weibull fit with delayed entry: shape, its profile-likelihood limits, scale."""
    leave, observed = np.asarray(leave, dtype=float), np.asarray(observed, dtype=bool)
    entry = np.zeros_like(leave) if entry is None else np.asarray(entry, dtype=float)
    events, unit = int(observed.sum()), float(leave.max())
    logs = float(np.log(leave[observed] / unit).sum())

    def volume(shape: float) -> float:
        return float(np.sum((leave / unit) ** shape - (entry / unit) ** shape))

    def profile(log_shape: float) -> float:
        shape = math.exp(log_shape)
        return events * (log_shape - math.log(volume(shape) / events)) + (shape - 1) * logs - events

    best = optimize.minimize_scalar(lambda x: -profile(x), bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
    least = profile(float(best.x)) - float(stats.chi2.isf(alpha, 1)) / 2

    def short(x: float) -> float:
        return least - profile(x)

    top = float(best.x)
    low, high = (math.exp(optimize.brentq(short, top, end) if short(end) > 0 else end) for end in (-6.0, 6.0))
    shape = math.exp(top)
    return shape, low, high, unit * (volume(shape) / events) ** (1 / shape)


def reboot_benefit(
    exposure: pd.DataFrame, version: str, every_days: Sequence[float] = (7, 30, 90), *, adjust: Sequence[str] = (),
    outage_hours: float = 1.0, reboot_minutes: float = 10.0, alpha: float = 0.05,
) -> pd.DataFrame:  # fmt: skip
    """Would rebooting hosts at fixed uptimes spare crashes of a version, and at what cost?

    Notes
    -----
    Rates by uptime band come from the shared-frailty model, for in raw rates frail hosts crash early and hide a rise.
    With band rates r and today's shares of host-days v, the ratio at period P is sum(w r) / sum(v r), w the part of
    0..P in each band; the interval is the delta method on its logarithm. Where all crashes came later than P the ratio is
    0 and its upper end unbounded.
    """
    table = _aged(exposure)
    table = table[table["version"].notna()]
    mine = table[table["version"] == version]
    if table["crashes"].sum() < FEWEST_CRASHES or mine.empty:
        found = f"{table['crashes'].sum():.0f} crashes, {len(mine)} stretches of {version}"
        raise InputError(f"{found}: too few to tell an effect of uptime")
    cells = tabulate(table, ("uptime", *adjust))
    fit = fit_frailty(cells, cells.known, ("uptime", *adjust))
    # A band in which nothing crashed has a rate from the prior alone: here it counts as 0.
    crashed = np.bincount(cells.cells["uptime"], np.asarray(cells.known.sum(axis=0)).ravel()) > 0
    seen = set(cells.levels["uptime"][crashed])
    at = [place for place, (term, level) in enumerate(fit.columns) if term == "uptime" and level in seen]
    bands = np.array([int(fit.columns[place][1]) for place in at])
    log_rate, covariance = fit.coefficients[at], fit.covariance[np.ix_(at, at)]
    rates = np.exp(log_rate - log_rate.max())
    pieces = split_stretches(mine, uptime=True)
    now = np.bincount(pieces["uptime"], weights=pieces["host_days"], minlength=len(UPTIME_BANDS) + 1)[bands]
    rate = float(mine["crashes"].sum() / mine["host_days"].sum()) * DAYS_PER_YEAR
    rows = {}
    for period in every_days:
        then = np.diff(np.minimum([0.0, *UPTIME_BANDS, math.inf], period))[bands] / period
        one, two = then * rates, now / mine["host_days"].sum() * rates
        if not one.sum() or not two.sum():  # no crash was seen at the uptimes that are left, or at those of today
            ratio = exact.Interval(0.0 if two.sum() else math.nan, 0.0, math.inf)
        else:
            slope = one / one.sum() - two / two.sum()
            error = math.sqrt(max(float(slope @ covariance @ slope), 0.0))
            ratio = exact.wald(math.log(one.sum() / two.sum()), error, alpha)
        reboots = DAYS_PER_YEAR / period
        lost = rate * ratio.ratio * outage_hours + reboots * reboot_minutes / 60
        helps = True if ratio.high < 1 else False if ratio.low > 1 else None
        rows[period] = (*ratio, rate * ratio.ratio, reboots, lost, rate * outage_hours, helps)
    names = ["crash_ratio", "low", "high", "crashes_per_host_year", "reboots_per_host_year", "hours_lost_per_host_year",
             "hours_lost_now", "helps"]  # fmt: skip
    out = pd.DataFrame.from_dict(rows, orient="index", columns=names).rename_axis("every_days")
    return out.astype({"helps": "boolean"})
