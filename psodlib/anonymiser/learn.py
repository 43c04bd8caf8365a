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
from psodlib.anonymiser.shapes import ESCAPE, POSITIONS, SHAPES, SYSTEM_USERS, listed_words, unescaped
from psodlib.errors import InputError
from psodlib.evidence.archives import Item
from psodlib.evidence.artifacts import read_inventory
from psodlib.evidence.sources import Unit, iter_items, iter_units
from psodlib.fleet import load
from psodlib.records import Problem

BLOCK = 256 << 10
OVERLAP = 8 << 10
LONGEST = 250  # letters of a name
LEAST = 3  # letters of a name that is replaced wherever it stands
LARGEST_TABLE = 256 << 20  # bytes of a Parquet file inside an archive
# Columns whose cells are no names, beside the contract's own.
SAFE_COLUMNS = frozenset(str.split("""
    vendor model esxi_version esxi_build vms users version driver driver_name module firmware
"""))  # fmt: skip
# "text": a crash's own lines, and the reasons that were found for it
TEXT_COLUMNS = frozenset(str.split("""
    message world_name guilty_function signature proto_signature detail device what vib evidence boot_evidence text
"""))  # fmt: skip
# Every column of ours.
OURS = frozenset(column.name for name in [*schema.TABLES, *schema.AUXILIARY] for column in schema.columns_of(name))
_FILE_ENDINGS = frozenset(str.split("""
    log gz tgz zip txt tar json xml csv html md svg py sh conf cfg parquet bz2 xz zst
"""))  # fmt: skip
_VERSIONS = frozenset({"version", "firmware", "driver_version", "module_version", "crash_id"})  # of saved tables
_LANGUAGE = frozenset({"module", "function", "guilty_module", "guilty_function", "vib"})
# A host's folder in a path of a saved table, which may bear another name of it than the column of hosts.
_HOSTS_FOLDER = re.compile(r"(?:^|/)(?!var/|run/|esx-[^/!]*-\d{4}-)([^/!]+)/(?=(?:var|commands|etc|scratch)/)")
INNER = frozenset({"commands", "core", "etc", "log", "proc", "run", "scratch", "usr", "var"})  # of a host's own folders
_PAGES = (".parquet", ".html", ".png", ".svg", ".pdf", ".csv", ".md")
_NOTHING = frozenset(str.split("""
    localhost none null unknown not n/a na - true false
""")) | {"vm network", "management network"}  # fmt: skip
# Makers' domains say nothing of the house.
MAKERS = re.compile(r"(?:.*\.)?(?:vmware|broadcom|hpe?|dell|lenovo|cisco|intel|qlogic|emulex|w3)\.(?:com|org|net)$")
# What hosts are called, with a number or another word behind it.
NAMING = frozenset(str.split("""
    esx esxi host server srv mail node vm web db dc file app test prod lab vcenter site cluster backup ntp ldap kdc radius
    dhcp dns ftp smtp proxy nas syslog kms sql erp sap git fw gw
"""))  # fmt: skip
_LETTERED = frozenset({"user", "word", "domain", "network", "datastore"})  # a number alone is none of these
# A number, or a device of the kernel's.
_NO_NAME = re.compile(
    r"[\d.,:%/+-]+|(?:vmk|vmnic|vmhba|vswitch|dvs|eth|[pv]?cpu|tty|pts|nic|hba|lun|disk|port|slot|bus|sd|vmm|idle|ata|scsi|usb|pcie?)[\d.:/-]{1,12}"
)
# Addresses that nobody has to himself: a version begins so only where psodlib itself read it as one.
PRIVATE = re.compile(r"10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|169\.254\.")
# Dotted numbers that the evidence itself calls a version.
_VERSION = re.compile(
    rb"(?:\bv|\bver|version|release)[\s:=\"'.]{0,4}(\d{1,3}(?:\.\d{1,3}){3})(?![\d.])|[#_-](\d{1,3}(?:\.\d{1,3}){3})(?=\+0x|-\d{1,3}(?:oem|vmw|em))|"
    rb"\b(\d{1,3}(?:\.\d{1,3}){3})-\d{1,3}(?:oem|vmw|em)"
)  # fmt: skip


