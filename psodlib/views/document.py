"""What a page says, once, as a few kinds of block; and its surfaces: HTML, a notebook's cell, PDF by typst, Markdown.

Pages are built of blocks, which hold plain text, never markup. Each surface has one set of templates and one door through
which text enters it: ``html_text`` for HTML (jinja2's ``finalize``), ``_escape`` for Markdown, ``json()`` for typst, which
reads data as data. So log text stays text, whatever it holds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import msgspec
import typst
from markupsafe import Markup, escape

from psodlib.errors import InputError
from psodlib.views.words import count, literal

LONGEST = 4_000  # letters of one text on a page


class Block(msgspec.Struct, frozen=True):
    """A piece of a page; a notebook shows it as HTML, a terminal as Markdown with nothing escaped."""

    @property
    def kind(self) -> str:
        """What sort of block it is: the name by which the templates know it."""
        return type(self).__name__.lower()

    def __repr__(self) -> str:
        made: Any = _environment("text").get_template("blocks.md").module
        return _few_breaks(made.blocks(self.blocks if isinstance(self, Document) else [self], 2)).rstrip()

    def _repr_html_(self) -> str:
        return str(_environment("html").get_template("cell.html").render(block=self))


class Text(Block, frozen=True):
    """A paragraph."""

    text: str


class Bullets(Block, frozen=True):
    """A list; each item is one or two sentences."""

    items: Sequence[str | Link]


class Steps(Block, frozen=True):
    """A runbook: what to do, the commands to the letter, and what they should answer."""

    items: Sequence[tuple[str, str, str]]


class Code(Block, frozen=True):
    """Machine text as it was printed; numbers and marks stand beside the lines and are no part of them."""

    text: str
    caption: str = ""
    first: int = 0  # number of the first line; 0 shows no numbers
    marks: Mapping[int, str] = {}  # place of a line in the text, from 0 -> a word beside it

    @property
    def lines(self) -> list[tuple[int, str, str]]:
        """Each line with its number and its mark."""
        lines = self.text.removesuffix("\n").split("\n")
        return [(self.first + i, line.removesuffix("\r"), self.marks.get(i, "")) for i, line in enumerate(lines)]


class Link(msgspec.Struct, frozen=True):
    """A way to another page or place: a path relative to this page, or ``#...``."""

    href: str
    text: str
    about: str = ""


