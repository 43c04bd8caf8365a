"""The widget: the explorer's script in a notebook's cell, and in Python what it chose, and people's notes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import pandas as pd
import traitlets

from psodlib.errors import InputError
from psodlib.fleet import Fleet
from psodlib.risk.exposure import choose_module
from psodlib.views.crash import crash_title, pages_of
from psodlib.views.document import Section, Text, template
from psodlib.views.explore.data import explorer_data
from psodlib.views.explore.notes import Note, read_notes, write_note
from psodlib.views.explore.page import listed_crashes, offline_twin
from psodlib.views.words import SIMULATED

TAGS = ("driver fault", "hardware fault", "duplicate", "needs a dump", "reported to vendor", "explained")


def explore(fleet: Fleet, module: str | None = None, notes: str | Path | None = None) -> Any:
    """Look through a fleet's crashes in a live notebook.

    Parameters
    ----------
    fleet : Fleet
        The tables; it is not changed.
    module : str, optional
        The driver whose loaded versions colour the timeline; by default the one that caused most crashes.
    notes : str or Path, optional
        Folder to keep tags and notes in, best the one the fleet was saved to. Without it they last as long as the
        kernel, and the button says so.

    Returns
    -------
    ipywidgets.VBox
        Filters, timeline, list of crashes, the chosen crash; its ``explorer`` attribute holds the state.

    Raises
    ------
    InputError
        The notes that are there cannot be read; a module that the evidence does not know.

    Example
    -------
    >>> import psodlib as psod
    >>> psod.explore(psod.Fleet.open("store"), notes="store")  # doctest: +SKIP
    """
    return Explorer(fleet, str(choose_module(fleet, module)["module"]), notes).view


class _Picture(anywidget.AnyWidget):
    """The script with its data; ``chosen`` is ``crash=<id>`` or ``host=<name>``, as in the report's addresses."""

    _esm = template("explorer.js")
    _css = template("explorer.css")
    data = traitlets.Dict().tag(sync=True)
    chosen = traitlets.Unicode("").tag(sync=True)


class _View(widgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """The whole; where no kernel runs, such as in an exported notebook, its twin without one."""

    def _repr_mimebundle_(self, **options: Any) -> Any:
        shown = super()._repr_mimebundle_(**options)
        return {**shown, "text/html": offline_twin(self.explorer.fleet, self.explorer.module)}


class Explorer:
    """The picture, the chosen crash as blocks, and the notes on it."""

    def __init__(self, fleet: Fleet, module: str, folder: str | Path | None = None) -> None:
        self.fleet, self.module, self.folder = fleet, module, folder
        self.notes = read_notes(folder) if folder is not None else {}
        self.page_of = pages_of(fleet)
        self.rows = {str(row["crash_id"]): row for _, row in listed_crashes(fleet).iterrows()}
        self.picture = _Picture(data=explorer_data(fleet, module, self._tags()))
        self.picture.observe(lambda _: self._draw(), "chosen")
        self.crash, self.saved = widgets.HTML(), widgets.HTML()
        self.tags = widgets.TagsInput(allow_duplicates=False, placeholder="Add a tag", layout={"width": "100%"})
        self.offered = widgets.Dropdown(options=["Common tags…", *TAGS], layout={"width": "180px"})
        self.offered.observe(self._offer, "value")
        self.note = widgets.Textarea(placeholder="Note", rows=3, layout={"width": "auto"})
        where = "Save tags and note" if folder is not None else "Keep until the kernel ends"
        self.save = widgets.Button(description=where, icon="save", layout={"width": "230px"})
        self.save.on_click(lambda _: self._save())
        rows = [widgets.HBox([self.offered, self.tags]), self.note, widgets.HBox([self.save, self.saved])]
        notice = widgets.HTML(Text(SIMULATED)._repr_html_() if fleet.simulated else "")
        self.view = _View([notice, self.picture, widgets.VBox(rows), self.crash], layout={"width": "100%"})
        self.view.explorer = self
        self.picture.chosen = f"crash={next(iter(self.rows))}" if self.rows else ""
        self._draw()

    @property
    def crash_id(self) -> str | None:
        """The chosen crash."""
        kind, _, name = self.picture.chosen.partition("=")
        return name if kind == "crash" and name in self.rows else None

    def _draw(self) -> None:
        crash_id = self.crash_id
        kept = self.notes.get(crash_id or "", Note())
        self.tags.value, self.note.value, self.saved.value = list(kept.tags), kept.text, ""
        for box in (self.tags, self.note, self.save, self.offered):
            box.disabled = crash_id is None
        if crash_id is None:
            self.crash.value = Text("No crash is chosen.")._repr_html_()
            return
        crash = self.rows[crash_id]
        self.crash.value = Section("", [Section(crash_title(crash), self.page_of(crash))])._repr_html_()

    def _tags(self) -> dict[str, str]:
        return {crash_id: f"[{', '.join(note.tags) or 'note'}]" for crash_id, note in self.notes.items()}

    def _offer(self, event: Any) -> None:
        if event["new"] in TAGS:
            self.tags.value = list(dict.fromkeys([*self.tags.value, event["new"]]))
            self.offered.index = 0

    def _save(self) -> None:
        crash_id = self.crash_id
        if crash_id is None:
            return
        changed = f"{pd.Timestamp.now(tz='UTC'):%Y-%m-%dT%H:%M:%SZ}"
        note = Note(tuple(str(tag) for tag in self.tags.value), self.note.value.strip(), changed)
        words = "Kept in this kernel alone: give explore(fleet, notes=folder) to save it."
        try:
            if self.folder is not None:
                words = f"Saved in {write_note(self.folder, crash_id, note)}."
        except (InputError, OSError) as error:
            words = f"Not saved: {error}"
        else:
            self.notes[crash_id] = note
            self.picture.data = {**self.picture.data, "tags": self._tags()}
        self.saved.value = Text(words)._repr_html_()
