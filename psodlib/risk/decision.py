"""What do we run tomorrow: advice for every version from the one fit, and what it is worth."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from psodlib.errors import InputError
from psodlib.risk import exact
from psodlib.risk.cautions import counted, only_crashed_hosts
from psodlib.risk.comparison import ADJUST, Comparison
from psodlib.risk.exposure import Exposures, known_version
from psodlib.risk.frailty import ADVICE as PRIOR
from psodlib.risk.frailty import Draws
from psodlib.risk.rates import DAYS_PER_YEAR, RateRatio, crash_rates, ratio_of
from psodlib.schema import Cell

# Each advice, and how it is said.
ADVICE = {
    "keep": "",
    "move_now": "move its {hosts} now, one first and then cluster by cluster",
    "next_reboot": "move its {hosts} at their next planned reboot",
    "no_new_installs": "install it nowhere new",
    "leave": "leave it where it is; there is nothing to gain from a move yet",
}
MOVES = ("move_now", "next_reboot")
SURE, LIKELY, RATHER = 0.95, 0.80, 0.60  # that the best has the lower rate: move now, at a reboot, no new installs
NEAR = 1.25  # a pin may be this many times as bad as the truly best one
KNOWN_ISSUE = 2.0  # times: the rate expected of a version whose known issue was matched in this fleet
REBOOT_COST = 0.02  # crashes: what moving one host risks
PRIOR_CRASHES = PRIOR.version**-2  # what the prior of a version's rate is worth
MOST_CRASHES = 200


@dataclass(frozen=True, repr=False)
class PinDecision(Cell):
    """What to run, what to leave, what it is worth, and all that a reader needs to doubt it.

    ``verdict``: ``pin`` (one version may be standardised on), ``avoid`` (some should be left) or ``undecided`` (nothing to gain
    from a move yet). ``best`` has the lowest expected rate; ``pin`` is it, where it may be standardised on. ``options`` has one
    row a version, ``moves`` one row a host to move. ``crashes_if_stay`` and ``crashes_if_followed``: a year, the whole fleet.
    """

    verdict: str
    pin: str | None
    best: str
    avoid: tuple[str, ...]
    options: pd.DataFrame
    moves: pd.DataFrame
    crashes_if_stay: float
    crashes_if_followed: float
    reasons: tuple[str, ...]
    ratios: tuple[RateRatio, ...]
    host_days_needed: Mapping[str, float | None]
    would_change: tuple[str, ...]

    def __str__(self) -> str:
        head = {"pin": f"Pin {self.pin}.", "undecided": "Undecided: nothing to gain from a move yet."}
        head["avoid"] = f"Move off {', '.join(self.avoid)}; pin nothing yet."
        return "\n".join([head[self.verdict], *(f"- {reason}" for reason in self.reasons)])

    def as_frame(self) -> pd.DataFrame:
        """The evidence, one row a contrast: ``ratio``, ``low``, ``high`` are ``NA`` where unbounded; ``text`` says them in words."""
        rows = [
            (r.version, r.reference, *r.interval.finite(), str(r.interval), r.method, r.p_lower, r.p_value, *r.crashes, *r.host_days)
            for r in self.ratios
        ]  # fmt: skip
        names = [
            "version", "reference", "ratio", "low", "high", "text", "method", "p_lower", "p_value", "crashes",
            "reference_crashes", "host_days", "reference_host_days",
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=names).astype(dict.fromkeys(["ratio", "low", "high"], "Float64"))


def decide_pin(
    exposure: Exposures, candidates: Sequence[str] | None = None, *, reference: str | None = None,
    adjust: Sequence[str] = ADJUST, alpha: float = 0.05, known: Mapping[str, Sequence[str]] | None = None,
    now: pd.DataFrame | None = None, before: PinDecision | str | None = None, reboot_cost: float = REBOOT_COST,
) -> PinDecision:  # fmt: skip
    """What to run tomorrow: advice for every version, with what following it is worth.

    Parameters
    ----------
    exposure, adjust, alpha
        As for ``rate_ratio``.
    candidates : sequence of str, optional
        The versions to choose from; default: all that have watched host-days.
    reference : str, optional
        One of the candidates that ``ratios`` are held against; default: the best.
    known : mapping of version to ids, optional
        Known issues of a version whose signature was matched in this fleet; default: ``exposure.attrs["known_issues"]``.
    now : pandas.DataFrame, optional
        Who runs what today, as ``fleet.now(module)``; default: the version of each host's last stretch.
    before : PinDecision or str, optional
        The decision followed so far, or the version that it moves hosts to: turned round only at a probability of 0.95.
    reboot_cost : float
        Crashes that moving one host risks.

    Returns
    -------
    PinDecision

    Raises
    ------
    InputError
        Fewer than two candidates, or one that no host loaded; crashes without host-days; only hosts that crashed.

    Notes
    -----
    One penalised frailty model of all versions gives draws of their rates, half from the crashes known to be the driver's
    and half with the unexplained ones. ``best`` has the lowest mean rate. With P the probability that its rate is below a
    version's, and net the crashes a year that moving its hosts avoids less ``reboot_cost`` for each: P >= 0.95 and net > 0
    ``move_now``; P >= 0.8 and net > 0 ``next_reboot``; P >= 0.6 ``no_new_installs``; else ``leave``. Where a version shares
    hardware or months with the best for less than 20 %, nothing above ``next_reboot`` and no pin. A pin needs P(rate of
    best <= 1.25 times the lowest) >= 0.95.
    """
    exact.check_share(alpha, "alpha")
    if not isinstance(reboot_cost, numbers.Real) or not 0 <= reboot_cost < math.inf:
        raise InputError(f"reboot_cost is {reboot_cost!r}; expected crashes risked by moving a host, 0 or more")
    comparison = Comparison(exposure, adjust)
    names = _candidates(comparison, candidates, reference)
    found = comparison.known_issues if known is None else known
    issues = {str(name): (ids,) if isinstance(ids, str) else tuple(ids) for name, ids in found.items() if len(ids)}
    running = comparison.last  # host, version, cluster of today
    if now is not None:
        clusters = now["host"].map(running.set_index("host")["cluster"])
        running = pd.DataFrame({"host": now["host"], "version": now["version"], "cluster": clusters})
    weighed = _Weighed(comparison, names, running, dict.fromkeys(issues, KNOWN_ISSUE))
    best, rate, standing = weighed.best, weighed.rate, weighed.standing
    caps = {name: cap for name in names if name != names[best] and (cap := comparison.told_apart(name, names[best]))}
    advice = [_advice(weighed, at, caps, before, float(reboot_cost)) for at in range(len(names))]
    options = _options(crash_rates(comparison.table, alpha=alpha), weighed, advice, issues)
    word = dict(zip(names, advice, strict=True))
    avoid = tuple(name for name in names if word[name] in MOVES)
    near = float(np.mean(rate[:, best] <= NEAR * rate.min(axis=1)))
    pin = names[best] if near >= SURE and not caps else None
    against = reference or names[best]
    ratios = tuple(ratio_of(comparison, name, against, alpha) for name in names if name != against)
    stay, follow = standing * rate, standing * np.where(np.isin(names, avoid), rate[:, [best]], rate)
    # Where hardware or months part two versions, time on one alone tells nothing of the other.
    parted = [(names[weighed.rival(at)] if at == best else name) in caps for at, name in enumerate(names)]
    needed = {name: None if parted[at] else weighed.host_days_needed(at) for at, name in enumerate(names)}
    return PinDecision(
        verdict="pin" if pin else "avoid" if avoid else "undecided", pin=pin, best=names[best], avoid=avoid, options=options,
        moves=_moves(running, names[best], word), crashes_if_stay=float(stay.sum(axis=1).mean()),
        crashes_if_followed=float(follow.sum(axis=1).mean()),
        reasons=tuple(_reasons(weighed, options, near, caps, issues, ratios)), ratios=ratios, host_days_needed=needed,
        would_change=tuple(_would_change(weighed, needed, int(comparison.cells.unknown.sum()))),
    )  # fmt: skip


class _Weighed:
    # The draws by candidate: rates a host-year and what the hosts on each would crash at rate 1, shape (draws, versions).
    def __init__(
        self, comparison: Comparison, names: list[str], running: pd.DataFrame, factors: dict[str, float]
    ) -> None:
        draws: Draws = comparison.draws(factors, running)
        at = [draws.versions.index(name) for name in names]
        # by column, as the sums over draws are taken
        self.rate: Any = np.column_stack([draws.rate[:, each] for each in at]) * DAYS_PER_YEAR
        self.standing: Any = np.column_stack([draws.standing[:, each] for each in at])
        self.names, self.sets, self.best = names, draws.sets, int(np.argmin(self.rate.mean(axis=0)))
        self.hosts = [int((running["version"] == name).sum()) for name in names]
        known = comparison.cells.by_version(comparison.cells.known)
        self.crashes = [known[name] for name in names]

    def worse(self, at: int, part: slice = slice(None)) -> float:
        """Probability that the best version has a lower rate than this one."""
        return float(np.mean(self.rate[part, self.best] < self.rate[part, at]))

    def avoided(self, at: int) -> Any:
        """Crashes a year that moving this version's hosts to the best avoids, by draw."""
        return self.standing[:, at] * (self.rate[:, at] - self.rate[:, self.best])

    def rival(self, at: int) -> int:
        """Whom a version is measured by: the best; the best by the one that comes nearest to it."""
        others = [other for other in range(len(self.names)) if other != at]
        return min(others, key=self.worse) if at == self.best else self.best

    def contrast(self, at: int, rival: int) -> tuple[float, float, float]:
        """Of ln(rate / rate of the rival): its mean, and the variances that either one brings: as their crashes are few."""
        logs = np.log(self.rate[:, at] / self.rate[:, rival])
        few = [1 / (self.crashes[each] + PRIOR_CRASHES) for each in (at, rival)]
        whole = float(np.var(logs))
        return float(np.mean(logs)), whole * few[0] / sum(few), whole * few[1] / sum(few)

    def host_days_needed(self, at: int) -> float | None:
        """Further host-days on one version alone until it can be told from its rival at 0.95; 0 where it can be.

        Notes
        -----
        With m the mean of the log ratio and s2, t2 the variances of the two log rates: the version's own must fall to
        (m / 1.645)^2 - t2, to which each further crash adds 1 to 1 / s2. None where t2 alone is too much.
        """
        rival = self.rival(at)
        if self.worse(rival if at == self.best else at) >= SURE:
            return 0.0
        middle, own, others = self.contrast(at, rival)
        wanted = (middle / float(special.ndtri(SURE))) ** 2 - others
        if wanted <= 0:
            return None
        more = (1 / wanted - 1 / own) / (float(self.rate[:, at].mean()) / DAYS_PER_YEAR)
        return float(max(math.ceil(more), 1))

    def undoing(self, at: int) -> int | None:
        """Crashes on the best version that bring the probability below 0.8: each adds 1 to the shape 1 / variance of its rate."""
        middle, own, best = self.contrast(at, self.best)
        shape = 1 / best
        for more in range(1, MOST_CRASHES):
            if special.ndtr((middle - math.log1p(more / shape)) / math.sqrt(own + 1 / (shape + more))) < LIKELY:
                return more
        return None


