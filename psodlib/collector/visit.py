"""What one host gives: commands first, then logs, then the logs of dumps. Every step leaves the manifest true.

A file is resumed where the bytes agree, fetched anew where they do not, and whole only when checked. A dump's log is
extracted on the host itself: into a folder with room that is ours alone, and goes whatever happens.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import secrets
import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from psodlib.collector.folder import Folder, Manifest, Record

from psodlib.collector.plan import (  # isort: skip
    COMMANDS, DATASTORES, DUMPS, EXTRACTORS, LOGS, ROOM, ROOM_FOLDERS, Command, Limits, Logs, output_name,
)  # fmt: skip
from psodlib.collector.remote import MAX_OUTPUT, Entry, Remote, RemoteError
from psodlib.evidence.artifacts.commands import parse_date

HEAD = 64 << 10  # bytes at the begin of a file that tell whether it is still the same file
OVERLAP = 4 << 10  # bytes before the offset that must agree too
ROUNDS = 3  # a log that rotates under our hands is listed anew, so often
HUNG = 3  # commands without an answer, after which the host is asked for files only
# What one block of `df` is, by its header: ESXi's own counts bytes, busybox's kibibytes.
_UNITS = {"bytes": 1, "1k-blocks": 1024, "1024-blocks": 1024}


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

    def take(self, module: str, version_only: bool) -> None:
        """Fetch what is new."""
        manifest = self.manifest
        manifest.transfer = "sftp" if self.remote.sftp else "shell"
        manifest.refused_names = self.remote.odd_names
        self.folder.set_aside_outputs(manifest.started)
        manifest.started = datetime.now(UTC).isoformat(timespec="seconds")
        manifest.files = [record for record in manifest.files if record.path.startswith("/")]  # the others are outputs
        hung = 0
        for command in COMMANDS:
            if hung < HUNG and (command.version or not version_only):
                hung += self._output(command, module)
            elif command.version or not version_only:
                why = f"{HUNG} commands before it gave no answer"
                manifest.put(Record(command.lines[0].format(module=module), None, state="skipped", detail=why))
        self.folder.save(manifest)
        if not version_only:
            for group in LOGS:
                self._group(group)
            self._dumps()
            self.folder.drop_copies(manifest)

    def _output(self, command: Command, module: str) -> bool:
        # The first alternative that prints something; which is absent, and why, is in the manifest. True where none answered.
        manifest, record, hung = self.manifest, Record("", None), False
        for line in (text.format(module=module) for text in command.lines):
            before = time.time()
            said = self.remote.run(line, min(MAX_OUTPUT, self.left))
            record = Record(line, f"commands/{output_name(line)}", state="absent")
            hung = said.hung
            if said.code not in (0, None) or (hung and not said.cut) or not said.data.strip():
                record.detail = said.cut or said.complaint
                continue
            if line == "date" and (told := parse_date(said.data[:200].decode("utf-8", "replace"))):
                manifest.clock_offset = round(told.timestamp() - (before + time.time()) / 2, 1)
            self.folder.keep(record, manifest, said.data)
            record.state, record.detail = "partial" if said.cut else "whole", said.cut
            break
        if record.state == "absent":
            record.local, record.state = None, "failed" if hung else "absent"
        manifest.put(record)
        return hung

    def _group(self, group: Logs) -> None:
        for _ in range(ROUNDS):
            entries: list[Entry] = []
            path = f"{group.folders[0]}/{group.label}"
            nothing = self.manifest.put(Record(path, None, state="absent", detail="no such file"))
            for place in group.folders:
                entries = entries or self.remote.listing(place, group.name) or []
            if entries:
                self.manifest.files.remove(nothing)
            rotated = False
            # Oldest first: a rotation renames .5 to .6, so our .5 is still there when .6 wants its bytes.
            for entry in sorted(entries, key=lambda e: _age(e.path), reverse=True):
                rotated |= self._fetch(entry, {e.path for e in entries})
                self.folder.save(self.manifest)
            if not rotated:
                break

    def _fetch(self, entry: Entry, siblings: Iterable[str]) -> bool:
        # One file, if it is new; True where it rotated meanwhile.
        folder, manifest = self.folder, self.manifest
        old, local = manifest.get(entry.path), folder.local(entry.path)
        # Two archives of one second and size cannot be told apart by their listing: their bytes decide below.
        same = [record.path for record in manifest.files if _could_be(record, entry)]
        if old and entry.mtime and folder.size(local) == entry.size and same == [entry.path]:
            return False
        if why := self._too_much(entry):
            if not (old and old.state == "whole"):
                manifest.put(Record(entry.path, None, entry.size, entry.mtime, None, "skipped", why))
            return False
        begun = Record(entry.path, local, entry.size, entry.mtime, None, "partial", "not finished")
        record = manifest.put(begun)
        try:
            return self._bring(record, entry, self._begin(entry, old), siblings)
        except RemoteError as error:
            held = folder.size(f"{local}.part")
            record.state, record.detail = "partial" if held else "failed", f"cannot be read: {error}"
            return False

    def _too_much(self, entry: Entry) -> str:
        too_much = entry.size > self.left
        return f"{entry.size} bytes would pass the limit of {self.limits.bytes} a host" if too_much else ""

    def _begin(self, entry: Entry, old: Record | None) -> int:
        # Puts into .part what we already have of the file, if its head and its end prove it; gives the offset to go on from.
        folder, local = self.folder, self.folder.local(entry.path)
        part = f"{local}.part"
        # A .part counts even without its record, which a full disk may have cost; not one that a host's hash disowned.
        candidates = [local] if old and "differ" in old.detail else [part, local]
        renamed = (r for r in self.manifest.files if _could_be(r, entry) and r.path != entry.path)
        candidates += [r.local for r in renamed if r.local]
        for name in candidates:
            have = folder.size(name)
            if have and have <= entry.size and self._agrees(name, have, entry.path):
                if name != part:
                    folder.copy(name, part)
                return have
        with folder.open(part, "wb"):
            return 0

    def _agrees(self, name: str, have: int, path: str) -> bool:
        # The host's bytes at the head, and those before the offset, against ours.
        for begin, size in ((0, min(HEAD, have)), (max(0, have - OVERLAP), min(OVERLAP, have))):
            theirs = b"".join(self.remote.read(path, begin, size))
            with self.folder.open(name, "rb") as file:
                file.seek(begin)
                if file.read(size) != theirs:
                    return False
        return True

    def _still_agrees(self, part: str, entry: Entry) -> bool:
        try:
            return self._agrees(part, min(entry.size, HEAD), entry.path)
        except RemoteError:
            return False

    def _bring(self, record: Record, entry: Entry, offset: int, siblings: Iterable[str] = ()) -> bool:
        # Whole only if size, and where the shell read it also the host's own hash, agree.
        part, remote = f"{record.local}.part", self.remote
        with self.folder.open(part, "ab") as file:
            for block in remote.read(entry.path, offset, entry.size - offset) if offset < entry.size else ():
                file.write(block)
                self.manifest.bytes += len(block)
        if offset and not self._still_agrees(part, entry):
            record.detail = "rotated while it was continued: the bytes differ; fetched anew"
            return True
        got, now = self.folder.size(part) or 0, remote.size(entry.path)
        rotated = now is None or now < entry.size
        if got < entry.size:
            record.detail = f"the host said {entry.size} bytes and gave {got}"
            if rotated:
                record.detail = f"rotated while it was read: {got} of {entry.size} bytes"
            return rotated and any(_family(path) == _family(entry.path) for path in siblings)
        record.detail = ""
        if not remote.sftp and not rotated:
            said = remote.hash_of(entry.path, entry.size)
            with self.folder.open(part, "rb") as file:
                if said and hashlib.file_digest(file, said[0]).hexdigest() != said[1]:  # type: ignore[arg-type]
                    record.detail = f"the bytes differ from the {said[0]} of the host; fetched anew next time"
                    return False
            record.detail = "" if said else "size checked, the host has no tool for a hash"
        if rotated and not self._still_agrees(part, entry):
            record.mtime = None  # these bytes have another name by now; the next look fetches what has this one
        self.folder.finish(record, self.manifest)
        return rotated

    def _dumps(self) -> None:
        # The logs of those core dumps whose log nobody extracted.
        dumps = self.remote.listing(DUMPS.folders[0], DUMPS.name) or []
        logs = {entry.path for entry in self.remote.listing(LOGS[0].folders[0], LOGS[0].name) or []}
        for dump in dumps:
            known, words = self.manifest.get(dump.path), f"extracted from {dump.size} bytes"
            same = known and (known.state, known.mtime, known.detail) == ("whole", dump.mtime, words)
            have = known and known.local and self.folder.size(known.local) == known.size
            if (same and have) or dump.path.replace("vmkernel-zdump", "vmkernel-log") in logs:
                continue
            record = self.manifest.put(Record(dump.path, None, dump.size, dump.mtime, None, "skipped", ""))
            if place := self._place_with_room():
                self._extract(record, dump, place)
            else:
                record.detail = f"no datastore folder with {ROOM >> 20} MB free to extract its log in; copy the dump away and extract it there"
            self.folder.save(self.manifest)

    def _place_with_room(self) -> str | None:
        for place in ROOM_FOLDERS:
            # Where the folder's links lead, by the shell's own word: not every busybox has readlink.
            real = self.remote.run(f"cd {place} && pwd -P", 4096).data.decode("utf-8", "replace").strip()
            if real.startswith(DATASTORES) and self._free(place, real) >= ROOM:
                return place
        return None

    def _free(self, place: str, real: str) -> int:
        # Bytes; 0 where nobody tells.
        told = self.remote.run(f"stat -f -c '%a %S' {place}/.", 4096)
        if room := re.fullmatch(rb"(\d{1,15}) (\d{1,9})\s*", told.data):
            return int(room[1]) * int(room[2])
        lines = self.remote.run(f"df -k {place}/.", 64 << 10).data.decode("utf-8", "replace").split("\n")
        unit = next((_UNITS[word.lower()] for word in lines[0].split() if word.lower() in _UNITS), 0)
        for line in lines[1:]:
            row = re.fullmatch(r"\S+ +\d{1,18} +\d{1,18} +(\d{1,18}) +\d{1,3}% (/\S*)", line.strip())
            if row and f"{real}/".startswith(row[2].rstrip("/") + "/"):
                return int(row[1]) * unit
        return 0

    def _extract(self, record: Record, dump: Entry, place: str) -> None:
        work, remote = f"{place}/psod-collect-{secrets.token_hex(8)}", self.remote
        try:
            with remote.workshop(work) as made:
                for line in EXTRACTORS if made else ():
                    command = f"cd {work} && {line.format(dump=shlex.quote(dump.path))} >/dev/null"
                    said = remote.run(command, quiet=self.limits.extract)
                    if logs := remote.listing(work, LOGS[0].name):
                        self._bring_extracted(record, dump, logs[0])
                        break
                    record.detail = f"its log could not be extracted: {said.complaint}"
                else:
                    record.detail = record.detail or f"no folder could be made in {place}"
        except RemoteError as error:
            record.detail = f"no folder could be made in {place}: {error}"
        finally:
            if work in remote.left:
                words = f"the host removes {work} itself when it sees that the connection is gone; look whether it did"
                record.detail = "; ".join(filter(None, [record.detail, words]))

    def _bring_extracted(self, record: Record, dump: Entry, made: Entry) -> None:
        record.detail = self._too_much(made)
        if record.detail:
            return
        record.local = self.folder.local(dump.path).replace("vmkernel-zdump", "vmkernel-log")
        try:
            with self.folder.open(f"{record.local}.part", "wb"):
                pass
            self._bring(record, made, 0)
        except RemoteError as error:
            record.detail = f"cannot be read: {error}"
        if record.state == "whole":
            record.detail = f"extracted from {dump.size} bytes"
        else:
            record.local = None


def _age(path: str) -> int:
    number = re.search(r"\.(\d{1,3})(?:\.gz)?$", path)
    return int(number[1]) if number else -1


def _family(path: str) -> str:
    return re.split(r"\.(?:log|\d)", posixpath.basename(path))[0]


def _could_be(record: Record, entry: Entry) -> bool:
    same = record.state == "whole" and (record.size, record.mtime) == (entry.size, entry.mtime)
    return same and _family(record.path) == _family(entry.path)
