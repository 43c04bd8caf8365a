"""What happened when: versions and crashes week by week, what a verdict still lacks, a running roll-out, one host's crash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter

from psodlib.triage.timeline import LANES
from psodlib.views.charts import style, sums
from psodlib.views.charts.style import CRASH, DAY, INK, PALE, PALETTE, PAPER, SOFT, Missing, Table, chart
from psodlib.views.words import DAYS_A_YEAR, count, day, figure, known, listing, moment, share, span

if TYPE_CHECKING:
    from psodlib.risk.decision import PinDecision
    from psodlib.risk.rollout_watch import RolloutWatch

WEEK = pd.Timedelta(days=7)
MOST_WEEKS = 104  # of waiting drawn; a longer way leaves the page
ALARM = 20  # as ``risk.canary`` has it
WORDS = {"go_on": "Go on", "hold": "Hold", "stop": "Stop"}
LANE_COLOURS = {
    "boot": "#0072b2", "watched": "#8a8a8a", "driver": "#009e73", "down": "#cc79a7", "vcenter": "#56b4e9", "crash": "#d55e00",
}  # fmt: skip


@chart("week", "version", "host_days", "crashes", "unknown_crashes", more="; ``week`` is its Monday")
def plot_rollout(exposure: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Host-days a week by loaded version, stacked, with each crash as a point above its week.

    Parameters
    ----------
    exposure : pandas.DataFrame
        Exposure table with ``start`` and ``end``.
    """
    dated = sums.with_dates(exposure)
    if dated.empty:
        raise Missing("No host-days to show over time", "The exposure table has no stretch with a start and an end.")
    table = sums.weekly_sums(dated)
    colours = style.version_colours(exposure["version"])
    drawn = style.new_axes(ax, 2.1)
    names, weeks = style.in_order(table["version"]), sorted(table["week"].unique())
    # Days, not dates, for the width: bars touch, so that a gap on the page is a gap in the evidence.
    fills = {name: {**style.version_fill(name, colours), "edgecolor": SOFT, "linewidth": 0} for name in names}
    wide = style.spread(table, "week", "version", "host_days", weeks, names)
    top = float(style.stacked(drawn, wide, fills, wide.index, width=7, align="edge").max()) or 1.0
    _crash_points(drawn, table, colours, top)
    drawn.set_ylabel("Host-days a week")
    style.time_axis(drawn)
    module = sums.module_of(exposure)
    kinds = (("crashes", f"{module} crash", CRASH, PALE), ("unknown_crashes", "crash, module unknown", SOFT, PAPER))
    points = [_point(words, edge, face) for column, words, edge, face in kinds if table[column].any()]
    style.version_legend(drawn, reversed(names), colours, "Version loaded", *points)
    when = f"{day(dated['start'].min())} to {day(dated['end'].max())}"
    caption = f"{sums.evidence(dated)}, {when}. A point stands above the week of its crash."
    return style.finish(drawn, _rollout_finding(dated), caption, table, simulated)


def _point(label: str, edge: str, face: str) -> Line2D:
    words = style.shown_text(label)
    return Line2D([], [], linestyle="", marker="o", markeredgecolor=edge, markerfacecolor=face, label=words)


def _crash_points(ax: Any, table: Table, colours: dict[str, str], top: float) -> None:
    # Points pile up over their week in a strip above the stack; a heavy week is squeezed into the same strip.
    most = max(int(table.groupby("week")[["crashes", "unknown_crashes"]].sum().sum(axis=1).max()), 1)
    step = top * min(0.06, 0.5 / most)
    for week, rows in table.groupby("week"):
        height = top * 1.07
        for row in rows.itertuples():
            face = style.version_fill(row.version, colours)["facecolor"]
            for colour, edge, number in ((face, CRASH, row.crashes), (PAPER, SOFT, row.unknown_crashes)):
                if number:
                    ys = height + step * np.arange(number)
                    style.mark(ax, [week + WEEK / 2] * number, ys, colour, size=5, markeredgecolor=edge, gid="crash")
                    height += step * number
    ax.set_ylim(0, top * 1.1 + step * most)


