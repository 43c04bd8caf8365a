"""One host's boots, how each of them ended, what the evidence covers, and the driver version loaded in each.

A boot's start comes, strongest first, from an uptime counter (heartbeat, ``vobd``, an uptime reading, a crash's own
uptime), from a ``Host has booted`` line, or from the first sign of life after a stop. Evidence never stretches: a
counter proves when a boot began, but only signs of life say that the host was watched.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from psodlib.records import Alive, Crash, Mark
from psodlib.schema import CLOSED_LISTS

SAME_BOOT = timedelta(minutes=3)  # two derived starts this close are one boot
BOOTING = timedelta(minutes=30)  # longest time from the start of the kernel to "Host has booted"
STOPPING = timedelta(minutes=30)  # a host may still log this long after it said that it goes down
SILENCE = timedelta(hours=2)  # heartbeats are hourly: a longer silence is a gap
PLACING = timedelta(minutes=10)  # how far a crash placed by its uptime may lie before the last sign of life
DUMP_DELAY = timedelta(hours=1)  # a dump is found this soon after the boot that follows the crash

ENDED = ("crash", "reboot", "shutdown", "power")  # the end is known, and no reading after it is of that boot
# What a mark says of how the boot that it lies in ended. A power button alone was a person at the machine or its iLO;
# with an orderly line beside it the stop was orderly.
END_OF_MARK = {"rebooting": "reboot", "powering_off": "shutdown", "halting": "shutdown", "power_button": "power"}
SIGNS_OF_LIFE = {*END_OF_MARK, "booted", "core_dump_found"}  # what others tell of a host is none
_DAWN = datetime(1900, 1, 1, tzinfo=UTC)  # stands in for the start of a boot that nobody saw begin
_DUSK = datetime(2200, 1, 1, tzinfo=UTC)
Span = tuple[datetime, datetime]
Row = dict[str, Any]


class _Sign(NamedTuple):
    start: datetime
    end: datetime
    evidence: str
    source: str | None


@dataclass(slots=True)
class _Boot:
    start: datetime | None  # None: running before the first evidence
    until: datetime  # start of the next boot
    seen_booting: bool = False  # a "Host has booted" line of the summary log belongs to it
    signs: list[_Sign] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    crashes: list[tuple[datetime, Crash]] = field(default_factory=list)

    @property
    def begin(self) -> datetime:
        return self.start or _DAWN

    @property
    def last_sign(self) -> datetime | None:
        return max((sign.end for sign in self.signs), default=self.start)

    def add(self, crash: Crash, time: datetime) -> None:
        self.crashes.append((time, crash))
        self.signs.append(_Sign(time, time, "crash", crash.source))


def boots_of_host(
    host: str,
    alive: Sequence[Alive],
    marks: Sequence[Mark],
    crashes: Sequence[Crash],
    last_seen: datetime | None = None,
) -> tuple[list[Row], list[Row]]:
    """One host's boots and the stretches of them that evidence covers.

    Notes
    -----
    A boot ends in ``crash`` when a crash lies in it, or a core dump is found within an hour of the next boot and no
    orderly stop was logged; ``crash_id`` is then None, and ``end`` is the last sign of life. ``reboot`` and
    ``shutdown`` are announced; ``power`` is a power button with nothing orderly after it. ``unexplained`` is said only
    when the evidence covers the end: the next boot was seen, and either the silence before it is under two hours or the
    summary log, which has both sides of the silence, has nothing to say. Otherwise the end is ``unknown``.
    """
    boots = _filled(sorted(_starts(alive, marks, crashes).items()), alive, marks, crashes)
    for crash in crashes:
        if crash.time is None and crash.uptime is not None:
            _place(boots, crash, crash.uptime)
    boots = [boot for boot in boots if boot.start or boot.signs or boot.marks or boot.crashes]
    if boots and last_seen:
        reason, end, _ = _ending(boots[-1], None, last_seen)
        if reason in ENDED and end and last_seen - end > STOPPING:  # it has started again by then, and nobody saw when
            boots.append(_Boot(last_seen, _DUSK, signs=[_Sign(last_seen, last_seen, "output", None)]))
    newest = max(filter(None, (last_seen, *(boot.last_sign for boot in boots))), default=None)
    rows = [_rows(host, boot, following, newest) for boot, following in zip(boots, [*boots[1:], None], strict=False)]
    return [uptimes for uptimes, _ in rows], [stretch for _, coverage in rows for stretch in coverage]


# ---- where boots begin -----------------------------------------------------------------------------------------------


def _starts(alive: Sequence[Alive], marks: Sequence[Mark], crashes: Sequence[Crash]) -> dict[datetime, bool]:
    # Every start that something tells -> whether the summary log saw that boot. The vmkernel's own first lines are the
    # start itself; every other "booted" line comes when booting is over.
    exact = {item.boot for item in alive if item.boot}
    exact |= {crash.time - crash.uptime for crash in crashes if crash.time and crash.uptime is not None}
    exact |= {mark.time for mark in marks if mark.what == "booted" and mark.evidence == "vmkernel"}
    starts = _with_booted(_first_of_each(exact), alive, marks, crashes)
    return starts | dict.fromkeys(_implied(sorted(starts), alive, marks, crashes), False)


def _first_of_each(times: Iterable[datetime]) -> list[datetime]:
    # Readings of one counter jitter by seconds: a run of close ones is one start, the earliest.
    return [start for start, _ in merged(((time, time) for time in sorted(times)), SAME_BOOT)]


def _with_booted(
    starts: list[datetime], alive: Sequence[Alive], marks: Sequence[Mark], crashes: Sequence[Crash]
) -> dict[datetime, bool]:
    # "Host has booted" confirms a start shortly before it, unless the host stopped in between or the same log has
    # confirmed that start already: then it is another boot. So it is where no start is known; a stretch that began
    # while the host was booting, and goes on, then has the better time. `lines` holds each start's, one a log.
    stops = sorted([m.time for m in marks if m.what in END_OF_MARK] + [c.time for c in crashes if c.time])
    lines: dict[datetime, dict[str, datetime]] = {start: {} for start in starts}
    booted = [mark for mark in marks if mark.what == "booted" and mark.evidence != "vmkernel"]
    for mark in sorted(booted, key=lambda mark: mark.time):
        at = bisect_right(starts, mark.time + SAME_BOOT) - 1
        start = starts[at] if at >= 0 else _DAWN
        before = bisect_left(stops, mark.time)
        again = mark.time - lines.get(start, {}).get(mark.evidence, mark.time) > SAME_BOOT
        if mark.time - start > BOOTING or before > bisect_right(stops, start) or again:
            since = max(start, mark.time - BOOTING, stops[before - 1] if before else _DAWN)
            since_then = (item.start for item in alive if since < item.start <= mark.time <= item.end)
            start = min(since_then, default=mark.time)
            insort(starts, start)
        lines.setdefault(start, {}).setdefault(mark.evidence, mark.time)
    return {start: "vmksummary" in lines[start] for start in starts}


def _implied(
    times: Sequence[datetime], alive: Sequence[Alive], marks: Sequence[Mark], crashes: Sequence[Crash]
) -> list[datetime]:
    # Life after a stop with no known start between: there was a boot, and it began at the latest with that sign of
    # life. A later crash is life as well: a host that crashed twice booted in between.
    crashed = [crash.time for crash in crashes if crash.time]
    stops = {(time, time + timedelta(minutes=1)) for time in crashed}
    stops |= {(mark.time, mark.time + STOPPING) for mark in marks if END_OF_MARK.get(mark.what, "power") != "power"}
    signs = sorted([(item.start, item.end) for item in alive] + [(time, time) for time in crashed])
    implied: list[datetime] = []
    index = 0
    for stop, settled in sorted(stops, key=lambda pair: pair[1]):
        while index < len(signs) and signs[index][1] <= settled:
            index += 1
        if index == len(signs):
            break
        # Inside a stretch that runs across the stop only its end is surely from after it.
        start, end = signs[index]
        at = bisect_right(times, (start if start > settled else end) + SAME_BOOT) - 1
        if at < 0 or times[at] <= stop:
            implied.append(max(start, settled))
    return _first_of_each(implied)


# ---- what belongs to which boot --------------------------------------------------------------------------------------


def _filled(
    starts: Sequence[tuple[datetime, bool]], alive: Sequence[Alive], marks: Sequence[Mark], crashes: Sequence[Crash]
) -> list[_Boot]:
    # The first boot is the one that was running before anything tells of a start.
    edges = [*(start for start, _ in starts), _DUSK]
    boots = [_Boot(None, edges[0])]
    boots += [_Boot(start, until, seen) for (start, seen), until in zip(starts, edges[1:], strict=True)]
    begins = [boot.begin for boot in boots]

    def at(time: datetime) -> int:
        return bisect_right(begins, time) - 1

    for item in alive:
        # A stretch that begins a moment before a start and goes on past it is that boot's: clocks differ by seconds.
        first = at(item.start + SAME_BOOT)
        first = first if item.end > begins[first] else at(item.start)
        for boot in boots[first : max(at(item.end), first) + 1]:
            start, end = max(item.start, boot.begin), min(item.end, boot.until)
            boot.signs.append(_Sign(start, end, item.evidence, item.source))
    for mark in sorted(marks, key=lambda mark: mark.time):
        # A line about a boot that carries a clock a little behind the counter still belongs to that boot.
        slack = SAME_BOOT if mark.what in ("booted", "core_dump_found") else timedelta(0)
        boot = boots[at(mark.time + slack)]
        boot.marks.append(mark)
        if mark.what in SIGNS_OF_LIFE:
            boot.signs.append(_Sign(mark.time, mark.time, mark.evidence, mark.source))
    for crash in crashes:
        if crash.time is not None:
            boots[at(crash.time)].add(crash, crash.time)
    for boot in boots:
        boot.signs.sort(key=lambda sign: sign.start)
        boot.crashes.sort(key=lambda pair: pair[0])
    return boots


def _place(boots: Sequence[_Boot], crash: Crash, uptime: timedelta) -> None:
    # boot + uptime must fall between the last sign of life and the next start, in one boot only; one that was alive
    # until shortly before goes before those whose evidence ended long before.
    fits = []
    for boot in boots:
        last = boot.last_sign
        if boot.start and last and not boot.crashes and not _announced(boot):
            time = boot.start + uptime
            if last - PLACING <= time <= boot.until + SAME_BOOT:
                fits.append((time - last <= SILENCE, boot, min(time, boot.until)))
    fits = [fit for fit in fits if fit[0]] or fits
    if len(fits) == 1:
        _, boot, time = fits[0]
        boot.add(crash, time)


# ---- how a boot ended ------------------------------------------------------------------------------------------------


def _announced(boot: _Boot) -> Mark | None:
    # The last announcement, if the host did not live on after it; an orderly line says more than a power button.
    last = boot.last_sign
    stops = [mark for mark in boot.marks if mark.what in END_OF_MARK and last and last - mark.time <= STOPPING]
    return max(reversed(stops), key=lambda mark: mark.what != "power_button", default=None)


def _ending(boot: _Boot, following: _Boot | None, newest: datetime | None) -> tuple[str, datetime | None, str | None]:
    # (end_reason, end, crash_id)
    last = boot.last_sign
    if boot.crashes:
        time, crash = boot.crashes[0]
        return "crash", time, crash.crash_id
    if mark := _announced(boot):
        return END_OF_MARK[mark.what], mark.time, None
    if following is None:
        running = last is not None and newest is not None and newest - last <= SILENCE
        return ("running" if running else "unknown"), last, None
    if any(m.what == "core_dump_found" and m.time - following.begin <= DUMP_DELAY for m in following.marks):
        return "crash", last, None
    return ("unexplained" if _covered(boot, following) else "unknown"), last, None


def _covered(boot: _Boot, following: _Boot) -> bool:
    # A host can sit purple for days, so a long silence is a death only where one log has both sides of it.
    last = boot.last_sign
    if last is None or following.start is None:
        return False
    lost = any(mark.what == "failed_over" and abs(mark.time - last) <= STOPPING for mark in boot.marks)
    summary = any(sign.evidence in ("heartbeat", "vmksummary") and sign.end == last for sign in boot.signs)
    return following.start - last <= SILENCE or lost or (summary and following.seen_booting)


def _rows(host: str, boot: _Boot, following: _Boot | None, newest: datetime | None) -> tuple[Row, list[Row]]:
    reason, end, crash_id = _ending(boot, following, newest)
    # Signs of life closer than SILENCE are one stretch. A first sign soon after the start covers the start as well; a
    # later one does not: that the counter reaches back proves survival, and survival is no observation.
    spans = [(sign.start, sign.end) for sign in boot.signs]
    if boot.start and spans and spans[0][0] - boot.start <= SILENCE:
        spans[0] = boot.start, spans[0][1]
    whole = merged(spans, SILENCE)
    stretches = [(start, min(stop, end or stop)) for start, stop in whole if end is None or start <= end]
    uptimes: Row = {
        "host": host, "boot": boot.start, "end": end, "end_reason": reason, "crash_id": crash_id,
        "source": next((sign.source for sign in boot.signs if sign.source), None),
        "uptime": end - boot.start if end and boot.start else None,
        "observed": sum((stop - start for start, stop in stretches), timedelta(0)),
        "evidence": ";".join(sorted({sign.evidence for sign in boot.signs})),
    }  # fmt: skip
    return uptimes, [{"host": host, "boot": boot.start, "start": start, "end": stop} for start, stop in stretches]


def merged(spans: Iterable[Span], reach: timedelta = timedelta(0)) -> list[Span]:
    """Spans in order of their starts, those that touch or lie within reach of each other as one."""
    out: list[Span] = []
    for start, end in spans:
        if out and start - out[-1][1] <= reach:
            out[-1] = out[-1][0], max(out[-1][1], end)
        else:
            out.append((start, end))
    return out


def builds_of_boots(
    starts: Sequence[datetime | None], banners: Sequence[tuple[datetime | None, str]]
) -> list[str | None]:
    """The ESXi build of each boot: an upgrade takes effect at a reboot, as a driver does."""
    begins = [start or _DAWN for start in starts]
    found: dict[int, str] = {}
    for time, build in sorted(banners, key=lambda pair: (pair[0] is None, pair[0] or _DAWN)):
        # The banner comes with the first lines, which may bear a clock a little behind the uptime counter.
        at = len(begins) - 1 if time is None else max(bisect_right(begins, time + SAME_BOOT) - 1, 0)
        found.setdefault(at, build)
    known = {build for _, build in banners}
    before = known.pop() if len(known) == 1 else None
    return [before := found.get(at, before) for at in range(len(starts))]


# ---- the version loaded in each boot ---------------------------------------------------------------------------------

# Evidence words of the ``drivers`` table that say what was loaded, strongest first, and the word each becomes.
LOADED = {
    "banner": "banner", "proc": "proc", "live_module": "live_module", "ethtool": "live_module", "adapter_list": "live_module",
}  # fmt: skip
INSTALLS = ("esxupdate", "vib_install")  # a completed change that the next boot will load


def loaded_versions(uptimes: pd.DataFrame, drivers: pd.DataFrame, module: str = "hpsa") -> pd.DataFrame:
    """The version of one driver that was loaded in each boot.

    Notes
    -----
    In this order, the first that is there:

    1. read as loaded in that boot: ``banner``, ``proc``, ``live_module`` (also ``ethtool``). Loaded readings of
       one boot that disagree are a ``conflict``; the strongest kind's earliest is kept;
    2. ``vib_of_boot``: the VIB list taken in that boot before any change of it; a version that an install of that boot
       says it removed was that boot's image too;
    3. ``esxupdate_before_boot``: the image as it was last known before the boot: the last completed install, or what an
       earlier boot is known to have loaded with no install since;
    4. ``install_date``: a VIB's day of installation, when that day is before the day of the boot;
    5. ``none``. A version is never carried back to boots before it was first seen: that would be "the latest", and
       unknown stays unknown.

    ``pending`` is since when the disk held another version, which the next boot would load.

    Everything is sorting and ``merge_asof``: near-linear in rows.
    """
    return loaded_in_boots(uptimes, drivers, module)[["host", "boot", "version", "driver_evidence", "pending"]]


def loaded_in_boots(uptimes: pd.DataFrame, drivers: pd.DataFrame, module: str) -> pd.DataFrame:
    """The table of ``loaded_versions`` with what a look at the whole host needs besides."""
    boots = _numbered(uptimes)
    readings = readings_in_their_boot(uptimes, drivers[drivers["module"].eq(module).fillna(False).to_numpy(dtype=bool)])
    images = _images_of_boots(readings)
    # For boots without evidence of their own: the last install, or the last known image, before the boot began. A
    # removal with nothing in its place leaves the image unknown.
    changes = readings[readings["evidence"].isin(INSTALLS)]
    changes = changes[["host", "observed_at", "version"]].assign(version=changes["version"].mask(changes["removal"]))
    # A boot's image counts from its start and before any install of that boot, wherever in it the reading was taken.
    seen = boots.loc[boots.index.isin(images.index), ["host", "begin"]].rename(columns={"begin": "observed_at"})
    seen["version"] = images["version"].reindex(seen.index)
    events = pd.concat([seen, changes], ignore_index=True)
    images = _with_last_before(boots["begin"], boots["host"], images, events, "esxupdate_before_boot")
    # A day is coarse: only boots of later days.
    days = readings.loc[readings["evidence"].eq("install_date").fillna(False) & readings["version"].notna()]
    images = _with_last_before(boots["begin"].dt.floor("D"), boots["host"], images, days, "install_date")
    boots = boots.join(images)
    boots["version"] = boots["version"].astype("string")
    words = pd.CategoricalDtype(list(CLOSED_LISTS["driver_evidence"]))
    boots["driver_evidence"] = boots["driver_evidence"].astype(object).fillna("none").astype(words)
    held = _held_by_disks(boots, readings)
    since = held[held["differs"]].drop_duplicates("row").set_index("row")["observed_at"]
    boots["pending"] = since.reindex(boots.index)
    last = held.drop_duplicates("row", keep="last").set_index("row")
    boots["waiting"] = last["version"].where(last["differs"]).reindex(boots.index).astype("string")
    return boots


def last_boots(boots: pd.DataFrame, hosts: pd.Series) -> pd.DataFrame:
    """Of a table of ``loaded_in_boots``, the last boot of each host, by host."""
    last = boots.sort_values("begin", kind="stable").drop_duplicates("host", keep="last").set_index("host")
    return last.reindex(pd.Index(hosts.dropna().sort_values(), name="host"))


def versions_now(hosts: pd.DataFrame, uptimes: pd.DataFrame, drivers: pd.DataFrame, module: str) -> pd.DataFrame:
    """Each host's version in its last boot, since when without a break, how that is known, and what waits."""
    boots = loaded_in_boots(uptimes, drivers, module).sort_values(["host", "begin"], kind="stable")
    changed = boots[boots["version"].ne(boots.groupby("host")["version"].shift()).fillna(True)]
    table = last_boots(boots, hosts["host"]).drop(columns="pending")
    since = changed.drop_duplicates("host", keep="last").set_index("host")["boot"].reindex(table.index)
    table["since"] = since.where(table["version"].notna())
    table = table.rename(columns={"driver_evidence": "evidence", "waiting": "pending"}).reset_index()
    return table[["host", "version", "since", "evidence", "pending"]].astype({"evidence": "string"})


