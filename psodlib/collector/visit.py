"""One host from connect to close: commands first, then logs, then the logs of dumps. Every step leaves the manifest true."""

from __future__ import annotations

import errno
import posixpath
import re
import secrets
import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from psodlib.collector.folder import Folder, Manifest, Record
from psodlib.collector.login import printable
from psodlib.collector.plan import (
    COMMANDS,
    DATASTORES,
    DUMPS,
    EXTRACTORS,
    LOGS,
    ROOM,
    ROOM_FOLDERS,
    Command,
    Logs,
    output_name,
)
from psodlib.collector.remote import Entry, Remote, RemoteError, same_hash
from psodlib.errors import CollectError
from psodlib.evidence.artifacts.commands import parse_date

__all__ = ["Limits", "LocalTrouble", "visit"]

HEAD = 64 << 10  # bytes at the begin of a file that tell whether it is still the same file
OVERLAP = 4 << 10  # bytes before the offset that must agree too
SAVED_EVERY = 64 << 20
ROUNDS = 3  # a log that rotates under our hands is listed anew, so often


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one host's visit, in seconds and bytes."""

    connect: float = 10
    login: float = 30
    idle: float = 60
    total: float = 1800
    bytes: int = 4 << 30


class LocalTrouble(Exception):
    """Our own side cannot go on (a full disk): no other host will fare better."""


def visit(remote: Remote, folder: Folder, manifest: Manifest, limits: Limits, module: str, version_only: bool) -> None:
    """Fetch from one host what is new.

    Parameters
    ----------
    remote : Remote
        Logged in.
    folder : Folder
        The host's.
    manifest : Manifest
        Of the run before or empty; brought up to date step by step, whatever happens.
    limits : Limits
        Of the visit.
    module : str
        Checked name of the driver.
    version_only : bool
        Only the commands that tell versions.

    Raises
    ------
    CollectError
        The connection is gone.
    LocalTrouble
        The disk is full or not writable.
    """
    manifest.transfer = "sftp" if remote.sftp else "shell"
    try:
        _fetch_outputs(remote, folder, manifest, module, version_only)
        folder.save(manifest)
        if not version_only:
            for group in LOGS:
                _fetch_group(remote, folder, manifest, limits, group)
            _extract_dumps(remote, folder, manifest, limits)
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


def _fetch_outputs(remote: Remote, folder: Folder, manifest: Manifest, module: str, version_only: bool) -> None:
    folder.set_aside_outputs(manifest.started)
    manifest.started = datetime.now(UTC).isoformat(timespec="seconds")
    manifest.files = [r for r in manifest.files if not _is_output(r)]
    for command in COMMANDS:
        if command.version or not version_only:
            _fetch_output(remote, folder, manifest, command, module)


def _is_output(record: Record) -> bool:
    return not record.path.startswith("/")


def _fetch_output(remote: Remote, folder: Folder, manifest: Manifest, command: Command, module: str) -> None:
    # The first alternative that prints something; which is absent, and why, is in the manifest.
    record = Record("", None)
    for line in (text.format(module=module) for text in command.lines):
        before = time.time()
        said = remote.run(line)
        record = Record(line, f"commands/{output_name(line)}", state="absent")
        if said.code not in (0, None) or not said.data.strip():
            record.detail = _complaint(said.error or said.data, said.code)
            continue
        if line == "date":
            manifest.clock_offset = _clock_offset(said.data, (before + time.time()) / 2)
        part = f"{record.local}.part"
        with folder.open(part, "wb") as file:
            file.write(said.data)
        folder.finish(record, manifest)
        record.state, record.detail = ("partial", "more output than is taken; cut") if said.cut else ("whole", "")
        manifest.bytes += len(said.data)
        break
    if record.local is not None and record.state == "absent":
        record.local = None
    manifest.put(record)


def _complaint(text: bytes, code: int | None) -> str:
    words = printable(text.decode("utf-8", "replace").strip().split("\n")[0], 120)
    return words or f"no output, exit code {code}"


def _clock_offset(data: bytes, ours: float) -> float | None:
    told = parse_date(data[:200].decode("utf-8", "replace"))
    return None if told is None else round(told.timestamp() - ours, 1)


# --- logs -------------------------------------------------------------------------------------------------------------


def _fetch_group(remote: Remote, folder: Folder, manifest: Manifest, limits: Limits, group: Logs) -> None:
    for _ in range(ROUNDS):
        entries = _listed(remote, group, manifest)
        rotated = False
        # Oldest first: a rotation renames .5 to .6, so our .5 is still there when .6 wants its bytes.
        for entry in sorted(entries, key=lambda e: _age(e.path), reverse=True):
            rotated |= _fetch(remote, folder, manifest, limits, entry, {e.path for e in entries})
            folder.save(manifest)
        if not rotated:
            break


