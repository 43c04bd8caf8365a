"""vCenter against a real simulator: govmomi's, built from Debian's packages, with the calls that it lacks answered from files."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from conftest import DATA

import psodlib as psod
from psodlib.collector import session, vcenter, vcenter_hosts, verify_vcenter
from psodlib.collector.session import thumbprint_of
from psodlib.views.document import to_markdown
from psodlib.views.writeup import choose_crash, write_up

pytest.importorskip("pyVmomi", reason="pyVmomi is not installed: the extra `vcenter`")
# pyVmomi lets go of a connection after a fault without closing it.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SOURCE = Path(__file__).parent / "vcenter"
GOPATH = Path("/usr/share/gocode")
PACKAGES = [{"Name": "scsi-hpsa", "Version": "5.5.0.58-1OEM.550.0.0.1331820", "Vendor": "Hewlett-Packard"}]
MODULES = [{"Name": "hpsa", "Version": "Version 5.5.0.58-1OEM, Build: 1331820", "Loaded": True}]
# The oldest event of every vCenter here.
KEPT = {"kind": "UserLoginSessionEvent", "hours_ago": 25 * 24, "text": "somebody logged in"}


class Started(NamedTuple):
    """A vCenter that runs."""

    address: str
    thumbprint: str
    folder: Path  # its answers, and the calls that it got
    process: int

    def calls(self) -> list[str]:
        return (self.folder / "calls.log").read_text().split("\n")

    def count(self, call: str) -> int:
        return self.calls().count(f"call {call}")


Start = Callable[..., Started]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two certificates and their keys."""
    folder, out = tmp_path_factory.mktemp("certificates"), []
    for number in (1, 2):
        pem, key = folder / f"{number}.pem", folder / f"{number}.key"
        out += [pem, key]
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(pem), "-days", "2",
                        "-subj", "/CN=localhost"], check=True, capture_output=True, timeout=60)  # fmt: skip
    return out


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulator's program, built once."""
    if not shutil.which("go") or not (GOPATH / "src/github.com/vmware/govmomi").is_dir():
        pytest.skip("no Go or no govmomi sources here: apt-get install golang-go golang-github-vmware-govmomi-dev")
    program = tmp_path_factory.mktemp("vcenter") / "vcsim"
    env = dict(
        os.environ, GO111MODULE="off", GOPATH=str(GOPATH),
        GOCACHE=os.environ.get("GOCACHE", str(program.parent / "cache")), GOFLAGS="",
    )  # fmt: skip
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=SOURCE, env=env, check=True, timeout=600)
    return program


