"""load(): evidence folder -> Fleet; the one place with Parquet. What the files mean together is ``assemble``'s."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import msgspec
import pandas as pd

from psodlib import schema
from psodlib.assemble import assemble, with_inventory
from psodlib.errors import InputError, in_words, known_name
from psodlib.evidence.artifacts import read_inventory
from psodlib.evidence.reading import read_unit, read_units
from psodlib.evidence.sources import Unit, iter_units
from psodlib.records import Crash, FileReading, Frame, Module, Problem, Reason
from psodlib.store.folder import is_store, locked
from psodlib.store.ledger import Job, read_group, read_jobs
from psodlib.store.readings import Entry
from psodlib.store.tables import each_bucket, open_before, open_store
from psodlib.store.update import update
from psodlib.triage.boots import versions_now
from psodlib.triage.crashes import explain, with_issues
from psodlib.triage.devices import devices_at_crash
from psodlib.triage.known_issues import Issue, load_issues
from psodlib.triage.timeline import host_timeline
from psodlib.workers import Workers


def _records(kind: Any, table: pd.DataFrame) -> tuple[Any, ...]:
    # Rows as the records they came from: plain values; what is unknown is as the record has it.
    names = [part.name for part in fields(kind) if part.name in table]
    rows = zip(*(map(_plain, table[name].astype(object)) for name in names), strict=True)
    known = (zip(names, row, strict=True) for row in rows)
    return tuple(kind(**{name: value for name, value in row if value is not None}) for row in known)


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime(warn=False)
    return value.to_pytimedelta() if isinstance(value, pd.Timedelta) else value


_NAMES = (*schema.TABLES, *schema.AUXILIARY)


@dataclass(frozen=True, repr=False)
class Fleet(schema.Cell):
    """The seven tables of a fleet, and what stands behind them.

    Parameters
    ----------
    hosts, crashes, frames, modules, uptimes, drivers, problems : pandas.DataFrame
        The tables of the contract; ``psodlib.schema.describe(name)`` lists the columns of each.
    coverage : pandas.DataFrame
        The stretches of each boot that evidence covers (``host``, ``boot``, ``start``, ``end``): what lies between them is
        a gap. Behind the contract's seven, because host-days at risk cannot be counted without it.
    reasons : pandas.DataFrame
        Why each crash has its signature and its guilty module, and what is doubtful (``crash_id``, ``about``, ``module``,
        ``text``, ``weight``): made once, where the crash is judged; whatever explains a crash formats it.
    texts : pandas.DataFrame
        The crashes' own lines (``crash_id``, ``text``), verbatim.
    events : pandas.DataFrame
        What a vCenter told of each host (``host``, ``time``, ``what``, ``vm``, ``detail``): failovers, boots, maintenance.
    simulated : bool
        True when any of the evidence is made up (a ``SIMULATED`` marker stood beside it): pages must say so.
    """

    hosts: pd.DataFrame = field(default_factory=partial(schema.empty, "hosts"))
    crashes: pd.DataFrame = field(default_factory=partial(schema.empty, "crashes"))
    frames: pd.DataFrame = field(default_factory=partial(schema.empty, "frames"))
    modules: pd.DataFrame = field(default_factory=partial(schema.empty, "modules"))
    uptimes: pd.DataFrame = field(default_factory=partial(schema.empty, "uptimes"))
    drivers: pd.DataFrame = field(default_factory=partial(schema.empty, "drivers"))
    problems: pd.DataFrame = field(default_factory=partial(schema.empty, "problems"))
    coverage: pd.DataFrame = field(default_factory=partial(schema.empty, "coverage"))
    reasons: pd.DataFrame = field(default_factory=partial(schema.empty, "reasons"))
    texts: pd.DataFrame = field(default_factory=partial(schema.empty, "texts"))
    events: pd.DataFrame = field(default_factory=partial(schema.empty, "events"))
    simulated: bool = False

    def __post_init__(self) -> None:
        # Tables that were filtered, joined or read elsewhere may have other dtypes; all that follows counts on the contract's.
        for name in _NAMES:
            table, wanted = getattr(self, name), schema.columns_of(name)
            if any(one.name not in table or table[one.name].dtype != one.pandas_dtype for one in wanted):
                object.__setattr__(self, name, schema.conform(name, table))

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The seven tables of the contract by name."""
        return {name: getattr(self, name) for name in schema.TABLES}

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(table):,} {name}" for name, table in self.tables.items())
        return f"Fleet({counts}{', simulated' if self.simulated else ''})"

    def crash(self, crash_id: str) -> Crash:
        """One crash with all that the tables hold of it: ``frames``, ``modules``, ``text``, ``reasons``; unknown is None.

        ``crash_id`` may be the first digits of an id; where no crash, or more than one, has them, it is an ``InputError``.
        """
        ids = self.crashes["crash_id"]
        found = self.crashes[ids.str.startswith(str(crash_id)).fillna(False)] if crash_id else self.crashes
        if len(found) != 1:
            some = ", ".join([*(found if len(found) else self.crashes)["crash_id"].dropna()][:5]) or "none"
            raise InputError(f"{len(found)} crashes have an id that begins with {crash_id!r}; here are: {some}")
        parts: dict[str, Any] = {
            name: _records(kind, table[(table["crash_id"] == found["crash_id"].iloc[0]).fillna(False)])
            for name, kind, table in (
                ("frames", Frame, self.frames), ("modules", Module, self.modules), ("reasons", Reason, self.reasons),
            )
        }  # fmt: skip
        text = self.texts.loc[self.texts["crash_id"] == found["crash_id"].iloc[0], "text"]
        crash: Crash = _records(Crash, found)[0]
        return replace(crash, text="".join(text), **parts)

    def host(self, name: str) -> pd.DataFrame:
        """One host's story, named as in ``hosts``; an ``InputError`` names the nearest.

        In the order of time: ``time``, ``end`` (of what lasts), ``lane`` (boot, watched, driver, down, crash), ``what``,
        ``detail``, ``source``, ``line``, ``sha256``; what bears no time comes last.
        """
        return host_timeline(self, known_name(name, self.hosts["host"], "host"))

    def now(self, module: str) -> pd.DataFrame:
        """Who runs which version of a driver today, by host; unknown is ``NA``.

        Columns ``host``, ``version`` (loaded in its last boot), ``since`` (start of the first boot of the run that had it),
        ``evidence`` (how that is known), ``pending`` (another version that waits for the next boot). ``module`` is a bare name;
        one of which no evidence speaks is an ``InputError``.
        """
        # a crash may blame a module of which no host says which version it runs
        known_name(module, [*self.drivers["module"], *self.crashes["guilty_module"]], "module")
        return versions_now(self.hosts, self.uptimes, self.drivers, module)

    def wide(self) -> pd.DataFrame:
        """The crashes with host, cluster, model, ESXi version and driver side by side, one row a crash.

        The columns of ``crashes`` first, then those of ``hosts`` that are not among them (``model``, ``cluster``, ...), then
        ``boot`` and ``end_reason`` of the boot that it ended, then ``vib``, ``device`` and ``firmware`` of the guilty module as
        last read on that host before the crash, else as first read after it.
        """
        hosts = self.hosts.drop(columns=[name for name in self.hosts if name in self.crashes and name != "host"])
        boots = self.uptimes.loc[self.uptimes["crash_id"].notna(), ["crash_id", "boot", "end_reason"]]
        table = self.crashes.merge(hosts.dropna(subset=["host"]), on="host", how="left")
        table = table.merge(boots.drop_duplicates("crash_id"), on="crash_id", how="left")
        return table.join(devices_at_crash(self.crashes, self.drivers))

    def save(self, folder: str | Path) -> Path:
        """Write the tables as Parquet, one file a table, into a folder that is made if need be; its path.

        A table of the same name in it is replaced as a whole. ``InputError`` where the folder cannot be written.
        """
        out = Path(folder)
        try:
            out.mkdir(parents=True, exist_ok=True)
            for name in _NAMES:
                table: pd.DataFrame = getattr(self, name).copy()
                table.attrs = {"simulated": self.simulated}
                part = out / f"{name}.parquet"
                table.to_parquet(part.with_suffix(".part"), index=False)
                part.with_suffix(".part").replace(part)  # a reader never sees half a table
        except OSError as error:
            raise InputError(f"{out}: the tables cannot be saved there ({in_words(error)})") from error
        return out

    @classmethod
    def open(
        cls, folder: str | Path, *, hosts: Collection[str] | None = None, since: str | datetime | None = None
    ) -> Fleet:
        """Read back what ``save`` wrote, dtypes included, or any part of what ``load(store=...)`` wrote.

        Parameters
        ----------
        hosts : collection of str, optional
            Of a store: only these hosts, named as in its ``hosts``; only the parts that hold them are read.
        since : str or datetime, optional
            Of a store: only crashes, frames, module lists and coverage that end at this time (UTC) or later. Boots and
            driver versions are whole, because a version is carried from boot to boot.

        Raises
        ------
        InputError
            A table is missing, cannot be read or has other columns; hosts or since of a folder that is no store.
        """
        if is_store(Path(folder)):
            stored, made_up = open_store(Path(folder), hosts=hosts, since=since)
            return cls(**stored, simulated=made_up)
        if hosts is not None or since is not None:
            raise InputError(f"{folder}: no store; only a folder of load(store=...) can be opened by hosts or since")
        tables: dict[str, Any] = {}
        simulated = False
        for name in _NAMES:
            part = Path(folder) / f"{name}.parquet"
            if name in schema.AUXILIARY and not part.exists():  # saved before there was such a table
                continue
            if not part.exists():
                raise InputError(
                    f"{part}: not found; expected a folder that Fleet.save wrote, with one Parquet file a table"
                )
            try:
                table = pd.read_parquet(part)
            except Exception as error:  # damaged Parquet raises whatever the damage hits
                raise InputError(f"{part}: not a readable Parquet file ({error}); save the fleet again") from error
            simulated = bool(table.attrs.pop("simulated", False)) or simulated
            names = [column.name for column in schema.columns_of(name)]
            if list(table.columns[: len(names)]) != names:
                raise InputError(f"{part}: found columns {list(table.columns)}, expected {names}; save the fleet again")
            tables[name] = schema.conform(name, table)
        return cls(**tables, simulated=simulated)

    @classmethod
    def before(cls, store: str | Path) -> Fleet | None:
        """The fleet as a store had it before the last load that changed it; None after the first.

        ``triage.changes.fleet_changes`` tells what is new since. ``InputError`` for no store, or a damaged one.
        """
        found = open_before(Path(store))
        return None if found is None else cls(**found[0], simulated=found[1])

    @classmethod
    def each(cls, store: str | Path) -> Iterator[Fleet]:
        """A store's fleet in parts that fit into memory: the hosts of one bucket after another, no host in two.

        ``rate_ratio`` and ``decide_pin`` take the exposures of all parts. ``InputError`` for no store, or a damaged one.
        """
        for tables, simulated in each_bucket(Path(store)):
            yield cls(**tables, simulated=simulated)


