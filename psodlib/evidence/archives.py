"""A stream -> the readable files in it: compressions peeled, tar and zip walked as streams, nothing written to disk."""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from msgspec.structs import replace

from psodlib.errors import InputError
from psodlib.evidence import tar
from psodlib.evidence.places import FRAGMENT, Place, joined_runs, member_place, shown
from psodlib.evidence.streams import (
    BLOCK,
    MAX_WRAPS,
    Budget,
    Stream,
    Trouble,
    diagnose,
    noted,
    peeled,
    unwrapped,
    wrap_of,
)
from psodlib.records import Problem

MAX_HELD = 96 << 20  # bytes of fragments, or of an archive that cannot be read as a stream, kept in memory
# Archives that nobody here can read begin so.
_FOREIGN = re.compile(
    rb"(?P<RAR>Rar!\x1a\x07)|(?P<CAB>MSCF\0{4})|(?P<LZ4>\x04\x22\x4d\x18)|(?P<Z>\x1f\x9d)|7z\xbc\xaf\x27\x1c"
)
_ABSOLUTE = re.compile(r"(?:[A-Za-z]:)?/+")
MAX_ARCHIVES = 2  # a vCenter zip holds the hosts' tgz


class Item(Place, frozen=True, kw_only=True):
    """One readable file and where it stands: plain, unpacked, or a member of an archive.

    ``hint`` is the host as its place tells it; ``hint_kind`` says how: ``"bundle"`` (a vm-support name) or
    ``"folder"``. ``collected`` is the time in a bundle's name. ``size`` is as stored: of a ``.gz``, its compressed
    bytes. ``pieces`` are the places of the fragments that it was put together from.
    """

    opener: Callable[[], Stream]
    pieces: tuple[Place, ...] = ()

    def open(self) -> Stream:
        """The unpacked bytes from the start.

        An archive's member is open only until the next item is drawn, and once.
        """
        return self.opener()


@dataclass(frozen=True, slots=True)
class Container:
    """A compression or an archive begins, or ends: all items between the two are what it holds.

    Whoever writes evidence anew packs them again, in the same order.
    """

    kind: str  # gz, bz2, xz, zst, tar, zip
    place: Place
    ends: bool = False


def expand(
    stream: Stream, place: Place, budget: Budget, *, reopen: Callable[[], Stream] | None = None, wraps: int = 0,
    archives: int = 0, pieces: tuple[Place, ...] = (),
) -> Iterator[Item | Problem | Container]:  # fmt: skip
    # The one walk: peels compressions, walks archives, gives what is left. `stream.problems` is the caller's to report.
    head = stream.peek(512)
    wrap, archive = wrap_of(head), "tar" if tar.is_header(head) else None
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")) and b"[Content_Types].xml" not in head:
        archive = "zip"  # Office documents are zips too, and one file to us
    if wrap and wraps < MAX_WRAPS:
        inner = Stream(unwrapped(wrap, stream, budget), place.source, stream.problems, stored=stream)
        yield Container(wrap, place)
        yield from expand(inner, place, budget, reopen=reopen, wraps=wraps + 1, archives=archives, pieces=pieces)
        yield Container(wrap, place, ends=True)
    elif archive and archives < MAX_ARCHIVES:
        is_tar, most = archive == "tar", budget.limits.members
        found = tar.members_of(stream, place.source, most) if is_tar else _of_zip(stream, place, budget, wraps)
        yield Container(archive, place)
        yield from _members(found, place, budget, archives + 1)
        yield Container(archive, place, ends=True)
    elif wrap or archive:
        detail = f"more than {MAX_ARCHIVES} archives or {MAX_WRAPS} compressions in one another; unpack it first"
        yield noted(place.source, "too_deep", detail)
    elif foreign := _FOREIGN.match(head):
        detail = f"packed as {foreign.lastgroup or '7z'}, which is not read here; unpack it first"
        yield noted(place.source, "not_text", detail)
    else:
        stream.again = reopen
        once = partial(_unless_passed, stream)
        told = {name: getattr(place, name) for name in Place.__struct_fields__}
        yield Item(**told, opener=once if archives else reopen or once, pieces=pieces)


def _unless_passed(stream: Stream) -> Stream:
    if stream.closed:
        raise InputError("an archive's member must be read before the next item is drawn")
    return stream


@dataclass(frozen=True, slots=True)
class Entry:
    # A member with its place, or the fragments of one.
    place: Place
    opener: Callable[[], Any]
    whole: memoryview | None = None
    pieces: tuple[Place, ...] = ()


def _members(
    found: Iterator[tar.Member | Problem], outer: Place, budget: Budget, archives: int
) -> Iterator[Item | Problem | Container]:
    seen: set[str] = set()
    for entry in _joined(_placed(found, outer), outer):
        if isinstance(entry, Problem):
            yield entry
            continue
        place = entry.place
        if place.source in seen:
            yield noted(place.source, "unsafe_member", "two members of the same name; both were read")
            place = replace(place, source=f"{place.source}#{len(seen)}")
        seen.add(place.source)
        before = budget.produced
        problems: list[Problem] = []
        try:
            raw = entry.opener()
        except Exception as error:  # encrypted, an unknown method, a damaged local header
            yield diagnose(error, place.source)
            continue
        reopen = None if entry.whole is None else partial(_from_start, entry.whole, place.source, problems, budget)
        with Stream(raw, place.source, problems, whole=entry.whole) as stream:
            if entry.whole is None:
                stream.begin_hash(place.size)
            for item in expand(stream, place, budget, reopen=reopen, archives=archives, pieces=entry.pieces):
                yield item
                if isinstance(item, Item) and item.source == place.source:
                    problems.clear()  # the member itself, whose reader has told all of its stream's troubles
        budget.forgive(before)
        yield from problems


