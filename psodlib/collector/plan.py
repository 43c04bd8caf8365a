"""Whom a collection visits, what is fetched there, what for, and what it costs the host. Nothing else is run or read.

Every command reads. The one exception is a dump's log: it is extracted into a folder of our own on a datastore with room,
and the folder is removed again.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pandas as pd

from psodlib.errors import InputError
from psodlib.evidence.artifacts import read_inventory

_NAME = re.compile(r"(?!-)[A-Za-z0-9_.:-]{1,253}")
_PLACE = re.compile(r"(?:([\w.\\-]{1,64})@)?([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?")  # user, name, port
_USER = re.compile(r"[\w.@\\-]{1,64}")
# Our name -> the columns it goes by, as `read_inventory` spells those that it does not know itself. The first that a row fills is taken.
_COLUMNS = {
    "address": ("address", "ip_address", "management_ip", "management_ip_address"),
    "port": ("port", "ssh_port"),
    "user": ("user", "ssh_user", "username", "user_name", "account"),
    "jump": ("jump", "jump_host", "bastion"),
    "legacy": ("legacy", "sha_1", "sha1"),
}
_TRUE = {"1", "true", "yes", "y", "x"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One host to visit: its name (and folder), where its SSH server is, and how to treat it.

    ``user`` None takes the run's user. ``legacy`` allows SHA-1 algorithms. ``jump`` is visited first, only passes on.
    """

    name: str
    address: str
    port: int = 22
    user: str | None = None
    legacy: bool = False
    jump: Target | None = None

    @property
    def key_name(self) -> str:
        """The name under which known_hosts holds its key."""
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"


def folder_name(host: str) -> str:
    """The folder that a host's evidence lies in."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", host)


def read_hosts(
    hosts: str | Path | Iterable[str | Target], *, legacy: Iterable[str] = (), jump: str | None = None
) -> list[Target]:
    """Resolve what a caller names as hosts."""
    listed: Iterable[str | Target] = _listed(hosts) if isinstance(hosts, (str, Path)) else hosts
    if isinstance(hosts, pd.DataFrame):  # such as a fleet's own
        listed = hosts["host"].dropna() if "host" in hosts else ()
    old, through = set(legacy), _parse(jump) if jump else None
    found: dict[str, Target] = {}
    for entry in listed:
        each = entry if isinstance(entry, Target) else _parse(entry)
        each = replace(each, legacy=each.legacy or each.name in old, jump=each.jump or through)
        first = found.setdefault(folder_name(each.name).lower(), each)
        if replace(each, name="", address=each.address.lower()) != replace(
            first, name="", address=first.address.lower()
        ):
            raise InputError(f"the host {each.name} stands twice with different places; give each its own name")
    if not found:
        raise InputError(
            "no host was given; name hosts, a file of them, or an inventory (.csv, .xlsx) with a column 'host'"
        )
    if unknown := sorted(old - {each.name for each in found.values()}):
        raise InputError(f"{', '.join(unknown)}: listed as legacy, but not among the hosts; correct the name")
    return list(found.values())


def _listed(hosts: str | Path) -> list[str | Target]:
    path, name = Path(hosts), str(hosts)
    if not path.is_file():
        # A file's name with a slip in it would pass for a host's.
        if "/" in name or name.lower().endswith((".csv", ".txt", ".xlsx")) or path.is_dir():
            raise InputError(f"{name!r} is no file; expected a host, a file of hosts, or an inventory (.csv, .xlsx)")
        return [name]
    try:
        if path.suffix.lower() not in (".csv", ".xlsx"):
            lines = (line.split("#")[0].strip() for line in path.read_text("utf-8-sig", "replace").split("\n"))
            return [line for line in lines if line]
        table = read_inventory(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a file of hosts") from None
    if twice := table.attrs["duplicates"]:
        shown = ", ".join(twice[:5]) + (f" and {len(twice) - 5} more" if len(twice) > 5 else "")
        warnings.warn(f"{path}: several rows each for {shown}; the first counts", UserWarning, stacklevel=3)
    found: list[str | Target] = []
    for row in table.to_dict("records"):
        cells = {key: str(value) for key, value in row.items() if not pd.isna(value)}
        told = {name: next((cells[key] for key in keys if key in cells), "") for name, keys in _COLUMNS.items()}
        each = _target(cells["host"], told["address"], told["port"].removesuffix(".0"), told["user"])
        jump, legacy = _parse(told["jump"]) if told["jump"] else None, told["legacy"].lower() in _TRUE
        found.append(replace(each, jump=jump, legacy=legacy))
    return found


def _parse(text: str) -> Target:
    match = _PLACE.fullmatch(str(text).strip())
    if match is None:
        raise InputError(f"{text!r} is no host; expected [user@]name[:port], an IPv6 address in [ ]")
    return _target(match[2].strip("[]"), "", match[3], match[1])


def _target(name: str, address: str, port: str | None, user: str | None) -> Target:
    # The name becomes a folder: nothing that could leave it, and not the simulator's answer key.
    for each in (name, address or name):
        if not _NAME.fullmatch(each) or not each.strip(".") or each.lower() in {"truth", "simulated"}:
            raise InputError(f"{each!r} cannot name a host; expected letters, digits, dots, - and _")
    if user and not _USER.fullmatch(user):
        raise InputError(f"{name}: {user!r} is no user; expected letters, digits, dots, -, _, @ and \\")
    if port and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise InputError(f"{name}: {port!r} is no port; expected 1 to 65535")
    return Target(name=name, address=address or name, port=int(port or 22), user=user or None)


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
