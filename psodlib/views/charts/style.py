"""How every chart looks: colours, the frame with its title and caption, labels, legends.

Text that came out of a log is drawn letter by letter: no mathtext, no control characters, no missing glyphs.
"""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeAlias

import matplotlib
import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from psodlib.views.words import known, label, literal

INK, SOFT, PALE, PAPER = "#222222", "#666666", "#c9c9c9", "#ffffff"
CRASH = "#000000"
# Okabe and Ito's colours (2008), without the yellow that is lost on white paper; then the same, lighter.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a5c99", "#8c6d31", "#66aad1", "#e69e66")
UNKNOWN_VERSION, NOT_WATCHED, OTHERS = "version unknown", "not watched", "other versions"
# What is not known is grey and hatched, so that it reads without colour too.
QUIET: dict[str, dict[str, Any]] = {
    OTHERS: {"facecolor": PALE, "hatch": "", "edgecolor": SOFT},
    UNKNOWN_VERSION: {"facecolor": "#8a8a8a", "hatch": "////", "edgecolor": SOFT},
    NOT_WATCHED: {"facecolor": PAPER, "hatch": "....", "edgecolor": SOFT},
}
MOST_VERSIONS = 7  # more colours than this nobody tells apart
LONGEST_LABEL = 34  # letters; a longer name loses its middle
DAY = pd.Timedelta(days=1)
P = ParamSpec("P")
# A DataFrame and a Series: pandas-stubs gives each cell the union of all types, so inside this wing's charts they go unchecked.
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
WIDTH = 4.7  # inches of the plot itself; with labels and legend about a printed page, so that 8 points stay 8 points
LEGEND = 1.6  # inches beside it
SMALL = 8.5  # points; no text of a chart is smaller
ALIKE = """
simulated : bool
    True prints "simulated fleet" in the caption.
ax : matplotlib.axes.Axes, optional
    Where to draw; a new figure by default.

Returns
-------
matplotlib.axes.Axes
    ``numbers(ax)``: {}.
"""  # what every ``plot_*`` takes and gives, in its docstring behind its own parameters


class Missing(Exception):
    """What a chart has nothing to show of, and what would help: two sentences."""


def chart(*columns: str, more: str = "") -> Callable[[Callable[P, Axes]], Callable[P, Axes]]:
    """What makes a ``plot_*`` of a function: the style, a panel where something is ``Missing``, and the docstring's common
    part with the columns of ``numbers(ax)``."""

    def dressed(plot: Callable[P, Axes]) -> Callable[P, Axes]:
        @functools.wraps(plot)
        def drawn(*args: P.args, **given: P.kwargs) -> Axes:
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
        drawn.__doc__ = f"{own}{ALIKE.format(', '.join(f'``{name}``' for name in columns) + more)}{heading[1:]}{notes}"
        return drawn

    return dressed


def new_axes(ax: Any | None, height: float = 2.8, labels: Iterable[str] = (), legend: bool = True) -> Any:
    """Where to draw: the given Axes, else a figure that labels and legend widen, so that the plot keeps its width."""
    if ax is not None:
        return ax
    longest = max((len(label) for label in labels), default=6)
    width = WIDTH + 0.075 * longest + (LEGEND if legend else 0.2)
    return plt.subplots(figsize=(width, height + 0.9), layout="constrained")[1]


def finish(ax: Any, finding: str, caption: str, table: Table, simulated: bool) -> Axes:
    """Title, caption and table twin of a chart; the last thing that every ``plot_*`` does."""
    own = ax.figure.get_layout_engine() is not None and len(ax.figure.axes) == 1
    left, inches = _room(ax) if own else (0.0, max(ax.get_window_extent().width / ax.figure.dpi, 3.0))
    # About 10.5 and 15 letters an inch in these sizes.
    ax.set_title(_wrapped(finding, inches * 10.5), loc="left", x=left)
    words = f"Simulated fleet. {caption}" if simulated else caption
    # Hung on the x label, so that it stays below it whatever the ticks do.
    ax.annotate(
        _wrapped(words, inches * 15),
        xy=(left, 0), xycoords=("axes fraction", ax.xaxis.label), xytext=(0, -8), textcoords="offset points",
        ha="left", va="top", fontsize=SMALL, color=SOFT, annotation_clip=False, gid="caption",
    )  # fmt: skip
    ax.psod_numbers = table.reset_index(drop=True)
    ax._ipython_display_ = lambda: (
        None
    )  # at a cell's end the backend shows the figure; the Axes adds no line of its own
    done: Axes = ax
    return done


