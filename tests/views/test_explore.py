"""The explorer without a browser: what a selection shows, what log text may not do, what is kept of notes."""

from __future__ import annotations

import json
import os
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
from psodlib.triage.known_issues import load_issues
from psodlib.views import explore as views
from psodlib.views.document import Document, to_html, to_markdown
from psodlib.views.explore import (
    NOT_KNOWN,
    Atlas,
    Note,
    Selection,
    choices,
    explore,
    live,
    notes,
    read_notes,
    selected,
    timeline,
    write_note,
)
from psodlib.views.explore import crash as one_crash
from psodlib.views.explore import selection as choosing

ATTACK = "</pre></td><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m\u202egnp.\"'><svg/onload=1>$x$ ![a](b) &lt;"
LETTERS = ATTACK.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
TAGS = {
    "b", "button", "circle", "code", "div", "g", "h4", "i", "li", "line", "p", "pre", "rect", "span", "style", "svg",
    "table", "tbody", "td", "text", "th", "thead", "title", "tr", "ul",
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


def widget_pages(explorer: Any) -> str:
    return "".join(
        box.value for box in (explorer.bars, explorer.total, explorer.timeline, explorer.crash, explorer.link)
    )


# --- the selection --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "rows"),
    [
        (Selection(), 8),
        (Selection(cluster="c0"), 4),
        (Selection(kind="spin_count"), 4),
        (Selection(kind="spin_count", signature="bnx2x_start_xmit"), 2),
        (Selection(kind="nmi"), 0),
        (Selection(driver_version=NOT_KNOWN), 1),
        (Selection(cluster="no such"), 0),
        (Selection(first="2025-02", last="2025-02"), 5),
        (Selection(first="2025-03"), 2),
        (Selection(last="2025-01"), 0),  # the crash without a time is in no month
    ],
)
def test_filters_let_through(selection: Selection, rows: int) -> None:
    assert len(selected(Atlas(marked()).crashes, selection)) == rows


def test_each_filter_counts_under_the_others() -> None:
    crashes = Atlas(marked()).crashes
    selection = Selection(kind="spin_count", cluster="c1")
    for column in (*choosing.FILTERS, "month"):
        for value, number in choices(crashes, selection, column).items():
            if column == "month":
                continue
            assert number == len(selected(crashes, replace(selection, **{column: value})))
    # its own setting does not narrow a filter: the other kind is still offered
    assert set(choices(crashes, selection, "kind")) == {"spin_count", "page_fault"}
    assert choices(crashes, Selection(signature="bnx2x_start_xmit"), "kind") == {"spin_count": 2, "page_fault": 1}


def test_a_set_value_stays_offered_when_nothing_is_left_of_it() -> None:
    crashes = Atlas(marked()).crashes
    assert choices(crashes, Selection(signature="bnx2x_start_xmit", driver_version=NOT_KNOWN), "signature") == {
        "hpsa | hpsa_update_scsi_devices | hpsa_scan_start": 1,
        "bnx2x_start_xmit": 0,
    }


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
    return Fleet(**tables, simulated=True)


def test_no_field_of_any_table_reaches_a_page_as_markup() -> None:
    fleet = attacked()
    explorer = explore(fleet).explorer
    crash_id = explorer.selection.crash_id
    note = Note((f"tag {ATTACK}",), f"note {ATTACK}")
    exported = views.exported_html(explorer.atlas, replace(explorer.selection, cluster=ATTACK), {crash_id: note})
    for html in (exported, widget_pages(explorer)):
        page = Page(html)
        assert page.tags <= TAGS
        handlers = {(name, value) for name, value in page.attributes if name.startswith("on")}
        assert handlers <= {("onclick", live.COPY)}
        assert not {name for name, _ in page.attributes} & {"src", "href", "onerror", "onload"}
        assert "\x1b" not in html and "\u202e" not in html
        assert not any(("$" in value) for name, value in page.attributes if name == "style" and value)
    assert "onclick" not in exported
    text = Page(exported).text
    for field in ("message", "source", "function", "detail", "tag", "note"):
        if field not in ("detail", "function"):
            assert f"{field} {LETTERS}" in text, field
    assert "crash_id" not in text and LETTERS in text


def test_what_widgets_show_as_text_holds_no_hidden_letters() -> None:
    explorer = explore(attacked()).explorer
    labels = [label for box in (*explorer.filters.values(), explorer.list) for label, _ in box.options]
    assert labels and not any("\x1b" in label or "\u202e" in label or "\n" in label for label in labels)


def test_a_text_of_megabytes_is_cut_and_counted() -> None:
    fleet = hand_made.fleet(
        hosts=2, crashing=2, words=dict.fromkeys(("message", "function", "signature", "host"), "A<" * 1000000)
    )
    explorer = explore(fleet).explorer
    assert len(widget_pages(explorer)) < 200_000
    assert max(len(label) for label, _ in explorer.list.options) < 250
    assert "more letters)" in explorer.crash.value


