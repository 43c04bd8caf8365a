"""The ledger: which files are known, which must be read, and what becomes of those that changed, moved or went.

What a store once knew stays. A log that grew is read again whole; one that was rotated lies under another name; one that
is gone is kept and told of. What was an output without a time of its own is true only until the next one is printed over it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from psodlib.errors import InputError
from psodlib.evidence.places import Place, shown
from psodlib.evidence.sources import Item, Unit, open_unit
from psodlib.records import FileReading
from psodlib.store.folder import write_whole
from psodlib.store.readings import Entry, as_json, from_json

__all__ = [
    "Job",
    "Plan",
    "begins_with",
    "digest",
    "known_again",
    "lasting",
    "look",
    "plan",
    "read_ledger",
    "settled",
    "superseded",
    "unchanged",
    "write_ledger",
]

RACY = 2.0  # seconds: a file changed this shortly before it was looked at may change again under the same time
_BLOCK = 1 << 20
# A file with one of these troubles may be whole the next time.
PASSING = frozenset({"unreadable", "vanished", "changed"})


@dataclass(frozen=True, slots=True)
class Job:
    """One file to read: what the ledger will say of it, and what it said."""

    unit: Unit
    entry: Entry
    known: Entry | None


@dataclass(frozen=True)
class Plan:
    """What one load has to do: ``kept`` stays as it is, ``jobs`` are read, ``absent`` were there the last time."""

    kept: tuple[Entry, ...]
    jobs: tuple[Job, ...]
    absent: tuple[Entry, ...]
    stale: int  # kept entries that an earlier parser read, of sources not given or files gone
    reread: int  # jobs whose file is unchanged: only the parser is another


def look(units: Iterable[tuple[str, Unit]], parser: str) -> Iterator[tuple[Unit, Entry]]:
    """Each file as the ledger would have it, its content not yet looked into."""
    now = time.time()
    for root, unit in units:
        size, mtime, settled = _stat(unit, now)
        said = unit.place
        place = (said.source, said.name, said.hint, said.hint_kind, str(said.collected), len(unit.paths))
        where = hashlib.sha256(repr(place).encode()).hexdigest()[:16]
        stamp = f"{where}:{size}:{mtime}" if settled else f"{where}:"
        yield (
            unit,
            Entry(
                path=shown(unit.paths[0]),
                root=shown(root),
                stamp=stamp,
                size=size,
                mtime=mtime,
                sha256="",
                parser=parser,
            ),
        )


def _stat(unit: Unit, now: float) -> tuple[int, str, bool]:
    # Size, time (or what a store of objects has instead), and whether they can be believed.
    size, times = 0, []
    newest = 0.0
    try:
        for path in unit.paths:
            if "://" in path:
                files, name = fsspec.core.url_to_fs(path)
                info = files.info(name)
                size += int(info.get("size") or 0)
                times.append(str(info.get("ETag") or info.get("mtime") or info.get("LastModified") or ""))
            else:
                stat = os.stat(path)
                size += stat.st_size
                times.append(str(stat.st_mtime_ns))
                newest = max(newest, stat.st_mtime)
    except Exception:  # each protocol has errors of its own; the reader will say what is wrong
        return 0, "", False
    return size, ",".join(times), all(times) and now - newest > RACY


def plan(entries: Sequence[Entry], looked: Iterable[tuple[Unit, Entry]], roots: set[str]) -> Plan:
    """Hold the files that are there against those that are known."""
    known = {entry.path: entry for entry in entries if not entry.gone}
    kept, jobs, seen = [], [], set()
    parser = ""
    reread = 0
    for unit, entry in looked:
        if entry.path in seen:
            continue
        seen.add(entry.path)
        parser = entry.parser
        old = known.get(entry.path)
        same = old is not None and old.stamp == entry.stamp and not entry.stamp.endswith(":")
        if old is not None and same and old.parser == entry.parser:
            kept.append(old if old.root == entry.root else replace(old, root=entry.root))
            continue
        reread += same
        jobs.append(Job(unit, entry, old))
    absent = tuple(e for e in known.values() if e.path not in seen and e.root in roots)
    others = [e for e in entries if e.gone or (e.path not in seen and e.root not in roots)]
    stale = sum(entry.parser != parser for entry in others) if parser else 0
    return Plan((*kept, *others), tuple(jobs), absent, stale, reread)


def digest(job: Job) -> Entry:
    """The entry with the file's sha256, and that of its first bytes as many as were known; "" where it cannot be read."""
    whole, before = hashlib.sha256(), ""
    left = job.known.size if job.known else -1
    try:
        for path in job.unit.paths:
            with fsspec.open(path, "rb") if "://" in path else open(path, "rb") as file:
                while block := file.read(min(_BLOCK, left) if left > 0 else _BLOCK):
                    whole.update(block)
                    if left > 0:
                        left -= len(block)
                        before = "" if left else whole.hexdigest()
    except Exception:  # as in `_stat`
        return replace(job.entry, stamp=f"{job.entry.stamp.partition(':')[0]}:", sha256="")
    return replace(job.entry, sha256=whole.hexdigest(), before=before)


