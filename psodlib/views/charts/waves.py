"""A running roll-out: its waves, its crashes and the e-value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from psodlib.views.charts.style import (
    CRASH,
    PALE,
    PALETTE,
    SOFT,
    Table,
    add_legend,
    finish,
    new_axes,
    nothing,
    styled,
    time_axis,
)
from psodlib.views.words import count, day, figure

if TYPE_CHECKING:
    from psodlib.risk.rollout_watch import RolloutWatch

ALARM = 20  # as ``risk.canary`` has it
WEEK = pd.Timedelta(days=7)
WORDS = {"go_on": "Go on", "hold": "Hold", "stop": "Stop"}


@styled
def plot_waves(result: RolloutWatch, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Hosts on the new version week by week, the crashes on either side, and the e-value against its alarm.

    Parameters
    ----------
    result : RolloutWatch
        What ``watch_rollout`` gives.
    simulated : bool
        True prints "simulated fleet" in the caption.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        ``numbers(ax)``: ``week``, ``hosts`` (moved by its end), ``crashes`` (hosts whose first crash was on the new version),
        ``reference_crashes``, ``e_value``.
    """
    names = ["week", "hosts", "crashes", "reference_crashes", "e_value"]
    weeks: Table = result.weeks
    if weeks.empty:
        remedy = "No host of the plan was seen on the new version beside others on the old one."
        return nothing(ax, "The roll-out has not begun", remedy, names, simulated)
    moved = result.hosts["moved_at"].dropna()
    table = weeks.assign(hosts=[int((moved < week + WEEK).sum()) for week in weeks["week"]])[names]
    chart = new_axes(ax, 2.4)
    chart.bar(table["week"], table["hosts"], width=7, align="edge", color=PALETTE[4], linewidth=0)
    top = max(len(result.hosts), 1)
    for wave in result.waves.itertuples():
        chart.axvline(wave.week, color=PALE, linewidth=1, zorder=0)
        chart.text(wave.week, 1.3 * top, f" wave {wave.wave}", color=SOFT, fontsize=8.5, va="top", clip_on=True)
    middle = table["week"] + WEEK / 2
    for name, height, face in (("crashes", 1.06, CRASH), ("reference_crashes", 1.14, "none")):
        seen = table[name] > 0
        size = 25 * np.sqrt(table.loc[seen, name].to_numpy(dtype=float))
        chart.scatter(
            middle[seen], [height * top] * int(seen.sum()), s=size, facecolors=face, edgecolors=CRASH, gid=name
        )
    chart.set_ylim(0, 1.32 * top)
    chart.set_ylabel("Hosts moved")
    chart.set_xlabel("Week (UTC)")
    _evidence(chart, table)
    time_axis(chart)
    add_legend(chart, [
        Patch(color=PALETTE[4], label="hosts moved"),
        Line2D([], [], color=PALETTE[1], label=f"e-value (alarm {ALARM}, dashed)"),
        Line2D([], [], linestyle="", marker="o", color=CRASH, label="first crash, new version"),
        Line2D([], [], linestyle="", marker="o", markerfacecolor="none", markeredgecolor=CRASH, label="first crash, old version"),
    ])  # fmt: skip
    crashes = count(result.judged.crashes, "crash", "crashes")
    title = f"{WORDS[result.word]}: {crashes} on {result.plan.to}, {figure(result.judged.expected)} by the past; e-value {figure(result.judged.e_value)}"
    caption = (
        f"{len(moved):,} of {count(len(result.hosts), 'host')} moved by {day(result.at)}. The e-value holds hosts against hosts of the same model "
        "in the same week, up to each host's first crash, and may be read every week; its scale runs from 1/10 to 1,000 up the chart."
    )
    return finish(chart, title, caption, table, simulated)


def _evidence(chart: Table, table: Table) -> None:
    # On a logarithmic scale of its own, laid over the height of the bars: a second axis would be one more thing to read.
    top = chart.get_ylim()[1] / 1.32

    def height(value: object) -> object:
        return top * (np.clip(np.log10(value), -1, 3) + 1) / 4  # type: ignore[call-overload]

    chart.plot(
        table["week"] + WEEK,
        height(table["e_value"].to_numpy(dtype=float)),
        color=PALETTE[1],
        linewidth=2,
        gid="e_value",
    )
    chart.axhline(height(float(ALARM)), color=PALETTE[1], linewidth=1, linestyle="--")
