"""What a reader must know before believing a ratio: each trap that the table itself shows, in one sentence."""

from __future__ import annotations

import numpy as np
import pandas as pd

from psodlib.risk.exact import Interval
from psodlib.risk.exposure import in_days

__all__ = ["CONFOUNDED", "of_data", "of_result", "of_terms", "only_crashed_hosts"]

CONFOUNDED = 0.15  # a ratio that adjusting moves by more than this share
OVERLAP = 0.20  # of calendar time between the arms
DOMINANT = 1 / 3  # share of an arm's crashes on one host
GAPS = 0.05  # difference between the arms in the share of time that is gap
FEW_HOSTS = 10


def of_data(table: pd.DataFrame, version: str, reference: str) -> list[str]:
    """Warnings that the exposure table alone gives rise to."""
    needed = [column for column in ("host", "boot", "start", "end", "host_days", "crashes") if column in table]
    arms = {name: table.loc[table["version"] == name, needed] for name in (version, reference)}
    found = [*_few_hosts(arms), *_dominant(arms), *_overlap(arms), *_gaps(arms), *_snapshot(table, version, reference)]
    if only_crashed_hosts(table):
        found.append("only hosts that crashed are given: the rates are too high and the ratio may be anything")
    return found


def of_terms(table: pd.DataFrame, terms: tuple[str, ...]) -> list[str]:
    """Warnings that the chosen terms give rise to."""
    if "esxi_build" not in terms or table.groupby("host")["esxi_build"].nunique().max() > 1:
        return []
    return [
        "adjusted for esxi_build, of which the table knows one a host, its newest, laid on all its history: where hosts "
        "were upgraded, this adjusts for a build that they did not run then"
    ]


def of_result(
    known: Interval, crude: Interval, pooled: Interval, headline: Interval, adversarial: Interval, adjusted: bool
) -> list[str]:
    """Warnings from holding the estimates against each other."""
    found = []
    best = known if adjusted else pooled
    moved = best.ratio / crude.ratio - 1 if crude.ratio else 0.0
    if abs(moved) > CONFOUNDED and np.isfinite(moved):
        # Where nothing could be adjusted, the estimate stratified by model only warns.
        way = "adjusting moves" if adjusted else "it is not adjusted, and stratifying by model moves"
        found.append(f"{way} the crude ratio by {100 * moved:+.0f} %: the versions ran on different hosts or times")
    if headline.excludes_one and not adversarial.excludes_one:
        found.append("the conclusion hangs on the crashes that name no module: laid on one version, they undo it")
    return found


def only_crashed_hosts(table: pd.DataFrame) -> bool:
    """True when no host is free of crashes although, at these rates, some should be.

    Notes
    -----
    The chance that all hosts crash, were they alike, is prod(1 - exp(-rate * host-days)); below 5 % the hosts were
    chosen by their crashes.
    """
    sums = table.groupby("host")[["crashes", "unknown_crashes", "host_days"]].sum()
    crashes = sums["crashes"] + sums["unknown_crashes"]
    if not len(sums) or (crashes == 0).any():
        return False
    rate = crashes.sum() / sums["host_days"].sum()
    return bool(np.log(-np.expm1(-rate * sums["host_days"])).sum() < np.log(0.05))


def _few_hosts(arms: dict[str, pd.DataFrame]) -> list[str]:
    return [
        f"only {hosts} {'host' if hosts == 1 else 'hosts'} had {name} loaded; under {FEW_HOSTS} say little of the fleet"
        for name, rows in arms.items()
        if (hosts := rows["host"].nunique()) < FEW_HOSTS
    ]


def _dominant(arms: dict[str, pd.DataFrame]) -> list[str]:
    found = []
    for name, rows in arms.items():
        by_host = rows.groupby("host")["crashes"].sum()
        if len(by_host) > 1 and by_host.max() >= 3 and by_host.max() > DOMINANT * by_host.sum():
            found.append(f"{by_host.idxmax()} alone has {by_host.max():.0f} of {by_host.sum():.0f} crashes on {name}")
    return found


def _overlap(arms: dict[str, pd.DataFrame]) -> list[str]:
    # Shared part of the two arms' host-days over the months of the calendar.
    if any(column not in rows for rows in arms.values() for column in ("start", "end")):
        return []
    shares = []
    for rows in arms.values():
        middle = (rows["start"] + (rows["end"] - rows["start"]) / 2).dt
        month = 12 * middle.year + middle.month
        days = rows["host_days"].groupby(month).sum()
        shares.append(days / days.sum() if days.sum() else days)
    if any(share.empty for share in shares):
        return []
    months = pd.concat(shares, axis=1).fillna(0.0)
    common = float(months.min(axis=1).sum())
    if common >= OVERLAP:
        return []
    return [
        f"the versions ran at different times (overlap {100 * common:.0f} %): a change over time looks like the version"
    ]


def _gaps(arms: dict[str, pd.DataFrame]) -> list[str]:
    # Time inside a boot that no evidence covers, as a share of that version's time.
    if any(column not in rows for rows in arms.values() for column in ("boot", "start", "end")):
        return []
    shares = {}
    for name, rows in arms.items():
        watched = rows["end"] - rows["start"]
        boots = rows.assign(watched=watched).groupby(["host", "boot"])
        ends = boots.agg(start=("start", "min"), end=("end", "max"), watched=("watched", "sum"))
        gap = in_days(ends["end"] - ends["start"] - ends["watched"]).sum()
        shares[name] = float(gap / (gap + rows["host_days"].sum()))
    (one, mine), (other, theirs) = shares.items()
    if abs(mine - theirs) <= GAPS:
        return []
    return [f"evidence is missing for {100 * mine:.0f} % of the time on {one} but {100 * theirs:.0f} % on {other}"]


def _snapshot(table: pd.DataFrame, version: str, reference: str) -> list[str]:
    # Many boots, many months, and yet nobody ever changed version: more likely an inventory than a history.
    if "boot" not in table or table["boot"].isna().all():
        return []
    rows = table.loc[table["version"].isin([version, reference]), ["host", "version", "boot"]]
    if rows.drop_duplicates(["host", "version"])["host"].duplicated().any():
        return []
    boots = rows.groupby("host")["boot"].nunique()
    if len(boots) < FEW_HOSTS or boots.median() < 2:
        return []
    return [
        "no host ever changed between the two: if the versions come from today's inventory and not from each boot, "
        "past crashes are laid on the wrong version"
    ]
