"""One host's life from its evidence: boots, ends, gaps, and the version loaded in each boot."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from psodlib import schema
from psodlib.records import Alive, Crash, Mark
from psodlib.triage.boots import boots_of_host, loaded_versions

HOUR = timedelta(hours=1)


def at(text: str) -> datetime:
    """`04 10:30` -> that moment of May 2014."""
    return datetime.strptime(f"2014-05-{text}", "%Y-%m-%d %H:%M").replace(tzinfo=UTC)


def beats(boot: str, first: str, last: str) -> list[Alive]:
    """Hourly heartbeats that count from `boot`, with the second's jitter that real ones have."""
    begin, moment, out = at(boot), at(first), []
    while moment <= at(last):
        jitter = timedelta(seconds=len(out) % 3)
        out.append(Alive(start=moment, end=moment, boot=begin + jitter, evidence="heartbeat", source="vmksummary.log"))
        moment += HOUR
    return out


def mark(what: str, time: str, evidence: str = "vmksummary") -> Mark:
    return Mark(time=at(time), what=what, evidence=evidence)


def ends(*args, **kwargs) -> list[tuple[str, str | None]]:
    uptimes, _ = boots_of_host("esx1", *args, **kwargs)
    return [(row["end_reason"], row["crash_id"]) for row in uptimes]


def test_heartbeats_of_one_boot_are_one_boot_and_one_stretch():
    uptimes, coverage = boots_of_host("esx1", beats("01 00:30", "01 01:00", "02 12:00"), [], [])
    (row,) = uptimes
    assert row["boot"] == at("01 00:30")
    assert row["observed"] == row["uptime"] == at("02 12:00") - at("01 00:30")
    assert row["end_reason"] == "running"
    assert [(c["start"], c["end"]) for c in coverage] == [(at("01 00:30"), at("02 12:00"))]


def test_overlapping_copies_of_the_evidence_change_nothing():
    once = boots_of_host("esx1", beats("01 00:30", "01 01:00", "02 12:00"), [mark("booted", "01 00:38")], [])
    twice = boots_of_host(
        "esx1",
        [*beats("01 00:30", "01 09:00", "02 12:00"), *beats("01 00:30", "01 01:00", "01 23:00")],
        [mark("booted", "01 00:38"), mark("booted", "01 00:38")],
        [],
    )
    assert once == twice


def test_a_silence_is_a_gap_and_no_observed_time():
    alive = beats("01 00:00", "01 01:00", "01 05:00") + beats("01 00:00", "01 09:00", "01 12:00")
    (row,), coverage = boots_of_host("esx1", alive, [], [])
    assert row["observed"] == 5 * HOUR + 3 * HOUR
    assert row["uptime"] == 12 * HOUR
    assert len(coverage) == 2


def test_a_counter_that_reaches_back_gives_the_start_but_no_coverage():
    (row,), (stretch,) = boots_of_host("esx1", beats("01 00:00", "20 01:00", "20 05:00"), [], [])
    assert row["boot"] == at("01 00:00")
    assert row["observed"] == 4 * HOUR
    assert stretch["start"] == at("20 01:00")


LIFE = beats("01 00:00", "01 01:00", "01 10:00")
NEXT = beats("01 11:00", "01 12:00", "01 14:00")


@pytest.mark.parametrize(
    ("marks", "crashes", "expected"),
    [
        ([mark("rebooting", "01 10:50")], [], ("reboot", None)),
        ([mark("powering_off", "01 10:50")], [], ("shutdown", None)),
        ([mark("halting", "01 10:50")], [], ("shutdown", None)),
        ([mark("power_button", "01 10:50", "vmkernel")], [], ("power", None)),
        ([mark("power_button", "01 10:49", "vmkernel"), mark("powering_off", "01 10:50")], [], ("shutdown", None)),
        ([mark("core_dump_found", "01 11:06"), mark("booted", "01 11:05")], [], ("crash", None)),
        ([mark("core_dump_found", "01 11:06"), mark("rebooting", "01 10:50")], [], ("reboot", None)),
        ([mark("poweroff_unexplained", "01 11:06", "hostd")], [], ("unexplained", None)),
        ([], [Crash(crash_id="c", time=at("01 10:20"))], ("crash", "c")),
        ([], [Crash(crash_id="c", time=at("01 10:20"), uptime=10 * HOUR + 20 * HOUR / 60)], ("crash", "c")),
        ([], [Crash(crash_id="c", uptime=10 * HOUR + 20 * HOUR / 60)], ("crash", "c")),
        ([], [], ("unexplained", None)),
    ],
)
def test_how_a_boot_ended(marks, crashes, expected):
    assert ends([*LIFE, *NEXT], marks, crashes) == [expected, ("running", None)]


def test_an_announcement_that_the_host_outlived_is_not_its_end():
    assert ends([*LIFE, *NEXT], [mark("rebooting", "01 05:10")], [])[-2:] == [("unexplained", None), ("running", None)]


