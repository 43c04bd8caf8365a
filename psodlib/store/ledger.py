"""The ledger: which files are known, under whatever name, and which must be read.

A file is known by its bytes: as they are stored, or, for a log that was packed, as they were before. What its place says
(path, host, time of the collection) is told anew each time, so a log that rotated, moved or came with a copied folder is not
read again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
from msgspec.structs import replace

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
# The twelve digits are how `collect` keeps what a host threw away.
_STEM = re.compile(r"(?:[0-9a-f]{12}-)?([A-Za-z_+-]*)")


class Beginning(NamedTuple):
    """A known log: its size, its sha256, and whether a file with no other bytes would say what it says."""

    size: int
    sha256: str
    says_the_same: bool


class Job(NamedTuple):
    """One file to look into, and to read unless its bytes are known; many of one host share what they are held against."""

    unit: Unit
    entry: Entry
    same: Sequence[set[str]] = ()  # sha256 of known files of this size that say what it would say
    begins: Mapping[str, Sequence[Beginning]] = {}  # head -> logs that it may begin with


class Plan(NamedTuple):
    """What one load has to do: ``kept`` are as they were, ``named`` have another name, ``jobs`` are looked into.

    ``went`` are not there as they were; ``stray`` were under a source that is no more: moved, or thrown away.
    """

    kept: list[Entry]
    named: list[Entry]
    jobs: list[Job]
    went: list[Entry]
    stray: list[Entry]


def look(units: Iterable[tuple[str, Unit]], parser: str) -> Iterator[tuple[Unit, Entry]]:
    """Each file as the ledger would have it, its content not yet looked into."""
    now = time.time()
    for root, unit in units:
        size, stamp = _stat(unit, now)
        place, path = unit.place, unit.source if len(unit.paths) == 1 else shown(unit.paths[0])
        entry = Entry(
            path=path, source=place.source, root=root, name=place.name, hint=place.hint, hint_kind=place.hint_kind,
            collected=place.collected, stamp=stamp, size=size, parser=parser,
        )  # fmt: skip
        yield unit, entry


def _stat(unit: Unit, now: float) -> tuple[int, str]:
    # Size, and what changes with the bytes: times and inode (or what a store of objects has instead), where they can be believed.
    if times := unit.place.stat:
        size, told, newest = unit.size, ".".join(map(str, times)), max(times[:2])
        return size, f"{size}:{told}" if now - newest / 1e9 > RACY else ""
    size, parts, newest = 0, [], 0
    try:
        for path in unit.paths:
            if "://" in path:
                files, name = fsspec.core.url_to_fs(path)
                info = files.info(name)
                size += int(info.get("size") or 0)
                parts.append(str(info.get("ETag") or info.get("mtime") or info.get("LastModified") or ""))
            else:
                stat = os.stat(path)
                size += stat.st_size
                parts.append(f"{stat.st_mtime_ns}.{stat.st_ctime_ns}.{stat.st_ino}")
                newest = max(newest, stat.st_mtime_ns, stat.st_ctime_ns)
    except Exception:  # each protocol has errors of its own; the reader will say what is wrong
        return 0, ""
    return size, f"{size}:{','.join(parts)}" if all(parts) and now - newest / 1e9 > RACY else ""


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
    if _dated(old, entry.parser) not in (..., entry.collected):
        return None
    if _place_of(old) == _place_of(entry) and not (old.began or old.known or old.waiting or old.gone):
        return old
    if role_of(old) != role_of(entry) or (old.archive and _member_of(old) != _member_of(entry)):
        return None
    pieces = old.pieces
    if not old.archive and old.hint != entry.hint:
        pieces = tuple(replace(piece, hint=entry.hint) for piece in pieces)
    problems = old.problems and tuple(
        dataclasses.replace(p, source=entry.source + p.source.removeprefix(old.source)) for p in old.problems
    )
    return replace(
        entry, sha256=entry.sha256 or old.sha256, head=entry.head or old.head, ends=entry.ends or old.ends,
        packed=entry.packed if entry.sha256 else old.packed, unpacked=old.unpacked, archive=old.archive, timeless=old.timeless,
        lasting=old.lasting, troubles=old.troubles, segment=old.segment, pieces=pieces, problems=problems, hosts=old.hosts,
    )  # fmt: skip


def _dated(old: Entry, parser: str) -> Any:
    # The time of the collection for which a known file says what it said: that of its own, any (...), or none (False).
    if old.parser != parser or (old.troubles and any(problem.problem in PASSING for problem in old.troubles)):
        return False
    return ... if old.timeless else old.collected


_place_of = attrgetter("path", "source", "root", "name", "hint", "hint_kind", "collected", "stamp", "parser")


def _member_of(entry: Entry) -> tuple[Any, ...]:
    # What an archive's members are told by.
    return entry.name.rpartition("/")[2], entry.hint, entry.hint_kind, entry.collected


def _packed_logs(entries: Iterable[Entry]) -> dict[tuple[int, str], dict[str, Entry]]:
    # Packed logs by what a rename and a copy that keeps times leave as it is, and of each those: by inode, and by their ends.
    found: dict[tuple[int, str], dict[str, Entry]] = defaultdict(dict)
    for entry in entries:
        if entry.ends and (written := _written(entry)):
            found[written[:2]] |= {written[2]: entry, entry.ends: entry}
    return found


def _written(entry: Entry) -> tuple[int, str, str] | None:
    # Size, time of writing and inode of one file on this machine.
    times = entry.stamp.partition(":")[2].split(".")
    return (entry.size, times[0], times[2]) if len(times) == 3 and "://" not in entry.path else None


def _renamed(logs: Mapping[tuple[int, str], Mapping[str, Entry]], entry: Entry, path: str) -> Entry | None:
    # The packed log that has this name now: the same inode with the same time of writing, unless that time is an archive's or a
    # collector's, in whole seconds; or one with the same ends, the last of which are CRC and length of all that is in it.
    written = _written(entry)
    if not written or not (alike := logs.get(written[:2])):
        return None
    if not written[1].endswith("000000000") and written[2] in alike:
        return alike[written[2]]
    try:
        with open(path, "rb", buffering=0) as file:
            begin = file.read(HEAD)
            file.seek(max(entry.size - HEAD, 0))
            return alike.get(_sha(begin + file.read(HEAD)))
    except OSError:  # the reader will say what is wrong
        return None


def plan(
    entries: Sequence[Entry], looked: Iterable[tuple[Unit, Entry]], roots: set[str], spare: Sequence[Entry], closed: set[str]
) -> Plan:  # fmt: skip
    """Hold the files that are there against those that are known.

    ``spare`` are entries of a killed load; what is or lies under a place in ``closed``, which could not be looked at, is as
    it was; so is what was under another source, unless that is no more and its files are found under these.
    """
    known = {entry.path: entry for entry in entries if not entry.gone}
    logs = _packed_logs(known.values())
    kept, named, fresh, seen = [], [], [], set()
    for unit, entry in looked:
        if entry.path in seen:
            continue
        seen.add(entry.path)
        old = known.get(entry.path)
        if old and entry.stamp and old.stamp == entry.stamp and (same := adopt(old, entry)):
            kept.append(same)
        elif (old := _renamed(logs, entry, unit.paths[0])) and (same := adopt(old, entry)):
            named.append(same)
        else:
            fresh.append((unit, entry))
    missing = [entry for path, entry in known.items() if path not in seen]
    shut = {e.path for e in missing for place in closed if e.path == place or e.path.startswith(f"{place}{os.sep}")}
    dead = {root for root in {e.root for e in missing} - roots if "://" not in root and not os.path.lexists(root)}
    stray = [e for e in missing if e.root in dead]
    kept += [e for e in missing if e.root not in roots | dead or e.path in shut]
    went = [known[path] for path in seen - {entry.path for entry in kept} if path in known]
    went += [e for e in missing if e.root in roots and e.path not in shut] + [e for e in entries if e.gone]
    index = _Index([*entries, *spare], [*went, *stray], {entry.size for _, entry in fresh})
    return Plan(kept, named, [index.job(unit, entry) for unit, entry in fresh], went, stray)


class _Index:
    # What a file is held against: known files of its size and host, and logs that were as they are no more, each in sets that
    # all files of a kind share, so that nothing grows with the square of the files. A host of an unknown name may be any that
    # was renamed.

    def __init__(self, entries: Sequence[Entry], went: Sequence[Entry], sizes: set[int]) -> None:
        self.hints = {entry.hint for entry in entries}
        self.same: dict[Any, set[str]] = defaultdict(set)
        self.logs: dict[Any, list[Entry]] = defaultdict(list)
        for old in entries:
            if old.sha256 and old.size in sizes:
                for place in [_member_of(old)] if old.archive else [old.hint, *([...] if old.size > SMALL else [])]:
                    self.same[old.size, place, role_of(old), _dated(old, old.parser), old.parser].add(old.sha256)
        for old in went:
            if old.sha256 and not (old.packed or old.archive) and old.tells:
                for place in (old.hint, ...):
                    self.logs[place, role_of(old)].append(old)
        self._begins = lru_cache(None)(self._begun_by)

    def job(self, unit: Unit, entry: Entry) -> Job:
        """The file with all that it is held against."""
        hint, role = entry.hint if entry.hint in self.hints else ..., role_of(entry)
        places = [(place, role, when) for place in (hint, _member_of(entry)) for when in (..., entry.collected)]
        same = [self.same[key] for place in places if (key := (entry.size, *place, entry.parser)) in self.same]
        return Job(unit, entry, same, self._begins(hint, role, entry.collected, entry.parser))

    def _begun_by(self, hint: Any, role: Any, collected: Any, parser: str) -> dict[str, list[Beginning]]:
        found: dict[str, list[Beginning]] = defaultdict(list)
        for old in sorted(self.logs.get((hint, role), ()), key=lambda old: (-old.size, old.sha256)):
            head = old.head if old.size >= HEAD else ""  # of a short one nobody knows what comes next
            if len(found[head]) < MOST_BEGINNINGS:
                found[head].append(Beginning(old.size, old.sha256, _dated(old, parser) in (..., collected)))
        return dict(found)


# ---- looking into files, wherever they are read --------------------------------------------------------------------------


def read_jobs(folder: Path, jobs: Iterable[Job], tell: Callable[[Entry], None] = lambda entry: None) -> Iterator[Entry]:
    """Look into files, and read those whose bytes are not known into segments of the store; ``tell`` hears of each at once."""
    known: list[Entry] = []

    def found() -> Iterator[Read]:
        for job in jobs:
            entry, likely = _examined(job)
            if entry.known:
                known.append(entry)
            elif likely:  # what is packed is held against them while it is read
                hashed = _Hashed(likely)
                told = read_unit(replace(job.unit, watch=hashed.begin))
                if hashed.size < hashed.most:
                    hashed = _unfolded(job.unit, likely)
                yield replace(hashed.compared(entry, likely), known=""), *told
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


class _Hashed:
    # sha256 of a stream's first bytes, as many as each known log that it may begin with has, and of all where that is asked.

    def __init__(self, likely: Sequence[Beginning], whole: bool = False) -> None:
        self.sizes, self.whole = {one.size for one in likely}, whole
        self.most = max(self.sizes, default=0)
        self.begin()

    def begin(self) -> _Hashed:
        """Itself, at the start of the stream."""
        self._hash, self.size, self.passed = hashlib.sha256(), 0, dict[int, str]()
        return self

    def update(self, block: bytes | memoryview) -> None:
        """One block more."""
        view, at, end = memoryview(block), 0, self.size + len(block)
        for size in sorted(size for size in self.sizes if self.size < size <= end):
            self._hash.update(view[at : size - self.size])
            at = size - self.size
            self.passed[size] = self._hash.hexdigest()
        if self.whole or end < self.most:
            self._hash.update(view[at:])
        self.size = end

    def hexdigest(self) -> str:
        """Of all."""
        return self._hash.hexdigest()

    def compared(self, entry: Entry, likely: Sequence[Beginning]) -> Entry:
        """The file with the longest of the logs that it begins with, and known where it has no other bytes."""
        began = max((b for b in likely if self.passed.get(b.size) == b.sha256), default=None)
        if began is None:
            return entry
        known = began.sha256 if began.says_the_same and began.size == self.size else ""
        return replace(entry, began=began.sha256, known=known)


def _examined(job: Job) -> tuple[Entry, Sequence[Beginning]]:
    # The file's hashes, none where it cannot be read, and whether one that is known says what it says; else, where it is
    # packed, the logs that it may begin with.
    entry, whole, likely = job.entry, _Hashed((), whole=True), list[Beginning]()
    first, wrap, begin, last = b"", None, b"", b""
    try:
        for path in job.unit.paths:
            with fsspec.open(path, "rb") if "://" in path else open(path, "rb") as file:
                while block := file.read(_BLOCK):
                    if not whole.size:
                        begin, wrap = block[:HEAD], wrap_of(block)
                        first = _unpacked(block) if wrap else begin
                        likely = [*job.begins.get(_sha(first)[:24], ()), *job.begins.get("", ())]
                        whole = _Hashed(() if wrap else likely, whole=True)
                    last = (last + block[-HEAD:])[-HEAD:]
                    whole.update(block)
    except Exception:  # as in `_stat`
        return replace(entry, stamp=""), ()
    entry = replace(
        entry,
        sha256=whole.hexdigest(),
        head=_sha(first)[:24],
        packed=bool(wrap),
        ends=_sha(begin + last) if wrap else "",
    )
    if any(entry.sha256 in known for known in job.same):
        return replace(entry, known=entry.sha256), ()
    if not wrap:
        return whole.compared(entry, likely), ()
    length = int.from_bytes(last[-4:], "little")  # of what is in it, so it may be known
    if likely and (wrap != "gz" or length in {one.size for one in likely}):
        return _unfolded(job.unit, likely).compared(entry, likely), ()
    return entry, likely


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _unpacked(block: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(block, HEAD)
    except zlib.error:  # packed in another way: nothing is known of its beginning
        return b""


def _unfolded(unit: Unit, likely: Sequence[Beginning]) -> _Hashed:
    # The hashes of the text that is packed in a file.
    hashed = _Hashed(likely)
    for item in open_unit(unit):
        if isinstance(item, Item) and item.source == unit.source:
            with item.open() as stream:
                while hashed.size <= hashed.most and (block := stream.read(_BLOCK)):
                    hashed.update(block)
                hashed.size = -1 if stream.problems else hashed.size
        break
    return hashed
