"""Tables as Parquet parts, by month and by bucket of hosts, and back; only the parts and columns that are asked for.

A host is in one bucket for good (a hash of its name), so what changes with one host changes in one bucket. Within a bucket a
row lies in the month in which it ended; a new day then rewrites the last month and leaves the years before alone.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from psodlib import schema
from psodlib.errors import InputError
from psodlib.store.folder import Manifest, Part, damaged, is_store, read_checked, read_manifest, write_whole
from psodlib.store.readings import read_entries

# Table -> the column whose month a row lies in; None: all in one.
MONTHS: dict[str, str | None] = {
    "evidence_hosts": None, "crashes": "time", "frames": "time", "modules": "time", "uptimes": "end", "drivers": "observed_at",
    "evidence_problems": None, "coverage": "end", "reasons": "time", "texts": "time", "events": "time",
}  # fmt: skip
PARTED = tuple(MONTHS)
UNDATED = "none"
Row = Mapping[str, Any]
Fresh = MutableMapping[str, pa.Table]  # parts by path that this process wrote a moment ago, and need not read again
MOST_ROWS_A_BYTE = 64  # of Parquet that we wrote
PANDAS = {
    pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype(), pa.bool_(): pd.BooleanDtype(), pa.string(): pd.StringDtype(),
}  # fmt: skip
_NAMES = (*schema.TABLES, *schema.AUXILIARY)
_WHOLE = ("uptimes", "drivers", "hosts")  # a version is carried from boot to boot, so these know no `since`
_DAMAGE = (OSError, ValueError, pa.ArrowException)
_INSTANT = pa.timestamp("ns", "UTC")
_KINDS = {
    schema.TIME: _INSTANT, schema.SPAN: pa.duration("ns"), schema.ADDRESS: pa.uint64(), schema.COUNT: pa.int64(),
    schema.FLAG: pa.bool_(), schema.NUMBER: pa.float64(),
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
    fields = [(column.name, _KINDS.get(column.dtype, pa.string())) for column in schema.columns_of(plain(table))]
    if table == "evidence_hosts":
        fields.append(("columns", pa.string()))
    if table in schema.BY_CRASH:
        fields += [("host", pa.string()), ("time", _INSTANT)]
    return pa.schema(fields)


# ---- writing ----------------------------------------------------------------------------------------------------------


def write_parts(
    folder: Path, table: str, rows: Sequence[Row], bucket: int, old: Iterable[Part],
    hosts: Collection[str | None] | None = None, fresh: Fresh | None = None,
) -> list[Part]:  # fmt: skip
    """Write one bucket's rows of a table, a part a month; parts that would say the same are left alone."""
    known = {part.month: part for part in old}
    new = _by_month(table, rows)
    parts = []
    for month in sorted(new if hosts is None else new.keys() | known.keys()):
        part, wanted = known.get(month), _as_arrow(table, new.get(month, ()))
        if part and hosts is not None:
            there = _read_part(folder, table, part)
            theirs = pc.is_in(there["host"], pa.array(list(hosts), pa.string()))
            if there.filter(theirs).equals(wanted):  # the months before the news, mostly
                parts.append(part)
                continue
            wanted = pa.concat_tables([there.filter(pc.invert(theirs)), wanted])
        if len(wanted):
            parts.append(_write_part(folder, f"{table}/month={month}/bucket={bucket:04d}", wanted, month, bucket))
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


def write_table(folder: Path, table: str, rows: pd.DataFrame) -> tuple[Part, ...]:
    """Write a table that is the whole fleet's as one part, columns beyond the schema's included."""
    whole = pa.Table.from_pandas(rows, preserve_index=False, nthreads=1)
    return (_write_part(folder, f"{table}/all", whole, UNDATED, -1),)


