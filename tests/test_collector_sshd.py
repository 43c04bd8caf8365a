"""Collecting from real sshd servers on loopback that look like ESXi hosts."""

from __future__ import annotations

import gzip
import json
import logging
import os
import shutil
import stat
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from collector_servers import APPLETS, OLD_APPLETS, Esx, make_key, needs_busybox, needs_sshd
from conftest import DATA

import psodlib as psod
from psodlib.collector import Collection, Limits, Target, ascertainment, collect, verify
from psodlib.collector.folder import Folder, Manifest

pytestmark = needs_sshd
PASSWORD = "Correct-Horse-7391"
INCIDENT = DATA / "incident-2014-05-31/incident-host/var/core/vmkernel-log.1"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    made = {name: make_key(folder / name) for name in ("user", "host", "other")}
    return {**made, "rsa": make_key(folder / "rsa", "rsa")}


@pytest.fixture
def esx(tmp_path: Path, keys: dict[str, Path]) -> Iterator[Callable[..., Esx]]:
    """Makes hosts; ``prepare`` fills one before its server starts."""
    made: list[Esx] = []

    def make(
        prepare: Callable[[Esx], object] = lambda host: None, name: str = "esx01", host_key: str = "host",
        user_key: str = "user", **options: Any,
    ) -> Esx:  # fmt: skip
        versions = {key: options.pop(key) for key in ("loaded", "installed") if key in options}
        host = Esx(tmp_path / f"root-{name}", name, **versions)
        made.append(host)
        prepare(host)
        return host.start(user_key=keys[user_key], host_key=keys[host_key], **options)

    yield make
    for host in made:
        host.stop()


@pytest.fixture
def run(tmp_path: Path, keys: dict[str, Path]) -> Callable[..., Collection]:
    def go(*hosts: Esx, **options: Any) -> Collection:
        options = {
            "key": keys["user"], "known_hosts": tmp_path / "known_hosts", "trust_first_use": True,
            "limits": Limits(idle=15, total=40),
        } | options  # fmt: skip
        return collect([target(host) for host in hosts], options.pop("out", tmp_path / "evidence"), **options)

    return go


def target(host: Esx, **fields: Any) -> Target:
    return Target(name=host.name, address="127.0.0.1", port=host.port, **fields)


def manifest(tmp_path: Path, name: str = "esx01") -> Manifest:
    found = Folder(tmp_path / "evidence", name).manifest()
    assert found is not None
    return found


def with_dump(host: Esx) -> None:
    host.log("vmkernel-zdump.1", os.urandom(2000), "var/core")
    shutil.copy(INCIDENT, host.root / "replay/dump-log")


@pytest.mark.parametrize("sftp", [True, False], ids=["sftp", "shell"])
def test_everything_comes_as_it_was_and_a_second_run_fetches_nothing_again(
    esx: Any, run: Any, tmp_path: Path, sftp: bool
) -> None:
    host = esx(with_dump, sftp=sftp)
    first = run(host)
    assert first.complete, first.hosts.why[0]
    assert manifest(tmp_path).transfer == ("sftp" if sftp else "shell")
    for name in ("vmkernel.log", "vmkernel.0.gz", "vmkernel.1.gz", "vmksummary.log"):
        assert (tmp_path / "evidence/esx01/var/run/log" / name).read_bytes() == (
            host.root / "run/log" / name
        ).read_bytes()
    assert (tmp_path / "evidence/esx01/var/core/vmkernel-log.1").read_bytes() == INCIDENT.read_bytes()
    assert list((host.root / "scratch").iterdir()) == [], "the folder for the dump's log was removed"
    assert sorted(p.name for p in (host.root / "var/core").iterdir()) == ["vmkernel-zdump.1"], (
        "nothing was written beside the dump"
    )
    assert not list((tmp_path / "evidence").rglob("*.part"))
    modes = {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "evidence").rglob("*") if p.is_file()}
    assert modes == {0o600}
    second = run(host)
    assert second.complete
    assert second.hosts.bytes[0] < 2000 < first.hosts.bytes[0], "only the outputs of commands came again"


