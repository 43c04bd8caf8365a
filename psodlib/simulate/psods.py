"""A made-up crash -> the text of its dump log, in the words of ESXi 5.5.

The stacks are tables: what stopped, in which world, through which functions. Addresses follow one made-up but
consistent layout of modules, so that a module map can name what the frames print as ``<None>``.
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

__all__ = ["STACKS", "Layout", "Stack", "dump_text", "layout", "stamp"]

# Module -> (distance from the code start, how its frames are printed); third-party modules print `<None>#<None>`.
MODULES: dict[str, tuple[int, str]] = {
    "vmkernel": (0x0, "vmkernel#nover"),
    "vmklinux_9": (0x6D2000, "com.vmware.driverAPI#9.2"),
    "usb": (0x78B000, "<None>#<None>"),
    "hpsa": (0x97A000, "<None>#<None>"),
    "lpfc": (0x9A6000, "<None>#<None>"),
    "vmfs3": (0xA41000, "<None>#<None>"),
    "e1000": (0xB02000, "<None>#<None>"),
    "bnx2x": (0xB3C000, "<None>#<None>"),
    "tcpip3": (0xC11000, "<None>#<None>"),
}
# A function's owner by its first letters; what no row names is the vmkernel's own.
OWNERS = {
    "hpsa_": "hpsa", "do_hpsa_": "hpsa", "complete_scsi_command": "hpsa", "kthread": "vmklinux_9",
    "Linux": "vmklinux_9", "SCSILinux": "vmklinux_9", "e1000_": "e1000", "bnx2x_": "bnx2x", "lpfc_": "lpfc",
    "usb_": "usb", "hid_": "usb", "FS3": "vmfs3", "Res3": "vmfs3",
}  # fmt: skip


@dataclass(frozen=True)
class Stack:
    """One way to crash: panic message, world and functions, innermost first.

    ``message`` may use ``{world}``, ``{ip}``, ``{address}``, ``{ptes}``, ``{pcpu}`` and ``{other}``. ``saved`` is the
    backtrace of another PCPU, where the guilty one is not the one that panics.
    """

    kind: str
    module: str | None
    message: str
    world: str
    frames: str
    saved: str = ""
    weight: int = 1


PF = "#PF Exception 14 in world {world} IP {ip} addr {address} PTEs:{ptes}"
GP = "#GP Exception 13 in world {world} @ {ip}"
THREAD = "kthread+0x185 LinuxStartFunc+0x97 vmkWorldFunc+0x83 CpuSched_StartWorld+0xfa"
DISPATCH = "BH_Check+0x98 CpuSchedDispatch+0x11ee CpuSchedWait+0x242 CpuSched_VcpuHalt+0x14b VMMVMKCall_Call+0x1af"
HELPER = "helpFunc+0x6b6 CpuSched_StartWorld+0xfa"
IDLE = "CpuSchedIdleLoopInt+0x3a1 CpuSchedDispatch+0x14cd CpuSchedWait+0x242 CpuSched_StartWorld+0xfa"
IRQ = "LinuxIRQHandler+0x74 IRQ_DoInterrupt+0x1c8 IDT_IntrHandler+0x1b1 gate_entry+0x64"

STACKS: tuple[Stack, ...] = (
    # The path of the incident of 31 May 2014, and others that the same driver has.
    Stack("page_fault", "hpsa", PF, "vmklinux_9:h",
          f"hpsa_update_scsi_devices+0x39c hpsa_scan_start+0x187 hpsa_kickoff_rescan+0x20f {THREAD}", weight=5),
    Stack("page_fault", "hpsa", PF, "vmklinux_9:h",
          f"hpsa_update_device_info+0x2d1 hpsa_update_scsi_devices+0x5e8 hpsa_scan_start+0x187 {THREAD}", weight=2),
    Stack("page_fault", "hpsa", PF, "scsi_eh_2",
          f"hpsa_eh_device_reset_handler+0x1f2 LinuxScsiEhTryReset+0x8b LinuxScsiErrorHandler+0x33f {THREAD}",
          weight=2),
    Stack("page_fault", "hpsa", PF, "idle7",
          f"complete_scsi_command+0x2a4 do_hpsa_intr_msi+0xe9 {IRQ} {IDLE}", weight=3),
    Stack("page_fault", "hpsa", PF, "vmm0:XENAPP",
          f"hpsa_scsi_queue_command+0x41d SCSILinuxQueueCommand+0x2c1 SCSIIssueAsyncPathCommand+0x8e {DISPATCH}",
          weight=2),
    Stack("general_protection", "hpsa", GP, "hpsa",
          "hpsa_passthru_ioctl+0x3f0 hpsa_ioctl+0x1b5 LinuxCharIoctl+0x127 VMKAPICharDevDevfsWrapIoctl+0x109 "
          "DevFSIoctl+0x9bf FSS2_IoctlByFH+0x434 FSS_IoctlByFH+0x8f User_LinuxSyscallHandler+0x1c"),
    Stack("general_protection", "hpsa", GP, "idle3",
          f"complete_scsi_command+0x2a4 do_hpsa_intr_msi+0xe9 {IRQ} {IDLE}"),
    # What else stops a host.
    Stack("page_fault", "e1000", PF, "idle11",
          f"e1000_clean_rx_irq+0x33b e1000_clean+0x8d LinuxNapiPoll+0xf4 {IDLE}"),
    Stack("page_fault", "bnx2x", PF, "helper22-1",
          f"bnx2x_free_tx_pkt+0x6f bnx2x_tx_int+0xb2 bnx2x_poll+0x12e LinuxNapiPoll+0xf4 {HELPER}", weight=2),
    Stack("general_protection", "usb", GP, "usb",
          f"DLM_free+0x10a Heap_Free+0x7a hid_free_buffers+0x20 hid_disconnect+0x10d usb_unbind_interface+0x4a "
          f"usb_disable_device+0x143 usb_disconnect+0xae {THREAD}"),
    Stack("spin_count", "bnx2x", "Spin count exceeded (bnx2xTxLock) - possible deadlock", "helper14-3",
          f"PanicvPanicInt+0x61 Panic+0xae SP_WaitLock+0x29f bnx2x_start_xmit+0x1c4 LinuxStartTxImmediate+0x9a "
          f"UplinkDevTransmit+0xe4 NetSchedInput+0x191 {HELPER}"),
    Stack("no_heartbeat", "lpfc", "PCPU {other}: no heartbeat (2/2 IPIs received)", "idle0",
          f"PanicvPanicInt+0x61 Panic+0xae Heartbeat_DetectCPULockups+0x2d3 Timer_BHHandler+0x20f {IDLE}",
          saved=f"lpfc_sli_intr_handler+0x8e lpfc_sli_poll_fcp_ring+0x51 {HELPER}"),
    Stack("assert", "vmfs3", "ASSERT bora/modules/vmkernel/vmfs/fs3ResMgr.c:1422", "FS3ResMgr",
          f"PanicvPanicInt+0x61 Panic_vPanic+0x13 Panic+0xa9 Res3_FreeCluster+0x21b FS3TruncateFile+0x3e2 {HELPER}"),
    Stack("machine_check", None, "Machine Check Exception on PCPU{pcpu} in world {world}\n"
          "System has encountered a Hardware Error - Please contact the hardware vendor", "idle5",
          f"MCEHandler+0x118 IDT_HandleException+0x43 gate_entry+0x64 {IDLE}"),
    Stack("nmi", None, "LINT1/NMI (motherboard nonmaskable interrupt), undiagnosed. This may be a hardware problem; "
          "please contact your hardware vendor.", "idle2", f"IDT_HandleNMI+0x1c6 gate_entry+0x64 {IDLE}"),
    Stack("user_requested", None, "CrashMe", "vsish", "PanicvPanicInt+0x61 Panic+0xae VSI_SetInfo+0x2f3 "
          "UserVsi_Set+0x152 User_LinuxSyscallHandler+0x1c gate_entry+0x64"),
)  # fmt: skip

# The text of a crash that cannot be laid at any door: the vmkernel's own functions, in a world of its own.
BARE = Stack("page_fault", None, PF, "idle9", f"Timer_BHHandler+0x20f BH_Check+0x98 {IDLE}")


@dataclass(frozen=True)
class Layout:
    """Where one boot loaded its code, and the spelling its dump log has by now.

    ``spelling`` is what stands behind ``@`` in a frame of a module without a name: ``<None>#<None>``, or ``#`` where a
    web page ate the tags.
    """

    code_start: int
    pcpus: int
    spelling: str


def layout(rng: Random) -> Layout:
    """A boot's addresses: the code start moves in steps of 2 MB, as the kernel's own randomisation does."""
    return Layout(0x418000000000 + 0x200000 * rng.randrange(1, 400), 24, rng.choice(("<None>#<None>",) * 3 + ("#",)))


def dump_text(kind: str, module: str | None, time: int, uptime: int, build: str, rng: Random, bare: bool) -> str:
    """The PSOD block of one crash, with its module map."""
    place = layout(rng)
    ways = [stack for stack in STACKS if (stack.kind, stack.module) == (kind, module)]
    stack = BARE if bare else rng.choices(ways, [way.weight for way in ways])[0]
    pcpu, world = rng.randrange(place.pcpus), rng.randrange(32768, 9_700_000)
    prefix = f"cpu{pcpu}:{world})"
    body = _lines(stack, place, pcpu, world, uptime, build, rng)
    # Each frame takes the kernel a fraction of a millisecond to print.
    return "".join(f"{stamp(time + number // 3)} {prefix}{line}\n" for number, line in enumerate(body))


def stamp(time: int, fraction: bool = True) -> str:
    """Milliseconds since 1970 -> ``2014-05-31T15:57:32.579Z``, or without the fraction."""
    seconds, ms = divmod(time, 1000)
    days, second = divmod(seconds, 86_400)
    hours, minutes = divmod(second // 60, 60)
    return f"{_day(days)}T{hours:02d}:{minutes:02d}:{second % 60:02d}{f'.{ms:03d}' if fraction else ''}Z"


@functools.cache
def _day(days: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=days)).isoformat()


def _lines(stack: Stack, place: Layout, pcpu: int, world: int, uptime: int, build: str, rng: Random) -> list[str]:
    pointer = 0x412400000000 + rng.randrange(0x10, 0xFFFF) * 0x10000
    frames = _frames(stack.frames, place, pointer, rng)
    other = (pcpu + 5) % place.pcpus
    message = stack.message.format(
        world=f"{world}:{stack.world}",
        ip=frames[0].split("[")[1].split("]")[0],
        address=rng.choice(("0x0", "0x0", "0x8", "0x1d0", "0x4108fffffff0")),
        ptes="".join(f"0x{rng.randrange(2**24, 2**26):x}023;" for _ in range(3)) + "0x0;",
        pcpu=pcpu,
        other=other,
    )
    saved = [f"pcpu {other} Heartbeat NMI: {line}" for line in _frames(stack.saved, place, pointer + 0x40000, rng)]
    hours, rest = divmod(uptime, 3_600_000)
    clock = f"{hours // 24}:{hours % 24:02d}:{rest // 60_000:02d}:{rest // 1000 % 60:02d}.{rest % 1000:03d}"
    return [
        f"VMware ESXi 5.5.0 [Releasebuild-{build} x86_64]",
        f"@BlueScreen: {message}",
        f"Code start: 0x{place.code_start:x} VMK uptime: {clock}",
        *([f"Saved backtrace from: pcpu {other} Heartbeat NMI", *saved] if saved else []),
        *frames,
        f"base fs=0x0 gs=0x{0x418040000000 + pcpu * 0x400000:x} Kgs=0x0",
        *_module_map(place),
    ]


def _frames(functions: str, place: Layout, pointer: int, rng: Random) -> list[str]:
    lines = []
    for entry in functions.split():
        function, offset = entry.split("+")
        module = next((owner for start, owner in OWNERS.items() if function.startswith(start)), "vmkernel")
        distance, printed = MODULES[module]
        # Where a function begins in its module never changes: its name says where.
        inside = zlib.crc32(function.encode()) % (0x600000 if module == "vmkernel" else 0x18000)
        address = place.code_start + distance + inside + int(offset, 16)
        owner = place.spelling if printed == "<None>#<None>" else printed
        word = rng.choice((0, 0, pointer + 0x40, 0x100D, 0x410B00000000 + rng.randrange(2**28)))
        lines.append(f"0x{pointer:x}:[0x{address:x}]{function}@{owner}+{offset} stack: 0x{word:x}")
        pointer += rng.choice((0x10, 0x20, 0x70, 0x80, 0xA0))
    return lines


def _module_map(place: Layout) -> list[str]:
    lines = ["vmkernel 0x0 .data 0x0 .bss 0x0"]
    for number, (module, (distance, _)) in enumerate(list(MODULES.items())[1:]):
        data = 0x417FC0000000 + 0x200000 * number + distance
        lines.append(f"{module} 0x{place.code_start + distance:x} .data 0x{data:x} .bss 0x{data + 0x8000:x}")
    return lines
