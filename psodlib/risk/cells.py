"""Sufficient rows: the host-days and crashes of an exposure table, summed by host and by cell of version and terms.

A fleet of any size comes in parts, no host in two: what the models need of them are sums, a sparse matrix and no table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from psodlib.risk.exposure import split_stretches

Whole = np.ndarray[Any, np.dtype[np.int64]]

# Column of an exposure table -> the matrix of it.
COUNTED = {"crashes": "known", "unknown_crashes": "unknown", "unplaced_crashes": "unplaced"}
MATRICES = ("days", *COUNTED.values())


@dataclass(frozen=True)
class HostCells:
    """Host-days and crashes by host and covariate cell.

    ``days``, ``known``, ``unknown`` and ``unplaced`` are sparse, shape (hosts, cells). ``cells`` has one row a cell and one
    column a term, first ``version``, holding codes into ``levels[term]``.
    """

    hosts: pd.Index
    days: Any
    known: Any
    unknown: Any
    unplaced: Any
    cells: pd.DataFrame
    levels: dict[str, pd.Index]

    def of_version(self, version: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which cells are this version's, shape (cells,)."""
        return np.asarray(self.cells["version"] == self.levels["version"].get_loc(version))

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
    at_end = (where[0][last], where[1][last])
    matrices = {"days": sparse.csr_array((days, where), shape=shape)}
    for name, matrix in COUNTED.items():
        counts = table[name].to_numpy(dtype=float)[row[last]] if name in table else np.zeros(len(at_end[0]))
        some = np.flatnonzero(counts)
        matrices[matrix] = sparse.csr_array((counts[some], (at_end[0][some], at_end[1][some])), shape=shape)
    sizes = [len(levels[term]) for term in levels]
    codes_of_cell = np.unravel_index(kept, sizes) if len(kept) else [np.empty(0, dtype=int)] * len(sizes)
    cells = pd.DataFrame(dict(zip(levels, codes_of_cell, strict=True)))
    return HostCells(hosts=hosts, cells=cells, levels=levels, **matrices)


def joined(parts: Sequence[HostCells]) -> HostCells:
    """The sums of all parts of a fleet as those of one table; memory is 12 bytes a host and cell in which it has time."""
    if len(parts) == 1:
        return parts[0]
    levels = {}
    for term in parts[0].levels:  # in order, an unknown level last, as `pandas.factorize(sort=True)` has it
        every = parts[0].levels[term].append([part.levels[term] for part in parts[1:]]).unique()
        levels[term] = every[every.notna()].sort_values().append(every[every.isna()])
    width = [max(len(level), 1) for level in levels.values()]
    flat = []
    for part in parts:
        codes = [levels[term].get_indexer(part.levels[term])[part.cells[term].to_numpy()] for term in levels]
        flat.append(np.ravel_multi_index(codes, width))
    kept = np.unique(np.concatenate(flat))

    def stacked(name: str) -> Any:
        blocks = []
        for part, at in zip(parts, flat, strict=True):
            found, columns = getattr(part, name).tocoo(), np.searchsorted(kept, at)
            shape = (len(part.hosts), len(kept))
            blocks.append(sparse.csr_array((found.data, (found.row, columns[found.col])), shape=shape))
        return sparse.vstack(blocks, format="csr")

    hosts = pd.Index(np.concatenate([np.asarray(part.hosts, dtype=object) for part in parts]))
    cells = pd.DataFrame(dict(zip(levels, np.unravel_index(kept, width), strict=True)))
    return HostCells(hosts=hosts, cells=cells, levels=levels, **{name: stacked(name) for name in MATRICES})
