"""A file -> a file of the same form with its names replaced: text, tables, gz, bz2, xz, zst, tar, zip, one in another."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO, cast

from psodlib.anonymiser.rewrite import Rewriter
from psodlib.anonymiser.sweep import Sweep
from psodlib.anonymiser.tables import is_inventory, rewrite_csv, rewrite_parquet
from psodlib.evidence.archives import MAX_ARCHIVES, Entry, archive_of, tar_entries, zip_entries
from psodlib.evidence.places import FRAGMENT, Place
from psodlib.evidence.reading import binary_kind
from psodlib.evidence.streams import MAX_WRAPS, Budget, Stream, chained, unwrapped, wrap_of
from psodlib.records import Problem

__all__ = ["LeftOut", "Transcoder", "spool"]

BLOCK = 256 << 10
IN_MEMORY = 8 << 20  # bytes of an archive's member that wait in memory; more waits on disk
_WIDE = re.compile(rb"(?:[\x20-\x7e]\0){8}|(?:\0[\x20-\x7e]){8}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/=]*")
_EMPTY_PICTURE = b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


class LeftOut(Exception):
    """Why a file is not in the output."""


def spool() -> Any:
    """A file that waits in memory while it is small."""
    return tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)


@dataclass
class Transcoder:
    """Writes files anew."""

    rewriter: Rewriter  # what replaces names
    # what is not in the output, and why; filled as it goes
    left_out: list[tuple[str, str]] = field(default_factory=list)
    sweep: Sweep = field(init=False)  # what still looks like a name in what was written

    def __post_init__(self) -> None:
        self.sweep = Sweep(self.rewriter.names, self.rewriter.pseudonyms)

    def write(
        self, stream: Stream, place: Place, out: BinaryIO, budget: Budget, wraps: int = 0, archives: int = 0
    ) -> None:
        """One file, whatever it is."""
        head = stream.peek(64 << 10)
        wrap, archive = wrap_of(head), archive_of(head[:512])
        if wrap and wraps < MAX_WRAPS:
            self._wrapped(wrap, stream, place, out, budget, wraps, archives)
        elif archive and archives < MAX_ARCHIVES:
            write = self._tar if archive == "tar" else partial(self._zip, wraps=wraps)
            write(stream, place, out, budget, archives + 1)
        elif wrap or archive:
            raise LeftOut("archives or compressions too deep in one another; unpack it first")
        elif head.startswith(b"PAR1"):
            self._parquet(stream, place, out)
        else:
            self._text(stream, place, out, head)

    def _text(self, stream: Stream, place: Place, out: BinaryIO, head: bytes) -> None:
        wide = next(
            (name for mark, name in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")) if head.startswith(mark)),
            None,
        )
        if wide is None and (kind := binary_kind(head)):
            raise LeftOut(f"{kind}: no text, so it cannot be judged")
        if wide:
            blocks = _recoded(_blocks(stream), wide)
            out.write(codecs.BOM_UTF16_LE if wide.endswith("le") else codecs.BOM_UTF16_BE)
            encoder = codecs.getincrementalencoder(wide)("surrogatepass")
            for block in self.sweep.through(self.rewriter.stream(self._judged(blocks, place)), place.source):
                out.write(encoder.encode(block.decode("utf-8", "replace")))
            return
        blocks = self._judged(_blocks(stream), place)
        if is_inventory(place.name, head):
            written = rewrite_csv(iter(blocks), self.rewriter)
        else:
            written = self.rewriter.stream(blocks)
        for block in self.sweep.through(written, place.source):
            out.write(block)

    def _judged(self, blocks: Iterator[bytes], place: Place) -> Iterator[bytes]:
        # Pictures inside a page are taken out; a block that is no text ends the judging of the whole file.
        inside, held, pictures = False, b"", 0
        for block in blocks:
            data, held = held + block, b""
            if (binary_kind(data[:BLOCK]) and not inside) or _WIDE.search(data):
                raise LeftOut("bytes in it that are no text, so it cannot be judged")
            parts: list[bytes] = []
            while data:
                if inside:
                    end = cast(re.Match[bytes], _BASE64.match(data)).end()
                    data, inside = data[end:], end == len(data)
                    continue
                before, mark, data = data.partition(b";base64,")
                if mark:
                    parts += [before, mark, _EMPTY_PICTURE]
                    pictures, inside = pictures + 1, True
                else:
                    held = before[-7:]
                    parts.append(before[: len(before) - len(held)])
            yield b"".join(parts)
        yield held
        if pictures:
            self.left_out.append(
                (place.source, f"{pictures} pictures inside the page: no text, so they cannot be judged")
            )

    def _parquet(self, stream: Stream, place: Place, out: BinaryIO) -> None:
        with spool() as file:
            shutil.copyfileobj(cast(Any, stream), file, BLOCK)
            file.seek(0)
            try:
                rewrite_parquet(file, out, self.rewriter, partial(self.sweep.look, source=place.source, line=1))
            except Exception as error:  # damaged Parquet raises whatever the damage hits
                raise LeftOut(f"a Parquet file that cannot be read ({type(error).__name__})") from error

    # ---- compressions, archives --------------------------------------------------------------------------------------

    def _wrapped(
        self, wrap: str, stream: Stream, place: Place, out: BinaryIO, budget: Budget, wraps: int, archives: int
    ) -> None:
        told = len(stream.problems)
        with spool() as packed:
            inner = Stream(unwrapped(wrap, stream, budget), place.source, stream.problems)
            with _packer(wrap, packed) as packer:
                self.write(inner, place, packer, budget, wraps + 1, archives)
            size = packed.tell()
            packed.seek(0)
            if any(problem.problem == "truncated" for problem in stream.problems[told:]):
                # what ended before its time does so again, or a gap in the evidence would be hidden
                size = max(size - 9, 1)
            _copy(packed, out, size)

    def _tar(self, stream: Stream, place: Place, out: BinaryIO, budget: Budget, archives: int) -> None:
        with tarfile.open(fileobj=cast(Any, out), mode="w|", format=tarfile.PAX_FORMAT) as made:

            def add(name: str, file: BinaryIO, size: int, changed: datetime | None) -> None:
                info = tarfile.TarInfo(name)
                info.size, info.mtime = size, int(changed.timestamp()) if changed else 0
                made.addfile(info, cast(Any, file))

            self._members(tar_entries(stream, place, budget), add, budget, archives)

    def _zip(self, stream: Stream, place: Place, out: BinaryIO, budget: Budget, archives: int, wraps: int) -> None:
        with spool() as waiting, zipfile.ZipFile(cast(Any, waiting), "w", zipfile.ZIP_DEFLATED) as made:

            def add(name: str, file: BinaryIO, size: int, changed: datetime | None) -> None:
                stamp = changed or datetime(1980, 1, 1, tzinfo=UTC)
                info = zipfile.ZipInfo(name, max(stamp.timetuple()[:6], (1980, 1, 1, 0, 0, 0)))
                info.compress_type = zipfile.ZIP_DEFLATED
                with made.open(info, "w", force_zip64=size > 1 << 30) as member:
                    shutil.copyfileobj(file, member, BLOCK)

            self._members(zip_entries(stream, place, budget, wraps), add, budget, archives)
            made.close()
            waiting.seek(0)
            shutil.copyfileobj(waiting, out, BLOCK)

    def _members(
        self, entries: Iterator[Entry | Problem], add: Callable[..., None], budget: Budget, archives: int
    ) -> None:
        with ExitStack() as waiting:
            self._each(entries, add, budget, archives, waiting)

    def _each(
        self,
        entries: Iterator[Entry | Problem],
        add: Callable[..., None],
        budget: Budget,
        archives: int,
        waiting: ExitStack,
    ) -> None:
        names: set[str] = set()
        pieces: dict[str, dict[int, tuple[Place, Any]]] = {}
        for entry in entries:
            if isinstance(entry, Problem):
                self.left_out.append((entry.source, entry.detail or entry.problem))
                continue
            match = FRAGMENT.match(entry.place.name)
            if match:  # pieces come in any order: they wait for each other
                piece = waiting.enter_context(spool())
                with Stream(entry.opener(), entry.place.source) as raw:
                    shutil.copyfileobj(cast(Any, raw), piece, BLOCK)
                pieces.setdefault(match["base"], {})[int(match["number"])] = (entry.place, piece)
                continue
            with spool() as file:
                try:
                    with Stream(entry.opener(), entry.place.source) as inner:
                        self.write(inner, entry.place, file, budget, 0, archives)
                except LeftOut as why:
                    self.left_out.append((entry.place.source, str(why)))
                    continue
                except Exception as error:  # encrypted, an unknown method
                    self.left_out.append((entry.place.source, f"cannot be read ({type(error).__name__})"))
                    continue
                size = file.tell()
                file.seek(0)
                add(_once(self.name(entry.place.name, entry.place.source), names), file, size, entry.place.mtime)
        for numbered in pieces.values():
            self._fragments(numbered, names, add, budget, archives)

    def name(self, name: str, source: str) -> str:
        """A path, rewritten; what still looks like a name in it is told."""
        new = self.rewriter.path(name)
        self.sweep.look(new.replace("_", " ").encode("utf-8", "surrogateescape"), source, 0)
        return new

    def _fragments(
        self,
        numbered: dict[int, tuple[Place, Any]],
        names: set[str],
        add: Callable[..., None],
        budget: Budget,
        archives: int,
    ) -> None:
        for run in runs(sorted(numbered)):
            places = [numbered[number][0] for number in run]
            sizes = [numbered[number][1].tell() for number in run]
            openers = [partial(_rewound, numbered[number][1]) for number in run]
            with spool() as file:
                try:
                    with Stream(chained(openers), places[0].source) as inner:
                        self.write(inner, places[0], file, budget, 0, archives)
                except LeftOut as why:
                    self.left_out.append((places[0].source, str(why)))
                    continue
                total = file.tell()
                file.seek(0)
                for place, share in zip(places, shares(sizes, total), strict=True):
                    with spool() as piece:
                        _copy(file, piece, share)
                        piece.seek(0)
                        add(_once(self.name(place.name, place.source), names), piece, share, place.mtime)


def runs(numbers: list[int]) -> list[list[int]]:
    """Numbers in a row, cut where one is missing: text is never glued over a hole."""
    out: list[list[int]] = []
    for number in numbers:
        if out and out[-1][-1] == number - 1:
            out[-1].append(number)
        else:
            out.append([number])
    return out


def shares(sizes: list[int], total: int) -> list[int]:
    """How a text of another length is cut into as many pieces: the last takes what is left."""
    out: list[int] = []
    for size in sizes[:-1]:
        out.append(min(size, total - sum(out)))
    return [*out, total - sum(out)]


def _rewound(file: Any) -> Any:
    file.seek(0)
    return _Readable(file)


class _Readable:
    # A spooled file as `Chain` reads it; it is closed by its owner.
    def __init__(self, file: Any) -> None:
        self._file = file

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        return None


def _once(name: str, names: set[str]) -> str:
    # Two names that became one keep apart.
    number, free = 1, name
    while free.lower() in names:
        number += 1
        free = f"{name}-{number}"
    names.add(free.lower())
    return free


def _copy(file: BinaryIO, out: BinaryIO, size: int) -> None:
    while size > 0 and (data := file.read(min(size, BLOCK))):
        out.write(data)
        size -= len(data)


def _blocks(stream: Stream) -> Iterator[bytes]:
    while data := stream.read(BLOCK):
        yield data


def _recoded(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    first = True
    for block in blocks:
        text = decoder.decode(block)
        yield (text.removeprefix("\ufeff") if first else text).encode("utf-8", "replace")
        first = False


def _packer(wrap: str, out: BinaryIO) -> Any:
    if wrap == "gz":
        return gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0, compresslevel=6)
    if wrap == "bz2":
        return bz2.BZ2File(out, "wb")
    if wrap == "xz":
        return lzma.LZMAFile(out, "wb")
    import pyarrow as pa

    return pa.CompressedOutputStream(pa.PythonFile(_Open(out), mode="w"), "zstd")


class _Open:
    # What pyarrow may write to but not close.
    closed = False

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def write(self, data: bytes) -> int:
        return self._out.write(data)

    def flush(self) -> None:
        return None

    def close(self) -> None:
        return None
