"""The timeline of one crash: its own host's facts, in order, within the window."""

import pandas as pd
import pytest
from views import hand_made

from psodlib.errors import InputError
from psodlib.fleet import Fleet
from psodlib.triage.timeline import incident_timeline


@pytest.fixture
def fleet() -> Fleet:
    return hand_made.fleet()


def test_a_timeline_holds_one_hosts_facts_in_order(fleet):
    crash = fleet.crashes.iloc[2]
    table = incident_timeline(fleet, crash["crash_id"])
    (row,) = table[table["what"] == "crash"].itertuples()
    assert (row.time, row.sha256, row.line, row.source) == tuple(crash[["time", "sha256", "line", "source"]])
    assert table["time"].dropna().is_monotonic_increasing
    assert set(table["lane"]) == {"boot", "watched", "driver", "down", "crash"}
    boots = table[table["lane"] == "boot"]
    assert len(boots) == (fleet.uptimes["host"] == crash["host"]).sum() == 2


def test_the_window_is_as_wide_as_asked(fleet):
    crash = fleet.crashes.iloc[2]
    near, far = (incident_timeline(fleet, crash["crash_id"], days=days) for days in (1, 1000))
    assert len(near) <= len(far)
    boot = fleet.uptimes.loc[fleet.uptimes["crash_id"] == crash["crash_id"], "boot"].iloc[0]
    loaded = near[(near["lane"] == "driver") & (near["time"] == boot)]
    assert list(loaded["what"]) == ["hpsa 5.5.0.58 loaded"]  # told however long the boot that crashed had run
    moments = near.drop(index=loaded.index).loc[near["end"].isna() & near["time"].notna(), "time"]
    assert ((moments - crash["time"]).abs() <= pd.Timedelta(days=1)).all()


def test_a_crash_without_a_host_stands_alone(fleet):
    lost = Fleet(**{**fleet.tables, "crashes": fleet.crashes.assign(host=pd.NA)}, coverage=fleet.coverage)
    assert list(incident_timeline(lost, fleet.crashes["crash_id"].iloc[0])["lane"]) == ["crash"]


def test_an_unknown_crash_is_refused(fleet):
    with pytest.raises(InputError, match="no crash 'nope'"):
        incident_timeline(fleet, "nope")
