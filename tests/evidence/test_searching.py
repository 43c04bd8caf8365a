"""What is found by searching and bisection is what a look at every line finds; and one automaton finds all that its patterns do."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psodlib.evidence.artifacts import KINDS, read_artifact
from psodlib.evidence.artifacts.terminal import PROMPTS
from psodlib.evidence.heads import Heads, loosened
from psodlib.evidence.life import Life
from psodlib.records import Alive

BEGAN = datetime.fromtimestamp(1_700_000_000, UTC)
SECOND = timedelta(seconds=1)
# Seconds to the next line, and what happens to the clock and the host meanwhile.
STEPS = st.lists(
    st.tuples(st.sampled_from([0, 1, 600, 3599, 3600, 7199, 7200, 7201, 90_000]), st.sampled_from(["", "", "", "", "boot", "back", "drift", "noise"])),
    min_size=1, max_size=80,
)  # fmt: skip
LINES = {
    "heartbeat": "{stamp}Z heartbeat: up {d}d{h}h{m}m{s}s, 2 VMs; [[1 vmx 1kB]] []",
    "vobd": "{stamp}.000Z: [scsiCorrelator] {up}000000us: [vob.scsi.scsipath.pathstate.dead] path is down",
    "hostd": "{stamp}.000Z info hostd[12] [Originator@6876 sub=Vimsvc] nothing to say",
}


def written(kind: str, steps: list[tuple[int, str]]) -> tuple[str, list[Alive]]:
    """A log, and the stretches that a look at each of its lines gives."""
    life, lines, stamp, boot = Life("x", kind), [], BEGAN, BEGAN - 3600 * SECOND
    for step, what in [(0, "")] * 2 + steps:
        # Between two samples of vobd or hostd a clock that is set back may hide.
        back = what == "back" and step > 3000 and kind == "heartbeat"
        stamp += (-step if back else step) * SECOND
        boot -= 2 * step * SECOND * back
        boot = stamp - (60 + len(lines)) * SECOND if what == "boot" else boot - 50 * SECOND if what == "drift" else boot
        up = max(0, (stamp - boot) // SECOND)
        text = LINES[kind].format(stamp=f"{stamp:%Y-%m-%dT%H:%M:%S}", up=up, d=up // 86_400, h=up % 86_400 // 3600, m=up % 3600 // 60, s=up % 60)  # fmt: skip
        life.add(stamp, None if kind == "hostd" else up * SECOND, 2 if kind == "heartbeat" else None, len(lines) + 1)
        lines += [text, *["  a line without a stamp"] * (what == "noise")]
    return "\n".join(lines) + "\n", life.stretches


@pytest.mark.parametrize("kind", LINES)
@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_bisection_finds_what_every_line_says(kind: str, steps: list[tuple[int, str]]) -> None:
    text, expected = written(kind, steps)
    (reading,) = read_artifact(io.BytesIO(text.encode()), "x", "x.log")
    assert list(reading.alive) == expected


def test_a_long_log_is_followed_across_blocks() -> None:
    steps = [(3600, "boot" if number % 900 == 0 else "") for number in range(9000)]
    for kind in LINES:
        text, expected = written(kind, steps)
        (reading,) = read_artifact(io.BytesIO(text.encode()), "x", "x.log")
        assert list(reading.alive) == expected


@pytest.mark.parametrize(
    "pattern", [kind.pattern for kind in KINDS] + [prompt for *_, prompt in PROMPTS], ids=lambda p: p.pattern[:30]
)
def test_a_loosened_pattern_finds_all_that_it_did(pattern: re.Pattern[str]) -> None:
    heads = Heads([pattern.pattern])
    for sample in [kind.sample for kind in KINDS] + [sample for _, sample, _ in PROMPTS]:
        if re.compile(pattern.pattern, re.MULTILINE).search(sample):
            assert heads.found(sample.encode()) == [0]


@pytest.mark.parametrize(
    ("pattern", "loose"),
    [("a(?=[)\\]]x(y))b", "ab"), ("(?<![\\w.-])x{0,400}?y{2,90}", "x*y{2,}"), ("(?P<a>b)\\Z", "(?:b)\\z")],
)  # fmt: skip
def test_what_re2_does_not_know_is_left_out(pattern: str, loose: str) -> None:
    assert loosened(pattern) == loose