def unchanged(job: Job, entry: Entry) -> bool:
    """True where only the file's time is another: same bytes, same place, same parser."""
    old = job.known
    return (
        old is not None and bool(entry.sha256) and old.sha256 == entry.sha256 and old.parser == entry.parser
        and old.stamp.partition(":")[0] == entry.stamp.partition(":")[0]
        and not any(problem["problem"] in PASSING for problem in old.problems)
    )  # fmt: skip


def known_again(job: Job, entry: Entry) -> Entry:
    """What is known of a file, under its new time."""
    assert job.known is not None
    return replace(job.known, stamp=entry.stamp, mtime=entry.mtime, root=entry.root)


def settled(entry: Entry) -> Entry:
    """An entry as read; one whose trouble may pass is looked into again the next time."""
    passing = any(problem["problem"] in PASSING for problem in entry.problems)
    return replace(entry, stamp=f"{entry.stamp.partition(':')[0]}:") if passing else entry


def superseded(old: Entry, present: Iterable[Entry], contents: set[tuple[int, str]], digests: set[str]) -> bool:
    """True where all that a file said is still said by files that are there: it was moved, packed or grew and was
    moved."""
    mine = {content for piece in old.pieces for content in piece.contents}
    telling = [piece for piece in old.pieces if piece.length]
    if not telling or old.sha256 in digests or (mine and all(piece.contents for piece in telling) and mine <= contents):
        return True
    folder = PurePosixPath(old.path.replace("\\", "/")).parent
    return any(
        begins_with(entry, old) for entry in present if PurePosixPath(entry.path.replace("\\", "/")).parent == folder
    )


def begins_with(entry: Entry, old: Entry) -> bool:
    """True where a file, unpacked, begins with the very bytes of another: a log that grew and was then rotated."""
    if not old.size or not old.sha256:
        return False
    unit = Unit(paths=(entry.path,), place=Place(source=entry.path, name=PurePosixPath(entry.path).name))
    for item in open_unit(unit):
        if not isinstance(item, Item) or "!" in item.source:
            return False
        with item.open() as stream:
            whole, left = hashlib.sha256(), old.size
            while left and (block := stream.read(min(_BLOCK, left))):
                whole.update(block)
                left -= len(block)
        return not left and whole.hexdigest() == old.sha256
    return False


def lasting(reading: FileReading) -> FileReading:
    """What stays true of a reading when other bytes have taken the file's place: all that bears a time."""
    if reading.collected is not None:
        return reading
    return replace(
        reading,
        drivers=tuple(d for d in reading.drivers if d.observed_at),
        modules=tuple(m for m in reading.modules if m.time or m.crash_id),
        facts=tuple(f for f in reading.facts if f.time),
    )


_LEDGER = pa.schema([
    ("path", pa.string()), ("root", pa.string()), ("stamp", pa.string()), ("size", pa.int64()), ("mtime", pa.string()),
    ("sha256", pa.string()), ("parser", pa.string()), ("before", pa.string()), ("segment", pa.string()), ("gone", pa.bool_()),
    ("hosts", pa.list_(pa.string())), ("pieces", pa.string()), ("problems", pa.string()),
])  # fmt: skip


def write_ledger(folder: Path, entries: Sequence[Entry]) -> str:
    """Write the ledger as Parquet; its path below the store."""
    rows: dict[str, list[Any]] = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: (entry.path, entry.sha256)):
        row = as_json(entry)
        for name in _LEDGER.names:
            rows[name].append(json.dumps(row[name]) if name in ("pieces", "problems") else row[name])
    sink = pa.BufferOutputStream()
    columns = {name: rows.get(name, []) for name in _LEDGER.names}
    pq.write_table(pa.table(columns, schema=_LEDGER), sink, compression="zstd")
    data = bytes(sink.getvalue())
    path = f"tables/ledger/{hashlib.sha256(data).hexdigest()[:24]}.parquet"
    write_whole(folder / path, data)
    return path


def read_ledger(folder: Path, path: str | None) -> list[Entry]:
    """The ledger's entries."""
    if path is None:
        return []
    try:
        table = pq.read_table(folder / path)
        columns = {name: table[name].to_pylist() for name in table.column_names}
        for name in ("pieces", "problems"):  # one text for all rows: the parser is called once
            columns[name] = json.loads(f"[{','.join(columns[name])}]")
        rows = zip(*columns.values(), strict=True)
        return [from_json(dict(zip(columns, row, strict=True))) for row in rows]
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{folder / path}: not a readable ledger ({error}); load into a new store") from error
