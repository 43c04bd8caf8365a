"""Tables -> Axes. The only file that imports matplotlib.

Every ``plot_*`` takes a table (and ``ax``, to draw on a given Axes), and gives the Axes back. Its title is the finding,
made from the numbers; its caption under the axes holds the counts and host-days behind it; ``numbers(ax)`` is its table
twin. A table with nothing to show gives a chart that says what is missing. Rates are per host-day in tables, per
host-year here.

Text that came out of a log is drawn letter by letter: no mathtext, no control characters, no missing glyphs.
"""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias

import matplotlib
import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from psodlib.errors import InputError
from psodlib.views.incident import LANES
from psodlib.views.words import DAYS_A_YEAR, between, count, day, figure, known, listing, literal, moment, share, span

if TYPE_CHECKING:
    from psodlib.risk.decision import PinDecision
    from psodlib.risk.rates import RateRatio  # brings scipy, which most charts do without

__all__ = [
    "numbers", "plot_ascertainment", "plot_evidence_needed", "plot_fleet_map", "plot_hazard", "plot_host_days",
    "plot_incident", "plot_modules", "plot_rates", "plot_ratio", "plot_rollout", "plot_survival",
    "plot_uptime_at_crash", "plot_weekly_rate", "save_chart", "version_colours",
]  # fmt: skip

INK, SOFT, PALE, PAPER = "#222222", "#666666", "#c9c9c9", "#ffffff"
CRASH = "#000000"
# Okabe and Ito's colours (2008), without the yellow that is lost on white paper; then the same, lighter.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a5c99", "#8c6d31", "#66aad1", "#e69e66")
UNKNOWN_VERSION, NOT_WATCHED, OTHERS = "version unknown", "not watched", "other versions"
QUIET = {UNKNOWN_VERSION: ("#8a8a8a", "////"), NOT_WATCHED: (PAPER, "...."), OTHERS: (PALE, "")}
MOST_VERSIONS = 7  # more colours than this nobody tells apart
LONGEST_LABEL = 34  # letters; a longer name loses its middle
MOST_ROWS = 14  # modules drawn
MAP_WIDTH = 24  # hosts in one line of the map
WIDE_TILES = 6  # hosts a line up to which their names fit in
NAME_IN_TILE = 12  # letters of it; host names differ at the end
MOST_WEEKS = 104  # of waiting drawn; a longer way leaves the page
MOST_LEGEND = 14  # names in a legend
MANY_AT_RISK = 10  # boots under watch, for a curve
DAY = pd.Timedelta(days=1)
FEW = 5  # crashes below which no shape over uptime is claimed
EVERYTHING, NO_MODULE = "all hosts", "no module found"

# From the strongest evidence to none: dark to pale.
GUILT_COLOURS = {
    "named_by_kernel": "#08306b", "on_stack": "#0072b2", "module_map": "#3f97c9", "symbol_prefix": "#86bfdf",
    "world_name": "#d7b5d8", "precursor_log": "#cc79a7", "hardware": "#e69f00", "deliberate": "#009e73",
    "none": "#b8b8b8",
}  # fmt: skip
HOW: dict[str, dict[str, Any]] = {
    "dump": {"facecolor": "#0072b2", "edgecolor": PAPER},
    "log only": {"facecolor": "#56b4e9", "edgecolor": PAPER},
    "unexplained reboot": {"facecolor": "#e69f00", "edgecolor": PAPER},
    "no logs": {"facecolor": "#8a8a8a", "edgecolor": SOFT, "hatch": "////"},
}  # fmt: skip
DUMP_NAME = r"vmkernel-log\.\d|zdump"  # what the text of a core dump is called
LANE_COLOURS = {"boot": "#0072b2", "watched": "#8a8a8a", "driver": "#009e73", "crash": "#d55e00"}
FOREST_COLUMNS = ("contrast", "estimate", "ratio", "low", "high")
MAIN_ESTIMATES = ("headline", "known crashes only", "with unknown crashes", "worst cases of unknown", "crude")
P = ParamSpec("P")
# A DataFrame and a Series: pandas-stubs gives each cell the union of all types, so inside this file they go unchecked.
Table: TypeAlias = Any
Column: TypeAlias = Any

STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9.5, "text.usetex": False, "text.color": INK,
    "figure.facecolor": PAPER, "savefig.facecolor": PAPER, "savefig.transparent": False, "figure.dpi": 110,
    "axes.facecolor": PAPER, "axes.edgecolor": SOFT, "axes.labelcolor": INK, "axes.titlesize": 12,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 10,
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#e6e6e6", "grid.linewidth": 0.8, "axes.axisbelow": True,
    "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "legend.frameon": False, "legend.fontsize": 9, "svg.hashsalt": "psodlib", "svg.fonttype": "none",
    "hatch.linewidth": 0.6, "hatch.color": "#5a5a5a",
}  # fmt: skip
WIDTH = 6.4  # inches of the plot itself; labels and legend come on top


# --- the frame that all charts share --------------------------------------------------------------------------------


def _axes(ax: Any | None, height: float = 3.4, labels: Iterable[str] = (), legend: bool = True) -> Any:
    # Long labels and a legend widen the figure, so the plot keeps its width.
    if ax is not None:
        return ax
    longest = max((len(label) for label in labels), default=6)
    width = WIDTH + 0.075 * longest + (1.6 if legend else 0.2)
    return plt.subplots(figsize=(width, height + 0.9), layout="constrained")[1]


def _finish(ax: Any, finding: str, caption: str, table: Table, simulated: bool) -> Axes:
    # Title and caption are wrapped to the plot's width: about 11 and 16 letters an inch in these sizes.
    own = ax.figure.get_layout_engine() is not None and len(ax.figure.axes) == 1
    inches = WIDTH if own else max(ax.get_window_extent().width / ax.figure.dpi, 3.0)
    ax.set_title(_text(textwrap.fill(finding, round(inches * 11.5)), keep_breaks=True), loc="left")
    words = f"Simulated fleet. {caption}" if simulated else caption
    # Hung on the x label, so that it stays below it whatever the ticks do.
    ax.annotate(
        _text(textwrap.fill(words, round(inches * 16)), keep_breaks=True),
        xy=(0, 0), xycoords=("axes fraction", ax.xaxis.label), xytext=(0, -8), textcoords="offset points",
        ha="left", va="top", fontsize=8, color=SOFT, annotation_clip=False, gid="caption",
    )  # fmt: skip
    ax.psod_numbers = table.reset_index(drop=True)
    chart: Axes = ax
    return chart


def _nothing(ax: Any | None, what: str, remedy: str, columns: Sequence[str], simulated: bool) -> Axes:
    # An empty panel reads as "nothing happened"; this one says what is missing.
    with plt.rc_context(STYLE):
        chart = _axes(ax, 0.9, legend=False)
        chart.set(xticks=[], yticks=[])
        chart.spines[:].set_visible(False)
        chart.text(
            0.0,
            0.6,
            _text(textwrap.fill(remedy, 80), keep_breaks=True),
            transform=chart.transAxes,
            color=SOFT,
            va="center",
        )
        return _finish(
            chart, what, "Nothing is drawn because nothing is known.", pd.DataFrame(columns=list(columns)), simulated
        )


@functools.cache
def _glyphs() -> frozenset[int]:
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return frozenset(font.get_charmap())


def _text(value: Any, keep_breaks: bool = False) -> str:
    # Letter by letter: `$` would start mathtext, an unknown glyph would warn and draw a box, a break would run off.
    shown = literal(value)
    if not keep_breaks:
        shown = " ".join(shown.split())
    letters = (c if c == "\n" or ord(c) in _glyphs() else c.encode("unicode_escape").decode("ascii") for c in shown)
    return "".join(letters).replace("$", r"\$")


def _label(value: Any) -> str:
    # A long name loses its middle: host names differ at both ends.
    shown = " ".join(literal(value).split())
    if len(shown) > LONGEST_LABEL:
        half = (LONGEST_LABEL - 1) // 2
        shown = f"{shown[:half]}…{shown[-half:]}"
    return _text(shown)


def _natural(value: str) -> list[tuple[int, int, str]]:
    # 5.5.0.9 before 5.5.0.58; bounded digits, because a name may be anything.
    return [
        (0, int(part), "") if part.isdigit() and part.isascii() else (1, 0, part)
        for part in re.split(r"([0-9]{1,18})", str(value))
        if part
    ]


def _in_order(values: Iterable[Any]) -> list[str]:
    return sorted({str(value) for value in values if known(value)}, key=_natural)


def _legend(ax: Any, entries: Sequence[Any], title: str | None = None) -> None:
    if entries:
        legend = ax.legend(
            handles=entries,
            title=title,
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            borderaxespad=0,
            alignment="left",
        )
        legend.get_title().set_fontsize(9)


def _patch(name: str, colours: dict[str, str]) -> Patch:
    return Patch(label=_label(name), linewidth=0.5, **_fill(name, colours))


