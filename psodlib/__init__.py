"""psodlib: from a folder of ESXi crash evidence to a driver-pinning decision.

The way of the data, and the files it walks through:

    hosts ──collect──▶ evidence folder ──load──▶ Fleet (seven tables) ──exposure──▶ host-days at risk
                                                        │                                 │
                                                  triage, signatures               rates, ratio, decision
                                                        └────────── charts, notebooks, report ──────┘

    evidence/  bytes -> records        triage/  records -> what happened     assemble.py, fleet.py  -> tables
    risk/      tables -> numbers       views/   numbers -> people            cli.py    the same words on a command line

>>> import psodlib as psod
>>> fleet = psod.load("data/demo-fleet", inventory="data/inventory.csv")      # doctest: +SKIP
>>> exposure = psod.exposure(fleet)                                           # doctest: +SKIP
>>> print(psod.decide_pin(exposure).verdict)                                  # doctest: +SKIP
avoid

Names are imported when first used, so that ``import psodlib`` and ``psod --help`` cost nothing of matplotlib or scipy.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psodlib.anonymiser import anonymise
    from psodlib.collector import collect, collect_vcenter, verify
    from psodlib.errors import CollectError, InputError, PsodError, RuleError, SmallSampleWarning
    from psodlib.fleet import Fleet, load
    from psodlib.records import Crash, Frame
    from psodlib.risk.association import attributes_of_signature
    from psodlib.risk.canary import plan_canary, watch_canary
    from psodlib.risk.decision import PinDecision, decide_pin
    from psodlib.risk.exact import Interval
    from psodlib.risk.exposure import exposure
    from psodlib.risk.rates import RateRatio, crash_rates, driver_league, rate_ratio
    from psodlib.risk.rollout import RolloutPlan, plan_rollout
    from psodlib.risk.rollout_watch import RolloutWatch, watch_rollout
    from psodlib.risk.survival import time_to_crash
    from psodlib.simulate import simulate_fleet
    from psodlib.triage.compliance import fleet_compliance
    from psodlib.triage.crashes import explain, parse_crashes
    from psodlib.triage.devices import device_table
    from psodlib.triage.similar import propose_merges, similar_crashes
    from psodlib.views.case import case
    from psodlib.views.charts import (  # isort: skip
        plot_ascertainment, plot_evidence_needed, plot_fleet_map, plot_hazard, plot_host_days, plot_incident,
        plot_modules, plot_options, plot_rates, plot_ratio, plot_rollout, plot_survival, plot_uptime_at_crash,
        plot_waves, plot_weekly_rate,
    )  # fmt: skip
    from psodlib.views.explore import explore
    from psodlib.views.report import report

# Where the public names live. `tests/test_public.py` holds this, the contract and the docstrings together.
_NAMES = {
    "anonymiser": "anonymise",
    "collector": "collect collect_vcenter verify",
    "errors": "CollectError InputError PsodError RuleError SmallSampleWarning",
    "fleet": "Fleet load",
    "records": "Crash Frame",
    "risk.association": "attributes_of_signature",
    "risk.canary": "plan_canary watch_canary",
    "risk.decision": "PinDecision decide_pin",
    "risk.exact": "Interval",
    "risk.exposure": "exposure",
    "risk.rates": "RateRatio crash_rates driver_league rate_ratio",
    "risk.rollout": "RolloutPlan plan_rollout",
    "risk.rollout_watch": "RolloutWatch watch_rollout",
    "risk.survival": "time_to_crash",
    "simulate": "simulate_fleet",
    "triage.compliance": "fleet_compliance",
    "triage.crashes": "explain parse_crashes",
    "triage.devices": "device_table",
    "triage.similar": "propose_merges similar_crashes",
    "views.case": "case",
    "views.charts": "plot_ascertainment plot_evidence_needed plot_fleet_map plot_hazard plot_host_days plot_incident plot_modules plot_options "
    "plot_rates plot_ratio plot_rollout plot_survival plot_uptime_at_crash plot_waves plot_weekly_rate",
    "views.explore": "explore",
    "views.report": "report",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = sorted(_HOME)
__version__ = _version("psodlib")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'psodlib' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"psodlib.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def cell(result: Any) -> str:
    """A result as a notebook shows it; looked up when it is shown, because the wing that draws comes last."""
    shown: str = importlib.import_module("psodlib.views.cells").html(result)
    return shown


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
