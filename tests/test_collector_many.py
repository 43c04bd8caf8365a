"""Two hundred hosts at once on loopback, some of them dead, from an inventory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from collector_servers import Esx, make_key, needs_sshd

from psodlib.collector import Limits, ascertainment, collect

pytestmark = needs_sshd
HOSTS, DEAD, POOL = 200, 5, 16


def test_two_hundred_hosts(tmp_path: Path) -> None:
    key, host_key = make_key(tmp_path / "user"), make_key(tmp_path / "host")
    servers = [Esx(tmp_path / f"root{n}", f"real{n}", loaded=f"5.5.0.{50 + n}") for n in range(4)]
    seen: list[tuple[str, int, int | None]] = []
    try:
        for server in servers:
            server.start(user_key=key, host_key=host_key)
        rows = [f"esx{n:03},127.0.0.1,{servers[n % 4].port if n >= DEAD else 1}" for n in range(HOSTS)]
        (tmp_path / "hosts.csv").write_text("\n".join(["host,address,port", *rows]))
        run = collect(
            tmp_path / "hosts.csv", tmp_path / "out", key=key, known_hosts=tmp_path / "known", trust_first_use=True, pool=POOL,
            version_only=True, limits=Limits(idle=20, total=60), progress=lambda what, done, total: seen.append((what, done, total)),
        )  # fmt: skip
        most = max(_at_once(server.said()) for server in servers)
    finally:
        for server in servers:
            server.stop()
    assert list(run.hosts.host) == [f"esx{n:03}" for n in range(HOSTS)]
    assert run.hosts.state.value_counts().to_dict() == {"complete": HOSTS - DEAD, "failed": DEAD}
    assert run.hosts.why[:DEAD].str.contains("SSH is off").all() and not run.complete
    for number in range(DEAD, HOSTS):
        proc = (tmp_path / f"out/esx{number:03}/commands/cat_procscsihpsa.txt").read_text()
        assert f"v 5.5.0.{50 + number % 4}-" in proc, "no host's bytes reached another's folder"
    assert most <= POOL
    assert seen[-1][1:] == (HOSTS, HOSTS) and any("slowest esx" in what for what, _, _ in seen)
    assert ascertainment(tmp_path / "out").gave.value_counts().to_dict() == {"outputs": HOSTS - DEAD, "nothing": DEAD}
    assert len((tmp_path / "known").read_text().split("\n")) == 5, "one line a server, whatever the number of threads"


def _at_once(log: str) -> int:
    # Most logins open at a time, by the server's own log.
    count = most = 0
    for line in log.split("\n"):
        count += bool(re.search("Accepted publickey", line)) - bool(
            re.match("Closing connection|Connection closed by|Read error|Connection reset|Disconnected from user", line)
        )
        most = max(most, count)
    return most


@pytest.mark.parametrize("pool", [1, 32])
def test_any_pool_visits_every_host_once(tmp_path: Path, pool: int) -> None:
    key, host_key = make_key(tmp_path / "user"), make_key(tmp_path / "host")
    server = Esx(tmp_path / "root")
    try:
        server.start(user_key=key, host_key=host_key)
        (tmp_path / "hosts.csv").write_text(
            "host,address,port\n" + "".join(f"h{n},127.0.0.1,{server.port}\n" for n in range(6))
        )
        run = collect(
            tmp_path / "hosts.csv",
            tmp_path / "out",
            key=key,
            known_hosts=tmp_path / "known",
            trust_first_use=True,
            pool=pool,
            version_only=True,
        )
    finally:
        server.stop()
    assert run.complete and server.said().count("Accepted publickey") == 6
