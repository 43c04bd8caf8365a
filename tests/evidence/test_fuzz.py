"""What fuzzing found once is checked forever, by the check that found it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FOUND = sorted((Path(__file__).parents[1] / "golden" / "fuzz").glob("*.bin"))
KNOWN = sorted((Path(__file__).parents[1] / "golden" / "vmkernel").glob("*.log"))


@pytest.fixture(scope="module")
def target() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_crashes", Path(__file__).with_name("fuzz_crashes.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", [*FOUND, *KNOWN], ids=lambda path: path.stem)
def test_the_fuzzer_finds_nothing_here(path: Path, target: ModuleType) -> None:
    target.check(path.read_bytes())
