"""What is looked at: a small value, and the tables made ready for it. No HTML, no widget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd

from psodlib.errors import InputError
from psodlib.fleet import Fleet
from psodlib.triage.boots import loaded_versions
from psodlib.triage.known_issues import Issue
from psodlib.views.charts import version_colours
from psodlib.views.words import known

__all__ = ["ANY", "FILTERS", "NOT_KNOWN", "Atlas", "Selection", "choices", "same", "selected", "tuples"]

FILTERS = {
    "cluster": "Cluster", "model": "Model", "esxi_build": "ESXi build", "driver_version": "Driver version",
    "signature": "Signature", "kind": "Kind",
}  # fmt: skip
ANY = None  # a filter that lets everything through
NOT_KNOWN = ""  # the crashes whose value is unknown; a table's text is never empty
MOST_MONTHS = 240  # of a time slider


@dataclass(frozen=True)
class Selection:
    """What somebody looks at: the filters set, and the crash chosen."""

    # the one value to let through; ``ANY`` (None) lets all through, ``NOT_KNOWN`` ("") those whose value is unknown
    cluster: str | None = ANY
    # the one value to let through; ``ANY`` (None) lets all through, ``NOT_KNOWN`` ("") those whose value is unknown
    model: str | None = ANY
    # the one value to let through; ``ANY`` (None) lets all through, ``NOT_KNOWN`` ("") those whose value is unknown
    esxi_build: str | None = ANY
    # the one value to let through; ``ANY`` (None) lets all through, ``NOT_KNOWN`` ("") those whose value is unknown
    driver_version: str | None = ANY
    # the one value to let through; ``ANY`` (None) lets all through, ``NOT_KNOWN`` ("") those whose value is unknown
    signature: str | None = ANY
    # the one value to let through; ``ANY`` (None) lets all through, ``NOT_KNOWN`` ("") those whose value is unknown
    kind: str | None = ANY
    # months such as "2014-05", both included; crashes without a time pass only while both are None
    first: str | None = None
    # months such as "2014-05", both included; crashes without a time pass only while both are None
    last: str | None = None
    crash_id: str | None = None  # the crash chosen

    @property
    def filters(self) -> dict[str, str]:
        """The filters that are set, by column."""
        return {name: getattr(self, name) for name in FILTERS if getattr(self, name) is not ANY}


@dataclass(frozen=True)
class Atlas:
    """A fleet made ready to be looked through: what each click would otherwise work out again."""

    fleet: Fleet  # the tables
    module: str = "hpsa"  # the driver whose versions colour the timeline
    issues: tuple[Issue, ...] = ()  # known issues, for their titles

    @cached_property
    def crashes(self) -> pd.DataFrame:
        """``fleet.crashes`` with its host's ``cluster`` and ``model``, and ``month``; newest first."""
        hosts = self.fleet.hosts.drop_duplicates("host").set_index("host")
        table = self.fleet.crashes.sort_values(["time", "crash_id"], ascending=[False, True], ignore_index=True)
        for name in ("cluster", "model"):
            table[name] = table["host"].map(hosts[name]) if name in hosts else pd.NA
        table["month"] = table["time"].dt.strftime("%Y-%m")
        # Categories, so that a filter compares small integers.
        return table.assign(**{name: _filled(table[name]) for name in (*FILTERS, "month")})

    @cached_property
    def months(self) -> list[str]:
        """The months from the first crash to the last; of a span that no slider can hold, those with crashes."""
        found = sorted(set(self.crashes["month"].cat.categories) - {NOT_KNOWN})
        if not found:
            return []
        months = [f"{month:%Y-%m}" for month in pd.date_range(found[0], found[-1], freq="MS")]
        return months if len(months) <= MOST_MONTHS else found

    @cached_property
    def boots(self) -> pd.DataFrame:
        """``fleet.uptimes`` with the ``version`` of the driver that each boot had loaded."""
        versions = loaded_versions(self.fleet.uptimes, self.fleet.drivers, self.module)
        return self.fleet.uptimes.reset_index(drop=True).assign(version=versions["version"].to_numpy())

    @cached_property
    def lives(self) -> dict[str, list[tuple[Any, ...]]]:
        """Host -> its boots as plain values: start, end, version, how it ended, stretches covered by evidence.

        Cutting twenty hosts out of a table takes pandas longer than a person should wait.
        """
        watched: dict[tuple[Any, Any], list[tuple[Any, Any]]] = defaultdict(list)
        for host, boot, start, end in tuples(self.fleet.coverage, ("host", "boot", "start", "end")):
            if known(start) and known(end):
                watched[host, boot].append((start, end))
        lives: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for host, boot, end, version, reason in tuples(self.boots, ("host", "boot", "end", "version", "end_reason")):
            lives[str(host)].append((boot, end, version, reason, watched.get((host, boot), [])))
        return dict(lives)

    @cached_property
    def colours(self) -> dict[str, str]:
        """Version -> colour, the charts' own."""
        return version_colours(self.boots["version"].dropna())

    @cached_property
    def span(self) -> tuple[pd.Timestamp, pd.Timestamp] | None:
        """The first and last moment that any host, boot or crash stands at; None where no time is known."""
        hosts, boots = self.fleet.hosts, self.fleet.uptimes
        ends = (hosts["first_seen"], hosts["last_seen"], boots["boot"], boots["end"], self.fleet.crashes["time"])
        times = pd.concat(ends).dropna()
        return None if times.empty else (times.min(), times.max())

    @cached_property
    def _places(self) -> dict[str, dict[str, Any]]:
        keys = {
            "frames": "crash_id",
            "reasons": "crash_id",
            "coverage": "host",
            "uptimes": "host",
            "drivers": "host",
            "crashes": "host",
        }
        return {name: getattr(self.fleet, name).groupby(key).indices for name, key in keys.items()}

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {str(crash_id): row for row, crash_id in enumerate(self.crashes["crash_id"])}

    @cached_property
    def functions(self) -> dict[str, frozenset[str]]:
        """Crash -> the functions of its stack, for telling which stacks are alike."""
        frames = self.fleet.frames.dropna(subset=["function"])
        return {str(key): frozenset(names) for key, names in frames.groupby("crash_id")["function"]}

    def has(self, crash_id: str) -> bool:
        """Whether there is such a crash."""
        return crash_id in self._rows

    def crash(self, crash_id: str) -> Any:
        """One row of ``crashes``; ``InputError`` where there is no such crash."""
        if crash_id not in self._rows:
            raise InputError(f"no crash {crash_id!r} among {len(self.crashes):,}; expected a crash_id of fleet.crashes")
        return self.crashes.iloc[self._rows[crash_id]]

    def part(self, table: str, key: Any) -> pd.DataFrame:
        """The rows of one crash (``frames``) or of one host (the others); none for an unknown key."""
        rows: pd.DataFrame = getattr(self.fleet, table)
        return rows.iloc[self._places[table].get(key, []) if known(key) else []]

    def host(self, name: Any) -> Life:
        """One host's crashes, boots, drivers and coverage."""
        return Life(*(self.part(table, name) for table in ("crashes", "uptimes", "drivers", "coverage")))


