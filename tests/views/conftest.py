"""What many tests of pages only read: loaded once a process. Whoever changes a table makes a fleet of their own."""

from __future__ import annotations

import pytest
from conftest import DATA

import psodlib as psod


@pytest.fixture(scope="session")
def demo() -> psod.Fleet:
    """The demo fleet with its inventory."""
    return psod.load(DATA / "demo-fleet", inventory=DATA / "inventory.csv", jobs=1)


@pytest.fixture(scope="session")
def real() -> psod.Fleet:
    """The real incident: one host, one crash."""
    return psod.load(DATA / "incident-2014-05-31", jobs=1)
