"""What a path says of a file: how to show it, whose host it is, when it was taken, which fragments belong together."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from psodlib.records import Problem

_BUNDLE = re.compile(
    r"(?:esx-(?P<host>.+)-|(?:esx|vm-support)-)(?P<day>\d{4}-\d\d-\d\d)--(?P<hour>\d\d)\.(?P<minute>\d\d)(?:[-.]\d+)*$"
)
_VCENTER = re.compile(r"(?P<host>[^/]+)-vm\d{4}-\d{1,2}-\d{1,2}@\d{1,2}-\d{1,2}-\d{1,2}\.tgz$")
FRAGMENT = re.compile(r"(?P<base>.+)\.FRAG-(?P<number>\d{5})$")
# Folders inside a host's folder: the name above the first of them is the host's.
_INNER = frozenset({"commands", "core", "etc", "log", "proc", "run", "scratch", "usr", "var"})
# Names that a host gives its logs, and that people give its outputs: a folder which holds one is a host's.
_HOSTS_OWN = re.compile(
    r"(?:vmkernel|vmkwarning|vmksummary|vmkeventd|vobd|hostd|hostd-probe|vpxa|esxupdate|fdm|shell|auth|syslog|sysboot|boot|jumpstart-stdout|dmesg)"
    r"(?:\.\d{1,3})?(?:\.log)?(?:\.\d{1,3})?(?:\.gz)?"
    r"|vmkernel-(?:log|zdump)(?:[.-][\w.]{1,40})?"
    r"|(?:localcli|esxcli|esxcfg-[a-z]{2,20}|vmkload_mod|vmware|uname|smbiosDump|lspci|ethtool|vmkchdev)[_ -][^/]{1,200}"
)
# A folder whose name could be a host's, if what lies in it does not say: `esx01`, `srv-07.lab`, `10.0.0.7`.
_LIKE_A_HOST = re.compile(
    r"(?i:esx)|[\w-]\.[A-Za-z]{2,}$|^\d{1,3}(?:\.\d{1,3}){3}$|^[A-Za-z][A-Za-z-]{0,20}[\d-]{1,8}[A-Za-z]{0,3}\d{0,4}$"
)
_NO_HOSTS_FOLDER = re.compile(
    r"(?i)(?:[\w-]*?logs?|logs?hosts?|syslogs?|rv-?tools.*|putty.*|evidence|exports?|captures?|cases?|crash(?:es)?|psods?|dumps?|outputs?|texts?|forums?|"
    r"misc|files?|downloads?|temp|inventory|reports?|vcenters?|clusters?|hosts?)(?:[-_ .]?\d{0,8})"
)
_NO_HOST = frozenset({"", ".", "..", "localhost", "localhost.localdomain", "tmp"})


class Place(Struct, frozen=True, kw_only=True):
    # Where a file stands and what that says of its host.
    source: str
    name: str
    hint: str | None = None
    hint_kind: str | None = None
    collected: datetime | None = None
    mtime: datetime | None = None
    size: int = 0
    stat: tuple[int, int, int] | None = None  # of a file on this machine: its bytes' and its own time in ns, its inode


def host_of_folder(
    name: str, folders: Collection[str], names: Collection[str], given: bool = False, lone: bool = False
) -> str | None:
    """The host whose folder this is by its look, or None: files that only share a folder are each their own evidence.

    A host's folder holds a bundle's inner folders, or logs and outputs as a host names them. Of a folder that nobody ``given`` as a
    source, but that lies in one, the name counts too, and that it holds one thing alone, unless a ``lone`` file was given.
    """
    inner = {folder for folder in folders if not folder.startswith(".")}
    own = any(map(_HOSTS_OWN.fullmatch, names))
    looks = bool(inner & {"commands", "var"}) or (own and not inner - _INNER)
    looks |= "manifest.json" in names and bool(inner & {"vcenter", "earlier"})  # collected
    if not looks and not given:
        alone = len(names) == 1 and not (inner or lone)
        named = names and not _NO_HOSTS_FOLDER.fullmatch(name) and (alone or _LIKE_A_HOST.search(name))
        looks = bool(named) or own or any(map(_BUNDLE.match, inner))
    return name if looks and _may_name(name) else None


def _may_name(folder: str) -> bool:
    return folder.lower() not in _NO_HOST and folder not in _INNER and not _BUNDLE.match(folder)


def places_below(
    folders: Sequence[str], root: str, host: str | None, taken: datetime | None = None
) -> Callable[[str, str, os.stat_result | None], Place]:
    """Path, name and stat of a file of one folder -> where it stands; `folders` lead there from `root`, the one that was given."""
    named, at = _bundle_hint([root, *folders])
    before = shown("".join(f"{folder}/" for folder in folders))

    def place(path: str, name: str, info: os.stat_result | None) -> Place:
        found, moment = _matched(name)
        hint = found or named or host
        return Place(
            source=shown(path), name=before + shown(name), hint=shown(hint) if hint else None,
            hint_kind="bundle" if found or named else "folder" if hint else None, collected=moment or at or taken,
            mtime=stamp_of(info.st_mtime) if info else None, size=info.st_size if info else 0,
            stat=(info.st_mtime_ns, info.st_ctime_ns, info.st_ino) if isinstance(info, os.stat_result) else None,
        )  # fmt: skip

    return place


def member_place(outer: Place, name: str, size: int, mtime: float) -> Place:
    """Where a member of the archive at ``outer`` stands; the innermost bundle name wins, a plain folder only where nothing else is known."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    hint, collected = _bundle_hint([outer.name.rstrip("/").rpartition("/")[2], *parts])
    kind: str | None = "bundle"
    if hint is None:
        hint, kind = outer.hint, outer.hint_kind
    if hint is None or kind == "parent":
        inner = next((index for index, part in enumerate(parts[:-1]) if part in _INNER), len(parts) - 1)
        folder = parts[inner - 1] if inner > 0 else ""
        # One of several may only share it.
        if _may_name(folder) and (inner < len(parts) - 1 or host_of_folder(folder, ["-"], [parts[-1]])):
            hint, kind = folder, "folder"
    return Place(
        source=f"{outer.source}!{shown(name)}", name=shown("/".join(parts)), hint=shown(hint) if hint else None, hint_kind=kind,
        collected=collected or outer.collected, mtime=stamp_of(mtime), size=size,
    )  # fmt: skip


