"""The files of a made-up fleet: real shapes, whole truth, the same bytes for the same seed."""

from __future__ import annotations

import gzip
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pandas as pd
import pytest

from psodlib.errors import InputError
from psodlib.simulate import History, simulate_fleet
from psodlib.simulate.folder import FRAGMENT

FLEET = {"hosts": 15, "days": 200, "clusters": 4, "seed": 3, "driver_rate": 1.5, "background_rate": 1.0,
         "deliberate_rate": 0.3, "attribution": 0.6, "truncated": 0.3, "rotation_loss": 0.4}  # fmt: skip
Made, Files = tuple[Path, History], dict[tuple[str, str], bytes]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    out = tmp_path_factory.mktemp("made") / "fleet"
    return out, simulate_fleet(out, **FLEET)


@pytest.fixture(scope="module")
def files(made: Made) -> Files:
    """(host, path on the host) -> bytes, packed or not; rotations still compressed, fragments put together."""
    found: Files = {}
    for host, path, content in sorted(_walk(made[0])):
        name = re.sub(r"\.FRAG-\d{5}$", "", path).replace("var/run/log/", "var/log/")
        found[host, name] = found.get((host, name), b"") + content
    return found


def _walk(out: Path) -> Iterator[tuple[str, str, bytes]]:
    for file in out.rglob("*"):
        host, *rest = file.relative_to(out).parts
        if not file.is_file() or not rest or host == "truth":
            continue
        if file.suffix == ".tgz":
            with tarfile.open(file) as archive:
                for member in archive:
                    if member.isfile():
                        inside = PurePosixPath(*PurePosixPath(member.name).parts[1:])
                        yield host, str(inside), archive.extractfile(member).read()  # type: ignore[union-attr]
        else:
            yield host, "/".join(rest), file.read_bytes()


