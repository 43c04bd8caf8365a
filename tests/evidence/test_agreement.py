"""What `parse_crashes` reads as pasted text, `load` finds: alone, in a log, behind every prefix, compressed, in a bundle. And nothing else."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path

import pytest
from conftest import LONG
from hypothesis import given, settings
from hypothesis import strategies as st
from wrappings import CALM, STAMP, WRAPPINGS, behind, calm

import psodlib as psod
from psodlib.evidence import pieces, vmkernel
from psodlib.evidence.archives import Item
from psodlib.evidence.psod_lines import ANCHORS
from psodlib.evidence.reading import read_item
from psodlib.evidence.sources import iter_items
from psodlib.evidence.vmkernel_lines import ROWS, SEARCHED, WARNED, WARNINGS
from psodlib.records import Crash, Problem

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "vmkernel").glob("*.log"))


def found(path: Path) -> tuple[list[Crash], list[Problem]]:
    readings = [reading for item in iter_items(path) if isinstance(item, Item) for reading in read_item(item)]
    return [c for r in readings for c in r.crashes], [p for r in readings for p in r.problems]


@pytest.mark.parametrize("way", WRAPPINGS)
def test_every_golden_text_in_every_wrapping(tmp_path: Path, way: str) -> None:
    name, wrapped = WRAPPINGS[way]
    wrong = []
    for path in GOLDEN:
        data = path.read_bytes()
        (tmp_path / name).write_bytes(wrapped(data))
        crashes, _ = found(tmp_path / name)
        pasted = psod.parse_crashes(data)
        if [crash.kind for crash in crashes] != [crash.kind for crash in pasted]:
            wrong.append((path.stem, len(crashes), len(pasted)))
    assert not wrong


@pytest.mark.parametrize("path", [p for p in GOLDEN if not p.name.startswith("none_")], ids=lambda path: path.stem)
def test_load_says_what_parse_crashes_says(tmp_path: Path, path: Path) -> None:
    (tmp_path / "a.log").write_bytes(path.read_bytes())
    fleet, pasted = psod.load(tmp_path / "a.log", jobs=1), psod.parse_crashes(path.read_bytes())
    assert set(fleet.crashes.crash_id) == {crash.crash_id for crash in pasted}
    for crash in pasted:
        assert len(fleet.frames[fleet.frames.crash_id == crash.crash_id]) == len(crash.frames)


# What may stand in a log beside a crash; none of it opens one.
LINES = [
    CALM % (1, 2, 3),
    b"cpu3:2097)WARNING: Heartbeat: 961: PCPU 40 didn't have a heartbeat for 5 seconds, timeout is 10, 1 IPIs sent; *may* be locked up.",
    b"cpu3:2097)MCE: 1278: CMCI on cpu32 bank9: Status:0x9000 Misc:0x0 Addr:0x0: Valid.Err enabled.",
    b"cpu3:2097)WARNING: LinNet: netdev_watchdog:3688: NETDEV WATCHDOG: vmnic4: transmit timed out",
    b"cpu3:2097)Config: 681: \"BlueScreenTimeout\" = 0, Old Value: 1, (Status: 0x0)",
    b"cpu3:2097)ALERT: Bootbank cannot be found at path '/bootbank'",
    b"cpu3:2097)World: vm 33445: 8430: Panic of vmm3:web:vcpu-3: NOT_REACHED bora/devices/x.c:3",
    b"cpu3:2097)VMware ESXi 5.5.0 build-1331820",
]  # fmt: skip
PREFIXES = [b"", b"esx1 vmkernel: ", b"In(182) vmkernel: "]
# One crash each, with more than frames: bare frames behind a warning are that warning's. What an article says around a crash
# stands in no log.
TEXTS = [
    data
    for data in (path.read_bytes() for path in GOLDEN if not path.name.startswith(("none_", "form_bulleted")))
    if [bool(crash.message or crash.uptime) for crash in psod.parse_crashes(data)] == [True]
]


@settings(max_examples=60 * LONG, deadline=None)
@given(
    text=st.sampled_from(TEXTS),
    prefix=st.sampled_from(PREFIXES),
    encoding=st.sampled_from(["utf-8", "utf-16", "crlf"]),
    lines=st.tuples(st.integers(20, 300), st.integers(20, 300)),
    seed=st.integers(0, 9999),
)
def test_a_crash_among_ordinary_lines_is_found(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, prefix: bytes, encoding: str, lines: tuple[int, int], seed: int
) -> None:  # fmt: skip
    rng = random.Random(seed)

    def ordinary(count: int) -> bytes:
        said = (prefix + rng.choice(LINES).rstrip(b"\n") + b"\n" for _ in range(count))
        return b"".join(STAMP % divmod(n, 60) + line for n, line in enumerate(said))

    own = behind(STAMP % (0, 0) + prefix) if prefix.startswith(b"esx1") else lambda data: data.rstrip(b"\n") + b"\n"
    data = ordinary(lines[0]) + own(text) + ordinary(lines[1])
    data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") if encoding == "crlf" else data
    data = data.decode("utf-8", "backslashreplace").encode("utf-16") if encoding == "utf-16" else data
    path = tmp_path_factory.mktemp("log") / "vmkernel.log"
    path.write_bytes(data)
    (crash,), _ = found(path)
    assert crash.kind == psod.parse_crashes(text)[0].kind


def test_what_reads_like_a_crash_and_is_not_taken_is_listed(tmp_path: Path) -> None:
    joke = b"COFFEEware Machine 5.0 [Releasebuild-12 x86_64]\n#BEAN Exception 4 in world 1:espresso\neax=0xNOPE\n"
    frames = b"cpu7:33445)0x453a1b29b180:[0x420012a7b71a]acme_poll@vmkernel#nover+0x327 stack: 0x1, 0x2\n" * 2
    text = calm(50) + joke + calm(50) + b"2016-03-01T01:00:00.000Z " + frames + calm(50)
    (tmp_path / "vmkernel.log").write_bytes(text)
    crashes, problems = found(tmp_path / "vmkernel.log")
    assert crashes == []
    assert [(problem.problem, problem.line) for problem in problems] == [("unread_crash", 51), ("unread_crash", 104)]


def test_the_search_stays_as_fast_as_it_can_be() -> None:
    # Beyond 64 words, or with one of less than four bytes, it goes on byte by byte: fifteen times slower.
    assert len(set(SEARCHED)) == len(SEARCHED) <= 64 and min(map(len, SEARCHED)) >= 4
    assert SEARCHED[-len(WARNINGS) :] == WARNINGS
    # The kernel's own warnings must not stop it at all: four bytes decide, of which the last is the speaker's first letter.
    assert {len(word) for word in WARNED[1:]} == {4} and {word[:3] for word in WARNED} == {b"G: "}


def test_the_quick_ways_through_a_line_read_what_the_long_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every line of the golden files, and each behind another line's text.
    lines = [line for path in GOLDEN for line in path.read_bytes().split(b"\n")]
    heads = (b" ", b" In(182) vmkernel: ", b" Xx(1) ")
    ahead = [STAMP[:-1] % (1, n % 60) + b"%scpu3:66)Net: 1: up " % heads[n % 3] for n in range(99)]
    text = b"\n".join([*lines, *(ahead[n % 99] + line for n, line in enumerate(lines))])
    quick = [repr(piece) for piece in pieces.split_pieces(text, 0, 1)]
    monkeypatch.setattr(pieces, "_CUT_WORDS", re.compile(b""))
    monkeypatch.setattr(pieces, "_OWN_PREFIX", re.compile(r"(?!)"))
    assert quick == [repr(piece) for piece in pieces.split_pieces(text, 0, 1)]
    assert len(quick) > 2 * len(lines) + 100


def test_every_anchor_is_found_by_the_search_and_no_word_hides_another() -> None:
    anchors = [*ANCHORS, *(row.anchor for row in ROWS), *WARNINGS]
    for anchor in anchors:
        found = [SEARCHED[n] for n, _, _ in vmkernel._FINDER.find_matches_as_indexes(anchor)]
        assert found and found == [word for word in SEARCHED if word in anchor], anchor
    assert all(any(word in anchor for anchor in anchors) for word in SEARCHED)


def test_a_cut_backtrace_is_no_living_hosts_because_a_warning_stands_in_the_log() -> None:
    frames = b"".join(b"   [0x4200331b%04x]Page_Drop%d@vmkernel#nover+0xe7\n" % (n, n) for n in range(3))
    log = behind(STAMP % (0, 9))(LINES[1] + b"\n" + LINES[4])
    assert [len(found_in(log + frames + log)), len(found_in(frames))] == [1, 1]
    # As the host logged them, right behind the warning, they are.
    assert found_in(log + behind(STAMP % (0, 9) + b"cpu3:2097)")(frames) + log) == []


def found_in(data: bytes) -> list[Crash]:
    assert len(vmkernel.read_vmkernel(io.BytesIO(data), "x").crashes) == len(psod.parse_crashes(data))
    return psod.parse_crashes(data)
