"""environment.yml and requirements.lock against pyproject.toml, the one list of dependencies."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from rattler import MatchSpec

# PyPI name -> conda-forge name, where the two differ.
CONDA_NAMES = {"isal": "python-isal", "matplotlib": "matplotlib-base", "nbconvert": "nbconvert-core"}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
CONDA_LINES = [line for line in ENVIRONMENT["dependencies"] if isinstance(line, str)]
PIP_LINES = next(line["pip"] for line in ENVIRONMENT["dependencies"] if isinstance(line, dict))


@pytest.mark.parametrize("line", CONDA_LINES)
def test_conda_line_is_a_strict_match_spec(line: str) -> None:
    assert MatchSpec(line, strict=True).name is not None


def test_both_lists_name_the_same_packages_with_the_same_bounds() -> None:
    wanted = {r.name: str(r.specifier) for r in map(Requirement, PROJECT["dependencies"])}
    pip = {r.name: str(r.specifier) for r in map(Requirement, PIP_LINES)}
    back = {conda: pypi for pypi, conda in CONDA_NAMES.items()}
    conda = {}
    for line in CONDA_LINES:
        name, bounds = re.fullmatch(r"([\w-]+)(.*)", line).groups()  # type: ignore[union-attr]
        conda[back.get(name, name)] = str(Requirement(f"x{bounds}").specifier)
    assert conda.pop("python") == PROJECT["requires-python"]
    assert conda.pop("pip") == ""
    assert {**conda, **pip} == wanted
    assert not set(conda) & set(pip)


def test_lock_holds_every_dependency_with_hashes_and_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    pinned = {name.lower().replace("_", "-") for name in re.findall(r"^([\w.-]+)==", lock, re.M)}
    extras = PROJECT["optional-dependencies"]
    for line in [*PROJECT["dependencies"], *extras["cluster"], *extras["vcenter"], *extras["test"], *extras["dev"]]:
        assert Requirement(line).name.lower().replace("_", "-") in pinned
    entries = re.split(r"^(?=[\w.-]+==)", lock, flags=re.M)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)


def test_lock_fits_the_bounds_of_pyproject() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    for line in PROJECT["dependencies"]:
        want = Requirement(line)
        for version in re.findall(rf"^{re.escape(want.name.replace('_', '-'))}==([\w.]+)", lock, re.M | re.I):
            assert want.specifier.contains(version), f"{want.name} {version}: run `make lock`"
