"""Text -> the same text with its names replaced: one pass over bytes, in blocks, whatever the line's length."""

from __future__ import annotations

import html
import ipaddress
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from psodlib.anonymiser.learn import Names, plain
from psodlib.anonymiser.pseudonyms import PUBLIC_ENDINGS, Pseudonyms
from psodlib.anonymiser.shapes import POSITIONS, SHAPES, SYSTEM_USERS

__all__ = ["Rewriter"]

OVERLAP = 8 << 10  # bytes that a block shows of the next one: no name is longer
ESCAPED_REACH = 2 << 10  # bytes of an escaped word on either side of an escape
INNER = frozenset({"commands", "core", "etc", "log", "proc", "run", "scratch", "usr", "var"})
# Makers' domains say nothing of the house.
MAKERS = re.compile(r"(?:.*\.)?(?:vmware|broadcom|hpe?|dell|lenovo|cisco|intel|qlogic|emulex|w3)\.(?:com|org|net)$")
_VERSION_BEFORE = re.compile(rb"(?:\bv|\bver|version|release|#)[\s:=\"'.]{0,4}$")
_VERSION_AFTER = re.compile(rb"-\d{1,3}(?:oem|vmw|em)|\.\d|\+0x")
_ESCAPE = re.compile(rb"%[0-9a-f]{2}|\\u[0-9a-f]{4}|\\x[0-9a-f]{2}|\\/|&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z]{2,8});")
_BREAK = re.compile(rb"[\s\"'<>]")


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
        data = text.encode("utf-8", "surrogateescape" if _has_bytes(text) else "surrogatepass")
        new, _ = self._until(data, 0, len(data))
        return new.decode("utf-8", "surrogateescape" if _has_bytes(text) else "surrogatepass")

    def name(self, kind: str, name: str) -> str:
        """What stands in a place of its own: a cell of a column of hosts, a folder that is called as a host."""
        low = plain(name)
        if not name.strip() or low in SYSTEM_USERS or low.startswith("localhost"):
            return name
        if kind == "host" and _address(low) is not None:
            return self._of_address(name)
        if kind in ("serial", "user", "host") and (whole := self._whole_shape(name)) is not None:
            return whole
        return self.pseudonyms.of(self.names.kinds.get(low, kind), name)

    def path(self, text: str) -> str:
        """A path, component by component; members of archives stand behind ``!``."""
        parts = re.split(r"([/!])", text)
        inside = False
        for place in range(0, len(parts), 2):
            is_last = place == len(parts) - 1
            parts[place], below = self._component(parts[place], inside, is_last), parts[place] in INNER
            inside = inside or below
        # what only a longer stretch shows: a user's home, a store's machine
        return self.text("".join(parts))

    def _component(self, part: str, inside: bool, is_last: bool) -> str:
        bundle = re.match(r"(esx-)(.+?)(-\d{4}-\d\d-\d\d--\d\d\.\d\d.*)$", part) or re.match(
            r"()(.+?)(-vm\d{4}-\d{1,2}-\d{1,2}@.*)$", part
        )
        if bundle:
            return bundle[1] + self.name("host", bundle[2]) + bundle[3]
        if not inside and part.lower() in self.names.hosts and not (is_last and part.lower() in self.names.logs):
            return self.name("host", part)
        stem, dot, rest = part.partition(".")
        if is_last and not inside and stem.lower() in self.names.hosts and stem.lower() not in self.names.logs:
            return self.name("host", stem) + dot + self.text(rest)
        return self.text(part)

    # ---- one block ---------------------------------------------------------------------------------------------------

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

    def _spans(self, data: bytes, start: int) -> list[Span]:
        # What stands in a name's place goes first, then escaped words, then names wherever they are.
        low = data.lower()
        placed = sorted(self._placed(data, low, start))
        escaped = [span for span in self._escaped(data, low, start) if not _overlaps(placed, span)]
        taken = sorted([*placed, *escaped])
        found = [span for span in self._found(data, low, start) if not _overlaps(taken, span)]
        return sorted([*taken, *found])

    def _placed(self, data: bytes, low: bytes, start: int) -> list[Span]:
        spans: dict[tuple[int, int], Span] = {}
        for position in POSITIONS:
            if not any(sign in low for sign in position.signs):
                continue
            for match in position.pattern.finditer(low, max(0, start - OVERLAP)):
                for group, value in match.groupdict().items():
                    at, end = match.span(group)
                    if value is None or at < start or (at, end) in spans:
                        continue
                    kind, name = group.rstrip("0123456789"), _decode(data[at:end])
                    if not self.names.is_name(kind, name):
                        continue
                    new = self.name(kind, name)
                    if new != name:
                        spans[at, end] = Span(at, end, _encode(new))
        kept: list[Span] = []
        for span in sorted(spans.values(), key=lambda span: (span.start, -span.end)):
            if not kept or span.start >= kept[-1].end:
                kept.append(span)
        return kept

    def _found(self, data: bytes, low: bytes, start: int) -> Iterator[Span]:
        for match in self._pattern.finditer(low, start):
            at, end = match.span()
            new = self._replaced(str(match.lastgroup), data, low, at, end)
            if new is not None:
                yield Span(at, end, _encode(new))

    def _replaced(self, group: str, data: bytes, low: bytes, at: int, end: int) -> str | None:
        name, kind = _decode(data[at:end]), group.partition("_")[0]
        if kind in ("ipv4", "ipv6"):
            if _address(name.lower()) is None or (kind == "ipv4" and self._is_version(low, at, end)):
                return None
            return self._of_address(name)
        if kind == "fqdn":
            return self._of_domain(name)
        if kind == "mail":
            return None if MAKERS.match(name.rpartition("@")[2].lower()) else self.pseudonyms.of("mail", name)
        if kind == "word":
            known = self.names.kinds.get(_decode(low[at:end]))
            return None if known is None else self.pseudonyms.of(known, name)
        if kind == "site":
            return self.pseudonyms.of("word", name)
        return self.pseudonyms.of(kind, name)

    def _whole_shape(self, name: str) -> str | None:
        # A name that is nothing but an address or an identifier.
        data = name.encode("utf-8", "surrogatepass")
        match = self._pattern.fullmatch(data.lower())
        if match is None or str(match.lastgroup).partition("_")[0] in ("word", "site", "fqdn", "mail"):
            return None
        return self._replaced(str(match.lastgroup), data, data.lower(), 0, len(data))

    def _is_version(self, low: bytes, at: int, end: int) -> bool:
        # `5.5.0.58` is a driver's version or somebody's address: the text around it tells, or what the evidence calls one.
        if _VERSION_AFTER.match(low, end) or _VERSION_BEFORE.search(low, max(0, at - 16), at):
            return True
        longer = low[max(0, at - 1) : at] == b"." and low[max(0, at - 2) : at - 1].isdigit()
        return longer or low[at:end].decode() in self.names.versions

    def _of_address(self, name: str) -> str:
        address = ipaddress.ip_address(_plain_address(name))
        if address.is_loopback or address.is_unspecified or name.startswith("255."):
            return name
        return self.pseudonyms.of("ipv4" if address.version == 4 else "ipv6", name)

    def _of_domain(self, name: str) -> str | None:
        low = name.lower()
        if MAKERS.match(low) or low.startswith("localhost."):
            return None
        return self.pseudonyms.of("domain" if low in self.names.domains else "host", name)

    # ---- escapes -----------------------------------------------------------------------------------------------------

    def _escaped(self, data: bytes, low: bytes, start: int) -> list[Span]:
        # A word with escapes in it (a link's %2d, JSON's \u002d or \/, a page's &amp;) is read without them; only what a name
        # covers is written anew, so that the rest keeps its escapes.
        spans: list[Span] = []
        if b"%" not in low and b"\\" not in low and b"&" not in low:
            return spans
        end = start
        for match in _ESCAPE.finditer(low, start):
            if match.start() < end:
                continue
            begin, end = _word_around(low, match.start(), match.end(), max(start, end))
            plain, origin = _unescaped(data[begin:end])
            for inner in self._plain_spans(plain):
                at, stop = begin + origin[inner.start], begin + origin[inner.end]
                if data[at:stop] != plain[inner.start : inner.end]:  # the others are found as they stand
                    spans.append(Span(at, stop, inner.new))
        return spans

    def _plain_spans(self, plain: bytes) -> list[Span]:
        low = plain.lower()
        placed = self._placed(plain, low, 0)
        return sorted([*placed, *(span for span in self._found(plain, low, 0) if not _overlaps(placed, span))])


