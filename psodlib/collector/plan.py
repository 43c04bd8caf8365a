"""What is fetched from a host, what for, and what it costs it. Nothing else is ever run or read there.

Every command reads. The one exception is a dump's log: it is extracted into a folder of our own on a datastore with room,
and the folder is removed again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

import pandas as pd

from psodlib.errors import InputError


@dataclass(frozen=True, slots=True)
class Command:
    """One command's output: alternatives in the order they are tried, ``{module}`` standing for the driver."""

    lines: tuple[str, ...]
    why: str
    cost: str
    version: bool = False  # belongs to the version evidence, which `verify` is content with


@dataclass(frozen=True, slots=True)
class Logs:
    """Files of the first folder that has some whose names match; only plain names pass, whatever a server lists."""

    label: str
    folders: tuple[str, ...]
    name: re.Pattern[str]
    why: str
    cost: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one host's visit, in seconds and bytes.

    ``command`` and ``extract`` (a dump's log) are seconds without a byte after which a command is left alone, and four
    times as many are all that it gets; ``idle`` are those without a byte after which the connection is cut off.
    """

    connect: float = 10
    login: float = 30
    command: float = 30
    extract: float = 600
    idle: float = 60
    total: float = 1800
    bytes: int = 4 << 30

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not 0 < value < float("inf"):  # nor nan
                raise InputError(f"the limit {limit.name} is {value}; expected a number above 0 and below infinity")


def _plain(pattern: str) -> re.Pattern[str]:
    # Letters and digits are ASCII's: a host may list what it likes.
    return re.compile(pattern, re.ASCII)


_READS = "a file read"
_ASKS = "1 s of one core"

COMMANDS: tuple[Command, ...] = (
    Command(("date",), "the host's clock against ours", "none", version=True),
    Command(("uptime",), "when this boot began", "none", version=True),
    Command(("uname -a",), "host, ESXi version and build", "none", version=True),
    Command(("localcli system stats uptime get", "esxcli system stats uptime get"), "the boot's begin, exactly", _ASKS, version=True),
    Command(("localcli system version get", "esxcli system version get"), "ESXi version, build, update", _ASKS, version=True),
    Command(("localcli software vib list", "esxcli software vib list"), "what is installed", "1-3 s of one core", version=True),
    Command(("localcli software vib get --rebooting-image", "esxcli software vib get --rebooting-image"),
            "what the next boot will load", "1-3 s of one core", version=True),
    Command(("cat /proc/scsi/{module}/*",), "the loaded driver's own word", _READS, version=True),
    Command(("cat /proc/driver/{module}/*",), "the loaded driver and its firmware", _READS, version=True),
    Command(("vmkload_mod -s {module}", "localcli system module get -m {module}"), "version of the module in this boot's image", _ASKS, version=True),
    Command(("localcli hardware platform get", "esxcli hardware platform get"), "vendor, model, serial", _ASKS),
    Command(("esxcfg-module -q",), "loaded modules", _ASKS),
    Command(("vmkload_mod -v10 -l",), "loaded modules with addresses", _ASKS),
    Command(("localcli storage core adapter list", "esxcli storage core adapter list"), "which driver has which adapter", _ASKS),
    Command(("localcli network nic list", "esxcli network nic list"), "which driver has which network card", _ASKS),
    Command(("localcli system coredump partition get", "esxcli system coredump partition get"), "would a crash leave a dump?", _ASKS),
    Command(("localcli system coredump file get", "esxcli system coredump file get"), "would a crash leave a dump?", _ASKS),
)  # fmt: skip

# In the order of what a lost connection would cost most.
LOGS: tuple[Logs, ...] = (
    Logs("vmkernel-log.*", ("/var/core",), _plain(r"vmkernel-log[\w.-]{0,60}"), "dump logs that somebody extracted before", _READS),
    *(
        Logs(f"{name}.*", ("/var/run/log", "/var/log"), _plain(rf"{name}\.(?:log(?:\.\d{{1,3}})?|\d{{1,3}}(?:\.gz)?)"), why, _READS)
        for name, why in (
            ("vmksummary", "boots, heartbeats, uptimes over months"),
            ("vmkernel", "the hours before a crash, driver banners at boot"),
            ("esxupdate", "when drivers were changed"),
            ("vobd", "events of storage and network"),
            ("hostd", "who rebooted the host, and when it came back"),
        )
    ),
)  # fmt: skip

DUMPS = Logs(
    "vmkernel-zdump*",
    ("/var/core",),
    _plain(r"vmkernel-zdump[\w.-]{0,60}"),
    "core dumps whose log nobody extracted",
    "10-60 s of one core and a few MB on a datastore, removed afterwards; never with -n, never where space is short",
)
ROOM = 256 << 20  # bytes that must be free where a dump's log is extracted
ROOM_FOLDERS = ("/scratch", "/var/core")  # tried in this order, and only where they lie on a datastore
DATASTORES = "/vmfs/volumes/"
# Both write the log of a dump into the current folder; neither touches the dump's "unread" mark.
EXTRACTORS = ("esxcfg-dumppart -L {dump}", "vmkdump_extract -l {dump}")


def safe_module(module: str) -> str:
    """The module's name, if it is one: it becomes part of a command."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}", module):
        raise InputError(f"{module!r} is no module's name; expected letters, digits, _ and - only, as in hpsa")
    return module


def output_name(command: str) -> str:
    """The file name of a command's output, as vm-support names them."""
    words = re.sub(r"[^\w -]", "", command).split()
    return "_".join(part for part in (words[0], "-".join(words[1:])) if part) + ".txt"


def plan_table(module: str = "hpsa") -> pd.DataFrame:
    """What a collection would fetch from each host."""
    safe_module(module)
    rows = [("; else ".join(c.lines).format(module=module), c.why, c.cost) for c in COMMANDS]
    rows += [(f"{' or '.join(group.folders)}: {group.label}", group.why, group.cost) for group in LOGS]
    extract = "; else ".join(EXTRACTORS).format(dump=f"{DUMPS.folders[0]}/{DUMPS.label}")
    rows.append((f"{extract} (in {' or '.join(ROOM_FOLDERS)} on {DATASTORES})", DUMPS.why, DUMPS.cost))
    return pd.DataFrame(rows, columns=["what", "why", "cost"], dtype="string")
