"""What a name looks like, and where a name stands: two tables, each row with a sample that a test holds against it; and a
text without its escapes (a link's %2d, JSON's \\u002d and \\/, a page's &amp;), in which both are looked for.

All patterns run on bytes in small letters, so that case never decides. Repeats are bounded: a line of a gigabyte costs what it weighs.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from importlib.resources import files

_HOST = r"[a-z0-9_](?:[a-z0-9_.-]{0,250}[a-z0-9_-])?"
_USER = r"[a-z0-9_][a-z0-9_.$-]{0,63}"
_DOMAIN = r"(?:[a-z0-9_-]{1,63}\.){1,8}[a-z][a-z0-9-]{0,62}"
_ISO = r"\d{4}-\d\d-\d\dt\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:z|[+-]\d\d:?\d\d)"
_STAMP = rf"(?:{_ISO}|[a-z]{{3}} [ \d]\d (?:\d{{4}} )?\d\d:\d\d:\d\d)"
_IS = r"""\\?["']?(?:[\s.]{0,60}(?:=>|[:=])\s{0,20}|\s{1,4}is\s{1,4})\\?["']?"""  # "name": "x", name = x, name is x, name....: x
_SAID = r"""(?:\\?["']?\s{0,20}[:=]\s{0,20}\[?\\?["']?|\s{1,8}["'])"""  # name: x, name "x"
# What follows a password's key: not a switch, not a number of a few digits.
_SECRET = r"""(?!(?:true|false|null|none|yes|no|\d{1,3}|0x[0-9a-f]{1,16})\b)(?:"(?P<secret>[^"\n]{1,4000})"|'(?P<secret1>[^'\n]{1,4000})'|(?P<secret2>[^\s"'<>&\[\]]{1,4000}))"""
_KEY = (
    r"(?:(?<![a-z])pass|pass(?:word|wd|phrase|code)|kennwort|(?<![a-z])pwd(?![^\w]{1,4}[/~])|secret|token|credentials?|(?:api|access|private|auth|session|licen[sc]e|serial)[_ -]?keys?|"
    r"communit(?:y|ies)|bindpw|(?<![a-z])psk)"
)
# What a machine's files are called: X.vmx, X_1-flat.vmdk, X-000002-delta.vmdk, X-Snapshot14.vmsn, X-5d3f1a2b.vswp
_VM_FILE = r"(?:_\d{1,3})?(?:-(?:flat|delta|ctk|sesparse|rdmp?|\d{6}|snapshot\d{1,6}|[0-9a-f]{8})){0,4}\.(?:vmx|vmdk|nvram|vswp|vmsd|vmxf|vmsn|vmem|vmss|vmtx)"


@dataclass(frozen=True)
class Shape:
    """A kind that its own form tells, where no letter or digit stands on either side."""

    kind: str
    pattern: str
    sample: str


SHAPES = (
    # secrets: keys, hashes of passwords, tokens
    Shape("secret", r"-----begin [a-z0-9 ]{3,40}-----[^-]{1,7000}-----end [a-z0-9 ]{3,40}-----", "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----"),
    Shape("secret", r"\$(?:1|2[aby]?|5|6|y)\$[./0-9a-z$=,]{8,200}", "$6$Q9aXk2$h1Jk92lmNpoQ"),
    Shape("secret", r"(?=[a-z-]{0,28}\d)(?:[0-9a-z]{5}-){4}[0-9a-z]{5}", "4J21K-8LH9M-07QX3-0A9KP-C2N4T"),
    Shape("secret", r"aaaa(?:b3nzac1|c3nzac1|e2vjzhn)[0-9a-z+/]{4,4000}={0,3}", "AAAAB3NzaC1yc2EAAAADAQABAAAB"),
    Shape("secret", r"sha256:[0-9a-z+/]{43}=?", "SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8"),
    Shape("secret", r"eyj[\w-]{8,2000}\.[\w-]{4,4000}(?:\.[\w-]{0,1000})?", "eyJhbGciOiJI.eyJzdWIi.abc1"),
    Shape("secret", r"a[ks]ia[0-9a-z]{16}|gh[pousr]_[0-9a-z]{30,255}|xox[abprs]-[0-9a-z-]{10,250}", "AKIAIOSFODNN7EXAMPLQ"),
    Shape("secret", r"\+[1-9]\d{0,2}(?:[ ./-]{1,2}(?:\(0\) ?)?\d{2,4}){3,5}", "+41 44 123 45 67"),
    Shape("uuid", r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", "564d1a2b-3c4d-5e6f-7a8b-9c0d1e2f3a4b"),
    Shape("uuid", r"[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{12}", "5384f3a1-1c2d3e4f-5a6b-0017a4770010"),
    Shape("uuid", r"(?:[0-9a-f]{2}[ -]){15}[0-9a-f]{2}", "56 4d 1a 2b 3c 4d 5e 6f-7a 8b 9c 0d 1e 2f 3a 4b"),
    Shape("uuid", r"(?:0x[0-9a-f]{1,2} ){15}0x[0-9a-f]{1,2}", "0x6 0x4d 0x15 0x53 0x6a 0xf0 0xe1 0x11 0xa6 0xcf 0x0 0x1e 0x67 0x62 0xca 0xa"),
    Shape("wwn", r"(?:naa|eui|vml)\.[0-9a-f]{16,100}", "naa.600508b1001c2f3a7d1e0b9c4f5a6d7e"),
    Shape("wwn", r"""t10\.[^\s"':,/\])<>\\]{4,240}""", "t10.ATA_____MB1000GCEEK__________________________WMAW30123456"),
    Shape("wwn", r"""iqn\.\d{4}-\d\d\.[^\s"',/\])<>\\]{3,220}""", "iqn.1998-01.com.vmware:esx01-4c1d2e3f"),
    Shape("wwn", r"""nqn\.\d{4}-\d\d\.[^\s"',/\])<>\\]{3,220}""", "nqn.2014-08.org.nvmexpress:uuid:1"),
    Shape("wwn", r"fc\.[0-9a-f]{16}:[0-9a-f]{16}", "fc.20000024ff3a4b5c:21000024ff3a4b5c"),
    Shape("wwn", r"0x[12356][0-9a-f]{15}", "0x5001438012345678"),
    Shape("wwn", r"(?!0000|ffff|20[0-3]\d[01]\d[0-3]\d{9})(?=\d{0,15}[a-f]|5|2|10|6)(?=[a-f]{0,15}\d)[0-9a-f]{16}", "5001438012345678"),
    Shape("uuid", r"[0-9a-f]{2}(?::[0-9a-f]{2}){15,63}", "16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48"),
    Shape("wwn", r"[0-9a-f]{2}(?::[0-9a-f]{2}){7}(?!:)", "50:01:43:80:12:34:56:78"),
    Shape("wwn", r"[56][0-9a-f]{31}", "600508b1001c2f3a7d1e0b9c4f5a6d7e"),
    Shape("uuid", r"[0-9a-f]{32}", "1a4d1a2b3c4d5e6f7a8b9c0d1e2f3a4b"),
    Shape("mac", r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}(?!:)", "00:17:a4:77:00:10"),
    Shape("mac", r"[0-9a-f]{2}(?:-[0-9a-f]{2}){5}(?!-)", "00-17-a4-77-00-10"),
    Shape("mac", r"[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4}(?!\.)", "0050.569a.bef0"),
    Shape("mac", r"(?=[0-9-]{0,14}[a-f])[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}(?!-)", "a4bf-012f-9c3d"),
    # the kernel's own addresses, of 12 digits too, begin with 41 to 45
    Shape("mac", r"(?!4[0-5]|ffff)(?:00[0-9a-f]{2}|(?=\d{0,11}[a-f])(?=[a-f]{0,11}\d)[0-9a-f]{4})[0-9a-f]{8}", "0050569abef0"),
    Shape("ipv6", r"(?:[0-9a-f]{0,4}:){2,7}(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]{0,4})", "fe80::217:a4ff:fe77:10"),
    Shape("uuid", r"(?:[0-9a-f]\.){31}[0-9a-f]", "8.b.d.0.1.0.0.2." * 3 + "8.b.d.0.1.0.0.2"),  # an address backwards
    Shape("ipv4", r"\d{1,3}(?:\.\d{1,3}){3}", "10.20.30.40"),
    Shape("ipv4", r"v\d{1,3}(?:\.\d{1,3}){3}", "v10.20.30.40"),
    Shape("ipv4", r"[1-9]\d{1,2}(?:-(?:0|[1-9]\d{0,2})){3}(?!-\d)", "10-20-30-40"),
    Shape("ipv4", r"[1-9]\d{1,2}(?:_(?:0|[1-9]\d{0,2})){3}(?!_\d)", "10_20_30_40"),
    Shape("ipv4", r"0x(?:0a[0-9a-f]{2}|c0a8|ac1[0-9a-f])[0-9a-f]{4}", "0xc0a8330b"),
)  # fmt: skip


@dataclass(frozen=True)
class Position:
    """A place in text where a name stands: its groups are called by kind, ``sign`` is one of the byte strings it cannot
    do without."""

    signs: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    sample: str
    found: tuple[str, ...]  # the names in the sample, in order
    weak: bool  # nothing is a name here that is made of the kernel's own words
    cased: bool  # looked for in the text as it is, not in small letters


def _at(signs: str, pattern: str, sample: str, *found: str, weak: bool = False, cased: bool = False) -> Position:
    return Position(
        tuple(sign.encode() for sign in signs.split("|")), re.compile(pattern.encode(), re.MULTILINE), sample, found, weak, cased
    )  # fmt: skip


_END = r"""(?=["'\s,;.:)\]<]|$)"""
_WORD = r"[^\s\"'<>,;:()\[\]=]{2,80}"
# Of a kind that is filled in: a name of one word, with or without quotes; a name in quotes; all that is left of the line.
_named = (
    rf"""['"]?(?P<{{}}>(?!is\b|was\b|has\b|on\b|not\b)[a-z0-9_][^\s"'<>,;:()\[\]=]{{{{1,80}}}}?)['"]?{_END}""".format
)
_quoted = r"""\\?(?:"(?P<{0}>[^"\n\\]{{1,128}})\\?"|'(?P<{0}1>[^'\n]{{1,128}})')""".format
_rest = r"""(?P<{}>[^\s"'<>{{}}][^\n"<>{{}}]{{0,400}})""".format

POSITIONS = (
    # who sent a line of syslog, as the receiver and as the sender has it
    _at("t|:", rf"^(?:<\d{{1,3}}>1?\s?)?(?:{_STAMP} (?:(?P<host1>{_HOST}) )?(?:<\d{{1,3}}>1?\s?)?)?{_STAMP} (?P<host>{_HOST}) "
        r"[a-z][\w./-]{0,40}(?:\[\d{1,9}\])?(?::| (?:\d{1,9}|-) )",
        "<181>2014-12-18T18:30:36.400Z panic vmkernel: cpu29:4317)WARNING: vmw_psp_rr", "panic"),
    _at("vmkernel ", rf"^vmkernel (?P<host>{_HOST}) \d{{1,2}}\.\d{{1,2}}\.\d{{1,2}} #", "VMkernel esx 5.5.0 #1 SMP Release build-1331820", "esx"),
    _at("@", rf"^\[?(?P<user>{_USER})@(?P<host>{_HOST})[: ][^\]\n]{{0,100}}[\]#$]", "[root@a:~] uname -a", "root", "a"),
    _at("host", rf"\b(?:host[ _-]?name|log ?host|vmhost|esx(?:i)?[ _-]?host|fqdn|fully qualified domain name){_IS}(?P<host>{_HOST})", '"hostName": "panic"', "panic"),
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
    _at("/vmfs/volumes/", rf"""/vmfs/volumes/[^/\n"'<>]{{1,128}}/(?P<vm>[^/\n"'<>]{{1,128}})/(?:(?P<vm1>[^/\n"'<>]{{1,128}}?){_VM_FILE}|[^/\n"'<>]{{1,160}}?\.log)\b""",
        "/vmfs/volumes/store 1/My VM/My VM.vmx", "My VM", "My VM"),
    _at("/vmfs/volumes/", r"""/vmfs/volumes/(?P<datastore>[^/\s"'<>]{1,60}(?: (?!(?:on|and|to|from|is|at|in|of|by|for|with|was|has)\b)[^/\s"'<>]{1,60}){1,4})(?=/)""",
        "/vmfs/volumes/store 1/x", "store 1"),
    _at("/vmfs/volumes/", r"""/vmfs/volumes/(?P<datastore>[^/\n"'<>]{1,128}?)(?=/|["'<>\n]|[\s,;]|$)""", "/vmfs/volumes/panic/x", "panic"),
    _at("/vmfs/volumes/", r"""^/vmfs/volumes/[0-9a-f-]{30,40}\s{1,8}(?P<datastore>\S(?:[^\n]{0,60}?\S)?)\s{1,60}[0-9a-f]{8}-""",
        "/vmfs/volumes/5384f3a1-1c2d3e4f-5a6b-0017a4770010  gold 1  5384f3a1-1c2d3e4f-5a6b-0017a4770010  true  VMFS-5", "gold 1"),
    _at(".vm", rf"""\[(?P<datastore>[^\]\[\n"]{{1,80}})\] (?P<vm>[^/\n"]{{1,80}})/(?:(?P<vm1>[^/\n"]{{1,128}}?){_VM_FILE}|[^/\n"]{{1,160}}?\.vm)""", "[gold] My VM/My VM.vmx", "gold", "My VM", "My VM"),
    _at("displayname", r'displayname\s{0,4}=\s{0,4}"(?P<vm>[^"\n]{1,128})"', 'displayName = "My VM"', "My VM"),
    _at("datastore|volume name", rf"""\b(?:datastore(?: ?name)?|volume name){_IS}(?P<datastore>[\w.() -]{{0,79}}[\w)])""", "Volume Name: gold_1", "gold_1"),
    # the machine's papers
    _at("serial|tag", rf"""(?:serial(?:[ _-]?(?:number|no|num))?|(?:service|asset)[ _-]?tag)(?:{_IS}|>|\.\s)(?P<serial>[a-z0-9][a-z0-9._/-]{{3,40}})""",
        "Serial Number: CZ6F1C14CF", "CZ6F1C14CF"),
    _at("s/n|sn|serial", r"""(?<![a-z0-9])(?:s/n|sn|serial(?:[ _-]?(?:number|no|num))?)(?:\.{0,40}\s{0,20}[:=#]{1,2}\s{0,20}|[.]{2,60}\s{0,8}|\s{1,8})["']?(?=[a-z-]{0,20}\d)(?P<serial>[a-z0-9][a-z0-9._/-]{4,40})""",
        "Chassis S/N: CZ6F1C14CF", "CZ6F1C14CF"),
    _at("tag", r"""(?:service|asset)[ _-]?tag(?:[.\s]{0,60}[:=]?\s{0,8})["']?(?=[a-z-]{0,20}\d)(?P<serial>[a-z0-9][a-z0-9._/-]{3,40})""", "Asset Tag........ AC-4471", "AC-4471"),
    # secrets go altogether
    _at("pass|pwd|secret|token|credential|key|communit|bindpw|psk|kennwort", rf"""(?<![a-z0-9])[\w.-]{{0,40}}?{_KEY}[\w.-]{{0,20}}\\?["']?\s{{0,20}}(?:=>|[:=])\s{{0,20}}[\[(]?\\?{_SECRET}""",
        '"svc_password": "x y!"', "x y!"),
    _at("pass|pwd|secret|token|communit", r"""<[\w:.-]{0,40}(?:pass(?:word|wd|phrase)|pwd|secret|token|community)[^>\n]{0,80}>(?P<secret>[^<\n]{1,4000})<""",
        "<password>x</password>", "x"),
    _at("pass|communit|secret", r"""(?<![a-z0-9])(?:--?[\w-]{0,30}(?:password|passwd|secret|communit(?:y|ies))|r[ow]community6?)\s{1,8}(?P<secret>[^\s"']{1,400})""", "rocommunity x", "x"),
    _at("pass|communit|secret", r"""\b(?:password|passwd|passphrase|secret|community)\s{1,8}["']?(?=[a-z!-/:-@_]{0,60}[\d!#$%*?^])(?P<secret>[^\s"']{4,200})""", "passwd hunter2x", "hunter2x"),
    _at("key", r"""\b(?:licen[sc]e|serial|product|activation) ?keys?\s{1,8}["']?(?P<secret>(?:[0-9a-z]{4,8}-){2,8}[0-9a-z]{4,8})""", "license key AB12C-DE34F-GH56I", "AB12C-DE34F-GH56I"),
    _at("licen", rf"""\blicen[sc]e(?:key)?{_SAID}(?P<secret>(?:[0-9a-z]{{4,8}}-){{2,8}}[0-9a-z]{{4,8}})""", "License: AB12C-DE34F-GH56I", "AB12C-DE34F-GH56I"),
    _at("://", r"""://(?P<user>[^\s/@:"']{1,64}):(?P<secret>[^\s/@"']{1,200})@""", "ftp://up:x@y/", "up", "x"),
    _at(" -u|--user", r"""\s(?:-u|--user)\s{1,4}["']?(?P<user>[a-z0-9._\\-]{1,64}):(?P<secret>[^\s"']{1,200})""", "curl -u up:x", "up", "x"),
    _at("authorization|cookie|bearer", rf"""\b(?:authorization|(?:set-)?cookie|bearer){_IS}(?P<secret>[^\n]{{1,4000}})""", "Authorization: Basic eDp5", "Basic eDp5"),
    _at("session", r"""\b\w{0,30}session(?:_?id|_?key)?["']?\s{0,4}[:=]\s{0,4}\\?["'](?P<secret>[0-9a-z+/=_-]{8,400})""", 'soap_session="kTb9xQ2r"', "kTb9xQ2r"),
    _at("@", r"(?<![\w@])(?P<host>[a-z0-9][\w.-]{1,250})@\d{1,5}/(?P<secret>[^\s,\"']{1,64})", "trapsink@162/pub1", "trapsink", "pub1"),
    _at("annotation|guestinfo", rf"""\b(?:annotations?|guestinfo\.[\w.]{{1,60}}){_IS}(?P<secret>[^"'\n<][^"\n<]{{0,4000}})""", 'annotation = "call x"', "call x"),
    _at("annotation|notes", r"""<(?:annotation|notes)>(?P<secret>[^<]{1,4000})<""", "<annotation>call x</annotation>", "call x"),
    _at("notes", r"""^[\s"']{0,40}notes["']?\s{0,40}[:=]\s{0,20}["']?(?P<secret>[^"'\n][^"\n]{0,4000})""", "Notes: call x", "call x"),
    _at("ssh-|ecdsa", r"""\b(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-nistp\d{3})\s{1,4}aaaa[0-9a-z+/]{4,6000}={0,3}\s{1,4}(?P<secret>[^\n"']{1,200})""",
        "ssh-rsa AAAAB3NzaC1yc2EA jdoe@a", "jdoe@a"),
    _at("ipmitool|snmp|sshpass|ldap|smbclient|mysql|psql|net use|plink", r"""\b(?:ipmitool|snmp[a-z]{1,12}|sshpass|ldap[a-z]{1,12}|smbclient|mysql|psql|plink|net use)\b[^\n]{0,200}?\s-(?:p|c|w|a|x|pw)\s{0,4}["']?(?P<secret>[^\s"']{2,200})""",
        "ipmitool -H a -P x7 chassis", "x7"),
    _at("net use", r"""\bnet use [^\n]{1,100}? (?P<secret>[^\s/"']{1,200}) /user:""", "net use z: x7 /user:u", "x7"),
    _at("pass", r"""\bpassw(?:or)?d\b[^\n]{0,40}? (?:changed|set|reset) to ["']?(?P<secret>[^\s"']{1,200})""", "root password changed to x7", "x7"),
    _at("token|secret|key", r"""\b[\w-]{0,30}(?:token|secret|key)\s{1,8}(?P<secret>(?=[a-z_-]{0,60}\d)[\w/+-]{20,400}={0,2})(?!\S)""", "api_token 9f8e7d6c5b4a39281706", "9f8e7d6c5b4a39281706"),
    # more people
    _at("shell[", rf"\bshell\[\d{{1,9}}\]: \[(?P<user>{_USER})\]: ", "shell[2100]: [jdoe]: ls", "jdoe"),
    _at("authenticating user |last login", rf"\b(?:authenticating user|last login(?: of| by|:)?) (?!(?:mon|tue|wed|thu|fri|sat|sun)\b)(?P<user>{_USER})", "by authenticating user jdoe 10.1.1.1", "jdoe", weak=True),
    _at("opened by|requested by|initiated by|approved by|reported by|deleted by|modified by|changed by", rf"\b(?:opened|requested|initiated|approved|reported|deleted|modified|changed) by (?:user )?(?P<user>{_USER})(?![\w(])", "ticket opened by jdoe", "jdoe", weak=True),
    _at(" cmd ", rf"\((?P<user>{_USER})\) cmd \(", "crontab: (jdoe) CMD (/bin/x)", "jdoe"),
    _at("r-|w-|x-|--", rf"^[-dlbcps][-rwxst]{{9}}[.+]?\s{{1,8}}\d{{1,9}}\s{{1,8}}(?P<user>{_USER})\s{{1,20}}(?P<user1>{_USER})\s{{1,20}}\d", "-rw------- 1 jdoe staff 120 Jan 1 2024 x", "jdoe", "staff", weak=True),
    _at("session ", rf"\bsession (?:opened|closed) for user (?P<user>{_USER})(?: by (?P<user1>{_USER})?\(uid)?", "session opened for user jdoe by smith(uid=0)", "jdoe", "smith"),
    _at("session opened|uid=|gid=", r"(?:\bby |\b[eug]{0,2}id=\d{1,9}\()(?P<user>[a-z_][a-z0-9_.-]{1,63})(?=\(uid|\))", "uid=1004(jdoe)", "jdoe"),
    _at("user |account |login", rf"""\b(?:(?:invalid|unknown|local|domain|new|the|by|as|for|from) )(?:user|account|login):? ['"]?(?P<user>{_USER})['"]?{_END}""", "Invalid user jdoe from 10.1.1.1", "jdoe", weak=True),
    _at("ruser|logname|rhost", rf"\b(?:ruser|logname)=(?P<user>{_USER})(?: {{1,4}}rhost=(?P<host>{_HOST}))?", "ruser=jdoe rhost=a1", "jdoe", "a1"),
    _at("user: name", rf"\bnew (?:user|group): name=(?P<user>{_USER})", "new user: name=jdoe, UID=1", "jdoe"),
    _at("password changed|passwd", rf"\b(?:password (?:changed|expired|reset|set) for|passwd:) (?:user )?(?P<user>{_USER})", "password changed for jdoe", "jdoe", weak=True),
    _at("logged ", r"(?:^|[:\s])(?P<user>[a-z_][a-z0-9_.-]{1,63}) logged (?:in|out|on|off)\b", "login: jdoe logged in", "jdoe", weak=True),
    _at("sudo", rf"\bsudo(?:\[\d{{1,9}}\])?:\s{{1,40}}(?P<user>{_USER}) : ", "sudo:   jdoe : TTY=pts/0", "jdoe"),
    _at("su:|su[", rf"\bsu(?:\[\d{{1,9}}\])?: (?:\(to (?P<user>{_USER})\) |failed su for \S{{1,64}} by )(?P<user1>{_USER})", "su: (to root) jdoe on /dev/pts/1", "root", "jdoe"),
    _at(":/", r"^(?P<user>[a-z_][a-z0-9_.-]{0,63}):[x*!]{0,2}:\d{1,9}:\d{1,9}:(?P<word>[^:\n]{1,120})?:/", "jdoe:x:1005:100:J Doe:/home/jdoe:/bin/sh", "jdoe", "J Doe"),
    _at(":$", r"^(?P<user>[a-z_][a-z0-9_.-]{0,63}):\$", "jdoe:$6$x", "jdoe"),
    _at("\\", r"(?<![\w:\\/.%-])(?P<word>[a-z][a-z0-9-]{1,30})\\{1,2}(?![nrtbfuxsdw0])(?P<user>[a-z][\w.$-]{1,63})(?![\w\\])", r"by ACME\jdoe", "ACME", "jdoe"),
    _at("\\", r"(?<![\w:\\/.%-])(?P<word>[A-Z][A-Z0-9-]{1,14})(?:\\\\|\\(?=[a-z][a-z0-9.]{3}))(?P<user>[a-z][\w.$-]{1,63})(?![\w\\])", r"by ACME\nsmith", "ACME", "nsmith", cased=True),
    _at("users\\", r"\busers\\{1,2}(?P<user>[^\\/\s\"'<>:]{1,64})", r"C:\Users\jdoe", "jdoe"),
    _at("\\\\", r"(?<![\w\\])\\{2,4}(?P<host>[a-z0-9][\w.-]{1,62})\\{1,2}(?P<word>[\w$.-]{1,80})", r"\\files\pay$", "files", "pay$"),
    _at("@", rf"\b(?:ssh|scp|sftp|rsync)\b[^\n]{{0,200}}?\s(?P<user>{_USER})@(?P<host>{_HOST})", "scp jdoe@jump:/x .", "jdoe", "jump"),
    _at("@", r"""\b(?:from|to|cc|author|contact|by)[:=\s]{1,4}["']?(?P<user>[^\s\d<>"'@:;=][^\n<>"'@:;=]{1,60}?)["']?\s?<[\w.+-]{1,64}@""", "From: J Doe <jd@a.ch>", "J Doe"),
    _at("/home/|/users/", rf"/(?:home|users)/(?P<user>{_USER})(?=[\s\"':;,/]|$)", "ls /home/jdoe", "jdoe"),
    _at("contact|owner|customer|company|organi|tenant|location|department", rf"""\b(?:sys(?:contact|location|name)\s{{1,8}}|(?:sys)?(?:contact|location|owner|customer|company|organi[sz]ation|tenant|department|(?:created|owned|managed) by)(?: ?name)?{_IS}){_rest("word")}""",
        "sysContact J Doe", "J Doe", weak=True),
    _at("=", r"""(?<![a-z0-9])(?:cn|ou|dc|uid|emailaddress|samaccountname|givenname)\s?=\s?(?P<word>[^,/\n"'+;<>()=]{1,120}?)(?=\s?[,/"'+;<>)\n]|$)""", "CN=J Doe,OU=Works", "J Doe", "Works"),
    _at("=", r"""[,/]\s?(?:o|l|st|ou|street)\s?=\s?(?P<word>[^,/\n"'+;<>()=]{2,120}?)(?=\s?[,/"'+;<>)\n]|$)""", "C=CH, O=Acme AG, CN=", "Acme AG"),
    _at("dns:", rf"\bdns:\s?(?P<host>{_HOST})", "Alternative Name: DNS:a1", "a1"),
    # more hosts
    _at(" |\t", r"^(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f:]{3,39}:[0-9a-f:]{0,20})[ \t]{1,40}(?P<host>[a-z][a-z0-9_.-]{0,250})(?:[ \t]{1,40}(?P<host1>[a-z][a-z0-9_.-]{0,250}))?"
        r"(?:[ \t]{1,40}(?P<host2>[a-z][a-z0-9_.-]{0,250}))?(?:[ \t]{1,40}(?P<host3>[a-z][a-z0-9_.-]{0,250}))?[ \t]{0,40}(?:#[^\n]{0,200})?\r?$",
        "10.1.1.1\tweb01.a.ch web01  # x", "web01.a.ch", "web01"),
    _at("server|host|center|master|nameserver|controller|peer", rf"""\b(?:(?:syslog|log|ntp|dns|time|ldap|proxy|vcenter|nfs|smtp|mail|radius|kms|backup|file|jump|iscsi|name|remote|peer|primary|secondary|master|slave)[ _-]?(?:server|host|node)|domain controller|vcenter|peer)s?(?:{_IS}|[ \t]{{1,8}}){_named("host")}""",
        "NTP server clock1", "clock1", weak=True),
    _at("host|server|node", rf"""\b(?:on|from|to|of|for|by|with|at|via|is|old|new|source|destination|target|esxi?|agent on|master) (?:the )?(?:esxi? )?(?:host|server|node){_SAID.replace("{1,8}", "{1,2}")}?\s?{_named("host")}""",
        "vmotion to host web01 failed", "web01", weak=True),
    _at("agent on ", rf"\bagent (?:on|at) {_named('host')}", "HA agent on web01 restarted", "web01", weak=True),
    _at("://", r"""\b(?:udp|tcp|ssl|ldaps?|nfs|smb|cifs|sftp|ssh)://(?P<host>[a-z0-9_][\w.-]{0,250})""", "udp://loggy:514", "loggy"),
    _at("host|server|node|peer", rf"""\b(?:host|server|node|peer) {_named("host")}(?= (?:is|has|was|not|cannot|could|did|does|failed|lost|entered|left|exited|disconnected|connected|rebooted|responds?)\b)""",
        "Host web01 is not responding", "web01", weak=True),
    _at("domain|realm|workgroup", rf"""\b(?:joined|left|joining|leaving|to|in|of) (?:the )?(?:domain|realm|workgroup) {_named("word")}""", "Joined domain ACME", "ACME", weak=True),
    _at(" for ", rf"\b(?:pam|auth|authentication|login|logon|password|access)(?: (?:failure|failed|error|denied|refused|granted))? for (?:user )?(?P<user>{_USER}){_END}", "keyboard-interactive/pam for jdoe", "jdoe", weak=True),
    _at("su -", rf"\bsu -l? ?(?P<user>{_USER}){_END}", "su - jdoe", "jdoe", weak=True),
    _at("cluster|center|centre|pool", rf"""\b(?:cluster|data ?cent(?:er|re)|resource ?pool) {_named("word")}""", "Cluster gold1: failover", "gold1", weak=True),
    _at("volume ", r"""\bvolume [0-9a-f-]{4,60} \((?P<datastore>[^)\n]{1,80})\)""", "access to volume 52f1a (gold 1) due", "gold 1"),
    _at("@16", r"(?<![\w@])(?P<host>[a-z0-9][\w.-]{1,250})@16[12](?![\w.])", "trap target sink7@162", "sink7", weak=True),
    # more machines, stores and networks
    _at("event ", r"\bevent \d{1,12} : (?P<vm>[^\n]{1,80}?) on (?P<host>[a-z0-9_.-]{1,255}) in (?P<word>[^\n]{1,80}?) (?:is|has|was) ", "Event 12 : WEB01 on a1 in dc2 is powered on", "WEB01", "a1", "dc2", weak=True),
    _at(" changed from ", r"\bon (?P<vm>[^\s'\n][^'\n]{1,80}?) changed from (?:green|gray|grey|yellow|red)\b", "Alarm 'CPU' on WEB01 changed from Green to Red", "WEB01", weak=True),
    _at("migration of ", r"\bmigration of (?P<vm>[^\n]{1,80}?) from (?P<host>[a-z0-9_.-]{1,255}) to (?P<host1>[a-z0-9_.-]{1,255})", "migration of web01 from a1 to a2", "web01", "a1", "a2"),
    _at("display", rf"""\bdisplay ?name{_IS}{_rest("vm")}""", "Display Name: web01", "web01", weak=True),
    _at("label", rf"""\bnetwork ?label{_IS}{_rest("network")}""", "Network label: Guests 3", "Guests 3", weak=True),
    _at(" vds | dvs ", r"\b(?:joined|left|on|to|of|from) (?:the )?(?:vds|dvs) (?P<network>[^\s,;'\"]{2,80})", "joined vDS gold7", "gold7"),
    _at(".vm|.nvram|.vswp", rf"""(?<![^\s/"'\[=(:,<>])(?P<vm>[^/\s"'\[\]:=,<>()]{{1,80}}?){_VM_FILE}(?![\w])""", "opened web01_1-flat.vmdk", "web01"),
    _at(".vm|.nvram|.vswp", rf"""["'/\]] ?(?P<vm>[^/\n"'\[\]:=<>]{{1,80}}?){_VM_FILE}(?=["'])""", '"my vm_1-flat.vmdk"', "my vm"),
    _at("vm|machine|guest|snapshot of|clone of", rf"""\b(?:vm|virtual ?machine|guest|vmotion of|snapshot of|clone of)(?:[ _-]?name)?{_SAID}?\s{{0,2}}{_quoted("vm")}""", "Vm 'My VM' was", "My VM"),
    _at("vm|machine|guest", rf"""\bvm[ _-]?name{_SAID}(?P<vm>[^\s"',;\]]{{1,80}})""", "vmname=web01 x", "web01"),
    _at("vm|machine|guest|snapshot of|clone of|consolidation of", rf"""\b(?:for vm|of vm|vm|virtual machine|guest|vmotion of|snapshot of|clone of|consolidation of) (?P<vm>{_WORD}?){_END}""", "vmotion of web01 failed", "web01", weak=True),
    _at("datastore|volume|file system|lun", rf"""\b(?:datastore|volume|file ?system|dsname|lun)(?:[ _-]?name)?{_SAID}?\s{{0,2}}{_quoted("datastore")}""", "datastore 'gold 1' lost", "gold 1"),
    _at("datastore|volume|file system", rf"""\b(?:datastore|volume|file ?system)(?: name)?s? \[?(?P<datastore>{_WORD}?){_END}""", "Datastore gold_1 is full", "gold_1", weak=True),
    _at("port|network|dvs|vds|dvpg|switch", rf"""\b(?:(?:dv)?port[ _-]?group|network|dvs|vds|vlan|dvswitch|distributed switch)(?:[ _-]?name)?{_SAID}?\s{{0,2}}{_quoted("network")}""", "network 'Guests 3'", "Guests 3", weak=True),
    _at("port|network|dvs|dvpg|switch", rf"""\b(?:(?:dv)?port[ _-]?group|dvs|dvswitch|distributed switch|network ?name)(?:[ _-]?name)?(?:{_SAID}|\s)(?P<network>{_WORD}?){_END}""", "Port group Guests3 not found", "Guests3", weak=True),
    _at("vswitch", r"^(?P<network>\S(?:[^\n]{0,60}?\S)?)\s{2,60}vswitch\d", "Guests 3      vSwitch0    3   120", "Guests 3", weak=True),
    _at(":/", rf"""\b(?:nfs(?:client|41)?|nas|mount(?:ed|ing)?|export|share)\b[^\n]{{0,80}}?\s(?P<host>{_HOST}):/(?:(?:vol|exports?|ifs|data|mnt)/)?(?P<path>[^\s"',;<>]{{1,200}})""", "NFS mount nas1:/vol/iso failed", "nas1", "iso"),
    _at("/vol|/export|/ifs|/mnt|/nfs", r"""(?<![\w.])/(?:vol|exports?|ifs|nfs|mnt)/(?P<path>[^\s"',;<>]{1,200})""", "share /vol/iso stale", "iso"),
    _at("share", rf"""\b(?:remote )?share{_IS}/?(?P<path>[^\s"',;<>]{{1,200}})""", "share: /iso", "iso"),
    _at("/", rf"""^(?P<datastore>[^\s/]{{1,80}})\s{{1,40}}(?P<host>{_HOST})\s{{1,40}}/(?:(?:vol|exports?|ifs|data|mnt)/)?(?P<path>\S{{1,200}})\s{{1,40}}(?:true|false)\b""", "gold  nas1  /vol/iso  true  true", "gold", "nas1", "iso"),
    _at("cluster|center|centre|pool|vapp|folder|rack", rf"""\b(?:cluster|data ?cent(?:er|re)|resource ?pool|vapp|rack|site|room|building)(?:[ _-]?name)?{_SAID}(?P<word>[^\n"',;<>\[\]{{}}]{{2,80}})""", "resource pool 'gold 1'", "gold 1", weak=True),
)  # fmt: skip

SYSTEM_USERS = frozenset(str.split("""
    root dcui vpxuser daemon nobody nfsnobody sshd system vdcs postgres administrator unknown none null
"""))  # fmt: skip


def listed_words(file: str) -> frozenset[str]:
    """The words of one of our lists; ``kept_words.txt`` is the kernel's own language, which stays where no name's place is."""
    text = (files("psodlib.anonymiser") / file).read_text(encoding="utf-8")
    return frozenset(word for line in text.split("\n") if not line.startswith("#") for word in line.split())


# ---- escapes ---------------------------------------------------------------------------------------------------------

ROUNDS = 3  # escapes in one another: %2520
ESCAPED_REACH = 2 << 10  # bytes of an escaped word on either side of an escape
ESCAPE = re.compile(rb"%[0-9a-f]{2}|\\u[0-9a-f]{4}|\\x[0-9a-f]{2}|\\/|&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z]{2,8});")
_BREAK = re.compile(rb"[\s\"'<>]")


def unescaped(data: bytes) -> tuple[bytes, list[int]]:
    """The text without escapes, and for each of its bytes where it came from (one more for the end)."""
    origin = list(range(len(data) + 1))
    for _ in range(ROUNDS):
        out, places, at = bytearray(), list[int](), 0
        for match in ESCAPE.finditer(data.lower()):
            raw = data[match.start() : match.end()]
            if (made := _meaning(raw)) == raw:
                continue  # `&web01;` is no escape
            out += data[at : match.start()] + made
            places += [*range(at, match.start()), *[match.start()] * len(made)]
            at = match.end()
        if not at:
            break
        places += range(at, len(data) + 1)
        data, origin = bytes(out + data[at:]), [origin[place] for place in places]
    return data, origin


def word_around(low: bytes, at: int, end: int, floor: int) -> tuple[int, int]:
    """The word that holds an escape: to the next blank, quote or angle bracket on either side."""
    floor = max(floor, at - ESCAPED_REACH)
    begin = max(low.rfind(mark, floor, at) + 1 for mark in (b" ", b"\n", b"\t", b"\r", b'"', b"'", b"<", b">"))
    stop = _BREAK.search(low, end, end + ESCAPED_REACH)
    return max(begin, floor), stop.start() if stop else min(len(low), end + ESCAPED_REACH)


def _meaning(escape: bytes) -> bytes:
    if escape.startswith(b"%"):
        return bytes([int(escape[1:], 16)])
    if escape.startswith(b"&"):
        return html.unescape(escape.decode("ascii")).encode("utf-8", "surrogatepass")
    return b"/" if escape == b"\\/" else chr(int(escape[2:], 16)).encode("utf-8", "surrogatepass")
