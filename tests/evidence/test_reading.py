"""Whatever comes is used, recognised as irrelevant, or listed; and each file of the reference corpus is read as it should."""

from __future__ import annotations

import gzip
import io
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import SHARED, needs_shared

import psodlib as psod
from psodlib.evidence import reading as reading_module
from psodlib.evidence.archives import Item
from psodlib.evidence.reading import read_item, read_unit
from psodlib.evidence.sources import Unit, iter_items, iter_units
from psodlib.records import FileReading

CRASH = (
    "{stamp}cpu14:960)@BlueScreen: Spin count exceeded (iplLock) - possible deadlock\n"
    "{stamp}cpu14:960)Code start: 0x418018200000 VMK uptime: 29:20:14:10.166\n"
    "{stamp}cpu14:960)0x412426e5dda0:[0x418018b7e594]hpsa_scan_start@<None>#<None>+0x39c stack: 0x410b0c037060\n"
)


def read(path: Path) -> list[FileReading]:
    readings = [reading for item in iter_items(path) if isinstance(item, Item) for reading in read_item(item)]
    assert not [p for r in readings for p in r.problems if "please report" in p.detail]  # the last guard was not needed
    return readings


def write(tmp_path: Path, data: bytes | str, name: str = "vmkernel.log") -> Path:
    (tmp_path / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return tmp_path


def test_a_receiver_with_several_hosts_gives_each_its_own(tmp_path: Path) -> None:
    one = CRASH.format(stamp="<181>2014-05-31T15:57:32.579Z esx01.lab vmkernel: ").split("\n")
    two = [f"<14>2014-05-31T{hour}:00:01Z esx02.lab heartbeat: up 1d{hour}h0m1s, 3 VMs; [] []" for hour in (13, 14, 15)]
    text = "\n".join(
        [two[0], one[0], two[1], one[1], "<166>2014-05-31T15:57:33Z esx03 Rhttpproxy: noise", one[2], two[2], ""]
    )
    readings = {reading.host: reading for reading in read(write(tmp_path, text, "receiver.log"))}
    assert set(readings) == {"esx01.lab", "esx02.lab", "esx03"}
    (crash,) = readings["esx01.lab"].crashes
    assert (crash.kind, crash.line, len(crash.frames)) == ("spin_count", 2, 1)
    assert text.encode()[crash.offset :].startswith(one[0].encode()[:10])
    (alive,) = readings["esx02.lab"].alive
    assert (alive.start.hour, alive.end.hour, alive.line) == (13, 15, 1)
    assert readings["esx03"].irrelevant


@pytest.mark.parametrize(
    "head",
    [
        "<181>2014-05-31T15:57:32.579Z esx01 vmkernel: ",
        "2014-05-31T15:57:32.579Z esx01 vmkernel: ",
        "May 31 11:57:33 10.0.0.5 <181>2014-05-31T15:57:32.579Z esx01 vmkernel: ",
        "2014-05-31T11:57:33-04:00 relay 2014-05-31T15:57:32.579Z esx01 vmkernel: ",
        "<181>1 2014-05-31T15:57:32.579Z esx01 vmkernel 2097 - - ",
        "May 31 15:57:32 esx01 vmkernel: ",
        "May 31 11:57:33 relay rsyslogd[991]: 2014-05-31T15:57:32.579Z esx01 vmkernel: ",
        "May 31 15:57:32 esx01 rack-7-console: ",
    ],
)
def test_every_way_a_receiver_writes_the_host(tmp_path: Path, head: str) -> None:
    (reading,) = read(write(tmp_path, CRASH.format(stamp=head)))
    assert reading.host == "esx01"
    assert len(reading.crashes) == 1


@pytest.mark.parametrize("form", ['{{"ticket": 17, "text": "{}"}}', '{{"ticket": 17, "Version": "7.0", "text": "{}"}}'])
def test_a_crash_in_the_text_of_a_ticket(tmp_path: Path, form: str) -> None:
    screen = "VMware ESXi 7.0.3 [Releasebuild-20328353 x86_64]\\nSpin count exceeded (acmeLock) - possible deadlock\\n"
    (reading,) = read(write(tmp_path, form.format(screen), "ticket.json"))
    assert [crash.esxi_build for crash in reading.crashes] == ["20328353"]


def test_a_local_log_names_no_host(tmp_path: Path) -> None:
    for stamp in (
        "2014-05-31T15:57:32.579Z ",
        "2023-05-31T15:57:32.579Z In(182) vmkernel: ",
        "Jul 26 01:26:46 vmkernel: 7:21:06:31.383 ",
        "2014-05-31T15:57:32.579Z 7:21:06:31.383 ",  # a container's, before a classic one
    ):
        (reading,) = read(write(tmp_path, CRASH.format(stamp=stamp)))
        assert (reading.host, reading.kind, len(reading.crashes)) == (None, "vmkernel", 1)


def test_a_bundle_name_is_stronger_than_a_syslog_line(tmp_path: Path) -> None:
    folder = tmp_path / "esx-esx01.lab-2014-06-01--10.05-345"
    folder.mkdir()
    write(folder, CRASH.format(stamp="May 31 15:57:32 esx01 vmkernel: "))
    (reading,) = read(tmp_path)
    assert (reading.host, reading.hint) == (None, "esx01.lab")
    assert reading.collected == datetime(2014, 6, 1, 10, 5, tzinfo=UTC)


IRRELEVANT = {
    "manifest": b'{"hosts": ["esx01"], "files": 12}\n',
    "prose": b"This fleet is made up. No host of this name ever was, and nobody lost any work over it.\n",
    "another log": b"2014-05-31T15:57:32Z crond: hourly job ran\n2014-05-31T16:57:32Z crond: hourly job ran\n",
}  # fmt: skip


@pytest.mark.parametrize("case", IRRELEVANT)
def test_what_is_none_of_ours_is_recognised(tmp_path: Path, case: str) -> None:
    (reading,) = read(write(tmp_path, IRRELEVANT[case], "file.dat"))
    assert reading.irrelevant and reading.kind and not reading.problems


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "unused"),
        (b"%PDF-1.4\n" + bytes(range(256)), "unused"),
        (b"PK\x03\x04aaaa[Content_Types].xml" + bytes(600), "unused"),
        (b"host,cluster\nesx01,XA\n", "unused"),
        (bytes(range(1, 256)) * 300, "not_text"),
        (b"qwertz 4711 asdf;yxcv = 12\nfoo(bar) => 0x12\n", "unknown_format"),
        (
            b"Backtrace of a driver, cpu9\nSaved backtrace: pcpu 5 Heartbeat NMI\n",
            "unread_crash",
        ),
    ],
)
def test_what_cannot_be_used_is_listed(tmp_path: Path, data: bytes, problem: str) -> None:
    (reading,) = read(write(tmp_path, data))
    assert [one.problem for one in reading.problems] == [problem]
    assert not reading.crashes


