"""What every section of one write-up looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from psodlib.fleet import Fleet
from psodlib.triage.known_issues import Issue
from psodlib.views.account import Account
from psodlib.views.words import known, literal

__all__ = ["Case", "drivers_of"]


def drivers_of(fleet: Fleet, crash: pd.Series) -> pd.DataFrame:
    """The observations of a crash's guilty module on its host."""
    table = fleet.drivers
    own: pd.DataFrame = table[
        ((table["host"] == crash["host"]) & (table["module"] == crash["guilty_module"])).fillna(False)
    ]
    return own


@dataclass(frozen=True)
class Case:
    """One crash, the fleet around it, and what was asked of its write-up."""

    fleet: Fleet  # the tables
    crash: pd.Series  # a row of ``crashes``
    issues: tuple[Issue, ...]  # the known issues there are
    go_to: str | None  # the version that the pin decision favours
    timeline: pd.DataFrame  # what ``incident_timeline`` gives
    account: Account  # what people know besides
    typed: Mapping[str, str]  # files of commands typed on the host, by name, as they are

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
    def drivers(self) -> pd.DataFrame:
        """The host's observations of the guilty module."""
        return drivers_of(self.fleet, self.crash)

    @property
    def told(self) -> pd.DataFrame:
        """What a vCenter told of the host from ten minutes before the crash to an hour after it."""
        events, time = self.fleet.events, self.crash["time"]
        own = (events["host"] == self.crash["host"]).fillna(False)
        near = (events["time"] >= time - pd.Timedelta(minutes=10)) & (events["time"] <= time + pd.Timedelta(hours=1))
        return events[own & near] if known(time) else events.iloc[:0]

    @property
    def matched(self) -> list[Issue]:
        """The known issues that the crash matches."""
        words = str(self.crash["known_issues"]).split(";") if known(self.crash["known_issues"]) else []
        return [issue for issue in self.issues if issue.id in words]

    @property
    def no_culprit(self) -> str:
        """What stands where a guilty module would."""
        return {"hardware": "none: a hardware error", "deliberate": "none: asked for"}.get(
            str(self.crash["guilt"]), "none found"
        )
