"""One exposure table, or the parts of one, tabulated once; and the fits by which any two of its versions are compared.

A fit tells the rates of all versions together, so several contrasts of one table share their fits. A table is a fleet of
one part: whatever is kept of a part is a sum that adds up over parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from psodlib.errors import InputError
from psodlib.risk import cautions, exact
from psodlib.risk.exact import Interval
from psodlib.risk.exposure import Exposures, check_exposure, in_days, known_version, parts_of
from psodlib.risk.frailty import DEFAULT_RATE, Draws, Fit, draw, fit_frailty, joined, tabulate

ADJUST = ("model", "uptime", "quarter")
OF_HOSTS = ("model", "esxi_build", "cluster")  # terms that a sum by host and version can keep
# Terms that the times of a stretch tell, and where the versions then ran.
OF_TIME = {"uptime": "boots of another age", "quarter": "other times of the year"}
SUMS = ["host_days", "crashes", "unknown_crashes", "unplaced_crashes", "boots"]
LEMONS = 0.2  # variance of the host effect beyond which hosts are said to differ

Pair = tuple[float, float]  # of (version, reference)


class Arms(NamedTuple):
    """Sums of two versions."""

    version: str
    reference: str
    known: Pair
    unknown: Pair
    unplaced: Pair
    days: Pair
    hosts: tuple[int, int]

    def pairs(self, counts: Pair) -> tuple[float, float, float, float]:
        """Counts and host-days in the order that ``exact`` asks for."""
        return counts[0], self.days[0], counts[1], self.days[1]


class Headline(NamedTuple):
    """What the headline of one contrast rests on."""

    arms: Arms
    known: Interval
    with_unknown: Interval
    interval: Interval  # the union of all, at the ratio of the known crashes
    p_value: float
    p_lower: float
    terms: tuple[str, ...] = ()
    fit: Fit | None = None  # of the known crashes
    exactly: bool = False  # bare counts were compared


class Comparison:
    """An exposure table with its sufficient rows, and every model fitted to them so far."""

    def __init__(self, exposure: Exposures, adjust: str | Sequence[str] = ADJUST) -> None:
        asked = (adjust,) if isinstance(adjust, str) else tuple(dict.fromkeys(adjust or ()))
        if strange := [term for term in asked if term not in (*OF_HOSTS, *OF_TIME)]:
            raise InputError(f"cannot adjust for {strange[0]}; choose from {', '.join((*OF_HOSTS, *OF_TIME))}")
        self.by_hand, self.adrift, self.known_issues = True, dict[Any, int](), dict[str, list[str]]()
        self._fits: dict[tuple[Any, ...], Fit] = {}
        held, days, crashes = tuple[str, ...](), 0.0, 0.0  # of unknown version
        kept: dict[str, list[Any]] = {"cells": [], "sums": [], "months": [], "gaps": [], "last": []}
        for part in parts_of(exposure):
            table = check_exposure(part)
            table.attrs = {}  # which pandas copies at every step
            for version, ids in part.attrs.get("known_issues", {}).items():
                self.known_issues[version] = sorted({*self.known_issues.get(version, ()), *ids})
            rows = table.sort_values("end", kind="stable") if "end" in table else table
            rows = rows.drop_duplicates("host", keep="last").reindex(columns=["host", "version", "cluster"])
            kept["last"].append(rows.astype(object))
            known = table["version"].notna()
            days += float(table.loc[~known, "host_days"].sum())
            crashes += float(table.loc[~known, "crashes"].sum())
            table = table[known]
            if table.empty:
                continue
            held = held or tuple(t for t in asked if all(n in table and table[n].notna().any() for n in _columns(t)))
            # A later part may lack what the first one held.
            table = table.assign(**{name: None for term in held for name in _columns(term) if name not in table})
            table = _with_unplaced(table, part.attrs.get("unplaced", ()), self.adrift)
            self.by_hand &= "start" not in table and "boot" not in table
            for name, found in (
                ("cells", tabulate(table, held)), ("sums", _summed(table)), ("months", _months(table)), ("gaps", _gap_days(table)),
            ):  # fmt: skip
                kept[name].append(found)
        if not kept["cells"]:
            raise InputError("no host-days with a known version; give an exposure table made with exposure(fleet)")
        self.table, self.cells = pd.concat(kept["sums"], ignore_index=True), joined(kept["cells"])
        self.months, self.gaps = _total(kept["months"]), _total(kept["gaps"])
        # each host's last stretch
        self.last: pd.DataFrame = pd.concat(kept["last"]).sort_values("host", ignore_index=True)
        self.terms = tuple(term for term in held if len(self.cells.levels[term]) > 1)
        self.absent = [f"not adjusted for {t}: the table does not hold it" for t in asked if t not in held]
        self.absent += [f"not adjusted for {t}: it is the same everywhere" for t in held if t not in self.terms]
        lost = f"{days:,.0f} host-days with {crashes:.0f} crashes are left out: it is not known which version those boots had loaded, if any"
        self.lost = [lost] if days or crashes else []

    def watched(self) -> list[Any]:
        """The versions that have host-days, in order."""
        return [name for name, days in self.cells.by_version(self.cells.days).items() if days > 0]

    def draws(self, factors: Mapping[Any, float], running: pd.DataFrame) -> Draws:
        """The posterior of all versions' rates, with what the hosts that run each would crash at rate 1."""
        of_host = running.drop_duplicates("host").set_index("host")["version"].reindex(self.cells.hosts.astype(object))
        now = self.cells.levels["version"].astype(object).get_indexer(pd.Index(of_host.astype(object)))
        sets = [self._events(which) for which in ("known", *self._with_all())]
        return draw(self.cells, sets, self.terms, factors, now)

    def told_apart(self, version: str, other: str) -> str:
        """Why two versions cannot be told from the hardware or the time they ran on; empty where they can."""
        spans = [(self.months, "at different times")]
        if "model" in self.table:
            by_model = self.table.groupby(["version", "model"], dropna=False)["host_days"].sum()
            spans.insert(0, (by_model, "on different hardware"))
        for days, words in spans:
            mine, theirs = (days[days.index.get_level_values(0) == name].droplevel(0) for name in (version, other))
            if mine.sum() and theirs.sum():
                shares = pd.concat([mine / mine.sum(), theirs / theirs.sum()], axis=1)
                shared = float(shares.fillna(0.0).min(axis=1).sum())
                if shared < cautions.OVERLAP:
                    return f"{version} and {other} ran {words} (overlap {100 * shared:.0f} %), so that cannot be told from the version"
        return ""

    def arms(self, version: str, reference: str) -> Arms:
        """Crashes, host-days and hosts of two versions."""
        names, cells = self.watched(), self.cells
        version, reference = (known_version(name, names) for name in (version, reference))
        if version == reference:
            raise InputError(f"version and reference are both {version}; give two versions")
        hosts = self.table[self.table["host_days"] > 0].groupby("version")["host"].nunique()
        sums = [cells.by_version(matrix) for matrix in (cells.known, cells.unknown, cells.unplaced, cells.days)]
        known, unknown, unplaced, days = ((each[version], each[reference]) for each in sums)
        return Arms(version, reference, known, unknown, unplaced, days, (int(hosts[version]), int(hosts[reference])))

    def headline(self, version: str, reference: str, alpha: float = 0.05) -> Headline:
        """The union interval of one contrast and what it rests on."""
        arms = self.arms(version, reference)
        if not any((*arms.known, *arms.unknown, *arms.unplaced)):
            nothing = exact.NO_INFORMATION
            return Headline(arms, nothing, nothing, nothing, 1.0, 0.5, self.terms)
        # Of a table made by hand in which nothing can speak of hosts that differ: no terms, and sums in place of hosts or no
        # host that crashed twice.
        most = self.table.loc[self.table["version"].isin(arms[:2]), "crashes"].max()
        exactly = self.by_hand and not self.terms and (min(arms.hosts) == 1 or bool(most <= 1))
        sets = ["known", *self._with_all(), *(["placed"] if sum(arms.unplaced) else [])]
        found = [(self._by_counts if exactly else self._by_fit)(arms, which, alpha) for which in sets]
        intervals, p_values, chances = zip(*found, strict=True)
        second = min(1, len(sets) - 1)
        # Two tests that point opposite ways reject nothing: the union of their intervals holds 1.
        p = 1.0 if len({chance > 0.5 for chance in chances}) > 1 else max(p_values)
        union, chance = _union(intervals[0].ratio, intervals), (chances[0] + chances[second]) / 2
        terms, fit = ((), None) if exactly else (self.terms, self.fit(arms, "known"))
        return Headline(arms, intervals[0], intervals[second], union, p, chance, terms, fit, exactly)

    def _with_all(self) -> list[str]:
        return ["all"] if self._events("all").sum() > self.cells.known.sum() else []

    def _by_counts(self, arms: Arms, which: str, alpha: float) -> tuple[Interval, float, float]:
        pairs, prior = arms.pairs(self._counted(arms, which)), 0.5 / prior_rate(self.table)
        chance = exact.p_lower(0.5 + pairs[0], prior + pairs[1], 0.5 + pairs[2], prior + pairs[3])
        return exact.ratio_interval(*pairs, alpha), exact.ratio_p(*pairs), chance

    def _by_fit(self, arms: Arms, which: str, alpha: float) -> tuple[Interval, float, float]:
        log_ratio, error = self.fit(arms, which).log_ratio(arms.version, arms.reference)
        p, chance = 2 * special.ndtr(-abs(log_ratio) / error), special.ndtr(-log_ratio / error)
        one, other = self._counted(arms, which)
        found = exact.wald(log_ratio, error, alpha)
        # Where a version has no crash the prior alone keeps that end from 0 or infinity: it is not said.
        if not one:
            found = Interval(0.0, 0.0, found.high)
        if not other:
            found = Interval(math.inf if one else math.nan, found.low, math.inf)
        return found, float(p), float(chance)

    def fit(self, arms: Arms, which: str, terms: tuple[str, ...] | None = None) -> Fit:
        """The model of one set of crashes: ``known``, ``placed``, ``all``, or with the unknown ones of one version.

        A version of which no crash is known at all, and which is not asked for, is left out.
        """
        terms = self.terms if terms is None else terms
        every = self.cells.by_version(self._events("all"))
        kept = tuple(name for name, crashes in every.items() if crashes or name in (arms.version, arms.reference))
        if (which, terms, kept) not in self._fits:
            keep = np.isin(self.cells.cells["version"], self.cells.levels["version"].get_indexer(pd.Index(kept)))
            near = next(iter(self._fits.values()), None)
            self._fits[which, terms, kept] = fit_frailty(self.cells, self._events(which), terms, keep, near)
        return self._fits[which, terms, kept]

    def _counted(self, arms: Arms, which: str) -> Pair:
        sums = self.cells.by_version(self._events(which))
        return sums[arms.version], sums[arms.reference]

    def _events(self, which: str) -> Any:
        cells = self.cells
        if which == "known":
            return cells.known
        if which == "placed":
            return (cells.known + cells.unplaced).tocsr()
        others = cells.unknown + cells.unplaced
        if which != "all":
            mine = cells.cells["version"] == cells.levels["version"].get_loc(which)
            others = others.multiply(mine.to_numpy()[None, :].astype(float))
        return (cells.known + others).tocsr()

    def adversarial(self, found: Headline, alpha: float = 0.05) -> Interval:
        """The span of the intervals with every unexplained crash laid on one version and then on the other."""
        if not found.fit and not found.exactly:
            return found.interval
        by = self._by_counts if found.exactly else self._by_fit
        return _union(found.known.ratio, [by(found.arms, name, alpha)[0] for name in found.arms[:2]])

    def moved_by(self, found: Headline, term: str) -> float:
        """By what share adjusting for one term of the model moves the ratio; 0 where it is no term of it."""
        if found.fit is None or term not in found.terms:
            return 0.0
        without = self.fit(found.arms, "known", tuple(other for other in found.terms if other != term))
        return math.expm1(found.fit.log_ratio(*found.arms[:2])[0] - without.log_ratio(*found.arms[:2])[0])

    def notes(self, found: Headline) -> list[str]:
        """What the model itself tells the reader to look at, and what was left out of it."""
        notes = [*self.absent]
        if found.fit is None:
            return notes
        if not found.fit.converged:
            notes.append("the frailty fit did not converge; trust the exact interval more")
        if found.fit.variance > LEMONS:
            differ = f"some hosts crash more often than others on any version (variance of the host effect {found.fit.variance:.2g})"
            notes.append(f"{differ}; this is adjusted for")
        for term, where in OF_TIME.items():
            moved = self.moved_by(found, term)
            if abs(moved) > cautions.CONFOUNDED:
                notes.append(f"adjusting for {term} {cautions.moves(moved)}: one version ran more in {where}")
        return notes

    def by_cluster(self, found: Headline, alpha: float = 0.05) -> Interval | None:
        """The ratio with one effect a cluster in place of a host; None where clusters are not known."""
        if found.fit is None or "cluster" not in self.table or self.table["cluster"].nunique() < 2:
            return None
        of_host = self.table.groupby("host", sort=False)["cluster"].first().reindex(self.cells.hosts)
        grouped = self.cells.grouped(np.asarray(pd.factorize(of_host, use_na_sentinel=False)[0], dtype=np.int64))
        fit = fit_frailty(grouped, grouped.known, found.terms)
        return exact.wald(*fit.log_ratio(*found.arms[:2]), alpha)


