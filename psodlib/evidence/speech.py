"""Who spoke in a vmkernel log, whatever the words: one entry a module and minute.

Warnings are heard in the whole log; ordinary lines only in the kilobytes before a boot, a crash or the log's end, which is
where a host's last minutes are.
"""

from __future__ import annotations

import re
from datetime import datetime

from psodlib.records import Precursor

__all__ = ["TAIL", "WARNINGS", "Speech"]

TAIL = 1 << 15  # bytes before a boot, a crash or the end
LIMIT = 20_000  # entries of one file
WARNINGS = (b")WARNING: ", b")ALERT: ", b")<3>", b")<4>")  # where one of these stands, a warning does

_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d")
_REACH = 200  # bytes of a line's head before its text
# `lpfc: lpfc_scsi_cmd_iocb_cmpl:2057: ...`, `lpfc820 0000:02:00.2: ...`, `megasas_hotplug_work[0]: ...`, `INFO (ne1000): ...`
_NAME = rb"(?P<module>[a-z][\w\-]{1,40})(?=:|\[\d|\(\d|\)| [0-9a-f]{4}:[0-9a-f]{2}:)"
_WARNED = re.compile(rb"\)(?:WARNING: |ALERT: |<[0-4]>)(?:WARNING \()?" + _NAME)
_SAID = re.compile(rb"(?:\)|^|\n)(?:<[5-7]>)?(?:[A-Z]{4,8} \()?" + _NAME)


class Speech:
    """What was heard so far of one file."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.found: list[Precursor] = []
        self._seen: set[tuple[bytes | None, bytes, str]] = set()

    def warnings(self, raw: bytes, line: int) -> None:
        """The warnings of one block that begins at line ``line``."""
        self._listen(_WARNED, "warning", raw, line)

    def tail(self, raw: bytes, line: int) -> None:
        """The lines of any words of a stretch that begins at line ``line``."""
        self._listen(_SAID, "said", raw, line)

    def _listen(self, pattern: re.Pattern[bytes], what: str, raw: bytes, line: int) -> None:
        counted = 0
        for match in pattern.finditer(raw):
            at = match.start("module")
            begin = raw.rfind(b"\n", max(0, at - _REACH), at) + 1 or max(0, at - _REACH)
            stamp = _STAMP.search(raw, begin, at)
            key = (stamp[0] if stamp else None, match["module"], what)
            if key in self._seen and stamp:
                continue
            if len(self.found) >= LIMIT:
                return
            self._seen.add(key)
            line, counted = line + raw.count(b"\n", counted, at), at
            end = raw.find(b"\n", at, at + 200)
            text = raw[at : end if end >= 0 else at + 200].decode("utf-8", "backslashreplace")
            self.found.append(
                Precursor(time=_moment(stamp), what=what, module=match["module"].decode(), text=text, source=self.source, line=line)
            )


def _moment(stamp: re.Match[bytes] | None) -> datetime | None:
    try:
        return datetime.fromisoformat(stamp[0].decode() + "+00:00") if stamp else None
    except ValueError:
        return None
