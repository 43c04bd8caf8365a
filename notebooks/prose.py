"""What notebooks say between their tables and charts: sentences made from the data, as blocks of ``document.py``.

A notebook's own text holds no number; where one is wanted, a cell shows a block.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from psodlib.records import Crash, Frame
from psodlib.risk.cautions import OVERLAP
from psodlib.risk.decision import LIKELY, NEAR, RATHER, REBOOT_COST, SURE
from psodlib.schema import Tables
from psodlib.views.cells import ADVICE
from psodlib.views.crash import plain_words
from psodlib.views.document import Bullets, Table, Text
from psodlib.views.study import unheard
from psodlib.views.words import SIMULATED, count, figure, known, listing, literal, moment, seen, share, span

__all__ = [
    "TextTable", "bullets", "describe_crash", "describe_fleet", "describe_problems", "describe_signatures",
    "line_by_line", "notice", "rule", "say", "signature_table", "table_of", "unheard",
]  # fmt: skip

DAY = pd.Timedelta(days=1)
KINDS = {"page_fault": "a page fault", "machine_check": "a machine check", "nmi": "a non-maskable interrupt"}
OWNED_BY = {"symbol_prefix": "by the symbol's prefix", "module_map": "by the module map"}


def say(*sentences: str) -> Text:
    """Sentences as one paragraph."""
    return Text(" ".join(sentence for sentence in sentences if sentence))


def bullets(items: Iterable[str], empty: str = "Nothing.") -> Bullets | Text:
    """A list, or the sentence that it is empty."""
    lines = tuple(items)
    return Bullets(lines) if lines else Text(empty)


def notice(fleet: Tables) -> Text:
    """What kind of evidence the page shows: said first on every page."""
    if fleet.simulated:
        return say(SIMULATED)
    return say(f"Evidence of {count(len(fleet.hosts), 'host')}{seen(fleet.hosts)}.")


def table_of(rows: pd.DataFrame, caption: str = "", note: str = "") -> Table | Text:
    """A DataFrame as a table: times to the second, spans in two units, unknown said so; an empty one is said."""
    if rows.empty:  # a head over nothing looks like a fault of the page
        return Text(f"{caption}: nothing to show." if caption else "Nothing to show: no row.")
    cells = [[_cell(value) for value in row] for row in rows.itertuples(index=False, name=None)]
    return Table(caption, [literal(name) for name in rows.columns], cells, note)


def _cell(value: Any) -> str:
    if isinstance(value, pd.Timestamp):
        return moment(value)
    if isinstance(value, float) and known(value):  # no digits that nobody knows
        return f"{value:,.0f}" if abs(value) >= 100 else figure(value)
    return span(value) if isinstance(value, pd.Timedelta) else literal(value)


TextTable = table_of  # the notebooks' name for it


# --- one crash ------------------------------------------------------------------------------------------------------


def describe_crash(crash: Crash) -> Text:
    """One crash in a paragraph: what stopped where, after how long, and which module the evidence points at."""
    if not crash.text:
        return Text("There is no crash in this text.")
    when = f"On {moment(crash.time)}" if known(crash.time) else "At a time that the text does not tell"
    place = f"PCPU {crash.pcpu}" if known(crash.pcpu) else "a PCPU that the text does not name"
    world = f" in world {literal(crash.world_name)}" if known(crash.world_name) else ""
    lived = f", {span(crash.uptime)} after boot" if known(crash.uptime) else ""
    what = f"{when} {place} hit {KINDS.get(crash.kind, plain_words(crash.kind))}{world}{lived}."
    points = f"The evidence points at module {literal(crash.guilty_module)}, function {literal(crash.guilty_function)}"
    guilty = "No module could be named."
    if known(crash.guilty_module):
        guilty = f"{points} (kind of evidence: {plain_words(crash.guilt)})."
    damage = f" The text is damaged: {plain_words(crash.damage)}." if crash.damage else ""
    return Text(f"{what} The backtrace has {count(len(crash.frames), 'frame')}. {guilty}{damage}")


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


def describe_fleet(fleet: Tables) -> Bullets | Text:
    """What was read of a fleet, and what follows from what was not."""
    crashes = fleet.crashes
    deliberate = int(crashes["deliberate"].fillna(False).sum())
    asked = f", {count(deliberate, 'of them', 'of them')} asked for by a person" if deliberate else ""
    modules = fleet.drivers["module"].nunique()
    return bullets([
        _roster(fleet),
        _lives(fleet.uptimes),
        f"{count(len(crashes), 'crash')} on {count(crashes['host'].nunique(), 'host')}{asked}."
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
    return f"{count(len(hosts), 'host')}{seen(hosts, '; nothing about them has a time')}.{quiet}{alone}"


def _lives(uptimes: pd.DataFrame) -> str:
    if uptimes.empty:
        return "No boot is known, so no host-day of life: nothing can be said of rates."
    # In days before they are summed: the lives of a thousand hosts overflow a Timedelta.
    lived, seen = (uptimes[name].dt.total_seconds().sum() / 86_400 for name in ("uptime", "observed"))
    blind = f"{share(max(lived - seen, 0), lived)} of it without evidence" if lived else "none of it with evidence"
    unexplained = int((uptimes["end_reason"] == "unexplained").sum())
    doubt = count(unexplained, "boot") if unexplained else "no boot"
    return f"{count(len(uptimes), 'boot')} in {count(lived, 'host-day')} of life, {blind}; {doubt} ended without an explanation."


def _inventory(hosts: pd.DataFrame) -> str:
    has = [name for name in ("cluster", "model", "users", "vms") if name in hosts and hosts[name].notna().any()]
    lacks = [name for name in ("cluster", "users", "vms") if name not in has]
    if not lacks:
        return f"The inventory gives {listing(has)}."
    lost = {"cluster": "whether clusters differ", "users": "how many users a crash hits", "vms": "how many VMs"}
    return f"No inventory gives {listing(lacks)}: {listing(lost[name] for name in lacks)} cannot be said."


def describe_problems(fleet: Tables) -> Bullets | Text:
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


def describe_signatures(crashes: pd.DataFrame) -> Text:
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


# --- the decision ----------------------------------------------------------------------------------------------------


def rule() -> Table:
    """The thresholds of the advice, as the decision has them."""
    gain = f"the crashes avoided outweigh {REBOOT_COST:g} crash for each host moved"
    shared = f"{gain}, and the two versions shared hardware and months for {100 * OVERLAP:.0f} % or more"
    least = {"move_now": (SURE, shared), "next_reboot": (LIKELY, gain), "no_new_installs": (RATHER, "")}
    rows = [(ADVICE[word], f"at least {100 * level:.0f} %", also) for word, (level, also) in least.items()]
    pin = (
        f"The best version is made the standard where it is, with a chance of {100 * SURE:.0f} % or more, at most {NEAR:g} times as bad as the "
        f"truly best. Advice that was followed is turned round only at {100 * SURE:.0f} %."
    )
    columns = ["Advice for a version", "Chance that the best one is better", "And"]
    return Table("", columns, [*rows, (ADVICE["leave"], "less", "")], pin, widths=(26, 22, 52))
