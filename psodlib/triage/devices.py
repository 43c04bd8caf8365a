"""Which driver and which firmware each storage and network device of each host runs: the most asked-for table."""

from __future__ import annotations

from typing import Any

import pandas as pd

from psodlib.triage.boots import last_boots, loaded_in_boots

_KEYS = ["host", "module", "device"]


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
    # A reading without a time comes from a collection that nobody dated: it counts as the newest, and sorts last.
    read = known[known["firmware"].notna()].sort_values("observed_at", kind="stable").astype({"firmware": "string"})
    newest = read.groupby(_KEYS, dropna=False)["firmware"].transform("last")
    last = read.drop_duplicates(_KEYS, keep="last").rename(columns={"observed_at": "firmware_read"})
    before = read[read["firmware"] != newest].drop_duplicates(_KEYS, keep="last")
    before = before.rename(columns={"firmware": "firmware_before"})
    table = known[_KEYS].drop_duplicates().astype("string")
    table = table.merge(last[[*_KEYS, "firmware", "firmware_read"]], on=_KEYS, how="left")
    table = _joined(table.merge(before[[*_KEYS, "firmware_before"]], on=_KEYS, how="left"))
    versions = [pd.DataFrame(columns=["host", "module", "version", "driver_evidence"], dtype="string")]
    for module in table["module"].unique():
        boots = loaded_in_boots(fleet.uptimes, drivers, module)
        versions.append(last_boots(boots, boots["host"].drop_duplicates()).reset_index().assign(module=module))
    table = table.merge(pd.concat(versions).astype({"driver_evidence": "string"}), on=["host", "module"], how="left")
    columns = [*_KEYS, "version", "driver_evidence", "firmware", "firmware_read", "firmware_before"]
    return table[columns].sort_values(_KEYS, ignore_index=True)


def _joined(table: pd.DataFrame) -> pd.DataFrame:
    # One listed device without firmware beside one firmware under another name: the same device.
    host_and_module = [table["host"], table["module"]]
    silent = table["firmware"].isna()
    of_driver = silent.groupby(host_and_module)
    pair = of_driver.transform("sum").eq(1) & of_driver.transform("size").eq(2)
    listed = table["device"].where(silent).groupby(host_and_module).transform("first")
    own = (" (" + table["device"] + ")").fillna("")
    table["device"] = (listed + own).where(pair, table["device"])
    return table[~(pair & silent)]


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
