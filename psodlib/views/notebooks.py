"""Runs a notebook on a source, and leaves it so that it diffs well.

A kernel has none of the user's IPython profile, this psodlib importable, the notebook's own folder as working directory.
``run_notebook`` starts one for each notebook, clean: for the tests, and for ``make notebooks``, which is ``python -m
psodlib.views.notebooks notebooks``: runs what is committed and writes it back with its outputs. The report runs six on
two kernels, emptied in between: importing pandas, SciPy and matplotlib costs more than most of the cells.
"""

from __future__ import annotations

import ast
import asyncio
import copy
import math
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_core.utils import ensure_async

from psodlib.errors import InputError
from psodlib.views.nbformats import CellTimeoutError, DeadKernelError, NotebookClient, NotebookNode, nbformat

__all__ = [
    "notebook_folder",
    "notebooks_running",
    "refresh_notebooks",
    "run_notebook",
    "share_folder",
    "write_notebook",
]

KERNEL_START = 60  # seconds; takes about two on a quiet machine
# A kernel was once seen to idle while its client waited for it. A second kernel is cheaper than to find out why.
HANGS = (CellTimeoutError, DeadKernelError, RuntimeError)
FORMAT: Any = nbformat  # its functions bear no types
# What a kernel runs between two notebooks: the next finds no name, no open figure and no option of the one before.
EMPTY = """import matplotlib.pyplot, pandas
matplotlib.pyplot.close("all")
pandas.reset_option("^display")
get_ipython().run_line_magic("reset", "-sf")"""
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def share_folder() -> Path:
    """Where ``notebooks/`` and ``data/`` lie side by side: the checkout if there is one, else inside the installed
    package."""
    package = Path(__file__).resolve().parents[1]
    places = (package.parent, package / "_share")
    found = next((place for place in places if any((place / "notebooks").glob("0*.ipynb"))), None)
    if found is None:
        raise InputError(f"no notebooks in {places[0]} or {places[1]}; install psodlib from its wheel or its checkout")
    return found


def set_source(folder: Path, source: str) -> None:
    """Let the notebooks of a working copy read this source instead of the demo's."""
    value = source if "://" in source else str(Path(source).resolve())
    for path in sorted(folder.glob("*.ipynb")):
        node = _read(path)
        node.cells = [cell for cell in node.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
        names = [
            name
            for cell in node.cells
            if "parameters" in cell.metadata.get("tags", [])
            for name in _assigned(cell.source)
        ]
        given = {"source": value, "inventory": None}
        if "source" in names:
            _inject(node, {name: given[name] for name in given if name in names}, path)
            write_notebook(node, path)


def notebook_folder() -> Path:
    """Where the notebooks are."""
    return share_folder() / "notebooks"


def run_notebook(path: str | Path, parameters: Mapping[str, Any] | None = None, timeout: float = 120) -> NotebookNode:
    """Run a notebook from top to bottom in a fresh kernel, with some of its parameters replaced.

    Notes
    -----
    A hang or a kernel that dies is tried once more; the second time its error is raised.
    """
    with _Session() as session:
        return session.run(_prepared(path, parameters), Path(path).resolve(), timeout)


@contextmanager
def notebooks_running(
    given: Mapping[Path, Mapping[str, Any]], kernels: int = 2, timeout: float = 120
) -> Iterator[dict[Path, Future[NotebookNode]]]:
    """Run notebooks side by side while the caller does something else, on fewer kernels than notebooks."""
    waiting = deque(given.items())
    ran: dict[Path, Future[NotebookNode]] = {path: Future() for path in given}
    with ThreadPoolExecutor(kernels) as lanes:
        for _ in range(min(kernels, len(given))):
            lanes.submit(_lane, waiting, ran, timeout)
        try:
            yield ran
        except BaseException:
            waiting.clear()
            raise


def _lane(waiting: deque[Any], ran: Mapping[Path, Future[NotebookNode]], timeout: float) -> None:
    with _Session() as session:
        while waiting:
            try:
                path, parameters = waiting.popleft()
            except IndexError:  # the other lane was faster
                return
            try:
                ran[path].set_result(session.run(_prepared(path, parameters), path.resolve(), timeout))
            except BaseException as error:
                ran[path].set_exception(error)


def write_notebook(node: NotebookNode, path: str | Path) -> Path:
    """Write a notebook as ``run_notebook`` gave it."""
    out = Path(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(FORMAT.writes(node) + "\n", encoding="utf-8", newline="\n")
    return out


def refresh_notebooks(folder: str | Path, jobs: int = 2) -> list[Path]:
    """Run every notebook of a folder with the parameters it holds, and write each back with its outputs."""
    paths = sorted(Path(folder).glob("*.ipynb"))
    if not paths:
        raise InputError(f"{folder}: no notebook found; expected a folder with *.ipynb")
    with ThreadPoolExecutor(jobs) as pool:
        nodes = list(pool.map(run_notebook, paths))
    return [write_notebook(node, path) for node, path in zip(nodes, paths, strict=True)]


def _prepared(path: str | Path, parameters: Mapping[str, Any] | None) -> NotebookNode:
    path = Path(path).resolve()
    node = _read(path)
    if parameters:
        _inject(node, parameters, path)
    return node


def _read(path: Path) -> NotebookNode:
    try:
        node: NotebookNode = FORMAT.read(path, as_version=4)
    except FileNotFoundError:
        raise InputError(f"{path}: no such notebook") from None
    except Exception as error:  # nbformat has no common base for what a broken file can raise
        raise InputError(f"{path}: not a notebook ({error})") from error
    return node


def _inject(node: NotebookNode, parameters: Mapping[str, Any], path: Path) -> None:
    at = next((i for i, cell in enumerate(node.cells) if "parameters" in cell.metadata.get("tags", [])), None)
    if at is None:
        raise InputError(f"{path}: no cell is tagged `parameters`; tag the one with the plain assignments")
    known = _assigned(node.cells[at].source)
    strange = sorted(set(parameters) - set(known))
    if strange:
        raise InputError(f"{path}: no parameter {strange[0]!r}; it has {', '.join(known) or 'none'}")
    lines = [f"{name} = {_literal(name, value)}" for name, value in parameters.items()]
    cell = FORMAT.v4.new_code_cell("\n".join(lines), metadata={"tags": ["injected-parameters"]})
    node.cells.insert(at + 1, cell)


def _assigned(source: str) -> list[str]:
    statements = [each for each in ast.parse(source).body if isinstance(each, ast.Assign)]
    return [target.id for each in statements for target in each.targets if isinstance(target, ast.Name)]


def _literal(name: str, value: Any) -> str:
    # Only what repr gives back letter by letter: nothing of the value is ever run.
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"parameter {name}: {value} cannot be written as a plain assignment; give a finite number")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_literal(name, each) for each in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_literal(name, key)}: {_literal(name, each)}' for key, each in value.items())}}}"
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    raise InputError(
        f"parameter {name}: found {type(value).__name__}, expected None, a number, text, path, list or dict"
    )


