"""One crash -> the write-up that a vendor accepts: what happened when, its own text, what was done, why, impact, what to do.

Every sentence is made from the tables, or from ``incident.toml`` where people know more (``account.py``), and says what is
not known where neither does. ``document.py`` turns the content into HTML, PDF and Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
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
from psodlib.views.account import PLACES, Account, Event, site_section
from psodlib.views.crash import crash_title, issue_lines, own_text, place_of, plain_words, release_of, typed_on, where
from psodlib.views.document import Block, Bullets, Code, Document, Section, Table, Text
from psodlib.views.runbook import found_since, runbook_blocks, version_to_go_to, vib_in_use
from psodlib.views.words import SIMULATED, UNKNOWN, count, known, listing, literal, moment, share, span

Row = tuple[Any, str, str, str]  # of the timeline: when, where it belongs if it has no time, what, known from
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
# Articles that explain what an exception is. They are generic: they name no cause.
GENERIC = {14: ("VMware KB 1020181", "a page fault")}
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
UNDATED = "Of facts without a date only the order is known."
MOST_FACTS = 30


@dataclass(frozen=True)
class Case:
    """One crash, the fleet around it, and what was asked of its write-up."""

    fleet: Fleet  # the tables
    crash: pd.Series  # a row of ``crashes``
    issues: tuple[Issue, ...]  # the known issues there are
    go_to: str | None  # the version that the pin decision favours
    timeline: pd.DataFrame  # what ``incident_timeline`` gives
    account: Account  # what people know besides
    typed: Mapping[str, str]  # files of commands typed on the host, by name, as they are

    @property
    def guilt(self) -> str:
        """The kind of evidence against the guilty module."""
        return str(self.crash["guilt"])

    @property
    def no_driver(self) -> bool:
        """Whether it is known that no driver did it."""
        return self.guilt in ("hardware", "deliberate")

    @property
    def host(self) -> str:
        """The host, as text."""
        return literal(self.crash["host"])

    @property
    def module(self) -> str | None:
        """The guilty module; None where none is known."""
        return literal(self.crash["guilty_module"]) if known(self.crash["guilty_module"]) else None

    @property
    def version(self) -> str | None:
        """The version that was loaded; None where it is not known."""
        return literal(self.crash["driver_version"]) if known(self.crash["driver_version"]) else None

    @property
    def drivers(self) -> pd.DataFrame:
        """The host's observations of the guilty module."""
        own: pd.DataFrame = where(self.fleet.drivers, host=self.crash["host"], module=self.crash["guilty_module"])
        return own

    @property
    def inventory(self) -> Mapping[str, Any]:
        """The host's own row of ``hosts``, of what is known in it."""
        rows = where(self.fleet.hosts, host=self.crash["host"]).to_dict("records")
        return {name: value for name, value in rows[0].items() if known(value)} if rows else {}

    @property
    def events(self) -> Any:
        """What a vCenter told of the host from ten minutes before the crash to an hour after it."""
        events, time = where(self.fleet.events, host=self.crash["host"]), self.crash["time"]
        near = (events["time"] >= time - pd.Timedelta(minutes=10)) & (events["time"] <= time + pd.Timedelta(hours=1))
        return events[near] if known(time) else events.iloc[:0]

    @property
    def matched(self) -> list[Issue]:
        """The known issues that the crash matches."""
        named = str(self.crash["known_issues"]).split(";") if known(self.crash["known_issues"]) else []
        return [issue for issue in self.issues if issue.id in named]

    def place(self, source: Any, line: Any = None) -> str:
        """Where a reader finds a fact of this host."""
        return place_of(source, line, self.crash["host"])


