"""Files of one host -> its folder: resumed where the bytes agree, anew where they do not, and whole only when checked."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

from psodlib.collector.folder import Folder, Manifest, Record
from psodlib.collector.plan import Limits, Logs
from psodlib.collector.remote import Entry, Remote, RemoteError, same_hash

HEAD = 64 << 10  # bytes at the begin of a file that tell whether it is still the same file
OVERLAP = 4 << 10  # bytes before the offset that must agree too
SAVED_EVERY = 64 << 20
ROUNDS = 3  # a log that rotates under our hands is listed anew, so often


@dataclass(frozen=True, slots=True)
class Visit:
    """One host under way: its side, ours, what is known of its files, and how much may be taken."""

    remote: Remote
    folder: Folder
    manifest: Manifest
    limits: Limits

    @property
    def left(self) -> int:
        """Bytes that may still be taken."""
        return max(0, self.limits.bytes - self.manifest.bytes)

    def save(self) -> None:
        """Write the manifest."""
        self.folder.save(self.manifest)


def fetch_group(visit: Visit, group: Logs) -> None:
    """Fetch what is new of one entry of the plan."""
    for _ in range(ROUNDS):
        entries: list[Entry] = []
        nothing = visit.manifest.put(
            Record(f"{group.folders[0]}/{group.label}", None, state="absent", detail="no such file")
        )
        for place in group.folders:
            if entries := visit.remote.listing(place, group.name) or []:
                visit.manifest.files.remove(nothing)
                break
        rotated = False
        # Oldest first: a rotation renames .5 to .6, so our .5 is still there when .6 wants its bytes.
        for entry in sorted(entries, key=lambda e: _age(e.path), reverse=True):
            rotated |= fetch(visit, entry, {e.path for e in entries})
            visit.save()
        if not rotated:
            break


def _age(path: str) -> int:
    number = re.search(r"\.(\d{1,3})(?:\.gz)?$", path)
    return int(number[1]) if number else -1


def fetch(visit: Visit, entry: Entry, siblings: Iterable[str] = ()) -> bool:
    """Fetch one file, if it is new; True where it rotated meanwhile."""
    folder, manifest = visit.folder, visit.manifest
    old, local = manifest.get(entry.path), folder.local(entry.path)
    # Two archives of one second and size cannot be told apart by their listing: their bytes decide below.
    same = [record.path for record in manifest.files if _could_be(record, entry)]
    if old and entry.mtime and folder.size(local) == entry.size and same == [entry.path]:
        return False
    if entry.size > visit.left:
        detail = f"{entry.size} bytes would pass the limit of {visit.limits.bytes} a host"
        if not (old and old.state == "whole"):
            manifest.put(Record(entry.path, None, entry.size, entry.mtime, None, "skipped", detail))
        return False
    record = manifest.put(Record(entry.path, local, entry.size, entry.mtime, state="partial", detail="not finished"))
    try:
        offset = _begin(visit, entry, old)
        _take(visit, record, entry, offset)
        if offset and not _still_agrees(visit, f"{local}.part", entry):
            record.detail = "rotated while it was continued: the bytes differ; fetched anew"
            return True
        return _check(visit, record, entry, siblings)
    except RemoteError as error:
        held = folder.size(f"{local}.part")
        record.state, record.detail = "partial" if held else "failed", f"cannot be read: {error}"
        return False


def _could_be(record: Record, entry: Entry) -> bool:
    same = record.state == "whole" and (record.size, record.mtime) == (entry.size, entry.mtime)
    return same and _family(record.path) == _family(entry.path)


def _begin(visit: Visit, entry: Entry, old: Record | None) -> int:
    # Puts into .part what we already have of the file, if its head and its end prove it; gives the offset to go on from.
    folder, local = visit.folder, visit.folder.local(entry.path)
    part = f"{local}.part"
    # A .part counts even without its record, which a full disk may have cost; not one that the host's hash disowned.
    candidates = [local] if old and "differ" in old.detail else [part, local]
    renamed = (r for r in visit.manifest.files if _could_be(r, entry) and r.path != entry.path)
    candidates += [r.local for r in renamed if r.local]
    for name in candidates:
        have = folder.size(name)
        if have and have <= entry.size and _agrees(visit, name, have, entry.path):
            if name != part:
                folder.copy(name, part)
            return have
    with folder.open(part, "wb"):
        return 0


def _family(path: str) -> str:
    return re.split(r"\.(?:log|\d)", posixpath.basename(path))[0]


def _agrees(visit: Visit, name: str, have: int, path: str) -> bool:
    # The host's bytes at the head, and those before the offset, against ours.
    for begin, size in ((0, min(HEAD, have)), (max(0, have - OVERLAP), min(OVERLAP, have))):
        theirs = b"".join(visit.remote.read(path, begin, size))
        with visit.folder.open(name, "rb") as file:
            file.seek(begin)
            if file.read(size) != theirs:
                return False
    return True


def _still_agrees(visit: Visit, part: str, entry: Entry) -> bool:
    try:
        return _agrees(visit, part, min(entry.size, HEAD), entry.path)
    except RemoteError:
        return False


def _take(visit: Visit, record: Record, entry: Entry, offset: int) -> None:
    unsaved = 0
    with visit.folder.open(f"{record.local}.part", "ab") as file:
        for block in visit.remote.read(entry.path, offset, entry.size - offset) if offset < entry.size else ():
            file.write(block)
            visit.manifest.bytes += len(block)
            unsaved += len(block)
            if unsaved >= SAVED_EVERY:
                visit.save()
                unsaved = 0


def _check(visit: Visit, record: Record, entry: Entry, siblings: Iterable[str]) -> bool:
    # Whole only if size, and where the shell read it also the host's own hash, agree.
    part, remote = f"{record.local}.part", visit.remote
    got, now = visit.folder.size(part) or 0, remote.size(entry.path)
    rotated = now is None or now < entry.size
    if got < entry.size:
        record.detail = f"the host said {entry.size} bytes and gave {got}"
        if rotated:
            record.detail = f"rotated while it was read: {got} of {entry.size} bytes"
        return rotated and any(_family(path) == _family(entry.path) for path in siblings)
    record.detail = ""
    if not remote.sftp and not rotated:
        said = remote.hash_of(entry.path, entry.size)
        with visit.folder.open(part, "rb") as file:
            if said and not same_hash(file, said):
                record.detail = f"the bytes differ from the {said[0]} that the host computes; fetched anew next time"
                return False
        record.detail = "" if said else "size checked, the host has no tool for a hash"
    if rotated and not _still_agrees(visit, part, entry):
        record.mtime = None  # these bytes have another name by now; the next look fetches what has this one
    visit.folder.finish(record, visit.manifest)
    return rotated