def test_a_host_that_sat_purple_for_days_is_unexplained_when_one_log_has_both_sides():
    later = beats("04 11:00", "04 12:00", "04 14:00")
    assert ends([*LIFE, *later], [mark("booted", "04 11:06")], [])[0] == ("unexplained", None)
    assert ends([*LIFE, *later], [], [])[0] == ("unknown", None)


def test_an_uptime_that_fits_two_boots_or_none_places_nothing():
    twins = [*LIFE, *beats("02 00:00", "02 01:00", "02 10:00"), *beats("03 00:00", "03 01:00", "03 02:00")]
    assert ("crash", "c") not in ends(twins, [], [Crash(crash_id="c", uptime=10 * HOUR + 20 * HOUR / 60)])
    assert ("crash", "c") not in ends(twins, [], [Crash(crash_id="c", uptime=HOUR)])


def test_the_last_boot_runs_only_as_far_as_the_collection():
    assert ends(LIFE, [], []) == [("running", None)]
    assert ends(LIFE, [], [], last_seen=at("01 11:30")) == [("running", None)]
    assert ends(LIFE, [], [], last_seen=at("09 00:00")) == [("unknown", None)]


def test_the_crash_alone_tells_its_boot():
    crash = Crash(crash_id="c", time=at("30 15:57"), uptime=timedelta(days=29, hours=20))
    (row,), (stretch,) = boots_of_host("esx1", [], [], [crash])
    assert (row["boot"], row["end"]) == (at("30 15:57") - timedelta(days=29, hours=20), at("30 15:57"))
    assert row["observed"] == timedelta(0)
    assert stretch["start"] == stretch["end"] == at("30 15:57")


def test_life_after_a_crash_is_another_boot():
    log = Alive(start=at("01 11:00"), end=at("01 14:00"), evidence="vmkernel")
    uptimes, _ = boots_of_host("esx1", [*LIFE, log], [], [Crash(crash_id="c", time=at("01 10:20"))])
    assert [row["boot"] for row in uptimes] == [at("01 00:00"), at("01 11:00")]


def test_a_log_that_runs_across_a_reboot_is_cut_there():
    log = Alive(start=at("01 09:00"), end=at("01 14:00"), evidence="vmkernel")
    uptimes, coverage = boots_of_host("esx1", [*LIFE, log, *NEXT], [mark("rebooting", "01 10:50")], [])
    assert [row["end"] for row in uptimes] == [at("01 10:50"), at("01 14:00")]
    assert [c["end"] for c in coverage] == [at("01 10:50"), at("01 14:00")]


def test_a_boot_that_nobody_saw_begin_has_no_start():
    (row,), (stretch,) = boots_of_host("esx1", [Alive(start=at("01 09:00"), end=at("01 14:00"))], [], [])
    assert row["boot"] is None
    assert row["uptime"] is None
    assert row["observed"] == 5 * HOUR
    assert stretch["boot"] is None


def test_two_logs_that_tell_one_boot_make_one_boot_and_a_second_line_of_one_log_another():
    marks = [mark("booted", "01 00:05", "vmkernel"), mark("booted", "01 00:10"), mark("booted", "01 00:14", "hostd")]
    assert len(ends([], marks, [])) == 1
    assert len(ends([], [*marks, mark("booted", "01 00:25")], [])) == 2


def test_a_log_that_begins_a_moment_before_the_counter_belongs_to_the_new_boot():
    log = Alive(start=at("01 11:00") - timedelta(seconds=4), end=at("01 14:00"), evidence="vmkernel")
    _, coverage = boots_of_host("esx1", [*LIFE, log, *NEXT], [], [])
    assert [c["end"] for c in coverage] == [at("01 10:00"), at("01 14:00")]


def test_nothing_gives_nothing():
    assert boots_of_host("esx1", [], [], []) == ([], [])


# ---- loaded versions ------------------------------------------------------------------------------------------------

BOOTS = ["01 00:00", "05 00:00", "09 00:00"]


def uptimes(*boots: str, host: str = "esx1") -> pd.DataFrame:
    rows = [{"host": host, "boot": at(boot), "end": at(boot) + 72 * HOUR, "end_reason": "reboot"} for boot in boots]
    rows[-1]["end_reason"] = "running"
    return schema.build("uptimes", rows)


def reading(evidence: str, time: str, version: str = "5.5.0.58", state: str | None = None, **more) -> dict:
    states = dict.fromkeys(["vib_list", "vib_install", "esxupdate", "install_date"], "installed")
    states["rebooting_image"] = "pending"
    return {
        "host": "esx1", "module": "hpsa", "version": version, "state": state or states.get(evidence, "loaded"),
        "observed_at": at(time), "evidence": evidence, **more,
    }  # fmt: skip


def loaded(*readings: dict) -> list[tuple]:
    table = loaded_versions(uptimes(*BOOTS), schema.build("drivers", readings), "hpsa")
    rows = zip(table["version"], table["driver_evidence"], table["pending"], strict=True)
    return [(None if pd.isna(version) else version, evidence, pd.notna(pending)) for version, evidence, pending in rows]