def _write_part(folder: Path, place: str, rows: pa.Table, month: str, bucket: int) -> Part:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    data = bytes(sink.getvalue())
    digest = hashlib.sha256(data).hexdigest()
    path = f"tables/{place}/{digest[:24]}.parquet"
    if not (folder / path).exists() or (folder / path).read_bytes() != data:
        write_whole(folder / path, data)
    return Part(path=path, month=month, bucket=bucket, rows=len(rows), sha256=digest)


# ---- reading ----------------------------------------------------------------------------------------------------------


def _opened(folder: Path, part: Part) -> pq.ParquetFile:
    # Held against its hash, and against rows that no file of its size can honestly hold.
    data = read_checked(folder / part.path, part.sha256)
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
    except _DAMAGE as error:
        raise damaged(folder / part.path, error) from error
    if not file.metadata.num_rows == part.rows <= MOST_ROWS_A_BYTE * len(data):
        raise damaged(folder / part.path, f"{file.metadata.num_rows} rows, {part.rows} are named")
    return file


def _read_part(folder: Path, table: str, part: Part) -> pa.Table:
    try:
        rows = _opened(folder, part).read(use_threads=False)
    except _DAMAGE as error:
        raise damaged(folder / part.path, error) from error
    return rows if part.bucket < 0 else rows.cast(_arrow_schema(table))


def column_of(folder: Path, table: str, parts: Iterable[Part], column: str) -> pa.ChunkedArray:
    """One column of the parts, which are those of a bucket."""
    told = [_opened(folder, part).read(columns=[column], use_threads=False)[column] for part in parts]
    return pa.chunked_array([chunk for one in told for chunk in one.chunks], _arrow_schema(table).field(column).type)


def dataset_of(folder: Path, table: str, parts: Sequence[Part]) -> ds.Dataset:
    """The parts, each held against its hash, as one pyarrow dataset; nothing is read yet."""
    if not parts:
        return ds.dataset(_arrow_schema(table).empty_table())
    known = None if parts[0].bucket < 0 else _arrow_schema(table)
    for part in parts:
        _opened(folder, part)
    return ds.dataset([str(folder / part.path) for part in parts], schema=known, format="parquet")


