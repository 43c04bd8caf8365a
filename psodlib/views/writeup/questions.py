"""What is still open, and what a support case will ask."""

from __future__ import annotations

from psodlib.triage.boots import loaded_versions
from psodlib.views.document import Table
from psodlib.views.words import count, known, literal, moment, share
from psodlib.views.writeup.runbook import found_since, version_to_go_to, vib_in_use
from psodlib.views.writeup.subject import Case, no_culprit, place_of

__all__ = ["open_questions", "others_exposed", "support_table"]


def open_questions(case: Case) -> list[str]:
    """What the evidence does not answer, and what would."""
    crash = case.crash
    blames_no_driver = str(crash["guilt"]) in ("hardware", "deliberate")
    asked = [
        (
            str(crash["guilt"]) == "hardware",
            "Which part failed? The server's own log (IML, SEL), or the vendor with the MCE lines, would tell.",
        ),
        (
            str(crash["guilt"]) == "deliberate",
            "Who asked for this crash, and why? The host's shell log or the change record would tell.",
        ),
        (
            not known(crash["guilty_module"]) and not blames_no_driver,
            "Which module is at fault? A whole dump log, or the module map, would tell.",
        ),
        (
            not known(crash["driver_version"]) and not blames_no_driver,
            "Which driver version was loaded? The boot's log banner, or the VIB list of that day, would tell.",
        ),
        (
            literal(crash["driver_evidence"]) == "conflict",
            "Two observations of the loaded version disagree: which one is right?",
        ),
        (not known(crash["uptime"]), "How long had the host been up? The crash's uptime line is missing."),
        (
            (not known(crash["known_issues"]) or not str(crash["known_issues"]))
            and str(crash["guilt"]) != "deliberate",
            "Does the vendor know this crash? Open a case with the dump.",
        ),
        (
            True,
            (
                "Did anything else change on this host before the crash: firmware, host build, load? The evidence here"
                " speaks of drivers only."
            ),
        ),
        (
            True,
            "When did vSphere HA act, and which machines did it start again? vCenter's events tell; no file of a host does.",
        ),
        (not blames_no_driver, others_exposed(case)),
    ]
    return [question for holds, question in asked if holds and question]


def others_exposed(case: Case) -> str:
    """How many other hosts run what crashed."""
    if case.module is None or case.version is None:
        return "How many other hosts run the same driver? Not known while the version is not."
    boots = loaded_versions(case.fleet.uptimes, case.fleet.drivers, case.module)
    target = version_to_go_to(case)
    if target is None:
        return ""
    newest = boots.sort_values("boot").groupby("host").tail(1)
    same = newest[(newest["version"] == case.crash["driver_version"])]
    if found_since(case, target):
        same = same[same["host"] != case.crash["host"]]
    hosts = len(case.fleet.hosts)
    if same.empty:
        return ""
    return (f"When do the hosts that run {case.module} {case.version} now change? They are {count(len(same), 'host')} of {hosts:,} "
            f"({share(len(same), hosts)}).")  # fmt: skip


def support_table(case: Case) -> Table:
    """What every case form asks, as far as the evidence has it."""
    # Product, build, hardware, driver, dump: what every case form asks, as far as the evidence has it.
    crash, hosts = case.crash, case.fleet.hosts
    row = hosts[(hosts["host"] == crash["host"]).fillna(False)]
    model = " ".join(
        literal(row[name].iloc[0]) for name in ("vendor", "model") if len(row) and known(row[name].iloc[0])
    )
    drivers = case.fleet.drivers
    own = drivers[((drivers["host"] == crash["host"]) & (drivers["module"] == crash["guilty_module"])).fillna(False)]
    firmware = own["firmware"].dropna()
    release = " build ".join(literal(crash[name]) for name in ("esxi_version", "esxi_build") if known(crash[name]))
    rows = [
        ["Product", f"VMware ESXi {release}" if release else "VMware ESXi, release unknown: vmware -vl tells"],
        ["Hardware", model or "unknown: esxcli hardware platform get tells"],
        [
            "Module and version",
            f"{case.module or no_culprit(crash)} {case.version or 'of unknown version' if case.module else ''}".strip(),
        ],
        *(
            [["Its VIB", vib_in_use(case) if _knows_vib(case) else "unknown: esxcli software vib list tells"]]
            if case.module
            else []
        ),
        [
            "Firmware of its device" if case.module else "Firmware",
            literal(firmware.iloc[-1]) if len(firmware) else "unknown: not in the evidence",
        ],
        ["When", moment(crash["time"])],
        ["Message", literal(crash["message"])],
        ["The dump", f"its text is at {place_of(crash['source'], crash['line'])}; keep the vmkernel-zdump on the host"],
    ]
    return Table("For the case form", ["Asked", "Answer"], rows, widths=(24, 76))


def _knows_vib(case: Case) -> bool:
    return not vib_in_use(case).startswith("the ")