def _rollout_finding(exposure: Table) -> str:
    module, days, crashes = sums.module_of(exposure), exposure["host_days"], sums.counts_of(exposure, "crashes")
    everything = sums.host_days(float(days.sum()))
    if not crashes.sum():
        return f"No {module} crash in {everything} on {count(exposure['host'].nunique(), 'host')}"
    named = exposure["version"].astype("string").fillna(style.UNKNOWN_VERSION)
    worst = crashes.groupby(named).sum().idxmax()
    here = named == worst
    if here.all():
        return f"All {everything} and {count(crashes.sum(), 'crash')} are on {module} {worst}"
    part = f"{crashes[here].sum():,} of {crashes.sum():,} {module} crashes"
    return f"{worst} took {part} in {share(days[here].sum(), days.sum())} of the host-days"


@chart("week", "crashes", "host_days", "rate", "low", "high", more=" (per host-year)")
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
    """
    from psodlib.risk.exact import poisson_interval  # brings scipy, which most charts do without

    dated = sums.with_dates(exposure)
    if version is not None:
        dated = dated[(dated["version"] == version).fillna(False)]
    if dated.empty:
        raise Missing("No host-days to show a weekly rate of", "No stretch with a start and an end matches.")
    table = sums.weekly_sums(dated).groupby("week", as_index=False)[["crashes", "host_days"]].sum()
    limits = [poisson_interval(row.crashes, row.host_days / DAYS_A_YEAR) for row in table.itertuples()]
    table["rate"] = table["crashes"] * DAYS_A_YEAR / table["host_days"]
    table["low"], table["high"] = zip(*limits, strict=True)
    drawn = style.new_axes(ax, legend=False)
    middle = table["week"] + WEEK / 2
    seen = table["crashes"] > 0
    drawn.vlines(middle, table["low"], table["high"], color=np.where(seen, SOFT, PALE), linewidth=1.5)
    style.mark(drawn, middle[seen], table.loc[seen, "rate"], PALETTE[1], size=5)
    overall = DAYS_A_YEAR * table["crashes"].sum() / table["host_days"].sum()
    drawn.axhline(overall, color=INK, linewidth=1, linestyle="--")
    # A week of few host-days has an interval that would flatten all others.
    top = max(2 * float(table["rate"].max()), float(table["high"].median()))
    drawn.set(ylim=(0, top), ylabel="Crashes per host-year")
    style.time_axis(drawn)
    what = " ".join(filter(None, [sums.module_of(exposure), version]))
    finding = f"{what}: {figure(overall)} crashes per host-year; {seen.sum():,} of {count(len(table), 'week')} saw one"
    caption = (
        f"{sums.evidence(dated)}. Lines: Garwood 95 % intervals of each week, grey where it had no crash, cut at "
        "the top; dashed: the whole time."
    )
    return style.finish(drawn, finding, caption, table, simulated)


@chart(
    "version", "host_days", "needed", "per_week", "weeks",
    more="; ``needed`` are further host-days (NA where no amount would do), ``weeks`` NA where no host runs it",
)  # fmt: skip
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
    """
    from psodlib.views.study import still_needed  # brings scipy, too

    dated = sums.with_dates(exposure)
    table: Table = still_needed(decision, dated)
    if dated.empty or table.empty:
        remedy = "Candidates and an exposure table with starts and ends are needed."
        raise Missing("How long a verdict will take is not known", remedy)
    drawn = style.new_axes(ax)
    now, colours = dated["end"].max(), style.version_colours(exposure["version"])
    horizon = now + min(max(table["weeks"].fillna(0).max(), 4), MOST_WEEKS) * 1.04 * WEEK
    entries = []
    for row in table.itertuples():
        colour = colours[row.version]
        _gathered(drawn, dated[(dated["version"] == row.version).fillna(False)], dated["start"].min(), now, colour)
        if known(row.weeks) and row.weeks > 0:
            _way_to_go(drawn, row, now, horizon, colour)
        entries.append(Line2D([], [], color=colour, label=f"{style.short_label(row.version)}: {_still_words(row)}"))
    drawn.axvline(now, color=SOFT, linewidth=1, linestyle=":")
    drawn.set(xlim=(dated["start"].min(), horizon), ylim=(0, None), ylabel="Host-days gathered")
    drawn.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    style.time_axis(drawn)
    style.add_legend(drawn, entries, "Candidate")
    caption = (
        f"{sums.evidence(dated)} until {day(now)} (dotted). Dashed: at the pace of the last four weeks, and at "
        "the current crash rate; each crash changes what is needed."
    )
    return style.finish(drawn, _still_finding(table), caption, table, simulated)


