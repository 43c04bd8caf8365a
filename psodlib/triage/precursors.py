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

from psodlib.records import Alive, Crash, FileReading, Precursor
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
SILENCE = timedelta(hours=2)  # heartbeats are hourly points: between two of them the host was watched

_ADDRESS = re.compile(r"\b([a-z]\w{1,40}) (0000:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\b")  # <4>hpsa 0000:03:00.0: resetting
Key = tuple[str, str]  # module or heap, what was said of it
Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class _Word:
    weight: float
    lasting: bool
    victim: bool
    any: bool


@cache
def _word(what: str) -> _Word | None:
    rule = next((rule for rule in read_rules("warnings.txt", mapped=True) if rule.pattern == what), None)
    if rule is None:
        return None
    weight, *traits = (rule.value or "").split()
    return _Word(float(weight), "lasting" in traits, "victim" in traits, "any" in traits)


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


_NOTHING = Said()


@dataclass(frozen=True, slots=True)
class Standout:
    """A module whose words before a crash stand out."""

    module: str  # as the line names it
    weight: float  # between 0 and 1, for ordering: how far the words point at it, and how clearly they stand out
    victim: bool  # all that was said is what a victim says too
    why: str  # the counts
    words: frozenset[str] = frozenset()  # what was said


# ---- hearing ---------------------------------------------------------------------------------------------------------


def hear_host(readings: Sequence[FileReading]) -> Said:
    """All that one host's files say beside its crashes."""
    drivers = [driver for reading in readings for driver in reading.drivers]
    loaded = {driver.module for driver in drivers if driver.state == "loaded"}
    versions = {release_in(fact.esxi_version) for reading in readings for fact in reading.facts if fact.esxi_version}
    return hear(
        [p for reading in readings for p in reading.precursors],
        [a for reading in readings for a in reading.alive],
        [c for reading in readings for c in reading.crashes],
        boots=[mark.time for reading in readings for mark in reading.marks if mark.what == "booted"],
        loaded=loaded.union(m.module for reading in readings for m in reading.modules if m.crash_id is None),
        devices={driver.address: driver.module for driver in drivers if driver.address},
        release=versions.pop() if len(versions) == 1 else None,
    )


def heard(precursors: Said | Sequence[Precursor], crash: Crash) -> Said:
    """What is known beside a crash, from warnings or as it was heard before."""
    if isinstance(precursors, Said):
        return precursors
    return hear(precursors, crashes=[crash]) if precursors else _NOTHING


