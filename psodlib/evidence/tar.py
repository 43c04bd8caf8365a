"""A tar stream -> its members, by an own walk over one buffer that is used again: a member is a slice of it, not a copy.

What is wrong with one member costs that member. `tarfile` ends at the first odd header, and its small reads take a third of
a second for 2,500 members.

References
----------
POSIX.1-2017, pax; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from psodlib.evidence.places import shown
from psodlib.evidence.streams import BLOCK, HASHED, Stream, diagnose, noted
from psodlib.records import Problem

MAX_HEADER = 4 << 20  # bytes of one member's long name or other additions
FIRST_BUFFER = 4 << 20
_CHECKSUM = re.compile(rb" *[0-7]{1,7}[ \0]*")
_RECORD = re.compile(rb"(\d{1,10}) ([^=\n]{1,200})=")
_FILES, _LINKS, _ADDITIONS = b"0\x007", b"12", b"xgXLK"
_WITHOUT_BYTES = b"123456"  # links, devices, folders and pipes


class Member(NamedTuple):
    """A file of an archive; of a tar, its bytes are good until the next member is drawn."""

    name: str
    size: int
    changed: float
    opener: Callable[[], Any]  # blocks of its bytes
    whole: memoryview | None = None  # all of them, where they lie in memory


class _Odd(NamedTuple):
    kind: str
    name: str


@dataclass(slots=True)
class _Header:
    name: str
    size: int
    changed: float
    kind: bytes
    link: str
    extended: bool  # more headers of an old sparse file follow


class _Window:
    # A stream's next bytes in one piece.
    def __init__(self, stream: Stream) -> None:
        self._stream, self._view = stream, memoryview(bytearray(FIRST_BUFFER))
        self._at = self._end = self.taken = 0
        self.cut = False  # the stream ended within a member

    def take(self, size: int) -> memoryview:
        """So many bytes, fewer at the end."""
        if self._end - self._at < size:
            self._fill(size)
        piece = self._view[self._at : min(self._end, self._at + size)]
        self._at += len(piece)
        self.taken += len(piece)
        return piece

    def _fill(self, size: int) -> None:
        if self._at + size > len(self._view):
            rest = bytes(self._view[self._at : self._end])
            if size > len(self._view):
                self._view = memoryview(bytearray(size + BLOCK))
            self._view[: len(rest)] = rest
            self._at, self._end = 0, len(rest)
        while self._end - self._at < size and (got := self._stream.readinto(self._view[self._end :])):
            self._end += got

    def skip(self, size: int) -> None:
        while size > 0 and (piece := self.take(min(size, BLOCK))):
            size -= len(piece)
        self.cut = self.cut or size > 0

    def blocks(self, first: memoryview, size: int) -> Iterator[memoryview]:
        """A member by the block; an end before its time raises."""
        while first:
            yield first
            size -= len(first)
            first = self.take(min(size, BLOCK))
        if size:
            raise EOFError


def is_header(block: bytes) -> bool:
    """Whether 512 bytes are a member's header: their checksum says so."""
    stated = block[148:156]
    if len(block) < 512 or not block[0] or not _CHECKSUM.fullmatch(stated):
        return False
    total, said = sum(block[:512]) - sum(stated) + 256, int(stated.strip(b" \0"), 8)
    # old tars summed signed bytes
    return said == total or said == total - 256 * sum(byte > 127 for byte in block[:512])


def members_of(stream: Stream, source: str, most: int) -> Iterator[Member | Problem]:
    """The members of a tar in their order, up to ``most``, and what is wrong with any."""
    odd: dict[str, list[str]] = {}
    for count, found in enumerate(_walk(_Window(stream), stream, source), 1):
        if count > most:
            yield noted(source, "too_large", f"more than {most} members (PSOD_MAX_MEMBERS); the rest is not read")
            break
        if isinstance(found, _Odd):
            odd.setdefault(found.kind, []).append(found.name)
        else:
            yield found
    for kind, names in odd.items():
        yield noted(source, "unsafe_member", f"{len(names)} {kind}, not followed; the first: {shown(names[0])}")


