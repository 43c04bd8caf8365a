"""What a pandas user does to tables before they come back: other dtypes, labels on the index, the wrong table, a number for a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import DATA

import psodlib as psod
from psodlib.collector.plan import read_hosts

INCIDENT = DATA / "incident-2014-05-31"
TABLES = ("hosts", "crashes", "uptimes", "drivers", "modules", "coverage")


def _each(fleet: Any, change: Callable[[Any], Any]) -> Any:
    return replace(fleet, **{name: getattr(fleet, name).apply(change).assign(more=1) for name in TABLES})


CHANGES: dict[str, Callable[[Any], Any]] = {
    "categories": lambda column: column.astype("category") if column.dtype == "string" else column,
    "objects": lambda column: column.astype(object),
    "without a zone": lambda column: column.dt.tz_localize(None) if isinstance(column.dtype, pd.DatetimeTZDtype) else column,
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_fleet_of_other_dtypes_gives_the_same_answer(demo: Any, change: str) -> None:
    fleet = _each(demo, CHANGES[change])
    assert fleet.crashes["host"].dtype == "string" and list(fleet.crashes["more"].unique()) == [1]
    pd.testing.assert_frame_equal(psod.exposure(fleet), psod.exposure(demo))
    assert str(psod.decide_pin(psod.exposure(fleet))) == str(psod.decide_pin(psod.exposure(demo)))


def test_half_a_surrogate_pair_is_shown_as_its_code(demo: Any) -> None:
    odd = pd.Series(["a\ud800b", None], dtype=object)
    fleet = replace(demo, crashes=demo.crashes.head(2).assign(signature=odd))
    assert set(fleet.crashes["signature"].dropna()) == {"a\\ud800b"} and fleet.crashes["signature"].isna().sum() == 1


def test_a_column_that_cannot_be_one_of_ours_is_named(demo: Any) -> None:
    with pytest.raises(psod.InputError, match=r"crashes, column time: .* expected datetime"):
        replace(demo, crashes=demo.crashes.assign(time="yesterday"))


@pytest.mark.parametrize("labels", [["host"], ["host", "version"]])
def test_an_index_called_as_a_column_is_only_an_index(demo: Any, labels: list[str]) -> None:
    exposure = psod.exposure(demo)
    labelled = exposure.set_index(labels, drop=False)
    pd.testing.assert_frame_equal(psod.crash_rates(labelled), psod.crash_rates(exposure))
    assert psod.rate_ratio(labelled, "5.5.0.58", "5.5.0.50") == psod.rate_ratio(exposure, "5.5.0.58", "5.5.0.50")
    assert list(labelled.index.names) == labels


@pytest.mark.parametrize("counted", ["crashes", "host_days", ["version", "crashes"]])
def test_nothing_is_grouped_by_what_is_counted(demo: Any, counted: Any) -> None:
    with pytest.raises(psod.InputError, match="group by version"):
        psod.crash_rates(psod.exposure(demo), by=counted)


@pytest.mark.parametrize(
    "plot", [psod.plot_rates, psod.plot_survival, psod.plot_hazard, psod.plot_options, psod.plot_incident]
)
def test_a_chart_of_the_wrong_table_says_what_it_takes(demo: Any, plot: Any) -> None:
    with pytest.raises(psod.InputError, match=rf"{plot.__name__} was given .* expected: What \w+"):
        plot(psod.exposure(demo))


@pytest.mark.parametrize("source", [None, 5, b"data", [["a"]]])
def test_what_is_no_source_is_said(source: Any) -> None:
    with pytest.raises(psod.InputError, match="as a source; expected a folder, a file or an address"):
        psod.load(source)


@pytest.mark.parametrize("several", [list, tuple, set, iter, pd.Series, pd.Index])
def test_several_sources_are_any_series_of_them(several: Any) -> None:
    assert len(psod.load(several([str(INCIDENT)])).crashes) == 1


def test_a_fleet_is_no_source(demo: Any, tmp_path: Path) -> None:
    with pytest.raises(psod.InputError, match="found a Fleet as a source"):
        psod.case("75b6d986", demo, out=tmp_path / "case.zip")


def test_a_number_for_a_name_is_no_crash_and_no_pin(demo: Any, tmp_path: Path) -> None:
    with pytest.raises(psod.InputError, match="0 crashes have an id that begins with 5"):
        replace(demo, crashes=demo.crashes.iloc[:0]).crash(5)  # type: ignore[arg-type]
    with pytest.raises(psod.InputError, match=r"5\.5.*expected"):
        psod.fleet_compliance(demo, "hpsa", 5.5)  # type: ignore[arg-type]
    for inventory in ([], {}):
        with pytest.raises(psod.InputError, match="expected one named host"):
            psod.load(INCIDENT, inventory=inventory)  # type: ignore[arg-type]


def test_a_passphrase_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(psod.InputError, match="a key of type str; expected 16 bytes or more"):
        psod.anonymise(INCIDENT, out=tmp_path / "out", key="a passphrase of many letters")  # type: ignore[arg-type]


def test_a_table_of_hosts_is_a_list_of_hosts() -> None:
    assert [host.name for host in read_hosts(pd.DataFrame({"host": ["esx01", None, "esx02"]}))] == ["esx01", "esx02"]
    with pytest.raises(psod.InputError, match="no host was given"):
        read_hosts(pd.DataFrame({"Host": ["esx01"]}))
