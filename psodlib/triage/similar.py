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
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import combinations
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
        return {
            name: 0.0 if name == UNREADABLE else math.log(1 + n / len(found)) / math.log(1 + n)
            for name, found in self._with.items()
        }

    def like(self, stack: Stack, count: int) -> dict[Stack, float]:
        """Stacks that are like one, and how much; among them the most alike that so many crashes have."""
        if (stack, count) not in self._found:
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
            self._found[stack, count] = scores
        return self._found[stack, count]

    @cached_property
    def _found(self) -> dict[tuple[Stack, int], dict[Stack, float]]:
        return {}

    def _most(self, one: Stack, other: Stack) -> float:
        # How alike two stacks can be at most: what only one of them has is left out at its weight.
        both = set(one) & set(other)
        weights = [
            (name in both, self.rarity.get(name, 1.0) / (1 + i))
            for stack in (one, other)
            for i, name in enumerate(stack)
        ]
        whole = sum(weight for _, weight in weights)
        return sum(weight for shared, weight in weights if shared) / whole if whole else 0.0


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
    stacks = stacks if isinstance(stacks, Stacks) else Stacks(stacks_of(fleet) if stacks is None else stacks)
    mine, rarity = stacks.get(crash_id, ()), stacks.rarity
    found = [
        (score, other)
        for stack, score in stacks.like(mine, count + 1).items()
        for other in stacks.crashes[stack]
        if other != crash_id
    ]
    signature = crashes.at[crash_id, "signature"]
    rows = []
    for score, other in sorted(found, key=lambda pair: (-pair[0], pair[1]))[:count]:
        row = crashes.loc[other]
        proposal = "same" if row["signature"] == signature else "merge" if score >= LEAST else None
        rows.append(
            (other, row["host"], row["time"], row["signature"], score, _shared(mine, stacks[other], rarity), proposal)
        )
    columns = ["crash_id", "host", "time", "signature", "likeness", "shared", "proposal"]
    text = dict.fromkeys(["crash_id", "host", "signature", "shared", "proposal"], "string")
    table = pd.DataFrame(rows, columns=columns).astype({**text, "likeness": "float64"})
    return table.assign(time=pd.to_datetime(table["time"], utc=True).astype("datetime64[ns, UTC]"))


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
    rarity = stacks.rarity
    signatures = dict(zip(fleet.crashes["crash_id"], fleet.crashes["signature"], strict=True))
    counts = Counter(fleet.crashes["signature"].dropna())
    by_signature: dict[str, Counter[Stack]] = defaultdict(Counter)
    for crash_id, stack in stacks.items():
        if isinstance(signatures[crash_id], str):
            by_signature[signatures[crash_id]][stack] += 1
    usual = {name: [stack for stack, _ in found.most_common(5)] for name, found in by_signature.items()}
    rows = []
    for one, other in _candidates(usual):
        pairs = [(alike(a, b, rarity), _shared(a, b, rarity)) for a in usual[one] for b in usual[other]]
        score, shared = max(pairs)
        if score >= least:
            rows.append((one, other, counts[one], counts[other], score, shared))
    columns = ["signature", "other", "crashes", "other_crashes", "likeness", "shared"]
    text = dict.fromkeys(["signature", "other", "shared"], "string")
    table = pd.DataFrame(rows, columns=columns)
    table = table.astype({**text, "crashes": "Int64", "other_crashes": "Int64", "likeness": "float64"})
    return table.sort_values(["likeness", "signature", "other"], ascending=[False, True, True], ignore_index=True)


def alike(one: Sequence[str], other: Sequence[str], rarity: Mapping[str, float]) -> float:
    """How alike two stacks are.

    Notes
    -----
    Weight of frame *i*: rarity / (1 + i). Leaving a frame out costs its weight, a match at different depths the
    difference of the weights; likeness = 1 - cost / (all weights). Time grows with the product of the lengths.
    """
    mine, its = ([rarity.get(name, 1.0) / (1 + i) for i, name in enumerate(stack)] for stack in (one, other))
    whole = sum(mine) + sum(its)
    if not whole or set(one).isdisjoint(other):
        return 0.0
    above = [0.0]
    for weight in its:
        above.append(above[-1] + weight)
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
    columns = ["crash_id", "backtrace", "pcpu", "index", "function", "module", "offset"]
    frames: dict[str, list[Frame]] = defaultdict(list)
    for row in fleet.frames[columns].astype(object).itertuples(index=False):
        known: dict[str, Any] = {name: value for name, value in zip(columns, row, strict=True) if not pd.isna(value)}
        frames[known.get("crash_id", "")].append(Frame(**known))
    stacks = Stacks()
    heads = fleet.crashes[["crash_id", "kind", "message"]].astype(object).itertuples(index=False)
    for crash_id, kind, message in heads:
        words = {name: value for name, value in (("kind", kind), ("message", message)) if not pd.isna(value)}
        names = telling_names(Crash(frames=tuple(frames.get(crash_id, ())), **words))
        if any(name != UNREADABLE for name in names):
            stacks[crash_id] = names
    return stacks


def _shared(one: Stack, other: Stack, rarity: Mapping[str, float]) -> str:
    both = sorted(set(one) & set(other), key=lambda name: (-rarity.get(name, 1.0) / (1 + one.index(name)), name))
    return ";".join(both[:SHOWN])


def _candidates(usual: Mapping[str, Sequence[Stack]]) -> list[tuple[str, str]]:
    users: dict[str, set[str]] = defaultdict(set)
    for signature, stacks in usual.items():
        for name in {name for stack in stacks for name in stack}:
            users[name].add(signature)
    rare = [found for name, found in users.items() if name != UNREADABLE and len(found) <= max(2, COMMON * len(usual))]
    return sorted({pair for found in rare for pair in combinations(sorted(found), 2)})
