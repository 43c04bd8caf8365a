"""What happened when: the facts around a crash, a row each."""

from __future__ import annotations

import re

import pandas as pd

from psodlib.triage.timeline import DUMP_NAME
from psodlib.views.document import Table
from psodlib.views.words import count, known, literal, moment, span
from psodlib.views.writeup.subject import Case, place_of

__all__ = ["ENDS", "UNDATED", "happening", "timeline_table"]

UNDATED = (
    "Of a fact whose time is unknown only the order is known: facts of one file stand as they follow each other in it; "
    "where they stand against the dated ones is open."
)


ENDS = {
    "crash": "this boot ended in a crash", "reboot": "until a planned reboot", "shutdown": "until a shutdown",
    "power": "until the power went", "unexplained": "until a stop that nothing explains", "running": "and still ran when the evidence ends",
}  # fmt: skip


def timeline_table(case: Case) -> Table:
    """The facts around the crash that are news, in order."""
    # Changes only: a version that was seen again the next day is no news.
    facts = case.timeline[case.timeline["lane"] != "watched"]
    bare = facts["what"] == f"{case.module} loaded"  # and no word of the version
    news = facts[(facts["lane"] != "driver") | ~(facts.duplicated(["lane", "what"]) | bare)]
    shown = news.tail(30)
    rows = [
        [moment(row["time"]).removesuffix(" UTC"), happening(case, row), place_of(row["source"], row["line"])]
        for _, row in shown.iterrows()
    ]
    left_out = len(news) - len(shown)
    notes = [
        f"{count(left_out, 'earlier fact')} left out." if left_out else "",
        UNDATED if shown["time"].isna().any() else "",
    ]
    note = " ".join(filter(None, notes))
    return Table(f"{case.host} around the crash", ["When (UTC)", "What", "Known from"], rows, note, widths=(22, 46, 32))


def happening(case: Case, row: pd.Series) -> str:
    """One fact of the timeline in words."""
    words = {"crash": "The crash", "another crash": "Another crash"}
    what, detail = words.get(str(row["what"]), literal(row["what"])), literal(row["detail"])
    if row["lane"] == "crash":
        return f"{what}: {detail}"
    if row["lane"] == "driver":
        return f"{what} (known from {detail.replace('_', ' ')})"
    if row["lane"] == "down":
        own = known(case.crash["time"]) and row["time"] == case.crash["time"]
        dump = (
            "the dump was written"
            if re.search(DUMP_NAME, str(row["source"]))
            else "a dump was written, if there is one"
        )
        told = f"; meanwhile {dump} and vSphere HA, where it is on, restarted its machines elsewhere" if own else ""
        return f"The host was down for {span(row['end'] - row['time'])}{told}"
    later = row["time"] > case.crash["time"] if known(row["time"]) and known(case.crash["time"]) else False
    since = f", {span(row['time'] - case.crash['time'])} after the crash" if later else ""
    return f"The host booted{since}; {ENDS.get(detail.removeprefix('ended by '), 'how it ended is not known')}"
