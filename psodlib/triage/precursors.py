"""What a host's log said before a crash, against what it says otherwise.

A warning is evidence only where it stands out: many logs complain every day of devices that never stopped anybody. So
each module's words before the crash are held against its rate in the time that was watched and led to no crash. What was
said in an earlier boot proves nothing: a boot begins anew.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from typing import NamedTuple

from psodlib.evidence.pieces import moment_of
from psodlib.records import Crash, FileReading, Precursor
from psodlib.triage.boots import SILENCE, Span, merged
from psodlib.triage.lists import read_rules
from psodlib.triage.modules import Release, module_of_word, release_in

BEFORE = timedelta(hours=24)  # listed words this long before a crash may foretell it
BURST = timedelta(hours=1)  # any words
WINDOWS = (timedelta(minutes=10), BURST)  # ... as bursts of this length
COMPARED = timedelta(hours=2)  # quiet time that any words need to be compared with
SETTLED = timedelta(minutes=5)  # since the boot: before, every driver talks
NOISE = 4  # listed words count when there are this many times more of them than on quiet days
CHANCE = {True: 0.001, False: 0.02}  # probability that so many would be said by chance: any words, listed words
NEAR = 50  # lines before a crash that bears no time, for any words
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)

_ADDRESS = re.compile(r"\b([a-z]\w{1,40}) (0000:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\b")  # <4>hpsa 0000:03:00.0: resetting
Key = tuple[str, str]  # module or heap, what was said of it


class _Word(NamedTuple):
    weight: float
    lasting: bool
    victim: bool
    any: bool


@cache
def _words() -> dict[str, _Word]:
    rules = ((rule.pattern, *(rule.value or "").split()) for rule in read_rules("warnings.txt", mapped=True))
    return {
        what: _Word(float(weight), "lasting" in traits, "victim" in traits, "any" in traits)
        for what, weight, *traits in rules
    }


@dataclass(frozen=True, slots=True)
class Said:
    """What one host's files say beside its crashes, ready to be asked about any of them."""

    # the different minutes in which it was said, in order: what repeats itself a thousand times a second is one
    minutes: Mapping[Key, tuple[datetime, ...]] = field(default_factory=dict)
    # warnings without a time: they count for a crash that comes later in the same file
    untimed: tuple[Precursor, ...] = ()
    quiet: Mapping[Key, tuple[datetime, ...]] = field(default_factory=dict)  # minutes of them that led to no crash
    quiet_time: Mapping[str, timedelta] = field(default_factory=dict)  # watched time that led to none; by word
    boots: tuple[datetime, ...] = ()  # when a boot began, or an earlier one ended in a crash, in order
    crash_lines: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # of each file's crashes
    # names that a warning puts before a PCI address: surely drivers, though no list knows them
    drivers: frozenset[str] = frozenset()
    loaded: frozenset[str] = frozenset()  # modules that the host is known to have loaded
    devices: Mapping[str, str] = field(default_factory=dict)  # PCI address -> driver
    release: Release | None = None  # where all files tell of one release


@dataclass(frozen=True, slots=True)
class Standout:
    """A module whose words before a crash stand out."""

    module: str  # as the line names it
    weight: float  # between 0 and 1, for ordering: how far the words point at it, and how clearly they stand out
    victim: bool  # all that was said is what a victim says too
    why: str  # the counts
    words: frozenset[str] = frozenset()  # what was said


def heard(precursors: Said | Sequence[Precursor], crash: Crash) -> Said:
    """What is known beside a crash, from warnings or as it was heard before."""
    if isinstance(precursors, Said):
        return precursors
    told = FileReading(source="", kind="", precursors=tuple(precursors), crashes=(crash,))
    return hear_host([told]) if precursors else Said()