def choose_crash(fleet: Fleet, crash_id: str | None = None, module: str = "hpsa") -> pd.Series | None:
    """The crash to write up."""
    crashes = fleet.crashes
    if crash_id is not None:
        found = crashes[crashes["crash_id"] == crash_id]
        if found.empty:
            some = f"expected a crash_id of the table crashes, such as {listing(crashes['crash_id'], most=3)}"
            raise InputError(f"crash {crash_id!r}: not among the {len(crashes)} crashes found; {some}")
        return found.iloc[0]
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
    if crash is None:
        return _nothing(fleet)
    timeline = incident_timeline(fleet, str(crash["crash_id"]))
    typed = typed_on(fleet, crash) if typed is None else typed
    case = Case(fleet, crash, tuple(issues), go_to, timeline, account or Account(), typed)
    dated = timeline[timeline["lane"].isin(["boot", "driver"]) & timeline["time"].notna()]
    parts: list[tuple[str, Sequence[Block]]] = [
        ("What happened when", [_timeline_table(case), *(pictures if len(dated) > 1 else ())]),
        ("The crash's own text", _evidence(case)),
        ("What was typed on the host", [Code(text, case.place(name), 1) for name, text in list(typed.items())[:2]]),
        ("Root cause, and how sure", _cause(case)),
        ("Impact", [Bullets(_impact(case))]),
        ("Known issue", _known_issue(case)),
        ("What to do", runbook_blocks(case)),
        ("Open questions", [Bullets(_open_questions(case))]),
        ("For the support case", [_support_table(case)]),
    ]
    return Document(
        title=crash_title(crash), subtitle=f"Post-incident write-up of crash {literal(crash['crash_id'])}", lead=_lead(case),
        tone="bad", notice=SIMULATED if fleet.simulated else "", facts=_facts(case),
        sections=[*(Section(title, blocks) for title, blocks in parts if blocks), *more],
    )  # fmt: skip


def asked_for(crash_id: str, notes: str | Path | None = None, site: str | Path | None = None) -> list[Section]:
    """What goes into a write-up only because somebody asked."""
    # It brings the widgets, which a plain write-up needs not.
    from psodlib.views.explore import note_section, read_notes

    section = note_section(read_notes(notes), crash_id) if notes is not None else None
    return [*([section] if section else []), *([site_section(site)] if site is not None else [])]


def _nothing(fleet: Fleet) -> Document:
    why = (
        "Either no host stopped with a purple screen, or the evidence that would show it was not collected: the dump logs in /var/core, the "
        "rotated vmkernel logs, or vm-support bundles. The report's list of problems says what could not be read."
    )
    return Document(
        title="No crash to write up", lead=f"No crash was found on {count(len(fleet.hosts), 'host')}.",
        notice=SIMULATED if fleet.simulated else "", sections=[Section("What this means", [Text(why)])],
    )  # fmt: skip


# ---- the head --------------------------------------------------------------------------------------------------------------


def _lead(case: Case) -> str:
    crash, account, time = case.crash, case.account, case.crash["time"]
    when = f" on {time:%A}, {time.day} {time:%B %Y}, at {time:%H:%M:%S} UTC" if known(time) else ""
    local = f", {account.local(time)[11:16]} local" if account.local(time) else ""
    after = f", after {_in_words(crash['uptime'])} of uptime" if known(crash["uptime"]) else ""
    asked = "; a person asked for it" if case.guilt == "deliberate" else ""
    what = f"{case.host} stopped with a purple screen ({plain_words(crash['kind'])}){when}{local}{after}{asked}."
    certainty, cause = CERTAINTY[case.guilt][0], ""
    if case.guilt == "hardware":
        cause = "Its message reports a hardware error, and the evidence points at no driver."
    elif case.guilt != "deliberate":
        sure = "Near certain: the cause is"
        near = sure if certainty == "near certain" else f"{certainty.capitalize()} evidence points to"
        version = f"{near} {case.module} {case.version or '(version unknown)'}."
        cause = version if case.module else "No evidence in hand names the module at fault."
    return " ".join(filter(None, [what, _noticed(case), cause]))


def _noticed(case: Case) -> str:
    # Who noticed, and how long after the stop.
    at, time = case.account.detected_at, case.crash["time"]
    if at is None:
        return _noticed_by_vcenter(case)
    by = re.sub(r" \(.*\)$", "", case.account.word("detected_by")) or "Somebody"
    late = known(time) and at >= time
    return f"{by} reported it {_later(at - time) if late else f'at {moment(at)}'}."


