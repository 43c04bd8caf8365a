"""From the answer to the roll-out: waves of hosts, drawn at random, with what each can show; and the file that people edit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import pandas as pd

from psodlib.errors import InputError, in_words, known_name
from psodlib.evidence.versions import normalise
from psodlib.risk.canary import WEEK, ratio_seen
from psodlib.risk.cautions import counted, listed
from psodlib.risk.comparison import prior_rate
from psodlib.risk.exposure import exposure
from psodlib.risk.rates import DAYS_PER_YEAR
from psodlib.schema import Cell
from psodlib.triage.changes import SILENT

SHARES = (0.05, 0.2, 0.5, 1.0)  # of the hosts that have been moved when each wave is done
WATCHED_WEEKS = 4  # after each wave, before the next
HEADROOM = ("headroom", "ha_headroom", "spare_hosts")  # inventory columns: hosts that a cluster can do without
COLUMNS = ["wave", "week", "turn", "host", "cluster", "model", "from_version", "headroom"]
LARGEST = 16_000_000  # letters of a plan's file


@dataclass(frozen=True, repr=False)
class RolloutPlan(Cell):
    """Who moves when. ``waves`` has one row a host; ``learn`` one row a wave: what could be known when it has been watched."""

    module: str
    to: str
    waves: pd.DataFrame  # COLUMNS; ``week`` is the first day of the week; hosts of one wave and turn may move at once
    left_out: pd.DataFrame  # host, why
    notes: tuple[str, ...]
    rate: float  # crashes of the driver per host-day on the versions now
    seed: int
    watched_weeks: int = WATCHED_WEEKS
    accepted: tuple[str, ...] = ()  # signatures that a person has looked at and found harmless
    learn: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __str__(self) -> str:
        said = self.learn["says"] if len(self.learn) else ()
        head = f"{self.module} to {self.to}: {counted(len(self.waves), 'host')} in {counted(len(self.learn), 'wave')}."
        return "\n".join([head, *(f"- {line}" for line in (*said, *self.notes))])

    @property
    def start(self) -> pd.Timestamp:
        """First day of the first wave."""
        return pd.Timestamp(self.waves["week"].min())

    def to_toml(self) -> str:
        """The plan as text that a person can edit and ``read_plan`` reads."""
        bare = "".join(letter if letter.isprintable() else "?" for letter in f"{self.module} {self.to}")
        lines = [
            f"# Roll-out of {bare}. Edit freely: move hosts between waves, change weeks and turns.",
            "# Hosts of one wave and turn may move at once, so no two of them may be of one cluster.",
            "# A signature that was looked at and found harmless goes into accepted.",
            f"module = {_quoted(self.module)}", f"to = {_quoted(self.to)}", f"watched_weeks = {self.watched_weeks}", f"seed = {self.seed}",
            f"crashes_a_host_year = {self.rate * DAYS_PER_YEAR!r}",
            f"accepted = [{', '.join(map(_quoted, self.accepted))}]",
        ]  # fmt: skip
        for (_, week), rows in self.waves.rename(columns={"from_version": "from"}).groupby(["wave", "week"]):
            lines += ["", "[[wave]]", f"week = {week:%Y-%m-%d}", "hosts = ["]
            for row in rows[["host", "turn", "from", "cluster", "model", "headroom"]].to_dict("records"):
                told = [f"{name} = {_quoted(value)}" for name, value in row.items() if not pd.isna(value)]
                lines.append(f"  {{ {', '.join(told)} }},")
            lines.append("]")
        for host, why in self.left_out.itertuples(index=False):
            lines += ["", "[[left_out]]", f"host = {_quoted(host)}", f"why = {_quoted(why)}"]
        return "\n".join([*lines, ""])

    def save(self, file: str | Path) -> Path:
        """Write ``to_toml`` to a file."""
        try:
            Path(file).write_text(self.to_toml(), encoding="utf-8", newline="\n")
        except OSError as error:
            raise InputError(f"{file}: the plan cannot be written there ({in_words(error)})") from error
        return Path(file)


def plan_rollout(
    fleet: Any, module: str, to: str, *, start: Any = None, shares: Sequence[float] = SHARES, weeks: int = WATCHED_WEEKS,
    hosts: Iterable[str] | None = None, seed: int = 7,
) -> RolloutPlan:  # fmt: skip
    """Waves of hosts that move to a driver version, the first ones drawn at random, with what each wave could show.

    Parameters
    ----------
    fleet : Fleet
        Its ``hosts`` may tell how many hosts a cluster can do without (``headroom``, ``ha_headroom`` or ``spare_hosts``).
    module, to : str
        The module and the version to move it to, which may be one that nobody runs yet.
    start : str or datetime, optional
        First day of the first wave; default: the Monday after the fleet's newest sign of life.
    shares : sequence of float
        Share of the hosts that has been moved when each wave is done, rising to 1.
    weeks : int
        How long each wave is watched before the next.
    hosts : iterable of str, optional
        Only these; default: all that run another version.
    seed : int
        Of the draw.

    Returns
    -------
    RolloutPlan
        ``waves``: one row a host; those of one wave and turn may move at once, never two of a cluster. ``learn``: one row a
        wave, with ``ratio_seen``, the least ratio of the rates that would be seen with 80 % probability. ``left_out``: who
        does not move, and why. ``save(file)`` writes it as TOML to edit, which ``watch_rollout`` reads.

    Raises
    ------
    InputError
        ``to`` is no version, an unknown module or host, shares that do not rise to 1, or no host to move.

    Notes
    -----
    Hosts are drawn systematically within model and cluster, so every wave holds of each its share and the new version
    does not go with a kind of hardware. ``ratio_seen`` is of one exact two-sided test at 5 %, hosts differing with variance
    0.5; the weekly watch, which may be looked at every week, needs somewhat more.
    """
    wanted = version_of(to, module)
    rising = [float(share) for share in shares]
    if not rising or rising != sorted(set(rising)) or not rising[0] > 0 or rising[-1] != 1:
        raise InputError(f"shares is {list(shares)}; expected rising shares that end with 1, as 0.05, 0.2, 0.5, 1")
    for name, value, least in (("weeks", weeks, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or not least <= value <= 2**31:
            raise InputError(f"{name} is {value!r}; expected a whole number from {least}")
    now = fleet.now(module)
    if hosts is not None:
        now = now[now["host"].isin([known_name(name, fleet.hosts["host"], "host") for name in hosts])]
    named = by_name(fleet.hosts).reindex(now["host"])
    spare = next((name for name in HEADROOM if name in named), "headroom")
    named = named.reindex(columns=["last_seen", "cluster", "model", spare])
    table = pd.DataFrame({
        **{name: now[name].astype("string").to_numpy() for name in ("host", "version", "pending")},
        "last_seen": named["last_seen"].to_numpy(), **{name: named[name].astype("string").to_numpy() for name in ("cluster", "model")},
        "headroom": pd.to_numeric(named[spare], errors="coerce").round().astype("Int64").to_numpy(),
    }).rename(columns={"version": "from_version"})  # fmt: skip
    why = _kept_back(table, wanted, fleet.hosts)
    moving = table[why.eq("")].reset_index(drop=True)
    if moving.empty:
        reasons = "; ".join(f"{n} {word}" for word, n in why.value_counts().items()) or "there is no host"
        raise InputError(f"no host can move to {module} {wanted} ({reasons}); give another version or more evidence")
    if start is not None:
        first = day_named("start", start).normalize()
    elif pd.isna(newest := fleet.hosts["last_seen"].max()):
        raise InputError("the fleet has no sign of life with a time; say with start when the first wave begins")
    else:
        first = newest.normalize() + pd.Timedelta(days=7 - newest.weekday())
    waves = draw_waves(moving, shares, seed)
    waves["week"] = first + (waves["wave"] - 1) * weeks * WEEK
    # One host of a cluster a turn; hosts of no known cluster are taken as one cluster.
    waves["turn"] = waves.groupby(["wave", waves["cluster"].fillna("")], sort=False).cumcount() + 1
    left = pd.DataFrame({"host": table["host"], "why": why})[why.ne("") & why.ne(_THERE)].reset_index(drop=True)
    old = exposure(fleet, module)
    plan = RolloutPlan(
        module, wanted, waves.sort_values(["wave", "turn", "host"], ignore_index=True)[COLUMNS], left,
        tuple(_notes(table, waves, left, wanted, module)), prior_rate(old[old["version"].ne(wanted).fillna(True)]), seed, weeks,
    )  # fmt: skip
    return replace(plan, learn=learnt(plan))


def version_of(to: Any, module: str) -> str:
    """The version in the library's own form; InputError where it is none."""
    found = normalise(to, module) if isinstance(to, str) else None
    if found is None or not any(letter.isdigit() for letter in found):
        raise InputError(f"to is {to!r}; expected a version of {module}, as 5.5.0.60")
    return found