def test_what_was_collected_loads_and_the_crash_is_there(esx: Any, run: Any, tmp_path: Path) -> None:
    run(esx(with_dump), esx(name="esx02"))
    fleet = psod.load(tmp_path / "evidence")
    assert list(fleet.crashes.host) == ["esx01"] and fleet.crashes.guilty_module[0] == "hpsa"
    assert set(fleet.hosts.host) == {"esx01", "esx02"}
    loaded = fleet.drivers[fleet.drivers.state == "loaded"]
    assert set(loaded.version) == {"5.5.0.58"}
    assert not fleet.problems.source.fillna("").str.contains("manifest").any()
    table = ascertainment(tmp_path / "evidence").set_index("host")
    assert dict(table.gave) == {"esx01": "dump", "esx02": "logs"}
    written = psod.report(fleet, tmp_path / "report", notebooks=False)
    assert "esx01" in written.index.read_text() and "hpsa_update_scsi_devices" in (
        tmp_path / "report/writeup.md"
    ).read_text().replace("\\", "")
    assert (tmp_path / "report/writeup.pdf").read_bytes().startswith(b"%PDF")


def test_a_dump_stays_where_it_is_when_room_is_short(esx: Any, run: Any, tmp_path: Path) -> None:
    def cramped(host: Esx) -> None:
        with_dump(host)
        (host.root / "scratch").unlink()
        (host.root / "scratch").symlink_to("tmp")  # no datastore: a RAM disk

    result = run(esx(cramped))
    assert result.hosts.state[0] == "partial" and "256 MB" in result.hosts.why[0]
    assert not (tmp_path / "evidence/esx01/var/core/vmkernel-log.1").exists()


@needs_busybox
@pytest.mark.parametrize("applets", [APPLETS, OLD_APPLETS], ids=["busybox", "old-busybox"])
def test_busybox_is_enough(esx: Any, run: Any, tmp_path: Path, applets: tuple[str, ...]) -> None:
    def bare(host: Esx) -> None:
        with_dump(host)
        host.only_busybox(applets)
        host.log("a'b $(touch pwned).log", "x")

    host = esx(bare, sftp=False)
    first = run(host)
    assert first.complete, first.hosts.why[0]
    logs, ours = host.root / "run/log", tmp_path / "evidence/esx01/var/run/log"
    names = {"vmkernel.log", "vmkernel.0.gz", "vmkernel.1.gz", "vmksummary.log"}
    assert {p.name: p.read_bytes() for p in ours.iterdir()} == {name: (logs / name).read_bytes() for name in names}
    assert (tmp_path / "evidence/esx01/var/core/vmkernel-log.1").read_bytes() == INCIDENT.read_bytes()
    assert list((host.root / "scratch").iterdir()) == []
    assert all("no tool" not in record.detail for record in manifest(tmp_path).files), "each file's hash was compared"
    with (logs / "vmkernel.log").open("a") as file:
        file.write("2014-05-31T16:00:00.123Z cpu1:4097)one more line\n" * 20)
    second = run(host)
    assert second.complete and second.hosts.bytes[0] < 4000
    assert (ours / "vmkernel.log").read_bytes() == (logs / "vmkernel.log").read_bytes()


def test_the_host_removes_our_folder_when_the_connection_breaks(esx: Any, run: Any, tmp_path: Path) -> None:
    def slow(host: Esx) -> None:
        with_dump(host)
        (host.root / "replay/dump-slow").write_text("60")

    host = esx(slow)
    result = run(host, limits=Limits(total=4))
    assert "time limit of the visit" in result.hosts.why[0]
    assert manifest(tmp_path).get("/var/run/log/vmkernel.log").state == "whole"  # type: ignore[union-attr]
    assert "the host removes /scratch/psod-collect-" in manifest(tmp_path).get("/var/core/vmkernel-zdump.1").detail  # type: ignore[union-attr]
    end = time.monotonic() + 10
    while time.monotonic() < end and list((host.root / "scratch").iterdir()):
        time.sleep(0.05)
    assert list((host.root / "scratch").iterdir()) == []


