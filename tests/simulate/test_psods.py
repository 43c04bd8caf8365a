"""Every way to crash reads back as what it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from psodlib.simulate.stories import _stories, story_named
from psodlib.simulate.text import dump_text, stamp
from psodlib.triage.crashes import parse_crashes

HPSA = story_named("hpsa")
STORIES = [*_stories().values()]
WAYS = sorted({(story.name, stack.kind, stack.module or "") for story in STORIES for stack in story.stacks})
TIME, UPTIME = 1_401_551_852_579, 2_578_450_166  # 31 May 2014, 29 days


@pytest.mark.parametrize(("name", "kind", "module"), WAYS)
@pytest.mark.parametrize("seed", range(3))
def test_a_whole_dump_gives_its_kind_module_time_and_uptime(name: str, kind: str, module: str, seed: int) -> None:
    text = dump_text(story_named(name), kind, module or None, TIME, UPTIME, "1623387", Random(seed), bare=False)
    (crash,) = parse_crashes(text)
    assert (crash.kind, crash.guilty_module) == (kind, module or None)
    assert crash.time == datetime(2014, 5, 31, 15, 57, 32, 579_000, tzinfo=UTC)
    assert crash.uptime == timedelta(milliseconds=UPTIME)
    assert crash.esxi_build == "1623387" and crash.damage == "" and len(crash.frames) >= 6
    assert crash.deliberate == (kind == "user_requested")


@pytest.mark.parametrize("seed", range(6))
def test_a_bare_dump_names_nobody(seed: int) -> None:
    (crash,) = parse_crashes(dump_text(HPSA, "page_fault", "hpsa", TIME, UPTIME, "1623387", Random(seed), bare=True))
    assert (crash.kind, crash.guilty_module, crash.guilt) == ("page_fault", None, "none")


@pytest.mark.parametrize("name", _stories())
def test_everything_that_stops_a_host_has_a_stack(name: str) -> None:
    story = story_named(name)
    ways = {(stack.kind, stack.module) for stack in story.stacks}
    assert {(kind, module) for kind, module, _ in story.background} <= ways
    assert {("page_fault", story.module), ("general_protection", story.module), ("user_requested", None)} <= ways
    assert len({stack.frames for stack in story.stacks if stack.module == story.module}) >= 3
    assert set(story.loads) | {"vmkernel"} == set(story.layout) and set(story.owners.values()) <= set(story.layout)


def test_both_spellings_of_none_occur() -> None:
    texts = [dump_text(HPSA, "page_fault", "hpsa", TIME, UPTIME, "1", Random(seed), bare=False) for seed in range(20)]
    assert {"@<None>#<None>+" in text for text in texts} == {True, False}
    assert all(("@<None>#<None>+" in text) != ("@#+" in text) for text in texts)


@pytest.mark.parametrize(
    ("time", "whole", "text"),
    [(0, True, "1970-01-01T00:00:00.000Z"), (TIME, True, "2014-05-31T15:57:32.579Z"),
     (TIME, False, "2014-05-31T15:57:32Z"), (1_456_790_399_999, True, "2016-02-29T23:59:59.999Z")],
)  # fmt: skip
def test_stamps(time: int, whole: bool, text: str) -> None:
    assert stamp(time, whole) == text
