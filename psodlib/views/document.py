"""A document's content once, and its three surfaces: HTML, PDF by typst, Markdown.

``brief.py`` and ``writeup.py`` say what a document says, as plain text in a few kinds of block; here each block becomes markup,
in one place a surface. Text is never put into markup or typst source by joining strings: jinja2 escapes it, typst reads
it as data with ``json()``, Markdown goes through ``_escape``. So log text stays text, whatever it holds.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import typst
from markupsafe import Markup

from psodlib.errors import InputError
from psodlib.views.words import literal

__all__ = [
    "Bullets", "Code", "Document", "Link", "Picture", "Section", "Steps", "Table", "Text", "page", "to_html", "to_markdown", "to_pdf",
]  # fmt: skip


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Bullets:
    """A list; each item is one or two sentences."""

    items: Sequence[str]
    kind: str = field(default="bullets", init=False)


@dataclass(frozen=True)
class Steps:
    """A runbook: what to do, the commands to the letter, and what they should answer."""

    items: Sequence[tuple[str, str, str]]
    kind: str = field(default="steps", init=False)


@dataclass(frozen=True)
class Code:
    """Machine text, line by line, as it was printed."""

    text: str
    kind: str = field(default="code", init=False)


@dataclass(frozen=True)
class Table:
    """A small table: ``rows`` are shown, ``note`` says what is left out and where it is."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    widths: Sequence[int] = ()  # shares of the page's width, in print; all alike by default
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Picture:
    """A chart: the PNG on disk, its finding and its caption; ``data`` names the CSV with the same numbers."""

    file: Path
    title: str
    caption: str
    data: str = ""
    kind: str = field(default="picture", init=False)

    @property
    def source(self) -> str:
        """The picture as a ``data:`` URI."""
        return "data:image/png;base64," + base64.b64encode(self.file.read_bytes()).decode("ascii")

    @property
    def description(self) -> str:
        """What a reader who cannot see the picture is told."""
        return f"Chart: {self.title}. {self.caption}".replace("..", ".")


@dataclass(frozen=True)
class Link:
    """A way to another page: a path relative to this one."""

    href: str
    text: str
    about: str = ""


Block = Text | Bullets | Steps | Code | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class Document:
    """What a document says, whatever it is shown on."""

    title: str  # what it is; of which source and when
    subtitle: str = ""  # what it is; of which source and when
    lead: str = ""  # the answer, in a sentence
    tone: str = "open"  # ``good``, ``bad`` or ``open``: the colour beside the lead
    notice: str = ""  # "Simulated fleet ..." where it is; stands at the top of every page
    facts: Sequence[tuple[str, str]] = ()  # A few labelled values
    sections: Sequence[Section] = ()  # in reading order


def template(name: str) -> str:
    """The text of a file in ``templates/``."""
    return (files("psodlib.views") / "templates" / name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    # autoescape for every template, whatever its name; an undefined name is a mistake of ours, not an empty string
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["literal"] = literal
    return environment


def to_html(document: Document, links: Sequence[Link] = (), home: str = "") -> str:
    """A document as one HTML page with nothing to fetch: style and pictures inside, no script."""
    shown = _environment().get_template("document.html")
    return shown.render(document=document, links=links, home=home, css=Markup(template("report.css")))


def page(title: str, body: str, notice: str = "", home: str = "") -> str:
    """Already safe HTML inside the report's page."""
    shown = _environment().get_template("page.html")
    return shown.render(title=title, body=Markup(body), notice=notice, home=home, css=Markup(template("report.css")))


def to_pdf(document: Document, out: str | Path, style: str) -> Path:
    """A document as PDF, in typst's own fonts, with no network and no system font."""
    with tempfile.TemporaryDirectory(prefix="psod-") as folder:
        root = Path(folder).resolve()
        (root / "document.typ").write_text(template("document.typ"), encoding="utf-8")
        (root / "main.typ").write_text(template(style), encoding="utf-8")
        (root / "content.json").write_text(json.dumps(_plain(document, root)), encoding="utf-8")
        try:
            data = typst.compile(
                root / "main.typ", root=root, font_paths=[], ignore_system_fonts=True, package_path=root
            )
        except typst.TypstError as error:
            raise InputError(
                f"{out}: typst could not lay out {document.title!r} ({error}); the HTML page says the same"
            ) from error
    path = Path(out)
    path.write_bytes(data)
    return path


def _plain(document: Document, root: Path) -> dict[str, Any]:
    # typst may read nothing outside its root, so pictures go there under numbers of ours
    content: dict[str, Any] = _literally(asdict(document))
    for number, block in enumerate(block for section in content["sections"] for block in section["blocks"]):
        if block["kind"] == "picture":
            shutil.copyfile(block["file"], root / f"{number}.png")
            block.update(
                file=f"{number}.png", description=Picture(Path(), block["title"], block["caption"]).description
            )
    return content


def _literally(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _literally(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_literally(part) for part in value]
    return value if isinstance(value, int) else literal(value)


def to_markdown(document: Document) -> str:
    """A document as Markdown for a wiki; every mark in its text is escaped, pictures are left out."""
    head = [
        f"# {_escape(document.title)}",
        _escape(document.subtitle),
        _escape(document.notice),
        f"> {_escape(document.lead)}",
    ]
    facts = "\n".join(f"- {_escape(label)}: {_escape(value)}" for label, value in document.facts)
    parts = [*head, facts]
    for section in document.sections:
        parts.append(f"## {_escape(section.title)}")
        parts.extend(_markdown(block) for block in section.blocks)
    return "\n\n".join(part for part in parts if part.strip("> ")) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Text():
            return _escape(block.text)
        case Bullets():
            return "\n".join(f"- {_escape(item)}" for item in block.items)
        case Code():
            return _fence(block.text)
        case Steps():
            return "\n\n".join(_markdown_step(number, *step) for number, step in enumerate(block.items, 1))
        case Picture():
            return f"*{_escape(block.title)}.* {_escape(block.caption)}"
        case Table():
            return _markdown_table(block)


def _markdown_step(number: int, text: str, commands: str, answer: str) -> str:
    parts = [
        f"**{number}.** {_escape(text)}",
        _fence(commands) if commands else "",
        f"Expect: {_escape(answer)}" if answer else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _markdown_table(table: Table) -> str:
    lines = [f"| {' | '.join(_escape(cell) for cell in row)} |" for row in (table.columns, *table.rows)]
    lines.insert(1, f"|{' --- |' * len(table.columns)}")
    return "\n".join([f"*{_escape(table.caption)}*", "", *lines, *(["", _escape(table.note)] if table.note else [])])


# Marks that mean something anywhere in a line; the last three keep a wiki from making a link or a mention of log text.
_MARKS = re.compile(r"[\\`*_{}\[\]#|~$!^=@]|(?<=:)/(?=/)|(?<=[wW]{3})\.")
# ... and those that mean something only where a line begins: lists, numbered lists, setext headings, front matter.
_LEADING = re.compile(r"^([-+]|\d{1,9}(?=[.)]))")


def _escape(text: str) -> str:
    one_line = " ".join(literal(text).split())
    marked = _MARKS.sub(lambda match: "\\" + match[0], one_line)
    safe = marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LEADING.sub(lambda match: f"{match[1]}\\" if match[1].isdigit() else f"\\{match[1]}", safe)


def _fence(machine_text: str) -> str:
    text = literal(machine_text)
    # longer than any run of backticks inside, so that nothing inside can close it
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
