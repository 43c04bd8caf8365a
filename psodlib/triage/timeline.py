"""A host's life as a table, whole or around one crash: what the write-up tells and the incident chart draws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    table = _table([*_crashes(here, crash), *_life(here, crash["guilty_module"])])
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
    crashes = [_crash_row(row, "crash") for row in here["crashes"]]
    return _in_order(_table([*crashes, *_life(here, None)]))


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object).astype(COLUMNS)  # all unknown is no naive time


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(["time", "lane", "source", "line"], kind="stable", na_position="last", ignore_index=True)


def lives_of(fleet: Tables, hosts: Iterable[Any]) -> dict[Any, Rows]:
    """The rows of some hosts, sorted out once, for whoever asks of many crashes."""
    # A crash without a host is alone with itself: an unknown host is nobody else's.
    lives: dict[Any, Rows] = {host: {name: [] for name in READ} for host in hosts if pd.notna(host)}
    for name, columns in READ.items():
        table = getattr(fleet, name)
        for row in table.loc[table["host"].isin(list(lives)), ["host", *columns]].itertuples():
            lives[row.host][name].append(row)
    return lives


def _life(here: Rows, module: Any) -> list[dict[str, Any]]:
    return [*_down(here), *_boots(here), *_watched(here), *_drivers(here, module), *_vcenter_events(here)]


def _is(row: Any, crash_id: Any) -> bool:
    return pd.notna(row.crash_id) and bool(row.crash_id == crash_id)


def _crash_row(row: Any, what: str) -> dict[str, Any]:
    return {
        "time": row.time,
        "lane": "crash",
        "what": what,
        "detail": row.message,
        "source": row.source,
        "line": row.line,
        "sha256": row.sha256,
    }


def _crashes(here: Rows, crash: Any) -> list[dict[str, Any]]:
    others = [row for row in here["crashes"] if not _is(row, crash["crash_id"])]
    return [_crash_row(crash, "crash"), *(_crash_row(row, "another crash") for row in others)]


def _down(here: Rows) -> list[dict[str, Any]]:
    # No table holds when the dump was written or when HA acted; both lie between a crash and the boot that follows it.
    boots = sorted(row.boot for row in here["uptimes"] if pd.notna(row.boot))
    rows = []
    for row in here["crashes"]:
        following = next((boot for boot in boots if pd.notna(row.time) and boot > row.time), None)
        if following is not None:
            rows.append({"time": row.time, "end": following, "lane": "down", "what": "down", "detail": "until the next boot",
                         "source": row.source, "line": row.line})  # fmt: skip
    return rows


def _boots(here: Rows) -> list[dict[str, Any]]:
    return [
        {"time": row.boot, "end": row.end, "lane": "boot", "what": "boot", "detail": f"ended by {row.end_reason}", "source": row.source}
        for row in here["uptimes"]
    ]  # fmt: skip


def _watched(here: Rows) -> list[dict[str, Any]]:
    return [{"time": row.start, "end": row.end, "lane": "watched", "what": "evidence"} for row in here["coverage"]]


def _drivers(here: Rows, module: Any) -> list[dict[str, Any]]:
    # The guilty module's versions; of many like observations of one boot the first is enough, and one without a version
    # says nothing where another of the same boot has it. Of a crash that names no module any driver may matter, but each
    # boot's list of all that it loaded does not: only what bears a version.
    found = [
        row for row in here["drivers"]
        if (pd.isna(module) and pd.notna(row.version)) or (pd.notna(module) and row.module == module)
    ]  # fmt: skip
    versioned = {(row.module, row.boot) for row in found if pd.notna(row.version) and pd.notna(row.boot)}
    rows, seen = [], set()
    for row in found:
        key = (row.module, row.version, row.state, row.boot, row.evidence)
        repeated = pd.notna(row.boot) and key in seen
        if repeated or (pd.isna(row.version) and (row.module, row.boot) in versioned):
            continue
        seen.add(key)
        words = [str(word) for word in (row.module, row.version, row.state) if pd.notna(word)]
        rows.append({"time": row.observed_at, "lane": "driver", "what": " ".join(words), "detail": row.evidence,
                     "source": row.source, "line": row.line})  # fmt: skip
    return rows


def _vcenter_events(here: Rows) -> list[dict[str, Any]]:
    # vCenter's events; the machines of one failover together.
    rows: list[dict[str, Any]] = []
    machines: dict[str, list[str]] = {}
    for row in here["events"]:
        if (what := TOLD.get(row.what)) is None:
            continue
        together = next((old for old in rows if old["what"] == what and row.time - old["time"] <= FAILOVER), None)
        if row.what in OF_MACHINES and together is not None:
            machines[what].append(str(row.vm))
            names = machines[what]
            more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            together["detail"] = f"{len(names)} machines: {', '.join(names[:MOST_NAMED])}{more}"
        else:
            machines[what] = [str(row.vm)]
            rows.append(
                {
                    "time": row.time,
                    "lane": "vcenter",
                    "what": what,
                    "detail": row.detail,
                    "source": row.source,
                    "line": row.line,
                }
            )
    return rows