@pytest.mark.parametrize("form", ["utf-8", "utf-8-sig", "utf-16", "NULs", "gz", "capture"])
def test_one_crash_in_many_clothes(tmp_path: Path, form: str) -> None:
    text = CRASH.format(stamp="2014-05-31T15:57:32.579Z ")
    data = {
        "NULs": bytes(20_000) + text.encode(), "gz": gzip.compress(text.encode()),
        "capture": b"[root@esx01:~] cat /var/core/vmkernel-log.1\n" + text.encode() + b"[root@esx01:~] vmware -v\nVMware ESXi 5.5.0 build-1331820\n",
    }.get(form) or text.encode(form)  # fmt: skip
    readings = read(write(tmp_path, data))
    (crash,) = [crash for reading in readings for crash in reading.crashes]
    assert (crash.kind, len(crash.frames)) == ("spin_count", 1)
    if form == "capture":
        assert {fact.esxi_version for reading in readings for fact in reading.facts} == {"5.5.0"}


def test_the_last_guard_makes_a_problem_of_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(reading_module, "_read_text", broken)
    (item,) = iter_items(write(tmp_path, "text\n"))
    assert isinstance(item, Item)
    (reading,) = read_item(item)
    assert [problem.problem for problem in reading.problems] == ["unreadable"]
    assert "a bug" in reading.problems[0].detail


