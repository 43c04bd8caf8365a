"""Logs that tell of a host's life and its VIBs: vmksummary, vobd, hostd, vpxa, esxupdate."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

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
from psodlib.evidence.artifacts.vibs import VIB_ID, reading_of_id
from psodlib.records import HostFact, Mark

__all__ = ["MARKS", "read_esxupdate", "read_hostd", "read_vmksummary", "read_vmksummary_classic", "read_vobd"]

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
_EARLY_STAMP = re.compile(rb"^(" + ISO_STAMP.encode() + rb")", re.MULTILINE)
_LATE_STAMP = re.compile(rb"\n(" + ISO_STAMP.encode() + rb")")


def _mark(text: str, stamp: datetime, evidence: str, source: str, line: int) -> list[Mark]:
    for words, what in MARKS:
        if words in text:
            return [Mark(time=stamp, what=what, evidence=evidence, source=source, line=line)]
    return []


def read_vmksummary(part: Part, found: Findings) -> None:
    """``vmksummary.log`` of 5.0 to 8.x: hourly heartbeats become stretches, boots and stops become marks."""
    life = Life(part.source, "heartbeat")
    for number, line in part.lines:
        beat = _HEARTBEAT.match(line)
        if beat is None:
            _read_stop(line, number, part, found)
            continue
        day, clock, fraction, zone, days, hours, minutes, seconds, vms = beat.groups("0")
        stamp = stamp_micros(day, clock, fraction, "Z" if zone == "0" else zone)
        if stamp is None:
            found.note_bad_time(number)
            continue
        up = (int(days) * 86_400 + int(hours) * 3600 + int(minutes) * 60 + int(seconds)) * SECOND
        life.add(stamp, up, int(vms) if beat[9] else None, number)
    found.alive += life.close()


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
    for number, line in part.lines:
        match = _VOB.match(line)
        if match is None:
            continue
        stamp = parse_micros(match["stamp"])
        if stamp is None:
            found.note_bad_time(number)
            continue
        life.add(stamp, int(match["us"]), line=number)
        if ".host." in match["event"]:
            found.marks += _mark(match["event"], moment_of(stamp), "vobd", part.source, number)
    found.alive += life.close()


def read_hostd(part: Part, found: Findings) -> None:
    """``hostd.log``, ``vpxa.log``: power events and tasks as marks, and that the host was alive while it logged."""
    life = Life(part.source, "hostd")
    for number, block in part.blocks():
        for line, stamp in _signs_of_life(block, number):
            life.add(stamp, line=line)
        seen = -1
        for _, at, _ in _HOSTD_FINDER.find_matches_as_indexes(block):
            begin = block.rfind(b"\n", 0, at) + 1
            if begin == seen:
                continue
            seen = begin
            end = block.find(b"\n", at)
            text = block[begin : end if end >= 0 else None].decode("utf-8", "backslashreplace")
            moment = parse_stamp(text)
            if moment:
                line = number + block.count(b"\n", 0, begin)
                found.marks += _mark(text, moment, "hostd", part.source, line)
                section = _SECTION.search(text)
                if section:
                    found.facts.append(
                        HostFact(
                            esxi_version=section["version"],
                            esxi_build=section["build"],
                            time=moment,
                            source=part.source,
                        )
                    )
    found.alive += life.close()


def _signs_of_life(block: bytes, number: int) -> Iterator[tuple[int, int]]:
    # (line, microseconds): the first and the last stamp of a block that spans no hour, else the first and last of each hour.
    first = _EARLY_STAMP.search(block)
    *_, last = (None, *_LATE_STAMP.finditer(block, max(0, len(block) - 4096)))
    start, end = (parse_micros(match[1].decode()) if match else None for match in (first, last))
    if first and start is not None and end is not None and 0 <= end - start <= 3600 * SECOND:
        yield number + block.count(b"\n", 0, first.start(1)), start
        yield number + block.count(b"\n"), end
        return
    hour, before = b"", None
    for line, text in enumerate(block.split(b"\n"), number):
        if text[:2] not in (b"19", b"20"):
            continue
        if text[:13] != hour:
            hour = text[:13]
            yield from _stamps(before, (line, text))
        before = (line, text)
    yield from _stamps(before)


def _stamps(*lines: tuple[int, bytes] | None) -> Iterator[tuple[int, int]]:
    for line in lines:
        stamp = parse_micros(line[1][:40].decode("utf-8", "backslashreplace")) if line else None
        if line and stamp is not None:
            yield line[0], stamp


def read_esxupdate(part: Part, found: Findings) -> None:
    """``esxupdate.log``: the VIBs that a finished install or removal named, at the time it finished."""
    named: dict[str, tuple[str, int]] = {}
    for number, line in part.lines:
        match = _ESXUPDATE.match(line)
        if match is None:
            continue
        text, state, found.understood = match["text"], "", True
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
            named = {}
