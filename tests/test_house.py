"""The house rules that a machine can hold: imports run with the way of the data, and pure wings stay pure."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

# A module may import from its own place in this order, and from earlier places.
ORDER = [
    "errors", "records", "schema", "evidence", "triage", "assemble", "store", "workers", "fleet", "risk", "views",
    "console", "cli",
]  # fmt: skip
SIDE_DOORS = {"simulate": "evidence", "collector": "triage", "anonymiser": "fleet"}  # see no further than this wing
PURE = [
    "evidence/psod.py", "evidence/psod_lines.py", "evidence/pieces.py", "evidence/life.py", "evidence/vmkernel.py",
    "evidence/versions.py", "triage", "assemble.py", "risk",
]  # fmt: skip
IMPURE_MODULES = {
    "os", "subprocess", "socket", "shutil", "tempfile", "time", "requests", "urllib", "paramiko", "fsspec",
    "matplotlib",
}  # fmt: skip
FILES = sorted((ROOT / "psodlib").rglob("*.py"))


def imports_of(file: Path) -> set[str]:
    """Dotted names that a file imports when it is run (what only type checkers see does not count)."""
    tree = ast.parse(file.read_text())
    hidden = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and isinstance(test.test, ast.Name) and test.test.id == "TYPE_CHECKING"
        for node in ast.walk(test)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def wing_of(file: Path) -> str:
    return file.relative_to(ROOT / "psodlib").with_suffix("").parts[0]


@pytest.mark.parametrize(
    "file",
    [f for f in FILES if f.name != "__init__.py" or f.parent.name != "psodlib"],
    ids=lambda f: str(f.relative_to(ROOT)),
)
def test_imports_run_with_the_way_of_the_data(file: Path) -> None:
    wing = wing_of(file)
    seen = {name.split(".")[1] for name in imports_of(file) if name.startswith("psodlib.")} - {"__version__", wing}
    limit = ORDER.index(SIDE_DOORS.get(wing, wing))
    allowed = set(ORDER[: limit + 1]) | (set(SIDE_DOORS) if wing in ("cli", "console", "views") else set())
    assert seen <= allowed, f"{wing} imports {sorted(seen - allowed)}"


@pytest.mark.parametrize("place", PURE)
def test_pure_wings_touch_no_file_network_clock_or_figure(place: str) -> None:
    target = ROOT / "psodlib" / place
    for file in [target] if target.is_file() else sorted(target.rglob("*.py")):
        roots = {name.split(".")[0] for name in imports_of(file)}
        assert not roots & IMPURE_MODULES, f"{file.name} imports {roots & IMPURE_MODULES}"


def test_only_charts_imports_matplotlib() -> None:
    charts = ROOT / "psodlib" / "views" / "charts"
    users = {f for f in FILES if re.search(r"^\s*(?:import|from) matplotlib\b", f.read_text(), re.MULTILINE)}
    assert users and not [f.name for f in users if f.parent != charts]


def test_no_rooms_without_a_purpose() -> None:
    assert not {f.name for f in FILES} & {"utils.py", "helpers.py", "base.py", "common.py", "misc.py"}


def test_top_level_holds_what_was_agreed() -> None:
    import subprocess

    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    top = {name.split("/")[0] for name in listed if not name.startswith(".")}
    agreed = {"pyproject.toml", "notebooks", "psodlib", "data", "tests", "environment.yml", "README.md", "CHANGELOG.md",
              "CONTRIBUTING.md", "DECISIONS.md", "LICENSE", "Makefile", "requirements.lock", "benchmarks"}  # fmt: skip
    assert top <= agreed


def test_what_reads_files_imports_no_pandas() -> None:
    # A pool of processes starts in a third of the time.
    code = "import sys, psodlib.evidence.reading; print('pandas' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.strip() == "False"


def test_no_file_is_longer_than_six_hundred_lines():
    long = {str(file.relative_to(ROOT)): lines for file in FILES if (lines := file.read_text().count("\n")) > 600}
    assert not long, f"cut them by purpose: {long}"
