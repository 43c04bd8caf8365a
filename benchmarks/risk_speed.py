"""How the time of exposure tables and ratios grows with the fleet.

    python benchmarks/risk_speed.py --hosts 1000 10000 100000 --days 1096

Prints one row a fleet size: stretches, processor seconds for ``crash_rates``, ``rate_ratio`` and ``decide_pin`` with all
terms, how the second grows with the hosts (1 = in proportion), peak memory. Run it with one thread
(``OMP_NUM_THREADS=1``), or the processor seconds are those of several. A big fleet is one of 1,000 hosts repeated under new names, so that making it is not what is measured.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import pandas as pd

from psodlib.risk.decision import decide_pin
from psodlib.risk.rates import crash_rates, rate_ratio
from psodlib.simulate.process import VERSIONS, simulate_history

MOST = 1000  # hosts of the fleet that is repeated


def fleet(hosts: int, days: float) -> pd.DataFrame:
    """Exposure table of so many hosts."""
    small = simulate_history(hosts=min(hosts, MOST), days=days, clusters=min(hosts, MOST) // 10, seed=1).exposure()
    copies = max(1, hosts // MOST)
    number = np.repeat(np.arange(copies), len(small)).astype(str)
    whole = pd.concat([small] * copies, ignore_index=True)
    if copies > 1:
        whole["host"] = whole["host"] + pd.array("-" + number.astype(object), dtype="string")
        whole["cluster"] = whole["cluster"] + pd.array("-" + number.astype(object), dtype="string")
    return whole


def seconds(call: object, *arguments: object) -> float:
    """Best of three runs for what is quick, of one for what is not."""
    taken: list[float] = []
    while not taken or (len(taken) < 3 and sum(taken) < 3):
        began = time.process_time()
        call(*arguments)  # type: ignore[operator]
        taken.append(time.process_time() - began)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=[500, 1000, 10_000])
    parser.add_argument("--days", type=float, default=548)
    options = parser.parse_args()
    print(
        "| hosts | days | stretches | crash_rates s | rate_ratio s | growth | decide_pin s | peak MB |\n"
        + "| --- " * 8
        + "|"
    )
    before: tuple[int, float] | None = None
    for hosts in options.hosts:
        table = fleet(hosts, options.days)
        rates, ratio = seconds(crash_rates, table), seconds(rate_ratio, table, VERSIONS[1], VERSIONS[0])
        pin = seconds(decide_pin, table)
        growth = f"{ratio / before[1] / (hosts / before[0]):.2f}" if before else ""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        shown = "" if pin is None else f"{pin:.2f}"
        print(
            f"| {hosts:,} | {options.days:g} | {len(table):,} | {rates:.3f} | {ratio:.2f} | {growth} | {shown} | {peak:,.0f} |",
            flush=True,
        )
        before = hosts, ratio


if __name__ == "__main__":
    main()
