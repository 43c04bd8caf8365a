"""Notebooks that ran -> pages of the report: nothing in them runs, fetches or leads away."""

from __future__ import annotations

import re
from concurrent.futures import Future
from pathlib import Path

import nh3

from psodlib.views.document import Code, Document, Link, Section, page, to_html
from psodlib.views.nbformats import CellExecutionError, NotebookNode

__all__ = ["safe_html", "write_notebook_page"]

# What a notebook's page may hold; the rest of its markup is dropped, its text kept.
TAGS = (
    "h1 h2 h3 h4 h5 h6 p div span a img table caption thead tbody tr th td ul ol li dl dt dd pre code em strong b i sub"
    " sup hr br blockquote del figure figcaption"
)
SPANS = {"colspan", "rowspan"}
ATTRIBUTES = {
    "*": {"class", "id"},
    "a": {"href"},
    "img": {"src", "alt"},
    "span": {"data-n", "data-mark"},
    "td": SPANS,
    "th": SPANS,
}

PNG = "data:image/png;base64,"


def write_notebook_page(path: Path, ran: Future[NotebookNode], notice: str, folder: Path) -> tuple[Link, bool]:
    """A notebook that ran, or why it did not, as a page of the report."""
    href = f"notebooks/{path.stem}.html"
    try:
        title, html = _notebook_html(ran.result())
        (folder / href).write_text(page(title, html, notice, home="../index.html"), encoding="utf-8", newline="\n")
        return Link(href, title), True
    except (CellExecutionError, TimeoutError, RuntimeError) as error:
        title, about = path.stem.replace("_", " "), "Could not be run to its end; the page says why."
        sections = [Section("What happened", [Code(_last_lines(error))])]
        trouble = Document(title=title, lead=about, tone="bad", notice=notice, sections=sections)
        (folder / href).write_text(to_html(trouble, home="../index.html"), encoding="utf-8", newline="\n")
        return Link(href, title, about), False


def _last_lines(error: Exception) -> str:
    # A traceback's end says what happened; its colours are for terminals.
    return "\n".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().split("\n")[-6:])


def _may_stay(tag: str, name: str, value: str) -> str | None:
    # Pictures only from the page itself, links only within it.
    if name == "src":
        return value if value.startswith(PNG) else None
    return value if name != "href" or value.startswith("#") else None


def safe_html(html: str) -> str:
    """Markup that notebooks print, with nothing left that runs, fetches or leads away."""
    safe = nh3.clean(
        html, tags=set(TAGS.split()), clean_content_tags={"style"}, attributes=ATTRIBUTES, attribute_filter=_may_stay, url_schemes={"data"}, link_rel=None
    )  # fmt: skip
    parts = re.split(r"(<thead>|</thead>)", safe)
    for place, part in enumerate(parts):
        head = place > 0 and parts[place - 1] == "<thead>"
        parts[place] = part.replace("<th>", '<th scope="col">' if head else '<th scope="row">')
    # An empty corner heads nothing; a table that may be wider than the page must be reachable by keyboard to be pushed.
    empty = re.compile(r'<th scope="(?:col|row)"></th>')
    return empty.sub("<td></td>", "".join(parts)).replace("<table", '<table tabindex="0"')


def _notebook_html(notebook: NotebookNode) -> tuple[str, str]:
    title = next(
        (cell.source.lstrip("# ").split("\n")[0] for cell in notebook.cells if cell.source.startswith("# ")), "Notebook"
    )
    from nbconvert import HTMLExporter  # half a second that a report without notebooks does without

    # Where this report's tables lay on the machine that made it is nothing to a reader.
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    _describe_pictures(notebook)
    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True, exclude_anchor_links=True
    )
    body, _ = exporter.from_notebook_node(notebook)
    return title, safe_html(body)


def _describe_pictures(notebook: NotebookNode) -> None:
    # nbconvert takes a picture's alternative text from the output's metadata.
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = next(
                (line.lstrip("# ") for line in reversed(cell.source.split("\n")) if line.startswith("#")), heading
            )
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                words = f"Chart of the section {heading}; the text beside it says what it shows."
                output.setdefault("metadata", {}).setdefault("image/png", {}).setdefault("alt", words)
