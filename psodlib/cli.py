"""`psod`: parses words, calls the public functions, prints. The same words as in Python."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from psodlib.errors import InputError, PsodError

if TYPE_CHECKING:
    import pandas as pd

    from psodlib.fleet import Fleet

SHOWN_SUSPECTS = 40  # words that still look like a name

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

BESIDE = 60  # letters that the rest of a progress line takes
NEWEST = 10  # crashes listed one by one by `psod load`
# Problems that cost no evidence: worth a row in the table, not an exit code.
MILD = {"not_in_inventory", "unplaced_crash", "no_evidence", "unknown_format", "empty", "bad_line", "unused"}

Sources = Annotated[
    list[str],
    typer.Argument(help="Folders, files, archives or URLs of evidence; - reads standard input.", show_default=False),
]
Inventory = Annotated[
    Path | None, typer.Option(help="CSV with at least a column [b]host[/b]; cluster, model, users, vms are used.")
]
KnownIssues = Annotated[
    Path | None, typer.Option(help="Your own known issues (TOML), added to those that come with psodlib.")
]
Store = Annotated[str | None, typer.Option(help="Folder that keeps what was read: the next load reads only new files.")]
AllowLoss = Annotated[
    bool,
    typer.Option("--allow-loss", help="Load even if a tenth of the store's crashes or host-days would be lost."),
]
Jobs = Annotated[int | None, typer.Option(help="Processes to read with; default: as many as there are cores.")]
SomeHosts = Annotated[
    list[str] | None,
    typer.Argument(
        help="Host names, a file with one name per line, or an inventory CSV; not with [b]--vcenter[/b].",
        show_default=False,
    ),
]
VCenter = Annotated[
    str | None, typer.Option("--vcenter", help="Ask this vCenter (HOST or HOST:PORT) instead of the hosts.")
]
Thumbprint = Annotated[
    str | None, typer.Option(help="SHA-256 of the vCenter's certificate, if no authority signed it.")
]
Authorities = Annotated[Path | None, typer.Option("--ca-file", help="Authorities that sign the vCenter's certificate.")]
User = Annotated[str, typer.Option(help="Account on the hosts.")]
Key = Annotated[Path | None, typer.Option(help="Private key to log in with.")]
Agent = Annotated[bool, typer.Option("--agent", help="Ask the SSH agent for a key.")]
Ask = Annotated[bool, typer.Option("--ask-password", help="Ask for the password here, once.")]
Keyring = Annotated[
    str | None,
    typer.Option("--password-keyring", help="Take the password from the system's keyring, under this service."),
]
Command = Annotated[
    str | None, typer.Option("--password-command", help="Take it from a command, e.g. [b]pass show esxi/{user}[/b].")
]
Known = Annotated[Path, typer.Option(help="Host keys that are trusted.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust-first-use",
        help="Trust a host key that is not known yet, and print it. A changed key is always refused.",
    ),
]
Legacy = Annotated[list[str] | None, typer.Option(help="A host that may use SHA-1 (ESXi 5.x); may be repeated.")]
Jump = Annotated[str | None, typer.Option(help="Jump host to connect through.")]
Pool = Annotated[int, typer.Option(min=1, max=32, help="Hosts to connect to at the same time.")]
KeyFile = Annotated[
    Path | None,
    typer.Option(help="File with the key; created if missing. Without it you are asked for a passphrase."),
]
SiteWords = Annotated[
    list[str] | None,
    typer.Option(help="Another word to replace everywhere (a company or project name); may be repeated."),
]
Notes = Annotated[
    Path | None, typer.Option(help="Folder of the explorer's tags and notes; those of the crash go into its write-up.")
]
SiteFile = Annotated[
    Path | None, typer.Option(help="A private site.toml: its account and contract numbers go into the write-up.")
]
WithSite = Annotated[
    bool, typer.Option("--with-site", help="As --site, with the site.toml found in this folder or in your settings.")
]
Module = Annotated[str, typer.Option(help="The driver module in question.")]


@app.command(epilog="Example:  psod load evidence/ --inventory hosts.csv -o fleet/")
def load(
    sources: Sources,
    inventory: Inventory = None,
    known_issues: KnownIssues = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Save the tables there as Parquet.")] = None,
    jobs: Jobs = None,
    store: Store = None,
    cluster: Annotated[
        str | None, typer.Option(help="Read on a Dask cluster: its address (tcp://...), or [b]local[/b].")
    ] = None,
    allow_loss: AllowLoss = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Check every file of the store against its hash, and repair what is damaged."),
    ] = False,
) -> None:
    """Read evidence and print what is in it: crashes, driver versions, problems."""
    from psodlib.fleet import load as load_fleet

    with _stoppable(store), _cluster(cluster, jobs) as client, _bar("reading") as progress:
        fleet = load_fleet(
            *sources, inventory=inventory, known_issues=known_issues, jobs=jobs, client=client, store=store, progress=progress,
            allow_loss=allow_loss, verify=verify,
        )  # fmt: skip
    if output:
        fleet.save(output)
    _print_summary(fleet)
    if output:
        out.print(f"Tables saved in {escape(str(output))}")
    if store:
        _print_news(store)
    # That a log was rotated away is no trouble where the store has kept it.
    raise typer.Exit(_exit_code(fleet, MILD | {"vanished"} if store else MILD))


def _print_news(store: str) -> None:
    from psodlib.fleet import Fleet
    from psodlib.store.folder import read_manifest
    from psodlib.triage.changes import fleet_changes, sentences

    news = ", ".join(f"{count} {what}" for what, count in read_manifest(Path(store)).news.items() if int(count))
    out.print(f"Store {escape(store)}: {escape(news) or 'nothing is new'}", soft_wrap=True)
    before = Fleet.before(store)
    if before is not None:
        for line in sentences(fleet_changes(before.tables, Fleet.open(store).tables)):
            out.print(f"Since the last load: {escape(_plain(line))}", soft_wrap=True)


@contextmanager
def _stoppable(store: str | None) -> Iterator[None]:
    # SIGTERM ends as Ctrl-C does: worker processes end, locks are freed, half-written files go. The exit code is the shell's.
    def end(number: int, where: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        kept = f"; what was read is kept in {store}, run it again to go on" if store else ""
        err.print(f"stopped{escape(kept)}", soft_wrap=True)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _cluster(address: str | None, jobs: int | None) -> Iterator[Any]:
    if address is None:
        yield None
        return
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise InputError(
            f"--cluster needs Dask ({error}); install psodlib with its extra, from the checkout: pip install '.[cluster]'"
        ) from error
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


@app.command(epilog='Example:  psod sql store/ "select guilty_module, count(*) from crashes group by 1"')
def sql(
    store: Annotated[Path, typer.Argument(help="Folder of [b]psod load --store[/b].", show_default=False)],
    query: Annotated[str, typer.Argument(help="One SELECT over the tables of the store.", show_default=False)],
    form: Annotated[str, typer.Option("--format", help="table, csv or json (one object a line).")] = "table",
    rows: Annotated[int, typer.Option(min=1, help="Most rows to print.")] = 100_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="Longest time, in seconds.")] = 120,
) -> None:
    """Ask the store in SQL, read-only: the seven tables, coverage and ledger."""
    from psodlib.store.sql import ask

    if form not in ("table", "csv", "json"):
        raise InputError(f"--format {form}; expected table, csv or json")
    from psodlib.views.spreadsheet import csv_text

    found = ask(store, query, rows=rows, seconds=seconds)
    answer = found.table
    if found.cut:
        err.print(f"psod: only the first {len(answer):,} rows are shown; ask for less, or give --rows", style="yellow")
    if form == "table":
        _print_table(f"{len(answer):,} row{'s' * (len(answer) != 1)}", answer)
    elif form == "csv":
        sys.stdout.write(csv_text(answer))
    else:
        sys.stdout.write(answer.to_json(orient="records", lines=True, date_format="iso", date_unit="us"))


@app.command(epilog="Example:  psod report evidence/ --inventory hosts.csv --module hpsa -o report/")
def report(
    sources: Sources,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the report; created if missing.")] = Path(
        "report"
    ),
    inventory: Inventory = None,
    known_issues: KnownIssues = None,
    module: Annotated[
        str | None, typer.Option(help="The driver in question. Default: the one that the evidence points at.")
    ] = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option(help="A version to consider; may be repeated. Default: all that ran."),
    ] = None,
    crash_id: Annotated[
        str | None, typer.Option(help="Crash to write up. Default: the newest caused by the module.")
    ] = None,
    notes: Notes = None,
    site: SiteFile = None,
    with_site: WithSite = False,
    jobs: Jobs = None,
    store: Store = None,
    allow_loss: AllowLoss = False,
) -> None:
    """Run the notebooks on any source and write HTML, PDF, PNG, CSV and Parquet."""
    from psodlib.fleet import Fleet
    from psodlib.fleet import load as load_fleet
    from psodlib.views.report import report as write_report
    from psodlib.views.words import count

    with _stoppable(store), _bar("report") as progress:
        evidence: Any = sources
        if store:
            evidence = load_fleet(
                *sources, inventory=inventory, known_issues=known_issues, jobs=jobs, store=store, progress=progress,
                allow_loss=allow_loss,
            )  # fmt: skip
        written = write_report(
            evidence, output, before=Fleet.before(store) if store else None, inventory=inventory, known_issues=known_issues, module=module,
            candidates=candidate or None, crash_id=crash_id, notes=notes, site=_site(site, with_site), jobs=jobs, progress=progress,
        )  # fmt: skip
    found = f"{count(len(written.fleet.hosts), 'host')}, {count(len(written.fleet.crashes), 'crash', 'crashes')}"
    out.print(escape(_plain(f"{found}. {written.lead}")))
    out.print(
        f"Open {escape(str(written.index))}; for management brief.pdf, for the vendor writeup.pdf, every crash in explorer.html"
    )
    for name in written.failed:
        out.print(f"notebook {escape(name)} failed; its page says where")
    if store:
        _print_news(store)
    mild = MILD | {"truncated"} | ({"vanished"} if store else set())
    _print_why(written.fleet, mild)
    raise typer.Exit(1 if written.failed else _exit_code(written.fleet, mild))


@app.command(
    epilog="Exit code 0: go on. 1: hold. 2: wrong use. 3: stop.\n\nThe plan is made in Python: psodlib.plan_rollout(fleet, module, to).save('plan.toml')"
    "\n\nExample:  psod watch store/ --plan plan.toml"
)
def watch(
    source: Annotated[str, typer.Argument(help="A store or a saved fleet, as loaded last.", show_default=False)],
    plan: Annotated[Path, typer.Option(help="The plan of the roll-out (TOML).", show_default=False)],
    today: Annotated[str | None, typer.Option(help="Day of the look, as 2026-11-30. Default: now.")] = None,
    known_issues: KnownIssues = None,
) -> None:
    """Look at a running roll-out: who has moved, what crashed since, and go on, hold or stop."""
    from datetime import UTC, datetime

    from psodlib.fleet import Fleet
    from psodlib.risk.rollout import read_plan
    from psodlib.risk.rollout_watch import watch_rollout
    from psodlib.triage.known_issues import load_issues

    asked = read_plan(plan)
    issues = load_issues(*([known_issues] if known_issues else []))
    found = watch_rollout(Fleet.open(source), asked, today=today or datetime.now(UTC), issues=issues)
    out.print(f"[b]{found.word}[/b]")
    out.print(escape(_plain(found.sentence)), soft_wrap=True)
    for reason in found.reasons[1:]:
        out.print(f"  also: {escape(_plain(reason))}", soft_wrap=True)
    waves = found.waves.assign(
        week=found.waves["week"].dt.strftime("%Y-%m-%d"), host_days=found.waves["host_days"].round().astype(int)
    )
    always = {"wave", "week", "hosts", "moved", "not_moved", "crashes", "host_days"}
    shown = [name for name in waves if name in always or (name != "host_days_planned" and waves[name].any())]
    _print_table(f"{asked.module} to {asked.to}", waves[shown])
    if len(found.news):
        _print_table(
            "Never seen before", found.news[["crash_id", "host", "time", "signature", "known_issues", "similar"]]
        )
    if len(found.go_back):
        _print_table("Back, in this order; hosts of one turn may go at once", found.go_back)
    if found.decision is not None and found.word == "stop":
        out.print(f"The decision rule now: {escape(_plain(str(found.decision).splitlines()[0]))}", soft_wrap=True)
    if len(found.effect):
        _print_table("Measured, crashes a host-year with 95 % interval", found.effect.round(2))
    raise typer.Exit(found.exit_code)


@app.command(epilog="Example:  psod simulate made-up/ --hosts 60 --days 365 --seed 7")
def simulate(
    folder: Annotated[Path, typer.Argument(help="Where to write the evidence; must be new or empty.")],
    hosts: Annotated[int, typer.Option(min=1, help="Number of hosts.")] = 60,
    days: Annotated[int, typer.Option(min=1, help="Days of history.")] = 365,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 7,
    story: Annotated[str, typer.Option(help="What goes wrong: hpsa, nhpsa, i40en, smartpqi, or firmware.")] = "hpsa",
) -> None:
    """Write a made-up fleet with known truth, in real file formats."""
    from psodlib.simulate import simulate_fleet

    simulate_fleet(folder, hosts=hosts, days=days, seed=seed, story=story)
    out.print(
        f"Simulated fleet of {hosts} hosts in {escape(str(folder))}; the truth is in {escape(str(folder / 'truth'))}"
    )


@app.command(
    epilog="Exit code 0: everything was fetched. 1: something is missing, the table says why. 2: wrong use. 130: stopped by Ctrl-C; what came is "
    "kept, the next run goes on.\n\n"
    "Example:  psod collect hosts.csv -o evidence/ --key ~/.ssh/esxi --dry-run"
)
def collect(
    hosts: SomeHosts = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Evidence folder; a second run fetches only what is new.")
    ] = Path("evidence"),
    user: User = "root",
    key: Key = None,
    agent: Agent = False,
    ask_password: Ask = False,
    password_keyring: Keyring = None,
    password_command: Command = None,
    known_hosts: Known = Path("known_hosts"),
    trust_first_use: Trust = False,
    legacy: Legacy = None,
    jump: Jump = None,
    module: Module = "hpsa",
    pool: Pool = 8,
    connect: Annotated[float, typer.Option(help="Longest time to connect, in seconds.")] = 10,
    login: Annotated[float, typer.Option(help="Longest time to log in, in seconds.")] = 30,
    idle: Annotated[float, typer.Option(help="Longest silence, in seconds.")] = 60,
    total: Annotated[float, typer.Option(help="Longest time per host, in seconds.")] = 1800,
    max_bytes: Annotated[int, typer.Option(help="Most bytes per host.")] = 4 << 30,
    no_sftp: Annotated[bool, typer.Option("--no-sftp", help="Read files through the shell.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the hosts, what would be fetched, and the load on them.")
    ] = False,
    vcenter: VCenter = None,
    thumbprint: Thumbprint = None,
    ca_file: Authorities = None,
    bundles: Annotated[
        bool, typer.Option("--bundles", help="With --vcenter: also a support bundle of each host.")
    ] = False,
) -> None:
    """Fetch the evidence of many hosts by SSH or from their vCenter: read-only, and can be resumed."""
    from psodlib import collector

    password = _password(ask_password, password_keyring, password_command)
    if vcenter:
        if hosts:
            raise InputError("give hosts or --vcenter, not both")
        with _resumable(output), _bar("collecting", at_once=False) as progress:
            _print_collection(
                collector.collect_vcenter(
                    vcenter, output, user=user, password=password or collector.ask_password(), thumbprint=thumbprint, ca_file=ca_file,
                    bundles=bundles, progress=progress,
                ), output,
            )  # fmt: skip
    source = _named_hosts(hosts)
    if dry_run:
        targets = collector.read_hosts(source, legacy=legacy or [], jump=jump)
        plan = collector.plan_table(module)
        _print_table("What would be fetched", plan)
        out.print(
            f"from {len(targets)} hosts: {escape(', '.join(target.name for target in targets[:20]))}{' ...' if len(targets) > 20 else ''}"
        )
        return
    limits = collector.Limits(connect=connect, login=login, idle=idle, total=total, bytes=max_bytes)
    with _resumable(output), _bar("collecting", at_once=False) as progress:
        done = collector.collect(
            source, output, user=user, key=key, agent=agent, password=password, known_hosts=known_hosts,
            trust_first_use=trust_first_use, legacy=legacy or [], jump=jump, module=module, pool=pool, limits=limits,
            sftp=not no_sftp, progress=progress,
        )  # fmt: skip
    _print_trusted(done.trusted)
    _print_collection(done, output)


def _print_collection(done: Any, output: Path) -> NoReturn:
    # How many hosts gave all, what the others lack; then the exit code.
    wanting = done.hosts[done.hosts["state"] != "complete"]
    out.print(
        f"{len(done.hosts) - len(wanting)} of {len(done.hosts)} hosts complete, {done.hosts['bytes'].sum():,} bytes fetched into {escape(str(output))}",
        soft_wrap=True,
    )
    if len(wanting):
        _print_table("Not complete", wanting[["host", "state", "why"]])
    if done.stopped:
        out.print(f"Stopped: {escape(_plain(done.stopped))}", soft_wrap=True)
    raise typer.Exit(0 if done.complete else 1)


def _named_hosts(hosts: list[str] | None) -> str | list[str]:
    if not hosts:
        raise InputError("no host was named; give host names, a file of them, an inventory, or --vcenter")
    return hosts[0] if len(hosts) == 1 else hosts


@app.command(name="hosts", epilog="Example:  psod hosts --vcenter vc.example.com --user reader > hosts.csv")
def hosts_of_vcenter(
    vcenter: Annotated[str, typer.Option("--vcenter", help="HOST or HOST:PORT of the vCenter.", show_default=False)],
    user: User = "administrator@vsphere.local",
    password_keyring: Keyring = None,
    password_command: Command = None,
    thumbprint: Thumbprint = None,
    ca_file: Authorities = None,
) -> None:
    """Print a vCenter's hosts as an inventory: host, cluster, model, version, connection state."""
    from psodlib import collector
    from psodlib.views.spreadsheet import csv_text

    password = _password(True, password_keyring, password_command)
    table = collector.vcenter_hosts(vcenter, user=user, password=password, thumbprint=thumbprint, ca_file=ca_file)
    sys.stdout.write(csv_text(table))


