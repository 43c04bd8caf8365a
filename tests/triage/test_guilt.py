"""Who is blamed, by which evidence, and who is not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from psodlib.evidence.psod import find_crashes
from psodlib.records import Crash, Frame, Module, Precursor
from psodlib.schema import CLOSED_LISTS
from psodlib.triage import guilt
from psodlib.triage.crashes import parse_crashes
from psodlib.triage.frames import MAX_TEXT, attribute_frames, telling_frames
from psodlib.triage.guilt import find_guilty
from psodlib.triage.lists import read_rules
from psodlib.triage.modules import is_plumbing


def stack(*names: str, backtrace: int = 0, pcpu: int | None = None) -> tuple[Frame, ...]:
    """`function@module` words -> frames; without a module the dump printed none."""
    frames = []
    for index, name in enumerate(names):
        function, _, module = name.partition("@")
        printed = {"module": module, "module_evidence": "printed"} if module else {}
        frames.append(Frame(backtrace=backtrace, pcpu=pcpu, index=index, function=function or None, **printed))
    return tuple(frames)


INCIDENT = stack(
    "hpsa_update_scsi_devices", "hpsa_scan_start", "hpsa_kickoff_rescan", "kthread@com.vmware.driverAPI",
    "LinuxStartFunc@com.vmware.driverAPI", "vmkWorldFunc@vmkernel", "CpuSched_StartWorld@vmkernel",
)  # fmt: skip


def verdict(*names: str, **fields) -> tuple[str | None, str | None, str]:
    found = find_guilty(Crash(frames=stack(*names), **fields))
    return found.module, found.function, found.guilt


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["hpsa_isr@hpsa", "x@vmkernel"], ("hpsa", "hpsa_isr", "on_stack")),
        (["Panic@vmkernel", "vmk_Memset@vmkernel", "EQOSEnable@eqos"], ("eqos", "EQOSEnable", "on_stack")),
        # The innermost module that is no plumbing, whichever kind of evidence names it.
        (["hpsa_isr", "nmp_Issue@nmp"], ("hpsa", "hpsa_isr", "symbol_prefix")),
        (["panic@tcpip4", "ip_init@tcpip4"], ("tcpip4", "ip_init", "on_stack")),
        # Plumbing is never blamed.
        (["netdev_tx@com.vmware.driverAPI", "x@vmkernel", "LinuxStartFunc@vmklinux_9"], (None, None, "none")),
        # 4.x prints every Linux driver as `esx`; a module of its own goes first.
        (["DLM_free@vmkernel", "hid_disconnect@esx"], ("usb", "hid_disconnect", "symbol_prefix")),
        (["hid_disconnect@esx", "x@hpsa"], ("hpsa", "x", "on_stack")),
        # A module known better by another frame counts by that.
        (["hpsa_isr", "hpsa_poll@hpsa"], ("hpsa", "hpsa_isr", "on_stack")),
        # Nobody.
        (["SP_WaitLock@vmkernel", "TeamES_Output"], (None, None, "none")),
        ([], (None, None, "none")),
    ],
)
def test_by_the_stack(names, expected):
    assert verdict(*names) == expected


def test_the_incident_is_laid_at_its_driver():
    found = find_guilty(Crash(kind="page_fault", world_name="vmklinux_9:h", frames=INCIDENT))
    assert (found.module, found.function, found.guilt) == ("hpsa", "hpsa_update_scsi_devices", "symbol_prefix")
    assert [suspect.module for suspect in found.suspects] == ["hpsa"]


def test_the_kernels_list_names_who_waited():
    text = "Module(s) involved in panic: [nsxt-vsip-1 Built on: Jun 11 2024]"
    frames = stack("SP_WaitLock@vmkernel", "VSIPInput@nsxt-vsip-1") + stack("poll@ilo", backtrace=1, pcpu=2)
    message = "Spin count exceeded (x) - possible deadlock with PCPU 2"
    crash = Crash(kind="spin_count", message=message, text=text, frames=frames)
    assert [one.module for one in find_guilty(crash).suspects] == ["ilo", "nsxt-vsip-1"]
    assert find_guilty(replace(crash, kind="page_fault", message="#PF Exception 14")).module == "nsxt-vsip-1"


# ---- frames without a module ----------------------------------------------------------------------------------------

MAP = (
    Module(module="vmkernel", base=None),
    Module(module="vmklinux", base=0x418018800000),
    Module(module="hpsa", base=0x418018B7E000),
    Module(module="lpfc", base=0x418018C00000),
)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (Frame(address=0x418018B7E594, function="x"), ("hpsa", "module_map")),
        (Frame(address=0x418018B7E000), ("hpsa", "module_map")),
        (Frame(address=0x418018B7DFFF, function="x"), ("vmklinux", "module_map")),
        (Frame(address=0x418018000000, function="x"), (None, None)),
        (Frame(address=0x418018C00000 + MAX_TEXT + 1, function="x"), (None, None)),
        (Frame(address=0x418018000000, function="hpsa_isr"), ("hpsa", "symbol_prefix")),
        (Frame(address=0x418018B7E594, module="printed", module_evidence="printed"), ("printed", "printed")),
        (Frame(address=0x418018B7E594, function="__vmk_versionInfo_str", offset=0xE6C3AEB5), (None, None)),
        (Frame(), (None, None)),
    ],
)
def test_attribution(frame, expected):
    crash = Crash(frames=(frame,), modules=MAP)
    named = attribute_frames(crash).frames[0]
    assert (named.module, named.module_evidence) == expected
    assert crash.frames[0] is frame
    assert attribute_frames(attribute_frames(crash)) == attribute_frames(crash)


def test_a_map_that_lacks_a_module_attributes_nothing_behind_it():
    printed = Frame(index=0, address=0x418018B80000, function="bnx2_poll", module="bnx2", module_evidence="printed")
    lost = Frame(index=1, address=0x418018B90000, function="x")
    assert attribute_frames(Crash(frames=(printed, lost), modules=MAP)).frames[1].module is None


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("bnx2x_poll", ("bnx2x", "symbol_prefix")),  # the map lost bnx2x's line
        ("lpfc_poll", ("hpsa", "module_map")),  # the map has lpfc, elsewhere: it knows better than a name
        ("be_xmit", ("hpsa", "module_map")),  # too short a prefix to overrule anything
    ],
)
def test_a_symbol_overrules_a_map_only_where_that_lost_a_line(function, expected):
    frame = Frame(address=0x418018B7E594, function=function)
    named = attribute_frames(Crash(frames=(frame,), modules=MAP)).frames[0]
    assert (named.module, named.module_evidence) == expected


@pytest.mark.parametrize(
    ("function", "loaded", "module"),
    [("be_char_ioctl", (), "be2iscsi"), ("be_xmit", (), "be2net"), ("ixgbe_poll", ("ixgben",), "ixgben"),
     ("ixgbe_poll", ("ixgbe", "ixgben"), "ixgbe"), ("bnx2x_poll", (), "bnx2x"), ("bnx2_poll", (), "bnx2"),
     ("e1000e_poll", (), "e1000e"), ("qla24xxProcessResponseQueue", ("qlnativefc",), "qlnativefc"),
     ("nothing_known", (), None)],
)  # fmt: skip
def test_symbol_prefixes(function, loaded, module):
    modules = tuple(Module(module=name) for name in loaded)
    assert attribute_frames(Crash(frames=stack(function), modules=modules)).frames[0].module == module


# ---- off the stack --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"kind": "user_requested", "message": "CrashMe"}, "deliberate"),
        ({"deliberate": True}, "deliberate"),
        ({"kind": "machine_check"}, "hardware"),
        ({"kind": "nmi"}, "hardware"),
        ({"kind": "other", "message": "PSOD due to PCI bus error"}, "hardware"),
        ({"kind": "other", "message": "HW feature incompatibility detected; cannot start"}, "hardware"),
    ],
)
def test_the_stack_is_out_of_play(fields, expected):
    found = find_guilty(Crash(frames=INCIDENT, **fields))
    assert (found.module, found.guilt) == (None, expected)
    assert [suspect.module for suspect in found.suspects] == ["hpsa"]


def test_a_contained_device_is_hardware():
    assert verdict("Panic@vmkernel", "PCIEDPC_EDRHandler@vmkernel")[2] == "hardware"


def test_the_kernel_names_a_module():
    wanted = ("vmklinux", None, "named_by_kernel")
    assert verdict("x@vmkernel", message="BUG: failure at a.h:1/f()! (inside vmklinux)") == wanted
    text = "Module(s) involved in panic: [vmkernel 9.0], [vmklinux 9.2], [nvme_pcie 1.2.4.11-1vmw (VMW)]"
    assert verdict("a@tcpip4", "nvme_poll@nvme_pcie", text=text) == ("nvme_pcie", "nvme_poll", "named_by_kernel")


@pytest.mark.parametrize(
    ("name", "module"),
    [("hpsa_monitor", "hpsa"), ("usb", "usb"), ("vmklinux_9:h", None), ("idle51", None), ("nmlx4_en-0", "nmlx4_en"), ("nmlx5_core", "nmlx5_core"),
     ("nvme_pcie-hb", "nvme_pcie"), ("res3HelperQu", "vmfs3"), ("vmklinux_9:hpsa", None)],
)  # fmt: skip
def test_whose_world_it_is(name, module):
    assert verdict("x@vmkernel", world_name=name)[0] == module


@pytest.mark.parametrize("kind", ["no_heartbeat", "lost_heartbeat", "tlb_timeout"])
def test_the_messenger_of_a_stall_is_not_blamed(kind):
    own = stack("Panic@vmkernel", "TLBDoInvalidate@vmkernel", "hpsa_free@hpsa")
    crash = Crash(kind=kind, message="PCPU 5 locked up", frames=own, world_name="hpsa_worker")
    assert find_guilty(crash).guilt == "none"
    stalled = (*stack("x@vmkernel", "lpfc_poll@lpfc", backtrace=1, pcpu=5),)
    found = find_guilty(replace(crash, frames=own + stalled))
    assert (found.module, found.function) == ("lpfc", "lpfc_poll")
    assert any("victim" in note for note in found.notes)


def test_without_a_messenger_on_it_the_stack_is_the_stalled_one():
    assert verdict("lpfc_poll@lpfc", kind="no_heartbeat") == ("lpfc", "lpfc_poll", "on_stack")
    assert telling_frames(Crash(kind="no_heartbeat")) == ()


@pytest.mark.parametrize(
    ("kind", "names"),
    [("heap_corruption", ["x@hpsa"]), ("spin_count", ["x@hpsa"]), ("page_fault", ["DLM_free@vmkernel", "x@hpsa"])],
)
def test_victims_say_so(kind, names):
    notes = find_guilty(Crash(kind=kind, frames=stack(*names))).notes
    assert any("a victim is not a culprit" in note for note in notes)


# ---- before the crash -----------------------------------------------------------------------------------------------

WHEN = datetime(2014, 5, 31, 15, 57, tzinfo=UTC)


def warned(module: str, *hours_before: float) -> list[Precursor]:
    return [Precursor(time=WHEN - timedelta(hours=h), what="out_of_memory", module=module) for h in hours_before]


@pytest.mark.parametrize(
    ("precursors", "module"),
    [
        (warned("hpsa", 1, 2, 3), "hpsa"),
        # No more than on any other day.
        (warned("hpsa", 1, *range(30, 300, 24)), None),
        # A leak among the usual noise of another.
        (warned("hpsa", *range(1, 20)) + warned("lpfc", 1, *range(30, 300, 24)), "hpsa"),
        # After the crash, or long before.
        (warned("hpsa", -1), None),
        (warned("hpsa", 100), None),
        # Plumbing.
        (warned("vmklinux", 1, 2, 3), None),
        ([Precursor(time=None, what="device_reset", module="hpsa")], "hpsa"),
        ([Precursor(time=WHEN, what="device_reset")], None),
        # A word that is nobody's name.
        (warned("cpu4", 1, 2, 3), None),
    ],
)
def test_precursors(precursors, module):
    crash = Crash(kind="page_fault", time=WHEN, frames=stack("Heap_Free@vmkernel", "x@vmkernel"))
    found = find_guilty(crash, precursors)
    assert (found.module, found.guilt) == (module, "precursor_log" if module else "none")


def test_the_stack_goes_before_the_log():
    found = find_guilty(Crash(time=WHEN, frames=stack("x@lpfc")), warned("hpsa", 1, 2, 3))
    assert [suspect.module for suspect in found.suspects] == ["lpfc", "hpsa"]


# ---- tables ---------------------------------------------------------------------------------------------------------


def test_each_hardware_pattern_matches_its_own_sample():
    for pattern, sample in guilt._HARDWARE:
        assert pattern.search(sample), sample


def test_no_module_of_the_prefix_table_is_plumbing():
    rules = read_rules("symbol_prefixes.txt", mapped=True, plain=True)
    names = {name for rule in rules for name in (rule.value or "").split("|")}
    assert not [name for name in names if is_plumbing(name) and name != "libata"]
    assert len(rules) == len({rule.pattern for rule in rules}), "each prefix is written once"


# ---- real crashes ---------------------------------------------------------------------------------------------------

# Where the verdict differs from what the page's author blames, and why that is right: the text does not show it.
DIFFERS = {
    "134_runqueue_state_frames_noaddr": "a broken CPU by the article; the text shows the scheduler alone",
    "139_frame_res3_esx_nooffset": "the page blames nobody; Res3 is VMFS's, under the name of 4.x for it",
    "142_exc14_vsansparse_nomnemonic": "a title; its one symbol stands in no frame",
    "050_pf14_cam_taskq_null": "the author blames firmware of the BMC, which is no module; the text is one line without a stack",
    "056_tlb_pcc_hp_esxi50": "hardware by the article; the text shows only a PCPU that did not answer (known issue c03543898)",
    "057_noheartbeat_pcc_hp_esxi50": "the same article",
    "058_damaged_pcc_two_crashes_joined": "the same article",
    "059_tlb_hpsa_itechlounge": "hpsa by hearsay; the text has no frames and names no module",
}


def test_the_corpus_case_by_case(shared):
    cases = sorted((shared / "corpus" / "crashes").glob("*.json"))
    assert cases
    wrong = []
    for file in cases:
        label = json.loads(file.read_text(encoding="utf-8"))
        blamed = label["blamed"]["module"]
        for crash in parse_crashes(file.with_suffix(".log").read_bytes()):
            found = crash.guilt if crash.guilt in ("hardware", "deliberate") else crash.guilty_module
            why = DIFFERS.get(file.stem, "as blamed")
            print(f"{file.stem:42} blamed {blamed or '-':14} found {found or '-':14} {crash.guilt:16} {why}")
            if (found == blamed) is (file.stem in DIFFERS):
                wrong.append((file.stem, blamed, found))
    assert not wrong


def test_the_real_incident(shared):
    (crash,) = find_crashes((shared / "incident" / "vmkernel-log.1").read_bytes())
    found = find_guilty(crash)
    assert (found.module, found.function, found.guilt) == ("hpsa", "hpsa_update_scsi_devices", "symbol_prefix")


def test_every_kind_of_guilt_is_of_the_closed_list():
    named = {"named_by_kernel", "on_stack", "module_map", "symbol_prefix", "world_name", "precursor_log"}
    assert named < set(CLOSED_LISTS["guilt"])


@pytest.mark.parametrize(
    ("function", "module"),
    [
        ("mlx4_en_xmit", "mlx4_en"), ("nmlx4_en_TxPost", "nmlx4_en"), ("nmlx4_QueryPort", "nmlx4_core"),
        ("qla82xx_poll", "qla2xxx"), ("_scsih_io_done", "mpt2sas"), ("NvmeQueue_Construct", "nvme"), ("ahciAbortIO", "vmw_ahci"),
        ("ahci_interrupt", "ahci"), ("psp_rrSelectPathToActivate", "vmw_psp_rr"), ("satp_alua_issueCommandOnPath", "vmw_satp_alua"),
        ("FS3TruncateFile", "vmfs3"), ("J6CommitTxn", "vmfs3"), ("Fil6ReadBlocks", "vmfs3"), ("NFS41Session", "nfs41client"), ("PLOG_DeviceIO", "plog"), ("rtl8168_poll", "r8168"),
        # The kernel's own, which must stay nobody's.
        ("SCSIIssueAsyncPathCommand", None), ("NetSchedFIFOInput", None), ("FSS_Open", None), ("MCSLockWork", None),
    ],
)  # fmt: skip
def test_whose_symbol_it_is(function, module):
    assert find_guilty(Crash(frames=(Frame(index=0, function=function),))).module == module
