"""Real command outputs, exports and inventories of the shared corpus: every expectation that stands beside them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import ROOT

from psodlib import Fleet, load

OUTPUTS = ROOT.parent / "shared" / "corpus" / "outputs"
SAMPLES = sorted(OUTPUTS.glob("*/expected.json"))
pytestmark = pytest.mark.skipif(
    not SAMPLES, reason=f"{OUTPUTS} is not here: the shared corpus is no part of the project"
)


def _cell_fits(found: Any, wanted: Any) -> bool:
    if wanted is None:
        return bool(pd.isna(found))
    if pd.isna(found):
        return False
    if isinstance(wanted, str) and wanted.startswith("^"):
        return str(found).startswith(wanted[1:])
    return str(found) == str(wanted) or found == wanted


def _rows(table: pd.DataFrame, cells: dict[str, Any]) -> int:
    return sum(all(_cell_fits(row[name], wanted) for name, wanted in cells.items()) for _, row in table.iterrows())


def _holds(fleet: Fleet, expectation: dict[str, Any]) -> bool:
    if "any" in expectation:
        return any(_holds(fleet, one) for one in expectation["any"])
    if "problem" in expectation:
        told = fleet.problems.astype("string").fillna("")
        text = told["source"] + " " + told["problem"] + " " + told["detail"]
        return any(re.search(expectation["problem"], line, re.IGNORECASE) for line in text)
    table = getattr(fleet, expectation["table"])
    if "no_row" in expectation:
        return _rows(table, expectation["no_row"]) == 0
    found = _rows(table, expectation["row"])
    return found == expectation["count"] if "count" in expectation else found > 0


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.parent.name)
def test_an_output_gives_the_rows_that_it_shows(sample: Path) -> None:
    wanted = json.loads(sample.read_text())
    inventory = sample.parent / wanted["inventory"] if wanted["inventory"] else None
    fleet = load(sample.parent / "evidence", inventory=inventory, jobs=1)
    missed = [one for one in wanted["expect"] if not _holds(fleet, one)]
    drivers = fleet.drivers[["host", "module", "version", "state", "device", "firmware"]].to_string()
    assert not missed, f"{missed}\n{fleet.hosts.T.to_string()}\n{drivers}\n{fleet.problems.to_string()}"
