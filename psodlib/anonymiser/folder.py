"""Sources -> a folder of the same form, the owner's mapping beside it, and what was left out.

Each file is unpacked by evidence's own walk, and what is in it packed again as it was: text, tables, gz, bz2, xz, zst, tar,
zip, fragments, one in another.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate, count, pairwise
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from psodlib.anonymiser.learn import in_a_hosts_folder, learn_names
from psodlib.anonymiser.pseudonyms import LEAST, Pseudonyms
from psodlib.anonymiser.rewrite import Rewriter
from psodlib.anonymiser.sweep import Suspect, Sweep
from psodlib.anonymiser.tables import is_inventory, rewrite_csv, rewrite_parquet
from psodlib.errors import InputError
from psodlib.evidence.archives import Item, expand
from psodlib.evidence.places import Place
from psodlib.evidence.reading import binary_kind
from psodlib.evidence.sources import Unit, iter_units
from psodlib.evidence.streams import Budget, DiskFile, Limits, Stream, chained
from psodlib.fleet import Fleet
from psodlib.records import Problem
from psodlib.store.folder import is_store

BLOCK = 256 << 10
IN_MEMORY = 8 << 20  # bytes of an archive's member that wait in memory; more waits on disk
_WIDE = re.compile(rb"(?:[\x20-\x7e]\0){8}|(?:\0[\x20-\x7e]){8}")
_WIDE_MARKS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_BASE64 = re.compile(rb"[A-Za-z0-9+/=]*")
_EMPTY_PICTURE = b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="

Progress = Callable[[str, int, int], None]
_spool: Callable[[], Any] = partial(tempfile.SpooledTemporaryFile, max_size=IN_MEMORY)  # waits in memory while small


@dataclass(frozen=True)
class Anonymised:
    """What was written, the owner's mapping beside it, what is not in it (place, why), and what still looks like a name."""

    folder: Path
    mapping: Path
    files: int
    left_out: tuple[tuple[str, str], ...]
    suspects: tuple[Suspect, ...] = ()


def anonymise(
    *sources: str | Path, out: str | Path, key: bytes, inventory: str | Path | None = None, words: Sequence[str] = (),
    progress: Progress | None = None,
) -> Anonymised:  # fmt: skip
    """Write evidence, a saved fleet or a report anew with every name replaced.

    Parameters
    ----------
    *sources : str or Path
        Folders and files, as for ``load``; a folder that ``report`` wrote too. A store becomes a saved fleet.
    out : str or Path
        Folder to write; must be new or empty, and not inside a source.
    key : bytes
        From ``anonymiser.read_key`` or ``key_from_passphrase``. The same key gives the same pseudonyms in every export.
    inventory : str or Path, optional
        Written anew as ``inventory.csv``; what it names is replaced everywhere.
    words : sequence of str
        Words of the house (its name, its towns), replaced wherever they stand, inside other words too.
    progress : callable, optional
        Called as ``progress(what, done, total)`` after each file.

    Returns
    -------
    Anonymised
        ``mapping`` is for the owner alone (mode 0600) and lies beside ``out``, never in it.

    Raises
    ------
    InputError
        A source that cannot be read or is no file or folder; ``out`` is not empty or lies inside a source; too short a key; a
        site word that is a word of the kernel's own.

    Notes
    -----
    Replaced: names of hosts, domains, users, virtual machines, datastores, networks; IPv4, IPv6, MAC and mail
    addresses; UUIDs, WWNs and their kin (naa, eui, t10, iqn, nqn, vml); serials, asset tags; LDAP and certificate
    names; unknown words of file names; each cell of an inventory's column not known to be harmless. Removed, and not in
    the mapping: passwords, communities, tokens, keys, licences, annotations. Kept: times, versions, builds, module and
    function names, addresses in memory, words of messages. ``load`` of the result gives the original's tables but for
    names, rows' order, ``sha256`` and ``offset``; ``crash_id`` changes where the panic message holds a name (``world
    1234:vmm0:MAIL01``), ``signature`` never. ``suspects`` tells what still looks like a name, each word where the
    original has it first (line 0: the file's name). What is no text is left out and listed; a link in a tar is neither
    written nor listed. Not seen: a name in text wrapped once more, as base64 or hexadecimal. Two IPv4 addresses never share a
    pseudonym; the later of two that would takes another, which the next export may not give it. Memory grows with the
    number of names, not with the bytes.
    """
    folder = _free(Path(out), sources)
    if not isinstance(key, bytes) or len(key) < LEAST:
        found = f"{len(key)} bytes" if isinstance(key, bytes) else f"type {type(key).__name__}"
        raise InputError(f"a key of {found}; expected {LEAST} bytes or more, best from a key file")
    pseudonyms = Pseudonyms(key)
    with tempfile.TemporaryDirectory() as made:
        given = [_readable(one, Path(made, str(number))) for number, one in enumerate(sources)]
        export = _Export(folder, Rewriter(learn_names(given, inventory, words), pseudonyms))
        todo = list(export.todo(given, inventory))
        for done, (unit, names) in enumerate(todo, 1):
            export.unit(unit, names)
            if progress:
                progress(unit.source, done, len(todo))
    told = sorted(export.sweep.found.values(), key=lambda one: (one.source, one.line))
    suspects = tuple(replace(one, source=re.sub(rf"^{re.escape(made)}/\d+/", "", one.source)) for one in told)
    mapping = write_mapping(folder.with_name(f"{folder.name}.mapping.json"), pseudonyms, export.left_out, suspects)
    return Anonymised(folder, mapping, len(export.written), tuple(export.left_out), suspects)


