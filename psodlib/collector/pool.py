"""Many hosts at once, with honest bounds: the main thread watches, the workers visit, and what became of each is booked."""

from __future__ import annotations

import contextlib
import errno
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pandas as pd

from psodlib.collector.folder import Folder, Manifest
from psodlib.collector.login import Access, Connection, HostKeys, NotTried, PasswordSource, printable, way_in
from psodlib.collector.plan import Limits, Target, read_hosts, safe_module
from psodlib.collector.remote import Remote
from psodlib.collector.visit import Visit
from psodlib.errors import CollectError, InputError

Progress = Callable[[str, int, int | None], None]

MAX_POOL = 32
CLOCK_WARNED = 60.0  # seconds
TICK = 0.2  # seconds between two looks of the watch
Row = tuple[str, str, int, int, float, float | None, str]  # of a host, as `_COLUMNS` names them
_COLUMNS = {
    "host": "string", "state": "string", "files": "Int64", "bytes": "Int64", "seconds": "Float64", "clock_offset": "Float64",
    "why": "string",
}  # fmt: skip


@dataclass(frozen=True)
class Collection:
    """What a run of ``collect`` did.

    ``hosts`` has one row a host in the order given: ``host``, ``state`` (complete, partial, failed, interrupted,
    not_tried), ``files`` (whole, after the run), ``bytes`` (fetched in it), ``seconds``, ``clock_offset`` (seconds
    ahead of ours), ``why``. ``trusted`` lists the host keys that were trusted on first use, to be compared; ``stopped``
    says why the run ended early, "" if it did not.
    """

    out: Path
    hosts: pd.DataFrame
    trusted: tuple[str, ...] = ()
    stopped: str = ""

    @property
    def complete(self) -> bool:
        """Whether every host gave all that was asked of it."""
        return not self.stopped and bool((self.hosts["state"] == "complete").all())


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, when all that was under way is written down."""

    def __init__(self, collection: Collection) -> None:
        super().__init__(collection.stopped)
        self.collection = collection


def collect(
    hosts: str | Path | Iterable[str | Target], out: str | Path, *, user: str = "root", key: str | Path | None = None,
    agent: bool = False, password: PasswordSource | None = None, known_hosts: str | Path = "known_hosts",
    trust_first_use: bool = False, legacy: Iterable[str] = (), jump: str | None = None, module: str = "hpsa",
    version_only: bool = False, pool: int = 8, limits: Limits | None = None, sftp: bool = True, progress: Progress | None = None,
) -> Collection:  # fmt: skip
    """Fetch the crash evidence of hosts by SSH, read-only, and go on where an earlier run stopped.

    Parameters
    ----------
    hosts : str, Path or iterable of str or Target
        Names, a file with one a line, or an inventory (.csv, .xlsx).
    out : str or Path
        The evidence folder; made if need be. Files are readable by their owner only.
    user, key, agent, password : str, path, bool, callable
        Who logs in where a host names nobody, and the one way: a private key's file, the SSH agent's first key, or a source of the
        password (``ask_password()``, ``password_from_keyring()``, ``password_from_command([...])``), which beside a key is that of
        its passphrase. The password itself is never taken.
    known_hosts, trust_first_use : str or Path, bool
        The project's file of host keys, and whether unknown hosts' keys are written there. A changed key is refused always.
    legacy : iterable of str
        Hosts that may use SHA-1 algorithms (ESXi 5.x); each is named in a warning.
    jump : str, optional
        ``[user@]name[:port]`` to go through, where a host names none; logged in with the same credential.
    module, version_only : str, bool
        The driver whose version is asked for; whether only the outputs that tell versions are fetched.
    pool, limits, sftp : int, Limits, bool
        Hosts at a time, 1 to 32; seconds and bytes of each host's visit; False reads by the shell at once.
    progress : callable, optional
        Called with (what, hosts done, hosts), from the calling thread; ``what`` has the bytes and the slowest host.

    Returns
    -------
    Collection
        One row a host; the details are in each host's ``manifest.json``.

    Raises
    ------
    InputError
        Wrong use, found before any host is visited.
    Interrupted
        After Ctrl-C, when the manifests are written; a ``KeyboardInterrupt`` that holds the ``Collection``.

    Notes
    -----
    A refused login is never tried again, and after three in a row the run stops. The first logins go three at a time
    until one succeeds, so that a wrong password reaches three hosts at most.
    """
    targets = read_hosts(hosts, legacy=legacy, jump=jump)
    safe_module(module)
    check_pool(pool)
    users = [t.user or user for target in targets for t in (target, target.jump) if t is not None]
    log_in = way_in(users, key, agent, password)
    for target in targets:
        if target.legacy:
            warnings.warn(f"{target.name}: listed as legacy, SHA-1 is allowed for it", UserWarning, stacklevel=2)
    access = Access(user, log_in, HostKeys(known_hosts, trust_first_use), limits or Limits())
    run = _Run(
        out=Path(out), progress=progress, names=[target.name for target in targets], trusted=access.keys.trusted, access=access,
        module=module, version_only=version_only, sftp=sftp,
    )  # fmt: skip
    with run.alone():
        run.at_once([partial(run.visit, target) for target in targets], pool)
    return run.so_far()


def check_pool(pool: int) -> None:
    """Refuse more hosts at a time than a run should ask."""
    if not 1 <= pool <= MAX_POOL:
        raise InputError(f"a pool of {pool}: expected 1 to {MAX_POOL} hosts at a time")


@dataclass(kw_only=True)
class Ledger:
    """One run: what became of each host, and why it ended early, if it did."""

    out: Path
    progress: Progress | None
    names: list[str] = field(default_factory=list)  # of the hosts, in the order given
    trusted: Sequence[str] = ()
    missing: list[str] = field(default_factory=list)  # of the whole
    stopped: str = ""
    doing: str = ""  # for the progress bar
    rows: dict[str, Row] = field(default_factory=dict)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Make the evidence folder, and hold it: one run at a time. After Ctrl-C what the run did so far."""
        try:
            self.out.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.out}: {error.strerror}; expected a folder, or a place for one") from None
        # Two runs that append to one .part would make nonsense of it. The lock is the folder's own and ends with the process.
        with contextlib.ExitStack() as opened:
            with contextlib.suppress(ImportError):  # Windows locks no folder
                import fcntl

                held = os.open(self.out, os.O_RDONLY)
                opened.callback(os.close, held)
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    why = "another run is collecting into it; wait, or give another folder"
                    raise InputError(f"{self.out}: {why}") from None
                except OSError:
                    pass  # a file system without locks
            try:
                yield
            except KeyboardInterrupt:
                raise Interrupted(self.so_far()) from None

    def at_once(self, tasks: Sequence[Callable[[], None]], pool: int) -> None:
        """Run tasks, some at a time, and watch."""
        with ThreadPoolExecutor(pool, thread_name_prefix="psod-collect") as executor:
            try:
                left = {executor.submit(task) for task in tasks}
                while left:
                    done, left = wait(left, timeout=TICK, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                    self.watch()
                    if self.progress:
                        self.progress(self.doing, len(tasks) - len(left), len(tasks))
            except BaseException:
                self.stop("interrupted; what came is kept, run again to go on")
                raise

    def watch(self) -> None:
        """What is looked after meanwhile, again and again."""

    def stop(self, why: str) -> None:
        """Begin nothing any more; the first reason counts."""
        self.stopped = self.stopped or why

    def unwritable(self, where: Path, error: OSError) -> str:
        """Stop, because our own side cannot go on: no other host will fare better."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self.stop(f"the disk is full ({where}); make room, then run again: it goes on where it stopped")
        else:
            self.stop(f"cannot write to {where}: {error.strerror or type(error).__name__}")
        return self.stopped

    @contextlib.contextmanager
    def booked(self, folder: Folder, manifest: Manifest, lacking: list[str]) -> Iterator[None]:
        """A visit that is written down however it ends; ``lacking`` says what it did not bring."""
        name, begun = manifest.host, time.monotonic()
        try:
            yield
        except CollectError as error:
            lacking.append(str(error).removeprefix(f"{name}: "))
            state = "interrupted" if self.stopped else manifest.state
            manifest.state = "not_tried" if isinstance(error, NotTried) else state
        except OSError as error:
            lacking.append(self.unwritable(folder.path, error))
        except Exception as error:  # a server found a way that we did not think of: it costs this host only
            lacking.append(f"{type(error).__name__}: {printable(error)}; please report this")
        manifest.why, manifest.finished = "; ".join(lacking), datetime.now(UTC).isoformat(timespec="seconds")
        try:
            folder.save(manifest)
        except OSError as error:
            manifest.state, manifest.why = "failed", self.unwritable(folder.path, error)
        files = sum(record.state == "whole" for record in manifest.files)
        seconds = time.monotonic() - begun + (self.rows[name][4] if name in self.rows else 0)
        self.rows[name] = (name, manifest.state, files, manifest.bytes, seconds, manifest.clock_offset, manifest.why)

    def failed(self, name: str, why: str) -> None:
        """A host that was not visited at all."""
        self.rows[name] = (name, "failed", 0, 0, 0.0, None, why)

    def so_far(self) -> Collection:
        """The run, a row a name."""
        why = f"the run had stopped: {self.stopped}"
        rows = [self.rows.get(name, (name, "not_tried", 0, 0, 0.0, None, why)) for name in self.names]
        hosts = pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS).round({"seconds": 1})
        return Collection(self.out, hosts, tuple(self.trusted), "; ".join(filter(None, [self.stopped, *self.missing])))


@dataclass(kw_only=True)
class _Run(Ledger):
    access: Access
    module: str
    version_only: bool
    sftp: bool
    under_way: dict[str, tuple[Connection, Manifest]] = field(default_factory=dict)

    def watch(self) -> None:
        now, visits = time.monotonic(), tuple(self.under_way.values())
        for link, _ in visits:
            if why := link.overdue(now):
                link.cut(why)
        total = sum(row[3] for row in tuple(self.rows.values())) + sum(manifest.bytes for _, manifest in visits)
        self.doing = f"{total / 1e6:,.1f} MB"
        if visits:
            slowest = min((link for link, _ in visits), key=lambda link: link.begun)
            doing = f"{now - slowest.begun:.0f} s, {printable(slowest.doing, 40)}"
            self.doing += f", slowest {slowest.target.name} ({doing})"

    def stop(self, why: str) -> None:
        """Whoever is under way is cut off, whoever waits is not let in; both write their manifests."""
        super().stop(why)
        self.access.gate.close(f"the run had stopped: {self.stopped}")
        for link, _ in tuple(self.under_way.values()):
            link.cut(self.stopped)

    def so_far(self) -> Collection:
        self.stopped = self.stopped or ("three refused logins in a row" if self.access.gate.shut else "")
        return super().so_far()

    def visit(self, target: Target) -> None:
        link, limits, lacking = Connection(target, self.access), self.access.limits, list[str]()
        try:
            folder = Folder(self.out, target.name)
        except OSError as error:
            self.failed(target.name, self.unwritable(self.out, error))
            return
        manifest = folder.manifest() or Manifest(target.name)
        manifest.host, manifest.address, manifest.port = target.name, target.address, target.port
        manifest.user, manifest.state = target.user or self.access.user, "failed"
        manifest.bytes, manifest.clock_offset = 0, None
        with self.booked(folder, manifest, lacking):
            self.under_way[target.name] = link, manifest
            try:
                if self.access.gate.shut:
                    raise NotTried(target.name, f"not tried: {self.access.gate.shut}")
                link.open()
                manifest.host_key, manifest.state, link.patience = link.fingerprint, "partial", limits.idle
                remote = Remote(link, self.sftp, limits.command)
                Visit(remote, folder, manifest, limits).take(self.module, self.version_only)
            finally:
                link.close()
                del self.under_way[target.name]
            open_ends = [r for r in manifest.files if r.state in ("partial", "failed", "skipped")]
            manifest.state = "partial" if open_ends else "complete"
            lacking += [f"{r.path}: {r.detail}" for r in open_ends[:3]]
            if abs(ahead := manifest.clock_offset or 0.0) > CLOCK_WARNED:
                side = "ahead" if ahead > 0 else "behind"
                lacking.append(f"its clock is {abs(ahead):.0f} s {side}; its times are as it tells them")
