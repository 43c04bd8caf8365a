"""Tables as Parquet parts, by month and by bucket of hosts, and back; only the parts and columns that are asked for.

A host is in one bucket for good (a hash of its name), so what changes with one host changes in one bucket. Within a bucket a
row lies in the month in which it ended; a new day then rewrites the last month and leaves the years before alone.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from datetime import UTC
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from psodlib import schema
from psodlib.errors import InputError
from psodlib.store.folder import Part, damaged, read_checked, write_whole

# Table -> the column whose month a row lies in; None: all in one. Drivers and boots are read whole with any span of time,
# because a version is carried from boot to boot; they are kept by month only so that a new day writes little.
MONTHS: dict[str, str | None] = {
    "evidence_hosts": None, "crashes": "time", "frames": "time", "modules": "time", "uptimes": "end", "drivers": "observed_at",
    "evidence_problems": None, "coverage": "end", "reasons": "time", "texts": "time",
    "events": "time",
}  # fmt: skip
PARTED = tuple(MONTHS)
UNDATED = "none"
Row = Mapping[str, Any]
Fresh = MutableMapping[str, pa.Table]  # parts by path that this process wrote a moment ago, and need not read again
MOST_ROWS_A_BYTE = 64  # of Parquet that we wrote
_PANDAS = {
    pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype(), pa.bool_(): pd.BooleanDtype(), pa.string(): pd.StringDtype(),
}  # fmt: skip


def bucket_of(host: str | None, buckets: int) -> int:
    """The bucket of a host, the same on every machine and in every year."""
    return int.from_bytes(hashlib.sha256((host or "").encode()).digest()[:4], "big") % buckets


def plain(table: str) -> str:
    """The contract's name of a table: what a bucket knows of ``hosts`` and ``problems`` is kept apart from the fleet's."""
    return table.removeprefix("evidence_")


@cache
def _arrow_schema(table: str) -> pa.Schema:
    # What a crash has bears no host in the contract; here it does, and its crash's time, so that a part can be chosen by it.
    fields = []
    for column in schema.columns_of(plain(table)):
        kind = {
            schema.TIME: pa.timestamp("ns", "UTC"), schema.SPAN: pa.duration("ns"), schema.ADDRESS: pa.uint64(),
            schema.COUNT: pa.int64(), schema.FLAG: pa.bool_(), schema.NUMBER: pa.float64(),
        }.get(column.dtype, pa.string())  # fmt: skip
        fields.append(pa.field(column.name, kind))
    if table == "evidence_hosts":
        fields.append(pa.field("columns", pa.string()))
    if table in schema.BY_CRASH:
        fields += [pa.field("host", pa.string()), pa.field("time", pa.timestamp("ns", "UTC"))]
    return pa.schema(fields)


def write_parts(
    folder: Path,
    table: str,
    rows: Sequence[Row],
    bucket: int,
    old: Iterable[Part],
    hosts: Collection[str | None] | None = None,
    fresh: Fresh | None = None,
) -> list[Part]:
    """Write one bucket's rows of a table, a part a month; parts that would say the same are left alone."""
    known = {part.month: part for part in old}
    new = _by_month(table, rows)
    mine = None if hosts is None else pa.array(list(hosts), pa.string())
    parts = []
    for month in sorted(new if mine is None else new.keys() | known.keys()):
        part, wanted = known.get(month), _as_arrow(table, new.get(month, ()))
        place = f"tables/{table}/month={month}/bucket={bucket:04d}"
        if part and mine is not None:
            there = _read_part(folder, table, part)
            theirs = pc.is_in(there["host"], mine)
            if there.filter(theirs).equals(wanted):  # the months before the news, mostly
                parts.append(part)
                continue
            wanted = pa.concat_tables([there.filter(pc.invert(theirs)), wanted])
        if len(wanted):
            parts.append(_write_part(folder, place, wanted, month, bucket))
            if fresh is not None:
                fresh[parts[-1].path] = wanted
    return parts


def _by_month(table: str, rows: Sequence[Row]) -> dict[str, Sequence[Row]]:
    column = MONTHS[table]
    if column is None:
        return {UNDATED: rows} if rows else {}
    months: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        time = row.get(column)
        months[f"{time.astimezone(UTC):%Y-%m}" if time is not None else UNDATED].append(row)
    return dict(months)


def _as_arrow(table: str, rows: Sequence[Row]) -> pa.Table:
    known = _arrow_schema(table)
    try:
        whole = pa.Table.from_pylist(rows, schema=known)
    except (OverflowError, pa.ArrowException) as error:
        raise InputError(f"table {table}: {error}; expected {known}") from error
    for column in schema.columns_of(plain(table)):
        if column.dtype == "category":
            strange = set(whole[column.name].unique().to_pylist()) - {None, *schema.CLOSED_LISTS[column.name]}
            if strange:
                raise InputError(f"table {table}, column {column.name}: {min(strange)!r} is not in its closed list")
    return whole


