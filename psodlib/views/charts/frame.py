"""What all charts share: colours, the frame with its title and caption, labels, legends, the words of counts, the files.

Text that came out of a log is drawn letter by letter: no mathtext, no control characters, no missing glyphs.
"""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeAlias

import matplotlib
import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgba, to_rgba_array
from matplotlib.patches import Patch

from psodlib.errors import InputError
from psodlib.views.words import count, figure, known, label, literal

INK, SOFT, PALE, PAPER, CRASH = "#222222", "#666666", "#c9c9c9", "#ffffff", "#000000"
# Of these greys what each becomes on a dark page; the colours of versions read on both.
DARK = {
    INK: "#eceaf0", SOFT: "#b3adbb", PALE: "#5a5462", PAPER: "#17151a", CRASH: "#f4f2f7", "#e6e6e6": "#35313c",
    "#efefef": "#2b2831",
}  # fmt: skip
# Okabe and Ito's colours (2008), without the yellow that is lost on white paper; then the same, lighter.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a5c99", "#8c6d31", "#66aad1", "#e69e66")
Fills = dict[str, dict[str, Any]]  # how the bars of each name are filled
UNKNOWN_VERSION, NOT_WATCHED, OTHERS = "version unknown", "not watched", "other versions"
# What is not known is grey and hatched, so that it reads without colour too.
QUIET: Fills = {
    OTHERS: {"facecolor": PALE, "hatch": "", "edgecolor": SOFT},
    UNKNOWN_VERSION: {"facecolor": "#8a8a8a", "hatch": "////", "edgecolor": SOFT},
    NOT_WATCHED: {"facecolor": PAPER, "hatch": "....", "edgecolor": SOFT},
}
MOST_VERSIONS = 7  # more colours than this nobody tells apart
LONGEST_LABEL = 34  # letters; a longer name loses its middle
DAY = pd.Timedelta(days=1)
P = ParamSpec("P")
# A DataFrame or a Series: pandas-stubs gives each cell the union of all types, so inside this wing's charts they go unchecked.
Table: TypeAlias = Any
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
WIDTH = 4.7  # inches of the plot itself; with labels and legend about a printed page, so that 8 points stay 8 points
LEGEND = 1.6  # inches beside it
EDGE = 0.1  # inches of paper around a saved chart
SMALL = 8.5  # points; no text of a chart is smaller
# What the arguments of the ``plot_*`` are, for their docstrings.
PARAMETERS = {
    "exposure": "Exposure table; ``start`` and ``end`` place it in time, ``uptime_start`` in a boot.",
    "crashes": "The fleet's ``crashes``.",
    "uptimes": "The fleet's ``uptimes``: which boots lasted longer than evidence covers, and how each ended.",
    "coverage": "The fleet's ``coverage``: says which hosts left no log in a month.",
    "by": "Column of ``exposure`` to group by, such as ``model``; where it holds nothing, one bar for all.",
    "version": "Only the time with this version loaded.",
    "rates": "What ``crash_rates`` gives: the group as index; ``crashes``, ``host_days``, and the rest per host-day.",
    "decision": "What ``decide_pin`` gives; None where there is nothing to decide.",
    "ratios": "What ``rate_ratio`` gives, or ``PinDecision.ratios``: several are drawn one below the other.",
    "headlines": "True draws one row a contrast, its headline: for whoever decides.",
    "hazard": "What ``risk.survival.hazard_by_uptime`` gives.",
    "survival": "What ``time_to_crash`` gives.",
    "timeline": "What ``incident_timeline`` gives.",
    "result": "What ``watch_rollout`` gives.",
    "simulated": 'True prints "simulated fleet" in the caption.',
    "ax": "Where to draw; a new figure by default.",
}
# What each of them cannot do without: columns of a table, or fields of a result.
NEEDED = {
    "exposure": ("host", "version", "host_days"), "crashes": ("guilt", "guilty_module", "time"), "rates": ("crashes", "host_days", "rate"),
    "uptimes": ("boot", "end_reason"), "coverage": ("start", "end"), "decision": ("host_days_needed",), "hazard": ("rate", "low"),
    "survival": ("at_risk", "survival"), "timeline": ("lane", "what"), "result": ("weeks", "hosts"),
}  # fmt: skip
PARTS = "Parameters\n----------\n", "Returns\n-------\nmatplotlib.axes.Axes\n    ``numbers(ax)``: "


