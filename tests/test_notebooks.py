"""The notebooks: thin, honest, committed with the outputs of the demo data, and running on whatever they are given."""

from __future__ import annotations

import ast
import base64
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from conftest import ROOT
from views.hand_made import fleet as made_by_hand
from views.hand_made import strangers
from views.serving import run_notebook

from psodlib import schema
from psodlib.errors import InputError
from psodlib.fleet import Fleet
from psodlib.views.document import Bullets
from psodlib.views.notebooks import notebook_folder, write_notebook

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
ONE_CRASH = ROOT / "notebooks" / "01_one_crash.ipynb"
ON_A_FLEET = [path for path in NOTEBOOKS if path != ONE_CRASH]
# All run in this process; a kernel takes seconds.
IN_A_KERNEL = [path for path in NOTEBOOKS if path.stem[:2] in ("02", "05")]
HOSTILE = "<script>alert(1)</script>$x^2$ `*_[a](javascript:b)"


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_of(node: Any) -> list[Any]:
    return [cell for cell in node.cells if cell.cell_type == "code"]


def words_of(output: Any) -> str:
    return output.get("text") or "".join(output.get("data", {}).get("text/plain", ""))


def test_the_notebooks_are_numbered_and_the_package_finds_them():
    assert [name[:2] for name in NAMES] == [f"{number:02d}" for number in range(len(NAMES))] and len(NAMES) > 6
    assert notebook_folder() == ROOT / "notebooks"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_reads_like_a_chapter(path):
    node = read(path)
    first, last = node.cells[0].source, node.cells[-1].source
    assert re.match(r"# .*\?\n", first) and "**What you will learn**" in first
    assert last.startswith("## What this does not show")
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in node.cells) == 1
    numbers = [re.findall(r"\d+(?:\.\d+)?", cell.source) for cell in node.cells if cell.cell_type == "markdown"]
    # Dates of the real incident and other notebooks' names; every other number is the data's to give.
    assert {number for found in numbers for number in found} <= {"31", "2014", *(name[:2] for name in NAMES)}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_code_cells_are_thin(path):
    for cell in code_of(read(path)):
        assert len(cell.source.split("\n")) <= 12
        kinds = {type(part).__name__ for part in ast.walk(ast.parse(cell.source))}
        assert not kinds & {"FunctionDef", "AsyncFunctionDef", "ClassDef", "For", "While"}
        assert not re.search(r"\bimport re\b|\.glob\(|open\(", cell.source.replace("Fleet.open(", ""))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_parameters_are_plain_assignments(path):
    (cell,) = [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_committed_notebook_carries_clean_outputs(path):
    node = read(path)
    assert [cell.execution_count for cell in code_of(node)] == list(range(1, len(code_of(node)) + 1))
    assert [cell.id for cell in node.cells] == [f"cell-{n:02d}" for n in range(1, len(node.cells) + 1)]
    assert set(node.metadata) == {"kernelspec", "language_info"}
    assert not any("injected-parameters" in cell.metadata.get("tags", []) for cell in node.cells)
    outputs = [output for cell in code_of(node) for output in cell.outputs]
    assert outputs and not [
        output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"
    ]
    assert not re.search(r"0x7f[0-9a-f]{8,}|/home/|/root/|/tmp/", "".join(words_of(output) for output in outputs))
    pictures = [base64.b64decode(data) for output in outputs if (data := output.get("data", {}).get("image/png"))]
    assert all(len(picture) < 150_000 for picture in pictures)
    assert pictures or path.stem in ("00_start_here", ONE_CRASH.stem)


@pytest.mark.parametrize("path", ON_A_FLEET, ids=[path.stem for path in ON_A_FLEET])
def test_a_committed_notebook_says_that_its_fleet_is_simulated(path):
    first_words = next(words_of(output) for cell in code_of(read(path)) for output in cell.outputs)
    assert first_words.startswith("Simulated fleet")


def test_the_seed_case_comes_out_to_the_digits_of_the_reference():
    said = "\n".join(words_of(output) for cell in code_of(read(ONE_CRASH)) for output in cell.outputs)
    for figure in (
        "12.2 per host-year",
        "0.31 to 68.2",
        "0.31 to 45.2",
        "567 quiet days",
        "1,164 for 0.025",
        "5,471 host-days",
    ):
        assert figure in said
    for row in (
        r"3 +90\.0 +12\.16 +0\.249 +6\.3",
        r"5 +150\.0 +7\.29 +0\.166 +3\.8",
        r"10 +300\.0 +3\.65 +0\.090 +1\.9",
    ):
        assert re.search(row, said)


# --- on any source -----------------------------------------------------------------------------------------------------


def nobody() -> Fleet:
    return Fleet()


def one_quiet_host() -> Fleet:
    small = made_by_hand(hosts=1, crashing=0, simulated=False)
    return Fleet(
        **{**small.tables, "hosts": small.hosts.drop(columns=["cluster", "users", "vms"])}, coverage=small.coverage
    )


def only_a_crash() -> Fleet:
    """Like the real incident: a crash without coverage, versions or inventory."""
    row = {
        "crash_id": "c1",
        "host": "h",
        "time": pd.Timestamp("2014-05-31", tz="UTC"),
        "kind": "page_fault",
        "guilt": "none",
    }
    hosts = schema.build("hosts", [{"host": "h"}])
    return Fleet(hosts=hosts, crashes=schema.build("crashes", [row]))


def hostile() -> Fleet:
    words = dict.fromkeys(
        ("host", "message", "function", "module", "version", "source", "signature", "detail", "vib"), HOSTILE
    )
    return made_by_hand(words=words, cluster=HOSTILE)


FLEETS = {
    "nobody": nobody,
    "one quiet host": one_quiet_host,
    "only a crash": only_a_crash,
    "strangers": strangers,
    "hostile": hostile,
}


def run_here(path: Path, parameters: dict[str, Any]) -> list[Any]:
    """Run a notebook's cells in this process, for speed, and give what each cell shows."""
    scope: dict[str, Any] = {}
    shown = []
    for cell in code_of(read(path)):
        body = ast.parse(cell.source).body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), path.name, "exec"), scope)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), path.name, "eval"), scope))
        if "parameters" in cell.metadata.get("tags", []):
            scope.update({name: value for name, value in parameters.items() if name in scope})
    return shown


