"""The wrong ratios are wrong in the way that they say, and none raises."""

import math

import pandas as pd

from psodlib.simulate.process import simulate_history
from psodlib.views.traps import naive_ratios

TRUTH = 3.0


def by_name(table: pd.DataFrame) -> dict[str, float]:
    return dict(zip(table["shortcut"], table["ratio"], strict=True))


def test_each_shortcut_errs_in_its_known_direction():
    fleet = simulate_history(hosts=500, days=548, clusters=50, seed=1).exposure()
    ratios = by_name(naive_ratios(fleet, "5.5.0.58", "5.5.0.50"))
    assert ratios["count crashes, forget host-days"] < 0.75 * TRUTH
    assert ratios["count every crash, not the driver's"] < 0.9 * TRUTH
    assert ratios["give a host's whole past to its newest version"] < 0.4 * TRUTH
    assert ratios["compare before and after a rollback"] > 1.5 * TRUTH
    assert ratios["name a host by the furthest version it reached"] < 0.95 * TRUTH
    assert ratios["divide crashes by host-days and stop there"] < TRUTH


def test_a_gap_taken_as_quiet_time_lowers_the_rate_of_whoever_has_it():
    start, day = pd.Timestamp("2014-05-01", tz="UTC"), pd.Timedelta(days=1)
    table = pd.DataFrame({
        "host": ["a", "a", "b"], "version": ["2", "2", "1"], "boot": start, "start": [start, start + 30 * day, start],
        "end": [start + 10 * day, start + 40 * day, start + 40 * day], "host_days": [10.0, 10.0, 40.0],
        "crashes": [0, 1, 1],
    })  # fmt: skip
    ratios = by_name(naive_ratios(table, "2", "1"))
    assert ratios["divide crashes by host-days and stop there"] == 2.0
    assert ratios["count a gap in the logs as quiet time"] == 1.0


def test_time_before_a_version_is_not_its_own_but_one_shortcut_says_so():
    start, day = pd.Timestamp("2014-05-01", tz="UTC"), pd.Timedelta(days=1)
    table = pd.DataFrame({
        "host": ["a", "a", "b"], "version": ["1", "2", "1"], "start": [start, start + 90 * day, start],
        "end": [start + 90 * day, start + 100 * day, start + 100 * day], "host_days": [90.0, 10.0, 100.0],
        "crashes": [0, 1, 1],
    })  # fmt: skip
    ratios = by_name(naive_ratios(table, "2", "1"))
    assert ratios["name a host by the furthest version it reached"] == 1.0


def test_bare_counts_are_bare_counts():
    table = pd.DataFrame({"host": ["a", "b"], "version": ["2", "1"], "host_days": [10.0, 1000.0], "crashes": [2, 4]})
    assert by_name(naive_ratios(table, "2", "1"))["count crashes, forget host-days"] == 0.5
    assert math.isnan(by_name(naive_ratios(table, "2", "1"))["compare before and after a rollback"])


def test_nothing_to_divide_by_is_no_number():
    table = pd.DataFrame({"host": ["a"], "version": ["1"], "host_days": [10.0], "crashes": [0]})
    assert all(math.isnan(ratio) for ratio in by_name(naive_ratios(table, "2", "1")).values())