def _noticed_by_vcenter(case: Case) -> str:
    for words, by in ((("failed_over", "failover_begun"), "vSphere HA"), (("disconnected",), "vCenter")):
        seen = case.events.loc[case.events["what"].isin(words), "time"]
        if len(seen):
            after = max(seen.iloc[0] - case.crash["time"], pd.Timedelta(0))
            return f"{by} noticed it {_later(after.floor('s'))}, at {moment(seen.iloc[0])}."
    return ""


def _later(after: pd.Timedelta) -> str:
    return "within a minute" if after <= pd.Timedelta(minutes=1) else f"{_in_words(after)} later"


def _machines(case: Case) -> str:
    # What vSphere HA did with the host's machines.
    events, kinds = case.events, ("vm_restarted", "vm_lost")
    restarted, lost = (list(dict.fromkeys(events.loc[events["what"] == kind, "vm"].dropna())) for kind in kinds)
    if not restarted and not lost:
        return ""
    again = f"{count(len(restarted), 'virtual machine')} again on other hosts: {listing(restarted, 12)}"
    left = f"; {count(len(lost), 'machine')} could not be started: {listing(lost, 12)}" if lost else ""
    return f"vSphere HA started {again if restarted else 'no machine again'}{left}."


def _in_words(length: Any) -> str:
    # 29 d 20 h -> 29 days and 20 hours
    names = {"d": "day", "h": "hour", "min": "minute", "s": "second"}
    parts = span(length).split(" ")
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return " and ".join(count(int(number), names[unit]) for number, unit in pairs if int(number)) or "0 seconds"


def _facts(case: Case) -> list[tuple[str, str]]:
    crash, users = case.crash, case.account.users_hit
    nobody = {"hardware": "none: a hardware error", "deliberate": "none: asked for"}.get(case.guilt, "none found")
    found = [
        ("Host", case.host), ("ESXi", _release(case)), ("Loaded driver", f"{case.module or nobody} {case.version or ''}".strip()),
        ("Function", literal(crash["guilty_function"], "")),
        ("World", " ".join(literal(crash[name]) for name in ("world_id", "world_name") if known(crash[name]))),
        ("Users hit", f"about {users:,}" if users is not None else ""),
    ]  # fmt: skip
    return [(name, value) for name, value in found if value]


def _release(case: Case) -> str:
    # A VIB's name bears the release that it was built for: 1OEM.550.0.0.1331820
    named = re.search(r"\.(\d)(\d)0\.0\.0\.\d", vib_in_use(case))
    return release_of(case.crash) or (f"{named[1]}.{named[2]}, by its VIB's name" if named else UNKNOWN)


# ---- what happened when ----------------------------------------------------------------------------------------------------


def _timeline_table(case: Case) -> Table:
    # Changes only: a version that was seen again the next day is no news.
    account = case.account
    facts = case.timeline[case.timeline["lane"] != "watched"]
    facts = facts[~(facts["source"].isin(list(case.typed)) & facts["time"].isna())]  # told by the commands themselves
    bare = facts["what"] == f"{case.module} loaded"  # and no word of the version
    news = facts[(facts["lane"] != "driver") | ~(facts.duplicated(["lane", "what"]) | bare)]
    newest: Any = news.tail(MOST_FACTS)
    rows: list[Row] = [
        (row["time"], "not dated", _happening(case, row), case.place(row["source"], row["line"]))
        for _, row in newest.iterrows()
    ]
    rows += [(event.at, event.place, _event(event), account.file) for event in account.events if event.at is not None]
    if account.detected_at is not None:
        rows.append((account.detected_at, "", f"{account.word('detected_by') or 'Somebody'} reported it", account.file))
    dated = sorted((row for row in rows if known(row[0])), key=lambda row: row[0])
    undated = sorted([*_undated(case), *((0.0, row) for row in rows if not known(row[0]))], key=lambda entry: entry[0])
    left_out = f"{count(len(news) - len(newest), 'earlier fact')} left out." if len(news) > len(newest) else ""
    note = " ".join(filter(None, [left_out, UNDATED if undated else ""]))
    zone = f"Local ({account.zone})" if account.zone and dated else ""
    cells = [
        [moment(time).removesuffix(" UTC") if known(time) else place, *([account.local(time)[5:] or "–"] if zone else []), what, source or "–"]
        for time, place, what, source in [*dated, *(row for _, row in undated)]
    ]  # fmt: skip
    columns = ["When (UTC)", *([zone] if zone else []), "What", "Known from"]
    return Table("", columns, cells, note, widths=(18, 14, 42, 26) if zone else (20, 50, 30))


