"""load(): what was simulated is found again, the incident reads as it should, and bad input is told, not lost."""

from __future__ import annotations

import gc
import gzip
import random
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from conftest import DATA

import psodlib as psod
from psodlib import schema
from psodlib.assemble import rows_of
from psodlib.records import DriverReading, FileReading, Mark
from psodlib.triage.boots import loaded_versions

INCIDENT = DATA / "incident-2014-05-31"
RESTORED = DATA / "incident-2014-05-31-restored"


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet") / "evidence"
    psod.simulate_fleet(
        folder, hosts=14, days=150, seed=3, driver_rate=2.0, background_rate=1.0, deliberate_rate=0.3, bundles=0.3
    )
    return folder


@pytest.fixture(scope="module")
def fleet(made_up: Path) -> psod.Fleet:
    return psod.load(made_up, inventory=made_up / "inventory.csv", jobs=2)


def truth(folder: Path, name: str, *times: str) -> pd.DataFrame:
    return pd.read_csv(folder / "truth" / f"{name}.csv", parse_dates=list(times))


def test_tables_conform(fleet: psod.Fleet) -> None:
    for name, table in fleet.tables.items():
        pd.testing.assert_frame_equal(table, schema.conform(name, table))
    pd.testing.assert_frame_equal(fleet.coverage, schema.conform("coverage", fleet.coverage))
    assert fleet.simulated


def test_every_crash_with_a_text_is_found_once(fleet: psod.Fleet, made_up: Path) -> None:
    made = truth(made_up, "crashes", "time")
    with_text = made[made.form != "none"]
    assert len(with_text) > 20
    found = with_text.merge(fleet.crashes, on="host", suffixes=("", "_found"))
    near = (found.time - found.time_found).abs() < pd.Timedelta("2s")
    assert near.sum() == len(with_text) == len(fleet.crashes)
    assert fleet.crashes.crash_id.is_unique
    same = found[near]
    assert (same.kind == same.kind_found.astype(str)).all()


def test_the_driver_is_blamed_where_the_text_allows_it_and_nowhere_else(fleet: psod.Fleet, made_up: Path) -> None:
    made = truth(made_up, "crashes", "time")
    found = made.merge(fleet.crashes, on="host", suffixes=("", "_found"))
    same = found[(found.time - found.time_found).abs() < pd.Timedelta("2s")]
    blamed = (same.guilty_module == "hpsa").fillna(False)
    assert (blamed == (same.driver & same.attributed)).all()
    assert (same[same.deliberate].guilt == "deliberate").all()


def test_boots_and_loaded_versions_are_the_truth(fleet: psod.Fleet, made_up: Path) -> None:
    made = truth(made_up, "boots", "boot", "end")
    versions = loaded_versions(fleet.uptimes, fleet.drivers)
    found = pd.merge_asof(
        versions.dropna(subset=["boot"]).sort_values("boot").astype({"boot": "datetime64[us, UTC]", "host": "object"}),
        made.rename(columns={"version": "made"}).astype({"boot": "datetime64[us, UTC]", "host": "object"}).sort_values("boot"),
        on="boot", by="host", direction="nearest", tolerance=pd.Timedelta("30min"),
    )  # fmt: skip
    assert found.made.notna().mean() > 0.99  # no boot that never was
    assert len(found) >= 0.97 * len(made)  # gaps may hide a few
    known = found[found.version.notna()]
    assert len(known) >= 0.9 * len(found)
    assert (known.version == known.made).all()


def test_exposure_is_the_truth(fleet: psod.Fleet, made_up: Path) -> None:
    rates = truth(made_up, "rates").set_index("version")
    table = psod.exposure(fleet)
    sums = table.groupby("version")[["host_days", "crashes", "unknown_crashes"]].sum()
    assert sums.host_days.to_numpy() == pytest.approx(rates.host_days.to_numpy(), rel=0.03)
    assert abs(sums.crashes.sum() - rates.crashes.sum()) <= 1


def test_load_does_not_depend_on_order_or_processes(made_up: Path, fleet: psod.Fleet) -> None:
    folders = sorted(p for p in made_up.iterdir() if p.is_dir() and p.name != "truth")[:4]
    alone = psod.load(*folders, jobs=1)
    shuffled = list(folders)
    random.Random(1).shuffle(shuffled)
    pooled = psod.load(*shuffled, jobs=2)
    for name in schema.TABLES:
        pd.testing.assert_frame_equal(getattr(alone, name), getattr(pooled, name))
    hosts = {folder.name for folder in folders}
    assert set(alone.crashes.crash_id) == set(fleet.crashes.crash_id[fleet.crashes.host.isin(hosts)])


