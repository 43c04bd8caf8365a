"""How well signatures and culprits agree with the truth, beside what one would do without rules.

    python benchmarks/triage_quality.py --crashes 2000

Made-up crashes of known causes: a cause stops a host on several paths, under several callers, printed as ESXi 4, 5 or 7
does; a third of the texts are damaged; some causes never show on the stack. Beside each crash stand two weeks of the
host's log with warnings that mean nothing. Drivers with `acme` or `zyx` in their name are in none of our lists.
"""

from __future__ import annotations

import argparse
import io
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import NamedTuple

from psodlib import schema
from psodlib.evidence.psod import find_crashes
from psodlib.evidence.vmkernel import read_vmkernel
from psodlib.records import Crash, FileReading
from psodlib.triage.crashes import judge
from psodlib.triage.frames import attribute_frames
from psodlib.triage.precursors import hear_host
from psodlib.triage.similar import propose_merges

WHEN = datetime(2014, 6, 1, 4, 0, tzinfo=UTC)
DAMAGED, MAPPED, RICH = (
    0.35,
    0.7,
    0.6,
)  # share of damaged texts; of dumps with a module map; of hosts that print modules
SHIMS = {"vmklinux_9": "com.vmware.driverAPI", "sunrpc": "com.vmware.sunrpc"}
PF = "#PF Exception 14 in world {world} IP {ip} addr {address}"
GP = "#GP Exception 13 in world {world} @ {ip}"
HEARTBEAT = "PCPU {other}: no heartbeat (2/2 IPIs received)"
PANIC = "PanicvPanicInt Panic_vPanic Panic"
STALL = f"{PANIC} Heartbeat_DetectCPULockups Timer_BHHandler BH_Check"

# What lies outside of a fault: tails that change from crash to crash of one cause. `function@module`, else vmkernel.
TAILS = (
    "kthread@vmklinux_9 LinuxStartFunc@vmklinux_9 vmkWorldFunc CpuSched_StartWorld",
    "BH_Check CpuSchedIdleLoopInt CpuSchedDispatch CpuSchedWait CpuSched_StartWorld",
    "helpFunc CpuSched_StartWorld",
    "IRQ_DoInterrupt IDT_IntrHandler gate_entry CpuSchedIdleLoopInt CpuSchedDispatch",
    "BH_Check CpuSchedDispatch CpuSchedWait CpuSched_VcpuHalt VMMVMKCall_Call VMKVMM_ArchEnterVMKernel",
    "User_LinuxSyscallHandler gate_entry",
)
NAPI = "napi_poll@vmklinux_9 LinuxNapiPoll@vmklinux_9"
QUEUE = "LinuxScsiQueueCommand@vmklinux_9 SCSILinuxQueueCommand@vmklinux_9 SCSIIssueAsyncPathCommand"


@dataclass(frozen=True)
class Cause:
    """One thing that is wrong: the module to blame, and the ways in which it shows.

    ``paths`` are stacks, innermost first, without their tail; ``said`` are the warnings of the last day; ``named`` is
    what the kernel itself lists; ``saved`` is the backtrace of the PCPU that stalled.
    """

    name: str
    module: str | None
    messages: tuple[str, ...]
    paths: tuple[str, ...]
    world: str = "helper{n}"
    said: tuple[str, ...] = ()
    named: bool = False
    saved: tuple[str, ...] = ()
    more: str = ""


