"""Which published issues a crash may be an instance of, and which of their conditions held, failed or stayed open."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from psodlib.errors import RuleError
from psodlib.evidence.versions import compare
from psodlib.records import Crash
from psodlib.schema import CLOSED_LISTS
from psodlib.triage.lists import RULES

__all__ = ["Issue", "Match", "load_issues", "match_issues"]

SURE = ("verified", "reported", "weak")
_SHIPPED = RULES / "known_issues.toml"
_WORDS = ("id", "title", "source", "sure", "module", "fixed_in", "remedy")
_LISTS = ("versions", "esxi", "builds", "kinds", "stack", "message", "text")
_REQUIRED = ("id", "title", "source", "sure", "remedy")
_TELLING = ("module", "stack", "message")
_BOUND = re.compile(r"(>=|<=|>|<|==)?\s*([\w.-]{1,64})")
_AT_LINE = re.compile(r"at line (\d+)")


@dataclass(frozen=True, slots=True)
class Issue:
    """One entry of a known-issues file; the fields are explained at the head of ``rules/known_issues.toml``."""

    id: str
    title: str
    source: str
    sure: str
    remedy: str
    fixed_in: str | None = None
    module: str | None = None
    versions: tuple[str, ...] = ()
    esxi: tuple[str, ...] = ()
    builds: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    stack: tuple[str, ...] = ()
    message: tuple[str, ...] = ()
    text: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """An issue that a crash does not contradict."""

    issue: Issue  # the issue
    held: tuple[str, ...]  # names of its conditions that the crash meets, and of those that the evidence cannot decide
    # names of conditions that the crash contradicts; always empty in what ``match_issues`` gives unless asked for all
    failed: tuple[str, ...]
    # names of its conditions that the crash meets, and of those that the evidence cannot decide
    unknown: tuple[str, ...]

    @property
    def full(self) -> bool:
        """Whether every condition held."""
        return not self.failed and not self.unknown


# ---- reading ---------------------------------------------------------------------------------------------------------


def load_issues(*extra_files: str | Path) -> tuple[Issue, ...]:
    """The shipped issues and a user's own."""
    issues: dict[str, Issue] = {}
    for file in (_SHIPPED, *(Path(extra) for extra in extra_files)):
        issues.update((issue.id, issue) for issue in _read(file))
    return tuple(issues.values())


def _read(file: Path) -> list[Issue]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RuleError(file, 0, f"cannot be read ({error}); expected a TOML file with [[issue]] entries") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = _AT_LINE.search(str(error))
        raise RuleError(file, int(at[1]) if at else text.count("\n") + 1, f"no TOML: {error}") from error
    entries = data.get("issue", [])
    if not isinstance(entries, list) or set(data) - {"issue"}:
        raise RuleError(file, 1, f"found {', '.join(sorted(data))}, expected [[issue]] entries and nothing else")
    lines = _Lines(file, tuple(text.split("\n")))
    return [_issue(entry, number, lines) for number, entry in enumerate(entries)]


@dataclass(frozen=True, slots=True)
class _Lines:
    # Where things stand in a file, for messages: the TOML reader does not tell.
    file: Path
    lines: tuple[str, ...]

    def error(self, number: int, key: str, problem: str) -> RuleError:
        heads = [at for at, line in enumerate(self.lines, 1) if line.strip() == "[[issue]]"]
        head = heads[number] if number < len(heads) else 1
        end = heads[number + 1] - 1 if number + 1 < len(heads) else len(self.lines)
        places = (at for at in range(head, end + 1) if re.match(rf"\s*{re.escape(key)}\s*=", self.lines[at - 1]))
        return RuleError(self.file, next(places, head), problem)


def _issue(entry: Any, number: int, lines: _Lines) -> Issue:
    if not isinstance(entry, dict):
        raise lines.error(number, "", f"found {entry!r}, expected an [[issue]] entry")
    for key, value in entry.items():
        if key not in _WORDS + _LISTS:
            raise lines.error(number, key, f"unknown key {key!r}; expected one of {', '.join(_WORDS + _LISTS)}")
        if key in _WORDS and not isinstance(value, str):
            raise lines.error(number, key, f"{key} is {value!r}, expected a text")
        if key in _LISTS and not (isinstance(value, list) and value and all(isinstance(item, str) for item in value)):
            raise lines.error(number, key, f"{key} is {value!r}, expected a list of texts with at least one")
    missing = [key for key in _REQUIRED if not entry.get(key)]
    if missing:
        raise lines.error(number, "id", f"{missing[0]!r} is missing; every issue has {', '.join(_REQUIRED)}")
    if not any(entry.get(key) for key in _TELLING):
        raise lines.error(number, "id", f"nothing to know the issue by: expected {', '.join(_TELLING)}")
    _check_values(entry, number, lines)
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return Issue(**fields)


