"""The headline estimator: Poisson rates with one gamma effect a host, shared by all versions the host ever loaded.

Hosts are rolled back because they crashed. A host's later time on the other version is then informative, and every
estimator that treats hosts as alike, or a host's versions as strangers, is biased. This one conditions on what was
observed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse, special

from psodlib.errors import InputError
from psodlib.risk.exposure import split_stretches

__all__ = ["Fit", "HostCells", "estimable", "fit_frailty", "fit_poisson", "parameters", "tabulate"]

Floats = np.ndarray[Any, np.dtype[np.float64]]

LOG_SHAPE = (-4.0, 9.0)  # of the gamma effect; beyond the upper end it cannot be told from no effect


@dataclass(frozen=True)
class HostCells:
    """Sufficient rows: host-days and crashes by host and covariate cell.

    ``days``, ``known`` and ``unknown`` are sparse, shape (hosts, cells). ``cells`` has one row a cell and one column a
    term, first ``version``, holding codes into ``levels[term]``.
    """

    hosts: pd.Index
    days: Any
    known: Any
    unknown: Any
    cells: pd.DataFrame
    levels: dict[str, pd.Index]

    def of_version(self, version: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which cells are this version's, shape (cells,)."""
        return np.asarray(self.cells["version"] == self.levels["version"].get_loc(version))

    def only(self, versions: Sequence[str]) -> HostCells:
        """The same with the cells of these versions alone, the hosts that have time in them and the levels that are
        left."""
        timed = np.asarray(self.days.sum(axis=0)).ravel() > 0
        mine = np.flatnonzero(self.levels["version"][self.cells["version"]].isin(list(versions)) & timed)
        hosts = np.flatnonzero(np.asarray(self.days[:, mine].sum(axis=1)).ravel() > 0)
        cells = self.cells.iloc[mine].reset_index(drop=True)
        levels: dict[str, pd.Index] = {}
        for term in self.levels:
            cells[term], left = pd.factorize(cells[term], sort=True)
            levels[term] = self.levels[term][left]
        days, known, unknown = (matrix[hosts][:, mine] for matrix in (self.days, self.known, self.unknown))
        return HostCells(self.hosts[hosts], days, known, unknown, cells, levels)

    def grouped(self, group: np.ndarray[Any, np.dtype[np.int64]]) -> HostCells:
        """The same with one row a group of hosts; ``group`` codes shape (hosts,)."""
        member = sparse.csr_array((np.ones(len(group)), (group, np.arange(len(group)))))
        return HostCells(
            pd.RangeIndex(member.shape[0]),
            member @ self.days,
            member @ self.known,
            member @ self.unknown,
            self.cells,
            self.levels,
        )


def tabulate(table: pd.DataFrame, terms: tuple[str, ...] = ()) -> HostCells:
    """Sum an exposure table to host-days and crashes by host and covariate cell."""
    timed = {"uptime": "uptime" in terms, "quarter": "quarter" in terms}
    if any(timed.values()):
        pieces = split_stretches(table, **timed)
        row, days, last = pieces["row"].to_numpy(), pieces["host_days"].to_numpy(), pieces["last"].to_numpy()
    else:
        pieces = pd.DataFrame()
        row, days, last = np.arange(len(table)), table["host_days"].to_numpy(), np.ones(len(table), dtype=bool)
    host_code, hosts = pd.factorize(table["host"])
    cell, width = np.zeros(len(row), dtype=np.int64), 1
    levels = {}
    for term in ("version", *terms):
        if term in timed:
            code, levels[term] = pd.factorize(pieces[term], sort=True)
        else:
            codes, levels[term] = pd.factorize(table[term], sort=True, use_na_sentinel=False)
            code = codes[row]
        cell, width = cell * len(levels[term]) + code, width * len(levels[term])
    cell, kept = pd.factorize(cell, sort=True)
    shape, where = (len(hosts), len(kept)), (host_code[row], cell)
    matrix = sparse.csr_array((days, where), shape=shape)
    at_end = (where[0][last], where[1][last])
    known, unknown = (
        sparse.csr_array((table[name].to_numpy(dtype=float)[row[last]], at_end), shape=shape)
        for name in ("crashes", "unknown_crashes")
    )
    known.eliminate_zeros()
    unknown.eliminate_zeros()
    sizes = [len(levels[term]) for term in levels]
    codes_of_cell = np.unravel_index(kept, sizes) if len(kept) else [np.empty(0, dtype=int)] * len(sizes)
    return HostCells(hosts, matrix, known, unknown, pd.DataFrame(dict(zip(levels, codes_of_cell, strict=True))), levels)


