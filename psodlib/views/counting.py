"""How the crashes are counted: from the stops of hosts to the crashes that stand in the rates. One count for every page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from psodlib.risk.exposure import unplaced_crashes
from psodlib.views.document import Table
from psodlib.views.words import count

__all__ = ["Counts", "count_crashes", "reconciliation"]


@dataclass(frozen=True)
class Counts:
    """Every figure that a page may say of crashes; each line of ``reconciliation`` is one of them."""

    stops: int  # boots that ended, for whatever reason
    planned: int  # reboots, shutdowns and power-offs among them
    unexplained: int  # that left no explanation
    unclear: int  # whose end no evidence shows
    crashed: int  # that ended in a crash
    no_boot: int  # crash texts that no known boot ended in
    lost_text: int  # crashes whose text is lost
    texts: int  # crashes with a text
    deliberate: int  # of them asked for by a person
    hardware: int  # of them a hardware error
    nobody: int  # of them with no module found
    others: int  # of them caused by another module
    module: int  # of them caused by the driver in question
    unwatched: int  # of those, in time that nobody watched
    repeats: int  # of those, repeats in a boot loop
    no_version: int  # of those, while nobody knows which version was loaded
    in_rates: int  # of those, in the rates


def count_crashes(fleet: Any, module: str, exposure: pd.DataFrame) -> Counts:
    """The counts of one fleet and one driver."""
    crashes, ends = fleet.crashes, fleet.uptimes["end_reason"].astype("string")
    crashed = int((ends == "crash").sum())
    lost = int(((ends == "crash") & fleet.uptimes["crash_id"].isna()).sum())
    deliberate = crashes["deliberate"].fillna(False).astype(bool)
    causes = [(crashes["guilt"] == word).fillna(False) & ~deliberate for word in ("hardware", "none")]
    mine = (crashes["guilty_module"] == module).fillna(False) & ~deliberate
    unwatched = unplaced_crashes(fleet, module)
    away = int((unwatched["guilty_module"] == module).fillna(False).sum())
    counted = exposure.groupby(exposure["version"].isna())["crashes"].sum()
    in_rates, no_version = (int(counted.get(unknown, 0)) for unknown in (False, True))
    return Counts(
        stops=int((~ends.isin(["running"])).sum()),
        planned=int(ends.isin(["reboot", "shutdown", "power"]).sum()),
        unexplained=int((ends == "unexplained").sum()),
        unclear=int((ends == "unknown").sum()),
        crashed=crashed,
        no_boot=len(crashes) - (crashed - lost),
        lost_text=lost,
        texts=len(crashes),
        deliberate=int(deliberate.sum()),
        hardware=int(causes[0].sum()),
        nobody=int(causes[1].sum()),
        others=int((~(mine | causes[0] | causes[1] | deliberate)).sum()),
        module=int(mine.sum()),
        unwatched=away,
        repeats=max(int(mine.sum()) - away - in_rates - no_version, 0),
        no_version=no_version,
        in_rates=in_rates,
    )


def reconciliation(counts: Counts, module: str) -> Table:
    """The counts as a table that adds up, line by line."""
    crashes = counts.texts + counts.lost_text
    lines = [
        ("Times a host stopped", counts.stops, ""),
        ("- planned", counts.planned, "reboots, shutdowns and power-offs"),
        ("- unexplained", counts.unexplained, "each may be a crash whose dump was lost; not counted as one"),
        ("- end not seen", counts.unclear, "the logs end before the boot does"),
        ("+ crash in no known boot", counts.no_boot, "its text was found, but not the boot that it ended"),
        ("= crashes", crashes, ""),
        ("- text lost", counts.lost_text, "the host came back from a crash, and no dump or log tells more; counted as unknown cause"),
        ("= crashes with a text", counts.texts, ""),
        ("- asked for", counts.deliberate, "a person made the host crash"),
        ("- hardware errors", counts.hardware, "the platform reported that it failed"),
        ("- other modules", counts.others, ""),
        ("- no module found", counts.nobody, "the ratio is given with and without them"),
        (f"= caused by {module}", counts.module, ""),
        ("- outside watched time", counts.unwatched, "no logs around them, so they are in no rate"),
        ("- repeats", counts.repeats, "in a boot loop, within an hour of uptime; counted once"),
        ("- version not known", counts.no_version, f"which {module} was loaded is not known"),
        ("= counted in the rates", counts.in_rates, ""),
    ]  # fmt: skip
    kept = [(step, f"{number:,}", why) for step, number, why in lines if number or step.startswith("=")]
    totals = {at for at, (step, *_) in enumerate(kept) if not step.startswith(("-", "+"))}
    return Table("", ["Step", "Crashes", "What it means"], kept, widths=(28, 12, 60), marked=totals)


def summary(counts: Counts, module: str) -> str:
    """The reconciliation in one sentence."""
    crashes = count(counts.texts + counts.lost_text, "crash", "crashes")
    return f"{crashes}; {counts.module:,} caused by {module}, {counts.in_rates:,} of them counted in the rates."
