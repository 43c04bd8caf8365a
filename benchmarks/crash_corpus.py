"""How many crashes of a corpus of labelled texts are found, by `parse_crashes` and by `load`, plain and in every wrapping.

    python benchmarks/crash_corpus.py ../shared/corpus [-v]

Each text is read pasted, alone as a file, in the middle of an ordinary log, with CRLF, behind the prefixes that receivers put
before a line, compressed, in a bundle and as UTF-16; the negatives in the same wrappings, where any crash is a false one.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from wrappings import WRAPPINGS

import psodlib as psod

FIELDS = ("message", "exception", "kind", "time", "pcpu", "world_id", "world_name", "ip", "fault_address", "code_start", "uptime", "build", "frames")  # fmt: skip


def number(text: str | None) -> int | None:
    """An address of a label."""
    return None if text is None else int(text, 16)


def wanted(label: dict[str, Any]) -> dict[str, Any]:
    """What a label expects of its first crash."""
    e = label["expect"]
    frames = [(number(f["fp"]), number(f["ip"]), f["function"], f["module_bare"], f["module_version"], f["offset"], number(f["stack"])) for f in e["frames"]]  # fmt: skip
    frames = frames or [(None, None, f["function"], None, None, None, None) for f in e.get("gdb_frames", [])]
    time = datetime.fromisoformat(e["timestamp"]) if e["timestamp"] else None
    values = (e["panic_message"], e["exception_number"], e["exception_kind"] or "other", time, e["pcpu"], e["world_id"], e["world_name"],
              number(e["ip"]), number(e["fault_addr"]), number(e["code_start"]), e["uptime_s"], label["build"] and str(label["build"]), frames)  # fmt: skip
    return dict(zip(FIELDS, values, strict=True))


def found(crash: Any) -> dict[str, Any]:
    """The same of a crash that was read."""
    printed = [(f, f.module if f.module_evidence == "printed" else None) for f in crash.frames if f.backtrace == 0]
    frames = [
        (f.frame_pointer, f.address, f.function, module, f.module_version, f.offset, f.stack) for f, module in printed
    ]
    values = (crash.message, crash.exception, crash.kind, crash.time, crash.pcpu, crash.world_id, crash.world_name, crash.ip, crash.fault_address,
              crash.code_start, crash.uptime and crash.uptime.total_seconds(), crash.esxi_build, frames)  # fmt: skip
    return dict(zip(FIELDS, values, strict=True))


def loaded(name: str, data: bytes) -> int:
    """How many crashes ``load`` finds in a file of this name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        return len(psod.load(path, jobs=1).crashes)


def main(corpus: Path, verbose: bool) -> None:
    """Print the tables."""
    texts: dict[str, list[tuple[Path, int]]] = {}
    right, total = Counter[str](), Counter[str]()
    for path in sorted((corpus / "crashes").glob("*.log")):
        label = json.loads(path.with_suffix(".json").read_text())
        texts.setdefault(label["form"], []).append((path, label["expect"]["n_crashes"]))
        crashes = psod.parse_crashes(path.read_bytes())
        if not crashes:
            total.update(FIELDS)
            continue
        expected, got = wanted(label), found(crashes[0])
        for name in FIELDS:
            total[name] += 1
            # The labels say "other" where the contract has a narrower word.
            narrower = (
                name == "kind"
                and expected[name] == "other"
                and got[name] in ("tlb_timeout", "iommu_fault", "lost_heartbeat")
            )
            same = expected[name] == got[name] or narrower
            right[name] += same
            if verbose and not same:
                print(f"{path.stem}: {name}\n    expected {expected[name]!r}\n    found    {got[name]!r}")
    texts["negative"] = [(path, 0) for path in sorted((corpus / "negatives").glob("*.log"))]
    ways = {"pasted": None, **WRAPPINGS}
    print("| form | texts | " + " | ".join(ways) + " |\n" + "| --- " * (len(ways) + 2) + "|")
    for form, some in texts.items():
        cells = []
        for way in ways:
            good = 0
            for path, expected_count in some:
                data = path.read_bytes()
                count = (
                    len(psod.parse_crashes(data))
                    if way == "pasted"
                    else loaded(WRAPPINGS[way][0], WRAPPINGS[way][1](data))
                )
                good += count == expected_count
                if verbose and count != expected_count:
                    print(f"{path.stem}: {way}: {count} crashes, expected {expected_count}")
            cells.append(str(good))
        print(f"| {form} | {len(some)} | " + " | ".join(cells) + " |", flush=True)
    print("\n| field | right | of |\n| --- | --- | --- |")
    for name in FIELDS:
        print(f"| {name} | {right[name]} | {total[name]} |")
    print(f"| all | {right.total()} | {total.total()} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), "-v" in sys.argv)
