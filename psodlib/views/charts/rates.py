"""Rates with their intervals, and ratios of two rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from psodlib.views.cells import MOVES
from psodlib.views.charts import style, sums
from psodlib.views.charts.style import INK, PALE, PALETTE, PAPER, SMALL, SOFT, Missing, Table, chart
from psodlib.views.words import DAYS_A_YEAR, between, count, figure, known, listing

if TYPE_CHECKING:
    from psodlib.risk.decision import PinDecision
    from psodlib.risk.rates import RateRatio  # brings scipy, which most charts do without

METHODS = {"frailty": "adjusted, hosts may differ", "exact_midp": "exact where crashes are few"}
MAIN_ESTIMATES = ("headline", "known crashes only", "with unknown crashes", "worst cases of unknown", "crude")


@chart("group", "crashes", "host_days", "rate", "low", "high", "upper_at_zero", more=" (rates per host-year)")
def plot_rates(rates: pd.DataFrame, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """Crash rates per host-year with intervals, the naive count ghosted beside each.

    A group without a crash is shown by its one-sided 95 % upper bound, an open triangle that points to lower rates.

    Parameters
    ----------
    rates : pandas.DataFrame
        What ``crash_rates`` gives: the group as index, ``crashes``, ``host_days``, and per host-day ``rate``, ``low``,
        ``high``, ``upper_at_zero``.
    """
    table = _per_host_year(rates)
    if table.empty:
        raise Missing("No rate can be given", "No group has any host-day at risk.")
    names = list(table["group"])
    notes = [f"{count(row.crashes, 'crash')} in {sums.host_days(row.host_days)}" for row in table.itertuples()]
    drawn = style.new_axes(ax, 0.62 + 0.42 * len(names), [*names, *notes], legend=False)
    colours = style.version_colours(names)
    reach = _reach(table)
    # The bare counts on a scale of their own, in the shade behind.
    ghosts = table["crashes"] / max(float(table["crashes"].max()), 1.0) * reach * 0.9
    look: Any = {"height": 0.8, "color": "#efefef", "edgecolor": PALE, "linewidth": 0.6, "zorder": 0.5, "gid": "count"}
    drawn.barh(range(len(table)), ghosts, **look)
    for y, row in enumerate(table.itertuples()):
        _rate_row(drawn, y, row, style.version_fill(row.group, colours)["facecolor"])
    style.name_rows(drawn, names, notes)
    drawn.set(xlim=(0, reach), xlabel="Crashes per host-year")
    bound = "; without a crash, its one-sided upper bound (dotted)" if (table["crashes"] == 0).any() else ""
    caption = (
        f"{sums.crashes_in_days(table)}. Lines: Garwood 95 % intervals{bound}. The grey bars are the bare counts on their own "
        "scale: they mostly show where the host-days are."
    )
    return style.finish(drawn, _rates_finding(table), caption, table, simulated)


def _per_host_year(rates: Table) -> Table:
    table = rates.reset_index() if rates.index.name is not None else rates.reset_index(drop=True)
    measured = ["crashes", "host_days", "rate", "low", "high", "upper_at_zero"]
    by = [name for name in table.columns if name not in measured and not str(name).endswith("crashes")][:1]
    groups = table[by[0]].astype("string").fillna(style.UNKNOWN_VERSION) if by else pd.Series("all", index=table.index)
    out = pd.DataFrame({"group": groups})
    for name in measured:
        values = pd.to_numeric(table[name]).astype("float64") if name in table else np.nan
        out[name] = values if name in ("crashes", "host_days") else values * DAYS_A_YEAR
    return style.by_order(out[out["host_days"] > 0], "group")


def _rate_row(ax: Any, y: int, row: Any, colour: str) -> None:
    if row.crashes:
        style.interval(ax, [row.low, row.high], y, colour)
        style.mark(ax, row.rate, y, colour, markeredgecolor=PAPER)
    elif known(row.upper_at_zero):
        ax.plot([0, row.upper_at_zero], [y, y], color=colour, linewidth=1.6, linestyle=":", gid="interval")
        style.mark(ax, row.upper_at_zero, y, colour, "<", markerfacecolor=PAPER, gid="upper bound")


def _reach(table: Table) -> float:
    # Far enough for every rate and for most intervals; one group of few days must not flatten the others.
    highs = table["high"].where(table["crashes"] > 0, table["upper_at_zero"]).dropna()
    if highs.empty:
        return 1.0
    wanted = max(float(table["rate"].max()) * 1.5, float(highs.median()) * 2.5)
    return min(float(highs.max()), wanted) * 1.12


def _rates_finding(table: Table) -> str:
    crashed = table[table["crashes"] > 0]
    if crashed.empty:
        best = table.loc[table["upper_at_zero"].idxmin()]
        bound = f"the tightest bound is {figure(best['upper_at_zero'])} per host-year ({best['group']})"
        return f"No crash in {sums.host_days(float(table['host_days'].sum()))}: {bound}"
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
    return f"{first}, the highest; but the intervals overlap: not enough to rank them by this chart alone"


ADVICE = {
    "keep": "keep", "move_now": "move now", "next_reboot": "at next reboot", "no_new_installs": "no installs",
    "leave": "leave as it is",
}  # fmt: skip


@chart(
    "version", "hosts_now", "advice", "p_worse", "avoided", "avoided_low", "avoided_high",
    more="; ``avoided`` in crashes a year with its 90 % range, by moving its hosts to the best version",
)  # fmt: skip
def plot_options(decision: PinDecision | None, *, simulated: bool = False, ax: Axes | None = None) -> Axes:
    """What to do with each version: its advice, how likely the best version is better, and what moving its hosts is worth.

    Parameters
    ----------
    decision : PinDecision or None
        What ``decide_pin`` gives; None where there is nothing to decide.
    """
    if decision is None:
        raise Missing("There is nothing to choose between", "Two versions that were watched are needed.")
    columns = ["version", "hosts_now", "advice", "p_worse", "avoided", "avoided_low", "avoided_high"]
    table: Table = style.by_order(decision.options[columns].astype({"advice": "string"}), "version")
    names = [str(name) for name in table["version"]]
    notes = []
    for row in table.itertuples():
        sure = "" if row.version == decision.best else f" ({100 * min(row.p_worse, 0.99):.0f} %)"
        notes.append(f"{count(int(row.hosts_now), 'host')}; {ADVICE[row.advice]}{sure}")
    axes = style.new_axes(ax, 0.5 + 0.46 * len(names), notes, legend=False)
    colours = style.version_colours(names)
    drawn = table[(table["version"] != decision.best) & (table["hosts_now"] > 0)]
    for row in drawn.itertuples():
        colour = style.version_fill(row.version, colours)["facecolor"]
        style.interval(axes, [row.avoided_low, row.avoided_high], row.Index, colour)
        style.mark(axes, row.avoided, row.Index, colour, markerfacecolor=colour if row.advice in MOVES else PAPER)
    style.name_rows(axes, names, notes)
    axes.axvline(0, color=INK, linewidth=1)
    low, high = (float(drawn["avoided_low"].min()), float(drawn["avoided_high"].max())) if len(drawn) else (0.0, 1.0)
    reach = max(high, -low, 0.5)
    axes.set_xlim(min(low * 1.1, -0.06 * reach) if len(drawn) else -0.1, reach * 1.1)
    axes.set_xlabel(style.shown_text(f"Crashes a year avoided by moving its hosts to {decision.best}"))
    caption = (
        "Points: expected; lines: 90 % ranges; filled: moved by this advice; in brackets the chance that "
        f"{decision.best} is better. Left of 0 a move would add crashes. Adjusted for hardware, uptime, season and for "
        "hosts that differ."
    )
    return style.finish(axes, _options_finding(decision, table), caption, table, simulated)


def _options_finding(decision: PinDecision, table: Table) -> str:
    moved = table[table["advice"].isin(MOVES) & (table["hosts_now"] > 0)]
    if moved.empty:
        return "No move is likely enough to help: change nothing yet"
    which = listing(moved["version"], 3)
    worth = figure(decision.crashes_if_stay - decision.crashes_if_followed)
    return f"Moving the hosts off {which} avoids about {worth} crashes a year"


@chart("contrast", "estimate", "ratio", "low", "high", more="; NaN where there is no information, inf where unbounded")
def plot_ratio(
    ratios: RateRatio | Sequence[RateRatio], *, headlines: bool = False, simulated: bool = False, ax: Axes | None = None
) -> Axes:
    """Forest plot of a rate ratio: headline, known crashes only, with unknown, worst case, crude, other adjustments.

    Parameters
    ----------
    ratios : RateRatio or sequence of RateRatio
        What ``rate_ratio`` gives, or ``PinDecision.ratios``. Several are drawn one below the other.
    headlines : bool
        True draws one row a contrast, its headline: for whoever decides.
    """
    several: Any = [ratios] if hasattr(ratios, "reference") else list(ratios)
    columns = ["contrast", "estimate", "ratio", "low", "high"]
    table = pd.DataFrame([row for one in several for row in _forest(one)], columns=columns)
    if headlines or len(several) > 1:
        shown = MAIN_ESTIMATES[:1] if headlines else MAIN_ESTIMATES
        table = table[table["estimate"].isin(shown)].reset_index(drop=True)
    if table.empty:
        raise Missing("No two versions to compare", "Two versions with host-days are needed for a ratio.")
    if not any(sum(one.crashes) for one in several) and table.apply(_tells_nothing, axis=1).all():
        arms = _ratio_caption(several, arrows=False).split(". Lines")[0]
        raise Missing("Nothing can be said of any ratio yet", f"{arms}. No crash on either side gives no ratio.")
    names = list(table["estimate"])
    if headlines:
        names = list(table["contrast"].str.replace(" / ", " against ", regex=False))
    elif len(several) > 1:  # the first row of each contrast bears its name
        headed = table["estimate"] == "headline"
        names = list(table["estimate"].mask(headed, table["contrast"] + ": headline"))
    drawn = style.new_axes(ax, 0.8 + 0.21 * len(names), names, legend=False)
    drawn.set_xscale("log")
    low, high = _ratio_limits(table)
    drawn.set_xlim(low, high)
    for y, row in enumerate(table.itertuples()):
        _forest_row(drawn, y, row, low, high)
    drawn.axvline(1, color=INK, linewidth=1)
    style.name_rows(drawn, names)
    drawn.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    drawn.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    drawn.xaxis.set_minor_locator(NullLocator())
    drawn.tick_params(axis="y", pad=9)
    references = {one.reference for one in several}
    whose = f"{several[0].reference}'s" if len(references) == 1 else "the second version's"
    drawn.set_xlabel(style.shown_text(f"Crash rate as a multiple of {whose} (log scale)"))
    caption = _ratio_caption(several, arrows=bool(((table["low"] < low) | (table["high"] > high)).any()))
    return style.finish(drawn, _ratio_finding(several), caption, table, simulated)


def _forest(ratio: RateRatio) -> list[tuple[Any, ...]]:
    estimates = [
        ("headline", (ratio.ratio, ratio.low, ratio.high)), ("known crashes only", ratio.known_only),
        ("with unknown crashes", ratio.with_unknown), ("worst cases of unknown", ratio.adversarial),
        ("crude", ratio.crude), ("Mantel–Haenszel by model", ratio.mantel_haenszel), *ratio.sensitivity,
    ]  # fmt: skip
    contrast = f"{ratio.version} / {ratio.reference}"
    return [(contrast, name, *map(float, limits)) for name, limits in estimates]


def _tells_nothing(row: Any) -> bool:
    return bool(np.isnan(row.low) or np.isnan(row.high) or (row.low <= 0 and np.isinf(row.high)))


def _ratio_limits(table: Table) -> tuple[float, float]:
    # All that is finite, 1 always, and never more than three powers of ten to a side.
    values = table[["ratio", "low", "high"]].to_numpy(dtype=float).ravel()
    finite = values[np.isfinite(values) & (values > 0)]
    low, high = (min(finite.min(), 0.5), max(finite.max(), 2.0)) if len(finite) else (0.1, 10.0)
    return max(low / 1.4, 1e-3), min(high * 1.4, 1e3)


def _forest_row(ax: Any, y: int, row: Any, low: float, high: float) -> None:
    first = row.estimate == "headline"
    colour = PALETTE[0] if first else SOFT
    if _tells_nothing(row):
        place: Any = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        ax.annotate("no information", (1, y), fontsize=SMALL, color=SOFT, **place)
        return
    ends = max(row.low, low), min(row.high, high)
    style.interval(ax, ends, y, colour, 3 if first else 1.6)
    # An end beyond the page, or nowhere, is an arrow.
    for beyond, edge, shape in ((row.low < low, low, "<"), (row.high > high, high, ">")):
        if beyond:
            style.mark(ax, edge, y, colour, shape, clip_on=False, gid="beyond")
    if low <= row.ratio <= high:
        style.mark(ax, row.ratio, y, colour, "D" if first else "o", 8 if first else 5, gid="ratio")


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
        if one.ratio == 0:  # it has not crashed at all, which is no rate of its own
            return f"{one.version} crashes {word} often than {one.reference}: at most {figure(one.high)} times its rate"
        times = figure(one.ratio) if known(one.ratio) else "no information"
        return f"{one.version} crashes {word} often than {one.reference}: {times} times its rate ({certainty})"
    if np.isinf(one.high) and one.low <= 0:
        return f"Nothing can be said yet of {one.version} against {one.reference}"
    return f"Open whether {one.version} crashes more or less often than {one.reference} ({certainty})"


def _ratio_caption(ratios: Sequence[RateRatio], arrows: bool) -> str:
    # Each version once, then how each contrast was reckoned: three contrasts of three versions name each twice.
    arms = {
        name: f"{name}: {count(crashes, 'crash')} in {sums.host_days(days)} on {count(hosts, 'host')}"
        for one in ratios
        for name, crashes, days, hosts in zip(
            (one.version, one.reference), one.crashes, one.host_days, one.hosts, strict=True
        )
    }
    used = {one.method for one in ratios}
    methods = listing(words for method, words in METHODS.items() if method in used)
    gone = " Arrows: the interval goes on, or has no end." if arrows else ""
    return f"{'; '.join(arms.values())}. Lines: {100 * (1 - ratios[0].alpha):g} % intervals ({methods}).{gone}"
