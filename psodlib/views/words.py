"""Values -> the words a reader reads: counts, rates, times, spans, and hostile text made literal.

Every sentence of the brief, the write-up and the index page is put together from these, so that one number reads alike on
every page. Nothing here escapes for a surface: HTML, Markdown, typst and CSV each do that where they are written
(``document.py``, ``report.py``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

__all__ = [
    "UNKNOWN", "between", "count", "day", "days", "figure", "known", "listing", "literal", "moment", "per_year", "share", "span",
]  # fmt: skip

UNKNOWN = "unknown"
DAYS_A_YEAR = 365.25

# What must not reach a page as itself: control characters (terminal escapes, NUL), marks that turn the direction of
# writing or hide (a host name that reads backwards), and halves of surrogate pairs, which no file can be written with.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)


def known(value: Any) -> bool:
    """Whether a value is there: not ``None``, ``NA``, ``NaT`` or NaN.

    Parameters
    ----------
    value : scalar
        A table's cell.

    Returns
    -------
    bool
        False for an unknown.
    """
    return value is not None and not bool(pd.isna(value))


def literal(value: Any) -> str:
    """Any cell as text that can be shown: unknown says so, unprintable characters are written out.

    Parameters
    ----------
    value : scalar
        A table's cell; log text of any sort.

    Returns
    -------
    str
        Never empty for an unknown value.

    Examples
    --------
    >>> literal("esx01\\x1b[31m"), literal(None)
    ('esx01\\\\x1b[31m', 'unknown')
    """
    if not known(value):
        return UNKNOWN
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode("ascii"), str(value))


def count(number: Any, one: str, many: str | None = None) -> str:
    """A number with its noun, as English has it.

    Parameters
    ----------
    number : int or float
        How many; shown without decimals.
    one, many : str
        The noun for one and for any other number (``one`` + "s" by default).

    Returns
    -------
    str
        With thousands separators.

    Examples
    --------
    >>> count(1, "crash", "crashes"), count(1200, "host")
    ('1 crash', '1,200 hosts')
    """
    whole = round(float(number))
    return f"{whole:,} {one if whole == 1 else many or one + 's'}"


def figure(value: Any) -> str:
    """A number with about two significant digits, never in powers of ten, never infinite.

    Parameters
    ----------
    value : float
        Any number.

    Returns
    -------
    str
        "unbounded" for infinity, "no information" for NaN or unknown.

    Examples
    --------
    >>> figure(0.0412), figure(3.14), figure(1234.5), figure(float("inf"))
    ('0.041', '3.1', '1,235', 'unbounded')
    """
    if not known(value):
        return "no information"
    number = float(value)
    if math.isinf(number):
        return "unbounded"
    if number == 0 or abs(number) < 1e-6:
        return "0"
    decimals = max(0, 1 - math.floor(math.log10(abs(float(f"{number:.2g}")))))
    return f"{number:,.{decimals}f}"


def between(low: Any, high: Any) -> str:
    """An interval in words.

    Parameters
    ----------
    low, high : float
        Its ends.

    Returns
    -------
    str
        Such as "0.31 to 68"; "at least 2" when the upper end is unbounded.
    """
    if not known(low) or not known(high):
        return "no information"
    if math.isinf(float(high)):
        return f"at least {figure(low)}" if float(low) > 0 else "unbounded"
    return f"{figure(low)} to {figure(high)}"


def per_year(rate: Any) -> str:
    """A rate per host-day as a number per host-year.

    Parameters
    ----------
    rate : float
        Events per host-day.

    Returns
    -------
    str
        The number alone.
    """
    return figure(float(rate) * DAYS_A_YEAR) if known(rate) else "no information"


def share(part: float, whole: float) -> str:
    """A part of a whole in per cent.

    Parameters
    ----------
    part, whole : float
        In the same unit.

    Returns
    -------
    str
        Such as "97 %"; neither 0 % nor 100 % unless it is.
    """
    if not whole:
        return "no information"
    percent = 100 * part / whole
    if 0 < percent < 1:
        return "under 1 %"
    return f"{math.floor(percent) if 99 < percent < 100 else round(percent)} %"


def moment(time: Any) -> str:
    """A time to the second, in UTC.

    Parameters
    ----------
    time : pandas.Timestamp
        Aware.

    Returns
    -------
    str
        Such as "2014-05-31 15:57:32 UTC".
    """
    return f"{time:%Y-%m-%d %H:%M:%S} UTC" if known(time) else UNKNOWN


def day(time: Any) -> str:
    """A time's day in UTC.

    Parameters
    ----------
    time : pandas.Timestamp
        Aware.

    Returns
    -------
    str
        Such as "2014-05-31".
    """
    return f"{time:%Y-%m-%d}" if known(time) else UNKNOWN


def days(first: Any, last: Any) -> str:
    """The days from one time to another, in UTC.

    Parameters
    ----------
    first, last : pandas.Timestamp
        Aware.

    Returns
    -------
    str
        Such as "2014-05-01 to 2014-05-31"; one day where both are in it.
    """
    return day(first) if day(first) == day(last) else f"{day(first)} to {day(last)}"


def span(length: Any) -> str:
    """A span of time with the two units that matter.

    Parameters
    ----------
    length : pandas.Timedelta
        Any span.

    Returns
    -------
    str
        Such as "29 d 20 h", "14 min 10 s".

    Examples
    --------
    >>> span(pd.Timedelta("29 days 20:14:10")), span(pd.Timedelta("00:14:10"))
    ('29 d 20 h', '14 min 10 s')
    """
    if not known(length):
        return UNKNOWN
    seconds = int(pd.Timedelta(length).total_seconds())
    if seconds < 0:
        return f"-{span(-pd.Timedelta(length))}"
    for size, unit, next_size, next_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // next_size} {next_unit}"
    return f"{seconds} s"


def listing(things: Iterable[Any], most: int = 6, empty: str = "none") -> str:
    """A few things in one phrase.

    Parameters
    ----------
    things : iterable
        Cells of a table.
    most : int
        How many to name.
    empty : str
        What to say when there is nothing.

    Returns
    -------
    str
        Such as "a, b and c", "a, b and 7 more".
    """
    names = [literal(thing) for thing in things]
    if not names:
        return empty
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1:,} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
