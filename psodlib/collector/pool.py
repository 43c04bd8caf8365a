"""Many hosts at once, with honest bounds: the main thread watches, the workers visit."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pandas as pd

from psodlib.collector.credentials import Credentials, PasswordSource
from psodlib.collector.fetch import Visit
from psodlib.collector.folder import Folder, Manifest
from psodlib.collector.hosts import Target, read_hosts
from psodlib.collector.login import Access, Connection, HostKeys, NotTried, connect, printable
from psodlib.collector.plan import Limits, safe_module
from psodlib.collector.remote import Remote
from psodlib.collector.visit import LocalTrouble, visit_host
from psodlib.errors import CollectError, InputError

Progress = Callable[[str, int, int | None], None]

MAX_POOL = 32
CLOCK_WARNED = 60.0  # seconds
TICK = 0.2  # seconds between two looks of the watch


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
        As ``read_hosts`` takes them: names, a file, or an inventory (.csv, .xlsx).
    out : str or Path
        The evidence folder; made if need be. Files are readable by their owner only.
    user : str
        Of hosts that name none.
    key : str or Path, optional
        File of a private key.
    agent : bool
        Log in with the first key of the SSH agent.
    password : callable, optional
        ``ask_password()``, ``password_from_keyring()`` or ``password_from_command([...])``; beside ``key`` the source of
        its passphrase. The password itself is never taken. Just one of key, agent and password logs in.
    known_hosts : str or Path
        The project's file of host keys.
    trust_first_use : bool
        Write keys of unknown hosts there. A changed key is refused always.
    legacy : iterable of str
        Hosts that may use SHA-1 algorithms (ESXi 5.x); each is named in a warning.
    jump : str, optional
        ``[user@]name[:port]`` to go through, where a host names none; logged in with the same credential.
    module : str
        The driver whose version is asked for.
    version_only : bool
        Only the outputs that tell versions.
    pool : int
        Hosts at a time, 1 to 32.
    limits : Limits, optional
        Seconds and bytes of each host's visit.
    sftp : bool
        False reads by the shell at once.
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
    credentials = Credentials.gather(users, key, agent, password)
    for target in targets:
        if target.legacy:
            warnings.warn(f"{target.name}: listed as legacy, SHA-1 is allowed for it", UserWarning, stacklevel=2)
    access = Access(user, credentials, HostKeys(known_hosts, trust_first_use), limits or Limits())
    run = _Run(out=made_folder(out), access=access, module=module, version_only=version_only, sftp=sftp)
    with alone(run.out, partial(run.so_far, targets)):
        run.visit_all(targets, pool, progress)
    return run.so_far(targets)


def check_pool(pool: int) -> None:
    """Refuse more hosts at a time than a run should ask."""
    if not 1 <= pool <= MAX_POOL:
        raise InputError(f"a pool of {pool}: expected 1 to {MAX_POOL} hosts at a time")


def made_folder(out: str | Path) -> Path:
    """The evidence folder."""
    root = Path(out)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{root}: {error.strerror}; expected a folder, or a place where one can be made") from None
    return root


@contextlib.contextmanager
def alone(root: Path, so_far: Callable[[], Collection]) -> Iterator[None]:
    """One run at a time in a folder; after Ctrl-C what it did so far."""
    # Two runs that append to one .part would make nonsense of it. The lock is the folder's own and ends with the process.
    with contextlib.ExitStack() as opened:
        with contextlib.suppress(ImportError):  # Windows locks no folder
            import fcntl

            held = os.open(root, os.O_RDONLY)
            opened.callback(os.close, held)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{root}: another run is collecting into it; wait, or give another folder") from None
            except OSError:
                pass  # a file system without locks
        try:
            yield
        except KeyboardInterrupt:
            raise Interrupted(so_far()) from None


def at_once(
    tasks: Sequence[Callable[[], None]], pool: int, look: Callable[[int], None], stop: Callable[[str], None]
) -> None:
    """Run tasks, some at a time; ``look`` is called with the number done again and again, ``stop`` where that is the end."""
    executor = ThreadPoolExecutor(pool, thread_name_prefix="psod-collect")
    futures: set[Future[None]] = set()
    try:
        for task in tasks:
            futures.add(executor.submit(task))
        while futures:
            done, futures = wait(futures, timeout=TICK, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            look(len(tasks) - len(futures))
    except BaseException:
        stop("interrupted; what came is kept, run again to go on")
        raise
    finally:
        executor.shutdown(wait=True)


@dataclass(kw_only=True)
class Ledger:
    """What became of each host of a run, and why the run ended early, if it did."""

    out: Path
    stopped: str = ""
    rows: dict[str, tuple[object, ...]] = field(default_factory=dict)

    def stop(self, why: str) -> None:
        """Begin nothing any more; the first reason counts."""
        self.stopped = self.stopped or why

    def failed(self, name: str, why: str) -> None:
        """A host that was not visited at all."""
        self.rows[name] = (name, "failed", 0, 0, 0.0, None, why)

    def finish(self, folder: Folder, manifest: Manifest, seconds: float) -> None:
        """Write down how a visit ended."""
        manifest.finished = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            folder.save(manifest)
        except OSError as error:
            self.stop(f"cannot write to {folder.path}: {os.strerror(error.errno or 0)}; make room, then run again")
            manifest.state, manifest.why = "failed", self.stopped
        files = sum(record.state == "whole" for record in manifest.files)
        told = manifest.state, files, manifest.bytes, round(seconds, 1), manifest.clock_offset, manifest.why
        self.rows[manifest.host] = (manifest.host, *told)

    def collection(self, names: Iterable[str], trusted: Iterable[str] = (), missing: Iterable[str] = ()) -> Collection:
        """The run so far, a row a name."""
        kinds = {"host": "string", "state": "string", "files": "Int64", "bytes": "Int64", "seconds": "Float64",
                 "clock_offset": "Float64", "why": "string"}  # fmt: skip
        why = f"the run had stopped: {self.stopped}"
        rows = [self.rows.get(name, (name, "not_tried", 0, 0, 0.0, None, why)) for name in names]
        hosts = pd.DataFrame(rows, columns=list(kinds)).astype(kinds)
        return Collection(self.out, hosts, tuple(trusted), "; ".join(filter(None, [self.stopped, *missing])))


@dataclass(kw_only=True)
class _Run(Ledger):
    access: Access
    module: str
    version_only: bool
    sftp: bool
    under_way: dict[str, tuple[Connection, Manifest, float]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    bytes_done: int = 0

    def visit_all(self, targets: list[Target], pool: int, progress: Progress | None) -> None:
        def look(done: int) -> None:
            now = time.monotonic()
            for link in self._links():
                if why := link.overdue(now):
                    link.cut(why)
            if progress:
                progress(self._doing(), done, len(targets))

        at_once([partial(self.visit_one, target) for target in targets], pool, look, self.stop)

    def _links(self) -> list[Connection]:
        with self.lock:
            return [link for link, _, _ in self.under_way.values()]

    def stop(self, why: str) -> None:
        """Whoever is under way is cut off, whoever waits is not let in; both write their manifests."""
        super().stop(why)
        self.access.gate.close(f"the run had stopped: {self.stopped}")
        for link in self._links():
            link.cut(self.stopped)

    def _doing(self) -> str:
        with self.lock:
            total = self.bytes_done + sum(manifest.bytes for _, manifest, _ in self.under_way.values())
            slowest = min(self.under_way.values(), key=lambda entry: entry[2], default=None)
        text = f"{total / 1e6:,.1f} MB"
        if slowest is not None:
            text += f", slowest {slowest[0].target.name} ({time.monotonic() - slowest[2]:.0f} s, {printable(slowest[0].doing, 40)})"
        return text

    def so_far(self, targets: list[Target]) -> Collection:
        self.stopped = self.stopped or ("three refused logins in a row" if self.access.gate.shut else "")
        return self.collection([target.name for target in targets], self.access.keys.trusted)

    def visit_one(self, target: Target) -> None:
        begun = time.monotonic()
        link = Connection(target, begun + self.access.limits.total, self.access.limits.connect + 5)
        try:
            folder = Folder(self.out, target.name)
            manifest = folder.manifest() or Manifest(target.name)
        except OSError as error:
            self.stop(f"cannot write to {self.out}: {error.strerror}")
            self.failed(target.name, self.stopped)
            return
        manifest.bytes, manifest.why, manifest.clock_offset = 0, "", None
        with self.lock:
            self.under_way[target.name] = (link, manifest, begun)
        try:
            self._visit(link, folder, manifest)
        finally:
            link.close()
            with self.lock:
                del self.under_way[target.name]
                self.bytes_done += manifest.bytes
            self.finish(folder, manifest, time.monotonic() - begun)

    def _visit(self, link: Connection, folder: Folder, manifest: Manifest) -> None:
        target, limits = link.target, self.access.limits
        manifest.host, manifest.address, manifest.port = target.name, target.address, target.port
        manifest.user, manifest.state = target.user or self.access.user, "failed"
        if self.access.gate.shut:
            manifest.state, manifest.why = "not_tried", f"not tried: {self.access.gate.shut}"
            return
        try:
            connect(link, self.access)
            manifest.host_key = link.fingerprint
            manifest.state, link.patience = "partial", limits.idle
            remote = Remote(link, self.sftp, limits.command)
            visit_host(Visit(remote, folder, manifest, limits), self.module, self.version_only)
            open_ends = [r for r in manifest.files if r.state in ("partial", "failed", "skipped")]
            manifest.state = "partial" if open_ends else "complete"
            words, ahead = [f"{r.path}: {r.detail}" for r in open_ends[:3]], manifest.clock_offset or 0.0
            if abs(ahead) > CLOCK_WARNED:
                side = "ahead" if ahead > 0 else "behind"
                words.append(f"its clock is {abs(ahead):.0f} s {side}; its times are as it tells them")
            manifest.why = "; ".join(words)
        except CollectError as error:
            manifest.why = str(error).removeprefix(f"{target.name}: ")
            state = "interrupted" if self.stopped else manifest.state
            manifest.state = "not_tried" if isinstance(error, NotTried) else state
        except LocalTrouble as error:
            manifest.why = str(error)
            self.stop(str(error))
        except Exception as error:  # a server found a way that we did not think of: it costs this host only
            manifest.why = f"{type(error).__name__}: {printable(error)}; please report this"
