"""Delimited text, JSON and workbooks -> numbered rows of cells or fields. What columns mean is for others to say."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

import python_calamine

DELIMITERS = ",;\t|"
MAX_COLUMNS = 20_000
MAX_CELLS = 20_000_000
MAX_UNPACKED = 512 << 20  # of a workbook: a few kilobytes of zip can hold a thousand times more
# Lines that stand above a header: Excel's word for the delimiter, PowerShell's for the type.
_ABOVE = re.compile(r'"?sep=.|#TYPE ')

# What may stand between the values of a JSON text: a list that was cut short gives the objects before the cut.
_BETWEEN = re.compile(r"[\s,\[\]\ufeff]*")
_INNER_LIST = re.compile(r"\[\s*(?=\{)")

Numbered = tuple[int, list[str]]
Row = dict[str, str]


def key_of(name: str) -> str:
    """A column's or field's name without case, blanks and signs; ``# VMs`` counts and keeps its sign."""
    return re.sub(r"[^a-z0-9#]", "", name.lower())


def delimiter_of(line: str) -> str | None:
    """What separates the cells of a header."""
    bare = re.sub(r'"[^"]{0,500}"', "", line)
    found = max(DELIMITERS, key=bare.count)
    return found if found in bare else None


def delimited_rows(lines: Iterable[tuple[int, str]]) -> Iterator[Numbered]:
    """Rows of delimited text, header first, each with the number of its first line; a quoted cell may hold line ends.

    Raises ``csv.Error`` where the text breaks the form.
    """
    numbers: list[int] = []
    source = (line for line in lines if line[1].strip())
    first = next((line for line in source if not _ABOVE.match(line[1])), None)
    if first is None:
        return

    def fed() -> Iterator[str]:
        for number, text in (first, *source):
            numbers.append(number)
            yield text + "\n"

    reader = csv.reader(fed(), delimiter=delimiter_of(first[1]) or ",")
    begin = 0
    for row in reader:
        yield numbers[begin], [cell.strip() for cell in row[:MAX_COLUMNS]]
        begin = len(numbers)


def headed(rows: Iterator[Numbered]) -> Iterator[tuple[int, Row]]:
    """Rows under their header by its names; of two columns of one name the first counts."""
    header = next(rows, (1, []))[1]
    names = [key_of(cell) for cell in header]
    for number, cells in rows:
        if cells != header:  # a file that was appended to has its header again
            whole = [*cells, *[""] * len(names)][: len(names)]
            yield number, {name: cell for name, cell in zip(names[::-1], whole[::-1], strict=True) if name}


def json_values(text: str, line: int, within: bool = False) -> Iterator[tuple[int, Any]]:
    """Values of a JSON text that begins on a line, each with its own; ``ValueError`` where it is cut short, after what is whole.

    ``within`` such a one, the objects of the first list count too.
    """
    decoder, counted, cut = json.JSONDecoder(), 0, None
    begin = _behind(text, 0)
    while begin < len(text):
        try:
            value, end = decoder.raw_decode(text, begin)
        except ValueError as error:
            inner = _INNER_LIST.search(text, begin) if within and cut is None else None
            cut = cut or error
            if inner is None:
                break
            begin = inner.end()
            continue
        line, counted = line + text.count("\n", counted, begin), begin
        yield line, value
        begin = _behind(text, end)
    if cut is not None:
        raise cut


def _behind(text: str, at: int) -> int:
    match = _BETWEEN.match(text, at)
    return match.end() if match else at


def is_workbook(head: bytes) -> bool:
    """Whether a file begins like an Excel workbook, new (a zip) or old."""
    return (head.startswith(b"PK\x03\x04") and b"[Content_Types].xml" in head) or head.startswith(b"\xd0\xcf\x11\xe0")


def read_workbook(data: bytes) -> Iterator[list[Numbered]]:
    """The rows of all sheets with at least a header and a row. Raises ``ValueError`` where it cannot be read."""
    try:
        if data.startswith(b"PK"):
            size = sum(member.file_size for member in zipfile.ZipFile(io.BytesIO(data)).infolist())
            if size > MAX_UNPACKED:
                raise ValueError(f"a workbook of {size >> 20} MB unpacked; at most {MAX_UNPACKED >> 20} MB are read")
        book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        for name in book.sheet_names:
            sheet = book.get_sheet_by_name(name)
            if sheet.total_height < 1 or sheet.total_height * sheet.total_width > MAX_CELLS:
                continue
            begin = (sheet.start or (0, 0))[0] + 1
            rows = enumerate(sheet.to_python(skip_empty_area=True), begin)
            yield [(number, [_cell_text(cell) for cell in row]) for number, row in rows if any(row)]
    except (python_calamine.CalamineError, zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"no readable workbook ({error})") from error


def _cell_text(cell: object) -> str:
    # A whole number is kept as a float in a workbook.
    whole = isinstance(cell, float) and cell.is_integer()
    return "" if cell is None else str(int(cell)) if whole else str(cell).strip()  # type: ignore[call-overload]
