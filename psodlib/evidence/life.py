"""Signs of life in the order of a log -> the stretches in which its host ran, with a look at few of its lines."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from psodlib.evidence.pieces import bounded
from psodlib.records import Alive

Sign = tuple[int, datetime, timedelta | None]  # where it stands, its moment, the uptime that it tells
Block = bytes | memoryview

_SILENCE = timedelta(hours=2)  # heartbeats come hourly: a longer silence is a gap
_SAME_BOOT = timedelta(minutes=2)  # boots derived from `stamp - up` closer than this are one
_MAX_UP = timedelta(days=73_000)  # an uptime beyond two centuries is none


@dataclass(slots=True)
class _Stretch:
    # An `Alive` as it grows.
    start: datetime
    end: datetime
    line: int | None
    boot: datetime | None = None
    vms: int | None = None


@dataclass(slots=True)
class Life:
    """The stretches of one log, merged while reading; a clock may go ``back`` a little without ending one."""

    source: str
    evidence: str
    back: timedelta = timedelta(0)
    _found: list[_Stretch] = field(default_factory=list)
    _up: timedelta | None = None

    @property
    def stretches(self) -> list[Alive]:
        """Those found so far."""
        about = {"evidence": self.evidence, "source": self.source}
        return [Alive(start=s.start, end=s.end, boot=s.boot, vms=s.vms, line=s.line, **about) for s in self._found]

    def add(
        self, stamp: datetime, up: timedelta | None = None, vms: int | None = None, line: int | None = None,
        runs_on: bool = False,
    ) -> None:  # fmt: skip
        """One sign of life: its stamp, the uptime and the number of VMs it tells, its line.
        ``runs_on`` where the signs before it were looked at elsewhere and end no stretch."""
        if not (runs_on and self._found) and self.breaks(stamp, up):
            self._found.append(_Stretch(stamp, stamp, line))
        last = self._found[-1]
        last.end, last.boot = max(last.end, stamp), last.boot or _boot_of(stamp, up)
        last.vms = last.vms if vms is None else vms
        self._up = up

    def breaks(self, stamp: datetime, up: timedelta | None = None) -> bool:
        """Whether a sign of life begins another stretch than the last one."""
        if not self._found:
            return True
        last, boot = self._found[-1], _boot_of(stamp, up)
        # A printed uptime that did not move is a copyist's, no reboot.
        same_boot = boot is None or last.boot is None or abs(boot - last.boot) <= _SAME_BOOT or up == self._up
        return not (same_boot and -self.back <= stamp - last.end <= _SILENCE)

    def follow(
        self, block: Block, pattern: re.Pattern[bytes], read: Callable[[re.Match[bytes]], Sign | None],
        first: Sign | None = None, line_of: Callable[[int], int] | None = None,
    ) -> None:  # fmt: skip
        """A block's signs of life: its first, its last, and those between only where a stretch ends on the way.

        ``read`` tells the sign of a place that shows the pattern. Stamps out of order cost no more than reading all lines.
        """

        def next_sign(begin: int, end: int) -> Sign | None:
            return next(filter(None, map(read, pattern.finditer(block, begin, end))), None)

        first = first or next_sign(0, len(block))
        todo = [_last_sign(block, pattern, read) or first, first] if first else []
        at = 0
        while todo:
            sign = todo[-1]
            breaks = self.breaks(*sign[1:])
            # One between them, from the middle if there is one there.
            origins = ((at + sign[0]) // 2, at + 1) if breaks and sign is not first else ()
            if middle := next(filter(None, (next_sign(origin, sign[0]) for origin in origins)), None):
                todo.append(middle)
                continue
            self.add(*sign[1:], line=line_of(sign[0]) if breaks and line_of else None)
            at = todo.pop()[0]


def _last_sign(block: Block, pattern: re.Pattern[bytes], read: Callable[[re.Match[bytes]], Sign | None]) -> Sign | None:
    for reach in (1 << 9, 1 << 13, 1 << 17, len(block)):
        shown = reversed(list(pattern.finditer(block, max(0, len(block) - reach))))
        if sign := next(filter(None, map(read, shown)), None):
            return sign
    return None


def _boot_of(stamp: datetime, up: timedelta | None) -> datetime | None:
    return None if up is None or up > _MAX_UP else bounded(stamp - up)
