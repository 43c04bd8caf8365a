"""A source of evidence -> a folder of pages, PDFs, pictures and tables.

    index.html            the verdict, the charts, the tables, and where the data came from
    brief.html .pdf       two pages for management
    explorer.html         all crashes and hosts: #crash=<id> and #host=<name> are addresses that stay
    writeup.html .pdf .md one crash, ready for a support case or a wiki
    changes.html          of a store: what changed since its last load
    notebooks/*.html      the notebooks, run on this source
    charts/*.png .svg     each chart; its numbers in *.csv
    tables/*.parquet      the fleet's tables; those shown on the index page also as *.csv

The one script (``templates/explorer.js``) draws the explorer and the pictures to hover and zoom; no page fetches anything, and all
text of the evidence reaches every surface as text: ``document.py`` for HTML, PDF and Markdown, ``notebooks.py`` for what
notebooks print, ``spreadsheet.py`` for CSV.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from psodlib.errors import InputError, SmallSampleWarning
from psodlib.fleet import Fleet, load
from psodlib.risk.rollout import read_plan
from psodlib.risk.survival import hazard_by_uptime, time_to_crash
from psodlib.store.folder import is_store
from psodlib.triage.changes import fleet_changes, sentences
from psodlib.triage.known_issues import load_issues
from psodlib.triage.timeline import incident_timeline
from psodlib.views import brief, charts, document
from psodlib.views.account import find_account
from psodlib.views.cells import ADVICE, rates_blocks
from psodlib.views.crash import link_to, place_of, plain_words
from psodlib.views.document import Block, Bullets, Document, Link, Picture, Section, Table, Text, sections
from psodlib.views.explore import explorer_document, lives_picture
from psodlib.views.notebooks import notebook_folder, notebook_page, notebooks_running, parameters_of, read_notebook
from psodlib.views.spreadsheet import write_csv
from psodlib.views.study import Study, doubts, study
from psodlib.views.words import day, joined, known, label, listing, literal, moment, seen, share, span
from psodlib.views.writeup import asked_for, choose_crash, write_up

Progress = Callable[[str, int, int], None]
Sources = Sequence[str | Path]
Cells = Mapping[str, str | Link]  # of a row, by column

LIVES = ("rollout", "fleet_map")  # the charts that a reader can hover and zoom
KERNELS = 2  # side by side: more only wait for each other on a laptop
ROWS = 100  # of a table on the index page; the rest is in tables/ and in the explorer
DOCUMENTS = (
    Link("brief.pdf", "The brief (PDF)", "Two pages for management"),
    Link("brief.html", "The brief", "The same as a page"),
    Link("writeup.pdf", "The write-up (PDF)", "One crash, for a support case"),
    Link("writeup.html", "The write-up", "The same as a page"),
    Link("explorer.html", "All crashes and hosts", "Filter, sort, open each crash and host"),
    Link("writeup.md", "The write-up (Markdown)", "The same for a wiki"),
)
CHANGES = Link("changes.html", "What changed since last time", "New crashes, moved and silent hosts, other advice")


def _survival(exposure: pd.DataFrame) -> pd.DataFrame:
    # That few boots were under watch is said by the chart, which draws no curve of fewer than ten.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallSampleWarning)
        return time_to_crash(exposure)


# Each chart of the report by the name of its ``plot_*``: what it is drawn from.
CHARTS: Mapping[str, Callable[[Study], tuple[Any, ...]]] = {
    "options": lambda found: (found.decision,),
    "rates": lambda found: (found.rates,),
    "rollout": lambda found: (found.exposure,),
    "ratio": lambda found: (found.decision.ratios if found.decision else (),),
    "host_days": lambda found: (found.exposure, found.fleet.uptimes),
    "uptime_at_crash": lambda found: (found.exposure,),
    "hazard": lambda found: (hazard_by_uptime(found.exposure),),
    "survival": lambda found: (_survival(found.exposure),),
    "evidence_needed": lambda found: (found.decision, found.exposure),
    "modules": lambda found: (found.fleet.crashes,),
    "fleet_map": lambda found: (found.exposure,),
    "ascertainment": lambda found: (found.fleet.crashes, found.fleet.uptimes, found.fleet.coverage),
}
IN_BRIEF = "options"


@dataclass(frozen=True)
class Report:
    """What was written: the folder, its first page, the fleet it speaks of, the answer in a sentence, and notebooks that
    did not run to their end."""

    folder: Path
    index: Path
    fleet: Fleet
    failed: tuple[str, ...] = ()
    lead: str = ""


def report(
    source: str | Path | Fleet | Sources, out: str | Path, *, inventory: str | Path | pd.DataFrame | None = None,
    known_issues: str | Path | None = None, module: str | None = None, candidates: Sequence[str] | None = None,
    crash_id: str | None = None, outage_hours: float = 1.0, jobs: int | None = None, notebooks: bool = True,
    notes: str | Path | None = None, site: str | Path | None = None, plan: str | Path | None = None,
    before: Fleet | None = None, progress: Progress | None = None,
) -> Report:  # fmt: skip
    """Run everything on a source and leave a folder that can be read anywhere, with no network and no Python.

    Parameters
    ----------
    source : str, Path, Fleet, or a sequence of str or Path
        What ``load`` takes, or a Fleet already loaded.
    out : str or Path
        The folder to write; made if need be. It must not lie inside the evidence.
    inventory, known_issues, jobs
        As for ``load``.
    module : str, optional
        The driver in question; by default the one that caused most crashes.
    candidates : sequence of str, optional
        Its versions to choose between; by default those with most host-days.
    crash_id : str, optional
        The crash to write up; by default the newest one caused by ``module``.
    outage_hours : float
        Hours until the users of a crashed host work again, for the cost of each choice.
    notebooks : bool
        False leaves the notebooks' pages out, which take most of the time.
    notes : str or Path, optional
        Folder of the tags and notes made in the explorer; those of the crash go into its write-up.
    site : str or Path, optional
        A private ``site.toml``; its facts go into the write-up and on no other page.
    plan : str or Path, optional
        The file of a roll-out that is under way: brief, index and notebook 07 show how it stands, as ``watch_rollout`` tells.
    before : Fleet, optional
        The fleet as it was, for the page "what changed since last time"; of a store it is known (``Fleet.before``).
    progress : callable, optional
        Called as ``progress(what, done, total)``.

    Returns
    -------
    Report
        ``index`` is the page to open.

    Raises
    ------
    InputError
        As ``load``; ``out`` inside the evidence; an unknown ``crash_id`` or candidate.
    RuleError
        A bad line in the known-issues file.

    Example
    -------
    >>> import psodlib as psod
    >>> psod.report("evidence/", "report/", inventory="inventory.csv").index  # doctest: +SKIP
    PosixPath('report/index.html')
    """
    sources = [] if isinstance(source, Fleet) else [source] if isinstance(source, (str, Path)) else list(source)
    folder = _folder(sources, Path(out))
    under_way = None if plan is None else read_plan(plan)  # a wrong file is told before the evidence is read
    given: Any = {"inventory": inventory, "known_issues": known_issues, "jobs": jobs, "progress": progress}
    fleet = source if isinstance(source, Fleet) else load(*sources, **given)
    if before is None and len(sources) == 1 and is_store(Path(sources[0])):
        before = Fleet.before(sources[0])
    found = study(fleet, module, candidates, outage_hours, under_way)
    crash = choose_crash(fleet, crash_id, found.module)
    chosen = None if crash is None else str(crash["crash_id"])
    issues = load_issues(*([known_issues] if known_issues else []))
    more = asked_for(chosen, notes, site) if chosen else []
    # What was collected is its owner's alone, and so is what is told of it.
    private = any(path.exists() and not path.stat().st_mode & 0o077 for path in map(Path, sources))
    # Only now: what cannot be read leaves no folder.
    folder.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
    for name in ("charts", "notebooks", "tables"):
        (folder / name).mkdir(exist_ok=True)
    fleet.save(folder / "tables")
    # Biggest first: the one with most to draw must not be the last to begin.
    there = notebook_folder().glob("*.ipynb") if notebooks else []
    pages = sorted(there, key=lambda path: (-path.stat().st_size, path.name))
    steps = itertools.count(1)

    def step(what: str) -> None:
        if progress:
            progress(what, next(steps), 5 + len(pages))

    # What a notebook has a parameter for. It reads the tables that were just saved: the evidence is read once.
    values = {
        "fleet_folder": str((folder / "tables").resolve()), "module": found.module, "candidates": list(found.asked) or None,
        "collection": str(Path(sources[0]).resolve()) if len(sources) == 1 and Path(sources[0]).is_dir() else None,
        "plan_file": str(Path(plan).resolve()) if plan else None, "outage_hours": found.outage_hours, "crash_id": chosen,
    }  # fmt: skip
    has = {path: parameters_of(read_notebook(path)) for path in pages}
    wanted = {path: {name: values[name] for name in names if name in values} for path, names in has.items()}
    import_module("IPython")  # before the threads do: pyplot looks for it, and would meet it half imported
    # The kernels are processes of their own and run while the charts are drawn.
    with notebooks_running(wanted, KERNELS) as running:
        step("drawing charts")
        pictures = {name: picture(name, folder, fleet, *data(found)) for name, data in CHARTS.items()}
        step("writing the brief")
        _publish(brief.brief(found, [pictures[IN_BRIEF]], chosen), folder, "brief", "pdf")
        step("writing up a crash")
        account = find_account(sources, crash, len(fleet.crashes))
        life: list[Block] = []
        if crash is not None:
            still = picture("incident", folder, fleet, incident_timeline(fleet, str(crash["crash_id"])))
            life = lives_picture(fleet, literal(crash["guilty_module"], found.module), [still], crash["host"])
        # The runbook goes where the brief sends this crash's host; nowhere, where the brief lets it stay.
        known_of: Any = {"go_to": brief.destination(found, crash), "issues": issues, "account": account}
        written = write_up(fleet, crash, pictures=life, more=more, **known_of)
        _publish(written, folder, "writeup", "pdf", "md")
        step("writing tables")
        tables = _tables(found, folder)
        step("writing the explorer's pages")
        _publish(explorer_document(fleet, found.module), folder, "explorer")
        links = []
        for path in sorted(running):
            step(f"notebook {path.stem}")
            # one that does not read this fleet shows something else, such as the real incident
            notice = found.notice if "fleet_folder" in wanted[path] else ""
            title, html, trouble = notebook_page(path, running[path], notice)
            links.append(Link(f"notebooks/{path.stem}.html", title, trouble))
            _write(folder / links[-1].href, html)
    failed = tuple(Path(link.href).stem for link in links if link.about)
    if before is not None:
        changed = what_changed(before, found, folder / "tables")
        _publish(changed, folder, "changes")
        tables.insert(0, Section(changed.title, [Bullets([changed.lead, CHANGES])]))
        links.insert(0, CHANGES)
    first, index = _index(found, pictures, tables, sources), folder / "index.html"
    _write(index, document.to_html(first, [*DOCUMENTS, *links]))
    if private:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o600)
    return Report(folder, index, fleet, failed, first.lead)


def _folder(sources: Sources, out: Path) -> Path:
    # A report among the evidence would be read as evidence the next time.
    for source in sources:
        place = Path(source)
        if place.is_dir() and out.resolve().is_relative_to(place.resolve()):
            why = f"lies inside the evidence {place}, so the next load would read the report as evidence"
            raise InputError(f"{out}: {why}; name a folder beside it")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; expected a folder to write the report to")
    return out


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _publish(page: Document, folder: Path, name: str, *more: str) -> None:
    _write(folder / f"{name}.html", document.to_html(page, home="index.html"))
    if "pdf" in more:
        document.to_pdf(page, folder / f"{name}.pdf", f"{name}.typ")
    if "md" in more:
        _write(folder / f"{name}.md", document.to_markdown(page))


def picture(name: str, folder: Path, fleet: Fleet, *data: Any) -> Picture | Text:
    """A chart by the name of its ``plot_*``: the picture, its SVG, its numbers, and in words what it says of itself, for whoever
    cannot see it; one with nothing to show is said, not shown."""
    draw: Callable[..., charts.Axes] = getattr(charts, f"plot_{name}")
    ax = draw(*data, simulated=fleet.simulated)
    png, _ = charts.save_chart(ax, folder / "charts" / name)
    numbers = write_csv(charts.numbers(ax), png.with_suffix(".csv"))
    title, caption, inside = charts.wording(ax)
    if inside:
        return Text(f"{title}. {inside}")
    return Picture(png, title, caption, numbers.relative_to(folder).as_posix(), charts.save_dark(ax, png))


# ---- tables ------------------------------------------------------------------------------------------------------------


def _listed(table: pd.DataFrame, row: Callable[[Any], Cells], none: str, file: str, caption: str = "") -> list[Block]:
    # The first rows of a table, and a way to the whole of it.
    if table.empty:
        return [Text(none)]
    rows = [row(entry) for _, entry in table.head(ROWS).iterrows()]
    more = len(table) - len(rows)
    words = f"{more:,} more, all as a table (CSV)" if more else "The same as a table (CSV)"
    cells = [list(each.values()) for each in rows]
    return [Table(caption, list(rows[0]), cells, Link(f"tables/{file}.csv", words))]


def _tables(found: Study, folder: Path) -> list[Section]:
    fleet, decision, watched = found.fleet, found.decision, _watched(found.fleet)
    newest = fleet.crashes.sort_values("time", ascending=False, na_position="last", kind="stable")
    now: Any = fleet.now(found.module)["version"].value_counts() if found.module and len(fleet.hosts) else {}
    rates = found.rates.rename_axis("version").reset_index()
    versions = rates.assign(hosts_now=rates["version"].map(now).fillna(0).astype("Int64"))
    written = {"crashes": newest, "problems": fleet.problems, "watched": watched, "versions": versions}
    written |= {"moves": decision.moves, "options": decision.options} if decision else {}
    for name, table in written.items():
        write_csv(table, folder / "tables" / f"{name}.csv")
    crashes, hosts, problems = (
        _listed(newest, _crash_row, "No crash was found in the evidence.", "crashes", "Crashes, newest first"),
        _listed(watched, _watched_row, "No host was found in the evidence.", "watched", "Hosts, least watched first"),
        _listed(fleet.problems, _problem_row, "Every file was read.", "problems", "What could not be read or believed"),
    )
    return sections(
        ("Crashes", crashes), ("Driver versions", [] if decision else rates_blocks(found.rates)),
        ("How much of the time was watched", hosts), ("Problems in the evidence", problems),
    )  # fmt: skip


def _crash_row(row: Any) -> Cells:
    return {
        "When (UTC)": link_to("crash", row["crash_id"], moment(row["time"], "time unknown").removesuffix(" UTC"), "explorer.html"),
        "Host": _host(row, 32), "Kind": plain_words(row["kind"]), "Guilty module": _guilty(row), "Function": _or_dash(row["guilty_function"]),
        "Known by": plain_words(row["guilt"]), "Uptime": span(row["uptime"]),
        "Known issue": _or_dash(row["known_issues"]).replace(";", ", "),
        "File and line": label(place_of(row["source"], row["line"], row["host"]), 60),
    }  # fmt: skip


def _guilty(row: Any) -> str:
    return joined(row, "guilty_module", "driver_version") or "none found"


def _host(row: Any, most: int = 48) -> str | Link:
    return link_to("host", row["host"], label(row["host"], most), "explorer.html")


def _or_dash(value: Any) -> str:
    return literal(value) if known(value) and value != "" else "–"


def _watched(fleet: Fleet) -> pd.DataFrame:
    sums = {"boots": ("boot", "size"), "up": ("uptime", "sum"), "watched": ("observed", "sum")}
    boots = fleet.uptimes.groupby("host", observed=True).agg(**sums)
    table = fleet.hosts[["host", "first_seen", "last_seen"]].merge(boots, how="left", left_on="host", right_index=True)
    for name in ("up", "watched"):
        table[f"days_{name}"] = (table.pop(name).dt.total_seconds() / 86400).fillna(0.0)
    table["boots"] = table["boots"].fillna(0).astype("Int64")
    table["share"] = (table["days_watched"] / table["days_up"].where(table["days_up"] > 0)).fillna(0.0)
    order = ["host", "boots", "days_up", "days_watched", "share", "first_seen", "last_seen"]
    return table[order].sort_values(["share", "host"], kind="stable", ignore_index=True)


def _watched_row(row: Any) -> Cells:
    return {
        "Host": _host(row), "Boots": f"{row['boots']:,}", "Days up": f"{row['days_up']:,.1f}",
        "Days watched": f"{row['days_watched']:,.1f}", "Share": share(row["days_watched"], row["days_up"]),
        "First seen": day(row["first_seen"]), "Last seen": day(row["last_seen"]),
    }  # fmt: skip


def _problem_row(row: Any) -> Cells:
    return {
        "File": place_of(row["source"], None, row["host"]), "Host": label(row["host"], 32, "–"), "Line": _or_dash(row["line"]),
        "Problem": plain_words(row["problem"]), "What was found": literal(row["detail"]),
    }  # fmt: skip


# ---- what changed since last time --------------------------------------------------------------------------------------


def what_changed(before: Fleet, found: Study, folder: Path) -> Document:
    """A fleet as it was before its store's last load, and as it is; the tables are written to ``folder``."""
    decision, earlier, was, now = found.decision, None, before.hosts, found.fleet.hosts
    with suppress(InputError):  # nothing was known of the driver, or of a version that is asked about
        earlier = study(before, found.module, found.asked or None, found.outage_hours).decision
    advice = None if decision is None or earlier is None else (earlier.options, decision.options)
    changes = fleet_changes(before.tables, found.fleet.tables, advice)
    for name, table in changes.items():
        if len(table):
            write_csv(table, folder / f"new_{name}.csv")
    when = "Now there is" if decision is None else "Before there was"
    uncompared = Text(f"{when} nothing to choose between, so no advice on {found.module} can be compared.")
    said = sentences(changes)
    return Document(
        title="What changed since last time",
        subtitle=f"Before: {len(was):,} hosts{seen(was)}. Now: {len(now):,} hosts{seen(now)}",
        lead=f"{'; '.join(said)}." if said else "Nothing that matters: no new crash, no host in another version, none fallen silent.",
        tone="bad" if len(changes["crashes"]) or len(changes["silent"]) else "good" if not said else "open", notice=found.notice,
        sections=[
            Section(title, _listed(changes[name], row, none, f"new_{name}") if name in changes else [uncompared])
            for name, title, none, row in _PARTS
        ],
    )  # fmt: skip


