"""The explorer without a browser: what its data and its page hold, what log text may not do, what is kept of notes."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import DATA
from views import hand_made

from psodlib import schema
from psodlib.errors import InputError
from psodlib.fleet import Fleet, load
from psodlib.triage.similar import similar_crashes
from psodlib.views.crash import facts_table, lines_before, marks_of, own_text, pages_of, place_of
from psodlib.views.document import Code, Document, Section, to_html, to_markdown
from psodlib.views.explore import (
    MOST_NOTE,
    NOTES_FILE,
    Note,
    explore,
    explorer_data,
    explorer_document,
    note_section,
    offline_twin,
    read_notes,
    write_note,
)

ATTACK = "</pre></td></script><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m\u202egnp.\"'><svg/onload=1>$x$ ![a](b) &lt;"
LETTERS = ATTACK.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
TAGS = {
    "a", "aside", "b", "body", "caption", "details", "div", "footer", "h1", "h2", "h3", "h4", "h5", "head", "header", "html", "li", "main", "meta", "nav",
    "noscript", "p", "pre", "script", "section", "span", "style", "summary", "table", "tbody", "td", "th", "thead", "title", "tr", "ul",
}  # fmt: skip


class Page(HTMLParser):
    """A page's tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def marked(number: int = 12, crashing: int = 8) -> Fleet:
    """The hand-made fleet, its crashes on two clusters, of two kinds and two signatures, one without a time."""
    fleet = hand_made.fleet(hosts=number, crashing=crashing, cluster=[f"c{i % 2}" for i in range(number)])
    fleet.crashes.loc[:2, "signature"] = "bnx2x_start_xmit"
    fleet.crashes.loc[1:4, "kind"] = "spin_count"
    fleet.crashes.loc[0, "time"] = pd.NaT
    fleet.crashes.loc[5, "driver_version"] = pd.NA
    return fleet


# --- log text is text -----------------------------------------------------------------------------------------------


def attacked() -> Fleet:
    """The attack in every text cell of every table, keys that join tables alike included."""
    fleet = hand_made.fleet(hosts=3, crashing=3, cluster="blue", rack="r1")
    tables = {}
    for name in [*schema.TABLES, *schema.AUXILIARY]:
        table: pd.DataFrame = getattr(fleet, name).copy()
        for column in table.select_dtypes("string"):
            table[column] = f"{column} {ATTACK}" if column not in ("host", "crash_id") else table[column] + ATTACK
        tables[name] = table
    tables["drivers"]["module"] = "hpsa"
    ids = list(tables["crashes"]["crash_id"])
    tables["texts"] = schema.build("texts", [{"crash_id": each, "text": f"verbatim {ATTACK}\n" * 2} for each in ids])
    tables["reasons"] = schema.build(
        "reasons", [{"crash_id": each, "about": "doubt", "text": f"Reason {ATTACK}"} for each in ids]
    )
    return Fleet(**tables, simulated=True)


def harmless(html: str, scripts: int) -> Page:
    page = Page(html)
    assert page.tags <= TAGS and html.count("<script") == scripts
    assert not {name for name, _ in page.attributes} & {"src", "onerror", "onload", "onclick"}
    assert all(
        value and value.startswith("#") for name, value in page.attributes if name == "href" and value != "index.html"
    )
    assert "\x1b" not in html and "\u202e" not in html
    return page


def test_no_field_of_any_table_reaches_the_page_as_markup() -> None:
    html = to_html(explorer_document(attacked(), "hpsa"), home="index.html")
    page = harmless(html, scripts=2)  # its data, and the module whose hash the policy names
    data = re.search(r'class="psx-data">(.*?)</script>', html, re.DOTALL)
    assert data and "<" not in data[1] and json.loads(data[1])["crashes"][0]["kind"]
    for field in ("message", "source", "verbatim", "Reason", "signature"):
        assert f"{field} {LETTERS}" in page.text, field


def test_no_field_reaches_the_widget_as_markup(tmp_path: Path) -> None:
    fleet = attacked()
    write_note(tmp_path, str(fleet.crashes["crash_id"].iloc[0]), Note((ATTACK,), ATTACK))
    explorer = explore(fleet, notes=tmp_path).explorer
    assert explorer.crash_id is not None
    harmless(explorer.crash.value, scripts=0)
    words = json.dumps(explorer.picture.data, ensure_ascii=False)
    assert "\x1b" not in words and "\u202e" not in words  # ``explorer.js`` shows its data as text


