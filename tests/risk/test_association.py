"""Attributes that go with a signature: found where they are, not found where they are not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from psodlib import schema
from psodlib.errors import InputError
from psodlib.fleet import Fleet
from psodlib.risk import association
from psodlib.risk.association import associations, attributes_of_signature
from psodlib.simulate.process import simulate_history

EVEN = {"model_hazard": (1.0, 1.0, 1.0)}


def table(rows: list[tuple[str, str, str, float, int]]) -> pd.DataFrame:
    """(host, model, version, host-days, crashes) -> exposure."""
    return pd.DataFrame(rows, columns=["host", "model", "version", "host_days", "crashes"])


def rows_of(model: str, version: str, hosts: int, days: float, crashing: int) -> list[tuple[str, str, str, float, int]]:
    return [(f"{model}{version}{i}", model, version, days, int(i < crashing)) for i in range(hosts)]


def test_a_version_that_crashes_more_is_found_and_its_model_is_called_a_shadow():
    # The bad version runs mostly on model A; inside a version the models are alike.
    data = table(rows_of("A", "58", 80, 100, 32) + rows_of("A", "50", 20, 100, 1) + rows_of("B", "58", 20, 100, 8)
                 + rows_of("B", "50", 80, 100, 4))  # fmt: skip
    out = associations(data)
    found = out[out["found"]]
    assert list(found["attribute"]) == ["version"]
    assert list(found["value"]) == ["58"]
    shadow = out[out["attribute"] == "model"].iloc[0]
    assert shadow["p_holm"] < 0.05 < shadow["p_given_others"]
    assert "another attribute" in shadow["note"]
    assert out.attrs["says"].startswith("Found: version 58")
    assert set(out.attrs["left_out"]) == {"firmware", "esxi_build", "uptime", "cluster"}


def test_counts_without_time_at_risk_are_no_finding():
    # Ten times the crashes on ten times the host-days.
    out = associations(table(rows_of("A", "58", 200, 100, 20) + rows_of("A", "50", 20, 100, 2)))
    assert not out["found"].any()
    assert out.attrs["says"].startswith("Nothing found: 22 crashes")
    assert out["expected"][0] == pytest.approx(float(out["crashes"][0]))


def test_one_lemon_host_is_no_finding():
    data = table([("lemon", "A", "58", 100, 12), *rows_of("A", "58", 30, 100, 0), *rows_of("A", "50", 60, 100, 1)])
    out = associations(data)
    assert not out["found"].any()
    assert out.loc[out["value"] == "58", "note"].eq("all of them on one host").all()


def test_few_crashes_are_not_tested():
    out = associations(table(rows_of("A", "58", 10, 100, 2) + rows_of("A", "50", 10, 100, 0)))
    assert out.empty
    assert out.attrs["says"].startswith("Nothing tested: 2 crashes")


def test_the_exact_tail_of_one_stratum_is_the_binomial_one():
    for observed in range(8):
        chance = stats.binom(7, 0.3)
        tail = min(chance.cdf(observed - 1), chance.sf(observed)) + chance.pmf(observed) / 2
        assert association._exact_p(observed, np.array([7]), np.array([0.3])) == pytest.approx(min(1, 2 * tail))


def test_cutting_or_renaming_changes_nothing():
    history = simulate_history(hosts=60, clusters=6, seed=3, ratio_58=4.0, **EVEN)
    whole = history.exposure()
    half = pd.concat([whole.assign(host_days=whole["host_days"] / 2, crashes=0, end=whole["start"] + (whole["end"] - whole["start"]) / 2),
                      whole.assign(host_days=whole["host_days"] / 2, start=whole["start"] + (whole["end"] - whole["start"]) / 2,
                                   uptime_start=whole["uptime_start"] + (whole["end"] - whole["start"]) / 2)])  # fmt: skip
    renamed = whole.assign(host="x" + whole["host"])
    expected = associations(whole)
    for other in (half, renamed):
        pd.testing.assert_frame_equal(associations(other), expected, rtol=1e-8)


def test_false_findings_are_rare_and_true_ones_are_made():
    null = [
        associations(simulate_history(hosts=120, clusters=12, seed=s, ratio_58=1.0, **EVEN).exposure())
        for s in range(8)
    ]
    assert sum(out["found"].any() for out in null) <= 2
    bad = [associations(simulate_history(hosts=150, clusters=15, seed=s, ratio_58=6.0, driver_rate=0.3, rollback=0.2, **EVEN).exposure())
           for s in range(4)]  # fmt: skip
    hits = [out[out["found"] & out["attribute"].eq("version") & out["value"].eq("5.5.0.58")] for out in bad]
    assert sum(len(hit) for hit in hits) >= 3


def small_fleet() -> Fleet:
    """Forty hosts; those with old firmware crash."""
    start = pd.Timestamp("2014-01-01", tz="UTC")
    hosts, uptimes, coverage, drivers, crashes = [], [], [], [], []
    for number in range(40):
        host, old = f"h{number:02d}", number < 20
        crashed = number < 12
        time = start + pd.Timedelta(days=5 + 7 * number if crashed else 100)
        hosts.append({"host": host, "model": "A"})
        uptimes.append(
            {
                "host": host,
                "boot": start,
                "end": time,
                "end_reason": "crash" if crashed else "running",
                "crash_id": host if crashed else None,
            }
        )
        coverage.append({"host": host, "boot": start, "start": start, "end": time})
        drivers.append({"host": host, "module": "hpsa", "version": "5.5.0.58", "state": "loaded", "evidence": "proc", "boot": start,
                        "observed_at": start, "device": "hpsa0", "firmware": "3.04" if old else "5.22"})  # fmt: skip
        if crashed:
            crashes.append(
                {
                    "crash_id": host,
                    "host": host,
                    "time": time,
                    "signature": "hpsa_scan",
                    "guilty_module": "hpsa",
                    "guilt": "on_stack",
                }
            )
    crashes.append(
        {"crash_id": "o", "host": "h39", "time": start + pd.Timedelta(days=9), "signature": "other", "guilt": "none"}
    )
    return Fleet(**{name: schema.build(name, rows) for name, rows in (("hosts", hosts), ("uptimes", uptimes), ("coverage", coverage),
                                                                       ("drivers", drivers), ("crashes", crashes))})  # fmt: skip


def test_firmware_of_a_signature():
    out = attributes_of_signature(small_fleet(), "hpsa_scan")
    assert list(out.loc[out["found"], ["attribute", "value"]].itertuples(index=False, name=None)) == [
        ("firmware", "3.04")
    ]
    assert out.attrs["crashes"] == 12
    assert "'hpsa_scan'" in out.attrs["says"]
    assert out.attrs["left_out"]["version"] == "the same everywhere: 5.5.0.58"


def test_a_signature_that_nobody_has():
    with pytest.raises(InputError, match="no crash has the signature"):
        attributes_of_signature(small_fleet(), "nothing")
    assert attributes_of_signature(small_fleet(), "other").attrs["says"].startswith("Nothing tested")
