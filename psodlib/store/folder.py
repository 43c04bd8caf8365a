"""The store's folder: one lock, files that are whole or absent, and one commit.

A file is written beside its name, flushed to the disk and renamed. No file changes after that: a load writes new ones, and
renaming ``manifest.json`` is the single moment at which they count. Killed before it, the store is what it was; killed after
it, only rubbish is left, which the next load sweeps.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import msgspec
from filelock import FileLock, Timeout

from psodlib.errors import InputError, in_words
from psodlib.records import Problem

SCHEMA = 4  # of the store's files; of one before OLDEST tables are read, readings are not; a later one is not read
OLDEST = 3
_MANIFEST, _TOP = "manifest.json", ("lock", "holder", "readings", "tables")
_PART = r"tables/[a-z_]{1,40}/(?:all|month=[0-9a-z-]{4,7}/bucket=\d{4})/[0-9a-f]{24}\.parquet"
_LEDGER = r"tables/ledger/[0-9a-f]{24}\.(?:entries|parquet)"
_SEGMENT = r"readings/[0-9a-f]{24}\.seg"
# Every name that a store gives, and nothing else, may be swept.
_OURS = re.compile(rf"(?:{_PART}|{_LEDGER}|{_SEGMENT})(?:\.\d+\.part)?|manifest\.json\.\d+\.part")


def _named(pattern: str) -> msgspec.Meta:
    return msgspec.Meta(pattern=rf"\A{pattern}\Z")


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One Parquet file of a table."""

    path: Annotated[str, _named(_PART)]
    month: str
    bucket: int  # -1: the whole fleet's
    rows: Annotated[int, msgspec.Meta(ge=0)]
    sha256: str


Tables = dict[str, tuple[Part, ...]]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What counts at one moment; paths are below the store.

    ``parser`` and ``assembler`` are fingerprints of the code that read the files and that judged the readings.
    """

    schema: int = SCHEMA
    check: str = ""  # sha256 of this manifest with an empty ``check``
    generation: int = 0
    buckets: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 1
    parser: str = ""
    assembler: str = ""
    simulated: bool = False
    ledger: Annotated[str, _named(_LEDGER)] | None = None
    segments: tuple[Annotated[str, _named(_SEGMENT)], ...] = ()
    tables: Tables = {}
    walk: dict[str, tuple[Problem, ...]] = {}  # troubles of each source's walk
    before: tuple[str, ...] = ()  # files of the generation before, which a reader may still have open
    earlier: Tables = {}  # the tables before the last load that changed any: what "since last time" means
    news: dict[str, int | bool] = {}  # what the last load did

    @property
    def files(self) -> set[str]:
        """Every file that this generation names."""
        parts = {part.path for tables in (self.tables, self.earlier) for parts in tables.values() for part in parts}
        return parts | set(self.segments) | ({self.ledger} if self.ledger else set())


def damaged(path: Path, what: object) -> InputError:
    """The error for a file of the store that is not as it was written."""
    store = next((above for above in path.parents if (above / _MANIFEST).is_file()), path.parent)
    return InputError(
        f"{path}: damaged ({what}); psod load SOURCES --store {store} --verify makes tables anew from what was "
        "kept and reads damaged readings again; where that does not help, load into a new store"
    )


def is_store(folder: Path) -> bool:
    """True for a folder that ``load(store=...)`` has committed to."""
    path = folder / _MANIFEST
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return not re.match(rb'\{\s*"host"', file.read(64))  # what the collector wrote of a host bears the same name


def read_manifest(folder: Path) -> Manifest:
    """The store's state; a new one for an empty or absent folder."""
    path = folder / _MANIFEST
    if not path.exists():
        found = sorted(os.listdir(folder)) if folder.is_dir() else ["no folder"] if folder.exists() else []
        strange = [name for name in found if not (_OURS.fullmatch(name) or name in _TOP)]
        if strange:
            raise InputError(f"{folder}: no store (it has {', '.join(strange[:3])}); give a new or empty folder")
        return Manifest()
    try:
        data = path.read_bytes()
        found = msgspec.json.decode(data, type=_Versioned)
        if not 1 <= found.schema <= SCHEMA:
            raise InputError(f"{path}: schema {found.schema}, expected {SCHEMA}; load into a new store")
        manifest = msgspec.json.decode(data, type=Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable manifest ({error}); load into a new store") from error
    if manifest.schema > 1 and _checked(manifest).check != manifest.check:
        raise InputError(f"{path}: not a readable manifest (its own hash is another); load into a new store")
    return manifest


class _Versioned(msgspec.Struct):
    schema: int


def _checked(manifest: Manifest) -> Manifest:
    bare = msgspec.structs.replace(manifest, check="")
    return msgspec.structs.replace(bare, check=hashlib.sha256(msgspec.json.encode(bare)).hexdigest())


def commit(folder: Path, manifest: Manifest) -> None:
    """Make a new state count: all of its files are on the disk, and one rename tells of them."""
    for path in sorted({(folder / name).parent for name in manifest.files}):
        _flush_folder(path)
    write_whole(folder / _MANIFEST, msgspec.json.format(msgspec.json.encode(_checked(manifest)), indent=1))
    _flush_folder(folder)


def sweep(folder: Path, manifest: Manifest) -> None:
    """Remove what neither this generation nor the one before names, of the names that a store gives."""
    kept = manifest.files | set(manifest.before)
    for top in ("readings", "tables", "."):
        for path in sorted((folder / top).glob("*" if top == "." else "**/*")):
            name = path.relative_to(folder).as_posix()
            if name not in kept and _OURS.fullmatch(name):
                with suppress(OSError):  # still open elsewhere, on Windows; the next load sweeps it
                    path.unlink()


def write_whole(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            for piece in [data] if isinstance(data, bytes) else data:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read_checked(path: Path, sha256: str) -> bytes:
    """A file of the store, held against its hash or the beginning of it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise damaged(path, error.strerror or error) from error
    if not hashlib.sha256(data).hexdigest().startswith(sha256 or "-"):
        raise damaged(path, "its bytes are not those that were written")
    return data


def _flush_folder(path: Path) -> None:
    # A rename is on the disk when its folder is; Windows cannot open a folder and does it by itself.
    if os.name != "nt":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the store for one load; the system frees it when the process ends, however it ends."""
    holder = folder / "holder"
    for name in (_MANIFEST, *_TOP):
        if (folder / name).is_symlink():  # of somebody else's store: a load would write, and sweep, where it leads
            raise InputError(
                f"{folder / name}: a link, which no store has; copy the store without it, or load into a new one"
            )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what hosts said is for their owner
        lock = FileLock(folder / "lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        who = holder.read_text(errors="replace")[:200] if holder.is_file() else "another process"
        raise InputError(f"{folder}: {who} is loading into this store; wait for it and run again") from error
    except (OSError, NotImplementedError) as error:
        raise InputError(f"{folder}: cannot be a store ({in_words(error)})") from error
    with lock:
        with suppress(OSError):  # only words for whoever comes second; a full disk is told by the load itself
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        try:
            yield
        except OSError as error:
            raise InputError(f"{folder}: {error}; the store is as it was before, run again") from error
