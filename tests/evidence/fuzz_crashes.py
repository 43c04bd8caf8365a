"""Coverage-guided fuzzing of the readers; not collected by pytest.

    python tests/evidence/fuzz_crashes.py parse|file|anonymise /tmp/seeds -max_total_time=600

Needs ``atheris``, which no environment of the project holds: install it in one of your own. The seeds (golden files, samples
of the tables) are written to the first argument. What it finds belongs into ``tests/golden/fuzz/``, where ``test_fuzz.py``
checks it forever by the same ``check``.
"""

from __future__ import annotations

import io
import sys
import tempfile
from functools import cache
from pathlib import Path

try:
    import atheris
except ImportError:
    atheris = None

if atheris is not None:
    with atheris.instrument_imports(include=["psodlib.evidence"]):  # what is imported first is what it can see into
        import psodlib.evidence.reading
    with atheris.instrument_imports(include=["psodlib.anonymiser"]):
        import psodlib.anonymiser  # noqa: F401

from psodlib.anonymiser.learn import Names, learn_text
from psodlib.anonymiser.pseudonyms import Pseudonyms
from psodlib.anonymiser.rewrite import Rewriter
from psodlib.evidence.archives import Item, expand
from psodlib.evidence.artifacts import KINDS
from psodlib.evidence.places import Place
from psodlib.evidence.psod import find_crashes
from psodlib.evidence.psod_lines import ROLES
from psodlib.evidence.reading import read_item
from psodlib.evidence.streams import Budget, Limits, Stream
from psodlib.evidence.vmkernel import read_vmkernel
from psodlib.records import DAMAGE, Problem
from psodlib.schema import CLOSED_LISTS

GOLDEN = Path(__file__).parents[1] / "golden"


def check(data: bytes) -> None:
    """Whatever the bytes: nothing raises, what is found lies where it says, and nothing is dropped without a word."""
    check_crashes(data)
    check_item(data)


def check_crashes(data: bytes) -> None:
    """The bytes as a log's text."""
    found = find_crashes(data)
    for crash in found:
        assert crash.kind in CLOSED_LISTS["kind"]
        assert set(crash.damage.split(";")) - {""} <= set(DAMAGE)
        assert crash.line == data.count(b"\n", 0, crash.offset) + 1
        for address in (crash.ip, crash.fault_address, crash.code_start, *(frame.address for frame in crash.frames)):
            assert address is None or 0 <= address < 2**64
    assert len(read_vmkernel(io.BytesIO(data), "x").crashes) <= len(found)


def check_item(data: bytes) -> None:
    """The bytes as a file of any kind, archives included."""
    said: list[object] = []
    with Stream(io.BytesIO(data), "a.log") as stream:
        for item in expand(stream, Place(source="a.log", name="a.log"), Budget(Limits())):
            if isinstance(item, Item):
                for reading in read_item(item):
                    said += reading.problems or [reading.kind or None]
            else:
                said.append(item)
        said += stream.problems
    problems = [one for one in said if isinstance(one, Problem)]
    assert not any("please report" in one.detail for one in problems), problems
    assert {one.problem for one in problems} <= set(CLOSED_LISTS["problem"])
    assert None not in said, "neither used nor listed"


@cache
def _rewriter() -> Rewriter:
    # Made once: its pattern takes longer to compile than a text to rewrite.
    names = Names()
    learn_text(names, b'VMkernel mail07 5.5.0 #1\n[root@db-2:~] x\ndisplayName = "My VM"\nSerial Number: CZ6F1C14CF\n')
    return Rewriter(names, Pseudonyms(b"0" * 32))


def check_anonymised(data: bytes) -> None:
    """The bytes as a text whose names are replaced: nothing raises, lines stay as many, and blocks of it give the same."""
    learn_text(Names(), data)
    new = b"".join(_rewriter().stream([data]))
    assert new.count(b"\n") == data.count(b"\n")
    assert b"".join(_rewriter().stream([data[at : at + 4096] for at in range(0, len(data), 4096)])) == new


TARGETS = {"parse": check_crashes, "file": check_item, "anonymise": check_anonymised}


def write_seeds(folder: Path) -> None:
    """Golden files and the tables' samples, one file each."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = [path.read_bytes() for path in GOLDEN.glob("*/*.log")]
    samples += [row.sample.encode() for row in (*ROLES, *KINDS)]
    for number, sample in enumerate(samples):
        (folder / f"seed{number}").write_bytes(sample)


if __name__ == "__main__":
    if atheris is None:
        sys.exit("atheris is not installed; pip install it into an environment of its own")
    target = TARGETS[sys.argv.pop(1)]
    seeds = Path(sys.argv.pop(1)) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else Path(tempfile.mkdtemp())
    write_seeds(seeds)
    atheris.Setup([*sys.argv, str(seeds)], target)
    atheris.Fuzz()
