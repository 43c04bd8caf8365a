"""Outputs read by the shape of their lines: /proc nodes, release strings, module and device lists, clocks."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from psodlib.evidence.artifacts.findings import Findings, Part, bounded, parse_stamp
from psodlib.evidence.artifacts.inventory import RELEASE
from psodlib.records import Alive, Module

BANNER = r"(?:HPE?|Microsemi|Microchip) (?P<name>[A-Z]{2,12}) Driver \(v ?(?P<version>[^)\s]{1,60})\)"
_BANNER = re.compile(rf"^\s*(?:Driver Version:\s*)?{BANNER}")
_NODE = re.compile(r"^\s*(?P<device>[a-z]+\d{1,3}): (?!SCSI)(?P<model>.{0,100}?)\s*$")
_FIRMWARE = re.compile(r"^\s*Firmware Version:\s*(?P<firmware>\S{1,40})")
_UNAME = re.compile(r"^\s*VMkernel (?P<host>\S+) (?P<version>\d+\.\d+\.\d+) #\d+ SMP.{0,40}? build-(?P<build>\d{4,12})")
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
_UP_TEXT = re.compile(r"\bup (?:(\d{1,6}) days?,\s*)?(?:(\d{1,2}):(\d\d)(?::(\d\d))?|(\d{1,2}) min)")
_DATE = re.compile(
    r"^\s*[A-Z][a-z]{2} (?P<month>[A-Z][a-z]{2}) +(?P<day>\d{1,2}) (?P<time>\d\d:\d\d:\d\d) (?:UTC|GMT) (?P<year>\d{4})\s*$"
)
_SMBIOS = re.compile(r"^\s+(?P<key>Manufacturer|Product|Serial)\s*:\s*\"?(?P<value>[^\"]*)\"?\s*$")


def _is_named(host: str) -> bool:
    return not host.lower().startswith("localhost")


def read_proc_node(part: Part, found: Findings) -> None:
    """``/proc/scsi/hpsa/N`` and ``/proc/driver/hpsa/hpsaN``: the loaded driver's own word, with firmware where it
    tells."""
    banner = device = firmware = None
    line = 1
    for number, text in part.lines:
        match = _BANNER.match(text)
        if match and banner is not None:  # the next node of several in one output
            _keep_node(part, found, banner, device, firmware, line)
            device = firmware = None
        if match:
            banner, line = match, number
            continue
        node, version = _NODE.match(text), _FIRMWARE.match(text)
        device = device or (node["device"] if node else None)
        firmware = firmware or (version["firmware"] if version else None)
        if device is None and text.lower().lstrip().startswith(("hpsa", "nhpsa", "smartpqi")):
            device = text.split(":")[0].strip()
    if banner is not None:
        _keep_node(part, found, banner, device, firmware, line)


def _keep_node(
    part: Part, found: Findings, banner: re.Match[str], device: str | None, firmware: str | None, line: int
) -> None:
    found.driver(
        part, line, banner["name"].lower(), banner["version"], evidence="proc", device=device, firmware=firmware
    )


def read_other_node(part: Part, found: Findings) -> None:
    """``/proc/scsi/qla2xxx/1`` and its like: the module stands in the path, the loaded version and firmware in the text."""
    path = _NODE_PATH.search(part.command)
    version: re.Match[str] | None = None
    firmware: str | None = None
    device: str | None = None
    at = 1
    for number, text in part.lines:
        if version is None and (version := _NODE_VERSION.match(text)):
            at = number
        told = _NODE_FIRMWARE.match(text)
        firmware = firmware or (told["firmware"] if told else None)
        device = device or next(iter(re.findall(r"\bvmhba\d{1,4}\b", text[:200])), None)
    if path and version:
        found.driver(part, at, path["module"], version["version"], evidence="proc", device=device, firmware=firmware)


def read_uname(part: Part, found: Findings) -> None:
    """``uname -a``: host, version and build in one line."""
    for _, text in part.lines:
        match = _UNAME.match(text)
        if match:
            host = match["host"] if _is_named(match["host"]) else None
            found.host = found.host or host
            found.fact(part, host=host, esxi_version=match["version"], esxi_build=match["build"])


def read_host_name(part: Part, found: Findings) -> None:
    """``hostname``, ``hostname -f``: one word, whose host what stands beside it is."""
    for _, text in part.lines:
        name = text.strip()
        if name and _is_named(name):
            found.host = found.host or name
            found.fact(part, host=name)


def read_release(part: Part, found: Findings) -> None:
    """``vmware -v``, ``vmware -l``, ``/etc/vmware-release``."""
    for _, text in part.lines:
        match = RELEASE.search(text)
        if match:
            found.fact(part, esxi_version=match["version"], esxi_build=match["build"])


def read_devices(part: Part, found: Findings) -> None:
    """``storage core adapter list``, ``esxcfg-scsidevs -a``, ``network nic list``, ``esxcfg-nics -l``, ``lspci -p``."""
    for number, text in part.lines:
        match = next((match for pattern in _DEVICES if (match := pattern.match(text))), None)
        if match:
            address = pci_address(match["address"])
            found.driver(
                part, number, match["module"], evidence="adapter_list", device=match["device"], address=address
            )


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
    for _, text in part.lines:
        if re.fullmatch(r"\w[\w.-]{0,60}", text.strip()):
            found.modules.append(Module(module=text.strip(), time=part.when, source=part.source))


def read_module_table(part: Part, found: Findings) -> None:
    """``vmkload_mod -l`` and ``vmkload_mod -v10 -l``: loaded modules, with addresses where they are printed."""
    in_table = False
    for _, text in part.lines:
        words = text.split()
        if words[:1] == ["Name"]:
            in_table = True
        elif in_table and len(words) >= 2 and re.fullmatch(r"\w[\w.-]{0,60}", words[0]):
            addresses = [int(value, 16) for value in _ADDRESS.findall(text.lower())]
            number = _MODULE_ID.search(text)
            found.modules.append(
                Module(
                    module=words[0], base=addresses[0] if addresses else None, data=addresses[1] if len(addresses) > 1 else None,
                    module_id=int(number[1]) if number else None, time=part.when, source=part.source,
                )
            )  # fmt: skip


def read_smbios(part: Part, found: Findings) -> None:
    """``smbiosDump``: maker, model and serial of the system itself, none of its boards."""
    fields: dict[str, str] = {}
    in_system = False
    for _, text in part.lines:
        if re.match(r"\s*[A-Z]\w* (?:Info|Information)\b", text):
            in_system = text.strip().startswith("System Info")
        match = _SMBIOS.match(text) if in_system else None
        if match:
            fields.setdefault(match["key"], match["value"].strip())
    if fields:
        vendor, model, serial = (fields.get(key) or None for key in ("Manufacturer", "Product", "Serial"))
        found.fact(part, vendor=vendor, model=model, serial=serial)


def read_uptime(part: Part, found: Findings) -> None:
    """``uptime`` for people: with the time it was taken, it tells when the boot began."""
    for number, text in part.lines:
        match = _UP_TEXT.search(text)
        if match:
            days, hours, minutes, seconds, alone = (int(value) if value else 0 for value in match.groups())
            _keep_uptime(
                part, found, timedelta(days=days, hours=hours, minutes=minutes + alone, seconds=seconds), number
            )


def read_uptime_micros(part: Part, found: Findings) -> None:
    """``esxcli system stats uptime get``: microseconds since boot."""
    for number, text in part.lines:
        if re.fullmatch(r"\s*\d{6,18}\s*", text):
            _keep_uptime(part, found, timedelta(microseconds=int(text)), number)


def _keep_uptime(part: Part, found: Findings, up: timedelta, line: int) -> None:
    # Without the time of taking an uptime places nothing.
    found.understood = True
    if part.when is not None and up < timedelta(days=10_000):
        boot = bounded(part.when - up)
        found.alive.append(
            Alive(start=part.when, end=part.when, boot=boot, evidence="uptime", source=part.source, line=line)
        )


def parse_date(text: str) -> datetime | None:
    """Output of ``date`` -> aware UTC time; None where it is none or in another zone."""
    match = _DATE.match(text)
    words = " ".join(match.group("day", "month", "year", "time")) if match else ""
    try:
        return bounded(datetime.strptime(words, "%d %b %Y %H:%M:%S").replace(tzinfo=UTC))
    except ValueError:
        return None


def read_date(part: Part, found: Findings) -> None:
    """``date``, ``esxcli hardware clock get``, ``system time get``: when the outputs beside it were taken."""
    for _, text in part.lines:
        stamp = parse_date(text) or parse_stamp(text.strip())
        if stamp:
            found.fact(part, time=stamp)


def read_irrelevant(part: Part, found: Findings) -> None:
    """Recognised, and nothing for us in it."""
    found.understood = True
