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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

from isal import igzip_lib

from psodlib.errors import InputError
from psodlib.records import Problem

__all__ = [
    "HASHED", "MAX_MEMBERS", "MAX_RATIO", "MAX_SIZE", "MAX_WRAPS", "Budget", "Chain", "Counted", "DiskFile", "Limits", "Stream", "Trouble",
    "diagnose", "unwrapped", "wrap_of",
]  # fmt: skip

MAX_SIZE = 64 << 30  # bytes that one archive or compressed file may unfold to
MAX_RATIO = 250  # bytes unfolded for each byte read; logs reach 20, a deflate bomb 1030
RATIO_FLOOR = 64 << 20  # below this much output no ratio is judged: a small file of blanks is no bomb
MAX_MEMBERS = 200_000  # files in one archive
MAX_WRAPS = 2  # compressions around one file
HASHED = 16 << 20  # content beyond this has no hash: it is no rotated log that a bundle mirrors


def _limit(name: str, default: float) -> Any:
    # What the environment says of a limit: worker processes inherit it.
    text = os.environ.get(f"PSOD_{name}")
    if text is None:
        return default
    try:
        value = type(default)(text)
    except ValueError:
        value = 0
    if value <= 0:
        raise InputError(f"PSOD_{name} is {text!r}; expected a number above 0, or unset it for {default}")
    return value


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

    ``count`` is of the bytes read so far. ``sha256`` (hexadecimal) is of the file as it is stored, which for a
    compressed one means its compressed bytes (a fifth of the work); None where it is too large to hash.
    """

    def __init__(
        self,
        raw: io.RawIOBase | BinaryIO,
        source: str,
        problems: list[Problem] | None = None,
        *,
        stored: Stream | None = None,
    ) -> None:
        super().__init__()
        self._raw, self._source, self._stored = raw, source, stored
        self._head = b""
        self._ended = False
        self._hash: Any = None
        self.count = 0
        self.problems: list[Problem] = [] if problems is None else problems

    def begin_hash(self) -> None:
        """Hash what is read from here on, unless it is too much."""
        self._hash = hashlib.sha256()

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
        """Hash of the bytes read so far, or of those of the stored file that this stream unfolds."""
        if self._stored is not None:
            return self._stored.sha256
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
            problem, detail = diagnose(error)
            self.problems.append(Problem(source=self._source, problem=problem, detail=detail))
            got = 0
        self._ended = got == 0
        return got


def diagnose(error: Exception) -> tuple[str, str]:
    # An exception while opening or reading -> the contract's word and what to tell.
    if isinstance(error, Trouble):
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


class DiskFile(io.FileIO):
    # A plain file, read no further than its size at opening, that notices a change under the reading.
    def __init__(self, path: str) -> None:
        super().__init__(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        self._at_start = os.fstat(self.fileno())
        self._left = self._at_start.st_size
        if not stat.S_ISREG(self._at_start.st_mode):
            self.close()
            raise Trouble("unreadable", "no plain file (pipe, socket or device); not read")

    def readinto(self, buffer: Any) -> int | None:
        view = memoryview(buffer).cast("B")
        sized = self._at_start.st_size > 0  # files of /proc say 0
        got = super().readinto(view[: self._left] if sized else view)
        self._left -= got or 0
        if not got:
            now = os.fstat(self.fileno())
            if (now.st_size, now.st_mtime_ns) != (self._at_start.st_size, self._at_start.st_mtime_ns):
                raise Trouble(
                    "changed",
                    f"{self._at_start.st_size} bytes when opened, {now.st_size} when read; load again for the rest",
                )
        return got


class Chain(io.RawIOBase):
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


class Budget:
    # How much one unit has unfolded against how much was read of it, over all its layers.
    def __init__(self, limits: Limits) -> None:
        self.limits, self.consumed, self.produced = limits, 0, 0

    def counted(self, raw: io.RawIOBase) -> Counted:
        return Counted(raw, self)

    def add(self, count: int) -> None:
        self.produced += count
        if self.produced > self.limits.size:
            raise Trouble(
                "too_large", f"unfolds to more than {self.limits.size} bytes (PSOD_MAX_SIZE); the rest is not read"
            )
        if self.produced > RATIO_FLOOR and self.produced > self.limits.ratio * max(self.consumed, 1):
            raise Trouble(
                "too_large",
                f"{self.consumed} bytes unfolded to {self.produced}, more than {self.limits.ratio:g} to 1 (PSOD_MAX_RATIO); the rest is not read",
            )


class Counted(io.RawIOBase):
    # The outermost bytes, counted; passes seeking through, which zip needs.
    def __init__(self, raw: io.RawIOBase, budget: Budget) -> None:
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


def unwrapped(wrap: str, stream: Stream, budget: Budget) -> io.RawIOBase:
    return _Zstd(stream, budget) if wrap == "zst" else _Inflated(wrap, stream, budget)


class _Inflated(io.RawIOBase):
    # gz, bz2 and xz: Python's decompressors share one interface. Several members in a row are one stream.
    def __init__(self, wrap: str, stream: Stream, budget: Budget) -> None:
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
                raise Trouble("damaged_archive", f"{self._wrap}: {error}; what came before is used") from error
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
                raise Trouble("truncated", f"{self._wrap}: cut by the trouble below")
            raise Trouble("truncated", f"{self._wrap} ends before its time; what came before is used")
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
        if rest and wrap_of(rest) != self._wrap:
            raise Trouble("damaged_archive", f"{self._wrap}: bytes behind its end that are none of it; not read")
        self._engine = _DECOMPRESSORS[self._wrap]()
        return rest


class _Zstd(io.RawIOBase):
    # pyarrow is at hand for Parquet and knows zstd; it returns nothing of a call that meets damage, so calls are small.
    def __init__(self, stream: Stream, budget: Budget) -> None:
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
            raise Trouble(word, f"zst: {error}; what came before is used") from error
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
