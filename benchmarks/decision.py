"""What following the advice is worth: regret of ``decide_pin`` on made-up fleets whose true rates are known.

    python benchmarks/decision.py --fleets 100 --results decision.jsonl

Five cases of 60 hosts and a year (true ratios of .58 and .60 to .50), with roll-out, roll-back, frail hosts and missing
attribution. Regret is the crashes a fleet-year above what the best single version would give. A move is for the worse
where following the advice gives more crashes than staying; a pin is wrong where its true rate is above the lowest. Below:
the probabilities that were said against the share that was true, and the avoided crashes said against those true.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from psodlib.risk.decision import decide_pin
from psodlib.simulate.process import VERSIONS, History, simulate_history

CASES: dict[str, tuple[float, float] | None] = {
    "3:1": (3.0, 1.0),
    "1.5:1": (1.5, 1.0),
    "1:3": (1.0, 3.0),
    "3:.5": (3.0, 0.5),
    "1:1": (1.0, 1.0),
    "drawn": None,
}  # None: each ln ratio ~ N(0, 0.7^2), for the calibration of what is said
# The roll-out of 18 months in twelve.
YEAR = {
    "rollout_58_days": (133.0, 80.0, 193.0),
    "rollout_58_spread": 40.0,
    "rollout_60_days": (233.0, 300.0),
    "late_days": 243.0,
}


def ratios(case: str, seed: int) -> tuple[float, float]:
    """The true ratios of .58 and .60 to .50."""
    found = CASES[case]
    if found is None:
        one, other = np.exp(np.random.default_rng(seed).normal(0, 0.7, 2)).tolist()
        return one, other
    return found


def fleet(case: str, seed: int, hosts: int = 60, days: float = 365) -> History:
    """A made-up fleet of one of the cases."""
    one, other = ratios(case, seed)
    return simulate_history(hosts, days, max(hosts // 6, 1), seed, ratio_58=one, ratio_60=other, **YEAR)


def truth(history: History, now: pd.Series) -> tuple[pd.Series, dict[str, float]]:
    """What each host would crash a year at ratio 1, and the true ratio of each version."""
    base = history.parameters.driver_rate * history.hosts["hazard"] * history.hosts["frailty"]
    return pd.Series(base.to_numpy(), index=history.hosts["host"]).reindex(now.index), dict(
        zip(VERSIONS, (1.0, history.parameters.ratio_58, history.parameters.ratio_60), strict=True)
    )


def one_fleet(case: str, seed: int) -> dict[str, Any]:
    """The outcome of following the advice in one fleet."""
    history = fleet(case, seed)
    table = history.exposure()
    now = table.sort_values("end").groupby("host")["version"].last()
    hazard, ratio = truth(history, now)
    began = time.process_time()
    decision = decide_pin(table)
    spent = time.process_time() - began
    options = decision.options.set_index("version")
    after = now.copy()
    after[decision.moves["host"].to_numpy()] = decision.moves["to_version"].to_numpy()
    least = min(ratio[name] for name in options.index)

    def regret(running: pd.Series) -> float:
        return float((hazard * (running.map(ratio) - least)).sum())

    said = [
        (float(row["p_worse"]), ratio[decision.best] < ratio[name], ratio[decision.best] == ratio[name])
        for name, row in options.iterrows()
        if name != decision.best
    ]
    lowest = options["rate"].astype(float).where(options["crashes"] > 0, (0.5 / options["host_days"]) * 365.25).idxmin()
    return {
        "case": case, "seed": seed, "stay": regret(now), "followed": regret(after), "seconds": spent,
        "raw": regret(pd.Series(str(lowest), index=now.index)), "pin": decision.pin,
        "wrong_pin": decision.pin is not None and ratio[decision.pin] > least, "moved": len(decision.moves),
        "said": said, "avoided": float(decision.crashes_if_stay - decision.crashes_if_followed), "advice": options["advice"].astype(str).to_dict(),
    }  # fmt: skip


def rows(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a case, and all together."""
    out = []
    fixed = [name for name, found in CASES.items() if found]
    for case in [*CASES, "the five"]:
        mine = [line for line in lines if line["case"] == case or (case == "the five" and line["case"] in fixed)]
        if not mine:
            continue
        stay, followed, raw = (float(np.mean([line[name] for line in mine])) for name in ("stay", "followed", "raw"))
        worse = np.mean([line["followed"] > line["stay"] + 1e-9 for line in mine])
        out.append({
            "case": case, "fleets": len(mine), "regret staying": f"{stay:.1f}", "regret following": f"{followed:.1f}",
            "of staying": f"{100 * followed / stay:.0f} %" if stay else "-", "lowest raw rate": f"{100 * raw / stay:.0f} %" if stay else "-",
            "moves for the worse": f"{100 * worse:.1f} %", "pins": sum(line["pin"] is not None for line in mine),
            "wrong pins": f"{100 * np.mean([line['wrong_pin'] for line in mine]):.1f} %",
            "some move": f"{100 * np.mean([line['moved'] > 0 for line in mine]):.0f} %",
        })  # fmt: skip
    return out


def calibration(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Said probabilities against the share that was true, in the fleets whose ratios were drawn."""
    said = np.array([(p, true) for line in lines if line["case"] == "drawn" for p, true, _ in line["said"]]).reshape(
        -1, 2
    )
    edges = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0001)
    out = []
    for low, high in itertools.pairwise(edges):
        mine = said[(said[:, 0] >= low) & (said[:, 0] < high)]
        if len(mine):
            out.append({"said": f"{mine[:, 0].mean():.2f}", "true": f"{mine[:, 1].mean():.2f}", "pairs": len(mine)})
    return out


def table_text(found: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    if not found:
        return ""
    names = list(found[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in found)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fleets", type=int, default=100, help="of each case")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seed", type=int, default=20141127)
    parser.add_argument("--results", type=Path, default=Path("decision.jsonl"))
    options = parser.parse_args()
    text = options.results.read_text() if options.results.exists() else ""
    lines = [json.loads(line) for line in text.splitlines()]
    done = {(line["case"], line["seed"]) for line in lines}
    with options.results.open("a") as file:
        for seed in range(options.seed, options.seed + options.fleets):
            for case in options.cases:
                if (case, seed) not in done:
                    lines.append(one_fleet(case, seed))
                    file.write(json.dumps(lines[-1]) + "\n")
    print(table_text(rows(lines)) + "\n\n" + table_text(calibration(lines)))
    predicted, true = (
        sum(values)
        for values in zip(*((line["avoided"], line["stay"] - line["followed"]) for line in lines), strict=True)
    )
    print(
        f"\navoided crashes, said over true: {predicted / true:.2f}; {np.mean([line['seconds'] for line in lines]):.2f} s a decision"
    )


if __name__ == "__main__":
    main()