def test_a_log_that_grew_is_continued(esx: Any, run: Any, tmp_path: Path) -> None:
    host = esx()
    run(host)
    with (host.root / "run/log/vmkernel.log").open("a") as file:
        file.write("2014-05-31T16:00:00.123Z cpu1:4097)one more line\n" * 20)
    second = run(host)
    assert second.hosts.bytes[0] < 4000
    assert (tmp_path / "evidence/esx01/var/run/log/vmkernel.log").read_bytes() == (
        host.root / "run/log/vmkernel.log"
    ).read_bytes()
    assert not (tmp_path / "evidence/esx01/earlier").exists()


def test_a_rotation_between_runs_moves_no_byte_twice_and_loses_none(esx: Any, run: Any, tmp_path: Path) -> None:
    host = esx()
    run(host)
    logs = host.root / "run/log"
    before = {p.read_bytes() for p in logs.iterdir()}
    os.replace(logs / "vmkernel.0.gz", logs / "vmkernel.2.gz.new")
    os.replace(logs / "vmkernel.1.gz", logs / "vmkernel.2.gz")
    os.replace(logs / "vmkernel.2.gz.new", logs / "vmkernel.1.gz")
    host.log("vmkernel.0.gz", gzip.compress((logs / "vmkernel.log").read_bytes()))
    host.log("vmkernel.log", "2014-06-01T00:00:00.000Z cpu1:4097)a new log\n")
    second = run(host)
    assert second.complete and second.hosts.bytes[0] < 40_000, (
        "the two old archives were recognised under their new names"
    )
    ours = tmp_path / "evidence/esx01/var/run/log"
    for name in ("vmkernel.log", "vmkernel.0.gz", "vmkernel.1.gz", "vmkernel.2.gz"):
        assert (ours / name).read_bytes() == (logs / name).read_bytes()
    kept = {p.read_bytes() for p in (tmp_path / "evidence/esx01").rglob("*") if p.is_file()}
    assert before <= kept


def test_an_interrupted_file_goes_on_only_where_its_head_agrees(esx: Any, run: Any, tmp_path: Path) -> None:
    host = esx(lambda h: h.log("hostd.log", os.urandom(300_000)))
    run(host)
    final = tmp_path / "evidence/esx01/var/run/log/hostd.log"
    for damage, most in ((b"", 160_000), (b"other head", 310_000)):
        told = json.loads((tmp_path / "evidence/esx01/manifest.json").read_text())
        for row in told["files"]:
            if row["path"].endswith("hostd.log"):
                row["state"] = "partial"
        (tmp_path / "evidence/esx01/manifest.json").write_text(json.dumps(told))
        part = final.with_name("hostd.log.part")
        part.write_bytes(damage + final.read_bytes()[len(damage) : 150_000])
        final.unlink()
        result = run(host)
        assert final.read_bytes() == (host.root / "run/log/hostd.log").read_bytes()
        assert most - 160_000 < result.hosts.bytes[0] < most


