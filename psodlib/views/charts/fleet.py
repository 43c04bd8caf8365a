"""What a fleet holds: host-days by version, hosts, crashes by module, and how stops are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, StrMethodFormatter

from psodlib.triage.timeline import DUMP_NAME
from psodlib.views.charts import style, sums
from psodlib.views.charts.style import INK, PAPER, SMALL, SOFT, Column, Missing, Table, chart
from psodlib.views.words import count, share

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
HOW: dict[str, dict[str, Any]] = {
    "dump": {"facecolor": "#0072b2", "edgecolor": PAPER},
    "log only": {"facecolor": "#56b4e9", "edgecolor": PAPER},
    "no text": {"facecolor": "#cc79a7", "edgecolor": PAPER},
    "unexplained reboot": {"facecolor": "#e69f00", "edgecolor": PAPER},
    "no logs": {"facecolor": "#8a8a8a", "edgecolor": SOFT, "hatch": "////"},
}  # fmt: skip


@chart("group", "version", "host_days", more='; "version unknown" and "not watched" are versions here')
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
    """
    if not len(exposure) or not exposure["host_days"].sum() > 0:
        raise Missing("No host-days at all", "No stretch of any boot is covered by evidence.")
    table = _grouped_days(exposure, uptimes, by)
    colours = style.version_colours(exposure["version"])
    groups = style.in_order(table["group"])
    drawn = style.new_axes(ax, 0.9 + 0.34 * len(groups), groups)
    names = style.in_order(table["version"])
    wide = style.spread(table, "group", "version", "host_days", groups, names)
    fills = {name: style.version_fill(name, colours) for name in names}
    style.stacked(drawn, wide, fills, range(len(groups)), lying=True, height=0.74)
    style.name_rows(drawn, groups)
    drawn.set_xlabel("Host-days")
    drawn.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    style.version_legend(drawn, names, colours)
    alone = " (no group is known)" if groups == [EVERYTHING] else ""
    blind = sums.host_days(float(table.loc[table["version"] == style.NOT_WATCHED, "host_days"].sum()))
    gaps = f"Not watched: boots lasted {blind} longer than evidence covers; these are in no rate."
    gaps = "Time that no evidence covers is not shown." if uptimes is None else gaps
    caption = f"{sums.evidence(exposure)}{alone}. {gaps}"
    return style.finish(drawn, _host_days_finding(table), caption, table, simulated)


def _grouped_days(exposure: Table, uptimes: Table | None, by: str) -> Table:
    group = sums.column_of(exposure, by).astype("string")
    group = group.fillna(f"no {by} known") if group.notna().any() else group.fillna(EVERYTHING)
    version = style.lumped(exposure["version"], exposure["host_days"])
    keyed = pd.DataFrame({"group": group, "version": version, "host_days": exposure["host_days"]})
    if uptimes is not None and len(uptimes):
        home = pd.Series(group.to_numpy(), index=exposure["host"].to_numpy()).groupby(level=0).first()
        blind = ((uptimes["uptime"] - uptimes["observed"]) / pd.Timedelta(days=1)).clip(lower=0)
        where = uptimes["host"].map(home).astype("string")
        gaps = pd.DataFrame({"group": where, "version": style.NOT_WATCHED, "host_days": blind.astype(float)})
        keyed = pd.concat([keyed, gaps.dropna()], ignore_index=True)
    table = keyed.groupby(["group", "version"], as_index=False)["host_days"].sum()
    return table[table["host_days"] > 0].reset_index(drop=True)


def _host_days_finding(table: Table) -> str:
    total = table.groupby("version")["host_days"].sum()
    watched = total.drop(style.NOT_WATCHED, errors="ignore")
    most = watched.drop([style.UNKNOWN_VERSION, style.OTHERS], errors="ignore")
    unknown = watched.get(style.UNKNOWN_VERSION, 0.0)
    if most.empty:
        return f"Which version was loaded is unknown for all {sums.host_days(float(watched.sum()))}"
    first = f"{most.idxmax()} has {share(most.max(), watched.sum())} of {sums.host_days(float(watched.sum()))}"
    return f"{first}; for {share(unknown, watched.sum())} the version is unknown" if unknown else first


