"""Sources -> the names in them: by psodlib's own reading, and by the places where names stand."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from psodlib import schema
from psodlib.anonymiser.pseudonyms import PUBLIC_ENDINGS
from psodlib.anonymiser.shapes import POSITIONS, SHAPES, SYSTEM_USERS, kept_words
from psodlib.errors import InputError
from psodlib.evidence.artifacts import read_inventory
from psodlib.evidence.sources import Item, Unit, iter_items, iter_units
from psodlib.fleet import Fleet, load
from psodlib.records import Problem

__all__ = ["SAFE_COLUMNS", "Names", "column_kind", "in_a_hosts_folder", "learn_names"]

BLOCK = 256 << 10
OVERLAP = 8 << 10
LONGEST = 250  # letters of a name
LEAST = 3  # letters of a name that is replaced wherever it stands
LARGEST_TABLE = 256 << 20  # bytes of a Parquet file inside an archive
# Columns whose cells are no names, beside the contract's own.
SAFE_COLUMNS = frozenset(["vendor", "model", "esxi_version", "esxi_build", "vms", "users", "version", "firmware"])
_NAMED_COLUMNS = {"host": "host", "serial": "serial"}
_FILE_ENDINGS = frozenset(
    [
        "log",
        "gz",
        "tgz",
        "zip",
        "txt",
        "tar",
        "json",
        "xml",
        "csv",
        "html",
        "md",
        "svg",
        "py",
        "sh",
        "conf",
        "cfg",
        "parquet",
        "bz2",
        "xz",
        "zst",
    ]
)
_VERSIONS = frozenset({"version", "firmware", "driver_version", "module_version"})  # columns of saved tables
_LANGUAGE = frozenset({"module", "function", "guilty_module", "guilty_function", "vib"})
# A host's folder in a path of a saved table, which may bear another name of it than the column of hosts.
_HOSTS_FOLDER = re.compile(r"(?:^|/)(?!var/|run/|esx-[^/!]*-\d{4}-)([^/!]+)/(?=(?:var|commands|etc|scratch)/)")
_PAGES = (".parquet", ".html", ".png", ".svg", ".pdf", ".csv", ".md")
_NOTHING = frozenset(
    {
        "vm network",
        "management network",
        "localhost",
        "none",
        "null",
        "unknown",
        "not",
        "n/a",
        "na",
        "-",
        "true",
        "false",
    }
)
# Dotted numbers that the evidence itself calls a version.
_VERSION = re.compile(
    rb"(?:\bv|\bver|version|release)[\s:=\"'.]{0,4}(\d{1,3}(?:\.\d{1,3}){3})(?![\d.])|[#_-](\d{1,3}(?:\.\d{1,3}){3})(?=\+0x|-\d{1,3}(?:oem|vmw|em))|"
    rb"\b(\d{1,3}(?:\.\d{1,3}){3})-\d{1,3}(?:oem|vmw|em)"
)  # fmt: skip


@dataclass
class Names:
    """What is known of the names in some evidence; all in small letters."""

    kinds: dict[str, str] = field(default_factory=dict)  # every name met in a name's place -> its kind
    words: set[str] = field(default_factory=set)  # those that are replaced wherever they stand alone
    hosts: set[str] = field(default_factory=set)  # hosts, short and full, and the domains that they are in
    domains: set[str] = field(default_factory=set)  # hosts, short and full, and the domains that they are in
    versions: set[str] = field(default_factory=set)  # dotted quads that are no addresses
    # words of the kernel, its modules and functions: in ``words`` none of them stands
    kept: set[str] = field(default_factory=lambda: set(kept_words()))
    site: set[str] = field(default_factory=set)  # words given by the user, replaced inside other words as well
    logs: frozenset[str] = frozenset(
        [
            "vmkernel",
            "vmkwarning",
            "vmksummary",
            "vmkernel-log",
            "hostd",
            "vpxa",
            "vobd",
            "syslog",
            "esxupdate",
            "shell",
            "auth",
            "fdm",
            "sysboot",
            "messages",
            "date",
            "uptime",
        ]
    )

    def add(self, kind: str, name: str) -> None:
        """Remember a name."""
        name = name.strip()
        low = plain(name)
        if not low or len(low) > LONGEST or low in SYSTEM_USERS or low in _NOTHING or not any(map(str.isalnum, low)):
            return
        if kind == "host":
            self._add_host(low)
        elif kind == "domain":
            self._add_domain(low)
        for spelling in _spellings(name):
            self.kinds.setdefault(spelling, kind)
            if self.stands_out(low):
                self.words.add(spelling)

    def _add_host(self, low: str) -> None:
        self.hosts.add(low)
        label, dot, rest = low.partition(".")
        if (
            dot
            and rest
            and re.fullmatch(r"(?:[a-z0-9_-]+\.)*[a-z][a-z0-9-]*", rest)
            and rest.rpartition(".")[2] not in _FILE_ENDINGS
        ):
            self.hosts.add(label)
            self.kinds.setdefault(label, "host")
            if self.stands_out(label):
                self.words.add(label)
            self._add_domain(rest)

    def _add_domain(self, low: str) -> None:
        labels = low.split(".")
        for at in range(len(labels)):
            suffix = ".".join(labels[at:])
            if suffix not in PUBLIC_ENDINGS:
                self.domains.add(suffix)
        for label in labels:
            if label not in PUBLIC_ENDINGS and self.stands_out(label):
                self.kinds.setdefault(label, "domain")
                self.words.add(label)

    def stands_out(self, low: str) -> bool:
        """Whether a name may be replaced wherever it stands."""
        return len(low) >= LEAST and low not in self.kept and not re.fullmatch(r"[\d.,:%/+-]+", low)

    def keep(self, words: Iterable[Any]) -> None:
        """Names of modules and functions stay, and so does each word in them."""
        for word in words:
            if isinstance(word, str):
                self.kept |= {plain(word), *re.findall(r"[a-z0-9]+", plain(word))}

    def is_name(self, kind: str, name: str) -> bool:
        """Whether what stands in a name's place was learned as a name there."""
        low = plain(name.strip())
        return low in self.kinds or (kind == "host" and low in self.hosts)


