"""One load into the store: read what is new, assemble again the hosts it touches, commit.

The tables of a host depend on all that is known of it, and on other hosts in two ways only: how names are spelled, which the
ledger alone can tell, and crashes seen under two names, which bind hosts together. So the hosts to assemble are those whose
pieces or names changed, and whoever shares a crash with one of them, before or now; what is made of them is what a full load
makes, row for row (``tests/store/test_equal.py``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from psodlib import schema
from psodlib.assemble import Words, assemble_named, host_names, no_host, with_inventory
from psodlib.errors import InputError
from psodlib.evidence.places import shown
from psodlib.evidence.sources import Unit
from psodlib.records import FileReading, Problem
from psodlib.store import fingerprint
from psodlib.store.folder import Manifest, commit, locked, read_manifest, sweep
from psodlib.store.ledger import Job, lasting, look, plan, read_ledger, settled, superseded, write_ledger
from psodlib.store.opening import tables_of
from psodlib.store.partitions import PARTED, bucket_of, plain, read_parts, write_parts, write_table
from psodlib.store.readings import Entry, Piece, read_contents, read_pieces, write_segment
from psodlib.triage.known_issues import Issue

__all__ = ["Bucket", "assemble_bucket", "update"]

HOSTS_A_BUCKET, MOST_BUCKETS = 128, 256

Walk = tuple[str, list[Unit], list[Problem]]  # a source, its files, the troubles of walking it
Read = Callable[[Path, Sequence[Job]], Iterator[Entry]]
Spread = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]


def update(
    folder: Path,
    walks: Sequence[Walk],
    read: Read,
    spread: Spread,
    *,
    inventory: pd.DataFrame | None = None,
    issues: Sequence[Issue] = (),
) -> tuple[dict[str, pd.DataFrame], bool]:
    """Bring the store up to date with the sources, and give its tables."""
    with locked(folder):
        try:
            return _update(folder, walks, read, spread, inventory, issues)
        except OSError as error:
            raise InputError(f"{folder}: {error}; the store is as it was before, run again") from error


def _update(
    folder: Path,
    walks: Sequence[Walk],
    read: Read,
    spread: Spread,
    inventory: pd.DataFrame | None,
    issues: Sequence[Issue],
) -> tuple[dict[str, pd.DataFrame], bool]:
    before = read_manifest(folder)
    known = read_ledger(folder, before.ledger)
    parser, assembler = fingerprint.parser(), fingerprint.assembler(issues)
    entries, news = _read_new(folder, before, known, walks, read, parser)
    roster = [] if inventory is None else [str(name) for name in inventory.host.dropna()]
    words = {(piece.host, piece.hint) for entry in entries for piece in entry.pieces}
    names, troubles = host_names(words, roster)
    entries = [_named(entry, names) for entry in entries]
    buckets = _buckets(before.buckets, len(set(names.values())))
    again = assembler != before.assembler or buckets != before.buckets
    touched = _touched([] if again else known, entries)
    tables = _assembled(folder, Manifest() if again else before, entries, touched, buckets, issues, spread)
    news |= {"hosts assembled": len(touched), "all hosts assembled again": bool(again and before.generation)}
    walk = {**before.walk, **{shown(source): [asdict(p) for p in found] for source, _, found in walks}}
    troubles += [
        no_host(source)
        for e in entries
        for p, host in zip(e.pieces, e.hosts, strict=True)
        if host is None
        for source in p.unnamed
    ]
    told = [Problem(**row) for rows in walk.values() for row in rows]
    told += [Problem(**row) for entry in entries for row in entry.problems]
    hosts = read_parts(folder, "evidence_hosts", tables["evidence_hosts"])
    hosts, missing = with_inventory(hosts, inventory)
    global_ = schema.build("problems", [asdict(p) for p in [*told, *troubles, *_gone(entries)]])
    local = read_parts(folder, "evidence_problems", tables["evidence_problems"])
    problems = pd.concat([global_, local], ignore_index=True).drop_duplicates()
    problems = schema.conform("problems", pd.concat([problems, missing], ignore_index=True))
    tables |= {"hosts": write_table(folder, "hosts", hosts), "problems": write_table(folder, "problems", problems)}
    after = Manifest(
        generation=before.generation + 1, buckets=buckets, parser=parser, assembler=assembler, tables=tables, walk=walk,
        simulated=any(entry.simulated for entry in entries), ledger=write_ledger(folder, entries), news=news,
        segments=tuple(sorted({e.segment for e in entries if e.segment})), before=tuple(sorted(before.files)),
    )  # fmt: skip
    commit(folder, after)
    sweep(folder, after)
    return tables_of(folder, after), after.simulated


def _named(entry: Entry, names: Mapping[Words, str | None]) -> Entry:
    hosts = tuple(names[piece.host, piece.hint] for piece in entry.pieces)
    return entry if hosts == entry.hosts else replace(entry, hosts=hosts)


# ---- what is new ------------------------------------------------------------------------------------------------------


def _read_new(
    folder: Path, before: Manifest, known: Sequence[Entry], walks: Sequence[Walk], read: Read, parser: str
) -> tuple[list[Entry], dict[str, Any]]:
    # The entries as they will be, and what was done to have them.
    found = [(source, unit) for source, units, _ in walks for unit in units]
    if any(unit.paths == ("-",) for _, unit in found):
        raise InputError("standard input cannot go into a store: there is nothing to compare tomorrow; give a file")
    todo = plan(known, look(found, parser), {shown(source) for source, _, _ in walks})
    adopted, jobs = _adopted(folder, before, todo.jobs)
    fresh = [settled(entry) for entry in [*adopted, *read(folder, jobs)]]
    if len(fresh) != len(todo.jobs):  # a reader that loses a file must not make it look as if it had nothing to say
        raise InputError(
            f"{len(todo.jobs)} files were to be read and {len(fresh)} came back; the store is as it was before, run again"
        )
    old = {job.entry.path: job.known for job in todo.jobs if job.known}
    replaced = [
        e
        for entry in fresh
        if (e := old.get(entry.path)) and e.sha256 != entry.sha256 and not (e.sha256 and entry.before == e.sha256)
    ]
    present = [*(entry for entry in todo.kept if not entry.gone), *fresh]
    went = [*(e for e in todo.kept if e.gone), *todo.absent, *replaced]
    contents = {content for entry in present for piece in entry.pieces for content in piece.contents}
    digests = {entry.sha256 for entry in present if entry.sha256}
    lost = [entry for entry in went if not superseded(entry, fresh, contents, digests)]
    lasts = [entry for entry in lost if entry in replaced]
    gone = [replace(entry, gone=True) for entry in [*(e for e in lost if e not in lasts), *_lasting(folder, lasts)]]
    unread = sum(bool(job.known and job.known.segment == entry.segment) for job, entry in _pairs(todo.jobs, fresh))
    news = {
        "files read": len(fresh) - unread - len(adopted), "files adopted from a killed load": len(adopted), "files known": len(present) - len(fresh) + unread,
        "files gone, kept": len(gone), "files read again, the parser is another": todo.reread,
        "files of an earlier parser, not there to be read again": todo.stale,
    }  # fmt: skip
    return [*present, *gone], news


def _pairs(jobs: Iterable[Job], entries: Iterable[Entry]) -> Iterator[tuple[Job, Entry]]:
    by_path = {entry.path: entry for entry in entries}
    return ((job, by_path[job.entry.path]) for job in jobs if job.entry.path in by_path)


def _adopted(folder: Path, before: Manifest, jobs: Sequence[Job]) -> tuple[list[Entry], list[Job]]:
    # What a killed load had read already: its segments are whole and no manifest names them.
    spare: dict[tuple[str, str, str], Entry] = {}
    for path in sorted((folder / "readings").glob("*.seg")):
        name = path.relative_to(folder).as_posix()
        if name not in before.segments:
            spare |= {(e.path, e.stamp, e.parser): e for e in read_contents(path, name) if not e.stamp.endswith(":")}
    adopted, rest = [], []
    for job in jobs:
        entry = spare.get((job.entry.path, job.entry.stamp, job.entry.parser))
        if entry is None:
            rest.append(job)
        else:
            adopted.append(replace(entry, root=job.entry.root))
    return adopted, rest


def _lasting(folder: Path, entries: Sequence[Entry]) -> Iterator[Entry]:
    def stripped() -> Iterator[tuple[Entry, list[FileReading], list[Problem]]]:
        for entry in entries:
            readings = read_pieces(folder, [(entry.segment, piece) for piece in entry.pieces])
            yield entry, [lasting(reading) for group in readings for reading in group], []

    return write_segment(folder, stripped())


def _gone(entries: Iterable[Entry]) -> Iterator[Problem]:
    # One row a folder: rotation takes a file from every host every week.
    by_folder: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        if entry.gone:
            by_folder[str(PurePath(entry.path).parent)].append(entry.path)
    for folder, paths in by_folder.items():
        detail = (
            f"{len(paths)} files read before are no longer there as they were ({min(paths)}); what they said is kept"
        )
        yield Problem(source=folder, problem="vanished", detail=detail)


# ---- whose tables change ----------------------------------------------------------------------------------------------


def _touched(known: Sequence[Entry], entries: Sequence[Entry]) -> set[str | None]:
    # Hosts with other pieces than before, and all that a crash binds to them, before or now.
    before, after = _pieces(known), _pieces(entries)
    touched = {host for host in before.keys() | after.keys() if before.get(host) != after.get(host)}
    bound: dict[str, set[str | None]] = defaultdict(set)
    crashes: dict[str | None, set[str]] = defaultdict(set)
    for entry in [*known, *entries]:
        for piece, host in zip(entry.pieces, entry.hosts, strict=True):
            for crash in piece.crashes:
                bound[crash].add(host)
                crashes[host].add(crash)
    todo = list(touched)
    while todo:
        for crash in crashes[todo.pop()]:
            more = bound[crash] - touched
            touched |= more
            todo += more
    return touched


def _pieces(entries: Iterable[Entry]) -> dict[str | None, set[tuple[str, int]]]:
    found: dict[str | None, set[tuple[str, int]]] = defaultdict(set)
    for entry in entries:
        for piece, host in zip(entry.pieces, entry.hosts, strict=True):
            if piece.length:
                found[host].add((entry.segment, piece.offset))
    return dict(found)


def _buckets(now: int, hosts: int) -> int:
    # A power of two; it grows, with all parts, when the fleet has outgrown it four times.
    wanted = 1
    while wanted * HOSTS_A_BUCKET < hosts and wanted < MOST_BUCKETS:
        wanted *= 2
    return wanted if wanted > 4 * now or now == 1 else now


# ---- assembling -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bucket:
    """The work of assembling one bucket; small, whatever the logs were."""

    folder: Path
    number: int
    buckets: int
    hosts: tuple[str | None, ...]  # whose rows change
    pieces: tuple[
        tuple[str | None, str, Piece], ...
    ]  # (host, segment, piece) of these hosts and of those bound to them
    whole: bool  # no other host is in the bucket
    old: Mapping[str, list[dict[str, Any]]]
    issues: tuple[Issue, ...]


def assemble_bucket(task: Bucket) -> dict[str, list[dict[str, Any]]]:
    """Make one bucket's parts anew: a pure function of files of the store, wherever it runs and however often."""
    groups = read_pieces(task.folder, [(segment, piece) for _, segment, piece in task.pieces])
    named = [(host, reading) for (host, _, _), group in zip(task.pieces, groups, strict=True) for reading in group]
    named.sort(key=lambda pair: (pair[1].source, pair[1].host or ""))
    tables = assemble_named(named, task.issues)
    of_crash = tables["crashes"][["crash_id", "host", "time"]].drop_duplicates("crash_id")
    for table in schema.BY_CRASH:
        tables[table] = tables[table].merge(of_crash, on="crash_id", how="left")
    mine = pd.array([name for name in task.hosts if name is not None], dtype="string")
    parts = {}
    for table in PARTED:
        rows = tables[plain(table)]
        rows = rows[rows["host"].isin(mine) | (rows["host"].isna() if None in task.hosts else False)]
        parts[table] = write_parts(
            task.folder, table, rows, task.number, task.old[table], None if task.whole else task.hosts
        )
    return parts


