"""How long until we could decide, as the hosts run now: in the brief and in a chart, so computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from psodlib.views.words import known

if TYPE_CHECKING:
    from psodlib.risk.decision import PinDecision

__all__ = ["still_needed"]

WEEKS = 4  # of the newest evidence whose pace is taken for today's
COLUMNS = ("version", "host_days", "needed", "per_week", "weeks")


def still_needed(decision: PinDecision | None, exposure: pd.DataFrame) -> pd.DataFrame:
    """Further host-days that each candidate needs until we could decide, and the weeks they take at today's pace."""
    rows = [
        (version, *_way(exposure, version, needed))
        for version, needed in (decision.host_days_needed if decision else {}).items()
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"version": "string", "needed": "Float64", "weeks": "Float64"})


def _way(exposure: Any, version: str, needed: float | None) -> tuple[Any, ...]:
    here = exposure[(exposure["version"] == version).fillna(False)]
    pace = 0.0
    if {"start", "end"} <= set(exposure.columns) and known(newest := exposure["end"].max()):
        since = newest - pd.Timedelta(weeks=WEEKS)
        late = here[here["end"] > since]
        pace = float(((late["end"] - late["start"].clip(lower=since)) / pd.Timedelta(days=1)).sum()) / WEEKS
    weeks = 0.0 if needed == 0 else needed / pace if needed is not None and pace else None
    return float(here["host_days"].sum()), needed, pace, weeks
