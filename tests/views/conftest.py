"""What many tests of pages only read: loaded once a process. Whoever changes a table makes a fleet of their own."""

from __future__ import annotations

import pytest
from conftest import DATA

import psodlib as psod


@pytest.fixture(scope="session")
def real() -> psod.Fleet:
    """The real incident: one host, one crash."""
    return psod.load(DATA / "incident-2014-05-31", jobs=1)