def _room(ax: Any) -> tuple[float, float]:
    # Title and caption begin where the row labels do, and run to the figure's edge: where, in widths of the plot, and
    # how many inches that is. Known only once the labels are laid out.
    ax.figure.draw_without_rendering()
    plot, labels = ax.get_window_extent(), ax.yaxis.get_tightbbox(ax.figure.canvas.get_renderer())
    start = min(labels.x0, plot.x0) if labels is not None else plot.x0
    return (start - plot.x0) / plot.width, (ax.figure.bbox.x1 - start) / ax.figure.dpi - 0.1


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
    return finish(panel, what, "Nothing is drawn because nothing is known.", empty, simulated)


def add_legend(ax: Any, entries: Sequence[Any], title: str | None = None) -> None:
    """A legend beside the plot, never over it."""
    if entries:
        place: Any = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0, "alignment": "left"}
        ax.legend(handles=entries, title=title, title_fontsize=9, **place)


def version_legend(ax: Any, names: Any, colours: dict[str, str], title: str = "Version loaded", *more: Any) -> None:
    """A legend of versions, and of what else there is."""
    add_legend(ax, [*(version_patch(name, colours) for name in names), *more], title)


def spread(table: Table, rows: str, columns: str, values: str, order: Any, layers: Sequence[str]) -> Table:
    """A long table as one row a bar and one column a layer of it, 0 where it has nothing."""
    return table.pivot(index=rows, columns=columns, values=values).reindex(index=order, columns=layers).fillna(0)


def stacked(ax: Any, wide: Table, fills: dict[str, Any], at: Any, *, lying: bool = False, **bar: Any) -> Any:
    """Bars of layers, one a row of ``wide``; gives where they end."""
    ends = np.zeros(len(wide))
    draw, base = (ax.barh, "left") if lying else (ax.bar, "bottom")
    for name in wide:
        lengths = wide[name].to_numpy(dtype=float)
        draw(at, lengths, **{base: ends, "linewidth": 0.5, **fills[name], **bar})
        ends = ends + lengths
    return ends


def interval(ax: Any, ends: Sequence[float], y: int, colour: str, width: float = 2.4) -> None:
    """An interval as a line of its row."""
    ax.plot(ends, [y, y], color=colour, linewidth=width, solid_capstyle="butt", gid="interval")


def mark(ax: Any, x: Any, y: Any, colour: str, shape: str = "o", size: float = 7, **more: Any) -> None:
    """A point, or several of a kind."""
    ax.plot(np.atleast_1d(x), np.atleast_1d(y), linestyle="", marker=shape, markersize=size, color=colour, **more)


def name_rows(ax: Any, names: Sequence[str], notes: Sequence[str] = ()) -> None:
    """One name a row, read from the top; a note stands under its name."""
    labels = [short_label(name) for name in names]
    if notes:
        labels = [f"{label}\n{shown_text(note)}" for label, note in zip(labels, notes, strict=True)]
    ax.set_yticks(range(len(names)), labels)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.grid(False, axis="y")


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


def version_fill(name: str, colours: dict[str, str]) -> dict[str, Any]:
    """How a version's bar is filled."""
    return QUIET.get(name) or {"facecolor": colours.get(name, PALE), "edgecolor": PAPER}


def version_patch(name: str, colours: dict[str, str]) -> Patch:
    """The entry of a version in a legend."""
    return Patch(label=short_label(name), linewidth=0.5, **version_fill(name, colours))


def lumped(versions: Column, weight: Column) -> Column:
    """Versions with the most host-days by name, the rest as one grey; unknown stays itself."""
    named = versions.astype("string").fillna(UNKNOWN_VERSION)
    totals = weight.groupby(named).sum().drop(UNKNOWN_VERSION, errors="ignore")
    if len(totals) > MOST_VERSIONS:
        most = totals.sort_values(ascending=False, kind="stable").index[: MOST_VERSIONS - 1]
        named = named.where(named.isin([*most, UNKNOWN_VERSION]), OTHERS)
    return named
