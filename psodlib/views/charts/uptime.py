"""Crashes by the uptime of their boots: counts, hazard, survival."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from psodlib.views.charts import style, sums
from psodlib.views.charts.style import PALE, PAPER, SMALL, SOFT, Missing, Table, chart
from psodlib.views.words import DAYS_A_YEAR, between, count, figure, share

MOST_BESIDE = 5  # intervals beside each other in one band of uptime
MANY_AT_RISK = 10  # boots under watch, for a curve
NO_UPTIME = "No stretch says how long its boot had run."
FEW = 5  # crashes below which no shape over uptime is claimed


@chart("band", "version", "host_days", "crashes")
def plot_uptime_at_crash(exposure: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Share of crashes beside share of host-days, by band of uptime.

    If uptime did not matter, the two bars of each band would be alike.

    Parameters
    ----------
    exposure : pandas.DataFrame
        Exposure table with ``uptime_start``; a crash ends its stretch.
    """
    table = _banded(exposure)
    if table.empty:
        raise Missing("Uptime at crash is not known", NO_UPTIME)
    bands = list(dict.fromkeys(table["band"]))
    crashes, days = table["crashes"].sum(), table["host_days"].sum()
    colours = style.version_colours(exposure["version"])
    drawn = style.new_axes(ax)
    at_risk = table.groupby("band")["host_days"].sum().reindex(bands)
    drawn.bar(np.arange(len(bands)) - 0.2, 100 * at_risk / days, width=0.38, color=PALE, gid="host-days")
    names = style.in_order(table["version"])
    parts = 100 * style.spread(table, "band", "version", "crashes", bands, names) / max(crashes, 1)
    fills = {name: style.version_fill(name, colours) for name in names}
    bottom = style.stacked(drawn, parts, fills, np.arange(len(bands)) + 0.2, width=0.38)
    # The host-days stand under the bands, where no bar can reach them.
    drawn.set_xticks(range(len(bands)), [f"{band}\n{at_risk[band]:,.0f} d" for band in bands])
    drawn.grid(False, axis="x")
    look: Any = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "fontsize": SMALL, "color": SOFT}
    for x, number in enumerate(table.groupby("band")["crashes"].sum()[bands]):
        drawn.annotate(f"{number:,}", (x + 0.2, bottom[x]), **look)
    drawn.set(ylabel="Share of all (%)", xlabel="Uptime of the boot (days), and host-days spent at it")
    crashed = [style.version_patch(name, colours) for name in names if parts[name].any()]
    style.add_legend(drawn, [Patch(facecolor=PALE, label="host-days at risk"), *crashed], "Grey: time. Colour: crashes")
    caption = (
        f"{sums.evidence(exposure)}. Each pair: share of the host-days and share of the crashes at that uptime; if "
        "both are alike, uptime does not matter."
    )
    return style.finish(drawn, _uptime_finding(table), caption, table, simulated)


def _banded(exposure: Table) -> Table:
    # band, version, host_days, crashes in the order of bands; only bands that any host reached.
    aged = exposure.assign(uptime_start=sums.column_of(exposure, "uptime_start"))
    aged = sums.with_dates(aged[aged["uptime_start"].notna()])
    if aged.empty:
        return pd.DataFrame(columns=["band", "version", "host_days", "crashes"])
    from psodlib.risk.survival import hazard_by_uptime  # brings scipy, which most charts do without

    table: Table = hazard_by_uptime(aged.assign(version=style.lumped(aged["version"], aged["host_days"])))
    return style.by_order(table.rename(columns={"uptime": "band"})[["band", "version", "host_days", "crashes"]], "band")


def _uptime_finding(table: Table) -> str:
    whole = table.groupby("band", sort=False)[["host_days", "crashes"]].sum()
    total = int(whole["crashes"].sum())
    if not total:
        return f"No crash at any uptime in {sums.host_days(float(whole['host_days'].sum()))}"
    if total < FEW:
        return f"{count(total, 'crash')}: too few to say at what uptime hosts crash"
    shares = whole / whole.sum()
    excess = (shares["crashes"] - shares["host_days"]).idxmax()
    crashes, time = (share(whole.loc[excess, name], whole[name].sum()) for name in ("crashes", "host_days"))
    return f"{crashes} of {total:,} crashes fell at {excess} days of uptime, where {time} of the time was spent"