@app.command(
    epilog="Exit code 0: every host runs the pin. 1: at least one does not, or will not after its next boot. 2: wrong use. 3: no host "
    "is known to differ, but some could not be asked or did not tell. 130: stopped by Ctrl-C.\n\n"
    "Example:  psod verify hosts.csv --module hpsa --pin 5.5.0.50 --key ~/.ssh/esxi"
)
def verify(
    hosts: SomeHosts = None,
    pin: Annotated[str, typer.Option(help="The version that every host should run.", show_default=False)] = "",
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for what is read from the hosts.")] = Path(
        "evidence-verify"
    ),
    user: User = "root",
    key: Key = None,
    agent: Agent = False,
    ask_password: Ask = False,
    password_keyring: Keyring = None,
    password_command: Command = None,
    known_hosts: Known = Path("known_hosts"),
    trust_first_use: Trust = False,
    legacy: Legacy = None,
    jump: Jump = None,
    module: Module = "hpsa",
    pool: Pool = 8,
    vcenter: VCenter = None,
    thumbprint: Thumbprint = None,
    ca_file: Authorities = None,
) -> None:
    """Ask each host, or the vCenter, which driver version runs, and compare it with the pin."""
    from psodlib import collector

    if not pin:
        raise InputError("no --pin was given; expected the version that every host should run, as 5.5.0.50")
    password = _password(ask_password, password_keyring, password_command)
    if vcenter:
        _verify_vcenter(vcenter, output, module, pin, collector.collect_vcenter, {
            "user": user, "password": password or collector.ask_password(), "thumbprint": thumbprint, "ca_file": ca_file, "logs": False,
        })  # fmt: skip
    source = _named_hosts(hosts)
    with _resumable(output), _bar("asking", at_once=False) as progress:
        table = collector.verify(
            source, output, module=module, pin=pin, user=user, key=key, agent=agent,
            password=password, known_hosts=known_hosts, trust_first_use=trust_first_use, legacy=legacy or [], jump=jump,
            pool=pool, progress=progress,
        )  # fmt: skip
    _print_trusted(table.attrs["trusted"])
    _print_table(f"{module} against the pin {pin}", table)
    if table.attrs["stopped"]:
        out.print(f"Stopped: {escape(_plain(table.attrs['stopped']))}", soft_wrap=True)
    found = set(table["status"])
    raise typer.Exit(1 if found - {"runs", "unknown"} else 3 if "unknown" in found else 0)


