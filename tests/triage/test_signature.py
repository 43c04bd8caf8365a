"""What moves a signature, what must not, and that a broken rule loses no crash."""

from __future__ import annotations

from dataclasses import replace

import pytest

from psodlib.records import Crash, Frame
from psodlib.triage import signature as module
from psodlib.triage.guilt import find_guilty
from psodlib.triage.lists import read_rules
from psodlib.triage.signature import MAX_LENGTH, frame_name, sign


def stack(*names: str | None, backtrace: int = 0, pcpu: int | None = None) -> tuple[Frame, ...]:
    return tuple(Frame(backtrace=backtrace, pcpu=pcpu, index=i, function=name) for i, name in enumerate(names))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["hpsa_update_scsi_devices", "hpsa_scan_start"], "hpsa_update_scsi_devices"),
        (["PanicvPanicInt", "Panic", "SP_WaitLock", "NetSchedFIFOInput", "x"], "SP_WaitLock | NetSchedFIFOInput"),
        (["Panic_Exception", "IDTReturnPrepare", "gate_entry_", "hpsa_scan_start"], "hpsa_scan_start"),
        (["Panic", "AnyHandler", "gate_entry_", "driver_poll"], "driver_poll"),
        (["hpsa_isr", "gate_entry_", "driver_poll"], "hpsa_isr"),
        (["DLM_free", "Heap_Free", "hid_free_buffers"], "Heap_Free | hid_free_buffers"),
        (["memcpy", "kthread", "CpuSched_StartWorld"], "memcpy"),
        (["do_it.constprop.3", "x"], "do_it"),
        (["do_it.isra.0.part.7", "x"], "do_it"),
        ([None, "hpsa_scan_start"], "? | hpsa_scan_start"),
        (["Heap_Free", "Heap_Free", "x"], "Heap_Free | x"),
        # How deep inside one family is chance; another family is news.
        (["memcpy", "DLM_free", "Heap_Free", "vmklnx_kfree", "x"], "memcpy | Heap_Free | x"),
        (["SP_WaitLock", "PortOutput", "IOChain_Resume", "x"], "SP_WaitLock | IOChain_Resume | x"),
        (["Heap_Free", None, "DLM_free", "x"], "Heap_Free | ? | DLM_free | x"),
        (["HeapVSIRemoveChunk", "Heap_Free", "x"], "Heap_Free | x"),
        (["BitVector_SetRange", "x"], "BitVector_SetRange | x"),
        # By which layer memory was freed tells no cause; getting it and giving it back do.
        (["Heap_Free", "vmk_HeapFree", "hid_free_buffers", "x"], "Heap_Free | hid_free_buffers"),
        (["DLM_free", "Heap_Free", "vmklnx_kfree", "hid_free_buffers", "x"], "Heap_Free | hid_free_buffers"),
        (["Heap_Free", "kfree", "hid_free_buffers", "x"], "Heap_Free | hid_free_buffers"),
        (["vmk_HeapAlloc", "ZyxRing"], "Heap_Alloc | ZyxRing"),
        (["kmalloc_node", "ZyxRing"], "Heap_Alloc | ZyxRing"),
        (["vmk_HeapFree", "ZyxRing"], "Heap_Free | ZyxRing"),
        (["CpuSched_StartWorld"], "no telling frames: page_fault"),
        ([None, None], "no telling frames: page_fault"),
        ([], "no frames: page_fault"),
    ],
)
def test_stacks(names, expected):
    assert sign(Crash(kind="page_fault", frames=stack(*names))).signature == expected


CHECKED = "Machine Check Exception on PCPU 3 in world 7:vmm0:a"


