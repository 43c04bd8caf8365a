"""Host-days at risk by loaded driver version.

One row is a stretch of one boot that evidence covers, with one version loaded. Numerator and denominator obey the same
rule: time nobody watched is not counted, and neither is a crash in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from psodlib import schema
from psodlib.errors import InputError, known_name
from psodlib.evidence.versions import normalise
from psodlib.schema import Tables
from psodlib.triage.boots import loaded_versions

UPTIME_BANDS = (7.0, 15.0, 30.0, 60.0, 120.0)  # days; the inner edges of the bands 0-7-15-30-60-120-∞

# Heartbeats come hourly, so a crash within two hours of the last one belongs to the stretch which that one ends.
REACH = pd.Timedelta(hours=2)
# A host may stand at its purple screen for a day; in a longer silence between two boots others may have gone unseen.
DOWN = pd.Timedelta(days=1)
# A crash this soon (in uptime) after the one before is the same boot loop, not a second event.
STORM = pd.Timedelta(hours=1)

# Days: a nanosecond, and more than any fleet; beyond them a division over- or underflows.
SHORTEST, LONGEST = 1e-14, 1e12

_TAIL = re.compile(r"-\d{1,4}(?:OEM|vmw|DELL|EMU)")  # 5.5.0.58-1OEM.550.0.0.1331820

Exposures = pd.DataFrame | Iterable[pd.DataFrame]  # a table, or the parts of a fleet too large for one
Floats = np.ndarray[Any, np.dtype[np.float64]]
Whole = np.ndarray[Any, np.dtype[np.int64]]
COUNTS = ("crashes", "unknown_crashes", "other_crashes")


def exposure(fleet: Tables, module: str | None = None) -> pd.DataFrame:
    """Host-days at risk and crashes, one row a stretch of a boot with one loaded version of a driver.

    Parameters
    ----------
    fleet : Fleet
        Without ``coverage`` each boot is taken as watched for its last ``observed`` span.
    module : str, optional
        Bare (``hpsa``); default: of the drivers loaded in two versions or more the one that caused most crashes.

    Returns
    -------
    pandas.DataFrame
        The columns of ``schema.EXPOSURE``, by host and start; no ratio uses rows whose ``version`` is ``NA``. ``attrs``:
        ``module``, ``why`` it is this one, the ``runners_up``, ``known_issues`` (version to the ids that its crashes matched),
        and what the counts leave out: ``collapsed_crashes`` (repeats in a boot loop), ``unplaced_crashes`` (in time nobody
        watched), ``pending_days`` (while another version waited for the next boot).

    Raises
    ------
    InputError
        A module that the evidence does not know; the nearest names are said.

    Notes
    -----
    A stretch ends with its boot or where a gap of the evidence begins; then ``end_reason`` is ``unknown``. Gaps are in neither
    numerator nor denominator. The version is the loaded one; an installed VIB counts from the next boot. Planned reboots
    censor. Hosts that never crashed stay in. ``esxi_build`` is the boot's (where none is known, the host's newest), ``model``
    the host's newest.

    A crash at most 2 h after the last sign of life of its own boot extends the stretch to the crash, for heartbeats are
    hourly: with one gap a host in 18 months the rate is too high by 0.015 %.

    Crashes of the driver with less than 1 h of uptime between them are one event (boot loops), unless an unknown end or a
    silence of more than a day lies between. A crash that a person asked for is in ``other_crashes``; one of which only a
    core dump's trace is left is unknown and stands at the last sign of life.
    """
    if isinstance(fleet, pd.DataFrame):
        raise InputError("found one table; expected the fleet with all of them: exposure(fleet)")
    choice = choose_module(fleet, module)
    out = of_module(fleet, choice["module"])
    out.attrs |= choice
    return schema.told_first(out)


def of_module(fleet: Tables, module: str) -> pd.DataFrame:
    """``exposure`` of a driver whose name was checked."""
    stretches, crashes = _crashes_in_stretches(fleet, module)
    counted = crashes[(crashes["stretch"] >= 0) & ~crashes["collapsed"]]
    for column in COUNTS:
        rows = counted.loc[counted["cause"] == column, "stretch"].to_numpy()
        stretches[column] = np.bincount(rows, minlength=len(stretches))
    stretches["host_days"] = in_days(stretches["end"] - stretches["start"])
    table = _described(stretches[stretches["host_days"] > 0], fleet, module)
    out = schema.conform("exposure", table.drop(columns=["pending", "crashed", "boot_end"]))
    pending = in_days(table["end"] - table[["start", "pending"]].max(axis=1, skipna=False)).clip(lower=0)
    out.attrs = {
        "module": module, "known_issues": _matched_issues(fleet, module), "unplaced": _unplaced(crashes, fleet, module),
        "collapsed_crashes": int(crashes["collapsed"].sum()), "unplaced_crashes": int((crashes["stretch"] < 0).sum()),
        "pending_days": float(pending.sum()),
    }  # fmt: skip
    return out


def _unplaced(crashes: pd.DataFrame, fleet: Tables, module: str) -> list[list[Any]]:
    # [host, version, time, known to be the driver's] of crashes of a known version that no watched stretch holds: their last
    # logs may be lost with them, and then leaving them out favours the version that loses them.
    lost = crashes[(crashes["stretch"] < 0) & ~crashes["collapsed"] & crashes["host"].notna()]
    lost = lost[lost["cause"].isin(COUNTS[:2])]
    if lost.empty:
        return []
    told = fleet.crashes.dropna(subset=["crash_id"]).drop_duplicates("crash_id").set_index("crash_id")["driver_version"]
    loaded = loaded_versions(fleet.uptimes, fleet.drivers, module).drop_duplicates(["host", "boot"])
    of_boot = lost.merge(loaded[["host", "boot", "version"]], how="left")["version"].set_axis(lost.index)
    own = lost["crash_id"].map(told).where(lost["cause"] == "crashes")
    lost = lost.assign(version=own.astype("string").fillna(of_boot.astype("string"))).dropna(subset=["version"])
    rows = zip(lost["host"], lost["version"], lost["time"], lost["cause"] == "crashes", strict=True)
    return [[str(host), str(version), "" if pd.isna(time) else str(time), sure] for host, version, time, sure in rows]


def known_modules(fleet: Tables) -> pd.DataFrame:
    """``module``, ``crashes`` laid to it and ``versions`` seen of it, of every module that a crash or a driver list names."""
    meant = fleet.crashes["deliberate"].fillna(False).astype(bool)
    guilty = fleet.crashes["guilty_module"]
    laid = guilty[~meant].dropna().value_counts().reindex(guilty.dropna().unique(), fill_value=0)
    loaded = fleet.drivers[fleet.drivers["state"].astype("string").isin(["loaded", "installed"])]
    versions = loaded.dropna(subset=["version"]).groupby("module", observed=True)["version"].nunique()
    table = pd.DataFrame({"crashes": laid, "versions": versions}).fillna(0).astype(int)
    return table.rename_axis("module").reset_index()


def choose_module(fleet: Tables, module: str | None = None) -> dict[str, Any]:
    """The driver to look at, as ``module``, ``why`` and ``runners_up``; InputError for one the evidence does not know."""
    table = known_modules(fleet)
    if module is not None:
        listed = getattr(fleet, "modules", None)
        others = [] if listed is None else listed["module"].dropna().unique()
        names = dict.fromkeys([*table["module"], *sorted(others)])
        name = known_name(module, names, "module") if names else module
        return {"module": name, "why": "", "runners_up": []}
    for at in table.index[(table["versions"] > 1) & (table["crashes"] > 0)]:  # installed is not loaded
        ran = loaded_versions(fleet.uptimes, fleet.drivers, str(table.loc[at, "module"]))["version"]
        table.loc[at, "versions"] = ran.nunique()
    table["choice"] = table["versions"] > 1
    order = ["choice", "crashes", "versions", "module"]
    table = table.sort_values(order, ascending=[False, False, False, True], kind="stable")
    if table.empty:
        return {"module": "", "why": "the evidence names no driver", "runners_up": []}
    first, rest = table.iloc[0], table.iloc[1:]
    crashes, versions = int(first["crashes"]), int(first["versions"])
    said = f"{crashes} crash{'es' * (crashes != 1)}, {versions} version{'s' * (versions != 1)}"
    several = "among the drivers of which two versions or more were seen"
    among = several if first["choice"] else "of all; no driver was seen in two versions"
    runners_up = rest.loc[rest["crashes"] > 0, ["module", "crashes", "versions"]].head(3).values.tolist()
    equals = int(((rest["crashes"] == first["crashes"]) & (rest["choice"] == first["choice"])).sum())
    who = f"it and {equals} other{'s' * (equals > 1)}" if equals else "it"
    why = f"{who} caused most crashes ({said}) {among}"
    return {"module": str(first["module"]), "why": why, "runners_up": runners_up}


def known_version(name: Any, versions: Iterable[Any]) -> Any:
    """The one of these versions that is meant, in whatever form it was written; InputError with the nearest ones."""
    known, short = list(versions), normalise(str(name))
    meant = [one for one in known if one == name] or [one for one in known if short is not None and str(one) == short]
    return meant[0] if len(meant) == 1 else known_name(name, known, "host-days with version")


def _matched_issues(fleet: Tables, module: str) -> dict[str, list[str]]:
    # By version, the known issues that crashes of this module matched while it was loaded.
    if "known_issues" not in fleet.crashes:
        return {}
    mine = fleet.crashes[fleet.crashes["guilty_module"].eq(module).fillna(False).astype(bool)]
    ids = mine.dropna(subset=["driver_version"]).set_index("driver_version")["known_issues"].dropna()
    ids = ids.str.split(";").explode()
    return {str(version): sorted(set(words)) for version, words in ids[ids.ne("")].groupby(level=0)}


def unplaced_crashes(fleet: Tables, module: str = "hpsa") -> pd.DataFrame:
    """Crashes that no watched stretch holds, so that no rate counts them."""
    stretches, crashes = _crashes_in_stretches(fleet, module)
    lost = crashes.loc[crashes["stretch"] < 0, ["crash_id", "host", "time", "guilty_module", "guilt"]]
    dead = ~lost["host"].isin(stretches["host"].dropna())
    words = ["no time of its own", "host never seen alive"]
    why = np.select([lost["time"].isna(), dead], words, "in a gap of the evidence")
    return lost.assign(why=pd.array(why, dtype="string")).sort_values(["host", "time"]).reset_index(drop=True)


def _crashes_in_stretches(fleet: Tables, module: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    # Stretches (0.. in order) and crashes with the number of the stretch each one ended, or -1.
    crashes = _crashes(fleet, module)
    stretches = _stretches(fleet, crashes)
    # The stretch that was running, or had ended at most REACH before, in the boot that the crash ended.
    joined = last_before(crashes[["host", "time", "boot"]], "time", stretches.reset_index(names="stretch"), "start")
    same = joined["boot"].isna() | joined["boot_of_other"].isna() | (joined["boot"] == joined["boot_of_other"])
    near = joined["time"] <= joined["end"] + REACH
    crashes["stretch"] = joined["stretch"].where(same & near).fillna(-1).to_numpy(dtype=np.int64)
    found = crashes[crashes["stretch"] >= 0]
    last = found.groupby("stretch")["time"].max()
    stretches["crashed"] = stretches.index.isin(last.index)
    crashed_at = last.reindex(stretches.index).astype(stretches["end"].dtype)
    stretches["end"] = stretches["end"].mask(crashed_at > stretches["end"], crashed_at)
    # A stretch without length is the crash itself seen in a gap: it says nothing of the time before it.
    instant = stretches.index[stretches["end"] <= stretches["start"]]
    crashes.loc[crashes["stretch"].isin(instant), "stretch"] = -1
    return stretches, crashes


def _crashes(fleet: Tables, module: str) -> pd.DataFrame:
    # host, time, boot, cause, collapsed: what each crash is to this module.
    table = fleet.crashes[["crash_id", "host", "time", "guilty_module", "guilt", "deliberate"]]
    ended = fleet.uptimes[["crash_id", "boot", "end"]].dropna(subset=["crash_id"]).drop_duplicates("crash_id")
    table = table.merge(ended, on="crash_id", how="left")
    # A boot that ended in a crash of which only the fact is left (a dump was found): nobody knows whose it was.
    bare = fleet.uptimes[(fleet.uptimes["end_reason"] == "crash") & fleet.uptimes["crash_id"].isna()]
    if len(bare):
        table = pd.concat([table, bare[["host", "boot", "end"]].assign(guilt="none")], ignore_index=True)
    table["time"] = table["time"].fillna(table["end"])
    meant = table["deliberate"].fillna(False).astype(bool)
    mine = (table["guilty_module"] == module).fillna(False).astype(bool) & ~meant
    unknown = (table["guilt"].isna() | (table["guilt"] == "none")) & table["guilty_module"].isna() & ~meant
    table["cause"] = np.select([mine, unknown], ["crashes", "unknown_crashes"], "other_crashes")
    table = table.sort_values(["host", "time"], kind="stable").reset_index(drop=True)
    # A crash within STORM of uptime after the one before it on the same host repeats it; an unknown one may repeat either kind.
    clock, collapsed = _uptime_clock(table, fleet.uptimes), pd.Series(False, index=table.index)
    for before, cause in ((["crashes"], "crashes"), (["crashes", "unknown_crashes"], "unknown_crashes")):
        rows = table["cause"].isin(before)
        soon = clock[rows].groupby(table.loc[rows, "host"]).diff() < STORM
        collapsed |= soon.reindex(table.index, fill_value=False) & (table["cause"] == cause)
    return table.assign(collapsed=collapsed).drop(columns="end")


def _uptime_clock(crashes: pd.DataFrame, uptimes: pd.DataFrame) -> pd.Series:
    # Total uptime of the host until each crash: the time a host is down or rebooting is not time between crashes. Where
    # it is not known how long a host was up, it counts as up for long enough to tell two crashes apart.
    boots = uptimes.loc[uptimes["boot"].notna() & uptimes["host"].notna(), ["host", "boot", "end"]].sort_values("boot")
    unseen = boots["end"].isna() | (boots.groupby("host")["boot"].shift(-1) - boots["end"] > DOWN)
    life = (boots["end"] - boots["boot"]).fillna(pd.Timedelta(0))
    life += pd.to_timedelta(unseen * STORM.total_seconds(), unit="s")
    boots["before"] = life.groupby(boots["host"]).cumsum() - life
    joined = last_before(crashes[["host", "time"]], "time", boots, "boot")
    until = joined["time"].mask(joined["time"] > joined["end"], joined["end"])
    until = until.mask(joined["time"] > joined["end"] + REACH)  # not this boot's crash, and the own boot is unknown
    return joined["before"] + (until - joined["boot"])


def last_before(rows: pd.DataFrame, at: str, others: pd.DataFrame, when: str) -> pd.DataFrame:
    """Beside each row the last one of the same host among the others that is not later; index as ``rows``."""
    timed = rows[rows[at].notna() & rows["host"].notna()].sort_values(at).rename_axis("row").reset_index()
    named: Any = {"left_on": at, "right_on": when, "by": "host", "suffixes": ("", "_of_other")}
    joined = pd.merge_asof(timed, others.sort_values(when), **named)
    return joined.set_index("row").reindex(rows.index)


def _stretches(fleet: Tables, crashes: pd.DataFrame) -> pd.DataFrame:
    coverage: pd.DataFrame | None = getattr(fleet, "coverage", None)
    if coverage is None or coverage.empty:
        uptimes = fleet.uptimes
        coverage = uptimes[["host", "boot", "end"]].assign(start=uptimes["end"] - uptimes["observed"])
    coverage = coverage[["host", "boot", "start", "end"]].dropna(subset=["host", "start", "end"])
    # A boot that crashed before its first heartbeat has no stretch, yet its boot and its crash were both seen.
    short = crashes[(crashes["time"] - crashes["boot"] <= REACH) & crashes["boot"].notna()]
    seen = pd.MultiIndex.from_frame(coverage[["host", "boot"]])
    short = short[~pd.MultiIndex.from_frame(short[["host", "boot"]]).isin(seen)]
    extra = short.assign(start=short["boot"], end=short["boot"])[["host", "boot", "start", "end"]]
    both = pd.concat([coverage, extra]) if len(extra) else coverage
    return both.sort_values(["host", "start"], kind="stable").reset_index(drop=True)


def _described(stretches: pd.DataFrame, fleet: Tables, module: str) -> pd.DataFrame:
    # What was loaded, how the stretch ended, what the host is.
    loaded = loaded_versions(fleet.uptimes, fleet.drivers, module)[["host", "boot", "version", "pending"]]
    ends = fleet.uptimes[["host", "boot", "end", "end_reason"]].rename(columns={"end": "boot_end"})
    table = stretches.merge(loaded.drop_duplicates(["host", "boot"]), on=["host", "boot"], how="left")
    table = table.merge(ends.drop_duplicates(["host", "boot"]), on=["host", "boot"], how="left")
    reason = table["end_reason"].astype(object).where((table["boot_end"] - table["end"]).abs() <= REACH, "unknown")
    table["end_reason"] = reason.where(~table["crashed"], "crash").fillna("unknown")
    table["uptime_start"] = table["start"] - table["boot"]
    known = [column for column in ("model", "esxi_build", "cluster") if column in fleet.hosts]
    table = table.merge(fleet.hosts[["host", *known]].drop_duplicates("host"), on="host", how="left")
    # An upgraded host's time and crashes stand under the build that it ran then. The host's newest build is said only of
    # hosts of which no boot's build is known.
    coverage = getattr(fleet, "coverage", None)
    if coverage is not None and "esxi_build" in coverage:
        builds = coverage.drop_duplicates(["host", "boot"])[["host", "boot", "esxi_build"]]
        told = set(builds.loc[builds["esxi_build"].notna(), "host"])
        newest = table["esxi_build"] if "esxi_build" in table else pd.Series(pd.NA, index=table.index, dtype="string")
        ran = table[["host", "boot"]].merge(builds, on=["host", "boot"], how="left")["esxi_build"].set_axis(table.index)
        table["esxi_build"] = ran.astype("string").where(table["host"].isin(told), newest)
    return table.assign(module=module)


def parts_of(exposure: Any) -> Iterable[Any]:
    """The tables of an exposure: a table is a fleet of one part."""
    return exposure if isinstance(exposure, Iterable) and not isinstance(exposure, pd.DataFrame) else [exposure]


def check_columns(table: pd.DataFrame, wanted: Iterable[str]) -> None:
    """Refuse to group by a column that is not there."""
    for name in wanted:
        if name not in table:
            raise InputError(f"the table has no column {name}; group by one of {', '.join(map(str, table.columns))}")


def check_exposure(table: pd.DataFrame) -> pd.DataFrame:
    """The table ready for counting, or the reason why it cannot give a rate."""
    if not isinstance(table, pd.DataFrame):
        raise InputError(f"found a {type(table).__name__}, expected an exposure table; make one with exposure(fleet)")
    if "host_days" not in table and {"crashes", "crash_id", "version"} & set(table):
        raise InputError(
            "crashes without the host-days at risk beside them are no rate and rank no version; give "
            "exposure(fleet), which holds the hosts that did not crash"
            if {"crashes", "crash_id"} & set(table)
            else "a snapshot of versions has no time at risk, and applying it backwards lays past crashes on today's "
            "version; give exposure(fleet)"
        )
    missing = [column for column in ("host", "version", "host_days", "crashes") if column not in table]
    if missing:
        raise InputError(f"the exposure table lacks {', '.join(missing)}; make one with exposure(fleet)")
    twins = table.columns[table.columns.duplicated()]
    if len(twins):
        raise InputError(f"the exposure table has two columns named {twins[0]}; leave one")
    # an index that is named as a column is (set_index("host", drop=False)) would make both ambiguous
    out = table.assign(version=_versions(table))
    out.index = out.index.set_names([None] * out.index.nlevels)
    _refuse(table, "host", table["host"].isna(), "the name of a host")
    for column in ("host_days", *COUNTS[:2]):
        out[column] = _numbers(table, column) if column in table else 0.0
    for column in ("start", "end", "uptime_start"):
        if column in table:
            out[column] = _times(table, column)
    if "start" in out and "end" in out:
        _refuse(table, "end", (out["end"] < out["start"]).fillna(False), "a time not before its start")
    timeless = (out["crashes"] + out["unknown_crashes"] > 0) & (out["host_days"] == 0)
    _refuse(table, "host_days", timeless, "more, for a crash in 0 host-days ended no time at risk")
    return out


def _versions(table: pd.DataFrame) -> pd.Series[Any]:
    # Without a package's tail, so that one version is one name. Numbers have lost their last zeros: they are no versions.
    found = table["version"]
    if pd.api.types.is_float_dtype(found) and found.notna().any():
        number = f"column version holds numbers such as {found.dropna().iloc[0]:g}"
        raise InputError(f"{number}; a version is text like 5.5.0.50: read the table with version as text (dtype=str)")
    names = found.dropna().unique()
    module = table["module"].iloc[0] if "module" in table and len(table) else None
    tailed = {name: normalise(name, module) for name in names if isinstance(name, str) and _TAIL.search(name)}
    return found.replace({name: short for name, short in tailed.items() if short}) if tailed else found


def _refuse(table: pd.DataFrame, column: str, bad: pd.Series[Any], expected: str) -> None:
    # Say the first bad row by its label, as the caller sees it.
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise InputError(f"row {table.index[at]}: {column} is {table[column].iloc[at]}; expected {expected}")


def _numbers(table: pd.DataFrame, column: str) -> pd.Series[Any]:
    # Host-days or counts as plain numbers. Only an unknown number of unknown crashes is as good as none.
    found = table[column]
    if not pd.api.types.is_numeric_dtype(found):
        timed = found.map(lambda value: isinstance(value, (pd.Timestamp, pd.Timedelta))).astype(bool)
        found = found.astype(object).mask(timed, None)
    number = pd.to_numeric(found, errors="coerce").astype("float64")
    if column == "unknown_crashes":
        number = number.where(table[column].notna(), 0.0)
    fits = (number == 0) | ((number >= SHORTEST) & (number <= LONGEST))
    days = column == "host_days"
    expected = "days as a plain number, not negative, from a nanosecond up" if days else "a whole number, not negative"
    _refuse(table, column, ~fits if days else ~(fits & (number == number.round())), expected)
    return number


def _times(table: pd.DataFrame, column: str) -> pd.Series[Any]:
    # UTC times, or the uptime at the start as a span.
    span = column == "uptime_start"
    text = pd.api.types.is_string_dtype(table[column]) or table[column].dtype == object
    try:
        read: pd.Series[Any] = (
            pd.to_timedelta(table[column], errors="coerce")
            if span
            else pd.to_datetime(table[column], utc=True, errors="coerce", format="mixed" if text else None)
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"column {column} cannot be read as times: {error}") from error
    expected = "a span such as 3 days 04:00:00" if span else "a time such as 2014-05-31T04:00Z"
    _refuse(table, column, read.isna() & table[column].notna(), expected)
    return read


def in_days(spans: pd.Series[Any]) -> pd.Series[Any]:
    """Spans of time as numbers of days; NaN where unknown."""
    return pd.Series(spans.dt.total_seconds() / 86400)


def split_stretches(table: pd.DataFrame, *, uptime: bool = False, quarter: bool = False) -> pd.DataFrame:
    """Cut stretches where the uptime band or the calendar quarter changes."""
    origin = table["start"].min()
    spans = (table["start"] - origin, table["end"] - origin, table["uptime_start"])
    start, end, age = (in_days(span).to_numpy(dtype=float) for span in spans)
    bands = np.asarray(UPTIME_BANDS if uptime else ())
    quarters, before = _quarter_edges(table, origin) if quarter else (np.empty(0), 0)
    whole = (np.arange(len(start)), start, end)
    rows, begins, ends = _cut(_cut(whole, quarters, np.zeros(len(start))), bands, start - age)
    span = (end - start)[rows]
    share = np.divide(ends - begins, span, out=np.ones_like(span), where=span > 0)
    middle = (begins + ends) / 2
    last = np.append(rows[1:] != rows[:-1], True) if len(rows) else np.empty(0, dtype=bool)
    pieces = {"row": rows, "host_days": table["host_days"].to_numpy(dtype=float)[rows] * share, "last": last}
    if uptime:
        pieces["uptime"] = _code(bands, middle - (start - age)[rows])
    if quarter:
        code = _code(quarters, middle)
        pieces["quarter"] = np.where(code < 0, code, code + before)  # 4 * year + quarter - 1, the same in every part
    return pd.DataFrame(pieces, copy=False)


def _cut(pieces: tuple[Whole, Floats, Floats], edges: Floats, shift: Floats) -> tuple[Whole, Floats, Floats]:
    # Row, begin and end of every piece, cut at the edges strictly inside it; edge k stands at `edges[k] + shift[row]`. A
    # row of unknown start or age is not cut: NaN sorts behind every edge.
    row, begin, end = pieces
    if not len(edges):
        return pieces
    away = shift[row]
    first = np.searchsorted(edges, begin - away, side="right")
    often = 1 + np.maximum(np.searchsorted(edges, end - away, side="left") - first, 0)
    often[~np.isfinite(begin - away) | ~np.isfinite(end)] = 1
    piece = np.repeat(np.arange(len(row)), often)
    nth = np.arange(len(piece)) - np.repeat(np.cumsum(often) - often, often)
    edge = edges[np.clip(first[piece] + nth - 1, 0, len(edges) - 1)] + away[piece]
    begins = np.where(nth == 0, begin[piece], edge)
    ends = np.where(nth == often[piece] - 1, end[piece], np.append(begins[1:], 0.0)[: len(piece)])
    return row[piece], begins, ends


def _quarter_edges(table: pd.DataFrame, origin: pd.Timestamp) -> tuple[Floats, int]:
    # Starts of quarters in days since the origin, and the number of the quarter before the first of them.
    if pd.isna(origin):
        return np.empty(0), 0
    first = origin.tz_localize(None).to_period("Q")
    starts = pd.period_range(first, table["end"].max().tz_localize(None), freq="Q").to_timestamp()
    edges = ((starts.tz_localize("UTC") - origin) / pd.Timedelta(days=1)).to_numpy(dtype=float)
    return edges, 4 * first.year + first.quarter - 2


def _code(edges: Floats, value: Floats) -> Whole:
    return np.where(np.isfinite(value), np.searchsorted(edges, value, side="right"), -1)
