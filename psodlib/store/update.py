"""One load into the store: read what is new, assemble again the hosts it touches, commit.

The tables of a host depend on all that is known of it, and on other hosts in two ways only: how names are spelled, which the
ledger alone can tell, and crashes seen under two names, which bind hosts together. So the hosts to assemble are those whose
pieces or names changed, and whoever shares a crash with one of them, before or now; what is made of them is what a full load
makes, row for row (``tests/store/test_equal.py``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pyarrow.compute as pc

from psodlib import schema
from psodlib.assemble import Words, host_names, no_host, rows_of, with_columns, with_inventory
from psodlib.errors import InputError
from psodlib.evidence.places import shown
from psodlib.records import Problem
from psodlib.store import fingerprint
from psodlib.store.folder import SCHEMA, Manifest, Part, Tables, commit, read_checked, read_manifest, sweep
from psodlib.store.news import ReadJobs, Walk, read_new, vanished
from psodlib.store.opening import tables_of
from psodlib.store.partitions import PARTED, Fresh, bucket_of, dataset_of, plain, read_parts, write_parts, write_table
from psodlib.store.readings import Entry, Piece, read_entries, read_pieces, write_entries
from psodlib.triage.known_issues import Issue

HOSTS_A_BUCKET, MOST_BUCKETS = 128, 256
MOST_LOST = 0.1  # of the known crashes or host-days: a load that would lose more stops

Spread = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]


def update(
    folder: Path, walks: Sequence[Walk], read: ReadJobs, spread: Spread, *, inventory: pd.DataFrame | None = None,
    issues: Sequence[Issue] = (), allow_loss: bool = False, verify: bool = False,
) -> tuple[dict[str, pd.DataFrame], bool]:  # fmt: skip
    """Bring the store, which must be ``locked``, up to date with the sources, and give its tables."""
    before = read_manifest(folder)
    known, sound = _known(folder, before, verify)
    parser, assembler = fingerprint.parser(), fingerprint.assembler(issues)
    entries, news = read_new(folder, before, known, walks, read, parser)
    _refuse_unread(folder, entries)
    names, troubles = _names(entries, inventory)
    entries = [_named(entry, names) for entry in entries]
    buckets = _buckets(before.buckets, len(set(names.values())))
    older = before.schema != SCHEMA
    again = older or assembler != before.assembler or buckets != before.buckets or not sound
    touched = _touched([] if again else known, entries)
    fresh: Fresh = {}
    tables = _assembled(folder, Manifest() if again else before, entries, touched, buckets, issues, spread, fresh)
    news |= {"hosts assembled": len(touched), "all hosts assembled again": bool(again and before.generation)}
    news["files read again, the store was of an earlier format"] = len(entries) if older else 0
    walk = _walk(before, walks, entries)
    hosts = read_parts(folder, "evidence_hosts", tables["evidence_hosts"], fresh=fresh)
    hosts, missing = with_inventory(with_columns(hosts) if "columns" in hosts else hosts, inventory)
    told = [problem for found in walk.values() for problem in found]
    told += [problem for entry in entries for problem in (*entry.problems, *entry.waiting)]
    global_ = schema.build("problems", [asdict(p) for p in [*told, *troubles, *vanished(entries)]])
    local = read_parts(folder, "evidence_problems", tables["evidence_problems"], fresh=fresh)
    problems = pd.concat([global_, local], ignore_index=True).drop_duplicates()
    problems = schema.conform("problems", pd.concat([problems, missing], ignore_index=True))
    tables |= {"hosts": write_table(folder, "hosts", hosts), "problems": write_table(folder, "problems", problems)}
    same = tables == before.tables
    if before.generation and not (allow_loss or same):
        _refuse_loss(folder, before, tables)
    after = Manifest(
        generation=before.generation + 1, buckets=buckets, parser=parser, assembler=assembler, tables=tables, walk=walk,
        simulated=any(entry.simulated for entry in entries), ledger=write_entries(folder, entries), news=news,
        segments=tuple(sorted({e.segment for e in entries if e.segment})), before=tuple(sorted(before.files)),
        earlier=before.earlier if same else before.tables,
    )  # fmt: skip
    commit(folder, after)
    sweep(folder, after)
    return tables_of(folder, after, fresh=fresh), after.simulated


def _known(folder: Path, before: Manifest, verify: bool) -> tuple[list[Entry], bool]:
    # The ledger, and whether all parts of the tables are as they were written; a file whose readings are not is read again.
    if before.schema != SCHEMA:  # of an earlier format: the evidence itself is read again
        return [], True
    known = read_entries(folder, before.ledger)
    if not verify:
        return known, True
    sound = all(_holds(read_checked, folder / p.path, p.sha256) for parts in before.tables.values() for p in parts)
    forgotten = {"stamp": "", "sha256": "", "segment": ""}
    return [
        entry
        if _holds(read_pieces, folder, [(entry, piece) for piece in entry.pieces])
        else msgspec.structs.replace(entry, **forgotten)
        for entry in known
    ], sound


def _holds(read: Callable[..., Any], *what: Any) -> bool:
    try:
        read(*what)
    except InputError:
        return False
    return True


def _refuse_unread(folder: Path, entries: Iterable[Entry]) -> None:
    # What --verify found damaged and no file can tell again.
    paths = sorted(entry.path for entry in entries if not entry.segment and entry.tells)
    if paths:
        raise InputError(
            f"{folder}: what {len(paths)} files said is damaged, and they are not there to be read again ({', '.join(paths[:3])}); "
            "give a source that holds them, or load into a new store"
        )


def _names(
    entries: Sequence[Entry], inventory: pd.DataFrame | None
) -> tuple[dict[Words, str | None], list[Problem]]:  # fmt: skip
    roster = [] if inventory is None else [str(name) for name in inventory.host.dropna()]
    names, troubles = host_names({(piece.host, piece.hint) for entry in entries for piece in entry.pieces}, roster)
    nobodys = [
        no_host(entry.source + member)
        for entry in entries
        for piece in entry.pieces
        if names[piece.host, piece.hint] is None
        for member in piece.unnamed
    ]
    return names, [*troubles, *nobodys]


def _named(entry: Entry, names: Mapping[Words, str | None]) -> Entry:
    hosts = tuple(names[piece.host, piece.hint] for piece in entry.pieces)
    return entry if hosts == entry.hosts else msgspec.structs.replace(entry, hosts=hosts)


def _walk(before: Manifest, walks: Sequence[Walk], entries: Sequence[Entry]) -> dict[str, tuple[Problem, ...]]:
    # Troubles of each source that was walked now, or before and still has files.
    roots = {entry.root for entry in entries if not entry.gone}
    old = {root: problems for root, problems in before.walk.items() if root in roots}
    return old | {shown(source): tuple(found) for source, _, found in walks}


def _refuse_loss(folder: Path, before: Manifest, tables: Tables) -> None:
    # A source that could not be reached or a reader that went wrong must not cost what was known.
    old, new = _extent(folder, before.tables), _extent(folder, tables)
    older = before.schema != SCHEMA
    crashes = len(old[0] - new[0])
    if older or before.parser != fingerprint.parser():  # which may have other ids for the same crashes
        crashes = min(crashes, len(old[0]) - len(new[0]))
    if crashes > (0 if older else MOST_LOST * len(old[0])) or new[1] < (1 - MOST_LOST) * old[1]:
        why = "it is of an earlier format, so all is read again, and " if older else ""
        raise InputError(
            f"{folder}: {why}this load would lose {max(crashes, 0)} of {len(old[0])} known crashes and {max(old[1] - new[1], 0.0):,.0f} "
            f"of {old[1]:,.0f} host-days; nothing was changed and nothing is lost. See that the sources are whole and can be read, "
            + ("or load into a new folder: this one can still be opened and reported on" if older else "or say --allow-loss (in Python allow_loss=True)")
        )  # fmt: skip


def _extent(folder: Path, tables: Tables) -> tuple[set[str], float]:
    # The crashes and the host-days of some tables.
    ids = dataset_of(folder, "crashes", tables.get("crashes", ())).to_table(columns=["crash_id"])["crash_id"]
    spans = dataset_of(folder, "uptimes", tables.get("uptimes", ())).to_table(columns=["observed"])["observed"]
    return set(ids.to_pylist()), (pc.sum(spans.cast("int64")).as_py() or 0) / 86_400e9


# ---- whose tables change ----------------------------------------------------------------------------------------------


def _touched(known: Sequence[Entry], entries: Sequence[Entry]) -> set[str | None]:
    # Hosts with other pieces than before, and all that a crash binds to them, before or now.
    touched = {row[0] for row in _pieces(known) ^ _pieces(entries)}
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


def _pieces(entries: Iterable[Entry]) -> set[tuple[Any, ...]]:
    return {
        (host, entry.segment, piece.offset, entry.source, entry.hint, entry.collected)
        for entry in entries
        for piece, host in zip(entry.pieces, entry.hosts, strict=True)
        if piece.length
    }


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
    pieces: tuple[tuple[str | None, Entry, Piece], ...]  # of these hosts and of those bound to them
    whole: bool  # no other host is in the bucket
    old: Mapping[str, list[Part]]
    issues: tuple[Issue, ...]
    fresh: Fresh  # what is written here; what a worker elsewhere writes is in its copy


def assemble_bucket(task: Bucket) -> dict[str, list[Part]]:
    """Make one bucket's parts anew: a pure function of files of the store, wherever it runs and however often."""
    crashed = {
        host for host, _, piece in task.pieces if piece.crashes
    }  # of others nobody asks what their logs warned of
    named = []
    for heard in (True, False):
        pieces = [row for row in task.pieces if (row[0] in crashed) == heard]
        groups = read_pieces(task.folder, [(entry, piece) for _, entry, piece in pieces], heard=heard)
        named += [(host, reading) for (host, _, _), group in zip(pieces, groups, strict=True) for reading in group]
    named.sort(key=lambda pair: (pair[1].source, pair[1].host or ""))
    rows = rows_of(named, task.issues)
    mine = set(task.hosts)
    times = {row["crash_id"]: row["time"] for row in rows["crashes"]}
    parts = {}
    for table in PARTED:
        told = [row for row in rows[plain(table)] if row["host"] in mine]
        if table in schema.BY_CRASH:
            told = [{**row, "time": times[row["crash_id"]]} for row in told]
        hosts = None if task.whole else task.hosts
        parts[table] = write_parts(task.folder, table, told, task.number, task.old[table], hosts, task.fresh)
    return parts


