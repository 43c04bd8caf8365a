"""Every file kind but the vmkernel's own text -> boots, signs of life, driver readings, facts of the host.

``KINDS`` is the one table: a kind's name, a sample of its telling line, the pattern of that line, its reader. Content
decides; the command that printed an output, as its prompt or its file's name tells it, only helps where an output has no
shape of its own (a bare number, a list of names).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain, islice
from typing import Any, BinaryIO

from psodlib.evidence.artifacts import commands, logs, rows, vcenter
from psodlib.evidence.artifacts.commands import Reader
from psodlib.evidence.artifacts.findings import ISO_STAMP, Findings, Part, numbered_blocks, numbered_lines
from psodlib.evidence.artifacts.inventory import read_inventory
from psodlib.evidence.artifacts.sheets import read_workbook
from psodlib.evidence.artifacts.terminal import has_prompt, output_lines, split_terminal
from psodlib.evidence.dress import plain, worn
from psodlib.evidence.heads import Heads
from psodlib.evidence.streams import noted
from psodlib.records import FileReading, Problem

__all__ = ["KINDS", "Kind", "read_artifact", "read_book", "read_inventory", "recognise"]

SNIFFED = 400  # lines looked at to recognise a file
MAX_LOOK = 1000  # characters of a line looked at
MAX_LINES = 2_000_000  # of a capture of a terminal or a command's output


_FENCE = re.compile(r"[ \t]*(?:`{3,}|~{3,})[ \t]*[\w-]{0,20}[ \t]*$")


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table: how a file kind looks and who reads it. Its pattern is one that RE2 compiles."""

    name: str
    sample: str  # a line (or lines) that tells it; the test holds the pattern to it
    pattern: re.Pattern[str]
    reader: Reader
    command: str = ""  # where there is one, the pattern counts only for the output of such a command
    irrelevant: bool = False
    group: str = ""  # of one output only the first kind of a group reads: a VIB's list holds VIB IDs too
    is_log: bool = False  # read alone and to any length

    def fits(self, text: str, command: str) -> bool:
        """Whether a text, printed by a command, is of this kind."""
        look = self.pattern.match if self.pattern.pattern.startswith(r"\A") else self.pattern.search
        return re.search(self.command, command) is not None and look(text) is not None


def _kind(name: str, sample: str, pattern: str, reader: Reader, **told: Any) -> Kind:
    return Kind(name, sample, re.compile(pattern, re.MULTILINE), reader, **told)


def _unnamed(pattern: str) -> str:
    return re.sub(r"\?P<\w+>", "?:", pattern)


_HEAD = rf"^{ISO_STAMP}:? +(?:[A-Z][a-z]\(\d{{1,3}}\)\+? +)?"

# A header of delimited text has one of these among its cells.
_COLUMN_NAMES = (
    r"(?:ESXi? ?|VM ?)?Host ?(?:name)?|Name|ESXi|Server|Device|AcceptanceLevel|ProductName|HBAName|IsLoaded|PCIDevice|Build|"
    r"(?:Driver|Treiber) ?(?:Version)?|VIB ?Name|VMKernel Name"
)

