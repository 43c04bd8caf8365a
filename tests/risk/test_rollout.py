"""The roll-out: waves that protect clusters and the comparison, a file that people edit, and a watch with one word."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import psodlib as psod
from psodlib import schema
from psodlib.cli import app
from psodlib.errors import InputError
from psodlib.fleet import Fleet
from psodlib.risk.canary import Weeks, posterior, ratio_seen, watch_canary
from psodlib.risk.rollout import learnt, plan_rollout, read_plan
from psodlib.risk.rollout_watch import judge, watch_rollout

OLD, NEW = "5.5.0.50", "5.5.0.60"
START = pd.Timestamp("2025-01-06", tz="UTC")  # a Monday
DAY = pd.Timedelta(days=1)
MODELS = ("Gen8", "Gen9")
KNOWN = "hpsa | hpsa_update_scsi_devices | hpsa_scan_start"


def made(
    until: float, moves: dict[str, float] | None = None, crashes: tuple[tuple[str, float, str], ...] = (), hosts: int = 24, *,
    to: str = NEW, pending: tuple[str, ...] = (), silent: dict[str, float] | None = None, **inventory: Any,
) -> Fleet:  # fmt: skip
    """Hosts on OLD from day 0, rebooted into ``to`` on the days of ``moves``, crashing as (host, day, signature) says."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in [*schema.TABLES, *schema.AUXILIARY]}
    names = [f"esx{number:02d}" for number in range(hosts)]
    for number, host in enumerate(names):
        end = (silent or {}).get(host, until)
        rows["hosts"].append({
            "host": host, "esxi_version": "5.5.0", "model": MODELS[number % 8 // 4], "first_seen": START, "last_seen": START + end * DAY,
        })  # fmt: skip
        mine = sorted((day, signature) for name, day, signature in crashes if name == host and day < end)
        moved = (moves or {}).get(host)
        cuts = sorted({0.0, *(day for day, _ in mine), *([moved] if moved is not None and moved < end else [])})
        for begin, over in zip(cuts, [*cuts[1:], end], strict=True):
            boot, finish = START + begin * DAY + pd.Timedelta(minutes=9 * bool(begin)), START + over * DAY
            version = to if moved is not None and begin >= moved else OLD
            hit = next((at for at, (day, _) in enumerate(mine) if day == over), None)
            crash_id = None if hit is None else f"{number:08d}{hit:08d}"
            reason = "crash" if crash_id else "running" if over == end else "reboot"
            rows["uptimes"].append({
                "host": host, "boot": boot, "end": finish, "uptime": finish - boot, "observed": finish - boot, "end_reason": reason,
                "crash_id": crash_id, "evidence": "heartbeat", "source": "vmksummary.log",
            })  # fmt: skip
            rows["coverage"].append({"host": host, "boot": boot, "start": boot, "end": finish})
            rows["drivers"].append({
                "host": host, "module": "hpsa", "version": version, "state": "loaded", "observed_at": boot, "boot": boot,
                "evidence": "banner", "source": "vmkernel.log", "line": 12,
            })  # fmt: skip
            if crash_id and hit is not None:
                signature = mine[hit][1]
                rows["crashes"].append({
                    "crash_id": crash_id, "host": host, "time": finish, "kind": "page_fault", "guilty_module": "hpsa", "guilt": "on_stack",
                    "driver_version": version, "driver_evidence": "banner", "signature": signature, "deliberate": False, "damage": "",
                    "uptime": finish - boot, "sha256": "9f" * 32, "copies": 1,
                })  # fmt: skip
                rows["frames"] += [
                    {
                        "crash_id": crash_id,
                        "backtrace": 0,
                        "index": index,
                        "function": function,
                        "offset": index,
                        "module": "hpsa",
                    }
                    for index, function in enumerate(signature.split(" | ")[1:])
                ]
        if host in pending:
            rows["drivers"].append({
                "host": host, "module": "hpsa", "version": to, "state": "pending", "observed_at": START + (end - 0.5) * DAY,
                "evidence": "esxupdate", "source": "esxupdate.log", "line": 3,
            })  # fmt: skip
    tables = {name: schema.build(name, entries) for name, entries in rows.items()}
    for name, values in ({"cluster": [f"c{n // 4}" for n in range(hosts)]} | inventory).items():
        tables["hosts"][name] = values
    return Fleet(**tables)


def past() -> tuple[tuple[str, float, str], ...]:
    """A year of known crashes, spread over two thirds of the fleet."""
    return tuple((f"esx{n % 16:02d}", 5.0 + 15 * n, KNOWN) for n in range(23))


BEFORE = made(364, crashes=past())
PLAN = plan_rollout(BEFORE, "hpsa", NEW)
FIRST = list(PLAN.waves.loc[PLAN.waves["wave"] == 1, "host"])


def moved_by(day: float, plan: Any = PLAN, late: float = 0.25) -> dict[str, float]:
    """The days on which the hosts of a plan move, as far as they are due."""
    due = {row.host: (row.week - START) / DAY + late for row in plan.waves.itertuples()}
    return {host: when for host, when in due.items() if when < day}


def look(
    day: float, *more: tuple[str, float, str], plan: Any = PLAN, moves: dict[str, float] | None = None, **words: Any
) -> Any:
    today = words.pop("today", None)
    fleet = made(day, moved_by(day, plan) if moves is None else moves, past() + more, **words)
    return watch_rollout(fleet, plan, today=today)


# ---- the plan ----------------------------------------------------------------------------------------------------------


def test_every_host_moves_once_and_never_two_of_a_cluster_at_once():
    assert sorted(PLAN.waves["host"]) == sorted(BEFORE.hosts["host"])
    assert not PLAN.waves.duplicated(["wave", "turn", "cluster"]).any()
    assert PLAN.waves["week"].is_monotonic_increasing and PLAN.start == pd.Timestamp("2026-01-12", tz="UTC")
    assert PLAN.waves["week"].dt.day_of_week.eq(0).all()


def test_the_first_wave_is_drawn_at_random_and_holds_every_model():
    draws = [plan_rollout(BEFORE, "hpsa", NEW, seed=seed).waves for seed in range(6)]
    firsts = [frozenset(draw.loc[draw["wave"] == 1, "host"]) for draw in draws]
    assert len(set(firsts)) > 3
    assert all(set(draw.loc[draw["wave"] == 1, "model"]) == set(MODELS) for draw in draws)
    pd.testing.assert_frame_equal(PLAN.waves, plan_rollout(BEFORE, "hpsa", NEW).waves)


def test_a_plan_says_honestly_what_each_wave_could_show():
    seen = PLAN.learn["ratio_seen"].astype(float)
    assert seen.is_monotonic_decreasing and seen.iloc[0] > 8
    # Two crashes on 6 hosts in four weeks at a quarter a year: by hand P(N >= 2) = 0.8 at a mean of 3, 26 times 0.115.
    assert 20 < ratio_seen(0.25 / 365.25, (6 * 28, 54 * 28), (6, 54), variance=0) < 40
    assert ratio_seen(0.0, (1, 1), (1, 1)) is None


def test_what_nobody_could_see_is_not_told_in_powers_of_ten():
    says = " ".join(line for rate in (1e-3, 1e-4, 3e-5, 1e-5) for line in learnt(replace(PLAN, rate=rate))["says"])
    assert "a version over 100 times as bad" in says and "e+" not in says


def test_who_cannot_move_stays_and_it_is_said_why():
    cluster = ["c0"] * 4 + ["lone"] + ["c2"] * 19
    fleet = made(364, {"esx00": 100.0}, silent={"esx05": 300.0}, headroom=[0] * 4 + [1] * 20, cluster=cluster)
    plan = plan_rollout(fleet, "hpsa", NEW)
    why = plan.left_out.set_index("host")["why"]
    assert "last live host" in why["esx04"] and "do without no host" in why["esx01"] and "silent" in why["esx05"]
    assert "esx00" not in set(plan.waves["host"]) | set(why.index)
    assert plan.waves["headroom"].eq(1).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"to": "newest"}, "expected a version"), ({"module": "hspa"}, "did you mean hpsa"), ({"hosts": ["esx99"]}, "no host 'esx99'"),
        ({"shares": (0.5, 0.2)}, "rising shares"), ({"weeks": 0}, "whole number from 1"), ({"start": "soon"}, "expected a day"),
        ({"to": OLD}, "no host can move"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_refused_in_a_sentence(words, said):
    with pytest.raises(InputError, match=said):
        plan_rollout(BEFORE, **{"module": "hpsa", "to": NEW} | words)


# ---- the file ----------------------------------------------------------------------------------------------------------


def test_a_plan_comes_back_from_its_file_as_it_was(tmp_path):
    odd = 'a"b\\c\n\x7f\u202e]'
    plan = plan_rollout(made(364, crashes=past(), cluster=[odd] * 12 + ["c2"] * 12), "hpsa", NEW)
    again = read_plan(replace(plan, accepted=(odd,)).save(tmp_path / "plan.toml"))
    pd.testing.assert_frame_equal(plan.waves, again.waves, check_dtype=False)
    pd.testing.assert_frame_equal(plan.learn, again.learn, check_dtype=False, rtol=1e-6)
    assert (again.module, again.to, again.seed, again.accepted) == ("hpsa", NEW, 7, (odd,))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("turn = 2", "turn = 1"), "never two hosts of a cluster at once"),
        (lambda text: text.replace('"esx01"', '"esx02"'), "twice"),
        (lambda text: text.replace("module =", "modul ="), "modul"),
        (lambda text: text.replace("week = 2026", "week = 1926", 1).replace("week = 2026", "week = 1820", 1), "each week later"),
        (lambda text: text[: text.index("[[wave]]")], "wave"),
        (lambda text: text.replace(NEW, "newest"), "expected a version"),
        (lambda text: "a = " + "[" * 5000, "no TOML"),
        (lambda text: text.replace("seed = 7", "seed = " + "9" * 5000), "plan.toml"),
        (lambda text: text.replace("turn = 1", "turn = 1e999"), "no plan"),
        (lambda text: "", "no plan"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_sentence(tmp_path, change, said):
    file = tmp_path / "plan.toml"
    file.write_text(change(PLAN.to_toml()))
    with pytest.raises(InputError, match=said) as error:
        read_plan(file)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "plan.toml").write_bytes(b"\xff\xfe\x00module")
    with pytest.raises(InputError, match="no TOML"):
        read_plan(tmp_path / "plan.toml")


