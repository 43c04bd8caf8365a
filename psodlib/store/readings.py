"""What files said, on disk: segments of readings that nobody rewrites, each with its own table of contents.

A segment is written by whoever read the files: this process, or a worker, which then hands back only the entries. A segment
that no manifest names (its load was killed) is adopted by the next load instead of read again. Readings are JSON, without
the path of their file: wherever the file lies later, they are what it says.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from isal import isal_zlib

from psodlib.records import FileReading, Precursor, Problem
from psodlib.store.folder import damaged, read_checked, write_whole

_MAGIC = b"PSODSEG3"
_FULL = 64 << 20  # bytes of one segment, about
_MOST = 1 << 30  # bytes that anything of a store may unfold to
_LITTLE = 1 << 14
_SHORT = 1 << 10  # bytes of text that cost more to unpack than to store: what most logs say
# A file with one of these troubles may be whole the next time; with one of those it says less than it did.
PASSING = frozenset({"unreadable", "vanished", "changed"})
POOR = PASSING | {"truncated", "damaged_archive"}
_DAMAGE: Any = (OSError, ValueError, MemoryError, isal_zlib.error, msgspec.MsgspecError)
_SOURCE, _MARK = b'"source":"', b'"source":"\\u0000'

Count = Annotated[int, msgspec.Meta(ge=0)]


class Blob(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Where text lies in a segment, compressed unless it is short."""

    offset: Count
    length: Count  # 0: nothing in it
    unpacked: Count = 0  # 0: stored as it is
    check: int = 0  # crc32 of the bytes


class Piece(Blob, frozen=True, kw_only=True, array_like=True, gc=False):
    """What one file says of one host: where its readings lie, and all that the rest of the fleet needs to know of them."""

    host: str | None  # the file's own word, and
    hint: str | None  # what its place says
    heard: Blob | None = None  # its warnings: most of the bytes, and only hosts with a crash are asked for them
    crashes: tuple[str, ...] = ()  # ids, by which hosts are bound together
    unnamed: tuple[str, ...] = ()  # members ("" for the file itself) that tell something and name no host
    contents: tuple[tuple[int, str], ...] = ()  # (size, sha256) of each content, unpacked
    simulated: bool = False


