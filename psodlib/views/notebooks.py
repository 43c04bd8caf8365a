"""Runs notebooks on a source, leaves them so that they diff well, and makes pages of the report of what they showed.

A kernel has none of the user's IPython profile, this psodlib importable, the notebook's own folder as working directory.
Several notebooks share a few kernels, emptied in between: importing pandas, SciPy and matplotlib costs more than most of the
cells. ``make notebooks``, which is ``python -m psodlib.views.notebooks notebooks``, runs what is committed and writes it back
with its outputs. Nothing on a page runs, fetches or leads away.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nh3

from psodlib.errors import InputError
from psodlib.views.document import Code, Document, Section, to_html

# jsonschema, which checks notebooks, builds a grammar of all internationalised addresses when it finds this module, for three
# seconds. No notebook's schema asks for that format, so for the time of the import it is said to be missing, as it may be.
EXTRA = "rfc3987_syntax"
modules: dict[str, Any] = sys.modules
modules.setdefault(EXTRA, None)
try:
    import nbformat
    from jupyter_core.utils import ensure_async
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    from nbformat import NotebookNode
finally:
    if modules[EXTRA] is None:
        del modules[EXTRA]

TIMEOUT = 120  # seconds of a cell
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
OWN = "parameters"  # the tag of the cell of a notebook's own parameters
GIVEN = "injected-parameters"  # and of the one that replaces some of them
# What a notebook's page may hold; the rest of its markup is dropped, its text kept.
TAGS = (
    "h1 h2 h3 h4 h5 h6 p div span a img table caption thead tbody tr th td ul ol li dl dt dd pre code em strong b i sub"
    " sup hr br blockquote del figure figcaption"
)
SPANS = {"colspan", "rowspan"}
ATTRIBUTES = {
    "*": {"class", "id"}, "a": {"href"}, "img": {"src", "alt"}, "span": {"data-n", "data-mark"}, "td": SPANS, "th": SPANS,
}  # fmt: skip
PNG = "data:image/png;base64,"


# ---- running -------------------------------------------------------------------------------------------------------------


@contextmanager
def notebooks_running(given: Mapping[Path, Any], kernels: int = 2) -> Iterator[Running]:
    """Run notebooks side by side while the caller does something else, on fewer kernels than notebooks.

    Notes
    -----
    A hang or a kernel that dies is tried once more; the second time its error is that notebook's result.
    """
    todo = list(given.items())
    waiting = iter(todo)  # of all lanes: each takes what is next
    ran: Running = {path: Future() for path in given}
    # A thread has an event loop of its own, so that a caller may have one running (a notebook has).
    with ThreadPoolExecutor(kernels) as lanes:
        for _ in range(min(kernels, len(given))):
            lanes.submit(lambda: asyncio.run(_lane(waiting, ran)))
        try:
            yield ran
        except BaseException:
            todo.clear()
            raise


async def _lane(waiting: Iterator[Any], ran: Running) -> None:
    # One kernel for one notebook after the other.
    client: Any = None
    with tempfile.TemporaryDirectory(prefix="psod-kernel-") as profile:
        for path, parameters in waiting:
            place = {"path": str(path.resolve().parent)}
            for last in (False, True):
                try:
                    node = _given(read_notebook(path), parameters, path)
                    if client is not None and client.resources["metadata"] != place:
                        await _stopped(client)
                        client = None
                    client = client or NotebookClient(
                        node, timeout=TIMEOUT, startup_timeout=KERNEL_START, kernel_name=KERNEL["name"],
                        coalesce_streams=True, record_timing=False, resources={"metadata": place},
                    )  # fmt: skip
                    ran[path].set_result(await _ran(client, node, profile))
                    break
                except BaseException as error:
                    if isinstance(error, HANGS):
                        await _stopped(client)
                        client = None
                    if last or not isinstance(error, HANGS):
                        ran[path].set_exception(error)
                        break
        await _stopped(client)


async def _ran(client: Any, node: NotebookNode, profile: str) -> NotebookNode:
    client.nb, used = node, client.kc is not None
    if used:
        node.cells.insert(0, FORMAT.v4.new_code_cell(EMPTY))
    ours = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(ours), "IPYTHONDIR": profile}
    # The kernel's own stderr holds only its start-up chatter; what cells print comes through the notebook.
    await client.async_execute(cleanup_kc=False, env=environment, stderr=subprocess.DEVNULL)
    del node.cells[: 1 if used else 0]
    # The same source and data give the same bytes: counts 1..n, ids by place, no times, no versions of this machine.
    node.metadata = FORMAT.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    number = 0
    for place, cell in enumerate(node.cells, start=1):
        cell.metadata = FORMAT.from_dict({"tags": _tags(cell)} if _tags(cell) else {})
        cell.id = f"cell-{place:02d}"
        if cell.get("execution_count") is not None:
            cell.execution_count = number = number + 1
        for output in cell.get("outputs", ()):
            if "execution_count" in output:
                output.execution_count = cell.execution_count
    return node


async def _stopped(client: Any) -> None:
    with suppress(Exception):  # it may never have begun, or be gone already
        await ensure_async(client.kc.stop_channels())
    with suppress(Exception):
        await ensure_async(client.km.shutdown_kernel(now=True))
    with suppress(Exception):
        await ensure_async(client.km.cleanup_resources())


# ---- files and parameters ------------------------------------------------------------------------------------------------


def notebook_folder() -> Path:
    """Where the notebooks are, beside ``data/``: in the checkout if there is one, else inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    places = (package.parent / "notebooks", package / "_share/notebooks")
    found = next((place for place in places if any(place.glob("0*.ipynb"))), None)
    if found is None:
        raise InputError(f"no notebooks in {places[0]} or {places[1]}; install psodlib from its wheel or its checkout")
    return found


