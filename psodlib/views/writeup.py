"""One crash -> the content of its write-up: what happened when, on what evidence, why, whom it hit, what to do.

Every sentence is made from the tables by a small function, and says what is not known where the tables do not.
``document.py`` turns the content into HTML, PDF and Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from psodlib.errors import InputError
from psodlib.fleet import Fleet
from psodlib.triage.boots import loaded_versions
from psodlib.triage.known_issues import Issue
from psodlib.views.document import Bullets, Document, Picture, Section, Steps, Table, Text
from psodlib.views.incident import incident_timeline
from psodlib.views.site import read_site, site_section
from psodlib.views.words import UNKNOWN, count, known, listing, literal, moment, share, span

__all__ = ["SIMULATED", "asked_for", "choose_crash", "write_up"]

SIMULATED = "Simulated fleet: hosts, crashes and figures on this page are made up."

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


DUMP_NAME = re.compile(r"vmkernel-log\.\d|zdump")  # what the text of a core dump is called


@dataclass(frozen=True)
class Bundle:
    """What an offline bundle is called, and the VIB it brings."""

    file: str
    vib: str


# Bundles whose names were seen in a real roll-back; for any other version the runbook leaves the name open.
BUNDLES = {
    ("hpsa", "5.5.0.50"): Bundle(
        "hpsa-5.5.0-offline_bundle-1287942.zip", "Hewlett-Packard_bootbank_scsi-hpsa_5.5.0.50-1OEM.550.0.0.1198611"
    ),
}
# What a hardware error asks for; the commands read, and change nothing.
HARDWARE_STEPS = (
    ("Put the host into maintenance mode: it may stop again.", "# esxcli system maintenanceMode set --enable true",
     "the host shows no running virtual machine"),
    ("Read what the log says of the error before the crash.", "# zcat -f /var/log/vmkernel* | grep -i -A2 'MCE\\|machine check\\|corrected'",
     "lines that name a CPU and a bank; none is no proof of health"),
    ("Read the server's own event log (iLO, iDRAC, IMM or CIMC), for memory, CPU and PCI errors of that time.",
     "# esxcli hardware ipmi sel list", "an entry near the time of the crash; not every server answers here"),
    ("Have the vendor change the part that these name, and run the vendor's diagnostics before the host takes machines again.", "", ""),
)  # fmt: skip
# Drivers that report the loaded version in /proc (vmklinux SCSI drivers); the others answer through vmkload_mod.
PROC_DRIVERS = ("hpsa", "megaraid_sas", "mpt2sas")


def choose_crash(fleet: Fleet, crash_id: str | None = None, module: str = "hpsa") -> pd.Series | None:
    """The crash to write up.

    Parameters
    ----------
    fleet : Fleet
        Its ``crashes``.
    crash_id : str, optional
        The crash wanted; by default the newest one laid at ``module``, else the newest that nobody asked for.
    module : str
        The driver in question.

    Returns
    -------
    pandas.Series or None
        A row of ``crashes``; None when there is none.

    Raises
    ------
    InputError
        No crash has this ``crash_id``.
    """
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
    """The write-up of one crash.

    Parameters
    ----------
    fleet : Fleet
        The tables around it.
    crash : pandas.Series or None
        What ``choose_crash`` gave; None gives a document that says that there is nothing to write up.
    issues : sequence of Issue
        The known issues there are; those that the crash matches are quoted.
    go_to : str, optional
        The driver version that the pin decision favours; else the host's own last one before is proposed.
    pictures : sequence of Picture or Text
        Shown under the timeline.
    more : sequence of Section
        What else was asked for, at the end: notes of people (``explore.note_section``), facts of the site (``site_section``).

    Returns
    -------
    Document
        The content.
    """
    if crash is None:
        return _nothing(fleet)
    case = _Case(fleet, crash, tuple(issues), go_to, incident_timeline(fleet, str(crash["crash_id"])))
    return Document(
        title=f"Crash of {literal(crash['host'])}, {moment(crash['time']) if known(crash['time']) else 'time unknown'}",
        subtitle=f"Post-incident write-up of crash {literal(crash['crash_id'])}",
        lead=_lead(crash),
        tone="bad",
        notice=SIMULATED if fleet.simulated else "",
        facts=_facts(case),
        sections=[
            Section("What happened when", [_timeline_table(case), *pictures]),
            Section("Evidence", [_evidence_table(case), *_stack(case)]),
            Section("Root cause, and how sure", _cause(case)),
            Section("Whom it hit", [Bullets(_impact(case))]),
            Section("Known issue", _known_issue(case)),
            Section("What to do", _runbook(case)),
            Section("Open questions", [Bullets(_open_questions(case))]),
            Section("What support will ask", [_support_table(case)]),
            *more,
        ],
    )


def asked_for(crash_id: str, notes: str | Path | None = None, site: str | Path | None = None) -> list[Section]:
    """What goes into a write-up only because somebody asked.

    Parameters
    ----------
    crash_id : str
        The crash.
    notes : str or Path, optional
        Folder of the tags and notes made in the explorer.
    site : str or Path, optional
        The private ``site.toml``.

    Returns
    -------
    list of Section
        For ``write_up(more=...)``.

    Raises
    ------
    InputError
        One of the files cannot be read.
    """
    from psodlib.views.explore.notes import (
        note_section,
        read_notes,
    )  # brings the widgets, which a plain write-up needs not

    said = note_section(read_notes(notes), crash_id) if notes is not None else None
    return [*([said] if said else []), *([site_section(read_site(site))] if site is not None else [])]


@dataclass(frozen=True)
class _Case:
    # What every section of one write-up looks at.
    fleet: Fleet
    crash: pd.Series
    issues: tuple[Issue, ...]
    go_to: str | None
    timeline: pd.DataFrame

    @property
    def host(self) -> str:
        return literal(self.crash["host"])

    @property
    def module(self) -> str | None:
        return literal(self.crash["guilty_module"]) if known(self.crash["guilty_module"]) else None

    @property
    def version(self) -> str | None:
        return literal(self.crash["driver_version"]) if known(self.crash["driver_version"]) else None

    @property
    def matched(self) -> list[Issue]:
        words = str(self.crash["known_issues"]).split(";") if known(self.crash["known_issues"]) else []
        return [issue for issue in self.issues if issue.id in words]


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


def _boots(fleet: Fleet, crash: pd.Series) -> tuple[pd.DataFrame, int]:
    # The host's boots in order, and the place of the one that crashed (-1 when no boot holds the crash).
    boots = fleet.uptimes[fleet.uptimes["host"] == crash["host"]].sort_values("boot").reset_index(drop=True)
    own = boots.index[(boots["crash_id"] == crash["crash_id"])]
    if len(own) == 0 and known(crash["time"]):
        own = boots.index[(boots["boot"] <= crash["time"]) & (boots["end"] >= crash["time"])]
    return boots, int(own[0]) if len(own) else -1


UNDATED = (
    "Of a fact whose time is unknown only the order is known: facts of one file stand as they follow each other in it; "
    "where they stand against the dated ones is open."
)


def _timeline_table(case: _Case) -> Table:
    # Changes only: a version that was seen again the next day is no news.
    facts = case.timeline[case.timeline["lane"] != "watched"]
    bare = facts["what"] == f"{case.module} loaded"  # and no word of the version
    news = facts[(facts["lane"] != "driver") | ~(facts.duplicated(["lane", "what"]) | bare)]
    shown = news.tail(30)
    rows = [
        [moment(row["time"]).removesuffix(" UTC"), _happened(case, row), _place(row["source"], row["line"])]
        for _, row in shown.iterrows()
    ]
    left_out = len(news) - len(shown)
    notes = [
        f"{count(left_out, 'earlier fact')} left out." if left_out else "",
        UNDATED if shown["time"].isna().any() else "",
    ]
    note = " ".join(filter(None, notes))
    return Table(f"{case.host} around the crash", ["When (UTC)", "What", "Known from"], rows, note, widths=(22, 46, 32))


ENDS = {
    "crash": "this boot ended in a crash", "reboot": "until a planned reboot", "shutdown": "until a shutdown",
    "power": "until the power went", "unexplained": "until a stop that nothing explains", "running": "and still ran when the evidence ends",
}  # fmt: skip


def _happened(case: _Case, row: pd.Series) -> str:
    words = {"crash": "The crash", "another crash": "Another crash"}
    what, detail = words.get(str(row["what"]), literal(row["what"])), literal(row["detail"])
    if row["lane"] == "crash":
        return f"{what}: {detail}"
    if row["lane"] == "driver":
        return f"{what} (known from {detail.replace('_', ' ')})"
    if row["lane"] == "down":
        own = known(case.crash["time"]) and row["time"] == case.crash["time"]
        dump = "the dump was written" if DUMP_NAME.search(str(row["source"])) else "a dump was written, if there is one"
        told = f"; meanwhile {dump} and vSphere HA, where it is on, restarted its machines elsewhere" if own else ""
        return f"The host was down for {span(row['end'] - row['time'])}{told}"
    later = row["time"] > case.crash["time"] if known(row["time"]) and known(case.crash["time"]) else False
    since = f", {span(row['time'] - case.crash['time'])} after the crash" if later else ""
    return f"The host booted{since}; {ENDS.get(detail.removeprefix('ended by '), 'how it ended is not known')}"


def _place(source: Any, line: Any) -> str:
    # Where a reader finds it: file and line.
    return f"{literal(source)}:{line}" if known(source) and known(line) else literal(source)


# ---- evidence and cause ------------------------------------------------------------------------------------------------


def _lead(crash: pd.Series) -> str:
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


def _facts(case: _Case) -> list[tuple[str, str]]:
    crash = case.crash
    release = " build ".join(literal(crash[name]) for name in ("esxi_version", "esxi_build") if known(crash[name]))
    world = " ".join(literal(crash[name]) for name in ("world_id", "world_name") if known(crash[name]))
    return [
        ("Host", case.host), ("ESXi", release or UNKNOWN), ("Uptime at the crash", span(crash["uptime"])),
        ("Guilty module", f"{case.module or _nobody(crash)} {case.version or ''}".strip()),
        ("Function", literal(crash["guilty_function"])), ("World", world or UNKNOWN),
    ]  # fmt: skip


def _evidence_table(case: _Case) -> Table:
    crash = case.crash
    copies = f", found {count(crash['copies'], 'time')}" if known(crash["copies"]) and crash["copies"] > 1 else ""
    rows = [
        [f"The crash's own text{copies}", _place(crash["source"], crash["line"]), literal(crash["sha256"])],
    ]
    rows += _loaded_before(case)
    told = {place for _, place, _ in rows}
    for _, row in _facts_behind(case).iterrows():
        place = _place(row["source"], row["line"])
        if place not in told or row["lane"] == "boot":
            rows.append([_happened(case, row), place, ""])
    note = "The hash is SHA-256 over the crash's own lines: whoever holds the file can check that they are these."
    return Table("Where each fact stands", ["Fact", "File and line", "SHA-256"], rows, note, widths=(34, 34, 32))


def _loaded_before(case: _Case) -> list[list[str]]:
    # The newest reading of the version that the crash is charged to; it may be older than the timeline reaches.
    drivers = case.fleet.drivers[case.fleet.drivers["host"] == case.crash["host"]]
    same = drivers[
        (drivers["module"] == case.crash["guilty_module"]) & (drivers["version"] == case.crash["driver_version"])
    ]
    rows = same[same["observed_at"] <= case.crash["time"]].sort_values("observed_at").tail(1)
    return [
        [
            f"{case.module} {case.version} {literal(row['state'])} on {moment(row['observed_at'])}",
            _place(row["source"], row["line"]),
            "",
        ]
        for _, row in rows.iterrows()
    ]


def _facts_behind(case: _Case) -> pd.DataFrame:
    # The last word on the driver before the crash, every word after it, and the boots on either side.
    facts = case.timeline[case.timeline["lane"].isin(["boot", "driver"])]
    if not known(case.crash["time"]):
        return facts.tail(12)
    before, after = facts[facts["time"] <= case.crash["time"]], facts[facts["time"] > case.crash["time"]]
    nearest: pd.DataFrame = pd.concat(
        [before.groupby("lane").tail(2), after.groupby("lane").head(3), facts[facts["time"].isna()].head(6)]
    )
    return nearest


def _stack(case: _Case) -> list[Table]:
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


def _cause(case: _Case) -> list[Text | Bullets]:
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


# ---- impact, known issue, runbook, questions ---------------------------------------------------------------------------


def _impact(case: _Case) -> list[str]:
    lines = [_down_time(case), _people(case)]
    crashes = case.fleet.crashes
    alike = crashes[(crashes["signature"] == case.crash["signature"]) & (crashes["crash_id"] != case.crash["crash_id"])]
    if len(alike):
        lines.append(f"{count(len(alike), 'other crash', 'other crashes')} on {count(alike['host'].nunique(), 'host')} "
                     f"{'carries' if len(alike) == 1 else 'carry'} the same signature: {literal(case.crash['signature'])}.")  # fmt: skip
    else:
        lines.append(f"No other crash in the evidence carries its signature: {literal(case.crash['signature'])}.")
    if not (case.fleet.uptimes["observed"] > pd.Timedelta(0)).any():
        lines.append(
            "This is the report of one case: for how many host-days hosts ran without a crash is not known, so no rate can be given."
        )
    return lines


def _down_time(case: _Case) -> str:
    boots, own = _boots(case.fleet, case.crash)
    if own < 0 or own + 1 >= len(boots) or not known(case.crash["time"]):
        return "How long the host was down is not known: the evidence shows no boot after the crash."
    return (
        f"The host was down for {span(boots['boot'].iloc[own + 1] - case.crash['time'])} (from the crash to its next"
        " boot)."
    )


def _people(case: _Case) -> str:
    row = case.fleet.hosts[case.fleet.hosts["host"] == case.crash["host"]]
    parts = []
    for column in ("users", "vms"):
        if column in row and len(row) and known(row[column].iloc[0]):
            parts.append(f"{literal(row[column].iloc[0])} {'virtual machines' if column == 'vms' else column}")
    if not parts:
        return (
            "How many users were hit cannot be said: the inventory has no users or vms for this host, or no inventory"
            " was given."
        )
    return (
        f"The inventory lists {' and '.join(parts)} on this host; how many were at work at that moment is not in the"
        " evidence."
    )


def _known_issue(case: _Case) -> list[Text | Bullets]:
    if not known(case.crash["known_issues"]) or not str(case.crash["known_issues"]):
        return [Text("No known issue on file matches this crash. That does not mean that the vendor knows none.")]
    if not case.matched:
        return [Text(f"Matches: {literal(case.crash['known_issues']).replace(';', ', ')}.")]
    return [Bullets([_issue_line(issue) for issue in case.matched])]


def _issue_line(issue: Issue) -> str:
    fixed = f" Fixed in {literal(issue.fixed_in)}." if issue.fixed_in else ""
    return (
        f"{literal(issue.id)}, {literal(issue.title)}.{fixed} {literal(issue.remedy)} (Source: {literal(issue.source)};"
        f" {issue.sure})"
    )


def _runbook(case: _Case) -> list[Text | Steps]:
    if str(case.crash["guilt"]) == "deliberate":
        return [
            Text(
                "Nothing, unless nobody knows of the test: then ask who was on the host's console or shell at that time."
            )
        ]
    if str(case.crash["guilt"]) == "hardware":
        return [Text("Change no driver because of this crash. Find the part first:"), Steps(HARDWARE_STEPS)]
    if case.module is None:
        return [
            Text(
                "Without a guilty module there is no driver to change. Keep the dump, and open a support case with it."
            )
        ]
    target = _target(case)
    if target is None:
        return [Text(_no_target_line(case))]
    bundle = BUNDLES.get((case.module, target))
    file = bundle.file if bundle else f"OFFLINE-BUNDLE-OF-{case.module}.zip"
    done = _found_since(case, target)
    return [Text(f"{_target_line(case, target)} {done}".rstrip()), Steps(_steps(case, target, file, bundle))]


def _target(case: _Case) -> str | None:
    # The version to go to: what the decision pins; where a known issue names the version that crashed, the one that this host
    # ran before, or the one that the incident went back to. One crash alone moves no host.
    if case.go_to:
        return case.go_to if case.go_to != case.version else None
    if not case.matched or case.version is None:
        return None
    boots = loaded_versions(case.fleet.uptimes, case.fleet.drivers, str(case.module))
    boots = boots[(boots["host"] == case.crash["host"]) & boots["version"].notna()]
    earlier = boots[(boots["boot"] < case.crash["time"]) & (boots["version"] != case.crash["driver_version"])]
    named = {version for issue in case.matched for version in issue.versions}
    earlier = earlier[~earlier["version"].isin(named)]
    if len(earlier):
        return literal(earlier.sort_values("boot")["version"].iloc[-1])
    known_good = [version for module, version in BUNDLES if module == case.module and version != case.version]
    return known_good[0] if known_good else None


def _no_target_line(case: _Case) -> str:
    if case.go_to and case.go_to == case.version:
        return f"{case.module} {case.version} is the version that the pin decision of this report favours: nothing to change."
    return (
        f"Change no driver because of this crash alone: the evidence favours no version of {case.module} over "
        f"{case.version or 'the one that ran'}, and it matches no known issue of that version. Keep the dump, and open a support case with it."
    )


def _target_line(case: _Case, target: str) -> str:
    why = (
        "the pin decision of this report favours it"
        if target == case.go_to
        else f"a known issue names the version that crashed, and {target} is the version to go back to"
    )
    return (
        f"From {case.module} {case.version or 'of unknown version'} to {target}: {why}. One host first, then the rest"
        " in waves."
    )


def _found_since(case: _Case, target: str) -> str:
    # Read as loaded after the crash, by its time or by its place behind the install in a session.
    drivers = case.fleet.drivers
    mine = (drivers["host"] == case.crash["host"]) & (drivers["module"] == case.crash["guilty_module"])
    later = (drivers["observed_at"] > case.crash["time"]).fillna(False) | (
        drivers["observed_at"].isna() & drivers["boot"].isna()
    )
    found = drivers[
        mine & later & drivers["state"].eq("loaded").fillna(False) & drivers["version"].eq(target).fillna(False)
    ]
    if found.empty:
        return ""
    return f"This host has done it: {target} was read as loaded afterwards ({_place(found['source'].iloc[0], found['line'].iloc[0])}). The steps are for the others."


def _steps(case: _Case, target: str | None, file: str, bundle: Bundle | None) -> list[tuple[str, str, str]]:
    removed = _vib_in_use(case)
    installed = bundle.vib if bundle else f"the {case.module} VIB of version {target or 'chosen'}"
    check, answer = _version_check(case.module or "", target)
    # Of a bundle that nobody has tried here, ask first what it would change.
    trial = [] if bundle else [(
        f"The name of the bundle with {case.module} {target} is not in the evidence: take the one that the vendor gives for this "
        "host's release, and see what it would change.",
        f"# esxcli software vib install -d /vmfs/volumes/DATASTORE/{file} --dry-run",
        f"only {installed} among the VIBs Installed; if others are named, ask the vendor first"
    )]  # fmt: skip
    return [
        ("Copy the bundle to a local datastore, put the host into maintenance mode (its virtual machines move away), switch SSH on.",
         "# esxcli system maintenanceMode set --enable true", "the host shows no running virtual machine"),
        ("Write down what is loaded now.", check, f"{case.version or 'the version that crashed'}"),
        *trial,
        ("Copy the bundle to the host's own disk and install it.",
         f"# cp /vmfs/volumes/DATASTORE/{file} /var/log/vmware/\n# esxcli software vib install -d /var/log/vmware/{file}",
         f"Reboot Required: true. VIBs Installed: {installed}. VIBs Removed: {removed}"),
        ("Reboot. The force skips an orderly stop, so only in maintenance mode.", "# reboot -f", "the host comes back within its usual time"),
        ("Check what is loaded now, not only what is installed.", check, answer),
        ("Leave maintenance mode.", "# esxcli system maintenanceMode set --enable false", "virtual machines can move back"),
        ("Afterwards: collect this host's logs again, so that the days on the new version are counted.", "", ""),
    ]  # fmt: skip


def _vib_in_use(case: _Case) -> str:
    drivers = case.fleet.drivers
    own = drivers[(drivers["host"] == case.crash["host"]) & (drivers["module"] == case.crash["guilty_module"])]
    named = own[(own["version"] == case.crash["driver_version"]) & own["vib"].notna()]
    return literal(named["vib"].iloc[-1]) if len(named) else f"the {case.module} VIB in use"


def _version_check(module: str, target: str | None) -> tuple[str, str]:
    if module == "hpsa":
        return "# cat /proc/scsi/hpsa/2", f"HP HPSA Driver (v {target or 'the new version'}-1OEM)"
    if module in PROC_DRIVERS:
        return f"# cat /proc/scsi/{module}/*", f"version {target or 'chosen'}"
    return f"# esxcli system module get -m {module} | grep -i version", f"Version: {target or 'the new version'}"


def _open_questions(case: _Case) -> list[str]:
    crash = case.crash
    blames_no_driver = str(crash["guilt"]) in ("hardware", "deliberate")
    asked = [
        (
            str(crash["guilt"]) == "hardware",
            "Which part failed? The server's own log (IML, SEL), or the vendor with the MCE lines, would tell.",
        ),
        (
            str(crash["guilt"]) == "deliberate",
            "Who asked for this crash, and why? The host's shell log or the change record would tell.",
        ),
        (
            not known(crash["guilty_module"]) and not blames_no_driver,
            "Which module is at fault? A whole dump log, or the module map, would tell.",
        ),
        (
            not known(crash["driver_version"]) and not blames_no_driver,
            "Which driver version was loaded? The boot's log banner, or the VIB list of that day, would tell.",
        ),
        (
            literal(crash["driver_evidence"]) == "conflict",
            "Two observations of the loaded version disagree: which one is right?",
        ),
        (not known(crash["uptime"]), "How long had the host been up? The crash's uptime line is missing."),
        (
            (not known(crash["known_issues"]) or not str(crash["known_issues"]))
            and str(crash["guilt"]) != "deliberate",
            "Does the vendor know this crash? Open a case with the dump.",
        ),
        (
            True,
            (
                "Did anything else change on this host before the crash: firmware, host build, load? The evidence here"
                " speaks of drivers only."
            ),
        ),
        (
            True,
            "When did vSphere HA act, and which machines did it start again? vCenter's events tell; no file of a host does.",
        ),
        (not blames_no_driver, _others_exposed(case)),
    ]
    return [question for holds, question in asked if holds and question]


def _nobody(crash: pd.Series) -> str:
    return {"hardware": "none: a hardware error", "deliberate": "none: asked for"}.get(
        str(crash["guilt"]), "none found"
    )


def _support_table(case: _Case) -> Table:
    # Product, build, hardware, driver, dump: what every case form asks, as far as the evidence has it.
    crash, hosts = case.crash, case.fleet.hosts
    row = hosts[(hosts["host"] == crash["host"]).fillna(False)]
    model = " ".join(
        literal(row[name].iloc[0]) for name in ("vendor", "model") if len(row) and known(row[name].iloc[0])
    )
    drivers = case.fleet.drivers
    own = drivers[((drivers["host"] == crash["host"]) & (drivers["module"] == crash["guilty_module"])).fillna(False)]
    firmware = own["firmware"].dropna()
    release = " build ".join(literal(crash[name]) for name in ("esxi_version", "esxi_build") if known(crash[name]))
    rows = [
        ["Product", f"VMware ESXi {release}" if release else "VMware ESXi, release unknown: vmware -vl tells"],
        ["Hardware", model or "unknown: esxcli hardware platform get tells"],
        [
            "Module and version",
            f"{case.module or _nobody(crash)} {case.version or 'of unknown version' if case.module else ''}".strip(),
        ],
        *(
            [["Its VIB", _vib_in_use(case) if _knows_vib(case) else "unknown: esxcli software vib list tells"]]
            if case.module
            else []
        ),
        [
            "Firmware of its device" if case.module else "Firmware",
            literal(firmware.iloc[-1]) if len(firmware) else "unknown: not in the evidence",
        ],
        ["When", moment(crash["time"])],
        ["Message", literal(crash["message"])],
        ["The dump", f"its text is at {_place(crash['source'], crash['line'])}; keep the vmkernel-zdump on the host"],
    ]
    return Table("For the case form", ["Asked", "Answer"], rows, widths=(24, 76))


def _knows_vib(case: _Case) -> bool:
    return not _vib_in_use(case).startswith("the ")


def _others_exposed(case: _Case) -> str:
    if case.module is None or case.version is None:
        return "How many other hosts run the same driver? Not known while the version is not."
    boots = loaded_versions(case.fleet.uptimes, case.fleet.drivers, case.module)
    target = _target(case)
    if target is None:
        return ""
    newest = boots.sort_values("boot").groupby("host").tail(1)
    same = newest[(newest["version"] == case.crash["driver_version"])]
    if _found_since(case, target):
        same = same[same["host"] != case.crash["host"]]
    hosts = len(case.fleet.hosts)
    if same.empty:
        return ""
    return (f"When do the hosts that run {case.module} {case.version} now change? They are {count(len(same), 'host')} of {hosts:,} "
            f"({share(len(same), hosts)}).")  # fmt: skip
