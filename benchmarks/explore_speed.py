"""How long the explorer takes to answer a click, on a made-up fleet of many hosts and crashes.

    python benchmarks/explore_speed.py --hosts 1000 --crashes 2000

Prints one row a kind of click: its median and worst time in milliseconds in the kernel, the
median of the processor's time (on a busy machine the two part), what was sent to the browser in
kilobytes, and whether the median is within 300 ms. The browser's own drawing is not in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from psodlib import schema
from psodlib.fleet import Fleet
from psodlib.views.explore import Explorer, explore

LIMIT = 300  # milliseconds
START = pd.Timestamp("2025-01-01", tz="UTC")
DAYS, BOOT_DAYS, GAPS, FRAMES, SIGNATURES = 365, 30, 3, 12, 120
VERSIONS = ("5.5.0.44", "5.5.0.50", "5.5.0.58", "5.5.0.60", None)
MODULES = ("hpsa", "bnx2x", "lpfc", "e1000", "ixgbe", "megaraid_sas")
MODELS = ("ProLiant DL380p Gen8", "ProLiant BL460c Gen8", "PowerEdge R720")


def made_up(hosts: int, crashes: int, rng: Random) -> Fleet:
    """A fleet as tables: a year of monthly boots with gaps, and crashes of many signatures."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in [*schema.TABLES, *schema.AUXILIARY]}
    for number in range(hosts):
        _host(rows, f"esx{number:04d}", rng)
    for number in range(crashes):
        _crash(rows, f"{number:016x}", f"esx{rng.randrange(hosts):04d}", rng)
    tables = {name: schema.build(name, entries) for name, entries in rows.items()}
    tables["hosts"]["cluster"] = [f"cluster{i % 25:02d}" for i in range(hosts)]
    return Fleet(**tables, simulated=True)


def _host(rows: dict[str, list[dict[str, Any]]], host: str, rng: Random) -> None:
    rows["hosts"].append({
        "host": host, "esxi_version": "5.5.0", "esxi_build": "1331820", "vendor": "HP", "model": rng.choice(MODELS),
        "first_seen": START, "last_seen": START + pd.Timedelta(days=DAYS),
    })  # fmt: skip
    for day in range(0, DAYS, BOOT_DAYS):
        boot, life = START + pd.Timedelta(days=day, hours=rng.random()), pd.Timedelta(days=BOOT_DAYS, hours=-2)
        rows["uptimes"].append({"host": host, "boot": boot, "end": boot + life, "uptime": life, "end_reason": "reboot"})
        rows["drivers"] += [
            {"host": host, "module": module, "version": rng.choice(VERSIONS), "state": "loaded", "observed_at": boot,
             "boot": boot, "evidence": "banner", "source": f"{host}/vmkernel.log"}
            for module in MODULES
        ]  # fmt: skip
        for part in range(GAPS):
            start = boot + life * (part / GAPS)
            rows["coverage"].append({"host": host, "boot": boot, "start": start, "end": start + life * (0.9 / GAPS)})


def _crash(rows: dict[str, list[dict[str, Any]]], crash_id: str, host: str, rng: Random) -> None:
    kind, module = min(int(rng.expovariate(0.05)), SIGNATURES - 1), rng.choice(MODULES)
    names = [f"{module}_fn{kind + i}" for i in range(4)] + [f"CpuSched_fn{i}" for i in range(FRAMES - 4)]
    rows["crashes"].append({
        "crash_id": crash_id, "host": host, "time": START + pd.Timedelta(days=DAYS * rng.random()), "kind": "page_fault",
        "esxi_version": "5.5.0", "esxi_build": rng.choice(["1331820", "1623387", "2068190"]), "guilty_module": module,
        "guilty_function": names[0], "guilt": "symbol_prefix", "driver_version": rng.choice(VERSIONS),
        "driver_evidence": "banner", "signature": names[0], "proto_signature": " | ".join(names), "deliberate": False,
        "message": "#PF Exception 14 in world 9607609:vmklinux_9:h IP 0x418018b7e594 addr 0x0", "damage": "",
        "source": f"{host}/var/core/vmkernel-log.1", "line": 1, "offset": 0, "sha256": "9f" * 32, "copies": 1,
    })  # fmt: skip
    rows["frames"] += [
        {"crash_id": crash_id, "backtrace": 0, "index": i, "function": name, "offset": 16, "address": 0x418000000000 + i,
         "module": module if i < 4 else "vmkernel", "module_evidence": "printed"}
        for i, name in enumerate(names)
    ]  # fmt: skip


def clicks(explorer: Explorer) -> dict[str, Iterable[Callable[[], None]]]:
    """What a click asks of Python, by name; filters, zoom and sorting are the script's, in the browser."""
    ids = list(explorer.crashes)

    def choose(place: str) -> Callable[[], None]:
        return lambda: setattr(explorer.picture, "chosen", place)

    hosts = [boot["host"] for boot in explorer.picture.data["hosts"][:20]]
    return {
        "choose a crash": [choose(f"crash={ids[i]}") for i in range(3, 103, 5)],
        "choose a host": [choose(f"host={host}") for host in hosts],
    }


def sent(explorer: Explorer) -> float:
    """Kilobytes of the chosen crash: what a click sends."""
    return len(explorer.crash.value.encode()) / 1000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--crashes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    fleet = made_up(options.hosts, options.crashes, Random(options.seed))
    print(fleet)
    with TemporaryDirectory() as folder:
        begin = time.perf_counter()
        explorer = explore(fleet, notes=Path(folder)).explorer
        data = len(json.dumps(explorer.picture.data)) / 1e6
        print(f"explore(fleet) {(time.perf_counter() - begin) * 1000:,.0f} ms; data of the script {data:.1f} MB")
        print(f"{'click':28} {'median ms':>10} {'worst ms':>10} {'CPU ms':>8} {'shown kB':>10}  within {LIMIT} ms")
        for name, series in clicks(explorer).items():
            times, busy = [], []
            for click in series:
                begin, work = time.perf_counter(), time.process_time()
                click()
                busy.append((time.process_time() - work) * 1000)
                times.append((time.perf_counter() - begin) * 1000)
            median = statistics.median(times)
            within = "yes" if median <= LIMIT else "no"
            print(
                f"{name:28} {median:10.0f} {max(times):10.0f} {statistics.median(busy):8.0f} {sent(explorer):10.0f}  {within}"
            )


if __name__ == "__main__":
    main()
