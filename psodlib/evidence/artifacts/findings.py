"""What every reader of an artifact takes and gives: a part of a file with its line numbers, and a place for findings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, BinaryIO

from psodlib.evidence.versions import normalise
from psodlib.records import Alive, DriverReading, FileReading, HostFact, Mark, Module, Problem

SECOND = 1_000_000  # microseconds
_SILENCE = 2 * 3600 * SECOND  # heartbeats come hourly: a longer silence is a gap
_SAME_BOOT = 120 * SECOND  # boots derived from `stamp - up` closer than this are one
MAX_UP = 73_000 * 86_400 * SECOND  # an uptime beyond two centuries is none
MAX_LINE = 64 << 10  # characters of a line that are looked at
ISO_STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)"
STAMP_PARTS = r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)?"
_STAMP = re.compile(STAMP_PARTS, re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(slots=True)
class Part:
    """Lines of one output: (number in the file from 1, text), and the command that printed them, where it is known."""

    source: str
    lines: Iterable[tuple[int, str]]
    command: str = ""
    when: datetime | None = None  # when the output was taken
    raw: Iterable[tuple[int, bytes]] | None = None  # the same lines in blocks; a reader takes these or `lines`

    def blocks(self) -> Iterable[tuple[int, bytes]]:
        """Whole lines by the block, each with its first line's number: for a reader that searches instead of looking at
        each."""
        if self.raw is not None:
            return self.raw
        return ((number, text.encode("utf-8", "surrogateescape")) for number, text in self.lines)

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
    others: dict[str, Findings] = field(default_factory=dict)  # of hosts that rows name in a column
    understood: bool = False  # its lines are of the kind, even if they say nothing of interest
    bad_times: int = 0
    first_bad_time: int | None = None

    def of(self, host: str | None) -> Findings:
        """The findings of the host that a row names; these where it names none."""
        return self.others.setdefault(host, Findings(host=host)) if host else self

    def fact(self, part: Part, **told: Any) -> None:
        """What a part tells of the host itself."""
        self.facts.append(HostFact(**{"time": part.when, "source": part.source} | told))

    def driver(self, part: Part, line: int, module: str, version: str | None = None, **told: Any) -> None:
        """What a line tells of a driver, loaded where it does not say otherwise."""
        told = {"state": "loaded", "source": part.source} | told
        self.drivers.append(DriverReading(module=module, version=normalise(version, module), line=line, **told))

    def note_bad_time(self, line: int) -> None:
        """A line whose stamp cannot be, or bears no year: its sign of life is lost, and the file's problems say so."""
        self.bad_times += 1
        self.first_bad_time = self.first_bad_time or line

    def note_inventory(self, source: str) -> None:
        """Say that a table of hosts has more to give than evidence may take from it."""
        hosts = [host for host, found in self.others.items() if any(fact.host for fact in found.facts)]
        if hosts:
            detail = (
                f"an inventory of {len(hosts)} {'hosts' if len(hosts) > 1 else 'host'} among the evidence: versions, models and drivers in it are used; "
                "for its other columns (cluster, VMs) give it as the inventory"
            )
            self.problems.append(Problem(source=source, problem="unused", detail=detail))

    def __bool__(self) -> bool:
        return bool(self.alive or self.marks or self.drivers or self.modules or self.facts)

    def readings(self, source: str, kind: str, irrelevant: bool = False) -> list[FileReading]:
        """The findings as records, one a host. A kind that was recognised and gave nothing is no silence."""
        told = [self, *(found for _, found in sorted(self.others.items()))]
        given = [found.reading(source, kind) for found in told if found or found.problems or found.bad_times]
        if given:
            return given
        if irrelevant or self.understood:
            return [FileReading(source=source, kind=kind, host=self.host, irrelevant=True)]
        return [FileReading(source=source, kind=kind, host=self.host, problems=(nothing_in(source, kind),))]

    def reading(self, source: str, kind: str) -> FileReading:
        """One host's findings as the frozen record of one file."""
        if self.bad_times:
            detail = f"{self.bad_times} lines with a time that cannot be or without a year; not used as signs of life"
            self.problems.append(Problem(source=source, problem="bad_time", line=self.first_bad_time, detail=detail))
        return FileReading(
            source=source, kind=kind, host=self.host, alive=tuple(self.alive), marks=tuple(self.marks),
            drivers=tuple(dict.fromkeys(self.drivers)), modules=tuple(self.modules), facts=tuple(self.facts), problems=tuple(self.problems),
        )  # fmt: skip


def nothing_in(source: str, kind: str) -> Problem:
    """What to say of a file of a known kind from which nothing came."""
    detail = f"looks like {kind.replace('_', ' ')}, and nothing was found in it"
    return Problem(source=source, problem="unused", detail=detail)


