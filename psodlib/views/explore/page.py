"""The explorer as a page of the report: one script inside, every crash a section with an address of its own."""

from __future__ import annotations

from typing import Any

import pandas as pd

from psodlib.fleet import Fleet
from psodlib.views.crash import address_of, crash_title, pages_of, way_to
from psodlib.views.document import Document, Link, Script, Section, Table, Text
from psodlib.views.explore.data import explorer_data
from psodlib.views.prose import SIMULATED
from psodlib.views.words import known, label, moment

__all__ = ["explorer_document", "listed_crashes"]

MOST_PAGES = 200  # crashes with a section of their own; the list, the timeline and the hosts have them all


def listed_crashes(fleet: Fleet) -> pd.DataFrame:
    """The crashes with an id, newest first."""
    newest = fleet.crashes.sort_values("time", ascending=False, na_position="last", kind="stable")
    return newest[newest["crash_id"].notna()]


def explorer_document(fleet: Fleet, module: str) -> Document:
    """All crashes and hosts of a fleet, to be filtered, sorted and opened; without a script, a list and all that is known of each."""
    crashes = listed_crashes(fleet).head(MOST_PAGES)
    page_of = pages_of(fleet, crashes)
    pages = [
        Section(crash_title(crash), page_of(crash), address_of("crash", crash["crash_id"]))
        for _, crash in crashes.iterrows()
    ]
    rows: Any = [
        [Link(way_to("crash", row.crash_id), moment(row.time) if known(row.time) else "time unknown"),
         *(label(cell) for cell in (row.host, row.guilty_module, row.driver_version, row.signature))]
        for row in crashes.itertuples()
    ]  # fmt: skip
    instead = [
        Table("Crashes, newest first", ["When", "Host", "Module", "Version loaded", "Signature"], rows)
        if rows
        else Text("No crash was found.")
    ]
    script = Script("explorer.js", explorer_data(fleet, module), instead)
    return Document(
        title="All crashes and hosts",
        subtitle=f"Boots are coloured by the version of {label(module)} that was loaded",
        notice=SIMULATED if fleet.simulated else "",
        sections=[Section("Look through", [script]), *pages],
    )
