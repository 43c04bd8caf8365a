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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from psodlib.evidence.streams import BLOCK, HASHED, Stream

MAX_HEADER = 4 << 20  # bytes of one member's long name or other additions
FIRST_BUFFER = 4 << 20
_CHECKSUM = re.compile(rb" *[0-7]{1,7}[ \0]*")
_RECORD = re.compile(rb"(\d{1,10}) ([^=\n]{1,200})=")
_FILES, _LINKS, _ADDITIONS = b"0\x007", b"12", b"xgXLK"
_WITHOUT_BYTES = b"123456"  # links, devices, folders and pipes


class Member(NamedTuple):
    """A file: its bytes as one slice, good until the next member is drawn, or by the block where it is large or cut."""

    name: str
    size: int
    changed: float
    whole: memoryview | None
    pieces: Iterator[memoryview]


class Odd(NamedTuple):
    """What is not read: a problem's word, or "link" or "device", with what to tell of it."""

    what: str
    name: str
    detail: str = ""


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
        self._at = self._end = 0
        self.cut = False  # the stream ended within a member

    def take(self, size: int) -> memoryview:
        """So many bytes, fewer at the end."""
        if self._end - self._at < size:
            self._fill(size)
        piece = self._view[self._at : min(self._end, self._at + size)]
        self._at += len(piece)
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


class _Pieces:
    # A large member by the block; an end before its time raises.
    def __init__(self, window: _Window, size: int) -> None:
        self._window, self.left = window, size

    def __iter__(self) -> _Pieces:
        return self

    def __next__(self) -> memoryview:
        if not self.left:
            raise StopIteration
        piece = self._window.take(min(self.left, BLOCK))
        if not piece:
            raise EOFError
        self.left -= len(piece)
        return piece


def is_header(block: bytes) -> bool:
    """Whether 512 bytes are a member's header: their checksum says so."""
    stated = block[148:156]
    if len(block) < 512 or not block[0] or not _CHECKSUM.fullmatch(stated):
        return False
    total, said = sum(block[:512]) - sum(stated) + 256, int(stated.strip(b" \0"), 8)
    return said == total or said == total - 256 * sum(
        byte > 127 for byte in block[:512]
    )  # old tars summed signed bytes


def members_of(stream: Stream) -> Iterator[Member | Odd]:
    """The members of a tar in their order."""
    window = _Window(stream)
    own: dict[str, bytes] = {}
    common: dict[str, bytes] = {}
    lost = False
    while len(block := bytes(window.take(512))) == 512:
        if is_header(block):
            header, lost = _parsed(block), False
            if header.kind in _ADDITIONS:
                yield from _read_addition(window, header, common if header.kind == b"g" else own)
            else:
                yield from _complete(header, common | own)
                yield from _member(window, header)
                own = {}
        elif not lost:
            if not block.strip(b"\0"):
                return
            yield Odd("damaged_archive", "", "bytes that are no member's header; read on from the next that is one")
            lost = True
    if (block or window.cut) and not stream.problems:
        yield Odd("truncated", "", "the archive is truncated; what came before is used")


def _member(window: _Window, header: _Header) -> Iterator[Member | Odd]:
    name, size = header.name, 0 if header.kind in _WITHOUT_BYTES else header.size
    while header.extended and len(block := window.take(512)) == 512:
        header.extended = bool(block[504])
    if header.kind in _LINKS:
        # A link brings no bytes of its own; one that stays inside points at a member that is read in its own right.
        base = posixpath.dirname(name) if header.kind == b"2" else ""
        if posixpath.normpath(posixpath.join(base, header.link)).startswith(("/", "..")):
            yield Odd("link", f"{name} -> {header.link}")
    elif header.kind not in _FILES and header.kind != b"5":
        yield Odd("device", name)
    if header.kind not in _FILES:
        window.skip(size)
    elif size > HASHED:
        pieces = _Pieces(window, size)
        yield Member(name, size, header.changed, None, pieces)
        window.skip(pieces.left)
    else:
        whole = window.take(size)
        window.cut = len(whole) < size
        yield Member(
            name, size, header.changed, None if window.cut else whole, _cut(whole) if window.cut else iter((whole,))
        )
    window.skip(-size % 512)


def _cut(piece: memoryview) -> Iterator[memoryview]:
    if piece:
        yield piece
    raise EOFError


# --- headers ----------------------------------------------------------------------------------------------------------


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


def _read_addition(window: _Window, header: _Header, into: dict[str, bytes]) -> Iterator[Odd]:
    # A long name, or pax records, for the member that comes next.
    if header.size > MAX_HEADER:
        detail = f"a member's header has more than {MAX_HEADER} bytes (MAX_HEADER); that header is not read"
        yield Odd("too_large", "", detail)
        window.skip(header.size + -header.size % 512)
        return
    data = bytes(window.take(header.size))
    window.skip(-header.size % 512)
    if header.kind in b"LK":
        into["path" if header.kind == b"L" else "linkpath"] = data
        return
    at = 0
    while match := _RECORD.match(data, at):
        end = at + int(match[1])
        if not match.end() < end <= len(data):
            break
        into[match[2].decode("utf-8", "replace")] = data[match.end() : end - 1]
        at = end


def _complete(header: _Header, more: dict[str, bytes]) -> Iterator[Odd]:
    # What was said before a member's own header goes before it.
    header.name = (_text(more.get("path", b"")) or header.name).rstrip("/")
    header.link = _text(more.get("linkpath", b"")) or header.link
    if "mtime" in more:
        header.changed = _decimal(more["mtime"])
    if "size" in more:
        size = _decimal(more["size"])
        if size < 0:
            yield Odd("damaged_archive", header.name, "a size that cannot be; the one of its short header is taken")
        else:
            header.size = int(size)
    if any(key.startswith("GNU.sparse.") for key in more):
        header.kind = b"S"


def _decimal(field: bytes) -> float:
    # -1 for what is no number of bytes or seconds; a float holds every size that there is.
    try:
        value = float(field)
    except ValueError:
        return -1.0
    return value if 0 <= value < 1 << 60 else -1.0