def read_parts(
    folder: Path, table: str, parts: Sequence[Part], *, hosts: Collection[str] | None = None,
    since: pd.Timestamp | None = None, fresh: Mapping[str, pa.Table] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Rows of the parts, in the table's order and dtypes."""
    if not parts:
        return schema.empty(plain(table))
    column = MONTHS.get(table) if since is not None else None
    pieces = []
    for part in parts:
        rows = (fresh or {}).get(part.path) or _read_part(folder, table, part)
        if hosts is not None:
            rows = rows.filter(pc.is_in(rows["host"], pa.array(sorted(hosts), pa.string())))
        if column is not None:
            late = pc.greater_equal(rows[column], pa.scalar(since, _INSTANT))
            rows = rows.filter(pc.fill_null(late, True))
        pieces.append(rows.drop_columns(["host", "time"]) if table in schema.BY_CRASH else rows)
    whole = pa.concat_tables(pieces)
    if whole.schema.pandas_metadata:  # a whole table, whose further columns have dtypes of their own
        return schema.conform(plain(table), whole.to_pandas(use_threads=False))
    for column_ in schema.columns_of(plain(table)):
        if column_.dtype == "category":  # as codes, so that no text is compared again
            words, told = pa.array(schema.CLOSED_LISTS[column_.name], pa.string()), whole[column_.name]
            codes = pc.index_in(told, words)
            if codes.null_count == told.null_count:  # else `conform` says which word is strange
                coded = pa.DictionaryArray.from_arrays(codes.combine_chunks(), words)
                whole = whole.set_column(whole.schema.get_field_index(column_.name), column_.name, coded)
    return schema.conform(plain(table), whole.to_pandas(types_mapper=PANDAS.get, use_threads=False))


def tables_of(
    folder: Path, manifest: Manifest, *, hosts: Collection[str] | None = None, since: pd.Timestamp | None = None,
    fresh: Mapping[str, pa.Table] | None = None,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """The tables of one generation, or what of them these hosts and this time need."""
    buckets = None if hosts is None else {bucket_of(host, manifest.buckets) for host in hosts}
    tables = {}
    for name in _NAMES:
        late = None if name in _WHOLE else since
        parts = _chosen(manifest, name, buckets, late)
        tables[name] = read_parts(folder, name, parts, hosts=hosts, since=late, fresh=fresh)
    return tables


def _chosen(
    manifest: Manifest, table: str, buckets: Collection[int] | None, since: pd.Timestamp | None = None
) -> list[Part]:
    # The parts that can hold rows of these buckets and of that time or later.
    month = since.strftime("%Y-%m") if since is not None else ""
    return [
        part
        for part in manifest.tables.get(table, ())
        if (buckets is None or part.bucket < 0 or part.bucket in buckets)
        and (part.month == UNDATED or part.month >= month)
    ]


def open_store(
    folder: Path, *, hosts: Collection[str] | None = None, since: str | datetime | None = None
) -> tuple[dict[str, pd.DataFrame], bool]:
    """The tables of a store, as ``Fleet.open`` explains."""
    hosts = [hosts] if isinstance(hosts, str) else hosts
    moment = None if since is None else _moment(since)
    manifest = read_manifest(folder)
    try:
        tables = tables_of(folder, manifest, hosts=hosts, since=moment)
    except InputError:
        again = read_manifest(folder)
        if again.generation == manifest.generation:
            raise
        manifest = again  # two loads were committed while we read: what we had begun with was swept
        tables = tables_of(folder, manifest, hosts=hosts, since=moment)
    if hosts is not None and (strange := sorted(set(hosts) - set(tables["hosts"]["host"]))):
        raise InputError(f"{folder}: no host named {', '.join(strange[:3])}; names are as in the table hosts")
    return tables, manifest.simulated


def _moment(since: str | datetime) -> pd.Timestamp:
    try:
        moment = pd.Timestamp(since)
        return moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
    except (ValueError, TypeError) as error:
        raise InputError(f"since is {since!r}; expected a time such as 2014-05-31") from error


def open_before(folder: Path) -> tuple[dict[str, pd.DataFrame], bool] | None:
    """The tables before the last load that changed any; None after the first."""
    manifest = _of_a_store(folder)
    if not manifest.earlier:
        return None
    return tables_of(folder, msgspec.structs.replace(manifest, tables=manifest.earlier)), manifest.simulated


def _of_a_store(folder: Path) -> Manifest:
    if not is_store(folder):
        raise InputError(f"{folder}: no store; expected a folder of load(store=...)")
    return read_manifest(folder)


def each_bucket(folder: Path) -> Iterator[tuple[dict[str, pd.DataFrame], bool]]:
    """The tables of a store, one bucket of hosts after another; together they are the fleet's."""
    manifest = _of_a_store(folder)
    whole = {name: read_parts(folder, name, manifest.tables.get(name, ())) for name in ("hosts", "problems")}
    places = {
        name: table["host"].map(lambda host: bucket_of(host, manifest.buckets), na_action="ignore")
        for name, table in whole.items()
    }
    for bucket in range(manifest.buckets):
        tables = {name: table[places[name] == bucket].reset_index(drop=True) for name, table in whole.items()}
        tables |= {
            name: read_parts(folder, name, _chosen(manifest, name, {bucket})) for name in _NAMES if name not in whole
        }
        yield tables, manifest.simulated


def roots_of(folder: Path) -> list[str]:
    """The sources of a store that are still there: where the log around a crash is read."""
    roots = {entry.root for entry in read_entries(folder, read_manifest(folder).ledger) if not entry.gone}
    return sorted(root for root in roots if "://" in root or os.path.lexists(root))
