"""Outputs read by the shape of their lines: /proc nodes, release strings, module, device and VIB lists, clocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from psodlib.evidence.artifacts.findings import Findings, Part
from psodlib.evidence.artifacts.inventory import RELEASE
from psodlib.evidence.pieces import bounded, moment_of
from psodlib.records import Alive, Module

Reader = Callable[[Part, Findings], None]
BANNER = r"(?:HPE?|Microsemi|Microchip) (?P<name>[A-Z]{2,12}) Driver \(v ?(?P<version>[^)\s]{1,60})\)"
_BANNER = re.compile(rf"^\s*(?:Driver Version:\s*)?{BANNER}")
_NODE = re.compile(r"^\s*(?P<device>[a-z]+\d{1,3}): (?!SCSI)(?P<model>.{0,100}?)\s*$")
_FIRMWARE = re.compile(r"^\s*Firmware Version:\s*(?P<firmware>\S{1,40})")
_PCI = r"(?:[0-9a-fA-F]{1,4}:)?[0-9a-fA-F]{1,4}:[0-9a-fA-F]{1,2}[.:][0-9a-fA-F]{1,2}"
_MODULE = r"(?P<module>[a-z\d][\w-]{1,40})"
# A row that says which driver has which device: adapter list and scsidevs, nic list and esxcfg-nics, lspci -p. Name, sample, pattern.
DEVICES: tuple[tuple[str, str, str], ...] = (
    ("hba", "vmhba0  hpsa              link-n/a  sas.5001438024ab1230                    (0:3:0.0) Hewlett-Packard Company Smart Array P420i",
     rf"[ \t]*(?P<device>vmhba\d{{1,4}})[ \t]+{_MODULE}[ \t]+(?:link-\S+|unknown|online|offline|unbound)(?:[ \t](?:.{{0,80}}\((?P<address>{_PCI})\))?|$)"),
    ("nic", "vmnic32  Pseudo        r8152   Up            Up            1000  Full    3c:18:a0:00:00:00  9000  Unknown Unknown",
     rf"[ \t]*(?P<device>(?:vmnic|vusb)\d{{1,4}})[ \t]+(?:(?P<address>{_PCI})|Pseudo|N/A)[ \t]+{_MODULE}(?:[ \t]|$)"),
    ("lspci -p", "0000:31:00.0 8086:1521 103c:8157 255/   /     D V igbn         vmnic4",
     rf"[ \t]*(?P<address>{_PCI})[ \t]+[0-9a-f]{{4}}:[0-9a-f]{{4}}[ \t]+[0-9a-f]{{4}}:[0-9a-f]{{4}}[ \t]+\S.{{0,40}}[ \t]V[ \t]+{_MODULE}[ \t]+(?P<device>vm[a-z]{{2,8}}\d{{1,4}})[ \t]*$"),
)  # fmt: skip
_DEVICES = tuple(re.compile(pattern) for *_, pattern in DEVICES)
# Another driver's node than the Smart Array's, told by the command that read it.
_NODE_PATH = re.compile(r"proc[/_]?(?:scsi|driver)[/_]?(?P<module>[a-z][a-z\d_]{1,30}?)[/_](?:host)?\d")
_NODE_VERSION = re.compile(r"^.{0,60}?\b[Dd]river [Vv]ersion:? *v?(?P<version>\d[\w.+-]{2,60})")
_NODE_FIRMWARE = re.compile(r"^.{0,20}?\b[Ff]irmware [Vv]ersion:? +v?(?P<firmware>\d[\w.-]{1,40})")
_ADDRESS = re.compile(r"\b0x([0-9a-f]{9,16})\b")
_MODULE_ID = re.compile(r"\s(\d{1,6})\s+(?:Yes|No|[01])\s*$")
_SMBIOS = re.compile(r"^\s+(?P<key>Manufacturer|Product|Serial)\s*:\s*\"?(?P<value>[^\"]*)\"?\s*$")
_SMBIOS_FIELDS = {"Manufacturer": "vendor", "Product": "model", "Serial": "serial"}
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


def _shown(pattern: str, part: Part) -> Iterator[tuple[int, re.Match[str]]]:
    # The lines of an output that show a pattern.
    search = re.compile(pattern).search
    return ((number, match) for number, text in part.lines if (match := search(text)))


def read_proc_node(part: Part, found: Findings) -> None:
    """``/proc/scsi/hpsa/N`` and ``/proc/driver/hpsa/hpsaN``: the loaded driver's own word, with firmware where it tells."""
    nodes: list[dict[str, Any]] = [{}]
    for number, text in part.lines:
        if match := _BANNER.match(text):
            if "module" in nodes[-1]:  # the next node of several in one output
                nodes.append({})
            nodes[-1] |= {"line": number, "module": match["name"].lower(), "version": match["version"]}
        elif match := _NODE.match(text):
            nodes[-1].setdefault("device", match["device"])
        elif match := _FIRMWARE.match(text):
            nodes[-1].setdefault("firmware", match["firmware"])
        elif text.lower().lstrip().startswith(("hpsa", "nhpsa", "smartpqi")):
            nodes[-1].setdefault("device", text.split(":")[0].strip())
    for node in nodes:
        if "module" in node:
            found.driver(part, **node, evidence="proc")


