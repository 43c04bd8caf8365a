"""vCenter -> the same evidence folder, without SSH: inventory, packages, devices, events and logs of every host, read-only.

What each call means and where it fails is told in the contract's page on vCenter.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from psodlib.collector.folder import Folder, Manifest, Record
from psodlib.collector.login import PasswordSource
from psodlib.collector.plan import folder_name
from psodlib.collector.pool import Collection, Ledger, Progress, check_pool
from psodlib.collector.session import CallFailed, Events, Found, Session, name_of, plain, words_of
from psodlib.errors import CollectError

LINES = 500  # of a log a call; what vCenter gives
MOST_LOG = 64 << 20  # bytes of one log
MOST_BUNDLE = 8 << 30
DOWNLOAD = 120.0  # seconds without a byte
BUNDLE = timedelta(hours=2)  # that a host may take to make one
KEPT = timedelta(days=1)  # a bundle younger than this is not made again
POLL = 1.0  # seconds between two looks at a task
LOGS = {"vmkernel": "var/log/vmkernel.log", "hostd": "var/log/hostd.log"}
PROPERTIES = (
    "name", "parent", "vm", "summary.config.product", "summary.hardware", "runtime.connectionState", "runtime.inMaintenanceMode",
    "runtime.bootTime", "hardware.biosInfo", "config.network.pnic", "config.storageDevice.hostBusAdapter",
    "configManager.imageConfigManager", "configManager.kernelModuleSystem",
)  # fmt: skip
PLAN = (
    ("inventory, devices", "model, build, boot time, adapters and their drivers", "none: vCenter knows it"),
    ("fetchSoftwarePackages", "what is installed", "1-3 s of one core"),
    ("QueryModules", "what is loaded", "1 s of one core"),
    ("events", "boots, crashes, failovers, maintenance, patches", "none: vCenter's database"),
    ("BrowseDiagnosticLog", "the current vmkernel and hostd logs; the next run fetches what is new", "a file read"),
    ("GenerateLogBundles_Task (--bundles)", "all logs, and those of core dumps",
     "minutes of one core and 50 to 500 MB a host; one host at a time in a cluster; the size is shown before it is fetched"),
)  # fmt: skip
HOST_COLUMNS = [
    "host", "cluster", "datacenter", "vendor", "model", "esxi_version", "esxi_build", "vms", "connection", "maintenance",
]  # fmt: skip


def collect_vcenter(
    address: str, out: str | Path, *, user: str, password: PasswordSource, thumbprint: str | None = None,
    ca_file: str | Path | None = None, since: datetime | None = None, logs: bool = True, bundles: bool = False,
    version_only: bool = False, pool: int = 8, progress: Progress | None = None,
) -> Collection:  # fmt: skip
    """Fetch what a vCenter knows of its hosts: no SSH, nothing is written there.

    Parameters
    ----------
    address : str
        ``vcenter.example.com`` or ``vcenter.example.com:8443``.
    out : str or Path
        The evidence folder; made if need be. Files are readable by their owner only. A second run adds to it.
    user, password : str, callable
        Account with read-only rights, and Global.Diagnostics for logs, Host.Config.Image for packages,
        Host.Config.Settings for loaded modules; what is missing is said and left out. The password comes from
        ``ask_password()``, ``password_from_keyring()`` or ``password_from_command([...])``.
    thumbprint, ca_file : str, str or Path, optional
        SHA-256 of the expected certificate, for one that no authority signed; authorities instead of the system's.
    since : datetime, optional
        Events from here on; by default as far back as vCenter keeps them.
    logs, bundles, version_only : bool
        False leaves out the current vmkernel and hostd logs; True asks for a support bundle of each host, one host at
        a time in a cluster; True fetches only what tells versions, no events and no logs.
    pool : int
        Hosts that are asked about at a time, 1 to 32.
    progress : callable, optional
        Called with (what, hosts done, hosts).

    Returns
    -------
    Collection
        One row a host; the details are in each host's ``manifest.json``.

    Raises
    ------
    InputError
        Wrong use, found before anything is asked; pyVmomi is not installed.
    CollectError
        vCenter cannot be reached, its certificate does not hold, or the password is wrong (tried once).
    Interrupted
        After Ctrl-C, when the manifests are written.
    """
    check_pool(pool)
    with Session(address, user, password, thumbprint, ca_file) as session:
        logs, bundles, events = (asked and not version_only for asked in (logs, bundles, True))
        run = _Run(out=Path(out), progress=progress, session=session, events=events, logs=logs, bundles=bundles)
        with run.alone():
            run.visit_all(since, pool)
        return run.so_far()


def vcenter_hosts(address: str, *, thumbprint: str | None = None, ca_file: Any = None, **login: Any) -> pd.DataFrame:
    """The hosts of a vCenter as an inventory for SSH: host, cluster, model, version, build, connection."""
    with Session(address, thumbprint=thumbprint, ca_file=ca_file, **login) as session:
        rows = [_about(found) for found in _hosts(session)]
    return pd.DataFrame(rows, columns=HOST_COLUMNS).sort_values("host", ignore_index=True)


def vcenter_plan() -> pd.DataFrame:
    """What a collection would ask, and what it costs."""
    return pd.DataFrame(PLAN, columns=["what", "why", "cost"], dtype="string")


# ---- the inventory -----------------------------------------------------------------------------------------------------


def _hosts(session: Session) -> list[Found]:
    # Every host with its properties, and the names of its cluster and datacenter.
    vim = session.vim
    names = {found._moId: (told.get("name"), told.get("parent")) for kind in (vim.ComputeResource, vim.Folder, vim.Datacenter)
             for found, told in session.objects(kind, ("name", "parent"))}  # fmt: skip
    hosts = session.objects(vim.HostSystem, PROPERTIES)
    for _, told in hosts:
        place, steps = told.get("parent"), 0
        if isinstance(place, vim.ClusterComputeResource):
            told["cluster"] = names.get(place._moId, (None,))[0]
        while place is not None and not isinstance(place, vim.Datacenter) and steps < 50:
            place, steps = names.get(place._moId, (None, None))[1], steps + 1
        told["datacenter"] = names.get(place._moId, (None,))[0] if place is not None else None
    return hosts


def _about(found: Found) -> dict[str, Any]:
    # What the inventory says of a host, as plain values.
    host, told = found
    product, hardware = told.get("summary.config.product"), told.get("summary.hardware")
    bios = told.get("hardware.biosInfo")
    return {
        "host": name_of(told.get("name")) or host._moId, "cluster": name_of(told.get("cluster")), "datacenter": name_of(told.get("datacenter")),
        "vendor": plain(getattr(hardware, "vendor", None)), "model": plain(getattr(hardware, "model", None)),
        "esxi_version": plain(getattr(product, "version", None)), "esxi_build": plain(getattr(product, "build", None)),
        "bios": plain(getattr(bios, "biosVersion", None)), "bios_date": plain(getattr(bios, "releaseDate", None)),
        "vms": len(told.get("vm") or ()), "connection": plain(told.get("runtime.connectionState")),
        "maintenance": bool(told.get("runtime.inMaintenanceMode")), "boot_time": plain(told.get("runtime.bootTime")),
    }  # fmt: skip


# ---- one run -----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Run(Ledger):
    session: Session
    events: bool
    logs: bool
    bundles: bool
    taken: datetime = field(default_factory=lambda: datetime.now(UTC))

    def visit_all(self, since: datetime | None, pool: int) -> None:
        found = _hosts(self.session)
        hosts = list(self._with_folders(found))
        oldest, events = None, dict[str, list[dict[str, Any]]]()
        if self.events:
            read = Events(self.session, since, self.taken)
            clusters = {host._moId: getattr(told.get("parent"), "_moId", None) for host, told in found}
            events, gone = read.by_host(clusters, {host.name: host.id for host in hosts})
            oldest, self.missing = read.oldest, read.missing
            if gone:
                self.missing.append(f"events of {len(gone)} hosts that are no longer in the inventory were left out")
        told_of = [host.snapshot(oldest, events.get(host.id, [])) for host in hosts]
        self.at_once([partial(host.visit, steps) for host, steps in zip(hosts, told_of, strict=True)], pool)
        if self.bundles:
            by_cluster: dict[str, list[_Host]] = defaultdict(list)
            for host in hosts:
                by_cluster[host.about["cluster"] or host.id].append(host)

            def one_by_one(members: list[_Host]) -> None:
                for host in members:
                    host.visit([("bundle", host.bundle)])

            self.at_once([partial(one_by_one, members) for members in by_cluster.values()], pool)

    def _with_folders(self, found: Sequence[Found]) -> Iterator[_Host]:
        seen = set[str]()
        for one in found:
            about = _about(one)
            name, folder, why = about["host"], folder_name(about["host"]).lower(), ""
            try:
                if folder.strip(".") and folder not in seen:
                    yield _Host(self, one, about)
                else:
                    name, why = f"{name} ({one[0]._moId})", "its name gives no folder of its own"
            except OSError as error:
                why = f"its folder cannot be made ({error.strerror})"
            if why:
                self.failed(name, why)
            seen.add(folder)
            self.names.append(name)


# ---- one host ----------------------------------------------------------------------------------------------------------

Step = tuple[str, Callable[[], None]]


class _Host:
    """One host's part of a run: what is asked, and where it is written."""

    def __init__(self, run: _Run, found: Found, about: dict[str, Any]) -> None:
        self.run, self.session, self.about = run, run.session, about
        self.host, self.told = found
        self.id, self.name = str(self.host._moId), str(about["host"])
        self.lacking: list[str] = []
        if about["connection"] not in ("connected", None):
            self.lacking.append(f"{about['connection']}: only what vCenter itself keeps of it")
        self.asks = not self.lacking
        self.folder = Folder(run.out, self.name)
        self.manifest = self.folder.manifest() or Manifest(self.name)
        self.manifest.bytes = 0

    def visit(self, steps: Sequence[Step]) -> None:
        """Take these steps; whatever happens, the manifest says how far they came."""
        if self.run.stopped:
            return
        manifest = self.manifest
        manifest.host, manifest.address, manifest.port = self.name, self.session.host, self.session.port
        manifest.transfer, manifest.started, manifest.state = "vcenter", self.run.taken.isoformat(), "partial"
        with self.run.booked(self.folder, manifest, self.lacking):
            for what, step in steps:
                self._take(what, step)
            manifest.state = "partial" if self.lacking else "complete"

    def _take(self, what: str, step: Callable[[], None]) -> None:
        # A right that is missing costs its part; a host that answers nothing is asked nothing more. Both are told.
        if not self.asks and what not in ("host", "devices", "events"):
            return
        try:
            step()
        except self.session.vim.fault.NoPermission as error:
            self.lacking.append(f"{what}: the right {error.privilegeId} is missing")
        except CallFailed as error:
            self.asks = not error.silent
            self.lacking.append(f"{what}: {error.msg}{'; it was asked no more' if error.silent else ''}")
        except CollectError as error:
            self.run.stop(str(error).removeprefix(f"{self.session.host}: "))
            raise CollectError(self.name, self.run.stopped) from None
        except OSError:
            raise
        except Exception as error:
            self.lacking.append(f"{what}: {words_of(error)}")

    def snapshot(self, oldest: datetime | None, events: list[dict[str, Any]]) -> list[Step]:
        """What vCenter and the host tell of now, the events of it, and the logs."""
        # A host that was added later tells nothing of the days before.
        added = [datetime.fromisoformat(row["time"]) for row in events if row["kind"] == "HostAddedEvent"]
        since = plain(max([oldest, *added])) if oldest else None
        head, rows = self._before("events")
        if since and str(head.get("taken", "")) >= since >= str(head.get("events_since")):
            # vCenter forgets what we keep: the events of the last run go on in these.
            since, known = head["events_since"], {_same(row) for row in events}
            events = [*(row for row in rows if _same(row) not in known), *events]
        told = None if since is None else events  # what was read in part takes no whole one's place
        image, loads = (self.told.get(f"configManager.{name}") for name in ("imageConfigManager", "kernelModuleSystem"))
        names = ("config.network.pnic", "config.storageDevice.hostBusAdapter")
        cards = [card for name in names for card in self.told.get(name) or ()]
        parts: dict[str, Callable[[], list[dict[str, Any]] | None]] = {
            "host": lambda: [self.about],
            "packages": lambda: image and _rows_of(self.session.call(image.FetchSoftwarePackages), _PACKAGE),
            "modules": lambda: loads and _rows_of(self.session.call(loads.QueryModules), _MODULE),
            "devices": lambda: _rows_of(cards, _DEVICE),
            "events": lambda: told,
        }
        told_of = [(what, partial(self._written, what, ask, since)) for what, ask in parts.items()]
        logs = LOGS.items() if self.run.logs else ()
        return [*told_of, *((f"log {key}", partial(self._log, key, local)) for key, local in logs)]

    def _before(self, what: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        # Head and rows as the last run left them.
        try:
            with self.folder.open(f"vcenter/{what}.json", "rb") as file:
                head, *rows = map(json.loads, file.read(MOST_LOG).splitlines())
            return (head, rows) if all(isinstance(row, dict) for row in (head, *rows)) else ({}, [])
        except (OSError, ValueError, RecursionError):
            return {}, []

    def _written(self, what: str, ask: Callable[[], list[dict[str, Any]] | None], since: str | None) -> None:
        rows = ask()
        if rows is None:
            return
        head = {"psod_vcenter": what, "host": self.name, "taken": self.run.taken.isoformat(), "events_since": since}
        local, folder = f"vcenter/{what}.json", self.folder
        lines = [json.dumps({name: told for name, told in row.items() if told is not None}) for row in (head, *rows)]
        data = "".join(f"{line}\n" for line in lines).encode("ascii")
        old, before = self._before(what)
        # What says no more than this is not kept as earlier: the same of the same boot, or events that this goes on from.
        boot = self.about["boot_time"]
        same = before == [json.loads(line) for line in lines[1:]] and boot and str(old.get("taken", "")) >= boot
        if old and (same or (what == "events" and old.get("events_since") == since)):
            (folder.path / local).unlink(missing_ok=True)
        folder.keep(self.manifest.put(Record(f"/{local}", local)), self.manifest, data)

    def _log(self, key: str, local: str) -> None:
        # By as many lines as came, until nothing comes: what an answer says of its end is not believed. It goes on behind the lines
        # that we have, if the last of them still stands in its place.
        manager, folder = self.session.content.diagnosticManager, self.folder
        if key not in {one.key for one in self.session.call(lambda: manager.QueryDescriptions(self.host))}:
            return

        def browse(line: int) -> list[str]:
            try:
                told = self.session.call(lambda: manager.BrowseDiagnosticLog(self.host, key, line, LINES))
            except self.session.invalid:  # behind the end
                if line == 1:
                    raise
                return []
            return list(told.lineText or ())

        have, last = 0, ""  # how many lines we have of it, and the last of them
        if folder.size(local):
            with folder.open(local, "rb") as file:
                data = file.read(2 * MOST_LOG)
            have, last = data.count(b"\n"), data[:-1].rpartition(b"\n")[2].decode("utf-8", "replace")
        page = browse(have) if have else []
        goes_on = page[:1] == [last]
        line, page = (have + 1, page[1:]) if goes_on else (1, browse(1))
        if not page and not goes_on:
            return
        if goes_on:
            folder.copy(local, f"{local}.part")
        why = "it was cut off"
        with folder.open(f"{local}.part", "ab" if goes_on else "wb") as file:
            size = file.tell()
            try:
                while page and size < MOST_LOG:
                    data = "".join(f"{one}\n" for one in page).encode("utf-8", "backslashreplace")
                    file.write(data)
                    line, size = line + len(page), size + len(data)
                    self.manifest.bytes += len(data)
                    page = browse(line)
                why = f"cut after {size:,} bytes, the most that is taken of a log" if page else ""
            finally:
                file.flush()
                if size:
                    record = self.manifest.put(Record(f"/{local}", local))
                    folder.finish(record, self.manifest)
                    record.state, record.detail = ("partial" if why else "whole"), why
        if why:
            self.lacking.append(f"log {key}: {why}")

    def bundle(self) -> None:
        """Have the host make a support bundle, and fetch it."""
        young = (self.run.taken - KEPT).timestamp()
        if any((r.local or "").startswith("bundle-") and (r.mtime or 0) > young for r in self.manifest.files):
            return
        self.run.doing = f"{self.name}: its bundle is being made"
        manager = self.session.content.diagnosticManager
        task = self.session.call(lambda: manager.GenerateLogBundles_Task(False, [self.host]))
        ends = time.monotonic() + BUNDLE.total_seconds()
        while (info := self.session.call(lambda: task.info)).state not in ("success", "error"):
            if self.run.stopped:
                raise self.session.error(self.run.stopped)
            if time.monotonic() > ends:
                raise CallFailed(f"not made within {BUNDLE}")
            time.sleep(POLL)
        if info.state == "error":
            raise CallFailed(f"not made ({words_of(info.error)})")
        for number, one in enumerate(info.result or ()):
            path = re.sub(r"^https?://[^/]*", "", str(one.url))
            self.session.call(partial(self._download, path, f"bundle-{self.run.taken:%Y%m%dT%H%M%S}-{number}.tgz"))

    def _download(self, path: str, local: str) -> None:
        at = self.session
        link = http.client.HTTPSConnection(at.host, at.port, timeout=DOWNLOAD, context=at.context)
        with contextlib.closing(link):
            link.request("GET", path, headers={"Cookie": str(at.service._stub.cookie).split(";")[0]})
            answer = link.getresponse()
            if answer.status != 200:
                raise CallFailed(f"the download answered {answer.status}")
            size, free = answer.length or 0, shutil.disk_usage(self.run.out).free
            self.run.doing = f"{self.name}: bundle of {size / 1e6:,.0f} MB"
            if size > MOST_BUNDLE or size > free // 2:
                raise CallFailed(f"{size:,} bytes, and {free:,} are free here; not fetched")
            taken = 0
            with self.folder.open(f"{local}.part", "wb") as file:
                while (data := answer.read(1 << 20)) and taken < MOST_BUNDLE and not self.run.stopped:
                    file.write(data)
                    taken += len(data)
            if taken < size:
                raise CallFailed(f"{taken:,} of {size:,} bytes came")
            record = self.manifest.put(Record(f"/{local}", local, mtime=int(self.run.taken.timestamp())))
            self.folder.finish(record, self.manifest)
            self.manifest.bytes += taken


# Our names of what is told of a package, a module, a device -> vCenter's.
_PACKAGE = {"name": "name", "version": "version", "vendor": "vendor", "built": "creationDate"}
_MODULE = {"name": "name", "version": "version", "loaded": "loaded"}
_DEVICE = {
    "device": "device", "driver": "driver", "pci": "pci", "version": "driverVersion", "firmware": "firmwareVersion",
}  # fmt: skip


def _same(row: dict[str, Any]) -> str:
    return json.dumps([row.get(name) for name in ("time", "kind", "host", "vm", "words")])


def _rows_of(things: Iterable[Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{ours: plain(getattr(one, theirs, None)) for ours, theirs in names.items()} for one in things or ()]
