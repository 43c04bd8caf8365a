"""What a support case needs and no evidence holds: account, contract, orders, contact, from a private ``site.toml``.

It is read only where somebody asked for it, and goes nowhere but into the write-up or case that asked: no notebook, no page of a
report takes it. git ignores the file.

    [support]
    vendor = "HP"
    account = "4711"
    contract = "C-0815"
    orders = ["6001", "6002"]
    contact = "Jo Doe, jo@example.com"
    case = "SR 14-1234"
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psodlib.errors import InputError
from psodlib.views.document import Section, Table

__all__ = ["LARGEST", "LONGEST", "SITE_FILE", "Site", "find_site", "read_site", "read_toml", "site_section"]

SITE_FILE = "site.toml"
LABELS = {
    "vendor": "Vendor", "account": "Account", "customer": "Customer number", "contract": "Contract", "orders": "Orders",
    "contact": "Contact", "case": "Case opened",
}  # fmt: skip
LONGEST = 500  # letters of a value
LARGEST = 1 << 16  # bytes of the file


@dataclass(frozen=True)
class Site:
    """The facts, as (label, value), in the order a case form asks for them."""

    facts: tuple[tuple[str, str], ...]


def find_site() -> Path:
    """Where the site's facts are: the first that is there of ``$PSOD_SITE``, ``site.toml`` here, and the user's own
    settings."""
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    named = [Path(os.environ["PSOD_SITE"])] if os.environ.get("PSOD_SITE") else []
    places = [*named, Path(SITE_FILE), settings / "psod" / SITE_FILE]
    for place in places:
        if place.is_file():
            return place
    raise InputError(
        f"no {SITE_FILE} was found; looked for {', '.join(map(str, places))}. Make one with a table [support], or name yours"
    )


def read_site(file: str | Path) -> Site:
    """The support-case facts in a file."""
    path = Path(file)
    content = read_toml(path, "a table [support]")
    support = content.get("support")
    if not isinstance(support, dict):
        raise InputError(f"{path}: found {', '.join(content) or 'nothing'}; expected a table [support]")
    return Site(_facts(support, path))


def read_toml(path: Path, expected: str) -> dict[str, Any]:
    """A small TOML file that a person wrote."""
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path}: {path.stat().st_size:,} bytes; expected a small file with {expected}")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as TOML ({error}); expected {expected}") from error


def _facts(support: Mapping[str, Any], path: Path) -> tuple[tuple[str, str], ...]:
    unknown = sorted(set(support) - set(LABELS))
    if unknown:
        raise InputError(f"{path}: found {', '.join(unknown)} in [support]; expected {', '.join(LABELS)}")
    facts = []
    for key, label in LABELS.items():
        value = support.get(key, "")
        parts = [str(part) for part in (value if isinstance(value, list) else [value])]
        if isinstance(value, (dict, float, bool)) or sum(map(len, parts)) > LONGEST:
            raise InputError(
                f"{path}: {key} in [support] must be text of at most {LONGEST} letters, or a list of texts"
            )
        if any(part.strip() for part in parts):
            facts.append((label, ", ".join(part for part in parts if part.strip())))
    return tuple(facts)


def site_section(site: Site) -> Section:
    """The facts as a section of the write-up that asked for them."""
    note = "Private: these lines are in this write-up because it was asked for them, and nowhere else."
    rows = [[label, value] for label, value in site.facts]
    return Section(
        "Support case", [Table("What the case form asks for", ["Fact", "Value"], rows, note, widths=(24, 76))]
    )
