"""What can be said of it: rates, ratios and advice with their intervals, crashes by uptime, what a verdict still lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from psodlib.views.cells import MOVES
from psodlib.views.charts import frame
from psodlib.views.charts.fleet import WEEK, weekly_sums
from psodlib.views.charts.frame import DAY, INK, PALE, PALETTE, PAPER, SOFT, Missing, Table, chart
from psodlib.views.words import DAYS_A_YEAR, between, chance, count, day, figure, known, listing, share, wait

if TYPE_CHECKING:
    from psodlib.risk.decision import PinDecision
    from psodlib.risk.rates import RateRatio  # brings scipy, which most charts do without

METHODS = {"frailty": "adjusted, hosts may differ", "exact_midp": "exact where crashes are few"}
MAIN_ESTIMATES = ("headline", "known crashes only", "with unknown crashes", "worst cases of unknown", "crude")
ADVICE = {
    "keep": "keep", "move_now": "move now", "next_reboot": "at next reboot", "no_new_installs": "no installs",
    "leave": "leave as it is",
}  # fmt: skip
MOST_WEEKS = 104  # of waiting drawn; a longer way leaves the page
MOST_BESIDE = 5  # intervals beside each other in one band of uptime
MANY_AT_RISK = 10  # boots under watch, for a curve
NO_UPTIME = "No stretch says how long its boot had run."
MOST_BY_CHANCE = 2.64  # standard deviations that the largest of six bands stays below in 95 of 100 fleets
FEW = 5  # crashes below which no shape over uptime is claimed


@chart("group", "crashes", "host_days", "rate", "low", "high", "upper_at_zero", more=" (rates per host-year)")
def plot_rates(rates: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Crash rates per host-year with intervals, the naive count ghosted beside each.

    A group without a crash is shown by its one-sided 95 % upper bound, an open triangle that points to lower rates.
    """
    table = frame.some(_per_host_year(rates), "No rate can be given", "No group has any host-day at risk.")
    fills = frame.version_fills(table["group"])
    notes = [f"{count(row.crashes, 'crash')} in {frame.host_days(row.host_days)}" for row in table.itertuples()]
    drawn = frame.rows(ax, table["group"], notes, 0.62, 0.42)
    ceiling = table["high"].where(table["crashes"] > 0, table["upper_at_zero"])
    # Far enough for every rate and for most intervals; one group of few days must not flatten the others.
    wanted = max(float(table["rate"].max()) * 1.5, float(ceiling.median()) * 2.5)
    reach = min(float(ceiling.max()), wanted) * 1.12 if ceiling.notna().any() else 1.0
    # The bare counts on a scale of their own, in the shade behind.
    ghosts = table["crashes"] / max(float(table["crashes"].max()), 1.0) * reach * 0.9
    look: Any = {"height": 0.8, "color": "#efefef", "edgecolor": PALE, "linewidth": 0.6, "zorder": 0.5, "gid": "count"}
    drawn.barh(range(len(table)), ghosts, **look)
    for y, row in enumerate(table.itertuples()):
        colour = fills[row.group]["facecolor"]
        if row.crashes:
            frame.interval(drawn, [row.low, row.high], y, colour)
            frame.mark(drawn, row.rate, y, colour, markeredgecolor=PAPER)
        elif known(row.upper_at_zero):
            frame.interval(drawn, [0, row.upper_at_zero], y, colour, 1.6, ":")
            frame.mark(drawn, row.upper_at_zero, y, colour, "<", markerfacecolor=PAPER, gid="upper bound")
    drawn.set(xlim=(0, reach), xlabel="Crashes per host-year")
    bound = "; without a crash, its one-sided upper bound (dotted)" if (table["crashes"] == 0).any() else ""
    caption = (
        f"{frame.crashes_in_days(table)}. Lines: Garwood 95 % intervals{bound}. The grey bars are the bare counts on "
        "their own scale: they mostly show where the host-days are."
    )
    return frame.finish(drawn, _rates_finding(table, ceiling), caption, table, simulated)


