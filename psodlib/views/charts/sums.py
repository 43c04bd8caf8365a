"""What several charts count in an exposure table, and how they say it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from psodlib.views.charts.style import DAY, LONGEST_LABEL, Column, Table, lumped
from psodlib.views.words import DAYS_A_YEAR, count, figure


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
    if "start" not in exposure or "end" not in exposure:
        return exposure.iloc[:0]
    return exposure[exposure["start"].notna() & exposure["end"].notna()]


def hosts_in_words(n: int) -> str:
    """A number of hosts, as words."""
    return count(n, "host")


def days_in_words(n: float) -> str:
    """A number of host-days, as words."""
    return f"{n:,.0f} host-days" if n >= 10 or n == 0 else f"{figure(n)} host-days"


def crashes_in_words(n: float) -> str:
    """A number of crashes, as words."""
    return count(n, "crash", "crashes")


def crashes_in_days(table: Table) -> str:
    """A table's crashes and host-days, as words."""
    return f"{crashes_in_words(table['crashes'].sum())} in {days_in_words(float(table['host_days'].sum()))}"


def evidence_in_words(exposure: Table) -> str:
    """The counts that every caption owes: crashes, host-days, hosts."""
    module, unknown = module_of(exposure), int(counts_of(exposure, "unknown_crashes").sum())
    crashes = count(int(counts_of(exposure, "crashes").sum()), f"{module} crash", f"{module} crashes")
    more = f" and {crashes_in_words(unknown)} with no module found" if unknown else ""
    days = days_in_words(float(exposure["host_days"].sum()))
    return f"{crashes}{more} in {days} on {hosts_in_words(exposure['host'].nunique())}"


def days_since(times: Column, origin: pd.Timestamp) -> Any:
    """Times as days since an origin."""
    return ((times - origin) / DAY).to_numpy(dtype=float)


def days_in_bins(start: Any, end: Any, edges: Any, group: Column) -> Table:
    """Days that each group's stretches spend between consecutive edges (all in days): ``bin``, ``group``,
    ``host_days``."""
    parts = []
    for i in range(len(edges) - 1):
        days = np.minimum(end, edges[i + 1]) - np.maximum(start, edges[i])
        inside = days > 0
        total = pd.Series(days[inside]).groupby(group.to_numpy()[inside], sort=False).sum()
        parts.append(
            pd.DataFrame({"bin": i, "group": total.index.astype("string"), "host_days": total.to_numpy(dtype=float)})
        )
    return pd.concat(parts, ignore_index=True)


def weekly_sums(exposure: Table) -> Table:
    """``week`` (Monday, UTC), ``version``, ``host_days``, ``crashes``, ``unknown_crashes``; a crash stands at the end
    of its stretch."""
    monday = exposure["start"].min().normalize()
    monday -= pd.Timedelta(days=monday.weekday())
    start, end = days_since(exposure["start"], monday), days_since(exposure["end"], monday)
    edges = np.arange(0, np.floor(end.max() / 7) * 7 + 15, 7)[: int(np.ceil(max(end.max(), 1e-9) / 7)) + 1]
    version = lumped(exposure["version"], exposure["host_days"])
    days = days_in_bins(start, end, edges, version).rename(columns={"group": "version"})
    ends = pd.DataFrame({"bin": np.minimum(end // 7, len(edges) - 2).astype(int), "version": version.to_numpy()})
    for name in ("crashes", "unknown_crashes"):
        ends[name] = counts_of(exposure, name).to_numpy()
    table = days.merge(
        ends.groupby(["bin", "version"], as_index=False).sum(), how="outer", on=["bin", "version"]
    ).fillna(0)
    table.insert(0, "week", monday + pd.to_timedelta(table.pop("bin") * 7, unit="D"))
    return table.astype({"crashes": "int64", "unknown_crashes": "int64"}).sort_values(
        ["week", "version"], ignore_index=True
    )


def yearly_rates(table: Table, by: str) -> Table:
    """Sums a group, with the rate and its Garwood interval per host-year."""
    from psodlib.risk.exact import poisson_interval  # brings scipy, which most charts do without

    sums = table.groupby(by, as_index=False, sort=False)[["crashes", "host_days"]].sum()
    limits = [poisson_interval(row.crashes, row.host_days / DAYS_A_YEAR) for row in sums.itertuples()]
    sums["rate"] = sums["crashes"] * DAYS_A_YEAR / sums["host_days"]
    return sums.assign(low=[low for low, _ in limits], high=[high for _, high in limits])