KINDS: tuple[Kind, ...] = (
    _kind("vcenter", '{"psod_vcenter": "host", "host": "esx01.lab", "taken": "2026-01-01T00:00:00+00:00"}', r'\A\{"psod_vcenter": "', vcenter.read_vcenter),
    _kind("vmksummary", "2014-05-31T15:00:01Z heartbeat: up 29d19h16m41s, 25 VMs; [[3411 vmx 1kB]] []",
          _HEAD + r"(?:vmksummary(?:\[\d+\])?: *)?(?:heartbeat|bootstop|mark)(?:\[\d+\])?: |" + _HEAD + r"Host (?:has booted|is (?:rebooting|powering off|halting))",
          logs.read_vmksummary, is_log=True),
    _kind("vmksummary", "Feb 25 15:01:01 esx35 logger: (1235592061) hb: vmk loaded, 51665.82, 51665.348, 20, 110268, 110268",
          r"^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ logger: \(\d{9,10}\) hb: vmk loaded, ", logs.read_vmksummary_classic, is_log=True),
    _kind("vobd", "2014-12-10T18:01:03.496Z: [scsiCorrelator] 14807183227us: [vob.scsi.scsipath.pathstate.dead] path is down",
          _HEAD + r"(?:vobd(?:\[\d+\])?: *)?\[\w+\] \d{1,18}us:", logs.read_vobd, is_log=True),
    _kind("esxupdate", "2014-06-02T09:10:08Z esxupdate: root: DEBUG: Finished execution of command = vib.install",
          _HEAD + r"esxupdate(?:\[\d+\])?:", logs.read_esxupdate, is_log=True),
    _kind("hostd", "2014-05-31T15:57:01.123Z [FFD81B90 info 'Vimsvc.ha-eventmgr'] Event 7 : esx.audit.host.boot",
          _HEAD + r"(?:(?:Hostd|hostd|Vpxa|vpxa)(?:\[\d+\])?: |\[[0-9A-F]{6,12} +(?:info|verbose|warning|error|trivia|panic) '|"
          r"(?:info|verbose|warning|error) (?:hostd|vpxa)\[|[^\n]{0,300}Section for VMware ESX)", logs.read_hostd, is_log=True),
    _kind("proc_node", "HP HPSA Driver (v 5.5.0.58-1OEM)", rf"^[ \t]*(?:Driver Version:\s*)?{_unnamed(commands.BANNER)}",
          commands.read_proc_node),
    _kind("proc_node", "Driver version 934.5.4.0-1vmw", r"^.{0,60}\b[Dd]river [Vv]ersion:? *v?\d", commands.read_other_node, command=r"proc[/_]?(?:scsi|driver)"),
    _kind("vib_install", "VIBs Installed: Hewlett-Packard_bootbank_scsi-hpsa_5.5.0.50-1OEM.550.0.0.1198611",
          r"^[ \t]*VIBs (?:Installed|Removed): ?", commands.read_vib_install, group="vibs"),
    _kind("formatter", '[{"Name": "scsi-hpsa", "Vendor": "HP", "Version": "5.5.0.58-1OEM.550.0.0.1331820"}]',
          r'\A(?:\[\s*)?\{(?s:.*?)"(?:Name|Product|ProductName|HBAName|Driver|Version|Build|ModuleFile|IsLoaded|VMkernelName|ID|driver|acceptance_level)"\s*:|\A(?:\[\s*)?\{(?s:.*?)"VMware ESXi? ', rows.read_rows),
    _kind("formatter", '<?xml version="1.0" encoding="utf-8"?>\n<output xmlns="http://www.vmware.com/Products/ESX/5.0/esxcli">',
          r"\A(?:<output\b|<\?xml[^>]{0,200}>\s*(?:<output\b|<!DOCTYPE[^>\[]{0,100}\[))", rows.read_rows),
    _kind("formatter", "VIB[0].Name.string=i40en", rf"^[ \t]*{rows.KEY_VALUE}", rows.read_rows),
    _kind("table", '"VMHost","Name","Vendor","Version","InstallDate"',
          r'\A(?:(?:"?sep=.|#TYPE [^\n]{0,300})\n)?(?:"?(?i:' + _COLUMN_NAMES + r')[" ]{0,2}[,;\t|]|[^\n]{0,1000}[,;\t|][" ]{0,2}(?i:' + _COLUMN_NAMES + r')[" ]{0,2}(?:[,;\t|]|$))',
          rows.read_rows),
    _kind("uname", "VMkernel esx01.lab 5.5.0 #1 SMP Release build-1331820 Sep 18 2013 23:08:31 x86_64 GNU/Linux",
          r"^[ \t]*VMkernel \S+ \d+\.\d+\.\d+ #\d+ SMP", commands.read_uname),
    _kind("version", "   Product: VMware ESXi\n   Version: 5.5.0\n   Build: Releasebuild-1331820",
          r"^[# \t]*Product: VMware ESX", rows.read_rows),
    _kind("platform", "Platform Information\n   UUID: 0x37\n   Product Name: ProLiant DL380p Gen8\n   Vendor Name: HP",
          r"^[ \t]*Product Name: ", rows.read_rows),
    _kind("smbios", '  System Info: #1\n    Manufacturer: "HP"\n    Product: "ProLiant DL380p Gen8"',
          r"^[ \t]*System Info(?:rmation)?\b", commands.read_smbios),
    _kind("module_file", "vmkload_mod module information\n input file: /usr/lib/vmware/vmkmod/hpsa\n Version: Version 5.5.0.58, Build: 1331820",
          r"^[ \t]*(?:input file|Module File): ", rows.read_rows),
    _kind("module_file", " Version: Version 5.5.0.58-1OEM, Build: 1331820, Interface: 9.2 Built on: Jul 29 2013",
          r"^[ \t]*Version: (?:Version )?\S+, Build: \d+, Interface: ", rows.read_rows, command=r"vmkload_mod|module.get"),
    _kind("module_file", "Version: 7.703.18.00-1OEM.650.0.0.4598673", r"^[ \t]*[Vv]ersion: \S+[ \t]*$", rows.read_rows, command=r"vmkload_mod|module.get"),
    _kind("ethtool", "driver: bnx2x\nversion: 2.710.70.v55.7\nfirmware-version: FFV7.10.17 bc 7.10.11\nbus-info: 0000:01:00.0",
          r"^[ \t]*(?:firmware-version|Firmware Version) ?[:=](?:[ \t]|$)", rows.read_rows),
    _kind("controller", "Driver Name = lsi-mr3\nDriver Version = 7.718.02.00", r"^[ \t]*Driver Name = ", rows.read_rows),
    _kind("vsish", "   Driver Name:bnxtnet\n   Driver Version:222.0.118.0", r"^[ \t]*Driver Version:\S", rows.read_rows),
    _kind("module_table", "Name                     Used    Size (kb)", r"^Name +(?:Used +Size|R/O Addr)", commands.read_module_table),
    _kind("module_table", "Name                 Is Loaded  Is Enabled\n-------------------  ---------  ----------",
          r"^Name +Is Loaded", rows.read_rows),
    _kind("devices", "vmhba0  hpsa              link-n/a  sas.5001438024ab1230                    (0:3:0.0) Hewlett-Packard Company Smart Array P420i",
          "^(?:" + "|".join(_unnamed(pattern) for *_, pattern in commands.DEVICES) + ")",
          commands.read_devices),
    _kind("vmkchdev", "0000:03:00.0 103c:323b 103c:3355 vmkernel vmhba1",
          r"^[0-9a-f]{3,4}:[0-9a-f]{1,2}(?::[0-9a-f]{2})?\.\d [0-9a-f]{4}:[0-9a-f]{4} [0-9a-f]{4}:[0-9a-f]{4} (?:vmkernel|passthru)", commands.read_irrelevant,
          irrelevant=True),
    _kind("vib_get", "Hewlett-Packard_bootbank_scsi-hpsa_5.5.0.58-1OEM.550.0.0.1331820\n   Name: scsi-hpsa\n   Version: 5.5.0.58-1OEM.550.0.0.1331820\n   Type: bootbank\n   Vendor: HP",
          r"^[ \t]*Name: \S+[ \t]*\n[ \t]*Version: \S+[ \t]*\n", rows.read_rows, group="vibs"),
    _kind("vib_list", "scsi-hpsa   5.5.0.58-1OEM.550.0.0.1331820   Hewlett-Packard   VMwareCertified   2014-03-20",
          r"^[ \t]*[A-Za-z][\w.+-]+ +\S.{0,300}? \d{4}-\d\d-\d\d(?: +\S+){0,4}[ \t]*$", commands.read_vib_list, group="vibs"),
    _kind("vib_ids", "VMware_bootbank_lpfc_10.2.309.8-2vmw.600.0.0.2494585, VMware_bootbank_lsi-mr3_6.605.08.00-6vmw.600.0.0.2494585",
          rf"^[ \t]*(?:\.\.\.)?{commands.VIB_WORD}(?:,|[ \t]*$)", commands.read_vib_ids, group="vibs"),
    _kind("release", "VMware ESXi 5.5.0 build-1331820", r"^[ \t]*(?:fullName = [\"'])?VMware ESX(?:i| Server)? \d+\.\d+\.\d+", commands.read_release),
    _kind("date", "Mon Jun  2 10:00:00 UTC 2014", r"^[A-Z][a-z]{2} [A-Z][a-z]{2} +\d{1,2} \d\d:\d\d:\d\d (?:UTC|GMT) \d{4}[ \t]*$", commands.read_date),
    _kind("date", "2025-12-11T16:32:46Z", rf"\A{ISO_STAMP}\s*\Z", commands.read_date, command="clock|time get|date"),
    _kind("host_name", "   Fully Qualified Domain Name: esx01.lab", r"^[ \t]*Fully Qualified Domain Name: ", rows.read_rows),
    _kind("host_name", "esx01.lab", r"\A[A-Za-z0-9][A-Za-z0-9.-]*\s*\Z", commands.read_host_name, command=r"^\s*(?:/bin/)?hostname(?:$| -f| -s)"),
    _kind("pci_list", "   VMkernel Name: vmhba0", r"^[ \t]*VMkernel Name: vm", rows.read_rows),
    _kind("format_list", "VMHost          : esx01.lab\nManufacturer    : HPE", r"^[A-Za-z][\w ]{0,40} {1,40}: .{0,300}\n[A-Za-z][\w ]{0,40} {1,40}:", rows.read_rows),
    _kind("format_table", "Name  Driver Version\n----  ------ -------", r"^[ \t]*-{2,}(?: +-{2,})+[ \t]*$", rows.read_rows, group="vibs"),
    _kind("uptime", " 10:00:00 up 29 days, 20:14:10, load average: 0.05, 0.04, 0.05", r"^[ \t]*\d{1,2}:\d\d:\d\d up (?:\d+ day|\d+:\d\d|\d+ min)", commands.read_uptime),
    _kind("uptime", "2578450166000", r"\A\d{6,18}\s*\Z", commands.read_uptime_micros, command=r"uptime"),
    _kind("module_names", "vmkapi_mgmt\nvmkapi_socket\nhpsa", r"\A(?:[\w.-]+\n)*?(?:vmkapi_\w+|vmklinux\w*|com\.vmware\.\w+)[ \t]*$",
          commands.read_module_names),
)  # fmt: skip


