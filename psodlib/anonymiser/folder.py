"""Sources -> a folder of the same form, the owner's mapping beside it, and what was left out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from psodlib.anonymiser.learn import in_a_hosts_folder, learn_names
from psodlib.anonymiser.pseudonyms import LEAST, Pseudonyms
from psodlib.anonymiser.rewrite import Rewriter
from psodlib.anonymiser.sweep import Suspect
from psodlib.anonymiser.transcode import Transcoder, copy, free_name, shares, spool
from psodlib.errors import InputError
from psodlib.evidence.places import Place
from psodlib.evidence.sources import Unit, iter_units
from psodlib.evidence.streams import Budget, DiskFile, Limits, Stream, chained
from psodlib.records import Problem

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Anonymised:
    """What was written: the folder, the owner's mapping beside it, how many files, what is not in it (place, why), and what in it still
    looks like a name."""

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
        Folders and files, as for ``load``; a folder that ``Fleet.save`` or ``report`` wrote too.
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
    Replaced: names of hosts, domains, users, virtual machines, datastores and networks; IPv4, IPv6, MAC and mail addresses; UUIDs,
    WWNs and their kin (naa, eui, t10, iqn, nqn, vml); serials and asset tags; LDAP and certificate names; words of file names that
    nobody knows; every cell of an inventory's column that is not known to be harmless. Removed altogether, and not in the mapping:
    passwords, communities, tokens, keys, licences, annotations. A sweep over what is written lists in ``suspects`` what still looks
    like a name, each word with the file and line (0: the file's name) where the original has it first. Kept: times, versions, builds, module and function names, addresses in memory, the words of messages. ``load`` of the
    result gives the tables of the original but for names, rows' order, ``sha256`` and ``offset``; ``crash_id`` changes where the
    panic message itself holds a name (``world 1234:vmm0:MAIL01``), ``signature`` never. What is no text is left out and listed.
    Not seen: a name inside text that is wrapped once more, as base64 (pictures in a page apart, which are taken out). A link in a
    tar is not written, and not listed either; what it points to is written where it lies. Two IPv4
    addresses never share a pseudonym; the later of two that would takes another, which the next export may not give it again.
    One reading to learn the names, one to replace them; memory grows with the number of names, not with the bytes.
    """
    folder = _free(Path(out), sources)
    if len(key) < LEAST:
        raise InputError(f"a key of {len(key)} bytes; expected {LEAST} or more, best from a key file")
    pseudonyms = Pseudonyms(key)
    rewriter = Rewriter(learn_names(sources, inventory, words), pseudonyms)
    work = Transcoder(rewriter)
    todo = list(_todo(sources, rewriter, work, inventory))
    written: set[str] = set()
    for done, (unit, name) in enumerate(todo, 1):
        _one(unit, name, folder, work, written)
        if progress:
            progress(unit.source, done, len(todo))
    suspects = tuple(sorted(work.sweep.found.values(), key=lambda one: (one.source, one.line)))
    mapping = write_mapping(folder.with_name(f"{folder.name}.mapping.json"), pseudonyms, work.left_out, suspects)
    return Anonymised(folder, mapping, len(written), tuple(work.left_out), suspects)


def _free(out: Path, sources: Sequence[str | Path]) -> Path:
    for source in map(Path, sources):
        if str(source) == "-" or "://" in str(source):
            raise InputError(f"{source}: only files and folders on disk can be written anew; save it first")
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise InputError(f"{out}: lies inside {source}; name a folder beside it")
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out}: is there already and not empty; expected a new folder")
    return out


def _todo(
    sources: Sequence[str | Path], rewriter: Rewriter, work: Transcoder, inventory: str | Path | None
) -> Iterator[tuple[Unit, list[str]]]:
    # Each file with the new name of each of its pieces. A folder that is one host's own keeps its name above it.
    for place, source in enumerate(map(Path, sources)):
        root = source if source.is_dir() else source.parent
        for unit in iter_units(source):
            if isinstance(unit, Problem):
                work.left_out.append((unit.source, unit.detail or unit.problem))
                continue
            above = [] if len(sources) == 1 else [f"{place + 1:02d}"]
            own = root.resolve().name
            if source.is_dir() and unit.place.hint == own and in_a_hosts_folder(unit):
                above.append(rewriter.name("host", own))
            names = [Path(path).relative_to(root).as_posix() for path in unit.paths]
            yield unit, ["/".join([*above, work.name(name, unit.source)]) for name in names]
    if inventory is not None:
        path = Path(inventory)
        place_of = Place(source=str(path), name="inventory.csv", size=path.stat().st_size)
        yield Unit(paths=(str(path),), place=place_of), ["inventory.csv"]


def _one(unit: Unit, names: list[str], folder: Path, work: Transcoder, written: set[str]) -> None:
    sizes = [os.stat(path).st_size for path in unit.paths]
    with spool() as file:
        budget = Budget(Limits())
        with Stream(chained([partial(DiskFile, path) for path in unit.paths]), unit.source, budget=budget) as stream:
            told = len(work.left_out)
            is_written = work.write(stream, unit.place, file, budget)
        trouble = next((one for one in stream.problems if one.problem != "truncated"), None)
        if trouble:
            work.left_out.append((unit.source, f"the rest of it: {trouble.detail or trouble.problem}"))
        if not is_written:
            if len(work.left_out) == told:
                work.left_out.append((unit.source, "nothing in it could be read"))
            return
        total = file.tell()
        file.seek(0)
        for path, name, share in zip(unit.paths, names, shares(sizes, total), strict=True):
            free = free_name(name, written)
            target = folder.joinpath(*(part for part in free.split("/") if part not in ("", ".", "..")))
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                copy(file, out, share)
            stamp = os.stat(path)
            os.utime(target, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))


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
