"""What each host gave: a crash's dump, logs only, outputs only or nothing, and why. A host that gave nothing is no quiet host."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from psodlib.collector.folder import ascertainment as visits
from psodlib.fleet import Fleet
from psodlib.triage.timeline import DUMP_NAME

__all__ = ["ascertainment"]

GAVE = ("dump", "logs", "outputs", "nothing")


def ascertainment(fleet: Fleet, collection: str | Path | None = None) -> pd.DataFrame:
    """Which hosts gave what, and why not more: by the manifests of a collection, else by the evidence alone.

    Notes
    -----
    By the evidence alone, a host without a dump may have had no crash, or have lost the dump: nothing tells which.
    """
    seen = pd.DataFrame({"host": fleet.hosts["host"].astype("string")})
    dumps = fleet.crashes["source"].astype("string").str.contains(DUMP_NAME, regex=True).fillna(False)
    gave = pd.Series("nothing", index=seen["host"], dtype="string")
    for kind, hosts in (
        ("outputs", fleet.drivers["host"]),
        ("logs", pd.concat([fleet.uptimes["host"], fleet.crashes["host"]])),
        ("dump", fleet.crashes.loc[dumps, "host"]),
    ):
        gave[gave.index.isin(set(hosts.dropna()))] = kind
    words = {"nothing": "no evidence of it; nobody visited it, or the visit failed", "outputs": "no log of it"}
    table = seen.assign(gave=gave.array, known_by="evidence", why=[words.get(kind, "") for kind in gave])
    beside = isinstance(collection, (str, Path)) and Path(collection).is_dir()
    told = visits(str(collection)) if beside else pd.DataFrame()
    if len(told):
        told = told[["host", "gave", "why"]].assign(known_by="manifest")
        known = set(told["host"].map(_key))
        table = pd.concat([told, table[~table["host"].map(_key).isin(known)]])
    table["gave"] = pd.Categorical(table["gave"], GAVE, ordered=True)
    table = table.sort_values(["gave", "host"], ascending=[False, True], ignore_index=True)
    return table[["host", "gave", "known_by", "why"]].astype({"known_by": "string", "why": "string"})


def _key(name: str) -> str:
    # A short name and the full one are one host; an address has no short form.
    low = name.lower()
    return low if low.replace(".", "").isdigit() or ":" in low else low.partition(".")[0]
