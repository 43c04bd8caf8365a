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
from psodlib.triage.known_issues import load_issues
from psodlib.triage.timeline import incident_timeline
from psodlib.views import brief, charts
from psodlib.views.account import find_account
from psodlib.views.cells import rates_blocks
from psodlib.views.changes import what_changed
from psodlib.views.crash import place_of, plain_words, way_to
from psodlib.views.document import Bullets, Document, Link, Picture, Section, Table, Text, to_html, to_markdown, to_pdf
from psodlib.views.explore import explorer_document, lives_picture
from psodlib.views.notebooks import notebook_folder, notebook_page, notebooks_running, parameters_of, read_notebook
from psodlib.views.spreadsheet import write_csv
from psodlib.views.study import Study, doubts, study
from psodlib.views.words import day, known, label, listing, literal, moment, share, span
from psodlib.views.writeup import asked_for, choose_crash, write_up

Progress = Callable[[str, int, int], None]
Source = str | Path | Fleet
Sources = Sequence[str | Path]

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
    source: Source | Sequence[str | Path], out: str | Path, *, inventory: str | Path | pd.DataFrame | None = None,
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
    if isinstance(source, Fleet):
        fleet = source
    else:
        fleet = load(*sources, inventory=inventory, known_issues=known_issues, jobs=jobs, progress=progress)
    if before is None and len(sources) == 1 and is_store(Path(sources[0])):
        before = Fleet.before(sources[0])
    found = study(fleet, module, candidates, outage_hours, under_way)
    crash = choose_crash(fleet, crash_id, found.module)
    issues = load_issues(*([known_issues] if known_issues else []))
    more = [] if crash is None else asked_for(str(crash["crash_id"]), notes, site)
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
    steps, total = itertools.count(1), 5 + len(pages)

    def step(what: str) -> None:
        if progress:
            progress(what, next(steps), total)

    given = {path: _parameters(path, folder, found, crash, sources, plan) for path in pages}
    import_module("IPython")  # before the threads do: pyplot looks for it, and would meet it half imported
    # The kernels are processes of their own and run while the charts are drawn.
    with notebooks_running(given, KERNELS) as running:
        step("drawing charts")
        pictures = {name: _picture(name, found, folder) for name in CHARTS}
        step("writing the brief")
        chosen = None if crash is None else str(crash["crash_id"])
        _publish(brief.brief(found, [pictures[IN_BRIEF]], chosen), folder, "brief")
        step("writing up a crash")
        account = find_account(sources, crash, len(fleet.crashes))
        _publish(_case(found, crash, folder, issues=issues, more=more, account=account), folder, "writeup")
        step("writing tables")
        tables = _tables(found, folder)
        step("writing the explorer's pages")
        _write(folder / "explorer.html", to_html(explorer_document(fleet, found.module), home="index.html"))
        links, failed = _write_notebooks(found, given, running, folder, step)
    changed = None if before is None else what_changed(before, found, folder / "tables")
    if changed is not None:
        _write(folder / "changes.html", to_html(changed, home="index.html"))
        tables.insert(0, Section(changed.title, [Bullets([changed.lead, CHANGES])]))
        links.insert(0, CHANGES)
    index = folder / "index.html"
    first = _index(found, pictures, tables, sources)
    _write(index, to_html(first, [*DOCUMENTS, *links]))
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


# ---- charts, documents -------------------------------------------------------------------------------------------------


def _picture(name: str, found: Study, folder: Path) -> Picture | Text:
    draw: Callable[..., charts.Axes] = getattr(charts, f"plot_{name}")
    return _saved(draw(*CHARTS[name](found), simulated=found.fleet.simulated), folder, name)


def _saved(ax: charts.Axes, folder: Path, name: str) -> Picture | Text:
    # The picture, its SVG, its numbers; and in words, for whoever cannot see it, what the chart says of itself. A chart
    # with nothing to show is said, not shown.
    png, _ = charts.save_chart(ax, folder / "charts" / name)
    data = write_csv(charts.numbers(ax), png.with_suffix(".csv"))
    title, caption, inside = charts.wording(ax)
    if inside:
        return Text(f"{title}. {inside}")
    return Picture(png, title, caption, data.relative_to(folder).as_posix(), charts.save_dark(ax, png))


