"""Is the true culprit named, on crashes by someone who has not read the rules?

    python benchmarks/triage_cases.py                      480 hosts, each an evidence folder, seed 20
    python benchmarks/triage_cases.py --cases 2000 --seed 3 --wrong     more, and one line for each wrong or missing answer
    python benchmarks/triage_cases.py --keep FOLDER        leaves the evidence there, with truth.csv beside it

Written from public crash texts and the artifact notes alone, never from the rules of `psodlib.triage`: who edits those must
not edit this to fit. Each host has a log before the crash, a dump log, `vmksummary.log` and often command outputs, in the
dialect of its release (5.5 to 8.0). Drivers, their bugs and their words are in `triage_cases.toml`.

A case is right when `guilty_module` is the true culprit, or is empty where nothing in the evidence can tell. Baselines: the
module of the top frame, and the first printed module that is no part of the kernel. B³: Bagga and Baldwin's precision and
recall of the signatures over crashes that have a true site (a driver's bug, a kernel layer's panic).
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pandas as pd
from triage_scene import (
    BUILDS,
    DRIVERS,
    HELPER,
    IDLE,
    INTERRUPT,
    KERNEL,
    LAYERS,
    PATHS,
    STARVED,
    SYSCALL,
    TCPIP,
    UNKNOWABLE,
    VMFS,
    WAYS,
    WORLD,
    Scene,
    bug,
    stuck,
    vmk,
)

import psodlib as psod


class Case(NamedTuple):
    """What truly happened on one host."""

    host: str
    kind: str
    culprit: str | None
    site: str | None


# --- the kinds of cause: each gives the crash text, the culprit and the site ---------------------------------------------

Told = tuple[list[str], str | None, str | None]


def on_stack(s: Scene) -> Told:
    d = s.pick()
    calls, site = bug(s, d)
    return s.fault(calls, mapped=True if s.release < "6.5" else None), d["name"], site


def prefix_only(s: Scene) -> Told:
    d = s.pick("storage", "nic", "usb", "mgmt")
    calls, site = bug(s, d)
    return s.fault(calls, mapped=False, bare=s.release >= "6.5" or s.rng.random() < 0.3), d["name"], site


def ill_in_log(s: Scene) -> Told:
    d = s.pick("storage", "nic", "vsan", "gpu", "usb", "mgmt")
    s.storm(d)
    return s.fault(s.rng.choice(UNKNOWABLE)), d["name"], None


def stack_and_log(s: Scene) -> Told:
    d = s.pick()
    s.storm(d)
    calls, site = bug(s, d)
    return s.fault(calls), d["name"], site


def tcpip_over_nic(s: Scene) -> Told:
    d = s.pick("nic")
    s.storm(d)
    calls, _ = bug(s, d)
    return (
        s.fault([*TCPIP[s.rng.randrange(2) :], *(c for c in calls if c[1] != KERNEL), *WAYS["nic"][0]]),
        d["name"],
        None,
    )


def vmfs_over_storage(s: Scene) -> Told:
    d = s.pick("storage")
    s.storm(d)
    calls, _ = bug(s, d)
    return s.fault([*VMFS[s.rng.randrange(2) :], *(c for c in calls if c[1] != KERNEL), *INTERRUPT]), d["name"], None


def tcpip_own_panic(s: Scene) -> Told:
    d = s.pick("nic")
    healthy = [(f, d["name"]) for f in d["bugs"][0][-1:]]
    calls = [
        *vmk("PanicvPanicInt", "Panic_vPanic", "vmk_vPanic"),
        ("panic", "tcpip4"),
        ("sbdrop_internal", "tcpip4"),
        *TCPIP[1:],
        *healthy,
        *WAYS["nic"][0],
    ]
    return s.block("sbdrop: negative byte count in socket buffer", calls, mapped=True), "tcpip4", "tcpip4/sbdrop"


def nmi_ipi(s: Scene) -> Told:
    d = s.pick()
    calls, site = stuck(s, d)
    new = f"PC 0x{s.code + 0x1404F8:x}, SP 0x{s.rng.getrandbits(45):x} (Src 0x4, CPU{s.pcpu})"
    old = f"RIPOFF(base):RBP:CS [0x1404f8(0x{s.code:x}):0x{s.rng.getrandbits(44):x}:0x4010] (Src 0x1, CPU{s.pcpu})"
    message = f"NMI IPI: Panic requested by another PCPU. {new if s.release >= '8' else old}"
    if s.rng.random() < 0.5:
        # The PCPU that the NMI reached panics: what it was doing lies below the handler's own frames.
        handler = vmk("PanicvPanicInt", "Panic_WithBacktrace", "NMI_Interrupt", "IDTNMIWork", "Int2_NMI", "gate_entry")
        return s.block(message, [*handler, *calls] if s.rng.random() < 0.6 else calls), d["name"], site
    return (
        s.block(message, vmk("Power_ArchPerformWait", *[f for f, _ in IDLE]), saved=(s.rng.randrange(s.pcpus), calls)),
        d["name"],
        site,
    )


def spin_holder(s: Scene) -> Told:
    d, other = s.pick(), s.pick()
    calls, site = stuck(s, d)
    pcpu = (s.pcpu + 7) % s.pcpus
    waiter = [
        *vmk("PanicvPanicInt", "Panic", "SP_WaitLock"),
        *((f, other["name"]) for f in other["bugs"][0][-1:]),
        *WAYS[other["ways"]][0],
    ]
    lock = s.rng.choice(("", "pktPoolLock", "adapterLock", "iplLock"))
    return (
        s.block(
            f"Spin count exceeded ({lock}) - possible deadlock with PCPU {pcpu}",
            waiter,
            saved=(pcpu, calls),
            stopped_by=s.rng.choice(("Heartbeat NMI", "SpinLock spin out NMI")),
        ),
        d["name"],
        site,
    )


def no_heartbeat(s: Scene) -> Told:
    d = s.pick()
    calls, site = stuck(s, d)
    pcpu = (s.pcpu + 11) % s.pcpus
    message = f"PCPU {pcpu}: no heartbeat ({s.rng.choice(('2/2', '3/3', '0/1'))} IPIs received)"
    for seconds in (5, 7, 13):
        s.say(
            s.crash - timedelta(seconds=20 - seconds),
            f"WARNING: Heartbeat: 961: PCPU {pcpu} didn't have a heartbeat for {seconds} seconds, timeout is 14, 1 IPIs sent; *may* be locked up.",
        )
    own = vmk(
        "PanicvPanicInt",
        "Panic_NoSave",
        "Heartbeat_DetectCPULockups",
        "Timer_BHHandler",
        "BH_Check",
        *[f for f, _ in IDLE],
    )
    before = (
        [
            f"Panic: 589: Panic from another CPU (cpu {s.pcpu}, world {s.world}): ip=0x{s.code + 0x196B20:x} randomOff=0x2400000:",
            message,
        ]
        if s.release >= "7"
        else []
    )
    return s.block(message, own, saved=(pcpu, calls), before=before), d["name"], site


def tlb(s: Scene) -> Told:
    d = s.pick()
    calls, site = stuck(s, d)
    pcpu = (s.pcpu + 3) % s.pcpus
    message = f"PCPU {pcpu} locked up. Failed to ack TLB invalidate (total of 1 locked up, PCPU(s): {pcpu})."
    return (
        s.block(
            message,
            vmk("PanicvPanicInt", "Panic", "TLBDoInvalidate", "TLB_Flush", *[f for f, _ in HELPER]),
            saved=(pcpu, calls),
        ),
        d["name"],
        site,
    )


def full_heap(s: Scene, days: float = 0.2) -> Told:
    d = s.pick("storage", "nic", "vsan", "usb", "mgmt", "kernel")
    heap = s.rng.choice((d["name"], f"{d['name']}_heap", d["name"]))
    words = (
        f"WARNING: Heap: 3534: Heap {heap} already at its maximum size. Cannot expand.",
        f"WARNING: Heap: 4079: Heap_Align({heap}, 4096/4096 bytes, 64 align) failed.  caller: 0x{s.code + 0x9EC4E9:x}",
        f"WARNING: Heap: 2368: Heap {heap}: Maximum allowed growth (24) too small for size (20480)",
    )
    since = min(timedelta(days=days), s.uptime)
    for _ in range(s.rng.randint(20, 60) + int(days * 60)):
        s.say(s.crash - since * s.rng.random() ** 2 - timedelta(seconds=2), s.rng.choice(words))
    return s.fault(s.rng.choice(STARVED)), d["name"], None


def long_leak(s: Scene) -> Told:
    return full_heap(s, days=s.rng.uniform(2, 4))


def device_named(s: Scene) -> Told:
    d = s.pick("storage", "nic", "gpu")
    alias = "vmgfx0" if d["area"] == "gpu" else s.alias(d["name"])
    message = f"IOMMU Fault detected for {s.pci[d['name']]} ({alias}/{d['name']}) IOaddr: 0x{s.rng.getrandbits(36):x} Mask: 0x6 Domain: 0x{s.rng.getrandbits(46):x}."
    return (
        s.block(message, vmk("PanicvPanicInt", "Panic", "IOMMUFaultHandler", *[f for f, _ in INTERRUPT])),
        d["name"],
        f"{d['name']}/iommu",
    )


def device_address(s: Scene) -> Told:
    d = s.pick("storage", "nic")
    told = d["name"] if s.lists else None
    site = told and f"{told}/device"
    address = s.pci[d["name"]]
    if s.rng.random() < 0.5:
        message = f"IOMMU Fault detected for {address} IOaddr: 0x{s.rng.getrandbits(36):x} Mask: 0x6 Domain: 0x{s.rng.getrandbits(46):x}."
        return (
            s.block(message, vmk("PanicvPanicInt", "Panic", "IOMMUFaultHandler", *[f for f, _ in INTERRUPT])),
            told,
            site,
        )
    s.say(s.crash - timedelta(milliseconds=9), "ApeiHEST: 259: Uncorrectable Errors")
    before = [f"ALERT: ApeiHEST: 327: Fatal error from {address}(PCI Express Endpoint), VID:8086, DID:1572 DevSts: 0xd, AERUeSts: 0x2000.", "NMI: 1031: ApeiHESTNmiHandler requested PSOD"]  # fmt: skip
    return (
        s.block(LINT1, vmk("PanicvPanicInt", "Panic", "NMI_Interrupt", *[f for f, _ in IDLE]), before=before),
        told,
        site,
    )


LINT1 = "LINT1/NMI (motherboard nonmaskable interrupt), undiagnosed. This may be a hardware problem; please contact your hardware vendor."


def hardware(s: Scene) -> Told:
    if s.rng.random() < 0.5:
        return s.block(LINT1, vmk("NMI_Interrupt", "IDTNMIWork", *[f for f, _ in IDLE])), None, "hardware/lint1"
    before = ["MCA: 208: UC Excp G5 B6 Sbb80000000000e0b A0 M10100000 P0/0 Memory Controller Read Error on Channel 1.", "System has encountered a Hardware Error - Please contact the hardware vendor"]  # fmt: skip
    return s.block(f"Machine Check Exception on PCPU{s.pcpu} in world {s.world}:idle{s.pcpu}", vmk("Power_ArchPerformWait", *[f for f, _ in IDLE]), before=before), None, "hardware/mce"  # fmt: skip


def deliberate(s: Scene) -> Told:
    return (
        s.block("CrashMe", vmk("PanicvPanicInt", "Panic", "CrashMeVSISet", *[f for f, _ in SYSCALL])),
        None,
        "deliberate",
    )


def path_in_message(s: Scene) -> Told:
    module = s.rng.choice([m for m in PATHS if s.release >= "6" or m == "vmfs3"])
    word = s.rng.choice(("PANIC", "ASSERT", "NOT_REACHED", "NOT_IMPLEMENTED"))
    message = f"{word} bora/modules/vmkernel/{module}/{PATHS[module]}:{300 + zlib.crc32(module.encode()) % 900}"
    return (
        s.block(message, vmk("PanicvPanicInt", "Panic_vPanic", "Panic_WithBacktrace", *[f for f, _ in WORLD])),
        module,
        f"{module}/path",
    )


def own_world(s: Scene) -> Told:
    d = s.rng.choice([d for d in s.drivers if len(d["name"]) <= 10])
    name = "usbus1" if d["name"] == "vmkusb" else s.rng.choice((d["name"], f"{d['name']}_w1", f"{d['name']}-0"))
    return (
        s.fault(vmk("SP_WaitLock", "Semaphore_Lock", "vmk_WorldWait", *[f for f, _ in WORLD]), world=name),
        d["name"],
        None,
    )


def unknowable(s: Scene) -> Told:
    which = s.rng.randrange(len(UNKNOWABLE))
    return s.fault(UNKNOWABLE[which]), None, f"kernel/{which}"


def busy_bystander(s: Scene) -> Told:
    s.quiet_days(busy=s.pick("storage", "nic")["name"])
    return unknowable(s)


def earlier_boot(s: Scene) -> Told:
    """A storm and a full heap days ago, then a reboot: today's crash has nothing to do with it."""
    s.boot = s.crash - timedelta(days=2)
    s.uptime = s.crash - s.boot
    s.boot_lines(s.boot)
    s.storm(s.pick("storage", "nic"), end=s.boot - timedelta(minutes=4))
    for minutes in range(40):
        when = s.boot - timedelta(minutes=4 + minutes)
        s.say(when, f"WARNING: Heap: 3534: Heap {s.drivers[0]['name']} already at its maximum size. Cannot expand.")
    return unknowable(s)


