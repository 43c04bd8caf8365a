"""The fleet's crashes to look through: filters, a timeline, one crash at a time. Tables -> HTML -> widgets.

What is looked at is one small value, a ``Selection``; every view is a pure function of it and of tables, giving HTML
that stands in an exported page as it does in a widget. ``explore`` only joins views to widgets. Text of a log reaches a
page through ``markup.shown`` alone, and a widget's own labels through ``markup.label``.

    selection   what is looked at           timeline   all crashes, by month and host    crash   one crash
    markup      log text made safe          original   the log's own lines               notes   tags and notes
    live        the widgets                 pages      their static twins in a report
"""

from psodlib.views.explore.crash import (
    crash_html,
    facts_html,
    frames_html,
    issues_html,
    reasons_html,
    screen_html,
    similar,
    similar_html,
)
from psodlib.views.explore.live import explore
from psodlib.views.explore.markup import shown
from psodlib.views.explore.notes import Note, note_section, read_notes, write_note
from psodlib.views.explore.original import lines_before, original_text
from psodlib.views.explore.pages import crash_list, crash_page, exported_html
from psodlib.views.explore.selection import ANY, NOT_KNOWN, Atlas, Selection, choices, selected
from psodlib.views.explore.timeline import months_html, timeline_html

__all__ = [
    "ANY", "NOT_KNOWN", "Atlas", "Note", "Selection", "choices", "crash_html", "crash_list", "crash_page", "explore", "exported_html", "facts_html",
    "frames_html", "issues_html", "lines_before", "months_html", "note_section", "original_text", "read_notes",
    "reasons_html", "screen_html", "selected", "shown", "similar", "similar_html", "timeline_html", "write_note",
]  # fmt: skip
