"""The report's pages: what they say, that they say it on every fleet, and that log text stays text on every surface."""

from __future__ import annotations

import csv
import re
import shutil
import struct
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import mistune
import pandas as pd
import pytest
from views import hand_made

from psodlib import schema
from psodlib.errors import InputError
from psodlib.fleet import Fleet, load
from psodlib.triage.known_issues import load_issues
from psodlib.views.brief import brief, verdict
from psodlib.views.document import Bullets, Code, Document, Section, Steps, Table, Text, to_html, to_markdown, to_pdf
from psodlib.views.notebooks import notebook_folder, safe_html
from psodlib.views.report import report
from psodlib.views.spreadsheet import write_csv
from psodlib.views.study import study, unknowns
from psodlib.views.words import between, count, figure, listing, literal, share, span
from psodlib.views.writeup import choose_crash, write_up

# One of each sort: HTML, script, Markdown, typst, LaTeX, a table's bar, a terminal's escape; a formula at the start.
HOSTILE = (
    '=HYPERLINK("http://evil.example/x")<script>alert(1)</script><img src=x onerror=alert(1)>[t](javascript:alert(1))'
    ' **b** ![i](http://evil.example/i.png) `c` #image("/etc/passwd") #panic("p") $a^2$ @ref | x \x1b[31m <b'
    ' onclick="x()">'
)
FIELDS = ("host", "message", "module", "function", "version", "source", "vib", "detail", "signature", "world_name")
# Elements and attributes that no page of ours needs.
FORBIDDEN = {"script", "iframe", "object", "embed", "form", "input", "button", "base", "svg", "video", "audio", "link"}

pdftotext = pytest.mark.skipif(not shutil.which("pdftotext"), reason="pdftotext (poppler-utils) is not installed")


class Page(HTMLParser):
    """A page's elements, the values of its attributes and its visible text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(html)
        self.text = "".join(self.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def assert_harmless(html: str, scripts: int = 0) -> Page:
    found = Page(html)
    assert not (FORBIDDEN - {"script"}) & set(found.tags)
    assert found.tags.count("script") == scripts == html.count("<script")  # the picture's data, and our module
    for tag, name, value in found.attributes:
        assert not name.startswith("on"), (tag, name, value)
        if name == "src":
            assert value.startswith("data:image/png;base64,"), value[:80]
        if name == "href":
            assert ":" not in value and not value.startswith("//"), value
    return found


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a fleet whose every text field is hostile."""
    words = {field: f"{HOSTILE}{field}" for field in FIELDS}
    fleet = hand_made.fleet(
        hosts=5, crashing=3, words=words, cluster=f"{HOSTILE}cluster", **{f"{HOSTILE}column": f"{HOSTILE}cell"}
    )
    return report(fleet, tmp_path_factory.mktemp("hostile") / "report", module="hpsa", notebooks=False).folder


# ---- hostile text on every surface -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["index.html", "brief.html", "writeup.html"])
def test_hostile_text_stays_text_in_html(hostile: Path, name: str) -> None:
    page = next(hostile.glob(name))
    found = assert_harmless(page.read_text(encoding="utf-8"), scripts=0 if name == "brief.html" else 2)
    shown = literal(HOSTILE)
    fields = {"index.html": ("module", "function", "source", "detail"), "brief.html": ("version",),
              "writeup.html": ("host", "message", "module", "function", "version", "source", "signature", "world_name")}  # fmt: skip
    for field in fields[name]:
        assert f"{shown}{field}" in found.text, field


@pytest.mark.parametrize("name", ["brief.pdf", "writeup.pdf"])
@pdftotext
def test_hostile_text_stays_text_in_pdf(hostile: Path, name: str) -> None:
    words = ["pdftotext", "-raw", hostile / name, "-"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    flat = "".join(done.stdout.replace("\u200b", "").split())
    code = ('#image("/etc/passwd")', '#panic("p")', "$a^2$", "<script>alert(1)</script>")
    for part in (*code, "**b**", "[t](javascript:alert(1))"):
        assert part in flat, part


def test_hostile_text_stays_text_in_markdown(hostile: Path) -> None:
    source = (hostile / "writeup.md").read_text(encoding="utf-8")
    render = mistune.create_markdown(escape=False, plugins=["table", "strikethrough", "url", "math"])
    html = str(render(source))
    found = Page(html)
    assert {"h1", "h2", "table"} <= set(found.tags)
    assert not {"a", "img", "script", "b", "del"} & set(found.tags)
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    assert 'class="math"' not in html
    assert f"{literal(HOSTILE)}message" in found.text


def test_hostile_text_computes_nothing_in_csv(hostile: Path) -> None:
    files = [*hostile.glob("charts/*.csv"), *hostile.glob("tables/*.csv")]
    assert len(files) > 10
    for file in files:
        with file.open(encoding="utf-8", newline="") as lines:
            cells = [cell for row in csv.reader(lines) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "@", "\t", "\r"))], file.name
        assert not [cell for cell in cells if cell.startswith("-") and not cell[1:].replace(".", "").isdigit()], (
            file.name
        )
    crashes = pd.read_csv(hostile / "tables" / "crashes.csv")
    assert crashes["message"].str.startswith("'=HYPERLINK").all()


