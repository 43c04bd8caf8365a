"""Charts are asked, never looked at: titles, labels, artists and the numbers behind them."""

from __future__ import annotations

import re
import struct
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import rollouts

from psodlib import schema
from psodlib.errors import InputError
from psodlib.risk.decision import decide_pin
from psodlib.risk.exact import Interval
from psodlib.risk.rates import crash_rates, rate_ratio
from psodlib.risk.survival import hazard_by_uptime, time_to_crash
from psodlib.triage.timeline import incident_timeline
from psodlib.views import charts

START = pd.Timestamp("2014-01-06", tz="UTC")  # a Monday
DAY = pd.Timedelta(days=1)
HOSTILE = "esx$x^2$\n<b>\x1b[31m\u202e漢字🙂" + "n" * 60


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def stretch(host: str, version: str | None, start: float, days: float, crashes: int = 0, **more: Any) -> dict[str, Any]:
    begin = START + start * DAY
    return {
        "host": host, "module": "hpsa", "version": version, "boot": begin, "start": begin, "end": begin + days * DAY,
        "uptime_start": pd.Timedelta(0), "host_days": days, "crashes": crashes, "unknown_crashes": 0, "other_crashes": 0,
        "end_reason": "crash" if crashes else "reboot", "model": "Gen8", "cluster": "c1", **more,
    }  # fmt: skip


def exposure_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return schema.build("exposure", rows)


@pytest.fixture(scope="module")
def exposure() -> pd.DataFrame:
    """Twelve hosts: half of the time on .50 with one crash, half on .58 with eight."""
    rows = []
    for n in range(12):
        rows.append(stretch(f"esx{n:02}", "5.5.0.50", n, 40, int(n == 0), cluster=f"c{n % 3}"))
        rows.append(stretch(f"esx{n:02}", "5.5.0.58", n + 41, 20 + n, int(n < 8), cluster=f"c{n % 3}"))
    rows.append(stretch("esx00", None, 90, 5, unknown_crashes=1))
    return exposure_of(rows)


@pytest.fixture(scope="module")
def crashes() -> pd.DataFrame:
    blame = [("hpsa", "on_stack", "vmkernel-log.1"), ("hpsa", "module_map", "vmkernel.log")]
    blame.append((None, "none", "vmkernel-zdump.2"))
    rows = [
        {"crash_id": f"c{n}", "host": f"esx{n:02}", "time": START + 40 * n * DAY, "guilty_module": module, "guilt": guilt,
         "source": f"ev/{source}", "message": "#PF", "line": n, "sha256": "00"}
        for n, (module, guilt, source) in enumerate(blame)
    ]  # fmt: skip
    return schema.build("crashes", rows)


@pytest.fixture(scope="module")
def uptimes() -> pd.DataFrame:
    ends = ["crash", "unexplained", "running"]
    rows = [
        {"host": f"esx{n:02}", "boot": START - 10 * DAY, "end": START + 40 * n * DAY, "uptime": (40 * n + 10) * DAY,
         "observed": (40 * n + 8) * DAY, "end_reason": end, "source": "ev/vmksummary.log"}
        for n, end in enumerate(ends)
    ]  # fmt: skip
    return schema.build("uptimes", rows)


@pytest.fixture(scope="module")
def coverage() -> pd.DataFrame:
    rows = [{"host": "esx00", "boot": START, "start": START + d * DAY, "end": START + (d + 5) * DAY} for d in (0, 60)]
    return schema.build("coverage", rows)