@dataclass(frozen=True)
class Fit:
    """A fitted model of log rate per host-day.

    ``columns`` names each coefficient as (term, level). ``variance`` is that of the host effect (0 = hosts are alike).
    """

    columns: tuple[tuple[str, Any], ...]
    coefficients: Floats
    covariance: Floats
    variance: float
    log_likelihood: float
    converged: bool

    def log_ratio(self, version: str, reference: str) -> tuple[float, float]:
        """Log rate ratio of two versions and its standard error."""
        contrast = self._contrast("version", version, reference)
        return float(contrast @ self.coefficients), math.sqrt(max(float(contrast @ self.covariance @ contrast), 0.0))

    def relative(self, term: str) -> dict[Any, float]:
        """Rate at each fitted level of a term, relative to its first; levels without a crash are absent."""
        shown = {
            level: beta for (name, level), beta in zip(self.columns, self.coefficients, strict=True) if name == term
        }
        first = next(iter(shown.values()), 0.0)
        return {level: float(np.exp(beta - first)) for level, beta in shown.items()}

    def _contrast(self, term: str, level: Any, reference: Any) -> Floats:
        contrast = np.zeros(len(self.columns))
        for name, sign in ((level, 1.0), (reference, -1.0)):
            if (term, name) not in self.columns:
                raise InputError(
                    f"{term} {name} has no crash in this fit, so its ratio is unbounded; use the exact interval"
                )
            contrast[self.columns.index((term, name))] = sign
        return contrast


def estimable(cells: HostCells, events: Any, terms: tuple[str, ...], versions: Sequence[str]) -> bool:
    """True when the versions' rates can be told from the terms: no term stands and falls with a version."""
    informative = _informative(cells, events, terms)
    if not all((informative & cells.of_version(name)).any() for name in versions):
        return False
    design, columns = _design(cells, _informative(cells, events, ("version", *terms)), terms)
    at = [columns.index(("version", name)) for name in versions if ("version", name) in columns]
    contrasts = np.eye(len(columns))[at] - np.eye(len(columns))[at[:1]]
    basis = _basis(design)
    return bool(np.abs(contrasts - contrasts @ basis @ basis.T).max(initial=0.0) < 1e-8)


def parameters(cells: HostCells, terms: tuple[str, ...]) -> int:
    """How many coefficients the model with these terms has."""
    return sum(len(cells.levels[term]) for term in ("version", *terms)) - len(terms)


def fit_frailty(cells: HostCells, events: Any, terms: tuple[str, ...] = (), *, by_version: bool = True) -> Fit:
    """Maximum likelihood of the shared-gamma-frailty Poisson model.

    Notes
    -----
    With mu = exp(x beta) * host-days, M and D the sums of mu and crashes of a host, and a = 1 / variance, the
    log-likelihood is sum_hosts [lnG(a+D) - lnG(a) + a ln a - (a+D) ln(a+M)] + sum d ln mu. It holds when a roll-back
    depends only on the host's observed history. A level without any crash has rate 0 at the maximum, so its time is
    left out. Newton steps with the analytic Hessian, damped where the likelihood is not concave; the start is the
    Poisson fit and the moment estimate of the variance. Where that moment is not positive the variance is 0 and the
    Poisson fit stands.
    """
    model = _Likelihood(cells, events, terms, by_version)
    beta = model.start()
    poisson = _maximise(model.poisson, beta)
    mean = model.days @ np.exp(model.design @ poisson.theta)
    excess = float(np.sum((model.by_host - mean) ** 2 - model.by_host))
    if excess <= 0:
        return model.fit(poisson, 0.0)
    log_shape = min(max(math.log(float(np.sum(mean**2)) / excess), -2.0), 4.0)
    shared = _maximise(model.frailty, np.append(poisson.theta, log_shape))
    if shared.theta[-1] >= LOG_SHAPE[1]:
        return model.fit(poisson, 0.0)
    return model.fit(shared, math.exp(-max(float(shared.theta[-1]), LOG_SHAPE[0])))