# Files that every host has: whose name is one of them is no host's.
LOGS = frozenset(str.split("""
    vmkernel vmkwarning vmksummary vmkernel-log hostd vpxa vobd syslog esxupdate shell auth fdm sysboot messages date
    uptime
"""))  # fmt: skip


@dataclass
class Names:
    """What is known of the names in some evidence; all in small letters."""

    kinds: dict[str, str] = field(default_factory=dict)  # every name met in a name's place -> its kind
    words: set[str] = field(default_factory=set)  # those that are replaced wherever they stand alone
    hosts: set[str] = field(default_factory=set)  # hosts, short and full
    domains: set[str] = field(default_factory=set)  # and the domains that these are in
    numbers: set[str] = field(default_factory=set)  # versions that are no addresses, ids of crashes that are no WWNs
    files: set[str] = field(default_factory=set)  # words that nobody knows, replaced in names of files alone
    # words of the kernel, its modules and functions: in ``words`` none of them stands
    kept: set[str] = field(default_factory=lambda: set(listed_words("kept_words.txt")))
    site: set[str] = field(default_factory=set)  # words given by the user, replaced inside other words as well

    def add(self, kind: str, name: str) -> None:
        """Remember a name."""
        name = name.strip()
        low = plain(name)
        if kind == "path":
            for part in low.split("/"):
                self.add("word", part)
            return
        if (
            len(low) > LONGEST or low in SYSTEM_USERS or low in _NOTHING or not any(map(str.isalnum, low))
            or (kind in _LETTERED and not any(map(str.isalpha, low)))
            or (kind == "secret" and (len(low) < 6 or self.is_language(low)))
            or (kind == "host" and MAKERS.match(low))
        ):  # fmt: skip
            return
        if kind == "host":
            self._add_host(low)
        elif kind == "domain":
            self._add_domain(low)
        for spelling in _spellings(name):
            self._know(spelling, kind, self.stands_out(low))

    def _know(self, low: str, kind: str, everywhere: bool) -> None:
        self.kinds.setdefault(low, kind)
        if everywhere:
            self.words.add(low)

    def _add_host(self, low: str) -> None:
        self.hosts.add(low)
        label, _, rest = low.partition(".")
        is_domain = re.fullmatch(r"(?:[a-z0-9_-]+\.)*[a-z][a-z0-9-]*", rest)
        if is_domain and rest.rpartition(".")[2] not in _FILE_ENDINGS:
            self.hosts.add(label)
            self._know(label, "host", self.stands_out(label))
            self._add_domain(rest)

    def _add_domain(self, low: str) -> None:
        labels = low.split(".")
        self.domains |= {".".join(labels[at:]) for at in range(len(labels))} - PUBLIC_ENDINGS
        for label in labels:
            if label not in PUBLIC_ENDINGS and self.stands_out(label):
                self._know(label, "domain", True)

    def stands_out(self, low: str) -> bool:
        """Whether a name may be replaced wherever it stands."""
        return len(low) >= LEAST and low not in self.kept and not _NO_NAME.fullmatch(low)

    def is_language(self, low: str) -> bool:
        """Whether every word is one of the kernel's language, a number, or a device: `esx7` and `lab-esx` are not."""
        words = re.findall(r"[^\W_]+", low)
        stems = [word.strip("0123456789") for word in words]
        if NAMING & set(stems) and (words != stems or len(words) > 1):
            return bool(_NO_NAME.fullmatch(low))
        return all(_NO_NAME.fullmatch(word) or stem in self.kept for word, stem in zip(words, stems, strict=True))

    def keep(self, words: Iterable[Any]) -> None:
        """Names of modules and functions stay, and so does each word in them."""
        for word in words:
            if isinstance(word, str):
                self.kept |= {plain(word), *re.findall(r"[a-z0-9]+", plain(word))}

    def is_name(self, kind: str, name: str) -> bool:
        """Whether what stands in a name's place was learned as a name there."""
        low = plain(name.strip())
        return kind == "secret" or low in self.kinds or (kind == "host" and low in self.hosts)


