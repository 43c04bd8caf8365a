"""vCenter against a real simulator: govmomi's, built from Debian's packages, with the calls that it lacks answered from files."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import psodlib as psod
from psodlib.collector import vcenter_hosts
from psodlib.collector.vcenter import _thumbprint

pytest.importorskip("pyVmomi", reason="pyVmomi is not installed: the extra `vcenter`")
SOURCE = Path(__file__).parent / "vcenter"
GOPATH = Path("/usr/share/gocode")
PACKAGES = [{"Name": "scsi-hpsa", "Version": "5.5.0.58-1OEM.550.0.0.1331820", "Vendor": "Hewlett-Packard"}]
MODULES = [{"Name": "hpsa", "Version": "Version 5.5.0.58-1OEM, Build: 1331820", "Loaded": True}]
Started = tuple[str, str]


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulator's program, built once."""
    if not shutil.which("go") or not (GOPATH / "src/github.com/vmware/govmomi").is_dir():
        pytest.skip(
            "no Go compiler or no govmomi sources here: apt-get install golang-go golang-github-vmware-govmomi-dev"
        )
    program = tmp_path_factory.mktemp("vcenter") / "vcsim"
    env = dict(os.environ, GO111MODULE="off", GOPATH=str(GOPATH), GOCACHE=str(program.parent / "cache"), GOFLAGS="")
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=SOURCE, env=env, check=True, timeout=600)
    return program