def fresh_boot(s: Scene) -> Told:
    s.quiet_days(busy=s.pick("storage", "nic")["name"])
    return unknowable(s)


KINDS: dict[Callable[[Scene], Told], int] = {
    on_stack: 6, prefix_only: 3, ill_in_log: 6, stack_and_log: 4, tcpip_over_nic: 3, vmfs_over_storage: 3, tcpip_own_panic: 2, nmi_ipi: 4,
    spin_holder: 4, no_heartbeat: 4, tlb: 2, full_heap: 3, long_leak: 3, device_named: 2, device_address: 4, hardware: 3, deliberate: 2,
    path_in_message: 3, own_world: 2, unknowable: 4, busy_bystander: 3, earlier_boot: 3, fresh_boot: 3,
}  # fmt: skip


def make(root: Path, number: int, kind: Callable[[Scene], Told], rng: Random) -> Case:
    """Write one host's evidence and tell what truly happened on it."""
    release = rng.choice(list(BUILDS))
    by_area: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for d in DRIVERS:
        if release in d["releases"]:
            by_area[d["area"]].append(d)
    drivers = [d for area, want in (("storage", 3), ("nic", 2), ("vsan", 1), ("nsx", 1), ("gpu", 1), ("usb", 1), ("mgmt", 1), ("kernel", 1))
               for d in rng.sample(by_area[area], min(want, len(by_area[area])))]  # fmt: skip
    scene = Scene(
        rng,
        f"esx{number:04d}",
        release,
        drivers,
        fresh=kind is fresh_boot,
        lists=rng.random() < (0.75 if kind is device_address else 0.5),
    )
    if kind not in (busy_bystander, fresh_boot):
        scene.quiet_days()
    text, culprit, site = kind(scene)
    scene.write(root, text)
    return Case(scene.host, kind.__name__, culprit, site)


