"""Text -> judged crashes, and the explanation that people read."""

from __future__ import annotations

from datetime import timedelta

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
    assert (crash.guilty_module, crash.guilty_function, crash.guilt) == (
        "hpsa",
        "hpsa_update_scsi_devices",
        "symbol_prefix",
    )
    assert crash.signature == "hpsa_update_scsi_devices"
    assert crash.proto_signature == "hpsa_update_scsi_devices | hpsa_scan_start | kthread | CpuSched_StartWorld"
    assert [frame.module_evidence for frame in crash.frames] == ["symbol_prefix", "symbol_prefix", "printed", "printed"]
    assert crash.uptime == timedelta(days=3, hours=20, minutes=14, seconds=10.166)
    assert crash.driver_version is None


def test_both_spellings_of_no_module_read_alike():
    (one,), (other,) = parse_crashes(LOG), parse_crashes(LOG.replace("@<None>#<None>", "@#"))
    assert (one.signature, one.proto_signature, one.guilty_module) == (
        other.signature,
        other.proto_signature,
        other.guilty_module,
    )


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
    assert (crash.guilt, crash.guilty_module, crash.deliberate, crash.signature) == (
        "deliberate",
        None,
        True,
        "deliberate",
    )


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
