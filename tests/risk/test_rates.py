"""Rates and ratios of an exposure table: what must not change them, what they must say, what they must refuse."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from psodlib.errors import InputError
from psodlib.risk.exact import Interval, poisson_interval, ratio_interval
from psodlib.risk.rates import RateRatio, crash_rates, rate_ratio
from psodlib.simulate.process import SCENARIOS, simulate_history

BASE, BAD, NEXT = "5.5.0.50", "5.5.0.58", "5.5.0.60"


@pytest.fixture(scope="module")
def realistic():
    return simulate_history(seed=11, **SCENARIOS["S3"]).exposure()


def by_hand(**arms):
    """Arms name=(hosts, host-days each, crashes on the first host)."""
    arm = [(name, n, days, crashes) for name, (hosts, days, crashes) in arms.items() for n in range(hosts)]
    rows = [(f"{name}{n}", name, days, crashes if n == 0 else 0) for name, n, days, crashes in arm]
    return pd.DataFrame(rows, columns=["host", "version", "host_days", "crashes"])


def close(one, other, tolerance=1e-8):
    for field in ("known_only", "with_unknown", "adversarial", "crude", "mantel_haenszel"):
        assert getattr(one, field) == pytest.approx(getattr(other, field), rel=tolerance), field
    assert (one.low, one.high) == pytest.approx((other.low, other.high), rel=tolerance)


def test_rates_by_version():
    table = by_hand(old=(1, 179 / 6, 1), new=(5, 30.0, 0))
    found = crash_rates(table)
    assert list(found.columns) == ["crashes", "host_days", "rate", "low", "high", "upper_at_zero"]
    assert found.loc["old", ["rate", "low", "high"]].tolist() == pytest.approx([6 / 179, *poisson_interval(1, 179 / 6)])
    assert math.isnan(found.loc["old", "upper_at_zero"])
    assert found.loc["new", "upper_at_zero"] == pytest.approx(-math.log(0.05) / 150)


def test_rates_by_other_columns_and_of_unknown_versions():
    table = by_hand(old=(2, 100.0, 1), new=(2, 100.0, 0)).assign(model=["A", "B", "A", "B"])
    assert crash_rates(table, by="model")["host_days"].tolist() == [200, 200]
    assert len(crash_rates(table, by=["model", "version"])) == 4
    table.loc[0, "version"] = None
    assert crash_rates(table)["crashes"].tolist() == [0, 0, 1]  # the unknown version last
    with pytest.raises(InputError, match="no column colour"):
        crash_rates(table, by="colour")


def one_each(**arms):
    """Arms name=(hosts, host-days each, crashes, each on a host of its own)."""
    table = by_hand(**{name: (hosts, days, 0) for name, (hosts, days, _) in arms.items()})
    for name, (_, _, crashes) in arms.items():
        table.loc[table["host"].isin([f"{name}{n}" for n in range(crashes)]), "crashes"] = 1
    return table


def test_counts_by_hand_are_compared_exactly_where_no_host_can_speak_of_hosts():
    for table in (one_each(old=(10, 100.0, 4), new=(10, 100.0, 9)), by_hand(old=(1, 1000.0, 4), new=(1, 1000.0, 9))):
        found = rate_ratio(table, "new", "old")
        assert found.method == "exact_midp" and found.known_only == ratio_interval(9, 1000, 4, 1000)
        assert found.crashes == (9, 4) and found.host_days == (1000, 1000) and found.frailty_variance is None
        assert "exact, nothing adjusted" in str(found) and found.adjusted_for == ()


@pytest.mark.parametrize("few", [2, 3, 4, 5, 6, 7])
def test_no_count_is_a_border_between_methods(few):
    # One lemon host with thirty crashes against a few hosts with one each: never an exact interval that forgets hosts.
    table = pd.concat([by_hand(a=(60, 300.0, 30)), one_each(b=(60, 300.0, few))], ignore_index=True)
    found = rate_ratio(table, "a", "b")
    assert found.method == "frailty" and not found.interval.excludes_one
    more = pd.concat([by_hand(a=(60, 300.0, 30)), one_each(b=(60, 300.0, few + 1))], ignore_index=True)
    assert rate_ratio(more, "a", "b").low == pytest.approx(found.low, rel=0.5)


def test_unplaced_crashes_widen_the_headline_and_are_said_by_version(realistic):
    # Six of ten crashes on .58 took the last logs with them: in the table they are missing.
    table = realistic.copy()
    crashed = table.index[(table["version"] == BAD) & (table["crashes"] == 1)]
    lost = crashed[np.arange(len(crashed)) % 10 < 6]
    table.loc[lost, "crashes"] = 0
    bare = rate_ratio(table, BAD, BASE)
    table.attrs["unplaced"] = [[table.loc[at, "host"], BAD, str(table.loc[at, "end"]), True] for at in lost]
    found = rate_ratio(table, BAD, BASE)
    truth = rate_ratio(realistic, BAD, BASE)
    assert bare.high < truth.low and found.low < truth.ratio < found.high
    assert found.unplaced_crashes == (len(lost), 0) and found.p_lower < bare.p_lower
    (warning,) = [warning for warning in found.warnings if "no log covers" in warning]
    assert f"{len(lost)} of {len(crashed)} crashes" in warning and f"on {BAD}" in warning and f"on {BASE}" in warning
    assert not [warning for warning in truth.warnings if "no log covers" in warning]


def test_many_crashes_use_frailty(realistic):
    found = rate_ratio(realistic, BAD, BASE)
    assert found.method == "frailty" and found.adjusted_for == ("model", "uptime", "quarter")
    assert found.frailty_variance > 0
    assert found.low == min(found.known_only.low, found.with_unknown.low)
    assert found.high == max(found.known_only.high, found.with_unknown.high)
    assert found.adversarial.low < found.low < found.ratio < found.high < found.adversarial.high
    assert found.p_value < 0.05 and found.p_lower < 0.05
    assert [name for name, _ in found.sensitivity] == ["crude, Clopper-Pearson", "frailty shared by cluster"]
    assert "adjusted for model, uptime, quarter, hosts may differ" in str(found)


def test_p_agrees_with_the_headline(realistic):
    for version in (BAD, NEXT):
        found = rate_ratio(realistic, version, BASE)
        at_p = rate_ratio(realistic, version, BASE, alpha=found.p_value)
        assert min(abs(math.log(at_p.low)), abs(math.log(at_p.high))) == pytest.approx(0, abs=1e-6)


def test_swapping_the_versions_inverts_everything(realistic):
    one, other = rate_ratio(realistic, BAD, BASE), rate_ratio(realistic, BASE, BAD)
    assert (one.ratio, one.low, one.high) == pytest.approx((1 / other.ratio, 1 / other.high, 1 / other.low), rel=1e-8)
    assert one.p_lower == pytest.approx(1 - other.p_lower) and one.p_value == pytest.approx(other.p_value)


def test_splitting_stretches_changes_no_ratio(realistic):
    middle = realistic["start"] + (realistic["end"] - realistic["start"]) * 0.3
    head = realistic.assign(end=middle, crashes=0, unknown_crashes=0, host_days=realistic["host_days"] * 0.3)
    later = realistic["uptime_start"] + (middle - realistic["start"])
    tail = realistic.assign(start=middle, uptime_start=later, host_days=realistic["host_days"] * 0.7)
    close(rate_ratio(realistic, BAD, BASE), rate_ratio(pd.concat([head, tail]), BAD, BASE))


def test_the_order_and_names_of_hosts_change_no_ratio(realistic):
    shuffled = realistic.sample(frac=1, random_state=3)
    names = {name: f"x{n}" for n, name in enumerate(shuffled["host"].unique())}
    close(rate_ratio(realistic, BAD, BASE), rate_ratio(shuffled.assign(host=shuffled["host"].map(names)), BAD, BASE))


def test_the_unit_of_time_changes_no_ratio(realistic):
    hours = realistic.assign(host_days=realistic["host_days"] * 24)
    close(rate_ratio(realistic, BAD, BASE), rate_ratio(hours, BAD, BASE))


def test_a_host_with_time_on_neither_version_adds_nothing():
    table = simulate_history(seed=12, **SCENARIOS["S3"]).exposure()
    extra = table.head(1).assign(host="elsewhere", version="4.0", crashes=0, unknown_crashes=0, model="another")
    close(rate_ratio(table, BAD, BASE, ("model",)), rate_ratio(pd.concat([table, extra]), BAD, BASE, ("model",)))


def test_unknown_versions_are_left_out_and_counted(realistic):
    table = realistic.copy()
    table.loc[table.index[:100], "version"] = pd.NA
    found = rate_ratio(table, BAD, BASE)
    assert any("host-days" in warning and "not known which version" in warning for warning in found.warnings)
    close(found, rate_ratio(realistic.iloc[100:], BAD, BASE))


@pytest.mark.parametrize(
    ("arms", "text"),
    [
        ({"old": (20, 100.0, 0), "new": (20, 100.0, 0)}, "No information on new against old"),
        ({"old": (20, 100.0, 0), "new": (20, 100.0, 3)}, "upper end is unbounded"),
        ({"old": (20, 100.0, 3), "new": (20, 100.0, 0)}, "new crashes 0 (0 to "),
    ],
)
def test_nothing_undefined_prints_as_a_number(arms, text):
    found = rate_ratio(by_hand(**arms), "new", "old")
    assert text in str(found) and str(found) == repr(found)
    shown = str(found) + found.as_frame().to_string() + " ".join(found.warnings)
    assert not re.search(r"\b(inf|nan)\b", shown, re.IGNORECASE)


def test_the_table_of_estimates(realistic):
    found = rate_ratio(realistic, BAD, BASE).as_frame()
    assert found.index[0] == "headline" and found.index.name == "estimate"
    assert list(found.columns) == ["ratio", "low", "high", "text"]
    assert len(found) == 8


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda t: t.drop(columns=["model"]), "not adjusted for model: the table does not hold it"),
        (lambda t: t.assign(model="one"), "not adjusted for model: it is the same everywhere"),
        (lambda t: t.assign(model=t["version"]), "ran on different hardware (overlap 0 %)"),
        (lambda t: t[(t["version"] != BASE) | (t["start"] < "2013-07-20")], "ran at different times"),
        (lambda t: t[t["host"].isin(t.loc[t["crashes"] + t["unknown_crashes"] > 0, "host"])], "only hosts that crashed"),
        (lambda t: t.assign(crashes=t["crashes"] + 60 * ((t["host"] == "esx001") & ~t["host"].duplicated()).astype(int)), "esx001 alone has"),
        (lambda t: t.assign(version=t.groupby("host")["version"].transform("last")), "today's inventory"),
        (lambda t: t[(t["version"] != BAD) | (np.arange(len(t)) % 3 > 0)], None),
    ],
)  # fmt: skip
def test_each_trap_that_the_table_shows_is_named(realistic, change, word):
    found = rate_ratio(change(realistic), BAD, BASE)
    assert word is None or any(word in warning for warning in found.warnings), found.warnings


TRAPS = (
    "ran at different times", "only hosts that crashed", "alone has", "today's inventory", "evidence is missing for",
    "had 5.5.0.58 loaded; under", "newest, for all its history", "adjustment raises", "adjustment lowers",
)  # fmt: skip


def test_no_trap_is_named_where_there_is_none():
    table = simulate_history(seed=11, **SCENARIOS["S1"]).exposure()
    found = rate_ratio(table, BAD, BASE, ("model",))
    assert not [trap for trap in TRAPS if any(trap in warning for warning in found.warnings)], found.warnings


def test_few_hosts_are_named(realistic):
    kept = realistic.loc[realistic["version"] == BAD, "host"].unique()[:9]
    found = rate_ratio(realistic[(realistic["version"] != BAD) | realistic["host"].isin(kept)], BAD, BASE)
    assert any("only 9 hosts had 5.5.0.58 loaded" in warning for warning in found.warnings)


def test_gaps_that_differ_are_named(realistic):
    # On .58 every stretch loses its middle half.
    bad, rest = realistic[realistic["version"] == BAD], realistic[realistic["version"] != BAD]
    quarter = (bad["end"] - bad["start"]) / 4
    head = bad.assign(end=bad["start"] + quarter, host_days=bad["host_days"] / 4, crashes=0, unknown_crashes=0)
    later = bad["uptime_start"] + 3 * quarter
    tail = bad.assign(start=bad["end"] - quarter, uptime_start=later, host_days=bad["host_days"] / 4)
    found = rate_ratio(pd.concat([rest, head, tail]), BAD, BASE)
    assert any("evidence is missing for" in warning for warning in found.warnings)


def test_model_confounding_is_adjusted_and_named():
    table = simulate_history(seed=21, **SCENARIOS["S2"]).exposure()
    found = rate_ratio(table, BAD, BASE, ("model",))
    assert found.crude.ratio > 1.2 * found.ratio
    assert any("adjustment lowers the ratio" in warning for warning in found.warnings)
    assert found.mantel_haenszel.ratio == pytest.approx(found.ratio, rel=0.15)


def test_a_conclusion_that_hangs_on_unknown_crashes_is_named():
    table = one_each(old=(30, 100.0, 3), new=(30, 100.0, 14))
    table["unknown_crashes"] = [5] + [0] * 58 + [1]
    found = rate_ratio(table, "new", "old")
    assert found.interval.excludes_one == (found.p_value < 0.05)
    if found.interval.excludes_one:
        assert any("name no module" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda t: rate_ratio(t, "5.5.0.99", BASE), "no host-days with version '5.5.0.99'"),
        (lambda t: rate_ratio(t, BASE, BASE), "give two versions"),
        (lambda t: rate_ratio(t, BAD, BASE, ("colour",)), "cannot adjust for colour"),
        (lambda t: rate_ratio(t.drop(columns="host_days"), BAD, BASE), "without the host-days"),
        (lambda t: rate_ratio(t[["host", "version"]], BAD, BASE), "snapshot"),
    ],
)
def test_refusals_are_one_sentence(realistic, call, word):
    with pytest.raises(InputError, match=word) as caught:
        call(realistic)
    assert "\n" not in str(caught.value)


def test_the_fields_are_those_of_the_contract(realistic):
    found = rate_ratio(realistic, BAD, BASE)
    fields = [
        "version",
        "reference",
        "ratio",
        "low",
        "high",
        "alpha",
        "method",
        "known_only",
        "with_unknown",
        "adversarial",
        "crude",
        "mantel_haenszel",
        "frailty_variance",
        "crashes",
        "host_days",
        "hosts",
        "p_lower",
        "warnings",
    ]
    assert list(RateRatio.__dataclass_fields__)[: len(fields)] == fields
    assert found.known_only._fields == ("ratio", "low", "high")


def test_the_newest_build_laid_on_all_history_is_named(realistic):
    hosts = realistic["host"].unique()
    newest = realistic.assign(esxi_build=realistic["host"].map({host: f"b{n % 2}" for n, host in enumerate(hosts)}))
    found = rate_ratio(newest, BAD, BASE, adjust="esxi_build")
    assert found.adjusted_for == ("esxi_build",)
    assert any("newest, for all its history" in warning for warning in found.warnings)
    by_row = newest.assign(esxi_build=["b0", "b1"] * (len(newest) // 2) + ["b0"] * (len(newest) % 2))
    assert not any("newest" in warning for warning in rate_ratio(by_row, BAD, BASE, adjust="esxi_build").warnings)


@pytest.mark.parametrize("crashes", [(20, 9), (3, 2), (0, 9), (0, 0)])
@pytest.mark.parametrize("alpha", [1 - 1e-14, 0.999, 1e-14])
def test_no_alpha_makes_a_text_of_inf_or_nan(crashes, alpha):
    table = by_hand(a=(50, 300.0, crashes[0]), b=(50, 1e-9, crashes[1]))
    found = rate_ratio(table, "a", "b", alpha=alpha)
    assert not re.search(r"\b(inf|nan)\b", str(found) + found.as_frame().to_string(), re.IGNORECASE)


@pytest.mark.parametrize("limits", [(1.0, math.nan, 2.0), (1.0, math.inf, math.inf), (math.nan, 0.0, math.inf)])
def test_limits_that_are_no_numbers_are_no_information(limits):
    assert str(Interval(*limits)) == "no information"


@pytest.mark.parametrize("alpha", [0, 1, -1, 2, math.nan, "5 %", None])
def test_an_alpha_that_is_none_is_refused(realistic, alpha):
    for call in (lambda: rate_ratio(realistic, BAD, BASE, alpha=alpha), lambda: crash_rates(realistic, alpha=alpha)):
        with pytest.raises(InputError, match="alpha is"):
            call()


@pytest.mark.parametrize("by", [[], None])
def test_rates_by_nothing_are_refused(realistic, by):
    with pytest.raises(InputError, match="group by version"):
        crash_rates(realistic, by=by)
