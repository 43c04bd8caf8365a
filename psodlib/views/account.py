"""What people know and no evidence holds, in two TOML files; all of it is optional, every mistake is named.

``incident.toml`` beside the evidence tells of one crash:

    time_zone = "Europe/Berlin"            # or an offset, "-04:00": local times are shown beside UTC
    crash = "75b6d986"                     # the crash's id or its first digits, where the evidence holds several
    platform = "One sentence on what ran on the host."
    detected_at = 2014-05-31T11:58:00      # local, unless it bears an offset
    detected_by = "vSphere HA, by mail"
    users_hit = 40
    users_possible = 500                   # on a bad day
    users_possible_when = "on a weekday"
    vendor = "HP"                          # so, too: case, severity, contact

    [[event]]                              # as many as there are, in order
    at = 2014-05-31T13:00:00               # a time or a date; or, where neither is known:
    place = "before the reboot"            # "after the crash", "before the reboot", "after the reboot"
    what = "Support named the driver."
    decision = true                        # somebody decided this
    why = "..."

``site.toml`` holds a table [support] with what a case form asks for (vendor, account, customer, contract, orders, contact,
case). It is private: read only where somebody asked for it, it goes into the write-up or case that asked and nowhere else.
git ignores the file.
"""

from __future__ import annotations

import os
import re
import tomllib
import zoneinfo
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
import pandas as pd
from msgspec.structs import asdict, replace

from psodlib.errors import InputError, in_words
from psodlib.views.document import Section, Table
from psodlib.views.words import known

ACCOUNT_FILE, SITE_FILE = "incident.toml", "site.toml"
LARGEST = 1 << 16  # bytes of a file
FACTS = {
    "vendor": "Vendor", "account": "Account", "customer": "Customer number", "contract": "Contract", "orders": "Orders",
    "contact": "Contact", "case": "Case opened",
}  # fmt: skip
_Text = Annotated[str, msgspec.Meta(max_length=500)] | int
_People = Annotated[int, msgspec.Meta(ge=0, le=100_000_000)] | None
_Place = Literal["after the crash", "before the reboot", "after the reboot"]
PLACES: tuple[str, ...] = get_args(_Place)


class _Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    what: _Text
    why: _Text = ""
    at: Any = None  # in UTC, once it is read
    place: _Place = "after the crash"  # where it belongs, if it has no time
    decision: bool = False


class Event(_Event, frozen=True):
    """Something that happened or was decided."""

    whole_day: bool = False  # only the date is known


