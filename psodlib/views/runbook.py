"""What to do: the steps to another driver version, or to the failing part, with each command and its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psodlib.triage.boots import loaded_versions
from psodlib.views.crash import place_of, where
from psodlib.views.document import Steps, Text
from psodlib.views.words import literal

if TYPE_CHECKING:
    from psodlib.views.writeup import Case

# Bundles whose names were seen in a real roll-back; for any other version the runbook leaves the name open.
BUNDLES = {
    ("hpsa", "5.5.0.50"): ("hpsa-5.5.0-offline_bundle-1287942.zip", "Hewlett-Packard_bootbank_scsi-hpsa_5.5.0.50-1OEM.550.0.0.1198611"),
}  # fmt: skip
# What a hardware error asks for; the commands read, and change nothing.
HARDWARE_STEPS = (
    ("Put the host into maintenance mode: it may stop again.", "# esxcli system maintenanceMode set --enable true",
     "the host shows no running virtual machine"),
    ("Read what the log says of the error before the crash.", "# zcat -f /var/log/vmkernel* | grep -i -A2 'MCE\\|machine check\\|corrected'",
     "lines that name a CPU and a bank; none is no proof of health"),
    ("Read the server's own event log (iLO, iDRAC, IMM or CIMC), for memory, CPU and PCI errors of that time.",
     "# esxcli hardware ipmi sel list", "an entry near the time of the crash; not every server answers here"),
    ("Have the vendor change the part that these name, and run the vendor's diagnostics before the host takes machines again.", "", ""),
)  # fmt: skip
SSH_ON = "# vim-cmd hostsvc/enable_ssh && vim-cmd hostsvc/start_ssh"
SSH_OFF = "# vim-cmd hostsvc/stop_ssh && vim-cmd hostsvc/disable_ssh"
# Drivers that report the loaded version in /proc (vmklinux SCSI drivers); the others answer through vmkload_mod.
PROC_DRIVERS = ("hpsa", "megaraid_sas", "mpt2sas")


def runbook_blocks(case: Case) -> list[Text | Steps]:
    """What to do about the crash."""
    guilt, module, version = str(case.crash["guilt"]), case.module, case.version
    target = version_to_go_to(case)
    if guilt == "deliberate":
        test = "Nothing, unless nobody knows of the test: then ask who was on the host's console or shell at that time."
        return [Text(test)]
    if guilt == "hardware":
        return [Text("Change no driver because of this crash. Find the part first:"), Steps(HARDWARE_STEPS)]
    keep = "Keep the dump, and open a support case with it."
    if module is None:
        return [Text(f"Without a guilty module there is no driver to change. {keep}")]
    if target is None and case.go_to:
        favoured = f"{module} {version} is the version that the pin decision of this report favours: nothing to change."
        return [Text(favoured)]
    if target is None:
        over = f"the evidence favours no version of {module} over {version or 'the one that ran'}"
        alone = f"Change no driver because of this crash alone: {over}, and it matches no known issue of that version. {keep}"
        return [Text(alone)]
    issue = f"a known issue names the version that crashed, and {target} is the version to go back to"
    why = "the pin decision of this report favours it" if target == case.go_to else issue
    way = f"From {module} {version or 'of unknown version'} to {target}: {why}. One host first, then the rest in waves."
    steps = steps_to(module, target, version, vib_in_use(case))
    return [Text(f"{way} {found_since(case, target)}".rstrip()), Steps(steps)]


def version_to_go_to(case: Case) -> str | None:
    """The driver version to go to."""
    # The version to go to: what the decision pins; where a known issue names the version that crashed, the one that this host
    # ran before, or the one that the incident went back to. One crash alone moves no host.
    if case.go_to:
        return case.go_to if case.go_to != case.version else None
    if not case.matched or case.version is None:
        return None
    named = {version for issue in case.matched for version in issue.versions} | {case.crash["driver_version"]}
    boots = where(loaded_versions(case.fleet.uptimes, case.fleet.drivers, str(case.module)), host=case.crash["host"])
    earlier = boots[boots["version"].notna() & ~boots["version"].isin(named) & (boots["boot"] < case.crash["time"])]
    if len(earlier):
        return literal(earlier.sort_values("boot")["version"].iloc[-1])
    return next((version for module, version in BUNDLES if module == case.module and version != case.version), None)


def found_since(case: Case, target: str) -> str:
    """Whether the host has gone to a version since."""
    # Read as loaded after the crash, by its time or by its place behind the install in a session.
    own: Any = where(case.drivers, state="loaded", version=target)
    later = (own["observed_at"] > case.crash["time"]).fillna(False) | (own["observed_at"].isna() & own["boot"].isna())
    if not later.any():
        return ""
    first = own[later].iloc[0]
    place = place_of(first["source"], first["line"], case.crash["host"])
    return f"This host has done it: {target} was read as loaded afterwards ({place}). The steps are for the others."


def steps_to(module: str, target: str, version: str | None, removed: str) -> list[tuple[str, str, str]]:
    """What to do on one host, with each command and its answer, so that it runs another version; a dry run comes first."""
    unnamed = (f"OFFLINE-BUNDLE-OF-{module}.zip", f"the {module} VIB of version {target}")
    file, installed = BUNDLES.get((module, target), unnamed)
    check, answer = _version_check(module, target)
    ask = "is not in the evidence: take the one that the vendor gives for this host's release."
    named = "" if (module, target) in BUNDLES else f" The name of the bundle with {module} {target} {ask}"
    path = f"/vmfs/volumes/DATASTORE/{file}"
    return [
        (f"Copy the bundle to a datastore that the host sees.{named}", f"# ls {path}", path),
        ("Put the host into maintenance mode; its virtual machines move away.", "# esxcli system maintenanceMode set --enable true",
         "the host shows no running virtual machine"),
        ("Switch SSH on, at the host's console or in the vSphere client.", SSH_ON, ""),
        ("Write down what is loaded now.", check, f"{version or 'the version that crashed'}"),
        ("Ask what the installation would change, and change nothing.", f"# esxcli software vib install -d {path} --dry-run",
         f"only {installed} among the VIBs Installed; if others are named, ask the vendor first"),
        ("Install.", f"# esxcli software vib install -d {path}", f"Reboot Required: true. VIBs Removed: {removed}"),
        ("Reboot; in maintenance mode nothing runs that it could hurt.", "# reboot", "the host comes back within its usual time"),
        ("Check what is loaded now, not only what is installed.", check, answer),
        ("Switch SSH off again.", SSH_OFF, ""),
        ("Leave maintenance mode.", "# esxcli system maintenanceMode set --enable false", "virtual machines can move back"),
        (f"To take it back: the same steps with the bundle of {version or 'the version before'}; where the host does not boot, Shift+R at its "
         "boot screen starts the image before the installation.", "", ""),
        ("Afterwards: collect this host's logs again, so that the days on the new version are counted.", "", ""),
    ]  # fmt: skip


def vib_in_use(case: Case) -> str:
    """The VIB that brought the version that crashed."""
    named = where(case.drivers, version=case.crash["driver_version"])["vib"].dropna()
    return literal(named.iloc[-1]) if len(named) else f"the {case.module} VIB in use"


def _version_check(module: str, target: str) -> tuple[str, str]:
    if module == "hpsa":
        return "# cat /proc/scsi/hpsa/2", f"HP HPSA Driver (v {target}-1OEM)"
    if module in PROC_DRIVERS:
        return f"# cat /proc/scsi/{module}/*", f"version {target}"
    return f"# esxcli system module get -m {module} | grep -i version", f"Version: {target}"
