"""Which ESXi build each boot of a host ran: an upgrade takes effect at a reboot, as a driver does."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime

from psodlib.triage.boots import SAME_BOOT

__all__ = ["builds_of_boots"]

_DAWN = datetime(1900, 1, 1, tzinfo=UTC)


def builds_of_boots(starts: Sequence[datetime | None], told: Sequence[tuple[datetime | None, str]]) -> list[str | None]:
    """The ESXi build of each boot."""
    if not starts:
        return []
    begins = [start or _DAWN for start in starts]
    found: dict[int, str] = {}
    for time, build in sorted(told, key=lambda pair: (pair[0] is None, pair[0] or _DAWN)):
        # The banner comes with the first lines, which may bear a clock a little behind the uptime counter.
        at = len(begins) - 1 if time is None else max(bisect_right(begins, time + SAME_BOOT) - 1, 0)
        found.setdefault(at, build)
    known = {build for _, build in told}
    before = known.pop() if len(known) == 1 else None
    out = []
    for at in range(len(starts)):
        before = found.get(at, before)
        out.append(before)
    return out