def test_the_twin_of_an_exported_notebook_is_one_walled_off_frame() -> None:
    twin = Page(offline_twin(attacked(), "hpsa"))
    given = dict(twin.attributes)
    assert twin.tags == {"iframe"} and given["sandbox"] == "allow-scripts"
    harmless(given["srcdoc"] or "", scripts=2)


def test_the_script_makes_no_markup_of_text() -> None:
    source = to_html(explorer_document(hand_made.fleet(), "hpsa")).partition('<script type="module">')[2]
    assert "render({ model, el })" in source
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|srcdoc|DOMParser", source
    )


def test_a_text_of_megabytes_is_cut_and_counted() -> None:
    fleet = hand_made.fleet(
        hosts=2, crashing=2, words=dict.fromkeys(("message", "function", "signature", "host"), "A<" * 1000000)
    )
    html = to_html(explorer_document(fleet, "hpsa"))
    assert len(html) < 300_000
    assert "more letters)" in to_html(Document(title="t", sections=[Section("s", [Code("A<" * 1000000)])]))


@pytest.mark.parametrize("value", [None, pd.NA, float("nan"), 7, "", "a\ud800b", "a$b$"])
def test_any_cell_can_be_shown(value: Any) -> None:
    fleet = hand_made.fleet(hosts=1, crashing=1)
    fleet.crashes["signature"] = pd.Series([value], dtype=object)
    to_html(explorer_document(fleet, "hpsa")).encode("utf-8")


# --- one crash ------------------------------------------------------------------------------------------------------


def test_the_text_is_shown_as_it_was_and_the_guilty_frames_beside_it(real: Fleet) -> None:
    file = DATA / "incident-2014-05-31/incident-host/var/core/vmkernel-log.1"
    (code,) = own_text(real, real.crashes.iloc[0])
    assert isinstance(code, Code)
    assert code.text + "\n" == file.read_text()
    assert (code.first, code.marks) == (1, {2: "hpsa", 3: "hpsa", 4: "hpsa"})
    assert "incident-host/var/core/vmkernel-log.1, from line 1 and byte 0" in code.caption
    html = to_html(Document(title="t", sections=[Section("s", [code])]))
    assert "hpsa_update_scsi_devices@#+0x39c stack: 0x410b0c037060</span>" in html and 'data-n="3"' in html
    assert code.text in to_markdown(Document(title="t", sections=[Section("s", [code])]))


def test_marks_need_no_address(real: Fleet) -> None:
    frames = real.frames.assign(address=pd.array([None] * len(real.frames), dtype="UInt64"))
    assert marks_of(["a", "0: hpsa_scan_start@x", "kthread"], frames, "hpsa") == {1: "hpsa"}
    assert marks_of(["hpsa_scan_start"], frames, pd.NA) == {}


def test_a_crash_tells_its_issue_and_why_it_is_signed_so(real: Fleet) -> None:
    crash = real.crashes.iloc[0]
    text = repr(Document(title="t", sections=pages_of(real)(crash)))
    assert "KB2075978 (reported): hpsa 5.5.0.58" in text
    assert (
        "So the signature is hpsa_update_scsi_devices." in text
        and "Left out: kthread (where a vmklinux thread begins)." in text
    )
    assert not re.search(r"drop_irrelevant|first_telling|\.txt:\d", text)
    assert "5.5.0.58, known from /proc" in repr(facts_table(real, crash))


def test_an_unknown_host_in_the_address_and_a_crash_without_one_are_shown() -> None:
    fleet = replace(marked(), crashes=marked().crashes.assign(host=pd.NA))
    assert pages_of(fleet)(fleet.crashes.iloc[0])


def test_similar_crashes_are_those_of_similar_crashes() -> None:
    fleet = marked()
    crash = fleet.crashes.iloc[2]
    told = repr(next(part for part in pages_of(fleet)(crash) if part.title == "Similar crashes").blocks[-1])
    found = similar_crashes(fleet, str(crash["crash_id"]), 8)
    assert len(found) and all(each in told for each in found.loc[found["proposal"].notna(), "crash_id"])
    bare = replace(fleet, frames=schema.empty("frames"))
    said = repr(next(part for part in pages_of(bare)(crash) if part.title == "Similar crashes").blocks)
    assert "Alike" not in said  # no frames is no likeness


