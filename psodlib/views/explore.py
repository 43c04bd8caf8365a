"""The fleet's crashes to look through: filters, a timeline, one crash at a time. Tables -> HTML -> widgets.

What is looked at is one small value, a ``Selection``; every view is a pure function of it and of tables, giving HTML
that stands in an exported page as it does in a widget. ``explore`` only joins views to widgets: it keeps the selection,
replaces it when somebody clicks, and draws again what depends on it.

Text of a log reaches a page through ``shown`` alone, and a widget's own labels through ``_words``.
"""

from __future__ import annotations

import html
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import ipywidgets as widgets
import pandas as pd
from markupsafe import Markup

from psodlib.errors import InputError
from psodlib.evidence.vmkernel import find_crashes
from psodlib.fleet import Fleet
from psodlib.records import Crash, Frame
from psodlib.triage.boots import loaded_versions
from psodlib.triage.guilt import weigh_evidence
from psodlib.triage.known_issues import Issue, load_issues
from psodlib.triage.signature import sign
from psodlib.views.charts import CRASH, PALETTE, UNKNOWN_VERSION, version_colours
from psodlib.views.document import Block, Section, Text
from psodlib.views.incident import incident_timeline
from psodlib.views.prose import SIMULATED
from psodlib.views.words import UNKNOWN, count, day, known, literal, moment, span

__all__ = [
    "ANY",
    "NOT_KNOWN",
    "Atlas",
    "Note",
    "Selection",
    "choices",
    "crash_html",
    "explore",
    "exported_html",
    "facts_html",
    "frames_html",
    "issues_html",
    "lines_before",
    "months_html",
    "note_section",
    "original_text",
    "read_notes",
    "reasons_html",
    "screen_html",
    "selected",
    "shown",
    "similar",
    "similar_html",
    "timeline_html",
    "write_note",
]  # fmt: skip

FILTERS = {
    "cluster": "Cluster", "model": "Model", "esxi_build": "ESXi build", "driver_version": "Driver version",
    "signature": "Signature", "kind": "Kind",
}  # fmt: skip
ANY = None  # a filter that lets everything through
NOT_KNOWN = ""  # the crashes whose value is unknown; a table's text is never empty
LONGEST = 400  # letters of one cell
LONGEST_MESSAGE = 4_000
MOST_HOSTS = 20  # lines of the timeline
MOST_LISTED = 300  # crashes in the list box
MOST_FRAMES = 120
MOST_ALIKE = 8  # similar crashes named
MOST_NOTE = 20_000  # letters
MOST_TAGS = 20
ALIKE = 0.5  # share of functions in common from which two stacks are called alike
TAGS = ("driver fault", "hardware fault", "duplicate", "needs a dump", "reported to vendor", "explained")
NOTES_FILE = "crash_notes.json"
KERNEL_MODULES = ("vmkernel", "com.vmware.driverAPI", "vmklinux", "vmklinux_9")
GUILTY, KERNEL, NO_MODULE = PALETTE[1], "#8a8a8a", "module unknown"
WIDE, NAME_WIDE, ROW_HIGH = 960, 170, 20  # the timeline's drawing, in its own units
BLOCK = 256 << 10  # bytes read at a crash's place in its file
BEFORE = 16 << 10  # bytes read before it
Window: TypeAlias = tuple[pd.Timestamp, pd.Timestamp]

# JupyterLab's own colours where it gives them, so that light and dark both read; a page of a report has neither.
STYLE = """
.psx {color: var(--jp-ui-font-color1, #222); background: var(--jp-layout-color0, #fff); font: 13px/1.45 'DejaVu Sans', system-ui, sans-serif;}
.psx h4 {margin: 14px 0 4px; font-size: 13px;} .psx p {margin: 3px 0;} .psx ul {margin: 3px 0; padding-left: 20px;}
.psx table {border-collapse: collapse; width: 100%; table-layout: auto;} .psx .wide {overflow-x: auto;}
.psx th, .psx td {text-align: left; vertical-align: top; padding: 2px 10px 2px 0; overflow-wrap: anywhere; border-bottom: 1px solid var(--jp-border-color2, #ddd);}
.psx th {font-weight: 600; white-space: nowrap;} .psx td.n {white-space: nowrap; font-variant-numeric: tabular-nums;}
.psx code, .psx pre, .psx td.m {font-family: 'DejaVu Sans Mono', monospace; font-size: 12px;}
.psx pre {white-space: pre-wrap; overflow-wrap: anywhere; max-height: 320px; overflow: auto; margin: 4px 0; color: inherit; background: transparent;}
.psx .chip {display: inline-block; width: 10px; height: 10px; margin-right: 6px; border: 1px solid #6668;}
.psx tr.guilty td {font-weight: 600;} .psx .mark {white-space: nowrap;}
.psx .link {user-select: all; overflow-wrap: anywhere;} .psx button {margin-left: 8px; font-size: 12px; white-space: nowrap;}
.psx .screen {background: #6b0f6b; color: #fff; padding: 14px 16px; border-radius: 3px; max-height: none; font-size: 12.5px; line-height: 1.4;}
.psx .screen b {color: #ffe14d; font-weight: 700;}
.psx .notice {border-left: 4px solid #e69f00; padding-left: 8px;}
.psx svg {display: block; width: 100%; height: auto;} .psx svg text {fill: currentColor; font-size: 11px;}
.psx .key span.k {margin-right: 14px; white-space: nowrap;}
.psx .bars {display: flex; align-items: flex-end; height: 38px; gap: 1px; margin: 2px 0;}
.psx .bars i {flex: 1 1 0; background: #0072b2; min-width: 1px;} .psx .bars i.out {opacity: .3;}
.psx-list select {font-family: 'DejaVu Sans Mono', monospace; font-size: 12px;}
"""


# --- text of a log, made safe ---------------------------------------------------------------------------------------


def shown(value: Any, most: int = LONGEST) -> Markup:
    """Any cell as HTML that reads as the cell does, letter by letter: the one way of log text onto a page.

    Parameters
    ----------
    value : scalar
        A table's cell; markup, terminal escapes and marks of direction come out as text.
    most : int
        Letters after which the rest is counted instead.

    Returns
    -------
    markupsafe.Markup
        A dollar in a tag of its own cannot pair with another into mathematics.

    Example
    -------
    >>> shown("<b>&")
    Markup('&lt;b&gt;&amp;')
    """
    return Markup(html.escape(_clipped(value, most)).replace("$", "<span>$</span>"))


def _clipped(value: Any, most: int) -> str:
    # Cut before it is made literal, so that a text of many megabytes costs nothing.
    if known(value) and len(text := str(value)) > most:
        return f"{literal(text[:most])}… ({count(len(text) - most, 'more letter')})"
    return literal(value)


