"""A fleet and one driver -> what every page says of them: exposure, rates, decision, counts, and what could make them wrong.

Each is computed once; pages, charts and notebooks only word it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from psodlib.errors import InputError
from psodlib.fleet import Fleet
from psodlib.risk.cautions import only_crashed_hosts
from psodlib.risk.decision import PinDecision, decide_pin
from psodlib.risk.exposure import exposure, unplaced_crashes
from psodlib.risk.rates import crash_rates
from psodlib.risk.rollout import RolloutPlan, read_plan
from psodlib.risk.rollout_watch import RolloutWatch, watch_rollout
from psodlib.schema import Tables
from psodlib.views.document import Table
from psodlib.views.words import SIMULATED, as_sentence, count, day, known, literal, seen, share

WEEKS = 4  # of the newest evidence whose pace is taken for today's
WEAK_SPOTS = (
    "By design the rule acts before proof. Tried on simulated fleets without any true difference, it still moved some hosts in 4 of 10: "
    "reboots for nothing, but no more crashes.",
    "Whoever looks every two weeks will see even a 95 % advice appear by chance at some look, in up to 15 of 100 fleets.",
)


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

    @property
    def driver(self) -> str:
        """The module in words; without one the evidence names none."""
        return self.module or "any driver"

    @property
    def scope(self) -> str:
        """Of which fleet and which time this speaks."""
        return f"{count(len(self.fleet.hosts), 'host')}{seen(self.fleet.hosts)}; evidence read by psodlib"

    @property
    def notice(self) -> str:
        """What stands at the top of every page, where the fleet is made up."""
        return SIMULATED if self.fleet.simulated else ""

    @cached_property
    def counts(self) -> SimpleNamespace:
        """How the crashes are counted: a number for each name of ``STEPS``."""
        crashes, boots = self.fleet.crashes, self.fleet.uptimes
        ends, lost = boots["end_reason"].value_counts(), boots["crash_id"].isna() & (boots["end_reason"] == "crash")
        asked = crashes["deliberate"].fillna(False).astype(bool)
        mine, hardware, nobody = (
            (crashes[name] == word).fillna(False) & ~asked
            for name, word in (("guilty_module", self.module), ("guilt", "hardware"), ("guilt", "none"))
        )
        unwatched = (unplaced_crashes(self.fleet, self.module)["guilty_module"] == self.module).fillna(False)
        counted = self.exposure.groupby(self.exposure["version"].isna())["crashes"].sum()
        found = SimpleNamespace(
            stops=len(boots) - ends.get("running", 0), planned=ends.reindex(["reboot", "shutdown", "power"]).sum(),
            unexplained=ends.get("unexplained", 0), unclear=ends.get("unknown", 0),
            crashed=ends.get("crash", 0), no_boot=len(crashes) - ends.get("crash", 0) + lost.sum(),
            crashes=len(crashes) + lost.sum(), lost_text=lost.sum(), texts=len(crashes), deliberate=asked.sum(),
            hardware=hardware.sum(), others=(~(mine | hardware | nobody | asked)).sum(), nobody=nobody.sum(),
            module=mine.sum(), unwatched=unwatched.sum(), no_version=counted.get(True, 0), in_rates=counted.get(False, 0),
        )  # fmt: skip
        found.repeats = max(found.module - found.unwatched - found.in_rates - found.no_version, 0)
        return SimpleNamespace(**{name: int(number) for name, number in vars(found).items()})

    @cached_property
    def needed(self) -> pd.DataFrame:
        """What each version still lacks, as ``still_needed`` has it."""
        return still_needed(self.decision, self.exposure)


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
    decision, why_none = _decided(fleet, stretches, rates, candidates, None if plan is None else plan.to)
    running = None if plan is None else watch_rollout(fleet, plan, today=today or datetime.now(UTC))
    if plan is not None and decision:
        outside = ~decision.moves["host"].isin(plan.waves["host"])
        decision = replace(decision, moves=decision.moves[outside].reset_index(drop=True))
    asked, module = tuple(candidates or ()), str(stretches.attrs["module"])
    return Study(fleet, module, stretches, rates, decision, why_none, asked, outage_hours, running)


def _decided(fleet: Any, stretches: Any, rates: Any, candidates: Any, before: Any) -> tuple[PinDecision | None, str]:
    if candidates:
        return decide_pin(stretches, candidates, before=before), ""
    module = stretches.attrs["module"]
    watched = [str(name) for name in rates.index[rates["host_days"] > 0] if known(name)]
    if len(watched) < 2:
        seen = f"only {module} {watched[0]}" if watched else f"no known version of {module or 'any driver'}"
        return None, f"There is nothing to choose between: {seen} was watched for any length of time."
    hosts = stretches.loc[stretches["version"].notna(), "host"].dropna().unique()
    if len(hosts) == 1:
        why = "what else changed on it with the version cannot be told apart"
        return None, f"One host ranks no versions: {module} was watched on {literal(hosts[0])} alone, and {why}."
    # Whose hosts all crashed, for whatever cause, was collected for it: a fleet is to be judged, not its victims.
    whole = stretches.assign(crashes=stretches["crashes"] + stretches["other_crashes"])
    if _all_crashed(fleet) and only_crashed_hosts(whole):
        why = "only hosts that crashed are in the evidence, and these were chosen by their crashes"
        return None, f"No decision can be made: {why}."
    try:
        return decide_pin(stretches, before=before), ""
    except InputError as error:  # such as: only hosts that crashed are given
        return None, f"No decision can be made: {error}."


def still_needed(decision: PinDecision | None, exposure: Any) -> pd.DataFrame:
    """Further host-days that each candidate needs until we could decide, and the weeks they take at today's pace."""
    newest: Any = exposure["end"].max() if {"start", "end"} <= set(exposure.columns) else None
    rows = []
    for version, needed in (decision.host_days_needed if decision else {}).items():
        here, pace = exposure[(exposure["version"] == version).fillna(False)], 0.0
        if known(newest):
            since = newest - pd.Timedelta(weeks=WEEKS)
            late = here[here["end"] > since]
            pace = float(((late["end"] - late["start"].clip(lower=since)) / pd.Timedelta(days=1)).sum()) / WEEKS
        weeks = 0.0 if needed == 0 else needed / pace if needed is not None and pace else None
        rows.append((version, float(here["host_days"].sum()), needed, pace, weeks))
    table = pd.DataFrame(rows, columns=["version", "host_days", "needed", "per_week", "weeks"])
    return table.astype({"version": "string", "needed": "Float64", "weeks": "Float64"})


