"""The brief's orders: verdict, advice, orders and what is forbidden never contradict each other, whatever the story."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from views import hand_made

from psodlib.fleet import Fleet
from psodlib.views import brief as said
from psodlib.views import charts
from psodlib.views.document import to_markdown
from psodlib.views.study import Study, study


def story(rates: dict[str, float], hosts: int = 40, days: int = 400, seed: int = 1) -> Fleet:
    """A fleet whose hosts run one version each, crashing at these rates a year."""
    rng = np.random.default_rng(seed)
    whole = hand_made.fleet(hosts=hosts, crashing=0)
    crash_rows = hand_made.fleet(hosts=1, crashing=1).crashes
    names = [list(rates)[i % len(rates)] for i in range(hosts)]
    boots: list[dict[str, Any]] = []
    crashes, drivers, coverage = [], [], []
    for number, version in enumerate(names):
        host = f"esx{number:02d}"
        at = [
            hand_made.START + pd.Timedelta(days=float(day))
            for day in np.cumsum(rng.exponential(365 / max(rates[version], 1e-9), 20))
            if day < days
        ]
        edges = [hand_made.START, *at, hand_made.START + pd.Timedelta(days=days)]
        for step, (boot, end) in enumerate(zip(edges, edges[1:], strict=False)):
            crash_id = f"c{number:07d}{step:08d}" if end in at else None
            boots.append({"host": host, "boot": boot, "end": end, "uptime": end - boot, "observed": end - boot,
                          "end_reason": "crash" if crash_id else "running", "crash_id": crash_id, "evidence": "heartbeat", "source": "x"})  # fmt: skip
            coverage.append({"host": host, "boot": boot, "start": boot, "end": end})
            drivers.append(
                {
                    "host": host,
                    "module": "hpsa",
                    "version": version,
                    "state": "loaded",
                    "observed_at": boot,
                    "boot": boot,
                    "evidence": "banner",
                    "source": "x",
                    "line": 1,
                }
            )
            if crash_id:
                crashes.append(
                    {
                        **crash_rows.iloc[0].to_dict(),
                        "crash_id": crash_id,
                        "host": host,
                        "time": end,
                        "driver_version": version,
                    }
                )
    from psodlib import schema

    clusters = [f"cluster{number // 8}" for number in range(hosts)]
    return Fleet(
        hosts=whole.hosts.assign(cluster=clusters), crashes=schema.build("crashes", crashes), uptimes=schema.build("uptimes", boots),
        drivers=schema.build("drivers", drivers), coverage=schema.build("coverage", coverage), simulated=True,
    )  # fmt: skip


STORIES = {
    "three times as bad": {"5.5.0.50": 0.5, "5.5.0.58": 2.5},
    "the newer one is bad": {"5.5.0.50": 0.4, "5.5.0.60": 3.0},
    "all alike": {"5.5.0.50": 1.0, "5.5.0.58": 1.0, "5.5.0.60": 1.0},
    "one of three": {"5.5.0.50": 0.3, "5.5.0.58": 3.0, "5.5.0.60": 0.3},
    "no crash": {"5.5.0.50": 0.0, "5.5.0.60": 0.0},
    "one version": {"5.5.0.58": 2.0},
    "oem tails": {"5.5.0.50": 0.5, "5.5.0.84": 4.0, "5.5.0.124": 0.5},
}


@pytest.fixture(
    scope="module", params=[(name, seed) for name in STORIES for seed in (1, 2)], ids=lambda p: f"{p[0]}, {p[1]}"
)
def told(request: pytest.FixtureRequest) -> Study:
    name, seed = request.param
    return study(story(STORIES[name], seed=seed), "hpsa")


def test_verdict_advice_and_orders_agree(told: Study) -> None:
    decision = told.decision
    page = to_markdown(said.brief(told))
    if decision is None:
        assert "| Owner |" not in page and told.why_none
        return
    options = decision.options.set_index("version")
    moved = set(options.index[options["advice"].isin(["move_now", "next_reboot"])])
    assert set(decision.avoid) == moved and set(decision.moves["from_version"]) <= moved
    assert options.loc[decision.best, "advice"] == "keep" and decision.best not in moved
    verdict = said.verdict(told)
    for version in options.index:
        ordered = f"hpsa {version} to {decision.best}" in verdict
        assert ordered == (version in moved and options.loc[version, "hosts_now"] > 0)
    orders = " ".join(to_markdown(said._document(told, "", "", [said.Section("x", said.orders(told))])).split())
    hosts = set(re.findall(r"esx\d\d", orders))
    assert hosts <= set(decision.moves["host"])
    forbidden = " ".join(said.forbidden(told))
    for version in moved:
        assert f"install hpsa {version}" in forbidden or "," in forbidden or " and " in forbidden
        assert f"move hosts off {version} because" not in forbidden
    if decision.pin:
        assert verdict.startswith(f"Standardise on hpsa {decision.pin}.") and "the standard yet" not in forbidden
    else:
        assert "Standardise" not in verdict
    assert sum(int(n) for n in options["hosts_now"]) == len(told.fleet.hosts)


def test_the_chart_and_the_page_give_the_same_advice(told: Study) -> None:
    table = charts.numbers(charts.plot_options(told.decision))
    title, _, _ = charts.wording(charts.plot_options(told.decision))
    if told.decision is None:
        assert table.empty and "nothing to choose" in title
        return
    assert dict(zip(table["version"], table["advice"], strict=True)) == {
        row.version: str(row.advice) for row in told.decision.options.itertuples()
    }
    assert ("change nothing" in title) == told.decision.moves.empty


def test_a_bad_version_is_left_and_a_true_tie_is_not_called_proven() -> None:
    bad = study(story(STORIES["three times as bad"]), "hpsa")
    assert bad.decision and bad.decision.avoid == ("5.5.0.58",) and bad.decision.moves["cluster"].nunique() == 5
    tie = study(story(STORIES["all alike"]), "hpsa")
    assert tie.decision and tie.decision.pin is None


def test_blank_places_for_owner_and_date_are_printed() -> None:
    page = to_markdown(said.brief(study(story(STORIES["three times as bad"]), "hpsa")))
    assert "| Owner | Date |" in page and page.count("________") >= 10
