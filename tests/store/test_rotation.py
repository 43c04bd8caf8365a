"""Known bytes are known under any name, and a store never forgets by accident: logs that rotate, move, vanish or cannot be read."""

from __future__ import annotations

import gzip
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import psodlib as psod
from psodlib import schema
from psodlib.store import ledger, update
from psodlib.store.folder import read_manifest

NAMES = [*schema.TABLES, *schema.AUXILIARY]
LONG = bool(os.environ.get("PSOD_LONG"))  # `make fuzz`
BLUE = (
    "2014-{:02d}-{:02d}T{:02d}:10:00.166Z cpu{}:33{:03d})@BlueScreen: #PF Exception 14 in world 33{:03d}:vmnic{} IP 0x41800{:04x} addr 0x{:x}\n"
    "2014-{:02d}-{:02d}T{:02d}:10:00.166Z cpu{}:33{:03d})Code start: 0x418000000000 VMK uptime: {}:03:00:00.000\n"
    "2014-{:02d}-{:02d}T{:02d}:10:00.167Z cpu{}:33{:03d})0x4123:[0x41800{:04x}]bnx2x_tx@bnx2x#1.72+0x{:x} stack: 0x1\n"
)


def heartbeat(month: int, day: int, hour: int, host: int) -> str:
    return f"2014-{month:02d}-{day:02d}T{hour:02d}:00:{host:02d}Z heartbeat: up {day}d{hour}h0m{host}s, {host} VMs; [[1 vmx 4kB] [2 vmx 4kB] [3 vmx 4kB]] []\n"


def crash(month: int, day: int, host: int) -> str:
    hour, cpu, world, at = day % 24, host % 16, host * 7 % 900 + day, host * 97 + day
    line = (month, day, hour, cpu, world)
    return BLUE.format(*line, world, host % 8, at, at, *line, day, *line, at, at % 250)


def same(one: psod.Fleet, other: psod.Fleet, but: tuple[str, ...] = ()) -> None:
    for name in NAMES:
        a, b = (getattr(fleet, name) for fleet in (one, other))
        if name == "problems":
            a, b = (table[table.problem != "vanished"].reset_index(drop=True) for table in (a, b))
        pd.testing.assert_frame_equal(
            a.drop(columns=list(but), errors="ignore"), b.drop(columns=list(but), errors="ignore")
        )


class Host:
    """A host's folder as `psod collect` or a mirror keeps it: a log that grows, is packed and counted up, and outputs."""

    def __init__(self, root: Path, number: int, kept: int = 3) -> None:
        self.root, self.number, self.kept, self.folder = root, number, kept, root / f"esx{number:02d}"
        self.text = ""

    @property
    def log(self) -> Path:
        return self.folder / "var/log/vmksummary.log"

    def write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def live(self, month: int, day: int, dies: bool = False) -> None:
        for hour in range(24):
            self.text += heartbeat(month, day, hour, self.number)
        if dies:
            self.write(
                self.folder / f"var/core/vmkernel-log.{month * 31 + day}", crash(month, day, self.number).encode()
            )
        self.write(self.log, self.text.encode())

    def rotate(self) -> None:
        for number in range(self.kept - 1, 0, -1):
            before = self.log.with_name(f"vmksummary.{number - 1}.gz")
            if before.exists():
                before.replace(self.log.with_name(f"vmksummary.{number}.gz"))
        self.write(self.log.with_name("vmksummary.0.gz"), gzip.compress(self.text.encode(), mtime=0))
        self.text = ""
        self.log.unlink()

    def collect(self, stamp: str) -> None:
        # As the collector does: the outputs of the run before go into a folder of their time.
        outputs = self.folder / "commands"
        if (outputs / "date.txt").exists():
            before = outputs / (outputs / "date.txt").read_text().replace(":", "")[:17].replace(" ", "")
            before.mkdir(exist_ok=True)
            for path in [path for path in outputs.iterdir() if path.is_file()]:
                path.replace(before / path.name)
        self.write(outputs / "date.txt", f"{stamp}\n".encode())
        version = "5.5.0.50" if self.number % 2 else "5.5.0.60"
        table = (
            "Name       Version                    Vendor  Acceptance Level  Install Date\n"
            "---------  -------------------------  ------  ----------------  ------------\n"
            f"scsi-hpsa  {version}-1OEM.550.0.0.1331820  HP      VMwareCertified   2014-04-02\n"
        )
        self.write(outputs / "esxcli_software_vib_list.txt", table.encode())
        self.write(outputs / "uname.txt", b"VMkernel localhost 5.5.0 #1 SMP Release build-1331820 Sep 18 2013 23:08:31 x86_64 GNU/Linux\n")  # fmt: skip

    def rename(self, name: str) -> None:
        self.folder = self.folder.rename(self.root / name)

    def move(self, root: Path) -> None:
        self.root, self.folder = root, root / self.folder.name


