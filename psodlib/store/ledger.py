"""The ledger: which files are known, under whatever name, and which must be read.

A file is known by its bytes: as they are stored, or, for a log that was packed, as they were before. What its place says
(path, host, time of the collection) is told anew each time, so a log that rotated, moved or came with a copied folder is not
read again.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import msgspec

from psodlib.errors import InputError
from psodlib.evidence.archives import Item
from psodlib.evidence.places import shown
from psodlib.evidence.reading import read_unit
from psodlib.evidence.sources import Unit, open_unit
from psodlib.evidence.streams import wrap_of
from psodlib.store.readings import PASSING, Entry, Read, write_segment

RACY = 2.0  # seconds: a file changed this shortly before it was looked at may change again under the same time
HEAD = 4096  # bytes at the beginning of a log that tell it from others
SMALL = 4096  # bytes: below this a file of another host is read rather than searched for among all
MOST_BEGINNINGS = 256  # known logs with one head that a file is held against, the longest
_BLOCK = 1 << 20
_STEM = re.compile(
    r"(?:[0-9a-f]{12}-)?([A-Za-z_+-]*)"
)  # the twelve digits are how `collect` keeps what a host threw away


class Beginning(NamedTuple):
    """A known log: its size, its sha256, and whether a file with no other bytes would say what it says."""

    size: int
    sha256: str
    says_the_same: bool


class Job(NamedTuple):
    """One file to look into, and to read unless its bytes are known; many of one host share what they are held against."""

    unit: Unit
    entry: Entry
    same: frozenset[str] = frozenset()  # sha256 of known files of this size that say what it would say
    sealed: Mapping[str, Mapping[str, str]] = {}  # time -> ends -> sha256 of those that are packed
    begins: Mapping[str, Sequence[Beginning]] = {}  # head -> logs that it may begin with


@dataclass(frozen=True)
class Plan:
    """What one load has to do: ``kept`` stays as it is, ``jobs`` are looked into, ``went`` are not there as they were.

    ``stray`` were under a source that is no more: moved, or thrown away.
    """

    kept: tuple[Entry, ...]
    jobs: tuple[Job, ...]
    went: tuple[Entry, ...]
    stray: tuple[Entry, ...]


def look(units: Iterable[tuple[str, Unit]], parser: str) -> Iterator[tuple[Unit, Entry]]:
    """Each file as the ledger would have it, its content not yet looked into."""
    now = time.time()
    for root, unit in units:
        size, stamp = _stat(unit, now)
        place = unit.place
        yield (
            unit,
            Entry(
                path=place.source if len(unit.paths) == 1 else shown(unit.paths[0]), source=place.source, root=shown(root), name=place.name, hint=place.hint,
                hint_kind=place.hint_kind, collected=place.collected, stamp=stamp, size=size, parser=parser,
            ),
        )  # fmt: skip


def _stat(unit: Unit, now: float) -> tuple[int, str]:
    # Size, and what changes with the bytes: times and inode (or what a store of objects has instead), where they can be believed.
    size, told, newest = 0, [], 0.0
    if unit.place.stat:
        written, changed, inode = unit.place.stat
        racy = now - max(written, changed) / 1e9 <= RACY
        return unit.size, "" if racy else f"{unit.size}:{written}.{changed}.{inode}"
    try:
        for path in unit.paths:
            if "://" in path:
                files, name = fsspec.core.url_to_fs(path)
                info = files.info(name)
                size += int(info.get("size") or 0)
                told.append(str(info.get("ETag") or info.get("mtime") or info.get("LastModified") or ""))
            else:
                stat = os.stat(path)
                size += stat.st_size
                told.append(f"{stat.st_mtime_ns}.{stat.st_ctime_ns}.{stat.st_ino}")
                newest = max(newest, stat.st_mtime, stat.st_ctime)
    except Exception:  # each protocol has errors of its own; the reader will say what is wrong
        return 0, ""
    return size, f"{size}:{','.join(told)}" if all(told) and now - newest > RACY else ""


def _mark(entry: Entry) -> str:
    # What a rename leaves as it is: size, inode, and when the bytes were written, unless that time is a copy's or an archive's.
    size, _, times = entry.stamp.partition(":")
    written, _, rest = times.partition(".")
    return (
        ""
        if "://" in entry.path or "," in times or written.endswith("000000000")
        else f"{size}.{written}.{rest.rpartition('.')[2]}"
    )


def _changed(entry: Entry) -> str:
    # When the bytes of a file on this machine were written; a rename leaves that as it is.
    return "" if "://" in entry.path or "," in entry.stamp else entry.stamp.partition(":")[2].partition(".")[0]


# ---- what is known ----------------------------------------------------------------------------------------------------


def role_of(entry: Entry) -> tuple[str, bool, bool]:
    """All that readers make of a name: the log or command without its number, a folder of outputs, a bundle."""
    return (*_called(entry.name), entry.hint_kind == "bundle")


@lru_cache(1 << 14)
def _called(name: str) -> tuple[str, bool]:
    found = _STEM.match(name.rpartition("/")[2])
    return found[1] if found else "", name.startswith("commands/") or "/commands/" in name


def is_output(entry: Entry) -> bool:
    """Whether a file lies among the outputs of commands."""
    return _called(entry.name)[1]


def adopt(old: Entry, entry: Entry) -> Entry | None:
    """What is known of some bytes, under the name and place that they have now; None where a reader would see more."""
    if not _is_told(old, role_of(entry), entry.collected, entry.parser):
        return None
    if old.archive and (_basename(old), *_whose(old)) != (_basename(entry), *_whose(entry)):
        return None
    pieces = old.pieces
    if not old.archive and old.hint != entry.hint:
        pieces = tuple(msgspec.structs.replace(piece, hint=entry.hint) for piece in pieces)
    problems = tuple(replace(p, source=entry.source + p.source.removeprefix(old.source)) for p in old.problems)
    return msgspec.structs.replace(
        entry, sha256=entry.sha256 or old.sha256, head=entry.head or old.head, ends=entry.ends or old.ends, packed=entry.packed if entry.sha256 else old.packed,
        unpacked=old.unpacked, archive=old.archive, timeless=old.timeless, lasting=old.lasting, troubles=old.troubles,
        segment=old.segment, pieces=pieces, problems=problems,
    )  # fmt: skip


def _is_told(old: Entry, role: tuple[str, bool, bool], collected: Any, parser: str) -> bool:
    # Whether readers of that kind would see in the bytes of a known file what was seen then.
    passing = any(problem.problem in PASSING for problem in old.troubles)
    return (
        old.parser == parser and not passing and role_of(old) == role and (old.timeless or old.collected == collected)
    )


def _basename(entry: Entry) -> str:
    return entry.name.rpartition("/")[2]


def _whose(entry: Entry) -> tuple[Any, ...]:
    return entry.hint, entry.hint_kind, entry.collected


def plan(
    entries: Sequence[Entry], looked: Iterable[tuple[Unit, Entry]], roots: set[str], spare: Sequence[Entry], closed: set[str]
) -> Plan:  # fmt: skip
    """Hold the files that are there against those that are known.

    ``spare`` are entries of a killed load; what is or lies under a place in ``closed``, which could not be looked at, is as
    it was; so is what was under another source, unless that is no more and its files are found under these.
    """
    known = {entry.path: entry for entry in entries if not entry.gone}
    marks = {mark: entry for entry in known.values() if entry.packed and (mark := _mark(entry))}
    kept, fresh, seen, told = [], [], set(), set()
    for unit, entry in looked:
        if entry.path in seen:
            continue
        seen.add(entry.path)
        old = known.get(entry.path)
        if old is None or not entry.stamp or old.stamp != entry.stamp:
            old = marks.get(_mark(entry))
        same = adopt(old, entry) if old else None
        if old is None or same is None:
            fresh.append((unit, entry))
        else:
            kept.append(same)
            told.add(old.path)
    missing = [entry for path, entry in known.items() if path not in seen]
    shut = {e.path for e in missing for place in closed if e.path == place or e.path.startswith(f"{place}{os.sep}")}
    dead = {root for root in {e.root for e in missing} - roots if "://" not in root and not os.path.lexists(root)}
    stray = tuple(e for e in missing if e.root in dead)
    others = [e for e in missing if e.root not in roots | dead or e.path in shut]
    changed = [known[path] for path in seen if path in known]
    absent = [e for e in missing if e.root in roots and e.path not in shut]
    went = (*(e for e in (*changed, *absent) if e.path not in told), *(e for e in entries if e.gone))
    index = _Index([*entries, *spare], [*went, *stray], {entry.size for _, entry in fresh})
    jobs = tuple(index.job(unit, entry) for unit, entry in fresh)
    return Plan((*kept, *others), jobs, went, stray)


class _Index:
    # Known files by host and size, and logs by host. What a file is held against is made once for all of its host, kind and
    # size, so that nothing grows with the square of the files; a host of an unknown name may be any that was renamed.

    def __init__(self, entries: Sequence[Entry], went: Sequence[Entry], asked: set[int]) -> None:
        self.sizes: dict[Any, dict[Any, Entry]] = defaultdict(dict)
        self.logs: dict[Any, list[Entry]] = defaultdict(list)
        self.hints = {entry.hint for entry in entries}
        for entry in entries:
            if entry.sha256 and entry.size in asked:
                what = (entry.sha256, role_of(entry), entry.collected, entry.parser)
                place = (_basename(entry), *_whose(entry)) if entry.archive else entry.hint
                self.sizes[entry.size, place][what] = entry
                if entry.size > SMALL and not entry.archive:
                    self.sizes[entry.size, ...].setdefault(what, entry)
        for entry in went:
            if entry.sha256 and entry.tells and not (entry.packed or entry.archive):
                for hint in (entry.hint, ...):
                    self.logs[hint, role_of(entry)].append(entry)
        self._same = lru_cache(None)(self._held_against)
        self._begins = lru_cache(None)(self._begun_by)

    def job(self, unit: Unit, entry: Entry) -> Job:
        hint = entry.hint if entry.hint in self.hints else ...
        asked = (role_of(entry), entry.collected, entry.parser)
        same, sealed = self._same(entry.size, hint, *asked)
        packed = self.sizes.get((entry.size, (_basename(entry), *_whose(entry))), {})
        if found := [old for old in packed.values() if adopt(old, entry)]:
            same, sealed = same.union(old.sha256 for old in found), _sealed(found) | sealed
        return Job(unit, entry, same, sealed, self._begins(hint, *asked))

    def _held_against(self, size: int, hint: Any, *asked: Any) -> tuple[frozenset[str], dict[str, dict[str, str]]]:
        found = [old for old in self.sizes.get((size, hint), {}).values() if not old.archive and _is_told(old, *asked)]
        return frozenset(old.sha256 for old in found), _sealed(found)

    def _begun_by(self, hint: Any, role: Any, collected: Any, parser: str) -> dict[str, list[Beginning]]:
        found: dict[str, list[Beginning]] = defaultdict(list)
        for old in sorted(self.logs.get((hint, role), ()), key=lambda old: (-old.size, old.sha256)):
            head = old.head if old.size >= HEAD else ""  # of a short one nobody knows what comes next
            if len(found[head]) < MOST_BEGINNINGS:
                found[head].append(Beginning(old.size, old.sha256, _is_told(old, role, collected, parser)))
        return dict(found)


def _sealed(found: Iterable[Entry]) -> dict[str, dict[str, str]]:
    sealed: dict[str, dict[str, str]] = defaultdict(dict)
    for old in found:
        if old.ends and (moment := _changed(old)):
            sealed[moment][old.ends] = old.sha256
    return dict(sealed)


# ---- looking into files, wherever they are read --------------------------------------------------------------------------


def read_jobs(folder: Path, jobs: Iterable[Job], tell: Callable[[Entry], None] = lambda entry: None) -> Iterator[Entry]:
    """Look into files, and read those whose bytes are not known into segments of the store; ``tell`` hears of each at once."""
    known: list[Entry] = []

    def found() -> Iterator[Read]:
        for job in jobs:
            entry = _examined(job)
            if entry.known:
                known.append(entry)
            else:
                yield entry, *read_unit(job.unit)
            tell(entry)

    yield from write_segment(folder, found())
    yield from known


def read_group(folder: Path, jobs: Sequence[Job]) -> list[Entry]:
    """``read_jobs`` as one task: a pure function of the files' bytes, wherever and however often it runs."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: a worker does not see the store; it must lie where all of them see it, under one name"
        )
    return list(read_jobs(folder, jobs))


