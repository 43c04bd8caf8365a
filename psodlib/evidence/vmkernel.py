"""vmkernel logs of any size -> crashes, driver banners, coverage, precursors, in one pass of bounded memory.

A stream is read in blocks; one Aho-Corasick pass finds the anchors. Around a crash's anchor a window is cut out and given to
``psod``, which alone decides what is a crash; any other anchor is one row of the tables below, which reads one line. Time stamps are sampled, only as often as
needed to miss no silence.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from operator import itemgetter
from typing import Any, BinaryIO, cast

import numpy as np
from ahocorasick_rs import BytesAhoCorasick, MatchKind

from psodlib.evidence.life import Life, Sign
from psodlib.evidence.pieces import Piece, moment_of, opens_crash, read_count, read_line
from psodlib.evidence.psod import blocks_in, is_crash, looks_like_crash, read_crash
from psodlib.evidence.psod_lines import ANCHORS, modules_named_by_kernel
from psodlib.evidence.speech import TAIL, WORDS, Speech
from psodlib.evidence.syslog import KIWI, PRIORITY
from psodlib.evidence.versions import normalise

from psodlib.evidence.vmkernel_lines import (  # isort: skip
    BANNERS, FACTS, PRECURSORS, ROWS, SEARCHED, SPEAKER, WARNED, WARNINGS, LineRow,
)  # fmt: skip
from psodlib.records import Crash, DriverReading, FileReading, HostFact, Mark, Module, Precursor, Problem

# --------------------------------------------------------------------------------------------------------------------
# Windows: the stretches of a stream that hold something, found in one pass.

# Bytes a read: one thread does not care from 512 KiB on, two hand each other the interpreter less often.
_BLOCK = 1 << 21
_FIRST_BLOCK = 1 << 15  # bytes of the first read
_COUNTED = 1 << 17  # bytes whose line ends are counted at a time, in the cache
_NEAR = 1 << 12  # fewer bytes are counted faster without numpy
_SPARE: list[bytearray] = []  # a buffer for the next file: new memory costs more than to read a megabyte into it
_BEFORE = 1 << 15  # bytes kept before an anchor: a screen and a five-word backtrace come before `@BlueScreen`
_AFTER = 1 << 16  # bytes read behind the last anchor
_WINDOW_LIMIT = 1 << 22  # a window longer than this is read in parts
_ROW_REACH = 4096  # bytes of a line on either side of its anchor
_CRASH_LIMIT = 10_000  # crashes of one file; a host does not live long enough for more

_FINDER = BytesAhoCorasick(list(SEARCHED), matchkind=MatchKind.LeftmostFirst)
_WARNED = BytesAhoCorasick(list(WARNED), matchkind=MatchKind.LeftmostFirst)
_WARNED_FROM = len(SEARCHED) - len(WARNINGS)
_BEHIND = len(b")WARNIN")  # bytes of a warning before what that search finds
# What a line may be in which one of them stands.
_OPENS_AT = [tuple(anchor for anchor in ANCHORS if word in anchor) for word in SEARCHED]
_ROWS_AT = [tuple(row for row in ROWS if word in row.anchor) for word in SEARCHED]
# In an open window: there is more to come.
_GOES_ON = frozenset(n for n, word in enumerate(SEARCHED) if word in (b":[0x", b"Code start", b"cktrace"))
# Those of nothing but precursors, of which a file has a limit.
_FORETELLERS = frozenset(
    n for n, rows in enumerate(_ROWS_AT) if rows and all(row in PRECURSORS for row in rows) and not _OPENS_AT[n]
)
# Those of one precursor, of whose line the head up to the word tells whose it is.
_SPOKEN = frozenset(
    n for n in _FORETELLERS if [row.pattern.pattern.startswith(SPEAKER) for row in _ROWS_AT[n]] == [True]
)
# What alone makes a text of another kind say something: a crash, or a driver's banner.
_TELLING = BytesAhoCorasick([*ANCHORS, *(row.anchor for row in BANNERS)], matchkind=MatchKind.LeftmostFirst)
_ROW_LIMIT = 20_000  # precursors of one file, the last ones
_MINUTE_LIMIT = 8  # precursors of a minute that one word finds; who judges counts minutes
_FORETELLING, _TOLD = ({row.what for row in rows} for rows in (PRECURSORS, FACTS))

_RECEIVED = rb"(?:(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|%b)[ \t]\S{1,64}[ \t]%b)?" % (KIWI, PRIORITY)
_STAMPED = PRIORITY + _RECEIVED + rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,9})?([+-]\d\d:?\d\d)?"
_FIRST_STAMP = re.compile(_STAMPED)
_STAMP = re.compile(rb"\n" + _STAMPED)  # begins with a literal: the search runs at the speed of memchr
_YEARLESS = re.compile(rb"(?:<\d{1,3}>)?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d (?!\S{1,64} %b\d{4}-)" % PRIORITY)
# A line as a host writes it into its own file names no host.
_OWN_LINE = re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]{8,18}Z (?:[A-Z][a-z]\(\d{1,3}\)\+? vmkernel: )?cpu\d")


@dataclass(slots=True)
class _Window:
    start: int
    line: int
    until: int
    data: bytearray


class _Reader:
    # One pass over a stream: what the anchors find goes to windows (crashes) or to rows (one line each).

    def __init__(self, source: str) -> None:
        self.source = source
        self.crashes: list[Crash] = []
        self.life = Life(source, "vmkernel", timedelta(minutes=5))
        self.drivers: dict[tuple[str, str | None, datetime | None], DriverReading] = {}
        self.modules: list[Module] = []
        self.facts: list[HostFact] = []
        self.marks: list[Mark] = []
        # As they become `Precursor`s in the end, which is dear: a log may have many more than are kept.
        self.precursors: deque[tuple[datetime | None, str, str | None, str, int]] = deque(maxlen=_ROW_LIMIT)
        self.foretold: dict[tuple[str, str | None, str], float] = {}  # the minute in which each was said last
        # Of this minute: what each word found, and which found enough.
        self.minute, self.rows, self.full = b"", [0] * len(SEARCHED), 0
        self.problems: list[Problem] = []
        self.speech = Speech()
        self.window: _Window | None = None
        self.parsed_to = 0  # no window reaches back behind this
        self.history = b""
        self.hosts: set[str] = set()
        self.bad_time: int | None = None  # the first line whose stamp cannot be
        self.size = 0

    def feed(self, view: memoryview, start: int, lines: _Lines) -> None:
        """One block that begins at byte ``start`` of the stream."""
        matches = _FINDER.find_matches_as_indexes(view)
        if warned := _WARNED.find_matches_as_indexes(view):
            matches += [(_WARNED_FROM, at - _BEHIND, end) for _, at, end in warned if at >= _BEHIND]
            matches.sort(key=itemgetter(1))
        raw = bytes(view) if matches else b""
        told = self.speech.told
        passed = same = heard = -1  # `same`: so far at least the lines are of this minute
        for number, at, end in matches:
            # Most say in the same minute what was heard already: their first bytes tell, or how often the word was found.
            if at < same and (raw[at : at + WORDS] in told if number >= _WARNED_FROM else self.full >> number & 1):
                continue
            if at >= passed:
                low = at - _ROW_REACH if at > _ROW_REACH else 0
                begin, passed = raw.rfind(b"\n", low, at) + 1 or low, raw.find(b"\n", at, at + _ROW_REACH)
                passed = passed if passed >= 0 else at + _ROW_REACH
                minute, done, opens = raw[begin : begin + 16], 0, False
                timed = minute[10:11] == b"T"
                if minute != self.minute:
                    self.minute, self.full, self.rows = minute, 0, [0] * len(SEARCHED)
                    told.clear()
                elif at >= same and timed:
                    same = _end_of_minute(raw, passed, minute)
            if number >= _WARNED_FROM:
                if raw[at : at + WORDS] not in told:
                    self.speech.warning(raw, at, begin, minute, lines.at)
                continue
            # A line is read once for each word in it, and not where its minute told that often enough.
            if (done | self.full) >> number & 1:
                continue
            done |= 1 << number
            words = raw[raw.find(b")", begin, at) + 1 : end] if timed and number in _SPOKEN else b""
            if words in told:
                self.rows[number] += 1
            else:
                text = raw[begin:passed]
                if self.window and number in _GOES_ON and start + at <= self.window.until:
                    opens, self.window.until = True, max(self.window.until, start + at + _AFTER)
                if not opens and any(anchor in text for anchor in _OPENS_AT[number]) and opens_crash(text):
                    opens = True
                    self._open(raw, start, lines.at(at), at)
                for row in _ROWS_AT[number]:
                    if row.anchor not in text:
                        continue
                    if row.what == "booted" and begin > heard:
                        self._hear_tail(raw[:begin], lines.at(at))
                        heard = begin + TAIL
                    if self._row(row, text, lines.at(at)):
                        self.rows[number] += 1
                        if words:
                            told.add(words)
            if timed and number in _FORETELLERS and self.rows[number] >= _MINUTE_LIMIT:
                self.full |= 1 << number
        self._extend(view, start)
        self._watch(view, lines.first)
        self.history = bytes(view[-_BEFORE:]) if len(view) >= _BEFORE else (self.history + bytes(view))[-_BEFORE:]
        self.size = start + len(view)

    def _open(self, raw: bytes, start: int, line: int, at: int) -> None:
        position = start + at
        if self.window and position > self.window.until:
            self._extend(raw, start)
        if self.window is None:
            self._hear_tail(raw[:at], line)
            begin = max(position - _BEFORE, self.parsed_to, start - len(self.history))
            before = self.history[len(self.history) - (start - begin) :] if begin < start else b""
            behind = before.count(b"\n") + raw.count(b"\n", max(0, begin - start), at)  # `line` is the anchor's own
            self.window = _Window(begin, line - behind, 0, bytearray(before))
        self.window.until = max(self.window.until, position + _AFTER)

    def _hear_tail(self, raw: bytes, line: int) -> None:
        # Who spoke before line `line`, where `raw` ends: the host's last minutes.
        text = raw[-TAIL:] if len(raw) >= TAIL else (self.history + raw)[-TAIL:]
        self.speech.tail(text, line - text.count(b"\n"))

    def _extend(self, raw: bytes | memoryview, start: int) -> None:
        # Copy into the open window what this block has of it, and read it when it is whole.
        if window := self.window:
            window.data += raw[window.start + len(window.data) - start : window.until - start]
            if window.until <= start + len(raw):
                self._close()
            elif len(window.data) > _WINDOW_LIMIT:
                self._close(resume=True)

    def _close(self, last: bool = False, resume: bool = False) -> None:
        window, self.window = self.window, None
        if window is None:
            return
        data = bytes(window.data)
        end = len(data) if last else data.rfind(b"\n") + 1 or len(data)
        if resume:
            header = data.rfind(b"\n", 0, data.rfind(b"BlueScreen:", 0, end)) + 1
            end = header if header > _WINDOW_LIMIT // 2 else end
        # Behind a run of NULs a line begins.
        skip = data.find(b"\n", 0, end) + 1 if window.start > self.parsed_to and not data.startswith(b"\0") else 0
        self._read(data[skip:end], window.start + skip, window.line + (1 if skip else 0))
        self.parsed_to = window.start + end
        if resume and end < len(data):
            until = max(window.until, self.parsed_to + _AFTER)
            self.window = _Window(self.parsed_to, window.line + data.count(b"\n", 0, end), until, bytearray(data[end:]))

    def _read(self, data: bytes, start: int, line: int) -> None:
        for block, part, at in blocks_in(data, start, line):
            first = block.pieces[0]
            if not is_crash(block):
                if looks_like_crash(block) and len(self.problems) < _CRASH_LIMIT:
                    said = f"nothing beside it says that the host stopped: {first.body[:120]}"
                    self._complain("unread_crash", f"reads like a piece of a crash, and {said}", first.line)
                continue
            if len(self.crashes) >= _CRASH_LIMIT:
                if not any(problem.problem == "too_large" for problem in self.problems):
                    detail = f"more than {_CRASH_LIMIT} crashes in one file: the rest is not read"
                    self._complain("too_large", detail, first.line)
                return
            crash = read_crash(block, part, at, self.source)
            self.crashes.append(crash)
            if "involved in panic" in crash.text and crash.time is not None:
                # From 8.0 on the panic itself names the version of each module that it blames: what was loaded in that boot.
                for module, printed in modules_named_by_kernel(crash.text).items():
                    if printed:
                        self._note_loaded(module, printed, crash.time, crash.line)

    def _complain(self, problem: str, detail: str, line: int | None = None) -> None:
        self.problems.append(Problem(source=self.source, problem=problem, line=line, detail=detail))

    def _row(self, row: LineRow, raw: bytes, line: int) -> bool:
        piece = read_line(raw.rstrip(b"\r"), line)
        match = row.pattern.search(raw.decode("utf-8", "backslashreplace") if row.what in _TOLD else piece.body)
        if not match:
            return False
        groups, time = match.groupdict(), piece.time
        if row.what in _FORETELLING:
            self._foretell(row.what, groups.get("module") or groups.get("heap"), piece)
        elif row.what in ("booted", "power_button"):
            if moment := time or (self.life.stretches[-1].end if self.life.stretches else None):
                self.marks.append(Mark(time=moment, what=row.what, evidence="vmkernel", source=self.source, line=line))
        elif row.what in _TOLD:
            host, version, build = groups.get("host"), groups.get("version"), groups["build"]
            self.facts.append(HostFact(host=host, esxi_version=version, esxi_build=build, time=time, source=self.source))  # fmt: skip
        else:
            module = (row.what or groups.get("module") or "").lower()
            self._note_loaded(module, groups.get("version"), time, line)
            if number := groups.get("id"):
                self.modules.append(Module(module=module, module_id=read_count(number), time=time, source=self.source))
        return True

    def _foretell(self, what: str, module: str | None, piece: Piece) -> None:
        # Once a minute, and for each device that a driver names as its own.
        key = (what, module, piece.body[:24] if " 0000:" in piece.body[:24] else "")
        minute = piece.time.timestamp() // 60 if piece.time else None
        if minute is None or self.foretold.get(key) != minute:
            if len(self.foretold) > _ROW_LIMIT:
                self.foretold.clear()
            if minute is not None:
                self.foretold[key] = minute
            self.precursors.append((piece.time, what, module, piece.body[:300], piece.line))

    def _note_loaded(self, module: str, printed: str | None, time: datetime | None, line: int | None) -> None:
        version, hour = normalise(printed, module), time and time.replace(minute=0, second=0, microsecond=0)
        if (module, version, hour) not in self.drivers and len(self.drivers) < _ROW_LIMIT:
            self.drivers[module, version, hour] = DriverReading(
                module=module, version=version, state="loaded", observed_at=time, evidence="banner", source=self.source, line=line,
            )  # fmt: skip

    def _watch(self, view: memoryview, line: int) -> None:
        blank = len(view) - len(bytes(view).lstrip(b"\0")) if view[0] == 0 else 0
        found = _FIRST_STAMP.match(view, blank) or _STAMP.search(view)
        first = _sign(found) if found else None
        if self.bad_time is None and found and not first:
            self.bad_time = line + bytes(view[: found.start() + 1]).count(b"\n")
        elif self.size == 0 and _YEARLESS.match(view, blank):
            self.bad_time = line
        self.life.follow(view, _STAMP, _sign, first)
        # Who speaks in the first line: a receiver's file of one host says the same everywhere.
        if not _OWN_LINE.match(view) and (host := read_line(bytes(view[:1024]).split(b"\n", 1)[0]).host):
            self.hosts.add(host.lower())

    def told(self, line: int) -> FileReading:
        """All that was read, once the stream has ended before a line."""
        self._hear_tail(b"", line)
        self._close(last=True)
        if self.bad_time is not None:
            why = "a stamp that cannot be, or without a year"
            self._complain("bad_time", f"{why}; what bears one has no time, and such lines are no signs of life", self.bad_time)  # fmt: skip
        hosts = sorted(self.hosts | {crash.host.lower() for crash in self.crashes if crash.host})
        if len(hosts) > 1:
            self._complain("host_conflict", f"lines of {len(hosts)} hosts in one file: {', '.join(hosts[:5])}")
        precursors = tuple(
            Precursor(time=time, what=what, module=module, text=text, source=self.source, line=line)
            for time, what, module, text, line in chain(self.precursors, self.speech.found())
        )
        return FileReading(
            source=self.source, kind="vmkernel", host=hosts[0] if len(hosts) == 1 else None, size=self.size, crashes=tuple(self.crashes),
            alive=tuple(self.life.stretches), marks=tuple(self.marks), drivers=tuple(self.drivers.values()), facts=tuple(self.facts), precursors=precursors,
            modules=tuple(chain(self.modules, *(crash.modules for crash in self.crashes))), problems=tuple(self.problems),
        )  # fmt: skip


def _end_of_minute(raw: bytes, at: int, minute: bytes) -> int:
    # A place up to which lines surely begin with this minute, if they are in order; twice as far a step.
    step, end = 256, at
    while (begin := raw.find(b"\n", at + step) + 1) and raw.startswith(minute, begin):
        end, step = begin, 2 * step
    return end


def _sign(match: re.Match[bytes]) -> Sign | None:
    moment = moment_of((match[1] + (match[2] or b"")).decode())
    return (match.start(), moment, None) if moment else None


class _Lines:
    # The line numbers of one block, counted only once as long as they are asked for in order.
    def __init__(self, buffer: bytearray, size: int, first: int) -> None:
        self._buffer, self.first = buffer, first
        self._bytes = np.frombuffer(buffer, np.uint8, size)
        self._at, self._line = 0, first

    def at(self, place: int) -> int:
        if place < self._at:
            self._at, self._line = 0, self.first
        if place - self._at < _NEAR:
            self._line += self._buffer.count(b"\n", self._at, place)
        else:
            for begin in range(self._at, place, _COUNTED):
                self._line += int(np.count_nonzero(self._bytes[begin : min(begin + _COUNTED, place)] == 10))
        self._at = place
        return self._line


def _slices(stream: BinaryIO, buffer: bytearray) -> Iterator[tuple[memoryview, int, _Lines]]:
    # Blocks that end at a line's end, each with its first byte's offset and its lines. The unfinished line is carried into
    # the next block; of a line longer than a block only enough is carried to find an anchor across the cut. The first blocks
    # are small: most files of a bundle fit into one.
    block, filled, offset, line, ended = _FIRST_BLOCK, 0, 0, 1, False
    view, read_into = memoryview(buffer), cast(Any, stream).readinto
    while not ended:
        goal = filled + block
        while filled < goal and not ended:
            count = read_into(view[filled:goal])
            filled, ended = filled + count, not count
        cut = filled if ended else buffer.rfind(b"\n", 0, filled) + 1
        if filled - cut > block or (cut == 0 and not ended):
            cut = filled - 64
        if cut > 0:
            lines = _Lines(buffer, cut, line)
            yield view[:cut], offset, lines
            line, offset = lines.at(cut), offset + cut
        rest = bytes(view[cut:filled])
        filled, block = len(rest), min(4 * block, _BLOCK)
        view[:filled] = rest


def may_tell(blocks: Iterable[bytes | memoryview]) -> bool:
    """Whether a text that does not look like the vmkernel's may hold a crash or a banner all the same."""
    tail = b""
    for block in blocks:
        data = tail + bytes(block)
        if opens_in(data, banners=True):
            return True
        tail = data[max(data.rfind(b"\n") + 1, len(data) - _ROW_REACH) :]
    return False


def opens_in(data: bytes, banners: bool = False) -> bool:
    """Whether a line of a text can open a crash, or shows a driver's banner."""
    end = -1
    for number, at, _ in _TELLING.find_matches_as_indexes(data):
        if number >= len(ANCHORS):
            if banners:
                return True
        elif at >= end:
            begin, stop = max(data.rfind(b"\n", 0, at) + 1, at - _ROW_REACH), data.find(b"\n", at)
            end = min(stop if stop >= 0 else len(data), at + _ROW_REACH)
            if opens_crash(data[begin:end]):
                return True
    return False


def read_vmkernel(stream: BinaryIO, source: str) -> FileReading:
    """Read a vmkernel log, dump log or syslog stream of any size in one pass.

    Notes
    -----
    Memory is bounded by a few blocks and windows (some 10 MB), whatever the stream's size or its longest line.
    """
    reader, line = _Reader(source), 1
    buffer = _SPARE.pop() if _SPARE else bytearray(2 * _BLOCK)
    for view, start, lines in _slices(stream, buffer):
        reader.feed(view, start, lines)
        line = lines.at(len(view))
    if not _SPARE:
        _SPARE.append(buffer)
    return reader.told(line)
