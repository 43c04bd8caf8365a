"""A fleet and one driver -> exposure, rates, decision and counts, computed once for every page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import pandas as pd

from psodlib.errors import InputError
from psodlib.fleet import Fleet
from psodlib.risk.decision import PinDecision, decide_pin
from psodlib.risk.exposure import exposure
from psodlib.risk.rates import crash_rates
from psodlib.risk.rollout import RolloutPlan, read_plan
from psodlib.risk.rollout_watch import RolloutWatch, watch_rollout
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
    rollout: RolloutWatch | None = None  # of a plan that is under way; the decision then moves no host of the plan

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
    fleet: Fleet, module: str | None = None, candidates: Sequence[str] | None = None, outage_hours: float = 1.0,
    plan: RolloutPlan | str | Path | None = None, today: object = None,
) -> Study:  # fmt: skip
    """Exposure, rates and decision of one driver; without ``module`` of the plan's, or the one the evidence points at.

    A plan that is under way is looked at as of ``today``, by default now.
    """
    if not (outage_hours > 0 and math.isfinite(outage_hours)):
        raise InputError(f"outage_hours is {outage_hours}; expected a number of hours above 0")
    if plan is not None:
        plan = plan if isinstance(plan, RolloutPlan) else read_plan(plan)
        if module not in (None, plan.module):
            raise InputError(f"the plan moves {plan.module}, and {module} was asked for; name one of the two")
        module = plan.module
    stretches = exposure(fleet, module=module)
    rates = crash_rates(stretches, by="version")
    # A plan is an advice that was followed; its own hosts it orders itself.
    decision, why_none = _decided(stretches, rates, candidates, None if plan is None else plan.to)
    running = None if plan is None else watch_rollout(fleet, plan, today=today or datetime.now(UTC))
    if plan is not None and decision:
        outside = ~decision.moves["host"].isin(plan.waves["host"])
        decision = replace(decision, moves=decision.moves[outside].reset_index(drop=True))
    return Study(
        fleet, str(stretches.attrs["module"]), stretches, rates, decision, why_none, tuple(candidates or ()), outage_hours,
        running,
    )  # fmt: skip


def _decided(
    stretches: pd.DataFrame, rates: pd.DataFrame, candidates: Sequence[str] | None, before: str | None
) -> tuple[PinDecision | None, str]:
    module = stretches.attrs["module"]
    watched = [str(name) for name in rates.index[rates["host_days"] > 0] if known(name)]
    if len(watched) < 2 and not candidates:
        seen = f"only {module} {watched[0]}" if watched else f"no known version of {module}"
        return None, f"There is nothing to choose between: {seen} was watched for any length of time."
    try:
        return decide_pin(stretches, candidates, before=before), ""
    except InputError as error:  # such as: only hosts that crashed are given
        if candidates:
            raise
        return None, f"No decision can be made: {error}."


def versions_seen(rates: pd.DataFrame) -> str:
    """The versions that were watched, in a phrase."""
    return listing(name for name in rates.index if known(name))