def test_no_page_names_a_folder_of_this_machine() -> None:
    assert place_of("/home/me/evidence/esx1/var/core/vmkernel-log.1", 7, "esx1") == "esx1/var/core/vmkernel-log.1:7"
    assert place_of("/tmp/x/y/b.tgz!var/log/vmkernel.log") == "b.tgz!var/log/vmkernel.log"
    assert place_of(pd.NA) == "unknown" and place_of("evidence/a.log", 3) == "evidence/a.log:3"


# --- the data of the script -----------------------------------------------------------------------------------------


def test_the_data_have_every_crash_boot_and_host() -> None:
    fleet = marked()
    data = explorer_data(fleet, "hpsa")
    assert len(data["crashes"]) == 8 and sum(crash["time"] is None for crash in data["crashes"]) == 1
    assert len(data["hosts"]) == 12 and {host["cluster"] for host in data["hosts"]} == {"c0", "c1"}
    assert all(len(boots) == 2 and all(boot["watched"] for boot in boots) for boots in data["boots"].values())
    assert [name for name, _ in data["versions"]] == ["5.5.0.50", "5.5.0.58"]


def test_countless_stretches_are_merged_and_gaps_are_not() -> None:
    fleet = hand_made.fleet(hosts=1, crashing=1)
    first = fleet.coverage.iloc[0]
    step = (first["end"] - first["start"]) / 20_000
    rows = [{"host": first["host"], "boot": first["boot"], "start": first["start"] + i * step, "end": first["start"] + (i + 0.5) * step}
            for i in range(20_000)]  # fmt: skip
    for given, expected in ((rows, 1), ([rows[0], rows[-1]], 2)):
        data = explorer_data(replace(fleet, coverage=schema.build("coverage", given)), "hpsa")
        assert len(data["boots"]["esx00"][0]["watched"]) == expected


# --- lines of the log -----------------------------------------------------------------------------------------------


def logged(tmp_path: Path) -> tuple[Path, Any]:
    file = tmp_path / "host" / "vmkernel.log"
    file.parent.mkdir()
    own = (DATA / "incident-2014-05-31/incident-host/var/core/vmkernel-log.1").read_bytes()
    before = b"".join(b"2014-05-31T15:5%d:00.000Z cpu1:2)ScsiDeviceIO: 2338: <b>%d</b>\r\n" % (i, i) for i in range(5))
    file.write_bytes(before + own)
    return file, load(file, jobs=1).crashes.iloc[0]


def test_lines_before_a_crash_are_read_from_its_file(tmp_path: Path) -> None:
    file, crash = logged(tmp_path)
    place = (str(file), crash["offset"], crash["sha256"])
    lines = lines_before(*place, most=3)
    assert [line[-8:] for line in lines] == ["<b>2</b>", "<b>3</b>", "<b>4</b>"]
    file.write_bytes(file.read_bytes().replace(b"hpsa_scan_start", b"hpsa_scan_stare"))
    assert lines_before(*place) == ()


