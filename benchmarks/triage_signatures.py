"""Which signatures an edit of the rules moves, old -> new.

    python benchmarks/triage_signatures.py             what moved against tests/golden/signatures.txt; exit code 1 if any
    python benchmarks/triage_signatures.py --renew     the same, and write the list anew
    python benchmarks/triage_signatures.py OLD NEW     two folders that Fleet.save wrote, or two crashes.parquet

What moves belongs into CHANGELOG, "Changed results": an edit re-buckets everybody's history.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

import psodlib as psod
from psodlib.triage.signature import SIGNATURE_VERSION

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "tests" / "golden" / "signatures.txt"
LOGS = ROOT / "tests" / "golden" / "vmkernel"
FLEETS = ("incident-2014-05-31", "demo-fleet")
HEAD = """\
# Signatures of the golden texts and of the fleets in data/, by rules of version {version}. Written by
# `benchmarks/triage_signatures.py --renew`; a test fails when an edit of the rules moves one and this file is not renewed.
"""


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


def signed(loaded: Mapping[str, psod.Fleet] | None = None) -> pd.DataFrame:
    """``crash_id``, ``signature`` of every crash that comes with the project; of its fleets some may be ``loaded``."""
    rows = []
    for path in sorted(LOGS.glob("*.log")):
        found = psod.parse_crashes(path.read_bytes())
        rows += [(f"{path.stem}#{number}", crash.signature) for number, crash in enumerate(found)]
    for name in FLEETS:
        fleet = (loaded or {}).get(name) or psod.load(ROOT / "data" / name, jobs=1)
        rows += [(f"{name}/{row.crash_id}", row.signature) for row in fleet.crashes.itertuples()]
    return pd.DataFrame(rows, columns=["crash_id", "signature"], dtype="string").sort_values("crash_id")


def stored() -> pd.DataFrame:
    """The same as last written."""
    lines = STORED.read_text(encoding="utf-8").split("\n") if STORED.exists() else []
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return pd.DataFrame(rows, columns=["crash_id", "signature"], dtype="string")


def renew(table: pd.DataFrame) -> None:
    """Write the list."""
    lines = [f"{crash_id}\t{signature}\n" for crash_id, signature in table.itertuples(index=False)]
    STORED.write_text(HEAD.format(version=SIGNATURE_VERSION) + "".join(lines), encoding="utf-8")


def crashes_in(path: Path) -> pd.DataFrame:
    """The crashes of a saved fleet."""
    return pd.read_parquet(path / "crashes.parquet" if path.is_dir() else path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fleets", nargs="*", type=Path, metavar="OLD NEW")
    parser.add_argument("--renew", action="store_true")
    options = parser.parse_args()
    if len(options.fleets) not in (0, 2):
        parser.error("expected two saved fleets, old and new, or none")
    old, new = map(crashes_in, options.fleets) if options.fleets else (stored(), signed())
    moved = signature_changes(old, new)
    print(
        f"{len(new):,} crashes, {moved['crashes'].sum():,} with another signature; rules of version {SIGNATURE_VERSION}"
    )
    if len(moved):
        print("\n| crashes | old | new | what |\n" + "| --- " * 4 + "|")
        for row in moved.itertuples():
            print(f"| {row.crashes} | {row.signature} | {row.new_signature} | {row.what} |")
    if options.renew:
        renew(new)
    sys.exit(1 if len(moved) and not options.renew and not options.fleets else 0)


if __name__ == "__main__":
    main()