def _readable(source: str | Path, made: Path) -> str | Path:
    # A store as its tables: its readings are no text, and its hashes would not hold.
    return Fleet.open(source).save(made / Path(source).name) if is_store(Path(source)) else source


def _free(out: Path, sources: Sequence[str | Path]) -> Path:
    for source in map(Path, sources):
        if str(source) == "-" or "://" in str(source):
            raise InputError(f"{source}: only files and folders on disk can be written anew; save it first")
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise InputError(f"{out}: lies inside {source}; name a folder beside it")
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out}: is there already and not empty; expected a new folder")
    return out


def write_mapping(
    file: Path, pseudonyms: Pseudonyms, left_out: Sequence[tuple[str, str]], suspects: Sequence[Suspect] = ()
) -> Path:
    """The owner's list of what became what."""
    content: dict[str, Any] = {
        "about": "Who has this file can undo the export. It is yours alone.",
        "names": {kind: dict(sorted(pairs.items())) for kind, pairs in sorted(pseudonyms.used.items())},
        "left_out": [{"source": source, "why": why} for source, why in left_out],
        "still_like_a_name": [asdict(suspect) for suspect in suspects],
    }
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as out:
        json.dump(content, out, indent=1)
    return file


class _LeftOut(Exception):
    """Why a file is not in the output."""


