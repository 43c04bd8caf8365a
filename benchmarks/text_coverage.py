"""Coverage through text: simulate files, load, exposure, ratio. Loss in reading would show as loss in coverage.

    python benchmarks/text_coverage.py [fleets] [results.jsonl]

Each fleet is made as files and read back; beside it stands the same fleet's history as tables, which nobody had to read. The
truth is the ratio that the fleet was made with. 100 fleets: the standard error of a coverage of .95 is .022. A fleet's
outcome is a line of the file of results as soon as it is there, and what the file holds is not done again.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd

import psodlib as psod

HOSTS, DAYS, RATIO = 30, 240, 3.0
RATES = {"driver_rate": 2.0, "background_rate": 0.5, "ratio_58": RATIO}
PAIR = ("5.5.0.58", "5.5.0.50")


WAYS = ("as text", "as tables")


def one_fleet(seed: int) -> dict[str, list[float]]:
    """Way of reading -> log ratio, known-only interval covers, headline covers, host-days, crashes of both versions."""
    with tempfile.TemporaryDirectory() as folder:
        evidence = Path(folder) / "evidence"
        history = psod.simulate_fleet(evidence, hosts=HOSTS, days=DAYS, seed=seed, **RATES)
        read = psod.exposure(psod.load(evidence, inventory=evidence / "inventory.csv", jobs=1))
    return dict(zip(WAYS, (judged(read), judged(history.exposure())), strict=True))


def judged(exposure: pd.DataFrame) -> list[float]:
    """What the ratio of one exposure table says of the truth; an unbounded ratio has no logarithm."""
    found = psod.rate_ratio(exposure, *PAIR)
    known, headline = found.known_only, found.interval
    log_ratio = math.log(found.ratio) if 0 < found.ratio < math.inf else math.nan
    covers = (float(each.low <= RATIO <= each.high) for each in (known, headline))
    return [log_ratio, *covers, float(exposure["host_days"].sum()), float(sum(found.crashes))]


def main(fleets: int, path: Path) -> None:
    """Do what the file has not yet, and print the table."""
    begun = time.monotonic()
    done = len(path.read_text().splitlines()) if path.exists() else 0
    with ProcessPoolExecutor(2) as pool, path.open("a") as file:
        for result in pool.map(one_fleet, range(done + 1, fleets + 1)):
            file.write(json.dumps(result) + "\n")
            file.flush()
    results = [json.loads(line) for line in path.read_text().splitlines()]
    print(
        f"{len(results)} fleets of {HOSTS} hosts and {DAYS} days, ratio {RATIO:g}; {time.monotonic() - begun:.0f} s\n"
    )
    print("| read | bias | known-only covers | headline covers | host-days a fleet | crashes |\n" + "| --- " * 6 + "|")
    for way in WAYS:
        logs, known, headline, days, crashes = zip(*(result[way] for result in results), strict=True)
        finite = [each for each in logs if not math.isnan(each)]
        bias = math.exp(statistics.mean(finite)) / RATIO - 1
        means = [statistics.mean(each) for each in (known, headline, days, crashes)]
        print(f"| {way} | {bias:+.1%} | {means[0]:.2f} | {means[1]:.2f} | {means[2]:,.0f} | {means[3]:.1f} |")
    both = sum(each[WAYS[0]][2] == each[WAYS[1]][2] for each in results)
    print(f"\nThe two headlines agree on covering the truth in {both} of {len(results)} fleets.")


if __name__ == "__main__":
    given = dict(enumerate(sys.argv[1:]))
    main(int(given.get(0, 100)), Path(given.get(1, "text_coverage.jsonl")))