def _advice(word: Any) -> str:
    return ADVICE.get(str(word), literal(word)) if known(word) else "not among the versions"


_PARTS: tuple[tuple[str, str, str, Callable[[Any], Cells]], ...] = (
    ("crashes", "New crashes", "None.", lambda row: {
        "When": link_to("crash", row["crash_id"], moment(row["time"], "time unknown"), "explorer.html"), "Host": _host(row),
        "Guilty module": _guilty(row), "Signature": label(row["signature"], 80), "Known issue": literal(row["known_issues"], "–"),
    }),
    ("signatures", "Signatures seen for the first time", "None.", lambda row: {
        "Signature": label(row["signature"], 120), "Crashes": f"{row['crashes']:,}", "Hosts": f"{row['hosts']:,}", "First": moment(row["first"]),
    }),
    ("versions", "Hosts in another version of a driver", "None.", lambda row: {
        "Host": _host(row), "Module": literal(row["module"]), "From": literal(row["from_version"]), "To": literal(row["to_version"]),
        "First seen": day(row["since"]),
    }),
    ("silent", "Hosts that fell silent", "None: every host that was alive with the fleet still is.", lambda row: {
        "Host": _host(row), "Last seen": moment(row["last_seen"]), "Behind the fleet": span(row["behind"]),
    }),
    ("advice", "How the advice changed", "It is the same for every version.", lambda row: {
        "Version": literal(row["version"]), "Before": _advice(row["before"]), "Now": _advice(row["now"]),
    }),
)  # fmt: skip


