"""Tables of a fleet as PowerCLI, RVTools, vDocumentation and people export them: as evidence and as an inventory."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import pandas as pd
import pytest

from psodlib import Fleet, load
from psodlib.collector import read_hosts
from psodlib.evidence.artifacts import read_inventory

LOG = "2023-04-05T06:07:08.901Z cpu3:2100041)Hello: 12: the host is up\n"


def fleet_of(tmp_path: Path, files: dict[str, str | bytes], inventory: Path | None = None) -> Fleet:
    for name, data in files.items():
        file = tmp_path / "evidence" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return load(tmp_path / "evidence", inventory=inventory, jobs=1)


def drivers(fleet: Fleet, *columns: str) -> set[tuple[object, ...]]:
    rows = fleet.drivers.loc[fleet.drivers["evidence"] != "install_date", list(columns)].astype(object)
    return set(rows.where(rows.notna(), None).itertuples(index=False, name=None))


def host(fleet: Fleet, name: str, *columns: str) -> tuple[object, ...]:
    row = fleet.hosts.set_index("host").loc[name, list(columns)]
    return tuple(None if pd.isna(value) else value for value in row)


def workbook(**sheets: list[list[str | int]]) -> bytes:
    """A workbook as Excel's own format has it, no more than a reader needs."""
    names = list(sheets)
    kind = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    rel = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    files = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="xml" ContentType="application/xml"/>'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r0" Type="{rel}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{kind}" xmlns:r="{rel}"><sheets>'
        + "".join(f'<sheet name="{name}" sheetId="{at}" r:id="r{at}"/>' for at, name in enumerate(names, 1))
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        + "".join(
            f'<Relationship Id="r{at}" Type="{rel}/worksheet" Target="worksheets/s{at}.xml"/>'
            for at, _ in enumerate(names, 1)
        )
        + "</Relationships>",
    }
    for at, rows in enumerate(sheets.values(), 1):
        cells = "".join(
            "<row>"
            + "".join(
                f'<c t="inlineStr"><is><t>{escape(str(cell))}</t></is></c>'
                if isinstance(cell, str)
                else f"<c><v>{cell}</v></c>"
                for cell in row
            )
            + "</row>"
            for row in rows
        )
        files[f"xl/worksheets/s{at}.xml"] = f'<worksheet xmlns="{kind}"><sheetData>{cells}</sheetData></worksheet>'
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, '<?xml version="1.0" encoding="UTF-8"?>' + text)
    return out.getvalue()


RVTOOLS = workbook(
    vInfo=[["VM", "Powerstate", "Host", "Cluster"], ["vm-a", "poweredOn", "esx-r1.lab", "CL-R"]],
    vHost=[["Host", "Cluster", "# CPU", "# VMs", "ESX Version", "Vendor", "Model", "Serial number"],
           ["esx-r1.lab", "CL-R", 2, 1033, "VMware ESXi 7.0.2 build-18538813", "Lenovo", "ThinkSystem SR650", "J300"],
           ["esx-r2.lab", "CL-R", 2, 12, "VMware ESXi 6.5.0 build-16576891", "Lenovo", "ThinkSystem SR630", "J301"]],
    vHBA=[["Host", "Device", "Type", "Driver", "Model"], ["esx-r1.lab", "vmhba4", "Fibre Channel", "qlnativefc", "QLE2692"],
          ["esx-r2.lab", "vmhba1", "Block SCSI", "Not a driver", "RAID 530"]],
    vNIC=[["Host", "Network Device", "Driver", "Speed"], ["esx-r2.lab", "vmnic2", "i40en", 10000]],
    vSource=[["Name", "API type", "Version", "Build", "Vendor"], ["vcenter.lab", "VirtualCenter", "7.0.3", "20395099", "VMware, Inc."]],
)  # fmt: skip


def test_rvtools_workbook_as_evidence(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, {"export/RVTools_all.xlsx": RVTOOLS, "esx-r1/vmkernel.log": LOG})
    assert set(fleet.hosts["host"]) == {"esx-r1.lab", "esx-r2.lab"}
    wanted = ("7.0.2", "18538813", "Lenovo", "ThinkSystem SR650")
    assert host(fleet, "esx-r1.lab", "esxi_version", "esxi_build", "vendor", "model") == wanted
    wanted = {("esx-r1.lab", "qlnativefc", "vmhba4"), ("esx-r2.lab", "i40en", "vmnic2")}
    assert drivers(fleet, "host", "module", "device") == wanted
    told = set(fleet.problems[["problem", "source"]].itertuples(index=False, name=None))
    source = str(tmp_path / "evidence/export/RVTools_all.xlsx")
    assert {("bad_line", source), ("unused", source)} <= told


