"""Who spoke in a vmkernel log, whatever the words: one entry a module and minute.

Warnings are heard in the whole log; ordinary lines only in the kilobytes before a boot, a crash or the log's end, which is
where a host's last minutes are.
"""

from __future__ import annotations

import re
from collections import deque
from datetime import datetime

from psodlib.records import Precursor

__all__ = ["TAIL", "WARNINGS", "Speech"]

TAIL = 1 << 15  # bytes before a boot, a crash or the end
LIMIT = 20_000  # entries of one file; the last ones, which are nearest to its crash
# Where one of these stands, a warning does.
WARNINGS = (b")WARNING: ", b")ALERT: ", b")<3>", b")<4>", b")<NMLX_ERR>", b")<NMLX_WRN>")

_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d")
_REACH = 200  # bytes of a line's head before its text
# `lpfc: lpfc_scsi_cmd_iocb_cmpl:2057: ...`, `lpfc820 0000:02:00.2: ...`, `megasas_hotplug_work[0]: ...`, `INFO (ne1000): ...`,
# `fnic : 52 :: ...`
_NAME = rb"(?P<module>[A-Za-z][\w\-]{1,40})(?= ?:|\[[\da-f]|\(\d|\)| [0-9a-f]{4}:[0-9a-f]{2}:)"
_WARNED = re.compile(rb"\)(?:WARNING: |ALERT: |<[0-4]>|<NMLX_(?:ERR|WRN)> )(?:WARNING \()?" + _NAME)
_SAID = re.compile(rb"(?:\)|^|\n)(?:<[5-7]>|<\w{4,10}> )?(?:[A-Z]{4,8} \()?" + _NAME)


class Speech:
    """What was heard so far of one file."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.found: deque[Precursor] = deque(maxlen=LIMIT)
        self._seen: set[tuple[bytes | None, bytes, str]] = set()

    def warnings(self, raw: bytes, line: int) -> None:
        """The warnings of one block that begins at line ``line``."""
        self._listen(_WARNED, "warning", raw, line)

    def tail(self, raw: bytes, line: int) -> None:
        """The lines of any words of a stretch that begins at line ``line``; an entry ``listened`` says from when to when."""
        stamps = _STAMP.findall(raw)
        if stamps:
            start, end = _moment(stamps[0]), stamps[-1].decode()
            self.found.append(Precursor(time=start, what="listened", text=end, source=self.source, line=line))
        self._listen(_SAID, "said", raw, line)

    def _listen(self, pattern: re.Pattern[bytes], what: str, raw: bytes, line: int) -> None:
        counted = 0
        for match in pattern.finditer(raw):
            at = match.start("module")
            begin = raw.rfind(b"\n", max(0, at - _REACH), at) + 1 or max(0, at - _REACH)
            stamp = _STAMP.search(raw, begin, at)
            key = (stamp[0] if stamp else None, match["module"], what)
            if stamp and key in self._seen:
                continue
            if len(self._seen) > 2 * LIMIT:
                self._seen.clear()
            self._seen.add(key)
            line, counted = line + raw.count(b"\n", counted, at), at
            end = raw.find(b"\n", at, at + 200)
            text = raw[at : end if end >= 0 else at + 200].decode("utf-8", "backslashreplace")
            time, module = _moment(stamp[0]) if stamp else None, match["module"].decode()
            self.found.append(Precursor(time=time, what=what, module=module, text=text, source=self.source, line=line))


def _moment(stamp: bytes) -> datetime | None:
    try:
        return datetime.fromisoformat(stamp.decode() + "+00:00")
    except ValueError:
        return None
