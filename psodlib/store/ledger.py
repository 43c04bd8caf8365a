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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec
import msgspec

from psodlib.errors import InputError
from psodlib.evidence.places import shown
from psodlib.evidence.reading import read_unit
from psodlib.evidence.sources import Item, Unit, open_unit
from psodlib.evidence.streams import wrap_of
from psodlib.store.readings import PASSING, Entry, Read, write_segment

__all__ = ["HEAD", "Job", "Plan", "adopt", "is_output", "look", "plan", "read_group", "read_jobs"]

RACY = 2.0  # seconds: a file changed this shortly before it was looked at may change again under the same time
HEAD = 4096  # bytes at the beginning of a log that tell it from others
SMALL = 4096  # bytes: below this a file of another host is read rather than searched for among all
_BLOCK = 1 << 20
_STEM = re.compile(
    r"(?:[0-9a-f]{12}-)?([A-Za-z_+-]*)"
)  # the twelve digits are how `collect` keeps what a host threw away


@dataclass(frozen=True, slots=True)
class Job:
    """One file to look into, and to read unless its bytes are known."""

    unit: Unit
    entry: Entry
    same: frozenset[str] = frozenset()  # sha256 of known files of this size that say what it would say
    sealed: tuple[
        tuple[str, str], ...
    ] = ()  # (ends, sha256) of those of them that are packed and were changed when it was
    begins: tuple[tuple[int, str, str, bool], ...] = ()  # (size, sha256, head, says the same) of logs it may begin with


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
                path=shown(unit.paths[0]), source=place.source, root=shown(root), name=place.name, hint=place.hint,
                hint_kind=place.hint_kind, collected=place.collected, stamp=stamp, size=size, parser=parser,
            ),
        )  # fmt: skip


def _stat(unit: Unit, now: float) -> tuple[int, str]:
    # Size, and what changes with the bytes: times and inode (or what a store of objects has instead), where they can be believed.
    size, told, newest = 0, [], 0.0
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


def _changed(entry: Entry) -> str:
    # When the bytes of a file on this machine were written; a rename leaves that as it is.
    return "" if "://" in entry.path or "," in entry.stamp else entry.stamp.partition(":")[2].partition(".")[0]


# ---- what is known ----------------------------------------------------------------------------------------------------


def _role(entry: Entry) -> tuple[str, bool, bool]:
    # All that readers make of a name: the log or command without its number, a folder of outputs, a bundle.
    return _stem(entry.name.rpartition("/")[2]), is_output(entry), entry.hint_kind == "bundle"


@lru_cache(4096)
def _stem(name: str) -> str:
    found = _STEM.match(name)
    return found[1] if found else ""


def is_output(entry: Entry) -> bool:
    """Whether a file lies among the outputs of commands."""
    return entry.name.startswith("commands/") or "/commands/" in entry.name


def adopt(old: Entry, entry: Entry) -> Entry | None:
    """What is known of some bytes, under the name and place that they have now; None where a reader would see more."""
    if old.parser != entry.parser or any(problem.problem in PASSING for problem in old.troubles):
        return None
    if old.archive and (_basename(old), *_whose(old)) != (_basename(entry), *_whose(entry)):
        return None
    if _role(old) != _role(entry) or not (old.timeless or old.collected == entry.collected):
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
    kept, fresh, seen = [], [], set()
    for unit, entry in looked:
        if entry.path in seen:
            continue
        seen.add(entry.path)
        old = known.get(entry.path)
        same = adopt(old, entry) if old and entry.stamp and old.stamp == entry.stamp else None
        if same is None:
            fresh.append((unit, entry))
        else:
            kept.append(msgspec.structs.replace(same, hosts=old.hosts if old else ()))
    missing = [entry for entry in known.values() if entry.path not in seen]
    shut = {e.path for e in missing for place in closed if e.path == place or e.path.startswith(f"{place}{os.sep}")}
    dead = {root for root in {e.root for e in missing} - roots if "://" not in root and not os.path.lexists(root)}
    stray = tuple(e for e in missing if e.root in dead)
    others = [e for e in missing if e.root not in roots | dead or e.path in shut]
    changed = [known[entry.path] for _, entry in fresh if entry.path in known]
    absent = [e for e in missing if e.root in roots and e.path not in shut]
    went = (*changed, *absent, *(e for e in entries if e.gone))
    index = _Index([*entries, *spare], [*went, *stray])
    jobs = tuple(Job(unit, entry, *index.same(entry), index.begins(entry)) for unit, entry in fresh)
    return Plan((*kept, *others), jobs, went, stray)


