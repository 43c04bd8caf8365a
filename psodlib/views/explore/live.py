"""The widgets: they keep a selection, replace it when somebody clicks, and draw what depends on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
from markupsafe import Markup

from psodlib.errors import InputError
from psodlib.fleet import Fleet
from psodlib.triage.known_issues import load_issues
from psodlib.views.explore.crash import link_text, sections
from psodlib.views.explore.markup import label, notice, said, shown, styled
from psodlib.views.explore.notes import Note, read_notes, write_note
from psodlib.views.explore.selection import ANY, FILTERS, Atlas, Selection, choices, selected
from psodlib.views.explore.timeline import months_html, timeline_html
from psodlib.views.words import UNKNOWN, count, known

__all__ = ["Explorer", "explore"]

MOST_LISTED = 300  # crashes in the list box
TAGS = ("driver fault", "hardware fault", "duplicate", "needs a dump", "reported to vendor", "explained")


# Constant: it reads the text of the element beside the button, and holds none itself.
COPY = (
    "navigator.clipboard.writeText(this.previousElementSibling.textContent)"
    ".then(() => this.textContent = 'Copied', () => this.textContent = 'Press Ctrl+C')"
)


def explore(fleet: Fleet, module: str = "hpsa", notes: str | Path | None = None) -> Any:
    """Look through a fleet's crashes in a live notebook.

    Parameters
    ----------
    fleet : Fleet
        The tables; it is not changed.
    module : str
        The driver whose loaded versions colour the timeline.
    notes : str or Path, optional
        Folder to keep tags and notes in, best the one the fleet was saved to. Without it they last as long as the
        kernel, and the explorer says so.

    Returns
    -------
    ipywidgets.VBox
        Filters with counts, timeline, list of crashes, the chosen crash; its ``explorer`` attribute holds the state.

    Raises
    ------
    InputError
        The notes that are there cannot be read.

    Example
    -------
    >>> import psodlib as psod
    >>> psod.explore(psod.Fleet.open("store"), notes="store")  # doctest: +SKIP
    """
    return Explorer(Atlas(fleet, module, load_issues()), notes).view


class Explorer:
    """The selection, and the widgets that change and show it."""

    def __init__(self, atlas: Atlas, folder: str | Path | None = None) -> None:
        self.atlas, self.folder = atlas, folder
        self.notes = read_notes(folder) if folder is not None else {}
        self.selection = Selection()
        self._drawing = False
        self._make_filters()
        self._make_crash()
        self.view = self._laid_out()
        self.view.explorer = self
        self.show(replace(self.selection, crash_id=_first(atlas.crashes)))

    def show(self, selection: Selection) -> None:
        """Take a selection and draw what depends on it; a chosen crash that the filters leave out gives way."""
        crashes = selected(self.atlas.crashes, selection)
        listed = crashes["crash_id"].head(MOST_LISTED)
        if selection.crash_id not in set(listed):
            selection = replace(selection, crash_id=_first(crashes))
        other_filters = not self.total.value or replace(selection, crash_id=self.selection.crash_id) != self.selection
        other_crash = selection.crash_id != self.selection.crash_id or not self.crash.value
        self.selection, self._drawing = selection, True
        try:
            if other_filters:
                self._draw_filters(crashes)
                self._draw_list(crashes.head(MOST_LISTED))
            self.list.value = selection.crash_id
            self.timeline.value = styled(timeline_html(self.atlas, selection))
            if other_crash:
                self._draw_crash()
        finally:
            self._drawing = False

    def _make_filters(self) -> None:
        self.filters = {
            name: widgets.Dropdown(description=label, layout={"width": "auto"}, style={"description_width": "100px"})
            for name, label in FILTERS.items()
        }
        for name, box in self.filters.items():
            box.observe(self._on(partial(self._filtered, name)), "value")
        months = self.atlas.months or ["no month"]
        self.months = widgets.SelectionRangeSlider(
            options=months, index=(0, len(months) - 1), description="Time", continuous_update=False, readout=False,
            layout={"width": "auto"}, style={"description_width": "100px"}, disabled=len(months) < 2,
        )  # fmt: skip
        self.months.observe(self._on(self._between), "value")
        self.bars, self.total, self.timeline = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.clear = widgets.Button(description="Clear filters", icon="times")
        self.clear.on_click(lambda _: self._cleared())

    def _make_crash(self) -> None:
        self.list = widgets.Select(rows=9, layout={"width": "auto"})
        self.list.add_class("psx-list")
        self.list.observe(self._on(lambda value: replace(self.selection, crash_id=value)), "value")
        self.crash, self.link, self.saved = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.tags = widgets.TagsInput(allow_duplicates=False, placeholder="Add a tag", layout={"width": "100%"})
        self.offered = widgets.Dropdown(options=["Common tags…", *TAGS], layout={"width": "180px"})
        self.offered.observe(self._offer, "value")
        self.note = widgets.Textarea(placeholder="Note", rows=3, layout={"width": "auto"})
        self.save = widgets.Button(description="Save tags and note", icon="save", layout={"width": "180px"})
        self.save.on_click(lambda _: self._save())

    def _laid_out(self) -> Any:
        head = widgets.HTML(styled(notice(self.atlas.fleet)))
        boxes = widgets.GridBox(
            [*self.filters.values()],
            layout={"grid_template_columns": "repeat(3, minmax(0, 1fr))", "grid_gap": "2px 14px"},
        )
        time = widgets.HBox([widgets.VBox([self.months], layout={"width": "66%"}), self.clear])
        noting = widgets.VBox(
            [widgets.HBox([self.offered, self.tags]), self.note, widgets.HBox([self.save, self.saved])]
        )
        parts = [head, boxes, time, self.bars, self.total, self.timeline, self.list, self.link, noting, self.crash]
        return widgets.VBox(parts, layout={"width": "100%"})

    def _on(self, change: Callable[[Any], Selection]) -> Callable[[Any], None]:
        # A person's change becomes the next selection; our own drawing does not.
        def changed(event: Any) -> None:
            if not self._drawing:
                self.show(change(event["new"]))

        return changed

    def _filtered(self, name: str, value: tuple[str | None]) -> Selection:
        changes: dict[str, Any] = {name: value[0]}
        return replace(self.selection, **changes)

    def _between(self, value: tuple[str, str]) -> Selection:
        months = self.atlas.months
        first, last = value
        whole = not months or (first, last) == (months[0], months[-1])
        return replace(self.selection, first=None if whole else first, last=None if whole else last)

    def _cleared(self) -> None:
        self._drawing = True
        if self.atlas.months:
            self.months.index = (0, len(self.atlas.months) - 1)
        self._drawing = False
        self.show(Selection(crash_id=self.selection.crash_id))

    def _draw_filters(self, crashes: pd.DataFrame) -> None:
        for name, box in self.filters.items():
            found = choices(self.atlas.crashes, self.selection, name)
            # In tuples: a widget takes a bare None for "nothing is chosen", and shows an empty box.
            options: list[tuple[str, tuple[str | None]]] = [(f"any ({sum(found.values()):,})", (ANY,))]
            options += [(f"{label(value or UNKNOWN)} ({number:,})", (value,)) for value, number in found.items()]
            if box.options != tuple(options):
                box.options = options
            box.value = (getattr(self.selection, name),)
        self.bars.value = styled(months_html(self.atlas, self.selection))
        whole, listed = len(self.atlas.crashes), min(len(crashes), MOST_LISTED)
        more = (
            f" The newest {listed:,} are listed: narrow the filters to reach the others."
            if listed < len(crashes)
            else ""
        )
        hosts = count(crashes["host"].nunique(), "host")
        words = f"{len(crashes):,} of {count(whole, 'crash', 'crashes')} on {hosts}.{more}"
        self.total.value = styled(said(words if whole else "No crash was found in this evidence."))

    def _draw_list(self, crashes: pd.DataFrame) -> None:
        options = tuple((_line(row, self.notes), row.crash_id) for row in crashes.itertuples())
        if self.list.options != options:
            self.list.options = options
        self.list.value = self.selection.crash_id if options else None

    def _draw_crash(self) -> None:
        crash_id = self.selection.crash_id
        kept = self.notes.get(crash_id or "", Note())
        self.tags.value, self.note.value, self.saved.value = list(kept.tags), kept.text, ""
        for box in (self.tags, self.note, self.save, self.offered):
            box.disabled = crash_id is None
        if crash_id is None:
            self.crash.value, self.link.value = styled(said("No crash is chosen.")), ""
            return
        link = shown(link_text(self.atlas.crash(crash_id)), 1_200)
        button = Markup('<button type="button" onclick="{}">Copy link</button>').format(COPY)
        self.link.value = styled(Markup('<p><code class="link">{}</code>{}</p>').format(link, button))
        self.crash.value = styled(sections(self.atlas, crash_id))

    def _offer(self, event: Any) -> None:
        if event["new"] in TAGS:
            self.tags.value = list(dict.fromkeys([*self.tags.value, event["new"]]))
            self.offered.index = 0

    def _save(self) -> None:
        crash_id = self.selection.crash_id
        if crash_id is None:
            return
        changed = f"{pd.Timestamp.now(tz='UTC'):%Y-%m-%dT%H:%M:%SZ}"
        note = Note(tuple(str(tag) for tag in self.tags.value), self.note.value.strip(), changed)
        where = "in this kernel alone: give explore(fleet, notes=folder) to keep them"
        try:
            if self.folder is not None:
                where = f"in {write_note(self.folder, crash_id, note)}"
        except (InputError, OSError) as error:
            self.saved.value = styled(said(f"Not saved: {error}"))
            return
        self.notes[crash_id] = note
        self._drawing = True
        self._draw_list(selected(self.atlas.crashes, self.selection).head(MOST_LISTED))
        self._drawing = False
        self.saved.value = styled(said(f"Saved {where}."))


def _first(crashes: pd.DataFrame) -> str | None:
    return str(crashes["crash_id"].iloc[0]) if len(crashes) else None


def _line(row: Any, notes: Mapping[str, Note]) -> str:
    # Columns in a list box: a fixed-width font, and blanks that a browser does not fold.
    when = f"{row.time:%Y-%m-%d %H:%M}" if known(row.time) else "time unknown"
    cells = (
        (when, 16),
        (row.host, 22),
        (str(row.kind), 18),
        (row.guilty_module, 12),
        (row.driver_version or UNKNOWN, 14),
    )
    columns = "  ".join(label(cell, wide).ljust(wide) for cell, wide in cells)
    tags = f"[{label(', '.join(notes[row.crash_id].tags) or 'note', 40)}] " if row.crash_id in notes else ""
    return f"{columns}  {tags}{label(row.signature or UNKNOWN, 60)}".replace(" ", "\u00a0")
