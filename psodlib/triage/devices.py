"""Which driver and which firmware each storage and network device of each host runs: the most asked-for table."""

from __future__ import annotations

from typing import Any

import pandas as pd

from psodlib.triage.boots import loaded_versions

_COLUMNS = ("host", "module", "device", "version", "driver_evidence", "firmware", "firmware_read", "firmware_before")


def device_table(fleet: Any) -> pd.DataFrame:
    """The driver and the firmware of each device that the evidence knows, host by host.

    Parameters
    ----------
    fleet : Fleet
        Its tables ``uptimes`` and ``drivers`` are read.

    Returns
    -------
    pandas.DataFrame
        One row a device of a host, by host, module, device: ``host``, ``module``, ``device`` (NA when a firmware was read
        without saying of which), ``version`` (loaded in the host's last boot), ``driver_evidence``, ``firmware`` (as last
        read), ``firmware_read`` (when; NaT when the file bore no time), ``firmware_before`` (what it was before, where a
        reading differs: firmware changes with nobody telling the driver).

    Notes
    -----
    A device that one command lists and a firmware that another reads for the same driver are the same device only where
    the host has just one of each; otherwise they stay two rows, one of them without firmware.
    """
    drivers = fleet.drivers
    known = drivers[(drivers["device"].notna() | drivers["firmware"].notna()) & drivers["module"].notna()]
    rows = [(*key, *_firmware(readings)) for key, readings in known.groupby(["host", "module", "device"], dropna=False)]
    table = pd.DataFrame(rows, columns=["host", "module", "device", "firmware", "firmware_read", "firmware_before"])
    table = _joined(table)
    versions = [_last_versions(fleet, module) for module in table["module"].unique()]
    empty = pd.DataFrame(columns=["host", "module", "version", "driver_evidence"], dtype="string")
    table = table.merge(pd.concat([empty, *versions]), on=["host", "module"], how="left")[list(_COLUMNS)]
    text = dict.fromkeys([name for name in _COLUMNS if name != "firmware_read"], "string")
    table = table.astype(text).astype({"firmware_read": "datetime64[ns, UTC]"})
    return table.sort_values(["host", "module", "device"], ignore_index=True)


def devices_at_crash(crashes: pd.DataFrame, drivers: pd.DataFrame) -> pd.DataFrame:
    """``vib``, ``device`` and ``firmware`` of each crash's guilty module, in the order of ``crashes``: the last reading before it, else the first after it."""
    out = pd.DataFrame(index=crashes.index)
    asked = crashes.reset_index()[["index", "host", "guilty_module", "time"]].dropna(subset=["host", "guilty_module"])
    for name in ("vib", "device", "firmware"):
        readings = drivers.loc[drivers[name].notna(), ["host", "module", "observed_at", name]]
        both = asked.merge(readings, left_on=["host", "guilty_module"], right_on=["host", "module"])
        distance = both["time"] - both["observed_at"]
        both["late"] = ~(distance >= pd.Timedelta(0)).fillna(False)  # a reading without a time counts as late
        both["distance"] = distance.abs()
        nearest = both.sort_values(["late", "distance"], kind="stable").drop_duplicates("index").set_index("index")
        out[name] = nearest[name].reindex(crashes.index).astype("string")
    return out


def _firmware(readings: pd.DataFrame) -> tuple[Any, ...]:
    # A reading without a time comes from a collection that nobody dated: it counts as the newest.
    read = readings[readings["firmware"].notna()].sort_values("observed_at", kind="stable", na_position="last")
    if read.empty:
        return None, None, None
    last = read.iloc[-1]
    before = read.loc[read["firmware"] != last["firmware"], "firmware"]
    return last["firmware"], last["observed_at"], None if before.empty else before.iloc[-1]


def _joined(table: pd.DataFrame) -> pd.DataFrame:
    # One listed device without firmware beside one firmware under another name: the same device.
    columns = [table["host"], table["module"]]
    silent = table["firmware"].isna()
    only = silent.groupby(columns).transform("sum").eq(1) & (~silent).groupby(columns).transform("sum").eq(1)
    names = table[only & silent].set_index(["host", "module"])["device"]
    table = table[~(only & silent)].copy()
    keys = pd.MultiIndex.from_frame(table[["host", "module"]])
    named = names.reindex(keys).set_axis(table.index) if len(names) else pd.Series(pd.NA, index=table.index)
    own = table["device"].where(table["device"].notna())
    both = named.astype("string") + (" (" + own.astype("string") + ")").fillna("")
    table["device"] = both.where(named.notna(), own)
    return table


def _last_versions(fleet: Any, module: str) -> pd.DataFrame:
    loaded = loaded_versions(fleet.uptimes, fleet.drivers, module)
    loaded = loaded.sort_values("boot", kind="stable", na_position="first").drop_duplicates("host", keep="last")
    return loaded[["host", "version", "driver_evidence"]].astype("string").assign(module=module)