def test_only_regular_files_that_hold_the_crash_are_read(tmp_path: Path) -> None:
    file, crash = logged(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for source in (tmp_path, tmp_path / "pipe", "/dev/zero", f"{file}!member", "a\0b", "x" * 5000, None, "http://x/y"):
        assert lines_before(source, crash["offset"], crash["sha256"]) == ()
    for offset in (-1, 10**18, None):
        assert lines_before(file, offset, crash["sha256"]) == ()


# --- tags and notes -------------------------------------------------------------------------------------------------


def test_notes_come_back_and_leave_others_alone(tmp_path: Path) -> None:
    first, second = Note(("a", "b"), "text \ud800 <b>\nmore", "2026-01-01T00:00:00Z"), Note((), "two")
    write_note(tmp_path / "new", "one", first)
    write_note(tmp_path / "new", "two", second)
    assert read_notes(tmp_path / "new") == {"one": first, "two": second}
    write_note(tmp_path / "new", "one", Note())
    assert read_notes(tmp_path / "new") == {"two": second}
    assert read_notes(tmp_path) == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": {"tags": 3}}', "[" * 100_000])
def test_a_broken_notes_file_is_named_and_not_overwritten(tmp_path: Path, text: str) -> None:
    file = tmp_path / NOTES_FILE
    file.write_text(text)
    with pytest.raises(InputError, match=NOTES_FILE.split(".")[0]):
        write_note(tmp_path, "one", Note(("a",)))
    assert file.read_text() == text


def test_a_note_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at most"):
        write_note(tmp_path, "one", Note((), "a" * (MOST_NOTE + 1)))


def test_a_note_is_exported_with_the_write_up() -> None:
    section = note_section({"one": Note(("duplicate",), ATTACK, "2026-01-01")}, "one")
    assert section is not None
    document = Document(title="t", sections=[section])
    assert "<img" not in to_html(document) and "Tags: duplicate." in to_html(document)
    assert "<img" not in to_markdown(document)
    assert note_section({}, "one") is None


# --- the widgets ----------------------------------------------------------------------------------------------------


def test_what_is_chosen_is_shown_and_its_note_kept(tmp_path: Path) -> None:
    explorer = explore(marked(), notes=tmp_path).explorer
    assert explorer.crash_id == "c000000000000007"
    explorer.picture.chosen = "crash=c000000000000002"
    assert "Crash of esx02" in explorer.crash.value
    explorer.offered.value, explorer.note.value = "duplicate", " seen "
    explorer.save.click()
    assert read_notes(tmp_path)["c000000000000002"].tags == ("duplicate",)
    assert explorer.picture.data["tags"] == {"c000000000000002": "[duplicate]"}
    again = explore(marked(), notes=tmp_path).explorer
    again.picture.chosen = "crash=c000000000000002"
    assert (list(again.tags.value), again.note.value) == (["duplicate"], "seen")
    for place in ("host=esx02", "crash=nobody", ""):
        again.picture.chosen = place
        assert again.save.disabled and "No crash is chosen" in again.crash.value


def test_without_a_folder_it_says_that_notes_do_not_last() -> None:
    explorer = explore(marked()).explorer
    assert explorer.save.description == "Keep until the kernel ends"
    explorer.note.value = "x"
    explorer.save.click()
    assert "in this kernel alone" in explorer.saved.value


def test_a_failed_save_is_said(tmp_path: Path) -> None:
    explorer = explore(marked(), notes=tmp_path).explorer
    (tmp_path / NOTES_FILE).write_text("{")
    explorer.note.value = "x"
    explorer.save.click()
    assert "Not saved" in explorer.saved.value


@pytest.mark.parametrize("name", ["empty", "no crash", "no inventory", "no times", "one host", "no host name"])
def test_small_and_damaged_fleets_are_shown(name: str) -> None:
    fleet = {
        "empty": Fleet,
        "no crash": lambda: hand_made.fleet(hosts=3, crashing=0),
        "no inventory": lambda: replace(marked(), hosts=marked().hosts.drop(columns=["cluster"])),
        "no times": lambda: replace(marked(), crashes=marked().crashes.assign(time=pd.NaT)),
        "one host": lambda: hand_made.fleet(hosts=1, crashing=1),
        "no host name": lambda: replace(marked(), crashes=marked().crashes.assign(host=pd.NA)),
    }[name]()
    fleet = replace(fleet, crashes=schema.conform("crashes", fleet.crashes))
    assert len(explore(fleet).explorer.picture.data["crashes"]) == len(fleet.crashes)
    html = to_html(explorer_document(fleet, "hpsa"))
    assert ("No crash was found." in html) == fleet.crashes.empty


def test_made_up_evidence_is_called_so() -> None:
    for fleet in (marked(), replace(marked(), simulated=False)):
        assert ("Simulated fleet" in to_html(explorer_document(fleet, "hpsa"))) == fleet.simulated
        assert ("Simulated fleet" in explore(fleet).explorer.children[0].value) == fleet.simulated


def test_the_saved_file_is_plain_json(tmp_path: Path) -> None:
    file = write_note(tmp_path, "one", Note(("ä",), "é"))
    assert json.loads(file.read_text(encoding="ascii")) == {"one": {"tags": ["ä"], "text": "é", "changed": ""}}
    assert list(tmp_path.iterdir()) == [file]
