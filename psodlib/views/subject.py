"""What every section of one write-up looks at, and what several pages say alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from psodlib.fleet import Fleet
from psodlib.records import Crash
from psodlib.schema import Tables
from psodlib.triage.known_issues import Issue
from psodlib.views.account import Account
from psodlib.views.document import Text
from psodlib.views.words import count, known, literal, moment, span

__all__ = ["Case", "describe_crash", "drivers_of", "unheard"]

KINDS = {"page_fault": "a page fault", "machine_check": "a machine check", "nmi": "a non-maskable interrupt"}


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


def unheard(fleet: Tables) -> list[str]:
    """The hosts that an inventory names and no evidence speaks of."""
    silent = fleet.hosts.loc[fleet.hosts["last_seen"].isna() & fleet.hosts["first_seen"].isna(), "host"].dropna()
    heard = pd.concat([table["host"] for table in (fleet.crashes, fleet.uptimes, fleet.drivers)]).dropna()
    return [str(host) for host in silent[~silent.isin(set(heard))]]


def describe_crash(crash: Crash) -> Text:
    """One crash in a paragraph: what stopped where, after how long, and which module the evidence points at."""
    if not crash.text:
        return Text("There is no crash in this text.")
    what = KINDS.get(crash.kind, crash.kind.replace("_", " "))
    place = f"PCPU {crash.pcpu}" if known(crash.pcpu) else "a PCPU that the text does not name"
    world = f" in world {literal(crash.world_name)}" if known(crash.world_name) else ""
    lived = f", {span(crash.uptime)} after boot" if known(crash.uptime) else ""
    guilty = (
        f"The evidence points at module {literal(crash.guilty_module)}, function {literal(crash.guilty_function)} "
        f"(kind of evidence: {crash.guilt.replace('_', ' ')})."
        if known(crash.guilty_module)
        else "No module could be named."
    )
    when = f"On {moment(crash.time)}" if known(crash.time) else "At a time that the text does not tell"
    frames = count(len(crash.frames), "frame")
    damage = f"The text is damaged: {crash.damage.replace(';', ', ').replace('_', ' ')}." if crash.damage else ""
    return Text(
        " ".join(
            filter(None, [f"{when} {place} hit {what}{world}{lived}. The backtrace has {frames}.", guilty, damage])
        )
    )