@chart("version", "uptime", "crashes", "host_days", "rate", "low", "high", more=" (rates per host-year)")
def plot_hazard(hazard: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Crashes per host-year by band of uptime and version, with Garwood 95 % intervals.

    Parameters
    ----------
    hazard : pandas.DataFrame
        What ``risk.survival.hazard_by_uptime`` gives.
    """
    if hazard.empty:
        raise Missing("No hazard by uptime", NO_UPTIME)
    yearly = {name: hazard[name] * DAYS_A_YEAR for name in ("rate", "low", "high")}
    table: Table = hazard.assign(**yearly).rename(columns={hazard.columns[0]: "version"})
    bands = style.in_order(table["uptime"])
    colours = style.version_colours(table["version"])
    most = table.groupby("version")[["crashes", "host_days"]].sum().nlargest(MOST_BESIDE, ["crashes", "host_days"])
    versions = style.in_order(most.index)  # more lines beside each other nobody tells apart
    drawn = style.new_axes(ax)
    step = min(0.16, 0.8 / len(versions))
    for i, name in enumerate(versions):
        rows = table[table["version"] == name]
        crashed = (rows["crashes"] > 0).to_numpy(dtype=bool)
        xs = np.array([bands.index(band) for band in rows["uptime"]]) + (i - (len(versions) - 1) / 2) * step
        # Without a crash there is no rate to mark, only how high it may be.
        lines = ["solid" if some else "dotted" for some in crashed]
        drawn.vlines(xs, rows["low"], rows["high"], color=colours[name], linewidth=2, linestyles=lines, gid="interval")
        style.mark(drawn, xs[crashed], rows.loc[crashed, "rate"], colours[name], size=6, markeredgecolor=PAPER)
    drawn.set_xticks(range(len(bands)), bands)
    drawn.grid(False, axis="x")
    tops = table.loc[table["crashes"] > 0, "high"]
    top = 1.1 * float(tops.quantile(0.9)) if len(tops) else None
    drawn.set(ylim=(0, top), ylabel="Crashes per host-year", xlabel="Uptime of the boot (days)")
    style.version_legend(drawn, versions, colours)
    left_out = table["version"].nunique() - len(versions)
    more = f"; {count(left_out, 'version')} with fewer crashes not drawn" if left_out else ""
    caption = (
        f"{sums.crashes_in_days(table)}{more}. Lines: Garwood 95 % intervals, cut at the top; dotted without a crash. Hosts that "
        "crash easily seldom reach long uptimes, so a flat or falling line is no proof that uptime is harmless."
    )
    return style.finish(drawn, _hazard_finding(table, bands), caption, table, simulated)


def _hazard_finding(table: Table, bands: Sequence[str]) -> str:
    if not table["crashes"].sum():
        return f"No crash at any uptime in {sums.host_days(float(table['host_days'].sum()))}"
    worst = table.groupby("version")["crashes"].sum().idxmax()
    rows = table[(table["version"] == worst) & (table["crashes"] > 0)].set_index("uptime")
    rows = rows.reindex(bands).dropna(subset=["rate"])
    if rows["crashes"].sum() < FEW or len(rows) < 2:
        return f"{worst}: {count(rows['crashes'].sum(), 'crash')}, too few to show a trend over uptime"
    first, last = rows.iloc[0], rows.iloc[-1]
    falls = "falls" if last["high"] < first["low"] else "shows no clear trend"
    course = "rises" if last["low"] > first["high"] else falls
    ends = f"{figure(first['rate'])} per host-year at {rows.index[0]} days, {figure(last['rate'])} at {rows.index[-1]}"
    return f"The crash rate of {worst} {course} with uptime: {ends}"


@chart(
    "version", "days", "survival", "incidence", more=" and the others of ``time_to_crash``, as far as they are drawn"
)
def plot_survival(survival: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Share of boots that the driver has crashed by an uptime, by version, with 95 % bands.

    Parameters
    ----------
    survival : pandas.DataFrame
        What ``time_to_crash`` gives.

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
        remedy = f"At no uptime were {MANY_AT_RISK} boots under watch; a curve of fewer would mean little."
        raise Missing("No curve of time to crash", remedy)
    names = style.in_order(table[by])
    colours = style.version_colours(survival[by])
    drawn = style.new_axes(ax)
    for name in names:
        rows = table[table[by] == name]
        steps: Any = {"where": "post", "color": colours[name]}
        band: Any = {"step": "post", "alpha": 0.18, "linewidth": 0, "color": colours[name], "gid": "interval"}
        drawn.fill_between(rows["days"], 100 * (1 - rows["high"]), 100 * (1 - rows["low"]), **band)
        drawn.step(rows["days"], 100 * (1 - rows["survival"]), linewidth=2, **steps)
        drawn.step(rows["days"], 100 * rows["incidence"], linewidth=1, linestyle="--", **steps)
    top = max(2.0, 115 * float((1 - table["survival"]).max()))
    drawn.set(xlim=(0, None), ylim=(0, top), xlabel="Uptime of the boot (days)")
    drawn.set_ylabel("Boots crashed by the driver (%)")
    lines = {"-": "if nothing else ended it", "--": "with reboots"}
    kinds = [Line2D([], [], color=SOFT, ls=line, label=label) for line, label in lines.items()]
    style.version_legend(drawn, names, colours, by.replace("_", " ").capitalize(), *kinds)
    ends = ", ".join(f"{name} {count(rows['crashes'].sum(), 'crash')}" for name, rows in table.groupby(by))
    caption = (
        f"{ends}; drawn while {MANY_AT_RISK} boots are under watch. Bands: 95 % (log-log), for boots that reached the uptime "
        "where a curve begins."
    )
    return style.finish(drawn, _survival_finding(table, by), caption, table, simulated)


def _survival_finding(table: Table, by: str) -> str:
    # All curves are read at one uptime, the longest that all of them reach.
    at = float(table.groupby(by)["days"].max().min())
    last = table[table["days"] <= at].groupby(by).tail(1).set_index(by)
    if not last["crashes"].sum() and (last["survival"] == 1).all():
        return "No boot under watch was crashed by the driver, at any uptime"
    worst = last["survival"].idxmin()
    row = last.loc[worst]
    spread = between(100 * (1 - row["high"]), 100 * (1 - row["low"]))
    crashed = f"{figure(100 * (1 - row['survival']))}\u00a0% ({spread})"
    return f"Within {at:.0f} days of uptime the driver crashes {crashed} of boots on {worst}"
