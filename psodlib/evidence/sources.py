"""Folder, file, archive, bundle, stdin or URL -> readable files, each with its place. Knows no file's meaning.

Two steps, so that the work can be spread: ``iter_units`` walks folders and opens nothing; ``open_unit`` turns one unit
into its items and unpacks archives as a stream, never onto the disk. ``iter_items`` does both.
"""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from psodlib.errors import InputError
from psodlib.evidence.addresses import trouble_at
from psodlib.evidence.archives import Container, Item, expand
from psodlib.evidence.artifacts.commands import parse_date
from psodlib.evidence.places import FRAGMENT, Place, host_of_folder, joined_runs, places_below, shown
from psodlib.evidence.streams import BLOCK, Budget, DiskFile, Limits, Stream, chained, diagnose, noted, peeled
from psodlib.records import Problem


class Unit(Struct, frozen=True, kw_only=True):
    """One file as it lies in a folder, with its fragments: the unit of work. It pickles; nothing is open.

    ``paths`` are local paths, ``"-"`` for stdin, or addresses that fsspec opens.
    """

    paths: tuple[str, ...]
    place: Place
    # gives a hash for its text as it is read
    watch: Callable[[], Any] | None = None

    @property
    def source(self) -> str:
        """The path as shown in tables."""
        return self.place.source

    @property
    def size(self) -> int:
        """Bytes as stored; 0 where unknown."""
        return self.place.size


# --- the walk: sources -> units ---------------------------------------------------------------------------------------


def iter_items(*sources: str | Path, limits: Limits | None = None) -> Iterator[Item | Problem]:
    """Walk sources and give every readable file in them."""
    for unit in iter_units(*sources):
        if isinstance(unit, Problem):
            yield unit
        else:
            yield from open_unit(unit, limits=limits)


def iter_units(*sources: str | Path) -> Iterator[Unit | Problem]:
    """Walk sources and give the files in them, opening none."""
    if not sources:
        raise InputError("no source was given; name an evidence folder, a log, a bundle, an address or - for stdin")
    walks: list[Iterator[Unit | Problem]] = []
    for source in sources:
        text = os.fspath(source)
        if text == "-":
            walks.append(iter([Unit(paths=("-",), place=Place(source="-", name="-"))]))
        elif "://" in text:
            walks.append(_remote(text))
        elif not os.path.lexists(text) or not text:
            expected = "expected a folder, a file, an address with :// or - for stdin"
            raise InputError(f"{shown(text)!r} does not exist; {expected}")
        else:
            walks.append(_local(text))
    return (unit for walk in walks for unit in walk)


class _Far(NamedTuple):
    # What an address says of a file, as `os.stat` names it.
    st_size: int
    st_mtime: float


# One folder below a source: its parts, its files as (name, path, what is known of it), its folders.
_Folder = tuple[tuple[str, ...], list[tuple[str, str, Any]], list[str]]


def _remote(address: str) -> Iterator[Unit | Problem]:
    if re.match(r"[^/]*://[^/@]*:[^/@]*@", address):
        raise InputError(
            "a password in an address would stand in every table and in the store; give a key or a password in fsspec's "
            "own settings (FSSPEC_SFTP, ~/.config/fsspec)"
        )
    import fsspec  # of use to few, and a tenth of a second of every worker's start

    try:
        files, root = fsspec.core.url_to_fs(address)
        is_folder = "*" not in root and files.isdir(root)
        if is_folder:
            found = files.find(root, detail=True)
        elif "*" in root:
            found = {path: info for path, info in files.glob(root, detail=True).items() if info["type"] == "file"}
        else:
            found = {root: files.info(root)} if files.exists(root) else {}
    except Exception as error:  # every protocol has its own errors, and a missing driver is an ImportError
        raise InputError(trouble_at(address, error)) from error
    if not found:
        raise InputError(f"{address} does not exist or is empty")
    top = str(root).rstrip("/")
    # Some protocols keep user and host out of their paths; a path must be an address again for whoever opens it.
    before = address.rstrip("/").removesuffix(top) if address.rstrip("/").endswith(top) else None
    tree: dict[tuple[str, ...], _Folder] = {}
    for path, info in sorted(found.items()):
        if is_folder:
            parts = tuple(path[len(top) :].strip("/").split("/"))
        else:
            parts = (path if "*" in root else path.rpartition("/")[2],)
        for depth in range(len(parts)):
            _, within, inner = tree.setdefault(parts[:depth], (parts[:depth], [], []))
            if depth < len(parts) - 1 and parts[depth] not in inner[-1:]:
                inner.append(parts[depth])
        whole = files.unstrip_protocol(path) if before is None else f"{before}{path}"
        # A file's own time, where the protocol keeps it; a store of objects knows only when it was put there.
        changed = info.get("mtime") or -1
        changed = changed.timestamp() if isinstance(changed, datetime) else changed
        within.append((parts[-1], whole, _Far(int(info.get("size") or 0), changed)))
    yield from _units((tree[parts] for parts in sorted(tree)), top.rpartition("/")[2], _open_far, is_folder)