def day_named(name: str, value: Any) -> pd.Timestamp:
    """A day that a caller gave, in UTC; InputError where it is none."""
    try:
        day = pd.Timestamp(value)
        return day.tz_localize("UTC") if day.tzinfo is None else day.tz_convert("UTC")
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} is {value!r}; expected a day such as 2026-11-30 ({error})") from error


def by_name(hosts: pd.DataFrame) -> pd.DataFrame:
    """What is known of each host, by its name."""
    return hosts.dropna(subset=["host"]).drop_duplicates("host").set_index("host")


_THERE = "runs it already"


def _kept_back(table: pd.DataFrame, to: str, hosts: pd.DataFrame) -> pd.Series[str]:
    # Why a host does not move; "" for those that do.
    newest = hosts["last_seen"].max()
    alive = hosts[newest - hosts["last_seen"] <= SILENT]
    others = alive["cluster"].value_counts() if "cluster" in alive else pd.Series(dtype="int64")
    company = table["cluster"].map(others).fillna(0).astype("int64")
    why = pd.Series("", index=table.index)
    for text, which in (
        ("is the last live host of its cluster: its machines have nowhere to go", table["cluster"].notna() & (company < 2)),
        ("is in a cluster that can do without no host, says the inventory", table["headroom"].lt(1)),
        ("fell silent: it is behind the fleet's newest evidence", newest - table["last_seen"] > SILENT),
        ("gave no evidence of which version it runs", table["from_version"].isna()),
        (_THERE, table["from_version"].eq(to)),
    ):  # fmt: skip
        why = why.mask(which.fillna(False).astype(bool), text)
    return why