def test_rotation_under_our_hands_is_noticed(
    esx: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The log is replaced by a shorter one after its listing, before its reading.
    from psodlib.collector.visit import Visit

    host = esx()
    logs, real, done = host.root / "run/log", Visit._begin, []
    old = (logs / "vmkernel.log").read_bytes()

    def rotate_first(visit: Visit, entry: Any, known: Any) -> int:
        if entry.path.endswith("vmkernel.log") and not done:
            done.append(1)
            os.replace(logs / "vmkernel.1.gz", logs / "vmkernel.2.gz")
            os.replace(logs / "vmkernel.0.gz", logs / "vmkernel.1.gz")
            host.log("vmkernel.0.gz", gzip.compress(old))
            host.log("vmkernel.log", "2014-06-01T00:00:00.000Z cpu1:4097)a new log\n")
        return real(visit, entry, known)

    monkeypatch.setattr(Visit, "_begin", rotate_first)
    assert run(host).complete
    ours = tmp_path / "evidence/esx01/var/run/log"
    assert {p.name: p.read_bytes() for p in ours.iterdir()} == {p.name: p.read_bytes() for p in logs.iterdir()}


def test_unknown_host_keys_are_refused_trusted_once_and_changed_ones_always_refused(
    esx: Any, run: Any, keys: Any, tmp_path: Path
) -> None:
    host = esx()
    refused = run(host, trust_first_use=False)
    assert refused.hosts.state[0] == "failed" and "host key unknown (SHA256:" in refused.hosts.why[0]
    assert "publickey" not in host.said(), "nothing was sent to an unknown host"
    trusted = run(host)
    assert trusted.complete and trusted.trusted[0].startswith("esx01 SHA256:")
    assert run(host, trust_first_use=False).complete
    host.stop()
    host.start(user_key=keys["user"], host_key=keys["other"])
    known = tmp_path / "known_hosts"
    known.write_text("# ours\n\n" + known.read_text())
    changed = run(host)
    assert changed.hosts.state[0] == "failed" and "CHANGED" in changed.hosts.why[0]
    assert f"remove line 3 of {known}" in changed.hosts.why[0]


def test_a_revoked_host_key_is_refused_whatever_else_the_file_says(esx: Any, run: Any, tmp_path: Path) -> None:
    host = esx()
    assert run(host).complete  # known by now
    known = tmp_path / "known_hosts"
    kind, key = known.read_text().split()[1:3]
    with known.open("a") as file:
        file.write(f"@cert-authority *.lab {kind} {key}\n\n# lost\n@revoked * {kind} {key}\n")
    refused = run(host)
    assert refused.hosts.state[0] == "failed" and "REVOKED (SHA256:" in refused.hosts.why[0]


def test_known_key_of_another_kind_is_asked_for(esx: Any, run: Any, keys: Any, tmp_path: Path) -> None:
    own = f"{tmp_path}/root-esx01/rsa"
    options = "UsePAM no\nKbdInteractiveAuthentication no\nHostKey /rsa\n"
    host = esx(options=options, before=f"cp {keys['rsa']} {own}; chmod 600 {own}")
    public = Path(f"{keys['rsa']}.pub").read_text()
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{host.port} {public}")
    assert run(host, trust_first_use=False).complete


LEGACY = """UsePAM no
KbdInteractiveAuthentication no
HostKeyAlgorithms ssh-rsa
KexAlgorithms diffie-hellman-group14-sha1
Ciphers aes128-ctr,aes128-cbc
MACs hmac-sha1
PubkeyAcceptedAlgorithms ssh-rsa
"""


def test_sha1_is_off_unless_the_host_is_listed(esx: Any, run: Any, keys: Any) -> None:
    host = esx(host_key="rsa", user_key="rsa", options=LEGACY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused = run(host, key=keys["rsa"])
    assert refused.hosts.state[0] == "failed" and "list it as legacy" in refused.hosts.why[0]
    with pytest.warns(UserWarning, match="esx01.*SHA-1"):
        assert run(host, key=keys["rsa"], legacy=["esx01"]).complete


KEYBOARD = "UsePAM yes\nKbdInteractiveAuthentication yes\nPasswordAuthentication no\nPubkeyAuthentication no\n"


def keyboard_host(esx: Any, **options: Any) -> Esx:
    def set_password(host: Esx) -> None:
        words = ["openssl", "passwd", "-6", "-stdin"]
        done = subprocess.run(words, input=PASSWORD, capture_output=True, text=True, check=True, timeout=10)
        hashed = done.stdout.strip()
        shadow = host.root / "etc/shadow"
        others = [line for line in shadow.read_text().splitlines() if not line.startswith("root:")]
        shadow.write_text("\n".join([f"root:{hashed}:19000:0:99999:7:::", *others, ""]))

    return esx(set_password, **({"options": KEYBOARD} | options))


def test_keyboard_interactive_is_answered_and_the_password_reaches_no_text(
    esx: Any, run: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    host = keyboard_host(esx)
    with caplog.at_level(logging.DEBUG):
        result = run(host, key=None, password=lambda user: PASSWORD)
        wrong = run(host, key=None, password=lambda user: PASSWORD + "x", out=tmp_path / "wrong")
    assert result.complete, result.hosts.why[0]
    assert "login refused" in wrong.hosts.why[0] and "lockdown" in wrong.hosts.why[0]
    texts = [caplog.text, *capfd.readouterr(), host.said()]
    texts += [words for done in (result, wrong) for words in (repr(done), done.hosts.to_string())]
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "root-" not in str(path)]
    texts += [path.read_bytes().decode("utf-8", "replace") for path in files]
    assert len(texts) > 10 and not any(PASSWORD in text for text in texts)


def test_three_refused_logins_stop_the_run(esx: Any, run: Any, tmp_path: Path) -> None:
    host = keyboard_host(esx)
    fleet = [target(host)] + [Target(name=f"esx{n:02}", address="127.0.0.1", port=host.port) for n in range(2, 21)]
    result = collect(
        fleet, tmp_path / "evidence", password=lambda user: "wrong", known_hosts=tmp_path / "known_hosts",
        trust_first_use=True, pool=16,
    )  # fmt: skip
    assert result.stopped and not result.complete
    assert host.said().count("Failed keyboard-interactive") <= 3
    assert result.hosts.why.str.contains("login refused").sum() == 3
    assert result.hosts.why.str.contains("stopped").sum() == 17
    assert len(ascertainment(tmp_path / "evidence")) == 20


def test_a_jump_host_passes_on(esx: Any, run: Any, tmp_path: Path, keys: Any) -> None:
    inner, gate = esx(), esx(name="gate")
    through = Target(name="gate", address="127.0.0.1", port=gate.port)
    result = collect(
        [target(inner, jump=through)], tmp_path / "evidence", key=keys["user"], known_hosts=tmp_path / "known_hosts",
        trust_first_use=True,
    )  # fmt: skip
    assert result.complete, result.hosts.why[0]
    assert "Accepted publickey" in gate.said() and "Accepted publickey" in inner.said()


def test_verify_tells_who_runs_the_pin(esx: Any, tmp_path: Path, keys: Any) -> None:
    fleet = [
        target(esx(name=f"esx0{number}", loaded=loaded, installed=installed))
        for number, (loaded, installed) in enumerate(
            [("5.5.0.50", "5.5.0.50"), ("5.5.0.58", "5.5.0.50"), ("5.5.0.50", "5.5.0.58"), ("5.5.0.58", "5.5.0.58")]
        )
    ]
    fleet.append(Target(name="gone", address="127.0.0.1", port=1))
    table = verify(
        fleet, tmp_path / "evidence", pin="5.5.0.50", key=keys["user"], known_hosts=tmp_path / "known_hosts",
        trust_first_use=True,
    )  # fmt: skip
    assert list(table.status) == ["runs", "installed_not_booted", "about_to_drift", "other", "unknown"]
    assert list(table.driver_evidence[:4]) == ["proc"] * 4
    assert "SSH is off" in table.why[4]
    assert not (tmp_path / "evidence/esx00/var").exists(), "logs were not fetched"


def test_byte_limit_is_kept_and_told(esx: Any, run: Any, tmp_path: Path) -> None:
    result = run(esx(), limits=Limits(bytes=120_000, idle=15, total=40))
    assert result.hosts.bytes[0] <= 120_000
    skipped = [r for r in manifest(tmp_path).files if r.state == "skipped"]
    assert skipped and "limit" in result.hosts.why[0]


def test_full_disk_stops_the_run_and_the_next_goes_on(esx: Any, run: Any, tmp_path: Path) -> None:
    host = esx(lambda h: h.log("hostd.log", os.urandom(900_000)))
    small = tmp_path / "evidence"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, timeout=10, check=False).returncode:
        pytest.skip("a small tmpfs cannot be mounted here")
    try:
        full = run(host)
        assert not full.complete and "the disk is full" in full.stopped
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True, timeout=10)
        rest = run(host)
        assert rest.complete and rest.hosts.bytes[0] < 900_000
        assert (small / "esx01/var/run/log/hostd.log").read_bytes() == (host.root / "run/log/hostd.log").read_bytes()
    finally:
        subprocess.run(["umount", str(small)], check=True, timeout=10)


