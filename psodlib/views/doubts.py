"""What could make the answer wrong, and what the evidence lacks: the same sentences on every page."""

from __future__ import annotations

from psodlib.views.study import Study
from psodlib.views.subject import unheard
from psodlib.views.words import count, literal, share

__all__ = ["as_sentence", "doubts", "only_crashed", "unknowns"]

WEAK_SPOTS = (
    "By design the rule acts before proof. Tried on simulated fleets without any true difference, it still moved some hosts in 4 of 10: "
    "reboots for nothing, but no more crashes.",
    "Whoever looks every two weeks will see even a 95 % advice appear by chance at some look, in up to 15 of 100 fleets.",
)


def doubts(study: Study) -> list[str]:
    """What could make the answer wrong: what the decision warns of, what the evidence lacks, and the rule's own weak spots."""
    decision = study.decision
    own = [as_sentence(reason) for reason in decision.reasons[len(decision.options) :]] if decision else []
    return [*own, *unknowns(study), *(WEAK_SPOTS if decision else ())]


def as_sentence(words: object) -> str:
    """The decision speaks in clauses; a page wants a capital letter and a full stop."""
    text = literal(words).strip()
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


def unknowns(study: Study) -> list[str]:
    """What the evidence lacks, and how much of it there is."""
    fleet = study.fleet
    lived, watched = (fleet.uptimes[name].dt.total_seconds().sum() / 86400 for name in ("uptime", "observed"))
    gap = lived - watched
    unnamed = study.exposure.loc[study.exposure["version"].isna(), "host_days"].sum()
    unread = int((~fleet.problems["problem"].isin(["no_evidence", "no_host", "unplaced_crash", "unused"])).sum())
    homeless = int((fleet.problems["problem"] == "no_host").sum())
    silent = len(unheard(fleet))
    only = only_crashed(study)
    lines = [
        (gap >= 1, f"{count(gap, 'host-day')} ({share(gap, lived)} of the time hosts were up) have no logs; crashes in them are not counted."),
        (unnamed, f"For {count(unnamed, 'host-day')} it is not known which version of {study.module} was loaded."),
        (silent, f"{count(silent, 'host')} of the inventory left no evidence at all."),
        (only, only),
        (homeless, f"{count(homeless, 'file names', 'files name')} no host; what they hold is in no rate."),
        (unread, f"{count(unread, 'file or line', 'files or lines')} could not be read or believed; tables/problems.csv lists them."),
    ]  # fmt: skip
    return [line for holds, line in lines if holds]


def only_crashed(study: Study) -> str:
    """Dumps are sent in by those who crashed: a fleet of such hosts alone has rates that no other fleet has."""
    fleet = study.fleet
    hosts = set(fleet.uptimes["host"].dropna()) | set(fleet.crashes["host"].dropna())
    if len(hosts) < 2 or not hosts <= set(fleet.crashes["host"].dropna()):
        return ""
    return f"All {len(hosts):,} hosts in the evidence crashed. If only hosts that crashed were collected, every rate here is too high."