class Table(Block, frozen=True):
    """A small table: ``rows`` are shown, ``note`` says what is left out and where it is."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Link]]
    note: str | Link = ""
    widths: Sequence[int] = ()  # shares of the page's width, in print; all alike by default
    marked: Collection[int] = ()  # rows that stand out


class Picture(Block, frozen=True):
    """A chart: the PNG on disk and its twin for dark pages, its finding, its caption, the CSV with the same numbers."""

    file: Path
    title: str
    caption: str
    data: str = ""
    dark: Path | None = None

    @property
    def sources(self) -> list[str]:
        """The pictures as ``data:`` URIs, the light one first."""
        pictures = [self.file, *([self.dark] if self.dark else [])]
        return [f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode('ascii')}" for file in pictures]

    @property
    def description(self) -> str:
        """What a reader who cannot see the picture is told."""
        return f"Chart: {self.title}. {self.caption}".replace("..", ".")


class Script(Block, frozen=True):
    """An ES module of ours with its data: it draws on HTML pages, and only there; ``name`` is a file in ``templates/``."""

    name: str
    data: Mapping[str, Any]
    instead: Sequence[Block] = ()  # what stands there where no script runs

    @property
    def source(self) -> str:
        """The module's text; the page's policy allows this and no other script."""
        return template(self.name)

    @property
    def content(self) -> Markup:
        """The data as JSON that no text in it can close."""
        return Markup(json.dumps(self.data, allow_nan=False).replace("<", "\\u003c"))


class Section(Block, frozen=True):
    """A heading and what stands under it; sections may stand in sections."""

    title: str
    blocks: Sequence[Block]
    anchor: str = ""  # the place's address on the page
    overleaf: bool = False  # in print it begins a new page


class Document(Block, frozen=True, kw_only=True):
    """What a page says, whatever it is shown on."""

    title: str  # what it is
    subtitle: str = ""  # of which source and when
    lead: str = ""  # the answer, in a sentence
    tone: str = "open"  # ``good``, ``bad`` or ``open``: the colour beside the lead
    notice: str = ""  # "Simulated fleet ..." where it is; stands at the top of every page
    facts: Sequence[tuple[str, str]] = ()  # a few labelled values
    sections: Sequence[Section] = ()  # in reading order

    @property
    def blocks(self) -> Sequence[Block]:
        """What a notebook shows of it."""
        return [*([Text(self.lead)] if self.lead else []), *self.sections]


def sections(*parts: tuple[str, Sequence[Any]]) -> list[Section]:
    """Sections of blocks, or of sentences, which become a list; one with nothing in it is left out."""
    shown = ((title, [Bullets(said)] if isinstance(said[0], str) else said) for title, said in parts if said)
    return [Section(title, blocks) for title, blocks in shown]


def by_column(columns: Mapping[str, Iterable[str | Link]], note: str | Link = "", **more: Any) -> Table:
    """A table from its columns: each name with its cells."""
    return Table(more.pop("caption", ""), list(columns), list(zip(*columns.values(), strict=True)), note, **more)


def template(name: str) -> str:
    """The text of a file in ``templates/``."""
    return (files("psodlib.views") / "templates" / name).read_text(encoding="utf-8")


def html_text(value: Any) -> Markup:
    """The door to HTML: any value as text that reads letter by letter; markup of our own templates passes."""
    if isinstance(value, Markup):
        return value
    # A dollar in a tag of its own cannot pair with another into mathematics.
    return Markup(str(escape(_bounded(value))).replace("$", "<span>$</span>"))


def _bounded(value: Any) -> str:
    # Cut before it is made literal, so that a text of many megabytes costs nothing.
    text = str(value) if isinstance(value, str) else literal(value)
    more = f"… ({count(len(text) - LONGEST, 'more letter')})" if len(text) > LONGEST else ""
    return literal(text[:LONGEST]) + more


def _attribute(value: Any) -> Markup:
    return Markup(escape(value if isinstance(value, Markup) else literal(value)))


def _href(value: str) -> Markup:
    # Only within the report: a scheme or a host in a name of a table leads nowhere.
    return _attribute("#" if re.match(r"[^#]*:|//|\\", value) else value)


def _words(cell: Any) -> str:
    return literal(cell.text if isinstance(cell, Link) else cell)


# Marks that mean something anywhere in a line; the last three keep a wiki from making a link or a mention of log text.
_MARKS = re.compile(r"[\\`*_{}\[\]#|~$!^=@]|(?<=:)/(?=/)|(?<=[wW]{3})\.")
# ... and those that mean something only where a line begins: lists, numbered lists, setext headings, front matter.
_LEADING = re.compile(r"^([-+]|\d{1,9}(?=[.)]))")


def _escape(value: Any) -> str:
    # The door to Markdown; a fence of ours passes.
    if isinstance(value, Markup):
        return str(value)
    one_line = " ".join(_words(value).split())
    marked = _MARKS.sub(lambda match: "\\" + match[0], one_line)
    safe = marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _LEADING.sub(lambda match: f"{match[1]}\\" if match[1].isdigit() else f"\\{match[1]}", safe)


def _fence(machine_text: str) -> Markup:
    text = literal(machine_text.removesuffix("\n"))
    # longer than any run of backticks inside, so that nothing inside can close it
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return Markup(f"{fence}text\n{text}\n{fence}")


def _cell_class(cell: Any) -> Markup:
    # A hash that cannot break takes the width of all other columns; a time that breaks becomes a column of numbers; "─" is
    # an interval drawn in letters.
    words = _words(cell)
    time, digest = r"\d{4}-\d\d-\d\d(?: \d\d:\d\d(?::\d\d)?(?: UTC)?)?$", r"[0-9a-f]{40,128}"
    kind = "bar" if "─" in words else "whole" if re.match(time, words) else "hash" if re.search(digest, words) else ""
    return Markup(kind)


@cache
def _environment(surface: str) -> jinja2.Environment:
    # Whatever a template prints goes through the surface's door; an undefined name is a mistake of ours, not an empty string.
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(template), autoescape=surface == "html", undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize={"html": html_text, "markdown": _escape, "text": _words}[surface],
    )  # fmt: skip
    environment.filters.update(attr=_attribute, href=_href, fence=_fence, width=_cell_class, ours=Markup)
    return environment


def to_html(document: Document, links: Sequence[Link] = (), home: str = "", body: str = "") -> str:
    """A document as one HTML page with nothing to fetch: style, pictures and, where a block has one, its script inside;
    already safe markup may stand in place of its blocks."""
    blocks = (block for section in document.sections for block in section.blocks)
    scripts = list({block.name: block for block in blocks if isinstance(block, Script)}.values())
    # The policy names our own source, never the finished page: that would bless whatever got into it.
    digests = (hashlib.sha256(f"\n{one.source}\n".encode()).digest() for one in scripts)
    hashes = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
    allowed = f"script-src {' '.join(hashes)}; " if hashes else ""
    policy = Markup(f"default-src 'none'; {allowed}img-src data:; style-src 'unsafe-inline'")
    css = Markup("".join(map(template, ["report.css", *(one.name.replace(".js", ".css") for one in scripts)])))
    return (
        _environment("html")
        .get_template("page.html" if body else "document.html")
        .render(document=document, links=links, home=home, scripts=scripts, policy=policy, css=css, body=Markup(body))
    )


def to_pdf(document: Document, out: str | Path, style: str) -> Path:
    """A document as PDF, in typst's own fonts, with no network and no system font."""
    with tempfile.TemporaryDirectory(prefix="psod-") as folder:
        root = Path(folder).resolve()
        content = json.dumps(_as_data(document, root))
        texts = {"document.typ": template("document.typ"), "main.typ": template(style), "content.json": content}
        for name, text in texts.items():
            (root / name).write_text(text, encoding="utf-8")
        try:
            here: Any = {"root": root, "package_path": root, "font_paths": [], "ignore_system_fonts": True}
            data = typst.compile(root / "main.typ", **here)
        except typst.TypstError as error:
            what = f"typst could not lay out {document.title!r} ({error})"
            raise InputError(f"{out}: {what}; the HTML page says the same") from error
    Path(out).write_bytes(data)
    return Path(out)