def _assembled(
    folder: Path, before: Manifest, entries: Sequence[Entry], touched: set[str | None], buckets: int,
    issues: Sequence[Issue], spread: Spread, fresh: Fresh,
) -> Tables:  # fmt: skip
    # All parts of the tables that hosts are in.
    old = {table: list(before.tables.get(table, ())) for table in PARTED}
    tasks = list(_tasks(folder, old, entries, touched, buckets, tuple(issues), fresh))
    numbers = {task.number for task in tasks}
    tables = {table: [part for part in parts if part.bucket not in numbers] for table, parts in old.items()}
    for made in spread(assemble_bucket, tasks):
        for table, parts in made.items():
            tables[table] += parts
    return {table: tuple(sorted(parts, key=lambda part: part.path)) for table, parts in tables.items()}


def _tasks(
    folder: Path, old: Mapping[str, list[Part]], entries: Sequence[Entry], touched: set[str | None],
    buckets: int, issues: tuple[Issue, ...], fresh: Fresh,
) -> Iterator[Bucket]:  # fmt: skip
    pieces: dict[str | None, list[tuple[str | None, Entry, Piece]]] = defaultdict(list)
    owners: dict[str, set[str | None]] = defaultdict(set)
    members: dict[int, set[str | None]] = defaultdict(set)
    for entry in entries:
        bare = msgspec.structs.replace(entry, pieces=(), problems=())  # a task is small, wherever it goes
        for piece, host in zip(entry.pieces, entry.hosts, strict=True):
            pieces[host].append((host, bare, piece))
            members[bucket_of(host, buckets)].add(host)
            for crash in piece.crashes:
                owners[crash].add(host)
    for host in touched:
        members[bucket_of(host, buckets)].add(host)
    for number, hosts in sorted(members.items()):
        mine = hosts & touched
        if not mine:
            continue
        if 2 * len(mine) > len(hosts):  # all of them cost less than to read and merge what the others had
            mine = hosts
        needed = set(mine)
        todo = list(mine)
        while todo:  # whoever shares a crash, and whoever shares one with them
            for _, _, piece in pieces[todo.pop()]:
                for crash in piece.crashes:
                    more = owners[crash] - needed
                    needed |= more
                    todo += more
        yield Bucket(
            folder=folder, number=number, buckets=buckets, hosts=_in_order(mine), whole=mine == hosts, issues=issues, fresh=fresh,
            pieces=tuple(row for host in _in_order(needed) for row in pieces[host] if row[2].length),
            old={table: [part for part in parts if part.bucket == number] for table, parts in old.items()},
        )  # fmt: skip


def _in_order(hosts: Iterable[str | None]) -> tuple[str | None, ...]:
    return tuple(sorted(hosts, key=lambda name: (name is None, name or "")))