# The patterns alone, all in one pass: a bundle has hundreds of outputs that are of no kind at all.
_HEADS = Heads(kind.pattern.pattern for kind in KINDS)


def recognise(text: str, command: str = "", among: Sequence[int] | None = None) -> Kind | None:
    """The first kind of the table that a text's lines look like; ``among`` are the places of those that it may be."""
    return next(_kinds_of(text, command, among), None)


def _kinds_of(text: str, command: str, among: Sequence[int] | None = None) -> Iterator[Kind]:
    # A log alone; else every kind that fits, each reader and each group once: an output without a heading may stand by another.
    # Cut, so that no line of a hostile length is searched by every pattern.
    head = "\n".join(line[:MAX_LOOK] for line in text[: 64 << 10].lstrip().split("\n"))
    done: set[object] = set()
    places = _HEADS.found(head.encode("utf-8", "surrogateescape")) if among is None else among
    for kind in (KINDS[place] for place in places):
        if done & {kind.reader, kind.group} or (kind.is_log and done) or not kind.fits(head, command):
            continue
        yield kind
        if kind.is_log:
            return
        done |= {kind.reader, kind.group or kind.reader}


def _plain(lines: Iterable[tuple[int, str]], dress: re.Pattern[str] | None) -> Iterator[tuple[int, str]]:
    # Without what a page, a reply or markdown put around an output's lines.
    for number, text in lines:
        text = plain(dress.sub("", text) if dress else text)
        yield number, "" if text.lstrip()[:3] in ("```", "~~~") and _FENCE.match(text) else text


