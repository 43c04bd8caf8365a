"""The fleet's crashes to look through: filters, a timeline, one crash at a time, on a page of the report and in a notebook.

One script, ``templates/explorer.js``, draws both from the same data. People's tags and notes lie as JSON beside a store.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import msgspec
import pandas as pd
import traitlets
from markupsafe import escape

from psodlib.errors import InputError
from psodlib.fleet import Fleet
from psodlib.risk.exposure import choose_module
from psodlib.triage.boots import loaded_versions
from psodlib.views.charts import PALETTE, version_colours
from psodlib.views.crash import LONGEST_ID, LONGEST_NAME, address_of, crash_title, pages_of, way_to, where
from psodlib.views.document import Block, Document, Link, Script, Section, Table, Text, html_text, template, to_html
from psodlib.views.words import SIMULATED, known, label, moment

DOTS = PALETTE[3:9]  # of the modules with most crashes; versions begin at the other end
MOST_STRETCHES = 1_000  # of a boot's watched time; gaps narrower than this share of the whole are not to be seen
LIVES = ("hosts", "crashes", "uptimes", "drivers", "coverage")
MOST_BOOTS = 20_000  # in a picture beside others; the explorer's page has them all
MOST_PAGES = 200  # crashes with a section of their own; the list, the timeline and the hosts have them all
MOST_NOTE = 20_000  # letters
MOST_TAGS = 20
NOTES_FILE = "crash_notes.json"
TAGS = ("driver fault", "hardware fault", "duplicate", "needs a dump", "reported to vendor", "explained")


# ---- what the script shows -----------------------------------------------------------------------------------------------


def explorer_data(fleet: Fleet, module: str, tags: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Everything that filters, timeline, list and host boxes are made of, as plain data, each text bounded; unknown is ""."""
    hosts = fleet.hosts.dropna(subset=["host"]).drop_duplicates("host").reindex(columns=["host", "cluster", "model"])
    boots = fleet.uptimes.assign(version=loaded_versions(fleet.uptimes, fleet.drivers, module)["version"].array)
    crashes = fleet.crashes.sort_values(["time", "crash_id"], ascending=[False, True]).merge(hosts, "left", "host")
    names = crashes["guilty_module"].value_counts().index
    # The first and last moment that any host, boot or crash stands at.
    seen = (fleet.hosts["first_seen"], fleet.hosts["last_seen"], boots["boot"], boots["end"], crashes["time"])
    times = pd.concat(seen).dropna()
    span = None if times.empty else [_ms(times.min()), max(_ms(times.max()), _ms(times.min()) + 86_400_000)]
    rows: Any = crashes.itertuples()
    return {
        "module": label(module), "span": span,
        "crashes": [{
            "id": _text(row.crash_id, LONGEST_ID), "host": _text(row.host, LONGEST_NAME),
            "time": _ms(row.time) if known(row.time) else None, "kind": _text(row.kind, 40).replace("_", " "),
            "module": _text(row.guilty_module), "version": _text(row.driver_version),
            "signature": _text(row.signature, 160), "cluster": _text(row.cluster), "model": _text(row.model),
        } for row in rows],
        "hosts": [
            {"host": _text(row.host, LONGEST_NAME), "cluster": _text(row.cluster), "model": _text(row.model)}
            for row in hosts.itertuples()
        ],
        "boots": _lives(fleet.coverage, boots),
        "versions": [[_text(name), colour] for name, colour in version_colours(boots["version"]).items()],
        "modules": [[_text(name), colour] for name, colour in zip(names, DOTS, strict=False)],
        "tags": {_text(crash_id, LONGEST_ID): _text(words, 80) for crash_id, words in (tags or {}).items()},
    }  # fmt: skip


def _text(value: Any, most: int = 60) -> str:
    return label(value, most, "")


def _ms(time: Any) -> int:
    return int(time.timestamp() * 1000)


def _lives(coverage: Any, boots: Any) -> dict[str, list[dict[str, Any]]]:
    watched: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    for row in coverage.dropna(subset=["host", "boot", "start", "end"]).itertuples():
        watched[row.host, row.boot].append((_ms(row.start), _ms(row.end)))
    lives: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in boots.dropna(subset=["host", "boot", "end"]).itertuples():
        start, end = _ms(row.boot), _ms(row.end)
        stretches: list[tuple[int, int]] = []
        for first, last in sorted(watched[row.host, row.boot]):
            # Gaps too narrow to be seen are not drawn: that bounds the drawing, whatever the evidence.
            if stretches and first - stretches[-1][1] < (end - start) / MOST_STRETCHES:
                before = stretches.pop()
                first, last = before[0], max(before[1], last)
            stretches.append((first, last))
        boot = {"start": start, "end": end, "version": _text(row.version), "reason": str(row.end_reason)}
        lives[_text(row.host, LONGEST_NAME)].append({**boot, "watched": stretches})
    return dict(lives)


