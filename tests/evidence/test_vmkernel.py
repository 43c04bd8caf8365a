"""Crash text: the tables hold their own samples, golden files read as written down, invariants hold on every one of them."""

from __future__ import annotations

import io
import json
import os
import re
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from wrappings import DRESSES

from psodlib.evidence import dress, pieces, psod_lines, vmkernel, vmkernel_lines
from psodlib.evidence.psod import find_crashes
from psodlib.evidence.vmkernel import modules_named_by_kernel, read_vmkernel
from psodlib.records import DAMAGE, Crash, FileReading
from psodlib.schema import CLOSED_LISTS
from psodlib.triage.copies import same_crash

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "vmkernel").glob("*.log"))
CRASHES = [path for path in GOLDEN if not path.name.startswith("none_")]
NEGATIVES = [path for path in GOLDEN if path.name.startswith("none_")]
FIELDS = (
    "crash_id", "host", "time", "esxi_version", "esxi_build", "kind", "message", "exception", "pcpu", "world_id", "world_name", "ip",
    "fault_address", "code_start", "uptime", "deliberate", "damage", "line", "offset",
)  # fmt: skip
FRAME_FIELDS = (
    "backtrace", "pcpu", "index", "frame_pointer", "address", "function", "module", "module_version", "offset", "stack", "module_evidence",
)  # fmt: skip
# Of one line: in a document that is what it calls its message, not a text of several lines.
MOMENT = datetime(2016, 3, 1, 1, 0, tzinfo=UTC)
UNDRESSED = {
    "a string": ("joined_lines_from_a_mail_55",),
    # Their messages have no stamp, the lines around them have one, of other years than the container's.
    **dict.fromkeys(("kubectl", "logcli"), ("form_other_cpu", "no_heartbeat_saved_backtrace_80")),
}


def names(path: Path) -> str:
    return path.stem


def read(data: bytes) -> FileReading:
    return read_vmkernel(io.BytesIO(data), "a.log")


def told(crash: Crash) -> dict[str, Any]:
    fields = {name: getattr(crash, name) for name in FIELDS}
    for name in ("ip", "fault_address", "code_start"):
        fields[name] = None if fields[name] is None else hex(fields[name])
    fields["time"] = crash.time and crash.time.isoformat()
    fields["uptime"] = crash.uptime and crash.uptime.total_seconds()
    frames = [[getattr(frame, name) for name in FRAME_FIELDS] for frame in crash.frames]
    modules = [[module.module, module.base] for module in crash.modules]
    return fields | {"frames": frames, "modules": modules}


# -- tables


@pytest.mark.parametrize("row", psod_lines.ROLES, ids=lambda row: f"{row.name}: {row.sample[:30]}")
def test_a_role_reads_its_sample_and_no_earlier_role_does(row: Any) -> None:
    assert next(role for role in psod_lines.ROLES if role.pattern.match(row.sample)) is row


@pytest.mark.parametrize(
    "row", [row for row in psod_lines.ROLES if row.anchors], ids=lambda row: f"{row.name}: {row.sample[:30]}"
)
def test_what_opens_a_block_is_found_by_the_search(row: Any) -> None:
    places = [at for _, at, _ in pieces.FINDER.find_matches_as_indexes(row.sample.encode())]
    assert any(row.sample.encode().startswith(anchor, at) for at in places for anchor in row.anchors), "its own anchor"


@pytest.mark.parametrize("row", psod_lines.KINDS, ids=lambda row: row[0])
def test_a_kind_reads_its_sample_and_no_earlier_kind_does(row: Any) -> None:
    assert next(kind for kind, _, pattern in psod_lines.KINDS if pattern.search(row[1])) == row[0]
    assert row[0] in CLOSED_LISTS["kind"]


@pytest.mark.parametrize("row", vmkernel_lines.ROWS, ids=lambda row: row.sample[:40])
def test_a_line_row_finds_and_reads_its_sample(row: Any) -> None:
    assert row.anchor in row.sample.encode()
    piece = pieces.read_line(row.sample.encode())
    match = row.pattern.search(row.sample if row in vmkernel_lines.FACTS else piece.body)
    assert match
    assert match.groupdict().get("module", "x") is not None


