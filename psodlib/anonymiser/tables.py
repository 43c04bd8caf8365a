"""Parquet and inventories, cell by cell: where a column says what its cells are, the column is believed."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from psodlib.anonymiser.learn import OURS, SAFE_COLUMNS, TEXT_COLUMNS, column_kind
from psodlib.anonymiser.rewrite import Rewriter
from psodlib.evidence.artifacts.inventory import COLUMNS

_PLAIN = re.compile(r"[-+]?[\d.,: ]+(?:e[+-]?\d+)?(?:\+00:00)?|true|false|\d{4}-\d\d-\d\d.*", re.IGNORECASE)
_ALIASES = {alias: name for name, aliases in COLUMNS.items() for alias in aliases}


def _cell(rewriter: Rewriter, column: str) -> Callable[[str], str] | None:
    # What is done to a cell of this column; None where nothing may be.
    if column == "source":
        return rewriter.path
    if column in TEXT_COLUMNS:
        return rewriter.text
    if column in OURS - {"host", "vm"} or column in SAFE_COLUMNS:
        return None
    kind = column_kind(column)
    return None if kind is None else lambda cell: rewriter.name(kind, cell) if cell.strip() else cell


def rewrite_parquet(file: BinaryIO, out: BinaryIO, rewriter: Rewriter, look: Callable[[bytes], None]) -> None:
    """A Parquet file, group by group, its numbers and times untouched."""
    source = pq.ParquetFile(file)
    text = {field.name for field in source.schema_arrow if _is_text(field.type)}
    fields = [field.with_type(pa.string()) if field.name in text else field for field in source.schema_arrow]
    shape = pa.schema(fields, source.schema_arrow.metadata)
    with pq.ParquetWriter(out, shape, compression="snappy") as writer:
        for group in range(source.num_row_groups):
            table = source.read_row_group(group)
            columns = {name: table[name] for name in table.column_names}
            for name in text:
                change = _cell(rewriter, name)
                cells = columns[name].to_pylist()
                made = {cell: change(cell) if change else cell for cell in set(cells) if cell is not None}
                for cell in made.values() if change else ():
                    look(cell.encode("utf-8", "surrogateescape"))
                columns[name] = pa.array(map(made.get, cells), pa.string())
            writer.write_table(pa.table(columns, schema=shape))


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def rewrite_table(table: pd.DataFrame, rewriter: Rewriter) -> pd.DataFrame:
    """A table in memory with its names replaced."""
    out = table.copy()
    for column in table:
        change = _cell(rewriter, str(column))
        if change is not None and pd.api.types.is_string_dtype(table[column]):
            made = {cell: change(str(cell)) for cell in table[column].dropna().unique()}
            out[column] = table[column].map(made, na_action="ignore").astype(table[column].dtype)
    return out


def is_inventory(name: str, head: bytes) -> bool:
    """Whether a file is a CSV with a column of hosts."""
    line = re.split(rb"\r\n|\n|\r", head, maxsplit=1)[0].decode("utf-8", "replace")
    cells = [_key(cell) for cell in re.split(r"[,;\t|]", line)]
    if {"acceptancelevel", "installdate", "creationdate"} & set(cells):
        return False  # a list of VIBs, whose names are no hosts
    return name.lower().endswith(".csv") and len(cells) > 1 and any(_ALIASES.get(cell) == "host" for cell in cells)


def _key(cell: str) -> str:
    return re.sub(r"[^a-z0-9]", "", cell.lower().replace("#", "numberof"))


def rewrite_csv(blocks: Iterator[bytes], rewriter: Rewriter) -> Iterator[bytes]:
    """An inventory or a table as CSV, row by row."""
    lines = (line.decode("utf-8", "surrogateescape") for line in _lines(blocks))
    first = next(lines, "")
    delimiter = max(",;\t|", key=first.count)
    rows = csv.reader(chain([first], lines), delimiter=delimiter)
    header = next(rows, [])
    names = (_ALIASES.get(_key(cell)) or re.sub(r"[^a-z0-9]+", "_", cell.lower()).strip("_") for cell in header)
    changes = [_cell(rewriter, name) for name in names]
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow([rewriter.text(cell) for cell in header])
    for row in rows:
        known = chain(changes, repeat(rewriter.text))
        writer.writerow([_in_cell(cell, change) for cell, change in zip(row, known, strict=False)])
        if out.tell() > 1 << 16:
            yield out.getvalue().encode("utf-8", "surrogateescape")
            out.seek(0)
            out.truncate()
    yield out.getvalue().encode("utf-8", "surrogateescape")


def _in_cell(cell: str, change: Callable[[str], str] | None) -> str:
    bare = cell.strip().removeprefix("'")
    if change is None or not bare:
        return cell
    if _PLAIN.fullmatch(bare):  # numbers and times in a column that nobody knows are what they were
        return change(cell) if re.search(r"\d+\.\d+\.\d+\.\d+", cell) else cell
    return cell.replace(bare, change(bare), 1)


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        yield from (line + b"\n" for line in lines)
    yield from filter(None, [rest])
