"""What every reader of an artifact takes and gives: a part of a file with its line numbers, and a place for findings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import BinaryIO

from psodlib.records import Alive, DriverReading, FileReading, HostFact, Mark, Module, Problem

__all__ = ["ISO_STAMP", "MAX_SILENCE", "Findings", "Life", "Part", "numbered_lines", "parse_stamp"]

MAX_SILENCE = timedelta(hours=2)  # heartbeats come hourly: a longer silence is a gap
SAME_BOOT = timedelta(minutes=2)  # boots derived from `stamp - up` closer than this are one
MAX_LINE = 64 << 10  # characters of a line that are looked at
ISO_STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)"
_STAMP = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)?")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(slots=True)
class Part:
    """Lines of one output: (number in the file from 1, text), and the command that printed them, where it is known."""

    source: str
    lines: Iterable[tuple[int, str]]
    command: str = ""
    when: datetime | None = None  # when the output was taken

    def text(self) -> str:
        """All lines in one."""
        return "\n".join(text for _, text in self.lines)


@dataclass(slots=True)
class Findings:
    """What a reader has found so far."""

    host: str | None = None
    alive: list[Alive] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    drivers: list[DriverReading] = field(default_factory=list)
    modules: list[Module] = field(default_factory=list)
    facts: list[HostFact] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.alive or self.marks or self.drivers or self.modules or self.facts)

    def reading(self, source: str, kind: str) -> FileReading:
        """The findings as the frozen record of one file."""
        return FileReading(
            source=source, kind=kind, host=self.host, alive=tuple(self.alive), marks=tuple(self.marks),
            drivers=tuple(self.drivers), modules=tuple(self.modules), facts=tuple(self.facts), problems=tuple(self.problems),
        )  # fmt: skip


class Life:
    """Signs of life in the order of a log -> ``Alive`` stretches, merged while reading."""

    def __init__(self, source: str, evidence: str) -> None:
        self._source, self._evidence = source, evidence
        self._open: Alive | None = None
        self._up: timedelta | None = None
        self.stretches: list[Alive] = []

    def add(
        self, stamp: datetime, up: timedelta | None = None, vms: int | None = None, line: int | None = None
    ) -> None:
        """One sign of life: its stamp, the uptime and the number of VMs it tells, its line."""
        boot = _derived_boot(stamp, up)
        now = self._open
        if now is not None and self._continues(now, stamp, up, boot):
            self._open = Alive(
                start=now.start, end=stamp, boot=now.boot or boot, evidence=now.evidence, source=now.source, line=now.line,
                vms=now.vms if vms is None else vms,
            )  # fmt: skip
        else:
            self.close()
            self._open = Alive(
                start=stamp, end=stamp, boot=boot, evidence=self._evidence, vms=vms, source=self._source, line=line
            )
        self._up = up

    def _continues(self, now: Alive, stamp: datetime, up: timedelta | None, boot: datetime | None) -> bool:
        if not now.end <= stamp <= now.end + MAX_SILENCE:
            return False
        # A printed uptime that did not move is a copyist's, no reboot.
        return boot is None or now.boot is None or abs(boot - now.boot) <= SAME_BOOT or up == self._up

    def close(self) -> list[Alive]:
        """End the stretch that is open and give all."""
        if self._open is not None:
            self.stretches.append(self._open)
            self._open = None
        return self.stretches


def _derived_boot(stamp: datetime, up: timedelta | None) -> datetime | None:
    return None if up is None or up > timedelta(days=73_000) else bounded(stamp - up)


def bounded(stamp: datetime) -> datetime | None:
    """The time itself, or None outside 1990..2200."""
    return stamp if 1990 <= stamp.year < 2200 else None


def parse_stamp(text: str) -> datetime | None:
    """ISO stamp at the start of a text -> aware UTC time; no zone is UTC; None where there is none or it cannot be.

    Parameters
    ----------
    text : str
        E.g. ``2014-05-31T15:57:32.579Z cpu14:...``.

    Returns
    -------
    datetime or None
        Microseconds; further digits are cut.
    """
    match = _STAMP.match(text)
    if match is None:
        return None
    zone = match[8]
    try:
        offset = (
            UTC
            if zone in (None, "Z")
            else timezone((1 if zone[0] == "+" else -1) * timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:])))
        )
        fraction = int((match[7] or "0")[:6].ljust(6, "0"))
        year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
        stamp = datetime(year, month, day, hour, minute, min(second, 59), fraction, offset)
        return bounded(stamp.astimezone(UTC))
    except (ValueError, OverflowError):
        return None


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """Lines of a binary stream as (number from 1, text): split on ``\\n`` only, without NULs and colours, cut at 64 KiB.

    Parameters
    ----------
    stream : BinaryIO
        Read in blocks, so a line of any length costs no memory.

    Yields
    ------
    tuple of int and str
        Bytes that are no UTF-8 come as backslash escapes.
    """
    number, rest = 1, b""
    while block := stream.read(256 << 10):
        *lines, tail = block.split(b"\n")
        for line in lines:
            yield number, _decoded(rest + line if rest else line)
            number, rest = number + 1, b""
        rest = rest + tail if len(rest) < MAX_LINE else rest
    if rest:
        yield number, _decoded(rest)


def _decoded(line: bytes) -> str:
    text = line[:MAX_LINE].replace(b"\0", b"").decode("utf-8", "backslashreplace")
    text = text[:-1] if text.endswith("\r") else text
    return _ANSI.sub("", text) if "\x1b" in text else text
