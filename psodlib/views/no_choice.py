"""Where there is nothing to choose between (one version, one host, no crash, strangers' texts): what there is, and what to do now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psodlib.records import Crash
from psodlib.risk.association import FEW, attributes_of_driver
from psodlib.views.crash import reasons_of
from psodlib.views.document import Bullets, Section, Table
from psodlib.views.doubts import only_crashed, unknowns
from psodlib.views.study import Study, versions_seen
from psodlib.views.subject import describe_crash
from psodlib.views.words import count, known, listing, literal, per_year

__all__ = ["no_choice", "no_driver_stands_out"]

MOST_ROWS = 20  # modules on the page
KEEP = "Keep the dump and the logs (psod case packs them for the vendor); the write-up has the commands."


def no_choice(study: Study, crash_id: str | None) -> tuple[str, str, list[Section]]:
    """Title, lead and sections of the page."""
    crashes = study.fleet.crashes
    if crashes.empty:
        what = [Section("What to do", [Bullets(_go_on(study))])]
        return f"{study.module}: no crash was found", _quiet(study), what
    if no_driver_stands_out(study):
        return _scattered(study)
    crash = study.fleet.crash(crash_id) if crash_id else _newest(study)
    row = {"crash_id": crash.crash_id}
    suspects, issues, doubtful = (reasons_of(study.fleet, row, about) for about in ("suspect", "known_issue", "doubt"))
    parts = [
        ("Who is suspected, and why", suspects or ["No module: the evidence names none."]),
        (f"All crashes by {study.module}", _together(study)),
        ("Known issues that fit", issues),
        ("What to do now", [*_now(study, crash, bool(issues)), *_go_on(study)]),
        ("What this cannot say", [study.why_none, *doubtful, *unknowns(study)]),
    ]
    many = count(study.counts.module, f"crash by {study.module}", f"crashes by {study.module}")
    host = literal(crash.host, "a host that the text does not name")
    one = f"The crash of {host}: what it is, and what to do now"
    title = one if study.counts.module < 2 else f"{many}: what they are, and what to do now"
    return title, _lead(study, crash), [Section("What happened", [describe_crash(crash)]), *_bullets(parts)]


def no_driver_stands_out(study: Study) -> bool:
    """Whether the crashes have many causes and there is no version to choose: then the driver in question is only the first of them."""
    crashes = study.fleet.crashes
    mine = 2 * study.counts.module > crashes["guilty_module"].notna().sum()
    return study.decision is None and study.rollout is None and len(crashes) > 1 and not mine


def _bullets(parts: Sequence[tuple[str, list[str]]]) -> list[Section]:
    return [Section(title, [Bullets(lines)]) for title, lines in parts if lines]


def _scattered(study: Study) -> tuple[str, str, list[Section]]:
    # Crashes of many causes, as a folder of other people's texts has them: none is the one to act on.
    crashes = study.fleet.crashes
    blamed = crashes["guilty_module"].astype("string")
    most, nobody = blamed.value_counts(), int(blamed.isna().sum())
    rows = []
    for module, group in crashes.groupby(blamed.fillna("none found"), sort=False):
        signatures = group["signature"].astype("string").value_counts()
        issues = sorted({word for words in group["known_issues"].dropna() for word in str(words).split(";") if word})
        rows.append(
            (
                len(group),
                [
                    literal(module),
                    f"{len(group):,}",
                    literal(next(iter(signatures.index), None), "–"),
                    literal(", ".join(issues) or None, "–"),
                ],
            )
        )
    rows.sort(key=lambda row: -row[0])
    left = len(rows) - MOST_ROWS
    note = f"The signature seen most. {f'{left} more modules stand in tables/crashes.csv.' if left > 0 else ''}".strip()
    columns = ["Module", "Crashes", "Signature", "Known issues matched"]
    table = Table("", columns, [row for _, row in rows[:MOST_ROWS]], note, widths=(18, 10, 44, 28))
    steps = ["Look at each crash on its own: explorer.html has its text, its suspects and its known issues."]
    if (crashes["known_issues"].fillna("") != "").any():
        steps.append("Where a known issue matches, check its conditions first.")
    named = count(int(blamed.notna().sum()), "crash blames", "crashes blame")
    top = (
        f"{literal(most.index[0])} has the most, {most.iloc[0]}"
        if len(most) and most.iloc[0] > 1
        else "none is blamed twice"
    )
    lead = (
        f"No driver stands out: {named} {count(len(most), 'module')}{f', {nobody} name none' if nobody else ''}; {top}. "
        "Change no driver because of this page."
    )
    parts = [
        (f"All crashes by {study.module}", _together(study)),
        ("What to do now", [*steps, KEEP, *_go_on(study)]),
        ("What this cannot say", [study.why_none, *unknowns(study)]),
    ]
    return (
        f"{len(crashes):,} crashes, and no driver stands out",
        lead,
        [Section("Who is blamed", [table]), *_bullets(parts)],
    )


def _newest(study: Study) -> Crash:
    # Of the driver in question, where it has one.
    crashes = study.fleet.crashes
    mine = crashes[(crashes["guilty_module"] == study.module).fillna(False).astype(bool)]
    newest = (mine if len(mine) else crashes).sort_values("time", na_position="first")
    return study.fleet.crash(str(newest["crash_id"].iloc[-1]))


def _together(study: Study) -> list[str]:
    # Of one version with many crashes: how often, and what goes with them, as the version cannot be the question.
    if study.counts.in_rates < FEW or only_crashed(study):
        return []
    table: Any = study.rates
    rates = table[table.index.notna() & (table["host_days"] > 0)].itertuples()
    often = [
        f"{study.module} {literal(row.Index)}: {count(row.crashes, 'crash', 'crashes')} in {count(row.host_days, 'host-day')}, "
        f"{per_year(row.rate)} per host-year (95 % interval {per_year(row.low)} to {per_year(row.high)})."
        for row in rates
    ]
    return [*often, literal(attributes_of_driver(study.fleet, study.module).attrs["says"])]


def _lead(study: Study, crash: Any) -> str:
    if not known(crash.guilty_module):
        return "The evidence names no driver. Keep the dump and open a case; change no driver because of this crash."
    version = f" {literal(crash.driver_version)}" if known(crash.driver_version) else ""
    issue = " A known issue fits: check it first." if crash.known_issues else ""
    ranks = (
        " One crash ranks no versions; it says where to look."
        if len(study.fleet.crashes) == 1
        else f" {study.why_none}"
    )
    return f"The evidence points at {literal(crash.guilty_module)}{version}.{issue}{ranks}"


def _quiet(study: Study) -> str:
    rows = study.rates[study.rates["host_days"] > 0]
    rows = rows[rows.index.notna()]
    bounds = [
        f"{name}: at most {per_year(row['upper_at_zero'])} crashes per host-year" for name, row in rows.iterrows()
    ]
    return f"No crash in {count(study.exposure['host_days'].sum(), 'host-day')} watched. {'; '.join(bounds)}{' (95 % bound).' if bounds else ''}".strip()


def _now(study: Study, crash: Any, issue: bool) -> list[str]:
    remedy = "Follow the remedy of the known issue above; check its conditions against this host first."
    steps = [remedy] if issue else []
    module, version = crash.guilty_module, crash.driver_version
    if known(version) and module in set(study.fleet.drivers["module"].dropna()):
        now = study.fleet.now(module)
        waiting = now.loc[now["host"] == crash.host, "pending"].dropna()
        if len(waiting):
            steps.append(
                f"{literal(crash.host)} was given {module} {literal(waiting.iloc[0])} after the crash. Check that it is the one loaded; the steps are for the other hosts."
            )
        same = now.loc[(now["version"] == version).fillna(False), "host"]
        others = [host for host in same if host != crash.host]
        if others:
            steps.append(
                f"{count(len(others), 'other host runs', 'other hosts run')} {module} {literal(version)} too: {listing(others)}. Install it nowhere else until the case is answered."
            )
    return [*steps, KEEP]


def _go_on(study: Study) -> list[str]:
    seen = versions_seen(study.rates)
    if study.counts.in_rates >= FEW and not only_crashed(study):
        return [
            f"Only {seen} was watched, so no version can be called better. Try another one on a few hosts first: notebook 07 draws them."
        ]
    more = (
        f"Only {seen} was watched."
        if seen != "none"
        else f"No time with a known version of {study.module} was watched."
    )
    return [f"{more} Collect the hosts that did not crash as well (psod collect): without them no rate can be given."]
