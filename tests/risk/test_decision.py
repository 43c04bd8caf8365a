"""The pin decision: verdicts on fleets whose answer is known, and what the reader is told beside them."""

import pandas as pd
import pytest

from psodlib.errors import InputError
from psodlib.risk.decision import PinDecision, decide_pin
from psodlib.simulate.process import SCENARIOS, simulate_history

BASE, BAD, NEXT = "5.5.0.50", "5.5.0.58", "5.5.0.60"


def arms(**given):
    """Arms name=(hosts, host-days each, crashes, one a host)."""
    rows = [
        {"host": f"{name}-{n}", "version": name, "host_days": days, "crashes": int(n < crashes)}
        for name, (hosts, days, crashes) in given.items()
        for n in range(hosts)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def realistic():
    return simulate_history(seed=31, **SCENARIOS["S3"]).exposure()


def at(found, version):
    return found.options.set_index("version").loc[version]


def test_a_clear_winner_is_pinned():
    found = decide_pin(arms(good=(200, 400.0, 4), bad=(200, 400.0, 60)))
    assert (found.verdict, found.pin, found.best, found.avoid) == ("pin", "good", "good", ("bad",))
    assert at(found, "good")["advice"] == "keep" and at(found, "bad")["advice"] == "move_now"
    assert found.host_days_needed == {"bad": 0.0, "good": 0.0}
    assert any("more crashes on good" in sentence for sentence in found.would_change)
    assert len(found.moves) == 200 and set(found.moves["to_version"]) == {"good"}
    assert found.crashes_if_followed < 0.4 * found.crashes_if_stay


def test_the_order_of_candidates_changes_nothing():
    table = arms(good=(200, 400.0, 4), bad=(200, 400.0, 60))
    one, other = decide_pin(table, ["good", "bad"]), decide_pin(table, ["bad", "good"])
    assert (one.verdict, one.pin, one.avoid) == (other.verdict, other.pin, other.avoid)
    assert one.crashes_if_followed == pytest.approx(other.crashes_if_followed)


def test_a_bad_version_is_left_where_the_others_are_alike(realistic):
    found = decide_pin(realistic)
    assert list(found.options["version"]) == [BASE, BAD, NEXT]
    assert found.pin is None and found.avoid == (BAD,) and found.verdict == "avoid"
    assert at(found, BAD)["avoided_low"] > 0 and set(found.moves["from_version"]) == {BAD}
    last = realistic.sort_values("end").groupby("host").tail(1)
    assert set(found.moves["host"]) == set(last.loc[last["version"] == BAD, "host"])
    assert at(found, BAD)["hosts_now"] == (last["version"] == BAD).sum()


def test_a_reference_declares_the_ratios(realistic):
    found = decide_pin(realistic, [BASE, BAD, NEXT], reference=NEXT)
    assert [(r.version, r.reference) for r in found.ratios] == [(BASE, NEXT), (BAD, NEXT)]


def test_what_has_nothing_to_gain_is_left():
    found = decide_pin(arms(a=(100, 300.0, 9), b=(100, 300.0, 9), c=(100, 300.0, 9)))
    assert (found.verdict, found.pin, found.avoid) == ("undecided", None, ())
    assert found.moves.empty and found.crashes_if_stay == found.crashes_if_followed
    assert found.options["p_best"].sum() == pytest.approx(1)


def test_a_fleet_without_a_crash_has_nothing_to_move_for():
    found = decide_pin(arms(a=(100, 300.0, 0), b=(10, 300.0, 0)))
    assert found.verdict == "undecided" and found.moves.empty


def test_thin_evidence_moves_at_a_reboot_and_says_what_is_missing():
    found = decide_pin(arms(old=(50, 300.0, 14), new=(30, 300.0, 4)))
    assert 0.8 <= at(found, "old")["p_worse"] < 0.95
    assert at(found, "old")["advice"] == "next_reboot" and found.avoid == ("old",)
    days = found.host_days_needed["new"]
    told = f"about {float(f'{days:.2g}'):,.0f} further host-days on new, "  # known no better, and the pace is a view's matter
    assert days and any(sentence.startswith(told) and "week" not in sentence for sentence in found.would_change)


def test_the_host_days_still_needed_do_bring_it_near_0_95():
    found = decide_pin(arms(old=(50, 300.0, 14), new=(30, 300.0, 4)))
    times = 1 + found.host_days_needed["new"] / 9000
    later = decide_pin(arms(old=(50, 300.0, 14), new=(30, 300.0 * times, round(4 * times))))
    assert at(later, "old")["p_worse"] == pytest.approx(0.95, abs=0.04)


def test_further_crashes_undo_an_advice():
    found = decide_pin(arms(good=(200, 400.0, 3), bad=(200, 400.0, 14)))
    (sentence,) = [each for each in found.would_change if "would undo" in each]
    more = int(sentence.split()[0])
    undone = decide_pin(arms(good=(200, 400.0, 3 + more + 1), bad=(200, 400.0, 14)))
    assert at(undone, "bad")["p_worse"] < 0.85 < 0.95 < at(found, "bad")["p_worse"]


# ---- the faults that this rule mends (decision.md, F1 to F7) -----------------------------------------------------------


def corner():
    """300 hosts on .50 of model BL with 60 crashes, 40 on .50 and 20 on .60 of model DL with 0 and 4."""
    parts = [("a", BASE, "BL", 300, 365.0, 60), ("b", BASE, "DL", 40, 200.0, 0), ("c", NEXT, "DL", 20, 100.0, 4)]
    return pd.DataFrame([
        {"host": f"{name}{n}", "version": version, "model": model, "host_days": days, "crashes": int(n < crashes)}
        for name, version, model, hosts, days, crashes in parts
        for n in range(hosts)
    ])  # fmt: skip


def test_f1_a_version_is_never_pinned_against_its_own_strata():
    found = decide_pin(corner(), [BASE, NEXT])
    assert found.best == BASE and found.pin != NEXT and NEXT not in found.moves["to_version"].tolist()
    (ratio,) = found.ratios
    assert ratio.version == NEXT and ratio.p_lower < 0.2


def test_f3_a_version_on_hardware_of_its_own_is_moved_at_a_reboot_at_most():
    table = arms(good=(200, 400.0, 4), bad=(200, 400.0, 60))
    found = decide_pin(table.assign(model=table["version"]))
    assert at(found, "bad")["advice"] in ("next_reboot", "no_new_installs", "leave") and found.pin is None
    assert any("different hardware" in reason for reason in found.reasons)
    # What cannot be told from the version is not said to be told, and no time on one alone would tell it.
    assert found.host_days_needed == {"good": None, "bad": None}
    assert any("both need more, on the same hardware in the same months" in each for each in found.would_change)


def test_f3_before_and_after_are_no_comparison():
    table = arms(good=(200, 100.0, 4), bad=(200, 100.0, 60))
    start = pd.to_datetime(table["version"].map({"bad": "2014-01-01", "good": "2014-07-01"}), utc=True)
    table = table.assign(start=start, end=start + pd.Timedelta(days=100), uptime_start=pd.Timedelta(0))
    found = decide_pin(table, adjust=())
    assert at(found, "bad")["advice"] == "next_reboot" and found.pin is None
    assert any("different times" in reason for reason in found.reasons)


def lemon(good, crashes=30):
    """One host with all crashes of its version, against so many crashes of single hosts."""
    table = arms(a=(60, 300.0, 0), b=(60, 300.0, good))
    table.loc[0, "crashes"] = crashes
    return table


def test_f4_one_lemon_host_decides_nothing_however_few_crashes_the_other_has():
    found = [decide_pin(lemon(good)) for good in (3, 4, 5, 6)]
    assert not any(each.pin for each in found)
    chances = [at(each, "a")["p_worse"] for each in found]
    assert max(chances) - min(chances) < 0.25
    assert not any(ratio.interval.excludes_one for each in found for ratio in each.ratios)


def test_f5_unexplained_crashes_count_in_the_probability():
    table = arms(good=(100, 300.0, 2), bad=(100, 300.0, 20)).assign(unknown_crashes=0)
    sure = decide_pin(table)
    table.loc[table["host"].isin([f"good-{n}" for n in range(40, 70)]), "unknown_crashes"] = 1
    found = decide_pin(table)
    assert at(sure, "bad")["p_worse"] > 0.95 > at(found, "bad")["p_worse"] and found.pin is None
    assert found.ratios[0].p_lower > sure.ratios[0].p_lower + 0.05
    assert any("find the module of the 30 crashes" in sentence for sentence in found.would_change)


def test_f7_all_versions_stand_in_the_table_and_more_of_them_hide_nothing():
    others = {f"v{n}": (6, 30.0, 0) for n in range(5)}
    table = arms(good=(100, 400.0, 6), bad=(100, 400.0, 30), **others)
    found = decide_pin(table)
    assert set(found.options["version"]) == {"good", "bad", *others}
    pair = decide_pin(table, ["good", "bad"])
    mine = (
        next(r for r in found.ratios if {r.version, r.reference} == {"good", "bad"})
        if found.best in ("good", "bad")
        else None
    )
    assert at(pair, "bad")["advice"] == "move_now"
    assert mine is None or mine.interval == pytest.approx(pair.ratios[0].interval)


# ---- what else goes in -------------------------------------------------------------------------------------------------


def test_a_known_issue_counts_for_more_where_crashes_are_few_and_is_said():
    table = arms(old=(30, 300.0, 4), new=(30, 300.0, 2))
    plain, told = decide_pin(table), decide_pin(table, known={"old": ["KB1"]})
    assert at(told, "old")["p_worse"] > at(plain, "old")["p_worse"] + 0.05
    assert at(told, "old")["known_issues"] == "KB1" and any("KB1" in reason for reason in told.reasons)


def test_an_advice_that_was_followed_is_turned_round_only_when_sure():
    followed = decide_pin(arms(a=(50, 400.0, 30), b=(50, 400.0, 8)))
    assert followed.best == "b" and followed.avoid == ("a",)
    weak = arms(a=(50, 300.0, 5), b=(50, 300.0, 12))
    assert at(decide_pin(weak), "b")["advice"] == "next_reboot"
    assert at(decide_pin(weak, before=followed), "b")["advice"] == "leave"
    clear = arms(a=(50, 300.0, 2), b=(50, 300.0, 20))
    assert at(decide_pin(clear, before=followed), "b")["advice"] == "move_now"


def test_moves_cost_something():
    table = arms(good=(100, 400.0, 2), bad=(100, 400.0, 14))
    assert decide_pin(table).avoid == ("bad",)
    dear = decide_pin(table, reboot_cost=5.0)
    assert dear.avoid == () and at(dear, "bad")["advice"] == "no_new_installs"


def test_who_runs_what_now_can_be_told(realistic):
    now = pd.DataFrame({"host": realistic["host"].unique()}).assign(version=BASE)
    now.loc[:2, "version"] = BAD
    found = decide_pin(realistic, now=now)
    assert at(found, BAD)["hosts_now"] == 3 and len(found.moves) == 3
    assert found.moves["cluster"].notna().all()


def test_a_frail_host_is_worth_more_to_move():
    table = arms(good=(100, 400.0, 6), bad=(100, 400.0, 40))
    frail = table.copy()
    frail.loc[frail["host"].isin(["bad-0", "bad-1"]), "crashes"] = 8
    frail.loc[frail["host"].isin([f"bad-{n}" for n in range(26, 40)]), "crashes"] = 0
    now = pd.DataFrame({"host": table["host"], "version": "good"})
    now.loc[now["host"].isin(["bad-0", "bad-1"]), "version"] = "bad"
    calm = pd.DataFrame({"host": table["host"], "version": "good"})
    calm.loc[calm["host"].isin(["bad-90", "bad-91"]), "version"] = "bad"
    assert at(decide_pin(frail, now=now), "bad")["avoided"] > 3 * at(decide_pin(frail, now=calm), "bad")["avoided"]


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: decide_pin(arms(a=(20, 300.0, 20), b=(20, 300.0, 20)), ["a", "b"]), "chosen by its crashes"),
        (lambda: decide_pin(arms(a=(2, 3.0, 1), b=(2, 3.0, 0)), ["a"]), "a alone"),
        (lambda: decide_pin(arms(a=(2, 3.0, 1), b=(2, 3.0, 0)), "a"), "a alone"),
        (lambda: decide_pin(arms(a=(2, 3.0, 1)), None), "a alone"),
        (lambda: decide_pin(arms(a=(2, 3.0, 1), b=(2, 3.0, 0)), ["a", "c"]), "no host-days with version 'c'"),
        (lambda: decide_pin(arms(a=(2, 3.0, 1), b=(2, 3.0, 0)), ["a", "b"], reference="c"), "not among"),
        (lambda: decide_pin(arms(a=(20, 3.0, 1), b=(20, 3.0, 0)), 5), "list of versions"),
        (lambda: decide_pin(arms(a=(20, 3.0, 1), b=(20, 3.0, 0)), ["a", None]), "no version"),
        (lambda: decide_pin(arms(a=(20, 3.0, 1), b=(20, 3.0, 0)), alpha=0), "alpha is 0"),
        (lambda: decide_pin(arms(a=(20, 3.0, 1), b=(20, 3.0, 0)), reboot_cost=-1), "reboot_cost is -1"),
        (lambda: decide_pin(pd.DataFrame({"crash_id": ["x"], "host": ["a"]}), ["a", "b"]), "without the host-days"),
    ],
)
def test_what_cannot_be_decided_is_refused(call, word):
    with pytest.raises(InputError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_record_reads_and_tabulates(realistic):
    found = decide_pin(realistic, [BASE, BAD])
    fields = [
        "verdict", "pin", "best", "avoid", "options", "moves", "crashes_if_stay", "crashes_if_followed", "reasons", "ratios",
        "host_days_needed", "would_change",
    ]  # fmt: skip
    assert list(PinDecision.__dataclass_fields__) == fields
    assert str(found).startswith(("Pin", "Move off")) and repr(found) == str(found)
    assert list(found.options.columns) == [
        "version", "hosts_now", "crashes", "host_days", "rate", "low", "high", "p_best", "p_worse", "crashes_a_year", "avoided",
        "avoided_low", "avoided_high", "advice", "known_issues",
    ]  # fmt: skip
    assert list(found.moves.columns) == ["host", "cluster", "from_version", "to_version", "advice"]
    table = found.as_frame()
    assert table.loc[0, ["version", "reference"]].tolist() == [BAD, BASE]
    assert table.loc[0, "ratio"] == pytest.approx(found.ratios[0].ratio)


def test_versions_as_they_come():
    table = arms(**{"5.5.0.50": (40, 300.0, 2), "5.5.0.58": (40, 300.0, 20)})
    tailed = table.assign(version=table["version"] + "-1OEM.550.0.0.1331820")
    one, other = decide_pin(table), decide_pin(tailed, ["5.5.0.58-1OEM.550.0.0.1331820", "5.5.0.50"])
    assert one.avoid == other.avoid == ("5.5.0.58",)
    with pytest.raises(InputError, match="; did you mean"):
        decide_pin(table, ["5.5.0.50", "5.5.0.59"])
    with pytest.raises(InputError, match="a version is text"):
        decide_pin(table.assign(version=table["version"].map({"5.5.0.50": 5.5, "5.5.0.58": 5.58})))


def test_the_first_days_of_a_quarter_are_not_todays_pace():
    # 100 hosts through two quarters with 24 crashes, and three days of a third with two.
    begin, rows = pd.Timestamp("2014-01-01", tz="UTC"), []
    for n in range(100):
        crashed = [20 + 6 * n] if n < 24 else [182.5] if n < 26 else []
        for start, end in zip([0, *crashed], [*crashed, 184], strict=True):
            rows.append((f"h{n}", "a" if n % 2 else "b", start, end, int(end in crashed)))
    table = pd.DataFrame(rows, columns=["host", "version", "from", "to", "crashes"])
    times = {name: begin + pd.to_timedelta(table[edge], unit="D") for name, edge in (("start", "from"), ("end", "to"))}
    table = table.assign(host_days=table["to"] - table["from"], uptime_start=pd.Timedelta(0), **times)
    assert 30 < decide_pin(table, adjust=("quarter",)).crashes_if_stay < 70  # 26 in 18,400 host-days are 52 a year