def _from_start(whole: memoryview, source: str, problems: list[Problem], budget: Budget) -> Stream:
    # A member that lies in memory, once more; what its first reading told is told again.
    problems.clear()
    return peeled(Stream((whole,), source, problems, whole=whole), Budget(budget.limits, budget.consumed))


def _placed(found: Iterator[tar.Member | Problem], outer: Place) -> Iterator[Entry | Problem]:
    # Nothing is written, so an absolute name is only told; one that climbs is left alone.
    for member in found:
        if isinstance(member, Problem):
            yield member
            continue
        name = member.name.replace("\\", "/") if "/" not in member.name else member.name
        climbs, is_absolute = ".." in name and ".." in name.split("/"), name.startswith("/") or name[1:3] == ":/"
        if climbs or (is_absolute and _ABSOLUTE.match(name)):
            name = "" if climbs else _ABSOLUTE.sub("", name, count=1)
            detail = (
                "the name climbs out of the archive; not read" if climbs else f"absolute name; read as {shown(name)}"
            )
            yield noted(f"{outer.source}!{shown(member.name)}", "unsafe_member", detail)
        if name:
            place = member_place(outer, name, member.size, member.changed)
            yield Entry(place, member.opener, member.whole)


def _joined(entries: Iterator[Entry | Problem], outer: Place) -> Iterator[Entry | Problem]:
    # Fragments of an archive come in any order, so they wait in memory for each other; all else passes.
    held: dict[str, dict[int, tuple[Place, bytes]]] = {}
    size = 0
    for entry in entries:
        match = None if isinstance(entry, Problem) else FRAGMENT.match(entry.place.source)
        if match is None or isinstance(entry, Problem):
            yield entry
            continue
        if size + entry.place.size > MAX_HELD:
            detail = f"more than {MAX_HELD} bytes of fragments in one archive (MAX_HELD); read in parts"
            yield noted(match["base"], "too_large", detail)
            yield from _released(held)
            held, size = {}, 0
        with Stream(entry.opener(), entry.place.source) as stream:
            data = stream.read() if entry.place.size <= MAX_HELD else b""
            yield from stream.problems
        held.setdefault(match["base"], {})[int(match["number"])] = (entry.place, data)
        size += len(data)
    yield from _released(held)


def _released(held: dict[str, dict[int, tuple[Place, bytes]]]) -> Iterator[Entry | Problem]:
    for found in joined_runs(held):
        if isinstance(found, Problem):
            yield found
        else:
            place, run = found
            yield Entry(
                place, partial(iter, [data for _, data in run if data]), pieces=tuple(piece for piece, _ in run)
            )


def _of_zip(stream: Stream, outer: Place, budget: Budget, wraps: int) -> Iterator[tar.Member | Problem]:
    try:
        with closing(_seekable(stream, budget, wraps)) as file, zipfile.ZipFile(_checked(file)) as archive:
            infos, most = archive.infolist(), budget.limits.members
            if len(infos) > most:
                raise Trouble("too_large", f"{len(infos)} members, more than {most} (PSOD_MAX_MEMBERS); not read")
            for info in infos:
                if info.is_dir():
                    continue
                if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                    source = f"{outer.source}!{shown(info.filename)}"
                    yield noted(source, "unsafe_member", "a link or device; not followed")
                    continue
                try:
                    changed = datetime(*info.date_time, tzinfo=UTC).timestamp()
                except ValueError:
                    changed = -1.0
                # opened when its turn comes: what is wrong with it then shows at once
                opener = partial(lambda info: _metered(archive.open(info), budget), info)
                yield tar.Member(info.filename, info.file_size, changed, opener)
    except Exception as error:  # a damaged directory shows in many ways
        yield diagnose(error, outer.source)


def _checked(file: Any) -> Any:
    # zipfile reads the whole list of members at once: a list of this size is no bundle.
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - (64 << 10) - 22))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    listed = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
    if 64 << 20 < listed < 0xFFFFFFFF:
        raise Trouble("too_large", f"a list of members of {listed} bytes; not read")
    file.seek(0)
    return file


def _seekable(stream: Stream, budget: Budget, wraps: int) -> Any:
    # A zip lists its members at its end. A file on disk can seek; anything else waits in memory, within bounds.
    raw = stream.file
    if not wraps and raw is not None and raw.seekable():
        budget.consumed += raw.seek(0, io.SEEK_END)
        raw.seek(0)
        # Without its bound of size, which seeking would confuse.
        return os.fdopen(os.dup(raw.fileno()), "rb", BLOCK) if isinstance(raw, io.FileIO) else raw
    held = io.BytesIO()
    while data := stream.read(BLOCK):
        if held.tell() + len(data) > MAX_HELD:
            detail = (
                f"a zip within an archive or a pipe of more than {MAX_HELD} bytes (MAX_HELD); save or unpack it first"
            )
            raise Trouble("too_large", detail)
        held.write(data)
    return held


def _metered(data: Any, budget: Budget) -> Iterator[bytes]:
    # A member of a zip, whose unfolding counts.
    with data:
        while block := data.read(BLOCK):
            budget.add(len(block))
            yield block
