"""One load into the store: read what is new, assemble again the hosts it touches, commit.

The tables of a host depend on all that is known of it, and on other hosts in two ways only: how names are spelled, which the
ledger alone can tell, and crashes seen under two names, which bind hosts together. So the hosts to assemble are those whose
pieces or names changed, and whoever shares a crash with one of them, before or now; what is made of them is what a full load
makes, row for row (``tests/store/test_equal.py``).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pyarrow.compute as pc

from psodlib import schema
from psodlib.assemble import host_names, no_host, roster_of, rows_of, with_columns, with_inventory
from psodlib.errors import InputError
from psodlib.evidence.places import shown
from psodlib.records import Problem
from psodlib.store.folder import OLDEST, Manifest, Part, Tables, commit, read_checked, read_manifest, sweep
from psodlib.store.news import ReadJobs, Walk, read_new, vanished
from psodlib.store.readings import Entry, Piece, read_entries, read_pieces, write_entries
from psodlib.store.tables import (
    PARTED,
    Fresh,
    bucket_of,
    column_of,
    plain,
    read_parts,
    tables_of,
    write_parts,
    write_table,
)
from psodlib.triage.known_issues import Issue

HOSTS_A_BUCKET, MOST_BUCKETS = 128, 256
MOST_LOST = 0.1  # of the known crashes or host-days: a load that would lose more stops
_CODE = Path(__file__).resolve().parent.parent
_READS = ("evidence", "records.py")
_JUDGES = ("triage", "records.py", "assemble.py", "schema.py", "store/update.py", "store/tables.py")

Spread = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]
Host = str | None


def parser() -> str:
    """A fingerprint of all code that turns bytes into readings: where it is another, files are read again."""
    return _fingerprint(_READS)


def assembler(issues: Sequence[Any] = ()) -> str:
    """A fingerprint of all that turns readings into tables: code, rules, and the known issues in use."""
    return hashlib.sha256(f"{_fingerprint(_JUDGES)}{list(issues)!r}".encode()).hexdigest()[:16]


@cache
def _fingerprint(places: tuple[str, ...]) -> str:
    # The files' own bytes: a version number would have to be remembered.
    whole = hashlib.sha256()
    for place in places:
        inside = sorted(path for path in (_CODE / place).rglob("*") if path.suffix in (".py", ".txt", ".toml"))
        for file in inside or [_CODE / place]:
            whole.update(file.relative_to(_CODE).as_posix().encode() + b"\0" + file.read_bytes())
    return whole.hexdigest()[:16]


def update(
    folder: Path, walks: Sequence[Walk], read: ReadJobs, spread: Spread, *, inventory: pd.DataFrame | None = None,
    issues: Sequence[Issue] = (), allow_loss: bool = False, verify: bool = False,
) -> tuple[dict[str, pd.DataFrame], bool]:  # fmt: skip
    """Bring the store, which must be ``locked``, up to date with the sources, and give its tables."""
    before = read_manifest(folder)
    older = before.schema < OLDEST  # of an earlier format: the evidence itself is read again
    known = [] if older else read_entries(folder, before.ledger)
    sound = not verify or all(
        _holds(read_checked, folder / p.path, p.sha256) for ps in before.tables.values() for p in ps
    )
    if verify:
        known = [entry if _is_whole(folder, entry) else _forgotten(entry) for entry in known]
    entries, news = read_new(folder, before, known, walks, read, parser())
    if unread := sorted(entry.path for entry in entries if not entry.segment and entry.tells):
        raise InputError(
            f"{folder}: what {len(unread)} files said is damaged, and they are not there to be read again ({', '.join(unread[:3])}); "
            "give a source that holds them, or load into a new store"
        )
    entries, troubles = _named(entries, inventory)
    buckets = _buckets(before.buckets, len({host for entry in entries for host in entry.hosts}))
    again = older or assembler(issues) != before.assembler or buckets != before.buckets or not sound
    bound = _bound([*known, *entries])
    touched = bound({row[0] for row in _pieces([] if again else known) ^ _pieces(entries)})
    fresh: Fresh = {}
    old = {} if again else before.tables
    tables = _assembled(folder, old, entries, touched, bound, buckets, issues, spread, fresh)
    news |= {"hosts assembled": len(touched), "all hosts assembled again": bool(again and before.generation)}
    news["files read again, the store was of an earlier format"] = len(entries) if older else 0
    roots = {entry.root for entry in entries if not entry.gone}
    walk = {root: problems for root, problems in before.walk.items() if root in roots}
    walk |= {shown(source): tuple(problems) for source, _, problems in walks}
    told = [problem for problems in walk.values() for problem in problems]
    told += [problem for entry in entries for problem in (*entry.problems, *entry.waiting)]
    tables |= _of_the_fleet(folder, tables, [*told, *troubles, *vanished(entries)], inventory, fresh)
    same = tables == before.tables
    if before.generation and not (allow_loss or same):
        _refuse_loss(folder, before, tables)
    after = Manifest(
        generation=before.generation + 1, buckets=buckets, parser=parser(), assembler=assembler(issues), tables=tables, walk=walk,
        simulated=any(entry.simulated for entry in entries), ledger=write_entries(folder, entries), news=news,
        segments=tuple(sorted({e.segment for e in entries if e.segment})), before=tuple(sorted(before.files)),
        earlier=before.earlier if same else before.tables,
    )  # fmt: skip
    commit(folder, after)
    sweep(folder, after)
    return tables_of(folder, after, fresh=fresh), after.simulated


def _holds(read: Callable[..., Any], *what: Any) -> bool:
    try:
        read(*what)
    except InputError:
        return False
    return True


def _is_whole(folder: Path, entry: Entry) -> bool:
    return _holds(read_pieces, folder, [(entry, piece) for piece in entry.pieces])


def _forgotten(entry: Entry) -> Entry:
    # A file whose readings are damaged is read again.
    return msgspec.structs.replace(entry, stamp="", sha256="", segment="")


def _named(entries: Sequence[Entry], inventory: pd.DataFrame | None) -> tuple[list[Entry], list[Problem]]:
    # The entries with each piece's host, which the words of all of them tell together.
    words = {(piece.host, piece.hint) for entry in entries for piece in entry.pieces}
    names, troubles = host_names(words, roster_of(inventory))
    named = []
    for entry in entries:
        hosts = tuple(names[piece.host, piece.hint] for piece in entry.pieces)
        named.append(entry if hosts == entry.hosts else msgspec.structs.replace(entry, hosts=hosts))
        if None in hosts:
            nobodys = [piece for piece, host in zip(entry.pieces, hosts, strict=True) if host is None]
            troubles += [no_host(entry.source + member) for piece in nobodys for member in piece.unnamed]
    return named, troubles


def _of_the_fleet(
    folder: Path, tables: Tables, told: Sequence[Problem], inventory: pd.DataFrame | None, fresh: Fresh
) -> Tables:
    # What is no host's alone: the roster, and the problems.
    hosts = read_parts(folder, "evidence_hosts", tables["evidence_hosts"], fresh=fresh)
    hosts, missing = with_inventory(with_columns(hosts) if "columns" in hosts else hosts, inventory)
    local = read_parts(folder, "evidence_problems", tables["evidence_problems"], fresh=fresh)
    whole = schema.build("problems", [asdict(problem) for problem in told])
    problems = pd.concat([whole, local], ignore_index=True).drop_duplicates()
    problems = schema.conform("problems", pd.concat([problems, missing], ignore_index=True))
    return {"hosts": write_table(folder, "hosts", hosts), "problems": write_table(folder, "problems", problems)}


def _refuse_loss(folder: Path, before: Manifest, tables: Tables) -> None:
    # A source that could not be reached or a reader that went wrong must not cost what was known.
    old, new = _extent(folder, before.tables), _extent(folder, tables)
    older = before.schema < OLDEST
    crashes = len(old[0] - new[0])
    if older or before.parser != parser():  # which may have other ids for the same crashes
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
    ids = column_of(folder, "crashes", tables.get("crashes", ()), "crash_id")
    spans = column_of(folder, "uptimes", tables.get("uptimes", ()), "observed")
    return set(ids.to_pylist()), (pc.sum(spans.cast("int64")).as_py() or 0) / 86_400e9


# ---- whose tables change, and their assembling ------------------------------------------------------------------------


def _pieces(entries: Iterable[Entry]) -> set[tuple[Any, ...]]:
    return {
        (host, entry.segment, piece.offset, entry.source, entry.hint, entry.collected)
        for entry in entries
        for piece, host in zip(entry.pieces, entry.hosts, strict=True)
        if piece.length
    }


def _bound(entries: Iterable[Entry]) -> Callable[[set[Host]], set[Host]]:
    # Some hosts -> these, and all that a crash binds to them, before or now.
    hosts: dict[str, set[Host]] = defaultdict(set)
    crashes: dict[Host, set[str]] = defaultdict(set)
    for entry in entries:
        for piece, host in zip(entry.pieces, entry.hosts, strict=True):
            for crash in piece.crashes:
                hosts[crash].add(host)
                crashes[host].add(crash)

    def with_theirs(some: set[Host]) -> set[Host]:
        found, todo = set(some), list(some)
        while todo:
            more = set().union(*(hosts[crash] for crash in crashes.get(todo.pop(), ()))) - found
            found |= more
            todo += more
        return found

    return with_theirs


def _buckets(now: int, hosts: int) -> int:
    # A power of two; it grows, with all parts, when the fleet has outgrown it four times.
    wanted = 1
    while wanted * HOSTS_A_BUCKET < hosts and wanted < MOST_BUCKETS:
        wanted *= 2
    return wanted if wanted > 4 * now or now == 1 else now


@dataclass(frozen=True)
class Bucket:
    """The work of assembling one bucket; small, whatever the logs were."""

    folder: Path
    number: int
    hosts: tuple[Host, ...]  # whose rows change
    pieces: tuple[tuple[Host, Entry, Piece], ...]  # of these hosts and of those bound to them
    whole: bool  # no other host is in the bucket
    old: Mapping[str, list[Part]]
    issues: tuple[Issue, ...]
    fresh: Fresh  # what is written here; what a worker elsewhere writes is in its copy


def assemble_bucket(task: Bucket) -> dict[str, list[Part]]:
    """Make one bucket's parts anew: a pure function of files of the store, wherever it runs and however often."""
    # Of hosts without a crash nobody asks what their logs warned of.
    crashed = {host for host, _, piece in task.pieces if piece.crashes}
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
    folder: Path, before: Tables, entries: Sequence[Entry], touched: set[Host], bound: Callable[[set[Host]], set[Host]],
    buckets: int, issues: Sequence[Issue], spread: Spread, fresh: Fresh,
) -> Tables:  # fmt: skip
    # All parts of the tables that hosts are in.
    pieces: dict[Host, list[tuple[Host, Entry, Piece]]] = defaultdict(list)
    members: dict[int, set[Host]] = defaultdict(set)
    for entry in entries:
        bare = entry
        if len(entry.pieces) > 1 or entry.problems:  # a task is small, wherever it goes
            bare = msgspec.structs.replace(entry, pieces=(), problems=())
        for piece, host in zip(entry.pieces, entry.hosts, strict=True):
            pieces[host].append((host, bare, piece))
    for host in pieces.keys() | touched:
        members[bucket_of(host, buckets)].add(host)
    tables = {table: list(before.get(table, ())) for table in PARTED}
    tasks = []
    for number, hosts in sorted(members.items()):
        mine = hosts & touched
        if 2 * len(mine) > len(hosts):  # all of them cost less than to read and merge what the others had
            mine = hosts
        if mine:
            old = {table: [part for part in parts if part.bucket == number] for table, parts in tables.items()}
            wanted = tuple(row for host in _in_order(bound(mine)) for row in pieces.get(host, ()) if row[2].length)
            tasks.append(Bucket(folder, number, _in_order(mine), wanted, mine == hosts, old, tuple(issues), fresh))
    numbers = {task.number for task in tasks}
    made = {table: [part for part in parts if part.bucket not in numbers] for table, parts in tables.items()}
    for parts in spread(assemble_bucket, tasks):
        for table in PARTED:
            made[table] += parts[table]
    return {table: tuple(sorted(parts, key=lambda part: part.path)) for table, parts in made.items()}


def _in_order(hosts: Iterable[Host]) -> tuple[Host, ...]:
    return tuple(sorted(hosts, key=lambda name: (name is None, name or "")))
