"""Logs that tell of a host's life and its VIBs: vmksummary, vobd, hostd, vpxa, esxupdate.

Lines that matter are found without a look at each: by words in them, or by bisection between two signs of life.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
from ahocorasick_rs import BytesAhoCorasick, MatchKind

from psodlib.evidence.artifacts.commands import VIB_ID
from psodlib.evidence.artifacts.findings import ANY_STAMP, ISO_STAMP, MAX_LINE, Findings, Part
from psodlib.evidence.life import Life, Sign
from psodlib.evidence.pieces import bounded, moment_of
from psodlib.records import HostFact, Mark

# A line that begins with a stamp of no moment between 1990 and 2200.
_ODD_STAMP = re.compile(
    rb"(?:\A|\n)(?!(?:199|20\d|21\d)\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)\d{4}-\d\d-\d\dT"
)
# 8.0 puts a severity between stamp and program: `In(14)`; `+` marks a continuation.
LOG_GAP = r":?\s+(?:[A-Z][a-z]\(\d{1,3}\)\+?\s+)?"
LOG_HEAD = rf"(?P<stamp>{ISO_STAMP})" + LOG_GAP
_SUMMARY = re.compile(LOG_HEAD + r"(?:vmksummary(?:\[\d+\])?:\s*)?(?P<text>(?:heartbeat|bootstop|Host |mark).{0,400})")
_HEARTBEAT = re.compile(
    rf"({ANY_STAMP})" + LOG_GAP + r"(?:vmksummary(?:\[\d+\])?:\s*)?heartbeat(?:\[\d+\])?:\s*"
    r"up (?:(\d{1,6})d)?(?:(\d{1,2})h)?(?:(\d{1,2})m)?(?:(\d{1,2})s)?(?:,\s*(\d{1,6}) VM)?",
    re.ASCII,
)
_CLASSIC = re.compile(
    r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d (?P<host>\S+) logger: \((?P<epoch>\d{9,10})\) hb: vmk loaded, "
    r"[\d.]+, (?P<up>\d{1,10}(?:\.\d+)?), (?P<vms>\d{1,6}), (?P<build>\d{1,9})"
)
_VOB = re.compile(
    (LOG_HEAD + r"(?:vobd(?:\[\d+\])?:\s*)?\[\w+\] (?P<us>\d{1,18})us:\s*\[(?P<event>[\w.]+)\]").encode(), re.ASCII
)
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

# How a host started or stopped, and the words of logs that say so.
MARKS = {
    "booted": ("Host has booted", "esx.audit.host.boot", "vob.user.host.boot"),
    "rebooting": ("Host is rebooting", "vim.HostSystem.reboot", "DCUI: reboot", "esx.audit.host.stop.reboot"),
    "powering_off": (
        "Host is powering off", "Host is shutting down", "vim.HostSystem.shutdown", "DCUI: power off", "esx.audit.host.stop.shutdown",
    ),
    "halting": ("Host is halting",),
    "core_dump_found": ("ore dump found", "esx.problem.host.coredump", "vob.user.host.coredump"),
    "poweroff_unexplained": ("esx.audit.host.poweroff.reason.unavailable",),
}  # fmt: skip
# The head of every log of hostd and vpxa.
_SECTION = re.compile(
    r"Section for VMware ESX.{0,80}?\bversion=(?P<esxi_version>\d{1,2}(?:\.\d{1,3}){2})(?:.{0,20}?\bbuild=(?:build-)?(?P<esxi_build>\d{4,12})\b)?"
)
_SAID = (words for told in MARKS.values() for words in told if words.startswith(("esx.", "vim.", "Host ", "DCUI: ")))
_HOSTD_FINDER = BytesAhoCorasick(
    [b"Section for VMware ESX", *map(str.encode, _SAID)], matchkind=MatchKind.LeftmostFirst
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
_CHANGES = BytesAhoCorasick([b"_bootbank_", b"_locker_"] + [
    what + done for what in (b"vib", b"profile") for done in (b".install", b".update", b".remove")
])  # fmt: skip
_ESXUPDATE_LINE = re.compile(rb"^" + LOG_HEAD.encode() + rb"esxupdate", re.MULTILINE)
_VOB_LINE = re.compile(rb"\n" + _VOB.pattern, re.ASCII)
_STAMPED_LINE = re.compile(rb"\n(?P<stamp>" + ISO_STAMP.encode() + rb")(?P<us>)")


def _keep_mark(text: str, stamp: datetime, evidence: str, part: Part, line: int, found: Findings) -> None:
    what = next((what for what, told in MARKS.items() if any(words in text for words in told)), None)
    if what:
        found.marks.append(Mark(time=stamp, what=what, evidence=evidence, source=part.source, line=line))


def _text(line: bytes) -> str:
    return line[:MAX_LINE].decode("utf-8", "backslashreplace").removesuffix("\r")


def _lines_with(finder: Any, block: bytes, number: int, searched: bytes | None = None) -> Iterator[tuple[int, str]]:
    # The lines of a block that hold a word, as (number, text); `searched` is the block in small letters, say.
    counted, passed = 0, -1
    for _, at, _ in finder.find_matches_as_indexes(block if searched is None else searched):
        if at > passed:
            begin, passed = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", at)
            passed = len(block) if passed < 0 else passed
            number, counted = number + block.count(b"\n", counted, begin), begin
            yield number, _text(block[begin:passed])


def read_vmksummary(part: Part, found: Findings) -> None:
    """``vmksummary.log`` of 5.0 to 8.x: hourly heartbeats become stretches, boots and stops become marks."""
    life = Life(part.source, "heartbeat")
    for number, block in part.blocks():
        line, counted = number, 0
        every = ((match.start(), False) for match in re.finditer(rb"(?m)^.", block))
        for at, runs_on in _beats_to_see(block) or every:
            line, counted = line + block.count(b"\n", counted, at), at
            end = block.find(b"\n", at)
            beat = _HEARTBEAT.match(_text(block[at : end if end >= 0 else None]))
            if beat is None:
                continue
            stamp, days, hours, minutes, seconds, vms = beat.groups("0")
            if moment := moment_of(stamp):
                up = timedelta(days=int(days), hours=int(hours), minutes=int(minutes), seconds=int(seconds))
                life.add(moment, up, int(vms) if beat[6] else None, line, runs_on)
            else:
                found.note_bad_time(line)
        for line, text in _lines_with(_STOPS, block, number):
            if match := _SUMMARY.match(text):
                if stopped := moment_of(match["stamp"]):
                    _keep_mark(match["text"], stopped, "vmksummary", part, line, found)
                else:
                    found.note_bad_time(line)
    found.alive += life.stretches


def _beats_to_see(block: bytes) -> list[tuple[int, bool]]:
    # Where the heartbeats begin that may begin or end a stretch: both sides of a gap, and all from where the uptime no longer
    # moves with the clock. None where one is written in no common way, so that all are read.
    beats = [(match.start(), match[1], match[2]) for match in _COMMON_BEAT.finditer(b"\n" + block)]
    if not beats or len(beats) != block.count(b"eartbeat"):
        return []
    places, stamps, ups = zip(*beats, strict=True)
    try:
        seconds = np.frombuffer(b"".join(stamps), "S19").astype("M8[s]").astype(np.int64)
    except ValueError:
        return []
    if not (seconds.min() > _EARLIEST and seconds.max() < _LATEST):
        return []
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
        life.add(stamp, timedelta(seconds=float(match["up"])), int(match["vms"]), number)
        builds[match["build"]] = HostFact(host=match["host"], esxi_build=match["build"], time=stamp, source=part.source)
        found.host = found.host or match["host"]
    found.alive += life.stretches
    found.facts += builds.values()


def read_vobd(part: Part, found: Findings) -> None:
    """``vobd.log``: each line counts microseconds since boot; some tell of boots and dumps."""
    life = Life(part.source, "vobd")
    for number, block in part.blocks():
        if _ODD_STAMP.search(block):
            for line, text in enumerate(block.split(b"\n"), number):
                if (match := _VOB.match(text)) and not _sign(match):
                    found.note_bad_time(line)
        _follow(block, number, life, _VOB_LINE)
        for line, told in _lines_with(_HOST_EVENTS, block, number):
            match = _VOB.match(told.encode("utf-8", "backslashreplace"))
            if match and b".host." in match["event"] and (sign := _sign(match)):
                _keep_mark(match["event"].decode(), sign[1], "vobd", part, line, found)
    found.alive += life.stretches


def read_hostd(part: Part, found: Findings) -> None:
    """``hostd.log``, ``vpxa.log``: power events and tasks as marks, and that the host was alive while it logged."""
    life = Life(part.source, "hostd")
    for number, block in part.blocks():
        _follow(block, number, life, _STAMPED_LINE)
        for line, text in _lines_with(_HOSTD_FINDER, block, number):
            if moment := moment_of(text):
                _keep_mark(text, moment, "hostd", part, line, found)
                if section := _SECTION.search(text):
                    found.fact(part, time=moment, **section.groupdict())
    found.alive += life.stretches


def _sign(match: re.Match[bytes]) -> Sign | None:
    moment = moment_of(match["stamp"].decode())
    up = timedelta(microseconds=int(match["us"])) if match["us"] else None
    return (match.start(), moment, up) if moment else None


def _follow(block: bytes, number: int, life: Life, pattern: re.Pattern[bytes]) -> None:
    life.follow(whole := b"\n" + block, pattern, _sign, line_of=lambda at: number + whole.count(b"\n", 0, at))


def read_esxupdate(part: Part, found: Findings) -> None:
    """``esxupdate.log``: the VIBs that a finished install or removal named, at the time it finished."""
    named: dict[str, tuple[str, int]] = {}
    for number, block in part.blocks():
        found.understood = found.understood or _ESXUPDATE_LINE.search(block) is not None
        for line, text in _lines_with(_CHANGES, block, number, block.lower()):
            if match := _ESXUPDATE.match(text):
                _read_change(match["text"], match["stamp"], line, part, named, found)


def _read_change(
    text: str, stamp: str, line: int, part: Part, named: dict[str, tuple[str, int]], found: Findings
) -> None:
    state = ""
    for hit in _CHANGE.finditer(text):
        if hit["vib"] is None:
            state = "removed" if hit["removed"] else "installed"
        elif state:
            named[hit["vib"]] = (state, line)
    if _FINISHED.search(text):
        for vib, (state, where) in named.items():
            found.vib(part, where, vib, state=state, observed_at=moment_of(stamp), evidence="esxupdate")
        named.clear()