def test_rvtools_workbook_as_inventory(tmp_path: Path) -> None:
    (tmp_path / "RVTools.xlsx").write_bytes(RVTOOLS)
    assert [host.name for host in read_hosts(tmp_path / "RVTools.xlsx")] == ["esx-r1.lab", "esx-r2.lab"]
    table = read_inventory(tmp_path / "RVTools.xlsx").set_index("host")
    wanted = ["CL-R", 1033, "7.0.2", "18538813", "J300"]
    assert table.loc["esx-r1.lab", ["cluster", "vms", "esxi_version", "esxi_build", "serial"]].tolist() == wanted
    assert list(table.index) == ["esx-r1.lab", "esx-r2.lab"]


@pytest.mark.parametrize("data", [b"PK\x03\x04 [Content_Types].xml cut", RVTOOLS[:900]])
def test_a_workbook_that_is_cut_is_a_problem_or_none_of_ours(tmp_path: Path, data: bytes) -> None:
    fleet = fleet_of(tmp_path, {"a.xlsx": data, "esx1/vmkernel.log": LOG})
    assert fleet.problems["problem"].tolist() == ["unreadable" if b"xl/" in data else "unused"]


VIBS = [("esx-p1.lab", "lpfc", "12.8.298.3-1OEM.670.0.0.8169922", "EMU"), ("esx-p2.lab", "net-tg3", "3.137l.v60.1-1OEM.600.0.0.2494585", "BRCM"),
        ("esx-p2.lab", "nmlx5-core", "4.19.70.1-1OEM.670.0.0.8169922", "MEL")]  # fmt: skip


@pytest.mark.parametrize(
    ("quote", "delimiter", "encoding"),
    [('"', ",", "utf-8"), ("", ";", "utf-8-sig"), ('"', "\t", "utf-16"), ('"', ";", "utf-16-le"),
     ("", ",", "utf-16-be")],
)  # fmt: skip
@pytest.mark.parametrize(
    "columns",
    [("VMHost", "Name", "Version", "Vendor"), ("Version", "Vendor", "Name", "VMHost"),
     ("Hostname", "Name", "Version"), ("ESXi Host", "VIB Name", "VIB Version", "Vendor")],
)  # fmt: skip
def test_vibs_of_a_fleet(tmp_path: Path, columns: tuple[str, ...], quote: str, delimiter: str, encoding: str) -> None:
    places = dict.fromkeys(("VMHost", "Hostname", "ESXi Host"), 0) | {"Name": 1, "VIB Name": 1, "Vendor": 3}
    places |= {"Version": 2, "VIB Version": 2}
    lines = [columns, *([row[places[name]] for name in columns] for row in VIBS)]
    text = "\r\n".join(delimiter.join(f"{quote}{cell}{quote}" for cell in line) for line in lines) + "\r\n"
    if quote:
        text = "#TYPE Selected.System.Management.Automation.PSCustomObject\r\n" + text
    fleet = fleet_of(tmp_path, {"vibs.csv": text.encode(encoding)})
    assert drivers(fleet, "host", "module", "version") == {
        ("esx-p1.lab", "lpfc", "12.8.298.3"), ("esx-p2.lab", "tg3", "3.137l.v60.1"), ("esx-p2.lab", "nmlx5_core", "4.19.70.1"),
    }  # fmt: skip
    assert set(fleet.hosts["host"]) == {"esx-p1.lab", "esx-p2.lab"}


def test_format_list_of_two_hosts(tmp_path: Path) -> None:
    text = """

AcceptanceLevel : PartnerSupported
Description     : A driver whose description is long enough to be broken by the
                  window that printed it
ID              : QLC_bootbank_qedentv_3.11.16.0-1OEM.670.0.0.8169922
InstallDate     : 17.11.2019
Name            : qedentv
Vendor          : QLC
Version         : 3.11.16.0-1OEM.670.0.0.8169922
VMHost          : esx-f1.lab

Name            : nmlx4-core
Vendor          : MEL
Version         : 3.17.9.12-1vmw.670.0.0.8169922
VMHost          : esx-f2.lab
"""
    fleet = fleet_of(tmp_path, {"vibs.txt": text})
    wanted = {("esx-f1.lab", "qedentv", "3.11.16.0"), ("esx-f2.lab", "nmlx4_core", "3.17.9.12")}
    assert drivers(fleet, "host", "module", "version") == wanted
    wanted = "2019-11-17 00:00:00+00:00"
    assert str(fleet.drivers.loc[fleet.drivers["evidence"] == "install_date", "observed_at"].item()) == wanted