def _event(event: Event) -> str:
    day = f" (on {event.at:%Y-%m-%d}, time unknown)" if event.whole_day and event.at is not None else ""
    why = f" Why: {event.why}" if event.why else ""
    return f"{'Decision: ' if event.decided else ''}{event.what}{day}{why}"


def _undated(case: Case) -> Iterator[tuple[float, Row]]:
    # By logic: after the crash, before the reboot, after it. What was typed keeps its own order, and a reboot in it parts it;
    # the version is read before it is decided what to do, the dump is drawn for the support case.
    decided = False
    for event in (event for event in case.account.events if event.at is None):
        decided = decided or (event.decided and event.place == PLACES[1])
        rank = {PLACES[0]: 1.0, PLACES[1]: 2.8 if decided else 2.5, PLACES[2]: 5.5}[event.place]
        yield rank, (None, event.place, _event(event), case.account.file)
    for source, text in case.typed.items():
        commands = _commands(text)
        reboot = next((i for i, (_, command, _) in enumerate(commands) if REBOOT.search(command)), len(commands))
        for i, (line, command, output) in enumerate(commands):
            for rank, purpose in ((rank, words) for pattern, rank, words in PURPOSES if pattern.search(command)):
                when = PLACES[2] if i > reboot else PLACES[0] if rank < 2 else PLACES[1]
                what = f"{purpose}: {output[0]}" if len(output) == 1 else purpose
                yield (5.0 if i > reboot else rank) + i / 1000, (None, when, what, case.place(source, line))
                break


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
    words = {"crash": "The crash", "another crash": "Another crash"}
    what, detail = words.get(str(row["what"]), literal(row["what"])), literal(row["detail"])
    if row["lane"] == "crash":
        return f"{what}: {detail}"
    if row["lane"] == "driver":
        return f"{what} (known from {plain_words(row['detail'])})"
    if row["lane"] == "vcenter":
        return f"{what[:1].upper()}{what[1:]}: {detail}"
    time, crashed = row["time"], case.crash["time"]
    if row["lane"] == "down":
        there = re.search(DUMP_NAME, str(row["source"]))
        dump = "the dump was written" if there else "a dump was written, if there is one"
        ha = "vSphere HA" if _machines(case) else "vSphere HA, where it is on,"
        acted = "started its machines elsewhere" if _machines(case) else "restarted its machines elsewhere"
        own = f"; meanwhile {dump} and {ha} {acted}" if known(crashed) and time == crashed else ""
        return f"The host was down for {span(row['end'] - time)}{own}"
    later = known(time) and known(crashed) and time > crashed
    since = f", {span(time - crashed)} after the crash" if later else ""
    return f"The host booted{since}; {ENDS.get(detail.removeprefix('ended by '), 'how it ended is not known')}"


# ---- evidence, cause -------------------------------------------------------------------------------------------------------


def _evidence(case: Case) -> list[Block]:
    frames = where(case.fleet.frames, crash_id=case.crash["crash_id"])
    blocks = own_text(case.fleet, case.crash, frames, 16)
    copies = case.crash["copies"]
    if known(copies) and copies > 1:
        blocks.append(Text(f"The same text was found {count(copies, 'time')}."))
    return blocks


