"""Tables -> CSV that a spreadsheet opens without computing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from psodlib.views.words import literal

__all__ = ["write_csv"]

FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")  # what makes a spreadsheet compute a cell


def write_csv(table: pd.DataFrame, path: str | Path) -> Path:
    """A table as CSV that a spreadsheet opens without computing anything.

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
    out = Path(path)
    with out.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        safe.to_csv(file, index=False, lineterminator="\n")
    return out


def _no_formula(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    text = literal(cell)  # a bare carriage return would begin a row of its own
    return f"'{text}" if text.startswith(FORMULA) else text
