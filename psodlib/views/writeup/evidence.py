"""What is known of the crash itself, where it stands, and how far it carries towards a cause."""

from __future__ import annotations

import pandas as pd

from psodlib.views.document import Bullets, Table, Text
from psodlib.views.words import UNKNOWN, count, known, literal, moment, span
from psodlib.views.writeup.subject import Case, no_culprit, place_of
from psodlib.views.writeup.timeline import happening

__all__ = ["CERTAINTY", "cause_blocks", "evidence_table", "headline_facts", "lead_sentence", "stack_tables"]

# How far each kind of evidence carries, strongest first: certainty, and why.
CERTAINTY = {
    "named_by_kernel": ("near certain", "the kernel itself names the module in its panic message"),
    "on_stack": ("strong", "the module's own function is the innermost driver code on the panicking backtrace"),
    "module_map": ("strong", "the crash's addresses lie inside the module's code by the dump's own module map"),
    "symbol_prefix": ("good", "the dump prints no module name, but the innermost functions carry the module's prefix"),
    "world_name": (
        "weak",
        "only the name of the world that was running points at the module; its code is not on the stack",
    ),
    "precursor_log": ("weak", "the module complained in the log before the crash, but its code is not on the stack"),
    "hardware": ("strong", "the message reports a hardware error, which a driver does not cause"),
    "deliberate": ("certain", "a person asked for this crash"),
    "none": ("none", "no evidence points at a module"),
}


def lead_sentence(crash: pd.Series) -> str:
    """The crash in a sentence or two."""
    what = f"{literal(crash['host'])} stopped with a purple screen ({literal(crash['kind']).replace('_', ' ')})"
    after = f" after {span(crash['uptime'])} of uptime" if known(crash["uptime"]) else ""
    if str(crash["guilt"]) == "deliberate":
        return f"{what}{after}; a person asked for it."
    if str(crash["guilt"]) == "hardware":
        return f"{what}{after}; its message reports a hardware error, and the evidence points at no driver."
    if not known(crash["guilty_module"]):
        return f"{what}{after}; no evidence in hand names the module at fault."
    certainty, _ = CERTAINTY[str(crash["guilt"])]
    version = f" {literal(crash['driver_version'])}" if known(crash["driver_version"]) else ", version unknown,"
    return f"{what}{after}. The evidence against the module {literal(crash['guilty_module'])}{version} is {certainty}."


def headline_facts(case: Case) -> list[tuple[str, str]]:
    """The few labelled values that stand above the fold."""
    crash = case.crash
    release = " build ".join(literal(crash[name]) for name in ("esxi_version", "esxi_build") if known(crash[name]))
    world = " ".join(literal(crash[name]) for name in ("world_id", "world_name") if known(crash[name]))
    return [
        ("Host", case.host), ("ESXi", release or UNKNOWN), ("Uptime at the crash", span(crash["uptime"])),
        ("Guilty module", f"{case.module or no_culprit(crash)} {case.version or ''}".strip()),
        ("Function", literal(crash["guilty_function"])), ("World", world or UNKNOWN),
    ]  # fmt: skip


def evidence_table(case: Case) -> Table:
    """Where each fact stands, with the hash of the crash's own text."""
    crash = case.crash
    copies = f", found {count(crash['copies'], 'time')}" if known(crash["copies"]) and crash["copies"] > 1 else ""
    rows = [
        [f"The crash's own text{copies}", place_of(crash["source"], crash["line"]), literal(crash["sha256"])],
    ]
    rows += _loaded_before(case)
    told = {place for _, place, _ in rows}
    for _, row in _facts_behind(case).iterrows():
        place = place_of(row["source"], row["line"])
        if place not in told or row["lane"] == "boot":
            rows.append([happening(case, row), place, ""])
    note = "The hash is SHA-256 over the crash's own lines: whoever holds the file can check that they are these."
    return Table("Where each fact stands", ["Fact", "File and line", "SHA-256"], rows, note, widths=(34, 34, 32))


