"""A file's beginning -> which of many patterns it may show: all of them in one pass, in time linear in its bytes.

References
----------
RE2, https://github.com/google/re2: a set of patterns is one automaton. It knows no looking around and no long counted
repetition, so each pattern is loosened to one that finds more; whoever asks looks again with the pattern itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import re2  # type: ignore[import-untyped]

_AROUND = re.compile(r"\(\?<?[=!]")
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
_COUNTED = re.compile(r"\{(\d+),(?:\d{2,})\}\??")
_MEMORY = 64 << 20  # bytes of an automaton that a hostile text may make it build


class Heads:
    """Patterns of lines as one automaton."""

    def __init__(self, patterns: Iterable[str]) -> None:
        options = re2.Options()
        options.encoding, options.max_mem, options.log_errors = re2.Options.Encoding.LATIN1, _MEMORY, False
        self._set = re2.Set.SearchSet(options)
        for pattern in patterns:
            self._set.Add(f"(?m){loosened(pattern)}".encode())
        self._set.Compile()

    def found(self, head: bytes) -> list[int]:
        """Places of the patterns that the text may show, in their order."""
        return sorted(self._set.Match(head) or ())


def loosened(pattern: str) -> str:
    """A pattern that RE2 knows and that finds all that this one finds."""
    while around := _AROUND.search(pattern):
        depth, end = 1, around.end()
        for token in _TOKEN.finditer(pattern, end):  # to the bracket that ends it, past what is escaped or in a class
            depth += {"(": 1, ")": -1}.get(token[0], 0)
            end = token.end()
            if not depth:
                break
        pattern = pattern[: around.start()] + pattern[end:]
    pattern = _COUNTED.sub(lambda match: {"0": "*", "1": "+"}.get(match[1], f"{{{match[1]},}}"), pattern)
    return re.sub(r"\(\?P<\w+>", "(?:", pattern).replace(r"\Z", r"\z")