@chart("cluster", "host", "version", "crashes", "host_days")
def plot_fleet_map(exposure: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """One tile a host in its cluster's row, coloured by the version last loaded; a number counts its crashes.

    Parameters
    ----------
    exposure : pandas.DataFrame
        Exposure table.
    """
    if exposure.empty:
        raise Missing("No host to show", "No host has a host-day at risk.")
    table = _last_loaded(exposure)
    colours = style.version_colours(exposure["version"])
    lines = _map_lines(table)
    drawn = style.new_axes(ax, max(0.6 + 0.26 * len(lines), 1.2), [name for name, _ in lines])
    widest = max(len(hosts) for _, hosts in lines)
    for y, (_, hosts) in enumerate(lines):
        for x, host in enumerate(hosts.itertuples()):
            tile = Rectangle((x - 0.47, y - 0.42), 0.94, 0.84, linewidth=0.5, **style.version_fill(host.shown, colours))
            drawn.add_patch(tile)
            name = style.shown_text(host.host)[-NAME_IN_TILE:] if widest <= WIDE_TILES else ""
            number = f"{host.crashes:,}" if host.crashes else ""
            words = "  ×".join(filter(None, (name, number)))
            ink = INK if host.shown in style.QUIET else PAPER
            look: Any = {"ha": "center", "va": "center", "fontsize": SMALL, "fontweight": "bold", "gid": "host"}
            drawn.text(x, y, words, color=ink, **look)
    style.name_rows(drawn, [name for name, _ in lines])
    drawn.set(xlim=(-0.5, widest - 0.5), xticks=[])
    drawn.grid(False)
    drawn.spines[["left", "bottom"]].set_visible(False)
    drawn.set_xlabel("One tile is one host", loc="left")
    style.version_legend(drawn, style.in_order(table["shown"]), colours, "Version last loaded")
    whose = f"the host's {sums.module_of(exposure)} crashes"
    caption = f"{sums.evidence(exposure)}. The number in a tile counts {whose}, on any version."
    return style.finish(drawn, _map_finding(table), caption, table.drop(columns="shown"), simulated)


def _last_loaded(exposure: Table) -> Table:
    # One row a host: its newest stretch's version and cluster, its crashes and host-days over all.
    ordered = exposure.sort_values("end", kind="stable") if "end" in exposure else exposure
    marked = ordered.assign(_crashes=sums.counts_of(ordered, "crashes"), _cluster=sums.column_of(ordered, "cluster"))
    grouped = marked.groupby("host", as_index=False, sort=True)
    table = grouped.agg(cluster=("_cluster", "last"), crashes=("_crashes", "sum"), host_days=("host_days", "sum"))
    last = ordered.drop_duplicates("host", keep="last").set_index("host")["version"].astype("string")
    table["version"] = last.reindex(table["host"]).array
    table["cluster"] = table["cluster"].astype("string").fillna("no cluster known")
    table["shown"] = style.lumped(table["version"], table["host_days"])
    return style.by_order(table, "cluster")[["cluster", "host", "version", "crashes", "host_days", "shown"]]


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
        return f"Which version is loaded is unknown on all {count(len(table), 'host')}"
    counted = known_version.value_counts()
    most, n = counted.index[0], int(counted.iloc[0])
    clusters, on = table["cluster"].nunique(), table.loc[(table["version"] == most).fillna(False), "cluster"].nunique()
    where = f" in {on:,} of {count(clusters, 'cluster')}" if clusters > 1 else ""
    crashed = int((table["crashes"] > 0).sum())
    hosts = count(crashed, "host") if crashed else "no host"
    return f"{most} was last loaded on {n:,} of {count(len(table), 'host')}{where}; {hosts} crashed"


@chart("module", "guilt", "crashes", more='; "hardware, or asked for" and "no module found" are modules here')
def plot_modules(crashes: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Crashes by guilty module, stacked by the kind of evidence against it.

    Parameters
    ----------
    crashes : pandas.DataFrame
        The fleet's ``crashes``.
    """
    if crashes.empty:
        raise Missing("No crash was found", "So there is no module to name.")
    # That no driver did it is a finding, not a failure to find one.
    no_driver = crashes["guilt"].isin(["hardware", "deliberate"])
    nobody = pd.Series(NO_MODULE, index=crashes.index, dtype="string").mask(no_driver, NO_DRIVER)
    named = pd.DataFrame({
        "module": crashes["guilty_module"].astype("string").fillna(nobody),
        "guilt": crashes["guilt"].astype("string").fillna("none"),
    })  # fmt: skip
    table = named.groupby(["module", "guilt"], as_index=False).size().rename(columns={"size": "crashes"})
    totals = table.groupby("module")["crashes"].sum().sort_values(ascending=False, kind="stable")
    last = [name for name in (NO_DRIVER, NO_MODULE) if name in totals]
    shown = [*(name for name in totals.index[:MOST_ROWS] if name not in last), *last]
    drawn = style.new_axes(ax, 0.8 + 0.32 * len(shown), shown)
    kinds = [kind for kind in GUILT_COLOURS if kind in set(table["guilt"])]
    fills = {kind: {"facecolor": GUILT_COLOURS[kind], "edgecolor": PAPER} for kind in kinds}
    wide = style.spread(table, "module", "guilt", "crashes", shown, kinds)
    left = style.stacked(drawn, wide, fills, range(len(shown)), lying=True, height=0.72)
    for y, height in enumerate(left):
        place: Any = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
        drawn.annotate(f"{height:,.0f}", (height, y), fontsize=SMALL, color=SOFT, **place)
    style.name_rows(drawn, shown)
    drawn.xaxis.set_major_locator(MaxNLocator(integer=True))
    drawn.set(xlabel="Crashes", xlim=(0, float(left.max()) * 1.08))
    entries = [Patch(facecolor=GUILT_COLOURS[kind], label=kind.replace("_", " ")) for kind in kinds]
    style.add_legend(drawn, entries, "Evidence against it")
    hidden = len(totals) - len(shown)
    more = f" {count(hidden, 'further module')} with fewer crashes not drawn." if hidden > 0 else ""
    total = f"{count(len(crashes), 'crash')} on {count(crashes['host'].nunique(), 'host')}"
    caption = f"{total}. Counts rank no driver: they know no host-days.{more}"
    return style.finish(drawn, _modules_finding(totals), caption, table.sort_values(["module", "guilt"]), simulated)


def _modules_finding(totals: Column) -> str:
    everything = int(totals.sum())
    unnamed = int(totals.get(NO_MODULE, 0))
    named = totals.drop([NO_MODULE, NO_DRIVER], errors="ignore")
    if named.empty:
        return f"No module could be named for any of {count(everything, 'crash')}"
    first = f"{named.index[0]} is the guilty module of {named.iloc[0]:,} of {count(everything, 'crash')}"
    return f"{first}; {unnamed:,} {'names' if unnamed == 1 else 'name'} no module" if unnamed else first


@chart("month", "how", "count", more='; ``count`` of stops, for "no logs" of hosts')
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

    Notes
    -----
    "No text" is a boot that ended in a crash of which only a trace is left, such as a line that a core dump was found.
    """
    table = _ascertained(crashes, uptimes, coverage)
    if table.empty:
        what = "No stop has a known time" if len(crashes) else "Nothing stopped, and no host was seen"
        raise Missing(what, "There is neither a crash nor a boot with a time.")
    drawn = style.new_axes(ax)
    months = pd.period_range(table["month"].min(), table["month"].max(), freq="M").strftime("%Y-%m")
    wide = style.spread(table, "month", "how", "count", months, list(HOW))
    for part in (wide[list(HOW)[:-1]], -wide[["no logs"]]):
        style.stacked(drawn, part, HOW, range(len(months)), width=0.8)
    drawn.axhline(0, color=SOFT, linewidth=0.8)
    drawn.set_xlim(-0.6, max(len(months), 6) - 0.4)
    step = max(1, -(-len(months) // 12))
    turned: Any = {"rotation": 0, "ha": "center"} if len(months) <= 8 else {"rotation": 35, "ha": "right"}
    drawn.set_xticks(range(0, len(months), step), months[::step], **turned)
    drawn.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{abs(y):,.0f}"))
    drawn.yaxis.set_major_locator(MaxNLocator(integer=True))
    drawn.set(ylabel="Hosts without logs  |  Stops" if wide["no logs"].any() else "Stops", xlabel="Month (UTC)")
    shown = [how for how in HOW if wide[how].any()]
    style.add_legend(drawn, [Patch(label=how, **HOW[how]) for how in shown], "How it is known")
    trace, doubt = (int(wide[how].sum()) for how in ("no text", "unexplained reboot"))
    more = f", {count(trace, 'crash')} of which only the trace of a core dump is left," if trace else ""
    caption = (
        f"{count(len(crashes), 'crash')} with text{more} and {count(doubt, 'unexplained reboot')} on "
        f"{count(uptimes['host'].nunique(), 'host')}. A reboot that nothing explains may be a crash whose dump and log were lost."
    )
    return style.finish(drawn, _ascertainment_finding(wide), caption, table, simulated)


def _ascertained(crashes: Table, uptimes: Table, coverage: Table | None) -> Table:
    dump = crashes["source"].astype("string").str.contains(DUMP_NAME, regex=True).fillna(False)
    ends = uptimes["end_reason"]
    parts = [
        (crashes["time"], np.where(dump, "dump", "log only")),
        (uptimes.loc[(ends == "crash") & uptimes["crash_id"].isna(), "end"], "no text"),
        (uptimes.loc[ends == "unexplained", "end"], "unexplained reboot"),
    ]
    stops = [pd.DataFrame({"month": times.dt.strftime("%Y-%m").astype("string"), "how": how}) for times, how in parts]
    table = pd.concat([part for part in (*stops, _silent(coverage)) if len(part)] or stops[:1]).dropna()
    table = table.groupby(["month", "how"], as_index=False).size().rename(columns={"size": "count"})
    return table.sort_values(["month", "how"], ignore_index=True)


def _silent(coverage: Table | None) -> Table:
    # One row for each month, between a host's first and last sign of life, in which no evidence covers a moment of it.
    months: list[int] = []
    for _, rows in () if coverage is None else coverage.dropna(subset=["start", "end"]).groupby("host"):
        first, last = (rows[edge].dt.year * 12 + rows[edge].dt.month - 1 for edge in ("start", "end"))
        watched = {month for low, high in zip(first, last, strict=True) for month in range(low, high + 1)}
        months += sorted(set(range(min(watched), max(watched) + 1)) - watched)
    written = pd.Series([f"{m // 12:04d}-{m % 12 + 1:02d}" for m in months], dtype="string")
    return pd.DataFrame({"month": written, "how": "no logs"})


def _ascertainment_finding(wide: Table) -> str:
    totals = wide.sum()
    stops, doubt = totals["dump"] + totals["log only"] + totals["no text"], totals["unexplained reboot"]
    if not stops:
        return f"No crash is on record, and {count(doubt, 'reboot') if doubt else 'no reboot'} without an explanation"
    first = f"{totals['dump']:,.0f} of {count(stops, 'crash')} left a dump"
    if totals["no text"]:
        first += f", {totals['no text']:,.0f} only a trace"
    if not doubt:
        return f"{first}; no stop is unexplained"
    return f"{first}; {count(doubt, 'more stop')} {'is' if doubt == 1 else 'are'} unexplained"