@pytest.fixture(scope="module")
def draw(exposure, crashes, uptimes, coverage):
    """Every chart by name, drawn from the tables above."""
    drivers = schema.build("drivers", [{"host": "esx01", "module": "hpsa", "version": "5.5.0.58", "state": "loaded",
                                        "observed_at": START, "boot": START, "evidence": "banner", "source": "v"}])  # fmt: skip
    told = {"crashes": crashes, "uptimes": uptimes, "drivers": drivers, "coverage": coverage}
    fleet = SimpleNamespace(**told, events=schema.empty("events"))
    known = exposure[exposure["version"].notna()]
    decision = decide_pin(known, ["5.5.0.50", "5.5.0.58"])
    ratio, hazard, survival = rate_ratio(known, "5.5.0.58", "5.5.0.50"), hazard_by_uptime(known), time_to_crash(known)
    calls = {
        "rollout": lambda **k: charts.plot_rollout(exposure, **k),
        "weekly_rate": lambda **k: charts.plot_weekly_rate(exposure, **k),
        "host_days": lambda **k: charts.plot_host_days(exposure, uptimes, **k),
        "rates": lambda **k: charts.plot_rates(crash_rates(exposure), **k),
        "ratio": lambda **k: charts.plot_ratio(ratio, **k),
        "uptime_at_crash": lambda **k: charts.plot_uptime_at_crash(exposure, **k),
        "hazard": lambda **k: charts.plot_hazard(hazard, **k),
        "survival": lambda **k: charts.plot_survival(survival, **k),
        "modules": lambda **k: charts.plot_modules(crashes, **k),
        "fleet_map": lambda **k: charts.plot_fleet_map(exposure, **k),
        "ascertainment": lambda **k: charts.plot_ascertainment(crashes, uptimes, coverage, **k),
        "incident": lambda **k: charts.plot_incident(incident_timeline(fleet, "c1"), **k),
        "evidence_needed": lambda **k: charts.plot_evidence_needed(decision, exposure, **k),
        "options": lambda **k: charts.plot_options(decision, **k),
        "waves": lambda **k: charts.plot_waves(rollouts.lived_through("bad").last, **k),
    }
    return lambda name, **k: calls[name](**k)


CHARTS = sorted(name.removeprefix("plot_") for name in charts.__all__ if name.startswith("plot_"))


def title(ax: Any) -> str:
    return ax.get_title(loc="left").replace("\n", " ").replace("\u00a0", " ")


def caption(ax: Any) -> str:
    return next(text.get_text() for text in ax.texts if text.get_gid() == "caption").replace("\n", " ")


def artists(ax: Any, gid: str) -> list[Any]:
    return [child for child in ax.get_children() if child.get_gid() == gid]


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_says_its_finding_its_units_and_what_it_rests_on_in_print_that_can_be_read(draw, name):
    ax = draw(name, simulated=True)
    ax.figure.canvas.draw()
    assert len(title(ax)) > 15
    assert ax.get_xlabel()
    assert caption(ax).startswith("Simulated fleet. ") and any(c.isdigit() for c in caption(ax))
    assert len(charts.numbers(ax)) and not caption(draw(name)).startswith("Simulated")
    told = getattr(charts, f"plot_{name}").__doc__.split("``numbers(ax)``: ")[1]
    told = told.split(";")[0].split(" and the others")[0]
    assert set(re.findall(r"``(\w+)``", told)) <= set(charts.numbers(ax).columns)
    texts = [*ax.texts, ax.title, ax.xaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels()]
    assert min(text.get_fontsize() for text in texts) >= 8.5
    assert ax.figure.get_figwidth() < 9.5  # a page holds 6.9: shrunk to it, 8.5 points stay above 6


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_leaves_the_callers_style_alone_and_draws_where_it_is_told(draw, name):
    with matplotlib.rc_context():
        # Nothing that an earlier test may have left behind: a style of the caller's own, unlike ours.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.size": 7.25, "axes.titlesize": 21, "axes.spines.top": True})
        before = dict(matplotlib.rcParams)
        ax = plt.subplots(figsize=(4, 3))[1]
        assert draw(name, ax=ax) is ax and draw(name) is not ax
        assert dict(matplotlib.rcParams) == before


NOTHING = {
    "rollout": lambda: charts.plot_rollout(schema.empty("exposure")),
    "rollout of a table by hand": lambda: charts.plot_rollout(
        pd.DataFrame({"host": ["a"], "version": ["1"], "host_days": [3.0], "crashes": [1]})
    ),
    "weekly rate": lambda: charts.plot_weekly_rate(schema.empty("exposure")),
    "host-days": lambda: charts.plot_host_days(schema.empty("exposure"), schema.empty("uptimes")),
    "rates": lambda: charts.plot_rates(crash_rates(schema.empty("exposure"))),
    "ratio": lambda: charts.plot_ratio(()),
    "uptime": lambda: charts.plot_uptime_at_crash(schema.empty("exposure")),
    "hazard": lambda: charts.plot_hazard(pd.DataFrame()),
    "survival": lambda: charts.plot_survival(pd.DataFrame(columns=["version", "days", "at_risk"])),
    "modules": lambda: charts.plot_modules(schema.empty("crashes")),
    "map": lambda: charts.plot_fleet_map(schema.empty("exposure")),
    "ascertainment": lambda: charts.plot_ascertainment(
        schema.empty("crashes"), schema.empty("uptimes"), schema.empty("coverage")
    ),
    "incident": lambda: charts.plot_incident(pd.DataFrame({"time": pd.to_datetime([], utc=True)})),
    "evidence": lambda: charts.plot_evidence_needed(SimpleNamespace(host_days_needed={}), schema.empty("exposure")),
}