@pytest.mark.parametrize(("sample", "pattern"), dress.DRESSES)
def test_a_dress_is_taken_off_its_sample(sample: str, pattern: str) -> None:
    assert re.search(pattern.encode("latin-1"), sample.encode())
    start, end, _ = dress.undressed(sample.encode() + b"Oops", 0, len(sample) + 4)
    assert (sample.encode() + b"Oops")[start:end] == b"Oops"


# -- golden files


@pytest.mark.parametrize("path", GOLDEN, ids=names)
def test_golden(path: Path) -> None:
    found = [told(crash) for crash in find_crashes(path.read_bytes())]
    expected = path.with_suffix(".json")
    if os.environ.get("PSOD_UPDATE_GOLDEN"):
        expected.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert found == json.loads(expected.read_text())


def test_a_fifth_of_the_golden_files_are_negatives() -> None:
    assert len(NEGATIVES) * 5 >= len(GOLDEN)


@pytest.mark.parametrize("path", NEGATIVES, ids=names)
def test_negatives_hold_no_crash(path: Path) -> None:
    assert find_crashes(path.read_bytes()) == []
    assert read(path.read_bytes()).crashes == ()


# -- invariants


@pytest.mark.parametrize("path", CRASHES, ids=names)
def test_a_crash_read_from_its_own_text_is_itself(path: Path) -> None:
    for crash in find_crashes(path.read_bytes()):
        (again,) = find_crashes(crash.text)
        assert again.crash_id == crash.crash_id
        assert [f.address for f in again.frames] == [f.address for f in crash.frames]
        assert set(again.damage.split(";")) - {"joined_lines", ""} <= set(crash.damage.split(";"))


@pytest.mark.parametrize("path", CRASHES, ids=names)
def test_what_follows_a_crash_holds_none_of_it(path: Path) -> None:
    data = path.read_bytes()
    crash = find_crashes(data)[-1]
    assert crash.offset is not None
    assert find_crashes(data[crash.offset + len(crash.text.encode()) :]) == []


@pytest.mark.parametrize("path", CRASHES, ids=names)
def test_noise_line_ends_and_receivers_change_nothing(path: Path) -> None:
    data = path.read_bytes().replace(b"\r\n", b"\n")
    plain = [crash.crash_id for crash in find_crashes(data)]
    noise = b"2016-03-01T00:00:00.000Z cpu1:3)Net: 1: link up\n" * 40
    assert [crash.crash_id for crash in find_crashes(data.replace(b"\n", b"\r\n"))] == plain
    assert [crash.crash_id for crash in find_crashes(noise + data + b"\n" + noise)] == plain
    assert [crash.crash_id for crash in find_crashes(b"\0" * 5000 + b"\n" + data)] == plain
    if data.startswith(b"2016"):
        received = re.sub(rb"(?m)^(2016\S+Z) cpu", rb"<181>\1 esx-a.example.org vmkernel: cpu", data)
        if b" vmkernel: " in received and "joined" not in path.name:
            assert [crash.crash_id for crash in find_crashes(received)] == plain
            assert {crash.host for crash in find_crashes(received)} == {"esx-a.example.org"}


@pytest.mark.parametrize("name", DRESSES)
def test_what_people_put_around_lines_changes_nothing(name: str) -> None:
    dressed = DRESSES[name]
    for path in (path for path in GOLDEN if path.stem not in UNDRESSED.get(name, ())):
        plain, found = find_crashes(path.read_bytes()), find_crashes(dressed(path.read_bytes()))
        assert [crash.message for crash in found] == [crash.message for crash in plain], path.stem
        for one, other in zip(plain, found, strict=True):  # a container's stamp is the time of a crash that has none
            assert other.crash_id == one.crash_id or (one.time is None and other.time == MOMENT), path.stem
            assert other.time == one.time or other.time == MOMENT, path.stem


BROKEN = """2016-03-04T05:06:07.100Z cpu7:33445)@BlueScreen: #PF Exception 14 in world 33445:scanworker IP 0x418002b7e594 addr 0x4108fffffff0
PTEs:0x20aa;0x0;
2016-03-04T05:06:07.101Z cpu7:33445)Code start: 0x418002200000 VMK uptime: 13:04:05:06.789
2016-03-04T05:06:07.102Z cpu7:33445)0x412400a5dda0:[0x418002b7e594]acme_rescan_targets@(acmenic)#<None>+0x39c stack: 0x412400a5dde0
2016-03-04T05:06:07.103Z cpu7:33445)0x412400a5ddf0:[0x418002b7f001]acme_scan_thread@(acmenic)#<None>+0x1fa stack: 0x0
"""


