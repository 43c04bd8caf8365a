"""One crash as blocks: its own text, frames, versions, what came before, its kin, and why it was judged so.

The explorer's pages and the write-up of a crash are put together from these. Nothing is judged here: text and reasons are
those of ``fleet.texts`` and ``fleet.reasons``, likeness that of ``similar_crashes``. What stands beside a crash in the evidence
(the log just before it, what was typed on its host) is read again where the file is at hand and unchanged.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from psodlib.evidence.artifacts.terminal import has_prompt
from psodlib.evidence.psod import find_crashes
from psodlib.fleet import Fleet
from psodlib.triage.similar import similar_crashes, stacks_of
from psodlib.triage.timeline import incident_timeline, lives_of
from psodlib.views.document import Block, Code, Link, Section, Table, Text, sections
from psodlib.views.words import UNKNOWN, as_sentence, count, day, joined, known, label, listing, literal, moment, span

MOST_FRAMES = 60
MOST_LINES = 200  # of a crash's own text
MOST_ALIKE = 8
MOST_REASONS = 40
LONGEST_ID, LONGEST_NAME = 80, 200  # letters, in addresses and in the explorer's data
SOURCES = {
    "banner": "the driver's line at boot", "proc": "/proc", "live_module": "the list of loaded modules", "vib_of_boot": "the VIB installed at boot",
    "esxupdate_before_boot": "the install log before that boot", "esxupdate": "the install log", "install_date": "the VIB's install date",
    "vib_list": "the VIB list", "vib_install": "the output of the installation",
}  # fmt: skip
BLOCK = 256 << 10  # bytes read at a crash's place in its file
BEFORE = 16 << 10  # bytes read before it
MOST_TYPED = 64 << 10  # bytes of a file of commands and their output
MOST_FILES = 200


def where(table: pd.DataFrame, **cells: Any) -> Any:
    """The rows of a table that hold these cells; what is not known is like nothing."""
    for name, cell in cells.items():
        table = table[(table[name] == cell).fillna(False).astype(bool)] if known(cell) else table.iloc[:0]
    return table


def place_of(source: Any, line: Any = None, host: Any = None) -> str:
    """Where a reader finds a fact: file and line, from the host's folder on; no path of this machine."""
    path = literal(source)
    parts = re.split(r"[/\\]", path) if known(source) else []
    if known(host) and str(host) in parts:
        path = "/".join(parts[parts.index(str(host)) :])
    elif re.match(r"/|[A-Za-z]:[/\\]", path):
        path = "/".join(parts[-3:])
    return f"{path}:{line}" if known(source) and known(line) else path


def plain_words(value: Any, unknown: str = UNKNOWN) -> str:
    """A word of a closed list as people write it."""
    return SOURCES.get(str(value)) or literal(value, unknown).replace(";", ", ").replace("_", " ")


def moment_of(time: Any, told_by: Any, unknown: str = UNKNOWN) -> str:
    """When something was, as far as what told of it knows: a VIB's date of installation is a day, not its midnight."""
    return day(time) if told_by == "install_date" and known(time) else moment(time, unknown)


def crash_title(crash: Any) -> str:
    """A crash in a line."""
    return f"Crash of {label(crash['host'], 60)}, {moment(crash['time'], 'time unknown')}"


def not_whole(crash: Any) -> list[str]:
    """That a crash's text is damaged, and how."""
    damage = plain_words(crash["damage"], "")
    return [f"The crash's text is not whole ({damage})."] if damage else []


def address_of(kind: str, name: Any) -> str:
    """The place of a crash or host on the explorer's page."""
    return f"{kind}={label(name, LONGEST_NAME if kind == 'host' else LONGEST_ID)}"


def way_to(kind: str, name: Any, page: str = "") -> str:
    """A link to the place of a crash or host."""
    return f"{page}#{quote(address_of(kind, name), safe='=')}"


def link_to(kind: str, name: Any, text: str, page: str = "", about: str = "") -> str | Link:
    """A crash or host as a link to its place; one without a name is text alone."""
    return Link(way_to(kind, name, page), text, about) if known(name) else text


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
        rows = {name: getattr(fleet, name).iloc[places[name].get(crash[key], [])] for name, key in keys.items()}
        own = replace(fleet, **rows)
        return sections(
            ("What it is", [facts_table(own, crash)]), ("Its own text", own_text(own, crash)),
            ("Frames", [frames_table(crash, own.frames)]), ("Before the crash", _before(own, crash, lives)),
            ("Known issues", issue_lines(own, crash) or ["No known issue matches."]), ("Similar crashes", _similar(fleet, crash, stacks)),
            ("Why this signature and this module", reasons_of(own, crash) or ["No reason is on record."]),
        )  # fmt: skip

    return page_of