# File -> kind, and how many of what it must give.
CORPUS = {
    "b01_vmknvme_atlantic_boot_70": ("vmkernel", {"drivers": 2}),
    "b04_vmkload_mod_be2net": ("module_file", {"drivers": 1}),
    "b05_vmksummary_bootstop": ("vmksummary", {"marks": 7}),
    "b06_vmksummary_heartbeat": ("vmksummary", {"alive": 2}),
    "b07_vmksummary_esx3": ("syslog:vmksummary", {"alive": 1, "facts": 1}),
    "b08_esxcfg_nics": ("devices", {"drivers": 3}),
    "b09_ethtool_e1000e": ("ethtool", {"drivers": 1}),
    "b10_bnx2x_vmkload_ethtool": ("ethtool+module_file", {"drivers": 2}),
    "b11_adapter_list_perc_65": ("devices+module_file+vmkchdev", {"drivers": 5}),
    "b12_version_get": ("version+release", {"facts": 5}),
    "b13_vib_list_hpsa_67": ("vib_list", {"drivers": 8}),
    "b14_vib_table_hpsa_55": ("vib_list", {"drivers": 4}),
    "b15_vmkchdev_lines": ("vmkchdev", {}),
    "b16_vmkload_e1000_50": ("release+module_file+ethtool", {"drivers": 2, "facts": 1}),
    "b17_esxupdate_51": ("esxupdate", {}),
    "b18_platform_get": ("platform", {"facts": 3}),
    "b19_module_get_e1000_50": ("module_file", {"drivers": 1}),
    "b20_vib_ids_install_60": ("vib_ids", {"drivers": 6}),
    "b21_release_strings": ("release", {"facts": 2}),
}


@needs_shared
@pytest.mark.parametrize("name", CORPUS)
def test_the_reference_corpus(name: str) -> None:
    kind, expected = CORPUS[name]
    reading = read(SHARED / "corpus" / "evidence" / f"{name}.log")[0]
    assert reading.kind == kind
    lists = ("crashes", "alive", "marks", "drivers", "facts")
    found = {field: len(getattr(reading, field)) for field in lists if field in expected or kind != "vmkernel"}
    assert found == {**dict.fromkeys(found, 0), **expected}
    assert not reading.problems


@needs_shared
def test_the_versions_in_the_reference_corpus() -> None:
    readings = [reading for path in sorted((SHARED / "corpus" / "evidence").glob("*.log")) for reading in read(path)]
    versions = {(driver.module, driver.version) for reading in readings for driver in reading.drivers}
    assert versions >= {
        ("hpsa", "6.0.0.84"),
        ("hpsa", "5.5.0.124"),
        ("be2net", "4.0.88.0"),
        ("lsi_mr3", "7.703.18.00"),
        ("e1000", "8.0.3.1"),
    }
    assert {reading.host for reading in readings} >= {"wfs100", "hp", "esxi5.vjlab.local", "myhost", "esxhostname"}


NOTE = """# What we did on Monday

We looked at the host, and this is what it said.

{rule}
[root@esx01:~] esxcli software vib list
Name       Version                       Vendor  Acceptance Level  Install Date
---------  ----------------------------  ------  ----------------  ------------
scsi-hpsa  5.5.0.58-1OEM.550.0.0.1331820 HP      VMwareCertified   2014-03-20
{rule}
"""


SAID = "What we make of it is a longer story, and it is told here in words that are ours and no host's own.\n" * 4


