"""What files said, on disk: segments of compressed readings that nobody rewrites, each with its own table of contents.

A segment is written by whoever read the files: this process, or a worker of a cluster, which then hands back only the
entries. A segment that no manifest names (its load was killed) is adopted by the next load instead of read again.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from psodlib import records
from psodlib.errors import InputError
from psodlib.records import FileReading, Problem
from psodlib.store.folder import write_whole

__all__ = ["Entry", "Piece", "as_json", "from_json", "pieces_of", "read_contents", "read_pieces", "write_segment"]

_MAGIC = b"PSODSEG1"
_FULL = 64 << 20  # bytes of one segment, about


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one file says of one host: where its readings lie, and all that the rest of the fleet needs to know of them."""

    host: str | None  # the file's own word, and
    hint: str | None  # what its place says
    offset: int
    length: int  # 0: nothing in it but names
    crashes: tuple[str, ...] = ()  # ids, by which hosts are bound together
    unnamed: tuple[str, ...] = ()  # sources that tell something and name no host
    contents: tuple[tuple[int, str], ...] = ()  # (size, sha256) of each content, unpacked
    simulated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file in the ledger."""

    path: str
    root: str  # the source under which it was found
    stamp: str  # size, time and place: while it stays, the file is not looked into
    size: int
    mtime: str
    sha256: str
    parser: str
    before: str = ""  # sha256 of as many of its first bytes as it had when last read: an appended log keeps them
    segment: str = ""
    gone: bool = False
    hosts: tuple[str | None, ...] = ()  # of each piece, as the fleet's names told when it was assembled
    pieces: tuple[Piece, ...] = ()
    problems: tuple[dict[str, Any], ...] = ()

    @property
    def simulated(self) -> bool:
        """Made-up evidence is marked."""
        return any(piece.simulated for piece in self.pieces)


def write_segment(
    folder: Path, found: Iterable[tuple[Entry, Sequence[FileReading], Sequence[Problem]]]
) -> Iterator[Entry]:
    """Write readings as they come, in one or more segments."""
    blobs: list[bytes] = []
    entries: list[Entry] = []
    at = len(_MAGIC)
    for entry, readings, problems in found:
        pieces = []
        for piece, blob in pieces_of(readings, at):
            pieces.append(piece)
            blobs.append(blob)
            at += len(blob)
        told = tuple(asdict(problem) for problem in problems)
        entries.append(replace(entry, pieces=tuple(pieces), problems=told))
        if at > _FULL:
            yield from _written(folder, blobs, entries)
            blobs, entries, at = [], [], len(_MAGIC)
    yield from _written(folder, blobs, entries)


def pieces_of(readings: Sequence[FileReading], at: int = 0) -> Iterator[tuple[Piece, bytes]]:
    """One file's readings by the names that they bear, each with its bytes; the first begins at ``at``."""
    groups: dict[tuple[str | None, str | None], list[FileReading]] = {}
    for reading in readings:
        groups.setdefault((reading.host, reading.hint), []).append(reading)
    for (host, hint), group in groups.items():
        telling = [reading for reading in group if not reading.irrelevant]
        blob = zlib.compress(pickle.dumps(telling, 5), 1) if telling else b""
        yield Piece(
            host=host, hint=hint, offset=at, length=len(blob),
            crashes=tuple(sorted({c.crash_id for r in telling for c in r.crashes if c.crash_id})),
            unnamed=() if host or hint else tuple(r.source for r in telling if r.crashes or r.alive or r.drivers),
            contents=tuple((r.size, r.sha256) for r in telling if r.sha256 and r.size),
            simulated=any(r.source.replace("\\", "/").rpartition("/")[2] == "SIMULATED" for r in group),
        ), blob  # fmt: skip
        at += len(blob)


def _written(folder: Path, blobs: list[bytes], entries: list[Entry]) -> Iterator[Entry]:
    if not entries:
        return
    contents = zlib.compress(json.dumps([as_json(entry) for entry in entries]).encode(), 1)
    name = f"readings/{hashlib.sha256(contents).hexdigest()[:24]}.seg"
    write_whole(folder / name, [_MAGIC, *blobs, contents, len(contents).to_bytes(8, "big"), _MAGIC])
    for entry in entries:
        yield replace(entry, segment=name)


def read_contents(path: Path, name: str) -> list[Entry]:
    """The entries of a segment; none where it is not whole."""
    try:
        with open(path, "rb") as file:
            end = file.seek(-16, 2)
            tail = file.read(16)
            if tail[8:] != _MAGIC:
                return []
            length = int.from_bytes(tail[:8], "big")
            file.seek(end - length)
            return [from_json({**row, "segment": name}) for row in json.loads(zlib.decompress(file.read(length)))]
    except (OSError, ValueError, TypeError, KeyError, zlib.error):
        return []


def read_pieces(folder: Path, wanted: Sequence[tuple[str, Piece]]) -> list[list[FileReading]]:
    """The readings of each piece (with the segment it lies in), as they were written."""
    found: list[list[FileReading]] = [[] for _ in wanted]
    by_segment: dict[str, list[int]] = {}
    for order, (segment, piece) in enumerate(wanted):
        if piece.length:
            by_segment.setdefault(segment, []).append(order)
    for segment, orders in by_segment.items():
        try:
            with open(folder / segment, "rb") as file:
                for order in sorted(orders, key=lambda order: wanted[order][1].offset):
                    file.seek(wanted[order][1].offset)
                    blob = zlib.decompress(file.read(wanted[order][1].length))
                    found[order] = _Records(io.BytesIO(blob)).load()
        except Exception as error:  # whatever damage makes of a pickle
            raise InputError(
                f"{folder / segment}: not readable ({type(error).__name__}: {error}); load into a new store"
            ) from error
    return found


# Whole names only: a dotted one would reach through a class to what is behind it.
_ALLOWED = {("psodlib.records", name) for name in records.__all__} | {
    ("datetime", name) for name in ("datetime", "timedelta", "timezone")
}


class _Records(pickle.Unpickler):
    # A store may come from somebody else: nothing but plain records comes out of it.
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no record")


def as_json(entry: Entry) -> dict[str, Any]:
    """An entry as plain values."""
    # Not `asdict`, which copies every value: a ledger has a row for each file of the fleet.
    return {
        **{name: getattr(entry, name) for name in Entry.__slots__},
        "pieces": [{name: getattr(piece, name) for name in Piece.__slots__} for piece in entry.pieces],
    }


def from_json(row: dict[str, Any]) -> Entry:
    """The entry again."""
    pieces = tuple(
        Piece(**{
            **piece, "crashes": tuple(piece["crashes"]), "unnamed": tuple(piece["unnamed"]),
            "contents": tuple((size, digest) for size, digest in piece["contents"]),
        })
        for piece in row["pieces"]
    )  # fmt: skip
    return Entry(**{**row, "pieces": pieces, "problems": tuple(row["problems"]), "hosts": tuple(row["hosts"])})