class Missing(Exception):
    """What a chart has nothing to show of, and what would help: two sentences."""


def some(table: Table, what: str, remedy: str) -> Table:
    """A table that holds something; of an empty one the chart says what is missing, and what would help."""
    if not len(table):
        raise Missing(what, remedy)
    return table


def chart(*columns: str, more: str = "") -> Callable[[Callable[P, Axes]], Callable[P, Axes]]:
    """What makes a ``plot_*`` of a function: the style, a panel where something is ``Missing``, and the rest of its docstring:
    what it takes, and the columns of ``numbers(ax)``."""

    def dressed(plot: Callable[P, Axes]) -> Callable[P, Axes]:
        @functools.wraps(plot)
        def drawn(*args: P.args, **given: P.kwargs) -> Axes:
            for name, value in inspect.signature(plot).bind(*args, **given).arguments.items():
                lacks = [part for part in NEEDED.get(name, ()) if not hasattr(value, part)]
                if lacks and value is not None and len(getattr(value, "index", "x")):
                    found = f"{plot.__name__} was given a {type(value).__name__} without {', '.join(lacks)}"
                    raise InputError(f"{found}; expected: {PARAMETERS[name].replace('``', '')}")
            with plt.rc_context(STYLE):
                try:
                    made = plot(*args, **given)
                except Missing as missing:
                    made = _panel(missing, columns, given.get("ax"), bool(given.get("simulated")))
                interactive = plt.isinteractive()
            # A session's first figure starts the backend, and a notebook's turns interactive mode on: not ours to undo.
            matplotlib.interactive(interactive)
            return made

        own, heading, notes = inspect.cleandoc(plot.__doc__ or "").partition("\n\nNotes\n")
        taken = inspect.signature(plot).parameters.items()
        takes = "\n".join(f"{name} : {one.annotation}\n    {PARAMETERS[name]}" for name, one in taken)
        gives = ", ".join(f"``{name}``" for name in columns) + more
        drawn.__doc__ = f"{own}\n\n{PARTS[0]}{takes}\n\n{PARTS[1]}{gives}.{heading}{notes}"
        return drawn

    return dressed


# ---- the frame -----------------------------------------------------------------------------------------------------------


def new_axes(ax: Any | None, height: float = 2.8, labels: Iterable[str] = (), legend: bool = True) -> Any:
    """Where to draw: the given Axes, else a figure that labels and legend widen, so that the plot keeps its width."""
    width = WIDTH + 0.075 * max(map(len, labels), default=6) + (LEGEND if legend else 0.2)
    return plt.subplots(figsize=(width, height + 0.9), layout="constrained")[1] if ax is None else ax


def finish(ax: Any, finding: str, caption: str, table: Table, simulated: bool, remedy: str = "") -> Axes:
    """Title, caption and table twin of a chart; the last thing that every ``plot_*`` does."""
    left, inches = 0.0, max(ax.get_window_extent().width / ax.figure.dpi, 3.0)
    if ax.figure.get_layout_engine() is not None and len(ax.figure.axes) == 1:
        # Title and caption begin where the row labels do, in widths of the plot, and run to the figure's edge.
        ax.figure.draw_without_rendering()
        plot, labels = ax.get_window_extent(), ax.yaxis.get_tightbbox(ax.figure.canvas.get_renderer())
        start = min(labels.x0, plot.x0) if labels is not None else plot.x0
        left, inches = (start - plot.x0) / plot.width, (ax.figure.bbox.x1 - start) / ax.figure.dpi - 0.1
    caption = f"Simulated fleet. {caption}" if simulated else caption
    # About 10.5 and 15 letters an inch in these sizes.
    ax.set_title(_wrapped(finding, inches * 10.5), loc="left", x=left)
    # Hung on the x label, so that it stays below it whatever the ticks do.
    ax.annotate(
        _wrapped(caption, inches * 15), xy=(left, 0), xytext=(0, -8), xycoords=("axes fraction", ax.xaxis.label),
        textcoords="offset points", ha="left", va="top", fontsize=SMALL, color=SOFT, annotation_clip=False, gid="caption",
    )  # fmt: skip
    ax.psod_numbers, ax.psod_words = table.reset_index(drop=True), (finding, caption, remedy)
    # At a cell's end the backend shows the figure; the Axes adds no line of its own.
    ax._ipython_display_ = lambda: None
    done: Axes = ax
    return done