def prior_rate(table: pd.DataFrame) -> float:
    """The table's pooled rate per host-day, or 0.2 a host-year where it has no crash."""
    crashes, days = float(table["crashes"].sum()), float(table["host_days"].sum())
    return crashes / days if crashes else DEFAULT_RATE


def _union(ratio: float, intervals: Sequence[Interval]) -> Interval:
    return Interval(ratio, min(each.low for each in intervals), max(each.high for each in intervals))


def _total(parts: list[Any]) -> Any:
    found = pd.concat(parts)
    return found.groupby(level=list(range(found.index.nlevels)), dropna=False).sum()


def _columns(term: str) -> tuple[str, ...]:
    return ("start", "end", "uptime_start") if term in OF_TIME else (term,)


def _with_unplaced(table: pd.DataFrame, unplaced: Sequence[Any], adrift: dict[Any, int]) -> pd.DataFrame:
    # Crashes in time that nobody watched stand at the host's last stretch with their version before them, to be counted in
    # a fit beside the one that leaves them out.
    counts = {
        "unplaced_crashes": np.zeros(len(table)),
        "unknown_crashes": table["unknown_crashes"].to_numpy(dtype=float, copy=True),
    }
    rows: Any = table.groupby(["host", "version"], sort=False, observed=True).indices if unplaced else {}
    hosts = set(table["host"]) if unplaced else set()
    for host, version, time, known in unplaced:
        at = rows.get((host, version))
        if at is None:
            adrift[version] = adrift.get(version, 0) + (host in hosts)
            continue
        starts = table["start"].iloc[at] if "start" in table else pd.Series(pd.NaT, index=at)
        earlier = np.asarray(starts <= pd.Timestamp(time)) if time else np.zeros(len(at), dtype=bool)
        row = int(at[earlier][-1] if earlier.any() else at[0])
        counts["unplaced_crashes" if known else "unknown_crashes"][row] += 1
    return table.assign(**counts)


