"""One crash's text -> ``Crash``: the grammar of purple screens and of the log lines around them. The only file with PSOD patterns.

The text goes through three steps, each a table or a short function::

    text -> pieces (one log line each, joined lines cut) -> blocks (the pieces of one crash) -> Crash

Recognition is by the shape of a line, never by a version banner, so every dialect from ESX 3.5 to 9.0 goes through the same
table, ``ROLES``. Each row carries a line that it must match; a test holds the table to it. Damage is a value; nothing here
raises on text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from ahocorasick_rs import BytesAhoCorasick, MatchKind

from psodlib.records import DAMAGE, Crash, Frame, Module

__all__ = ["find_crashes", "modules_named_by_kernel", "same_crash"]

# --------------------------------------------------------------------------------------------------------------------
# The vocabulary: what an address, a number, a stamp look like, masked or not. `(?!x)` lets a value end where a joined line
# runs on (`0x41ffd38142980x4539..`).
_HEX = r"0x(?:[0-9a-fA-F#X*]+(?!x)|x{4,})"
_NUMBER = r"(?:\d+|#+|X+)"
_UPTIME = r"\d{1,6}:\d{1,2}:\d{2}:\d{2}\.\d{3}"
_ISO = r"(?:\d{4}|YYYY)-(?:\d\d|MM)-(?:\d\d|DD)[T ](?:\d\d|HH):(?:\d\d|MM):(?:\d\d|SS)(?:\.(?:\d{1,9}|MS|[X#]+))?(?:Z|[+-]\d\d:?\d\d)?"
_CPU = rf"cpu{_NUMBER}:{_NUMBER}(?:\s+opID=[^\s)]{{1,80}})?\)"
_SYMBOL = (
    r"(?P<function><unknown>|[^\s@+\[\]]+)?"
    r"(?:@(?P<module>\([^)\s]*\)|<None>|[^#:+\s<]*)(?:[#:](?P<version><None>|[^+\s]*))?)?"
    r"(?:\+(?P<offset>0x[0-9a-fA-F]+(?!x)))?"
)
_PANIC_WORDS = "ASSERT|NOT_REACHED|NOT_IMPLEMENTED|PANIC|VERIFY|CHECK|ASSERT_NOT_IMPLEMENTED"


class _Role(NamedTuple):
    name: str
    sample: str
    pattern: re.Pattern[str]


def _role(name: str, sample: str, pattern: str) -> _Role:
    return _Role(name, sample, re.compile(pattern))


# What a line of a crash can be, tried in this order at the start of its body (behind the log prefix).
ROLES: tuple[_Role, ...] = (
    _role("header", "@BlueScreen: #PF Exception 14 in world 33101:memMap-0 IP 0x4180182f4948 addr 0x4108fffffff0",
          r"@?BlueScreen:\s*(?P<message>.*)"),
    _role("frame", "0x4122e445b4d8:[0x418014a7b71a]PanicvPanicInt@vmkernel#nover+0x61 stack: 0x3000000008",
          rf"(?:pcpu (?P<pcpu>{_NUMBER})\s+(?P<why>[^:\n]{{1,60}}): )?(?:(?P<fp>{_HEX}):\s?)?\[(?P<ip>{_HEX})\]\s?{_SYMBOL}"
          rf"(?P<stack>\s+stack:\s*(?P<word>{_HEX})?.*)?"),
    _role("code_start", "Code start: 0x418014a00000 VMK uptime: 25:06:19:56.440",
          rf"Code start:\s*(?P<code_start>{_HEX})(?:\s+VMK uptime:\s*(?P<uptime>{_UPTIME}))?"),
    _role("uptime", "VMK uptime: 7:05:43:45.014 TSC: 1751259712918392", rf"VMK uptime:\s*(?P<uptime>{_UPTIME})"),
    _role("backtrace", "Backtrace for current CPU #1, worldID=65936, fp=0x4390c0c1bd70",
          rf"Backtrace for current CPU #?(?P<pcpu>{_NUMBER}), worldID=(?P<world>{_NUMBER})"),
    _role("other_cpu", "Panic: 589: Panic from another CPU (cpu 78, world 2098897): ip=0x420002796b20 randomOff=0x2400000:",
          rf"(?:Panic: \d+: )?Panic from another CPU \(cpu (?P<pcpu>{_NUMBER}), world (?P<world>{_NUMBER})\)(?:: ip=(?P<ip>{_HEX}))?"),
    _role("saved", "Panic: 767: Saved backtrace: pcpu 118 Heartbeat NMI",
          rf"(?:Panic: \d+: )?(?:Saved backtrace(?: from)?: pcpu|Backtrace for Saved/Locked CPU -) ?(?P<pcpu>{_NUMBER})"),
    _role("product", "VMware ESXi 5.5.0 [Releasebuild-1331820 x86_64]",
          r"\W*(?:\d+(?:;\d+)?m\W*)*VMware ESX(?:i| Server)?(?: (?P<version>[\dX]+(?:\.[\dX]+){1,3}))? \[(?:Releasebuild|Debugbuild|Betabuild)-(?P<build>\d+)"),
    _role("registers", "frame=0x4100c0117d78 ip=0x41803399e303 cr2=0x0 cr3=0xcff94000",
          rf"(?:frame={_HEX} )?(?:r|e)?ip=(?P<ip>{_HEX})(?=[ \r]|$)"),
    _role("registers", "rax=0x0 rbx=0x417ff492dbe0 rcx=0x417ff386cc80",
          r"(?:e|r)(?:ax|bx|cx|dx|si|di|bp|sp|[89]|1[0-5])=0x|(?:err|es|ds|cr[0-4]|frame|TTB|CurrentEL|SCTLR_EL\d)=\S"),
    _role("arm_pc", "[pc]     42003a344d54 [sp]     451a01b1bdd0 [psr]        20000248", r"\[pc\]\s+(?P<ip>[0-9a-f]+)"),
    _role("registers", "[ 0]     4501843b0000 [ 1]                0 [ 2]             1000", r"\[[ \d]\d\]\s+[0-9a-f]+\s+\[[ \d]\d\]"),
    _role("cpu_list", "*PCPU0:131126/HELPER_UPLINK_ASYNC_CALL_QUEUE",
          r"(?:.*\s)?\*(?:PCPU\s?)?(?P<pcpu>\d+):(?P<world>\d+)/(?P<name>\S+(?: (?!\*?\d+:\d+/)\S+)*)"),
    _role("screen", "0:4096/console 2:4098/idle2 3:4099/idle3", r"(?:PCPU\s?)?\d+:\d+/\S"),
    _role("screen", "PCPU  0: SUUU", r"PCPU\s+\d+: [A-Z]+\s*$"),
    _role("world", "World: 7105: PRDA 0x41804b000000 ss 0x0 ds 0x4018 es 0x4018 fs 0x4018 gs 0x4018",
          r"World: \d+: (?:PRDA|TR|CR0) "),
    _role("base", "base fs=0x0 gs=0x418043800000 Kgs=0x0", r"base fs=|FSbase:|lastClrIntrRA:"),
    _role("module_map", "hpsa 0x418039a5e000 .data 0x417fc0e4e000 .bss 0x417fc0e4f000",
          rf"(?P<module>\S{{1,64}}) (?P<base>{_HEX}) \.data (?P<data>{_HEX}) \.bss (?P<bss>{_HEX})"),
    _role("named", "Module(s) involved in panic: [nvme_pcie 1.2.4.11-1vmw (VMW)]", r"Module(?:\(s\)|s)? involved in panic:?\s*(?P<modules>.*)"),
    _role("dump", "Coredump to disk. Slot 1 of 1.",
          r"Coredump to |Starting coredump|No place on disk to dump|No coredump target|Slot \d+ of \d+|using slot \d|Dump: |DiskDump|FileDump|NetDump|Disk dump"
          r"|.* \(\d\d/\d\d\)|Finalized dump header|Dumping using slot"),
    _role("dump", 'No port for remote debugger. Press "Escape" for local debugger.',
          r"No port for remote debugger|Debugger is listening|Waiting for [Dd]ebugger|Press .?Escape|Remote debugger"),
    _role("message", "#GP Exception(13) in world 4130:helper13-0 @ 0x41803399e303",
          r"(?P<message>(?:#[A-Z]{2}|[A-Z][A-Z0-9_]+)? ?Exception ?(?:type )?\(?\d+\)? .{0,20}in world .*)"),
    _role("message", "PCPU 39 locked up. Failed to ack TLB invalidate (total of 1 locked up, PCPU(s): 39).",
          rf"(?P<message>PCPU {_NUMBER}:? (?:locked up\. Failed to ack TLB|no heartbeat).*)"),
    _role("message", "Spin count exceeded (iplLock) - possible deadlock", r"(?P<message>Spin count exceeded.*)"),
    _role("message", "Machine Check Exception on PCPU12 in world 111111:idle51", r"(?P<message>(?:Fatal )?Machine Check Exception.*)"),
    _role("message", "LINT1/NMI (motherboard nonmaskable interrupt), undiagnosed. This may be a hardware problem;",
          r"(?P<message>LINT1.*|NMI IPI: Panic requested.*)"),
    _role("message", "NOT_IMPLEMENTED bora/vmkernel/main/util.c:83",
          rf"(?P<message>(?:{_PANIC_WORDS})\s+(?:FAILED\s+)?(?:at\s+)?\S*(?:bora|vmkernel|vmkdrivers|\.[ch]:\d).*)"),
    _role("message", "Failed at bora/vmkernel/main/heap.c:1234 -- VMK_ASSERT(heap)", r"(?P<message>Failed at \S*bora/\S+:\d.*)"),
    _role("message", "BUG: failure at vmkdrivers/src_9/include/linux/if_vlan.h:425/vlan_put_tag()! (inside vmklinux)",
          r"(?P<message>(?:BUG: failure at|kernel BUG at) .*)"),
    _role("message", "COS Error: Oops", r"(?P<message>COS (?:Error|Panic): .*|Oops\s*$|Lost [Hh]eartbeat\s*$)"),
    _role("message", "CrashMe", r"(?P<message>CrashMe\b.*)"),
    _role("message", "PSOD due to PCI bus error", r"(?P<message>PSOD due to .*)"),
    _role("message", "IOMMU fault detected: domain 3", r"(?P<message>(?:Fatal )?IOMMU (?:[Ff]ault|error).*)"),
    _role("fatal", "IDT: 1895: Uncorrectable/unrecoverable machine check error",
          r"IDT: \d+: Uncorrectable/unrecoverable machine check"),
    _role("requested", "NMI: 709: ApeiHESTNmiHandler requested PSOD", r"(?:ALERT: |WARNING: )?(?P<message>NMI: \d+: \w+ requested PSOD.*)"),
    _role("detail", "System has encountered a Hardware Error - Please contact the hardware vendor",
          r"System has encountered a Hardware Error|Uncorrectable/\w+ memory error|MCA: \d+: UC Excp|PTEs:0x|(?:ALERT: )?ApeiHEST: \d+: "),
    _role("lockup", "NMI: 1943: NMI IPI received. Was eip(base):ebp:cs [0x7eb2e(0x418009600000):0x4122c2307688:0x4010](Src 0x1, CPU140)",
          r"(?:NMI: \d+: )?NMI IPI(?: received)?[.:]|(?:WARNING: |ALERT: )?Heartbeat: \d+: PCPU \S+ didn't have a heartbeat|.{0,80}NETDEV WATCHDOG"),
    _role("cut", "0x4122e445b6a8:[0x418", r"0x[0-9a-fA-F]{0,16}(?::\s?(?:\[(?:0x[0-9a-fA-F]{0,16})?)?)?$"),
    _role("symbol", "NFS41_SMEventCreate@(nfs41client)#<None>+0x7d",
          r"(?P<function>[A-Za-z_.$][\w.$:~]*)@(?P<module>\([^)\s]*\)|<None>|[\w.\-]*)[#:](?P<version><None>|[\w.\-]*)(?:\+(?P<offset>0x[0-9a-fA-F]+))?\s*$"),
    _role("gdb", "#4  Res6NewFreeClusterEntry (rce=...)", r"#(?P<index>\d{1,3})\s+(?:(?P<ip>0x[0-9a-f]+) in )?(?P<function>[A-Za-z_][\w.$:~]*) ?\("),
    _role("elided", "...", r"[. …]{3,}$"),
)  # fmt: skip

_FRAMES = ("frame", "symbol", "gdb")

# The cause class by the panic text, first match wins; then by the exception's number.
KINDS: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple((kind, sample, re.compile(pattern, re.I)) for kind, sample, pattern in (
    ("user_requested", "CrashMe", r"\bCrashMe\b|user[- ](?:requested|initiated)|requested by (?:the )?(?:user|administrator)"),
    ("other", "EXCVEC_CUREL_SP_EL0_SYNCH Exception 0 in world 131126:HELPER_UPLIN (ec 0x25", r"^EXCVEC_"),
    ("tlb_timeout", "PCPU 1 locked up. Failed to ack TLB invalidate.", r"ack TLB invalidate"),
    ("no_heartbeat", "PCPU 118: no heartbeat (3/3 IPIs received)", r"no heartbeat"),
    ("lost_heartbeat", "COS Error: Lost heartbeat", r"lost heartbeat"),
    ("spin_count", "Spin count exceeded (iplLock) - possible deadlock", r"spin count exceeded"),
    ("machine_check", "Machine Check Exception on PCPU12 in world 1:idle1", r"machine check|\bMCE\b|^#MC\b|hardware (?:\(machine\) )?error"),
    ("nmi", "LINT1/NMI (motherboard nonmaskable interrupt), undiagnosed.", r"\bLINT1|\bNMI\b"),
    ("iommu_fault", "IOMMU fault detected: domain 3", r"\bIOMMU\b|\bDMAR\b"),
    ("heap_corruption", "PANIC bora/vmkernel/main/dlmalloc.c:4923 - Corruption in dlmalloc",
     r"corrupt\w* (?:in |of )?(?:dlmalloc|the heap|heap)|heap\b.{0,60}\bcorrupt|in dlmalloc"),
    ("not_implemented", "NOT_IMPLEMENTED bora/vmkernel/main/util.c:83", r"\bNOT_IMPLEMENTED\b"),
    ("not_reached", "NOT_REACHED bora/vmkernel/main/timer.c:12", r"\bNOT_REACHED\b"),
    ("assert", "ASSERT bora/vmkernel/main/pframe_int.h:527", r"\bASSERT\b|\bVERIFY\b|VMK_ASSERT"),
    ("panic", "PANIC bora/vmkernel/main/x.c:7", r"^PANIC\b|^BUG: |kernel BUG|^Failed at "),
))  # fmt: skip
EXCEPTIONS = {
    0: "divide_error", 2: "nmi", 6: "invalid_opcode", 8: "double_fault", 13: "general_protection", 14: "page_fault", 18: "machine_check",
}  # fmt: skip

# A backtrace under one of these is logged by a host that lives on, unless something fatal stands beside it.
_LIVES_ON = ("backtrace", "lockup")
_LOGGING = re.compile(r"LogBacktrace|Log_Backtrace|Util_.*Backtrace|Backtrace_Log")
_PANICKING = re.compile(r"_?v?Panic|vmk_v?Panic|PanicvPanic|panic$")
_FATAL = (
    "header",
    "message",
    "code_start",
    "uptime",
    "product",
    "other_cpu",
    "world",
    "fatal",
    "requested",
    "registers",
    "arm_pc",
)
_OPENERS = (*_FATAL, *_FRAMES, "saved", *_LIVES_ON)

_GAP = 12  # lines of something else that a block outlives: other PCPUs go on logging for a moment
_SAME_MOMENT = timedelta(seconds=2)
_NESTED = timedelta(minutes=1)  # a second panic while the first is being dumped; no host boots this fast
_LINE_LIMIT = 1 << 16
_PIECE_LIMIT = 20_000  # lines of one crash; 512 PCPUs with 30 frames each stay below
_ADDRESS_LIMIT = 1 << 64
CENTURY = (1990, 2200)

# --------------------------------------------------------------------------------------------------------------------
# Pieces: one log line each, whatever a scraper joined.

_CUT = re.compile(
    rb"(?:(?:\d{4}|YYYY)-[\dM]{2}-[\dD]{2}T[\dH]{2}:[\dM]{2}:[\dS]{2}(?:\.[\dXMS]{1,9})?Z?[ \t]{1,4})?"
    rb"(?:\d{1,6}:\d\d:\d\d:\d\d\.\d{3} )?cpu[\d#X]{1,6}:[\d#X]{1,12}(?: opID=[\w@\-]{1,64})?\)"
    rb"|@BlueScreen:(?: ?#[A-Z]{2} Exception)?"
    rb"|#[A-Z]{2} Exception"
    rb"|(?:Code start: ?0x[\da-fA-F#X]{1,16} )?VMK uptime:"
    rb"|Code start: ?0x"
    rb"|Backtrace for current CPU"
    rb"|(?:pcpu \d{1,5} [\w ]{1,30}: )?0x(?:[\da-fA-F#X]{1,16}|x{4,16}): ?\\?\[0x"
)
# What a page's source has around its lines; `<None>` and `<6>` are the vmkernel's own.
_TAG = re.compile(r"</?(?:br|p|div|span|pre|code|tt|td|tr|li)\b[^<>]{0,80}>", re.IGNORECASE)
_BLANK = re.compile(rb"(?:[\0\s]|\x1b\[[0-9;]{0,20}[A-Za-z])*")
_TOKEN_STAMP = re.compile(_ISO)
_TOKEN_UPTIME = re.compile(_UPTIME)
_TOKEN_PROGRAM = re.compile(r"vmk(?:ernel|warning|alert)(?:\[\d+\])?:?")
_TOKEN_NEUTRAL = re.compile(
    r"<\d{1,3}>|(?:In|Wa|Al|Er|Cr|Em|No|Db)\(\d{1,3}\)\+?|TSC:|\d+|-|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec|"
    r"\d\d:\d\d:\d\d|\d{4}-\d\d-\d\d|(?i:local\d\.\w+)"
)
_TOKEN_MASKED = re.compile(r"\[?[YMDHSTZ:.\-]{8,40}\]?|(?:<[\w:.\-]{1,30}>|[TZ:.\-])+|[XY#:.TZ\-]{8,40}")
_TOKEN_HOST = re.compile(r"[A-Za-z0-9](?:[\w.:\-]{0,251}[\w])?")
_PRI = re.compile(r"<\d{1,3}>(?:1 )?")
_PREFIX_CPU = re.compile(rf"cpu(?P<pcpu>{_NUMBER}):(?P<world>{_NUMBER})(?:\s+opID=[^\s)]{{1,80}})?\)")
_PREFIX_BARE = re.compile(r"(?:^|\s)vmk(?:ernel|warning|alert)(?:\[\d+\])?: ")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ESCAPED = re.compile(r"\\([\[\]_*#@+<>:.-])")
_ENTITIES = {
    "&lt;": "<",
    "&gt;": ">",
    "&amp;": "&",
    "&nbsp;": " ",
    "&#64;": "@",
    "\u00a0": " ",
    "\u200b": "",
    "'@'": "@",
}
_MAIL_GUARD = re.compile(r"\[email[ \u00a0]protected\]")  # what a web page made of `function@module`
_MASK = re.compile(r"0x[0-9a-fA-F]*[#X*]|cpu[#X]|worldID=[#X]|world [#X]{2,}|0xx{4,}|YYYY-|PCPU ?[#X]{1,}(?!\w)")


@dataclass(slots=True)
class Piece:
    start: int  # bytes into the input
    end: int
    line: int
    body: str
    time: datetime | None = None
    pcpu: int | None = None
    world: int | None = None
    host: str | None = None
    prefixed: bool = False
    role: str = ""
    match: re.Match[str] | None = None
    damage: set[str] = field(default_factory=set)

    def group(self, name: str) -> str | None:
        return self.match.groupdict().get(name) if self.match else None


def split_pieces(data: bytes, offset: int, line: int) -> Iterator[Piece]:
    # Split on "\n" alone: CR, NEL and their like stand inside messages.
    position = 0
    while position < len(data):
        end = data.find(b"\n", position)
        end = len(data) if end < 0 else end
        if data[position : position + 1] == b"\0":  # what a crash left of a file begins with blocks never written
            position = end - len(data[position:end].lstrip(b"\0"))
        cuts = _cuts(data, position, end)
        for start, stop in zip(cuts, [*cuts[1:], end], strict=True):
            piece = _piece(data[start:stop], offset + start, line)
            if len(cuts) > 1:
                piece.damage.add("joined_lines")
            yield piece
        position, line = end + 1, line + 1


def _cuts(data: bytes, start: int, end: int) -> list[int]:
    # Where the log lines begin that a scraper joined into data[start:end].
    cuts, previous_end, first = [start], start, True
    for match in _CUT.finditer(data, start, end):
        own_prefix = first and b"cpu" in match[0] and match.start() - start < 256
        joined = not _BLANK.fullmatch(data, previous_end, match.start())
        if joined and not own_prefix:
            cuts.append(match.start())
        previous_end, first = match.end(), False
    return cuts


def _piece(raw: bytes, start: int, line: int) -> Piece:
    text = raw[:_LINE_LIMIT].decode("utf-8", "backslashreplace").replace("\0", "")
    text = _ANSI.sub("", text.removesuffix("\r"))
    for entity, character in _ENTITIES.items():
        if entity in text:
            text = text.replace(entity, character)
    if "<" in text:
        text = _TAG.sub(" ", text).strip()
    if "\\" in text:
        text = _ESCAPED.sub(r"\1", text)
    piece = Piece(start, start + len(raw), line, text)
    if "[email" in text:
        piece.body = text = _MAIL_GUARD.sub("@", text)
        piece.damage.add("garbled")
    read_prefix(piece)
    _recognise(piece)
    return piece


def read_prefix(piece: Piece) -> None:
    # Everything before `cpuN:W)` is stamps, host and program, in whatever order a receiver put them.
    text = piece.body
    head = text[:300]
    found = (_PREFIX_CPU.search(head) if "cpu" in head else None) or (
        _PREFIX_BARE.search(head) if "vmk" in head else None
    )
    if not found:
        stamp = _TOKEN_STAMP.match(text)
        if stamp and text[stamp.end() : stamp.end() + 1] in (" ", "\t"):
            piece.time, piece.prefixed, piece.body = _moment(stamp[0]), True, text[stamp.end() :].strip()
        else:
            piece.body = text.strip()
        return
    head = text[: found.start()]
    if "@BlueScreen" in head:
        piece.body = text.strip()
        return
    piece.prefixed, piece.body = True, text[found.end() :].strip()
    groups = found.groupdict()
    piece.pcpu, piece.world = read_count(groups.get("pcpu")), read_count(groups.get("world"))
    host, program = None, "vmk" in found[0]
    if re.search("[#X]", found[0]):
        piece.damage.add("masked")
    for token in _PRI.sub("", head).split():
        if _TOKEN_STAMP.fullmatch(token):
            piece.time = _moment(token) or piece.time
            if not token[0].isdigit():
                piece.damage.add("masked")
        elif _TOKEN_PROGRAM.fullmatch(token):
            program = True
        elif _TOKEN_UPTIME.fullmatch(token) or _TOKEN_NEUTRAL.fullmatch(token):
            continue
        elif _TOKEN_MASKED.fullmatch(token):
            piece.damage.add("masked")
        elif _TOKEN_HOST.fullmatch(token):
            host = token
        else:
            piece.damage.add("garbled")
    piece.host = host if program and "garbled" not in piece.damage else None


def _recognise(piece: Piece) -> None:
    for role in ROLES:
        match = role.pattern.match(piece.body)
        if match:
            if role.name == "frame" and not match["ip"]:
                continue
            piece.role, piece.match = role.name, match
            if _MASK.search(piece.body):
                piece.damage.add("masked")
            return


def _moment(text: str) -> datetime | None:
    parts = re.match(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:([+-])(\d\d):?(\d\d))?", text)
    if not parts or not CENTURY[0] <= int(parts[1]) < CENTURY[1]:
        return None
    try:
        fraction = int((parts[7] or "0").ljust(6, "0")[:6])
        moment = datetime(*(int(part) for part in parts.groups()[:6]), fraction, tzinfo=UTC)  # type: ignore[arg-type,misc]
        if parts[8]:
            zone = timedelta(hours=int(parts[9]), minutes=int(parts[10]))
            moment -= zone if parts[8] == "+" else -zone
        return moment
    except (ValueError, OverflowError):
        return None


def read_count(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


def _address(text: str | None) -> int | None:
    try:
        value = int(text, 16) if text else None
    except ValueError:
        return None
    return value if value is not None and value < _ADDRESS_LIMIT else None


def _span(text: str | None) -> timedelta | None:
    if not text:
        return None
    days, hours, minutes, seconds = text.split(":")
    whole, milliseconds = seconds.split(".")
    if int(days) > 73_000:
        return None
    return timedelta(
        days=int(days), hours=int(hours), minutes=int(minutes), seconds=int(whole), milliseconds=int(milliseconds)
    )


# --------------------------------------------------------------------------------------------------------------------
# Blocks: the pieces of one crash.


@dataclass(slots=True)
class _Block:
    pieces: list[Piece] = field(default_factory=list)
    gap: int = 0
    time: datetime | None = None  # of the last line that belongs to the crash
    firsts: dict[str, Piece] = field(default_factory=dict)

    def add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.gap = 0 if piece.role or not piece.body else self.gap + 1
        if piece.role:
            self.firsts.setdefault(piece.role, piece)
            self.time = piece.time or self.time

    def first(self, *roles: str) -> Piece | None:
        found = [self.firsts[role] for role in roles if role in self.firsts]
        return min(found, key=lambda piece: piece.start) if found else None


def group_blocks(pieces: Iterable[Piece]) -> Iterator[_Block]:
    block: _Block | None = None
    previous: Piece | None = None
    for piece in pieces:
        if block and (block.gap > _GAP or len(block.pieces) >= _PIECE_LIMIT or _begins_another(block, piece)):
            yield block
            block = None
        if block:
            block.add(piece)
        elif piece.role in _OPENERS:
            block = _Block()
            # A panic text that no table knows stands, alone and without prefix, right before `Code start`.
            if (
                previous
                and piece.role in ("code_start", "uptime")
                and not previous.role
                and previous.body
                and not previous.prefixed
            ):
                previous.role = "title"
                block.add(previous)
            block.add(piece)
        previous = piece
    if block:
        yield block


def _begins_another(block: _Block, piece: Piece) -> bool:
    # Does this piece open the next crash, or does it belong to the block?
    if piece.time and block.time and abs(piece.time - block.time) > timedelta(minutes=10):
        return True
    if piece.role in ("header", "message"):
        return _other_message(block, piece)
    if piece.role == "product":
        first = block.first("product")
        whole = block.first(*_FRAMES, "registers") is not None and block.first("header", "message") is not None
        return (first is not None and (block.pieces[-1] is not first)) or (whole and not piece.prefixed)
    if piece.role in ("code_start", "uptime"):
        known = block.first("code_start", "uptime")
        return known is not None and _apart(_span(known.group("uptime")), _span(piece.group("uptime")))
    return False


def _apart(one: timedelta | None, other: timedelta | None) -> bool:
    return one != other if one is None or other is None else abs(one - other) > _NESTED


def _other_message(block: _Block, piece: Piece) -> bool:
    known = block.first("header") or block.first("message", "title")
    traced = block.first(*_FRAMES) is not None
    ended = block.first("code_start", "uptime") is not None
    if known is None:
        return ended if piece.role == "header" else traced
    if _alike(known, piece):
        return False
    if piece.role == "header" and known.role == "header":
        return not (ended and _near(known, piece, _NESTED) and known.host == piece.host)
    return (traced or ended) and not _near(known, piece)


def _near(one: Piece, other: Piece, span: timedelta = _SAME_MOMENT) -> bool:
    return one.time is not None and other.time is not None and abs(one.time - other.time) <= span


def _alike(one: Piece, other: Piece) -> bool:
    a, b = _plain(one.group("message") or one.body), _plain(other.group("message") or other.body)
    together = one.time is None or other.time is None or _near(one, other)
    return together and bool(a) and bool(b) and (a.startswith(b) or b.startswith(a))


def _plain(message: str | None) -> str:
    # Letters and figures alone: what two copies of one message share.
    text = re.split(r"\s*PTEs:", message or "", maxsplit=1)[0].replace("\\x", "")
    return re.sub(r"[^0-9a-z]", "", text.lower())[:200]


# --------------------------------------------------------------------------------------------------------------------
# Crash: what a block says.


def bears_header(block: _Block) -> bool:
    # Only a real header, a handler's word that it asked for the screen, or a product line with what a purple screen shows
    # below it: enough for a log that nobody chose.
    if block.first("header", "requested"):
        return True
    return (
        block.first("product") is not None
        and block.first("message", "code_start", "uptime", "registers", "arm_pc", *_FRAMES) is not None
    )


def _told(block: _Block) -> bool:
    # What a person pasted because it was a crash, unless it reads like the words of a host that lives on.
    if bears_header(block) or block.first("message", "code_start", "uptime", "other_cpu", "fatal"):
        return True
    frames = [piece for piece in block.pieces if piece.role in _FRAMES]
    if len(frames) < 2 or all(piece.role == "gdb" for piece in frames):
        return False
    if any(_PANICKING.match(piece.group("function") or "") for piece in frames[:6]):
        return True
    if any(_LOGGING.search(piece.group("function") or "") for piece in frames):
        return False
    return block.first(*_LIVES_ON) is None


def read_crash(block: _Block, data: bytes, offset: int) -> Crash:
    pieces = _trimmed(block.pieces)
    raw = data[pieces[0].start - offset : pieces[-1].end - offset]
    message_piece = (
        block.first("header") or block.first("message") or block.first("requested") or _screen_message(pieces)
    )
    message = _message_of(message_piece)
    code = block.first("code_start") or block.first("uptime")
    facts = _message_facts(message)
    pcpu = _first_known(_pcpus(pieces, facts))
    modules = _module_map(pieces)
    frames = _frames_of(_traces(pieces), pcpu)
    if frames and _ends_in_a_frame(pieces):  # how much of the symbol is left, nobody knows
        frames[-1] = replace(
            frames[-1], function=None, module=None, module_version=None, offset=None, module_evidence=None
        )
    main = [frame for frame in frames if frame.backtrace == 0]
    product = block.first("product")
    crash = Crash(
        host=next((piece.host for piece in pieces if piece.role and piece.host), None),
        time=_time_of(pieces),
        esxi_version=_version_of(product),
        esxi_build=product.group("build") if product else None,
        kind=_kind_of(message, facts, main, block),
        message=message,
        exception=facts.exception,
        pcpu=pcpu,
        world_id=_first_known(_worlds(pieces, facts)),
        world_name=facts.world_name or next((p.group("name") for p in pieces if p.role == "cpu_list"), None),
        ip=facts.ip if facts.ip is not None else _register_ip(pieces),
        fault_address=facts.fault_address,
        code_start=_address(code.group("code_start")) if code else None,
        uptime=_span(code.group("uptime")) if code else None,
        deliberate=bool(message and KINDS[0][2].search(message)),
        damage="",
        line=pieces[0].line,
        offset=pieces[0].start,
        sha256=hashlib.sha256(raw).hexdigest(),
        text=raw.decode("utf-8", "backslashreplace"),
    )
    identity = _identity(crash, facts, main)
    return replace(
        crash,
        crash_id=identity,
        damage=_damage(pieces, crash, frames, raw),
        frames=tuple(replace(frame, crash_id=identity) for frame in frames),
        modules=tuple(replace(module, crash_id=identity, host=crash.host, time=crash.time) for module in modules),
    )


def _trimmed(pieces: list[Piece]) -> list[Piece]:
    # A crash begins behind the warnings that foretold it, and ends with its last line of a known role.
    first = next(i for i, piece in enumerate(pieces) if piece.role and piece.role != "lockup")
    last = max(i for i, piece in enumerate(pieces) if piece.role and piece.role not in ("elided", "screen"))
    return pieces[first : last + 1]


def _screen_message(pieces: list[Piece]) -> Piece | None:
    for before, piece in zip([None, *pieces], pieces, strict=False):
        if piece.role == "title":
            return piece
        if before and before.role == "product" and piece.role in ("", "detail") and piece.body and not piece.prefixed:
            return piece
    return None


def _message_of(piece: Piece | None) -> str | None:
    if piece is None:
        return None
    text = (piece.group("message") or "") if piece.match else piece.body
    text = re.sub(r"\s*\.{3}\s*$", "", text.strip())
    return text or None


class _Facts(NamedTuple):
    exception: int | None = None
    pcpu: int | None = None
    world_id: int | None = None
    world_name: str | None = None
    ip: int | None = None
    fault_address: int | None = None


_EXCEPTION = re.compile(r"Exception\s*(?:type\s*)?\(?(\d{1,3})\)?\s")
_IN_WORLD = re.compile(
    rf"in world (?P<world>{_NUMBER}):(?P<name>\S(?:.{{0,80}}?\S)?)(?=\s+(?:IP|ip|@|at|addr|\(ec)\s?(?:0x|\d|x)|\s+PTEs:|\s*$)"
)
_MESSAGE_IP = re.compile(rf"\b(?:IP|ip|PC)[:=]?\s*({_HEX})|\s@\s*({_HEX})")
_MESSAGE_ADDRESS = re.compile(rf"\baddr[:=]?\s*({_HEX})|far_el2 ({_HEX})")
_ON_PCPU = re.compile(r"\bon (?:PCPU|pcpu|CPU|cpu)\s*(\d+)\b|\(Src 0x[0-9a-f]+, CPU(\d+)\b")


def _message_facts(message: str | None) -> _Facts:
    text = message or ""
    exception, world = _EXCEPTION.search(text), _IN_WORLD.search(text)
    ip, address, pcpu = _MESSAGE_IP.search(text), _MESSAGE_ADDRESS.search(text), _ON_PCPU.search(text)
    return _Facts(
        exception=int(exception[1]) if exception else None,
        pcpu=read_count(pcpu[1] or pcpu[2]) if pcpu else None,
        world_id=read_count(world["world"]) if world else None,
        world_name=world["name"] if world else None,
        ip=_address(ip[1] or ip[2]) if ip else None,
        fault_address=_address(address[1] or address[2]) if address else None,
    )


def _kind_of(message: str | None, facts: _Facts, frames: list[Frame], block: _Block) -> str:
    if message:
        for kind, _, pattern in KINDS:
            if pattern.search(message):
                return kind
    if facts.exception is not None:
        return EXCEPTIONS.get(facts.exception, "other")
    if block.first("fatal"):
        return "machine_check"
    panicking = any(_PANICKING.match(frame.function or "") for frame in frames[:6])
    return "panic" if panicking else "other"


def _time_of(pieces: list[Piece]) -> datetime | None:
    for roles in (("header",), ("code_start",), ("message", *_FRAMES), None):
        for piece in pieces:
            if piece.time and (roles is None or piece.role in roles):
                return piece.time
    return None


def _version_of(product: Piece | None) -> str | None:
    version = product.group("version") if product else None
    return None if version is None or "X" in version else version


def _pcpus(pieces: list[Piece], facts: _Facts) -> Iterator[int | None]:
    yield from (piece.pcpu for piece in pieces if piece.role == "header")
    yield from (piece.pcpu for piece in pieces if piece.role in ("code_start", "message", "fatal", *_FRAMES))
    yield facts.pcpu
    yield from (
        read_count(piece.group("pcpu"))
        for role in ("backtrace", "cpu_list", "other_cpu")
        for piece in pieces
        if piece.role == role
    )


def _worlds(pieces: list[Piece], facts: _Facts) -> Iterator[int | None]:
    yield facts.world_id
    yield from (piece.world for piece in pieces if piece.role == "header")
    yield from (piece.world for piece in pieces if piece.role in ("code_start", "message", "fatal", *_FRAMES))
    yield from (
        read_count(piece.group("world"))
        for role in ("backtrace", "cpu_list", "other_cpu")
        for piece in pieces
        if piece.role == role
    )


def _first_known(values: Iterable[int | None]) -> int | None:
    return next((value for value in values if value is not None), None)


def _register_ip(pieces: list[Piece]) -> int | None:
    for piece in pieces:
        if piece.role in ("registers", "arm_pc", "other_cpu") and (found := _address(piece.group("ip"))) is not None:
            return found
        if piece.role == "registers" and (inner := re.search(rf"\b(?:r|e)?ip=({_HEX})", piece.body)):
            return _address(inner[1])
    return None


class _Trace(NamedTuple):
    pcpu: int | None
    saved: bool
    announced: bool  # stands behind the header or `Code start`
    pieces: list[Piece]


def _traces(pieces: list[Piece]) -> list[_Trace]:
    # Runs of frames; a line that announces another backtrace, or another PCPU's tag, begins the next.
    traces: list[_Trace] = []
    state = _Trace(None, False, False, [])
    for piece in pieces:
        if piece.role in ("header", "code_start", "uptime", "backtrace", "saved"):
            announced = state.announced if piece.role in ("saved", "backtrace") else True
            state = _Trace(read_count(piece.group("pcpu")), piece.role == "saved", announced, [])
        elif piece.role in _FRAMES:
            tagged = read_count(piece.group("pcpu")) if piece.group("why") else None
            if tagged is not None and (not state.saved or tagged != state.pcpu):
                state = _Trace(tagged, True, state.announced, [])
            elif tagged is None and state.saved and state.pieces and state.pieces[-1].group("why"):
                state = _Trace(None, False, state.announced, [])
            if not state.pieces:
                traces.append(state)
            state.pieces.append(piece)
    return traces


def _frames_of(traces: list[_Trace], pcpu: int | None) -> list[Frame]:
    main = [trace for trace in traces if not trace.saved]
    if not main and pcpu is not None:  # the only trace of the panicking PCPU is the one its NMI saved
        main = [trace for trace in traces if trace.pcpu == pcpu]
    frames: list[Frame] = []
    if main:
        chosen = _fullest(main)
        frames = [_frame(piece, 0, index, chosen.pcpu) for index, piece in enumerate(chosen.pieces)]
    saved: dict[int | None, list[Piece]] = {}
    for trace in traces:
        if trace.saved and not any(trace is other for other in main):
            saved.setdefault(trace.pcpu, []).extend(trace.pieces)
    for number, (other, pieces) in enumerate(saved.items(), start=1):
        frames += [_frame(piece, number, index, other) for index, piece in enumerate(pieces)]
    return frames


def _fullest(traces: list[_Trace]) -> _Trace:
    # The same stack may be logged twice: with five words before the header, with one behind it. The latter counts, unless it
    # is only the beginning of the former.
    best = next((trace for trace in traces if trace.announced), traces[0])
    for trace in traces:
        if len(trace.pieces) > len(best.pieces) and all(
            a.group("ip") == b.group("ip") for a, b in zip(best.pieces, trace.pieces, strict=False)
        ):
            best = trace
    return best


def _ends_in_a_frame(pieces: list[Piece]) -> bool:
    # The text stops inside a frame: its neighbours print stack words, it does not get that far.
    before = any(piece.group("stack") for piece in pieces[:-1] if piece.role == "frame")
    return before and pieces[-1].role == "frame" and not pieces[-1].group("stack")


_PLACEHOLDER = re.compile(r"[#X*]+|<None>|example\.com|")  # what masks, scrapers and the vmkernel print for "not told"


def _told_name(text: str | None) -> str | None:
    return None if text is None or _PLACEHOLDER.fullmatch(text) else text


def _frame(piece: Piece, backtrace: int, index: int, pcpu: int | None) -> Frame:
    module = _told_name((piece.group("module") or "").strip("()"))
    offset = _address(piece.group("offset"))
    return Frame(
        backtrace=backtrace,
        pcpu=piece.pcpu if pcpu is None and backtrace == 0 else pcpu,
        index=index,
        frame_pointer=_address(piece.group("fp")),
        address=_address(piece.group("ip")),
        function=_told_name(piece.group("function")),
        module=module,
        module_version=_told_name(piece.group("version")),
        offset=offset if offset is not None and offset < 1 << 63 else None,
        stack=_address(piece.group("word")),
        module_evidence="printed" if module else None,
    )


def _module_map(pieces: list[Piece]) -> list[Module]:
    # The vmkernel prints 0 for itself: that is "not said", its place is `Code start`.
    return [
        Module(
            module=piece.group("module") or "",
            base=_address(piece.group("base")) or None,
            data=_address(piece.group("data")) or None,
            bss=_address(piece.group("bss")) or None,
        )
        for piece in pieces
        if piece.role == "module_map"
    ]


def _damage(pieces: list[Piece], crash: Crash, frames: list[Frame], raw: bytes) -> str:
    found = set().union(*(piece.damage for piece in pieces if piece.role))
    if crash.message is None:
        found.add("no_header")
    if not frames:
        found.add("no_frames")
    if crash.time is None:
        found.add("no_time")
    roles = [piece.role for piece in pieces]
    if crash.message is None and roles[0] in (*_FRAMES, "code_start", "registers"):
        found.add("cut_head")
    framed = [i for i, role in enumerate(roles) if role in _FRAMES]
    if framed and "elided" in roles[framed[0] : framed[-1] + 2]:
        found.add("cut_backtrace")
    if "cut" in roles or _ends_in_a_frame(pieces):
        found |= {"cut_line", "cut_backtrace"}
    if b"\0" in raw or any(frame.function is None for frame in frames) or _CONTROL.search(crash.message or ""):
        found.add("garbled")
    return ";".join(word for word in DAMAGE if word in found)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufffd]|\\x[89a-f][0-9a-f]")


def _identity(crash: Crash, facts: _Facts, frames: list[Frame]) -> str:
    # What every copy of one crash prints alike. Neither host nor wall clock: a receiver rewrites both. But without an
    # uptime nothing tells a crash from the next one of the same world at the same place, so then the second counts.
    milliseconds = crash.uptime // timedelta(milliseconds=1) if crash.uptime is not None else None
    innermost = (frames[0].frame_pointer, frames[0].address, frames[0].function) if frames else None
    shared = (
        crash.kind, crash.exception, crash.world_id, facts.ip, crash.fault_address, crash.code_start, milliseconds, innermost,
        _plain(crash.message),
    )  # fmt: skip
    if crash.uptime is None and crash.time is not None:
        shared = (*shared, int(crash.time.timestamp()))  # type: ignore[assignment]
    return hashlib.sha256(repr(shared).encode()).hexdigest()[:16]


def find_crashes(text: str | bytes) -> list[Crash]:
    """All crashes of one log's text, a pasted screen or a cut backtrace, in the order of the text."""
    data = text.encode("utf-8", "backslashreplace") if isinstance(text, str) else bytes(text)
    return [
        read_crash(block, part, start)
        for part, start, line in regions(data)
        for block in group_blocks(split_pieces(part, start, line))
        if _told(block)
    ]


