"""A syslog receiver's file -> its hosts, each with the lines it sent. Knows a line's head, not its meaning."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple

from psodlib.records import FileReading, Problem

FLUSH = 4 << 20  # bytes of one host's lines that are read at once
HELD = 48 << 20  # bytes of all hosts' lines that wait
MAX_LINE = 1 << 20  # bytes of a line; the rest of it is dropped
NEAR_CRASH = 64 << 10  # a chunk does not end this close behind a crash's header

_ISO = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)"
_BSD = rb"[A-Z][a-z]{2} [ \d]\d (?:\d{4} )?\d\d:\d\d:\d\d"
KIWI = rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\t\w{1,12}\.\w{1,12}"  # a receiver for Windows
PRIORITY = rb"(?:<\d{1,3}> ?)?(?:1 )?"
_HOST = rb"[A-Za-z0-9](?:[\w.:-]{0,253}[\w-])?"
_LINE = re.compile(
    # The receiver's own stamp, its name for the sender and its own program may stand before the line as it was sent.
    rb"(?:\d{1,5} (?=<))?%(pri)s(?:(?:%(iso)s|%(bsd)s|%(kiwi)s)\s(?:(?P<receiver>%(host)s)\s(?:[\w.-]{1,40}(?:\[\d{1,9}\])?:\s)?)?%(pri)s(?=\d{4}-|[A-Z][a-z]{2} [ \d]\d ))?"
    rb"(?P<stamp>%(iso)s|%(bsd)s)\s(?P<host>%(host)s)\s(?:[A-Z][a-z]\(\d{1,3}\)\+?\s)?(?P<program>(?!cpu\d)[A-Za-z][\w./-]{0,40})(?:\[\d{1,9}\])?"
    rb"(?::\s?|\s(?:\d{1,9}|-)\s\S{1,40}\s(?:-|\[[^\]\n]{0,400}\])\s)(?P<text>.*)"
    % {b"iso": _ISO, b"bsd": _BSD, b"kiwi": KIWI, b"host": _HOST, b"pri": PRIORITY},
    re.DOTALL,
)
SYSLOG_LINE = f"^{_LINE.pattern.decode()}"  # for one pass with other patterns
_MAY_BEGIN = re.compile(rb"(?:\d{1,5} )?<\d|\d{4}-|[A-Z][a-z]{2} [ \d]\d ")  # refuses most lines at once
_VMKERNEL = frozenset({b"vmkernel", b"vmkwarning", b"vmkalert", b"logefi"})
_OTHERS = {
    b"heartbeat": "vmksummary", b"bootstop": "vmksummary", b"mark": "vmksummary", b"vmksummary": "vmksummary", b"logger": "vmksummary",
    b"vobd": "vobd", b"esxupdate": "esxupdate", b"hostd": "hostd", b"vpxa": "hostd",
}  # fmt: skip
_LISTS = tuple(one.name for one in fields(FileReading) if one.default == ())
_OF_VMKERNEL = re.compile(rb"cpu\d{1,4}:\d{1,10}(?: opID=[\w@-]{1,64})?\)")  # whatever tag a relay gave the line
_NO_HOST = frozenset({b"localhost", b"localhost.localdomain", b"vmkernel"})


class HostLine(NamedTuple):
    """The head of a syslog line: who sent it, what wrote it, and the rest; ``stream`` is vmkernel, vmksummary, ... or ""."""

    host: bytes
    stream: str
    rewritten: bytes  # as the host's own file would hold it


def parse_host_line(line: bytes) -> HostLine | None:
    """Read the head of one line."""
    match = _LINE.match(line)
    if match is None or match["host"].startswith(b"cpu"):
        return None
    host, program = match["host"].lower(), match["program"].lower()
    if host in _NO_HOST:
        host = (match["receiver"] or b"").lower()
    # ESX classic's heartbeat bears its own epoch, in the line as it stands.
    is_vmkernel = program in _VMKERNEL or _OF_VMKERNEL.match(match["text"]) is not None
    as_sent = is_vmkernel or program == b"logger"
    rewritten = line if as_sent else match["stamp"] + b" " + match["program"] + b": " + match["text"]
    return HostLine(host, "vmkernel" if is_vmkernel else _OTHERS.get(program, ""), rewritten)


def is_syslog(head: bytes) -> bool:
    """Whether most of the first lines name the host that sent them."""
    lines = [line for line in head.split(b"\n", 200)[:200] if line.strip(b"\0\r ")]
    named = sum(_MAY_BEGIN.match(line) is not None and parse_host_line(line) is not None for line in lines)
    return bool(lines) and 2 * named > len(lines)


@dataclass(slots=True)
class _Pending:
    # One host's lines of one stream, with where each stands in the file and in this buffer.
    data: bytearray = field(default_factory=bytearray)
    numbers: array[int] = field(default_factory=lambda: array("q"))
    offsets: array[int] = field(default_factory=lambda: array("q"))
    starts: array[int] = field(default_factory=lambda: array("q"))

    def add(self, line: bytes, number: int, offset: int) -> None:
        self.starts.append(len(self.data))
        self.numbers.append(number)
        self.offsets.append(offset)
        self.data += line + b"\n"

    def offset_of(self, place: int) -> int:
        at = max(0, bisect_right(self.starts, place) - 1)
        return self.offsets[at] + place - self.starts[at]

    def is_due(self) -> bool:
        size = len(self.data)
        return size > 4 * FLUSH or (size > FLUSH and self.data.find(b"@BlueScreen", size - NEAR_CRASH) < 0)


def read_syslog(
    stream: BinaryIO, source: str, read_part: Callable[[BinaryIO, str, str], list[FileReading]]
) -> list[FileReading]:
    """Split a receiver's file by host and read each host's lines."""
    pending: dict[tuple[bytes, str], _Pending] = {}
    done: dict[bytes, list[FileReading]] = {}
    last: HostLine | None = None
    held = 0

    def flush(key: tuple[bytes, str]) -> int:
        chunk = pending.pop(key)
        kind = "vmkernel" if key[1] == "vmkernel" else "artifact"
        readings = read_part(BytesIO(bytes(chunk.data)), source, kind)
        if not readings:  # the line's program names its reader, so it can only be the stamp that nobody reads
            detail = f"lines of {key[1]} with a stamp without a year; not used as signs of life"
            problem = Problem(source=source, problem="bad_time", line=1, detail=detail)
            readings = [FileReading(source=source, kind=key[1], problems=(problem,))]
        done[key[0]] += [renumbered(reading, chunk.numbers, chunk.offset_of) for reading in readings]
        return len(chunk.data)

    for number, offset, line in _lines(stream):
        parsed = parse_host_line(line)
        if parsed is None and last is not None and last.stream == "vmkernel":
            parsed = HostLine(last.host, last.stream, line)  # continuation of a message of several lines
        if parsed is None:
            continue
        last = parsed
        done.setdefault(parsed.host, [])
        if not parsed.stream:
            continue
        key = (parsed.host, parsed.stream)
        chunk = pending.setdefault(key, _Pending())
        chunk.add(parsed.rewritten, number, offset)
        held += len(parsed.rewritten) + 1
        if chunk.is_due():
            held -= flush(key)
        while held > HELD:
            held -= flush(max(pending, key=lambda one: len(pending[one].data)))
    for key in list(pending):
        flush(key)
    return [_joined(readings, source, host.decode("utf-8", "backslashreplace")) for host, readings in done.items()]


def _lines(stream: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    # (number from 1, offset, line) without its end; a line of any length costs no more than MAX_LINE.
    number, offset, rest, length = 1, 0, b"", 0
    while block := stream.read(256 << 10):
        *lines, tail = block.split(b"\n")
        for line in lines:
            yield number, offset, (rest + line if rest else line).removesuffix(b"\r")
            offset += length + len(line) + 1
            number, rest, length = number + 1, b"", 0
        length += len(tail)
        rest = rest + tail if len(rest) < MAX_LINE else rest
    if rest:
        yield number, offset, rest


def renumbered(
    reading: FileReading, numbers: Sequence[int], offset_of: Callable[[int], int | None] = lambda _: None
) -> FileReading:
    """Lines and offsets of a part -> of the file it comes from; without a way to tell an offset, none."""

    def moved(record: Any) -> Any:
        line, offset = getattr(record, "line", None), getattr(record, "offset", None)
        if line is None or not 1 <= line <= len(numbers):
            return record
        change = {} if offset is None else {"offset": offset_of(offset)}
        return replace(record, line=numbers[line - 1], **change)

    changed: dict[str, Any] = {name: tuple(map(moved, getattr(reading, name))) for name in _LISTS}
    return replace(reading, **changed)


def _joined(readings: list[FileReading], source: str, host: str) -> FileReading:
    merged: dict[str, Any] = {name: tuple(row for one in readings for row in getattr(one, name)) for name in _LISTS}
    merged["problems"] = tuple({(one.problem, one.detail): one for one in reversed(merged["problems"])}.values())[::-1]
    kind = "syslog:" + "+".join(sorted({reading.kind for reading in readings}))
    return FileReading(source=source, kind=kind, host=host or None, irrelevant=not any(merged.values()), **merged)