def plain(name: str) -> str:
    # Small letters as bytes have them: only ASCII's, so that lengths stay.
    return name.encode("utf-8", "surrogateescape").lower().decode("utf-8", "surrogateescape")


def _spellings(name: str) -> set[str]:
    cases = {name} if name.isascii() else {name, name.lower(), name.upper()}
    found = {unicodedata.normalize(form, cased) for form in ("NFC", "NFD") for cased in cases}
    return {plain(one) for name in found for one in (name, name.replace(" ", "+"))}


def column_kind(column: str, text: bool = True) -> str | None:
    """What the cells of a column are: a kind of name, or None where they are none."""
    if column in ("host", "serial"):
        return column
    return "word" if text and column not in SAFE_COLUMNS else None


def learn_names(sources: Sequence[str | Path], inventory: str | Path | None = None, site: Sequence[str] = ()) -> Names:
    """The names in some evidence."""
    names = Names()
    fleet = load(*sources, inventory=inventory)
    # What must stay first, so that no name of it is replaced everywhere.
    modules, frames, drivers, crashes = fleet.modules, fleet.frames, fleet.drivers, fleet.crashes
    for cells in (modules.module, frames.module, frames.function, drivers.module, drivers.vib, crashes.guilty_module,
                  crashes.guilty_function, fleet.hosts.vendor, fleet.hosts.model):  # fmt: skip
        names.keep(cells.dropna().unique())
    for cells in (drivers.version, drivers.firmware, frames.module_version, crashes.crash_id):
        names.numbers |= set(cells.dropna().astype(str))
    for kind, cells in (("host", fleet.hosts.host), ("word", fleet.events.vm)):
        for name in cells.dropna().unique():
            names.add(kind, str(name))
    _learn_columns(names, fleet.hosts)
    for unit in iter_units(*sources):
        if not isinstance(unit, Problem) and unit.place.hint and in_a_hosts_folder(unit):
            names.add("host", unit.place.hint)
    roots = [str(Path(source) if Path(source).is_dir() else Path(source).parent) for source in sources]
    for item in iter_items(*sources):
        if isinstance(item, Item):
            if item.hint and item.hint_kind == "bundle":
                names.add("host", item.hint)
            root = next((root for root in roots if item.source.startswith(root)), "")
            _learn_path(names, item.source[len(root) :] if root else Path(item.source).name)
            _learn_item(names, item)
    if inventory is not None:
        _learn_columns(names, read_inventory(inventory))
    for word in map(str.strip, site):
        if len(word) < LEAST or plain(word) in names.kept:
            raise InputError(
                f"site word {word!r}: shorter than {LEAST} letters, or a word of the kernel's own; replacing it everywhere would change what "
                "the evidence says. Give the longer name that it is part of"
            )
        names.site.add(plain(word))
    # a module may be met behind a name that is spelled alike
    names.words = {word for word in names.words if names.stands_out(word)}
    return names


def in_a_hosts_folder(unit: Unit) -> bool:
    """Whether the folder that a file lies in may be called as its host: not where tables and pages lie."""
    return unit.place.hint_kind in ("folder", "bundle") and not unit.source.lower().endswith(_PAGES)


def _learn_columns(names: Names, table: pd.DataFrame) -> None:
    own = {column.name for column in schema.columns_of("hosts")} - {"host"}
    for column in map(str, table):
        text = pd.api.types.is_string_dtype(table[column]) or isinstance(table[column].dtype, pd.CategoricalDtype)
        if column not in own and (kind := column_kind(column, text)):
            for cell in table[column].dropna().unique():
                names.add(kind, str(cell))