class _Session:
    # One kernel for one notebook after the other. Its event loop lives in a thread of its own, so that it is ours to close
    # also where the caller has one running (a notebook).
    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1)
        self.runner = self.thread.submit(asyncio.Runner).result()
        self.manager: Any = None
        self.client: Any = None
        self.folder: Path | None = None
        self.profile = tempfile.TemporaryDirectory(prefix="psod-kernel-")

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._stop()
        finally:
            self.thread.submit(self.runner.close).result()
            self.thread.shutdown()
            self.profile.cleanup()

    def run(self, node: NotebookNode, path: Path, timeout: float) -> NotebookNode:
        if self.folder not in (None, path.parent):
            self._stop()
        try:
            return self._run(copy.deepcopy(node), path, timeout)
        except HANGS:
            self._stop()
            return self._run(copy.deepcopy(node), path, timeout)

    def _run(self, node: NotebookNode, path: Path, timeout: float) -> NotebookNode:
        used = self.manager is not None
        if used:
            node.cells.insert(0, FORMAT.v4.new_code_cell(EMPTY))
        client = NotebookClient(
            node, km=self.manager, timeout=timeout, startup_timeout=KERNEL_START, kernel_name=KERNEL["name"], coalesce_streams=True,
            record_timing=False, resources={"metadata": {"path": str(path.parent)}},
        )  # fmt: skip
        client.kc = self.client
        # The kernel's own stderr holds only its start-up chatter; what cells print comes through the notebook.
        options: dict[str, Any] = {"env": _environment(self.profile.name), "stderr": subprocess.DEVNULL}
        running = client.async_execute(cleanup_kc=False, **options)
        try:
            self.thread.submit(self.runner.run, running).result()
        finally:
            self.manager, self.client, self.folder = client.km, client.kc, path.parent
        return _tidied(node, 1 if used else 0)

    def _stop(self) -> None:
        if self.manager is not None:
            self.thread.submit(self.runner.run, _stopped(self.manager, self.client)).result()
        self.manager = self.client = self.folder = None


async def _stopped(manager: Any, client: Any) -> None:
    if client is not None:
        await ensure_async(client.stop_channels())
    try:
        await ensure_async(manager.shutdown_kernel(now=True))
    finally:
        await ensure_async(manager.cleanup_resources())


def _environment(profile: str) -> dict[str, str]:
    ours = str(Path(__file__).resolve().parents[2])
    before = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([ours, before] if before else [ours]), "IPYTHONDIR": profile}


def _tidied(node: NotebookNode, ours: int) -> NotebookNode:
    # The same source and data give the same bytes: counts 1..n, ids by place, no times, no versions of this machine.
    del node.cells[:ours]
    node.metadata = FORMAT.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    ran = 0
    for place, cell in enumerate(node.cells, start=1):
        tags = cell.metadata.get("tags")
        cell.metadata = FORMAT.from_dict({"tags": tags} if tags else {})
        cell.id = f"cell-{place:02d}"
        if cell.cell_type != "code":
            continue
        if cell.execution_count is not None:
            ran += 1
            cell.execution_count = ran
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = cell.execution_count
    return node


if __name__ == "__main__":
    for written in refresh_notebooks(sys.argv[1] if len(sys.argv) > 1 else "notebooks"):
        print(written)