def hear(
    precursors: Iterable[Precursor],
    alive: Iterable[Alive] = (),
    crashes: Iterable[Crash] = (),
    *,
    boots: Iterable[datetime] = (),
    loaded: Iterable[str] = (),
    devices: Mapping[str, str] | None = None,
    release: Release | None = None,
) -> Said:
    """Sort one host's warnings into those that came before its crashes and those of its quiet hours."""
    everything, crashes, alive, loaded = list(precursors), list(crashes), list(alive), frozenset(loaded)
    precursors = [p for p in everything if p.module and _word(p.what)]
    claimed = {
        match[2]: match[1] for p in precursors if " 0000:" in p.text for match in [_ADDRESS.search(p.text)] if match
    }
    devices = {**claimed, **(devices or {})}
    # Every adapter of a driver may speak under a number of its own: `mpt2sas17`, `lsi_msgpt3_28`.
    spoken = {p.module or "" for p in precursors}
    names = {name: module_of_word(name, loaded) or devices.get(name.lower(), name) for name in spoken}
    found: dict[Key, set[datetime]] = defaultdict(set)
    for p in precursors:
        name = p.module or ""
        if p.time:
            found[names[name], p.what].add(p.time.replace(second=0, microsecond=0))
    minutes = {key: tuple(sorted(times)) for key, times in found.items()}
    watched = _merged(((item.start, item.end) for item in alive), SILENCE)
    if not watched and minutes:
        watched = [(min(times[0] for times in minutes.values()), max(times[-1] for times in minutes.values()))]
    begins = {*boots, *(item.boot for item in alive if item.boot), *(c.time for c in crashes if c.time)}
    begins |= {crash.time - crash.uptime for crash in crashes if crash.time and crash.uptime is not None}
    loud = {what: _merged(_loud(what, crashes)) for what in {what for _, what in minutes}}
    lines: dict[str, list[int]] = defaultdict(list)
    for crash in crashes:
        if crash.line is not None:
            lines[crash.source or ""].append(crash.line)
    listened = _merged(span for p in everything if p.what == "listened" for span in [_listened(p)] if span)
    attended = {what: listened if what == "said" else watched for what in loud}
    quiet_time = {  # what is left of it without the loud hours
        what: _length(_merged([*spans, *loud[what]])) - _length(loud[what]) for what, spans in attended.items() if spans
    }
    return Said(
        minutes=minutes,
        untimed=tuple(replace(p, module=names[p.module or ""]) for p in precursors if not p.time),
        quiet={key: _outside(times, loud[key[1]]) for key, times in minutes.items()},
        quiet_time=quiet_time,
        boots=tuple(sorted(begins)),
        crash_lines={source: tuple(sorted(numbers)) for source, numbers in lines.items()},
        drivers=frozenset(claimed.values()),
        loaded=loaded,
        devices=devices,
        release=release,
    )


def _listened(marker: Precursor) -> Span | None:
    # From when to when the lines of any words were heard, as evidence/speech.py says it.
    try:
        end = datetime.fromisoformat(marker.text + "+00:00")
    except ValueError:
        return None
    return (marker.time, end) if marker.time and marker.time <= end else None


def _loud(what: str, crashes: Iterable[Crash]) -> Iterable[Span]:
    # The hours that led to a crash: the onset of a leak is no quiet time, be it three days long.
    word = _word(what)
    for crash in crashes:
        if crash.time and word:
            reach = crash.uptime if word.lasting and crash.uptime is not None else BURST if word.any else BEFORE
            yield (crash.time - reach, crash.time)


# ---- standing out ----------------------------------------------------------------------------------------------------


def standouts(said: Said, crash: Crash) -> list[Standout]:
    """Modules whose words before a crash stand out from the host's quiet hours, the clearest first.

    Notes
    -----
    Counted are different minutes. Lasting words count from the boot on, other listed ones in the last day, any words in
    the last ten minutes or the last hour, where two quiet hours can be compared with. Listed words stand out where quiet time has none of them; else when they are
    ``NOISE`` times the expected number, and that or more would come with a probability below ``CHANCE`` from
    ``(quiet minutes + 1) / (quiet time + 1 hour)`` a minute (Poisson). Any words must pass the latter always, and no quiet
    hour may have been as loud.
    """
    counts: dict[str, dict[str, tuple[int, float]]] = defaultdict(dict)
    for (module, what), times in said.minutes.items() if crash.time else ():
        if heard := _heard(said, crash, (module, what), times):
            counts[module][what] = heard
    for p in said.untimed:
        if _may_precede(p, crash, said):
            known = counts[p.module or ""].get(p.what, (0, 0.0))
            counts[p.module or ""][p.what] = (known[0] + 1, known[1])
    found = (_standout(module, whats, said) for module, whats in counts.items())
    return sorted(found, key=lambda standout: (-standout.weight, standout.module))


