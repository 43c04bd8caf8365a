"""What a host's log said before a crash, against what it says on quiet days.

A warning is evidence only where it stands out: many logs complain every day of devices that never stopped anybody. So
each module's warnings in the day before the crash are held against its rate in the time that was watched and led to no
crash.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from psodlib.records import Alive, Crash, Precursor

__all__ = ["BEFORE", "Said", "Standout", "hear", "standouts"]

BEFORE = timedelta(hours=24)  # warnings this long before a crash may foretell it
NOISE = 4  # ... when there are this many times more of them than on quiet days
DAY = timedelta(days=1)
SILENCE = timedelta(hours=2)  # heartbeats are hourly points: between two of them the host was watched

# How far a warning points at the module it names. One whose own heap is full, or whose device stopped answering, is
# itself in trouble; one that is refused memory or has a command aborted may be the victim of another.
WEIGHT = {
    "heap_at_maximum": 1.0,
    "firmware_bad": 1.0,
    "controller_lockup": 1.0,
    "heap_align_failed": 0.8,  # a heap that cannot give a block: full, or broken up by others
    "device_reset": 0.6,
    "out_of_memory": 0.5,
    "command_abort": 0.4,
}  # fmt: skip
VICTIMS = ("out_of_memory", "command_abort", "heap_align_failed")

_DEVICE = re.compile(
    r"\b([a-z]\w{1,40}) [0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\b"
)  # <4>hpsa 0000:03:00.0: resetting
Key = tuple[str, str]  # module or heap, what was said of it


@dataclass(frozen=True, slots=True)
class Said:
    """One host's warnings, ready to be asked about any of its crashes."""

    # the different minutes in which it was said, in order: a warning that repeats itself a thousand times a second is
    # one
    minutes: Mapping[Key, tuple[datetime, ...]] = field(default_factory=dict)
    # warnings without a time: they count for a crash that comes later in the same file
    untimed: tuple[Precursor, ...] = ()
    quiet: Mapping[Key, int] = field(default_factory=dict)  # minutes of them outside the day before any crash
    quiet_days: float | None = None  # watched days outside the day before any crash; None when no evidence tells
    # names that a warning puts before a PCI address: surely drivers, though no list knows them
    drivers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Standout:
    """A module whose warnings before a crash stand out."""

    module: str  # as the warning names it
    weight: float  # between 0 and 1, for ordering: how far the warnings point at it, and how clearly they stand out
    victim: bool  # all that was said is what a victim says too
    why: str  # the counts


def hear(precursors: Iterable[Precursor], alive: Iterable[Alive] = (), crashes: Iterable[Crash] = ()) -> Said:
    """Sort one host's warnings into those of the days before its crashes and those of its quiet days."""
    precursors = [p for p in precursors if p.module]
    found: dict[Key, set[datetime]] = defaultdict(set)
    for p in precursors:
        if p.time:
            found[p.module or "", p.what].add(p.time.replace(second=0, microsecond=0))
    minutes = {key: tuple(sorted(times)) for key, times in found.items()}
    loud = _merged((c.time - BEFORE, c.time) for c in crashes if c.time)
    quiet = {key: len(times) - sum(_within(times, *span) for span in loud) for key, times in minutes.items()}
    watched = _merged(((item.start, item.end) for item in alive), SILENCE)
    if not watched and minutes:
        watched = [(min(times[0] for times in minutes.values()), max(times[-1] for times in minutes.values()))]
    days = (_length(watched) - _overlap(watched, loud)) / DAY if watched else None
    drivers = frozenset(match[1] for p in precursors for match in [_DEVICE.search(p.text)] if match)
    return Said(minutes, tuple(p for p in precursors if not p.time), quiet, days, drivers)


def standouts(said: Said, crash: Crash) -> list[Standout]:
    """Modules whose warnings before a crash stand out from the host's quiet days, the clearest first.

    Notes
    -----
    Counted are minutes with a warning, in the day before the crash or since the boot. They stand out when they are
    ``NOISE`` times the expected number or more, expected from the quiet days' rate with half a day's worth of doubt:
    ``(quiet minutes + 0.5) / (quiet days + 0.5)`` where there were quiet minutes, else 0.
    """
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    span = min(BEFORE, max(crash.uptime, timedelta(minutes=10))) if crash.uptime is not None else BEFORE
    if crash.time:
        start = (crash.time - span).replace(second=0, microsecond=0)
        for (module, what), times in said.minutes.items():
            if count := _within(times, start, crash.time):
                counts[module][what] = count
    for p in filter(lambda p: _may_precede(p, crash), said.untimed):
        counts[p.module or ""][p.what] = counts[p.module or ""].get(p.what, 0) + 1
    found = (_standout(module, whats, said, span / DAY) for module, whats in counts.items())
    return sorted(filter(None, found), key=lambda standout: (-standout.weight, standout.module))


def _may_precede(warning: Precursor, crash: Crash) -> bool:
    # Without a time only its place tells: earlier in the crash's own file. A screen's text has no log beside it to be
    # earlier in, so a warning whose place nobody knows is given the benefit of the doubt.
    if warning.source and crash.source and warning.source != crash.source:
        return False
    return warning.line is None or crash.line is None or warning.line < crash.line


def _standout(module: str, whats: Mapping[str, int], said: Said, days: float) -> Standout | None:
    clear = {what: count for what, count in whats.items() if count >= NOISE * _usual(said, (module, what)) * days}
    if not clear:
        return None
    usual = sum(_usual(said, (module, what)) for what in clear) * days
    count = sum(clear.values())
    weight = max(WEIGHT.get(what, 0.3) for what in clear) * (count + 1) / (count + usual + 2)
    quiet = f"{usual:.2g} expected from quiet days" if said.quiet_days else "no quiet day to compare with"
    why = f"warnings in {count} minutes before the crash ({', '.join(sorted(clear))}), {quiet}"
    return Standout(module, weight, all(what in VICTIMS for what in clear), why)


def _usual(said: Said, key: Key) -> float:
    # Minutes a quiet day.
    quiet = said.quiet.get(key, 0)
    return (quiet + 0.5) / ((said.quiet_days or 0.0) + 0.5) if quiet else 0.0


def _within(times: Sequence[datetime], start: datetime, end: datetime) -> int:
    return bisect_right(times, end) - bisect_left(times, start)


def _merged(
    spans: Iterable[tuple[datetime, datetime]], reach: timedelta = timedelta(0)
) -> list[tuple[datetime, datetime]]:
    out: list[tuple[datetime, datetime]] = []
    for start, end in sorted(spans):
        if out and start - out[-1][1] <= reach:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out


def _length(spans: Iterable[tuple[datetime, datetime]]) -> timedelta:
    return sum((end - start for start, end in spans), timedelta(0))


def _overlap(spans: Sequence[tuple[datetime, datetime]], others: Sequence[tuple[datetime, datetime]]) -> timedelta:
    # Both disjoint and in order.
    total, at = timedelta(0), 0
    for start, end in others:
        while at < len(spans) and spans[at][1] < start:
            at += 1
        here = at
        while here < len(spans) and spans[here][0] < end:
            total += max(min(end, spans[here][1]) - max(start, spans[here][0]), timedelta(0))
            here += 1
    return total