def read_artifact(
    stream: BinaryIO, source: str, name: str, when: datetime | None = None, kind: Kind | None = None
) -> list[FileReading]:
    """Read a log, a command's output or a capture of several; of the log that it is, where that is known already."""
    kind = kind if kind and (kind.is_log or kind.irrelevant) else None
    raw, head, dress = numbered_blocks(stream), "", None
    if kind is None:
        first = list(islice(raw, 2))
        dress = worn(b"".join(block for _, block in first)[: 1 << 13].decode("utf-8", "replace"))
        head = "\n".join(text for _, text in islice(_plain(numbered_lines(first), dress), SNIFFED))
        raw = chain(first, raw)
    part = Part(source, _plain(numbered_lines(raw), dress), name.rpartition("/")[2].removesuffix(".txt"), when, raw)
    several = has_prompt(head)
    kinds = [kind] if kind else [] if several else list(_kinds_of(head, part.command))
    if kinds and (kinds[0].is_log or kinds[0].irrelevant):
        found = Findings()
        kinds[0].reader(part, found)
        return found.readings(source, kinds[0].name, kinds[0].irrelevant)
    part = replace(part, lines=list(islice(part.lines, MAX_LINES)))
    outputs: list[tuple[str | None, Part]] = split_terminal(part) if several or not kinds else [(None, part)]
    return _read_outputs(outputs, source, kinds)


