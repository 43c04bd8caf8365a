"""What a caller takes out of a chart: its numbers, its words, its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgba

from psodlib.errors import InputError
from psodlib.views.charts.style import CRASH, INK, PALE, PAPER, SOFT, STYLE

EDGE = 0.1  # inches of paper around a saved chart
# Of the style's greys what each becomes on a dark page; the colours of versions read on both.
DARK = {
    INK: "#eceaf0", SOFT: "#b3adbb", PALE: "#5a5462", PAPER: "#17151a", CRASH: "#f4f2f7", "#e6e6e6": "#35313c", "#efefef": "#2b2831",
}  # fmt: skip
COLOURED = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")


def numbers(ax: Axes) -> pd.DataFrame:
    """The numbers that a chart shows: its table twin, for a CSV beside the picture."""
    table = getattr(ax, "psod_numbers", None)
    if table is None:
        raise InputError("found Axes without a chart of psodlib; give what a plot_* function returned")
    return pd.DataFrame(table)


def wording(ax: Axes) -> tuple[str, str, str]:
    """What a chart says of itself in words, for whoever cannot see it."""
    texts = {text.get_gid(): text.get_text() for text in ax.texts}
    remedy = "" if len(numbers(ax)) else texts.get(None, "")
    # in a chart an escaped dollar stands for a dollar
    parts = (ax.get_title(loc="left"), texts.get("caption", ""), remedy)
    title, caption, inside = (" ".join(words.replace("\\$", "$").split()) for words in parts)
    return title, caption, inside


def save_chart(ax: Axes, path: str | Path) -> tuple[Path, Path]:
    """Write the figure of a chart as PNG at twice the screen's resolution, and as SVG.

    The figure is taken off pyplot's list, so that many charts do not pile up in memory; the Axes stay usable.
    """
    out = Path(path)
    stem = out.name.removesuffix(".png").removesuffix(".svg")
    out.parent.mkdir(parents=True, exist_ok=True)
    png, svg = out.with_name(f"{stem}.png"), out.with_name(f"{stem}.svg")
    figure_of: Any = ax.figure
    with plt.rc_context(STYLE):
        # Laid out once for both files: left to savefig, each would draw the figure twice more.
        figure_of.draw_without_rendering()
        box = figure_of.get_tightbbox(figure_of.canvas.get_renderer()).padded(EDGE)
        figure_of.set_layout_engine("none")
        figure_of.psod_box = box
        figure_of.savefig(png, dpi=2 * STYLE["figure.dpi"], bbox_inches=box, metadata={"Software": None})
        figure_of.savefig(svg, bbox_inches=box, metadata={"Date": None})
    plt.close(figure_of)
    return png, svg


def save_dark(ax: Axes, png: Path) -> Path:
    """Write a saved chart once more, for dark pages, beside its PNG; the Axes stay as they were."""
    figure: Any = ax.figure
    undo = []
    for artist in figure.findobj():
        for name in COLOURED:
            before = getattr(artist, f"get_{name}", lambda: None)() if hasattr(artist, f"set_{name}") else None
            if (after := _on_dark(before)) is not None:
                getattr(artist, f"set_{name}")(after)
                undo.append((getattr(artist, f"set_{name}"), before))
    out = png.with_name(f"{png.stem}-dark.png")
    with plt.rc_context({**STYLE, "savefig.facecolor": DARK[PAPER], "hatch.color": DARK[SOFT]}):
        figure.savefig(out, dpi=2 * STYLE["figure.dpi"], bbox_inches=figure.psod_box, metadata={"Software": None})
    for restore, before in undo:
        restore(before)
    return out


def _on_dark(colour: Any) -> Any:
    # The same colour or list of colours with the greys exchanged; None where nothing is to be exchanged.
    many = isinstance(colour, np.ndarray) and colour.ndim == 2
    try:
        shades = [(to_hex(each), to_rgba(each)[3]) for each in (colour if many else [colour])]
    except (ValueError, TypeError):  # such as "auto", "none", "face", "inherit"
        return None
    if not any(shade in DARK and alpha for shade, alpha in shades):
        return None
    changed = [to_rgba(DARK.get(shade, shade), alpha) for shade, alpha in shades]
    return changed if many else changed[0]