def test_save_and_open_give_the_same_fleet(fleet: psod.Fleet, tmp_path: Path) -> None:
    again = psod.Fleet.open(fleet.save(tmp_path / "store"))
    for name in [*schema.TABLES, *schema.AUXILIARY]:
        pd.testing.assert_frame_equal(getattr(fleet, name), getattr(again, name))
    assert again.simulated


def test_open_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(psod.InputError, match=r"hosts\.parquet: not found; expected a folder that Fleet\.save wrote"):
        psod.Fleet.open(tmp_path)


def test_empty_fleet_has_every_table() -> None:
    empty = psod.Fleet()
    for name, table in empty.tables.items():
        pd.testing.assert_frame_equal(table, schema.conform(name, table))
    assert repr(empty).startswith("Fleet(0 hosts, 0 crashes")


@pytest.mark.parametrize("folder", [INCIDENT, RESTORED])
def test_the_incident(folder: Path) -> None:
    crash = psod.load(folder).crashes.iloc[0]
    assert (crash.kind, crash.exception, crash.pcpu) == ("page_fault", 14, 14)
    assert (crash.guilty_module, crash.guilty_function, crash.guilt) == (
        "hpsa",
        "hpsa_update_scsi_devices",
        "symbol_prefix",
    )
    assert crash.time == pd.Timestamp("2014-05-31T15:57:32.579Z")


def test_the_incidents_session_tells_the_version_that_crashed() -> None:
    fleet = psod.load(INCIDENT)
    crash = fleet.crashes.iloc[0]
    assert crash.driver_version == "5.5.0.58"
    assert "KB2075978" in crash.known_issues.split(";")
    # what the session shows after the rollback belongs to a boot that no log has seen
    after = fleet.drivers[(fleet.drivers.state == "loaded") & (fleet.drivers.version == "5.5.0.50")]
    assert after.boot.isna().all() and len(after) == 1


def test_both_spellings_of_none_are_one_crash() -> None:
    both = psod.load(INCIDENT, RESTORED)
    assert len(both.crashes) == 1 and both.crashes.copies[0] == 2
    assert both.frames.module.head(3).eq("hpsa").all()


def test_a_dump_alone_gives_no_host_days() -> None:
    # The dump exists because the host crashed: its own minutes are no watched time.
    table = psod.exposure(psod.load(INCIDENT))
    assert table.host_days.sum() == 0


def test_no_source_and_no_file_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(psod.InputError, match="no source"):
        psod.load()
    with pytest.raises(psod.InputError, match="does not exist"):
        psod.load(tmp_path / "nowhere")
    with pytest.raises(psod.InputError, match=r"no file in .*expected an evidence folder"):
        psod.load(tmp_path)


def test_bad_files_are_problems_and_the_rest_is_loaded(tmp_path: Path) -> None:
    host = tmp_path / "esx01"
    shutil.copytree(INCIDENT / "incident-host", host)
    log = (INCIDENT / "incident-host/var/core/vmkernel-log.1").read_bytes()
    lines = b"".join(
        b"2014-01-01T00:%02d:00.000Z cpu0:1)ScsiCore: %d: all is well %x\n"
        % (i % 60, i, random.Random(i).getrandbits(64))
        for i in range(4000)
    )
    (host / "vmkernel.0.gz").write_bytes(gzip.compress(lines, mtime=0)[:-2000])
    (host / "vmkernel.log").write_bytes(random.Random(0).randbytes(5000))
    (host / "notes.txt").write_text("x1 = 7; y2 = 9\n" * 50)
    (host / "empty.log").touch()
    (tmp_path / "esx02").mkdir()
    (tmp_path / "esx02" / "vmkernel-log.1").write_bytes(
        log.replace(b"14:10.166", b"14:11.166").replace(b"57:32", b"58:33")
    )
    fleet = psod.load(tmp_path)
    assert len(fleet.crashes) == 2
    told = {Path(s).name: p for s, p in zip(fleet.problems.source, fleet.problems.problem.astype(str), strict=True)}
    assert told == {
        "vmkernel.0.gz": "truncated",
        "vmkernel.log": "not_text",
        "notes.txt": "unknown_format",
        "empty.log": "empty",
    }