class _Incident(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    crash: _Text = ""
    platform: _Text = ""
    detected_by: _Text = ""
    users_possible_when: _Text = ""
    vendor: _Text = ""
    case: _Text = ""
    severity: _Text = ""
    contact: _Text = ""
    users_hit: _People = None
    users_possible: _People = None
    time_zone: Any = None
    detected_at: Any = None  # in UTC, once it is read
    event: Annotated[list[_Event], msgspec.Meta(max_length=100)] = []


class Account(_Incident, frozen=True):
    """What ``incident.toml`` says, its texts stripped and its times read; empty where it says nothing."""

    file: str = ""
    events: tuple[Event, ...] = ()

    def local(self, time: Any) -> str:
        """A time where the people were, to the second; "" where the zone is not known."""
        return f"{time.astimezone(self.time_zone):%Y-%m-%d %H:%M:%S}" if self.time_zone and known(time) else ""

    def renamed(self, rewrite: Callable[[str], str]) -> Account:
        """The same with every text rewritten, and without case and contact."""
        texts = {name: rewrite(text) for name, text in asdict(self).items() if isinstance(text, str) and name != "file"}
        events = tuple(replace(each, what=rewrite(str(each.what)), why=rewrite(str(each.why))) for each in self.events)
        return replace(self, **{**texts, "case": "", "contact": "", "events": events})


def find_account(sources: Sequence[Any], crash: pd.Series | None, crashes: int) -> Account:
    """The account of a crash: in its host's folder, or beside the evidence where that is of one crash or names this one.

    Of a fleet that was loaded before, the folders above the crash's own file are looked at, up to beside its host's.
    """
    if crash is None:
        return Account()
    host = str(crash["host"]) if known(crash["host"]) else None
    places = [(Path(source) / host, True) for source in sources if host]
    places += [(Path(source), crashes == 1) for source in sources]
    if not sources and host and known(crash["source"]):
        above = next((folder for folder in Path(str(crash["source"])).parents if folder.name == host), None)
        places = [(above, True), (above.parent, crashes == 1)] if above else []
    for folder, alone in places:
        if (folder / ACCOUNT_FILE).is_file():
            account = read_account(folder / ACCOUNT_FILE)
            if str(crash["crash_id"]).startswith(str(account.crash)) if account.crash else alone:
                return account
    return Account()


def read_account(file: str | Path) -> Account:
    """What a file says of an incident."""
    path = Path(file)
    content = _read(path, _Incident)
    zone = _zone(content.time_zone, path)
    read: dict[str, Any] = {"time_zone": zone, "detected_at": _time(content.detected_at, zone, path), "file": path.name}
    times = ({"at": _time(each.at, zone, path), "whole_day": type(each.at) is date} for each in content.event)
    events = tuple(Event(**_stripped(each) | time) for each, time in zip(content.event, times, strict=True))
    return Account(**{**_stripped(content), **read, "event": [], "events": events})


def _stripped(form: msgspec.Struct) -> dict[str, Any]:
    counts, values = ("users_hit", "users_possible"), asdict(form)  # a text may be a number too, such as that of a case
    texts = {name for name, value in values.items() if type(value) in (str, int) and name not in counts}
    return values | {name: str(values[name]).strip() for name in texts}


def find_site() -> Path:
    """Where the site's facts are: the first there is of ``$PSOD_SITE``, ``site.toml`` here, and the user's settings."""
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    named = [Path(os.environ["PSOD_SITE"])] if os.environ.get("PSOD_SITE") else []
    places = [*named, Path(SITE_FILE), settings / "psod" / SITE_FILE]
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(map(str, places))
    raise InputError(f"no {SITE_FILE} was found; looked for {looked}. Make one with a table [support], or name yours")


def site_section(file: str | Path) -> Section:
    """The facts of a site's file as a section of the write-up that asked for them."""
    value = _Text | Annotated[list[_Text], msgspec.Meta(max_length=20)]
    form = msgspec.defstruct("_Support", [(name, value, "") for name in FACTS], forbid_unknown_fields=True)
    support = asdict(_read(Path(file), msgspec.defstruct("_Site", [("support", form)])).support)
    listed = {FACTS[name]: value if isinstance(value, list) else [value] for name, value in support.items()}
    facts = {label: ", ".join(filter(None, (str(part).strip() for part in parts))) for label, parts in listed.items()}
    rows = [[label, value] for label, value in facts.items() if value]
    note = "Private: these lines are in this write-up because it was asked for them, and nowhere else."
    table = Table("What the case form asks for", ["Fact", "Value"], rows, note, widths=(24, 76))
    return Section("Support case", [table])


def _read(path: Path, form: Any) -> Any:
    # A small TOML file that a person wrote.
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path}: {path.stat().st_size:,} bytes; expected a small file that a person wrote")
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), form)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as TOML ({in_words(error)})") from error
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {error}; mend that line") from error


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
        wanted = "expected a name such as Europe/Berlin or an offset such as -04:00"
        raise InputError(f"{path}: time_zone is {str(value)[:80]!r}; {wanted}") from error


def _time(value: Any, zone: tzinfo | None, path: Path) -> pd.Timestamp | None:
    # In UTC; a day begins where the people were.
    if value is None:
        return None
    if not isinstance(value, date):
        wanted = "expected a date or a time without quotes, such as 2014-05-31T11:58:00"
        raise InputError(f"{path}: found {str(value)[:80]!r} where a time belongs; {wanted}")
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=zone or UTC)
    if value.tzinfo is None and zone is None:
        raise InputError(f"{path}: {value} is without a time zone; give time_zone, or an offset behind the time")
    return pd.Timestamp((value if value.tzinfo else value.replace(tzinfo=zone)).astimezone(UTC))