class Entry(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One file in the ledger."""

    path: str
    source: str  # as tables show it
    root: str  # the source under which it was found
    name: str  # below the root
    hint: str | None  # whose its place says it is, and how
    hint_kind: str | None
    collected: datetime | None
    stamp: str  # size, times and inode: while they stay, the file is not looked into; "" where they cannot be believed
    size: int
    parser: str
    sha256: str = ""  # as stored; "" where it could not be read
    head: str = ""  # hash of its first bytes, unpacked
    ends: str = ""  # of one that is packed: hash of its first and last bytes as stored, which are CRC and length of all
    packed: bool = False
    unpacked: int = 0
    began: str = ""  # sha256 of a known file with whose very bytes it begins, unpacked: a log that grew or was packed
    known: str = ""  # sha256 of a known file that says the same, so that it was not read
    archive: bool = False
    timeless: bool = True  # nothing in it was dated by ``collected``
    lasting: bool = True  # nothing in it is true only until the next output is printed over it
    troubles: tuple[Problem, ...] = ()  # for which it says less than it might, wherever in it they were met
    segment: str = ""
    gone: bool = False
    missed: bool = False  # gone, and no other bytes took its name: neither rotated nor printed over
    hosts: tuple[str | None, ...] = ()  # of each piece, as the fleet's names told when it was assembled
    pieces: tuple[Piece, ...] = ()
    problems: tuple[Problem, ...] = ()
    waiting: tuple[Problem, ...] = ()  # troubles of the last look at it, while what was read before stands in

    @property
    def simulated(self) -> bool:
        """Made-up evidence is marked."""
        return any(piece.simulated for piece in self.pieces)

    @property
    def tells(self) -> bool:
        """True where it says anything but names."""
        return any(piece.length for piece in self.pieces)


Read = tuple[Entry, Sequence[FileReading], Sequence[Problem]]
_ENCODER = msgspec.json.Encoder()
_READINGS = msgspec.json.Decoder(list[FileReading])
_HEARD = msgspec.json.Decoder(list[tuple[Precursor, ...]])
_ENTRIES = msgspec.json.Decoder(list[Entry])


def pack(entry: Entry, readings: Sequence[FileReading], at: int = 0) -> Iterator[tuple[Piece, bytes]]:
    """One file's readings by the names that they bear, each with its bytes; the first begins at ``at``."""
    groups: dict[tuple[str | None, str | None], list[FileReading]] = defaultdict(list)
    for reading in readings:
        groups[reading.host, reading.hint].append(reading)
    for (host, hint), group in groups.items():
        telling = [reading for reading in group if not reading.irrelevant]
        bare = [replace(reading, precursors=()) if reading.precursors else reading for reading in telling]
        told, text = _packed(entry, bare, at)
        warnings = [reading.precursors for reading in telling] if any(r.precursors for r in telling) else []
        heard, more = _packed(entry, warnings, at + told.length)
        yield Piece(
            **msgspec.structs.asdict(told), host=host, hint=hint, heard=heard if warnings else None,
            crashes=tuple(sorted({c.crash_id for r in telling for c in r.crashes if c.crash_id})),
            unnamed=() if host else tuple(r.source.removeprefix(entry.source) for r in telling if r.needs_host),
            contents=tuple(
                (r.size, sha) for r in telling if r.size and (sha := entry.sha256 if r.source == entry.source else r.sha256)
            ),
            simulated=any(r.source.replace("\\", "/").rpartition("/")[2] == "SIMULATED" for r in group),
        ), text + more  # fmt: skip
        at += len(text + more)


def _packed(entry: Entry, told: Sequence[Any], at: int) -> tuple[Blob, bytes]:
    if not told:
        return Blob(offset=at, length=0), b""
    text = _ENCODER.encode(told).replace(_named(entry), _MARK)
    is_short = len(text) < _SHORT
    blob = text if is_short else isal_zlib.compress(text, 1)
    return Blob(offset=at, length=len(blob), unpacked=0 if is_short else len(text), check=zlib.crc32(blob)), blob


def _named(entry: Entry) -> bytes:
    # How readings begin to name their file, which may lie elsewhere tomorrow.
    return _SOURCE + _ENCODER.encode(entry.source)[1:-1]


def write_segment(folder: Path, found: Iterable[Read]) -> Iterator[Entry]:
    """Write readings as they come, in one or more segments."""
    blobs: list[bytes] = []
    entries: list[Entry] = []
    at = len(_MAGIC)
    try:
        for entry, readings, problems in found:
            packed = list(pack(entry, readings, at))
            blobs += (blob for _, blob in packed)
            at += sum(len(blob) for _, blob in packed)
            met = (*problems, *(problem for reading in readings for problem in reading.problems))
            told = msgspec.structs.replace(
                entry, pieces=tuple(piece for piece, _ in packed), problems=tuple(problems),
                unpacked=max((r.size for r in readings), default=0), archive=any(r.source != entry.source for r in readings),
                timeless=_timeless(readings), lasting=all(timed(reading) == reading for reading in readings),
                troubles=tuple(problem for problem in met if problem.problem in POOR),
            )  # fmt: skip
            entries.append(told)
            if at > _FULL:
                yield from _written(folder, blobs, entries)
                blobs, entries, at = [], [], len(_MAGIC)
    except (KeyboardInterrupt, SystemExit):  # what was read till then is adopted by the next load
        list(_written(folder, blobs, entries))
        raise
    yield from _written(folder, blobs, entries)


def timed(reading: FileReading) -> FileReading:
    """What stays true of a reading when other bytes have taken its file's place: all that bears a time."""
    if reading.collected is not None:
        return reading
    return replace(
        reading, drivers=tuple(d for d in reading.drivers if d.observed_at), facts=tuple(f for f in reading.facts if f.time),
        modules=tuple(m for m in reading.modules if m.time or m.crash_id),
    )  # fmt: skip


def _timeless(readings: Sequence[FileReading]) -> bool:
    # An output bears no time of its own: what a reader dated by the collection, or could not date without one, is another
    # thing after the next.
    return not any(
        (r.collected is None and not (r.alive or r.crashes or r.marks))
        or any(fact.time in (None, r.collected) for fact in r.facts)
        or any(module.time in (None, r.collected) for module in r.modules)
        or any(alive.end == r.collected for alive in r.alive)
        for r in readings
    )


def _written(folder: Path, blobs: list[bytes], entries: list[Entry]) -> Iterator[Entry]:
    if not entries:
        return
    text = _ENCODER.encode(entries)
    contents = isal_zlib.compress(text, 1)
    name = f"readings/{hashlib.sha256(contents).hexdigest()[:24]}.seg"
    sizes = len(contents).to_bytes(8, "big") + len(text).to_bytes(8, "big")
    write_whole(folder / name, [_MAGIC, *blobs, contents, sizes, _MAGIC])
    for entry in entries:
        yield msgspec.structs.replace(entry, segment=name)


def read_contents(path: Path, name: str) -> list[Entry]:
    """The entries of a segment; none where it is not whole."""
    try:
        with open(path, "rb") as file:
            end = file.seek(-24, 2)
            tail = file.read(24)
            length = int.from_bytes(tail[:8], "big")
            file.seek(end - length)
            contents = file.read(length)
        if tail[16:] != _MAGIC or not name.endswith(f"/{hashlib.sha256(contents).hexdigest()[:24]}.seg"):
            return []
        entries = _ENTRIES.decode(_inflated(contents, int.from_bytes(tail[8:16], "big")))
    except _DAMAGE:
        return []
    return [msgspec.structs.replace(entry, segment=name) for entry in entries]


def _inflated(data: bytes, size: int) -> bytes:
    # As many bytes as were told, and no more than a store may hold.
    little = len(data) <= _LITTLE  # can unfold to no more than a thousand times that
    text: bytes = (
        isal_zlib.decompress(data) if little else isal_zlib.decompressobj().decompress(data, min(size, _MOST) + 1)
    )
    if len(text) != size:
        raise ValueError(f"unfolds to other than {size} bytes")
    return text


def read_pieces(folder: Path, wanted: Sequence[tuple[Entry, Piece]], *, heard: bool = True) -> list[list[FileReading]]:
    """The readings of each piece, with the place that its file has now, and with its warnings or without."""
    found: list[list[FileReading]] = [[] for _ in wanted]
    by_segment: dict[str, list[int]] = defaultdict(list)
    for order, (entry, piece) in enumerate(wanted):
        if piece.length:
            by_segment[entry.segment].append(order)
    for segment, orders in by_segment.items():
        try:
            with open(folder / segment, "rb") as file:
                for order in sorted(orders, key=lambda order: wanted[order][1].offset):
                    entry, piece = wanted[order]
                    readings = _unpacked(file, entry, piece, _READINGS)
                    here = entry.hint, entry.collected
                    if not entry.archive and any((r.hint, r.collected) != here for r in readings):
                        readings = [replace(r, hint=entry.hint, collected=entry.collected) for r in readings]
                    if heard and piece.heard:
                        warnings = _unpacked(file, entry, piece.heard, _HEARD)
                        readings = [replace(r, precursors=w) for r, w in zip(readings, warnings, strict=True)]
                    found[order] = readings
        except _DAMAGE as error:
            raise damaged(folder / segment, f"{type(error).__name__}: {error}") from error
    return found


def _unpacked(file: Any, entry: Entry, blob: Blob, decoder: Any) -> Any:
    file.seek(blob.offset)
    data = file.read(blob.length)
    if zlib.crc32(data) != blob.check:
        raise ValueError("its bytes are not those that were written")
    text = _inflated(data, blob.unpacked) if blob.unpacked else data
    return decoder.decode(text.replace(_MARK, _named(entry)))


def write_entries(folder: Path, entries: Sequence[Entry]) -> str:
    """Write the ledger; its path below the store."""
    text = _ENCODER.encode(sorted(entries, key=lambda entry: (entry.path, entry.sha256)))
    data = len(text).to_bytes(8, "big") + isal_zlib.compress(text, 1)
    path = f"tables/ledger/{hashlib.sha256(data).hexdigest()[:24]}.entries"
    write_whole(folder / path, data)
    return path


def read_entries(folder: Path, path: str | None) -> list[Entry]:
    """The ledger's entries."""
    if path is None:
        return []
    data = read_checked(folder / path, Path(path).stem)
    try:
        return _ENTRIES.decode(_inflated(data[8:], int.from_bytes(data[:8], "big")))
    except _DAMAGE as error:
        raise damaged(folder / path, error) from error