def draw_waves(moving: pd.DataFrame, shares: Sequence[float], seed: int) -> pd.DataFrame:
    """The hosts with their wave, at random within model and cluster."""
    # In random order within each model and cluster; a model's clusters laid over each other evenly, then the models:
    # whatever the first hosts are taken, each model is there with its share, and within it each cluster.
    rng = np.random.default_rng(seed)
    table = moving.sort_values("host", ignore_index=True)
    table = table.iloc[rng.permutation(len(table))].reset_index(drop=True)
    for by in (["model", "cluster"], ["model"]):
        group = table.groupby(by, dropna=False)
        place = (group.cumcount() + 0.5) / group["host"].transform("size")
        place = place.where((group.cumcount() > 0) | (len(by) > 1), 0.0)  # of each model one comes first of all
        table = table.iloc[np.argsort(place.to_numpy(), kind="stable")].reset_index(drop=True)
    least = table["model"].nunique(dropna=False)
    ends = sorted({min(max(math.ceil(share * len(table)), least), len(table)) for share in shares})
    return table.assign(wave=1 + np.searchsorted(ends, np.arange(len(table)), side="right"))


def learnt(plan: RolloutPlan) -> pd.DataFrame:
    """One row a wave: what could be known when it has been watched."""
    waves, day = plan.waves, pd.Timedelta(days=1)
    weeks = waves.drop_duplicates("wave").set_index("wave")["week"].sort_index()
    rows = []
    for wave, end in zip(weeks.index, [*weeks[1:], weeks.iloc[-1] + plan.watched_weeks * WEEK], strict=True):
        moved, mine = waves["wave"] <= wave, int((waves["wave"] == wave).sum())
        days = float(((end - waves["week"]) / day).clip(lower=0)[moved].sum())
        old_days = float((len(waves) * (end - plan.start) / day) - days)
        hosts = int(moved.sum())
        seen = ratio_seen(plan.rate, (days, old_days), (hosts, len(waves) - hosts + mine))
        who = f"wave {wave}: {counted(hosts, 'host')} in {counted(round((end - plan.start) / WEEK), 'week')}"
        least = f"{seen:.2g}" if seen and seen < 99 else "over 100"
        shows = f"could show, with 80 % probability, a version {least} times as bad or worse"
        says = f"{who} {shows if seen else 'can show no difference in the rates; only a new kind of crash would speak'}"
        rows.append((wave, weeks[wave], mine, hosts, days, old_days, seen, says))
    names = ["wave", "week", "hosts", "hosts_moved", "host_days", "reference_host_days", "ratio_seen", "says"]
    return pd.DataFrame(rows, columns=names).astype({"ratio_seen": "Float64"})