def _per_host_year(rates: Table) -> Table:
    measured = ["crashes", "host_days", "rate", "low", "high", "upper_at_zero"]
    named = rates.index.names != [None]
    table = rates.reset_index(drop=not named)
    others = [name for name in table.columns if name not in measured and not str(name).endswith("crashes")]
    by = table[list(rates.index.names) if named else others[:1]].astype("string").fillna(frame.UNKNOWN_VERSION)
    out = table.reindex(columns=measured).apply(pd.to_numeric).astype("float64")
    out[measured[2:]] *= DAYS_A_YEAR
    groups = [", ".join(row) for row in by.itertuples(index=False)] if len(by.columns) else "all"
    out.insert(0, "group", pd.Series(groups, index=out.index, dtype="string"))
    return frame.by_order(out[out["host_days"] > 0], "group")


def _rates_finding(table: Table, ceiling: Table) -> str:
    crashed = table[table["crashes"] > 0]
    if crashed.empty:
        best = table.loc[table["upper_at_zero"].idxmin()]
        bound = f"the tightest bound is {figure(best['upper_at_zero'])} per host-year ({best['group']})"
        return f"No crash in {frame.host_days(table['host_days'].sum())}: {bound}"
    top = crashed.loc[crashed["rate"].idxmax()]
    first = f"{top['group']}: {figure(top['rate'])} crashes per host-year ({between(top['low'], top['high'])})"
    others = ceiling.drop(top.name)
    if others.empty:
        return f"{first}; there is nothing to compare it with"
    below = list(table.loc[others.index[others < top["low"]], "group"])
    if len(below) == len(others):
        return f"{first}, and its interval lies above every other"
    if below:
        return f"{first}; its interval lies above that of {listing(below, 3)}, not of every other"
    return f"{first}, the highest; but the intervals overlap: not enough to rank them by this chart alone"


@chart("week", "crashes", "host_days", "rate", "low", "high", more=" (per host-year)")
def plot_weekly_rate(
    exposure: pd.DataFrame, *, version: str | None = None, simulated: bool = False, ax: Axes | None = None
) -> Axes:
    """Crashes per host-year week by week, with Garwood 95 % intervals."""
    from psodlib.risk.exact import poisson_interval  # brings scipy, which most charts do without

    whole = frame.completed(exposure)
    stretches = frame.dated(whole if version is None else frame.of_version(whole, version))
    frame.some(stretches, "No host-days to show a weekly rate of", "No stretch with a start and an end matches.")
    table = weekly_sums(stretches).groupby("week", as_index=False)[["crashes", "host_days"]].sum()
    limits = [poisson_interval(row.crashes, row.host_days / DAYS_A_YEAR) for row in table.itertuples()]
    table["rate"] = table["crashes"] * DAYS_A_YEAR / table["host_days"]
    table["low"], table["high"] = zip(*limits, strict=True)
    drawn = frame.new_axes(ax, legend=False)
    middle, seen = table["week"] + WEEK / 2, table["crashes"] > 0
    drawn.vlines(middle, table["low"], table["high"], color=np.where(seen, SOFT, PALE), linewidth=1.5)
    frame.mark(drawn, middle[seen], table.loc[seen, "rate"], PALETTE[1], size=5)
    overall = DAYS_A_YEAR * table["crashes"].sum() / table["host_days"].sum()
    drawn.axhline(overall, color=INK, linewidth=1, linestyle="--")
    # A week of few host-days has an interval that would flatten all others.
    top = max(2 * float(table["rate"].max()), float(table["high"].median()))
    drawn.set(ylim=(0, top), ylabel="Crashes per host-year")
    frame.time_axis(drawn)
    what = " ".join(filter(None, [frame.module_of(whole), version]))
    finding = f"{what}: {figure(overall)} crashes per host-year; {seen.sum():,} of {count(len(table), 'week')} saw one"
    caption = (
        f"{frame.evidence(stretches)}. Lines: Garwood 95 % intervals of each week, grey where it had no crash, cut at "
        "the top; dashed: the whole time."
    )
    return frame.finish(drawn, finding, caption, table, simulated)