def _advice(
    weighed: _Weighed, at: int, caps: Mapping[str, str], before: PinDecision | str | None, reboot_cost: float
) -> str:
    if at == weighed.best:
        return "keep"
    chance, name, best = weighed.worse(at), weighed.names[at], weighed.names[weighed.best]
    gain = float(weighed.avoided(at).mean()) - reboot_cost * weighed.hosts[at] > 0
    # What was moved already is moved back only when sure.
    if isinstance(before, PinDecision):
        back = bool(before.avoid) and (name == before.best or best in before.avoid)
    else:
        back = before is not None and best != before
    if chance >= SURE and gain:
        return "next_reboot" if name in caps else "move_now"
    if chance >= LIKELY and gain and not back:
        return "next_reboot"
    return "no_new_installs" if chance >= RATHER and not back else "leave"


def _options(
    measured: pd.DataFrame, weighed: _Weighed, advice: Sequence[str], issues: Mapping[str, tuple[str, ...]]
) -> pd.DataFrame:
    lowest = np.bincount(np.argmin(weighed.rate, axis=1), minlength=len(weighed.names)) / len(weighed.rate)
    fleet = weighed.standing.sum(axis=1)
    rows = []
    for at, name in enumerate(weighed.names):
        row: Any = measured.loc[name]
        avoided = weighed.avoided(at)
        rows.append({
            "version": name, "hosts_now": weighed.hosts[at], "crashes": int(row["crashes"]), "host_days": float(row["host_days"]),
            **{column: float(row[column]) * DAYS_PER_YEAR for column in ("rate", "low", "high")},
            "p_best": float(lowest[at]), "p_worse": weighed.worse(at), "crashes_a_year": float((fleet * weighed.rate[:, at]).mean()),
            "avoided": float(avoided.mean()), "avoided_low": float(np.quantile(avoided, 0.05)),
            "avoided_high": float(np.quantile(avoided, 0.95)), "advice": advice[at], "known_issues": ";".join(issues.get(name, ())) or None,
        })  # fmt: skip
    dtypes = {"version": "string", "known_issues": "string", "hosts_now": "Int64", "crashes": "Int64"}
    return pd.DataFrame(rows).astype({**dtypes, "advice": pd.CategoricalDtype(list(ADVICE))})