def _numbered(uptimes: pd.DataFrame) -> pd.DataFrame:
    # Boots with a start to sort by; the index is the row in `uptimes`. A reading from after a boot's known end is from a
    # boot that nobody saw begin.
    uptimes = uptimes.reset_index(drop=True)
    ended = uptimes["end"].where(uptimes["end_reason"].isin(ENDED))
    begin = uptimes["boot"].fillna(pd.Timestamp(_DAWN))
    return uptimes[["host", "boot"]].assign(over=ended + STOPPING, begin=begin)


def readings_in_their_boot(uptimes: pd.DataFrame, drivers: pd.DataFrame) -> pd.DataFrame:
    """Every reading with the boot that it lies in: the one its own words name, else the last to begin before it."""
    readings = drivers[["host", "version", "state", "observed_at", "boot", "evidence"]].reset_index(drop=True)
    readings["order"] = np.arange(len(readings))
    readings["state"] = readings["state"].astype("string")
    begins = _numbered(uptimes).reset_index(names="row").sort_values("begin", kind="stable").drop(columns="boot")
    named = pd.merge_asof(
        readings[readings["boot"].notna()].sort_values("boot", kind="stable"), begins, left_on="boot", right_on="begin",
        by="host", direction="nearest", tolerance=pd.Timedelta(SAME_BOOT),
    )  # fmt: skip
    named = named[named["row"].notna()]
    lost = readings[~readings["order"].isin(named["order"]) & readings["observed_at"].notna()].sort_values(
        "observed_at"
    )
    timed = pd.merge_asof(lost, begins, left_on="observed_at", right_on="begin", by="host")
    timed["row"] = timed["row"].mask(timed["observed_at"] > timed["over"])
    out = pd.concat([named, timed], ignore_index=True)
    out["observed_at"] = out["observed_at"].fillna(out["begin"])
    # Of lines at one instant, what was removed comes before what replaced it.
    out["removal"] = out["state"].eq("removed").fillna(False).astype(bool)
    keys = ["observed_at", "removal", "order"]
    return out.sort_values(keys, ascending=[True, False, True], kind="stable", ignore_index=True)


