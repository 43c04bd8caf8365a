"""The incident that began it: one PSOD on .58, a roll-back to .50 "stable thus far", .60 on several servers for a month.

29.8333 host-days on .58 with one crash; nothing else was watched closely. What can honestly be said, to the digit.
"""

import pandas as pd
import pytest

from psodlib.risk.canary import zero_crash_host_days
from psodlib.risk.decision import decide_pin
from psodlib.risk.exact import p_lower, poisson_interval, poisson_upper, ratio_interval, ratio_p
from psodlib.risk.rates import DAYS_PER_YEAR, crash_rates, rate_ratio

DAYS_58 = 179 / 6  # 29 days 20 hours


def story(servers=5):
    rows = [{"host": "esx1", "version": "5.5.0.58", "host_days": DAYS_58, "crashes": 1}]
    rows += [{"host": f"new{n}", "version": "5.5.0.60", "host_days": 30.0, "crashes": 0} for n in range(servers)]
    return pd.DataFrame(rows)


def test_the_rate_on_58():
    found = crash_rates(story()).loc["5.5.0.58"] * DAYS_PER_YEAR
    assert round(found["rate"], 1) == 12.2
    assert [round(found["low"], 2), round(found["high"], 1)] == [0.31, 68.2]
    # Watching stopped at the crash: the upper limit is that of a failure-terminated test, chi2(2 n) for n crashes.
    assert round(poisson_upper(0, DAYS_58, 0.025) * DAYS_PER_YEAR, 1) == 45.2
    assert [round(DAYS_PER_YEAR / found["high"], 1), round(DAYS_PER_YEAR / found["low"])] == [5.4, 1178]


@pytest.mark.parametrize(("days", "p"), [(30, 0.50), (60, 0.33), (90, 0.25), (180, 0.14), (365, 0.076)])
def test_crash_free_days_on_50_prove_little(days, p):
    found = ratio_p(0, days, 1, DAYS_58, alternative="smaller", method="clopper_pearson")
    assert found == pytest.approx(p, abs=0.005)


def test_how_long_50_would_have_to_run():
    for days, p in ((19 * DAYS_58, 0.05), (39 * DAYS_58, 0.025)):
        assert ratio_p(0, days, 1, DAYS_58, alternative="smaller", method="clopper_pearson") == pytest.approx(p)
    assert [round(19 * DAYS_58), round(39 * DAYS_58 + 0.5)] == [567, 1164]


@pytest.mark.parametrize(
    ("servers", "one_sided", "two_sided", "p", "ratio", "ratio_two_sided"),
    [(3, 12.2, 15.0, 0.249, 6.3, 12.9), (5, 7.29, 8.98, 0.166, 3.8, 7.76), (10, 3.65, 4.49, 0.090, 1.9, 3.9)],
)
def test_what_a_month_on_several_servers_says_of_60(servers, one_sided, two_sided, p, ratio, ratio_two_sided):
    table = story(servers)
    found = crash_rates(table).loc["5.5.0.60"] * DAYS_PER_YEAR
    assert found["upper_at_zero"] == pytest.approx(one_sided, rel=0.005)
    assert found["high"] == pytest.approx(two_sided, rel=0.005)
    counts = (0, 30.0 * servers, 1, DAYS_58)
    assert ratio_p(*counts, alternative="smaller", method="clopper_pearson") == pytest.approx(p, abs=5e-4)
    assert ratio_interval(*counts, alpha=0.10, method="clopper_pearson").high == pytest.approx(ratio, abs=0.05)
    guaranteed = dict(rate_ratio(table, "5.5.0.60", "5.5.0.58").sensitivity)["crude, Clopper-Pearson"]
    assert guaranteed.high == pytest.approx(ratio_two_sided, abs=0.05)


@pytest.mark.parametrize(("centre", "probability"), [(0.1, 0.828), (0.2, 0.837), (0.5, 0.858)])
def test_the_97_per_cent_is_the_prior_talking(centre, probability):
    assert p_lower(0.5, 150, 1.5, DAYS_58) == pytest.approx(0.970, abs=5e-4)  # Jeffreys
    weak = 0.5 / (centre / DAYS_PER_YEAR)
    assert p_lower(0.5, weak + 150, 1.5, weak + DAYS_58) == pytest.approx(probability, abs=5e-4)


def test_what_it_would_take_to_bound_60():
    days = zero_crash_host_days(0.2 / DAYS_PER_YEAR)
    assert round(days) == 5471
    assert [round(days / 5 / DAYS_PER_YEAR), round(days / 90)] == [3, 61]


def test_no_ranking_of_the_three_builds_follows():
    found = decide_pin(story(), ["5.5.0.58", "5.5.0.60"])
    assert found.verdict == "undecided" and not found.avoid
    assert poisson_interval(0, 150)[0] == 0
