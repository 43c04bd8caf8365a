"""A crash's own text, and the lines before it, read again where the file is at hand and unchanged."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from psodlib.evidence.vmkernel import find_crashes
from psodlib.views.words import known

__all__ = ["lines_before", "original_text"]

BLOCK = 256 << 10  # bytes read at a crash's place in its file
BEFORE = 16 << 10  # bytes read before it


def original_text(source: Any, offset: Any, sha256: Any) -> str | None:
    """A crash's own text, read again from its file."""
    found = _at_place(source, offset, sha256)
    return found[1] if found else None


def lines_before(source: Any, offset: Any, sha256: Any, most: int = 20) -> tuple[str, ...]:
    """The lines of the log just before a crash, where its file is at hand and unchanged."""
    found = _at_place(source, offset, sha256)
    if not found:
        return ()
    lines = found[0].decode("utf-8", "replace").split("\n")[:-1]
    return tuple(line.removesuffix("\r") for line in lines[-most:])


def _at_place(source: Any, offset: Any, sha256: Any) -> tuple[bytes, str] | None:
    # What stands before the crash, and its text. A path from a table may be anything: only a regular file is opened,
    # and nothing of it is given unless the crash is there.
    if not (known(source) and known(offset) and known(sha256)) or "\0" in str(source) or int(offset) < 0:
        return None
    try:
        if not Path(str(source)).is_file():
            return None
        with Path(str(source)).open("rb") as file:
            start = max(int(offset) - BEFORE, 0)
            file.seek(start)
            data = BytesIO(file.read(int(offset) - start + BLOCK))
    except (OSError, ValueError):
        return None
    before, text = data.read(int(offset) - start), data.read()
    crash = next(iter(find_crashes(text)), None)
    return (before, crash.text) if crash and crash.sha256 == sha256 else None
