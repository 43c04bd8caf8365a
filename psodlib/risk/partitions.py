"""Rates and sufficient rows of a fleet too large for one table: bucket by bucket of hosts, then summed.

Every stretch belongs to one host and every host to one part, so exposures of parts are the parts of the exposure. What the
rates and the frailty model need of them are sums by host and cell: a sparse matrix, not a DataFrame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from psodlib.risk.comparison import ADJUST, OF_TIME, Comparison
from psodlib.risk.decision import REBOOT_COST, PinDecision, candidates_of, decide
from psodlib.risk.exposure import Tables, check_exposure, exposure
from psodlib.risk.frailty import HostCells, tabulate
from psodlib.risk.rates import RateRatio, crash_rates, ratio_of

__all__ = ["decision_of_parts", "each_exposure", "host_sums", "rates_of_parts", "ratio_of_parts", "tabulate_parts"]

SUMS = ["host_days", "crashes", "unknown_crashes"]
OF_HOSTS = ("model", "esxi_build", "cluster")  # terms that a sum by host and version can keep


def each_exposure(fleets: Iterable[Tables], module: str = "hpsa") -> Iterator[pd.DataFrame]:
    """The exposure of one part of a fleet after another."""
    for fleet in fleets:
        yield exposure(fleet, module)


def rates_of_parts(parts: Iterable[pd.DataFrame], by: str = "version", alpha: float = 0.05) -> pd.DataFrame:
    """``crash_rates`` of all parts together."""
    sums = [
        table.groupby(by, dropna=False, observed=True)[["crashes", "host_days"]].sum().reset_index()
        for part in parts
        if len(table := check_exposure(part)) and (by in table or _refuse(table, by))
    ]
    if not sums:
        return crash_rates(pd.DataFrame({"host": [], by: [], "version": [], "host_days": [], "crashes": []}), by, alpha)
    together = pd.concat(sums, ignore_index=True).assign(host="all")
    return crash_rates(together if by == "version" else together.assign(version="any"), by, alpha)


def _refuse(table: pd.DataFrame, by: str) -> bool:
    crash_rates(table, by)  # raises, with its own words
    return False


def host_sums(parts: Iterable[pd.DataFrame], keep: Sequence[str] = OF_HOSTS) -> pd.DataFrame:
    """An exposure table with one row a host, version and level of what is kept, instead of one a stretch."""
    pieces = [_summed(table, keep) for part in parts if len(table := check_exposure(part))]
    if not pieces:
        return pd.DataFrame({"host": [], "version": [], **{name: [] for name in SUMS}}).astype(
            dict.fromkeys(SUMS, float)
        )
    return pd.concat(pieces, ignore_index=True)


def _summed(table: pd.DataFrame, keep: Sequence[str]) -> pd.DataFrame:
    names = ["host", "version", *(name for name in keep if name in table)]
    return table.groupby(names, dropna=False, observed=True, sort=False)[SUMS].sum().reset_index()


def ratio_of_parts(
    parts: Iterable[pd.DataFrame], version: str, reference: str, adjust: Sequence[str] = ADJUST, alpha: float = 0.05
) -> RateRatio:
    """``rate_ratio`` of all parts together; the stretches of two parts are never in one table.

    Notes
    -----
    Memory is that of the largest part, of ``tabulate_parts``, and one row a host and version.
    """
    return ratio_of(_OfParts(parts, adjust), version, reference, alpha)


def decision_of_parts(
    parts: Iterable[pd.DataFrame], candidates: Sequence[str] | None = None, *, reference: str | None = None,
    adjust: Sequence[str] = ADJUST, alpha: float = 0.05,
) -> PinDecision:  # fmt: skip
    """``decide_pin`` of all parts together; the stretches of two parts are never in one table."""
    comparison = _OfParts(parts, adjust)
    names = candidates_of(comparison, candidates, reference)
    return decide(comparison, names, reference, alpha, {}, None, None, REBOOT_COST)


class _OfParts(Comparison):
    # Sums by host in place of the stretches, and the sufficient rows of one part after another.
    def __init__(self, parts: Iterable[pd.DataFrame], adjust: str | Sequence[str]) -> None:
        asked = (adjust,) if isinstance(adjust, str) else tuple(dict.fromkeys(adjust or ()))
        sums: list[pd.DataFrame] = []
        tables = _summed_in_passing(parts, sums)
        first = next(tables, None)
        held = [] if first is None else [term for term in asked if _holds(first, term)]
        cells = tabulate_parts(chain([] if first is None else [first], tables), tuple(held))
        self.sums = pd.concat(sums, ignore_index=True) if sums else host_sums([])
        super().__init__(self.sums, [term for term in asked if term not in OF_TIME])
        self.cells = cells
        self.terms = tuple(term for term in asked if term in self.terms or (term in OF_TIME and term in held))
        self.absent += [
            f"not adjusted for {t}: the table does not hold it" for t in asked if t in OF_TIME and t not in held
        ]
        self.lost = [*self.lost, "in parts: overlap in time, missing evidence and snapshots were not looked at"]


def _summed_in_passing(parts: Iterable[pd.DataFrame], sums: list[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    for part in parts:
        if len(table := check_exposure(part)):
            sums.append(_summed(table, OF_HOSTS))
            yield table


def _holds(table: pd.DataFrame, term: str) -> bool:
    needed = ("start", "end", "uptime_start") if term in OF_TIME else (term,)
    return all(name in table and table[name].notna().any() for name in needed)


def tabulate_parts(parts: Iterable[pd.DataFrame], terms: tuple[str, ...] = ()) -> HostCells:
    """``tabulate`` of all parts together: what ``fit_frailty`` needs of any number of hosts.

    Notes
    -----
    Memory is that of the largest part, and 12 bytes a host and cell in which it has time.
    """
    tables = (table[table["version"].notna()] for part in parts if len(table := check_exposure(part)))
    pieces = [_of_part(table, terms) for table in tables if len(table)]
    names = ("version", *terms)
    levels = {term: _union([levels[term] for _, levels in pieces]) for term in names}
    width = [max(len(level), 1) for level in levels.values()]
    flat = []
    for part, own in pieces:
        codes = [levels[term].get_indexer(own[term])[part.cells[term].to_numpy()] for term in names]
        flat.append(np.ravel_multi_index(codes, width))
    kept = np.unique(np.concatenate(flat)) if flat else np.empty(0, dtype=np.int64)

    def stacked(what: str) -> Any:
        blocks = [
            _into(getattr(part, what), np.searchsorted(kept, at), len(kept))
            for (part, _), at in zip(pieces, flat, strict=True)
        ]
        return sparse.vstack(blocks, format="csr") if blocks else sparse.csr_array((0, 0))

    hosts = pd.Index(np.concatenate([np.asarray(part.hosts, dtype=object) for part, _ in pieces]) if pieces else [])
    cells = pd.DataFrame(dict(zip(names, np.unravel_index(kept, width), strict=True)))
    return HostCells(hosts, stacked("days"), stacked("known"), stacked("unknown"), cells, levels)


def _of_part(table: pd.DataFrame, terms: tuple[str, ...]) -> tuple[HostCells, dict[str, pd.Index]]:
    # A part's cells, and its levels in words that mean the same in every part: quarters as the quarter of the calendar.
    cells = tabulate(table, terms)
    levels = dict(cells.levels)
    if "quarter" in levels:
        first = table["start"].min()
        origin = 4 * first.year + first.quarter - 1 if pd.notna(first) else 0
        levels["quarter"] = pd.Index([code + origin if code >= 0 else -1 for code in levels["quarter"]])
    return cells, levels


def _union(levels: list[pd.Index]) -> pd.Index:
    # In order, an unknown level last, as `pandas.factorize(sort=True)` has it.
    found = pd.Index([])
    for level in levels:
        found = level if found.empty else found.append(level)
    unique = found.unique()
    return unique[unique.notna()].sort_values().append(unique[unique.isna()])


def _into(matrix: Any, columns: np.ndarray[Any, np.dtype[np.int64]], width: int) -> Any:
    found = matrix.tocoo()
    return sparse.csr_array((found.data, (found.row, columns[found.col])), shape=(matrix.shape[0], width))