class _Export:
    # A folder that is being written: what is in it, what is not and why, what in it still looks like a name.
    def __init__(self, folder: Path, rewriter: Rewriter) -> None:
        self.folder, self.rewriter = folder, rewriter
        self.written: set[str] = set()
        self.left_out: list[tuple[str, str]] = []
        self.sweep = Sweep(rewriter.names, rewriter.pseudonyms)

    def todo(self, sources: Sequence[str | Path], inventory: str | Path | None) -> Iterator[tuple[Unit, list[str]]]:
        """Each file with the new name of each of its pieces. A folder that is one host's own keeps its name above it."""
        for number, source in enumerate(map(Path, sources), 1):
            root = source if source.is_dir() else source.parent
            own = root.resolve().name
            for unit in iter_units(source):
                if isinstance(unit, Problem):
                    self.left_out.append((unit.source, unit.detail or unit.problem))
                    continue
                above = [] if len(sources) == 1 else [f"{number:02d}"]
                if source.is_dir() and unit.place.hint == own and in_a_hosts_folder(unit):
                    above.append(self.rewriter.name("host", own))
                names = [Path(path).relative_to(root).as_posix() for path in unit.paths]
                yield unit, ["/".join([*above, self._name(name, unit.source)]) for name in names]
        if inventory is not None:
            place = Place(source=str(inventory), name="inventory.csv", size=Path(inventory).stat().st_size)
            yield Unit(paths=(place.source,), place=place), [place.name]

    def unit(self, unit: Unit, names: list[str]) -> None:
        """One file, in one piece or several."""
        stamps = [os.stat(path) for path in unit.paths]
        told, budget = len(self.left_out), Budget(Limits())
        with _spool() as file:
            openers = [partial(DiskFile, path) for path in unit.paths]
            with Stream(chained(openers), unit.source, budget=budget) as stream:
                is_written = self._write(stream, unit.place, file, budget)
            if trouble := next((one for one in stream.problems if one.problem != "truncated"), None):
                self.left_out.append((unit.source, f"the rest of it: {trouble.detail or trouble.problem}"))
            if not is_written and len(self.left_out) == told:
                self.left_out.append((unit.source, "nothing in it could be read"))
            sizes = _shares([stamp.st_size for stamp in stamps], file.tell())
            file.seek(0)
            for stamp, name, share in zip(stamps, names, sizes, strict=True) if is_written else ():
                free = _free_name(name, self.written)
                target = self.folder.joinpath(*(part for part in free.split("/") if part not in ("", ".", "..")))
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as out:
                    _copy(file, out, share)
                os.utime(target, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))

    def _write(self, stream: Stream, place: Place, out: BinaryIO, budget: Budget) -> bool:
        # Whatever it is; False where nothing of it could be written.
        under_way = [_Packer("", place, out)]
        try:
            for step in expand(stream, place, budget):
                if isinstance(step, Problem):
                    if step.problem not in ("truncated", "fragment_missing"):  # the original is no better
                        self.left_out.append((step.source, step.detail or step.problem))
                elif isinstance(step, Item):
                    self._item(step, under_way[-1])
                elif not step.ends:
                    under_way.append(_Packer(step.kind, step.place, _spool()))
                else:
                    done = under_way.pop()
                    done.cut |= any(problem.problem == "truncated" for problem in stream.problems)
                    with done.file:
                        if size := done.close():
                            under_way[-1].cut |= done.cut and under_way[-1].is_wrap
                            self._add(under_way[-1], done.place, done.file, size, done.pieces)
        finally:
            for left in reversed(under_way[1:]):
                left.drop()
        return under_way[0].filled

    def _item(self, item: Item, packer: _Packer) -> None:
        with _spool() as file:
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
        for piece, share in zip(pieces or (place,), _shares([p.size for p in pieces] or [size], size), strict=True):
            with _spool() as part:
                _copy(file, part, share)
                part.seek(0)
                packer.add(self._name(piece.name, piece.source), part, share, piece.mtime)

    def _name(self, name: str, source: str) -> str:
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
            self.left_out.append((place.source, f"its pictures ({pictures}): no text, so they cannot be judged"))

    def _parquet(self, stream: Stream, place: Item, out: BinaryIO) -> None:
        with _spool() as file:
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
        name = _free_name(name, self._names) if name else ""
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
            _copy(file, self._made, size)

    def drop(self) -> None:
        """Stop: an archive that is not closed would close itself later, when its file is gone."""
        with suppress(Exception):
            self._made.close()
        self.file.close()

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


def _shares(sizes: list[int], total: int) -> list[int]:
    # How a text of another length is cut into as many pieces: the last takes what is left.
    ends = [min(end, total) for end in accumulate(sizes[:-1], initial=0)]
    return [end - begin for begin, end in pairwise([*ends, total])]


def _free_name(name: str, taken: set[str]) -> str:
    # A name that is not taken yet: two that became one keep apart.
    free = next(one for number in count(1) if (one := name if number == 1 else f"{name}-{number}").lower() not in taken)
    taken.add(free.lower())
    return free


def _copy(file: BinaryIO, out: BinaryIO, size: int) -> None:
    # So many bytes of a file, or as many as there are.
    while size > 0 and (data := file.read(min(size, BLOCK))):
        out.write(data)
        size -= len(data)


class _Open(io.RawIOBase):
    # What pyarrow may close.
    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def write(self, data: Any) -> int:
        return self._out.write(data)