def plain(name: str) -> str:
    # Small letters as bytes have them: only ASCII's, so that lengths stay.
    return name.encode("utf-8", "surrogateescape").lower().decode("utf-8", "surrogateescape")


def _spellings(name: str) -> set[str]:
    found = {name} if name.isascii() else {
        form(cased) for form in (_nfc, _nfd) for cased in (name, name.lower(), name.upper())
    }  # fmt: skip
    found |= {one.replace(" ", "+") for one in found}
    return {plain(one) for one in found}


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def column_kind(column: str, text: bool = True) -> str | None:
    """What the cells of a column are: a kind of name, or None where they are none."""
    if column in _NAMED_COLUMNS:
        return _NAMED_COLUMNS[column]
    return "word" if text and column not in SAFE_COLUMNS else None


def learn_names(sources: Sequence[str | Path], inventory: str | Path | None = None, site: Sequence[str] = ()) -> Names:
    """The names in some evidence."""
    names = Names()
    fleet = load(*sources, inventory=inventory)
    _learn_fleet(names, fleet)
    for unit in iter_units(*sources):
        if not isinstance(unit, Problem) and unit.place.hint and in_a_hosts_folder(unit):
            names.add("host", unit.place.hint)
    for item in iter_items(*sources):
        if isinstance(item, Item):
            if item.hint and item.hint_kind == "bundle":
                names.add("host", item.hint)
            _learn_item(names, item)
    if inventory is not None:
        _learn_columns(names, read_inventory(inventory))
    for word in site:
        names.site.add(_checked(names, word))
    # a module may be met behind a name that is spelled alike
    names.words = {word for word in names.words if names.stands_out(word)}
    return names


