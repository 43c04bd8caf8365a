"""The vmkernel's lines outside of a crash that say something, and the bytes by which one search finds them and what opens a crash.

Whoever adds an anchor, here or to ``psod_lines.ROLES``, sees to it that it holds one of ``SEARCHED``.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class LineRow(NamedTuple):
    anchor: bytes
    what: str
    sample: str
    pattern: re.Pattern[str]


def _line_row(anchor: bytes, what: str, sample: str, pattern: str) -> LineRow:
    return LineRow(anchor, what, sample, re.compile(pattern))


# Lines that say which driver was loaded, and in which version where they print one. The anchor finds the line, the pattern
# reads it.
BANNERS: tuple[LineRow, ...] = (
    _line_row(b"HPSA Driver (v", "hpsa", "<6>HP HPSA Driver (v 5.5.0.58-1OEM)", r"HPE? HPSA Driver \(v (?P<version>[\w.\-]{1,64})\)"),
    _line_row(b"Initialization of ", "", "Mod: 4789: Initialization of vmknvme succeeded with module ID 44.",
              r"Mod: (?:LoadDone:)?\d+: Initialization of (?P<module>[\w\-]{1,64}) succeeded(?: with module ID (?P<id>\d{1,9}))?"),
    _line_row(b"loaded successfully", "", "cpu9:2097703)vmknvme loaded successfully.",
              r"^(?:[Mm]odule )?(?P<module>[\w\-]{1,64}) loaded successfully"),
    _line_row(b"river ", "", "<6>bnx2x: QLogic 5771x/578xx 10/20-Gigabit Ethernet Driver bnx2x 2.713.30.v60.8 (2016/02/11)",
              r"(?P<module>[a-z][\w\-]{1,40})(?: [\w:.]{1,20})?: .{0,80}?\b[Dd]river(?: -)?(?: (?P=module))? (?:version:?\s+v?|v?(?=\d{1,6}\.\d{1,6}\.\d))(?P<version>\d[\w.\-]{1,64})"),
)  # fmt: skip

# Who speaks in a line: its first word, behind its level. A word farther in is no module's.
SPEAKER = r"^(?:(?:WARNING|ALERT|INFO|ERROR): )?(?:<\w{1,10}> ?)?(?:[A-Z]{4,8} \()?(?:(?P<module>[A-Za-z][\w\-]{1,40})(?=[:)\[( ]).{0,200})?"

# Lines that may foretell a crash; `module` is the driver (or the heap) they name. What each weighs stands in
# triage/rules/warnings.txt.
PRECURSORS: tuple[LineRow, ...] = (
    _line_row(b"Heap", "heap_at_maximum",
              "WARNING: Heap: 3058: Heap hpsa already at its maximum size. Cannot expand.", r"Heap (?P<heap>[\w\-]{1,64}) \(?.{0,20}already at its maximum"),
    _line_row(b"Heap", "heap_refused",
              "WARNING: Heap: 4079: Heap qedentv-heap (52428800/52432896): Maximum allowed growth (4096) too small for size (20480)",
              r"Heap (?P<heap>[\w\-]{1,64})\b.{0,80}Maximum allowed growth .{0,40}too small"),
    _line_row(b"Heap_Align(", "heap_align_failed",
              "WARNING: Heap: 2900: Heap_Align(vmfs3, 6184/6184 bytes, 8 align) failed. caller: 0x418031efc4e9",
              r"Heap_Align\((?P<heap>[\w\-]{1,64}),.{0,80}failed"),
    _line_row(b"LinDMA:", "dma_constraint",
              "WARNING: LinDMA: Linux_DMACheckConstraints:149: Cannot map machine address = 0x80, length = 36864 for device 0000:03:00.0",
              r"LinDMA: .{0,60}Cannot map"),
    _line_row(b"f memory", "out_of_memory", "<4>hpsa 0000:03:00.0: out of memory", SPEAKER + r"[Oo]ut of memory"),
    _line_row(b"esetting", "device_reset", "<4>hpsa 0000:03:00.0: resetting device 1:0:0:0", SPEAKER + r"[Rr]esetting"),
    _line_row(b"FW went bad", "firmware_bad", "WARNING: qedf: FW went bad, stop waiting for queue flush", SPEAKER + r"FW went bad"),
    _line_row(b"FAULT state", "firmware_bad", "WARNING: lsi_mr3: mfiCheckFWState:512: Found FW in FAULT state, will reset adapter",
              SPEAKER + r"(?:FW|[Ff]irmware).{0,40}FAULT state"),
    _line_row(b"ISP System Error", "firmware_bad", "qlnativefc: vmhba2(4:0.0): ISP System Error - mbx1=1h mbx2=2h mbx3=3h", SPEAKER + r"ISP System Error"),
    _line_row(b"irmware", "firmware_bad", "WARNING: nfnic: fnic_handle_fw:77: firmware is not responding, last heartbeat 12 s ago",
              SPEAKER + r"[Ff]irmware\b.{0,40}\b(?:hung|hang|dead|died|crash\w*|panic\w*|assert\w*|fault\w*|not respond\w*|unresponsive|fatal)\b"),
    _line_row(b"alicious Driver ", "malicious_driver", "WARNING: i40en: i40en_HandleMddEvent:4075: Malicious Driver Detection event 0x02 on TX queue 3",
              SPEAKER + r"Malicious Driver"),
    _line_row(b"med out", "firmware_timeout", "WARNING: bnxtnet: hwrm_send_msg:219: [vmnic4] HWRM cmd 0x23 timed out, fw status 0x0",
              SPEAKER + r"\b(?:cmd|[Cc]ommand|[Mm]ailbox|MCC|HWRM|FW|[Ff]irmware|[Aa]dmin [Qq]ueue|AQ|ASQ)\b.{0,80}timed out"),
    _line_row(b"meout", "firmware_timeout", "WARNING: elxnet: elxnet_mccWait:88: [vmnic2] mailbox timeout, status 0x8001",
              SPEAKER + r"\b(?:cmd|[Cc]ommand|[Mm]ailbox|MCC|HWRM|FW|[Ff]irmware|[Aa]dmin [Qq]ueue|AQ|ASQ)\b.{0,80}[Tt]imeout"),
    _line_row(b"WATCHDOG", "transmit_timeout", "<3>NETDEV WATCHDOG: vmnic3: transmit timed out", r"NETDEV WATCHDOG: (?P<module>vmnic\d{1,4})"),
    _line_row(b"Unit Hang", "transmit_timeout", "<3>ixgbe 0000:04:00.0: vmnic4: Detected Tx Unit Hang", SPEAKER + r"Unit Hang"),
    _line_row(b"Ran out of", "ran_out", "qlnativefc: vmhba3(7:0.1): SCM: Ran out of IOCBs, partial data 0x10", SPEAKER + r"Ran out of"),
    _line_row(b"lockup detected", "controller_lockup", "<4>hpsa 0000:03:00.0: controller lockup detected: 0x00130000", SPEAKER + r"lockup detected"),
    _line_row(b"have a heartbeat", "missed_heartbeat",
              "WARNING: Heartbeat: 961: PCPU 40 didn't have a heartbeat for 5 seconds, timeout is 10, 1 IPIs sent; *may* be locked up.",
              r"PCPU \d{1,5} didn't have a heartbeat"),
    _line_row(b"bort_command", "command_abort", "<6>qla24xx_abort_command(0): handle to abort=122", r"(?P<module>[a-z][a-z0-9]{1,40}_(?:eh_)?abort_command)|abort_command"),
    _line_row(b"Fatal error from", "device_error", "ALERT: ApeiHEST: 327: Fatal error from 0000:cc:00.0(PCI Express Endpoint), VID:8086, DID:1572",
              r"Fatal error from (?P<module>[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7])"),
    _line_row(b"machine check", "machine_check", "IDT: 1895: Uncorrectable/unrecoverable machine check error", r"Uncorrectable/unrecoverable machine check"),
)  # fmt: skip

# What the file says of the host itself, and where a boot begins or is ended by hand.
FACTS: tuple[LineRow, ...] = (
    _line_row(b"build-", "uname", "VMkernel esx1.example.com 5.5.0 #1 SMP Release build-1331820 Sep 18 2013 23:08:31 x86_64",
              r"VMkernel (?P<host>\S{1,253}) (?P<version>\d+\.\d+\.\d+) #\d+ SMP Release build-(?P<build>\d+)"),
    _line_row(b"build-", "banner", "VMware ESXi 5.5.0 build-1331820", r"VMware ESX(?:i| Server)? (?P<version>\d+\.\d+(?:\.\d+)?) build-(?P<build>\d+)"),
    _line_row(b"build-", "banner", "VMware ESXi 5.5.0 [Releasebuild-1331820 x86_64]",
              r"VMware ESX(?:i| Server)?(?: (?P<version>\d+\.\d+(?:\.\d+)?))? \[Releasebuild-(?P<build>\d+)"),
    _line_row(b"TSC: ", "booted", "TSC: 438792 cpu0:1)BootConfig: 41: coresPerPkg = 0 (0)", r"TSC: \d{1,18} cpu0:\d+\)"),
    _line_row(b"g VMKernel", "booted", "2014-05-01T08:00:02.000Z cpu0:32768)Starting VMKernel initialization", r"Starting VMKernel"),
    _line_row(b"VMKAcpi", "power_button", "VMKAcpi: 250: Power button pressed; requesting graceful shutdown and poweroff", r"Power button pressed"),
)  # fmt: skip

ROWS = (*BANNERS, *PRECURSORS, *FACTS)

# Where one of these stands, a warning does; `)WARNING: ` is looked for by itself.
WARNINGS = (b")<NMLX_", b")ALERT: ", b")<3>", b")<4>")

# Of warnings only those are heard whose speaker is written small (or in brackets, behind the word once more). The kernel's own parts
# warn all day long: the search must not stop at them, so its words, all of four bytes, tell the two apart.
WARNED = (b"G: WARNING (", *(b"G: %c" % letter for letter in b"abcdefghijklmnopqrstuvwxyz"))

# Every anchor above and of ``psod_lines.ROLES`` holds one of these, and the search looks for nothing else. It takes up to 64 of four
# bytes or more (with one more, or a shorter one, it is fifteen times slower) and compares their first four bytes, in sixteen groups dealt
# in the order of the list: so they begin where four bytes are rare, and stand in an order that makes few of its groups stop in
# vain (benchmarks/README). The warnings come last.
SEARCHED = (
    b"VMKAcpi", b"COS ", b"ception", b"TSC: ", b"PANIC ", b"checksum BAD", b"OMMU ", b"eartbeat", b"Unit Hang", b"irmware", b"Message:", b"FAULT s",
    b"LinDMA:", b"BUG: failure", b"setting", b"locked up.", b"Ran out of", b"Code start", b"lockup detected", b"Oops", b"WATCHDOG",
    b"e Check", b"dules/", b"PSOD", b"kdrivers/", b"FW went", b"MK uptime", b"build-", b"Initialization of ", b"CrashMe", b"cktrace",
    b"loaded successfully", b"tails: Crash", b"@vmkernel", b"LINT1", b"incompatibility d", b"t_command", b"anic", b"nover", b":[0x",
    b"Screen:", b"atal ", b"@esx", b"NOT_", b"-acquire lock", b"Heap", b"#<None>", b"ASSERT", b"river ", b"pin count", b"med out",
    b"ISP System", b"RIFY ", b"ine check", b"ora/", b"el BUG at", b"meout", b"g VMKernel", b"m.vmw", b"f memory",
    *WARNINGS,
)  # fmt: skip
