"""schema.py is the one definition of the tables: it agrees with the contract, and an empty table looks like a full one."""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from pathlib import Path

import pandas as pd
import pytest

from psodlib import schema
from psodlib.errors import InputError
from psodlib.records import DAMAGE, Crash, Frame, Module

EVERY_TABLE = [*schema.TABLES, *schema.AUXILIARY, "exposure"]


def contract_tables(text: str) -> dict[str, list[str]]:
    """Table name -> columns, as section 2 of the contract lists them."""
    found = {}
    for block in re.findall(r"^\*\*(\w[\w ]*)\*\*,? ([^\n]*(?:\n(?!\n|- )[^\n]+)*)", text, re.M):
        name = block[0].split()[0].lower()
        head = re.split(r"\.(?:\s|$)|, and whatever", block[1])[0]
        names = re.findall(r"`(\w+)`", head)
        # a column's closed list follows it in parentheses and is no column
        for words in re.findall(r"\(([^)]*)\)", head):
            names = [n for n in names if not re.search(rf"`{n}`", words)]
        found[name] = names
    return found


@pytest.mark.parametrize("table", schema.TABLES)
def test_columns_are_the_contracts(shared: Path, table: str) -> None:
    contract = contract_tables((shared / "contract.md").read_text())
    assert [c.name for c in schema.TABLES[table]] == contract[table]


def test_exposure_columns_are_the_contracts(shared: Path) -> None:
    contract = contract_tables((shared / "contract.md").read_text())
    assert [c.name for c in schema.EXPOSURE] == contract["exposure"]


@pytest.mark.parametrize(
    ("name", "lead"),
    [
        ("kind", "- `kind`: "),
        ("guilt", "- `guilt`, strongest kind of evidence against `guilty_module`: "),
        ("driver_evidence", "`driver_evidence`: "),
    ],
)
def test_closed_lists_are_the_contracts(shared: Path, name: str, lead: str) -> None:
    text = " ".join((shared / "contract.md").read_text().split())
    listed = text[text.index(lead) + len(lead) :].split(".")[0]
    assert tuple(listed.split(", ")) == schema.CLOSED_LISTS[name]


def test_damage_words_are_the_contracts(shared: Path) -> None:
    text = " ".join((shared / "contract.md").read_text().split())
    listed = re.search(r"empty when whole: ([^.]*)\.", text)
    assert listed and tuple(listed[1].split(", ")) == DAMAGE


def test_smaller_closed_lists_are_the_contracts(shared: Path) -> None:
    text = " ".join((shared / "contract.md").read_text().split())
    for name in ("end_reason", "state", "module_evidence"):
        words = re.search(rf"`{name}` \(([^)]*)\)", text)
        assert words and tuple(w for w in words[1].split(", ") if w != "NA") == schema.CLOSED_LISTS[name]


@pytest.mark.parametrize("table", EVERY_TABLE)
def test_empty_table_has_the_dtypes_of_a_full_one(table: str) -> None:
    row = {c.name: _some(c) for c in schema.columns_of(table)}
    full, empty = schema.build(table, [row]), schema.empty(table)
    assert len(full) == 1 and len(empty) == 0
    pd.testing.assert_series_equal(full.dtypes, empty.dtypes)
    pd.testing.assert_frame_equal(full, schema.conform(table, full))
    pd.testing.assert_frame_equal(empty, schema.conform(table, empty))
    assert not full.isna().any(axis=None)


def _some(column: schema.Column) -> object:
    return {
        schema.TIME: pd.Timestamp("2014-05-31T15:57:32.579Z"),
        schema.SPAN: pd.Timedelta(days=29),
        schema.ADDRESS: 2**64 - 1,
        schema.COUNT: 14,
        schema.TEXT: "hpsa",
        schema.FLAG: True,
        schema.NUMBER: 1.5,
        "category": schema.CLOSED_LISTS.get(column.name, ("",))[0],
    }[column.dtype]


@pytest.mark.parametrize("table", EVERY_TABLE)
def test_unknown_is_na_everywhere(table: str) -> None:
    unknown = schema.build(table, [{}])
    assert unknown.isna().all(axis=None)
    pd.testing.assert_frame_equal(unknown, schema.conform(table, unknown))


def test_rows_are_sorted_by_host_then_time() -> None:
    stamp = pd.Timestamp("2014-01-01", tz="UTC")
    rows = [
        {"host": "b", "time": stamp},
        {"host": "a", "time": stamp + pd.Timedelta("1D")},
        {"host": "a", "time": stamp},
    ]
    table = schema.build("crashes", rows)
    assert list(table.host) == ["a", "a", "b"] and list(table.index) == [0, 1, 2]
    assert table.time[0] < table.time[1]


def test_a_word_outside_a_closed_list_is_refused() -> None:
    with pytest.raises(InputError, match=r"crashes, column kind: 'oops' is none of page_fault"):
        schema.build("crashes", [{"kind": "oops"}])


def test_hosts_carry_what_the_inventory_brings() -> None:
    hosts = schema.conform("hosts", pd.DataFrame({"cluster": ["x"], "host": ["a"]}))
    assert list(hosts.columns)[-1] == "cluster"
    pd.testing.assert_frame_equal(hosts, schema.conform("hosts", hosts))


@pytest.mark.parametrize(("record", "table"), [(Crash, "crashes"), (Frame, "frames"), (Module, "modules")])
def test_records_have_the_tables_columns(record: type, table: str) -> None:
    names = [f.name for f in fields(record)]
    assert {c.name for c in schema.TABLES[table]} <= set(names)


def test_a_default_crash_is_a_valid_row() -> None:
    table = schema.build("crashes", [asdict(Crash())])
    assert table.kind[0] == "other" and table.guilt[0] == "none" and table.damage[0] == ""


def test_every_column_says_what_it_means() -> None:
    for table in EVERY_TABLE:
        assert schema.describe(table).meaning.str.len().min() > 3
