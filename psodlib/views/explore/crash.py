"""One crash: its purple screen, frames, versions, issues, kin and reasons. Tables -> HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from psodlib.triage.known_issues import Issue
from psodlib.triage.timeline import incident_timeline
from psodlib.views.charts import PALETTE
from psodlib.views.explore.markup import KERNEL, chip, clipped, joined, label, said, shown, table_of
from psodlib.views.explore.original import lines_before
from psodlib.views.explore.selection import NOT_KNOWN, Atlas, same
from psodlib.views.words import UNKNOWN, count, known, moment, span

__all__ = [
    "crash_html", "facts_html", "frames_html", "issues_html", "link_text", "reasons_html", "screen_html", "sections", "similar",
    "similar_html",
]  # fmt: skip

GUILTY, NO_MODULE = PALETTE[1], "module unknown"
LONGEST_MESSAGE = 4_000
MOST_FRAMES = 120
MOST_ALIKE = 8  # similar crashes named
ALIKE = 0.5  # share of functions in common from which two stacks are called alike
KERNEL_MODULES = ("vmkernel", "com.vmware.driverAPI", "vmklinux", "vmklinux_9")


def screen_html(crash: Any, frames: pd.DataFrame) -> str:
    """A crash as the purple screen it was, as far as the tables have it."""
    number, version = (crash[name] if known(crash[name]) else "" for name in ("esxi_build", "esxi_version"))
    build = f" [Releasebuild-{label(number)} x86_64]" if number else ""
    lines = [
        shown(f"VMware ESXi {label(version) if version else '(version not in the evidence)'}{build}"),
        shown(crash["message"] if known(crash["message"]) else "(no message in the text)", LONGEST_MESSAGE),
        shown("(registers are in the dump, not in these tables)"),
        shown(f"*PCPU{label(crash['pcpu'])}:{label(crash['world_id'])}/{label(crash['world_name'])}"),
        shown(f"Code start: {_hex(crash['code_start'])} VMK uptime: {_vmk_uptime(crash['uptime'])}"),
    ]
    rows = list(frames.head(MOST_FRAMES).itertuples())
    lines += [_screen_frame(row, same(row.module, crash["guilty_module"])) for row in rows]
    if not rows:
        lines.append(shown("(no frame could be read)"))
    if len(frames) > MOST_FRAMES:
        lines.append(shown(f"({count(len(frames) - MOST_FRAMES, 'more frame')})"))
    return str(Markup('<pre class="screen">{}</pre>').format(Markup("\n").join(lines)))


def _screen_frame(frame: Any, guilty: bool) -> Markup:
    offset = f"+{_hex(frame.offset)}" if known(frame.offset) else ""
    module = f"@{label(frame.module)}" if known(frame.module) else "@<None>"
    stack = f" stack: {_hex(frame.stack)}" if known(frame.stack) else ""
    pointer = f"{_hex(frame.frame_pointer)}:" if known(frame.frame_pointer) else ""
    address = f"[{_hex(frame.address)}]" if known(frame.address) else ""
    text = shown(f"{pointer}{address}{label(frame.function, 120)}{module}{offset}{stack}")
    return Markup("<b>{}</b>").format(text) if guilty else text


def _hex(value: Any) -> str:
    return f"0x{int(value):x}" if known(value) else UNKNOWN


def _vmk_uptime(value: Any) -> str:
    if not known(value):
        return UNKNOWN
    seconds, milliseconds = divmod(int(pd.Timedelta(value) / pd.Timedelta(milliseconds=1)), 1000)
    minutes, hours = seconds // 60, seconds // 3600
    return f"{hours // 24}:{hours % 24:02d}:{minutes % 60:02d}:{seconds % 60:02d}.{milliseconds:03d}"


def frames_html(crash: Any, frames: pd.DataFrame) -> str:
    """A crash's frames, each with its module's colour; the guilty module's are marked in words too."""
    if frames.empty:
        return str(said("No frame could be read, so no stack tells who was running."))
    colours = _module_colours(frames["module"], crash["guilty_module"])
    body = []
    for row in frames.head(MOST_FRAMES).itertuples():
        guilty = same(row.module, crash["guilty_module"])
        name = row.module if known(row.module) else NO_MODULE
        owner = Markup("{}{}").format(chip(colours[str(name)]), shown(name))
        how = str(row.module_evidence).replace("_", " ") if known(row.module_evidence) else ""
        cells = [
            Markup('<td class="n">{}.{}</td>').format(row.backtrace, row.index),
            Markup('<td class="m">{}{}</td>').format(
                shown(row.function), f"+{_hex(row.offset)}" if known(row.offset) else ""
            ),
            Markup("<td>{}</td><td>{}</td>").format(owner, how),
            Markup('<td class="mark">{}</td>').format("◀ guilty" if guilty else ""),
        ]
        body.append(Markup('<tr class="{}">{}</tr>').format("guilty" if guilty else "", joined(cells)))
    head = joined(Markup("<th>{}</th>").format(name) for name in ("Frame", "Function", "Module", "Known by", ""))
    return str(Markup('<div class="wide"><table><tr>{}</tr>{}</table></div>').format(head, joined(body)))


