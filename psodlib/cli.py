"""`psod`: parses words, calls the public functions, prints. The same words as in Python."""

from __future__ import annotations

import inspect
import os
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from psodlib.console import (  # isort: skip
    NEWEST, bar, cluster_client, end_collection, end_report, end_verify, end, err, out, print_anonymised,
    print_news, print_summary, print_suspects, print_table, resumable, say, stoppable,
)  # fmt: skip
from psodlib.errors import InputError, PsodError, in_words

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="From a folder of ESXi crash evidence to a driver-pinning decision.",
    epilog="Exit code 0: done. 1: done, with problems that you should see. 2: wrong use.",
)
_PLACES = Argument(help="Folders, files, archives, URLs; - is standard input.", show_default=False)
Sources = Annotated[list[str], _PLACES]
SomeSources = Annotated[list[str] | None, _PLACES]
CrashId = Annotated[str, Argument(help="Crash id, or its first digits.")]
Inventory = Annotated[Path | None, Option(help="CSV with a column [b]host[/b]; cluster, model, users, vms are used.")]
KnownIssues = Annotated[Path | None, Option(help="Your own known issues (TOML), added to those of psodlib.")]
Store = Annotated[str | None, Option(help="Folder that keeps what was read: the next load reads only new files.")]
AllowLoss = Annotated[bool, Option("--allow-loss", help="Load even if a tenth of the store would be lost.")]
Jobs = Annotated[int | None, Option(min=1, help="Processes to read with; default: as many as there are cores.")]
_HOSTS = Argument(help="Hosts, a file of them, or an inventory (.csv, .xlsx)", show_default=False)
SomeHosts = Annotated[list[str] | None, _HOSTS]
VCenter = Annotated[str | None, Option("--vcenter", help="Ask this vCenter (HOST or HOST:PORT) instead of the hosts.")]
Thumbprint = Annotated[str | None, Option(help="SHA-256 of the vCenter's certificate, if no authority signed it.")]
Authorities = Annotated[Path | None, Option("--ca-file", help="Authorities that sign the vCenter's certificate.")]
User = Annotated[str, Option(help="Account on the hosts.")]
Key = Annotated[Path | None, Option(help="Private key to log in with.")]
Agent = Annotated[bool, Option("--agent", help="Ask the SSH agent for a key.")]
Ask = Annotated[bool, Option("--ask-password", help="Ask for the password here, once.")]
Keyring = Annotated[str | None, Option("--password-keyring", help="From the system's keyring, under this service.")]
Command = Annotated[str | None, Option("--password-command", help="From a command, e.g. [b]pass show esxi/{user}[/b].")]
Known = Annotated[Path, Option(help="Host keys that are trusted.")]
Trust = Annotated[bool, Option("--trust-first-use", help="Trust an unknown host key, print it; never a changed one.")]
Legacy = Annotated[list[str] | None, Option(help="A host that may use SHA-1 (ESXi 5.x); may be repeated.")]
Jump = Annotated[str | None, Option(help="Jump host to connect through.")]
Pool = Annotated[int, Option(min=1, max=32, help="Hosts to connect to at the same time.")]
KeyFile = Annotated[Path | None, Option(help="File of the key, made if missing; else you are asked for a passphrase.")]
SiteWords = Annotated[list[str] | None, Option(help="Another word to replace (a company, a project); may be repeated.")]
Notes = Annotated[Path | None, Option(help="Folder of the explorer's notes; those of the crash go into its write-up.")]
SiteFile = Annotated[Path | None, Option(help="A private site.toml, whose account and contract go into the write-up.")]
WithSite = Annotated[bool, Option("--with-site", help="As --site, with the site.toml of this folder or your settings.")]
Module = Annotated[str, Option(help="The driver module in question.")]


