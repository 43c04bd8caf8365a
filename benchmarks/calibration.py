"""Does the headline interval hold? Coverage and bias on made-up fleets whose truth is known.

    python benchmarks/calibration.py --fleets 1000 --processes 2 --results calibration.jsonl

Prints one row a scenario and contrast, held against its bar. "near" = missed, but by less than two Monte Carlo standard
errors. The bars and the names of the scenarios are those of the calibration plan: S0 nothing in the way, S1 + frail
hosts, S2 + model goes with version, S3 + roll-back after a crash.

Each fleet's outcome is a line of ``--results`` as soon as it is there, and what the file holds is not done again: a run
may be stopped, looked at (``--fleets 0`` only prints) and taken up again. A fleet is asked for the headline of each
contrast and no more (`Comparison.headline`, which is what `rate_ratio` reports); each hundredth is asked by `rate_ratio`
in full, and must agree to the last digit.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from psodlib.risk.canary import ALARM, e_process
from psodlib.risk.cautions import CONFOUNDED
from psodlib.risk.comparison import Comparison
from psodlib.risk.exact import poisson_interval
from psodlib.risk.rates import rate_ratio
from psodlib.simulate.process import SCENARIOS, VERSIONS, simulate_history

BASE, BAD, NEXT = VERSIONS
CONTRASTS = (BAD, NEXT)


class Bar(NamedTuple):
    name: str
    scenario: str
    adjust: tuple[str, ...]
    known: tuple[float, float]  # coverage of the known-only interval
    headline: tuple[float, float]
    bias: float  # of the ratio, at most


IN_FULL = 100  # each so manyth fleet is asked by ``rate_ratio``, with every row beside the headline
PLAIN = ("model",)
ALL = ("model", "uptime", "quarter")
SPARSE = ((0.93, 1), (0.93, 1), math.inf)
BARS = (  # the most doubtful first, so that a run that is stopped has them
    *(Bar("B7", name, PLAIN, *SPARSE) for name in ("S3sparse", "S0sparse")),
    Bar("B6", "S3weib", ("model", "uptime"), (0.89, 1), (0.93, 1), 0.09),
    Bar("B6", "S3both", ALL, (0.89, 1), (0.93, 1), 0.09),
    Bar("B6", "S3trend", ("model", "quarter"), (0.89, 1), (0.93, 1), 0.09),
    Bar("B3", "S3", PLAIN, (0.90, 1), (0.94, 0.99), 0.07),
    Bar("B3", "S3", ALL, (0.90, 1), (0.94, 0.99), 0.07),
    Bar("B5", "S3phi2", PLAIN, (0.91, 1), (0.93, 1), 0.09),
    Bar("B2", "S3full", PLAIN, (0.93, 0.985), (0, 1), 0.03),
    Bar("B4", "S3null", PLAIN, (0.92, 1), (0.94, 1), math.inf),
    *(Bar("B5", name, PLAIN, (0.91, 1), (0.93, 1), 0.09) for name in ("S3logn", "S3lemon", "S3clus")),
    *(Bar("B1", name, PLAIN, (0.93, 0.975), (0.94, 1), 0.05) for name in ("S2", "S1", "S0")),
)

# Of one contrast of one fleet: log ratio (None: no estimate), the known-only interval covers the truth, the headline
# does, the reader was warned that uptime or quarter moves the ratio.
Outcome = tuple[float | None, bool, bool, bool]


def one_fleet(scenario: str, seed: int) -> dict[str, Any]:
    """Outcomes by terms, one a contrast, of one fleet."""
    table = simulate_history(seed=seed, **SCENARIOS[scenario]).exposure()
    outcomes = {}
    for bar in BARS:
        if bar.scenario == scenario:
            comparison = Comparison(table, bar.adjust)
            outcomes["+".join(bar.adjust)] = [
                outcome(comparison, version, truth) for version, truth in zip(CONTRASTS, truths(scenario), strict=True)
            ]
            if seed % IN_FULL == 0:
                agrees_in_full(comparison, table, bar.adjust)
    return {"scenario": scenario, "seed": seed, "outcomes": outcomes}


def outcome(comparison: Comparison, version: str, truth: float) -> Outcome:
    """Does one contrast hold?"""
    found = comparison.headline(version, BASE)
    ratio, low, high = found.interval
    warned = any(abs(comparison.moved_by(found, term)) > CONFOUNDED for term in ("uptime", "quarter"))
    known = found.known.low <= truth <= found.known.high
    return math.log(ratio) if 0 < ratio < math.inf else None, known, low <= truth <= high, warned


def agrees_in_full(comparison: Comparison, table: pd.DataFrame, adjust: tuple[str, ...]) -> None:
    """The headline is what ``rate_ratio`` reports, and that prints nothing undefined as a number."""
    for version in CONTRASTS:
        full = rate_ratio(table, version, BASE, adjust)
        found = comparison.headline(version, BASE)
        assert str(full.interval) == str(found.interval) and (full.low, full.high) == found.interval[1:]
        assert full.known_only[1:] == found.known[1:]
        assert not any(word in str(full) for word in ("nan", "inf "))


def truths(scenario: str) -> tuple[float, float]:
    return SCENARIOS[scenario].get("ratio_58", 3.0), SCENARIOS[scenario].get("ratio_60", 1.0)


def run(path: Path, fleets: int, seed: int, pool: Any, scenarios: Iterable[str]) -> None:
    """Do what the file of results has not yet, scenario by scenario."""
    done = {(line["scenario"], line["seed"]) for line in read(path)}
    for scenario in scenarios:
        seeds = [each for each in range(seed, seed + fleets) if (scenario, each) not in done]
        with path.open("a") as file:
            for line in pool.map(partial(one_fleet, scenario), seeds, chunksize=5):
                file.write(json.dumps(line) + "\n")
                file.flush()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of results; the last may have been cut by a stop."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def scenario_rows(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a bar and contrast, from what the lines hold."""
    found: dict[tuple[str, str, int], list[Outcome]] = defaultdict(list)
    for line in lines:
        for adjust, outcomes in line["outcomes"].items():
            for contrast, each in enumerate(outcomes):
                found[line["scenario"], adjust, contrast].append(each)
    return [
        _row(bar, contrast, found[key])
        for bar in sorted(BARS, key=lambda bar: bar.name)
        for contrast in (0, 1)
        if (key := (bar.scenario, "+".join(bar.adjust), contrast)) in found
    ]


