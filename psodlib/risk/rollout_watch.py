"""A running roll-out, looked at whenever the store was loaded: who has moved, what crashed, and go on, hold or stop."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from psodlib.errors import InputError
from psodlib.risk import exact
from psodlib.risk.canary import ALARM, WEEK, Posterior, Weeks, posterior, weeks_of
from psodlib.risk.cautions import counted, listed
from psodlib.risk.decision import RATHER, SURE, PinDecision, decide_pin, in_words
from psodlib.risk.exposure import exposure
from psodlib.risk.rates import DAYS_PER_YEAR
from psodlib.risk.rollout import RolloutPlan, by_name, day_named, read_plan
from psodlib.schema import Cell
from psodlib.triage.changes import SILENT
from psodlib.triage.compliance import fleet_compliance
from psodlib.triage.known_issues import Issue, exposed, load_issues
from psodlib.triage.similar import LEAST, similar_crashes, stacks_of

WORDS = {"go_on": ("Go on", 0), "hold": ("Hold", 1), "stop": ("Stop", 3)}  # how each is said, and its exit code
LEANS = RATHER  # P(new version worse) from concurrent controls, without which the past alone neither holds nor stops
CHANCE, NO_CHANCE = 0.01, 0.001  # so improbable were the new version as the old that no wave begins; that it is stopped
WATCHED = 0.8  # of a wave's planned host-days, before the next begins
STALE = 2 * WEEK  # without a new load nobody is watching
YEAR = pd.Timedelta(days=DAYS_PER_YEAR)
DAY = pd.Timedelta(days=1)
OLD = "the versions before"
EFFECT = ["what", "hosts", "crashes", "host_days", "rate", "low", "high"]
NEWS = [
    "crash_id", "host", "time", "signature", "of_driver", "days_on_it", "names_version", "known_issues", "similar", "likeness",
]  # fmt: skip
# A host's status against the plan, from what ``fleet_compliance`` says of it.
STATUS = {
    "runs": "moved", "installed_not_booted": "waits_for_reboot", "about_to_drift": "about_to_drift", "drifted_back": "drifted_back",
    "unknown": "unknown", "other": "not_moved",
}  # fmt: skip


@dataclass(frozen=True, repr=False)
class RolloutWatch(Cell):
    """One look at a running roll-out: ``word`` is go_on, hold or stop, ``sentence`` says why, the tables what it rests on."""

    plan: RolloutPlan
    word: str
    sentence: str
    reasons: tuple[str, ...]  # all that was found, the gravest first
    at: pd.Timestamp | None  # the newest evidence
    hosts: pd.DataFrame  # a row a host of the plan, with its status, version, moved_at, crashes and host_days
    waves: pd.DataFrame  # a row a wave: hosts by status, crashes and host-days since, host_days_planned
    weeks: pd.DataFrame  # as ``watch_canary`` gives it, hosts held against hosts of the same model
    news: pd.DataFrame  # crashes on the new version with a signature that was never seen before
    judged: Judged  # what the counts say
    problems: tuple[str, ...]  # why the plan cannot be followed as it stands
    go_back: pd.DataFrame  # after a stop: order, turn, host, cluster, to_version, why
    decision: PinDecision | None  # what the decision rule says now, after a stop or at the end
    effect: pd.DataFrame  # when all have moved: before and after, with concurrent controls

    @property
    def exit_code(self) -> int:
        """0 go_on, 1 hold, 3 stop."""
        return WORDS[self.word][1]

    def __str__(self) -> str:
        return "\n".join([self.sentence, *(f"- {reason}" for reason in self.reasons[1:])])


def watch_rollout(
    fleet: Any, plan: RolloutPlan | str | Path, *, today: Any = None, issues: Sequence[Issue] | None = None
) -> RolloutWatch:
    """One look at a running roll-out, as often as the evidence is loaded: go on, hold or stop, and why.

    Parameters
    ----------
    fleet : Fleet
        As loaded now.
    plan : RolloutPlan, str or Path
        From ``plan_rollout``, or its file as it stands after editing.
    today : str or datetime, optional
        The day of the look, to see whether the evidence is old; default: the fleet's newest sign of life.
    issues : sequence of Issue, optional
        Known issues; default: those that ship.

    Returns
    -------
    RolloutWatch
        ``word`` with its ``sentence``, ``exit_code`` (0 ``go_on``, 1 ``hold``, 3 ``stop``) and ``reasons``; the tables and
        ``judged``, which it rests on; after a stop ``go_back`` and ``decision``, at the end ``effect``.

    Raises
    ------
    InputError
        The file is no plan, or no evidence speaks of its module.

    Notes
    -----
    ``stop``: the e-value has reached 20 in some week; or the version is worse with probability 0.6, and the past of these
    models gives so many crashes less than once in 1,000; or crashes of the driver with signatures never seen before came
    within a host's first week on it, where Good and Turing's estimate gives that less than once in 100; or a crash matches a
    known issue that names the version. ``hold``: worse with probability 0.95, or 0.6 and the past gives so many crashes less
    than once in 100; a new signature of the driver, or within ``watched_weeks`` of a move; a wave not moved or not watched as
    planned; a plan that does not fit the fleet. e-value and probability hold hosts against hosts of the same model in the
    same week, up to each host's first crash.
    """
    if not isinstance(plan, RolloutPlan):
        plan = read_plan(plan)
    table = exposure(fleet, plan.module)
    table["new"] = table["version"].eq(plan.to).fillna(False).astype(bool)
    since = table[table["new"] & (table["end"] > plan.start)]  # on the new version, from the first wave on
    newest = fleet.hosts["last_seen"].max()
    hosts = _hosts(fleet, plan, since)
    weeks = _weeks(table, plan)
    judged = _judged(table, since, plan, weeks)
    news = _news(fleet, plan, table, load_issues() if issues is None else issues)
    waves = _waves(hosts, plan)
    idle = waves["hosts"] == waves["not_moved"] + waves["not_in_fleet"] + waves["unknown"]
    problems = tuple(_problems(fleet, plan, hosts, newest, today))
    stops = _stops(plan, judged, news, _expected_news(fleet, plan, since))
    # What nothing lays on this driver, long after the move, is named and holds nothing.
    aside = ~news["of_driver"].astype(bool) & (news["days_on_it"] > 7 * plan.watched_weeks)
    leans = [f"{_evidence(judged)}; no proof yet, so begin no further wave"] if judged.against == "hold" else []
    holds = [*problems, *_named(news[~aside]), *leans, *_unfinished(waves, waves[~idle], hosts, plan, newest)]
    done = bool(hosts["status"].isin(["moved", "drifted_back"]).all()) and not _unwatched(waves.iloc[-1])
    word = "stop" if stops else "hold" if holds else "go_on"
    reasons = (*((*stops, *holds) or (_next_step(waves, waves[idle], plan, judged, done),)), *_named(news[aside]))
    followed = None
    if stops or done:
        with contextlib.suppress(InputError):  # an advice that was followed is turned round only when sure
            followed = decide_pin(table, now=fleet.now(plan.module), before=plan.to)
    return RolloutWatch(
        plan, word, f"{WORDS[word][0]}: {reasons[0]}.", reasons, None if pd.isna(newest) else newest, hosts, waves, weeks.table(),
        news, judged, problems, _go_back(hosts if stops else hosts.iloc[:0], fleet), followed,
        _effect(table, plan) if done else pd.DataFrame(columns=EFFECT),
    )  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """What the counts say of the new version, by the two ways of comparing: with controls, and with the past."""

    ratio: Posterior  # against hosts of the same model in the same weeks, up to each host's first crash
    e_value: float  # of the same, the highest so far
    crashes: int  # on the new version, all
    expected: float  # as many as these models' past rates would give
    excess: float  # the chance of so many or more were the new version as the old

    @property
    def against(self) -> str:
        """``stop``, ``hold`` or nothing."""
        leans = self.ratio.p_worse >= LEANS
        if self.e_value >= ALARM or (leans and self.excess <= NO_CHANCE):
            return "stop"
        return "hold" if leans and (self.ratio.p_worse >= SURE or self.excess <= CHANCE) else ""


def judge(weeks: Weeks, crashes: float, expected: float, hosts: int) -> Judged:
    """The counts so far, weighed.

    Notes
    -----
    Crashes of n hosts whose hazards differ with variance v are negative binomial of shape n / v; v = 1.
    """
    tail = float(stats.nbinom.sf(crashes - 1, hosts, hosts / (hosts + expected))) if hosts and crashes else 1.0
    return Judged(posterior(*weeks.arms()), float(weeks.e_values().max(initial=1.0)), int(crashes), expected, tail)


def _hosts(fleet: Any, plan: RolloutPlan, since: pd.DataFrame) -> pd.DataFrame:
    found = fleet_compliance(fleet, plan.module, plan.to).drop_duplicates("host").set_index("host")
    out = plan.waves[["wave", "week", "turn", "host", "cluster", "model", "from_version"]].copy()
    status = out["host"].map(found["status"]).map(STATUS)
    out["version"] = out["host"].map(found["version"]).astype("string")
    other = out["from_version"].notna() & out["version"].ne(out["from_version"]).fillna(False)
    out["status"] = status.mask(status.eq("not_moved") & other, "other_version").fillna("not_in_fleet").astype("string")
    by_host = since.groupby("host")
    moved: pd.Series[Any] = by_host["start"].min()
    out["moved_at"] = moved.mask(moved < plan.start, plan.start).reindex(out["host"]).set_axis(out.index)
    out["crashes"] = out["host"].map(by_host["crashes"].sum()).fillna(0).astype("Int64")
    out["host_days"] = out["host"].map(by_host["host_days"].sum()).fillna(0.0)
    return out


def _waves(hosts: pd.DataFrame, plan: RolloutPlan) -> pd.DataFrame:
    sums = {"crashes": ("crashes", "sum"), "host_days": ("host_days", "sum")}
    out = hosts.groupby("wave").agg(week=("week", "min"), hosts=("host", "size"), **sums)
    counts = hosts.groupby(["wave", "status"]).size().unstack(fill_value=0)
    for status in [*dict.fromkeys(STATUS.values()), "other_version", "not_in_fleet"]:
        out[status] = counts.get(status, 0)
    ends: Any = out["week"].shift(-1).fillna(out["week"].iloc[-1] + plan.watched_weeks * WEEK)
    out["host_days_planned"] = out["hosts"] * ((ends - out["week"]) / DAY)
    return out.reset_index()


def _unwatched(wave: Any) -> bool:
    return bool(wave["host_days"] < WATCHED * wave["host_days_planned"])


def _unfinished(
    waves: pd.DataFrame, under_way: pd.DataFrame, hosts: pd.DataFrame, plan: RolloutPlan, newest: pd.Timestamp
) -> list[str]:
    # What stands between the wave under way and the next one, once that is due.
    if under_way.empty:
        return []
    following = waves.loc[waves["wave"] > under_way["wave"].max(), "week"]
    due = following.iloc[0] - DAY if len(following) else waves["week"].iloc[-1] + plan.watched_weeks * WEEK
    out: list[str] = []
    if not newest >= due:
        return out
    for status, words in (
        ("waits_for_reboot", "have it installed and wait for a reboot"), ("not_moved", "have not moved"),
        ("unknown", "do not tell what they run; collect their logs"),
    ):  # fmt: skip
        late = hosts[hosts["wave"].isin(under_way["wave"]) & hosts["status"].eq(status)]
        if len(late):
            out.append(f"of the waves under way, {counted(len(late), 'host')} ({listed(late['host'])}) {words}")
    last: Any = under_way.iloc[-1]
    if _unwatched(last):
        spans = f"{last['host_days']:,.0f} of {last['host_days_planned']:,.0f} planned host-days"
        out.append(f"wave {last['wave']} was watched for {spans}; wait before the next")
    return out


def _next_step(waves: pd.DataFrame, idle: pd.DataFrame, plan: RolloutPlan, judged: Judged, done: bool) -> str:
    if done:
        return f"all {counted(int(waves['hosts'].sum()), 'host')} run {plan.module} {plan.to} and were watched as planned; the roll-out is complete"
    so_far = (
        f"{counted(judged.crashes, 'crash')} on {plan.to} in {waves['host_days'].sum():,.0f} host-days, where the versions before "
        f"would give {judged.expected:.1f}; that it is worse has probability {in_words(judged.ratio.p_worse)}"
    )
    if idle.empty:
        return f"{so_far}; watch the last wave to its end"
    number, hosts, week = idle[["wave", "hosts", "week"]].iloc[0]
    return f"{so_far}; wave {number} ({counted(int(hosts), 'host')}) moves from {week:%Y-%m-%d}"


def _problems(fleet: Any, plan: RolloutPlan, hosts: pd.DataFrame, newest: pd.Timestamp, today: Any) -> list[str]:
    status, out = hosts["status"], []
    absent = hosts.loc[status.eq("not_in_fleet"), "host"]
    if len(absent):
        named = f"{counted(len(absent), 'host')} that the fleet has not ({listed(absent)})"
        out.append(f"the plan names {named}; correct the plan, or load their evidence")
    if pd.isna(newest):
        return [*out, "the fleet has no sign of life with a time, so nothing can be watched; load its logs"]
    now = newest if today is None else day_named("today", today)
    if now - newest > STALE:
        old = f"the newest evidence is of {newest:%Y-%m-%d}, {(now - newest).days} days ago"
        out.append(f"{old}: nobody was watching; load the store first")
    drivers = fleet.drivers[fleet.drivers["module"].eq(plan.module).fillna(False)]
    if now >= plan.start + WEEK and not drivers["version"].eq(plan.to).fillna(False).any():
        began = f"though the first wave began on {plan.start:%Y-%m-%d}; check the version in the plan"
        out.append(f"no host has {plan.module} {plan.to}, loaded or installed, {began}")
    last_seen = by_name(fleet.hosts)["last_seen"]
    runs = fleet.now(plan.module)
    runs = runs[runs["version"].eq(plan.to).fillna(False) & (runs["since"] >= plan.start)]
    odd = (
        (hosts[hosts["moved_at"].notna() & (newest - hosts["host"].map(last_seen) > SILENT)],
         "silent since the move, as a host that does not come up would be; look at it first"),
        # Who went back after a crash did what the crash, which is counted, asks for.
        (hosts[status.eq("drifted_back") & hosts["crashes"].eq(0)], f"ran {plan.to} and went back; somebody had a reason"),
        (hosts[status.eq("about_to_drift")], "will load another version at the next boot"),
        (hosts[status.eq("other_version")], "run a version that the plan does not name"),
        (hosts[hosts["moved_at"] < hosts["week"] - WEEK],
         "moved more than a week before their wave; the draw of the waves no longer protects the comparison"),
        (runs[~runs["host"].isin(plan.waves["host"])],
         f"moved to {plan.to}, but the plan does not name them; add them or take them back"),
    )  # fmt: skip
    return [*out, *(f"{listed(rows['host'])}: {words}" for rows, words in odd if len(rows))]


def _weeks(table: pd.DataFrame, plan: RolloutPlan) -> Weeks:
    # Hosts that ran the new version before were not drawn for it, and are left aside.
    aside = table["new"] & ((table["start"] < plan.start) | ~table["host"].isin(plan.waves["host"]))
    mine = table[table["version"].notna() & ~table["host"].isin(table.loc[aside, "host"]) & (table["end"] > plan.start)]
    if mine["new"].nunique() < 2:
        return Weeks(plan.start, *np.zeros((4, 0, 1)))
    named = mine.assign(version=np.where(mine["new"], plan.to, OLD))
    return weeks_of(named, plan.to, OLD, since=plan.start, within="model")


def _news(fleet: Any, plan: RolloutPlan, table: pd.DataFrame, issues: Sequence[Issue]) -> pd.DataFrame:
    crashes = fleet.crashes
    moved = table[table["new"]].groupby("host")["start"].min()
    at = moved.reindex(crashes["host"]).set_axis(crashes.index)
    on_new = (crashes["time"] >= at).fillna(False) & (crashes["time"] >= plan.start).fillna(False)
    on_new &= crashes["driver_version"].eq(plan.to).fillna(True) | crashes["guilty_module"].ne(plan.module).fillna(True)
    known = {*crashes.loc[~on_new, "signature"].dropna(), *plan.accepted}
    unseen = crashes["signature"].notna() & ~crashes["signature"].isin(known)
    new = crashes[on_new & unseen & ~crashes["deliberate"].fillna(False)]
    named = {issue.id for issue in exposed(issues, plan.module, plan.to)}
    stacks = stacks_of(fleet) if len(new) else {}
    likest: dict[Any, tuple[Any, float]] = {}
    rows = []
    for row in new.sort_values("time").itertuples():
        mine = isinstance(row.guilty_module, str) and row.guilty_module == plan.module
        if not mine and row.crash_id not in stacks:
            continue  # a text that tells nothing is no new kind
        if row.signature not in likest:  # once a signature: a host in a boot loop may bring it a thousand times
            near = similar_crashes(fleet, str(row.crash_id), count=len(crashes), stacks=stacks)
            near = near[near["signature"].isin(known).fillna(False)]
            first = next(near[["signature", "likeness"]].itertuples(index=False, name=None), (None, 0.0))
            likest[row.signature] = (first[0], float(first[1]))
        ids = row.known_issues if isinstance(row.known_issues, str) else ""
        names = ";".join(sorted({*ids.split(";")} & named)) or None
        days = (row.time - moved[row.host]) / DAY
        told = (row.crash_id, row.host, row.time, row.signature, mine, days, names, ids or None)
        rows.append((*told, *likest[row.signature]))
    return pd.DataFrame(rows, columns=NEWS)


def _named(news: pd.DataFrame) -> list[str]:
    out = []
    for signature, rows in news.groupby("signature", sort=False):
        first: Any = rows.iloc[0]
        like = isinstance(first["similar"], str) and first["likeness"] >= LEAST
        out.append("; ".join(filter(None, [
            f"a crash that was never seen here before: {signature}, on {listed(rows['host'].unique())}, {first['days_on_it']:.0f} days after the move",
            f"it matches the known issue {first['known_issues']}" if isinstance(first["known_issues"], str) else "",
            f"it resembles {first['similar']} ({100 * first['likeness']:.0f} % alike)" if like else "",
            "" if first["of_driver"] else "nothing lays it on this driver",
            "look at it, and accept it in the plan if it is harmless",
        ])))  # fmt: skip
    return out


def _stops(plan: RolloutPlan, judged: Judged, news: pd.DataFrame, expected: float) -> list[str]:
    out = []
    issue = news[news["names_version"].notna()]
    if len(issue):
        where, which = listed(issue["host"].unique()), issue["names_version"].iloc[0]
        out.append(f"a crash on {where} matches the known issue {which}, which names {plan.module} {plan.to}")
    fresh = news[news["of_driver"].astype(bool) & (news["days_on_it"] <= 7) & ~(news["likeness"] >= LEAST)]
    if len(fresh) and float(stats.poisson.sf(len(fresh) - 1, expected)) <= CHANCE:
        out.append(
            f"{counted(len(fresh), 'crash')} of a kind never seen here ({listed(fresh['signature'].unique(), 1)}) within a host's "
            f"first week on {plan.to}, on {listed(fresh['host'].unique())}; chance would give {expected:.2g}"
        )
    if judged.against == "stop":
        alarm = f"; the e-value reached {judged.e_value:,.0f}, alarm at {ALARM:.0f}"
        out.append(f"{_evidence(judged)}{alarm if judged.e_value >= ALARM else ''}")
    return out


def _judged(table: pd.DataFrame, since: pd.DataFrame, plan: RolloutPlan, weeks: Weeks) -> Judged:
    # What the past expects goes by model, drawn to the fleet's rate by one crash: old hardware is not the version's fault.
    model = table["model"].astype("string").fillna("") if "model" in table else pd.Series("", index=table.index)
    past = table[~table["new"] & table["version"].notna()].groupby(model)[["crashes", "host_days"]].sum()
    since = since[since["host"].isin(plan.waves["host"])]
    days = since["host_days"].groupby(model).sum()
    past = past.reindex(days.index).fillna(0).astype(float)
    expected = float((days * (past["crashes"] + 1) / (past["host_days"] + 1 / plan.rate)).sum())
    return judge(weeks, float(since["crashes"].sum()), expected, since["host"].nunique())


def _expected_news(fleet: Any, plan: RolloutPlan, since: pd.DataFrame) -> float:
    """New kinds of crash to expect in the hosts' first weeks were the new version as the old.

    References
    ----------
    Good 1953, Biometrika 40: the chance that the next one is unseen is near the share of kinds seen once.
    """
    crashes = fleet.crashes[fleet.crashes["guilty_module"].eq(plan.module).fillna(False)]
    kinds = crashes.loc[crashes["driver_version"].ne(plan.to).fillna(True), "signature"].value_counts()
    first_weeks = since.groupby("host")["host_days"].sum().clip(upper=7).sum()
    return plan.rate * float(first_weeks) * (int((kinds == 1).sum()) + 1) / (int(kinds.sum()) + 1)


def _evidence(judged: Judged) -> str:
    ratio = judged.ratio
    often = next((f"{round(1 / level):,}" for level in (NO_CHANCE, CHANCE) if judged.excess <= level), "")
    rare = f" and so many less than once in {often}" if often else ""
    return (
        f"the new version is worse with probability {in_words(ratio.p_worse)} ({ratio.ratio:.1f} times, 90 % range {ratio.low:.1f} to {ratio.high:.1f}, "
        f"against hosts of the same model in the same weeks); {counted(judged.crashes, 'crash')} on it, where the past would give "
        f"{judged.expected:.1f}{rare}"
    )


def _go_back(hosts: pd.DataFrame, fleet: Any) -> pd.DataFrame:
    # Those that a reboot would still load it on first, for they need none; then those that crashed, then by their users.
    why = np.array(["not loaded yet: take it off before the next boot", "crashed on it, and may again", "runs it"])
    mine = hosts[hosts["status"].isin(["moved", "waits_for_reboot"])]
    rank = np.where(mine["status"].eq("waits_for_reboot"), 0, np.where(mine["crashes"] > 0, 1, 2))
    known = by_name(fleet.hosts)
    users = pd.to_numeric(known["users"], errors="coerce") if "users" in known else pd.Series(dtype=float)
    users = mine["host"].map(users).fillna(0)
    mine = mine.assign(rank=rank, why=why[rank], users=users, to_version=mine["from_version"])
    mine = mine.sort_values(["rank", "users", "wave", "host"], ascending=[True, False, True, True], ignore_index=True)
    mine = mine.assign(order=np.arange(1, len(mine) + 1), turn=mine.groupby(mine["cluster"].fillna("")).cumcount() + 1)
    return mine[["order", "turn", "host", "cluster", "to_version", "why"]]


def _effect(table: pd.DataFrame, plan: RolloutPlan) -> pd.DataFrame:
    # Rates a host-year with exact 95 % intervals: before, the controls of the same weeks, and after.
    mine = table[table["host"].isin(plan.waves["host"])]
    old, new = mine[~mine["new"]], mine[mine["new"]]
    last, end = plan.waves["week"].max(), mine["end"].max()
    begin: Any
    until: Any
    out = []
    for what, rows, begin, until in (
        ("before, the year up to the start", old, plan.start - YEAR, plan.start),
        ("during, hosts not yet moved", old, plan.start, end),
        ("during, hosts moved", new, plan.start, last),
        ("since the last wave, all moved", new, last, end),
    ):
        rows = rows[(rows["end"] > begin) & (rows["start"] < until)]
        inside = (rows["end"].clip(upper=until) - rows["start"].clip(lower=begin)) / (rows["end"] - rows["start"])
        crashes, days = (
            float(rows.loc[rows["end"] <= until, "crashes"].sum()),
            float((rows["host_days"] * inside).sum()),
        )
        years = days / DAYS_PER_YEAR
        limits = (crashes / years, *exact.poisson_interval(crashes, years)) if years else (np.nan,) * 3
        out.append((what, rows["host"].nunique(), int(crashes), days, *limits))
    return pd.DataFrame(out, columns=EFFECT)
