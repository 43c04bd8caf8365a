"""The exact ratio over strata, held against a regression, a published calculator, enumeration and itself."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from psodlib.errors import InputError
from psodlib.risk.exact import ratio_interval, ratio_p
from psodlib.risk.rates import rate_ratio
from psodlib.risk.stratified import Strata
from psodlib.simulate.process import SCENARIOS, simulate_history

# British doctors (Doll & Hill): deaths and person-years of smokers and others in five age bands.
DOCTORS = Strata.of(
    [32, 104, 206, 186, 102], [52407, 43248, 28612, 12663, 5317], [2, 12, 28, 28, 31], [18790, 10673, 5710, 2585, 1462]
)
# The example that OpenEpi ships for comparing two person-time rates.
OPENEPI = Strata.of([17, 8], [100025, 78531], [3, 1], [122268, 77932])


def test_conditioning_gives_the_ratio_of_a_poisson_regression_with_a_term_a_stratum():
    # R: exp(coef(glm(deaths ~ smoke + age + offset(log(pyears)), poisson)))["smoke"]
    assert DOCTORS.interval().ratio == pytest.approx(1.4255185428556603, rel=1e-8)


def test_p_of_the_published_example():
    # OpenEpi prints one tail: mid-P 0.000006306, Fisher 0.00001118.
    assert OPENEPI.p_value() == pytest.approx(2 * 6.306e-6, rel=1e-4)
    assert OPENEPI.p_value("clopper_pearson") == pytest.approx(2 * 1.118e-5, rel=1e-3)


@pytest.mark.parametrize("method", ["midp", "clopper_pearson"])
def test_one_stratum_is_the_plain_interval(method):
    for counts in ((3, 150.0, 7, 90.0), (0, 150.0, 7, 90.0), (3, 150.0, 0, 90.0)):
        one = Strata.of(*[[each] for each in counts])
        assert one.interval(method=method) == ratio_interval(*counts, method=method)
        assert one.p_value(method) == ratio_p(*counts, method=method)
    # Two strata with the same mixture of time are one.
    same = Strata.of([1, 2], [50.0, 100.0], [4, 3], [30.0, 60.0])
    assert same.interval(method=method) == pytest.approx(ratio_interval(3, 150.0, 7, 90.0, method=method), rel=1e-8)


def test_tails_are_those_of_all_ways_the_crashes_could_have_fallen():
    strata = Strata.of([2, 1, 0], [10.0, 5.0, 20.0], [1, 3, 1], [3.0, 9.0, 1.0])
    low = strata.interval(0.1, "clopper_pearson").low
    share = low * strata.exposures / (low * strata.exposures + strata.reference_exposures)
    events = (strata.counts + strata.reference_counts).astype(int)
    more = sum(
        math.prod(stats.binom.pmf(got, events, share))
        for got in itertools.product(*(range(n + 1) for n in events))
        if sum(got) >= 3
    )
    assert more == pytest.approx(0.05, rel=1e-8)


def test_swapping_the_groups_inverts_the_interval():
    for strata in (DOCTORS, OPENEPI, Strata.of([0, 0], [10, 20], [4, 3], [10, 30])):
        one, other = strata.interval(), Strata.of(*strata[2:], *strata[:2]).interval()
        assert [one.low, one.high] == pytest.approx(
            [1 / other.high, 1 / other.low if other.low else math.inf], rel=1e-9
        )


def test_the_p_value_and_the_interval_agree():
    p = OPENEPI.p_value()
    assert OPENEPI.interval(p).low == pytest.approx(1.0, abs=1e-6)


def test_no_alpha_breaks_it():
    for alpha in (1e-15, 1e-14, 1e-6, 0.999, 1 - 1e-14):
        assert 0 < OPENEPI.interval(alpha).low <= OPENEPI.interval(alpha).high < math.inf


def test_strata_that_tell_nothing_are_left_out():
    assert Strata.of([3, 5, 0], [10, 10, 10], [2, 0, 0], [10, 0, 10]) == Strata.of([3], [10], [2], [10])
    assert str(Strata.of([0], [10], [0], [10]).interval()) == "no information"
    with pytest.raises(InputError, match="negative or unknown"):
        Strata.of([-1], [1], [1], [1])


def fleet(models):
    """Two models, one crashing ten times as often; the new version runs mostly on the bad one. The versions are alike."""
    rows = [
        {"host": f"{version}-{model}-{n}", "version": version, "model": model, "host_days": 100.0, "crashes": 0}
        for (version, model), hosts in models.items()
        for n in range(hosts)
    ]
    return pd.DataFrame(rows)


def test_few_crashes_are_compared_within_models():
    table = fleet({("old", "good"): 60, ("old", "bad"): 20, ("new", "good"): 20, ("new", "bad"): 60})
    for key, count in (("old-bad-0", 3), ("old-good-0", 1), ("new-bad-0", 9)):
        table.loc[table["host"] == key, "crashes"] = count
    found, crude = rate_ratio(table, "new", "old"), rate_ratio(table, "new", "old", ())
    assert found.method == "exact_midp" and found.adjusted_for == ("model",)
    assert found.ratio < 1.2 < 2.2 < crude.ratio == found.crude.ratio
    assert not found.interval.excludes_one and found.p_lower > crude.p_lower
    assert any("within strata of model" in warning for warning in found.warnings)
    assert any("moves the crude ratio" in warning for warning in found.warnings)


def test_a_term_within_which_little_can_be_compared_is_left_out():
    table = fleet({("old", "good"): 60, ("new", "bad"): 60, ("old", "bad"): 1})
    table.loc[[0, 70], "crashes"] = 3
    found = rate_ratio(table, "new", "old")
    assert found.adjusted_for == ()
    assert any("not adjusted for model: within its levels" in warning for warning in found.warnings)


def test_coverage_where_few_crashes_are_confounded_by_model():
    # The ratio is 3 in both strata; the version runs mostly in the one where all crash more.
    rng = np.random.default_rng(4)
    time, other_time = np.array([30.0, 60.0]), np.array([100.0, 20.0])
    level = np.array([0.02, 0.1])
    covered = np.zeros(2, dtype=int)
    for _ in range(300):
        mine, others = rng.poisson(3 * level * time), rng.poisson(level * other_time)
        stratified = Strata.of(mine, time, others, other_time).interval()
        crude = ratio_interval(mine.sum(), time.sum(), others.sum(), other_time.sum())
        covered += [each.low <= 3 <= each.high for each in (stratified, crude)]
    assert covered[0] >= 275 > covered[1]  # of 300 that cover 95 %, under 275 has a chance below 1 in 500


def test_cutting_shuffling_and_rescaling_change_no_exact_ratio():
    table = simulate_history(seed=20140660, **SCENARIOS["S3sparse"]).exposure()
    found = rate_ratio(table, "5.5.0.60", "5.5.0.50")
    assert found.method == "exact_midp" and "model" in found.adjusted_for
    middle = table["start"] + (table["end"] - table["start"]) * 0.3
    head = table.assign(end=middle, crashes=0, unknown_crashes=0, host_days=table["host_days"] * 0.3)
    tail = table.assign(
        start=middle,
        uptime_start=table["uptime_start"] + (middle - table["start"]),
        host_days=table["host_days"] * 0.7,
    )
    extra = table.head(1).assign(host="elsewhere", version="4.0", crashes=0, unknown_crashes=0)
    for changed in (
        pd.concat([head, tail]),
        table.sample(frac=1, random_state=3),
        table.assign(host_days=table["host_days"] * 24),
        pd.concat([table, extra]),
    ):
        again = rate_ratio(changed, "5.5.0.60", "5.5.0.50")
        assert (again.ratio, again.low, again.high) == pytest.approx((found.ratio, found.low, found.high), rel=1e-8)
    swapped = rate_ratio(table, "5.5.0.50", "5.5.0.60")
    assert (1 / swapped.high, 1 / swapped.low) == pytest.approx((found.low, found.high), rel=1e-8)
    assert swapped.p_value == pytest.approx(found.p_value)