@pytest.mark.parametrize("name", NOTHING)
def test_a_chart_of_nothing_says_what_is_missing(name):
    ax = NOTHING[name]()
    ax.figure.canvas.draw()
    assert title(ax) and len([text for text in ax.texts if text.get_text()]) == 2
    assert charts.numbers(ax).empty


def test_rollout_keeps_every_host_day_and_crash(exposure):
    ax = charts.plot_rollout(exposure)
    numbers = charts.numbers(ax)
    assert numbers["host_days"].sum() == pytest.approx(exposure["host_days"].sum())
    assert numbers["crashes"].sum() == exposure["crashes"].sum() == 9
    assert set(numbers["week"].dt.day_of_week) == {0}
    drawn = sum(len(point.get_xdata()) for point in artists(ax, "crash"))
    assert drawn == 10  # nine of the driver, one unknown
    assert title(ax).startswith("5.5.0.58 took 8 of 9 hpsa crashes in ")


def test_a_crash_stands_in_the_week_in_which_its_stretch_ended():
    numbers = charts.numbers(charts.plot_rollout(exposure_of([stretch("a", "1", 5, 10, 1)])))
    assert list(numbers["crashes"]) == [0, 0, 1]
    assert list(numbers["host_days"]) == pytest.approx([2, 7, 1])


def test_the_title_follows_the_data(exposure):
    quiet = exposure.assign(crashes=0)
    assert title(charts.plot_rollout(quiet)).startswith("No hpsa crash in ")
    assert "13 hosts" not in title(charts.plot_rollout(quiet)) and "12 hosts" in title(charts.plot_rollout(quiet))
    assert title(charts.plot_uptime_at_crash(quiet)).startswith("No crash at any uptime")
    assert title(charts.plot_rates(crash_rates(quiet))).startswith("No crash in ")


def test_host_days_show_unknown_versions_and_unwatched_time(exposure, uptimes):
    numbers = charts.numbers(charts.plot_host_days(exposure, uptimes))
    sums = numbers.groupby("version")["host_days"].sum()
    assert sums["not watched"] == pytest.approx(6)  # three boots, two days each
    assert sums["version unknown"] == pytest.approx(5)
    assert "not watched" not in set(charts.numbers(charts.plot_host_days(exposure))["version"])


def test_host_days_without_a_known_group_are_one_bar(exposure):
    ax = charts.plot_host_days(exposure.assign(cluster=pd.NA))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["all hosts"]


def test_rates_are_per_host_year_with_intervals_and_a_ghosted_count(exposure):
    rates = crash_rates(exposure[exposure["version"].notna()])
    ax = charts.plot_rates(rates)
    numbers = charts.numbers(ax).set_index("group")
    for column in ("rate", "low", "high"):
        assert list(numbers[column]) == pytest.approx(list(rates[column] * 365.25))
    ends = [list(line.get_xdata()) for line in artists(ax, "interval")]
    assert ends == [pytest.approx([row.low, row.high]) for row in numbers.itertuples()]
    assert len(artists(ax, "count")) == 2
    assert "Crashes per host-year" in ax.get_xlabel()


def test_the_counts_behind_a_rate_stand_beside_its_bar_and_not_on_it(exposure):
    ax = charts.plot_rates(crash_rates(exposure[exposure["version"].notna()]))
    ax.figure.canvas.draw()
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "5.5.0.50\n1 crash in 480 host-days", "5.5.0.58\n8 crashes in 306 host-days",
    ]  # fmt: skip
    assert all(label.get_window_extent().x1 < ax.get_window_extent().x0 for label in ax.get_yticklabels())


def test_a_version_without_a_crash_is_shown_by_its_upper_bound_alone():
    table = pd.DataFrame({"host": ["a", "b"], "version": ["1", "2"], "host_days": [100.0, 100.0], "crashes": [0, 3]})
    ax = charts.plot_rates(crash_rates(table))
    (bound,) = artists(ax, "upper bound")
    assert bound.get_xdata()[0] == pytest.approx(2.9957 * 3.6525, rel=1e-4)
    assert bound.get_marker() == "<"


def test_rates_by_two_columns_name_both(exposure):
    rates = crash_rates(exposure, by=["version", "model"])
    names = charts.numbers(charts.plot_rates(rates))["group"]
    assert sorted(names) == ["5.5.0.50, Gen8", "5.5.0.58, Gen8", "version unknown, Gen8"]


