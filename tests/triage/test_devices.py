"""Driver and firmware of each device."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd

from psodlib import schema
from psodlib.triage.devices import device_table

BOOT = pd.Timestamp("2014-05-01", tz="UTC")


def fleet(*drivers: dict[str, object]) -> SimpleNamespace:
    runs = {"boot": BOOT, "end": BOOT + pd.Timedelta(days=9), "end_reason": "running"}
    uptimes = [{"host": host, **runs} for host in ("a", "b")]
    rows = [{"host": "a", "module": "hpsa", "state": "loaded", "evidence": "proc", "version": "5.5.0.58",
             "observed_at": BOOT + pd.Timedelta(days=1), **driver} for driver in drivers]  # fmt: skip
    return SimpleNamespace(uptimes=schema.build("uptimes", uptimes), drivers=schema.build("drivers", rows))


def test_firmware_is_the_last_that_was_read():
    later = BOOT + pd.Timedelta(days=2)
    table = device_table(fleet({"device": "hpsa0", "firmware": "3.04"}, {"device": "hpsa0", "firmware": "5.22", "observed_at": later},
                               {"device": "hpsa0", "observed_at": later + pd.Timedelta(days=1)}))  # fmt: skip
    assert table.shape[0] == 1
    row = table.iloc[0]
    assert list(row[["device", "version", "driver_evidence"]]) == ["hpsa0", "5.5.0.58", "proc"]
    assert (row.firmware, row.firmware_before) == ("5.22", "3.04")
    assert row.firmware_read == later


def test_two_names_of_one_device_are_one_only_where_there_is_one_of_each():
    listed = {"device": "vmhba0", "evidence": "adapter_list", "version": None}
    read = {"device": "hpsa0", "firmware": "3.04"}
    table = device_table(fleet(listed, read))
    assert list(table["device"]) == ["vmhba0 (hpsa0)"]
    table = device_table(fleet(listed, {**listed, "device": "vmhba1"}, read))
    assert list(table["device"]) == ["hpsa0", "vmhba0", "vmhba1"]
    assert list(table["firmware"].isna()) == [False, True, True]
    # Another host's device is another device.
    table = device_table(fleet(listed, {**read, "host": "b"}))
    assert list(zip(table["host"], table["device"], strict=True)) == [("a", "vmhba0"), ("b", "hpsa0")]


def test_a_firmware_of_no_device_and_a_host_without_any():
    table = device_table(fleet({"firmware": "1.0"}, {"module": "usb"}))
    assert list(table["module"]) == ["hpsa"]
    assert table["device"].isna().all()
    assert device_table(fleet()).empty


def test_firmware_that_nobody_dated_is_told_all_the_same():
    table = device_table(fleet({"device": "hpsa0", "firmware": "3.04", "observed_at": None}))
    assert list(table["firmware"]) == ["3.04"] and table["firmware_read"].isna().all()
    assert table["firmware_read"].dtype == "datetime64[ns, UTC]"