@pytest.mark.parametrize("rule", ["```", "~~~", "| a | b |\n| --- | --- |", "See [the page](https://example.org/a)."])
def test_a_document_that_quotes_a_terminal_is_no_evidence_and_listed(tmp_path: Path, rule: str) -> None:
    (reading,) = read(write(tmp_path, NOTE.format(rule=rule) + "\n# And then\n\n" + SAID, "notes.md"))
    assert ([problem.problem for problem in reading.problems], reading.drivers) == (["unknown_format"], ())
    (silent,) = read(write(tmp_path, "# One\n\n" + SAID + "\n# And two\n\n" + SAID, "notes.md"))
    assert (silent.kind, silent.irrelevant) == ("document", True)


@pytest.mark.parametrize("fence", ["```bash", "~~~", "  ```"])
def test_what_is_fenced_nearly_whole_is_evidence(tmp_path: Path, fence: str) -> None:
    note = NOTE.replace("{rule}", fence, 1).replace("{rule}", fence[:3].strip() or "```")
    quoted = "> " + note.partition("said.")[2].strip().replace("\n", "\n> ")
    for text in (note, note + "\n# Later\n\nThe same.\n\n", quoted):
        (reading,) = read(write(tmp_path, text, "notes.md"))
        assert [(reading.host, driver.version) for driver in reading.drivers] == [("esx01", "5.5.0.58")]


def test_the_same_capture_on_its_own_is_evidence(tmp_path: Path) -> None:
    capture = NOTE.format(rule="").partition("said.")[2]
    (reading,) = read(write(tmp_path, capture, "notes.md"))
    assert [driver.version for driver in reading.drivers] == ["5.5.0.58"]


def test_a_document_that_quotes_a_crash_is_listed(tmp_path: Path) -> None:
    said = "Our hosts fail at night, and the screen says what is quoted below. What have others done about it?\n" * 5
    (fenced,) = read(write(tmp_path, "```\n" + CRASH.format(stamp="") + "```\n", "forum.md"))
    assert len(fenced.crashes) == 1, "a fence alone makes no document"
    (reading,) = read(write(tmp_path, said + "```\n" + CRASH.format(stamp="") + "```\n" + said, "forum.md"))
    assert reading.crashes == ()
    assert [problem.problem for problem in reading.problems] == ["unknown_format"]


def test_a_handler_that_asked_for_the_screen_is_a_header(tmp_path: Path) -> None:
    stamp = "2016-03-04T05:06:07.100Z cpu0:32817)"
    quiet = "".join(f"{stamp}Net: {n}: link up\n" for n in range(30))
    text = f"{quiet}{stamp}NMI: 709: ApeiHESTNmiHandler requested PSOD\n{stamp}0x4122e445b4d8:[0x418014a7b71a]NMI_Handle@vmkernel#nover+0x61\n{quiet}"
    (reading,) = read(write(tmp_path, text))
    (crash,) = reading.crashes
    assert (crash.kind, crash.line, len(crash.frames)) == ("nmi", 31, 1)


def test_what_an_archive_holds_for_nothing_is_counted(tmp_path: Path) -> None:
    files = {"commands/version.txt": b"VMware ESXi 7.0.3 build-1234567\n", "p.png": b"\x89PNG\r\n"}
    files |= {"etc/a.conf": b"x = 1\n", "etc/b.conf": b"y = 2\n"}
    with tarfile.open(tmp_path / "esx-esx01.lab-2023-12-01--10.05-1.tgz", "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"esx-esx01.lab-2023-12-01--10.05-1/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    (unit,) = iter_units(tmp_path)
    assert isinstance(unit, Unit)
    _, (problem,) = read_unit(unit)
    assert problem.problem == "unused" and problem.source.endswith(".tgz")
    assert problem.detail.startswith("3 of 4 members hold nothing of use here (2 other output, 1 picture; ")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "esx1").mkdir()
    (tmp_path / "esx1" / "mail.doc").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    problems = psod.load(tmp_path, jobs=1).problems
    assert problems["problem"].tolist() == ["unused"] and "a document" in problems["detail"].iloc[0]