def broken(text: str, width: int, at_words: bool) -> str:
    if at_words:
        return "\n".join(
            textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) for line in text.split("\n")
        )
    return "\n".join(line[at : at + width] for line in text.split("\n") for at in range(0, len(line) or 1, width))


@pytest.mark.parametrize("at_words", [True, False])
@pytest.mark.parametrize("width", [72, 76, 80, 100, 132])
@pytest.mark.parametrize("prefix", [0, 36])
def test_lines_that_a_mail_or_a_terminal_broke(width: int, at_words: bool, prefix: int) -> None:
    text = "\n".join(line[prefix if line.startswith("2016") else 0 :] for line in BROKEN.split("\n"))
    (plain,), (found,) = find_crashes(text), find_crashes(broken(text, width, at_words))
    assert found.crash_id == plain.crash_id
    assert told(found)["frames"] == told(plain)["frames"]


def test_a_line_is_not_put_together_from_any_number() -> None:
    (crash,) = find_crashes("@BlueScreen: #PF Exception 14 in\n" + "world in\n" * 500)
    assert 900 < len(crash.message or "") < 1100


def test_what_stands_behind_a_crash_is_no_rest_of_it() -> None:
    text = BROKEN.split("PTEs")[0] + "This is fixed in the next release.\nThe host was restarted since.\nESXi 8.x\n" * 3
    (crash,) = find_crashes(text)
    assert crash.message == "#PF Exception 14 in world 33445:scanworker IP 0x418002b7e594 addr 0x4108fffffff0"
    said = "LINT1/NMI (motherboard nonmaskable interrupt), undiagnosed. This may be an error of the hardware; ask who built it".ljust(
        131, "!"
    )
    for behind in ("WARNING: IOMMUIntel: 2211: a fault", "Next: 1"):
        assert [crash.message for crash in find_crashes(f"{said}.\n{behind}\n")] == [f"{said}."]
        assert [crash.message for crash in find_crashes(f"{said}!\n{behind}\n")] == [f"{said}!"]


def test_a_message_that_ends_in_an_address_takes_no_word_of_the_longest_lines_neighbour() -> None:
    message = "#PF Exception 14 in world 33445:scanworker IP 0x418002b7e594 addr 0x4108fffffff0"
    frames = "\n".join(f"0x41240123ba{i}0:[0x418002b7e594]scan_all@vmkernel#nover+0x{i}1" for i in range(6))
    for asked in ("Thanks, Bob", "(the rest is off screen)", "see the attached log for more"):
        assert [c.message for c in find_crashes(f"{message}\n{asked}\n{frames}\n")] == [message]


@pytest.mark.parametrize("path", CRASHES, ids=names)
def test_a_cut_never_adds_a_frame(path: Path) -> None:
    data = path.read_bytes()
    whole = max(len(crash.frames) for crash in find_crashes(data))
    for cut in range(0, len(data), 37):
        assert max((len(crash.frames) for crash in find_crashes(data[:cut])), default=0) <= whole


@pytest.mark.parametrize("path", CRASHES, ids=names)
def test_values_stay_in_their_lists(path: Path) -> None:
    for crash in find_crashes(path.read_bytes()):
        assert crash.kind in CLOSED_LISTS["kind"]
        words = crash.damage.split(";") if crash.damage else []
        assert words == [word for word in DAMAGE if word in words]
        assert all(frame.module_evidence in (None, *CLOSED_LISTS["module_evidence"]) for frame in crash.frames)
        assert all(frame.crash_id == crash.crash_id for frame in crash.frames)


@pytest.mark.parametrize("path", CRASHES, ids=names)
def test_the_stream_finds_the_same_crashes_and_says_where(path: Path) -> None:
    data = path.read_bytes()
    noise = b"2016-03-01T00:00:00.000Z cpu1:3)Net: 1: link up\n" * 30_000
    reading = read(noise + data + b"\n" + noise)
    pasted = find_crashes(data)
    assert [crash.crash_id for crash in reading.crashes] == [crash.crash_id for crash in pasted]
    for here, there in zip(reading.crashes, pasted, strict=True):
        assert here.offset == (there.offset or 0) + len(noise)
        assert here.line == (there.line or 0) + 30_000
        assert here.sha256 == there.sha256


