"""One crash as blocks: its own text, frames, versions, what came before, its kin, and why it was judged so.

The explorer's pages and the write-up of a crash are put together from these. Nothing is judged here: text and reasons are
those of ``fleet.texts`` and ``fleet.reasons``, likeness that of ``similar_crashes``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pandas as pd

from psodlib.fleet import Fleet
from psodlib.triage.similar import similar_crashes, stacks_of
from psodlib.triage.timeline import incident_timeline, lives_of
from psodlib.views.document import Block, Bullets, Code, Link, Section, Table, Text
from psodlib.views.original import lines_before
from psodlib.views.words import UNKNOWN, count, known, label, listing, literal, moment, span

__all__ = [
    "LONGEST_ID", "LONGEST_NAME", "address_of", "crash_title", "facts_table", "frames_table", "issue_lines", "marks_of",
    "own_text", "pages_of", "place_of", "plain_words", "reasons_of", "release_of", "way_to",
]  # fmt: skip

MOST_FRAMES = 60
MOST_LINES = 200  # of a crash's own text
MOST_ALIKE = 8
MOST_REASONS = 40
LONGEST_ID, LONGEST_NAME = 80, 200  # letters, in addresses and in the explorer's data


def place_of(source: Any, line: Any = None, host: Any = None) -> str:
    """Where a reader finds a fact: file and line, from the host's folder on; no path of this machine."""
    path = literal(source)
    parts = re.split(r"[/\\]", path) if known(source) else []
    at = next((i for i, part in enumerate(parts) if known(host) and part == str(host)), None)
    if at is not None:
        path = "/".join(parts[at:])
    elif re.match(r"/|[A-Za-z]:[/\\]", path):
        path = "/".join(parts[-3:])
    return f"{path}:{line}" if known(source) and known(line) else path


SOURCES = {
    "banner": "the driver's line at boot", "proc": "/proc", "live_module": "the list of loaded modules", "vib_of_boot": "the VIB installed at boot",
    "esxupdate_before_boot": "the install log before that boot", "esxupdate": "the install log", "install_date": "the VIB's install date",
    "vib_list": "the VIB list", "vib_install": "the output of the installation",
}  # fmt: skip


def plain_words(value: Any) -> str:
    """A word of a closed list as people write it."""
    return SOURCES.get(str(value)) or literal(value).replace(";", ", ").replace("_", " ")


def crash_title(crash: Any) -> str:
    """A crash in a line."""
    return f"Crash of {label(crash['host'], 60)}, {moment(crash['time']) if known(crash['time']) else 'time unknown'}"


def address_of(kind: str, name: Any) -> str:
    """The place of a crash or host on the explorer's page."""
    return f"{kind}={label(name, LONGEST_NAME if kind == 'host' else LONGEST_ID)}"


def way_to(kind: str, name: Any, page: str = "") -> str:
    """A link to the place of a crash or host."""
    return f"{page}#{quote(address_of(kind, name), safe='=')}"


KEYS = {
    "hosts": "host", "crashes": "host", "uptimes": "host", "drivers": "host", "coverage": "host",
    "frames": "crash_id", "reasons": "crash_id", "texts": "crash_id",
}  # fmt: skip


def pages_of(fleet: Fleet, crashes: pd.DataFrame | None = None) -> Callable[[Any], list[Section]]:
    """What gives all that is known of one crash, for many crashes of one fleet: its tables are sorted out once, the lives
    of hosts where it is known which crashes will be asked for."""
    stacks = stacks_of(fleet)
    lives = None if crashes is None else lives_of(fleet, crashes["host"])
    places = {name: getattr(fleet, name).groupby(key).indices for name, key in KEYS.items()}

    def page_of(crash: Any) -> list[Section]:
        keys = {name: key for name, key in KEYS.items() if known(crash[key]) or name != "crashes"}
        own = {name: getattr(fleet, name).iloc[places[name].get(crash[key], [])] for name, key in keys.items()}
        return _sections(replace(fleet, **own), crash, _similar(fleet, crash, stacks), lives)

    return page_of


def _sections(fleet: Fleet, crash: Any, similar: Sequence[Block], lives: Any) -> list[Section]:
    frames = fleet.frames
    parts: list[tuple[str, Sequence[Block]]] = [
        ("What it is", [facts_table(fleet, crash)]),
        ("Its own text", own_text(fleet, crash, frames)),
        ("Frames", [frames_table(crash, frames)]),
        ("Before the crash", _before(fleet, crash, lives)),
        ("Known issues", [Bullets(issue_lines(fleet, crash) or ["No known issue matches."])]),
        ("Similar crashes", similar),
        ("Why this signature and this module", [Bullets(reasons_of(fleet, crash) or ["No reason is on record."])]),
    ]
    return [Section(title, blocks) for title, blocks in parts]


# ---- the text ------------------------------------------------------------------------------------------------------------


