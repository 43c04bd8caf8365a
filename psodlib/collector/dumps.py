"""A dump's log is extracted on the host itself: into a folder with room that is ours alone, and goes whatever happens."""

from __future__ import annotations

import re
import secrets
import shlex

from psodlib.collector.fetch import Visit, fetch
from psodlib.collector.folder import Record
from psodlib.collector.plan import DATASTORES, DUMPS, EXTRACTORS, LOGS, ROOM, ROOM_FOLDERS
from psodlib.collector.remote import Entry, Remote, RemoteError

# What one block of `df` is, by its header: ESXi's own counts bytes, busybox's kibibytes.
_UNITS = {"bytes": 1, "1k-blocks": 1024, "1024-blocks": 1024}


def extract_dumps(visit: Visit) -> None:
    """Fetch the logs of those core dumps whose log nobody extracted."""
    dumps = visit.remote.listing(DUMPS.folders[0], DUMPS.name) or []
    logs = {entry.path for entry in visit.remote.listing(LOGS[0].folders[0], LOGS[0].name) or []}
    for dump in dumps:
        known, words = visit.manifest.get(dump.path), f"extracted from {dump.size} bytes"
        same = known and (known.state, known.mtime, known.detail) == ("whole", dump.mtime, words)
        if dump.path.replace("vmkernel-zdump", "vmkernel-log") in logs or (
            known and same and known.local and visit.folder.size(known.local) == known.size
        ):
            continue
        record = visit.manifest.put(Record(dump.path, None, dump.size, dump.mtime, None, "skipped", ""))
        place = _place_with_room(visit.remote)
        if place is None:
            record.detail = f"no datastore folder with {ROOM >> 20} MB free to extract its log in; copy the dump away and extract it there"
        else:
            _extract(visit, record, dump, place)
        visit.save()


def _place_with_room(remote: Remote) -> str | None:
    for place in ROOM_FOLDERS:
        # Where the folder's links lead, by the shell's own word: not every busybox has readlink.
        real = remote.run(f"cd {place} && pwd -P", 4096).data.decode("utf-8", "replace").strip()
        if real.startswith(DATASTORES) and _free(remote, place, real) >= ROOM:
            return place
    return None


def _free(remote: Remote, place: str, real: str) -> int:
    # Bytes; 0 where nobody tells.
    told = remote.run(f"stat -f -c '%a %S' {place}/.", 4096)
    room = re.fullmatch(rb"(\d{1,15}) (\d{1,9})\s*", told.data)
    if room:
        return int(room[1]) * int(room[2])
    lines = remote.run(f"df -k {place}/.", 64 << 10).data.decode("utf-8", "replace").split("\n")
    unit = next((_UNITS[word.lower()] for word in lines[0].split() if word.lower() in _UNITS), 0)
    for line in lines[1:]:
        row = re.fullmatch(r"\S+ +\d{1,18} +\d{1,18} +(\d{1,18}) +\d{1,3}% (/\S*)", line.strip())
        if row and f"{real}/".startswith(row[2].rstrip("/") + "/"):
            return int(row[1]) * unit
    return 0


def _extract(visit: Visit, record: Record, dump: Entry, place: str) -> None:
    work, remote = f"{place}/psod-collect-{secrets.token_hex(8)}", visit.remote
    try:
        with remote.workshop(work) as made:
            if not made:
                record.detail = f"no folder could be made in {place}"
                return
            for line in EXTRACTORS:
                command = f"cd {work} && {line.format(dump=shlex.quote(dump.path))} >/dev/null"
                said = remote.run(command, quiet=visit.limits.extract)
                if logs := remote.listing(work, LOGS[0].name):
                    _fetch_extracted(visit, record, dump, logs[0])
                    break
                record.detail = f"its log could not be extracted: {said.complaint}"
    except RemoteError as error:
        record.detail = f"no folder could be made in {place}: {error}"
    finally:
        if work in remote.left:
            words = f"the host removes {work} itself when it notices that the connection is gone; look whether it did"
            record.detail = "; ".join(filter(None, [record.detail, words]))


def _fetch_extracted(visit: Visit, record: Record, dump: Entry, made: Entry) -> None:
    fetch(visit, made)
    folder, manifest = visit.folder, visit.manifest
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
