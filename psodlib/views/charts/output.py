"""What a caller takes out of a chart: its numbers, its words, its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from psodlib.errors import InputError
from psodlib.views.charts.style import STYLE

EDGE = 0.1  # inches of paper around a saved chart


def numbers(ax: Axes) -> pd.DataFrame:
    """The numbers that a chart shows: its table twin, for a CSV beside the picture."""
    table = getattr(ax, "psod_numbers", None)
    if table is None:
        raise InputError("these Axes hold no chart of psodlib; give what a plot_* function returned")
    return pd.DataFrame(table)


def wording(ax: Axes) -> tuple[str, str, str]:
    """What a chart says of itself in words, for whoever cannot see it."""
    texts = {text.get_gid(): text.get_text() for text in ax.texts}
    remedy = "" if len(numbers(ax)) else texts.get(None, "")
    # in a chart an escaped dollar stands for a dollar
    title, caption, inside = (
        " ".join(words.replace("\\$", "$").split())
        for words in (ax.get_title(loc="left"), texts.get("caption", ""), remedy)
    )
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
        figure_of.savefig(png, dpi=2 * STYLE["figure.dpi"], bbox_inches=box, metadata={"Software": None})
        figure_of.savefig(svg, bbox_inches=box, metadata={"Date": None})
    plt.close(figure_of)
    return png, svg