def _listed(remote: Remote, group: Logs, manifest: Manifest) -> list[Entry]:
    nothing = Record(f"{group.folders[0]}/{group.label}", None, state="absent", detail="no such file")
    manifest.put(nothing)
    for place in group.folders:
        entries = remote.listing(place, group.name)
        if entries:
            manifest.files.remove(nothing)
            return entries
    return []


def _age(path: str) -> int:
    number = re.search(r"\.(\d{1,3})(?:\.gz)?$", path)
    return int(number[1]) if number else -1


def _fetch(
    remote: Remote, folder: Folder, manifest: Manifest, limits: Limits, entry: Entry, siblings: Iterable[str] = ()
) -> bool:
    # One file; True where it was rotated while it was read.
    old = manifest.get(entry.path)
    local = folder.local(entry.path)
    # Two archives of one second and size cannot be told apart by their listing: their bytes decide below.
    if (
        old
        and folder.size(local) == entry.size
        and [r.path for r in manifest.files if _could_be(r, entry)] == [entry.path]
    ):
        return False
    if entry.size > limits.bytes - manifest.bytes:
        detail = f"{entry.size} bytes would pass the limit of {limits.bytes} a host"
        manifest.put(
            old
            if old and old.state == "whole"
            else Record(entry.path, None, entry.size, entry.mtime, None, "skipped", detail)
        )
        return False
    record = manifest.put(Record(entry.path, local, entry.size, entry.mtime, state="partial", detail="not finished"))
    try:
        offset = _begin(remote, folder, manifest, entry, old)
        _take(remote, folder, manifest, record, entry, offset)
        if offset and not _still_agrees(remote, folder, f"{local}.part", entry):
            record.detail = "rotated while it was continued: the bytes differ; fetched anew"
            return True
        return _check(remote, folder, manifest, record, entry, siblings)
    except RemoteError as error:
        held = folder.size(f"{local}.part")
        record.state, record.detail = "partial" if held else "failed", f"cannot be read: {error}"
        return False


def _could_be(record: Record, entry: Entry) -> bool:
    same = record.state == "whole" and (record.size, record.mtime) == (entry.size, entry.mtime)
    return same and _family(record.path) == _family(entry.path)


def _begin(remote: Remote, folder: Folder, manifest: Manifest, entry: Entry, old: Record | None) -> int:
    # Puts into .part what we already have of the file, if its head and its end prove it; gives the offset to go on from.
    part = f"{folder.local(entry.path)}.part"
    # A .part counts even without its record, which a full disk may have cost; not one that the host's hash disowned.
    candidates = [] if old and "differ" in old.detail else [part]
    candidates.append(folder.local(entry.path))
    renamed = (r for r in manifest.files if _could_be(r, entry) and r.path != entry.path)
    candidates += [r.local for r in renamed if r.local]
    for name in candidates:
        have = folder.size(name)
        if have and have <= entry.size and _agrees(remote, folder, name, have, entry.path):
            if name != part:
                folder.copy(name, part)
            return have
    with folder.open(part, "wb"):
        return 0


def _family(path: str) -> str:
    return re.split(r"\.(?:log|\d)", posixpath.basename(path))[0]


def _agrees(remote: Remote, folder: Folder, name: str, have: int, path: str) -> bool:
    # The host's bytes at the head, and those before the offset, against ours.
    for begin, size in ((0, min(HEAD, have)), (max(0, have - OVERLAP), min(OVERLAP, have))):
        theirs = b"".join(remote.read(path, begin, size))
        with folder.open(name, "rb") as file:
            file.seek(begin)
            if file.read(size) != theirs:
                return False
    return True


def _take(remote: Remote, folder: Folder, manifest: Manifest, record: Record, entry: Entry, offset: int) -> None:
    unsaved = 0
    with folder.open(f"{record.local}.part", "ab") as file:
        for block in remote.read(entry.path, offset, entry.size - offset) if offset < entry.size else ():
            file.write(block)
            manifest.bytes += len(block)
            unsaved += len(block)
            if unsaved >= SAVED_EVERY:
                folder.save(manifest)
                unsaved = 0