def _images_of_boots(readings: pd.DataFrame) -> pd.DataFrame:
    # (version, driver_evidence) by row in `boots`, for boots with evidence of their own.
    columns = ["row", "version", "state", "evidence", "observed_at", "removal"]
    known = readings.loc[readings["row"].notna() & readings["version"].notna(), columns]
    known["row"] = known["row"].astype("int64")
    loaded = known[known["evidence"].isin(LOADED) & known["state"].eq("loaded").fillna(False)].copy()
    loaded["rank"] = loaded["evidence"].map({word: rank for rank, word in enumerate(LOADED)}).astype("int64")
    best = loaded.sort_values(["rank", "observed_at"], kind="stable").drop_duplicates("row").set_index("row")
    direct = pd.DataFrame({"version": best["version"], "driver_evidence": best["evidence"].map(LOADED)})
    several = loaded.groupby("row")["version"].nunique().reindex(direct.index).gt(1)
    direct.loc[several, "driver_evidence"] = "conflict"
    # The first VIB list of a boot, if no change of that boot came before it; else what the first change removed.
    changes = known["evidence"].isin(INSTALLS) | known["state"].eq("pending").fillna(False)
    lists = known["evidence"].eq("vib_list") & known["state"].eq("installed").fillna(False)
    first = known[lists | changes].drop_duplicates("row")
    usable = (lists | known["removal"]).reindex(first.index).fillna(False) & ~first["row"].isin(direct.index)
    listed = first[usable].set_index("row")["version"]
    return pd.concat([direct, pd.DataFrame({"version": listed, "driver_evidence": "vib_of_boot"})])


