"""What goes wrong around `psod` itself: a full disk, a closed pipe, a place that may not be written, a slip in an option."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DATA, here

from psodlib import load
from psodlib.evidence.artifacts import read_inventory

INCIDENT = DATA / "incident-2014-05-31"
PSOD = [sys.executable, "-c", "from psodlib.cli import main; main()"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "store"
    load(INCIDENT, store=folder)
    return folder


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here, which is a disk that is always full")
@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_an_output_that_is_full_is_one_sentence(store: Path, form: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PSOD, "sql", str(store), "select host from crashes", "--format", form],
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.stderr == "psod: the output: No space left on device; mend that and run again\n"
    assert done.returncode == 2


@pytest.mark.parametrize(
    "words",
    [
        ["report", INCIDENT, "-o", "file/report"],
        ["simulate", "file/made-up"],
        ["anonymise", INCIDENT, "-o", "file/out", "--key-file", "key"],
        ["lab", "--folder", "file/lab"],
        ["load", INCIDENT, "-o", "file/fleet"],
        ["load", INCIDENT, "--store", "file/store"],
        ["case", "75b6d986", INCIDENT, "-o", "file/case.zip"],
        ["load", INCIDENT, "--known-issues", "."],
    ],
)
def test_a_place_that_cannot_be_used_is_one_sentence_without_numbers(tmp_path: Path, words: list[object]) -> None:
    (tmp_path / "file").write_text("no folder")
    done = here(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("psod: ") and done.stderr.count("\n") == 1
    assert "directory" in done.stderr and "Errno" not in done.stderr and ":0:" not in done.stderr


def test_a_case_that_could_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "case.zip").mkdir()
    assert here("case", "75b6d986", INCIDENT, "-o", tmp_path / "case.zip").returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["case.zip"]


def test_a_load_says_what_its_exit_code_is_about_and_truncated_logs_alone_are_no_failure(tmp_path: Path) -> None:
    done = here("load", DATA / "demo-fleet", "--inventory", DATA / "inventory.csv")
    assert "truncated" in done.stdout and "Exit code" not in done.stdout and done.returncode == 0
    (tmp_path / "vmkernel.log").write_bytes(bytes(range(1, 9)) * 600)
    done = here("load", tmp_path)
    assert done.returncode == 1 and "(1 not_text)" in done.stdout


def test_a_summary_stands_before_a_save_that_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = here("load", INCIDENT, "-o", tmp_path / "file")
    assert done.returncode == 2 and "1 crash," in done.stdout


def test_an_id_is_never_in_two_pieces() -> None:
    done = subprocess.run(
        [*PSOD, "load", str(INCIDENT)], capture_output=True, text=True, env={**os.environ, "COLUMNS": "60"}
    )
    assert "75b6d986f7cdb8e1" in done.stdout


def test_notes_that_are_not_there_are_told(tmp_path: Path) -> None:
    done = here("case", "75b6d986", INCIDENT, "-o", tmp_path / "case.zip", "--notes", tmp_path / "nots")
    assert done.returncode == 2 and "nots: no folder" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["anonymise", INCIDENT, "-o", "out"], "no passphrase was typed; without a terminal, give --key-file"),
        (["collect", "h1", "--ask-password"], "no password of root was typed; without a terminal"),
        (
            ["collect", "h1", "--key", "/no/such/key"],
            "/no/such/key: no private key that can be used (No such file or directory)",
        ),
        (["collect", "h1", "--bundles", "--dry-run"], "--bundles goes with --vcenter"),
        (["collect", "h1"], "give one way to log in: a key (--key)"),
        (["lab", "no/such/evidence", "--no-browser"], "'no/such/evidence' does not exist"),
    ],
)
def test_what_cannot_be_asked_for_is_said(tmp_path: Path, words: list[object], told: str) -> None:
    command = [*PSOD, *map(str, words)]
    # without a terminal of its own, as a job has none
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
        timeout=60,
    )
    assert done.returncode == 2 and told in done.stderr and "Aborted" not in done.stderr


def test_no_process_is_no_number_of_processes() -> None:
    assert here("load", INCIDENT, "--jobs", "0").returncode == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le"])
def test_an_inventory_of_any_excel_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "hosts.csv").write_bytes("Host;Cluster\r\nesx01;Köln-Süd\r\nesx02;Zürich\r\n".encode(encoding))
    assert read_inventory(tmp_path / "hosts.csv")["cluster"].tolist() == ["Köln-Süd", "Zürich"]


def test_an_export_that_is_stopped_says_nothing_more(tmp_path: Path) -> None:
    # An archive that is under way would close itself when it is forgotten, into a file that is closed already.
    script = (
        "import sys; from psodlib.anonymiser import anonymise, folder\n"
        "add = folder._Packer.add\n"
        "def stop(packer, *file):\n"
        "    if packer.kind == 'tar' and packer._names: raise KeyboardInterrupt\n"
        "    add(packer, *file)\n"
        "folder._Packer.add = stop\n"
        "try: anonymise(sys.argv[1], out=sys.argv[2], key=bytes(32))\n"
        "except KeyboardInterrupt: print('stopped')\n"
    )
    bundle = next(path for path in sorted((DATA / "demo-fleet").rglob("*.tgz")))
    done = subprocess.run(
        [sys.executable, "-c", script, str(bundle), str(tmp_path / "out")], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("stopped\n", "")
