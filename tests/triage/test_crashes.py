"""Text -> judged crashes, and the explanation that people read."""

from __future__ import annotations

from datetime import timedelta

import pytest

from psodlib.records import Crash, Frame, Module
from psodlib.triage.crashes import explain, judge, parse_crashes

LOG = """\
2014-03-01T10:00:00.001Z cpu4:9001)@BlueScreen: #PF Exception 14 in world 9001:vmklinux_9:h IP 0x418001b7e594 addr 0x0
2014-03-01T10:00:00.001Z cpu4:9001)Code start: 0x418001200000 VMK uptime: 3:20:14:10.166
2014-03-01T10:00:00.001Z cpu4:9001)0x412426e5dda0:[0x418001b7e594]hpsa_update_scsi_devices@<None>#<None>+0x39c stack: 0x410b0c037060
2014-03-01T10:00:00.002Z cpu4:9001)0x412426e5de20:[0x418001b7f28f]hpsa_scan_start@<None>#<None>+0x187 stack: 0x412426e5de60
2014-03-01T10:00:00.002Z cpu4:9001)0x412426e5df30:[0x41800190175d]kthread@com.vmware.driverAPI#9.2+0x185 stack: 0x0
2014-03-01T10:00:00.002Z cpu4:9001)0x412426e5dff0:[0x418001453532]CpuSched_StartWorld@vmkernel#nover+0xfa stack: 0x0
"""

LEAK = """\
2014-03-01T09:58:00.001Z cpu4:9001)WARNING: Heap: 3058: Heap hpsa already at its maximum size. Cannot expand.
2014-03-01T09:59:00.001Z cpu4:9001)WARNING: Heap: 3058: Heap hpsa already at its maximum size. Cannot expand.
2014-03-01T10:00:00.001Z cpu4:9001)@BlueScreen: #PF Exception 14 in world 9001:idle4 IP 0x418001b7e594 addr 0x0
2014-03-01T10:00:00.001Z cpu4:9001)Code start: 0x418001200000 VMK uptime: 3:20:14:10.166
2014-03-01T10:00:00.001Z cpu4:9001)0x412426e5dda0:[0x418001b7e594]Heap_Free@vmkernel#nover+0x39c stack: 0x410b0c037060
"""


def test_a_log_gives_a_judged_crash():
    (crash,) = parse_crashes(LOG)
    wanted = ("hpsa", "hpsa_update_scsi_devices", "symbol_prefix")
    assert (crash.guilty_module, crash.guilty_function, crash.guilt) == wanted
    assert crash.signature == "hpsa_update_scsi_devices"
    assert crash.proto_signature == "hpsa_update_scsi_devices | hpsa_scan_start | kthread | CpuSched_StartWorld"
    assert [frame.module_evidence for frame in crash.frames] == ["symbol_prefix", "symbol_prefix", "printed", "printed"]
    assert crash.uptime == timedelta(days=3, hours=20, minutes=14, seconds=10.166)
    assert crash.driver_version is None


def test_both_spellings_of_no_module_read_alike():
    (one,), (other,) = parse_crashes(LOG), parse_crashes(LOG.replace("@<None>#<None>", "@#"))
    wanted = (other.signature, other.proto_signature, other.guilty_module)
    assert (one.signature, one.proto_signature, one.guilty_module) == wanted


def test_bytes_and_line_ends_make_no_difference():
    (one,), (other,) = parse_crashes(LOG), parse_crashes(LOG.replace("\n", "\r\n").encode())
    assert (one.signature, one.guilt) == (other.signature, other.guilt)


def test_a_leak_is_laid_at_its_drivers_door_by_what_the_log_said_before():
    (crash,) = parse_crashes(LEAK)
    assert (crash.guilty_module, crash.guilt) == ("hpsa", "precursor_log")
    after = "\n".join([*LEAK.split("\n")[2:], *LEAK.split("\n")[:2]])
    assert [crash.guilt for crash in parse_crashes(after)] == ["none"]


def test_no_crash_is_no_crash():
    assert parse_crashes("") == parse_crashes(b"\x00\xff") == parse_crashes("nothing happened\n") == []


def test_judging_again_changes_nothing():
    (crash,) = parse_crashes(LOG)
    assert judge(crash) == crash


def test_a_crash_that_was_asked_for():
    crash = judge(Crash(kind="user_requested", message="CrashMe", frames=(Frame(function="hpsa_isr"),)))
    wanted = ("deliberate", None, True, "deliberate")
    assert (crash.guilt, crash.guilty_module, crash.deliberate, crash.signature) == wanted


def test_explain_gives_every_frame_and_every_suspect_its_reason():
    frames = (
        Frame(index=0, function="Panic", module="vmkernel"),
        Frame(index=1, function="Heap_Free", module="vmkernel"),
        Frame(index=2, function="x", address=0x41001000),
        Frame(index=3, function="y", module="lpfc"),
        Frame(index=4, function="z"),
        Frame(index=5, function="w", offset=1 << 40),
        Frame(index=0, backtrace=1, function="other"),
    )
    text = explain(Crash(kind="page_fault", frames=frames, modules=(Module(module="hpsa", base=0x41000000),)))
    for words in (
        "irrelevant: prints the screen", "plumbing", "hpsa (module_map)", "module unknown", "junk", "not the backtrace that can tell",
        "frame 2, x, lies in hpsa by the module map", "frame 3, y, is printed as lpfc", "a victim is not a culprit", "Heap_Free | x",
    ):  # fmt: skip
        assert words in text, words


