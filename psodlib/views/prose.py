"""What notebooks say between their tables and charts: sentences made from the data, shown letter by letter.

A notebook's own text holds no number. Where a number is wanted, a cell shows a ``Prose``: plain text inside, escaped
where it meets HTML, so that log text, host names and inventories can stand in a sentence whatever they hold.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd

from psodlib.records import Crash, Frame
from psodlib.views.document import Block, Bullets, Code, Section, Steps, Table, Text
from psodlib.views.words import count, days, known, listing, literal, moment, share, span

__all__ = [
    "Prose", "Shown", "TextTable", "bullets", "describe_crash", "describe_fleet", "describe_problems", "describe_signatures",
    "line_by_line", "notice", "say", "signature_table", "unheard",
]  # fmt: skip

SIMULATED = "Simulated fleet: hosts, crashes and figures on this page are made up."
DAY = pd.Timedelta(days=1)
OWNED_BY = {"symbol_prefix": "by the symbol's prefix", "module_map": "by the module map"}
KINDS = {"page_fault": "a page fault", "machine_check": "a machine check", "nmi": "a non-maskable interrupt"}


class Tables(Protocol):
    """The tables of a ``Fleet`` that sentences are made from."""

    @property
    def hosts(self) -> pd.DataFrame: ...
    @property
    def crashes(self) -> pd.DataFrame: ...
    @property
    def uptimes(self) -> pd.DataFrame: ...
    @property
    def drivers(self) -> pd.DataFrame: ...
    @property
    def problems(self) -> pd.DataFrame: ...
    @property
    def simulated(self) -> bool: ...


@dataclass(frozen=True, repr=False)
class Prose:
    """A few lines of plain text that a notebook shows as paragraphs, or as a list."""

    lines: tuple[str, ...]  # one paragraph or item each; any text, never markup
    listed: bool = False  # true shows a list

    def __str__(self) -> str:
        return "\n".join(f"- {line}" if self.listed else line for line in self.lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        # A dollar in a tag of its own cannot pair with another into mathematics.
        shown = [html.escape(literal(line)).replace("$", "<span>$</span>") for line in self.lines]
        if self.listed:
            return f"<ul>{''.join(f'<li>{line}</li>' for line in shown)}</ul>"
        return "".join(f"<p>{line}</p>" for line in shown)


def say(*sentences: str) -> Prose:
    """Sentences as one paragraph."""
    return Prose((" ".join(sentence for sentence in sentences if sentence),))


def bullets(items: Iterable[str], empty: str = "Nothing.") -> Prose:
    """A list."""
    lines = tuple(items)
    return Prose(lines, listed=True) if lines else Prose((empty,))


def notice(fleet: Tables) -> Prose:
    """What kind of evidence the page shows: said first on every page."""
    if fleet.simulated:
        return say(SIMULATED)
    first, last = fleet.hosts["first_seen"].min(), fleet.hosts["last_seen"].max()
    dates = f", {days(first, last)}" if known(first) and known(last) else ""
    return say(f"Evidence of {count(len(fleet.hosts), 'host')}{dates}.")


_HASH = re.compile(r"\b[0-9a-f]{40,128}\b")
_MOMENT = re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?: UTC)?")


@dataclass(frozen=True, repr=False)
class TextTable:
    """A table of words as a notebook shows it: flush left, whole, without its index; an empty one is said."""

    table: pd.DataFrame  # any; its cells are shown letter by letter

    def __repr__(self) -> str:
        return self.table.to_string(index=False)

    def _repr_html_(self) -> str:
        if self.table.empty:  # a head over nothing looks like a fault of the page
            return say("Nothing to show: no row.")._repr_html_()
        with pd.option_context("display.max_colwidth", None):
            shown = self.table.map(_cell).to_html(index=False, border=0)
        # The cells are escaped, so these tags are ours alone.
        for tag in ("th", "td"):
            shown = shown.replace(f"<{tag}>", f'<{tag} style="text-align: left">')
        # A hash that cannot break takes the width of all other columns; a time that breaks becomes a column of numbers.
        shown = _HASH.sub(r'<span style="overflow-wrap: anywhere">\g<0></span>', shown)
        shown = _MOMENT.sub(r'<span style="white-space: nowrap">\g<0></span>', shown)
        return shown.replace("$", "<span>$</span>")


def _cell(value: Any) -> str:
    # A time to the second and a span in two units, as every sentence has them.
    if isinstance(value, pd.Timestamp):
        return moment(value)
    return span(value) if isinstance(value, pd.Timedelta) else literal(value)


@dataclass(frozen=True, repr=False)
class Shown:
    """A section of a ``Document`` as a notebook shows it: its blocks one below the other, without its heading."""

    section: Section  # of a ``Document``; pictures are left out, because the notebook draws its own

    def __repr__(self) -> str:
        return f"{self.section.title}: {count(len(self.section.blocks), 'block')}"

    def _repr_html_(self) -> str:
        return "".join(_block(block) for block in self.section.blocks)


def _block(block: Block) -> str:
    match block:
        case Text():
            return say(block.text)._repr_html_()
        case Bullets():
            return bullets(block.items)._repr_html_()
        case Code():
            return f"<pre>{html.escape(literal(block.text))}</pre>"
        case Steps():
            return "".join(
                f"{say(f'{number}. {text}')._repr_html_()}"
                f"{f'<pre>{html.escape(literal(commands))}</pre>' if commands else ''}"
                f"{say(f'Expect: {answer}' if answer else '')._repr_html_()}"
                for number, (text, commands, answer) in enumerate(block.items, 1)
            )
        case Table():
            shown = pd.DataFrame([[literal(cell) for cell in row] for row in block.rows], columns=list(block.columns))
            words = say(f"{block.caption}." if block.caption else "", block.note)
            return words._repr_html_() + TextTable(shown)._repr_html_()
        case _:
            return ""


# --- one crash ------------------------------------------------------------------------------------------------------


def describe_crash(crash: Crash) -> Prose:
    """One crash in a paragraph: what stopped where, after how long, and which module the evidence points at."""
    if not crash.text:
        return say("There is no crash in this text.")
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
    return say(f"{when} {place} hit {what}{world}{lived}. The backtrace has {frames}.", guilty, _damage(crash))


def _damage(crash: Crash) -> str:
    if not crash.damage:
        return ""
    return f"The text is damaged: {crash.damage.replace(';', ', ').replace('_', ' ')}."


def line_by_line(crash: Crash) -> pd.DataFrame:
    """The crash's own text beside what each line tells."""
    lines = [line.rstrip("\r") for line in crash.text.rstrip("\n").split("\n")] if crash.text else []
    return pd.DataFrame(
        {"line": range(1, len(lines) + 1), "text": lines, "tells": [_tells(line, crash) for line in lines]}
    )


