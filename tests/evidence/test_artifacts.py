"""Each kind of log and output, in each of its forms, against what a person reads from it."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from psodlib.errors import InputError
from psodlib.evidence.artifacts import KINDS, read_artifact, read_inventory, recognise
from psodlib.evidence.artifacts.terminal import PROMPTS, find_prompt
from psodlib.evidence.pieces import moment_of
from psodlib.records import FileReading

WHEN = datetime(2014, 6, 2, 10, tzinfo=UTC)


def read(text: str, name: str = "x.txt", when: datetime | None = None) -> FileReading:
    (reading,) = read_artifact(io.BytesIO(text.encode()), "x", name, when)
    return reading


def versions(text: str, name: str = "x.txt") -> list[tuple[str, str | None, str, str]]:
    return [(r.module, r.version, r.state, r.evidence) for r in read(text, name).drivers]


@pytest.mark.parametrize("index", range(len(KINDS)), ids=lambda index: f"{KINDS[index].name}{index}")
def test_every_sample_is_of_its_own_row(index: int) -> None:
    kind = KINDS[index]
    commands = {
        "uptime": "localcli_system-stats-uptime-get", "module_file": "vmkload_mod -s hpsa", "date": "esxcli hardware clock get",
        "proc_node": "cat /proc/scsi/qla2xxx/1",
        "host_name": "hostname",
    }  # fmt: skip
    command = commands.get(kind.name, "")
    assert recognise(kind.sample, command) is kind


@pytest.mark.parametrize("index", range(len(PROMPTS)), ids=lambda index: PROMPTS[index][0])
def test_every_prompt_is_of_its_own_row(index: int) -> None:
    _, sample, pattern = PROMPTS[index]
    match = find_prompt(sample)
    assert match is not None and match.re is pattern and match["command"]


def test_heartbeats_of_one_boot_are_one_stretch() -> None:
    beat = "2014-05-31T{0:02d}:00:01Z heartbeat: up 3d{0}h0m0s, {0} VMs; [[1 vmx 1kB]] []"
    beats = [beat.format(hour) for hour in (1, 2, 3, 7, 8)]
    beats.insert(3, "2014-05-31T05:00:01Z bootstop: file core dump found")
    beats.append("2014-05-31T09:00:00Z heartbeat: up 0d0h30m0s, 0 VMs; [] []")
    reading = read("\n".join(beats))
    day = datetime(2014, 5, 31, tzinfo=UTC)
    spans = [(one.start.hour, one.end.hour) for one in reading.alive]
    assert spans == [(1, 3), (7, 8), (9, 9)]
    wanted = [day - timedelta(days=3) + timedelta(seconds=1)] * 2 + [day + timedelta(hours=8.5)]
    assert [one.boot for one in reading.alive] == wanted
    assert [one.vms for one in reading.alive] == [3, 8, 0]
    assert [(mark.what, mark.line) for mark in reading.marks] == [("core_dump_found", 4)]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("2017-09-14T17:00:50Z bootstop: Host is powering off", "powering_off"),
        ("2017-09-15T09:49:10Z bootstop: Host has booted", "booted"),
        ("2025-09-18T02:15:00.360Z bootstop[137121]: Host is halting", "halting"),
        ("2025-09-18T02:45:00.360Z Host has booted", "booted"),
        ("2025-09-18T02:45:00.360Z In(14) bootstop[2098]: Host is rebooting", "rebooting"),
        ("2014-12-10T18:01:03.496Z: [GenericCorrelator] 14807183us: [vob.user.host.boot] Host has booted.", "booted"),
        (
            "2014-05-31T15:57:01.123Z [FFD81B90 info 'Vimsvc.ha-eventmgr'] Event 7 : esx.audit.host.poweroff.reason.unavailable",
            "poweroff_unexplained",
        ),
        (
            "2023-05-31T15:57:01.123Z In(166) Hostd[2099]: Task Created : haTask-ha-host-vim.HostSystem.reboot-12",
            "rebooting",
        ),
    ],
)
def test_marks(line: str, what: str) -> None:
    assert [mark.what for mark in read(line).marks] == [what]


def test_an_uptime_that_does_not_move_is_no_reboot() -> None:
    beats = [f"2025-09-18T0{hour}:00:00.360Z heartbeat[14118500]: up 22d1h40m22s, 10 VMs; [] []" for hour in (1, 2)]
    assert len(read("\n".join(beats)).alive) == 1


def test_vobd_counts_from_the_boot() -> None:
    reading = read("2014-12-10T01:00:00Z: [scsiCorrelator] 3600000000us: [vob.scsi.x] text\n")
    assert reading.alive[0].boot == datetime(2014, 12, 10, tzinfo=UTC)


VIB = "Hewlett-Packard_bootbank_scsi-hpsa_5.5.0.50-1OEM.550.0.0.1198611"
OLD = "Hewlett-Packard_bootbank_scsi-hpsa_5.5.0.58-1OEM.550.0.0.1331820"


@pytest.mark.parametrize("head", ["esxupdate: ", "esxupdate: 67437: ", "In(14) esxupdate[2099]: "])
def test_esxupdate_tells_what_a_finished_install_changed(head: str) -> None:
    lines = [
        f"Transaction: INFO: Final list of VIBs being installed is {VIB}",
        f"Transaction: INFO: Final list of VIBs being removed is {OLD}",
        "root: DEBUG: Finished execution of command = vib.install",
        f"Transaction: INFO: Final list of VIBs being installed is {OLD}",
    ]
    reading = read("\n".join(f"2014-06-02T09:10:0{n}Z {head}{line}" for n, line in enumerate(lines)))
    wanted = [("5.5.0.50", "installed", 2, 1), ("5.5.0.58", "removed", 2, 2)]
    assert [(r.version, r.state, r.observed_at.second, r.line) for r in reading.drivers if r.observed_at] == wanted
    assert len(reading.drivers) == 2  # the second install never finished


INSTALL = f"""Installation Result
   Message: The update completed successfully, but the system needs to be rebooted for the changes to be effective.
   Reboot Required: {{reboot}}
   VIBs Installed: VMware_bootbank_lpfc_10.2.309.8-2vmw.600.0.0.2494585,
 {VIB[:30]}
{VIB[30:]}
   VIBs Removed: {OLD}
   VIBs Skipped:
"""


@pytest.mark.parametrize(("reboot", "state"), [("true", "pending"), ("false", "installed")])
def test_what_vib_install_printed(reboot: str, state: str) -> None:
    assert versions(INSTALL.format(reboot=reboot)) == [
        ("lpfc", "10.2.309.8", state, "vib_install"),
        ("hpsa", "5.5.0.50", state, "vib_install"),
        ("hpsa", "5.5.0.58", "removed", "vib_install"),
    ]


ROW = "scsi-hpsa                      6.0.0.84-3vmw.670.0.0.8169922         VMW      VMwareCertified     2019-12-27"
LISTS = {
    "rows": ROW,
    "one header": "Name      Version     Vendor  Acceptance Level  Install Date\n" + ROW,
    "two headers": "Name      Version     Vendor  Acceptance Level  Install Date\n--------  ---------  ------  ----  -----\n" + ROW,
    "with platforms": ROW + "   host",
    "get": "VMW_bootbank_scsi-hpsa_6.0.0.84-3vmw.670.0.0.8169922\n   Name: scsi-hpsa\n   Version: 6.0.0.84-3vmw.670.0.0.8169922\n"
    "   Type: bootbank\n   Vendor: VMW\n   Install Date: 2019-12-27\n",
    "json": '[{"AcceptanceLevel": "VMwareCertified", "InstallDate": "2019-12-27", "Name": "scsi-hpsa", "Vendor": "VMW", '
    '"Version": "6.0.0.84-3vmw.670.0.0.8169922"}]',
    "csv": "AcceptanceLevel,ID,InstallDate,Name,Vendor,Version,\nVMwareCertified,,2019-12-27,scsi-hpsa,VMW,6.0.0.84-3vmw.670.0.0.8169922,\n",
    "xml": '<?xml version="1.0" encoding="utf-8"?>\n<output xmlns="http://www.vmware.com/Products/ESX/5.0/esxcli">\n<root><list type="structure">'
    '<structure typeName="VIBExt"><field name="InstallDate"><string>2019-12-27</string></field><field name="Name"><string>scsi-hpsa</string>'
    '</field><field name="Vendor"><string>VMW</string></field><field name="Version"><string>6.0.0.84-3vmw.670.0.0.8169922</string></field>'
    "</structure></list></root></output>",
}  # fmt: skip


@pytest.mark.parametrize("form", LISTS)
@pytest.mark.parametrize("how", ["file", "file pending", "prompt", "prompt pending"])
def test_a_vib_list_reads_alike_in_every_form(form: str, how: str) -> None:
    text, name = LISTS[form], "localcli_software-vib-list.txt"
    option = "---rebooting-image" if "pending" in how else ""
    if "file" in how:
        reading = read(text, name.replace(".txt", option + ".txt"))
    else:
        prompt = "[root@esx01:~] "
        asked = f"{prompt}esxcli software vib list {option.removeprefix('-')}\n"
        reading = read(f"{asked}{text}\n{prompt}\n", "capture.txt")
        assert reading.host == "esx01"
    (driver,) = reading.drivers
    assert (driver.module, driver.version) == ("hpsa", "6.0.0.84")
    wanted = ("pending", "rebooting_image") if "pending" in how else ("installed", "vib_list")
    assert (driver.state, driver.evidence) == wanted
    assert driver.installed_on == datetime(2019, 12, 27, tzinfo=UTC)


FACTS = {
    "version": ("   Product: VMware ESXi\n   Version: 5.5.0\n   Build: Releasebuild-1331820\n   Update: 0\n", ("5.5.0", "1331820", None, None)),
    "version json": ('{"Build": "Releasebuild-1331820", "Product": "VMware ESXi", "Update": "0", "Version": "5.5.0"}', ("5.5.0", "1331820", None, None)),
    "vmware -v": ("VMware ESXi 5.5.0 build-1331820\n", ("5.5.0", "1331820", None, None)),
    "uname": ("VMkernel esx01 5.5.0 #1 SMP Release build-1331820 Sep 18 2013 23:08:31 x86_64 GNU/Linux\n", ("5.5.0", "1331820", None, None)),
    "old": ("VMware ESX Server 3.0.1 [Releasebuild-32039], built on Sep 25 2006\n", ("3.0.1", "32039", None, None)),
    "platform": ("Platform Information\n   UUID: 0x1\n   Product Name: ProLiant DL380p Gen8\n   Vendor Name: HP\n   Serial Number: CZ1\n",
                 (None, None, "HP", "ProLiant DL380p Gen8")),
    "smbios": ('  BIOS Info: #0\n    Vendor: "HP"\n  System Info: #1\n    Manufacturer: "HP"\n    Product: "ProLiant BL460c Gen8"\n  Board Info: #2\n    Product: "x"\n',
               (None, None, "HP", "ProLiant BL460c Gen8")),
}  # fmt: skip


@pytest.mark.parametrize("form", FACTS)
def test_facts_of_the_host(form: str) -> None:
    text, expected = FACTS[form]
    (fact,) = read(text).facts
    assert (fact.esxi_version, fact.esxi_build, fact.vendor, fact.model) == expected


NODE = """hpsa0: HP Smart Array P220i Controller
Board ID: 0x3355103c
Firmware Version: 3.04
Driver Version: HP HPSA Driver (v 5.0.0-28OEM)
Driver Build: 2
"""


def test_proc_nodes() -> None:
    (driver,) = read("HP HPSA Driver (v 5.5.0.58-1OEM)\nhpsa0: SCSI host: 2 nr_cmds: 1020\n").drivers
    wanted = ("hpsa", "5.5.0.58", "loaded", "proc", "hpsa0")
    assert (driver.module, driver.version, driver.state, driver.evidence, driver.device) == wanted
    (driver,) = read(NODE).drivers
    assert (driver.version, driver.device, driver.firmware) == ("5.0.0.28", "hpsa0", "3.04")


def test_modules_and_devices() -> None:
    text = "vmkload_mod module information\n input file: /usr/lib/vmware/vmkmod/hpsa\n License: GPL\n Version: Version 5.5.0.58, Build: 1331820, Interface: 9.2\n"
    assert versions(text) == [("hpsa", "5.5.0.58", "loaded", "live_module")]
    assert (
        versions(
            "~ # vmkload_mod -s bnx2x | grep Version\n Version: Version 2.710.70.v55.7, Build: 1331820, Interface: 9.2\n"
        )[0][0]
        == "bnx2x"
    )
    told = "driver: e1000e\nversion: 3.2.2.1-NAPI\nfirmware-version: 0.8-4\nbus-info: 0000:00:1f.6\n"
    (driver,) = read(f"[root@hp:~] ethtool -i vmnic0\n{told}").drivers
    assert (driver.module, driver.device, driver.firmware) == ("e1000e", "vmnic0", "0.8-4")
    rows = "vmhba0  hpsa              link-n/a  sas.5001                    (0:3:0.0) HP Smart Array P420i\n"
    assert [(r.module, r.device) for r in read(rows).drivers] == [("hpsa", "vmhba0")]
    assert [m.module for m in read("vmkernel\nvmkapi_mgmt\nhpsa\n").modules] == ["vmkernel", "vmkapi_mgmt", "hpsa"]
    table = "Name                 Is Loaded  Is Enabled\n-------------------  ---------  ----------\nhpsa                      true        true\nnhpsa                    false        true\n"
    assert [m.module for m in read(table).modules] == ["hpsa"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("475200000000\n", "localcli_system-stats-uptime-get.txt"),
        (" 10:00:00 up 5 days, 12:00:00, load average: 0.05\n", "uptime.txt"),
    ],
)
def test_an_uptime_places_the_boot_where_its_time_is_known(text: str, name: str) -> None:
    assert read(text, name, WHEN).alive[0].boot == WHEN - timedelta(days=5, hours=12)
    assert read(text, name).irrelevant


def test_a_capture_of_two_hosts_is_two_readings() -> None:
    text = "[root@esx01:~] vmware -v\nVMware ESXi 5.5.0 build-1331820\n[root@esx02:~] vmware -v\nVMware ESXi 6.0.0 build-2494585\n"
    readings = read_artifact(io.BytesIO(text.encode()), "x", "x.txt")
    assert [(r.host, r.facts[0].esxi_version) for r in readings] == [("esx01", "5.5.0"), ("esx02", "6.0.0")]
    assert read("[root@localhost:~] vmware -v\nVMware ESXi 5.5.0 build-1331820\n").host is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2014-05-31T15:57:32.579Z", datetime(2014, 5, 31, 15, 57, 32, 579000, tzinfo=UTC)),
        ("2014-05-31T11:57:32-04:00 x", datetime(2014, 5, 31, 15, 57, 32, tzinfo=UTC)),
        ("2016-12-31T23:59:60.250Z", datetime(2017, 1, 1, 0, 0, 0, 250000, tzinfo=UTC)), ("9999-12-31T23:59:60Z", None),
        ("2014-13-31T15:57:32Z", None), ("1980-01-01T00:00:00Z", None), ("2300-01-01T00:00:00Z", None), ("x", None),
    ],
)  # fmt: skip
def test_stamps(text: str, expected: datetime | None) -> None:
    assert moment_of(text) == expected


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_inventory_by_whatever_names(tmp_path: Path, delimiter: str, encoding: str) -> None:
    rows = [
        ["Host", "Cluster", "Manufacturer", "# VMs", "CPU Model"],
        ["esx01", "XA", "HP", "25", "E5"],
        ["ESX01", "XB", "HP", "1", ""],
        ["esx02", "", "", "", ""],
    ]
    path = tmp_path / "inventory.csv"
    path.write_text("\r\n".join(delimiter.join(row) for row in rows), encoding=encoding)
    table = read_inventory(path)
    assert list(table.columns) == ["host", "cluster", "vendor", "vms", "cpu_model"]
    assert table["host"].tolist() == ["esx01", "esx02"]
    assert (table["vms"].dtype, table["vms"][0], table["cluster"][0]) == ("Int64", 25, "XA")
    assert table["cluster"].isna().tolist() == [False, True]
    assert table.attrs["duplicates"] == ["ESX01"]


@pytest.mark.parametrize(
    ("text", "words"), [("Serial,Model\nx,y\n", "Serial, Model"), ("", r"\(none\)"), ("PK\x03\x04", "workbook")]
)
def test_an_inventory_that_names_no_host(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "inventory.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_inventory(tmp_path / "inventory.csv")


@pytest.mark.parametrize("step", [2, 400, 9000])
def test_hostd_by_the_block_says_what_its_lines_say(step: int) -> None:
    # Seconds between lines: a block spans minutes, hours with a log every hour, and silences of more than two.
    start = datetime(2014, 5, 1, tzinfo=UTC)
    times = (start + timedelta(seconds=step * n) for n in range(9000))
    lines = [f"{time:%Y-%m-%dT%H:%M:%S}.123Z [FFD81B90 info 'Vimsvc'] Task {n}" for n, time in enumerate(times)]
    lines[4321] = lines[4321][:24] + " [FFD81B90 info 'Vimsvc.ha-eventmgr'] Event 7 : esx.audit.host.boot"
    lines.insert(4000, "   a line without a stamp that says esx.audit.host.boot")
    reading = read("\n".join(lines))
    assert [(mark.what, mark.line) for mark in reading.marks] == [("booted", 4323)]
    last = start + timedelta(seconds=step * 8999, milliseconds=123)
    if step < 7200:
        (alive,) = reading.alive
        assert (alive.start, alive.end) == (start + timedelta(milliseconds=123), last)
    else:
        assert len(reading.alive) == 9000 and reading.alive[-1].end == last