def test_explain_of_nothing():
    assert "nobody" in explain(Crash())


def test_explain_tells_known_issues_with_what_held_and_what_cannot_be_told():
    frames = (Frame(index=0, function="hpsa_scan_start", module="hpsa", module_evidence="printed"),)
    text = explain(Crash(kind="page_fault", frames=frames, esxi_version="5.5.0"))
    assert "KB2075978 (reported)" in text
    assert "held: module, esxi, stack; cannot be told: versions" in text
    assert "KB2075978" not in explain(Crash(kind="page_fault", frames=frames, esxi_version="6.0.0"))


# ---- forms in which people pass crashes on ---------------------------------------------------------------------------

TABLES = """\
2019-05-02T07:08:09.101Z cpu6:20311)World: 9729: PRDA 0x418041800000 ss 0x0 ds 0x4018 es 0x4018 fs 0x0 gs 0x0
2019-05-02T07:08:09.101Z cpu6:20311)World: 9731: TR 0x4000 GDT 0xfffffffffc60a000 (0xffff) IDT 0xfffffffffc608000 (0xffff)
"""
LIVING = """\
2019-05-02T07:08:09.140Z cpu6:20311)Backtrace for current CPU #6, worldID=20311, rbp=0x430011aa2e30
2019-05-02T07:08:09.140Z cpu6:20311)0x4390a011b4a0:[0x41800a325397]ntg3_TxDrain@(ntg3)#<None>+0x3b stack: 0x1, 0x2, 0x3
2019-05-02T07:08:09.140Z cpu6:20311)0x4390a011b4d0:[0x41800994e998]IOChain_Resume@vmkernel#nover+0x210 stack: 0x1, 0x2, 0x3
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        # The kernel's areas before a backtrace: a panic, though no line says so.
        (TABLES + LIVING, {"guilty_module": "ntg3", "pcpu": 6, "world_id": 20311}),
        # Masks of four signs, a symbol's offset among them.
        (
            "Al(1) LogEFI[77]: #PF Exception 14 in world ####:qedf_rx_0 IP 0#### addr 0####\n"
            "In(14) LogEFI: cpu#:####)####:[0x####]qedf_process_els@(qedf)#<None>+0####stack: 0####\n",
            {"guilty_function": "qedf_process_els", "world_id": None, "world_name": "qedf_rx_0"},
        ),
        # Letters for figures, and blanks where none belong.
        ("0xnnnnnnnn :[ 0xnnnnnnnn ]Panic_Exception@vmkernel#nover+0x258\n0xnnnnnnnn :[ 0xnnnnnnnn ]mpt2sas_poll@mpt2sas#1+0x8",
         {"guilty_module": "mpt2sas"}),
        # A number that is masked at its end is no number.
        ("#PF Exception 14 in world 209####:HELPER_NET IP 0x420019311797 addr 0x38\n", {"world_id": None, "world_name": "HELPER_NET"}),
        # What the hardware reported right before belongs to the crash.
        (
            "cpu5:2097171)MCA: 191: UC Excp G5 B9 Sbb80000000000e0b A0 M10100000 P0/0 Bus error\n"
            "@BlueScreen: Machine Check Exception on PCPU5 in world 2097171:netCoalesce2\n",
            {"signature": "machine_check: bank 9 Bus error", "guilt": "hardware"},
        ),
        ("cpu2:2098206)NMI: 1031: ApeiHESTNmiHandler requested PSOD\n", {"pcpu": 2, "world_id": 2098206, "guilt": "hardware"}),
        ("@BlueScreen: CPU 7 / World 68776 tried to re-acquire lock\n", {"pcpu": 7, "world_id": 68776}),
        ("IOMMU UNIT 3 did not complete processing of a queued invalidation wait descriptor after 4 secs.\n",
         {"kind": "iommu_fault", "guilt": "hardware"}),
        # A debugger's stack, where it shows the kernel's own source.
        (
            "#0  DLM_free (msp=0x431a455dcca0, mem=<optimized out>) at bora/vmkernel/main/dlmalloc.c:4924\n"
            "#1  0x0000418012343ffa in lpfc_free_buf (heap=0x431a455dc000) at /build/lpfc/lpfc_mem.c:4314\n",
            {"guilty_module": "lpfc", "kind": "other"},
        ),
        ("Version Details: VMware ESXi 6.7.0 build-16075168\n@BlueScreen: Bad block\n", {"esxi_build": "16075168"}),
        ("ESC[45mESC[33;1mVMware ESXi 9.0.0 [Releasebuild-24755229 x86_64]ESC[0m\n@BlueScreen: Bad block\n", {"esxi_version": "9.0.0"}),
    ],
)  # fmt: skip
def test_forms(text, told):
    (crash,) = parse_crashes(text)
    assert {name: getattr(crash, name) for name in told} == told


def test_a_backtrace_of_a_host_that_lives_on_or_of_a_process_is_no_crash():
    assert parse_crashes(LIVING) == []
    debugged = "#0  0x00000000 in Panic_Loop (x=1) at bora/lib/panic/panic.c:99\n#1  0x00000001 in main () at bora/vmx/main.c:7\n"
    assert parse_crashes(debugged) == []