def _summed(table: pd.DataFrame) -> pd.DataFrame:
    # One row a host, version and level of what a host is, in place of one a stretch.
    names = ["host", "version", *(name for name in OF_HOSTS if name in table)]
    rows = table[[*names, *SUMS[:-1]]].assign(boots=0.0)
    if "boot" in table:
        rows["boots"] = (~table.duplicated(["host", "boot"]) & table["boot"].notna()).astype(float)
    return rows.groupby(names, dropna=False, observed=True, sort=False)[SUMS].sum().reset_index()


def _months(table: pd.DataFrame) -> Any:
    # Host-days by version and month of the calendar.
    if "start" not in table or "end" not in table:
        return pd.Series(dtype=float, index=pd.MultiIndex.from_arrays([[], []]))
    middle = (table["start"] + (table["end"] - table["start"]) / 2).dt
    month = (12 * middle.year + middle.month).rename("month")
    return table["host_days"].groupby([table["version"].astype(object), month]).sum()


def _gap_days(table: pd.DataFrame) -> Any:
    # Days inside boots that no evidence covers, by version.
    if any(name not in table for name in ("boot", "start", "end")):
        return pd.Series(dtype=float)
    rows = table.assign(watched=table["end"] - table["start"])
    boots = rows.groupby(["version", "host", "boot"], sort=False, observed=True)
    ends = boots.agg(start=("start", "min"), end=("end", "max"), watched=("watched", "sum"))
    return in_days(ends["end"] - ends["start"] - ends["watched"]).groupby(level=0).sum()