def _has_bytes(text: str) -> bool:
    return any("\udc80" <= letter <= "\udcff" for letter in text) and not text.isascii()


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _overlaps(taken: list[Span], span: Span) -> bool:
    place = bisect_right(taken, span.start, key=lambda one: one.start)
    before = taken[place - 1] if place else None
    after = taken[place] if place < len(taken) else None
    return bool((before and before.end > span.start) or (after and after.start < span.end))


def _plain_address(name: str) -> str:
    bare = name.partition("%")[0]
    return bare if ":" in bare else ".".join(str(int(part)) for part in bare.split("."))


def _address(name: str) -> Any:
    if name.count(":") < 2 and not re.fullmatch(r"\d{1,3}(?:\.\d{1,3}){3}", name):
        return None
    if ":" in name and not any(letter.isdigit() for letter in name):
        return None  # `add::dead` is a name of C++ as well
    try:
        return ipaddress.ip_address(_plain_address(name))
    except ValueError:
        return None


def _word_around(low: bytes, at: int, end: int, floor: int) -> tuple[int, int]:
    # The word that holds an escape: to the next blank, quote or angle bracket on either side.
    floor = max(floor, at - ESCAPED_REACH)
    begin = max(
        (low.rfind(mark, floor, at) + 1 for mark in (b" ", b"\n", b"\t", b"\r", b'"', b"'", b"<", b">")), default=0
    )
    stop = _BREAK.search(low, end, end + ESCAPED_REACH)
    return max(begin, floor), stop.start() if stop else min(len(low), end + ESCAPED_REACH)