def _check(
    remote: Remote, folder: Folder, manifest: Manifest, record: Record, entry: Entry, siblings: Iterable[str]
) -> bool:
    # Whole only if size, and where the shell read it also the host's own hash, agree.
    part = f"{record.local}.part"
    got = folder.size(part) or 0
    now = remote.size(entry.path)
    rotated = now is None or now < entry.size
    if got < entry.size:
        record.detail = (
            f"rotated while it was read: {got} of {entry.size} bytes"
            if rotated
            else f"the host said {entry.size} bytes and gave {got}"
        )
        return rotated and any(_family(path) == _family(entry.path) for path in siblings)
    if not remote.sftp and not rotated:
        said = remote.hash_of(entry.path, entry.size)
        with folder.open(part, "rb") as file:
            if said and not same_hash(file, said):
                record.detail = f"the bytes differ from the {said[0]} that the host computes; fetched anew next time"
                return False
        record.detail = "" if said else "size checked, the host has no tool for a hash"
    else:
        record.detail = ""
    if rotated and not _still_agrees(remote, folder, part, entry):
        record.mtime = None  # these bytes have another name by now; the next look fetches what has this one
    folder.finish(record, manifest)
    return rotated


def _still_agrees(remote: Remote, folder: Folder, part: str, entry: Entry) -> bool:
    try:
        return _agrees(remote, folder, part, min(entry.size, HEAD), entry.path)
    except RemoteError:
        return False


# --- dumps ------------------------------------------------------------------------------------------------------------


def _extract_dumps(remote: Remote, folder: Folder, manifest: Manifest, limits: Limits) -> None:
    dumps = remote.listing(DUMPS.folders[0], DUMPS.name) or []
    logs = {entry.path for entry in remote.listing(LOGS[0].folders[0], LOGS[0].name) or []}
    for dump in dumps:
        known = manifest.get(dump.path)
        if dump.path.replace("vmkernel-zdump", "vmkernel-log") in logs or (
            known and _is_extracted(known, dump, folder)
        ):
            continue
        record = manifest.put(Record(dump.path, None, dump.size, dump.mtime, None, "skipped", ""))
        place = _place_with_room(remote)
        if place is None:
            record.detail = f"no datastore folder with {ROOM >> 20} MB free to extract its log in; copy the dump away and extract it there"
        else:
            _extract(remote, folder, manifest, limits, record, dump, place)
        folder.save(manifest)


def _is_extracted(record: Record, dump: Entry, folder: Folder) -> bool:
    same = (
        record.state == "whole" and record.mtime == dump.mtime and record.detail == f"extracted from {dump.size} bytes"
    )
    return same and record.local is not None and folder.size(record.local) == record.size


def _place_with_room(remote: Remote) -> str | None:
    for place in ROOM_FOLDERS:
        real = remote.run(f"readlink -f {place}", 4096)
        free = remote.run(f"stat -f -c '%a %S' {place}/.", 4096)
        room = re.fullmatch(rb"(\d{1,15}) (\d{1,9})\s*", free.data)
        if real.data.startswith(DATASTORES.encode()) and room and int(room[1]) * int(room[2]) >= ROOM:
            return place
    return None


def _extract(
    remote: Remote, folder: Folder, manifest: Manifest, limits: Limits, record: Record, dump: Entry, place: str
) -> None:
    # Into a folder of our own, whose name is ours alone; it goes whatever happens.
    work = f"{place}/psod-collect-{secrets.token_hex(8)}"
    if remote.run(f"mkdir -m 700 {work}").code != 0:
        record.detail = f"no folder could be made in {place}"
        return
    try:
        for line in EXTRACTORS:
            said = remote.run(f"cd {work} && {line.format(dump=shlex.quote(dump.path))} >/dev/null")
            made = remote.listing(work, LOGS[0].name)
            if made:
                _fetch_extracted(remote, folder, manifest, limits, record, dump, made[0])
                break
            record.detail = f"its log could not be extracted: {_complaint(said.error, said.code)}"
    finally:
        _remove(remote, record, work)


def _fetch_extracted(
    remote: Remote, folder: Folder, manifest: Manifest, limits: Limits, record: Record, dump: Entry, made: Entry
) -> None:
    _fetch(remote, folder, manifest, limits, made)
    came = manifest.get(made.path)
    manifest.files = [r for r in manifest.files if r.path != made.path]
    if came is None or came.state != "whole" or came.local is None:
        record.detail = came.detail if came else ""
        return
    record.local = folder.local(dump.path).replace("vmkernel-zdump", "vmkernel-log")
    (folder.path / record.local).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder.path / came.local).replace(folder.path / f"{record.local}.part")
    (folder.path / came.local).parent.rmdir()
    folder.finish(record, manifest)
    record.detail = f"extracted from {dump.size} bytes"


def _remove(remote: Remote, record: Record, work: str) -> None:
    try:
        gone = remote.run(f"rm -rf {work}").code == 0
    except CollectError:
        gone = False
    if not gone:
        record.detail = f"{record.detail}; {work} was left on the host, remove it".lstrip("; ")