# fmt: off
CAUSES = (
    Cause("hpsa rescan", "hpsa", (PF, GP), ("hpsa_update_scsi_devices@hpsa hpsa_scan_start@hpsa hpsa_kickoff_rescan@hpsa",
          "hpsa_update_scsi_devices@hpsa hpsa_rescan_ctlr_worker@hpsa", "hpsa_update_scsi_devices@hpsa hpsa_scan_start@hpsa do_scsi_scan_host@vmklinux_9")),
    Cause("hpsa completion", "hpsa", (PF,), ("complete_scsi_command@hpsa do_hpsa_intr_msi@hpsa LinuxIRQHandler@vmklinux_9",
          "complete_scsi_command@hpsa do_hpsa_intr_intx@hpsa LinuxIRQHandler@vmklinux_9"), world="idle{n}"),
    Cause("hpsa leak", "hpsa", (PF, "PANIC bora/vmkernel/main/heap.c:0 - Out of memory"),
          ("Heap_Align Heap_AllocWithTimeout World_New", "DLM_malloc Heap_Alloc FSS_Open", "TimerAdd Heap_Alloc Timer_Add", "Heap_Alloc Net_AllocPkt",
           "MemSched_Admit MemSched_AddWorld", "PageTable_Alloc Vmm_Map"),
          said=("WARNING: Heap: 3058: Heap hpsa already at its maximum size. Cannot expand.", "<4>lpfc 0000:05:00.0: out of memory")),
    Cause("lpfc stall", "lpfc", (HEARTBEAT,), (STALL,), world="idle{n}",
          saved=("lpfc_sli_poll_fcp_ring@lpfc lpfc_sli_handle_fast_ring_event@lpfc", "lpfc_sli_poll_fcp_ring@lpfc lpfc_sli_intr_handler@lpfc LinuxIRQHandler@vmklinux_9")),
    Cause("acmefc stall, silent stack", "acmefc", (HEARTBEAT,), (STALL,), world="idle{n}",
          said=("<4>acmefc 0000:07:00.0: controller lockup detected: 0x00130000", "WARNING: Heartbeat: 961: PCPU 4 didn't have a heartbeat for 5 seconds, timeout is 10, 1 IPIs sent; *may* be locked up.")),
    Cause("qlnativefc lock", "qlnativefc", ("Spin count exceeded (qlnativefcLock) - possible deadlock",),
          (f"{PANIC} SP_WaitLockIRQ SP_WaitLock qlnativefcStartScsi@qlnativefc qlnativefcQueueCmd@qlnativefc vmk_ScsiIssue",
           f"{PANIC} SP_WaitLock qlnativefcStartScsi@qlnativefc qlnativefcDpc@qlnativefc")),
    Cause("acmefc lock", "acmefc", ("Spin count exceeded (acmeLock) - possible deadlock",),
          (f"{PANIC} SP_WaitLock AcmeTxSubmit@acmefc AcmeQueue@acmefc", f"{PANIC} SP_WaitLockIRQ SP_WaitLock AcmeTxSubmit@acmefc AcmeRetry@acmefc")),
    Cause("bnx2x transmit", "bnx2x", (PF,), ("bnx2x_start_xmit@bnx2x LinuxStartTxImmediate@vmklinux_9 UplinkDevTransmit NetSchedFIFOInput",
          "bnx2x_start_xmit@bnx2x LinuxStartTxImmediate@vmklinux_9 UplinkDevTransmit NetSchedInput IOChain_Resume PortOutput")),
    Cause("ixgbe copy", "ixgbe", (PF,), (f"memcpy ixgbe_clean_rx_irq@ixgbe ixgbe_poll@ixgbe {NAPI}",
          f"vmk_Memcpy memcpy ixgbe_clean_rx_irq@ixgbe ixgbe_clean_rxonly@ixgbe {NAPI}")),
    Cause("zyxnet copy", "zyxnet", (PF,), ("memcpy ZyxRxRing@zyxnet ZyxPoll@zyxnet NetPollCallback", "memcpy ZyxRxRing@zyxnet ZyxIntr@zyxnet")),
    Cause("usb double free", "usb", (GP, PF), ("DLM_free Heap_Free hid_free_buffers@usb hid_disconnect@usb usb_disconnect@usb",
          "Heap_Free vmklnx_kfree@vmklinux_9 hid_free_buffers@usb hid_disconnect@usb")),
    Cause("zyxnet double free", "zyxnet", (GP, PF), ("DLM_free Heap_Free ZyxRingFree@zyxnet ZyxClose@zyxnet UplinkClose",
          "Heap_Free vmk_HeapFree ZyxRingFree@zyxnet ZyxReset@zyxnet")),
    Cause("e1000 receive", "e1000", (PF,), (f"e1000_clean_rx_irq@e1000 e1000_clean@e1000 {NAPI}", f"e1000_clean_rx_irq@e1000 e1000_poll@e1000 {NAPI}")),
    Cause("nfs41 event", "nfs41client", ("PANIC bora/modules/vmkernel/nfs41/nfs41Session.c:918 - bad sequence",),
          (f"{PANIC} vmk_PanicWithModuleID NFS41_SMEventCreate@nfs41client SunRPC_MsgCntxtRun@sunrpc", f"{PANIC} vmk_PanicWithModuleID NFS41_SMEventPost@nfs41client")),
    Cause("vmfs cluster", "vmfs3", ("ASSERT bora/modules/vmkernel/vmfs/fs3ResMgr.c:1422",), (f"{PANIC} Res3_FreeCluster@vmfs3 FS3TruncateFile@vmfs3",
          f"{PANIC} Res3_FreeCluster@vmfs3 FS3_DeleteFile@vmfs3")),
    Cause("vmfs unmap", "vmfs3", (PF,), ("Res6AffMgrUnmap@vmfs3 FS6UnmapManager@vmfs3", "Res6AffMgrUnmap@vmfs3 FS6UnmapWorld@vmfs3")),
    Cause("nvme, named", "nvme_pcie", (PF,), ("NVMEPCIEIoctl@nvme_pcie vmk_MgmtCall", "NVMEPCIEIoctl@nvme_pcie NvmeDrv@nvme_pcie"), named=True),
    Cause("timer of the kernel", None, (PF,), ("TimerWheelRun Timer_BHHandler BH_Check", "TimerWheelRun Timer_Interrupt")),
    Cause("memory bank 5", None, ("Machine Check Exception on PCPU{pcpu} in world {world}",), ("MCEHandler IDT_HandleException gate_entry {any}",),
          world="idle{n}", more="MCA: 208: UC Excp G4 B5 Sbb00002000000e0b AB M180008 P8/8 Memory Controller Error"),
    Cause("bus behind 03.0", None, ("Machine Check Exception on PCPU{pcpu} in world {world}",), ("MCEHandler IDT_HandleException gate_entry {any}",),
          world="vmm0:XENAPP{n}", more="MCA: 208: UC Excp G4 B6 Sbb00002000000e0b AB M180008 P8/8 I/O error reported by PCI 0000:00:03.0."),
    Cause("board's NMI", None, ("LINT1/NMI (motherboard nonmaskable interrupt), undiagnosed.",), ("IDT_HandleNMI gate_entry {any}",), world="idle{n}"),
    Cause("a person", None, ("CrashMe",), (f"{PANIC} VSI_SetInfo UserVsi_Set",), world="vsish"),
)
# Whoever runs when the machine breaks.
ANY = ("hpsa_scsi_queue_command@hpsa", "ixgbe_poll@ixgbe", "CpuSchedIdleLoopInt", "bnx2x_poll@bnx2x", "lpfc_sli_intr_handler@lpfc")
# Said on quiet days and on the last one alike, by hosts that grumble.
GRUMBLES = ("<6>lpfc_abort_command(0): handle to abort=122", "<4>ixgbe 0000:04:00.0: resetting", "WARNING: LinDMA: Linux_DMACheckConstraints:149: Cannot map machine address = 0x80, length = 36864 for device 0000:03:00.0")
MODULES = ("vmklinux_9", "usb", "hpsa", "lpfc", "qlnativefc", "acmefc", "zyxnet", "vmfs3", "sunrpc", "nfs41client", "e1000", "ixgbe", "bnx2x", "nvme_pcie", "tcpip3", "etherswitch")
# fmt: on