def _tells(line: str, crash: Crash) -> str:
    for frame in crash.frames:
        if frame.address is not None and f"[0x{frame.address:x}]" in line.lower():
            return _tells_frame(frame)
    if crash.message and crash.message.strip() and crash.message.strip() in line:
        fault = f", exception {crash.exception}" if known(crash.exception) else ""
        touched = f", while touching address 0x{crash.fault_address:x}" if crash.fault_address is not None else ""
        return f"{crash.kind.replace('_', ' ')}{fault} in world {literal(crash.world_name)}{touched}"
    if "uptime" in line and known(crash.uptime):
        return f"the boot had lived {span(crash.uptime)}; kernel code starts at 0x{crash.code_start or 0:x}"
    return "registers, module bases and the like: nothing that a number rests on"


def _tells_frame(frame: Frame) -> str:
    depth = "innermost frame" if frame.index == 0 else f"frame {frame.index}, a caller"
    how = OWNED_BY.get(frame.module_evidence or "", "as printed")
    owner = f"module {literal(frame.module)} {how}" if frame.module else "no module known"
    return f"{depth}: {literal(frame.function)}, {owner}"


# --- the fleet ------------------------------------------------------------------------------------------------------


def describe_fleet(fleet: Tables) -> Prose:
    """What was read of a fleet, and what follows from what was not."""
    crashes = fleet.crashes
    deliberate = int(crashes["deliberate"].fillna(False).sum())
    asked = f", {count(deliberate, 'of them', 'of them')} asked for by a person" if deliberate else ""
    modules = fleet.drivers["module"].nunique()
    return bullets([
        _roster(fleet),
        _lives(fleet.uptimes),
        f"{count(len(crashes), 'crash', 'crashes')} on {count(crashes['host'].nunique(), 'host')}{asked}."
        if len(crashes) else "No crash was found: rates can only be bounded from above, and no module can be named.",
        f"{count(len(fleet.drivers), 'observation')} of driver versions, of {count(modules, 'module')}."
        if modules else "No driver version was seen, so no crash or host-day can be given to one.",
        _inventory(fleet.hosts),
    ])  # fmt: skip


