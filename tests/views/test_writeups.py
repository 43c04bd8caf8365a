"""Write-ups of crashes of every sort, read as a person reads them: what they say must fit the crash."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import DATA
from views import hand_made

from psodlib.fleet import Fleet
from psodlib.triage.known_issues import load_issues
from psodlib.views.account import Account, find_account
from psodlib.views.brief import brief
from psodlib.views.crash import pages_of
from psodlib.views.document import Document, to_markdown, to_pdf
from psodlib.views.report import CHARTS, IN_BRIEF, picture
from psodlib.views.study import study
from psodlib.views.writeup import choose_crash, write_up


def _words(fleet: Fleet, crash_id: str, go_to: str | None = None) -> str:
    text = to_markdown(write_up(fleet, choose_crash(fleet, crash_id), issues=load_issues(), go_to=go_to))
    ours = re.sub(r"```text\n.*?```", "", text, flags=re.DOTALL)  # a log's own words may hold <None>
    assert not re.search(r"<NA>|\bNaT\b|\bnan\b|\bNone\b|Traceback", ours), ours
    return text.replace("\\", "")


def _first(fleet: Fleet, column: str, value: str) -> str:
    return str(fleet.crashes.loc[(fleet.crashes[column] == value).fillna(False), "crash_id"].iloc[0])


def test_a_hardware_error_accuses_no_driver(demo: Fleet) -> None:
    text = _words(demo, _first(demo, "guilt", "hardware"))
    assert "Its message reports a hardware error, and the evidence points at no driver" in text
    assert "Certainty that hardware is at fault: strong" in text and "no root cause" not in text
    assert "esxcli hardware ipmi sel list" in text and "vib install" not in text
    assert "Which module is at fault" not in text and "run the same driver" not in text and "Its VIB" not in text


def test_a_crash_on_purpose_has_no_culprit(demo: Fleet) -> None:
    text = _words(demo, _first(demo, "guilt", "deliberate"))
    assert "a person asked for it" in text and "Nothing was at fault" in text and "Who asked for this crash" in text
    assert "open a support case" not in text and "Does the vendor know" not in text


def test_a_second_module_has_its_own_versions_and_commands(demo: Fleet) -> None:
    text = _words(demo, _first(demo, "guilty_module", "bnx2x"), go_to="1.78.80.v55.3")
    assert "From bnx2x 1.72.56.v55.2 to 1.78.80.v55.3" in text
    assert text.count("# esxcli system module get -m bnx2x | grep -i version") == 2
    assert "--dry-run" in text and "The name of the bundle with bnx2x 1.78.80.v55.3 is not in the evidence" in text
    assert "VIBs Removed: net-bnx2x" in text
    assert "hpsa" not in text.partition("## What to do")[2]


def test_every_installation_is_tried_first_and_ssh_ends_as_it_began(demo: Fleet) -> None:
    text = _words(demo, _first(demo, "known_issues", "KB2075978"), go_to="5.5.0.50")
    steps = ["ls /vmfs/volumes", "maintenanceMode set --enable true", "start_ssh", "cat /proc/scsi/hpsa/2", "--dry-run", "Install.", "# reboot",
             "stop_ssh", "maintenanceMode set --enable false", "To take it back"]  # fmt: skip
    at = [text.index(step) for step in steps]
    assert at == sorted(at) and "name of the bundle" not in text


def test_the_time_between_crash_and_boot_is_told(demo: Fleet) -> None:
    text = _words(demo, _first(demo, "guilt", "hardware"))
    assert "The host was down for 20 min 57 s; meanwhile the dump was written and vSphere HA, where it is on," in text


def test_without_an_inventory_nobody_is_counted() -> None:
    fleet = hand_made.fleet()
    bare = Fleet(
        **{**fleet.tables, "hosts": fleet.hosts.drop(columns=["cluster", "users", "vms"])}, coverage=fleet.coverage
    )
    text = _words(bare, str(bare.crashes["crash_id"].iloc[0]))
    assert "How many users were hit cannot be said" in text and "The inventory lists" not in text


def test_the_brief_of_the_demo_fleet_is_exactly_two_pages(demo: Fleet, tmp_path: Path) -> None:
    (tmp_path / "charts").mkdir()
    found = study(demo)
    pictures = [picture(IN_BRIEF, tmp_path, demo, *CHARTS[IN_BRIEF](found))]
    file = to_pdf(brief(found, pictures), tmp_path / "brief.pdf", "brief.typ")
    told = subprocess.run(["pdfinfo", str(file)], capture_output=True, text=True, check=True, timeout=30).stdout
    assert re.search(r"^Pages:\s+2$", told, re.MULTILINE)


def test_the_brief_of_the_incident_is_one_page_and_says_one_day_once(real: Fleet, tmp_path: Path) -> None:
    # One host and one crash fill no second page; an empty one would be worse than none.
    page = brief(study(real), [])
    # its host was given another version since, so nobody is sent there twice
    assert "was given hpsa 5.5.0.50 after the crash" in to_markdown(page)
    file = to_pdf(page, tmp_path / "brief.pdf", "brief.typ")
    told = subprocess.run(["pdfinfo", str(file)], capture_output=True, text=True, check=True, timeout=30).stdout
    assert re.search(r"^Pages:\s+1$", told, re.MULTILINE)
    read = subprocess.run(
        ["pdftotext", "-layout", str(file), "-"], capture_output=True, text=True, check=True, timeout=30
    )
    text = " ".join(read.stdout.split())
    assert "1 host, 2014-05-31; evidence" in text
    assert "The crash of incident-host: what it is, and what to do now" in text
    assert "Roll back to hpsa 5.5.0.50" in text and "ranks no versions" in text


INCIDENT = DATA / "incident-2014-05-31"
# What the published account says, and where in the write-up a reader finds it.
ACCOUNT = {
    "a new ESXi 5.5 platform took over 10,000 XenApp users": "A new ESXi 5.5 platform that had just taken over more than 10,000 XenApp users",
    "Saturday 31 May 2014": "on Saturday, 31 May 2014, at 15:57:32 UTC, 11:57 local",
    "after almost thirty days": "after 29 days and 20 hours of uptime",
    "11:58 local, HA's mail": "| 2014-05-31 15:58:00 | 05-31 11:58:00 | vSphere HA (mail: vSphere HA initiated a virtual machine failover action)",
    "within a minute": "vSphere HA reported it within a minute",
    "about 40 users, 500 on a weekday": "About 40 users were hit on a Saturday; on a weekday it could have been 500.",
    "Exception 14": "#PF Exception 14 in world 9607609",
    "KB 1020181 explains only the page fault": "VMware KB 1020181 explains exception 14 (a page fault). It is generic: it names no cause.",
    "a case, and the numbers for it": "A support case was opened, once the account, customer and order numbers had been found",
    "SSH on, and the download": "SSH was switched on; the log that was drawn from the dump (vmkernel-log.1) was downloaded for support.",
    "the log out of the dump": "# esxcfg-dumppart -L vmkernel-zdump.1\nCreated file vmkernel-log.1",
    "support named the driver": "KB 2075978, which refers to HP advisory c04302261",
    "the version was checked": "The loaded version was read: HP HPSA Driver (v 5.5.0.58-1OEM)",
    "rolled back because .60 was not out": "Decision: Go back to hpsa 5.5.0.50. Why: 5.5.0.60 was not out yet.",
    "bundle, maintenance mode, SSH": "put on the local datastore, the host into maintenance mode, SSH on; the bundle was copied to /var/log/vmware",
    "the install and its result": "Reboot Required: true\nVIBs Installed: Hewlett-Packard_bootbank_scsi-hpsa_5.5.0.50-1OEM.550.0.0.1198611",
    "the reboot and the check": "# reboot -f\n# cat /proc/scsi/hpsa/2\nHP HPSA Driver (v 5.5.0.50-1OEM)",
    "later stayed on .50": "Decision: Stay on hpsa 5.5.0.50 when 5.5.0.60 came out. Why: to be safe",
    "a reader's month on .60": "several servers with heavy I/O on 5.5.0.60 and no trouble in a month",
    "the release": "ESXi: 5.5, by its VIB's name",
    "the crash's own words": "hpsa_update_scsi_devices@#+0x39c stack: 0x410b0c037060",
}


@pytest.fixture(scope="module")
def incident(real: Fleet) -> str:
    crash = choose_crash(real)
    account = find_account([INCIDENT], crash, len(real.crashes))
    return to_markdown(write_up(real, crash, issues=load_issues(), account=account)).replace("\\", "")


@pytest.mark.parametrize("fact", ACCOUNT)
def test_the_incident_s_write_up_tells_the_whole_story(incident: str, fact: str) -> None:
    assert ACCOUNT[fact] in incident


def test_undated_facts_stand_where_logic_puts_them(incident: str) -> None:
    table = incident.partition("## What happened when")[2].partition("\n## ")[0]
    facts = ["The crash:", "vSphere HA", "A support case", "drawn from the dump", "Support named", "5.5.0.58-1OEM", "Go back", "put on the local",
             "was installed", "was rebooted", "5.5.0.50-1OEM", "Stay on"]  # fmt: skip
    assert [table.index(fact) for fact in facts] == sorted(table.index(fact) for fact in facts)
    places = re.findall(r"^\| (after the crash|before the reboot|after the reboot) \|", table, re.MULTILINE)
    assert places == sorted(places, key=["after the crash", "before the reboot", "after the reboot"].index)


def test_no_table_of_the_incident_has_an_empty_column(incident: str) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", incident, re.MULTILINE):
        rows = [line.strip("|\n ").split(" | ") for line in table.splitlines()[2:]]
        assert all(any(row[i].strip(" –") for row in rows) for i in range(len(rows[0])))


def test_without_an_account_nothing_of_it_is_said(real: Fleet) -> None:
    text = to_markdown(write_up(real, choose_crash(real), account=Account()))
    assert (
        "local" not in text.partition("## What happened when")[0]
        and "Decision" not in text
        and "How many users were hit cannot be said" in text
    )


def test_a_date_of_installation_is_a_day_and_not_its_midnight() -> None:
    whole = hand_made.fleet(hosts=1, crashing=1)
    installed = whole.drivers.iloc[[0]].assign(
        state="installed", evidence="install_date", observed_at=hand_made.START + 3 * hand_made.DAY, version="5.5.0.60"
    )
    drivers = pd.concat([whole.drivers, installed], ignore_index=True).astype(whole.drivers.dtypes)
    fleet = replace(whole, drivers=drivers)
    text = _words(fleet, str(whole.crashes["crash_id"].iloc[0]))
    assert "| 2025-01-04 | hpsa 5.5.0.60 installed" in text and "2025-01-04 00:00" not in text
    page = to_markdown(Document(title="", sections=pages_of(fleet)(fleet.crashes.iloc[0])))
    assert "| 2025\\-01\\-04 |" in page or "| 2025-01-04 |" in page.replace("\\", "")
