"""One exposure table, tabulated once, and the models by which any two of its versions are compared.

A fit tells the rates of all versions together, so several contrasts of one table share their fits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from psodlib.errors import InputError
from psodlib.risk import cautions, exact
from psodlib.risk.exact import Interval
from psodlib.risk.exposure import check_exposure
from psodlib.risk.frailty import Fit, HostCells, estimable, fit_frailty, fit_poisson, parameters, tabulate
from psodlib.risk.posterior import Draws, draw
from psodlib.risk.stratified import Strata

__all__ = ["ADJUST", "FEW_CRASHES", "Arms", "Comparison", "Headline"]

ADJUST = ("model", "uptime", "quarter")
TERMS = ("model", "esxi_build", "cluster", "uptime", "quarter")
FEW_CRASHES = 5  # below this in either arm a likelihood has no maximum worth its standard error: exact instead
CRASHES_PER_PARAMETER = 3  # a model with more parameters than this allows is not fitted
# What few crashes are not stratified by: a roll-out gives each version quarters and uptimes of its own, so within them next to
# nothing is left to compare, and more host-days could never mend it. A model uses what overlap there is.
OF_TIME = ("uptime", "quarter")
INFORMATION = 0.5  # share that must be left within the strata of a term, for counts too few to be modelled
LEMONS = 0.2  # variance of the host effect beyond which hosts are said to differ


@dataclass(frozen=True)
class Arms:
    """Sums of two versions; every pair is (version, reference)."""

    version: str
    reference: str
    known: tuple[float, float]
    unknown: tuple[float, float]
    days: tuple[float, float]
    hosts: tuple[int, int]

    def pairs(self, counts: tuple[float, float]) -> tuple[float, float, float, float]:
        """Counts and host-days in the order that ``exact`` asks for."""
        return counts[0], self.days[0], counts[1], self.days[1]


@dataclass(frozen=True)
class Headline:
    """What the headline of one contrast rests on; without ``fit`` it is exact, from counts within strata of ``terms``."""

    arms: Arms
    known: Interval
    with_unknown: Interval
    p_value: float
    terms: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()  # a word on each term that was asked for and is not in the model
    fit: Fit | None = None  # of the known crashes
    # So many host-days of the reference's mixture of strata is one of the version's worth (exact interval only).
    comparable: float = 1.0

    @property
    def interval(self) -> Interval:
        """The union of both intervals, at the ratio of the known crashes."""
        return Interval(
            self.known.ratio, min(self.known.low, self.with_unknown.low), max(self.known.high, self.with_unknown.high)
        )


class Comparison:
    """An exposure table with its sufficient rows, and every model fitted to them so far."""

    def __init__(self, exposure: pd.DataFrame, adjust: str | Sequence[str] = ADJUST) -> None:
        self.attrs = dict(getattr(exposure, "attrs", {}))
        self.table, self.lost = _known_versions(exposure)
        # Groups of names are asked for a dozen times: numbers in their place, once.
        names = [name for name in ("host", "version", "model", "cluster") if name in self.table]
        self.table = self.table.astype(dict.fromkeys(names, "category"))
        self.terms, self.absent = _present(self.table, adjust)
        self.cells = tabulate(self.table, self.terms)
        self._fits: dict[tuple[str | None, tuple[str, ...]], Fit] = {}

    def watched(self) -> list[Any]:
        """The versions that have host-days, in order."""
        timed = np.asarray(self.cells.days[:, :].sum(axis=0)).ravel() > 0
        codes = np.unique(self.cells.cells["version"].to_numpy()[timed])
        return list(self.cells.levels["version"][codes])

    def crashes(self, versions: Sequence[Any]) -> list[float]:
        """Crashes known to be the driver's, by version."""
        by_cell = np.asarray(self.cells.known.sum(axis=0)).ravel()
        return [float(by_cell[self.cells.of_version(name)].sum()) for name in versions]

    def running(self) -> pd.DataFrame:
        """``host``, ``version`` and ``cluster`` of each host's last stretch, one row a host."""
        rows = self.table.sort_values("end", kind="stable") if "end" in self.table else self.table
        last = rows.groupby("host", observed=True, sort=True).tail(1)
        cluster = last["cluster"] if "cluster" in last else pd.Series(pd.NA, index=last.index, dtype="string")
        out = pd.DataFrame({"host": last["host"], "version": last["version"], "cluster": cluster}).astype(object)
        return out.sort_values("host", ignore_index=True)

    def draws(self, factors: dict[Any, float], running: pd.DataFrame) -> Draws:
        """The posterior of all versions' rates, with what the hosts that run each would crash at rate 1."""
        of_host = running.set_index("host")["version"].reindex(pd.Index(self.cells.hosts.astype(object)))
        now = self.cells.levels["version"].astype(object).get_indexer(pd.Index(of_host.astype(object)))
        sets = [self.cells.known]
        if self.cells.unknown.sum():
            sets.append((self.cells.known + self.cells.unknown).tocsr())
        return draw(self.cells, sets, self.terms, factors, now)

    def told_apart(self, version: str, other: str) -> str:
        """Why two versions cannot be told from the hardware or the time they ran on; empty where they can."""
        ran = self.table[self.table["version"].isin([version, other])]
        for column, words in (("model", "ran on different hardware"), ("start", "ran at different times")):
            if column not in ran or ran[column].isna().all():
                continue
            level = ran[column] if column == "model" else ran["start"].dt.year * 12 + ran["start"].dt.month
            days = (
                ran["host_days"]
                .groupby([level, ran["version"].astype(object)], observed=True)
                .sum()
                .unstack(fill_value=0)
            )
            shared = float((days / days.sum()).min(axis=1).sum())
            if shared < cautions.OVERLAP:
                return f"{version} and {other} {words} (they share {100 * shared:.0f} %), so the one cannot be told from the other"
        return ""

    def arms(self, version: str, reference: str) -> Arms:
        """Crashes, host-days and hosts of two versions."""
        at_risk = self.table[self.table["host_days"] > 0]
        hosts = at_risk.groupby("version")["host"].nunique()
        for name in (version, reference):
            if name not in hosts.index:
                seen = ", ".join(sorted(map(str, hosts.index))) or "no version"
                raise InputError(f"no host-days with {name} loaded; the table has {seen}")
        if version == reference:
            raise InputError(f"version and reference are both {version}; give two versions")
        cells = self.cells

        def pair(matrix: Any) -> tuple[float, float]:
            by_cell = np.asarray(matrix.sum(axis=0)).ravel()
            return float(by_cell[cells.of_version(version)].sum()), float(by_cell[cells.of_version(reference)].sum())

        both = int(hosts[version]), int(hosts[reference])
        return Arms(version, reference, pair(cells.known), pair(cells.unknown), pair(cells.days), both)

    def headline(self, version: str, reference: str, alpha: float = 0.05) -> Headline:
        """The union interval of one contrast and what it rests on: all that the verdict needs, without the rows beside
        it."""
        arms = self.arms(version, reference)
        if min(arms.known) < FEW_CRASHES:
            return self._by_counts(arms, alpha)
        terms, left_out = _affordable(self.cells, self.terms, (version, reference))
        fit = self.fit(terms)
        known, p = _interval(fit, version, reference, alpha)
        if self.cells.unknown.sum() == 0:
            return Headline(arms, known, known, p, terms, tuple(left_out), fit)
        whole, p_whole = _interval(self.fit(terms, "all"), version, reference, alpha)
        p = _agreed(max(p, p_whole), known, whole)
        return Headline(arms, known, whole, p, terms, tuple(left_out), fit)

    def _by_counts(self, arms: Arms, alpha: float) -> Headline:
        terms: tuple[str, ...] = ()
        left_out = []
        whole = self._strata(arms, terms).information()
        for term in self.terms:
            if term in OF_TIME:
                left_out.append(f"not adjusted for {term}: too few crashes; of time only a model can tell")
            elif self._strata(arms, (*terms, term)).information() >= INFORMATION * whole:
                terms = (*terms, term)
            else:
                left_out.append(f"not adjusted for {term}: within its levels too few crashes can be compared")
        known, both = self._strata(arms, terms), self._strata(arms, terms, unknown="all")
        intervals = known.interval(alpha), both.interval(alpha)
        p = _agreed(max(known.p_value(), both.p_value()), *intervals)
        mine, others = both.expected()
        comparable = mine / others * arms.days[1] / arms.days[0] if mine and others else 1.0
        return Headline(arms, *intervals, p, terms, tuple(left_out), comparable=comparable)

    def _strata(self, arms: Arms, terms: tuple[str, ...], unknown: str | None = None) -> Strata:
        # Sums of both arms within the levels of the terms; the unknown crashes of a version, or of "all", are added.
        cells = self.cells
        code = np.zeros(len(cells.cells), dtype=np.int64)
        for term in terms:
            code = code * len(cells.levels[term]) + cells.cells[term].to_numpy()
        _, code = np.unique(code, return_inverse=True)
        out: list[Any] = []
        for name in (arms.version, arms.reference):
            mine = cells.of_version(name)
            events = cells.known + cells.unknown if unknown in ("all", name) else cells.known
            for matrix in (events, cells.days):
                sums = np.asarray(matrix.sum(axis=0)).ravel()[mine]
                out.append(np.bincount(code[mine], weights=sums, minlength=int(code.max(initial=0)) + 1))
        return Strata.of(*out)

    def fit(self, terms: tuple[str, ...], unknown: str | None = None) -> Fit:
        """The frailty model of the known crashes, with the unknown ones of a version ("all": of every one) added."""
        if (unknown, terms) not in self._fits:
            events = self.cells.known
            if unknown == "all":
                events = events + self.cells.unknown
            elif unknown is not None:
                events = events + self.cells.unknown.multiply(self.cells.of_version(unknown)[None, :].astype(float))
            self._fits[unknown, terms] = fit_frailty(self.cells, events.tocsr(), terms)
        return self._fits[unknown, terms]

    def effect(self, versions: Sequence[str]) -> float:
        """p-value of "none of these versions differs from another": the likelihood-ratio test of the frailty model."""
        cells = self.cells.only(versions)
        absent = [name for name in versions if name not in cells.levels["version"]]
        if absent:
            raise InputError(f"no host-days with {absent[0]} loaded; leave it out of the comparison")
        if cells.known.sum() == 0:
            return 1.0
        terms, _ = _affordable(cells, self.terms, tuple(versions))
        full, null = (fit_frailty(cells, cells.known, terms, by_version=kind) for kind in (True, False))
        gain = 2 * (full.log_likelihood - null.log_likelihood)
        return float(special.chdtrc(len(cells.levels["version"]) - 1, max(gain, 0.0)))

    def adversarial(self, found: Headline, alpha: float = 0.05) -> Interval:
        """The span of the intervals with every unexplained crash laid on one version and then on the other."""
        arms, known = found.arms, found.known
        if found.fit is None:
            extremes = [
                self._strata(arms, found.terms, unknown=name).interval(alpha) for name in (arms.version, arms.reference)
            ]
        elif self.cells.unknown.sum() == 0:
            extremes = [known]
        else:
            pair = arms.version, arms.reference
            extremes = [_interval(self.fit(found.terms, name), *pair, alpha)[0] for name in pair]
        return Interval(known.ratio, min(each.low for each in extremes), max(each.high for each in extremes))

    def moved_by(self, found: Headline, term: str) -> float:
        """By what share adjusting for one term of the model moves the ratio; 0 where it is no term of it."""
        if found.fit is None or term not in found.terms:
            return 0.0
        without = self.fit(tuple(other for other in found.terms if other != term))
        pair = found.arms.version, found.arms.reference
        return math.expm1(found.fit.log_ratio(*pair)[0] - without.log_ratio(*pair)[0])

    def notes(self, found: Headline) -> list[str]:
        """What the model itself tells the reader to look at, and what was left out of it."""
        if found.fit is None:
            one, other = found.arms.known
            within = f"within strata of {' and '.join(found.terms)}" if found.terms else "and nothing is adjusted for"
            few = f"{one:.0f} and {other:.0f} crashes: under {FEW_CRASHES} in an arm, so the exact interval is used"
            return [f"{few} {within}", *self.absent, *found.left_out]
        notes = []
        if not found.fit.converged:
            notes.append("the frailty fit did not converge; trust the exact interval more")
        if found.fit.variance > LEMONS:
            differ = f"hosts differ beyond chance (variance of the host effect {found.fit.variance:.2g})"
            notes.append(f"{differ}: some crash more often than others on any version")
        for term in ("uptime", "quarter"):
            moved = self.moved_by(found, term)
            if abs(moved) > cautions.CONFOUNDED:
                notes.append(f"adjusting for {term} moves the ratio by {100 * moved:+.0f} %: it is a confounder here")
        return [*notes, *self.absent, *found.left_out]

    def sensitivity(self, found: Headline, alpha: float = 0.05) -> list[tuple[str, Interval]]:
        """Other estimators of the same ratio, for show beside it."""
        if found.fit is None:
            if not found.terms:
                return []
            guaranteed = self._strata(found.arms, found.terms).interval(alpha, "clopper_pearson")
            return [("stratified, Clopper-Pearson", guaranteed)]
        pair = found.arms.version, found.arms.reference
        robust = fit_poisson(self.cells, self.cells.known, found.terms)
        rows = [("Poisson, robust by host", _interval(robust, *pair, alpha)[0])]
        cluster = _clusters(self.table, self.cells)
        if cluster is not None:
            grouped = self.cells.grouped(cluster)
            shared = fit_frailty(grouped, grouped.known, found.terms)
            rows.append(("frailty shared by cluster", _interval(shared, *pair, alpha)[0]))
        return rows