# ---- the first page ----------------------------------------------------------------------------------------------------


def _index(found: Study, pictures: Mapping[str, Any], tables: Sequence[Section], sources: Sources) -> Document:
    lives = [picture for name in LIVES if isinstance(picture := pictures[name], Picture)]
    others = [each for each in pictures.values() if each not in lives]
    # Of a thin fleet most charts have nothing to show: why not is said once, behind those that have.
    missing = dict.fromkeys(each.text.split(". ")[0] for each in others if isinstance(each, Text))
    why = "; ".join(f"{one[:1].lower()}{one[1:]}" for one in missing)
    shown: list[Block] = [each for each in others if isinstance(each, Picture)]
    shown += [Text(f"Not drawn for want of evidence: {why}.")] if missing else []
    # The brief's own blocks.
    answer = brief.answer(found) if found.decision or found.rollout else []
    return Document(
        title="Crash report" if not found.module or brief.no_driver_stands_out(found) else f"Crash report: {found.module}",
        subtitle=found.scope, lead=brief.verdict(found), tone=brief.tone(found), facts=brief.facts(found), notice=found.notice,
        sections=[*answer, *sections(
            ("What is open, and when we can tell", brief.open_questions(found) if answer else []),
            ("Which driver this is about", [brief.league(found)] if found.module else []),
            ("Versions and crashes over time", lives_picture(found.fleet, found.module, lives) if lives else []), ("Charts", shown),
            ("What could make this wrong", doubts(found)), ("How the crashes are counted", [brief.counted(found)]),
        ), *tables, *sections(("Where the data came from", _provenance(found.fleet, sources)))],
    )  # fmt: skip


def _provenance(fleet: Fleet, sources: Sources) -> list[Block]:
    names = listing(Path(source).name or str(source) for source in sources)
    read = f"Read from {names}." if sources else "Made from a fleet that was already loaded."
    rows = [[plain_words(kind), f"{number:,}"] for kind, number in fleet.drivers["evidence"].value_counts().items()]
    made = f"Made on {datetime.now(UTC):%Y-%m-%d} by psodlib {version('psodlib')}."
    said = Text(f"{read} {made} The tables behind every number are in tables/, as Parquet.")
    caption = "Observations of driver versions, by kind of evidence"
    return [said, *([Table(caption, ["Kind", "Observations"], rows)] if rows else [])]