def _row(bar: Bar, contrast: int, outcomes: list[Outcome]) -> dict[str, Any]:
    truth, fleets = truths(bar.scenario)[contrast], len(outcomes)
    logs, known, headline, warned = np.array(outcomes, dtype=float).T
    bias = math.expm1(logs.mean() - math.log(truth))  # nan where some fleet has no estimate
    noise = 2 * logs.std() / math.sqrt(fleets)
    margins = [
        *(_margin(share.mean(), bounds, fleets) for share, bounds in ((known, bar.known), (headline, bar.headline))),
        (bar.bias - abs(bias)) / noise if math.isfinite(bar.bias) and not math.isnan(bias) else 9.0,
    ]
    return {
        "bar": bar.name,
        "scenario": bar.scenario,
        "adjust": "+".join(bar.adjust),
        "contrast": f"{CONTRASTS[contrast][-2:]}v{BASE[-2:]}",
        "fleets": fleets,
        "bias": "-" if math.isnan(bias) else f"{100 * bias:+.1f} %",
        "known-only": f"{known.mean():.3f}",
        "headline": f"{headline.mean():.3f}",
        "warned": f"{warned.mean():.2f}",
        "wanted": _wanted(bar),
        "met": "yes" if min(margins) >= 0 else "near" if min(margins) >= -1 else "NO",
    }


def _margin(share: float, bounds: tuple[float, float], fleets: int) -> float:
    # Distance inside the bounds, in units of two standard errors.
    low, high = bounds
    return min(share - low, high - share) / (2 * math.sqrt(max(low, 0.5) * (1 - low) / fleets))


def _wanted(bar: Bar) -> str:
    parts = [f"known {bar.known[0]:g}-{bar.known[1]:g}", f"headline {bar.headline[0]:g}-{bar.headline[1]:g}"]
    return ", ".join([*parts, f"bias {100 * bar.bias:g} %"] if math.isfinite(bar.bias) else parts)


def one_sample_coverage() -> list[dict[str, Any]]:
    """B8: exact coverage of the one-sample intervals over means 0.5 to 30."""
    means = np.arange(0.5, 30.001, 0.01)
    counts = np.arange(0, 80)
    weights = np.exp(counts[:, None] * np.log(means) - means - np.array([math.lgamma(k + 1) for k in counts])[:, None])
    rows = []
    for method, least in (("garwood", 0.95), ("midp", 0.91)):
        limits = np.array([poisson_interval(int(k), 1, method=method) for k in counts])
        cover = ((limits[:, :1] <= means) & (means <= limits[:, 1:]) * 1).astype(float)
        coverage = (weights * cover).sum(axis=0)
        met = coverage.min() >= least - 1e-9 and (method == "garwood" or 0.95 <= coverage.mean() <= 0.97)
        rows.append(
            {
                "bar": "B8",
                "scenario": f"one sample, {method}",
                "least": f"{coverage.min():.3f}",
                "mean": f"{coverage.mean():.3f}",
                "met": "yes" if met else "NO",
            }
        )
    return rows


