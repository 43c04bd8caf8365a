"""A file -> a file of the same form with its names replaced: text, tables, gz, bz2, xz, zst, tar, zip, one in another."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate, count, pairwise
from typing import Any, BinaryIO, cast

import pyarrow as pa

from psodlib.anonymiser.rewrite import Rewriter
from psodlib.anonymiser.sweep import Sweep
from psodlib.anonymiser.tables import is_inventory, rewrite_csv, rewrite_parquet
from psodlib.evidence.archives import Item, expand
from psodlib.evidence.places import Place
from psodlib.evidence.reading import binary_kind
from psodlib.evidence.streams import Budget, Stream
from psodlib.records import Problem

BLOCK = 256 << 10
IN_MEMORY = 8 << 20  # bytes of an archive's member that wait in memory; more waits on disk
_WIDE = re.compile(rb"(?:[\x20-\x7e]\0){8}|(?:\0[\x20-\x7e]){8}")
_WIDE_MARKS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_BASE64 = re.compile(rb"[A-Za-z0-9+/=]*")
_EMPTY_PICTURE = b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


class _LeftOut(Exception):
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

    def write(self, stream: Stream, place: Place, out: BinaryIO, budget: Budget) -> bool:
        """One file, whatever it is: unpacked by the one walk there is, each thing in it packed again as it was. False where nothing
        of it could be written."""
        under_way = [_Packer("", place, out)]
        try:
            for step in expand(stream, place, budget):
                if isinstance(step, Problem):
                    if step.problem not in ("truncated", "fragment_missing"):  # the original is no better
                        self.left_out.append((step.source, step.detail or step.problem))
                elif isinstance(step, Item):
                    self._item(step, under_way[-1])
                elif not step.ends:
                    under_way.append(_Packer(step.kind, step.place, spool()))
                else:
                    done = under_way.pop()
                    done.cut |= any(problem.problem == "truncated" for problem in stream.problems)
                    with done.file:
                        if size := done.close():
                            under_way[-1].cut |= done.cut and under_way[-1].is_wrap
                            self._add(under_way[-1], done.place, done.file, size, done.pieces)
        finally:
            for left in under_way[1:]:
                left.file.close()
        return under_way[0].filled

    def _item(self, item: Item, packer: _Packer) -> None:
        with spool() as file:
            try:
                stream = item.open()
                head = stream.peek(64 << 10)
                if head.startswith(b"PAR1"):
                    self._parquet(stream, item, file)
                else:
                    self._text(stream, item, file, head)
                packer.cut |= any(problem.problem == "truncated" for problem in stream.problems)
            except _LeftOut as why:
                self.left_out.append((item.source, str(why)))
            else:
                self._add(packer, item, file, file.tell(), item.pieces)

    def _add(self, packer: _Packer, place: Place | Item, file: BinaryIO, size: int, pieces: tuple[Place, ...]) -> None:
        file.seek(0)
        if packer.is_wrap or not packer.kind:
            packer.add("", file, size, None)
            packer.pieces = pieces
            return
        for piece, share in zip(pieces or (place,), shares([p.size for p in pieces] or [size], size), strict=True):
            with spool() as part:
                copy(file, part, share)
                part.seek(0)
                packer.add(self.name(piece.name, piece.source), part, share, piece.mtime)

    def name(self, name: str, source: str) -> str:
        """A path, rewritten; what still looks like a name in it is told."""
        new = self.rewriter.path(name)
        self.sweep.look(new.replace("_", " ").encode("utf-8", "surrogateescape"), source, 0)
        return new

    def _text(self, stream: Stream, place: Item, out: BinaryIO, head: bytes) -> None:
        wide = _WIDE_MARKS.get(head[:2])
        if wide is None and (kind := binary_kind(head)):
            raise _LeftOut(f"{kind}: no text, so it cannot be judged")
        blocks: Iterator[bytes] = iter(partial(stream.read, BLOCK), b"")
        if wide:
            out.write(stream.read(2))
            blocks = (text.encode("utf-8", "replace") for text in codecs.iterdecode(blocks, wide, "replace"))
        judged = self._judged(blocks, place)
        is_table = wide is None and is_inventory(place.name, head)
        written = rewrite_csv(judged, self.rewriter) if is_table else self.rewriter.stream(judged)
        for block in self.sweep.through(written, place.source):
            out.write(block.decode("utf-8", "replace").encode(wide, "surrogatepass") if wide else block)

    def _judged(self, blocks: Iterator[bytes], place: Item) -> Iterator[bytes]:
        # Pictures inside a page are taken out; a block that is no text ends the judging of the whole file.
        inside, held, pictures = False, b"", 0
        for block in blocks:
            data, held = held + block, b""
            if (binary_kind(data[:BLOCK]) and not inside) or _WIDE.search(data):
                raise _LeftOut("bytes in it that are no text, so it cannot be judged")
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

    def _parquet(self, stream: Stream, place: Item, out: BinaryIO) -> None:
        with spool() as file:
            shutil.copyfileobj(cast(Any, stream), file, BLOCK)
            file.seek(0)
            try:
                rewrite_parquet(file, out, self.rewriter, partial(self.sweep.look, source=place.source, line=1))
            except Exception as error:  # damaged Parquet raises whatever the damage hits
                raise _LeftOut(f"a Parquet file that cannot be read ({type(error).__name__})") from error


class _Packer:
    # A compression or an archive that is being written; of the kind "" the file itself.
    def __init__(self, kind: str, place: Place, file: Any) -> None:
        self.kind, self.place, self.file = kind, place, file
        self.is_wrap = kind in ("gz", "bz2", "xz", "zst")
        self.filled = self.cut = False  # `cut`: it ended before its time
        self.pieces: tuple[Place, ...] = ()  # what the one below is to cut it into
        self._names: set[str] = set()
        self._made = _MADE[kind](file)

    def add(self, name: str, file: BinaryIO, size: int, changed: datetime | None) -> None:
        self.filled = True
        name = free_name(name, self._names) if name else ""
        if self.kind == "tar":
            info = tarfile.TarInfo(name)
            info.size, info.mtime = size, int(changed.timestamp()) if changed else 0
            self._made.addfile(info, file)
        elif self.kind == "zip":
            stamp = changed or datetime(1980, 1, 1, tzinfo=UTC)
            zipped = zipfile.ZipInfo(name, max(stamp.timetuple()[:6], (1980, 1, 1, 0, 0, 0)))
            zipped.compress_type = zipfile.ZIP_DEFLATED
            with self._made.open(zipped, "w", force_zip64=size > 1 << 30) as member:
                shutil.copyfileobj(file, member, BLOCK)
        else:
            copy(file, self._made, size)

    def close(self) -> int:
        """How many bytes there are to take; 0 where nothing went into a compression."""
        self._made.close()
        if self.is_wrap and not self.filled:
            return 0
        size = int(self.file.tell())
        # what ended before its time does so again, or a gap in the evidence would be hidden
        return max(size - 9, 1) if self.is_wrap and self.cut else size


_MADE: dict[str, Callable[[Any], Any]] = {
    "": lambda file: file,
    "tar": lambda file: tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT),  # noqa: SIM115
    "zip": partial(zipfile.ZipFile, mode="w", compression=zipfile.ZIP_DEFLATED),
    "gz": lambda file: gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6),
    "bz2": partial(bz2.BZ2File, mode="wb"),
    "xz": partial(lzma.LZMAFile, mode="wb"),
    "zst": lambda file: pa.CompressedOutputStream(pa.PythonFile(_Open(file), mode="w"), "zstd"),
}


def shares(sizes: list[int], total: int) -> list[int]:
    """How a text of another length is cut into as many pieces: the last takes what is left."""
    ends = [min(end, total) for end in accumulate(sizes[:-1], initial=0)]
    return [end - begin for begin, end in pairwise([*ends, total])]


def free_name(name: str, taken: set[str]) -> str:
    """A name that is not taken yet: two that became one keep apart."""
    free = next(one for number in count(1) if (one := name if number == 1 else f"{name}-{number}").lower() not in taken)
    taken.add(free.lower())
    return free


def copy(file: BinaryIO, out: BinaryIO, size: int) -> None:
    """So many bytes of a file, or as many as there are."""
    while size > 0 and (data := file.read(min(size, BLOCK))):
        out.write(data)
        size -= len(data)


class _Open(io.RawIOBase):
    # What pyarrow may close.
    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def write(self, data: Any) -> int:
        return self._out.write(data)
