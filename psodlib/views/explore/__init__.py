"""The fleet's crashes to look through: filters, a timeline, one crash at a time, in a notebook and on a page of the report.

data    what the script shows            page    the page of the report      live    the widget
notes   tags and notes beside a store    ../templates/explorer.js            the script of both
"""

from psodlib.views.explore.data import explorer_data
from psodlib.views.explore.live import explore
from psodlib.views.explore.notes import Note, note_section, read_notes, write_note
from psodlib.views.explore.page import explorer_document

__all__ = ["Note", "explore", "explorer_data", "explorer_document", "note_section", "read_notes", "write_note"]
