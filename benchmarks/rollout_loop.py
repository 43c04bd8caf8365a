"""A roll-out lived through as a loop: simulate a week, load it into the store, watch, follow the word, next week.

    python benchmarks/rollout_loop.py [ratio, default 1] [weeks, default 52] [hosts, default 24]

Real files, a real store, the plan's file; a hold puts off all waves that have not begun, a stop sends everybody back in the
order that the watch gives, one turn a day.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd

import psodlib as psod
from psodlib.risk.rollout import WEEK, read_plan

START = pd.Timestamp("2024-01-01", tz="UTC")
BEFORE = 182  # days
DAY = pd.Timedelta(days=1)


def lived(folder: Path, days: float, installs: pd.DataFrame, ratio: float, hosts: int) -> psod.Fleet:
    """The fleet's life so far, written as files and loaded into the store."""
    evidence = folder / "evidence"
    shutil.rmtree(evidence, ignore_errors=True)
    psod.simulate_fleet(
        evidence, hosts=hosts, days=days, seed=5, clusters=max(hosts // 4, 1), start=f"{START:%Y-%m-%d}", story="i40en",
        installs=installs, late_share=0.0, gaps_per_host=0.0, load_days=0.0, rollback=0.0, driver_rate=0.5, ratio_58=ratio,
    )  # fmt: skip
    return psod.load(evidence, inventory=evidence / "inventory.csv", store=folder / "store", jobs=1)


def main() -> None:
    words = [*sys.argv[1:4], *["1", "52", "24"][len(sys.argv) - 1 :]]
    ratio, weeks, hosts = float(words[0]), int(words[1]), int(words[2])
    folder = Path(tempfile.mkdtemp(prefix="rollout-"))
    file = folder / "plan.toml"
    installs = pd.DataFrame({"host": [], "time": [], "version": []})
    psod.plan_rollout(lived(folder, BEFORE, installs, ratio, hosts), "i40en", "2.0.7.0").save(file)
    began, told = read_plan(file).start, False
    for week in range(1, weeks + 1):
        plan, now = read_plan(file), began + week * WEEK
        due = plan.waves[(plan.waves["week"] < now) & ~plan.waves["host"].isin(installs["host"])]
        moved_at = due["week"] + due["turn"] * pd.Timedelta(hours=4)
        installs = pd.concat([installs, pd.DataFrame({"host": due["host"], "time": moved_at, "version": plan.to})])
        clock = time.perf_counter()
        fleet = lived(folder, (now - START) / DAY, installs, ratio, hosts)
        loaded = time.perf_counter()
        found = psod.watch_rollout(fleet, file, today=now)
        seconds = f"{loaded - clock:.1f} s to simulate and load, {time.perf_counter() - loaded:.1f} s to watch"
        print(f"week {week}: {found.waves['moved'].sum()} moved. {found.sentence} ({seconds})", flush=True)
        if found.word == "stop":
            back = found.go_back
            went = pd.DataFrame({"host": back["host"], "time": now + back["turn"] * DAY, "version": back["to_version"]})
            installs = pd.concat([installs, went])
            fleet = lived(folder, (now + 2 * WEEK - START) / DAY, installs, ratio, hosts)
            last = psod.watch_rollout(fleet, file)
            print(
                f"two weeks later: {last.waves['drifted_back'].sum()} went back, {last.waves['moved'].sum()} run it still"
            )
            break
        if len(found.effect) and (not told or week == weeks):  # when all have moved, and at the end of the year
            print(found.effect.round(2).to_string(index=False), flush=True)
            told = True
        if found.word == "hold":
            later = plan.waves["week"].where(plan.waves["week"] < now, plan.waves["week"] + WEEK)
            replace(plan, waves=plan.waves.assign(week=later)).save(file)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
