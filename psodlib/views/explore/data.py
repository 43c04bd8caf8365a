"""What the explorer's script shows: a fleet's crashes, boots and hosts as plain data, each text bounded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from psodlib.fleet import Fleet
from psodlib.triage.boots import loaded_versions
from psodlib.views.charts import PALETTE, version_colours
from psodlib.views.crash import LONGEST_ID, LONGEST_NAME
from psodlib.views.words import known, label

__all__ = ["explorer_data"]

DOTS = PALETTE[3:9]  # of the modules with most crashes; versions begin at the other end
MOST_STRETCHES = 1_000  # of a boot's watched time; gaps narrower than this share of the whole are not to be seen
TEXT = {
    "host": LONGEST_NAME, "kind": 40, "guilty_module": 60, "driver_version": 60, "signature": 160, "crash_id": LONGEST_ID,
}  # fmt: skip


def explorer_data(fleet: Fleet, module: str, tags: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Everything that filters, timeline, list and host boxes are made of; unknown text is ""."""
    hosts = fleet.hosts.drop_duplicates("host")
    sides = {name: dict(zip(hosts["host"], hosts[name], strict=True)) for name in ("cluster", "model") if name in hosts}
    boots = _boots(fleet, module)
    crashes = fleet.crashes.sort_values(["time", "crash_id"], ascending=[False, True])
    names = crashes["guilty_module"].value_counts().index
    colours = version_colours(boots["version"].dropna())
    return {
        "module": label(module),
        "span": _span(fleet),
        "crashes": [_crash(row, sides) for row in crashes.itertuples()],
        "hosts": [{"host": _text(host, LONGEST_NAME), **_sides(host, sides)} for host in hosts["host"].dropna()],
        "boots": _lives(fleet, boots),
        "versions": [[_text(name, 60), colour] for name, colour in colours.items()],
        "modules": [[_text(name, 60), colour] for name, colour in zip(names, DOTS, strict=False)],
        "tags": {_text(crash_id, LONGEST_ID): _text(words, 80) for crash_id, words in (tags or {}).items()},
    }


def _text(value: Any, most: int) -> str:
    return label(value, most, "")


def _time(value: Any) -> int | None:
    return int(value.timestamp() * 1000) if known(value) else None


def _sides(host: Any, sides: Mapping[str, Mapping[Any, Any]]) -> dict[str, str]:
    return {name: _text(sides.get(name, {}).get(host), 60) for name in ("cluster", "model")}


def _crash(row: Any, sides: Mapping[str, Mapping[Any, Any]]) -> dict[str, Any]:
    words = {name: _text(getattr(row, name), most) for name, most in TEXT.items()}
    return {
        "id": words["crash_id"], "host": words["host"], "time": _time(row.time), "kind": words["kind"].replace("_", " "),
        "module": words["guilty_module"], "version": words["driver_version"], "signature": words["signature"], **_sides(row.host, sides),
    }  # fmt: skip


def _span(fleet: Fleet) -> list[int] | None:
    # The first and last moment that any host, boot or crash stands at.
    hosts, boots = fleet.hosts, fleet.uptimes
    times = pd.concat(
        [hosts["first_seen"], hosts["last_seen"], boots["boot"], boots["end"], fleet.crashes["time"]]
    ).dropna()
    if times.empty:
        return None
    first, last = int(times.min().timestamp() * 1000), int(times.max().timestamp() * 1000)
    return [first, max(last, first + 86_400_000)]


def _boots(fleet: Fleet, module: str) -> pd.DataFrame:
    versions = loaded_versions(fleet.uptimes, fleet.drivers, module)
    return fleet.uptimes.reset_index(drop=True).assign(version=versions["version"].to_numpy())


def _lives(fleet: Fleet, boots: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    watched: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    covered: Any = fleet.coverage.dropna(subset=["host", "boot", "start", "end"])
    lived: Any = boots.dropna(subset=["host", "boot", "end"])
    for row in covered.itertuples():
        watched[row.host, row.boot].append((int(row.start.timestamp() * 1000), int(row.end.timestamp() * 1000)))
    lives: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in lived.itertuples():
        start, end = int(row.boot.timestamp() * 1000), int(row.end.timestamp() * 1000)
        lives[_text(row.host, LONGEST_NAME)].append({
            "start": start, "end": end, "version": _text(row.version, 60), "reason": str(row.end_reason),
            "watched": _merged(watched[row.host, row.boot], (end - start) / MOST_STRETCHES),
        })  # fmt: skip
    return dict(lives)


def _merged(stretches: Iterable[tuple[int, int]], least: float) -> list[Sequence[int]]:
    # Gaps too narrow to be seen are not drawn: that bounds the drawing, whatever the evidence.
    out: list[Sequence[int]] = []
    for start, end in sorted(stretches):
        if out and start - out[-1][1] < least:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return out