# ---- the watch ---------------------------------------------------------------------------------------------------------


def test_a_quiet_roll_out_goes_on_to_its_end_and_measures_itself():
    begun = look(375)
    assert (begun.word, begun.exit_code) == ("go_on", 0) and "wave 2" in begun.sentence
    assert begun.waves["moved"].tolist() == [len(FIRST), 0, 0, 0]
    end = (PLAN.waves["week"].max() - START) / DAY + 29
    done = look(end)
    assert done.word == "go_on" and "complete" in done.sentence and done.decision is not None
    effect = done.effect.set_index("what")
    assert effect["hosts"].iloc[0] == 24 and effect["crashes"].iloc[0] == sum(
        day > 371 - 365.25 for _, day, _ in past()
    )
    assert effect["host_days"].iloc[0] == pytest.approx(24 * 365.25, rel=0.05)
    assert effect["crashes"].iloc[2:].sum() == 0


def test_crashes_on_the_new_version_stop_it_and_say_who_goes_back_first():
    hit = [(host, 371.5 + at, KNOWN) for at, host in enumerate(FIRST * 2)]
    found = look(385, *hit)
    assert (found.word, found.exit_code) == ("stop", 3)
    assert found.judged.crashes == len(hit) and found.judged.excess < 0.001
    assert set(found.go_back["host"]) == set(FIRST) and found.go_back["to_version"].eq(OLD).all()
    assert found.go_back["why"].str.startswith("crashed").all()
    waiting = look(385, *hit, pending=("esx20",))
    assert waiting.go_back["host"].iloc[0] == "esx20" and "before the next boot" in waiting.go_back["why"].iloc[0]


