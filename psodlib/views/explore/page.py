"""The explorer as a page of the report: one script inside, every crash a section with an address of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from markupsafe import escape

from psodlib.fleet import Fleet
from psodlib.views.crash import address_of, crash_title, pages_of, way_to, where
from psodlib.views.document import Block, Document, Link, Script, Section, Table, Text, html_text, to_html
from psodlib.views.explore.data import explorer_data
from psodlib.views.words import SIMULATED, known, label, moment

LIVES = ("hosts", "crashes", "uptimes", "drivers", "coverage")
MOST_BOOTS = 20_000  # in a picture beside others; the explorer's page has them all
MOST_PAGES = 200  # crashes with a section of their own; the list, the timeline and the hosts have them all


def listed_crashes(fleet: Fleet) -> pd.DataFrame:
    """The crashes with an id, newest first."""
    newest = fleet.crashes.sort_values("time", ascending=False, na_position="last", kind="stable")
    return newest[newest["crash_id"].notna()]


def lives_picture(fleet: Fleet, module: str, instead: Sequence[Block], host: Any = None) -> list[Block]:
    """Versions and crashes over time, of all hosts or of one, to hover and to zoom; its links lead to the explorer's page."""
    if known(host):
        fleet = replace(fleet, **{name: where(getattr(fleet, name), host=host) for name in LIVES})
    if len(fleet.uptimes) > MOST_BOOTS or fleet.uptimes["end"].isna().all():
        return list(instead)
    parts = ["hosts"] if known(host) else ["months", "rollout", "hosts"]
    return [Script("explorer.js", {**explorer_data(fleet, module), "parts": parts, "home": "explorer.html"}, instead)]


def offline_twin(fleet: Fleet, module: str) -> str:
    """The explorer without its crashes' pages as HTML to stand in another page, walled off from it: what an exported notebook shows."""
    if len(fleet.uptimes) > MOST_BOOTS:
        return str(html_text("This fleet is too large for a page: see explorer.html of psodlib's report."))
    script = Script("explorer.js", explorer_data(fleet, module))
    notice = SIMULATED if fleet.simulated else ""
    page = to_html(Document(title="Crashes and hosts", notice=notice, sections=[Section("Look through", [script])]))
    return f'<iframe title="Crashes and hosts" sandbox="allow-scripts" style="width: 100%; height: 60rem; border: 0" srcdoc="{escape(page)}"></iframe>'


def explorer_document(fleet: Fleet, module: str) -> Document:
    """All crashes and hosts of a fleet, to be filtered, sorted and opened; without a script, a list and all that is known of each."""
    crashes = listed_crashes(fleet).head(MOST_PAGES)
    page_of = pages_of(fleet, crashes)
    pages = [
        Section(crash_title(one), page_of(one), address_of("crash", one["crash_id"])) for _, one in crashes.iterrows()
    ]
    rows: Any = [
        [Link(way_to("crash", row.crash_id), moment(row.time) if known(row.time) else "time unknown"),
         *(label(cell) for cell in (row.host, row.guilty_module, row.driver_version, row.signature))]
        for row in crashes.itertuples()
    ]  # fmt: skip
    listed = Table("Crashes, newest first", ["When", "Host", "Module", "Version loaded", "Signature"], rows)
    script = Script("explorer.js", explorer_data(fleet, module), [listed if rows else Text("No crash was found.")])
    return Document(
        title="All crashes and hosts", subtitle=f"Boots are coloured by the version of {label(module)} that was loaded",
        notice=SIMULATED if fleet.simulated else "", sections=[Section("Look through", [script]), *pages],
    )  # fmt: skip
