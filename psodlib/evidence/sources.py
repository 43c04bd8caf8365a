"""Folder, file, archive, bundle, stdin or URL -> readable files, each with its place. Knows no file's meaning.

Two steps, so that the work can be spread: ``iter_units`` walks folders and opens nothing; ``open_unit`` turns one unit
into its items and unpacks archives as a stream, never onto the disk. ``iter_items`` does both.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import lzma
import os
import posixpath
import re
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import fsspec
from isal import igzip_lib

from psodlib.errors import InputError
from psodlib.evidence.artifacts.commands import parse_date
from psodlib.records import Problem

__all__ = [
    "MAX_MEMBERS",
    "MAX_RATIO",
    "MAX_SIZE",
    "Item",
    "Limits",
    "Stream",
    "Unit",
    "iter_items",
    "iter_units",
    "open_unit",
]

MAX_SIZE = 64 << 30  # bytes that one archive or compressed file may unfold to
MAX_RATIO = 250  # bytes unfolded for each byte read; logs reach 20, a deflate bomb 1030
RATIO_FLOOR = 64 << 20  # below this much output no ratio is judged: a small file of blanks is no bomb
MAX_MEMBERS = 200_000  # files in one archive
MAX_HELD = 96 << 20  # bytes of fragments, or of an archive that cannot be read as a stream, kept in memory
MAX_HEADER = 4 << 20  # bytes of one archive member's header
MAX_ARCHIVES = 2  # a vCenter zip holds the hosts' tgz
MAX_WRAPS = 2  # compressions around one file
HASHED = 16 << 20  # content beyond this has no hash: it is no rotated log that a bundle mirrors
BLOCK = 256 << 10

_BUNDLE = re.compile(
    r"(?:esx-(?P<host>.+)-|(?:esx|vm-support)-)(?P<day>\d{4}-\d\d-\d\d)--(?P<hour>\d\d)\.(?P<minute>\d\d)(?:[-.]\d+)*$"
)
_VCENTER = re.compile(r"(?P<host>[^/]+)-vm\d{4}-\d{1,2}-\d{1,2}@\d{1,2}-\d{1,2}-\d{1,2}\.tgz$")
_FRAGMENT = re.compile(r"(?P<base>.+)\.FRAG-(?P<number>\d{5})$")
# Folders inside a host's folder: the name above the first of them is the host's.
_INNER = frozenset({"commands", "core", "etc", "log", "proc", "run", "scratch", "usr", "var"})
_NO_HOST = frozenset({"", ".", "..", "localhost", "localhost.localdomain", "tmp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far an archive may unfold before it is taken for a bomb; the defaults are this module's constants."""

    size: int = MAX_SIZE
    ratio: float = MAX_RATIO
    members: int = MAX_MEMBERS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    # Where a file stands and what that says of its host.
    source: str
    name: str
    hint: str | None = None
    hint_kind: str | None = None
    collected: datetime | None = None
    mtime: datetime | None = None
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One file as it lies in a folder, with its fragments: the unit of work. It pickles; nothing is open.

    ``paths`` are local paths, ``"-"`` for stdin, or addresses that fsspec opens.
    """

    paths: tuple[str, ...]
    place: _Place

    @property
    def source(self) -> str:
        """The path as shown in tables."""
        return self.place.source

    @property
    def size(self) -> int:
        """Bytes as stored; 0 where unknown."""
        return self.place.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One readable file: plain, unpacked, or a member of an archive.

    ``hint`` is the host as its place tells it; ``hint_kind`` says how: ``"bundle"`` (a vm-support name) or ``"folder"``.
    ``collected`` is the time in a bundle's name. ``size`` is as stored: of a ``.gz``, its compressed bytes.
    """

    source: str
    name: str
    hint: str | None
    hint_kind: str | None
    size: int
    mtime: datetime | None
    collected: datetime | None
    opener: Callable[[], Stream] = field(repr=False, compare=False)

    def open(self) -> Stream:
        """The unpacked bytes from the start.

        An archive's member is open only until the next item is drawn, and once.

        Raises
        ------
        InputError
            The archive has moved on.
        """
        return self.opener()


class _Trouble(Exception):
    # Ends a stream; becomes the Problem of that word.
    def __init__(self, problem: str, detail: str) -> None:
        super().__init__(detail)
        self.problem, self.detail = problem, detail