def test_as_many_crashes_on_the_controls_stop_nothing():
    # The same month of crashes, on moved and unmoved hosts of each model alike: a bad month, no bad version.
    others = [host for host in BEFORE.hosts["host"] if host not in FIRST]
    hit = [(host, 371.5 + at, KNOWN) for at, host in enumerate(FIRST)]
    hit += [(host, 371.2 + at / 2, KNOWN) for at, host in enumerate(others)]
    assert look(385, *hit).word != "stop"


def test_a_kind_of_crash_never_seen_before_is_named_at_once():
    found = look(372, (FIRST[0], 371.5, "hpsa | hpsa_new_thing | hpsa_other_thing"))
    assert found.word == "stop" and "never seen here" in found.sentence and FIRST[0] in found.sentence
    assert found.news["signature"].tolist() == ["hpsa | hpsa_new_thing | hpsa_other_thing"]
    late = look(392, (FIRST[0], 391.5, "hpsa | hpsa_new_thing | hpsa_other_thing"))
    assert late.word == "hold" and "never seen here before" in late.sentence
    accepted = replace(PLAN, accepted=("hpsa | hpsa_new_thing | hpsa_other_thing",))
    assert look(392, (FIRST[0], 391.5, accepted.accepted[0]), plan=accepted).news.empty