def _wrapped(words: str, letters: float) -> str:
    return shown_text(textwrap.fill(words, round(letters), break_on_hyphens=False), keep_breaks=True)


def _panel(missing: Missing, columns: Sequence[str], ax: Any, simulated: bool) -> Axes:
    # Says what is missing, because an empty chart reads as "nothing happened".
    what, remedy = missing.args
    panel = new_axes(ax, 0.9, legend=False)
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
    panel.text(0.0, 0.6, _wrapped(remedy, 80), transform=panel.transAxes, color=SOFT, va="center")
    empty = pd.DataFrame(columns=list(columns))
    return finish(panel, what, "Nothing is drawn because nothing is known.", empty, simulated, remedy)


def add_legend(ax: Any, entries: Sequence[Any], title: str | None = "Version loaded") -> None:
    """A legend beside the plot, never over it."""
    if entries:
        place: Any = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0, "alignment": "left"}
        ax.legend(handles=entries, title=title, title_fontsize=9, **place)


def patches(names: Iterable[str], fills: Fills) -> list[Patch]:
    """How the bars of these names are filled, for a legend."""
    return [Patch(label=short_label(name), **{"linewidth": 0.5, **fills[name]}) for name in names]


def stacked(ax: Any, wide: Table, fills: Fills, at: Any, *, lying: bool = False, **bar: Any) -> Any:
    """Bars of layers, one a row of ``wide``; gives where they end."""
    ends = np.zeros(len(wide))
    draw, base = (ax.barh, "left") if lying else (ax.bar, "bottom")
    for name in wide:
        lengths = wide[name].to_numpy(dtype=float)
        draw(at, lengths, **{base: ends, "linewidth": 0.5, **fills[name], **bar})
        ends = ends + lengths
    return ends


def spread(table: Table, order: Any, layers: Sequence[str], value: str = "") -> Table:
    """A long table of row, layer and value as one row a bar and one column a layer of it, 0 where it has nothing."""
    row, layer, last = table.columns[:3]
    wide = table.pivot(index=row, columns=layer, values=value or last)
    return wide.reindex(index=order, columns=layers).fillna(0)


def interval(ax: Any, ends: Sequence[float], y: int, colour: str, width: float = 2.4, style: str = "-") -> None:
    """An interval as a line of its row."""
    ax.plot(ends, [y, y], color=colour, linewidth=width, linestyle=style, solid_capstyle="butt", gid="interval")


def mark(ax: Any, x: Any, y: Any, colour: str, shape: str = "o", size: float = 7, **more: Any) -> None:
    """A point, or several of a kind."""
    ax.plot(np.atleast_1d(x), np.atleast_1d(y), linestyle="", marker=shape, markersize=size, color=colour, **more)


def beside(ax: Any, words: str, at: tuple[Any, Any], points: tuple[float, float], **look: Any) -> None:
    """Words beside a place of the plot, this many points away."""
    ax.annotate(words, at, xytext=points, textcoords="offset points", **{"fontsize": SMALL, "color": SOFT, **look})


def rows(ax: Any, names: Iterable[Any], notes: Sequence[str], first: float, each: float, legend: bool = False) -> Any:
    """Axes of one row a name, read from the top; a note stands under its name. The height is that of the frame and a row."""
    names = [str(name) for name in names]
    drawn = new_axes(ax, first + each * len(names), [*names, *notes], legend)
    labels = [short_label(name) for name in names]
    labels = [f"{label}\n{shown_text(note)}" for label, note in zip(labels, notes, strict=True)] if notes else labels
    drawn.set_yticks(range(len(labels)), labels)
    drawn.set_ylim(len(labels) - 0.5, -0.5)
    drawn.tick_params(axis="y", length=0)
    drawn.grid(axis="x")
    drawn.grid(False, axis="y")
    return drawn


