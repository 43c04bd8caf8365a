"""The pin decision: verdicts on fleets whose answer is known, and what the reader is told beside them."""

import pandas as pd
import pytest

from psodlib import schema
from psodlib.errors import InputError
from psodlib.risk.decision import PinDecision, decide_pin, expected_impact
from psodlib.risk.rates import crash_rates
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


def test_a_clear_winner_is_pinned():
    found = decide_pin(arms(good=(200, 400.0, 4), bad=(200, 400.0, 60)), ["good", "bad"])
    assert (found.verdict, found.pin, found.avoid) == ("pin", "good", ("bad",))
    assert "good wins over bad" in found.reasons[0]
    assert found.host_days_needed == {"good": 0.0, "bad": 0.0}
    assert any("more crashes on good" in sentence for sentence in found.would_change)


def test_the_order_of_candidates_changes_no_verdict():
    table = arms(good=(200, 400.0, 4), bad=(200, 400.0, 60))
    one, other = decide_pin(table, ["good", "bad"]), decide_pin(table, ["bad", "good"])
    assert (one.verdict, one.pin, one.avoid) == (other.verdict, other.pin, other.avoid)


def test_a_bad_version_is_avoided_where_the_others_are_alike(realistic):
    found = decide_pin(realistic, [BASE, BAD, NEXT])
    assert (found.verdict, found.pin, found.avoid) == ("avoid", None, (BAD,))
    assert len(found.ratios) == 3
    assert any("Holm" in reason for reason in found.reasons)
    assert found.host_days_needed[BAD] == 0.0


def test_a_reference_declares_fewer_contrasts(realistic):
    found = decide_pin(realistic, [BASE, BAD, NEXT], reference=BASE)
    assert [(r.version, r.reference) for r in found.ratios] == [(BAD, BASE), (NEXT, BASE)]
    assert BAD in found.avoid and found.pin is None


def test_equal_versions_stay_undecided():
    table = simulate_history(seed=32, **SCENARIOS["S3null"]).exposure()
    found = decide_pin(table, [BASE, BAD])
    assert (found.verdict, found.pin, found.avoid) == ("undecided", None, ())
    assert "No winner" in found.reasons[0]


def test_without_the_global_test_nobody_wins():
    table = arms(a=(100, 300.0, 9), b=(100, 300.0, 9), c=(100, 300.0, 10))
    found = decide_pin(table, ["a", "b", "c"])
    assert found.verdict == "undecided"
    assert "cannot be excluded" in found.reasons[0]


def test_a_tiny_difference_known_for_certain_pins():
    # The loss counts what the choice could cost: certain knowledge costs nothing.
    found = decide_pin(arms(a=(3000, 3000.0, 1000), b=(3000, 3000.0, 1300)), ["a", "b"])
    assert found.pin == "a"


def test_the_host_days_still_needed_do_bring_a_verdict():
    found = decide_pin(arms(old=(50, 300.0, 4), new=(10, 60.0, 0)), ["old", "new"], fleet_hosts=120)
    assert found.verdict == "undecided"
    days = found.host_days_needed["new"]
    weeks = f"(at 120 hosts on new: {-(-days // (7 * 120)):.0f} weeks)"
    assert any(weeks in sentence for sentence in found.would_change), found.would_change
    for share, verdict in ((0.98, "undecided"), (1.02, "pin")):
        later = decide_pin(arms(old=(50, 300.0, 4), new=(10, 60.0 + share * days / 10, 0)), ["old", "new"])
        assert later.verdict == verdict


def test_where_no_amount_would_do_it_says_so():
    found = decide_pin(arms(old=(20, 10.0, 1), new=(20, 10.0, 1)), ["old", "new"])
    assert found.host_days_needed["new"] is None
    assert any("no number of further host-days on new" in sentence for sentence in found.would_change)