def _moves(running: pd.DataFrame, best: str, advice: Mapping[str, str]) -> pd.DataFrame:
    # Cluster by cluster, those to move now first.
    out = running[["host", "cluster", "version"]].astype("string").set_axis(["host", "cluster", "from_version"], axis=1)
    told = out["from_version"].astype(object).map(dict(advice))
    out = out.assign(to_version=pd.array([best] * len(out), dtype="string"), advice=pd.Categorical(told, list(ADVICE)))
    return out[told.isin(MOVES)].sort_values(["advice", "cluster", "host"], kind="stable", ignore_index=True)


def _candidates(comparison: Comparison, candidates: Sequence[str] | None, reference: str | None) -> list[str]:
    timed = comparison.watched()
    if not isinstance(candidates, Iterable | None):
        raise InputError(f"candidates is {candidates!r}; expected a list of versions")
    asked = timed if candidates is None else [candidates] if isinstance(candidates, str) else list(candidates)
    if any(not pd.api.types.is_scalar(name) or pd.isna(name) for name in asked):
        raise InputError(f"the candidates {asked} hold one that is no version; name each by its version, as 5.5.0.58")
    names = list(dict.fromkeys(known_version(name, timed) for name in asked))
    if len(names) < 2:
        only = f"{names[0]} alone" if names else "no version"
        raise InputError(f"found {only} with watched host-days; a decision needs two or more versions to choose from")
    if reference is not None and reference not in names:
        raise InputError(f"the reference {reference} is not among the candidates {', '.join(map(str, names))}; add it")
    if only_crashed_hosts(comparison.table):
        raise InputError(
            "every host in the table has crashed, so it was chosen by its crashes and no rate follows; give the whole roster, "
            "hosts without a crash too"
        )
    return names


