"""The shared-frailty model: its derivatives, its limits, published fits, and fleets whose truth is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import special

from psodlib.errors import InputError
from psodlib.risk.frailty import _Likelihood, estimable, fit_frailty, fit_poisson, tabulate

# Doll & Hill, British doctors: deaths and person-years of smokers and others by age
DOCTORS = pd.DataFrame({
    "host": [f"cell{n}" for n in range(10)],
    "version": ["smoke"] * 5 + ["none"] * 5,
    "model": ["35-44", "45-54", "55-64", "65-74", "75-84"] * 2,
    "host_days": [52407.0, 43248, 28612, 12663, 5317, 18790, 10673, 5710, 2585, 1462],
    "crashes": [32.0, 104, 206, 186, 102, 2, 12, 28, 28, 31],
    "unknown_crashes": 0.0,
})  # fmt: skip


def fleet(seed=0, hosts=300, variance=1.0, ratio=3.0):
    # Half of each host's time on either version, hosts of three models.
    rng = np.random.default_rng(seed)
    effect = rng.gamma(1 / variance, variance, hosts) if variance else np.ones(hosts)
    rows = []
    for version, times in (("50", 1.0), ("58", ratio)):
        days = rng.uniform(100, 400, hosts)
        rows.append(pd.DataFrame({
            "host": [f"h{n}" for n in range(hosts)], "version": version, "model": np.arange(hosts) % 3, "host_days": days,
            "crashes": rng.poisson(effect * times * 0.002 * days).astype(float), "unknown_crashes": 0.0,
        }))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def direct(table, beta, log_shape):
    # The log-likelihood written down host by host, as in the docstring; sum d ln(host-days) left out.
    a, total = np.exp(log_shape), 0.0
    for _, rows in table.groupby("host"):
        log_rate = rows["version"].map(dict(zip(("50", "58"), beta, strict=True)))
        m, d = float((np.exp(log_rate) * rows["host_days"]).sum()), float(rows["crashes"].sum())
        total += special.gammaln(a + d) - special.gammaln(a) + a * np.log(a) - (a + d) * np.log(a + m)
        total += float((rows["crashes"] * log_rate).sum())
    return total


def model_of(table, terms=()):
    cells = tabulate(table, terms)
    return _Likelihood(cells, cells.known, terms, True)


def test_the_likelihood_is_the_one_written_down():
    table = fleet(hosts=40)
    model = model_of(table)
    beta = np.array([-6.0, -5.2])
    theta = np.append(model.basis.T @ beta, 0.3)
    assert model.frailty(theta)[0] == pytest.approx(direct(table, beta, 0.3), rel=1e-12)


@pytest.mark.parametrize("kind", ["poisson", "frailty"])
def test_gradient_and_information_are_the_derivatives(kind):
    model = model_of(fleet(hosts=60), ("model",))
    evaluate = getattr(model, kind)
    theta = np.random.default_rng(1).normal(size=model.design.shape[1]) * 0.3 - 2
    theta = np.append(theta, 0.4) if kind == "frailty" else theta
    _, gradient, information = evaluate(theta)
    step = 1e-5
    for at in range(len(theta)):
        shift = np.eye(len(theta))[at] * step
        up, down = evaluate(theta + shift), evaluate(theta - shift)
        assert (up[0] - down[0]) / (2 * step) == pytest.approx(gradient[at], rel=1e-5, abs=1e-5)
        assert -(up[1] - down[1]) / (2 * step) == pytest.approx(information[at], rel=1e-4, abs=1e-4)


def test_british_doctors_against_r():
    # R: glm(deaths ~ age + smoke + offset(log(py)), poisson): smoke 0.3545356, s.e. 0.1073740
    cells = tabulate(DOCTORS, ("model",)).grouped(np.arange(10))
    fit = fit_frailty(cells, cells.known, ("model",))
    if fit.variance == 0:
        assert fit.log_ratio("smoke", "none") == pytest.approx((0.354535637252076, 0.107374043893496), abs=1e-6)
    assert fit_poisson(cells, cells.known, ("model",)).log_ratio("smoke", "none")[0] == pytest.approx(
        0.3545356, abs=1e-6
    )


def test_hosts_that_do_not_differ_give_variance_zero_and_the_poisson_fit():
    table = pd.DataFrame({
        "host": list("abcd") * 2, "version": ["50"] * 4 + ["58"] * 4, "host_days": 100.0,
        "crashes": [2.0, 3, 2, 3, 6, 7, 6, 7], "unknown_crashes": 0.0,
    })  # fmt: skip
    cells = tabulate(table)
    fit = fit_frailty(cells, cells.known)
    assert fit.variance == 0 and fit.converged
    assert fit.log_ratio("58", "50") == pytest.approx((np.log(2.6), np.sqrt(1 / 26 + 1 / 10)), rel=1e-7)


def test_robust_errors_are_the_sandwich_by_hand():
    # Without terms, log RR of sums; the score of a host is d - rate * T in each arm.
    table = fleet(seed=3, hosts=50)
    cells = tabulate(table)
    arms = {name: rows.set_index("host") for name, rows in table.groupby("version")}
    scores = {
        name: rows["crashes"] - rows["crashes"].sum() / rows["host_days"].sum() * rows["host_days"]
        for name, rows in arms.items()
    }
    influence = scores["58"] / arms["58"]["crashes"].sum() - scores["50"] / arms["50"]["crashes"].sum()
    assert fit_poisson(cells, cells.known).log_ratio("58", "50")[1] == pytest.approx(
        np.sqrt((influence**2).sum()), rel=1e-8
    )


@pytest.mark.parametrize("variance", [0.5, 2.0])
def test_truth_is_found(variance):
    found = []
    for seed in range(20):
        cells = tabulate(fleet(seed, variance=variance), ("model",))
        fit = fit_frailty(cells, cells.known, ("model",))
        found.append((*fit.log_ratio("58", "50"), fit.variance))
    log_ratio, error, phi = np.mean(found, axis=0)
    assert log_ratio == pytest.approx(np.log(3), abs=3 * error / np.sqrt(20))
    assert phi == pytest.approx(variance, rel=0.2)


def test_a_level_without_crashes_is_left_out_and_changes_nothing():
    table = fleet(seed=2)
    calm = table.head(30).assign(host="calm", model="never crashed", crashes=0.0)
    one, other = (tabulate(t.astype({"model": str}), ("model",)) for t in (table, pd.concat([table, calm])))
    fits = [fit_frailty(cells, cells.known, ("model",)) for cells in (one, other)]
    assert fits[0].log_ratio("58", "50") == pytest.approx(fits[1].log_ratio("58", "50"), rel=1e-6)


def test_a_term_that_goes_with_the_version_is_seen():
    table = fleet().assign(model=lambda t: "on " + t["version"])
    cells = tabulate(table, ("model",))
    assert not estimable(cells, cells.known, ("model",), ("58", "50"))
    assert estimable(cells, cells.known, (), ("58", "50"))


def test_repeated_terms_do_no_harm():
    table = fleet().assign(cluster=lambda t: t["model"].astype(str))
    one, other = tabulate(table, ("model",)), tabulate(table, ("model", "cluster"))
    fits = [fit_frailty(one, one.known, ("model",)), fit_frailty(other, other.known, ("model", "cluster"))]
    assert fits[0].log_ratio("58", "50") == pytest.approx(fits[1].log_ratio("58", "50"), rel=1e-6)


def test_a_version_without_crashes_has_no_ratio_here():
    table = fleet()
    table.loc[table["version"] == "58", "crashes"] = 0.0
    cells = tabulate(table)
    with pytest.raises(InputError, match="unbounded"):
        fit_frailty(cells, cells.known).log_ratio("58", "50")


def test_the_likelihood_ratio_of_equal_versions_is_small():
    cells = tabulate(fleet(ratio=1.0, variance=0.5))
    full, null = (fit_frailty(cells, cells.known, by_version=kind).log_likelihood for kind in (True, False))
    assert 0 <= full - null < 4
    cells = tabulate(fleet(ratio=3.0, variance=0.5))
    full, null = (fit_frailty(cells, cells.known, by_version=kind).log_likelihood for kind in (True, False))
    assert full - null > 20
