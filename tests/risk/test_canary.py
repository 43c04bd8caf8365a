"""Planning and watching a roll-out."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from psodlib.errors import InputError
from psodlib.risk.canary import ALARM, HARM, e_process, plan_canary, sprt_lines, watch_canary, zero_crash_host_days
from psodlib.simulate.process import SCENARIOS, simulate_history

YEAR = 365.25


@pytest.mark.parametrize(
    ("rate", "days"), [(5, 219), (2, 547), (1, 1094), (0.5, 2188), (0.2, 5471), (0.1, 10942), (0.05, 21884)]
)
def test_host_days_without_a_crash_that_bound_a_rate(rate, days):
    assert zero_crash_host_days(rate / YEAR) == pytest.approx(days, abs=0.6)


@pytest.mark.parametrize(("crashes", "times"), [(1, 4.744), (2, 6.296), (3, 7.754)])
def test_each_crash_asks_for_more(crashes, times):
    assert zero_crash_host_days(1.0, crashes=crashes) == pytest.approx(times, abs=6e-4)


# Power of n canaries in a fleet of 500 at 0.2 crashes a host-year after 13, 26, 52 weeks.
@pytest.mark.parametrize(
    ("hosts", "ratio", "power"),
    [(25, 3, (0.40, 0.65, 0.90)), (50, 3, (0.62, 0.88, 0.99)), (100, 3, (0.84, 0.98, 1)),
     (100, 1 / 3, (0.29, 0.61, 0.91))],
)  # fmt: skip
def test_power_of_a_canary(hosts, ratio, power):
    assert plan_canary(0.2 / YEAR, ratio, hosts, 500 - hosts).loc[[13, 26, 52], "power"].to_numpy() == pytest.approx(
        power, abs=0.016
    )


def test_power_against_simulation_with_frail_hosts():
    rng = np.random.default_rng(8)
    plan = plan_canary(0.5 / YEAR, 3, 50, 200, weeks=(26,), variance=2.0)
    effect = [rng.gamma(0.5, 2.0, (4000, n)).sum(axis=1) for n in (50, 200)]
    b, a = rng.poisson(effect[0] * 1.5 / YEAR * 182), rng.poisson(effect[1] * 0.5 / YEAR * 182)
    p = 2 * np.minimum(stats.binom.sf(b, a + b, 0.2), stats.binom.cdf(b - 1, a + b, 0.2)) + stats.binom.pmf(
        b, a + b, 0.2
    )
    assert plan.loc[26, "power"] == pytest.approx(((p <= 0.05) & (b * 4 > a)).mean(), abs=0.025)
    assert plan.loc[26, "false_alarms"] > 0.06  # lemons make a plain test cry wolf, and the plan says so


def test_the_week_with_the_wanted_power_is_the_first():
    plan = plan_canary(0.2 / YEAR, 3, 50, 450, weeks=(), power=0.8)
    (week,) = plan.index[plan["wanted"]]
    around = plan_canary(0.2 / YEAR, 3, 50, 450, weeks=(week - 1, week), power=0.8)
    assert around.loc[week - 1, "power"] < 0.8 <= around.loc[week, "power"]


def test_the_expectation_of_e_is_one_by_enumeration():
    # Crashes fall on the new version with probability p0 in each of four periods, whatever went before.
    shares = (0.1, 0.1, 0.2, 0.4)
    total = 0.0
    for hits in itertools.product((0, 1), repeat=4):
        probability = np.prod([p if hit else 1 - p for p, hit in zip(shares, hits, strict=True)])
        total += probability * e_process(hits, shares, 1 - np.array(hits), 1 - np.array(shares))[-1]
    assert total == pytest.approx(1.0, abs=1e-12)
    assert len(HARM) == 25 and (HARM[0], HARM[-1]) == pytest.approx((1.25, 8))


def test_weeks_with_one_version_only_tell_nothing():
    assert e_process([0, 3], [0, 70], [5, 0], [700, 0]) == pytest.approx([1, 1])


def looks(ratio, variance, fleets=300, seed=1):
    # 450 hosts on the old version, 50 on the new, weekly looks for a year, first crash only.
    rng = np.random.default_rng(seed)
    ever = []
    for _ in range(fleets):
        effect = rng.gamma(1 / variance, variance, 500) if variance else np.ones(500)
        hazard = 0.5 / 52.18 * effect * np.where(np.arange(500) < 50, ratio, 1.0)
        crash = rng.exponential(1, 500) / np.maximum(hazard, 1e-300)
        week = np.arange(52)
        risk = np.clip(crash[:, None] - week, 0, 1) * 7
        hit = (crash[:, None] >= week) & (crash[:, None] < week + 1)
        ever.append(e_process(hit[:50].sum(0), risk[:50].sum(0), hit[50:].sum(0), risk[50:].sum(0)).max() >= ALARM)
    return np.mean(ever)


@pytest.mark.parametrize("variance", [0.0, 0.5, 2.0])
def test_looking_every_week_stays_honest(variance):
    assert looks(1.0, variance) <= 0.05


def test_a_threefold_rate_is_found_within_the_year():
    assert looks(3.0, 0.0) >= 0.95


def test_watching_a_made_up_roll_out():
    table = simulate_history(seed=3, **SCENARIOS["S3"]).exposure()
    found = watch_canary(table, "5.5.0.58", "5.5.0.50")
    assert found["alarm"].iloc[-1] and not found["alarm"].iloc[0]
    assert found["week"].diff().dropna().eq(pd.Timedelta(days=7)).all()
    assert found["host_days"].sum() <= table.loc[table["version"] == "5.5.0.58", "host_days"].sum()
    begin = table.loc[table["version"] == "5.5.0.58", "start"].min()
    crashed = table[(table["crashes"] > 0) & (table["end"] > begin) & table["version"].isin(["5.5.0.58", "5.5.0.50"])]
    assert found["crashes"].sum() + found["reference_crashes"].sum() == crashed["host"].nunique()


def test_host_days_by_week_add_up_by_hand():
    day, start = pd.Timedelta(days=1), pd.Timestamp("2014-05-01", tz="UTC")
    table = pd.DataFrame({
        "host": ["a", "b"], "version": ["60", "50"], "start": [start, start - 30 * day],
        "end": [start + 10 * day, start + 20 * day], "host_days": [10.0, 50.0], "crashes": [0, 1],
    })  # fmt: skip
    found = watch_canary(table, "60", "50")
    assert found["host_days"].tolist() == pytest.approx([7, 3, 0])
    assert found["reference_host_days"].tolist() == pytest.approx([7, 7, 6])
    assert found["reference_crashes"].tolist() == [0, 0, 1]


def test_sprt_lines():
    # Wald with alpha .05, beta .10, 0.2 against 0.6 a host-year
    found = sprt_lines(0.2 / YEAR, 0.6 / YEAR, 6)
    assert found["accept_host_days"].iloc[:5].tolist() == pytest.approx([2056, 3059, 4062, 5065, 6068], abs=1)
    assert found.loc[[3, 4, 5, 6], "reject_host_days"].tolist() == pytest.approx([370, 1373, 2377, 3380], abs=1)
    assert found.loc[[0, 1, 2], "reject_host_days"].isna().all()


@pytest.mark.parametrize(("failures", "time"), [(2, 7.18), (3, 8.56), (4, 9.94)])
def test_sprt_against_a_published_plan(failures, time):
    # MIL-HDBK-781A plan III-D, alpha = beta = .10, discrimination ratio 2, in multiples of theta 1
    found = sprt_lines(0.5, 1.0, failures, alpha=0.1, beta=0.1).loc[failures, "accept_host_days"]
    assert found == pytest.approx(time, abs=0.02)


@pytest.mark.parametrize(
    "call",
    [
        lambda: plan_canary(0, 3, 10, 10),
        lambda: plan_canary(1, 3, 0, 10),
        lambda: sprt_lines(2, 1, 3),
        lambda: zero_crash_host_days(0),
        lambda: watch_canary(
            pd.DataFrame({"host": ["a"], "version": ["1"], "host_days": [1.0], "crashes": [0]}), "1", "2"
        ),
    ],
)
def test_what_cannot_be_planned_is_refused(call):
    with pytest.raises(InputError):
        call()
