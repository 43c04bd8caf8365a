"""``stories.toml`` -> the stories that a made-up fleet can tell: which driver, on which release, in which words."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from psodlib.errors import InputError

_FILE = Path(__file__).with_name("stories.toml")
_EXCEPTIONS = {
    "page_fault": "#PF Exception 14 in world {world} IP {ip} addr {address} PTEs:{ptes}",
    "general_protection": "#GP Exception 13 in world {world} @ {ip}",
}


class Build(NamedTuple):
    """One ESXi build of a release, and the day from which clusters move to it."""

    day: float
    build: str
    version: str
    update: int


class Step(NamedTuple):
    """What a fleet runs for a while: a driver version with its VIB, or a firmware under the same driver."""

    version: str
    vib: str
    firmware: str | None = None


@dataclass(frozen=True)
class Stack:
    """One way to crash: panic message, world and functions, innermost first; ``saved`` is another PCPU's backtrace."""

    kind: str
    module: str | None
    message: str
    world: str
    frames: str
    saved: str = ""
    weight: int = 1


@dataclass(frozen=True)
class Story:
    """One made-up fleet's driver, hardware and words; the fields are those of ``stories.toml``."""

    name: str
    release: str
    start: str
    module: str
    vib: str
    vib_vendor: str
    maker: str
    models: tuple[str, ...]
    firmwares: tuple[str, ...]
    loads: tuple[str, ...]
    banner: tuple[str, ...]
    background: tuple[tuple[str, str | None, int], ...]
    noise: tuple[str, ...]
    precursors: tuple[str, ...]
    vibs: tuple[tuple[str, ...], ...]
    steps: tuple[Step, Step, Step]
    layout: Mapping[str, int]
    owners: Mapping[str, str]
    outputs: Mapping[str, str]
    code: int
    builds: tuple[Build, ...]
    stacks: tuple[Stack, ...]
    bare: Stack

    @property
    def versions(self) -> tuple[str, str, str]:
        """The driver versions of the three steps."""
        base, bad, following = self.steps
        return base.version, bad.version, following.version

    @property
    def of_firmware(self) -> bool:
        """Whether the steps are firmwares under one driver."""
        return self.steps[0].firmware is not None

    def firmware(self, step: int, cluster: int) -> str:
        """What a device runs: the step's firmware, or the one its cluster was bought with."""
        return self.steps[step].firmware or self.firmwares[cluster % len(self.firmwares)]

    def build(self, number: str) -> Build:
        """The build of that number; one that the release does not list counts as its last."""
        return next((build for build in self.builds if build.build == number), self.builds[-1])


def story_named(name: str) -> Story:
    """The story of that name."""
    if name not in story_names():
        raise InputError(f"no story {name!r}; expected one of {', '.join(story_names())}")
    return _stories()[name]


def story_names() -> tuple[str, ...]:
    """The stories there are."""
    return tuple(_stories())


@cache
def _stories() -> dict[str, Story]:
    data = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    entries: dict[str, dict[str, Any]] = {}
    for entry in data["story"]:
        like = entries.get(entry.pop("like", ""), {})
        entries[entry["name"]] = {**like, **entry}
    return {name: _story(entry, data) for name, entry in entries.items()}


def _story(entry: dict[str, Any], data: dict[str, Any]) -> Story:
    release = data["release"][entry["release"]]
    stacks = [_stack(row, data["tails"]) for row in data["stack"] if row.get("who", "any") in {*entry["loads"], "any"}]
    bare = next(row for row in data["stack"] if row.get("who") == "bare")
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return Story(**{
        **plain,
        "background": tuple((kind, module or None, weight) for kind, module, weight in entry["background"]),
        "steps": tuple(Step(**step) for step in entry["steps"]),
        "code": release["code"],
        "builds": tuple(Build(*build) for build in release["builds"]),
        "stacks": tuple(stacks),
        "bare": _stack(bare, data["tails"]),
    })  # fmt: skip


def _stack(row: dict[str, Any], tails: dict[str, str]) -> Stack:
    kind, who = row["kind"], row.get("who")
    module = None if who == "bare" else who
    message = row.get("message") or _EXCEPTIONS[kind]
    frames, saved = row["frames"].format(**tails), row.get("saved", "").format(**tails)
    return Stack(kind, module, message, row["world"], frames, saved, row.get("weight", 1))
