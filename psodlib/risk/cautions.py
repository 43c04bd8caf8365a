"""What a reader must know before believing a ratio: each trap that the table itself shows, in one sentence; and words for numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from psodlib.risk.exact import Interval

if TYPE_CHECKING:
    from psodlib.risk.comparison import Arms, Comparison

CONFOUNDED = 0.15  # a ratio that adjusting moves by more than this share
OVERLAP = 0.20  # of hardware or calendar time between two versions; below it they cannot be told apart
DOMINANT = 1 / 3  # share of an arm's crashes on one host
GAPS = 0.05  # difference between the arms in the share of time that is gap
LOST = 0.10  # difference between the arms in the share of crashes that lie in time nobody watched
FEW_HOSTS = 10


def of_data(comparison: Comparison, arms: Arms) -> list[str]:
    """Warnings that the exposure table alone gives rise to."""
    table, names = comparison.table, (arms.version, arms.reference)
    rows = [table[table["version"] == name] for name in names]
    found = [
        f"only {counted(hosts, 'host')} had {name} loaded; under {FEW_HOSTS} say little of the fleet"
        for name, hosts in zip(names, arms.hosts, strict=True)
        if hosts < FEW_HOSTS
    ]
    for name, mine in zip(names, rows, strict=True):
        by_host = mine.groupby("host")["crashes"].sum()
        if len(by_host) > 1 and by_host.max() >= 3 and by_host.max() > DOMINANT * by_host.sum():
            found.append(f"{by_host.idxmax()} alone has {by_host.max():.0f} of {by_host.sum():.0f} crashes on {name}")
    found += [comparison.told_apart(*names), _lost(comparison, arms)]
    # Time inside a boot that no evidence covers, as a share of that version's time.
    gaps = [float(comparison.gaps.get(name, 0.0)) for name in names]
    one, other = (gap / (gap + days) for gap, days in zip(gaps, arms.days, strict=True))
    if abs(one - other) > GAPS:
        told = f"{100 * one:.0f} % of the time on {names[0]} but {100 * other:.0f} % on {names[1]}"
        found.append(f"evidence is missing for {told}")
    # Many boots, many months, and yet nobody ever changed version: more likely an inventory than a history.
    boots = pd.concat(rows).groupby("host")["boots"].sum()
    if not {*rows[0]["host"]} & {*rows[1]["host"]} and len(boots) >= FEW_HOSTS and boots.median() >= 2:
        found.append(
            "no host ever changed between the two: if the versions come from today's inventory and not from each boot, "
            "past crashes are counted for the wrong version"
        )
    if "esxi_build" in comparison.terms and table.groupby("host")["esxi_build"].nunique().max() <= 1:
        found.append(
            "adjusted for esxi_build, of which the table knows one a host, its newest, for all its history: where hosts "
            "were upgraded, this adjusts for a build that they did not run then"
        )
    if only_crashed_hosts(table):
        found.append("only hosts that crashed are given: the rates are too high and the ratio may be anything")
    return [one for one in found if one]


def of_result(
    known: Interval, crude: Interval, pooled: Interval, headline: Interval, adversarial: Interval, adjusted: bool
) -> list[str]:
    """Warnings from holding the estimates against each other."""
    found = []
    moved = (known if adjusted else pooled).ratio / crude.ratio - 1 if crude.ratio else 0.0
    if abs(moved) > CONFOUNDED and np.isfinite(moved):
        # Where nothing could be adjusted, the estimate stratified by model only warns.
        way = "adjustment" if adjusted else "it is not adjusted, and stratifying by model"
        found.append(f"{way} {moves(moved)}: the versions ran on different hosts or at different times")
    depends = "the conclusion depends on the crashes with no module found"
    if headline.excludes_one and not adversarial.excludes_one:
        found.append(f"{depends}: if all of them belonged to one version, it would not hold")
    return found


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun if number == 1 else noun + ('es' if noun.endswith('sh') else 's')}"


def listed(names: Iterable[Any], most: int = 3) -> str:
    """A few names and how many more there are."""
    every = [str(name) for name in names]
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def moves(moved: float) -> str:
    """How far a ratio moves, in words."""
    return f"{'raises' if moved > 0 else 'lowers'} the ratio by {100 * abs(moved):.0f} %"


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


def _lost(comparison: Comparison, arms: Arms) -> str:
    # Crashes whose last logs are gone, where that goes with the version.
    lost, words, shares = 0, [], []
    for name, unplaced, known in zip((arms.version, arms.reference), arms.unplaced, arms.known, strict=True):
        more = int(unplaced) + comparison.adrift.get(name, 0)
        every = int(known) + more
        lost += more
        shares.append(more / every if every else 0.0)
        words.append(f"{more} of {every} crashes ({100 * shares[-1]:.0f} %) on {name}")
    if lost < 2 or abs(shares[0] - shares[1]) <= LOST:
        return ""
    return (
        f"{' but '.join(words)} lie in time that no log covers: the logs may be lost with the crash, and if that goes with the "
        "version the ratio turns; the interval counts them both ways"
    )