HOSTS_BY_POWERCLI = {
    "list": "Name           : esx-h1.lab\nConnectionState: Connected\nManufacturer   : Dell Inc.\nModel          : PowerEdge R740\nVersion        : 7.0.3\nBuild          : 21930508\nParent         : CL-9\n",
    "table": "\nName        ConnectionState Manufacturer Model          Version Build\n----        --------------- ------------ -----          ------- -----\n"
    "esx-h1.lab  Connected       Dell Inc.    PowerEdge R740 7.0.3   21930508\n\n",
    "csv": '"Name";"ConnectionState";"Manufacturer";"Model";"Version";"Build"\n"esx-h1.lab";"Connected";"Dell Inc.";"PowerEdge R740";"7.0.3";"21930508"\n',
    "other names": "ESXi Host,HostMfg,HostModel,HostVersion,HostVersionBuild\nesx-h1.lab,Dell Inc.,PowerEdge R740,7.0.3,21930508\n",
    "German": "Hostname;Hersteller;Modell;Version;Build\nesx-h1.lab;Dell Inc.;PowerEdge R740;7.0.3;21930508\n",
}


@pytest.mark.parametrize("form", HOSTS_BY_POWERCLI)
def test_hosts_in_every_form(tmp_path: Path, form: str) -> None:
    fleet = fleet_of(tmp_path, {"hosts.txt": HOSTS_BY_POWERCLI[form]})
    wanted = ("7.0.3", "21930508", "Dell Inc.", "PowerEdge R740")
    assert host(fleet, "esx-h1.lab", "esxi_version", "esxi_build", "vendor", "model") == wanted
    assert len(fleet.hosts) == 1 and fleet.drivers.empty


def test_what_a_host_says_is_believed_before_an_inventory_beside_it(tmp_path: Path) -> None:
    newer = "   Product: VMware ESXi\n   Version: 8.0.2\n   Build: Releasebuild-22380479\n"
    fleet = fleet_of(tmp_path, {"hosts.csv": HOSTS_BY_POWERCLI["csv"], "esx-h1/commands/version.txt": newer})
    assert host(fleet, "esx-h1.lab", "esxi_version", "esxi_build", "model") == ("8.0.2", "22380479", "PowerEdge R740")


def test_a_hosts_row_that_names_its_product_too(tmp_path: Path) -> None:
    text = '"Hostname","Product","Version","Build","Make","Model","S/N"\n"esx-h1.lab","{}","6.7.0","13006603","HPE","DL380","CZ1"\n'
    other = text.replace("h1", "h2").format("VMware vCenter")
    fleet = fleet_of(tmp_path, {"a.csv": text.format("VMware ESXi"), "b.csv": other})
    wanted = ("6.7.0", "13006603", "HPE", "DL380")
    assert host(fleet, "esx-h1.lab", "esxi_version", "esxi_build", "vendor", "model") == wanted
    assert fleet.hosts["host"].tolist() == ["esx-h1.lab"]


DEVICES = {
    "vDocumentation": '"Hostname","Slot Description","VMKernel Name","Device Name","Vendor Name","Driver","Driver Version","Firmware Version","VIB Name","VIB Version"\n'
    '"esx-d1.lab","Slot 1","vmnic4","Controller X, for 10GbE","Intel","i40en","1.8.6","6.01 0x800035cf 1.1747.0","i40en","1.8.6-1OEM.670.0.0.8169922"\n',
    "AsBuiltReport": "Host;Device;Model;Driver;Driver Version;Firmware Version;VIB Name;VIB Version\n"
    "esx-d1.lab;vmnic4;X710;i40en;1.8.6;6.01 0x800035cf 1.1747.0;i40en;1.8.6-1OEM.670.0.0.8169922\n",
    "JSON": '[{"VMHost": "esx-d1.lab", "NIC": "vmnic4", "Driver": "i40en", "DriverVersion": "1.8.6", "FirmwareVersion": "6.01 0x800035cf 1.1747.0"}]',
    "vsish": "[root@esx-d1.lab:~] vsish -e get /net/pNics/vmnic4/properties\nproperties {\n   Driver Name:i40en\n   Driver Version:1.8.6\n   Driver Firmware Version:6.01 0x800035cf 1.1747.0\n   System Device Name:vmnic4\n   Features Supported:: 0x0\n}\n",
    "prefixed": "HostName,HostProduct,HbaDevice,HbaDriver,HbaDriverVersion,HbaFirmwareVersion\n"
    "esx-d1.lab,VMware ESXi 6.7.0 build-1,vmnic4,i40en,1.8.6,6.01 0x800035cf 1.1747.0\n",
    "list": "VMHost          : esx-d1.lab\nDevice          : vmnic4\nDriver          : i40en\nDriver Version  : 1.8.6\nFirmware Version: 6.01 0x800035cf 1.1747.0\n",
}


