"""Which words are names of modules: on a host, on a release, behind a symbol.

A log's word, a world's name or a symbol names a module only when such a module exists: when the host had it loaded, or when
``rules/modules.txt`` lists it and it can be on the host's release.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

from psodlib.records import Crash
from psodlib.triage.lists import Rule, matcher, read_rules

Release = tuple[int, int]  # 6.7 as (6, 7)

DRIVERS = ("storage", "network", "usb", "graphics", "board")
# The kernel's text lies at 0x4180... up to 6.7, at 0x4200... from 7.0 on.
SEVEN, SEVEN_ENDS = 0x4200_0000_0000, 0x4300_0000_0000
SEVEN_ZERO = (7, 0)
NATIVE, LAST_LINUX = (6, 5), (6, 7)  # releases
_ENTRY = re.compile(r"(?P<what>[a-z]+)(?: +(?P<first>\d+\.\d+)?-(?P<last>\d+\.\d+)?)?")
_SUFFIX = re.compile(r"[-_.:/\[ ]|\d|$|[Hh]eap")
_LINUX_HEAP = "vmklnx_"
LEAST_PREFIX = 4  # letters of a symbol prefix that a word of a log may be taken for


_plumbing = matcher("plumbing.txt")
_module = matcher("modules.txt", mapped=True)
_other_name = matcher("other_names.txt", mapped=True)


class _Entry(NamedTuple):
    # What `rules/modules.txt` says of a module: its class, the first and last release that have it.
    what: str | None = None
    first: Release | None = None
    last: Release | None = None


def is_plumbing(module: str) -> bool:
    """Whether a module stands between drivers and the kernel (``rules/plumbing.txt``)."""
    return _plumbing(module) is not None


def class_of(module: str) -> str | None:
    """What a module is, a word of ``rules/modules.txt``; None when that does not list it."""
    return _entry(module).what


@lru_cache(maxsize=1 << 14)
def _entry(module: str) -> _Entry:
    rule = _module(module.removeprefix("com.vmware."))
    found = _ENTRY.fullmatch(rule.value or "") if rule else None
    return _Entry(found["what"], release_in(found["first"]), release_in(found["last"])) if found else _Entry()


def _can_be_on(module: str, release: Release | None) -> bool:
    _, first, last = _entry(module)
    return release is None or ((first is None or first <= release) and (last is None or release <= last))


def release_in(text: str | None) -> Release | None:
    """The release that a version begins with."""
    found = re.match(r"(\d{1,3})\.(\d{1,3})", text or "")
    return (int(found[1]), int(found[2])) if found else None


def release_of(crash: Crash) -> Release | None:
    """The release that a crash's text tells of, by its words or by where the kernel's code lay (then 7.0 stands for later
    ones too)."""
    own = release_in(crash.esxi_version)
    if own is not None:
        return own
    address = crash.code_start or crash.ip or 0
    return SEVEN_ZERO if SEVEN <= address < SEVEN_ENDS else None


@lru_cache(maxsize=1 << 16)
def prefix_rule(function: str) -> Rule | None:
    """The line of ``rules/symbol_prefixes.txt`` with the longest prefix of a symbol."""
    rules = read_rules("symbol_prefixes.txt", mapped=True, plain=True)
    fitting = (rule for rule in rules if function.startswith(rule.pattern))
    return max(fitting, key=lambda rule: len(rule.pattern), default=None)


@lru_cache(maxsize=1 << 16)
def _owners(function: str, release: Release | None) -> Sequence[str]:
    if rule := prefix_rule(function):
        names = (rule.value or "").split("|")
    else:  # native drivers write their name in capitals: `Ntg3TxComplete`
        head = re.match(r"[A-Z][a-z]*\d*[a-z]*(?=[A-Z_])", function)
        name = head[0].lower() if head else ""
        names = [name] if len(name) >= LEAST_PREFIX and class_of(name) in DRIVERS else []
    owners = [name for name in names if _can_be_on(name, release)]
    # From 6.5 on a host loads the native driver unless somebody chose the Linux one.
    is_native = release is not None and release >= NATIVE
    return sorted(owners, key=lambda name: is_native and _entry(name).last == LAST_LINUX)


def module_of_symbol(function: str, loaded: Collection[str] = (), release: Release | None = None) -> str | None:
    """Whose a symbol is, by its prefix: the one that was loaded, else the first that can be on the release."""
    owners = _owners(function, release)
    return next((name for name in owners if name in loaded), owners[0] if owners else None)


def module_of_word(word: str, loaded: Collection[str] = (), release: Release | None = None) -> str | None:
    """The existing module that a word of a log, a heap, a world or a path names, or None.

    Notes
    -----
    In this order: the name itself; a word of ``rules/other_names.txt``; the longest name that the word begins with, before
    a suffix; a symbol of a driver (``lpfc_host_reset_handler``).
    """
    word = word.removeprefix(_LINUX_HEAP)
    if word in loaded:
        return word
    known = _listed(word, release)
    if known is not None:
        return known
    begins = [name for name in loaded if word.startswith(name) and _SUFFIX.match(word, len(name))]
    if begins:
        return max(begins, key=len)
    symbol = word if "_" in word else f"{word}_" if class_of(word) else ""  # `i40e: ...` on 7.0 is said by i40en
    rule = prefix_rule(symbol)
    return module_of_symbol(symbol, loaded, release) if rule and len(rule.pattern) >= LEAST_PREFIX else None


@lru_cache(maxsize=1 << 14)
def _listed(word: str, release: Release | None) -> str | None:
    names = [rule.pattern for rule in read_rules("modules.txt", mapped=True)]
    begins = [name for name in names if word.startswith(name) and _SUFFIX.match(word, len(name))]
    other = _other_name(word)
    names = [word] if class_of(word) else begins or [(other and other.value) or ""]
    return next((name for name in sorted(names, key=len, reverse=True) if name and _can_be_on(name, release)), None)
