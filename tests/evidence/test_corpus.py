"""The parser against real crash text with labels, where that text is at hand.

Disputed labels, with the reason:

- ``timestamp`` of 016: the header's stamp is overwritten, but ``Code start`` of the same moment bears one, and a crash without a
  time cannot be placed in a boot.
- ``exception_kind`` "other" for a TLB time-out: the contract has a word for it. ``null`` where no panic text is left: the column
  has no unknown, it is "other" there.
- ``fault_address`` of 111 and ``frames`` of 128: typography made `0×0` of `0x0`; the labels' own notes give the true value.
- ``frames`` of gdb-style traces: they stand under ``gdb_frames`` in the labels; here they are frames with a function alone.
"""

from __future__ import annotations

import io
import json
import shutil
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from conftest import SHARED, needs_shared

import psodlib as psod
from psodlib.evidence.psod import find_crashes
from psodlib.evidence.vmkernel import read_vmkernel
from psodlib.records import Crash

pytestmark = needs_shared
CORPUS = SHARED / "corpus"
CRASHES = sorted((CORPUS / "crashes").glob("*.log"))
QUIET = sorted([*(CORPUS / "negatives").glob("*.log"), *(CORPUS / "evidence").glob("*.log")])
DISPUTED = {
    ("016_spin_netsched_teames", "time"),
    ("017_damaged_spin_netsched_oneline", "time"),
    ("111_pf14_vmkeventd_x_sign", "fault_address"),
    ("128_frame_refcountblock_x_sign", "frames"),
}
NARROWER = ("tlb_timeout", "iommu_fault", "lost_heartbeat")  # the labels have no word for these
FLOOR = 0.95  # share of fields and frames read rightly in damaged files


def label(path: Path) -> dict[str, Any]:
    expected: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return expected


def number(text: str | None) -> int | None:
    return None if text is None else int(text, 16)


def fields_expected(path: Path) -> dict[str, Any]:
    known, expect = label(path), label(path)["expect"]
    time = expect["timestamp"]
    return {
        "message": expect["panic_message"],
        "exception": expect["exception_number"],
        "kind": expect["exception_kind"] or "other",
        "time": datetime.fromisoformat(time) if time else None,
        "pcpu": expect["pcpu"],
        "world_id": expect["world_id"],
        "world_name": expect["world_name"],
        "ip": number(expect["ip"]),
        "fault_address": number(expect["fault_addr"]),
        "code_start": number(expect["code_start"]),
        "uptime": expect["uptime_s"],
        "build": None if known["build"] is None else str(known["build"]),
    }


def fields_found(crash: Crash) -> dict[str, Any]:
    uptime = None if crash.uptime is None else crash.uptime.total_seconds()
    names = "kind message exception time pcpu world_id world_name ip fault_address code_start"
    return {name: getattr(crash, name) for name in names.split()} | {"uptime": uptime, "build": crash.esxi_build}


def frames_expected(path: Path, key: str = "frames") -> list[tuple[Any, ...]]:
    names = ("fp", "ip", "function", "module_bare", "module_version", "offset", "stack")
    frames = label(path)["expect"].get(key, [])
    return [tuple(number(f[name]) if name in ("fp", "ip", "stack") else f[name] for name in names) for f in frames]


def frames_found(crash: Crash) -> list[tuple[Any, ...]]:
    told = attrgetter("frame_pointer", "address", "function", "module", "module_version", "offset", "stack")
    return [told(frame) for frame in crash.frames if frame.backtrace == 0]


def damaged(path: Path) -> bool:
    return bool(label(path)["form"] == "damaged")


def test_the_corpus_is_there() -> None:
    assert len(CRASHES) > 20 and len(QUIET) > 20


@pytest.mark.parametrize("path", CRASHES, ids=lambda path: path.stem)
def test_every_crash_is_found(path: Path) -> None:
    assert len(find_crashes(path.read_bytes())) == label(path)["expect"]["n_crashes"]


@pytest.mark.parametrize("path", QUIET, ids=lambda path: path.stem)
def test_no_crash_where_none_was(path: Path) -> None:
    assert find_crashes(path.read_bytes()) == []
    assert read_vmkernel(io.BytesIO(path.read_bytes()), path.name).crashes == ()


@pytest.mark.parametrize("path", [p for p in CRASHES if not damaged(p)], ids=lambda path: path.stem)
def test_undamaged_text_is_read_exactly(path: Path) -> None:
    crash = find_crashes(path.read_bytes())[0]
    expected, found = fields_expected(path), fields_found(crash)
    if expected["kind"] == "other" and found["kind"] in NARROWER:
        expected["kind"] = found["kind"]
    disputed = {name for stem, name in DISPUTED if stem == path.stem}
    wanted = {k: v for k, v in expected.items() if k not in disputed}
    assert {k: v for k, v in found.items() if k not in disputed} == wanted
    gdb = [f["function"] for f in label(path)["expect"].get("gdb_frames", [])]
    if gdb:
        assert [frame.function for frame in crash.frames] == gdb
    else:
        assert frames_found(crash) == frames_expected(path)


