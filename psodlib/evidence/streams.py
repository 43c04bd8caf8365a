"""Byte streams that never raise: files on disk, fragments in a row, gz, bz2, xz and zst, all within a budget."""

from __future__ import annotations

import bz2
import hashlib
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from isal import igzip_lib

from psodlib.errors import InputError, in_words
from psodlib.records import Problem

MAX_SIZE = 64 << 30  # bytes that one archive or compressed file may unfold to
MAX_RATIO = 250  # bytes unfolded for each byte read; logs reach 20, a deflate bomb 1030
RATIO_FLOOR = 64 << 20  # below this much output no ratio is judged: a small file of blanks is no bomb
MAX_MEMBERS = 200_000  # files in one archive
MAX_WRAPS = 2  # compressions around one file
MAX_BOMBS = 8  # members of one archive that may turn out to be bombs before all of it is one
BLOCK = 256 << 10
FEED = 64 << 10  # bytes that a decompressor gets at once
HASHED = 16 << 20  # content beyond this has no hash: it is no rotated log that a bundle mirrors

# glibc gives every piece larger than the largest that it ever freed back to the system, and clears the next one page by page:
# 2.6 in place of 2.3 ms for a packed log of 1 MiB, by the luck of the heap's layout. So one larger than any block is freed.
_large = bytes(8 << 20)
del _large


