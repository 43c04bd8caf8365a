"""Versions and crashes over calendar time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from psodlib.views.charts.style import (
    CRASH,
    INK,
    PALE,
    PALETTE,
    PAPER,
    QUIET,
    SOFT,
    UNKNOWN_VERSION,
    Table,
    finish,
    mark,
    new_axes,
    nothing,
    shown_text,
    spread,
    stack_order,
    stacked,
    styled,
    time_axis,
    version_colours,
    version_fills,
    version_legend,
)
from psodlib.views.charts.sums import (
    counts_of,
    crashes_in_words,
    days_in_words,
    evidence_in_words,
    hosts_in_words,
    module_of,
    weekly_sums,
    with_dates,
    yearly_rates,
)
from psodlib.views.words import DAYS_A_YEAR, count, day, figure, share


@styled
def plot_rollout(exposure: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Host-days a week by loaded version, stacked, with each crash as a point above its week.

    Parameters
    ----------
    exposure : pandas.DataFrame
        Exposure table with ``start`` and ``end``.
    simulated : bool
        True prints "simulated fleet" in the caption.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        ``numbers(ax)``: ``week`` (its Monday), ``version``, ``host_days``, ``crashes``, ``unknown_crashes``.
    """
    dated = with_dates(exposure)
    if dated.empty:
        columns = ["week", "version", "host_days", "crashes", "unknown_crashes"]
        remedy = "The exposure table has no stretch with a start and an end."
        return nothing(ax, "No host-days to show over time", remedy, columns, simulated)
    table = weekly_sums(dated)
    colours = version_colours(exposure["version"])
    chart = new_axes(ax, 2.1)
    names, weeks = stack_order(table["version"]), sorted(table["week"].unique())
    # Days, not dates, for the width: bars touch, so that a gap on the page is a gap in the evidence.
    fills = {name: {**fill, "edgecolor": SOFT, "linewidth": 0} for name, fill in version_fills(names, colours).items()}
    wide = spread(table, "week", "version", "host_days", weeks, names)
    top = float(stacked(chart, wide, fills, wide.index, width=7, align="edge").max()) or 1.0
    _crash_points(chart, table, colours, top)
    chart.set_ylabel("Host-days a week")
    chart.set_xlabel("Week (UTC)")
    time_axis(chart)
    points = []
    if table["crashes"].any():
        points.append(_point(f"{module_of(exposure)} crash", CRASH, PALE))
    if table["unknown_crashes"].any():
        points.append(_point("crash, module unknown", SOFT, PAPER))
    version_legend(chart, reversed(names), colours, "Version loaded", *points)
    when = f"{day(dated['start'].min())} to {day(dated['end'].max())}"
    caption = f"{evidence_in_words(dated)}, {when}. A point stands above the week of its crash."
    return finish(chart, _rollout_finding(dated), caption, table, simulated)


def _point(label: str, edge: str, face: str) -> Line2D:
    return Line2D([], [], linestyle="", marker="o", markeredgecolor=edge, markerfacecolor=face, label=shown_text(label))


def _crash_points(ax: Any, table: Table, colours: dict[str, str], top: float) -> None:
    # Points pile up over their week in a strip above the stack; a heavy week is squeezed into the same strip.
    piles = table.groupby("week")[["crashes", "unknown_crashes"]].sum().sum(axis=1)
    step = top * min(0.06, 0.5 / max(int(piles.max()), 1))
    for week, rows in table.groupby("week"):
        height = top * 1.07
        middle = pd.Timestamp(week) + pd.Timedelta(days=3.5)
        for row in rows.itertuples():
            face = colours.get(row.version, QUIET.get(row.version, (PALE, ""))[0])
            for colour, edge, number in ((face, CRASH, row.crashes), (PAPER, SOFT, row.unknown_crashes)):
                if number:
                    ys = height + step * np.arange(number)
                    mark(ax, [middle] * number, ys, colour, size=5, markeredgecolor=edge, gid="crash")
                    height += step * number
    ax.set_ylim(0, top * 1.1 + step * max(int(piles.max()), 1))


def _rollout_finding(exposure: Table) -> str:
    module, days, crashes = module_of(exposure), exposure["host_days"], counts_of(exposure, "crashes")
    if not crashes.sum():
        hosts = hosts_in_words(exposure["host"].nunique())
        return f"No {module} crash in {days_in_words(float(days.sum()))} on {hosts}"
    named = exposure["version"].astype("string").fillna(UNKNOWN_VERSION)
    worst = crashes.groupby(named).sum().idxmax()
    here = named == worst
    everything = crashes_in_words(crashes.sum())
    if here.all():
        return f"All {days_in_words(float(days.sum()))} and {everything} are on {module} {worst}"
    part = f"{crashes[here].sum():,} of {crashes.sum():,} {module} crashes"
    return f"{worst} took {part} in {share(days[here].sum(), days.sum())} of the host-days"


@styled
def plot_weekly_rate(
    exposure: pd.DataFrame, *, version: str | None = None, simulated: bool = False, ax: Axes | None = None
) -> Axes:
    """Crashes per host-year week by week, with Garwood 95 % intervals.

    Parameters
    ----------
    exposure : pandas.DataFrame
        Exposure table with ``start`` and ``end``.
    version : str, optional
        Only the time with this version loaded.
    simulated, ax
        As for ``plot_rollout``.

    Returns
    -------
    matplotlib.axes.Axes
        ``numbers(ax)``: ``week``, ``crashes``, ``host_days``, ``rate``, ``low``, ``high`` (per host-year).
    """
    dated = with_dates(exposure)
    if version is not None:
        dated = dated[(dated["version"] == version).fillna(False)]
    if dated.empty:
        columns = ["week", "crashes", "host_days", "rate", "low", "high"]
        remedy = "No stretch with a start and an end matches."
        return nothing(ax, "No host-days to show a weekly rate of", remedy, columns, simulated)
    weekly = weekly_sums(dated).groupby("week", as_index=False)[["host_days", "crashes"]].sum()
    table = yearly_rates(weekly.assign(week=weekly["week"].astype("string")), "week")
    table["week"] = pd.to_datetime(table["week"])
    chart = new_axes(ax, legend=False)
    middle = table["week"] + pd.Timedelta(days=3.5)
    seen = table["crashes"] > 0
    chart.vlines(middle, table["low"], table["high"], color=np.where(seen, SOFT, PALE), linewidth=1.5)
    mark(chart, middle[seen], table.loc[seen, "rate"], PALETTE[1], size=5)
    overall = DAYS_A_YEAR * table["crashes"].sum() / table["host_days"].sum()
    chart.axhline(overall, color=INK, linewidth=1, linestyle="--")
    # A week of few host-days has an interval that would flatten all others.
    chart.set_ylim(0, max(2 * float(table["rate"].max()), float(table["high"].median())))
    chart.set_ylabel("Crashes per host-year")
    chart.set_xlabel("Week (UTC)")
    time_axis(chart)
    what = f"{module_of(exposure)} {version}" if version else module_of(exposure)
    weeks = f"{seen.sum():,} of {count(len(table), 'week')} saw one"
    caption = (
        f"{evidence_in_words(dated)}. Lines: Garwood 95 % intervals of each week, grey where it had no crash, cut at "
        "the top; dashed: the whole time."
    )
    return finish(chart, f"{what}: {figure(overall)} crashes per host-year; {weeks}", caption, table, simulated)
