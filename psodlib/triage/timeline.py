"""A host's life as a table, whole or around one crash: what the write-up tells and the incident chart draws."""

from __future__ import annotations

from typing import Any, Protocol

import pandas as pd

from psodlib.errors import InputError

__all__ = ["DUMP_NAME", "LANES", "host_timeline", "incident_timeline"]

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


class Tables(Protocol):
    """The tables of a ``Fleet`` that a timeline needs."""

    @property
    def crashes(self) -> pd.DataFrame: ...
    @property
    def uptimes(self) -> pd.DataFrame: ...
    @property
    def drivers(self) -> pd.DataFrame: ...
    @property
    def coverage(self) -> pd.DataFrame: ...
    @property
    def events(self) -> pd.DataFrame: ...


def incident_timeline(fleet: Tables, crash_id: str, days: float = 60) -> pd.DataFrame:
    """What is known of a crash's host from some days before the crash to as many after it."""
    found = fleet.crashes[(fleet.crashes["crash_id"] == crash_id).fillna(False)]
    if found.empty:
        raise InputError(f"no crash {crash_id!r} among {len(fleet.crashes):,}; expected a crash_id of fleet.crashes")
    crash = found.iloc[0]
    facts = (_crashes, _down, _boots, _watched, _drivers, _told)
    rows = [row for told in facts for row in told(fleet, crash)]
    table = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object).astype(COLUMNS)  # all unknown is no naive time
    if pd.notna(crash["time"]):
        reach = pd.Timedelta(days=days)
        begins, ends = table["time"], table["end"].fillna(table["time"])
        near = (begins <= crash["time"] + reach) & (ends >= crash["time"] - reach)
        # What the boot that crashed had loaded is told at its start, which may lie further back than the window.
        start = _own_boot(fleet, crash)
        own = (table["lane"] == "driver") & (begins >= start) & (begins <= crash["time"])
        # What vCenter tells on other days is of another matter.
        far = (table["lane"] == "vcenter") & ((begins - crash["time"]).abs() > pd.Timedelta(days=1))
        table = table[(begins.isna() | near | own) & ~far]
    return table.sort_values(["time", "lane", "source", "line"], kind="stable", na_position="last", ignore_index=True)


def host_timeline(fleet: Tables, host: str) -> pd.DataFrame:
    """All that is known of one host, in the order of time."""
    nobody = pd.Series({"host": host, "crash_id": None, "guilty_module": None})
    crashes = [
        {"time": row.time, "lane": "crash", "what": "crash", "detail": row.message, "source": row.source, "line": row.line, "sha256": row.sha256}
        for row in _here(fleet.crashes, nobody)
    ]  # fmt: skip
    rows = [*crashes, *(row for told in (_down, _boots, _watched, _drivers, _told) for row in told(fleet, nobody))]
    table = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object).astype(COLUMNS)
    return table.sort_values(["time", "lane", "source", "line"], kind="stable", na_position="last", ignore_index=True)


def _own_boot(fleet: Tables, crash: Any) -> Any:
    # The start of the boot that the crash ended; NaT where no boot is known to hold it.
    starts = [
        row.boot for row in _here(fleet.uptimes, crash) if pd.notna(row.crash_id) and row.crash_id == crash["crash_id"]
    ]
    return min(starts, default=pd.NaT)


def _here(table: pd.DataFrame, crash: Any) -> Any:
    # A crash without a host is alone with itself: an unknown host is nobody else's.
    if pd.isna(crash["host"]):
        return table.iloc[:0].itertuples()
    return table[(table["host"] == crash["host"]).fillna(False)].itertuples()


def _crashes(fleet: Tables, crash: Any) -> list[dict[str, Any]]:
    others = [row for row in _here(fleet.crashes, crash) if row.crash_id != crash["crash_id"]]
    return [
        {"time": row.time, "lane": "crash", "what": "crash" if row.crash_id == crash["crash_id"] else "another crash",
         "detail": row.message, "source": row.source, "line": row.line, "sha256": row.sha256}
        for row in [crash, *others]
    ]  # fmt: skip


def _down(fleet: Tables, crash: Any) -> list[dict[str, Any]]:
    # No table holds when the dump was written or when HA acted; both lie between a crash and the boot that follows it.
    boots = sorted(row.boot for row in _here(fleet.uptimes, crash) if pd.notna(row.boot))
    rows = []
    for row in _here(fleet.crashes, crash):
        following = next((boot for boot in boots if pd.notna(row.time) and boot > row.time), None)
        if following is not None:
            rows.append({"time": row.time, "end": following, "lane": "down", "what": "down", "detail": "until the next boot",
                         "source": row.source, "line": row.line})  # fmt: skip
    return rows


def _boots(fleet: Tables, crash: Any) -> list[dict[str, Any]]:
    return [
        {
            "time": row.boot,
            "end": row.end,
            "lane": "boot",
            "what": "boot",
            "detail": f"ended by {row.end_reason}",
            "source": row.source,
        }
        for row in _here(fleet.uptimes, crash)
    ]


def _watched(fleet: Tables, crash: Any) -> list[dict[str, Any]]:
    return [
        {"time": row.start, "end": row.end, "lane": "watched", "what": "evidence"}
        for row in _here(fleet.coverage, crash)
    ]


def _drivers(fleet: Tables, crash: Any) -> list[dict[str, Any]]:
    # The guilty module's versions; of many like observations of one boot the first is enough, and one without a version
    # says nothing where another of the same boot has it. Of a crash that names no module any driver may matter, but each
    # boot's list of all that it loaded does not: only what bears a version.
    module = crash["guilty_module"]
    found = [
        row for row in _here(fleet.drivers, crash)
        if (pd.isna(module) and pd.notna(row.version)) or (pd.notna(module) and row.module == module)
    ]  # fmt: skip
    told = {(row.module, row.boot) for row in found if pd.notna(row.version) and pd.notna(row.boot)}
    rows, seen = [], set()
    for row in found:
        key = (row.module, row.version, row.state, row.boot, row.evidence)
        repeated = pd.notna(row.boot) and key in seen
        if repeated or (pd.isna(row.version) and (row.module, row.boot) in told):
            continue
        seen.add(key)
        words = [str(word) for word in (row.module, row.version, row.state) if pd.notna(word)]
        rows.append({"time": row.observed_at, "lane": "driver", "what": " ".join(words), "detail": row.evidence,
                     "source": row.source, "line": row.line})  # fmt: skip
    return rows


def _told(fleet: Tables, crash: Any) -> list[dict[str, Any]]:
    # vCenter's events; the machines of one failover together.
    rows: list[dict[str, Any]] = []
    machines: dict[str, list[str]] = {}
    for row in _here(fleet.events[fleet.events["what"].isin(list(TOLD))], crash):
        fact = {
            "time": row.time,
            "lane": "vcenter",
            "what": TOLD[row.what],
            "detail": row.detail,
            "source": row.source,
            "line": row.line,
        }
        first = next(
            (old for old in rows if old["what"] == TOLD[row.what] and row.time - old["time"] <= FAILOVER), None
        )
        if row.what in OF_MACHINES and first is not None:
            machines[first["what"]].append(str(row.vm))
            names = machines[first["what"]]
            more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            first["detail"] = f"{len(names)} machines: {', '.join(names[:MOST_NAMED])}{more}"
            continue
        machines[TOLD[row.what]] = [str(row.vm)]
        rows.append(fact)
    return rows