# ---- what is said ------------------------------------------------------------------------------------------------------


def _reasons(
    weighed: _Weighed, options: pd.DataFrame, near: float, caps: Mapping[str, str],
    issues: Mapping[str, tuple[str, ...]], ratios: Sequence[RateRatio],
) -> list[str]:  # fmt: skip
    best = weighed.names[weighed.best]
    out = [
        f"{best} has the lowest expected rate; that it is truly the lowest has probability {in_words(options['p_best'][weighed.best])}, "
        f"that it is within {100 * (NEAR - 1):.0f} % of the lowest {in_words(near)}"
    ]
    rows: Any = options[options["version"] != best].sort_values("p_worse", ascending=False).itertuples()
    for row in rows:
        hosts = counted(row.hosts_now, "host")
        told = f"{row.version}: {ADVICE[row.advice].format(hosts=hosts)}. {best} crashes less with probability {in_words(row.p_worse)}"
        low, high = row.avoided_low, row.avoided_high
        if row.hosts_now and low >= 0:
            told += f"; moving its {hosts} avoids {_figure(row.avoided)} crashes a year ({_figure(low)} to {_figure(high)}, 90 % range)"
        elif row.hosts_now:
            told += f"; moving its {hosts} may avoid up to {_figure(max(high, 0))} crashes a year or bring up to "
            told += f"{_figure(-low)} more (90 % range)"
        out.append(told)
    moved = set(options.loc[options["advice"].isin(MOVES), "version"])
    capped = "nothing more urgent than the next planned reboot is advised, and no pin, because"
    out += [f"{name}: {capped if name in moved else 'no pin, because'} {why}" for name, why in caps.items()]
    matched = {name: ", ".join(ids) for name, ids in issues.items() if name in weighed.names}
    twice = "so the rule starts from twice the rate for it"
    out += [f"{name}: crashes here match the known issue {ids}, {twice}" for name, ids in matched.items()]
    # Each warning once; one that not all contrasts share says whose it is.
    for warning in dict.fromkeys(warning for ratio in ratios for warning in ratio.warnings):
        mine = [f"{ratio.version} against {ratio.reference}" for ratio in ratios if warning in ratio.warnings]
        if warning not in caps.values():
            out.append(warning if len(mine) == len(ratios) else f"{'; '.join(mine)}: {warning}")
    return out


