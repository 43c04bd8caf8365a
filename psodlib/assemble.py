"""What the files say, one by one -> the tables: whose file is it, one row a crash, boots, versions, the inventory. Pure."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

import pandas as pd

from psodlib import schema
from psodlib.records import Crash, FileReading, HostFact, Problem
from psodlib.triage.boots import ENDED, STOPPING, boots_of_host, builds_of_boots, loaded_versions
from psodlib.triage.compliance import version_conflicts
from psodlib.triage.copies import one_host_under_two_names, one_row_a_crash
from psodlib.triage.crashes import judge, with_issues
from psodlib.triage.known_issues import Issue
from psodlib.triage.precursors import hear_host

# ---- whose file is it -------------------------------------------------------------------------------------------------


Words = tuple[str | None, str | None]  # a file's own word for its host, and what its place says


def host_names(words: Collection[Words], roster: Iterable[str] = ()) -> tuple[dict[Words, str | None], list[Problem]]:
    """The host that each pair of a file's own word and its place's stands for: its own words', else its place's.

    Notes
    -----
    One file of a bundle or folder that says which host it is speaks for its silent neighbours. Names are compared without
    case, and a short name is the full one's host when only one full name begins with it.
    """
    told: dict[str, set[str]] = defaultdict(set)
    for host, hint in words:
        if host and hint:
            told[hint].add(host.lower())
    canonical = _canonical({*roster, *(word for pair in words for word in pair if word)})
    problems = []
    spoken: dict[str, str] = {}
    for hint in sorted(told):
        names = {canonical[name] for name in told[hint]}
        if len(names) == 1:
            spoken[hint] = names.pop()
        else:
            detail = f"its files name {', '.join(sorted(names))}; each file goes to the host it names, the silent ones to {hint}"
            problems.append(Problem(source=hint, problem="host_conflict", host=hint, detail=detail))

    def named(host: str | None, hint: str | None) -> str | None:
        word = host or (spoken.get(hint) or hint if hint else None)
        return canonical[word.lower()] if word else None

    return {pair: named(*pair) for pair in words}, problems


def roster_of(inventory: pd.DataFrame | None) -> list[str]:
    """The names of an inventory's hosts."""
    return [] if inventory is None else [str(name) for name in inventory.host.dropna()]


def no_host(source: str) -> Problem:
    """A file that tells something, and nothing tells of whom."""
    return Problem(source=source, problem="no_host", detail="neither text nor place names a host")


def _canonical(names: Iterable[str]) -> dict[str, str]:
    # Lower-cased name -> the spelling to show. A short name joins the one full name that begins with it.
    spellings: dict[str, str] = {}
    for name in sorted(names):
        spellings.setdefault(name.lower(), name)
    full: dict[str, set[str]] = defaultdict(set)
    for name in spellings:
        if "." in name and not name.replace(".", "").isdigit():
            full[name.partition(".")[0]].add(name)
    return {
        name: spellings[next(iter(full[name]))] if len(full.get(name, ())) == 1 else shown
        for name, shown in spellings.items()
    }


# ---- one host ---------------------------------------------------------------------------------------------------------

MOST_TEXT = 64 << 10  # characters of a crash's own text that are kept

Row = dict[str, Any]


def assemble(
    readings: Sequence[FileReading],
    inventory: pd.DataFrame | None,
    issues: Sequence[Issue],
    problems: Iterable[Problem],
) -> dict[str, pd.DataFrame]:
    """What the files say, one by one -> what happened to the fleet."""
    hosts, troubles = host_names({(reading.host, reading.hint) for reading in readings}, roster_of(inventory))
    in_order = sorted(readings, key=lambda reading: (reading.source, reading.host or ""))
    named = [(hosts[reading.host, reading.hint], reading) for reading in in_order]
    troubles += [no_host(reading.source) for host, reading in named if host is None and reading.needs_host]
    rows = rows_of(named, issues, [*problems, *troubles])
    tables = {name: schema.build(name, told) for name, told in rows.items()}
    columns = {row["host"]: row["columns"] for row in rows["hosts"]}
    seen = tables["hosts"].assign(columns=tables["hosts"]["host"].map(columns).astype("string"))
    tables["hosts"], missing = with_inventory(with_columns(seen), inventory)
    tables["problems"] = schema.conform("problems", pd.concat([tables["problems"], missing], ignore_index=True))
    return tables