def hear_host(readings: Sequence[FileReading]) -> Said:
    """All that one host's files say beside its crashes: what came before those, and what in its quiet hours."""
    everything = [p for reading in readings for p in reading.precursors]
    alive = [a for reading in readings for a in reading.alive]
    crashes = [c for reading in readings for c in reading.crashes]
    drivers = [driver for reading in readings for driver in reading.drivers]
    loaded = frozenset(driver.module for driver in drivers if driver.state == "loaded")
    loaded |= {m.module for reading in readings for m in reading.modules if m.crash_id is None}
    versions = {release_in(fact.esxi_version) for reading in readings for fact in reading.facts if fact.esxi_version}
    told = [p for p in everything if p.module and p.what in _words()]
    claimed = {m[2]: m[1] for p in told if " 0000:" in p.text and (m := _ADDRESS.search(p.text))}
    devices = {**claimed, **{driver.address: driver.module for driver in drivers if driver.address}}
    # Every adapter of a driver may speak under a number of its own: `mpt2sas17`, `lsi_msgpt3_28`.
    spoken = {p.module or "" for p in told}
    names = {name: module_of_word(name, loaded) or devices.get(name.lower(), name) for name in spoken}
    found: dict[Key, set[datetime]] = defaultdict(set)
    for p in told:
        if p.time:
            found[names[p.module or ""], p.what].add(p.time.replace(second=0, microsecond=0))
    minutes = {key: tuple(sorted(times)) for key, times in found.items()}
    watched = merged(sorted((item.start, item.end) for item in alive), SILENCE)
    if not watched and minutes:
        watched = [(min(times[0] for times in minutes.values()), max(times[-1] for times in minutes.values()))]
    # From when to when the lines of any words were heard, as evidence/speech.py says it.
    heeded = ((p.time, moment_of(f"{p.text}:00")) for p in everything if p.what == "listened")
    listened = merged(sorted((start, end) for start, end in heeded if start and end and start <= end))
    loud = {what: _loud(_words()[what], crashes) for _, what in minutes}
    attended = {what: listened if what == "said" else watched for what in loud}
    begins = {mark.time for reading in readings for mark in reading.marks if mark.what == "booted"}
    begins |= {item.boot for item in alive if item.boot} | {crash.time for crash in crashes if crash.time}
    begins |= {crash.time - crash.uptime for crash in crashes if crash.time and crash.uptime is not None}
    lines: dict[str, list[int]] = defaultdict(list)
    for crash in crashes:
        if crash.line is not None:
            lines[crash.source or ""].append(crash.line)
    return Said(
        minutes=minutes,
        untimed=tuple(replace(p, module=names[p.module or ""]) for p in told if not p.time),
        quiet={key: _outside(times, loud[key[1]]) for key, times in minutes.items()},
        quiet_time={  # what is left of it without the loud hours
            what: _length(merged(sorted([*spans, *loud[what]]))) - _length(loud[what])
            for what, spans in attended.items()
            if spans
        },
        boots=tuple(sorted(begins)),
        crash_lines={source: tuple(sorted(numbers)) for source, numbers in lines.items()},
        drivers=frozenset(claimed.values()),
        loaded=loaded,
        devices=devices,
        release=versions.pop() if len(versions) == 1 else None,
    )


def _loud(word: _Word, crashes: Iterable[Crash]) -> list[Span]:
    # The hours that led to a crash: the onset of a leak is no quiet time, be it three days long.
    spans = []
    for crash in crashes:
        if crash.time:
            reach = crash.uptime if word.lasting and crash.uptime is not None else BURST if word.any else BEFORE
            spans.append((crash.time - reach, crash.time))
    return merged(sorted(spans))


def _outside(times: Sequence[datetime], spans: Sequence[Span]) -> tuple[datetime, ...]:
    ends = [end for _, end in spans]
    nearest = ((time, bisect_left(ends, time)) for time in times)
    return tuple(time for time, at in nearest if at == len(spans) or time < spans[at][0])


def _length(spans: Iterable[Span]) -> timedelta:
    return sum((end - start for start, end in spans), timedelta(0))