def _learn_item(names: Names, item: Item) -> None:
    with item.open() as stream:
        if stream.peek(4) != b"PAR1":
            data = b""
            while block := stream.read(BLOCK):
                data = data[-OVERLAP:] + block
                learn_text(names, data)
        elif item.size <= LARGEST_TABLE:
            _learn_parquet(names, stream.read())


def learn_text(names: Names, data: bytes) -> None:
    """Remember the names in a text."""
    _learn_plain(names, data)
    for begin, end in _lines_with(data, (b"%", b"\\u", b"\\/", b"&"), 0):
        line = data[begin : min(end, begin + OVERLAP)]
        if ESCAPE.search(line):
            _learn_plain(names, unescaped(line)[0])


def _learn_plain(names: Names, data: bytes) -> None:
    low = data.lower()
    for kind, at, end, weak in places(data, low):
        name = data[at:end].decode("utf-8", "surrogateescape")
        if not (weak and names.is_language(plain(name))) and (kind == "secret" or not _SHAPED.fullmatch(low, at, end)):
            names.add(kind, name)
    for match in _VERSION.finditer(low):
        version = (match[1] or match[2] or match[3]).decode()
        if match[1] is None or not PRIVATE.match(version):
            names.numbers.add(version)


def _learn_path(names: Names, path: str) -> None:
    # Names stand in paths as in text; and whoever called a file after himself is in no list of words.
    learn_text(names, f"{path.replace('!', '/')}\n".encode("utf-8", "surrogateescape"))
    parts = re.split(r"[/!]", path.lower())
    if INNER & set(parts[:-1]) or path.lower().endswith(_PAGES):
        return
    for word in re.findall(r"[^\W\d_][^\W_]{2,}", " ".join(parts)):
        if word not in _FILE_ENDINGS and not names.is_language(word) and not re.fullmatch("[0-9a-f]{8,}", word):
            names.files.add(word)


def places(data: bytes, low: bytes, start: int = 0) -> Iterator[tuple[str, int, int, bool]]:
    """Where names stand in a text: kind, from, to, and whether a word of the kernel's there is none."""
    for position in POSITIONS:
        text = data if position.cased else low
        for begin, stop in _lines_with(low, position.signs, start):
            for match in position.pattern.finditer(text, begin, stop):
                for group, value in match.groupdict().items():
                    if value is not None:
                        yield group.rstrip("0123456789"), *match.span(group), position.weak


def _lines_with(low: bytes, signs: Sequence[bytes], start: int) -> Iterator[tuple[int, int]]:
    # The lines that hold one of the signs: most patterns look at few lines so.
    met = {sign: low.find(sign, start) for sign in signs}
    while met := {sign: at for sign, at in met.items() if at >= 0}:
        first = min(met.values())
        end = low.find(b"\n", first)
        end = len(low) if end < 0 else end
        yield low.rfind(b"\n", 0, first) + 1, end
        met = {sign: low.find(sign, end) if at < end else at for sign, at in met.items()}


# What stands in a name's place and is an identifier is found by its shape, wherever it stands.
_SHAPED = re.compile("|".join(f"(?:{shape.pattern})" for shape in SHAPES).encode())


def _learn_parquet(names: Names, data: bytes) -> None:
    try:
        table = pd.read_parquet(BytesIO(data))
    except Exception:  # damaged Parquet raises whatever the damage hits; it is left out when it is to be written
        return
    for column in _VERSIONS & set(table):
        names.numbers |= set(table[column].dropna().astype(str))
    for column in _LANGUAGE & set(table):
        names.keep(table[column].dropna().unique())
    for source in table["source"].dropna().unique() if "source" in table else ():
        for folder in _HOSTS_FOLDER.findall(str(source)):
            names.add("host", folder)
    for column in TEXT_COLUMNS & set(table):
        for cell in table[column].dropna().unique():
            learn_text(names, str(cell).encode("utf-8", "surrogatepass"))
    _learn_columns(names, table[[column for column in table if column not in OURS - {"host"}]])
