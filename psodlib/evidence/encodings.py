"""Bytes of text in the encodings that Windows tools write -> UTF-8: by mark, without one, and begun in the middle of a file."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain

import numpy as np

from psodlib.evidence.streams import BLOCK, Stream

LOOK = 4096  # bytes that tell an encoding
MAX_HELD = 1 << 20  # bytes of a line that wait for its end
_MARKS = (b"\xff\xfe", b"\xfe\xff")
# PowerShell's `>>` goes on in UTF-16 whatever a file began with. Four characters of it are no accident.
_APPENDED = re.compile(rb"(?:\xff\xfe)?(?:[\t\n\r -~]\0){4,}")


def encoding_of(head: bytes) -> str | None:
    """How a whole text is encoded, if not in ASCII or UTF-8. A mark of UTF-16 counts only where every other byte is zero."""
    look = head[:LOOK]
    if look.startswith(b"\xef\xbb\xbf"):
        return "utf-8-sig"
    # four bytes a letter, of which two or three are zero in every one
    low, high = any(look[4::4]), any(look[7::4])
    if len(look) >= 16 and not any(look[5::4] + look[6::4]) and low != high:
        return "utf-32" if look.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")) else "utf-32-le" if low else "utf-32-be"
    text = _without_mark(look)
    even, odd = text[::2], text[1::2]
    little, big = odd.count(0), even.count(0)
    if len(odd) < 2 or min(little, big) * 4 > max(little, big) or 2 * max(little, big) < len(odd):
        return None
    begin = text[1 if little > big else 0 : 16 : 2]
    if 2 * begin.count(0) < len(begin):  # it begins in single bytes and was appended to
        return None
    return "utf-16" if len(text) < len(look) else "utf-16-le" if little > big else "utf-16-be"


def decoded(data: bytes, otherwise: str = "utf-8") -> str:
    """A small file as text; ``otherwise`` is how single bytes are read that are no UTF-8."""
    encoding = encoding_of(data)
    if encoding is None:
        data = _plain(_without_mark(data))
        with suppress(UnicodeDecodeError):
            return data.decode()
        return data.decode(otherwise, "backslashreplace")
    return data.decode(encoding, "replace")


def _without_mark(data: bytes) -> bytes:
    return data[2:] if data[:2] in _MARKS else data


def _plain(data: bytes) -> bytes:
    # UTF-16 within a text of single bytes.
    return _APPENDED.sub(lambda match: match[0].removeprefix(b"\xff\xfe")[::2], data) if b"\0" in data else data


class Recoded:
    """A text in any of these encodings, as UTF-8, to be read as a file is; of nearly all texts that is what stands there."""

    def __init__(self, stream: Stream, encoding: str | None) -> None:
        self._stream, self._at_start, self._rest = stream, True, None
        if encoding is not None:
            texts = codecs.iterdecode(iter(partial(stream.read, BLOCK), b""), encoding, "replace")
            self._rest = Stream((text.encode("utf-8", "backslashreplace") for text in texts), stream.source)

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``; 0 at the end."""
        if self._rest is None:
            got = self._stream.readinto(view)
            if not self._is_mixed(view[:got]):
                return got
        return self._rest.readinto(view) if self._rest else 0

    def read(self, size: int) -> bytes:
        """The next bytes, up to ``size``."""
        if self._rest is None:
            data = self._stream.read(size)
            if not self._is_mixed(data):
                return data
        return self._rest.read(size) if self._rest else b""

    def _is_mixed(self, data: bytes | memoryview) -> bool:
        # With single bytes and others in it, or a mark that says nothing: then the rest comes another way.
        marked, self._at_start = self._at_start and bytes(data[:2]) in _MARKS, False
        if not marked and (not data or np.frombuffer(data, np.uint8).min()):
            return False
        blocks = chain([_without_mark(bytes(data))], iter(partial(self._stream.read, BLOCK), b""))
        self._rest = Stream(_unmixed(blocks), self._stream.source)
        return True


def _unmixed(blocks: Iterable[bytes]) -> Iterator[bytes]:
    held = b""
    for data in blocks:
        if held or b"\0" in data:
            data = held + data
            # A run of UTF-16 may go on in the next block, but a line's end ends both.
            cut = data.rfind(b"\n") + 1
            cut = len(data) if len(data) - cut > MAX_HELD else cut + data.startswith(b"\0", cut)
            data, held = _plain(data[:cut]), data[cut:]
        yield data
    yield _plain(held)
