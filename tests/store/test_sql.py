"""psod sql: answers from the store's tables, and reaches nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DATA

import psodlib as psod
from psodlib.store import sql
from psodlib.store.sql import ask

pytest.importorskip("duckdb", reason="the extra `cluster` is not installed")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sql") / "store"
    psod.load(DATA / "demo-fleet", inventory=DATA / "inventory.csv", store=folder, jobs=1)
    return folder


def test_an_answer_is_what_pandas_says(store: Path) -> None:
    fleet = psod.Fleet.open(store)
    found = ask(store, "select guilty_module, count(*) as n from crashes group by 1 order by n desc, 1").table
    assert dict(zip(found.guilty_module.fillna("-"), found.n, strict=True)) == dict(
        fleet.crashes.guilty_module.fillna("-").value_counts()
    )
    joined = ask(
        store, "select count(*) as n from frames f join crashes c using (crash_id) join hosts h on h.host = c.host"
    ).table
    assert joined.n[0] == len(fleet.frames)
    assert ask(store, "select sum(epoch(observed)) as s from uptimes").table.s[0] == pytest.approx(
        fleet.uptimes.observed.dt.total_seconds().sum()
    )
    assert ask(store, "select count(*) as n from ledger where not gone").table.n[0] > 50
    newest = ask(store, "select max(time) as t from crashes where month(time) > 0").table.t[0]
    assert newest == fleet.crashes.time.max()


@pytest.mark.parametrize(
    "query",
    ["select * from read_csv('/etc/passwd')", "select * from read_text('/etc/passwd')", "select * from '/etc/passwd'",
     "select * from glob('/*')", "select * from read_parquet('https://example.com/x.parquet')",
     "select getenv('HOME')", "select * from os", "copy (select 1) to '{out}'", "attach '{out}' as x",
     "install httpfs", "load httpfs", "set enable_external_access=true", "create table crashes2 as select 1",
     "drop view crashes", "delete from crashes", "export database '{out}'", "pragma database_list",
     "select 1; select 2", "", "select nonsense from crashes"],
)  # fmt: skip
def test_nothing_else_is_in_reach(store: Path, tmp_path: Path, query: str) -> None:
    with pytest.raises(psod.InputError):
        ask(store, query.format(out=tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def run(store: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from psodlib.cli import main; main()", "sql", str(store), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_command_line_forms(store: Path) -> None:
    query = "select host, time from crashes order by time limit 2"
    assert "2 rows" in run(store, query).stdout
    lines = run(store, query, "--format", "csv").stdout.splitlines()
    assert lines[0] == "host,time" and len(lines) == 3
    rows = [json.loads(line) for line in run(store, query, "--format", "json").stdout.splitlines()]
    assert [set(row) for row in rows] == [{"host", "time"}] * 2
    wrong = run(store, "drop table hosts")
    assert wrong.returncode == 2 and "expected one SELECT" in wrong.stderr and "Traceback" not in wrong.stderr


def test_without_duckdb_it_says_what_to_install(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(psod.InputError, match=r"pip install '.\[cluster\]'"):
        ask(store, "select 1")
    with pytest.raises(psod.InputError, match="no store"):
        ask(store / "tables", "select 1")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("with recursive t(n) as (select 1 union all select n + 1 from t) select count(*) from t", "stopped after 2 s"),
        ("select string_agg(repeat('x', 1000000)) from range(7000)", "memory|stopped after"),
        ("select repeat('x', 100000000) from range(70)", "memory|stopped after"),
        ("select u.* from uptimes u, drivers, drivers d2 order by 1, 2, 3", "memory|stopped after"),
    ],
)
def test_time_and_memory_are_bounded(store: Path, query: str, said: str) -> None:
    with pytest.raises(psod.InputError, match=said):
        ask(store, query, seconds=2)


def test_the_system_too_bounds_a_querys_memory_and_is_set_back() -> None:
    resource = pytest.importorskip("resource", reason="no such limits here")
    before = resource.getrlimit(resource.RLIMIT_AS)
    with sql._no_more_memory():
        assert 0 < resource.getrlimit(resource.RLIMIT_AS)[0] < 64 * sql.MEMORY
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_rows_are_bounded_with_a_word(store: Path) -> None:
    answer = ask(store, "select * from range(3000000000)", rows=1000)
    assert len(answer.table) == 1000 and answer.cut
    assert not ask(store, "select * from range(1000)", rows=1000).cut
    done = run(store, "select * from range(3000000000)", "--rows", "7", "--format", "csv")
    assert len(done.stdout.splitlines()) == 8 and "only the first 7 rows" in done.stderr


def test_what_is_printed_is_harmless(store: Path) -> None:
    query = """select '=1+1' as "=cmd", chr(27) || '[31m' as "[/x]", -5 as n"""
    table = run(store, query)
    assert table.returncode == 0 and "[/x]" in table.stdout and "\x1b" not in table.stdout
    lines = run(store, query, "--format", "csv").stdout.splitlines()
    assert lines[0] == "'=cmd,[/x],n" and lines[1].startswith("'=1+1,") and lines[1].endswith(",-5")
    assert "\x1b" not in lines[1] and "\x1b" not in run(store, query, "--format", "json").stdout


@pytest.mark.skipif(os.name == "nt", reason="SIGINT to a process of its own")
def test_ctrl_c_ends_a_query(store: Path) -> None:
    import signal
    import time

    query = "with recursive t(n) as (select 1 union all select n + 1 from t) select count(*) from t"
    command = [sys.executable, "-c", "from psodlib.cli import main; main()", "sql", str(store), query]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(6)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in told