def _cause(case: Case) -> list[Block]:
    certainty, why = CERTAINTY[case.guilt]
    if case.guilt == "deliberate":
        return [Text("A person asked for this crash, for a test or to have a dump. Nothing was at fault.")]
    if case.guilt == "hardware":
        return [Bullets([
            f"Certainty that hardware is at fault: {certainty}, because {why}.",
            "Which part failed is not in these tables: the error banks are in the log's MCE lines, the part in the server's own log.",
            "The evidence points to no driver, and none need be changed because of this crash.",
        ])]  # fmt: skip
    if case.module is None:
        because = f"{why[0].upper()}{why[1:]}, so no root cause can be stated from this evidence."
        return [Text(f"Certainty: {certainty}. {because}")]
    lines = [f"Certainty that {case.module} is at fault: {certainty}, because {why}.", _version_line(case)]
    if known(case.crash["damage"]) and str(case.crash["damage"]):
        lines.append(f"The crash's text is not whole ({plain_words(case.crash['damage'])}).")
    caveat = "A backtrace shows where the host stopped. Memory corrupted earlier by another module would look the same."
    return [Bullets([*lines, caveat])]


def _version_line(case: Case) -> str:
    if not case.version:
        return "Which version was loaded in the boot that crashed is not known: it cannot be said that this version is at fault."
    own = where(case.drivers, state="loaded", version=case.crash["driver_version"])
    dated = own[(own["observed_at"] <= case.crash["time"]).fillna(False)] if known(case.crash["time"]) else own.iloc[:0]
    newest = (dated if len(dated) else own).sort_values("observed_at").tail(1)
    place = "".join(f" ({case.place(row.source, row.line)})" for row in newest.itertuples())
    how = plain_words(case.crash["driver_evidence"])
    return f"Version {case.version} was loaded in the boot that crashed; known from {how}{place}."


# ---- impact, known issue ---------------------------------------------------------------------------------------------------


def _impact(case: Case) -> list[str]:
    machines, crashes, signature = _machines(case), case.fleet.crashes, literal(case.crash["signature"])
    # An inventory taken after the crash counts the machines that are left.
    unknown = machines and case.account.users_hit is None
    people = "How many people worked on them is not in the evidence." if unknown else _people(case)
    alike = where(crashes, signature=case.crash["signature"])
    alike = alike[alike["crash_id"] != case.crash["crash_id"]]
    same = "" if len(crashes) == 1 else f"No other crash in the evidence has its signature: {signature}."
    if len(alike):
        have = count(len(alike), "other crash has", "other crashes have")
        same = f"{have} the same signature, on {count(alike['host'].nunique(), 'host')}: {signature}."
    watched = (case.fleet.uptimes["observed"] > pd.Timedelta(0)).any()
    days = "for how many host-days hosts ran without a crash is not known, so no rate can be given"
    alone = "" if watched else f"This is the report of one case: {days}."
    return [*filter(None, [machines, people, _down_time(case), case.account.word("platform"), same, alone])]


def _people(case: Case) -> str:
    account, time = case.account, case.crash["time"]
    if account.users_hit is not None:
        on = f" on a {time.astimezone(account.zone):%A}" if known(time) and account.zone else ""
        when = account.word("users_possible_when") or "at worst"
        worse = f"; {when} it could have been {account.users_possible:,}" if account.users_possible else ""
        return f"About {count(account.users_hit, 'user was', 'users were')} hit{on}{worse}."
    names = {"users": "users", "vms": "virtual machines"}
    parts = [f"{literal(case.inventory[name])} {words}" for name, words in names.items() if name in case.inventory]
    if not parts:
        return "How many users were hit cannot be said: the inventory has no users or vms for this host, or no inventory was given."
    return f"The inventory lists {' and '.join(parts)} on this host; how many were at work at that moment is not in the evidence."


def _down_time(case: Case) -> str:
    boots = where(case.fleet.uptimes, host=case.crash["host"])["boot"]
    later = boots[(boots > case.crash["time"]).fillna(False)] if known(case.crash["time"]) else boots.iloc[:0]
    if later.empty:
        return "How long the host was down is not known: the evidence shows no boot after the crash."
    return f"The host was down for {span(later.min() - case.crash['time'])} (from the crash to its next boot)."


