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

from psodlib.risk.exposure import Whole, split_stretches

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
