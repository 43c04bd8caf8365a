"""One crash and its host's life around it, as a table: what the write-up tells and the incident chart draws."""

from __future__ import annotations

from typing import Any, Protocol

import pandas as pd

from psodlib.errors import InputError

__all__ = ["LANES", "incident_timeline"]

LANES = ("boot", "watched", "driver", "crash")
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


def incident_timeline(fleet: Tables, crash_id: str, days: float = 60) -> pd.DataFrame:
    """What is known of a crash's host from some days before the crash to as many after it.

    Parameters
    ----------
    fleet : Fleet
        Or anything with its tables as attributes.
    crash_id : str
        The crash in question.
    days : float
        How far to look, before and after the crash; what the boot that crashed had loaded is told in any case.

    Returns
    -------
    pandas.DataFrame
        ``time`` and ``end`` (UTC; ``end`` is NaT for a moment), ``lane`` (boot, watched, driver, crash), ``what`` (the
        fact in a word), ``detail`` (as the evidence has it), ``source``, ``line``, ``sha256``; sorted by time. Facts
        without a time stand last; they are in no window and still evidence.

    Raises
    ------
    InputError
        The fleet has no such crash.
    """
    found = fleet.crashes[(fleet.crashes["crash_id"] == crash_id).fillna(False)]
    if found.empty:
        raise InputError(f"no crash {crash_id!r} among {len(fleet.crashes):,}; expected a crash_id of fleet.crashes")
    crash = found.iloc[0]
    rows = [*_crashes(fleet, crash), *_boots(fleet, crash), *_watched(fleet, crash), *_drivers(fleet, crash)]
    table = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object).astype(COLUMNS)  # all unknown is no naive time
    if pd.notna(crash["time"]):
        reach = pd.Timedelta(days=days)
        begins, ends = table["time"], table["end"].fillna(table["time"])
        near = (begins <= crash["time"] + reach) & (ends >= crash["time"] - reach)
        # What the boot that crashed had loaded is told at its start, which may lie further back than the window.
        start = _own_boot(fleet, crash)
        own = (table["lane"] == "driver") & (begins >= start) & (begins <= crash["time"])
        table = table[begins.isna() | near | own]
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
    # says nothing where another of the same boot has it.
    module = crash["guilty_module"]
    found = [row for row in _here(fleet.drivers, crash) if pd.isna(module) or row.module == module]
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
