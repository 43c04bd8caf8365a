"""Warnings before a crash count where they stand out from quiet days, and a victim's are called so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from psodlib.records import Alive, Crash, FileReading, Frame, Module, Precursor
from psodlib.triage.guilt import find_guilty
from psodlib.triage.precursors import Said, hear_host, standouts

NOON = datetime(2014, 5, 31, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CRASH = Crash(kind="page_fault", time=NOON, frames=(Frame(function="Timer_Run", module="vmkernel"),))


def said_at(
    *before: timedelta, module: str | None = "hpsa", what: str = "heap_at_maximum", text: str = ""
) -> list[Precursor]:
    return [Precursor(time=NOON - span, what=what, module=module, text=text) for span in before]


def watched(days: float) -> list[Alive]:
    return [Alive(start=NOON - days * DAY, end=NOON)]


def hear(precursors, alive=(), crashes=(CRASH,)) -> Said:
    told = FileReading(source="", kind="", precursors=tuple(precursors), alive=tuple(alive), crashes=tuple(crashes))
    return hear_host([told])


def modules(precursors, alive=(), crashes=(CRASH,), crash=CRASH) -> list[str]:
    return [found.module for found in standouts(hear(precursors, alive, crashes), crash)]


DAILY = [i * DAY + HOUR for i in range(1, 14)]


@pytest.mark.parametrize(
    ("precursors", "expected"),
    [
        (said_at(HOUR), ["hpsa"]),
        # As every day.
        (said_at(HOUR, *DAILY), []),
        (said_at(*(i * HOUR for i in range(1, 9)), *DAILY), ["hpsa"]),
        # A thousand lines of one minute are one warning.
        (said_at(*(HOUR + i * timedelta(milliseconds=1) for i in range(1000)), *DAILY), []),
        # A quiet storm does not excuse ten different minutes, and a day ago is too long.
        (said_at(2 * DAY), []),
        (said_at(-HOUR), []),
        (said_at(HOUR, module=None), []),
    ],
)
def test_what_stands_out(precursors, expected):
    assert modules(precursors, watched(14)) == expected


def test_quiet_days_are_those_that_were_watched():
    precursors = said_at(HOUR, 2 * HOUR, 5 * DAY)
    assert modules(precursors, watched(14)) == ["hpsa"]
    # One warning in the half day that was watched beside the crash's own day is two a day: as usual.
    half = [Alive(start=NOON - 5 * DAY - 6 * HOUR, end=NOON - 5 * DAY + 6 * HOUR), Alive(start=NOON - DAY, end=NOON)]
    assert modules(precursors, half) == []


def test_hourly_heartbeats_watch_the_time_between_them():
    points = [Alive(start=NOON - i * HOUR, end=NOON - i * HOUR, evidence="heartbeat") for i in range(14 * 24)]
    said = hear(said_at(HOUR, 5 * DAY), points)
    assert said.quiet_time["heap_at_maximum"] / DAY == pytest.approx(13, abs=0.1)


def test_the_day_before_another_crash_is_no_quiet_day():
    precursors = said_at(HOUR, 2 * HOUR, *(7 * DAY + i * HOUR for i in range(12)))
    assert modules(precursors, watched(9)) == []
    earlier = Crash(time=NOON - 7 * DAY)
    assert modules(precursors, watched(9), [CRASH, earlier]) == ["hpsa"]


def test_warnings_of_an_earlier_boot_are_not_held_against_this_one():
    young = Crash(time=NOON, uptime=timedelta(minutes=30))
    assert modules(said_at(HOUR), crash=young) == []
    assert modules(said_at(timedelta(minutes=20)), crash=young) == ["hpsa"]


def test_a_full_heap_weighs_more_than_a_complaint():
    both = said_at(*(i * HOUR for i in range(1, 20)), module="lpfc", what="out_of_memory") + said_at(HOUR, 2 * HOUR)
    assert modules(both) == ["hpsa", "lpfc"]
    found = find_guilty(CRASH, both)
    assert (found.module, found.guilt) == ("hpsa", "precursor_log")
    assert [suspect.module for suspect in found.suspects] == ["hpsa", "lpfc"]
    assert any("victim" in note and "lpfc" in note for note in found.notes)
    assert not any("victim" in note and "hpsa" in note for note in found.notes)


def test_a_log_that_points_elsewhere_than_the_stack_is_told():
    crash = Crash(time=NOON, frames=(Frame(function="e1000_clean", module="e1000", module_evidence="printed"),))
    found = find_guilty(crash, said_at(HOUR, 2 * HOUR))
    assert (found.module, found.guilt) == ("e1000", "on_stack")
    assert any("the log points at hpsa, not at e1000" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "text", "module"),
    [
        ("hpsa", "", "hpsa"),
        ("hpsa-heap", "", "hpsa"),
        ("lpfc_0", "", "lpfc"),
        ("zyxnet", "<4>zyxnet 0000:03:00.0: resetting", "zyxnet"),  # in no list, but it drives a device
        ("loaded", "", "loaded"),  # in no list, but in the map
        ("retrying", "retrying: resetting", None),
        ("vmklinux_9", "", None),
    ],
)
def test_whose_warning_it_is(name, text, module):
    crash = Crash(time=NOON, modules=(Module(module="loaded"), Module(module="vmklinux_9")))
    assert find_guilty(crash, said_at(HOUR, module=name, text=text)).module == module


def test_warnings_without_a_time_stand_before_the_crash():
    assert modules([Precursor(time=None, what="heap_at_maximum", module="hpsa")]) == ["hpsa"]
    assert modules(said_at(HOUR), crash=Crash()) == []


def test_what_was_heard_once_serves_every_crash():
    precursors = said_at(HOUR, 2 * HOUR, *DAILY)
    said = hear(precursors)
    assert find_guilty(CRASH, said) == find_guilty(CRASH, precursors)


@pytest.mark.parametrize(
    ("source", "line", "expected"),
    [
        ("screen.txt", 3, ["hpsa"]),
        ("screen.txt", 90, []),  # behind the crash: of the next boot
        ("dmesg.txt", 3, []),  # another file, collected nobody knows when
        (None, None, ["hpsa"]),
    ],
)
def test_a_warning_without_a_time_counts_only_before_its_crash_in_the_same_file(source, line, expected):
    crash = Crash(kind="page_fault", source="screen.txt", line=10)
    warning = Precursor(time=None, what="heap_at_maximum", module="hpsa", source=source, line=line)
    assert modules([warning], crashes=[crash], crash=crash) == expected