@lru_cache(maxsize=4)  # of a folder whose files are given one by one
def _host_around(folder: str, changed: int) -> str | None:
    # The host in whose folder a lone file lies; the name of a place for all sorts of things is no host's.
    with os.scandir(folder) as entries:
        kinds = {entry.name: entry.is_dir() for entry in entries}
    inner = [name for name, is_folder in kinds.items() if is_folder]
    return host_of_folder(os.path.basename(folder), inner, kinds.keys() - set(inner), lone=True)


def _local(text: str) -> Iterator[Unit | Problem]:
    if os.path.isdir(text):
        yield from _units(_walk(text), os.path.basename(os.path.abspath(text)), DiskFile)
        return
    parent, name = os.path.split(os.path.abspath(text))
    info = _stated(text)
    if isinstance(info, Problem):
        yield info
        return
    try:
        host = _host_around(parent, os.stat(parent).st_mtime_ns)
    except OSError:  # its folder may be entered, and not listed
        host = host_of_folder(os.path.basename(parent), (), (name,), lone=True)
    place = places_below((), os.path.basename(parent), host)(text, name, info)
    if place.hint_kind == "folder":  # where a lone file happens to lie: an archive's own folders know better
        place = replace(place, hint_kind="parent")
    yield Unit(paths=(text,), place=place)


