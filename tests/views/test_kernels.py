"""Notebooks one after the other on fewer kernels: each starts as if its kernel were new, and a bad one costs no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from psodlib.views.notebooks import CellExecutionError, notebooks_running


def _notebook(path: Path, *cells: str) -> Path:
    tagged = nbformat.v4.new_code_cell("number = 0", metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[tagged, *map(nbformat.v4.new_code_cell, cells)]), path)
    return path


def _printed(node: Any) -> str:
    return "".join(output.get("text", "") for cell in node.cells for output in cell.get("outputs", ()))


LEAVE = "import os, pandas as pd\nleft = number\npd.set_option('display.max_colwidth', 7)\nprint(os.getpid())"
LOOK = "import os, pandas as pd\nprint(os.getpid(), 'left' in globals(), pd.get_option('display.max_colwidth'), number)"


def test_the_next_notebook_finds_an_empty_kernel(tmp_path: Path) -> None:
    first, second = _notebook(tmp_path / "a.ipynb", LEAVE), _notebook(tmp_path / "b.ipynb", LOOK)
    with notebooks_running({first: {"number": 1}, second: {"number": 2}}, kernels=1) as running:
        nodes = [running[path].result(60) for path in (first, second)]
    kernel = _printed(nodes[0]).strip()
    assert _printed(nodes[1]).split() == [kernel, "False", "50", "2"]
    for node in nodes:  # and neither shows what was run in between
        code = [cell for cell in node.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code] == [1, 2, 3]
        assert code[0].source == "number = 0"


def test_one_that_fails_costs_no_other(tmp_path: Path) -> None:
    bad, good = _notebook(tmp_path / "a.ipynb", "1 / 0"), _notebook(tmp_path / "b.ipynb", "print(number)")
    with notebooks_running({bad: {}, good: {"number": 3}}, kernels=1) as running:
        with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
            running[bad].result(60)
        assert _printed(running[good].result(60)).strip() == "3"


def test_an_error_of_the_caller_begins_no_further_notebook(tmp_path: Path) -> None:
    paths = [_notebook(tmp_path / f"{name}.ipynb", "import time; time.sleep(1)") for name in "abc"]
    with pytest.raises(KeyError), notebooks_running({path: {} for path in paths}, kernels=1) as running:
        raise KeyError("the caller's")
    assert not running[paths[2]].done()
