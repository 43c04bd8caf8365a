"""A made-up host that is about to crash, for `triage_cases.py`: hardware, log, crash text and folder, as its release writes them."""

from __future__ import annotations

import tomllib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

DRIVERS: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("triage_cases.toml").read_text())["driver"]
BUILDS = {"5.5": ("5.5.0", 2068190), "6.0": ("6.0.0", 3620759), "6.5": ("6.5.0", 7388607), "6.7": ("6.7.0", 14320388),
          "7.0": ("7.0.3", 20328353), "8.0": ("8.0.2", 22380479)}  # fmt: skip
KERNEL = "vmkernel"
LINUX = "com.vmware.driverAPI"
LAYERS = {KERNEL, LINUX, "esx", "vmkapi", "com.vmware.vmkapi"}
Calls = list[tuple[str, str]]  # (function, module), innermost first


def vmk(*functions: str) -> Calls:
    return [(function, KERNEL) for function in functions]


WORLD = vmk("vmkWorldFunc", "CpuSched_StartWorld", "Debug_IsInitialized")
IDLE = vmk("CpuSchedIdleLoopInt", "CpuSchedDispatch", "CpuSchedWait", "CpuSched_StartWorld", "Debug_IsInitialized")
HELPER = vmk("HelperQueueFunc", "CpuSched_StartWorld", "Debug_IsInitialized")
INTERRUPT = vmk("IntrCookieBH", "BH_DrainAndDisableInterrupts", "BH_Check", *[f for f, _ in IDLE])
SYSCALL = vmk("VSI_SetInfo", "UW64VMKSyscallUnpackVSI_Set", "User_UWVMK64SyscallHandler", "gate_entry")
WAYS: dict[str, list[Calls]] = {
    "linux": [
        [("kthread", LINUX), ("LinuxStartFunc", LINUX), *WORLD],
        [("Linux_IRQHandler", LINUX), *INTERRUPT],
        [("vmklnx_workqueue_callout", LINUX), *HELPER],
    ],
    "storage": [
        INTERRUPT,
        vmk("SCSILinuxWorldletFn", "WorldletBHHandler", "BH_Check", *[f for f, _ in IDLE]),
        vmk("SCSITaskMgmtHelper", *[f for f, _ in HELPER]),
    ],
    "nic": [
        vmk("NetPollWorldletCallback", "WorldletProcessQueue", "WorldletBHHandler", "BH_Check", *[f for f, _ in IDLE]),
        vmk("UplinkAsyncProcessCallsHelperCB", *[f for f, _ in HELPER]),
    ],
    "world": [WORLD, HELPER, vmk("CpuSched_StartWorld", "Debug_IsInitialized")],
}
VICTIMS = [vmk("DLM_free", "Heap_Free"), vmk("vmk_Memcpy"), vmk("vmk_SGFree"), vmk("vmk_TimerCancel"), [], [], []]
WAITS = [
    vmk("Timer_GetCycles"),
    vmk("Timer_GetCycles", "Util_Udelay"),
    vmk("Timer_GetCycles", "SP_WaitReadLock", "SPAcqWriteLockWork"),
    [],
]
UNKNOWABLE = [
    vmk("VmMemCowPShareRemoveHint", "VmMemCowPShareFn", "VmAssistantProcessTasks", "CpuSched_StartWorld", "Debug_IsInitialized"),
    vmk("AsyncPopCallbackFrameInt", "FDSAsyncTokenIODone", "SCSICompleteDeviceCommand", *[f for f, _ in INTERRUPT]),
    vmk("CpuSchedVcpuMakeReady", "CpuSchedWakeupWorldInt", "CpuSched_Wakeup", "Timer_BHHandler", "BH_Check", *[f for f, _ in IDLE]),
    vmk("PageTableWalk", "MemMap_FreePages", "LPageReleaseWork", *[f for f, _ in HELPER]),
    vmk("NetSchedFIFOInput", "NetSchedInput", "IOChain_Resume", "PortOutput", "Portset_ReleasePort", "Timer_BHHandler", "BH_Check", *[f for f, _ in IDLE]),
]  # fmt: skip
STARVED = [
    vmk("SCSIAllocCommand", "SCSI_StartCommand", "FDS_AsyncIO", *[f for f, _ in WORLD]),
    vmk("PktAllocInt", "Pkt_Alloc", "NetSchedInput", *[f for f, _ in HELPER]),
    vmk("TimerAddInt", "Timer_AddTC", *[f for f, _ in HELPER]),
]
TCPIP: Calls = [("m_copydata", "tcpip4"), ("tcp_input", "tcpip4"), ("ip_input", "tcpip4"), ("ether_demux", "tcpip4"),
                ("EtherswitchPortDispatch", "etherswitch"), *vmk("IOChain_Resume", "Uplink_SetupIOChain", "NetPollRxInt")]  # fmt: skip
