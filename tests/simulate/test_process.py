"""The made-up history obeys its own rules, and its dice fall as they were loaded."""

from __future__ import annotations

from functools import cache
from math import gamma

import numpy as np
import pandas as pd
import pytest

from psodlib import schema
from psodlib.errors import InputError
from psodlib.simulate.process import SCENARIOS, VERSIONS, History, simulate_history

BASE, BAD, NEXT = VERSIONS

DAY = pd.Timedelta(days=1)


@cache
def fleet(scenario: str = "S3", seed: int = 0, **process: float) -> History:
    return simulate_history(seed=seed, **{**SCENARIOS[scenario], **process})


def expected_driver_crashes(history: History) -> pd.DataFrame:
    """Cumulated driver hazard of each boot, by integrating the formula of the docstring: another way to the count."""
    rules, days = history.parameters, (history.end - history.start) / DAY
    boots = history.boots.merge(history.hosts[["host", "hazard", "frailty"]], on="host")
    entry, end = ((boots[edge] - history.start) / DAY for edge in ("entry", "end"))
    uptime = (boots["entry"] - boots["boot"]) / DAY
    middles = (np.arange(200) + 0.5) / 200
    width = (end - entry).to_numpy()[:, None]
    u = uptime.to_numpy()[:, None] + width * middles
    t = entry.to_numpy()[:, None] + width * middles
    shape = rules.weibull_shape
    height = (u / rules.reboot_days) ** (shape - 1) / gamma(shape) * np.exp(rules.trend * (t / days - 0.5))
    ratio = boots["version"].map({BASE: 1.0, BAD: rules.ratio_58, NEXT: rules.ratio_60}).to_numpy(dtype=float)
    rate = rules.driver_rate / 365.25 * boots["hazard"].to_numpy() * boots["frailty"].to_numpy() * ratio
    return boots.assign(expected=rate * width[:, 0] * height.mean(axis=1))


def test_the_same_seed_gives_the_same_history() -> None:
    one, two, other = simulate_history(60, seed=5), simulate_history(60, seed=5), simulate_history(60, seed=6)
    for name in ("hosts", "boots", "crashes", "installs", "gaps"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(two, name))
    assert not one.boots["end"].equals(other.boots["end"])


@pytest.mark.parametrize("scenario", ["S0", "S3", "S3null", "S3weib", "S3trend", "S3both", "S3lemon", "S3clus"])
def test_driver_crashes_are_as_many_as_the_hazard_says(scenario: str) -> None:
    expected, observed = [], []
    for seed in range(6):
        history = fleet(scenario, seed)
        expected.append(expected_driver_crashes(history).groupby("version")["expected"].sum())
        observed.append(history.crashes[history.crashes["driver"]].groupby("version").size())
    want, got = pd.DataFrame(expected).sum(), pd.DataFrame(observed).sum()
    assert want.index.tolist() == list(VERSIONS)
    assert (abs(got - want) < 4 * np.sqrt(want)).all(), f"{got} is too far from {want}"


def test_a_leak_crashes_late_in_the_boot() -> None:
    early = []
    for shape in (1.0, 3.0):
        history = fleet("S3", 1, weibull_shape=shape)
        crashes = history.crashes[history.crashes["driver"]]
        early.append(((crashes["time"] - crashes["boot"]) < 30 * DAY).mean())
    assert early[1] < early[0] / 2


def test_usual_fleet_has_the_driver_crashes_that_the_statistics_were_made_with() -> None:
    counted = [fleet("S3", seed).exposure().groupby("version")["crashes"].sum() for seed in range(24)]
    mean = pd.DataFrame(counted).mean()
    # The reference: 97, 159 and 18 crashes a fleet. Four standard errors of 24 fleets, frailty included.
    for version, reference in zip(VERSIONS, (97, 159, 18), strict=True):
        assert mean[version] == pytest.approx(reference, abs=4 * 1.3 * np.sqrt(reference / 24))