class Made(NamedTuple):
    """A made-up crash: its text, the log before it, its cause."""

    block: str
    log: str
    cause: Cause


class Judged(NamedTuple):
    """A crash as read and as judged, with its cause."""

    raw: Crash
    crash: Crash
    cause: Cause


# ---- making ----------------------------------------------------------------------------------------------------------


def make(rng: Random) -> Made:
    """One crash of a cause drawn at random."""
    cause = rng.choice(CAUSES)
    lines = _block(cause, rng)
    if rng.random() < DAMAGED:
        lines = rng.choice(DAMAGES)(lines, rng)
    return Made("\n".join(lines) + "\n", _log(cause, rng), cause)


def _block(cause: Cause, rng: Random) -> list[str]:
    start = 0x418000000000 + 0x200000 * rng.randrange(1, 400)
    rich = rng.random() < RICH
    path = rng.choice(cause.paths).replace("{any}", rng.choice(ANY))
    frames = _frames(f"{path} {rng.choice(TAILS)}", start, rich, rng)
    number, pcpu = rng.randrange(32768, 9_700_000), rng.randrange(24)
    world = f"{number}:{cause.world.format(n=rng.randrange(30))}"
    ip = frames[0].split("[")[1].split("]")[0]
    words = {"world": world, "ip": ip, "address": rng.choice(("0x0", "0x8", "0x4108fff0")), "pcpu": pcpu, "other": 7}
    lines = ["VMware ESXi 6.0.0 [Releasebuild-2494585 x86_64]" if rich else "VMware ESXi 5.5.0 [Releasebuild-1331820 x86_64]",
             f"@BlueScreen: {rng.choice(cause.messages).format(**words)}",
             f"Code start: 0x{start:x} VMK uptime: 12:{rng.randrange(24):02d}:10:11.123"]  # fmt: skip
    if cause.more:
        lines.append(cause.more)
    if cause.named:
        lines.append(f"Module(s) involved in panic: [vmkernel 6.0], [{cause.module} 1.2.4.11-1vmw (VMW)]")
    if cause.saved:
        saved = _frames(f"{rng.choice(cause.saved)} {rng.choice(TAILS)}", start, rich, rng)
        lines += ["Saved backtrace from: pcpu 7 Heartbeat NMI", *(f"pcpu 7 Heartbeat NMI: {line}" for line in saved)]
    lines += frames
    if rng.random() < MAPPED:
        lines.append("vmkernel 0x0 .data 0x0 .bss 0x0")
        lines += [
            f"{name} 0x{_base(name, start):x} .data 0x417fc{i:03x}0000 .bss 0x417fc{i:03x}8000"
            for i, name in enumerate(MODULES)
        ]
    return [f"2014-06-01T04:00:00.{100 + i:03d}Z cpu{pcpu}:{number}){line}" for i, line in enumerate(lines)]