def read_other_node(part: Part, found: Findings) -> None:
    """``/proc/scsi/qla2xxx/1`` and its like: the module stands in the path, the loaded version and firmware in the text."""
    node: dict[str, Any] = {}
    for number, text in part.lines:
        if match := _NODE_VERSION.match(text):
            node = {"line": number, "version": match["version"]} | node
        if match := _NODE_FIRMWARE.match(text):
            node.setdefault("firmware", match["firmware"])
        if match := re.search(r"\bvmhba\d{1,4}\b", text[:200]):
            node.setdefault("device", match[0])
    path = _NODE_PATH.search(part.command)
    if path and "version" in node:
        found.driver(part, module=path["module"], **node, evidence="proc")


def _facts(pattern: str) -> Reader:
    # A reader of what lines say of the host itself, each group a fact.
    def read(part: Part, found: Findings) -> None:
        for _, match in _shown(pattern, part):
            told = {name: word for name, word in match.groupdict().items() if word}
            if told.get("host", "").lower().startswith("localhost"):
                del told["host"]
            if told:
                found.fact(part, **told)

    return read


# `uname -a`; `hostname`, `hostname -f`; `vmware -v`, `vmware -l`, `/etc/vmware-release`
read_uname = _facts(
    r"^\s*VMkernel (?P<host>\S+) (?P<esxi_version>\d+\.\d+\.\d+) #\d+ SMP.{0,40}? build-(?P<esxi_build>\d{4,12})"
)
read_host_name = _facts(r"^\s*(?P<host>\S(?:.*\S)?)")
read_release = _facts(RELEASE.pattern)


def read_devices(part: Part, found: Findings) -> None:
    """``storage core adapter list``, ``esxcfg-scsidevs -a``, ``network nic list``, ``esxcfg-nics -l``, ``lspci -p``."""
    for number, text in part.lines:
        told = next((match.groupdict() for pattern in _DEVICES if (match := pattern.match(text))), None)
        if told:
            found.driver(part, number, evidence="adapter_list", **told | {"address": pci_address(told["address"])})


def pci_address(text: str | None) -> str | None:
    """A PCI address in its full form; ESXi 5 prints ``(0:3:0.0)``, in decimal figures."""
    words = re.fullmatch(r"(?:([0-9a-f]{1,4}):)?([0-9a-f]{1,4}):([0-9a-f]{1,2})[.:]0?([0-7])", (text or "").lower())
    if words is None:
        return None
    base = 10 if words[1] and len(words[1]) < 3 else 16
    try:
        segment, bus, slot = (int(word or "0", base) for word in words.groups()[:3])
    except ValueError:
        return None
    return f"{segment:04x}:{bus:02x}:{slot:02x}.{words[4]}"


