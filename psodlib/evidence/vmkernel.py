"""vmkernel logs of any size -> crashes, driver banners, coverage, precursors, in one pass of bounded memory.

A stream is read in blocks; one Aho-Corasick pass finds the anchors. Around a crash's anchor a window is cut out and given to
``psod``, which alone decides what is a crash; any other anchor is one row of the tables below, which reads one line. Time stamps are sampled, only as often as
needed to miss no silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, NamedTuple

import numpy as np
from ahocorasick_rs import BytesAhoCorasick, MatchKind

from psodlib.evidence.pieces import (
    CENTURY,
    Piece,
    find_anchors,
    opens_crash,
    read_count,
    read_prefix,
    regions,
    split_pieces,
)
from psodlib.evidence.psod import (
    find_crashes,
    group_blocks,
    is_crash,
    looks_like_crash,
    read_crash,
)  # fmt: skip
from psodlib.evidence.psod_lines import ANCHORS, modules_named_by_kernel
from psodlib.evidence.speech import TAIL, WARNINGS, Speech
from psodlib.evidence.versions import normalise
from psodlib.records import Alive, Crash, DriverReading, FileReading, HostFact, Mark, Module, Precursor, Problem

__all__ = ["find_crashes", "may_tell", "modules_named_by_kernel", "opens_in", "read_vmkernel"]

# --------------------------------------------------------------------------------------------------------------------
# Windows: the stretches of a stream that hold something, found in one pass.

# Bytes a read: one thread does not care from 512 KiB on, two hand each other the interpreter less often.
_BLOCK = 1 << 21
_FIRST_BLOCK = 1 << 15  # bytes of the first read
_COUNTED = 1 << 16  # bytes whose line ends are counted at a time, in the cache
_SPARE: list[bytearray] = []  # a buffer for the next file: new memory costs more than to read a megabyte into it
_BEFORE = 1 << 15  # bytes kept before an anchor: a screen and a five-word backtrace come before `@BlueScreen`
_AFTER = 1 << 16  # bytes read behind the last anchor
_WINDOW_LIMIT = 1 << 22  # a window longer than this is read in parts
_ROW_REACH = 4096  # bytes of a line on either side of its anchor
_CRASH_LIMIT = 10_000  # crashes of one file; a host does not live long enough for more

_MORE = (b":[0x", b" .bss 0x", b"Code start", b"cktrace")  # in an open window: there is more to come


class _LineRow(NamedTuple):
    anchor: bytes
    what: str
    sample: str
    pattern: re.Pattern[str]


def _line_row(anchor: bytes, what: str, sample: str, pattern: str) -> _LineRow:
    return _LineRow(anchor, what, sample, re.compile(pattern))


# Lines that say which driver was loaded, and in which version where they print one. The anchor finds the line, the pattern
# reads it. An anchor begins with three bytes that are rare in logs: the search looks at those first, and `con` or ` lo`
# would stop it in every line.
BANNERS: tuple[_LineRow, ...] = (
    _line_row(b"HPSA Driver (v", "hpsa", "<6>HP HPSA Driver (v 5.5.0.58-1OEM)", r"HPE? HPSA Driver \(v (?P<version>[\w.\-]{1,64})\)"),
    _line_row(b"Initialization of ", "", "Mod: 4789: Initialization of vmknvme succeeded with module ID 44.",
              r"Mod: (?:LoadDone:)?\d+: Initialization of (?P<module>[\w\-]{1,64}) succeeded(?: with module ID (?P<id>\d{1,9}))?"),
    _line_row(b"loaded successfully", "", "cpu9:2097703)vmknvme loaded successfully.",
              r"^(?:[Mm]odule )?(?P<module>[\w\-]{1,64}) loaded successfully"),
    _line_row(b"river version", "", "<6>smartpqi: Driver version: 1.0.3.2323-1OEM",
              r"(?P<module>[a-z][\w\-]{1,40})(?: [\w:.]{1,20})?: .{0,40}[Dd]river version:?\s+v?(?P<version>\d[\w.\-]{1,64})"),
    _line_row(b"k Driver - ", "", "<6>e1000e: Intel(R) PRO/1000 Network Driver - 3.2.2.1-NAPI",
              r"(?P<module>[a-z][\w\-]{1,40}): .{0,60}Network Driver - (?:version )?v?(?P<version>\d[\w.\-]{1,64})"),
)  # fmt: skip

# Who speaks in a line: its first word, behind its level. A word farther in is no module's.
_SPEAKER = r"^(?:(?:WARNING|ALERT|INFO|ERROR): )?(?:<\w{1,10}> ?)?(?:[A-Z]{4,8} \()?(?:(?P<module>[A-Za-z][\w\-]{1,40})(?=[:)\[( ]).{0,200})?"

# Lines that may foretell a crash; `module` is the driver (or the heap) they name. What each weighs stands in
# triage/rules/warnings.txt.
PRECURSORS: tuple[_LineRow, ...] = (
    _line_row(b"already at its maximum size", "heap_at_maximum",
              "WARNING: Heap: 3058: Heap hpsa already at its maximum size. Cannot expand.", r"Heap (?P<heap>[\w\-]{1,64}) \(?.{0,20}already at its maximum"),
    _line_row(b"Maximum allowed growth", "heap_refused",
              "WARNING: Heap: 4079: Heap qedentv-heap (52428800/52432896): Maximum allowed growth (4096) too small for size (20480)",
              r"Heap (?P<heap>[\w\-]{1,64})\b.{0,80}Maximum allowed growth .{0,40}too small"),
    _line_row(b"Heap_Align(", "heap_align_failed",
              "WARNING: Heap: 2900: Heap_Align(vmfs3, 6184/6184 bytes, 8 align) failed. caller: 0x418031efc4e9",
              r"Heap_Align\((?P<heap>[\w\-]{1,64}),.{0,80}failed"),
    _line_row(b"LinDMA:", "dma_constraint",
              "WARNING: LinDMA: Linux_DMACheckConstraints:149: Cannot map machine address = 0x80, length = 36864 for device 0000:03:00.0",
              r"LinDMA: .{0,60}Cannot map"),
    _line_row(b"f memory", "out_of_memory", "<4>hpsa 0000:03:00.0: out of memory", _SPEAKER + r"[Oo]ut of memory"),
    _line_row(b"esetting", "device_reset", "<4>hpsa 0000:03:00.0: resetting device 1:0:0:0", _SPEAKER + r"[Rr]esetting"),
    _line_row(b"FW went bad", "firmware_bad", "WARNING: qedf: FW went bad, stop waiting for queue flush", _SPEAKER + r"FW went bad"),
    _line_row(b"FAULT state", "firmware_bad", "WARNING: lsi_mr3: mfiCheckFWState:512: Found FW in FAULT state, will reset adapter",
              _SPEAKER + r"(?:FW|[Ff]irmware).{0,40}FAULT state"),
    _line_row(b"ISP System Error", "firmware_bad", "qlnativefc: vmhba2(4:0.0): ISP System Error - mbx1=1h mbx2=2h mbx3=3h", _SPEAKER + r"ISP System Error"),
    _line_row(b"irmware", "firmware_bad", "WARNING: nfnic: fnic_handle_fw:77: firmware is not responding, last heartbeat 12 s ago",
              _SPEAKER + r"[Ff]irmware\b.{0,40}\b(?:hung|hang|dead|died|crash\w*|panic\w*|assert\w*|fault\w*|not respond\w*|unresponsive|fatal)\b"),
    _line_row(b"alicious Driver", "malicious_driver", "WARNING: i40en: i40en_HandleMddEvent:4075: Malicious Driver Detection event 0x02 on TX queue 3",
              _SPEAKER + r"Malicious Driver"),
    _line_row(b"med out", "firmware_timeout", "WARNING: bnxtnet: hwrm_send_msg:219: [vmnic4] HWRM cmd 0x23 timed out, fw status 0x0",
              _SPEAKER + r"\b(?:cmd|[Cc]ommand|[Mm]ailbox|MCC|HWRM|FW|[Ff]irmware|[Aa]dmin [Qq]ueue|AQ|ASQ)\b.{0,80}timed out"),
    _line_row(b"meout", "firmware_timeout", "WARNING: elxnet: elxnet_mccWait:88: [vmnic2] mailbox timeout, status 0x8001",
              _SPEAKER + r"\b(?:cmd|[Cc]ommand|[Mm]ailbox|MCC|HWRM|FW|[Ff]irmware|[Aa]dmin [Qq]ueue|AQ|ASQ)\b.{0,80}[Tt]imeout"),
    _line_row(b"WATCHDOG", "transmit_timeout", "<3>NETDEV WATCHDOG: vmnic3: transmit timed out", r"NETDEV WATCHDOG: (?P<module>vmnic\d{1,4})"),
    _line_row(b"Unit Hang", "transmit_timeout", "<3>ixgbe 0000:04:00.0: vmnic4: Detected Tx Unit Hang", _SPEAKER + r"Unit Hang"),
    _line_row(b"Ran out of", "ran_out", "qlnativefc: vmhba3(7:0.1): SCM: Ran out of IOCBs, partial data 0x10", _SPEAKER + r"Ran out of"),
    _line_row(b"kup detected", "controller_lockup", "<4>hpsa 0000:03:00.0: controller lockup detected: 0x00130000", _SPEAKER + r"lockup detected"),
    _line_row(b"have a heartbeat", "missed_heartbeat",
              "WARNING: Heartbeat: 961: PCPU 40 didn't have a heartbeat for 5 seconds, timeout is 10, 1 IPIs sent; *may* be locked up.",
              r"PCPU \d{1,5} didn't have a heartbeat"),
    _line_row(b"bort_command", "command_abort", "<6>qla24xx_abort_command(0): handle to abort=122", r"(?P<module>[a-z][a-z0-9]{1,40}_(?:eh_)?abort_command)|abort_command"),
    _line_row(b"Fatal error from", "device_error", "ALERT: ApeiHEST: 327: Fatal error from 0000:cc:00.0(PCI Express Endpoint), VID:8086, DID:1572",
              r"Fatal error from (?P<module>[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7])"),
    _line_row(b"machine check", "machine_check", "IDT: 1895: Uncorrectable/unrecoverable machine check error", r"Uncorrectable/unrecoverable machine check"),
)  # fmt: skip

# What the file says of the host itself, and where a boot begins.
FACTS: tuple[_LineRow, ...] = (
    _line_row(b"build-", "uname", "VMkernel esx1.example.com 5.5.0 #1 SMP Release build-1331820 Sep 18 2013 23:08:31 x86_64",
              r"VMkernel (?P<host>\S{1,253}) (?P<version>\d+\.\d+\.\d+) #\d+ SMP Release build-(?P<build>\d+)"),
    _line_row(b"build-", "banner", "VMware ESXi 5.5.0 build-1331820", r"VMware ESX(?:i| Server)? (?P<version>\d+\.\d+(?:\.\d+)?) build-(?P<build>\d+)"),
    _line_row(b"Releasebuild-", "banner", "VMware ESXi 5.5.0 [Releasebuild-1331820 x86_64]",
              r"VMware ESX(?:i| Server)?(?: (?P<version>\d+\.\d+(?:\.\d+)?))? \[Releasebuild-(?P<build>\d+)"),
    _line_row(b"TSC: ", "boot", "TSC: 438792 cpu0:1)BootConfig: 41: coresPerPkg = 0 (0)", r"TSC: \d{1,18} cpu0:\d+\)"),
    _line_row(b"g VMKernel", "boot", "2014-05-01T08:00:02.000Z cpu0:32768)Starting VMKernel initialization", r"Starting VMKernel"),
)  # fmt: skip

_ROWS = (*BANNERS, *PRECURSORS, *FACTS)
_ANCHORS = (*dict.fromkeys((*(row.anchor for row in _ROWS), *WARNINGS)),)
_WARNED_FROM = len(_ANCHORS) - len(WARNINGS)
_ROWS_AT = {number: [row for row in _ROWS if row.anchor == anchor] for number, anchor in enumerate(_ANCHORS)}
# Anchors of nothing but precursors, of which a file has a limit.
_FORETELLERS = frozenset(
    number for number in range(len(_ANCHORS)) if _ROWS_AT[number] and all(row in PRECURSORS for row in _ROWS_AT[number])
)
_FINDER = BytesAhoCorasick(list(_ANCHORS), matchkind=MatchKind.LeftmostFirst)
# What alone makes a text of another kind say something: a crash, or a driver's banner.
_TELLING = BytesAhoCorasick([*ANCHORS, *(row.anchor for row in BANNERS)], matchkind=MatchKind.LeftmostFirst)
_ROW_LIMIT = 20_000  # precursors of one file: a log that says more says nothing new

_FORETELLING = frozenset(row.what for row in PRECURSORS)
_TOLD = frozenset(row.what for row in FACTS)
_OWN_PREFIX = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z cpu\d{1,5}:\d{1,12}\)", re.ASCII)

_SILENCE = timedelta(hours=2)
_STAMPED = rb"(?:<\d{1,3}>(?:1 )?)?(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S{1,64} )?(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,9})?([+-]\d\d:?\d\d)?"
_FIRST_STAMP = re.compile(_STAMPED)
# A line as a host writes it into its own file names no host.
_OWN_LINE = re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]{8,18}Z (?:[A-Z][a-z]\(\d{1,3}\)\+? vmkernel: )?cpu\d")
_YEARLESS = re.compile(rb"(?:<\d{1,3}>)?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d (?!\S{1,64} (?:<\d{1,3}>)?\d{4}-)")
_STAMP = re.compile(rb"\n" + _STAMPED)  # begins with a literal: the search runs at the speed of memchr


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
        self.alive: list[Alive] = []
        self.drivers: dict[tuple[str, str | None, datetime | None], DriverReading] = {}
        self.modules: list[Module] = []
        self.facts: list[HostFact] = []
        self.marks: list[Mark] = []
        self.precursors: list[Precursor] = []
        self.problems: list[Problem] = []
        self.speech = Speech(source)
        self.window: _Window | None = None
        self.parsed_to = 0  # no window reaches back behind this
        self.history = b""
        self.stretch: tuple[datetime, datetime] | None = None
        self.hosts: set[str] = set()
        self.bad_time: int | None = None  # the first line whose stamp cannot be
        self.last_time: datetime | None = None
        self.size = 0

    def feed(self, view: memoryview, start: int, line: int) -> None:
        """One block that begins at byte ``start`` and line ``line`` of the stream."""
        matches = _FINDER.find_matches_as_indexes(view)
        block_line = line
        raw = bytes(view) if matches else b""
        self._look_for_crashes(view, start, line)
        counted, heard, ends = 0, 0, [-1] * len(_ANCHORS)
        for number, at, _ in matches:
            # A row reads a line once, however often its anchor stands there.
            spent = number in _FORETELLERS and len(self.precursors) >= _ROW_LIMIT
            if number >= _WARNED_FROM or at < ends[number] or spent:
                continue
            line, counted = line + raw.count(b"\n", counted, at), at
            end = raw.find(b"\n", at)
            ends[number] = end if end >= 0 else len(raw)
            begin = raw.rfind(b"\n", max(0, at - _ROW_REACH), at) + 1 or max(0, at - _ROW_REACH)
            for row in _ROWS_AT[number]:
                if row.what == "boot" and begin > heard:
                    self._hear_tail(raw[:begin], line)
                    heard = begin + TAIL
                self._row(row, raw[begin : min(ends[number], at + _ROW_REACH)], line)
        self.speech.warnings(raw, (at for number, at, _ in matches if number >= _WARNED_FROM), block_line)
        self._extend(raw or view, start)
        self._watch(view, block_line)
        self._sample_host(view)
        self.history = bytes(view[-_BEFORE:]) if len(view) >= _BEFORE else (self.history + bytes(view))[-_BEFORE:]
        self.size = start + len(view)

    def _look_for_crashes(self, view: memoryview, start: int, line: int) -> None:
        # An anchor alone may stand in any line; only a line that can open a crash is worth a window.
        raw, counted, end = b"", 0, -1
        for at in find_anchors(view):
            if at < end:
                continue
            raw = raw or bytes(view)
            begin, stop = max(raw.rfind(b"\n", 0, at) + 1, at - _ROW_REACH), raw.find(b"\n", at)
            stop = min(stop if stop >= 0 else len(raw), at + _ROW_REACH)
            line, counted = line + raw.count(b"\n", counted, at), at
            if opens_crash(raw[begin:stop]):
                self._open(raw, start, line, at)
            end = stop

    def _open(self, raw: bytes, start: int, line: int, at: int) -> None:
        position = start + at
        if self.window and position > self.window.until:
            self._extend(raw, start)
        if self.window is None:
            self._hear_tail(raw[:at], line)
        if self.window:
            self.window.until = max(self.window.until, position + _AFTER)
            return
        begin = max(position - _BEFORE, self.parsed_to, start - len(self.history))
        before = self.history[len(self.history) - (start - begin) :] if begin < start else b""
        behind = before.count(b"\n") + raw.count(b"\n", max(0, begin - start), at)
        first_line = line - behind  # `line` is the anchor's own
        self.window = _Window(begin, first_line, position + _AFTER, bytearray(before))

    def _hear_tail(self, raw: bytes, line: int) -> None:
        # Who spoke before line `line`, where `raw` ends: the host's last minutes.
        text = raw[-TAIL:] if len(raw) >= TAIL else (self.history + raw)[-TAIL:]
        self.speech.tail(text, line - text.count(b"\n"))

    def _extend(self, raw: bytes | memoryview, start: int) -> None:
        # Copy into the open window what this block has of it, and read it when it is whole.
        window = self.window
        if window is None:
            return
        have = window.start + len(window.data)
        while have < (stop := min(window.until, start + len(raw))):
            window.data += raw[have - start : stop - start]
            last = max(window.data.rfind(word, max(0, have - window.start - 32)) for word in _MORE)
            have = stop
            if last >= 0:
                window.until = max(window.until, window.start + last + _AFTER)
        if window.until <= start + len(raw):
            self._close(last=False)
        elif len(window.data) > _WINDOW_LIMIT:
            self._close(last=False, resume=True)

    def _close(self, last: bool, resume: bool = False) -> None:
        window, self.window = self.window, None
        if window is None:
            return
        data = bytes(window.data)
        if not last:
            data = data[: data.rfind(b"\n") + 1] or data
        if resume:
            keep = data.rfind(b"\n", 0, data.rfind(b"BlueScreen:")) + 1
            data = data[:keep] if keep > _WINDOW_LIMIT // 2 else data
        skip = 0
        if window.start > self.parsed_to and not data.startswith(b"\0"):  # behind a run of NULs a line begins
            skip = data.find(b"\n") + 1
        self._read(data[skip:], window.start + skip, window.line + (1 if skip else 0))
        self.parsed_to = window.start + len(data)
        if resume and (rest := window.data[len(data) :]):
            line = window.line + data.count(b"\n")
            self.window = _Window(self.parsed_to, line, max(window.until, self.parsed_to + _AFTER), bytearray(rest))

    def _read(self, data: bytes, start: int, line: int) -> None:
        for part, at, lines in regions(data):
            for block in group_blocks(split_pieces(part, start + at, line + lines - 1)):
                if not is_crash(block):
                    if looks_like_crash(block):
                        self._unread(block.pieces[0])
                    continue
                if len(self.crashes) >= _CRASH_LIMIT:
                    self._too_many(block.pieces[0].line)
                    return
                crash = read_crash(block, part, start + at)
                modules = tuple(replace(module, source=self.source) for module in crash.modules)
                self.crashes.append(replace(crash, source=self.source, modules=modules))
                if "involved in panic" in crash.text and crash.time is not None:
                    self._involved(crash, crash.time)

    def _involved(self, crash: Crash, time: datetime) -> None:
        # From 8.0 on the panic itself names the version of each module that it blames: what was loaded in that boot.
        for module, printed in modules_named_by_kernel(crash.text).items():
            if printed and len(self.drivers) < _ROW_LIMIT:
                version = normalise(printed, module)
                self.drivers[module, version, time] = DriverReading(
                    module=module, version=version, state="loaded", observed_at=time, evidence="banner",
                    source=self.source, line=crash.line,
                )  # fmt: skip

    def _unread(self, piece: Piece) -> None:
        detail = f"reads like a piece of a crash, and nothing beside it says that the host stopped: {piece.body[:120]}"
        if len(self.problems) < _CRASH_LIMIT:
            self.problems.append(Problem(source=self.source, problem="unread_crash", line=piece.line, detail=detail))

    def _too_many(self, line: int) -> None:
        if not any(problem.problem == "too_large" for problem in self.problems):
            detail = f"more than {_CRASH_LIMIT} crashes in one file: the rest is not read"
            self.problems.append(Problem(source=self.source, problem="too_large", line=line, detail=detail))

    def _row(self, row: _LineRow, raw: bytes, line: int) -> None:
        foretells = row.what in _FORETELLING
        if foretells and len(self.precursors) >= _ROW_LIMIT:
            return
        text = raw.decode("utf-8", "backslashreplace").rstrip("\r")
        piece = _own_line(text, line)
        match = row.pattern.search(text if row.what in _TOLD else piece.body)
        if not match:
            return
        groups = match.groupdict()
        if foretells:
            module = groups.get("module") or groups.get("heap")
            self.precursors.append(
                Precursor(
                    time=piece.time, what=row.what, module=module, text=piece.body[:300], source=self.source, line=line
                )
            )
        elif row.what not in _TOLD:
            self._loaded(row, groups, piece)
        elif row.what == "boot":
            if moment := piece.time or self.last_time:
                self.marks.append(Mark(time=moment, what="booted", evidence="vmkernel", source=self.source, line=line))
        else:
            self.facts.append(
                HostFact(
                    host=groups.get("host"),
                    esxi_version=groups.get("version"),
                    esxi_build=groups["build"],
                    time=piece.time,
                    source=self.source,
                )
            )

    def _loaded(self, row: _LineRow, groups: dict[str, str | None], piece: Piece) -> None:
        module = (row.what or groups.get("module") or "").lower()
        version = normalise(groups.get("version"), module)
        key = (module, version, piece.time.replace(minute=0, second=0, microsecond=0) if piece.time else None)
        if key not in self.drivers and len(self.drivers) < _ROW_LIMIT:
            self.drivers[key] = DriverReading(
                module=module,
                version=version,
                state="loaded",
                observed_at=piece.time,
                evidence="banner",
                source=self.source,
                line=piece.line,
            )
        if groups.get("id"):
            self.modules.append(
                Module(module=module, module_id=read_count(groups["id"]), time=piece.time, source=self.source)
            )

    # -- coverage

    def _watch(self, view: memoryview, line: int) -> None:
        # See the first and the last stamp of the block, and look between them only where the span could hide a silence.
        blank = len(view) - len(bytes(view).lstrip(b"\0")) if view[0] == 0 else 0
        first = _FIRST_STAMP.match(view, blank) or _STAMP.search(view)
        start = _stamp(first) if first else None
        last = _last_stamp(view) or (None if first is None or start is None else (first.start(), start))
        if self.bad_time is None and first is not None and start is None:
            self.bad_time = line + bytes(view[: first.start() + 1]).count(b"\n")
        elif self.size == 0 and _YEARLESS.match(view, blank):
            self.bad_time = line
        if first is None or start is None or last is None:
            return
        stack = [(first.start(), last[0], start, last[1])]
        while stack:
            begin, end, start, stop = stack.pop()
            middle = None
            if not timedelta(0) <= stop - start <= _SILENCE:
                middle = _stamp_between(view, begin, end)
            if middle is None:
                self._see(start)
                self._see(stop)
            else:
                stack.append((middle[0], end, middle[1], stop))
                stack.append((begin, middle[0], start, middle[1]))

    def _sample_host(self, view: memoryview) -> None:
        # Who speaks in the block's first line: a receiver's file of one host says the same everywhere.
        if _OWN_LINE.match(view):
            return
        text = bytes(view[:1024]).split(b"\n", 1)[0].decode("utf-8", "backslashreplace")
        piece = Piece(0, 0, 0, text)
        read_prefix(piece)
        if piece.host:
            self.hosts.add(piece.host.lower())

    def _see(self, moment: datetime) -> None:
        self.last_time = moment
        if self.stretch and timedelta(minutes=-5) <= moment - self.stretch[1] <= _SILENCE:
            self.stretch = (self.stretch[0], max(self.stretch[1], moment))
            return
        self._end_stretch()
        self.stretch = (moment, moment)

    def _end_stretch(self) -> None:
        if self.stretch:
            start, end = self.stretch
            self.alive.append(Alive(start=start, end=end, source=self.source))
            self.stretch = None


def _own_line(text: str, line: int) -> Piece:
    # A line as nearly all logs have it, at a tenth of what it costs to know every way.
    own = _OWN_PREFIX.match(text)
    if own is None:
        piece = Piece(0, 0, line, text)
        read_prefix(piece)
        return piece
    try:
        time = datetime.fromisoformat(own[1] + "+00:00")
    except ValueError:
        time = None
    if time is not None and not CENTURY[0] <= time.year < CENTURY[1]:
        time = None
    return Piece(0, 0, line, text[own.end() :].strip(), time)


def _problem_of_time(source: str, line: int) -> Problem:
    detail = (
        "a stamp that cannot be, or without a year; what bears one has no time, and such lines are no signs of life"
    )
    return Problem(source=source, problem="bad_time", line=line, detail=detail)


def _stamp(match: re.Match[bytes]) -> datetime | None:
    try:
        moment = datetime.fromisoformat((match[1] + (match[2] or b"+00:00")).decode()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment if CENTURY[0] <= moment.year < CENTURY[1] else None


def _stamp_between(view: memoryview, begin: int, end: int) -> tuple[int, datetime] | None:
    # A stamped line after `begin` and before `end`, from the middle if there is one there.
    for origin in ((begin + end) // 2, begin + 1):
        found = _STAMP.search(view, origin, end)
        moment = _stamp(found) if found else None
        if found and moment and begin < found.start() < end:
            return found.start(), moment
    return None


def _last_stamp(view: memoryview) -> tuple[int, datetime] | None:
    step, start = 512, len(view)
    while start > 0:
        stop, start, step = min(len(view), start + 128), max(0, start - step), step * 2
        last = None
        for found in _STAMP.finditer(view, start, stop):
            last = found
        moment = _stamp(last) if last else None
        if last and moment:
            return last.start(), moment
    return None


def _slices(stream: BinaryIO, buffer: bytearray) -> Iterator[tuple[memoryview, int, int]]:
    # Blocks that end at a line's end, each with its first byte's offset and line number. The unfinished line is carried into
    # the next block; of a line longer than a block only enough is carried to find an anchor across the cut. The first blocks
    # are small: most files of a bundle fit into one.
    block, rest, offset, line, ended = _FIRST_BLOCK, b"", 0, 1, False
    view, bytes_of = memoryview(buffer), np.frombuffer(buffer, np.uint8)
    while not ended:
        view[: len(rest)] = rest
        filled, ended = _fill(stream, view, len(rest), len(rest) + block)
        cut = filled if ended else buffer.rfind(b"\n", 0, filled) + 1
        if filled - cut > block or (cut == 0 and not ended):
            cut = filled - 64
        if cut > 0:
            yield view[:cut], offset, line
            line += sum(
                int(np.count_nonzero(bytes_of[at : min(at + _COUNTED, cut)] == 10)) for at in range(0, cut, _COUNTED)
            )
            offset += cut
        rest = bytes(view[cut:filled])
        block = min(4 * block, _BLOCK)


def _fill(stream: BinaryIO, view: memoryview, filled: int, goal: int) -> tuple[int, bool]:
    read_into = getattr(stream, "readinto", None)
    while filled < goal:
        if read_into:
            count = read_into(view[filled:goal])
        else:
            chunk = stream.read(goal - filled)
            count = len(chunk)
            view[filled : filled + count] = chunk
        if not count:
            return filled, True
        filled += count
    return filled, False


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
    reader = _Reader(source)
    line, view = 1, memoryview(b"")
    buffer = _SPARE.pop() if _SPARE else bytearray(2 * _BLOCK)
    for view, start, line in _slices(stream, buffer):
        reader.feed(view, start, line)
    reader._hear_tail(b"", line + bytes(view).count(b"\n"))
    if not _SPARE:
        _SPARE.append(buffer)
    reader._close(last=True)
    reader._end_stretch()
    if reader.bad_time is not None:
        reader.problems.append(_problem_of_time(source, reader.bad_time))
    hosts = sorted(reader.hosts | {crash.host.lower() for crash in reader.crashes if crash.host})
    if len(hosts) > 1:
        detail = f"lines of {len(hosts)} hosts in one file: {', '.join(hosts[:5])}"
        reader.problems.append(Problem(source=source, problem="host_conflict", detail=detail))
    return FileReading(
        source=source,
        kind="vmkernel",
        host=hosts[0] if len(hosts) == 1 else None,
        size=reader.size,
        crashes=tuple(reader.crashes),
        alive=tuple(reader.alive),
        marks=tuple(reader.marks),
        drivers=tuple(reader.drivers.values()),
        modules=tuple(reader.modules) + tuple(module for crash in reader.crashes for module in crash.modules),
        facts=tuple(reader.facts),
        precursors=(*reader.precursors, *reader.speech.found),
        problems=tuple(reader.problems),
    )