def sequential(fleets: int, seed: int) -> list[dict[str, Any]]:
    """B9: 450 hosts on the old version, 50 on the new, 52 weekly looks, each host's first crash only."""
    rows = []
    for ratio, variance in ((1.0, 0.0), (1.0, 0.5), (1.0, 2.0), (3.0, 0.0), (3.0, 0.5)):
        rng = np.random.default_rng(seed)
        ever, week = [], []
        for _ in range(fleets):
            effect = rng.gamma(1 / variance, variance, 500) if variance else np.ones(500)
            hazard = 0.5 / 52.18 * effect * np.where(np.arange(500) < 50, ratio, 1.0)
            crash = rng.exponential(1, 500) / np.maximum(hazard, 1e-300)
            looks = np.arange(52)
            risk = np.clip(crash[:, None] - looks, 0, 1) * 7
            hit = (crash[:, None] >= looks) & (crash[:, None] < looks + 1)
            e = e_process(hit[:50].sum(0), risk[:50].sum(0), hit[50:].sum(0), risk[50:].sum(0))
            ever.append(e.max() >= ALARM)
            week.append(int(np.argmax(e >= ALARM)) + 1 if ever[-1] else 999)
        share = float(np.mean(ever))
        good = share <= 0.05 if ratio == 1 else share >= 0.95
        rows.append(
            {
                "bar": "B9",
                "scenario": f"ratio {ratio:g}, variance {variance:g}",
                "alarm": f"{share:.3f}",
                "median week": "-" if ratio == 1 else f"{np.median(week):.0f}",
                "wanted": "at most 0.05" if ratio == 1 else "at least 0.95",
                "met": "yes" if good else "NO",
            }
        )
    return rows


def naive(seed: int) -> tuple[float, float, float]:
    """Log ratios .58 to .50 that three naive counts give: before/after in rolled-back hosts, snapshot, counts."""
    history = simulate_history(seed=seed)
    table = history.exposure().sort_values(["host", "start"])
    table["all"] = table[["crashes", "unknown_crashes", "other_crashes"]].sum(axis=1).astype(float)
    rolled = history.installs[history.installs["rollback"]].groupby("host")["time"].min()
    since = table["host"].map(rolled)
    mine = table[since.notna()]
    before = mine[(mine["version"] == BAD) & (mine["start"] < since.dropna())]
    after = mine[(mine["version"] == BASE) & (mine["start"] >= since.dropna())]
    story = _log_ratio(before, after, "crashes")
    today = table.assign(version=table.groupby("host")["version"].transform("last"))
    snapshot = _log_ratio(today[today["version"] == BAD], today[today["version"] == BASE], "crashes")
    counts = table.groupby("version")["all"].sum()
    return story, snapshot, float(np.log(counts[BAD] / counts[BASE]))


def _log_ratio(one: pd.DataFrame, other: pd.DataFrame, column: str) -> float:
    # Half a crash is added, for a few fleets have an arm without any.
    rates = [(float(rows[column].sum()) + 0.5) / float(rows["host_days"].sum()) for rows in (one, other)]
    return math.log(rates[0] / rates[1])


def negative_controls(fleets: int, seed: int, pool: Any) -> list[dict[str, Any]]:
    """B10: naive methods must be as wrong here as they are in life, else the made-up fleet is too kind."""
    logs = np.array(list(pool.map(naive, range(seed, seed + fleets), chunksize=5)))
    bias = np.expm1(logs.mean(axis=0) - math.log(3))
    wanted = ((0.8, math.inf), (-1, -0.8), (-1, -0.45))
    return [
        {
            "bar": "B10",
            "method": name,
            "bias": f"{100 * value:+.0f} %",
            "wanted": f"{100 * low:+.0f} % or more" if math.isinf(high) else f"{100 * high:+.0f} % or less",
            "met": "yes" if low <= value <= high else "NO",
        }
        for name, value, (low, high) in zip(
            ("before/after, rolled-back hosts", "today's version applied backwards", "counts of all PSODs"),
            bias,
            wanted,
            strict=True,
        )
    ]


def table_text(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fleets", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20140531)
    parser.add_argument("--results", type=Path, default=Path("calibration.jsonl"))
    parser.add_argument("--scenarios", nargs="+", default=list(dict.fromkeys(bar.scenario for bar in BARS)))
    options = parser.parse_args()
    began = time.perf_counter()
    with ProcessPoolExecutor(options.processes) as pool:
        run(options.results, options.fleets, options.seed, pool, options.scenarios)
        print(f"fleets of 500 hosts and 548 days each, from seed {options.seed}\n")
        print(table_text(scenario_rows(read(options.results))), flush=True)
        if options.fleets:
            print("\n" + table_text(one_sample_coverage()))
            print("\n" + table_text(sequential(options.fleets, options.seed)), flush=True)
            print("\n" + table_text(negative_controls(options.fleets, options.seed, pool)))
    print(f"\n{time.perf_counter() - began:.0f} s on {options.processes} processes")


if __name__ == "__main__":
    main()
