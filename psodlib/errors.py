"""What can go wrong, and what is only worth a warning.

    PsodError
      InputError(ValueError)      a source, inventory, table or argument that cannot be used
        RuleError                 a bad line in a rule list or known-issues file; says file and line
      CollectError(OSError)       a host that could not be collected from; says which

Crash text never raises: damage is data (column ``damage``), and a file that cannot be read is a row in ``problems``.
A user who wants to go on after any of these writes::

    try:
        fleet = psod.load("evidence/")
    except psod.PsodError as error:
        print(error)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class PsodError(Exception):
    """Base of every error that psodlib raises on purpose; a notebook shows its sentence, not the way to it."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class InputError(PsodError, ValueError):
    """The input cannot be used; the message says what was found, what was expected and what to do next."""


class RuleError(InputError):
    """A line of a rule list or known-issues file is wrong; ``file`` and ``line`` (from 1; 0 is all of it) say which."""

    def __init__(self, file: str | Path, line: int, problem: str) -> None:
        super().__init__(f"{file}:{line}: {problem}" if line else f"{file}: {problem}")
        self.file, self.line = str(file), line


class CollectError(PsodError, OSError):
    """Collecting from one host failed; ``host`` says which, as the caller named it."""

    def __init__(self, host: str, problem: str) -> None:
        super().__init__(f"{host}: {problem}")
        self.host = host


class SmallSampleWarning(UserWarning):
    """The numbers rest on too little evidence for the usual reading of their interval."""


def in_words(error: Exception) -> str:
    """An error of the system's without its number and file; any other as it is."""
    return str(getattr(error, "strerror", None) or error)


def visible(text: str) -> str:
    """Text of a log or a server as a terminal can bear it: what cannot be printed is shown as a code."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def known_name(name: str, names: Iterable[object], what: str) -> str:
    """The name, if it is one of these; else InputError with the nearest of them."""
    there = sorted({str(one) for one in names if isinstance(one, str)})
    if name in there:
        return name
    near = difflib.get_close_matches(str(name), there, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the evidence names {', '.join(there[:8]) or 'none'}"
    raise InputError(f"no {what} {str(name)!r}; {hint}")
