"""What the naive count would have said: wrong ratios, made on purpose, beside the reason why each is wrong.

For teaching only. Nothing here is an estimate, nothing here reaches a decision, and no other file may use it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from psodlib.risk.exposure import check_exposure

__all__ = ["naive_ratios"]

Pair = tuple[float, float]  # crashes and host-days


def naive_ratios(exposure: pd.DataFrame, version: str, reference: str) -> pd.DataFrame:
    """The ratio of two versions' crash rates as common shortcuts give it.

    Parameters
    ----------
    exposure : pandas.DataFrame
        From ``exposure``, with ``start`` and ``end``.
    version, reference : str
        The two versions.

    Returns
    -------
    pandas.DataFrame
        ``shortcut``, ``ratio`` (NaN where it divides by nothing), ``why it misleads``; in the order in which people
        fall for them.

    Notes
    -----
    In the words of the field: counts without exposure, dilution, a snapshot applied backwards, immortal time, selection
    on the outcome, regression to the mean, confounding, depletion of the frail, gaps as quiet time.
    """
    table: Any = check_exposure(exposure)
    if "end" in table:
        table = table.sort_values("end", kind="stable")
    rows = [(name, _ratio(*shortcut(table, version, reference)), why) for name, shortcut, why in SHORTCUTS]
    return pd.DataFrame(rows, columns=["shortcut", "ratio", "why it misleads"])


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
        return (0.0, 0.0), (0.0, 0.0)
    order = known.groupby("version")["start"].min().sort_values().index
    rank = known["version"].map({name: at for at, name in enumerate(order)}).astype(int)
    reached = rank.groupby(known["host"]).transform("max").map(dict(enumerate(order)))
    return _by_version(known.assign(version=reached), version, reference)


def _gaps_as_quiet(table: Any, version: str, reference: str) -> tuple[Pair, Pair]:
    # What lies between the stretches of one boot counts as watched and quiet.
    if any(column not in table for column in ("boot", "start", "end")):
        return (0.0, 0.0), (0.0, 0.0)
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
        return (0.0, 0.0), (0.0, 0.0)
    crash = table[(table["version"] == version) & (table["crashes"] > 0)].groupby("host")["end"].min()
    at = crash.reindex(table["host"]).set_axis(table.index)
    after = (table["version"] == reference) & (table["end"] > at)
    story = table["host"].isin(set(table.loc[after, "host"]))
    return _sums(table[story & (table["version"] == version) & (table["end"] <= at)]), _sums(table[story & after])


# In the order in which people fall for them: name, computation, why it is wrong.
SHORTCUTS: tuple[tuple[str, Callable[[Any, str, str], tuple[Pair, Pair]], str], ...] = (
    ("count crashes, forget host-days", _bare_counts, "the version that ran longer collects more crashes"),
    ("count every crash, not the driver's", _all_crashes, "crashes of other causes dilute the difference"),
    (
        "give a host's whole past to its newest version",
        _newest_backwards,
        "crashes of the old version are laid at the new one",
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
        "divide crashes by host-days and stop there",
        _all_hosts_alike,
        "models differ, and frail hosts leave the bad version by being rolled back",
    ),
)
