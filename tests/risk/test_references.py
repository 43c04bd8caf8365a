"""Every record of the reference folder has a method here that meets it, or a reason why there is none.

The one- and two-sample rates are in ``test_exact.py``, the curves in ``test_survival.py``; the rest is here.
"""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from psodlib.risk.canary import HARM, e_process, sprt_lines, zero_crash_host_days
from psodlib.risk.exact import holm, mantel_haenszel, p_lower, poisson_upper, ratio_p
from psodlib.risk.frailty import Model, Prior, tabulate
from psodlib.risk.rates import DAYS_PER_YEAR, crash_rates
from psodlib.risk.survival import survival_table, weibull

STAT_REFS = Path(__file__).resolve().parents[3] / "shared" / "stat-refs"

# File, or record, for which there is no method here, and why that is right.
NO_METHOD = {
    "changepoint": "a date found in the crashes invites a story; the roll-out's own dates are in the data",
    "sccs": "its key assumption fails: exposure here depends on the outcome (a crash brings the roll-back)",
    "regression": "rows taken as independent are biased by roll-back; one effect a host instead (frailty.py)",
    "expected_loss_g1": "advice follows expected crashes avoided by all hosts, not the loss of one pair (decision.py)",
    "freireich_logrank": "a ratio with its interval says more than a p-value of two curves",
    "freireich_cox_breslow": "needs frailty and changing covariates; Poisson with uptime bands is the same model",
    "freireich_cox_efron": "see freireich_cox_breslow",
    "freireich_cox_exact": "see freireich_cox_breslow",
    "maxsprt_T1": "the e-process needs no expected count fixed beforehand",
    "maxsprt_T2": "see maxsprt_T1",
    "maxsprt_T5": "see maxsprt_T1",
    "maxsprt_T20": "see maxsprt_T1",
}
ELSEWHERE = ("rates_one_sample", "rates_two_sample", "competing")  # test_exact.py, test_survival.py


def records():
    files = sorted(STAT_REFS.glob("*.json")) if STAT_REFS.is_dir() else []
    found = [(file.stem, record) for file in files for record in json.loads(file.read_text())]
    return [pytest.param(stem, record, id=f"{stem}-{record['name']}") for stem, record in found]


def bayes(given):
    one, other = (given["shapeA"], given["rateA"]), (given["shapeB"], given["rateB"])
    return {"p_A_less_B": p_lower(*one, *other)}


def stratified(given):
    if "p" in given:
        return {"holm": holm(given["p"]).tolist()}
    counts = (given["d1"], given["t1"], given["d0"], given["t0"])
    pooled = mantel_haenszel(*counts)
    smoke, error = poisson_fit(given)
    return {
        "mh_rr": pooled.ratio, "lower": pooled.low, "upper": pooled.high,
        "rr": math.exp(smoke), "beta_smoke": smoke, "se": error,
    }  # fmt: skip


def poisson_fit(given):
    """Log ratio and error of the one model with its priors flat and all hosts alike: a Poisson regression."""
    size = len(given["stratum"])
    table = pd.DataFrame({
        "host": [f"cell{n}" for n in range(2 * size)], "version": ["smoke"] * size + ["none"] * size,
        "model": [*given["stratum"]] * 2, "host_days": [*map(float, (*given["t1"], *given["t0"]))],
        "crashes": [*map(float, (*given["d1"], *given["d0"]))],
    })  # fmt: skip
    cells = tabulate(table, ("model",))
    model = Model(cells, cells.known, ("model",), Prior(1e4, 1.0))
    terms = slice(2, 2 + size)
    model.precision[terms, terms] *= 1e-8
    model.centre[-1], model.precision[-1, -1] = 25.0, 1e8
    best = model.mode()
    none, smoke = (model.columns.index(("version", name)) for name in ("none", "smoke"))
    covariance = np.linalg.inv(best.information)
    error = covariance[smoke, smoke] + covariance[none, none] - 2 * covariance[none, smoke]
    return float(best.theta[smoke] - best.theta[none]), math.sqrt(error)