def time_axis(ax: Any, words: str = "Week (UTC)") -> None:
    """Dates that say year and month once."""
    dates: Any = mdates  # untyped
    locator = dates.AutoDateLocator(minticks=3, maxticks=9)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    ax.set_xlabel(words)


@functools.cache
def _glyphs() -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())


def shown_text(value: Any, keep_breaks: bool = False) -> str:
    """Text letter by letter: ``$`` would start mathtext, an unknown glyph draw a box, a break run off."""
    shown = literal(value) if keep_breaks else " ".join(literal(value).split())
    letters = (c if c == "\n" or ord(c) in _glyphs() else c.encode("unicode_escape").decode("ascii") for c in shown)
    return "".join(letters).replace("$", r"\$")


def short_label(value: Any) -> str:
    """A name of bounded length, letter by letter."""
    return shown_text(label(value, LONGEST_LABEL))


def _natural(value: str) -> list[tuple[int, int, str]]:
    # 5.5.0.9 before 5.5.0.58; bounded digits, because a name may be anything.
    parts = filter(None, re.split(r"([0-9]{1,18})", value))
    return [(0, int(part), "") if part.isdigit() and part.isascii() else (1, 0, part) for part in parts]


def in_order(values: Iterable[Any]) -> list[str]:
    """Known names, each once, with 5.5.0.9 before 5.5.0.58; behind them what stands for several or for none."""
    present = {str(value) for value in values if known(value)}
    return [*sorted(present - set(QUIET), key=_natural), *(name for name in QUIET if name in present)]


def by_order(table: Table, column: str) -> Table:
    """A table's rows in the order of a column's names, as ``in_order`` has them."""
    place = {name: i for i, name in enumerate(in_order(table[column]))}
    return table.sort_values(column, key=lambda names: names.map(place), kind="stable", ignore_index=True)


def version_colours(versions: Iterable[Any]) -> dict[str, str]:
    """A colour for each version of a fleet, the same in every chart that is given the same versions."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(in_order(versions)) if name not in QUIET}


def version_fills(versions: Iterable[Any]) -> Fills:
    """How the bars of a fleet's versions are filled, those that stand for several or for none included."""
    colours = version_colours(versions)
    return QUIET | {name: {"facecolor": colour, "edgecolor": PAPER} for name, colour in colours.items()}


def lumped(versions: Table, weight: Table) -> Table:
    """Versions with the most host-days by name, the rest as one grey; unknown stays itself."""
    named = versions.astype("string").fillna(UNKNOWN_VERSION)
    totals = weight.groupby(named).sum().drop(UNKNOWN_VERSION, errors="ignore")
    if len(totals) > MOST_VERSIONS:
        most = totals.sort_values(ascending=False, kind="stable").index[: MOST_VERSIONS - 1]
        named = named.where(named.isin([*most, UNKNOWN_VERSION]), OTHERS)
    return named


# ---- what an exposure table holds, in words ------------------------------------------------------------------------------


def completed(exposure: Table, *more: str) -> Table:
    """An exposure table with all that charts read: of one made by hand, only four columns are sure to be there."""
    wanted = ("module", "start", "end", "uptime_start", "cluster", "crashes", "unknown_crashes", *more)
    table = exposure.assign(**{name: pd.NA for name in wanted if name not in exposure})
    counts = ("crashes", "unknown_crashes")
    return table.assign(**{name: pd.to_numeric(table[name]).fillna(0).astype("int64") for name in counts})


def dated(exposure: Table) -> Table:
    """Only stretches with a place in time; a hand-made table may have none."""
    return exposure[exposure["start"].notna() & exposure["end"].notna()]


def of_version(exposure: Table, version: Any) -> Table:
    """The stretches with a version loaded."""
    return exposure[(exposure["version"] == version).fillna(False)]


