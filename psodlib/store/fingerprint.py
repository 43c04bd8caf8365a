"""Which code made what the store holds: a change of it makes the store read, or judge, again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent.parent
_PARSER = ("evidence", "records.py")
_ASSEMBLER = (
    "triage",
    "records.py",
    "assemble.py",
    "schema.py",
    "store/update.py",
    "store/partitions.py",
)


def parser() -> str:
    """Of all that turns bytes into readings."""
    return _of(_PARSER)


def assembler(issues: Sequence[Any] = ()) -> str:
    """Of all that turns readings into tables: code, rules, and the known issues in use."""
    return hashlib.sha256(f"{_of(_ASSEMBLER)}{list(issues)!r}".encode()).hexdigest()[:16]


@cache
def _of(places: tuple[str, ...]) -> str:
    # The files' own bytes: a version number would have to be remembered.
    whole = hashlib.sha256()
    for place in places:
        path = _HERE / place
        for file in (
            [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in (".py", ".txt", ".toml"))
        ):
            whole.update(file.relative_to(_HERE).as_posix().encode() + b"\0" + file.read_bytes())
    return whole.hexdigest()[:16]
