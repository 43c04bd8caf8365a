"""One crash -> the content of its write-up: what happened when, on what evidence, why, whom it hit, what to do.

Every sentence is made from the tables by a small function, and says what is not known where the tables do not.
``document.py`` turns the content into HTML, PDF and Markdown.

    subject    what all sections share      timeline   what happened when     evidence   facts, stack, cause
    runbook    what to do                  impact     whom it hit            questions  what is open, what support asks
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from psodlib.errors import InputError
from psodlib.fleet import Fleet
from psodlib.triage.known_issues import Issue
from psodlib.triage.timeline import incident_timeline
from psodlib.views.document import Bullets, Document, Picture, Section, Text
from psodlib.views.prose import SIMULATED
from psodlib.views.site import read_site, site_section
from psodlib.views.words import count, known, listing, literal, moment
from psodlib.views.writeup.evidence import cause_blocks, evidence_table, headline_facts, lead_sentence, stack_tables
from psodlib.views.writeup.impact import impact_lines, known_issue_blocks
from psodlib.views.writeup.questions import open_questions, support_table
from psodlib.views.writeup.runbook import runbook_blocks
from psodlib.views.writeup.subject import Case
from psodlib.views.writeup.timeline import timeline_table

__all__ = ["SIMULATED", "asked_for", "choose_crash", "write_up"]


def choose_crash(fleet: Fleet, crash_id: str | None = None, module: str = "hpsa") -> pd.Series | None:
    """The crash to write up."""
    crashes = fleet.crashes
    if crash_id is not None:
        found = crashes[crashes["crash_id"] == crash_id]
        if found.empty:
            raise InputError(
                f"crash {crash_id!r}: not among the {len(crashes)} crashes found; expected a crash_id of the table"
                f" crashes, such as {listing(crashes['crash_id'], most=3)}"
            )
        return found.iloc[0]
    unwanted = crashes[~crashes["deliberate"].fillna(False)]
    for rows in (unwanted[unwanted["guilty_module"] == module], unwanted, crashes):
        if len(rows):
            return rows.sort_values("time", na_position="first", kind="stable").iloc[-1]
    return None


def write_up(
    fleet: Fleet,
    crash: pd.Series | None,
    *,
    issues: Sequence[Issue] = (),
    go_to: str | None = None,
    pictures: Sequence[Picture | Text] = (),
    more: Sequence[Section] = (),
) -> Document:
    """The write-up of one crash."""
    if crash is None:
        return _nothing(fleet)
    case = Case(fleet, crash, tuple(issues), go_to, incident_timeline(fleet, str(crash["crash_id"])))
    return Document(
        title=f"Crash of {literal(crash['host'])}, {moment(crash['time']) if known(crash['time']) else 'time unknown'}",
        subtitle=f"Post-incident write-up of crash {literal(crash['crash_id'])}",
        lead=lead_sentence(crash),
        tone="bad",
        notice=SIMULATED if fleet.simulated else "",
        facts=headline_facts(case),
        sections=[
            Section("What happened when", [timeline_table(case), *pictures]),
            Section("Evidence", [evidence_table(case), *stack_tables(case)]),
            Section("Root cause, and how sure", cause_blocks(case)),
            Section("Whom it hit", [Bullets(impact_lines(case))]),
            Section("Known issue", known_issue_blocks(case)),
            Section("What to do", runbook_blocks(case)),
            Section("Open questions", [Bullets(open_questions(case))]),
            Section("What support will ask", [support_table(case)]),
            *more,
        ],
    )


def asked_for(crash_id: str, notes: str | Path | None = None, site: str | Path | None = None) -> list[Section]:
    """What goes into a write-up only because somebody asked."""
    from psodlib.views.explore.notes import (
        note_section,
        read_notes,
    )  # brings the widgets, which a plain write-up needs not

    said = note_section(read_notes(notes), crash_id) if notes is not None else None
    return [*([said] if said else []), *([site_section(read_site(site))] if site is not None else [])]


def _nothing(fleet: Fleet) -> Document:
    return Document(
        title="No crash to write up",
        lead=f"No crash was found on {count(len(fleet.hosts), 'host')}.",
        notice=SIMULATED if fleet.simulated else "",
        sections=[
            Section("What this means", [
                Text("Either no host stopped with a purple screen, or the evidence that would show it was not collected: the dump "
                     "logs in /var/core, the rotated vmkernel logs, or vm-support bundles. The report's list of problems says what "
                     "could not be read."),
            ]),
        ],
    )  # fmt: skip