# -- copies


LINES = (Path(__file__).parents[1] / "golden" / "vmkernel" / "page_fault_55_with_module_map.log").read_bytes()


def one(data: bytes) -> Crash:
    (crash,) = find_crashes(data)
    return crash


def test_copies_share_their_identity() -> None:
    lost_tag = LINES.replace(b"<None>", b"")
    five_words = re.sub(rb"(stack: \S+)", rb"\1, 0x1, 0x2, 0x3, 0x4", LINES)
    assert len({one(data).crash_id for data in (LINES, lost_tag, five_words, LINES.replace(b"\n", b"\r\n"))}) == 1


def test_other_crashes_do_not() -> None:
    assert one(LINES).crash_id != one(LINES.replace(b"06.789", b"06.790")).crash_id
    assert not same_crash(one(LINES), one(LINES.replace(b"06.789", b"06.790")))


def test_a_damaged_copy_is_still_the_same_crash() -> None:
    whole, headless = one(LINES), one(LINES[LINES.index(b"\n") + 1 :])
    assert headless.crash_id != whole.crash_id
    assert same_crash(whole, headless) and same_crash(headless, whole)
    header_only = one(LINES[: LINES.index(b"\n")])
    assert same_crash(whole, header_only)
    assert not same_crash(whole, one(LINES.replace(b"3:04:05", b"9:04:05").replace(b"05:06:07", b"17:06:07")))


def test_a_panic_while_dumping_belongs_to_the_first() -> None:
    second = LINES.replace(b"#PF Exception 14", b"#GP Exception 13").replace(b"05:06:07", b"05:06:31")
    second = second.replace(b"05:06.789", b"05:30.789")
    assert one(LINES + second).kind == "page_fault"
    later = second.replace(b"05:06:31", b"07:06:31").replace(b"05:30.789", b"00:10.000")
    assert len(find_crashes(LINES + later)) == 2


def test_exceptions_of_two_worlds_in_an_article_are_two_crashes() -> None:
    first, second = "#PF Exception 14 in world 35101:vmm0\n", "#GP Exception 13 in world 66207:net-tx-3\n"
    article = f"First, bad memory:\n{first}We swapped it.\n\nThen another vendor's driver:\n{second}"
    assert [crash.world_name for crash in find_crashes(article)] == ["vmm0", "net-tx-3"]
    assert one(f"{first}and again\n{first}".encode()).world_name == "vmm0"
    stamp = "2016-03-01T01:00:00.000Z cpu5:3301)"
    assert one(f"{stamp}{first}{stamp}{second}".encode()).world_name == "vmm0"  # the second while the first is dumped


def test_a_frame_cut_in_its_middle_is_damage_and_no_frame() -> None:
    crash = one(LINES[: LINES.index(b"]kthread") - 4])
    assert len(crash.frames) == 2
    assert crash.damage == "cut_backtrace;cut_line"


def test_a_symbol_cut_in_its_middle_is_not_believed() -> None:
    crash = one(LINES[: LINES.index(b"driverAPI")])
    wanted = (0x41800290175D, None, None)
    assert (crash.frames[-1].address, crash.frames[-1].function, crash.frames[-1].module) == wanted
    assert "cut_line" in crash.damage.split(";")


def test_a_receivers_file_names_its_host() -> None:
    received = LINES.replace(b"Z cpu", b"Z esx1.example.org vmkernel: cpu")
    assert read(received).host == "esx1.example.org"
    assert read(LINES).host is None
    other = received.replace(b"esx1", b"esx2").replace(b"06.789", b"16.789").replace(b"2016-03-04", b"2016-03-05")
    two = read(received + other)
    assert two.host is None
    assert [problem.problem for problem in two.problems] == ["host_conflict"]
    assert [crash.host for crash in two.crashes] == ["esx1.example.org", "esx2.example.org"]