def _known_issue(case: Case) -> list[Block]:
    exception = case.crash["exception"]
    number = int(exception) if known(exception) and not case.no_driver else -1
    none = ["No known issue on file matches this crash. That does not mean that the vendor knows none."]
    lines = issue_lines(case.fleet, case.crash) or none
    lines += [f"Source of {literal(issue.id)}: {literal(issue.source)}." for issue in case.matched]
    if number in GENERIC:
        article, what = GENERIC[number]
        lines.append(f"{article} explains exception {number} ({what}). It is generic: it names no cause.")
    return [Bullets(lines)]


# ---- open questions, support -----------------------------------------------------------------------------------------------


def _open_questions(case: Case) -> list[str]:
    crash, guilt, blames_no_driver = case.crash, case.guilt, case.no_driver
    asked = [
        (guilt == "hardware", "Which part failed? The server's own log (IML, SEL), or the vendor with the MCE lines, would say."),
        (guilt == "deliberate", "Who asked for this crash, and why? The host's shell log or the change record would say."),
        (not known(crash["guilty_module"]) and not blames_no_driver, "Which module is at fault? A whole dump log, or the module map, would say."),
        (not known(crash["driver_version"]) and not blames_no_driver,
         "Which driver version was loaded? The boot's log banner, or the VIB list of that day, would say."),
        (literal(crash["driver_evidence"]) == "conflict", "Two observations of the loaded version disagree: which one is right?"),
        (not known(crash["uptime"]), "How long had the host been up? The crash's uptime line is missing."),
        (not known(crash["known_issues"]) and guilt != "deliberate", "Does the vendor know this crash? Open a case with the dump."),
        (True, "Did anything else change on this host before the crash: firmware, host build, load? The evidence here speaks of drivers only."),
        (case.account.detected_at is None and not _noticed_by_vcenter(case), "When did vSphere HA act, and which machines did it start again? vCenter's events say; no file of a host does."),
        (not blames_no_driver, _others_exposed(case)),
    ]  # fmt: skip
    return [question for holds, question in asked if holds and question]


def _others_exposed(case: Case) -> str:
    target = version_to_go_to(case)
    if case.module is None or case.version is None:
        return "How many other hosts run the same driver? Not known while the version is not."
    if target is None:
        return ""
    boots = loaded_versions(case.fleet.uptimes, case.fleet.drivers, case.module)
    same = where(boots.sort_values("boot").groupby("host").tail(1), version=case.crash["driver_version"])
    if found_since(case, target):
        same = same[same["host"] != case.crash["host"]]
    if same.empty:
        return ""
    hosts = len(case.fleet.hosts)
    they = f"They are {count(len(same), 'host')} of {hosts:,} ({share(len(same), hosts)})."
    return f"When do the hosts that run {case.module} {case.version} now change? {they}"


def _support_table(case: Case) -> Table:
    # What every case form asks, as far as it is known; and how to learn the rest.
    account, vib, release = case.account, vib_in_use(case), _release(case)
    model = " ".join(literal(case.inventory[name]) for name in ("vendor", "model") if name in case.inventory)
    firmware = case.drivers["firmware"].dropna()
    rows = [
        *([name.capitalize(), account.word(name)] for name in ("vendor", "case", "severity", "contact") if account.word(name)),
        ["Product", f"VMware ESXi {release}" if release != UNKNOWN else "VMware ESXi, release unknown; run vmware -vl"],
        ["Hardware", model or "unknown; run esxcli hardware platform get"],
        *([["Its VIB", "unknown; run esxcli software vib list" if vib.startswith("the ") else vib]] if case.module else []),
        ["Firmware of its device" if case.module else "Firmware", literal(firmware.iloc[-1]) if len(firmware) else "not in the evidence"],
        ["To send", f"{case.place(case.crash['source'])}, and a vm-support bundle; keep the vmkernel-zdump on the host"],
    ]  # fmt: skip
    return Table("", ["Asked", "Answer"], rows, widths=(24, 76))
