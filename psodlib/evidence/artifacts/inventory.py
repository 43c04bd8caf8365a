"""An inventory of hosts as RVTools, PowerCLI, vDocumentation, an AsBuilt report or a person exports it -> one table with known names."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from psodlib.errors import InputError, in_words
from psodlib.evidence.artifacts.sheets import Numbered, delimited_rows, key_of, read_workbook
from psodlib.evidence.encodings import decoded

if TYPE_CHECKING:  # the processes that read files make no table, and pandas costs each of them half a second to import
    import pandas as pd

# Our name -> the names it goes by, as `key_of` gives them. The first that a file has is taken.
COLUMNS: dict[str, tuple[str, ...]] = {
    "host": ("host", "vmhost", "hostname", "esxhost", "esxihost", "vmhostname", "esxihostname", "esxi", "hostsystem", "servername",
             "server", "fqdn", "dnsname", "name"),
    "cluster": ("cluster", "clustername", "parent"),
    "model": ("model", "hardwaremodel", "hostmodel", "servermodel", "productname", "modell", "hwmodel"),
    "vendor": ("vendor", "manufacturer", "vendorname", "make", "hostmfg", "hersteller", "hardwarevendor"),
    "vms": ("vms", "#vms", "numberofvms", "vmcount", "vmsonhost", "numvms"),
    "users": ("users", "usercount", "sessions"),
    "esxi_version": ("esxiversion", "esxversion", "hostversion", "productversion", "hostproduct", "summaryversion", "hypervisor", "version"),
    "esxi_build": ("esxibuild", "esxbuild", "hostversionbuild", "hostbuild", "buildnumber", "build"),
    "serial": ("serial", "serialnumber", "servicetag", "sn", "seriennummer"),
}  # fmt: skip
RELEASE = re.compile(
    r"VMware ESX(?:i| Server)?,? (?P<esxi_version>\d{1,2}\.\d{1,2}\.\d{1,3})(?:[ ,]+(?:\[Releasebuild-|build[- ]|(?<=, ))(?P<esxi_build>\d{4,12}))?"
)
_NUMBERS = ("vms", "users")


def read_inventory(path: str | Path) -> pd.DataFrame:
    """Read an inventory: one row a host."""
    import pandas as pd

    rows = _sheet_of_hosts(path)
    header = rows[0][1] if rows else []
    names = _column_names(header)
    if "host" not in names:
        raise InputError(
            f"{path}: found the columns {', '.join(header) or '(none)'}; expected one that names the host "
            f"({', '.join(COLUMNS['host'])}); rename it to 'host'"
        )
    width = len(names)
    body = [[*row, *[""] * (width - len(row))][:width] for _, row in rows[1:] if any(row)]
    columns = {name: pd.array([row[at] or None for row in body], dtype="string") for at, name in enumerate(names)}
    table = _split_release(pd.DataFrame(columns))
    table = table[table["host"].notna() & (table["host"] != header[names.index("host")])]
    twice = table["host"].str.lower().duplicated()
    duplicates = sorted(set(table.loc[twice, "host"]))
    table = table[~twice].reset_index(drop=True)
    for name in set(_NUMBERS) & set(names):
        plain = table[name].str.replace(r"[,.\s](?=\d{3}\b)", "", regex=True)
        table[name] = pd.to_numeric(plain, errors="coerce").round().astype("Int64")
    order = [name for name in COLUMNS if name in table] + [name for name in table if name not in COLUMNS]
    table = pd.DataFrame(table[order])
    table.attrs["duplicates"] = duplicates
    return table


def _split_release(table: pd.DataFrame) -> pd.DataFrame:
    # RVTools writes the version and the build in one cell.
    if "esxi_version" not in table:
        return table
    parts = table["esxi_version"].str.extract(RELEASE.pattern).astype("string")
    build = parts["esxi_build"] if "esxi_build" not in table else table["esxi_build"].fillna(parts["esxi_build"])
    return table.assign(esxi_version=parts["esxi_version"].fillna(table["esxi_version"]), esxi_build=build)


def _sheet_of_hosts(path: str | Path) -> list[Numbered]:
    # The sheet that knows most of a host: RVTools writes forty, and many name hosts.
    try:
        data = Path(path).read_bytes()
        if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
            sheets = list(read_workbook(data))
        else:
            text = decoded(data, "cp1252").replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
            sheets = [list(delimited_rows(enumerate(text.split("\n"), 1)))]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: {in_words(error)}; expected a table of hosts (CSV or .xlsx)") from error
    return max(filter(None, sheets), key=lambda rows: _known(rows[0][1]), default=[])


def _known(header: list[str]) -> int:
    names = set(_column_names(header))
    return ("host" in names and not names & {"vm", "device"}) * len(names & COLUMNS.keys())


def _column_names(header: list[str]) -> list[str]:
    # Known names by the table above, others in lower_snake; a name that comes twice gets a number.
    keys = [key_of(cell) for cell in header]
    known: dict[int, str] = {}
    for name, aliases in COLUMNS.items():
        alias = next((alias for alias in aliases if alias in keys), None)
        if alias is not None:
            known.setdefault(keys.index(alias), name)
    names: list[str] = []
    seen: Counter[str] = Counter()
    for at, cell in enumerate(header):
        name = known.get(at) or re.sub(r"[^a-z0-9]+", "_", cell.lower()).strip("_") or f"column_{at + 1}"
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names