def _case(found: Study, crash: pd.Series | None, folder: Path, **more: Any) -> Document:
    # The runbook goes where the brief sends this crash's host; nowhere, where the brief lets it stay.
    fleet = found.fleet
    pictures: Sequence[Any] = ()
    if crash is not None:
        timeline = incident_timeline(fleet, str(crash["crash_id"]))
        still = _saved(charts.plot_incident(timeline, simulated=fleet.simulated), folder, "incident")
        module = str(crash["guilty_module"]) if known(crash["guilty_module"]) else found.module
        pictures = lives_picture(fleet, module, [still], crash["host"])
    pin = brief.destination(found, crash)
    return write_up(fleet, crash, go_to=pin, pictures=pictures, **more)


def _publish(document: Document, folder: Path, name: str) -> None:
    _write(folder / f"{name}.html", to_html(document, home="index.html"))
    to_pdf(document, folder / f"{name}.pdf", f"{name}.typ")
    if name == "writeup":
        _write(folder / f"{name}.md", to_markdown(document))


# ---- notebooks ---------------------------------------------------------------------------------------------------------


def _write_notebooks(
    found: Study, given: Mapping[Path, Any], running: Mapping[Path, Any], folder: Path, step: Callable[[str], None]
) -> tuple[list[Link], tuple[str, ...]]:
    links = []
    for path in sorted(running):
        step(f"notebook {path.stem}")
        # one that does not read this fleet shows something else, such as the real incident
        notice = found.notice if "fleet_folder" in given[path] else ""
        title, html, trouble = notebook_page(path, running[path], notice)
        links.append(Link(f"notebooks/{path.stem}.html", title, trouble))
        _write(folder / links[-1].href, html)
    return links, tuple(Path(link.href).stem for link in links if link.about)


def _parameters(path: Path, folder: Path, found: Study, crash: Any, sources: Sources, plan: Any) -> dict[str, Any]:
    # Those that this notebook has. It reads the tables that were just saved: the evidence is read once.
    given = {
        "fleet_folder": str((folder / "tables").resolve()), "module": found.module, "candidates": list(found.asked) or None,
        "collection": str(Path(sources[0]).resolve()) if len(sources) == 1 and Path(sources[0]).is_dir() else None,
        "plan_file": str(Path(plan).resolve()) if plan else None, "outage_hours": found.outage_hours, "crash_id": None if crash is None else str(crash["crash_id"]),
    }  # fmt: skip
    return {name: given[name] for name in parameters_of(read_notebook(path)) if name in given}


# ---- tables ------------------------------------------------------------------------------------------------------------


def _listed(
    title: str, none: str, caption: str, table: pd.DataFrame, row: Callable[[Any], Mapping[str, str | Link]], file: str
) -> Section:
    if table.empty:
        return Section(title, [Text(none)])
    rows = [row(entry) for _, entry in table.head(ROWS).iterrows()]
    more = len(table) - len(rows)
    words = f"{more:,} more, all as a table (CSV)" if more else "The same as a table (CSV)"
    link = Link(f"tables/{file}.csv", words)
    return Section(title, [Table(caption, list(rows[0]), [list(each.values()) for each in rows], link)])


def _tables(found: Study, folder: Path) -> list[Section]:
    fleet, decision, watched = found.fleet, found.decision, _watched(found.fleet)
    newest = fleet.crashes.sort_values("time", ascending=False, na_position="last", kind="stable")
    written = {"crashes": newest, "problems": fleet.problems, "watched": watched, "versions": _versions(found)}
    written |= {"moves": decision.moves, "options": decision.options} if decision else {}
    for name, table in written.items():
        write_csv(table, folder / "tables" / f"{name}.csv")
    crashes, hosts, problems = (
        ("Crashes", "No crash was found in the evidence.", "Crashes, newest first"),
        ("How much of the time was watched", "No host was found in the evidence.", "Hosts, least watched first"),
        ("Problems in the evidence", "Every file was read.", "What could not be read or believed"),
    )
    return [
        _listed(*crashes, newest, _crash_row, "crashes"),
        *([] if decision else [Section("Driver versions", rates_blocks(found.rates))]),
        _listed(*hosts, watched, _watched_row, "watched"),
        _listed(*problems, fleet.problems, _problem_row, "problems"),
    ]


def _crash_row(row: Any) -> Mapping[str, str | Link]:
    guilty = " ".join(literal(row[name]) for name in ("guilty_module", "driver_version") if known(row[name]))
    when = moment(row["time"]).removesuffix(" UTC") if known(row["time"]) else "time unknown"
    return {
        "When (UTC)": Link(way_to("crash", row["crash_id"], "explorer.html"), when) if known(row["crash_id"]) else when,
        "Host": _host_link(row, 32),
        "Kind": plain_words(row["kind"]),
        "Guilty module": guilty or "none found",
        "Function": _or_dash(row["guilty_function"]),
        "Known by": plain_words(row["guilt"]),
        "Uptime": span(row["uptime"]),
        "Known issue": _or_dash(row["known_issues"]).replace(";", ", "),
        "File and line": label(place_of(row["source"], row["line"], row["host"]), 60),
    }