@pytest.mark.parametrize("encoding", ["utf-32", "utf-32-le", "utf-32-be"])
def test_four_bytes_a_letter_are_read(tmp_path: Path, encoding: str) -> None:
    text = "@BlueScreen: #PF Exception 14 in world 7:idle IP 0x418018b7e594 addr 0x0\n0x412426e5dda0:[0x418018b7e594]a_scan@(a)#<None>+0x9 stack: 0x0\n"
    (tmp_path / "a.log").write_bytes(text.encode(encoding))
    assert psod.load(tmp_path, jobs=1).crashes["guilty_module"].tolist() == ["a"]


@pytest.mark.parametrize("prefix", ["cpu1:65)", "In(182) vmkernel: cpu1:2097665)"])
def test_a_pressed_power_button_is_how_the_boot_ended(tmp_path: Path, prefix: str) -> None:
    # The host says nothing more, and nobody must take the silence for a crash without a trace.
    said = "VMKAcpi: 250: Power button pressed; requesting graceful shutdown and poweroff"
    (tmp_path / "esx1").mkdir()
    (tmp_path / "esx1/vmkernel.log").write_text(f"2017-09-14T16:00:50.000Z {prefix}{said}\n")
    (tmp_path / "esx1/vmksummary.log").write_text(
        "2017-09-14T16:00:01Z heartbeat: up 5d0h0m0s, 0 VMs; [] []\n2017-09-14T16:20:10Z bootstop: Host has booted\n"
    )
    assert [*psod.load(tmp_path, jobs=1).uptimes["end_reason"]] == ["power", "running"]


@pytest.mark.parametrize(
    "head",
    ["<181>{iso} {host} ", "<181>1 {iso} {host} ", "May  1 02:{m:02}:36 relay <181>{iso} {host} ",
     "May  1 02:{m:02}:36 10.9.9.9 1 {iso} {host} ", "<14>May  1 02:{m:02}:36 10.9.9.9 {iso} {host} ",
     "2014-05-01T02:{m:02}:36+00:00 relay 1 {iso} {host} ",
     "2014-05-01 02:{m:02}:36\tLocal6.Info\t10.9.9.9\t{iso} {host} ", "<14>{iso} {host} In(182) "],
)  # fmt: skip
def test_calm_hosts_behind_any_receivers_stamp_are_seen_alive(tmp_path: Path, head: str) -> None:
    # Who never crashed is the denominator: a head that only a crash's reader understands would lose him in silence.
    moments = [(m, host) for m in range(9) for host in ("esx1.lab", "esx2.lab")]
    heads = [head.format(m=m, host=host, iso=f"2014-05-01T08:{m:02}:36.400Z") for m, host in moments]
    end = "vmkernel - - - " if "1 {iso}" in head else "vmkernel: "
    (tmp_path / "all.log").write_text("".join(f"{one}{end}cpu2:44)ScsiCore: 1: hi\n" for one in heads))
    fleet = psod.load(tmp_path, jobs=1)
    assert [*fleet.hosts["host"]] == ["esx1.lab", "esx2.lab"] and fleet.problems.empty
    assert {*(fleet.coverage["end"] - fleet.coverage["start"]).dt.total_seconds()} == {480}


def test_a_byte_order_mark_hides_no_first_line(tmp_path: Path) -> None:
    beats = [f"2014-05-01T0{hour}:00:01Z heartbeat: up 5d{hour}h0m0s, 0 VMs; [] []\n" for hour in range(4)]
    update = "esxupdate: root: INFO: Final list of VIBs being installed is VMware_bootbank_scsi-hpsa_5.5.0-44vmw.550.0.0.1331820"
    end = "2014-05-01T03:06:18Z esxupdate: root: DEBUG: Finished execution of command = vib.install\n"
    (tmp_path / "esx1").mkdir()
    (tmp_path / "esx1/vmksummary.log").write_text("".join(beats), "utf-8-sig")
    (tmp_path / "esx1/esxupdate.log").write_text(f"2014-05-01T03:06:18Z {update}\n{end}", "utf-8-sig")
    fleet = psod.load(tmp_path, jobs=1)
    assert [*fleet.drivers["version"]] == ["5.5.0.44"]
    assert [*(fleet.coverage["end"] - fleet.coverage["start"]).dt.total_seconds()] == [3 * 3600]
