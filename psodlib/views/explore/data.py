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

DOTS = PALETTE[3:9]  # of the modules with most crashes; versions begin at the other end
MOST_STRETCHES = 1_000  # of a boot's watched time; gaps narrower than this share of the whole are not to be seen


def explorer_data(fleet: Fleet, module: str, tags: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Everything that filters, timeline, list and host boxes are made of; unknown text is ""."""
    hosts = fleet.hosts.drop_duplicates("host")
    sides = {name: dict(zip(hosts["host"], hosts[name], strict=True)) for name in ("cluster", "model") if name in hosts}
    loaded = loaded_versions(fleet.uptimes, fleet.drivers, module)["version"].to_numpy()
    boots = fleet.uptimes.reset_index(drop=True).assign(version=loaded)
    crashes = fleet.crashes.sort_values(["time", "crash_id"], ascending=[False, True])
    names = crashes["guilty_module"].value_counts().index
    colours = version_colours(boots["version"].dropna())
    return {
        "module": label(module),
        "span": _span(fleet),
        "crashes": [_crash(row, sides) for row in crashes.itertuples()],
        "hosts": [{"host": _text(host, LONGEST_NAME), **_sides(host, sides)} for host in hosts["host"].dropna()],
        "boots": _lives(fleet, boots),
        "versions": [[_text(name), colour] for name, colour in colours.items()],
        "modules": [[_text(name), colour] for name, colour in zip(names, DOTS, strict=False)],
        "tags": {_text(crash_id, LONGEST_ID): _text(words, 80) for crash_id, words in (tags or {}).items()},
    }


def _text(value: Any, most: int = 60) -> str:
    return label(value, most, "")


def _ms(time: pd.Timestamp) -> int:
    return int(time.timestamp() * 1000)


def _sides(host: Any, sides: Mapping[str, Mapping[Any, Any]]) -> dict[str, str]:
    return {name: _text(sides.get(name, {}).get(host)) for name in ("cluster", "model")}


def _crash(row: Any, sides: Mapping[str, Mapping[Any, Any]]) -> dict[str, Any]:
    return {
        "id": _text(row.crash_id, LONGEST_ID), "host": _text(row.host, LONGEST_NAME), "time": _ms(row.time) if known(row.time) else None,
        "kind": _text(row.kind, 40).replace("_", " "), "module": _text(row.guilty_module), "version": _text(row.driver_version),
        "signature": _text(row.signature, 160), **_sides(row.host, sides),
    }  # fmt: skip


def _span(fleet: Fleet) -> list[int] | None:
    # The first and last moment that any host, boot or crash stands at.
    hosts, boots = fleet.hosts, fleet.uptimes
    seen = (hosts["first_seen"], hosts["last_seen"], boots["boot"], boots["end"], fleet.crashes["time"])
    times = pd.concat(seen).dropna()
    if times.empty:
        return None
    first, last = _ms(times.min()), _ms(times.max())
    return [first, max(last, first + 86_400_000)]


def _lives(fleet: Fleet, boots: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    watched: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    covered: Any = fleet.coverage.dropna(subset=["host", "boot", "start", "end"])
    lived: Any = boots.dropna(subset=["host", "boot", "end"])
    for row in covered.itertuples():
        watched[row.host, row.boot].append((_ms(row.start), _ms(row.end)))
    lives: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in lived.itertuples():
        start, end = _ms(row.boot), _ms(row.end)
        lives[_text(row.host, LONGEST_NAME)].append({
            "start": start, "end": end, "version": _text(row.version), "reason": str(row.end_reason),
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