def seed(given):
    if "crashes58" in given:
        # With no crash on .50 in D days, p = T / (T + D): one-sided .05 at 19 T, .025 at 39 T.
        days = given["host_days58"]
        p = [ratio_p(0, days * k, 1, days, alternative="smaller", method="clopper_pearson") for k in (19, 39)]
        assert p == pytest.approx([0.05, 0.025])
        return {"days_p05": 19 * days, "days_p025": 39 * days}
    if "target_per_host_year" in given:
        return {"host_days": zero_crash_host_days(given["target_per_host_year"] / DAYS_PER_YEAR)}
    table = pd.DataFrame({"host": ["a"], "version": ["v"], **{k: [given[k]] for k in ("crashes", "host_days")}})
    rate = crash_rates(table).iloc[0] * DAYS_PER_YEAR
    return {
        "rate_per_host_year": rate["rate"],
        "garwood_per_host_year": [rate["low"], rate["high"]],
        # Watching stopped at the crash: chi2(2 n) instead of chi2(2 n + 2).
        "failure_terminated_upper_per_host_year": poisson_upper(given["crashes"] - 1, given["host_days"], 0.025)
        * DAYS_PER_YEAR,
    }


def sequential(given):
    if "p0" in given:
        return {"E": expectation(given["p0"])}
    if "failures" in given:
        lines = sprt_lines(1 / given["d"], 1.0, given["failures"], alpha=given["alpha"], beta=given["beta"])
        return {"accept_T_over_theta1": lines.loc[given["failures"], "accept_host_days"]}
    rates = (given["lam0_per_host_year"] / DAYS_PER_YEAR, given["lam1_per_host_year"] / DAYS_PER_YEAR)
    lines = sprt_lines(*rates, 6, alpha=given["alpha"], beta=given["beta"])
    reject = lines["reject_host_days"].dropna()
    return {
        "accept_host_days": lines["accept_host_days"].iloc[:5].tolist(),
        "reject_if_reached_before_host_days": {str(k): days for k, days in reject.items()},
    }


def expectation(shares):
    assert len(HARM) == 25
    total = 0.0
    for code in range(2 ** len(shares)):
        hits = np.array([code >> n & 1 for n in range(len(shares))])
        chance = math.prod(p if hit else 1 - p for p, hit in zip(shares, hits, strict=True))
        total += chance * e_process(hits, shares, 1 - hits, 1 - np.array(shares))[-1]
    return total


def survival(given):
    if "condition_on_age_months" in given:
        found = survival_table(given["exit"], given["event"], given["entry"], start=given["condition_on_age_months"])
        return {"surv": found, "n_risk": None}
    shape, _, _, scale = weibull(given["time"], np.array(given["event"], dtype=bool))
    curve = survival_table(given["time"], given["event"])
    return {"shape": shape, "scale": scale, "surv": curve, "se_greenwood": curve, "n_risk": curve}


COLUMN = {"surv": "survival", "se_greenwood": "error", "n_risk": "at_risk"}
METHODS = {"bayes": bayes, "stratified": stratified, "seed": seed, "sequential": sequential, "survival": survival}
# What a record holds beside what its method gives: goodness of fit.
BESIDE = {"deviance", "pearson", "loglik"}


@pytest.mark.parametrize(("file", "record"), records())
def test_each_record_has_a_method_or_a_reason(file, record):
    if file in ELSEWHERE:
        return
    if file in NO_METHOD or record["name"] in NO_METHOD:
        assert NO_METHOD.get(file) or NO_METHOD[record["name"]]
        return
    expected = record["expected"]
    found = METHODS[file](record["inputs"])
    checked = 0
    for name, value in expected.items():
        got = found.get(name)
        if name in BESIDE or name == "time" or got is None:
            continue
        if isinstance(got, pd.DataFrame):
            got = [float(got.loc[got["days"] <= day, COLUMN[name]].iloc[-1]) for day in expected["time"]]
        if isinstance(value, dict):
            got, value = [got[key] for key in value], list(value.values())
        assert got == pytest.approx(value, abs=float(record["tolerance"]), rel=0), name
        checked += 1
    assert checked, f"nothing of {record['name']} was checked"


def test_the_reference_folder_is_at_hand():
    if not STAT_REFS.is_dir():
        pytest.skip("the reference folder ../shared is not at hand")
    assert len(records()) >= 60