# ---- pages ---------------------------------------------------------------------------------------------------------------


def lives_picture(fleet: Fleet, module: str, instead: Sequence[Block], host: Any = None) -> list[Block]:
    """Versions and crashes over time, of all hosts or of one, to hover and to zoom; its links lead to the explorer's page."""
    if known(host):
        fleet = replace(fleet, **{name: where(getattr(fleet, name), host=host) for name in LIVES})
    if len(fleet.uptimes) > MOST_BOOTS or fleet.uptimes["end"].isna().all():
        return list(instead)
    parts = ["hosts"] if known(host) else ["months", "rollout", "hosts"]
    return [Script("explorer.js", {**explorer_data(fleet, module), "parts": parts, "home": "explorer.html"}, instead)]


def offline_twin(fleet: Fleet, module: str) -> str:
    """The explorer without its crashes' pages as HTML to stand in another page, walled off from it: what an exported notebook shows."""
    if len(fleet.uptimes) > MOST_BOOTS:
        return str(html_text("This fleet is too large for a page: see explorer.html of psodlib's report."))
    page = escape(to_html(_document(fleet, "Crashes and hosts", Script("explorer.js", explorer_data(fleet, module)))))
    style = "width: 100%; height: 60rem; border: 0"
    return f'<iframe title="Crashes and hosts" sandbox="allow-scripts" style="{style}" srcdoc="{page}"></iframe>'


def explorer_document(fleet: Fleet, module: str) -> Document:
    """All crashes and hosts of a fleet, to be filtered, sorted and opened; without a script, a list and all that is known of each."""
    crashes = _listed(fleet).head(MOST_PAGES)
    page_of = pages_of(fleet, crashes)
    each = (one for _, one in crashes.iterrows())
    pages = [Section(crash_title(one), page_of(one), address_of("crash", one["crash_id"])) for one in each]
    rows: Any = [
        [Link(way_to("crash", row.crash_id), moment(row.time) if known(row.time) else "time unknown"),
         *(label(cell) for cell in (row.host, row.guilty_module, row.driver_version, row.signature))]
        for row in crashes.itertuples()
    ]  # fmt: skip
    listed = Table("Crashes, newest first", ["When", "Host", "Module", "Version loaded", "Signature"], rows)
    script = Script("explorer.js", explorer_data(fleet, module), [listed if rows else Text("No crash was found.")])
    about = f"Boots are coloured by the version of {label(module)} that was loaded"
    return _document(fleet, "All crashes and hosts", script, *pages, subtitle=about)


def _document(fleet: Fleet, title: str, script: Script, *pages: Section, subtitle: str = "") -> Document:
    sections = [Section("Look through", [script]), *pages]
    return Document(title=title, subtitle=subtitle, notice=SIMULATED if fleet.simulated else "", sections=sections)


def _listed(fleet: Fleet) -> pd.DataFrame:
    # The crashes with an id, newest first.
    newest = fleet.crashes.sort_values("time", ascending=False, na_position="last", kind="stable")
    return newest[newest["crash_id"].notna()]


# ---- tags and notes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Note:
    """What people say of a crash."""

    tags: tuple[str, ...] = ()  # short words to find it by
    text: str = ""  # free text
    changed: str = ""  # when it was last changed, ISO 8601 in UTC


def read_notes(folder: str | Path) -> dict[str, Note]:
    """The tags and notes saved beside a store."""
    file = Path(folder) / NOTES_FILE
    if not file.exists():
        return {}
    try:
        return msgspec.convert(json.loads(file.read_text(encoding="utf-8")), dict[str, Note])
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
        why = f"{type(error).__name__}: {error}"
        told = f"{file}: not a file of crash notes ({why}); repair it or move it away; nothing was overwritten"
        raise InputError(told) from error