def _roster(fleet: Tables) -> str:
    hosts = fleet.hosts
    silent = len(unheard(fleet))
    alone = " One host says nothing of others." if len(hosts) == 1 else ""
    quiet = f" {count(silent, 'host')} of the inventory left no evidence." if silent else ""
    first, last = hosts["first_seen"].min(), hosts["last_seen"].max()
    dates = f", {days(first, last)}" if known(first) and known(last) else "; no fact about them bears a time"
    return f"{count(len(hosts), 'host')}{dates}.{quiet}{alone}"


def _lives(uptimes: pd.DataFrame) -> str:
    if uptimes.empty:
        return "No boot is known, so no host-day of life: nothing can be said of rates."
    # In days before they are summed: the lives of a thousand hosts overflow a Timedelta.
    lived, seen = (uptimes[name].dt.total_seconds().sum() / 86_400 for name in ("uptime", "observed"))
    blind = f"{share(max(lived - seen, 0), lived)} of it without evidence" if lived else "none of it with evidence"
    unexplained = int((uptimes["end_reason"] == "unexplained").sum())
    doubt = count(unexplained, "boot") if unexplained else "no boot"
    return f"{count(len(uptimes), 'boot')} in {count(lived, 'host-day')} of life, {blind}; {doubt} ended without an explanation."


def unheard(fleet: Tables) -> list[str]:
    """The hosts that an inventory names and no evidence speaks of."""
    silent = fleet.hosts.loc[fleet.hosts["last_seen"].isna() & fleet.hosts["first_seen"].isna(), "host"].dropna()
    heard = pd.concat([table["host"] for table in (fleet.crashes, fleet.uptimes, fleet.drivers)]).dropna()
    return [str(host) for host in silent[~silent.isin(set(heard))]]


def _inventory(hosts: pd.DataFrame) -> str:
    has = [name for name in ("cluster", "model", "users", "vms") if name in hosts and hosts[name].notna().any()]
    lacks = [name for name in ("cluster", "users", "vms") if name not in has]
    if not lacks:
        return f"The inventory gives {listing(has)}."
    lost = {"cluster": "whether clusters differ", "users": "how many users a crash hits", "vms": "how many VMs"}
    return f"No inventory gives {listing(lacks)}: {listing(lost[name] for name in lacks)} cannot be said."


def describe_problems(fleet: Tables) -> Prose:
    """How much could not be read or believed."""
    kinds = fleet.problems["problem"].value_counts()
    items = [f"{str(kind).replace('_', ' ')}: {number:,}" for kind, number in kinds.items() if number]
    return bullets(items, "Everything that was found could be read.")


# --- signatures -----------------------------------------------------------------------------------------------------


def signature_table(crashes: pd.DataFrame) -> pd.DataFrame:
    """Crashes grouped by what they look like: one row a signature."""
    rows = [
        {
            "signature": literal(name), "crashes": len(group), "hosts": group["host"].nunique(),
            "guilty_module": _distinct(group["guilty_module"]), "guilt": _distinct(group["guilt"]),
            "versions": _distinct(group["driver_version"]), "known_issues": _distinct(group["known_issues"]),
            "first": group["time"].min(), "last": group["time"].max(),
        }
        for name, group in crashes.groupby(crashes["signature"].fillna("no signature"), sort=True)
    ]  # fmt: skip
    columns = ["signature", "crashes", "hosts", "guilty_module", "guilt", "versions", "known_issues", "first", "last"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values(["crashes", "signature"], ascending=[False, True], ignore_index=True)


def _distinct(values: pd.Series[Any]) -> str:
    return listing(sorted({str(value) for value in values.dropna()}), most=3, empty="")


def describe_signatures(crashes: pd.DataFrame) -> Prose:
    """How the crashes fall into groups, and how many of them are explained."""
    if crashes.empty:
        return say("No crash was found, so there is nothing to group.")
    table = signature_table(crashes)
    top = table.iloc[0]
    issues = int(crashes["known_issues"].fillna("").str.len().gt(0).sum())
    unnamed = int((crashes["guilt"] == "none").sum())
    return say(
        f"{count(len(crashes), 'crash falls', 'crashes fall')} into {count(len(table), 'signature')}; the largest, "
        f"{top['signature']}, holds {top['crashes']:,} on {count(top['hosts'], 'host')}.",
        f"{count(unnamed, 'crash names', 'crashes name')} no module;",
        f"{count(issues, 'crash matches', 'crashes match')} a known issue.",
    )
