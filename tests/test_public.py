"""The public names: one list, each importable, each documented as the house wants it."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import psodlib as psod

FUNCTIONS = [name for name in psod.__all__ if inspect.isfunction(getattr(psod, name))]


def test_all_is_sorted_and_importable() -> None:
    assert psod.__all__ == sorted(psod.__all__)
    assert {getattr(psod, name).__name__ for name in psod.__all__} == set(psod.__all__)
    assert set(psod.__all__) <= set(dir(psod))


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(psod.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in ast.walk(block) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(psod.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = psod.nonsense


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_say_shapes_units_and_errors(name: str) -> None:
    doc = inspect.getdoc(getattr(psod, name)) or ""
    assert doc.split("\n")[0].endswith("."), "one sentence first"
    assert "Parameters\n----------" in doc and re.search(r"(Returns|Yields)\n-------?", doc), doc[:200]
    for parameter in inspect.signature(getattr(psod, name)).parameters:
        assert re.search(rf"^\W*(?:\w+, )*\*{{0,2}}{parameter}\b", doc, re.M), f"{parameter} is not documented"


def test_the_contracts_calls_exist(shared: Path) -> None:
    table = (shared / "contract.md").read_text().split("## 2.")[0]
    calls = re.findall(r"^\| `(\w+)\(", table, re.M)
    assert len(calls) > 10
    missing = [call for call in calls if not call.startswith("plot_") and call not in psod.__all__]
    assert missing == []
    assert any(name.startswith("plot_") for name in psod.__all__)


def test_importing_costs_no_matplotlib_or_scipy() -> None:
    code = "import sys, psodlib.cli; print([m for m in ('matplotlib', 'scipy', 'statsmodels', 'paramiko', 'IPython', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_numpydoc_is_for_public_names_alone() -> None:
    # A name behind the public ones says in one sentence what it does; its formula and source may follow as Notes or References.
    found = []
    for file in sorted(Path(psod.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("plot_"):
                continue
            public = node.name in psod.__all__
            for inner in [node, *(node.body if public else [])]:
                if not isinstance(inner, (ast.FunctionDef, ast.ClassDef)) or (
                    public and not inner.name.startswith("_")
                ):
                    continue
                if re.search(
                    r"^(Parameters|Returns|Raises|Yields|Examples?)\n---", ast.get_docstring(inner) or "", re.M
                ):
                    found.append(f"{file.name}:{inner.lineno} {inner.name}")
    in_public_classes = {name for name in found if any(name.endswith(f" {method}") for method in PUBLIC_METHODS)}
    assert sorted(set(found) - in_public_classes) == []


PUBLIC_METHODS = {
    name for cls in psod.__all__ if inspect.isclass(getattr(psod, cls)) for name in vars(getattr(psod, cls))
}