class Life(NamedTuple):
    """One host's part of a fleet's tables, as ``incident_timeline`` takes it."""

    crashes: pd.DataFrame  # the host's rows
    uptimes: pd.DataFrame  # the host's rows
    drivers: pd.DataFrame  # the host's rows
    coverage: pd.DataFrame  # the host's rows


def tuples(table: pd.DataFrame, columns: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    """A table's rows as plain values: much faster to walk than rows of pandas."""
    return zip(*(table[name].tolist() for name in columns), strict=True)


def _filled(values: pd.Series[Any]) -> pd.Series[Any]:
    return values.astype("string").fillna(NOT_KNOWN).astype("category")


def _passes(crashes: pd.DataFrame, selection: Selection, but: str = "") -> pd.Series[Any]:
    passes = pd.Series(True, index=crashes.index)
    for name, value in selection.filters.items():
        if name != but:
            passes &= crashes[name] == value
    if but != "month" and (selection.first or selection.last):
        month = crashes["month"].astype(object)
        passes &= (month >= (selection.first or "0")) & (month <= (selection.last or "9999")) & (month != NOT_KNOWN)
    return passes


def selected(crashes: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    """The crashes that every filter lets through."""
    return crashes[_passes(crashes, selection)]


def choices(crashes: pd.DataFrame, selection: Selection, column: str) -> dict[str, int]:
    """What one filter offers, each with its number of crashes, once all *other* filters are applied."""
    counts = crashes.loc[_passes(crashes, selection, but=column), column].value_counts()
    found = {str(value): int(number) for value, number in counts.items() if number}
    mine = selection.filters.get(column)
    if mine is not None:
        found.setdefault(mine, 0)
    by_name = column == "month"
    return dict(sorted(found.items(), key=lambda item: (0 if by_name else -item[1], item[0])))


def same(one: Any, other: Any) -> bool:
    """Whether two cells are known and alike."""
    return known(one) and known(other) and str(one) == str(other)