def fleet_of(root: Path, count: int = 3, days: int = 3) -> list[Host]:
    hosts = [Host(root, number) for number in range(1, count + 1)]
    for host in hosts:
        for day in range(1, days + 1):
            host.live(3, day, dies=day == 2)
        host.collect("Mon Mar  3 12:00:00 UTC 2014")
    return hosts


def news(store: Path) -> dict[str, int | bool]:
    return read_manifest(store).news


def test_rotated_logs_and_collected_outputs_are_not_read_again(tmp_path: Path) -> None:
    root, store = tmp_path / "fleet", tmp_path / "s"
    hosts = fleet_of(root)
    for day in (4, 5):
        for host in hosts:
            host.rotate()
            host.live(3, day)
    psod.load(root, store=store, jobs=1)
    for host in hosts:
        host.rotate()  # packed as it was: known by what is in it
        host.live(3, 6)
        host.collect("Thu Mar  6 12:00:00 UTC 2014")
    after = psod.load(root, store=store, jobs=1)
    # The new log; and date and uname, which the day of the collection dates. The list of VIBs is as it was.
    assert news(store)["files read"] == 3 * len(hosts)
    assert news(store)["files gone, kept"] == 0
    same(after, psod.load(root, jobs=1))


def test_a_packed_log_is_known_by_its_size_time_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, store = tmp_path / "fleet", tmp_path / "s"
    (host,) = fleet_of(root, 1)
    for day in range(4, 24):  # more than both ends together
        host.live(3, day)
    text = host.text.encode()
    host.rotate()
    log = host.log.with_name("vmksummary.0.gz")
    host.write(log, gzip.compress(text, 0, mtime=0))
    assert len(log.read_bytes()) > 3 * ledger.HEAD
    os.utime(log, (1e9, 1e9))
    monkeypatch.setattr(ledger, "RACY", -1.0)
    psod.load(root, store=store, jobs=1)
    wholes: list[object] = []
    monkeypatch.setattr(ledger, "_unfolded", lambda *asked: wholes.append(asked))
    log = log.rename(log.with_name("vmksummary.1.gz"))
    psod.load(root, store=store, jobs=1)
    assert news(store)["files read"] == 0 and news(store)["files known under another name"] == 1 and not wholes
    # As long and as old, its first and last lines the same: its CRC, the last but four bytes, tells it.
    middle = text.index(b"2014-03-12T05:00") + 15
    log = log.rename(log.with_name("vmksummary.2.gz"))
    log.write_bytes(gzip.compress(text[:middle] + b"7" + text[middle + 1 :], 0, mtime=0))
    os.utime(log, (1e9, 1e9))
    psod.load(root, store=store, jobs=1)
    assert news(store)["files read"] == 1