# ---- how the crashes are counted -------------------------------------------------------------------------------------------

# From the stops of hosts to the crashes that stand in the rates: each count, its line in the table that adds up, what it means.
STEPS = {
    "stops": ("Times a host stopped", ""),
    "planned": ("- planned", "reboots, shutdowns and power-offs"),
    "unexplained": ("- unexplained", "each may be a crash whose dump was lost; not counted as one"),
    "unclear": ("- end not seen", "the logs end before the boot does"),
    "no_boot": ("+ crash in no known boot", "its text was found, but not the boot that it ended"),
    "crashes": ("= crashes", ""),
    "lost_text": ("- text lost", "the host came back from a crash, and no dump or log tells more; counted as unknown cause"),
    "texts": ("= crashes with a text", ""),
    "deliberate": ("- asked for", "a person made the host crash"),
    "hardware": ("- hardware errors", "the platform reported that it failed"),
    "others": ("- other modules", ""),
    "nobody": ("- no module found", "the ratio is given with and without them"),
    "module": ("= caused by {}", ""),
    "unwatched": ("- outside watched time", "no logs around them, so they are in no rate"),
    "repeats": ("- repeats", "in a boot loop, within an hour of uptime; counted once"),
    "no_version": ("- version not known", "which {} was loaded is not known"),
    "in_rates": ("= counted in the rates", ""),
}  # fmt: skip