def _module_colours(modules: pd.Series[Any], guilty: Any) -> dict[str, str]:
    # The guilty one is always the same colour, the kernel always grey.
    names = [str(name) for name in modules.dropna().unique()]
    free = [colour for colour in PALETTE if colour != GUILTY]
    others = [name for name in names if name not in KERNEL_MODULES and not same(name, guilty)]
    colours = dict.fromkeys(names, KERNEL) | {name: free[i % len(free)] for i, name in enumerate(others)}
    if known(guilty):
        colours[str(guilty)] = GUILTY
    return colours | {NO_MODULE: "transparent"}


def facts_html(atlas: Atlas, crash: Any) -> str:
    """Where and when it crashed, on which versions, known how."""
    driver = "unknown"
    if known(crash["guilty_module"]):
        how = str(crash["driver_evidence"]).replace("_", " ") if known(crash["driver_evidence"]) else "none"
        told = known(crash["driver_version"]) and crash["driver_version"] != NOT_KNOWN
        version = f"{label(crash['driver_version'])} (by {how})" if told else "of unknown version"
        driver = f"{label(crash['guilty_module'])} {version}"
    rows = [
        ("Host", f"{label(crash['host'], 90)}; cluster {_or_unknown(crash['cluster'])}; model {_or_unknown(crash['model'])}"),
        ("Time", moment(crash["time"])),
        ("Life of that boot", span(crash["uptime"])),
        ("Kind", str(crash["kind"]).replace("_", " ")),
        ("ESXi", f"{label(crash['esxi_version'])}, build {_or_unknown(crash['esxi_build'])}"),
        ("Guilty module", f"{label(crash['guilty_module'])} (evidence: {str(crash['guilt']).replace('_', ' ')})"),
        ("Loaded driver", driver),
        ("Signature", label(_or_unknown(crash["signature"]), 260)),
        ("Damage", label(crash["damage"]).replace(";", ", ").replace("_", " ") if known(crash["damage"]) and crash["damage"] else "none"),
        ("Copies found", f"{crash['copies']}"),
    ]  # fmt: skip
    body = [Markup("<tr><th>{}</th><td>{}</td></tr>").format(label, shown(value)) for label, value in rows]
    return str(Markup("<table>{}</table>").format(joined(body)))


def _or_unknown(value: Any) -> str:
    return label(value, 260) if known(value) and value != NOT_KNOWN else UNKNOWN


def issues_html(crash: Any, issues: Sequence[Issue]) -> str:
    """The known issues that the crash does not contradict."""
    ids = [word for word in str(crash["known_issues"]).split(";") if word] if known(crash["known_issues"]) else []
    if not ids:
        return str(said("No known issue matches."))
    told = {issue.id: issue for issue in issues}
    items = [f"{name}: {told[name].title}. {told[name].remedy}" if name in told else name for name in ids[:MOST_ALIKE]]
    return str(Markup("<ul>{}</ul>").format(joined(Markup("<li>{}</li>").format(shown(item, 900)) for item in items)))


def similar(atlas: Atlas, crash_id: str) -> pd.DataFrame:
    """Crashes like one crash: those of its signature, then other signatures whose stacks share most functions."""
    me, mine = atlas.crash(crash_id), atlas.functions.get(crash_id, frozenset())
    others = atlas.crashes[atlas.crashes["crash_id"] != crash_id]
    stacks = [atlas.functions.get(str(other), frozenset()) for other in others["crash_id"]]
    alike = [len(mine & stack) / len(mine | stack) if mine and stack else 0.0 for stack in stacks]
    same = (others["signature"] == me["signature"]) & (me["signature"] != NOT_KNOWN)
    table = others.assign(alike=alike, same=same)
    return table[table["same"] | (table["alike"] >= ALIKE)].sort_values(
        ["same", "alike"], ascending=False, kind="stable"
    )


