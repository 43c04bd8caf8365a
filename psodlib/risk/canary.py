"""Planning a roll-out to a few hosts first, and watching it week by week without fooling oneself."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

from psodlib.errors import InputError
from psodlib.risk.exact import poisson_upper
from psodlib.risk.exposure import Floats, check_exposure

HARM = tuple(float(ratio) for ratio in np.geomspace(1.25, 8.0, 25))  # ratios that a harmful version may have
ALARM = 20.0  # 1 / 0.05: the chance that a harmless version ever gets there is at most 5 %
MOST_WEEKS = 1040
# Of the new version's rate over the old one's, by its logarithm: where it is looked for, and how wide it is expected to lie
# beforehand (two versions, each as ``decide_pin`` expects it).
GRID = np.linspace(-6, 6, 601)
PRIOR_WIDTH = 0.7 * math.sqrt(2)
MOST_RATIO = 1000.0

WEEK = pd.Timedelta(days=7)
Pair = tuple[float, float]  # of (new, old)


def zero_crash_host_days(rate: float, alpha: float = 0.05, crashes: int = 0) -> float:
    """Host-days with no more than so many crashes that bound the rate below ``rate``."""
    if not rate > 0:
        raise InputError(f"rate is {rate}; expected crashes per host-day, more than 0")
    return poisson_upper(crashes, 1.0, alpha) / rate


def plan_canary(
    rate: float, ratio: float, canary_hosts: int, reference_hosts: int, *, weeks: Sequence[int] = (13, 26, 52),
    power: float = 0.8, variance: float = 0.0, alpha: float = 0.05,
) -> pd.DataFrame:  # fmt: skip
    """Host-days and power of watching some hosts on a new version against the others on the old one.

    Parameters
    ----------
    rate, ratio : float
        Crashes per host-day of the old version, and the new one's rate over it that should be found.
    canary_hosts, reference_hosts : int
        Hosts on the new and on the old version.
    weeks, power : sequence of int, float
        Lengths to tabulate; the first week with the wanted power is added.
    variance, alpha : float
        Of the host effect (``RateRatio.frailty_variance``); two-sided level of the mid-P test.

    Returns
    -------
    pandas.DataFrame
        Index ``weeks``. ``canary_host_days``, ``reference_host_days``, ``power``, ``false_alarms`` (the same chance were
        the versions alike), ``wanted`` (the first week with the wanted power; absent when 20 years do not have it).

    Raises
    ------
    InputError
        A rate, ratio or number of hosts that is not above 0.

    Notes
    -----
    Exact: counts are Poisson, or negative binomial as the sum of n hosts' gamma effects (shape n / variance). Harm is found
    sooner than the mirror benefit is proven: a canary can veto a version, it can hardly certify one.
    """
    if not (rate > 0 and ratio > 0 and canary_hosts > 0 and reference_hosts > 0 and variance >= 0):
        raise InputError("rate, ratio and both numbers of hosts must be more than 0, the variance 0 or more")
    hosts = (canary_hosts, reference_hosts)

    def chance(week: int, times: float = ratio) -> float:
        return _power(rate, times, (7.0 * week * hosts[0], 7.0 * week * hosts[1]), hosts, variance, alpha)

    # Power is nearly monotone in time: bisect, then trust.
    high, enough = 1, None
    while high <= MOST_WEEKS and chance(high) < power:
        high *= 2
    if high <= MOST_WEEKS:
        low = high // 2 + 1
        enough = low + bisect_left(range(low, high), True, key=lambda week: chance(week) >= power)
    rows = {
        week: (7 * week * hosts[0], 7 * week * hosts[1], chance(week), chance(week, 1.0), week == enough)
        for week in sorted({*weeks, *([enough] if enough else [])})
    }
    names = ["canary_host_days", "reference_host_days", "power", "false_alarms", "wanted"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=names).rename_axis("weeks")


def ratio_seen(
    rate: float, days: Pair, hosts: Pair, *, power: float = 0.8, variance: float = 0.5, alpha: float = 0.05
) -> float | None:
    """The smallest ratio that one test of (new, old) host-days would see with the wanted chance; None where none is."""
    if not (rate > 0 and min(*days, *hosts) > 0):
        return None
    low, high = 1.0, MOST_RATIO
    while high / low > 1.02:
        middle = math.sqrt(low * high)
        found = _power(rate, middle, days, hosts, variance, alpha) >= power
        low, high = (low, middle) if found else (middle, high)
    # The largest ratio costs most to look at, and a smaller one mostly answers for it.
    return high if high < MOST_RATIO or _power(rate, high, days, hosts, variance, alpha) >= power else None


def _power(rate: float, ratio: float, days: Pair, hosts: Pair, variance: float, alpha: float) -> float:
    means = (rate * ratio * days[0], rate * days[1])
    # Probabilities of 0, 1, 2, ... crashes on the hosts of either arm, as far as they matter.
    law: Any = stats.poisson
    shapes: list[tuple[float, ...]] = [(mean,) for mean in means]
    if variance:
        law, sizes = stats.nbinom, [number / variance for number in hosts]
        shapes = [(size, size / (size + mean)) for size, mean in zip(sizes, means, strict=True)]
    canary, reference = (law.pmf(np.arange(int(law.isf(1e-9, *shape)) + 2), *shape) for shape in shapes)
    b, a = np.arange(len(canary))[:, None], np.arange(len(reference))[None, :]
    share = days[0] / (days[0] + days[1])
    half = stats.binom.pmf(b, a + b, share) / 2
    p = 2 * np.minimum(stats.binom.sf(b, a + b, share), stats.binom.cdf(b - 1, a + b, share)) + 2 * half
    found = (p <= alpha) & ((b * days[1] > a * days[0]) == (ratio >= 1)) if ratio != 1 else p <= alpha
    return float(canary @ found @ reference)


def e_process(
    crashes: Any, host_days: Any, reference_crashes: Any, reference_host_days: Any, ratios: Sequence[float] = HARM
) -> Floats:
    """Evidence against "the new version is no worse", which may be read after every period.

    Notes
    -----
    With p0 = T_B / (T_A + T_B) and p(r) = r T_B / (r T_B + T_A), E is the mean over r of prod (p/p0)^b
    ((1-p)/(1-p0))^a. Its expectation is 1 when the rates are equal. Lindon & Malek 2022, arXiv:2011.03567. Count each
    host's first crash only: repeats of one lemon host are not independent.
    """
    gain = _gain(crashes, host_days, reference_crashes, reference_host_days, ratios)
    log_e = special.logsumexp(np.cumsum(gain, axis=1), axis=0) - math.log(len(ratios))
    return np.asarray(np.exp(np.minimum(log_e, 700.0)))


def _gain(crashes: Any, host_days: Any, reference_crashes: Any, reference_host_days: Any, ratios: Any) -> Floats:
    # Log likelihood of each ratio (rows) over that of 1, by period (columns).
    b, t_b = np.asarray(crashes, dtype=float), np.asarray(host_days, dtype=float)
    a, t_a = np.asarray(reference_crashes, dtype=float), np.asarray(reference_host_days, dtype=float)
    rho = np.asarray(ratios, dtype=float)[:, None]
    both = (t_a > 0) & (t_b > 0)  # a period with one version only compares nothing
    mean = 1 + np.divide(t_b, t_a + t_b, out=np.full_like(t_b, 0.5), where=both) * (rho - 1)
    return np.asarray(np.where(both, b * np.log(rho / mean) - a * np.log(mean), 0.0))


class Posterior(NamedTuple):
    """What is believed of the new version's rate over the old one's: median, 90 % interval, P(above 1)."""

    ratio: float
    low: float
    high: float
    p_worse: float


def posterior(crashes: Any, host_days: Any, reference_crashes: Any, reference_host_days: Any) -> Posterior:
    """The ratio of the rates, from the same likelihood as the e-value.

    Notes
    -----
    ln ratio ~ N(0, 2 0.7^2) beforehand; the likelihood is that of ``e_process``, on a grid.
    """
    gain = _gain(crashes, host_days, reference_crashes, reference_host_days, np.exp(GRID)).sum(axis=1)
    weight = np.exp(gain - (GRID / PRIOR_WIDTH) ** 2 / 2 - gain.max())
    reached = (np.cumsum(weight) - weight / 2) / weight.sum()
    low, ratio, high = np.exp(np.interp([0.05, 0.5, 0.95], reached, GRID))
    return Posterior(float(ratio), float(low), float(high), float(1 - np.interp(0.0, GRID, reached)))


def watch_canary(
    exposure: pd.DataFrame, version: str, reference: str, ratios: Sequence[float] = HARM, *,
    since: pd.Timestamp | None = None, within: str | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The weekly watch over a new version: look every week, stop at the alarm, and be wrong at most once in 20.

    Parameters
    ----------
    exposure : pandas.DataFrame
        From ``exposure``; ``start`` and ``end`` are needed.
    version, reference : str
        The new version and the one it is held against.
    ratios : sequence of float
        That a harmful version may have.
    since : pandas.Timestamp, optional
        When the watch begins; default: when the new version was first loaded.
    within : str, optional
        A column, as ``model``: hosts are held only against hosts that have the same in it.

    Returns
    -------
    pandas.DataFrame
        One row a week: ``week`` (its first moment, UTC), ``crashes``, ``host_days``, ``reference_crashes``,
        ``reference_host_days``, ``e_value``, ``alarm`` (True from the week in which E first reached 20). A host counts until
        its first driver crash since then, on either version, and its later time not at all.

    Raises
    ------
    InputError
        No host-days, no times, or a version that no host loaded.
    """
    return weeks_of(exposure, version, reference, since=since, within=within).table(ratios)


