"""One host around its crash, one line of time a kind of fact."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from psodlib.triage.timeline import LANES
from psodlib.views.charts import style
from psodlib.views.charts.style import Table, styled
from psodlib.views.words import count, known, moment, span

LANE_COLOURS = {
    "boot": "#0072b2",
    "watched": "#8a8a8a",
    "driver": "#009e73",
    "down": "#cc79a7",
    "vcenter": "#56b4e9",
    "crash": "#d55e00",
}


@styled
def plot_incident(timeline: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """What is known of one host up to its crash and after, one line of time a kind of fact.

    Parameters
    ----------
    timeline : pandas.DataFrame
        What ``incident_timeline`` gives: ``time``, ``end``, ``lane``, ``what``, ``detail``, ``source``, ``line``,
        ``sha256``.
    simulated, ax
        As for ``plot_rollout``.

    Returns
    -------
    matplotlib.axes.Axes
        ``numbers(ax)``: the timeline's dated facts, sorted.
    """
    dated = timeline[timeline["time"].notna()].sort_values("time", kind="stable", ignore_index=True)
    if dated.empty:
        remedy = "No fact about this host has a time."
        return style.nothing(ax, "No moment of this incident is known", remedy, list(timeline.columns), simulated)
    lanes = [lane for lane in LANES if (dated["lane"] == lane).any()]
    ends = dated["end"].fillna(dated["time"])
    reach = max(ends.max() - dated["time"].min(), pd.Timedelta(hours=1))
    chart = style.new_axes(ax, 0.5 + 0.34 * len(lanes), lanes, legend=False)
    chart.set_xlim(dated["time"].min() - 0.03 * reach, ends.max() + 0.16 * reach)
    crash = dated.loc[dated["what"] == "crash", "time"]
    for y, lane in enumerate(lanes):
        _lane(chart, y, dated[dated["lane"] == lane], reach, LANE_COLOURS[lane], crash)
    for time in crash:
        chart.axvline(time, color=style.PALETTE[1], linewidth=1.2, zorder=0.6)
    style.name_rows(chart, lanes)
    style.time_axis(chart)
    chart.set_xlabel("Time (UTC)")
    facts = f"{count(len(dated), 'dated fact')} from {count(dated['source'].nunique(), 'file')}"
    caption = f"{facts}, {moment(dated['time'].min())} to {moment(ends.max())}. Bars last, points are moments."
    return style.finish(chart, _incident_finding(dated), caption, dated, simulated)


def _lane(ax: Any, y: int, rows: Table, reach: pd.Timedelta, colour: str, crash: Table) -> None:
    # Bars for what lasts, points for moments; a point is named where it differs from the one before and neither that
    # one's name nor, in its lane, the name of the crash itself is in the way.
    room = reach * 0.021  # a letter's, and two for the gap
    kept = crash if rows["lane"].isin(["crash", "down"]).all() else crash.iloc[:0]
    free, said = rows["time"].min(), None
    for row in rows.itertuples():
        # A host is down for minutes on a chart of months: a bar would be a hair, so it is a moment with its length in words.
        brief = row.lane == "down" and row.end - row.time < reach * 0.02
        if known(row.end) and not brief:
            ax.barh(
                y, row.end - row.time, left=row.time, height=0.34, color=colour, edgecolor=style.PAPER, gid=row.lane
            )
            continue
        words = f"down {span(row.end - row.time)}" if brief else row.what
        style.mark(
            ax, row.time, y, colour, "X" if row.lane == "crash" else "o", 8, markeredgecolor=style.PAPER, gid=row.lane
        )
        name = style.short_label(words)
        ends = row.time + room * (len(name) + 2)
        chosen = row.what == "crash" or (brief and (kept == row.time).any())
        in_the_way = not chosen and ((kept >= row.time) & (kept <= ends)).any()
        if chosen or (row.time >= free and words != said and not in_the_way):
            said, free = words, ends
            place: Any = {"xytext": (5, 6), "textcoords": "offset points", "ha": "left"}
            ax.annotate(name, (row.time, y), fontsize=style.SMALL, color=style.INK, **place)


def _incident_finding(dated: Table) -> str:
    crash = dated[dated["what"] == "crash"]
    if crash.empty:
        return "The crash itself has no time; this is known around it"
    time = crash["time"].iloc[0]
    boot = dated[(dated["lane"] == "boot") & (dated["time"] < time) & (dated["end"] >= time - pd.Timedelta(hours=2))]
    loaded = dated[(dated["lane"] == "driver") & (dated["time"] <= time)]
    loaded = loaded[loaded["what"].str.endswith(" loaded").fillna(False)]
    with_driver = f" with {loaded['what'].iloc[-1]}" if len(loaded) else ""
    after = f", {span(time - boot['time'].iloc[-1])} after boot" if len(boot) else ""
    return f"The host crashed on {moment(time)}{after}{with_driver}"
