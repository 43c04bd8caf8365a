"""`psod collect` and `psod verify` as people run them: the installed command, in a pipe and on a terminal, against real sshd."""

from __future__ import annotations

import contextlib
import gzip
import html
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from collector_servers import Esx, lying, make_key, needs_sshd, serving
from conftest import DATA, here

from psodlib.collector import Limits, collect
from psodlib.collector.folder import Folder, Manifest

pytestmark = needs_sshd
INCIDENT = DATA / "incident-2014-05-31/incident-host/var/core/vmkernel-log.1"
PSOD = Path(sys.executable).with_name("psod")
BIG = 400 << 20  # bytes of a log: a second or more of copying on a fast machine
PRESSES = 20  # an impatient user: only the first may count
TOLD = re.compile(r"([\d,]+) bytes fetched")


def words(served: dict[str, Path], work: Path, *more: str | Path) -> list[str]:
    """The options that every visit here needs."""
    options = ["--key", served["key"], "--known-hosts", work / "known_hosts", "-o", work / "evidence", *more]
    return [str(word) for word in (served["hosts"], *options)]


def run(*command: str, cwd: Path, limit: float = 120) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        [str(PSOD), *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=limit
    )


def in_a_pipe(command: list[str], cwd: Path, ready: Callable[[str], bool], presses: int) -> tuple[int, str, float]:
    """Exit code, all that was printed, seconds from the first SIGINT to the end."""
    with subprocess.Popen([str(PSOD), *command], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        until = time.monotonic() + 30
        while not ready("reading /var/run/log/hostd.log") and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        begun = time.monotonic()
        for _ in range(presses):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        said, _ = process.communicate(timeout=30)
    return process.returncode, said.decode(), time.monotonic() - begun


def on_a_terminal(
    command: list[str], cwd: Path, ready: Callable[[str], bool], presses: int, keys: bytes = b"\x03"
) -> tuple[int, str, float]:
    """The same, where Ctrl-C is a key of the terminal; ``ready`` is asked with all that was shown."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "150"}
    said, begun = b"", 0.0
    try:
        with subprocess.Popen(
            ["setsid", "--ctty", str(PSOD), *command],
            cwd=cwd,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as process:
            try:
                until = time.monotonic() + 60
                while process.poll() is None and time.monotonic() < until:
                    said += read(ours)
                    if not begun and ready(said.decode("utf-8", "replace")):
                        begun = time.monotonic()
                        for _ in range(presses):
                            os.write(ours, keys)
                            time.sleep(0.02)
            finally:
                process.kill()
        shown = (said + read(ours)).decode().replace("^C", "")  # the terminal's own echo
        return process.returncode, shown, time.monotonic() - begun
    finally:
        os.close(ours)
        os.close(theirs)


def read(terminal: int) -> bytes:
    return os.read(terminal, 1 << 16) if select.select([terminal], [], [], 0.05)[0] else b""


def manifest(work: Path, name: str) -> Manifest:
    found = Folder(work / "evidence", name).manifest()
    assert found is not None
    return found


@pytest.mark.parametrize("place", [in_a_pipe, on_a_terminal])
def test_ctrl_c_in_mid_copy_keeps_what_came_and_the_next_run_fetches_the_rest(
    tmp_path: Path, place: Callable[..., tuple[int, str, float]]
) -> None:
    hosts = [Esx(tmp_path / f"root{n}", f"esx{n}") for n in range(2)]
    hosts[0].log("hostd.log", os.urandom(BIG))
    log = tmp_path / "evidence/esx0/var/run/log/hostd.log"
    part = log.with_name("hostd.log.part")

    def copying(shown: str) -> bool:
        return "reading /var/run/log/hostd.log" in shown and part.exists() and part.stat().st_size > 1 << 20

    with serving(tmp_path, *hosts) as served:
        command = ["collect", *words(served, tmp_path, "--trust-first-use", "--pool", "1")]
        code, said, seconds = place(command, tmp_path, copying, PRESSES)
        assert code == 130 and seconds < 10
        came = part.read_bytes()
        assert 1 << 20 < len(came) < BIG and (hosts[0].root / "run/log/hostd.log").read_bytes().startswith(came)
        assert [manifest(tmp_path, name).state for name in ("esx0", "esx1")] == ["interrupted", "not_tried"]
        assert manifest(tmp_path, "esx0").get("/var/run/log/vmkernel.log").state == "whole"  # type: ignore[union-attr]
        rest = run(*command, cwd=tmp_path)
    assert rest.returncode == 0, rest.stdout + rest.stderr
    assert log.read_bytes() == (hosts[0].root / "run/log/hostd.log").read_bytes() and not part.exists()
    fetched = int(TOLD.search(rest.stdout)[1].replace(",", ""))  # type: ignore[index]
    assert fetched < BIG - len(came) + 300_000, "of the first host only the rest of the log and the outputs came again"

    assert "Traceback" not in said and said.count("run it again to go on") == 1
    assert said.count("trusted on first use, compare it: esx0 SHA256:") == 1
    if place is in_a_pipe:
        assert said.isprintable() or set(filter(lambda c: not c.isprintable(), said)) == {"\n"}
    else:
        assert re.search(r"[\d.]+ MB, slowest esx0 \(\d+ s, reading /var/run/log/hostd\.log\)", said)
        assert " 0/2" in re.sub(r"\x1b\[[\d;]*m", " ", said), "hosts done"
        assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l"), "the cursor is back"
        assert said.rstrip().endswith("run it again to go on"), "nothing is drawn after the last word"


def test_ctrl_c_waits_for_no_host_that_does_not_answer(tmp_path: Path) -> None:
    # A full queue of connections: loopback then answers no more than a host behind a firewall does.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as callers:
        for _ in range(4):
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(full.getsockname())
        key = make_key(tmp_path / "user")
        (tmp_path / "hosts.csv").write_text(f"host,address,port\nesx0,127.0.0.1,{full.getsockname()[1]}\n")
        command = ["collect", *words({"key": key, "hosts": tmp_path / "hosts.csv"}, tmp_path, "--connect", "60")]
        code, said, seconds = on_a_terminal(command, tmp_path, lambda shown: "connecting" in shown, 1)
    assert code == 130 and seconds < 8, said
    assert manifest(tmp_path, "esx0").state == "interrupted"


def test_a_password_is_asked_for_before_a_bar_is_drawn_and_is_not_shown(tmp_path: Path) -> None:
    with lying("", password="Secret-4711") as liar:
        place = f"127.0.0.1:{liar.port}"
        command = ["collect", place, "--ask-password", "--trust-first-use", "-o", str(tmp_path / "evidence")]
        code, said, _ = on_a_terminal(command, tmp_path, lambda shown: "root: " in shown, 1, b"Secret-4711\n")
    assert code == 0 and "1 of 1 hosts complete" in said
    assert "New in this run" in said and "Next: psod report" in said
    assert said.startswith("Password of root: ") and "Secret" not in said


def test_ctrl_c_at_the_password_is_one_sentence(tmp_path: Path) -> None:
    command = ["collect", "esx01", "--ask-password", "-o", str(tmp_path / "evidence")]
    code, said, _ = on_a_terminal(command, tmp_path, lambda shown: "root: " in shown, 1)
    assert code == 130 and "Traceback" not in said
    assert not (tmp_path / "evidence").exists()


def test_a_resolver_without_an_answer_is_left_after_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *place, **more: over.wait(60))
    begun = time.monotonic()
    done = collect(["esx01"], tmp_path / "evidence", key=make_key(tmp_path / "user"), limits=Limits(connect=1))
    over.set()
    assert time.monotonic() - begun < 5
    assert "does not resolve" in done.hosts.why[0]


FLEETS = {
    "all-run-it": ([("5.5.0.50", "5.5.0.50")], False, 0, ["runs"]),
    "one-does-not-and-one-will-not": (
        [("5.5.0.58", "5.5.0.58"), ("5.5.0.50", "5.5.0.58")],
        False,
        1,
        ["other", "about_to_drift"],
    ),
    "one-does-not-and-one-is-off": ([("5.5.0.58", "5.5.0.50")], True, 1, ["installed_not_booted", "unknown"]),
    "one-is-off": ([("5.5.0.50", "5.5.0.50")], True, 3, ["runs", "unknown"]),
}


@pytest.mark.parametrize(("versions", "off", "code", "said"), FLEETS.values(), ids=FLEETS)
def test_verify_says_by_its_exit_code_who_runs_the_pin(
    tmp_path: Path, versions: list[tuple[str, str]], off: bool, code: int, said: list[str]
) -> None:
    hosts = [Esx(tmp_path / f"root{n}", f"esx{n}", *pair) for n, pair in enumerate(versions)]
    with serving(tmp_path, *hosts) as served:
        if off:
            with served["hosts"].open("a") as file:
                file.write("gone,127.0.0.1,1\n")
        options = ["--module", "hpsa", "--pin", "5.5.0.50-1OEM.550.0.0.1331820", "--trust-first-use"]
        done = here("verify", *words(served, tmp_path, *options), cwd=tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert re.findall(rf"\b({'|'.join({*said, 'runs', 'other', 'unknown'})})\b", done.stdout) == said
    assert done.stdout.count("trusted on first use, compare it: esx") == len(versions) and done.stderr == ""
    assert ("SSH is off" in done.stdout) == off


@pytest.mark.parametrize(
    ("host", "module", "why"),
    [("esx0", "megaraid", "reached, but nothing there tells which version of megaraid is loaded"), ("esx0", "hpsa;id", "no module's name")],
)  # fmt: skip
def test_verify_of_a_module_that_nobody_has(tmp_path: Path, host: str, module: str, why: str) -> None:
    with serving(tmp_path, Esx(tmp_path / "root", host)) as served:
        options = ["--module", module, "--pin", "5.5.0.50", "--trust-first-use"]
        done = here("verify", *words(served, tmp_path, *options), cwd=tmp_path)
    assert done.returncode == (3 if "reached" in why else 2)
    assert why in " ".join((done.stdout + done.stderr).split())


def test_a_pin_that_is_no_version_visits_nobody(tmp_path: Path) -> None:
    done = here("verify", "esx0", "--pin", "newest", "--key", "none", cwd=tmp_path)
    assert done.returncode == 2 and "'newest' is no version" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["esx1", "--password-command", 'echo "hunter2'], "--password-command: No closing quotation"),
        (["esx1", "--password-command", "sh -c 'echo hunter2; exit 3'"], "gave no password (exit code 3)"),
        (["esx1", "--key", "key", "--known-hosts", "noise"], "noise: not a known_hosts file"),
        (["$(id);\x1b[2J", "--key", "key"], "is no host"),
    ],
)
def test_wrong_use_is_one_printable_line_without_a_secret(tmp_path: Path, words: list[str], said: str) -> None:
    make_key(tmp_path / "key")
    (tmp_path / "noise").write_bytes(bytes(range(256)))
    done = here("collect", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and done.stderr.count("\n") == 1 and done.stderr[:-1].isprintable()
    assert "hunter2" not in done.stderr
    assert not (tmp_path / "evidence").exists()


def test_a_legacy_host_is_warned_of_in_words(tmp_path: Path) -> None:
    make_key(tmp_path / "key")
    done = here("collect", "127.0.0.1:1", "--key", "key", "--legacy", "127.0.0.1", cwd=tmp_path)
    assert done.stderr == "psod: 127.0.0.1: listed as legacy, SHA-1 is allowed for it\n"


def test_help_names_every_exit_code(tmp_path: Path) -> None:
    for command, codes in (("collect", "0 1 2 130"), ("verify", "0 1 2 3 130")):
        told = " ".join(here(command, "--help", cwd=tmp_path).stdout.split())
        assert re.findall(r"\b(\d+): ", told.split("Exit code")[1]) == codes.split()


@pytest.mark.slow
def test_from_the_hosts_to_the_report_with_the_incident_among_them(tmp_path: Path) -> None:
    hosts = [Esx(tmp_path / f"root{n}", name) for n, name in enumerate(("incident-host", "quiet"))]
    for host in hosts:
        for number in (0, 1):
            line = f"2014-05-{20 + number}T10:00:00.123Z cpu1:4097)ScsiDeviceIO: 2331: an older line\n"
            host.log(f"vmkernel.{number}.gz", gzip.compress(line.encode() * 500))
    hosts[0].log("vmkernel-zdump.1", os.urandom(2000), "var/core")
    shutil.copy(INCIDENT, hosts[0].root / "replay/dump-log")
    with serving(tmp_path, *hosts) as served:
        with served["hosts"].open("a") as file:
            file.write("off,127.0.0.1,1\n")
        done = here("collect", *words(served, tmp_path, "--trust-first-use"), cwd=tmp_path)
        assert done.returncode == 1 and "2 of 3 hosts complete" in done.stdout, done.stderr
    done = run("report", "evidence", "--inventory", "hosts.csv", "-o", "report", cwd=tmp_path, limit=400)
    assert done.returncode == 0, done.stdout + done.stderr

    written = [tmp_path / "report", *(tmp_path / "report").rglob("*")]
    assert not [path for path in written if path.stat().st_mode & 0o077]  # as private as what was collected
    (crash,) = pd.read_parquet(tmp_path / "report/tables/crashes.parquet").to_dict("records")
    assert (crash["host"], crash["guilty_module"], crash["damage"]) == ("incident-host", "hpsa", "")
    assert crash["time"] == pd.Timestamp("2014-05-31 15:57:32.579", tz="UTC")
    for page in ("index.html", "writeup.html", "writeup.md", "notebooks/01_one_crash.html"):
        told = text_of(tmp_path / "report" / page)
        assert "incident-host" in told and "hpsa_update_scsi_devices" in told, page
    told = text_of(tmp_path / "report/notebooks/02_the_fleet.html")
    rows = told[told.index("The hosts that gave least, first.") : told.index("What could not be read or believed")]
    assert re.search(
        r"off nothing manifest SSH is off: .* then run again quiet logs manifest incident-host dump manifest", rows
    )


def text_of(page: Path) -> str:
    told = re.sub(r"(?s)<(style|script).*?</\1>|<[^>]+>", " ", page.read_text("utf-8"))
    return " ".join(html.unescape(told).replace("\\_", "_").split())
