"""The evidence folder of a host: safe names, private files, and the manifest of what came from where.

A file comes as ``name.part`` and takes its name when it is whole. What is about to be replaced by other bytes is kept in
``earlier/``: a host throws its old logs away, we do not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
import pandas as pd

from psodlib.collector.plan import folder_name

MANIFEST = "manifest.json"


@dataclass
class Record:
    """One file of the manifest: where it stood, where it is, and whether it is whole.

    ``state``: whole; partial (a ``.part`` holds what came); absent (the host has none); failed; skipped (a limit, or no
    room); earlier (the host has it no more). ``path`` of a command is the command.
    """

    path: str
    local: str | None
    size: int | None = None
    mtime: int | None = None
    sha256: str | None = None
    state: Literal["whole", "partial", "absent", "failed", "skipped", "earlier"] = "failed"
    detail: str = ""


@dataclass
class Manifest:
    """What is known of one host's collection. No secret has a place in it."""

    host: str
    address: str = ""
    port: int = 22
    user: str = ""
    host_key: str = ""
    started: str = ""
    finished: str = ""
    state: str = "failed"  # complete, partial (some files), failed (no login), interrupted, not_tried
    why: str = ""
    transfer: str = ""  # sftp, shell
    clock_offset: float | None = None  # seconds that the host's clock is ahead of ours
    bytes: int = 0  # fetched in this run
    files: list[Record] = field(default_factory=list)
    refused_names: list[str] = field(default_factory=list)

    def get(self, path: str) -> Record | None:
        """The record of a path; None if there is none."""
        return next((record for record in self.files if record.path == path and record.state != "earlier"), None)

    def put(self, record: Record) -> Record:
        """Set the record of its path."""
        self.files = [old for old in self.files if old.path != record.path or old.state == "earlier"] + [record]
        return record


class Folder:
    """The local side of one host."""

    def __init__(self, root: Path, host: str) -> None:
        self.path = root / folder_name(host)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def manifest(self) -> Manifest | None:
        """The manifest of the run before; None where there is none that we wrote: it may have come from somebody else."""
        try:
            manifest = msgspec.json.decode((self.path / MANIFEST).read_bytes(), type=Manifest)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        # Names as `local` makes them: nothing else is opened, moved or removed.
        parts = [part for record in manifest.files if record.local is not None for part in record.local.split("/")]
        return manifest if all(re.fullmatch(r"[A-Za-z0-9_.-]+", part) and part.strip(".") for part in parts) else None

    def save(self, manifest: Manifest) -> None:
        """Write the manifest, all or nothing. Every character beyond ASCII is escaped."""
        spare = self.path / f".{MANIFEST}.part"
        with self.open(spare.name, "wb") as file:
            file.write(json.dumps(asdict(manifest), indent=1).encode("ascii"))
        os.replace(spare, self.path / MANIFEST)

    def local(self, remote: str) -> str:
        """The local name of a remote path of the plan, below the host's folder; no other path has it, on no file system."""
        parts = [part for part in re.sub(r"[^A-Za-z0-9_./-]", "_", remote).split("/") if part.strip(".")]
        local = "/".join(parts)
        # Capitals may be small letters to our disk, and a .part is our own.
        if f"/{local}" != remote or local != local.lower() or local.endswith(".part"):
            local += f"-{hashlib.sha256(remote.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"
        return local

    def open(self, name: str, mode: str) -> BinaryIO:
        """Open a file below the host's folder, readable by its owner only; no link is followed."""
        path = self.path / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        no_link = getattr(os, "O_NOFOLLOW", 0)
        return open(path, mode, opener=lambda file, flags: os.open(file, flags | no_link, 0o600))  # type: ignore[return-value]

    def size(self, name: str) -> int | None:
        """Size of a plain file; None where there is none."""
        try:
            info = os.lstat(self.path / name)
        except OSError:
            return None
        return info.st_size if stat.S_ISREG(info.st_mode) else None

    def copy(self, name: str, to: str) -> None:
        """Copy a file's bytes."""
        with self.open(name, "rb") as source, self.open(to, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)

    def keep(self, record: Record, manifest: Manifest, data: bytes) -> None:
        """Write a file whose bytes are all here."""
        with self.open(f"{record.local}.part", "wb") as file:
            file.write(data)
        self.finish(record, manifest)
        manifest.bytes += len(data)

    def finish(self, record: Record, manifest: Manifest) -> None:
        """A whole ``.part`` takes its name; other bytes that had it are kept in ``earlier/``."""
        part, final = self.path / f"{record.local}.part", self.path / str(record.local)
        with part.open("rb") as file:
            record.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if self.size(str(record.local)) is not None:
            self._set_aside(record, manifest, final, part)
        os.replace(part, final)
        if record.mtime is not None and 0 < record.mtime < 7_258_118_400:
            os.utime(final, (record.mtime, record.mtime))
        record.size, record.state = os.path.getsize(final), "whole"

    def _set_aside(self, record: Record, manifest: Manifest, old: Path, part: Path) -> None:
        with old.open("rb") as before, part.open("rb") as after:
            while (block := before.read(1 << 20)) and after.read(len(block)) == block:
                pass
            if not block:
                return  # the log only grew
            before.seek(0)
            digest = hashlib.file_digest(before, "sha256").hexdigest()
        name = f"earlier/{digest[:12]}-{old.name}"
        (self.path / "earlier").mkdir(mode=0o700, exist_ok=True)
        os.replace(old, self.path / name)
        if not any(r.sha256 == digest and r.state == "earlier" for r in manifest.files):
            manifest.files.append(Record(record.path, name, self.size(name), None, digest, "earlier"))

    def drop_copies(self, manifest: Manifest) -> None:
        """Remove from ``earlier/`` what a rotation only renamed."""
        whole = {record.sha256 for record in manifest.files if record.state == "whole"}
        for record in [r for r in manifest.files if r.state == "earlier" and r.sha256 in whole]:
            with contextlib.suppress(OSError):
                (self.path / str(record.local)).unlink()
            manifest.files.remove(record)

    def set_aside_outputs(self, started: str) -> None:
        """Move the outputs of the run before into a folder of their time: an older version is evidence too."""
        old = self.path / "commands"
        names = [entry.name for entry in old.iterdir() if entry.is_file()] if old.is_dir() else []
        stamp = re.sub(r"[^0-9T]", "", started)[:15] or datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        for name in names:
            (old / stamp).mkdir(mode=0o700, exist_ok=True)
            os.replace(old / name, old / stamp / name)


def ascertainment(out: str | Path) -> pd.DataFrame:
    """Which hosts gave (``gave``) a dump's log, logs only, outputs only or nothing, and why not more: ``host``, ``gave``, ``why``."""
    rows = []
    for path in sorted(Path(out).glob(f"*/{MANIFEST}")):
        if (manifest := Folder(path.parent.parent, path.parent.name).manifest()) is None:
            continue
        whole = [str(record.local) for record in manifest.files if record.state in ("whole", "earlier")]
        logs = any(not name.startswith("commands/") for name in whole)
        dump = any("vmkernel-log" in name for name in whole)
        troubled = [r for r in manifest.files if r.detail and r.state in ("partial", "failed", "skipped")]
        why = "; ".join(filter(None, [manifest.why, *(f"{r.path}: {r.detail}" for r in troubled)]))
        rows.append((manifest.host, "dump" if dump else "logs" if logs else "outputs" if whole else "nothing", why))
    return pd.DataFrame(rows, columns=["host", "gave", "why"], dtype="string")
