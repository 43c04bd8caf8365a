"""The tables' columns: name, dtype, meaning. The one definition; builds, checks and documents every table.

Times are ``datetime64[ns, UTC]``, spans ``timedelta64[ns]``, addresses ``UInt64``, counts ``Int64``, text ``string``, closed
lists ``category``. Unknown is ``NA``/``NaT``. An empty table has the same columns and dtypes as a full one.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import pandas as pd

from psodlib.errors import InputError

TIME, SPAN, ADDRESS, COUNT, TEXT, FLAG, NUMBER = (
    "datetime64[ns, UTC]", "timedelta64[ns]", "UInt64", "Int64", "string", "boolean", "float64",
)  # fmt: skip

CLOSED_LISTS: dict[str, tuple[str, ...]] = {
    "kind": (
        "page_fault", "general_protection", "divide_error", "invalid_opcode", "double_fault", "machine_check", "nmi",
        "spin_count", "no_heartbeat", "lost_heartbeat", "tlb_timeout", "assert", "not_reached", "not_implemented", "panic",
        "heap_corruption", "iommu_fault", "user_requested", "other",
    ),
    "guilt": (
        "named_by_kernel", "on_stack", "module_map", "symbol_prefix", "world_name", "precursor_log", "hardware",
        "deliberate", "none",
    ),
    "driver_evidence": (
        "banner", "proc", "live_module", "vib_of_boot", "esxupdate_before_boot", "install_date", "none", "conflict",
    ),
    "module_evidence": ("printed", "module_map", "symbol_prefix"),
    "end_reason": ("crash", "reboot", "shutdown", "power", "unexplained", "running", "unknown"),
    "state": ("loaded", "installed", "pending", "removed"),
    "about": ("signature", "suspect", "doubt", "known_issue"),
    "problem": (
        "unreadable", "vanished", "changed", "not_text", "unknown_format", "empty", "truncated", "damaged_archive",
        "unsafe_member", "too_large", "too_deep", "fragment_missing", "bad_line", "bad_time", "no_host", "host_conflict",
        "no_evidence", "not_in_inventory", "version_conflict", "unplaced_crash", "unread_crash", "encrypted", "unused",
    ),
}  # fmt: skip


class Cell:
    """What a notebook shows as a sentence and a small table, and a prompt as its sentences."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        import psodlib  # what a notebook shows is the last wing's business

        return psodlib.cell(self)


def told_first(table: pd.DataFrame) -> pd.DataFrame:
    """The same table; a notebook shows its sentence first. It stays a plain DataFrame, and what is made of it knows nothing of this."""
    mine = weakref.ref(table)  # no circle, which would keep a large table until a late collection

    def shown() -> str:
        import psodlib

        return psodlib.cell(mine())

    object.__setattr__(table, "_repr_html_", shown)
    return table


class Tables(Protocol):
    """The tables of a ``Fleet``, for whoever reads them; each reads only those that it names."""

    @property
    def hosts(self) -> pd.DataFrame: ...
    @property
    def crashes(self) -> pd.DataFrame: ...
    @property
    def frames(self) -> pd.DataFrame: ...
    @property
    def uptimes(self) -> pd.DataFrame: ...
    @property
    def drivers(self) -> pd.DataFrame: ...
    @property
    def problems(self) -> pd.DataFrame: ...
    @property
    def coverage(self) -> pd.DataFrame: ...
    @property
    def simulated(self) -> bool: ...


@dataclass(frozen=True)
class Column:
    """One column of a table: its name, pandas dtype (``category`` for a closed list) and meaning with unit."""

    name: str
    dtype: str
    meaning: str

    @property
    def pandas_dtype(self) -> Any:
        """The dtype to cast to; a closed list is a ``CategoricalDtype`` with all its words, in the list's order."""
        # not the dtype's name: to pandas "string" also means its `str`, whose unknown is NaN
        return _closed_list(self.name) if self.dtype == "category" else pd.api.types.pandas_dtype(self.dtype)


@cache
def _closed_list(name: str) -> pd.CategoricalDtype:
    return pd.CategoricalDtype(list(CLOSED_LISTS[name]))


def _columns(text: str) -> tuple[Column, ...]:
    # One column a line: name, dtype word, meaning. Kept as text so that the contract can be read off this file.
    words = {
        "time": TIME, "span": SPAN, "address": ADDRESS, "count": COUNT, "text": TEXT, "flag": FLAG, "number": NUMBER,
        "list": "category",
    }  # fmt: skip
    rows = (line.split(None, 2) for line in text.strip().splitlines())
    return tuple(Column(name, words[kind], meaning) for name, kind, meaning in rows)