@app.command(epilog="Example:  psod load evidence/ --inventory hosts.csv -o fleet/")
def load(
    sources: Sources, inventory: Inventory = None, known_issues: KnownIssues = None,
    output: Annotated[Path | None, Option("-o", "--output", help="Save the tables there as Parquet.")] = None,
    jobs: Jobs = None, store: Store = None,
    cluster: Annotated[str | None, Option(help="Dask cluster to read on: tcp://..., or [b]local[/b].")] = None,
    allow_loss: AllowLoss = False,
    verify: Annotated[bool, Option("--verify", help="Check the store's files, and mend what is damaged.")] = False,
) -> None:  # fmt: skip
    """Read evidence and print what is in it: crashes, driver versions, problems."""
    from psodlib.fleet import load as load_fleet

    with stoppable(store), cluster_client(cluster, jobs) as client, bar("reading") as progress:
        fleet = load_fleet(
            *sources, inventory=inventory, known_issues=known_issues, jobs=jobs, client=client, store=store, progress=progress,
            allow_loss=allow_loss, verify=verify,
        )  # fmt: skip
    print_summary(fleet)
    if output:
        fleet.save(output)
        say(f"Tables saved in {output}")
    if store:
        print_news(store)
    end(fleet, sources, store)


@app.command(epilog='Example:  psod sql store/ "select guilty_module, count(*) from crashes group by 1"')
def sql(
    store: Annotated[Path, Argument(help="Folder of [b]psod load --store[/b].", show_default=False)],
    query: Annotated[str, Argument(help="One SELECT over the tables of the store.", show_default=False)],
    form: Annotated[str, Option("--format", help="table, csv or json (one object a line).")] = "table",
    rows: Annotated[int, Option(min=1, help="Most rows to print.")] = 100_000,
    seconds: Annotated[float, Option(min=0.1, help="Longest time, in seconds.")] = 120,
) -> None:
    """Ask the store in SQL, read-only: the seven tables, coverage and ledger."""
    from psodlib.store.sql import ask
    from psodlib.views.spreadsheet import csv_text

    if form not in ("table", "csv", "json"):
        raise InputError(f"--format {form}; expected table, csv or json")
    found = ask(store, query, rows=rows, seconds=seconds)
    answer = found.table
    if found.cut:
        err.print(f"psod: only the first {len(answer):,} rows are shown; ask for less, or give --rows", style="yellow")
    if form == "table":
        print_table(f"{len(answer):,} row{'s' * (len(answer) != 1)}", answer)
    elif form == "csv":
        print(csv_text(answer), end="", file=out.file, flush=True)
    else:
        lines = answer.to_json(orient="records", lines=True, date_format="iso", date_unit="us")
        print(lines, end="", file=out.file, flush=True)


@app.command(epilog="Example:  psod report evidence/ --inventory hosts.csv --module hpsa -o report/")
def report(
    sources: Sources, output: Annotated[Path, Option("-o", "--output", help="Folder for the report.")] = Path("report"),
    inventory: Inventory = None, known_issues: KnownIssues = None,
    module: Annotated[str | None, Option(help="The driver. Default: the one that the evidence points at.")] = None,
    candidate: Annotated[list[str] | None, Option(help="Version to weigh; may be repeated. Default: all.")] = None,
    crash_id: Annotated[str | None, Option(help="Crash to write up. Default: the newest caused by the module.")] = None,
    plan: Annotated[Path | None, Option(help="Plan of a running roll-out (TOML), for the brief.")] = None,
    notes: Notes = None, site: SiteFile = None, with_site: WithSite = False, jobs: Jobs = None, store: Store = None,
    allow_loss: AllowLoss = False,
) -> None:  # fmt: skip
    """Run the notebooks on any source and write HTML, PDF, PNG, CSV and Parquet."""
    from psodlib.fleet import Fleet
    from psodlib.fleet import load as load_fleet
    from psodlib.views.report import report as write_report

    with stoppable(store), bar("report") as progress:
        evidence: Any = sources
        if store:
            evidence = load_fleet(
                *sources, inventory=inventory, known_issues=known_issues, jobs=jobs, store=store, progress=progress,
                allow_loss=allow_loss,
            )  # fmt: skip
        written = write_report(
            evidence, output, inventory=inventory, known_issues=known_issues, module=module,
            candidates=candidate or None, crash_id=crash_id, notes=notes, site=_site(site, with_site), jobs=jobs, plan=plan,
            before=Fleet.before(store) if store else None, progress=progress,
        )  # fmt: skip
    end_report(written, sources, store)


