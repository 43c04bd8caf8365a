"""A host's life as a table, whole or around one crash: what the write-up tells and the incident chart draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from psodlib.errors import InputError
from psodlib.schema import Tables

DUMP_NAME = r"vmkernel-log\.\d|zdump"  # what the text of a core dump is called
LANES = ("boot", "watched", "driver", "down", "vcenter", "crash")
# What vCenter's events say, in words; boots stand in a lane of their own.
TOLD = {
    "failed_over": "host failed, says vSphere HA", "isolated": "host isolated, says vSphere HA", "failover_begun": "failover begun",
    "failover_done": "failover done", "vm_restarted": "machines restarted elsewhere", "vm_lost": "machines not restarted",
    "disconnected": "connection lost", "reconnected": "connected again", "taken_out": "disconnected by hand", "maintenance": "maintenance mode",
    "maintenance_over": "maintenance mode left", "patched": "software installed", "core_dump_found": "crash reported", "dump_unread": "unread dump",
    "hostd_dumped": "hostd dumped core",
}  # fmt: skip
FAILOVER = pd.Timedelta(hours=1)
MOST_NAMED = 12
OF_MACHINES = ("vm_restarted", "vm_lost")
COLUMNS = {
    "time": "datetime64[ns, UTC]", "end": "datetime64[ns, UTC]", "lane": "string", "what": "string", "detail": "string",
    "source": "string", "line": "Int64", "sha256": "string",
}  # fmt: skip
# What is read of each table, of the rows of one host.
READ = {
    "crashes": ["crash_id", "time", "message", "source", "line", "sha256"],
    "uptimes": ["boot", "end", "end_reason", "crash_id", "source"],
    "coverage": ["start", "end"],
    "drivers": ["module", "version", "state", "boot", "evidence", "observed_at", "source", "line"],
    "events": ["time", "what", "vm", "detail", "source", "line"],
}
Rows = dict[str, list[Any]]
Entry = dict[str, Any]


def incident_timeline(
    fleet: Tables, crash_id: str, days: float = 60, lives: Mapping[Any, Rows] | None = None
) -> pd.DataFrame:
    """What is known of a crash's host from some days before the crash to as many after it."""
    found = fleet.crashes[(fleet.crashes["crash_id"] == crash_id).fillna(False)]
    if found.empty:
        raise InputError(f"no crash {crash_id!r} among {len(fleet.crashes):,}; expected a crash_id of fleet.crashes")
    crash = found.iloc[0]
    host = crash["host"]
    here = (lives or lives_of(fleet, [host]))[host] if pd.notna(host) else {name: [] for name in READ}
    others = [row for row in here["crashes"] if not _is(row, crash_id)]
    crashes = [_crash("crash", crash), *(_crash("another crash", row) for row in others)]
    table = _table([*crashes, *_life(here, crash["guilty_module"])])
    if pd.notna(crash["time"]):
        reach = pd.Timedelta(days=days)
        begins, ends = table["time"], table["end"].fillna(table["time"])
        near = (begins <= crash["time"] + reach) & (ends >= crash["time"] - reach)
        # What the boot that crashed had loaded is told at its start, which may lie further back than the window.
        start = min((row.boot for row in here["uptimes"] if _is(row, crash_id)), default=pd.NaT)
        own = (table["lane"] == "driver") & (begins >= start) & (begins <= crash["time"])
        # What vCenter tells on other days is of another matter.
        far = (table["lane"] == "vcenter") & ((begins - crash["time"]).abs() > pd.Timedelta(days=1))
        table = table[(begins.isna() | near | own) & ~far]
    return _in_order(table)


def host_timeline(fleet: Tables, host: str) -> pd.DataFrame:
    """All that is known of one host, in the order of time."""
    here = lives_of(fleet, [host])[host]
    return _in_order(_table([*(_crash("crash", row) for row in here["crashes"]), *_life(here, None)]))


