"""Likeness of stacks: a merge is proposed, with its reason, and never made."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from psodlib import schema
from psodlib.errors import InputError
from psodlib.triage.similar import alike, propose_merges, similar_crashes

STACKS = {
    "a1": "hpsa_update hpsa_scan hpsa_kickoff kthread",
    "a2": "hpsa_update hpsa_scan hpsa_ioctl kthread",
    "b1": "hpsa_inline hpsa_update hpsa_scan hpsa_kickoff kthread",
    "c1": "Heap_Free bnx2x_free bnx2x_poll kthread",
    "c2": "Heap_Free e1000_free e1000_poll kthread",
    "none": "",
}


@pytest.fixture
def fleet() -> SimpleNamespace:
    crashes, frames = [], []
    for crash_id, stack in STACKS.items():
        names, own = stack.split(), {"crash_id": crash_id}
        crashes.append({**own, "host": f"host-{crash_id}", "kind": "page_fault", "signature": stack.split(" ")[0]})
        frames += [{**own, "backtrace": 0, "index": i, "function": name} for i, name in enumerate(names)]
    return SimpleNamespace(crashes=schema.build("crashes", crashes), frames=schema.build("frames", frames))


def test_alike():
    rarity = {"rare": 1.0, "common": 0.1}
    assert alike(["rare", "common"], ["rare", "common"], rarity) == 1
    assert alike(["rare"], ["common"], rarity) == alike([], ["rare"], rarity) == alike([], [], rarity) == 0
    assert alike(["rare", "x"], ["rare", "y"], rarity) > alike(["x", "rare"], ["y", "rare"], rarity)
    assert alike(["rare", "x"], ["rare", "y"], rarity) > alike(["common", "x"], ["common", "y"], rarity)
    assert alike(["x", "rare"], ["rare"], rarity) == alike(["rare"], ["x", "rare"], rarity)
    assert alike(["a", "b"], ["b", "a"], {}) < 1  # order counts


def test_the_most_alike_come_first(fleet):
    table = similar_crashes(fleet, "a1")
    assert list(table["crash_id"][:2]) == ["a2", "b1"]
    assert table["proposal"][0] == "same"
    assert "none" not in set(table["crash_id"])
    assert "a1" not in set(table["crash_id"])
    assert "hpsa_scan" in table["shared"][1]
    assert table["likeness"].between(0, 1).all()


def test_merges_are_proposed_and_not_made(fleet):
    before = fleet.crashes.copy()
    table = propose_merges(fleet, least=0.3)
    assert next(zip(table["signature"], table["other"], strict=True)) == ("hpsa_inline", "hpsa_update")
    assert not set(table["signature"]) & {""}
    assert fleet.crashes.equals(before)
    assert propose_merges(fleet, least=1.01).empty


def test_nothing_to_compare(fleet):
    assert similar_crashes(fleet, "none").empty
    empty = SimpleNamespace(crashes=schema.empty("crashes"), frames=schema.empty("frames"))
    assert propose_merges(empty).empty
    with pytest.raises(InputError, match="no crash has the id"):
        similar_crashes(empty, "a1")
