"""What hostile text costs: each pattern is pumped with what its own grammar suggests, and the cost grows with the length, no faster."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest

import psodlib as psod
from psodlib.evidence import psod_lines, vmkernel_lines
from psodlib.evidence.psod import find_crashes
from psodlib.evidence.vmkernel import read_vmkernel

ROWS = [*psod_lines.ROLES, *vmkernel_lines.ROWS]
LENGTHS = (20_000, 80_000)
STEEPEST = 10.0  # four times the text; a quadratic reader takes sixteen times as long


def cost(text: str) -> float:
    data = text.encode()
    begun = time.process_time()
    find_crashes(data)
    read_vmkernel(io.BytesIO(data), "x")
    return time.process_time() - begun


def growth(pumps: set[str]) -> float:
    """Processor time of the long texts for each second of the short ones; the best of three, for a busy machine."""
    ratios = []
    for _ in range(3):
        short, long = (sum(cost(pump * (length // len(pump))) for pump in pumps) for length in LENGTHS)
        ratios.append(long / short)
        if ratios[-1] < STEEPEST / 2:
            break
    return min(ratios)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.sample[:40])
def test_a_pumped_pattern_costs_no_more_than_its_length(row: Any) -> None:
    sample: str = row.sample
    pumps = {sample, sample.replace(" ", ""), max(sample.split(), key=len), sample[:12], " " + sample[:9]}
    assert growth(pumps) < STEEPEST


@pytest.mark.parametrize(
    "word", ["ApeiHEST", "corrupt", " a f memory", " aaa esetting", "heap ", "0x", "[0x", "@BlueScreen: "]
)
def test_a_pumped_message_costs_no_more_than_its_length(word: str) -> None:
    assert growth({word, "@BlueScreen: " + word}) < STEEPEST


def test_a_message_is_no_longer_than_anyone_reads() -> None:
    (crash,) = psod.parse_crashes("@BlueScreen: " + "corrupt" * 9300)
    assert crash.message is not None and len(crash.message) <= 4096