def lives_of(fleet: Tables, hosts: Iterable[Any]) -> dict[Any, Rows]:
    """The rows of some hosts, sorted out once, for whoever asks of many crashes."""
    # A crash without a host is alone with itself: an unknown host is nobody else's.
    lives: dict[Any, Rows] = {host: {name: [] for name in READ} for host in hosts if pd.notna(host)}
    for name, columns in READ.items():
        table = getattr(fleet, name)
        for row in table.loc[table["host"].isin(list(lives)), ["host", *columns]].itertuples():
            lives[row.host][name].append(row)
    return lives


def _table(entries: list[Entry]) -> pd.DataFrame:
    return pd.DataFrame(entries, columns=list(COLUMNS), dtype=object).astype(COLUMNS)  # all unknown is no naive time


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(["time", "lane", "source", "line"], kind="stable", na_position="last", ignore_index=True)


def _is(row: Any, crash_id: Any) -> bool:
    return pd.notna(row.crash_id) and bool(row.crash_id == crash_id)


def _entry(lane: str, what: str, row: Any, time: Any, detail: Any, **more: Any) -> Entry:
    place = {"source": getattr(row, "source", None), "line": getattr(row, "line", None)}
    return {"lane": lane, "what": what, "time": time, "detail": detail, **place, **more}


def _crash(what: str, row: Any) -> Entry:
    return _entry("crash", what, row, row.time, row.message, sha256=row.sha256)


def _life(here: Rows, module: Any) -> list[Entry]:
    entries = []
    # No table holds when the dump was written or when HA acted; both lie between a crash and the boot that follows it.
    boots = sorted(row.boot for row in here["uptimes"] if pd.notna(row.boot))
    for row in here["crashes"]:
        following = next((boot for boot in boots if pd.notna(row.time) and boot > row.time), None)
        if following is not None:
            entries.append(_entry("down", "down", row, row.time, "until the next boot", end=following))
    for row in here["uptimes"]:
        entries.append(_entry("boot", "boot", row, row.boot, f"ended by {row.end_reason}", end=row.end))
    for row in here["coverage"]:
        entries.append(_entry("watched", "evidence", row, row.start, None, end=row.end))
    return [*entries, *_drivers(here["drivers"], module), *_vcenter_events(here["events"])]


def _drivers(rows: list[Any], module: Any) -> Iterator[Entry]:
    # The guilty module's versions; of many like observations of one boot the first is enough, and one without a version
    # says nothing where another of the same boot has it. Of a crash that names no module any driver may matter, but each
    # boot's list of all that it loaded does not: only what bears a version.
    found = [row for row in rows if (pd.notna(row.version) if pd.isna(module) else row.module == module)]
    versioned = {(row.module, row.boot) for row in found if pd.notna(row.version) and pd.notna(row.boot)}
    seen = set()
    for row in found:
        key = (row.module, row.version, row.state, row.boot, row.evidence)
        repeated = pd.notna(row.boot) and key in seen
        if repeated or (pd.isna(row.version) and (row.module, row.boot) in versioned):
            continue
        seen.add(key)
        words = [str(word) for word in (row.module, row.version, row.state) if pd.notna(word)]
        yield _entry("driver", " ".join(words), row, row.observed_at, row.evidence)


def _vcenter_events(rows: list[Any]) -> Iterable[Entry]:
    # vCenter's events; the machines of one failover together.
    entries: list[Entry] = []
    machines: dict[str, list[str]] = {}
    for row in rows:
        if (what := TOLD.get(row.what)) is None:
            continue
        together = next((old for old in entries if old["what"] == what and row.time - old["time"] <= FAILOVER), None)
        if row.what in OF_MACHINES and together is not None:
            machines[what].append(str(row.vm))
            names = machines[what]
            more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            together["detail"] = f"{len(names)} machines: {', '.join(names[:MOST_NAMED])}{more}"
        else:
            machines[what] = [str(row.vm)]
            entries.append(_entry("vcenter", what, row, row.time, row.detail))
    return entries
