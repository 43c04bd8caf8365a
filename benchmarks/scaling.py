"""How exposure, rates, the frailty ratio and the decision grow with the fleet, bucket by bucket and in one table.

    python benchmarks/scaling.py --hosts 100 1000 10000 100000 --days 1096

Each size runs in a process of its own, so that its peak memory is its own. A part holds 1,000 hosts: a fleet simulated at table level
under new names. "in parts" never has more than one part's rows in a DataFrame; "one table" is what `crash_rates` and `decide_pin` take.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
import warnings
from collections.abc import Iterator

import pandas as pd

from psodlib.risk.decision import decide_pin
from psodlib.risk.frailty import fit_frailty
from psodlib.risk.partitions import rates_of_parts, tabulate_parts
from psodlib.risk.rates import crash_rates
from psodlib.simulate.process import VERSIONS, simulate_history

PART = 1000
TERMS = ("model", "uptime", "quarter")


def parts(hosts: int, days: float) -> Iterator[pd.DataFrame]:
    """Exposure tables of 1,000 hosts each."""
    small = simulate_history(hosts=min(hosts, PART), days=days, clusters=min(hosts, PART) // 10, seed=1).exposure()
    for number in range(max(1, hosts // PART)):
        yield small.assign(host=small["host"] + f"-{number}", cluster=small["cluster"] + f"-{number}")


def run(hosts: int, days: float, way: str) -> None:
    warnings.simplefilter("ignore")
    began = time.perf_counter()
    if way == "in parts":
        rows = 0

        def counted() -> Iterator[pd.DataFrame]:
            nonlocal rows
            for part in parts(hosts, days):
                rows += len(part)
                yield part

        rates_of_parts(counted())
        rates = time.perf_counter() - began
        began = time.perf_counter()
        cells = tabulate_parts(parts(hosts, days), TERMS)
        sums = time.perf_counter() - began
        began = time.perf_counter()
        fit = fit_frailty(cells, cells.known, TERMS)
        answer = f"{sums:.1f} + {time.perf_counter() - began:.1f}"
        ratio = 2.718281828459045 ** fit.log_ratio(VERSIONS[1], VERSIONS[0])[0]
    else:
        table = pd.concat(parts(hosts, days), ignore_index=True)
        rows = len(table)
        began = time.perf_counter()
        crash_rates(table)
        rates = time.perf_counter() - began
        began = time.perf_counter()
        decision = decide_pin(table, list(VERSIONS[:2]), adjust=TERMS)
        answer = f"{time.perf_counter() - began:.1f} (decision)"
        ratio = decision.ratios[0].ratio
        ratio = ratio if decision.ratios[0].version == VERSIONS[1] else 1 / ratio
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {hosts:,} | {way} | {rows:,} | {rates:.2f} | {answer} | {ratio:.4f} | {peak:,.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--days", type=float, default=1096)
    options = parser.parse_args()
    print("| hosts | way | stretches | rates s | cells + fit s | ratio | peak MB |\n" + "| --- " * 7 + "|", flush=True)
    for hosts in options.hosts:
        for way in ("in parts", "one table"):
            process = multiprocessing.get_context("spawn").Process(target=run, args=(hosts, options.days, way))
            process.start()
            process.join(600)
            process.kill()


if __name__ == "__main__":
    main()