class Stream(io.RawIOBase):
    """Bytes that never raise: what goes wrong ends the stream and stands in ``problems``.

    ``sha256`` (hexadecimal) and ``count`` are of the bytes read so far; ``sha256`` is None where content is too large to hash.
    """

    def __init__(
        self, raw: io.RawIOBase | BinaryIO, source: str, problems: list[Problem] | None = None, hashed: bool = False
    ) -> None:
        super().__init__()
        self._raw, self._source = raw, source
        self._head = b""
        self._ended = False
        self._hash = hashlib.sha256() if hashed else None
        self.count = 0
        self.problems: list[Problem] = [] if problems is None else problems

    def readable(self) -> bool:
        """Always."""
        return True

    def peek(self, size: int) -> bytes:
        """The next bytes, up to ``size``, without taking them."""
        parts, have = [self._head], len(self._head)
        while have < size:
            piece = bytearray(size - have)
            got = self._pull(memoryview(piece))
            if not got:
                break
            parts.append(bytes(piece[:got]))
            have += got
        self._head = b"".join(parts)
        return self._head[:size]

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``; 0 at the end or where the trouble began."""
        view = memoryview(buffer).cast("B")
        if self._head:
            got = min(len(view), len(self._head))
            view[:got] = self._head[:got]
            self._head = self._head[got:]
        else:
            got = self._pull(view)
        self.count += got
        if self._hash is not None:
            self._hash.update(view[:got])
            if self.count > HASHED:
                self._hash = None
        return got

    @property
    def sha256(self) -> str | None:
        """Hash of the bytes read so far."""
        return None if self._hash is None else self._hash.hexdigest()

    def close(self) -> None:
        """Close the file behind it."""
        if not self.closed:
            self._raw.close()
        super().close()

    def _pull(self, view: memoryview) -> int:
        if self._ended or not len(view):
            return 0
        try:
            got = self._raw.readinto(view) or 0  # type: ignore[union-attr]
        except Exception as error:  # the one guard: any decoder's complaint ends this stream, not the load
            problem, detail = _diagnose(error)
            self.problems.append(Problem(source=self._source, problem=problem, detail=detail))
            got = 0
        self._ended = got == 0
        return got


def _diagnose(error: Exception) -> tuple[str, str]:
    # An exception while opening or reading -> the contract's word and what to tell.
    if isinstance(error, _Trouble):
        return error.problem, error.detail
    if isinstance(error, FileNotFoundError):
        return "vanished", "the file is gone since the folder was listed"
    if isinstance(error, EOFError):
        return "truncated", "the archive ends before its time; what came before is used"
    if isinstance(error, RuntimeError) and "encrypted" in str(error):
        return "encrypted", "the archive member needs a password; unpack it first"
    if isinstance(error, (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, NotImplementedError)):
        return "damaged_archive", f"{error}; what came before is used"
    return "unreadable", f"{type(error).__name__}: {error}"


# --- the walk: sources -> units ---------------------------------------------------------------------------------------


def iter_items(*sources: str | Path, limits: Limits | None = None) -> Iterator[Item | Problem]:
    """Walk sources and give every readable file in them.

    Parameters
    ----------
    *sources : str or Path
        Folders, single files, ``"-"`` for stdin, or addresses with ``://`` that fsspec opens.
    limits : Limits, optional
        How far archives may unfold.

    Yields
    ------
    Item or Problem
        An item of an archive must be read before the next is drawn.

    Raises
    ------
    InputError
        No source, or one that does not exist.
    """
    for unit in iter_units(*sources):
        if isinstance(unit, Problem):
            yield unit
        else:
            yield from open_unit(unit, limits=limits)


def iter_units(*sources: str | Path) -> Iterator[Unit | Problem]:
    """Walk sources and give the files in them, opening none.

    Parameters
    ----------
    *sources : str or Path
        As for ``iter_items``.

    Yields
    ------
    Unit or Problem
        Sorted by path within a source.

    Raises
    ------
    InputError
        No source, or one that does not exist. Raised before the first unit.
    """
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
                f"{_shown(text)!r} does not exist; expected a folder, a file, an address with :// or - for stdin"
            )
        else:
            walks.append(_local(text))
    return (unit for walk in walks for unit in walk)


def _stdin() -> Iterator[Unit | Problem]:
    yield Unit(paths=("-",), place=_Place(source="-", name="-"))


def _remote(address: str) -> Iterator[Unit | Problem]:
    try:
        files, root = fsspec.core.url_to_fs(address)
        found = (
            files.glob(root) if "*" in root else files.find(root) if files.isdir(root) else [root] * files.exists(root)
        )
    except Exception as error:  # every protocol has its own errors, and a missing driver is an ImportError
        raise InputError(f"{address}: {type(error).__name__}: {error}") from error
    if not found:
        raise InputError(f"{address} does not exist or is empty")
    top = str(root).rstrip("/")
    inside = {
        path: str(path)[len(top) :].strip("/").split("/") if str(path).startswith(top) else [str(path)]
        for path in found
    }
    one_host = files.isdir(root) and _is_one_host(
        {parts[0] for parts in inside.values() if len(parts) > 1}, ["x"] * any(len(p) == 1 for p in inside.values())
    )
    pieces = [
        (files.unstrip_protocol(path), _place(files.unstrip_protocol(path), parts, top.rpartition("/")[2], one_host))
        for path, parts in sorted(inside.items())
    ]
    yield from _units(pieces)


def _local(text: str) -> Iterator[Unit | Problem]:
    if not os.path.isdir(text):
        folder = os.path.basename(os.path.dirname(os.path.abspath(text)))
        place = _stated(_place(text, [os.path.basename(text)], folder, one_host=True), text)
        yield place if isinstance(place, Problem) else Unit(paths=(text,), place=place)
        return
    root = Path(text)
    for folder, names, folders in _walk(root):
        if isinstance(folder, Problem):
            yield folder
            continue
        if folder == os.fspath(root):
            one_host = _is_one_host(folders, names)
        pieces = []
        taken = _told_time(os.path.join(folder, "date.txt")) if "date.txt" in names else None
        for name in names:
            path = os.path.join(folder, name)
            parts = list(Path(path).relative_to(root).parts)
            place = _stated(_place(path, parts, os.path.basename(os.path.abspath(text)), one_host), path, root)
            if isinstance(place, Problem):
                yield place
            elif place is not None:
                pieces.append((path, replace(place, collected=place.collected or taken)))
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
            problem, detail = _diagnose(error)
            yield Problem(source=_shown(folder), problem=problem, detail=detail), [], []
            continue
        names = [entry.name for entry in found if entry.name not in set(folders)]
        folders = [name for name in folders if not (name == "truth" and _is_simulated(folder, folders))]
        yield folder, names, folders
        todo += [os.path.join(folder, name) for name in reversed(folders)]


def _is_simulated(folder: str, folders: list[str]) -> bool:
    # The simulator's answer key stands at the root of a made-up fleet or beside it.
    return any(os.path.lexists(os.path.join(folder, name, "SIMULATED")) for name in ["", *folders])


def _is_one_host(folders: Sequence[str] | set[str], names: Sequence[str]) -> bool:
    # A folder is a host's own when it has a bundle's inner folders, or files and no folders of others.
    visible = {name for name in folders if not name.startswith(".")}
    return bool(visible & {"commands", "var"}) or (bool(names) and not visible - _INNER)


def _stated(place: _Place, path: str, root: Path | None = None) -> Any:
    # Completes a place with size and time; a Problem for what is no plain file; None for a link to what is read anyway.
    try:
        info = os.stat(path) if root is None else os.lstat(path)
        if stat.S_ISLNK(info.st_mode):
            target = os.path.realpath(path)
            if root is not None and Path(target).is_relative_to(os.path.realpath(root)):
                return None
            return Problem(
                source=place.source, problem="unsafe_member", detail="a link that leaves the source; not followed"
            )
    except OSError as error:
        problem, detail = _diagnose(error)
        return Problem(source=place.source, problem=problem, detail=detail)
    if not stat.S_ISREG(info.st_mode):
        return Problem(
            source=place.source, problem="unreadable", detail="no plain file (pipe, socket or device); not opened"
        )
    return replace(place, size=info.st_size, mtime=_moment(info.st_mtime))


def _moment(seconds: float) -> datetime | None:
    # A file's stamp as UTC; None outside 1990..2200, where it is no stamp.
    return datetime.fromtimestamp(seconds, UTC) if 631_152_000 <= seconds < 7_258_118_400 else None


def _units(pieces: list[tuple[str, _Place]]) -> Iterator[Unit | Problem]:
    # One folder's files, fragments put together.
    fragments: dict[str, dict[int, tuple[str, _Place]]] = {}
    for path, place in pieces:
        match = _FRAGMENT.match(path)
        if match:
            fragments.setdefault(match["base"], {})[int(match["number"])] = (path, place)
        else:
            yield Unit(paths=(path,), place=place)
    for base, numbered in sorted(fragments.items()):
        first = numbered[min(numbered)][1]
        for run in _runs(numbered, _shown(base)):
            if isinstance(run, Problem):
                yield run
                continue
            begin = run[0][1]
            name = _FRAGMENT.sub(r"\g<base>", begin.name)
            source = _FRAGMENT.sub(r"\g<base>", begin.source) if begin is first else begin.source
            yield Unit(
                paths=tuple(path for path, _ in run),
                place=replace(begin, source=source, name=name, size=sum(p.size for _, p in run)),
            )


def _runs(numbered: Mapping[int, Any], source: str) -> Iterator[Any]:
    # Pieces by number -> runs without a hole, and a Problem for each hole.
    run: list[Any] = []
    expected = 0
    for number in sorted(numbered):
        if number != expected:
            if run:
                yield run
            missing = f"FRAG-{expected:05d}" + (f" to {number - 1:05d}" if number - 1 > expected else "")
            yield Problem(
                source=source, problem="fragment_missing", detail=f"{missing} missing; nothing is glued over the hole"
            )
            run = []
        run.append(numbered[number])
        expected = number + 1
    yield run


# --- places: what a path says -----------------------------------------------------------------------------------------


def _place(path: str, parts: Sequence[str], root: str, one_host: bool) -> _Place:
    # `parts` are below `root`, the name of the folder that was given.
    hint, kind, collected = _bundle_hint([root, *parts])
    if hint is None:
        folder = root if one_host else parts[0] if len(parts) > 1 else None
        if folder is not None and folder.lower() not in _NO_HOST and not _BUNDLE.match(folder):
            hint, kind = folder, "folder"
    return _Place(
        source=_shown(path),
        name=_shown("/".join(parts)),
        hint=_shown(hint) if hint else None,
        hint_kind=kind,
        collected=collected,
    )


def _member_place(outer: _Place, name: str, size: int, mtime: float) -> _Place:
    # A member of the archive at `outer`; the innermost bundle name wins, a plain folder only where nothing else is known.
    parts = [part for part in name.split("/") if part not in ("", ".")]
    hint, kind, collected = _bundle_hint([PurePosixPath(outer.name).name, *parts])
    if hint is None and outer.hint is not None:
        hint, kind = outer.hint, outer.hint_kind
    elif hint is None:
        inner = next((index for index, part in enumerate(parts[:-1]) if part in _INNER), len(parts) - 1)
        folder = parts[inner - 1] if inner > 0 else None
        if folder is not None and folder.lower() not in _NO_HOST and not _BUNDLE.match(folder):
            hint, kind = folder, "folder"
    return _Place(
        source=f"{outer.source}!{_shown(name)}", name=_shown("/".join(parts)), hint=_shown(hint) if hint else None, hint_kind=kind,
        collected=collected or outer.collected, mtime=_moment(mtime), size=size,
    )  # fmt: skip


def _bundle_hint(parts: Sequence[str]) -> tuple[str | None, str | None, datetime | None]:
    # Host and time as the innermost bundle name among the parts tells them; read from the right, hosts contain `-`.
    host, collected = None, None
    for part in reversed(parts):
        match = _BUNDLE.match(re.sub(r"\.(tgz|tar\.gz|tar|zip)$", "", part))
        named = match or _VCENTER.match(part)
        if match and collected is None:
            collected = _bundle_time(match)
        if named and host is None and (named["host"] or "").lower() not in _NO_HOST:
            host = named["host"]
    return host, "bundle" if host else None, collected


def _bundle_time(match: re.Match[str]) -> datetime | None:
    try:
        return datetime.strptime(f"{match['day']} {match['hour']}:{match['minute']}", "%Y-%m-%d %H:%M").replace(
            tzinfo=UTC
        )
    except ValueError:
        return None


def _shown(text: str) -> str:
    # A path as a table can hold it: undecodable bytes and control characters escaped.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    )


# --- opening: unit -> items -------------------------------------------------------------------------------------------


def open_unit(unit: Unit, *, limits: Limits | None = None) -> Iterator[Item | Problem]:
    """Give the items of one unit: itself, or the members of the archive it is.

    Parameters
    ----------
    unit : Unit
        From ``iter_units``.
    limits : Limits, optional
        How far it may unfold.

    Yields
    ------
    Item or Problem
        An item of an archive must be read before the next is drawn. Nothing raises.
    """
    chosen = limits or Limits()
    problems: list[Problem] = []
    try:
        raw = _open_paths(unit)
    except Exception as error:  # permission, vanished, a remote store's own errors
        problem, detail = _diagnose(error)
        yield Problem(source=unit.source, problem=problem, detail=detail)
        return
    budget = _Budget(chosen)
    with Stream(budget.counted(raw), unit.source, problems) as stream:
        yield from _expand(
            stream, unit.place, budget, reopen=None if unit.paths == ("-",) else partial(_reopen, unit, chosen)
        )
    yield from problems


def _open_paths(unit: Unit) -> io.RawIOBase:
    if unit.paths == ("-",):
        return (
            cast(io.RawIOBase, io.FileIO(sys.stdin.buffer.fileno(), closefd=False))
            if _has_descriptor()
            else _Chain([lambda: sys.stdin.buffer])
        )
    openers = [
        partial(fsspec.open(path, "rb").open) if "://" in path else partial(_DiskFile, path) for path in unit.paths
    ]
    return openers[0]() if len(openers) == 1 else _Chain(openers)


def _has_descriptor() -> bool:
    # stdin replaced by a plain object (a test, a notebook) has none.
    try:
        sys.stdin.buffer.fileno()
    except (OSError, AttributeError):
        return False
    return True


def _reopen(unit: Unit, limits: Limits) -> Stream:
    # A plain or compressed file on disk or at an address, from its start: every call a new stream.
    problems: list[Problem] = []
    budget = _Budget(limits)
    try:
        stream = Stream(budget.counted(_open_paths(unit)), unit.source, problems, hashed=True)
    except Exception as error:  # it vanished since it was looked at
        problem, detail = _diagnose(error)
        problems.append(Problem(source=unit.source, problem=problem, detail=detail))
        return Stream(io.BytesIO(), unit.source, problems, hashed=True)
    for _ in range(MAX_WRAPS):
        wrap = _wrap_of(stream.peek(512))
        if wrap is None:
            break
        stream = Stream(_unwrapped(wrap, stream, budget), unit.source, problems, hashed=True)
    return stream


class _DiskFile(io.FileIO):
    # A plain file, read no further than its size at opening, that notices a change under the reading.
    def __init__(self, path: str) -> None:
        super().__init__(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        self._at_start = os.fstat(self.fileno())
        self._left = self._at_start.st_size
        if not stat.S_ISREG(self._at_start.st_mode):
            self.close()
            raise _Trouble("unreadable", "no plain file (pipe, socket or device); not read")

    def readinto(self, buffer: Any) -> int | None:
        view = memoryview(buffer).cast("B")
        sized = self._at_start.st_size > 0  # files of /proc say 0
        got = super().readinto(view[: self._left] if sized else view)
        self._left -= got or 0
        if not got:
            now = os.fstat(self.fileno())
            if (now.st_size, now.st_mtime_ns) != (self._at_start.st_size, self._at_start.st_mtime_ns):
                raise _Trouble(
                    "changed",
                    f"{self._at_start.st_size} bytes when opened, {now.st_size} when read; load again for the rest",
                )
        return got


class _Chain(io.RawIOBase):
    # Pieces one after the other, each opened when its turn comes.
    def __init__(self, openers: Sequence[Callable[[], Any]]) -> None:
        super().__init__()
        self._openers = list(reversed(openers))
        self._now: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._now is not None or self._openers:
            if self._now is None:
                self._now = self._openers.pop()()
            got = self._now.readinto(buffer)
            if got:
                return int(got)
            self._now.close()
            self._now = None
        return 0

    def close(self) -> None:
        if self._now is not None:
            self._now.close()
        super().close()


class _Budget:
    # How much one unit has unfolded against how much was read of it, over all its layers.
    def __init__(self, limits: Limits) -> None:
        self.limits, self.consumed, self.produced = limits, 0, 0

    def counted(self, raw: io.RawIOBase) -> _Counted:
        return _Counted(raw, self)

    def add(self, count: int) -> None:
        self.produced += count
        if self.produced > self.limits.size:
            raise _Trouble(
                "too_large", f"unfolds to more than {self.limits.size} bytes (MAX_SIZE); the rest is not read"
            )
        if self.produced > RATIO_FLOOR and self.produced > self.limits.ratio * max(self.consumed, 1):
            raise _Trouble(
                "too_large",
                f"{self.consumed} bytes unfolded to {self.produced}, more than {self.limits.ratio:g} to 1 (MAX_RATIO); the rest is not read",
            )


class _Counted(io.RawIOBase):
    # The outermost bytes, counted; passes seeking through, which zip needs.
    def __init__(self, raw: io.RawIOBase, budget: _Budget) -> None:
        super().__init__()
        self.raw, self._budget = raw, budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        got = self.raw.readinto(buffer) or 0
        self._budget.consumed += got
        return int(got)

    def close(self) -> None:
        self.raw.close()
        super().close()


# --- unpacking --------------------------------------------------------------------------------------------------------

_WRAPS = {b"\x1f\x8b\x08": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "gz": partial(igzip_lib.IgzipDecompressor, igzip_lib.DECOMP_GZIP), "bz2": bz2.BZ2Decompressor, "xz": lzma.LZMADecompressor,
}  # fmt: skip


def _wrap_of(head: bytes) -> str | None:
    for magic, wrap in _WRAPS.items():
        if head.startswith(magic) and (wrap != "bz2" or head[4:10] in (b"1AY&SY", b"\x17rE8P\x90")):
            return wrap
    return None


def _archive_of(head: bytes) -> str | None:
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        # Office documents are zips too, and one file to us.
        return None if b"[Content_Types].xml" in head else "zip"
    try:
        return (
            "tar" if len(head) >= 512 and tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape").name else None
        )
    except tarfile.TarError:
        return None


def _expand(
    stream: Stream,
    place: _Place,
    budget: _Budget,
    *,
    reopen: Callable[[], Stream] | None = None,
    wraps: int = 0,
    archives: int = 0,
) -> Iterator[Item | Problem]:
    # Peels compressions, walks archives, gives what is left. `stream.problems` is the caller's to report.
    head = stream.peek(512)
    wrap, archive = _wrap_of(head), _archive_of(head)
    if wrap and wraps < MAX_WRAPS:
        inner = Stream(_unwrapped(wrap, stream, budget), place.source, stream.problems)
        yield from _expand(inner, place, budget, reopen=reopen, wraps=wraps + 1, archives=archives)
    elif archive and archives < MAX_ARCHIVES:
        entries = (
            _tar_entries(stream, place, budget) if archive == "tar" else _zip_entries(stream, place, budget, wraps)
        )
        yield from _members(entries, place, budget, archives + 1)
    elif wrap or archive:
        yield Problem(
            source=place.source,
            problem="too_deep",
            detail=f"more than {MAX_ARCHIVES} archives or {MAX_WRAPS} compressions in one another; unpack it first",
        )
    else:
        # The look at the head has its own troubles; a reopened file tells them again.
        if reopen is not None:
            stream.problems.clear()
        yield _item(place, reopen or _once(stream))


def _item(place: _Place, opener: Callable[[], Stream]) -> Item:
    return Item(
        source=place.source, name=place.name, hint=place.hint, hint_kind=place.hint_kind, size=place.size, mtime=place.mtime,
        collected=place.collected, opener=opener,
    )  # fmt: skip


def _once(stream: Stream) -> Callable[[], Stream]:
    def opener() -> Stream:
        if stream.closed:
            raise InputError("an archive's member must be read before the next item is drawn")
        hashed = Stream(stream, stream._source, stream.problems, hashed=True)
        return hashed

    return opener


def _unwrapped(wrap: str, stream: Stream, budget: _Budget) -> io.RawIOBase:
    return _Zstd(stream, budget) if wrap == "zst" else _Inflated(wrap, stream, budget)


class _Inflated(io.RawIOBase):
    # gz, bz2 and xz: Python's decompressors share one interface. Several members in a row are one stream.
    def __init__(self, wrap: str, stream: Stream, budget: _Budget) -> None:
        super().__init__()
        self._wrap, self._stream, self._budget = wrap, stream, budget
        self._engine = _DECOMPRESSORS[wrap]()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._engine.eof:
                more = self._next_member()
                if not more:
                    return 0
            else:
                more = self._feed() if self._engine.needs_input else b""
            try:
                data = self._engine.decompress(more, len(buffer))
            except Exception as error:  # each engine has its own error type
                raise _Trouble("damaged_archive", f"{self._wrap}: {error}; what came before is used") from error
            if data:
                self._budget.add(len(data))
                buffer[: len(data)] = data
                return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()

    def _feed(self) -> bytes:
        # Small feeds: what an engine made of a feed is lost when the same feed holds the damage.
        more = self._stream.read(64 << 10) or b""
        if not more:
            if self._stream.problems:  # the layer below has told it already
                raise _Trouble("truncated", f"{self._wrap}: cut by the trouble below")
            raise _Trouble("truncated", f"{self._wrap} ends before its time; what came before is used")
        return more

    def _next_member(self) -> bytes:
        # Zero padding behind a member is allowed by the formats; anything else that is no new member is noise.
        rest: bytes = self._engine.unused_data
        while len(rest.lstrip(b"\0")) < 10:
            more = self._stream.read(64 << 10)
            if not more:
                break
            rest = rest.lstrip(b"\0") + more
        rest = rest.lstrip(b"\0")
        if rest and _wrap_of(rest) != self._wrap:
            raise _Trouble("damaged_archive", f"{self._wrap}: bytes behind its end that are none of it; not read")
        self._engine = _DECOMPRESSORS[self._wrap]()
        return rest


class _Zstd(io.RawIOBase):
    # pyarrow is at hand for Parquet and knows zstd; it returns nothing of a call that meets damage, so calls are small.
    def __init__(self, stream: Stream, budget: _Budget) -> None:
        super().__init__()
        import pyarrow as pa

        self._inflated = pa.CompressedInputStream(pa.PythonFile(_NoClose(stream), mode="r"), "zstd")
        self._stream, self._budget = stream, budget

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._inflated.read(min(len(buffer), 64 << 10))
        except OSError as error:
            word = "truncated" if "runcated" in str(error) else "damaged_archive"
            raise _Trouble(word, f"zst: {error}; what came before is used") from error
        self._budget.add(len(data))
        buffer[: len(data)] = data
        return len(data)


class _NoClose:
    # What pyarrow may read but not close.
    closed = False

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size) or b""

    def close(self) -> None:
        return None


# --- archives ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    # A member's place and bytes, good until the next entry is drawn (tar) or as long as the archive is open (zip).
    place: _Place
    opener: Callable[[], Any]


def _members(
    entries: Iterator[_Entry | Problem], outer: _Place, budget: _Budget, archives: int
) -> Iterator[Item | Problem]:
    seen: set[str] = set()
    for entry in _joined(entries, outer):
        if isinstance(entry, Problem):
            yield entry
            continue
        place = entry.place
        if place.source in seen:
            yield Problem(
                source=place.source, problem="unsafe_member", detail="two members of the same name; both were read"
            )
            place = replace(place, source=f"{place.source}#{len(seen)}")
        seen.add(place.source)
        problems: list[Problem] = []
        try:
            raw = entry.opener()
        except Exception as error:  # encrypted, an unknown method, a damaged local header
            problem, detail = _diagnose(error)
            yield Problem(source=place.source, problem=problem, detail=detail)
            continue
        with Stream(raw, place.source, problems) as stream:
            for item in _expand(stream, place, budget, archives=archives):
                before = len(problems)
                yield item
                if isinstance(item, Item):
                    # The reader of an item reports what stands in its stream; here only what nobody read.
                    del problems[before:]
        yield from problems


def _joined(entries: Iterator[_Entry | Problem], outer: _Place) -> Iterator[_Entry | Problem]:
    # Fragments of a tar come in any order, so they wait in memory for each other; all else passes.
    held: dict[str, dict[int, tuple[_Place, bytes]]] = {}
    size = 0
    for entry in entries:
        match = None if isinstance(entry, Problem) else _FRAGMENT.match(entry.place.source)
        if match is None or isinstance(entry, Problem):
            yield entry
            continue
        if size + entry.place.size > MAX_HELD:
            yield Problem(
                source=match["base"],
                problem="too_large",
                detail=f"more than {MAX_HELD} bytes of fragments in one archive (MAX_HELD); read in parts",
            )
            yield from _released(held)
            held, size = {}, 0
        with Stream(entry.opener(), entry.place.source) as stream:
            data = stream.read(MAX_HELD) if entry.place.size <= MAX_HELD else b""
            yield from stream.problems
        held.setdefault(match["base"], {})[int(match["number"])] = (entry.place, data or b"")
        size += len(data or b"")
    yield from _released(held)


def _released(held: dict[str, dict[int, tuple[_Place, bytes]]]) -> Iterator[_Entry | Problem]:
    for base, numbered in sorted(held.items()):
        for run in _runs(numbered, base):
            if isinstance(run, Problem):
                yield run
                continue
            place = run[0][0]
            source = base if run[0] is numbered[min(numbered)] else place.source
            place = replace(
                place, source=source, name=_FRAGMENT.sub(r"\g<base>", place.name), size=sum(p.size for p, _ in run)
            )
            yield _Entry(place, partial(_Chain, [partial(io.BytesIO, data) for _, data in run]))


def _safe_name(name: str, outer: _Place) -> tuple[str, Problem | None]:
    # A member's name inside the archive; nothing is written, so an absolute one is only told, a climbing one left alone.
    clean = name.replace("\\", "/") if "\\" in name and "/" not in name else name
    if ".." in clean.split("/"):
        return "", Problem(
            source=f"{outer.source}!{_shown(name)}",
            problem="unsafe_member",
            detail="the name climbs out of the archive; not read",
        )
    if clean.startswith("/") or re.match(r"[A-Za-z]:/", clean):
        stripped = re.sub(r"^(?:[A-Za-z]:)?/+", "", clean)
        return stripped, Problem(
            source=f"{outer.source}!{_shown(name)}",
            problem="unsafe_member",
            detail=f"absolute name; read as {_shown(stripped)}",
        )
    return clean, None


class _TarFeed:
    # What tarfile reads from: notices a header that is no header but a flood, and data that end too early.
    def __init__(self, stream: Stream) -> None:
        self._stream, self.in_header, self._seen = stream, True, 0

    def begin(self, in_header: bool) -> None:
        self.in_header, self._seen = in_header, 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size) or b""
        self._seen += len(data)
        if self.in_header and self._seen > MAX_HEADER:
            raise _Trouble(
                "too_large", f"a member's header has more than {MAX_HEADER} bytes (MAX_HEADER); the rest is not read"
            )
        return data


def _tar_entries(stream: Stream, outer: _Place, budget: _Budget) -> Iterator[_Entry | Problem]:
    odd: dict[str, list[str]] = {}
    feed = _TarFeed(stream)
    try:
        with tarfile.open(
            fileobj=cast(Any, feed), mode="r|", encoding="utf-8", errors="surrogateescape", bufsize=BLOCK
        ) as tar:
            for _ in range(budget.limits.members):
                feed.begin(in_header=True)
                member = tar.next()
                cast(Any, tar).members = []  # tarfile would keep every header
                if member is None:
                    break
                feed.begin(in_header=False)
                yield from _tar_member(tar, member, outer, odd)
            else:
                raise _Trouble(
                    "too_large", f"more than {budget.limits.members} members (MAX_MEMBERS); the rest is not read"
                )
    except Exception as error:  # tarfile complains in many ways; a cut below is already told
        if not stream.problems:
            problem, detail = (
                ("truncated", "the archive ends before its time; what came before is used")
                if "unexpected end" in str(error)
                else _diagnose(error)
            )
            yield Problem(source=outer.source, problem=problem, detail=detail)
    for kind, names in odd.items():
        yield Problem(
            source=outer.source,
            problem="unsafe_member",
            detail=f"{len(names)} {kind}, not followed; the first: {_shown(names[0])}",
        )


def _tar_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, outer: _Place, odd: dict[str, list[str]]
) -> Iterator[_Entry | Problem]:
    if member.isdir():
        return
    if member.issym() or member.islnk():
        # A link brings no bytes of its own; one that stays inside points at a member that is read in its own right.
        base = posixpath.dirname(member.name) if member.issym() else ""
        target = posixpath.normpath(posixpath.join(base, member.linkname))
        if target.startswith(("/", "..")):
            odd.setdefault("links that leave the archive", []).append(f"{member.name} -> {member.linkname}")
        return
    if not member.isreg() or member.issparse():
        odd.setdefault("devices, pipes or sparse files", []).append(member.name)
        return
    name, problem = _safe_name(member.name, outer)
    if problem:
        yield problem
    if not name:
        return
    data = tar.extractfile(member)
    if data is None:
        return
    yield _Entry(_member_place(outer, name, member.size, float(member.mtime)), lambda: _Sized(data, member.size))
    while data.read(BLOCK):  # to the end, so that the next header is all that tarfile reads next
        pass


class _Sized(io.RawIOBase):
    # A tar member's bytes; tarfile ends a cut one without a word.
    def __init__(self, data: Any, size: int) -> None:
        super().__init__()
        self._data, self._left = data, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._data.read(min(len(buffer), BLOCK))
        self._left -= len(data)
        if not data and self._left > 0:
            raise EOFError
        buffer[: len(data)] = data
        return len(data)


def _zip_entries(stream: Stream, outer: _Place, budget: _Budget, wraps: int) -> Iterator[_Entry | Problem]:
    try:
        file = _seekable(stream, wraps)
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            if len(infos) > budget.limits.members:
                raise _Trouble(
                    "too_large", f"{len(infos)} members, more than {budget.limits.members} (MAX_MEMBERS); not read"
                )
            for info in infos:
                if not info.is_dir():
                    yield from _zip_member(archive, info, outer, budget)
    except Exception as error:  # a damaged directory shows in many ways
        problem, detail = _diagnose(error)
        yield Problem(source=outer.source, problem=problem, detail=detail)


def _check_directory(file: Any) -> None:
    # zipfile reads the whole list of members at once: a list of this size is no bundle.
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - (64 << 10) - 22))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    listed = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
    if 64 << 20 < listed < 0xFFFFFFFF:
        raise _Trouble("too_large", f"a list of members of {listed} bytes; not read")
    file.seek(0)


def _seekable(stream: Stream, wraps: int) -> Any:
    # A zip lists its members at its end. A file on disk can seek; anything else waits in memory, within bounds.
    raw = stream._raw
    if not wraps and isinstance(raw, _Counted) and raw.raw.seekable():
        raw._budget.consumed += raw.raw.seek(0, io.SEEK_END)
        raw.raw.seek(0)
        return io.BufferedReader(_Plain(raw.raw), BLOCK)
    data = stream.read(MAX_HELD + 1) or b""
    parts = [data]
    while data and sum(map(len, parts)) <= MAX_HELD:
        data = stream.read(MAX_HELD + 1) or b""
        parts.append(data)
    if sum(map(len, parts)) > MAX_HELD:
        raise _Trouble(
            "too_large",
            f"a zip within an archive or a pipe of more than {MAX_HELD} bytes (MAX_HELD); save or unpack it first",
        )
    return io.BytesIO(b"".join(parts))


class _Plain(io.RawIOBase):
    # A file on disk without its bound of size, which seeking would confuse.
    def __init__(self, raw: Any) -> None:
        super().__init__()
        self._file = raw

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        if isinstance(self._file, _DiskFile):
            return io.FileIO.readinto(self._file, buffer) or 0
        return int(self._file.readinto(buffer) or 0)


def _zip_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, outer: _Place, budget: _Budget
) -> Iterator[_Entry | Problem]:
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        yield Problem(
            source=f"{outer.source}!{_shown(info.filename)}",
            problem="unsafe_member",
            detail="a link or device; not followed",
        )
        return
    name, problem = _safe_name(info.filename, outer)
    if problem:
        yield problem
    if not name:
        return
    try:
        changed = datetime(*info.date_time, tzinfo=UTC).timestamp()
    except ValueError:
        changed = -1.0
    yield _Entry(_member_place(outer, name, info.file_size, changed), lambda: _Metered(archive.open(info), budget))


class _Metered(io.RawIOBase):
    # A zip's member, whose unfolding counts.
    def __init__(self, data: Any, budget: _Budget) -> None:
        super().__init__()
        self._data, self._budget = data, budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._data.read(min(len(buffer), BLOCK))
        self._budget.add(len(data))
        buffer[: len(data)] = data
        return len(data)
