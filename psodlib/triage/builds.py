"""Which ESXi build each boot of a host ran: an upgrade takes effect at a reboot, as a driver does."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime

from psodlib.triage.boots import SAME_BOOT

__all__ = ["builds_of_boots"]

_DAWN = datetime(1900, 1, 1, tzinfo=UTC)


def builds_of_boots(starts: Sequence[datetime | None], told: Sequence[tuple[datetime | None, str]]) -> list[str | None]:
    """The ESXi build of each boot.

    Parameters
    ----------
    starts : sequence of datetime or None
        Starts of one host's boots, in order; only the first may be unknown.
    told : sequence of (datetime or None, str)
        When a build was read, and which. None: with a collection that nobody dated, so in the last boot. Of two
        different builds in one boot the earlier in time counts, of one instant the first given.

    Returns
    -------
    list of str or None
        As long as ``starts``. A boot without a reading runs what the boot before it ran. It is never carried back, but
        for a host of which all evidence knows one build only: then there was no upgrade to misplace.

    Examples
    --------
    >>> june, july = datetime(2014, 6, 1, tzinfo=UTC), datetime(2014, 7, 1, tzinfo=UTC)
    >>> builds_of_boots([june, july], [(june, "1331820"), (july, "1746018")])
    ['1331820', '1746018']
    """
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
