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


def test_bare_counts_are_bare_counts():
    table = pd.DataFrame({"host": ["a", "b"], "version": ["2", "1"], "host_days": [10.0, 1000.0], "crashes": [2, 4]})
    assert by_name(naive_ratios(table, "2", "1"))["count crashes, forget host-days"] == 0.5
    assert math.isnan(by_name(naive_ratios(table, "2", "1"))["compare before and after a rollback"])


def test_nothing_to_divide_by_is_no_number():
    table = pd.DataFrame({"host": ["a"], "version": ["1"], "host_days": [10.0], "crashes": [0]})
    assert all(math.isnan(ratio) for ratio in by_name(naive_ratios(table, "2", "1")).values())