def _bundle_hint(parts: Sequence[str]) -> tuple[str | None, datetime | None]:
    # Host and time as the innermost bundle name among the parts tells them; read from the right, hosts contain `-`.
    host, collected = None, None
    for part in reversed(parts):
        found, moment = _matched(part)
        collected = collected or moment
        host = host or found
    return host, collected


@lru_cache(1 << 14)  # a fleet's paths are made of few words
def _matched(part: str) -> tuple[str | None, datetime | None]:
    # The host and the time that a bundle's name tells.
    match = _BUNDLE.match(re.sub(r"\.(tgz|tar\.gz|tar|zip)$", "", part))
    named, moment = match or _VCENTER.match(part), None
    with suppress(ValueError):
        moment = datetime.fromisoformat(f"{match['day']}T{match['hour']}:{match['minute']}+00:00") if match else None
    return named["host"] if named and (named["host"] or "").lower() not in _NO_HOST else None, moment


def stamp_of(seconds: float) -> datetime | None:
    """A file's stamp as UTC; None outside 1990..2200, where it is no stamp."""
    return datetime.fromtimestamp(seconds, UTC) if 631_152_000 <= seconds < 7_258_118_400 else None


def joined_runs(held: Mapping[str, Mapping[int, tuple[Place, Any]]]) -> Iterator[tuple[Place, list[Any]] | Problem]:
    """Fragments by file and number, each with its place first -> runs without a hole as one place, and a Problem for each hole."""
    for base, numbered in sorted(held.items()):
        numbers = sorted(numbered)
        begins = [at for at, number in enumerate(numbers) if at == 0 or number != numbers[at - 1] + 1]
        for begin, end in zip(begins, [*begins[1:], len(numbers)], strict=True):
            first, expected = numbers[begin], numbers[begin - 1] + 1 if begin else 0
            if first != expected:
                missing = f"FRAG-{expected:05d}" + (f" to {first - 1:05d}" if first - 1 > expected else "")
                detail = f"{missing} missing; nothing is glued over the hole"
                yield Problem(source=shown(base), problem="fragment_missing", detail=detail)
            run = [numbered[number] for number in numbers[begin:end]]
            place, size = run[0][0], sum(one[0].size for one in run)
            source = place.source if begin else FRAGMENT.sub(r"\g<base>", place.source)
            yield replace(place, source=source, name=FRAGMENT.sub(r"\g<base>", place.name), size=size, stat=None), run


def shown(text: str) -> str:
    """A path as a table can hold it: undecodable bytes and control characters escaped."""
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