def _loaded_before(case: Case) -> list[list[str]]:
    # The newest reading of the version that the crash is charged to; it may be older than the timeline reaches.
    drivers = case.fleet.drivers[case.fleet.drivers["host"] == case.crash["host"]]
    same = drivers[
        (drivers["module"] == case.crash["guilty_module"]) & (drivers["version"] == case.crash["driver_version"])
    ]
    rows = same[same["observed_at"] <= case.crash["time"]].sort_values("observed_at").tail(1)
    return [
        [
            f"{case.module} {case.version} {literal(row['state'])} on {moment(row['observed_at'])}",
            place_of(row["source"], row["line"]),
            "",
        ]
        for _, row in rows.iterrows()
    ]


def _facts_behind(case: Case) -> pd.DataFrame:
    # The last word on the driver before the crash, every word after it, and the boots on either side.
    facts = case.timeline[case.timeline["lane"].isin(["boot", "driver"])]
    if not known(case.crash["time"]):
        return facts.tail(12)
    before, after = facts[facts["time"] <= case.crash["time"]], facts[facts["time"] > case.crash["time"]]
    nearest: pd.DataFrame = pd.concat(
        [before.groupby("lane").tail(2), after.groupby("lane").head(3), facts[facts["time"].isna()].head(6)]
    )
    return nearest


def stack_tables(case: Case) -> list[Table]:
    """The panicking backtrace."""
    frames = case.fleet.frames[
        (case.fleet.frames["crash_id"] == case.crash["crash_id"]) & (case.fleet.frames["backtrace"] == 0)
    ]
    rows = [
        [
            literal(frame["index"]),
            _with_offset(frame),
            literal(frame["module"]),
            literal(frame["module_evidence"]).replace("_", " "),
        ]
        for _, frame in frames.head(16).iterrows()
    ]
    if not rows:
        return []
    note = f"and {len(frames) - len(rows)} more; all in tables/frames.parquet" if len(frames) > len(rows) else ""
    return [
        Table(
            "The panicking backtrace, innermost first",
            ["#", "Function", "Module", "Module known by"],
            rows,
            note,
            widths=(6, 50, 24, 20),
        )
    ]


def _with_offset(frame: pd.Series) -> str:
    return (
        f"{literal(frame['function'])}+{int(frame['offset']):#x}"
        if known(frame["offset"])
        else literal(frame["function"])
    )


def cause_blocks(case: Case) -> list[Text | Bullets]:
    """The root cause, with its certainty."""
    certainty, why = CERTAINTY[str(case.crash["guilt"])]
    if str(case.crash["guilt"]) == "deliberate":
        return [Text("A person asked for this crash, for a test or to have a dump. Nothing was at fault.")]
    if str(case.crash["guilt"]) == "hardware":
        return [Bullets([
            f"Certainty that hardware is at fault: {certainty}, because {why}.",
            "Which part failed is not in these tables: the error banks are in the log's MCE lines, the part in the server's own log.",
            "No driver is accused, and none need be changed because of this crash.",
        ])]  # fmt: skip
    if case.module is None:
        return [
            Text(
                f"Certainty: {certainty}. {why[0].upper()}{why[1:]}, so no root cause can be stated from this evidence."
            )
        ]
    lines = [f"Certainty that {case.module} is at fault: {certainty}, because {why}."]
    evidence = literal(case.crash["driver_evidence"]).replace("_", " ")
    if case.version:
        lines.append(f"Version {case.version} was loaded in the boot that crashed; this is known by: {evidence}.")
    else:
        lines.append(
            "Which version was loaded in the boot that crashed is not known: it cannot be said that this version is at"
            " fault."
        )
    if known(case.crash["damage"]) and str(case.crash["damage"]):
        lines.append(
            f"The crash's text is not whole ({literal(case.crash['damage']).replace(';', ', ').replace('_', ' ')})."
        )
    lines.append(
        "A backtrace shows where the host stopped. Memory spoiled earlier by another module would look the same."
    )
    return [Bullets(lines)]