def _examined(job: Job) -> Entry:
    # The file's hashes, and whether one that is known says what it says; none where it cannot be read.
    moment, path = _changed(job.entry), job.unit.paths[0]
    if (there := job.sealed.get(moment)) and (sha := there.get(_ends(path, job.entry.size))):
        return msgspec.structs.replace(job.entry, sha256=sha, packed=True, known=sha)
    whole, first, packed, begin, last = hashlib.sha256(), None, False, b"", b""
    likely: list[Beginning] = []
    passed: list[tuple[int, str]] = []
    done = 0
    try:
        for path in job.unit.paths:
            with fsspec.open(path, "rb") if "://" in path else open(path, "rb") as file:
                while block := file.read(_BLOCK):
                    last = (last + block)[-HEAD:]
                    if first is None:
                        begin, packed = block[:HEAD], wrap_of(block) is not None
                        first = _unpacked(block) if packed else begin
                        likely = [*job.begins.get(_sha(first)[:24], ()), *job.begins.get("", ())]
                    at = 0
                    for size in sorted(
                        {b.size for b in likely if done < b.size <= done + len(block)} if not packed else ()
                    ):
                        whole.update(memoryview(block)[at : size - done])
                        at = size - done
                        passed.append((size, whole.hexdigest()))
                    whole.update(memoryview(block)[at:])
                    done += len(block)
    except Exception:  # as in `_stat`
        return msgspec.structs.replace(job.entry, stamp="", sha256="")
    entry = msgspec.structs.replace(
        job.entry, sha256=whole.hexdigest(), head=_sha(first or b"")[:24], packed=packed, ends=_sha(begin + last) if packed else ""
    )  # fmt: skip
    if entry.sha256 in job.same:
        return msgspec.structs.replace(entry, known=entry.sha256)
    if packed and likely:
        passed, done = _prefixes(job.unit, {b.size for b in likely})
    began = max((b for b in likely if (b.size, b.sha256) in passed), default=None)
    if began is None:
        return entry
    known = began.sha256 if began.says_the_same and began.size == done else ""
    return msgspec.structs.replace(entry, began=began.sha256, known=known)


def _ends(path: str, size: int) -> str:
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            begin = os.read(file, HEAD)
            os.lseek(file, max(size - HEAD, 0), os.SEEK_SET)
            return _sha(begin + os.read(file, HEAD))
        finally:
            os.close(file)
    except OSError:  # the reader will say what is wrong
        return ""


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _unpacked(block: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(block, HEAD)
    except zlib.error:  # packed in another way: nothing is known of its beginning
        return b""


def _prefixes(unit: Unit, sizes: set[int]) -> tuple[list[tuple[int, str]], int]:
    # Hashes of the first bytes, unpacked, as many as each size says; and the size of all, where it ends at one of them.
    passed: list[tuple[int, str]] = []
    for item in open_unit(unit):
        if not isinstance(item, Item) or item.source != unit.source:
            return [], 0
        whole, done = hashlib.sha256(), 0
        with item.open() as stream:
            for size in sorted(sizes):
                while done < size and (block := stream.read(min(_BLOCK, size - done))):
                    whole.update(block)
                    done += len(block)
                if done == size:
                    passed.append((size, whole.hexdigest()))
            more = stream.read(1)
            return passed, -1 if more or stream.problems else done
    return [], 0