def rows_of(
    named: Iterable[tuple[str | None, FileReading]], issues: Sequence[Issue] = (), problems: Iterable[Problem] = ()
) -> dict[str, list[Row]]:
    """The rows of each table of some hosts, whose readings are given whole; each with its host, those of ``hosts`` with ``columns``."""
    by_host: dict[str | None, list[FileReading]] = defaultdict(list)
    for host, reading in named:
        if not reading.irrelevant:
            by_host[host].append(reading)
    kept, renamed = one_host_under_two_names(by_host)
    for name in sorted(kept):
        by_host[kept[name]] += by_host.pop(name)
    crashes, alike = one_row_a_crash({host: _judged(found) for host, found in by_host.items()})
    rows: dict[str, list[Row]] = {name: [] for name in [*schema.TABLES, *schema.AUXILIARY]}
    rows["problems"] = [_row(problem) for problem in (*problems, *renamed, *alike)]
    for host, found, its_crashes in _by_evidence(by_host, crashes):
        for table, more in _rows_of_host(host, _without_copies(found), its_crashes).items():
            rows[table] += more
    once = {tuple(row.items()): row for row in rows["problems"]}  # a mirror tells its trouble twice
    rows["problems"] = [*once.values(), *_conflicts(rows)]
    _tell_driver_version(rows)
    whole = {crash.crash_id: crash for found in crashes.values() for crash in found}
    for row in rows["crashes"]:
        crash = replace(whole[row["crash_id"]], driver_version=row["driver_version"], esxi_build=row["esxi_build"])
        crash = with_issues(crash, issues)
        row["known_issues"] = crash.known_issues
        about = {"crash_id": row["crash_id"], "host": row["host"]}
        rows["reasons"] += [{**_row(reason), **about} for reason in crash.reasons]
    return rows


def _by_evidence(
    by_host: dict[str | None, list[FileReading]], crashes: dict[str | None, list[Crash]]
) -> Iterator[tuple[str | None, list[FileReading], list[Crash]]]:
    # A host's files together; a file of nobody alone, because what it tells is true of no other.
    for host, found in by_host.items():
        if host is not None:
            yield host, found, crashes[host]
            continue
        by_source: dict[str | None, tuple[list[FileReading], list[Crash]]] = defaultdict(lambda: ([], []))
        for reading in found:
            by_source[reading.source][0].append(reading)
        for crash in crashes[host]:
            by_source[crash.source][1].append(crash)
        yield from ((None, *both) for both in by_source.values())


def _row(record: Any) -> Row:
    return {name: getattr(record, name) for name in type(record).__slots__}


_TOLD = {
    "alive": attrgetter("start", "end", "boot"), "marks": attrgetter("time", "what"), "crashes": attrgetter("sha256"),
    "drivers": attrgetter("module", "version", "state", "observed_at"), "modules": attrgetter("module", "base"),
    "facts": attrgetter("time", "esxi_build", "esxi_version", "model"), "problems": attrgetter("problem", "line"),
}  # fmt: skip


def _without_copies(readings: Sequence[FileReading]) -> list[FileReading]:
    # A bundle mirrors var/log in var/run/log, and a bundle may lie beside the folder it was unpacked to. The same output taken
    # at two times is two observations.
    kept: dict[Any, dict[datetime | None, FileReading]] = defaultdict(dict)
    sizes = Counter((reading.kind, reading.size) for reading in readings)
    for reading in readings:
        size = reading.kind, reading.size
        kept[size if reading.size and sizes[size] == 1 else _content(reading)].setdefault(reading.collected, reading)
    return [one for copies in kept.values() for taken, one in copies.items() if taken is not None or len(copies) == 1]


def _content(reading: FileReading) -> Any:
    # What tells one content from another. A log and its compressed copy differ as stored, but have as many bytes and say the same.
    if not reading.size:
        return reading.source
    return reading.kind, reading.size, *(tuple(map(of, getattr(reading, told))) for told, of in _TOLD.items())


def _judged(readings: Sequence[FileReading]) -> list[Crash]:
    # A mirror inside one bundle is no second sighting; the same file in two places is.
    if not any(reading.crashes for reading in readings):
        return []
    said = hear_host(readings)
    once: dict[Any, FileReading] = {}
    for reading in readings:
        if reading.crashes:
            once.setdefault((reading.source.rpartition("!")[0] or reading.source, _content(reading)), reading)
    return [judge(crash, said) for reading in once.values() for crash in reading.crashes]