def own_text(fleet: Fleet, crash: Any, frames: pd.DataFrame) -> list[Block]:
    """The crash's own lines, verbatim, with line numbers, and the guilty module's frames marked beside them."""
    begins = " and ".join(
        f"{word} {crash[name]:,}" for word, name in (("line", "line"), ("byte", "offset")) if known(crash[name])
    )
    where = f"{place_of(crash['source'], None, crash['host'])}{f', from {begins} on' if begins else ''}. SHA-256 of the lines: {literal(crash['sha256'])}"
    text = "".join(fleet.texts.loc[(fleet.texts["crash_id"] == crash["crash_id"]).fillna(False), "text"])
    if not text:
        return [Text(f"The text itself is not among these tables. It stands in {where}.")]
    lines = text.removesuffix("\n").split("\n")
    marks = marks_of(lines, frames, crash["guilty_module"])
    told = f" Marked: the frames of {label(crash['guilty_module'])}." if marks else ""
    more = f" The first {MOST_LINES} of {len(lines):,} lines." if len(lines) > MOST_LINES else ""
    first = int(crash["line"]) if known(crash["line"]) else 1
    return [Code("\n".join(lines[:MOST_LINES]), f"{where}.{told}{more}", first, marks)]


def marks_of(lines: Sequence[str], frames: pd.DataFrame, module: Any) -> dict[int, str]:
    """Place of each line of a crash's text that is a frame of a module -> the module."""
    own: Any = (
        frames[(frames["module"] == module).fillna(False)].head(MOST_FRAMES) if known(module) else frames.iloc[:0]
    )
    signs = [
        f"[0x{int(row.address):x}]" if known(row.address) else str(row.function)
        for row in own.itertuples()
        if known(row.address) or (known(row.function) and len(str(row.function)) > 3)
    ]
    return {
        i: label(module)
        for i, line in enumerate(lines[:MOST_LINES])
        if any(sign in line or sign in line.lower() for sign in signs)
    }


def _function(frame: Any) -> str:
    return f"{label(frame.function, 120)}{f'+0x{int(frame.offset):x}' if known(frame.offset) else ''}"


def frames_table(crash: Any, frames: pd.DataFrame, most: int = MOST_FRAMES) -> Table | Text:
    """A crash's frames, innermost first; the guilty module's stand out, in words too."""
    if frames.empty:
        return Text("No frame could be read, so no stack tells who was running.")
    rows, marked = [], set()
    for place, row in enumerate(frames.head(most).itertuples()):
        guilty = _same(row.module, crash["guilty_module"])
        marked |= {place} if guilty else set()
        module = label(row.module, unknown="module unknown")
        how = plain_words(row.module_evidence) if known(row.module_evidence) else "–"
        rows.append([f"{row.backtrace}.{row.index}", _function(row), f"{module}{' ◀ guilty' if guilty else ''}", how])
    note = f"{count(len(frames) - most, 'more frame')} in tables/frames.parquet." if len(frames) > most else ""
    columns = ["#", "Function", "Module", "Known by"]
    return Table("Backtrace and number, innermost first", columns, rows, note, (8, 46, 28, 18), marked)


# ---- the tables ----------------------------------------------------------------------------------------------------------


def release_of(crash: Any) -> str:
    """The ESXi release and build of a crash, as far as they are known."""
    return " build ".join(label(crash[name]) for name in ("esxi_version", "esxi_build") if known(crash[name]))


def facts_table(fleet: Fleet, crash: Any) -> Table:
    """Where and when it crashed, on which versions, known how."""
    hosts = fleet.hosts[(fleet.hosts["host"] == crash["host"]).fillna(False)]
    own = [
        f"{word} {label(hosts[word].iloc[0])}"
        for word in ("cluster", "model")
        if word in hosts and len(hosts) and known(hosts[word].iloc[0])
    ]
    by = f", known from {plain_words(crash['driver_evidence'])}" if known(crash["driver_version"]) else ""
    driver = f"{label(crash['driver_version'], unknown='version unknown')}{by}"
    kind = f" (evidence: {plain_words(crash['guilt'])})" if known(crash["guilty_module"]) else ""
    guilty = f"{label(crash['guilty_module'], unknown='none found')}{kind}"
    rows: list[tuple[str, str | Link]] = [
        ("Host", Link(way_to("host", crash["host"]), label(crash["host"], 90), f"({'; '.join(own)})" if own else "") if known(crash["host"]) else UNKNOWN),
        ("Time", moment(crash["time"])),
        ("Uptime", span(crash["uptime"])),
        ("Kind", plain_words(crash["kind"])),
        ("Message", literal(crash["message"])[:1000] if known(crash["message"]) else ""),
        ("World", " ".join(label(crash[name], 80) for name in ("world_id", "world_name") if known(crash[name]))),
        ("ESXi", release_of(crash) or UNKNOWN),
        ("Guilty module", guilty),
        ("Loaded driver", driver if known(crash["guilty_module"]) else ""),
        ("Signature", label(crash["signature"], 260)),
        ("Damage of the text", plain_words(crash["damage"]) if known(crash["damage"]) and crash["damage"] else ""),
        ("Copies found", f"{crash['copies']:,}" if known(crash["copies"]) and crash["copies"] > 1 else ""),
        ("Crash id", label(crash["crash_id"], LONGEST_ID)),
    ]  # fmt: skip
    return Table("", ["Fact", "Value"], [[name, value] for name, value in rows if value], widths=(24, 76))


