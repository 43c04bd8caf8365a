"""Log text -> HTML that reads as the text does; the pieces and the one style that all views of the explorer share."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from psodlib.fleet import Fleet
from psodlib.views.prose import SIMULATED
from psodlib.views.words import count, known, literal

__all__ = ["KERNEL", "STYLE", "chip", "clipped", "joined", "label", "notice", "said", "shown", "styled", "table_of"]

KERNEL = "#8a8a8a"  # what has no colour of its own
LONGEST = 400  # letters of one cell


# JupyterLab's own colours where it gives them, a report page's where that does, so that light and dark both read.
STYLE = """
.psx {color: var(--jp-ui-font-color1, var(--ink, #222)); background: var(--jp-layout-color0, var(--paper, #fff)); font: 13px/1.45 'DejaVu Sans', system-ui, sans-serif;}
.psx h4 {margin: 14px 0 4px; font-size: 13px;} .psx p {margin: 3px 0;} .psx ul {margin: 3px 0; padding-left: 20px;}
.psx table {border-collapse: collapse; width: 100%; font: inherit; color: inherit;} .psx .wide {overflow-x: auto;}
.psx th, .psx td {text-align: left; vertical-align: top; padding: 2px 10px 2px 0; overflow-wrap: anywhere; min-width: 3.5em; border-bottom: 1px solid var(--jp-border-color2, var(--line, #ddd));}
.psx th {font-weight: 600; white-space: nowrap;} .psx td.n {white-space: nowrap; font-variant-numeric: tabular-nums;}
.psx code, .psx pre, .psx td.m {font-family: 'DejaVu Sans Mono', monospace; font-size: 12px;}
.psx pre {white-space: pre-wrap; overflow-wrap: anywhere; max-height: 320px; overflow: auto; margin: 4px 0; color: inherit; background: transparent;}
.psx .chip {display: inline-block; width: 10px; height: 10px; margin-right: 6px; border: 1px solid currentColor; vertical-align: -1px;}
.psx tr.guilty td {font-weight: 600;} .psx .mark {white-space: nowrap;}
.psx .link {user-select: all; overflow-wrap: anywhere;} .psx button {margin-left: 8px; font-size: 12px; white-space: nowrap;}
.psx .screen {background: #6b0f6b; color: #fff; padding: 14px 16px; border-radius: 3px; max-height: none; font-size: 12.5px; line-height: 1.4;}
.psx .screen b {color: #ffe14d; font-weight: 700;}
.psx .notice {border-left: 4px solid #e69f00; padding-left: 8px;}
.psx svg {display: block; width: 100%; height: auto;} .psx svg text {fill: currentColor; font-size: 11px;}
.psx svg .pale {opacity: .32;} body[data-jp-theme-light=false] .psx svg .pale {opacity: .55;}
@media (prefers-color-scheme: dark) {:root:not(:has([data-jp-theme-light])) .psx svg .pale {opacity: .55;}}
.psx .key span.k {margin-right: 14px; white-space: nowrap;}
.psx .bars {display: flex; align-items: flex-end; height: 38px; gap: 1px; margin: 2px 0;}
.psx .bars i {flex: 1 1 0; background: #0072b2; min-width: 1px; max-width: 48px;} .psx .bars i.out {opacity: .3;}
.psx-list select {font-family: 'DejaVu Sans Mono', monospace; font-size: 12px;}
"""


def shown(value: Any, most: int = LONGEST) -> Markup:
    """Any cell as HTML that reads as the cell does, letter by letter: the one way of log text onto a page."""
    return Markup(html.escape(clipped(value, most)).replace("$", "<span>$</span>"))


def clipped(value: Any, most: int) -> str:
    """A cell as plain text of bounded length."""
    # Cut before it is made literal, so that a text of many megabytes costs nothing.
    if known(value) and len(text := str(value)) > most:
        return f"{literal(text[:most])}… ({count(len(text) - most, 'more letter')})"
    return literal(value)


def label(value: Any, most: int = 48) -> str:
    """A cell as one short line, for labels that widgets show as text."""
    # Cut before it is made literal, as in ``clipped``, and in the middle: names differ at both ends.
    whole = str(value) if known(value) else literal(value)
    cut = whole if len(whole) <= 8 * most else f"{whole[: 4 * most]}{whole[-4 * most :]}"
    text = " ".join(literal(cut).split())
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def joined(parts: Iterable[Markup]) -> Markup:
    """Pieces of HTML one after the other."""
    return Markup("").join(parts)


def table_of(head: Sequence[str], rows: Iterable[Sequence[Markup]], machine: Sequence[int] = ()) -> Markup:
    """Rows of safe cells as a table that scrolls sideways rather than run out of the page."""
    kind = {number: Markup(' class="m"') for number in machine}
    cells = (
        Markup("<tr>{}</tr>").format(
            joined(Markup("<td{}>{}</td>").format(kind.get(i, Markup("")), cell) for i, cell in enumerate(row))
        )
        for row in rows
    )
    top = joined(Markup("<th>{}</th>").format(name) for name in head)
    return Markup(
        '<div class="wide" tabindex="0"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(top, joined(cells))


def said(text: str) -> Markup:
    """A sentence as a paragraph."""
    return Markup("<p>{}</p>").format(shown(text, 2_000))


def chip(colour: str, round_by: str = "0") -> Markup:
    """A small patch of colour that stands before a name."""
    return Markup('<span class="chip" style="background: {}; border-radius: {}"></span>').format(colour, round_by)


def notice(fleet: Fleet) -> Markup:
    """What stands first on every page of made-up evidence."""
    return Markup('<p class="notice">{}</p>').format(SIMULATED) if fleet.simulated else Markup("")


def styled(body: str) -> str:
    """Safe HTML with the explorer's own style."""
    return f'<style>{STYLE}</style><div class="psx">{body}</div>'
