"""Every fault that a server can be made to commit: what was injected, what the user saw, and whether a byte was lost.

    python benchmarks/collect_faults.py     (a Markdown table, a row as it is measured; loopback only)

Each host is visited twice: with the fault, and after it. Lost is what the second visit could not bring, or what the first
one had brought and the second threw away.
"""

from __future__ import annotations

import socket
import sys
import tempfile
from pathlib import Path

import paramiko

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from collector_servers import lying  # noqa: E402

from psodlib.collector import Collection, Limits, Target, collect  # noqa: E402

LOG = "var/run/log/vmkernel.log"
PATIENCE = Limits(connect=5, login=10, command=2, idle=2, total=30)
SHORT = Limits(connect=5, login=10, total=2)  # for the slow one
FAULTS = {
    "size": "says 1,000 bytes more than it gives",
    "huge": "says that a log has 2^60 bytes",
    "names": "lists ../, quotes, line breaks, ANSI codes",
    "stall": "stops in the middle of a file",
    "disconnect": "hangs up in the middle of a file",
    "slow": "gives 300 kB/s, more than the time allows",
    "failure": "refuses to read a file",
    "stall-command": "a command never ends",
    "flood": "a command never stops writing",
    "drip": "a command writes a drop now and then, for ever",
    "stderr": "a command floods standard error",
    "clock": "its clock is two hours ahead",
    "silent": "accepts, and says nothing",
    "refuse": "refuses the key",
}
PROMPTS = {
    "token": "asks for a one-time password",
    "two": "asks for two things at once",
    "echo": "asks for a password that would show",
    "expired": "the password has expired",
}


def visit(port: int, work: Path, limits: Limits, **login: object) -> Collection:
    """One host, one visit."""
    host = Target(name="host", address="127.0.0.1", port=port)
    options = {"known_hosts": work / "known", "trust_first_use": True, "limits": limits}
    return collect([host], work / "out", **options, **login)  # type: ignore[arg-type]


def row(injected: str, lie: str) -> str:
    """Visit with the fault and after it."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        key = work / "key"
        paramiko.ECDSAKey.generate().write_private_key_file(str(key))
        password = "only-here-5521" if lie in PROMPTS else ""
        login: dict[str, object] = {"password": lambda user: password} if password else {"key": key}
        content = bytes(range(256)) * (12_000 if lie == "slow" else 1_600)
        with lying(lie, password=password, content=content) as liar:
            first = visit(liar.port, work, SHORT if lie == "slow" else PATIENCE, **login)
            came = [path.read_bytes() for path in (work / "out").rglob("vmkernel.log*")]
            liar.lie = ""
            after = visit(liar.port, work, PATIENCE, **login)
        log = work / "out/host" / LOG
        whole = log.exists() and log.read_bytes() == content
        lost = (
            "nothing"
            if after.complete and whole and all(content.startswith(part) for part in came)
            else f"SOMETHING: {after.hosts.why[0]}"
        )
        kept = max(map(len, came), default=0)
        said = str(first.hosts.why[0] or "refused names are listed in the manifest" * (lie == "names"))
        return f"| {injected} | {first.hosts.state[0]}: {said.replace('|', '/')} | {kept:,} | {lost} |"


def main() -> None:
    """Print the table."""
    print("| injected | what the manifest and the user saw | bytes of the log kept | lost |\n| --- | --- | --- | --- |")
    for lie, injected in {**FAULTS, **PROMPTS}.items():
        print(row(injected, lie), flush=True)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        key = Path(name) / "key"
        paramiko.ECDSAKey.generate().write_private_key_file(str(key))
        off = visit(port, Path(name), PATIENCE, key=key)
    print(f"| SSH is off | {off.hosts.state[0]}: {off.hosts.why[0]} | 0 | nothing |".replace(str(port), "PORT"))


if __name__ == "__main__":
    main()
