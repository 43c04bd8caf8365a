"""All crashes of a selection: by month, and by host with boots, loaded versions and gaps. Tables -> HTML."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import pandas as pd
from markupsafe import Markup

from psodlib.views.charts import CRASH, UNKNOWN_VERSION
from psodlib.views.explore.markup import KERNEL, chip, joined, label, said, shown
from psodlib.views.explore.selection import NOT_KNOWN, Atlas, Selection, choices, same, selected, tuples
from psodlib.views.words import count, day, known, moment

__all__ = ["months_html", "timeline_html"]

MOST_HOSTS = 20  # lines of the timeline
WIDE, NAME_WIDE, ROW_HIGH = 960, 170, 20  # the timeline's drawing, in its own units
Window: TypeAlias = tuple[pd.Timestamp, pd.Timestamp]


def months_html(atlas: Atlas, selection: Selection) -> str:
    """Crashes a month under the other filters, as a strip of bars; months left out are pale."""
    counts = choices(atlas.crashes, selection, "month")
    most = max((number for month, number in counts.items() if month), default=0)
    if not most:
        return str(said("No crash of this selection bears a time." if counts else "No crash is in this selection."))
    bars = [_bar(month, counts.get(month, 0), most, _within(month, selection)) for month in atlas.months]
    untimed = f" {count(counts[NOT_KNOWN], 'crash', 'crashes')} without a time." if NOT_KNOWN in counts else ""
    first, last = selection.first or atlas.months[0], selection.last or atlas.months[-1]
    months = first if first == last else f"{first} to {last}"
    words = said(f"Crashes a month, {months}; the highest bar is {most:,}.{untimed}")
    return str(Markup('<div class="bars">{}</div>{}').format(joined(bars), words))


def _within(month: str, selection: Selection) -> bool:
    return (selection.first or "0") <= month <= (selection.last or "9999")


def _bar(month: str, number: int, most: int, inside: bool) -> Markup:
    return Markup('<i class="{}" style="height: {}%" title="{}: {}"></i>').format(
        "" if inside else "out", round(100 * number / most), month, count(number, "crash", "crashes")
    )


def timeline_html(atlas: Atlas, selection: Selection) -> str:
    """Boots, loaded versions, gaps and crashes by host: one line a host, most crashes first."""
    crashes = selected(atlas.crashes, selection)
    totals = crashes["host"].value_counts()
    hosts = list(totals.index) if len(totals) else _with_life_first(atlas)
    drawn = _drawn_hosts(atlas, hosts, selection)
    window = _window(atlas, selection)
    if not drawn or window is None:
        return str(said("No host of this selection has a time to be drawn at."))
    marks = _marks(crashes)
    lines = [
        _host_line(atlas, host, row, marks.get(host, []), selection.crash_id, window) for row, host in enumerate(drawn)
    ]
    high = ROW_HIGH * len(drawn) + 24
    about = f"Boots and crashes of {count(len(drawn), 'host')}, {day(window[0])} to {day(window[1])}"
    drawing = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        WIDE, high, about, _ticks(window, high), joined(lines)
    )
    left_out = f" {len(hosts) - len(drawn):,} more not drawn." if len(hosts) > len(drawn) else ""
    number = (
        f"{count(len(crashes), 'crash', 'crashes')} on {count(len(totals), 'host')}" if len(crashes) else "no crash"
    )
    words = said(
        f"{about}: {number}.{left_out} Solid: covered by evidence. Pale: up, but not watched. Empty: down or unknown."
    )
    return str(drawing + _key(atlas, drawn) + words)


def _with_life_first(atlas: Atlas) -> list[Any]:
    # Where nobody crashed: hosts of which a boot is known before those that only an inventory names.
    return sorted(atlas.fleet.hosts["host"].dropna(), key=lambda host: str(host) not in atlas.lives)


def _drawn_hosts(atlas: Atlas, hosts: list[Any], selection: Selection) -> list[Any]:
    # The chosen crash's host comes first, else it might be among those left out.
    mine = (
        atlas.crash(selection.crash_id)["host"]
        if selection.crash_id is not None and atlas.has(selection.crash_id)
        else None
    )
    return sorted(hosts, key=lambda host: not same(host, mine))[:MOST_HOSTS]


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
    return joined(line.format(_at(time, window), high - 18, high - 5, day(time)) for time in days)


def _marks(crashes: pd.DataFrame) -> dict[Any, list[tuple[Any, ...]]]:
    marks: dict[Any, list[tuple[Any, ...]]] = defaultdict(list)
    for host, *mark in tuples(crashes, ("host", "crash_id", "time", "kind", "signature")):
        if known(mark[1]):
            marks[host].append(tuple(mark))
    return marks


def _host_line(
    atlas: Atlas, host: Any, row: int, marks: Sequence[tuple[Any, ...]], chosen: str | None, window: Window
) -> Markup:
    y = row * ROW_HIGH
    name = Markup('<text x="0" y="{}">{}<title>{}</title></text>').format(y + 14, label(host, 24), shown(host))
    bars = [
        _boot(atlas, boot, y, window)
        for boot in atlas.lives.get(str(host), [])
        if known(boot[0]) and known(boot[1]) and boot[1] >= window[0] and boot[0] <= window[1]
    ]
    crosses = [
        _cross(_at(time, window), y + 10, f"{moment(time)}, {kind}, {label(signature)}", crash_id == chosen)
        for crash_id, time, kind, signature in marks
    ]
    return name + joined(bars) + joined(crosses)


def _boot(atlas: Atlas, boot: tuple[Any, ...], y: int, window: Window) -> Markup:
    start, end, version, reason, watched = boot
    version = version if known(version) else UNKNOWN_VERSION
    colour = atlas.colours.get(str(version), KERNEL)
    about = f"{moment(start)} to {moment(end)}, {label(atlas.module)} {label(version)}, ended by {reason}"
    solid = _merged((_at(low, window), _at(high, window)) for low, high in watched)
    bars = [_bar_of_time(_at(start, window), _at(end, window), y, colour, Markup(' class="pale"'))]
    bars += [_bar_of_time(low, high, y, colour) for low, high in solid]
    return Markup("<g><title>{}</title>{}</g>").format(about, joined(bars))


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
    chips = [Markup('<span class="k">{}{}</span>').format(chip(colour), label(name)) for name, colour in names]
    crash = Markup('<span class="k">{}crash</span>').format(chip(CRASH, "50%"))
    return Markup('<p class="key">{}: {}{}</p>').format(label(atlas.module), joined(chips), crash)
