"""A store -> tables: all of them, those of some hosts, those since a day, or one bucket of hosts after another."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import msgspec
import pandas as pd
import pyarrow as pa

from psodlib import schema
from psodlib.errors import InputError
from psodlib.store.folder import Manifest, is_store, read_manifest
from psodlib.store.partitions import bucket_of, choose, read_parts
from psodlib.store.readings import read_entries

_WHOLE = ("uptimes", "drivers", "hosts")  # a version is carried from boot to boot, so these know no `since`


def open_store(
    folder: Path, *, hosts: Collection[str] | None = None, since: str | datetime | None = None
) -> tuple[dict[str, pd.DataFrame], bool]:
    """The tables of a store, as ``Fleet.open`` explains."""
    if isinstance(hosts, str):
        hosts = [hosts]
    moment = _moment(since)
    manifest = read_manifest(folder)
    try:
        tables = tables_of(folder, manifest, hosts=hosts, since=moment)
    except InputError:
        again = read_manifest(folder)
        if again.generation == manifest.generation:
            raise
        manifest = again  # two loads were committed while we read: what we had begun with was swept
        tables = tables_of(folder, manifest, hosts=hosts, since=moment)
    if hosts is not None and (strange := sorted(set(hosts) - set(tables["hosts"]["host"]))):
        raise InputError(f"{folder}: no host named {', '.join(strange[:3])}; names are as in the table hosts")
    return tables, manifest.simulated


def open_before(folder: Path) -> tuple[dict[str, pd.DataFrame], bool] | None:
    """The tables before the last load that changed any; None after the first."""
    if not is_store(folder):
        raise InputError(f"{folder}: no store; expected a folder of load(store=...)")
    manifest = read_manifest(folder)
    if not manifest.earlier:
        return None
    return tables_of(folder, msgspec.structs.replace(manifest, tables=manifest.earlier)), manifest.simulated


def _moment(since: str | datetime | None) -> pd.Timestamp | None:
    if since is None:
        return None
    try:
        moment = pd.Timestamp(since)
        return moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
    except (ValueError, TypeError) as error:
        raise InputError(f"since is {since!r}; expected a time such as 2014-05-31") from error


def tables_of(
    folder: Path, manifest: Manifest, *, hosts: Collection[str] | None = None, since: pd.Timestamp | None = None,
    fresh: Mapping[str, pa.Table] | None = None,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """The tables of one generation, or what of them these hosts and this time need."""
    buckets = None if hosts is None else {bucket_of(host, manifest.buckets) for host in hosts}
    tables = {}
    for name in [*schema.TABLES, *schema.AUXILIARY]:
        late = None if name in _WHOLE else since
        parts = list(choose(manifest.tables.get(name, ()), buckets, late))
        tables[name] = read_parts(folder, name, parts, hosts=hosts, since=late, fresh=fresh)
    return tables


def each_bucket(folder: Path) -> Iterator[tuple[dict[str, pd.DataFrame], bool]]:
    """The tables of a store, one bucket of hosts after another; together they are the fleet's."""
    if not is_store(folder):
        raise InputError(f"{folder}: no store; expected a folder of load(store=...)")
    manifest = read_manifest(folder)
    names = [*schema.TABLES, *schema.AUXILIARY]
    whole = {name: read_parts(folder, name, manifest.tables.get(name, ())) for name in ("hosts", "problems")}
    places = {
        name: table["host"].map(lambda host: bucket_of(host, manifest.buckets), na_action="ignore")
        for name, table in whole.items()
    }
    for bucket in range(manifest.buckets):
        tables = {name: table[places[name] == bucket].reset_index(drop=True) for name, table in whole.items()}
        for name in names:
            if name not in whole:
                parts = list(choose(manifest.tables.get(name, ()), {bucket}, None))
                tables[name] = read_parts(folder, name, parts)
        yield tables, manifest.simulated


def roots_of(folder: Path) -> list[str]:
    """The sources of a store that are still there: where the log around a crash is read."""
    roots = {entry.root for entry in read_entries(folder, read_manifest(folder).ledger) if not entry.gone}
    return sorted(root for root in roots if "://" in root or os.path.lexists(root))
