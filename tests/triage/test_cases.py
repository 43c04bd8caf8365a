"""Who did it, on whole texts: the log's last lines and the screen, as a host leaves them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

import psodlib as psod
from psodlib.triage.crashes import explain, parse_crashes

NOON = datetime(2019, 3, 4, 12, 0, tzinfo=UTC)
SIX, SEVEN = ("6.5.0", 0x418000000000), ("7.0.3", 0x420000000000)
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
NEVER_ILL = timedelta(days=12)


def line(before: timedelta, text: str) -> str:
    return f"{NOON - before:%Y-%m-%dT%H:%M:%S}.000Z cpu3:66000){text}"


def frame(name: str, number: int, start: int, head: str = "") -> str:
    # `function@module`, the kernel's without; `function@` prints no module.
    function, at, module = name.partition("@")
    owner = f"({module})#<None>" if module else "<None>#<None>" if at else "vmkernel#nover"
    return f"{head}0x451a{number:06x}10:[0x{start + 0x2000 + 16 * number:x}]{function}@{owner}+0x{16 + number:x} stack: 0x0"


def screen(message: str, stack: str, release=SIX, saved=None, uptime: timedelta = NEVER_ILL, more: str = "") -> str:
    version, start = release
    days, seconds = uptime.days, uptime.seconds
    clock = f"{days}:{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.000"
    lines = [f"VMware ESXi {version} [Releasebuild-8935087 x86_64]", f"@BlueScreen: {message}"]
    lines += [f"Code start: 0x{start:x} VMK uptime: {clock}", *filter(None, [more])]
    for pcpu, names in (saved or {}).items():
        lines.append(f"Saved backtrace from: pcpu {pcpu} Heartbeat NMI")
        head = f"pcpu {pcpu} Heartbeat NMI: "
        lines += [frame(name, 100 * pcpu + i, start, head) for i, name in enumerate(names.split())]
    lines += [frame(name, i, start) for i, name in enumerate(stack.split())]
    return "\n".join(line(timedelta(0), text) for text in lines)


def log(*entries: tuple[timedelta, str]) -> str:
    # Two quiet weeks, a line every other hour, and what the case has to say.
    usual = "ScsiDeviceIO: 2338: Cmd(0x4124) 0x1a, CmdSN 0x5 from world 0 failed H:0x0 D:0x2 P:0x0"
    quiet = [(i * 2 * HOUR, usual) for i in range(1, 168)]
    return "\n".join(line(before, text) for before, text in sorted([*quiet, *entries], reverse=True)) + "\n"


def burst(text: str, minutes: int = 6, since: timedelta = timedelta(0)) -> list[tuple[timedelta, str]]:
    return [(since + (i + 1) * MINUTE, text) for i in range(minutes)]


def found(text: str) -> tuple[str | None, str]:
    (crash,) = parse_crashes(text)
    return crash.guilty_module, crash.guilt


PF = "#PF Exception 14 in world 2097:{} IP 0x418000002000 addr 0x8"
KERNEL = "Heap_Alloc SomeKernelThing CpuSched_StartWorld"
IDLE = "CpuSchedIdleLoopInt CpuSchedDispatch"
STALL = "PanicvPanicInt Panic Heartbeat_DetectCPULockups Timer_BHHandler"
WAITER = "PanicvPanicInt Panic SP_WaitLock NetSchedInput PortOutput elxnet_Tx@elxnet"
NMI = "NMI IPI: Panic requested by another PCPU. RIPOFF(base):RBP:CS [0x76a42(0x418000000000):0x412520:0x4010](Src 0x1, CPU7)"
SICK_NIC = "WARNING: bnxtnet: hwrm_send_msg:219: [vmnic4] HWRM cmd 0x23 timed out, fw status 0x0"
TCP = "tcp_output@tcpip4 ip_output@tcpip4 bnxtnet_tx@bnxtnet UplinkDevTransmit"
FULL = "WARNING: Heap: 3058: Heap {} already at its maximum size. Cannot expand."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The PCPU that the message names.
        (screen(NMI, f"NMI_Interrupt {IDLE}", saved={3: "Timer_GetCycles lpfc_poll@lpfc"}), ("lpfc", "on_stack")),
        (screen(NMI, "NMI_Interrupt gate_entry lpfc_poll@lpfc"), ("lpfc", "on_stack")),
        (screen(NMI, f"NMI_Interrupt {IDLE}"), (None, "none")),
        (screen("Spin count exceeded (iplLock) - possible deadlock with PCPU 15", WAITER, saved={15: "qfle3_poll@qfle3 x", 3: "igbn_x@igbn"}), ("qfle3", "on_stack")),
        (screen("Spin count exceeded (iplLock) - possible deadlock with PCPU 15", WAITER, saved={3: "igbn_x@igbn"}), (None, "none")),
        (screen("Spin count exceeded (iplLock) - possible deadlock", "Panic SP_WaitLock vmk_SpinlockLock lpfc_isr@lpfc"), ("lpfc", "on_stack")),
        (screen("Spin count exceeded (qlnativefcLock) - possible deadlock with PCPU 2", WAITER), ("qlnativefc", "named_by_kernel")),
        (screen("Spin count exceeded (qlnativefcLock) - possible deadlock with PCPU 2", WAITER, saved={2: "igb_poll@vmklinux_9"}), ("igbn", "symbol_prefix")),
        (screen("PCPU 9: no heartbeat (2/2 IPIs received)", STALL, saved={4: "igbn_x@igbn", 9: "lpfc_poll@lpfc x"}), ("lpfc", "on_stack")),
        # Stack and log together.
        (log(*burst(SICK_NIC)) + screen(PF.format("a"), TCP), ("bnxtnet", "on_stack")),
        (screen(PF.format("a"), TCP), ("tcpip4", "on_stack")),
        (log() + screen(PF.format("a"), f"panic@tcpip4 {TCP}"), ("tcpip4", "on_stack")),
        (log(*burst("lsi_mr3: mfiCheckFWState:512: Found FW in FAULT state, will reset adapter", 1)) + screen(PF.format("a"), "FS3_Read@vmfs3 lsi_mr3_IoDone@lsi_mr3"), ("lsi_mr3", "on_stack")),
        (log(*burst(SICK_NIC, since=3 * DAY)) + screen(PF.format("a"), TCP), ("tcpip4", "on_stack")),
        # As ill as on any day.
        (log(*burst(SICK_NIC, 2), *[e for d in range(1, 13) for e in burst(SICK_NIC, since=d * DAY)]) + screen(PF.format("a"), TCP), ("tcpip4", "on_stack")),
        # Words before the crash.
        (log(*burst(SICK_NIC)) + screen(PF.format("a"), KERNEL), ("bnxtnet", "precursor_log")),
        (log(*burst("WARNING: nenic: enic_dev_wait:77: something nobody has listed")) + screen(PF.format("a"), KERNEL), ("nenic", "precursor_log")),
        (log(*burst("nenic: enic_dev_wait:77: something nobody has listed")) + screen(PF.format("a"), KERNEL), ("nenic", "precursor_log")),
        (log(*burst("WARNING: NMP: lpfc_host_reset_handler said so to bora", 6)) + screen(PF.format("a"), KERNEL), (None, "none")),
        (log(*[(i * 3 * HOUR, FULL.format("qedentv-heap")) for i in range(1, 24)]) + screen(PF.format("a"), KERNEL), ("qedentv", "precursor_log")),
        (log((HOUR, "WARNING: Heap: 4079: Heap vmklnx_ixgbe (5/6): Maximum allowed growth (4096) too small for size (20480)")) + screen(PF.format("a"), KERNEL), ("ixgbe", "precursor_log")),
        # An earlier boot's, and a fresh boot's.
        (log(*[(20 * HOUR + i * HOUR, FULL.format("qedentv")) for i in range(1, 24)]) + screen(PF.format("a"), KERNEL, uptime=5 * HOUR), (None, "none")),
        (log(*burst(SICK_NIC, 3, since=50 * MINUTE)) + screen(PF.format("a"), KERNEL, uptime=40 * MINUTE), (None, "none")),
        (screen(PF.format("a"), KERNEL, uptime=40 * MINUTE), (None, "none")),
        ("\n".join(line(b, "WARNING: nenic: enic_poll:1: budget") for b in (34 * MINUTE, 27 * MINUTE, 8 * MINUTE, 3 * MINUTE)) + "\n" + screen(PF.format("a"), KERNEL, uptime=40 * MINUTE), (None, "none")),
        # Devices.
        (screen("IOMMU Fault detected for 0000:3b:00.0 (vmnic4/hxge) IOaddr: 0xa1fc6a000 Mask: 0x6 Domain: 0x430a", f"IRQ_DoInterrupt {IDLE} lpfc_x@lpfc"), ("hxge", "named_by_kernel")),
        (screen("IOMMU Fault detected for 0000:3b:00.0 IOaddr: 0xa1fc6a000", "lpfc_x@lpfc"), (None, "none")),
        (log((3 * DAY, "<6>lpfc 0000:3b:00.0: link up")) + screen("IOMMU Fault detected for 0000:3b:00.0 IOaddr: 0xa1fc6a000", "x"), ("lpfc", "named_by_kernel")),
        (screen("PANIC at vmgpX/nvidia", KERNEL), (None, "none")),
        # Which modules it can be.
        (screen(PF.format("a"), "i40e_clean@ x@", release=("6.0.0", SIX[1])), ("i40e", "symbol_prefix")),
        (screen(PF.format("a"), "i40e_clean@ x@"), ("i40en", "symbol_prefix")),
        (screen(PF.format("a"), "i40e_clean@ x@", release=SEVEN), ("i40en", "symbol_prefix")),
        (screen(PF.format("a"), "fnic_isr@", release=SEVEN), ("nfnic", "symbol_prefix")),
        (screen(PF.format("a"), "qla24xx_isr@", release=SEVEN), ("qlnativefc", "symbol_prefix")),
        (screen(PF.format("a"), "megasas_isr@", release=SEVEN), ("lsi_mr3", "symbol_prefix")),
        (screen(PF.format("a"), "xhci_isr@", release=SEVEN), ("vmkusb", "symbol_prefix")),
        # Worlds and paths.
        (screen(PF.format("hxge-rx-0"), KERNEL, more="hxge 0x418000300000 .data 0x417fc0000000 .bss 0x417fc0001000"), ("hxge", "world_name")),
        (screen(PF.format("usbus1"), KERNEL), ("vmkusb", "world_name")),
        (screen("PANIC bora/modules/vmkernel/lsom/lsomThing.c:77 - bad state", KERNEL), ("lsom", "named_by_kernel")),
        (screen("PANIC bora/vmkernel/migrate/migrateThing.c:77 - bad state", KERNEL), (None, "none")),
        # The platform.
        (log(*burst(SICK_NIC)) + screen("LINT1/NMI (motherboard nonmaskable interrupt), undiagnosed.", TCP), (None, "hardware")),
        (screen("Machine Check Exception on PCPU1 in world 9:idle1", "MCEHandler lpfc_x@lpfc"), (None, "hardware")),
        (screen("CrashMe", "VSI_SetInfo"), (None, "deliberate")),
    ],
)  # fmt: skip
def test_who_did_it(text, expected):
    assert found(text) == expected


PCI_LIST = """\
0000:3b:00.0
   Address: 0000:3b:00.0
   VMkernel Name: vmhba2
   Device Name: ISP2722
   Module Name: qlnativefc
