"""What people know of an incident and no evidence holds: ``incident.toml`` beside the evidence. All of it is optional.

time_zone = "Europe/Berlin"            # or an offset, "-04:00": local times are shown beside UTC
crash = "75b6d986"                     # the crash's id or its first digits, where the evidence holds several
platform = "One sentence on what ran on the host."
detected_at = 2014-05-31T11:58:00      # local, unless it bears an offset
detected_by = "vSphere HA, by mail"
users_hit = 40
users_possible = 500                   # on a bad day
users_possible_when = "on a weekday"
vendor = "HP"
case = "SR 14-1234"
severity = "2"
contact = "Jo Doe, jo@example.com"

[[event]]                              # as many as there are, in order
at = 2014-05-31T13:00:00               # a time or a date; or, where neither is known:
place = "before the reboot"            # "after the crash", "before the reboot", "after the reboot"
what = "Support named the driver."
decision = true                        # somebody decided this
why = "..."
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any

import pandas as pd

from psodlib.errors import InputError
from psodlib.views.site import LONGEST, read_toml
from psodlib.views.words import known

__all__ = ["ACCOUNT_FILE", "PLACES", "Account", "Event", "find_account", "read_account"]

ACCOUNT_FILE = "incident.toml"
PLACES = ("after the crash", "before the reboot", "after the reboot")
WORDS = ("crash", "platform", "detected_by", "users_possible_when", "vendor", "case", "severity", "contact")
COUNTS = ("users_hit", "users_possible")
MOST_EVENTS, MOST_USERS = 100, 100_000_000


@dataclass(frozen=True)
class Event:
    """Something that happened or was decided."""

    what: str
    why: str = ""
    at: pd.Timestamp | None = None  # in UTC
    whole_day: bool = False  # only the date is known
    place: str = PLACES[0]  # where it belongs, if it has no time
    decided: bool = False


@dataclass(frozen=True)
class Account:
    """What ``incident.toml`` says; empty where it says nothing."""

    file: str = ""
    zone: tzinfo | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    users_hit: int | None = None
    users_possible: int | None = None
    detected_at: pd.Timestamp | None = None
    events: tuple[Event, ...] = ()

    def word(self, name: str) -> str:
        """One of its texts; "" where it has none."""
        return self.words.get(name, "")

    def local(self, time: Any) -> str:
        """A time where the people were, to the second; "" where the zone is not known."""
        return f"{time.astimezone(self.zone):%Y-%m-%d %H:%M:%S}" if self.zone and known(time) else ""

    def renamed(self, rewrite: Callable[[str], str]) -> Account:
        """The same with every text rewritten, and without case and contact."""
        kept = {name: rewrite(text) for name, text in self.words.items() if name not in ("case", "contact")}
        events = tuple(replace(event, what=rewrite(event.what), why=rewrite(event.why)) for event in self.events)
        return replace(self, words=kept, events=events)

    @property
    def offset(self) -> str:
        """The zone as people write it."""
        return str(self.zone) if self.zone else ""


def find_account(sources: Sequence[Any], crash: pd.Series | None, crashes: int) -> Account:
    """The account of a crash: in its host's folder, or beside the evidence where that is of one crash or names this one.

    Of a fleet that was loaded before, the folders above the crash's own file are looked at, up to beside its host's.
    """
    if crash is None:
        return Account()
    host = str(crash["host"]) if known(crash["host"]) else None
    places = [(Path(source) / host, True) for source in sources if host] + [
        (Path(source), crashes == 1) for source in sources
    ]
    if not sources and host and known(crash["source"]):
        above = next((folder for folder in Path(str(crash["source"])).parents if folder.name == host), None)
        places = [(above, True), (above.parent, crashes == 1)] if above else []
    for folder, alone in places:
        file = folder / ACCOUNT_FILE
        if file.is_file():
            account = read_account(file)
            named = account.word("crash")
            if str(crash["crash_id"]).startswith(named) if named else alone:
                return account
    return Account()


def read_account(file: str | Path) -> Account:
    """What a file says of an incident."""
    path = Path(file)
    content = read_toml(path, "what is known of the incident")
    expected = ("time_zone", "detected_at", *WORDS, *COUNTS, "event")
    unknown = sorted(set(content) - set(expected))
    if unknown:
        raise InputError(f"{path}: found {', '.join(unknown)[:200]}; expected {', '.join(expected)}")
    zone = _zone(content.get("time_zone"), path)
    at, _ = _time(content.get("detected_at"), zone, path, "detected_at")
    events = content.get("event", [])
    if (
        not isinstance(events, list)
        or len(events) > MOST_EVENTS
        or not all(isinstance(entry, dict) for entry in events)
    ):
        raise InputError(f"{path}: event must be a list of at most {MOST_EVENTS} tables; write [[event]] above each")
    return Account(
        file=path.name, zone=zone, detected_at=at, events=tuple(_event(entry, zone, path) for entry in events),
        words={name: _text(content[name], path, name) for name in WORDS if name in content},
        **{name: _number(content.get(name), path, name) for name in COUNTS},
    )  # fmt: skip


def _event(entry: Mapping[str, Any], zone: tzinfo | None, path: Path) -> Event:
    unknown = sorted(set(entry) - {"what", "why", "at", "place", "decision"})
    place = entry.get("place", PLACES[0])
    if unknown or "what" not in entry or place not in PLACES:
        raise InputError(
            f"{path}: an event needs `what` and may have `why`, `decision`, `at` and `place` ({', '.join(PLACES)}); found {', '.join(map(str, entry))[:200]}"
        )
    at, whole_day = _time(entry.get("at"), zone, path, "at")
    return Event(
        _text(entry["what"], path, "what"),
        _text(entry.get("why", ""), path, "why"),
        at,
        whole_day,
        place,
        entry.get("decision") is True,
    )


def _text(value: Any, path: Path, name: str) -> str:
    if not isinstance(value, (str, int)) or isinstance(value, bool) or len(str(value)) > LONGEST:
        raise InputError(f"{path}: {name} must be text of at most {LONGEST} letters")
    return str(value).strip()


def _number(value: Any, path: Path, name: str) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_USERS):
        raise InputError(f"{path}: {name} is {str(value)[:80]!r}; expected a whole number of people")
    return value


def _zone(value: Any, path: Path) -> tzinfo | None:
    if value is None:
        return None
    offset = re.fullmatch(r"(?:UTC)?([+-])(\d\d):?([0-5]\d)", str(value))
    if offset and int(offset[2]) < 15:
        span = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        return timezone(-span if offset[1] == "-" else span)
    try:
        return zoneinfo.ZoneInfo(str(value)[:80])
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError(
            f"{path}: time_zone is {str(value)[:80]!r}; expected a name such as Europe/Berlin or an offset such as -04:00"
        ) from error


def _time(value: Any, zone: tzinfo | None, path: Path, name: str) -> tuple[pd.Timestamp | None, bool]:
    if value is None:
        return None, False
    if isinstance(value, datetime):
        if value.tzinfo is None and zone is None:
            raise InputError(
                f"{path}: {name} is {value} without a time zone; give time_zone, or an offset behind the time"
            )
        aware = value if value.tzinfo else value.replace(tzinfo=zone)
        return pd.Timestamp(aware.astimezone(UTC)), False
    if isinstance(value, date):
        return pd.Timestamp(datetime(value.year, value.month, value.day, tzinfo=zone or UTC).astimezone(UTC)), True
    raise InputError(
        f"{path}: {name} is {str(value)[:80]!r}; expected a date or a time without quotes, such as 2014-05-31T11:58:00"
    )
