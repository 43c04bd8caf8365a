"""Hosts -> evidence folder, by SSH and read-only. The only network of the house.

plan.py      what is fetched, what for, and what it costs the host: one table
hosts.py     names, a file or an inventory -> the hosts to visit
login.py     host keys, credentials, one attempt a host
remote.py    a connection's listing, reading and running, over SFTP or the shell
folder.py    local names, files and the manifest
visit.py     one host from connect to close
pool.py      many hosts at once: ``collect``
pin.py       which hosts run the pinned driver right now: ``verify``
"""

from __future__ import annotations

from psodlib.collector.folder import ascertainment
from psodlib.collector.hosts import Target, read_hosts
from psodlib.collector.login import ask_password, password_from_command, password_from_keyring
from psodlib.collector.pin import verify
from psodlib.collector.plan import plan_table
from psodlib.collector.pool import Collection, collect
from psodlib.collector.visit import Limits

__all__ = [
    "Collection",
    "Limits",
    "Target",
    "ascertainment",
    "ask_password",
    "collect",
    "password_from_command",
    "password_from_keyring",
    "plan_table",
    "read_hosts",
    "verify",
]