def _rows_of_host(host: str | None, readings: Sequence[FileReading], crashes: Sequence[Crash]) -> dict[str, list[Row]]:
    alive = [item for reading in readings if not _ends_in_crash(reading) for item in reading.alive]
    marks = [mark for reading in readings for mark in reading.marks]
    facts = [fact for reading in readings if not _is_listed(reading) for fact in reading.facts]
    listed = [fact for reading in readings if _is_listed(reading) for fact in reading.facts]
    taken = max((reading.collected for reading in readings if reading.collected), default=None)
    uptimes, coverage = boots_of_host(host or "", alive, marks, crashes, taken)
    builds = _builds(uptimes, readings, crashes)
    for stretch in coverage:
        stretch["esxi_build"] = builds.get(stretch["boot"])
    rows: dict[str, list[Row]] = {"uptimes": uptimes, "coverage": coverage}
    ended = {row["crash_id"]: builds.get(row["boot"]) for row in uptimes if row["crash_id"]}
    rows["crashes"] = [_row(_with_facts(crash, facts, ended.get(crash.crash_id))) for crash in crashes]
    rows["frames"] = [_row(frame) | {"crash_id": crash.crash_id} for crash in crashes for frame in crash.frames]
    rows["texts"] = [{"crash_id": crash.crash_id, "text": crash.text[:MOST_TEXT]} for crash in crashes if crash.text]
    rows["modules"] = [_row(m) for reading in readings for m in reading.modules if m.crash_id is None]
    for crash in crashes:
        about = {"crash_id": crash.crash_id, "time": crash.time, "source": crash.source}
        rows["modules"] += [_row(module) | about for module in crash.modules]
    rows["drivers"] = [row for reading in readings for row in _driver_rows(reading, uptimes)]
    told = {(mark.time, mark.what, mark.vm, mark.text): mark for mark in marks if mark.text}  # by two runs, twice
    rows["events"] = [{**_row(mark), "detail": mark.text} for mark in told.values()]
    rows["problems"] = [_row(p) for reading in readings for p in reading.problems]
    placed = {row["crash_id"] for row in uptimes}
    for crash in crashes:
        if crash.crash_id not in placed:
            detail = f"crash {crash.crash_id}: no boot of this host is known to have ended in it, so it is in no rate"
            problem = Problem(source=crash.source or "", problem="unplaced_crash", line=crash.line, detail=detail)
            rows["problems"].append(_row(problem))
    if host is not None and (facts or listed or uptimes or crashes or rows["drivers"] or rows["modules"]):
        rows["hosts"] = [_host_row(host, facts, listed, coverage, crashes)]
    for row in [row for table in rows.values() for row in table]:
        row["host"] = host
    return rows


def _is_listed(reading: FileReading) -> bool:
    # An inventory among the evidence bears no time: what a host's own files say is believed first.
    return "table" in reading.kind and "table" in reading.kind.split("+")


def _ends_in_crash(reading: FileReading) -> bool:
    # A dump log exists because the host crashed: its minutes before the crash are no watched time, or the rate of a fleet
    # with nothing but dumps would be a crash a minute.
    last = max((crash.time for crash in reading.crashes if crash.time), default=None) if reading.crashes else None
    return last is not None and all(item.end <= last + timedelta(minutes=1) for item in reading.alive)


def _builds(
    uptimes: Sequence[Row], readings: Sequence[FileReading], crashes: Sequence[Crash]
) -> dict[datetime | None, str | None]:
    # Boot -> the build that it ran: what the boot's crash says of itself, else what was read in that boot.
    own = {crash.crash_id: crash.esxi_build for crash in crashes if crash.esxi_build}
    told = [(row["boot"] or row["end"], own[row["crash_id"]]) for row in uptimes if row["crash_id"] in own]
    for reading in readings:
        if not _is_listed(reading):
            told += [(fact.time or reading.collected, fact.esxi_build) for fact in reading.facts if fact.esxi_build]
    starts = [row["boot"] for row in uptimes]
    return dict(zip(starts, builds_of_boots(starts, told), strict=True))


