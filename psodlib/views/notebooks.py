"""Runs notebooks on a source, and leaves them so that they diff well.

A kernel has none of the user's IPython profile, this psodlib importable, the notebook's own folder as working directory.
Several notebooks share a few kernels, emptied in between: importing pandas, SciPy and matplotlib costs more than most of the
cells. ``make notebooks``, which is ``python -m psodlib.views.notebooks notebooks``, runs what is committed and writes it back
with its outputs.
"""

from __future__ import annotations

import ast
import asyncio
import copy
import json
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
Running = dict[Path, Future[NotebookNode]]
GIVEN = "injected-parameters"  # the tag of the cell that replaces some of a notebook's own parameters


def notebook_folder() -> Path:
    """Where the notebooks are, beside ``data/``: in the checkout if there is one, else inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    places = (package.parent / "notebooks", package / "_share/notebooks")
    found = next((place for place in places if any(place.glob("0*.ipynb"))), None)
    if found is None:
        raise InputError(f"no notebooks in {places[0]} or {places[1]}; install psodlib from its wheel or its checkout")
    return found


# ---- running -------------------------------------------------------------------------------------------------------------


def run_notebook(path: str | Path, parameters: Mapping[str, Any] | None = None, timeout: float = 120) -> NotebookNode:
    """Run a notebook from top to bottom in a kernel of its own, with some of its parameters replaced."""
    path = Path(path)
    with notebooks_running({path: parameters or {}}, 1, timeout) as running:
        return running[path].result()


@contextmanager
def notebooks_running(given: Mapping[Path, Any], kernels: int = 2, timeout: float = 120) -> Iterator[Running]:
    """Run notebooks side by side while the caller does something else, on fewer kernels than notebooks.

    Notes
    -----
    A hang or a kernel that dies is tried once more; the second time its error is that notebook's result.
    """
    waiting = deque(given.items())
    ran: Running = {path: Future() for path in given}
    # A thread has an event loop of its own, so that a caller may have one running (a notebook has).
    with ThreadPoolExecutor(kernels) as lanes:
        for _ in range(min(kernels, len(given))):
            lanes.submit(lambda: asyncio.run(_lane(waiting, ran, timeout)))
        try:
            yield ran
        except BaseException:
            waiting.clear()
            raise


async def _lane(waiting: deque[Any], ran: Running, timeout: float) -> None:
    # One kernel for one notebook after the other.
    client: Any = None
    with tempfile.TemporaryDirectory(prefix="psod-kernel-") as profile:
        while waiting:
            try:
                path, parameters = waiting.popleft()
            except IndexError:  # the other lane was faster
                break
            try:
                node, place = read_notebook(path), {"path": str(path.resolve().parent)}
                if parameters:
                    _inject(node, parameters, path)
                for last in (False, True):
                    if client is not None and client.resources["metadata"] != place:
                        await _stopped(client)
                        client = None
                    used = client is not None
                    client = client or NotebookClient(
                        node, timeout=timeout, startup_timeout=KERNEL_START, kernel_name=KERNEL["name"], coalesce_streams=True,
                        record_timing=False, resources={"metadata": place},
                    )  # fmt: skip
                    try:
                        ran[path].set_result(await _ran(client, copy.deepcopy(node), used, profile))
                        break
                    except HANGS:
                        await _stopped(client)
                        client = None
                        if last:
                            raise
            except BaseException as error:
                ran[path].set_exception(error)
        await _stopped(client)


async def _ran(client: Any, node: NotebookNode, used: bool, profile: str) -> NotebookNode:
    client.nb = node
    if used:
        node.cells.insert(0, FORMAT.v4.new_code_cell(EMPTY))
    ours = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(ours), "IPYTHONDIR": profile}
    # The kernel's own stderr holds only its start-up chatter; what cells print comes through the notebook.
    await client.async_execute(cleanup_kc=False, env=environment, stderr=subprocess.DEVNULL)
    return _tidied(node, 1 if used else 0)


async def _stopped(client: Any) -> None:
    if client is None or client.km is None:
        return
    try:
        if client.kc is not None:
            await ensure_async(client.kc.stop_channels())
        await ensure_async(client.km.shutdown_kernel(now=True))
    finally:
        await ensure_async(client.km.cleanup_resources())


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


# ---- files and parameters ------------------------------------------------------------------------------------------------


def write_notebook(node: NotebookNode, path: str | Path) -> Path:
    """Write a notebook as ``run_notebook`` gave it."""
    out = Path(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(FORMAT.writes(node) + "\n", encoding="utf-8", newline="\n")
    return out


def refresh_notebooks(folder: str | Path) -> list[Path]:
    """Run every notebook of a folder with the parameters it holds, and write each back with its outputs."""
    paths = sorted(Path(folder).glob("*.ipynb"))
    if not paths:
        raise InputError(f"{folder}: no notebook found; expected a folder with *.ipynb")
    with notebooks_running({path: {} for path in paths}) as running:
        nodes = [running[path].result() for path in paths]
    return [write_notebook(node, path) for node, path in zip(nodes, paths, strict=True)]


def set_source(folder: Path, source: str) -> None:
    """Let the notebooks of a working copy read this source instead of the demo's."""
    given = {"source": source if "://" in source else str(Path(source).resolve()), "inventory": None}
    for path in sorted(folder.glob("*.ipynb")):
        node = read_notebook(path)
        node.cells = [cell for cell in node.cells if GIVEN not in cell.metadata.get("tags", [])]
        names = parameters_of(node)
        if "source" in names:
            _inject(node, {name: given[name] for name in given if name in names}, path)
            write_notebook(node, path)


def read_notebook(path: Path) -> NotebookNode:
    """A notebook's file."""
    try:
        node: NotebookNode = FORMAT.read(path, as_version=4)
    except Exception as error:  # nbformat has no common base for what a broken file can raise
        raise InputError(f"{path}: not a notebook ({error})") from error
    return node


def parameters_of(node: NotebookNode) -> list[str]:
    """The names that a notebook's cell of plain assignments sets."""
    own = [cell.source for cell in node.cells if "parameters" in cell.metadata.get("tags", [])]
    statements = [each for source in own for each in ast.parse(source).body if isinstance(each, ast.Assign)]
    return [target.id for each in statements for target in each.targets if isinstance(target, ast.Name)]


def _inject(node: NotebookNode, parameters: Mapping[str, Any], path: Path) -> None:
    at = next((i for i, cell in enumerate(node.cells) if "parameters" in cell.metadata.get("tags", [])), None)
    if at is None:
        raise InputError(f"{path}: no cell is tagged `parameters`; tag the one with the plain assignments")
    known = parameters_of(node)
    strange = sorted(set(parameters) - set(known))
    if strange:
        raise InputError(f"{path}: no parameter {strange[0]!r}; it has {', '.join(known) or 'none'}")
    lines = [f"{name} = {_plain(name, value)!r}" for name, value in parameters.items()]
    node.cells.insert(at + 1, FORMAT.v4.new_code_cell("\n".join(lines), metadata={"tags": [GIVEN]}))


def _plain(name: str, value: Any) -> Any:
    # Only what repr gives back letter by letter: nothing of the value is ever run.
    try:
        return json.loads(json.dumps(value, default=os.fspath, allow_nan=False))
    except (TypeError, ValueError) as error:
        expected = "expected None, a finite number, text, path, list or dict"
        raise InputError(f"parameter {name}: found {type(value).__name__}, {expected}") from error


if __name__ == "__main__":
    for written in refresh_notebooks(sys.argv[1] if len(sys.argv) > 1 else "notebooks"):
        print(written)