def test_naive_methods_fail_as_they_must() -> None:
    counts, snapshot, before_after, crude = [], [], [], []
    for seed in range(24):
        history = fleet("S3", seed)
        table = history.exposure()
        per_version = table.groupby("version")[["crashes", "unknown_crashes", "other_crashes", "host_days"]].sum()
        crude.append(_ratio(per_version["crashes"], per_version["host_days"]))
        every = per_version[["crashes", "unknown_crashes", "other_crashes"]].sum(axis=1)
        counts.append(every[BAD] / every[BASE])
        newest = history.boots.groupby("host")["version"].last()
        by_newest = table.assign(version=table["host"].map(newest)).groupby("version")[["crashes", "host_days"]].sum()
        snapshot.append(_ratio(by_newest["crashes"], by_newest["host_days"]))
        sent_back = history.installs[history.installs["rollback"]].groupby("host")["time"].min()
        lives = table[table["host"].isin(sent_back.index)]
        kept = lives[(lives["version"] == BAD) | (lives["start"] >= lives["host"].map(sent_back))]
        pair = kept.groupby("version")[["crashes", "host_days"]].sum()
        before_after.append(_ratio(pair["crashes"], pair["host_days"]))
    bias = {name: np.exp(np.mean(np.log(values))) / 3 - 1 for name, values in
            {"counts": counts, "snapshot": snapshot, "before_after": before_after, "crude": crude}.items()}  # fmt: skip
    assert bias["before_after"] >= 0.8
    assert bias["snapshot"] <= -0.8
    assert bias["counts"] <= -0.45
    assert -0.25 < bias["crude"] < 0


def _ratio(crashes: pd.Series, host_days: pd.Series) -> float:
    return (crashes[BAD] / host_days[BAD]) / (crashes[BASE] / host_days[BASE])


@pytest.mark.parametrize(
    ("shape", "variance"), [("gamma", 0.5), ("lognormal", 0.5), ("lemons", 0.5), ("gamma", 2.0), ("clusters", 0.5)]
)
def test_frailty_has_mean_one_and_the_variance_asked_for(shape: str, variance: float) -> None:
    history = simulate_history(6000, 30, 6000, frailty_shape=shape, frailty_variance=variance)
    frailty = history.hosts["frailty"]
    assert frailty.mean() == pytest.approx(1, abs=4 * np.sqrt(variance / 6000))
    assert frailty.var() == pytest.approx(variance, rel=0.25)


def test_hosts_are_alike_without_frailty() -> None:
    assert (fleet("S0").hosts["frailty"] == 1).all()


def test_boots_of_a_host_follow_each_other() -> None:
    boots = fleet().boots
    assert (boots["boot"] <= boots["entry"]).all() and (boots["entry"] < boots["end"]).all()
    previous = boots.groupby("host")["end"].shift()
    assert (previous.isna() | (boots["boot"] > previous)).all()
    last = ~boots["host"].duplicated(keep="last")
    assert (boots.loc[~last, "end_reason"] != "running").all()


def test_a_crash_ends_its_boot() -> None:
    history = fleet()
    boots = history.boots.loc[history.crashes["boot_row"]].reset_index(drop=True)
    for column, of_boot in (("host", "host"), ("time", "end"), ("boot", "boot"), ("version", "version")):
        assert history.crashes[column].tolist() == boots[of_boot].tolist()
    assert (history.boots["end_reason"] == "crash").sum() == len(history.crashes)


def test_what_is_installed_loads_at_the_next_boot_and_no_sooner() -> None:
    history = fleet()
    first = history.boots[~history.boots["host"].duplicated()].set_index("host")["version"]
    by_host = history.installs.groupby("host")
    installs = {host: list(zip(rows["time"], rows["version"], strict=True)) for host, rows in by_host}
    for boot in history.boots.itertuples():
        done = [version for time, version in installs.get(boot.host, []) if time <= boot.boot]
        assert boot.version == (done[-1] if done else first[boot.host])


def test_rollback_follows_a_driver_crash_on_the_bad_version_only() -> None:
    history = fleet()
    back = history.installs[history.installs["rollback"]]
    assert len(back) > 50 and set(back["version"]) == {BASE} and set(back["removed"]) == {BAD}
    crashes = history.crashes[history.crashes["driver"] & (history.crashes["version"] == BAD)]
    for install in back.itertuples():
        times = crashes.loc[crashes["host"] == install.host, "time"]
        assert (times < install.time).any()
    # Whoever crashed went back in about 7 of 10 cases; a crash with .60 already waiting needs no way back.
    assert len(back) / len(crashes) == pytest.approx(0.7, abs=0.12)
    assert not fleet("S2").installs["rollback"].any()


