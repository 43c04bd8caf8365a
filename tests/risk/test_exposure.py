"""Host-time bookkeeping: each rule by a small fleet written out by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from psodlib import schema
from psodlib.errors import InputError
from psodlib.fleet import Fleet
from psodlib.risk.exposure import check_exposure, exposure, split_stretches, unplaced_crashes
from psodlib.risk.rates import driver_league, rate_ratio
from psodlib.simulate.process import simulate_history

START = pd.Timestamp("2014-01-01", tz="UTC")


def day(number):
    return START + pd.Timedelta(days=number)


def fleet(*, boots=(), coverage=None, crashes=(), drivers=(), hosts=("a",), cluster="c1"):
    """Boots (host, boot, end, end_reason, crash_id), coverage (host, boot, start, end), days since START."""
    uptimes = [
        {"host": h, "boot": day(b), "end": day(e), "uptime": pd.Timedelta(days=e - b), "observed": pd.Timedelta(days=e - b),
         "end_reason": why, "crash_id": crash}
        for h, b, e, why, crash in boots
    ]  # fmt: skip
    if coverage is None:
        coverage = [(h, b, b, e) for h, b, e, _, _ in boots]
    return SimpleNamespace(
        hosts=schema.build("hosts", [{"host": h, "model": "DL380"} for h in hosts]).assign(cluster=cluster),
        crashes=schema.build("crashes", [{"guilt": "on_stack", "guilty_module": "hpsa", **c} for c in crashes]),
        uptimes=schema.build("uptimes", uptimes),
        drivers=schema.build(
            "drivers",
            [{"host": h, "module": "hpsa", "version": v, "state": "loaded", "observed_at": day(t), "boot": day(t),
              "evidence": "banner"} for h, t, v in drivers],
        ),
        coverage=schema.build("coverage", [{"host": h, "boot": day(b), "start": day(s), "end": day(e)} for h, b, s, e in coverage]),
    )  # fmt: skip


def crash(crash_id, time, host="a", **more):
    return {"crash_id": crash_id, "host": host, "time": day(time), **more}


def test_the_crash_that_ends_a_boot_counts_on_the_version_loaded_then():
    found = exposure(
        fleet(
            boots=[("a", 0, 30, "crash", "x"), ("a", 30.1, 60, "running", None)],
            crashes=[crash("x", 30)],
            drivers=[("a", 0, "5.5.0.58"), ("a", 30.1, "5.5.0.50")],
        )
    )
    pd.testing.assert_frame_equal(found, schema.conform("exposure", found))
    assert found[["version", "crashes", "end_reason"]].values.tolist() == [
        ["5.5.0.58", 1, "crash"], ["5.5.0.50", 0, "running"],
    ]  # fmt: skip
    assert found["host_days"].tolist() == pytest.approx([30, 29.9])
    assert found["model"].tolist() == ["DL380"] * 2 and found["cluster"].tolist() == ["c1"] * 2


def test_another_version_waits_from_its_install_to_the_next_boot():
    data = fleet(
        boots=[("a", 0, 30, "reboot", None), ("a", 30.1, 60, "running", None)], drivers=[("a", 0, "5.5.0.58")],
        coverage=[("a", 0, 0, 10), ("a", 0, 20, 30), ("a", 30.1, 30.1, 60)],
    )  # fmt: skip
    install = {"host": "a", "module": "hpsa", "version": "5.5.0.60", "state": "installed", "evidence": "esxupdate"}
    for at, waiting in ((25, 5), (5, 15)):
        told = schema.build("drivers", [install | {"observed_at": day(at)}])
        after = schema.conform("drivers", pd.concat([data.drivers, told]))
        assert exposure(SimpleNamespace(**vars(data) | {"drivers": after}), "hpsa").attrs[
            "pending_days"
        ] == pytest.approx(waiting)


def test_a_gap_is_in_neither_numerator_nor_denominator():
    data = fleet(
        boots=[("a", 0, 40, "crash", "x"), ("a", 41, 50, "running", None)],
        coverage=[("a", 0, 2, 10), ("a", 0, 20, 30), ("a", 41, 41, 50)],
        crashes=[crash("x", 40)],
        drivers=[("a", 0, "58"), ("a", 41, "58")],
    )
    found = exposure(data)
    assert found["host_days"].tolist() == pytest.approx([8, 10, 9])
    assert found["crashes"].sum() == 0 and found.attrs["unplaced_crashes"] == 1
    assert found["end_reason"].tolist() == ["unknown", "unknown", "running"]
    assert found["uptime_start"].dt.days.tolist() == [2, 20, 0]
    lost = unplaced_crashes(data)
    assert lost[["crash_id", "why"]].values.tolist() == [["x", "in a gap of the evidence"]]


def test_a_crash_after_the_last_heartbeat_extends_its_stretch():
    found = exposure(
        fleet(boots=[("a", 0, 10.03, "crash", "x")], coverage=[("a", 0, 0, 10)], crashes=[crash("x", 10.03)])
    )
    assert found["crashes"].tolist() == [1] and found["host_days"].tolist() == pytest.approx([10.03])


def test_a_crash_seen_only_as_an_instant_in_a_gap_is_unplaced():
    found = exposure(
        fleet(
            boots=[("a", 0, 30, "crash", "x")],
            coverage=[("a", 0, 0, 10), ("a", 0, 30, 30)],
            crashes=[crash("x", 30)],
        )
    )
    assert found["crashes"].sum() == 0 and found.attrs["unplaced_crashes"] == 1


def test_a_boot_that_crashed_before_its_first_heartbeat_counts():
    found = exposure(
        fleet(
            boots=[("a", 0, 10, "reboot", None), ("a", 10.01, 10.03, "crash", "x")],
            coverage=[("a", 0, 0, 10)],
            crashes=[crash("x", 10.03)],
            drivers=[("a", 0, "50"), ("a", 10.01, "58")],
        )
    )
    assert found[["version", "crashes"]].values.tolist() == [["50", 0], ["58", 1]]


def test_a_boot_loop_is_one_event_and_the_raw_number_is_kept():
    storm = [("x0", 10.0), ("x1", 10.02), ("x2", 10.04)]
    boots = [("a", 0, 10, "crash", "x0"), ("a", 10.01, 10.02, "crash", "x1"), ("a", 10.03, 10.04, "crash", "x2")]
    later = [("a", 10.05, 30, "crash", "y"), ("a", 30.1, 40, "running", None)]
    found = exposure(fleet(boots=boots + later, crashes=[crash(*each) for each in [*storm, ("y", 30)]]))
    assert found["crashes"].sum() == 2 and found.attrs["collapsed_crashes"] == 2


def test_what_is_not_the_drivers_and_what_nobody_knows():
    boots = [("a", 10 * n, 10 * n + 9, "crash", f"x{n}") for n in range(5)]
    kinds = [
        {"guilty_module": "e1000"}, {"guilty_module": None, "guilt": "none"}, {"guilty_module": None, "guilt": "hardware"},
        {"guilty_module": None, "guilt": "deliberate", "deliberate": True}, {"guilty_module": "hpsa", "deliberate": True},
    ]  # fmt: skip
    found = exposure(fleet(boots=boots, crashes=[crash(f"x{n}", 10 * n + 9, **k) for n, k in enumerate(kinds)]), "hpsa")
    assert found[["crashes", "unknown_crashes", "other_crashes"]].sum().tolist() == [0, 1, 4]


def test_a_crash_of_which_only_a_dump_is_left_is_unknown():
    found = exposure(fleet(boots=[("a", 0, 10, "crash", None), ("a", 11, 20, "running", None)]))
    assert found["unknown_crashes"].tolist() == [1, 0]


def test_hosts_that_never_crashed_stay_in_and_unknown_versions_stay_unknown():
    found = exposure(
        fleet(
            boots=[("a", 0, 10, "running", None), ("b", 0, 20, "running", None)],
            hosts=("a", "b", "never_seen"), drivers=[("a", 0, "58")],
        )
    )  # fmt: skip
    assert found["host"].tolist() == ["a", "b"]
    assert found["version"].isna().tolist() == [False, True]


def test_without_coverage_the_last_observed_span_is_taken():
    data = fleet(boots=[("a", 0, 10, "running", None)], drivers=[("a", 0, "58")])
    data.uptimes["observed"] = pd.to_timedelta([4], unit="D")
    del data.coverage
    found = exposure(data)
    assert found["host_days"].tolist() == [4] and found["uptime_start"].dt.days.tolist() == [6]


def test_an_empty_fleet_gives_an_empty_table():
    found = exposure(fleet(hosts=()))
    pd.testing.assert_frame_equal(found, schema.conform("exposure", found))
    assert found.empty


def test_a_made_up_history_gives_the_exposure_of_a_perfect_reader():
    history = simulate_history(hosts=80, clusters=8, seed=4)
    ids = history.crashes.reset_index(names="number").assign(crash_id=lambda t: "c" + t["number"].astype(str))
    boots = history.boots.reset_index(names="boot_row").merge(ids[["boot_row", "crash_id"]], on="boot_row", how="left")
    known = history.exposure()
    guilty = np.where(ids["attributed"], np.where(ids["driver"], "hpsa", ids["module"].fillna("e1000")), None)
    data = SimpleNamespace(
        hosts=schema.conform("hosts", history.hosts[["host", "model", "cluster"]]),
        crashes=schema.conform("crashes", ids[["crash_id", "host", "time", "deliberate"]].assign(
            guilty_module=guilty, guilt=np.where(ids["attributed"], "on_stack", "none"))),
        uptimes=schema.conform("uptimes", boots[["host", "boot", "end", "end_reason", "crash_id"]].assign(
            uptime=boots["end"] - boots["boot"])),
        drivers=schema.conform("drivers", boots[["host", "boot", "version"]].assign(
            module="hpsa", state="loaded", evidence="banner", observed_at=boots["boot"])),
        coverage=schema.conform("coverage", known[["host", "boot", "start", "end"]]),
    )  # fmt: skip
    found = exposure(data)
    pd.testing.assert_series_equal(found.dtypes, schema.empty("exposure").dtypes)  # its columns, no more
    mine, theirs = (
        table.groupby("version")[["host_days", "crashes", "unknown_crashes"]].sum().astype(float)
        for table in (found, known)
    )
    lost = ids["in_gap"].sum() - found.attrs["unplaced_crashes"]
    assert 0 <= lost <= 1  # a crash within two hours of the start of a gap
    assert mine["host_days"].to_numpy() == pytest.approx(theirs["host_days"].to_numpy(), abs=0.1)
    difference = (mine - theirs)[["crashes", "unknown_crashes"]].to_numpy()
    assert np.abs(difference).sum() <= found.attrs["collapsed_crashes"] + lost


@pytest.mark.parametrize(
    ("table", "word"),
    [
        (pd.DataFrame({"host": ["a"], "version": ["58"], "crashes": [3]}), "without the host-days"),
        (pd.DataFrame({"crash_id": ["x"], "host": ["a"]}), "without the host-days"),
        (pd.DataFrame({"host": ["a"], "version": ["58"]}), "snapshot"),
        (pd.DataFrame({"host": ["a"], "host_days": [3.0], "crashes": [1]}), "lacks version"),
        (pd.DataFrame({"host": ["a"], "version": ["58"], "host_days": [-3.0], "crashes": [1]}), "negative"),
        (pd.DataFrame({"host": ["a"], "version": ["58"], "host_days": [0.0], "crashes": [1]}), "0 host-days"),
        ("exposure.csv", "found a str"),
    ],
)
def test_what_is_no_exposure_is_refused_in_one_sentence(table, word):
    with pytest.raises(InputError, match=word) as caught:
        check_exposure(table)
    assert "\n" not in str(caught.value)


def test_stretches_are_cut_at_bands_and_quarters_and_nothing_is_lost():
    table = exposure(
        fleet(boots=[("a", 0, 100, "crash", "x"), ("a", 101, 104, "running", None)], crashes=[crash("x", 100)])
    )
    pieces = split_stretches(table, uptime=True, quarter=True)
    assert pieces["host_days"].tolist() == pytest.approx([7, 8, 15, 30, 30, 10, 3])
    assert pieces["uptime"].tolist() == [0, 1, 2, 3, 4, 4, 0]
    assert (pieces["quarter"] - 4 * 2014).tolist() == [
        0,
        0,
        0,
        0,
        0,
        1,
        1,
    ]  # of the calendar, whatever part they are in
    assert pieces["last"].tolist() == [False] * 5 + [True, True]


def test_a_stretch_of_unknown_age_is_not_cut():
    table = exposure(fleet(boots=[("a", 0, 100, "running", None)])).assign(uptime_start=pd.to_timedelta([None]))
    pieces = split_stretches(table, uptime=True)
    assert pieces[["host_days", "uptime"]].values.tolist() == [[100, -1]]


@pytest.mark.parametrize(
    ("middle", "events"),
    [
        ([("a", 10.01, None, "unknown", None), ("a", 60, 60.02, "crash", "y")], 2),  # a boot of unknown end between
        ([("a", 60, 60.02, "crash", "y")], 2),  # 50 days of which nothing is known
        ([("a", 10.5, 10.6, "reboot", None), ("a", 60, 60.02, "crash", "y")], 2),
        ([("a", 10.5, 10.52, "crash", "y")], 1),  # half a day at the purple screen
    ],
)
def test_no_boot_loop_across_time_nobody_saw(middle, events):
    boots = [("a", 0, 10, "crash", "x"), *((h, b, b if e is None else e, why, c) for h, b, e, why, c in middle)]
    data = fleet(boots=boots, crashes=[crash("x", 10), crash("y", boots[-1][2])])
    data.uptimes.loc[data.uptimes["end_reason"] == "unknown", "end"] = pd.NaT
    found = exposure(data)
    assert (found["crashes"].sum(), found.attrs["collapsed_crashes"]) == (events, 2 - events)


def test_a_crash_of_no_known_boot_repeats_nothing():
    data = fleet(boots=[("a", 0, 10, "crash", "x")], crashes=[crash("x", 10), crash("y", 60)])
    assert exposure(data).attrs["collapsed_crashes"] == 0


HAND = {"host": ["h1", "h2"], "version": ["a", "b"], "host_days": [10.0, 20.0], "crashes": [1, 0]}


@pytest.mark.parametrize(
    ("column", "values", "word"),
    [
        ("host", ["h1", None], "row 1: host is"),
        ("host_days", ["1,000", "2"], "row 0: host_days is 1,000"),
        ("host_days", [1.0, None], "row 1: host_days is"),
        ("host_days", [1e-300, 1.0], "row 0: host_days is 1e-300"),
        ("crashes", [1, None], "row 1: crashes is"),
        ("crashes", [0.5, 0], "row 0: crashes is 0.5"),
        ("unknown_crashes", ["few", 0], "row 0: unknown_crashes is few"),
        ("start", ["2014-01-01", "gestern"], "row 1: start is gestern"),
        ("uptime_start", ["soon", "soon"], "row 0: uptime_start is soon"),
    ],
)
def test_a_row_that_cannot_be_counted_is_named(column, values, word):
    with pytest.raises(InputError, match=word):
        check_exposure(pd.DataFrame({**HAND, column: values}))


def test_a_stretch_that_ends_before_it_starts_and_twin_columns_are_refused():
    table = pd.DataFrame(HAND)
    with pytest.raises(InputError, match="row 0: end is"):
        check_exposure(table.assign(start="2014-02-01", end="2014-01-01"))
    with pytest.raises(InputError, match="two columns named crashes"):
        check_exposure(pd.concat([table, table[["crashes"]]], axis=1))


def test_what_a_careful_hand_writes_is_taken():
    table = pd.DataFrame({**HAND, "host_days": ["10", "20"], "start": ["2014-01-01", "2014-01-01 05:00"]})
    found = check_exposure(table.assign(unknown_crashes=pd.array([None, 2], dtype="Int64")))
    assert found["host_days"].tolist() == [10, 20] and found["unknown_crashes"].tolist() == [0, 2]
    assert found["start"].notna().all()


# ---- which driver ------------------------------------------------------------------------------------------------------


def several():
    boots = [(h, 10 * n, 10 * n + 9, "crash", f"{h}{n}") for h in "ab" for n in range(4)]
    guilty = {"a0": "hpsa", "a1": "hpsa", "b0": "e1000", "b1": "e1000", "b2": "e1000"}
    crashes = [crash(f"{h}{n}", 10 * n + 9, h, guilty_module=guilty.get(f"{h}{n}", "lpfc"), deliberate=f"{h}{n}" == "a3")
               for h in "ab" for n in range(4)]  # fmt: skip
    return fleet(hosts=("a", "b"), boots=boots, crashes=crashes, drivers=[("a", 0, "5.5.0.58"), ("a", 20, "5.5.0.50")])


def test_without_a_module_the_driver_is_the_one_whose_versions_can_be_compared():
    found = exposure(several())
    assert found.attrs["module"] == "hpsa" and set(found["module"]) == {"hpsa"}
    assert "it caused most crashes (2 crashes, 2 versions)" in found.attrs["why"]
    assert found.attrs["runners_up"] == [["e1000", 3, 0], ["lpfc", 2, 0]]  # a deliberate crash is nobody's


def test_a_module_that_the_evidence_does_not_know_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="no module 'hspa'; did you mean hpsa"):
        exposure(several(), "hspa")


def test_the_known_issues_that_its_crashes_matched_are_told_by_version():
    data = several()
    data.crashes["driver_version"] = data.crashes["guilty_module"].map({"hpsa": "5.5.0.58"}).astype("string")
    data.crashes["known_issues"] = pd.array(["KB2;KB1"] + [None] * 7, dtype="string")
    assert exposure(data).attrs["known_issues"] == {"5.5.0.58": ["KB1", "KB2"]}


def test_crashes_that_took_their_last_logs_with_them_are_told_with_their_version():
    # The log ends five days before the crash of the first boot; its dump survived.
    data = fleet(
        boots=[("a", 0, 30, "crash", "x"), ("a", 30.1, 60, "running", None)], coverage=[("a", 0, 0, 25), ("a", 30.1, 30.1, 60)],
        crashes=[crash("x", 30, driver_version="5.5.0.58")], drivers=[("a", 0, "5.5.0.58"), ("a", 30.1, "5.5.0.50")],
    )  # fmt: skip
    found = exposure(data)
    assert found["crashes"].sum() == 0 and found.attrs["unplaced_crashes"] == 1
    assert found.attrs["unplaced"] == [["a", "5.5.0.58", str(day(30)), True]]


def test_a_clock_ahead_of_its_dumps_loses_no_crash():
    # Heartbeats a year ahead of the dump: host-days are kept, and the crash is told as unplaced.
    data = fleet(
        boots=[("a", 365, 395, "unknown", None)], crashes=[crash("x", 30, driver_version="5.5.0.58")],
        drivers=[("a", 365, "5.5.0.58")],
    )  # fmt: skip
    found = exposure(data)
    assert found["host_days"].sum() == 30 and found.attrs["unplaced"] == [["a", "5.5.0.58", str(day(30)), True]]


def test_two_hosts_that_crash_at_the_same_instants_are_two():
    boots = [("a", 0, 30, "crash", "x"), ("b", 0, 30, "crash", "y"), ("c", 0, 30, "crash", None)]
    data = fleet(hosts=("a", "b", "c"), boots=boots, crashes=[crash("x", 30), crash("y", 30, "b")])
    assert exposure(data)["host_days"].sum() == 90


# ---- all modules side by side -------------------------------------------------------------------------------------------


def test_all_modules_stand_side_by_side():
    found = driver_league(several()).set_index("module")
    assert list(found.index) == ["e1000", "hpsa", "lpfc"] and found["crashes"].tolist() == [3, 2, 2]
    assert found.loc["hpsa", "versions"] == 2 and found.loc["e1000", "versions"] == 0
    assert found.loc["hpsa", ["worst", "best"]].notna().all() and pd.isna(found.loc["e1000", "worst"])


def test_worst_against_best_is_the_ratio_of_the_two():
    boots = [(f"h{n}", 10 * k, 10 * k + 9, "crash" if n < 9 and k else "reboot", f"h{n}{k}" if n < 9 and k else None)
             for n in range(40) for k in range(3)]  # fmt: skip
    crashes = [
        crash(f"h{n}{k}", 10 * k + 9, f"h{n}", known_issues="KB1", driver_version="2") for n in range(9) for k in (1, 2)
    ]
    drivers = [(f"h{n}", 0, "2" if n < 20 else "1") for n in range(40)]
    data = fleet(hosts=[f"h{n}" for n in range(40)], boots=boots, crashes=crashes, drivers=drivers)
    (row,) = driver_league(data).itertuples()
    ratio = rate_ratio(exposure(data), "2", "1", ("model",))
    assert (row.worst, row.best, row.known_issues) == ("2", "1", "KB1")
    assert row.low == ratio.low and row.low > 1 and pd.isna(row.high)  # no crash on 1: unbounded


def test_a_version_barely_tried_is_not_the_worst_before_it_crashed():
    # With few days its rate to expect is the highest: it may still be anything.
    boots = [
        (f"h{n}", 0, 100 if n < 39 else 1, "crash" if n < 4 else "reboot", f"c{n}" if n < 4 else None)
        for n in range(40)
    ]
    crashes = [crash(f"c{n}", 100, f"h{n}", driver_version="2") for n in range(4)]
    drivers = [(f"h{n}", 0, "2" if n < 20 else "1" if n < 39 else "0.1") for n in range(40)]
    (row,) = driver_league(
        fleet(hosts=[f"h{n}" for n in range(40)], boots=boots, crashes=crashes, drivers=drivers)
    ).itertuples()
    assert row.versions == 3 and row.worst == "2" and row.best == "1"


def test_an_empty_fleet_has_an_empty_league():
    found = driver_league(Fleet())
    assert found.empty and found["crashes"].dtype == "Int64" and found["ratio"].dtype == "Float64"