def _heard(said: Said, crash: Crash, key: Key, times: Sequence[datetime]) -> tuple[int, float] | None:
    # (minutes before the crash, minutes expected) where they stand out.
    word, end = _word(key[1]), crash.time
    if word is None or end is None:
        return None
    boot = _boot_of(said, crash)
    reach = BEFORE if boot is None or not word.lasting else end - boot
    for window in WINDOWS if word.any else (reach,):
        start = _start(end - window, end, boot, word)
        count = bisect_right(times, end) - bisect_left(times, start)
        if not count:
            continue
        quiet, time = said.quiet.get(key, ()), said.quiet_time.get(key[1]) or timedelta(0)
        span = max((end - start) / MINUTE, 1.0)
        expected = (len(quiet) + 1) / ((time + HOUR) / MINUTE) * span
        if not word.any and not quiet:
            return count, 0.0
        if word.any and time < COMPARED:
            continue
        rare = _tail(count, expected) < CHANCE[word.any]
        if rare and (not _as_loud(quiet, count, window) if word.any else count >= NOISE * expected):
            return count, expected
    return None


def _boot_of(said: Said, crash: Crash) -> datetime | None:
    if crash.time is None:
        return None
    if crash.uptime is not None:
        return crash.time - crash.uptime
    at = bisect_left(said.boots, crash.time)
    return said.boots[at - 1] if at else None


def _start(start: datetime, end: datetime, boot: datetime | None, word: _Word) -> datetime:
    # While a host boots, every driver talks and resets its device; one that stops before it settled has nothing else.
    start = start.replace(second=0, microsecond=0)
    if boot is None or word.lasting:
        return start
    settled = boot + SETTLED if word.any or end - boot > 2 * SETTLED else boot
    return max(start, settled)


def _tail(count: int, expected: float) -> float:
    # Poisson: so many or more.
    below = sum(math.exp(n * math.log(expected) - expected - math.lgamma(n + 1)) for n in range(min(count, 60)))
    return max(0.0, 1.0 - below)


def _as_loud(quiet: Sequence[datetime], count: int, window: timedelta) -> bool:
    return any(quiet[i + count - 1] - quiet[i] <= window for i in range(len(quiet) - count + 1))


def _may_precede(warning: Precursor, crash: Crash, said: Said) -> bool:
    # Without a time only its place tells: earlier in the crash's own file, with no other crash between. A screen's text has
    # no log beside it to be earlier in, so a warning whose place nobody knows is given the benefit of the doubt.
    if warning.source and crash.source and warning.source != crash.source:
        return False
    if warning.line is None or crash.line is None:
        return True
    word = _word(warning.what)
    between = any(warning.line < line < crash.line for line in said.crash_lines.get(crash.source or "", ()))
    near = word is None or not word.any or crash.line - warning.line <= NEAR
    return warning.line < crash.line and near and not between


def _standout(module: str, whats: Mapping[str, tuple[int, float]], said: Said) -> Standout:
    words = {what: word for what in whats if (word := _word(what))}
    count, usual = sum(n for n, _ in whats.values()), sum(expected for _, expected in whats.values())
    weight = max(word.weight for word in words.values()) * (count + 1) / (count + usual + 2)
    compared = any(said.quiet_time.get(what) for what in whats)
    quiet = f"{usual:.2g} expected from quiet time" if compared else "no quiet time to compare with"
    why = f"it was heard in {count} minutes before the crash ({', '.join(sorted(whats))}), {quiet}"
    return Standout(module, weight, all(word.victim for word in words.values()), why, frozenset(whats))


# ---- spans -----------------------------------------------------------------------------------------------------------


def _outside(times: Sequence[datetime], spans: Sequence[Span]) -> tuple[datetime, ...]:
    out: list[datetime] = []
    at = 0
    for start, end in spans:
        out += times[at : max(at, bisect_left(times, start))]
        at = max(at, bisect_right(times, end))
    return (*out, *times[at:])


def _merged(spans: Iterable[Span], reach: timedelta = timedelta(0)) -> list[Span]:
    out: list[Span] = []
    for start, end in sorted(spans):
        if out and start - out[-1][1] <= reach:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out


def _length(spans: Iterable[Span]) -> timedelta:
    return sum((end - start for start, end in spans), timedelta(0))