@pytest.mark.parametrize("value", [None, pd.NA, float("nan"), 7, "", "a\ud800b", "a$b$"])
def test_shown_takes_anything(value: Any) -> None:
    views.shown(value).encode("utf-8")


# --- one crash ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def incident() -> Atlas:
    return Atlas(load(DATA / "incident-2014-05-31", jobs=1), issues=load_issues())


def test_the_real_screen_is_shown_as_it_was(incident: Atlas) -> None:
    crash_id = incident.fleet.crashes["crash_id"].iloc[0]
    crash = incident.crash(crash_id)
    html = views.screen_html(crash, incident.part("frames", crash_id))
    text = Page(html).text
    for line in crash_text(crash).split("\n")[1:6]:
        words = line.split(")", 1)[1].replace("@#", "@hpsa").replace("#9.2", "")
        assert words in text
    assert html.count("<b>") == 3
    assert "VMK uptime: 29:20:14:10.166" in text


def crash_text(crash: Any) -> str:
    text = views.original_text(crash["source"], crash["offset"], crash["sha256"])
    assert text is not None
    return text


def test_frames_mark_the_guilty_in_words_and_colour(incident: Atlas) -> None:
    crash_id = incident.fleet.crashes["crash_id"].iloc[0]
    html = views.frames_html(incident.crash(crash_id), incident.part("frames", crash_id))
    assert html.count("◀ guilty") == html.count(one_crash.GUILTY) == 3
    assert html.count(one_crash.KERNEL) == 4


def test_a_crash_tells_its_issue_and_why_it_is_signed_so(incident: Atlas) -> None:
    text = Page(views.crash_html(incident, incident.fleet.crashes["crash_id"].iloc[0])).text
    assert "KB2075978: hpsa 5.5.0.58" in text
    assert "first_telling: -> hpsa_update_scsi_devices" in text
    assert "hpsa 5.5.0.58 (by proc)" in text
    assert "The tables alone" not in text


def test_an_unknown_crash_is_misuse() -> None:
    with pytest.raises(InputError, match="no crash 'nobody'"):
        views.crash_html(Atlas(marked()), "nobody")


def test_similar_crashes_share_a_signature_or_most_of_a_stack() -> None:
    atlas = Atlas(marked())
    table = views.similar(atlas, "c000000000000000")
    assert list(table["crash_id"][:2]) == ["c000000000000002", "c000000000000001"] and table["same"].sum() == 2
    assert len(table) == 7 and (table["alike"] == 1).all()
    frames = atlas.fleet.frames
    frames.loc[frames["crash_id"] == "c000000000000007", "function"] = "elsewhere"
    assert len(views.similar(Atlas(replace(atlas.fleet, frames=frames)), "c000000000000000")) == 6


# --- the timeline ---------------------------------------------------------------------------------------------------


def test_the_timeline_draws_each_dated_crash_and_rings_the_chosen() -> None:
    html = views.timeline_html(Atlas(marked()), Selection(crash_id="c000000000000003"))
    assert html.count('class="crash"') == 7
    assert html.count('r="8.5"') == 1
    assert "8 crashes on 8 hosts" in html
    # two boots a host: a pale bar and a solid one each
    assert html.count("<rect") == 4 * 8


def test_hosts_beyond_the_page_are_counted_and_the_chosen_one_is_drawn() -> None:
    atlas = Atlas(hand_made.fleet(hosts=40, crashing=40))
    html = views.timeline_html(atlas, Selection(crash_id="c000000000000039"))
    assert f"{40 - timeline.MOST_HOSTS} more not drawn" in html and "esx39" in html


def test_gaps_show_and_countless_stretches_do_not() -> None:
    fleet = hand_made.fleet(hosts=1, crashing=1)
    first = fleet.coverage.iloc[0]
    step = (first["end"] - first["start"]) / 20_000
    rows = [{"host": first["host"], "boot": first["boot"], "start": first["start"] + i * step, "end": first["start"] + (i + 0.5) * step}
            for i in range(20_000)]  # fmt: skip
    many = replace(fleet, coverage=schema.build("coverage", rows))
    assert views.timeline_html(Atlas(many), Selection()).count("<rect") < 10
    gap = [rows[0], rows[-1]]
    assert (
        views.timeline_html(Atlas(replace(fleet, coverage=schema.build("coverage", gap))), Selection()).count("<rect")
        == 4
    )


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
    lines = views.lines_before(*place, most=3)
    assert [line[-8:] for line in lines] == ["<b>2</b>", "<b>3</b>", "<b>4</b>"]
    assert "hpsa_scan_start" in (views.original_text(*place) or "")
    file.write_bytes(file.read_bytes().replace(b"hpsa_scan_start", b"hpsa_scan_stare"))
    assert views.lines_before(*place) == () and views.original_text(*place) is None