def _base(module: str, start: int) -> int:
    return start + (0x700000 + 0x40000 * MODULES.index(module) if module in MODULES else 0)


def _frames(functions: str, start: int, rich: bool, rng: Random) -> list[str]:
    lines, pointer = [], 0x412400000000 + rng.randrange(0x10, 0xFFFF) * 0x10000
    for entry in functions.split():
        function, _, module = entry.partition("@")
        offset = rng.randrange(0x10, 0x900)  # the place in the function differs from build to build
        address = _base(module, start) + zlib.crc32(function.encode()) % (0x30000 if module else 0x500000) + offset
        if not module:
            owner = "vmkernel#nover"
        elif module in SHIMS:
            owner = f"{SHIMS[module]}#9.2"
        else:
            owner = f"({module})#<None>" if rich else rng.choice(("<None>#<None>", "<None>#<None>", "#"))
        lines.append(f"0x{pointer:x}:[0x{address:x}]{function}@{owner}+0x{offset:x} stack: 0x{rng.randrange(2**40):x}")
        pointer += rng.choice((0x10, 0x20, 0x70, 0x80, 0xA0))
    return lines


def _log(cause: Cause, rng: Random) -> str:
    # Two weeks of the host: a quiet line an hour, its grumbles if it has any, and the last day's warnings.
    grumble = rng.choice(GRUMBLES) if rng.random() < 0.5 else None
    lines = []
    for hour in range(14 * 24, 0, -1):
        time = WHEN - timedelta(hours=hour, seconds=rng.randrange(3000))
        lines.append((time, "NMP: nmp_ThrottleLogForDevice:2321: nothing to see"))
        if grumble and rng.random() < 0.3:
            lines.append((time, grumble))
        if cause.said and hour <= 20 and rng.random() < 0.5:
            lines.append((time, rng.choice(cause.said)))
    return "".join(f"{time:%Y-%m-%dT%H:%M:%S.000Z} cpu3:33000){text}\n" for time, text in sorted(lines))


def _cut_short(lines: list[str], rng: Random) -> list[str]:
    return lines[: rng.randrange(4, len(lines))]


