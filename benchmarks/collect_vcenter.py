"""A whole vCenter: collecting, verifying and the host list, in seconds, bytes and memory. Against govmomi's simulator.

    python benchmarks/collect_vcenter.py [HOSTS ...]

Each host has two packages' worth of driver, a vmkernel log of 5,000 lines and a boot event; a call takes 20 ms, about what one
through a vCenter on the same site does (the simulator itself answers in less than one).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PSOD = str(Path(sys.executable).with_name("psod"))
SLOW = 20  # milliseconds a call
PIN = "5.5.0.58"


def built(folder: Path) -> Path:
    """The simulator's program."""
    program = folder / "vcsim"
    env = dict(os.environ, GO111MODULE="off", GOPATH="/usr/share/gocode", GOFLAGS="")
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=ROOT / "tests/vcenter", env=env, check=True)
    return program


@contextmanager
def vcenter(program: Path, folder: Path, hosts: int) -> Iterator[tuple[str, str]]:
    """A vCenter with that many hosts: its address, and its certificate's file."""
    answers = folder / f"answers-{hosts}"
    answers.mkdir()
    clusters = max(1, hosts // 20)
    events = [{"kind": "UserLoginSessionEvent", "hours_ago": 29 * 24, "text": "somebody logged in"}]
    events += [
        {
            "kind": "esx.audit.host.boot",
            "host": f"DC0_C{cluster}_H{at}",
            "hours_ago": 20 * 24,
            "text": "Host has booted.",
        }
        for cluster in range(clusters)
        for at in range(hosts // clusters)
    ]
    log = "".join(
        f"2026-11-01T{at // 3600 % 24:02d}:{at // 60 % 60:02d}:{at % 60:02d}.123Z cpu1:32768)ScsiDeviceIO: 2331: a line {at} of the log\n"
        for at in range(5000)
    )
    told = {
        "packages.json": [{"Name": "scsi-hpsa", "Version": f"{PIN}-1OEM.550.0.0.1331820", "Vendor": "Hewlett-Packard"}],
        "modules.json": [{"Name": "hpsa", "Version": f"Version {PIN}-1OEM, Build: 1331820", "Loaded": True}],
        "events.json": events, "faults.json": {"slow_calls": SLOW},
    }  # fmt: skip
    for name, content in told.items():
        (answers / name).write_text(json.dumps(content))
    (answers / "vmkernel.log").write_text(log)
    pem, key = answers / "cert.pem", answers / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(pem), "-days", "2",
                    "-subj", "/CN=localhost"], check=True, capture_output=True)  # fmt: skip
    words = [str(program), str(hosts), str(clusters), str(answers), str(pem), str(key)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), thumbprint(pem)
    finally:
        process.kill()
        process.communicate()


def thumbprint(pem: Path) -> str:
    """Its SHA-256."""
    said = subprocess.run(
        ["openssl", "x509", "-in", str(pem), "-noout", "-fingerprint", "-sha256"],
        check=True,
        capture_output=True,
        text=True,
    )
    return said.stdout.strip().partition("=")[2]


def measured(words: list[str]) -> tuple[str, float, float, int]:
    """What a command said; seconds, processor seconds, and MB at most."""
    begun = time.monotonic()
    done = subprocess.run(["/usr/bin/time", "-f", "cost %U %S %M", PSOD, *words], capture_output=True, text=True)
    cost = re.findall(r"cost ([\d.]+) ([\d.]+) (\d+)", done.stderr)
    if done.returncode or not cost:
        raise SystemExit(f"psod {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    user, system, memory = cost[-1]
    return done.stdout, time.monotonic() - begun, float(user) + float(system), int(memory) // 1024


def main() -> None:
    """Print the table."""
    print(
        "| hosts | what | seconds | processor s | MB at most | bytes written |\n| --- | --- | --- | --- | --- | --- |",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        program = built(folder)
        for hosts in [int(word) for word in sys.argv[1:]] or [200, 1000]:
            with vcenter(program, folder, hosts) as (address, print_):
                login = [
                    "--vcenter",
                    address,
                    "--user",
                    "reader",
                    "--password-command",
                    "echo secret",
                    "--thumbprint",
                    print_,
                ]
                out = folder / f"out-{hosts}"
                for what, words in (
                    ("collect", ["collect", "-o", str(out), *login]),
                    ("collect again", ["collect", "-o", str(out), *login]),
                    ("verify", ["verify", "--pin", PIN, "-o", str(folder / f"verify-{hosts}"), *login]),
                    ("hosts", ["hosts", *login]),
                ):
                    before = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
                    _, seconds, processor, memory = measured(words)
                    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) - before
                    print(
                        f"| {hosts:,} | {what} | {seconds:.1f} | {processor:.1f} | {memory:,} | {size:,} |", flush=True
                    )


if __name__ == "__main__":
    main()