def _verify_vcenter(
    vcenter: str, output: Path, module: str, pin: str, collect: Any, options: dict[str, Any]
) -> NoReturn:
    # What vCenter knows is mostly what is installed; what a boot has loaded it knows only where it can ask for modules.
    from psodlib.fleet import load as load_fleet
    from psodlib.triage.compliance import fleet_compliance

    with _bar("asking", at_once=False) as progress:
        done = collect(vcenter, output, progress=progress, **options)
    fleet = load_fleet(output)
    table = fleet_compliance(fleet, module, pin)
    loose = table["driver_evidence"].isin(["vib_of_boot", "esxupdate_before_boot", "install_date"])
    table["why"] = ["installed; whether the host booted since is not known" if one else "" for one in loose]
    _print_table(
        f"{module} against the pin {pin}", table[["host", "version", "driver_evidence", "waiting", "status", "why"]]
    )
    if done.stopped:
        out.print(f"Missing: {escape(_plain(done.stopped))}", soft_wrap=True)
    found = set(table["status"])
    raise typer.Exit(1 if found - {"runs", "unknown"} else 3 if "unknown" in found else 0)


def _password(ask: bool, keyring: str | None, command: str | None) -> Any:
    # Where the password comes from; it never stands on a command line.
    import shlex

    from psodlib import collector

    if command:
        try:
            return collector.password_from_command(shlex.split(command))
        except ValueError as error:
            raise InputError(
                f"--password-command: {error}; it is split into words as a shell would, but no shell runs it"
            ) from None
    if keyring:
        return collector.password_from_keyring(keyring)
    return collector.ask_password() if ask else None


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    # Ctrl-C once stops, and what is under way is written down; from then on to the end of the process it changes nothing.
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
            _print_trusted(error.collection.trusted)
        err.print(f"stopped; what was fetched is kept in {escape(str(folder))}, run it again to go on", soft_wrap=True)
        raise typer.Exit(130) from None