VMFS: Calls = [("Res3UpdateCacheEntry", "vmfs3"), ("Fil3UpdateBlocks", "vmfs3"), ("Fil3_AsyncIODone", "vmfs3"),
               *vmk("AsyncPopCallbackFrameInt", "FDSAsyncTokenIODone", "SCSICompleteDeviceCommand")]  # fmt: skip
CHATTER = [
    'ScsiDeviceIO: 2358: Cmd(0x41{x}) 0x1a, CmdSN 0x{n} from world 0 to dev "naa.6005{x}" failed H:0x0 D:0x2 P:0x0 Valid sense data: 0x5 0x24 0x0.',
    "NMP: nmp_ThrottleLogForDevice:2346: Cmd 0x85 (0x41{x}, 3268) to dev \"naa.6005{x}\" on path \"vmhba0:C0:T0:L1\" Failed: H:0x0 D:0x2 P:0x0",
    "World: 9776: VC opID hostd-{x} maps to vmkernel opID {x}",
    "NetPort: 1426: enabled port 0x{x} with mac 00:50:56:{n}:1a:22",
    "VSCSI: 2459: handle {n}(vscsi0:0):Creating Virtual Device for world {n}",
    "CMD: 112: heartbeat of datastore {x} ok",
]  # fmt: skip
PATHS = {
    "lsom": "lsom_log.c",
    "cmmds": "cmmds_net.c",
    "nfs41client": "nfs41FS.c",
    "vmfs3": "res6.c",
    "plog": "plog_elevator.c",
    "rdt": "rdt_assoc.c",
}


