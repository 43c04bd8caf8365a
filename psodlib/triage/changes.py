"""What changed between two loads of a fleet."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

SILENT = pd.Timedelta(days=2)  # behind the fleet's newest sign of life

ByName = Mapping[str, pd.DataFrame]


def fleet_changes(
    old: ByName, new: ByName, advice: tuple[pd.DataFrame, pd.DataFrame] | None = None
) -> dict[str, pd.DataFrame]:
    """What is new between two loads of one fleet, from their tables by name; ``advice`` are the two decisions' ``options``.

    Notes
    -----
    Tables by name: ``crashes`` that were not known; ``signatures`` seen for the first time (``signature``, ``crashes``,
    ``hosts``, ``first``); ``versions`` that hosts now run in place of others (``host``, ``module``, ``from_version``,
    ``to_version``, ``since``); hosts that were alive with the fleet and are ``silent`` now, more than two days behind it
    (``host``, ``last_seen``, ``behind``); ``advice`` that is another than before (``version``, ``before``, ``now``).
    """
    crashes = new["crashes"][~new["crashes"]["crash_id"].isin(old["crashes"]["crash_id"])].reset_index(drop=True)
    fresh = crashes[crashes["signature"].notna() & ~crashes["signature"].isin(old["crashes"]["signature"])]
    signatures = fresh.groupby("signature", as_index=False).agg(
        crashes=("crash_id", "size"), hosts=("host", "nunique"), first=("time", "min")
    )
    was_alive = old["hosts"]["last_seen"] >= old["hosts"]["last_seen"].max() - SILENT
    behind = new["hosts"]["last_seen"].max() - new["hosts"]["last_seen"]
    silent = (behind > SILENT) & new["hosts"]["host"].isin(old["hosts"].loc[was_alive, "host"])
    found = {
        "crashes": crashes, "signatures": signatures, "versions": _moved_versions(old["drivers"], new["drivers"]),
        "silent": new["hosts"].assign(behind=behind)[silent][["host", "last_seen", "behind"]].reset_index(drop=True),
    }  # fmt: skip
    if advice is not None:
        both = advice[0][["version", "advice"]].merge(advice[1][["version", "advice"]], on="version", how="outer")
        both = both.set_axis(["version", "before", "now"], axis=1).astype("string")
        found["advice"] = both[both["before"].fillna("") != both["now"].fillna("")].reset_index(drop=True)
    return found


def _moved_versions(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    both = _running(old).merge(_running(new), on=["host", "module"], suffixes=("_old", ""))
    moved = both[both["version_old"] != both["version"]].sort_values(["host", "module"], ignore_index=True)
    moved = moved.rename(columns={"version_old": "from_version", "version": "to_version", "observed_at": "since"})
    return moved[["host", "module", "from_version", "to_version", "since"]]


def _running(drivers: pd.DataFrame) -> pd.DataFrame:
    # The last version seen loaded, of each host's modules.
    loaded = drivers.loc[drivers["state"] == "loaded", ["host", "module", "version", "observed_at"]]
    known = loaded.dropna(subset=["version", "observed_at"]).sort_values("observed_at", kind="stable")
    return known.drop_duplicates(["host", "module"], keep="last")


# Each change with the column that names it, and its words.
_WORDS = (
    ("crashes", "host", "1 new crash", "{} new crashes"), ("signatures", "signature", "1 new signature", "{} new signatures"),
    ("versions", "host", "1 driver in another version", "{} drivers in another version"),
    ("silent", "host", "1 host fell silent", "{} hosts fell silent"),
    ("advice", "version", "other advice for 1 version", "other advice for {} versions"),
)  # fmt: skip


def sentences(changes: ByName) -> list[str]:
    """The changes in a few words each; none where nothing changed."""
    parts = []
    for name, column, one, many in _WORDS:
        if name in changes and (count := len(changes[name])):
            names = changes[name][column].dropna().astype(str).unique()
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"{one if count == 1 else many.format(count)} ({', '.join(names[:3])}{more})")
    return parts
