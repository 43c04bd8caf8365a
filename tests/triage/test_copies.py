"""Copies of one crash: one row a crash, nothing merged in silence, and a host under two names is one host."""

from __future__ import annotations

import gzip
from pathlib import Path

import psodlib as psod

HEADER = "{time}cpu7:33445)@BlueScreen: Spin count exceeded (acmeLock) - possible deadlock\n"
TRACE = "{time}cpu7:33445)0x412426e5dda0:[0x418018b7e594]acme_poll@<None>#<None>+0x39c stack: 0x410b0c037060\n"
START = "{time}cpu7:33445)Code start: 0x418018200000 VMK uptime: 29:20:14:10.{ms:03d}\n"
CALM = "2016-03-0{day}T00:{minute:02d}:00.000Z cpu1:3)Net: 1: link up\n"


def crash(time: str = "2016-03-04T05:06:07.100Z ", ms: int | None = None) -> str:
    lines = [HEADER, *([START] if ms is not None else []), TRACE, TRACE]
    return "".join(line.format(time=time, ms=ms) for line in lines)


def folder(tmp_path: Path, **texts: str) -> psod.Fleet:
    for host, text in texts.items():
        path = tmp_path / host / "var" / "log" / "vmkernel.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(CALM.format(day=3, minute=n) for n in range(60)) + text)
    return psod.load(tmp_path, jobs=1)


def conflicts(fleet: psod.Fleet) -> list[str]:
    return fleet.problems[fleet.problems.problem == "host_conflict"].detail.tolist()


def test_twenty_hosts_that_print_the_same_in_one_second_are_twenty_crashes(tmp_path: Path) -> None:
    fleet = folder(tmp_path, **{f"esx{n:02d}": crash() for n in range(20)})
    assert len(fleet.crashes) == 20 and fleet.crashes.crash_id.is_unique and fleet.crashes.host.nunique() == 20
    assert (fleet.uptimes.end_reason == "crash").sum() == 20
    assert len(conflicts(fleet)) == 19
    assert len(fleet.frames) == 40


def test_the_same_text_on_two_hosts_three_months_apart_is_two_crashes(tmp_path: Path) -> None:
    fleet = folder(tmp_path, esx1=crash(ms=123), esx2=crash("2016-06-04T05:06:07.100Z ", ms=123))
    assert sorted(fleet.crashes.host) == ["esx1", "esx2"] and fleet.crashes.crash_id.is_unique
    assert len(conflicts(fleet)) == 1 and "each keeps its own" in conflicts(fleet)[0]


def test_equal_uptime_and_time_under_two_names_is_one_host(tmp_path: Path) -> None:
    later = crash(ms=123) + CALM.format(day=5, minute=1)
    fleet = folder(tmp_path, **{"10.0.0.7": crash(ms=123), "esx2": later})
    assert fleet.hosts.host.tolist() == ["esx2"]
    assert (len(fleet.crashes), fleet.crashes.copies[0]) == (1, 2)
    assert any("10.0.0.7 and esx2" in detail and "two names" in detail for detail in conflicts(fleet))
    alone = folder(tmp_path / "alone", esx2=later)
    assert fleet.coverage.shape == alone.coverage.shape, "no host-day counts twice"


def test_one_hosts_text_at_two_times_is_two_crashes_and_within_the_skew_is_one(tmp_path: Path) -> None:
    early, late = crash(ms=123), crash("2016-03-04T05:09:07.100Z ", ms=123)
    folder(tmp_path, esx1=early)
    rotated = tmp_path / "esx1" / "var" / "log" / "vmkernel.0.gz"
    rotated.write_bytes(gzip.compress(late.encode()))
    assert psod.load(tmp_path, jobs=1).crashes.copies.tolist() == [2]
    rotated.write_bytes(gzip.compress(late.replace("-03-04", "-02-01").encode()))
    fleet = psod.load(tmp_path, jobs=1)
    assert len(fleet.crashes) == 2 and fleet.crashes.crash_id.is_unique
    assert conflicts(fleet) == []


def test_a_loose_copy_takes_no_crash_from_its_owner(tmp_path: Path) -> None:
    (tmp_path / "a screen.txt").write_text(crash(time="", ms=123))
    fleet = folder(tmp_path, esx1=crash(ms=123))
    (row,) = fleet.crashes.to_dict("records")
    assert (row["host"], row["copies"]) == ("esx1", 2)


def test_the_first_of_two_alike_keeps_the_id_that_it_has_alone(tmp_path: Path) -> None:
    alone = folder(tmp_path / "one", esx1=crash()).crashes.crash_id[0]
    both = folder(tmp_path / "two", esx1=crash(), esx2=crash()).crashes
    assert both[both.host == "esx1"].crash_id.tolist() == [alone]
