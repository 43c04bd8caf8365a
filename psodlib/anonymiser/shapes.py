"""What a name looks like, and where a name stands: two tables, each row with a sample that a test holds against it.

All patterns run on bytes in small letters, so that case never decides. Repeats are bounded: a line of a gigabyte costs what it weighs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files

__all__ = ["POSITIONS", "SHAPES", "SYSTEM_USERS", "Position", "Shape", "kept_words"]

_HOST = r"[a-z0-9_](?:[a-z0-9_.-]{0,250}[a-z0-9_-])?"
_USER = r"[a-z0-9_][a-z0-9_.$-]{0,63}"
_DOMAIN = r"(?:[a-z0-9_-]{1,63}\.){1,8}[a-z][a-z0-9-]{0,62}"
_ISO = r"\d{4}-\d\d-\d\dt\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:z|[+-]\d\d:?\d\d)"
_STAMP = rf"(?:{_ISO}|[a-z]{{3}} [ \d]\d (?:\d{{4}} )?\d\d:\d\d:\d\d)"
_IS = r"""["']?(?:\s{0,40}[:=]\s{0,4}|\s{1,4}is\s{1,4})\\?["']?"""  # "name": "x", name = x, name is x


@dataclass(frozen=True)
class Shape:
    """A kind that its own form tells, where no letter or digit stands on either side."""

    kind: str
    pattern: str
    sample: str


SHAPES = (
    Shape("uuid", r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", "564d1a2b-3c4d-5e6f-7a8b-9c0d1e2f3a4b"),
    Shape("uuid", r"[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{12}", "5384f3a1-1c2d3e4f-5a6b-0017a4770010"),
    Shape("uuid", r"(?:[0-9a-f]{2}[ -]){15}[0-9a-f]{2}", "56 4d 1a 2b 3c 4d 5e 6f-7a 8b 9c 0d 1e 2f 3a 4b"),
    Shape("uuid", r"(?:0x[0-9a-f]{1,2} ){15}0x[0-9a-f]{1,2}", "0x6 0x4d 0x15 0x53 0x6a 0xf0 0xe1 0x11 0xa6 0xcf 0x0 0x1e 0x67 0x62 0xca 0xa"),
    Shape("wwn", r"(?:naa|eui|vml)\.[0-9a-f]{16,100}", "naa.600508b1001c2f3a7d1e0b9c4f5a6d7e"),
    Shape("wwn", r"""t10\.[^\s"':,/\])<>\\]{4,240}""", "t10.ATA_____MB1000GCEEK__________________________WMAW30123456"),
    Shape("wwn", r"""iqn\.\d{4}-\d\d\.[^\s"',/\])<>\\]{3,220}""", "iqn.1998-01.com.vmware:esx01-4c1d2e3f"),
    Shape("wwn", r"fc\.[0-9a-f]{16}:[0-9a-f]{16}", "fc.20000024ff3a4b5c:21000024ff3a4b5c"),
    Shape("wwn", r"[0-9a-f]{2}(?::[0-9a-f]{2}){7}(?!:)", "50:01:43:80:12:34:56:78"),
    Shape("wwn", r"[56][0-9a-f]{31}", "600508b1001c2f3a7d1e0b9c4f5a6d7e"),
    Shape("uuid", r"[0-9a-f]{32}", "1a4d1a2b3c4d5e6f7a8b9c0d1e2f3a4b"),
    Shape("mac", r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}(?!:)", "00:17:a4:77:00:10"),
    Shape("mac", r"[0-9a-f]{2}(?:-[0-9a-f]{2}){5}(?!-)", "00-17-a4-77-00-10"),
    Shape("ipv6", r"(?:[0-9a-f]{0,4}:){2,7}(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]{0,4})", "fe80::217:a4ff:fe77:10"),
    Shape("ipv4", r"\d{1,3}(?:\.\d{1,3}){3}", "10.20.30.40"),
)  # fmt: skip


@dataclass(frozen=True)
class Position:
    """A place in text where a name stands: its groups are called by kind, ``sign`` is one of the byte strings it cannot
    do without."""

    signs: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    sample: str
    found: tuple[str, ...]  # the names in the sample, in order


def _at(signs: str, pattern: str, sample: str, *found: str) -> Position:
    return Position(
        tuple(sign.encode() for sign in signs.split("|")), re.compile(pattern.encode(), re.MULTILINE), sample, found
    )


POSITIONS = (
    # who sent a line of syslog, as the receiver and as the sender has it
    _at("t|:", rf"^(?:<\d{{1,3}}>1?\s?)?(?:{_STAMP} (?:(?P<host1>{_HOST}) )?(?:<\d{{1,3}}>1?\s?)?)?{_STAMP} (?P<host>{_HOST}) "
        r"[a-z][\w./-]{0,40}(?:\[\d{1,9}\])?(?::| (?:\d{1,9}|-) )",
        "<181>2014-12-18T18:30:36.400Z panic vmkernel: cpu29:4317)WARNING: vmw_psp_rr", "panic"),
    _at("vmkernel ", rf"^vmkernel (?P<host>{_HOST}) \d{{1,2}}\.\d{{1,2}}\.\d{{1,2}} #", "VMkernel esx 5.5.0 #1 SMP Release build-1331820", "esx"),
    _at("@", rf"^\[?(?P<user>{_USER})@(?P<host>{_HOST})[: ][^\]\n]{{0,100}}[\]#$]", "[root@a:~] uname -a", "root", "a"),
    _at("host", rf"\b(?:host[ _-]?name|vmhost|esx(?:i)?[ _-]?host|fqdn|fully qualified domain name){_IS}(?P<host>{_HOST})", '"hostName": "panic"', "panic"),
    _at('"host"', rf'"host"\s{{0,4}}:\s{{0,4}}"(?P<host>{_HOST})', '{"host": "x"}', "x"),
    _at("fully", rf"fully qualified domain name:\s{{1,4}}(?P<host>{_HOST})", "   Fully Qualified Domain Name: x.corp.acme", "x.corp.acme"),
    _at("://", rf"\b[a-z][a-z0-9+.-]{{1,12}}://(?:[^\s/@]{{1,64}}@)?(?P<host>{_HOST})", "https://panic:443/folder", "panic"),
    _at("domain|search", rf"(?:\bdomain ?name{_IS}|^(?:search|domain)\s{{1,8}})(?P<domain>{_DOMAIN})", "   Domain Name: corp.acme", "corp.acme"),
    # people
    _at(" for ", rf"\b(?:accepted|failed|postponed) [\w/-]{{1,40}} for (?:invalid user )?(?P<user>{_USER}) from\b",
        "Accepted keyboard-interactive/pam for jdoe from 10.1.1.1", "jdoe"),
    _at("user", rf"""\buser(?:[ _-]?name)?(?:{_IS}|\s['"])(?:[a-z]{{1,12}}:)?(?:(?P<word>[a-z0-9.-]{{1,32}})\\{{1,2}})?(?P<user>{_USER})""",
        r"[Originator@6876 sub=Vimsvc user=vpxuser:ACME\jdoe]", "ACME", "jdoe"),
    _at("user ", rf"\buser (?P<user>{_USER})@", "User jdoe@10.1.1.1 logged in as pyvmomi", "jdoe"),
    _at("/home/|/users/|keys-", rf"(?:/(?:home|users)/|keys-)(?P<user>{_USER})(?=/)", "/etc/ssh/keys-jdoe/authorized_keys", "jdoe"),
    # virtual machines, and where they lie
    _at("vmm|vmx-", r"""\b(?:vmm\d{1,3}|vmx-(?:vcpu-\d{1,3}|mks|svga)):(?P<vm>[^\s:"'\])]{1,80}(?: [^\s:"'\])]{1,80}){0,6}?)"""
        r"""(?=[:"'\])\r\n]| of type| vmm group| ip 0x| addr 0x| @ 0x|$)""",
        "World: 8773: vmm0:My Server 1: vmm group 42846639", "My Server 1"),
    _at("connected ", r"\bconnected (?P<vm>[^\n]{1,80}?) eth\d{1,2} to (?P<network>[^,\n]{1,80}), portid", "Net: 2312: connected XENAPP48 eth0 to VLAN 12, portID 0x2000030",
        "XENAPP48", "VLAN 12"),
    _at("/vmfs/volumes/", r"""/vmfs/volumes/[^/\n"'<>]{1,128}/(?P<vm>[^/\n"'<>]{1,128})/[^/\s"'<>]{1,160}\.(?:vmx|vmdk|nvram|vswp|vmsd|vmxf|vmsn|vmem|log)\b""",
        "/vmfs/volumes/store 1/My VM/vmware.log", "My VM"),
    _at("/vmfs/volumes/", r"""/vmfs/volumes/(?P<datastore>[^/\n"'<>]{1,128}?)(?=/|["'<>\n]|[\s,;]|$)""", "/vmfs/volumes/panic/x", "panic"),
    _at("/vmfs/volumes/", r"""^/vmfs/volumes/[0-9a-f-]{30,40}\s{1,8}(?P<datastore>\S(?:[^\n]{0,60}?\S)?)\s{1,60}[0-9a-f]{8}-""",
        "/vmfs/volumes/5384f3a1-1c2d3e4f-5a6b-0017a4770010  gold 1  5384f3a1-1c2d3e4f-5a6b-0017a4770010  true  VMFS-5", "gold 1"),
    _at(".vm", r"""\[(?P<datastore>[^\]\[\n"]{1,80})\] (?P<vm>[^/\n"]{1,80})/[^/\n"]{1,160}?\.vm""", "[gold] My VM/My VM.vmx", "gold", "My VM"),
    _at("displayname", r'displayname\s{0,4}=\s{0,4}"(?P<vm>[^"\n]{1,128})"', 'displayName = "My VM"', "My VM"),
    _at("datastore|volume name", rf"""\b(?:datastore(?: ?name)?|volume name){_IS}(?P<datastore>[\w.() -]{{0,79}}[\w)])""", "Volume Name: gold_1", "gold_1"),
    # the machine's papers
    _at("serial|tag", rf"""(?:serial(?:[ _-]?(?:number|no|num))?|(?:service|asset)[ _-]?tag){_IS}(?P<serial>[a-z0-9][a-z0-9._/-]{{3,40}})""",
        "Serial Number: CZ6F1C14CF", "CZ6F1C14CF"),
)  # fmt: skip

SYSTEM_USERS = frozenset(
    [
        "root",
        "dcui",
        "vpxuser",
        "daemon",
        "nobody",
        "nfsnobody",
        "sshd",
        "system",
        "vdcs",
        "postgres",
        "administrator",
        "unknown",
        "none",
        "null",
    ]
)


def kept_words() -> frozenset[str]:
    """The kernel's own language: words that stay where no name's place is."""
    text = (files("psodlib.anonymiser") / "kept_words.txt").read_text(encoding="utf-8")
    return frozenset(word for line in text.split("\n") if not line.startswith("#") for word in line.split())