def test_a_packed_log_that_was_only_renamed_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, store = tmp_path / "fleet", tmp_path / "s"
    (host,) = fleet_of(root, 1)
    host.rotate()
    log = host.log.with_name("vmksummary.0.gz")
    monkeypatch.setattr(ledger, "RACY", -1.0)
    opened: list[Path] = []
    monkeypatch.setattr(ledger, "open", lambda path, *how, **more: opened.append(Path(path)) or open(path, *how, **more), raising=False)  # fmt: skip  # noqa: SIM115
    for nanoseconds in (1_400_000_000_000_000_123, 1_400_000_001_000_000_000):
        os.utime(log, ns=(nanoseconds, nanoseconds))
        psod.load(root, store=store, jobs=1)
        opened.clear()
        log = log.rename(log.with_name(f"vmksummary.{nanoseconds % 1000}.old.gz"))
        after = psod.load(root, store=store, jobs=1)
        assert news(store)["files read"] == 0 and news(store)["files known under another name"] == 1
        # A time in whole seconds may be an archive's, or a collector's: then its ends must be as they were.
        assert (log in opened) == (nanoseconds % 1000 == 0)
        same(after, psod.load(root, jobs=1))
    # Another file of that size and time, and not the same inode.
    os.utime(log, ns=(1_400_000_000_000_000_123,) * 2)
    psod.load(root, store=store, jobs=1)
    other = log.with_name("vmksummary.9.gz")
    other.write_bytes(log.read_bytes()[:-8] + bytes(8))
    os.utime(other, ns=(1_400_000_000_000_000_123,) * 2)
    log.unlink()
    psod.load(root, store=store, jobs=1)
    assert news(store)["files read"] == 1


def test_a_log_that_grew_before_it_was_packed_is_told_once(tmp_path: Path) -> None:
    root, store = tmp_path / "fleet", tmp_path / "s"
    hosts = fleet_of(root)
    psod.load(root, store=store, jobs=1)
    for host in hosts:
        host.live(3, 4)
        host.rotate()
        host.live(3, 5)
    after = psod.load(root, store=store, jobs=1)
    assert news(store)["files gone, kept"] == 0 and news(store)["files read"] == 2 * len(hosts)
    same(after, psod.load(root, jobs=1))


def test_what_rotated_away_is_kept_without_a_word(tmp_path: Path) -> None:
    root, store = tmp_path / "fleet", tmp_path / "s"
    host = Host(root, 1, kept=1)
    host.live(3, 1)
    host.rotate()
    host.live(3, 2)
    psod.load(root, store=store, jobs=1)
    host.rotate()
    host.live(3, 3)
    after = psod.load(root, store=store, jobs=1)
    assert after.hosts.first_seen.iloc[0] == pd.Timestamp("2014-03-01T00:00:01Z")
    assert not (after.problems.problem == "vanished").any()  # the name is there, with other bytes: it rotated
    host.log.unlink()
    assert (psod.load(root, store=store, jobs=1).problems.problem == "vanished").sum() == 1


def test_a_moved_folder_is_recognised(tmp_path: Path) -> None:
    store = tmp_path / "s"
    fleet_of(tmp_path / "here")
    (tmp_path / "here/esx01/cut.gz").write_bytes(gzip.compress(b"x" * 5000)[:20])
    first = psod.load(tmp_path / "here", store=store, jobs=1)
    (tmp_path / "here").rename(tmp_path / "there")
    after = psod.load(tmp_path / "there", store=store, jobs=1)
    assert news(store)["files read"] == 0 == news(store)["files gone, kept"]
    assert len(after.problems) == len(first.problems) > 0
    same(after, psod.load(tmp_path / "there", jobs=1))


def test_a_copied_folder_is_no_moved_one(tmp_path: Path) -> None:
    store = tmp_path / "s"
    fleet_of(tmp_path / "here")
    psod.load(tmp_path / "here", store=store, jobs=1)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    after = psod.load(tmp_path / "there", store=store, jobs=1)
    same(after, psod.load(tmp_path / "here", tmp_path / "there", jobs=1))


def test_a_renamed_host_leaves_no_ghost(tmp_path: Path) -> None:
    root, store = tmp_path / "fleet", tmp_path / "s"
    hosts = fleet_of(root)
    hosts[0].kept = 1
    for day in (4, 5):
        hosts[0].rotate()
        hosts[0].live(3, day)
        psod.load(root, store=store, jobs=1)  # what rotated away is in the store alone
    hosts[0].rename("esx01-new")
    after = psod.load(root, store=store, jobs=1)
    assert list(after.hosts.host) == ["esx01-new", "esx02", "esx03"]
    assert after.hosts.first_seen.min() == pd.Timestamp("2014-03-01T00:00:01Z")
    assert set(after.crashes.host) == {"esx01-new", "esx02", "esx03"}


