"""Which crashes look alike though their signatures differ: proposals for a person, never a merge.

Two stacks are aligned frame by frame, as texts are by an edit distance. A frame weighs by where it stands (the
innermost most) and by how rare its function is in this fleet, so that a shared `Heap_Free` says little and a shared
`hpsa_scan_start` much. After TraceSim (Vasiliev, Koznov, Chernishev et al. 2020, arXiv 2009.12590), with weights that
need no training.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, combinations
from typing import Any

import pandas as pd

from psodlib.errors import InputError
from psodlib.records import Crash, Frame
from psodlib.schema import Tables
from psodlib.triage.signature import UNREADABLE, telling_names

LEAST = 0.6  # likeness from which a merge is proposed
SHOWN = 3  # shared functions that are named
COMMON = 0.5  # a function on more than this share of all stacks brings no two signatures together

Stack = tuple[str, ...]


class Stacks(dict[str, Stack]):
    """The stacks of a fleet's crashes; what does not change from one question to the next is computed once."""

    @cached_property
    def crashes(self) -> dict[Stack, list[str]]:
        """The crashes of each stack."""
        found: dict[Stack, list[str]] = defaultdict(list)
        for crash_id, stack in self.items():
            found[stack].append(crash_id)
        return found

    @cached_property
    def _with(self) -> dict[str, list[Stack]]:
        found: dict[str, list[Stack]] = defaultdict(list)
        for stack in self.crashes:
            for name in set(stack):
                found[name].append(stack)
        return found

    @cached_property
    def rarity(self) -> dict[str, float]:
        """How rare each function is over different stacks: a boot loop of one host makes nothing common."""
        n = len(self.crashes)
        rarity = {name: math.log(1 + n / len(found)) / math.log(1 + n) for name, found in self._with.items()}
        return rarity | {UNREADABLE: 0.0}

    @cached_property
    def _asked(self) -> dict[tuple[Stack, int], dict[Stack, float]]:
        return {}

    def like(self, stack: Stack, count: int) -> dict[Stack, float]:
        """Stacks that are like one, and how much; among them the most alike that so many crashes have."""
        if (stack, count) not in self._asked:
            near = {other for name in set(stack) for other in self._with.get(name, ())}
            scores, best = {}, [0.0] * count  # of the crashes so far, as a heap
            for most, other in sorted(((self._most(stack, other), other) for other in near), reverse=True):
                if best and best[0] > most + 1e-9:
                    break  # no other can be more alike than what is found
                score = alike(stack, other, self.rarity)
                if score > 0:
                    scores[other] = score
                for _ in self.crashes[other] if best else ():
                    heapq.heappushpop(best, score)
            self._asked[stack, count] = scores
        return self._asked[stack, count]

    def _most(self, one: Stack, other: Stack) -> float:
        # How alike two stacks can be at most: what only one of them has is left out at its weight.
        weights = [*_weights(one, self.rarity), *_weights(other, self.rarity)]
        both, whole = set(one) & set(other), sum(weights)
        return sum(w for w, name in zip(weights, one + other, strict=True) if name in both) / whole if whole else 0.0

    def shared(self, one: Stack, other: Stack) -> str:
        """The weightiest functions that both stacks have."""
        weights = dict(zip(reversed(one), reversed(_weights(one, self.rarity)), strict=True))
        return ";".join(sorted(set(one) & set(other), key=lambda name: (-weights[name], name))[:SHOWN])


def similar_crashes(
    fleet: Tables, crash_id: str, count: int = 20, stacks: Mapping[str, Stack] | None = None
) -> pd.DataFrame:
    """The crashes whose stack is most like that of one crash.

    Parameters
    ----------
    fleet : Fleet
        Its tables ``crashes`` and ``frames`` are read.
    crash_id : str
        The crash.
    count : int
        How many to give.
    stacks : mapping, optional
        What ``stacks_of`` gave of this fleet, for whoever asks of many crashes.

    Returns
    -------
    pandas.DataFrame
        The most alike first: ``crash_id``, ``host``, ``time``, ``signature``, ``likeness`` (0 to 1), ``shared`` (the
        weightiest functions that both have, joined by `;`), ``proposal`` (``same`` signature, ``merge`` for another one
        that is at least 0.6 alike, NA otherwise). Crashes without a readable frame are not in it.

    Raises
    ------
    InputError
        No crash has that id.
    """
    crashes = fleet.crashes.set_index("crash_id")
    if crash_id not in crashes.index:
        raise InputError(f"no crash has the id {crash_id!r}; expected one of crashes.crash_id")
    stacks = stacks if isinstance(stacks, Stacks) else stacks_of(fleet)
    mine = stacks.get(crash_id, ())
    near = stacks.like(mine, count + 1).items()
    found = ((-score, other) for stack, score in near for other in stacks.crashes[stack] if other != crash_id)
    nearest = sorted(found)[:count]
    ids = [other for _, other in nearest]
    table = crashes.loc[ids, ["host", "time", "signature"]].reset_index().astype({"crash_id": "string"})
    table["likeness"] = pd.array([-minus for minus, _ in nearest], dtype="float64")
    table["shared"] = pd.array([stacks.shared(mine, stacks[other]) for other in ids], dtype="string")
    same = table["signature"] == crashes.at[crash_id, "signature"]
    merge = table["likeness"].ge(LEAST).map({True: "merge"}).astype("string")
    table["proposal"] = merge.mask(same.fillna(False), "same")
    return table


