"""VIB IDs, VIB lists in every form, and the console output of installing them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from psodlib.evidence.artifacts.findings import Findings, Part

# Vendor_type_name_version; neither the vendor nor the version holds `_`.
VIB_WORD = r"[A-Za-z][A-Za-z0-9.-]{0,60}_(?:bootbank|locker)_[A-Za-z0-9.+-]{1,80}(?:_[A-Za-z0-9.+-]{1,40}){0,5}_\d[A-Za-z0-9.:+~-]{0,80}[A-Za-z0-9]"
VIB_ID = re.compile(r"(?<![\w.-])" + VIB_WORD)
VIB_VERSION = re.compile(r"\d[\w.:+~]{0,80}-\w[\w.+~-]{0,80}", re.ASCII)
MIN_WIDTH = 72  # characters of a terminal's line
MAX_ROW = 1000  # characters of a table's row; a longer line is none
_ROW = re.compile(
    r"^\s*(?P<name>[A-Za-z][\w.+-]{1,80})\s+(?P<rest>\S.*?)\s+(?P<day>\d{4}-\d\d-\d\d)(?:\s+\S+(?: \S+){0,3})?\s*$"
)
_VERSION = re.compile(r"(?<!\S)\d[\w.:+~]*-\w[\w.+~]*(?!\S)")
_COMPONENTS = re.compile(r"[ \t]*Name +Display Name ")
_RESULT = re.compile(
    r"^\s*(?P<key>Message|Reboot Required|VIBs Installed|VIBs Removed|VIBs Skipped|DPU Results):\s?(?P<value>.*)$"
)


def state_of(part: Part) -> dict[str, str]:
    """What a VIB listing is of: the next boot's image is pending, any other is installed."""
    waits = "rebooting-image" in part.command
    return {"state": "pending" if waits else "installed", "evidence": "rebooting_image" if waits else "vib_list"}


def read_vib_list(part: Part, found: Findings) -> None:
    """``esxcli software vib list`` with or without header and dashes, and tables that also hold the ID and a summary."""
    for number, line in part.lines:
        if _COMPONENTS.match(line):  # a component is named like a VIB and versioned otherwise
            found.understood = True
            return
        match = _ROW.match(line) if len(line) < MAX_ROW else None
        version = _VERSION.search(match["rest"] + " ") if match else None
        if match and version:
            vib, day = VIB_ID.search(match["rest"]), parse_day(match["day"])
            name = vib[0] if vib else ""
            found.vib(part, number, match["name"], version[0], name, installed_on=day, **state_of(part))


def parse_day(text: str) -> datetime | None:
    """``2016-11-17`` or ``17.11.2016`` -> that day at midnight UTC; None where it is no day."""
    form = "%d.%m.%Y" if text.strip()[2:3] == "." else "%Y-%m-%d"
    try:
        day = datetime.strptime(text.strip()[:10], form).replace(tzinfo=UTC)
    except ValueError:
        return None
    return day if 1990 <= day.year < 2200 else None


def read_vib_ids(part: Part, found: Findings) -> None:
    """Bare VIB IDs, as the result of an installation lists them where its headings are lost."""
    for number, line in part.lines:
        for hit in VIB_ID.finditer(line):
            found.vib(part, number, hit[0], evidence="vib_install")


def read_vib_install(part: Part, found: Findings) -> None:
    """What ``esxcli software vib install|update|remove`` printed. Until the reboot it asks for, the old driver runs on."""
    results: list[dict[str, tuple[int, str]]] = [{}]
    for number, key, value in _result_fields(part):
        if key in results[-1]:
            results.append({})
        results[-1][key] = (number, value)
    for told in results:  # 9.0 says last whether it asks for a reboot
        reboots = told.get("Reboot Required", (0, ""))[1].strip().lower().startswith("true")
        for key, state in (("VIBs Installed", "pending" if reboots else "installed"), ("VIBs Removed", "removed")):
            number, value = told.get(key, (0, ""))
            for hit in VIB_ID.finditer(value):
                found.vib(part, number, hit[0], state=state, evidence="vib_install")


def _result_fields(part: Part) -> list[tuple[int, str, str]]:
    # Fields of the result; a long list runs over lines, which a terminal also breaks within an ID, at its width.
    fields: list[tuple[int, str, list[str]]] = []
    is_open, before = False, ""
    for number, line in part.lines:
        last, before = before, line
        if match := _RESULT.match(line):
            fields.append((number, match["key"], [match["value"]]))
            is_open = True
        elif is_open:
            pieces = fields[-1][2]
            if last.rstrip().endswith(",") or not pieces[-1].strip():
                pieces.append(" " + line.strip())
            elif line[:1].strip() and (len(last) >= MIN_WIDTH or not VIB_ID.fullmatch(last.split()[-1])):
                pieces.append(line.strip())
            else:
                is_open = False
    return [(number, key, "".join(pieces)) for number, key, pieces in fields]
