"""The case for a vendor, and what enters a write-up only when asked: nothing else leaves the house."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import subprocess
import unicodedata
import zipfile
from pathlib import Path

import pytest
from conftest import DATA
from views import hand_made

import psodlib as psod
from psodlib.errors import InputError
from psodlib.views.account import find_site, site_section
from psodlib.views.document import Section, Text, to_html, to_markdown, to_pdf
from psodlib.views.explore import Note, write_note
from psodlib.views.writeup import asked_for, choose_crash, write_up

INCIDENT = DATA / "incident-2014-05-31"
SITE = '[support]\naccount = "ACC-4711"\ncontract = "CON-0815"\norders = ["ORD-1", "ORD-2"]\ncontact = "Jo Doe"\n'
PRIVATE = ("ACC-4711", "CON-0815", "ORD-1", "Jo Doe")


def members(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return psod.case("75b6d986", INCIDENT, out=tmp_path_factory.mktemp("case") / "case.zip").file


def test_a_case_holds_what_a_vendor_asks_for(incident):
    files = members(incident)
    own = {
        "crash.txt",
        "log-around-the-crash.txt",
        "explain.txt",
        "writeup.html",
        "writeup.pdf",
        "writeup.md",
        "README.md",
        "MANIFEST.sha256",
    }
    assert own <= set(files) and {
        "tables/versions.csv",
        "tables/module-map.csv",
        "tables/timeline.csv",
        "tables/known-issues.csv",
    } <= set(files)
    crash = psod.load(INCIDENT).crashes.iloc[0]
    assert hashlib.sha256(files["crash.txt"]).hexdigest() == crash["sha256"]
    assert b"KB2075978" in files["tables/known-issues.csv"] and b"5.5.0.58" in files["tables/versions.csv"]


def test_the_manifest_covers_every_file(incident):
    files = members(incident)
    told = dict(reversed(line.split("  ", 1)) for line in files.pop("MANIFEST.sha256").decode().splitlines())
    assert told == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert all(f"`{name}`" in files["README.md"].decode() for name in files if name != "README.md")


def test_the_same_evidence_gives_the_same_zip(incident, tmp_path):
    again = psod.case("75b6d986", INCIDENT, out=tmp_path / "again.zip").file
    assert again.read_bytes() == incident.read_bytes()


def test_an_anonymised_case_names_no_host_and_still_tells(tmp_path):
    host = tmp_path / "evidence/mail7.corp.acme"
    (host / "var/core").mkdir(parents=True)
    text = (INCIDENT / "incident-host/var/core/vmkernel-log.1").read_text()
    (host / "var/core/vmkernel-log.1").write_text(
        "2014-05-31T15:40:00.000Z cpu1:1)World: 1: vmm0:SECRET-VM 1: vmm group 1 naa.600508b1001c2f3a7d1e0b9c4f5a6d7e\n"
        + text
    )
    (host / "var/log").mkdir()
    (host / "var/log/hostd.log").write_text(
        "2014-05-31T15:50:00.000Z [1 info] User jdoe@10.1.2.3 logged in\n2014-05-31T15:51:00.000Z the thing zrhkoffer42 blinks\n2014-05-30T01:00:00.000Z [1 info] long before\n"
    )
    write_note(tmp_path / "store", "75b6d986f7cdb8e1", Note(("mail7",), "Asked jdoe about mail7.", "2014-06-01"))
    done = psod.case("75b6", tmp_path / "evidence", out=tmp_path / "case.zip", key=b"k" * 32, notes=tmp_path / "store")
    files = members(done.file)
    assert done.mapping and done.mapping.stat().st_mode & 0o777 == 0o600
    pdf = tmp_path / "w.pdf"
    pdf.write_bytes(files["writeup.pdf"])
    files["writeup.pdf"] = subprocess.run(["pdftotext", pdf, "-"], capture_output=True, check=True, timeout=60).stdout
    for name, data in files.items():
        for secret in (b"mail7", b"corp.acme", b"acme", b"secret-vm", b"jdoe", b"10.1.2.3", b"600508b1001c2f3a"):
            assert (
                secret not in re.sub(rb"data:image/png;base64,[A-Za-z0-9+/=]+", b"", data).lower()
                and secret.decode() not in name
            ), (name, secret)
    assert b"hpsa_update_scsi_devices" in files["crash.txt"] and b"5.5.0.58" not in files["crash.txt"]
    assert b"logged in" in files["logs/01-" + next(n for n in files if n.startswith("logs/")).split("01-")[1]]
    assert b"long before" not in b"".join(files.values())
    assert "Asked u" in files["writeup.md"].decode()
    (suspect,) = done.suspects  # what nobody can know is told
    assert suspect.text == "zrhkoffer42" and suspect.source.startswith("logs/01-") and suspect.line == 2
    assert "zrhkoffer42" in done.mapping.read_text()


def test_an_own_known_issue_is_in_every_file_that_tells_of_issues(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('[[issue]]\nid = "OURS-1"\ntitle = "our case"\nmodule = "hpsa"\nstack = ["hpsa_scan_start"]\n'
                   'remedy = "call us"\nsource = "us"\nsure = "reported"\n')  # fmt: skip
    files = members(psod.case("75b6", INCIDENT, out=tmp_path / "c.zip", known_issues=own).file)
    for name in ("explain.txt", "writeup.md", "writeup.html", "tables/known-issues.csv"):
        assert b"OURS-1" in files[name].replace(b"\\", b""), name


def test_a_case_holds_the_text_verbatim_and_the_account(incident):
    files = members(incident)
    text = (INCIDENT / "incident-host/var/core/vmkernel-log.1").read_text()
    assert text in files["writeup.md"].decode() and text.rstrip("\n") == files["crash.txt"].decode()
    assert "About 40 users were hit on a Saturday" in files["writeup.md"].decode()
    assert "Decision: Go back to hpsa 5.5.0.50" in files["writeup.md"].decode()


def test_an_unknown_crash_is_told(tmp_path):
    with pytest.raises(InputError, match="0 crashes have an id that begins with 'feed'"):
        psod.case("feed", INCIDENT, out=tmp_path / "c.zip")
    with pytest.raises(InputError, match="cannot be written"):
        psod.case("75b6", INCIDENT, out=tmp_path / "none/c.zip")


# ---- site.toml ------------------------------------------------------------------------------------------------------------


def test_the_sites_facts_are_in_the_write_up_that_asked_and_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("site.toml").write_text(SITE)
    monkeypatch.setenv("PSOD_SITE", str(tmp_path / "site.toml"))
    plain = psod.report(INCIDENT, tmp_path / "plain", notebooks=False).folder
    asked = psod.report(INCIDENT, tmp_path / "asked", notebooks=False, site=find_site()).folder

    def holders(folder: Path) -> set[str]:
        return {
            f.name
            for f in folder.rglob("*")
            if f.is_file() and any(word.encode() in f.read_bytes() for word in PRIVATE)
        }

    assert holders(plain) == set()
    assert holders(asked) == {"writeup.html", "writeup.md"}  # and the PDF, whose text is packed
    shown = subprocess.run(
        ["pdftotext", asked / "writeup.pdf", "-"], capture_output=True, check=True, timeout=60
    ).stdout
    assert b"ACC-4711" in shown and b"Private" in shown
    assert "ACC-4711" not in "".join(page.read_text() for page in asked.glob("*.html") if page.name != "writeup.html")


def test_nothing_that_runs_notebooks_reads_the_site():
    source = (Path(psod.__file__).parent / "views/notebooks.py").read_text()
    assert "site" not in re.findall(r"\w+", source)
    for notebook in (DATA.parent / "notebooks").glob("*.ipynb"):
        assert "site.toml" not in notebook.read_text().replace("private site.toml", "")
    assert "site.toml" in (DATA.parent / ".gitignore").read_text().split()


@pytest.mark.parametrize(
    ("text", "told"),
    [("support = 1", "support"), ("[suport]", "support"), ("[support]\npassword = 'x'", "unknown field `password`"), ("[", "as TOML"),
     ("[support]\naccount = {a = 1}", "support.account"), (f"[support]\naccount = '{'a' * 600}'", "<= 500")],
    ids=["number", "misspelt", "unknown key", "no toml", "table", "long"],
)  # fmt: skip
def test_a_bad_site_file_is_told(tmp_path, text, told):
    (tmp_path / "site.toml").write_text(text)
    with pytest.raises(InputError, match=told):
        site_section(tmp_path / "site.toml")


def test_no_site_file_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PSOD_SITE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    with pytest.raises(InputError, match=r"no site\.toml was found; looked for site\.toml"):
        find_site()


# ---- crashes that lack something ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["arm_exception_screen_70", "no_heartbeat_saved_backtrace_80", "crashme_deliberate_55",
     "backtrace_only_pasted_70", "five_words_then_header_65"],
)  # fmt: skip
def test_every_sort_of_crash_has_a_write_up(tmp_path, name):
    (tmp_path / "e/host1").mkdir(parents=True)
    (tmp_path / "e/host1/vmkernel-log.1").write_bytes((DATA.parent / f"tests/golden/vmkernel/{name}.log").read_bytes())
    fleet = psod.load(tmp_path / "e")
    for crash_id in fleet.crashes["crash_id"]:
        document = write_up(fleet, choose_crash(fleet, crash_id))
        text = to_markdown(document)
        ours = re.sub(r"```text\n.*?```", "", text, flags=re.DOTALL)  # a log's own words may hold <None>
        assert not re.search(r"<NA>|\bNaT\b|\bnan\b|\bNone\b", ours), ours
        assert to_pdf(document, tmp_path / "w.pdf", "writeup.typ").stat().st_size > 5000


# ---- hostile text on every surface of what is handed over -----------------------------------------------------------------

HOSTILE = {
    "html": "<script>alert(1)</script><img src=x onerror=alert(2)>", "markdown": "[click](http://evil.example) ![p](http://evil.example/p.png) | a | ``` # h",
    "latex": r"\input{/etc/passwd} $x^2$ \end{document}", "typst": '#read("/etc/passwd") #eval("1+1") $x$ *b* _i_ <label> @ref', "formula": "=cmd|' /C calc'!A1",
    "plus": "+1+1", "minus": "-2+3", "at": "@SUM(1)", "tab": "\t=1", "cr": "\r=1", "ansi": "\x1b[31mred\x1b]0;t\x07", "bidi": "abc\u202egnp.exe\u2066",
}  # fmt: skip
FIELDS = ["host", "message", "function", "module", "version", "source", "vib", "detail", "signature", "world_name"]


@pytest.fixture(scope="module", params=sorted(HOSTILE))
def planted(request, tmp_path_factory):
    text, folder = HOSTILE[request.param], tmp_path_factory.mktemp("hostile")
    fleet = hand_made.fleet(hosts=3, crashing=2, words=dict.fromkeys(FIELDS, text), cluster=text, simulated=False)
    (folder / "site.toml").write_text("[support]\naccount = " + '"' + "".join(f"\\u{ord(c):04x}" for c in text) + '"\n')
    write_note(folder, "c000000000000000", Note((text,), text, text))
    document = write_up(
        fleet, choose_crash(fleet, "c000000000000000"), more=asked_for("c000000000000000", folder, folder / "site.toml")
    )
    return request.param, text, fleet, document, folder


def test_hostile_text_is_text_in_html(planted):
    _, _, _, document, _ = planted
    page = re.sub(r'(aria-label|alt)="[^"]*"', r'\1=""', to_html(document))  # what stands in quotes is quoted
    assert not re.search(
        r"<(?:script|iframe|object|embed|link|svg|form)\b|<img (?!src=\"data:image/png)|<[^>]+\son\w+=", page
    )
    assert not re.search(r'(?:href|src)="(?!#|data:image/png)', page)
    assert not [c for c in page if unicodedata.category(c) in ("Cc", "Cf") and c not in "\n\t"]


def test_hostile_text_is_text_in_markdown(planted):
    import markdown_it

    _, _, _, document, _ = planted
    page = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(to_markdown(document))
    assert not re.search(r"<(?:script|img|a|iframe)\b", page)
    assert page.count("<h1>") == 1 and "\x1b" not in page and "\u202e" not in page


def test_hostile_text_is_text_in_pdf(planted):
    name, text, _, document, folder = planted
    shown = subprocess.run(
        ["pdftotext", "-layout", to_pdf(document, folder / "w.pdf", "writeup.typ"), "-"],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout.decode()
    assert "root:x:0" not in shown and "\x1b" not in shown and "\u202e" not in shown
    raw = (folder / "w.pdf").read_bytes()
    assert b"/URI" not in raw and b"/JavaScript" not in raw and b"/Launch" not in raw
    if name in ("html", "typst", "latex", "formula"):
        whole = re.sub(r"[\s\u200b]", "", shown)
        assert re.sub(r"\s", "", text)[:24] in whole


def test_hostile_text_is_text_in_a_case(planted):
    from psodlib.views.case import _tables, _write_ups, _zipped

    _, _, fleet, _, folder = planted
    crash = choose_crash(fleet, "c000000000000000")
    files = _tables(fleet, crash, []) | _write_ups(fleet, crash)
    for name, data in files.items():
        if name.endswith(".csv"):
            for row in csv.reader(io.StringIO(data.decode())):
                for cell in row:
                    assert not (
                        cell.startswith(("=", "+", "@", "\t", "\r"))
                        or (cell.startswith("-") and not re.fullmatch(r"-?[\d.]+(?: days.*)?", cell))
                    ), (name, cell)
            assert "\x1b" not in data.decode() and "\u202e" not in data.decode()
    with zipfile.ZipFile(_zipped(files, folder / "c.zip", "psod-case")) as archive:
        assert all(re.fullmatch(r"[A-Za-z0-9._/-]+", name) and ".." not in name for name in archive.namelist())


def test_a_site_section_is_a_table_and_notes_are_paragraphs(planted):
    _, _, _, document, folder = planted
    section = site_section(folder / "site.toml")
    assert isinstance(section, Section) and document.sections[-1].title == section.title
    assert all(isinstance(block, Text) for block in document.sections[-2].blocks)