def propose_merges(fleet: Tables, least: float = LEAST) -> pd.DataFrame:
    """Pairs of signatures that may be one cause: for a person to look at.

    Parameters
    ----------
    fleet : Fleet
        Its tables ``crashes`` and ``frames`` are read.
    least : float
        Likeness from which a pair is given.

    Returns
    -------
    pandas.DataFrame
        The most alike first: ``signature``, ``other``, ``crashes``, ``other_crashes``, ``likeness`` (of the two most
        alike among each one's five commonest stacks), ``shared``. Only pairs that share a function which fewer than
        half of all stacks have are compared.
    """
    stacks = stacks_of(fleet)
    crashes = fleet.crashes[fleet.crashes["signature"].notna()]
    by_signature: dict[str, Counter[Stack]] = defaultdict(Counter)
    for crash_id, signature in zip(crashes["crash_id"], crashes["signature"], strict=True):
        if crash_id in stacks:
            by_signature[signature][stacks[crash_id]] += 1
    usual = {name: [stack for stack, _ in found.most_common(5)] for name, found in by_signature.items()}
    users: dict[str, set[str]] = defaultdict(set)
    for signature, common in usual.items():
        for name in {name for stack in common for name in stack}:
            users[name].add(signature)
    rare = [found for name, found in users.items() if name != UNREADABLE and len(found) <= max(2, COMMON * len(usual))]
    counts = Counter(crashes["signature"])
    rows = []
    for one, other in sorted({pair for found in rare for pair in combinations(sorted(found), 2)}):
        pairs = [(alike(a, b, stacks.rarity), stacks.shared(a, b)) for a in usual[one] for b in usual[other]]
        if (best := max(pairs))[0] >= least:
            rows.append((one, other, counts[one], counts[other], *best))
    kinds = {
        "signature": "string", "other": "string", "crashes": "Int64", "other_crashes": "Int64", "likeness": "float64",
        "shared": "string",
    }  # fmt: skip
    table = pd.DataFrame(rows, columns=list(kinds)).astype(kinds)
    return table.sort_values(["likeness", "signature", "other"], ascending=[False, True, True], ignore_index=True)


def alike(one: Sequence[str], other: Sequence[str], rarity: Mapping[str, float]) -> float:
    """How alike two stacks are.

    Notes
    -----
    Weight of frame *i*: rarity / (1 + i). Leaving a frame out costs its weight, a match at different depths the
    difference of the weights; likeness = 1 - cost / (all weights). Time grows with the product of the lengths.
    """
    mine, its = _weights(one, rarity), _weights(other, rarity)
    whole = sum(mine) + sum(its)
    if not whole or set(one).isdisjoint(other):
        return 0.0
    above = [*accumulate(its, initial=0.0)]
    for name, weight in zip(one, mine, strict=True):
        row = [above[0] + weight]
        for at, (other_name, other_weight) in enumerate(zip(other, its, strict=True)):
            cost = min(above[at + 1] + weight, row[at] + other_weight)
            if name == other_name:
                cost = min(cost, above[at] + abs(weight - other_weight))
            row.append(cost)
        above = row
    return max(0.0, 1 - above[-1] / whole)


def stacks_of(fleet: Tables) -> Stacks:
    """The functions of each crash that can tell, as its signature saw them; crashes without any are left out."""
    frames: dict[Any, list[Frame]] = defaultdict(list)
    for known in _known(fleet.frames, ["crash_id", "backtrace", "pcpu", "index", "function", "module", "offset"]):
        frames[known.get("crash_id")].append(Frame(**known))
    stacks = Stacks()
    for known in _known(fleet.crashes, ["crash_id", "kind", "message"]):
        names = telling_names(Crash(**known, frames=tuple(frames[known["crash_id"]])))
        if any(name != UNREADABLE for name in names):
            stacks[known["crash_id"]] = names
    return stacks


def _known(table: pd.DataFrame, columns: list[str]) -> Iterator[dict[str, Any]]:
    # Row by row, what is known.
    for row in table[columns].astype(object).itertuples(index=False):
        yield {name: value for name, value in zip(columns, row, strict=True) if not pd.isna(value)}


def _weights(stack: Sequence[str], rarity: Mapping[str, float]) -> list[float]:
    return [rarity.get(name, 1.0) / (1 + depth) for depth, name in enumerate(stack)]
