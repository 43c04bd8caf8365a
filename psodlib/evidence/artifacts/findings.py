"""What every reader of an artifact takes and gives: a part of a file with its line numbers, and a place for findings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

from psodlib.evidence.streams import noted
from psodlib.evidence.versions import module_of_vib, normalise
from psodlib.records import Alive, DriverReading, FileReading, HostFact, Mark, Module, Problem

SECOND = 1_000_000  # microseconds
_SILENCE = 2 * 3600 * SECOND  # heartbeats come hourly: a longer silence is a gap
_SAME_BOOT = 120 * SECOND  # boots derived from `stamp - up` closer than this are one
MAX_UP = 73_000 * 86_400 * SECOND  # an uptime beyond two centuries is none
MAX_LINE = 64 << 10  # characters of a line that are looked at
ISO_STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)"
ANY_STAMP = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_STAMP = re.compile(ANY_STAMP, re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
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
        """Whole lines by the block, with the number of the first: for a reader that searches and looks at few."""
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
        """What a part tells of the host itself, its name among other things."""
        self.host = self.host or told.get("host")
        self.facts.append(HostFact(**{"time": part.when, "source": part.source} | told))

    def driver(self, part: Part, line: int, module: str, version: str | None = None, **told: Any) -> None:
        """What a line tells of a driver, loaded where it does not say otherwise."""
        told = {"state": "loaded", "source": part.source} | told
        self.drivers.append(DriverReading(module=module, version=normalise(version, module), line=line, **told))

    def vib(self, part: Part, line: int, name: str, version: str | None = None, vib: str = "", **told: Any) -> None:
        """What a line tells of a VIB by its name and version, or by its full ID alone
        (``Hewlett-Packard_bootbank_scsi-hpsa_5.5.0.58-1OEM...``); nothing for a name that is no VIB's."""
        vib = vib or name
        if version is None:
            name, version = name.split("_", 2)[2].rsplit("_", 1)
        if module := module_of_vib(name):
            self.driver(part, line, module, version, **{"state": "installed", "vib": vib} | told)

    def note_bad_time(self, line: int) -> None:
        """A line whose stamp cannot be, or bears no year: its sign of life is lost, and the file's problems say so."""
        self.bad_times += 1
        self.first_bad_time = self.first_bad_time or line

    def note_inventory(self, source: str) -> None:
        """Say that a table of hosts has more to give than evidence may take from it."""
        if count := sum(any(fact.host for fact in found.facts) for found in self.others.values()):
            detail = (
                f"an inventory of {count} {'hosts' if count > 1 else 'host'} among the evidence: versions, models and drivers in it are used; "
                "for its other columns (cluster, VMs) give it as the inventory"
            )
            self.problems.append(noted(source, "unused", detail))

    def __bool__(self) -> bool:
        return bool(self.alive or self.marks or self.drivers or self.modules or self.facts)

    def readings(self, source: str, kind: str, irrelevant: bool = False) -> list[FileReading]:
        """The findings as records, one a host. A kind that was recognised and gave nothing is no silence."""
        told = [self, *(found for _, found in sorted(self.others.items()))]
        given = [found.reading(source, kind) for found in told if found or found.problems or found.bad_times]
        if given or irrelevant or self.understood:
            return given or [FileReading(source=source, kind=kind, host=self.host, irrelevant=True)]
        unused = noted(source, "unused", f"looks like {kind.replace('_', ' ')}, and nothing was found in it")
        return [FileReading(source=source, kind=kind, host=self.host, problems=(unused,))]

    def reading(self, source: str, kind: str) -> FileReading:
        """One host's findings as the frozen record of one file."""
        if self.bad_times:
            detail = f"{self.bad_times} lines with a time that cannot be or without a year; not used as signs of life"
            self.problems.append(noted(source, "bad_time", detail, self.first_bad_time))
        return FileReading(
            source=source, kind=kind, host=self.host, alive=tuple(self.alive), marks=tuple(self.marks),
            drivers=tuple(dict.fromkeys(self.drivers)), modules=tuple(self.modules), facts=tuple(self.facts), problems=tuple(self.problems),
        )  # fmt: skip


@dataclass(slots=True)
class Life:
    """Signs of life in the order of a log -> ``Alive`` stretches, merged while reading. Times are whole microseconds."""

    source: str
    evidence: str
    stretches: list[Alive] = field(default_factory=list)
    _start: int | None = None
    _end: int = 0
    _boot: int | None = None
    _up: int | None = None
    _vms: int | None = None
    _line: int | None = None

    def add(
        self, stamp: int, up: int | None = None, vms: int | None = None, line: int | None = None, runs_on: bool = False
    ) -> None:
        """One sign of life: its stamp (microseconds since 1970), the uptime and the number of VMs it tells, its line.
        ``runs_on`` where the signs before it were looked at elsewhere and end no stretch."""
        boot = _boot_of(stamp, up)
        if not runs_on and self.breaks(stamp, up):
            self.close()
            self._start, self._boot, self._vms, self._line = stamp, boot, vms, line
        self._end, self._up = stamp, up
        self._boot = boot if self._boot is None else self._boot
        self._vms = self._vms if vms is None else vms

    def breaks(self, stamp: int, up: int | None = None) -> bool:
        """Whether a sign of life begins another stretch than the one that is open."""
        boot = _boot_of(stamp, up)
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
            self.stretches.append(Alive(
                start=moment_of(self._start), end=moment_of(self._end), boot=boot, evidence=self.evidence, vms=self._vms,
                source=self.source, line=self._line,
            ))  # fmt: skip
            self._start = None
        return self.stretches


def _boot_of(stamp: int, up: int | None) -> int | None:
    return None if up is None or up > MAX_UP else stamp - up


def bounded(stamp: datetime) -> datetime | None:
    """The time itself, or None outside 1990..2200."""
    return stamp if 1990 <= stamp.year < 2200 else None


def moment_of(micros: int) -> datetime:
    """Microseconds since 1970 as aware UTC time."""
    return _EPOCH + timedelta(microseconds=micros)


def parse_micros(text: str) -> int | None:
    """ISO stamp at the start of a text as microseconds since 1970; no zone is UTC; None where there is none or it cannot be."""
    match = _STAMP.match(text)
    if match is None:
        return None
    leap = text[17:19] == "60"  # a leap second is the next minute's first
    try:
        moment = datetime.fromisoformat(f"{text[:17]}59{match[0][19:]}" if leap else match[0])
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND + leap * SECOND if bounded(moment) else None


def parse_stamp(text: str) -> datetime | None:
    """The same as aware UTC time."""
    micros = parse_micros(text)
    return None if micros is None else moment_of(micros)


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
