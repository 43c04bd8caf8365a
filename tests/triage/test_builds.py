"""The ESXi build of each boot, and whom its time and its crashes are counted under."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import psodlib as psod
from psodlib.triage.boots import builds_of_boots

BOOTS = [datetime(2014, month, 1, tzinfo=UTC) for month in (5, 6, 7)]
OLD, NEW = "1331820", "1746018"


def day(month: int, number: int = 2) -> datetime:
    return datetime(2014, month, number, tzinfo=UTC)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([], [None, None, None]),
        ([(day(7), NEW)], [NEW, NEW, NEW]),  # one build in all evidence: no upgrade to misplace
        ([(None, NEW)], [NEW, NEW, NEW]),
        ([(day(5), OLD), (day(7), NEW)], [OLD, OLD, NEW]),  # carried forward
        ([(day(6), OLD), (day(7), NEW)], [None, OLD, NEW]),  # never back
        ([(day(5), OLD), (None, NEW)], [OLD, OLD, NEW]),  # an undated collection speaks of the last boot
        ([(BOOTS[1] - timedelta(seconds=40), NEW), (day(5), OLD)], [OLD, NEW, NEW]),  # clocks differ by seconds
        ([(day(4), OLD), (day(6), NEW)], [OLD, NEW, NEW]),  # before the first known start
        ([(day(6), NEW), (day(6, 9), OLD), (day(7), OLD)], [None, NEW, OLD]),  # a rollback, and one odd reading
    ],
)  # fmt: skip
def test_builds_of_boots(told, expected):
    assert builds_of_boots(BOOTS, told) == expected
    assert builds_of_boots(BOOTS, list(reversed(told))) == expected


def test_no_boots_have_no_builds():
    assert builds_of_boots([], [(None, OLD)]) == []
    assert builds_of_boots([None, *BOOTS], [(day(4), OLD), (day(5), NEW)]) == [OLD, NEW, NEW, NEW]


def test_an_upgraded_hosts_time_and_crash_stand_under_the_build_it_then_ran(tmp_path):
    host = tmp_path / "esx1"
    host.mkdir()
    lines = []
    for start, build in ((datetime(2014, 5, 1, tzinfo=UTC), OLD), (datetime(2014, 5, 11, tzinfo=UTC), NEW)):
        lines.append(f"{start:%Y-%m-%dT%H:%M:%S.000Z} cpu0:1)VMware ESXi 5.5.0 [Releasebuild-{build} x86_64]")
        hours = [start + timedelta(hours=hour) for hour in range(1, 240)]
        lines += [f"{hour:%Y-%m-%dT%H:%M:%S.000Z} cpu1:33)ScsiDeviceIO: 2338: Cmd 0x1a to dev" for hour in hours]
        if build == OLD:
            lines += [
                f"{hours[-1]:%Y-%m-%dT%H:%M:%S.500Z} cpu1:33)@BlueScreen: #PF Exception 14 in world 33:hpsa IP 0x418018b7e594 addr 0x0",
                f"{hours[-1]:%Y-%m-%dT%H:%M:%S.500Z} cpu1:33)Code start: 0x418018a00000 VMK uptime: 9:23:00:00.500",
                f"{hours[-1]:%Y-%m-%dT%H:%M:%S.500Z} cpu1:33)0x41238:[0x418018b7e594]hpsa_scan_start@<None>#<None>+0x94 stack: 0x0",
            ]
    (host / "vmkernel.log").write_text("\n".join(lines) + "\n")
    fleet = psod.load(tmp_path, jobs=1)
    assert fleet.hosts["esxi_build"].tolist() == [NEW]
    assert fleet.crashes["esxi_build"].tolist() == [OLD]
    exposure = psod.exposure(fleet, "hpsa")
    under = exposure.groupby("esxi_build")[["host_days", "crashes"]].sum()
    assert under["crashes"].to_dict() == {OLD: 1, NEW: 0}
    assert (under["host_days"] > 9).all()
