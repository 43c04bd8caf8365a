"""The one model of all versions: Poisson crashes with one gamma effect a host, shared by all versions the host ever loaded.

    crashes in a cell ~ Poisson(g_host * host-days * exp(beta_version + b_terms)),  g_host ~ Gamma(mean 1, variance phi)

Hosts are rolled back because they crashed. A host's later time on the other version is then informative, and every
estimator that treats hosts as alike, or a host's versions as strangers, is biased. This one conditions on what was
observed. Weak priors keep every version's rate finite, however few its crashes: no count is a border between methods.

What it needs of a fleet are sums by host and cell, in a sparse matrix and no table: a fleet of any size comes in parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse, special

from psodlib.risk.exposure import Floats, Whole, split_stretches

COMMON = 10.0  # spread of the level of log rates that all versions have in common: nearly flat
TERM = 1.0  # spread of a term's effect on the log rate
LOG_VARIANCE = math.log(0.5)  # middle of ln phi
DEFAULT_RATE = 0.2 / 365.25  # a driver crash each five host-years: the level of a fleet that has none
TAILS = 5.0  # degrees of freedom of what is drawn from: heavier tails than the posterior's, skewed by few crashes
ROUNDS, TOLERANCE = 200, 1e-12  # of the way to the mode
DRAWS = 4000
FEWEST_DRAWS = 400
BUDGET = 4e8  # products of a host's cell and a draw: what weighing the draws may cost
BATCH = 4e6  # hosts times draws that are held at once
SEED = 20140531
QUARTER_TOLD = 1 / 3  # of the host-days of the quarter with most: what the pace of a quarter takes to be told


# Column of an exposure table -> the matrix of it.
COUNTED = {"crashes": "known", "unknown_crashes": "unknown", "unplaced_crashes": "unplaced"}
MATRICES = ("days", *COUNTED.values())


@dataclass(frozen=True)
class HostCells:
    """Host-days and crashes by host and covariate cell: sparse, shape (hosts, cells).

    ``cells`` has one row a cell and one column a term, first ``version``, holding codes into ``levels[term]``.
    """

    hosts: pd.Index
    days: Any
    known: Any
    unknown: Any
    unplaced: Any
    cells: pd.DataFrame
    levels: dict[str, pd.Index]

    def by_version(self, matrix: Any) -> dict[Any, float]:
        """Sums of one of the matrices by version."""
        names, by_cell = self.levels["version"], np.asarray(matrix.sum(axis=0)).ravel()
        sums = np.bincount(self.cells["version"], by_cell, minlength=len(names))
        return dict(zip(names, sums.tolist(), strict=True))

    def grouped(self, group: Whole) -> HostCells:
        """The same with one row a group of hosts; ``group`` codes shape (hosts,)."""
        member = sparse.csr_array((np.ones(len(group)), (group, np.arange(len(group)))))
        sums = {name: member @ getattr(self, name) for name in MATRICES}
        return replace(self, hosts=pd.RangeIndex(member.shape[0]), **sums)


def tabulate(table: pd.DataFrame, terms: tuple[str, ...] = ()) -> HostCells:
    """Sum an exposure table to host-days and crashes by host and covariate cell."""
    timed = {"uptime": "uptime" in terms, "quarter": "quarter" in terms}
    if any(timed.values()):
        pieces = split_stretches(table, **timed)
    else:
        pieces = pd.DataFrame({"row": np.arange(len(table)), "host_days": table["host_days"].to_numpy(), "last": True})
    row, last = pieces["row"].to_numpy(), pieces["last"].to_numpy()
    host_code, hosts = pd.factorize(table["host"])
    cell, width, levels = np.zeros(len(row), dtype=np.int64), 1, {}
    for term in ("version", *terms):
        if term in timed:
            code, levels[term] = pd.factorize(pieces[term], sort=True)
        else:
            code, levels[term] = pd.factorize(table[term], sort=True, use_na_sentinel=False)
            code = code[row]
        cell, width = cell * len(levels[term]) + code, width * len(levels[term])
    cell, kept = pd.factorize(cell, sort=True)
    host, shape = host_code[row], (len(hosts), len(kept))
    matrices = {"days": sparse.csr_array((pieces["host_days"].to_numpy(), (host, cell)), shape=shape)}
    host, cell = host[last], cell[last]
    for name, matrix in COUNTED.items():
        counts = table[name].to_numpy(dtype=float)[row[last]] if name in table else np.zeros(len(host))
        some = np.flatnonzero(counts)
        matrices[matrix] = sparse.csr_array((counts[some], (host[some], cell[some])), shape=shape)
    return HostCells(hosts=hosts, cells=_codes(kept, levels), levels=levels, **matrices)


def joined(parts: Sequence[HostCells]) -> HostCells:
    """The sums of all parts of a fleet as those of one table; memory is 12 bytes a host and cell in which it has time."""
    if len(parts) == 1:
        return parts[0]
    levels = {}
    for term in parts[0].levels:  # in order, an unknown level last, as `pandas.factorize(sort=True)` has it
        every = parts[0].levels[term].append([part.levels[term] for part in parts[1:]]).unique()
        levels[term] = every[every.notna()].sort_values().append(every[every.isna()])
    flat = []
    for part in parts:
        codes = [levels[term].get_indexer(part.levels[term])[part.cells[term].to_numpy()] for term in levels]
        flat.append(np.ravel_multi_index(codes, [max(len(level), 1) for level in levels.values()]))
    kept = np.unique(np.concatenate(flat))

    def stacked(name: str) -> Any:
        blocks = []
        for part, at in zip(parts, flat, strict=True):
            found, shape = getattr(part, name).tocoo(), (len(part.hosts), len(kept))
            column = np.searchsorted(kept, at)[found.col]
            blocks.append(sparse.csr_array((found.data, (found.row, column)), shape=shape))
        return sparse.vstack(blocks, format="csr")

    hosts = pd.Index(np.concatenate([np.asarray(part.hosts, dtype=object) for part in parts]))
    sums = {name: stacked(name) for name in MATRICES}
    return HostCells(hosts=hosts, cells=_codes(kept, levels), levels=levels, **sums)


def _codes(kept: Whole, levels: dict[str, pd.Index]) -> pd.DataFrame:
    codes = np.unravel_index(kept, [max(len(level), 1) for level in levels.values()])
    return pd.DataFrame(dict(zip(levels, codes, strict=True)))


class Prior(NamedTuple):
    """What is held likely before any crash: how far versions differ from each other, and hosts from hosts."""

    version: float  # spread of a version's log rate round the common level
    variance: float  # spread of ln phi round ln 0.5


# Advice leans on what drivers are like; evidence should not, or it would understate large ratios (bars B5 and B6).
ADVICE, EVIDENCE = Prior(0.7, 1.0), Prior(1.5, 3.0)


class Best(NamedTuple):
    """Where the posterior is highest: (coefficients, ln a), and the information there."""

    theta: Floats
    information: Floats
    converged: bool


class Model:
    """The log-posterior of one set of events, with gradient and information.

    Notes
    -----
    With mu = exp(x beta) * host-days, M and D a host's sums of mu and crashes, a = 1 / phi: log-likelihood = sum_hosts
    [lnG(a+D) - lnG(a) + a ln a - (a+D) ln(a+M)] + sum d ln mu, and beta_v ~ N(common + ln f_v, s^2), b ~ N(0, 1),
    ln phi ~ N(ln 0.5, t^2). The common level is integrated out: it adds 10^2 to all covariances of the betas.
    """

    def __init__(
        self, cells: HostCells, events: Any, terms: Sequence[str] = (), prior: Prior = EVIDENCE,
        factors: Mapping[Any, float] | None = None, keep: Any = None,
    ) -> None:  # fmt: skip
        names = ("version", *terms)
        self.columns = [(term, level) for term in names for level in cells.levels[term]]
        codes = [cells.cells[term].to_numpy()[:, None] == np.arange(len(cells.levels[term])) for term in names]
        self.design, self.days = np.hstack(codes).astype(float), cells.days
        if keep is not None and not keep.all():
            self.design, self.days, events = self.design[keep], cells.days[:, keep], events[:, keep]
        self.transposed = self.days.T.tocsr()
        self.by_host = np.asarray(events.sum(axis=1), dtype=float).ravel()
        self.by_cell = np.asarray(events.sum(axis=0), dtype=float).ravel()
        self.counts, self.how_many = np.unique(self.by_host, return_counts=True)
        total, time = float(self.by_cell.sum()), float(self.days.sum())
        level = math.log(total / time if total else DEFAULT_RATE)
        versions, rest = len(cells.levels["version"]), len(self.columns) - len(cells.levels["version"])
        self.precision = np.diag([0.0] * versions + [TERM**-2] * rest + [prior.variance**-2])
        self.precision[:versions, :versions] = np.linalg.inv(prior.version**2 * np.eye(versions) + COMMON**2)
        named = [(factors or {}).get(name, 1.0) for name in cells.levels["version"]]
        self.centre = np.concatenate([level + np.log(named), np.zeros(rest), [-LOG_VARIANCE]])

    def __call__(self, theta: Floats) -> tuple[float, Floats, Floats]:
        """Value, gradient and information at (coefficients, ln a)."""
        a, d = math.exp(min(theta[-1], 30.0)), self.by_host
        log_rate = np.minimum(self.design @ theta[:-1], 50.0)
        rate = np.exp(log_rate)
        m = self.days @ rate
        slopes = self.days @ (rate[:, None] * self.design)  # of M by the coefficients, shape (hosts, coefficients)
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
        whole = np.block([[information, cross[:, None]], [cross[None, :], np.array([[-(a * a * by_aa + a * by_a)]])]])
        off = theta - self.centre
        pulled = np.append(gradient, a * by_a) - self.precision @ off
        return value - float(off @ self.precision @ off) / 2, pulled, whole + self.precision

    def mode(self, start: Floats | None = None) -> Best:
        """The most probable coefficients, with the information there."""
        # Newton with Levenberg damping: raised where the information is not positive definite or a step does not climb.
        theta, damping = self.centre.copy() if start is None else start, 0.0
        value, gradient, information = self(theta)
        for _ in range(ROUNDS):
            scale = max(1.0, float(np.abs(np.diag(information)).max(initial=0.0)))
            try:
                factor = np.linalg.cholesky(information + damping * scale * np.eye(len(theta)))
                step = np.linalg.solve(factor.T, np.linalg.solve(factor, gradient))
            except np.linalg.LinAlgError:
                damping = max(10 * damping, 1e-6)
                continue
            if float(gradient @ step) < TOLERANCE:
                return Best(theta, information, True)
            step *= min(1.0, 3.0 / float(np.abs(step).max()))
            trial = self(theta + step)
            if trial[0] >= value - TOLERANCE * abs(value):
                theta, (value, gradient, information) = theta + step, trial
                damping = damping / 10 if damping > 1e-8 else 0.0
            else:
                damping = max(10 * damping, 1e-6)
        return Best(theta, information, False)

    def values(self, theta: Floats, each: Callable[[int, Floats, Floats], None] | None = None) -> Floats:
        """The log-posterior of many draws, shape (draws,); ``each`` is told the hosts' weights of every batch."""
        out = np.empty(len(theta))
        batch = max(1, int(BATCH // max(len(self.by_host), 1)))
        for at in range(0, len(theta), batch):
            part = theta[at : at + batch]
            a = np.exp(part[:, -1])
            log_rate = self.design @ part[:, :-1].T
            m = self.days @ np.exp(log_rate) + a
            logs = np.log(m)
            gamma = special.gammaln(a + self.counts[:, None]) - special.gammaln(a)
            likelihood = self.how_many @ gamma + len(self.by_host) * a * np.log(a) + self.by_cell @ log_rate
            off = part - self.centre
            penalty = np.einsum("ij,jk,ik->i", off, self.precision, off) / 2
            out[at : at + batch] = likelihood - a * logs.sum(axis=0) - self.by_host @ logs - penalty
            if each is not None:
                each(at, part, (a + self.by_host[:, None]) / m)
        return out


class Fit(NamedTuple):
    """The most probable log rates per host-day, by coefficient (term, level), with their covariance."""

    columns: list[tuple[str, Any]]
    coefficients: Floats
    covariance: Floats
    variance: float  # of the host effect
    converged: bool

    def log_ratio(self, version: Any, reference: Any) -> tuple[float, float]:
        """Log rate ratio of two versions and its standard error."""
        at, other = (self.columns.index(("version", name)) for name in (version, reference))
        error = self.covariance[at, at] + self.covariance[other, other] - 2 * self.covariance[at, other]
        return float(self.coefficients[at] - self.coefficients[other]), math.sqrt(max(float(error), 0.0))

    def rates(self) -> dict[Any, float]:
        """Expected rate of each version per host-day, at the middle of all terms."""
        logs = self.coefficients + np.diag(self.covariance) / 2
        return {level: math.exp(at) for (term, level), at in zip(self.columns, logs, strict=True) if term == "version"}


def fit_frailty(
    cells: HostCells, events: Any, terms: Sequence[str] = (), keep: Any = None, near: Fit | None = None
) -> Fit:
    """The model of one set of events at its most probable point, from the cells of ``keep`` or from all.

    To start where another fit stands saves steps.
    """
    model, start = Model(cells, events, terms, EVIDENCE, keep=keep), None
    if near is not None:
        found = dict(zip(near.columns, near.coefficients, strict=True))
        coefficients = [found.get(column, at) for column, at in zip(model.columns, model.centre[:-1], strict=True)]
        start = np.array([*coefficients, -math.log(near.variance)])
    best = model.mode(start)
    covariance: Any = np.linalg.inv(best.information)[:-1, :-1]
    return Fit(model.columns, best.theta[:-1], covariance, math.exp(-best.theta[-1]), best.converged)


class Draws(NamedTuple):
    """Equally likely states of the world: ``rate`` per host-day and ``standing`` by version, shape (draws, versions).

    ``standing`` is what the hosts that now run a version would crash at rate 1, each as its own record makes it
    expected; ``sets`` are the draws of each set of events.
    """

    versions: tuple[Any, ...]
    rate: Floats
    standing: Floats
    sets: tuple[slice, ...]


def draw(
    cells: HostCells, event_sets: list[Any], terms: Sequence[str], factors: Mapping[Any, float], now: Whole
) -> Draws:
    """Draws from the posterior of each set of events in equal parts; ``now``: each host's version by code, or -1.

    Notes
    -----
    Student's t at the mode with the Hessian of the marginal likelihood, mended by importance weights that are cut at
    sqrt(n) times their mean (Ionides 2008, doi:10.1198/106186008X320456), then resampled systematically. A host's standing is
    (a + D) / (a + M) * exp(x b): its terms are its own, uptime is the fleet's mixture, the quarter the
    latest that was watched for a third as long as the one watched most: the days of a quarter just begun are no pace.
    """
    size = int(min(DRAWS, max(FEWEST_DRAWS, BUDGET / max(cells.days.nnz, 1)))) // len(event_sets)
    models = [Model(cells, events, terms, ADVICE, factors) for events in event_sets]
    own, kind = _as_they_stand(models[0], cells, terms)
    versions = tuple(cells.levels["version"])
    member, running = np.zeros((len(versions), len(now))), np.flatnonzero(now >= 0)
    member[now[running], running] = 1.0
    rates, standings, start = [], [], None
    for model in models:
        best = model.mode(start)
        start, rng = best.theta, np.random.default_rng(SEED)
        root = np.linalg.cholesky(np.linalg.inv(best.information))
        stretch = np.sqrt(TAILS / rng.chisquare(TAILS, size))
        students = rng.standard_normal((size, len(best.theta))) * stretch[:, None]
        theta = best.theta + students @ root.T
        standing = np.empty((size, len(versions)))

        def gather(at: int, part: Floats, weights: Floats, standing: Floats = standing) -> None:
            effect = np.exp(own @ part[:, :-1].T)  # shape (kinds of host, draws)
            standing[at : at + len(part)] = (member @ (weights * effect[kind])).T

        width = (TAILS + len(best.theta)) / 2
        surprise = model.values(theta, gather) + width * np.log1p(np.sum(students**2, axis=1) / TAILS)
        weight = np.exp(surprise - surprise.max())
        weight = np.minimum(weight, weight.mean() * math.sqrt(size))
        places = (np.arange(size) + rng.random()) / size
        kept = np.minimum(np.searchsorted(np.cumsum(weight) / weight.sum(), places), size - 1)
        rates.append(np.exp(theta[kept, : len(versions)]))
        standings.append(standing[kept])
    sets = tuple(slice(at * size, (at + 1) * size) for at in range(len(event_sets)))
    return Draws(versions, np.vstack(rates), np.vstack(standings), sets)


def _as_they_stand(model: Model, cells: HostCells, terms: Sequence[str]) -> tuple[Floats, Whole]:
    # Rows of the design without the version, one a kind of host, and each host's kind: terms of what a host is from its
    # last cell, the mixture of uptimes of the fleet, the latest quarter.
    own, by_cell = model.design.copy(), np.asarray(cells.days.sum(axis=0)).ravel()
    names = np.array([name for name, _ in model.columns])
    own[:, names == "version"] = 0.0
    if "uptime" in terms:
        at = names == "uptime"
        own[:, at] = by_cell @ model.design[:, at] / max(by_cell.sum(), 1e-300)
    if "quarter" in terms:
        at = names == "quarter"
        spent = by_cell @ model.design[:, at]
        told = np.where(spent >= spent.max() * QUARTER_TOLD, cells.levels["quarter"].fillna(-1), -1)
        own[:, at] = np.eye(len(told))[int(np.argmax(told))]
    kinds, of_cell = np.unique(own, axis=0, return_inverse=True)
    # The cell with most time of a host stands for what it is; a host without time has the first.
    days = cells.days.tocoo()
    rising = np.lexsort((days.data, days.row))
    most = np.zeros(days.shape[0], dtype=np.int64)
    most[days.row[rising]] = days.col[rising]  # of one host the last one written stays
    return kinds, of_cell.ravel()[most]