def _unescaped(data: bytes) -> tuple[bytes, list[int]]:
    # The text without escapes, and for each of its bytes where it came from (one more for the end).
    out, at = bytearray(), 0
    origin: list[int] = []
    for match in _ESCAPE.finditer(data.lower()):
        if match.start() < at:
            continue
        raw = data[at : match.start()]
        origin += range(at, match.start())
        out += raw
        made = _meaning(data[match.start() : match.end()])
        origin += [match.start()] * len(made)
        out += made
        at = match.end()
    origin += range(at, len(data) + 1)
    out += data[at:]
    return bytes(out), origin


def _meaning(escape: bytes) -> bytes:
    if escape.startswith(b"%"):
        return bytes([int(escape[1:], 16)])
    if escape.startswith(b"&"):
        return html.unescape(escape.decode("ascii")).encode("utf-8", "surrogatepass")
    if escape == b"\\/":
        return b"/"
    return chr(int(escape[2:], 16)).encode("utf-8", "surrogatepass")


# ---- the pattern -------------------------------------------------------------------------------------------------------


def _everything(names: Names) -> bytes:
    # One pattern for all that is found by its own form: identifiers, the names that were learned, mail, domains.
    ends = sorted({*PUBLIC_ENDINGS, *(domain.rpartition(".")[2] for domain in names.domains)} - {"arpa"})
    shapes = [f"(?P<{shape.kind}_{number}>{shape.pattern})" for number, shape in enumerate(SHAPES)]
    words = sorted(word for word in names.words if word)
    branches = [*shapes]
    # a name that begins as an identifier does ("10.0.0.5-web") must be tried before it
    begins = re.compile(rb"(?:%s)" % "|".join(shape.pattern for shape in SHAPES).encode())
    odd = [word for word in words if begins.match(_encode(word))]
    if odd:
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
