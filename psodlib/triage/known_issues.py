"""Which published issues a crash may be an instance of, and which name a driver version that a fleet runs.

A crash *matches* an issue by a sign in its own text: a symbol of its stack, words of its panic message or of its text. A
module and a version are no sign; who runs an affected version is *exposed* to the issue, whatever crashed.
Patterns are matched by RE2, in time linear in the text, so that nobody's own file can hang a load.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import re2  # type: ignore[import-untyped]

from psodlib.errors import RuleError, in_words
from psodlib.evidence.versions import compare
from psodlib.records import Crash
from psodlib.schema import CLOSED_LISTS
from psodlib.triage.lists import RULES

SURE = ("verified", "reported", "weak")
AREAS = ("storage", "network", "vsan", "nsx", "hardware", "vmkernel")
_SHIPPED = RULES / "known_issues.toml"
_WORDS = ("id", "title", "area", "source", "sure", "module", "fixed_in", "remedy", "sample")
_SIGNS = ("stack", "message", "text")
_LISTS = ("versions", "esxi", "builds", "kinds", *_SIGNS)
_REQUIRED = ("id", "title", "source", "sure", "remedy")
_TELLING = ("module", *_SIGNS)
_BOUND = re.compile(r"(>=|<=|>|<|==)?\s*([\w.-]{1,64})")


@dataclass(frozen=True, slots=True, eq=False)
class Issue:
    """One entry of a known-issues file; the fields are explained at the head of ``rules/known_issues.toml``."""

    id: str
    title: str
    source: str
    sure: str
    remedy: str
    area: str | None = None
    sample: str | None = None
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
    """An issue that a crash does not contradict, and of which it bears a sign."""

    issue: Issue
    held: tuple[str, ...]  # names of its conditions that the crash meets
    unknown: tuple[str, ...]  # names of those that the evidence cannot decide


def load_issues(*extra_files: str | Path) -> tuple[Issue, ...]:
    """The shipped issues and a user's own."""
    issues: dict[str, Issue] = {}
    for file in (_SHIPPED, *(Path(extra) for extra in extra_files)):
        issues.update((issue.id, issue) for issue in _read(file))
    return tuple(issues.values())


_shipped = cache(load_issues)


def _read(file: Path) -> Iterator[Issue]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RuleError(
            file, 0, f"cannot be read ({in_words(error)}); expected a TOML file with [[issue]] entries"
        ) from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        raise RuleError(file, int(at[1]) if at else text.count("\n") + 1, f"no TOML: {error}") from error
    entries = data.get("issue", [])
    if not isinstance(entries, list) or set(data) - {"issue"}:
        raise RuleError(file, 1, f"found {', '.join(sorted(data))}, expected [[issue]] entries and nothing else")
    for number, entry in enumerate(entries):
        for key, problem in _wrong(entry):
            raise RuleError(file, _line_of(text.split("\n"), number, key), problem)
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
        yield Issue(**fields)


def _line_of(lines: Sequence[str], number: int, key: str) -> int:
    # Where an entry's key stands, for messages: the TOML reader does not tell.
    heads = [*(at for at, line in enumerate(lines, 1) if line.strip() == "[[issue]]"), len(lines) + 1]
    head, end = heads[number : number + 2] if number + 1 < len(heads) else (1, len(lines) + 1)
    written = re.compile(rf"\s*{re.escape(key)}\s*=")
    return next((at for at in range(head, end) if written.match(lines[at - 1])), head)


def _wrong(entry: Any) -> Iterator[tuple[str, str]]:
    # What is wrong with an entry, each with the key at which it stands. Whoever asks stops at the first.
    if not isinstance(entry, dict):
        yield "", f"found {entry!r}, expected an [[issue]] entry"
    for key, value in entry.items():
        if key not in _WORDS + _LISTS:
            yield key, f"unknown key {key!r}; expected one of {', '.join(_WORDS + _LISTS)}"
        if key in _WORDS and not isinstance(value, str):
            yield key, f"{key} is {value!r}, expected a text"
        if key in _LISTS and not (isinstance(value, list) and value and all(isinstance(item, str) for item in value)):
            yield key, f"{key} is {value!r}, expected a list of texts with at least one"
    for key in _REQUIRED:
        if not entry.get(key):
            yield "id", f"{key!r} is missing; every issue has {', '.join(_REQUIRED)}"
    if not any(entry.get(key) for key in _TELLING):
        yield "id", f"nothing to know the issue by: expected {', '.join(_TELLING)}"
    for key, allowed in (("sure", SURE), ("area", AREAS)):
        if entry.get(key, allowed[0]) not in allowed:
            yield key, f"{key} is {entry[key]!r}, expected one of {', '.join(allowed)}"
    if ";" in entry["id"]:
        yield "id", f"id is {entry['id']!r}; ids are joined by ';' and hold none"
    for kind in entry.get("kinds", ()):
        if kind not in CLOSED_LISTS["kind"]:
            yield "kinds", f"{kind!r} is no crash kind; expected one of {', '.join(CLOSED_LISTS['kind'])}"
    for key, pattern in ((sign, pattern) for sign in _SIGNS for pattern in entry.get(sign, ())):
        try:
            _pattern((pattern,))
        except re2.error as error:
            why = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else error
            rules = "it has no lookaround and no backreference, and repeats at most 1000 times"
            yield key, f"{pattern!r} is no regular expression that RE2 takes ({why}); {rules}"
    for key, span in ((word, span) for word in ("versions", "builds") for span in entry.get(word, ())):
        bounds = [_BOUND.fullmatch(bound.strip()) for bound in span.split(",")]
        if not all(bound and compare(bound[2], bound[2]) == 0 for bound in bounds):
            yield key, f"{span!r} is no range; expected forms like '5.5.0.58' or '>=5.5.0.50,<5.5.0.60'"