@pytest.mark.parametrize("form", DEVICES)
def test_device_tables(tmp_path: Path, form: str) -> None:
    fleet = fleet_of(tmp_path, {"devices.txt": DEVICES[form]})
    rows = drivers(fleet, "host", "module", "version", "device", "firmware", "state")
    loaded = {row[:-1] for row in rows if row[-1] == "loaded"}
    assert loaded == {("esx-d1.lab", "i40en", "1.8.6", "vmnic4", "6.01 0x800035cf 1.1747.0")}
    assert {row[1] for row in drivers(fleet, "state", "module")} == {"i40en"}


ADAPTERS = """HBA Name  Driver      Link State  UID           Capabilities    Description
--------  ----------  ----------  ------------  --------------  -----------
vmhba0    vmw_ahci    link-n/a    sata.vmhba0                   (0000:00:17.0) Maker Some SATA Controller
vmhba1    nhpsa       link-n/a    sas.5001ab1  Data Integrity  (0000:5c:00.0) Maker Some Array
"""


def test_a_row_that_two_readers_know_is_one_observation(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, {"esx1/adapters.txt": ADAPTERS})
    assert fleet.drivers["device"].tolist() == ["vmhba1", "vmhba0"]


def test_a_row_pasted_from_a_spreadsheet_is_one_observation(tmp_path: Path) -> None:
    text = (
        "Name\tPCI\tDriver\tLink\tMTU\nvmnic0\t0000:01:00.0\tigbn\tUp\t1500\nvmnic1\t0000:01:00.1\tigbn\tDown\t1500\n"
    )
    assert fleet_of(tmp_path, {"esx1/nics.txt": text}).drivers["device"].tolist() == ["vmnic0", "vmnic1"]


@pytest.mark.parametrize("text", ['{"name": "esx-h1.lab", "full_name": "VMware ESXi 8.0.3 build-1", "version": "8.0.3", "build": "24022510"}',
                                  '"Name","Hardware|Model","Summary|Version"\n"esx-h1.lab","R740","VMware ESXi 8.0.3 build-24022510"\n',
                                  '"Name","Hardware|Model","Summary|Version"\n"esx-h1.lab","R740","VMware ESXi, 8.0.3, 24022510"\n'])  # fmt: skip
def test_a_hosts_release_as_tools_export_it(tmp_path: Path, text: str) -> None:
    fleet = fleet_of(tmp_path, {"hosts.txt": text})
    assert host(fleet, "esx-h1.lab", "esxi_version", "esxi_build") == ("8.0.3", "24022510")
    other = fleet_of(tmp_path / "b", {"hosts.txt": text.replace("VMware ESXi", "Some OS").replace('"build"', '"x"')})
    assert other.hosts["esxi_build"].dropna().empty


NOTHING = {
    "virtual machines": "Name,PowerState,Version,Guest\nvm1,PoweredOn,v13,Linux\n",
    "datastores": '"Name","FreeSpaceGB","CapacityGB"\n"ds1","1","2"\n',
    "Windows drivers": "DeviceName,DriverVersion,Manufacturer\nIntel NIC,12.18.9.6,Intel\n",
    "software": "Name,Version,Vendor\nNotepad,8.1,Someone\n",
    "vCenter": "Name,API type,Version,Build\nvc,VirtualCenter,7.0.3,20395099\n",
}


@pytest.mark.parametrize("form", NOTHING)
def test_other_tables_give_no_row_and_are_named(tmp_path: Path, form: str) -> None:
    fleet = fleet_of(tmp_path, {"other.csv": NOTHING[form]})
    assert fleet.hosts.empty and fleet.drivers.empty
    assert fleet.problems["problem"].tolist() == ["unused"]


