"""The store's folder: one lock, files that are whole or absent, and one commit.

A file is written beside its name, flushed to the disk and renamed. No file changes after that: a load writes new ones, and
renaming ``manifest.json`` is the single moment at which they count. Killed before it, the store is what it was; killed after
it, only rubbish is left, which the next load sweeps.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from psodlib.errors import InputError

__all__ = ["SCHEMA", "Manifest", "commit", "is_store", "locked", "read_manifest", "read_whole", "sweep", "write_whole"]

SCHEMA = 1  # of the store's files; a store of another one is not read
_MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What counts at one moment.

    ``tables`` maps a table's name to its parts (``path``, ``month``, ``bucket``, ``rows``, ``sha256``); paths are below
    the store. ``parser`` and ``assembler`` are fingerprints of the code that read the files and that judged the
    readings.
    """

    schema: int = SCHEMA
    generation: int = 0
    buckets: int = 1
    parser: str = ""
    assembler: str = ""
    simulated: bool = False
    ledger: str | None = None
    segments: tuple[str, ...] = ()
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    walk: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # troubles of each source's walk
    before: tuple[str, ...] = ()  # files of the generation before, which a reader may still have open
    news: dict[str, Any] = field(default_factory=dict)  # what the last load did

    @property
    def files(self) -> set[str]:
        """Every file that this generation names."""
        parts = {part["path"] for table in self.tables.values() for part in table}
        return parts | set(self.segments) | ({self.ledger} if self.ledger else set())


def is_store(folder: Path) -> bool:
    """True for a folder that ``load(store=...)`` has committed to."""
    return (folder / _MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """The store's state; a new one for an empty or absent folder."""
    path = folder / _MANIFEST
    if not path.exists():
        strange = (
            sorted(p.name for p in folder.iterdir() if p.name not in ("lock", "readings", "tables"))
            if folder.is_dir()
            else []
        )
        strange = [name for name in strange if not name.endswith((".part", ".parquet")) or name == "crashes.parquet"]
        if strange or (folder.exists() and not folder.is_dir()):
            raise InputError(
                f"{folder}: no store (it has {', '.join(strange[:3]) or 'no folder'}); give a new or empty folder"
            )
        return Manifest()
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        schema = data.get("schema")
        if schema == SCHEMA:
            return Manifest(**{**data, "segments": tuple(data["segments"]), "before": tuple(data["before"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not a readable manifest ({error}); load into a new store") from error
    raise InputError(f"{path}: schema {schema}, expected {SCHEMA}; load into a new store")


def commit(folder: Path, manifest: Manifest) -> None:
    """Make a new state count: all of its files are on the disk, and one rename tells of them."""
    for path in sorted({(folder / name).parent for name in manifest.files}):
        _flush_folder(path)
    write_whole(folder / _MANIFEST, json.dumps(asdict(manifest), indent=1).encode())
    _flush_folder(folder)


def sweep(folder: Path, manifest: Manifest) -> None:
    """Remove what neither this generation nor the one before names."""
    kept = manifest.files | set(manifest.before) | {_MANIFEST, "lock"}
    for path in sorted(_files_below(folder)):
        if path.relative_to(folder).as_posix() not in kept:
            with suppress(OSError):  # still open elsewhere, on Windows; the next load sweeps it
                path.unlink()


def _files_below(folder: Path) -> Iterator[Path]:
    for top in ("readings", "tables"):
        yield from (path for path in (folder / top).rglob("*") if path.is_file())
    yield from (path for path in folder.glob("*") if path.suffix in (".part", ".parquet"))


def write_whole(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            for piece in [data] if isinstance(data, bytes) else data:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read_whole(path: Path) -> bytes:
    """A file of the store."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: a file of the store cannot be read ({error}); load into a new store") from error


def _flush_folder(path: Path) -> None:
    # A rename is on the disk when its folder is; Windows cannot open a folder and does it by itself.
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the store for one load; the system frees it when the process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / "lock", "a+b")  # noqa: SIM115 (held until the load is over)
    except OSError as error:
        raise InputError(f"{folder}: cannot be a store ({error})") from error
    with file:
        try:
            _take(file.fileno())
        except OSError as error:
            file.seek(0)
            holder = file.read(200).decode("utf-8", "replace").strip() or "another process"
            raise InputError(f"{folder}: {holder} is loading into this store; wait for it and run again") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
        yield


def _take(handle: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