def match_issues(crash: Crash, issues: Sequence[Issue] | None = None) -> tuple[Match, ...]:
    """The issues of which a crash bears a sign and whose other conditions it does not contradict, surest first."""
    given = tuple(issues) if issues is not None else _shipped()
    functions = "\n".join(frame.function for frame in crash.frames if frame.function)
    words = {"stack": functions, "message": crash.message, "text": crash.text}
    texts = {sign: text.encode("utf-8", "replace") for sign, text in words.items() if text}
    if not any(_bears(texts, sign, patterns) for sign, patterns in _signs(given)):
        return ()  # most crashes bear no sign of anything known
    matches = []
    for issue in given:
        held: dict[str, bool | None] = {}
        for condition, answer in _CONDITIONS.items():
            if getattr(issue, condition):
                held[condition] = answer(crash, texts, issue)
                if held[condition] is False:
                    break
        else:
            unknown = tuple(condition for condition, holds in held.items() if holds is None)
            if any(held.get(sign) for sign in _SIGNS):
                matches.append(Match(issue, tuple(c for c in held if c not in unknown), unknown))
    return tuple(sorted(matches, key=lambda match: len(match.unknown)))


def exposed(issues: Iterable[Issue], module: str, version: str | None) -> tuple[Issue, ...]:
    """The issues that name this version of this driver as affected; not knowing the version exposes to none."""
    named = (issue for issue in issues if issue.module == module and version)
    return tuple(issue for issue in named if _in_ranges(issue.versions, version, module))


def _bears(texts: Mapping[str, bytes], sign: str, patterns: tuple[str, ...]) -> bool | None:
    return _pattern(patterns, sign == "stack").search(texts[sign]) is not None if sign in texts else None


# What each condition asks of a crash and its texts, None where the evidence cannot tell. The cheap ones first: most crashes
# contradict most issues by one of these.
_CONDITIONS: dict[str, Callable[[Crash, Mapping[str, bytes], Issue], bool | None]] = {
    "kinds": lambda crash, texts, issue: None if crash.kind == "other" else crash.kind in issue.kinds,
    "module": lambda crash, texts, issue: None if not crash.guilty_module else crash.guilty_module == issue.module,
    "esxi": lambda crash, texts, issue: _begins(issue.esxi, crash.esxi_version),
    "versions": lambda crash, texts, issue: _in_ranges(issue.versions, crash.driver_version, issue.module),
    "builds": lambda crash, texts, issue: _in_ranges(issue.builds, crash.esxi_build, None),
    "stack": lambda crash, texts, issue: _bears(texts, "stack", issue.stack),
    "message": lambda crash, texts, issue: _bears(texts, "message", issue.message),
    "text": lambda crash, texts, issue: _bears(texts, "text", issue.text),
}


@lru_cache(maxsize=8)
def _signs(issues: tuple[Issue, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    # Each sign with the patterns of all issues that have it.
    every = ((sign, tuple(pattern for issue in issues for pattern in getattr(issue, sign))) for sign in _SIGNS)
    return tuple((sign, patterns) for sign, patterns in every if patterns)


@cache
def _pattern(patterns: tuple[str, ...], whole_lines: bool = False) -> Any:
    # One RE2 pattern of several; a stack's are whole symbols, one a line.
    options = re2.Options()
    options.log_errors = False
    any_of = "|".join(f"(?:{pattern})" for pattern in patterns)
    return re2.compile((rf"(?m)^(?:{any_of})$" if whole_lines else any_of).encode(), options)


def _begins(wanted: Iterable[str], found: str | None) -> bool | None:
    return None if found is None else any(f"{found}.".startswith(f"{one}.") for one in wanted)


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
