"""The secret that pseudonyms are made with."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from psodlib.errors import InputError

LEAST = 16  # bytes of a key file; letters of a passphrase: 12
LEAST_LETTERS = 12
LARGEST = 1 << 16


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
        raise InputError(f"{path}: the key cannot be read or made ({error})") from error
    if not LEAST <= len(key) <= LARGEST:
        raise InputError(f"{path}: {len(key)} bytes; expected {LEAST} to {LARGEST:,}. A new name makes a key")
    return key


def key_from_passphrase(passphrase: str) -> bytes:
    """A key from what a person typed: the same words give the same key, on every machine."""
    if len(passphrase) < LEAST_LETTERS:
        raise InputError(f"a passphrase of {len(passphrase)} letters; expected {LEAST_LETTERS} or more")
    # One salt for all: two exports with the same words must agree.
    return hashlib.scrypt(passphrase.encode(), salt=b"psodlib anonymiser 1", n=1 << 14, r=8, p=1, dklen=32)