# Every line that opens a block holds one of these; a test holds them to the samples of ROLES.
_HINTS = (
    b"BlueScreen:", b"xception", b"locked up", b"no heartbeat", b"ost heartbeat", b"ost Heartbeat", b"pin count exceeded", b"LINT1",
    b"Panic", b"panic", b"NOT_", b"ASSERT", b"PANIC", b"VERIFY", b"CHECK", b"bora/", b"BUG", b"COS ", b"Oops", b"CrashMe", b"PSOD",
    b"machine check", b"build-", b"Code start", b"VMK uptime", b"[0x", b"ip=0x", b"=0x", b"[pc]", b"[ 0]", b"PRDA", b"requested PSOD",
    b"acktrace", b"#nover", b":nover", b"#<None>", b"@(", b"+0x", b".bss 0x", b"another CPU", b"IOMMU",
)  # fmt: skip
_HINT_FINDER = BytesAhoCorasick(list(_HINTS), matchkind=MatchKind.LeftmostFirst)


def regions(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    # The stretches worth a closer look, at whole lines, each with its offset and its first line's number.
    spans: list[tuple[int, int]] = []
    for _, at, _ in _HINT_FINDER.find_matches_as_indexes(data):
        begin, stop = max(0, at - 4096), at + 8192
        if spans and begin <= spans[-1][1]:
            spans[-1] = (spans[-1][0], stop)
        else:
            spans.append((begin, stop))
    line, counted = 1, 0
    for begin, stop in spans:
        begin = data.rfind(b"\n", 0, begin) + 1
        end = data.find(b"\n", stop)
        line, counted = line + data.count(b"\n", counted, begin), begin
        yield data[begin : end if end >= 0 else len(data)], begin, line


def modules_named_by_kernel(text: str) -> tuple[str, ...]:
    """Bare names of the modules that the kernel itself calls involved in a panic (ESX 9), as printed, the vmkernel left
    out."""
    pattern = next(role.pattern for role in ROLES if role.name == "named")
    names: list[str] = []
    for line in text.split("\n"):
        at = line.find("Module")
        match = pattern.match(line, at) if at >= 0 else None
        if match:
            names += [
                name
                for name in re.findall(r"[\[,]\s*([A-Za-z_][\w\-]{1,63})", "[" + match["modules"])
                if name != "vmkernel"
            ]
    return tuple(dict.fromkeys(names))


_SHARED_FACTS = ("exception", "world_id", "fault_address", "code_start", "esxi_build")


def same_crash(a: Crash, b: Crash) -> bool:
    """Whether two readings are copies of one crash, one perhaps damaged."""
    if a.crash_id and a.crash_id == b.crash_id:
        return True
    if any(_differ(getattr(a, name), getattr(b, name)) for name in _SHARED_FACTS):
        return False
    if a.uptime is not None and b.uptime is not None and a.uptime != b.uptime:
        return False
    same_uptime = a.uptime is not None and a.uptime == b.uptime
    if same_uptime and (_agree(a.code_start, b.code_start) or _agree(a.ip, b.ip)):
        return True
    near = a.time is not None and b.time is not None and abs(a.time - b.time) <= _SAME_MOMENT
    one, other = _plain(a.message), _plain(b.message)
    return near and bool(one) and bool(other) and (one.startswith(other) or other.startswith(one))


def _differ(one: object, other: object) -> bool:
    return one is not None and other is not None and one != other


def _agree(one: object, other: object) -> bool:
    return one is not None and one == other