def fit_poisson(cells: HostCells, events: Any, terms: tuple[str, ...] = ()) -> Fit:
    """Poisson regression whose covariance is robust to hosts that differ.

    Notes
    -----
    For comparison only: it repairs the variance, not the bias that roll-back after a crash brings.
    """
    model = _Likelihood(cells, events, terms, True)
    best = _maximise(model.poisson, model.start())
    rate = np.exp(model.design @ best.theta)
    scores = model.events @ model.design - model.days @ (rate[:, None] * model.design)
    bread = np.linalg.inv(best.information)
    return model.fit(best, 0.0, bread @ (scores.T @ scores) @ bread)


class _Likelihood:
    # The two log-likelihoods of one set of events, each with gradient and information. All work is on cells (few) and
    # on one sparse host x cell matrix, so that 100,000 hosts cost matrix products and no rows.
    def __init__(self, cells: HostCells, events: Any, terms: tuple[str, ...], by_version: bool) -> None:
        keep = _informative(cells, events, ("version", *terms) if by_version else terms)
        whole, self.columns = _design(cells, keep, terms, by_version)
        # Columns that repeat each other would make the information singular: fit in a basis of what they span.
        self.basis = _basis(whole)
        self.design = whole @ self.basis
        self.days = cells.days if keep.all() else cells.days[:, keep]
        self.events = events if keep.all() else events[:, keep]
        self.by_host = np.asarray(self.events.sum(axis=1), dtype=float).ravel()
        self.by_cell = np.asarray(self.events.sum(axis=0), dtype=float).ravel()
        self.days_by_cell = np.asarray(self.days.sum(axis=0), dtype=float).ravel()
        self.transposed = self.days.T.tocsr()
        self.counts, self.how_many = np.unique(self.by_host, return_counts=True)

    def start(self) -> Floats:
        # One rate for all: the constant is in the span of the version columns.
        level = np.log(self.by_cell.sum() / self.days_by_cell.sum())
        return np.asarray(np.linalg.lstsq(self.design, np.full(len(self.design), level), rcond=None)[0])

    def poisson(self, beta: Floats) -> tuple[float, Floats, Floats]:
        log_rate = np.minimum(self.design @ beta, 50.0)
        mean = np.exp(log_rate) * self.days_by_cell
        value = float(self.by_cell @ log_rate - mean.sum())
        gradient = self.design.T @ (self.by_cell - mean)
        return value, gradient, self.design.T @ (mean[:, None] * self.design)

    def frailty(self, theta: Floats) -> tuple[float, Floats, Floats]:
        beta, log_shape = theta[:-1], float(np.clip(theta[-1], *LOG_SHAPE))
        a, d = float(np.exp(log_shape)), self.by_host
        log_rate = np.minimum(self.design @ beta, 50.0)
        rate = np.exp(log_rate)
        m = self.days @ rate
        slopes = self.days @ (rate[:, None] * self.design)  # of M by beta, shape (hosts, coefficients)
        weight = (a + d) / (a + m)
        gamma = special.gammaln(a + self.counts) - special.gammaln(a)
        value = float(self.how_many @ gamma + np.sum(a * np.log(a) - (a + d) * np.log(a + m)) + self.by_cell @ log_rate)
        pull = rate * (self.transposed @ weight)
        gradient = self.design.T @ (self.by_cell - pull)
        information = self.design.T @ (pull[:, None] * self.design) - slopes.T @ ((weight / (a + m))[:, None] * slopes)
        digamma = special.digamma(a + self.counts) - special.digamma(a)
        by_a = float(self.how_many @ digamma + np.sum(np.log(a) + 1 - np.log(a + m) - weight))
        trigamma = special.polygamma(1, a + self.counts) - special.polygamma(1, a)
        bend = (m - d) / (a + m) ** 2
        by_aa = float(self.how_many @ trigamma + np.sum(1 / a - 1 / (a + m) - bend))
        cross = a * (slopes.T @ bend)
        if theta[-1] != log_shape:  # beyond the clip nothing moves with the shape
            by_a, by_aa, cross = 0.0, 0.0, np.zeros_like(cross)
        corner = np.array([[-(a * a * by_aa + a * by_a)]])
        whole = np.block([[information, cross[:, None]], [cross[None, :], corner]])
        return value, np.append(gradient, a * by_a), whole

    def fit(self, best: _Best, variance: float, covariance: Floats | None = None) -> Fit:
        size = self.design.shape[1]
        within = np.linalg.pinv(best.information, hermitian=True)[:size, :size] if covariance is None else covariance
        return Fit(
            tuple(self.columns), self.basis @ best.theta[:size], self.basis @ within @ self.basis.T, variance,
            best.value, best.converged,
        )  # fmt: skip