class Weeks(NamedTuple):
    """Crashes and host-days by week and by kind of host, each of shape (weeks, kinds), on the new version and on the old."""

    begin: pd.Timestamp
    crashes: Floats
    host_days: Floats
    reference_crashes: Floats
    reference_host_days: Floats

    def arms(self) -> tuple[Floats, Floats, Floats, Floats]:
        """What ``e_process`` and ``posterior`` take: one period a week and kind, week by week."""
        return self[1].ravel(), self[2].ravel(), self[3].ravel(), self[4].ravel()

    def e_values(self, ratios: Sequence[float] = HARM) -> Floats:
        """The e-value at the end of each week."""
        return e_process(*self.arms(), ratios).reshape(self.crashes.shape)[:, -1]

    def table(self, ratios: Sequence[float] = HARM) -> pd.DataFrame:
        """One row a week, as ``watch_canary`` gives it."""
        names = ["crashes", "host_days", "reference_crashes", "reference_host_days"]
        sums = {name: each.sum(axis=1) for name, each in zip(names, self[1:], strict=True)}
        e_value = self.e_values(ratios)
        weeks = self.begin + WEEK * pd.Series(range(len(e_value)), dtype="int64")
        alarm = np.maximum.accumulate(e_value) >= ALARM
        return pd.DataFrame({"week": weeks, **sums, "e_value": e_value, "alarm": alarm})