def _as_data(value: Any, root: Path) -> Any:
    # For typst: the same tree as plain data. It may read nothing outside its root, so pictures go there under numbers of ours.
    if isinstance(value, Picture):
        file = root / f"{len(list(root.glob('*.png')))}.png"
        shutil.copyfile(value.file, file)
        return {"kind": "picture", "file": file.name, "description": literal(value.description)}
    if isinstance(value, Link):
        return literal(value.text)
    if isinstance(value, Code):
        lines = _as_data(value.lines, root)
        return {"kind": "code", "caption": literal(value.caption), "numbered": value.first > 0, "lines": lines}
    if isinstance(value, Block):
        return {
            "kind": value.kind,
            **{name: _as_data(part, root) for name, part in msgspec.structs.asdict(value).items()},
        }
    if isinstance(value, (list, tuple)):  # here no script runs
        parts = [part for one in value for part in (one.instead if isinstance(one, Script) else [one])]
        return [_as_data(part, root) for part in parts]
    if isinstance(value, (set, frozenset, range)):
        return sorted(value)
    return value if isinstance(value, int) else _bounded(value)


def to_markdown(document: Document) -> str:
    """A document as Markdown for a wiki; every mark in its text is escaped, pictures are left out."""
    return _few_breaks(_environment("markdown").get_template("document.md").render(document=document)).strip() + "\n"


def _few_breaks(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", str(text))