def _check_values(entry: dict[str, Any], number: int, lines: _Lines) -> None:
    if entry["sure"] not in SURE:
        raise lines.error(number, "sure", f"sure is {entry['sure']!r}, expected one of {', '.join(SURE)}")
    if ";" in entry["id"]:
        raise lines.error(number, "id", f"id is {entry['id']!r}; ids are joined by ';' and hold none")
    for kind in entry.get("kinds", ()):
        if kind not in CLOSED_LISTS["kind"]:
            raise lines.error(
                number, "kinds", f"{kind!r} is no crash kind; expected one of {', '.join(CLOSED_LISTS['kind'])}"
            )
    for key in ("stack", "message", "text"):
        for pattern in entry.get(key, ()):
            try:
                re.compile(pattern)
            except re.error as error:
                raise lines.error(number, key, f"{pattern!r} is no regular expression: {error}") from error
    for key in ("versions", "builds"):
        for span in entry.get(key, ()):
            bounds = [_BOUND.fullmatch(bound.strip()) for bound in span.split(",")]
            if not all(bound and compare(bound[2], bound[2]) == 0 for bound in bounds):
                raise lines.error(
                    number, key, f"{span!r} is no range; expected forms like '5.5.0.58' or '>=5.5.0.50,<5.5.0.60'"
                )


# ---- matching --------------------------------------------------------------------------------------------------------


def match_issues(
    crash: Crash,
    driver_version: str | None = None,
    issues: Sequence[Issue] | None = None,
    esxi_build: str | None = None,
) -> tuple[Match, ...]:
    """The issues that a crash may be an instance of."""
    version = driver_version or crash.driver_version
    build = esxi_build or crash.esxi_build
    matches = [_match(crash, version, build, issue) for issue in (_shipped() if issues is None else issues)]
    kept = [match for match in matches if not match.failed and set(_TELLING) & set(match.held)]
    return tuple(sorted(kept, key=lambda match: len(match.unknown)))


@cache
def _shipped() -> tuple[Issue, ...]:
    return load_issues()


def _match(crash: Crash, version: str | None, build: str | None, issue: Issue) -> Match:
    answers = {
        "module": _same(issue.module, crash.guilty_module),
        "versions": _in_ranges(issue.versions, version, issue.module),
        "esxi": _begins(issue.esxi, crash.esxi_version),
        "builds": _in_ranges(issue.builds, build, None),
        "kinds": crash.kind in issue.kinds if crash.kind != "other" else None,
        "stack": _found(issue.stack, [frame.function for frame in crash.frames if frame.function], whole=True),
        "message": _found(issue.message, [crash.message] if crash.message else []),
        "text": _found(issue.text, [crash.text] if crash.text else []),
    }
    given = {name: answer for name, answer in answers.items() if getattr(issue, name)}

    def those(wanted: bool | None) -> tuple[str, ...]:
        return tuple(name for name, answer in given.items() if answer is wanted)

    return Match(issue, held=those(True), failed=those(False), unknown=those(None))


def _same(wanted: str | None, found: str | None) -> bool | None:
    return None if found is None else found == wanted


def _begins(wanted: Iterable[str], found: str | None) -> bool | None:
    return None if found is None else any(found == one or found.startswith(f"{one}.") for one in wanted)


def _found(patterns: Iterable[str], texts: Sequence[str], whole: bool = False) -> bool | None:
    if not texts:
        return None
    look = re.fullmatch if whole else re.search
    return any(look(pattern, text) for pattern in patterns for text in texts)


def _in_ranges(ranges: Iterable[str], found: str | None, module: str | None) -> bool | None:
    if found is None or compare(found, found, module) is None:
        return None
    return any(all(_within(bound.strip(), found, module) for bound in span.split(",")) for span in ranges)


def _within(bound: str, found: str, module: str | None) -> bool:
    match = _BOUND.fullmatch(bound)
    order = compare(found, match[2], module) if match else None
    if match is None or order is None:
        return False
    return {">=": order >= 0, "<=": order <= 0, ">": order > 0, "<": order < 0}.get(match[1], order == 0)
