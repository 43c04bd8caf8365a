"""What the watch over a roll-out does on simulated ones, beside three other ways: all at once, waves unwatched, Kayenta's rule.

    python benchmarks/rollout.py [roll-outs a row, default 500] [hosts ...]

A year of a fleet whose hosts differ (models with hazards 1, 2 and 0.5, gamma frailty of variance 0.5), 0.25 driver crashes a
host-year on the old version, 85 % of them known to be the driver's. A crash on the new version sends the host back with
probability 0.7. The waves are those of ``plan_rollout``; every week ``judge`` is asked, a hold puts off all later waves by
that week, a stop sends everybody back for the rest of the year. Kayenta's rule: a two-sided Mann-Whitney test of the daily
crash rates of the moved hosts against the others', 98 %, asked as often. Signatures are not simulated, so the watch has less
than in life.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from psodlib.risk.canary import Weeks
from psodlib.risk.rollout import SHARES, WATCHED_WEEKS, draw_waves
from psodlib.risk.rollout_watch import judge

RATIOS = (0.5, 1.0, 2.0, 3.0, 10.0)
HOSTS = (60, 200, 1000)
WEEKS = 52
RATE = 0.25 * 7 / 365.25  # crashes a host-week
HAZARDS = np.array([1.0, 2.0, 0.5])
START = pd.Timestamp("2026-01-05", tz="UTC")


class Told(NamedTuple):
    stopped: float  # week, NaN if never
    moved: float  # share of hosts moved by the stop
    crashes: int  # of the driver in the year


class Counts:
    """What a watcher has counted so far."""

    def __init__(self, models: np.ndarray, past: np.ndarray, rng: np.random.Generator) -> None:
        self.models, self.rng = models, rng
        self.arms = np.zeros((4, WEEKS, 3))
        self.fresh = np.ones(len(models), dtype=bool)  # no crash since the start
        self.days = np.zeros(len(models))  # on the new version
        self.rate = (np.bincount(models, past, 3) + 1) / (365 * np.bincount(models, minlength=3) + 365.25 / 0.25)
        self.crashes = 0
        self.daily: list[list[float]] = [[], []]

    def week(self, at: int, new: np.ndarray, known: np.ndarray) -> None:
        for arm, mine in ((0, new), (2, ~new)):
            hit = mine & self.fresh & (known > 0)
            self.arms[arm, at] = np.bincount(self.models[hit], minlength=3)
            days = np.where(hit, 3.5, 7.0) * (mine & self.fresh)
            self.arms[arm + 1, at] = np.bincount(self.models, days, 3)
            per_day = np.bincount(self.rng.integers(0, 7, int(known[mine].sum())), minlength=7)
            if new.any() and not new.all():
                self.daily[arm // 2] += list(per_day / mine.sum())
        self.fresh &= known == 0
        self.days += 7 * new
        self.crashes += int(known[new].sum())


def psodlib_rule(counts: Counts, at: int) -> str:
    """``judge`` of what was counted until this week."""
    weeks = Weeks(START, *counts.arms[:, : at + 1])
    expected = float((counts.days * counts.rate[counts.models]).sum())
    return judge(weeks, counts.crashes, expected, int((counts.days > 0).sum())).against


def kayenta_rule(counts: Counts, at: int) -> str:
    """Mann-Whitney at 98 % on daily rates; a canary that is "High" fails."""
    new, old = counts.daily
    if not new or np.mean(new) <= np.mean(old):
        return ""
    return "stop" if stats.mannwhitneyu(new, old).pvalue < 0.02 else ""


def unwatched(counts: Counts, at: int) -> str:
    """Never says a word."""
    return ""


@lru_cache(maxsize=4096)
def fleet(hosts: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Model, crashes a week on the old version, and wave of each host."""
    rng = np.random.default_rng(seed)
    clusters = np.arange(hosts) * max(hosts // 8, 1) // hosts
    models = rng.choice(3, max(hosts // 8, 1), p=[0.4, 0.3, 0.3])[clusters]
    table = pd.DataFrame({"host": [f"{n:05d}" for n in range(hosts)], "model": models, "cluster": clusters})
    waves = draw_waves(table, SHARES, seed).set_index("host")["wave"].reindex(table["host"]).to_numpy()
    return models, RATE * HAZARDS[models] * rng.gamma(2.0, 0.5, hosts), waves


def roll_out(hosts: int, ratio: float, seed: int, rule: Callable[[Counts, int], str], at_once: bool = False) -> Told:
    """One year; the same seed draws the same fleet and the same waves."""
    models, hazard, waves = fleet(hosts, seed)
    rng = np.random.default_rng([seed, 1])
    waves = np.ones(hosts, dtype=int) if at_once else waves
    counts = Counts(models, rng.poisson(52 * hazard) * 0.85, rng)
    new, left = np.zeros(hosts, dtype=bool), np.zeros(hosts, dtype=bool)
    put_off, stopped, moved, crashes, word = 0, np.nan, np.nan, 0, ""
    for at in range(WEEKS):
        if np.isnan(stopped):
            new = (waves <= 1 + (at - put_off) // WATCHED_WEEKS) & ~left if word != "hold" else new & ~left
        hit = rng.poisson(hazard * np.where(new, ratio, 1.0))
        crashes += int(hit.sum())
        if rule is not unwatched and np.isnan(stopped):
            counts.week(at, new, rng.binomial(hit, 0.85))
        left |= new & (hit > 0) & (rng.random(hosts) < 0.7)
        if np.isnan(stopped) and (word == "hold" or hit[new].any()):
            word = rule(counts, at)
        put_off += word == "hold"
        if word == "stop" and np.isnan(stopped):
            stopped, moved = at + 1, float((counts.days > 0).mean())
            new = np.zeros(hosts, dtype=bool)
    return Told(stopped, moved, crashes)


def row(hosts: int, ratio: float, number: int) -> dict[str, Any]:
    """One row of the table."""
    ways = {
        "watched": (psodlib_rule, False), "Kayenta": (kayenta_rule, False), "waves": (unwatched, False),
        "at once": (unwatched, True),
    }  # fmt: skip
    told = {
        name: pd.DataFrame([roll_out(hosts, ratio, seed, rule, once) for seed in range(number)])
        for name, (rule, once) in ways.items()
    }
    out: dict[str, Any] = {"hosts": hosts, "ratio": ratio}
    for name in ("watched", "Kayenta"):
        out[f"{name}: stopped %"] = 100 * told[name]["stopped"].notna().mean()
        out[f"{name}: week"] = told[name]["stopped"].median()
        out[f"{name}: moved %"] = 100 * told[name]["moved"].mean()
    return out | {f"{name}: crashes": told[name]["crashes"].mean() for name in ways}


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    sizes = [int(word) for word in sys.argv[2:]] or HOSTS
    rows = []
    for hosts in sizes:
        for ratio in RATIOS:
            rows.append(row(hosts, ratio, number))
            print(pd.DataFrame(rows[-1:]).round(1).to_string(header=len(rows) == 1, index=False), flush=True)
    table = pd.DataFrame(rows)
    print(f"\n{number} roll-outs a row, a year each. Bad: 2 times or more; good: 1 or less.")
    for name in ("watched", "Kayenta"):
        caught, false = (
            table.loc[which, f"{name}: stopped %"].sum() for which in (table["ratio"] >= 2, table["ratio"] <= 1)
        )
        recall = caught / (table["ratio"] >= 2).sum()
        print(f"{name}: precision {100 * caught / max(caught + false, 1e-9):.1f} %, recall {recall:.1f} %")


if __name__ == "__main__":
    main()
