"""Notebooks that ran -> pages of the report: nothing in them runs, fetches or leads away."""

from __future__ import annotations

import re
from concurrent.futures import Future
from pathlib import Path

import nh3

from psodlib.views.document import Code, Document, Section, to_html
from psodlib.views.nbformats import CellExecutionError, NotebookNode

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


def notebook_page(path: Path, ran: Future[NotebookNode], notice: str) -> tuple[str, str, str]:
    """A notebook that ran, as a page of the report: title, HTML, and what to say where it did not run to its end."""
    try:
        title, html = _notebook_html(ran.result())
        return title, to_html(Document(title=title, notice=notice), home="../index.html", body=html), ""
    except (CellExecutionError, TimeoutError, RuntimeError) as error:
        title, about = path.stem.replace("_", " "), "Could not be run to its end; the page says why."
        sections = [Section("What happened", [Code(_last_lines(error))])]
        trouble = Document(title=title, lead=about, tone="bad", notice=notice, sections=sections)
        return title, to_html(trouble, home="../index.html"), about


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
        html, tags=set(TAGS.split()), clean_content_tags={"style"}, attributes=ATTRIBUTES, attribute_filter=_may_stay, url_schemes={"data"}, link_rel=None,
        # A table that may be wider than the page must be reachable by keyboard to be pushed.
        set_tag_attribute_values={"th": {"scope": "row"}, "table": {"tabindex": "0"}},
    )  # fmt: skip
    heads = re.compile(r"<thead>.*?</thead>", re.DOTALL)
    safe = heads.sub(lambda head: head[0].replace('scope="row"', 'scope="col"'), safe)
    return re.sub(r'<th scope="(?:col|row)"></th>', "<td></td>", safe)  # an empty corner heads nothing


def _notebook_html(notebook: NotebookNode) -> tuple[str, str]:
    heads = (cell.source for cell in notebook.cells if cell.source.startswith("# "))
    title = next(heads, "Notebook").lstrip("# ").split("\n")[0]
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
            heads = [line.lstrip("# ") for line in cell.source.split("\n") if line.startswith("#")]
            heading = heads[-1] if heads else heading
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                words = f"Chart of the section {heading}; the text beside it says what it shows."
                output.setdefault("metadata", {}).setdefault("image/png", {}).setdefault("alt", words)