def _notes(table: pd.DataFrame, waves: pd.DataFrame, left: pd.DataFrame, to: str, module: str) -> list[str]:
    first = f"no host has {module} {to} yet: nothing is known of it, and the first wave is its first trial here"
    notes = [] if (table["from_version"].eq(to) | table["pending"].eq(to)).any() else [first]
    if alone := int(waves["cluster"].isna().sum()):
        way = "so they move one at a time; an inventory with a column cluster lets clusters move side by side"
        notes.append(f"the cluster of {counted(alone, 'host')} is not known, {way}")
    if waves["headroom"].isna().all():
        notes.append("how many hosts a cluster can do without is not known; an inventory column headroom would tell")
    if waves["model"].nunique() < 2 and waves["model"].isna().any():
        notes.append("the model of some hosts is not known, so version and hardware may go together")
    notes += [f"{listed(rows['host'])}: {why}" for why, rows in left.groupby("why")]
    return notes


# ---- the file ----------------------------------------------------------------------------------------------------------

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
_Number = Annotated[int, msgspec.Meta(ge=1, le=100_000)]


class _Host(msgspec.Struct, forbid_unknown_fields=True):
    host: _Name
    turn: _Number = 1
    from_: _Name | None = msgspec.field(default=None, name="from")
    cluster: _Name | None = None
    model: _Name | None = None
    headroom: Annotated[int, msgspec.Meta(ge=0, le=100_000)] | None = None


class _Wave(msgspec.Struct, forbid_unknown_fields=True):
    week: date
    hosts: list[_Host]


class _Left(msgspec.Struct, forbid_unknown_fields=True):
    host: _Name
    why: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    module: _Name
    to: _Name
    wave: list[_Wave]
    watched_weeks: Annotated[int, msgspec.Meta(ge=1, le=520)] = WATCHED_WEEKS
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    crashes_a_host_year: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 0.2
    accepted: list[str] = []
    left_out: list[_Left] = []


def read_plan(file: str | Path) -> RolloutPlan:
    """A plan's file as it stands after editing; InputError in one sentence where it is no plan."""
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        remedy = "make one with plan_rollout(...).save(file)"
        raise InputError(f"{file}: cannot be read ({in_words(error)}); {remedy}") from error
    if len(data) > LARGEST:
        raise InputError(f"{file}: more than {LARGEST:,} letters; expected a plan that plan_rollout saved")
    try:
        told = msgspec.toml.decode(data, type=_File)
    except msgspec.ValidationError as error:
        raise InputError(f"{file}: no plan of a roll-out ({error}); expected what plan_rollout saved") from error
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        raise InputError(f"{file}: no TOML ({error}); mend the line, or make the plan anew") from error
    weeks = [wave.week for wave in told.wave]
    if not any(wave.hosts for wave in told.wave) or weeks != sorted(set(weeks)):
        begin = ", ".join(map(str, weeks)) or "never"
        raise InputError(f"{file}: found waves that begin {begin}; expected one or more with hosts, each week later")
    numbered = [(number, wave.week, h) for number, wave in enumerate(told.wave, 1) for h in wave.hosts]
    rows = [(number, week, h.turn, h.host, h.cluster, h.model, h.from_, h.headroom) for number, week, h in numbered]
    table = pd.DataFrame(rows, columns=COLUMNS)
    table = table.astype({**dict.fromkeys(["host", "cluster", "model", "from_version"], "string"), "headroom": "Int64"})
    table["week"] = pd.to_datetime(table["week"], utc=True).astype("datetime64[ns, UTC]")
    twice = table.loc[table["host"].duplicated(), "host"]
    if len(twice):
        raise InputError(f"{file}: {listed(twice)} stands in the plan twice; a host moves once")
    at_once = table[table["cluster"].notna() & table.duplicated(["wave", "turn", "cluster"], keep=False)]
    if len(at_once):
        two, (cluster, wave) = listed(at_once["host"].iloc[:2]), at_once[["cluster", "wave"]].iloc[0]
        remedy = "never two hosts of a cluster at once, give one a later turn"
        raise InputError(f"{file}: {two} of cluster {cluster} have one turn of wave {wave}; {remedy}")
    left = pd.DataFrame([(one.host, one.why) for one in told.left_out], columns=["host", "why"])
    plan = RolloutPlan(
        told.module, version_of(told.to, told.module), table, left, (), told.crashes_a_host_year / DAYS_PER_YEAR,
        told.seed, told.watched_weeks, tuple(told.accepted),
    )  # fmt: skip
    return replace(plan, learn=learnt(plan))


def _quoted(value: Any) -> str:
    # A JSON string is a TOML string, but for the delete character.
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
    return text.replace("\x7f", "\\u007f")
