"""What still looks like a name in a text that was written anew: told with its file and line, each word once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from psodlib.anonymiser.learn import NAMING, PRIVATE, Names, plain
from psodlib.anonymiser.pseudonyms import PUBLIC_ENDINGS, Pseudonyms

MOST = 1000  # words that are told; more are counted as one
REMEMBERED = 200_000  # words that were looked at, before they are forgotten
_UNITS = re.compile(
    r"(?:(?:\d+[a-z]{1,3}){1,6}|(?:[a-z]{1,2}\d{1,4}){1,6}[a-z]?|\d+x\d+|[0-9a-f]{1,8}|4[0-5][0-9a-f]{10}|ffff[0-9a-f]{12}|x[0-9a-f]{1,16}|v\d[\w.]*|\d{8}t\d{6}z?|c0\d{7})"
)
# What looks like a name, each with a sample: told where a part of it is known to nobody.
LOOKS = (
    ("mail", r"[a-z0-9][\w.+-]{0,63}@[a-z][\w.-]{1,200}", "jdoe@werk"),
    ("user of a domain", r"[a-z][a-z0-9-]{1,30}\\{1,2}[a-z][\w.$-]{1,63}", r"acme\jdoe"),
    ("address", r"\d{1,3}(?:\.\d{1,3}){3}", "10.1.2.3"),
    ("identifier", r"(?!4[0-5][0-9a-f]{10}(?![0-9a-f])|ffff)(?=[0-9a-f]{0,40}[a-f])(?=[a-f]{0,40}\d)[0-9a-f]{12,64}|\d{14,20}", "0050569abef0"),
    ("domain", r"[a-z_][\w-]{0,62}(?:\.[a-z0-9_][\w-]{0,62}){1,7}", "node3.dc2.bigbank"),
    ("name with a number", r"[a-z][a-z_-]{0,60}\d[\w-]{0,60}|(?!0x)\d{1,10}[a-z][\w-]{4,60}", "bernesx09"),
)  # fmt: skip
# Words without a number are names only where one stands.
_PLACES = re.compile(
    rb"""\b(?:(?:user|user ?name|account|login|owner|host|host ?name|server|vm|machine|guest|datastore|volume|port ?group|network|cluster|datacenter|"""
    rb"""contact|customer|company|site|snapshot of|clone of|for vm|tag|serial|s/n|share|domain)["']?[\s:=]{1,4}["']?|\s')(?P<word>[a-z0-9][\w.-]{2,80})"""
)
_ANY = "|".join(f"(?P<k{at}>{pattern})" for at, (_, pattern, _) in enumerate(LOOKS))
_LOOK = re.compile(rf"(?<![\w.@\\%-])(?:{_ANY})(?![\w@\\]|[+]0x|\()".encode())


@dataclass(frozen=True)
class Suspect:
    """A word that still looks like a name: where it is met first (the original's file, and line; 0 is the file's name), and how often."""

    source: str
    line: int
    kind: str
    text: str
    times: int = 1


@dataclass
class Sweep:
    """Looks at what is written."""

    names: Names
    pseudonyms: Pseudonyms
    found: dict[str, Suspect] = field(default_factory=dict)
    _harmless: set[str] = field(default_factory=set)
    _made: set[str] = field(default_factory=set)
    _counted: dict[str, int] = field(default_factory=dict)

    def through(self, blocks: Iterable[bytes], source: str) -> Iterator[bytes]:
        """The blocks as they are, each looked at on its way."""
        line, held = 1, b""
        for block in blocks:
            yield block
            head, newline, rest = block.rpartition(b"\n")
            if newline or len(held) > 1 << 20:
                self.look(held + head, source, line)
                line += head.count(b"\n") + held.count(b"\n") + 1
                held = rest
            else:
                held += block
        self.look(held, source, line)

    def look(self, text: bytes, source: str, line: int) -> None:
        """One text, from a line of its file on; line 0 is the name of the file."""
        low = text.lower()
        for pattern in (_LOOK, _PLACES):
            here, at = line, 0
            for match in pattern.finditer(low):
                group = str(match.lastgroup)
                word = match[group].decode("utf-8", "replace")
                if (group == "word" and word in self.found) or self._is_harmless(word, group):
                    continue
                here, at = here + low.count(b"\n", at, match.start()), match.start()
                kind = "word where a name stands" if group == "word" else LOOKS[int(group[1:])][0]
                self._tell(Suspect(source, here, kind, word))

    def _tell(self, suspect: Suspect) -> None:
        word = suspect.text
        if word not in self.found and len(self.found) >= MOST:
            word, suspect = "", replace(suspect, kind="more", text=f"and more words than {MOST:,}")
        first = self.found.get(word, replace(suspect, times=0))
        self.found[word] = replace(first, times=first.times + 1)

    def _is_harmless(self, word: str, group: str) -> bool:
        if word not in self._harmless and word not in self.found and self._is_known(word, group):
            if len(self._harmless) >= REMEMBERED:
                self._harmless.clear()
            self._harmless.add(word)
        return word in self._harmless

    def _is_known(self, word: str, group: str) -> bool:
        if group == "k2":  # an address: ours, or a version
            return not PRIVATE.match(word) or word in self.names.numbers or word in self._ours()
        is_code = group == "k4" and word.rpartition(".")[2] not in PUBLIC_ENDINGS and word.count(".") < 2
        is_ours = is_code or word in self.names.numbers or word in self.names.kept
        return is_ours or all(self._is_part(part) for part in re.findall(r"[^\W_]+", word))

    def _is_part(self, part: str) -> bool:
        if part in self.names.kept or part in self._ours() or self.names.is_language(part):
            return True
        # one of ours with something behind it: a word of the site was replaced inside another
        if any(made in self._ours() for made in re.findall(r"[hduw][0-9a-f]{9}", part)):
            return True
        return len(part) < 3 or (bool(_UNITS.fullmatch(part)) and part.strip("0123456789") not in NAMING)

    def _ours(self) -> set[str]:
        # Every word of every pseudonym so far.
        for kind, given in self.pseudonyms.used.items():
            if self._counted.get(kind) != len(given):
                self._counted[kind] = len(given)
                for made in given.values():
                    self._made |= {plain(made), *re.findall(r"[^\W_]+", plain(made))}
        return self._made
