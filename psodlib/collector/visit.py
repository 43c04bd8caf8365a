"""One host from connect to close: commands first, then logs, then the logs of dumps. Every step leaves the manifest true."""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from psodlib.collector.dumps import extract_dumps
from psodlib.collector.fetch import fetch_group
from psodlib.collector.folder import Folder, Manifest, Record
from psodlib.collector.plan import COMMANDS, LOGS, Command, output_name
from psodlib.collector.remote import MAX_OUTPUT, Remote
from psodlib.errors import CollectError, InputError
from psodlib.evidence.artifacts.commands import parse_date

HUNG = 3  # commands without an answer, after which the host is asked for files only


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one host's visit, in seconds and bytes.

    ``command`` and ``extract`` (a dump's log) are seconds without a byte after which a command is left alone, and four
    times as many are all that it gets; ``idle`` are those without a byte after which the connection is cut off.
    """

    connect: float = 10
    login: float = 30
    command: float = 30
    extract: float = 600
    idle: float = 60
    total: float = 1800
    bytes: int = 4 << 30

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not 0 < value < float("inf"):  # nor nan
                raise InputError(f"the limit {limit.name} is {value}; expected a number above 0 and below infinity")


class LocalTrouble(Exception):
    """Our own side cannot go on (a full disk): no other host will fare better."""


def visit(remote: Remote, folder: Folder, manifest: Manifest, limits: Limits, module: str, version_only: bool) -> None:
    """Fetch from one host what is new."""
    manifest.transfer = "sftp" if remote.sftp else "shell"
    try:
        _fetch_outputs(remote, folder, manifest, limits.bytes, module, version_only)
        folder.save(manifest)
        if not version_only:
            for group in LOGS:
                fetch_group(remote, folder, manifest, limits.bytes, group)
            extract_dumps(remote, folder, manifest, limits.bytes, limits.extract)
            folder.drop_copies(manifest)
    except CollectError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LocalTrouble(
                f"the disk is full ({folder.path}); make room, then run again: it goes on where it stopped"
            ) from None
        raise LocalTrouble(f"cannot write to {folder.path}: {error.strerror or type(error).__name__}") from None
    finally:
        manifest.refused_names = remote.odd_names


# --- commands ---------------------------------------------------------------------------------------------------------


def _fetch_outputs(
    remote: Remote, folder: Folder, manifest: Manifest, most: int, module: str, version_only: bool
) -> None:
    folder.set_aside_outputs(manifest.started)
    manifest.started = datetime.now(UTC).isoformat(timespec="seconds")
    manifest.files = [r for r in manifest.files if not _is_output(r)]
    hung = 0
    for command in COMMANDS:
        if version_only and not command.version:
            continue
        if hung < HUNG:
            hung += _fetch_output(remote, folder, manifest, most, command, module)
        else:
            line = command.lines[0].format(module=module)
            manifest.put(Record(line, None, state="skipped", detail=f"{HUNG} commands before it gave no answer"))


def _is_output(record: Record) -> bool:
    return not record.path.startswith("/")


def _fetch_output(remote: Remote, folder: Folder, manifest: Manifest, most: int, command: Command, module: str) -> bool:
    # The first alternative that prints something; which is absent, and why, is in the manifest. True where none answered.
    record, hung = Record("", None), False
    for line in (text.format(module=module) for text in command.lines):
        before = time.time()
        said = remote.run(line, min(MAX_OUTPUT, max(0, most - manifest.bytes)))
        record = Record(line, f"commands/{output_name(line)}", state="absent")
        hung = said.hung
        if said.code not in (0, None) or (hung and not said.cut) or not said.data.strip():
            record.detail = said.cut or said.complaint
            continue
        if line == "date":
            manifest.clock_offset = _clock_offset(said.data, (before + time.time()) / 2)
        part = f"{record.local}.part"
        with folder.open(part, "wb") as file:
            file.write(said.data)
        folder.finish(record, manifest)
        record.state, record.detail = "partial" if said.cut else "whole", said.cut
        manifest.bytes += len(said.data)
        break
    if record.state == "absent":
        record.local, record.state = None, "failed" if hung else "absent"
    manifest.put(record)
    return hung


def _clock_offset(data: bytes, ours: float) -> float | None:
    told = parse_date(data[:200].decode("utf-8", "replace"))
    return None if told is None else round(told.timestamp() - ours, 1)
