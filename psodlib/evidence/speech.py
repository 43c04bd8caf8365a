"""Who spoke in a vmkernel log, whatever the words: one entry a module and minute.

Warnings are heard in the whole log; ordinary lines only in the kilobytes before a boot, a crash or the log's end, which is
where a host's last minutes are.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from datetime import datetime

from psodlib.records import Precursor

__all__ = ["TAIL", "WARNINGS", "Speech"]

TAIL = 1 << 15  # bytes before a boot, a crash or the end
LIMIT = 5_000  # entries of one file; the last ones, which are nearest to its crash
# Where one of these stands, a warning does.
WARNINGS = (b")WARNING: ", b")ALERT: ", b")<3>", b")<4>", b")<NMLX_ERR>", b")<NMLX_WRN>")

_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d")
_LAST = 1024  # bytes of the end that nearly always bear a stamp
_REACH = 200  # bytes of a line's head before its text
# `lpfc: lpfc_scsi_cmd_iocb_cmpl:2057: ...`, `lpfc820 0000:02:00.2: ...`, `megasas_hotplug_work[0]: ...`, `INFO (ne1000): ...`,
# `fnic : 52 :: ...`
# The kernel's own parts speak in capitals, all day long (`NMP`, `ScsiDeviceIO`): among the warnings only small letters are heard.
_NAME = rb"[\w\-]{1,40})(?= ?:|\[[\da-f]|\(\d|\)| [0-9a-f]{4}:[0-9a-f]{2}:)"
_WARNED = re.compile(rb"\)(?:WARNING: |ALERT: |<[0-4]>|<NMLX_(?:ERR|WRN)> )(?:WARNING \()?([a-z]" + _NAME)
_SAID = re.compile(
    rb"(?:\)|^|\n)(?:WARNING: |ALERT: )?(?:<[0-7]>|<\w{4,10}> )?(?:[A-Z]{4,8} \()?(?!WARNING:|ALERT:)([A-Za-z]" + _NAME
)


class Speech:
    """What was heard so far of one file."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.found: deque[Precursor] = deque(maxlen=LIMIT)
        self._seen: set[tuple[bytes | None, bytes, str]] = set()

    def warnings(self, raw: bytes, places: Iterable[int], line: int) -> None:
        """The warnings of one block that begins at line ``line``, each at one of the ``places``."""
        found = ((at, match) for at in places if (match := _WARNED.match(raw, at)))
        self._listen("warning", raw, found, line)

    def tail(self, raw: bytes, line: int) -> None:
        """The lines of any words of a stretch that begins at line ``line``; an entry ``listened`` says from when to when."""
        stamp = _STAMP.search(raw)
        if stamp:
            last = _STAMP.findall(raw, max(0, len(raw) - _LAST)) or _STAMP.findall(raw)
            start, end = _moment(stamp[0]), last[-1].decode()
            self.found.append(Precursor(time=start, what="listened", text=end, source=self.source, line=line))
        self._listen("said", raw, ((match.start(1), match) for match in _SAID.finditer(raw)), line)

    def _listen(self, what: str, raw: bytes, found: Iterable[tuple[int, re.Match[bytes]]], line: int) -> None:
        # At a hundred thousand warnings a block each step counts: the minute is cut out, not parsed, to see what is new.
        counted, seen = 0, self._seen
        for at, match in found:
            begin = raw.rfind(b"\n", max(0, at - _REACH), at) + 1 or max(0, at - _REACH)
            minute: bytes | None = raw[begin : begin + 16]
            if minute is None or minute[10:11] != b"T":
                stamp = _STAMP.search(raw, begin, at)
                minute = stamp[0] if stamp else None
            key = (minute, match[1], what)
            if minute and key in seen:
                continue
            if len(seen) > 2 * LIMIT:
                seen.clear()
            seen.add(key)
            line, counted = line + raw.count(b"\n", counted, at), at
            # Of its words only the claim to a device is kept: `hpsa 0000:03:00.0`.
            text = raw[match.start(1) : match.end() + 13].decode("utf-8", "replace") if raw[match.end()] == 32 else ""
            time = _moment(minute) if minute else None
            self.found.append(
                Precursor(time=time, what=what, module=match[1].decode(), text=text, source=self.source, line=line)
            )


def _moment(stamp: bytes) -> datetime | None:
    try:
        return datetime.fromisoformat(stamp.decode() + "+00:00")
    except (UnicodeDecodeError, ValueError):
        return None
