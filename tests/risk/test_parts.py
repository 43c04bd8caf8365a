"""Rates and sufficient rows by parts are those of the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import DATA

import psodlib as psod
from psodlib.risk.exposure import check_exposure
from psodlib.risk.frailty import fit_frailty, joined, tabulate
from psodlib.simulate.process import VERSIONS, simulate_history
from psodlib.store import update

TERMS = ("model", "uptime", "quarter")


@pytest.fixture(scope="module")
def whole(demo: psod.Fleet) -> pd.DataFrame:
    return psod.exposure(demo)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[pd.DataFrame]:
    store = tmp_path_factory.mktemp("parts") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(update, "HOSTS_A_BUCKET", 8)
        psod.load(DATA / "demo-fleet", inventory=DATA / "inventory.csv", store=store, jobs=1)
    return [psod.exposure(fleet, "hpsa") for fleet in psod.Fleet.each(store)]


def test_exposures_of_parts_are_the_exposure(whole: pd.DataFrame, parts: list[pd.DataFrame]) -> None:
    assert len(parts) > 3
    together = pd.concat(parts).sort_values(["host", "start"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(together, whole.sort_values(["host", "start"]).reset_index(drop=True))
    for name in ("collapsed_crashes", "unplaced_crashes"):
        assert sum(part.attrs[name] for part in parts) == whole.attrs[name]


@pytest.mark.parametrize("by", ["version", "model"])
def test_rates(whole: pd.DataFrame, parts: list[pd.DataFrame], by: str) -> None:
    pd.testing.assert_frame_equal(
        psod.crash_rates(parts, by), psod.crash_rates(whole, by), check_index_type=False, rtol=1e-12
    )
    with pytest.raises(psod.InputError, match="no column colour"):
        psod.crash_rates(parts, "colour")


def test_sufficient_rows_and_the_fit(whole: pd.DataFrame, parts: list[pd.DataFrame]) -> None:
    table = check_exposure(whole)
    one = tabulate(table[table["version"].notna()], TERMS)
    checked = [check_exposure(part) for part in parts]
    many = joined([tabulate(part[part["version"].notna()], TERMS) for part in checked if part["version"].notna().any()])
    assert list(many.levels["version"]) == list(one.levels["version"])
    pd.testing.assert_frame_equal(many.cells, one.cells, check_dtype=False)
    order = pd.Index(many.hosts).get_indexer(one.hosts)
    for name in ("days", "known", "unknown", "unplaced"):
        got, wanted = getattr(many, name).toarray()[order], getattr(one, name).toarray()
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)
    fits = [fit_frailty(cells, cells.known, ("model",)) for cells in (one, many)]
    assert fits[0].coefficients == pytest.approx(fits[1].coefficients, rel=1e-9)


def assert_same_ratio(one: psod.RateRatio, other: psod.RateRatio) -> None:
    left, right = one.as_frame(), other.as_frame()
    pd.testing.assert_frame_equal(left, right, rtol=1e-6)
    assert (one.crashes, one.hosts, one.method, one.adjusted_for) == (
        other.crashes,
        other.hosts,
        other.method,
        other.adjusted_for,
    )
    assert one.host_days == pytest.approx(other.host_days)
    assert (one.p_value, one.p_lower) == pytest.approx((other.p_value, other.p_lower), rel=1e-6)


@pytest.mark.parametrize("adjust", [("model", "uptime", "quarter"), ("quarter", "cluster"), "esxi_build", ()])
def test_the_ratio_of_parts_is_that_of_the_whole(adjust: tuple[str, ...]) -> None:
    # Enough crashes for the frailty model, in four parts of which some lack a version.
    history = simulate_history(hosts=160, days=500, clusters=8, seed=4)
    whole = history.exposure()
    hosts = sorted(whole["host"].unique())
    parts = [whole[whole["host"].isin(hosts[at : at + 40])] for at in range(0, 160, 40)]
    old, new = VERSIONS[:2]
    mine = psod.rate_ratio(iter(parts), new, old, adjust)
    full = psod.rate_ratio(whole, new, old, adjust)
    assert full.method == "frailty"
    assert_same_ratio(mine, full)
    assert mine.warnings == full.warnings


def test_the_ratio_of_few_crashes_in_parts(whole: pd.DataFrame, parts: list[pd.DataFrame]) -> None:
    counts = whole.groupby("version")["crashes"].sum().sort_values()
    few, many = str(counts.index[0]), str(counts.index[-1])
    full = psod.rate_ratio(whole, few, many)
    assert_same_ratio(psod.rate_ratio(parts, few, many), full)
    with pytest.raises(psod.InputError, match=r"no host-days with version '9\.9"):
        psod.rate_ratio(parts, "9.9", many)
    with pytest.raises(psod.InputError, match="cannot adjust for colour"):
        psod.rate_ratio(parts, few, many, ["colour"])
    with pytest.raises(psod.InputError, match="no host-days"):
        psod.rate_ratio([], few, many)


def test_the_decision_of_parts_is_that_of_the_whole() -> None:
    whole = simulate_history(hosts=160, days=500, clusters=8, seed=4).exposure()
    hosts = sorted(whole["host"].unique())
    parts = [whole[whole["host"].isin(hosts[at : at + 40])] for at in range(0, 160, 40)]
    one, full = psod.decide_pin(iter(parts)), psod.decide_pin(whole)
    assert "uptime" in full.ratios[0].adjusted_for
    assert (one.verdict, one.pin, one.avoid, one.best) == (full.verdict, full.pin, full.avoid, full.best)
    pd.testing.assert_frame_equal(one.options, full.options, rtol=1e-6)
    pd.testing.assert_frame_equal(one.moves, full.moves)
    assert one.reasons == full.reasons and one.would_change == full.would_change
    for left, right in zip(one.ratios, full.ratios, strict=True):
        assert_same_ratio(left, right)


def test_no_part_and_no_store(tmp_path: Path) -> None:
    assert psod.crash_rates([]).empty
    for call in (lambda: psod.decide_pin([]), lambda: psod.decide_pin([1])):
        with pytest.raises(psod.InputError):
            call()
    with pytest.raises(psod.InputError, match="no store"):
        next(psod.Fleet.each(tmp_path))
