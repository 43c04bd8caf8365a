"""Bytes of text in the encodings that Windows tools write -> UTF-8: by mark, without one, and begun in the middle of a file."""

from __future__ import annotations

import codecs
import io
import re
from typing import Any, BinaryIO

__all__ = ["Recoded", "decoded", "encoding_of"]

LOOK = 4096  # bytes that tell an encoding
MAX_HELD = 1 << 20  # bytes of a line that wait for its end
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
# PowerShell's `>>` goes on in UTF-16 whatever a file began with. Four characters of it are no accident.
_APPENDED = re.compile(rb"(?:\xff\xfe)?(?:[\t\n\r -~]\0){4,}")


def encoding_of(head: bytes) -> str | None:
    """How a whole text is encoded, if not in ASCII or UTF-8. A mark of UTF-16 counts only where every other byte is zero."""
    look = head[:LOOK]
    mark, named = next(((mark, name) for mark, name in _MARKS if look.startswith(mark)), (b"", None))
    if named == "utf-8-sig":
        return named
    even, odd = look[len(mark) :: 2], look[len(mark) + 1 :: 2]
    little, big = odd.count(0), even.count(0)
    if len(odd) < 2 or min(little, big) * 4 > max(little, big) or 2 * max(little, big) < len(odd):
        return None
    zero_at = 1 if little > big else 0
    begin = look[len(mark) : len(mark) + 16]
    if 2 * begin[zero_at::2].count(0) < len(begin[zero_at::2]):  # it begins in single bytes and was appended to
        return None
    return named or ("utf-16-le" if zero_at else "utf-16-be")


def decoded(data: bytes) -> str:
    """A small file as text."""
    encoding = encoding_of(data)
    if encoding is None:
        return _plain(_without_mark(data)).decode("utf-8", "backslashreplace")
    return data.decode(encoding, "replace")


def _without_mark(data: bytes) -> bytes:
    return data[2:] if data[:2] in (b"\xff\xfe", b"\xfe\xff") else data


def _plain(data: bytes) -> bytes:
    # UTF-16 within a text of single bytes.
    return _APPENDED.sub(lambda match: match[0].removeprefix(b"\xff\xfe")[::2], data) if b"\0" in data else data


class Recoded(io.RawIOBase):
    """A stream of text in any of these encodings, as UTF-8."""

    def __init__(self, raw: BinaryIO, encoding: str | None) -> None:
        super().__init__()
        self._raw, self._ready, self._held = raw, b"", b""
        self._decoder = codecs.getincrementaldecoder(encoding)("replace") if encoding else None
        self._at_start = True

    def readable(self) -> bool:
        """Always."""
        return True

    def _next(self, data: bytes) -> bytes:
        if self._decoder is not None:
            return self._decoder.decode(data, not data).encode("utf-8", "backslashreplace")
        if self._at_start:
            data, self._at_start = _without_mark(data), False
        if not self._held and b"\0" not in data:
            return data
        data = self._held + data
        # A run of UTF-16 may go on in the next block, but a line's end ends both.
        cut = data.rfind(b"\n") + 1
        cut = len(data) if len(data) - cut > MAX_HELD else cut + data.startswith(b"\0", cut)
        self._held = data[cut:]
        return _plain(data[:cut])

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; what needs no change goes straight through."""
        if self._decoder is None and not (self._ready or self._held or self._at_start):
            got = int(self._raw.readinto(buffer) or 0)  # type: ignore[attr-defined]
            if b"\0" not in (data := bytes(buffer[:got])):
                return got
            self._ready = self._next(data)
        while not self._ready:
            data = self._raw.read(256 << 10) or b""
            if not data:
                self._ready = _plain(self._held) if self._decoder is None else self._next(b"")
                self._held = b""
                break
            self._ready = self._next(data)
        got = min(len(buffer), len(self._ready))
        buffer[:got], self._ready = self._ready[:got], self._ready[got:]
        return got
