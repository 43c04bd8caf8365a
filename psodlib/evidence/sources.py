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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from psodlib.errors import InputError
from psodlib.evidence.addresses import trouble_at
from psodlib.evidence.archives import Container, Item, expand, unsafe
from psodlib.evidence.artifacts.commands import parse_date
from psodlib.evidence.places import FRAGMENT, Place, host_of_folder, place_of, runs_of, shown, stamp_of
from psodlib.evidence.streams import BLOCK, Budget, DiskFile, Limits, Stream, chained, diagnose, peeled
from psodlib.records import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One file as it lies in a folder, with its fragments: the unit of work. It pickles; nothing is open.

    ``paths`` are local paths, ``"-"`` for stdin, or addresses that fsspec opens.
    """

    paths: tuple[str, ...]
    place: Place
    watch: Callable[[], Any] | None = field(
        default=None, repr=False, compare=False
    )  # gives a hash for its text as it is read

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
    walks = []
    for source in sources:
        text = os.fspath(source)
        if text == "-":
            walks.append(_stdin())
        elif "://" in text:
            walks.append(_remote(text))
        elif not os.path.lexists(text) or not text:
            raise InputError(
                f"{shown(text)!r} does not exist; expected a folder, a file, an address with :// or - for stdin"
            )
        else:
            walks.append(_local(text))
    return (unit for walk in walks for unit in walk)


def _stdin() -> Iterator[Unit | Problem]:
    yield Unit(paths=("-",), place=Place(source="-", name="-"))


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
    inside = {
        path: str(path)[len(top) :].strip("/").split("/") if str(path).startswith(top) else [str(path)]
        for path in found
    }
    hosts = _hosts_far(list(inside.values()), top.rpartition("/")[2]) if is_folder else {}
    taken: dict[tuple[str, ...], datetime | None] = {
        tuple(parts[:-1]): _told_far(files, path) for path, parts in inside.items() if parts[-1] == "date.txt"
    }
    pieces = []
    for path, parts in sorted(inside.items()):
        whole = files.unstrip_protocol(path) if before is None else f"{before}{path}"
        place = place_of(whole, parts, top.rpartition("/")[2], hosts.get(tuple(parts[:-1])))
        place = replace(place, size=int(found[path].get("size") or 0), mtime=_stamp_far(found[path].get("mtime")))
        pieces.append((whole, replace(place, collected=place.collected or taken.get(tuple(parts[:-1])))))
    yield from _units(pieces)


def _hosts_far(files: list[list[str]], root: str) -> dict[tuple[str, ...], str | None]:
    # Folder -> the host whose it is, as the walk of a local folder finds it.
    names: dict[tuple[str, ...], set[str]] = {(): set()}
    folders: dict[tuple[str, ...], set[str]] = {(): set()}
    for parts in files:
        for depth in range(len(parts)):
            above = tuple(parts[:depth])
            (names if depth == len(parts) - 1 else folders).setdefault(above, set()).add(parts[depth])
    hosts: dict[tuple[str, ...], str | None] = {}
    for folder in sorted({*names, *folders}, key=lambda parts: (len(parts), parts)):
        known = hosts.get(folder[:-1]) if folder else None
        own = (folder[-1] if folder else root, folders.get(folder, ()), names.get(folder, ()))
        hosts[folder] = known or host_of_folder(*own, given=not folder)
    return hosts


def _told_far(files: Any, path: str) -> datetime | None:
    try:
        with files.open(path, "rb") as file:
            return parse_date(file.read(200).decode("utf-8", "replace"))
    except Exception:  # as in `_remote`; the file itself is read later, and its trouble told
        return None


def _stamp_far(told: Any) -> datetime | None:
    # A file's own time, where the protocol keeps it; a store of objects knows only when it was put there.
    return stamp_of(told.timestamp() if isinstance(told, datetime) else told) if told else None


@lru_cache(maxsize=4)  # of a folder whose files are given one by one
def _host_around(folder: str, changed: int) -> str | None:
    # The host in whose folder a lone file lies; the name of a place for all sorts of things is no host's.
    with os.scandir(folder) as entries:
        kinds = {entry.name: entry.is_dir() for entry in entries}
    inner = [name for name, is_folder in kinds.items() if is_folder]
    return host_of_folder(os.path.basename(folder), inner, kinds.keys() - set(inner))


def _local(text: str) -> Iterator[Unit | Problem]:
    if not os.path.isdir(text):
        parent, name = os.path.split(os.path.abspath(text))
        info = _stated(text)
        if isinstance(info, Problem):
            yield info
            return
        try:
            host = _host_around(parent, os.stat(parent).st_mtime_ns)
        except OSError:  # its folder may be entered, and not listed
            host = host_of_folder(os.path.basename(parent), (), (name,))
        place = place_of(text, [name], os.path.basename(parent), host, info)
        if place.hint_kind == "folder":  # where a lone file happens to lie: an archive's own folders know better
            place = replace(place, hint_kind="parent")
        yield Unit(paths=(text,), place=place)
        return
    root, own_name = Path(text), os.path.basename(os.path.abspath(text))
    hosts: dict[str, str | None] = {}
    for folder, names, folders in _walk(root):
        if isinstance(folder, Problem):
            yield folder
            continue
        given = folder == os.fspath(root)
        above_it = None if given else hosts.get(os.path.dirname(folder))
        hosts[folder] = above_it or host_of_folder(
            own_name if given else os.path.basename(folder), folders, names, given
        )
        above = Path(folder).relative_to(root).parts
        pieces = []
        taken = _told_time(os.path.join(folder, "date.txt")) if "date.txt" in names else None
        for name in names:
            path = os.path.join(folder, name)
            info = _stated(path, root)
            if isinstance(info, Problem):
                yield info
            elif info is not None:
                place = place_of(path, [*above, name], own_name, hosts[folder], info, taken)
                pieces.append((path, place))
        yield from _units(pieces)


def _told_time(path: str) -> datetime | None:
    # The time of a collection as `date` printed it into the folder: copying a folder changes its files' stamps.
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        with open(path, "rb") as file:
            return parse_date(file.read(200).decode("utf-8", "replace"))
    except OSError:
        return None


def _walk(root: Path) -> Iterator[tuple[Any, list[str], list[str]]]:
    # (folder, its files, its folders), depth first in sorted order; a link to a folder counts as a file.
    todo = [os.fspath(root)]
    while todo:
        folder = todo.pop()
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            folders = [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            yield diagnose(error, shown(folder)), [], []
            continue
        inner = set(folders)
        names = [entry.name for entry in found if entry.name not in inner]
        folders = [name for name in folders if not (name == "truth" and _is_simulated(folder, folders))]
        yield folder, names, folders
        todo += [os.path.join(folder, name) for name in reversed(folders)]


def _is_simulated(folder: str, folders: list[str]) -> bool:
    # The simulator's answer key stands at the root of a made-up fleet or beside it.
    return any(os.path.lexists(os.path.join(folder, name, "SIMULATED")) for name in ["", *folders])


def _stated(path: str, root: Path | None = None) -> Any:
    # What the system says of a plain file; a Problem for another thing, None for a link to what is read anyway.
    try:
        info = os.stat(path) if root is None else os.lstat(path)
        if stat.S_ISREG(info.st_mode):
            return info
        if stat.S_ISLNK(info.st_mode):
            if root is not None and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
                return None
            return unsafe(shown(path), "a link that leaves the source; not followed")
    except OSError as error:
        return diagnose(error, shown(path))
    detail = "no plain file (pipe, socket or device); not opened"
    return Problem(source=shown(path), problem="unreadable", detail=detail)


def _units(pieces: list[tuple[str, Place]]) -> Iterator[Unit | Problem]:
    # One folder's files, fragments put together.
    fragments: dict[str, dict[int, tuple[str, Place]]] = {}
    for path, place in pieces:
        match = FRAGMENT.match(path)
        if match:
            fragments.setdefault(match["base"], {})[int(match["number"])] = (path, place)
        else:
            yield Unit(paths=(path,), place=place)
    for base, numbered in sorted(fragments.items()):
        first = numbered[min(numbered)][1]
        for run in runs_of(numbered, shown(base)):
            if isinstance(run, Problem):
                yield run
                continue
            begin = run[0][1]
            name = FRAGMENT.sub(r"\g<base>", begin.name)
            source = FRAGMENT.sub(r"\g<base>", begin.source) if begin is first else begin.source
            yield Unit(
                paths=tuple(path for path, _ in run),
                place=replace(begin, source=source, name=name, size=sum(p.size for _, p in run), stat=None),
            )


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
        return (
            io.FileIO(sys.stdin.buffer.fileno(), closefd=False)
            if _has_descriptor()
            else iter(partial(sys.stdin.buffer.read, BLOCK), b"")
        )
    openers = [partial(_open_far if "://" in path else DiskFile, path) for path in unit.paths]
    return openers[0]() if len(openers) == 1 else chained(openers)


def _open_far(address: str) -> Any:
    import fsspec

    return fsspec.open(address, "rb").open()


def _has_descriptor() -> bool:
    # stdin replaced by a plain object (a test, a notebook) has none.
    try:
        sys.stdin.buffer.fileno()
    except (OSError, AttributeError):
        return False
    return True


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
        stream.begin_hash(unit.watch())
    stream.again = partial(_reopen, unit, limits, problems)
    return stream