def _host_link(row: Any, most: int) -> str | Link:
    if not known(row["host"]):
        return "unknown"
    return Link(way_to("host", row["host"], "explorer.html"), label(row["host"], most))


def _or_dash(value: Any) -> str:
    return literal(value) if known(value) and value != "" else "–"


def _versions(found: Study) -> pd.DataFrame:
    table = found.rates.rename_axis("version").reset_index()
    now: Any = (
        found.fleet.now(found.module)["version"].value_counts() if found.module and len(found.fleet.hosts) else {}
    )
    return table.assign(hosts_now=table["version"].map(now).fillna(0).astype("Int64"))


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


def _watched_row(row: Any) -> Mapping[str, str | Link]:
    days = {f"Days {word}": f"{row[f'days_{word}']:,.1f}" for word in ("up", "watched")}
    part, first, last = share(row["days_watched"], row["days_up"]), day(row["first_seen"]), day(row["last_seen"])
    seen = {"Share": part, "First seen": first, "Last seen": last}
    return {"Host": _host_link(row, 48), "Boots": f"{row['boots']:,}", **days, **seen}


def _problem_row(row: Any) -> Mapping[str, str | Link]:
    host = label(row["host"], 32) if known(row["host"]) else "–"
    place, what = place_of(row["source"], None, row["host"]), plain_words(row["problem"])
    found = literal(row["detail"])
    return {"File": place, "Host": host, "Line": _or_dash(row["line"]), "Problem": what, "What was found": found}


# ---- the first page ----------------------------------------------------------------------------------------------------


def _index(found: Study, pictures: Mapping[str, Any], tables: Sequence[Section], sources: Sources) -> Document:
    lives = [picture for name in LIVES if isinstance(picture := pictures[name], Picture)]
    over_time = lives_picture(found.fleet, found.module, lives) if lives else []
    return Document(
        title="Crash report" if not found.module or brief.no_driver_stands_out(found) else f"Crash report: {found.module}",
        subtitle=found.scope, lead=brief.verdict(found), tone=brief.tone(found), facts=brief.facts(found),
        notice=found.notice,
        sections=[
            *_answer(found), *([Section("Versions and crashes over time", over_time)] if over_time else []),
            Section("Charts", _drawn_first([picture for name, picture in pictures.items() if picture not in lives])),
            Section("What could make this wrong", [Bullets(doubts(found))]),
            Section("How the crashes are counted", [brief.counted(found)]),
            *tables,
            Section("Where the data came from", _provenance(found.fleet, sources)),
        ],
    )  # fmt: skip


def _answer(found: Study) -> list[Section]:
    # The brief's own blocks, and which driver this is about.
    league = [Section("Which driver this is about", [brief.league(found)])] if found.module else []
    if found.decision is None and found.rollout is None:
        return league
    return [*brief.answer(found), Section("What is open, and when we can tell", brief.open_questions(found)), *league]


def _drawn_first(pictures: Sequence[Picture | Text]) -> list[Picture | Text]:
    # Of a thin fleet most charts have nothing to show: why not is said once, behind those that have.
    drawn: list[Picture | Text] = [each for each in pictures if isinstance(each, Picture)]
    missing = list(dict.fromkeys(each.text.split(". ")[0] for each in pictures if isinstance(each, Text)))
    missing = [f"{words[:1].lower()}{words[1:]}" for words in missing]
    return [*drawn, Text(f"Not drawn for want of evidence: {'; '.join(missing)}.")] if missing else drawn


def _provenance(fleet: Fleet, sources: Sources) -> list[Text | Table]:
    names = listing(Path(source).name or str(source) for source in sources)
    read = f"Read from {names}." if sources else "Made from a fleet that was already loaded."
    kinds = fleet.drivers["evidence"].value_counts()
    rows = [[plain_words(kind), f"{number:,}"] for kind, number in kinds.items()]
    made = f"Made on {datetime.now(UTC):%Y-%m-%d} by psodlib {version('psodlib')}."
    blocks: list[Text | Table] = [Text(f"{read} {made} The tables behind every number are in tables/, as Parquet.")]
    if rows:
        caption = "Observations of driver versions, by kind of evidence"
        blocks.append(Table(caption, ["Kind", "Observations"], rows))
    return blocks
