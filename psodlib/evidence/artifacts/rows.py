"""Command output of one meaning in many syntaxes: text blocks, dashed tables, JSON, CSV, XML -> rows -> findings.

esxcli prints the same fields for people and by ``--formatter``. Each syntax becomes rows (field name -> text), field names
in lower case without blanks and signs, and ``MEANINGS`` reads the rows by the fields they have.
"""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from psodlib.evidence.artifacts.commands import pci_address
from psodlib.evidence.artifacts.findings import Findings, Part
from psodlib.evidence.artifacts.vibs import parse_day, reading_of_vib, state_of
from psodlib.evidence.versions import normalise
from psodlib.records import DriverReading, HostFact, Module

__all__ = ["MEANINGS", "Row", "read_rows", "rows_of"]

Row = dict[str, str]
_FIELD = re.compile(r"^(?P<indent>\s*)(?P<key>[A-Za-z][\w ()/.-]{0,60}?)\s?:(?:\s+(?P<value>.*))?$")
_DASHES = re.compile(r"^\s*-{2,}(?:\s+-{2,})+\s*$")
_XML_FIELD = re.compile(
    r"<(?:field name=\"(?P<name>[^\"<>]{1,80})\"|/?structure\b)[^<>]{0,200}>(?:\s*<(?P<type>\w{1,20})>(?P<value>[^<]*)</)?"
)
_DRIVER_VERSION = re.compile(r"^(?:Version\s+)?(?P<version>[^\s,]+)")
_BUILD = re.compile(r"(\d{4,12})")


def _key(text: str) -> str:
    return re.sub(r"[^a-z0-9#]", "", text.lower())


# --- syntaxes -> rows -------------------------------------------------------------------------------------------------


def rows_of(part: Part) -> Iterator[tuple[int, Row]]:
    """Rows of an output in whatever syntax it has, each with its line."""
    lines = list(part.lines)
    first = next((text.strip() for _, text in lines if text.strip()), "")
    at = lines[0][0] if lines else 1
    if first.startswith(("[", "{")) and '"' in "".join(text for _, text in lines[:5]):
        return ((at, row) for row in _json_rows("\n".join(text for _, text in lines)))
    if first.startswith(("<?xml", "<output")):
        return ((at, row) for row in _xml_rows("\n".join(text for _, text in lines)))
    if first.count(",") >= 2 and ":" not in first:
        return _csv_rows(lines)
    dashes = next((index for index, (_, text) in enumerate(lines) if index and _DASHES.match(text)), None)
    return _block_rows(lines) if dashes is None else _table_rows(lines, dashes)


def _json_rows(text: str) -> Iterator[Row]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return
    for value in data if isinstance(data, list) else [data]:
        if isinstance(value, dict):
            yield {_key(str(key)): _plain(item) for key, item in value.items()}


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value if not isinstance(item, (list, dict)))
    return "" if value is None or isinstance(value, dict) else str(value)


def _xml_rows(text: str) -> Iterator[Row]:
    # Read by pattern: esxcli's XML is flat, and a real parser would follow entities.
    row: Row = {}
    for match in _XML_FIELD.finditer(text):
        if match["name"]:
            row[_key(match["name"])] = html.unescape(match["value"] or "")
        elif row:
            yield row
            row = {}
    if row:
        yield row