def _print_trusted(lines: Sequence[str]) -> None:
    for line in lines:
        out.print(f"trusted on first use, compare it: {escape(_plain(line))}", soft_wrap=True)


@app.command(epilog="Example:  psod explain 3f2a90c1d4e5b677 evidence/")
def explain(
    crash_id: Annotated[str, typer.Argument(help="Crash id, or its first digits.")],
    sources: Sources,
) -> None:
    """Say why a crash has its signature and its guilty module."""
    from psodlib.fleet import explain_crash

    for line in explain_crash(crash_id, *sources).split("\n"):
        out.print(_plain(line), markup=False, soft_wrap=True)


@app.command(epilog="Example:  psod anonymise evidence/ --inventory hosts.csv --key-file secret.key -o to-vendor/")
def anonymise(
    sources: Annotated[
        list[str], typer.Argument(help="Folders and files: evidence, a saved fleet, a report.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="New folder to write; the mapping is written beside it.")
    ],
    key_file: KeyFile = None,
    inventory: Inventory = None,
    word: SiteWords = None,
) -> None:
    """Copy evidence with all names of hosts, users and places replaced; the same key gives the same names every time.

    Not seen: names inside base64. Links in tars are not written.
    """
    from psodlib.anonymiser import anonymise as write_anew

    key = _key(key_file)
    with _bar("replacing names") as progress:
        done = write_anew(*sources, out=output, key=key, inventory=inventory, words=word or (), progress=progress)
    out.print(
        f"{done.files} files in {escape(str(done.folder))}. Keep this file to yourself, it can undo the renaming: {escape(str(done.mapping))}"
    )
    _print_left_out(done.left_out)
    if done.suspects:
        out.print(
            f"{len(done.suspects)} words in it still look like a name; look at each, then give it as --word or let it be:"
        )
        for one in done.suspects[:SHOWN_SUSPECTS]:
            out.print(
                f"  {escape(one.source)}:{one.line}: {escape(one.text)} ({one.kind}, {one.times} times)", soft_wrap=True
            )
        if len(done.suspects) > SHOWN_SUSPECTS:
            out.print(f"  and {len(done.suspects) - SHOWN_SUSPECTS} more; all are in {escape(str(done.mapping))}")
    raise typer.Exit(1 if done.left_out or done.suspects else 0)


@app.command(epilog="Example:  psod case 75b6d986 evidence/ -o case.zip --anonymise --key-file secret.key")
def case(
    crash_id: Annotated[str, typer.Argument(help="Crash id, or its first digits.")],
    sources: Sources,
    output: Annotated[Path, typer.Option("-o", "--output", help="The zip to write.")] = Path("case.zip"),
    inventory: Inventory = None,
    known_issues: KnownIssues = None,
    notes: Notes = None,
    site: SiteFile = None,
    with_site: WithSite = False,
    anonymise: Annotated[
        bool, typer.Option("--anonymise", help="Replace all host and user names, and every other name of your site.")
    ] = False,
    key_file: KeyFile = None,
    word: SiteWords = None,
) -> None:
    """Zip what a vendor asks for about one crash: its text, the log around it, versions, timeline and write-up."""
    from psodlib.views.case import case as write_case

    if (key_file or word) and not anonymise:
        raise InputError(
            "--key-file and --word go with --anonymise; without it the case would hold every name as it is"
        )
    key = _key(key_file) if anonymise else None
    done = write_case(
        crash_id, *sources, out=output, inventory=inventory, known_issues=known_issues, notes=notes, site=_site(site, with_site),
        key=key, words=word or (),
    )  # fmt: skip
    out.print(f"{len(done.hashes)} files in {escape(str(done.file))}")
    if done.mapping:
        out.print(f"Keep this file to yourself, it can undo the renaming: {escape(str(done.mapping))}")


def _site(file: Path | None, asked: bool) -> Path | None:
    from psodlib.views.site import find_site

    return file or (find_site() if asked else None)


def _print_left_out(left_out: Sequence[tuple[str, str]]) -> None:
    if left_out:
        out.print(f"{len(left_out)} left out, because they cannot be checked; the mapping lists them all:")
    for place, why in left_out[:NEWEST]:
        out.print(f"  {escape(_plain(place))}: {escape(_plain(why))}")


def _key(file: Path | None) -> bytes:
    # A file, or words typed here, twice; they never stand on a command line.
    from psodlib.anonymiser import key_from_passphrase, read_key

    if file is not None:
        return read_key(file)
    return key_from_passphrase(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True))


