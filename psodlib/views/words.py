"""Values -> the words a reader reads: counts, rates, times, spans, and hostile text made literal, so that one number reads
alike on every page. Nothing here escapes for a surface: ``document.py`` and ``spreadsheet.py`` do, where they write."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

UNKNOWN = "unknown"
DAYS_A_YEAR = 365.25
THRESHOLDS = (60, 80, 95)  # per cent, of the decision rule

# What must not reach a page as itself: control characters (terminal escapes, NUL), marks that turn the direction of
# writing or hide (a host name that reads backwards), and halves of surrogate pairs, which no file can be written with.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
SIMULATED = "Simulated fleet: hosts, crashes and figures on this page are made up."


def known(value: Any) -> bool:
    """Whether a value is there: not ``None``, ``NA``, ``NaT`` or NaN."""
    return value is not None and not bool(pd.isna(value))


def literal(value: Any, unknown: str = UNKNOWN) -> str:
    """Any cell as text that can be shown: unknown says so, unprintable characters are written out."""
    if not known(value):
        return unknown
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode("ascii"), str(value))


def joined(row: Any, *names: str, by: str = " ") -> str:
    """What is known of some cells, one behind the other."""
    return by.join(literal(row[name]) for name in names if known(row[name]))


def holding(*lines: tuple[Any, str]) -> list[str]:
    """The sentences whose condition holds."""
    return [line for holds, line in lines if holds and line]


def count(number: Any, one: str, many: str = "") -> str:
    """A number with its noun, as English has it."""
    whole = round(float(number))
    plural = many or one + ("es" if one.endswith("sh") else "s")
    return f"{whole:,} {one if whole == 1 else plural}"


def figure(value: Any) -> str:
    """A number with about two significant digits, never in powers of ten, never infinite."""
    if not known(value):
        return "no information"
    number = float(value)
    if math.isinf(number):
        return "unbounded"
    if abs(number) < 1e-6:
        return "0"
    number = float(f"{number:.2g}") if abs(number) >= 1000 else number
    decimals = max(0, 1 - math.floor(math.log10(abs(float(f"{number:.2g}")))))
    return f"{number:,.{decimals}f}"


def between(low: Any, high: Any) -> str:
    """An interval in words."""
    if not known(low) or not known(high):
        return "no information"
    if math.isinf(float(high)):
        return f"at least {figure(low)}" if float(low) > 0 else "unbounded"
    return f"{figure(low)} to {figure(high)}"


def per_year(rate: Any) -> str:
    """A rate per host-day as a number per host-year."""
    return figure(float(rate) * DAYS_A_YEAR) if known(rate) else "no information"


def chance(probability: float) -> str:
    """A probability in per cent; never certain, and never rounded up to one of the rule's thresholds."""
    percent = round(100 * probability)
    percent -= percent in THRESHOLDS and 100 * probability < percent
    return "over 99 %" if probability > 0.99 else "under 1 %" if probability < 0.01 else f"{percent} %"


def share(part: float, whole: float) -> str:
    """A part of a whole in per cent."""
    if not whole:
        return "no information"
    percent = 100 * part / whole
    return "under 1 %" if 0 < percent < 1 else f"{math.floor(percent) if 99 < percent < 100 else round(percent)} %"


def moment(time: Any, unknown: str = UNKNOWN) -> str:
    """A time to the second, in UTC."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC" if known(time) else unknown


def day(time: Any) -> str:
    """A time's day in UTC."""
    return f"{time:%Y-%m-%d}" if known(time) else UNKNOWN


def seen(hosts: pd.DataFrame, never: str = "") -> str:
    """When hosts were seen, as the end of a phrase."""
    first, last = hosts["first_seen"].min(), hosts["last_seen"].max()
    if not (known(first) and known(last)):
        return never
    return f", {day(first)}{f' to {day(last)}' if day(first) != day(last) else ''}"


def wait(weeks: float) -> str:
    """How long a wait is: whole weeks, beyond two years in years."""
    whole = math.ceil(weeks)
    return count(whole, "week") if whole <= 104 else f"{whole / 52:,.0f} years"


def span(length: Any) -> str:
    """A span of time with the two units that matter."""
    if not known(length):
        return UNKNOWN
    seconds = int(pd.Timedelta(length).total_seconds())
    if seconds < 0:
        return f"-{span(-pd.Timedelta(length))}"
    for size, unit, next_size, next_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // next_size} {next_unit}"
    return f"{seconds} s"


def label(value: Any, most: int = 48, unknown: str = UNKNOWN) -> str:
    """A cell as one short line; a longer one loses its middle, because names differ at both ends."""
    # Cut before it is made literal, so that a text of many megabytes costs nothing.
    whole = str(value) if known(value) else unknown
    cut = whole if len(whole) <= 8 * most else f"{whole[: 4 * most]}{whole[-4 * most :]}"
    text = " ".join(literal(cut).split())
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def as_sentence(words: Any) -> str:
    """A clause with a capital letter and a full stop."""
    text = literal(words).strip()
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


def listing(things: Iterable[Any], most: int = 6, empty: str = "none", last: str = " and ") -> str:
    """A few things in one phrase."""
    names = [literal(thing) for thing in things]
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1:,} more"]
    return last.join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else empty
