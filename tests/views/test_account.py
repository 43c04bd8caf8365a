"""``incident.toml``: what people know beside the evidence; every key optional, every mistake named, hostile text only text."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from conftest import DATA
from views import hand_made

import psodlib as psod
from psodlib.errors import InputError
from psodlib.views.account import Account, find_account, read_account
from psodlib.views.document import to_html, to_markdown, to_pdf
from psodlib.views.writeup import choose_crash, write_up

HOSTILE = '<script>alert(1)</script><img src=x onerror=alert(2)> [a](javascript:b) | #read("/etc/passwd") $x$ `c` =1+1'


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "incident.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert read_account(written(tmp_path, "")) == Account(file="incident.toml")


def test_times_are_local_unless_they_say_otherwise(tmp_path: Path) -> None:
    account = read_account(written(tmp_path, """time_zone = "Europe/Berlin"
detected_at = 2014-05-31T11:58:00
[[event]]
at = 2014-05-31T11:58:00Z
what = "a"
[[event]]
at = 2014-06-02
what = "b"
decision = true
"""))  # fmt: skip
    assert account.detected_at == pd.Timestamp("2014-05-31T09:58:00Z")
    assert [event.at for event in account.events] == [
        pd.Timestamp("2014-05-31T11:58:00Z"),
        pd.Timestamp("2014-06-01T22:00:00Z"),
    ]
    assert (
        account.events[1].whole_day
        and account.events[1].decision
        and account.local(account.detected_at) == "2014-05-31 11:58:00"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [("[", "as TOML"), ("detectedat = 1", "unknown field `detectedat`"), ("users_hit = -1", ">= 0"), ("users_hit = true", "users_hit"),
     ("time_zone = '../../etc/passwd'", "expected a name such as"), ("time_zone = 7", "expected a name such as"), ("time_zone = '+99:00'", "expected a name such as"),
     ("detected_at = 2014-05-31T11:58:00", "without a time zone"), ("detected_at = 'noon'", "without quotes"), ("event = 3", "Expected `array`"),
     ("[[event]]\nwhy = 'x'", "required field `what`"), ("[[event]]\nwhat = 'x'\nplace = 'later'", "event.0..place"), (f"platform = '{'a' * 600}'", "<= 500"),
     ("[[event]]\nwhat = 'x'\n" * 101, "<= 100"), ("case = {a = 1}", "case")],
)  # fmt: skip
def test_a_mistake_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_account(written(tmp_path, text))


def test_it_belongs_to_the_crash_that_it_names_or_that_is_alone(tmp_path: Path) -> None:
    crash = hand_made.fleet().crashes.iloc[0].copy()
    written(tmp_path, "users_hit = 3")
    assert find_account([tmp_path], crash, 1).users_hit == 3
    assert find_account([tmp_path], crash, 8) == Account() == find_account([tmp_path], None, 0)
    written(tmp_path, "users_hit = 4\ncrash = 'c0000'")
    assert find_account([tmp_path], crash, 8).users_hit == 4
    written(tmp_path, "users_hit = 4\ncrash = 'feed'")
    assert find_account([tmp_path], crash, 1) == Account()
    (tmp_path / "esx00").mkdir()
    written(tmp_path / "esx00", "users_hit = 5")
    assert find_account([tmp_path], crash, 8).users_hit == 5
    crash["source"] = str(tmp_path / "esx00/var/core/vmkernel-log.1")  # of a fleet that was loaded before
    assert find_account([], crash, 8).users_hit == 5
    crash["source"] = str(tmp_path / "other/vmkernel-log.1")
    assert find_account([], crash, 8) == Account()


def test_it_is_no_evidence_and_no_problem(tmp_path: Path) -> None:
    host = tmp_path / "esx1/var/core"
    host.mkdir(parents=True)
    (host / "vmkernel-log.1").write_bytes(
        (DATA / "incident-2014-05-31/incident-host/var/core/vmkernel-log.1").read_bytes()
    )
    written(tmp_path, "# cat /proc/scsi/hpsa/2\nplatform = 'HP HPSA Driver (v 5.5.0.99-1OEM)'\n")
    fleet = psod.load(tmp_path)
    assert fleet.problems.empty and list(fleet.hosts["host"]) == ["esx1"] and fleet.drivers.empty


def test_hostile_text_stays_text_on_every_surface(tmp_path: Path) -> None:
    import mistune

    quoted = HOSTILE.replace('"', '\\"')
    words = "".join(
        f'{name} = "{quoted} {name}"\n'
        for name in ("platform", "detected_by", "users_possible_when", "vendor", "case", "severity", "contact")
    )
    account = read_account(
        written(tmp_path, f'{words}users_hit = 3\nusers_possible = 9\n[[event]]\nwhat = "{quoted}"\nwhy = "{quoted}"\n')
    )
    fleet = hand_made.fleet(hosts=2, crashing=1)
    document = write_up(
        fleet,
        choose_crash(fleet),
        account=account,
        typed={f"esx00/{HOSTILE}.txt": f"# reboot\n{HOSTILE}\n# vmware -v\n</pre>{HOSTILE}\n"},
    )
    html = to_html(document)
    assert not re.search(
        r"<script|<img (?!src=\"data:)|<[^>]+\son\w+=|href=\"(?!#)", re.sub(r'(aria-label|alt)="[^"]*"', "", html)
    )
    rendered = str(mistune.create_markdown(escape=False, plugins=["table", "url", "math"])(to_markdown(document)))
    assert not re.search(r"<(?:script|img|a)\b", rendered)
    assert to_pdf(document, tmp_path / "w.pdf", "writeup.typ").stat().st_size > 5000
    assert b"/URI" not in (tmp_path / "w.pdf").read_bytes()


def test_an_anonymised_case_holds_neither_its_names_nor_the_session_as_it_was(tmp_path: Path) -> None:
    import zipfile

    host = tmp_path / "evidence/mail7.corp.acme"
    (host / "commands").mkdir(parents=True)
    (host / "var/core").mkdir(parents=True)
    source = DATA / "incident-2014-05-31/incident-host"
    (host / "var/core/vmkernel-log.1").write_bytes((source / "var/core/vmkernel-log.1").read_bytes())
    (host / "commands/ssh-session.txt").write_text(
        (source / "commands/ssh-session.txt").read_text() + "# vmware -v\nmail7.corp.acme said so\n"
    )
    written(tmp_path / "evidence", 'contact = "Jo Doe"\ncase = "SR-4711"\nplatform = "mail7.corp.acme served mail."\n')
    done = psod.case("75b6", tmp_path / "evidence", out=tmp_path / "case.zip", key=b"k" * 32)
    with zipfile.ZipFile(done.file) as archive:
        text = archive.read(next(name for name in archive.namelist() if name.endswith("writeup.md"))).decode()
    assert "served mail" in text and "# reboot -f" in text
    for secret in ("mail7", "acme", "Jo Doe", "SR-4711"):
        assert secret not in text
