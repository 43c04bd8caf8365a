"""How exposure, rates, the ratio, the decision and the brief grow with the fleet, part by part and in one table.

    python benchmarks/scaling.py --hosts 100 1000 10000 100000 --days 1096

Each row runs in a process of its own, so that its peak memory is its own, and is ended after ``--limit`` seconds. A part holds 1,000
hosts: a fleet simulated at table level, under new names. "in parts" never has more than one part's rows in a DataFrame: exposures go to
Parquet and come back one by one, as those of a store would. "one table" is
what `exposure`, `crash_rates`, `rate_ratio`, `decide_pin` and the report's brief take. Seconds are the processor's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

import psodlib as psod
from psodlib import schema
from psodlib.risk.decision import decide_pin
from psodlib.simulate.process import VERSIONS, simulate_history
from psodlib.views.brief import brief
from psodlib.views.study import study

PART = 1000
NAMES = [*schema.TABLES, *schema.AUXILIARY]


def made_up(hosts: int, days: float) -> psod.Fleet:
    """A simulated history as the tables that its files would give: every boot watched from end to end, its version read."""
    history = simulate_history(hosts=hosts, days=days, clusters=max(hosts // 10, 1), seed=1)
    boots = history.boots.reset_index(names="boot_row")
    crashes = history.crashes.reset_index(drop=True)
    crashes["crash_id"] = "c" + crashes.index.astype(str)
    crashes["guilty_module"] = crashes["module"].where(crashes["attributed"])
    ended = crashes.set_index("boot_row")["crash_id"]
    boots["crash_id"] = boots["boot_row"].map(ended)
    span = boots["end"] - boots["boot"]
    uptimes = boots.assign(uptime=span, observed=boots["end"] - boots["entry"], evidence="heartbeat")
    coverage = boots.assign(start=boots["entry"])
    drivers = boots.assign(module="hpsa", state="loaded", observed_at=boots["boot"], evidence="banner")
    guilt = crashes["guilty_module"].notna().map({True: "on_stack", False: "none"})
    found = {"hosts": history.hosts, "crashes": crashes.assign(guilt=guilt, kind="other"), "uptimes": uptimes,
             "coverage": coverage, "drivers": drivers}  # fmt: skip
    tables = {
        name: schema.conform(name, table[[c for c in table if c in _columns(name)]]) for name, table in found.items()
    }
    tables["hosts"] = tables["hosts"].join(history.hosts.reset_index(drop=True)[["cluster"]])
    return psod.Fleet(**tables, simulated=True)


def _columns(name: str) -> set[str]:
    return {column.name for column in schema.columns_of(name)}


def parts(hosts: int, days: float) -> Iterator[psod.Fleet]:
    """Fleets of 1,000 hosts each."""
    small = made_up(min(hosts, PART), days)
    for number in range(max(1, hosts // PART)):
        tables = {}
        for name in NAMES:
            table = getattr(small, name)
            again = [column for column in ("host", "cluster", "crash_id") if column in table]
            tables[name] = table.assign(**{column: table[column] + f"-{number}" for column in again})
        yield psod.Fleet(**tables, simulated=True)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    return call(), time.process_time() - began


def in_parts(hosts: int, days: float, folder: Path) -> list[str]:
    spent, rows = 0.0, 0
    for number, fleet in enumerate(parts(hosts, days)):
        stretches, seconds = timed(lambda fleet=fleet: psod.exposure(fleet, "hpsa"))
        spent, rows = spent + seconds, rows + len(stretches)
        stretches.to_parquet(folder / f"{number:04d}.parquet")

    def stored() -> Iterator[pd.DataFrame]:
        return (pd.read_parquet(path) for path in sorted(folder.iterdir()))

    _, rates = timed(lambda: psod.crash_rates(stored()))
    ratio, fit = timed(lambda: psod.rate_ratio(stored(), VERSIONS[1], VERSIONS[0]))
    decision, decided = timed(lambda: decide_pin(stored()))
    return [f"{rows:,}", f"{spent:.1f}", f"{rates:.1f}", f"{fit:.1f}", f"{ratio.ratio:.4f}", f"{decided:.1f} ({decision.verdict})", "needs one table"]  # fmt: skip


def in_one(hosts: int, days: float) -> list[str]:
    every = list(parts(hosts, days))
    fleet = psod.Fleet(
        **{name: pd.concat([getattr(part, name) for part in every], ignore_index=True) for name in NAMES},
        simulated=True,
    )
    del every
    stretches, spent = timed(lambda: psod.exposure(fleet, "hpsa"))
    _, rates = timed(lambda: psod.crash_rates(stretches))
    ratio, fit = timed(lambda: psod.rate_ratio(stretches, VERSIONS[1], VERSIONS[0]))
    decision, decided = timed(lambda: decide_pin(stretches))
    _, page = timed(lambda: brief(study(fleet, candidates=list(VERSIONS[:2]))))
    return [f"{len(stretches):,}", f"{spent:.1f}", f"{rates:.1f}", f"{fit:.1f}", f"{ratio.ratio:.4f}", f"{decided:.1f} ({decision.verdict})", f"{page:.1f}"]  # fmt: skip


def run(hosts: int, days: float, way: str) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        cells = in_parts(hosts, days, Path(folder)) if way == "in parts" else in_one(hosts, days)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {hosts:,} | {way} | {' | '.join(cells)} | {peak:,.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--days", type=float, default=1096)
    parser.add_argument("--limit", type=float, default=600)
    options = parser.parse_args()
    print(
        "| hosts | way | stretches | exposure s | rates s | ratio s | ratio | decision s | exposure to brief s | peak MB |"
    )
    print("| --- " * 10 + "|", flush=True)
    for hosts in options.hosts:
        for way in ("in parts", "one table"):
            process = multiprocessing.get_context("spawn").Process(target=run, args=(hosts, options.days, way))
            process.start()
            process.join(options.limit)
            if process.is_alive():
                process.kill()
                print(f"| {hosts:,} | {way} | not done after {options.limit:,.0f} s |" + " |" * 7, flush=True)


if __name__ == "__main__":
    main()