@app.command(
    epilog="Exit code 0: go on. 1: hold. 2: wrong use. 3: stop.\n\nThe plan is made in Python: psodlib.plan_rollout(fleet, module, to).save('plan.toml')"
    "\n\nExample:  psod watch store/ --plan plan.toml"
)
def watch(
    source: Annotated[str, Argument(help="A store or a saved fleet, as loaded last.", show_default=False)],
    plan: Annotated[Path, Option(help="The plan of the roll-out (TOML).", show_default=False)],
    today: Annotated[str | None, Option(help="Day of the look, as 2026-11-30. Default: now.")] = None,
    known_issues: KnownIssues = None,
) -> None:
    """Look at a running roll-out: who has moved, what crashed since, and go on, hold or stop."""
    from pandas import Timestamp

    from psodlib.fleet import Fleet
    from psodlib.risk.rollout import read_plan
    from psodlib.risk.rollout_watch import watch_rollout
    from psodlib.triage.known_issues import load_issues

    asked = read_plan(plan)
    issues = load_issues(*([known_issues] if known_issues else []))
    found = watch_rollout(Fleet.open(source), asked, today=today or Timestamp.now("UTC"), issues=issues)
    out.print(f"[b]{found.word}[/b]")
    say(found.sentence)
    for reason in found.reasons[1:]:
        say(f"  also: {reason}")
    waves = found.waves.assign(host_days=found.waves["host_days"].round().astype(int))
    waves["week"] = waves["week"].dt.strftime("%Y-%m-%d")
    always = {"wave", "week", "hosts", "moved", "not_moved", "crashes", "host_days"}
    shown = [name for name in waves if name in always or (name != "host_days_planned" and waves[name].any())]
    print_table(f"{asked.module} to {asked.to}", waves[shown])
    if len(found.news):
        columns = ["crash_id", "host", "time", "signature", "known_issues", "similar"]
        print_table("Never seen before", found.news[columns])
    if len(found.go_back):
        print_table("Back, in this order; hosts of one turn may go at once", found.go_back)
    if found.decision is not None and found.word == "stop":
        say(f"The decision rule now: {str(found.decision).splitlines()[0]}")
    if len(found.effect):
        print_table("Measured, crashes a host-year with 95 % interval", found.effect.round(2))
    raise typer.Exit(found.exit_code)


@app.command(epilog="Example:  psod simulate made-up/ --hosts 60 --days 365 --seed 7")
def simulate(
    folder: Annotated[Path, Argument(help="Where to write the evidence; must be new or empty.")],
    hosts: Annotated[int, Option(min=1, help="Number of hosts.")] = 60,
    days: Annotated[int, Option(min=1, help="Days of history.")] = 365,
    seed: Annotated[int, Option(help="The same seed gives the same bytes.")] = 7,
    story: Annotated[str, Option(help="What goes wrong: hpsa, nhpsa, i40en, smartpqi, or firmware.")] = "hpsa",
) -> None:
    """Write a made-up fleet with known truth, in real file formats."""
    from psodlib.simulate import simulate_fleet

    simulate_fleet(folder, hosts=hosts, days=days, seed=seed, story=story)
    say(f"Simulated fleet of {hosts} hosts in {folder}; the truth is in {folder / 'truth'}")


# ---- hosts, and how they are reached -----------------------------------------------------------------------------------


def _reach(
    user: User = "root", key: Key = None, agent: Agent = False, ask_password: Ask = False, password_keyring: Keyring = None,
    password_command: Command = None, known_hosts: Known = Path("known_hosts"), trust_first_use: Trust = False,
    legacy: Legacy = None, jump: Jump = None, vcenter: VCenter = None, thumbprint: Thumbprint = None, ca_file: Authorities = None,
) -> dict[str, Any]:  # fmt: skip
    # What `collect` and `verify` both take; with an "address" it is the vCenter's.
    password = _password(ask_password, password_keyring, password_command)
    if vcenter:
        password = password or _password(True, None, None)
        return {"address": vcenter, "user": user, "password": password, "thumbprint": thumbprint, "ca_file": ca_file}
    return {"user": user, "key": key, "agent": agent, "password": password, "known_hosts": known_hosts,
            "trust_first_use": trust_first_use, "legacy": legacy or [], "jump": jump}  # fmt: skip


