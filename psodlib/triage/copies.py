"""Which crash texts are copies of one crash, and which names are one host's: one row a crash, and nothing merged in silence. Pure.

One host's texts are copies if nothing that they tell contradicts. Texts under two names are two crashes, unless they agree on
uptime, to the millisecond, and on time, or the names on a serial number: then the names are one host's. Either is said.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from psodlib.records import Crash, FileReading, Problem

_SAME_MOMENT = timedelta(seconds=2)
_SKEW = timedelta(minutes=10)  # between two clocks, or between a panic and the end of its dump
_ZONE = timedelta(hours=26)  # the same where a clock may be wrong by its zone
_SHARED_FACTS = ("uptime", "exception", "world_id", "fault_address", "code_start", "esxi_build")

ByHost = Mapping[str | None, Sequence[FileReading]]
Crashes = dict[str | None, list[Crash]]


# ---- two texts --------------------------------------------------------------------------------------------------------


def same_crash(a: Crash, b: Crash) -> bool:
    """Whether two readings are copies of one crash, one perhaps damaged; hosts are not looked at."""
    facts = ((getattr(a, name), getattr(b, name)) for name in _SHARED_FACTS)
    if any(one is not None and other is not None and one != other for one, other in facts):
        return False
    apart = abs(a.time - b.time) if a.time and b.time else None
    same_uptime = _agree(a.uptime, b.uptime)
    if apart is not None and apart > (_ZONE if same_uptime else _SKEW):
        return False
    if a.crash_id and a.crash_id == b.crash_id:
        return True
    if same_uptime and (_agree(a.code_start, b.code_start) or _agree(a.ip, b.ip)):
        return True
    one, other = plain_message(a.message), plain_message(b.message)
    near = apart is not None and apart <= _SAME_MOMENT
    return near and bool(one) and bool(other) and (one.startswith(other) or other.startswith(one))


def plain_message(message: str | None) -> str:
    """Letters and figures alone: what two copies of one message share."""
    return re.sub(r"[^0-9a-z]", "", (message or "").replace("\\x", "").lower())[:200]


def _agree(one: object, other: object) -> bool:
    return one is not None and one == other


# ---- two names --------------------------------------------------------------------------------------------------------


def one_host_under_two_names(by_host: ByHost) -> tuple[dict[str, str], list[Problem]]:
    """Name -> the name to use, for hosts that a crash shows to be one; and a word on each."""
    seen: dict[str, list[tuple[str, Crash]]] = defaultdict(list)
    serials: dict[str, set[str]] = {}
    for host in sorted(name for name in by_host if name is not None):
        serials[host] = {fact.serial for reading in by_host[host] for fact in reading.facts if fact.serial}
        for crash in (crash for reading in by_host[host] for crash in reading.crashes if crash.crash_id):
            seen[str(crash.crash_id)].append((host, crash))
    leader: dict[str, str] = {}
    problems = []
    for sightings in seen.values():
        for host, crash in sightings:
            for other, twin in sightings[:8]:
                one, two = _leads(leader, host), _leads(leader, other)
                near = crash.time and twin.time and abs(crash.time - twin.time) <= _SKEW
                if one == two or not ((near and _agree(crash.uptime, twin.uptime)) or serials[host] & serials[other]):
                    continue
                # The name that was in use last is the one to go on with.
                kept, given_up = sorted((one, two), key=lambda name: (_last_seen(by_host[name]), name), reverse=True)
                leader[given_up] = kept
                detail = (
                    f"{given_up} and {kept} print one crash, with the same uptime at the same time: one host under two names; "
                    f"what is known of either stands under {kept}"
                )
                problems.append(_conflict(crash, kept, detail))
    return {name: _leads(leader, name) for name in leader}, problems


def _conflict(crash: Crash, host: str | None, detail: str) -> Problem:
    return Problem(source=crash.source or "", problem="host_conflict", host=host, line=crash.line, detail=detail)


def _leads(leader: Mapping[str, str], name: str) -> str:
    while name in leader:
        name = leader[name]
    return name


def _last_seen(readings: Sequence[FileReading]) -> float:
    times: list[datetime] = [stretch.end for reading in readings for stretch in reading.alive]
    times += [crash.time for reading in readings for crash in reading.crashes if crash.time]
    return max((time.timestamp() for time in times), default=float("-inf"))


# ---- one row a crash --------------------------------------------------------------------------------------------------


def one_row_a_crash(by_host: Mapping[str | None, Sequence[Crash]]) -> tuple[Crashes, list[Problem]]:
    """Copies of one crash -> the fullest copy, with the number of copies; what is told of two hosts stays with both."""
    out: Crashes = {host: [] for host in by_host}
    places: dict[str | None, list[tuple[str, int]]] = defaultdict(list)
    for host in sorted(by_host, key=lambda name: (name is None, name)):
        for crash in _merged(by_host[host]):
            # A text of nobody is a copy of a host's that says the same.
            twins = places[crash.crash_id] if host is None else []
            owner = next(((name, at) for name, at in twins if same_crash(out[name][at], crash)), None)
            if owner is None:
                if host is not None:
                    places[crash.crash_id].append((host, len(out[host])))
                out[host].append(replace(crash, host=host))
            else:
                name, at = owner
                out[name][at] = replace(_fullest([out[name][at], crash]), host=name)
    return _told_apart(out)


def _told_apart(by_host: Crashes) -> tuple[Crashes, list[Problem]]:
    # Crashes that print alike and are not one: the first keeps the id that all loads give it, each other gets one of its own.
    alike: dict[str | None, list[tuple[str | None, int, Crash]]] = defaultdict(list)
    for host, crashes in by_host.items():
        for at, crash in enumerate(crashes):
            alike[crash.crash_id].append((host, at, crash))
    problems = []
    for twins in alike.values():
        twins.sort(key=lambda twin: (twin[2].time is None, twin[2].time and twin[2].time.timestamp(), twin[0] or ""))
        first, _, kept = twins[0]
        for host, at, crash in twins[1:]:
            own = f"{crash.crash_id} {host} {crash.time.isoformat() if crash.time else ''}"
            by_host[host][at] = replace(crash, crash_id=hashlib.sha256(own.encode()).hexdigest()[:16])
            if host != first:
                detail = (
                    f"prints the same crash as {first} ({kept.source}); nothing shows that the two are one host, so each keeps its own. "
                    "If one is a copy of the other's file, remove the copy"
                )  # fmt: skip
                problems.append(_conflict(crash, host, detail))
    return by_host, problems


def _merged(crashes: Sequence[Crash]) -> list[Crash]:
    # One host's copies. Only those that share a key can be one crash, so a flood of crashes stays linear.
    groups: list[list[Crash]] = []
    by_key: dict[Any, list[int]] = defaultdict(list)
    for crash in sorted(crashes, key=_quality, reverse=True):
        keys: list[Any] = [crash.crash_id, *([] if crash.uptime is None else [crash.uptime])]
        if crash.time is not None:
            second = int(crash.time.timestamp())
            keys += [second - 2, second, second + 2] if second % 2 == 0 else [second - 1, second + 1]
        places = sorted({place for key in keys for place in by_key[key][:8]})
        at = next((place for place in places if same_crash(groups[place][0], crash)), len(groups))
        if at == len(groups):
            groups.append([])
        groups[at].append(crash)
        for key in keys:
            if at not in by_key[key]:
                by_key[key].append(at)
    return [_fullest(group) for group in groups]


def _quality(crash: Crash) -> tuple[int, int, int, str]:
    damage = len(crash.damage.split(";")) if crash.damage else 0
    return (-damage, len(crash.frames), len(crash.modules), crash.sha256 or "")


def _fullest(copies: Iterable[Crash]) -> Crash:
    # The best copy, its unknown time filled from the others: a screen text knows the stack, a log knows when.
    best, *others = sorted(copies, key=_quality, reverse=True)
    filled = {
        name: next((value for copy in others if (value := getattr(copy, name)) is not None), None)
        for name in ("time", "uptime", "esxi_version", "esxi_build", "pcpu", "world_id", "world_name", "code_start")
        if getattr(best, name) is None
    }
    return replace(best, copies=best.copies + sum(copy.copies for copy in others), **filled)  # type: ignore[arg-type]
