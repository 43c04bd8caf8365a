"""Is it a driver at all, and which: all modules of a fleet side by side."""

from __future__ import annotations

from typing import Any

import pandas as pd

from psodlib.risk.comparison import Comparison
from psodlib.risk.exposure import known_modules, of_module
from psodlib.risk.rates import ratio_of
from psodlib.schema import Tables
from psodlib.triage.known_issues import exposed, load_issues

COLUMNS = {
    "module": "string", "crashes": "Int64", "hosts": "Int64", "host_days": "float64", "versions": "Int64", "worst": "string",
    "best": "string", "ratio": "Float64", "low": "Float64", "high": "Float64", "known_issues": "string", "exposed": "string",
}  # fmt: skip


def driver_league(fleet: Tables) -> pd.DataFrame:
    """All modules of a fleet: who has the crashes, and whether its versions differ.

    Parameters
    ----------
    fleet : Fleet

    Returns
    -------
    pandas.DataFrame
        One row a module, most crashes first: ``crashes`` (laid to it, watched or not), ``hosts``, ``host_days`` and
        ``versions`` (watched), ``worst`` and ``best`` version by expected rate, their ``ratio`` with ``low`` and ``high``
        (95 %; NA where unbounded or without a crash), ``known_issues`` (ids that its crashes matched) and ``exposed`` (ids
        that name a version seen here and matched no crash), both joined by ``;``.
    """
    table = known_modules(fleet).sort_values(["crashes", "versions", "module"], ascending=[False, False, True])
    rows = [_row(fleet, *each) for each in table[["module", "crashes"]].itertuples(index=False, name=None)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _row(fleet: Tables, module: str, crashes: int) -> dict[str, Any]:
    stretches = of_module(fleet, module)
    known = stretches[stretches["version"].notna()]
    versions = sorted(known["version"].unique())
    matched = {one for ids in stretches.attrs["known_issues"].values() for one in ids}
    # Issues that name a version which ran here, and that no crash here matched.
    issues = load_issues()
    named = {issue.id for version in versions for issue in exposed(issues, module, version)}
    row: dict[str, Any] = {
        "module": module, "crashes": crashes, "hosts": known["host"].nunique(),
        "host_days": float(known["host_days"].sum()), "versions": len(versions), "known_issues": ";".join(sorted(matched)) or None,
        "exposed": ";".join(sorted(named - matched)) or None,
    }  # fmt: skip
    if len(versions) > 1 and known["crashes"].sum() > 0:
        row |= _worst_and_best(stretches)
    return row


def _worst_and_best(stretches: pd.DataFrame) -> dict[str, Any]:
    # Adjusted for the model alone: quick, and what a league needs; ``decide_pin`` adjusts for uptime and season too.
    comparison = Comparison(stretches, ("model",))
    names = comparison.watched()
    rates = comparison.fit(comparison.arms(names[0], names[1]), "known").rates()
    seen = {name: rates.get(name, 0.0) for name in names}
    worst, best = max(seen, key=seen.__getitem__), min(seen, key=seen.__getitem__)
    ratio, low, high = ratio_of(comparison, worst, best).interval.finite()
    return {"worst": worst, "best": best, "ratio": ratio, "low": low, "high": high}