def truth(out: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(out / "truth" / f"{name}.csv")


def log_lines(files: Files, host: str, log: str) -> list[str]:
    """Lines of a log with its rotations, in order of time."""
    lines = []
    for (owner, path), content in files.items():
        if owner == host and re.fullmatch(rf"var/log/{log}(\.log|\.\d+\.gz)", path):
            text = _inflated(content) if path.endswith(".gz") else content.decode()
            lines += [line for line in text.split("\n") if line]
    return sorted(lines)


def _inflated(content: bytes) -> str:
    try:
        return gzip.decompress(content).decode()
    except EOFError:
        return ""  # cut on purpose


def test_the_same_seed_writes_the_same_bytes(made: Made, tmp_path: Path) -> None:
    again = tmp_path / "again"
    simulate_fleet(again, **FLEET)
    names = sorted(str(file.relative_to(again)) for file in again.rglob("*"))
    assert names == sorted(str(file.relative_to(made[0])) for file in made[0].rglob("*"))
    for name in names:
        if (again / name).is_file():
            assert (again / name).read_bytes() == (made[0] / name).read_bytes(), name


def test_the_folder_says_that_it_is_made_up(made: Made) -> None:
    assert "made up" in (made[0] / "SIMULATED").read_text()
    parameters = json.loads((made[0] / "truth" / "parameters.json").read_text())
    assert parameters["seed"] == 3 and parameters["driver_rate"] == 1.5 and parameters["ratio_58"] == 3.0
    assert list(pd.read_csv(made[0] / "inventory.csv")) == ["host", "cluster", "vendor", "model", "users", "vms"]


def test_names_are_safe_on_windows(made: Made) -> None:
    assert not [file for file in made[0].rglob("*") if set('<>:"|?*\\') & set(file.name)]


def test_truth_holds_the_whole_history(made: Made) -> None:
    out, history = made
    for name in ("crashes", "boots", "installs", "gaps", "hosts"):
        assert len(truth(out, name)) == len(getattr(history, name))
    rates, table = truth(out, "rates"), history.exposure()
    assert rates["host_days"].sum() == pytest.approx(table["host_days"].sum(), abs=0.01)
    assert rates["crashes"].sum() == table["crashes"].sum()


def test_every_crash_has_its_dump_log_or_none(made: Made, files: Files) -> None:
    crashes = truth(made[0], "crashes")
    assert set(crashes["form"]) == {"whole", "bare", "cut", "none"}
    dumps = {key: content.decode() for key, content in files.items() if "var/core/" in key[1]}
    stamps = {(host, re.search(r"(\S+Z) \S+\)@BlueScreen: ", text)[1]) for (host, _), text in dumps.items()}  # type: ignore[index]
    left = crashes[crashes["form"] != "none"]
    assert stamps == set(zip(left["host"], left["time"], strict=True))
    assert len(dumps) == len(left)


def test_only_whole_dumps_name_a_driver_on_the_stack(made: Made, files: Files) -> None:
    crashes = truth(made[0], "crashes").set_index(["host", "time"])
    spellings = set()
    for (host, path), content in files.items():
        if "var/core/" not in path:
            continue
        text = content.decode()
        crash = crashes.loc[(host, re.search(r"(\S+Z) \S+\)@BlueScreen: ", text)[1])]  # type: ignore[index]
        named = set(re.findall(r"@(<None>#<None>|#|com\.vmware[^+]*)\+", text))
        spellings |= named
        if crash["form"] == "whole":
            assert bool(named) == isinstance(crash["module"], str)
            assert "base fs=" in text and "\nvmkernel 0x0" not in text and ")vmkernel 0x0 .data 0x0 .bss 0x0" in text
        else:
            assert not named
        if crash["form"] == "cut":
            assert "]" not in text.split("Code start")[1] and not text.endswith("\n")
    assert {"<None>#<None>", "#", "com.vmware.driverAPI#9.2"} <= spellings


def test_uptime_in_the_dump_is_the_life_of_the_boot(made: Made, files: Files) -> None:
    crashes = truth(made[0], "crashes").set_index(["host", "time"])
    seen = 0
    for (host, path), content in files.items():
        match = re.search(
            r"(\S+Z) \S+\)Code start: 0x4180[0-9a-f]{8} VMK uptime: (\d+):(\d\d):(\d\d):(\d\d\.\d{3})\n",
            content.decode("latin-1"),
        )
        if "var/core/" in path and match:
            days, clock = int(match[2]), f"{match[3]}:{match[4]}:{match[5]}"
            life = pd.Timestamp(match[1]) - pd.Timestamp(crashes.loc[(host, match[1]), "boot"])
            assert life == pd.Timedelta(days=days) + pd.Timedelta(clock)
            seen += 1
    assert seen > 20


def test_heartbeats_count_the_uptime_of_the_true_boot(made: Made, files: Files) -> None:
    history = made[1]
    for host, boots in history.boots.groupby("host"):
        starts = boots["boot"].to_numpy(dtype="datetime64[s]").astype("int64")
        for line in log_lines(files, host, "vmksummary"):
            match = re.fullmatch(r"(\S+Z) heartbeat: up (\d+)d(\d+)h(\d+)m(\d+)s, \d+ VMs; \[\] \[\]", line)
            if match:
                up = sum(int(n) * unit for n, unit in zip(match.groups()[1:], (86400, 3600, 60, 1), strict=True))
                assert abs(starts - (pd.Timestamp(match[1]).timestamp() - up)).min() <= 1
            else:
                assert re.fullmatch(
                    r"\S+Z (mark: storage-path-claim-completed|"
                    r"bootstop: (Host has booted|Host is rebooting|partition core dump found))",
                    line,
                )


def test_no_line_falls_into_a_gap(made: Made, files: Files) -> None:
    gaps = made[1].gaps
    assert len(gaps) > 5
    for gap in gaps.itertuples():
        for log in ("vmksummary", "vmkernel"):
            stamps = pd.to_datetime(
                [line.split(" ", 1)[0] for line in log_lines(files, gap.host, log)], format="ISO8601", utc=True
            )
            assert not ((stamps >= gap.start) & (stamps < gap.end)).any()


def test_banners_tell_the_loaded_version_of_their_boot(made: Made, files: Files) -> None:
    seen = set()
    for host, boots in made[1].boots.groupby("host"):
        for line in log_lines(files, host, "vmkernel"):
            match = re.match(r"(\S+Z) \S+\)<6>HP HPSA Driver \(v (\S+)-1OEM\)$", line)
            if match:
                boot = boots[boots["boot"] <= pd.Timestamp(match[1])].iloc[-1]
                assert match[2] == boot["version"]
                seen.add(match[2])
    assert seen == {"5.5.0.50", "5.5.0.58", "5.5.0.60"}


def test_esxupdate_tells_every_install(made: Made, files: Files) -> None:
    for host, installs in made[1].installs.groupby("host"):
        text = files[host, "var/log/esxupdate.log"].decode()
        told = re.findall(r"being installed is Hewlett-Packard_bootbank_scsi-hpsa_(5\.5\.0\.\d\d)-1OEM", text)
        assert told[1:] == installs["version"].tolist()  # the first is the image


def test_commands_tell_what_runs_and_what_waits(made: Made, files: Files) -> None:
    history = made[1]
    for host, boots in history.boots.groupby("host"):
        loaded = boots["version"].iloc[-1]
        installs = history.installs[history.installs["host"] == host]
        installed = installs["version"].iloc[-1] if len(installs) else loaded
        assert f"(v {loaded}-1OEM)" in files[host, "commands/cat_procscsihpsa2.txt"].decode()
        assert f"  {installed}-1OEM" in files[host, "commands/localcli_software-vib-list.txt"].decode()
        waits = (host, "commands/localcli_software-vib-list---rebooting-image.txt") in files
        assert waits == (installed != loaded)


def test_bundles_split_large_files_and_link_their_logs(made: Made) -> None:
    bundles = sorted(made[0].rglob("*.tgz"))
    assert len(bundles) == 3
    with tarfile.open(bundles[0]) as archive:
        members = archive.getmembers()
    assert {PurePosixPath(member.name).parts[0] for member in members} == {bundles[0].name.removesuffix(".tgz")}
    assert re.fullmatch(r"esx-esx001-\d{4}-\d\d-\d\d--\d\d\.\d\d-\d+\.tgz", bundles[0].name)
    pieces = [member for member in members if member.isfile() and "vmkernel.log.FRAG-" in member.name]
    assert len(pieces) >= 2 and all(piece.size == FRAGMENT for piece in pieces[:-1])
    assert all(member.linkname.startswith("../run/log/") for member in members if member.issym())
    assert not [member for member in members if member.isfile() and member.size > FRAGMENT]


def test_some_rotations_are_lost_and_some_are_cut(files: Files) -> None:
    rotations = {
        host: sorted(path for owner, path in files if owner == host and re.search(r"vmkernel\.\d", path))
        for host, _ in files
    }
    assert 0 < sum(len(paths) <= 1 for paths in rotations.values()) < len(rotations)
    cut = [key for key, content in files.items() if key[1].endswith(".gz") and not _inflated(content)]
    assert cut and all("vmkernel" in path for _, path in cut)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"bundles": 2}, "bundles"), ({"no_dump": 0.7, "cut_dump": 0.7}, "no_dump"), ({"hosts": 0}, "hosts")],
)
def test_wrong_arguments_write_nothing(tmp_path: Path, arguments: dict[str, float], word: str) -> None:
    with pytest.raises(InputError, match=word):
        simulate_fleet(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        simulate_fleet(tmp_path, hosts=2)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