def weeks_of(
    exposure: pd.DataFrame, version: str, reference: str, *, since: pd.Timestamp | None = None, within: str | None = None
) -> Weeks:  # fmt: skip
    """The weekly counts behind ``watch_canary``."""
    table = check_exposure(exposure)
    if absent := [column for column in ("start", "end") if column not in table]:
        raise InputError(f"the table lacks {', '.join(absent)}; a week-by-week watch needs when the time at risk was")
    table = table[table["version"].isin([version, reference]) & (table["host_days"] > 0)]
    for name in (version, reference):
        if not (table["version"] == name).any():
            raise InputError(f"no host-days with {name} loaded")
    begin: pd.Timestamp = table.loc[table["version"] == version, "start"].min() if since is None else since
    table = table[table["end"] > begin]
    first = table[table["crashes"] > 0].groupby("host")["end"].min()
    table = table[~(table["end"] > first.reindex(table["host"]).set_axis(table.index)).fillna(False)]
    start, end = (((table[each] - begin) / WEEK).to_numpy(dtype=float) for each in ("start", "end"))
    start, crashed, count = start.clip(min=0), (table["crashes"] > 0).to_numpy(), math.ceil(end.max(initial=0))
    kinds = [0] * len(table) if within not in table else pd.factorize(table[within], use_na_sentinel=False)[0]
    kind = np.asarray(kinds, dtype=np.int64)
    edges = np.arange(count + 1, dtype=float)

    def until(times: Floats) -> Floats:  # the integral of how many have begun, up to each week's end
        ordered = np.sort(times)
        passed = np.searchsorted(ordered, edges, side="right")
        return np.asarray(passed * edges - np.concatenate([[0.0], np.cumsum(ordered)])[passed])

    arms = []
    for name in (version, reference):
        hits, days = np.zeros((2, count, max(int(kind.max(initial=0)) + 1, 1)))
        for at in range(hits.shape[1]):
            mine = (table["version"] == name).to_numpy() & (kind == at)
            in_week = np.clip(np.ceil(end[mine & crashed]).astype(int) - 1, 0, max(count - 1, 0))
            hits[:, at] = np.bincount(in_week, minlength=count)
            # a week without time must not be 1e-14 below it
            days[:, at] = 7 * np.maximum(np.diff(until(start[mine]) - until(end[mine])), 0.0)
        arms += [hits, days]
    return Weeks(begin, *arms)


def sprt_lines(good: float, bad: float, crashes: int, alpha: float = 0.05, beta: float = 0.10) -> pd.DataFrame:
    """Wald's sequential test of two stated rates: after so many crashes, when to accept and when to reject a version.

    References
    ----------
    Wald 1947, Sequential Analysis.
    """
    if not 0 < good < bad:
        raise InputError(f"good is {good} and bad {bad} per host-day; expected 0 < good < bad")
    k = np.arange(crashes + 1)
    accept = (k * math.log(bad / good) + math.log((1 - alpha) / beta)) / (bad - good)
    reject = (k * math.log(bad / good) - math.log((1 - beta) / alpha)) / (bad - good)
    table = {"accept_host_days": accept, "reject_host_days": np.where(reject > 0, reject, np.nan)}
    return pd.DataFrame(table, index=pd.RangeIndex(crashes + 1, name="crashes"))
