"""Properties of the crash reader: whatever the text, it does not raise, keeps its word about places, and stays the same."""

from __future__ import annotations

import io
from pathlib import Path

from conftest import LONG
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from psodlib.evidence.psod import find_crashes
from psodlib.evidence.vmkernel import read_vmkernel
from psodlib.records import DAMAGE
from psodlib.schema import CLOSED_LISTS
from psodlib.triage.copies import same_crash

FOLDER = Path(__file__).parents[1] / "golden" / "vmkernel"
TEXTS = [path.read_bytes() for path in sorted(FOLDER.glob("*.log"))]
LINES = sorted({line for text in TEXTS for line in text.split(b"\n")})
PARTS = [b"@BlueScreen: ", b"Code start: 0x4180", b"VMK uptime: 1:02:03:04.567", b"0x4122e445b4d8:[0x418014a7b71a]", b"cpu1:2)", b"\0\0",
         b"\x1b[45m", b"\xff\xfe", b"\r", b"2016-03-04T05:06:07.100Z ", b"99999-99-99T99:99:99Z ", b"0x" + b"f" * 40, b"\n", b" "]  # fmt: skip

crumbs = st.lists(st.one_of(st.sampled_from(LINES), st.sampled_from(PARTS), st.binary(max_size=40)), max_size=30)
texts = st.one_of(crumbs.map(b"\n".join), crumbs.map(b"".join), st.binary(max_size=300))
calm = settings(max_examples=150 * LONG, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@calm
@given(texts)
def test_any_bytes_are_read(data: bytes) -> None:
    for crash in find_crashes(data):
        assert crash.kind in CLOSED_LISTS["kind"]
        words = crash.damage.split(";") if crash.damage else []
        assert words == [word for word in DAMAGE if word in words]
        for address in (crash.ip, crash.fault_address, crash.code_start, *(frame.address for frame in crash.frames)):
            assert address is None or 0 <= address < 2**64
        assert crash.line is not None and crash.offset is not None
        assert crash.line == data.count(b"\n", 0, crash.offset) + 1
        assert same_crash(crash, crash)
    assert len(read_vmkernel(io.BytesIO(data), "x").crashes) <= len(find_crashes(data))


@calm
@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    find_crashes(text)
    find_crashes("@BlueScreen: " + text)


@calm
@given(st.sampled_from(TEXTS), st.integers(0, 3000))
def test_a_cut_adds_neither_crash_nor_frame(text: bytes, cut: int) -> None:
    whole = find_crashes(text)
    # An example or a line of code is told by all of its line: of a text without a crash whole lines are cut off.
    part = find_crashes(text[: cut if whole else text.rfind(b"\n", 0, cut) + 1])
    assert len(part) <= len(whole)
    assert sum(len(crash.frames) for crash in part) <= sum(len(crash.frames) for crash in whole)


@calm
@given(
    st.sampled_from(TEXTS),
    st.binary(max_size=200).filter(lambda b: b"@" not in b and b"[" not in b),
    st.integers(1, 40),
)
def test_lines_of_noise_around_change_nothing(text: bytes, noise: bytes, times: int) -> None:
    hedge = (b"2016-03-01T00:00:00.000Z cpu1:3)Net: 1: link up\n") * 20
    around = hedge + (noise.replace(b"\n", b" ") + b"\n") * times + hedge
    if not find_crashes(around):
        wanted = [c.crash_id for c in find_crashes(text)]
        assert [c.crash_id for c in find_crashes(around + text + b"\n" + around)] == wanted


@calm
@given(texts, st.integers(1, 700))
def test_the_stream_does_not_depend_on_how_it_is_cut(data: bytes, step: int) -> None:
    class Slow(io.RawIOBase):
        inner = io.BytesIO(data)

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            chunk = self.inner.read(min(step, len(buffer)))
            buffer[: len(chunk)] = chunk
            return len(chunk)

    assert read_vmkernel(Slow(), "x") == read_vmkernel(io.BytesIO(data), "x")  # type: ignore[arg-type]
