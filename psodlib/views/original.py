"""What stands beside a crash in the evidence, read again where the file is at hand and unchanged: the lines of the log just
before it, and what people typed on its host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from psodlib.evidence.artifacts.terminal import has_prompt
from psodlib.evidence.vmkernel import find_crashes
from psodlib.views.words import known

__all__ = ["lines_before", "typed_on"]

BLOCK = 256 << 10  # bytes read at a crash's place in its file
BEFORE = 16 << 10  # bytes read before it
MOST_TYPED = 64 << 10  # bytes of a file of commands and their output
MOST_FILES = 200


def lines_before(source: Any, offset: Any, sha256: Any, most: int = 20) -> tuple[str, ...]:
    """The lines of the log just before a crash; none unless the crash is still there, by the hash of its lines."""
    # A path from a table may be anything: only a regular file is opened.
    if not (known(source) and known(offset) and known(sha256)) or not _is_file(str(source)) or int(offset) < 0:
        return ()
    start = max(int(offset) - BEFORE, 0)
    try:
        with Path(str(source)).open("rb") as file:
            file.seek(start)
            before, text = file.read(int(offset) - start), file.read(BLOCK)
    except (OSError, ValueError, OverflowError):
        return ()
    crash = next(iter(find_crashes(text)), None)
    if crash is None or crash.sha256 != sha256:
        return ()
    lines = before.decode("utf-8", "replace").split("\n")[:-1]
    return tuple(line.removesuffix("\r") for line in lines[-most:])


def typed_on(drivers: pd.DataFrame) -> Mapping[str, str]:
    """The files among a host's driver observations that hold commands with their prompts, as they are, by name."""
    found = {}
    for source in list(dict.fromkeys(drivers["source"].dropna().astype(str)))[:MOST_FILES]:
        if _is_file(source) and Path(source).stat().st_size <= MOST_TYPED:
            text = Path(source).read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
            if "\0" not in text and has_prompt(text):
                found[source] = text
    return found


def _is_file(path: str) -> bool:
    try:
        return "\0" not in path and Path(path).is_file()
    except (OSError, ValueError):
        return False
