"""Reading on a Dask cluster: the same tables, nothing through the scheduler, and a lost worker costs its tasks only."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import DATA

import psodlib as psod
from psodlib import schema
from psodlib.fleet import _units
from psodlib.store.folder import read_manifest
from psodlib.store.ledger import Job, look, read_group
from psodlib.workers import GROUP, groups_of

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
NAMES = [*schema.TABLES, *schema.AUXILIARY]


def assert_same(one: psod.Fleet, other: psod.Fleet, but: tuple[str, ...] = ()) -> None:
    for name in NAMES:
        pd.testing.assert_frame_equal(
            getattr(one, name).drop(columns=list(but), errors="ignore"),
            getattr(other, name).drop(columns=list(but), errors="ignore"),
        )


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        distributed.Client(cluster, timeout=60) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("far") / "fleet"
    psod.simulate_fleet(folder, hosts=5, days=40, seed=9, driver_rate=3.0, bundles=0.5)
    shutil.rmtree(folder / "truth")
    return folder


@pytest.fixture(scope="module")
def near(evidence: Path) -> psod.Fleet:
    return psod.load(evidence, jobs=1)


def test_groups_are_balanced_and_lose_nothing() -> None:
    sizes = [1 << 30, 40 << 20, *[1000] * 5000, 0, 0]
    groups = groups_of(sizes, lambda size: size, 2)
    assert sorted(size for group in groups for size in group) == sorted(sizes)
    assert groups[0] == [1 << 30] and groups[1] == [40 << 20]
    assert all(sum(group) <= GROUP or len(group) == 1 for group in groups)
    assert max(map(len, groups)) <= 256
    assert groups_of([], len, 2) == []


def test_with_and_without_a_store_the_tables_are_the_same(
    client: Any, evidence: Path, near: psod.Fleet, tmp_path: Path
) -> None:
    assert_same(psod.load(evidence, client=client), near)
    assert_same(psod.load(evidence, client=client, store=tmp_path / "s"), near)
    assert_same(psod.load(evidence, client=client, store=tmp_path / "s"), near)
    assert read_manifest(tmp_path / "s").news["files read"] == 0


def test_a_relative_source_and_store_are_ours_wherever_the_workers_stand(
    client: Any, evidence: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(evidence.parent)
    client.run(os.chdir, str(tmp_path / "elsewhere"))
    store = os.path.relpath(tmp_path / "s")
    assert_same(psod.load(evidence.name, client=client, store=store), psod.load(evidence, jobs=1))
    assert len(psod.load(evidence.name, client=client, store=store).crashes)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_worker_that_sees_nothing_takes_nothing_from_the_store(
    client: Any, evidence: Path, near: psod.Fleet, tmp_path: Path
) -> None:
    psod.load(evidence, store=tmp_path / "s", jobs=1)
    client.run(_see_nothing_below, str(evidence))
    try:
        for path in evidence.rglob("*.log"):
            os.utime(path)
        after = psod.load(evidence, client=client, store=tmp_path / "s")
    finally:
        client.run(_see_again)
    for name in ("crashes", "frames", "uptimes", "drivers", "hosts"):
        pd.testing.assert_frame_equal(getattr(after, name), getattr(near, name))
    assert (after.problems.problem == "unreadable").sum() > 5


def _see_nothing_below(place: str) -> None:
    import builtins

    from psodlib.evidence import streams

    real, disk = builtins.open, streams.DiskFile.__init__

    def refusing(path: Any, *words: Any, **more: Any) -> Any:
        if str(path).startswith(place):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *words, **more)

    def refusing_too(self: Any, path: str) -> None:
        if path.startswith(place):
            raise PermissionError(13, "Permission denied", path)
        disk(self, path)

    builtins.open, streams.DiskFile.__init__ = refusing, refusing_too  # type: ignore[assignment, method-assign]
    builtins._psod = (real, disk)  # type: ignore[attr-defined]


def _see_again() -> None:
    import builtins

    from psodlib.evidence import streams

    builtins.open, streams.DiskFile.__init__ = builtins._psod  # type: ignore[attr-defined, method-assign]


def test_no_workers_is_said_after_ten_seconds(evidence: Path, tmp_path: Path) -> None:
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster,
        distributed.Client(cluster, timeout=30, set_as_default=False) as empty,
        pytest.raises(
            psod.InputError, match=r"the cluster at tcp://.* has no workers \(10 s waited\); start some there"
        ),
    ):
        psod.load(evidence, client=empty, store=tmp_path / "s")


def test_a_lost_worker_costs_its_tasks_only(client: Any, evidence: Path, near: psod.Fleet, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_one(what: str, done: int, total: int) -> None:
        if not killed and done > total // 3:
            info = client.run(os.getpid)
            killed.append(next(iter(info.values())))
            os.kill(killed[0], signal.SIGKILL)

    fleet = psod.load(evidence, client=client, store=tmp_path / "s", progress=kill_one)
    assert killed
    assert_same(fleet, near)
    client.wait_for_workers(2, timeout=60)


def test_a_task_that_runs_twice_writes_the_same(evidence: Path, tmp_path: Path) -> None:
    units, _ = _units([evidence])
    jobs = [Job(unit, entry) for unit, entry in look([(str(evidence), unit) for unit in units[:8]], "p")]
    once = read_group(tmp_path, jobs)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.seg")}
    assert once == read_group(tmp_path, jobs)
    assert files == {path: path.read_bytes() for path in tmp_path.rglob("*.seg")} and len(files) == 1


def test_the_scheduler_holds_no_log_text(client: Any, tmp_path: Path) -> None:
    # What the scheduler knows of a load into a store is what the ledger knows.
    seen: list[bytes] = []
    units, _ = _units([DATA / "incident-2014-05-31"])
    jobs = [Job(unit, entry) for unit, entry in look([("x", unit) for unit in units], "p")]
    entries = client.submit(read_group, tmp_path, jobs, pure=False).result(timeout=60)
    seen.append(repr(entries).encode())
    assert entries and b"BlueScreen" not in seen[0] and b"hpsa_update" not in seen[0]


def test_a_dead_scheduler_is_one_clear_error_and_the_store_is_as_it_was(
    evidence: Path, near: psod.Fleet, tmp_path: Path
) -> None:
    import subprocess
    import sys

    script = (
        "import sys, distributed, psodlib as psod\n"
        "if __name__ == '__main__':\n"
        "    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address='127.0.0.1:0')\n"
        "    print(cluster.scheduler_address, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    (tmp_path / "far.py").write_text(script)
    killed: list[int] = []
    with subprocess.Popen(
        [sys.executable, tmp_path / "far.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            with distributed.Client(address, timeout=30, set_as_default=False) as mine:

                def kill(what: str, done: int, total: int) -> None:
                    if not killed:
                        killed.append(process.pid)
                        os.killpg(process.pid, signal.SIGKILL)

                with pytest.raises(psod.InputError, match="as it was before, run again"):
                    psod.load(evidence, client=mine, store=tmp_path / "s", progress=kill)
                assert killed
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
    fleet = psod.load(evidence, store=tmp_path / "s", jobs=1)
    assert_same(fleet, near)
    assert read_manifest(tmp_path / "s").news["files adopted from a killed load"] > 0


# ---- S3 ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(evidence: Path) -> Iterator[str]:
    moto = pytest.importorskip("moto.server", reason="the extra `test` is not installed")
    pytest.importorskip("s3fs", reason="the extra `cluster` is not installed")
    import s3fs

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ACCESS_KEY_ID": "made-up", "AWS_SECRET_ACCESS_KEY": "made-up", "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }  # fmt: skip
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        files = s3fs.S3FileSystem(endpoint_url=settings["AWS_ENDPOINT_URL"], client_kwargs={"region_name": "us-west-2"})
        files.mkdir("psod-evidence", region_name="us-west-2")
        for path in sorted(evidence.rglob("*")):
            if path.is_file():
                files.put_file(str(path), f"psod-evidence/fleet/{path.relative_to(evidence).as_posix()}")
        yield "s3://psod-evidence/fleet"
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.stop()


def test_a_fleet_in_s3_is_the_fleet_on_disk(bucket: str, evidence: Path, tmp_path: Path) -> None:
    near = psod.load(evidence.as_uri(), jobs=1)
    with (  # a cluster of its own: its workers are born with the way to the bucket in their environment
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        distributed.Client(cluster, timeout=30, set_as_default=False) as client,
    ):
        far = psod.load(bucket, client=client, store=tmp_path / "s")
        assert len(far.crashes) == len(near.crashes) > 0, far.problems.to_string()
        assert_same(far, near, but=("source",))
        psod.load(bucket, client=client, store=tmp_path / "s")
    assert read_manifest(tmp_path / "s").news["files read"] == 0


def test_what_is_wrong_with_s3_is_one_sentence(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    def said(address: str) -> str:
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(psod.InputError) as caught:
            psod.load(address)
        return str(caught.value)

    assert "there is no such bucket" in said("s3://no-such-bucket-here/fleet") or "does not exist" in said("s3://no-such-bucket-here/fleet")  # fmt: skip
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert "nothing answers at the endpoint; see AWS_ENDPOINT_URL" in said(bucket)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "no credentials were found. Keys are taken from AWS_ACCESS_KEY_ID" in said(bucket)
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_missing_protocol_says_how_it_is_had(monkeypatch: pytest.MonkeyPatch) -> None:
    from psodlib.evidence.addresses import trouble_at

    assert "pip install '.[cluster]'" in trouble_at("s3://b/x", ImportError("Install s3fs to access S3"))


def test_the_command_line_reads_on_a_local_cluster(evidence: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    shutil.copytree(evidence / "esx001", tmp_path / "one" / "esx001")
    command = [sys.executable, "-c", "from psodlib.cli import main\nif __name__ == '__main__': main()", "load"]
    command += [str(tmp_path / "one"), "--store", str(tmp_path / "s"), "--cluster", "local", "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "1 host (1 with evidence)" in done.stdout and "files read" in done.stdout
    command[-3] = "tcp://127.0.0.1:1"
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and "no cluster there" in done.stderr and "Traceback" not in done.stderr
