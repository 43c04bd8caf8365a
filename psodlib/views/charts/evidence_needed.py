"""The evidence that a verdict still lacks, against time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter

from psodlib.views.charts.style import (
    DAY,
    PAPER,
    SOFT,
    Table,
    add_legend,
    finish,
    mark,
    new_axes,
    nothing,
    short_label,
    styled,
    time_axis,
    version_colours,
)
from psodlib.views.charts.sums import days_in_bins, days_since, evidence_in_words, with_dates
from psodlib.views.pace import still_needed
from psodlib.views.words import count, day, known, listing

if TYPE_CHECKING:
    from psodlib.risk.decision import PinDecision

MOST_WEEKS = 104  # of waiting drawn; a longer way leaves the page


@styled
def plot_evidence_needed(
    decision: PinDecision | None, exposure: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None
) -> Axes:
    """Host-days gathered by each candidate over time, and what is still missing for a decision.

    Parameters
    ----------
    decision : PinDecision or None
        What ``decide_pin`` gives; None where there is nothing to decide.
    exposure : pandas.DataFrame
        The exposure it was made from: gives the host-days so far and the pace of the last four weeks.
    simulated, ax
        As for ``plot_rollout``.

    Returns
    -------
    matplotlib.axes.Axes
        ``numbers(ax)``: ``version``, ``host_days``, ``needed`` (further host-days; NA where no amount would do),
        ``per_week``, ``weeks`` (NA where no host runs it or no amount would do).
    """
    dated = with_dates(exposure)
    table: Table = still_needed(decision, dated)
    if dated.empty or table.empty:
        remedy = "Candidates and an exposure table with starts and ends are needed."
        return nothing(ax, "How long a verdict will take is not known", remedy, list(table.columns), simulated)
    chart = new_axes(ax)
    now, colours = dated["end"].max(), version_colours(exposure["version"])
    horizon = now + min(max(table["weeks"].fillna(0).max(), 4), MOST_WEEKS) * pd.Timedelta(weeks=1.04)
    entries = []
    for row in table.itertuples():
        rows = dated[(dated["version"] == row.version).fillna(False)]
        _gathered(chart, rows, dated["start"].min(), now, colours[row.version])
        if known(row.weeks) and row.weeks > 0:
            _way_to_go(chart, row, now, horizon, colours[row.version])
        words = f"{short_label(row.version)}: {_still_words(row)}"
        entries.append(Line2D([], [], color=colours[row.version], label=words))
    chart.axvline(now, color=SOFT, linewidth=1, linestyle=":")
    chart.set_xlim(dated["start"].min(), horizon)
    chart.set_ylim(0, None)
    chart.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    chart.set_ylabel("Host-days gathered")
    chart.set_xlabel("Week (UTC)")
    time_axis(chart)
    add_legend(chart, entries, "Candidate")
    caption = (
        f"{evidence_in_words(dated)} until {day(now)} (dotted). Dashed: at the pace of the last four weeks, and at "
        "the current crash rate; each crash changes what is needed."
    )
    return finish(chart, _still_finding(table), caption, table, simulated)


def _gathered(ax: Any, rows: Table, begin: pd.Timestamp, now: pd.Timestamp, colour: str) -> None:
    # Host-days gathered until the end of each week.
    weeks = np.append(np.arange(0, (now - begin) / DAY, 7), (now - begin) / DAY)
    one = pd.Series("", index=rows.index)
    days = days_in_bins(days_since(rows["start"], begin), days_since(rows["end"], begin), weeks, one)
    total = days.set_index("bin")["host_days"].reindex(range(len(weeks) - 1)).fillna(0).cumsum()
    ax.plot([begin + week * DAY for week in weeks], [0, *total], color=colour, linewidth=1.8, gid="gathered")


def _way_to_go(ax: Any, row: Any, now: pd.Timestamp, horizon: pd.Timestamp, colour: str) -> None:
    drawn = min(float(row.weeks), (horizon - now) / pd.Timedelta(weeks=1))
    end = now + drawn * pd.Timedelta(weeks=1)
    gathered = [row.host_days, row.host_days + drawn * row.per_week]
    ax.plot([now, end], gathered, color=colour, linestyle="--", gid="to go")
    if drawn == float(row.weeks):
        mark(ax, end, row.host_days + row.needed, colour, "D", markerfacecolor=PAPER, gid="verdict")


def _still_words(row: Any) -> str:
    if not known(row.needed):
        return "no amount would do"
    if row.needed == 0:
        return "can be told now"
    more = f"{row.needed:,.0f} more host-days"
    return f"{more}\n({count(np.ceil(row.weeks), 'week')})" if known(row.weeks) else f"{more}\n(no host runs it now)"


def _still_finding(table: Table) -> str:
    if (table["needed"] == 0).fillna(False).all():
        return "All candidates can be told apart: no further host-days are needed for this verdict"
    waiting = table[(table["weeks"] > 0).fillna(False)]
    if len(waiting):
        first = waiting.loc[waiting["weeks"].idxmin()]
        long = first["weeks"] > MOST_WEEKS
        wait = f"{first['weeks'] / 52:,.0f} years" if long else count(np.ceil(first["weeks"]), "week")
        return f"At today's pace we could decide in {wait}, with more time on {first['version']}"
    if (table["needed"] > 0).fillna(False).any():
        return "No verdict is under way: no host runs a candidate that lacks host-days"
    open_ones = listing(table.loc[table["needed"].isna(), "version"])
    return f"At the rates seen so far, no number of host-days on one version alone would settle {open_ones}"
