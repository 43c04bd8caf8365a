"""Logs that tell of a host's life and its VIBs: vmksummary, vobd, hostd, vpxa, esxupdate."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
from ahocorasick_rs import BytesAhoCorasick, MatchKind

from psodlib.evidence.artifacts.findings import (
    ISO_STAMP,
    SECOND,
    STAMP_PARTS,
    Findings,
    Life,
    Part,
    bounded,
    moment_of,
    parse_micros,
    parse_stamp,
    stamp_micros,
)  # fmt: skip
from psodlib.evidence.artifacts.searching import Sign, bare, follow, lines_with, odd_stamps
from psodlib.evidence.artifacts.vibs import VIB_ID, reading_of_id
from psodlib.records import HostFact, Mark

# 8.0 puts a severity between stamp and program: `In(14)`; `+` marks a continuation.
LOG_GAP = r":?\s+(?:[A-Z][a-z]\(\d{1,3}\)\+?\s+)?"
LOG_HEAD = rf"(?P<stamp>{ISO_STAMP})" + LOG_GAP
_SUMMARY = re.compile(LOG_HEAD + r"(?:vmksummary(?:\[\d+\])?:\s*)?(?P<text>(?:heartbeat|bootstop|Host |mark).{0,400})")
_HEARTBEAT = re.compile(
    STAMP_PARTS + LOG_GAP + r"(?:vmksummary(?:\[\d+\])?:\s*)?heartbeat(?:\[\d+\])?:\s*"
    r"up (?:(\d{1,6})d)?(?:(\d{1,2})h)?(?:(\d{1,2})m)?(?:(\d{1,2})s)?(?:,\s*(\d{1,6}) VM)?",
    re.ASCII,
)
_CLASSIC = re.compile(
    r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d (?P<host>\S+) logger: \((?P<epoch>\d{9,10})\) hb: vmk loaded, "
    r"[\d.]+, (?P<up>\d{1,10}(?:\.\d+)?), (?P<vms>\d{1,6}), (?P<build>\d{1,9})"
)
_VOB = re.compile(LOG_HEAD + r"(?:vobd(?:\[\d+\])?:\s*)?\[\w+\] (?P<us>\d{1,18})us:\s*\[(?P<event>[\w.]+)\]")
_ESXUPDATE = re.compile(LOG_HEAD + r"esxupdate(?:\[\d+\])?:\s*(?P<text>.*)")
_FINISHED = re.compile(
    r"(?:Finished execution of command = |Command )?(?:vib|profile)\.(?:install|update|remove)(?: finished|$|\W*$)"
)
# A list of VIBs belongs to the last word before it.
_CHANGE = re.compile(
    rf"(?P<vib>{VIB_ID.pattern})|(?P<removed>\b(?:remov(?:ed|ing|e|al)|uninstall(?:ed|ing)?)\b)"
    r"|(?P<added>\b(?:install(?:ed|ing)?|add(?:ed|ing)?|updat(?:ed|ing))\b)",
    re.IGNORECASE,
)

# What a log's words say of a host's start or stop. A longer phrase stands before one that it holds.
MARKS: tuple[tuple[str, str], ...] = (
    ("Host has booted", "booted"),
    ("esx.audit.host.boot", "booted"),
    ("vob.user.host.boot", "booted"),
    ("Host is rebooting", "rebooting"),
    ("vim.HostSystem.reboot", "rebooting"),
    ("DCUI: reboot", "rebooting"),
    ("esx.audit.host.stop.reboot", "rebooting"),
    ("Host is powering off", "powering_off"),
    ("Host is shutting down", "powering_off"),
    ("vim.HostSystem.shutdown", "powering_off"),
    ("DCUI: power off", "powering_off"),
    ("esx.audit.host.stop.shutdown", "powering_off"),
    ("Host is halting", "halting"),
    ("ore dump found", "core_dump_found"),
    ("esx.problem.host.coredump", "core_dump_found"),
    ("vob.user.host.coredump", "core_dump_found"),
    ("Power button pressed", "power_button"),
    ("esx.audit.host.poweroff.reason.unavailable", "poweroff_unexplained"),
)


# The head of every log of hostd and vpxa.
_SECTION = re.compile(
    r"Section for VMware ESX.{0,80}?\bversion=(?P<version>\d{1,2}(?:\.\d{1,3}){2})(?:.{0,20}?\bbuild=(?:build-)?(?P<build>\d{4,12})\b)?"
)
_HOSTD_FINDER = BytesAhoCorasick(
    [words.encode() for words, _ in MARKS if words.startswith(("esx.", "vim.", "Host ", "DCUI: "))]
    + [b"Section for VMware ESX"],
    matchkind=MatchKind.LeftmostFirst,
)
# A heartbeat as nearly all are written: what is not is read by `_HEARTBEAT`, which knows every way. A line's end before it is
# what a search is quick to find.
_COMMON_BEAT = re.compile(
    rb"\n(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,9})?Z:?\s+(?:[A-Z][a-z]\(\d{1,3}\)\+?\s+)?(?:vmksummary(?:\[\d+\])?:\s*)?"
    rb"heartbeat(?:\[\d+\])?:\s*up (\d{1,6}d\d{1,2}h\d{1,2}m\d{1,2}s)"
)
_UP_UNITS = bytes.maketrans(b"dhms", b"    ")
_HOURS, _MINUTES = 7199, 59  # seconds: less than what ends a stretch, and than half of what tells two boots apart
_EARLIEST, _LATEST = 631_152_000, 7_258_118_400  # seconds since 1970: 1990 and 2200
_STOPS = BytesAhoCorasick([b"bootstop", b"Host ", b"mark"])
_HOST_EVENTS = BytesAhoCorasick([b".host."])
# Without one of these a line of esxupdate changes nothing.
_CHANGES = BytesAhoCorasick(
    [
        b"_bootbank_",
        b"_locker_",
        *(f"{what}.{done}".encode() for what in ("vib", "profile") for done in ("install", "update", "remove")),
    ]
)
_ESXUPDATE_LINE = re.compile(rb"^" + LOG_HEAD.encode() + rb"esxupdate", re.MULTILINE)
_LINE_STAMP = re.compile(ISO_STAMP.encode())
_VOB_BYTES = re.compile(_VOB.pattern.encode(), re.ASCII)


def _mark(text: str, stamp: datetime, evidence: str, source: str, line: int) -> list[Mark]:
    for words, what in MARKS:
        if words in text:
            return [Mark(time=stamp, what=what, evidence=evidence, source=source, line=line)]
    return []


def read_vmksummary(part: Part, found: Findings) -> None:
    """``vmksummary.log`` of 5.0 to 8.x: hourly heartbeats become stretches, boots and stops become marks."""
    life = Life(part.source, "heartbeat")
    for number, raw in part.blocks():
        block = bare(raw)
        places = _beats_to_see(block)
        if places is None:
            for line, text in enumerate(block.decode("utf-8", "backslashreplace").split("\n"), number):
                _read_beat(text, line, life, found)
        line, counted = number, 0
        for at, runs_on in places or ():
            line, counted = line + block.count(b"\n", counted, at), at
            end = block.find(b"\n", at)
            _read_beat(
                block[at : end if end >= 0 else None].decode("utf-8", "backslashreplace"), line, life, found, runs_on
            )
        for line, text in lines_with(_STOPS, block, number):
            _read_stop(text, line, part, found)
    found.alive += life.close()


def _read_beat(text: str, line: int, life: Life, found: Findings, runs_on: bool = False) -> None:
    beat = _HEARTBEAT.match(text)
    if beat is None:
        return
    day, clock, fraction, zone, days, hours, minutes, seconds, vms = beat.groups("0")
    stamp = stamp_micros(day, clock, fraction, "Z" if zone == "0" else zone)
    if stamp is None:
        found.note_bad_time(line)
        return
    up = (int(days) * 86_400 + int(hours) * 3600 + int(minutes) * 60 + int(seconds)) * SECOND
    life.add(stamp, up, int(vms) if beat[9] else None, line, runs_on)


def _beats_to_see(block: bytes) -> list[tuple[int, bool]] | None:
    # Where the heartbeats begin that may begin or end a stretch: both sides of a gap, and all from where the uptime no longer
    # moves with the clock. None where one is written in no common way, so that all are read.
    beats = [(match.start(), match[1], match[2]) for match in _COMMON_BEAT.finditer(b"\n" + block)]
    if not beats or len(beats) != block.count(b"eartbeat"):
        return None
    places, stamps, ups = zip(*beats, strict=True)
    try:
        seconds = np.frombuffer(b"".join(stamps), "S19").astype("M8[s]").astype(np.int64)
    except ValueError:
        return None
    if not (seconds.min() > _EARLIEST and seconds.max() < _LATEST):
        return None
    numbers = np.fromstring(b"".join(ups).translate(_UP_UNITS), np.int64, sep=" ").reshape(-1, 4)
    boots = seconds - numbers @ (86_400, 3600, 60, 1)
    to_see = np.zeros(len(boots), bool)
    to_see[[0, -1]] = True
    steps = np.diff(seconds)
    begins = [0, *(np.flatnonzero((steps < 0) | (steps > _HOURS + 2)) + 1), len(boots)]
    for doubtful in np.flatnonzero((steps == 0) | (np.abs(steps - _HOURS) <= 2)):  # fractions of a second decide
        to_see[[doubtful, doubtful + 1]] = True
    for begin, end in pairwise(begins):
        moved = np.abs(boots[begin:end] - boots[begin]) >= _MINUTES
        to_see[[begin, end - 1]] = True
        to_see[begin + max(0, int(moved.argmax()) - 1) : end] |= moved.any()
    seen = np.flatnonzero(to_see)
    # What was not looked at between two of them is all one stretch.
    runs_on = np.diff(seen, prepend=-1) > 1
    return list(zip([places[at] for at in seen], runs_on.tolist(), strict=True))


def _read_stop(line: str, number: int, part: Part, found: Findings) -> None:
    match = _SUMMARY.match(line)
    if match is None:
        return
    stamp = parse_stamp(match["stamp"])
    if stamp is None:
        found.note_bad_time(number)
    else:
        found.marks += _mark(match["text"], stamp, "vmksummary", part.source, number)


def read_vmksummary_classic(part: Part, found: Findings) -> None:
    """``vmksummary`` of ESX 3.x and 4.x: epoch, console uptime, vmkernel uptime, VMs, build."""
    life = Life(part.source, "heartbeat")
    builds: dict[str, HostFact] = {}
    for number, line in part.lines:
        match = _CLASSIC.match(line)
        if match is None:
            continue
        stamp = bounded(datetime.fromtimestamp(int(match["epoch"]), UTC))
        if stamp is None:
            found.note_bad_time(number)
            continue
        life.add(int(match["epoch"]) * SECOND, int(float(match["up"]) * SECOND), int(match["vms"]), number)
        builds[match["build"]] = HostFact(host=match["host"], esxi_build=match["build"], time=stamp, source=part.source)
        found.host = found.host or match["host"]
    found.alive += life.close()
    found.facts += builds.values()


def read_vobd(part: Part, found: Findings) -> None:
    """``vobd.log``: each line counts microseconds since boot; some tell of boots and dumps."""
    life = Life(part.source, "vobd")
    for number, raw in part.blocks():
        block = bare(raw)
        if odd_stamps(block):
            for line, text in enumerate(block.decode("utf-8", "backslashreplace").split("\n"), number):
                _count_vob(text, line, life, found)
        else:
            follow(block, number, life, _read_vob)
        for line, text in lines_with(_HOST_EVENTS, block, number):
            match = _VOB.match(text)
            stamp = parse_micros(match["stamp"]) if match else None
            if match and stamp is not None and ".host." in match["event"]:
                found.marks += _mark(match["event"], moment_of(stamp), "vobd", part.source, line)
    found.alive += life.close()


def _read_vob(block: bytes, at: int) -> Sign | None:
    match = _VOB_BYTES.match(block, at)
    stamp = parse_micros(match["stamp"].decode()) if match else None
    return (at, stamp, int(match["us"])) if match and stamp is not None else None


def _count_vob(text: str, line: int, life: Life, found: Findings) -> None:
    match = _VOB.match(text)
    stamp = parse_micros(match["stamp"]) if match else None
    if match and stamp is not None:
        life.add(stamp, int(match["us"]), line=line)
    elif match:
        found.note_bad_time(line)


def read_hostd(part: Part, found: Findings) -> None:
    """``hostd.log``, ``vpxa.log``: power events and tasks as marks, and that the host was alive while it logged."""
    life = Life(part.source, "hostd")
    for number, raw in part.blocks():
        block = bare(raw)
        follow(block, number, life, _read_stamp)
        for line, text in lines_with(_HOSTD_FINDER, block, number):
            moment = parse_stamp(text)
            if moment:
                found.marks += _mark(text, moment, "hostd", part.source, line)
                section = _SECTION.search(text)
                if section:
                    found.fact(part, time=moment, esxi_version=section["version"], esxi_build=section["build"])
    found.alive += life.close()


def _read_stamp(block: bytes, at: int) -> Sign | None:
    match = _LINE_STAMP.match(block, at)
    stamp = parse_micros(match[0].decode()) if match else None
    return None if stamp is None else (at, stamp, None)


def read_esxupdate(part: Part, found: Findings) -> None:
    """``esxupdate.log``: the VIBs that a finished install or removal named, at the time it finished."""
    named: dict[str, tuple[str, int]] = {}
    for number, raw in part.blocks():
        block = bare(raw)
        found.understood = found.understood or _ESXUPDATE_LINE.search(block) is not None
        for line, text in lines_with(_CHANGES, block, number, block.lower()):
            _read_change(text, line, part, named, found)


def _read_change(line: str, number: int, part: Part, named: dict[str, tuple[str, int]], found: Findings) -> None:
    match = _ESXUPDATE.match(line)
    if match is None:
        return
    text, state = match["text"], ""
    for hit in _CHANGE.finditer(text):
        if hit["vib"] is None:
            state = "removed" if hit["removed"] else "installed"
        elif state:
            named[hit["vib"]] = (state, number)
    if _FINISHED.search(text):
        stamp = parse_stamp(match["stamp"])
        for vib, (state, where) in named.items():
            found.drivers += reading_of_id(
                vib, state=state, observed_at=stamp, evidence="esxupdate", source=part.source, line=where
            )
        named.clear()