def _with_facts(crash: Crash, facts: Sequence[HostFact], build_of_boot: str | None) -> Crash:
    # The version that crashed: the crash's own words, else its boot's build, else the newest fact from before it, else
    # the oldest after it.
    crash = replace(crash, esxi_build=crash.esxi_build or build_of_boot)
    if crash.esxi_version and crash.esxi_build:
        return crash
    told = [fact for fact in facts if fact.esxi_build or fact.esxi_version]
    timed = sorted((fact for fact in told if fact.time), key=lambda fact: fact.time)  # type: ignore[arg-type, return-value]
    before = [fact for fact in timed if crash.time and fact.time and fact.time <= crash.time]
    order = [*reversed(before), *timed[len(before) :], *(fact for fact in told if not fact.time)]
    same = [fact for fact in told if fact.esxi_build == crash.esxi_build] if crash.esxi_build else []
    version = crash.esxi_version or next((fact.esxi_version for fact in [*same, *order] if fact.esxi_version), None)
    build = crash.esxi_build or next((fact.esxi_build for fact in order if fact.esxi_build), None)
    return replace(crash, esxi_version=version, esxi_build=build)


def _driver_rows(reading: FileReading, uptimes: Sequence[Row]) -> Iterator[Row]:
    # A command's output bears no time of its own. With the time of the collection it stands in that boot; without, it was
    # taken in the last boot that the evidence knows, or after it; and what a terminal session shows after it installed
    # something belongs to a boot that the logs have not seen.
    # Nor does it speak of a boot that had ended before it was taken.
    starts = [row["boot"] for row in uptimes]
    over = {row["boot"]: row["end"] + STOPPING for row in uptimes if row["end_reason"] in ENDED and row["end"]}
    changed = False
    for driver in sorted(reading.drivers, key=lambda driver: driver.line or 0):
        row = _row(driver)
        row["observed_at"] = driver.observed_at or reading.collected
        if row["observed_at"] is not None:
            boot = max((start for start in starts if start and start <= row["observed_at"]), default=None)
            row["boot"] = None if boot in over and row["observed_at"] > over[boot] else boot
        elif starts and not (changed and driver.state == "loaded"):
            row["boot"] = starts[-1]
        changed = changed or driver.evidence == "vib_install"
        yield row
        if driver.installed_on is not None:
            yield {**row, "observed_at": driver.installed_on, "boot": None, "evidence": "install_date"}


def with_columns(hosts: pd.DataFrame) -> pd.DataFrame:
    """What a vCenter says of hosts beyond the contract's columns joins them, as an inventory's columns do."""
    told = [{} if pd.isna(words) else dict(json.loads(words)) for words in hosts["columns"]]
    hosts = hosts.drop(columns="columns")
    for name in dict.fromkeys(name for columns in told for name in columns):
        values = [columns.get(name) for columns in told]
        whole = all(isinstance(value, int) and abs(value) < 1 << 63 for value in values if value is not None)
        words = values if whole else [None if value is None else str(value) for value in values]
        hosts[name] = pd.Series(words, index=hosts.index, dtype=object).astype("Int64" if whole else "string")
    return hosts


def _host_row(
    host: str, facts: Sequence[HostFact], listed: Sequence[HostFact], coverage: Sequence[Row], crashes: Sequence[Crash]
) -> Row:
    # A command's output without a time was taken last, and of two in one capture the later one.
    def by_time(some: Iterable[HostFact]) -> list[HostFact]:
        return sorted(some, key=lambda fact: fact.time.timestamp() if fact.time else float("inf"), reverse=True)

    newest, latest = by_time(facts), by_time(facts[::-1])
    row: Row = {"host": host}
    for name, told in (("esxi_version", latest), ("esxi_build", latest), ("vendor", newest), ("model", newest)):
        row[name] = next((getattr(fact, name) for fact in (*told, *reversed(listed)) if getattr(fact, name)), None)
    for name in ("esxi_version", "esxi_build"):
        row[name] = row[name] or next((getattr(crash, name) for crash in crashes if getattr(crash, name)), None)
    row["columns"] = next((json.dumps(fact.columns) for fact in newest if fact.columns), None)
    times = [stretch[edge] for stretch in coverage for edge in ("start", "end")]
    times += [crash.time for crash in crashes if crash.time]
    row["first_seen"], row["last_seen"] = min(times, default=None), max(times, default=None)
    return row


# ---- across tables ----------------------------------------------------------------------------------------------------