def test_frames_that_print_no_module_are_left_to_triage_with_the_map() -> None:
    crash = one(LINES)
    assert [(f.module, f.module_evidence) for f in crash.frames[:3]] == [
        (None, None), (None, None), ("com.vmware.driverAPI", "printed"),
    ]  # fmt: skip
    assert "hpsa" in [module.module for module in crash.modules]
    assert crash.modules[0].module == "vmkernel" and crash.modules[0].base is None


def test_modules_that_the_kernel_names() -> None:
    text = "cpu1:2)Module(s) involved in panic: [vmkernel 9.0, acmenic 1.2.3-1OEM]\n"
    assert modules_named_by_kernel(text) == {"acmenic": "1.2.3-1OEM"}
    assert modules_named_by_kernel("nothing of the kind") == {}


def test_a_panic_tells_which_version_was_loaded() -> None:
    text = (
        "2024-02-03T04:05:06.700Z cpu1:2)@BlueScreen: #PF Exception 14 in world 2:acmenic IP 0x420001 addr 0x0\n"
        "2024-02-03T04:05:06.700Z cpu1:2)Module(s) involved in panic: [vmkernel 8.0, acmenic 1.2.3-1OEM (External)]\n"
    )
    (driver,) = read_vmkernel(io.BytesIO(text.encode()), "log").drivers
    assert (driver.module, driver.version, driver.state) == ("acmenic", "1.2.3", "loaded")
    assert driver.observed_at == datetime(2024, 2, 3, 4, 5, 6, 700_000, UTC)


# -- the stream's other readings


def test_banners_name_what_was_loaded_and_when() -> None:
    log = (
        b"2014-05-01T08:00:01.000Z cpu0:32768)Loading module hpsa ...\n"
        b"2014-05-01T08:00:02.000Z cpu0:32768)<6>HP HPSA Driver (v 5.5.0.58-1OEM)\n"
        b"2014-05-01T08:00:03.000Z cpu0:32768)Mod: 4780: Initialization of hpsa succeeded with module ID 4133.\n"
    )
    reading = read(log)
    first = reading.drivers[0]
    wanted = ("hpsa", "5.5.0.58", "loaded", "banner", 2)
    assert (first.module, first.version, first.state, first.evidence, first.line) == wanted
    assert first.observed_at == datetime(2014, 5, 1, 8, 0, 2, tzinfo=UTC)
    assert [(m.module, m.module_id) for m in reading.modules] == [("hpsa", 4133)]


def test_facts_and_precursors() -> None:
    log = (
        b"VMkernel esx1.example.org 5.5.0 #1 SMP Release build-1331820 Sep 18 2013 23:08:31 x86_64\n"
        b"2014-05-01T08:00:02.000Z cpu0:32768)WARNING: Heap: 3058: Heap hpsa already at its maximum size. Cannot expand.\n"
        b"2014-05-01T08:00:03.000Z cpu0:32768)<4>hpsa 0000:03:00.0: out of memory\n"
    )
    reading = read(log)
    assert [(f.host, f.esxi_version, f.esxi_build) for f in reading.facts] == [("esx1.example.org", "5.5.0", "1331820")]
    heard = ("warning", "said", "listened")  # any words: tests/evidence/test_speech.py
    wanted = [("heap_at_maximum", "hpsa", 2), ("out_of_memory", "hpsa", 3)]
    assert [(p.what, p.module, p.line) for p in reading.precursors if p.what not in heard] == wanted


def hours(*starts: float) -> bytes:
    begin = datetime(2015, 1, 1)
    lines = []
    for start in starts:
        for minute in range(0, 60, 10):
            moment = begin + timedelta(hours=start, minutes=minute)
            lines.append(f"{moment.isoformat(timespec='milliseconds')}Z cpu1:2)Net: 1: link up\n")
    return "".join(lines).encode()


@pytest.mark.parametrize("noise", [b"", b"x" * 300_000 + b"\n"])
def test_a_silence_of_more_than_two_hours_ends_a_stretch(noise: bytes) -> None:
    alive = read(hours(0, 1, 2) + noise + hours(6, 7.5) + noise + hours(30)).alive
    got = [((a.start - alive[0].start) / timedelta(hours=1), (a.end - a.start) / timedelta(minutes=10)) for a in alive]
    assert [round(start, 3) for start, _ in got] == [0, 6, 30]
    assert [round(length) for _, length in got] == [17, 14, 5]


