"""Text -> the same text with its names replaced: one pass over bytes, in blocks, whatever the line's length."""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from psodlib.anonymiser.learn import INNER, LOGS, MAKERS, PRIVATE, Names, places, plain
from psodlib.anonymiser.pseudonyms import PUBLIC_ENDINGS, SURE_ENDINGS, Pseudonyms
from psodlib.anonymiser.shapes import ESCAPE, SHAPES, SYSTEM_USERS, unescaped, word_around

OVERLAP = 8 << 10  # bytes that a block shows of the next one: no name is longer
_VERSION_BEFORE = re.compile(rb"(?:\bv|\bver|version|release|#)[\s:=\"'.]{0,4}$")
_VERSION_AFTER = re.compile(rb"-\d{1,3}(?:oem|vmw|em)|\.\d|\+0x")
# What stands before a number of the kernel's, which has as many digits as a WWN, a MAC or an address.
_REGISTER_BEFORE = re.compile(
    rb"\b(?:r[a-z0-9]{1,3}|e[a-z]{2}|cr\d|[cdefgs]s|ip|addr|base|code|error|stack|status|misc|flags|frame)[\s:=\[(]{1,3}$"
)
# Ends of domains that are ends of file names, or words of code, as well: two labels are none there, and of a file none at all.
_FILES = frozenset(["so", "py", "sh", "md", "pl", "rs", "ps", "gz", "ko", "la"])
_CODE = frozenset(str.split("""
    id in is it to no do as at us st ms sc cc me my name app work zone host store space media tools top
"""))  # fmt: skip


class Span(NamedTuple):
    # A stretch of text and what stands there instead.
    start: int
    end: int
    new: bytes


