"""Output and tables of one meaning in many syntaxes -> rows -> findings.

esxcli prints the same fields for people and by ``--formatter``; PowerCLI, vDocumentation and RVTools export them for a fleet. Each
syntax (text blocks, dashed tables, Format-List, JSON, delimited text, workbooks, XML) becomes rows: field name -> text, the name in lower
case without blanks and signs. ``FIELDS`` joins the names that go by many, and ``MEANINGS`` reads the rows by the fields they have.
"""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from psodlib.evidence.artifacts.commands import VIB_VERSION, parse_day, pci_address, state_of
from psodlib.evidence.artifacts.findings import Findings, Part
from psodlib.evidence.artifacts.inventory import COLUMNS, RELEASE
from psodlib.evidence.artifacts.sheets import Numbered, Row, delimited_rows, delimiter_of, headed, json_values, key_of
from psodlib.evidence.streams import noted
from psodlib.evidence.versions import MODULE_OF_VIB
from psodlib.records import Module

MOST_REFUSED = 20  # rows of a file that are listed one by one
DEVICE = re.compile(r"(?:vmnic|vmhba|vusb|vmrdma|vmgfx|vmk_?nic|nic|hba|hpsa|dvfilter)\d{1,4}", re.ASCII)
MODULE = re.compile(r"(?=[\d_-]{0,30}[a-z])[a-z\d][a-z\d_-]{1,40}", re.ASCII)
_VIB = re.compile(r"(?=[\d_.+-]{0,30}[A-Za-z])[A-Za-z\d][\w.+-]{1,100}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|[0-9a-f:]{3,39}", re.ASCII)
_FIELD = re.compile(
    r"^(?P<indent>\s*)(?P<key>[A-Za-z][\w ()/.&#-]{0,60}?)(?:\s{0,40}:|\s{1,40}=)(?:\s+(?P<value>.*))?$"
)
_VSISH_FIELD = re.compile(r"^(?P<indent>\s*)(?P<key>[A-Z]\w{1,30}(?: \w{1,30}){1,8}):(?P<value>[^\s:].*)$")  # no blank
_DASHES = re.compile(r"^\s*-{2,}(?:\s+-{2,})+\s*$")
_XML_FIELD = re.compile(
    r"<(?:field name=\"(?P<name>[^\"<>]{1,80})\"|/?structure\b)[^<>]{0,200}>(?:\s*<(?P<type>\w{1,20})>(?P<value>[^<]*)</)?"
)
# `VIB[0].Name.string=i40en`, `NIC.DriverInfo.Driver.string=bnxtnet`: the record, its field, the field's type.
KEY_VALUE = (
    r"(?P<record>[\w.]{1,80}\[\d{1,6}\]|\w{1,60})\.(?P<field>[\w.\[\]]{1,120})"
    r"\.(?:string|boolean|u?int(?:eger)?\d*|u?long|float|double|time)=(?P<value>.*)"
)
_KEY_VALUE = re.compile(KEY_VALUE)
_DRIVER_VERSION = re.compile(r"^(?:Version\s+)?(?P<version>[^\s,]+)")
_BUILD = re.compile(r"(\d{4,12})")
_OF_A_DEVICE = re.compile(r"^(?:hba|p?nic)(?=driver|firmware|fwversion|device)")  # HbaDriver
_NOTHING = frozenset({"", "-", "n/a", "na", "none", "null", "unknown"})
# A field -> the names it goes by elsewhere.
FIELDS: dict[str, tuple[str, ...]] = {
    "driver": ("drivername", "modulename", "module", "treiber", "driverinfodriver"),
    "pcidevice": ("pci", "pciaddress", "location"),
    "driverversion": ("moduleversion", "drvversion", "treiberversion", "driverinfoversion"),
    "firmwareversion": ("firmware", "fwversion", "driverinfofirmwareversion", "driverfirmwareversion"),
}
_DEVICE_FIELDS = ("vmkernelname", "hbaname", "networkdevice", "device", "devicename", "systemdevicename", "adapter", "nic", "vmnic", "hba", "interface",
                  "name")  # fmt: skip


# --- syntaxes -> rows -------------------------------------------------------------------------------------------------