def _headless(lines: list[str], rng: Random) -> list[str]:
    return [line for line in lines if "BlueScreen" not in line and "Releasebuild" not in line]


def _lossy(lines: list[str], rng: Random) -> list[str]:
    return [line for i, line in enumerate(lines) if i < 3 or rng.random() > 0.12]


def _web_page(lines: list[str], rng: Random) -> list[str]:
    # A page eats what looks like a tag, and the prefix is cut off by hand.
    return [re.sub(r"<[^>]*>", "", line.partition(")")[2]) for line in lines]


def _masked(lines: list[str], rng: Random) -> list[str]:
    return [re.sub(r"\[0x[0-9a-f]+\]", "[0xXXXXXXXX]", line) for line in lines]


def _typed(lines: list[str], rng: Random) -> list[str]:
    # Some lines broken in the middle, as from a terminal's window.
    return [line if rng.random() > 0.15 else line[: rng.randrange(40, 90)] for line in lines]


def _through_syslog(lines: list[str], rng: Random) -> list[str]:
    return [f"Jun  1 04:00:00 esx{rng.randrange(99):03d} vmkernel: {line.partition('Z ')[2]}" for line in lines]


DAMAGES: tuple[Callable[[list[str], Random], list[str]], ...] = (
    _cut_short, _headless, _lossy, _web_page, _masked, _typed, _through_syslog,
)  # fmt: skip


# ---- judging ---------------------------------------------------------------------------------------------------------


def read(made: Made) -> Judged | None:
    """A made-up crash through psodlib; None when no crash is seen in it."""
    found = find_crashes(made.block)
    if not found:
        return None
    log = read_vmkernel(io.BytesIO(made.log.encode()), "vmkernel.log")
    told = FileReading(source="", kind="", precursors=log.precursors, alive=log.alive, crashes=tuple(found))
    return Judged(found[0], judge(found[0], hear_host([told])), made.cause)


class Answer(NamedTuple):
    """What a way of judging says of a crash."""

    group: str
    culprit: str | None


def ours(item: Judged) -> Answer:
    return Answer(item.crash.signature or "", item.crash.guilty_module)


def with_suspect(item: Judged) -> Answer:
    """Two leaks that meet in one kernel function have one signature and two suspects."""
    return Answer(f"{item.crash.signature} {item.crash.guilty_module}", item.crash.guilty_module)


def top_frame(item: Judged) -> Answer:
    frame = next(iter(_own(item)), None)
    return Answer(str(frame and frame.function), frame.module if frame and frame.module != "vmkernel" else None)


def first_not_vmkernel(item: Judged) -> Answer:
    frame = next((frame for frame in _own(item) if frame.module not in (None, "vmkernel")), None)
    return Answer(f"{frame.module}!{frame.function}" if frame else "", frame.module if frame else None)


def module_only(item: Judged) -> Answer:
    module = first_not_vmkernel(item).culprit
    return Answer(str(module), module)


def guilty_module_only(item: Judged) -> Answer:
    return Answer(f"{item.crash.guilty_module} {item.crash.guilt == 'hardware'}", item.crash.guilty_module)


def _own(item: Judged) -> list[object]:
    # The baselines are given the module map, or they would know no driver of ESXi 5.
    return [frame for frame in attribute_frames(item.raw).frames if frame.backtrace == 0]  # type: ignore[misc]


WAYS: dict[str, Callable[[Judged], Answer]] = {
    "psodlib": ours,
    "psodlib, by signature and suspect": with_suspect,
    "top frame": top_frame,
    "first module that is not vmkernel, with its function": first_not_vmkernel,
    "module only (the first that is not vmkernel)": module_only,
    "module only (psodlib's guilty one)": guilty_module_only,
}


