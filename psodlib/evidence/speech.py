"""Who spoke in a vmkernel log, whatever the words: one entry a module and minute.

Warnings are heard in the whole log; ordinary lines only in the kilobytes before a boot, a crash or the log's end, which is
where a host's last minutes are.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime

from psodlib.evidence.pieces import moment_of

TAIL = 1 << 15  # bytes before a boot, a crash or the end
WORDS = 24  # bytes of a warning that tell it from others of its minute
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
    rb"[)\n](?:WARNING: |ALERT: )?(?:<[0-7]>|<\w{4,10}> )?(?:[A-Z]{4,8} \()?(?!WARNING:|ALERT:)([A-Za-z]" + _NAME
)


class Speech:
    """What was heard so far of one file."""

    def __init__(self) -> None:
        self._found: deque[tuple[bytes | None, str, bytes, bytes, int]] = deque(maxlen=LIMIT)
        self._last: dict[tuple[str, bytes], bytes | None] = {}  # minute in which each was heard last
        self.told: set[bytes] = set()  # the first words of the warnings of a minute

    def warning(self, raw: bytes, at: int, begin: int, minute: bytes, line_of: Callable[[int], int]) -> None:
        """One warning at a place of a block, in a line that begins so."""
        if minute[10:11] == b"T":
            if len(self.told) > 2 * LIMIT:
                self.told.clear()
            self.told.add(raw[at : at + WORDS])
        if match := _WARNED.match(raw, at):
            self._hear("warning", match, _minute(raw, begin, at), line_of)

    def tail(self, raw: bytes, line: int) -> None:
        """The lines of any words of a stretch that begins at line ``line``; an entry ``listened`` says from when to when."""
        if stamp := _STAMP.search(raw):
            last = _STAMP.findall(raw, max(0, len(raw) - _LAST)) or _STAMP.findall(raw)
            self._found.append((stamp[0], "listened", b"", last[-1], line))
        raw, line, counted = b"\n" + raw, line - 1, 0
        for match in _SAID.finditer(raw):
            at = match.start(1)
            line, counted = line + raw.count(b"\n", counted, at), at
            minute = _minute(raw, raw.rfind(b"\n", 0, at) + 1, at)
            self._hear("said", match, minute, line)

    def _hear(self, what: str, match: re.Match[bytes], minute: bytes | None, line: int | Callable[[int], int]) -> None:
        # Once a minute. Of its words only the claim to a device is kept: `hpsa 0000:03:00.0`.
        name, raw, end = match[1], match.string, match.end()
        if minute and self._last.get((what, name)) == minute:
            return
        if len(self._last) > LIMIT:
            self._last.clear()
        self._last[what, name] = minute
        text = raw[match.start(1) : end + 13] if raw[end] == 32 else b""
        self._found.append((minute, what, name, text, line if isinstance(line, int) else line(match.start(1))))

    def found(self) -> Iterator[tuple[datetime | None, str, str | None, str, int]]:
        """All that is kept of it: time, what, module, text and line."""
        for minute, what, module, text, line in self._found:
            moment = moment_of(minute.decode("latin-1") + ":00") if minute else None
            yield moment, what, module.decode() or None, text.decode("utf-8", "replace"), line


def _minute(raw: bytes, begin: int, at: int) -> bytes | None:
    # The minute that a line's head tells, cut out, not parsed.
    minute = raw[begin : begin + 16]
    if minute[10:11] == b"T":
        return minute
    stamp = _STAMP.search(raw, max(begin, at - _REACH), at)
    return stamp[0] if stamp else None