V50 = "5.5.0.50"
NONE = (None, "none", False)
BOOTED = (V50, "esxupdate_before_boot", False)


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([], [NONE] * 3),
        # Known in one boot: carried on to later ones, never back.
        (
            [reading("banner", "05 00:01")],
            [NONE, ("5.5.0.58", "banner", False), ("5.5.0.58", "esxupdate_before_boot", False)],
        ),
        # An install loads with the next boot, and waits until then.
        (
            [reading("banner", "01 00:01"), reading("esxupdate", "02 00:00", "5.5.0.50")],
            [("5.5.0.58", "banner", True), BOOTED, BOOTED],
        ),
        # The list after the install shows the new version while the old one runs.
        (
            [reading("proc", "05 01:00"), reading("vib_install", "06 00:00", V50), reading("vib_list", "06 01:00", V50)],
            [NONE, ("5.5.0.58", "proc", True), BOOTED],
        ),
        # What an install removed was that boot's image.
        (
            [reading("vib_install", "06 00:00", "5.5.0.50"), reading("vib_install", "06 00:00", "5.5.0.58", "removed")],
            [NONE, ("5.5.0.58", "vib_of_boot", True), ("5.5.0.50", "esxupdate_before_boot", False)],
        ),
        # A list before any change is the image; a pending image waits.
        (
            [reading("vib_list", "09 01:00"), reading("rebooting_image", "09 02:00", "5.5.0.50")],
            [NONE, NONE, ("5.5.0.58", "vib_of_boot", True)],
        ),
        # A list beside a pending image taken before it proves nothing.
        (
            [reading("rebooting_image", "09 01:00", V50), reading("vib_list", "09 02:00", V50)],
            [NONE, NONE, (None, "none", True)],
        ),
        # A silent fall back to the old bank: the banner wins over the log.
        (
            [reading("esxupdate", "02 00:00", "5.5.0.50"), reading("banner", "05 00:01", "5.5.0.58")],
            [(None, "none", True), ("5.5.0.58", "banner", False), ("5.5.0.58", "esxupdate_before_boot", False)],
        ),
        # Two loaded readings of one boot that disagree.
        (
            [reading("banner", "09 00:01"), reading("proc", "09 01:00", "5.5.0.50")],
            [NONE, NONE, ("5.5.0.58", "conflict", False)],
        ),
        # The day of the install, for boots of later days only.
        (
            [reading("install_date", "05 00:00")],
            [NONE, NONE, ("5.5.0.58", "install_date", False)],
        ),
        # Removed and not replaced.
        (
            [reading("banner", "01 00:01"), reading("esxupdate", "02 00:00", "5.5.0.58", "removed")],
            [("5.5.0.58", "banner", False), NONE, NONE],
        ),
    ],
)  # fmt: skip
def test_which_version_was_loaded(readings, expected):
    assert loaded(*readings) == expected


def test_a_reading_that_names_its_boot_is_believed_over_its_time():
    named = reading("proc", "09 05:00", boot=at("01 00:00") + timedelta(seconds=30))
    assert loaded(named)[0] == ("5.5.0.58", "proc", False)


def test_a_reading_from_after_a_known_end_is_no_reading_of_that_boot():
    assert loaded(reading("proc", "04 12:00")) == [NONE, NONE, NONE]


def test_other_modules_and_hosts_do_not_count():
    others = reading("banner", "01 00:01", module="hpvsa"), reading("banner", "01 00:01", host="esx2")
    assert loaded(*others) == [NONE] * 3


def test_rows_keep_the_order_and_dtypes_of_the_table():
    two = pd.concat([uptimes(*BOOTS, host="b"), uptimes(*BOOTS, host="a")], ignore_index=True)
    table = loaded_versions(two, schema.empty("drivers"))
    assert list(table["host"]) == list(two["host"])
    assert table["driver_evidence"].dtype == pd.CategoricalDtype(schema.CLOSED_LISTS["driver_evidence"])
    assert table["pending"].dtype == schema.TIME
    assert list(loaded_versions(schema.empty("uptimes"), schema.empty("drivers")).columns) == list(table.columns)


def test_a_boot_without_a_start_still_gets_its_version():
    table = schema.build("uptimes", [{"host": "esx1", "boot": None, "end": at("03 00:00"), "end_reason": "running"}])
    drivers = schema.build("drivers", [reading("proc", "02 00:00")])
    assert list(loaded_versions(table, drivers)["version"]) == ["5.5.0.58"]


def test_times_may_move_together():
    # The same life a year later gives the same table, shifted.
    def shifted(value: datetime | None) -> datetime | None:
        return value + timedelta(days=365) if value else None

    def later(item: Alive) -> Alive:
        return replace(
            item, start=item.start + timedelta(days=365), end=item.end + timedelta(days=365), boot=shifted(item.boot)
        )

    plain, _ = boots_of_host("esx1", [*LIFE, *NEXT], [], [])
    moved, _ = boots_of_host("esx1", [later(item) for item in (*LIFE, *NEXT)], [], [])
    assert [(shifted(row["boot"]), row["end_reason"], row["observed"]) for row in plain] == [
        (row["boot"], row["end_reason"], row["observed"]) for row in moved
    ]