def _walk(root: str) -> Iterator[_Folder | Problem]:
    # Depth first in sorted order; a link to a folder counts as a file.
    todo: list[tuple[str, ...]] = [()]
    while todo:
        parts = todo.pop()
        folder = os.path.join(root, *parts)
        try:
            with os.scandir(folder) as entries:
                found = sorted((entry.name, entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries)
        except OSError as error:
            yield diagnose(error, shown(folder))
            continue
        folders = [name for name, _, is_folder in found if is_folder]
        if "truth" in folders and any(
            os.path.lexists(os.path.join(folder, name, "SIMULATED")) for name in ["", *folders]
        ):  # the simulator's answer key stands at the root of a made-up fleet or beside it
            folders.remove("truth")
        yield parts, [(name, path, _stated(path, root)) for name, path, is_folder in found if not is_folder], folders
        todo += [(*parts, name) for name in reversed(folders)]


def _stated(path: str, root: str | None = None) -> Any:
    # What the system says of a plain file; a Problem for another thing, None for a link to what is read anyway.
    try:
        info = os.stat(path) if root is None else os.lstat(path)
        if stat.S_ISREG(info.st_mode):
            return info
        if stat.S_ISLNK(info.st_mode):
            if root is not None and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
                return None
            return noted(shown(path), "unsafe_member", "a link that leaves the source; not followed")
    except OSError as error:
        return diagnose(error, shown(path))
    return noted(shown(path), "unreadable", "no plain file (pipe, socket or device); not opened")


def _units(
    folders: Iterable[_Folder | Problem], root: str, open_file: Callable[[str], Any], are_hosts: bool = True
) -> Iterator[Unit | Problem]:
    # Files with their places, a folder's fragments put together.
    hosts: dict[tuple[str, ...], str | None] = {}
    for folder in folders:
        if isinstance(folder, Problem):
            yield folder
            continue
        parts, files, inner = folder
        if are_hosts:
            own, names = parts[-1] if parts else root, [name for name, *_ in files]
            hosts[parts] = hosts.get(parts[:-1]) or host_of_folder(own, inner, names, given=not parts)
        dates = (path for name, path, info in files if name == "date.txt" and hasattr(info, "st_size"))
        taken = next((_told_time(open_file, path) for path in dates), None)
        fragments: dict[str, dict[int, tuple[Place, str]]] = {}
        place_of = places_below(parts, root, hosts.get(parts), taken)
        for name, path, info in files:
            if isinstance(info, Problem):
                yield info
            elif info is not None:
                place = place_of(path, name, info)
                if ".FRAG-" in name and (match := FRAGMENT.match(path)):
                    fragments.setdefault(match["base"], {})[int(match["number"])] = (place, path)
                else:
                    yield Unit(paths=(path,), place=place)
        for found in joined_runs(fragments):
            if isinstance(found, Problem):
                yield found
            else:
                yield Unit(paths=tuple(path for _, path in found[1]), place=found[0])


def _told_time(open_file: Callable[[str], Any], path: str) -> datetime | None:
    # The time of a collection as `date` printed it into the folder: copying a folder changes its files' stamps.
    try:
        with open_file(path) as file:
            return parse_date(file.read(200).decode("utf-8", "replace"))
    except Exception:  # the file itself is read later, and its trouble told
        return None


# --- opening: unit -> items -------------------------------------------------------------------------------------------


def open_unit(unit: Unit, *, limits: Limits | None = None) -> Iterator[Item | Problem]:
    """Give the items of one unit: itself, or the members of the archive it is."""
    chosen = limits or Limits()
    problems: list[Problem] = []
    try:
        raw = _open_paths(unit)
    except Exception as error:  # permission, vanished, a remote store's own errors
        yield diagnose(error, unit.source)
        return
    budget = Budget(chosen)
    reopen = None if unit.paths == ("-",) else partial(_reopen, unit, chosen)
    with Stream(raw, unit.source, problems, budget=budget) as stream:
        for found in expand(stream, unit.place, budget, reopen=reopen):
            if isinstance(found, Item) and found.source == unit.source and reopen is not None:
                problems.clear()  # the look at the head has its own troubles; a reopened file tells them again
            if not isinstance(found, Container):
                yield found
    yield from problems


def _open_paths(unit: Unit) -> Any:
    if unit.paths == ("-",):
        if sys.stdin is None:
            raise OSError("standard input is closed")
        try:
            return io.FileIO(sys.stdin.buffer.fileno(), closefd=False)
        except (OSError, AttributeError):  # stdin replaced by a plain object (a test, a notebook) has none
            return iter(partial(sys.stdin.buffer.read, BLOCK), b"")
    openers = [partial(_open_far if "://" in path else DiskFile, path) for path in unit.paths]
    return openers[0]() if len(openers) == 1 else chained(openers)


def _open_far(address: str) -> Any:
    import fsspec

    return fsspec.open(address, "rb").open()


def _reopen(unit: Unit, limits: Limits, told: list[Problem] | None = None) -> Stream:
    # A plain or compressed file on disk or at an address, from its start: every call a new stream.
    budget, problems = Budget(limits), [] if told is None else told
    problems.clear()
    try:
        stream = Stream(_open_paths(unit), unit.source, problems, budget=budget)
    except Exception as error:  # it vanished since it was looked at
        problems.append(diagnose(error, unit.source))
        return Stream((), unit.source, problems)
    stream = peeled(stream, budget)
    if unit.watch:
        stream.begin_hash(into=unit.watch())
    stream.again = partial(_reopen, unit, limits, problems)
    return stream
