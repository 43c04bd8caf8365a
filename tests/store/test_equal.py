"""Whatever the way in which evidence came into a store, the tables are those of one full load."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import DATA
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import psodlib as psod
from psodlib import schema
from psodlib.store import update
from psodlib.store.folder import read_manifest

NAMES = [*schema.TABLES, *schema.AUXILIARY]
OLD = 1_400_000_000  # a time stamp that is settled


def assert_same(one: psod.Fleet, other: psod.Fleet) -> None:
    for name in NAMES:
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))
    assert one.simulated == other.simulated


def as_bytes(fleet: psod.Fleet, folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in fleet.save(folder).iterdir()}


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Few hosts, all file kinds, a crash seen under two names, a file of nobody and one that is nothing.
    folder = tmp_path_factory.mktemp("evidence") / "fleet"
    psod.simulate_fleet(folder, hosts=6, days=70, seed=5, driver_rate=3.0, background_rate=1.0, bundles=0.3)
    shutil.rmtree(folder / "truth")
    dump = DATA / "incident-2014-05-31/incident-host/var/core/vmkernel-log.1"
    for host in ("10.0.0.7", "esx-other"):
        (folder / host).mkdir()
        shutil.copy(dump, folder / host / "vmkernel-log.1")
    with open(folder / "esx-other" / "vmkernel-log.1", "ab") as file:
        file.write(b"\n2014-06-01T00:00:00.000Z cpu1:1)end\n")
    (folder / "esx-other" / "notes.bin").write_bytes(random.Random(1).randbytes(900))
    return folder


@pytest.fixture(scope="module")
def whole(evidence: Path) -> psod.Fleet:
    return psod.load(evidence, inventory=evidence / "inventory.csv", jobs=1)


def test_the_evidence_binds_two_names_by_one_crash(whole: psod.Fleet) -> None:
    assert whole.crashes.copies.max() >= 2
    assert "esx-other" in set(whole.hosts.host) and "10.0.0.7" not in set(whole.hosts.host)
    assert whole.problems.detail.str.contains("one host under two names").any()


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_split_into_successive_loads_gives_the_same_bytes(
    data: st.DataObject, evidence: Path, whole: psod.Fleet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    here = tmp_path_factory.mktemp("split")
    files = sorted(path.relative_to(evidence) for path in evidence.rglob("*") if path.is_file())
    steps = data.draw(st.integers(2, 3))
    seed = data.draw(st.integers(0, 1000))
    by_host = data.draw(st.booleans())
    draw = random.Random(seed)
    when = {key: draw.randrange(steps) for key in sorted({f.parts[0] if by_host else str(f) for f in files})}
    root = here / evidence.name
    for step in range(steps):
        for file in files:
            if when[file.parts[0] if by_host else str(file)] == step:
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(evidence / file, root / file)
        if root.exists():
            roster = (root / "inventory.csv") if (root / "inventory.csv").exists() else None
            last = psod.load(root, inventory=roster, store=here / "store", jobs=1)
    full = psod.load(root, inventory=root / "inventory.csv", jobs=1)
    assert_same(last, full)
    assert as_bytes(psod.Fleet.open(here / "store"), here / "a") == as_bytes(full, here / "b")


def another_day(path: Path, day: int) -> None:
    lines = [
        f"2014-03-{day:02d}T{hour:02d}:10:00.000Z cpu1:32801)ScsiDeviceIO: 2331: line {hour}" for hour in range(24)
    ]
    old = path.read_bytes() if path.exists() else b""
    path.write_bytes(old + ("\n".join(lines) + "\n").encode())


def change(draw: random.Random, root: Path, taken: dict[Path, bytes], day: int) -> None:
    # One day of a fleet: some hosts leave a new log, logs grow, a rotated log goes away or comes back.
    hosts = sorted(path for path in root.iterdir() if path.is_dir())
    for host in draw.sample(hosts, draw.choice([0, 1, 2, len(hosts)])):
        another_day(host / f"day{day}.log", day)
    for log in draw.sample(sorted(root.rglob("vmkernel.log")), draw.choice([0, 1, 2])):
        another_day(log, day)
    if taken and draw.random() < 0.4:
        path = draw.choice(sorted(taken))
        path.write_bytes(taken.pop(path))
    elif draw.random() < 0.6 and (rotated := sorted(root.rglob("vmkernel.*.gz"))):
        path = draw.choice(rotated)
        taken[path] = path.read_bytes()
        path.unlink()


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10_000), days=st.integers(2, 3))
def test_days_of_news_give_what_a_full_load_gives(
    seed: int, days: int, evidence: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    here, draw = tmp_path_factory.mktemp("days"), random.Random(seed)
    root, taken = here / "fleet", {}
    shutil.copytree(evidence, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(update, "HOSTS_A_BUCKET", 2)  # so that hosts with news share a bucket with others
        for day in range(1, days + 1):
            psod.load(root, inventory=root / "inventory.csv", store=here / "store", jobs=1)
            change(draw, root, taken, day)
        last = psod.load(root, inventory=root / "inventory.csv", store=here / "store", jobs=1)
    for path, data in taken.items():  # what a vanished file said stays, so the full load has it
        path.write_bytes(data)
    full = psod.load(root, inventory=root / "inventory.csv", jobs=1)
    told = last.problems[last.problems.problem != "vanished"].reset_index(drop=True)
    assert len(told) < len(last.problems) or not taken
    last = replace(last, problems=told)
    assert_same(last, full)
    assert as_bytes(last, here / "a") == as_bytes(full, here / "b")


def test_what_tells_nobodys_version_is_told_of_as_a_load_does(tmp_path: Path) -> None:
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose/version.txt").write_text("VMware ESXi 5.5.0 build-3248547\n")
    plain, stored = psod.load(tmp_path / "loose", jobs=1), psod.load(tmp_path / "loose", store=tmp_path / "s", jobs=1)
    assert plain.problems["problem"].tolist() == ["no_host"] == stored.problems["problem"].tolist()


def test_a_second_load_reads_nothing(evidence: Path, tmp_path: Path) -> None:
    psod.load(evidence, store=tmp_path / "s", jobs=1)
    first = read_manifest(tmp_path / "s")
    psod.load(evidence, store=tmp_path / "s", jobs=1)
    news = read_manifest(tmp_path / "s").news
    assert first.news["files read"] > 20 and news["files read"] == 0 == news["hosts assembled"]
    assert read_manifest(tmp_path / "s").files == first.files


def test_a_touched_file_is_hashed_and_not_read(evidence: Path, tmp_path: Path) -> None:
    root = tmp_path / "fleet"
    shutil.copytree(evidence, root)
    psod.load(root, store=tmp_path / "s", jobs=1)
    for path in root.rglob("*.log"):
        os.utime(path, (OLD, OLD))
    psod.load(root, store=tmp_path / "s", jobs=1)
    assert read_manifest(tmp_path / "s").news["files read"] == 0


def test_only_touched_hosts_are_assembled_and_the_years_before_stay(evidence: Path, tmp_path: Path) -> None:
    root = tmp_path / "fleet"
    shutil.copytree(evidence, root)
    psod.load(root, store=tmp_path / "s", jobs=1)
    with open(root / "esx002" / "new.log", "w") as log:
        log.write("2014-07-01T08:00:00.000Z cpu0:32768)Starting VMKernel initialization\n")
    before = read_manifest(tmp_path / "s").files
    fleet = psod.load(root, store=tmp_path / "s", jobs=1)
    manifest = read_manifest(tmp_path / "s")
    assert manifest.news["files read"] == 1 and manifest.news["hosts assembled"] == 1
    changed = {name.split("/")[1] for name in manifest.files - before if name.startswith("tables/")}
    assert "crashes" not in changed and "frames" not in changed
    assert_same(fleet, psod.load(root, jobs=1))


def test_another_parser_reads_again_and_says_so(
    evidence: Path, whole: psod.Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roster = evidence / "inventory.csv"
    psod.load(evidence, inventory=roster, store=tmp_path / "s", jobs=1)
    files = read_manifest(tmp_path / "s").news["files read"]
    monkeypatch.setattr(update, "parser", lambda: "another")
    assert_same(psod.load(evidence, inventory=roster, store=tmp_path / "s", jobs=1), whole)
    news = read_manifest(tmp_path / "s").news
    assert news["files read again, the parser is another"] == news["files read"] == files


def test_other_rules_judge_again_without_reading(evidence: Path, tmp_path: Path) -> None:
    psod.load(evidence, store=tmp_path / "s", jobs=1)
    issues = tmp_path / "mine.toml"
    issues.write_text(
        '[[issue]]\nid = "MINE-1"\ntitle = "x"\nsource = "a test"\nsure = "weak"\nmodule = "hpsa"\nstack = ["hpsa_.*", "complete_scsi_command"]\nremedy = "none"\n'
    )
    full = psod.load(evidence, known_issues=issues, jobs=1)
    assert full.crashes.known_issues.str.contains("MINE-1").any()
    assert_same(psod.load(evidence, known_issues=issues, store=tmp_path / "s", jobs=1), full)
    news = read_manifest(tmp_path / "s").news
    assert news["files read"] == 0 and news["all hosts assembled again"]


# ---- logs that grow, rotate and go -------------------------------------------------------------------------------------


def log_of(days: range) -> bytes:
    lines = [
        f"2014-05-{day:02d}T{hour:02d}:00:00Z heartbeat: up {day - 1}d{hour}h0m0s, 3 VMs; [[1 vmx 4kB] [2 vmx 4kB] [3 vmx 4kB]] []"
        for day in days
        for hour in range(24)
    ]
    return ("\n".join(lines) + "\n").encode()


def put(path: Path, data: bytes, age: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (OLD + age, OLD + age))


def test_a_log_that_grew_is_read_again_and_nothing_is_kept_of_before(tmp_path: Path) -> None:
    root, log = tmp_path / "fleet", tmp_path / "fleet/esx01/vmksummary.log"
    put(log, log_of(range(1, 4)))
    put(tmp_path / "fleet/esx02/vmksummary.log", log_of(range(1, 3)))
    psod.load(root, store=tmp_path / "s", jobs=1)
    put(log, log_of(range(1, 6)), 60)
    assert_same(psod.load(root, store=tmp_path / "s", jobs=1), psod.load(root, jobs=1))
    assert read_manifest(tmp_path / "s").news["files gone, kept"] == 0


@pytest.mark.parametrize("packed", [False, True])
def test_a_log_that_grew_and_was_rotated_is_told_once(tmp_path: Path, packed: bool) -> None:
    root, host = tmp_path / "fleet", tmp_path / "fleet/esx01"
    put(host / "vmksummary.log", log_of(range(1, 4)))
    put(tmp_path / "fleet/esx02/vmksummary.log", log_of(range(1, 3)))
    psod.load(root, store=tmp_path / "s", jobs=1)
    (host / "vmksummary.log").unlink()
    if packed:
        put(host / "vmksummary.0.gz", gzip.compress(log_of(range(1, 6)), mtime=0), 60)
    else:
        put(host / "vmksummary.log.1", log_of(range(1, 6)), 60)
    put(host / "vmksummary.log", log_of(range(6, 8)), 120)
    assert_same(psod.load(root, store=tmp_path / "s", jobs=1), psod.load(root, jobs=1))


def test_what_a_vanished_log_said_stays_and_is_told_of(tmp_path: Path) -> None:
    root, host = tmp_path / "fleet", tmp_path / "fleet/esx01"
    put(host / "vmksummary.log", log_of(range(4, 6)))
    put(host / "vmksummary.0.log", log_of(range(1, 4)))
    put(tmp_path / "fleet/esx02/vmksummary.log", log_of(range(1, 3)))
    full = psod.load(root, store=tmp_path / "s", jobs=1)
    (host / "vmksummary.0.log").unlink()
    after = psod.load(root, store=tmp_path / "s", jobs=1)
    pd.testing.assert_frame_equal(after.uptimes, full.uptimes)
    told = after.problems[after.problems.problem == "vanished"]
    assert len(told) == 1 and "what they said is kept" in told.detail.iloc[0]
    put(host / "vmksummary.0.log", log_of(range(1, 4)))
    assert_same(psod.load(root, store=tmp_path / "s", jobs=1), full)


def test_an_output_is_true_until_the_next_one_is_printed_over_it(tmp_path: Path) -> None:
    root, host = tmp_path / "fleet", tmp_path / "fleet/esx01"
    table = (
        "Name       Version                    Vendor  Acceptance Level  Install Date\n"
        "---------  -------------------------  ------  ----------------  ------------\n"
        "scsi-hpsa  {}-1OEM.550.0.0.1331820  HP      VMwareCertified   2014-04-02\n"
    )
    put(host / "vmksummary.log", log_of(range(1, 4)))
    put(host / "commands/esxcli_software_vib_list.txt", table.format("5.5.0.50").encode())
    put(tmp_path / "fleet/esx02/vmksummary.log", log_of(range(1, 3)))
    psod.load(root, store=tmp_path / "s", jobs=1)
    put(host / "commands/esxcli_software_vib_list.txt", table.format("5.5.0.60").encode(), 60)
    after = psod.load(root, store=tmp_path / "s", jobs=1)
    full = psod.load(root, jobs=1)
    assert len(full.drivers) and set(full.drivers.version) == {"5.5.0.60"}
    pd.testing.assert_frame_equal(after.drivers, full.drivers)


def test_parts_of_a_fleet_are_opened_alone(evidence: Path, whole: psod.Fleet, tmp_path: Path) -> None:
    psod.load(evidence, inventory=evidence / "inventory.csv", store=tmp_path / "s", jobs=1)
    some = psod.Fleet.open(tmp_path / "s", hosts=["esx001", "esx003"])
    for name in NAMES:
        table = getattr(whole, name)
        if name in schema.BY_CRASH:
            wanted = table[table.crash_id.isin(some.crashes.crash_id)]
        else:
            wanted = table[table.host.isin(["esx001", "esx003"])]
        pd.testing.assert_frame_equal(getattr(some, name), wanted.reset_index(drop=True))
    since = pd.Timestamp("2014-02-10T12:00Z") if whole.crashes.time.min().year < 2014 else whole.crashes.time.median()
    late = psod.Fleet.open(tmp_path / "s", since=since)
    late_crashes = whole.crashes[(whole.crashes.time >= since) | whole.crashes.time.isna()]
    assert 0 < len(late_crashes) < len(whole.crashes)
    pd.testing.assert_frame_equal(late.crashes, late_crashes.reset_index(drop=True))
    assert set(late.frames.crash_id) <= set(late.crashes.crash_id)
    pd.testing.assert_frame_equal(late.uptimes, whole.uptimes)
    with pytest.raises(psod.InputError, match="no host named esx999"):
        psod.Fleet.open(tmp_path / "s", hosts=["esx999"])
    with pytest.raises(psod.InputError, match="expected a time such as"):
        psod.Fleet.open(tmp_path / "s", since="yesterdayish")
    with pytest.raises(psod.InputError, match="no store"):
        psod.Fleet.open(whole.save(tmp_path / "plain"), hosts=["esx001"])


def test_a_host_without_a_boot_is_opened_alone_and_looked_at(evidence: Path, tmp_path: Path) -> None:
    said = tmp_path / "ev/quiet/commands/esxcli_software_vib_list.txt"
    said.parent.mkdir(parents=True)
    said.write_text(
        "Name       Version        Vendor\n---------  -------------  ------\nscsi-hpsa  5.5.0.58-1OEM  HP\n"
    )
    psod.load(tmp_path / "ev", evidence, store=tmp_path / "s", jobs=1)
    alone = psod.Fleet.open(tmp_path / "s", hosts=["quiet"])
    assert alone.uptimes.empty and len(alone.drivers)
    pd.testing.assert_frame_equal(psod.exposure(alone), schema.empty("exposure"))


def test_hosts_by_many_buckets_are_the_same(
    evidence: Path, whole: psod.Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "HOSTS_A_BUCKET", 1)
    roster = evidence / "inventory.csv"
    assert_same(psod.load(evidence, inventory=roster, store=tmp_path / "s", jobs=1), whole)
    assert read_manifest(tmp_path / "s").buckets > 4


def test_what_a_vcenter_says_of_hosts_is_kept_as_a_load_has_it(tmp_path: Path) -> None:
    for number, vms in enumerate((3, 10**30, -1)):
        folder = tmp_path / f"ev/esx{number}/vcenter"
        folder.mkdir(parents=True)
        head = {"psod_vcenter": "host", "host": f"esx{number}", "taken": "2014-05-01T10:00:00+00:00"}
        row = {"model": "DL380", "connection": "connected", "cluster": f"gold{number % 2}", "vms": vms}
        (folder / "host.json").write_text(f"{json.dumps(head)}\n{json.dumps(row)}\n")
    plain = psod.load(tmp_path / "ev", jobs=1).hosts
    assert list(plain["cluster"]) == ["gold0", "gold1", "gold0"] and plain["vms"][1] == str(10**30)
    for _ in range(2):
        pd.testing.assert_frame_equal(psod.load(tmp_path / "ev", store=tmp_path / "s", jobs=1).hosts, plain)
    pd.testing.assert_frame_equal(psod.Fleet.open(tmp_path / "s").hosts, plain)