def test_inventory_joins_by_short_name_and_tells_who_is_missing(tmp_path: Path) -> None:
    roster = tmp_path / "hosts.csv"
    roster.write_text("Name,Cluster,Users\nINCIDENT-HOST.corp.example,A,40\nesx99.corp.example,B,7\n")
    fleet = psod.load(INCIDENT, inventory=roster)
    assert list(fleet.hosts.host) == ["INCIDENT-HOST.corp.example", "esx99.corp.example"]
    assert list(fleet.hosts.cluster) == ["A", "B"]
    assert fleet.crashes.host[0] == "INCIDENT-HOST.corp.example"
    told = fleet.problems[fleet.problems.problem == "no_evidence"]
    assert list(told.host) == ["esx99.corp.example"]
    bare = psod.load(INCIDENT, inventory=pd.DataFrame({"host": ["other"]}))
    assert set(bare.problems.problem.dropna()) >= {"no_evidence", "not_in_inventory"}


def test_inventory_without_host_is_an_error(tmp_path: Path) -> None:
    roster = tmp_path / "hosts.csv"
    roster.write_text("machine_room,floor\n1,2\n")
    with pytest.raises(psod.InputError, match="host"):
        psod.load(INCIDENT, inventory=roster)
    with pytest.raises(psod.InputError, match="expected one named host"):
        psod.load(INCIDENT, inventory=pd.DataFrame({"floor": [1]}))


def test_progress_is_told_for_each_file() -> None:
    seen: list[tuple[int, int]] = []
    psod.load(INCIDENT, progress=lambda what, done, total: seen.append((done, total)))
    assert seen == [(i, len(seen)) for i in range(1, len(seen) + 1)]


def test_a_plain_script_may_load_with_several_processes(tmp_path: Path) -> None:
    # No `if __name__ == "__main__"`: that is how six lines of Python look.
    script = tmp_path / "six_lines.py"
    script.write_text(
        f"import psodlib as psod\nprint('ran')\nprint(len(psod.load({str(INCIDENT)!r}, {str(RESTORED)!r}, jobs=2).crashes))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["ran", "1"]


def test_a_dask_client_gives_the_same_tables() -> None:
    distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        distributed.Client(cluster, timeout=60) as client,
    ):
        far = psod.load(INCIDENT, RESTORED, client=client)
    near = psod.load(INCIDENT, RESTORED, jobs=1)
    for name in schema.TABLES:
        pd.testing.assert_frame_equal(getattr(far, name), getattr(near, name))