def _assembled(
    folder: Path, before: Manifest, entries: Sequence[Entry], touched: set[str | None], buckets: int,
    issues: Sequence[Issue], spread: Spread,
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    # All parts of the tables that hosts are in.
    old = {table: before.tables.get(table, []) for table in PARTED}
    tasks = list(_tasks(folder, old, entries, touched, buckets, tuple(issues)))
    numbers = {task.number for task in tasks}
    tables = {table: [part for part in parts if part["bucket"] not in numbers] for table, parts in old.items()}
    for made in spread(assemble_bucket, tasks):
        for table, parts in made.items():
            tables[table] += parts
    return {table: sorted(parts, key=lambda part: part["path"]) for table, parts in tables.items()}


def _tasks(
    folder: Path, old: Mapping[str, list[dict[str, Any]]], entries: Sequence[Entry], touched: set[str | None],
    buckets: int, issues: tuple[Issue, ...],
) -> Iterator[Bucket]:  # fmt: skip
    pieces: dict[str | None, list[tuple[str | None, str, Piece]]] = defaultdict(list)
    owners: dict[str, set[str | None]] = defaultdict(set)
    members: dict[int, set[str | None]] = defaultdict(set)
    for entry in entries:
        for piece, host in zip(entry.pieces, entry.hosts, strict=True):
            pieces[host].append((host, entry.segment, piece))
            members[bucket_of(host, buckets)].add(host)
            for crash in piece.crashes:
                owners[crash].add(host)
    for host in touched:
        members[bucket_of(host, buckets)].add(host)
    for number, hosts in sorted(members.items()):
        mine = hosts & touched
        if not mine:
            continue
        needed = set(mine)
        todo = list(mine)
        while todo:  # whoever shares a crash, and whoever shares one with them
            for _, _, piece in pieces[todo.pop()]:
                for crash in piece.crashes:
                    more = owners[crash] - needed
                    needed |= more
                    todo += more
        yield Bucket(
            folder=folder, number=number, buckets=buckets, hosts=_in_order(mine), whole=mine == hosts, issues=issues,
            pieces=tuple(row for host in _in_order(needed) for row in pieces[host] if row[2].length),
            old={table: [part for part in parts if part["bucket"] == number] for table, parts in old.items()},
        )  # fmt: skip


def _in_order(hosts: Iterable[str | None]) -> tuple[str | None, ...]:
    return tuple(sorted(hosts, key=lambda name: (name is None, name or "")))
