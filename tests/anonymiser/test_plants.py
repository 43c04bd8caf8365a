"""Nothing planted is left, or the sweep tells its file and line; secrets are gone altogether; and what is harmless is not told."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from anonymiser.plants import FILES, PLANTS
from conftest import DATA
from typer.testing import CliRunner

import psodlib as psod
from psodlib import schema
from psodlib.anonymiser import Anonymised, anonymise
from psodlib.anonymiser.sweep import LOOKS
from psodlib.cli import app

KEY = b"0123456789abcdef0123456789abcdef"
SECRET_KINDS = {
    "password", "password hash", "url password", "header", "token", "community", "licence", "annotation", "ssh key", "private key",
}  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Anonymised]:
    root = tmp_path_factory.mktemp("plants")
    logs = root / "in/esxhost01/var/log"
    logs.mkdir(parents=True)
    for number, plant in enumerate(PLANTS):
        (logs / f"plant{number:03d}.log").write_text(f"a line before it\n{plant.text}\n")
    for name, _ in FILES:
        file = root / "in/esxhost01" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("a line of text\n")
    return root, anonymise(root / "in", out=root / "out", key=KEY)


def test_the_plants_are_many():
    assert len(PLANTS) + len(FILES) >= 150 and len({plant.kind for plant in PLANTS}) + 1 >= 40


@pytest.mark.parametrize("number", range(len(PLANTS)), ids=lambda number: f"{PLANTS[number].kind} {number}")
def test_no_planted_line_is_left_untold(planted, number):
    _, done = planted
    plant = PLANTS[number]
    (file,) = (file for file in done.folder.rglob("*.log") if file.name.endswith(f"plant{number:03d}.log"))
    text = file.read_text().lower()
    left = [secret for secret in plant.secrets if secret.lower() in text or secret.lower() in unquote(unquote(text))]
    told = [one for one in done.suspects if one.source.endswith(f"plant{number:03d}.log") and one.line == 2]
    assert not left or told, text
    assert text.count("\n") == 2
    if plant.kind in SECRET_KINDS:
        assert not left and not any(secret in done.mapping.read_text() for secret in plant.secrets)


@pytest.mark.parametrize(("name", "secret"), FILES)
def test_no_planted_file_name_is_left_untold(planted, name, secret):
    _, done = planted
    left = [
        file for file in done.folder.rglob("*") if secret.lower() in file.relative_to(done.folder).as_posix().lower()
    ]
    assert not left or [one for one in done.suspects if one.line == 0 and one.source.endswith(name)]


@pytest.mark.parametrize(("kind", "pattern", "sample"), LOOKS, ids=[look[0] for look in LOOKS])
def test_each_look_knows_its_sample(kind, pattern, sample):
    assert re.fullmatch(pattern, sample)


def test_what_nobody_can_know_is_told_with_its_line_and_the_exit_code(tmp_path):
    (tmp_path / "in/esx7/var/log").mkdir(parents=True)
    (tmp_path / "in/esx7/var/log/hostd.log").write_text("one\ntwo\nthe thing zrhkoffer42 blinks\n")
    done = anonymise(tmp_path / "in", out=tmp_path / "out", key=KEY)
    (suspect,) = done.suspects
    assert (suspect.text, suspect.line, suspect.times) == ("zrhkoffer42", 3, 1) and suspect.source.endswith("hostd.log")
    assert "zrhkoffer42" in done.mapping.read_text()
    (tmp_path / "key").write_bytes(KEY)
    words = ["anonymise", str(tmp_path / "in"), "-o", str(tmp_path / "again"), "--key-file", str(tmp_path / "key")]
    run = CliRunner().invoke(app, words)
    assert run.exit_code == 1 and "hostd.log:3: zrhkoffer42" in run.output


def test_the_lines_and_reasons_of_crashes_are_log_text(tmp_path):
    fleet = psod.load(DATA / "incident-2014-05-31")
    text = "cpu1:33)World: 8773: vmm0:MAILBOX7: vmm group 1\npassword=geheim7"
    crash = fleet.crashes["crash_id"].iloc[0]
    fleet = psod.Fleet(
        **{name: getattr(fleet, name) for name in (*schema.TABLES, *schema.AUXILIARY) if name not in ("texts", "reasons", "exposure")},
        texts=pd.DataFrame({"crash_id": [crash], "text": [text]}).astype("string"),
        reasons=schema.build("reasons", [{"crash_id": crash, "about": "doubt", "text": "told by User jweiss@10.1.1.1"}]),
    )  # fmt: skip
    fleet.save(tmp_path / "saved")
    done = anonymise(tmp_path / "saved", out=tmp_path / "out", key=KEY)
    after = psod.Fleet.open(done.folder)
    shown = "\n".join([*after.texts["text"], *after.reasons["text"]])
    assert "MAILBOX7" not in shown and "geheim7" not in shown and "jweiss" not in shown and "10.1.1.1" not in shown
    assert "vmm group 1" in shown and list(after.crashes["crash_id"]) == list(fleet.crashes["crash_id"])


def test_what_only_looks_like_a_secret_or_a_host_stays(tmp_path):
    lines = [
        "2024-01-01T10:00:00Z info hostd[2100] [Originator@6876 sub=Vimsvc.ha-eventmgr] Event 1 : see https://kb.vmware.com/s/article/1",
        "cpu1:33)PTEs:0x5001438012345678; rax=0x5001438012345678 cr2=0x0a141e2b",
        "rsp:0x2100002412345678 Failed password for root from a console; PWD=/tmp; pass: 3",
    ]
    (tmp_path / "in/web01/var/log").mkdir(parents=True)
    (tmp_path / "in/web01/var/log/hostd.log").write_text("\n".join(lines))
    done = anonymise(tmp_path / "in", out=tmp_path / "out", key=KEY)
    text = next(done.folder.rglob("hostd.log")).read_text()
    assert text.split("\n")[0] == lines[0] and text.split("\n")[2] == lines[2]
    assert "rax=0x5001438012345678 cr2=0x0a141e2b" in text
