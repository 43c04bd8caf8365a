"""What a notebook shows of a result, and the accessors that an engineer starts with."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from conftest import DATA
from views import hand_made
from views.test_brief import studied

import psodlib as psod
from psodlib.views.cells import bar


@pytest.fixture(scope="module")
def fleet() -> psod.Fleet:
    return studied("one of three").fleet


def test_every_result_says_its_sentence_first(fleet: psod.Fleet) -> None:
    exposure = psod.exposure(fleet)
    ratio, decision = psod.rate_ratio(exposure, "5.5.0.58", "5.5.0.50"), psod.decide_pin(exposure)
    for result, words in (
        (fleet, "40 hosts"),
        (ratio, "times as often as 5.5.0.50"),
        (decision, "Crashes per host-year"),
        (exposure, "host-days of hpsa watched on 40 hosts"),
        (psod.crash_rates(exposure), "per host-year. Rates by version"),
        (psod.crash_rates(exposure, by=["version", "model"]), "Rates by version and model"),
    ):
        shown = result._repr_html_()
        assert words in shown and "nan" not in shown and "inf" not in shown and shown.count("<table") == 1
    assert "5.5.0.58 crashes" in ratio._repr_html_().split("<table")[0]


def test_a_table_of_results_is_a_table_to_pandas(fleet: psod.Fleet) -> None:
    exposure = psod.exposure(fleet)
    kinds = {type(table) for table in (exposure, exposure.head(), exposure.copy(), exposure[exposure["crashes"] > 0])}
    assert kinds == {pd.DataFrame}
    assert exposure.attrs["module"] == "hpsa" and exposure.head()._repr_html_().count("<tr") == 6
    assert "No host-day was watched" in psod.crash_rates(exposure.iloc[:0])._repr_html_()


def test_hostile_names_stay_text() -> None:
    nasty = "<script>alert(1)</script>"
    exposure = psod.exposure(hand_made.fleet(words={"version": nasty}), "hpsa")
    for table in (exposure, psod.crash_rates(exposure)):
        assert nasty not in table._repr_html_() and "&lt;script&gt;" in table._repr_html_()
    shown = psod.decide_pin(psod.exposure(hand_made.fleet(words={"version": nasty}), "hpsa"))._repr_html_()
    assert nasty not in shown and "&lt;script&gt;" in shown


def test_a_bar_stays_on_its_scale() -> None:
    assert bar(0, 1, 2, 0, 2).startswith("├") and bar(0, 1, 2, 0, 2).endswith("┤") and "●" in bar(0, 1, 2, 0, 2)
    assert bar(1, 5, math.inf, 0, 2).endswith("→") and bar(-math.inf, 0.5, 1, 0, 2).startswith("←")
    assert bar(math.nan, 1, 2, 0, 2) == "" == bar(0, 1, 2, 3, 3)
    assert {len(bar(low, low + 0.1, low + 0.3, 0, 1)) for low in (0, 0.2, 0.9, 5)} == {25}


def test_who_runs_what_now(fleet: psod.Fleet) -> None:
    now = fleet.now("hpsa")
    assert list(now) == ["host", "version", "since", "evidence", "pending"] and len(now) == len(fleet.hosts)
    assert set(now["version"]) == {"5.5.0.50", "5.5.0.58", "5.5.0.60"} and now["since"].notna().all()
    moved = hand_made.fleet().now("hpsa")
    assert set(moved["version"]) == {"5.5.0.50"} and (moved["since"] > hand_made.START).all()
    with pytest.raises(psod.InputError, match="no module 'hspa'; did you mean hpsa"):
        fleet.now("hspa")


def test_the_wide_table_has_each_crash_once_and_no_twin_columns(demo: psod.Fleet) -> None:
    wide = demo.wide()
    assert len(wide) == len(demo.crashes) and wide["crash_id"].is_unique
    assert not [name for name in wide if name.endswith(("_x", "_y"))]
    assert {"cluster", "model", "boot", "vib", "firmware"} <= set(wide)
    pd.testing.assert_frame_equal(wide[list(demo.crashes)], demo.crashes)


def test_a_chart_at_the_end_of_a_cell_prints_no_axes() -> None:
    chart = psod.plot_rates(
        psod.crash_rates(pd.DataFrame({"host": ["a"], "version": ["1"], "host_days": [9.0], "crashes": [1]}))
    )
    assert chart._ipython_display_() is None
    plt.close(chart.figure)


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (lambda fleet: psod.exposure(fleet, "hspa"), "no module 'hspa'; did you mean hpsa?"),
        (lambda fleet: psod.explore(fleet, "hspa"), "no module 'hspa'; did you mean hpsa?"),
        (lambda fleet: psod.exposure(fleet.crashes), "expected the fleet with all of them: exposure(fleet)"),
        (lambda fleet: psod.parse_crashes("data/host/vmkernel-log.1"), "expected the text in it"),
        (lambda fleet: psod.parse_crashes("vmkernel.log"), "psodlib.load(file)"),
        (lambda fleet: psod.parse_crashes(DATA), "expected the text in it"),
        (lambda fleet: psod.explain("75b6d986"), "explain(fleet.crash('75b6d986'))"),
    ],
)
def test_a_mistake_is_one_sentence_in_a_notebook_too(fleet: psod.Fleet, mistake: Any, told: str) -> None:
    with pytest.raises(psod.InputError) as error:
        mistake(fleet)
    (line,) = error.value._render_traceback_()
    assert line.startswith("InputError: ") and told in line and "\n" not in line
