"""The static twins of the widgets: what the explorer shows, as pieces of HTML for the pages of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from psodlib.views.explore.crash import crash_html
from psodlib.views.explore.markup import joined, label, notice, said, shown, styled, table_of
from psodlib.views.explore.notes import Note
from psodlib.views.explore.selection import FILTERS, Atlas, Selection
from psodlib.views.explore.timeline import months_html, timeline_html
from psodlib.views.words import UNKNOWN, count, known, moment

__all__ = ["crash_list", "crash_page", "exported_html"]


def exported_html(atlas: Atlas, selection: Selection, notes: Mapping[str, Note] | None = None) -> str:
    """Everything that the explorer shows for a selection, as a piece of HTML for an exported page."""
    filters = ", ".join(f"{FILTERS[name].lower()} {value or UNKNOWN}" for name, value in selection.filters.items())
    head = said(f"Filters: {filters or 'none'}.")
    parts = [notice(atlas.fleet), head, Markup(months_html(atlas, selection)), Markup(timeline_html(atlas, selection))]
    if selection.crash_id is not None:
        parts.append(Markup(crash_html(atlas, selection.crash_id)))
        note = (notes or {}).get(selection.crash_id)
        if note:
            parts.append(Markup("<h4>Tags and note</h4>{}{}").format(said(", ".join(note.tags)), said(note.text)))
    return styled(joined(parts))


def crash_page(atlas: Atlas, crash_id: str, hrefs: Mapping[str, str] | None = None) -> str:
    """One crash as the explorer shows it."""
    return styled(crash_html(atlas, crash_id, hrefs))


def crash_list(rows: Sequence[tuple[str, Any]], total: int) -> str:
    """The explorer's list of crashes, each a link to its page."""
    if not rows:
        return styled(said("No crash was found in this evidence."))
    names = ("host", "kind", "guilty_module", "driver_version", "signature")
    cells = [
        [
            Markup('<a href="{}">{}</a>').format(
                href, moment(crash["time"]) if known(crash["time"]) else "time unknown"
            ),
            *(shown(label(crash[name]).replace("_", " ") if name == "kind" else label(crash[name])) for name in names),
        ]
        for href, crash in rows
    ]
    left_out = (
        said(f"{count(total - len(rows), 'older crash', 'older crashes')} without a page.") if total > len(rows) else ""
    )
    head = ("When", "Host", "Kind", "Module", "Version loaded", "Signature")
    return styled(Markup("<h4>Crashes, newest first</h4>") + table_of(head, cells) + left_out)