def similar_html(atlas: Atlas, crash_id: str, hrefs: Mapping[str, str] | None = None) -> str:
    """``similar`` in words and a short table."""
    table = similar(atlas, crash_id)
    same = int(table["same"].sum())
    hosts = table.loc[table["same"], "host"].nunique()
    if table.empty:
        return str(said("No other crash has this signature, and no other stack is alike."))
    kin = f"{count(same, 'other crash has', 'other crashes have')} this signature, on {count(hosts, 'host')}"
    others = len(table) - same
    alike = count(others, "crash of another signature has", "crashes of other signatures have")
    words = said(
        f"{kin if same else 'No other crash has this signature'}; {alike if others else 'no other has'} a stack that is alike."
    )
    rows = [
        (_linked(row.crash_id, hrefs), shown(_when(row.time)), shown(row.host), shown(row.signature or UNKNOWN),
         shown(row.driver_version or UNKNOWN), shown(f"{row.alike:.0%}"))
        for row in table.head(MOST_ALIKE).itertuples()
    ]  # fmt: skip
    more = said(f"{len(table) - len(rows):,} more not listed.") if len(table) > len(rows) else ""
    head = ("Crash", "Time", "Host", "Signature", "Driver version", "Functions shared")
    return str(words + table_of(head, rows, machine=(0,)) + more)


def _linked(crash_id: Any, hrefs: Mapping[str, str] | None) -> Markup:
    href = (hrefs or {}).get(str(crash_id))
    return Markup('<a href="{}">{}</a>').format(href, shown(crash_id)) if href else shown(crash_id)


def _when(time: Any) -> str:
    return moment(time) if known(time) else "time unknown"


def reasons_html(reasons: pd.DataFrame) -> str:
    """Why the crash has its signature and its guilty module: its rows of ``fleet.reasons``."""
    items = [
        shown(f"{row.module}: {row.text}" if row.about == "suspect" else row.text, 600)
        for row in reasons.itertuples()
        if row.about != "known_issue"
    ]
    return str(Markup("<ul>{}</ul>").format(joined(Markup("<li>{}</li>").format(item) for item in items)))


def link_text(crash: Any) -> str:
    """Where a crash's text stands, to paste into a ticket: file, line, byte and hash."""
    place = f"{clipped(crash['source'], 1_000)}:{crash['line'] if known(crash['line']) else '?'}"
    byte = f" byte {crash['offset']}" if known(crash["offset"]) else ""
    return " ".join(f"{place}{byte} sha256:{label(crash['sha256'], 64)}".split())


def _before_html(atlas: Atlas, crash: Any) -> Markup:
    # The log's own lines where its file is at hand and unchanged; what the tables say of the weeks before, always.
    lines = lines_before(crash["source"], crash["offset"], crash["sha256"])
    printed = (
        Markup('<pre tabindex="0">{}</pre>').format(Markup("\n").join(shown(line) for line in lines))
        if lines
        else said(
            "The lines before it are not at hand: its file is inside an archive, elsewhere, changed, or begins with the crash."
        )
    )
    facts = (
        incident_timeline(atlas.host(crash["host"]), str(crash["crash_id"])) if known(crash["host"]) else pd.DataFrame()
    )
    if len(facts):
        facts = facts[
            facts["time"].notna()
            & ~facts["what"].isin(["evidence", "crash", "down"])
            & ~(facts["time"] > crash["time"])
        ].tail(10)
    if facts.empty:
        return printed
    rows = [
        (shown(moment(row.time)), shown(row.what), shown(row.detail if known(row.detail) else ""))
        for row in facts.itertuples()
    ]
    return printed + table_of(("Time", "Fact", "As the evidence has it"), rows)


def crash_html(atlas: Atlas, crash_id: str, hrefs: Mapping[str, str] | None = None) -> str:
    """All that is known of one crash, for a widget or a page."""
    link = Markup('<p><code class="link">{}</code></p>').format(shown(link_text(atlas.crash(crash_id)), 1_200))
    return str(sections(atlas, crash_id, hrefs) + Markup("<h4>Where it stands</h4>") + link)


def sections(atlas: Atlas, crash_id: str, hrefs: Mapping[str, str] | None = None) -> Markup:
    """All that is known of one crash, but for its place."""
    crash, frames = atlas.crash(crash_id), atlas.part("frames", crash_id)
    parts = [
        ("The screen", screen_html(crash, frames)), ("Versions and place", facts_html(atlas, crash)),
        ("Frames", frames_html(crash, frames)), ("Before the crash", _before_html(atlas, crash)),
        ("Known issues", issues_html(crash, atlas.issues)), ("Similar crashes", similar_html(atlas, crash_id, hrefs)),
        ("Why this signature and this module", reasons_html(atlas.part("reasons", crash_id))),
    ]  # fmt: skip
    return joined(Markup("<h4>{}</h4>{}").format(title, Markup(body)) for title, body in parts)