def _csv_rows(lines: list[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
    numbers = [number for number, text in lines if text.strip()]
    try:
        for number, values in zip(numbers[1:], csv.DictReader(text for _, text in lines if text.strip()), strict=False):
            yield (
                number,
                {
                    _key(name): value.strip()
                    for name, value in values.items()
                    if isinstance(name, str) and isinstance(value, str)
                },
            )
    except csv.Error:
        return


def _table_rows(lines: list[tuple[int, str]], dashes: int) -> Iterator[tuple[int, Row]]:
    # The dashes say where columns begin; a value may be longer than its column's dashes only in the last.
    starts = [match.start() for match in re.finditer(r"-{2,}", lines[dashes][1])]
    ends = [*starts[1:], None]
    names = [_key(lines[dashes - 1][1][start:end]) for start, end in zip(starts, ends, strict=True)]
    for number, text in lines[dashes + 1 :]:
        if text.strip() and not _DASHES.match(text):
            yield number, {name: text[start:end].strip() for name, start, end in zip(names, starts, ends, strict=True)}


def _block_rows(lines: list[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
    # `Key: value` lines; a blank line, a heading or a key at the same depth again begins the next block.
    row: Row = {}
    depth: dict[str, int] = {}
    begin = 1
    commented = all(text.lstrip().startswith("#") for _, text in lines if text.strip())
    for number, text in lines:
        match = _FIELD.match(re.sub(r"^\s*#", "", text) if commented else text)
        key = _key(match["key"]) if match else ""
        again = key in row and match is not None and len(match["indent"]) <= depth[key]
        if row and (match is None or again):
            yield begin, row
            row, depth = {}, {}
        if match and key not in row:
            begin = begin if row else number
            row[key] = (match["value"] or "").strip()
            depth[key] = len(match["indent"])
    if row:
        yield begin, row


# --- rows -> findings -------------------------------------------------------------------------------------------------


def _read_version(row: Row, part: Part, line: int, found: Findings) -> None:
    build = _BUILD.search(row["build"])
    found.facts.append(
        HostFact(
            esxi_version=row["version"] or None,
            esxi_build=build[1] if build else None,
            time=part.when,
            source=part.source,
        )
    )


def _read_platform(row: Row, part: Part, line: int, found: Findings) -> None:
    serial = row.get("serialnumber", "").strip(" .")
    found.facts.append(
        HostFact(
            vendor=row["vendorname"] or None,
            model=row["productname"] or None,
            serial=serial or None,
            time=part.when,
            source=part.source,
        )
    )


def _read_vib(row: Row, part: Part, line: int, found: Findings) -> None:
    state, evidence = state_of(part)
    installed_on = parse_day(row.get("installdate", ""))
    found.drivers += reading_of_vib(
        row["name"], row["version"], row.get("id") or None, state=state, evidence=evidence, installed_on=installed_on,
        source=part.source, line=line,
    )  # fmt: skip


def _read_module(row: Row, part: Part, line: int, found: Findings) -> None:
    # The module file of the running image: what `vmkload_mod -s` and `system module get` tell.
    path = row.get("inputfile") or row.get("modulefile") or ""
    module = row.get("module") or path.rpartition("/")[2] or _argument(part.command)
    version = _DRIVER_VERSION.match(row["version"])
    if module and version and row["version"][:1].isalnum():
        found.drivers.append(
            DriverReading(
                module=module, version=normalise(version["version"], module), state="loaded", evidence="live_module",
                source=part.source, line=line,
            )
        )  # fmt: skip


def _argument(command: str) -> str:
    # The module or device a command was asked for: `vmkload_mod -s hpsa | grep Version`, `nic get -n vmnic0`.
    words = command.partition("|")[0].split()
    return words[-1] if len(words) > 1 and re.fullmatch(r"[\w.-]+", words[-1]) and not words[-1].startswith("-") else ""


def _read_loaded(row: Row, part: Part, line: int, found: Findings) -> None:
    if row["isloaded"].lower() == "true" and row["name"]:
        found.modules.append(Module(module=row["name"], time=part.when, source=part.source))


def _read_adapter(row: Row, part: Part, line: int, found: Findings) -> None:
    device = row.get("hbaname") or row.get("name")
    if row["driver"] and device:
        found.drivers.append(
            DriverReading(
                module=row["driver"],
                state="loaded",
                evidence="adapter_list",
                device=device,
                address=pci_address(row.get("pcidevice")),
                source=part.source,
                line=line,
            )
        )


def _read_ethtool(row: Row, part: Part, line: int, found: Findings) -> None:
    firmware = row["firmwareversion"]
    if row["driver"]:
        found.drivers.append(
            DriverReading(
                module=row["driver"], version=normalise(row["version"], row["driver"]), state="loaded", evidence="ethtool",
                device=row.get("name") or _argument(part.command) or row.get("businfo") or None,
                firmware=None if firmware in ("", "N/A") else firmware, source=part.source, line=line,
            )
        )  # fmt: skip


# Fields that a row must have -> its reader. The first that fits reads the row.
MEANINGS: tuple[tuple[frozenset[str], Callable[[Row, Part, int, Findings], None]], ...] = (
    (frozenset({"driver", "version", "firmwareversion"}), _read_ethtool),
    (frozenset({"product", "version", "build"}), _read_version),
    (frozenset({"productname", "vendorname"}), _read_platform),
    (frozenset({"name", "isloaded"}), _read_loaded),
    (frozenset({"hbaname", "driver"}), _read_adapter),
    (frozenset({"name", "driver", "macaddress"}), _read_adapter),
    (frozenset({"inputfile", "version"}), _read_module),
    (frozenset({"modulefile", "version"}), _read_module),
    (frozenset({"name", "version", "vendor"}), _read_vib),
)


def read_rows(part: Part, found: Findings) -> None:
    """Read an output by the fields that its rows have, whatever its syntax."""
    for line, row in rows_of(part):
        meaning = next((reader for fields, reader in MEANINGS if fields <= row.keys()), None)
        if meaning is not None:
            meaning(row, part, line, found)
        elif "version" in row and re.search(r"vmkload_mod.* -s|module get", part.command):
            _read_module(row, part, line, found)
