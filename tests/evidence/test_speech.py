"""Who spoke in a log: every form of a first word, once a minute, and nobody from farther in the line."""

from __future__ import annotations

import io

import pytest

from psodlib.evidence.speech import LIMIT, TAIL
from psodlib.evidence.vmkernel import read_vmkernel
from psodlib.evidence.vmkernel_lines import PRECURSORS
from psodlib.records import Precursor


def heard(text: str, *whats: str) -> list[Precursor]:
    return [p for p in read_vmkernel(io.BytesIO(text.encode()), "x").precursors if p.what in whats]


def at(minute: int, text: str, second: int = 0) -> str:
    return f"2019-03-04T{minute // 60:02d}:{minute % 60:02d}:{second:02d}.000Z cpu3:66000){text}\n"


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("lpfc: lpfc_scsi_cmd_iocb_cmpl:2057: 0: failed", "lpfc"),
        ("WARNING: bnxtnet: hwrm_send_msg:219: [vmnic4] timeout", "bnxtnet"),
        ("<6>lpfc820 0000:02:00.2: 0:1305 Link Down Event", "lpfc820"),
        ("<4>megasas_hotplug_work[0]: aen event code 0x0007", "megasas_hotplug_work"),
        ("INFO (ne1000): false RX hang detected", "ne1000"),
        ("<NMLX_ERR> nmlx5_core: 0000:c0:00.0: health compromised", "nmlx5_core"),
        ("<6>fnic : 52 :: link up", "fnic"),
        ("NVRM: Xid (PCI:0000:2d:00.0): 79", "NVRM"),
        ("Failed to open lpfc: no such thing", None),
        ("WARNING: something without a colon", None),
    ],
)
def test_the_first_word_speaks(text, module):
    assert [p.module for p in heard(at(1, text), "said")] == ([module] if module else [])


@pytest.mark.parametrize("prefix", ["", "<181>2019-03-04T00:01:00.000Z esx1.example.com vmkwarning: "])
def test_a_warning_is_heard_wherever_it_stands_and_once_a_minute(prefix):
    noise = "".join(at(2, "Net: 1: " + "x" * 80) for _ in range(2 * TAIL // 100))
    text = "".join(prefix + at(1, "WARNING: lpfc: lpfc_x:1: bad", second) for second in range(30))
    (one,) = heard(text + noise, "warning")
    assert (one.module, one.line, one.time.minute) == ("lpfc", 1, 1)
    assert not [p for p in heard(text + noise, "said") if p.module == "lpfc"]


@pytest.mark.parametrize("speaker", ["lpfc", "WARNING (ne1000)", "ScsiDeviceIO"])
def test_among_the_warnings_only_speakers_written_small_are_heard(speaker):
    log = at(1, "Net: 1: a") + at(2, f"WARNING: {speaker}: bad") + at(9, "Net: 1: b")
    assert [p.module for p in heard(log, "warning")] == [name for name in ("lpfc", "ne1000") if name in speaker]


def test_a_crowded_minute_hides_no_other_words_and_no_other_minute():
    def resets(device: str, first: int, last: int) -> str:
        return "".join(at(3, f"<4>{device}: resetting device {n}") for n in range(first, last))

    log = resets("hpsa 0000:03:00.0", 0, 1) + resets("lpfc 0000:04:00.0", 1, 2) + resets("hpsa 0000:03:00.0", 2, 1000)
    log += (
        at(3, "WARNING: bnxtnet: x:1: bad") + resets("hpsa 0000:03:00.0", 1001, 2000) + at(4, "<6>mpt2sas0: resetting")
    )
    rows = [(p.module, p.time.minute, p.line) for p in heard(log, "device_reset")]
    assert rows == [("hpsa", 3, 1), ("lpfc", 3, 2), ("mpt2sas0", 4, 2001)]
    assert [(p.module, p.line) for p in heard(log, "warning")] == [
        ("hpsa", 1), ("lpfc", 2), ("bnxtnet", 1001),
    ]  # fmt: skip


def test_a_tail_says_from_when_to_when_it_was_heard():
    (marker,) = heard(at(1, "Net: 1: a") + at(9, "Net: 1: b"), "listened")
    assert (marker.time.minute, marker.text) == (1, "2019-03-04T00:09")


def test_of_too_many_the_last_are_kept():
    text = "".join(at(minute % 1440, f"WARNING: mod{minute}: x") for minute in range(LIMIT + 50))
    found = heard(text, "warning")
    assert len(found) <= LIMIT
    assert found[-1].module == f"mod{LIMIT + 49}"


def test_a_device_is_claimed_and_other_words_are_not_kept():
    one, other = heard(at(1, "WARNING: hpsa 0000:03:00.0: secret") + at(1, "WARNING: lpfc: secret"), "warning")
    assert (one.text, other.text) == ("hpsa 0000:03:00.0", "")


@pytest.mark.parametrize("row", PRECURSORS, ids=lambda row: row.what)
def test_a_module_of_a_listed_warning_is_its_speaker(row):
    match = row.pattern.search(row.sample)
    assert match
    assert match.groupdict().get("module") in (
        None,
        *row.sample.replace("(", " ").replace(":", " ").replace(">", " ").split(),
        "0000:cc:00.0",
        "qla24xx_abort_command",
    )