"""
NICS = """\
Name    PCI          Driver      Link Speed      Duplex MAC Address       MTU    Description
vmnic4  0000:3c:00.0 i40en       Up   10000Mbps  Full   00:00:00:00:00:00 1500   Intel X710
"""


@pytest.mark.parametrize(
    ("message", "before", "guilty", "guilt", "signature", "suspect"),
    [
        ("IOMMU Fault detected for 0000:3b:00.0 IOaddr: 0xa1fc6a000", "", "qlnativefc", "named_by_kernel", "iommu_fault: qlnativefc", "qlnativefc"),
        ("IOMMU Fault detected for 0000:3c:00.0 IOaddr: 0xa1fc6a000", "", "i40en", "named_by_kernel", "iommu_fault: i40en", "i40en"),
        ("IOMMU Fault detected for 0000:99:00.0 IOaddr: 0xa1fc6a000", "", None, "none", "iommu_fault: PCI device", None),
        ("LINT1/NMI (motherboard nonmaskable interrupt), undiagnosed.", "ALERT: ApeiHEST: 327: Fatal error from 0000:3c:00.0(PCI Express Endpoint)", None, "hardware", "nmi: i40en", "i40en"),
    ],
)  # fmt: skip
def test_an_address_is_joined_with_the_hosts_lists(tmp_path, message, before, guilty, guilt, signature, suspect):
    folder = tmp_path / "esx1"
    (folder / "commands").mkdir(parents=True)
    (folder / "commands" / "localcli_hardware-pci-list.txt").write_text(PCI_LIST)
    (folder / "commands" / "esxcfg-nics_-l.txt").write_text(NICS)
    said = [(timedelta(seconds=1), before)] if before else []
    (folder / "vmkernel.log").write_text(log(*said) + screen(message, "x lpfc_x@lpfc"))
    fleet = psod.load(tmp_path, jobs=1)
    (crash,) = fleet.crashes.itertuples()
    wanted = (guilty, guilt, signature)
    assert (None if pd.isna(crash.guilty_module) else crash.guilty_module, crash.guilt, crash.signature) == wanted
    reasons = fleet.reasons[fleet.reasons["about"] == "suspect"]
    assert suspect is None or suspect in set(reasons["module"])


def test_explain_says_why_one_outweighs_the_other():
    (crash,) = parse_crashes(log(*burst(SICK_NIC)) + screen(PF.format("a"), TCP))
    text = explain(crash)
    assert "it outweighs tcpip4, nearer to the fault, because it was ill just before" in text
    (crash,) = parse_crashes(screen(PF.format("a"), TCP))
    assert "it outweighs bnxtnet: it is nearer to the fault" in explain(crash)


@pytest.mark.parametrize(
    ("text", "signature"),
    [
        (screen("PCPU 9: no heartbeat (2/2 IPIs received)", STALL, saved={9: "Timer_GetCycles Util_Udelay lpfc_poll@lpfc x"}), "lpfc_poll"),
        (screen("PCPU 9: no heartbeat (2/2 IPIs received)", STALL, saved={9: "SP_WaitReadLock lpfc_poll@lpfc x"}), "lpfc_poll"),
        (screen(NMI, f"NMI_Interrupt {IDLE}", saved={3: "Timer_GetCycles lpfc_poll@lpfc"}), "lpfc_poll"),
        (screen("Spin count exceeded (iplLock) - possible deadlock", "Panic SP_WaitLock NetSchedInput"), "SP_WaitLock | NetSchedInput"),
        (screen(PF.format("a"), "vmk_TimerCancel lpfc_abort@lpfc"), "vmk_TimerCancel | lpfc_abort"),
        (screen(PF.format("a"), "kfree_skb bnx2x_free@bnx2x"), "kfree_skb | bnx2x_free"),
        (screen("IOMMU Fault detected for 0000:3b:00.0 (vmnic4/hxge) IOaddr: 0xa1fc6a000", "x"), "iommu_fault: hxge"),
        (screen("IOMMU Fault detected for 0000:3b:00.0 (vmnic4/xxxx) IOaddr: 0xa1fc6a000", "x"), "iommu_fault: vmnic"),
    ],
)  # fmt: skip
def test_where_a_pcpu_was_caught_and_who_helped_it_is_no_site(text, signature):
    assert [crash.signature for crash in parse_crashes(text)] == [signature]
