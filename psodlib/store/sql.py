"""A store in SQL: DuckDB over its own files, with nothing else in its reach."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.dataset as ds

from psodlib import schema
from psodlib.errors import InputError
from psodlib.store.folder import is_store, read_manifest
from psodlib.store.partitions import dataset_of

__all__ = ["ask"]

# DuckDB sees the tables as datasets that pyarrow reads, so it needs no file of its own: none to read, write, fetch or load.
_LOCKS = (
    "SET temp_directory=''",
    "SET python_enable_replacements=false",
    "SET enable_external_access=false",
    "SET lock_configuration=true",
)


def ask(folder: Path, query: str) -> pd.DataFrame:
    """The answer to one SELECT over a store's tables.

    Notes
    -----
    The query reaches the store's tables and nothing else: no file, no network, no extension, no setting.
    """
    if not is_store(folder):
        raise InputError(f"{folder}: no store; expected a folder of psod load --store")
    try:
        import duckdb
    except ImportError as error:
        raise InputError("SQL needs DuckDB; install it with: pip install 'psodlib[cluster]'") from error
    manifest = read_manifest(folder)
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone='UTC'")
        for name in [*schema.TABLES, *schema.AUXILIARY]:
            connection.register(name, dataset_of(folder, name, manifest.tables.get(name, [])))
        if manifest.ledger:
            connection.register("ledger", ds.dataset(str(folder / manifest.ledger), format="parquet"))
        for lock in _LOCKS:
            connection.execute(lock)
        try:
            statements = connection.extract_statements(query)
            if len(statements) != 1 or statements[0].type not in (
                duckdb.StatementType.SELECT,
                duckdb.StatementType.EXPLAIN,
            ):
                raise InputError(f"found {len(statements)} statements or one that does not read; expected one SELECT")
            return _in_utc(connection.execute(statements[0]).df())
        except duckdb.Error as error:
            raise InputError(f"DuckDB: {error}") from error


def _in_utc(table: pd.DataFrame) -> pd.DataFrame:
    # The tables' times are UTC; DuckDB's aggregates of nanosecond stamps drop the zone.
    bare = table.select_dtypes("datetime").columns
    return table.assign(**{name: table[name].dt.tz_localize("UTC") for name in bare})