@dataclass
class Scene:
    """One host that is about to crash: its release, its hardware, its log so far."""

    rng: Random
    host: str
    release: str
    drivers: list[dict[str, Any]]
    fresh: bool = False
    lists: bool = True
    lines: list[tuple[datetime, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = self.rng
        self.version, self.build = BUILDS[self.release]
        self.crash = datetime(2015, 1, 5, tzinfo=UTC) + timedelta(seconds=rng.randrange(9 * 365 * 86400))
        self.uptime = timedelta(minutes=rng.uniform(9, 35)) if self.fresh else timedelta(days=rng.uniform(6, 90))
        self.boot = self.crash - self.uptime
        self.code = (0x4180 if self.release < "7" else 0x4200) << 32 | rng.randrange(0x10, 0x3F) << 20
        self.base = {
            d["name"]: self.code + 0x800000 + i * 0x9C000 + rng.randrange(64) * 0x1000
            for i, d in enumerate(self.drivers)
        }
        for i, layer in enumerate(("tcpip4", "etherswitch", "vmfs3", "esx", LINUX, "plog", "rdt", "dvfilter")):
            self.base.setdefault(layer, self.code + 0x700000 - (i + 1) * 0x40000 + 0x1000 * rng.randrange(16))
        self.pci = {
            d["name"]: f"0000:{bus:02x}:00.0"
            for d, bus in zip(self.drivers, rng.sample(range(2, 0xE0), len(self.drivers)), strict=True)
        }
        self.pcpus = rng.choice((24, 40, 64, 128))
        self.pcpu, self.world = (
            rng.randrange(self.pcpus),
            rng.randrange(32800, 99000) + (0 if self.release < "6.5" else 2_000_000),
        )

    def alias(self, name: str) -> str:
        """vmhba or vmnic of a driver, by its place in the host."""
        at = [d["name"] for d in self.drivers].index(name)
        return f"{'vmhba' if self.drivers[at]['area'] == 'storage' else 'vmnic'}{at}"

    def pick(self, *areas: str) -> dict[str, Any]:
        return self.rng.choice([d for d in self.drivers if not areas or d["area"] in areas])

    # --- the log -------------------------------------------------------------------------------------------------------

    def stamp(self, when: datetime, body: str, cpu: int | None = None, world: int | None = None) -> str:
        """One vmkernel line in the release's own prefix."""
        cpu = self.rng.randrange(self.pcpus) if cpu is None else cpu
        time = f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z"
        level = ""
        if self.release >= "8":
            level = (
                "Wa(180) vmkwarning: "
                if body.startswith("WARNING")
                else "Al(177) vmkalert: "
                if body.startswith("ALERT")
                else "In(182) vmkernel: "
            )
        return f"{time} {level}cpu{cpu}:{world or self.rng.randrange(32800, 99000)}){body}"

    def say(self, when: datetime, words: str, driver: str | None = None) -> None:
        """Write one body into the log, its blanks filled for a driver's device."""
        rng = self.rng
        alias = self.alias(driver) if driver else "vmnic0"
        body = words.format(
            pci=self.pci.get(driver or "", "0000:00:1f.2"),
            hba=alias,
            nic=alias,
            n=rng.randrange(1, 60),
            x=f"{rng.getrandbits(24):06x}",
        )
        if driver and rng.random() < 0.4 and not body.startswith("<"):
            body = "WARNING: " + body
        self.lines.append((when, self.stamp(when, body)))

    def quiet_days(self, busy: str | None = None) -> None:
        """The ordinary talk since the log begins, a few lines a day from every driver, many from a busy one."""
        start = max(self.boot, self.crash - timedelta(days=5))
        days = (self.crash - start) / timedelta(days=1)
        for words, driver, a_day in [
            *((words, None, 8.0) for words in CHATTER),
            *((words, d["name"], 300.0 if d["name"] == busy else 3.0) for d in self.drivers for words in d["healthy"]),
        ]:
            for _ in range(int(a_day * days + self.rng.random()) + (driver == busy and self.fresh) * 4):
                self.say(start + (self.crash - start) * self.rng.random(), words, driver)
        self.boot_lines(self.boot)

    def boot_lines(self, when: datetime) -> None:
        if when > self.crash - timedelta(days=5):
            for i, d in enumerate(self.drivers):
                at = when + timedelta(seconds=20 + i)
                self.lines.append((at, self.stamp(at, f"Loading module {d['name']} ...")))
                self.lines.append(
                    (at, self.stamp(at, f"Mod: 4789: Initialization of {d['name']} succeeded with module ID {30 + i}."))
                )
                self.lines.append((at, self.stamp(at, f"{d['name']} loaded successfully.")))

    def storm(self, d: dict[str, Any], end: datetime | None = None, lines: tuple[int, int] = (9, 60)) -> None:
        """A driver is ill in the minutes before `end`."""
        span = timedelta(minutes=self.rng.uniform(0.7, 9))
        for _ in range(self.rng.randint(*lines)):
            self.say(
                (end or self.crash) - span * self.rng.random() - timedelta(seconds=1),
                self.rng.choice(d["ill"]),
                d["name"],
            )

    # --- the crash text ------------------------------------------------------------------------------------------------

    def printed(self, module: str) -> str:
        """A frame's module as the release prints it."""
        if module == KERNEL:
            return "vmkernel#nover"
        if module == LINUX:
            return f"{LINUX}#9.2"
        if module == "vmfs3" and self.crash.day % 2:
            return "esx#nover"
        return "<None>#<None>" if self.release < "6.5" else f"({module})#<None>"

    def frames(self, calls: Calls, words: int = 1, prefix: str = "", bare: bool = False) -> list[str]:
        out, pointer = [], 0x4122_0000_0000 + self.rng.getrandbits(30) * 16
        for function, module in calls:
            fixed = zlib.crc32(f"{self.release}{function}".encode())
            offset = 0x11 + fixed % 0x600
            address = (
                self.base.get(module, self.code) + (fixed >> 8) % (0x600000 if module == KERNEL else 0x38000) + offset
            )
            stack = ", ".join(f"0x{self.rng.getrandbits(40):x}" for _ in range(words))
            name = function if bare else f"{function}@{self.printed(module)}"
            out.append(f"{prefix}0x{pointer:x}:[0x{address:x}]{name}+0x{offset:x} stack: {stack}")
            pointer += self.rng.randrange(0x20, 0x140, 16)
        return out

    def map(self) -> list[str]:
        rows = ["vmkernel 0x0 .data 0x0 .bss 0x0"]
        for module, base in sorted(self.base.items(), key=lambda item: item[1]):
            rows.append(
                f"{module} 0x{base:x} .data 0x{0x417F00000000 + base % 2**28:x} .bss 0x{0x417F00001000 + base % 2**28:x}"
            )
        return rows

    def block(self, message: str, calls: Calls, *, saved: tuple[int, Calls] | None = None, bare: bool = False, mapped: bool | None = None,
              before: Iterable[str] = (), stopped_by: str = "Heartbeat NMI") -> list[str]:  # fmt: skip
        """The whole crash text: what comes before the header, header, uptime, frames, saved frames, map."""
        rng, out = self.rng, list(before)
        now = f"Saved backtrace: pcpu {saved[0]} {stopped_by}" if saved else ""
        newer = self.release >= "7"
        if saved and newer and rng.random() < 0.6:
            out.append(f"Panic: 767: {now}")
            out += self.frames(saved[1], 5, f"pcpu {saved[0]} {stopped_by}: ")
            saved = None
        if self.release >= "6.5" and rng.random() < 0.5 and not bare:
            out.append(f"Backtrace for current CPU #{self.pcpu}, worldID={self.world}, fp=0x{rng.getrandbits(40):x}")
            out += self.frames(calls, 5)
        if rng.random() < 0.6:
            out.append(f"\x1b[45m\x1b[33;1mVMware ESXi {self.version} [Releasebuild-{self.build} x86_64]\x1b[0m")
        out.append(f"@BlueScreen: {message}")
        involved = list(dict.fromkeys(module for _, module in calls if module not in LAYERS))
        if involved and self.release >= "8" and not bare and rng.random() < 0.5:
            # Seen from 8.0 on: every module of the panicking stack that is not the kernel's own, in the stack's order.
            out.append(
                f"Module(s) involved in panic: [{'] ['.join(f'{module} Built on: Jun 11 2024' for module in involved)}]"
            )
        out.append(f"Code start: 0x{self.code:x} VMK uptime: {uptime_of(self.uptime)}")
        out += self.frames(calls, bare=bare)
        if saved:
            out.append(f"Saved backtrace from: pcpu {saved[0]} {stopped_by}")
            out += self.frames(saved[1])
        out.append(f"base fs=0x0 gs=0x{self.code + 0x20000000:x} Kgs=0x0")
        if mapped if mapped is not None else rng.random() < (0.75 if self.release < "6.5" else 0.3):
            out += self.map()
        return out

    def fault(self, calls: Calls, world: str | None = None, **how: Any) -> list[str]:
        """A page fault or general protection fault over these frames."""
        name = (
            world
            or self.rng.choice(("helper12-1", "idle14", "vmm0:web01", "vmkWorldlet", "HELPER_MISC_Q", "NetWorld-VM"))
        )[:12]
        ip = self.frames(calls[:1] or vmk("Util_Udelay"))[0].split("[")[1].split("]")[0]
        if self.rng.random() < 0.2:
            return self.block(f"#GP Exception 13 in world {self.world}:{name} @ {ip}", calls, **how)
        return self.block(
            f"#PF Exception 14 in world {self.world}:{name} IP {ip} addr 0x{self.rng.choice((0, 8, 0x48, self.rng.getrandbits(44))):x}",
            calls,
            **how,
        )

    # --- the folder ----------------------------------------------------------------------------------------------------

    def write(self, root: Path, text: list[str]) -> None:
        """The evidence folder: log, dump log, vmksummary and, mostly, command outputs."""
        home = root / self.host
        (home / "var/log").mkdir(parents=True)
        log = [line for _, line in sorted(self.lines)]
        at = self.crash
        block = []
        for line in text:
            at += timedelta(milliseconds=self.rng.randrange(2))
            block.append(self.stamp(at, line, self.pcpu, self.world))
        (home / "var/log/vmkernel.log").write_text("\n".join(log) + "\n", encoding="utf-8")
        (home / "vmkernel-log.1").write_text(
            "\n".join(log[-self.rng.randint(40, 400) :] + block) + "\n", encoding="utf-8"
        )
        (home / "var/log/vmksummary.log").write_text("\n".join(self.summary()) + "\n", encoding="utf-8")
        (home / "commands").mkdir()
        (home / "commands/vmware_-vl.txt").write_text(
            f"VMware ESXi {self.version} build-{self.build}\nVMware ESXi {self.version} GA\n"
        )
        if self.lists:
            for name, lines in self.outputs():
                (home / f"commands/{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def summary(self) -> Iterator[str]:
        yield f"{self.boot:%Y-%m-%dT%H:%M:%SZ} bootstop: Host has booted"
        hour = (self.boot + timedelta(hours=1)).replace(minute=0, second=1, microsecond=0)
        while hour < self.crash:
            up = hour - self.boot
            yield f"{hour:%Y-%m-%dT%H:%M:%SZ} heartbeat: up {up.days}d{up.seconds // 3600}h{up.seconds // 60 % 60}m{up.seconds % 60}s, 12 VMs; [] []"
            hour += timedelta(hours=1 if self.fresh else 6)
        yield f"{self.crash + timedelta(minutes=12):%Y-%m-%dT%H:%M:%SZ} bootstop: Host has booted"

    def outputs(self) -> Iterator[tuple[str, list[str]]]:
        hba = [d for d in self.drivers if d["area"] == "storage"]
        nic = [d for d in self.drivers if d["area"] == "nic"]
        wide = max([9, *(len(d["name"]) for d in hba)])
        yield "localcli_storage-core-adapter-list", [
            f"{'HBA Name':8}  {'Driver':{wide}}  Link State  {'UID':20}  Description",
            f"{'-' * 8}  {'-' * wide}  ----------  {'-' * 20}  -----------",
            *(f"{self.alias(d['name']):8}  {d['name']:{wide}}  link-n/a    sas.5{zlib.crc32(d['name'].encode()):015x}  ({self.pci[d['name']]}) {d['about']}" for d in hba),
        ]  # fmt: skip
        yield "esxcfg-nics_-l", [
            "Name    PCI          Driver      Link Speed      Duplex MAC Address       MTU    Description",
            *(f"{self.alias(d['name']):7} {self.pci[d['name']]:12} {d['name']:11} Up   10000Mbps  Full   00:00:00:00:00:00 1500   {d['about']}" for d in nic),
        ]  # fmt: skip
        devices: list[str] = []
        for i, d in enumerate(self.drivers):
            if not d["about"]:
                continue
            address, vendor = self.pci[d["name"]], d["about"].split()[0]
            devices += [address, f"   Address: {address}", "   Segment: 0x0000", f"   Bus: 0x{address[5:7]}", "   Slot: 0x00", "   Function: 0x0",
                        f"   VMkernel Name: {self.alias(d['name'])}", f"   Vendor Name: {vendor}", f"   Device Name: {d['about']}",
                        f"   Module ID: {30 + i}", f"   Module Name: {d['name']}", ""]  # fmt: skip
        yield "localcli_hardware-pci-list", devices


def uptime_of(span: timedelta) -> str:
    hours, rest = divmod(span.seconds, 3600)
    return f"{span.days}:{hours:02d}:{rest // 60:02d}:{rest % 60:02d}.{span.microseconds // 1000:03d}"


def bug(scene: Scene, d: dict[str, Any]) -> tuple[Calls, str]:
    """One of a driver's bugs: its frames with the kernel's helper on top and its callers below, and the site's name."""
    which = scene.rng.randrange(len(d["bugs"]))
    site = f"{d['name']}/{which}"
    fixed = zlib.crc32(site.encode())
    ways = WAYS[d["ways"]]
    return [
        *VICTIMS[fixed % len(VICTIMS)],
        *((f, d["name"]) for f in d["bugs"][which]),
        *ways[(fixed >> 8) % len(ways)],
    ], site


def stuck(scene: Scene, d: dict[str, Any]) -> tuple[Calls, str]:
    """A driver that keeps a PCPU: whatever the kernel was waiting in on top, one site below."""
    which = scene.rng.randrange(len(d["bugs"]))
    calls = [(f, d["name"]) for f in d["bugs"][which]]
    return [*scene.rng.choice(WAITS), *calls, *WAYS[d["ways"]][0]], f"{d['name']}/stuck{which}"