class Life:
    """Signs of life in the order of a log -> ``Alive`` stretches, merged while reading. Times are whole microseconds."""

    def __init__(self, source: str, evidence: str) -> None:
        self._source, self._evidence = source, evidence
        self._start: int | None = None
        self._end = 0
        self._boot: int | None = None
        self._up: int | None = None
        self._vms: int | None = None
        self._line: int | None = None
        self.stretches: list[Alive] = []

    def add(
        self, stamp: int, up: int | None = None, vms: int | None = None, line: int | None = None, runs_on: bool = False
    ) -> None:
        """One sign of life: its stamp (microseconds since 1970), the uptime and the number of VMs it tells, its line.
        ``runs_on`` where the signs before it were looked at elsewhere and end no stretch."""
        boot = None if up is None or up > MAX_UP else stamp - up
        if not runs_on and self.breaks(stamp, up):
            self.close()
            self._start, self._boot, self._vms, self._line = stamp, boot, vms, line
        self._end, self._up = stamp, up
        if self._boot is None:
            self._boot = boot
        if vms is not None:
            self._vms = vms

    def breaks(self, stamp: int, up: int | None = None) -> bool:
        """Whether a sign of life begins another stretch than the one that is open."""
        boot = None if up is None or up > MAX_UP else stamp - up
        # A printed uptime that did not move is a copyist's, no reboot.
        return (
            self._start is None
            or not self._end <= stamp <= self._end + _SILENCE
            or not (boot is None or self._boot is None or abs(boot - self._boot) <= _SAME_BOOT or up == self._up)
        )

    def close(self) -> list[Alive]:
        """End the stretch that is open and give all."""
        if self._start is not None:
            boot = None if self._boot is None else bounded(moment_of(self._boot))
            self.stretches.append(
                Alive(
                    start=moment_of(self._start), end=moment_of(self._end), boot=boot, evidence=self._evidence, vms=self._vms,
                    source=self._source, line=self._line,
                )
            )  # fmt: skip
            self._start = None
        return self.stretches


def bounded(stamp: datetime) -> datetime | None:
    """The time itself, or None outside 1990..2200."""
    return stamp if 1990 <= stamp.year < 2200 else None


def moment_of(micros: int) -> datetime:
    """Microseconds since 1970 as aware UTC time."""
    return _EPOCH + timedelta(microseconds=micros)


@lru_cache(maxsize=1 << 12)
def _midnight(day: str) -> int | None:
    # A log says the same day thousands of times.
    try:
        found = date.fromisoformat(day)
    except ValueError:
        return None
    return (found - _EPOCH.date()).days * 86_400 * SECOND if 1990 <= found.year < 2200 else None


@lru_cache(maxsize=1 << 12)
def _clock(text: str) -> int | None:
    hour, minute, second = int(text[:2]), int(text[3:5]), int(text[6:])
    return (hour * 3600 + minute * 60 + second) * SECOND if hour < 24 and minute < 60 and second <= 60 else None


def stamp_micros(day: str, clock: str, fraction: str | None, zone: str | None) -> int | None:
    """The parts of an ISO stamp, as the groups of ``STAMP_PARTS`` give them, as microseconds since 1970."""
    start, passed = _midnight(day), _clock(clock)
    if start is None or passed is None:
        return None
    micros = start + passed
    if fraction:
        micros += int(fraction[:6].ljust(6, "0"))
    if zone and zone != "Z":
        ahead = (int(zone[1:3]) * 60 + int(zone[-2:])) * 60 * SECOND
        micros += ahead if zone[0] == "-" else -ahead
    return micros


def parse_micros(text: str) -> int | None:
    """ISO stamp at the start of a text as microseconds since 1970; None where there is none or it cannot be."""
    match = _STAMP.match(text)
    return None if match is None else stamp_micros(*match.groups())


def parse_stamp(text: str) -> datetime | None:
    """ISO stamp at the start of a text -> aware UTC time; no zone is UTC; None where there is none or it cannot be."""
    micros = parse_micros(text)
    return None if micros is None else moment_of(micros)


def line_counter(text: str, first: int) -> Callable[[int], int]:
    """A function that gives the line of a place in a text whose first line has that number; places come in order."""
    at, line = 0, first

    def line_of(place: int) -> int:
        nonlocal at, line
        line += text.count("\n", at, place)
        at = place
        return line

    return line_of


def numbered_blocks(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Whole lines of a binary stream by the block."""
    number, whole, rest = 1, None, b""
    while block := stream.read(256 << 10):
        end = block.rfind(b"\n")
        if end >= 0:
            if whole is not None:
                yield number, whole
                number += whole.count(b"\n") + 1
            whole, rest, block = rest + block[:end], b"", block[end + 1 :]
        rest = rest + block if len(rest) < MAX_LINE else rest
    last = [part for part in (whole, rest or None) if part is not None]
    if last:
        yield number, b"\n".join(last)


def numbered_lines(blocks: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, str]]:
    r"""Lines as (number, text): split on ``\n`` only, without NULs and colours, cut at 64 KiB."""
    for number, block in blocks:
        yield from enumerate(_decoded(block), number)


def _decoded(lines: bytes) -> list[str]:
    # Many lines at a time: what few of them need is done to none where the block does not hold it.
    text = lines.replace(b"\0", b"").decode("utf-8", "backslashreplace")
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    if "\r" in text:
        text = (text + "\n").replace("\r\n", "\n")[:-1]
    return [line if len(line) <= MAX_LINE else line[:MAX_LINE] for line in text.split("\n")]
