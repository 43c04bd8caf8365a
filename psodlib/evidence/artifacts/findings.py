"""What every reader of an artifact takes and gives: a part of a file with its line numbers, and a place for findings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO

from psodlib.evidence.streams import noted
from psodlib.evidence.versions import module_of_vib, normalise
from psodlib.records import Alive, DriverReading, FileReading, HostFact, Mark, Module, Problem

MAX_LINE = 64 << 10  # characters of a line that are looked at
ISO_STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)"
ANY_STAMP = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_ANSI = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


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
        given = [found._reading(source, kind) for found in told if found or found.problems or found.bad_times]
        if given or irrelevant or self.understood:
            return given or [FileReading(source=source, kind=kind, host=self.host, irrelevant=True)]
        unused = noted(source, "unused", f"looks like {kind.replace('_', ' ')}, and nothing was found in it")
        return [FileReading(source=source, kind=kind, host=self.host, problems=(unused,))]

    def _reading(self, source: str, kind: str) -> FileReading:
        if self.bad_times:
            detail = f"{self.bad_times} lines with a time that cannot be or without a year; not used as signs of life"
            self.problems.append(noted(source, "bad_time", detail, self.first_bad_time))
        return FileReading(
            source=source, kind=kind, host=self.host, alive=tuple(self.alive), marks=tuple(self.marks),
            drivers=tuple(dict.fromkeys(self.drivers)), modules=tuple(self.modules), facts=tuple(self.facts), problems=tuple(self.problems),
        )  # fmt: skip


def numbered_blocks(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Whole lines of a binary stream by the block, without NULs and colours; a last line without an end is a block."""
    number, rest = 1, b""
    while block := stream.read(256 << 10):
        end = block.rfind(b"\n")
        if end >= 0:
            yield number, _ANSI.sub(b"", (rest + block[:end]).replace(b"\0", b""))
            number, rest, block = number + block.count(b"\n"), b"", block[end + 1 :]
        rest = rest + block if len(rest) < MAX_LINE else rest
    if rest:
        yield number, _ANSI.sub(b"", rest.replace(b"\0", b""))


def numbered_lines(blocks: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, str]]:
    r"""Lines as (number, text): split on ``\n`` only, cut at 64 KiB."""
    for number, block in blocks:
        text = (block + b"\n").replace(b"\r\n", b"\n")[:-1].decode("utf-8", "backslashreplace")
        yield from enumerate((line[:MAX_LINE] for line in text.split("\n")), number)
