"""The grammar of purple screens: what a line of a crash can be, and what its message says. The only file with PSOD patterns.

Recognition is by the shape of a line, never by a version banner, so every dialect from ESX 3.0 to 9.0 goes through the one
table ``ROLES``. Each row carries a line that it must match, and the bytes by which a search finds such a line; the one
automaton over them serves both readers, of pasted text and of streams.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# --------------------------------------------------------------------------------------------------------------------
# The vocabulary: what an address, a number, a stamp look like, masked or not. `(?!x)` lets a value end where a joined line
# runs on (`0x41ffd38142980x4539..`); typography makes a multiplication sign of the x, a reader of pictures an O of the 0.
_MASK = r"<[A-Z][A-Z_ ]{0,20}>"
HEX = rf"(?:[0O][x×](?:[A-Z]{{0,9}}[G-WYZ][A-Z]{{0,12}}\d{{0,4}}|[0-9a-fA-F#X*]{{1,40}}(?!x)|x{{4,20}}|n{{4,20}}|{_MASK})|0?#{{4,20}}|{_MASK})"
NUMBER = rf"(?:\d{{0,12}}#{{1,20}}|\d{{1,20}}|X{{1,20}}|x{{1,20}}|{_MASK})"
UPTIME = r"\d{1,6}:\d{1,2}:\d{2}:\d{2}\.\d{3}"
ISO = r"(?:\d{4}|YYYY)-(?:\d\d|MM)-(?:\d\d|DD)[T ](?:\d\d|HH):(?:\d\d|MM):(?:\d\d|SS)(?:\.(?:\d{1,9}|MS|[X#]{1,9}))?(?:Z|[+-]\d\d:?\d\d)?"
_SYMBOL = (
    r"(?P<function><unknown>|[^\s@+\[\]]{1,300})?"
    r"(?:@(?P<module>\([^)\s]{0,80}\)|<None>|[^#:+\s<]{0,80})(?:[#:](?P<version><None>|[^+\s]{0,80}))?)?"
    r"(?:\+(?P<offset>[0O][x×][0-9a-fA-F]{1,40}(?!x)|0?x?#{2,20}))?"
)
_SAID = r".{0,4000}"  # a message goes on to the line's end; nobody reads more of it
_PANIC_WORDS = "ASSERT_NOT_IMPLEMENTED|ASSERT|NOT_REACHED|NOT_IMPLEMENTED|PANIC|VERIFY|CHECK"
# Where the vmkernel's and its modules' own sources lie: `bora/devices` or `bora/lib` is a virtual machine's or an agent's panic.
_SOURCE = r"(?:at\s+)?(?!\S{0,200}bora/(?:devices|vmx|vmcore|vim|apps|mks|lib|monitor)/)[\w.\-/]{1,400}\.(?:c|h|cc|cpp|S):[\d#X]"
_MNEMONIC = r"#?(?:DE|DB|BP|OF|BR|UD|NM|DF|TS|NP|SS|GP|PF|MF|AC|MC|XF|XM|VE|CP|NMI)"
_EXCEPTION = r"Exception ?(?:type )?\(?\d{1,3}\)?"
_NAME = r"(?=\w{0,80}(?:[a-z0-9][A-Z]|_))[A-Za-z_]\w{3,120}"  # of a function; no English word


class Role(NamedTuple):
    """One thing that a line of a crash can be; ``anchors`` find the lines that can open a crash."""

    name: str
    anchors: tuple[bytes, ...]
    sample: str
    pattern: re.Pattern[str]


# What a line of a crash can be, tried in this order at the start of its body (behind the log prefix). Anchors are parted by
# blanks; `~` in one is a blank. A row without any opens no crash by itself. Every anchor holds one of the words that the search of streams looks for
# (`vmkernel_lines.SEARCHED`).
ROLES: tuple[Role, ...] = tuple(
    Role(name, tuple(anchor.replace("~", " ").encode() for anchor in anchors.split()), sample, re.compile(pattern))
    for name, anchors, sample, pattern in (
    ("header", "Screen: Message:", "@BlueScreen: #PF Exception 14 in world 33101:memMap-0 IP 0x4180182f4948 addr 0x4108fffffff0",
          rf"(?:(?:Panic|PSOD|Crash) [Mm]essage:\s{{0,8}}(?:@?BlueScreen:)?|@?BlueScreen:)(?!\s*(?:%s|\(\.|<[a-z]{{1,20}}>\s*$)|[^\x22\n]{{0,200}}(?:%[dsux]|\{{\d?\}})[^\x22\n]{{0,80}}\x22|.{{0,80}}(?: world |/)\.\.\.)\s*(?P<message>{_SAID})"),
    ("frame", ":[0x nover #<None>", "0x4122e445b4d8:[0x418014a7b71a]PanicvPanicInt@vmkernel#nover+0x61 stack: 0x3000000008",
          rf"(?:pcpu (?P<pcpu>{NUMBER})\s+(?P<why>[^:\n]{{1,60}}): )?(?:(?P<fp>{HEX}) ?:\s?)?\[ ?(?P<ip>{HEX}) ?\]\s?{_SYMBOL}"
          rf"(?P<stack>\s*stack:\s*(?P<word>{HEX})?.*)?"),
    ("details", "tails:~Crash", "Panic Details: Crash at 2021-06-01T10:11:12.345Z on CPU 3 running world 2098455 - HELPER_QUEUE. VMK Uptime:95:04:48:47.696",
          rf"(?:Panic|PSOD|Crash) Details: Crash at (?P<time>{ISO}|.{{1,40}}?) on P?CPU ?(?P<pcpu>{NUMBER}) running world (?P<world>{NUMBER})"
          rf"(?:\s?[-–:]\s?(?P<name>\S.{{0,80}}?))??(?:[.,;]?\s{{0,4}}VMK [Uu]ptime:\s?(?P<uptime>{UPTIME})|[.,;]?\s*$)"),
    ("code_start", "Code~start VMK~uptime", "Code start: 0x418014a00000 VMK uptime: 25:06:19:56.440",
          rf"Code starts?(?: at|:)\s*(?P<code_start>{HEX})(?:[\s,;.]+VMK [Uu]ptime:\s*(?P<uptime>{UPTIME}))?"),
    ("uptime", "VMK~uptime", "VMK uptime: 7:05:43:45.014 TSC: 1751259712918392", rf"VMK [Uu]ptime:\s*(?P<uptime>{UPTIME})"),
    ("backtrace", "cktrace", "Backtrace for current CPU #1, worldID=65936, fp=0x4390c0c1bd70",
          rf"Backtrace for current CPU #?(?P<pcpu>{NUMBER}), worldID=(?P<world>{NUMBER})"),
    ("other_cpu", "Panic~from~another~CPU", "Panic: 589: Panic from another CPU (cpu 78, world 2098897): ip=0x420002796b20 randomOff=0x2400000:",
          rf"(?:Panic: \d{{1,5}}: )?Panic from another CPU \(cpu (?P<pcpu>{NUMBER}), world (?P<world>{NUMBER})\)(?:: ip=(?P<ip>{HEX}))?"),
    ("saved", "cktrace", "Panic: 767: Saved backtrace: pcpu 118 Heartbeat NMI",
          rf"(?:Panic: \d{{1,5}}: )?(?:Saved backtrace(?: from)?: pcpu|Backtrace for Saved/Locked CPU -) ?(?P<pcpu>{NUMBER})"),
    ("product", "build-", "VMware ESXi 5.5.0 [Releasebuild-1331820 x86_64]",
          r"(?P<details>Version Details: )?\W{0,20}(?:\d{1,3}(?:;\d{1,3})?m\W{0,9}){0,4}VMware ESX(?:i| Server)?(?: (?P<version>[\d#X]{1,3}(?:\.[\d#X]{1,3}){1,3}))?"
          r" (?:\[(?:Release|Debug|Beta|)|(?(details)|\[))build-(?P<build>\d{1,12}|[#X]{1,12})"),
    ("other_product", "", "COFFEEware Machine 5.0 [Releasebuild-12345 x86_64]", r"[\w .()\-]{2,80} \[(?:Release|Debug|Beta|)build-"),
    ("registers", "", "frame=0x4100c0117d78 ip=0x41803399e303 cr2=0x0 cr3=0xcff94000",
          rf"(?:gate={HEX} )?(?:frame={HEX} )?(?:r|e)?ip=(?P<ip>{HEX})(?=[ \r]|$)"),
    ("registers", "", "error code 0x0, rip 0x41802f1a2b3c", rf"error code:? {HEX}[,;]? (?:r|e)?ip:? (?P<ip>{HEX})"),
    ("registers", "", "rax=0x0 rbx=0x417ff492dbe0 rcx=0x417ff386cc80",
          rf"(?:e|r)(?:ax|bx|cx|dx|si|di|bp|sp|[89]|1[0-5])={HEX}|(?:err|es|ds|cr[0-4]|frame|TTB|CurrentEL|SCTLR_EL\d)=(?:-?\d|{HEX})"),
    ("arm_pc", "", "[pc]     42003a344d54 [sp]     451a01b1bdd0 [psr]        20000248", r"\[pc\]\s+(?P<ip>[0-9a-f]{1,16})"),
    ("registers", "", "[ 0]     4501843b0000 [ 1]                0 [ 2]             1000", r"\[[ \d]\d\]\s+[0-9a-f]{1,16}\s+\[[ \d]\d\]"),
    ("cpu_list", "", "*PCPU0:131126/HELPER_UPLINK_ASYNC_CALL_QUEUE",
          r"(?:.{0,2000}\s)?\*(?:PCPU\s?)?(?P<pcpu>\d{1,5}):(?P<world>\d{1,12})/(?P<name>\S{1,80}(?: (?!\*?\d{1,5}:\d{1,12}/)\S{1,80}){0,6})"),
    ("cpu_list", "", "cpu 0 2673 vmm0:keys: CPU 1 1038 helper1-4: cpu 2 1041 idle2:",
          r"(?:cpu \d{1,5} \d{1,12} \S{1,80}: ?){0,16}CPU (?P<pcpu>\d{1,5}) (?P<world>\d{1,12}) (?P<name>\S{1,80}?):?(?=\s|$)"),
    ("screen", "", "0:4096/console 2:4098/idle2 3:4099/idle3", r"(?:PCPU\s?)?\d{1,5}:\d{1,12}/\S"),
    ("screen", "", "PCPU  0: SUUU", r"PCPU\s+\d{1,5}: [A-Z]{1,200}\s*$"),
    ("world", "", "World: 7105: PRDA 0x41804b000000 ss 0x0 ds 0x4018 es 0x4018 fs 0x4018 gs 0x4018",
          r"World: (?:\w{1,40}:)?\d{1,5}: (?:PRDA|TR|CR0) "),
    ("base", "", "base fs=0x0 gs=0x418043800000 Kgs=0x0", r"base fs=|FSbase:|lastClrIntrRA:"),
    ("module_map", "", "hpsa 0x418039a5e000 .data 0x417fc0e4e000 .bss 0x417fc0e4f000",
          rf"(?P<module>\S{{1,64}}) (?P<base>{HEX}) \.data (?P<data>{HEX}) \.bss (?P<bss>{HEX})"),
    ("named", "", "Module(s) involved in panic: [nvme_pcie 1.2.4.11-1vmw (VMW)]", rf"Module(?:\(s\)|s)? involved in panic:?\s*(?P<modules>{_SAID})"),
    ("dump", "", "Coredump to disk. Slot 1 of 1.",
          r"Coredump to |Starting coredump|No place on disk to dump|No coredump target|Slot \d{1,3} of \d{1,3}|using slot \d|Dump: |DiskDump|FileDump|NetDump|Disk dump"
          r"|.{0,80} \(\d\d/\d\d\)|Finalized dump header|Dumping using slot"),
    ("dump", "", 'No port for remote debugger. Press "Escape" for local debugger.',
          r"No port for remote debugger|Debugger is listening|Waiting for [Dd]ebugger|Press .?Escape|Remote debugger"),
    ("message", "ception", "#GP Exception(13) in world 4130:helper13-0 @ 0x41803399e303",
          rf"(?P<message>(?:{_MNEMONIC} ?|[A-Z][A-Z0-9_]{{3,60}} )?{_EXCEPTION} (?:.{{0,20}} )?in world {NUMBER}(?!\w){_SAID})"),
    ("message", "ception", "#DF Exception 8 IP 0x41800b2e1c5a SP 0x4100c0e4fd08",
          rf"(?P<message>{_MNEMONIC} ?{_EXCEPTION}\s+(?:IP|ip|@|addr|at)\s?{HEX}{_SAID})"),
    ("message", "ception", "PF Exception 14 in DvfilterDrain",
          rf"(?P<message>{_MNEMONIC} ?{_EXCEPTION}(?:\s+(?:(?:in|at) )?{_NAME}|\s+in multiple .{{0,200}}|\s+in \w{{1,20}} world .{{0,200}})(?=\s*$))"),
    ("message", "ception", "Exception 14 DvfilterDrain", rf"(?P<message>{_EXCEPTION} (?:in )?{_NAME}(?=\s*$))"),
    ("message", "ception", "#PF Exception 14", rf"(?P<message>#{_MNEMONIC[2:]} ?{_EXCEPTION})(?=\s*$)"),
    ("message", "ception", "VMB: 378: Unexpected exception 14 @ 0x418037a1b2c3",
          rf"(?:VMB: \d{{1,5}}: )?(?P<message>Unexpected exception \d{{1,3}} @ ?{HEX}{_SAID})"),
    ("message", "locked~up. no~heartbeat", "PCPU 39 locked up. Failed to ack TLB invalidate (total of 1 locked up, PCPU(s): 39).",
          rf"(?P<message>PCPU ?{NUMBER}:? (?:locked up\. [Ff]ailed to ack TLB|no heartbeat){_SAID})"),
    ("message", "pin~count", "Spin count exceeded (iplLock) - possible deadlock", rf"(?P<message>Spin count exceeded{_SAID})"),
    ("message", "re-acquire~lock", "PCPU 3 tried to re-acquire lock heapLock", rf"(?P<message>(?!WARNING|ALERT).{{0,200}}?\btried to re-acquire lock{_SAID})"),
    ("message", "ecursive~panic", "Recursive panic on same CPU (cpu 3, world 2098)", rf"(?:Panic: \d{{1,5}}: )?(?P<message>Recursive panic on{_SAID})"),
    ("message", "e~Check", "Machine Check Exception on PCPU12 in world 111111:idle51", rf"(?P<message>(?:Fatal )?Machine Check Exception(?!s\b| \(?MCE\)? (?:is|are) ){_SAID})"),
    ("message", "LINT1 Panic~requested", "LINT1/NMI (motherboard nonmaskable interrupt), undiagnosed. This may be a hardware problem;",
          rf"(?P<message>LINT1.{{0,4}}NMI(?=\s?[(,.;]|\s*$){_SAID}|LINT1 (?:motherboard )?interrupt{_SAID}|NMI IPI: Panic requested{_SAID})"),
    ("message", "bora/ ASSERT NOT_REACHED NOT_IMPL PANIC~ RIFY~", "NOT_IMPLEMENTED bora/vmkernel/main/util.c:83",
          rf"(?P<message>(?:{_PANIC_WORDS})\s{{1,8}}(?:FAILED\s{{1,8}})?{_SOURCE}{_SAID})"),
    ("message", "bora/ kdrivers/ ~modules/", "Failed at bora/vmkernel/main/heap.c:1234 -- VMK_ASSERT(heap)",
          rf"(?P<message>Failed at {_SOURCE}{_SAID})"),
    ("message", "BUG:~failure el~BUG~at", "BUG: failure at vmkdrivers/src_9/include/linux/if_vlan.h:425/vlan_put_tag()! (inside vmklinux)",
          rf"(?P<message>(?:BUG: failure|kernel BUG) at (?=\S{{0,200}}(?:vmk|bora/|modules/)){_SAID})"),
    ("message", "COS~ Oops Lost~heartbeat Lost~Heartbeat", "COS Error: Oops",
          rf"(?P<message>COS (?:Error|Panic): {_SAID})"),
    ("message", "Lost~heartbeat Lost~Heartbeat", "VMNIX: ALERT: HB: 277: Lost heartbeat (comm=esxcfg-init pid=1304)",
          rf"(?:VMNIX: )?(?:ALERT: )?HB: \d{{1,5}}: (?P<message>Lost [Hh]eartbeat{_SAID})"),
    ("message", "CrashMe", "CrashMe", rf"(?P<message>CrashMe\b{_SAID})"),
    ("message", "PSOD", "PSOD due to PCI bus error", rf"(?P<message>PSOD due to {_SAID})"),
    ("message", "OMMU~", "IOMMU fault detected: domain 3", rf"(?P<message>(?:Fatal )?IOMMU (?:[Ff]ault|error|UNIT \d{{1,4}} did not complete){_SAID})"),
    ("message", "Fatal~CPU~mismatch~on", 'Fatal CPU mismatch on feature "Hyperthreads per core"; cpu4 value = 0x1, but cpu0 value = 0x2',
          rf"(?P<message>Fatal CPU mismatch on {_SAID})"),
    ("message", "incompatibility~d", "HW feature incompatibility detected; cannot start", rf"(?P<message>HW feature incompatibility detected{_SAID})"),
    ("message", "mem~checksum~BAD", "VMKernel RO mem checksum BAD", rf"(?P<message>VM[Kk]ernel RO mem checksum BAD{_SAID})"),
    ("fatal", "ine~check", "IDT: 1895: Uncorrectable/unrecoverable machine check error",
          r"IDT: \d{1,5}: Uncorrectable/unrecoverable machine check"),
    ("requested", "PSOD", "NMI: 709: ApeiHESTNmiHandler requested PSOD", rf"(?:ALERT: |WARNING: )?(?P<message>NMI: \d{{1,5}}: \w{{1,80}} requested PSOD{_SAID})"),
    ("detail", "", "System has encountered a Hardware Error - Please contact the hardware vendor",
          r"System has encountered a Hardware Error|Uncorrectable/\w{1,40} memory error|(?:ALERT: )?MCA: \d{1,5}: (?:UC|SRAR|SRAO|UE) Excp|PTEs:0x|(?:ALERT: )?ApeiHEST: \d{1,5}: "),
    ("lockup", "", "NMI: 1943: NMI IPI received. Was eip(base):ebp:cs [0x7eb2e(0x418009600000):0x4122c2307688:0x4010](Src 0x1, CPU140)",
          r"(?:NMI: \d{1,5}: )?NMI IPI(?: received)?[.:]|(?:WARNING: |ALERT: )?Heartbeat: \d{1,5}: PCPU \S{1,9} didn't have a heartbeat|.{0,80}NETDEV WATCHDOG"),
    ("boot", "", "Starting VMKernel initialization", r"Starting VMKernel|BootConfig: \d{1,5}: |VMKernel \S{1,253} \d{1,2}\.\d{1,2}\.\d{1,2} #\d{1,3} SMP"),
    ("cut", "", "0x4122e445b6a8:[0x418", r"0x[0-9a-fA-F]{0,16}(?::\s?(?:\[(?:0x[0-9a-fA-F]{0,16})?)?)?$"),
    ("symbol", "nover #<None> m.vmw", "NFS41_SMEventCreate@(nfs41client)#<None>+0x7d",
          r"(?P<function>[A-Za-z_.$][\w.$:~]{0,300})@(?P<module>\([^)\s]{0,80}\)|<None>|[\w.\-]{0,80})(?:(?:#|:(?=nover))(?P<version><None>|[\w.\-]{0,80})(?:\+(?P<offset>0[x×][0-9a-fA-F]{1,40}))?"
          r"|\+(?P<plain_offset>0[x×][0-9a-fA-F]{1,40}))\s*$"),
    ("symbol", "@vmkernel @esx", "Res3GetSpecificCluster@esx",
          r"(?P<function>(?=[A-Za-z0-9.$]{0,80}(?:[a-z0-9][A-Z]|_))[A-Za-z_][\w.$]{2,300})@(?P<module>vmkernel|esx|com\.vmware\.[\w.]{1,60}|\([\w.\-]{1,60}\))\s*$"),
    ("bare_symbol", "", "lpfc_sli4_fp_split@lpfc", r"(?P<function>[A-Za-z_][\w.$]{2,300})@(?P<module>[a-z][\w.\-]{0,60})\s*$"),
    ("debugged", "bora/", "#1  0x0000418012343ffa in Heap_Free (heap=0x431a455dc000) at bora/vmkernel/main/heap.c:4314",
          r"#(?P<index>\d{1,3})\s+(?:(?P<ip>0x[0-9a-f]{1,16}) in )?(?P<function>[A-Za-z_][\w.$:~]{0,300}) ?\(.{0,2000} at (?:\S{0,200}/)?bora/vmkernel/"),
    ("gdb", "", "#4  Res6NewFreeClusterEntry (rce=...)", r"#(?P<index>\d{1,3})\s+(?:(?P<ip>0x[0-9a-f]{1,16}) in )?(?P<function>[A-Za-z_][\w.$:~]{0,300}) ?\("),
    ("elided", "", "...", r"[. …]{3,}$"),
))  # fmt: skip

OPENERS = frozenset(role.name for role in ROLES if role.anchors)
ANCHORS: tuple[bytes, ...] = tuple(dict.fromkeys(anchor for role in ROLES for anchor in role.anchors))

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
     r"corrupt\w{0,20} (?:in |of )?(?:dlmalloc|the heap|heap)|heap\b.{0,60}\bcorrupt|in dlmalloc"),
    ("not_implemented", "NOT_IMPLEMENTED bora/vmkernel/main/util.c:83", r"\bNOT[_ ]IMPLEMENTED\b"),
    ("not_reached", "Failed at vmkdrivers/src_9/a.c:12 -- NOT REACHED", r"\bNOT[_ ]REACHED\b"),
    ("assert", "ASSERT bora/vmkernel/main/pframe_int.h:527", r"\bASSERT\b|\bVERIFY\b|VMK_ASSERT"),
    ("panic", "PANIC bora/vmkernel/main/x.c:7", r"^PANIC\b|^BUG: |kernel BUG|^Failed at |^Recursive panic"),
))  # fmt: skip
EXCEPTIONS = {
    0: "divide_error", 2: "nmi", 6: "invalid_opcode", 8: "double_fault", 13: "general_protection", 14: "page_fault", 18: "machine_check",
}  # fmt: skip


_INVOLVED = re.compile(r"[\[,]\s*([A-Za-z_][\w\-]{1,63})(?: (\d[\w.\-]{1,80}))?")


def modules_named_by_kernel(text: str) -> dict[str, str | None]:
    """The modules that the kernel itself calls involved in a panic (8.0 and later), the vmkernel left out, and the version
    of each where it is printed."""
    pattern = next(role.pattern for role in ROLES if role.name == "named")
    found: dict[str, str | None] = {}
    for match in (pattern.search(line) for line in text.split("\n")):
        for name, version in _INVOLVED.findall("[" + match["modules"]) if match else ():
            if name != "vmkernel":
                found[name] = version or found.get(name)
    return found
