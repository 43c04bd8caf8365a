"""Coverage through text: simulate files, load, exposure, ratio. Loss in reading would show as loss in coverage.

    python benchmarks/text_coverage.py [fleets]

Each fleet is made as files and read back; beside it stands the same fleet's history as tables, which nobody had to read. The
truth is the ratio that the fleet was made with. 100 fleets: the standard error of a coverage of .95 is .022.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psodlib as psod

HOSTS, DAYS, RATIO = 30, 240, 3.0
RATES = {"driver_rate": 2.0, "background_rate": 0.5, "ratio_58": RATIO}
PAIR = ("5.5.0.58", "5.5.0.50")


def one_fleet(seed: int) -> dict[str, tuple[float, bool, bool, float]]:
    """Way of reading -> log ratio, known-only interval covers, headline covers, host-days."""
    with tempfile.TemporaryDirectory() as folder:
        history = psod.simulate_fleet(Path(folder) / "evidence", hosts=HOSTS, days=DAYS, seed=seed, **RATES)
        read = psod.exposure(
            psod.load(Path(folder) / "evidence", inventory=Path(folder) / "evidence/inventory.csv", jobs=1)
        )
    return {"as text": judged(read), "as tables": judged(history.exposure())}


def judged(exposure: object) -> tuple[float, bool, bool, float]:
    """What the ratio of one exposure table says of the truth."""
    found = psod.rate_ratio(exposure, *PAIR)
    known, headline = found.known_only, found.interval
    return (
        math.log(found.ratio), known.low <= RATIO <= known.high, headline.low <= RATIO <= headline.high,
        float(exposure.host_days.sum()),  # type: ignore[attr-defined]
    )  # fmt: skip


def main(fleets: int) -> None:
    """Print the table."""
    begun = time.monotonic()
    with ProcessPoolExecutor(2) as pool:
        results = list(pool.map(one_fleet, range(1, fleets + 1)))
    print(f"{fleets} fleets of {HOSTS} hosts and {DAYS} days, ratio {RATIO:g}; {time.monotonic() - begun:.0f} s")
    print("| read | bias | known-only covers | headline covers | host-days a fleet |\n| --- | --- | --- | --- | --- |")
    for way in ("as text", "as tables"):
        rows = [result[way] for result in results]
        bias = math.exp(sum(row[0] for row in rows) / len(rows)) / RATIO - 1
        known, headline, days = (sum(row[column] for row in rows) / len(rows) for column in (1, 2, 3))
        print(f"| {way} | {bias:+.1%} | {known:.3f} | {headline:.3f} | {days:,.0f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