def make_all(root: Path, cases: int, seed: int) -> list[Case]:
    turn = [kind for kind, weight in KINDS.items() for _ in range(weight)]
    rng = Random(seed)
    return [make(root, i, turn[i % len(turn)], Random(rng.getrandbits(64))) for i in range(cases)]


# --- judging -----------------------------------------------------------------------------------------------------------


def baselines(frames: pd.DataFrame) -> tuple[dict[str, str | None], dict[str, str | None]]:
    """By crash: the top frame's module, and the first printed module that is no part of the kernel."""
    own = frames[frames["backtrace"] == 0].sort_values(["crash_id", "index"])
    top: dict[str, str | None] = {}
    first: dict[str, str | None] = {}
    for row in own.itertuples():
        module = None if pd.isna(row.module) or row.module in LAYERS else str(row.module)
        top.setdefault(row.crash_id, module)
        if first.get(row.crash_id) is None:
            first[row.crash_id] = module if row.module_evidence == "printed" else None
    return top, first


def verdict(said: str | None, truth: str | None) -> str:
    return "right" if said == truth else "nobody" if said is None else "wrong"


def b_cubed(pairs: list[tuple[str, str]]) -> tuple[float, float]:
    """B³ precision and recall of (group said, true group) pairs."""
    both, said, true = Counter(pairs), Counter(s for s, _ in pairs), Counter(t for _, t in pairs)
    precision = sum(n * n / said[s] for (s, _), n in both.items()) / len(pairs)
    return precision, sum(n * n / true[t] for (_, t), n in both.items()) / len(pairs)