def b_cubed(groups: Sequence[str], causes: Sequence[str]) -> tuple[float, float, float]:
    """Precision, recall and F of a grouping (Bagga and Baldwin 1998): averages over crashes, not over pairs."""
    both, by_group, by_cause = Counter(zip(groups, causes, strict=True)), Counter(groups), Counter(causes)
    share = [(both[g, c] / by_group[g], both[g, c] / by_cause[c]) for g, c in zip(groups, causes, strict=True)]
    precision, recall = (sum(part) / len(share) for part in zip(*share, strict=True))
    return precision, recall, 2 * precision * recall / (precision + recall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crashes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--misses", action="store_true", help="list what was judged wrongly")
    options = parser.parse_args()
    rng = Random(options.seed)
    read_back = [read(make(rng)) for _ in range(options.crashes)]
    items = [item for item in read_back if item]
    _print_ways(items, len(read_back))
    _print_evidence(items)
    _print_merges(items)
    if options.misses:
        _print_misses(items)


def _print_ways(items: Sequence[Judged], made: int) -> None:
    print(f"{made:,} crashes of {len(CAUSES)} causes, {len(items):,} seen\n")
    print(
        "| way | groups | B³ precision | B³ recall | B³ F | culprit right | wrong | none where there is one |\n"
        + "| --- " * 8
        + "|"
    )
    for name, way in WAYS.items():
        answers = [way(item) for item in items]
        precision, recall, f = b_cubed([a.group for a in answers], [item.cause.name for item in items])
        right = sum(a.culprit == item.cause.module for a, item in zip(answers, items, strict=True))
        none = sum(a.culprit is None and item.cause.module is not None for a, item in zip(answers, items, strict=True))
        shares = [n / len(items) for n in (right, len(items) - right - none, none)]
        print(
            f"| {name} | {len({a.group for a in answers})} | {precision:.3f} | {recall:.3f} | {f:.3f} | "
            + " | ".join(f"{s:.1%}" for s in shares)
            + " |"
        )


def _print_evidence(items: Sequence[Judged]) -> None:
    print("\n| evidence | crashes | right | wrong | nobody named, though there is one |\n" + "| --- " * 5 + "|")
    by_kind = defaultdict(list)
    for item in items:
        by_kind[item.crash.guilt].append(item)
    for kind, found in sorted(by_kind.items(), key=lambda pair: -len(pair[1])):
        right = sum(item.crash.guilty_module == item.cause.module for item in found)
        none = sum(item.crash.guilty_module is None and item.cause.module is not None for item in found)
        print(
            f"| {kind} | {len(found)} | {right / len(found):.1%} | {(len(found) - right - none) / len(found):.1%} | {none / len(found):.1%} |"
        )


def _print_merges(items: Sequence[Judged]) -> None:
    # A proposal is right when the commonest cause of both signatures is the same.
    crashes = [replace(item.crash, crash_id=f"{i:06d}") for i, item in enumerate(items)]
    frames = [{**_row(frame), "crash_id": crash.crash_id} for crash in crashes for frame in crash.frames]
    tables = SimpleNamespace(crashes=schema.build("crashes", map(_row, crashes)), frames=schema.build("frames", frames))
    causes = defaultdict(Counter)
    for item in items:
        causes[item.crash.signature][item.cause.name] += 1
    cause = {signature: found.most_common(1)[0][0] for signature, found in causes.items()}
    print("\n| likeness from | merges proposed | right |\n" + "| --- " * 3 + "|")
    merges = propose_merges(tables, 0.3)
    for least in (0.4, 0.5, 0.6, 0.7, 0.8):
        pairs = merges[merges["likeness"] >= least]
        right = sum(cause[one] == cause[other] for one, other in zip(pairs["signature"], pairs["other"], strict=True))
        print(f"| {least} | {len(pairs)} | {right} |")


def _row(record: object) -> dict[str, object]:
    return {f.name: getattr(record, f.name) for f in fields(record)}  # type: ignore[arg-type]


def _print_misses(items: Sequence[Judged]) -> None:
    print("\nsignatures by cause")
    for cause in CAUSES:
        found = Counter(item.crash.signature for item in items if item.cause is cause)
        print(f"  {cause.name}: {found.most_common(9)}")
    print("\nwrong culprits")
    wrong = Counter(
        (i.cause.name, i.crash.guilty_module, i.crash.guilt, i.crash.damage)
        for i in items
        if i.crash.guilty_module != i.cause.module
    )
    for key, count in wrong.most_common(60):
        print(f"  {count:4} {key}")


if __name__ == "__main__":
    main()