def _words(value: Any, most: int = 48) -> str:
    # For labels that widgets show as text; a long name loses its middle.
    text = " ".join(_clipped(value, 4 * most).split())
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def _join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[Markup]], machine: Sequence[int] = ()) -> Markup:
    kind = {number: Markup(' class="m"') for number in machine}
    cells = (
        Markup("<tr>{}</tr>").format(
            _join(Markup("<td{}>{}</td>").format(kind.get(i, Markup("")), cell) for i, cell in enumerate(row))
        )
        for row in rows
    )
    top = _join(Markup("<th>{}</th>").format(name) for name in head)
    return Markup('<div class="wide"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>').format(
        top, _join(cells)
    )


def _said(text: str) -> Markup:
    return Markup("<p>{}</p>").format(shown(text, 2_000))


# --- what is looked at ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """What somebody looks at: the filters set, and the crash chosen.

    Parameters
    ----------
    cluster, model, esxi_build, driver_version, signature, kind : str or None
        The one value to let through; ``ANY`` (None) lets all through, ``NOT_KNOWN`` ("") those whose value is unknown.
    first, last : str or None
        Months such as "2014-05", both included; crashes without a time pass only while both are None.
    crash_id : str or None
        The crash chosen.
    """

    cluster: str | None = ANY
    model: str | None = ANY
    esxi_build: str | None = ANY
    driver_version: str | None = ANY
    signature: str | None = ANY
    kind: str | None = ANY
    first: str | None = None
    last: str | None = None
    crash_id: str | None = None

    @property
    def filters(self) -> dict[str, str]:
        """The filters that are set, by column."""
        return {name: getattr(self, name) for name in FILTERS if getattr(self, name) is not ANY}


@dataclass(frozen=True)
class Atlas:
    """A fleet made ready to be looked through: what each click would otherwise work out again.

    Parameters
    ----------
    fleet : Fleet
        The tables.
    module : str
        The driver whose versions colour the timeline.
    issues : tuple of Issue
        Known issues, for their titles.
    """

    fleet: Fleet
    module: str = "hpsa"
    issues: tuple[Issue, ...] = ()

    @cached_property
    def crashes(self) -> pd.DataFrame:
        """``fleet.crashes`` with its host's ``cluster`` and ``model``, and ``month``; newest first."""
        hosts = self.fleet.hosts.drop_duplicates("host").set_index("host")
        table = self.fleet.crashes.sort_values(["time", "crash_id"], ascending=[False, True], ignore_index=True)
        for name in ("cluster", "model"):
            table[name] = table["host"].map(hosts[name]) if name in hosts else pd.NA
        table["month"] = table["time"].dt.strftime("%Y-%m")
        # Categories, so that a filter compares small integers.
        return table.assign(**{name: _filled(table[name]) for name in (*FILTERS, "month")})

    @cached_property
    def months(self) -> list[str]:
        """The months in which there were crashes, in order."""
        return sorted(set(self.crashes["month"].cat.categories) - {NOT_KNOWN})

    @cached_property
    def boots(self) -> pd.DataFrame:
        """``fleet.uptimes`` with the ``version`` of the driver that each boot had loaded."""
        versions = loaded_versions(self.fleet.uptimes, self.fleet.drivers, self.module)
        return self.fleet.uptimes.reset_index(drop=True).assign(version=versions["version"].to_numpy())

    @cached_property
    def lives(self) -> dict[str, list[tuple[Any, ...]]]:
        """Host -> its boots as plain values: start, end, version, how it ended, stretches covered by evidence.

        Cutting twenty hosts out of a table takes pandas longer than a person should wait.
        """
        watched: dict[tuple[Any, Any], list[tuple[Any, Any]]] = defaultdict(list)
        for host, boot, start, end in _tuples(self.fleet.coverage, ("host", "boot", "start", "end")):
            if known(start) and known(end):
                watched[host, boot].append((start, end))
        lives: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for host, boot, end, version, reason in _tuples(self.boots, ("host", "boot", "end", "version", "end_reason")):
            lives[str(host)].append((boot, end, version, reason, watched.get((host, boot), [])))
        return dict(lives)

    @cached_property
    def colours(self) -> dict[str, str]:
        """Version -> colour, the charts' own."""
        return version_colours(self.boots["version"].dropna())

    @cached_property
    def span(self) -> tuple[pd.Timestamp, pd.Timestamp] | None:
        """The first and last moment that any boot or crash stands at; None where no time is known."""
        hosts, crashes = self.fleet.hosts, self.fleet.crashes
        times = pd.concat([hosts["first_seen"], hosts["last_seen"], crashes["time"]]).dropna()
        return None if times.empty else (times.min(), times.max())

    @cached_property
    def _places(self) -> dict[str, dict[str, Any]]:
        keys = {"frames": "crash_id", "coverage": "host", "uptimes": "host", "drivers": "host", "crashes": "host"}
        return {name: getattr(self.fleet, name).groupby(key).indices for name, key in keys.items()}

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {str(crash_id): row for row, crash_id in enumerate(self.crashes["crash_id"])}

    @cached_property
    def functions(self) -> dict[str, frozenset[str]]:
        """Crash -> the functions of its stack, for telling which stacks are alike."""
        frames = self.fleet.frames.dropna(subset=["function"])
        return {str(key): frozenset(names) for key, names in frames.groupby("crash_id")["function"]}

    def crash(self, crash_id: str) -> Any:
        """One row of ``crashes``; ``InputError`` where there is no such crash."""
        if crash_id not in self._rows:
            raise InputError(f"no crash {crash_id!r} among {len(self.crashes):,}; expected a crash_id of fleet.crashes")
        return self.crashes.iloc[self._rows[crash_id]]

    def part(self, table: str, key: Any) -> pd.DataFrame:
        """The rows of one crash (``frames``) or of one host (the others); none for an unknown key."""
        rows: pd.DataFrame = getattr(self.fleet, table)
        return rows.iloc[self._places[table].get(key, []) if known(key) else []]

    def host(self, name: Any) -> Fleet:
        """A fleet of one host's crashes, boots, drivers and coverage."""
        crashes, uptimes, drivers, coverage = (
            self.part(table, name) for table in ("crashes", "uptimes", "drivers", "coverage")
        )
        return Fleet(crashes=crashes, uptimes=uptimes, drivers=drivers, coverage=coverage)