@pytest.mark.parametrize(
    ("crashes", "words"),
    [((0, 40), "lies above every other"), ((3, 4), "not enough to rank them")],
)
def test_rates_rank_only_what_their_intervals_separate(crashes, words):
    table = pd.DataFrame({"host": ["a", "b"], "version": ["1", "2"], "host_days": [900.0, 900.0], "crashes": crashes})
    assert words in title(charts.plot_rates(crash_rates(table)))


def a_ratio(ratio: float, low: float, high: float) -> Any:
    interval, nothing = Interval(ratio, low, high), Interval(float("nan"), float("nan"), float("nan"))
    return SimpleNamespace(
        version="2", reference="1", ratio=ratio, low=low, high=high, alpha=0.05, method="exact_midp", known_only=interval,
        with_unknown=interval, adversarial=interval, crude=interval, mantel_haenszel=nothing, sensitivity=(),
        crashes=(3, 1), host_days=(100.0, 100.0), hosts=(5, 5),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ((3.0, 1.5, 6.0), "2 crashes more often than 1: 3.0 times its rate (95 % interval 1.5 to 6.0)"),
        ((0.3, 0.1, 0.6), "2 crashes less often than 1: 0.30 times its rate (95 % interval 0.10 to 0.60)"),
        ((1.2, 0.4, 3.0), "Open whether 2 crashes more or less often than 1 (95 % interval 0.40 to 3.0)"),
        ((float("nan"), 0.0, float("inf")), "Nothing can be said yet of 2 against 1"),
    ],
)
def test_the_forest_says_which_way_the_interval_points(interval, words):
    assert title(charts.plot_ratio(a_ratio(*interval))) == words


def test_several_contrasts_are_not_called_decided_one_by_one():
    several = [a_ratio(3.0, 1.5, 6.0), a_ratio(1.2, 0.4, 3.0)]
    words = "1 of 2 intervals exclude equal rates (2 against 1), before correction for their number"
    assert title(charts.plot_ratio(several)) == words
    assert title(charts.plot_ratio(several[1:] * 2)).startswith("None of 2 intervals")


def test_an_unbounded_interval_ends_in_an_arrow_and_none_is_drawn_for_no_information():
    ax = charts.plot_ratio(a_ratio(float("inf"), 2.0, float("inf")))
    assert {point.get_marker() for point in artists(ax, "beyond")} == {">"}
    assert [text.get_text() for text in ax.texts].count("no information") == 1  # Mantel-Haenszel
    assert "inf" not in title(ax) and "nan" not in title(ax)


def test_uptime_bands_keep_every_host_day_and_crash(exposure):
    numbers = charts.numbers(charts.plot_uptime_at_crash(exposure))
    assert numbers["host_days"].sum() == pytest.approx(exposure["host_days"].sum())
    assert numbers["crashes"].sum() == 9
    assert list(dict.fromkeys(numbers["band"])) == ["0-7", "7-15", "15-30", "30-60"]


def test_modules_are_counted_by_evidence_and_the_unnamed_stand_last(crashes):
    ax = charts.plot_modules(crashes)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["hpsa", "no module found"]
    assert title(ax) == "hpsa is the guilty module of 2 of 3 crashes; 1 names no module"
    asked_for = charts.plot_modules(crashes.assign(guilt=["on_stack", "module_map", "deliberate"]))
    assert [label.get_text() for label in asked_for.get_yticklabels()] == ["hpsa", "hardware, or asked for"]
    assert "no module" not in title(asked_for)


def test_ascertainment_tells_dump_log_and_doubt_apart(crashes, uptimes, coverage):
    ax = charts.plot_ascertainment(crashes, uptimes, coverage)
    counts = charts.numbers(ax).groupby("how")["count"].sum().to_dict()
    assert counts == {"dump": 2, "log only": 1, "no text": 1, "unexplained reboot": 1, "no logs": 1}
    assert title(ax) == "2 of 4 crashes left a dump, 1 only a trace; 1 more stop is unexplained"
    with_text = uptimes.assign(crash_id=pd.array(["c0", None, None], dtype="string"))
    assert title(charts.plot_ascertainment(crashes, with_text)) == (
        "2 of 3 crashes left a dump; 1 more stop is unexplained"
    )


def test_the_map_has_a_tile_a_host_and_the_newest_version(exposure):
    numbers = charts.numbers(charts.plot_fleet_map(exposure)).set_index("host")
    assert len(numbers) == 12 and numbers.loc["esx03", "version"] == "5.5.0.58"
    assert pd.isna(numbers.loc["esx00", "version"]) and numbers.loc["esx00", "crashes"] == 2