def _with_last_before(
    moments: pd.Series, hosts: pd.Series, images: pd.DataFrame, events: pd.DataFrame, evidence: str
) -> pd.DataFrame:
    # The images, and for each boot without one what the last event before its moment says.
    missing = pd.DataFrame({"moment": moments, "host": hosts})[~moments.index.isin(images.index)]
    if missing.empty or events.empty:
        return images
    found = pd.merge_asof(
        missing.reset_index(names="row").sort_values("moment", kind="stable"),
        events[["host", "observed_at", "version"]].sort_values("observed_at", kind="stable"),
        left_on="moment", right_on="observed_at", by="host", allow_exact_matches=False,
    ).set_index("row")  # fmt: skip
    version = found["version"].dropna()
    return pd.concat([images, pd.DataFrame({"version": version, "driver_evidence": evidence})])


def _held_by_disks(boots: pd.DataFrame, readings: pd.DataFrame) -> pd.DataFrame:
    # What the disk held in each boot, in order of time, and whether that differs from what was loaded.
    on_disk = readings["state"].isin(["pending", "installed"]) & readings["evidence"].ne("install_date").fillna(True)
    placed = on_disk & readings["row"].notna() & readings["version"].notna()
    held = readings.loc[placed, ["row", "version", "state", "evidence", "observed_at"]]
    held["row"] = held["row"].astype("int64")
    certain = held["state"].eq("pending") | held["evidence"].isin(INSTALLS)
    # A differing VIB list is a pending change only beside a version that is known to be loaded.
    loaded = boots["version"].reindex(held["row"]).set_axis(held.index)
    held["differs"] = held["version"].ne(loaded).fillna(certain).astype(bool)
    return held
