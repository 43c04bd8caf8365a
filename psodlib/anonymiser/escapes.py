"""Text without its escapes (a link's %2d, JSON's \\u002d and \\/, a page's &amp;), and where each of its bytes came from."""

from __future__ import annotations

import html
import re

ROUNDS = 3  # escapes in one another: %2520
ESCAPED_REACH = 2 << 10  # bytes of an escaped word on either side of an escape
ESCAPE = re.compile(rb"%[0-9a-f]{2}|\\u[0-9a-f]{4}|\\x[0-9a-f]{2}|\\/|&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z]{2,8});")
_BREAK = re.compile(rb"[\s\"'<>]")


def unescaped(data: bytes) -> tuple[bytes, list[int]]:
    """The text without escapes, and for each of its bytes where it came from (one more for the end)."""
    origin = list(range(len(data) + 1))
    for _ in range(ROUNDS):
        out, places, at = bytearray(), list[int](), 0
        for match in ESCAPE.finditer(data.lower()):
            raw = data[match.start() : match.end()]
            if (made := _meaning(raw)) == raw:
                continue  # `&web01;` is no escape
            out += data[at : match.start()] + made
            places += [*range(at, match.start()), *[match.start()] * len(made)]
            at = match.end()
        if not at:
            break
        places += range(at, len(data) + 1)
        data, origin = bytes(out + data[at:]), [origin[place] for place in places]
    return data, origin


def word_around(low: bytes, at: int, end: int, floor: int) -> tuple[int, int]:
    """The word that holds an escape: to the next blank, quote or angle bracket on either side."""
    floor = max(floor, at - ESCAPED_REACH)
    begin = max(low.rfind(mark, floor, at) + 1 for mark in (b" ", b"\n", b"\t", b"\r", b'"', b"'", b"<", b">"))
    stop = _BREAK.search(low, end, end + ESCAPED_REACH)
    return max(begin, floor), stop.start() if stop else min(len(low), end + ESCAPED_REACH)


def _meaning(escape: bytes) -> bytes:
    if escape.startswith(b"%"):
        return bytes([int(escape[1:], 16)])
    if escape.startswith(b"&"):
        return html.unescape(escape.decode("ascii")).encode("utf-8", "surrogatepass")
    return b"/" if escape == b"\\/" else chr(int(escape[2:], 16)).encode("utf-8", "surrogatepass")