def test_a_first_stamp_that_cannot_be_hides_no_sign_of_life_behind_it() -> None:
    reading = read(b"2015-02-31T00:00:00.000Z cpu1:2)a\n" + hours(0, 1))
    assert [one.end - one.start for one in reading.alive] == [timedelta(minutes=110)]
    assert [problem.problem for problem in reading.problems] == ["bad_time"]


# -- hostile input


class Trickle(io.RawIOBase):
    """A stream that gives what it likes, seldom as much as was asked for."""

    def __init__(self, data: bytes, step: int) -> None:
        self.inner, self.step = io.BytesIO(data), step

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self.inner.read(min(self.step, len(buffer)))
        buffer[: len(chunk)] = chunk
        return len(chunk)


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_short_reads_change_nothing(step: int) -> None:
    reading = read_vmkernel(Trickle(LINES, step), "a.log")  # type: ignore[arg-type]
    assert reading.crashes == read(LINES).crashes


@pytest.mark.parametrize("place", range(512 * 1024 - 400, 512 * 1024 + 40, 40))
def test_a_header_across_two_blocks_is_found_once(place: int) -> None:
    data = b"x" * (place - 1) + b"\n" + LINES
    (crash,) = read(data).crashes
    assert (crash.line, crash.offset) == (2, place)


@pytest.mark.parametrize("filler", [b"a" * (1 << 22), b"\0" * (1 << 22), b"\xff\xfe" * (1 << 21), b"\r" * (1 << 22)])
def test_a_line_of_any_length_hides_nothing_behind_it(filler: bytes) -> None:
    (crash,) = read(filler + b"\n" + LINES).crashes
    assert crash.message == one(LINES).message


def test_more_crashes_than_a_host_can_live_are_a_problem_row() -> None:
    reading = read(b"".join(b"@BlueScreen: x%d\n" % i for i in range(12_000)))
    assert len(reading.crashes) == vmkernel._CRASH_LIMIT
    assert [problem.problem for problem in reading.problems] == ["too_large"]


@pytest.mark.parametrize(
    "text",
    ["@BlueScreen:" + " " * 100_000, "0x" * 100_000 + ":[0x", "@BlueScreen: x " * 5_000, "#PF Exception 14 in world 1:" + "a " * 50_000,
     "cpu1:2)" * 20_000, "\x1b[45m" * 20_000, "<181>" * 20_000, "@BlueScreen: #PF Exception 99999999999 in world 99999999999999999999999:x IP 0x" + "f" * 99],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_odd_text_is_read_without_raising(text: str) -> None:
    for crash in find_crashes(text):
        assert crash.ip is None or crash.ip < 2**64
        assert crash.world_id is None or crash.world_id < 2**63


@pytest.mark.parametrize(
    ("line", "loaded"),
    [
        (
            "<6>bnx2x: Some 10/20-Gigabit Ethernet Driver bnx2x 2.713.30.v60.8 (2016/02/11)",
            [("bnx2x", "2.713.30.v60.8")],
        ),
        ("lpfc: lpfc_init: Fibre Channel SCSI driver 12.8.298.3", [("lpfc", "12.8.298.3")]),
        ("WARNING: hpsa: driver 0.1 failed", []),
        ("vmw_ahci: driver 3 of 5.", []),
    ],
)
def test_a_banner_in_any_wording_and_no_other_number(line: str, loaded: list[tuple[str, str]]) -> None:
    log = f"2021-03-01T02:11:25.100Z cpu4:2097700){line}\n".encode()
    reading = read_vmkernel(io.BytesIO(log), "a")
    assert [(one.module, one.version) for one in reading.drivers] == loaded


@pytest.mark.parametrize("start", ["0\u00d7418000000000", "0&#215;418000000000", "0xxxxxxx"])
def test_a_code_start_in_other_signs_is_still_one_line_with_its_uptime(start: str) -> None:
    head = "@BlueScreen: #PF Exception 14 in world 33101:memMap-0 IP 0x4180182f4948 addr 0x8"
    (crash,) = find_crashes(f"{head}\nCode start: {start} VMK uptime: 1:00:00:00.000\n".encode())
    assert "joined_lines" not in crash.damage and crash.uptime == timedelta(days=1)
