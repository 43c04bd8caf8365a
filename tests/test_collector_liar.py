"""Collecting from servers that lie, stall, flood and hang up: each costs its own host, and no byte that came."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import paramiko
import pytest
from collector_servers import Liar, lying
from conftest import ROOT

from psodlib.collector import Collection, Limits, Target, collect
from psodlib.collector.folder import Folder, Manifest, Record

LOG = "var/run/log/vmkernel.log"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    paramiko.ECDSAKey.generate().write_private_key_file(str(path))
    return path


@pytest.fixture
def run(tmp_path: Path, key: Path) -> Any:
    def go(liar: Liar, **options: Any) -> Collection:
        options = {"key": key, "known_hosts": tmp_path / "known_hosts", "trust_first_use": True} | options
        options.setdefault("limits", Limits(connect=2, login=5, command=1, idle=1, total=20))
        return collect([Target(name="liar", address="127.0.0.1", port=liar.port)], tmp_path / "out", **options)

    return go


def manifest(tmp_path: Path) -> Manifest:
    found = Folder(tmp_path / "out", "liar").manifest()
    assert found is not None
    return found


def record(tmp_path: Path) -> Record:
    found = manifest(tmp_path).get(f"/{LOG}")
    assert found is not None
    return found


@pytest.mark.parametrize("lie", ["", "short"])
def test_every_byte_comes_in_its_place_also_in_short_answers(run: Any, tmp_path: Path, lie: str) -> None:
    with lying(lie, content=random.Random(7).randbytes(3_000_001)) as liar:
        assert run(liar).complete
    assert (tmp_path / "out/liar" / LOG).read_bytes() == liar.content


def test_a_size_that_is_a_lie_leaves_what_came(run: Any, tmp_path: Path) -> None:
    with lying("size") as liar:
        result = run(liar)
    assert result.hosts.state[0] == "partial"
    assert record(tmp_path).detail == "the host said 401000 bytes and gave 400000"
    assert (tmp_path / "out/liar" / f"{LOG}.part").read_bytes() == liar.content


def test_an_absurd_size_is_not_begun(run: Any, tmp_path: Path) -> None:
    with lying("huge") as liar:
        result = run(liar)
    assert result.hosts.bytes[0] < 1000 and record(tmp_path).state == "skipped"


@pytest.mark.parametrize(
    ("lie", "said"),
    [("stall", "nothing came for 1 s while reading"), ("disconnect", "the connection broke while reading")],
)
def test_what_came_before_the_end_is_kept_and_the_next_run_goes_on(
    run: Any, tmp_path: Path, lie: str, said: str
) -> None:
    with lying(lie) as liar:
        first = run(liar)
        assert first.hosts.state[0] == "partial" and said in first.hosts.why[0]
        came = (tmp_path / "out/liar" / f"{LOG}.part").read_bytes()
        assert came and liar.content.startswith(came)
        assert record(tmp_path).state == "partial"
        liar.lie = ""
        second = run(liar)
    assert second.complete and second.hosts.bytes[0] < len(liar.content) - len(came) + 1000
    assert (tmp_path / "out/liar" / LOG).read_bytes() == liar.content


def test_a_slow_server_meets_the_total_limit(run: Any, tmp_path: Path) -> None:
    with lying("slow", content=b"y" * 3_000_000) as liar:
        result = run(liar, limits=Limits(connect=2, login=5, idle=2, total=2))
    assert "time limit of the visit" in result.hosts.why[0]
    assert (tmp_path / "out/liar" / f"{LOG}.part").stat().st_size > 0


def test_a_file_that_may_not_be_read_costs_only_itself(run: Any, tmp_path: Path) -> None:
    with lying("failure") as liar:
        result = run(liar)
    assert result.hosts.state[0] == "partial" and record(tmp_path).state == "failed"
    assert "cannot be read" in record(tmp_path).detail
    assert manifest(tmp_path).get("date").state == "whole"  # type: ignore[union-attr]


def test_hostile_names_become_no_path_and_no_escape(run: Any, tmp_path: Path) -> None:
    with lying("names") as liar:
        assert run(liar).complete
    files = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert files == {f"liar/{LOG}", "liar/var/run/log/vmkernel.2.gz", "liar/commands/date.txt", "liar/manifest.json"}
    refused = manifest(tmp_path).refused_names
    assert len(refused) == 5 and all(name.isprintable() for name in refused)
    assert {p.name for p in tmp_path.iterdir()} == {"out", "known_hosts"}


def test_a_listing_of_long_names_is_bounded_by_its_letters(run: Any, tmp_path: Path) -> None:
    with lying("crowd") as liar:  # much to list, on a busy machine
        (why,) = run(liar, limits=Limits(connect=5, login=10, command=10, idle=10, total=60)).hosts.why
    assert "lists more than 20,000 names, or names of 4,194,304 letters" in why
    assert manifest(tmp_path).get("date").state == "whole"  # type: ignore[union-attr]


def test_a_name_too_long_or_with_digits_of_another_script_costs_itself(run: Any, tmp_path: Path) -> None:
    with lying("long") as liar:
        assert run(liar).complete
    assert record(tmp_path).state == "whole"
    assert [len(name) for name in manifest(tmp_path).refused_names] == [120, len("vmkernel.\\u0663.gz") - 5]


@pytest.mark.parametrize("lie", ["stall-command", "flood", "drip", "stderr"])
def test_a_command_that_hangs_or_floods_is_bounded(run: Any, tmp_path: Path, lie: str) -> None:
    with lying(lie) as liar:
        result = run(liar)
    assert (tmp_path / "out/liar" / LOG).read_bytes() == liar.content, "the rest of the host was collected"
    if lie == "stall-command":
        assert "uptime: gave nothing for 1 s; left alone" in result.hosts.why[0]
    output = tmp_path / "out/liar/commands/uptime.txt"
    if lie == "flood":
        told = manifest(tmp_path).get("uptime")
        assert told is not None and told.state == "partial" and "cut after 16,777,216 bytes" in told.detail
        assert output.stat().st_size == 16 << 20
        assert b"\x1b" not in (tmp_path / "out/liar/manifest.json").read_bytes()
    if lie == "drip":
        told = manifest(tmp_path).get("uptime")
        assert told is not None and told.state == "partial" and re.search(r"cut after [45] s", told.detail)
        assert set(output.read_text().split()) == {"drop"}


def test_the_byte_limit_of_a_host_holds_for_commands_too(run: Any, tmp_path: Path) -> None:
    with lying("flood") as liar:
        result = run(liar, limits=Limits(connect=2, login=5, command=1, idle=1, total=20, bytes=50_000))
    assert result.hosts.bytes[0] <= 50_000 and "cut after 49,9" in result.hosts.why[0]
    assert record(tmp_path).state == "skipped"


def test_a_wrong_clock_is_told(run: Any, tmp_path: Path) -> None:
    with lying("clock") as liar:
        result = run(liar)
    assert result.complete and 7100 < result.hosts.clock_offset[0] < 7300
    assert "s ahead" in result.hosts.why[0]


def test_a_server_that_says_nothing_is_given_up(run: Any) -> None:
    with lying("silent") as liar:
        result = run(liar)
    assert result.hosts.state[0] == "failed" and "is it an SSH server" in result.hosts.why[0]


@pytest.mark.parametrize(
    "said", [b"220 mail\x1b[2J\r\n" * 200, b"SSH-2.0-x\r\n\x7f\xff\xff\xff" + b"A" * 99, b"A" * 9_000_000]
)
def test_what_is_no_ssh_server_is_said_in_words(tmp_path: Path, key: Path, said: bytes) -> None:
    def answer(server: socket.socket) -> None:
        with contextlib.suppress(OSError), server.accept()[0] as client:
            client.sendall(said)
            client.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=[server], daemon=True).start()
        place = Target(name="liar", address="127.0.0.1", port=server.getsockname()[1])
        limits = Limits(connect=2, login=2)
        why = collect([place], tmp_path / "out", key=key, known_hosts=tmp_path / "keys", limits=limits).hosts.why[0]
    assert "is it an SSH server" in why and "Exception" not in why and "\x1b" not in why


def test_ssh_off_and_no_such_name_say_what_to_do(tmp_path: Path, key: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    hosts = [Target(name="off", address="127.0.0.1", port=port), Target(name="nowhere", address="nowhere.invalid")]
    result = collect(hosts, tmp_path / "out", key=key, known_hosts=tmp_path / "known_hosts")
    assert "start the service TSM-SSH" in result.hosts.why[0]
    assert "does not resolve" in result.hosts.why[1]
    assert not result.complete


def test_a_refused_key_is_tried_once(run: Any) -> None:
    with lying("refuse") as liar:
        result = run(liar)
    assert liar.attempts == ["publickey"] and "lockdown" in result.hosts.why[0]


@pytest.mark.parametrize(
    ("lie", "said", "attempts"),
    [("", "", ["keyboard-interactive", "answer"]), ("token", "asks for more than a password", ["keyboard-interactive"]),
     ("two", "asks for more than a password", ["keyboard-interactive"]), ("echo", "asks for more than a password", ["keyboard-interactive"]),
     ("expired", "the password has expired", ["keyboard-interactive", "answer"])],
)  # fmt: skip
def test_prompts_other_than_the_password_are_refused_unanswered(
    run: Any, lie: str, said: str, attempts: list[str]
) -> None:
    with lying(lie, password="Secret-4711") as liar:
        result = run(liar, key=None, password=lambda user: "Secret-4711")
    assert liar.attempts == attempts
    assert result.complete if not said else said in result.hosts.why[0]
    assert "Secret-4711" not in result.hosts.to_string()


def test_ctrl_c_ends_cleanly_and_keeps_what_came(tmp_path: Path, key: Path) -> None:
    script = (
        "import sys; from psodlib.collector import *\n"
        "port, key, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]\n"
        "try: collect([Target(name=n, address='127.0.0.1', port=port) for n in ('liar', 'b', 'c')], out + '/out', key=key, pool=2,\n"
        "             known_hosts=out + '/known_hosts', trust_first_use=True)\n"
        "except KeyboardInterrupt: print('stopped'); sys.exit(130)\n"
    )
    with lying("stall") as liar:
        words = [sys.executable, "-c", script, str(liar.port), str(key), str(tmp_path)]
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 60
        part = tmp_path / "out/liar" / f"{LOG}.part"
        while time.monotonic() < end and not (part.exists() and part.stat().st_size):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=15)
    assert (process.returncode, said, errors) == (130, "stopped\n", "")
    assert part.stat().st_size > 0
    assert manifest(tmp_path).state == "interrupted" and "run again" in manifest(tmp_path).why
    assert Folder(tmp_path / "out", "c").manifest().state == "not_tried"  # type: ignore[union-attr]