def test_a_new_host_with_the_outputs_of_one_that_went_is_another(tmp_path: Path) -> None:
    root, store = tmp_path / "fleet", tmp_path / "s"
    fleet_of(root)
    psod.load(root, store=store, jobs=1)
    outputs = root / "esx01/commands"
    (root / "esx09").mkdir()
    shutil.move(outputs, root / "esx09/commands")
    shutil.rmtree(root / "esx01")
    new = Host(root, 9)
    new.live(3, 20)
    after = psod.load(root, store=store, jobs=1)
    assert {"esx01", "esx09"} <= set(after.hosts.host)
    assert "esx01" in set(after.crashes.host)


def test_what_two_hosts_say_alike_stays_each_ones(tmp_path: Path) -> None:
    root, store = tmp_path / "fleet", tmp_path / "s"
    fleet_of(root)  # esx01 and esx03 have the same list of VIBs
    before = psod.load(root, store=store, jobs=1)
    (root / "esx01/commands/esxcli_software_vib_list.txt").unlink()
    after = psod.load(root, store=store, jobs=1)
    pd.testing.assert_frame_equal(after.drivers, before.drivers)


def damage_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def damage_cut(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes(), mtime=0)[:-30])


def damage_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.skipif(os.name == "nt", reason="pipes and dead links of other systems")
@pytest.mark.parametrize("damage", [damage_pipe, damage_cut, damage_folder])
def test_what_cannot_be_read_now_takes_nothing_from_what_was_read(tmp_path: Path, damage: object) -> None:
    root, store = tmp_path / "fleet", tmp_path / "s"
    fleet_of(root)
    before = psod.load(root, store=store, jobs=1)
    paths = [*root.rglob("vmkernel-log.*"), *root.rglob("vmksummary.log"), *root.rglob("esxcli*.txt")]
    whole = {path: path.read_bytes() for path in paths}
    for path in paths:
        damage(path)  # type: ignore[operator]
    for _ in range(2):
        after = psod.load(root, store=store, jobs=1)
        for name in ("crashes", "frames", "uptimes", "drivers", "hosts", "coverage"):
            pd.testing.assert_frame_equal(getattr(after, name), getattr(before, name))
        assert len(after.problems) > len(before.problems)
    for path, data in whole.items():
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(data)
    healed = psod.load(root, store=store, jobs=1)
    same(healed, before)
    assert len(healed.problems) == len(before.problems)


def test_a_load_that_would_lose_stops_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, store = tmp_path / "fleet", tmp_path / "s"
    fleet_of(root)
    before = psod.load(root, store=store, jobs=1)
    monkeypatch.setattr(update, "parser", lambda: "one that sees no crash")
    monkeypatch.setattr(ledger, "read_unit", lambda unit: ([], []))
    with pytest.raises(
        psod.InputError, match=r"would lose 3 of 3 known crashes and \d+ of \d+ host-days; nothing was changed"
    ):
        psod.load(root, store=store, jobs=1)
    same(psod.Fleet.open(store), before)
    assert psod.load(root, store=store, jobs=1, allow_loss=True).crashes.empty


def test_a_file_replaced_with_its_size_and_time_is_seen(tmp_path: Path) -> None:
    root, store = tmp_path / "fleet", tmp_path / "s"
    host = Host(root, 1)
    host.live(3, 1)
    os.utime(host.log, (1_400_000_000, 1_400_000_000))
    psod.load(root, store=store, jobs=1)
    host.log.write_bytes(host.log.read_bytes().replace(b"2014-03-01", b"2014-03-21"))
    os.utime(host.log, (1_400_000_000, 1_400_000_000))
    assert psod.load(root, store=store, jobs=1).hosts.last_seen.iloc[0].day == 21