class _Index:
    # Known files by host and size, and logs by host, so that each new file is held against few; a host of an unknown name may
    # be any that was renamed.

    def __init__(self, entries: Sequence[Entry], went: Sequence[Entry]) -> None:
        self.sizes: dict[Any, dict[Any, Entry]] = defaultdict(dict)
        self.logs: dict[str | None, list[tuple[Any, Entry]]] = defaultdict(list)
        self.hints = {entry.hint for entry in entries}
        self._begins: dict[Any, tuple[tuple[int, str, str, bool], ...]] = {}
        for entry in entries:
            if entry.sha256:
                what = (entry.sha256, _role(entry), entry.collected, entry.parser)
                self.sizes[entry.size, entry.hint][what] = entry
                if entry.size > SMALL:
                    self.sizes[entry.size, ...].setdefault(what, entry)
        for entry in went:
            if entry.sha256 and entry.tells and not (entry.packed or entry.archive):
                self.logs[entry.hint].append((_role(entry), entry))

    def same(self, entry: Entry) -> tuple[frozenset[str], tuple[tuple[str, str], ...]]:
        hint = entry.hint if entry.hint in self.hints else ...
        found = [old for old in self.sizes.get((entry.size, hint), {}).values() if adopt(old, entry)]
        moment = _changed(entry)
        sealed = tuple((old.ends, old.sha256) for old in found if old.ends and moment and _changed(old) == moment)
        return frozenset(old.sha256 for old in found), sealed

    def begins(self, entry: Entry) -> tuple[tuple[int, str, str, bool], ...]:
        # Made once for all files of which the same is asked: where all hosts have new names, each is held against all logs.
        hint = entry.hint if entry.hint in self.hints else ...
        asked = (hint, _role(entry), entry.collected, entry.parser)
        if asked not in self._begins:
            found = self.logs.values() if hint is ... else [self.logs.get(hint, [])]
            self._begins[asked] = tuple(
                (old.size, old.sha256, old.head, adopt(old, entry) is not None)
                for logs in found
                for role, old in logs
                if role == asked[1]
            )
        return self._begins[asked]


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
    if job.sealed and (sha := dict(job.sealed).get(_ends(job.unit.paths[0]))):
        return msgspec.structs.replace(job.entry, sha256=sha, packed=True, known=sha)
    whole, first, packed, begin, last = hashlib.sha256(), None, False, b"", b""
    stops = sorted({size: sha for size, sha, _, _ in job.begins}.items())
    passed: list[tuple[int, str]] = []
    done = 0
    try:
        for path in job.unit.paths:
            with fsspec.open(path, "rb") if "://" in path else open(path, "rb") as file:
                while block := file.read(_BLOCK):
                    last = (last + block)[-HEAD:]
                    if first is None:
                        begin = block[:HEAD]
                        packed = wrap_of(block) is not None
                        first = _unpacked(block) if packed else block[:HEAD]
                    for size, _ in [] if packed else stops:
                        if done < size <= done + len(block):
                            upto = whole.copy()
                            upto.update(block[: size - done])
                            passed.append((size, upto.hexdigest()))
                    whole.update(block)
                    done += len(block)
    except Exception:  # as in `_stat`
        return msgspec.structs.replace(job.entry, stamp="", sha256="")
    entry = msgspec.structs.replace(
        job.entry, sha256=whole.hexdigest(), head=_sha(first, HEAD)[:24], packed=packed, ends=_sha(begin + last, 2 * HEAD) if packed else ""
    )  # fmt: skip
    if entry.sha256 in job.same:
        return msgspec.structs.replace(entry, known=entry.sha256)
    likely = [b for b in job.begins if b[2] in (entry.head, "") or (b[0] < HEAD and _sha(first, b[0]) == b[1])]
    if packed and likely:
        passed, done = _prefixes(job.unit, {size for size, *_ in likely})
    began = max((b for b in likely if (b[0], b[1]) in passed), default=None)
    if began is None:
        return entry
    known = began[1] if began[3] and began[0] == done else ""
    return msgspec.structs.replace(entry, began=began[1], known=known)


def _ends(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            begin = file.read(HEAD)
            file.seek(-min(HEAD, os.fstat(file.fileno()).st_size), os.SEEK_END)
            return _sha(begin + file.read(HEAD), 2 * HEAD)
    except OSError:  # the reader will say what is wrong
        return ""


def _sha(data: bytes | None, size: int) -> str:
    return hashlib.sha256((data or b"")[:size]).hexdigest()


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