def read_module_names(part: Part, found: Findings) -> None:
    """``esxcfg-module -q``: names of the loaded modules, one a line."""
    names = (match[1] for _, match in _shown(r"^\s*(\w[\w.-]{0,60})\s*$", part))
    found.modules += (Module(module=name, time=part.when, source=part.source) for name in names)


def read_module_table(part: Part, found: Findings) -> None:
    """``vmkload_mod -l`` and ``vmkload_mod -v10 -l``: loaded modules, with addresses where they are printed."""
    in_table = False
    for _, text in part.lines:
        name, *more = text.split() or [""]
        if name == "Name":
            in_table = True
        elif in_table and more and re.fullmatch(r"\w[\w.-]{0,60}", name):
            base, data, *_ = [*(int(value, 16) for value in _ADDRESS.findall(text.lower())), None, None]
            match = _MODULE_ID.search(text)
            number = int(match[1]) if match else None
            told = Module(module=name, base=base, data=data, module_id=number, time=part.when, source=part.source)
            found.modules.append(told)


def read_smbios(part: Part, found: Findings) -> None:
    """``smbiosDump``: maker, model and serial of the system itself, none of its boards."""
    fields: dict[str, str | None] = {}
    in_system = False
    for _, text in part.lines:
        if re.match(r"\s*[A-Z]\w* (?:Info|Information)\b", text):
            in_system = text.strip().startswith("System Info")
        elif in_system and (match := _SMBIOS.match(text)):
            fields.setdefault(_SMBIOS_FIELDS[match["key"]], match["value"].strip() or None)
    if fields:
        found.fact(part, **fields)


def read_uptime(part: Part, found: Findings) -> None:
    """``uptime`` for people: with the time it was taken, it tells when the boot began."""
    pattern = r"\bup (?:(\d{1,6}) days?,\s*)?(?:(\d{1,2}):(\d\d)(?::(\d\d))?|(\d{1,2}) min)"
    for line, match in _shown(pattern, part):
        days, hours, minutes, seconds, alone = map(int, match.groups("0"))
        _keep_uptime(part, found, timedelta(days=days, hours=hours, minutes=minutes + alone, seconds=seconds), line)


def read_uptime_micros(part: Part, found: Findings) -> None:
    """``esxcli system stats uptime get``: microseconds since boot."""
    for line, match in _shown(r"^\s*(\d{6,18})\s*$", part):
        _keep_uptime(part, found, timedelta(microseconds=int(match[1])), line)


def _keep_uptime(part: Part, found: Findings, up: timedelta, line: int) -> None:
    # Without the time of taking an uptime places nothing.
    found.understood = True
    if part.when is not None and up < timedelta(days=10_000):
        boot = bounded(part.when - up)
        told = Alive(start=part.when, end=part.when, boot=boot, evidence="uptime", source=part.source, line=line)
        found.alive.append(told)


def parse_date(text: str) -> datetime | None:
    """Output of ``date`` -> aware UTC time; None where it is none or in another zone."""
    words, zones = re.subn(r" (?:UTC|GMT) (?=\d{4}$)", " ", text.strip())
    try:
        return bounded(datetime.strptime(words, "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)) if zones else None
    except ValueError:
        return None


def read_date(part: Part, found: Findings) -> None:
    """``date``, ``esxcli hardware clock get``, ``system time get``: when the outputs beside it were taken."""
    for _, text in part.lines:
        stamp = parse_date(text) or moment_of(text.strip())
        if stamp:
            found.fact(part, time=stamp)


def read_irrelevant(part: Part, found: Findings) -> None:
    """Recognised, and nothing for us in it."""
    found.understood = True


# --- VIB IDs, VIB lists in every form, and the console output of installing them ----------------------------------------


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
        return bounded(datetime.strptime(text.strip()[:10], form).replace(tzinfo=UTC))
    except ValueError:
        return None


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
