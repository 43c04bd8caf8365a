"""Captures of several outputs and hosts in one file, tables that end where they end, and whose a folder is."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import re2
from conftest import LONG
from hypothesis import given, settings
from hypothesis import strategies as st
from wrappings import DRESSES

from psodlib import Fleet, load
from psodlib.evidence.artifacts import KINDS, read_artifact
from psodlib.evidence.artifacts.commands import DEVICES
from psodlib.evidence.artifacts.terminal import HEADINGS, has_prompt

CRASH = """2023-02-03T04:05:06.100Z cpu3:2100041)@BlueScreen: #PF Exception 14 in world 2100041:{world} IP 0x42001b2c1d11 addr 0x10
PTEs:0x8100063;0x0;
2023-02-03T04:05:06.101Z cpu3:2100041)Code start: 0x42001a000000 VMK uptime: 12:03:04:05.678
2023-02-03T04:05:06.102Z cpu3:2100041)0x451a0899bd40:[0x42001b2c1d11]ntg3_tx_done@(ntg3)#<None>+0x51 stack: 0x0
2023-02-03T04:05:06.103Z cpu3:2100041)0x451a0899bfe0:[0x42001a1b3c44]CpuSched_StartWorld@vmkernel#nover+0x86 stack: 0x0
2023-02-03T04:05:06.104Z cpu3:2100041)base fs=0x0 gs=0x420040c00000 Kgs=0x0
"""
LINE = "2023-02-03T04:05:06.100Z cpu3:2100041)Hello: 12: the host is up\n"


def fleet_of(root: Path, files: dict[str, str | bytes]) -> Fleet:
    for name, data in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return load(root, jobs=1)


def drivers(fleet: Fleet, *columns: str) -> list[tuple[object, ...]]:
    rows = fleet.drivers.loc[fleet.drivers["evidence"] != "install_date", list(columns)].astype(object)
    return sorted(rows.where(rows.notna(), "").itertuples(index=False, name=None))


def test_every_kinds_pattern_is_one_that_re2_compiles() -> None:
    for kind in KINDS:
        re2.compile("(?m)" + kind.pattern.pattern.replace(r"\Z", r"\z"))


@pytest.mark.parametrize("row", HEADINGS, ids=lambda row: row[0])
def test_every_heading_is_of_its_own_row(row: tuple[str, str, re.Pattern[str]]) -> None:
    _, sample, pattern = row
    assert next(one for *_, one in HEADINGS if one.match(sample)) is pattern and has_prompt("x\n" + sample)


@pytest.mark.parametrize("row", DEVICES, ids=lambda row: row[0])
def test_every_device_row_is_of_its_own_pattern(row: tuple[str, str, str]) -> None:
    assert [name for name, _, pattern in DEVICES if re.match(pattern, row[1])] == [row[0]]


NICS = """Name     PCI Device    Driver     Admin Status  Link Status  Speed  Duplex  MAC Address         MTU  Description
-------  ------------  ---------  ------------  -----------  -----  ------  -----------------  ----  -----------
vmnic0   000:02:00.0   bnx2       Up            Up            1000  Full    00:26:b9:00:00:00  1500  NetXtreme II
vmnic12  Pseudo        r8152      Up            Up            1000  Full    00:26:b9:00:00:02  1500  Unknown Unknown
vusb0    Pseudo        cdc_ether  Up            Down             0  Half    00:00:00:00:00:01  1500  Virtual NIC
"""
SEEN = [("bnx2", "vmnic0"), ("cdc_ether", "vusb0"), ("r8152", "vmnic12")]


@pytest.mark.parametrize(
    "after",
    ["", "\nAnd so I knew that it was the driver, as I had thought before\n", "   Advertised Auto Negotiation: true\n   Cable Type: Twisted Pair\n",
     "vmnics are the names of devices and  not the names of  drivers\n", "Total: 3 adapters, none of them  bad\n"],
)  # fmt: skip
def test_a_table_ends_at_the_first_line_that_is_none_of_it(tmp_path: Path, after: str) -> None:
    fleet = fleet_of(tmp_path, {"esx01/nics.txt": NICS + after})
    assert drivers(fleet, "module", "device") == SEEN


def test_a_table_that_the_terminal_broke_at_its_width(tmp_path: Path) -> None:
    broken = "\n".join(line[:80] + ("\n" + line[80:] if len(line) > 80 else "") for line in NICS.split("\n"))
    assert (
        drivers(
            fleet_of(tmp_path, {"esx01/nics.txt": "[root@esx01:~] esxcli network nic list\n" + broken}),
            "module",
            "device",
        )
        == SEEN
    )


HOSTS = """Name               ConnectionState PowerState Version Build
----               --------------- ---------- ------- -----
{}   Connected       PoweredOn  7.0.3   21930508
"""


@pytest.mark.parametrize("name", ["esx-a1.lab      ", "esx-a1.lab", "esx-a1.lab" + " " * 9])
def test_a_host_that_was_renamed_moves_its_row(tmp_path: Path, name: str) -> None:
    prose = "As I said it was " + "Connected   all along\nand so he wrote it\n"
    for after in ("", prose):
        fleet = fleet_of(tmp_path / (after and "b"), {"hosts.txt": HOSTS.format(name) + after})
        assert fleet.hosts[["host", "esxi_version"]].to_numpy().tolist() == [["esx-a1.lab", "7.0.3"]]


MANGLED: dict[str, Callable[[str], str]] = {
    "quoted": lambda text: "".join(f"> {line}\n" for line in text.splitlines()),
    "quoted twice": lambda text: "".join(f">> {line}\n" for line in text.splitlines()),
    "hard blanks": lambda text: text.replace("  ", "\u00a0 "),
    "entities": lambda text: text.replace("  ", "&nbsp; ").replace("\n", "<br>\n"),
    "markdown": lambda text: re.sub(r"([\[\]~_])", r"\\\1", text),
    "in a page": lambda text: f'<pre class="plain:false">{text}</pre>\n',
    "in a template": lambda text: f"{{{{< highlight bash >}}}}{text}{{{{< /highlight >}}}}\n",
    "fenced": lambda text: f"```text\n{text}```\n",
    "fence by fence": lambda text: "".join(f"~~~\n[root{part}~~~\n\n" for part in text.split("[root")[1:]),
    **{
        name: lambda text, dressed=DRESSES[name]: dressed(text.encode()).decode()
        for name in ("a mail's bars", "a reply's reply", "cat -n", "less -N", "a chat", "a chat with dates")
    },
}


@pytest.mark.parametrize("way", MANGLED)
def test_what_a_page_or_a_reply_did_to_a_capture(tmp_path: Path, way: str) -> None:
    text = f"[root@esx-a1:~] vmware -v\n{RELEASE}[root@esx-a1:~] esxcli network nic list\n{NICS}"
    fleet = fleet_of(tmp_path, {"paste.txt": MANGLED[way](text)})
    assert fleet.hosts[["host", "esxi_version"]].to_numpy().tolist() == [["esx-a1", "7.0.1"]]
    assert drivers(fleet, "module", "device") == SEEN


RELEASE, OTHER = "VMware ESXi 7.0.1 build-17551050\n", "VMware ESXi 7.0.3 build-21930508\n"
HBA = "vmhba2  {}  link-n/a  sas.5d0946604f3a2d00  (0000:18:00.0) A controller\n"
TWO_HOSTS = {
    "prompts": ("[root@esx-a1:~] vmware -v\n", "[root@esx-a2:~] vmware -v\n"),
    "indented prompts": ("   [root@esx-a1:~] vmware -v\n", "   [root@esx-a2:~] vmware -v\n"),
    "hashes": ("########## ESXi esx-a1 ##########\n### vmware -v\n", "########## ESXi esx-a2 ##########\n### vmware -v\n"),
    "equals": ("===== Host: esx-a1 =====\n", "===== Host: esx-a2 =====\n"),
    "lines": ("Host: esx-a1\n", "Host: esx-a2\n"),
    "ansible": ("esx-a1 | CHANGED | rc=0 >>\n", "esx-a2 | CHANGED | rc=0 >>\n"),
    "pssh": ("[1] 10:00:01 [SUCCESS] esx-a1\n", "[2] 10:00:02 [SUCCESS] esx-a2\n"),
    "ssh": ("admin@jump:~$ ssh root@esx-a1 vmware -v\n", "admin@jump:~$ ssh root@esx-a2 vmware -v\n"),
    "plink": ('PS C:\\> plink root@esx-a1 "vmware -v"\n', 'PS C:\\> plink root@esx-a2 "vmware -v"\n'),
}  # fmt: skip


@pytest.mark.parametrize("form", TWO_HOSTS)
def test_two_hosts_in_one_file_are_two_hosts(tmp_path: Path, form: str) -> None:
    one, two = TWO_HOSTS[form]
    text = one + RELEASE + HBA.format("lsi_msgpt3") + two + OTHER + HBA.format("smartpqi")
    fleet = fleet_of(tmp_path, {"all.txt": text})
    assert fleet.hosts[["host", "esxi_version"]].to_numpy().tolist() == [["esx-a1", "7.0.1"], ["esx-a2", "7.0.3"]]
    assert drivers(fleet, "host", "module") == [("esx-a1", "lsi_msgpt3"), ("esx-a2", "smartpqi")]


def test_fabric_puts_the_host_before_each_line(tmp_path: Path) -> None:
    text = f"[esx-a1] out: {RELEASE}[esx-a2] out: {OTHER}"
    fleet = fleet_of(tmp_path, {"all.txt": "[esx-a1] Executing task 'v'\n" + text})
    assert fleet.hosts[["host", "esxi_version"]].to_numpy().tolist() == [["esx-a1", "7.0.1"], ["esx-a2", "7.0.3"]]


@pytest.mark.parametrize("heading", ["===== {}:", "--- {} ---", "- {} -", "# {}", "### {}", "***** {} *****"])
def test_outputs_under_headings(tmp_path: Path, heading: str) -> None:
    outputs = {
        "esxcli system version get": "   Product: VMware ESXi\n   Version: 6.5.0\n   Build: Releasebuild-14320405\n",
        "esxcli network nic list": NICS,
        "vmkload_mod -s bnx2": "vmkload_mod module information\n input file: /usr/lib/vmware/vmkmod/bnx2\n Version: Version 2.2.4f.v60.10, Build: 2494585\n",
        "esxcli software vib list": "Name    Version                              Vendor  Acceptance Level  Install Date\n------  -----------------------------------  ------  ----------------  ------------\n"
        "sfvmk   2.3.3.1003-1OEM.650.0.0.4598673      Solarflare  VMwareCertified  2019-05-06\n",
    }
    text = "".join(f"{heading.format(command)}\n{output}\n" for command, output in outputs.items())
    fleet = fleet_of(tmp_path, {"esx01/support.txt": text})
    assert fleet.hosts[["esxi_version", "esxi_build"]].to_numpy().tolist() == [["6.5.0", "14320405"]]
    assert drivers(fleet, "module", "device", "version") == sorted(
        [(module, device, "") for module, device in SEEN] + [("bnx2", "", "2.2.4f.v60.10"), ("sfvmk", "", "2.3.3.1003")]
    )


def test_of_two_versions_in_one_capture_the_later_wins(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, {"esx01/upgrade.txt": f"~ # vmware -v\n{RELEASE}~ # reboot\n~ # vmware -v\n{OTHER}"})
    assert fleet.hosts[["esxi_version", "esxi_build"]].to_numpy().tolist() == [["7.0.3", "21930508"]]


@pytest.mark.parametrize("reboot", ["true", "false"])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_an_installation_says_first_or_last_whether_it_asks_for_a_reboot(
    tmp_path: Path, place: int, reboot: str
) -> None:
    lines = ["   VIBs Installed: ACM_bootbank_acme-nic_1.2.4-1OEM.800.1.0.20613240", "   VIBs Removed: ACM_bootbank_acme-nic_1.2.3-1OEM.800.1.0.20613240",
             "   VIBs Skipped:"]  # fmt: skip
    lines.insert(place, f"   Reboot Required: {reboot}")
    once = "\n".join(
        ["Installation Result", "   Message: Operation finished successfully.", *lines, "   DPU Results:\n"]
    )
    other = once.replace("acme-nic", "acme-hba").replace(f"Required: {reboot}", "Required: false")
    fleet = fleet_of(tmp_path, {"esx01/update.txt": once + other})
    state = "pending" if reboot == "true" else "installed"
    assert {row for row in drivers(fleet, "module", "version", "state") if row[0] == "acme_nic"} == {
        ("acme_nic", "1.2.4", state), ("acme_nic", "1.2.3", "removed")}  # fmt: skip
    assert ("acme_hba", "installed") in drivers(fleet, "module", "state")


VIBS = """Name              Version                                Vendor              Acceptance Level  Install Date
----------------  -------------------------------------  ------------------  ----------------  ------------
scsi-acme-sas     6.610.15.00-1OEM.600.0.0.2494585       Acme_Systems_Inc.   VMwareCertified   2018-04-16
acme-nic          1.5.8-1OEM.650.0.0.4598673             ACM                 VMwareCertified   2018-04-18
"""


@pytest.mark.parametrize("width", [45, 80, 100, 200])
@pytest.mark.parametrize("prompt", ["", "[root@esx01:~] esxcli software vib list\n"])
def test_a_vib_list_that_the_terminal_broke(tmp_path: Path, width: int, prompt: str) -> None:
    broken = "".join(f"{line[at : at + width]}\n" for line in VIBS.splitlines() for at in range(0, len(line), width))
    fleet = fleet_of(tmp_path, {"esx01/vibs.txt": prompt + broken})
    assert drivers(fleet, "module", "version") == [("acme_nic", "1.5.8"), ("acme_sas", "6.610.15.00")]


@pytest.mark.parametrize("sign", ["# ", "#", "  # "])
def test_an_output_kept_as_a_comment(tmp_path: Path, sign: str) -> None:
    text = "".join(f"{sign}{line}\n" for line in NICS.splitlines())
    fleet = fleet_of(tmp_path, {"esx01/a.txt": "# the adapters\nesxcli network nic list\n" + text})
    assert drivers(fleet, "module", "device") == SEEN
    assert fleet_of(tmp_path / "b", {"esx01/a.txt": "# vmnic0 is a device\n# bnx2 its driver\n"}).drivers.empty


@pytest.mark.parametrize("quote", ["", "   > "])
def test_prose_that_shows_a_hosts_output_is_never_silent(tmp_path: Path, quote: str) -> None:
    said = (
        "In this example the adapter that you are looking for has a name, and you should write it down for later use.\n"
    )
    text = f"{said}{quote}esxcli iscsi adapter list\n{quote}the adapter is vmhba64 here\n{said}"
    fleet = fleet_of(tmp_path, {"how.txt": text, "story.txt": said * 3})
    assert fleet.drivers.empty and fleet.problems["source"].str.endswith("how.txt").tolist() == [True]


def test_a_vibs_name_may_hold_underscores(tmp_path: Path) -> None:
    text = "   VIBs Installed: NVD_bootbank_NVD-VMware_ESXi_8.0.0_Driver_535.1.2-1OEM.800.1.0.20613240, ACM_bootbank_acme-nic_1.2.3-1OEM.800.1.0.20613240\n"
    wanted = [("acme_nic", "1.2.3"), ("nvidia", "535.1.2")]
    assert drivers(fleet_of(tmp_path, {"esx01/out.txt": text}), "module", "version") == wanted


def test_a_device_stands_above_its_output(tmp_path: Path) -> None:
    text = "".join(
        f"---------\nvmnic{n}\n   Driver Info:\n         Bus Info: 0000:0{n}:00:0\n         Driver: acme_nic\n         Firmware Version: 1.{n}\n         Version: 4.1\n"
        for n in (1, 4)
    )
    wanted = [("vmnic1", "1.1"), ("vmnic4", "1.4")]
    assert drivers(fleet_of(tmp_path, {"esx01/out.txt": text}), "device", "firmware") == wanted


TOLD = {
    "no firmware": ("driver: forced\nversion: 0.61.0.1\nfirmware-version:\nbus-info: 0000:00:14.0\n", ("forced", "0.61.0.1", "0000:00:14.0", "")),
    "a module's file of 4.x": ("vmkload_mod module information\n input file: /usr/lib/vmware/vmkmod/sata_q.o\n Version: Version 2.0.0.1-1vmw, Build: 348481\n", ("sata_q", "2.0.0.1", "", "")),
    "ssacli": ("Smart Array P1 in Slot 0 (Embedded)\n   Slot: 0\n   Firmware Version: 6.60\n   Driver Name: nhpsa\n   Driver Version: 2.0.30\n", ("nhpsa", "2.0.30", "", "6.60")),
    "storcli": ("CLI Version = 007.1\nController = 0\n\nVersion :\n=======\nFirmware Version = 5.16\nDriver Name = lsi-mr3\nDriver Version = 7.718.02.00\n", ("lsi_mr3", "7.718.02.00", "", "5.16")),
    "nic get as JSON": ('{"CableType": "", "DriverInfo": {"BusInfo": "0000:18:00:0", "Driver": "i40en", "FirmwareVersion": "9.20", "Version": "2.7.2.0"}, "Name": "vmnic0"}', ("i40en", "2.7.2.0", "vmnic0", "9.20")),
}  # fmt: skip


@pytest.mark.parametrize("form", TOLD)
def test_a_drivers_version_in_more_words(tmp_path: Path, form: str) -> None:
    text, wanted = TOLD[form]
    assert drivers(fleet_of(tmp_path, {"esx01/out.txt": text}), "module", "version", "device", "firmware") == [wanted]


def test_what_a_module_was_asked_for_is_its_first_line_alone(tmp_path: Path) -> None:
    asked = "[root@esx01:~] vmkload_mod -s bnx2 | grep Version\n Version: Version 2.2.4f, Build: 2494585\n"
    named = "Bus Info: none\nDriver Name = tg3\nDriver Version = 3\n"
    for after in ("\nVersion: 1.2\n", "\ndriver: bnx2x\nversion: 2.7\n", named):
        fleet = fleet_of(tmp_path / str(len(after)), {"a.txt": asked + after})
        told = {row for row in drivers(fleet, "module", "version", "device") if row[0] == "bnx2"}
        assert told <= {("bnx2", "2.2.4f", "")}


def test_ansible_keys_by_host(tmp_path: Path) -> None:
    nic = '{"device": "vmnic0", "driver": "ixgbe", "location": "0000:01:00.0"}'
    text = f'{{"changed": false, "hosts_vmnics_info": {{"esx-a1": {{"num_vmnics": 1, "vmnic_details": [{nic}]}}, "esx-a2": {{"vmnic_details": []}}}}}}'
    package = '{"hosts_package_info": {"esx-a3": [{"acceptance_level": "certified", "name": "acme-nic", "vendor": "A", "version": "1.2.3-1OEM.700.1.0.15843807"}]}}'
    fleet = fleet_of(tmp_path, {"a.json": text, "b.json": package, "c.json": '{"hosts": {"esx-a4": {"driver": "me"}}}'})
    assert drivers(fleet, "host", "module", "device") == [("esx-a1", "ixgbe", "vmnic0"), ("esx-a3", "acme_nic", "")]
    assert fleet.problems["source"].str.endswith("c.json").tolist() == [True]


@pytest.mark.parametrize(
    "heading", ["=== ESXi Host Health Check: 10.0.0.7 ===", "== esx-a7", "--- ESXA07 ---", "===== esx-a7.lab ====="]
)
def test_a_heading_names_the_host(tmp_path: Path, heading: str) -> None:
    fleet = fleet_of(tmp_path, {"out.txt": f"{heading}\n{RELEASE}"})
    assert fleet.hosts["esxi_version"].tolist() == ["7.0.1"]
    assert fleet.hosts["host"].item().strip(".lab") in heading


@pytest.mark.parametrize(
    "heading", ["=== ESXi67U3 ===", "=== NTP server: pool.ntp.org ===", "== vmnic0 ==", "=== ESXi 7.0.1 ==="]
)
def test_a_heading_names_no_host(tmp_path: Path, heading: str) -> None:
    assert fleet_of(tmp_path, {"out.txt": f"{heading}\n{RELEASE}"}).hosts.empty


@pytest.mark.parametrize(("product", "version"), [("ESXi", ["7.0.3"]), ("vCenter Server", [])])
def test_the_api_says_its_release(tmp_path: Path, product: str, version: list[str]) -> None:
    text = f'[root@esx01:~] vim-cmd hostsvc/hostsummary\n      product = (vim.AboutInfo) {{\n         fullName = "VMware {product} 7.0.3 build-21930508", \n'
    assert fleet_of(tmp_path, {"out.txt": text}).hosts["esxi_version"].dropna().tolist() == version


COMPONENTS = """Name                    Display Name           Version               Creation Date  Vendor
----------------------  ---------------------  --------------------  -------------  ------
Broadcom-bnxt-Net-RoCE  Broadcom NetXtreme-E   231.0.153.0-1OEM.800  2022-01-01     BCM
"""
NO_DRIVERS = {
    "components": COMPONENTS, "lspci": "0000:00:17.0 SATA controller: Intel Corporation AHCI Controller [vmhba0]\n",
    "stats": "NIC statistics for vmnic0\n   Packets received: 12\n   Driver drops: 7\n", "vmkchdev": "0000:03:00.0 103c:323b 103c:3355 vmkernel vmhba1\n",
    "a person's words": "The driver of vmnic0 is old, and version 2.1.3 is out. Driver: see below\n",
    "skipped": "Installation Result\n   Reboot Required: false\n   VIBs Installed:\n   VIBs Removed:\n   VIBs Skipped: EMU_bootbank_lpfc_12.8.298.3-1OEM.670.0.0.8169922\n",
}  # fmt: skip


@pytest.mark.parametrize("form", NO_DRIVERS)
def test_what_speaks_of_drivers_and_reads_none(tmp_path: Path, form: str) -> None:
    assert fleet_of(tmp_path, {"esx01/output.txt": NO_DRIVERS[form]}).drivers.empty


def test_a_powershell_session_names_its_host_in_the_command(tmp_path: Path) -> None:
    text = "PowerCLI C:\\> Get-VMHost esx-a1.lab | ft Name,Version,Build\n\nName       Version Build\n----       ------- -----\nesx-a1.lab 6.7.0   17700523\n\n"
    text += "PowerCLI C:\\> $esxcli.software.vib.list.Invoke() | ft Name,Version\n\nName  Version\n----  -------\nnenic 1.0.33.0-1OEM.670.0.0.8169922\n"
    fleet = fleet_of(tmp_path, {"transcript.txt": text})
    assert drivers(fleet, "host", "module", "version") == [("esx-a1.lab", "nenic", "1.0.33.0")]
    wanted = [["esx-a1.lab", "6.7.0", "17700523"]]
    assert fleet.hosts[["host", "esxi_version", "esxi_build"]].to_numpy().tolist() == wanted


@pytest.mark.parametrize(
    "how",
    [
        "~ # hostname\nesx-a1.lab\n",
        "~ # esxcli system hostname get\n   Domain Name: lab\n   Fully Qualified Domain Name: esx-a1.lab\n   Host Name: esx-a1\n",
    ],
)
def test_a_session_says_its_host_by_the_way(tmp_path: Path, how: str) -> None:
    fleet = fleet_of(tmp_path, {"session.txt": how + "~ # vmware -v\n" + RELEASE})
    assert fleet.hosts[["host", "esxi_version"]].to_numpy().tolist() == [["esx-a1.lab", "7.0.1"]]


def test_a_date_in_a_capture_dates_what_follows(tmp_path: Path) -> None:
    text = "~ # date\nMon Mar  6 10:00:00 UTC 2023\n~ # uptime\n 10:00:00 up 5 days, 12:00:00, load average: 0.05, 0.04, 0.05\n"
    fleet = fleet_of(tmp_path, {"esx01/state.txt": text})
    assert fleet.uptimes["boot"].astype(str).tolist() == ["2023-02-28 22:00:00+00:00"]


@pytest.mark.parametrize(
    ("version", "build", "line"),
    [("8.0.1", "21813344", "2023-07-07T01:02:03.456Z In(166) Hostd[2100]: - last log rotation time, 2023-07-06T01:02:03.000Z - time the service was last started, Section for VMware ESX, pid=2100, version=8.0.1, build=21813344, option=Release"),
     ("6.7.0", None, "2020-07-07T01:02:03.456Z - time the service was last started 2020-07-07T01:02:03.000Z, Section for VMware ESX, pid=2100, version=6.7.0, build=0, option=DEBUG")],
)  # fmt: skip
def test_the_head_of_hostds_log_tells_the_version(tmp_path: Path, version: str, build: str | None, line: str) -> None:
    fleet = fleet_of(tmp_path, {"esx01/hostd.log": line + "\n"})
    assert fleet.hosts["esxi_version"].item() == version
    assert fleet.hosts["esxi_build"].fillna("none").item() == (build or "none")


@pytest.mark.parametrize(
    "text",
    [
        "Name  Version  Vendor\n----  -------  ------\n",
        NICS[: NICS.index("vmnic0")],
        '[{"Name": "lpfc", "Version": ""}]\n',
    ],
)
def test_a_known_kind_with_nothing_in_it_is_named(tmp_path: Path, text: str) -> None:
    fleet = fleet_of(tmp_path, {"esx01/output.txt": text})
    assert fleet.drivers.empty and fleet.problems["problem"].tolist() == ["unused"]


# --- whose folder it is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["", "forum/", "threads/"])
def test_strangers_texts_are_each_their_own_evidence(tmp_path: Path, folder: str) -> None:
    texts = {"a": CRASH.format(world="one"), "b": RELEASE, "c": CRASH.format(world="two").replace("04:05", "05:05")}
    fleet = fleet_of(tmp_path / "found", {f"{folder}{name}.txt": text for name, text in texts.items()})
    assert len(fleet.crashes) == 2 and fleet.hosts.empty
    assert fleet.crashes[["host", "esxi_version", "esxi_build"]].isna().all(axis=None)
    assert fleet.problems["problem"].tolist() == ["no_host"] * 3


@pytest.mark.parametrize(
    "names",
    ["vmkernel.log", "vmkernel.0.gz.txt vmksummary.log", "var/core/vmkernel-log.1", "commands/vmware_-v.txt psod.txt", "psod.txt"],
)  # fmt: skip
@pytest.mark.parametrize("above", ["", "dc2/"])
def test_a_hosts_folder_by_its_look(tmp_path: Path, names: str, above: str) -> None:
    texts = {f"{above}srv-a/{name}": CRASH.format(world="one") for name in names.split()}
    fleet = fleet_of(tmp_path / "all", {**texts, f"{above}srv-b/vmkernel.log": LINE})
    assert set(fleet.crashes["host"]) == {"srv-a"} and set(fleet.hosts["host"]) == {"srv-a", "srv-b"}


def test_a_list_of_sources_is_several_sources(tmp_path: Path) -> None:
    for name in ("srv-a", "srv-b"):
        fleet_of(tmp_path / name, {"vmkernel.log": LINE})
    both = [tmp_path / "srv-a", str(tmp_path / "srv-b")]
    assert load(both, jobs=1).hosts.equals(load(*both, jobs=1).hosts) and len(load(both, jobs=1).hosts) == 2


@pytest.mark.parametrize("zone", ["+02:00", "-0530", "Z"])
def test_a_zone_counts_for_signs_of_life_too(tmp_path: Path, zone: str) -> None:
    fleet = fleet_of(tmp_path, {"esx01/vmkernel.log": LINE.replace("Z cpu", f"{zone} cpu")})
    wanted = {"+02:00": "02:05:06", "-0530": "09:35:06", "Z": "04:05:06"}[zone]
    assert fleet.hosts["last_seen"].astype(str).str[11:19].tolist() == [wanted]


# --- encodings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_a_crash_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    text = LINE * 3 + CRASH.format(world="Grüße")
    assert len(fleet_of(tmp_path, {"esx01/vmkernel.log": text.encode(encoding)}).crashes) == 1


@pytest.mark.parametrize("mark", [b"", b"\xff\xfe"])
@pytest.mark.parametrize("before", [1, 5000])
def test_utf_16_appended_to_ascii(tmp_path: Path, before: int, mark: bytes) -> None:
    data = LINE.encode() * before + mark + CRASH.format(world="x").replace("\n", "\r\n").encode("utf-16-le")
    fleet = fleet_of(tmp_path, {"esx01/vmkernel.log": data})
    wanted = [["2023-02-03 04:05:06.100+00:00", str(before + 1)]]
    assert fleet.crashes[["time", "line"]].astype(str).to_numpy().tolist() == wanted


@pytest.mark.parametrize(
    "junk",
    [b"\xff\xfe", b"\xfe\xff", bytes(70_000) + bytes(range(1, 256)) * 90 + b"\n", bytes(range(128, 256)) * 60 + b"\n"],
)
def test_a_stray_mark_or_junk_hides_no_crash(tmp_path: Path, junk: bytes) -> None:
    assert len(fleet_of(tmp_path, {"esx01/vmkernel-log.1": junk + CRASH.format(world="x").encode()}).crashes) == 1


# --- no invented row --------------------------------------------------------------------------------------------------

OUTPUTS = [
    NICS, VIBS, RELEASE, HBA.format("lsi_msgpt3"), "driver: bnx2x\nversion: 2.710.70.v55.7\nfirmware-version: bc 7.10.11\nbus-info: 0000:01:00.0\n",
    "   Driver Info:\n         Bus Info: 0000:05:00.0\n         Driver: igb\n         Firmware Version: 1.2.3\n         Version: 5.0.5.1\n   Name: vmnic0\n",
    "Name    Version                          Vendor\n------  -------------------------------  ------\nsfvmk   2.3.3.1003-1OEM.650.0.0.4598673  SFC\n",
    "Message: done\nVIBs Installed: EMU_bootbank_lpfc_12.8.298.3-1OEM.670.0.0.8169922\nReboot Required: true\n", "\n", "===== NEXT =====\n", "[root@esx01:~] ls\n",
    "Name                  Used  Size (kb)\nvmkernel                 0  12\n", "  words of a person about vmnic0 and the driver bnx2\n", "Version: 1.2\n",
    "0000:31:00.0 8086:1521 103c:8157 255/   /     D V igbn         vmnic4\n", "Host Name: esx01\nDriver: none\n", "----  ----\n", "A: b\nDriver: x\n",
    "Driver Name = lsi-mr3\nDriver Version = 7.718.02\nFirmware Version = 5.1\n", "vmnic7\n", "[root@esx01:~] vmkload_mod -s bnx2 | grep Version\n Version: Version 2.2.4f, Build: 2494585\n",
    '[{"Name": "vmnic1", "Driver": "ixgben", "DriverInfo": {"Version": "1.7.1", "FirmwareVersion": "0x8"}}]\n', HOSTS.format("esx-a1"),
    '"Hostname","Device","Driver","Driver Version"\n"esx-d1","vmnic4","i40en","1.8.6"\n', "NIC[0].Name.string=vmnic2\nNIC[0].Driver.string=ntg3\n",
]  # fmt: skip


@settings(max_examples=120 * LONG, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(OUTPUTS), st.integers(0, 400), st.booleans()), min_size=1, max_size=6),
    st.sampled_from([None, *MANGLED]),
)
def test_no_driver_row_whose_words_stand_in_no_line(pieces: list[tuple[str, int, bool]], way: str | None) -> None:
    text = "".join(output[:cut] if is_cut else output for output, cut, is_cut in pieces)
    lines = [re.sub(r"\\|<br>", "", line) for line in (MANGLED[way](text) if way else text).split("\n")]
    for reading in read_artifact(BytesIO("\n".join(lines).encode()), "x", "x.txt"):
        for row in reading.drivers:
            near = "\n".join(lines[max(0, (row.line or 1) - 2) : (row.line or 1) + 9])  # its prompt stands above it
            words = row.vib.rpartition("_bootbank_")[2] if row.vib else row.module
            assert re.search(
                rf"(?<![\w-]){re.escape(words)}(?![\w-])", near.replace("_bootbank_", " ").replace("lsi-mr3", "lsi_mr3")
            ), row
            assert row.version is None or row.version in near, row
            assert row.device is None or any(row.device in line for line in lines), row