def module_of(exposure: Table) -> str:
    """The one module that an exposure table speaks of, no longer than a label may be."""
    names = exposure["module"].dropna().unique()
    name = str(names[0]) if len(names) == 1 else "driver"
    return name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…"


def host_days(n: Any) -> str:
    """A number of host-days, as words."""
    return f"{n:,.0f} host-days" if n >= 10 or n == 0 else f"{figure(n)} host-days"


def crashes_in_days(table: Table) -> str:
    """A table's crashes and host-days, as words."""
    return f"{count(table['crashes'].sum(), 'crash')} in {host_days(table['host_days'].sum())}"


def evidence(exposure: Table) -> str:
    """The counts that every caption owes, as words: crashes, host-days, hosts."""
    crashes, unknown = exposure["crashes"].sum(), exposure["unknown_crashes"].sum()
    more = f" and {count(unknown, 'crash')} with no module found" if unknown else ""
    days = f"{host_days(exposure['host_days'].sum())} on {count(exposure['host'].nunique(), 'host')}"
    return f"{count(crashes, f'{module_of(exposure)} crash')}{more} in {days}"


def numbers(ax: Axes) -> pd.DataFrame:
    """The numbers that a chart shows: its table twin, for a CSV beside the picture."""
    table = getattr(ax, "psod_numbers", None)
    if table is None:
        raise InputError("found Axes without a chart of psodlib; give what a plot_* function returned")
    return pd.DataFrame(table)


def wording(ax: Any) -> tuple[str, str, str]:
    """What a chart says of itself, for whoever cannot see it: title, caption, and what would help where nothing is shown."""
    title, caption, remedy = (" ".join(words.split()) for words in ax.psod_words)
    return title, caption, remedy


def save_chart(ax: Axes, path: str | Path) -> tuple[Path, Path]:
    """Write the figure of a chart as PNG at twice the screen's resolution and as SVG; the Axes stay usable."""
    png, svg = (Path(f"{path}.{kind}") for kind in ("png", "svg"))
    png.parent.mkdir(parents=True, exist_ok=True)
    figure: Any = ax.figure
    with plt.rc_context(STYLE):
        # Laid out once for both files: left to savefig, each would draw the figure twice more.
        figure.draw_without_rendering()
        figure.psod_box = figure.get_tightbbox(figure.canvas.get_renderer()).padded(EDGE)
        figure.set_layout_engine("none")
        figure.savefig(png, dpi=2 * STYLE["figure.dpi"], bbox_inches=figure.psod_box, metadata={"Software": None})
        figure.savefig(svg, bbox_inches=figure.psod_box, metadata={"Date": None})
    plt.close(figure)  # off pyplot's list, so that many charts do not pile up in memory
    return png, svg


def save_dark(ax: Axes, png: Path) -> Path:
    """Write a saved chart once more, for dark pages, beside its PNG; the Axes are dark from then on."""
    figure: Any = ax.figure
    for artist in figure.findobj():
        for name in ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor"):
            if hasattr(artist, f"set_{name}") and hasattr(artist, f"get_{name}"):
                dark = _on_dark(getattr(artist, f"get_{name}")())
                if dark is not None:
                    getattr(artist, f"set_{name}")(dark)
    out = png.with_name(f"{png.stem}-dark.png")
    with plt.rc_context({**STYLE, "savefig.facecolor": DARK[PAPER], "hatch.color": DARK[SOFT]}):
        figure.savefig(out, dpi=2 * STYLE["figure.dpi"], bbox_inches=figure.psod_box, metadata={"Software": None})
    return out


def _on_dark(colour: Any) -> Any:
    # The same colour or list of colours with the greys exchanged; None where nothing is to be exchanged.
    try:
        shades = [(to_hex(shade), shade[3]) for shade in to_rgba_array(colour)]
    except (ValueError, TypeError):  # such as "auto", "face", "inherit"
        return None
    if not any(shade in DARK and alpha for shade, alpha in shades):
        return None
    changed = [to_rgba(DARK.get(shade, shade), alpha) for shade, alpha in shades]
    return changed if np.ndim(colour) == 2 else changed[0]
