"""Where the host-days are: by group and version, and host by host."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import StrMethodFormatter

from psodlib.views.charts import style
from psodlib.views.charts.style import Table, styled
from psodlib.views.charts.sums import column_of, counts_of, days_in_words, evidence_in_words, hosts_in_words, module_of
from psodlib.views.words import count, share

EVERYTHING = "all hosts"
MAP_WIDTH = 24  # hosts in one line of the map
WIDE_TILES = 6  # hosts a line up to which their names fit in
NAME_IN_TILE = 12  # letters of it; host names differ at the end


@styled
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
        columns, remedy = ["group", "version", "host_days"], "No stretch of any boot is covered by evidence."
        return style.nothing(ax, "No host-days at all", remedy, columns, simulated)
    table = _grouped_days(exposure, uptimes, by)
    colours = style.version_colours(exposure["version"])
    groups = style.in_order(table["group"])
    chart = style.new_axes(ax, 0.9 + 0.34 * len(groups), groups)
    names = style.stack_order(table["version"])
    wide = style.spread(table, "group", "version", "host_days", groups, names)
    style.stacked(chart, wide, style.version_fills(names, colours), range(len(groups)), lying=True, height=0.74)
    style.name_rows(chart, groups)
    chart.set_xlabel("Host-days")
    chart.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    style.version_legend(chart, names, colours)
    alone = " (no group is known)" if groups == [EVERYTHING] else ""
    caption = f"{evidence_in_words(exposure)}{alone}. {_blind_words(table, uptimes)}"
    return style.finish(chart, _host_days_finding(table), caption, table, simulated)


def _grouped_days(exposure: Table, uptimes: Table | None, by: str) -> Table:
    group = column_of(exposure, by).astype("string")
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


def _blind_words(table: Table, uptimes: Table | None) -> str:
    if uptimes is None:
        return "Time that no evidence covers is not shown."
    blind = table.loc[table["version"] == style.NOT_WATCHED, "host_days"].sum()
    return f"Not watched: boots lasted {days_in_words(float(blind))} longer than evidence covers; these are in no rate."


def _host_days_finding(table: Table) -> str:
    total = table.groupby("version")["host_days"].sum()
    watched = total.drop(style.NOT_WATCHED, errors="ignore")
    most = watched.drop([style.UNKNOWN_VERSION, style.OTHERS], errors="ignore")
    unknown = watched.get(style.UNKNOWN_VERSION, 0.0)
    if most.empty:
        return f"Which version was loaded is unknown for all {days_in_words(float(watched.sum()))}"
    first = f"{most.idxmax()} has {share(most.max(), watched.sum())} of {days_in_words(float(watched.sum()))}"
    return f"{first}; for {share(unknown, watched.sum())} the version is unknown" if unknown else first


@styled
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
        columns = ["cluster", "host", "version", "crashes", "host_days"]
        return style.nothing(ax, "No host to show", "No host has a host-day at risk.", columns, simulated)
    table = _last_loaded(exposure)
    colours = style.version_colours(exposure["version"])
    lines = _map_lines(table)
    chart = style.new_axes(ax, max(0.6 + 0.26 * len(lines), 1.2), [name for name, _ in lines])
    widest = max(len(hosts) for _, hosts in lines)
    for y, (_, hosts) in enumerate(lines):
        for x, host in enumerate(hosts.itertuples()):
            tile = Rectangle((x - 0.47, y - 0.42), 0.94, 0.84, linewidth=0.5, **style.version_fill(host.shown, colours))
            chart.add_patch(tile)
            name = style.shown_text(host.host)[-NAME_IN_TILE:] if widest <= WIDE_TILES else ""
            number = f"{host.crashes:,}" if host.crashes else ""
            words = "  ×".join(filter(None, (name, number))) if name else number
            ink = style.INK if host.shown in style.QUIET else style.PAPER
            chart.text(
                x, y, words, ha="center", va="center", fontsize=style.SMALL, fontweight="bold", color=ink, gid="host"
            )
    style.name_rows(chart, [name for name, _ in lines])
    chart.set_xlim(-0.5, widest - 0.5)
    chart.set_xticks([])
    chart.grid(False)
    chart.spines[["left", "bottom"]].set_visible(False)
    chart.set_xlabel("One tile is one host", loc="left")
    style.version_legend(chart, style.stack_order(table["shown"]), colours, "Version last loaded")
    total = evidence_in_words(exposure)
    caption = f"{total}. The number in a tile counts the host's {module_of(exposure)} crashes, on any version."
    return style.finish(chart, _map_finding(table), caption, table.drop(columns="shown"), simulated)


def _last_loaded(exposure: Table) -> Table:
    # One row a host: its newest stretch's version and cluster, its crashes and host-days over all.
    ordered = exposure.sort_values("end", kind="stable") if "end" in exposure else exposure
    marked = ordered.assign(_crashes=counts_of(ordered, "crashes"), _cluster=column_of(ordered, "cluster"))
    grouped = marked.groupby("host", as_index=False, sort=True)
    table = grouped.agg(cluster=("_cluster", "last"), crashes=("_crashes", "sum"), host_days=("host_days", "sum"))
    last = ordered.drop_duplicates("host", keep="last").set_index("host")["version"].astype("string")
    table["version"] = last.reindex(table["host"]).array
    table["cluster"] = table["cluster"].astype("string").fillna("no cluster known")
    table["shown"] = style.lumped(table["version"], table["host_days"])
    order = {name: i for i, name in enumerate(style.in_order(table["cluster"]))}
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
        return f"Which version is loaded is unknown on all {hosts_in_words(len(table))}"
    counted = known_version.value_counts()
    most, n = counted.index[0], int(counted.iloc[0])
    clusters, on = table["cluster"].nunique(), table.loc[(table["version"] == most).fillna(False), "cluster"].nunique()
    where = f" in {on:,} of {count(clusters, 'cluster')}" if clusters > 1 else ""
    crashed = int((table["crashes"] > 0).sum())
    hosts = hosts_in_words(crashed) if crashed else "no host"
    return f"{most} was last loaded on {n:,} of {hosts_in_words(len(table))}{where}; {hosts} crashed"
