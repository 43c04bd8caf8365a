"""What `psod` prints and how it ends: bars, tables, what a fleet holds, Ctrl-C and SIGTERM, exit codes."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from psodlib.errors import InputError, visible

if TYPE_CHECKING:
    import pandas as pd

    from psodlib.fleet import Fleet

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

BESIDE = 60  # letters that the rest of a progress line takes
NEWEST = 10  # crashes listed one by one by `psod load`
SHOWN_SUSPECTS = 40  # words that still look like a name
# Problems that cost no evidence: worth a row in the table, not an exit code.
MILD = {
    "not_in_inventory", "unplaced_crash", "no_evidence", "unknown_format", "empty", "bad_line", "unused", "truncated",
}  # fmt: skip


def say(text: str, to: Console = out, style: str = "") -> None:
    """One line, as it is: nothing in it is markup or moves the cursor."""
    to.print(visible(text), style=style, markup=False, soft_wrap=True)


def print_table(title: str, table: pd.DataFrame) -> None:
    """A table on the terminal; what is missing is a dash."""
    from pandas import isna

    shown = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in table.columns:
        # an id in two pieces cannot be copied
        shown.add_column(escape(visible(str(name))), overflow="fold", no_wrap=name == "crash_id")
    for row in table.itertuples(index=False):
        shown.add_row(*("-" if isna(value) else escape(visible(str(value))) for value in row))
    out.print(shown)


@contextmanager
def bar(task: str, at_once: bool = True) -> Iterator[Any]:
    """A bar on a terminal, nothing in a pipe; gives a callback (what, done, total).

    Not at once where the first thing may be a question, over which a bar would write.
    """
    name = Column(ratio=1, no_wrap=True)  # what gives way on a narrow terminal
    columns = (
        TextColumn("{task.description}", table_column=name), BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    line = Progress(*columns, console=err, transient=True, expand=True, disable=not err.is_terminal)
    row = line.add_task(task, total=None, pace="")
    began = time.monotonic()

    def show(what: str, done: int, total: int | None) -> None:
        line.start()  # does nothing where it runs already
        came, every, seconds = getattr(done, "nbytes", 0), getattr(total, "nbytes", 0), time.monotonic() - began
        pace = ""  # how fast the bytes go, and when the last will be through
        if came and seconds >= 1:
            left = round((every - came) * seconds / came)
            pace = f"{came / seconds / 1e6:,.0f} MB/s, {left // 60}:{left % 60:02d} left"
        most = max(err.width - BESIDE, 20)
        tail = what if len(what) <= most else f"...{what[-most:]}"
        line.update(row, description=escape(tail), completed=done, total=total, pace=pace)

    try:
        if at_once:
            line.start()
        yield show
    finally:
        line.stop()


@contextmanager
def stoppable(store: str | None) -> Iterator[None]:
    """SIGTERM ends as Ctrl-C does: worker processes end, locks are freed, half-written files go; the exit code is the shell's."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    except KeyboardInterrupt:
        say("stopped" + (f"; what was read is kept in {store}, run it again to go on" if store else ""), err)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Ctrl-C once stops, and what is under way is written down; from then on to the end of the process it changes nothing."""
    from psodlib.collector import Interrupted

    def stop(number: int, where: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)
    try:
        yield
    except KeyboardInterrupt as error:
        if isinstance(error, Interrupted):
            print_trusted(error.collection.trusted)
        say(f"stopped; what was fetched is kept in {folder}, run it again to go on", err)
        raise typer.Exit(130) from None


@contextmanager
def cluster_client(address: str | None, jobs: int | None) -> Iterator[Any]:
    """The client of a Dask cluster: at an address, or of workers of our own (``local``); None without an address."""
    if address is None:
        yield None
        return
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise InputError(f"--cluster needs Dask ({error}); in the checkout: pip install '.[cluster]'") from error
    with ExitStack() as opened:
        try:
            where: Any = address
            if address == "local":
                workers = jobs or os.cpu_count() or 1
                local = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0")  # type: ignore[no-untyped-call]
                where = opened.enter_context(local)
            client = opened.enter_context(Client(where, timeout=10))  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise InputError(f"{address}: no cluster there ({error}); expected tcp://host:8786 or local") from error
        yield client


def print_summary(fleet: Fleet) -> None:
    """What a load found: counts, crashes by culprit and version, the newest, the problems."""
    from psodlib.views.words import count

    if fleet.simulated:
        say("Simulated fleet: made up, not measured.")
    hosts, crashes, problems = fleet.hosts, fleet.crashes, fleet.problems
    days = fleet.uptimes.observed.dt.total_seconds().sum() / 86_400
    seen = f"{count(len(hosts), 'host')} ({hosts.first_seen.notna().sum()} with evidence)"
    say(f"{seen}, {count(len(crashes), 'crash', 'crashes')}, {days:,.0f} host-days observed")
    if len(crashes):
        names = ["guilty_module", "guilt", "kind", "driver_version"]
        counts = crashes.groupby(names, observed=True, dropna=False).size().rename("crashes").reset_index()
        print_table("Crashes", counts.sort_values("crashes", ascending=False, kind="stable").head(15))
        newest = crashes.sort_values("time", na_position="first").tail(NEWEST)
        newest = newest.assign(time=newest.time.dt.strftime("%Y-%m-%d %H:%M:%S"))
        columns = ["crash_id", "host", "time", "guilty_module", "signature"]
        print_table("The newest (psod explain CRASH_ID says why)", newest[columns])
    if len(problems):
        rows = problems.groupby("problem", observed=True)["source"].transform("size")
        firsts = problems.assign(rows=rows).drop_duplicates("problem")
        print_table("Problems", firsts[["problem", "rows", "source", "detail"]])


def print_news(store: str) -> None:
    """What a load added to the store, and what changed in the fleet since the load before."""
    from psodlib.fleet import Fleet
    from psodlib.store.folder import read_manifest
    from psodlib.triage.changes import fleet_changes, sentences

    told = read_manifest(Path(store)).news.items()
    news = ", ".join(what if count is True else f"{count:,} {what}" for what, count in told if count)
    say(f"Store {store}: {news or 'nothing is new'}")
    before = Fleet.before(store)
    if before is not None:
        for line in sentences(fleet_changes(before.tables, Fleet.open(store).tables)):
            say(f"Since the last load: {line}")


def print_trusted(lines: Sequence[str]) -> None:
    """The host keys that were taken on trust."""
    for line in lines:
        say(f"trusted on first use, compare it: {line}")


def end_collection(done: Any, output: Path) -> NoReturn:
    """How many hosts gave all, what the others lack; then the exit code."""
    print_trusted(done.trusted)
    hosts = done.hosts
    wanting, fetched = hosts[hosts["state"] != "complete"], f"{hosts['bytes'].sum():,} bytes fetched into {output}"
    came = hosts[hosts["bytes"] > 0].sort_values("bytes", ascending=False, kind="stable")
    if len(came):
        most = f", the {NEWEST} with most of {len(came)}" if len(came) > NEWEST else ""
        new = came.assign(**{"new bytes": came["bytes"].map("{:,}".format), "files in all": came["files"]}).head(NEWEST)
        print_table(f"New in this run{most}", new[["host", "new bytes", "files in all"]])
    say(f"{len(hosts) - len(wanting)} of {len(hosts)} hosts complete, {fetched}")
    if len(wanting):
        print_table("Not complete", wanting[["host", "state", "why"]])
    if done.stopped:
        say(f"Stopped: {done.stopped}")
    if hosts["files"].sum():
        say(f"Next: psod report {shlex.quote(str(output))} --store store")
    raise typer.Exit(0 if done.complete else 1)


def end_verify(title: str, table: pd.DataFrame) -> NoReturn:
    """Which host runs the pin; then the exit code: 0 all, 1 not all, 3 some are unknown."""
    print_trusted(table.attrs["trusted"])
    print_table(title, table)
    if table.attrs["stopped"]:
        say(f"Stopped: {table.attrs['stopped']}")
    found = set(table["status"])
    raise typer.Exit(1 if found - {"runs", "unknown"} else 3 if "unknown" in found else 0)


def print_anonymised(done: Any) -> None:
    """What was written anew, and what was left out."""
    say(f"{done.files} file{'s' * (done.files != 1)} in {done.folder}")
    if done.left_out:
        say(f"{len(done.left_out)} left out, because they cannot be checked; the mapping lists them all:")
    for place, why in done.left_out[:NEWEST]:
        say(f"  {place}: {why}")
    print_suspects(done)


def print_suspects(done: Any) -> None:
    """The file that can undo it, and what still looks like a name in what was written anew."""
    say(f"Keep this file to yourself, it can undo the renaming: {done.mapping}")
    if many := len(done.suspects):
        say(f"{many} word{'s' * (many != 1)} in it may be a name still; look at each, give it as --word or let it be:")
    for one in done.suspects[:SHOWN_SUSPECTS]:
        say(f"  {one.source}:{one.line}: {one.text} ({one.kind}, {f'{one.times} times' if one.times > 1 else 'once'})")
    if many > SHOWN_SUSPECTS:
        say(f"  and {many - SHOWN_SUSPECTS} more; all are in {done.mapping}")


def _nothing(fleet: Fleet) -> bool:
    return bool(fleet.hosts.empty and fleet.crashes.empty)


def _grave(fleet: Fleet, sources: Sequence[str | Path], store: str | None) -> dict[str, int]:
    # The problems that cost evidence, with their number. A log that was rotated away is none where a store has kept it.
    from psodlib.fleet import is_saved

    mild = MILD | {"vanished"} if store or any(map(is_saved, sources)) else MILD
    counts = fleet.problems.problem.value_counts().items()
    return {str(word): number for word, number in counts if number and word not in mild}


def end(fleet: Fleet, sources: Sequence[str | Path], store: str | None, failed: bool = False) -> NoReturn:
    """The exit code, and what a 1 is about: nothing was found, or a problem cost evidence."""
    wanted = "vmkernel or dump logs, command outputs, support bundles, screen text"
    why = [f"nothing useful was found; expected {wanted}"] if _nothing(fleet) else []
    if grave := ", ".join(f"{number} {word}" for word, number in _grave(fleet, sources, store).items()):
        why.append(f"some of it could not be read or believed ({grave}); the problems list it")
    if why:
        say(f"Exit code 1: {', and '.join(why)}.")
    raise typer.Exit(int(failed or bool(why)))


def end_report(written: Any, sources: Sequence[str | Path], store: str | None) -> NoReturn:
    """What the report says and what to open."""
    from psodlib.views.words import count

    fleet = written.fleet
    lost = int(((fleet.uptimes["end_reason"] == "crash") & fleet.uptimes["crash_id"].isna()).sum())
    more = f" and {lost} whose text is lost" if lost else ""
    say(f"{count(len(fleet.hosts), 'host')}, {count(len(fleet.crashes), 'crash', 'crashes')}{more}. {written.lead}")
    say(f"Open {written.index}; for management brief.pdf, for the vendor writeup.pdf, every crash in explorer.html")
    for name in written.failed:
        say(f"notebook {name} failed; its page says where")
    if store:
        print_news(store)
    end(fleet, sources, store, failed=bool(written.failed))