def _before(fleet: Fleet, crash: Any, lives: Any) -> list[Block]:
    # The log's own lines where its file is at hand and unchanged; what the tables say of the weeks before, always.
    blocks: list[Block] = []
    lines = lines_before(crash["source"], crash["offset"], crash["sha256"])
    if lines:
        first = max(int(crash["line"]) - len(lines), 1) if known(crash["line"]) else 1
        blocks.append(Code("\n".join(lines), "The last lines of the log before it", first))
    facts = incident_timeline(fleet, str(crash["crash_id"]), lives=lives)
    past = facts["time"].notna() & ~facts["what"].isin(["evidence", "crash", "down"]) & ~(facts["time"] > crash["time"])
    rows: Any = [
        [moment(row.time), literal(row.what), plain_words(row.detail) if known(row.detail) else "–"]
        for row in facts[past].tail(10).itertuples()
    ]
    if rows:
        blocks.append(Table("The host's life before it", ["Time", "Fact", "Known from"], rows))
    return blocks or [Text("Nothing dated is known of the host before this crash.")]


def issue_lines(fleet: Fleet, crash: Any) -> list[str]:
    """The known issues that the crash does not contradict, in the words of its judgement."""
    told = reasons_of(fleet, crash, "known_issue")
    return told or [word for word in str(crash["known_issues"]).split(";") if word and known(crash["known_issues"])]


def _similar(fleet: Fleet, crash: Any, stacks: Mapping[str, Any]) -> list[Block]:
    table = similar_crashes(fleet, str(crash["crash_id"]), MOST_ALIKE, stacks=stacks)
    others = fleet.crashes[(fleet.crashes["signature"] == crash["signature"]).fillna(False)]
    same = len(others) - 1 if known(crash["signature"]) else 0
    have = count(same, "other crash has", "other crashes have") if same else "No other crash has"
    words = f"{have} this signature."
    table = table[table["proposal"].notna()]
    if table.empty:
        return [Text(words)]
    rows: Any = [
        [Link(way_to("crash", row.crash_id), label(row.crash_id, LONGEST_ID)), moment(row.time), label(row.host), label(row.signature, 80),
         f"{row.likeness:.0%}", label(row.shared, 120).replace(";", ", ")]
        for row in table.itertuples()
    ]  # fmt: skip
    columns = ["Crash", "Time", "Host", "Signature", "Alike", "Functions shared"]
    return [Text(words), Table("The most alike stacks", columns, rows)]


def _fit(issue: str, held: str, open_: str | None, remedy: str) -> str:
    words = {"versions": "version", "esxi": "ESXi release"}
    fits, unknown = ([words.get(word, word) for word in re.findall(r"\w+", part or "")] for part in (held, open_))
    left = f"; not known: {listing(unknown)}" if unknown else ""
    return f"{issue}. It matches in {listing(fits)}{left}. {remedy}"


_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"^pick_backtrace: (.*)$", re.DOTALL), lambda m: f"Read: backtrace {m[1]}"),
    (re.compile(r"^drop_\w+: (.*)$", re.DOTALL), lambda m: f"Left out: {m[1]}"),
    (re.compile(r"^\w+: -> (.*)$", re.DOTALL), lambda m: f"So the signature is {m[1]}"),
    (re.compile(r"^(?:first_telling|by_\w+): (.*)$", re.DOTALL), lambda m: m[1]),
    (
        re.compile(r"^(.*); held: ([\w, ]+)(?:; cannot be told: ([\w, ]+))?\. (.*)$", re.DOTALL),
        lambda m: _fit(*m.groups()),
    ),
    (re.compile(r"^(.*) \((\w+)\)$", re.DOTALL), lambda m: f"{m[1]} ({m[2].replace('_', ' ')})"),
)


def reasons_of(fleet: Fleet, crash: Any, *about: str) -> list[str]:
    """Why the crash has its signature and its guilty module, as ``fleet.reasons`` has it, without names of our rules."""
    rows = fleet.reasons[(fleet.reasons["crash_id"] == crash["crash_id"]).fillna(False)]
    rows = rows[rows["about"].isin(about or ("signature", "suspect", "doubt"))].head(MOST_REASONS)
    return [
        _reason(f"{row.module}: {row.text}" if row.about == "suspect" and known(row.module) else literal(row.text))
        for row in rows.itertuples()
    ]


def _reason(text: str) -> str:
    words = re.sub(r"\b\w{1,40}\.txt:\d{1,6}(?:, )?", "", text).replace(" ()", "")
    for pattern, phrase in _RULES:
        if match := pattern.match(words):
            words = phrase(match)
            break
    begins = words[:1] if re.match(r"[\w.-]{1,60}: ", words) else words[:1].upper()  # a module's name stays as it is
    return f"{begins}{words[1:]}".rstrip(".") + "."


def _same(one: Any, other: Any) -> bool:
    return known(one) and known(other) and str(one) == str(other)
