"""Who spoke in a vmkernel log, whatever the words: one entry a module and minute.

Warnings are heard in the whole log; ordinary lines only in the kilobytes before a boot, a crash or the log's end, which is
where a host's last minutes are.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime

from psodlib.records import Precursor

__all__ = ["TAIL", "Speech"]

TAIL = 1 << 15  # bytes before a boot, a crash or the end
LIMIT = 5_000  # entries of one file; the last ones, which are nearest to its crash

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
        self._found: deque[tuple[bytes | None, str, bytes, bytes, int]] = deque(maxlen=LIMIT)
        self._seen: set[tuple[bytes | None, bytes, str]] = set()

    def warning(self, raw: bytes, at: int, line_of: Callable[[int], int]) -> None:
        """One warning, which begins at a place of a block."""
        # Most say in the same minute what was heard already: their first bytes tell.
        minute = _minute(raw, at)
        if minute is None or self._is_new(minute, raw[at : at + 24], ""):
            match = _WARNED.match(raw, at)
            if match:
                self._hear("warning", raw, at, minute, match, line_of)

    def tail(self, raw: bytes, line: int) -> None:
        """The lines of any words of a stretch that begins at line ``line``; an entry ``listened`` says from when to when."""
        stamp = _STAMP.search(raw)
        if stamp:
            last = _STAMP.findall(raw, max(0, len(raw) - _LAST)) or _STAMP.findall(raw)
            self._found.append((stamp[0], "listened", b"", last[-1], line))
        for match in _SAID.finditer(raw):
            at = match.start(1)
            self._hear("said", raw, at, _minute(raw, at), match, lambda at: line + raw.count(b"\n", 0, at))

    def _is_new(self, minute: bytes | None, words: bytes, what: str) -> bool:
        key = (minute, words, what)
        if minute and key in self._seen:
            return False
        if len(self._seen) > 4 * LIMIT:
            self._seen.clear()
        self._seen.add(key)
        return True

    def _hear(
        self,
        what: str,
        raw: bytes,
        at: int,
        minute: bytes | None,
        match: re.Match[bytes],
        line_of: Callable[[int], int],
    ) -> None:
        if self._is_new(minute, match[1], what):
            # Of its words only the claim to a device is kept: `hpsa 0000:03:00.0`.
            text = raw[match.start(1) : match.end() + 13] if raw[match.end()] == 32 else b""
            self._found.append((minute, what, match[1], text, line_of(at)))

    def found(self) -> Iterator[Precursor]:
        """All that is kept of it."""
        for minute, what, module, text, line in self._found:
            yield Precursor(
                time=_moment(minute) if minute else None, what=what, module=module.decode() or None,
                text=text.decode("utf-8", "replace"), source=self.source, line=line,
            )  # fmt: skip


def _minute(raw: bytes, at: int) -> bytes | None:
    # The minute that a line's head tells, cut out, not parsed.
    reach = max(0, at - _REACH)
    begin = raw.rfind(b"\n", reach, at) + 1 or reach
    minute = raw[begin : begin + 16]
    if minute[10:11] == b"T":
        return minute
    stamp = _STAMP.search(raw, begin, at)
    return stamp[0] if stamp else None


def _moment(stamp: bytes) -> datetime | None:
    try:
        return datetime.fromisoformat(stamp.decode() + "+00:00")
    except (UnicodeDecodeError, ValueError):
        return None