def reconciliation(study: Study) -> Table:
    """The counts as a table that adds up, line by line."""
    steps = [(step.format(study.driver), getattr(study.counts, name), why) for name, (step, why) in STEPS.items()]
    steps = [(step, number, why) for step, number, why in steps if number or step.startswith("=")]
    rows = [(step, f"{number:,}", why.format(study.driver)) for step, number, why in steps]
    totals = [at for at, (step, *_) in enumerate(steps) if not step.startswith(("-", "+"))]
    return Table("", ["Step", "Crashes", "What it means"], rows, widths=(28, 12, 60), marked=totals)


# ---- what could make it wrong ----------------------------------------------------------------------------------------------


def doubts(study: Study) -> list[str]:
    """What could make the answer wrong: what the decision warns of, what the evidence lacks, and the rule's own weak spots."""
    decision = study.decision
    own = [as_sentence(reason) for reason in decision.reasons[len(decision.options) :]] if decision else []
    days = study.exposure.attrs["pending_days"]
    waited = f"For {count(days, 'host-day')} another version of {study.driver} was installed and waited for the next boot; that time stands under the one that ran."
    return [*own, *unknowns(study), *(WEAK_SPOTS if decision else ()), *([waited] if days >= 1 else [])]


def unknowns(study: Study) -> list[str]:
    """What the evidence lacks, and how much of it there is."""
    fleet, problems = study.fleet, study.fleet.problems["problem"]
    lived, watched = (fleet.uptimes[name].dt.total_seconds().sum() / 86400 for name in ("uptime", "observed"))
    gap = lived - watched
    unnamed = study.exposure.loc[study.exposure["version"].isna(), "host_days"].sum()
    unread = int((~problems.isin(["no_evidence", "no_host", "unplaced_crash", "unused"])).sum())
    ahead = fleet.hosts.loc[fleet.hosts["last_seen"] > pd.Timestamp.now("UTC") + pd.Timedelta(days=1), "last_seen"]
    homeless, silent, only = int((problems == "no_host").sum()), len(unheard(fleet)), only_crashed(study)
    lines = [
        (gap >= 1, f"{count(gap, 'host-day')} ({share(gap, lived)} of the time hosts were up) have no logs; crashes in them are not counted."),
        (unnamed and study.decision is None, f"For {count(unnamed, 'host-day')} it is not known which version of {study.driver} was loaded."),
        (silent, f"{count(silent, 'host')} of the inventory left no evidence at all."),
        (only, only),
        (len(ahead), f"{count(len(ahead), 'host has', 'hosts have')} evidence from after today (until {day(ahead.max())}): a clock was wrong, and every count by time with it."),
        (homeless, f"{count(homeless, 'file names', 'files name')} no host; what they hold is in no rate."),
        (unread, f"{count(unread, 'file or line', 'files or lines')} could not be read or believed; tables/problems.csv lists them."),
    ]  # fmt: skip
    return [line for holds, line in lines if holds]


def unheard(fleet: Tables) -> list[str]:
    """The hosts that an inventory names and no evidence speaks of."""
    silent = fleet.hosts.loc[fleet.hosts["last_seen"].isna() & fleet.hosts["first_seen"].isna(), "host"].dropna()
    heard = pd.concat([table["host"] for table in (fleet.crashes, fleet.uptimes, fleet.drivers)]).dropna()
    return [str(host) for host in silent[~silent.isin(set(heard))]]


def only_crashed(study: Study) -> str:
    """Dumps are sent in by those who crashed: a fleet of such hosts alone has rates that no other fleet has."""
    hosts = _all_crashed(study.fleet)
    many = f"All {hosts:,} hosts in the evidence crashed"
    return f"{many}. If only hosts that crashed were collected, every rate here is too high." if hosts > 1 else ""


def _all_crashed(fleet: Tables) -> int:
    # How many hosts there are, where each crashed and nobody asked for it; else 0.
    crashed = set(fleet.crashes.loc[~fleet.crashes["deliberate"].fillna(False), "host"].dropna())
    hosts = set(fleet.uptimes["host"].dropna()) | crashed
    return len(hosts) if hosts <= crashed else 0