def test_pinned_hosts_skip_the_next_version() -> None:
    history = fleet("S3", 0, rollback=1.0, pinned=1.0)
    sent_back = history.installs[history.installs["rollback"]].set_index("host")["time"]
    later = history.installs[(history.installs["version"] == NEXT) & history.installs["host"].isin(sent_back.index)]
    assert (later["time"] < later["host"].map(sent_back.groupby(level=0).max())).all()


def test_exposure_is_the_contract_table() -> None:
    pd.testing.assert_frame_equal(fleet().exposure(), schema.conform("exposure", fleet().exposure()))


def test_gaps_leave_both_host_days_and_crashes() -> None:
    history = fleet()
    with_gaps, without = history.exposure(), history.exposure(gaps=False)
    for gap in history.gaps.itertuples():
        mine = with_gaps[with_gaps["host"] == gap.host]
        assert ((mine["end"] <= gap.start) | (mine["start"] >= gap.end)).all()
    lost = 0.0
    boots = dict(list(history.boots.groupby("host")))
    for gap in history.gaps.itertuples():
        mine = boots[gap.host]
        overlap = np.minimum(mine["end"], gap.end) - np.maximum(mine["entry"], gap.start)
        lost += overlap[overlap > pd.Timedelta(0)].sum() / DAY
    assert without["host_days"].sum() - with_gaps["host_days"].sum() == pytest.approx(lost)
    real = history.crashes[~history.crashes["deliberate"]]
    assert real["in_gap"].any()
    assert _all_crashes(without) == len(real)
    assert _all_crashes(with_gaps) == (~real["in_gap"]).sum()


def _all_crashes(table: pd.DataFrame) -> int:
    return int(table[["crashes", "unknown_crashes", "other_crashes"]].to_numpy().sum())


def test_stretches_cover_every_boot_once_and_tell_its_uptime() -> None:
    history = fleet()
    table = history.exposure(gaps=False)
    assert len(table) == len(history.boots)
    assert table["start"].tolist() == history.boots["entry"].tolist()
    assert table["end_reason"].astype(str).tolist() == history.boots["end_reason"].tolist()
    assert (table["uptime_start"] == table["start"] - table["boot"]).all()
    assert table["host_days"].sum() == pytest.approx(((history.boots["end"] - history.boots["entry"]) / DAY).sum())


def test_attribution_moves_crashes_and_loses_none() -> None:
    history = fleet()
    seen, true = history.exposure(), history.exposure(known=False)
    assert seen["unknown_crashes"].sum() > 0 and true["unknown_crashes"].sum() == 0
    assert _all_crashes(seen) == _all_crashes(true)
    driver = history.crashes[history.crashes["driver"] & ~history.crashes["in_gap"]]
    assert true["crashes"].sum() == len(driver)
    assert seen["crashes"].sum() == driver["attributed"].sum()


def test_a_deliberate_crash_ends_a_boot_and_counts_nowhere() -> None:
    history = simulate_history(100, deliberate_rate=1.0, driver_rate=0.0, background_rate=0.0)
    assert history.crashes["deliberate"].all() and len(history.crashes) > 50
    table = history.exposure()
    assert _all_crashes(table) == 0 and (table["end_reason"] == "crash").any()


def test_a_fleet_with_nothing_in_it_still_has_its_tables() -> None:
    nothing = {"driver_rate": 0, "background_rate": 0, "gaps_per_host": 0, "rollout_58_days": (900.0,) * 3}
    history = simulate_history(3, 10, 1, **nothing)
    assert history.crashes.empty and history.installs.empty and history.gaps.empty
    assert _all_crashes(history.exposure()) == 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"hosts": 0}, "hosts"), ({"days": 0}, "days"), ({"driver_rate": -1}, "driver_rate"),
     ({"driver_rate": float("nan")}, "driver_rate"), ({"rollback": 1.5}, "rollback"),
     ({"reboot_days": 0}, "reboot_days"), ({"frailty_shape": "normal"}, "frailty_shape"), ({"speed": 3}, "speed")],
)  # fmt: skip
def test_wrong_parameters_are_named(arguments: dict[str, float], word: str) -> None:
    with pytest.raises(InputError, match=word):
        simulate_history(**{"hosts": 5, "clusters": 1, **arguments})
