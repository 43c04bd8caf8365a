"""A store and a saved fleet are sources like any other; and what is new since the last load."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
from conftest import DATA

import psodlib as psod
from psodlib import schema
from psodlib.fleet import explain_crash
from psodlib.triage.changes import fleet_changes, sentences

INCIDENT = DATA / "incident-2014-05-31"
NAMES = [*schema.TABLES, *schema.AUXILIARY]


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "fleet"
    shutil.copytree(INCIDENT, folder)
    return folder


@pytest.fixture(scope="module", params=["store", "saved"])
def saved(request: pytest.FixtureRequest, evidence: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / request.param
    if request.param == "store":
        psod.load(evidence, store=folder, jobs=1)
    else:
        psod.load(evidence, jobs=1).save(folder)
    return folder


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from psodlib.cli import main; main()", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_it_is_loaded_as_it_is(saved: Path, evidence: Path) -> None:
    whole = psod.load(evidence, jobs=1)
    for name in NAMES:
        pd.testing.assert_frame_equal(getattr(psod.load(saved), name), getattr(whole, name))
    assert explain_crash("75b6", saved) == explain_crash("75b6", evidence)


def test_it_takes_another_inventory_and_other_issues(saved: Path, evidence: Path, tmp_path: Path) -> None:
    host = psod.load(saved).hosts.host.iloc[0]
    (tmp_path / "hosts.csv").write_text(f"host,cluster\n{host},blue\nesx99,red\n")
    (tmp_path / "mine.toml").write_text(
        '[[issue]]\nid = "MINE-1"\ntitle = "x"\nsource = "a test"\nsure = "weak"\nmodule = "hpsa"\nstack = ["hpsa_.*"]\nremedy = "none"\n'
    )
    words = {"inventory": tmp_path / "hosts.csv", "known_issues": tmp_path / "mine.toml"}
    again, whole = psod.load(saved, **words), psod.load(evidence, jobs=1, **words)  # type: ignore[arg-type]
    for name in NAMES:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(whole, name))
    assert again.crashes.known_issues.str.contains("MINE-1").any() and "esx99" in set(again.hosts.host)


def test_it_stands_alone(saved: Path, evidence: Path, tmp_path: Path) -> None:
    with pytest.raises(psod.InputError, match="stands alone; to add evidence to a store"):
        psod.load(saved, evidence)
    with pytest.raises(psod.InputError, match="stands alone"):
        psod.load(saved, store=tmp_path / "other")


def test_case_and_lab_take_it(saved: Path, tmp_path: Path) -> None:
    done = psod.case("75b6", saved, out=tmp_path / "case.zip")
    assert "crash.txt" in done.hashes and "explain.txt" in done.hashes
    with pytest.raises(psod.InputError, match="name the evidence itself"):
        psod.case("75b6", saved, out=tmp_path / "case.zip", key=b"x" * 32)
    from psodlib.views.notebooks import notebook_folder, set_source

    for path in notebook_folder().glob("0[2-6]*.ipynb"):
        shutil.copy(path, tmp_path)
    for _ in range(2):  # a working copy that is there already
        set_source(tmp_path, str(saved))
    for path in tmp_path.glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        given = ["".join(c["source"]) for c in cells if "injected-parameters" in c["metadata"].get("tags", [])]
        assert given == [f"source = {str(saved.resolve())!r}\ninventory = None"]


def test_the_command_line_says_what_is_new(tmp_path: Path) -> None:
    root, store = tmp_path / "fleet", str(tmp_path / "s")
    shutil.copytree(INCIDENT / "incident-host", root / "esx01")
    first = run("load", str(root), "--store", store)
    assert "files read" in first.stdout and "Since the last load" not in first.stdout
    log = (INCIDENT / "incident-host/var/core/vmkernel-log.1").read_bytes()
    (root / "esx02").mkdir()
    (root / "esx02/vmkernel-log.1").write_bytes(
        log.replace(b"2014-05-31T", b"2014-07-02T").replace(b":10.166", b":11.166")
    )
    second = run("load", str(root), "--store", store)
    assert "Since the last load: 1 new crash (esx02)" in second.stdout, second.stdout
    assert run("explain", "75b6", store).stdout == run("explain", "75b6", str(root)).stdout
    (root / "esx02/vmkernel-log.1").unlink()  # what the store has kept is no trouble, wherever it is asked for
    third = run("load", str(root), "--store", store)
    assert "vanished" in third.stdout and third.returncode == run("load", store).returncode == 0
    refused = run("load", str(root), "--store", "s3://bucket/store")
    assert refused.returncode == 2 and "an address cannot be locked" in refused.stderr
    assert not Path("s3:").exists()


def table(name: str, **columns: list[object]) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    return schema.build(name, [{key: values[i] for key, values in columns.items()} for i in range(count)])


def test_what_changed_between_two_loads() -> None:
    day = [pd.Timestamp(f"2014-03-{d:02d}", tz="UTC") for d in range(1, 32)]

    def fleet(until: int, versions: list[str], crashes: list[str]) -> dict[str, pd.DataFrame]:
        return {
            "hosts": table("hosts", host=["a", "b", "c"], last_seen=[day[until], day[5], day[0]]),
            "crashes": table("crashes", crash_id=crashes, host=["a"] * len(crashes), signature=["x", "x", "y"][: len(crashes)]),
            "drivers": table(
                "drivers", host=["a"] * len(versions), module=["hpsa"] * len(versions), version=versions,
                state=["loaded"] * len(versions), observed_at=day[: len(versions)],
            ),
        }  # fmt: skip

    advice = [
        pd.DataFrame({"version": ["1", "2"], "advice": words}) for words in (["keep", "keep"], ["move_now", "keep"])
    ]
    found = fleet_changes(fleet(5, ["1"], ["p"]), fleet(12, ["1", "2"], ["p", "q", "r"]), (advice[0], advice[1]))
    assert list(found["crashes"].crash_id) == ["q", "r"]
    assert found["signatures"][["signature", "crashes", "hosts"]].values.tolist() == [["y", 1, 1]]
    assert found["versions"][["host", "from_version", "to_version"]].values.tolist() == [["a", "1", "2"]]
    assert list(found["silent"].host) == ["b"]  # c was silent before
    assert found["advice"].values.tolist() == [["1", "keep", "move_now"]]
    assert sentences(found) == [
        "2 new crashes (a)", "1 new signature (y)", "1 driver in another version (a)", "1 host fell silent (b)",
        "other advice for 1 version (1)",
    ]  # fmt: skip
    same = fleet(5, ["1"], ["p"])
    assert sentences(fleet_changes(same, same, (advice[0], advice[0]))) == []
    empty = {name: schema.empty(name) for name in ("hosts", "crashes", "drivers")}
    assert sentences(fleet_changes(empty, empty)) == []


def test_a_report_of_a_store_has_a_page_of_what_changed(tmp_path: Path) -> None:
    root, store, out = tmp_path / "ev", tmp_path / "s", tmp_path / "report"
    shutil.copytree(DATA / "incident-2014-05-31", root)
    log = root / "quiet01/var/log/vmksummary.log"
    log.parent.mkdir(parents=True)
    beats = [
        f"2014-05-{d:02d}T{h:02d}:00:00Z heartbeat: up {d}d{h}h0m0s, 3 VMs; [[1 vmx 4kB] [2 vmx 4kB] [3 vmx 4kB]] []\n"
        for d in range(1, 32)
        for h in range(24)
    ]
    log.write_text("".join(beats))
    crash = root / "incident-host/var/core/vmkernel-log.1"
    held = crash.rename(tmp_path / "held")
    psod.load(root, store=store, jobs=1)
    assert not (psod.report(store, out, notebooks=False).folder / "changes.html").exists()  # nothing to compare with
    held.rename(crash)
    psod.load(root, store=store, jobs=1)
    psod.report(store, out, notebooks=False)
    page, index = (unescape((out / name).read_text()) for name in ("changes.html", "index.html"))
    assert "1 new crash (" in page and "hpsa_update_scsi_devices" in page and "How the advice changed" in page
    assert 'href="changes.html"' in index and "1 new crash (" in index
    assert (out / "tables/new_crashes.csv").read_text().count("\n") == 2
    crash = psod.Fleet.open(store).crashes.iloc[0]
    assert f'href="explorer.html#crash={crash.crash_id}"' in page