def _gathered(ax: Any, rows: Table, begin: pd.Timestamp, now: pd.Timestamp, colour: str) -> None:
    # Host-days gathered until the end of each week.
    weeks = np.append(np.arange(0, (now - begin) / DAY, 7), (now - begin) / DAY)
    start, end = (sums.days_since(rows[edge], begin) for edge in ("start", "end"))
    days = sums.days_in_bins(start, end, weeks, pd.Series("", index=rows.index)).set_index("bin")["host_days"]
    total = days.reindex(range(len(weeks) - 1)).fillna(0).cumsum()
    ax.plot([begin + week * DAY for week in weeks], [0, *total], color=colour, linewidth=1.8, gid="gathered")


def _way_to_go(ax: Any, row: Any, now: pd.Timestamp, horizon: pd.Timestamp, colour: str) -> None:
    weeks = min(float(row.weeks), (horizon - now) / WEEK)
    gathered = [row.host_days, row.host_days + weeks * row.per_week]
    ax.plot([now, now + weeks * WEEK], gathered, color=colour, linestyle="--", gid="to go")
    if weeks == float(row.weeks):
        end = row.host_days + row.needed
        style.mark(ax, now + weeks * WEEK, end, colour, "D", markerfacecolor=PAPER, gid="verdict")


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