def _conflicts(rows: dict[str, list[Row]]) -> list[Row]:
    # Few drivers were ever read in two versions in one boot, and only those contradict themselves.
    ran: dict[Any, set[str]] = defaultdict(set)
    for row in rows["drivers"]:
        if row["state"] == "loaded" and row["module"] and row["version"] and row["host"] is not None:
            ran[row["host"], row["module"], row.get("boot")].add(row["version"])
    several = {place[:2] for place, versions in ran.items() if len(versions) > 1}
    if not several:
        return []
    hosts = {host for host, _ in several}
    uptimes = schema.build("uptimes", (row for row in rows["uptimes"] if row["host"] in hosts))
    drivers = schema.build("drivers", (row for row in rows["drivers"] if (row["host"], row["module"]) in several))
    return version_conflicts(uptimes, drivers)


def _tell_driver_version(rows: dict[str, list[Row]]) -> None:
    # driver_version: what was loaded, of the guilty module, in the boot that the crash ended. `loaded_versions` is asked for all
    # at once: what is loaded of one module in a host's boots depends on that host and module alone, so the two stand as a host.
    blamed = [row for row in rows["crashes"] if row["guilty_module"] is not None]
    if not blamed:
        return
    modules: dict[str | None, dict[str, str]] = defaultdict(dict)
    for row in blamed:
        modules[row["host"]][row["guilty_module"]] = f"{row['host'] or ''}\0{row['guilty_module']}"
    boots = [{**row, "host": pair} for row in rows["uptimes"] for pair in modules[row["host"]].values()]
    readings = (
        {**row, "host": modules[row["host"]][row["module"]], "module": ""}
        for row in rows["drivers"]
        if row["module"] in modules[row["host"]]
    )
    found = loaded_versions(schema.build("uptimes", boots), schema.build("drivers", readings), "").astype(object)
    found = found.where(found.notna(), None)
    told = {(pair, boot): how for pair, boot, *how, _ in reversed([*found.itertuples(index=False)])}
    ended = {row["crash_id"]: row["boot"] for row in reversed(rows["uptimes"])}
    for row in blamed:
        place = modules[row["host"]][row["guilty_module"]], ended.get(row["crash_id"])
        known = row["crash_id"] in ended and place in told
        row["driver_version"], row["driver_evidence"] = told[place] if known else (None, "none")


def with_inventory(hosts: pd.DataFrame, inventory: pd.DataFrame | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The hosts with the inventory's columns, and problems where the two differ; the evidence is believed first."""
    if inventory is None:
        return hosts, schema.empty("problems")
    canonical = _canonical([*hosts.host.dropna(), *inventory.host.dropna().astype("string")])
    roster = _plain_columns(inventory)
    roster["host"] = roster.host.map(lambda name: canonical[name.lower()], na_action="ignore")
    roster = roster.dropna(subset=["host"])
    twice = set(roster.host[roster.host.duplicated()]) | set(inventory.attrs.get("duplicates", ()))
    roster = roster.drop_duplicates("host")
    joined = hosts.merge(roster, on="host", how="outer", suffixes=("", " of inventory"))
    for column in [str(name) for name in joined if str(name).endswith(" of inventory")]:
        name = column.removesuffix(" of inventory")
        joined[name] = joined[name].fillna(joined.pop(column).astype(joined[name].dtype))
    strange = (
        (set(roster.host) - set(hosts.host), "no_evidence", "in the inventory; no file of it was found"),
        (set(hosts.host.dropna()) - set(roster.host), "not_in_inventory", "has evidence, and no row in the inventory"),
        (twice, "bad_line", "more than one row; the first is used"),
    )
    problems = (
        {"source": "inventory", "host": host, "problem": problem, "detail": detail}
        for names, problem, detail in strange
        for host in sorted(names)
    )
    return schema.conform("hosts", joined), schema.build("problems", problems)


def _plain_columns(inventory: pd.DataFrame) -> pd.DataFrame:
    # Columns that Parquet can hold, each once; what only evidence may say (when a host was seen) keeps its own name.
    roster = inventory.loc[:, ~inventory.columns.duplicated()].rename(columns=str)
    roster = roster.rename(columns={name: f"inventory_{name}" for name in ("first_seen", "last_seen")})
    mixed = [name for name in roster if roster[name].dtype == object]
    return roster.astype(
        dict.fromkeys({*mixed, "host", "esxi_version", "esxi_build", "vendor", "model"} & set(roster), "string")
    )