@pytest.fixture
def clean_session():
    import matplotlib.pyplot as plt

    with pd.option_context("display.max_colwidth", 50):
        yield
    pd.reset_option("display.html.use_mathjax")
    plt.close("all")


@pytest.mark.parametrize("kind", FLEETS)
@pytest.mark.parametrize("path", ON_A_FLEET, ids=[path.stem for path in ON_A_FLEET])
def test_a_notebook_runs_on_any_fleet(path, kind, tmp_path, clean_session):
    folder = FLEETS[kind]().save(tmp_path / "tables")
    shown = run_here(path, {"fleet_folder": str(folder)})
    html = "".join(value._repr_html_() or "" for value in shown if hasattr(value, "_repr_html_"))
    assert html and not re.search(
        r"<(?!/?(p|ul|ol|li|span|pre|div|style|table|caption|thead|tbody|tr|th|td|h5|section)\b)", html
    )
    assert ("Simulated fleet" in html) == (kind == "hostile")


def test_one_crash_runs_on_a_text_without_a_crash(tmp_path, monkeypatch, clean_session):
    log = tmp_path / "esx1" / "vmkernel.log"
    log.parent.mkdir()
    log.write_text("2014-05-31T15:57:32.579Z cpu14:9607609)nothing happened\n")
    shown = run_here(ONE_CRASH, {"log": str(log), "incident": str(tmp_path)})
    assert "There is no crash in this text." in [str(value) for value in shown]


# --- in a kernel -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Two notebooks of one fleet, each in a kernel of its own, side by side."""
    folder = str(made_by_hand().save(tmp_path_factory.mktemp("fleet") / "tables"))
    with ThreadPoolExecutor(2) as pool:
        nodes = pool.map(lambda path: run_notebook(path, {"fleet_folder": folder}), IN_A_KERNEL)
        return dict(zip(IN_A_KERNEL, nodes, strict=True))


@pytest.mark.parametrize("path", IN_A_KERNEL, ids=[path.stem for path in IN_A_KERNEL])
def test_a_notebook_runs_in_a_kernel_of_its_own(ran, path):
    outputs = [output for cell in code_of(ran[path]) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    drawn = sum("image/png" in output.get("data", {}) for output in outputs)
    assert drawn == sum("psod.plot_" in cell.source for cell in code_of(ran[path]))


def small(tmp_path: Path, *cells: str) -> Path:
    nodes = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nodes[0].metadata["tags"] = ["parameters"]
    path = tmp_path / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=nodes), path)
    return path


def test_parameters_arrive_as_values_and_the_outputs_are_steady(tmp_path):
    path = small(
        tmp_path, "a = 1\nb = None\nc = {}", "import psodlib, os\nprint(a, b, c['k'], os.path.basename(os.getcwd()))"
    )
    value = "x'\"\n\\ $(id) {b}"
    node = run_notebook(path, {"b": value, "c": {"k": [True, 1.5, Path("p")]}})
    assert code_of(node)[-1].outputs[0].text == f"1 {value} [True, 1.5, 'p'] {tmp_path.name}\n"
    assert [cell.execution_count for cell in node.cells] == [1, 2, 3]
    assert node.cells[1].metadata["tags"] == ["injected-parameters"]
    one, two = (write_notebook(node, tmp_path / name).read_bytes() for name in ("one.ipynb", "two.ipynb"))
    assert one == two and one.endswith(b"}\n")


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"z": 1}, "no parameter 'z'; it has a"),
        ({"a": float("inf")}, "finite"),
        ({"a": object()}, "found object"),
    ],
)
def test_a_parameter_that_cannot_be_given_is_refused(tmp_path, parameters, problem):
    with pytest.raises(InputError, match=problem):
        run_notebook(small(tmp_path, "a = 1"), parameters)


def test_what_is_no_notebook_is_refused(tmp_path):
    (tmp_path / "text.ipynb").write_text("no json")
    for path in (tmp_path / "text.ipynb", tmp_path / "none.ipynb"):
        with pytest.raises(InputError, match="notebook"):
            run_notebook(path)


def test_a_block_is_shown_letter_by_letter():
    html = Bullets((HOSTILE, "\x1b[31m"))._repr_html_()
    assert "<script" not in html and "$x^2$" not in html and "\x1b" not in html
    assert html.count("<li>") == 2
