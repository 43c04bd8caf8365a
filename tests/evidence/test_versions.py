"""Versions: the normal form, the order, and VIB names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psodlib.evidence.artifacts.findings import Findings, Part
from psodlib.evidence.artifacts.vibs import VIB_ID
from psodlib.evidence.versions import compare, module_of_vib, normalise

NORMAL = [
    ("5.5.0.58-1OEM.550.0.0.1331820", "hpsa", "5.5.0.58"),
    ("5.5.0-44vmw.550.0.0.1331820", "hpsa", "5.5.0.44"),
    ("5.5.0-44vmw.550.0.0.1331820", "scsi-hpsa", "5.5.0.44"),
    ("5.0.0-28OEM", "hpsa", "5.0.0.28"),
    ("5.5.0-88OEM.550.0.0.1331820", "hpvsa", "5.5.0.88"),
    ("5.5.0.58-1OEM", "hpsa", "5.5.0.58"),
    ("6.0.0.84-3vmw.670.0.0.8169922", "hpsa", "6.0.0.84"),
    ("5.5.0.50", "hpsa", "5.5.0.50"),
    # Elsewhere the release is packaging, not a revision.
    ("3.1-6vmw.670.0.0.8169922", "aic79xx", "3.1"),
    ("8.2.3.1-129vmw.550.0.0.1331820", "lpfc820", "8.2.3.1"),
    ("1.713.20.v55.4-1OEM.550.0.0.1331820", "bnx2fc", "1.713.20.v55.4"),
    ("06.255.12.00-7vmw.600.0.0.2494585", "lsi_msgpt3", "06.255.12.00"),
    ("Version 8.0.3.1-NAPI, Build: 456551, Interface: 9.2 Built on: Jul 29 2011", "e1000", "8.0.3.1"),
    ("Version 4.0.88.0, Build: 515841, Interface: 9.2 Built on: Oct 28 2011", "be2net", "4.0.88.0"),
    ("2.710.70.v55.7", "bnx2x", "2.710.70.v55.7"),
]


@pytest.mark.parametrize(("printed", "module", "normal"), NORMAL)
def test_normal_form(printed: str, module: str, normal: str) -> None:
    assert normalise(printed, module) == normal
    assert normalise(normal, module) == normal  # a normal form is its own


@pytest.mark.parametrize("text", [None, "", "-", "n/a", "unknown", "vmw", "9" * 300, "(v 5.5.0)", "<None>"])
def test_no_version_is_none(text: str | None) -> None:
    assert normalise(text, "hpsa") is None
    assert compare(text or "", "5.5.0", "hpsa") is None


OLDER_NEWER = [
    ("5.5.0.74", "5.5.0.114"),
    ("5.5.0-44vmw.550.0.0.1331820", "5.5.0.58-1OEM.550.0.0.1331820"),
    ("5.0.0-28OEM", "5.5.0-44vmw"),
    ("5.5.0.124", "6.0.0.44-4vmw.600.0.0.2494585"),
    ("5.5.0.58", "5.5.0.60"),
    ("2.710.9.v55.7", "2.710.70.v55.7"),
]


@pytest.mark.parametrize(("older", "newer"), OLDER_NEWER)
def test_order(older: str, newer: str) -> None:
    assert compare(older, newer, "hpsa") == -1
    assert compare(newer, older, "hpsa") == 1


def test_same_revision_in_two_packages_is_no_change() -> None:
    assert compare("5.5.0-44vmw.550.0.0.1331820", "5.5.0.44", "hpsa") == 0


VIBS = [
    ("Hewlett-Packard_bootbank_scsi-hpsa_5.5.0.50-1OEM.550.0.0.1198611", "hpsa", "5.5.0.50"),
    ("VMware_bootbank_scsi-hpsa_5.5.0-44vmw.550.0.0.1331820", "hpsa", "5.5.0.44"),
    ("VMware_bootbank_lsi-mr3_6.605.08.00-6vmw.600.0.0.2494585", "lsi_mr3", "6.605.08.00"),
    ("VMware_locker_tools-light_5.5.0-0.0.1331820", "tools_light", "5.5.0"),
    ("HPE_bootbank_nhpsa_2.0.16-1OEM.650.0.0.4240417", "nhpsa", "2.0.16"),
]


@pytest.mark.parametrize(("text", "module", "version"), VIBS)
def test_vib_id(text: str, module: str, version: str) -> None:
    (found,) = VIB_ID.findall(f"VIBs Installed: {text}, and more")
    told = Findings()
    told.vib(Part("x", ()), 1, found)
    (reading,) = told.drivers
    assert (found, reading.module, reading.version) == (text, module, version)


@pytest.mark.parametrize(
    ("vib", "module"),
    [("scsi-hpsa", "hpsa"), ("hpsa", "hpsa"), ("net-bnx2x", "bnx2x"), ("lsi-mr3", "lsi_mr3"), ("sata-ahci", "ahci")],
)
def test_module_of_vib(vib: str, module: str) -> None:
    assert module_of_vib(vib) == module


@given(st.text(max_size=400), st.sampled_from([None, "hpsa", "scsi-hpsa", "bnx2x"]))
def test_no_text_raises(text: str, module: str | None) -> None:
    normal = normalise(text, module)
    if normal is not None:
        assert compare(normal, normal, module) == 0


@given(st.lists(st.lists(st.integers(0, 10**6), min_size=1, max_size=5), min_size=3, max_size=3))
def test_order_is_an_order(numbers: list[list[int]]) -> None:
    a, b, c = (".".join(map(str, parts)) for parts in numbers)
    assert compare(a, b) == -(compare(b, a) or 0)
    if (compare(a, b) or 0) <= 0 and (compare(b, c) or 0) <= 0:
        assert (compare(a, c) or 0) <= 0