def _limit(name: str, default: float) -> Any:
    # What the environment says of a limit: worker processes inherit it.
    text = os.environ.get(f"PSOD_{name}", str(default))
    with suppress(ValueError):
        if (value := type(default)(text)) > 0:
            return value
    raise InputError(f"PSOD_{name} is {text!r}; expected a number above 0, or unset it for {default}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far an archive may unfold before it is taken for a bomb.

    The defaults are this module's constants; the environment's ``PSOD_MAX_SIZE`` (bytes), ``PSOD_MAX_RATIO`` and
    ``PSOD_MAX_MEMBERS`` go before them.
    """

    size: int = field(default_factory=lambda: _limit("MAX_SIZE", MAX_SIZE))
    ratio: float = field(default_factory=lambda: _limit("MAX_RATIO", float(MAX_RATIO)))
    members: int = field(default_factory=lambda: _limit("MAX_MEMBERS", MAX_MEMBERS))


class Trouble(Exception):
    # Ends a stream; becomes the Problem of that word.
    def __init__(self, problem: str, detail: str) -> None:
        super().__init__(detail)
        self.problem, self.detail = problem, detail


class Stream(io.RawIOBase):
    """Bytes that never raise: what goes wrong ends the stream and stands in ``problems``.

    The one pull-reader: every layer below is a generator of blocks, or a file. ``count`` is of the bytes read so far.
    ``sha256`` (hexadecimal) is of an archive's member as it is stored, which for a compressed one means its compressed bytes;
    None where it is too large to hash. ``again``, where there is one, gives the same bytes from their start.
    """

    def __init__(
        self, raw: Any, source: str, problems: list[Problem] | None = None, *, stored: Stream | None = None,
        budget: Budget | None = None, whole: memoryview | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._raw, self.file = raw, raw if hasattr(raw, "readinto") else None
        self._blocks: Iterator[Any] = iter(()) if self.file is not None else filter(len, raw)
        self.source, self.stored, self._budget, self._whole = source, stored, budget, whole
        self._head: Any = b""
        self._ended = False
        self._hash: Any = None
        self.count = 0
        self.again: Callable[[], Stream] | None = None
        self.problems: list[Problem] = [] if problems is None else problems

    def begin_hash(self, size: int = 0, into: Any = None) -> None:
        """Hash what is read from here on, unless it is too much."""
        self._hash = (into or hashlib.sha256()) if size <= HASHED else None

    def readable(self) -> bool:
        """Always."""
        return True

    def peek(self, size: int) -> bytes:
        """The next bytes, up to ``size``, without taking them."""
        while len(self._head) < size:
            head = bytes(self._head)  # a copy: what is below may use its block again
            more = self._pull(size - len(head))
            self._head = head + more if head else more
            if not more:
                break
        return bytes(self._head[:size])

    def take(self, size: int) -> bytes | memoryview:
        """The next bytes as they come, up to ``size``, without a copy; none at the end or where the trouble began."""
        block: bytes | memoryview = self._head or self._pull(size)
        self._head = memoryview(block)[size:] if len(block) > size else b""
        return self._given(block[:size] if len(block) > size else block)

    def read(self, size: int = -1) -> bytes:
        """The next bytes, up to ``size``; all of them without it."""
        return bytes(self.take(size)) if size >= 0 else b"".join(iter(partial(self.take, BLOCK), b""))

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``; 0 at the end or where the trouble began."""
        view = memoryview(buffer).cast("B")
        if self.file is not None and not self._head:
            file = self.file
            return len(self._given(self._guarded(lambda: view[: file.readinto(view) or 0])))
        block = self.take(len(view))
        view[: len(block)] = block
        return len(block)

    @property
    def sha256(self) -> str | None:
        """Hash of the bytes read so far, or of those of the stored file that this stream unfolds."""
        if self.stored is not None:
            return self.stored.sha256
        if self._whole is not None:
            return hashlib.sha256(self._whole).hexdigest()
        return None if self._hash is None else self._hash.hexdigest()

    def close(self) -> None:
        """Close what is behind it."""
        if not self.closed and (close := getattr(self._raw, "close", None)):
            close()
        self._head = b""
        super().close()

    def _given(self, block: bytes | memoryview) -> bytes | memoryview:
        self.count += len(block)
        if self._hash is not None:
            self._hash.update(block)
            if self.count > HASHED:
                self._hash = None
        return block

    def _pull(self, size: int) -> Any:
        if self.file is None:
            return self._guarded(lambda: next(self._blocks, b""))
        return self._guarded(partial(self.file.read, max(1, min(size, BLOCK))))

    def _guarded(self, pull: Callable[[], Any]) -> Any:
        # The one guard: any decoder's complaint ends this stream, not the load.
        got: Any = b""
        try:
            got = b"" if self._ended else pull() or b""
        except Exception as error:
            self.problems.append(diagnose(error, self.source))
        self._ended = not got
        if self._budget is not None:
            self._budget.consumed += len(got)
        return got


def noted(source: str, problem: str, detail: str, line: int | None = None) -> Problem:
    # The contract's word, and what to tell of it.
    return Problem(source=source, problem=problem, detail=detail, line=line)


def diagnose(error: Exception, source: str) -> Problem:
    # An exception while opening or reading -> the contract's word and what to tell.
    if isinstance(error, Trouble):
        return noted(source, error.problem, error.detail)
    if isinstance(error, FileNotFoundError):
        return noted(source, "vanished", "the file is gone since the folder was listed")
    if isinstance(error, EOFError):
        return noted(source, "truncated", "the archive is truncated; what came before is used")
    if isinstance(error, RuntimeError) and "encrypted" in str(error):
        return noted(source, "encrypted", "the archive member needs a password; unpack it first")
    if isinstance(error, (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, NotImplementedError)):
        return noted(source, "damaged_archive", f"{error}; what came before is used")
    told = in_words(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    return noted(source, "unreadable", told)


class DiskFile(io.FileIO):
    # A plain file, read no further than its size at opening, that notices a change under the reading.
    def __init__(self, path: str) -> None:
        super().__init__(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        self._at_start = os.fstat(self.fileno())
        self._left = self._at_start.st_size
        self._sized = self._left > 0  # files of /proc say 0
        if not stat.S_ISREG(self._at_start.st_mode):
            self.close()
            raise Trouble("unreadable", "no plain file (pipe, socket or device); not read")

    def read(self, size: int | None = -1) -> bytes:
        most = self._left if size is None or size < 0 else min(size, self._left)
        data: bytes = self._seen(super().read(most if self._sized else size) or b"")
        return data

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        return len(self._seen(view[: super().readinto(view[: self._left] if self._sized else view) or 0]))

    def _seen(self, data: Any) -> Any:
        self._left -= len(data)
        if not len(data):
            then, now = self._at_start, os.fstat(self.fileno())
            if (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
                detail = f"{then.st_size} bytes when opened, {now.st_size} when read; load again for the rest"
                raise Trouble("changed", detail)
        return data


def chained(openers: Sequence[Callable[[], Any]]) -> Iterator[memoryview]:
    # Pieces one after the other, each opened when its turn comes.
    for opener in openers:
        with closing(opener()) as piece:
            while got := piece.readinto(block := memoryview(bytearray(BLOCK))):
                yield block[:got]


class Budget:
    # How much one unit has unfolded against how much was read of it, over all its layers.
    def __init__(self, limits: Limits, consumed: int = 0) -> None:
        self.limits, self.consumed = limits, consumed
        self.produced = self.total = 0
        self._bombs, self._broken = 0, False

    def forgive(self, before: int) -> None:
        # A bomb ends the member that it is: what it unfolded is forgiven, a few times, so that what stands behind it is read.
        if self._broken and self._bombs < MAX_BOMBS:
            self._bombs += 1
            self.produced, self._broken = before, False

    def add(self, count: int) -> None:
        self.produced += count
        self.total += count
        size, ratio = self.limits.size, self.limits.ratio
        if self.total > size:
            raise Trouble("too_large", f"unfolds to more than {size} bytes (PSOD_MAX_SIZE); the rest is not read")
        if self.produced > RATIO_FLOOR and self.produced > ratio * max(self.consumed, 1):
            self._broken = True
            grown = f"{self.consumed} bytes unfolded to {self.produced}, more than {ratio:g} to 1"
            raise Trouble("too_large", f"{grown} (PSOD_MAX_RATIO); the rest is not read")


# --- compressions -----------------------------------------------------------------------------------------------------

_WRAPS = {b"\x1f\x8b\x08": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "gz": partial(igzip_lib.IgzipDecompressor, igzip_lib.DECOMP_GZIP), "bz2": bz2.BZ2Decompressor, "xz": lzma.LZMADecompressor,
}  # fmt: skip


def wrap_of(head: bytes) -> str | None:
    for magic, wrap in _WRAPS.items():
        if head.startswith(magic) and (wrap != "bz2" or head[4:10] in (b"1AY&SY", b"\x17rE8P\x90")):
            return wrap
    return None


def unwrapped(wrap: str, stream: Stream, budget: Budget) -> Iterator[bytes]:
    with stream:
        for data in _unzstd(stream) if wrap == "zst" else _inflated(wrap, stream):
            budget.add(len(data))
            yield data


def _inflated(wrap: str, stream: Stream) -> Iterator[bytes]:
    # gz, bz2 and xz: Python's decompressors share one interface. Several members in a row are one stream. Feeds are small,
    # because what an engine made of a feed is lost when the same feed holds the damage; and smaller where a member begins,
    # because an engine copies what it leaves of a feed, and a member may have twenty bytes.
    engine, feed = _DECOMPRESSORS[wrap](), FEED
    piece, at = memoryview(b""), 0
    while True:
        if engine.eof:
            piece, at = _next_member(stream, piece, at - len(engine.unused_data))
            if at == len(piece):
                return
            if wrap_of(bytes(piece[at : at + 10])) != wrap:
                raise Trouble("damaged_archive", f"{wrap}: bytes behind its end that are none of it; not read")
            engine, feed = _DECOMPRESSORS[wrap](), FEED >> 7
        start = at
        if engine.needs_input:
            if at == len(piece):
                piece, at, start = memoryview(stream.take(FEED)), 0, 0
            at = min(len(piece), start + feed)
            feed = min(FEED, 2 * feed)
            if not piece:  # the layer below may have told it already
                cut = " file is truncated; what came before is used"
                raise Trouble("truncated", wrap + (": cut by the trouble below" if stream.problems else cut))
        try:
            data = engine.decompress(piece[start:at], BLOCK)
        except Exception as error:  # each engine has its own error type
            raise Trouble("damaged_archive", f"{wrap}: {error}; what came before is used") from error
        if data:
            yield data


def _next_member(stream: Stream, piece: memoryview, at: int) -> tuple[memoryview, int]:
    # Where the next member begins. Zero padding behind a member is allowed by the formats.
    while len(piece) - at < 10 or not piece[at]:
        rest = bytes(piece[at:]).lstrip(b"\0")
        more = stream.take(FEED) if len(rest) < 10 else b""
        piece, at = memoryview(rest + bytes(more)), 0
        if not more and len(rest) < 10:
            break
    return piece, at


def _unzstd(stream: Stream) -> Iterator[bytes]:
    # pyarrow is at hand for Parquet and knows zstd; it returns nothing of a call that meets damage, so calls are small.
    import pyarrow as pa

    inflated = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")
    try:
        while data := inflated.read(FEED):
            yield data
    except OSError as error:
        word = "truncated" if "runcated" in str(error) else "damaged_archive"
        raise Trouble(word, f"zst: {error}; what came before is used") from error


def peeled(stream: Stream, budget: Budget) -> Stream:
    # The text within its compressions.
    stored = stream
    for _ in range(MAX_WRAPS):
        wrap = wrap_of(stream.peek(16))
        if wrap is None:
            break
        stream = Stream(unwrapped(wrap, stream, budget), stored.source, stored.problems, stored=stored)
    return stream