@chart(
    "week", "hosts", "crashes", "reference_crashes", "e_value",
    more="; ``hosts`` moved by the week's end, ``crashes`` of hosts whose first crash was on the new version",
)  # fmt: skip
def plot_waves(result: RolloutWatch, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Hosts on the new version week by week, the crashes on either side, and the e-value against its alarm.

    Parameters
    ----------
    result : RolloutWatch
        What ``watch_rollout`` gives.
    """
    weeks: Table = result.weeks
    if weeks.empty:
        remedy = "No host of the plan was seen on the new version beside others on the old one."
        raise Missing("The roll-out has not begun", remedy)
    moved = result.hosts["moved_at"].dropna()
    table = weeks[["week"]].assign(hosts=[int((moved < week + WEEK).sum()) for week in weeks["week"]])
    table = table.join(weeks[["crashes", "reference_crashes", "e_value"]])
    drawn = style.new_axes(ax, 2.4)
    drawn.bar(table["week"], table["hosts"], width=7, align="edge", color=PALETTE[4], linewidth=0)
    top = max(len(result.hosts), 1)
    for wave in result.waves.itertuples():
        drawn.axvline(wave.week, color=PALE, linewidth=1, zorder=0)
        words: Any = {"color": SOFT, "fontsize": style.SMALL, "va": "top", "clip_on": True}
        drawn.text(wave.week, 1.3 * top, f" wave {wave.wave}", **words)
    for name, height, face in (("crashes", 1.06, CRASH), ("reference_crashes", 1.14, "none")):
        seen = table[table[name] > 0]
        look: Any = {"s": 25 * np.sqrt(seen[name].to_numpy(dtype=float)), "facecolors": face, "edgecolors": CRASH}
        drawn.scatter(seen["week"] + WEEK / 2, [height * top] * len(seen), gid=name, **look)
    drawn.set(ylim=(0, 1.32 * top), ylabel="Hosts moved")
    # On a logarithmic scale of its own, laid over the height of the bars: a second axis would be one more thing to read.
    heights = top * (np.clip(np.log10([*table["e_value"].astype(float), ALARM]), -1, 3) + 1) / 4
    drawn.plot(table["week"] + WEEK, heights[:-1], color=PALETTE[1], linewidth=2, gid="e_value")
    drawn.axhline(heights[-1], color=PALETTE[1], linewidth=1, linestyle="--")
    style.time_axis(drawn)
    style.add_legend(drawn, [
        Patch(color=PALETTE[4], label="hosts moved"), Line2D([], [], color=PALETTE[1], label=f"e-value (alarm {ALARM}, dashed)"),
        _point("first crash, new version", CRASH, CRASH), _point("first crash, old version", CRASH, "none"),
    ])  # fmt: skip
    judged = result.judged
    by_the_past = f"{count(judged.crashes, 'crash')} on {result.plan.to}, {figure(judged.expected)} by the past"
    title = f"{WORDS[result.word]}: {by_the_past}; e-value {figure(judged.e_value)}"
    caption = (
        f"{len(moved):,} of {count(len(result.hosts), 'host')} moved by {day(result.at)}. The e-value holds hosts against hosts of the same model "
        "in the same week, up to each host's first crash, and may be read every week; its scale runs from 1/10 to 1,000 up the chart."
    )
    return style.finish(drawn, title, caption, table, simulated)


@chart("time", "end", "lane", "what", "detail", "source", "line", "sha256", more=": the timeline's dated facts, sorted")
def plot_incident(timeline: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """What is known of one host up to its crash and after, one line of time a kind of fact.

    Parameters
    ----------
    timeline : pandas.DataFrame
        What ``incident_timeline`` gives: ``time``, ``end``, ``lane``, ``what``, ``detail``, ``source``, ``line``,
        ``sha256``.
    """
    dated = timeline[timeline["time"].notna()].sort_values("time", kind="stable", ignore_index=True)
    if dated.empty:
        raise Missing("No moment of this incident is known", "No fact about this host has a time.")
    lanes = [lane for lane in LANES if (dated["lane"] == lane).any()]
    begin, end = dated["time"].min(), dated["end"].fillna(dated["time"]).max()
    reach = max(end - begin, pd.Timedelta(hours=1))
    drawn = style.new_axes(ax, 0.5 + 0.34 * len(lanes), lanes, legend=False)
    drawn.set_xlim(begin - 0.03 * reach, end + 0.16 * reach)
    crash = dated.loc[dated["what"] == "crash", "time"]
    for y, lane in enumerate(lanes):
        _lane(drawn, y, dated[dated["lane"] == lane], reach, LANE_COLOURS[lane], crash)
    for time in crash:
        drawn.axvline(time, color=PALETTE[1], linewidth=1.2, zorder=0.6)
    style.name_rows(drawn, lanes)
    style.time_axis(drawn, "Time (UTC)")
    facts = f"{count(len(dated), 'dated fact')} from {count(dated['source'].nunique(), 'file')}"
    caption = f"{facts}, {moment(begin)} to {moment(end)}. Bars last, points are moments."
    return style.finish(drawn, _incident_finding(dated), caption, dated, simulated)


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
            look: Any = {"height": 0.34, "color": colour, "edgecolor": PAPER, "gid": row.lane}
            ax.barh(y, row.end - row.time, left=row.time, **look)
            continue
        words = f"down {span(row.end - row.time)}" if brief else row.what
        shape = "X" if row.lane == "crash" else "o"
        style.mark(ax, row.time, y, colour, shape, 8, markeredgecolor=PAPER, gid=row.lane)
        name = style.short_label(words)
        ends = row.time + room * (len(name) + 2)
        chosen = row.what == "crash" or (brief and (kept == row.time).any())
        in_the_way = not chosen and ((kept >= row.time) & (kept <= ends)).any()
        if chosen or (row.time >= free and words != said and not in_the_way):
            said, free = words, ends
            place: Any = {"xytext": (5, 6), "textcoords": "offset points", "ha": "left"}
            ax.annotate(name, (row.time, y), fontsize=style.SMALL, color=INK, **place)


def _incident_finding(dated: Table) -> str:
    crash = dated[dated["what"] == "crash"]
    if crash.empty:
        return "The crash itself has no time; this is known around it"
    time = crash["time"].iloc[0]
    before = dated[dated["time"] <= time]
    lately = before["end"] >= time - pd.Timedelta(hours=2)
    boot = before[(before["lane"] == "boot") & (before["time"] < time) & lately]
    loaded = before.loc[(before["lane"] == "driver") & before["what"].str.endswith(" loaded").fillna(False), "what"]
    with_driver = f" with {loaded.iloc[-1]}" if len(loaded) else ""
    after = f", {span(time - boot['time'].iloc[-1])} after boot" if len(boot) else ""
    return f"The host crashed on {moment(time)}{after}{with_driver}"
