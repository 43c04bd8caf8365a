"""Tables -> CSV that a spreadsheet opens without computing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from psodlib.views.words import literal

FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")  # what makes a spreadsheet compute a cell


def write_csv(table: pd.DataFrame, path: str | Path) -> Path:
    """A table as CSV that a spreadsheet opens without computing anything."""
    out = Path(path)
    out.write_text(csv_text(table), encoding="utf-8", errors="backslashreplace", newline="")
    return out


def csv_text(table: pd.DataFrame) -> str:
    """A table as the text of such a CSV.

    Notes
    -----
    A cell of text, or a column's name, that begins with a character by which spreadsheets know a formula gets an apostrophe
    before it. Numbers stay numbers, a negative one too. Control characters are written out.
    """
    safe = table.rename(columns=_no_formula)
    for place, dtype in enumerate(safe.dtypes):
        if not (pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_datetime64_any_dtype(dtype)):
            column = safe.iloc[:, place].astype(object)
            safe.isetitem(place, column.map(_no_formula, na_action="ignore").to_numpy())
    return str(safe.to_csv(index=False, lineterminator="\n"))


def _no_formula(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    text = literal(cell)  # a bare carriage return would begin a row of its own
    return f"'{text}" if text.startswith(FORMULA) else text