TABLES: dict[str, tuple[Column, ...]] = {
    "hosts": _columns("""
        host            text     host as evidence or inventory names it
        esxi_version    text     newest version seen, e.g. 5.5.0
        esxi_build      text     newest host build seen, e.g. 1331820
        vendor          text     hardware vendor
        model           text     hardware model
        first_seen      time     first evidence of this host being up
        last_seen       time     last evidence of this host being up
    """),
    "crashes": _columns("""
        crash_id        text     the same on every load, machine and folder, and for all copies of one crash
        host            text     host
        time            time     when the vmkernel stopped
        esxi_version    text     ESXi version that crashed
        esxi_build      text     host build that crashed
        kind            list     cause class
        message         text     panic message as printed
        exception       count    CPU exception number
        pcpu            count    panicking physical CPU
        world_id        count    panicking world
        world_name      text     its name
        ip              address  instruction pointer, from the message or the registers
        fault_address   address  address that faulted
        code_start      address  vmkernel text base of that boot
        uptime          span     life of the boot that ended
        guilty_module   text     module the strongest evidence points at
        guilty_function text     its innermost function on the stack
        guilt           list     strongest kind of evidence against guilty_module
        driver_version  text     version of guilty_module that was loaded in that boot
        driver_evidence list     how that version is known
        signature       text     string that groups crashes of one cause
        proto_signature text     all functions of the backtrace, unreduced
        known_issues    text     ids of matching known issues, joined by `;`
        deliberate      flag     a person asked for this crash
        damage          text     what is wrong with the text, joined by `;`, empty when whole
        source          text     file that holds the best copy
        line            count    line of the crash in it, from 1
        offset          count    byte offset of the crash in it
        sha256          text     of the crash's own text
        copies          count    how often this crash was found
    """),
    "frames": _columns("""
        crash_id        text     crash
        backtrace       count    0 = the panicking PCPU, 1.. = saved backtraces of others
        pcpu            count    PCPU of this backtrace
        index           count    0 = innermost
        frame_pointer   address  frame pointer
        address         address  return address
        function        text     symbol
        module          text     bare module name
        module_version  text     as printed behind `#`
        offset          count    bytes into the function
        stack           address  first stack word
        module_evidence list     how the module is known
    """),
    "modules": _columns("""
        host            text     host
        time            time     when the list was taken
        crash_id        text     crash whose dump holds it
        module          text     bare module name
        base            address  start of the code
        data            address  start of .data
        bss             address  start of .bss
        module_id       count    vmkernel's module id
        source          text     file
    """),
    "uptimes": _columns("""
        host            text     host
        boot            time     start of the boot
        end             time     when it ended; last sign of life while running or unknown
        uptime          span     end - boot
        observed        span     span of the boot that evidence shows alive
        end_reason      list     how it ended
        crash_id        text     the crash that ended it
        evidence        text     kinds of evidence used, joined by `;`
        source          text     file of the first of them
    """),
    "drivers": _columns("""
        host            text     host
        module          text     bare module name
        version         text     normalised driver version
        vib             text     VIB name or ID as printed
        state           list     loaded, installed, pending, removed
        observed_at     time     when it was true
        boot            time     boot it was observed in
        evidence        text     kind of observation
        device          text     device it drives
        firmware        text     that device's firmware version
        source          text     file
        line            count    line in it, from 1
    """),
    "problems": _columns("""
        source          text     file, folder or inventory
        host            text     host
        line            count    line in it, from 1
        problem         list     what kind of trouble
        detail          text     what was found, what was expected
    """),
}

# Behind the contract's seven: what `exposure` and whatever explains a crash need besides.
AUXILIARY: dict[str, tuple[Column, ...]] = {
    "coverage": _columns("""
        host            text     host
        boot            time     start of the boot it belongs to
        start           time     first sign of life in the stretch
        end             time     last sign of life in the stretch
        esxi_build      text     host build that the boot ran
    """),
    "reasons": _columns("""
        crash_id        text     crash
        about           list     what it is a reason for: the signature, a suspect, a doubt, a known issue
        module          text     the suspect, or the driver that the issue is about
        text            text     the reason, in words
        weight          number   of a suspect: its rank in the evidence, for ordering only
    """),
    "texts": _columns("""
        crash_id        text     crash
        text            text     the crash's own lines, verbatim; at most 64 KiB of them
    """),
    "events": _columns("""
        host            text     host that it is about
        time            time     when vCenter says that it happened
        what            text     what it says, e.g. failed_over, vm_restarted, booted
        vm              text     machine that it is about
        detail          text     vCenter's own words
        source          text     file
        line            count    line in the file
    """),
}