def _fill(name: str, colours: dict[str, str]) -> dict[str, Any]:
    # What is not known is grey and hatched, so that it reads without colour too.
    if name in QUIET:
        colour, hatch = QUIET[name]
        return {"facecolor": colour, "hatch": hatch, "edgecolor": SOFT}
    return {"facecolor": colours[name], "edgecolor": PAPER}


def _lumped(versions: Column, weight: Column) -> Column:
    # Names the versions with the most host-days; the rest is one grey. Unknown stays itself.
    named = versions.astype("string").fillna(UNKNOWN_VERSION)
    totals = (
        weight.groupby(named).sum().drop(UNKNOWN_VERSION, errors="ignore").sort_values(ascending=False, kind="stable")
    )
    if len(totals) > MOST_VERSIONS:
        named = named.mask(named.isin(totals.index[MOST_VERSIONS - 1 :]), OTHERS)
    return named


def _stack_order(names: Iterable[str]) -> list[str]:
    quiet = [OTHERS, UNKNOWN_VERSION, NOT_WATCHED]
    present = set(names)
    return [*_in_order(present - set(quiet)), *(name for name in quiet if name in present)]


def _module_of(exposure: Table) -> str:
    names = exposure["module"].dropna().unique() if "module" in exposure else []
    return str(names[0]) if len(names) == 1 else "driver"


def _column(exposure: Table, name: str) -> Column:
    # Callers may build an exposure table by hand: only four columns are sure to be there.
    return exposure[name] if name in exposure else pd.Series(pd.NA, index=exposure.index)


def _counts(exposure: Table, name: str) -> Column:
    given: Column = pd.to_numeric(_column(exposure, name))
    return given.fillna(0).astype("int64")


def _hosts(n: int) -> str:
    return count(n, "host")


def _days(n: float) -> str:
    return f"{n:,.0f} host-days" if n >= 10 or n == 0 else f"{figure(n)} host-days"


def _styled(plot: Callable[P, Axes]) -> Callable[P, Axes]:
    # One style in one place, and none of it left behind in the caller's session.
    @functools.wraps(plot)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Axes:
        with plt.rc_context(STYLE):
            chart = plot(*args, **kwargs)
            interactive = plt.isinteractive()
        # A session's first figure starts the backend, and a notebook's turns interactive mode on: not ours to undo.
        matplotlib.interactive(interactive)
        return chart

    return styled


def _days_in_bins(start: Any, end: Any, edges: Any, group: Column) -> Table:
    # Days that each group's stretches spend between consecutive edges (all in days): bin, group, host_days.
    parts = []
    for i in range(len(edges) - 1):
        days = np.minimum(end, edges[i + 1]) - np.maximum(start, edges[i])
        inside = days > 0
        total = pd.Series(days[inside]).groupby(group.to_numpy()[inside], sort=False).sum()
        parts.append(
            pd.DataFrame({"bin": i, "group": total.index.astype("string"), "host_days": total.to_numpy(dtype=float)})
        )
    return pd.concat(parts, ignore_index=True)


def _in_days(times: Column, origin: pd.Timestamp) -> Any:
    return ((times - origin) / DAY).to_numpy(dtype=float)