def judge(root: Path, truth: list[Case], jobs: int | None) -> tuple[pd.DataFrame, int]:
    """One row a case: kind, truth, what each way says; and how many crashes were not found on their host."""
    fleet = psod.load(root, jobs=jobs)
    top, first = baselines(fleet.frames)
    rows, lost = [], 0
    by_host = {str(row.host): row for row in fleet.crashes.itertuples()}
    for case in truth:
        row = by_host.get(case.host)
        lost += row is None
        said = None if row is None or pd.isna(row.guilty_module) else str(row.guilty_module)
        crash = "" if row is None else str(row.crash_id)
        signature = f"? {case.host}" if row is None or pd.isna(row.signature) else str(row.signature)
        rows.append({**case._asdict(), "said": said, "guilt": None if row is None else row.guilt, "signature": signature,
                     "psodlib": verdict(said, case.culprit), "top": verdict(top.get(crash), case.culprit), "first": verdict(first.get(crash), case.culprit)})  # fmt: skip
    return pd.DataFrame(rows), lost


def show(table: pd.DataFrame, lost: int) -> None:
    print(f"{len(table):,} crashes of {table['kind'].nunique()} kinds; {lost} not found\n")
    print("| kind | cases | right | wrong | nobody | top frame: right, wrong | first printed module: right, wrong |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    groups = [
        *table.groupby("kind", sort=False),
        ("all", table),
        (
            "unknowable, all four",
            table[table["kind"].isin(["unknowable", "busy_bystander", "earlier_boot", "fresh_boot"])],
        ),
    ]
    for kind, rows in groups:
        share = {way: rows[way].value_counts(normalize=True) for way in ("psodlib", "top", "first")}
        cells = [f"{share['psodlib'].get(v, 0):.1%}" for v in ("right", "wrong", "nobody")]
        cells += [f"{share[way].get('right', 0):.1%}, {share[way].get('wrong', 0):.1%}" for way in ("top", "first")]
        print(f"| {kind} | {len(rows)} | {' | '.join(cells)} |")
    sited = table[table["site"].notna()]
    stack = sited[
        ~sited["kind"].isin(["hardware", "deliberate", "unknowable", "busy_bystander", "earlier_boot", "fresh_boot"])
    ]
    print(
        "\n| signatures of | crashes | sites | signatures | B³ precision | B³ recall |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name, rows in (("all that have a site", sited), ("a driver's own site", stack)):
        precision, recall = b_cubed(list(zip(rows["signature"], rows["site"], strict=True)))
        print(
            f"| {name} | {len(rows)} | {rows['site'].nunique()} | {rows['signature'].nunique()} | {precision:.2f} | {recall:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=480)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=None)
    parser.add_argument("--wrong", action="store_true", help="one line for each answer that is not right")
    parser.add_argument("--keep", type=Path, help="leave the evidence in this folder, with truth.csv")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = args.keep / "evidence" if args.keep else Path(scratch)
        truth = make_all(root, args.cases, args.seed)
        if args.keep:
            with (args.keep / "truth.csv").open("w", newline="", encoding="utf-8") as out:
                csv.writer(out).writerows([Case._fields, *truth])
        table, lost = judge(root, truth, args.jobs)
    show(table, lost)
    if args.wrong:
        columns = ["host", "kind", "culprit", "said", "guilt", "signature"]
        print("\n" + table.loc[table["psodlib"] != "right", columns].to_string(index=False, max_colwidth=60))


if __name__ == "__main__":
    main()