@pytest.mark.parametrize(
    ("kind", "message", "text", "expected"),
    [
        ("user_requested", "CrashMe", "", "deliberate"),
        ("machine_check", "Machine Check Exception on PCPU12 in world 1:idle12", "", "machine_check: bank unknown"),
        ("machine_check", None,
            "MCA: 81: CE Poll G0 B9 S8c B Memory Controller Read Error on Channel 0.\n"
            "MCA: 208: UC Excp G4 B6 Sbb00002000000e0b AB M180008 P8/8 I/O error reported by PCI 0000:00:03.0.",
            "machine_check: bank 6 I/O error"),
        ("machine_check", CHECKED, "MC:PCPU3 B:1 S:0xbd80000000100134 M:0x86 A:0x5fbd5d8b80\n", "machine_check: bank 1"),
        ("machine_check", CHECKED, "cpu3:7)MCE: 222: cpu3: bank5: status=0xbe00000000800400: (VAL=1, OVFLW=0, UC=1, EN=1, PCC=1)\n",
         "machine_check: bank 5"),
        ("nmi", "LINT1/NMI (motherboard nonmaskable interrupt), undiagnosed.", "", "nmi: device unknown"),
        ("nmi", "LINT1/NMI", "ApeiHEST: 420: Fatal error from 0000:04:00.0", "nmi: PCI device"),
        ("nmi", "LINT1/NMI", "ApeiHEST: 420: Fatal error from 0000:XX:00.0(PCI Bridge)", "nmi: PCI device"),
        ("assert", "Failed at bora/modules/vmkernel/plog/plog_io.c:77 -- VMK_ASSERT(io != NULL)", "", "assert: plog_io.c:77"),
        ("assert", "ASSERT bora/vmkernel/main/pframe_int.h:527", "", "assert: pframe_int.h:527"),
        ("not_implemented", "NOT_IMPLEMENTED /build/mts/release/bora-84374/bora/vmkernel/main/util.c:83", "", "not_implemented: util.c:83"),
        ("panic", "BUG: failure at vmkdrivers/src_9/include/linux/if_vlan.h:425/vlan_put_tag()!", "", "panic: if_vlan.h:425"),
    ],
)  # fmt: skip
def test_what_signs_by_its_words_does_not_sign_by_its_stack(kind, message, text, expected):
    asked = kind == "user_requested"
    crash = Crash(kind=kind, message=message, text=text, deliberate=asked, frames=stack("hpsa_scan_start"))
    assert sign(crash).signature == expected
    assert sign(replace(crash, frames=())).signature == expected


@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        ("panic", "Log block 0x43 of disk 17 is too new", "panic: Log block N of disk N is too new"),
        ("other", "CPU 3 / World 2098 tried to re-acquire lock", "other: CPU N / World N tried to re-acquire lock"),
        (
            "spin_count",
            "Spin count exceeded (X) – possible deadlock with PCPU 2",
            "spin_count: Spin count exceeded (X)",
        ),
        ("page_fault", "#PF Exception 14 in world 7:esx-vm IP 0x1 addr 0x0", "{}: page_fault"),
        ("panic", None, "{}: panic"),
    ],
)
def test_without_a_telling_frame_the_message_signs_by_its_words(kind, message, expected):
    crash = Crash(kind=kind, message=message, exception=14 if kind == "page_fault" else None)
    assert sign(crash).signature == expected.format("no frames")
    assert sign(replace(crash, frames=stack("Panic"))).signature == expected.format("no telling frames")


def test_what_was_saved_of_the_own_pcpu_may_be_cut():
    own = stack("Panic", "NMI_Interrupt", "gate_entry", "poll", "drain@hbr_filter")
    for saved in ("poll", "spin"):
        frames = own + stack(saved, backtrace=1, pcpu=3)
        crash = Crash(kind="nmi", message="NMI IPI: Panic requested by another PCPU.", pcpu=3, frames=frames)
        assert sign(crash).signature == saved


def test_a_stall_signs_by_the_stalled_pcpu():
    own = stack("Panic", "Heartbeat_DetectCPULockups", "Timer_BHHandler")
    other = stack("lpfc_poll", backtrace=1, pcpu=118)
    bystander = stack("idle", backtrace=2, pcpu=3)
    message = "PCPU 118: no heartbeat (3/3 IPIs received)"
    crash = Crash(kind="no_heartbeat", message=message, frames=own + bystander + other)
    assert sign(crash).signature == "lpfc_poll"
    assert sign(replace(crash, frames=own)).signature == "no_heartbeat: stalled PCPU's backtrace not in the text"


def test_nothing_of_the_host_or_the_build_moves_a_signature():
    frames = (
        Frame(
            index=0, function="memcpy", module="vmkernel", address=0x418000001000, offset=0x10, frame_pointer=1, stack=2
        ),
        Frame(index=1, function="hpsa_scan_start", module=None, address=0x418000002000, offset=0x20),
    )
    message = "#PF Exception 14 in world 1:a IP 0x1 addr 0x0"
    crash = Crash(kind="page_fault", host="esx1", message=message, frames=frames)
    places = ({"address": 0x420000000000 + i, "offset": 999 + i} for i in range(2))
    moved = tuple(
        replace(f, **place, module_version="9.9", module="hpsa") for f, place in zip(frames, places, strict=True)
    )
    other = replace(
        crash, host="esx2.example.com", world_id=77, world_name="b", kind="general_protection", esxi_build="1", driver_version="2",
        message="#GP Exception 13 in world 77:b @ 0x2", frames=moved, pcpu=3,
    )  # fmt: skip
    assert sign(crash).signature == sign(other).signature
    assert sign(crash).proto_signature == sign(other).proto_signature


