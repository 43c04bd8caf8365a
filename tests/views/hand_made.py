"""A small fleet made by hand, table by table, for the tests of what people see."""

from __future__ import annotations

from typing import Any

import pandas as pd

from psodlib import schema
from psodlib.fleet import Fleet

START = pd.Timestamp("2025-01-01", tz="UTC")
DAY = pd.Timedelta(days=1)


def fleet(
    hosts: int = 12, crashing: int = 8, simulated: bool = True, words: dict[str, str] | None = None, **inventory: Any
) -> Fleet:
    """Hosts that ran hpsa 5.5.0.58 until they crashed (the first ``crashing``) or were rebooted, and 5.5.0.50 since.

    ``words`` replaces text fields (host, message, function, module, version, source, ...), for hostile ones.
    """
    say = {
        "host": "esx", "message": "#PF Exception 14 in world 9607609:vmklinux_9:h IP 0x418018b7e594 addr 0x0", "module": "hpsa",
        "function": "hpsa_update_scsi_devices", "version": "5.5.0.58", "source": "esx/var/core/vmkernel-log.1", "vib": "scsi-hpsa",
        "detail": "gzip ends early", "signature": "hpsa | hpsa_update_scsi_devices | hpsa_scan_start", "world_name": "vmklinux_9:h",
    } | (words or {})  # fmt: skip
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in [*schema.TABLES, *schema.AUXILIARY]}
    for number in range(hosts):
        _host(rows, f"{say['host']}{number:02d}", number, number < crashing, say)
    rows["problems"].append(
        {
            "source": say["source"],
            "host": f"{say['host']}00",
            "line": 7,
            "problem": "truncated",
            "detail": say["detail"],
        }
    )
    tables = {name: schema.build(name, entries) for name, entries in rows.items()}
    for name, values in ({"cluster": "blue", "users": 40, "vms": 6} | inventory).items():
        tables["hosts"][name] = values
    return Fleet(**tables, simulated=simulated)


def _host(rows: dict[str, list[dict[str, Any]]], host: str, number: int, crashes: bool, say: dict[str, str]) -> None:
    change, end = START + (30 + 5 * number) * DAY, START + 400 * DAY
    crash_id = f"c{number:015d}"
    rows["hosts"].append({
        "host": host, "esxi_version": "5.5.0", "esxi_build": "1331820", "vendor": "HP", "model": "ProLiant BL460c Gen8",
        "first_seen": START, "last_seen": end,
    })  # fmt: skip
    back = change + pd.Timedelta(minutes=14)
    for boot, over, version, reason in (
        (START, change, say["version"], "crash" if crashes else "reboot"),
        (back, end, "5.5.0.50", "running"),
    ):
        rows["uptimes"].append({
            "host": host, "boot": boot, "end": over, "uptime": over - boot, "observed": over - boot, "end_reason": reason,
            "crash_id": crash_id if reason == "crash" else None, "evidence": "heartbeat", "source": f"{host}/vmksummary.log",
        })  # fmt: skip
        rows["coverage"].append({"host": host, "boot": boot, "start": boot, "end": over})
        rows["drivers"].append({
            "host": host, "module": "hpsa", "version": version, "vib": say["vib"], "state": "loaded", "observed_at": boot, "boot": boot,
            "evidence": "banner", "source": f"{host}/vmkernel.log", "line": 12,
        })  # fmt: skip
    if not crashes:
        return
    rows["crashes"].append({
        "crash_id": crash_id, "host": host, "time": change, "esxi_version": "5.5.0", "esxi_build": "1331820", "kind": "page_fault",
        "message": say["message"], "exception": 14, "pcpu": 14, "world_id": 9607609, "world_name": say["world_name"],
        "uptime": change - START, "guilty_module": say["module"], "guilty_function": say["function"], "guilt": "symbol_prefix",
        "driver_version": say["version"], "driver_evidence": "banner", "signature": say["signature"], "known_issues": None,
        "deliberate": False, "damage": "", "source": say["source"], "line": 1, "offset": 0, "sha256": "9f" * 32, "copies": 2,
    })  # fmt: skip
    for index, function in enumerate(
        [say["function"], "hpsa_scan_start", "hpsa_kickoff_rescan", "kthread", "vmkWorldFunc"]
    ):
        rows["frames"].append({
            "crash_id": crash_id, "backtrace": 0, "index": index, "function": function, "offset": 0x39C + index,
            "module": say["module"] if index < 3 else "vmkernel", "module_evidence": "symbol_prefix" if index < 3 else "printed",
        })  # fmt: skip


def strangers() -> Fleet:
    """A folder of other people's texts: crashes of many causes on hosts that nobody names, and nothing else."""
    rows = [
        {
            "crash_id": f"c{at}",
            "kind": "page_fault",
            "guilt": "none" if module is None else "on_stack",
            "guilty_module": module,
        }
        for at, module in enumerate(["i40en", "lpfc", None])
    ]
    return Fleet(crashes=schema.build("crashes", rows))
