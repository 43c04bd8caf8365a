"""What an edit of the rules did to signatures: old -> new, with how many crashes went which way."""

from __future__ import annotations

import pandas as pd

__all__ = ["signature_changes"]


def signature_changes(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Signatures that moved between two readings of the same crashes."""
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
