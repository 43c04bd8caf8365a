"""What every section of one write-up looks at, and the words that several of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from psodlib.fleet import Fleet
from psodlib.triage.known_issues import Issue
from psodlib.views.words import known, literal

__all__ = ["Case", "boots_of", "no_culprit", "place_of"]


@dataclass(frozen=True)
class Case:
    """One crash, the fleet around it, and what was asked of its write-up."""

    fleet: Fleet  # the tables
    crash: pd.Series  # A row of ``crashes``
    issues: tuple[Issue, ...]  # the known issues there are
    go_to: str | None  # the version that the pin decision favours
    timeline: pd.DataFrame  # what ``incident_timeline`` gives

    @property
    def host(self) -> str:
        """The host, as text."""
        return literal(self.crash["host"])

    @property
    def module(self) -> str | None:
        """The guilty module; None where none is known."""
        return literal(self.crash["guilty_module"]) if known(self.crash["guilty_module"]) else None

    @property
    def version(self) -> str | None:
        """The version that was loaded; None where it is not known."""
        return literal(self.crash["driver_version"]) if known(self.crash["driver_version"]) else None

    @property
    def matched(self) -> list[Issue]:
        """The known issues that the crash matches."""
        words = str(self.crash["known_issues"]).split(";") if known(self.crash["known_issues"]) else []
        return [issue for issue in self.issues if issue.id in words]


def boots_of(fleet: Fleet, crash: pd.Series) -> tuple[pd.DataFrame, int]:
    """The host's boots in order, and the place of the one that crashed."""
    boots = fleet.uptimes[fleet.uptimes["host"] == crash["host"]].sort_values("boot").reset_index(drop=True)
    own = boots.index[(boots["crash_id"] == crash["crash_id"])]
    if len(own) == 0 and known(crash["time"]):
        own = boots.index[(boots["boot"] <= crash["time"]) & (boots["end"] >= crash["time"])]
    return boots, int(own[0]) if len(own) else -1


def place_of(source: Any, line: Any) -> str:
    """Where a reader finds a fact: file and line."""
    return f"{literal(source)}:{line}" if known(source) and known(line) else literal(source)


def no_culprit(crash: pd.Series) -> str:
    """What stands where a guilty module would."""
    return {"hardware": "none: a hardware error", "deliberate": "none: asked for"}.get(
        str(crash["guilt"]), "none found"
    )