@dataclass(frozen=True)
class _Best:
    theta: Floats
    value: float
    information: Floats
    converged: bool


def _maximise(evaluate: Any, theta: Floats, tolerance: float = 1e-12, rounds: int = 200) -> _Best:
    # Newton with Levenberg damping: raised where the information is not positive definite or a step does not climb.
    value, gradient, information = evaluate(theta)
    damping = 0.0
    for _ in range(rounds):
        scale = max(1.0, float(np.abs(np.diag(information)).max(initial=0.0)))
        try:
            factor = np.linalg.cholesky(information + damping * scale * np.eye(len(theta)))
            step = np.linalg.solve(factor.T, np.linalg.solve(factor, gradient))
        except np.linalg.LinAlgError:
            damping = max(10 * damping, 1e-6)
            continue
        if float(gradient @ step) < tolerance:
            return _Best(theta, value, information, True)
        step *= min(1.0, 3.0 / float(np.abs(step).max()))
        trial = evaluate(theta + step)
        if trial[0] >= value - 1e-12 * abs(value):
            theta, (value, gradient, information), damping = (
                theta + step,
                trial,
                damping / 10 if damping > 1e-8 else 0.0,
            )
        else:
            damping = max(10 * damping, 1e-6)
    return _Best(theta, value, information, False)


def _informative(cells: HostCells, events: Any, terms: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    # Cells whose every level has a crash somewhere. A level without one has rate 0 at the maximum and tells nothing
    # more.
    by_cell = np.asarray(events.sum(axis=0), dtype=float).ravel()
    keep = np.ones(len(by_cell), dtype=bool)
    for term in terms:
        code = cells.cells[term].to_numpy()
        keep &= (np.bincount(code, weights=by_cell, minlength=len(cells.levels[term])) > 0)[code]
    return keep


def _design(
    cells: HostCells, keep: np.ndarray[Any, np.dtype[np.bool_]], terms: tuple[str, ...], by_version: bool = True
) -> tuple[Floats, list[tuple[str, Any]]]:
    # One column a version, one a level of each term; `_basis` takes care of what they share. Both likelihoods leave out
    # the constants sum d ln(host-days) and ln d!, so their values compare.
    blocks, columns = [np.empty((int(keep.sum()), 0))], []
    for term in ("version", *terms) if by_version else terms:
        code = cells.cells[term].to_numpy()[keep]
        present = np.unique(code)
        blocks.append((code[:, None] == present[None, :]).astype(float))
        columns += [(term, cells.levels[term][level]) for level in present]
    if not by_version:
        blocks.append(np.ones((int(keep.sum()), 1)))
        columns.append(("all", "all"))
    return np.hstack(blocks), columns


def _basis(design: Floats) -> Floats:
    # Orthonormal basis of the row space, shape (columns, rank).
    values, vectors = np.linalg.eigh(design.T @ design)
    return np.asarray(vectors[:, values > 1e-9 * max(float(values.max(initial=0.0)), 1.0)])
