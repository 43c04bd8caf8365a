"""What an edit of the rules did to signatures: old -> new, with how many crashes went which way."""

from __future__ import annotations

import pandas as pd

__all__ = ["signature_changes"]


def signature_changes(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Signatures that moved between two readings of the same crashes.

    Parameters
    ----------
    old, new : pandas.DataFrame
        Each with ``crash_id`` and ``signature``, as the ``crashes`` of a fleet. Crashes that only one of them has are
        left out: they did not move.

    Returns
    -------
    pandas.DataFrame
        One row a pair, most crashes first: ``signature`` (old), ``new_signature``, ``crashes`` (that moved so),
        ``what``: ``renamed`` (all of the old, and nothing else, is the new), ``merged`` (the new holds others too),
        ``split`` (the old went several ways, or part of it stayed).
    """
    both = old[["crash_id", "signature"]].merge(new[["crash_id", "signature"]], on="crash_id", suffixes=("", "_new"))
    both = both.rename(columns={"signature_new": "new_signature"}).fillna({"signature": "", "new_signature": ""})
    pairs = both.groupby(["signature", "new_signature"], as_index=False).size()
    ways = pairs.groupby("signature")["size"].transform("size")
    sources = pairs.groupby("new_signature")["size"].transform("size")
    what = pd.Series("renamed", index=pairs.index, dtype="string").mask(sources > 1, "merged").mask(ways > 1, "split")
    moved = pairs.assign(what=what)[pairs["signature"] != pairs["new_signature"]]
    moved = moved.rename(columns={"size": "crashes"})
    moved = moved.astype({"signature": "string", "new_signature": "string", "crashes": "Int64"})
    return moved.sort_values(
        ["crashes", "signature", "new_signature"], ascending=[False, True, True], ignore_index=True
    )
