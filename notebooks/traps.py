"""What the naive count would have said: wrong ratios and tests, made on purpose, beside the reason why each is wrong.

For teaching only. Nothing here is an estimate, nothing here reaches a decision, and no other file may use it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any, Protocol

import numpy as np
import pandas as pd
from scipy import optimize, stats

from psodlib.risk import exact
from psodlib.risk.canary import watch_canary
from psodlib.risk.comparison import Comparison
from psodlib.risk.exposure import check_exposure, in_days

__all__ = ["naive_ratios", "naive_tests"]

Pair = tuple[float, float]  # crashes and host-days
NOTHING = (0.0, 0.0), (0.0, 0.0)  # for a shortcut that the table cannot feed
LEVEL = 0.05
ALIKE = 1000  # simulated pairs of versions without a difference


class Tables(Protocol):
    """The tables of a ``Fleet`` that two of the shortcuts misread."""

    @property
    def crashes(self) -> pd.DataFrame: ...
    @property
    def drivers(self) -> pd.DataFrame: ...


def naive_ratios(exposure: pd.DataFrame, version: str, reference: str, fleet: Tables | None = None) -> pd.DataFrame:
    """The ratio of two versions' crash rates as common shortcuts give it.

    Notes
    -----
    In the words of the field: counts without exposure, dilution, a snapshot applied backwards, immortal time, selection
    on the outcome, regression to the mean, confounding, depletion of the frail, gaps as quiet time, stopping at the
    event, informative censoring, self-controlled case series; with ``fleet`` also clustered counts and installed for
    loaded.
    """
    table: Any = check_exposure(exposure)
    if "end" in table:
        table = table.sort_values("end", kind="stable")
    rows = [(name, _ratio(*shortcut(table, version, reference)), why) for name, shortcut, why in SHORTCUTS]
    if fleet is not None:
        module = exposure["module"].iloc[0] if "module" in exposure and len(exposure) else None
        mine = {name: getattr(fleet, name) for name in ("crashes", "drivers")}
        rows += [
            (name, _ratio(*misread(table, version, reference, mine, module)), why) for name, misread, why in MISREADINGS
        ]
    return pd.DataFrame(rows, columns=["shortcut", "ratio", "why it misleads"])


def naive_tests(exposure: pd.DataFrame, version: str, reference: str) -> pd.DataFrame:
    """What a significance test says when its rules are forgotten, beside what it says when they are kept.

    Notes
    -----
    Chances of a false alarm are simulated: 1,000 pairs of versions that do not differ, on this fleet's own weeks or
    hosts and pooled rate, seed 1; their standard error is below 0.016. They agree with the published 25 % of 52 weekly
    looks and 7 to 13 % of hosts that differ (variance 0.5 to 2).
    """
    rows = [(name, *test(exposure, version, reference), why) for name, test, why in TESTS]
    return pd.DataFrame(rows, columns=["shortcut", "it says", "with the rule kept", "why it misleads"])


def _ratio(one: Pair, other: Pair) -> float:
    (crashes, days), (other_crashes, other_days) = one, other
    return crashes / days / (other_crashes / other_days) if days and other_days and other_crashes else math.nan


def _sums(rows: Any, column: str = "crashes") -> Pair:
    return float(rows[column].sum()), float(rows["host_days"].sum())


def _by_version(table: Any, version: str, reference: str, column: str = "crashes") -> tuple[Pair, Pair]:
    return _sums(table[table["version"] == version], column), _sums(table[table["version"] == reference], column)


def _bare_counts(table: Any, version: str, reference: str) -> tuple[Pair, Pair]:
    one, other = _by_version(table, version, reference)
    return (one[0], 1.0), (other[0], 1.0)


def _all_crashes(table: Any, version: str, reference: str) -> tuple[Pair, Pair]:
    others = table["other_crashes"].fillna(0).astype(float) if "other_crashes" in table else 0.0
    return _by_version(
        table.assign(every=table["crashes"] + table["unknown_crashes"] + others), version, reference, "every"
    )


def _newest_backwards(table: Any, version: str, reference: str) -> tuple[Pair, Pair]:
    newest = table.dropna(subset=["version"]).groupby("host")["version"].last()
    return _by_version(table.assign(version=table["host"].map(newest)), version, reference)


def _newest_reached(table: Any, version: str, reference: str) -> tuple[Pair, Pair]:
    # Each host's whole past goes to the highest version it ever reached, in the order of their first host-day.
    known = table.dropna(subset=["version"])
    if "start" not in known:
        return NOTHING
    order = known.groupby("version")["start"].min().sort_values().index
    rank = known["version"].map({name: at for at, name in enumerate(order)}).astype(int)
    reached = rank.groupby(known["host"]).transform("max").map(dict(enumerate(order)))
    return _by_version(known.assign(version=reached), version, reference)


def _gaps_as_quiet(table: Any, version: str, reference: str) -> tuple[Pair, Pair]:
    # What lies between the stretches of one boot counts as watched and quiet.
    if any(column not in table for column in ("boot", "start", "end")):
        return NOTHING
    boots = table.groupby(["host", "boot", "version"], dropna=False).agg(
        start=("start", "min"), end=("end", "max"), crashes=("crashes", "sum")
    )
    days = (boots["end"] - boots["start"]).dt.total_seconds() / 86400
    return _by_version(boots.assign(host_days=days).reset_index(), version, reference)


def _all_hosts_alike(table: Any, version: str, reference: str) -> tuple[Pair, Pair]:
    return _by_version(table, version, reference)


def _crashed_hosts_only(table: Any, version: str, reference: str) -> tuple[Pair, Pair]:
    return _by_version(table[table.groupby("host")["crashes"].transform("sum") > 0], version, reference)


def _before_and_after(table: Any, version: str, reference: str) -> tuple[Pair, Pair]:
    # Hosts that went from `version` to `reference` after a crash: their time before it against their time after it.
    if "end" not in table:
        return NOTHING
    crash = table[(table["version"] == version) & (table["crashes"] > 0)].groupby("host")["end"].min()
    at = crash.reindex(table["host"]).set_axis(table.index)
    after = (table["version"] == reference) & (table["end"] > at)
    story = table["host"].isin(set(table.loc[after, "host"]))
    return _sums(table[story & (table["version"] == version) & (table["end"] <= at)]), _sums(table[story & after])


def _crashed_boots_only(table: Any, version: str, reference: str) -> tuple[Pair, Pair]:
    # "It ran for so many days and then it crashed": the mean time to crash of the boots that crashed.
    if "boot" not in table:
        return NOTHING
    crashed = table.groupby(["host", "boot"], dropna=False)["crashes"].transform("sum") > 0
    return _by_version(table[crashed], version, reference)


def _reboots_as_crashes(table: Any, version: str, reference: str) -> tuple[Pair, Pair]:
    if "end_reason" not in table:
        return NOTHING
    ended = table["crashes"] + (table["end_reason"] == "unexplained").fillna(False).astype(float)
    return _by_version(table.assign(ended=ended), version, reference, "ended")


def _within_hosts(table: Any, version: str, reference: str) -> tuple[Pair, Pair]:
    # Each crashed host its own control (a conditional Poisson likelihood): the ratio at which the crashes expected on
    # `version`, given each host's total, are those seen. Given as crashes over expected ones, so that it divides to it.
    rows = table[table["version"].isin([version, reference])]
    sums = rows.groupby(["host", "version"])[["crashes", "host_days"]].sum().unstack(fill_value=0.0)
    if not len(sums) or len(sums["crashes"].columns) < 2:
        return NOTHING
    total = sums["crashes"].sum(axis=1).to_numpy()
    mine, others = (sums["host_days"][name].to_numpy() for name in (version, reference))
    use = (total > 0) & (mine > 0) & (others > 0)
    seen = float(sums["crashes"][version].to_numpy()[use].sum())
    if not 0 < seen < total[use].sum():
        return NOTHING

    def excess(log_ratio: float) -> float:
        odds = math.exp(log_ratio) * mine[use] / others[use]
        return float((total[use] * odds / (1 + odds)).sum()) - seen

    return (math.exp(optimize.brentq(excess, -30.0, 30.0)), 1.0), (1.0, 1.0)


def _every_panic(
    table: Any, version: str, reference: str, fleet: dict[str, Any], module: str | None
) -> tuple[Pair, Pair]:
    # Every purple screen that the tables hold, those of a boot loop and of time that nobody watched too.
    crashes = fleet["crashes"]
    mine = crashes[(crashes["guilty_module"] == module).fillna(False).astype(bool)]
    counts = mine.groupby("driver_version").size()
    (_, days), (_, other_days) = _by_version(table, version, reference)
    return (float(counts.get(version, 0)), days), (float(counts.get(reference, 0)), other_days)


def _as_installed(
    table: Any, version: str, reference: str, fleet: dict[str, Any], module: str | None
) -> tuple[Pair, Pair]:
    # The version on disk counts from the moment of its installation; it is loaded with the next boot only.
    drivers = fleet["drivers"]
    changes = drivers[(drivers["module"] == module) & drivers["state"].isin(["installed", "pending"])]
    changes = changes.dropna(subset=["observed_at", "version"])[["host", "observed_at", "version"]]
    if "start" not in table or not len(changes):
        return NOTHING
    table = table.dropna(subset=["start", "end"]).reset_index(drop=True)
    rows = table[["host", "start", "end"]].reset_index(names="row").merge(changes[["host", "observed_at"]], on="host")
    inside = rows[(rows["observed_at"] > rows["start"]) & (rows["observed_at"] < rows["end"])]
    begins = pd.concat([table["start"], inside.set_index("row")["observed_at"]]).rename("begin").rename_axis("row")
    pieces = begins.reset_index().drop_duplicates().sort_values(["row", "begin"], ignore_index=True)
    last = ~pieces["row"].duplicated(keep="last")
    of_row = table.loc[pieces["row"]].reset_index(drop=True)
    pieces["host"] = of_row["host"]
    pieces["host_days"] = in_days(of_row["end"].where(last, pieces["begin"].shift(-1)) - pieces["begin"])
    pieces["crashes"] = of_row["crashes"].where(last, 0.0)
    found = pd.merge_asof(
        pieces.sort_values("begin"), changes.sort_values("observed_at"), left_on="begin", right_on="observed_at",
        by="host",
    )  # fmt: skip
    own = table["version"].loc[found["row"]].set_axis(found.index)
    return _by_version(found.assign(version=found["version"].fillna(own)), version, reference)


def _peeking(exposure: pd.DataFrame, version: str, reference: str) -> tuple[str, str]:
    weeks = watch_canary(exposure, version, reference)
    if weeks.empty or not weeks["reference_host_days"].sum():
        return "the two versions never ran side by side", ""
    days, other_days = (weeks[name].to_numpy(dtype=float) for name in ("host_days", "reference_host_days"))
    share = np.divide(
        np.cumsum(days), np.cumsum(days + other_days), out=np.ones(len(days)), where=days + other_days > 0
    )
    seen = (weeks["crashes"].to_numpy(dtype=float), weeks["reference_crashes"].to_numpy(dtype=float))
    rate = (seen[0].sum() + seen[1].sum()) / (days + other_days).sum()
    draw = np.random.default_rng(1)
    alike = draw.poisson(rate * days, (ALIKE, len(days))), draw.poisson(rate * other_days, (ALIKE, len(days)))
    alarms = (_weekly_p(*alike, share) < LEVEL).any(axis=1).mean()
    first = np.flatnonzero(_weekly_p(*seen, share) < LEVEL)
    alarm = np.flatnonzero(weeks["alarm"].to_numpy())
    naive = f"p < {LEVEL} first in week {first[0] + 1}" if len(first) else f"p < {LEVEL} in no week"
    return (
        f"{naive} of {len(weeks)}; two versions that are alike would get there in {100 * alarms:.0f} % of fleets",
        f"alarm in week {alarm[0] + 1}; alike versions would raise one in at most {100 * LEVEL:.0f} %" if len(alarm)
        else f"no alarm; alike versions would raise one in at most {100 * LEVEL:.0f} %",
    )  # fmt: skip


def _weekly_p(mine: Any, others: Any, share: Any) -> Any:
    # The fixed test of all crashes so far, at the end of each week.
    return _fixed_p(np.cumsum(mine, axis=-1), np.cumsum(mine + others, axis=-1), share)


def _fixed_p(mine: Any, total: Any, share: Any) -> Any:
    # `exact.ratio_p` (mid-P, two-sided) of arrays.
    half = stats.binom.pmf(mine, total, share) / 2
    tails = stats.binom.cdf(mine, total, share) - half, stats.binom.sf(mine, total, share) + half
    return np.where(total > 0, np.minimum(2 * np.minimum(*tails), 1.0), 1.0)


def _forking(exposure: pd.DataFrame, version: str, reference: str) -> tuple[str, str]:
    sums = check_exposure(exposure).groupby("version")[["crashes", "host_days"]].sum()
    sums = sums[sums["host_days"] > 0]
    pairs = list(combinations(sums.to_numpy(dtype=float).tolist(), 2))
    if not pairs:
        return "there is one version", ""
    p = [exact.ratio_p(*one, *other) for one, other in pairs]
    tests = f"{len(pairs)} pairs of {len(sums)} versions" if len(pairs) > 1 else "the one pair"
    return (
        f"of {tests}, {sum(each < LEVEL for each in p) or 'none'} with p < {LEVEL}, the smallest {min(p):.2g}",
        f"with Holm's correction {int((exact.holm(p) < LEVEL).sum()) or 'none'}, the smallest {exact.holm(p).min():.2g}",
    )


def _lemons(exposure: pd.DataFrame, version: str, reference: str) -> tuple[str, str]:
    found = Comparison(exposure, adjust=()).headline(version, reference)
    mine, others = found.arms.known
    p = exact.ratio_p(*found.arms.pairs(found.arms.known))
    variance = found.fit.variance if found.fit else 0.0
    alarms = _alarms_of_lemons(check_exposure(exposure), version, reference, variance)
    return (
        f"p = {p:.2g} of {mine + others:.0f} crashes; alike versions would get below {LEVEL} in {100 * alarms:.0f} % of "
        f"fleets whose hosts differ as these (variance {variance:.2g})",
        f"p = {found.p_value:.2g} with a host effect",
    )


def _alarms_of_lemons(table: Any, version: str, reference: str, variance: float) -> float:
    # How often the fixed test, looked at once, calls versions different that are alike, on hosts that are not.
    rows = table[table["version"].isin([version, reference])]
    days = rows.groupby(["host", "version"])["host_days"].sum().unstack(fill_value=0.0)[[version, reference]].to_numpy()
    draw = np.random.default_rng(1)
    shape = (ALIKE, len(days), 1)
    effect = draw.gamma(1 / variance, variance, shape) if variance else np.ones(shape)
    counts = draw.poisson(effect * days * (rows["crashes"].sum() / days.sum())).sum(axis=1)
    share = days[:, 0].sum() / days.sum()
    return float((_fixed_p(counts[:, 0], counts.sum(axis=1), share) < LEVEL).mean())


# In the order in which people fall for them: name, computation, why it is wrong.
SHORTCUTS: tuple[tuple[str, Callable[[Any, str, str], tuple[Pair, Pair]], str], ...] = (
    ("count crashes, forget host-days", _bare_counts, "the version that ran longer collects more crashes"),
    ("count every crash, not the driver's", _all_crashes, "crashes of other causes dilute the difference"),
    (
        "give a host's whole past to its newest version",
        _newest_backwards,
        "crashes of the old version are counted against the new one",
    ),
    (
        "name a host by the furthest version it reached",
        _newest_reached,
        "time before a version was loaded is given to it, and it had to be survived",
    ),
    ("look only at hosts that crashed", _crashed_hosts_only, "hosts were chosen by the outcome"),
    ("compare before and after a rollback", _before_and_after, "the story begins because of the crash"),
    ("count a gap in the logs as quiet time", _gaps_as_quiet, "a host that nobody watched did not prove anything"),
    (
        "average the boots that crashed",
        _crashed_boots_only,
        "a boot is in the story because it crashed; the quiet ones are the evidence",
    ),
    (
        "take each crashed host as its own control",
        _within_hosts,
        "a crash brings the roll-back, so time after a crash is on the other version",
    ),
    (
        "call every unexplained reboot a crash",
        _reboots_as_crashes,
        "power and people reboot hosts too; only a sign of how much reboots could hide",
    ),
    (
        "divide crashes by host-days and stop there",
        _all_hosts_alike,
        "models differ, and frail hosts leave the bad version by being rolled back",
    ),
)

MISREADINGS: tuple[tuple[str, Callable[[Any, str, str, dict[str, Any], str | None], tuple[Pair, Pair]], str], ...] = (
    (
        "count every purple screen",
        _every_panic,
        "a boot loop is one failure that repeats; unwatched time has no host-days",
    ),
    ("count a version from its installation", _as_installed, "until the next boot the old one is still loaded"),
)

TESTS: tuple[tuple[str, Callable[[pd.DataFrame, str, str], tuple[str, str]], str], ...] = (
    ("test every week until it is significant", _peeking, "each look is another chance of a false alarm"),
    ("test every pair of versions", _forking, "of twenty pairs that do not differ one is below 0.05"),
    ("count each crash of a lemon host", _lemons, "crashes of one host are not independent"),
)