def _walk(window: _Window, stream: Stream, source: str) -> Iterator[Member | Problem | _Odd]:
    own: dict[str, bytes] = {}
    common: dict[str, bytes] = {}
    lost = False
    while len(block := bytes(window.take(512))) == 512:
        if is_header(block):
            header, lost = _parsed(block), False
            if header.kind in _ADDITIONS:
                yield from _read_addition(window, header, common if header.kind == b"g" else own, source)
            else:
                yield from _complete(header, common | own, source)
                yield from _member(window, header)
                own = {}
        elif not lost:
            if not block.strip(b"\0"):
                return
            detail = "bytes that are no member's header; read on from the next that is one"
            yield noted(source, "damaged_archive", detail)
            lost = True
    if (block or window.cut) and not stream.problems:
        yield diagnose(EOFError(), source)


def _member(window: _Window, header: _Header) -> Iterator[Member | _Odd]:
    name, size = header.name, 0 if header.kind in _WITHOUT_BYTES else header.size
    while header.extended and len(block := window.take(512)) == 512:
        header.extended = bool(block[504])
    if header.kind in _LINKS:
        # A link brings no bytes of its own; one that stays inside points at a member that is read in its own right.
        base = posixpath.dirname(name) if header.kind == b"2" else ""
        if posixpath.normpath(posixpath.join(base, header.link)).startswith(("/", "..")):
            yield _Odd("links that leave the archive", f"{name} -> {header.link}")
    elif header.kind not in _FILES and header.kind != b"5":
        yield _Odd("devices, pipes or sparse files", name)
    end = window.taken + size
    if header.kind in _FILES:
        first = window.take(size if size <= HASHED else BLOCK)
        whole = first if len(first) == size else None
        yield Member(name, size, header.changed, partial(window.blocks, first, size), whole)
    window.skip(end - window.taken)
    window.skip(-size % 512)


def _parsed(block: bytes) -> _Header:
    name, kind = _text(block[:100]), block[156:157]
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    if kind == b"\0" and name.endswith("/"):
        kind = b"5"
    size, changed, link = max(0, _number(block[124:136])), _number(block[136:148]), _text(block[157:257])
    return _Header(name, size, changed, kind, link, kind == b"S" and bool(block[482]))


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    if field[0] in (0x80, 0xFF):  # GNU's way for what eleven octal digits cannot hold
        return int.from_bytes(field[1:], "big") - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        return 0


def _read_addition(window: _Window, header: _Header, into: dict[str, bytes], source: str) -> Iterator[Problem]:
    # A long name, or pax records, for the member that comes next.
    if header.size > MAX_HEADER:
        detail = f"a member's header has more than {MAX_HEADER} bytes (MAX_HEADER); that header is not read"
        yield noted(source, "too_large", detail)
        window.skip(header.size + -header.size % 512)
        return
    data, at = bytes(window.take(header.size)), 0
    window.skip(-header.size % 512)
    if header.kind in b"LK":
        into["path" if header.kind == b"L" else "linkpath"] = data
        return
    while (match := _RECORD.match(data, at)) and match.end() < at + int(match[1]) <= len(data):
        at += int(match[1])
        into[match[2].decode("utf-8", "replace")] = data[match.end() : at - 1]


def _complete(header: _Header, more: dict[str, bytes], source: str) -> Iterator[Problem]:
    # What was said before a member's own header goes before it.
    header.name = (_text(more.get("path", b"")) or header.name).rstrip("/")
    header.link = _text(more.get("linkpath", b"")) or header.link
    if "mtime" in more:
        header.changed = _decimal(more["mtime"])
    if "size" in more and (size := _decimal(more["size"])) >= 0:
        header.size = int(size)
    elif "size" in more:
        place = f"{source}!{shown(header.name)}" if header.name else source
        detail = "a size that cannot be; the one of its short header is taken"
        yield noted(place, "damaged_archive", detail)
    if any(key.startswith("GNU.sparse.") for key in more):
        header.kind = b"S"


def _decimal(field: bytes) -> float:
    # -1 for what is no number of bytes or seconds; a float holds every size that there is.
    try:
        value = float(field)
    except ValueError:
        return -1.0
    return value if 0 <= value < 1 << 60 else -1.0