def test_a_deeper_stack_does_not_move_a_signature_and_a_cut_one_does_not_invent():
    short = sign(Crash(frames=stack("hpsa_isr", "x"))).signature
    assert sign(Crash(frames=stack("hpsa_isr", "x", "y", "z"))).signature == short
    assert sign(Crash(frames=stack("hpsa_isr"))).signature == short


def test_a_check_that_fails_inside_an_interrupt_keeps_its_handler():
    names = ("Panic", "Assert", "ixgbe_poll", "gate_entry_", "CpuSchedIdleLoop")
    assert sign(Crash(kind="panic", frames=stack(*names))).signature == "ixgbe_poll"
    driver = tuple(replace(f, module="ixgbe") if f.function == "ixgbe_poll" else f for f in stack(*names))
    assert sign(Crash(kind="page_fault", frames=driver)).signature == "ixgbe_poll"


def test_the_proto_signature_keeps_every_frame():
    wanted = "Panic | Heap_Free | ? | kthread"
    assert sign(Crash(frames=stack("Panic", "Heap_Free", None, "kthread"))).proto_signature == wanted
    assert sign(Crash()).proto_signature is None


def test_junk_at_the_end_of_the_stack_is_dropped():
    junk = Frame(index=1, function="__some_data", offset=0xE6C3AEB5)
    assert sign(Crash(kind="panic", frames=(*stack("Panic"), junk))).signature == "no telling frames: panic"


def test_every_change_is_noted():
    crash = Crash(kind="page_fault", frames=stack("Panic_Exception", "Log_Event", "Heap_Free", "kthread", "x"))
    notes = "\n".join(sign(crash).notes)
    assert "drop_delivery: 1 frames up to Panic_Exception" in notes
    assert "drop_irrelevant: Log_Event (irrelevant.txt:" in notes and "-> Heap_Free | x" in notes


def test_a_rule_that_fails_does_not_lose_the_crash(monkeypatch):
    def broken(draft):
        raise KeyError("oops")

    monkeypatch.setattr(module, "RULES", (broken, *module.RULES))
    signed = sign(Crash(frames=stack("hpsa_isr")))
    assert signed.signature == "hpsa_isr"
    assert "broken: failed, KeyError: 'oops'" in signed.notes


def test_without_any_rule_there_is_still_a_bucket(monkeypatch):
    monkeypatch.setattr(module, "RULES", ())
    assert sign(Crash(kind="nmi")).signature == "no frames: nmi"


def test_length_and_version():
    signed = sign(Crash(frames=stack("f" * 1000)))
    assert len(signed.signature) == MAX_LENGTH


@pytest.mark.parametrize(
    ("frame", "name"),
    [(Frame(function="hpsa_isr"), "hpsa_isr"), (Frame(function="hpsa_isr+0x39c"), "hpsa_isr"),
     (Frame(function="hpsa_isr'@'<None>"), "hpsa_isr"), (Frame(module="hpsa"), "hpsa:?"), (Frame(), "?"),
     (Frame(function="@#"), "?")],
)  # fmt: skip
def test_frame_names(frame, name):
    assert frame_name(frame) == name


@pytest.mark.parametrize("file", ["irrelevant.txt", "prefix.txt", "sentinel.txt"])
def test_no_driver_function_is_plumbing_by_accident(file):
    names = "hpsa_update_scsi_devices bnx2x_poll qla24xx_process NetSchedFIFOInput VmMemPf_PreallocRange ip_init"
    rules = read_rules(file, mapped=file == "prefix.txt")
    assert not [name for name in names.split() for rule in rules if rule.fits(name)]


@pytest.mark.parametrize("kind", ["machine_check", "nmi", "spin_count", "other"])
def test_a_giant_message_and_text_cost_little_and_change_nothing(kind):
    words = "Machine Check Exception bank "
    crash = Crash(kind=kind, message=words * 20_000, text=words * 20_000)
    assert sign(crash).signature == sign(Crash(kind=kind, message=words * 40, text=words * 40)).signature


def test_a_machine_check_that_lost_its_header_is_one_by_its_handler():
    frames = stack("MCEHandler", "gate_entry", "ixgbe_poll")
    text = "cpu3:1)MCA: 208: UC Excp G4 B6 Sbb00002000000e0b I/O error reported by PCI 0000:00:03.0."
    crash = Crash(frames=frames, text=text)
    assert sign(crash).signature == "machine_check: bank 6 I/O error"
    assert find_guilty(crash).guilt == "hardware"
    # A handler that itself faults is no machine check, and neither is a lock whose name begins alike.
    assert find_guilty(replace(crash, kind="page_fault")).module == "ixgbe"
    assert find_guilty(Crash(frames=stack("MCSLockWork", "ixgbe_poll"))).module == "ixgbe"
