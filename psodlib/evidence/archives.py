"""A stream -> the readable files in it: compressions peeled, tar and zip walked as streams, nothing written to disk."""

from __future__ import annotations

import io
import posixpath
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from psodlib.errors import InputError
from psodlib.evidence.places import FRAGMENT, Place, member_place, runs_of, shown
from psodlib.evidence.streams import (
    MAX_WRAPS,
    Budget,
    Chain,
    Counted,
    DiskFile,
    Stream,
    Trouble,
    diagnose,
    unwrapped,
    wrap_of,
)
from psodlib.records import Problem

__all__ = ["Entry", "Item", "archive_of", "expand", "tar_entries", "zip_entries"]

MAX_HELD = 96 << 20  # bytes of fragments, or of an archive that cannot be read as a stream, kept in memory
MAX_HEADER = 4 << 20  # bytes of one archive member's header
MAX_ARCHIVES = 2  # a vCenter zip holds the hosts' tgz
BLOCK = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One readable file: plain, unpacked, or a member of an archive.

    ``hint`` is the host as its place tells it; ``hint_kind`` says how: ``"bundle"`` (a vm-support name) or
    ``"folder"``. ``collected`` is the time in a bundle's name. ``size`` is as stored: of a ``.gz``, its compressed
    bytes.
    """

    source: str
    name: str
    hint: str | None
    hint_kind: str | None
    size: int
    mtime: datetime | None
    collected: datetime | None
    opener: Callable[[], Stream] = field(repr=False, compare=False)

    def open(self) -> Stream:
        """The unpacked bytes from the start.

        An archive's member is open only until the next item is drawn, and once.
        """
        return self.opener()


def archive_of(head: bytes) -> str | None:
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        # Office documents are zips too, and one file to us.
        return None if b"[Content_Types].xml" in head else "zip"
    try:
        return (
            "tar" if len(head) >= 512 and tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape").name else None
        )
    except tarfile.TarError:
        return None


def expand(
    stream: Stream,
    place: Place,
    budget: Budget,
    *,
    reopen: Callable[[], Stream] | None = None,
    wraps: int = 0,
    archives: int = 0,
) -> Iterator[Item | Problem]:
    # Peels compressions, walks archives, gives what is left. `stream.problems` is the caller's to report.
    head = stream.peek(512)
    wrap, archive = wrap_of(head), archive_of(head)
    if wrap and wraps < MAX_WRAPS:
        inner = Stream(unwrapped(wrap, stream, budget), place.source, stream.problems, stored=stream)
        yield from expand(inner, place, budget, reopen=reopen, wraps=wraps + 1, archives=archives)
    elif archive and archives < MAX_ARCHIVES:
        entries = tar_entries(stream, place, budget) if archive == "tar" else zip_entries(stream, place, budget, wraps)
        yield from _members(entries, place, budget, archives + 1)
    elif wrap or archive:
        yield Problem(
            source=place.source,
            problem="too_deep",
            detail=f"more than {MAX_ARCHIVES} archives or {MAX_WRAPS} compressions in one another; unpack it first",
        )
    else:
        # The look at the head has its own troubles; a reopened file tells them again.
        if reopen is not None:
            stream.problems.clear()
        yield _item(place, reopen or _once(stream))


def _item(place: Place, opener: Callable[[], Stream]) -> Item:
    return Item(
        source=place.source, name=place.name, hint=place.hint, hint_kind=place.hint_kind, size=place.size, mtime=place.mtime,
        collected=place.collected, opener=opener,
    )  # fmt: skip


def _once(stream: Stream) -> Callable[[], Stream]:
    def opener() -> Stream:
        if stream.closed:
            raise InputError("an archive's member must be read before the next item is drawn")
        return Stream(stream, stream._source, stream.problems, stored=stream)

    return opener


# --- archives ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    # A member's place and bytes, good until the next entry is drawn (tar) or as long as the archive is open (zip).
    place: Place
    opener: Callable[[], Any]


def _members(
    entries: Iterator[Entry | Problem], outer: Place, budget: Budget, archives: int
) -> Iterator[Item | Problem]:
    seen: set[str] = set()
    for entry in _joined(entries, outer):
        if isinstance(entry, Problem):
            yield entry
            continue
        place = entry.place
        if place.source in seen:
            yield Problem(
                source=place.source, problem="unsafe_member", detail="two members of the same name; both were read"
            )
            place = replace(place, source=f"{place.source}#{len(seen)}")
        seen.add(place.source)
        problems: list[Problem] = []
        try:
            raw = entry.opener()
        except Exception as error:  # encrypted, an unknown method, a damaged local header
            problem, detail = diagnose(error)
            yield Problem(source=place.source, problem=problem, detail=detail)
            continue
        with Stream(raw, place.source, problems) as stream:
            stream.begin_hash()
            for item in expand(stream, place, budget, archives=archives):
                yield item
                if isinstance(item, Item) and item.source == place.source:
                    problems.clear()  # the member itself, whose reader has told all of its stream's troubles
        yield from problems


def _joined(entries: Iterator[Entry | Problem], outer: Place) -> Iterator[Entry | Problem]:
    # Fragments of a tar come in any order, so they wait in memory for each other; all else passes.
    held: dict[str, dict[int, tuple[Place, bytes]]] = {}
    size = 0
    for entry in entries:
        match = None if isinstance(entry, Problem) else FRAGMENT.match(entry.place.source)
        if match is None or isinstance(entry, Problem):
            yield entry
            continue
        if size + entry.place.size > MAX_HELD:
            yield Problem(
                source=match["base"],
                problem="too_large",
                detail=f"more than {MAX_HELD} bytes of fragments in one archive (MAX_HELD); read in parts",
            )
            yield from _released(held)
            held, size = {}, 0
        with Stream(entry.opener(), entry.place.source) as stream:
            data = stream.read(MAX_HELD) if entry.place.size <= MAX_HELD else b""
            yield from stream.problems
        held.setdefault(match["base"], {})[int(match["number"])] = (entry.place, data or b"")
        size += len(data or b"")
    yield from _released(held)


def _released(held: dict[str, dict[int, tuple[Place, bytes]]]) -> Iterator[Entry | Problem]:
    for base, numbered in sorted(held.items()):
        for run in runs_of(numbered, base):
            if isinstance(run, Problem):
                yield run
                continue
            place = run[0][0]
            source = base if run[0] is numbered[min(numbered)] else place.source
            place = replace(
                place, source=source, name=FRAGMENT.sub(r"\g<base>", place.name), size=sum(p.size for p, _ in run)
            )
            yield Entry(place, partial(Chain, [partial(io.BytesIO, data) for _, data in run]))


def _safe_name(name: str, outer: Place) -> tuple[str, Problem | None]:
    # A member's name inside the archive; nothing is written, so an absolute one is only told, a climbing one left alone.
    clean = name.replace("\\", "/") if "\\" in name and "/" not in name else name
    if ".." in clean.split("/"):
        return "", Problem(
            source=f"{outer.source}!{shown(name)}",
            problem="unsafe_member",
            detail="the name climbs out of the archive; not read",
        )
    if clean.startswith("/") or re.match(r"[A-Za-z]:/", clean):
        stripped = re.sub(r"^(?:[A-Za-z]:)?/+", "", clean)
        return stripped, Problem(
            source=f"{outer.source}!{shown(name)}",
            problem="unsafe_member",
            detail=f"absolute name; read as {shown(stripped)}",
        )
    return clean, None


class _TarFeed:
    # What tarfile reads from: notices a header that is no header but a flood, and data that end too early.
    def __init__(self, stream: Stream) -> None:
        self._stream, self.in_header, self._seen = stream, True, 0

    def begin(self, in_header: bool) -> None:
        self.in_header, self._seen = in_header, 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size) or b""
        self._seen += len(data)
        if self.in_header and self._seen > MAX_HEADER:
            raise Trouble(
                "too_large", f"a member's header has more than {MAX_HEADER} bytes (MAX_HEADER); the rest is not read"
            )
        return data


def tar_entries(stream: Stream, outer: Place, budget: Budget) -> Iterator[Entry | Problem]:
    odd: dict[str, list[str]] = {}
    feed = _TarFeed(stream)
    try:
        with tarfile.open(
            fileobj=cast(Any, feed), mode="r|", encoding="utf-8", errors="surrogateescape", bufsize=BLOCK
        ) as tar:
            for _ in range(budget.limits.members):
                feed.begin(in_header=True)
                member = tar.next()
                cast(Any, tar).members = []  # tarfile would keep every header
                if member is None:
                    break
                feed.begin(in_header=False)
                yield from _tar_member(tar, member, outer, odd)
            else:
                raise Trouble(
                    "too_large", f"more than {budget.limits.members} members (PSOD_MAX_MEMBERS); the rest is not read"
                )
    except Exception as error:  # tarfile complains in many ways; a cut below is already told
        if not stream.problems:
            problem, detail = (
                ("truncated", "the archive ends before its time; what came before is used")
                if "unexpected end" in str(error)
                else diagnose(error)
            )
            yield Problem(source=outer.source, problem=problem, detail=detail)
    for kind, names in odd.items():
        yield Problem(
            source=outer.source,
            problem="unsafe_member",
            detail=f"{len(names)} {kind}, not followed; the first: {shown(names[0])}",
        )


def _tar_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, outer: Place, odd: dict[str, list[str]]
) -> Iterator[Entry | Problem]:
    if member.isdir():
        return
    if member.issym() or member.islnk():
        # A link brings no bytes of its own; one that stays inside points at a member that is read in its own right.
        base = posixpath.dirname(member.name) if member.issym() else ""
        target = posixpath.normpath(posixpath.join(base, member.linkname))
        if target.startswith(("/", "..")):
            odd.setdefault("links that leave the archive", []).append(f"{member.name} -> {member.linkname}")
        return
    if not member.isreg() or member.issparse():
        odd.setdefault("devices, pipes or sparse files", []).append(member.name)
        return
    name, problem = _safe_name(member.name, outer)
    if problem:
        yield problem
    if not name:
        return
    data = tar.extractfile(member)
    if data is None:
        return
    yield Entry(member_place(outer, name, member.size, float(member.mtime)), lambda: _Sized(data, member.size))
    while data.read(BLOCK):  # to the end, so that the next header is all that tarfile reads next
        pass


class _Sized(io.RawIOBase):
    # A tar member's bytes; tarfile ends a cut one without a word.
    def __init__(self, data: Any, size: int) -> None:
        super().__init__()
        self._data, self._left = data, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._data.read(min(len(buffer), BLOCK))
        self._left -= len(data)
        if not data and self._left > 0:
            raise EOFError
        buffer[: len(data)] = data
        return len(data)


def zip_entries(stream: Stream, outer: Place, budget: Budget, wraps: int) -> Iterator[Entry | Problem]:
    file = None
    try:
        file = _seekable(stream, wraps)
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            if len(infos) > budget.limits.members:
                raise Trouble(
                    "too_large", f"{len(infos)} members, more than {budget.limits.members} (PSOD_MAX_MEMBERS); not read"
                )
            for info in infos:
                if not info.is_dir():
                    yield from _zip_member(archive, info, outer, budget)
    except Exception as error:  # a damaged directory shows in many ways
        problem, detail = diagnose(error)
        yield Problem(source=outer.source, problem=problem, detail=detail)
        if file is not None and problem == "damaged_archive":
            yield from _headed_entries(file, outer, budget)


def _headed_entries(file: Any, outer: Place, budget: Budget) -> Iterator[Entry | Problem]:
    # A zip whose list of members is cut off or damaged: each member still has a header of its own before its bytes.
    at, count = 0, 0
    while count < budget.limits.members and (at := _next_header(file, at)) >= 0:
        file.seek(at)
        header = file.read(30)
        if len(header) < 30:
            return
        flags, method, packed, name_size, more_size = struct.unpack("<6xHH8xI4xHH", header)
        name, problem = _safe_name(file.read(name_size).decode("utf-8", "surrogateescape"), outer)
        if problem:
            yield problem
        at += 30 + name_size + more_size
        readable = method == zipfile.ZIP_DEFLATED or (method == zipfile.ZIP_STORED and packed)
        if name and not name.endswith("/") and readable and not flags & 1:
            count += 1
            file.seek(at)
            raw = _Headed(file, None if method == zipfile.ZIP_DEFLATED else packed)
            yield Entry(member_place(outer, name, packed, -1.0), partial(_Metered, raw, budget))
            at = max(at, raw.end)


def _next_header(file: Any, at: int) -> int:
    # Where the next member's header begins, or -1.
    rest = b""
    file.seek(at)
    while block := file.read(BLOCK):
        found = (rest + block).find(b"PK\x03\x04")
        if found >= 0:
            return int(at - len(rest) + found)
        at, rest = at + len(block), block[-3:]
    return -1


class _Headed:
    # The bytes of a member behind its header: stored, of a known size, or deflated, which ends by itself.
    def __init__(self, file: Any, size: int | None) -> None:
        self._file, self._left = file, size
        self._engine = zlib.decompressobj(-zlib.MAX_WBITS) if size is None else None
        self.end = file.tell()

    def read(self, size: int) -> bytes:
        if self._engine is None:
            self._file.seek(self.end)
            data = self._file.read(min(size, self._left or 0))
            self._left = (self._left or 0) - len(data)
            if not data and self._left:
                raise EOFError
            self.end += len(data)
            return bytes(data)
        data = b""
        while not data and not self._engine.eof:
            packed = self._engine.unconsumed_tail
            if not packed:
                self._file.seek(self.end)
                packed = self._file.read(64 << 10)
                self.end += len(packed)
            if not packed:
                raise EOFError
            data = self._engine.decompress(packed, size)
            if self._engine.eof:
                self.end -= len(self._engine.unused_data)
        return data


def _check_directory(file: Any) -> None:
    # zipfile reads the whole list of members at once: a list of this size is no bundle.
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - (64 << 10) - 22))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    listed = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
    if 64 << 20 < listed < 0xFFFFFFFF:
        raise Trouble("too_large", f"a list of members of {listed} bytes; not read")
    file.seek(0)


def _seekable(stream: Stream, wraps: int) -> Any:
    # A zip lists its members at its end. A file on disk can seek; anything else waits in memory, within bounds.
    raw = stream._raw
    if not wraps and isinstance(raw, Counted) and raw.raw.seekable():
        raw._budget.consumed += raw.raw.seek(0, io.SEEK_END)
        raw.raw.seek(0)
        return io.BufferedReader(_Plain(raw.raw), BLOCK)
    data = stream.read(MAX_HELD + 1) or b""
    parts = [data]
    while data and sum(map(len, parts)) <= MAX_HELD:
        data = stream.read(MAX_HELD + 1) or b""
        parts.append(data)
    if sum(map(len, parts)) > MAX_HELD:
        raise Trouble(
            "too_large",
            f"a zip within an archive or a pipe of more than {MAX_HELD} bytes (MAX_HELD); save or unpack it first",
        )
    return io.BytesIO(b"".join(parts))


class _Plain(io.RawIOBase):
    # A file on disk without its bound of size, which seeking would confuse.
    def __init__(self, raw: Any) -> None:
        super().__init__()
        self._file = raw

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        if isinstance(self._file, DiskFile):
            return io.FileIO.readinto(self._file, buffer) or 0
        return int(self._file.readinto(buffer) or 0)


def _zip_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, outer: Place, budget: Budget
) -> Iterator[Entry | Problem]:
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        yield Problem(
            source=f"{outer.source}!{shown(info.filename)}",
            problem="unsafe_member",
            detail="a link or device; not followed",
        )
        return
    name, problem = _safe_name(info.filename, outer)
    if problem:
        yield problem
    if not name:
        return
    try:
        changed = datetime(*info.date_time, tzinfo=UTC).timestamp()
    except ValueError:
        changed = -1.0
    yield Entry(member_place(outer, name, info.file_size, changed), lambda: _Metered(archive.open(info), budget))


class _Metered(io.RawIOBase):
    # A zip's member, whose unfolding counts.
    def __init__(self, data: Any, budget: Budget) -> None:
        super().__init__()
        self._data, self._budget = data, budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._data.read(min(len(buffer), BLOCK))
        self._budget.add(len(data))
        buffer[: len(data)] = data
        return len(data)