def standouts(said: Said, crash: Crash) -> list[Standout]:
    """Modules whose words before a crash stand out from the host's quiet hours, the clearest first.

    Notes
    -----
    Counted are different minutes. Lasting words count from the boot on, other listed ones in the last day, any words in
    the last ten minutes or the last hour, where two quiet hours can be compared with. Listed words stand out where quiet
    time has none of them; else when they are ``NOISE`` times the expected number, and that or more would come with a
    probability below ``CHANCE`` from ``(quiet minutes + 1) / (quiet time + 1 hour)`` a minute (Poisson). Any words must
    pass the latter always, and no quiet hour may have been as loud.
    """
    counts: dict[str, dict[str, tuple[int, float]]] = defaultdict(dict)
    for (module, what), times in said.minutes.items():
        if crash.time and (found := _heard(said, crash, crash.time, (module, what), times)):
            counts[module][what] = found
    for p in said.untimed:
        if _may_precede(p, crash, said):
            count, expected = counts[p.module or ""].get(p.what, (0, 0.0))
            counts[p.module or ""][p.what] = count + 1, expected
    out = []
    for module, whats in counts.items():
        words = [_words()[what] for what in whats]
        count, usual = sum(n for n, _ in whats.values()), sum(expected for _, expected in whats.values())
        weight = max(word.weight for word in words) * (count + 1) / (count + usual + 2)
        compared = any(said.quiet_time.get(what) for what in whats)
        quiet = f"{usual:.2g} expected from quiet time" if compared else "no quiet time to compare with"
        why = f"it was heard in {count} minutes before the crash ({', '.join(sorted(whats))}), {quiet}"
        out.append(Standout(module, weight, all(word.victim for word in words), why, frozenset(whats)))
    return sorted(out, key=lambda standout: (-standout.weight, standout.module))


def _heard(said: Said, crash: Crash, end: datetime, key: Key, times: Sequence[datetime]) -> tuple[int, float] | None:
    # (minutes before the crash, minutes expected) where they stand out.
    word = _words()[key[1]]
    earlier = bisect_left(said.boots, end)
    boot = end - crash.uptime if crash.uptime is not None else said.boots[earlier - 1] if earlier else None
    quiet, time = said.quiet.get(key, ()), said.quiet_time.get(key[1]) or timedelta(0)
    for window in WINDOWS if word.any else (end - boot if boot and word.lasting else BEFORE,):
        start = (end - window).replace(second=0, microsecond=0)
        if boot and not word.lasting:
            # While a host boots, every driver talks and resets its device; one that stops before it settled has nothing else.
            start = max(start, boot + SETTLED if word.any or end - boot > 2 * SETTLED else boot)
        count = bisect_right(times, end) - bisect_left(times, start)
        if count and not word.any and not quiet:
            return count, 0.0
        if not count or (word.any and time < COMPARED):
            continue
        expected = (len(quiet) + 1) / ((time + HOUR) / MINUTE) * max((end - start) / MINUTE, 1.0)
        # Poisson: so many or more.
        fewer = (n * math.log(expected) - expected - math.lgamma(n + 1) for n in range(min(count, 60)))
        rare = max(0.0, 1.0 - sum(map(math.exp, fewer))) < CHANCE[word.any]
        as_loud = any(later - first <= window for first, later in zip(quiet, quiet[count - 1 :], strict=False))
        if rare and (not as_loud if word.any else count >= NOISE * expected):
            return count, expected
    return None


def _may_precede(warning: Precursor, crash: Crash, said: Said) -> bool:
    # Without a time only its place tells: earlier in the crash's own file, with no other crash between. A screen's text has
    # no log beside it to be earlier in, so a warning whose place nobody knows is given the benefit of the doubt.
    if warning.source and crash.source and warning.source != crash.source:
        return False
    if warning.line is None or crash.line is None:
        return True
    between = any(warning.line < line < crash.line for line in said.crash_lines.get(crash.source or "", ()))
    near = not _words()[warning.what].any or crash.line - warning.line <= NEAR
    return warning.line < crash.line and near and not between
