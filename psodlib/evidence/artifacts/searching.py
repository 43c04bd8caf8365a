"""Lines of a log that matter, found without a look at each: by words in them, or by bisection between two signs of life."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from psodlib.evidence.artifacts.findings import MAX_LINE, Life

Sign = tuple[int, int, int | None]  # where its line begins, microseconds since 1970, microseconds up
_ANSI = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
# A line that begins with a stamp of no moment between 1990 and 2200.
_ODD_STAMP = re.compile(
    rb"(?:\A|\n)(?!(?:199|20\d|21\d)\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)\d{4}-\d\d-\d\dT"
)


def bare(block: bytes) -> bytes:
    """A block without NULs and colours, which few have."""
    block = block.replace(b"\0", b"") if b"\0" in block else block
    return _ANSI.sub(b"", block) if b"\x1b" in block else block


def odd_stamps(block: bytes) -> bool:
    """Whether a line bears a stamp that cannot be: it is counted, so such a block is read line by line."""
    return _ODD_STAMP.search(block) is not None


def lines_with(finder: Any, block: bytes, number: int, searched: bytes | None = None) -> Iterator[tuple[int, str]]:
    """The lines of a block that hold a word, as (number, text); ``searched`` is the block in small letters, say."""
    counted, passed = 0, -1
    for _, at, _ in finder.find_matches_as_indexes(block if searched is None else searched):
        if at <= passed:
            continue
        begin, passed = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", at)
        passed = len(block) if passed < 0 else passed
        number, counted = number + block.count(b"\n", counted, begin), begin
        yield (
            number,
            block[begin : min(passed, begin + MAX_LINE)].decode("utf-8", "backslashreplace").removesuffix("\r"),
        )


def follow(block: bytes, number: int, life: Life, read: Callable[[bytes, int], Sign | None]) -> None:
    """Add a block's signs of life: its first, its last, and those between only where a stretch ends on the way.

    Each line is looked at once at the most, so stamps out of order cost no more than reading all of them.
    """
    first = _next(block, 0, len(block), read)
    if first is None:
        return
    _add(life, first, block, number)
    last = _last(block, first[0], read)
    todo = [last] if last is not None else []
    at = first[0]
    while todo:
        sign = todo[-1]
        middle = _between(block, at, sign[0], read) if life.breaks(*sign[1:]) else None
        if middle is not None:
            todo.append(middle)
            continue
        _add(life, todo.pop(), block, number)
        at = sign[0]


def _add(life: Life, sign: Sign, block: bytes, number: int) -> None:
    at, stamp, up = sign
    life.add(stamp, up, line=number + block.count(b"\n", 0, at) if life.breaks(stamp, up) else None)


def _next(block: bytes, at: int, end: int, read: Callable[[bytes, int], Sign | None]) -> Sign | None:
    while at < end:
        sign = read(block, at)
        if sign is not None:
            return sign
        at = block.find(b"\n", at, end) + 1 or end
    return None


def _last(block: bytes, after: int, read: Callable[[bytes, int], Sign | None]) -> Sign | None:
    end = len(block)
    while (at := block.rfind(b"\n", after, end) + 1) > after:
        sign = read(block, at)
        if sign is not None:
            return sign
        end = at - 1
    return None


def _between(block: bytes, begin: int, end: int, read: Callable[[bytes, int], Sign | None]) -> Sign | None:
    # From the middle, or else from the start.
    for origin in ((begin + end) // 2, begin):
        at = block.find(b"\n", origin, end) + 1
        sign = _next(block, at, end, read) if at else None
        if sign is not None:
            return sign
    return None
