"""One crash -> the zip that a vendor asks for: its text, the log around it, versions, timeline, write-up, and the hash of each file."""

from __future__ import annotations

import hashlib
import io
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from psodlib import schema
from psodlib.anonymiser import Pseudonyms, Rewriter, learn_names
from psodlib.anonymiser.folder import write_mapping
from psodlib.anonymiser.sweep import Suspect, Sweep
from psodlib.anonymiser.tables import rewrite_table
from psodlib.errors import InputError, in_words
from psodlib.evidence.archives import Item
from psodlib.evidence.psod import find_crashes
from psodlib.evidence.sources import iter_items
from psodlib.fleet import Fleet, is_saved, load
from psodlib.store.folder import is_store
from psodlib.store.tables import roots_of
from psodlib.triage.crashes import explain
from psodlib.triage.known_issues import load_issues
from psodlib.triage.timeline import incident_timeline
from psodlib.views import charts
from psodlib.views.account import find_account
from psodlib.views.crash import typed_on, where
from psodlib.views.document import Picture, Section, Text, to_html, to_markdown, to_pdf
from psodlib.views.spreadsheet import csv_text
from psodlib.views.words import known, literal
from psodlib.views.writeup import asked_for, choose_crash, write_up

WINDOW = pd.Timedelta(minutes=30)  # of log, before and after the crash
MOST_LOG = 4 << 20  # bytes of one file's window
MOST_TEXT = 1 << 20  # bytes around a crash in its own file
BLOCK = 256 << 10
_STAMP = re.compile(rb"^(?:<\d{1,3}>)?(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")


@dataclass(frozen=True)
class Case:
    """What was written: the zip, its files by name with their SHA-256; where names were replaced the owner's mapping, and what
    still looks like a name."""

    file: Path
    hashes: Mapping[str, str]
    mapping: Path | None = None
    suspects: tuple[Suspect, ...] = ()


def case(
    crash_id: str, *sources: str | Path, out: str | Path, inventory: str | Path | None = None, known_issues: str | Path | None = None,
    notes: str | Path | None = None, site: str | Path | None = None, key: bytes | None = None, words: Sequence[str] = (),
) -> Case:  # fmt: skip
    """Zip what a vendor asks for about one crash.

    Parameters
    ----------
    crash_id : str
        The crash, or the first digits of its id.
    *sources : str or Path
        Evidence that holds it, as for ``load``.
    out : str or Path
        The zip to write; one that is there is replaced. The same evidence gives the same bytes.
    inventory, known_issues
        As for ``load``.
    notes, site : str or Path, optional
        Folder of the explorer's notes, and a private ``site.toml``: neither leaves the house unless it is named here.
    key : bytes, optional
        Replace every name, as ``anonymise`` does with this key; the mapping is written beside ``out``.
    words : sequence of str
        As for ``anonymise``.

    Returns
    -------
    Case
        The zip and what is in it.

    Raises
    ------
    InputError
        No crash, or more than one, has an id that begins so; ``out`` cannot be written.

    Example
    -------
    >>> import psodlib as psod
    >>> sorted(psod.case("75b6d986", "data/incident-2014-05-31", out="case.zip").hashes)[:2]  # doctest: +SKIP
    ['MANIFEST.sha256', 'README.md']
    """
    if key is not None and any(map(is_saved, sources)):
        raise InputError("names are learned from the logs: to anonymise a case, name the evidence itself, not a store")
    fleet = load(*sources, inventory=inventory, known_issues=known_issues)
    crash: Any = choose_crash(fleet, crash_id)
    whole = fleet.crash(crash["crash_id"])
    files = _texts(crash, _evidence(sources))
    files.setdefault("crash.txt", whole.text.encode("utf-8", "backslashreplace"))
    files["explain.txt"] = explain(whole).encode("utf-8", "backslashreplace")
    more: list[Any] = asked_for(crash["crash_id"], notes, None)  # what people noted is paragraphs
    typed = typed_on(fleet, crash)
    account = find_account(sources, crash, len(fleet.crashes))
    if key is not None:
        pseudonyms = Pseudonyms(key)
        rewriter = Rewriter(learn_names(sources, inventory, words), pseudonyms)
        tables = {name: rewrite_table(getattr(fleet, name), rewriter) for name in (*schema.TABLES, *schema.AUXILIARY)}
        fleet = Fleet(**tables, simulated=fleet.simulated)
        crash = fleet.crashes[fleet.crashes["crash_id"] == crash["crash_id"]].iloc[0]
        files = {rewriter.path(name): b"".join(rewriter.stream([data])) for name, data in files.items()}
        more = [Section(each.title, [Text(rewriter.text(one.text)) for one in each.blocks]) for each in more]
        typed = {rewriter.path(name): rewriter.text(text) for name, text in typed.items()}
        account = account.renamed(rewriter.text)
    more += asked_for(crash["crash_id"], None, site)  # whoever asks for the site's facts means them
    issues = load_issues(*([known_issues] if known_issues else []))
    files |= _tables(fleet, crash, issues)
    files |= _write_ups(fleet, crash, issues=issues, more=more, account=account, typed=typed)
    files["README.md"] = _readme(crash, files, key is not None, site is not None).encode()
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    files["MANIFEST.sha256"] = "".join(f"{digest}  {name}\n" for name, digest in hashes.items()).encode()
    file = _zipped(files, Path(out), f"psod-case-{crash['crash_id']}")
    if key is None:
        return Case(file, hashes)
    # What the evidence said, as it is in the zip: the pages are made of it, and what explains it is in our own words.
    sweep = Sweep(rewriter.names, pseudonyms)
    for name, data in sorted(files.items()):
        sweep.look(name.encode("utf-8", "surrogateescape"), name, 0)
        if name.endswith(".txt") and name != "explain.txt":
            sweep.look(data, name, 1)
    suspects = tuple(sorted(sweep.found.values(), key=lambda one: (one.source, one.line)))
    mapping = write_mapping(file.with_name(f"{file.name}.mapping.json"), pseudonyms, (), suspects)
    return Case(file, hashes, mapping, suspects)


