"""An inventory of hosts as RVTools, an AsBuilt report or a person exports it -> one table with known column names."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from psodlib.errors import InputError

if TYPE_CHECKING:  # the processes that read files make no table, and pandas costs each of them half a second to import
    import pandas as pd

__all__ = ["COLUMNS", "read_inventory"]

# Our name -> the names it goes by, in small letters and digits only. The first that a file has is taken.
COLUMNS: dict[str, tuple[str, ...]] = {
    "host": ("host", "name", "vmhost", "hostname", "esxhost", "esxihost", "fqdn"),
    "cluster": ("cluster", "clustername", "parent"),
    "model": ("model", "hardwaremodel", "productname"),
    "vendor": ("vendor", "manufacturer", "vendorname"),
    "vms": ("vms", "numberofvms", "vmcount", "vmsonhost"),
    "users": ("users", "usercount", "sessions"),
    "esxi_version": ("esxiversion", "esxversion", "version"),
    "esxi_build": ("esxibuild", "esxbuild", "build"),
    "serial": ("serial", "serialnumber", "servicetag"),
}
_NUMBERS = ("vms", "users")


def read_inventory(path: str | Path) -> pd.DataFrame:
    """Read an inventory: one row a host."""
    import pandas as pd

    rows = _rows(path)
    header = rows[0] if rows else []
    names = _column_names(header)
    if "host" not in names:
        raise InputError(
            f"{path}: found the columns {', '.join(header) or '(none)'}; expected one that names the host "
            f"({', '.join(COLUMNS['host'])}); rename it to 'host'"
        )
    width = len(names)
    body = [[*row[:width], *[""] * (width - len(row))] for row in rows[1:] if any(cell.strip() for cell in row)]
    table = pd.DataFrame(body, columns=names, dtype="string").apply(
        lambda column: column.str.strip().replace("", pd.NA)
    )
    table = table[table["host"].notna()]
    twice = table["host"].str.lower().duplicated()
    duplicates = sorted(set(table.loc[twice, "host"]))
    table = table[~twice].reset_index(drop=True)
    for name in set(_NUMBERS) & set(names):
        table[name] = (
            pd.to_numeric(table[name].str.replace(r"[,.\s](?=\d{3}\b)", "", regex=True), errors="coerce")
            .round()
            .astype("Int64")
        )
    order = [name for name in COLUMNS if name in names] + [name for name in names if name not in COLUMNS]
    table = pd.DataFrame(table[order])
    table.attrs["duplicates"] = duplicates
    return table


def _rows(path: str | Path) -> list[list[str]]:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; expected a CSV of hosts") from error
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise InputError(f"{path}: is a workbook; save its host sheet as CSV and give that")
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = data.decode(encoding, "backslashreplace").replace("\0", "")
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]
    if lines and re.match(r'"?sep=.', lines[0]):
        lines = lines[1:]  # Excel's own word for the delimiter
    if not lines:
        return []
    # PowerShell writes a `#TYPE` line above the header.
    lines = lines[1:] if lines[0].startswith("#TYPE") else lines
    delimiter = max(",;\t|", key=lines[0].count)
    try:
        return list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter))
    except csv.Error as error:
        raise InputError(f"{path}: {error}; expected a CSV of hosts") from error


def _column_names(header: list[str]) -> list[str]:
    # Known names by the table above, others in lower_snake; a name that comes twice gets a number.
    keys = [re.sub(r"[^a-z0-9]", "", cell.lower().replace("#", "numberof")) for cell in header]
    known = {}
    for name, aliases in COLUMNS.items():
        position = next((keys.index(alias) for alias in aliases if alias in keys), None)
        if position is not None and position not in known:
            known[position] = name
    names: list[str] = []
    for position, cell in enumerate(header):
        name = (
            known.get(position)
            or re.sub(r"[^a-z0-9]+", "_", cell.strip().lower()).strip("_")
            or f"column_{position + 1}"
        )
        count = sum(other == name or re.fullmatch(re.escape(name) + r"_\d+", other) is not None for other in names)
        names.append(name if not count else f"{name}_{count + 1}")
    return names
