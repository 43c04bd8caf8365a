"""A name -> another of the same shape, by a key; and where that key comes from."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import string
import unicodedata
from collections.abc import Callable
from itertools import count
from pathlib import Path

from psodlib.anonymiser.shapes import listed_words
from psodlib.errors import InputError, in_words

LEAST = 16  # bytes of a key file; letters of a passphrase: 12
LEAST_LETTERS = 12
LARGEST = 1 << 16

PUBLIC_ENDINGS = listed_words("endings.txt")  # of domains; any other is replaced as well
# Ends of which a name that is made of the kernel's own words is a name all the same; of any other end it is a name of code.
SURE_ENDINGS = frozenset(str.split("com org edu gov mil biz lan intranet swiss ch de at fr uk nl eu"))
# What a made-up label begins with; its nine hexadecimal digits make two of ten thousand agree once in a thousand exports.
_PREFIX = {"host": "h", "vm": "vm-", "datastore": "ds-", "user": "u", "network": "net-", "word": "w", "domain": "d"}
DIGITS = 9
REMOVED = "[removed]"
_HEXADECIMAL = "0123456789abcdef"


class Pseudonyms:
    """What each name becomes; the same name and key give the same everywhere.

    Notes
    -----
    ``used`` holds what was asked for, kind -> name -> pseudonym: it grows with the number of names, not with the evidence.

    No two IPv4 addresses of one export share a pseudonym. 240.0.0.0/4 has fewer addresses than there are to replace, so the later
    of two that would agree takes its next choice: one such address may be called otherwise in an export that met them in another
    order. Among 1,000 addresses it happens in one export of 500.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.used: dict[str, dict[str, str]] = {}
        self._owner: dict[str, str] = {}  # an IPv4 pseudonym -> the one address that has it, in its plain spelling
        self._given: dict[str, str] = {}  # and the other way round

    def of(self, kind: str, name: str) -> str:
        """The pseudonym of a name; of a secret nothing is left, in the mapping neither. Lines stay as many."""
        if kind == "secret":
            return REMOVED + "\n" * name.count("\n")
        known = self.used.setdefault(kind, {})
        if name not in known:
            special: dict[str, Callable[[str], str]] = {
                "host": self._host, "domain": self._domain, "mail": self._mail, "ipv4": self._ipv4, "ipv6": self._ipv6,
                "mac": self._hardware, "uuid": self._hexadecimal, "wwn": self._world_wide, "serial": self._scrambled,
            }  # fmt: skip
            known[name] = special[kind](name) if kind in special else self._label(kind, name)
        return known[name]

    def _digest(self, kind: str, name: str) -> bytes:
        plain = unicodedata.normalize("NFC", name).casefold()
        return hmac.digest(self._key, f"{kind}:{plain}".encode("utf-8", "surrogatepass"), "sha256")

    def _label(self, kind: str, name: str) -> str:
        made = _PREFIX.get(kind, "w") + self._digest(kind, name).hex()[:DIGITS]
        return made.upper() if name.isupper() else made

    def _host(self, name: str) -> str:
        # Label by label, so that the short name and the full one stay the same host's.
        try:
            return self._ipv4(name) if ipaddress.ip_address(name).version == 4 else self._ipv6(name)
        except ValueError:
            first, dot, rest = name.partition(".")
            return self._label("host", first) + (dot + self._domain(rest) if rest else dot)

    def _domain(self, name: str) -> str:
        *labels, last = name.split(".")
        end = last if last.lower() in PUBLIC_ENDINGS else self._label("domain", last)
        return ".".join([*(self._label("domain", label) for label in labels), end])

    def _mail(self, name: str) -> str:
        user, _, domain = name.rpartition("@")
        return f"{self._label('user', user)}@{self._domain(domain)}"

    def _ipv4(self, name: str) -> str:
        # 240.0.0.0/4 is nobody's and never will be, and no version begins so. Dashes and hexadecimal digits stay so.
        if name[:2].lower() == "0x":
            return f"0x{int(ipaddress.IPv4Address(self._ipv4(str(ipaddress.IPv4Address(int(name, 16)))))):08x}"
        if mark := next((mark for mark in "-_" if mark in name), ""):
            return self._ipv4(name.replace(mark, ".")).replace(".", mark)
        plain = str(ipaddress.IPv4Address(".".join(str(int(part)) for part in name.split("."))))
        if plain in self._owner:  # one of ours, met again
            return name
        if plain not in self._given:
            # The first choice is of the address alone, so that exports without a clash agree.
            choices = (self._digest("ipv4", f"{plain}#{number}" if number else plain) for number in count())
            made = next(one for d in choices if (one := f"{240 + d[0] % 15}.{d[1]}.{d[2]}.{d[3]}") not in self._owner)
            self._owner[made], self._given[plain] = plain, made
        return self._given[plain]

    def _ipv6(self, name: str) -> str:
        # 2001:db8::/32 is for documents; every spelling of an address is one address.
        bare, percent, zone = name.partition("%")
        digest = self._digest("ipv6", str(ipaddress.IPv6Address(bare)))
        groups = [digest[at : at + 2].hex() for at in range(0, 12, 2)]
        return f"2001:db8:{':'.join(groups)}{percent}{zone}"

    def _hardware(self, name: str) -> str:
        # Locally administered (02), as no maker's card is; the marks between stay.
        digits = [letter for letter in name if letter.isalnum()]
        pairs = ":".join("".join(digits[at : at + 2]) for at in range(0, 12, 2))
        made = iter(f"02{self._digest('mac', pairs)[:5].hex()}")
        written = "".join(next(made) if letter.isalnum() else letter for letter in name)
        return written.upper() if name.isupper() else written

    def _hexadecimal(self, name: str) -> str:
        # Digit by digit, marks and length kept. Bytes written apart ("0x6 0x4d") stay so.
        if "0x" in name.lower():
            digest = self._digest("uuid", name)
            return " ".join(f"{byte:#x}" for byte in digest[:16])
        return self._scrambled(name, _HEXADECIMAL)

    def _world_wide(self, name: str) -> str:
        # The family and its first digit say which kind of identifier it is, and nothing of the device.
        if name[:2].lower() == "0x":
            return name[:3] + self._world_wide(name[2:])[1:]
        family, dot, rest = name.partition(".")
        if not dot or ":" in family:
            return name[:1] + self._scrambled(name[1:], _HEXADECIMAL)
        if family.lower() in ("naa", "eui", "vml"):
            return f"{family}.{rest[:1]}{self._scrambled(rest[1:], _HEXADECIMAL)}"
        return f"{family}.{self._scrambled(rest)}"

    def _scrambled(self, name: str, hexadecimal: str = "") -> str:
        # A letter for a letter, a digit for a digit, everything else where it was.
        plain = "".join(letter for letter in name.lower() if letter.isalnum())
        digest, made = self._digest("scrambled", plain), []
        stream = hmac.digest(self._key, digest, "sha512")
        while len(stream) < len(name):
            stream += hmac.digest(self._key, stream[-64:], "sha512")
        for letter, byte in zip(name, stream, strict=False):
            is_hex, is_digit = letter.lower() in hexadecimal, letter.isdigit()
            others = string.digits if is_digit else string.ascii_lowercase if letter.isalpha() else letter
            alphabet = hexadecimal if is_hex else others
            new = alphabet[byte % len(alphabet)]
            made.append(new.upper() if letter.isupper() else new)
        return "".join(made)


def read_key(file: str | Path) -> bytes:
    """The key in a file; a new one is made where there is no file."""
    path = Path(file)
    try:
        if not path.exists():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as made:
                made.write(secrets.token_hex(32).encode() + b"\n")
        with path.open("rb") as given:
            key = given.read(LARGEST + 1).strip()
    except OSError as error:
        raise InputError(f"{path}: the key cannot be read or made ({in_words(error)})") from error
    if not LEAST <= len(key) <= LARGEST:
        raise InputError(f"{path}: {len(key)} bytes; expected {LEAST} to {LARGEST:,}. A new name makes a key")
    return key


def key_from_passphrase(passphrase: str) -> bytes:
    """A key from what a person typed: the same words give the same key, on every machine."""
    if len(passphrase) < LEAST_LETTERS:
        raise InputError(f"a passphrase of {len(passphrase)} letters; expected {LEAST_LETTERS} or more")
    # One salt for all: two exports with the same words must agree.
    return hashlib.scrypt(passphrase.encode(), salt=b"psodlib anonymiser 1", n=1 << 14, r=8, p=1, dklen=32)