def read_notebook(path: Path) -> NotebookNode:
    """A notebook's file."""
    try:
        node: NotebookNode = FORMAT.read(path, as_version=4)
    except Exception as error:  # nbformat has no common base for what a broken file can raise
        raise InputError(f"{path}: not a notebook ({error})") from error
    return node


def write_notebook(node: NotebookNode, path: str | Path) -> Path:
    """Write a notebook as it ran."""
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
        node = _without_given(read_notebook(path))
        names = parameters_of(node)
        if "source" in names:
            write_notebook(_given(node, {name: given[name] for name in given if name in names}, path), path)


def parameters_of(node: NotebookNode) -> list[str]:
    """The names that a notebook's cell of plain assignments sets."""
    own = [cell.source for cell in node.cells if OWN in _tags(cell)]
    statements = [each for source in own for each in ast.parse(source).body if isinstance(each, ast.Assign)]
    return [target.id for each in statements for target in each.targets if isinstance(target, ast.Name)]


def _tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", ()))


def _without_given(node: NotebookNode) -> NotebookNode:
    node.cells = [cell for cell in node.cells if GIVEN not in _tags(cell)]
    return node


def _given(node: NotebookNode, parameters: Mapping[str, Any], path: Path) -> NotebookNode:
    # With some of its parameters replaced.
    if not parameters:
        return node
    at = next((i for i, cell in enumerate(node.cells) if OWN in _tags(cell)), None)
    if at is None:
        raise InputError(f"{path}: no cell is tagged `parameters`; tag the one with the plain assignments")
    known, lines = parameters_of(node), []
    for name, value in parameters.items():
        if name not in known:
            raise InputError(f"{path}: no parameter {name!r}; it has {', '.join(known) or 'none'}")
        try:
            # Only what repr gives back letter by letter: nothing of the value is ever run.
            plain = json.loads(json.dumps(value, default=os.fspath, allow_nan=False))
        except (TypeError, ValueError) as error:
            expected = "expected None, a finite number, text, path, list or dict"
            raise InputError(f"parameter {name}: found {type(value).__name__}, {expected}") from error
        lines.append(f"{name} = {plain!r}")
    node.cells.insert(at + 1, FORMAT.v4.new_code_cell("\n".join(lines), metadata={"tags": [GIVEN]}))
    return node


# ---- pages of the report -------------------------------------------------------------------------------------------------


def notebook_page(path: Path, ran: Future[NotebookNode], notice: str) -> tuple[str, str, str]:
    """A notebook that ran, as a page of the report: title, HTML, and what to say where it did not run to its end."""
    try:
        title, html = _notebook_html(ran.result())
        return title, to_html(Document(title=title, notice=notice), home="../index.html", body=html), ""
    except (CellExecutionError, TimeoutError, RuntimeError) as error:
        title, about = path.stem.replace("_", " "), "Could not be run to its end; the page says why."
        # A traceback's end says what happened; its colours are for terminals.
        lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().split("\n")[-6:]
        sections = [Section("What happened", [Code("\n".join(lines))])]
        trouble = Document(title=title, lead=about, tone="bad", notice=notice, sections=sections)
        return title, to_html(trouble, home="../index.html"), about


def _may_stay(tag: str, name: str, value: str) -> str | None:
    # Pictures only from the page itself, links only within it.
    if name == "src":
        return value if value.startswith(PNG) else None
    return value if name != "href" or value.startswith("#") else None


def safe_html(html: str) -> str:
    """Markup that notebooks print, with nothing left that runs, fetches or leads away."""
    safe = nh3.clean(
        html, tags=set(TAGS.split()), clean_content_tags={"style"}, attributes=ATTRIBUTES, attribute_filter=_may_stay,
        url_schemes={"data"}, link_rel=None,
        # A table that may be wider than the page must be reachable by keyboard to be pushed.
        set_tag_attribute_values={"th": {"scope": "row"}, "table": {"tabindex": "0"}},
    )  # fmt: skip
    heads = re.compile(r"<thead>.*?</thead>", re.DOTALL)
    safe = heads.sub(lambda head: head[0].replace('scope="row"', 'scope="col"'), safe)
    return re.sub(r'<th scope="(?:col|row)"></th>', "<td></td>", safe)  # an empty corner heads nothing


def _notebook_html(notebook: NotebookNode) -> tuple[str, str]:
    from nbconvert import HTMLExporter  # half a second that a report without notebooks does without

    # Where this report's tables lay on the machine that made it is nothing to a reader.
    cells = _without_given(notebook).cells
    heads = (cell.source for cell in cells if cell.source.startswith("# "))
    title = next(heads, "Notebook").lstrip("# ").split("\n")[0]
    heading = ""
    for cell in cells:
        if cell.cell_type == "markdown":
            heading = ([heading] + [line.lstrip("# ") for line in cell.source.split("\n") if line.startswith("#")])[-1]
        # nbconvert takes a picture's alternative text from the output's metadata.
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                words = f"Chart of the section {heading}; the text beside it says what it shows."
                output.setdefault("metadata", {}).setdefault("image/png", {}).setdefault("alt", words)
    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True, exclude_anchor_links=True
    )
    body, _ = exporter.from_notebook_node(notebook)
    return title, safe_html(body)


if __name__ == "__main__":
    for written in refresh_notebooks(sys.argv[1] if len(sys.argv) > 1 else "notebooks"):
        print(written)
