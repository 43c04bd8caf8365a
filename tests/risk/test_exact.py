"""Exact rates and ratios, held against R, published tables, and themselves."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from psodlib.errors import InputError
from psodlib.risk.exact import (
    Interval,
    holm,
    mantel_haenszel,
    p_lower,
    poisson_interval,
    poisson_upper,
    ratio_interval,
    ratio_p,
)

STAT_REFS = Path(__file__).resolve().parents[3] / "shared" / "stat-refs"

# Rows of the reference files for which there is no method here, and why that is right.
NO_METHOD = {
    "rate15_400_score": "approximate; the exact interval is as cheap",
    "rate15_400_wald": "covers as little as 39 %",
    "byar_k5": "an approximation of the exact interval",
    "gu2008_ex1_score": "approximate",
    "gu2008_ex1_score-log": "approximate",
    "gu2008_ex1_sqrt": "approximate",
    "gu2008_ex1_etest": "its p jumps when an exposure moves by a thousandth",
    "przyborowski_wilenski": "the E-test, see gu2008_ex1_etest",
    "doctors_poisson_glm": "by the frailty module, in test_frailty.py",
}


def records(name):
    path = STAT_REFS / f"{name}.json"
    return [r for r in json.loads(path.read_text()) if r["name"] not in NO_METHOD] if path.is_file() else []


def by_name(record):
    return record["name"]


def near(value, expected, tolerance):
    return abs(value - expected) <= tolerance * max(1.0, abs(expected))


def test_reference_files_are_at_hand():
    if not STAT_REFS.is_dir():
        pytest.skip("the reference folder ../shared is not at hand")
    assert len(records("rates_one_sample")) > 20


@pytest.mark.parametrize("record", records("rates_one_sample"), ids=by_name)
def test_one_sample_reference(record):
    given, expected, tolerance = record["inputs"], record["expected"], record["tolerance"]
    if "device_days" in given:  # drive failures per 365 days, in per cent
        rate = 100 * given["year_days"] * given["failures"] / given["device_days"]
        assert near(rate, expected["afr_pct"], tolerance)
        return
    if "conf_one_sided" in given:
        upper = poisson_upper(given["count"], given["exposure"], 1 - given["conf_one_sided"])
        assert near(upper, expected["upper"], tolerance)
        return
    if given.get("method") == "jeff":
        return  # a prior of its own; the decision's prior is that of all versions (frailty.py)
    method = {"mid-p": "midp"}.get(given.get("method"), "garwood")
    limits = poisson_interval(given["count"], given["exposure"], 1 - given.get("conf", 0.95), method)
    for value, end in zip(limits, ("lower", "upper"), strict=True):
        assert end not in expected or near(value, expected[end], tolerance)


@pytest.mark.parametrize("record", records("rates_two_sample"), ids=by_name)
def test_two_sample_reference(record):
    given, expected, tolerance = record["inputs"], record["expected"], record["tolerance"]
    counts = (given["count1"], given["exposure1"], given["count2"], given["exposure2"])
    how = {"cond-midp": "midp"}.get(given.get("method"), "clopper_pearson")
    interval = ratio_interval(*counts, method="clopper_pearson")
    one_sided = ratio_interval(*counts, alpha=0.10, method="clopper_pearson")
    found = {
        "ratio": interval.ratio,
        "lower": interval.low,
        "upper": interval.high,
        "upper_one_sided95": one_sided.high,
        "p_less": ratio_p(*counts, alternative="smaller", method="clopper_pearson"),
        "p_greater": ratio_p(*counts, alternative="larger", method="clopper_pearson"),
        "p": ratio_p(*counts, given.get("value", 1.0), "larger", how),
    }
    checked = [name for name in expected if name in found]
    assert checked
    for name in checked:
        assert near(found[name], expected[name], tolerance), name


# R 4.2: poisson.test(k)$conf.int
@pytest.mark.parametrize(
    ("count", "low", "high"), [(0, 0, 3.6888794541), (1, 0.0253178080, 5.5716433909), (5, 1.6234863901, 11.6683320821)]
)
def test_garwood_against_r(count, low, high):
    assert poisson_interval(count, 1) == pytest.approx((low, high), abs=1e-8)


def test_ratio_against_the_example_of_r():
    # > poisson.test(c(11, 6+8+7), c(800, 1083+1050+878)):  0.8584264 4.2772659, rate ratio 1.971488
    found = ratio_interval(11, 800, 21, 3011, method="clopper_pearson")
    assert found == pytest.approx((1.971488, 0.8584264, 4.2772659), abs=1e-6)


def test_midp_has_lower_limit_zero_at_no_events():
    assert poisson_interval(0, 1, method="midp") == pytest.approx((0, 2.9957323), abs=1e-6)


# p and interval of one method must agree. statsmodels checks its family the same way.
@pytest.mark.parametrize("method", ["midp", "clopper_pearson"])
@pytest.mark.parametrize("counts", [(3, 150, 2, 29), (41, 28010, 15, 19017), (1, 40000, 12, 36500), (7, 10, 7, 10)])
def test_p_is_alpha_at_both_ends_of_the_interval(counts, method):
    interval = ratio_interval(*counts, method=method)
    for end in (interval.low, interval.high):
        assert ratio_p(*counts, end, method=method) == pytest.approx(0.05, abs=1e-8)


@pytest.mark.parametrize("method", ["midp", "clopper_pearson"])
@pytest.mark.parametrize("counts", [(3, 150, 2, 29), (0, 150, 4, 29), (5, 7, 0, 9), (60, 51477.5, 30, 54308.7)])
def test_swapping_the_groups_inverts_the_ratio(counts, method):
    one = ratio_interval(*counts, method=method)
    other = ratio_interval(*counts[2:], *counts[:2], method=method)
    assert (one.low, one.high) == pytest.approx(
        (1 / other.high if other.high else math.inf, 1 / other.low if other.low else math.inf), rel=1e-8
    )
    assert ratio_p(*counts) == pytest.approx(ratio_p(*counts[2:], *counts[:2]), rel=1e-9)


@pytest.mark.parametrize("method", ["midp", "clopper_pearson"])
def test_the_unit_of_time_changes_no_ratio(method):
    days = ratio_interval(3, 150, 2, 29, method=method)
    assert ratio_interval(3, 150 * 24, 2, 29 * 24, method=method) == pytest.approx(days, rel=1e-10)


def test_coverage_of_one_sample_intervals_is_exact():
    # Garwood never covers less than 95 %; mid-P at least 91 % everywhere and 95 % to 97 % on average.
    means = np.arange(0.5, 30.001, 0.05)
    counts = np.arange(80)
    weight = np.exp(counts[:, None] * np.log(means) - means - np.array([math.lgamma(k + 1) for k in counts])[:, None])
    coverage = {}
    for method in ("garwood", "midp"):
        limits = np.array([poisson_interval(int(k), 1, method=method) for k in counts])
        coverage[method] = (weight * ((limits[:, :1] <= means) & (means <= limits[:, 1:]))).sum(axis=0)
    assert coverage["garwood"].min() >= 0.95
    assert coverage["midp"].min() >= 0.91
    assert 0.95 <= coverage["midp"].mean() <= 0.97


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (ratio_interval(0, 5, 0, 7), "no information"),
        (ratio_interval(0, 150, 1, 179 / 6, method="clopper_pearson"), "0 (0 to 7.76)"),
        (ratio_interval(3, 150, 0, 30), "no estimate (0.117 to unbounded)"),
        (Interval(2.0, 1.0, 4.0), "2 (1 to 4)"),
        (ratio_interval(3, 0, 1, 30), "no information"),
    ],
)
def test_no_infinity_prints_as_a_number(interval, text):
    assert str(interval) == text


def test_doctors_mantel_haenszel():
    # Doll & Hill, British doctors; Stata: ir deaths smokes pyears, by(age): M-H 1.424682 [1.154703, 1.757784]
    deaths, years = (32, 104, 206, 186, 102), (52407, 43248, 28612, 12663, 5317)
    deaths0, years0 = (2, 12, 28, 28, 31), (18790, 10673, 5710, 2585, 1462)
    found = mantel_haenszel(deaths, years, deaths0, years0)
    assert found == pytest.approx((1.424682, 1.154703, 1.757784), abs=1e-6)


def test_mantel_haenszel_without_common_events_says_so():
    assert str(mantel_haenszel([3, 0], [10, 0], [0, 2], [0, 10])) == "no information"


def test_posterior_against_monte_carlo():
    rng = np.random.default_rng(4)
    one, other = rng.gamma(5, 1 / 1000, 400_000), rng.gamma(9, 1 / 800, 400_000)
    assert p_lower(5, 1000, 9, 800) == pytest.approx((one < other).mean(), abs=0.003)


def test_holm_is_the_worst_case_over_all_closed_tests():
    # Holm by definition: reject only if every intersection that holds the hypothesis is rejected by Bonferroni.
    p = np.array([0.01, 0.04, 0.03, 0.005])
    subsets = [s for size in range(1, 5) for s in itertools.combinations(range(4), size)]
    expected = [max(min(1.0, len(s) * min(p[list(s)])) for s in subsets if i in s) for i in range(4)]
    # R: p.adjust(c(.01, .04, .03, .005), "holm") = .03 .06 .06 .02
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(p) == pytest.approx(expected)


@pytest.mark.parametrize("bad", [(-1, 5), (1, -5), (math.nan, 1), (1, math.inf)])
def test_impossible_counts_are_refused(bad):
    with pytest.raises(InputError):
        poisson_interval(*bad)
    with pytest.raises(InputError):
        ratio_interval(*bad, 1, 1)
