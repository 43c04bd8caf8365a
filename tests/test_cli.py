"""`psod`: the same words on a command line, exit codes as promised."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DATA, here

import psodlib as psod

INCIDENT = DATA / "incident-2014-05-31"
COMMANDS = str.split("anonymise case collect explain hosts lab load report simulate sql verify watch")


def run(*words: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", "from psodlib.cli import main; main()", *map(str, words)],
        input=stdin, capture_output=True, timeout=120, env={**os.environ, "COLUMNS": "200", "TERM": "dumb"},
    )  # fmt: skip
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str) -> None:
    done = here(command, "--help")
    assert done.returncode == 0
    assert f"psod {command}" in done.stdout and "Example:" in done.stdout


def test_every_command_is_listed_here() -> None:
    from psodlib.cli import app

    assert sorted(c.name or c.callback.__name__ for c in app.registered_commands) == sorted(COMMANDS)  # type: ignore[union-attr]


def test_load_prints_what_was_found_and_saves_it(tmp_path: Path) -> None:
    done = run("load", INCIDENT, "-o", tmp_path / "store")
    assert done.returncode == 0
    assert "1 crash," in done.stdout and "5.5.0.58" in done.stdout
    assert psod.Fleet.open(tmp_path / "store").crashes.guilty_module[0] == "hpsa"


def test_load_reads_standard_input() -> None:
    done = run("load", "-", stdin=(INCIDENT / "incident-host/var/core/vmkernel-log.1").read_bytes())
    assert "1 crash," in done.stdout and "hpsa" in done.stdout


def test_problems_that_the_user_must_see_give_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "esx01").mkdir()
    (tmp_path / "esx01" / "vmkernel.log").write_bytes(bytes(range(1, 9)) * 600)
    done = here("load", tmp_path)
    assert done.returncode == 1
    assert "not_text" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["load", "/no/such/folder"], "does not exist"),
        (["load"], "Missing argument"),
        (["report", "/no/such/folder"], "does not exist"),
        (["report", str(INCIDENT), "--plan", "/no/such/plan.toml"], "/no/such/plan.toml: cannot be read"),
        (["explain", "feed", str(INCIDENT)], "0 crashes have an id that begins with 'feed'"),
        (["explain", str(INCIDENT)], f"no crash id was given; {INCIDENT} holds 75b6d986f7cdb8e1 (incident-host)"),
        (["case", str(DATA / "inventory.csv")], "inventory.csv holds no crash"),
        (["explain", "75b6"], "no source was given"),
        (["simulate", str(DATA)], "empty"),
        (["fly"], "No such command"),
    ],
)
def test_wrong_use_is_one_message_and_exit_code_2(words: list[str], told: str) -> None:
    done = here(*words)
    assert done.returncode == 2
    assert told in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_explain_says_why() -> None:
    crash_id = psod.load(INCIDENT).crashes.crash_id[0]
    done = here("explain", crash_id[:8], INCIDENT)
    assert done.returncode == 0
    assert "hpsa_update_scsi_devices" in done.stdout and "symbol_prefix" in done.stdout
    assert "held: module, versions" in done.stdout  # the version comes from another file of the folder


def test_terminal_codes_in_a_log_do_not_reach_the_terminal(tmp_path: Path) -> None:
    log = (INCIDENT / "incident-host/var/core/vmkernel-log.1").read_text()
    host = tmp_path / "esx01"
    host.mkdir()
    (host / "vmkernel-log.1").write_text(log.replace("hpsa_update_scsi_devices", "hpsa_\x1b]0;owned\x07x"))
    (host / "\x1b[31mred.log").write_bytes(bytes(range(1, 9)) * 600)
    done = here("load", tmp_path)
    assert "\x1b" not in done.stdout and "\x07" not in done.stdout


def test_a_bar_on_a_terminal_and_none_in_a_pipe() -> None:
    assert "\x1b" not in run("load", INCIDENT).stderr
    terminal, child = pty.openpty()
    command = [sys.executable, "-c", "from psodlib.cli import main; main()", "load", str(INCIDENT)]
    with subprocess.Popen(
        command, stderr=child, stdout=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm"}
    ) as process:
        process.wait(timeout=60)
    os.close(child)
    shown = os.read(terminal, 1 << 16)
    os.close(terminal)
    assert b"\x1b[" in shown
