"""Names, a file of names or an inventory -> the hosts to visit."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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

    ``user`` None takes the run's user. ``legacy`` allows SHA-1 algorithms. ``jump`` is visited first and only passes on.
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
            raise InputError(f"{name!r}: no such file; expected a host, a file of hosts, or an inventory (.csv, .xlsx)")
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
    return [_from_row(row) for row in table.to_dict("records")]


def _from_row(row: dict[Any, Any]) -> Target:
    cells = {key: str(value) for key, value in row.items() if not pd.isna(value)}
    told = {name: next((cells[key] for key in keys if key in cells), "") for name, keys in _COLUMNS.items()}
    jump, legacy = _parse(told["jump"]) if told["jump"] else None, told["legacy"].lower() in _TRUE
    found = _target(cells["host"], told["address"], told["port"].removesuffix(".0"), told["user"])
    return replace(found, jump=jump, legacy=legacy)


def _parse(text: str) -> Target:
    match = _PLACE.fullmatch(text.strip())
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