@app.command(epilog="Example:  psod lab store/ --folder my-case")
def lab(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Evidence, a store or a saved fleet for the notebooks. Default: the demo.", show_default=False
        ),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Working copy of the notebooks; git ignores the default folder.")] = Path(
        "work-notebooks"
    ),
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
) -> None:
    """Open JupyterLab on a working copy of the notebooks, so that no real host name reaches the committed ones."""
    from psodlib.views.notebooks import notebook_folder, set_source

    folder.mkdir(parents=True, exist_ok=True)
    for notebook in sorted(file for file in notebook_folder().iterdir() if file.suffix in (".ipynb", ".py")):
        if not (folder / notebook.name).exists():
            shutil.copy(notebook, folder)
    if source is not None:
        set_source(folder, source)
    command = [sys.executable, "-m", "jupyterlab", str(folder)]
    command += [] if browser else ["--no-browser"]
    command += (
        ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    )  # jupyter refuses root otherwise
    raise typer.Exit(subprocess.call(command))


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from psodlib import __version__

        out.print(f"psodlib {__version__}")
        raise typer.Exit()


@contextmanager
def _bar(task: str, at_once: bool = True) -> Iterator[Any]:
    # A bar on a terminal, nothing in a pipe; the callback takes (what, done, total). Not at once where the first thing may be
    # a question, over which a bar would write.
    name = Column(ratio=1, no_wrap=True)  # what gives way on a narrow terminal
    columns = (
        TextColumn("{task.description}", table_column=name), BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    bar = Progress(*columns, console=err, transient=True, expand=True, disable=not err.is_terminal)
    row = bar.add_task(task, total=None, pace="")
    began = time.monotonic()

    def show(what: str, done: int, total: int | None) -> None:
        bar.start()  # does nothing where it runs already
        pace = _pace(getattr(done, "nbytes", 0), getattr(total, "nbytes", 0), time.monotonic() - began)
        most = max(err.width - BESIDE, 20)
        tail = what if len(what) <= most else f"...{what[-most:]}"
        bar.update(row, description=escape(tail), completed=done, total=total, pace=pace)

    try:
        if at_once:
            bar.start()
        yield show
    finally:
        bar.stop()


def _pace(done: int, total: int, seconds: float) -> str:
    # How fast the bytes go, and when the last will be through.
    if not done or seconds < 1:
        return ""
    left = round((total - done) * seconds / done)
    return f"{done / seconds / 1e6:,.0f} MB/s, {left // 60}:{left % 60:02d} left"


def _print_summary(fleet: Fleet) -> None:
    if fleet.simulated:
        out.print("Simulated fleet: made up, not measured.")
    seen = fleet.hosts.first_seen.notna().sum()
    days = fleet.uptimes.observed.dt.total_seconds().sum() / 86_400
    crashes = "1 crash" if len(fleet.crashes) == 1 else f"{len(fleet.crashes)} crashes"
    hosts = "1 host" if len(fleet.hosts) == 1 else f"{len(fleet.hosts)} hosts"
    out.print(f"{hosts} ({seen} with evidence), {crashes}, {days:,.0f} host-days observed")
    if fleet.hosts.empty and fleet.crashes.empty:
        out.print(
            "Nothing useful was found: expected vmkernel logs, dump logs (text), command outputs, vm-support bundles or screen text."
        )
    if len(fleet.crashes):
        names = ["guilty_module", "guilt", "kind", "driver_version"]
        counts = fleet.crashes.groupby(names, observed=True, dropna=False).size().rename("crashes").reset_index()
        _print_table("Crashes", counts.sort_values("crashes", ascending=False, kind="stable").head(15))
        newest = fleet.crashes.sort_values("time", na_position="first").tail(NEWEST)
        newest = newest.assign(time=newest.time.dt.strftime("%Y-%m-%d %H:%M:%S"))
        _print_table(
            "The newest (psod explain CRASH_ID says why)",
            newest[["crash_id", "host", "time", "guilty_module", "signature"]],
        )
    if len(fleet.problems):
        told = fleet.problems.assign(rows=fleet.problems.groupby("problem", observed=True)["source"].transform("size"))
        _print_table("Problems", told.drop_duplicates("problem")[["problem", "rows", "source", "detail"]])


def _print_table(title: str, table: pd.DataFrame) -> None:
    from pandas import isna

    shown = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in table.columns:
        shown.add_column(escape(_plain(str(name))), overflow="fold")
    for row in table.itertuples(index=False):
        shown.add_row(*("-" if isna(value) else escape(_plain(str(value))) for value in row))
    out.print(shown)


def _plain(text: str) -> str:
    # Log text may hold terminal escapes: what cannot be printed is shown as a code.
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _exit_code(fleet: Fleet, mild: set[str] = MILD) -> int:
    nothing = fleet.hosts.empty and fleet.crashes.empty
    return int(nothing or bool(set(fleet.problems.problem.dropna()) - mild))


def _print_why(fleet: Fleet, mild: set[str]) -> None:
    # What an exit code of 1 is about.
    if fleet.hosts.empty and fleet.crashes.empty:
        out.print("Exit code 1: nothing useful was found in the sources.")
    counts = fleet.problems.problem.value_counts()
    grave = [f"{count} {word}" for word, count in counts.items() if count and word not in mild]
    if grave:
        out.print(
            f"Exit code 1: some of it could not be read or believed ({', '.join(grave)}); the table of problems lists it."
        )


def _warn(message: Warning | str, *where: Any, **more: Any) -> None:
    err.print(f"psod: {_plain(str(message))}", style="yellow", markup=False, soft_wrap=True)


def main() -> None:
    """Run `psod`; an error that the user can mend is one line and exit code 2."""
    warnings.showwarning = _warn  # in words alone, without the line of ours that warned
    try:
        app()
    except PsodError as error:
        err.print(f"psod: {error}", style="red", markup=False, soft_wrap=True)
        raise SystemExit(2) from None