def own_text(fleet: Fleet, crash: Any, instead: int = 0) -> list[Block]:
    """The crash's own lines, verbatim, with line numbers, and the guilty module's frames marked beside them; where the lines
    are lost, this many frames instead."""
    numbers = {"line": crash["line"], "byte": crash["offset"]}
    at = " and ".join(f"{word} {number:,}" for word, number in numbers.items() if known(number))
    place = f"{place_of(crash['source'], None, crash['host'])}{f', from {at} on' if at else ''}"
    place = f"{place}. SHA-256 of the lines: {literal(crash['sha256'])}"
    frames, texts = (where(table, crash_id=crash["crash_id"]) for table in (fleet.frames, fleet.texts))
    text = "".join(texts["text"])
    if not text:
        lost = Text(f"The text itself is not among these tables. It stands in {place}.")
        own = frames[frames["backtrace"] == 0] if instead else frames.iloc[:0]
        return [lost, *([frames_table(crash, own, instead)] if len(own) else [])]
    lines = text.removesuffix("\n").split("\n")
    marks = marks_of(lines, frames, crash["guilty_module"])
    marked = f" Marked: the frames of {label(crash['guilty_module'])}." if marks else ""
    more = f" The first {MOST_LINES} of {len(lines):,} lines." if len(lines) > MOST_LINES else ""
    first = int(crash["line"]) if known(crash["line"]) else 1
    return [Code("\n".join(lines[:MOST_LINES]), f"{place}.{marked}{more}", first, marks)]


def marks_of(lines: Sequence[str], frames: pd.DataFrame, module: Any) -> dict[int, str]:
    """Place of each line of a crash's text that is a frame of a module -> the module."""
    signs = [
        f"[0x{int(row.address):x}]" if known(row.address) else str(row.function)
        for row in where(frames, module=module).head(MOST_FRAMES).itertuples()
        if known(row.address) or (known(row.function) and len(str(row.function)) > 3)
    ]
    shown = enumerate(lines[:MOST_LINES])
    return {i: label(module) for i, line in shown if any(sign in line or sign in line.lower() for sign in signs)}


def frames_table(crash: Any, frames: Any, most: int = MOST_FRAMES) -> Table | Text:
    """A crash's frames, innermost first; the guilty module's stand out, in words too."""
    if frames.empty:
        return Text("No frame could be read, so no stack tells who was running.")
    guilty = set(where(frames.head(most).reset_index(), module=crash["guilty_module"]).index)
    rows = [
        [f"{row.backtrace}.{row.index}", f"{label(row.function, 120)}{f'+0x{int(row.offset):x}' if known(row.offset) else ''}",
         f"{label(row.module, unknown='module unknown')}{' ◀ guilty' if place in guilty else ''}",
         plain_words(row.module_evidence, "–")]
        for place, row in enumerate(frames.head(most).itertuples())
    ]  # fmt: skip
    note = f"{count(len(frames) - most, 'more frame')} in tables/frames.parquet." if len(frames) > most else ""
    columns = ["#", "Function", "Module", "Known by"]
    return Table("Backtrace and number, innermost first", columns, rows, note, (8, 46, 28, 18), guilty)


def lines_before(source: Any, offset: Any, sha256: Any, most: int = 20) -> tuple[str, ...]:
    """The lines of the log just before a crash; none unless the crash is still there, by the hash of its lines."""
    # A path from a table may be anything: only a regular file is opened.
    if not (known(source) and known(offset) and known(sha256)) or not os.path.isfile(str(source)) or int(offset) < 0:
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


def typed_on(fleet: Fleet, crash: Any) -> Mapping[str, str]:
    """The files among a host's observations of the guilty module that hold commands with their prompts, as they are, by name."""
    found = {}
    own = where(fleet.drivers, host=crash["host"], module=crash["guilty_module"])
    for source in list(dict.fromkeys(own["source"].dropna().astype(str)))[:MOST_FILES]:
        if os.path.isfile(source) and Path(source).stat().st_size <= MOST_TYPED:
            text = Path(source).read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
            if "\0" not in text and has_prompt(text):
                found[source] = text
    return found


def facts_table(fleet: Fleet, crash: Any) -> Table:
    """Where and when it crashed, on which versions, known how."""
    host: Mapping[str, Any] = next(iter(where(fleet.hosts, host=crash["host"]).to_dict("records")), {})
    own = "; ".join(f"{word} {label(host[word])}" for word in ("cluster", "model") if known(host.get(word)))
    guilty = known(crash["guilty_module"])
    by = f", known from {plain_words(crash['driver_evidence'])}" if known(crash["driver_version"]) else ""
    kind = f" (evidence: {plain_words(crash['guilt'])})" if guilty else ""
    rows: list[tuple[str, str | Link]] = [
        ("Host", link_to("host", crash["host"], label(crash["host"], 90), about=f"({own})" if own else "")),
        ("Time", moment(crash["time"])), ("Uptime", span(crash["uptime"])), ("Kind", plain_words(crash["kind"])),
        ("Message", joined(crash, "message")[:1000]), ("World", joined(crash, "world_id", "world_name")),
        ("ESXi", literal(joined(crash, "esxi_version", "esxi_build", by=" build ") or None)),
        ("Guilty module", f"{label(crash['guilty_module'], unknown='none found')}{kind}"),
        ("Loaded driver", f"{label(crash['driver_version'], unknown='version unknown')}{by}" if guilty else ""),
        ("Signature", label(crash["signature"], 260)),
        ("Damage of the text", plain_words(crash["damage"], "")),
        ("Copies found", f"{crash['copies']:,}" if known(crash["copies"]) and crash["copies"] > 1 else ""),
        ("Crash id", label(crash["crash_id"], LONGEST_ID)),
    ]  # fmt: skip
    return Table("", ["Fact", "Value"], [[name, value] for name, value in rows if value], widths=(24, 76))