HOSTILE = ["a'b.log", "$(touch pwned)", "vmkernel.log\nvmkernel.9.gz", "\x1b[2Jvmkernel.7.gz", "vmkernel.5.gz;id", "-rf", "`id`"]  # fmt: skip


@pytest.mark.parametrize("sftp", [True, False], ids=["sftp", "shell"])
def test_hostile_names_on_a_real_server_do_nothing(esx: Any, run: Any, tmp_path: Path, sftp: bool) -> None:
    result = run(esx(lambda host: [host.log(name, "x") for name in HOSTILE], sftp=sftp))
    assert result.hosts.state[0] == "complete", result.hosts.why[0]
    names = {p.name for p in (tmp_path / "evidence/esx01/var/run/log").iterdir()}
    assert names == {"vmkernel.log", "vmkernel.0.gz", "vmkernel.1.gz", "vmksummary.log"}
    assert not list(tmp_path.rglob("pwned"))
    refused = manifest(tmp_path).refused_names
    assert len(refused) >= 4 and all(name.isprintable() for name in refused)


def test_the_agents_first_key_logs_in(
    esx: Any, run: Any, tmp_path: Path, keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = esx()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.DEVNULL) as agent:
        try:
            until = time.monotonic() + 10
            while not (tmp_path / "agent").exists() and time.monotonic() < until:  # it makes its socket in its own time
                time.sleep(0.05)
            empty = run(host, key=None, agent=True)
            subprocess.run(["ssh-add", "-q", str(keys["user"])], check=True, timeout=10)
            full = run(host, key=None, agent=True)
        finally:
            agent.terminate()
    assert "ssh-add" in empty.hosts.why[0] and full.complete


def test_a_server_with_plain_passwords_is_served_too(esx: Any, run: Any) -> None:
    options = "UsePAM yes\nKbdInteractiveAuthentication no\nPubkeyAuthentication no\n"
    host = keyboard_host(esx, options=options, passwords="yes")
    assert run(host, key=None, password=lambda user: PASSWORD).complete
    assert "Accepted password" in host.said()


def test_a_hash_that_does_not_agree_is_told_and_the_file_fetched_anew(esx: Any, run: Any, tmp_path: Path) -> None:
    host = esx(lambda h: h.record("sha256sum ", "0" * 64 + "  -\n"), sftp=False)
    assert run(host).hosts.state[0] == "partial"
    told = manifest(tmp_path).get("/var/run/log/vmkernel.log")
    assert told is not None and told.state == "partial" and "differ from the sha256" in told.detail
    ours = tmp_path / "evidence/esx01/var/run/log"
    assert (ours / "vmkernel.log.part").read_bytes() == (host.root / "run/log/vmkernel.log").read_bytes(), (
        "nothing is lost"
    )
    (host.root / "replay/sha256sum ").unlink()
    assert run(host).complete
    assert not list(ours.glob("*.part"))
