"""One host from connect to close: commands first, then logs, then the logs of dumps. Every step leaves the manifest true."""

from __future__ import annotations

import errno
import time
from datetime import UTC, datetime

from psodlib.collector.dumps import extract_dumps
from psodlib.collector.fetch import Visit, fetch_group
from psodlib.collector.folder import Record
from psodlib.collector.plan import COMMANDS, LOGS, Command, output_name
from psodlib.collector.remote import MAX_OUTPUT
from psodlib.errors import CollectError
from psodlib.evidence.artifacts.commands import parse_date

HUNG = 3  # commands without an answer, after which the host is asked for files only


class LocalTrouble(Exception):
    """Our own side cannot go on (a full disk): no other host will fare better."""


def visit_host(visit: Visit, module: str, version_only: bool) -> None:
    """Fetch from one host what is new."""
    visit.manifest.transfer = "sftp" if visit.remote.sftp else "shell"
    try:
        _fetch_outputs(visit, module, version_only)
        visit.save()
        if not version_only:
            for group in LOGS:
                fetch_group(visit, group)
            extract_dumps(visit)
            visit.folder.drop_copies(visit.manifest)
    except CollectError:
        raise
    except OSError as error:
        where = visit.folder.path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            full = f"the disk is full ({where}); make room, then run again: it goes on where it stopped"
            raise LocalTrouble(full) from None
        raise LocalTrouble(f"cannot write to {where}: {error.strerror or type(error).__name__}") from None
    finally:
        visit.manifest.refused_names = visit.remote.odd_names


def _fetch_outputs(visit: Visit, module: str, version_only: bool) -> None:
    manifest = visit.manifest
    visit.folder.set_aside_outputs(manifest.started)
    manifest.started = datetime.now(UTC).isoformat(timespec="seconds")
    manifest.files = [record for record in manifest.files if record.path.startswith("/")]  # the others are outputs
    hung = 0
    for command in COMMANDS:
        if version_only and not command.version:
            continue
        if hung < HUNG:
            hung += _fetch_output(visit, command, module)
        else:
            line = command.lines[0].format(module=module)
            manifest.put(Record(line, None, state="skipped", detail=f"{HUNG} commands before it gave no answer"))


def _fetch_output(visit: Visit, command: Command, module: str) -> bool:
    # The first alternative that prints something; which is absent, and why, is in the manifest. True where none answered.
    manifest, record, hung = visit.manifest, Record("", None), False
    for line in (text.format(module=module) for text in command.lines):
        before = time.time()
        said = visit.remote.run(line, min(MAX_OUTPUT, visit.left))
        record = Record(line, f"commands/{output_name(line)}", state="absent")
        hung = said.hung
        if said.code not in (0, None) or (hung and not said.cut) or not said.data.strip():
            record.detail = said.cut or said.complaint
            continue
        if line == "date" and (told := parse_date(said.data[:200].decode("utf-8", "replace"))):
            manifest.clock_offset = round(told.timestamp() - (before + time.time()) / 2, 1)
        with visit.folder.open(f"{record.local}.part", "wb") as file:
            file.write(said.data)
        visit.folder.finish(record, manifest)
        record.state, record.detail = "partial" if said.cut else "whole", said.cut
        manifest.bytes += len(said.data)
        break
    if record.state == "absent":
        record.local, record.state = None, "failed" if hung else "absent"
    manifest.put(record)
    return hung