def _reaching(command: Callable[..., None]) -> Callable[..., None]:
    # The command with the options of `_reach` behind its own; it is given what these say as `reach`.
    own, shared = ({**inspect.signature(one, eval_str=True).parameters} for one in (command, _reach))
    del own["reach"]

    def run(**told: Any) -> None:
        command(**{name: told[name] for name in own}, reach=_reach(**{name: told[name] for name in shared}))

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {name: each.annotation for name, each in {**own, **shared}.items()}
    run.__signature__ = inspect.Signature([*own.values(), *shared.values()])  # type: ignore[attr-defined]
    return run


@app.command(
    epilog="Exit code 0: everything was fetched. 1: something is missing, the table says why. 2: wrong use. 130: stopped by Ctrl-C; what came is "
    "kept, the next run goes on.\n\n"
    "Example:  psod collect hosts.csv -o evidence/ --key ~/.ssh/esxi --dry-run"
)
@_reaching
def collect(
    reach: dict[str, Any], hosts: SomeHosts = None,
    output: Annotated[Path, Option("-o", "--output", help="Evidence folder; each run adds to it.")] = Path("evidence"),
    module: Module = "hpsa", pool: Pool = 8,
    connect: Annotated[float, Option(help="Longest time to connect, in seconds.")] = 10,
    login: Annotated[float, Option(help="Longest time to log in, in seconds.")] = 30,
    idle: Annotated[float, Option(help="Longest silence, in seconds.")] = 60,
    total: Annotated[float, Option(help="Longest time per host, in seconds.")] = 1800,
    max_bytes: Annotated[int, Option(help="Most bytes per host.")] = 4 << 30,
    no_sftp: Annotated[bool, Option("--no-sftp", help="Read files through the shell.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Only print the hosts and what would be fetched.")] = False,
    bundles: Annotated[bool, Option("--bundles", help="With --vcenter: also a support bundle of each host.")] = False,
) -> None:  # fmt: skip
    """Fetch the evidence of many hosts by SSH or from their vCenter: read-only, and can be resumed."""
    from psodlib import collector

    source = _named_hosts(hosts, reach)
    if source and bundles:
        raise InputError("--bundles goes with --vcenter: only a vCenter makes support bundles")
    if dry_run:
        if not source:
            plan, names = collector.vcenter_plan(), list(collector.vcenter_hosts(**reach)["host"])
        else:
            targets = collector.read_hosts(source, legacy=reach["legacy"], jump=reach["jump"])
            plan, names = collector.plan_table(module), [each.name for each in targets]
        print_table("What would be fetched", plan)
        say(f"from {len(names)} hosts: {', '.join(names[:20])}{' ...' if len(names) > 20 else ''}")
        return
    limits = collector.Limits(connect=connect, login=login, idle=idle, total=total, bytes=max_bytes)
    with resumable(output), bar("collecting", at_once=False) as progress:
        if not source:
            done = collector.collect_vcenter(out=output, bundles=bundles, pool=pool, progress=progress, **reach)
        else:
            how = {"module": module, "limits": limits, "sftp": not no_sftp, **reach}
            done = collector.collect(source, output, pool=pool, progress=progress, **how)
    end_collection(done, output)


def _named_hosts(hosts: list[str] | None, reach: dict[str, Any]) -> str | list[str] | None:
    # None where the vCenter names them.
    if "address" in reach and hosts:
        raise InputError("give hosts or --vcenter, not both")
    if "address" not in reach and not hosts:
        raise InputError("no host was named; give host names, a file of them, an inventory, or --vcenter")
    return hosts[0] if hosts and len(hosts) == 1 else hosts


@app.command(name="hosts", epilog="Example:  psod hosts --vcenter vc.example.com --user reader > hosts.csv")
def hosts_of_vcenter(
    vcenter: Annotated[str, Option("--vcenter", help="HOST or HOST:PORT of the vCenter.", show_default=False)],
    user: User = "administrator@vsphere.local", password_keyring: Keyring = None, password_command: Command = None,
    thumbprint: Thumbprint = None, ca_file: Authorities = None,
) -> None:  # fmt: skip
    """Print a vCenter's hosts as an inventory: host, cluster, model, version, connection state."""
    from psodlib import collector
    from psodlib.views.spreadsheet import csv_text

    password = _password(True, password_keyring, password_command)
    table = collector.vcenter_hosts(vcenter, user=user, password=password, thumbprint=thumbprint, ca_file=ca_file)
    print(csv_text(table), end="", file=out.file, flush=True)