@pytest.mark.parametrize("several", [1, 60])
def test_a_big_cluster_goes_on_in_the_next_line_of_the_map(several):
    ax = charts.plot_fleet_map(exposure_of([stretch(f"h{n}", "1", 0, 1) for n in range(several)]))
    assert len(ax.get_yticks()) == -(-several // 24)


def test_survival_shows_both_curves_with_their_band(exposure):
    ax = charts.plot_survival(time_to_crash(exposure[exposure["version"].notna()]))
    assert len(artists(ax, "interval")) == 2 and len(ax.lines) == 4
    assert "5.5.0.58" in title(ax) and " % (" in title(ax)


def test_the_evidence_needed_says_how_long_at_the_present_pace(exposure):
    decision = SimpleNamespace(host_days_needed={"5.5.0.50": None, "5.5.0.58": 100.0})
    numbers = charts.numbers(charts.plot_evidence_needed(decision, exposure)).set_index("version")
    row = numbers.loc["5.5.0.58"]
    assert row["weeks"] == pytest.approx(100 / row["per_week"])
    assert pd.isna(numbers.loc["5.5.0.50", "weeks"]) and pd.isna(numbers.loc["5.5.0.50", "needed"])


def test_a_version_has_one_colour_in_all_charts(exposure):
    colours = charts.version_colours(exposure["version"])
    assert len(set(colours.values())) == len(colours) == 2
    for ax in (charts.plot_rollout(exposure), charts.plot_host_days(exposure), charts.plot_fleet_map(exposure)):
        handles = {text.get_text(): handle for text, handle in
                   zip(ax.get_legend().get_texts(), ax.get_legend().legend_handles, strict=True)}  # fmt: skip
        assert set(colours) & set(handles)
        for version, colour in colours.items():
            if version not in handles:  # the map shows only what was loaded last
                continue
            assert matplotlib.colors.to_hex(handles[version].get_facecolor()) == colour


@pytest.mark.parametrize("number", [3, 40])
def test_no_label_is_cut_for_few_or_many_long_names(number):
    rows = [stretch(f"h{n}", f"{n}." + "9" * 70, 0, 10 + n, n % 3, cluster=f"c{n}-" + "x" * 70) for n in range(number)]
    table = exposure_of(rows)
    for ax in (charts.plot_rates(crash_rates(table)), charts.plot_host_days(table), charts.plot_fleet_map(table)):
        ax.figure.canvas.draw()
        boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
        assert len(boxes) == number
        assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)
        heights = sorted(box.y0 for box in boxes)
        assert min(b - a for a, b in pairwise(heights)) > boxes[0].height * 0.8
    assert len(charts.plot_rollout(table).get_legend().get_texts()) <= 10


def test_log_text_is_drawn_letter_by_letter(crashes):
    table = exposure_of([stretch("a", HOSTILE, 0, 10, 1, cluster=HOSTILE)])
    drawn = [
        charts.plot_modules(crashes.assign(guilty_module=HOSTILE)), charts.plot_rates(crash_rates(table)),
        charts.plot_host_days(table), charts.plot_fleet_map(table), charts.plot_rollout(table),
    ]  # fmt: skip
    for ax in drawn:
        ax.figure.canvas.draw()  # a missing glyph or bad mathtext would warn, and a warning is an error here
        texts = [title(ax), *(text.get_text() for text in (*ax.get_yticklabels(), *ax.texts))]
        assert not any("\x1b" in text or "\u202e" in text or "\n<" in text for text in texts)
        assert all(text.count("$") == text.count(r"\$") for text in texts)
    (label,) = drawn[0].get_yticklabels()
    assert label.get_text().startswith(r"esx\$x^2\$ <b>")


def test_a_saved_chart_is_two_files_of_steady_bytes_at_twice_the_size(exposure, tmp_path):
    ax = charts.plot_rollout(exposure)
    png, svg = charts.save_chart(ax, tmp_path / "deep" / "5.5.0.58 chart")
    again = charts.save_chart(charts.plot_rollout(exposure), tmp_path / "again")
    assert (png.name, svg.name) == ("5.5.0.58 chart.png", "5.5.0.58 chart.svg")
    assert png.read_bytes() == again[0].read_bytes() and svg.read_bytes() == again[1].read_bytes()
    width = struct.unpack(">I", png.read_bytes()[16:20])[0]
    assert width > 1.7 * ax.figure.get_figwidth() * ax.figure.dpi
    assert not plt.get_fignums()


def test_foreign_axes_have_no_numbers():
    with pytest.raises(InputError, match="without a chart of psodlib"):
        charts.numbers(plt.subplots()[1])
