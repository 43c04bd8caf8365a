"""Collecting from 200 loopback hosts: wall time by pool size, peak memory and bytes, beside a plain `for h in ...; do scp ...` loop.

    python benchmarks/collect.py [hosts] [pool ...]     (each row as it is measured)

Needs root, sshd and unshare, as the collector's tests do; touches loopback only. asyncssh joins the table where it is installed, or
where ASYNCSSH_PYTHON names the Python of an environment that has it. "CPU s" are processor seconds of the collecting side alone (the
sshd of all hosts run on the same cores and add theirs to the wall time).
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from collector_servers import Esx, make_key, why_no_sshd  # noqa: E402

SERVERS = 4
COLLECT = """
import json, resource, sys, time
from psodlib.collector import Target, collect
ports, out, key, known, pool, count = json.loads(sys.argv[1])
hosts = [Target(name=f"esx{n:03}", address="127.0.0.1", port=ports[n % len(ports)]) for n in range(count)]
begun, use = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
before = use.ru_utime + use.ru_stime
run = collect(hosts, out, key=key, known_hosts=known, trust_first_use=True, pool=pool)
seconds = time.monotonic() - begun
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
use = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([seconds, use.ru_utime + use.ru_stime - before, peak, int(run.hosts.bytes.sum()), int((run.hosts.state == "complete").sum())]))
"""
# The row that stands fairly beside those that run no command.
LOGS_ONLY = "import psodlib.collector.visit as visiting; visiting.COMMANDS = ()\n"
ASYNC = """
import asyncio, asyncssh, json, os, resource, sys, time
ports, out, key, known, pool, count = json.loads(sys.argv[1])
async def one(gate, n):
    async with gate, asyncssh.connect("127.0.0.1", ports[n % len(ports)], username="root", client_keys=[key], known_hosts=None) as link:
        os.makedirs(f"{out}/{n}")
        async with link.start_sftp_client() as files:
            await files.mget("/var/run/log/*", f"{out}/{n}")
async def main():
    gate = asyncio.Semaphore(pool)
    await asyncio.gather(*(one(gate, n) for n in range(count)))
begun, use = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
before = use.ru_utime + use.ru_stime
asyncio.run(main())
seconds, use = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF)
size = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(out) for f in fs)
print(json.dumps([seconds, use.ru_utime + use.ru_stime - before, use.ru_maxrss / 1024, size, count]))
"""


def measured(python: str, script: str, *arguments: object) -> list[float]:
    """Run one way in a process of its own; seconds, processor seconds, peak MB, bytes, hosts."""
    done = subprocess.run(
        [python, "-c", script, json.dumps(arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    return list(json.loads(done.stdout))


def scp_loop(ports: list[int], out: Path, key: Path, count: int) -> list[float]:
    """What an administrator types: one host after the other, logs and dumps only."""
    begun, before = time.monotonic(), os.times()
    for number in range(count):
        folder = out / f"esx{number:03}"
        folder.mkdir(parents=True)
        words = [
            "scp",
            "-q",
            "-i",
            str(key),
            "-P",
            str(ports[number % len(ports)]),
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ]
        subprocess.run(
            [*words, "root@127.0.0.1:/var/run/log/*", str(folder)], check=True, timeout=60, capture_output=True
        )
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    after = os.times()
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    return [time.monotonic() - begun, busy, 0, size, count]


def main(count: int = 200, pools: tuple[int, ...] = (8, 32)) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        key, host_key = make_key(work / "user"), make_key(work / "host")
        servers = [Esx(work / f"root{n}", f"esx{n}") for n in range(SERVERS)]
        try:
            for server in servers:
                server.start(user_key=key, host_key=host_key)
            ports = [server.port for server in servers]

            def way(name: str, script: str, out: str, pool: int, python: str = sys.executable) -> None:
                show(
                    name,
                    measured(python, script, ports, str(work / out), str(key), str(work / "known"), pool, count),
                    count,
                )

            print(f"{count} hosts behind {SERVERS} sshd on loopback")
            print(
                f"{'way':34} {'seconds':>8} {'CPU s':>8} {'load':>6} {'hosts/s':>8} {'peak MB':>8} {'MB':>8} {'whole':>6}"
            )
            for pool in pools:
                way(f"psod collect, pool {pool}", COLLECT, f"out{pool}", pool)
            way(f"psod collect, pool {pools[-1]}, second run", COLLECT, f"out{pools[-1]}", pools[-1])
            other = os.environ.get("ASYNCSSH_PYTHON") or (importlib.util.find_spec("asyncssh") and sys.executable)
            for pool in pools:
                way(f"psod collect, pool {pool}, logs only", LOGS_ONLY + COLLECT, f"logs{pool}", pool)
                if other:
                    way(f"asyncssh, {pool} at once (logs only)", ASYNC, f"async{pool}", pool, str(other))
            if not other:
                print("asyncssh is not installed here: not measured")
            show("scp loop (logs only)", scp_loop(ports, work / "scp", key, count), count)
        finally:
            for server in servers:
                server.stop()


def show(way: str, figures: list[float], count: int) -> None:
    """Print one row."""
    seconds, busy, peak, size, whole = figures
    print(
        f"{way:34} {seconds:8.1f} {busy:8.1f} {os.getloadavg()[0]:6.1f} {count / seconds:8.1f} {peak or float('nan'):8.0f} {size / 1e6:8.1f} {whole:6.0f}",
        flush=True,
    )


if __name__ == "__main__":
    reason = why_no_sshd()
    if reason:
        raise SystemExit(f"cannot measure: {reason}")
    main(*([int(sys.argv[1])] if sys.argv[1:] else []), *([tuple(map(int, sys.argv[2:]))] if sys.argv[2:] else []))