def _before(fleet: Fleet, crash: Any, lives: Any) -> list[Block]:
    # The log's own lines where its file is at hand and unchanged; what the tables say of the weeks before, always.
    blocks: list[Block] = []
    if lines := lines_before(crash["source"], crash["offset"], crash["sha256"]):
        first = max(int(crash["line"]) - len(lines), 1) if known(crash["line"]) else 1
        blocks.append(Code("\n".join(lines), "The last lines of the log before it", first))
    facts = incident_timeline(fleet, str(crash["crash_id"]), lives=lives)
    facts = facts[facts["time"].notna() & ~(facts["time"] > crash["time"])]
    past: Any = facts[~facts["what"].isin(["evidence", "crash", "down"])].tail(10).itertuples()
    if rows := [[moment_of(row.time, row.detail), literal(row.what), plain_words(row.detail, "–")] for row in past]:
        blocks.append(Table("The host's life before it", ["Time", "Fact", "Known from"], rows))
    return blocks or [Text("Nothing dated is known of the host before this crash.")]


def _similar(fleet: Fleet, crash: Any, stacks: Mapping[str, Any]) -> list[Block]:
    table = similar_crashes(fleet, str(crash["crash_id"]), MOST_ALIKE, stacks=stacks)
    same = len(where(fleet.crashes, signature=crash["signature"])) - 1
    have = count(same, "other crash has", "other crashes have") if same > 0 else "No other crash has"
    rows: Any = [
        [link_to("crash", row.crash_id, label(row.crash_id, LONGEST_ID)), moment(row.time), label(row.host), label(row.signature, 80),
         f"{row.likeness:.0%}", label(row.shared, 120).replace(";", ", ")]
        for row in table[table["proposal"].notna()].itertuples()
    ]  # fmt: skip
    columns = ["Crash", "Time", "Host", "Signature", "Alike", "Functions shared"]
    return [Text(f"{have} this signature."), *([Table("The most alike stacks", columns, rows)] if rows else [])]


def issue_lines(fleet: Fleet, crash: Any) -> list[str]:
    """The known issues that the crash does not contradict, in the words of its judgement."""
    return reasons_of(fleet, crash, "known_issue") or [*filter(None, literal(crash["known_issues"], "").split(";"))]


def _fit(issue: str, held: str, open_: str | None, remedy: str) -> str:
    words = {"versions": "version", "esxi": "ESXi release"}
    fits, unknown = ([words.get(word, word) for word in re.findall(r"\w+", part or "")] for part in (held, open_))
    left = f"; not known: {listing(unknown)}" if unknown else ""
    return f"{issue}. It matches in {listing(fits)}{left}. {remedy}"


_RULES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"pick_backtrace: (.*)", lambda m: f"Read: backtrace {m[1]}"),
    (r"drop_\w+: (.*)", lambda m: f"Left out: {m[1]}"),
    (r"\w+: -> (.*)", lambda m: f"So the signature is {m[1]}"),
    (r"(?:first_telling|by_\w+): (.*)", lambda m: m[1]),
    (r"(.*); held: ([\w, ]+)(?:; cannot be told: ([\w, ]+))?\. (.*)", lambda m: _fit(*m.groups())),
    (r"(.*) \((\w+)\)", lambda m: f"{m[1]} ({m[2].replace('_', ' ')})"),
)


def reasons_of(fleet: Fleet, crash: Any, *about: str) -> list[str]:
    """Why the crash has its signature and its guilty module, as ``fleet.reasons`` has it, without names of our rules."""
    rows = where(fleet.reasons, crash_id=crash["crash_id"])
    rows = rows[rows["about"].isin(about or ("signature", "suspect", "doubt"))].head(MOST_REASONS)
    lines = []
    for row in rows.itertuples():
        text = f"{row.module}: {row.text}" if row.about == "suspect" and known(row.module) else literal(row.text)
        words = re.sub(r"\b\w{1,40}\.txt:\d{1,6}(?:, )?", "", text).replace(" ()", "")
        rules = ((re.fullmatch(pattern, words, re.DOTALL), phrase) for pattern, phrase in _RULES)
        words = next((phrase(match) for match, phrase in rules if match), words)
        # A module's name stays as it is.
        lines.append(f"{words.rstrip('.')}." if re.match(r"[\w.-]{1,60}: ", words) else as_sentence(words))
    return lines
