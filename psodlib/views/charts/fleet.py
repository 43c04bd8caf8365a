"""What a fleet holds, and what happened when: host-days, hosts, modules, how stops are known, weeks, roll-outs, a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from psodlib.triage.timeline import DUMP_NAME, LANES
from psodlib.views.charts import frame
from psodlib.views.charts.frame import CRASH, DAY, INK, PALE, PALETTE, PAPER, SMALL, SOFT, Fills, Table, chart
from psodlib.views.words import count, day, figure, known, moment, share, span

if TYPE_CHECKING:
    from psodlib.risk.rollout_watch import RolloutWatch

EVERYTHING = "all hosts"
MAP_WIDTH = 24  # hosts in one line of the map
WIDE_TILES = 6  # hosts a line up to which their names fit in
NAME_IN_TILE = 12  # letters of it; host names differ at the end
MOST_ROWS = 14  # modules drawn
NO_MODULE, NO_DRIVER = "no module found", "hardware, or asked for"
# From the strongest evidence to none: dark to pale.
GUILT_COLOURS = {
    "named_by_kernel": "#08306b", "on_stack": "#0072b2", "module_map": "#3f97c9", "symbol_prefix": "#86bfdf",
    "world_name": "#d7b5d8", "precursor_log": "#cc79a7", "hardware": "#e69f00", "deliberate": "#009e73",
    "none": "#b8b8b8",
}  # fmt: skip
HOW: Fills = {
    "dump": {"facecolor": "#0072b2", "edgecolor": PAPER},
    "log only": {"facecolor": "#56b4e9", "edgecolor": PAPER},
    "no text": {"facecolor": "#cc79a7", "edgecolor": PAPER},
    "unexplained reboot": {"facecolor": "#e69f00", "edgecolor": PAPER},
    "no logs": {"facecolor": "#8a8a8a", "edgecolor": SOFT, "hatch": "////"},
}
WEEK = pd.Timedelta(days=7)
ALARM = 20  # as ``risk.canary`` has it
WORDS = {"go_on": "Go on", "hold": "Hold", "stop": "Stop"}
LANE_COLOURS = {
    "boot": "#0072b2", "watched": "#8a8a8a", "driver": "#009e73", "down": "#cc79a7", "vcenter": "#56b4e9",
    "crash": "#d55e00",
}  # fmt: skip


@chart("group", "version", "host_days", more='; "version unknown" and "not watched" are versions here')
def plot_host_days(
    exposure: pd.DataFrame, uptimes: pd.DataFrame | None = None, *, by: str = "cluster",
    simulated: bool = False, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Host-days by loaded version, one stacked bar a group; unknown versions and unwatched time are drawn, not dropped."""
    lived = exposure if len(exposure) and exposure["host_days"].sum() > 0 else ()
    frame.some(lived, "No host-days at all", "No stretch of any boot is covered by evidence.")
    stretches = frame.completed(exposure, by)
    table = _grouped_days(stretches, uptimes, by)
    groups, names = frame.in_order(table["group"]), frame.in_order(table["version"])
    fills = frame.version_fills(exposure["version"])
    drawn = frame.rows(ax, groups, (), 0.9, 0.34, legend=True)
    frame.stacked(drawn, frame.spread(table, groups, names), fills, range(len(groups)), lying=True, height=0.74)
    drawn.set_xlabel("Host-days")
    drawn.xaxis.set_major_formatter("{x:,.0f}")
    frame.add_legend(drawn, frame.patches(names, fills))
    total = table.groupby("version")["host_days"].sum()
    blind, watched = total.get(frame.NOT_WATCHED, 0.0), total.drop(frame.NOT_WATCHED, errors="ignore")
    named, whole = watched.drop([frame.UNKNOWN_VERSION, frame.OTHERS], errors="ignore"), watched.sum()
    finding = f"Which version was loaded is unknown for all {frame.host_days(whole)}"
    if len(named):
        unknown = watched.get(frame.UNKNOWN_VERSION, 0.0)
        more = f"; for {share(unknown, whole)} the version is unknown" if unknown else ""
        finding = f"{named.idxmax()} has {share(named.max(), whole)} of {frame.host_days(whole)}{more}"
    gaps = f"Not watched: boots lasted {frame.host_days(blind)} longer than evidence covers; these are in no rate."
    gaps = "Time that no evidence covers is not shown." if uptimes is None else gaps
    alone = " (no group is known)" if groups == [EVERYTHING] else ""
    caption = f"{frame.evidence(stretches)}{alone}. {gaps}"
    return frame.finish(drawn, finding, caption, table, simulated)