def _weekly(exposure: Table) -> Table:
    # week (Monday, UTC), version, host_days, crashes, unknown_crashes; a crash stands at the end of its stretch.
    monday = exposure["start"].min().normalize()
    monday -= pd.Timedelta(days=monday.weekday())
    start, end = _in_days(exposure["start"], monday), _in_days(exposure["end"], monday)
    edges = np.arange(0, np.floor(end.max() / 7) * 7 + 15, 7)[: int(np.ceil(max(end.max(), 1e-9) / 7)) + 1]
    version = _lumped(exposure["version"], exposure["host_days"])
    days = _days_in_bins(start, end, edges, version).rename(columns={"group": "version"})
    ends = pd.DataFrame({"bin": np.minimum(end // 7, len(edges) - 2).astype(int), "version": version.to_numpy()})
    for name in ("crashes", "unknown_crashes"):
        ends[name] = _counts(exposure, name).to_numpy()
    table = days.merge(
        ends.groupby(["bin", "version"], as_index=False).sum(), how="outer", on=["bin", "version"]
    ).fillna(0)
    table.insert(0, "week", monday + pd.to_timedelta(table.pop("bin") * 7, unit="D"))
    return table.astype({"crashes": "int64", "unknown_crashes": "int64"}).sort_values(
        ["week", "version"], ignore_index=True
    )


def _dated(exposure: Table) -> Table:
    # Only stretches with a place in time; a hand-made table may have none.
    if "start" not in exposure or "end" not in exposure:
        return exposure.iloc[:0]
    return exposure[exposure["start"].notna() & exposure["end"].notna()]


def _yearly(table: Table, by: str) -> Table:
    # Sums a group, with the rate and its Garwood interval per host-year.
    from psodlib.risk.exact import poisson_interval  # brings scipy, which most charts do without

    sums = table.groupby(by, as_index=False, sort=False)[["crashes", "host_days"]].sum()
    limits = [poisson_interval(row.crashes, row.host_days / DAYS_A_YEAR) for row in sums.itertuples()]
    sums["rate"] = sums["crashes"] * DAYS_A_YEAR / sums["host_days"]
    return sums.assign(low=[low for low, _ in limits], high=[high for _, high in limits])


def _time_axis(ax: Any) -> None:
    dates: Any = mdates  # untyped
    locator = dates.AutoDateLocator(minticks=3, maxticks=9)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))


# --- roll-out, rates over time, host-days ---------------------------------------------------------------------------


@_styled
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
    dated = _dated(exposure)
    if dated.empty:
        columns = ["week", "version", "host_days", "crashes", "unknown_crashes"]
        remedy = "The exposure table has no stretch with a start and an end."
        return _nothing(ax, "No host-days to show over time", remedy, columns, simulated)
    table = _weekly(dated)
    colours = version_colours(exposure["version"])
    chart = _axes(ax)
    top = _stack_weeks(chart, table, colours)
    _crash_points(chart, table, colours, top)
    chart.set_ylabel("Host-days a week")
    chart.set_xlabel("Week (UTC)")
    _time_axis(chart)
    points = []
    if table["crashes"].any():
        points.append(_point(f"{_module_of(exposure)} crash", CRASH, PALE))
    if table["unknown_crashes"].any():
        points.append(_point("crash, module unknown", SOFT, PAPER))
    _legend(
        chart,
        [*(_patch(name, colours) for name in reversed(_stack_order(table["version"]))), *points],
        "Version loaded",
    )
    when = f"{day(dated['start'].min())} to {day(dated['end'].max())}"
    caption = f"{_evidence(dated)}, {when}. A point stands above the week of its crash."
    return _finish(chart, _rollout_finding(dated), caption, table, simulated)


def _point(label: str, edge: str, face: str) -> Line2D:
    return Line2D([], [], linestyle="", marker="o", markeredgecolor=edge, markerfacecolor=face, label=label)


def _stack_weeks(ax: Any, table: Table, colours: dict[str, str]) -> float:
    weeks = sorted(table["week"].unique())
    wide = table.pivot(index="week", columns="version", values="host_days").reindex(weeks).fillna(0)
    bottom = np.zeros(len(weeks))
    for name in _stack_order(table["version"]):
        # Days, not dates, for the width: bars touch, so that a gap on the page is a gap in the evidence.
        ax.bar(
            wide.index,
            wide[name],
            width=7,
            align="edge",
            bottom=bottom,
            linewidth=0,
            **{**_fill(name, colours), "edgecolor": SOFT},
        )
        bottom += wide[name].to_numpy()
    return float(bottom.max()) or 1.0


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
                    ax.plot(
                        [middle] * number,
                        ys,
                        linestyle="",
                        marker="o",
                        markersize=5,
                        markerfacecolor=colour,
                        markeredgecolor=edge,
                        gid="crash",
                    )
                    height += step * number
    ax.set_ylim(0, top * 1.1 + step * max(int(piles.max()), 1))


def _evidence(exposure: Table) -> str:
    # The counts that every caption owes: crashes, host-days, hosts.
    module, unknown = _module_of(exposure), int(_counts(exposure, "unknown_crashes").sum())
    crashes = count(int(_counts(exposure, "crashes").sum()), f"{module} crash", f"{module} crashes")
    more = f" and {count(unknown, 'crash', 'crashes')} with no module found" if unknown else ""
    return f"{crashes}{more} in {_days(float(exposure['host_days'].sum()))} on {_hosts(exposure['host'].nunique())}"


def _rollout_finding(exposure: Table) -> str:
    module, days, crashes = _module_of(exposure), exposure["host_days"], _counts(exposure, "crashes")
    if not crashes.sum():
        return f"No {module} crash in {_days(float(days.sum()))} on {_hosts(exposure['host'].nunique())}"
    named = exposure["version"].astype("string").fillna(UNKNOWN_VERSION)
    worst = crashes.groupby(named).sum().idxmax()
    here = named == worst
    everything = count(int(crashes.sum()), "crash", "crashes")
    if here.all():
        return f"All {_days(float(days.sum()))} and {everything} are on {module} {worst}"
    part = f"{crashes[here].sum():,} of {crashes.sum():,} {module} crashes"
    return f"{worst} took {part} in {share(days[here].sum(), days.sum())} of the host-days"


@_styled
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
    dated = _dated(exposure)
    if version is not None:
        dated = dated[(dated["version"] == version).fillna(False)]
    if dated.empty:
        columns = ["week", "crashes", "host_days", "rate", "low", "high"]
        return _nothing(
            ax,
            "No host-days to show a weekly rate of",
            "No stretch with a start and an end matches.",
            columns,
            simulated,
        )
    weekly = _weekly(dated).groupby("week", as_index=False)[["host_days", "crashes"]].sum()
    table = _yearly(weekly.assign(week=weekly["week"].astype("string")), "week")
    table["week"] = pd.to_datetime(table["week"])
    chart = _axes(ax, legend=False)
    middle = table["week"] + pd.Timedelta(days=3.5)
    seen = table["crashes"] > 0
    chart.vlines(
        middle, table["low"], table["high"], color=[SOFT if crashed else PALE for crashed in seen], linewidth=1.5
    )
    chart.plot(middle[seen], table.loc[seen, "rate"], linestyle="", marker="o", color=PALETTE[1], markersize=5)
    overall = DAYS_A_YEAR * table["crashes"].sum() / table["host_days"].sum()
    chart.axhline(overall, color=INK, linewidth=1, linestyle="--")
    # A week of few host-days has an interval that would flatten all others.
    chart.set_ylim(0, max(2 * float(table["rate"].max()), float(table["high"].median())))
    chart.set_ylabel("Crashes per host-year")
    chart.set_xlabel("Week (UTC)")
    _time_axis(chart)
    what = f"{_module_of(exposure)} {version}" if version else _module_of(exposure)
    weeks = f"{seen.sum():,} of {count(len(table), 'week')} saw one"
    caption = (
        f"{_evidence(dated)}. Lines: Garwood 95 % intervals of each week, grey where it had no crash, cut at "
        "the top; dashed: the whole time."
    )
    return _finish(chart, f"{what}: {figure(overall)} crashes per host-year; {weeks}", caption, table, simulated)


@_styled
def plot_host_days(
    exposure: pd.DataFrame,
    uptimes: pd.DataFrame | None = None,
    *,
    by: str = "cluster",
    simulated: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Host-days by loaded version, one stacked bar a group; unknown versions and unwatched time are drawn, not dropped.

    Parameters
    ----------
    exposure : pandas.DataFrame
        Exposure table.
    uptimes : pandas.DataFrame, optional
        The fleet's ``uptimes``: gives the time that a boot lasted and no evidence covers.
    by : str
        Column of ``exposure`` to group by (``cluster``, ``model``, ``esxi_build``); where it holds nothing, one bar for
        all.
    simulated, ax
        As for ``plot_rollout``.

    Returns
    -------
    matplotlib.axes.Axes
        ``numbers(ax)``: ``group``, ``version`` ("version unknown", "not watched" included), ``host_days``.
    """
    if not len(exposure) or not exposure["host_days"].sum() > 0:
        return _nothing(
            ax,
            "No host-days at all",
            "No stretch of any boot is covered by evidence.",
            ["group", "version", "host_days"],
            simulated,
        )
    table = _grouped_days(exposure, uptimes, by)
    colours = version_colours(exposure["version"])
    groups = _in_order(table["group"])
    chart = _axes(ax, 0.9 + 0.34 * len(groups), groups)
    wide = table.pivot(index="group", columns="version", values="host_days").reindex(groups).fillna(0)
    left = np.zeros(len(groups))
    for name in _stack_order(table["version"]):
        chart.barh(range(len(groups)), wide[name], left=left, height=0.74, linewidth=0.5, **_fill(name, colours))
        left += wide[name].to_numpy()
    _rows(chart, groups)
    chart.set_xlabel("Host-days")
    chart.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    _legend(chart, [_patch(name, colours) for name in _stack_order(table["version"])], "Version loaded")
    alone = " (no group is known)" if groups == [EVERYTHING] else ""
    caption = f"{_evidence(exposure)}{alone}. {_blind_words(table, uptimes)}"
    return _finish(chart, _host_days_finding(table), caption, table, simulated)


def _grouped_days(exposure: Table, uptimes: Table | None, by: str) -> Table:
    group = _column(exposure, by).astype("string")
    group = group.fillna(f"no {by} known") if group.notna().any() else group.fillna(EVERYTHING)
    version = _lumped(exposure["version"], exposure["host_days"])
    keyed = pd.DataFrame({"group": group, "version": version, "host_days": exposure["host_days"]})
    if uptimes is not None and len(uptimes):
        home = pd.Series(group.to_numpy(), index=exposure["host"].to_numpy()).groupby(level=0).first()
        blind = ((uptimes["uptime"] - uptimes["observed"]) / pd.Timedelta(days=1)).clip(lower=0)
        gaps = pd.DataFrame(
            {
                "group": uptimes["host"].map(home).astype("string"),
                "version": NOT_WATCHED,
                "host_days": blind.astype(float),
            }
        )
        keyed = pd.concat([keyed, gaps.dropna()], ignore_index=True)
    table = keyed.groupby(["group", "version"], as_index=False)["host_days"].sum()
    return table[table["host_days"] > 0].reset_index(drop=True)


def _blind_words(table: Table, uptimes: Table | None) -> str:
    if uptimes is None:
        return "Time that no evidence covers is not shown."
    blind = table.loc[table["version"] == NOT_WATCHED, "host_days"].sum()
    return f"Not watched: a boot lasted {_days(float(blind))} longer than evidence covers; these are in no rate."


def _host_days_finding(table: Table) -> str:
    total = table.groupby("version")["host_days"].sum()
    watched = total.drop(NOT_WATCHED, errors="ignore")
    most = watched.drop([UNKNOWN_VERSION, OTHERS], errors="ignore")
    unknown = watched.get(UNKNOWN_VERSION, 0.0)
    if most.empty:
        return f"Which version was loaded is unknown for all {_days(float(watched.sum()))}"
    first = f"{most.idxmax()} has {share(most.max(), watched.sum())} of {_days(float(watched.sum()))}"
    return f"{first}; for {share(unknown, watched.sum())} the version is unknown" if unknown else first


def _rows(ax: Any, names: Sequence[str]) -> None:
    # One name a row, read from the top.
    ax.set_yticks(range(len(names)), [_label(name) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.grid(False, axis="y")


# --- rates and ratios -----------------------------------------------------------------------------------------------


@_styled
def plot_rates(rates: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Crash rates per host-year with intervals, the naive count ghosted beside each.

    A group without a crash is shown by its one-sided 95 % upper bound, an open triangle that points to lower rates.

    Parameters
    ----------
    rates : pandas.DataFrame
        What ``crash_rates`` gives: the group as index, ``crashes``, ``host_days``, and per host-day ``rate``, ``low``,
        ``high``, ``upper_at_zero``.
    simulated, ax
        As for ``plot_rollout``.

    Returns
    -------
    matplotlib.axes.Axes
        ``numbers(ax)``: ``group``, ``crashes``, ``host_days``, and per host-year ``rate``, ``low``, ``high``,
        ``upper_at_zero``.
    """
    table = _per_host_year(rates)
    if table.empty:
        return _nothing(
            ax, "No rate can be given", "No group has any host-day at risk.", list(table.columns), simulated
        )
    names = list(table["group"])
    chart = _axes(ax, 0.9 + 0.42 * len(names), names)
    colours = version_colours(names)
    for y, row in enumerate(table.itertuples()):
        _rate_row(chart, y, row, colours.get(row.group, QUIET[UNKNOWN_VERSION][0]))
    _rows(chart, names)
    reach = _reach(table)
    chart.set_xlim(0, reach)
    chart.set_xlabel("Crashes per host-year")
    _ghost_counts(chart, table, reach)
    marks = [
        Line2D([], [], color=INK, marker="o", label="rate, 95 % interval"),
        Patch(facecolor="#efefef", edgecolor=PALE, label="bare count"),
    ]
    if (table["crashes"] == 0).any():
        marks.append(
            Line2D(
                [], [], color=INK, marker="<", markerfacecolor=PAPER, linestyle=":", label="no crash: 95 % upper bound"
            )
        )
    _legend(chart, marks)
    total = _days(float(table["host_days"].sum()))
    crashes = count(int(table["crashes"].sum()), "crash", "crashes")
    caption = (
        f"{crashes} in {total}; Garwood 95 % intervals. The grey bars are the bare counts on their own scale: they "
        "mostly show where the host-days are."
    )
    return _finish(chart, _rates_finding(table), caption, table, simulated)


def _per_host_year(rates: Table) -> Table:
    table = rates.reset_index() if rates.index.name is not None else rates.reset_index(drop=True)
    measured = ["crashes", "host_days", "rate", "low", "high", "upper_at_zero"]
    by = [name for name in table.columns if name not in measured and not str(name).endswith("crashes")][:1]
    out = pd.DataFrame(
        {"group": table[by[0]].astype("string").fillna(UNKNOWN_VERSION) if by else pd.Series("all", index=table.index)}
    )
    for name in measured:
        values = pd.to_numeric(table[name]).astype("float64") if name in table else np.nan
        out[name] = values if name in ("crashes", "host_days") else values * DAYS_A_YEAR
    out = out[out["host_days"] > 0]
    return out.sort_values(
        "group", key=lambda names: names.map({name: i for i, name in enumerate(_stack_order(names))})
    ).reset_index(drop=True)


def _rate_row(ax: Any, y: int, row: Any, colour: str) -> None:
    if row.crashes:
        ax.plot([row.low, row.high], [y, y], color=colour, linewidth=2.4, solid_capstyle="butt", gid="interval")
        ax.plot([row.rate], [y], marker="o", markersize=7, color=colour, markeredgecolor=PAPER)
    elif known(row.upper_at_zero):
        ax.plot([0, row.upper_at_zero], [y, y], color=colour, linewidth=1.6, linestyle=":", gid="interval")
        ax.plot(
            [row.upper_at_zero],
            [y],
            marker="<",
            markersize=7,
            markerfacecolor=PAPER,
            markeredgecolor=colour,
            gid="upper bound",
        )
    note = f"{count(int(row.crashes), 'crash', 'crashes')} in {_days(row.host_days)}"
    ax.annotate(
        note,
        (1, y),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 9),
        textcoords="offset points",
        ha="right",
        fontsize=7.5,
        color=SOFT,
    )


def _reach(table: Table) -> float:
    # Far enough for every rate and for most intervals; one group of few days must not flatten the others.
    highs = table["high"].where(table["crashes"] > 0, table["upper_at_zero"]).dropna()
    if highs.empty:
        return 1.0
    wanted = max(float(table["rate"].max()) * 1.5, float(highs.median()) * 2.5)
    return min(float(highs.max()), wanted) * 1.12


def _ghost_counts(ax: Any, table: Table, reach: float) -> None:
    most = max(float(table["crashes"].max()), 1.0)
    ax.barh(
        range(len(table)),
        table["crashes"] / most * reach * 0.9,
        height=0.8,
        color="#efefef",
        edgecolor=PALE,
        linewidth=0.6,
        zorder=0.5,
        gid="count",
    )


def _rates_finding(table: Table) -> str:
    crashed = table[table["crashes"] > 0]
    if crashed.empty:
        best = table.loc[table["upper_at_zero"].idxmin()]
        bound = f"the tightest bound is {figure(best['upper_at_zero'])} per host-year ({best['group']})"
        return f"No crash in {_days(float(table['host_days'].sum()))}: {bound}"
    top = crashed.loc[crashed["rate"].idxmax()]
    first = f"{top['group']}: {figure(top['rate'])} crashes per host-year ({between(top['low'], top['high'])})"
    others = table.drop(index=top.name)
    if others.empty:
        return f"{first}; there is nothing to compare it with"
    ceiling = others["high"].where(others["crashes"] > 0, others["upper_at_zero"])
    below = list(others.loc[ceiling < top["low"], "group"])
    if len(below) == len(others):
        return f"{first}, and its interval lies above every other"
    if below:
        return f"{first}; its interval lies above that of {listing(below, 3)}, not of every other"
    return f"{first}, the highest; but intervals overlap, so this ranks nothing"


@_styled
def plot_ratio(ratios: RateRatio | Sequence[RateRatio], *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Forest plot of a rate ratio: headline, known crashes only, with unknown, worst case, crude, other adjustments.

    Parameters
    ----------
    ratios : RateRatio or sequence of RateRatio
        What ``rate_ratio`` gives, or ``PinDecision.ratios``. Several are drawn one below the other.
    simulated, ax
        As for ``plot_rollout``.

    Returns
    -------
    matplotlib.axes.Axes
        ``numbers(ax)``: ``contrast``, ``estimate``, ``ratio``, ``low``, ``high``; NaN where there is no
        information, inf where unbounded.
    """
    several: Any = [ratios] if hasattr(ratios, "reference") else list(ratios)
    table = pd.DataFrame([row for one in several for row in _forest(one)], columns=FOREST_COLUMNS)
    if len(several) > 1:
        table = table[table["estimate"].isin(MAIN_ESTIMATES)].reset_index(drop=True)
    if table.empty:
        remedy = "Two versions with host-days are needed for a ratio."
        return _nothing(ax, "No two versions to compare", remedy, FOREST_COLUMNS, simulated)
    names = list(table["estimate"] if len(several) == 1 else _grouped_names(table))
    chart = _axes(ax, 0.8 + 0.3 * len(names), names, legend=False)
    chart.set_xscale("log")
    low, high = _ratio_limits(table)
    chart.set_xlim(low, high)
    for y, row in enumerate(table.itertuples()):
        _forest_row(chart, y, row, low, high)
    chart.axvline(1, color=INK, linewidth=1)
    _rows(chart, names)
    chart.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    chart.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    chart.xaxis.set_minor_locator(NullLocator())
    chart.tick_params(axis="y", pad=9)
    references = {one.reference for one in several}
    whose = f"{several[0].reference}'s" if len(references) == 1 else "the second version's"
    chart.set_xlabel(_text(f"Crash rate as a multiple of {whose} (log scale)"))
    return _finish(chart, _ratio_finding(several), _ratio_caption(several), table, simulated)


def _forest(ratio: RateRatio) -> list[tuple[Any, ...]]:
    estimates = [
        ("headline", (ratio.ratio, ratio.low, ratio.high)), ("known crashes only", ratio.known_only),
        ("with unknown crashes", ratio.with_unknown), ("worst cases of unknown", ratio.adversarial),
        ("crude", ratio.crude), ("Mantel–Haenszel by model", ratio.mantel_haenszel), *ratio.sensitivity,
    ]  # fmt: skip
    return [
        (f"{ratio.version} / {ratio.reference}", name, *(float(x) for x in interval)) for name, interval in estimates
    ]


def _grouped_names(table: Table) -> Iterable[str]:
    # With several contrasts, the first row of each bears the contrast's name.
    for row in table.itertuples():
        yield f"{row.contrast}: headline" if row.estimate == "headline" else row.estimate


def _ratio_limits(table: Table) -> tuple[float, float]:
    # All that is finite, 1 always, and never more than three powers of ten to a side.
    values = table[["ratio", "low", "high"]].to_numpy(dtype=float).ravel()
    finite = values[np.isfinite(values) & (values > 0)]
    low, high = (min(finite.min(), 0.5), max(finite.max(), 2.0)) if len(finite) else (0.1, 10.0)
    return max(low / 1.4, 1e-3), min(high * 1.4, 1e3)


def _forest_row(ax: Any, y: int, row: Any, low: float, high: float) -> None:
    first = row.estimate == "headline"
    colour = PALETTE[0] if first else SOFT
    if np.isnan(row.low) or np.isnan(row.high) or (row.low <= 0 and np.isinf(row.high)):
        ax.annotate(
            "no information", (1, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8, color=SOFT
        )
        return
    ends = max(row.low, low), min(row.high, high)
    ax.plot(ends, [y, y], color=colour, linewidth=3 if first else 1.6, solid_capstyle="butt", gid="interval")
    # An end beyond the page, or nowhere, is an arrow.
    for end, edge, marker in ((row.low, low, "<"), (row.high, high, ">")):
        if (marker == "<" and end < edge) or (marker == ">" and end > edge):
            ax.plot([edge], [y], marker=marker, markersize=7, color=colour, clip_on=False, gid="beyond")
    if low <= row.ratio <= high:
        ax.plot([row.ratio], [y], marker="D" if first else "o", markersize=8 if first else 5, color=colour, gid="ratio")


def _ratio_finding(ratios: Sequence[RateRatio]) -> str:
    decided = [one for one in ratios if one.low > 1 or one.high < 1]
    if len(ratios) > 1:
        pairs = listing((f"{one.version} against {one.reference}" for one in decided), 3)
        which = f"{len(decided)} of {len(ratios)} intervals exclude equal rates ({pairs}), before"
        none = f"None of {len(ratios)} intervals excludes equal rates, even before"
        return f"{which if decided else none} correction for their number"
    one = (decided or list(ratios))[0]
    certainty = f"{100 * (1 - one.alpha):g}\u00a0% interval {between(one.low, one.high)}"
    if decided:
        word = "more" if one.low > 1 else "less"
        times = figure(one.ratio) if known(one.ratio) else "no information"
        return f"{one.version} crashes {word} often than {one.reference}: {times} times its rate ({certainty})"
    if np.isinf(one.high) and one.low <= 0:
        return f"Nothing can be said yet of {one.version} against {one.reference}"
    return f"Open whether {one.version} crashes more or less often than {one.reference} ({certainty})"


def _ratio_caption(ratios: Sequence[RateRatio]) -> str:
    parts = []
    for one in ratios:
        arms = [
            f"{name} {count(int(crashes), 'crash', 'crashes')} in {_days(days)} on {_hosts(hosts)}"
            for name, crashes, days, hosts in zip(
                (one.version, one.reference), one.crashes, one.host_days, one.hosts, strict=True
            )
        ]
        parts.append(f"{arms[0]}, {arms[1]} ({one.method.replace('_', ' ')})")
    return f"{'; '.join(parts)}. Arrows: the interval goes on, or has no end."


# --- uptime ---------------------------------------------------------------------------------------------------------


@_styled
def plot_uptime_at_crash(exposure: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Share of crashes beside share of host-days, by band of uptime.

    If uptime did not matter, the two bars of each band would be alike.

    Parameters
    ----------
    exposure : pandas.DataFrame
        Exposure table with ``uptime_start``; a crash ends its stretch.
    simulated, ax
        As for ``plot_rollout``.

    Returns
    -------
    matplotlib.axes.Axes
        ``numbers(ax)``: ``band``, ``version``, ``host_days``, ``crashes``.
    """
    table = _banded(exposure)
    if table.empty:
        return _nothing(
            ax,
            "Uptime at crash is not known",
            "No stretch says how long its boot had run.",
            list(table.columns),
            simulated,
        )
    bands = list(dict.fromkeys(table["band"]))
    crashes, days = table["crashes"].sum(), table["host_days"].sum()
    colours = version_colours(exposure["version"])
    chart = _axes(ax, 3.2)
    at_risk = table.groupby("band")["host_days"].sum().reindex(bands)
    chart.bar(np.arange(len(bands)) - 0.2, 100 * at_risk / days, width=0.38, color=PALE, gid="host-days")
    bottom = np.zeros(len(bands))
    for name in _stack_order(table["version"]):
        part = (
            table[table["version"] == name].set_index("band")["crashes"].reindex(bands).fillna(0).to_numpy(dtype=float)
        )
        heights = 100 * part / max(crashes, 1)
        chart.bar(
            np.arange(len(bands)) + 0.2, heights, width=0.38, bottom=bottom, linewidth=0.5, **_fill(name, colours)
        )
        bottom += heights
    _band_notes(chart, bands, 100 * at_risk.to_numpy() / days, at_risk.to_numpy(), bottom, table)
    chart.set_ylabel("Share of all (%)")
    chart.set_xlabel("Uptime of the boot (days)")
    with_crash = [
        name for name in _stack_order(table["version"]) if table.loc[table["version"] == name, "crashes"].any()
    ]
    _legend(
        chart,
        [Patch(facecolor=PALE, label="host-days at risk"), *(_patch(name, colours) for name in with_crash)],
        "Grey: time. Colour: crashes",
    )
    caption = (
        f"{_evidence(exposure)}. Each pair: share of the host-days and share of the crashes at that uptime; alike "
        "means that uptime does not matter."
    )
    return _finish(chart, _uptime_finding(table), caption, table, simulated)


def _banded(exposure: Table) -> Table:
    # band, version, host_days, crashes in the order of bands; only bands that any host reached.
    aged = exposure.assign(uptime_start=_column(exposure, "uptime_start"))
    aged = _dated(aged[aged["uptime_start"].notna()])
    if aged.empty:
        return pd.DataFrame(columns=["band", "version", "host_days", "crashes"])
    from psodlib.risk.survival import hazard_by_uptime  # brings scipy, which most charts do without

    table: Table = hazard_by_uptime(aged.assign(version=_lumped(aged["version"], aged["host_days"])))
    table = table.rename(columns={"uptime": "band"})[["band", "version", "host_days", "crashes"]]
    return table.sort_values("band", key=_natural_ranks, kind="stable", ignore_index=True)


def _natural_ranks(names: Column) -> Column:
    return names.map({name: rank for rank, name in enumerate(_in_order(names))})


def _band_notes(ax: Any, bands: Sequence[str], time_tops: Any, days: Any, crash_tops: Any, table: Table) -> None:
    ax.set_xticks(range(len(bands)), bands)
    ax.grid(False, axis="x")
    crashes = table.groupby("band")["crashes"].sum().reindex(bands).to_numpy()
    for x in range(len(bands)):
        for place, top, note in (
            (x - 0.2, time_tops[x], f"{days[x]:,.0f} d"),
            (x + 0.2, crash_tops[x], f"{crashes[x]:,}"),
        ):
            ax.annotate(
                note, (place, top), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7.5, color=SOFT
            )


def _uptime_finding(table: Table) -> str:
    sums = table.groupby("band", sort=False)[["host_days", "crashes"]].sum()
    total = int(sums["crashes"].sum())
    if not total:
        return f"No crash at any uptime in {_days(float(sums['host_days'].sum()))}"
    if total < FEW:
        return f"{count(total, 'crash', 'crashes')}: too few to say at what uptime hosts crash"
    shares = sums / sums.sum()
    excess = (shares["crashes"] - shares["host_days"]).idxmax()
    crashes, time = (share(sums.loc[excess, name], sums[name].sum()) for name in ("crashes", "host_days"))
    return f"{crashes} of {total:,} crashes fell at {excess} days of uptime, where {time} of the time was spent"


@_styled
def plot_hazard(hazard: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Crashes per host-year by band of uptime and version, with Garwood 95 % intervals.

    Parameters
    ----------
    hazard : pandas.DataFrame
        What ``risk.survival.hazard_by_uptime`` gives.
    simulated, ax
        As for ``plot_rollout``.

    Returns
    -------
    matplotlib.axes.Axes
        ``numbers(ax)``: ``version``, ``uptime``, ``crashes``, ``host_days``, and per host-year ``rate``, ``low``,
        ``high``.
    """
    if hazard.empty:
        remedy = "No stretch says how long its boot had run."
        return _nothing(ax, "No hazard by uptime", remedy, list(hazard.columns), simulated)
    yearly = {name: hazard[name] * DAYS_A_YEAR for name in ("rate", "low", "high")}
    table: Table = hazard.assign(**yearly).rename(columns={hazard.columns[0]: "version"})
    bands, versions = _in_order(table["uptime"]), _in_order(table["version"])
    colours = version_colours(versions)
    chart = _axes(ax, 3.2)
    step = min(0.16, 0.8 / len(versions))
    for i, name in enumerate(versions):
        rows = table[table["version"] == name]
        crashed = (rows["crashes"] > 0).to_numpy(dtype=bool)
        xs = np.array([bands.index(band) for band in rows["uptime"]]) + (i - (len(versions) - 1) / 2) * step
        # Without a crash there is no rate to mark, only how high it may be.
        lines = ["solid" if some else "dotted" for some in crashed]
        chart.vlines(xs, rows["low"], rows["high"], color=colours[name], linewidth=2, linestyles=lines, gid="interval")
        rates = rows.loc[crashed, "rate"]
        chart.plot(
            xs[crashed], rates, linestyle="", marker="o", markersize=6, color=colours[name], markeredgecolor=PAPER
        )
    chart.set_xticks(range(len(bands)), bands)
    chart.grid(False, axis="x")
    tops = table.loc[table["crashes"] > 0, "high"]
    chart.set_ylim(0, 1.1 * float(tops.quantile(0.9)) if len(tops) else None)
    chart.set_ylabel("Crashes per host-year")
    chart.set_xlabel("Uptime of the boot (days)")
    _legend(chart, [_patch(name, colours) for name in versions[:MOST_LEGEND]], "Version loaded")
    total = f"{count(int(table['crashes'].sum()), 'crash', 'crashes')} in {_days(float(table['host_days'].sum()))}"
    caption = (
        f"{total}. Lines: Garwood 95 % intervals, cut at the top; dotted without a crash. Hosts prone to crash leave "
        "the long uptimes early, so a flat or falling course is no proof that uptime is harmless."
    )
    return _finish(chart, _hazard_finding(table, bands), caption, table, simulated)


def _hazard_finding(table: Table, bands: Sequence[str]) -> str:
    if not table["crashes"].sum():
        return f"No crash at any uptime in {_days(float(table['host_days'].sum()))}"
    worst = table.groupby("version")["crashes"].sum().idxmax()
    rows = (
        table[(table["version"] == worst) & (table["crashes"] > 0)]
        .set_index("uptime")
        .reindex(bands)
        .dropna(subset=["rate"])
    )
    if rows["crashes"].sum() < FEW or len(rows) < 2:
        return f"{worst}: {count(int(rows['crashes'].sum()), 'crash', 'crashes')}, too few to show a course over uptime"
    first, last = rows.iloc[0], rows.iloc[-1]
    course = (
        "rises" if last["low"] > first["high"] else "falls" if last["high"] < first["low"] else "shows no clear course"
    )
    ends = f"{figure(first['rate'])} per host-year at {rows.index[0]} days, {figure(last['rate'])} at {rows.index[-1]}"
    return f"The crash rate of {worst} {course} with uptime: {ends}"


@_styled
def plot_survival(survival: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Share of boots that the driver has crashed by an uptime, by version, with 95 % bands.

    Parameters
    ----------
    survival : pandas.DataFrame
        What ``time_to_crash`` gives.
    simulated, ax
        As for ``plot_rollout``.

    Returns
    -------
    matplotlib.axes.Axes
        ``numbers(ax)``: the table, as far as it is drawn.

    Notes
    -----
    Solid with its band: 1 - Kaplan-Meier, as if nothing but the driver could end a boot. Dashed: Aalen-Johansen, the
    share of boots that the driver does end where reboots and other crashes come first. Drawn while 10 boots are
    under watch.
    """
    by = str(survival.columns[0])
    table: Table = survival[survival["at_risk"] >= MANY_AT_RISK]
    table = table[table.groupby(by)["days"].transform("count") > 1]
    if table.empty:
        remedy = f"At no uptime were {MANY_AT_RISK} boots under watch; a curve of fewer would be anecdote."
        return _nothing(ax, "No curve of time to crash", remedy, list(survival.columns), simulated)
    names = _in_order(table[by])
    colours = version_colours(survival[by])
    chart = _axes(ax)
    for name in names:
        rows = table[table[by] == name]
        steps: Any = {"where": "post", "color": colours[name]}
        chart.fill_between(
            rows["days"], 100 * (1 - rows["high"]), 100 * (1 - rows["low"]), step="post", alpha=0.18, linewidth=0,
            color=colours[name], gid="interval",
        )  # fmt: skip
        chart.step(rows["days"], 100 * (1 - rows["survival"]), linewidth=2, **steps)
        chart.step(rows["days"], 100 * rows["incidence"], linewidth=1, linestyle="--", **steps)
    chart.set_xlim(0, None)
    chart.set_ylim(0, max(2.0, 115 * float((1 - table["survival"]).max())))
    chart.set_ylabel("Boots crashed by the driver (%)")
    chart.set_xlabel("Uptime of the boot (days)")
    kinds = [
        Line2D([], [], color=SOFT, label="were there no other end"),
        Line2D([], [], color=SOFT, ls="--", label="with reboots"),
    ]
    _legend(chart, [*(_patch(name, colours) for name in names), *kinds], by.replace("_", " ").capitalize())
    ends = ", ".join(
        f"{name} {count(int(rows['crashes'].sum()), 'crash', 'crashes')}" for name, rows in table.groupby(by)
    )
    caption = (
        f"{ends}; drawn while {MANY_AT_RISK} boots are under watch. Bands: 95 % (log-log). Boots are conditional on "
        "having reached the uptime where a curve begins."
    )
    return _finish(chart, _survival_finding(table, by), caption, table, simulated)


def _survival_finding(table: Table, by: str) -> str:
    # All curves are read at one uptime, the longest that all of them reach.
    at = float(table.groupby(by)["days"].max().min())
    last = table[table["days"] <= at].groupby(by).tail(1).set_index(by)
    if not last["crashes"].sum() and (last["survival"] == 1).all():
        return f"No boot was crashed by the driver within {figure(at)} days of uptime"
    worst = last["survival"].idxmin()
    row = last.loc[worst]
    spread = between(100 * (1 - row["high"]), 100 * (1 - row["low"]))
    crashed = f"{figure(100 * (1 - row['survival']))}\u00a0% ({spread})"
    return f"Within {at:.0f} days of uptime the driver crashes {crashed} of boots on {worst}"


# --- who and where --------------------------------------------------------------------------------------------------


@_styled
def plot_modules(crashes: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Crashes by guilty module, stacked by the kind of evidence against it.

    Parameters
    ----------
    crashes : pandas.DataFrame
        The fleet's ``crashes``.
    simulated, ax
        As for ``plot_rollout``.

    Returns
    -------
    matplotlib.axes.Axes
        ``numbers(ax)``: ``module`` ("no module found" included), ``guilt``, ``crashes``.
    """
    columns = ["module", "guilt", "crashes"]
    if crashes.empty:
        return _nothing(ax, "No crash was found", "So there is no module to name.", columns, simulated)
    named = pd.DataFrame({
        "module": crashes["guilty_module"].astype("string").fillna(NO_MODULE),
        "guilt": crashes["guilt"].astype("string").fillna("none"),
    })  # fmt: skip
    table = named.groupby(["module", "guilt"], as_index=False).size().rename(columns={"size": "crashes"})
    totals = table.groupby("module")["crashes"].sum().sort_values(ascending=False, kind="stable")
    shown = [
        *(name for name in totals.index[:MOST_ROWS] if name != NO_MODULE),
        *([NO_MODULE] if NO_MODULE in totals else []),
    ]
    chart = _axes(ax, 0.8 + 0.32 * len(shown), shown)
    wide = table.pivot(index="module", columns="guilt", values="crashes").reindex(shown).fillna(0)
    left = np.zeros(len(shown))
    kinds = [kind for kind in GUILT_COLOURS if kind in wide]
    for kind in kinds:
        chart.barh(
            range(len(shown)),
            wide[kind],
            left=left,
            height=0.72,
            color=GUILT_COLOURS[kind],
            edgecolor=PAPER,
            linewidth=0.5,
        )
        left += wide[kind].to_numpy()
    for y, height in enumerate(left):
        place: Any = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
        chart.annotate(f"{height:,.0f}", (height, y), fontsize=8.5, color=SOFT, **place)
    _rows(chart, shown)
    chart.xaxis.set_major_locator(MaxNLocator(integer=True))
    chart.set_xlabel("Crashes")
    chart.set_xlim(0, float(left.max()) * 1.08)
    _legend(
        chart,
        [Patch(facecolor=GUILT_COLOURS[kind], label=kind.replace("_", " ")) for kind in kinds],
        "Evidence against it",
    )
    hidden = len(totals) - len(shown)
    more = f" {count(hidden, 'further module')} with fewer crashes not drawn." if hidden > 0 else ""
    total = f"{count(len(crashes), 'crash', 'crashes')} on {_hosts(crashes['host'].nunique())}"
    caption = f"{total}. Counts rank no driver: they know no host-days.{more}"
    return _finish(chart, _modules_finding(totals), caption, table.sort_values(["module", "guilt"]), simulated)


def _modules_finding(totals: Column) -> str:
    everything = int(totals.sum())
    unnamed = int(totals.get(NO_MODULE, 0))
    named = totals.drop(NO_MODULE, errors="ignore")
    if named.empty:
        return f"No module could be named for any of {count(everything, 'crash', 'crashes')}"
    first = f"{named.index[0]} is the guilty module of {named.iloc[0]:,} of {count(everything, 'crash', 'crashes')}"
    return f"{first}; {unnamed:,} {'names' if unnamed == 1 else 'name'} no module" if unnamed else first


@_styled
def plot_fleet_map(exposure: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """One tile a host in its cluster's row, coloured by the version last loaded; a number counts its crashes.

    Parameters
    ----------
    exposure : pandas.DataFrame
        Exposure table.
    simulated, ax
        As for ``plot_rollout``.

    Returns
    -------
    matplotlib.axes.Axes
        ``numbers(ax)``: ``cluster``, ``host``, ``version``, ``crashes``, ``host_days``.
    """
    if exposure.empty:
        return _nothing(
            ax,
            "No host to show",
            "No host has a host-day at risk.",
            ["cluster", "host", "version", "crashes", "host_days"],
            simulated,
        )
    table = _last_loaded(exposure)
    colours = version_colours(exposure["version"])
    lines = _map_lines(table)
    chart = _axes(ax, 0.6 + 0.26 * len(lines), [name for name, _ in lines])
    widest = max(len(hosts) for _, hosts in lines)
    for y, (_, hosts) in enumerate(lines):
        for x, host in enumerate(hosts.itertuples()):
            chart.add_patch(Rectangle((x - 0.47, y - 0.42), 0.94, 0.84, linewidth=0.5, **_fill(host.shown, colours)))
            name = _text(host.host)[-NAME_IN_TILE:] if widest <= WIDE_TILES else ""
            number = f"{host.crashes:,}" if host.crashes else ""
            words = "  ×".join(filter(None, (name, number))) if name else number
            ink = INK if host.shown in QUIET else PAPER
            chart.text(x, y, words, ha="center", va="center", fontsize=8, fontweight="bold", color=ink, gid="host")
    _rows(chart, [name for name, _ in lines])
    chart.set_xlim(-0.5, widest - 0.5)
    chart.set_xticks([])
    chart.grid(False)
    chart.spines[["left", "bottom"]].set_visible(False)
    chart.set_xlabel("One tile is one host", loc="left")
    _legend(chart, [_patch(name, colours) for name in _stack_order(table["shown"])], "Version last loaded")
    total = _evidence(exposure)
    caption = f"{total}. The number in a tile counts the host's {_module_of(exposure)} crashes, on any version."
    return _finish(chart, _map_finding(table), caption, table.drop(columns="shown"), simulated)


def _last_loaded(exposure: Table) -> Table:
    # One row a host: its newest stretch's version and cluster, its crashes and host-days over all.
    ordered = exposure.sort_values("end", kind="stable") if "end" in exposure else exposure
    grouped = ordered.assign(_crashes=_counts(ordered, "crashes"), _cluster=_column(ordered, "cluster")).groupby(
        "host", as_index=False, sort=True
    )
    table = grouped.agg(cluster=("_cluster", "last"), crashes=("_crashes", "sum"), host_days=("host_days", "sum"))
    table["version"] = (
        ordered.drop_duplicates("host", keep="last").set_index("host")["version"].reindex(table["host"]).to_numpy()
    )
    table["version"] = table["version"].astype("string")
    table["cluster"] = table["cluster"].astype("string").fillna("no cluster known")
    table["shown"] = _lumped(table["version"], table["host_days"])
    order = {name: i for i, name in enumerate(_in_order(table["cluster"]))}
    table = table.sort_values("cluster", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    return table[["cluster", "host", "version", "crashes", "host_days", "shown"]]


def _map_lines(table: Table) -> list[tuple[str, Table]]:
    # A big cluster goes on in the next line, under no name.
    lines = []
    for name, hosts in table.groupby("cluster", sort=False):
        for at in range(0, len(hosts), MAP_WIDTH):
            lines.append((str(name) if at == 0 else " ", hosts.iloc[at : at + MAP_WIDTH]))
    return lines


def _map_finding(table: Table) -> str:
    known_version = table["version"].dropna()
    if known_version.empty:
        return f"Which version is loaded is unknown on all {_hosts(len(table))}"
    counted = known_version.value_counts()
    most, n = counted.index[0], int(counted.iloc[0])
    clusters = table.loc[(table["version"] == most).fillna(False), "cluster"].nunique()
    where = (
        f" in {clusters:,} of {count(table['cluster'].nunique(), 'cluster')}" if table["cluster"].nunique() > 1 else ""
    )
    crashed = _hosts(int((table["crashes"] > 0).sum()))
    return f"{most} was last loaded on {n:,} of {_hosts(len(table))}{where}; {crashed} crashed"


@_styled
def plot_ascertainment(
    crashes: pd.DataFrame,
    uptimes: pd.DataFrame,
    coverage: pd.DataFrame | None = None,
    *,
    simulated: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """How each month's stops are known: dump, log only, unexplained reboot; and below zero the hosts without any log.

    Parameters
    ----------
    crashes, uptimes : pandas.DataFrame
        The fleet's tables.
    coverage : pandas.DataFrame, optional
        The fleet's ``coverage``: says which hosts left no log in a month.
    simulated, ax
        As for ``plot_rollout``.

    Returns
    -------
    matplotlib.axes.Axes
        ``numbers(ax)``: ``month``, ``how`` (dump, log only, unexplained reboot, no logs), ``count`` (of stops; of hosts
        for "no logs").
    """
    table = _ascertained(crashes, uptimes, coverage)
    if table.empty:
        return _nothing(
            ax,
            "Nothing stopped, and no host was seen",
            "There is neither a crash nor a boot with a time.",
            list(table.columns),
            simulated,
        )
    chart = _axes(ax)
    months = pd.period_range(table["month"].min(), table["month"].max(), freq="M").strftime("%Y-%m")
    wide = table.pivot(index="month", columns="how", values="count").reindex(index=months, columns=list(HOW)).fillna(0)
    bottom = np.zeros(len(months))
    for how in list(HOW)[:3]:
        chart.bar(range(len(months)), wide[how], bottom=bottom, width=0.8, linewidth=0.5, **HOW[how])
        bottom += wide[how].to_numpy()
    chart.bar(range(len(months)), -wide["no logs"], width=0.8, linewidth=0.5, **HOW["no logs"])
    chart.axhline(0, color=SOFT, linewidth=0.8)
    chart.set_xlim(-0.6, max(len(months), 6) - 0.4)
    step = max(1, -(-len(months) // 12))
    chart.set_xticks(
        range(0, len(months), step),
        months[::step],
        rotation=0 if len(months) <= 8 else 35,
        ha="center" if len(months) <= 8 else "right",
    )
    chart.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{abs(y):,.0f}"))
    chart.yaxis.set_major_locator(MaxNLocator(integer=True))
    chart.set_ylabel("Hosts without logs  |  Stops" if wide["no logs"].any() else "Stops")
    chart.set_xlabel("Month (UTC)")
    shown = [how for how in HOW if wide[how].any()]
    _legend(chart, [Patch(label=how, **HOW[how]) for how in shown], "How it is known")
    doubt = count(int(wide["unexplained reboot"].sum()), "unexplained reboot")
    caption = (
        f"{count(len(crashes), 'crash', 'crashes')} and {doubt} of {_hosts(uptimes['host'].nunique())}. "
        "A reboot that nothing explains may be a crash whose dump and log were lost."
    )
    return _finish(chart, _ascertainment_finding(wide), caption, table, simulated)


def _ascertained(crashes: Table, uptimes: Table, coverage: Table | None) -> Table:
    dump = crashes["source"].astype("string").str.contains(DUMP_NAME, regex=True).fillna(False)
    parts = [
        pd.DataFrame({"month": _month(crashes["time"]), "how": np.where(dump, "dump", "log only")}),
        pd.DataFrame(
            {"month": _month(uptimes.loc[uptimes["end_reason"] == "unexplained", "end"]), "how": "unexplained reboot"}
        ),
        _silent(uptimes, coverage),
    ]
    table = pd.concat([part for part in parts if len(part)] or parts[:1]).dropna()
    table = table.groupby(["month", "how"], as_index=False).size().rename(columns={"size": "count"})
    return table.sort_values(["month", "how"], ignore_index=True)


def _month(times: Column) -> Column:
    return times.dt.strftime("%Y-%m").astype("string")


def _silent(uptimes: Table, coverage: Table | None) -> Table:
    # One row for each month, between a host's first and last sign of life, in which no evidence covers a moment of it.
    if coverage is None or coverage.empty:
        return pd.DataFrame({"month": pd.Series(dtype="string"), "how": pd.Series(dtype="string")})
    months = []
    for _, rows in coverage.dropna(subset=["start", "end"]).groupby("host"):
        first, last = (_serial(rows[edge]) for edge in ("start", "end"))
        watched = {month for low, high in zip(first, last, strict=True) for month in range(low, high + 1)}
        months += sorted(set(range(min(watched), max(watched) + 1)) - watched)
    return pd.DataFrame(
        {"month": pd.Series([f"{m // 12:04d}-{m % 12 + 1:02d}" for m in months], dtype="string"), "how": "no logs"}
    )


def _serial(times: Column) -> Column:
    return times.dt.year * 12 + times.dt.month - 1


def _ascertainment_finding(wide: Table) -> str:
    totals = wide.sum()
    stops = totals["dump"] + totals["log only"]
    if not stops:
        return f"No crash is on record; {count(totals['unexplained reboot'], 'reboot')} without an explanation"
    doubt = totals["unexplained reboot"]
    first = f"{totals['dump']:,.0f} of {count(stops, 'crash', 'crashes')} left a dump"
    return (
        f"{first}; {count(doubt, 'more stop')} {'is' if doubt == 1 else 'are'} unexplained"
        if doubt
        else f"{first}; no stop is unexplained"
    )


# --- one incident ---------------------------------------------------------------------------------------------------


@_styled
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
        return _nothing(
            ax,
            "No moment of this incident is known",
            "No fact about this host bears a time.",
            list(timeline.columns),
            simulated,
        )
    lanes = [lane for lane in LANES if (dated["lane"] == lane).any()]
    ends = dated["end"].fillna(dated["time"])
    reach = max(ends.max() - dated["time"].min(), pd.Timedelta(hours=1))
    chart = _axes(ax, 0.7 + 0.6 * len(lanes), lanes, legend=False)
    chart.set_xlim(dated["time"].min() - 0.03 * reach, ends.max() + 0.16 * reach)
    for y, lane in enumerate(lanes):
        _lane(chart, y, dated[dated["lane"] == lane], reach, LANE_COLOURS[lane])
    for time in dated.loc[dated["what"] == "crash", "time"]:
        chart.axvline(time, color=PALETTE[1], linewidth=1.2, zorder=0.6)
    _rows(chart, lanes)
    _time_axis(chart)
    chart.set_xlabel("Time (UTC)")
    facts = f"{count(len(dated), 'dated fact')} from {count(dated['source'].nunique(), 'file')}"
    caption = f"{facts}, {moment(dated['time'].min())} to {moment(ends.max())}. Bars last, points are moments."
    return _finish(chart, _incident_finding(dated), caption, dated, simulated)


def _lane(ax: Any, y: int, rows: Table, reach: pd.Timedelta, colour: str) -> None:
    # Bars for what lasts, points for moments; a point is named where it differs from the one before
    # and that one's name leaves room.
    free, said = rows["time"].min(), None
    for row in rows.itertuples():
        if known(row.end):
            ax.barh(y, row.end - row.time, left=row.time, height=0.34, color=colour, edgecolor=PAPER, gid=row.lane)
            continue
        marker = "X" if row.lane == "crash" else "o"
        ax.plot([row.time], [y], marker=marker, markersize=8, color=colour, markeredgecolor=PAPER, gid=row.lane)
        if row.time >= free and row.what != said:
            name, said = _label(row.what), row.what
            ax.annotate(
                name, (row.time, y), xytext=(0, 7), textcoords="offset points", ha="left", fontsize=8, color=INK
            )
            free = row.time + reach * 0.016 * len(name)


def _incident_finding(dated: Table) -> str:
    crash = dated[dated["what"] == "crash"]
    if crash.empty:
        return "The crash itself bears no time; around it this is known"
    time = crash["time"].iloc[0]
    boot = dated[(dated["lane"] == "boot") & (dated["time"] < time) & (dated["end"] >= time - pd.Timedelta(hours=2))]
    loaded = dated[
        (dated["lane"] == "driver") & dated["what"].str.endswith(" loaded").fillna(False) & (dated["time"] <= time)
    ]
    with_driver = f" with {loaded['what'].iloc[-1]}" if len(loaded) else ""
    after = f", {span(time - boot['time'].iloc[-1])} after boot" if len(boot) else ""
    return f"The host crashed on {moment(time)}{after}{with_driver}"


# --- what is still missing ------------------------------------------------------------------------------------------


@_styled
def plot_evidence_needed(
    decision: PinDecision, exposure: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None
) -> Axes:
    """Host-days gathered by each candidate over time, and the way still to go until a verdict could fall.

    Parameters
    ----------
    decision : PinDecision
        What ``decide_pin`` gives.
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
    dated = _dated(exposure)
    table = _still_needed(decision, dated)
    if dated.empty or table.empty:
        remedy = "Candidates and an exposure table with starts and ends are needed."
        return _nothing(ax, "How long a verdict will take is not known", remedy, list(table.columns), simulated)
    chart = _axes(ax)
    now, colours = dated["end"].max(), version_colours(exposure["version"])
    horizon = now + min(max(table["weeks"].fillna(0).max(), 4), MOST_WEEKS) * pd.Timedelta(weeks=1.04)
    entries = []
    for row in table.itertuples():
        rows = dated[(dated["version"] == row.version).fillna(False)]
        _gathered(chart, rows, dated["start"].min(), now, colours[row.version])
        if known(row.weeks) and row.weeks > 0:
            _way_to_go(chart, row, now, horizon, colours[row.version])
        entries.append(Line2D([], [], color=colours[row.version], label=_text(f"{row.version}: {_still_words(row)}")))
    chart.axvline(now, color=SOFT, linewidth=1, linestyle=":")
    chart.set_xlim(dated["start"].min(), horizon)
    chart.set_ylim(0, None)
    chart.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    chart.set_ylabel("Host-days gathered")
    chart.set_xlabel("Week (UTC)")
    _time_axis(chart)
    _legend(chart, entries, "Candidate")
    caption = (
        f"{_evidence(dated)} until {day(now)} (dotted). Dashed: at the pace of the last four weeks, and crashing as "
        "often as so far; the real need shifts with each crash."
    )
    return _finish(chart, _still_finding(table), caption, table, simulated)


def _still_needed(decision: PinDecision, dated: Table) -> Table:
    rows = []
    recent = dated["end"].max() - pd.Timedelta(weeks=4)
    for version, needed in decision.host_days_needed.items():
        here = dated[(dated["version"] == version).fillna(False)]
        late = here[here["end"] > recent]
        pace = float((late["end"] - late["start"].clip(lower=recent)).sum() / pd.Timedelta(days=1)) / 4
        weeks = 0.0 if needed == 0 else needed / pace if needed is not None and pace else None
        rows.append((version, float(here["host_days"].sum()), needed, pace, weeks))
    table = pd.DataFrame(rows, columns=["version", "host_days", "needed", "per_week", "weeks"])
    return table.astype({"version": "string", "needed": "Float64", "weeks": "Float64"})


def _gathered(ax: Any, rows: Table, begin: pd.Timestamp, now: pd.Timestamp, colour: str) -> None:
    # Host-days gathered until the end of each week.
    weeks = np.append(np.arange(0, (now - begin) / DAY, 7), (now - begin) / DAY)
    one = pd.Series("", index=rows.index)
    days = _days_in_bins(_in_days(rows["start"], begin), _in_days(rows["end"], begin), weeks, one)
    total = days.set_index("bin")["host_days"].reindex(range(len(weeks) - 1)).fillna(0).cumsum()
    ax.plot([begin + week * DAY for week in weeks], [0, *total], color=colour, linewidth=1.8, gid="gathered")


def _way_to_go(ax: Any, row: Any, now: pd.Timestamp, horizon: pd.Timestamp, colour: str) -> None:
    drawn = min(float(row.weeks), (horizon - now) / pd.Timedelta(weeks=1))
    end = now + drawn * pd.Timedelta(weeks=1)
    ax.plot(
        [now, end], [row.host_days, row.host_days + drawn * row.per_week], color=colour, linestyle="--", gid="to go"
    )
    if drawn == float(row.weeks):
        ax.plot(
            [end],
            [row.host_days + row.needed],
            marker="D",
            markersize=7,
            color=colour,
            markerfacecolor=PAPER,
            gid="verdict",
        )


def _still_words(row: Any) -> str:
    if not known(row.needed):
        return "no amount would do"
    if row.needed == 0:
        return "placed"
    more = f"{row.needed:,.0f} more host-days"
    return f"{more}\n({count(np.ceil(row.weeks), 'week')})" if known(row.weeks) else f"{more}\n(no host runs it now)"


def _still_finding(table: Table) -> str:
    if (table["needed"] == 0).fillna(False).all():
        return "Every candidate is placed: no further host-days are needed for this verdict"
    waiting = table[(table["weeks"] > 0).fillna(False)]
    if len(waiting):
        first = waiting.loc[waiting["weeks"].idxmin()]
        wait = count(np.ceil(first["weeks"]), "week")
        if first["weeks"] > MOST_WEEKS:
            wait = f"{first['weeks'] / 52:,.0f} years"
        return f"At today's pace a verdict could fall in {wait}, by way of {first['version']}"
    if (table["needed"] > 0).fillna(False).any():
        return "No verdict is under way: no host runs a candidate that lacks host-days"
    open_ones = listing(table.loc[table["needed"].isna(), "version"])
    return f"At the rates seen so far, no number of host-days on one version alone would place {open_ones}"


# --- for the caller -------------------------------------------------------------------------------------------------


def version_colours(versions: Iterable[Any]) -> dict[str, str]:
    """A colour for each version of a fleet, the same in every chart that is given the same versions.

    Parameters
    ----------
    versions : iterable of str
        Driver versions; repeats and unknown are passed over.

    Returns
    -------
    dict of str to str
        Version -> hex colour, in the order of versions.
    """
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(_in_order(versions)) if name not in QUIET}


def numbers(ax: Axes) -> pd.DataFrame:
    """The numbers that a chart shows: its table twin, for a CSV beside the picture.

    Parameters
    ----------
    ax : matplotlib Axes
        What a ``plot_*`` gave.

    Returns
    -------
    pandas.DataFrame
        Columns as the ``plot_*`` says; no rows when the chart says that something is missing.

    Raises
    ------
    InputError
        The Axes is not from a ``plot_*`` of this module.
    """
    table = getattr(ax, "psod_numbers", None)
    if table is None:
        raise InputError("these Axes hold no chart of psodlib; give what a plot_* function returned")
    return pd.DataFrame(table)


def save_chart(ax: Axes, path: str | Path) -> tuple[Path, Path]:
    """Write the figure of a chart as PNG at twice the screen's resolution, and as SVG.

    The figure is taken off pyplot's list, so that many charts do not pile up in memory; the Axes stay usable.

    Parameters
    ----------
    ax : matplotlib Axes
        What a ``plot_*`` gave.
    path : str or Path
        Where to, without or with the suffix ``.png`` or ``.svg``; the folder is made.

    Returns
    -------
    tuple of Path
        The PNG, the SVG. Same numbers, same bytes: no time stamp in either.
    """
    out = Path(path)
    stem = out.name.removesuffix(".png").removesuffix(".svg")
    out.parent.mkdir(parents=True, exist_ok=True)
    png, svg = out.with_name(f"{stem}.png"), out.with_name(f"{stem}.svg")
    figure_of: Any = ax.figure
    with plt.rc_context(STYLE):
        figure_of.savefig(png, dpi=2 * STYLE["figure.dpi"], bbox_inches="tight", metadata={"Software": None})
        figure_of.savefig(svg, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure_of)
    return png, svg