def test_further_crashes_that_would_undo_a_win_do():
    table = arms(good=(200, 400.0, 3), bad=(200, 400.0, 14))
    found = decide_pin(table, ["good", "bad"])
    assert found.pin == "good"
    (sentence,) = [each for each in found.would_change if "would undo" in each]
    more = int(sentence.split()[0])
    assert decide_pin(arms(good=(200, 400.0, 3 + more), bad=(200, 400.0, 14)), ["good", "bad"]).pin is None


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: decide_pin(arms(a=(20, 300.0, 20), b=(20, 300.0, 20)), ["a", "b"]), "chosen by its crashes"),
        (lambda: decide_pin(arms(a=(2, 3.0, 1), b=(2, 3.0, 0)), ["a"]), "two or more"),
        (lambda: decide_pin(arms(a=(2, 3.0, 1), b=(2, 3.0, 0)), "a"), "two or more"),
        (lambda: decide_pin(arms(a=(2, 3.0, 1), b=(2, 3.0, 0)), ["a", "c"]), "no host-days with c"),
        (lambda: decide_pin(arms(a=(2, 3.0, 1), b=(2, 3.0, 0)), ["a", "b"], reference="c"), "not among"),
        (lambda: decide_pin(pd.DataFrame({"crash_id": ["x"], "host": ["a"]}), ["a", "b"]), "without the host-days"),
        (lambda: expected_impact(arms(a=(2, 3.0, 1)), ["b"]), "no host-days with b"),
    ],
)
def test_what_cannot_be_decided_is_refused(call, word):
    with pytest.raises(InputError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_record_reads_and_tabulates(realistic):
    found = decide_pin(realistic, [BASE, BAD])
    fields = ["verdict", "pin", "avoid", "reasons", "ratios", "host_days_needed", "would_change"]
    assert list(PinDecision.__dataclass_fields__) == fields
    assert str(found).startswith("Pin 5.5.0.50.") and repr(found) == str(found)
    table = found.as_frame()
    assert table.loc[0, ["version", "reference"]].tolist() == [BASE, BAD]
    assert table.loc[0, "ratio"] == pytest.approx(found.ratios[0].ratio)


def test_impact_of_each_pin(realistic):
    hosts = pd.DataFrame({"host": [f"h{n}" for n in range(120)], "users": [30, 50] * 60, "vms": 10})
    found = expected_impact(realistic, [BASE, BAD], hosts=hosts, outage_hours=2.0)
    rate = crash_rates(realistic).loc[BAD]
    assert found.loc[BAD, ["crashes_per_year", "crashes_low", "crashes_high"]].tolist() == pytest.approx(
        [365.25 * 120 * rate[name] for name in ("rate", "low", "high")]
    )
    ratio = decide_pin(realistic, [BASE, BAD]).ratios[0].ratio
    assert found.loc[BASE, "crashes_per_year"] == pytest.approx(found.loc[BAD, "crashes_per_year"] * ratio)
    assert found["user_hours_per_year"].to_numpy() == pytest.approx(80 * found["crashes_per_year"].to_numpy())
    assert found["vm_hours_high"].to_numpy() == pytest.approx(20 * found["crashes_high"].to_numpy())
    assert (found["crashes_low"] < found["crashes_per_year"]).all()
    assert "user_hours_per_year" not in expected_impact(realistic, [BASE, BAD])


def test_impact_of_a_version_with_few_crashes_is_its_own():
    found = expected_impact(arms(old=(100, 300.0, 20), new=(100, 30.0, 0)), ["old", "new"])
    assert found.loc["new", "crashes_per_year"] == 0
    assert found.loc["new", "crashes_high"] == pytest.approx(200 * 365.25 * 3.6888794541 / 3000)


def lemon():
    """One host that crashes 25 times: the crude counts look settled, the fit with host effects does not."""
    table = arms(a=(30, 300.0, 5), b=(30, 300.0, 6))
    row = {"host": "lemon", "version": "a", "host_days": 300.0, "crashes": 25}
    return pd.concat([table, pd.DataFrame([row])], ignore_index=True)


@pytest.mark.parametrize("names", [["z", "a", "b"], ["a", "b", "z"], ["a", "z", "b"]])
def test_a_candidate_without_a_crash_is_judged_in_any_order(names):
    table = arms(z=(40, 300.0, 0), a=(40, 300.0, 8), b=(40, 300.0, 30))
    found = decide_pin(table.assign(model=["m1", "m2"] * 60), names)
    assert (found.pin, set(found.avoid)) == ("z", {"a", "b"})


def test_host_days_needed_know_of_host_effects():
    found = decide_pin(lemon(), ["a", "b"])
    assert found.verdict == "undecided" and found.ratios[0].method == "frailty"
    crude = decide_pin(arms(a=(31, 300.0, 30), b=(30, 300.0, 6)), ["a", "b"])
    assert crude.verdict == "pin"
    assert all(days >= 100 for days in found.host_days_needed.values()), found.host_days_needed


def test_no_host_days_are_promised_where_unknown_crashes_hold_the_verdict_back():
    table = arms(good=(100, 300.0, 1), bad=(100, 300.0, 20)).assign(unknown_crashes=0)
    table.loc[table["host"] == "good-99", "unknown_crashes"] = 40
    found = decide_pin(table, ["good", "bad"])
    assert found.verdict == "undecided" and set(found.host_days_needed.values()) == {None}
    text = " ".join(found.would_change)
    assert "name no module turn the ratio round" in text and "to find the module of the 40 crashes" in text


def test_a_contrast_that_the_global_test_alone_holds_back_asks_for_no_time():
    # Many candidates that are alike dilute the one that is worse.
    same = {f"v{n}": (60, 300.0, 8) for n in range(12)}
    found = decide_pin(arms(**same, worse=(60, 300.0, 21)), [*same, "worse"], adjust=())
    assert found.verdict == "undecided" and 0.0 not in found.host_days_needed.values()


@pytest.mark.parametrize("hosts", [0, -3, float("nan"), "5"])
def test_a_fleet_of_no_hosts_is_refused(hosts):
    table = arms(a=(20, 300.0, 2), b=(20, 300.0, 3))
    for call in (decide_pin, expected_impact):
        with pytest.raises(InputError, match="fleet_hosts"):
            call(table, ["a", "b"], fleet_hosts=hosts)


def test_held_against_one_reference_it_says_what_would_let_another_be_pinned():
    found = decide_pin(arms(z=(40, 300.0, 0), a=(40, 300.0, 8), b=(40, 300.0, 30)), ["a", "b", "z"], reference="b")
    assert (found.verdict, found.avoid) == ("avoid", ("b",))
    assert any("only b can be pinned here" in sentence for sentence in found.would_change)


@pytest.mark.parametrize(
    ("candidates", "more", "word"),
    [
        (None, {}, "two or more"),
        (5, {}, "list of versions"),
        (["a", None], {}, "no version"),
        (["a", "b"], {"alpha": 0}, "alpha is 0"),
        (["a", "b"], {"alpha": float("nan")}, "alpha is nan"),
        (["a", "b"], {"probability": 1.5}, "probability is 1.5"),
        (["a", "b"], {"loss": float("nan")}, "loss is nan"),
    ],
)
def test_arguments_that_cannot_be_are_refused(candidates, more, word):
    with pytest.raises(InputError, match=word):
        decide_pin(arms(a=(20, 300.0, 2), b=(20, 300.0, 3)), candidates, **more)


def test_impact_counts_no_host_that_is_only_a_name():
    table = arms(a=(20, 300.0, 6), b=(20, 300.0, 8))
    hosts = schema.build("hosts", [{"host": name} for name in [*table["host"], "spare", "junk"]])
    hosts["cluster"] = ["c1"] * 30 + [None] * 10 + ["c1", None]
    found = expected_impact(table, ["a", "b"], hosts=hosts)
    assert found.equals(expected_impact(table, ["a", "b"], fleet_hosts=41))