def write_note(folder: str | Path, crash_id: str, note: Note) -> Path:
    """Save one crash's tags and note beside the store; the others' stay as they are on disk."""
    if len(note.text) > MOST_NOTE or len(note.tags) > MOST_TAGS:
        found = f"a note of {len(note.text):,} letters with {len(note.tags)} tags"
        raise InputError(f"{found}; at most {MOST_NOTE:,} letters and {MOST_TAGS} tags")
    file = Path(folder) / NOTES_FILE
    # Read again: somebody else may have saved since.
    notes = {key: asdict(value) for key, value in read_notes(folder).items() if key != crash_id}
    if note.tags or note.text:
        notes[crash_id] = asdict(note)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    # ASCII alone, so that no letter, half of a surrogate pair included, stops the writing.
    part.write_text(json.dumps(dict(sorted(notes.items())), indent=1), encoding="ascii")
    part.replace(file)
    return file


def note_section(notes: Mapping[str, Note], crash_id: str) -> Section | None:
    """What people say of a crash, as a section of its write-up."""
    note = notes.get(crash_id)
    if note is None:
        return None
    tags = [f"Tags: {', '.join(note.tags)}."] if note.tags else []
    lines = [*tags, *filter(str.strip, note.text.split("\n")), f"Noted on {note.changed or 'a day unknown'}."]
    return Section("Notes of the people who looked at it", list(map(Text, lines)))


# ---- the widget ----------------------------------------------------------------------------------------------------------


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
    return Explorer(fleet, str(choose_module(fleet, module)["module"]), notes)


class _Picture(anywidget.AnyWidget):
    """The script with its data; ``chosen`` is ``crash=<id>`` or ``host=<name>``, as in the report's addresses."""

    _esm = template("explorer.js")
    _css = template("explorer.css")
    data = traitlets.Dict().tag(sync=True)
    chosen = traitlets.Unicode("").tag(sync=True)


class Explorer(widgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """The picture, the chosen crash as blocks, and the notes on it."""

    def __init__(self, fleet: Fleet, module: str, folder: str | Path | None = None) -> None:
        self.fleet, self.module, self.folder = fleet, module, folder
        self.notes = read_notes(folder) if folder is not None else {}
        self.page_of = pages_of(fleet)
        self.crashes = {str(row["crash_id"]): row for _, row in _listed(fleet).iterrows()}
        self.picture = _Picture(data=explorer_data(fleet, module, self._tags()))
        self.picture.observe(lambda _: self._draw(), "chosen")
        self.crash, self.saved = widgets.HTML(), widgets.HTML()
        self.tags = widgets.TagsInput(allow_duplicates=False, placeholder="Add a tag", layout={"width": "100%"})
        self.offered = widgets.Dropdown(options=["Common tags…", *TAGS], layout={"width": "180px"})
        self.offered.observe(self._offer, "value")
        self.note = widgets.Textarea(placeholder="Note", rows=3, layout={"width": "auto"})
        words = "Save tags and note" if folder is not None else "Keep until the kernel ends"
        self.save = widgets.Button(description=words, icon="save", layout={"width": "230px"})
        self.save.on_click(lambda _: self._save())
        rows = [widgets.HBox([self.offered, self.tags]), self.note, widgets.HBox([self.save, self.saved])]
        notice = widgets.HTML(Text(SIMULATED)._repr_html_() if fleet.simulated else "")
        super().__init__([notice, self.picture, widgets.VBox(rows), self.crash], layout={"width": "100%"})
        self.explorer = self
        self.picture.chosen = f"crash={next(iter(self.crashes))}" if self.crashes else ""
        self._draw()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        # Where no kernel runs, such as in an exported notebook, its twin without one.
        return {**super()._repr_mimebundle_(**options), "text/html": offline_twin(self.fleet, self.module)}

    @property
    def crash_id(self) -> str | None:
        """The chosen crash."""
        kind, _, name = self.picture.chosen.partition("=")
        return name if kind == "crash" and name in self.crashes else None

    def _draw(self) -> None:
        crash_id = self.crash_id
        kept = self.notes.get(crash_id or "", Note())
        self.tags.value, self.note.value, self.saved.value = list(kept.tags), kept.text, ""
        for box in (self.tags, self.note, self.save, self.offered):
            box.disabled = crash_id is None
        shown: Block = Text("No crash is chosen.")
        if crash_id is not None:
            crash = self.crashes[crash_id]
            shown = Section("", [Section(crash_title(crash), self.page_of(crash))])
        self.crash.value = shown._repr_html_()

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
        note = Note(tuple(map(str, self.tags.value)), self.note.value.strip(), changed)
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
