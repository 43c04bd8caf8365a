"""Hosts -> evidence folder, by SSH and read-only. The only network of the house.

Each file has one purpose: ``plan`` (what is fetched, what for, and what it costs the host: one table), ``hosts`` (names, a file or
an inventory -> the hosts to visit), ``credentials`` (the one way to log in, and secrets), ``login`` (host keys, the gate, one attempt a
host), ``remote`` (listing, reading and running, over SFTP or the shell), ``folder`` (local names, files and the manifest), ``fetch``
(one file, resumed), ``dumps`` (logs of core dumps), ``visit`` (one host from connect to close), ``pool`` (many hosts
at once: ``collect``), ``session`` (a vCenter's certificate, login and calls), ``events`` (what it says happened), ``vcenter`` (the
hosts from there, without SSH: ``collect_vcenter``), ``pin`` (which hosts run the pinned driver now: ``verify``).
"""

from __future__ import annotations

from psodlib.collector.credentials import ask_password, password_from_command, password_from_keyring
from psodlib.collector.folder import ascertainment
from psodlib.collector.hosts import Target, read_hosts
from psodlib.collector.pin import verify, verify_vcenter
from psodlib.collector.plan import Limits, plan_table
from psodlib.collector.pool import Collection, Interrupted, collect
from psodlib.collector.vcenter import collect_vcenter, vcenter_hosts, vcenter_plan

__all__ = [
    "Collection", "Interrupted", "Limits", "Target", "ascertainment", "ask_password", "collect", "collect_vcenter",
    "password_from_command", "password_from_keyring", "plan_table", "read_hosts", "vcenter_hosts", "vcenter_plan", "verify",
    "verify_vcenter",
]  # fmt: skip
