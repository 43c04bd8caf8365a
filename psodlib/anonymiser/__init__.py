"""Evidence, tables and pages with every name replaced, so that they may leave the house.

    shapes.py      what a name looks like by its own form, and where a name stands: two tables, with a sample each
    learn.py       sources -> the names in them
    pseudonyms.py  a name -> another of the same shape, by the key: a file or a passphrase, never an argument
    rewrite.py     text -> the same text with its names replaced, as a stream
    tables.py      Parquet and inventories, cell by cell
    folder.py      sources -> a folder beside them, the owner's mapping, and what was left out

What a name is comes from two looks: by shape (an address is one wherever it stands) and by place (whoever stands where a host's
name stands is a host). A name met in a place is replaced wherever it is a word of its own, unless it is a word of the kernel's own
language: a host called ``panic`` is replaced where a host's name stands, and a panic stays one.
"""

from __future__ import annotations

from psodlib.anonymiser.folder import Anonymised, anonymise
from psodlib.anonymiser.learn import Names, learn_names
from psodlib.anonymiser.pseudonyms import Pseudonyms, key_from_passphrase, read_key
from psodlib.anonymiser.rewrite import Rewriter

__all__ = [
    "Anonymised", "Names", "Pseudonyms", "Rewriter", "anonymise", "key_from_passphrase", "learn_names", "read_key",
]  # fmt: skip