def _evidence(sources: Sequence[str | Path]) -> list[str | Path]:
    # Where the logs are: of a store, the sources that it was loaded from; of a saved fleet, nowhere.
    found: list[str | Path] = []
    for source in sources:
        found += roots_of(Path(source)) if is_store(Path(source)) else [] if is_saved(source) else [source]
    return found


def _texts(crash: pd.Series, sources: Sequence[str | Path]) -> dict[str, bytes]:
    # The crash's own lines with what stands around them in its file; and what the host's other logs say of that half hour.
    files: dict[str, bytes] = {}
    hint: str | None = None
    others: list[tuple[str | None, str, bytes]] = []
    for item in iter_items(*sources) if sources else ():
        if not isinstance(item, Item):
            continue
        if item.source == crash["source"]:
            hint = item.hint
            files["crash.txt"], files["log-around-the-crash.txt"] = _around(item, crash["offset"], crash["sha256"])
        elif known(crash["time"]) and _may_be_of(item, crash["host"]) and (found := _in_window(item, crash["time"])):
            # A name that every system can unpack, and that leads nowhere.
            safe = re.sub(r"[^A-Za-z0-9._-]+", "_", item.name.replace("/", "-"))[-80:].lstrip(".-_") or "log"
            others.append((item.hint, safe, found))
    own = [(name, found) for its_hint, name, found in others if its_hint == hint]
    return files | {f"logs/{number:02d}-{name}.txt": found for number, (name, found) in enumerate(own, 1)}


def _may_be_of(item: Item, host: Any) -> bool:
    # Another host's files stay closed: by the short name, as places and logs may give either.
    short = [str(name).lower().partition(".")[0] for name in (item.hint, host)]
    return item.hint is None or not known(host) or short[0] == short[1]


def _around(item: Item, offset: Any, sha256: Any) -> tuple[bytes, bytes]:
    with item.open() as stream:
        before, after, left = b"", b"", int(offset) if known(offset) else 0
        while left > 0 and (data := stream.read(min(left, BLOCK))):
            before, left = (before + data)[-MOST_TEXT:], left - len(data)
        while len(after) < MOST_TEXT and (data := stream.read(BLOCK)):
            after += data
    crashes = list(find_crashes(after))
    crash = next((found for found in crashes if found.sha256 == sha256), crashes[0] if crashes else None)
    text = crash.text.encode("utf-8", "surrogateescape") if crash else after[:BLOCK]
    return text, before + after


def _in_window(item: Item, time: pd.Timestamp) -> bytes:
    # Lines of a log with a full stamp near the crash, and what follows them without one.
    low, high = (f"{moment:%Y-%m-%dT%H:%M:%S}".encode() for moment in (time - WINDOW, time + WINDOW))
    kept, size, inside = [], 0, False
    with item.open() as stream:
        if b"\0" in stream.peek(512) or not _STAMP.search(stream.peek(512)):
            return b""
        lines = io.BufferedReader(stream, BLOCK)
        for line in iter(lambda: lines.readline(MOST_LOG), b""):
            stamp = _STAMP.match(line)
            inside = low <= stamp[1] <= high if stamp else inside
            if inside and size < MOST_LOG:
                kept.append(line)
                size += len(line)
    return b"".join(kept)