@pytest.fixture
def start(simulator: Path, tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Start a vCenter; gives its address and its certificate's SHA-256."""
    running: list[subprocess.Popen[str]] = []

    def started(hosts: int = 4, clusters: int = 2, **answers: Any) -> Started:
        folder = tmp_path / f"answers{len(running)}"
        folder.mkdir()
        told = {"packages": PACKAGES, "modules": MODULES, "events": [], **answers}
        for name, content in told.items():
            data = content if isinstance(content, str) else json.dumps(content)
            (folder / (f"{name}.log" if name in ("vmkernel", "hostd") else f"{name}.json")).write_text(data)
        key, pem = folder / "key.pem", folder / "cert.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(pem), "-days", "2",
                        "-subj", "/CN=localhost"], check=True, capture_output=True, timeout=60)  # fmt: skip
        process = subprocess.Popen(
            [str(simulator), str(hosts), str(clusters), str(folder), str(pem), str(key)],
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "the simulator did not start"
        return address, _thumbprint(pem.read_text())

    yield started
    for process in running:
        process.kill()
        process.communicate(timeout=20)


def collected(started: Started, out: Path, **options: Any) -> Any:
    given = {"user": "reader", "password": lambda user: "secret", "thumbprint": started[1], **options}
    return psod.collect_vcenter(started[0], out, **given)


def test_the_loop_from_vcenter_to_tables(start: Callable[..., Started], tmp_path: Path) -> None:
    log = "".join(
        f"2026-05-31T15:{line // 60:02d}:{line % 60:02d}.123Z cpu1:32768)line {line}\n" for line in range(1203)
    )
    done = collected(start(hosts=4, clusters=2, vmkernel=log), tmp_path / "out")
    assert list(done.hosts["state"]) == ["complete"] * 4, done.hosts.to_string()
    fleet = psod.load(tmp_path / "out")
    assert len(fleet.hosts) == 4 and fleet.hosts["cluster"].nunique() == 2 and fleet.hosts["esxi_version"].notna().all()
    assert set(fleet.now("hpsa")["version"]) == {"5.5.0.58"}
    last = fleet.uptimes[fleet.uptimes["end_reason"] == "running"]
    assert len(last) == 4 and (last["observed"].dt.days == 20).all() and last["evidence"].str.contains("vcenter").all()
    whole = (tmp_path / "out" / fleet.hosts["host"][0] / "var/log/vmkernel.log").read_text()
    assert whole == log  # three pages, joined without a line lost or twice


def test_files_are_private_and_no_password_is_written(start: Callable[..., Started], tmp_path: Path) -> None:
    collected(start(), tmp_path / "out", password=lambda user: "hunter2-very-secret")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    assert not any(b"hunter2" in path.read_bytes() for path in files)


def test_a_wrong_certificate_stops_before_the_password(start: Callable[..., Started], tmp_path: Path) -> None:
    asked = []
    started = start()
    with pytest.raises(psod.CollectError, match="not the one that was given; no password was sent"):
        collected((started[0], "00:" * 31 + "00"), tmp_path / "out", password=lambda user: asked.append(user) or "x")
    with pytest.raises(psod.CollectError, match="is not trusted") as told:
        collected(started, tmp_path / "out", thumbprint=None, password=lambda user: asked.append(user) or "x")
    assert started[1] in str(told.value) and not asked


def test_a_wrong_password_is_tried_once(start: Callable[..., Started], tmp_path: Path) -> None:
    asked = []
    with pytest.raises(psod.CollectError, match="it was tried once"):
        collected(
            start(), tmp_path / "out", password=lambda user: asked.append(user) or ""
        )  # the simulator refuses an empty one
    assert len(asked) == 1


# pyVmomi lets go of a connection after a fault without closing it.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_missing_rights_are_named_and_the_rest_comes(start: Callable[..., Started], tmp_path: Path) -> None:
    done = collected(start(faults={"no_permission": ["packages", "modules", "logs"]}), tmp_path / "out")
    why = done.hosts["why"][0]
    assert set(done.hosts["state"]) == {"partial"}
    assert "Host.Config.Image" in why and "Host.Config.Settings" in why and "Global.Diagnostics" in why
    assert len(psod.load(tmp_path / "out").hosts) == 4


def test_an_endless_log_ends(start: Callable[..., Started], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from psodlib.collector import vcenter

    monkeypatch.setattr(vcenter, "MOST_LOG", 8 << 20)
    collected(start(hosts=2, clusters=1, faults={"endless_log": True}), tmp_path / "out")
    sizes = [path.stat().st_size for path in (tmp_path / "out").rglob("*.log")]
    assert len(sizes) == 4 and all(8 << 20 <= size < 11 << 20 for size in sizes)


def test_hostile_host_names_stay_in_their_folder(start: Callable[..., Started], tmp_path: Path) -> None:
    names = {"0": "../../etc/passwd", "1": "esx\u001b[31m\nred", "2": "=cmd|' /C calc'!A1", "3": ".."}
    done = collected(start(hosts=4, clusters=2, names=names), tmp_path / "out")
    inside = {path.resolve() for path in (tmp_path / "out").rglob("*")}
    assert all(path.is_relative_to(tmp_path / "out") for path in inside)
    assert not any("\x1b" in str(name) or "\n" in str(name) for name in done.hosts["host"])
    assert (done.hosts["state"] == "failed").sum() == 1  # the one called `..` has no folder
    psod.load(tmp_path / "out")


def test_the_command_line(start: Callable[..., Started], tmp_path: Path) -> None:
    started = start()

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [
            str(Path(sys.executable).with_name("psod")),
            *words,
            "--vcenter",
            started[0],
            "--user",
            "reader",
            "--password-command",
            "echo secret",
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)

    pinned = ("--thumbprint", started[1])
    refused, done = run("collect", "-o", "out"), run("collect", "-o", "out", *pinned)
    assert refused.returncode == 2 and "--thumbprint" in refused.stderr and done.returncode == 0, done.stderr
    assert "4 of 4 hosts complete" in done.stdout and "secret" not in done.stdout + done.stderr
    listed = run("hosts", *pinned)
    assert (
        listed.returncode == 0
        and listed.stdout.startswith("host,cluster,")
        and len(listed.stdout.strip().split("\n")) == 5
    )
    for pin, code in (("5.5.0.58", 0), ("5.5.0.60", 1)):
        answer = run("verify", "--pin", pin, *pinned)
        assert answer.returncode == code, answer.stdout + answer.stderr


def test_the_inventory_of_hosts(start: Callable[..., Started]) -> None:
    started = start(hosts=6, clusters=3)
    table = vcenter_hosts(started[0], user="reader", password=lambda user: "secret", thumbprint=started[1])
    assert len(table) == 6 and table["cluster"].nunique() == 3 and (table["connection"] == "connected").all()


def test_three_pages_of_hosts(start: Callable[..., Started], tmp_path: Path) -> None:
    done = collected(start(hosts=220, clusters=10), tmp_path / "out", logs=False)
    assert len(done.hosts) == 220 and set(done.hosts["state"]) == {"complete"}


@pytest.mark.parametrize("address", ["", "a b", "vc:99999", "vc:0", "https://vc"])
def test_what_is_no_address_is_said(address: str, tmp_path: Path) -> None:
    with pytest.raises(psod.InputError, match="is no address"):
        psod.collect_vcenter(address, tmp_path, user="u", password=lambda user: "p", thumbprint="00")
