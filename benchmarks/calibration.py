"""Does the headline interval hold? Coverage and bias on made-up fleets whose truth is known.

    python benchmarks/calibration.py --fleets 1000 --processes 2

Prints one row a scenario and contrast, held against its bar. "near" = missed, but by less than two Monte Carlo standard
errors. The bars and the names of the scenarios are those of the calibration plan: S0 nothing in the way, S1 + frail
hosts, S2 + model goes with version, S3 + roll-back after a crash.
"""

from __future__ import annotations

import argparse
import math
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from psodlib.risk.canary import ALARM, e_process
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


PLAIN = ("model",)
ALL = ("model", "uptime", "quarter")
BARS = (
    *(Bar("B1", name, PLAIN, (0.93, 0.975), (0.94, 1), 0.05) for name in ("S0", "S1", "S2")),
    Bar("B2", "S3full", PLAIN, (0.93, 0.985), (0, 1), 0.03),
    Bar("B3", "S3", PLAIN, (0.90, 1), (0.94, 0.99), 0.07),
    Bar("B3", "S3", ALL, (0.90, 1), (0.94, 0.99), 0.07),
    Bar("B4", "S3null", PLAIN, (0.92, 1), (0.94, 1), math.inf),
    *(Bar("B5", name, PLAIN, (0.91, 1), (0.93, 1), 0.09) for name in ("S3phi2", "S3logn", "S3lemon", "S3clus")),
    Bar("B6", "S3weib", ("model", "uptime"), (0.89, 1), (0.93, 1), 0.09),
    Bar("B6", "S3trend", ("model", "quarter"), (0.89, 1), (0.93, 1), 0.09),
    Bar("B6", "S3both", ALL, (0.89, 1), (0.93, 1), 0.09),
    Bar("B7", "S0sparse", PLAIN, (0.93, 1), (0.93, 1), math.inf),
    Bar("B7", "S3sparse", PLAIN, (0.93, 1), (0.93, 1), math.inf),
)


def one_fleet(bar: Bar, seed: int) -> list[tuple[float, bool, bool, bool]]:
    """Log ratio, known-only covers, headline covers, warned of uptime or quarter; one tuple a contrast."""
    process = SCENARIOS[bar.scenario]
    table = simulate_history(seed=seed, **process).exposure()
    out = []
    for version, truth in zip(CONTRASTS, truths(bar.scenario), strict=True):
        result = rate_ratio(table, version, BASE, bar.adjust)
        assert not any(word in str(result) for word in ("nan", "inf "))
        known = result.known_only
        warned = any(warning.startswith("adjusting for") for warning in result.warnings)
        log_ratio = math.log(result.ratio) if 0 < result.ratio < math.inf else math.nan
        out.append((log_ratio, known.low <= truth <= known.high, result.low <= truth <= result.high, warned))
    return out


def truths(scenario: str) -> tuple[float, float]:
    return SCENARIOS[scenario].get("ratio_58", 3.0), SCENARIOS[scenario].get("ratio_60", 1.0)


def scenario_rows(bar: Bar, fleets: int, seed: int, pool: Any) -> list[dict[str, Any]]:
    results = np.array(list(pool.map(partial(one_fleet, bar), range(seed, seed + fleets), chunksize=5)), dtype=float)
    rows = []
    for contrast, truth in enumerate(truths(bar.scenario)):
        logs, known, headline, warned = results[:, contrast].T
        finite = logs[np.isfinite(logs)]
        bias = math.expm1(finite.mean() - math.log(truth)) if len(finite) == len(logs) else math.nan
        noise = 2 * finite.std() / math.sqrt(len(finite))
        margins = [
            *(
                _margin(share.mean(), bounds, fleets)
                for share, bounds in ((known, bar.known), (headline, bar.headline))
            ),
            (bar.bias - abs(bias)) / noise if math.isfinite(bar.bias) and not math.isnan(bias) else 9.0,
        ]
        rows.append(
            {
                "bar": bar.name,
                "scenario": bar.scenario,
                "adjust": "+".join(bar.adjust),
                "contrast": f"{CONTRASTS[contrast][-2:]}v{BASE[-2:]}",
                "bias": "-" if math.isnan(bias) else f"{100 * bias:+.1f} %",
                "known-only": f"{known.mean():.3f}",
                "headline": f"{headline.mean():.3f}",
                "warned": f"{warned.mean():.2f}",
                "wanted": _wanted(bar),
                "met": "yes" if min(margins) >= 0 else "near" if min(margins) >= -1 else "NO",
            }
        )
    return rows


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
    options = parser.parse_args()
    began = time.perf_counter()
    with ProcessPoolExecutor(options.processes) as pool:
        rows = [row for bar in BARS for row in scenario_rows(bar, options.fleets, options.seed, pool)]
        print(f"{options.fleets} fleets of 500 hosts and 548 days each, seed {options.seed}\n", flush=True)
        print(table_text(rows), flush=True)
        print("\n" + table_text(one_sample_coverage()))
        print("\n" + table_text(sequential(options.fleets, options.seed)), flush=True)
        print("\n" + table_text(negative_controls(options.fleets, options.seed, pool)))
    print(f"\n{time.perf_counter() - began:.0f} s on {options.processes} processes")


if __name__ == "__main__":
    main()
