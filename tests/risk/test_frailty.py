"""The shared-frailty model: its derivatives, its limits, published fits, and fleets whose truth is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import special

from psodlib.risk.frailty import ADVICE, Model, Prior, draw, fit_frailty, tabulate
from psodlib.simulate.process import simulate_history


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


def model_of(table, terms=(), **more):
    cells = tabulate(table, terms)
    return Model(cells, cells.known, terms, **more)


def test_the_likelihood_and_the_priors_are_the_ones_written_down():
    table = fleet(hosts=40)
    model = model_of(table, prior=Prior(0.7, 1.0), factors={"58": 2.0})
    beta, middle = np.array([-6.0, -5.2]), np.log(table["crashes"].sum() / table["host_days"].sum())
    off = beta - middle - np.log([1.0, 2.0])
    covariance = 0.49 * np.eye(2) + 100.0  # the common level integrated out
    prior = -off @ np.linalg.inv(covariance) @ off / 2 - (0.3 + np.log(0.5)) ** 2 / 2
    assert model(np.append(beta, 0.3))[0] == pytest.approx(direct(table, beta, 0.3) + prior, rel=1e-12)
    assert model.values(np.append(beta, 0.3)[None, :])[0] == pytest.approx(model(np.append(beta, 0.3))[0], rel=1e-12)


def test_gradient_and_information_are_the_derivatives():
    model = model_of(fleet(hosts=60), ("model",))
    theta = np.append(np.random.default_rng(1).normal(size=model.design.shape[1]) * 0.3 - 2, 0.4)
    _, gradient, information = model(theta)
    step = 1e-5
    for at in range(len(theta)):
        shift = np.eye(len(theta))[at] * step
        up, down = model(theta + shift), model(theta - shift)
        assert (up[0] - down[0]) / (2 * step) == pytest.approx(gradient[at], rel=1e-5, abs=1e-5)
        assert -(up[1] - down[1]) / (2 * step) == pytest.approx(information[at], rel=1e-4, abs=1e-4)


def walk(model, seed, chains=100, steps=1500, burn=500):
    """States of many random walks (Metropolis) side by side: knows nothing of modes, normals or weights but its start."""
    rng = np.random.default_rng(seed)
    best = model.mode()
    root = np.linalg.cholesky(np.linalg.inv(best.information))
    at = best.theta + rng.standard_normal((chains, len(best.theta))) @ root.T
    value, kept = model.values(at), []
    for step in range(steps):
        trial = at + 2.38 / np.sqrt(len(best.theta)) * rng.standard_normal(at.shape) @ root.T
        new = model.values(trial)
        moved = np.log(rng.random(chains)) < new - value
        at, value = np.where(moved[:, None], trial, at), np.where(moved, new, value)
        if step >= burn:
            kept.append(at)
    return np.vstack(kept)


@pytest.mark.parametrize("seed", range(10))
def test_the_draws_are_those_of_a_long_random_walk(seed):
    table = (
        simulate_history(hosts=40, days=365, clusters=8, seed=seed, driver_rate=0.15)
        .exposure()
        .astype({"crashes": float})
    )
    cells = tabulate(table, ("model",))
    versions = len(cells.levels["version"])
    found = draw(cells, [cells.known], ("model",), {}, np.full(len(cells.hosts), -1)).rate
    walked = np.exp(walk(Model(cells, cells.known, ("model",), ADVICE), seed)[:, :versions])
    for one in range(versions):
        for other in range(one):
            chances = [float(np.mean(rate[:, one] < rate[:, other])) for rate in (found, walked)]
            assert chances[0] == pytest.approx(chances[1], abs=0.03)
    assert found.mean(axis=0) == pytest.approx(walked.mean(axis=0), rel=0.12)
    for share in (0.05, 0.5, 0.95):
        logs = [np.quantile(np.log(rate), share, axis=0) for rate in (found, walked)]
        assert logs[0] == pytest.approx(logs[1], abs=0.15)


def test_a_hosts_standing_is_what_its_record_makes_expected():
    # Alike in all but crashes: a host with many stands for more than one with none; together they stand for their number.
    table = fleet(hosts=80, variance=2.0)
    cells = tabulate(table)
    by_host = np.asarray(cells.known.sum(axis=1)).ravel()
    order = np.argsort(by_host)
    now = np.full(80, -1)
    now[order[:10]], now[order[-10:]] = 0, 1
    found = draw(cells, [cells.known], (), {}, now).standing.mean(axis=0)
    assert found[0] < 5 < 20 < found[1]


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


def test_a_version_without_crashes_has_a_rate_all_the_same():
    table = fleet()
    table.loc[table["version"] == "58", "crashes"] = 0.0
    cells = tabulate(table)
    log_ratio, error = fit_frailty(cells, cells.known).log_ratio("58", "50")
    assert log_ratio + 1.96 * error < 0 and np.isfinite(log_ratio)


def test_a_term_that_goes_with_the_version_leaves_the_ratio_wide():
    plain, apart = fleet(), fleet().assign(model=lambda t: "on " + t["version"])
    fits = [fit_frailty(tabulate(t, ("model",)), tabulate(t, ("model",)).known, ("model",)) for t in (plain, apart)]
    assert fits[1].log_ratio("58", "50")[1] > 4 * fits[0].log_ratio("58", "50")[1]


def test_what_is_left_out_changes_nothing_it_had_no_time_in():
    table = fleet(seed=2)
    calm = table.head(30).assign(host=lambda t: "calm" + t["host"], version="40", crashes=0.0)
    one, other = tabulate(table), tabulate(pd.concat([table, calm]))
    keep = ~(other.cells["version"] == other.levels["version"].get_loc("40")).to_numpy()
    fits = [fit_frailty(one, one.known), fit_frailty(other, other.known, keep=keep)]
    assert fits[0].log_ratio("58", "50") == pytest.approx(fits[1].log_ratio("58", "50"), rel=1e-8)