def rows_of(part: Part, found: Findings) -> Iterator[tuple[int, Row]]:
    """Rows of an output in whatever syntax it has, each with its line; what breaks the syntax is a problem."""
    lines = list(part.lines)
    first = next((text.strip() for _, text in lines if text.strip()), "")
    at, delimiter = lines[0][0] if lines else 1, delimiter_of(first)
    text = "\n".join(text for _, text in lines)
    try:
        if first.startswith(("[", "{")) and '"' in text[:4000]:
            yield from ((line, row) for line, value in json_values(text, at) for row in _rows_in(value))
            if first.startswith("[") and not text.rstrip().endswith("]"):
                raise ValueError("no ] at its end")
        elif _KEY_VALUE.match(first):
            yield from _records(_key_value_fields(lines))
        elif first.startswith(("<?xml", "<output")):
            yield from _records(_xml_fields(text, at))
        elif first.startswith(("#TYPE ", '"')) or delimiter not in (None, "," if ": " in first else None):
            yield from headed(delimited_rows(lines))
        else:
            yield from _text_rows(lines)
    except (ValueError, RecursionError, csv.Error) as error:
        syntax = "JSON" if first[:1] in "[{" else "XML" if first[:1] == "<" else "table"
        detail = f"its {syntax} is damaged or cut short ({error}); what stood before that is used"
        found.problems.append(noted(part.source, "bad_line", detail, at))


def _rows_in(value: Any, host: str | None = None) -> Iterator[Row]:
    # An object with plain cells is a row, plain objects in it by joined names; what holds more are rows of their own.
    if isinstance(value, list):
        for item in value:
            yield from _rows_in(item, host)
    if not isinstance(value, dict):
        return
    row = {key_of(key): _plain(item) for key, item in value.items() if not _holds(item)}
    objects = {key: item for key, item in value.items() if row and isinstance(item, dict)}
    inner = {key: item for key, item in objects.items() if not any(map(_holds, item.values()))}
    row |= {key_of(key + name): _plain(cell) for key, item in inner.items() for name, cell in item.items()}
    if row:
        yield {"vmhost": host} | row if host else row
    for key, item in value.items():
        if key.startswith("hosts") and isinstance(item, dict):  # as Ansible keys them
            for name, own in item.items():
                yield from _rows_in(own, name)
        elif key not in inner:
            yield from _rows_in(item, host)


def _holds(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_holds, value)))


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _records(fields: Iterable[tuple[int, str, str]]) -> Iterator[tuple[int, Row]]:
    # Fields with their lines -> records; one without a name ends a record.
    begin, row = 1, Row()
    for number, key, value in chain(fields, [(0, "", "")]):
        if key:
            begin = begin if row else number
            row[key] = value
        elif row:
            yield begin, row
            row = {}


def _xml_fields(text: str, at: int) -> Iterator[tuple[int, str, str]]:
    # Read by pattern: esxcli's XML is flat, and a real parser would follow entities.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("it declares entities, which no esxcli writes")
    for match in _XML_FIELD.finditer(text):
        yield at, key_of(match["name"] or ""), html.unescape(match["value"] or "")
    yield at, "", ""
    if "</output>" not in text:
        raise ValueError("no </output> at its end")


def _key_value_fields(lines: list[tuple[int, str]]) -> Iterator[tuple[int, str, str]]:
    record = ""
    for number, text in lines:
        if match := _KEY_VALUE.match(text.strip()):
            if match["record"] != record:
                yield number, "", ""
            record = match["record"]
            yield number, key_of(match["field"]), match["value"]