def _tuples(table: pd.DataFrame, columns: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    return zip(*(table[name].tolist() for name in columns), strict=True)


def _filled(values: pd.Series[Any]) -> pd.Series[Any]:
    return values.astype("string").fillna(NOT_KNOWN).astype("category")


def _passes(crashes: pd.DataFrame, selection: Selection, but: str = "") -> pd.Series[Any]:
    passes = pd.Series(True, index=crashes.index)
    for name, value in selection.filters.items():
        if name != but:
            passes &= crashes[name] == value
    if but != "month" and (selection.first or selection.last):
        month = crashes["month"].astype(object)
        passes &= (month >= (selection.first or "0")) & (month <= (selection.last or "9999")) & (month != NOT_KNOWN)
    return passes


def selected(crashes: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    """The crashes that every filter lets through.

    Parameters
    ----------
    crashes : pandas.DataFrame
        ``Atlas.crashes``.
    selection : Selection
        The filters.

    Returns
    -------
    pandas.DataFrame
        Its rows, newest first.
    """
    return crashes[_passes(crashes, selection)]


def choices(crashes: pd.DataFrame, selection: Selection, column: str) -> dict[str, int]:
    """What one filter offers, each with its number of crashes, once all *other* filters are applied.

    Parameters
    ----------
    crashes : pandas.DataFrame
        ``Atlas.crashes``.
    selection : Selection
        The filters.
    column : str
        One of the filters' columns, or ``month``.

    Returns
    -------
    dict of str to int
        Most crashes first (months in order); the value that is set stays, with 0 where nothing is left of it.
    """
    counts = crashes.loc[_passes(crashes, selection, but=column), column].value_counts()
    found = {str(value): int(number) for value, number in counts.items() if number}
    mine = selection.filters.get(column)
    if mine is not None:
        found.setdefault(mine, 0)
    by_name = column == "month"
    return dict(sorted(found.items(), key=lambda item: (0 if by_name else -item[1], item[0])))


# --- all crashes: months, timeline ----------------------------------------------------------------------------------


def months_html(atlas: Atlas, selection: Selection) -> str:
    """Crashes a month under the other filters, as a strip of bars; months left out are pale.

    Parameters
    ----------
    atlas : Atlas
        The fleet.
    selection : Selection
        The filters.

    Returns
    -------
    str
        HTML.
    """
    counts = choices(atlas.crashes, selection, "month")
    most = max((number for month, number in counts.items() if month), default=0)
    if not most:
        return str(_said("No crash of this selection bears a time."))
    bars = [_bar(month, counts.get(month, 0), most, _within(month, selection)) for month in atlas.months]
    untimed = f" {count(counts[NOT_KNOWN], 'crash', 'crashes')} without a time." if NOT_KNOWN in counts else ""
    words = _said(f"Crashes a month, {atlas.months[0]} to {atlas.months[-1]}; the highest bar is {most:,}.{untimed}")
    return str(Markup('<div class="bars">{}</div>{}').format(_join(bars), words))


def _within(month: str, selection: Selection) -> bool:
    return (selection.first or "0") <= month <= (selection.last or "9999")


def _bar(month: str, number: int, most: int, inside: bool) -> Markup:
    return Markup('<i class="{}" style="height: {}%" title="{}: {}"></i>').format(
        "" if inside else "out", round(100 * number / most), month, count(number, "crash", "crashes")
    )


def timeline_html(atlas: Atlas, selection: Selection) -> str:
    """Boots, loaded versions, gaps and crashes by host: one line a host, most crashes first.

    Parameters
    ----------
    atlas : Atlas
        The fleet.
    selection : Selection
        Which crashes; the chosen one is ringed.

    Returns
    -------
    str
        HTML with one SVG drawing. A boot is a pale bar, solid where evidence covers it, in its version's colour.
    """
    crashes = selected(atlas.crashes, selection)
    totals = crashes["host"].value_counts()
    hosts = list(totals.index) if len(totals) else list(atlas.fleet.hosts["host"].dropna())
    drawn = _drawn_hosts(atlas, hosts, selection)
    window = _window(atlas, selection)
    if not drawn or window is None:
        return str(_said("No host of this selection has a time to be drawn at."))
    marks = _marks(crashes)
    lines = [
        _host_line(atlas, host, row, marks.get(host, []), selection.crash_id, window) for row, host in enumerate(drawn)
    ]
    high = ROW_HIGH * len(drawn) + 24
    about = f"Boots and crashes of {count(len(drawn), 'host')}, {day(window[0])} to {day(window[1])}"
    drawing = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        WIDE, high, about, _ticks(window, high), _join(lines)
    )
    left_out = f" {len(hosts) - len(drawn):,} more not drawn." if len(hosts) > len(drawn) else ""
    words = _said(
        f"{about}: {count(len(crashes), 'crash', 'crashes')} on {count(len(totals), 'host')}.{left_out} "
        "Solid: covered by evidence. Pale: up, but not watched. Empty: down or unknown."
    )
    return str(drawing + _key(atlas, drawn) + words)


def _drawn_hosts(atlas: Atlas, hosts: list[Any], selection: Selection) -> list[Any]:
    # The chosen crash's host comes first, else it might be among those left out.
    mine = atlas.crash(selection.crash_id)["host"] if selection.crash_id in atlas._rows else None
    return sorted(hosts, key=lambda host: host != mine)[:MOST_HOSTS]


def _window(atlas: Atlas, selection: Selection) -> Window | None:
    if atlas.span is None:
        return None
    low, high = atlas.span
    if selection.first:
        low = pd.Timestamp(f"{selection.first}-01", tz="UTC")
    if selection.last:
        high = pd.Timestamp(f"{selection.last}-01", tz="UTC") + pd.offsets.MonthBegin(1)
    return (low, max(high, low + pd.Timedelta(days=1)))


def _at(time: Any, window: Window) -> float:
    part = (time - window[0]) / (window[1] - window[0])
    return float(NAME_WIDE + (WIDE - NAME_WIDE - 12) * min(max(part, 0.0), 1.0))


def _ticks(window: Window, high: int) -> Markup:
    days = pd.date_range(*window, periods=7).normalize()[1:6]
    line = Markup(
        '<line x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1}" stroke="currentColor" opacity=".18"/>'
        '<text x="{0:.1f}" y="{2}" text-anchor="middle">{3}</text>'
    )
    return _join(line.format(_at(time, window), high - 18, high - 5, day(time)) for time in days)


def _marks(crashes: pd.DataFrame) -> dict[Any, list[tuple[Any, ...]]]:
    marks: dict[Any, list[tuple[Any, ...]]] = defaultdict(list)
    for host, *mark in _tuples(crashes, ("host", "crash_id", "time", "kind", "signature")):
        if known(mark[1]):
            marks[host].append(tuple(mark))
    return marks


def _host_line(
    atlas: Atlas, host: Any, row: int, marks: Sequence[tuple[Any, ...]], chosen: str | None, window: Window
) -> Markup:
    y = row * ROW_HIGH
    name = Markup('<text x="0" y="{}">{}<title>{}</title></text>').format(y + 14, _words(host, 24), shown(host))
    bars = [
        _boot(atlas, boot, y, window)
        for boot in atlas.lives.get(str(host), [])
        if known(boot[0]) and known(boot[1]) and boot[1] >= window[0] and boot[0] <= window[1]
    ]
    crosses = [
        _cross(_at(time, window), y + 10, f"{moment(time)}, {kind}, {_words(signature)}", crash_id == chosen)
        for crash_id, time, kind, signature in marks
    ]
    return name + _join(bars) + _join(crosses)


def _boot(atlas: Atlas, boot: tuple[Any, ...], y: int, window: Window) -> Markup:
    start, end, version, reason, watched = boot
    version = version if known(version) else UNKNOWN_VERSION
    colour = atlas.colours.get(str(version), KERNEL)
    about = f"{moment(start)} to {moment(end)}, {_words(atlas.module)} {_words(version)}, ended by {reason}"
    solid = _merged((_at(low, window), _at(high, window)) for low, high in watched)
    bars = [_bar_of_time(_at(start, window), _at(end, window), y, colour, Markup(' opacity=".3"'))]
    bars += [_bar_of_time(low, high, y, colour) for low, high in solid]
    return Markup("<g><title>{}</title>{}</g>").format(about, _join(bars))


def _bar_of_time(low: float, high: float, y: int, colour: str, also: str = "") -> Markup:
    # A hair's breadth less than its time, so that a reboot shows.
    shape = Markup('<rect x="{:.1f}" y="{}" width="{:.1f}" height="10" fill="{}"{}/>')
    return shape.format(low, y + 5, max(high - low - 1, 0.6), colour, also)


def _merged(stretches: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    # Gaps too narrow to be seen are not drawn: that bounds the drawing, whatever the evidence.
    out: list[tuple[float, float]] = []
    for start, end in sorted(stretches):
        if out and start - out[-1][1] < 1:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return out


def _cross(x: float, y: int, about: str, chosen: bool) -> Markup:
    point = Markup('<circle cx="{:.1f}" cy="{}" r="5" fill="{}" stroke="#fff" stroke-width="1.5"/>').format(x, y, CRASH)
    ring = Markup('<circle cx="{:.1f}" cy="{}" r="8.5" fill="none" stroke="currentColor" stroke-width="2"/>')
    return Markup('<g class="crash"><title>Crash, {}</title>{}{}</g>').format(
        about, ring.format(x, y) if chosen else "", point
    )


def _key(atlas: Atlas, hosts: list[Any]) -> Markup:
    seen = {boot[2] if known(boot[2]) else UNKNOWN_VERSION for host in hosts for boot in atlas.lives.get(str(host), [])}
    names = [(name, colour) for name, colour in {**atlas.colours, UNKNOWN_VERSION: KERNEL}.items() if name in seen]
    chips = [Markup('<span class="k">{}{}</span>').format(_chip(colour), _words(name)) for name, colour in names]
    crash = Markup('<span class="k">{}crash</span>').format(_chip(CRASH, "50%"))
    return Markup('<p class="key">{}: {}{}</p>').format(_words(atlas.module), _join(chips), crash)


def _chip(colour: str, round_by: str = "0") -> Markup:
    return Markup('<span class="chip" style="background: {}; border-radius: {}"></span>').format(colour, round_by)


# --- one crash ------------------------------------------------------------------------------------------------------


def screen_html(crash: Any, frames: pd.DataFrame) -> str:
    """A crash as the purple screen it was, as far as the tables have it.

    Parameters
    ----------
    crash : row of ``crashes``
        The crash.
    frames : pandas.DataFrame
        Its frames.

    Returns
    -------
    str
        HTML; lines of the guilty module are bright. Registers are not in the tables, and the screen says so.
    """
    build = f" [Releasebuild-{_words(crash['esxi_build'])} x86_64]" if known(crash["esxi_build"]) else ""
    lines = [
        shown(f"VMware ESXi {_words(crash['esxi_version'])}{build}"),
        shown(crash["message"] if known(crash["message"]) else "(no message in the text)", LONGEST_MESSAGE),
        shown("(registers are in the dump, not in these tables)"),
        shown(f"*PCPU{_words(crash['pcpu'])}:{_words(crash['world_id'])}/{_words(crash['world_name'])}"),
        shown(f"Code start: {_hex(crash['code_start'])} VMK uptime: {_vmk_uptime(crash['uptime'])}"),
    ]
    rows = list(frames.head(MOST_FRAMES).itertuples())
    lines += [_screen_frame(row, _same(row.module, crash["guilty_module"])) for row in rows]
    if not rows:
        lines.append(shown("(no frame could be read)"))
    if len(frames) > MOST_FRAMES:
        lines.append(shown(f"({count(len(frames) - MOST_FRAMES, 'more frame')})"))
    return str(Markup('<pre class="screen">{}</pre>').format(Markup("\n").join(lines)))


def _screen_frame(frame: Any, guilty: bool) -> Markup:
    offset = f"+{_hex(frame.offset)}" if known(frame.offset) else ""
    module = f"@{_words(frame.module)}" if known(frame.module) else "@<None>"
    stack = f" stack: {_hex(frame.stack)}" if known(frame.stack) else ""
    text = shown(
        f"{_hex(frame.frame_pointer)}:[{_hex(frame.address)}]{_words(frame.function, 120)}{module}{offset}{stack}"
    )
    return Markup("<b>{}</b>").format(text) if guilty else text


def _hex(value: Any) -> str:
    return f"0x{int(value):x}" if known(value) else UNKNOWN


def _vmk_uptime(value: Any) -> str:
    if not known(value):
        return UNKNOWN
    seconds, milliseconds = divmod(int(pd.Timedelta(value) / pd.Timedelta(milliseconds=1)), 1000)
    minutes, hours = seconds // 60, seconds // 3600
    return f"{hours // 24}:{hours % 24:02d}:{minutes % 60:02d}:{seconds % 60:02d}.{milliseconds:03d}"


def _same(one: Any, other: Any) -> bool:
    return known(one) and known(other) and str(one) == str(other)


def frames_html(crash: Any, frames: pd.DataFrame) -> str:
    """A crash's frames, each with its module's colour; the guilty module's are marked in words too.

    Parameters
    ----------
    crash : row of ``crashes``
        The crash.
    frames : pandas.DataFrame
        Its frames.

    Returns
    -------
    str
        HTML.
    """
    if frames.empty:
        return str(_said("No frame could be read, so no stack tells who was running."))
    colours = _module_colours(frames["module"], crash["guilty_module"])
    body = []
    for row in frames.head(MOST_FRAMES).itertuples():
        guilty = _same(row.module, crash["guilty_module"])
        name = row.module if known(row.module) else NO_MODULE
        owner = Markup("{}{}").format(_chip(colours[str(name)]), shown(name))
        how = str(row.module_evidence).replace("_", " ") if known(row.module_evidence) else ""
        cells = [
            Markup('<td class="n">{}.{}</td>').format(row.backtrace, row.index),
            Markup('<td class="m">{}{}</td>').format(
                shown(row.function), f"+{_hex(row.offset)}" if known(row.offset) else ""
            ),
            Markup("<td>{}</td><td>{}</td>").format(owner, how),
            Markup('<td class="mark">{}</td>').format("◀ guilty" if guilty else ""),
        ]
        body.append(Markup('<tr class="{}">{}</tr>').format("guilty" if guilty else "", _join(cells)))
    head = _join(Markup("<th>{}</th>").format(name) for name in ("Frame", "Function", "Module", "Known by", ""))
    return str(Markup('<div class="wide"><table><tr>{}</tr>{}</table></div>').format(head, _join(body)))


def _module_colours(modules: pd.Series[Any], guilty: Any) -> dict[str, str]:
    # The guilty one is always the same colour, the kernel always grey.
    names = [str(name) for name in modules.dropna().unique()]
    free = [colour for colour in PALETTE if colour != GUILTY]
    others = [name for name in names if name not in KERNEL_MODULES and not _same(name, guilty)]
    colours = dict.fromkeys(names, KERNEL) | {name: free[i % len(free)] for i, name in enumerate(others)}
    if known(guilty):
        colours[str(guilty)] = GUILTY
    return colours | {NO_MODULE: "transparent"}


def facts_html(atlas: Atlas, crash: Any) -> str:
    """Where and when it crashed, on which versions, known how.

    Parameters
    ----------
    atlas : Atlas
        The fleet.
    crash : row of ``Atlas.crashes``
        The crash.

    Returns
    -------
    str
        HTML.
    """
    driver = "unknown"
    if known(crash["guilty_module"]):
        how = str(crash["driver_evidence"]).replace("_", " ") if known(crash["driver_evidence"]) else "no evidence"
        driver = f"{_words(crash['guilty_module'])} {_words(crash['driver_version'])} (by {how})"
    rows = [
        ("Host", f"{_words(crash['host'], 90)}; cluster {_or_unknown(crash['cluster'])}; {_or_unknown(crash['model'])}"),
        ("Time", moment(crash["time"])),
        ("Life of that boot", span(crash["uptime"])),
        ("Kind", str(crash["kind"]).replace("_", " ")),
        ("ESXi", f"{_words(crash['esxi_version'])}, build {_or_unknown(crash['esxi_build'])}"),
        ("Guilty module", f"{_words(crash['guilty_module'])} (evidence: {str(crash['guilt']).replace('_', ' ')})"),
        ("Loaded driver", driver),
        ("Signature", _words(_or_unknown(crash["signature"]), 260)),
        ("Damage", _words(crash["damage"]).replace(";", ", ") if known(crash["damage"]) and crash["damage"] else "none"),
        ("Copies found", f"{crash['copies']}"),
    ]  # fmt: skip
    body = [Markup("<tr><th>{}</th><td>{}</td></tr>").format(label, shown(value)) for label, value in rows]
    return str(Markup("<table>{}</table>").format(_join(body)))


def _or_unknown(value: Any) -> str:
    return _words(value, 260) if known(value) and value != NOT_KNOWN else UNKNOWN


def issues_html(crash: Any, issues: Sequence[Issue]) -> str:
    """The known issues that the crash does not contradict.

    Parameters
    ----------
    crash : row of ``crashes``
        The crash.
    issues : sequence of Issue
        For titles and remedies; one that is not among them is named by its id.

    Returns
    -------
    str
        HTML.
    """
    ids = [word for word in str(crash["known_issues"]).split(";") if word] if known(crash["known_issues"]) else []
    if not ids:
        return str(_said("No known issue matches."))
    told = {issue.id: issue for issue in issues}
    items = [f"{name}: {told[name].title}. {told[name].remedy}" if name in told else name for name in ids[:MOST_ALIKE]]
    return str(Markup("<ul>{}</ul>").format(_join(Markup("<li>{}</li>").format(shown(item, 900)) for item in items)))


def similar(atlas: Atlas, crash_id: str) -> pd.DataFrame:
    """Crashes like one crash: those of its signature, then other signatures whose stacks share most functions.

    Parameters
    ----------
    atlas : Atlas
        The fleet.
    crash_id : str
        The crash.

    Returns
    -------
    pandas.DataFrame
        Rows of ``Atlas.crashes`` with ``alike`` (share of functions in common, 0 to 1) and ``same`` (same signature);
        the same signature first, then by ``alike``.
    """
    me, mine = atlas.crash(crash_id), atlas.functions.get(crash_id, frozenset())
    others = atlas.crashes[atlas.crashes["crash_id"] != crash_id]
    stacks = [atlas.functions.get(str(other), frozenset()) for other in others["crash_id"]]
    alike = [len(mine & stack) / len(mine | stack) if mine and stack else 0.0 for stack in stacks]
    same = (others["signature"] == me["signature"]) & (me["signature"] != NOT_KNOWN)
    table = others.assign(alike=alike, same=same)
    return table[table["same"] | (table["alike"] >= ALIKE)].sort_values(
        ["same", "alike"], ascending=False, kind="stable"
    )


def similar_html(atlas: Atlas, crash_id: str) -> str:
    """``similar`` in words and a short table.

    Parameters
    ----------
    atlas : Atlas
        The fleet.
    crash_id : str
        The crash.

    Returns
    -------
    str
        HTML.
    """
    table = similar(atlas, crash_id)
    same = int(table["same"].sum())
    hosts = table.loc[table["same"], "host"].nunique()
    words = _said(
        f"{count(same, 'other crash has', 'other crashes have')} this signature, on {count(hosts, 'host')}; "
        f"{count(len(table) - same, 'crash of another signature has', 'crashes of other signatures have')} a stack that is alike."
    )
    if table.empty:
        return str(words)
    rows = [
        (shown(row.crash_id), shown(moment(row.time)), shown(row.host), shown(row.signature or UNKNOWN),
         shown(row.driver_version or UNKNOWN), shown(f"{row.alike:.0%}"))
        for row in table.head(MOST_ALIKE).itertuples()
    ]  # fmt: skip
    head = ("Crash", "Time", "Host", "Signature", "Driver version", "Functions shared")
    return str(words + _table(head, rows, machine=(0,)))


def reasons_html(crash: Any, frames: pd.DataFrame) -> str:
    """Why the crash has its signature and its guilty module: what each rule made of it.

    Parameters
    ----------
    crash : row of ``crashes``
        The crash.
    frames : pandas.DataFrame
        Its frames.

    Returns
    -------
    str
        HTML. The rules run again on what the tables hold; where they come to another end than with the whole text, the
        difference is said.
    """
    record = _record(crash, frames)
    signed, verdict = sign(record), weigh_evidence(record)
    notes = [*signed.notes, *(f"{s.module}: {s.why} ({s.evidence.replace('_', ' ')})" for s in verdict.suspects)]
    items = [*notes, *verdict.notes]
    if signed.signature != record.signature:
        items.append(
            f"The tables alone would sign {signed.signature!r}; the whole text, which load had, signed {record.signature!r}."
        )
    return str(Markup("<ul>{}</ul>").format(_join(Markup("<li>{}</li>").format(shown(item, 600)) for item in items)))


def _record(crash: Any, frames: pd.DataFrame) -> Crash:
    # A row of the table as the rules want it: unknown is None.
    def plain(row: Mapping[Any, Any], names: Iterable[str]) -> dict[str, Any]:
        return {name: row[name] for name in names if name in row and known(row[name])}

    names = [part.name for part in fields(Frame)]
    stack = tuple(Frame(**plain(row, names)) for row in frames.head(MOST_FRAMES).to_dict("records"))
    own = {part.name for part in fields(Crash)} - {"frames", "modules", "text"}
    return Crash(**plain(crash.to_dict(), own), frames=stack)


def link_text(crash: Any) -> str:
    """Where a crash's text stands, to paste into a ticket: file, line, byte and hash.

    Parameters
    ----------
    crash : row of ``crashes``
        The crash.

    Returns
    -------
    str
        One line of plain text.
    """
    place = f"{_clipped(crash['source'], 1_000)}:{crash['line'] if known(crash['line']) else '?'}"
    byte = f" byte {crash['offset']}" if known(crash["offset"]) else ""
    return " ".join(f"{place}{byte} sha256:{_words(crash['sha256'], 64)}".split())


def _before_html(atlas: Atlas, crash: Any) -> Markup:
    # The log's own lines where its file is at hand and unchanged; what the tables say of the weeks before, always.
    lines = lines_before(crash["source"], crash["offset"], crash["sha256"])
    said = (
        Markup("<pre>{}</pre>").format(Markup("\n").join(shown(line) for line in lines))
        if lines
        else _said(
            "The lines before it are not at hand: its file is inside an archive, elsewhere, changed, or begins with the crash."
        )
    )
    facts = (
        incident_timeline(atlas.host(crash["host"]), str(crash["crash_id"])) if known(crash["host"]) else pd.DataFrame()
    )
    if len(facts):
        facts = facts[facts["time"].notna() & (facts["what"] != "evidence") & ~(facts["time"] > crash["time"])].tail(10)
    if facts.empty:
        return said
    rows = [
        (shown(moment(row.time)), shown(row.what), shown(row.detail if known(row.detail) else ""))
        for row in facts.itertuples()
    ]
    return said + _table(("Time", "Fact", "As the evidence has it"), rows)


def crash_html(atlas: Atlas, crash_id: str) -> str:
    """All that is known of one crash, for a widget or a page.

    Parameters
    ----------
    atlas : Atlas
        The fleet.
    crash_id : str
        The crash.

    Returns
    -------
    str
        HTML without a script.

    Raises
    ------
    InputError
        The fleet has no such crash.
    """
    crash, frames = atlas.crash(crash_id), atlas.part("frames", crash_id)
    link = Markup('<p><code class="link">{}</code></p>').format(shown(link_text(crash), 1_200))
    parts = [
        ("The screen", Markup(screen_html(crash, frames))), ("Versions and place", Markup(facts_html(atlas, crash))),
        ("Frames", Markup(frames_html(crash, frames))), ("Before the crash", _before_html(atlas, crash)),
        ("Known issues", Markup(issues_html(crash, atlas.issues))), ("Similar crashes", Markup(similar_html(atlas, crash_id))),
        ("Why this signature and this module", Markup(reasons_html(crash, frames))), ("Where it stands", link),
    ]  # fmt: skip
    return str(_join(Markup("<h4>{}</h4>{}").format(title, body) for title, body in parts))


def exported_html(atlas: Atlas, selection: Selection, notes: Mapping[str, Note] | None = None) -> str:
    """Everything that the explorer shows for a selection, as a piece of HTML for an exported page.

    Parameters
    ----------
    atlas : Atlas
        The fleet.
    selection : Selection
        Filters and chosen crash.
    notes : mapping of str to Note, optional
        Tags and notes by crash, as ``read_notes`` gives.

    Returns
    -------
    str
        HTML with its own style and no script: for ``document.page`` or a file.
    """
    filters = ", ".join(f"{FILTERS[name].lower()} {value or UNKNOWN}" for name, value in selection.filters.items())
    head = _said(f"Filters: {filters or 'none'}.")
    parts = [_notice(atlas.fleet), head, Markup(months_html(atlas, selection)), Markup(timeline_html(atlas, selection))]
    if selection.crash_id is not None:
        parts.append(Markup(crash_html(atlas, selection.crash_id)))
        note = (notes or {}).get(selection.crash_id)
        if note:
            parts.append(Markup("<h4>Tags and note</h4>{}{}").format(_said(", ".join(note.tags)), _said(note.text)))
    return _styled(_join(parts))


def _notice(fleet: Fleet) -> Markup:
    return Markup('<p class="notice">{}</p>').format(SIMULATED) if fleet.simulated else Markup("")


def _styled(body: str) -> str:
    return f'<style>{STYLE}</style><div class="psx">{body}</div>'


# --- the crash's own text, where its file is at hand ----------------------------------------------------------------


def original_text(source: Any, offset: Any, sha256: Any) -> str | None:
    """A crash's own text, read again from its file.

    Parameters
    ----------
    source : str
        Path of a plain file; a member of an archive is not opened.
    offset : int
        Bytes into it.
    sha256 : str
        Of the crash's text.

    Returns
    -------
    str or None
        None unless the file is there and still holds, at that place, the text with that hash.
    """
    found = _at_place(source, offset, sha256)
    return found[1] if found else None


def lines_before(source: Any, offset: Any, sha256: Any, most: int = 20) -> tuple[str, ...]:
    """The lines of the log just before a crash, where its file is at hand and unchanged.

    Parameters
    ----------
    source, offset, sha256
        As for ``original_text``.
    most : int
        How many lines at most.

    Returns
    -------
    tuple of str
        Oldest first; empty where the file is not at hand, has changed, or begins with the crash.
    """
    found = _at_place(source, offset, sha256)
    if not found:
        return ()
    lines = found[0].decode("utf-8", "replace").split("\n")[:-1]
    return tuple(line.removesuffix("\r") for line in lines[-most:])


def _at_place(source: Any, offset: Any, sha256: Any) -> tuple[bytes, str] | None:
    # What stands before the crash, and its text. A path from a table may be anything: only a regular file is opened,
    # and nothing of it is given unless the crash is there.
    if not (known(source) and known(offset) and known(sha256)) or "\0" in str(source) or int(offset) < 0:
        return None
    try:
        if not Path(str(source)).is_file():
            return None
        with Path(str(source)).open("rb") as file:
            start = max(int(offset) - BEFORE, 0)
            file.seek(start)
            data = BytesIO(file.read(int(offset) - start + BLOCK))
    except (OSError, ValueError):
        return None
    before, text = data.read(int(offset) - start), data.read()
    crash = next(iter(find_crashes(text)), None)
    return (before, crash.text) if crash and crash.sha256 == sha256 else None


# --- tags and notes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Note:
    """What people say of a crash.

    Parameters
    ----------
    tags : tuple of str
        Short words to find it by.
    text : str
        Free text.
    changed : str
        When it was last changed, ISO 8601 in UTC.
    """

    tags: tuple[str, ...] = ()
    text: str = ""
    changed: str = ""


def read_notes(folder: str | Path) -> dict[str, Note]:
    """The tags and notes saved beside a store.

    Parameters
    ----------
    folder : str or Path
        Where ``write_note`` wrote; it need not exist.

    Returns
    -------
    dict of str to Note
        By ``crash_id``; empty where nothing was saved.

    Raises
    ------
    InputError
        The file is there and is not what ``write_note`` writes.
    """
    file = Path(folder) / NOTES_FILE
    if not file.exists():
        return {}
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        return {
            str(crash_id): Note(tuple(str(tag) for tag in entry["tags"]), str(entry["text"]), str(entry["changed"]))
            for crash_id, entry in saved.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{file}: not a file of crash notes ({type(error).__name__}: {error}); mend it or move it away, nothing was overwritten"
        ) from error


def write_note(folder: str | Path, crash_id: str, note: Note) -> Path:
    """Save one crash's tags and note beside the store; the others' stay as they are on disk.

    Parameters
    ----------
    folder : str or Path
        Made if need be.
    crash_id : str
        The crash.
    note : Note
        An empty one takes the crash's entry away.

    Returns
    -------
    Path
        The file, ``crash_notes.json``.

    Raises
    ------
    InputError
        The note is too long, or the file that is there cannot be read.
    """
    if len(note.text) > MOST_NOTE or len(note.tags) > MOST_TAGS:
        raise InputError(
            f"a note of {len(note.text):,} letters with {len(note.tags)} tags; at most {MOST_NOTE:,} letters and {MOST_TAGS} tags"
        )
    file = Path(folder) / NOTES_FILE
    # Read again: somebody else may have saved since.
    notes = {key: asdict(value) for key, value in read_notes(folder).items() if key != crash_id}
    if note.tags or note.text:
        notes[crash_id] = asdict(note)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    # ASCII alone, so that no letter, half of a surrogate pair included, stops the writing.
    part.write_text(json.dumps(dict(sorted(notes.items())), indent=1), encoding="ascii")
    part.replace(file)
    return file


def note_section(notes: Mapping[str, Note], crash_id: str) -> Section | None:
    """What people say of a crash, as a section of its write-up.

    Parameters
    ----------
    notes : mapping of str to Note
        From ``read_notes``.
    crash_id : str
        The crash.

    Returns
    -------
    Section or None
        None where nobody said anything.
    """
    note = notes.get(crash_id)
    if note is None:
        return None
    blocks: list[Block] = [Text(f"Tags: {', '.join(note.tags)}.")] if note.tags else []
    blocks += [Text(line) for line in note.text.split("\n") if line.strip()]
    blocks.append(Text(f"Noted on {note.changed or 'a day unknown'}."))
    return Section("Notes of the people who looked at it", blocks)


# --- the widgets ----------------------------------------------------------------------------------------------------

# Constant: it reads the text of the element beside the button, and holds none itself.
COPY = (
    "navigator.clipboard.writeText(this.previousElementSibling.textContent)"
    ".then(() => this.textContent = 'Copied', () => this.textContent = 'Press Ctrl+C')"
)


def explore(fleet: Fleet, module: str = "hpsa", notes: str | Path | None = None) -> Any:
    """Look through a fleet's crashes in a live notebook.

    Parameters
    ----------
    fleet : Fleet
        The tables; it is not changed.
    module : str
        The driver whose loaded versions colour the timeline.
    notes : str or Path, optional
        Folder to keep tags and notes in, best the one the fleet was saved to. Without it they last as long as the
        kernel, and the explorer says so.

    Returns
    -------
    ipywidgets.VBox
        Filters with counts, timeline, list of crashes, the chosen crash; its ``explorer`` attribute holds the state.

    Raises
    ------
    InputError
        The notes that are there cannot be read.

    Example
    -------
    >>> import psodlib as psod
    >>> psod.explore(psod.Fleet.open("store"), notes="store")  # doctest: +SKIP
    """
    return Explorer(Atlas(fleet, module, load_issues()), notes).view


class Explorer:
    """The selection, and the widgets that change and show it.

    Parameters
    ----------
    atlas : Atlas
        The fleet.
    folder : str or Path, optional
        Where notes are kept.
    """

    def __init__(self, atlas: Atlas, folder: str | Path | None = None) -> None:
        self.atlas, self.folder = atlas, folder
        self.notes = read_notes(folder) if folder is not None else {}
        self.selection = Selection()
        self._drawing = False
        self._make_filters()
        self._make_crash()
        self.view = self._laid_out()
        self.view.explorer = self
        self.show(replace(self.selection, crash_id=_first(atlas.crashes)))

    def show(self, selection: Selection) -> None:
        """Take a selection and draw what depends on it; a chosen crash that the filters leave out gives way."""
        crashes = selected(self.atlas.crashes, selection)
        listed = crashes["crash_id"].head(MOST_LISTED)
        if selection.crash_id not in set(listed):
            selection = replace(selection, crash_id=_first(crashes))
        other_crash = selection.crash_id != self.selection.crash_id or not self.crash.value
        self.selection, self._drawing = selection, True
        try:
            self._draw_filters(crashes)
            self._draw_list(crashes.head(MOST_LISTED))
            self.timeline.value = _styled(timeline_html(self.atlas, selection))
            if other_crash:
                self._draw_crash()
        finally:
            self._drawing = False

    def _make_filters(self) -> None:
        self.filters = {
            name: widgets.Dropdown(description=label, layout={"width": "100%"}, style={"description_width": "100px"})
            for name, label in FILTERS.items()
        }
        for name, box in self.filters.items():
            box.observe(self._on(partial(self._filtered, name)), "value")
        months = self.atlas.months or ["no month"]
        self.months = widgets.SelectionRangeSlider(
            options=months, index=(0, len(months) - 1), description="Time", continuous_update=False,
            layout={"width": "100%"}, style={"description_width": "100px"}, disabled=len(months) < 2,
        )  # fmt: skip
        self.months.observe(self._on(self._between), "value")
        self.bars, self.total, self.timeline = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.clear = widgets.Button(description="Clear filters", icon="times")
        self.clear.on_click(lambda _: self._cleared())

    def _make_crash(self) -> None:
        self.list = widgets.Select(rows=9, layout={"width": "100%"})
        self.list.add_class("psx-list")
        self.list.observe(self._on(lambda value: replace(self.selection, crash_id=value)), "value")
        self.crash, self.link, self.saved = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.tags = widgets.TagsInput(allow_duplicates=False, placeholder="Add a tag", layout={"width": "100%"})
        self.offered = widgets.Dropdown(options=["Add a tag…", *TAGS], layout={"width": "180px"})
        self.offered.observe(self._offer, "value")
        self.note = widgets.Textarea(placeholder="Note", rows=3, layout={"width": "100%"})
        self.save = widgets.Button(description="Save tags and note", icon="save", layout={"width": "180px"})
        self.save.on_click(lambda _: self._save())

    def _laid_out(self) -> Any:
        head = widgets.HTML(_styled(_notice(self.atlas.fleet)))
        boxes = widgets.GridBox(
            [*self.filters.values()],
            layout={"grid_template_columns": "repeat(3, minmax(0, 1fr))", "grid_gap": "2px 14px"},
        )
        time = widgets.HBox([widgets.VBox([self.months], layout={"width": "60%"}), self.clear])
        noting = widgets.VBox(
            [widgets.HBox([self.offered, self.tags]), self.note, widgets.HBox([self.save, self.saved])]
        )
        parts = [head, boxes, time, self.bars, self.total, self.timeline, self.list, self.link, noting, self.crash]
        return widgets.VBox(parts, layout={"width": "100%"})

    def _on(self, change: Callable[[Any], Selection]) -> Callable[[Any], None]:
        # A person's change becomes the next selection; our own drawing does not.
        def changed(event: Any) -> None:
            if not self._drawing:
                self.show(change(event["new"]))

        return changed

    def _filtered(self, name: str, value: str | None) -> Selection:
        changes: dict[str, Any] = {name: value}
        return replace(self.selection, **changes)

    def _between(self, value: tuple[str, str]) -> Selection:
        months = self.atlas.months
        first, last = value
        whole = not months or (first, last) == (months[0], months[-1])
        return replace(self.selection, first=None if whole else first, last=None if whole else last)

    def _cleared(self) -> None:
        self._drawing = True
        if self.atlas.months:
            self.months.index = (0, len(self.atlas.months) - 1)
        self._drawing = False
        self.show(Selection(crash_id=self.selection.crash_id))

    def _draw_filters(self, crashes: pd.DataFrame) -> None:
        for name, box in self.filters.items():
            found = choices(self.atlas.crashes, self.selection, name)
            options: list[tuple[str, str | None]] = [(f"any ({sum(found.values()):,})", ANY)]
            options += [(f"{_words(value or UNKNOWN)} ({number:,})", value) for value, number in found.items()]
            if box.options != tuple(options):
                box.options = options
            box.value = getattr(self.selection, name)
        self.bars.value = _styled(months_html(self.atlas, self.selection))
        whole, listed = len(self.atlas.crashes), min(len(crashes), MOST_LISTED)
        more = (
            f" The newest {listed:,} are listed: narrow the filters to reach the others."
            if listed < len(crashes)
            else ""
        )
        hosts = count(crashes["host"].nunique(), "host")
        words = f"{len(crashes):,} of {count(whole, 'crash', 'crashes')} on {hosts}.{more}"
        self.total.value = _styled(_said(words if whole else "No crash was found in this evidence."))

    def _draw_list(self, crashes: pd.DataFrame) -> None:
        options = tuple((_line(row, self.notes), row.crash_id) for row in crashes.itertuples())
        if self.list.options != options:
            self.list.options = options
        self.list.value = self.selection.crash_id if options else None

    def _draw_crash(self) -> None:
        crash_id = self.selection.crash_id
        kept = self.notes.get(crash_id or "", Note())
        self.tags.value, self.note.value, self.saved.value = list(kept.tags), kept.text, ""
        for box in (self.tags, self.note, self.save, self.offered):
            box.disabled = crash_id is None
        if crash_id is None:
            self.crash.value, self.link.value = _styled(_said("No crash is chosen.")), ""
            return
        link = shown(link_text(self.atlas.crash(crash_id)), 1_200)
        button = Markup('<button type="button" onclick="{}">Copy link</button>').format(COPY)
        self.link.value = _styled(Markup('<p><code class="link">{}</code>{}</p>').format(link, button))
        self.crash.value = _styled(crash_html(self.atlas, crash_id))

    def _offer(self, event: Any) -> None:
        if event["new"] in TAGS:
            self.tags.value = list(dict.fromkeys([*self.tags.value, event["new"]]))
            self.offered.index = 0

    def _save(self) -> None:
        crash_id = self.selection.crash_id
        if crash_id is None:
            return
        changed = f"{pd.Timestamp.now(tz='UTC'):%Y-%m-%dT%H:%M:%SZ}"
        note = Note(tuple(str(tag) for tag in self.tags.value), self.note.value.strip(), changed)
        where = "in this kernel alone: give explore(fleet, notes=folder) to keep them"
        try:
            if self.folder is not None:
                where = f"in {write_note(self.folder, crash_id, note)}"
        except (InputError, OSError) as error:
            self.saved.value = _styled(_said(f"Not saved: {error}"))
            return
        self.notes[crash_id] = note
        self._drawing = True
        self._draw_list(selected(self.atlas.crashes, self.selection).head(MOST_LISTED))
        self._drawing = False
        self.saved.value = _styled(_said(f"Saved {where}."))


def _first(crashes: pd.DataFrame) -> str | None:
    return str(crashes["crash_id"].iloc[0]) if len(crashes) else None


def _line(row: Any, notes: Mapping[str, Note]) -> str:
    # Columns in a list box: a fixed-width font, and blanks that a browser does not fold.
    when = f"{row.time:%Y-%m-%d %H:%M}" if known(row.time) else "time unknown"
    cells = (
        (when, 16),
        (row.host, 22),
        (str(row.kind), 18),
        (row.guilty_module, 12),
        (row.driver_version or UNKNOWN, 14),
    )
    columns = "  ".join(_words(cell, wide).ljust(wide) for cell, wide in cells)
    tags = f"  [{_words(', '.join(notes[row.crash_id].tags) or 'note', 40)}]" if row.crash_id in notes else ""
    return f"{columns}  {_words(row.signature or UNKNOWN, 60)}{tags}".replace(" ", "\u00a0")
