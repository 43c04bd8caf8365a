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
    from psodlib.risk.exposure import exposure
    from psodlib.risk.league import driver_league
    from psodlib.risk.rates import Interval, RateRatio, crash_rates, rate_ratio
    from psodlib.risk.rollout import RolloutPlan, plan_rollout
    from psodlib.risk.rollout_watch import RolloutWatch, watch_rollout
    from psodlib.risk.survival import time_to_crash
    from psodlib.simulate import simulate_fleet
    from psodlib.triage.compliance import fleet_compliance
    from psodlib.triage.crashes import explain, parse_crashes
    from psodlib.triage.devices import device_table
    from psodlib.triage.similar import propose_merges, similar_crashes
    from psodlib.views.case import case
    from psodlib.views.charts import (
        plot_ascertainment,
        plot_evidence_needed,
        plot_fleet_map,
        plot_hazard,
        plot_host_days,
        plot_incident,
        plot_modules,
        plot_options,
        plot_rates,
        plot_ratio,
        plot_rollout,
        plot_survival,
        plot_uptime_at_crash,
        plot_waves,
        plot_weekly_rate,
    )
    from psodlib.views.explore import explore
    from psodlib.views.report import report

# Public name -> the module it lives in. `tests/test_public.py` holds this, the contract and the docstrings together.
_HOME = {
    "CollectError": "errors", "InputError": "errors", "PsodError": "errors", "RuleError": "errors",
    "SmallSampleWarning": "errors",
    "attributes_of_signature": "risk.association",
    "device_table": "triage.devices",
    "propose_merges": "triage.similar",
    "similar_crashes": "triage.similar",
    "anonymise": "anonymiser",
    "collect": "collector",
    "collect_vcenter": "collector",
    "verify": "collector",
    "Crash": "records", "Frame": "records",
    "explain": "triage.crashes", "parse_crashes": "triage.crashes",
    "Fleet": "fleet", "load": "fleet",
    "exposure": "risk.exposure",
    "driver_league": "risk.league",
    "PinDecision": "risk.decision", "decide_pin": "risk.decision",
    "fleet_compliance": "triage.compliance",
    "simulate_fleet": "simulate",
    "Interval": "risk.rates", "RateRatio": "risk.rates", "crash_rates": "risk.rates", "rate_ratio": "risk.rates",
    "time_to_crash": "risk.survival",
    "RolloutPlan": "risk.rollout", "plan_rollout": "risk.rollout",
    "RolloutWatch": "risk.rollout_watch", "watch_rollout": "risk.rollout_watch",
    "plan_canary": "risk.canary", "watch_canary": "risk.canary",
    "case": "views.case",
    "explore": "views.explore",
    "report": "views.report",
    **dict.fromkeys(
        [
            "plot_ascertainment",
            "plot_evidence_needed",
            "plot_fleet_map",
            "plot_hazard",
            "plot_host_days",
            "plot_incident",
            "plot_modules",
            "plot_options",
            "plot_rates",
            "plot_ratio",
            "plot_rollout",
            "plot_survival",
            "plot_uptime_at_crash",
            "plot_waves",
            "plot_weekly_rate",
        ],
        "views.charts",
    ),
}  # fmt: skip

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
