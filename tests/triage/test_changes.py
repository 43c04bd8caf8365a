"""An edit of the rules that moves a signature is seen, and the stored list holds today's."""

from __future__ import annotations

import importlib.util

import pandas as pd
from conftest import ROOT

spec = importlib.util.spec_from_file_location("triage_signatures", ROOT / "benchmarks" / "triage_signatures.py")
assert spec and spec.loader
listing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(listing)


signature_changes = listing.signature_changes


def table(**signatures: str | None) -> pd.DataFrame:
    return pd.DataFrame({"crash_id": list(signatures), "signature": list(signatures.values())}, dtype="string")


def test_renamed_merged_and_split():
    old = table(a="x", b="x", c="y", d="z", e="z", f="w", gone="v")
    new = table(a="X", b="X", c="W", d="z", e="Z", f="W", fresh="u")
    moved = signature_changes(old, new)
    rows = list(moved.itertuples(index=False, name=None))
    assert rows == [("x", "X", 2, "renamed"), ("w", "W", 1, "merged"), ("y", "W", 1, "merged"), ("z", "Z", 1, "split")]
    assert signature_changes(old, old).empty
    assert len(signature_changes(table(a=None), table(a="x"))) == 1


def test_no_signature_moved_since_the_list_was_written(demo):
    moved = signature_changes(listing.stored(), listing.signed({"demo-fleet": demo}))
    assert moved.empty, f"run `make signatures` and name the change in CHANGELOG:\n{moved.to_string()}"


def test_the_list_names_the_rules_it_was_written_by():
    assert f"version {listing.SIGNATURE_VERSION}." in listing.STORED.read_text().split("\n")[0]
    assert len(listing.stored()) > 50
