"""What one load finds new: the files that are there -> the ledger as it will be. What a store once knew stays.

A log that grew, was packed or moved is told once. One that is gone is kept and told of. What was an output without a time of
its own is true only until the next one is printed over it. A file that cannot be read now, or only in part, takes nothing from
what was read of it before.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import msgspec

from psodlib.errors import InputError
from psodlib.evidence.places import shown
from psodlib.evidence.sources import Unit
from psodlib.records import Problem
from psodlib.store.folder import Manifest
from psodlib.store.ledger import HEAD, Job, adopt, is_output, look, plan, role_of
from psodlib.store.readings import PASSING, POOR, Entry, Read, read_contents, read_pieces, timed, write_segment

Walk = tuple[str, list[Unit], list[Problem]]  # a source, its files, the troubles of walking it
ReadJobs = Callable[[Path, Sequence[Job]], Iterator[Entry]]


def read_new(
    folder: Path, before: Manifest, known: Sequence[Entry], walks: Sequence[Walk], read: ReadJobs, parser: str
) -> tuple[list[Entry], dict[str, int | bool]]:
    """The entries as they will be, and what was done to have them."""
    found = [(root, unit) for source, units, _ in walks for root in [shown(source)] for unit in units]
    if any(unit.paths == ("-",) for _, unit in found):
        raise InputError("standard input cannot go into a store: there is nothing to compare tomorrow; give a file")
    roots = {shown(source) for source, _, _ in walks}
    closed = {p.source for _, _, problems in walks for p in problems if p.problem in PASSING}
    spare = _spare(folder, before)
    todo = plan(known, look(found, parser), roots, spare, closed)
    came = {entry.path: entry for entry in read(folder, todo.jobs)}
    if len(came) != len(todo.jobs):  # a reader that loses a file must not make it look as if it had nothing to say
        raise InputError(
            f"{len(todo.jobs)} files were to be read and {len(came)} came back; the store is as it was before, run again"
        )
    old = {entry.path: entry for entry in known if not entry.gone}
    fresh = [_standing_in(e, old.get(e.path)) for e in (*todo.named, *_adopted(came.values(), [*known, *spare]))]
    moves = _moves([*todo.went, *todo.stray], todo.kept, fresh)
    there = _There([*todo.kept, *fresh])
    elsewhere = {e.root for e in todo.stray if e.tells and there.says(_moved(e, moves))}  # folders that were moved
    present = [*todo.kept, *fresh, *(e for e in todo.stray if e.root not in elsewhere)]
    changed, paths = {entry.path for entry in fresh}, {entry.path for entry in present}
    gone: list[Entry] = []
    over: list[Entry] = []
    for e in (*todo.went, *(e for e in todo.stray if e.root in elsewhere)):
        one = _moved(e, moves)
        if there.says(one):
            continue
        if not e.gone:
            missed = e.path not in paths and one.hint not in moves.values() and e.root not in elsewhere
            one = msgspec.structs.replace(one, gone=True, missed=missed)
        (over if not (e.gone or e.lasting) and e.path in changed else gone).append(one)
    gone += _stripped(folder, over)
    again = [*todo.named, *(entry for entry in came.values() if entry.known)]
    adopted = {entry.sha256 for entry in spare} - {""}
    others = [e for e in came.values() if not e.known and e.sha256 and e.path in old and old[e.path].sha256 == e.sha256]
    news: dict[str, int | bool] = {
        "files read": len(fresh) - len(again),
        "files adopted from a killed load": sum(entry.known in adopted for entry in again),
        "files known": len(present) - len(fresh) + len(again),
        "files known under another name": sum(entry.path not in old for entry in again),
        "files gone, kept": len(gone),
        "files not to be read now, as they were": sum(bool(entry.waiting) for entry in present),
        "files read again, the parser is another": len(others),
        "files of an earlier parser, not there to be read again": sum(
            e.tells for e in [*present, *gone] if e.parser != parser
        ),
    }
    return [*present, *gone], news


def _spare(folder: Path, before: Manifest) -> list[Entry]:
    # What a killed load had read already: its segments are whole and no manifest names them.
    named = {*before.segments, *before.before}
    paths = ((path, path.relative_to(folder).as_posix()) for path in sorted((folder / "readings").glob("*.seg")))
    return [entry for path, name in paths if name not in named for entry in read_contents(path, name)]


def _adopted(came: Collection[Entry], known: Sequence[Entry]) -> Iterator[Entry]:
    # A file whose bytes are known says what is known of them; nearest is what lay at its own path, then with its own host.
    wanted = {entry.known for entry in came} - {""}
    by_sha: dict[Any, list[Entry]] = defaultdict(list)
    for entry in sorted((old for old in known if old.sha256 in wanted), key=lambda entry: entry.path):
        for place in (entry.path, entry.hint, ...):
            by_sha[entry.sha256, role_of(entry), place].append(entry)
    for entry in came:
        if not entry.known:
            yield entry
            continue
        near = (
            old
            for place in (entry.path, entry.hint, ...)
            for old in by_sha.get((entry.known, role_of(entry), place), ())
        )
        yield next(told for old in near if (told := adopt(old, entry)) is not None)


def _standing_in(entry: Entry, old: Entry | None) -> Entry:
    # What was read of a file before, where it cannot be read now or ends too early; it is looked into again the next time.
    troubles = {problem.problem for problem in entry.troubles}
    if troubles & PASSING:
        entry = msgspec.structs.replace(entry, stamp="")
    if not troubles & POOR or old is None or not old.tells or entry.began == old.sha256 != "":
        return entry
    alike = entry.head == old.head or entry.unpacked < HEAD  # of so little a head says nothing
    less = not entry.tells or (alike and entry.unpacked < old.unpacked)
    return msgspec.structs.replace(old, root=entry.root, stamp="", waiting=entry.troubles) if less else entry


def _moves(went: Sequence[Entry], kept: Sequence[Entry], fresh: Sequence[Entry]) -> dict[str, str | None]:
    # Host folders that have another name now: no file is left under the old one, and logs that it alone had are found under
    # one that is new. Outputs are alike on many hosts, and say nothing.
    left = {entry.hint for entry in (*kept, *fresh)}
    new = left - {entry.hint for entry in (*kept, *went)}
    if not new:
        return {}
    before = Counter(entry.sha256 for entry in went)
    now: dict[str, set[str | None]] = defaultdict(set)
    for entry in fresh:
        for sha in {entry.sha256, entry.began, entry.known} - {""}:
            now[sha].add(entry.hint)
    votes: dict[str, Counter[str | None]] = defaultdict(Counter)
    for entry in went:
        found = now.get(entry.sha256, set()) & new
        alone = before[entry.sha256] == 1 == len(found) and entry.hint not in left
        if alone and entry.hint and entry.tells and not is_output(entry):
            votes[entry.hint].update(found)
    return {hint: names.most_common(1)[0][0] for hint, names in votes.items()}


def _moved(entry: Entry, moves: Mapping[str, str | None]) -> Entry:
    if entry.hint is None or entry.hint not in moves:
        return entry
    hint = moves[entry.hint]
    pieces = tuple(msgspec.structs.replace(p, hint=hint if p.hint == entry.hint else p.hint) for p in entry.pieces)
    return msgspec.structs.replace(entry, hint=hint, pieces=pieces)


class _There:
    # What the files that are there say, by the host that their place names.

    def __init__(self, present: Sequence[Entry]) -> None:
        self._whole = [entry for entry in present if entry.sha256]
        self._shas = {(entry.hint, sha) for entry in self._whole for sha in (entry.sha256, entry.began) if sha}

    @cached_property
    def _logs(self) -> set[tuple[str | None, str, int]]:
        return {(entry.hint, entry.head, entry.unpacked) for entry in self._whole if entry.head and entry.unpacked}

    @cached_property
    def _contents(self) -> set[tuple[str | None, tuple[int, str]]]:
        return {(entry.hint, one) for entry in self._whole for piece in entry.pieces for one in piece.contents}

    def says(self, old: Entry) -> bool:
        """True where all that a file said is still said: it was moved, packed, unpacked, or grew and was moved."""
        if (old.hint, old.sha256) in self._shas or not old.tells:
            return True
        if not old.archive and (old.hint, old.head, old.unpacked) in self._logs:
            return True
        contents = [piece.contents for piece in old.pieces if piece.length]
        return all(told and {(old.hint, one) for one in told} <= self._contents for told in contents)


def _stripped(folder: Path, entries: Sequence[Entry]) -> Iterator[Entry]:
    # Outputs that others were printed over, without what is true no more.
    def lasting() -> Iterator[Read]:
        for entry in entries:
            groups = read_pieces(folder, [(entry, piece) for piece in entry.pieces])
            yield entry, [timed(reading) for group in groups for reading in group], ()

    return write_segment(folder, lasting())


def vanished(entries: Iterable[Entry]) -> Iterator[Problem]:
    """One row a folder from which files are gone; what was rotated away or printed over went as is its way."""
    by_folder: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry.gone and entry.missed:
            by_folder[str(PurePath(entry.path).parent)].add(entry.path)
    for folder, paths in by_folder.items():
        detail = f"{len(paths)} file{'s' if len(paths) > 1 else ''} read before, no longer there ({min(paths)}); what they said is kept"
        yield Problem(source=folder, problem="vanished", detail=detail)