def test_many_files_of_one_size_are_held_against_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = ledger._dated
    monkeypatch.setattr(ledger, "_dated", lambda *given: asked.append(1) or real(*given))
    counts = []
    for many in (40, 160):
        root, store = tmp_path / f"fleet{many}", tmp_path / f"s{many}"
        for number in range(many):
            path = root / f"esx1/var/log/vmksummary.{number}.log"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(heartbeat(3, 1 + number % 28, number // 28, 1) * (1 + number % 2))
        psod.load(root, store=store, jobs=1)
        root.rename(root.with_name(f"moved{many}"))
        asked.clear()
        psod.load(root.with_name(f"moved{many}"), store=store, jobs=1)
        assert news(store)["files read"] == 0
        counts.append(len(asked))
    assert counts[1] < 8 * counts[0]  # four times the files


# ---- weeks of all of it -------------------------------------------------------------------------------------------------


def a_week(draw: random.Random, hosts: list[Host], week: int, seen: set[Path]) -> None:
    month, first = 3 + week * 7 // 28, week * 7 % 28 + 1
    for host in hosts:
        turned = 0  # a host that is renamed when all of its logs went is another, for all that can be known
        for day in range(first, first + 7):
            host.live(month, day, dies=draw.random() < 0.05)
            if draw.random() < 0.25 and turned < host.kept - 1:
                host.rotate()
                turned += 1
        if draw.random() < 0.5:
            host.collect(
                f"Sat {'JanFebMarAprMayJunJulAugSep'[3 * month - 3 : 3 * month]} {first + 6:2d} 12:00:00 UTC 2014"
            )
        if draw.random() < 0.1:
            host.rename(f"esx{host.number:02d}-w{week}")
        dumps = sorted(path for path in host.folder.rglob("vmkernel-log.*") if path in seen)
        if dumps and draw.random() < 0.15:
            dumps[0].unlink()


def logs_of(host: Host) -> set[bytes]:
    paths = [path for path in host.folder.rglob("*") if path.is_file() and "commands" not in path.parts]
    return {gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes() for path in paths}


@pytest.mark.parametrize("seed", range(12 if LONG else 2))
def test_weeks_of_a_fleet_give_what_a_full_load_of_all_that_ever_was_gives(tmp_path: Path, seed: int) -> None:
    draw, root, store = random.Random(seed), tmp_path / "fleet", tmp_path / "s"
    hosts = [Host(root, number, kept=draw.choice([3, 4])) for number in range(1, 5)]
    ever: dict[int, set[bytes]] = {host.number: set() for host in hosts}
    for week in range(20 if LONG else 5):
        seen = {path for path in root.rglob("*") if path.is_file()}
        a_week(draw, hosts, week, seen)
        if draw.random() < 0.15 and week:
            root = root.rename(tmp_path / f"fleet{week}")
            for host in hosts:
                host.move(root)
        last = psod.load(root, store=store, jobs=1)
        for host in hosts:
            ever[host.number] |= logs_of(host)
    everything = tmp_path / "all"
    shutil.copytree(root, everything)
    for host in hosts:
        there = logs_of(host)
        for number, text in enumerate(sorted(ever[host.number] - there)):
            if not any(longer.startswith(text) for longer in (ever[host.number] | there) - {text}):
                (everything / host.folder.name / f"vmksummary.{number}.back").write_bytes(text)
    full = psod.load(everything, jobs=1)
    assert len(full.crashes)
    same(without_places(last), without_places(full))


def without_places(fleet: psod.Fleet) -> psod.Fleet:
    # A log that is gone lies nowhere: rows in the order of what they say.
    tables = {}
    for name in NAMES:
        table = getattr(fleet, name).drop(columns=[c for c in ("source", "detail") if c in getattr(fleet, name)])
        order = (
            pd.Series(list(map(str, zip(*(table[c].astype(object).map(str) for c in table), strict=True))))
            if len(table)
            else table.index.to_series().astype(str)
        )
        tables[name] = table.iloc[order.argsort(kind="stable")].reset_index(drop=True)
    return replace(fleet, **tables)
