"""What people say of a crash: tags and notes, kept as JSON beside the store, exported with the write-up."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from psodlib.errors import InputError
from psodlib.views.document import Block, Section, Text

MOST_NOTE = 20_000  # letters
MOST_TAGS = 20
NOTES_FILE = "crash_notes.json"


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
        raise InputError(
            f"{file}: not a file of crash notes ({type(error).__name__}: {error}); repair it or move it away; nothing was overwritten"
        ) from error


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
    blocks: list[Block] = [Text(f"Tags: {', '.join(note.tags)}.")] if note.tags else []
    blocks += [Text(line) for line in note.text.split("\n") if line.strip()]
    blocks.append(Text(f"Noted on {note.changed or 'a day unknown'}."))
    return Section("Notes of the people who looked at it", blocks)