def _read_part(folder: Path, table: str, part: Part) -> pa.Table:
    try:
        rows = _opened(folder, part).read(use_threads=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(folder / part.path, error) from error
    return rows if part.bucket < 0 else rows.cast(_arrow_schema(table))


def _opened(folder: Path, part: Part) -> pq.ParquetFile:
    # Held against its hash, and against rows that no file of its size can honestly hold.
    data = read_checked(folder / part.path, part.sha256)
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(folder / part.path, error) from error
    if not file.metadata.num_rows == part.rows <= MOST_ROWS_A_BYTE * len(data):
        raise damaged(folder / part.path, f"{file.metadata.num_rows} rows, {part.rows} are named")
    return file


def write_table(folder: Path, table: str, rows: pd.DataFrame) -> tuple[Part, ...]:
    """Write a table that is the whole fleet's as one part, columns beyond the schema's included."""
    whole = pa.Table.from_pandas(rows, preserve_index=False, nthreads=1)
    return (_write_part(folder, f"tables/{table}/all", whole, UNDATED, -1),)


def _write_part(folder: Path, place: str, rows: pa.Table, month: str, bucket: int) -> Part:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    data = bytes(sink.getvalue())
    digest = hashlib.sha256(data).hexdigest()
    path = f"{place}/{digest[:24]}.parquet"
    if not (folder / path).exists() or (folder / path).read_bytes() != data:
        write_whole(folder / path, data)
    return Part(path=path, month=month, bucket=bucket, rows=len(rows), sha256=digest)


def dataset_of(folder: Path, table: str, parts: Sequence[Part]) -> ds.Dataset:
    """The parts, each held against its hash, as one pyarrow dataset; nothing is read yet."""
    if not parts:
        return ds.dataset(_arrow_schema(table).empty_table())
    known = None if parts[0].bucket < 0 else _arrow_schema(table)
    for part in parts:
        _opened(folder, part)
    return ds.dataset([str(folder / part.path) for part in parts], schema=known, format="parquet")


def read_parts(
    folder: Path,
    table: str,
    parts: Sequence[Part],
    *,
    hosts: Collection[str] | None = None,
    since: pd.Timestamp | None = None,
    fresh: Mapping[str, pa.Table] | None = None,
) -> pd.DataFrame:
    """Rows of the parts, in the table's order and dtypes."""
    if not parts:
        return schema.empty(plain(table))
    column = MONTHS.get(table) if since is not None else None
    mine = None if hosts is None else pa.array(sorted(hosts), pa.string())
    pieces = []
    for part in parts:
        rows = (fresh or {}).get(part.path) or _read_part(folder, table, part)
        if mine is not None:
            rows = rows.filter(pc.is_in(rows["host"], mine))
        if column is not None:
            late = pc.greater_equal(rows[column], pa.scalar(since, pa.timestamp("ns", "UTC")))
            rows = rows.filter(pc.fill_null(late, True))
        pieces.append(rows.drop_columns(["host", "time"]) if table in schema.BY_CRASH else rows)
    return _as_table(table, pa.concat_tables(pieces))


def _as_table(table: str, rows: pa.Table) -> pd.DataFrame:
    if rows.schema.pandas_metadata:  # a whole table, whose further columns have dtypes of their own
        return schema.conform(plain(table), rows.to_pandas(use_threads=False))
    for column in schema.columns_of(plain(table)):
        if column.dtype == "category":  # as codes, so that no text is compared again
            words, told = pa.array(schema.CLOSED_LISTS[column.name], pa.string()), rows[column.name]
            codes = pc.index_in(told, words)
            if codes.null_count == told.null_count:  # else `conform` says which word is strange
                coded = pa.DictionaryArray.from_arrays(codes.combine_chunks(), words)
                rows = rows.set_column(rows.schema.get_field_index(column.name), column.name, coded)
    return schema.conform(plain(table), rows.to_pandas(types_mapper=_PANDAS.get, use_threads=False))


def choose(parts: Iterable[Part], buckets: Collection[int] | None, since: pd.Timestamp | None) -> Iterator[Part]:
    """The parts that can hold rows of these buckets and of that time or later."""
    month = since.strftime("%Y-%m") if since is not None else ""
    for part in parts:
        if (buckets is None or part.bucket < 0 or part.bucket in buckets) and (
            part.month == UNDATED or part.month >= month
        ):
            yield part
