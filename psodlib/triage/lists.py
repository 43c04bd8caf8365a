"""Rule lists: one pattern a line, and why it is there.

A line is ``pattern``, optionally ``-> value``, then ``# reason``, each set off by two or more spaces::

    Panic(_\\w+)?                     # the panic machinery itself
    hpsa_               -> hpsa      # every symbol of the driver's source starts so

Empty lines and lines that start with ``#`` are comments. Patterns are regular expressions that must match the whole
text (prefix tables are plain text). A line without a reason is an error: nobody dares to remove a line that nobody can
explain.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from psodlib.errors import RuleError, in_words

RULES = Path(__file__).parent / "rules"
_LINE = re.compile(r"(?P<pattern>\S(?:.*?\S)??)(?: {2,}-> (?P<value>\S(?:.*?\S)??|\"\"))?(?: {2,}# (?P<reason>\S.*))?")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a list."""

    pattern: str  # as written
    value: str | None  # what the line maps to, for lists that map
    reason: str  # why the line is there
    file: str  # where it stands
    line: int  # where it stands
    regex: re.Pattern[str] | None  # the compiled pattern; None where the text itself is meant

    def fits(self, text: str) -> bool:
        """Whether the pattern is the whole of a text."""
        return self.regex.fullmatch(text) is not None if self.regex else self.pattern == text


@cache
def read_rules(file: str | Path, mapped: bool = False, plain: bool = False) -> tuple[Rule, ...]:
    """Read a rule list."""
    path = RULES / file if isinstance(file, str) and "/" not in file else Path(file)
    try:
        lines = enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
    except (OSError, UnicodeDecodeError) as error:
        raise RuleError(path, 0, f"cannot be read ({in_words(error)}); expected a text file in UTF-8") from error
    rules = ((number, line.strip()) for number, line in lines if line.strip() and not line.startswith("#"))
    return tuple(_rule(path, number, line, mapped, plain) for number, line in rules)


def _rule(path: Path, number: int, line: str, mapped: bool, plain: bool) -> Rule:
    match = _LINE.fullmatch(line)
    if match is None or not match["reason"]:
        raise RuleError(path, number, f"found {line!r}, expected a pattern, two spaces and '# reason'")
    if mapped is (match["value"] is None):
        wanted = "a pattern and -> value" if mapped else "a pattern without ->"
        raise RuleError(path, number, f"found {line!r}, expected {wanted}")
    plain = plain or match["pattern"].isidentifier()  # most are, and to compile hundreds is dear
    try:
        regex = None if plain else re.compile(match["pattern"])
    except re.error as error:
        raise RuleError(path, number, f"{match['pattern']!r} is no regular expression: {error}") from error
    value = "" if match["value"] == '""' else match["value"]
    return Rule(match["pattern"], value, match["reason"], path.name, number, regex)


def matcher(file: str | Path, mapped: bool = False) -> Callable[[str], Rule | None]:
    """The first line of a list whose pattern is the whole of a text, or None; remembered, for a fleet's symbols repeat."""

    @lru_cache(maxsize=1 << 16)
    def first(text: str) -> Rule | None:
        return next((rule for rule in read_rules(file, mapped) if rule.fits(text)), None)

    return first
