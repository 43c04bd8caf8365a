"""Hosts -> evidence folder, by SSH and read-only. The only network of the house.

``plan``: names, a file or an inventory -> the hosts to visit; what is fetched, what for, and what it costs the host, in one table.
``login``: secrets, host keys, the gate, one attempt a host. ``remote``: listing, reading and running, over SFTP or the shell. ``folder``:
local names, files and the manifest. ``visit``: what one host gives. ``pool``: many hosts at once (``collect``), and the book of what became
of them. ``session``, ``vcenter``: the hosts from a vCenter, without SSH (``collect_vcenter``). ``pin``: which hosts run the pinned driver
now (``verify``).
"""

from __future__ import annotations

from psodlib.collector.folder import ascertainment
from psodlib.collector.login import ask_password, password_from_command, password_from_keyring
from psodlib.collector.pin import verify, verify_vcenter
from psodlib.collector.plan import Limits, Target, plan_table, read_hosts
from psodlib.collector.pool import Collection, Interrupted, collect
from psodlib.collector.vcenter import collect_vcenter, vcenter_hosts, vcenter_plan

__all__ = [
    "Collection", "Interrupted", "Limits", "Target", "ascertainment", "ask_password", "collect", "collect_vcenter",
    "password_from_command", "password_from_keyring", "plan_table", "read_hosts", "vcenter_hosts", "vcenter_plan", "verify",
    "verify_vcenter",
]  # fmt: skip
