"""Time to crash: against R's survival package, and on fleets with a known hazard."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from psodlib.errors import InputError, SmallSampleWarning
from psodlib.risk.survival import hazard_by_uptime, reboot_benefit, survival_table, time_to_crash, uptime_trend, weibull
from psodlib.simulate.process import SCENARIOS, simulate_history

STAT_REFS = Path(__file__).resolve().parents[3] / "shared" / "stat-refs"
SIX_MP = (
    [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35],
    [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0],
)
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]


def reference(file, name):
    path = STAT_REFS / file
    if not path.is_file():
        pytest.skip("the reference folder ../shared is not at hand")
    return next(record for record in json.loads(path.read_text()) if record["name"] == name)


def at(table, days, column):
    return [float(table.loc[table["days"] <= day, column].iloc[-1]) for day in days]


def test_freireich_against_r():
    # R: survfit(Surv(time, event) ~ 1): .8571 .8067 .7529 .6902 .6275 .5378 .4482
    found = survival_table(*SIX_MP)
    days = [6, 7, 10, 13, 16, 22, 23]
    survival = [0.85714286, 0.80672269, 0.75294118, 0.69019608, 0.62745098, 0.53781513, 0.44817927]
    error = [0.07636035, 0.08693529, 0.09634965, 0.10681471, 0.11405387, 0.12823375, 0.13459146]
    assert at(found, days, "survival") == pytest.approx(survival, abs=1e-7)
    assert at(found, days, "error") == pytest.approx(error, abs=1e-7)
    assert at(found, days, "at_risk") == [21, 17, 15, 12, 11, 7, 6]
    # R: conf.type = "log-log" at 6: 0.6197180 0.9515517 ; Nelson-Aalen at 6: 3/21
    assert at(found, [6], "low") == pytest.approx([0.6197180], abs=1e-6)
    assert at(found, [6], "high") == pytest.approx([0.9515517], abs=1e-6)
    assert at(found, [6], "hazard") == pytest.approx([3 / 21])


def test_delayed_entry_against_r():
    record = reference("survival.json", "channing_left_truncation")
    given, expected = record["inputs"], record["expected"]
    start = given["condition_on_age_months"]
    found = survival_table(given["exit"], given["event"], given["entry"], start=start)
    assert at(found, expected["time"], "survival") == pytest.approx(expected["surv"], abs=record["tolerance"])


def test_competing_ends_against_r():
    record = reference("competing.json", "mgus2_first150_aj")
    given, expected = record["inputs"], record["expected"]
    found = survival_table(given["time"], given["event"])
    assert at(found, expected["time"], "incidence") == pytest.approx(expected["cif1"], abs=record["tolerance"])
    assert at(found, expected["time"], "incidence_other") == pytest.approx(expected["cif2"], abs=record["tolerance"])
    assert 1 - at(found, [240], "survival")[0] > 0.0576  # censoring the competing end says too much


def test_incidences_and_survivors_make_one():
    rng = np.random.default_rng(2)
    leave, cause = rng.exponential(30, 400), rng.integers(1, 4, 400)
    last = survival_table(leave, cause).iloc[-1]
    assert last["incidence"] + last["incidence_other"] + last["incidence_reboot"] == pytest.approx(1.0)


def test_weibull_against_r():
    # R: survreg(Surv(PLACEBO) ~ 1): shape 1.3704999, scale 9.4821413
    shape, low, high, scale = weibull(PLACEBO, np.ones(21, dtype=bool))
    assert (shape, scale) == pytest.approx((1.3704998594653, 9.4821412542547), abs=2e-4)
    assert low < 1.37 < high


def test_ignoring_late_entry_would_inflate_the_shape():
    rng = np.random.default_rng(3)
    life = 100 * rng.weibull(1.5, 20_000)
    entry = rng.uniform(0, 60, 20_000)
    seen = life > entry
    honest = weibull(life[seen], np.ones(seen.sum(), dtype=bool), entry[seen])[0]
    naive = weibull(life[seen], np.ones(seen.sum(), dtype=bool))[0]
    assert honest == pytest.approx(1.5, abs=0.05)
    assert naive > 1.8


@pytest.fixture(scope="module")
def leaky():
    return simulate_history(seed=5, **SCENARIOS["S3weib"]).exposure()


def test_splitting_a_stretch_changes_no_curve():
    rng = np.random.default_rng(7)
    entry = rng.integers(0, 30, 300)
    leave, cause = entry + rng.integers(2, 90, 300), rng.integers(0, 4, 300)
    cut = (entry + leave) // 2
    split = survival_table([*cut, *leave], [*np.zeros(300), *cause], [*entry, *cut])
    pd.testing.assert_frame_equal(split, survival_table(leave, cause, entry))


def test_a_leak_shows_as_a_rising_hazard(leaky):
    trend = uptime_trend(leaky)
    assert trend.loc["5.5.0.58", "low"] > 1
    bands = hazard_by_uptime(leaky).query("version == '5.5.0.58'").set_index("uptime")
    assert list(bands.index) == ["0-7", "7-15", "15-30", "30-60", "60-120", "120+"]
    assert bands.loc["60-120", "low"] > bands.loc["0-7", "rate"]
    total = leaky.loc[leaky["version"] == "5.5.0.58", ["crashes", "host_days"]].sum()
    assert bands[["crashes", "host_days"]].sum().to_numpy(dtype=float) == pytest.approx(total.to_numpy(dtype=float))


def test_rebooting_helps_against_a_leak_and_says_what_it_costs(leaky):
    found = reboot_benefit(leaky, "5.5.0.58", (7, 30))
    assert found["helps"].tolist() == [True, True]
    assert found.loc[7, "crash_ratio"] < found.loc[30, "crash_ratio"] < 1
    assert (
        found.loc[7, "hours_lost_per_host_year"] > found.loc[7, "hours_lost_now"]
    )  # 52 reboots cost more than they save


def test_rebooting_does_not_help_where_nothing_leaks():
    found = reboot_benefit(simulate_history(seed=6, **SCENARIOS["S3"]).exposure(), "5.5.0.58", (30,))
    assert found["helps"].isna().all() and found.loc[30, "low"] < 1 < found.loc[30, "high"]


def test_rebooting_before_any_crash_was_seen_leaves_none_and_no_upper_end():
    day = pd.Timedelta(days=1)
    boots = pd.DataFrame({"host": [f"h{n}" for n in range(12)], "version": ["a"] * 6 + ["b"] * 6})
    start = pd.Timestamp("2014-05-01", tz="UTC")
    late = boots.assign(
        start=start, end=start + 40 * day, uptime_start=0 * day, host_days=40.0, crashes=[1] * 6 + [0] * 6
    )
    assert reboot_benefit(late, "a", (7,)).loc[7, ["crash_ratio", "low", "high"]].tolist() == [0, 0, math.inf]
    # Version b never lived as long as the crashed boots of a: nothing is known of it.
    young = late.assign(end=late["end"].where(late["version"] == "a", start + 5 * day))
    young["host_days"] = (young["end"] - young["start"]) / day
    found = reboot_benefit(young, "b", (7,)).loc[7]
    assert math.isnan(found["crash_ratio"]) and pd.isna(found["helps"])


def test_a_curve_of_few_boots_is_called_anecdote():
    few = pd.DataFrame({
        "host": ["a", "b"], "version": "5.5.0.58", "host_days": [29.8, 3.0], "crashes": [1, 0],
        "uptime_start": pd.to_timedelta([0, 0]), "end_reason": ["crash", "running"],
    })  # fmt: skip
    with pytest.warns(SmallSampleWarning, match="anecdote"):
        found = time_to_crash(few)
    assert found["survival"].iloc[-1] == 0


def test_without_uptime_there_is_no_curve():
    with pytest.raises(InputError, match="uptime_start"):
        time_to_crash(pd.DataFrame({"host": ["a"], "version": ["1"], "host_days": [1.0], "crashes": [0]}))
