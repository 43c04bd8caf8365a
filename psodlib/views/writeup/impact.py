"""Whom the crash hit, and which known issue it matches."""

from __future__ import annotations

import pandas as pd

from psodlib.triage.known_issues import Issue
from psodlib.views.document import Bullets, Text
from psodlib.views.words import count, known, literal, span
from psodlib.views.writeup.subject import Case, boots_of

__all__ = ["impact_lines", "known_issue_blocks"]


def impact_lines(case: Case) -> list[str]:
    """Whom the crash hit, and what else bears its signature."""
    lines = [_down_time(case), _people(case)]
    crashes = case.fleet.crashes
    alike = crashes[(crashes["signature"] == case.crash["signature"]) & (crashes["crash_id"] != case.crash["crash_id"])]
    if len(alike):
        lines.append(f"{count(len(alike), 'other crash', 'other crashes')} on {count(alike['host'].nunique(), 'host')} "
                     f"{'carries' if len(alike) == 1 else 'carry'} the same signature: {literal(case.crash['signature'])}.")  # fmt: skip
    else:
        lines.append(f"No other crash in the evidence carries its signature: {literal(case.crash['signature'])}.")
    if not (case.fleet.uptimes["observed"] > pd.Timedelta(0)).any():
        lines.append(
            "This is the report of one case: for how many host-days hosts ran without a crash is not known, so no rate can be given."
        )
    return lines


def _down_time(case: Case) -> str:
    boots, own = boots_of(case.fleet, case.crash)
    if own < 0 or own + 1 >= len(boots) or not known(case.crash["time"]):
        return "How long the host was down is not known: the evidence shows no boot after the crash."
    return (
        f"The host was down for {span(boots['boot'].iloc[own + 1] - case.crash['time'])} (from the crash to its next"
        " boot)."
    )


def _people(case: Case) -> str:
    row = case.fleet.hosts[case.fleet.hosts["host"] == case.crash["host"]]
    parts = []
    for column in ("users", "vms"):
        if column in row and len(row) and known(row[column].iloc[0]):
            parts.append(f"{literal(row[column].iloc[0])} {'virtual machines' if column == 'vms' else column}")
    if not parts:
        return (
            "How many users were hit cannot be said: the inventory has no users or vms for this host, or no inventory"
            " was given."
        )
    return (
        f"The inventory lists {' and '.join(parts)} on this host; how many were at work at that moment is not in the"
        " evidence."
    )


def known_issue_blocks(case: Case) -> list[Text | Bullets]:
    """The known issues that the crash matches."""
    if not known(case.crash["known_issues"]) or not str(case.crash["known_issues"]):
        return [Text("No known issue on file matches this crash. That does not mean that the vendor knows none.")]
    if not case.matched:
        return [Text(f"Matches: {literal(case.crash['known_issues']).replace(';', ', ')}.")]
    return [Bullets([_issue_line(issue) for issue in case.matched])]


def _issue_line(issue: Issue) -> str:
    fixed = f" Fixed in {literal(issue.fixed_in)}." if issue.fixed_in else ""
    return (
        f"{literal(issue.id)}, {literal(issue.title)}.{fixed} {literal(issue.remedy)} (Source: {literal(issue.source)};"
        f" {issue.sure})"
    )
