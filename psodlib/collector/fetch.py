"""Files of one host -> its folder: resumed where the bytes agree, anew where they do not, and whole only when checked."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from psodlib.collector.folder import Folder, Manifest, Record
from psodlib.collector.plan import Logs
from psodlib.collector.remote import Entry, Remote, RemoteError, same_hash

HEAD = 64 << 10  # bytes at the begin of a file that tell whether it is still the same file
OVERLAP = 4 << 10  # bytes before the offset that must agree too
SAVED_EVERY = 64 << 20
ROUNDS = 3  # a log that rotates under our hands is listed anew, so often


def fetch_group(remote: Remote, folder: Folder, manifest: Manifest, most: int, group: Logs) -> None:
    """Fetch what is new of one entry of the plan."""
    for _ in range(ROUNDS):
        entries = _listed(remote, group, manifest)
        rotated = False
        # Oldest first: a rotation renames .5 to .6, so our .5 is still there when .6 wants its bytes.
        for entry in sorted(entries, key=lambda e: _age(e.path), reverse=True):
            rotated |= fetch(remote, folder, manifest, most, entry, {e.path for e in entries})
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


def fetch(
    remote: Remote, folder: Folder, manifest: Manifest, most: int, entry: Entry, siblings: Iterable[str] = ()
) -> bool:
    """Fetch one file, if it is new."""
    old = manifest.get(entry.path)
    local = folder.local(entry.path)
    # Two archives of one second and size cannot be told apart by their listing: their bytes decide below.
    if (
        old
        and entry.mtime
        and folder.size(local) == entry.size
        and [r.path for r in manifest.files if _could_be(r, entry)] == [entry.path]
    ):
        return False
    if entry.size > most - manifest.bytes:
        detail = f"{entry.size} bytes would pass the limit of {most} a host"
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
