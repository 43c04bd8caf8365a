"""The made-up history of a fleet, as tables: who ran what, who crashed when, who was rolled back for it.

    fleet ─▶ roll-out by cluster ─▶ the life of each host: boots, installs, crashes ─▶ History ─▶ exposure

Every host starts on the story's first step (hpsa 5.5.0.50). Its cluster moves to the second (.58) and later to the third
(.60); what was installed loads at the next boot. A driver crash on the second may send the host back to the first, which
is what makes such data hard: exposure then depends on outcome.
Pure and seeded: the same seed gives the same tables. Times inside are days since ``start``; the tables bear UTC times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from psodlib import schema
from psodlib.errors import InputError
from psodlib.simulate.stories import Story, story_named

# A fleet's steps, as a story's table counts them, and what they are in the story of the incident.
BASE, BAD, NEXT = 0, 1, 2
MODULE, VERSIONS = "hpsa", story_named("hpsa").versions
DAY_MS = 86_400_000
YEAR = 365.25
# Rows by table, as tuples with times in days; `_tables` gives them names and clock times.
Record = dict[str, list[tuple[Any, ...]]]
Moves = tuple[tuple[float, int], ...]  # (day, step)
Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Process:
    """Every number that the made-up history depends on."""

    driver_rate: float = 0.25  # driver crashes per host-year on 5.5.0.50 for a host of hazard 1
    # rates of 5.5.0.58 and 5.5.0.60 over that of 5.5.0.50: the truth that an analysis should find
    ratio_58: float = 3.0
    ratio_60: float = 1.0
    background_rate: float = 0.15  # crashes per host-year that are not the driver's
    deliberate_rate: float = 0.0  # crashes per host-year that a person asks for (``CrashMe``)
    frailty_variance: float = 0.5  # variance of the hosts' hazard multiplier, whose mean is 1; 0 makes all hosts alike
    # its distribution: ``lemons`` are a tenth of the hosts, all equally bad; ``clusters`` shares half of it in a cluster
    frailty_shape: str = "gamma"
    model_share: Sequence[float] = (0.4, 0.3, 0.3)  # of the clusters, by hardware model
    model_hazard: Sequence[float] = (1.0, 2.0, 0.5)  # multiplies the driver's hazard, by model
    late_share: float = 0.2  # share of hosts that join the fleet during the study
    late_days: float = 365.0  # they join at a uniform time between 0 and this, days
    prior_uptime_days: float = 60.0  # the others have been up for a uniform time up to this when the study begins, days
    rollout_58_days: Sequence[float] = (200.0, 120.0, 290.0)  # by model: when a cluster's move to .58 is centred
    rollout_58_spread: float = 60.0  # half width of the uniform spread around it, days
    never_58: float = 0.1  # share of clusters that never move to .58
    rollout_60_days: tuple[float, float] = (350.0, 450.0)  # first and last day on which a cluster moves to .60
    rollout_60_share: Sequence[float] = (0.7, 0.25, 0.85)  # share of clusters, by model, that move to .60 at all
    host_jitter_days: float = 14.0  # A host follows its cluster within a uniform time up to this, days
    load_days: float = 10.0  # mean time from an install to its reboot, days (exponential). A crash loads it sooner
    reboot_days: float = 75.0  # mean time between other planned reboots, days (exponential)
    rollback: float = 0.7  # probability that a driver crash on .58 sends the host back to .50
    rollback_hours: float = 24.0  # mean time from the boot after that crash to the rollback, hours (exponential)
    pinned: float = 0.5  # probability that a host sent back stays there and skips .60
    attribution: float = 0.85  # probability that a crash can be attributed to its module
    gaps_per_host: float = 1.0  # mean number of gaps in a host's logs (Poisson)
    gap_days: float = 14.0  # mean length of a gap, days (exponential)
    # shape of the driver hazard over uptime; 1 is constant, above 1 a leak. Scaled so that the mean hazard stays
    weibull_shape: float = 1.0
    trend: float = 0.0  # the driver hazard changes by the factor ``exp(trend)`` over the study
    crash_hours: float = 1.0  # mean time a crashed host stays down, hours (exponential)
    reboot_minutes: float = 8.0  # time an orderly reboot takes, minutes
    # ESXi builds and the day from which clusters move to each, spread over the 60 days that follow; none: the story's
    patches: Sequence[tuple[float, str]] = ()

    def __post_init__(self) -> None:
        shares = ("late_share", "never_58", "rollback", "pinned", "attribution")
        for name in [f.name for f in fields(self) if isinstance(getattr(self, f.name), int | float)]:
            value = float(getattr(self, name))
            if not math.isfinite(value) or (value < 0 and name != "trend") or (value > 1 and name in shares):
                raise InputError(f"{name} = {value}; expected {'0 to 1' if name in shares else 'a number from 0 up'}")
        for name in ("reboot_days", "weibull_shape"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} = {getattr(self, name)}; expected more than 0")
        if self.frailty_shape not in FRAILTIES:
            raise InputError(f"frailty_shape = {self.frailty_shape!r}; expected one of {', '.join(FRAILTIES)}")


_EVEN = {"model_hazard": (1.0, 1.0, 1.0), "rollout_58_days": (200.0,) * 3, "rollout_60_share": (0.6,) * 3}

# The fleets that the statistics are held against: what each changes of the defaults, which are S3.
SCENARIOS: dict[str, dict[str, Any]] = {
    "S0": {"frailty_variance": 0.0, "rollback": 0.0, **_EVEN},  # nothing in the way
    "S1": {"rollback": 0.0, **_EVEN},  # + frail hosts
    "S2": {"rollback": 0.0},  # + model goes with version and with hazard
    "S3": {},  # + rollback after a crash
    "S3null": {"ratio_58": 1.0},
    "S3sparse": {"driver_rate": 0.25 / 8},
    "S0sparse": {"driver_rate": 0.25 / 8, "frailty_variance": 0.0, "rollback": 0.0, **_EVEN},
    "S3weib": {"weibull_shape": 1.6},
    "S3trend": {"trend": 1.1},
    "S3both": {"weibull_shape": 1.6, "trend": 1.1},
    "S3logn": {"frailty_shape": "lognormal"},
    "S3lemon": {"frailty_shape": "lemons"},
    "S3clus": {"frailty_shape": "clusters"},
    "S3phi2": {"frailty_variance": 2.0},
    "S3full": {"attribution": 1.0, "gaps_per_host": 0.0},  # all attributed, nothing missing
}


@dataclass(frozen=True)
class History:
    """What happened to a made-up fleet, all of it."""

    # one row a host: ``host``, ``cluster``, ``vendor``, ``model``, ``users``, ``vms``, ``entry`` (when it joined),
    # ``frailty`` (hazard multiplier, mean 1), ``hazard`` (of its model)
    hosts: pd.DataFrame
    # one row a boot: ``host``, ``boot``, ``entry`` (later of boot and start of the study), ``end``, ``end_reason``
    # (crash, reboot, running), ``version`` (of the driver, loaded), ``esxi_build``, ``firmware``
    boots: pd.DataFrame
    # one row a crash: ``host``, ``time``, ``boot_row`` (row of ``boots``), ``boot``, ``version`` (of the driver,
    # loaded), ``module`` (the true culprit, None for hardware), ``kind`` (as its text shows it), ``driver`` (it was the
    # driver's), ``deliberate``, ``attributed`` (its text can tell), ``in_gap``, ``firmware``
    crashes: pd.DataFrame
    # one row a change of the installed driver or firmware: ``host``, ``time``, ``version``, ``removed``, ``rollback``,
    # ``firmware``, ``firmware_removed``
    installs: pd.DataFrame
    gaps: pd.DataFrame  # one row a gap in a host's logs: ``host``, ``start``, ``end``; never overlapping
    start: pd.Timestamp  # the study, UTC
    end: pd.Timestamp  # the study, UTC
    parameters: Process = field(repr=False)  # what it was made with
    story: Story = field(repr=False)  # whose it is

    def exposure(self, known: bool = True, gaps: bool = True) -> pd.DataFrame:
        """Host-days at risk by loaded version, as a perfect reader of the evidence would find them."""
        rows, start, end = _stretches(self.boots, self.gaps if gaps else self.gaps.iloc[:0])
        boots = self.boots.iloc[rows].reset_index(drop=True)
        last = end == _ms(boots["end"])
        hosts = self.hosts.iloc[pd.Index(self.hosts["host"]).get_indexer(boots["host"])]
        # One row a boot: crashes of the driver, unknown, others. A boot ends by at most one crash.
        crashes = self.crashes[~self.crashes["deliberate"]]
        told = crashes["attributed"].to_numpy(dtype=bool) | (not known)
        cause = np.where(told, np.where(crashes["driver"].to_numpy(dtype=bool), 0, 2), 1)
        of_boot = np.zeros((len(self.boots), 3), dtype=np.int64)
        of_boot[crashes["boot_row"].to_numpy(dtype=np.int64), cause] = 1
        crashed, unknown, others = (of_boot[rows] * last[:, None]).T
        return schema.conform("exposure", boots[["host", "version", "boot", "esxi_build"]].assign(
            module=self.story.module, start=_utc(start), end=_utc(end), uptime_start=_utc(start) - boots["boot"],
            host_days=(end - start) / DAY_MS, crashes=crashed, unknown_crashes=unknown, other_crashes=others,
            end_reason=np.where(last, boots["end_reason"].to_numpy(dtype=object), "unknown"),
            model=hosts["model"].to_numpy(dtype=object), cluster=hosts["cluster"].to_numpy(dtype=object),
        ))  # fmt: skip


def simulate_history(
    hosts: int = 500, days: float = 548, clusters: int = 50, seed: int = 0, *, start: str = "2013-06-01", story: str = "hpsa",
    installs: pd.DataFrame | None = None, **process: Any,
) -> History:  # fmt: skip
    """A fleet's made-up history: boots, installs, crashes and gaps, with every truth known.

    ``installs`` (``host``, ``time``, ``version``, as in ``History.installs``) stands in place of the clusters' own roll-out.

    Notes
    -----
    Driver hazard of host *h* with version *v* at uptime *u* and study time *t*::

        driver_rate · ratio_v · model_hazard · frailty_h · (u / τ)^(k - 1) / Γ(k) · exp(trend · (t / days - 1/2))

    with k the ``weibull_shape`` and τ = ``reboot_days``. Uptimes are roughly exponential with mean τ, so the mean of
    the Weibull factor is about 1 whatever k.
    """
    names = [f.name for f in fields(Process)]
    unknown = sorted(set(process) - set(names))
    if unknown:
        raise InputError(f"unknown parameter {unknown[0]!r}; expected any of {', '.join(names)}")
    if hosts < 1 or clusters < 1 or not days > 0:
        raise InputError(f"hosts = {hosts}, clusters = {clusters}, days = {days}; expected more than 0 of each")
    told = story_named(story)
    rules = Process(**process)
    rules = rules if rules.patches else replace(rules, patches=tuple((build.day, build.build) for build in told.builds))
    rng = Random(seed)
    plans = _plan(rng, rules, hosts, min(clusters, hosts), days)
    if installs is not None:
        moves = _asked(installs, told, pd.Timestamp(start, tz="UTC"))
        names_of = _names(len(plans))
        if unknown := sorted(set(moves) - set(names_of)):
            raise InputError(f"installs names {unknown[0]}; expected hosts {names_of[0]} to {names_of[-1]}")
        plans = [plan._replace(moves=moves.get(name, ())) for name, plan in zip(names_of, plans, strict=True)]
    record: Record = {name: [] for name in ("boots", "crashes", "installs", "gaps")}
    for number, plan in enumerate(plans):
        # A host's own dice, where a roll-out is followed week by week: what one host lives through changes no other's past.
        own = rng if installs is None else Random(f"{seed}/{number}")
        _Life(own, told, rules, days, number, plan, record).live()
    return _tables(told, rules, plans, record, pd.Timestamp(start, tz="UTC"), days)


def _asked(installs: pd.DataFrame, story: Story, start: pd.Timestamp) -> dict[str, Moves]:
    # By host its installs, in order.
    if wrong := sorted(set(installs["version"]) - set(story.versions)):
        raise InputError(f"installs names version {wrong[0]}; expected one of {', '.join(story.versions)}")
    days = (pd.to_datetime(installs["time"], utc=True) - start) / pd.Timedelta(days=1)
    out: dict[str, list[tuple[float, int]]] = {}
    for host, day, version in zip(installs["host"], days, installs["version"], strict=True):
        out.setdefault(str(host), []).append((float(day), story.versions.index(version)))
    return {host: tuple(sorted(moves)) for host, moves in out.items()}


def _names(hosts: int) -> list[str]:
    width = max(3, len(str(hosts)))
    return [f"esx{number + 1:0{width}d}" for number in range(hosts)]


class _Plan(NamedTuple):
    # One host: who it is and what its cluster means it to run.
    cluster: int
    model: int
    frailty: float
    hazard: float  # driver crashes per day on .50 at the reference uptime and time
    entry: float
    boot: float  # start of its first boot; before the study for a host that was already up
    moves: Moves  # of the installs its cluster plans, in order
    patches: tuple[tuple[float, str], ...]  # (day, ESXi build)
    users: int
    vms: int


def _gamma(rng: Random, variance: float) -> float:
    return rng.gammavariate(1 / variance, variance) if variance else 1.0


def _lognormal(rng: Random, variance: float) -> float:
    sigma2 = math.log1p(variance)
    return rng.lognormvariate(-sigma2 / 2, math.sqrt(sigma2)) if variance else 1.0


def _lemons(rng: Random, variance: float) -> float:
    # One host in ten is bad; mean 1 and the variance fix both levels. The good ones' level may not fall below 0.
    distance = min(math.sqrt(variance / 0.09), 10.0)
    return 1 + 0.9 * distance if rng.random() < 0.1 else 1 - 0.1 * distance


# Shape -> draw of one host's multiplier. `clusters` draws gammas, one for the cluster and one for the host.
FRAILTIES = {"gamma": _gamma, "lognormal": _lognormal, "lemons": _lemons, "clusters": _gamma}


def _plan(rng: Random, rules: Process, hosts: int, clusters: int, days: float) -> list[_Plan]:
    shared = rules.frailty_shape == "clusters"
    # Two independent factors of this variance multiply to the variance asked for.
    variance = math.sqrt(1 + rules.frailty_variance) - 1 if shared else rules.frailty_variance
    draw = FRAILTIES[rules.frailty_shape]
    teams = [(draw(rng, variance) if shared else 1.0, *_plan_cluster(rng, rules)) for _ in range(clusters)]
    plans = []
    for number in range(hosts):
        cluster = number * clusters // hosts
        common, model, planned, patches = teams[cluster]
        frailty = common * draw(rng, variance)
        late = rng.random() < rules.late_share
        entry = rng.uniform(0, min(rules.late_days, days)) if late else 0.0
        boot = entry if late else -rng.uniform(0, rules.prior_uptime_days)
        moves = tuple((day + rng.uniform(0, rules.host_jitter_days), step) for day, step in planned)
        hazard = rules.driver_rate * rules.model_hazard[model] * frailty / YEAR
        vms = rng.randint(4, 10)
        users = vms * rng.randint(20, 45)
        plans.append(_Plan(cluster, model, frailty, hazard, entry, boot, moves, patches, users, vms))
    return plans


def _plan_cluster(rng: Random, rules: Process) -> tuple[int, Moves, tuple[tuple[float, str], ...]]:
    # Its model, what it plans to install when, and when it moves to which build.
    model = rng.choices(range(len(rules.model_share)), rules.model_share)[0]
    moves = []
    if rng.random() >= rules.never_58:
        middle, spread = rules.rollout_58_days[model], rules.rollout_58_spread
        moves.append((rng.uniform(middle - spread, middle + spread), BAD))
    if rng.random() < rules.rollout_60_share[model]:
        moves.append((rng.uniform(*rules.rollout_60_days), NEXT))
    patches = tuple((day + (rng.uniform(0, 60) if day > 0 else -math.inf), build) for day, build in rules.patches)
    return model, tuple(moves), patches


class _Life:
    # One host from its entry to the end of the study; the only thing here that changes as it goes.

    def __init__(
        self, rng: Random, story: Story, rules: Process, days: float, number: int, plan: _Plan, record: Record
    ) -> None:
        self.story = story
        self.rng, self.rules, self.days, self.number, self.plan, self.record = rng, rules, days, number, plan, record
        moves = sorted(plan.moves)
        # What was due before the host joined is in its image.
        self.loaded = next((step for day, step in reversed(moves) if day <= plan.entry), BASE)
        self.installed = self.loaded
        self.moves = [(day, step, False) for day, step in moves if day > plan.entry]
        self.boot, self.now, self.load_at = plan.boot, plan.entry, math.inf
        self.shape, self.scale, self.mean = rules.weibull_shape, rules.reboot_days, math.gamma(rules.weibull_shape + 1)
        rates = (rules.background_rate, rules.deliberate_rate)
        self.background_days, self.deliberate_days = (YEAR / rate if rate else math.inf for rate in rates)
        ratios = (1.0, rules.ratio_58, rules.ratio_60)
        peak = math.exp(abs(rules.trend) / 2)
        self.peak_hazard = [plan.hazard * ratio * peak for ratio in ratios]
        self.gaps = _draw_gaps(rng, rules, plan.entry, days)

    def live(self) -> None:
        self.record["gaps"].extend((self.number, *gap) for gap in self.gaps)
        while self.now < self.days:
            entry = self.now
            reason, cause = self.run_boot()
            build = next(build for day, build in reversed(self.plan.patches) if day <= max(self.boot, 0.0))
            self.record["boots"].append((self.number, self.boot, entry, self.now, reason, self.loaded, build))
            if cause:
                self.crash(cause)
            down = self.rules.reboot_minutes / 1440 + (_wait(self.rng, self.rules.crash_hours / 24) if cause else 0.0)
            self.boot = self.now = self.now + down
            self.loaded, self.load_at = self.installed, math.inf

    def run_boot(self) -> tuple[str, str]:
        # Until a crash, a reboot or the end of the study; installs on the way change what the next boot loads.
        reboot = self.now + _wait(self.rng, self.rules.reboot_days)
        while True:
            # Nobody installs on a host that is down, or still coming up.
            due = max(self.moves[0][0], self.boot + 0.5 / 24) if self.moves else math.inf
            stop = min(reboot, self.load_at, due, self.days)
            time, cause = self.first_crash(stop)
            if time < stop:
                self.now = time
                return "crash", cause
            self.now = stop
            if stop == self.days:
                return "running", ""
            if stop != due:
                return "reboot", ""
            self.install(*self.moves.pop(0)[1:])

    def install(self, step: int, rollback: bool) -> None:
        if rollback and self.installed != BAD:
            return  # the third came in between
        self.record["installs"].append((self.number, self.now, step, self.installed, rollback))
        self.installed = step
        # Whoever rolls back does it in a maintenance window and reboots at once.
        wait = 0.25 / 24 if rollback else _wait(self.rng, self.rules.load_days)
        self.load_at = min(self.load_at, self.now + wait)

    def first_crash(self, stop: float) -> tuple[float, str]:
        # The innermost loop of a fleet's life: most time of a simulation is spent here and in what it calls.
        driver = self.driver_crash(stop)
        background = self.now + _wait(self.rng, self.background_days)
        deliberate = self.now + _wait(self.rng, self.deliberate_days)
        if driver < background and driver < deliberate:
            return driver, "driver"
        return min((background, "background"), (deliberate, "deliberate"), (driver, "driver"))

    def driver_crash(self, stop: float) -> float:
        # Inverse of the cumulated Weibull hazard, at the trend's peak; thinned down to the trend of the moment.
        rate = self.peak_hazard[self.loaded]
        if rate == 0:
            return math.inf
        rng, shape, scale, boot, trend = self.rng, self.shape, self.scale, self.boot, self.rules.trend
        unit = rate * scale
        uptime = self.now - boot
        while boot + uptime < stop:
            power = (uptime / scale) ** shape + _wait(rng, 1.0) * self.mean / unit
            uptime = scale * power ** (1 / shape)
            if not trend:
                break
            height = trend * ((boot + uptime) / self.days - 0.5) - abs(trend) / 2
            if height >= 0 or rng.random() < math.exp(height):
                break
        return boot + uptime

    def crash(self, cause: str) -> None:
        rng, rules = self.rng, self.rules
        attributed = rng.random() < rules.attribution
        kind, module = "user_requested", None
        if cause == "driver":
            kind, module = "general_protection" if rng.random() < 0.15 else "page_fault", self.story.module
        elif cause == "background":
            kind, module, _ = rng.choices(self.story.background, [weight for *_, weight in self.story.background])[0]
        if not attributed and cause != "deliberate":
            kind = "page_fault"  # text that names hardware, a lock or a source line would give its module away
        in_gap = any(start <= self.now < end for start, end in self.gaps)
        self.record["crashes"].append((
            self.number, self.now, len(self.record["boots"]) - 1, self.boot, self.loaded, module, kind, cause == "driver",
            cause == "deliberate", attributed, in_gap,
        ))  # fmt: skip
        if cause == "driver" and self.loaded == self.installed == BAD and rng.random() < rules.rollback:
            after = self.now + _wait(rng, rules.rollback_hours / 24)
            self.moves = sorted([(after, BASE, True), *self.moves])
            if rng.random() < rules.pinned:
                self.moves = [move for move in self.moves if move[1] != NEXT]


def _wait(rng: Random, mean: float) -> float:
    # Exponential time; a mean of 0 is at once, an infinite one never. One draw each, so that streams stay in step.
    draw = -math.log(1.0 - rng.random())
    return mean * draw if mean < math.inf else math.inf


def _draw_gaps(rng: Random, rules: Process, entry: float, days: float) -> list[tuple[float, float]]:
    # Arrivals of a Poisson process over the study, cut to the host's time in it and merged.
    gaps: list[tuple[float, float]] = []
    step = days / rules.gaps_per_host if rules.gaps_per_host else math.inf
    start = _wait(rng, step)
    while start < days:
        end = min(start + _wait(rng, rules.gap_days), days)
        if gaps and start <= gaps[-1][1]:
            gaps[-1] = (gaps[-1][0], max(end, gaps[-1][1]))
        elif end > entry:
            gaps.append((max(start, entry), end))
        start += _wait(rng, step)
    return gaps


def _tables(
    story: Story, rules: Process, plans: Sequence[_Plan], record: Record, start: pd.Timestamp, days: float
) -> History:
    names = np.array(_names(len(plans)), dtype=object)
    firmware = np.array([[story.firmware(step, plan.cluster) for step in range(3)] for plan in plans], dtype=object)

    def table(rows: Sequence[tuple[Any, ...]], columns: str) -> pd.DataFrame:
        # A row's first field is the host's number; `@` marks days since the start, kept to the millisecond, `?` a flag,
        # `#` a step of the story: its driver version there, its firmware in a column at the end.
        labels = columns.split()
        values = list(zip(*rows, strict=True)) if rows else [()] * (1 + len(labels))
        numbers = np.array(values[0], dtype=int)
        out, last = {"host": pd.Series(names[numbers], dtype=object)}, {}
        for label, column in zip(labels, values[1:], strict=True):
            name = label.lstrip("@?#")
            if label.startswith("@"):
                days_in = np.rint(np.array(column, dtype=float) * DAY_MS).astype(np.int64)
                out[name] = pd.Series(_utc(days_in + int(start.timestamp() * 1000)))
            elif label.startswith("#"):
                steps = np.array(column, dtype=int)
                out[name] = pd.Series(np.array(story.versions, dtype=object)[steps], dtype=object)
                own = pd.Series(firmware[numbers, steps], dtype=object)
                last["firmware" if name == "version" else f"firmware_{name}"] = own
            else:
                out[name] = pd.Series(column, dtype=bool if label.startswith("?") else None)
        return pd.DataFrame(out | last)

    fleet = [
        (number, f"cluster{plan.cluster + 1:02d}", story.maker, story.models[plan.model], plan.users, plan.vms, plan.entry,
         plan.frailty, float(rules.model_hazard[plan.model]))
        for number, plan in enumerate(plans)
    ]  # fmt: skip
    flags = "?driver ?deliberate ?attributed ?in_gap"
    return History(
        hosts=table(fleet, "cluster vendor model users vms @entry frailty hazard"),
        boots=table(record["boots"], "@boot @entry @end end_reason #version esxi_build"),
        crashes=table(record["crashes"], f"@time boot_row @boot #version module kind {flags}"),
        installs=table(record["installs"], "@time #version #removed ?rollback"),
        gaps=table(record["gaps"], "@start @end"),
        start=start,
        end=start + pd.Timedelta(days=days).round("ms"),
        parameters=rules,
        story=story,
    )


def _ms(times: pd.Series[Any]) -> Integers:
    return np.asarray(times.astype("datetime64[ms, UTC]").astype("int64"), dtype=np.int64)


def _utc(ms: Integers) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(ms.astype("datetime64[ms]").astype("datetime64[ns]"), tz="UTC")


def _stretches(boots: pd.DataFrame, gaps: pd.DataFrame) -> tuple[Integers, Integers, Integers]:
    # Boots minus gaps, as row of `boots`, start and end in ms since 1970. All hosts are laid end to end on one line, so that
    # one sort does for the whole fleet.
    number, hosts = pd.factorize(boots["host"])
    lane = 2**43  # more milliseconds than 200 years
    offset, gap_offset = number * lane, pd.Index(hosts).get_indexer(gaps["host"]) * lane
    begin, finish = _ms(boots["entry"]) + offset, _ms(boots["end"]) + offset
    gap_begin, gap_finish = _ms(gaps["start"]) + gap_offset, _ms(gaps["end"]) + gap_offset
    cuts = np.unique(np.concatenate([begin, finish, gap_begin, gap_finish]))
    left, right = cuts[:-1], cuts[1:]
    boot = np.searchsorted(begin, left, side="right") - 1
    alive = (boot >= 0) & (left < finish[boot])
    gap = np.searchsorted(gap_begin, left, side="right") - 1
    if len(gap_begin):
        alive &= (gap < 0) | (left >= gap_finish[gap])
    boot, left, right = boot[alive], left[alive], right[alive]
    return boot, left - offset[boot], right - offset[boot]