BROKEN = {
    "JSON cut": '[{"Name": "scsi-hpsa", "Version": "5.5.0.58-1OEM.550.0.0.1331820", "Vendor": "HP"}, {"Name": "lpfc", "Versi',
    "JSON cut in the first": '[{"Name": "scsi-hpsa", "Version": "5.5.0',
    "XML cut": '<?xml version="1.0"?>\n<output xmlns="x">\n<structure typeName="V"><field name="Name"><string>lpfc</string></field><field name="Vers',
    "XML bomb in a list": '<?xml version="1.0"?><!DOCTYPE o [<!ENTITY a "aa"><!ENTITY c "&a;&a;">]><output xmlns="x"><list><structure typeName="VIB">'
    '<field name="Name"><string>&c;</string></field><field name="Version"><string>5.5.0.58-1OEM</string></field></structure></list></output>',
    "XML bomb of no output": '<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "aa"><!ENTITY c "&a;&a;">]><lolz>&c;</lolz>',
    "XML bomb": '<?xml version="1.0"?>\n<!DOCTYPE b [<!ENTITY a "aa"><!ENTITY c "&a;&a;">]>\n<output><string>&c;</string></output>',
}


@pytest.mark.parametrize("form", BROKEN)
def test_broken_output_is_never_silent(tmp_path: Path, form: str) -> None:
    fleet = fleet_of(tmp_path, {"esx1/commands/vib.txt": BROKEN[form]})
    assert len(fleet.problems) >= 1
    assert set(fleet.drivers["module"]) == ({"hpsa"} if form == "JSON cut" else set())


KEY_VALUE = {
    "version": "VersionGet.Build.string=Releasebuild-1234567\nVersionGet.Product.string=VMware ESXi\nVersionGet.Version.string=7.0.3\n",
    "list": "VIB[0].ID.string=ACM_bootbank_acme-nic_1.2.3-1OEM.700.1.0.15843807\nVIB[0].InstallDate.string=2022-08-03\nVIB[0].Name.string=acme-nic\n"
    "VIB[0].Version.string=1.2.3-1OEM.700.1.0.15843807\nVIB[1].Name.string=other\nVIB[1].Version.string=4.5.6-1OEM.700.1.0.15843807\n",
    "nested": "NIC.AdvertisedLinkModes[0].string=1000BaseT/Full\nNIC.DriverInfo.Driver.string=acme_nic\nNIC.DriverInfo.FirmwareVersion.string=9.8\n"
    "NIC.DriverInfo.Version.string=1.2.3\nNIC.Name.string=vmnic4\nNIC.VirtualAddress.string=00:50:56:00:00:01\n",
}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_key_value_output(tmp_path: Path, end: str) -> None:
    for name, text in KEY_VALUE.items():
        (tmp_path / "esx01" / "commands").mkdir(parents=True, exist_ok=True)
        (tmp_path / "esx01" / "commands" / f"{name}.txt").write_bytes(text.replace("\n", end).encode())
    fleet = load(tmp_path, jobs=1)
    assert fleet.hosts[["host", "esxi_version", "esxi_build"]].values.tolist() == [["esx01", "7.0.3", "1234567"]]
    told = set(map(tuple, fleet.drivers[["module", "version", "state"]].astype(str).values))
    wanted = {("acme_nic", "1.2.3", "installed"), ("other", "4.5.6", "installed"), ("acme_nic", "1.2.3", "loaded")}
    assert told == wanted
    (nic,) = fleet.drivers[fleet.drivers.device == "vmnic4"].to_dict("records")
    assert nic["firmware"] == "9.8"


@pytest.mark.parametrize(
    "name", ["<b>x</b>", "=cmd()", "../../x", "a b c", "x" * 300, "scsi-hpsa\nevil", "none", "N/A", "-", "123"]
)
def test_what_no_vib_can_be_called_is_a_bad_line(tmp_path: Path, name: str) -> None:
    rows = [{"Name": name, "Version": "5.5.0.58-1OEM.550.0.0.1331820", "Vendor": "HP"}]
    fleet = fleet_of(tmp_path, {"esx1/commands/v.json": json.dumps(rows)})
    assert fleet.drivers.empty and [*fleet.problems["problem"]] == ["bad_line"]


def test_a_table_of_something_else_is_told_in_a_few_rows(tmp_path: Path) -> None:
    rows = "".join(f"Some Office {n},1.2.{n}-1,Some\n" for n in range(500))
    fleet = fleet_of(tmp_path, {"esx1/commands/programs.csv": f"Name,Version,Vendor\n{rows}"})
    assert fleet.drivers.empty and 1 <= len(fleet.problems) <= 20
    assert "not listed" in fleet.problems["detail"].iloc[-1]