Progress = Callable[[str, int, int], None]


class Amount(int):
    """A number of files that also says how many bytes they have."""

    nbytes = 0


def load(
    *sources: str | Path | Sequence[str | Path],
    inventory: str | Path | pd.DataFrame | None = None,
    known_issues: str | Path | None = None,
    jobs: int | None = None,
    client: Any = None,
    store: str | Path | None = None,
    progress: Progress | None = None,
    allow_loss: bool = False,
    verify: bool = False,
) -> Fleet:
    """Read all evidence and say what happened to the fleet.

    Parameters
    ----------
    *sources : str or Path, or lists of them
        Evidence folders, logs, vm-support bundles, vCenter zips, syslog trees, ``"-"`` for stdin, URLs that fsspec opens; or
        one store, or one saved fleet.
    inventory : str, Path or DataFrame, optional
        CSV or table with at least ``host``; its other columns join ``hosts``. A host with no evidence keeps its row.
    known_issues : str or Path, optional
        Your own known issues (TOML), beside those that ship.
    jobs : int, optional
        Processes to read with; default as many as there are cores, and none beside this one for little evidence.
    client : distributed.Client, optional
        A Dask client to read with instead of local processes; its workers must see the sources, and the store, under the
        same names.
    store : str or Path, optional
        Folder that keeps what every file said. The next load into it reads only files that are new or changed, and the
        fleet is that of all loads together; what a vanished file said stays, and ``problems`` tells of it.
        ``Fleet.open`` reads it.
    progress : callable, optional
        Called as ``progress(what, done, total)`` after each file; ``done.nbytes`` and ``total.nbytes`` are the files' bytes.
    allow_loss : bool
        Let a load into a store go through that loses more than a tenth of the known crashes or host-days.
    verify : bool
        Hold every file of the store against its hash first; what is damaged is made anew, or read again.

    Returns
    -------
    Fleet
        The same whatever the order of the sources and the number of processes.

    Raises
    ------
    InputError
        No source, a source that does not exist or holds no file, an inventory that cannot be used, a store that another
        load holds, that is none or that would lose what it knows, a cluster that gave up.
    RuleError
        A bad line in the known-issues file.

    Notes
    -----
    Every input file is used, recognised as irrelevant, or listed in ``problems``.

    Example
    -------
    >>> import psodlib as psod
    >>> psod.load("data/incident-2014-05-31").crashes.guilty_module[0]  # doctest: +SKIP
    'hpsa'
    """
    alone = (str, bytes, PurePath)
    flat = (one if isinstance(one, Iterable) and not isinstance(one, alone) else [one] for one in sources)
    named: list[Any] = [one for several in flat for one in several]
    if strange := [one for one in named if not isinstance(one, (str, PurePath))]:
        raise InputError(f"found a {type(strange[0]).__name__} as a source; expected a folder, a file or an address")
    issues = load_issues(*([known_issues] if known_issues else []))
    roster = read_inventory(inventory) if isinstance(inventory, (str, Path)) else inventory
    if roster is not None and "host" not in getattr(roster, "columns", ()):
        raise InputError(f"the inventory has columns {list(roster)}; expected one named host")
    if any(map(is_saved, named)):
        return _reopened(named, store, roster, issues if known_issues else None)
    workers = Workers(jobs, client)
    if store is not None or client is not None:  # a worker may stand in another folder, and so may we the next time
        named = [str(one) if "://" in str(one) or str(one) == "-" else os.path.abspath(one) for one in named]
    if store is None:
        readings, problems = _read(named, workers, progress)
        tables = assemble(readings, roster, issues, problems)
        return Fleet(**tables, simulated=any(PurePath(reading.source).name == "SIMULATED" for reading in readings))
    if "://" in str(store):
        raise InputError(
            f"{store}: a store is a folder, for an address cannot be locked or renamed in; name one that all readers see (the evidence may lie at an address)"
        )
    if not named:
        raise InputError("no source was given; name an evidence folder, a log, a bundle or an address")
    folder, walks = Path(os.path.abspath(store)), [(str(source), *_units([source])) for source in named]

    def read(folder: Path, todo: Sequence[Job]) -> Iterator[Entry]:
        tell = _counted(progress, [job.entry.size for job in todo])
        groups = workers.groups(todo, lambda job: job.entry.size)
        if groups is None:
            yield from read_jobs(folder, todo, lambda entry: tell(entry.path, entry.size))
            return
        for entries in workers.each(read_group, [(folder, group) for group in groups]):
            for entry in entries:
                tell(entry.path, entry.size)
                yield entry

    def spread(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        return workers.each(function, [(task,) for task in tasks])

    with locked(folder), _seldom_collected():
        tables, simulated = update(
            folder, walks, read, spread, inventory=roster, issues=issues, allow_loss=allow_loss, verify=verify
        )
    return Fleet(**tables, simulated=simulated)


def _read(
    sources: Sequence[Any], workers: Workers, progress: Progress | None
) -> tuple[list[FileReading], list[Problem]]:
    units, problems = _units(sources)
    readings: list[FileReading] = []
    tell = _counted(progress, [unit.size for unit in units])
    decode = msgspec.msgpack.Decoder(tuple[list[FileReading], list[Problem]]).decode
    groups = workers.groups(units, lambda unit: unit.size)
    if groups is None:
        told = ((unit, read_unit(unit)) for unit in units)
    else:
        told = ((u, decode(data)) for group in workers.each(read_units, [(g,) for g in groups]) for u, data in group)
    for unit, (found, troubles) in told:
        readings += found
        problems += troubles
        tell(unit.source, unit.size)
    return readings, problems


def _counted(progress: Progress | None, sizes: Sequence[int]) -> Callable[[str, int], None]:
    # Tells of each file that was read how far the load is.
    total, done = Amount(len(sizes)), Amount(0)
    total.nbytes = sum(sizes)

    def tell(what: str, nbytes: int) -> None:
        nonlocal done
        before, done = done, Amount(done + 1)
        done.nbytes = before.nbytes + nbytes
        if progress:
            progress(what, done, total)

    return tell


@contextmanager
def _seldom_collected() -> Iterator[None]:
    # A load makes hundreds of thousands of records and hardly a circle: each of the collector's rounds would go through all,
    # and through all that the libraries hold.
    before, ours = gc.get_threshold(), not gc.get_freeze_count()
    gc.set_threshold(1000 * before[0], *before[1:])
    if ours:  # else what the caller froze would not be told from what we do
        gc.freeze()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        if ours:
            gc.unfreeze()


def is_saved(source: str | Path) -> bool:
    """True for a store, and for a folder that ``Fleet.save`` wrote."""
    folder = Path(source)
    return is_store(folder) or all((folder / f"{name}.parquet").is_file() for name in schema.TABLES)


def _reopened(
    sources: Sequence[str | Path], store: str | Path | None, roster: pd.DataFrame | None, issues: Sequence[Issue] | None
) -> Fleet:
    # A store or a saved fleet as a source: its tables, with another inventory or other known issues if they are given.
    if len(sources) > 1 or store is not None:
        saved = next(source for source in sources if is_saved(source))
        raise InputError(
            f"{saved}: a store or a saved fleet stands alone; to add evidence to a store, name the evidence and say store= "
            "(--store)"
        )
    fleet = Fleet.open(sources[0])
    if issues is not None:
        found = [with_issues(fleet.crash(crash_id), issues) for crash_id in fleet.crashes["crash_id"]]
        crashes = fleet.crashes.assign(known_issues=pd.array([crash.known_issues for crash in found], dtype="string"))
        rows = [
            {f.name: getattr(reason, f.name) for f in fields(reason)} | {"crash_id": crash.crash_id}
            for crash in found
            for reason in crash.reasons
        ]
        fleet = replace(fleet, crashes=crashes, reasons=schema.build("reasons", rows))
    if roster is None:
        return fleet
    evidence = (fleet.uptimes, fleet.crashes, fleet.drivers, fleet.modules)
    seen = {host for table in evidence for host in table["host"].dropna()}
    columns = [column.name for column in schema.TABLES["hosts"]]
    hosts, missing = with_inventory(fleet.hosts.loc[fleet.hosts["host"].isin(seen), columns], roster)
    told = fleet.problems[(fleet.problems["source"] != "inventory").fillna(True)]
    problems = schema.conform("problems", pd.concat([told, missing], ignore_index=True))
    return replace(fleet, hosts=hosts, problems=problems)


def explain_crash(crash_id: str, *sources: str | Path) -> str:
    """Why a crash of some evidence, named by its id or the id's first digits, has its signature and its guilty module."""
    return explain(load(*sources).crash(crash_id))


def _units(sources: Sequence[str | Path]) -> tuple[list[Unit], list[Problem]]:
    units: list[Unit] = []
    problems: list[Problem] = []
    for found in iter_units(*sources):
        (problems if isinstance(found, Problem) else units).append(found)  # type: ignore[arg-type]
    if not units and not problems:
        raise InputError(
            f"no file in {', '.join(map(str, sources))}; expected an evidence folder (<root>/<host>/...), a log, a vm-support "
            "bundle or a vCenter zip"
        )
    return units, problems
