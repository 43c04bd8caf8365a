"""`psod`: parses words, calls the public functions, prints. The same words as in Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from psodlib.errors import PsodError

if TYPE_CHECKING:
    from psodlib.fleet import Fleet

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="From a folder of ESXi crash evidence to a driver-pinning decision.",
    epilog="Exit code 0: done. 1: done, with problems that you should see. 2: wrong use.",
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

# Problems that cost no evidence: worth a row in the table, not an exit code.
MILD = {"not_in_inventory", "no_evidence", "unknown_format", "empty", "bad_line"}

Sources = Annotated[
    list[str],
    typer.Argument(help="Folders, files, archives or URLs of evidence; - reads standard input.", show_default=False),
]
Inventory = Annotated[
    Path | None, typer.Option(help="CSV with at least a column [b]host[/b]; cluster, model, users, vms are used.")
]
KnownIssues = Annotated[Path | None, typer.Option(help="Your own known issues (TOML), beside those that ship.")]
Jobs = Annotated[int | None, typer.Option(help="Processes to read with; default: as many as there are cores.")]


@app.command(epilog="Example:  psod load evidence/ --inventory hosts.csv -o fleet/")
def load(
    sources: Sources,
    inventory: Inventory = None,
    known_issues: KnownIssues = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Save the tables there as Parquet.")] = None,
    jobs: Jobs = None,
) -> None:
    """Read evidence and print what is in it: crashes, driver versions, problems."""
    from psodlib.fleet import load as load_fleet

    with _bar("reading") as progress:
        fleet = load_fleet(*sources, inventory=inventory, known_issues=known_issues, jobs=jobs, progress=progress)
    if output:
        fleet.save(output)
    _print_summary(fleet)
    if output:
        out.print(f"Tables saved in {escape(str(output))}")
    raise typer.Exit(_exit_code(fleet))


@app.command(epilog="Example:  psod report evidence/ --inventory hosts.csv --module hpsa -o report/")
def report(
    sources: Sources,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the report; made if need be.")] = Path(
        "report"
    ),
    inventory: Inventory = None,
    known_issues: KnownIssues = None,
    module: Annotated[str, typer.Option(help="The driver module in question.")] = "hpsa",
    candidate: Annotated[
        list[str] | None,
        typer.Option(help="A version that might be pinned; may be given again. Default: all that ran."),
    ] = None,
    crash_id: Annotated[
        str | None, typer.Option(help="Crash of the write-up. Default: the newest of the module.")
    ] = None,
    jobs: Jobs = None,
) -> None:
    """Run the notebooks on any source and write HTML, PDF, PNG, CSV and Parquet."""
    from psodlib.views.report import report as write_report

    with _bar("report") as progress:
        written = write_report(
            sources, output, inventory=inventory, known_issues=known_issues, module=module,
            candidates=candidate or None, crash_id=crash_id, jobs=jobs, progress=progress,
        )  # fmt: skip
    out.print(f"Report: {escape(str(written.index))}")
    for name in written.failed:
        out.print(f"notebook {escape(name)} did not run to its end; its page says where")
    raise typer.Exit(1 if written.failed else _exit_code(written.fleet))


@app.command(epilog="Example:  psod simulate made-up/ --hosts 60 --days 365 --seed 7")
def simulate(
    folder: Annotated[Path, typer.Argument(help="Where to write the evidence; must be new or empty.")],
    hosts: Annotated[int, typer.Option(min=1, help="Number of hosts.")] = 60,
    days: Annotated[int, typer.Option(min=1, help="Days of history.")] = 365,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 7,
) -> None:
    """Write a made-up fleet with known truth, in real file formats."""
    from psodlib.simulate import simulate_fleet

    simulate_fleet(folder, hosts=hosts, days=days, seed=seed)
    out.print(
        f"Simulated fleet of {hosts} hosts in {escape(str(folder))}; the truth is in {escape(str(folder / 'truth'))}"
    )


@app.command(epilog="Example:  psod explain 3f2a90c1d4e5b677 evidence/")
def explain(
    crash_id: Annotated[str, typer.Argument(help="Crash id, or its first digits.")],
    sources: Sources,
) -> None:
    """Say why a crash has its signature and its guilty module."""
    from psodlib.fleet import explain_crash

    out.print(explain_crash(crash_id, *sources), markup=False, soft_wrap=True)


@app.command(epilog="Example:  psod lab --folder my-case")
def lab(
    folder: Annotated[Path, typer.Option(help="Working copy of the notebooks; git ignores the default.")] = Path(
        "work-notebooks"
    ),
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
) -> None:
    """Open JupyterLab on a working copy of the notebooks, so that no real host name reaches the committed ones."""
    from psodlib.views.notebooks import notebook_folder

    folder.mkdir(parents=True, exist_ok=True)
    for notebook in sorted(notebook_folder().glob("*.ipynb")):
        if not (folder / notebook.name).exists():
            shutil.copy(notebook, folder)
    command = [sys.executable, "-m", "jupyterlab", str(folder)]
    raise typer.Exit(subprocess.call(command if browser else [*command, "--no-browser"]))


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from psodlib import __version__

        out.print(f"psodlib {__version__}")
        raise typer.Exit()


@contextmanager
def _bar(task: str) -> Iterator[Any]:
    # A bar on a terminal, nothing in a pipe; the callback takes (what, done, total).
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        row = bar.add_task(task, total=None)
        yield lambda what, done, total: bar.update(row, description=escape(what), completed=done, total=total)


def _print_summary(fleet: Fleet) -> None:
    if fleet.simulated:
        out.print("Simulated fleet: made up, not measured.")
    seen = fleet.hosts.first_seen.notna().sum()
    days = fleet.uptimes.observed.dt.total_seconds().sum() / 86_400
    out.print(
        f"{len(fleet.hosts)} hosts ({seen} with evidence), {len(fleet.crashes)} crashes, {days:,.0f} host-days observed"
    )
    if len(fleet.crashes):
        names = ["guilty_module", "guilt", "kind", "driver_version"]
        counts = fleet.crashes.groupby(names, observed=True, dropna=False).size().sort_values(ascending=False)
        _print_table("Crashes", [*names, "crashes"], [(*key, n) for key, n in counts.head(15).items()])  # type: ignore[misc]
    if len(fleet.problems):
        counts = fleet.problems.groupby("problem", observed=True).size().sort_values(ascending=False)
        first = fleet.problems.drop_duplicates("problem").set_index("problem")
        rows = [(name, n, *first.loc[[name], ["source", "detail"]].iloc[0]) for name, n in counts.items()]
        _print_table("Problems", ["problem", "rows", "first in", "what"], rows)


def _print_table(title: str, names: list[str], rows: list[tuple[Any, ...]]) -> None:
    import pandas as pd

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*("-" if pd.isna(value) else escape(_plain(str(value))) for value in row))
    out.print(table)


def _plain(text: str) -> str:
    # Log text may hold terminal escapes: what cannot be printed is shown as a code.
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _exit_code(fleet: Fleet) -> int:
    return int(bool(set(fleet.problems.problem.dropna()) - MILD))


def main() -> None:
    """Run `psod`; an error that the user can mend is one line and exit code 2."""
    try:
        app()
    except PsodError as error:
        err.print(f"psod: {error}", style="red", markup=False, soft_wrap=True)
        raise SystemExit(2) from None