class Rewriter:
    """Replaces names."""

    def __init__(self, names: Names, pseudonyms: Pseudonyms) -> None:
        self.names, self.pseudonyms = names, pseudonyms
        self._pattern = re.compile(_everything(names), re.DOTALL)

    def stream(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """A text in blocks, rewritten."""
        data, done = b"", 0
        for block in blocks:
            data += block
            if len(data) - done > 4 * OVERLAP:
                new, at = self._until(data, done, len(data) - OVERLAP)
                yield new
                start = max(0, at - OVERLAP)  # what a look back may need
                data, done = data[start:], at - start
        new, _ = self._until(data, done, len(data))
        yield new

    def text(self, text: str) -> str:
        """One text, rewritten."""
        halves = "surrogateescape" if re.search("[\udc80-\udcff]", text) else "surrogatepass"
        data = text.encode("utf-8", halves)
        return self._until(data, 0, len(data))[0].decode("utf-8", halves)

    def name(self, kind: str, name: str) -> str:
        """What stands in a place of its own: a cell of a column of hosts, a folder that is called as a host."""
        low = plain(name)
        if not name.strip() or low in SYSTEM_USERS or low.startswith("localhost"):
            return name
        new = self._of_address(name) if kind == "host" else None
        if new is None and kind in ("serial", "user", "host"):
            # A name that is nothing but an address or an identifier.
            data = name.encode("utf-8", "surrogatepass")
            match = self._pattern.fullmatch(data.lower())
            group = str(match.lastgroup) if match else "word"
            if group.partition("_")[0] not in ("word", "site", "fqdn", "mail"):
                new = self._replaced(group, data, data.lower(), 0, len(data))
        return self.pseudonyms.of(self.names.kinds.get(low, kind), name) if new is None else new

    def path(self, text: str) -> str:
        """A path, component by component; members of archives stand behind ``!``."""
        parts = re.split(r"([/!])", text)
        inside = False
        for place in range(0, len(parts), 2):
            is_last = place == len(parts) - 1
            parts[place], below = self._component(parts[place], inside, is_last), parts[place] in INNER
            inside = inside or below
        # what only a longer stretch shows: a user's home, a store's machine
        whole = self.text("/" + "".join(parts)).removeprefix("/")

        def known(word: re.Match[str]) -> str:
            return self.pseudonyms.of("word", word[0]) if plain(word[0]) in self.names.files else word[0]

        return re.sub(r"[^\W\d_][^\W_]{2,}", known, whole)

    def _component(self, part: str, inside: bool, is_last: bool) -> str:
        bundle = re.match(r"(esx-)(.+?)(-\d{4}-\d\d-\d\d--\d\d\.\d\d.*)$", part) or re.match(
            r"()(.+?)(-vm\d{4}-\d{1,2}-\d{1,2}@.*)$", part
        )
        if bundle:
            return bundle[1] + self.name("host", bundle[2]) + bundle[3]
        for host, dot, rest in () if inside else ((part, "", ""), part.partition("."))[: 1 + is_last]:
            if host.lower() in self.names.hosts and not (is_last and host.lower() in LOGS):
                return self.name("host", host) + dot + self.text(rest)
        return self.text(part)

    def _until(self, data: bytes, start: int, limit: int) -> tuple[bytes, int]:
        # Everything from `start` to `limit`, and where it really ended: a name that begins before the limit is taken whole.
        parts, at = [], start
        for span in self._spans(data, start):
            if span.start >= limit:
                break
            if span.start < at:
                continue
            parts += [data[at : span.start], span.new]
            at = span.end
        end = max(at, limit)
        parts.append(data[at:end])
        return b"".join(parts), end

    def _spans(self, data: bytes, start: int, is_plain: bool = False) -> list[Span]:
        # What stands in a name's place goes first, then escaped words, then names wherever they are.
        low = data.lower()
        taken = self._in_places(data, low, start)
        for more in (() if is_plain else self._escaped(data, low, start), self._found(data, low, start)):
            taken = sorted([*taken, *[span for span in more if not _overlaps(taken, span)]])
        return taken

    def _in_places(self, data: bytes, low: bytes, start: int) -> list[Span]:
        # Of two that overlap the first counts, and of two that begin together the longer.
        found = [(at, -end, kind) for kind, at, end, _ in places(data, low, max(0, start - OVERLAP)) if at >= start]
        spans: list[Span] = []
        for at, minus_end, kind in sorted(found, key=lambda one: (one[0], one[2] != "secret", one[1])):
            name = _decode(data[at:-minus_end])
            is_free = not spans or at >= spans[-1].end
            if is_free and self.names.is_name(kind, name) and (new := self.name(kind, name)) != name:
                spans.append(Span(at, -minus_end, _encode(new)))
        return spans

    def _found(self, data: bytes, low: bytes, start: int) -> Iterator[Span]:
        for match in self._pattern.finditer(low, start):
            at, end = match.span()
            if (new := self._replaced(str(match.lastgroup), data, low, at, end)) is not None:
                yield Span(at, end, _encode(new))

    def _replaced(self, group: str, data: bytes, low: bytes, at: int, end: int) -> str | None:
        # What stands there instead of what a branch of the pattern found; None where that is no name.
        name, kind = _decode(data[at:end]), group.partition("_")[0]
        is_register = kind in ("wwn", "mac") and _REGISTER_BEFORE.search(low, max(0, at - 16), at)
        if is_register or (kind in ("wwn", "mac") and name.lower() in self.names.numbers):
            return None
        if kind == "ipv4":
            return self._of_ipv4(name, low, at, end)
        if kind == "ipv6":
            return self._of_address(name)
        if kind == "fqdn":
            return self._of_domain(name)
        if kind == "mail" and MAKERS.match(name.rpartition("@")[2].lower()):
            return None
        known = {"site": "word", "word": self.names.kinds.get(_decode(low[at:end]))}.get(kind, kind)
        return None if known is None else self.pseudonyms.of(known, name)

    def _of_ipv4(self, name: str, low: bytes, at: int, end: int) -> str | None:
        mark = name[:1] if name[:1] in "vV" else ""
        bare = name.removeprefix(mark)
        if "." in bare:
            new = None if self._is_version(low, at, end, bare, bool(mark)) else self._of_address(bare)
            return None if new is None else mark + new
        if bare[:1] == "0":  # hexadecimal
            is_other = bare.isdecimal() or bool(_REGISTER_BEFORE.search(low, max(0, at - 16), at))
        else:  # in dashes
            dotted = re.sub("[-_]", ".", bare)
            is_other = bare.isdecimal() or _address(dotted) is None or dotted in self.names.numbers
        return None if is_other else self.pseudonyms.of("ipv4", bare)

    def _is_version(self, low: bytes, at: int, end: int, bare: str, marked: bool) -> bool:
        # `5.5.0.58` is a driver's version or somebody's address: the text around it tells, or what the evidence calls one.
        if bare in self.names.numbers or re.match(rb"-\d{1,3}(?:oem|vmw|em)|\+0x", low[end : end + 8]):
            return True
        longer = low[max(0, at - 1) : at] == b"." and low[max(0, at - 2) : at - 1].isdigit()
        told = marked or longer or _VERSION_AFTER.match(low, end) or _VERSION_BEFORE.search(low, max(0, at - 16), at)
        return bool(told) and (longer or not PRIVATE.match(bare))

    def _of_address(self, name: str) -> str | None:
        address = _address(name.lower())
        if address is None or address.is_loopback or address.is_unspecified or name.startswith("255."):
            return None if address is None else name
        return self.pseudonyms.of("ipv4" if address.version == 4 else "ipv6", name)

    def _of_domain(self, name: str) -> str | None:
        low = name.lower()
        if MAKERS.match(low) or low.startswith("localhost."):
            return None
        labels, known = low.split("."), low in self.names.domains or low in self.names.hosts
        end = labels[-1]
        if not known and end not in SURE_ENDINGS:
            is_code = end in _FILES or (end in _CODE and len(labels) < 3)
            if is_code or all(self.names.is_language(label) for label in labels[:-1]):
                return None
        return self.pseudonyms.of("domain" if low in self.names.domains else "host", name)

    def _escaped(self, data: bytes, low: bytes, start: int) -> Iterator[Span]:
        # A word with escapes in it (a link's %2d, JSON's \u002d or \/, a page's &amp;) is read without them; only what a name
        # covers is written anew, so that the rest keeps its escapes.
        end = start
        for match in ESCAPE.finditer(low, start) if any(mark in low for mark in (b"%", b"\\", b"&")) else ():
            if match.start() < end:
                continue
            begin, end = word_around(low, match.start(), match.end(), max(start, end))
            plain, origin = unescaped(data[begin:end])
            for inner in self._spans(plain, 0, is_plain=True):
                at, stop = begin + origin[inner.start], begin + origin[inner.end]
                # The others are found as they stand, where no digit of an escape is beside them.
                beside = data[at - 1 : at].isalnum() or data[stop : stop + 1].isalnum()
                if beside or data[at:stop] != plain[inner.start : inner.end]:
                    yield Span(at, stop, inner.new)


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _overlaps(taken: list[Span], span: Span) -> bool:
    place = bisect_right(taken, span.start, key=lambda one: one.start)
    is_before = place > 0 and taken[place - 1].end > span.start
    return is_before or (place < len(taken) and taken[place].start < span.end)


def _address(name: str) -> Any:
    if name.count(":") < 2 and not re.fullmatch(r"\d{1,3}(?:\.\d{1,3}){3}", name):
        return None
    if ":" in name and not any(letter.isdigit() for letter in name):
        return None  # `add::dead` is a name of C++ as well
    bare = name.partition("%")[0]
    try:
        return ipaddress.ip_address(bare if ":" in bare else ".".join(str(int(part)) for part in bare.split(".")))
    except ValueError:
        return None


def _everything(names: Names) -> bytes:
    # One pattern for all that is found by its own form: identifiers, the names that were learned, mail, domains.
    ends = sorted({*PUBLIC_ENDINGS, *(domain.rpartition(".")[2] for domain in names.domains)} - {"arpa"})
    branches = [f"(?P<{shape.kind}_{number}>{shape.pattern})" for number, shape in enumerate(SHAPES)]
    words = sorted(word for word in names.words if word)
    # a name that begins as an identifier does ("10.0.0.5-web") must be tried before it
    begins = re.compile("|".join(shape.pattern for shape in SHAPES).encode())
    if odd := [word for word in words if begins.match(_encode(word))]:
        branches.insert(0, f"(?P<word_first>{_trie(odd)})")
    if words:
        branches.append(f"(?P<word_any>{_trie(words)})")
    endings = "|".join(map(re.escape, ends))
    branches += [
        r"(?P<mail>[a-z0-9][a-z0-9._%+-]{0,63}@(?:[a-z0-9-]{1,63}\.){1,8}[a-z][a-z0-9-]{1,62}(?!\.?[a-z0-9#+-]))",
        rf"(?P<fqdn>(?:[a-z0-9_][a-z0-9_-]{{0,62}}\.){{1,7}}(?:{endings})(?!\.?[a-z0-9_#+-]))",
    ]
    pattern = rf"(?<![0-9a-z])(?:{'|'.join(branches)})(?![0-9a-z])"
    if names.site:
        pattern += f"|(?P<site>{_trie(sorted(names.site))})"
    return pattern.encode("utf-8", "surrogateescape")


def _trie(words: list[str]) -> str:
    # Words as one pattern that looks at each letter once; longer words before those they begin with.
    root: dict[str, Any] = {}
    for word in words:
        node = root
        for letter in word:
            node = node.setdefault(letter, {})
        node[""] = {}

    def written(node: dict[str, Any]) -> str:
        # straight runs without recursion, so that a long name does not deepen the stack
        run = ""
        while len(node) == 1 and "" not in node:
            letter, node = next(iter(node.items()))
            run += re.escape(letter)
        branches = [re.escape(letter) + written(child) for letter, child in sorted(node.items()) if letter]
        if not branches:
            return run
        return f"{run}(?:{'|'.join(branches)}){'?' if '' in node else ''}"

    return written(root)