def _tables(fleet: Fleet, crash: pd.Series, issues: Sequence[Any]) -> dict[str, bytes]:
    host, crash_id = {"host": crash["host"]}, {"crash_id": crash["crash_id"]}
    drivers = where(fleet.drivers, **host).drop_duplicates(["module", "version", "state", "vib", "firmware"])
    columns = ["id", "title", "fixed_in", "remedy", "source", "sure"]
    named = [one for one in issues if one.id in literal(crash["known_issues"], "").split(";")]
    tables = {
        "host": where(fleet.hosts, **host), "crash": where(fleet.crashes, **crash_id), "backtrace": where(fleet.frames, **crash_id),
        "module-map": where(fleet.modules, **crash_id), "uptimes": where(fleet.uptimes, **host), "versions": drivers,
        "timeline": incident_timeline(fleet, str(crash["crash_id"])),
        "known-issues": pd.DataFrame([[getattr(one, name) for name in columns] for one in named], columns=columns),
    }  # fmt: skip
    return {f"tables/{name}.csv": csv_text(table).encode("utf-8", "backslashreplace") for name, table in tables.items()}


def _write_ups(fleet: Fleet, crash: pd.Series, **known_of: Any) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="psod-") as place:
        ax = charts.plot_incident(incident_timeline(fleet, str(crash["crash_id"])), simulated=fleet.simulated)
        png, _ = charts.save_chart(ax, Path(place) / "incident")
        title, caption, empty = charts.wording(ax)
        document = write_up(fleet, crash, pictures=[] if empty else [Picture(png, title, caption)], **known_of)
        pdf = to_pdf(document, Path(place) / "writeup.pdf", "writeup.typ").read_bytes()
        pages = {"writeup.html": to_html(document), "writeup.md": to_markdown(document)}
        return {**{name: page.encode() for name, page in pages.items()}, "writeup.pdf": pdf}


ABOUT = {
    "crash.txt": "the crash's own lines", "log-around-the-crash.txt": "the file it stands in, before and after it",
    "explain.txt": "why this signature and this module", "writeup.html": "the write-up", "writeup.pdf": "the same for print",
    "writeup.md": "the same for a wiki", "tables/backtrace.csv": "the stack's frames", "tables/versions.csv": "driver, firmware and VIB versions seen on the host",
    "tables/module-map.csv": "the modules of the dump, with their addresses", "tables/timeline.csv": "boots, driver changes and crashes around it",
    "tables/uptimes.csv": "the host's boots", "tables/known-issues.csv": "known issues that it matches", "tables/host.csv": "the host: release, hardware",
    "tables/crash.csv": "the crash, as fields",
}  # fmt: skip


def _readme(crash: pd.Series, files: Mapping[str, bytes], renamed: bool, with_site: bool) -> str:
    other = "lines of another log of the host, half an hour before to half an hour after"
    lines = "\n".join(f"- `{name}`: {ABOUT.get(name, other)}" for name in sorted(files))
    names = (
        "Names of hosts, people, machines and places are replaced, the same name by the same word everywhere. The SHA-256 of the"
        " crash in the write-up is of the original lines, which the owner keeps."
    )
    check = "`sha256sum -c MANIFEST.sha256`, run in this folder, checks that every file is as it was packed."
    own = "The write-up holds the account and contract of the owner's site."
    parts = [
        f"# Crash {literal(crash['crash_id'])}",
        "What is in this case:",
        lines,
        check,
        *([names] if renamed else []),
    ]
    return "\n\n".join([*parts, own if with_site else "No account or contract number is in it."]) + "\n"


def _zipped(files: Mapping[str, bytes], out: Path, top: str) -> Path:
    # No clock, no order of a folder, no owner: the same content is the same zip.
    part = out.with_name(f"{out.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in sorted(files.items()):
                info = zipfile.ZipInfo(f"{top}/{name}", (1980, 1, 1, 0, 0, 0))
                info.compress_type, info.external_attr, info.create_system = zipfile.ZIP_DEFLATED, 0o644 << 16, 3
                archive.writestr(info, data)
        part.replace(out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"{out}: the case cannot be written there ({in_words(error)})") from error
    return out