@app.command(
    epilog="Exit code 0: every host runs the pin. 1: at least one does not, or will not after its next boot. 2: wrong use. 3: no host "
    "is known to differ, but some could not be asked or did not tell. 130: stopped by Ctrl-C.\n\n"
    "Example:  psod verify hosts.csv --module hpsa --pin 5.5.0.50 --key ~/.ssh/esxi"
)
@_reaching
def verify(
    reach: dict[str, Any], hosts: SomeHosts = None,
    pin: Annotated[str, Option(help="The version that every host should run.", show_default=False)] = "",
    output: Annotated[Path, Option("-o", "--output", help="Folder for what is read.")] = Path("evidence-verify"),
    module: Module = "hpsa", pool: Pool = 8,
) -> None:  # fmt: skip
    """Ask each host, or the vCenter, which driver version runs, and compare it with the pin."""
    from psodlib import collector

    if not pin:
        raise InputError("no --pin was given; expected the version that every host should run, as 5.5.0.50")
    with resumable(output), bar("asking", at_once=False) as progress:
        asked = {"module": module, "pin": pin, "progress": progress, **reach}
        if not (source := _named_hosts(hosts, reach)):
            table = collector.verify_vcenter(out=output, **asked)
        else:
            table = collector.verify(source, output, pool=pool, **asked)
    end_verify(f"{module} against the pin {pin}", table)


def _password(ask: bool, keyring: str | None, command: str | None) -> Any:
    # Where the password comes from; it never stands on a command line.
    from psodlib import collector

    if command:
        try:
            return collector.password_from_command(shlex.split(command))
        except ValueError as error:
            raise InputError(f"--password-command: {error}; split as a shell would, but no shell runs it") from None
    if keyring:
        return collector.password_from_keyring(keyring)
    return collector.ask_password() if ask else None


def _which(word: str, sources: list[str] | None) -> None:
    # A source without a crash id is answered with the ids of its crashes.
    if sources:
        return
    if not os.path.exists(word):
        raise InputError(f"no source was given; expected a crash id and where the crash is, as {word} evidence/")
    from psodlib.fleet import load as load_fleet

    crashes = load_fleet(word).crashes.sort_values("time", ascending=False)
    told = [f"{id} ({host})" for id, host in zip(crashes.crash_id, crashes.host.fillna("host unknown"), strict=True)]
    more = f" and {len(told) - NEWEST} more" if len(told) > NEWEST else ""
    found = ", ".join(told[:NEWEST]) or "no crash"
    raise InputError(f"no crash id was given; {word} holds {found}{more}. The id stands before the evidence")


@app.command(epilog="Example:  psod explain 3f2a90c1d4e5b677 evidence/")
def explain(crash_id: CrashId, sources: SomeSources = None) -> None:
    """Say why a crash has its signature and its guilty module."""
    from psodlib.fleet import explain_crash

    _which(crash_id, sources)
    for line in explain_crash(crash_id, *sources or ()).split("\n"):
        say(line)


@app.command(epilog="Example:  psod anonymise evidence/ --inventory hosts.csv --key-file secret.key -o to-vendor/")
def anonymise(
    sources: Annotated[list[str], Argument(help="Evidence, a store, a saved fleet, a report.", show_default=False)],
    output: Annotated[Path, Option("-o", "--output", help="New folder to write; the mapping is written beside it.")],
    key_file: KeyFile = None, inventory: Inventory = None, word: SiteWords = None,
) -> None:  # fmt: skip
    """Copy evidence with all names of hosts, users and places replaced; the same key gives the same names every time.

    Not seen: names inside base64 or hexadecimal. Links in tars are not written.
    """
    from psodlib.anonymiser import anonymise as write_anew

    key = _key(key_file)
    with bar("replacing names") as progress:
        done = write_anew(*sources, out=output, key=key, inventory=inventory, words=word or (), progress=progress)
    print_anonymised(done)
    raise typer.Exit(1 if done.left_out or done.suspects else 0)