def _would_change(weighed: _Weighed, needed: Mapping[str, float | None], unknown: int) -> list[str]:
    names, best = weighed.names, weighed.best
    found = []
    for at, (name, days) in enumerate(needed.items()):
        rival = names[weighed.rival(at)]
        if days is None:
            alone = f"no number of further host-days on {name} alone would tell it from {rival}"
            found.append(f"{alone}: both need more, on the same hardware in the same months")
        elif days:
            about = f"about {float(f'{days:.2g}'):,.0f} further host-days on {name}"  # known no better
            found.append(f"{about}, crashing as so far, could tell it from {rival}")
    others = [at for at in range(len(names)) if at != best]
    for at in others:
        if weighed.worse(at) >= LIKELY and (more := weighed.undoing(at)):
            crashes = f"{more} more {'crash' if more == 1 else 'crashes'}"
            found.append(f"{crashes} on {names[best]} in the time it has would undo the advice on {names[at]}")
    # Versions whose advice would be another, were the unexplained crashes known to be the driver's or known not to be.
    them = f"the {counted(unknown, 'crash')} that {'names' if unknown == 1 else 'name'} none"
    for at in others:
        worse = [weighed.worse(at, part) for part in weighed.sets]
        if len(set(np.searchsorted([RATHER, LIKELY, SURE], worse, "right"))) > 1 and unknown:
            found.append(f"{names[at]}: to find the module of {them} would change how sure this is")
    return found


def _figure(number: float) -> str:
    return f"{number:.1f}" if abs(number) < 100 else f"{number:,.0f}"


def in_words(chance: float) -> str:
    """A probability that is never said to be certain."""
    return "above 0.99" if chance > 0.99 else "below 0.01" if chance < 0.01 else f"{chance:.2f}"