def _known_versions(exposure: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    # Rows whose version is known, and a word on those where it is not.
    table = check_exposure(exposure)
    known = table["version"].notna()
    lost = table[~known]
    if lost.empty:
        return table, []
    days, crashes = lost["host_days"].sum(), lost["crashes"].sum()
    return table[known], [
        f"{days:,.0f} host-days with {crashes:.0f} crashes are left out: it is not known which version those boots had "
        "loaded"
    ]


def _present(table: pd.DataFrame, adjust: str | Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    # The terms that the table can feed, and a word on each that it cannot.
    adjust = (adjust,) if isinstance(adjust, str) else tuple(dict.fromkeys(adjust or ()))
    strange = [term for term in adjust if term not in TERMS]
    if strange:
        raise InputError(f"cannot adjust for {strange[0]}; choose from {', '.join(TERMS)}")
    terms, notes = [], []
    for term in adjust:
        needed = {"uptime": ["start", "end", "uptime_start"], "quarter": ["start", "end", "uptime_start"]}.get(
            term, [term]
        )
        if any(column not in table or table[column].isna().all() for column in needed):
            notes.append(f"not adjusted for {term}: the table does not hold it")
        elif needed == [term] and table[term].nunique(dropna=False) < 2:
            notes.append(f"not adjusted for {term}: it is the same everywhere")
        else:
            terms.append(term)
    return tuple(terms), notes


def _affordable(
    cells: HostCells, terms: tuple[str, ...], versions: tuple[str, ...]
) -> tuple[tuple[str, ...], list[str]]:
    # Terms that can be told from the versions and that the number of crashes can carry.
    kept: tuple[str, ...] = ()
    notes = []
    crashes = float(cells.known.sum())
    for term in terms:
        more = (*kept, term)
        if len(cells.levels[term]) < 2:
            notes.append(f"not adjusted for {term}: it is the same everywhere")
        elif parameters(cells, more) * CRASHES_PER_PARAMETER > crashes:
            notes.append(
                f"not adjusted for {term}: {crashes:.0f} crashes are too few for its {len(cells.levels[term])} levels"
            )
        elif not estimable(cells, cells.known, more, versions):
            notes.append(f"not adjusted for {term}: it changes with the version, so the two cannot be told apart")
        else:
            kept = more
    return kept, notes


def _agreed(p: float, known: Interval, whole: Interval) -> float:
    # Two tests that point opposite ways reject nothing: the union of their intervals holds 1.
    return 1.0 if (known.ratio - 1) * (whole.ratio - 1) < 0 else p


def _interval(fit: Fit, version: str, reference: str, alpha: float) -> tuple[Interval, float]:
    log_ratio, error = fit.log_ratio(version, reference)
    return exact.wald(log_ratio, error, alpha), float(2 * special.ndtr(-abs(log_ratio) / error))


def _clusters(table: pd.DataFrame, cells: HostCells) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    # Cluster code of each host of the cells, where the table knows clusters.
    if "cluster" not in table or table["cluster"].nunique() < 2:
        return None
    of_host = table.groupby("host", sort=False)["cluster"].first().reindex(cells.hosts)
    return np.asarray(pd.factorize(of_host, use_na_sentinel=False)[0], dtype=np.int64)
