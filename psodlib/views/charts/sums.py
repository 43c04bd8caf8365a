"""What several charts count in an exposure table, and how they say it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from psodlib.views.charts.style import DAY, LONGEST_LABEL, Column, Table, lumped
from psodlib.views.words import count, figure


def module_of(exposure: Table) -> str:
    """The one module that an exposure table speaks of, no longer than a label may be."""
    names = exposure["module"].dropna().unique() if "module" in exposure else []
    name = str(names[0]) if len(names) == 1 else "driver"
    return name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…"


def column_of(exposure: Table, name: str) -> Column:
    """A column, or unknowns: callers may build an exposure table by hand, and only four columns are sure to be there."""
    return exposure[name] if name in exposure else pd.Series(pd.NA, index=exposure.index)


def counts_of(exposure: Table, name: str) -> Column:
    """A column of counts, 0 where it is not known."""
    given: Column = pd.to_numeric(column_of(exposure, name))
    return given.fillna(0).astype("int64")


def with_dates(exposure: Table) -> Table:
    """Only stretches with a place in time; a hand-made table may have none."""
    return exposure[column_of(exposure, "start").notna() & column_of(exposure, "end").notna()]


def host_days(n: float) -> str:
    """A number of host-days, as words."""
    return f"{n:,.0f} host-days" if n >= 10 or n == 0 else f"{figure(n)} host-days"


def crashes_in_days(table: Table) -> str:
    """A table's crashes and host-days, as words."""
    return f"{count(table['crashes'].sum(), 'crash')} in {host_days(float(table['host_days'].sum()))}"


def evidence(exposure: Table) -> str:
    """The counts that every caption owes, as words: crashes, host-days, hosts."""
    crashes, unknown = (int(counts_of(exposure, name).sum()) for name in ("crashes", "unknown_crashes"))
    more = f" and {count(unknown, 'crash')} with no module found" if unknown else ""
    days = host_days(float(exposure["host_days"].sum()))
    return f"{count(crashes, f'{module_of(exposure)} crash')}{more} in {days} on {count(exposure['host'].nunique(), 'host')}"


def days_since(times: Column, origin: pd.Timestamp) -> Any:
    """Times as days since an origin."""
    return ((times - origin) / DAY).to_numpy(dtype=float)


def days_in_bins(start: Any, end: Any, edges: Any, group: Column) -> Table:
    """Days that each group's stretches spend between edges (all in days): ``bin``, ``group``, ``host_days``."""
    parts = []
    for i in range(len(edges) - 1):
        days = pd.Series(np.minimum(end, edges[i + 1]) - np.maximum(start, edges[i]), index=group.array)
        total = days[days > 0].groupby(level=0, sort=False).sum()
        names = total.index.astype("string")
        parts.append(pd.DataFrame({"bin": i, "group": names, "host_days": total.to_numpy(dtype=float)}))
    return pd.concat(parts, ignore_index=True)


def weekly_sums(exposure: Table) -> Table:
    """Host-days and crashes by ``week`` (its Monday) and ``version``; a crash stands at the end of its stretch."""
    monday = exposure["start"].min().normalize()
    monday -= pd.Timedelta(days=monday.weekday())
    start, end = days_since(exposure["start"], monday), days_since(exposure["end"], monday)
    edges = np.arange(0, np.floor(end.max() / 7) * 7 + 15, 7)[: int(np.ceil(max(end.max(), 1e-9) / 7)) + 1]
    version = lumped(exposure["version"], exposure["host_days"])
    days = days_in_bins(start, end, edges, version).rename(columns={"group": "version"})
    ends = pd.DataFrame({"bin": np.minimum(end // 7, len(edges) - 2).astype(int), "version": version.to_numpy()})
    for name in ("crashes", "unknown_crashes"):
        ends[name] = counts_of(exposure, name).to_numpy()
    ends = ends.groupby(["bin", "version"], as_index=False).sum()
    table = days.merge(ends, how="outer", on=["bin", "version"]).fillna(0)
    table.insert(0, "week", monday + pd.to_timedelta(table.pop("bin") * 7, unit="D"))
    table = table.astype({"crashes": "int64", "unknown_crashes": "int64"})
    return table.sort_values(["week", "version"], ignore_index=True)