def _text_rows(lines: list[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
    # Dashed tables and blocks of `Key: value` lines, in any order.
    begin = 0
    for index, (_, text) in enumerate(lines):
        if index > begin and _DASHES.match(text) and lines[index - 1][1].strip():
            yield from _block_rows(lines[begin : index - 1])
            rows = list(_table_rows(lines, index))
            yield from rows
            begin = index + 1 + len(rows)
    yield from _block_rows(lines[begin:])


def _table_rows(lines: list[tuple[int, str]], dashes: int) -> Iterator[tuple[int, Row]]:
    # The dashes say where columns begin. The table ends at the first line that does not fit them.
    starts = [match.start() for match in re.finditer(r"-{2,}", lines[dashes][1])]
    ends = [*starts[1:], None]
    names = [key_of(lines[dashes - 1][1][start:end]) for start, end in zip(starts, ends, strict=True)]
    for at in range(dashes + 1, len(lines)):
        number, text = lines[at]
        between = [text[: starts[0]], *(text[start - 1 : start] for start in starts[1:])]
        if any(map(str.strip, between)) or not text[starts[0] :][:1].strip():
            cells = text.split()  # somebody may have given a host another name, and moved what stands behind it
            if text[:1].isspace() or len(cells) != len(names):
                return
        else:
            cells = [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]
        yield number, dict(zip(names, cells, strict=True))


def _block_rows(lines: list[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
    # `Key: value` lines; a blank line, a heading or a key at the same depth again begins the next block.
    row: Row = {}
    depth: dict[str, int] = {}
    begin, last = 1, ""
    for number, text in [*lines, (0, "")]:
        match = _FIELD.match(text) or _VSISH_FIELD.match(text)
        if match is None and row and text.startswith(" " * 16):  # the rest of a long value, as Format-List breaks it
            row[last] += text.strip()
            continue
        key = key_of(match["key"]) if match else ""
        again = key in row and match is not None and len(match["indent"]) <= depth[key]
        if row and (match is None or again):
            yield begin, row
            row, depth = {}, {}
        if match and key not in row:
            begin, last = begin if row else number, key
            row[key], depth[key] = (match["value"] or "").strip(), len(match["indent"])


# --- rows -> findings -------------------------------------------------------------------------------------------------


def _first(row: Row, names: tuple[str, ...]) -> str | None:
    return next((row[name] for name in names if row.get(name, "").lower() not in _NOTHING), None)


def _host(row: Row, names: tuple[str, ...] = COLUMNS["host"][:-1]) -> str | None:
    name = _first(row, names)
    return name if name and _HOST.fullmatch(name) and not name.lower().startswith("localhost") else None


def _device(row: Row) -> str | None:
    return next((row[name] for name in _DEVICE_FIELDS if DEVICE.fullmatch(row.get(name, ""))), None)


def _read_host_name(row: Row, part: Part, line: int, found: Findings) -> None:
    found.host = found.host or _host(row, ("fullyqualifieddomainname", "hostname"))


def _refuse(why: str, part: Part, line: int, found: Findings) -> None:
    # A table of something else may hold thousands.
    if len(found.problems) < MOST_REFUSED:
        more = "; what is like it behind is not listed" if len(found.problems) == MOST_REFUSED - 1 else ""
        found.problems.append(noted(part.source, "bad_line", f"{why}; the row is not used{more}", line))


def _read_vib(row: Row, part: Part, line: int, found: Findings) -> None:
    name, version = row.get("vibname") or row["name"], row.get("vibversion") or row["version"]
    if not (_VIB.fullmatch(name) and name.lower() not in _NOTHING):
        _refuse(f"a VIB called {name[:60]!r}, which none can be", part, line, found)
    elif VIB_VERSION.fullmatch(version):
        day = parse_day(row.get("installdate", ""))
        found.of(_host(row)).vib(part, line, name, version, row.get("id", ""), installed_on=day, **state_of(part))


def _read_module(row: Row, part: Part, line: int, found: Findings) -> None:
    # The module file of the running image: what `vmkload_mod -s` and `system module get` tell.
    path = row.get("inputfile") or row.get("modulefile") or ""
    module = row.get("module") or path.rpartition("/")[2].removesuffix(".o") or _argument(part.command)
    version = _DRIVER_VERSION.match(row["version"])
    if module and version and row["version"][:1].isalnum():
        found.driver(part, line, module, version["version"], evidence="live_module")


def _argument(command: str) -> str:
    # The module or device a command was asked for: `vmkload_mod -s hpsa | grep Version`, `nic get -n vmnic0`.
    words = command.partition("|")[0].split()
    last = words[-1] if words else ""
    return last if re.fullmatch(r"\w[\w.-]*", last) and (len(words) > 1 or DEVICE.fullmatch(last)) else ""


def _read_loaded(row: Row, part: Part, line: int, found: Findings) -> None:
    if row["isloaded"].lower() == "true" and MODULE.fullmatch(row["name"].lower()):
        found.of(_host(row)).modules.append(Module(module=row["name"], time=part.when, source=part.source))


def _read_driver(row: Row, part: Part, line: int, found: Findings) -> None:
    # What drives a device, with its version and the device's firmware where the row has them.
    module = MODULE_OF_VIB.get(row["driver"], row["driver"])  # a controller's tool says lsi-mr3
    version, firmware = row.get("driverversion") or row.get("version"), row.get("firmwareversion")
    device, known = _device(row), _first(row, ("driver",)) is not None
    if known and MODULE.fullmatch(module) and (device or version or firmware):
        asked = _argument(part.command)
        found.of(_host(row)).driver(
            part, line, module, version, evidence="ethtool" if version or firmware else "adapter_list",
            device=device or (asked if DEVICE.fullmatch(asked) else row["businfo"] if pci_address(row.get("businfo")) else None),
            # an adapter's stands in front of its description: (0000:03:00.0) HPE Smart Array
            address=pci_address(row.get("pcidevice") or row.get("address") or row.get("businfo") or row.get("description", "").partition(")")[0].lstrip("(")),
            firmware=firmware if (firmware or "").lower() not in _NOTHING else None,
        )  # fmt: skip
    elif known and device:
        _refuse(f"{device} with the driver {module[:60]!r}, which is no module's name", part, line, found)
    if VIB_VERSION.fullmatch(row.get("vibversion", "")) and row.get("vibname"):
        _read_vib(row, part, line, found)


def _read_host(row: Row, part: Part, line: int, found: Findings) -> None:
    # A host's row of an inventory, or what a host says of its release and its platform.
    host = _host(row) or row.get("name", "")
    told: dict[str, Any] = {
        name: _first(row, COLUMNS[name]) for name in ("esxi_version", "esxi_build", "vendor", "model", "serial")
    }
    release = RELEASE.search(told["esxi_version"] or "")
    if release:
        told["esxi_version"], told["esxi_build"] = release["esxi_version"], release["esxi_build"] or told["esxi_build"]
    if not re.fullmatch(r"\d{1,2}(?:\.\d{1,3}){1,3}", told["esxi_version"] or ""):
        told["esxi_version"] = None
    told["esxi_build"] = next(iter(_BUILD.findall(told["esxi_build"] or "")), None)
    told["serial"] = (told["serial"] or "").strip(" .") or None
    named = host if _HOST.fullmatch(host) else None
    product = row.get("product", "VMware ESX" if named else "")  # and no vCenter
    if any(told.values()) and ("productname" in row or product.startswith("VMware ESX")):
        found.of(named).fact(part, host=named, **told)


# Fields that a row must have -> its reader. Every reading that fits a row is tried in this order; the first that has its fields reads it.
MEANINGS: tuple[tuple[frozenset[str], Callable[[Row, Part, int, Findings], None]], ...] = (
    (frozenset({"driver", "version", "firmwareversion"}), _read_driver),
    (frozenset({"product", "version"}), _read_host),
    (frozenset({"productname", "vendorname"}), _read_host),
    (frozenset({"fullyqualifieddomainname", "hostname"}), _read_host_name),
    (frozenset({"name", "isloaded"}), _read_loaded),
    (frozenset({"inputfile", "version"}), _read_module),
    (frozenset({"modulefile", "version"}), _read_module),
    (frozenset({"a device", "driver"}), _read_driver),
    (frozenset({"driver", "driverversion", "firmwareversion"}), _read_driver),
    (frozenset({"a host", "driver", "driverversion"}), _read_driver),
    (frozenset({"a host", "driver", "firmwareversion"}), _read_driver),
    (frozenset({"a VIB"}), _read_vib),
    (frozenset({"a host", "a fact of it"}), _read_host),
)
# Fields of a host's own row that no VIB's and no device's has: with them `Name` is a host.
_OF_A_HOST = {"connectionstate", "manufacturer", "hardwaremodel", "numcpu", "memorytotalgb", "parent", "esxversion", "esxiversion"}  # fmt: skip


def _fields(row: Row) -> set[str]:
    # The names of a row's fields, and what its values look like.
    for name in list(row):
        row.setdefault(_OF_A_DEVICE.sub("", name), row[name])
    for name, others in FIELDS.items():
        told = next((row[other] for other in others if other in row), None)
        if told is not None:
            row.setdefault(name, told)
    fields = set(row)
    own_name = "name" in fields and (fields & _OF_A_HOST or {"version", "build"} <= fields)
    vib, version = row.get("vibname") or row.get("name"), row.get("vibversion") or row.get("version")
    is_vib = vib and version and (VIB_VERSION.fullmatch(version) or {"vendor", "acceptancelevel"} <= fields)
    told_of_host = any(_first(row, COLUMNS[name]) for name in ("esxi_version", "model"))
    looks = {
        "a device": _device(row),
        "a host": _host(row) or (own_name and not fields & {"apitype", "vm", "powerstatevm"}),
        "a VIB": is_vib and not fields & {"build", "displayname"},
        "a fact of it": told_of_host and not fields & {"device", "driver", "vm", "wwn"},
    }
    return fields | {name for name, holds in looks.items() if holds}


def read_rows(part: Part, found: Findings, sheet: list[Numbered] | None = None) -> None:
    """Read an output, or one sheet of a workbook, by the fields that its rows have, whatever its syntax."""
    asked = re.search(r"vmkload_mod.* -s|module.get", part.command)  # and one line kept of its output
    for line, row in rows_of(part, found) if sheet is None else headed(iter(sheet)):
        fields = _fields(row)
        meaning = next((reader for needed, reader in MEANINGS if needed <= fields), None)
        if meaning is not None:
            meaning(row, part, line, found)
        elif row.keys() == {"version"} and asked:
            _read_module(row, part, line, found)
        asked = None