def in_a_hosts_folder(unit: Unit) -> bool:
    """Whether the folder that a file lies in may be called as its host: not where tables and pages lie."""
    return unit.place.hint_kind in ("folder", "bundle") and not unit.source.lower().endswith(_PAGES)


def _checked(names: Names, word: str) -> str:
    low = plain(word.strip())
    if len(low) < LEAST or low in names.kept:
        raise InputError(
            f"site word {word!r}: shorter than {LEAST} letters, or a word of the kernel's own; replacing it everywhere would change what "
            "the evidence says. Give the longer name that it is part of"
        )
    return low


def _learn_fleet(names: Names, fleet: Fleet) -> None:
    # What must stay first, so that no name of it is replaced everywhere.
    for table, columns in (
        ("modules", ["module"]),
        ("frames", ["module", "function"]),
        ("drivers", ["module", "vib"]),
        ("crashes", ["guilty_module", "guilty_function"]),
    ):
        for column in columns:
            names.keep(getattr(fleet, table)[column].dropna().unique())
    for column in ("version", "firmware"):
        names.versions |= {str(version) for version in fleet.drivers[column].dropna().unique()}
    for host in fleet.hosts["host"].dropna():
        names.add("host", str(host))
    _learn_columns(names, fleet.hosts)


def _learn_columns(names: Names, table: pd.DataFrame) -> None:
    own = {column.name for column in schema.columns_of("hosts")} - {"host"}
    for column in table:
        text = pd.api.types.is_string_dtype(table[column]) or isinstance(table[column].dtype, pd.CategoricalDtype)
        kind = column_kind(str(column), bool(text))
        if kind and str(column) not in own:
            for cell in table[column].dropna().unique():
                names.add(kind, str(cell))


def _learn_item(names: Names, item: Item) -> None:
    with item.open() as stream:
        if stream.peek(4) == b"PAR1":
            if item.size <= LARGEST_TABLE:
                _learn_parquet(names, stream.readall())
            return
        data = b""
        while block := stream.read(BLOCK):
            data = data[-OVERLAP:] + block
            _learn_text(names, data)


def _learn_text(names: Names, data: bytes) -> None:
    low = data.lower()
    for kind, at, end in places(low):
        names.add(kind, data[at:end].decode("utf-8", "surrogateescape"))
    for match in _VERSION.finditer(low):
        names.versions.add((match[1] or match[2] or match[3]).decode())


def places(low: bytes) -> Iterator[tuple[str, int, int]]:
    """Where names stand in a text."""
    for position in POSITIONS:
        if any(sign in low for sign in position.signs):
            for match in position.pattern.finditer(low):
                for group, value in match.groupdict().items():
                    if value is not None and not _SHAPED.fullmatch(value):
                        yield group.rstrip("0123456789"), *match.span(group)


# What stands in a name's place and is an identifier is found by its shape, wherever it stands.
_SHAPED = re.compile("|".join(f"(?:{shape.pattern})" for shape in SHAPES).encode())


def _learn_parquet(names: Names, data: bytes) -> None:
    try:
        table = pd.read_parquet(BytesIO(data))
    except (
        Exception
    ):  # damaged Parquet raises whatever the damage hits; it is left out when its turn comes to be written
        return
    for column in _VERSIONS & set(table):
        names.versions |= {str(cell) for cell in table[column].dropna().unique()}
    for column in _LANGUAGE & set(table):
        names.keep(table[column].dropna().unique())
    for source in table["source"].dropna().unique() if "source" in table else ():
        for folder in _HOSTS_FOLDER.findall(str(source)):
            names.add("host", folder)
    known = {column.name for name in [*schema.TABLES, *schema.AUXILIARY] for column in schema.columns_of(name)} - {
        "host"
    }
    _learn_columns(names, table[[column for column in table if column not in known]])
