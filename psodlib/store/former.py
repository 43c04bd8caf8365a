"""A store of the first format, whose readings were pickles: read once more, so that nothing of what it knew is lost."""

from __future__ import annotations

import io
import json
import os
import pickle
import zlib
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from psodlib import records
from psodlib.records import FileReading, Problem
from psodlib.store.folder import damaged
from psodlib.store.readings import Entry, Read, write_segment

__all__ = ["former_entries"]

_MOST = 1 << 30  # bytes that a piece may unfold to
# The fields of that time, in their order.
_FIELDS = {
    "Frame": "crash_id backtrace pcpu index frame_pointer address function module module_version offset stack module_evidence",
    "Module": "host time crash_id module base data bss module_id source",
    "Crash": "crash_id host time esxi_version esxi_build kind message exception pcpu world_id world_name ip fault_address "
    "code_start uptime guilty_module guilty_function guilt driver_version driver_evidence signature proto_signature "
    "known_issues deliberate damage source line offset sha256 copies frames modules text",
    "Alive": "start end boot evidence vms source line",
    "Mark": "time what evidence source line",
    "DriverReading": "module version vib state observed_at installed_on evidence device firmware source line",
    "HostFact": "host esxi_version esxi_build vendor model serial time source",
    "Precursor": "time what module text source line",
    "Problem": "source problem host line detail",
    "FileReading": "source kind host hint sha256 size mtime collected irrelevant crashes alive marks drivers modules facts "
    "precursors problems",
}


class _Former:
    def __setstate__(self, values: list[Any]) -> None:
        self.values = values


_KINDS = {name: type(name, (_Former,), {}) for name in _FIELDS}
_TIMES = {"datetime": datetime, "timedelta": timedelta, "timezone": timezone}


class _Records(pickle.Unpickler):
    # A store may come from somebody else: nothing but plain values comes out of it.
    def find_class(self, module: str, name: str) -> Any:
        found = {"psodlib.records": _KINDS, "datetime": _TIMES}.get(module, {}).get(name)
        if found is None:
            raise pickle.UnpicklingError(f"{module}.{name} is no record")
        return found


def _now(value: Any) -> Any:
    # The record of today; a field that is no more is left out, one that is new has its default.
    if isinstance(value, _Former):
        kind = getattr(records, type(value).__name__)
        told = zip(_FIELDS[type(value).__name__].split(), value.values, strict=True)
        return kind(**{name: _now(one) for name, one in told if name in kind.__slots__})
    return tuple(_now(one) for one in value) if isinstance(value, (tuple, list)) else value


def former_entries(folder: Path, ledger: str | None) -> list[Entry]:
    """The entries of an old ledger, their readings written anew."""
    if ledger is None:
        return []
    try:
        rows = pq.read_table(folder / ledger).to_pylist()
        return list(write_segment(folder, _read(folder, rows)))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, zlib.error, pickle.PickleError, EOFError,
            MemoryError, pa.ArrowException, msgspec.MsgspecError) as error:  # fmt: skip
        raise damaged(folder / ledger, f"{type(error).__name__}: {error}") from error


def _read(folder: Path, rows: list[dict[str, Any]]) -> Iterator[Read]:
    for row in rows:
        readings: list[FileReading] = []
        pieces = json.loads(row["pieces"])
        for piece in pieces:
            if piece["length"]:
                with open(folder / row["segment"], "rb") as file:
                    file.seek(piece["offset"])
                    data = zlib.decompressobj().decompress(file.read(piece["length"]), _MOST)
                readings += _now(_Records(io.BytesIO(data)).load())
            else:
                readings.append(
                    FileReading(source=row["path"], kind="", host=piece["host"], hint=piece["hint"], irrelevant=True)
                )
        problems = [Problem(**problem) for problem in json.loads(row["problems"])]
        hint = pieces[0]["hint"] if pieces else None
        path, root = _whole(row["path"]), _whole(row["root"])
        entry = Entry(
            path=path, source=path, root=root, name=path.removeprefix(root).strip("/\\") or path, hint=hint,
            hint_kind="folder" if hint else None, collected=readings[0].collected if readings else None, stamp="",
            size=row["size"], parser=row["parser"], sha256=row["sha256"], packed=path.endswith((".gz", ".tgz")),
            gone=row["gone"], missed=row["gone"], hosts=tuple(row["hosts"]),
        )  # fmt: skip
        yield entry, [_under(reading, row["path"], path) for reading in readings], problems


def _whole(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)


def _under(reading: FileReading, old: str, new: str) -> FileReading:
    # A source that was relative is named whole now.
    if old == new:
        return reading
    text = msgspec.json.encode(reading).replace(
        b'"source":' + msgspec.json.encode(old)[:-1], b'"source":' + msgspec.json.encode(new)[:-1]
    )
    return msgspec.json.decode(text, type=FileReading)