def _read_outputs(outputs: list[tuple[str | None, Part]], source: str, known: list[Kind]) -> list[FileReading]:
    # Outputs of one host are one reading, and a `date` among them dates what follows.
    by_host: dict[str | None, tuple[Findings, dict[str, None]]] = {}
    taken: dict[str | None, datetime] = {}
    relevant = False
    for host, output in outputs:
        output = replace(output, lines=output_lines(list(output.lines)), when=taken.get(host, output.when))
        for kind in known or _kinds_of(output.text(), output.command):
            found, kinds = by_host.setdefault(host, (Findings(host=host), {}))
            kind.reader(output, found)
            kinds[kind.name] = None
            if kind.name == "table":
                found.note_inventory(source)
            relevant = relevant or not kind.irrelevant
            if kind.name == "date" and found.facts and found.facts[-1].time:
                taken[host] = found.facts[-1].time
                output = replace(output, when=taken[host])
    told = (found.readings(source, "+".join(kinds), not relevant) for found, kinds in by_host.values())
    return list(chain.from_iterable(told))


def read_book(data: bytes, source: str, when: datetime | None = None) -> list[FileReading]:
    """Read a workbook, RVTools' export for one: what its sheets say of hosts and their drivers."""
    found = Findings()
    part = Part(source, (), "", when)
    try:
        for sheet in read_workbook(data):
            rows.read_rows(part, found, sheet)
    except ValueError as error:
        if b"xl/" not in data:  # a document of another kind, which looks alike at its head
            return [FileReading(source=source, kind="document", irrelevant=True)]
        problem = noted(source, "unreadable", f"{error}; save its sheets as CSV")
        return [FileReading(source=source, kind="table", problems=(problem,))]
    found.note_inventory(source)
    return found.readings(source, "table")


def problem_of_unknown(source: str) -> Problem:
    """What to say of a text of no known kind."""
    detail = (
        "no vmkernel text, no log and no command output that is known here; rename or remove it if it is no evidence"
    )
    return noted(source, "unknown_format", detail)