def _grouped_days(exposure: Table, uptimes: Table | None, by: str) -> Table:
    group = exposure[by].astype("string")
    group = group.fillna(f"no {by} known") if group.notna().any() else group.fillna(EVERYTHING)
    version = frame.lumped(exposure["version"], exposure["host_days"])
    keyed = pd.DataFrame({"group": group, "version": version, "host_days": exposure["host_days"]})
    if uptimes is not None and len(uptimes):
        home = group.groupby(exposure["host"]).first()
        blind = ((uptimes["uptime"] - uptimes["observed"]) / DAY).clip(lower=0)
        where = uptimes["host"].map(home).astype("string")
        gaps = pd.DataFrame({"group": where, "version": frame.NOT_WATCHED, "host_days": blind.astype(float)})
        keyed = pd.concat([keyed, gaps.dropna()], ignore_index=True)
    table = keyed.groupby(["group", "version"], as_index=False)["host_days"].sum()
    return table[table["host_days"] > 0].reset_index(drop=True)


@chart("cluster", "host", "version", "crashes", "host_days")
def plot_fleet_map(exposure: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """One tile a host in its cluster's row, coloured by the version last loaded; a number counts its crashes."""
    stretches = frame.completed(frame.some(exposure, "No host to show", "No host has a host-day at risk."))
    table = _last_loaded(stretches)
    fills = frame.version_fills(exposure["version"])
    # A big cluster goes on in the next line, under no name.
    lines = [
        (str(name) if at == 0 else " ", hosts.iloc[at : at + MAP_WIDTH])
        for name, hosts in table.groupby("cluster", sort=False)
        for at in range(0, len(hosts), MAP_WIDTH)
    ]
    widest = max(len(hosts) for _, hosts in lines)
    drawn = frame.rows(ax, [name for name, _ in lines], (), max(0.6, 1.2 - 0.26 * len(lines)), 0.26, legend=True)
    look: Any = {"ha": "center", "va": "center", "fontsize": SMALL, "fontweight": "bold", "gid": "host"}
    for y, (_, hosts) in enumerate(lines):
        for x, host in enumerate(hosts.itertuples()):
            drawn.add_patch(Rectangle((x - 0.47, y - 0.42), 0.94, 0.84, linewidth=0.5, **fills[host.shown]))
            name = frame.shown_text(host.host)[-NAME_IN_TILE:] if widest <= WIDE_TILES else ""
            words = "  ×".join(filter(None, (name, f"{host.crashes:,}" if host.crashes else "")))
            drawn.text(x, y, words, color=INK if host.shown in frame.QUIET else PAPER, **look)
    drawn.set(xlim=(-0.5, widest - 0.5), xticks=[])
    drawn.grid(False)
    drawn.spines[["left", "bottom"]].set_visible(False)
    drawn.set_xlabel("One tile is one host", loc="left")
    frame.add_legend(drawn, frame.patches(frame.in_order(table["shown"]), fills), "Version last loaded")
    whose = f"the host's {frame.module_of(stretches)} crashes"
    caption = f"{frame.evidence(stretches)}. The number in a tile counts {whose}, on any version."
    return frame.finish(drawn, _map_finding(table), caption, table.drop(columns="shown"), simulated)


def _last_loaded(exposure: Table) -> Table:
    # One row a host: its newest stretch's version and cluster, its crashes and host-days over all.
    ordered = exposure.sort_values("end", kind="stable")
    grouped = ordered.groupby("host", as_index=False)
    table = grouped.agg(cluster=("cluster", "last"), crashes=("crashes", "sum"), host_days=("host_days", "sum"))
    last = ordered.drop_duplicates("host", keep="last").set_index("host")["version"].astype("string")
    table["version"] = last.reindex(table["host"]).array
    table["cluster"] = table["cluster"].astype("string").fillna("no cluster known")
    table["shown"] = frame.lumped(table["version"], table["host_days"])
    return frame.by_order(table, "cluster")[["cluster", "host", "version", "crashes", "host_days", "shown"]]


def _map_finding(table: Table) -> str:
    counted = table["version"].value_counts()
    if counted.empty:
        return f"Which version is loaded is unknown on all {count(len(table), 'host')}"
    most, n = counted.index[0], counted.iloc[0]
    clusters, on = table["cluster"].nunique(), frame.of_version(table, most)["cluster"].nunique()
    where = f" in {on:,} of {count(clusters, 'cluster')}" if clusters > 1 else ""
    crashed = (table["crashes"] > 0).sum()
    hosts = count(crashed, "host") if crashed else "no host"
    return f"{most} was last loaded on {n:,} of {count(len(table), 'host')}{where}; {hosts} crashed"


@chart("module", "guilt", "crashes", more='; "hardware, or asked for" and "no module found" are modules here')
def plot_modules(crashes: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Crashes by guilty module, stacked by the kind of evidence against it."""
    frame.some(crashes, "No crash was found", "So there is no module to name.")
    guilt: Table = crashes["guilt"].astype("string").fillna("none")
    # That no driver did it is a finding, not a failure to find one.
    nobody = guilt.isin(["hardware", "deliberate"]).map({True: NO_DRIVER, False: NO_MODULE})
    named = pd.DataFrame({"module": crashes["guilty_module"].astype("string").fillna(nobody), "guilt": guilt})
    table = named.groupby(["module", "guilt"], as_index=False).size().rename(columns={"size": "crashes"})
    totals = table.groupby("module")["crashes"].sum().sort_values(ascending=False, kind="stable")
    last = [name for name in (NO_DRIVER, NO_MODULE) if name in totals]
    shown = [*(name for name in totals.index[:MOST_ROWS] if name not in last), *last]
    kinds = [kind for kind in GUILT_COLOURS if kind in set(table["guilt"])]
    fills: Fills = {kind: {"facecolor": GUILT_COLOURS[kind], "edgecolor": PAPER} for kind in kinds}
    drawn = frame.rows(ax, shown, (), 0.8, 0.32, legend=True)
    wide = frame.spread(table, shown, kinds)
    ends = frame.stacked(drawn, wide, fills, range(len(shown)), lying=True, height=0.72)
    for y, end in enumerate(ends):
        frame.beside(drawn, f"{end:,.0f}", (end, y), (3, 0), va="center")
    drawn.xaxis.set_major_locator(MaxNLocator(integer=True))
    drawn.set(xlabel="Crashes", xlim=(0, float(ends.max()) * 1.08))
    entries = [Patch(facecolor=GUILT_COLOURS[kind], label=kind.replace("_", " ")) for kind in kinds]
    frame.add_legend(drawn, entries, "Evidence against it")
    whole, blamed, unnamed = count(len(crashes), "crash"), totals.drop(last), totals.get(NO_MODULE, 0)
    finding = f"No module could be named for any of {whole}"
    if len(blamed):
        more = f"; {unnamed:,} {'names' if unnamed == 1 else 'name'} no module" if unnamed else ""
        finding = f"{blamed.index[0]} is the guilty module of {blamed.iloc[0]:,} of {whole}{more}"
    hidden = len(totals) - len(shown)
    more = f" {count(hidden, 'further module')} with fewer crashes not drawn." if hidden > 0 else ""
    caption = f"{whole}{_on_hosts(crashes)}. Counts rank no driver: they know no host-days.{more}"
    return frame.finish(drawn, finding, caption, table, simulated)


@chart("month", "how", "count", more='; ``count`` of stops, for "no logs" of hosts')
def plot_ascertainment(
    crashes: pd.DataFrame, uptimes: pd.DataFrame, coverage: pd.DataFrame | None = None, *,
    simulated: bool = False, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """How each month's stops are known, crashes and unexplained reboots; and below zero the hosts without any log.

    Notes
    -----
    "No text" is a boot that ended in a crash of which only a trace is left, such as a line that a core dump was found.
    """
    what = "No stop has a known time" if len(crashes) else "Nothing stopped, and no host was seen"
    table = _ascertained(crashes, uptimes, coverage)
    frame.some(table, what, "There is neither a crash nor a boot with a time.")
    drawn = frame.new_axes(ax)
    months = pd.period_range(table["month"].min(), table["month"].max(), freq="M").strftime("%Y-%m")
    wide = frame.spread(table, months, list(HOW))
    for part in (wide.drop(columns="no logs"), -wide[["no logs"]]):
        frame.stacked(drawn, part, HOW, range(len(months)), width=0.8)
    drawn.axhline(0, color=SOFT, linewidth=0.8)
    drawn.set_xlim(-0.6, max(len(months), 6) - 0.4)
    step = -(-len(months) // 12)
    turned: Any = {"rotation": 0, "ha": "center"} if len(months) <= 8 else {"rotation": 35, "ha": "right"}
    drawn.set_xticks(range(0, len(months), step), months[::step], **turned)
    drawn.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{abs(y):,.0f}"))
    drawn.yaxis.set_major_locator(MaxNLocator(integer=True))
    drawn.set(ylabel="Hosts without logs  |  Stops" if wide["no logs"].any() else "Stops", xlabel="Month (UTC)")
    totals = wide.sum()
    frame.add_legend(drawn, [Patch(label=how, **HOW[how]) for how in HOW if totals[how]], "How it is known")
    trace, doubt = totals["no text"], totals["unexplained reboot"]
    more = f", {count(trace, 'crash')} of which only the trace of a core dump is left," if trace else ""
    caption = (
        f"{count(len(crashes), 'crash')} with text{more} and {count(doubt, 'unexplained reboot')}{_on_hosts(uptimes)}. A reboot "
        "that nothing explains may be a crash whose dump and log were lost."
    )
    undated = int(crashes["time"].isna().sum())
    caption += f" Not drawn: {count(undated, 'crash')} without a time." if undated else ""
    return frame.finish(drawn, _ascertainment_finding(totals, "dated " if undated else ""), caption, table, simulated)


def _on_hosts(table: Table) -> str:
    hosts = table["host"].nunique()
    return f" on {count(hosts, 'host')}" if hosts else ""


def _ascertained(crashes: Table, uptimes: Table, coverage: Table | None) -> Table:
    dump = crashes["source"].astype("string").str.contains(DUMP_NAME).fillna(False)
    ends = uptimes["end_reason"]
    parts = [
        (crashes["time"], np.where(dump, "dump", "log only")),
        (uptimes.loc[(ends == "crash") & uptimes["crash_id"].isna(), "end"], "no text"),
        (uptimes.loc[ends == "unexplained", "end"], "unexplained reboot"),
    ]
    stops = [pd.DataFrame({"month": times.dt.strftime("%Y-%m").astype("string"), "how": how}) for times, how in parts]
    table = pd.concat([part for part in (*stops, _silent(coverage)) if len(part)] or stops[:1]).dropna()
    return table.groupby(["month", "how"], as_index=False).size().rename(columns={"size": "count"})


def _silent(coverage: Table | None) -> Table:
    # One row for each month, between a host's first and last sign of life, in which no evidence covers a moment of it.
    months: list[int] = []
    for _, rows in () if coverage is None else coverage.dropna(subset=["start", "end"]).groupby("host"):
        first, last = (rows[edge].dt.year * 12 + rows[edge].dt.month - 1 for edge in ("start", "end"))
        watched = {month for low, high in zip(first, last, strict=True) for month in range(low, high + 1)}
        months += sorted(set(range(min(watched), max(watched) + 1)) - watched)
    written = pd.Series([f"{m // 12:04d}-{m % 12 + 1:02d}" for m in months], dtype="string")
    return pd.DataFrame({"month": written, "how": "no logs"})


def _ascertainment_finding(totals: Table, dated: str) -> str:
    stops, doubt = totals["dump"] + totals["log only"] + totals["no text"], totals["unexplained reboot"]
    if not stops:
        return f"No crash is on record, and {count(doubt, 'reboot') if doubt else 'no reboot'} without an explanation"
    trace = f", {totals['no text']:,.0f} only a trace" if totals["no text"] else ""
    more = f"{count(doubt, 'more stop')} {'is' if doubt == 1 else 'are'}" if doubt else "no stop is"
    return f"{totals['dump']:,.0f} of {count(stops, f'{dated}crash')} left a dump{trace}; {more} unexplained"


# ---- over time -----------------------------------------------------------------------------------------------------------


@chart("week", "version", "host_days", "crashes", "unknown_crashes", more="; ``week`` is its Monday")
def plot_rollout(exposure: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Host-days a week by loaded version, stacked, with each crash as a point above its week."""
    stretches = frame.dated(frame.completed(exposure))
    none = "The exposure table has no stretch with a start and an end."
    frame.some(stretches, "No host-days to show over time", none)
    table = weekly_sums(stretches)
    fills, names = frame.version_fills(exposure["version"]), frame.in_order(table["version"])
    drawn = frame.new_axes(ax, 2.1)
    # Days, not dates, for the width: bars touch, so that a gap on the page is a gap in the evidence.
    bars = {name: {**fills[name], "edgecolor": SOFT, "linewidth": 0} for name in names}
    wide = frame.spread(table, sorted(table["week"].unique()), names)
    top = float(frame.stacked(drawn, wide, bars, wide.index, width=7, align="edge").max()) or 1.0
    _crash_points(drawn, table, fills, top)
    drawn.set_ylabel("Host-days a week")
    frame.time_axis(drawn)
    kinds = {
        "crashes": _point(f"{frame.module_of(stretches)} crash", CRASH, PALE),
        "unknown_crashes": _point("crash, module unknown", SOFT, PAPER),
    }
    points = [point for column, point in kinds.items() if table[column].any()]
    frame.add_legend(drawn, [*frame.patches(reversed(names), fills), *points])
    when = f"{day(stretches['start'].min())} to {day(stretches['end'].max())}"
    caption = f"{frame.evidence(stretches)}, {when}. A point stands above the week of its crash."
    return frame.finish(drawn, _rollout_finding(stretches), caption, table, simulated)


def weekly_sums(exposure: Table) -> Table:
    """Host-days and crashes by ``week`` (its Monday) and ``version``; a crash stands at the end of its stretch."""
    monday = exposure["start"].min().normalize()
    monday -= pd.Timedelta(days=monday.weekday())
    start, end = (((exposure[edge] - monday) / DAY).to_numpy(dtype=float) for edge in ("start", "end"))
    weeks = max(int(np.ceil(end.max() / 7)), 1)
    version = frame.lumped(exposure["version"], exposure["host_days"])
    days = []
    for week in range(weeks):
        spent = pd.Series(np.minimum(end, 7 * week + 7) - np.maximum(start, 7 * week), index=version.array)
        total = spent[spent > 0].groupby(level=0, sort=False).sum()
        days.append(pd.DataFrame({"week": week, "version": total.index.astype("string"), "host_days": total.array}))
    counts, last = exposure[["crashes", "unknown_crashes"]], np.minimum(end // 7, weeks - 1).astype(int)
    ends = counts.assign(week=last, version=version).groupby(["week", "version"], as_index=False).sum()
    table = pd.concat(days).merge(ends, how="outer", on=["week", "version"]).fillna(0)
    table["week"] = monday + pd.to_timedelta(table["week"] * 7, unit="D")
    table = table.astype({"crashes": "int64", "unknown_crashes": "int64"})
    return table.sort_values(["week", "version"], ignore_index=True)


def _point(label: str, edge: str, face: str) -> Line2D:
    words = frame.shown_text(label)
    return Line2D([], [], linestyle="", marker="o", markeredgecolor=edge, markerfacecolor=face, label=words)


def _crash_points(ax: Any, table: Table, fills: Fills, top: float) -> None:
    # Points pile up over their week in a strip above the stack; a heavy week is squeezed into the same strip.
    most = max(int(table.groupby("week")[["crashes", "unknown_crashes"]].sum().sum(axis=1).max()), 1)
    step = top * min(0.06, 0.5 / most)
    for week, rows in table.groupby("week"):
        height = top * 1.07
        for row in rows.itertuples():
            face = fills[row.version]["facecolor"]
            for colour, edge, number in ((face, CRASH, row.crashes), (PAPER, SOFT, row.unknown_crashes)):
                if number:
                    ys = height + step * np.arange(number)
                    frame.mark(ax, [week + WEEK / 2] * number, ys, colour, size=5, markeredgecolor=edge, gid="crash")
                    height += step * number
    ax.set_ylim(0, top * 1.1 + step * most)


def _rollout_finding(exposure: Table) -> str:
    module, days, crashes = frame.module_of(exposure), exposure["host_days"], exposure["crashes"]
    everything = frame.host_days(days.sum())
    if not crashes.sum():
        return f"No {module} crash in {everything} on {count(exposure['host'].nunique(), 'host')}"
    named = exposure["version"].astype("string").fillna(frame.UNKNOWN_VERSION)
    worst = crashes.groupby(named).sum().idxmax()
    here = named == worst
    if here.all():
        return f"All {everything} and {count(crashes.sum(), 'crash')} are on {module} {worst}"
    part = f"{crashes[here].sum():,} of {crashes.sum():,} {module} crashes"
    return f"{worst} took {part} in {share(days[here].sum(), days.sum())} of the host-days"


@chart(
    "week", "hosts", "crashes", "reference_crashes", "e_value",
    more="; ``hosts`` moved by the week's end, ``crashes`` of hosts whose first crash was on the new version",
)  # fmt: skip
def plot_waves(result: RolloutWatch, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Hosts on the new version week by week, the crashes on either side, and the e-value against its alarm."""
    remedy = "No host of the plan was seen on the new version beside others on the old one."
    weeks = frame.some(result.weeks, "The roll-out has not begun", remedy)
    moved = result.hosts["moved_at"].dropna()
    table = weeks[["week"]].assign(hosts=[int((moved < week + WEEK).sum()) for week in weeks["week"]])
    table = table.join(weeks[["crashes", "reference_crashes", "e_value"]])
    drawn = frame.new_axes(ax, 2.4)
    drawn.bar(table["week"], table["hosts"], width=7, align="edge", color=PALETTE[4], linewidth=0)
    top = max(len(result.hosts), 1)
    for wave in result.waves.itertuples():
        drawn.axvline(wave.week, color=PALE, linewidth=1, zorder=0)
        drawn.text(wave.week, 1.3 * top, f" wave {wave.wave}", color=SOFT, fontsize=SMALL, va="top", clip_on=True)
    for name, height, face in (("crashes", 1.06, CRASH), ("reference_crashes", 1.14, "none")):
        seen = table[table[name] > 0]
        look: Any = {"s": 25 * np.sqrt(seen[name].to_numpy(dtype=float)), "facecolors": face, "edgecolors": CRASH}
        drawn.scatter(seen["week"] + WEEK / 2, [height * top] * len(seen), gid=name, **look)
    drawn.set(ylim=(0, 1.32 * top), ylabel="Hosts moved")
    # On a logarithmic scale of its own, laid over the height of the bars: a second axis would be one more thing to read.
    heights = top * (np.clip(np.log10([*table["e_value"].astype(float), ALARM]), -1, 3) + 1) / 4
    drawn.plot(table["week"] + WEEK, heights[:-1], color=PALETTE[1], linewidth=2, gid="e_value")
    drawn.axhline(heights[-1], color=PALETTE[1], linewidth=1, linestyle="--")
    frame.time_axis(drawn)
    entries = [
        Patch(color=PALETTE[4], label="hosts moved"),
        Line2D([], [], color=PALETTE[1], label=f"e-value (alarm {ALARM}, dashed)"),
        _point("first crash, new version", CRASH, CRASH), _point("first crash, old version", CRASH, "none"),
    ]  # fmt: skip
    frame.add_legend(drawn, entries, None)
    judged = result.judged
    by_the_past = f"{count(judged.crashes, 'crash')} on {result.plan.to}, {figure(judged.expected)} by the past"
    title = f"{WORDS[result.word]}: {by_the_past}; e-value {figure(judged.e_value)}"
    caption = (
        f"{len(moved):,} of {count(len(result.hosts), 'host')} moved by {day(result.at)}. The e-value holds hosts against "
        "hosts of the same model in the same week, up to each host's first crash, and may be read every week; its scale "
        "runs from 1/10 to 1,000 up the chart."
    )
    return frame.finish(drawn, title, caption, table, simulated)


@chart("time", "end", "lane", "what", "detail", "source", "line", "sha256", more=": the timeline's dated facts, sorted")
def plot_incident(timeline: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """What is known of one host up to its crash and after, one line of time a kind of fact."""
    facts: Table = timeline[timeline["time"].notna()].sort_values("time", kind="stable", ignore_index=True)
    frame.some(facts, "No moment of this incident is known", "No fact about this host has a time.")
    lanes = [lane for lane in LANES if (facts["lane"] == lane).any()]
    begin, end = facts["time"].min(), facts["end"].fillna(facts["time"]).max()
    reach = max(end - begin, pd.Timedelta(hours=1))
    drawn = frame.rows(ax, lanes, (), 0.5, 0.34)
    drawn.set_xlim(begin - 0.03 * reach, end + 0.16 * reach)
    crash = facts.loc[facts["what"] == "crash", "time"]
    for y, lane in enumerate(lanes):
        _lane(drawn, y, facts[facts["lane"] == lane], reach, LANE_COLOURS[lane], crash)
    for time in crash:
        drawn.axvline(time, color=PALETTE[1], linewidth=1.2, zorder=0.6)
    frame.time_axis(drawn, "Time (UTC)")
    number = f"{count(len(facts), 'dated fact')} from {count(facts['source'].nunique(), 'file')}"
    caption = f"{number}, {moment(begin)} to {moment(end)}. Bars last, points are moments."
    return frame.finish(drawn, _incident_finding(facts), caption, facts, simulated)


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
            ax.barh(y, row.end - row.time, left=row.time, height=0.34, color=colour, edgecolor=PAPER, gid=row.lane)
            continue
        words = f"down {span(row.end - row.time)}" if brief else row.what
        shape = "X" if row.lane == "crash" else "o"
        frame.mark(ax, row.time, y, colour, shape, 8, markeredgecolor=PAPER, gid=row.lane)
        name = frame.short_label(words)
        ends = row.time + room * (len(name) + 2)
        chosen = row.what == "crash" or (brief and (kept == row.time).any())
        if chosen or (row.time >= free and words != said and not ((kept >= row.time) & (kept <= ends)).any()):
            said, free = words, ends
            frame.beside(ax, name, (row.time, y), (5, 6), color=INK)


def _incident_finding(facts: Table) -> str:
    crash = facts[facts["what"] == "crash"]
    if crash.empty:
        return "The crash itself has no time; this is known around it"
    time = crash["time"].iloc[0]
    before = facts[facts["time"] <= time]
    lately = before["end"] >= time - pd.Timedelta(hours=2)
    boot = before[(before["lane"] == "boot") & (before["time"] < time) & lately]
    loaded = before.loc[(before["lane"] == "driver") & before["what"].str.endswith(" loaded").fillna(False), "what"]
    with_driver = f" with {loaded.iloc[-1]}" if len(loaded) else ""
    after = f", {span(time - boot['time'].iloc[-1])} after boot" if len(boot) else ""
    return f"The host crashed on {moment(time)}{after}{with_driver}"