def test_large_logs_read_in_threads_give_the_same(tmp_path: Path) -> None:
    line = "2014-05-{day:02d}T{hour:02d}:00:00.000Z cpu1:33)World: 8773: vmm0:XENAPP: vmm group 1" + "x" * 900 + "\n"
    for number in range(3):
        log = tmp_path / f"esx0{number}" / "var" / "log" / "vmkernel.log"
        log.parent.mkdir(parents=True)
        crash = (DATA / "incident-2014-05-31/incident-host/var/core/vmkernel-log.1").read_bytes()
        calm = "".join(line.format(day=1 + n // 24 % 28, hour=n % 24) for n in range(28 * 24)) * 3
        log.write_bytes(calm.encode() + crash.replace(b"29:20:14:10", b"29:20:14:1%d" % number))
        packed = log.with_name("vmkernel.0.gz")
        packed.write_bytes(gzip.compress(random.Random(number).randbytes(3 << 19).hex().encode() + calm.encode()))
    one, two = (psod.load(tmp_path, jobs=jobs) for jobs in (1, 2))
    assert len(one.crashes) == 3
    for name, table in one.tables.items():
        pd.testing.assert_frame_equal(table, two.tables[name])


VIBS = "Name  Version  Vendor  Acceptance Level  Install Date\nscsi-hpsa  5.5.0.58-1OEM.550.0.0.1331820  HP  VMwareCertified  2014-03-20\n"


def test_the_same_output_taken_twice_is_two_observations(tmp_path: Path) -> None:
    for bundle in ("esx-esx01-2014-05-01--10.00-1", "esx-esx01-2014-06-01--10.00-2"):
        for folder in ("commands", "json"):  # a mirror inside one bundle is none
            path = tmp_path / bundle / folder / "localcli_software-vib-list.txt"
            path.parent.mkdir(parents=True)
            path.write_text(VIBS)
    drivers = psod.load(tmp_path, jobs=1).drivers
    assert sorted(drivers[drivers.evidence != "install_date"].observed_at.dt.month) == [5, 6]


def test_a_log_and_its_compressed_copy_count_once(tmp_path: Path) -> None:
    warning = "2014-05-01T10:{:02d}:00.000Z cpu1:33)<4>hpsa 0000:03:00.0: out of memory\n"
    text = "".join(warning.format(minute) for minute in range(50)).encode()
    (tmp_path / "esx01").mkdir()
    (tmp_path / "esx01" / "vmkernel.log").write_bytes(text)
    (tmp_path / "esx01" / "copy.gz").write_bytes(gzip.compress(text))
    from psodlib.assemble import _without_copies
    from psodlib.evidence.reading import read_unit
    from psodlib.evidence.sources import iter_units

    readings = [reading for unit in iter_units(tmp_path) for reading in read_unit(unit)[0]]
    assert len(readings) == 2 and len(_without_copies(readings)) == 1


def test_what_was_taken_after_a_boot_had_ended_says_nothing_of_it(tmp_path: Path) -> None:
    files = {
        "vmksummary.log": "".join(f"2014-05-01T{h:02}:00:01Z heartbeat: up 1d{h}h0m0s, 0 VMs; [] []\n" for h in range(11)),
        "vmkernel-log.1": "2014-05-01T10:20:00.000Z cpu14:960)@BlueScreen: #PF Exception 14 in world 960:scan IP 0x418018b7e594 addr 0x0\n"
        "2014-05-01T10:20:00.000Z cpu14:960)Code start: 0x418018200000 VMK uptime: 1:10:20:00.000\n"
        "2014-05-01T10:20:00.000Z cpu14:960)0x412426e5dda0:[0x418018b7e594]hpsa_scan@<None>#<None>+0x39c stack: 0x1\n",
        "commands/hpsa.txt": "HP HPSA Driver (v 5.5.0.60-1OEM)\nhpsa0: SCSI host: 2\n",
        "commands/vmware.txt": "VMware ESXi 6.0.0 build-2494585\n",
        "commands/date.txt": "Mon May 12 09:00:00 UTC 2014\n",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / "esx1" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "esx1" / name).write_text(text)
    fleet = psod.load(tmp_path, jobs=1)
    (crash,) = fleet.crashes[["driver_version", "driver_evidence"]].itertuples(index=False)
    assert pd.isna(crash.driver_version) and crash.driver_evidence == "none"
    taken = pd.Timestamp("2014-05-12 09:00", tz="UTC")  # it ran then, in a boot that nobody saw begin
    assert fleet.uptimes[["boot", "end_reason"]].iloc[-1].tolist() == [taken, "running"] and len(fleet.uptimes) == 2
    assert fleet.now("hpsa")[["version", "since"]].values.tolist() == [["5.5.0.60", taken]]
    days = psod.exposure(fleet, "hpsa").groupby("version", dropna=False)["host_days"].sum()
    assert days.index.isna().all() and days.sum() == pytest.approx(10.333 / 24, abs=0.001)


def test_a_crash_of_which_only_its_dump_is_left_and_no_sign_of_life_is_taken() -> None:
    at, hour = datetime(2014, 5, 1, tzinfo=UTC), timedelta(hours=1)
    lost = Mark(time=at, what="failed_over", evidence="vcenter")  # of a boot without a start, and no sign of life of it
    booted = Mark(time=at + 10 * hour, what="booted", evidence="vmkernel")
    dump = Mark(time=at + 10.1 * hour, what="core_dump_found")
    list_ = DriverReading(module="hpsa", version="5.5.0.58")
    told = (
        FileReading(source="a", kind="vmksummary", size=1, marks=(lost, booted, dump)),
        FileReading(source="b", kind="vib_list", size=2, collected=at + 20 * hour, drivers=(list_,)),
    )
    rows = rows_of([("esx1", reading) for reading in told])
    assert (rows["uptimes"][0]["end_reason"], rows["uptimes"][0]["end"]) == ("crash", None)
    assert [row["boot"] for row in rows["drivers"]] == [booted.time]


def test_a_load_into_a_store_leaves_the_collector_as_it_was(tmp_path: Path) -> None:
    before = gc.get_threshold()
    for frozen in (0, 1):
        if frozen:
            gc.freeze()
        count = gc.get_freeze_count()
        psod.load(INCIDENT, store=tmp_path / str(frozen), jobs=1)
        left = gc.get_freeze_count(), gc.get_threshold()
        gc.unfreeze()
        assert left[0] <= count and left[1] == before  # what was frozen may have gone


def test_a_lone_file_is_not_the_host_of_a_folder_that_holds_nothing_else(tmp_path: Path) -> None:
    for folder, host in (("u", None), ("esx07", "esx07")):
        (tmp_path / folder).mkdir()
        text = (INCIDENT / "incident-host/var/core/vmkernel-log.1").read_bytes()
        (tmp_path / folder / "mail.txt").write_bytes(text)
        assert psod.load(tmp_path / folder / "mail.txt", jobs=1).crashes["host"].fillna("").tolist() == [host or ""]