def test_damaged_text_keeps_most_of_what_it_had() -> None:
    right = total = 0
    for path in filter(damaged, CRASHES):
        crash = find_crashes(path.read_bytes())[0]
        expected, found = fields_expected(path), fields_found(crash)
        names = [name for name in expected if (path.stem, name) not in DISPUTED]
        frames = frames_expected(path)
        right += sum(expected[name] == found[name] for name in names)
        right += sum(a == b for a, b in zip(frames_found(crash), frames, strict=False))
        total += len(names) + len(frames)
        if (path.stem, "frames") not in DISPUTED:
            assert set(frames_found(crash)) <= set(frames), "what is recovered must be right"
    print(f"damaged files: {right} of {total} fields and frames")
    assert right / total >= FLOOR


def test_both_spellings_of_the_incident_are_one_crash() -> None:
    text = (SHARED / "incident" / "vmkernel-log.1").read_bytes()
    lost, kept = find_crashes(text)[0], find_crashes(text.replace(b"@#", b"@<None>#<None>"))[0]
    assert lost.crash_id == kept.crash_id
    assert frames_found(lost) == frames_found(kept)
    assert len(lost.frames) == 7 and lost.frames[0].function == "hpsa_update_scsi_devices" and lost.damage == ""


# Of each file that is no crash: which tables it fills, and drivers (module, version, evidence, device, firmware) that must be among its rows.
READ_AS: dict[str, tuple[str, list[tuple[str | None, ...]]]] = {
    "b01": ("uptimes drivers modules", [("vmknvme", None, "banner", None, None), ("atlantic", None, "banner", None, None)]),
    "b02": ("uptimes drivers modules", [("ionic_en", None, "banner", None, None)]),
    "b03": ("uptimes drivers modules", [("ionic_en", None, "banner", None, None)]),
    "b04": ("drivers", [("be2net", "4.0.88.0", "live_module", None, None)]),
    "b05": ("uptimes", []), "b06": ("uptimes", []), "b07": ("uptimes", []),
    "b08": ("drivers", [("ixgbe", None, "adapter_list", "vmnic0", None), ("ionic_en", None, "adapter_list", "vmnic2", None)]),
    "b09": ("drivers", [("e1000e", "3.2.2.1", "ethtool", "vmnic0", "0.8-4")]),
    "b10": ("drivers", [("bnx2x", "2.710.70.v55.7", "ethtool", "vmnic0", "FFV7.10.17 bc 7.10.11"), ("bnx2x", "2.710.70.v55.7", "live_module", None, None)]),
    "b11": ("drivers", [("lsi_mr3", "7.703.18.00", "live_module", None, None), ("vmw_ahci", None, "adapter_list", "vmhba1", None)]),
    "b12": ("", []),
    "b13": ("drivers", [("hpsa", "6.0.0.84", "install_date", None, None)]),
    "b14": ("drivers", [("hpsa", "5.5.0.124", "install_date", None, None)]),
    "b15": ("", []),
    "b16": ("drivers", [("e1000", "8.0.3.1", "live_module", None, None)]),
    "b17": ("", []),
    "b18": ("", []),
    "b19": ("drivers", [("e1000", "8.0.3.1", "live_module", None, None)]),
    "b20": ("drivers", [("lpfc", "10.2.309.8", "vib_install", None, None)]),
    "b21": ("", []),
}  # fmt: skip
HOSTS = {
    "b07": ("esxhostname", None, "153875", None),
    "b12": (None, "8.0.3", "24022510", None),  # of several in one capture the last
    "b18": ("wfs100", None, None, "PowerEdge R750xs"),
    "b19": ("esxi5.vjlab.local", None, None, None),
    "b21": (None, "4.1.0", "260247", None),
}


@pytest.mark.parametrize("path", sorted((CORPUS / "evidence").glob("*.log")), ids=lambda path: path.stem)
def test_evidence_is_read_into_its_table(path: Path, tmp_path: Path) -> None:
    (tmp_path / "esx01").mkdir()
    shutil.copy(path, tmp_path / "esx01")
    fleet = psod.load(tmp_path, jobs=1)
    tables, drivers = READ_AS[path.stem[:3]]
    filled = {name for name, table in fleet.tables.items() if len(table)} - {"hosts"}
    assert filled == set(tables.split())
    columns = ["module", "version", "evidence", "device", "firmware"]
    told = fleet.drivers[columns].astype(object)
    assert set(drivers) <= set(map(tuple, told.where(told.notna(), None).to_numpy()))
    if path.stem[:3] in HOSTS:
        host, version, build, model = HOSTS[path.stem[:3]]
        row = fleet.hosts.iloc[0]
        for name, wanted in (("host", host), ("esxi_version", version), ("esxi_build", build), ("model", model)):
            assert wanted is None or row[name] == wanted
