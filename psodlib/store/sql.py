"""A store in SQL: DuckDB over its own files, with nothing else in its reach."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from psodlib import schema
from psodlib.errors import InputError
from psodlib.store.folder import OLDEST, Manifest, is_store, read_manifest
from psodlib.store.readings import read_entries
from psodlib.store.tables import PANDAS, dataset_of

MEMORY = 1 << 30  # bytes that a query may take
ROWS = 100_000
SECONDS = 120.0
_AT_ONCE = 2048  # rows fetched at a time
# DuckDB sees the tables as datasets that pyarrow reads, so it needs no file of its own: none to read, write, fetch or load.
_LOCKS = (
    "SET TimeZone='UTC'",
    f"SET memory_limit='{MEMORY >> 20}MiB'",
    "SET temp_directory=''",
    "SET python_enable_replacements=false",
    "SET enable_external_access=false",
    "SET lock_configuration=true",
)


class Answer(NamedTuple):
    """The rows of an answer, and whether there are more."""

    table: pd.DataFrame
    cut: bool


def ask(folder: Path, query: str, *, rows: int = ROWS, seconds: float = SECONDS) -> Answer:
    """The answer to one SELECT over a store's tables, within bounds of rows, memory and time.

    Notes
    -----
    The query reaches the store's tables and nothing else: no file, no network, no extension, no setting.
    """
    if not is_store(folder):
        raise InputError(f"{folder}: no store; expected a folder of psod load --store")
    try:
        import duckdb
    except ImportError as error:
        raise InputError(
            "SQL needs DuckDB; install psodlib with its extra, from the checkout: pip install '.[cluster]'"
        ) from error
    manifest = read_manifest(folder)
    with duckdb.connect(":memory:") as connection:
        for name in [*schema.TABLES, *schema.AUXILIARY]:
            connection.register(name, dataset_of(folder, name, manifest.tables.get(name, ())))
        connection.register("ledger", _ledger(folder, manifest))
        for lock in _LOCKS:
            connection.execute(lock)
        try:
            statements = connection.extract_statements(query)
            reading = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
            if len(statements) != 1 or statements[0].type not in reading:
                kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
                raise InputError(f"found {kinds}; expected one SELECT, for a store is only read")
            with _no_more_memory():
                return _interruptible(connection, lambda: _fetched(connection.sql(query), rows), seconds)
        except (duckdb.Error, OSError, MemoryError, pa.ArrowException) as error:  # pyarrow passes DuckDB's words on
            raise InputError(_explained(error, seconds)) from error


def _explained(error: Exception, seconds: float) -> str:
    text = str(error)
    if "INTERRUPT" in text or "nterrupted" in text:
        return f"the query was stopped after {seconds:g} s; ask for less, or give it more (--seconds)"
    if isinstance(error, MemoryError) or re.search("out of memory|alloc|string size", text, re.IGNORECASE):
        return f"the query needs more than {MEMORY >> 20} MiB of memory; ask for less"
    return f"DuckDB: {text}"


def _fetched(relation: Any, rows: int) -> Answer:
    # Rows as they come, until there are enough of them or their text is too much.
    reader = relation.to_arrow_reader(_AT_ONCE)
    batches, count, size = [], 0, 0
    for batch in reader:
        batches.append(batch)
        count += len(batch)
        size += batch.nbytes
        if count > rows or size > MEMORY // 4:
            break
    table = pa.Table.from_batches(batches, schema=reader.schema).slice(0, rows)
    frame = table.to_pandas(types_mapper={kind: PANDAS[kind] for kind in PANDAS if kind != pa.string()}.get)
    for at, field in enumerate(table.schema):
        if field.type == pa.month_day_nano_interval():  # DuckDB's word for a span
            spans = [
                v and pd.Timedelta(30 * v[0] + v[1], "D") + pd.Timedelta(v[2], "ns") for v in table[at].to_pylist()
            ]
            frame.isetitem(at, pd.to_timedelta(pd.Series(spans, dtype=object)))
    bare = frame.select_dtypes("datetime").columns  # times are UTC; DuckDB's aggregates of nanoseconds drop the zone
    frame = frame.assign(**{name: frame[name].dt.tz_localize("UTC") for name in bare})
    return Answer(frame, count > rows or size > MEMORY // 4)


@contextmanager
def _no_more_memory() -> Iterator[None]:
    # DuckDB's own limit does not count the texts of one batch of rows; the system's does, where it has one.
    before = None
    with suppress(ImportError, OSError, ValueError):
        import resource

        most = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 3 * MEMORY
        before = soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (most if soft == resource.RLIM_INFINITY else min(most, soft), hard))
    try:
        yield
    finally:
        if before:
            resource.setrlimit(resource.RLIMIT_AS, before)


def _interruptible(connection: Any, call: Callable[[], Answer], seconds: float) -> Answer:
    # Ctrl-C reaches Python's main thread only between two of its steps: the query runs in another one.
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(call)
        try:
            return running.result(timeout=seconds)
        except BaseException as error:
            if not running.done():
                connection.interrupt()
            if isinstance(error, TimeoutError):
                return running.result()  # DuckDB's own word for it
            raise


def _ledger(folder: Path, manifest: Manifest) -> pa.Table:
    # Which files the store knows; the rest of an entry is the store's own business.
    kinds = {"path": pa.string(), "root": pa.string(), "size": pa.int64(), "sha256": pa.string(), "gone": pa.bool_(),
             "hosts": pa.list_(pa.string())}  # fmt: skip
    entries = read_entries(folder, manifest.ledger) if manifest.schema >= OLDEST else []
    columns = {name: [getattr(entry, name) for entry in entries] for name in kinds}
    return pa.table(columns, schema=pa.schema(list(kinds.items())))
