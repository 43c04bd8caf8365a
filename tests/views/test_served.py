"""The notebooks as people open them: each in a real JupyterLab, 05 served by voila, any of them by papermill with other parameters."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import DATA, ROOT
from views.serving import chromium_page, jupyterlab, needs_chromium, run_all, voila

import psodlib as psod

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `test`)")
pytestmark = pytest.mark.slow
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES = os.environ.get("PSOD_PICTURES")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebooks without their outputs, in `notebooks/` beside `data/`, as they lie in the project."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "notebooks").mkdir()
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, folder / "notebooks" / path.name)
    for module in NOTEBOOKS[0].parent.glob("*.py"):  # what one notebook alone uses stands beside it
        shutil.copy(module, folder / "notebooks")
    shutil.copytree(DATA, folder / "data", ignore=shutil.ignore_patterns("truth"))
    return folder


@pytest.fixture(scope="module")
def lab(work: Path) -> Iterator[tuple[Any, str, str]]:
    with jupyterlab(work) as (root, token), chromium_page(width=1280, height=4000) as page:
        yield page, root, token


@needs_chromium
@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_it_runs_in_jupyterlab(name: str, lab: tuple[Any, str, str], work: Path) -> None:
    page, root, token = lab
    run_all(page, f"{root}/lab/tree/notebooks/{name}.ipynb?token={token}&reset")
    code = sum(cell.cell_type == "code" for cell in nbformat.read(work / "notebooks" / f"{name}.ipynb", 4).cells)
    panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    playwright.expect(panel.locator(".jp-InputArea-prompt", has_text=f"[{code}]:")).to_have_count(1, timeout=60_000)
    assert panel.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert panel.get_by_text("Traceback (most recent call last)").count() == 0
    page.screenshot(path=Path(PICTURES or work) / f"lab-{name}.png")


@needs_chromium
def test_voila_serves_the_decision(lab: tuple[Any, str, str], work: Path) -> None:
    page = lab[0].context.browser.new_page(viewport={"width": 1280, "height": 3000})
    with voila(work / "notebooks" / "05_pin_decision.ipynb") as root:
        page.goto(root, timeout=60_000)
        playwright.expect(page.get_by_role("heading", name="The answer")).to_be_visible(timeout=60_000)
        playwright.expect(page.locator("img").first).to_be_visible()
        assert "Traceback" not in page.content()
        assert page.get_by_text("import psodlib").count() == 0  # a manager is shown no code
        page.screenshot(path=Path(PICTURES or work) / "voila-05.png")


@pytest.mark.parametrize("name", ["04_driver_risk", "05_pin_decision"])
def test_papermill_runs_it_on_another_fleet(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    papermill = pytest.importorskip("papermill", reason="papermill is not installed (extra `test`)")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    psod.load(DATA / "incident-2014-05-31").save(tmp_path / "tables")
    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(
        ROOT / "notebooks" / f"{name}.ipynb", out, {"fleet_folder": str(tmp_path / "tables")}, kernel_name="python3",
        execution_timeout=90, progress_bar=False, cwd=str(ROOT / "notebooks"),
    )  # fmt: skip
    ran = nbformat.read(out, as_version=4)
    assert any("injected-parameters" in cell.metadata.get("tags", []) for cell in ran.cells)
    assert not any(o.output_type == "error" for cell in ran.cells for o in cell.get("outputs", []))