@pytest.fixture
def start(simulator: Path, certificates: list[Path], tmp_path: Path) -> Iterator[Start]:
    """Start a vCenter; gives its address and its certificate's SHA-256."""
    running: list[subprocess.Popen[str]] = []

    def started(hosts: int = 4, clusters: int = 2, bundles: dict[str, bytes] | None = None, **answers: Any) -> Started:
        folder = tmp_path / f"answers{len(running)}"
        folder.mkdir()
        told = {"packages": PACKAGES, "modules": MODULES, "events": [KEPT], **answers}
        for name, content in told.items():
            data = content if isinstance(content, str) else json.dumps(content)
            (folder / (f"{name}.log" if name in ("vmkernel", "hostd") else f"{name}.json")).write_text(data)
        for name, data in (bundles or {}).items():
            (folder / f"{name}.tgz").write_bytes(data)
        words = [str(simulator), str(hosts), str(clusters), str(folder), *map(str, certificates)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        running.append(process)
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "the simulator did not start"
        return Started(address, thumbprint_of(certificates[0].read_text()), folder, process.pid)

    yield started
    for process in running:
        process.kill()
        process.communicate(timeout=20)


def bundle_of(files: dict[str, bytes], host: str = "none") -> bytes:
    """A support bundle as a host makes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in {"README": b"a bundle\n", **files}.items():
            info = tarfile.TarInfo(f"esx-{host}-2026-11-27--05.00-1234/{name}")
            info.size, info.mtime = len(data), 1_800_000_000
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def collected(started: Started, out: Path, **options: Any) -> Any:
    given = {"user": "reader", "password": lambda user: "secret", "thumbprint": started[1], **options}
    return psod.collect_vcenter(started[0], out, **given)


def test_the_loop_from_vcenter_to_tables(start: Start, tmp_path: Path) -> None:
    log = log_of(range(1203))
    done = collected(start(hosts=4, clusters=2, vmkernel=log), tmp_path / "out")
    assert list(done.hosts["state"]) == ["complete"] * 4, done.hosts.to_string()
    fleet = psod.load(tmp_path / "out")
    assert len(fleet.hosts) == 4 and fleet.hosts["cluster"].nunique() == 2 and fleet.hosts["esxi_version"].notna().all()
    assert set(fleet.now("hpsa")["version"]) == {"5.5.0.58"}
    last = fleet.uptimes[fleet.uptimes["end_reason"] == "running"]
    assert len(last) == 4 and (last["observed"].dt.days == 20).all() and last["evidence"].str.contains("vcenter").all()
    whole = (tmp_path / "out" / fleet.hosts["host"][0] / "var/log/vmkernel.log").read_text()
    assert whole == log  # three pages, joined without a line lost or twice


def test_files_are_private_and_no_password_is_written(start: Start, tmp_path: Path) -> None:
    collected(start(), tmp_path / "out", password=lambda user: "hunter2-very-secret")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    assert not any(b"hunter2" in path.read_bytes() for path in files)


def test_a_wrong_certificate_stops_before_the_password(start: Start, tmp_path: Path) -> None:
    asked = []
    started = start()
    with pytest.raises(psod.CollectError, match="not the one that was given; no password was sent"):
        collected((started[0], "00:" * 31 + "00"), tmp_path / "out", password=lambda user: asked.append(user) or "x")
    with pytest.raises(psod.CollectError, match="is not trusted") as told:
        collected(started, tmp_path / "out", thumbprint=None, password=lambda user: asked.append(user) or "x")
    assert started[1] in str(told.value) and not asked


def test_a_wrong_password_is_tried_once(start: Start, tmp_path: Path) -> None:
    started = start(faults={"password": "right"})
    with pytest.raises(psod.CollectError, match="it was tried once"):
        collected(started, tmp_path / "out", password=lambda user: "wrong")
    assert started.count("Login") == 1 and not (tmp_path / "out").exists()
    collected(started, tmp_path / "out", password=lambda user: "right", logs=False)
    assert started.count("Login") == 2 and started.count("Logout") == 1


# Every call that a run may make: nothing is changed there.
READS = {
    "RetrieveServiceContent", "Login", "Logout", "CreateContainerView", "DestroyView", "RetrievePropertiesEx", "ContinueRetrievePropertiesEx",
    "QueryOptions", "CreateCollectorForEvents", "ReadNextEvents", "DestroyCollector", "fetchSoftwarePackages", "Fetch", "QueryModules", "QueryDescriptions",
    "BrowseDiagnosticLog", "GenerateLogBundles_Task", "CurrentTime", "RetrieveProperties",
}  # fmt: skip


def test_no_call_writes_and_what_was_made_is_closed(start: Start, tmp_path: Path) -> None:
    started = start(bundles={"bundle": bundle_of({})})
    collected(started, tmp_path / "out", bundles=True)
    made = {line.removeprefix("call ") for line in started.calls() if line.startswith("call ")}
    assert made <= READS, made - READS
    pairs = {"Login": "Logout", "CreateContainerView": "DestroyView", "CreateCollectorForEvents": "DestroyCollector"}
    for begin, end in pairs.items():
        assert started.count(begin) == started.count(end) > 0, begin


def test_missing_rights_are_named_and_the_rest_comes(start: Start, tmp_path: Path) -> None:
    done = collected(start(faults={"no_permission": ["packages", "modules", "logs"]}), tmp_path / "out")
    why = done.hosts["why"][0]
    assert set(done.hosts["state"]) == {"partial"}
    assert "Host.Config.Image" in why and "Host.Config.Settings" in why and "Global.Diagnostics" in why
    assert len(psod.load(tmp_path / "out").hosts) == 4


def test_an_endless_log_ends(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vcenter, "MOST_LOG", 8 << 20)
    done = collected(start(hosts=2, clusters=1, faults={"endless_log": True}), tmp_path / "out")
    sizes = [path.stat().st_size for path in (tmp_path / "out").rglob("*.log")]
    assert len(sizes) == 4 and all(8 << 20 <= size < 11 << 20 for size in sizes)
    assert set(done.hosts["state"]) == {"partial"} and "the most that is taken of a log" in done.hosts["why"][0]


def log_of(lines: range) -> str:
    return "".join(f"2026-05-31T15:{at // 60:02d}:{at % 60:02d}.123Z cpu1:32768)line {at}\n" for at in lines)


@pytest.mark.parametrize("strict", [False, True])
def test_the_second_run_fetches_what_is_new_of_a_log(start: Start, tmp_path: Path, strict: bool) -> None:
    faults = {"strict_log": strict}
    started = start(hosts=1, clusters=1, vmkernel=log_of(range(1203)), hostd="one line\n", faults=faults)
    local = tmp_path / "out/DC0_C0_H0/var/log/vmkernel.log"
    collected(started, tmp_path / "out")
    (started.folder / "vmkernel.log").write_text(log_of(range(1900)))
    collected(started, tmp_path / "out")
    assert local.read_text() == log_of(range(1900))
    asked = [int(line.rpartition(" ")[2]) for line in started.calls() if line.startswith("log vmkernel")]
    assert asked == [1, 501, 1001, 1204, 1203, 1703, 1901]
    (started.folder / "vmkernel.log").write_text(log_of(range(1500, 3000)))  # rotated, and shorter
    done = collected(started, tmp_path / "out")
    assert set(done.hosts["state"]) == {"complete"}
    assert local.read_text() == log_of(range(1500, 3000))
    assert len(list(local.parents[2].glob("earlier/*vmkernel.log"))) == 1


def test_hostile_host_names_stay_in_their_folder(start: Start, tmp_path: Path) -> None:
    names = {"0": "../../etc/passwd", "1": "esx\u001b[31m\nred", "2": "=cmd|' /C calc'!A1", "3": ".."}
    differ = {place: {"name": name} for place, name in names.items()}
    done = collected(start(hosts=4, clusters=2, differ=differ), tmp_path / "out")
    inside = {path.resolve() for path in (tmp_path / "out").rglob("*")}
    assert all(path.is_relative_to(tmp_path / "out") for path in inside)
    assert not any("\x1b" in str(name) or "\n" in str(name) for name in done.hosts["host"])
    assert (done.hosts["state"] == "failed").sum() == 1  # the one called `..` has no folder
    psod.load(tmp_path / "out")


def test_the_command_line(start: Start, tmp_path: Path) -> None:
    started = start()

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [
            str(Path(sys.executable).with_name("psod")), *words, "--vcenter", started[0], "--user", "reader",
            "--password-command", "echo secret",
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)

    pinned = ("--thumbprint", started[1])
    refused, done = run("collect", "-o", "out"), run("collect", "-o", "out", *pinned)
    assert refused.returncode == 2 and "--thumbprint" in refused.stderr and done.returncode == 0, done.stderr
    assert "4 of 4 hosts complete" in done.stdout and "secret" not in done.stdout + done.stderr
    planned = run("collect", "--dry-run", *pinned)
    assert planned.returncode == 0 and "GenerateLogBundles_Task" in planned.stdout and "from 4 hosts" in planned.stdout
    listed = run("hosts", *pinned)
    assert listed.returncode == 0 and listed.stdout.startswith("host,cluster,")
    assert len(listed.stdout.strip().split("\n")) == 5
    for pin, code in (("5.5.0.58", 0), ("5.5.0.60", 1)):
        answer = run("verify", "--pin", pin, *pinned)
        assert answer.returncode == code, answer.stdout + answer.stderr


def test_what_is_only_installed_is_said_to_be_so(start: Start, tmp_path: Path) -> None:
    def answer(started: Started, pin: str = "5.5.0.58") -> pd.DataFrame:
        return verify_vcenter(
            started.address, tmp_path / "out", pin=pin, user="u", password=lambda user: "p",
            thumbprint=started.thumbprint,
        )  # fmt: skip

    loaded = answer(start(hosts=3, clusters=1))
    assert list(loaded["status"]) == ["runs"] * 3 and list(loaded["driver_evidence"]) == ["live_module"] * 3
    differ = {"1": {"connection": "disconnected"}}
    other = start(hosts=3, clusters=1, faults={"no_permission": ["modules"]}, differ=differ)
    table = answer(other)
    assert list(table["status"]) == ["runs", "unknown", "runs"]  # what an earlier run was told is not of now
    assert "whether the host booted since is not known" in table["why"][0] and "Host.Config.Settings" in table["why"][0]
    assert "disconnected" in table["why"][1] and not other.count("ReadNextEvents")
    package = {"Name": "scsi-hpsa", "Version": "5.5.0.60-1", "Vendor": "HP"}
    newer = answer(start(hosts=1, clusters=1, packages=[package]), "5.5.0.60")
    assert list(newer["status"]) == ["installed_not_booted"]


def test_one_unknown_word_does_not_cost_a_page_of_hosts(start: Start, tmp_path: Path) -> None:
    started = start(hosts=3, clusters=1, differ={"1": {"connection": "onTheMoon"}})
    done = collected(started, tmp_path / "out", logs=False)
    assert len(done.hosts) == 3 and list(done.hosts["state"]) == ["complete"] * 3
    assert psod.load(tmp_path / "out").hosts["model"].notna().all()


def test_names_in_events_are_replaced_by_the_anonymiser(start: Start, tmp_path: Path) -> None:
    events = [KEPT, *failover("DC0_C0_H0", "DC0_C0_H1", vm="payroll-db-7")]
    collected(start(hosts=2, clusters=1, events=events), tmp_path / "out", logs=False)
    psod.anonymise(tmp_path / "out", out=tmp_path / "shared", key=b"k" * 32)
    whole = b"".join(path.read_bytes() for path in (tmp_path / "shared").rglob("*") if path.is_file())
    assert b"payroll-db-7" not in whole and b"DC0_C0_H0" not in whole
    told = psod.load(tmp_path / "shared").events
    assert list(told["what"]) == list(psod.load(tmp_path / "out").events["what"])


def test_the_inventory_of_hosts(start: Start) -> None:
    started = start(hosts=6, clusters=3)
    table = vcenter_hosts(started[0], user="reader", password=lambda user: "secret", thumbprint=started[1])
    assert len(table) == 6 and table["cluster"].nunique() == 3 and (table["connection"] == "connected").all()


def test_three_pages_of_hosts(start: Start, tmp_path: Path) -> None:
    done = collected(start(hosts=220, clusters=10), tmp_path / "out", logs=False)
    assert len(done.hosts) == 220 and set(done.hosts["state"]) == {"complete"}


@pytest.mark.parametrize("address", ["", "a b", "vc:99999", "vc:0", "https://vc"])
def test_what_is_no_address_is_said(address: str, tmp_path: Path) -> None:
    with pytest.raises(psod.InputError, match="is no address"):
        psod.collect_vcenter(address, tmp_path, user="u", password=lambda user: "p", thumbprint="00")


# ---- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [6, 9, 14, 18, 25])
def test_a_session_that_ends_is_opened_again_once(start: Start, tmp_path: Path, at: int) -> None:
    log = log_of(range(1203))
    events = [KEPT, *failover("DC0_C0_H0", "DC0_C0_H1")]
    started = start(hosts=2, clusters=1, faults={"expire_after": [at]}, vmkernel=log, events=events)
    done = collected(started, tmp_path / "out", pool=1)
    assert set(done.hosts["state"]) == {"complete"} and not done.stopped, done
    assert started.count("Login") == 2
    assert all(path.read_text() == log for path in (tmp_path / "out").rglob("vmkernel.log"))
    assert set(psod.load(tmp_path / "out").events["what"]) >= {"failed_over", "vm_restarted"}


def test_a_session_that_ends_twice_ends_the_run_and_the_next_goes_on(start: Start, tmp_path: Path) -> None:
    started = start(hosts=3, clusters=1, faults={"expire_after": [20, 26]}, vmkernel=log_of(range(1203)))
    done = collected(started, tmp_path / "out", pool=1)
    assert "ended twice" in done.stopped and started.count("Login") == 2
    assert {"interrupted", "not_tried"} <= set(done.hosts["state"]) and not done.complete
    done = collected(started, tmp_path / "out")
    assert set(done.hosts["state"]) == {"complete"}
    assert all(path.read_text() == log_of(range(1203)) for path in (tmp_path / "out").rglob("vmkernel.log"))


@pytest.mark.parametrize("at", [8, 16])
def test_another_certificate_in_the_middle_ends_the_run(start: Start, tmp_path: Path, at: int) -> None:
    started = start(hosts=3, clusters=1, faults={"new_certificate_after": at}, vmkernel=log_of(range(600)))
    try:
        done = collected(started, tmp_path / "out", pool=1)
        assert "its certificate is another one" in done.stopped and "not_tried" in set(done.hosts["state"])
    except psod.CollectError as error:  # before the first host
        assert "its certificate is another one" in str(error)
    assert started.count("Login") == 1 and len([line for line in started.calls() if line.startswith("call ")]) == at


def test_a_host_that_answers_nothing_costs_itself_alone(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "ANSWER", 2.0)
    started = start(hosts=3, clusters=1, faults={"silent": "DC0_C0_H1"}, vmkernel=log_of(range(10)))
    done = collected(started, tmp_path / "out")
    states = dict(zip(done.hosts["host"], done.hosts["state"], strict=True))
    assert states == {"DC0_C0_H0": "complete", "DC0_C0_H1": "partial", "DC0_C0_H2": "complete"}
    assert "packages: no answer within 2 s; it was asked no more" in " ".join(done.hosts["why"].dropna())
    assert len(psod.load(tmp_path / "out").hosts) == 3  # vCenter itself knows it


def test_a_host_that_is_away_is_asked_nothing(start: Start, tmp_path: Path) -> None:
    started = start(hosts=2, clusters=1, differ={"0": {"connection": "notResponding"}})
    done = collected(started, tmp_path / "out")
    assert "notResponding" in done.hosts["why"][0] and list(done.hosts["state"]) == ["partial", "complete"]
    assert started.count("fetchSoftwarePackages") == 1


def test_a_vcenter_that_is_gone_ends_the_run(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, real = start(hosts=3, clusters=1), vcenter.Events
    monkeypatch.setattr(vcenter, "Events", lambda *words: (real(*words), os.kill(started.process, 9))[0])
    done = collected(started, tmp_path / "out", pool=1)
    assert "it answers no more" in done.stopped and "not_tried" in set(done.hosts["state"])


@pytest.mark.parametrize(
    "fault",
    [{"lose_collector_after": 2}, {"bad_event": "VmFailoverFailed"}, {"no_types": True}],
    ids=lambda fault: next(iter(fault)),
)
def test_events_come_though_something_is_lost(start: Start, tmp_path: Path, fault: dict[str, Any]) -> None:
    event = {"kind": "HostConnectedEvent", "host": "DC0_C0_H0"}
    many = [{**event, "hours_ago": 500 - at / 10, "text": f"connected {at}"} for at in range(2500)]
    bad = {"kind": "VmFailoverFailed", "host": "DC0_C0_H0", "hours_ago": 400, "text": "no"}
    done = collected(start(hosts=1, clusters=1, faults=fault, events=[KEPT, *many, bad]), tmp_path / "out", logs=False)
    told = psod.load(tmp_path / "out").events
    assert list(told.loc[told["what"] == "reconnected", "detail"]) == [f"connected {at}" for at in range(2500)]
    assert done.stopped == ("events: 1 could not be read" if "bad_event" in fault else "")


def test_a_user_who_may_see_no_event_counts_no_host_days(start: Start, tmp_path: Path) -> None:
    done = collected(start(events=[]), tmp_path / "out", logs=False)
    assert "none came" in done.stopped
    assert psod.load(tmp_path / "out").uptimes["observed"].max().total_seconds() < 60


def test_bundles_one_host_at_a_time_in_a_cluster_and_not_again(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vcenter, "POLL", 0.05)
    bundle = bundle_of({"var/log/vmkernel.log": b"x" * 5_000_000})
    started = start(hosts=6, clusters=2, bundles={"bundle": bundle}, faults={"bundle_fails": "DC0_C1_H0"})
    seen: list[Any] = []
    done = collected(started, tmp_path / "out", bundles=True, logs=False, progress=lambda *told: seen.append(told))
    assert len(seen) >= 6
    states = dict(zip(done.hosts["host"], done.hosts["state"], strict=True))
    assert [host for host, state in states.items() if state != "complete"] == ["DC0_C1_H0"]
    assert "bundle: not made" in " ".join(done.hosts["why"].dropna())
    made = [line for line in started.calls() if line.startswith("bundle of")]
    assert len(made) == 6 and all(", 1 at once in" in line for line in made)
    assert len(list((tmp_path / "out").glob("*/bundle-*.tgz"))) == 5
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (tmp_path / "out").glob("*/bundle-*.tgz"))
    collected(started, tmp_path / "out", bundles=True, logs=False)
    assert len([line for line in started.calls() if line.startswith("bundle of")]) == 7  # the one that failed


def test_no_room_for_a_bundle_is_said_before_it_is_fetched(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vcenter, "MOST_BUNDLE", 100)
    done = collected(start(hosts=1, clusters=1, bundles={"bundle": bundle_of({})}), tmp_path / "out", bundles=True)
    assert "are free here; not fetched" in done.hosts["why"][0] and not list((tmp_path / "out").rglob("*.tgz*"))


# ---- what it means -----------------------------------------------------------------------------------------------------


def failover(
    failed: str, survivor: str, hours: float = 100.0, machines: int = 2, cluster: str = "DC0_C0", vm: str = "vm"
) -> list[dict[str, Any]]:
    """A host is lost, its machines start on another one, and it comes back."""

    def event(kind: str, after: float, text: str, **more: str) -> dict[str, Any]:
        return {"kind": kind, "hours_ago": hours - after / 60, "text": text, "cluster": cluster, **more}

    return [
        event("HostConnectionLostEvent", 1.0, f"Host {failed} is not responding", host=failed),
        event("com.vmware.vc.HA.DasHostFailedEvent", 1.2, f"vSphere HA detected a host failure of {failed}", host=failed),
        event("com.vmware.vc.HA.ClusterFailoverActionInitiatedEvent", 1.3, f"vSphere HA initiated a virtual machine failover action in cluster {cluster}"),
        *(event("com.vmware.vc.ha.VmRestartedByHAEvent", 2 + at, f"vSphere HA restarted {vm}{at} on {survivor}", host=survivor, vm=f"{vm}{at}") for at in range(machines)),
        event("com.vmware.vc.HA.ClusterFailoverActionCompletedEvent", 9, f"vSphere HA completed a virtual machine failover action in cluster {cluster}"),
        event("HostConnectedEvent", 25, "connected", host=failed),
        event("esx.audit.host.boot", 22, "Host has booted.", host=failed),
    ]  # fmt: skip


def hours_ago(hours: float) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


CASES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "a failover alone": ([], "unexplained"),
    "a failover and a crash's own event": ([{"kind": "esx.audit.host.crash.reason", "after": 23}], "crash"),
    "a failover and a dump": ([{"kind": "esx.problem.host.coredump", "after": 23}], "crash"),
    "a reboot that was announced": ([{"kind": "esx.audit.host.stop.reboot", "after": 0.5}], "reboot"),
    "why it rebooted, told after the boot": ([{"kind": "esx.audit.host.reboot.reason.user", "after": 23}], "reboot"),
}


@pytest.mark.parametrize("name", CASES)
def test_how_a_boot_ended_by_events(start: Start, tmp_path: Path, name: str) -> None:
    more, reason = CASES[name]
    own = {"host": "DC0_C0_H0", "text": "words"}
    extra = [{**own, "hours_ago": 100 - row["after"] / 60, "kind": row["kind"]} for row in more]
    boot = {"0": {"boot": hours_ago(100 - 20 / 60)}}
    events = [KEPT, *failover("DC0_C0_H0", "DC0_C0_H1"), *extra]
    collected(start(hosts=2, clusters=1, differ=boot, events=events), tmp_path / "out", logs=False)
    fleet = psod.load(tmp_path / "out")
    boots = fleet.uptimes[fleet.uptimes["host"] == "DC0_C0_H0"]
    assert list(boots["end_reason"]) == [reason, "running"] and boots["crash_id"].isna().all()
    before = pd.Timestamp.now(tz="UTC") - boots["end"].iloc[0]
    assert abs(before - pd.Timedelta(hours=100)) < pd.Timedelta(minutes=30)
    watched = boots["observed"] / pd.Timedelta(days=1)
    assert watched.tolist() == pytest.approx([25 - 100 / 24, 100 / 24], abs=0.05)
    other = fleet.uptimes[fleet.uptimes["host"] == "DC0_C0_H1"]
    assert list(other["end_reason"]) == ["running"]  # it only took machines over
    assert set(fleet.events.loc[fleet.events["what"] == "vm_restarted", "host"]) == {"DC0_C0_H0"}


@pytest.mark.parametrize(
    "kind",
    ["HostConnectionLostEvent", "com.vmware.vc.HA.DasHostIsolatedEvent", "esx.problem.hostd.core.dumped", "DasHostFailedEvent"],
)  # fmt: skip
def test_what_is_no_stop_by_itself(start: Start, tmp_path: Path, kind: str) -> None:
    event = {"kind": kind, "host": "DC0_C0_H0", "failed": "DC0_C0_H0", "hours_ago": 100, "text": "words"}
    back = {"kind": "HostConnectedEvent", "host": "DC0_C0_H0", "hours_ago": 99.9, "text": "connected"}
    collected(start(hosts=1, clusters=1, events=[KEPT, event, back]), tmp_path / "out", logs=False)
    (boot,) = psod.load(tmp_path / "out").uptimes.itertuples()
    assert boot.end_reason == "running" and boot.observed / pd.Timedelta(days=1) == pytest.approx(20, abs=0.1)


def test_host_days_reach_back_to_the_oldest_event_or_to_when_the_host_came(start: Start, tmp_path: Path) -> None:
    came = {"kind": "HostAddedEvent", "host": "DC0_C0_H1", "hours_ago": 48, "text": "added"}
    boots = {place: {"boot": hours_ago(300 * 24)} for place in ("0", "1")}
    collected(start(hosts=2, clusters=1, differ=boots, events=[KEPT, came]), tmp_path / "out", logs=False)
    watched = psod.load(tmp_path / "out").uptimes.set_index("host")["observed"] / pd.Timedelta(days=1)
    assert watched.to_dict() == pytest.approx({"DC0_C0_H0": 25, "DC0_C0_H1": 2}, abs=0.01)


def test_what_vcenter_has_forgotten_is_kept(start: Start, tmp_path: Path) -> None:
    # Two runs, some days apart: the second vCenter keeps nothing of the first one's events but the last.
    old, new = failover("DC0_C0_H0", "DC0_C0_H1", 400.0), failover("DC0_C0_H0", "DC0_C0_H1", 100.0)
    boot = {"0": {"boot": hours_ago(400 - 20 / 60)}}
    last = {"kind": "UserLoginSessionEvent", "hours_ago": 300, "text": "somebody logged in"}
    collected(start(hosts=2, clusters=1, differ=boot, events=[KEPT, *old]), tmp_path / "out", logs=False)
    boot["0"]["boot"] = hours_ago(100 - 20 / 60)
    second = start(hosts=2, clusters=1, differ=boot, events=[last, *new])
    collected(second, tmp_path / "out", logs=False)
    fleet = psod.load(tmp_path / "out")
    assert fleet.problems.empty, fleet.problems.to_string()
    boots = fleet.uptimes[fleet.uptimes["host"] == "DC0_C0_H0"]
    assert list(boots["end_reason"]) == ["unexplained", "unexplained", "running"]
    assert boots["observed"].sum() / pd.Timedelta(days=1) == pytest.approx(25, abs=0.1)
    assert fleet.events["what"].value_counts()["failed_over"] == 2
    kept = sorted(path.name.partition("-")[2] for path in (tmp_path / "out/DC0_C0_H0/earlier").iterdir())
    assert kept == ["host.json"]  # it told of another boot
    collected(second, tmp_path / "out", logs=False)
    again = sorted(path.name.partition("-")[2] for path in (tmp_path / "out/DC0_C0_H0/earlier").iterdir())
    assert again == kept and psod.load(tmp_path / "out").events.equals(fleet.events)


def test_two_hosts_lost_at_once_share_the_machines_and_say_so(start: Start, tmp_path: Path) -> None:
    both = [*failover("DC0_C0_H0", "DC0_C0_H2"), *failover("DC0_C0_H1", "DC0_C0_H2", machines=0)]
    events = [KEPT, *both, *failover("gone.host", "DC0_C1_H0", cluster="DC0_C1")]
    done = collected(start(hosts=6, clusters=2, events=events), tmp_path / "out", logs=False)
    told = psod.load(tmp_path / "out").events
    machines = told[told["what"] == "vm_restarted"]
    assert set(machines["host"]) == {"DC0_C0_H0", "DC0_C0_H1"}
    assert machines["detail"].str.contains("2 hosts were lost then").all()
    assert "events of 1 hosts that are no longer in the inventory" in done.stopped  # and no crash of it


def test_the_incident_told_as_events_reaches_its_write_up(start: Start, tmp_path: Path) -> None:
    # vCenter -> evidence -> tables -> write-up: the mail's own words, who was hit, what ran, and the dump out of the host's bundle.
    def event(kind: str, at: str, text: str, **more: str) -> dict[str, Any]:
        return {"kind": kind, "at": f"2014-05-{at}Z", "text": text, "cluster": "DC0_C0", **more}

    host, other = "incident-host", "DC0_C0_H1"
    events = [
        event("UserLoginSessionEvent", "02T00:00:00", "somebody logged in"),
        event("HostConnectionLostEvent", "31T15:58:20", f"Host {host} is not responding", host=host),
        event("DasHostFailedEvent", "31T15:58:05", f"A possible host failure has been detected by HA on {host}", failed=host),
        event("com.vmware.vc.HA.ClusterFailoverActionInitiatedEvent", "31T15:58:10", "vSphere HA initiated a virtual machine failover action in cluster DC0_C0"),
        *(event("com.vmware.vc.ha.VmRestartedByHAEvent", f"31T15:59:0{at}", f"restarted xenapp{at}", host=other, vm=f"xenapp{at}") for at in range(3)),
        event("VmFailoverFailed", "31T16:01:00", "could not", host=other, vm="xenapp9"),
        event("esx.audit.host.boot", "31T16:18:00", "Host has booted.", host=host),
        event("esx.problem.host.coredump", "31T16:19:00", "An unread host kernel core dump has been found.", host=host),
    ]  # fmt: skip
    dump = (DATA / "incident-2014-05-31/incident-host/var/core/vmkernel-log.1").read_bytes()
    bundles = {"bundle": bundle_of({}), f"bundle-{host}": bundle_of({"var/core/vmkernel-log.1": dump}, host)}
    differ = {"0": {"name": host, "boot": "2014-05-31T16:15:00Z", "version": "5.5.0", "build": "1331820"}}
    started = start(hosts=2, clusters=1, differ=differ, events=events, bundles=bundles)
    done = collected(started, tmp_path / "out", bundles=True, since=datetime(2014, 5, 1))
    assert set(done.hosts["state"]) == {"complete"}, done.hosts.to_string()
    psod.load(tmp_path / "out", store=tmp_path / "store")
    for fleet in (psod.load(tmp_path / "out"), psod.Fleet.open(tmp_path / "store")):
        (crash,) = fleet.crashes.itertuples()
        assert (crash.host, crash.guilty_module, crash.esxi_build) == (host, "hpsa", "1331820")
        boots = fleet.uptimes[fleet.uptimes["host"] == host]
        assert list(boots["end_reason"]) == ["crash", "running"] and boots["crash_id"].iloc[0] == crash.crash_id
        assert len(fleet.uptimes) == 3 and boots["observed"].iloc[0] > pd.Timedelta(days=29)
        text = to_markdown(write_up(fleet, choose_crash(fleet))).replace("\\", "")
        assert "vSphere HA noticed it within a minute, at 2014-05-31 15:58:05 UTC" in text
        assert "vSphere HA started 3 virtual machines again on other hosts: xenapp0, xenapp1 and xenapp2; " in text
        assert "; 1 machine could not be started: xenapp9" in text
        assert "vSphere HA initiated a virtual machine failover action in cluster DC0_C0" in text
        assert "When did vSphere HA act" not in text and "3 machines: xenapp0, xenapp1, xenapp2" in text


HOSTILE = [
    '{"psod_vcenter": "host", "host": "h1", \n',
    '{"psod_vcenter": "host", "host": ["h1"]}\n',
    '{"psod_vcenter": "%s"}\n' % ("x" * 200_000),
    '{"psod_vcenter": "host", "host": "h1"}\n{"vms": 1' + "0" * 40 + ', "cluster": 5}\n{"vms": 1e999}\n[1]\n' + "[" * 100_000 + "\n",
    '{"psod_vcenter": "events", "host": "h1"}\n{"kind": "esx.audit.host.boot", "time": "0001-01-01T00:00:00+00:00"}\n'
    '{"kind": {}, "time": 7, "words": []}\n{"kind": "esx.audit.host.boot", "time": "9999-12-31T23:59:59-23:59"}\n',
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_row_of_vcenters_is_a_problem_and_nothing_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "h1/vcenter").mkdir(parents=True)
    (tmp_path / "h1/vcenter/some.json").write_text(text)
    fleet = psod.load(tmp_path)
    told = set(fleet.problems["problem"])
    assert told and told <= {"bad_line", "unused", "no_host", "unknown_format"}, fleet.problems.to_string()
    assert fleet.uptimes.empty and fleet.events.empty
