"""A fleet and one driver -> exposure, rates, decision and counts, computed once for every page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from psodlib.errors import InputError
from psodlib.fleet import Fleet
from psodlib.risk.decision import PinDecision, decide_pin
from psodlib.risk.exposure import exposure
from psodlib.risk.rates import crash_rates
from psodlib.views.counting import Counts, count_crashes
from psodlib.views.pace import still_needed
from psodlib.views.words import known, listing

__all__ = ["Study", "study", "versions_seen"]


@dataclass(frozen=True)
class Study:
    """What a fleet says of one driver."""

    fleet: Fleet
    module: str
    exposure: pd.DataFrame
    rates: pd.DataFrame  # by version
    decision: PinDecision | None  # none where there is nothing to choose between; ``why_none`` says why
    why_none: str = ""  # a sentence, empty when there is a decision
    asked: tuple[str, ...] = ()  # the candidates that the caller named
    outage_hours: float = 1.0  # until the users of a crashed host work again

    @cached_property
    def counts(self) -> Counts:
        """How the crashes are counted."""
        return count_crashes(self.fleet, self.module, self.exposure)

    @cached_property
    def needed(self) -> pd.DataFrame:
        """What each version still lacks, as ``still_needed`` has it."""
        return still_needed(self.decision, self.exposure)

    @property
    def why_module(self) -> str:
        """Why this driver, where nobody named one."""
        return str(self.exposure.attrs.get("why", ""))


def study(
    fleet: Fleet, module: str | None = None, candidates: Sequence[str] | None = None, outage_hours: float = 1.0
) -> Study:
    """Exposure, rates and decision of one driver; without ``module`` of the one that the evidence points at."""
    if not (outage_hours > 0 and math.isfinite(outage_hours)):
        raise InputError(f"outage_hours is {outage_hours}; expected a number of hours above 0")
    stretches = exposure(fleet, module=module)
    rates = crash_rates(stretches, by="version")
    decision, why_none = _decided(stretches, rates, candidates)
    return Study(
        fleet,
        str(stretches.attrs["module"]),
        stretches,
        rates,
        decision,
        why_none,
        tuple(candidates or ()),
        outage_hours,
    )


def _decided(
    stretches: pd.DataFrame, rates: pd.DataFrame, candidates: Sequence[str] | None
) -> tuple[PinDecision | None, str]:
    module = stretches.attrs["module"]
    watched = [str(name) for name in rates.index[rates["host_days"] > 0] if known(name)]
    if len(watched) < 2 and not candidates:
        seen = f"only {module} {watched[0]}" if watched else f"no known version of {module}"
        return None, f"There is nothing to choose between: {seen} was watched for any length of time."
    try:
        return decide_pin(stretches, candidates), ""
    except InputError as error:  # such as: only hosts that crashed are given
        if candidates:
            raise
        return None, f"No decision can be made: {error}."


def versions_seen(rates: pd.DataFrame) -> str:
    """The versions that were watched, in a phrase."""
    return listing(name for name in rates.index if known(name))