def test_only_regular_files_that_hold_the_crash_are_read(tmp_path: Path) -> None:
    file, crash = logged(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for source in (tmp_path, tmp_path / "pipe", "/dev/zero", f"{file}!member", "a\0b", "x" * 5000, None, "http://x/y"):
        assert views.lines_before(source, crash["offset"], crash["sha256"]) == ()
    for offset in (-1, 10**18, None):
        assert views.lines_before(file, offset, crash["sha256"]) == ()


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
    file = tmp_path / notes.NOTES_FILE
    file.write_text(text)
    with pytest.raises(InputError, match=notes.NOTES_FILE.split(".")[0]):
        write_note(tmp_path, "one", Note(("a",)))
    assert file.read_text() == text


def test_a_note_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at most"):
        write_note(tmp_path, "one", Note((), "a" * (notes.MOST_NOTE + 1)))


def test_a_note_is_exported_with_the_write_up() -> None:
    section = views.note_section({"one": Note(("duplicate",), ATTACK, "2026-01-01")}, "one")
    assert section is not None
    document = Document(title="t", sections=[section])
    assert "<img" not in to_html(document) and "Tags: duplicate." in to_html(document)
    assert "<img" not in to_markdown(document)
    assert views.note_section({}, "one") is None


# --- the widgets ----------------------------------------------------------------------------------------------------


def test_clicks_narrow_choose_and_save(tmp_path: Path) -> None:
    explorer = explore(marked(), notes=tmp_path).explorer
    assert explorer.selection.crash_id == explorer.list.value == "c000000000000007"
    explorer.filters["kind"].value = ("spin_count",)
    assert len(explorer.list.options) == 4
    assert explorer.selection.crash_id == explorer.list.value == "c000000000000004"  # the first of those left
    assert explorer.filters["signature"].options[0][0] == "any (4)"
    explorer.list.value = "c000000000000002"
    assert "PCPU14" in explorer.crash.value and "4 of 8 crashes on 4 hosts" in explorer.total.value
    explorer.offered.value, explorer.note.value = "duplicate", " seen "
    explorer.save.click()
    assert read_notes(tmp_path)["c000000000000002"].tags == ("duplicate",)
    assert any("[duplicate]" in label for label, _ in explorer.list.options)
    explorer.clear.click()
    assert len(explorer.list.options) == 8 and explorer.selection.crash_id == "c000000000000002"
    again = explore(marked(), notes=tmp_path).explorer
    again.list.value = "c000000000000002"
    assert (list(again.tags.value), again.note.value) == (["duplicate"], "seen")


def test_the_time_slider_is_a_filter() -> None:
    explorer = explore(marked()).explorer
    explorer.months.value = ("2025-03", "2025-03")
    assert (explorer.selection.first, len(explorer.list.options)) == ("2025-03", 2)
    explorer.months.value = (explorer.atlas.months[0], explorer.atlas.months[-1])
    assert (explorer.selection.first, len(explorer.list.options)) == (None, 8)


def test_every_choice_of_every_filter_shows_what_it_counts() -> None:
    explorer = explore(marked()).explorer
    for box in explorer.filters.values():
        for label, value in list(box.options):
            box.value = value
            assert label.endswith(f"({len(explorer.list.options)})")
        box.index = 0


def test_without_a_folder_it_says_that_notes_do_not_last() -> None:
    explorer = explore(marked()).explorer
    explorer.note.value = "x"
    explorer.save.click()
    assert "in this kernel alone" in explorer.saved.value


def test_a_failed_save_is_said(tmp_path: Path) -> None:
    explorer = explore(marked(), notes=tmp_path).explorer
    (tmp_path / notes.NOTES_FILE).write_text("{")
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
    explorer = explore(fleet).explorer
    assert len(explorer.list.options) == len(fleet.crashes)
    assert views.exported_html(explorer.atlas, explorer.selection)
    if fleet.crashes.empty:
        assert "No crash was found in this evidence." in explorer.total.value and explorer.save.disabled


def test_made_up_evidence_is_called_so() -> None:
    atlas = Atlas(marked())
    assert "Simulated fleet" in views.exported_html(atlas, Selection())
    assert "Simulated fleet" not in views.exported_html(Atlas(replace(atlas.fleet, simulated=False)), Selection())
    explorer = explore(marked()).explorer
    assert "Simulated fleet" in explorer.view.children[0].value


def test_the_saved_file_is_plain_json(tmp_path: Path) -> None:
    file = write_note(tmp_path, "one", Note(("ä",), "é"))
    assert json.loads(file.read_text(encoding="ascii")) == {"one": {"tags": ["ä"], "text": "é", "changed": ""}}
    assert list(tmp_path.iterdir()) == [file]