def test_hostile_text_runs_nothing_in_svg(hostile: Path) -> None:
    files = list(hostile.glob("charts/*.svg"))
    assert files
    for file in files:
        for element in ElementTree.parse(file).iter():
            assert not element.tag.endswith(("}script", "}foreignObject", "}image"))
            for name, value in element.attrib.items():
                assert not name.startswith("on")
                assert not name.endswith("href") or value.startswith("#")


def test_safe_html_keeps_text_tables_and_pictures_and_nothing_that_acts() -> None:
    picture = "data:image/png;base64,iVBORw0KGgo="
    html = (
        "<h1 id='a'>T</h1><style scoped>.dataframe {}</style><table border='1'"
        " class='dataframe'><thead><tr><th></th><th>n</th></tr></thead><tbody><tr><th>0</th><td>&lt;script&gt;1&lt;/script&gt;</td></tr></tbody></table><img"
        f" src='{picture}' alt='A chart'><script>alert(1)</script><iframe src='http://e'></iframe><a"
        " href='http://evil.example'>away</a><a href='#a'>here</a><a href='javascript:alert(1)'>j</a><img"
        " src='http://e/x.png'><img src='data:image/svg+xml;base64,PHN2Zz4='><div onclick='x()'"
        " style='background:url(http://e)'>d</div><svg><script>2</script></svg><link href='x.css'><base"
        " href='//e'><form action='//e'><input></form><meta http-equiv='refresh' content='0;url=//e'><!-- c --><object"
        " data='x'></object>"
    )
    safe = safe_html(html)
    found = assert_harmless(safe.replace("<img>", ""))
    assert ("img", "src", picture) in found.attributes and ("a", "href", "#a") in found.attributes
    assert '<table class="dataframe" tabindex="0">' in safe and "<td></td>" in safe
    assert '<th scope="col">n</th>' in safe and '<th scope="row">0</th>' in safe
    assert "&lt;script&gt;1&lt;/script&gt;" in safe and ".dataframe" not in safe and "away" in found.text
    assert not {"style", "meta", "link", "base", "form"} & set(found.tags) and "evil.example" not in safe


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-cmd", "@SUM(A1)", "\t=1", "\n=1", "＝1"])
def test_csv_cells_and_headers_that_begin_a_formula_get_an_apostrophe(tmp_path: Path, cell: str) -> None:
    table = pd.DataFrame(
        {cell: pd.array([cell, None], dtype="string"), "kind": pd.Categorical([cell, "a"]), "n": [-1.5, 2.0]}
    )
    with write_csv(table, tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [[f"'{cell}", "kind", "n"], [f"'{cell}", f"'{cell}", "-1.5"], ["", "a", "2.0"]]


def test_csv_cell_with_a_carriage_return_begins_no_row_of_its_own(tmp_path: Path) -> None:
    file = write_csv(pd.DataFrame({"a": ["x\r=1+1", "\r=1"]}), tmp_path / "t.csv")
    assert file.read_bytes() == b"a\nx\\r=1+1\n\\r=1\n"


def test_csv_of_text_that_no_file_can_hold_is_written(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": pd.Series(["\ud800x"], dtype=object)})
    assert "ud800x" in write_csv(table, tmp_path / "t.csv").read_text(encoding="utf-8")


# ---- one content, three surfaces ---------------------------------------------------------------------------------------

EVERY_BLOCK = Document(
    title="Title here", subtitle="Subtitle here", lead="Lead here", notice="Notice here", facts=[("Label here", "Value here")],
    sections=[Section("Section here", [
        Text("Paragraph here"), Bullets(["Bullet here"]), Code("Code here\n  indented here"),
        Steps([("Step here", "# command here", "Answer here")]), Table("Caption here", ["Column here"], [["Cell here"]], "Note here"),
    ])],
)  # fmt: skip
PARTS = ("Title", "Subtitle", "Lead", "Notice", "Label", "Value", "Section", "Paragraph", "Bullet", "Code", "Step", "command", "Answer",
         "Caption", "Column", "Cell", "Note")  # fmt: skip


def test_html_and_markdown_say_all_of_a_document() -> None:
    html, markdown = Page(to_html(EVERY_BLOCK)).text, to_markdown(EVERY_BLOCK)
    for part in PARTS:
        assert f"{part} here" in html and f"{part} here" in markdown, part


@pdftotext
@pytest.mark.parametrize("style", ["brief.typ", "writeup.typ"])
def test_pdf_says_all_of_a_document(tmp_path: Path, style: str) -> None:
    to_pdf(EVERY_BLOCK, tmp_path / "d.pdf", style)
    words = ["pdftotext", "-layout", tmp_path / "d.pdf", "-"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    for part in PARTS:
        assert f"{part} here" in done.stdout.replace("\u200b", ""), part


def test_a_fence_is_longer_than_any_inside_it() -> None:
    markdown = to_markdown(Document(title="t", sections=[Section("s", [Code("```\n# out\n`````")])]))
    assert "\n``````text\n```\n# out\n`````\n``````\n" in markdown


def test_html_page_allows_no_script_and_no_fetch_and_can_be_found_one_s_way_in() -> None:
    html = to_html(EVERY_BLOCK, home="index.html")
    found = Page(html)
    assert ("html", "lang", "en") in found.attributes
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in [value for _, _, value in found.attributes]
    assert [tag for tag in found.tags if tag[0] == "h" and tag[1:].isdigit()] == ["h1", "h2"]
    assert ("th", "scope", "col") in found.attributes and ("th", "scope", "row") in found.attributes
    assert "url(" not in html and "@import" not in html and "http:" not in html and "https:" not in html


# ---- every fleet -------------------------------------------------------------------------------------------------------


def without(fleet: Fleet, **tables: pd.DataFrame) -> Fleet:
    return Fleet(**{**fleet.tables, "coverage": fleet.coverage, "simulated": fleet.simulated, **tables})


def fleets() -> Iterator[tuple[str, Fleet]]:
    whole = hand_made.fleet()
    plain = whole.hosts.drop(columns=["cluster", "users", "vms"])
    yield "whole", whole
    yield "empty", Fleet()
    yield "no crash", hand_made.fleet(crashing=0)
    yield "one host", hand_made.fleet(hosts=1, crashing=1)
    yield "one host, no crash", hand_made.fleet(hosts=1, crashing=0)
    yield "no inventory", without(whole, hosts=plain)
    yield "no versions", without(whole, drivers=schema.empty("drivers"))
    yield "no frames", without(whole, frames=schema.empty("frames"))
    yield "no boots", without(whole, uptimes=schema.empty("uptimes"), coverage=schema.empty("coverage"))
    nobody = dict.fromkeys(["guilty_module", "guilty_function", "driver_version"], pd.NA)
    yield "no module", without(whole, crashes=whole.crashes.assign(**nobody, guilt="none"))
    unknown = schema.build("crashes", [{"crash_id": "c1", "host": "esx00", "guilt": "none", "kind": "other"}])
    yield "crash of unknowns", without(whole, crashes=unknown)
    words = without(whole, hosts=whole.hosts.assign(users="many", vms=pd.NA))
    yield "users in words", words


@pytest.mark.parametrize(("name", "fleet"), [pytest.param(name, fleet, id=name) for name, fleet in fleets()])
def test_brief_and_write_up_are_made_of_every_fleet(name: str, fleet: Fleet) -> None:
    found = study(fleet)
    for document in (brief(found), write_up(fleet, choose_crash(fleet))):
        html, markdown = to_html(document), to_markdown(document)
        assert document.lead and all(section.blocks for section in document.sections)
        for text in (Page(html).text, markdown):
            assert not re.search(r"\bnan\b|\binf\b|\bNaT\b|<NA>|&lt;NA|Timedelta|\bNone\b", text)
        assert ("Simulated fleet" in html) == fleet.simulated


def test_what_cannot_be_said_is_said() -> None:
    said = {name: study(fleet) for name, fleet in fleets()}
    assert "it is not known which version of hpsa was loaded" in " ".join(unknowns(said["no versions"]))
    assert said["no module"].counts.nobody == 8
    assert "nothing of the hosts" in verdict(study(Fleet()))


def test_write_up_names_commands_evidence_and_check() -> None:
    fleet = hand_made.fleet()
    text = to_markdown(write_up(fleet, choose_crash(fleet), go_to="5.5.0.50"))
    assert "esxcli software vib install -d /vmfs/volumes/DATASTORE/hpsa-5.5.0-offline_bundle-1287942.zip" in text
    assert "# reboot\n" in text and text.count("# cat /proc/scsi/hpsa/2") == 2
    assert "esx/var/core/vmkernel-log.1:1" in text and "9f" * 32 in text
    assert "Hewlett-Packard\\_bootbank\\_scsi-hpsa\\_5.5.0.50-1OEM.550.0.0.1198611" in text


def test_a_fact_without_a_time_is_said_to_have_only_its_order() -> None:
    fleet = hand_made.fleet()
    dated = to_markdown(write_up(fleet, choose_crash(fleet)))
    never = fleet.drivers["observed_at"].mask(fleet.drivers["host"].notna())
    undated = without(fleet, drivers=fleet.drivers.assign(observed_at=never))
    words = to_markdown(write_up(undated, choose_crash(undated)))
    assert "only the order is known" in words and "only the order is known" not in dated


def test_one_case_without_host_days_is_given_no_rate() -> None:
    fleet = hand_made.fleet()
    alone = without(fleet, uptimes=fleet.uptimes.assign(observed=pd.Timedelta(0)))
    words = [to_markdown(write_up(each, choose_crash(each))) for each in (fleet, alone)]
    assert ["no rate can be given" in text for text in words] == [False, True]


def test_the_runbook_moves_no_host_because_of_one_crash() -> None:
    fleet = hand_made.fleet()
    crash = fleet.crashes.iloc[0].copy()
    crash["driver_version"], crash["known_issues"] = "5.5.0.50", pd.NA
    text = to_markdown(write_up(fleet, crash, issues=load_issues()))
    assert "Change no driver because of this crash alone" in text
    assert "vib install" not in text


def test_the_runbook_goes_to_the_pin_and_stays_on_it() -> None:
    fleet = hand_made.fleet()
    crash = fleet.crashes.iloc[0].copy()
    crash["driver_version"] = "5.5.0.58"
    assert "From hpsa 5.5.0.58 to 5.5.0.60: the pin decision" in to_markdown(write_up(fleet, crash, go_to="5.5.0.60"))
    assert "nothing to change" in to_markdown(write_up(fleet, crash, go_to="5.5.0.58"))


def test_a_rollback_that_the_evidence_shows_is_not_advised_again(real: Fleet) -> None:
    text = to_markdown(write_up(real, choose_crash(real), issues=load_issues()))
    assert "From hpsa 5.5.0.58 to 5.5.0.50: a known issue names the version that crashed" in text
    assert "This host has done it: 5.5.0.50 was read as loaded afterwards" in text
    assert "hosts that run hpsa 5.5.0.58 now" not in text


def test_every_crash_is_counted_once_and_the_lines_add_up() -> None:
    fleet = hand_made.fleet()
    host = fleet.crashes["host"].iloc[0]
    blind = study(without(fleet, coverage=fleet.coverage[fleet.coverage["host"] != host])).counts
    assert (blind.module, blind.unwatched, blind.in_rates) == (8, 1, 7)
    trace = without(fleet, crashes=fleet.crashes.iloc[1:], uptimes=fleet.uptimes.assign(
        crash_id=fleet.uptimes["crash_id"].mask(fleet.uptimes["crash_id"] == fleet.crashes["crash_id"].iloc[0])))  # fmt: skip
    lost = study(trace).counts
    assert (lost.texts, lost.lost_text, lost.crashed, lost.no_boot) == (7, 1, 8, 0)
    for _, each in fleets():
        counts = study(each).counts
        assert counts.crashed + counts.no_boot == counts.texts + counts.lost_text
        assert counts.texts == counts.deliberate + counts.hardware + counts.others + counts.nobody + counts.module
        assert counts.module == counts.unwatched + counts.repeats + counts.no_version + counts.in_rates


@pdftotext
def test_the_brief_is_two_pages_with_words_that_can_be_read(tmp_path: Path) -> None:
    folder = report(hand_made.fleet(), tmp_path / "r", notebooks=False).folder
    pages = subprocess.run(["pdftotext", folder / "brief.pdf", "-"], capture_output=True, check=True).stdout
    assert pages.count(b"\f") <= 2
    heads = [(folder / "charts" / f"{name}.png").read_bytes()[16:20] for name in ("rates", "options", "rollout")]
    widths = [struct.unpack(">I", head)[0] for head in heads]
    # 8.5 points at 220 dots an inch, shrunk to a page's 174 mm, are still 8 (to a tenth)
    assert min(8.5 * min(1.0, 174 / 25.4 * 220 / width) for width in widths) > 7.95


def test_a_crash_that_is_not_there_is_an_error() -> None:
    with pytest.raises(InputError, match="0 crashes have an id that begins with 'nope'"):
        choose_crash(hand_made.fleet(), "nope")


def test_candidates_that_never_ran_are_an_error() -> None:
    with pytest.raises(InputError, match=r"9\.9"):
        study(hand_made.fleet(), candidates=["9.9", "5.5.0.50"])


def test_a_module_that_no_host_is_known_to_run_has_a_report(tmp_path: Path) -> None:
    made = report(hand_made.strangers(), tmp_path / "r", notebooks=False)
    assert made.index.exists() and "No driver stands out" in made.lead
    assert "<h1>Crash report</h1>" in made.index.read_text()


def test_empty_fleet_gives_a_whole_report(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    made = report(Fleet(), tmp_path / "r", notebooks=False, progress=lambda *step: seen.append(step))
    assert made.index.exists() and (made.folder / "brief.pdf").stat().st_size > 5000
    assert "No crash was found" in made.index.read_text(encoding="utf-8")
    assert [done for _, done, _ in seen] == [1, 2, 3, 4, 5] and {total for *_, total in seen} == {5}
    assert schema.TABLES.keys() <= {file.stem for file in (made.folder / "tables").glob("*.parquet")}


def test_report_inside_the_evidence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lies inside the evidence"):
        report(tmp_path, tmp_path / "report")


# ---- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (figure(float("nan")), "no information"), (figure(float("inf")), "unbounded"), (figure(0), "0"), (figure(0.0412), "0.041"),
        (figure(12.2), "12"), (figure(1e9), "1,000,000,000"), (figure(None), "no information"), (figure(9.96), "10"),
        (between(0, float("inf")), "unbounded"), (between(2, float("inf")), "at least 2.0"), (between(0.31, 68.2), "0.31 to 68"),
        (count(1, "crash", "crashes"), "1 crash"), (count(1234, "host"), "1,234 hosts"), (share(999, 1000), "99 %"),
        (share(1, 1000), "under 1 %"), (share(0, 0), "no information"), (span(pd.Timedelta("29 days 20:14:10")), "29 d 20 h"),
        (span(pd.NaT), "unknown"), (span(pd.Timedelta(seconds=9)), "9 s"), (span(pd.Timedelta(seconds=-90)), "-1 min 30 s"),
        (listing([]), "none"), (listing(["a"]), "a"), (listing("abc"), "a, b and c"), (listing(range(9)), "0, 1, 2, 3, 4 and 4 more"),
        (literal(pd.NA), "unknown"), (literal("a\u202eb\x00"), "a\\u202eb\\x00"), (literal("\ud800"), "\\ud800"),
    ],
)  # fmt: skip
def test_words(said: str, expected: str) -> None:
    assert said == expected


def test_the_notebook_names_the_sections_that_the_write_up_has() -> None:
    fleet = hand_made.fleet()
    titles = {section.title for section in write_up(fleet, choose_crash(fleet)).sections}
    notebook = (notebook_folder() / "06_incident_writeup.ipynb").read_text(encoding="utf-8")
    asked = set(re.findall(r'parts\.get\(\\"([^"\\]+)\\"', notebook))
    assert len(asked) > 4
    assert asked <= titles


@pytest.mark.parametrize(
    ("crash", "lead"),
    [("", "No crash in"), ("@BlueScreen: Machine Check Exception: Fatal (unrecoverable) MCE on PCPU3 in world 33000:vmm0:web01\n"
                           "2016-03-01T10:00:00.003Z cpu3:33000)0x4390c0e9bd30:[0x41800f6b0a5c]MCE_ProcessBank@vmkernel#nover+0x1c stack: 0x0\n",
                           "The machine reported a hardware error")],
)  # fmt: skip
def test_where_the_evidence_names_no_driver_the_pages_name_none(tmp_path: Path, crash: str, lead: str) -> None:
    host = tmp_path / "evidence" / "esx01"
    host.mkdir(parents=True)
    (host / "vmksummary.log").write_text("2016-03-01T09:00:00Z heartbeat: up 3d0h12m5s, 2 VMs; [[1 vmx 1kB]]\n")
    (host / "vmkernel.log").write_text(f"2016-03-01T10:00:00.000Z cpu3:33000){crash or 'ScsiDeviceIO: 1: nothing'}\n")
    written = report(load(tmp_path / "evidence"), tmp_path / "report", notebooks=False)
    pages = [(tmp_path / "report" / name).read_text() for name in ("index.html", "brief.html")]
    assert lead in pages[1] and "Which driver this is about" not in pages[0]
    assert not any(re.search(r"(?:version of|[Cc]aused by) *(?:<|was)|report: *<", page) for page in pages), written