BY_CRASH = ("frames", "reasons", "texts")  # tables that name no host

EXPOSURE: tuple[Column, ...] = _columns("""
    host            text     host
    module          text     driver module in question
    version         text     version loaded in this stretch
    boot            time     start of the boot
    start           time     start of the stretch
    end             time     end of the stretch
    uptime_start    span     uptime when the stretch begins (delayed entry)
    host_days       number   days at risk
    crashes         count    crashes with this module guilty
    unknown_crashes count    crashes with no module found guilty
    other_crashes   count    crashes caused by another module
    end_reason      list     how the stretch ended
    model           text     hardware model
    esxi_build      text     host build
    cluster         text     cluster
""")

SORT_KEYS: dict[str, tuple[str, ...]] = {
    "hosts": ("host",),
    "crashes": ("host", "time", "crash_id"),
    "frames": ("crash_id", "backtrace", "index"),
    "modules": ("host", "time", "module"),
    "uptimes": ("host", "end", "boot"),  # a first boot whose start nobody knows still comes first
    "drivers": ("host", "observed_at", "module", "source", "line"),
    "problems": ("host", "source", "line"),
    "coverage": ("host", "start"),
    "reasons": ("crash_id",),  # within a crash in the order they were found, suspects strongest first
    "texts": ("crash_id",),
    "events": ("host", "time", "line"),
}


def columns_of(table: str) -> tuple[Column, ...]:
    """The columns of one of the seven tables, of an auxiliary one or of ``exposure``."""
    return EXPOSURE if table == "exposure" else TABLES.get(table) or AUXILIARY[table]


def empty(table: str) -> pd.DataFrame:
    """An empty table with the columns and dtypes of a full one."""
    return _empty(table).copy()


@cache
def _empty(table: str) -> pd.DataFrame:
    return build(table, [])


def build(table: str, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as mappings -> the table, cast, in column order and sorted."""
    whole = list(rows)
    names = [column.name for column in columns_of(table)]
    columns = {name: pd.Series([row.get(name) for row in whole], dtype=object) for name in names}
    return conform(table, pd.DataFrame(columns))


def conform(table: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Cast, complete, order and sort a table; columns beyond the definition keep their place at the end."""
    cast = {}
    for column in columns_of(table):
        there = column.name in frame and len(frame)  # pandas cannot merge what Arrow filtered down to nothing
        values = frame[column.name] if there else pd.Series(None, index=frame.index, dtype=object)
        cast[column.name] = _cast(table, column, values)
    out = pd.DataFrame(cast | {name: frame[name] for name in frame.columns if name not in cast}, index=frame.index)
    keys = [key for key in SORT_KEYS.get(table, ()) if key in out]
    if keys and len(out) > 1:
        out = out.sort_values(keys, kind="stable", na_position="last")
    return out.reset_index(drop=True)


def _cast(table: str, column: Column, values: Any) -> Any:
    if values.dtype == column.pandas_dtype:
        return values
    try:
        if column.dtype == "category":
            known = values.dropna().astype(str)
            strange = sorted(set(known) - set(CLOSED_LISTS[column.name]))
            if strange:
                raise ValueError(f"{strange[0]!r} is none of {', '.join(CLOSED_LISTS[column.name])}")
            return values.astype(object).where(values.notna(), None).astype(column.pandas_dtype)
        if column.dtype == TIME:
            return pd.to_datetime(values, utc=True).astype(TIME)
        if column.dtype == SPAN:
            return pd.to_timedelta(values).astype(SPAN)
        return values.astype(column.dtype)
    except UnicodeEncodeError:  # half a pair of surrogates, which no text can hold
        return values.map(
            lambda text: str(text).encode("utf-8", "backslashreplace").decode(), na_action="ignore"
        ).astype(TEXT)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{table}, column {column.name}: {error}; expected {column.dtype} ({column.meaning})"
        ) from error


def describe(table: str) -> pd.DataFrame:
    """The definition itself as a table: ``column``, ``dtype``, ``meaning``, in column order."""
    rows = [(column.name, column.dtype, column.meaning) for column in columns_of(table)]
    return pd.DataFrame(rows, columns=["column", "dtype", "meaning"])