@chart(
    "version", "hosts_now", "advice", "p_worse", "avoided", "avoided_low", "avoided_high",
    more="; ``avoided`` in crashes a year with its 90 % range, by moving its hosts to the best version",
)  # fmt: skip
def plot_options(decision: PinDecision | None, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """What to do with each version: its advice, how likely the best version is better, and what moving its hosts is worth."""
    if decision is None:
        raise Missing("There is nothing to choose between", "Two versions that were watched are needed.")
    columns = ["version", "hosts_now", "advice", "p_worse", "avoided", "avoided_low", "avoided_high"]
    table: Table = frame.by_order(decision.options[columns].astype({"advice": "string"}), "version")
    fills, notes = frame.version_fills(table["version"]), []
    for row in table.itertuples():
        sure = "" if row.version == decision.best else f" ({chance(row.p_worse).replace('over ', '>')})"
        notes.append(f"{count(row.hosts_now, 'host')}; {ADVICE[row.advice]}{sure}")
    drawn = frame.rows(ax, table["version"], notes, 0.5, 0.46)
    others = table[(table["version"] != decision.best) & (table["hosts_now"] > 0)]
    for row in others.itertuples():
        colour = fills[row.version]["facecolor"]
        frame.interval(drawn, [row.avoided_low, row.avoided_high], row.Index, colour)
        frame.mark(drawn, row.avoided, row.Index, colour, markerfacecolor=colour if row.advice in MOVES else PAPER)
    drawn.axvline(0, color=INK, linewidth=1)
    low, high = (others["avoided_low"].min(), others["avoided_high"].max()) if len(others) else (0.0, 1.0)
    reach = max(high, -low, 0.5)
    drawn.set_xlim(min(low * 1.1, -0.06 * reach) if len(others) else -0.1, reach * 1.1)
    drawn.set_xlabel(frame.shown_text(f"Crashes a year avoided by moving its hosts to {decision.best}"))
    caption = (
        "Points: expected; lines: 90 % ranges; filled: moved by this advice; in brackets the chance that "
        f"{decision.best} is better. Left of 0 a move would add crashes. Adjusted for hardware, uptime, season and for "
        "hosts that differ."
    )
    moved = others.loc[others["advice"].isin(MOVES), "version"]
    worth = figure(decision.crashes_if_stay - decision.crashes_if_followed)
    finding = f"Moving the hosts off {listing(moved, 3)} avoids about {worth} crashes a year"
    finding = finding if len(moved) else "No move is likely enough to help: change nothing yet"
    return frame.finish(drawn, finding, caption, table, simulated)


@chart("contrast", "estimate", "ratio", "low", "high", more="; NaN where there is no information, inf where unbounded")
def plot_ratio(
    ratios: RateRatio | Sequence[RateRatio], *, headlines: bool = False, simulated: bool = False, ax: Axes | None = None
) -> Axes:
    """Forest plot of a rate ratio: headline, known crashes only, with unknown, worst case, crude, other adjustments."""
    several: Any = [ratios] if hasattr(ratios, "reference") else list(ratios)
    columns = ["contrast", "estimate", "ratio", "low", "high"]
    table = pd.DataFrame([row for one in several for row in _forest(one)], columns=columns)
    if headlines or len(several) > 1:
        shown = MAIN_ESTIMATES[:1] if headlines else MAIN_ESTIMATES
        table = table[table["estimate"].isin(shown)].reset_index(drop=True)
    frame.some(table, "No two versions to compare", "Two versions with host-days are needed for a ratio.")
    if not any(sum(one.crashes) for one in several) and table.apply(_tells_nothing, axis=1).all():
        remedy = f"{_arms(several)}. No crash on either side gives no ratio."
        raise Missing("Nothing can be said of any ratio yet", remedy)
    names: Table = table["estimate"]
    if headlines:
        names = table["contrast"].str.replace(" / ", " against ", regex=False)
    elif len(several) > 1:  # the first row of each contrast bears its name
        names = names.mask(names == "headline", table["contrast"] + ": headline")
    drawn = frame.rows(ax, names, (), 0.8, 0.21)
    drawn.set_xscale("log")
    # All that is finite, 1 always, and never more than three powers of ten to a side.
    values = table[["ratio", "low", "high"]].to_numpy(dtype=float)
    finite = values[np.isfinite(values) & (values > 0)]
    low, high = (min(finite.min(), 0.5), max(finite.max(), 2.0)) if len(finite) else (0.1, 10.0)
    low, high = max(low / 1.4, 1e-3), min(high * 1.4, 1e3)
    drawn.set_xlim(low, high)
    for y, row in enumerate(table.itertuples()):
        _forest_row(drawn, y, row, low, high)
    drawn.axvline(1, color=INK, linewidth=1)
    drawn.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    drawn.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    drawn.xaxis.set_minor_locator(NullLocator())
    drawn.tick_params(axis="y", pad=9)
    one = several[0]
    whose = f"{one.reference}'s" if len({each.reference for each in several}) == 1 else "the second version's"
    drawn.set_xlabel(frame.shown_text(f"Crash rate as a multiple of {whose} (log scale)"))
    methods = listing(words for method, words in METHODS.items() if method in {each.method for each in several})
    beyond = ((table["low"] < low) | (table["high"] > high)).any()
    gone = " Arrows: the interval goes on, or has no end." if beyond else ""
    caption = f"{_arms(several)}. Lines: {100 * (1 - one.alpha):g} % intervals ({methods}).{gone}"
    return frame.finish(drawn, _ratio_finding(several), caption, table, simulated)


def _forest(ratio: RateRatio) -> list[tuple[Any, ...]]:
    every = ((ratio.ratio, ratio.low, ratio.high), ratio.known_only, ratio.with_unknown, ratio.adversarial, ratio.crude)
    more = [("Mantel–Haenszel by model", ratio.mantel_haenszel), *ratio.sensitivity]
    estimates = [*zip(MAIN_ESTIMATES, every, strict=True), *more]
    return [(f"{ratio.version} / {ratio.reference}", name, *map(float, limits)) for name, limits in estimates]


def _tells_nothing(row: Any) -> bool:
    return bool(np.isnan(row.low) or np.isnan(row.high) or (row.low <= 0 and np.isinf(row.high)))


def _forest_row(ax: Any, y: int, row: Any, low: float, high: float) -> None:
    first = row.estimate == "headline"
    colour = PALETTE[0] if first else SOFT
    if _tells_nothing(row):
        frame.beside(ax, "no information", (1, y), (6, 0), va="center")
        return
    frame.interval(ax, (max(row.low, low), min(row.high, high)), y, colour, 3 if first else 1.6)
    # An end beyond the page, or nowhere, is an arrow.
    for beyond, edge, shape in ((row.low < low, low, "<"), (row.high > high, high, ">")):
        if beyond:
            frame.mark(ax, edge, y, colour, shape, clip_on=False, gid="beyond")
    if low <= row.ratio <= high:
        frame.mark(ax, row.ratio, y, colour, "D" if first else "o", 8 if first else 5, gid="ratio")


def _ratio_finding(ratios: Sequence[RateRatio]) -> str:
    decided = [one for one in ratios if one.low > 1 or one.high < 1]
    if len(ratios) > 1:
        pairs = listing((f"{one.version} against {one.reference}" for one in decided), 3)
        which = f"{len(decided)} of {len(ratios)} intervals exclude equal rates ({pairs}), before"
        none = f"None of {len(ratios)} intervals excludes equal rates, even before"
        return f"{which if decided else none} correction for their number"
    one = ratios[0]
    certainty = f"{100 * (1 - one.alpha):g}\u00a0% interval {between(one.low, one.high)}"
    if decided:
        often = f"{one.version} crashes {'more' if one.low > 1 else 'less'} often than {one.reference}"
        if one.ratio == 0:  # it has not crashed at all, which is no rate of its own
            return f"{often}: at most {figure(one.high)} times its rate"
        return f"{often}: {figure(one.ratio)} times its rate ({certainty})"
    if np.isinf(one.high) and one.low <= 0:
        return f"Nothing can be said yet of {one.version} against {one.reference}"
    return f"Open whether {one.version} crashes more or less often than {one.reference} ({certainty})"


def _arms(ratios: Sequence[RateRatio]) -> str:
    # Each version once: three contrasts of three versions name each twice.
    arms = {}
    for one in ratios:
        for name, *numbers in zip((one.version, one.reference), one.crashes, one.host_days, one.hosts, strict=True):
            crashes, days, hosts = numbers
            arms[name] = f"{name}: {count(crashes, 'crash')} in {frame.host_days(days)} on {count(hosts, 'host')}"
    return "; ".join(arms.values())


# ---- by uptime -----------------------------------------------------------------------------------------------------------


@chart("band", "version", "host_days", "crashes")
def plot_uptime_at_crash(exposure: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Share of crashes beside share of host-days, by band of uptime.

    If uptime did not matter, the two bars of each band would be alike.
    """
    stretches = frame.completed(exposure)
    aged = frame.dated(stretches[stretches["uptime_start"].notna()])
    frame.some(aged, "Uptime at crash is not known", NO_UPTIME)
    from psodlib.risk.survival import hazard_by_uptime  # brings scipy, which most charts do without

    named = aged.assign(version=frame.lumped(aged["version"], aged["host_days"]))
    # Only bands that any host reached, in their order.
    table: Table = hazard_by_uptime(named).rename(columns={"uptime": "band"})
    table = frame.by_order(table[["band", "version", "host_days", "crashes"]], "band")
    whole = table.groupby("band", sort=False)[["host_days", "crashes"]].sum()
    names, fills = frame.in_order(table["version"]), frame.version_fills(exposure["version"])
    places = np.arange(len(whole))
    drawn = frame.new_axes(ax)
    time = 100 * whole["host_days"] / table["host_days"].sum()
    drawn.bar(places - 0.2, time, width=0.38, color=PALE, gid="host-days")
    parts = 100 * frame.spread(table, whole.index, names, "crashes") / max(whole["crashes"].sum(), 1)
    ends = frame.stacked(drawn, parts, fills, places + 0.2, width=0.38)
    # The host-days stand under the bands, where no bar can reach them.
    drawn.set_xticks(places, [f"{band}\n{days:,.0f} d" for band, days in whole["host_days"].items()])
    drawn.grid(False, axis="x")
    for x, number, end in zip(places, whole["crashes"], ends, strict=True):
        frame.beside(drawn, f"{number:,}", (x + 0.2, end), (0, 2), ha="center")
    drawn.set(ylabel="Share of all (%)", xlabel="Uptime of the boot (days), and host-days spent at it")
    at_risk = Patch(facecolor=PALE, label="host-days at risk")
    crashed = frame.patches([name for name in names if parts[name].any()], fills)
    frame.add_legend(drawn, [at_risk, *crashed], "Grey: time. Colour: crashes")
    caption = (
        f"{frame.evidence(stretches)}. Each pair: share of the host-days and share of the crashes at that uptime; if "
        "both are alike, uptime does not matter."
    )
    return frame.finish(drawn, _uptime_finding(whole), caption, table, simulated)


def _uptime_finding(whole: Table) -> str:
    days, total = whole.sum()
    if not total:
        return f"No crash at any uptime in {frame.host_days(days)}"
    if total < FEW:
        return f"{count(total, 'crash')}: too few to say at what uptime hosts crash"
    shares = whole / whole.sum()
    over = shares["crashes"] - shares["host_days"]
    excess, part = over.idxmax(), shares.loc[over.idxmax(), "host_days"]
    if over.max() < MOST_BY_CHANCE * np.sqrt(part * (1 - part) / total):
        return f"No uptime stands out: the {total:,.0f} crashes lie as the time does, as far as chance can tell"
    crashes, time = share(whole.loc[excess, "crashes"], total), share(whole.loc[excess, "host_days"], days)
    return f"{crashes} of {total:,.0f} crashes fell at {excess} days of uptime, where {time} of the time was spent"


@chart("version", "uptime", "crashes", "host_days", "rate", "low", "high", more=" (rates per host-year)")
def plot_hazard(hazard: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Crashes per host-year by band of uptime and version, with Garwood 95 % intervals."""
    frame.some(hazard, "No hazard by uptime", NO_UPTIME)
    yearly = {name: hazard[name] * DAYS_A_YEAR for name in ("rate", "low", "high")}
    table: Table = hazard.assign(**yearly).rename(columns={hazard.columns[0]: "version"})
    bands, fills = frame.in_order(table["uptime"]), frame.version_fills(table["version"])
    most = table.groupby("version")[["crashes", "host_days"]].sum().nlargest(MOST_BESIDE, ["crashes", "host_days"])
    versions = frame.in_order(most.index)  # more lines beside each other nobody tells apart
    drawn = frame.new_axes(ax)
    step = min(0.16, 0.8 / len(versions))
    for i, name in enumerate(versions):
        rows = table[table["version"] == name]
        crashed, colour = (rows["crashes"] > 0).to_numpy(dtype=bool), fills[name]["facecolor"]
        xs = np.array([bands.index(band) for band in rows["uptime"]]) + (i - (len(versions) - 1) / 2) * step
        # Without a crash there is no rate to mark, only how high it may be.
        lines = ["solid" if some else "dotted" for some in crashed]
        drawn.vlines(xs, rows["low"], rows["high"], color=colour, linewidth=2, linestyles=lines, gid="interval")
        frame.mark(drawn, xs[crashed], rows.loc[crashed, "rate"], colour, size=6, markeredgecolor=PAPER)
    drawn.set_xticks(range(len(bands)), bands)
    drawn.grid(False, axis="x")
    tops = table.loc[table["crashes"] > 0, "high"]
    top = 1.1 * float(tops.quantile(0.9)) if len(tops) else None
    drawn.set(ylim=(0, top), ylabel="Crashes per host-year", xlabel="Uptime of the boot (days)")
    frame.add_legend(drawn, frame.patches(versions, fills))
    left_out = table["version"].nunique() - len(versions)
    more = f"; {count(left_out, 'version')} with fewer crashes not drawn" if left_out else ""
    caption = (
        f"{frame.crashes_in_days(table)}{more}. Lines: Garwood 95 % intervals, cut at the top; dotted without a crash. "
        "Hosts that crash easily seldom reach long uptimes, so a flat or falling line is no proof that uptime is harmless."
    )
    return frame.finish(drawn, _hazard_finding(table, bands), caption, table, simulated)


def _hazard_finding(table: Table, bands: Sequence[str]) -> str:
    if not table["crashes"].sum():
        return f"No crash at any uptime in {frame.host_days(table['host_days'].sum())}"
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


@chart("version", "days", "survival", "incidence", more=" and the others of ``time_to_crash``, where drawn")
def plot_survival(survival: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Share of boots that the driver has crashed by an uptime, by version, with 95 % bands.

    Notes
    -----
    Solid with its band: 1 - Kaplan-Meier, as if nothing but the driver could end a boot. Dashed: Aalen-Johansen, the
    share of boots that the driver does end where reboots and other crashes come first. Drawn while 10 boots are
    under watch.
    """
    by = str(survival.columns[0])
    table: Table = survival[survival["at_risk"] >= MANY_AT_RISK]
    table = table[table.groupby(by)["days"].transform("count") > 1]
    remedy = f"At no uptime were {MANY_AT_RISK} boots under watch; a curve of fewer would mean little."
    frame.some(table, "No curve of time to crash", remedy)
    names, fills = frame.in_order(table[by]), frame.version_fills(survival[by])
    drawn = frame.new_axes(ax)
    for name in names:
        rows, colour = table[table[by] == name], fills[name]["facecolor"]
        days, crashed = rows["days"], {end: 100 * (1 - rows[end]) for end in ("survival", "low", "high")}
        band: Any = {"step": "post", "alpha": 0.18, "linewidth": 0, "color": colour, "gid": "interval"}
        drawn.fill_between(days, crashed["high"], crashed["low"], **band)
        drawn.step(days, crashed["survival"], linewidth=2, where="post", color=colour)
        drawn.step(days, 100 * rows["incidence"], linewidth=1, linestyle="--", where="post", color=colour)
    top = max(2.0, 115 * float((1 - table["survival"]).max()))
    drawn.set(xlim=(0, None), ylim=(0, top), xlabel="Uptime of the boot (days)")
    drawn.set_ylabel("Boots crashed by the driver (%)")
    lines = {"-": "if nothing else ended it", "--": "with reboots"}
    kinds = [Line2D([], [], color=SOFT, ls=line, label=label) for line, label in lines.items()]
    frame.add_legend(drawn, [*frame.patches(names, fills), *kinds], by.replace("_", " ").capitalize())
    ends = ", ".join(f"{name} {count(rows['crashes'].sum(), 'crash')}" for name, rows in table.groupby(by))
    caption = (
        f"{ends}; drawn while {MANY_AT_RISK} boots are under watch. Bands: 95 % (log-log), for boots that reached the "
        "uptime where a curve begins."
    )
    return frame.finish(drawn, _survival_finding(table, by), caption, table, simulated)


def _survival_finding(table: Table, by: str) -> str:
    # All curves are read at one uptime, the longest that all of them reach.
    at = float(table.groupby(by)["days"].max().min())
    last = table[table["days"] <= at].groupby(by).tail(1).set_index(by)
    if not last["crashes"].sum() and (last["survival"] == 1).all():
        return f"Within {at:.0f} days of uptime the driver crashed no boot; few were watched for longer"
    worst = last["survival"].idxmin()
    percent = 100 * (1 - last.loc[worst, ["survival", "high", "low"]])
    crashed = f"{figure(percent['survival'])}\u00a0% ({between(percent['high'], percent['low'])})"
    return f"Within {at:.0f} days of uptime the driver crashes {crashed} of boots on {worst}"


# ---- what is still needed ------------------------------------------------------------------------------------------------


@chart(
    "version", "host_days", "needed", "per_week", "weeks",
    more="; ``needed`` are further host-days (NA where no amount would do), ``weeks`` NA where no host runs it",
)  # fmt: skip
def plot_evidence_needed(
    decision: PinDecision | None, exposure: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None
) -> Axes:
    """Host-days gathered by each candidate over time, and what is still missing for a decision."""
    from psodlib.views.study import still_needed  # brings scipy, too

    stretches = frame.dated(frame.completed(exposure))
    remedy = "Candidates and an exposure table with starts and ends are needed."
    frame.some(stretches, "How long a verdict will take is not known", remedy)
    table = frame.some(still_needed(decision, stretches), "How long a verdict will take is not known", remedy)
    drawn = frame.new_axes(ax)
    begin, now, colours = stretches["start"].min(), stretches["end"].max(), frame.version_colours(exposure["version"])
    horizon = now + min(max(table["weeks"].fillna(0).max(), 4), MOST_WEEKS) * 1.04 * WEEK
    weeks = [*pd.date_range(begin, now, freq=WEEK, inclusive="left"), now]
    entries = []
    for row in table.itertuples():
        look: Any = {"color": colours[row.version]}
        here = frame.of_version(stretches, row.version)
        days = [((here["end"].clip(upper=week) - here["start"]) / DAY).clip(lower=0).sum() for week in weeks]
        drawn.plot(weeks, days, linewidth=1.8, gid="gathered", **look)
        if known(row.weeks) and row.weeks > 0:
            ahead = min(float(row.weeks), (horizon - now) / WEEK)
            gathered = [row.host_days, row.host_days + ahead * row.per_week]
            drawn.plot([now, now + ahead * WEEK], gathered, linestyle="--", gid="to go", **look)
            if ahead == row.weeks:
                verdict = (now + ahead * WEEK, row.host_days + row.needed, colours[row.version])
                frame.mark(drawn, *verdict, "D", markerfacecolor=PAPER, gid="verdict")
        entries.append(Line2D([], [], label=f"{frame.short_label(row.version)}: {_still_words(row)}", **look))
    drawn.axvline(now, color=SOFT, linewidth=1, linestyle=":")
    drawn.set(xlim=(begin, horizon), ylim=(0, None), ylabel="Host-days gathered")
    drawn.yaxis.set_major_formatter("{x:,.0f}")
    frame.time_axis(drawn)
    frame.add_legend(drawn, entries, "Candidate")
    caption = (
        f"{frame.evidence(stretches)} until {day(now)} (dotted). Dashed: at the pace of the last four weeks, and at "
        "the current crash rate; each crash changes what is needed."
    )
    return frame.finish(drawn, _still_finding(table), caption, table, simulated)


def _still_words(row: Any) -> str:
    if not known(row.needed):
        return "more on both versions"
    if row.needed == 0:
        return "can be told now"
    pace = wait(row.weeks) if known(row.weeks) else "no host runs it now"
    return f"about {figure(row.needed)} more host-days\n({pace})"


def _still_finding(table: Table) -> str:
    needed = table["needed"]
    if (needed == 0).fillna(False).all():
        return "All candidates can be told apart: no further host-days are needed for this verdict"
    waiting = table[(table["weeks"] > 0).fillna(False)]
    if len(waiting):
        first = waiting.loc[waiting["weeks"].idxmin()]
        return f"At today's pace we could decide in {wait(first['weeks'])}, with more time on {first['version']}"
    if (needed > 0).fillna(False).any():
        return "No verdict is under way: no host runs a candidate that lacks host-days"
    open_ones = listing(table.loc[needed.isna(), "version"])
    return f"At the rates seen so far, no number of host-days on one version alone would settle {open_ones}"
