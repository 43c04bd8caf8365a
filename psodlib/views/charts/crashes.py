"""Which module caused the crashes, and how it is known that a host stopped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from psodlib.triage.timeline import DUMP_NAME
from psodlib.views.charts import style
from psodlib.views.charts.style import Column, Table, styled
from psodlib.views.charts.sums import crashes_in_words, hosts_in_words
from psodlib.views.words import count

MOST_ROWS = 14  # modules drawn
NO_MODULE, NO_DRIVER = "no module found", "hardware, or asked for"
# From the strongest evidence to none: dark to pale.
GUILT_COLOURS = {
    "named_by_kernel": "#08306b", "on_stack": "#0072b2", "module_map": "#3f97c9", "symbol_prefix": "#86bfdf",
    "world_name": "#d7b5d8", "precursor_log": "#cc79a7", "hardware": "#e69f00", "deliberate": "#009e73",
    "none": "#b8b8b8",
}  # fmt: skip
HOW: dict[str, dict[str, Any]] = {
    "dump": {"facecolor": "#0072b2", "edgecolor": style.PAPER},
    "log only": {"facecolor": "#56b4e9", "edgecolor": style.PAPER},
    "no text": {"facecolor": "#cc79a7", "edgecolor": style.PAPER},
    "unexplained reboot": {"facecolor": "#e69f00", "edgecolor": style.PAPER},
    "no logs": {"facecolor": "#8a8a8a", "edgecolor": style.SOFT, "hatch": "////"},
}  # fmt: skip


@styled
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
        ``numbers(ax)``: ``module`` ("hardware, or asked for" and "no module found" included), ``guilt``, ``crashes``.
    """
    columns = ["module", "guilt", "crashes"]
    if crashes.empty:
        return style.nothing(ax, "No crash was found", "So there is no module to name.", columns, simulated)
    named = pd.DataFrame({
        "module": crashes["guilty_module"].astype("string").fillna(crashes["guilt"].map(_nobody).astype("string")),
        "guilt": crashes["guilt"].astype("string").fillna("none"),
    })  # fmt: skip
    table = named.groupby(["module", "guilt"], as_index=False).size().rename(columns={"size": "crashes"})
    totals = table.groupby("module")["crashes"].sum().sort_values(ascending=False, kind="stable")
    shown = [
        *(name for name in totals.index[:MOST_ROWS] if name not in (NO_MODULE, NO_DRIVER)),
        *(name for name in (NO_DRIVER, NO_MODULE) if name in totals),
    ]
    chart = style.new_axes(ax, 0.8 + 0.32 * len(shown), shown)
    fills = {
        kind: {"facecolor": colour, "edgecolor": style.PAPER}
        for kind, colour in GUILT_COLOURS.items()
        if kind in set(table["guilt"])
    }
    wide = style.spread(table, "module", "guilt", "crashes", shown, list(fills))
    left = style.stacked(chart, wide, fills, range(len(shown)), lying=True, height=0.72)
    for y, height in enumerate(left):
        place: Any = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
        chart.annotate(f"{height:,.0f}", (height, y), fontsize=style.SMALL, color=style.SOFT, **place)
    style.name_rows(chart, shown)
    chart.xaxis.set_major_locator(MaxNLocator(integer=True))
    chart.set_xlabel("Crashes")
    chart.set_xlim(0, float(left.max()) * 1.08)
    entries = [Patch(facecolor=GUILT_COLOURS[kind], label=kind.replace("_", " ")) for kind in fills]
    style.add_legend(chart, entries, "Evidence against it")
    hidden = len(totals) - len(shown)
    more = f" {count(hidden, 'further module')} with fewer crashes not drawn." if hidden > 0 else ""
    total = f"{crashes_in_words(len(crashes))} on {hosts_in_words(crashes['host'].nunique())}"
    caption = f"{total}. Counts rank no driver: they know no host-days.{more}"
    return style.finish(chart, _modules_finding(totals), caption, table.sort_values(["module", "guilt"]), simulated)


def _nobody(guilt: object) -> str:
    # That no driver did it is a finding, not a failure to find one.
    return NO_DRIVER if guilt in ("hardware", "deliberate") else NO_MODULE


def _modules_finding(totals: Column) -> str:
    everything = int(totals.sum())
    unnamed = int(totals.get(NO_MODULE, 0))
    named = totals.drop([NO_MODULE, NO_DRIVER], errors="ignore")
    if named.empty:
        return f"No module could be named for any of {crashes_in_words(everything)}"
    first = f"{named.index[0]} is the guilty module of {named.iloc[0]:,} of {crashes_in_words(everything)}"
    return f"{first}; {unnamed:,} {'names' if unnamed == 1 else 'name'} no module" if unnamed else first