@pytest.mark.parametrize(("days", "word"), [(10.0, "hold"), (40.0, "go_on")])
def test_another_driver_s_crash_long_after_the_move_is_named_and_holds_nothing(days, word):
    strange, at = "mfi | mfi_CompleteIO | mfi_Poll", (PLAN.start - START) / DAY + 0.25 + days
    fleet = made(at + 2, moved_by(at + 2), (*past(), (FIRST[0], at, strange)))
    crashes = fleet.crashes
    other = crashes["guilty_module"].mask(crashes["signature"].eq(strange), "mfi")
    found = watch_rollout(replace(fleet, crashes=crashes.assign(guilty_module=other)), PLAN)
    assert found.word == word
    assert any("mfi_CompleteIO" in reason and "nothing lays it on this driver" in reason for reason in found.reasons)


def test_what_resembles_a_known_crash_is_tied_to_it():
    found = look(372, (FIRST[0], 371.5, KNOWN + " | hpsa_kickoff_rescan"))
    assert found.word == "hold" and f"resembles {KNOWN}" in found.sentence


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"today": "2026-03-20"}, "nobody was watching"),
        ({"moves": {**moved_by(375), "esx23": 374.0}, "hosts": 24, "plan": "without esx23"}, "the plan does not name them"),
        ({"hosts": 20}, "the fleet has not"),
        ({"moves": {}, "day": 385}, "no host has hpsa"),
        ({"silent": {FIRST[0]: 371.4}, "day": 380}, "silent since the move"),
        ({"moves": dict.fromkeys(BEFORE.hosts["host"], 371.25)}, "more than a week before their wave"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_plan_holds_it(words, said):
    words = dict(words)
    plan = PLAN
    if words.get("plan"):
        plan = replace(PLAN, waves=PLAN.waves[PLAN.waves["host"] != "esx23"])
        words["moves"] = {**moved_by(375, plan), "esx23": 374.0}
    words["plan"] = plan
    found = look(words.pop("day", 375), **words)
    assert (found.word, found.exit_code) == ("hold", 1)
    assert any(said in reason for reason in found.reasons), found.reasons


def test_a_wave_that_waits_for_its_reboots_holds_the_next_one():
    found = look(399, moves={FIRST[0]: 371.25}, pending=tuple(FIRST[1:]))
    assert found.word == "hold" and "wait for a reboot" in found.sentence
    assert found.waves["waits_for_reboot"].iloc[0] == len(FIRST) - 1


# ---- the numbers -------------------------------------------------------------------------------------------------------


def test_the_posterior_is_that_of_a_plain_integral():
    b, t_b, a, t_a = 4, 200.0, 6, 1500.0
    found = posterior([b], [t_b], [a], [t_a])
    logs = np.linspace(-5, 5, 20001)
    share = t_b * np.exp(logs) / (t_b * np.exp(logs) + t_a)
    weight = share**b * (1 - share) ** a * np.exp(-(logs**2) / (2 * 2 * 0.49))
    reached = np.cumsum(weight) / weight.sum()
    assert np.log(found.ratio) == pytest.approx(np.interp(0.5, reached, logs), abs=0.02)
    assert found.p_worse == pytest.approx(weight[logs > 0].sum() / weight.sum(), abs=0.01)
    low, high = posterior([b], [t_b], [a], [t_a])[1:3]
    swapped = posterior([a], [t_a], [b], [t_b])
    assert (1 / swapped.high, 1 / swapped.low) == (pytest.approx(low, rel=0.01), pytest.approx(high, rel=0.01))


def test_hosts_are_held_against_hosts_of_the_same_model():
    # Old hardware crashes ten times as often on either version, and all moved hosts but one are old.
    rows = []
    for n in range(40):
        model, version = ("old", "2" if n < 18 else "1") if n < 20 else ("new", "2" if n == 20 else "1")
        crash = n < 20 and n % 2 == 0
        days = 20.0 if crash else 28.0
        rows.append((f"h{n}", version, START, START + days * DAY, days, int(crash), model))
    table = pd.DataFrame(rows, columns=["host", "version", "start", "end", "host_days", "crashes", "model"])
    apart, together = watch_canary(table, "2", "1", within="model"), watch_canary(table, "2", "1")
    assert together["alarm"].any() and not apart["alarm"].any()
    assert apart["host_days"].sum() == pytest.approx(together["host_days"].sum())


def test_a_version_no_worse_is_rarely_stopped_however_often_one_looks():
    rng, stopped = np.random.default_rng(1), 0
    for _ in range(150):
        days = np.array([[14.0 * n, 14.0 * (30 - n)] for n in range(1, 25)])
        counts = rng.poisson(days / 365.25)
        weeks = [
            Weeks(START, *(part[: n + 1] for part in (counts[:, :1], days[:, :1], counts[:, 1:], days[:, 1:])))
            for n in range(24)
        ]
        expected = np.cumsum(days[:, 0]) / 365.25
        stopped += any(
            judge(weeks[n], counts[: n + 1, 0].sum(), float(expected[n]), 2 * n + 2).against == "stop"
            for n in range(24)
        )
    assert stopped <= 0.08 * 150  # at most 5 % in the long run


# ---- the loop ----------------------------------------------------------------------------------------------------------


def test_simulate_load_watch_and_so_on_week_by_week(tmp_path):
    plan_file, store = tmp_path / "plan.toml", tmp_path / "store"
    installs = pd.DataFrame({"host": [], "time": [], "version": []})

    def weeks_later(days: float, installs: pd.DataFrame) -> Any:
        shutil.rmtree(tmp_path / "evidence", ignore_errors=True)
        history = psod.simulate_fleet(
            tmp_path / "evidence", hosts=12, days=days, seed=5, clusters=4, start="2024-01-01", story="i40en", installs=installs,
            late_share=0.0, gaps_per_host=0.0, load_days=0.0, rollback=0.0, driver_rate=0.5, ratio_58=200.0, rotation_loss=0.0,
            truncated=0.0, bundles=0.0,
        )  # fmt: skip
        psod.load(tmp_path / "evidence", inventory=tmp_path / "evidence" / "inventory.csv", store=store, jobs=1)
        return history

    history = weeks_later(70, installs)
    old, new = history.story.versions[:2]
    before = set(history.crashes["time"])
    plan = plan_rollout(Fleet.open(store), "i40en", new, weeks=2, shares=(0.3, 1.0))
    plan.save(plan_file)
    due = plan.waves[plan.waves["wave"] == 1]
    installs = pd.DataFrame({"host": due["host"], "time": due["week"] + pd.Timedelta(hours=6), "version": new})
    days = (plan.start - pd.Timestamp("2024-01-01", tz="UTC")) / DAY + 7
    history = weeks_later(days, installs)
    assert before <= set(history.crashes["time"])  # a later install changes no past
    found = watch_rollout(Fleet.open(store), plan_file)
    assert found.word == "stop" and found.waves["moved"].tolist() == [len(due), 0]
    said = CliRunner().invoke(app, ["watch", str(store), "--plan", str(plan_file), "--today", str(found.at.date())])
    assert said.exit_code == 3 and said.output.startswith("stop") and "Back, in this order" in said.output
    back = pd.DataFrame({"host": found.go_back["host"], "time": found.at + DAY, "version": old})
    weeks_later(days + 7, pd.concat([installs, back]))
    after = watch_rollout(Fleet.open(store), plan_file)
    assert after.word == "stop" and after.go_back.empty and after.waves["drifted_back"].tolist() == [len(due), 0]


def test_installs_that_a_story_does_not_know_are_refused(tmp_path):
    for host, version, said in (("esx999", "5.5.0.58", "esx999"), ("esx001", "9.9", "expected one of")):
        wrong = pd.DataFrame({"host": [host], "time": [START], "version": [version]})
        with pytest.raises(InputError, match=said):
            psod.simulate_fleet(tmp_path / "fleet", hosts=2, days=10, installs=wrong)
