"""One crash -> the write-up that a vendor accepts: what happened when, its own text, what was done, why, impact, what to do.

What is known is gathered once (``Case``), from the tables, or from ``incident.toml`` where people know more (``account.py``);
each sentence is made from it, and says what is not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from psodlib.errors import InputError
from psodlib.evidence.artifacts.terminal import find_prompt
from psodlib.fleet import Fleet
from psodlib.triage.boots import loaded_versions
from psodlib.triage.known_issues import Issue
from psodlib.triage.timeline import DUMP_NAME, incident_timeline
from psodlib.views.account import PLACES, Account, site_section
from psodlib.views.document import Block, Code, Document, Section, Steps, Table, Text, sections
from psodlib.views.words import SIMULATED, count, holding, joined, known, listing, literal, moment, share, span

from psodlib.views.crash import (  # isort: skip
    crash_title, issue_lines, moment_of, not_whole, own_text, place_of, plain_words, typed_on, where,
)  # fmt: skip

# How far each kind of evidence carries, strongest first: certainty, and why.
CERTAINTY = {
    "named_by_kernel": ("near certain", "the kernel itself names the module in its panic message"),
    "on_stack": ("strong", "the module's own function is the innermost driver code on the panicking backtrace"),
    "module_map": ("strong", "the crash's addresses lie inside the module's code by the dump's own module map"),
    "symbol_prefix": ("good", "the dump prints no module name, but the innermost functions carry the module's prefix"),
    "world_name": ("weak", "only the name of the world that was running points at the module; its code is not on the stack"),
    "precursor_log": ("weak", "the module complained in the log before the crash, but its code is not on the stack"),
    "hardware": ("strong", "the message reports a hardware error, which a driver does not cause"),
    "deliberate": ("certain", "a person asked for this crash"),
    "none": ("none", "no evidence points at a module"),
}  # fmt: skip
NO_DRIVER = ("hardware", "deliberate")  # the evidence that no driver did it
ENDS = {
    "crash": "this boot ended in a crash", "reboot": "until a planned reboot", "shutdown": "until a shutdown",
    "power": "until the power went", "unexplained": "until a stop that nothing explains", "running": "and still ran when the evidence ends",
}  # fmt: skip
# What a typed command was for; those of other kinds are in the transcript alone.
REBOOT = re.compile(r"^reboot\b")
PURPOSES = (
    (re.compile(r"esxcfg-dumppart\b.*-L|vmkdump_extract"), 1.5, "The log was drawn from the dump"),
    (re.compile(r"/proc/(?:scsi|driver)|system module get|vmkload_mod -s"), 2.7, "The loaded version was read"),
    (re.compile(r"vib (?:install|update|remove)"), 3.0, "The driver was installed"),
    (REBOOT, 3.0, "The host was rebooted"),
)  # where they stand among the undated events (``_undated``), and what they did
MOST_FACTS = 30
# Bundles whose names were seen in a real roll-back; for any other version the runbook leaves the name open.
BUNDLES = {
    ("hpsa", "5.5.0.50"): ("hpsa-5.5.0-offline_bundle-1287942.zip", "Hewlett-Packard_bootbank_scsi-hpsa_5.5.0.50-1OEM.550.0.0.1198611"),
}  # fmt: skip
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


@dataclass(frozen=True)
class Case:
    """What is known of one crash and its host, and what was asked of its write-up."""

    fleet: Fleet
    crash: Any  # its row
    guilt: str
    host: str  # as text; so are module and version, None where they are not known
    module: str | None
    version: str | None
    vib: str
    drivers: pd.DataFrame  # the host's observations of the guilty module
    events: pd.DataFrame  # what a vCenter says of the host around the crash
    inventory: dict[str, Any]
    account: Account
    typed: Mapping[str, str]  # files of commands typed on the host, by name
    matched: list[Issue]
    pin: str | None
    target: str | None  # the version to go to
    timeline: pd.DataFrame
    done: str  # that this host has gone there
    place: Callable[..., Any]


def _case(fleet: Fleet, crash: Any, issues: Sequence[Issue], pin: str | None, account: Any, typed: Any) -> Case:
    # What is known of one crash and its host.
    time, host = crash["time"], crash["host"]
    module, version = (joined(crash, name) or None for name in ("guilty_module", "driver_version"))
    drivers = where(fleet.drivers, host=host, module=crash["guilty_module"])
    vibs = where(drivers, version=crash["driver_version"])["vib"].dropna()
    own: dict[str, Any] = next(iter(where(fleet.hosts, host=host).to_dict("records")), {})
    events = where(fleet.events, host=host)
    near = events["time"].between(time - pd.Timedelta(minutes=10), time + pd.Timedelta(hours=1))
    matched = [issue for issue in issues if issue.id in literal(crash["known_issues"], "").split(";")]
    target = _version_to_go_to(fleet, crash, matched, pin)
    # Read as loaded after the crash, by its time or by its place behind the install in a session.
    there = where(drivers, state="loaded", version=target)
    later = there[(there["observed_at"] > time).fillna(False) | (there["observed_at"].isna() & there["boot"].isna())]
    read = [place_of(row.source, row.line, host) for row in later.head(1).itertuples()]
    gone = f"{target} was read as loaded afterwards ({''.join(read)}). The steps are for the others."
    return Case(
        fleet=fleet, crash=crash, guilt=str(crash["guilt"]), host=literal(host), module=module, version=version,
        vib=literal(vibs.iloc[-1]) if len(vibs) else f"the {module} VIB in use", drivers=drivers, events=events[near],
        inventory={name: value for name, value in own.items() if known(value)}, account=account or Account(),
        typed=typed_on(fleet, crash) if typed is None else typed, matched=matched, pin=pin, target=target,
        timeline=incident_timeline(fleet, str(crash["crash_id"])), done=f"This host has done it: {gone}" if read else "",
        place=lambda source, line=None: place_of(source, line, host),
    )  # fmt: skip


def _version_to_go_to(fleet: Fleet, crash: Any, matched: Sequence[Issue], pin: str | None) -> str | None:
    # What the decision pins; where a known issue names the version that crashed, the one that this host ran before, or the one
    # that the incident went back to. One crash alone moves no host.
    version, module = crash["driver_version"], crash["guilty_module"]
    if pin:
        return pin if not known(version) or pin != literal(version) else None
    if not matched or not known(version):
        return None
    named = {one for issue in matched for one in issue.versions} | {version}
    boots = where(loaded_versions(fleet.uptimes, fleet.drivers, str(module)), host=crash["host"])
    earlier = boots[boots["version"].notna() & ~boots["version"].isin(named) & (boots["boot"] < crash["time"])]
    if len(earlier):
        return literal(earlier.sort_values("boot")["version"].iloc[-1])
    return next((one for of, one in BUNDLES if of == module and one != version), None)


def choose_crash(fleet: Fleet, crash_id: str | None = None, module: str = "hpsa") -> pd.Series | None:
    """The crash to write up: the one whose id begins so, or the newest by the module, or the newest that nobody asked for."""
    crashes = fleet.crashes
    if crash_id is not None:
        whole = fleet.crash(crash_id).crash_id
        return crashes[crashes["crash_id"] == whole].iloc[0]
    unwanted = crashes[~crashes["deliberate"].fillna(False)]
    for rows in (unwanted[unwanted["guilty_module"] == module], unwanted, crashes):
        if len(rows):
            return rows.sort_values("time", na_position="first", kind="stable").iloc[-1]
    return None


def write_up(
    fleet: Fleet, crash: pd.Series | None, *, issues: Sequence[Issue] = (), go_to: str | None = None, pictures: Sequence[Block] = (),
    more: Sequence[Section] = (), account: Account | None = None, typed: Mapping[str, str] | None = None,
) -> Document:  # fmt: skip
    """The write-up of one crash; ``typed`` are the transcripts of its host, by default read again where they lie."""
    notice = SIMULATED if fleet.simulated else ""
    if crash is None:
        why = (
            "Either no host stopped with a purple screen, or the evidence that would show it was not collected: the dump logs in "
            "/var/core, the rotated vmkernel logs, or vm-support bundles. The report's list of problems says what could not be read."
        )
        lead = f"No crash was found on {count(len(fleet.hosts), 'host')}."
        meant = sections(("What this means", [Text(why)]))
        return Document(title="No crash to write up", lead=lead, notice=notice, sections=meant)
    case = _case(fleet, crash, issues, go_to, account, typed)
    dated = case.timeline["lane"].isin(["boot", "driver"]) & case.timeline["time"].notna()
    copies = crash["copies"] if known(crash["copies"]) else 1
    again = [Text(f"The same text was found {count(copies, 'time')}.")] if copies > 1 else []
    parts = sections(
        ("What happened when", [_timeline_table(case), *(pictures if dated.sum() > 1 else ())]),
        ("The crash's own text", [*own_text(fleet, crash, 16), *again]),
        ("What was typed on the host", [Code(text, case.place(name), 1) for name, text in list(case.typed.items())[:2]]),
        ("Root cause, and how sure", _cause(case)),
        ("Impact", _impact(case)),
        ("Known issue", _known_issue(case)),
        ("What to do", _runbook(case)),
        ("Open questions", _open_questions(case)),
        ("For the support case", [_support_table(case)]),
    )  # fmt: skip
    return Document(
        title=crash_title(crash), subtitle=f"Post-incident write-up of crash {literal(crash['crash_id'])}", lead=_lead(case),
        tone="bad", notice=notice, facts=_facts(case), sections=[*parts, *more],
    )  # fmt: skip


def asked_for(crash_id: str, notes: str | Path | None = None, site: str | Path | None = None) -> list[Section]:
    """What goes into a write-up only because somebody asked."""
    # It brings the widgets, which a plain write-up needs not.
    from psodlib.views.explore import note_section, read_notes

    if notes is not None and not Path(notes).is_dir():
        raise InputError(f"{notes}: no folder; expected the one in which the explorer keeps its notes")
    section = note_section(read_notes(notes), crash_id) if notes is not None else None
    return [*([section] if section else []), *([site_section(site)] if site is not None else [])]


# ---- the head --------------------------------------------------------------------------------------------------------------


def _lead(case: Case) -> str:
    crash, account, time = case.crash, case.account, case.crash["time"]
    when = f" on {time:%A}, {time.day} {time:%B %Y}, at {time:%H:%M:%S} UTC" if known(time) else ""
    local = f", {account.local(time)[11:16]} local" if account.local(time) else ""
    after = f", after {_in_words(crash['uptime'])} of uptime" if known(crash["uptime"]) else ""
    asked = "; a person asked for it" if case.guilt == "deliberate" else ""
    who = literal(crash["host"], "A host that the text does not name")
    what = f"{who} stopped with a purple screen ({plain_words(crash['kind'])}){when}{local}{after}{asked}."
    certainty, cause = CERTAINTY[case.guilt][0], "No evidence in hand names the module at fault."
    if case.guilt in NO_DRIVER:
        cause = "Its message reports a hardware error, and the evidence points at no driver." if not asked else ""
    elif case.module:
        near = certainty == "near certain"
        sure = "Near certain: the cause is" if near else f"{certainty.capitalize()} evidence points to"
        cause = f"{sure} {case.module} {case.version or '(version unknown)'}."
    return " ".join(filter(None, [what, _noticed(case), cause]))


def _noticed(case: Case) -> str:
    # Who noticed, and how long after the stop.
    at, time = case.account.detected_at, case.crash["time"]
    if at is not None:
        by = re.sub(r" \(.*\)$", "", str(case.account.detected_by)) or "Somebody"
        return f"{by} reported it {_later(at - time) if known(time) and at >= time else f'at {moment(at)}'}."
    for words, by in ((("failed_over", "failover_begun"), "vSphere HA"), (("disconnected",), "vCenter")):
        for seen in case.events.loc[case.events["what"].isin(words), "time"].head(1):
            return f"{by} noticed it {_later(max(seen - time, pd.Timedelta(0)).floor('s'))}, at {moment(seen)}."
    return ""


def _later(after: pd.Timedelta) -> str:
    return "within a minute" if after <= pd.Timedelta(minutes=1) else f"{_in_words(after)} later"


def _in_words(length: Any) -> str:
    # 29 d 20 h -> 29 days and 20 hours
    names = {"d": "day", "h": "hour", "min": "minute", "s": "second"}
    pairs = re.findall(r"(\d+) (\w+)", span(length))
    return " and ".join(count(int(number), names[unit]) for number, unit in pairs if int(number)) or "0 seconds"


def _machines(case: Case) -> str:
    # What vSphere HA did with the host's machines.
    events, kinds = case.events, ("vm_restarted", "vm_lost")
    restarted, lost = (list(dict.fromkeys(events.loc[events["what"] == kind, "vm"].dropna())) for kind in kinds)
    if not restarted and not lost:
        return ""
    again = f"{count(len(restarted), 'virtual machine')} again on other hosts: {listing(restarted, 12)}"
    left = f"; {count(len(lost), 'machine')} could not be started: {listing(lost, 12)}" if lost else ""
    return f"vSphere HA started {again if restarted else 'no machine again'}{left}."


def _facts(case: Case) -> list[tuple[str, str]]:
    users = case.account.users_hit
    nobody = {"hardware": "none: a hardware error", "deliberate": "none: asked for"}.get(case.guilt, "none found")
    found = [
        ("Host", case.host), ("ESXi", literal(_release(case))), ("Loaded driver", f"{case.module or nobody} {case.version or ''}".strip()),
        ("Function", joined(case.crash, "guilty_function")), ("World", joined(case.crash, "world_id", "world_name")),
        ("Users hit", f"about {users:,}" if users is not None else ""),
    ]  # fmt: skip
    return [(name, value) for name, value in found if value]


def _release(case: Case) -> str | None:
    # A VIB's name bears the release that it was built for: 1OEM.550.0.0.1331820
    named = re.search(r"\.(\d)(\d)0\.0\.0\.\d", case.vib)
    by_vib = f"{named[1]}.{named[2]}, by its VIB's name" if named else None
    return joined(case.crash, "esxi_version", "esxi_build", by=" build ") or by_vib


# ---- what happened when ----------------------------------------------------------------------------------------------------


def _timeline_table(case: Case) -> Table:
    # Changes only: a version that was seen again the next day is no news.
    account, facts = case.account, case.timeline[case.timeline["lane"] != "watched"]
    facts = facts[~(facts["source"].isin(list(case.typed)) & facts["time"].isna())]  # told by the commands themselves
    bare = facts["what"] == f"{case.module} loaded"  # and no word of the version
    news = facts[(facts["lane"] != "driver") | ~(facts.duplicated(["lane", "what"]) | bare)]
    rows = [
        (row["time"], 0.0, "not dated", _happening(case, row), case.place(row["source"], row["line"]), row["detail"])
        for _, row in news.tail(MOST_FACTS).iterrows()
    ]
    rows = sorted([*rows, *_told(case)], key=lambda row: (not known(row[0]), row[0] if known(row[0]) else row[1]))
    dated, left = [known(row[0]) for row in rows], len(news) - MOST_FACTS
    note = holding(
        (left > 0, f"{count(left, 'earlier fact')} left out."),
        (not all(dated), "Of facts without a date only the order is known."),
    )
    zone = [f"Local ({account.time_zone})"] if account.time_zone and any(dated) else []
    cells = [
        [moment_of(time, str(*told_by), place).removesuffix(" UTC"), *(account.local(time)[5:] or "–" for _ in zone), what, source or "–"]
        for time, _, place, what, source, *told_by in rows
    ]  # fmt: skip
    widths = (18, 14, 42, 26) if zone else (20, 50, 30)
    return Table("", ["When (UTC)", *zone, "What", "Known from"], cells, " ".join(note), widths=widths)


def _told(case: Case) -> Iterator[Any]:
    # What people say and what was typed: when, or its rank among what has no date, which is by logic: after the crash, before the
    # reboot, after it. What was typed keeps its own order, and a reboot in it parts it; the version is read before it is decided
    # what to do, the dump is drawn for the support case.
    after, before, later = PLACES
    account, decided = case.account, False
    for event in account.events:
        decided = decided or (event.decision and event.at is None and event.place == before)
        rank = {after: 1.0, before: 2.8 if decided else 2.5, later: 5.5}[event.place]
        day = f" (on {event.at:%Y-%m-%d}, time unknown)" if event.whole_day else ""
        why = f" Why: {event.why}" if event.why else ""
        what = f"{'Decision: ' if event.decision else ''}{event.what}{day}{why}"
        yield event.at, rank, event.place, what, account.file
    if account.detected_at is not None:
        yield account.detected_at, 0.0, "", f"{account.detected_by or 'Somebody'} reported it", account.file
    for source, text in case.typed.items():
        rebooted = False
        for i, (line, command, output) in enumerate(_commands(text)):
            for rank, purpose in [(rank, words) for pattern, rank, words in PURPOSES if pattern.search(command)][:1]:
                when = later if rebooted else after if rank < 2 else before
                what = f"{purpose}: {output[0]}" if len(output) == 1 else purpose
                yield None, (5.0 if rebooted else rank) + i / 1000, when, what, case.place(source, line)
            rebooted = rebooted or bool(REBOOT.search(command))


def _commands(text: str) -> list[tuple[int, str, list[str]]]:
    # Each command of a transcript with the number of its line, and the lines it printed.
    found: list[tuple[int, str, list[str]]] = []
    for number, line in enumerate(text.split("\n"), 1):
        match = find_prompt(line[:2000])
        if match and match["command"]:
            found.append((number, match["command"], []))
        elif found and line.strip():
            found[-1][2].append(line)
    return found


def _happening(case: Case, row: pd.Series) -> str:
    what, detail, lane = literal(row["what"]), literal(row["detail"]), row["lane"]
    time, crashed = row["time"], case.crash["time"]
    if lane == "crash":
        return f"{'The crash' if what == 'crash' else 'Another crash'}: {detail}"
    if lane == "driver":
        return f"{what} (known from {plain_words(row['detail'])})"
    if lane == "vcenter":
        return f"{what[:1].upper()}{what[1:]}: {detail}"
    if lane == "down":
        there = re.search(DUMP_NAME, str(row["source"]))
        dump = "the dump was written" if there else "a dump was written, if there is one"
        acted = "vSphere HA started" if _machines(case) else "vSphere HA, where it is on, restarted"
        own = f"; meanwhile {dump} and {acted} its machines elsewhere" if known(crashed) and time == crashed else ""
        return f"The host was down for {span(row['end'] - time)}{own}"
    later = known(time) and known(crashed) and time > crashed
    since = f", {span(time - crashed)} after the crash" if later else ""
    return f"The host booted{since}; {ENDS.get(detail.removeprefix('ended by '), 'how it ended is not known')}"


# ---- cause, impact, known issue --------------------------------------------------------------------------------------------


def _cause(case: Case) -> list[Any]:
    (certainty, why), crash = CERTAINTY[case.guilt], case.crash
    if case.guilt == "deliberate":
        return [Text("A person asked for this crash, for a test or to have a dump. Nothing was at fault.")]
    if case.guilt == "hardware":
        return [
            f"Certainty that hardware is at fault: {certainty}, because {why}.",
            "Which part failed is not in these tables: the error banks are in the log's MCE lines, the part in the server's own log.",
            "The evidence points to no driver, and none need be changed because of this crash.",
        ]  # fmt: skip
    if case.module is None:
        because = f"{why[0].upper()}{why[1:]}, so no root cause can be stated from this evidence."
        return [Text(f"Certainty: {certainty}. {because}")]
    version = "Which version was loaded in the boot that crashed is not known: it cannot be said that this version is at fault."
    if case.version:
        own = where(case.drivers, state="loaded", version=crash["driver_version"])
        dated = own[(own["observed_at"] <= crash["time"]).fillna(False)]
        newest = (dated if len(dated) else own).sort_values("observed_at").tail(1)
        place = "".join(f" ({case.place(row.source, row.line)})" for row in newest.itertuples())
        how = f"known from {plain_words(crash['driver_evidence'])}{place}"
        version = f"Version {case.version} was loaded in the boot that crashed; {how}."
    caveat = "A backtrace shows where the host stopped. Memory corrupted earlier by another module would look the same."
    return [
        f"Certainty that {case.module} is at fault: {certainty}, because {why}.",
        version,
        *not_whole(crash),
        caveat,
    ]


def _impact(case: Case) -> list[str]:
    machines, crashes, crash = _machines(case), case.fleet.crashes, case.crash
    # An inventory taken after the crash counts the machines that are left.
    unknown = machines and case.account.users_hit is None
    alike = where(crashes, signature=crash["signature"])
    alike = alike[alike["crash_id"] != crash["crash_id"]]
    have = count(len(alike), "other crash has", "other crashes have")
    same = f"{have} the same signature, on {count(alike['host'].nunique(), 'host')}: {literal(crash['signature'])}."
    none = f"No other crash in the evidence has its signature: {literal(crash['signature'])}."
    boots = where(case.fleet.uptimes, host=crash["host"])["boot"]
    back = boots[(boots > crash["time"]).fillna(False)].min()
    down = "How long the host was down is not known: the evidence shows no boot after the crash."
    if known(back):
        down = f"The host was down for {span(back - crash['time'])} (from the crash to its next boot)."
    days = "for how many host-days hosts ran without a crash is not known, so no rate can be given"
    return holding(
        (True, machines), (True, "How many people worked on them is not in the evidence." if unknown else _people(case)),
        (True, down), (True, str(case.account.platform)),
        (len(crashes) > 1, same if len(alike) else none),
        (not (case.fleet.uptimes["observed"] > pd.Timedelta(0)).any(), f"This is the report of one case: {days}."),
    )  # fmt: skip


def _people(case: Case) -> str:
    account, time = case.account, case.crash["time"]
    if account.users_hit is not None:
        on = f" on a {time.astimezone(account.time_zone):%A}" if known(time) and account.time_zone else ""
        when = account.users_possible_when or "at worst"
        worse = f"; {when} it could have been {account.users_possible:,}" if account.users_possible else ""
        return f"About {count(account.users_hit, 'user was', 'users were')} hit{on}{worse}."
    names = {"users": "users", "vms": "virtual machines"}
    parts = [f"{literal(case.inventory[name])} {words}" for name, words in names.items() if name in case.inventory]
    if not parts:
        return "How many users were hit cannot be said: the inventory has no users or vms for this host, or no inventory was given."
    return f"The inventory lists {' and '.join(parts)} on this host; how many were at work at that moment is not in the evidence."


def _known_issue(case: Case) -> list[str]:
    page_fault = case.guilt not in NO_DRIVER and known(case.crash["exception"]) and case.crash["exception"] == 14
    none = ["No known issue on file matches this crash. That does not mean that the vendor knows none."]
    lines = issue_lines(case.fleet, case.crash) or none
    lines += [f"Source of {literal(issue.id)}: {literal(issue.source)}." for issue in case.matched]
    generic = "VMware KB 1020181 explains exception 14 (a page fault). It is generic: it names no cause."
    return [*lines, *holding((page_fault, generic))]


# ---- what to do ------------------------------------------------------------------------------------------------------------


def _runbook(case: Case) -> list[Block]:
    module, version, target = case.module, case.version, case.target
    if case.guilt == "hardware":
        return [Text("Change no driver because of this crash. Find the part first:"), Steps(HARDWARE_STEPS)]
    over = f"the evidence favours no version of {module} over {version or 'the one that ran'}"
    keep = "Keep the dump, and open a support case with it."
    instead = holding(
        (case.guilt == "deliberate", "Nothing, unless nobody knows of the test: then ask who was on the host's console or shell at that time."),
        (module is None, f"Without a guilty module there is no driver to change. {keep}"),
        (target is None and case.pin, f"{module} {version} is the version that the pin decision of this report favours: nothing to change."),
        (target is None, f"Change no driver because of this crash alone: {over}, and it matches no known issue of that version. {keep}"),
    )  # fmt: skip
    if instead or module is None or target is None:
        return [Text(instead[0])]
    issue = f"a known issue names the version that crashed, and {target} is the version to go back to"
    why = "the pin decision of this report favours it" if target == case.pin else issue
    way = f"From {module} {version or 'of unknown version'} to {target}: {why}. One host first, then the rest in waves."
    return [Text(f"{way} {case.done}".rstrip()), Steps(steps_to(module, target, version, case.vib))]


def steps_to(module: str, target: str, version: str | None, removed: str) -> list[tuple[str, str, str]]:
    """What to do on one host, with each command and its answer, so that it runs another version; a dry run comes first."""
    unnamed = (f"OFFLINE-BUNDLE-OF-{module}.zip", f"the {module} VIB of version {target}")
    file, installed = BUNDLES.get((module, target), unnamed)
    # vmklinux SCSI drivers report the loaded version in /proc; the others answer through esxcli.
    check, answer = {
        "hpsa": ("# cat /proc/scsi/hpsa/2", f"HP HPSA Driver (v {target}-1OEM)"),
        **dict.fromkeys(("megaraid_sas", "mpt2sas"), (f"# cat /proc/scsi/{module}/*", f"version {target}")),
    }.get(module, (f"# esxcli system module get -m {module} | grep -i version", f"Version: {target}"))
    ask = "is not in the evidence: take the one that the vendor gives for this host's release."
    named = "" if (module, target) in BUNDLES else f" The name of the bundle with {module} {target} {ask}"
    path = f"/vmfs/volumes/DATASTORE/{file}"
    return [
        (f"Copy the bundle to a datastore that the host sees.{named}", f"# ls {path}", path),
        ("Put the host into maintenance mode; its virtual machines move away.", "# esxcli system maintenanceMode set --enable true",
         "the host shows no running virtual machine"),
        ("Switch SSH on, at the host's console or in the vSphere client.", "# vim-cmd hostsvc/enable_ssh && vim-cmd hostsvc/start_ssh", ""),
        ("Write down what is loaded now.", check, f"{version or 'the version that crashed'}"),
        ("Ask what the installation would change, and change nothing.", f"# esxcli software vib install -d {path} --dry-run",
         f"only {installed} among the VIBs Installed; if others are named, ask the vendor first"),
        ("Install.", f"# esxcli software vib install -d {path}", f"Reboot Required: true. VIBs Removed: {removed}"),
        ("Reboot; in maintenance mode nothing runs that it could hurt.", "# reboot", "the host comes back within its usual time"),
        ("Check what is loaded now, not only what is installed.", check, answer),
        ("Switch SSH off again.", "# vim-cmd hostsvc/stop_ssh && vim-cmd hostsvc/disable_ssh", ""),
        ("Leave maintenance mode.", "# esxcli system maintenanceMode set --enable false", "virtual machines can move back"),
        (f"To take it back: the same steps with the bundle of {version or 'the version before'}; where the host does not boot, Shift+R at its "
         "boot screen starts the image before the installation.", "", ""),
        ("Afterwards: collect this host's logs again, so that the days on the new version are counted.", "", ""),
    ]  # fmt: skip


# ---- open questions, support -----------------------------------------------------------------------------------------------


def _open_questions(case: Case) -> list[str]:
    crash, guilt, driver = case.crash, case.guilt, case.guilt not in NO_DRIVER
    return holding(
        (guilt == "hardware", "Which part failed? The server's own log (IML, SEL), or the vendor with the MCE lines, would say."),
        (guilt == "deliberate", "Who asked for this crash, and why? The host's shell log or the change record would say."),
        (driver and case.module is None, "Which module is at fault? A whole dump log, or the module map, would say."),
        (driver and case.version is None, "Which driver version was loaded? The boot's log banner, or the VIB list of that day, would say."),
        (literal(crash["driver_evidence"]) == "conflict", "Two observations of the loaded version disagree: which one is right?"),
        (not known(crash["uptime"]), "How long had the host been up? The crash's uptime line is missing."),
        (not known(crash["known_issues"]) and guilt != "deliberate", "Does the vendor know this crash? Open a case with the dump."),
        (True, "Did anything else change on this host before the crash: firmware, host build, load? The evidence here speaks of drivers only."),
        (not _noticed(case), "When did vSphere HA act, and which machines did it start again? vCenter's events say; no file of a host does."),
        (driver, _others_exposed(case)),
    )  # fmt: skip


def _others_exposed(case: Case) -> str:
    if case.module is None or case.version is None:
        return "How many other hosts run the same driver? Not known while the version is not."
    boots = loaded_versions(case.fleet.uptimes, case.fleet.drivers, case.module)
    same = where(boots.sort_values("boot").groupby("host").tail(1), version=case.crash["driver_version"])
    if case.done:
        same = same[same["host"] != case.crash["host"]]
    if case.target is None or same.empty:
        return ""
    hosts = len(case.fleet.hosts)
    they = f"They are {count(len(same), 'host')} of {hosts:,} ({share(len(same), hosts)})."
    return f"When do the hosts that run {case.module} {case.version} now change? {they}"


def _support_table(case: Case) -> Table:
    # What every case form asks, as far as it is known; and how to learn the rest.
    account, vib, release, asked = case.account, case.vib, _release(case), ("vendor", "case", "severity", "contact")
    model = " ".join(literal(case.inventory[name]) for name in ("vendor", "model") if name in case.inventory)
    firmware = case.drivers["firmware"].dropna()
    rows = [
        *([name.capitalize(), getattr(account, name)] for name in asked if getattr(account, name)),
        ["Product", f"VMware ESXi {release}" if release else "VMware ESXi, release unknown; run vmware -vl"],
        ["Hardware", model or "unknown; run esxcli hardware platform get"],
        *([["Its VIB", "unknown; run esxcli software vib list" if vib.startswith("the ") else vib]] if case.module else []),
        ["Firmware of its device" if case.module else "Firmware", literal(firmware.iloc[-1]) if len(firmware) else "not in the evidence"],
        ["To send", f"{case.place(case.crash['source'])}, and a vm-support bundle; keep the vmkernel-zdump on the host"],
    ]  # fmt: skip
    return Table("", ["Asked", "Answer"], rows, widths=(24, 76))
