"""Rates and sufficient rows by parts are those of the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import DATA

import psodlib as psod
from psodlib.risk.exposure import check_exposure
from psodlib.risk.frailty import fit_frailty, tabulate
from psodlib.risk.partitions import each_exposure, rates_of_parts, tabulate_parts
from psodlib.store import update

TERMS = ("model", "uptime", "quarter")


@pytest.fixture(scope="module")
def whole() -> pd.DataFrame:
    return psod.exposure(psod.load(DATA / "demo-fleet", inventory=DATA / "inventory.csv", jobs=1))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[pd.DataFrame]:
    store = tmp_path_factory.mktemp("parts") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(update, "HOSTS_A_BUCKET", 8)
        psod.load(DATA / "demo-fleet", inventory=DATA / "inventory.csv", store=store, jobs=1)
    return list(each_exposure(psod.Fleet.each(store)))


def test_exposures_of_parts_are_the_exposure(whole: pd.DataFrame, parts: list[pd.DataFrame]) -> None:
    assert len(parts) > 3
    together = pd.concat(parts).sort_values(["host", "start"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(together, whole.sort_values(["host", "start"]).reset_index(drop=True))
    for name in ("collapsed_crashes", "unplaced_crashes"):
        assert sum(part.attrs[name] for part in parts) == whole.attrs[name]


@pytest.mark.parametrize("by", ["version", "model"])
def test_rates(whole: pd.DataFrame, parts: list[pd.DataFrame], by: str) -> None:
    pd.testing.assert_frame_equal(
        rates_of_parts(parts, by), psod.crash_rates(whole, by), check_index_type=False, rtol=1e-12
    )
    with pytest.raises(psod.InputError, match="no column colour"):
        rates_of_parts(parts, "colour")


def test_sufficient_rows_and_the_fit(whole: pd.DataFrame, parts: list[pd.DataFrame]) -> None:
    table = check_exposure(whole)
    one = tabulate(table[table["version"].notna()], TERMS)
    many = tabulate_parts(parts, TERMS)
    assert list(many.levels["version"]) == list(one.levels["version"])
    pd.testing.assert_frame_equal(many.cells, one.cells, check_dtype=False)
    order = pd.Index(many.hosts).get_indexer(one.hosts)
    for name in ("days", "known", "unknown"):
        got, wanted = getattr(many, name).toarray()[order], getattr(one, name).toarray()
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)
    fits = [fit_frailty(cells, cells.known, ("model",)) for cells in (one, many)]
    assert fits[0].coefficients == pytest.approx(fits[1].coefficients, rel=1e-9)


def test_no_part_and_no_store(tmp_path: Path) -> None:
    assert tabulate_parts([]).hosts.empty
    assert rates_of_parts([]).empty
    with pytest.raises(psod.InputError, match="no store"):
        next(psod.Fleet.each(tmp_path))