@styled
def plot_ascertainment(
    crashes: pd.DataFrame,
    uptimes: pd.DataFrame,
    coverage: pd.DataFrame | None = None,
    *,
    simulated: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """How each month's stops are known, crashes and unexplained reboots; and below zero the hosts without any log.

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
        ``numbers(ax)``: ``month``, ``how`` (dump, log only, no text, unexplained reboot, no logs), ``count`` (of stops;
        of hosts for "no logs").

    Notes
    -----
    "No text" is a boot that ended in a crash of which only a trace is left, such as a line that a core dump was found.
    """
    table = _ascertained(crashes, uptimes, coverage)
    if table.empty:
        what = "No stop has a known time" if len(crashes) else "Nothing stopped, and no host was seen"
        remedy = "There is neither a crash nor a boot with a time."
        return style.nothing(ax, what, remedy, list(table.columns), simulated)
    chart = style.new_axes(ax)
    months = pd.period_range(table["month"].min(), table["month"].max(), freq="M").strftime("%Y-%m")
    wide = style.spread(table, "month", "how", "count", months, list(HOW))
    for part in (wide[list(HOW)[:-1]], -wide[["no logs"]]):
        style.stacked(chart, part, HOW, range(len(months)), width=0.8)
    chart.axhline(0, color=style.SOFT, linewidth=0.8)
    chart.set_xlim(-0.6, max(len(months), 6) - 0.4)
    step = max(1, -(-len(months) // 12))
    turned: Any = {"rotation": 0, "ha": "center"} if len(months) <= 8 else {"rotation": 35, "ha": "right"}
    chart.set_xticks(range(0, len(months), step), months[::step], **turned)
    chart.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{abs(y):,.0f}"))
    chart.yaxis.set_major_locator(MaxNLocator(integer=True))
    chart.set_ylabel("Hosts without logs  |  Stops" if wide["no logs"].any() else "Stops")
    chart.set_xlabel("Month (UTC)")
    shown = [how for how in HOW if wide[how].any()]
    style.add_legend(chart, [Patch(label=how, **HOW[how]) for how in shown], "How it is known")
    doubt = count(int(wide["unexplained reboot"].sum()), "unexplained reboot")
    trace = int(wide["no text"].sum())
    more = f", {crashes_in_words(trace)} of which only the trace of a core dump is left," if trace else ""
    found = f"{crashes_in_words(len(crashes))} with text{more} and {doubt}"
    caption = (
        f"{found} on {hosts_in_words(uptimes['host'].nunique())}. A reboot that nothing explains may be a crash whose dump "
        "and log were lost."
    )
    return style.finish(chart, _ascertainment_finding(wide), caption, table, simulated)


def _ascertained(crashes: Table, uptimes: Table, coverage: Table | None) -> Table:
    dump = crashes["source"].astype("string").str.contains(DUMP_NAME, regex=True).fillna(False)
    ends = uptimes["end_reason"]
    parts = [
        (crashes["time"], np.where(dump, "dump", "log only")),
        (uptimes.loc[(ends == "crash") & uptimes["crash_id"].isna(), "end"], "no text"),
        (uptimes.loc[ends == "unexplained", "end"], "unexplained reboot"),
    ]
    stops = [pd.DataFrame({"month": _month(times), "how": how}) for times, how in parts]
    table = pd.concat([part for part in (*stops, _silent(coverage)) if len(part)] or stops[:1]).dropna()
    table = table.groupby(["month", "how"], as_index=False).size().rename(columns={"size": "count"})
    return table.sort_values(["month", "how"], ignore_index=True)


def _month(times: Column) -> Column:
    return times.dt.strftime("%Y-%m").astype("string")


def _silent(coverage: Table | None) -> Table:
    # One row for each month, between a host's first and last sign of life, in which no evidence covers a moment of it.
    months: list[int] = []
    for _, rows in () if coverage is None else coverage.dropna(subset=["start", "end"]).groupby("host"):
        first, last = (_serial(rows[edge]) for edge in ("start", "end"))
        watched = {month for low, high in zip(first, last, strict=True) for month in range(low, high + 1)}
        months += sorted(set(range(min(watched), max(watched) + 1)) - watched)
    written = pd.Series([f"{m // 12:04d}-{m % 12 + 1:02d}" for m in months], dtype="string")
    return pd.DataFrame({"month": written, "how": "no logs"})


def _serial(times: Column) -> Column:
    return times.dt.year * 12 + times.dt.month - 1


def _ascertainment_finding(wide: Table) -> str:
    totals = wide.sum()
    stops = totals["dump"] + totals["log only"] + totals["no text"]
    if not stops:
        doubt = totals["unexplained reboot"]
        return f"No crash is on record, and {count(doubt, 'reboot') if doubt else 'no reboot'} without an explanation"
    doubt = totals["unexplained reboot"]
    first = f"{totals['dump']:,.0f} of {crashes_in_words(stops)} left a dump"
    if totals["no text"]:
        first += f", {totals['no text']:,.0f} only a trace"
    if not doubt:
        return f"{first}; no stop is unexplained"
    return f"{first}; {count(doubt, 'more stop')} {'is' if doubt == 1 else 'are'} unexplained"