@app.command(epilog="Example:  psod case 75b6d986 evidence/ -o case.zip --anonymise --key-file secret.key")
def case(
    crash_id: CrashId, sources: SomeSources = None,
    output: Annotated[Path, Option("-o", "--output", help="The zip to write.")] = Path("case.zip"),
    inventory: Inventory = None, known_issues: KnownIssues = None, notes: Notes = None, site: SiteFile = None,
    with_site: WithSite = False,
    anonymise: Annotated[bool, Option("--anonymise", help="Replace the names of hosts, users and your site.")] = False,
    key_file: KeyFile = None, word: SiteWords = None,
) -> None:  # fmt: skip
    """Zip what a vendor asks for about one crash: its text, the log around it, versions, timeline and write-up."""
    from psodlib.views.case import case as write_case

    _which(crash_id, sources)
    if (key_file or word) and not anonymise:
        raise InputError("--key-file and --word go with --anonymise; without it the case holds every name as it is")
    key = _key(key_file) if anonymise else None
    done = write_case(
        crash_id, *sources or (), out=output, inventory=inventory, known_issues=known_issues, notes=notes,
        site=_site(site, with_site), key=key, words=word or (),
    )  # fmt: skip
    say(f"{len(done.hashes)} files in {done.file}")
    if done.mapping:
        print_suspects(done)
        raise typer.Exit(1 if done.suspects else 0)


def _site(file: Path | None, asked: bool) -> Path | None:
    from psodlib.views.account import find_site

    return file or (find_site() if asked else None)


def _key(file: Path | None) -> bytes:
    # A file, or words typed here, twice; they never stand on a command line.
    from psodlib.anonymiser import key_from_passphrase, read_key

    if file is not None:
        return read_key(file)
    try:
        return key_from_passphrase(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True))
    except typer.Abort:
        raise InputError("no passphrase was typed; without a terminal, give --key-file") from None


@app.command(epilog="Example:  psod lab store/ --folder my-case")
def lab(
    source: Annotated[str | None, Argument(help="Evidence, store or fleet; else the demo.", show_default=False)] = None,
    folder: Annotated[Path, Option(help="Working copy of the notebooks.")] = Path("work-notebooks"),
    port: Annotated[int, Option(help="Port to listen on, on this machine alone.", min=0, max=65535)] = 8888,
    browser: Annotated[bool, Option(help="Open a browser window.")] = True,
) -> None:
    """Open JupyterLab on a working copy of the notebooks, so that no real host name reaches the committed ones."""
    from psodlib.evidence.sources import iter_units
    from psodlib.views.notebooks import notebook_folder, set_source

    if source is not None:
        iter_units(source)  # one that does not exist is told here, not in the browser
    folder.mkdir(parents=True, exist_ok=True)
    for notebook in sorted(file for file in notebook_folder().iterdir() if file.suffix in (".ipynb", ".py")):
        if not (folder / notebook.name).exists():
            shutil.copy(notebook, folder)
    if source is not None:
        set_source(folder, source)
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # which jupyter refuses unless told
    command = [sys.executable, "-m", "jupyterlab", str(folder), f"--port={port}", "--LabApp.news_url=None"]
    command += [option for option, asked in (("--no-browser", not browser), ("--allow-root", root)) if asked]
    if os.name == "posix":
        os.execv(sys.executable, command)  # this process becomes the server, so whoever ends it ends the server
    raise typer.Exit(subprocess.call(command))


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, Option("--version", help="Print the version.", is_eager=True)] = False) -> None:
    if version:
        from psodlib import __version__

        say(f"psodlib {__version__}")
        raise typer.Exit()


def main() -> None:
    """Run `psod`; an error that the user can mend is one line and exit code 2."""
    # in words alone, without the line of ours that warned
    warnings.showwarning = lambda message, *where, **more: say(f"psod: {message}", err, "yellow")
    try:
        app()
    except PsodError as error:
        told = str(error)
    except OSError as error:
        told = f"{error.filename or 'the output'}: {in_words(error)}; mend that and run again"
        sys.stdout = None  # what it did not take would be tried again at the end
    say(f"psod: {told}", err, "red")
    raise SystemExit(2)
