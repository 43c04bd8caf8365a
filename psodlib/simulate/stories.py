"""``stories.toml`` -> the stories that a made-up fleet can tell: which driver, on which release, in which words."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from psodlib.errors import InputError

_EXCEPTIONS = {
    "page_fault": "#PF Exception 14 in world {world} IP {ip} addr {address} PTEs:{ptes}",
    "general_protection": "#GP Exception 13 in world {world} @ {ip}",
}


class Build(NamedTuple):
    """One ESXi build of a release, and the day from which clusters move to it."""

    day: int
    build: str
    version: str
    update: int


class Step(msgspec.Struct, frozen=True):
    """What a fleet runs for a while: a driver version with its VIB, or a firmware under the same driver."""

    version: str
    vib: str
    firmware: str | None = None


class Stack(msgspec.Struct, frozen=True):
    """One way to crash: panic message, world and functions, innermost first; ``saved`` is another PCPU's backtrace."""

    kind: str
    message: str
    world: str
    frames: str
    saved: str
    module: str | None = msgspec.field(default=None, name="who")
    weight: int = 1


class Story(msgspec.Struct, frozen=True):
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
    layout: dict[str, int]
    owners: dict[str, str]
    outputs: dict[str, str]
    code: int
    builds: tuple[Build, ...]
    stacks: tuple[Stack, ...]
    bare: Stack

    @property
    def versions(self) -> tuple[str, ...]:
        """The driver versions of the three steps."""
        return tuple(step.version for step in self.steps)

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
    if name not in _stories():
        raise InputError(f"no story {name!r}; expected one of {', '.join(_stories())}")
    return _stories()[name]


@cache
def _stories() -> dict[str, Story]:
    data = tomllib.loads(Path(__file__).with_name("stories.toml").read_text(encoding="utf-8"))
    stacks, stories = data["stack"], dict[str, dict[str, Any]]()
    for row in stacks:
        row.setdefault("message", _EXCEPTIONS.get(row["kind"]))
        row |= {key: row.get(key, "").format(**data["tails"]) for key in ("frames", "saved")}
    for entry in data["story"]:
        stories[entry["name"]] = each = {**stories.get(entry.get("like", ""), {}), **entry}
        each["background"] = [(kind, module or None, weight) for kind, module, weight in each["background"]]
        each["stacks"] = [row for row in stacks if row.get("who") in {*each["loads"], None}]
        each["bare"] = next(row for row in stacks if row.get("who") == "bare")
        each |= data["release"][each["release"]]
    return {name: msgspec.convert(entry, Story) for name, entry in stories.items()}
