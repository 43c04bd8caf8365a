"""What every test may use: the shared folders where they are at hand, and one switch that forbids skips in CI."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from hypothesis import settings

matplotlib.use("Agg")

# `make test` draws the same examples on every run; `make fuzz` draws at random, and so many times as many.
LONG = int(os.environ.get("PSOD_FUZZ", "1"))
settings.register_profile("same every time", derandomize=True, deadline=None)
settings.register_profile("at random", max_examples=100 * LONG, deadline=None)
settings.load_profile("at random" if "PSOD_FUZZ" in os.environ else "same every time")

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
sys.path.append(str(ROOT / "notebooks"))  # what notebooks import from beside them
# The reference folder stands beside the project where it is at hand; nothing of it is copied into the project.
SHARED = ROOT.parent / "shared"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the reference folder ../shared is not at hand")


def here(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`psod` in this process, which has imported already what each new one would import first."""
    from psodlib import console
    from psodlib.cli import main

    out, err, on_ctrl_c = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("default")
        patch.setattr(sys, "argv", ["psod", *map(str, words)])
        for each in (console.out, console.err):  # made long ago, as wide as the terminal was
            patch.setattr(each, "_width", 200)
        patch.chdir(cwd or Path.cwd())
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
            main()
    signal.signal(signal.SIGINT, on_ctrl_c)
    return subprocess.CompletedProcess(words, int(end.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def demo() -> Any:
    """The demo fleet with its inventory, to be read only."""
    import psodlib as psod

    return psod.load(DATA / "demo-fleet", inventory=DATA / "inventory.csv", jobs=1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference folder, or a skip that says so."""
    if not SHARED.is_dir():
        pytest.skip("the reference folder ../shared is not at hand")
    return SHARED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """In CI a skip means that an install step is missing: say so loudly."""
    if os.environ.get("PSOD_NO_SKIPS") and terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("PSOD_NO_SKIPS is set, and tests were skipped: see the reasons above", red=True)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn a run with skips into a failed one where PSOD_NO_SKIPS is set."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("PSOD_NO_SKIPS") and exitstatus == 0 and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
