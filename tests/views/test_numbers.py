"""Every page of the demo's report, its charts' numbers and the committed notebooks give the counts of the one reconciliation."""

from __future__ import annotations

import csv
import html
import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import psodlib as psod
from psodlib.views.notebooks import notebook_folder
from psodlib.views.report import report
from psodlib.views.study import study

SAID = re.compile(r"(?<![\d.,])([\d,]+)(?: of ([\d,]+))? (?:\w+ )?crash(?:es)?\b(?! a year| avoided| more)")
OTHER = ("06_", "01_", "07_")  # notebooks on another fleet: the incident, made-up roll-outs


@pytest.fixture(scope="module")
def made(demo: psod.Fleet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, psod.Fleet, Any]:
    folder = report(demo, tmp_path_factory.mktemp("numbers") / "report", notebooks=False).folder
    return folder, demo, study(demo).counts


def _texts(folder: Path) -> dict[str, str]:
    # What a reader sees, without markup, scripts and the machine's own text.
    pages = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.html")}
    for path in sorted(notebook_folder().glob("0*.ipynb")):
        if not path.name.startswith(OTHER):
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            outputs = [
                output.get("data", {}).get("text/html", "") for cell in cells for output in cell.get("outputs", ())
            ]
            pages[path.name] = "\n".join("".join(output) for output in outputs)
    bare = {name: re.sub(r"<(script|style|pre)\b.*?</\1>", " ", text, flags=re.DOTALL) for name, text in pages.items()}
    described = {name: re.sub(r'<img[^>]*alt="([^"]*)"[^>]*>', r" \1 ", text) for name, text in bare.items()}
    return {name: html.unescape(re.sub(r"<[^>]*>", " ", text)) for name, text in described.items()}


def test_every_count_of_crashes_is_one_of_the_reconciliation(made: tuple[Path, psod.Fleet, Any]) -> None:
    folder, fleet, counts = made
    # A count that is larger than any version's, host's, signature's or month's can only be one of the whole fleet.
    versions = [int(number) for number in psod.crash_rates(psod.exposure(fleet))["crashes"]]
    groups = [int(fleet.crashes[name].value_counts().max()) for name in ("host", "signature", "kind")]
    largest = max(*versions, *(number for number in groups if number < counts.module))
    whole = {counts.texts, counts.crashes, counts.module, counts.in_rates}
    parts = {sum(pair) for pair in combinations(versions, 2)} | {len(fleet.hosts)}
    parts |= {int(number) for name in ("kind", "guilt") for number in fleet.crashes[name].value_counts()}
    met = set()
    for name, text in _texts(folder).items():
        for match in SAID.finditer(text):
            for number in (int(group.replace(",", "")) for group in match.groups() if group and group.strip(",")):
                if number > largest:
                    around = text[max(match.start() - 60, 0) : match.end() + 40]
                    assert number in whole | parts, (name, around)
                    met.add(number)
    assert whole <= met | {counts.crashes}  # the test did read something


def test_the_first_page_s_facts_and_its_table_agree(made: tuple[Path, psod.Fleet, Any]) -> None:
    folder, _, counts = made
    text = " ".join(_texts(folder)["index.html"].split())
    crashes = counts.crashes
    assert f"Crashes {crashes}" in text and f"Caused by hpsa {counts.module}" in text
    for step, number in (("= crashes", crashes), ("= crashes with a text", counts.texts), ("= caused by hpsa", counts.module),
                         ("= counted in the rates", counts.in_rates)):  # fmt: skip
        assert f"{step} {number}" in text, step


def _sum(folder: Path, chart: str, column: str) -> float:
    with (folder / "charts" / f"{chart}.csv").open(encoding="utf-8", newline="") as lines:
        return sum(float(row[column] or 0) for row in csv.DictReader(lines))


@pytest.mark.parametrize("chart", ["rates", "rollout", "uptime_at_crash", "hazard"])
def test_the_numbers_of_each_chart_add_up_to_the_rates(made: tuple[Path, psod.Fleet, Any], chart: str) -> None:
    assert _sum(made[0], chart, "crashes") == made[2].in_rates


def test_lists_hold_every_crash(made: tuple[Path, psod.Fleet, Any]) -> None:
    folder, _, counts = made
    with (folder / "tables" / "crashes.csv").open(encoding="utf-8", newline="") as lines:
        assert sum(1 for _ in csv.DictReader(lines)) == counts.texts
    for name in ("explorer.html", "index.html"):
        data: Any = re.search(
            r'class="psx-data">(.*?)</script>', (folder / name).read_text(encoding="utf-8"), re.DOTALL
        )
        assert len(json.loads(data[1])["crashes"]) == counts.texts, name
