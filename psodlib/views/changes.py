"""A store as it was before its last load, and as it is -> the page "what changed since last time"."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from psodlib.errors import InputError
from psodlib.fleet import Fleet
from psodlib.triage.changes import fleet_changes, sentences
from psodlib.views.cells import ADVICE
from psodlib.views.crash import way_to
from psodlib.views.document import Document, Link, Section, Table, Text
from psodlib.views.spreadsheet import write_csv
from psodlib.views.study import Study, study
from psodlib.views.words import SIMULATED, day, known, label, literal, moment, seen, span

ROWS = 100  # of a table on the page; the rest is in tables/
Cell = str | Link


def changes_since(before: Fleet, found: Study) -> dict[str, pd.DataFrame]:
    """What is new between two states of a fleet, the advice on the driver in question included."""
    decision, earlier = found.decision, None
    with suppress(InputError):  # nothing was known of the driver, or of a version that is asked about
        earlier = study(before, found.module, found.asked or None, found.outage_hours).decision
    advice = None if decision is None or earlier is None else (earlier.options, decision.options)
    return fleet_changes(before.tables, found.fleet.tables, advice)


def what_changed(before: Fleet, found: Study, folder: Path) -> Document:
    """The page; tables that are longer than it are written to ``folder``."""
    changes = changes_since(before, found)
    said = sentences(changes)
    return Document(
        title="What changed since last time",
        subtitle=f"Before: {len(before.hosts):,} hosts{seen(before.hosts)}. Now: {len(found.fleet.hosts):,} hosts{seen(found.fleet.hosts)}",
        lead=f"{'; '.join(said)}." if said else "Nothing that matters: no new crash, no host in another version, none fallen silent.",
        tone="bad" if len(changes["crashes"]) or len(changes["silent"]) else "good" if not said else "open",
        notice=SIMULATED if found.fleet.simulated else "",
        sections=[
            Section(title, [_table(changes[name], columns, row, folder / f"new_{name}.csv") if len(changes[name]) else Text(none)])
            for name, title, none, columns, row in _PARTS
            if name in changes
        ] + ([] if "advice" in changes else [Section(_ADVISED, [Text(f"There was no advice on {found.module} to compare, before or now.")])]),
    )  # fmt: skip


def _table(table: pd.DataFrame, columns: tuple[str, ...], row: Callable[[Any], list[Cell]], whole: Path) -> Table:
    write_csv(table, whole)
    more = len(table) - ROWS
    words = f"{more:,} more, all as a table (CSV)" if more > 0 else "The same as a table (CSV)"
    link = Link(f"{whole.parent.name}/{whole.name}", words)
    return Table("", columns, [row(entry) for entry in table.head(ROWS).itertuples()], link)


def _host(name: Any) -> Cell:
    return Link(way_to("host", name, "explorer.html"), label(name, 48)) if known(name) else "unknown"


def _crash(row: Any) -> list[Cell]:
    when = moment(row.time) if known(row.time) else "time unknown"
    guilty = " ".join(literal(part) for part in (row.guilty_module, row.driver_version) if known(part))
    crash = Link(way_to("crash", row.crash_id, "explorer.html"), when) if known(row.crash_id) else when
    return [crash, _host(row.host), guilty or "none found", label(row.signature, 80), literal(row.known_issues, "–")]


def _advice(word: Any) -> str:
    return ADVICE.get(str(word), literal(word)) if known(word) else "not among the versions"


_ADVISED = "How the advice changed"
_PARTS: tuple[tuple[str, str, str, tuple[str, ...], Callable[[Any], list[Cell]]], ...] = (
    ("crashes", "New crashes", "None.", ("When", "Host", "Guilty module", "Signature", "Known issue"), _crash),
    ("signatures", "Signatures seen for the first time", "None.", ("Signature", "Crashes", "Hosts", "First"),
     lambda row: [label(row.signature, 120), f"{row.crashes:,}", f"{row.hosts:,}", moment(row.first)]),
    ("versions", "Hosts in another version of a driver", "None.", ("Host", "Module", "From", "To", "First seen"),
     lambda row: [_host(row.host), literal(row.module), literal(row.from_version), literal(row.to_version), day(row.since)]),
    ("silent", "Hosts that fell silent", "None: every host that was alive with the fleet still is.", ("Host", "Last seen", "Behind the fleet"),
     lambda row: [_host(row.host), moment(row.last_seen), span(row.behind)]),
    ("advice", _ADVISED, "It is the same for every version.", ("Version", "Before", "Now"),
     lambda row: [literal(row.version), _advice(row.before), _advice(row.now)]),
)  # fmt: skip
