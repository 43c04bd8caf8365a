"""vCenter -> the same evidence folder, without SSH: inventory, packages, devices, events and logs of every host, read-only.

What each call means and where it fails is told in the contract's page on vCenter. One session, opened again once where it
ended in the middle, and closed at the end; one login with a password, none before the certificate holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from psodlib.collector.credentials import PasswordSource, Secret
from psodlib.collector.folder import Folder, Manifest, Record
from psodlib.collector.hosts import folder_name
from psodlib.collector.login import printable
from psodlib.collector.pool import Collection
from psodlib.errors import CollectError, InputError

__all__ = ["collect_vcenter", "vcenter_hosts"]

PORT = 443
CONNECT = 15.0  # seconds to connect, and that an answer may take
ANSWER = 120.0
PAGE = 100  # objects a page of properties
EVENTS = 1_000  # a page of events; vCenter's own limit
MOST_EVENTS = 2_000_000
LINES = 500  # of a log a call; what vCenter gives
MOST_LOG = 64 << 20  # bytes of one log
MOST_BUNDLE = 8 << 30
KEPT_DAYS = 30  # vCenter's own default for events
MOST_NAME = 255
LOGS = {"vmkernel": "var/log/vmkernel.log", "hostd": "var/log/hostd.log"}
_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?")
PROPERTIES = (
    "name", "parent", "vm", "summary.config.product", "summary.hardware", "runtime.connectionState", "runtime.inMaintenanceMode",
    "runtime.bootTime", "hardware.biosInfo", "config.network.pnic", "config.storageDevice.hostBusAdapter",
    "configManager.imageConfigManager", "configManager.kernelModuleSystem",
)  # fmt: skip
T = TypeVar("T")
Progress = Callable[[str, int, int | None], None]


def collect_vcenter(
    address: str, out: str | Path, *, user: str, password: PasswordSource, thumbprint: str | None = None,
    ca_file: str | Path | None = None, since: datetime | None = None, logs: bool = True, bundles: bool = False,
    progress: Progress | None = None,
) -> Collection:  # fmt: skip
    """Fetch what a vCenter knows of its hosts: no SSH, nothing is written there.

    Parameters
    ----------
    address : str
        ``vcenter.example.com`` or ``vcenter.example.com:8443``.
    out : str or Path
        The evidence folder; made if need be. Files are readable by their owner only. A second run adds to it.
    user : str
        Account with read-only rights, and Global.Diagnostics for logs, Host.Config.Image for packages, Host.Config.Settings
        for loaded modules; what is missing is said and left out.
    password : callable
        ``ask_password()``, ``password_from_keyring()`` or ``password_from_command([...])``.
    thumbprint : str, optional
        SHA-256 of the certificate that is expected, for one that no authority signed.
    ca_file : str or Path, optional
        Authorities to trust instead of the system's.
    since : datetime, optional
        Events from here on; by default as far back as vCenter keeps them.
    logs : bool
        False leaves out the current vmkernel and hostd logs.
    bundles : bool
        True asks for a support bundle of each host, one at a time.
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
    """
    place = _ADDRESS.fullmatch(address)
    if place is None or not 0 < int(place["port"] or PORT) < 65536:
        raise InputError(
            f"{printable(address)!r} is no address; expected vcenter.example.com or vcenter.example.com:443"
        )
    if not callable(password):
        raise InputError(
            "password must be a way to get it (ask_password(), password_from_command([...])), never the password itself"
        )
    if thumbprint and ca_file:
        raise InputError("give a thumbprint or a file of authorities, not both")
    host, port = place["host"].strip("[]"), int(place["port"] or PORT)
    context = _trusted(host, port, thumbprint, ca_file)
    with _Session(host, port, user, Secret(password(user)), context) as session:
        return _Visit(session, Path(out), since, logs, bundles, progress).run()


def vcenter_hosts(
    address: str,
    *,
    user: str,
    password: PasswordSource,
    thumbprint: str | None = None,
    ca_file: str | Path | None = None,
) -> pd.DataFrame:
    """The hosts of a vCenter as an inventory for SSH: host, cluster, model, version, build, connection."""
    place = _ADDRESS.fullmatch(address)
    if place is None:
        raise InputError(
            f"{printable(address)!r} is no address; expected vcenter.example.com or vcenter.example.com:443"
        )
    host, port = place["host"].strip("[]"), int(place["port"] or PORT)
    context = _trusted(host, port, thumbprint, ca_file)
    with _Session(host, port, user, Secret(password(user)), context) as session:
        rows = [_about(session, found) for found in session.hosts()]
    names = [
        "host",
        "cluster",
        "datacenter",
        "vendor",
        "model",
        "esxi_version",
        "esxi_build",
        "vms",
        "connection",
        "maintenance",
    ]
    return pd.DataFrame([{name: row[name] for name in names} for row in rows], columns=names).sort_values(
        "host", ignore_index=True
    )


# ---- the certificate, the session --------------------------------------------------------------------------------------


def _trusted(host: str, port: int, thumbprint: str | None, ca_file: str | Path | None) -> ssl.SSLContext:
    # A context that holds only for the right certificate. pyVmomi's own thumbprint check does not protect, so ours comes first.
    try:
        if thumbprint is None:
            context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
            with (
                socket.create_connection((host, port), CONNECT) as plain,
                context.wrap_socket(plain, server_hostname=host),
            ):
                return context
        pem = ssl.get_server_certificate((host, port), timeout=CONNECT)
    except ssl.SSLCertVerificationError as error:
        seen = _thumbprint(ssl.get_server_certificate((host, port), timeout=CONNECT))
        raise CollectError(
            host, f"its certificate is not trusted ({error.verify_message}); compare its SHA-256, {seen}, and give it with --thumbprint, or "
            "the authority with --ca-file") from None  # fmt: skip
    except FileNotFoundError:
        raise InputError(f"{ca_file}: no such file of authorities") from None
    except (OSError, ValueError) as error:
        raise CollectError(
            host, f"cannot be reached on port {port} ({type(error).__name__}: {printable(str(error))})"
        ) from None
    seen = _thumbprint(pem)
    if re.sub(r"[^0-9A-F]", "", thumbprint.upper()) != seen.replace(":", ""):
        raise CollectError(
            host, f"its certificate has the SHA-256 {seen}, not the one that was given; no password was sent"
        )
    pinned = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    pinned.check_hostname = False
    pinned.load_verify_locations(cadata=pem)
    pinned.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return pinned


def _thumbprint(pem: str) -> str:
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def _pyvmomi() -> tuple[Any, Any, Any]:
    try:
        from pyVim.connect import Disconnect, SmartConnect
        from pyVmomi import vim
    except ImportError:
        raise InputError("pyVmomi is not installed; install psodlib with its extra `vcenter`") from None
    # pyVmomi makes a class when it is first named; a fault that nobody has named yet is a KeyError when it comes.
    assert all((vim.fault.NoPermission, vim.fault.InvalidLogin, vim.fault.NotAuthenticated))
    return vim, SmartConnect, Disconnect


class _Session:
    """One login, and its calls; a session that ended in the middle is opened again once."""

    def __init__(self, host: str, port: int, user: str, password: Secret, context: ssl.SSLContext) -> None:
        self.vim, self._connect, self._disconnect = _pyvmomi()
        self.host, self.port, self.context = host, port, context
        self._user, self._password, self._again = user, password, True

    def __enter__(self) -> _Session:
        vim = self.vim
        try:
            self.service = self._connect(
                host=self.host, port=self.port, user=self._user, pwd=self._password.reveal(), sslContext=self.context,
                disableSslCertValidation=False, httpConnectionTimeout=ANSWER,
            )  # fmt: skip
        except vim.fault.InvalidLogin:
            raise CollectError(
                self.host, f"the user {printable(self._user)} or the password is wrong; it was tried once"
            ) from None
        except vim.fault.NoPermission:
            raise CollectError(self.host, f"the user {printable(self._user)} may not log in") from None
        except Exception as error:  # its words may hold what was sent
            raise CollectError(self.host, f"the login failed ({type(error).__name__})") from None
        self.content = self.service.RetrieveContent()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self._disconnect(self.service)
        with contextlib.suppress(Exception):
            self.service._stub.DropConnections()

    def call(self, function: Callable[[], T]) -> T:
        """A call; where the session has ended it is opened again, once."""
        try:
            return function()
        except self.vim.fault.NotAuthenticated:
            if not self._again:
                raise CollectError(self.host, "the session ended twice; run it again to go on") from None
            self._again = False
            self.content.sessionManager.Login(self._user, self._password.reveal())
            return function()

    @property
    def cookie(self) -> str:
        """For what is downloaded beside the calls."""
        return str(self.service._stub.cookie).split(";")[0]

    def objects(self, kind: Any, properties: tuple[str, ...]) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Every object of a kind with these properties, page by page."""
        view = self.call(lambda: self.content.viewManager.CreateContainerView(self.content.rootFolder, [kind], True))
        try:
            from pyVmomi import vmodl

            collector = vmodl.query.PropertyCollector
            traversal = collector.TraversalSpec(name="view", path="view", skip=False, type=type(view))
            wanted = collector.FilterSpec(
                objectSet=[collector.ObjectSpec(obj=view, skip=True, selectSet=[traversal])],
                propSet=[collector.PropertySpec(type=kind, pathSet=list(properties), all=False)],
            )
            options = collector.RetrieveOptions(maxObjects=PAGE)
            page = self.call(lambda: self.content.propertyCollector.RetrievePropertiesEx([wanted], options))
            while page:
                for found in page.objects:
                    yield found.obj, {prop.name: prop.val for prop in found.propSet or ()}
                more = partial(self.content.propertyCollector.ContinueRetrievePropertiesEx, page.token)
                page = self.call(more) if page.token else None
        finally:
            with contextlib.suppress(Exception):
                view.Destroy()

    def hosts(self) -> list[tuple[Any, dict[str, Any]]]:
        """Every host with its properties, and the names of its cluster and datacenter."""
        vim = self.vim
        names = {found._moId: (told.get("name"), told.get("parent")) for kind in (vim.ComputeResource, vim.Folder, vim.Datacenter)
                 for found, told in self.objects(kind, ("name", "parent"))}  # fmt: skip
        out = []
        for host, told in self.objects(vim.HostSystem, PROPERTIES):
            parent = told.get("parent")
            cluster = (
                names.get(parent._moId, (None, None))[0] if isinstance(parent, vim.ClusterComputeResource) else None
            )
            place, steps = parent, 0
            while place is not None and not isinstance(place, vim.Datacenter) and steps < 50:
                place, steps = names.get(place._moId, (None, None))[1], steps + 1
            told["cluster"] = cluster
            told["datacenter"] = names.get(place._moId, (None, None))[0] if place is not None else None
            out.append((host, told))
        return out


# ---- what is asked -----------------------------------------------------------------------------------------------------


def _about(session: _Session, found: tuple[Any, dict[str, Any]]) -> dict[str, Any]:
    # What the inventory says of a host, as plain values.
    _, told = found
    product, hardware = told.get("summary.config.product"), told.get("summary.hardware")
    bios = told.get("hardware.biosInfo")
    return {
        "host": _name(told.get("name")), "cluster": _name(told.get("cluster")), "datacenter": _name(told.get("datacenter")),
        "vendor": _plain(getattr(hardware, "vendor", None)), "model": _plain(getattr(hardware, "model", None)),
        "esxi_version": _plain(getattr(product, "version", None)), "esxi_build": _plain(getattr(product, "build", None)),
        "bios": _plain(getattr(bios, "biosVersion", None)), "bios_date": _stamp(getattr(bios, "releaseDate", None)),
        "vms": len(told.get("vm") or ()), "connection": _plain(told.get("runtime.connectionState")),
        "maintenance": bool(told.get("runtime.inMaintenanceMode")), "boot_time": _stamp(told.get("runtime.bootTime")),
    }  # fmt: skip


def _plain(value: Any) -> str | None:
    return None if value is None or value == "" else printable(str(value))[:1000]


def _name(value: Any) -> str | None:
    # Inventory names come with %2f, %5c and %25 for what a path cannot hold.
    if value is None:
        return None
    words = str(value).replace("%2f", "/").replace("%5c", "\\").replace("%25", "%")
    return printable(words)[:MOST_NAME]


def _stamp(value: Any) -> str | None:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) and value.tzinfo else None


class _Visit:
    """One run: hosts one after another, each with its manifest."""

    def __init__(
        self, session: _Session, out: Path, since: datetime | None, logs: bool, bundles: bool, progress: Progress | None
    ) -> None:
        self.session, self.out, self.since, self.logs, self.bundles, self.progress = (
            session,
            out,
            since,
            logs,
            bundles,
            progress,
        )
        self.taken = datetime.now(UTC)

    def run(self) -> Collection:
        """Everything, and one row a host."""
        hosts = self.session.hosts()
        missing: list[str] = []
        oldest, events = self._events(missing)
        rows, seen = [], set()
        for number, found in enumerate(hosts):
            about = _about(self.session, found)
            name = about["host"] or found[0]._moId
            if folder_name(name).strip(".") == "" or folder_name(name).lower() in seen:
                rows.append((name, "failed", 0, 0, 0.0, None, "its name gives no folder of its own"))
                continue
            seen.add(folder_name(name).lower())
            if self.progress:
                self.progress(name, number, len(hosts))
            began = time.monotonic()
            manifest = self._host(found[0], {**about, "host": name}, found[1], oldest, events.pop(name, []))
            size = sum(record.size or 0 for record in manifest.files)
            rows.append(
                (
                    name,
                    manifest.state,
                    sum(r.state == "whole" for r in manifest.files),
                    size,
                    time.monotonic() - began,
                    None,
                    manifest.why,
                )
            )
        columns = ["host", "state", "files", "bytes", "seconds", "clock_offset", "why"]
        gone = f"; events of {len(events)} hosts that are no longer in the inventory were left out" if events else ""
        return Collection(
            self.out, pd.DataFrame(rows, columns=columns), (), "; ".join(missing) + gone if missing or gone else ""
        )

    def _host(
        self, host: Any, about: dict[str, Any], told: dict[str, Any], oldest: str | None, events: list[dict[str, Any]]
    ) -> Manifest:
        folder = Folder(self.out, about["host"])
        manifest = Manifest(
            host=about["host"],
            address=self.session.host,
            port=self.session.port,
            started=self.taken.isoformat(),
            transfer="vcenter",
        )
        lacking: list[str] = []
        parts: list[tuple[str, Callable[[], Any]]] = [
            ("host", lambda: [about]),
            ("packages", lambda: self._packages(told.get("configManager.imageConfigManager"))),
            ("modules", lambda: self._modules(told.get("configManager.kernelModuleSystem"))),
            ("devices", lambda: self._devices(told)),
            ("events", lambda: events),
        ]
        for what, ask in parts:
            rows = self._try(what, ask, lacking)
            if rows is not None:
                self._write(
                    folder,
                    manifest,
                    f"vcenter/{what}.json",
                    _document(what, about["host"], self.taken.isoformat(), oldest, rows),
                )
        if self.logs:
            for key, local in LOGS.items():
                text = self._try(f"log {key}", partial(self._log, host, key), lacking)
                if text:
                    self._write(folder, manifest, local, text)
        if self.bundles:
            self._try("bundle", lambda: self._bundle(host, folder, manifest), lacking)
        manifest.state = "partial" if lacking else "complete"
        manifest.why, manifest.finished = "; ".join(lacking), datetime.now(UTC).isoformat()
        folder.save(manifest)
        return manifest

    def _try(self, what: str, ask: Callable[[], T], lacking: list[str]) -> T | None:
        # A right that is missing or a host that answers nothing costs that part, and is told.
        vim = self.session.vim
        try:
            return self.session.call(ask)
        except vim.fault.NoPermission as error:
            lacking.append(f"{what}: the right {error.privilegeId} is missing")
        except CollectError:
            raise
        except Exception as error:
            lacking.append(f"{what}: {printable(str(getattr(error, 'msg', None) or type(error).__name__))[:200]}")
        return None

    def _write(self, folder: Folder, manifest: Manifest, local: str, data: bytes) -> None:
        record = manifest.put(Record(f"vcenter:{local}", local))
        with folder.open(f"{local}.part", "wb") as file:
            file.write(data)
        folder.finish(record, manifest)
        manifest.bytes += len(data)

    def _packages(self, manager: Any) -> list[dict[str, Any]] | None:
        if manager is None:
            return None
        return [
            {"name": _plain(one.name), "version": _plain(one.version), "vendor": _plain(one.vendor), "built": _stamp(getattr(one, "creationDate", None))}
            for one in manager.FetchSoftwarePackages()
        ]  # fmt: skip

    def _modules(self, system: Any) -> list[dict[str, Any]] | None:
        if system is None:
            return None
        return [
            {"name": _plain(one.name), "version": _plain(one.version), "loaded": bool(one.loaded)} for one in system.QueryModules()
        ]  # fmt: skip

    def _devices(self, told: dict[str, Any]) -> list[dict[str, Any]]:
        cards = [*(told.get("config.network.pnic") or ()), *(told.get("config.storageDevice.hostBusAdapter") or ())]
        return [
            {"device": _plain(card.device), "driver": _plain(card.driver), "pci": _plain(getattr(card, "pci", None)),
             "version": _plain(getattr(card, "driverVersion", None)), "firmware": _plain(getattr(card, "firmwareVersion", None))}
            for card in cards
        ]  # fmt: skip

    def _events(self, missing: list[str]) -> tuple[str | None, dict[str, list[dict[str, Any]]]]:
        # Events of the asked span by host, and the time of the oldest that vCenter keeps: host-days are known no further back.
        vim, content = self.session.vim, self.session.content
        kept = KEPT_DAYS
        with contextlib.suppress(Exception):
            kept = int(content.setting.QueryOptions("event.maxAge")[0].value)
        since = self.since or self.taken - timedelta(days=max(kept, 1))
        begin = since if since.tzinfo else since.replace(tzinfo=UTC)
        wanted = vim.event.EventFilterSpec(
            time=vim.event.EventFilterSpec.ByTime(beginTime=begin), disableFullMessage=False
        )
        by_host: dict[str, list[dict[str, Any]]] = {}
        seen: set[int] = set()
        try:
            history = self.session.call(lambda: content.eventManager.CreateCollectorForEvents(wanted))
        except Exception as error:
            missing.append(f"events: {printable(str(getattr(error, 'msg', None) or type(error).__name__))[:200]}")
            return None, {}
        try:
            while len(seen) < MOST_EVENTS:
                page = self.session.call(lambda: history.ReadNextEvents(EVENTS))
                fresh = [event for event in page if event.key not in seen]
                if not fresh:
                    break
                seen |= {event.key for event in fresh}
                for event in fresh:
                    row = _event(event)
                    if row["host"]:
                        by_host.setdefault(row["host"], []).append(row)
        except CollectError:
            raise
        except Exception as error:  # the collector was lost, or a page could not be read
            missing.append(f"events: the rest is missing ({type(error).__name__})")
        finally:
            with contextlib.suppress(Exception):
                history.DestroyCollector()
        return begin.isoformat(), by_host

    def _log(self, host: Any, key: str) -> bytes:
        # From its first line, by as many lines as came, until nothing comes: what the answer says of its end is not believed.
        manager = self.session.content.diagnosticManager
        known = {one.key for one in manager.QueryDescriptions(host)}
        if key not in known:
            return b""
        parts: list[bytes] = []
        line, size = 1, 0
        while size < MOST_LOG:
            found = manager.BrowseDiagnosticLog(host, key, line, LINES)
            lines = list(found.lineText or ())
            if not lines:
                break
            text = "".join(f"{one}\n" for one in lines).encode("utf-8", "backslashreplace")
            parts.append(text)
            line, size = line + len(lines), size + len(text)
        return b"".join(parts)

    def _bundle(self, host: Any, folder: Folder, manifest: Manifest) -> None:
        task = self.session.content.diagnosticManager.GenerateLogBundles_Task(False, [host])
        while task.info.state not in ("success", "error"):
            time.sleep(1)
        if task.info.state == "error":
            raise OSError(str(task.info.error.msg))
        for number, bundle in enumerate(task.info.result or ()):
            path = re.sub(r"^https?://[^/]*", "", str(bundle.url))
            local = f"bundle-{self.taken:%Y%m%dT%H%M%S}-{number}.tgz"
            self._download(path, folder, manifest, local)

    def _download(self, path: str, folder: Folder, manifest: Manifest, local: str) -> None:
        link = http.client.HTTPSConnection(
            self.session.host, self.session.port, timeout=ANSWER, context=self.session.context
        )
        try:
            link.request("GET", path, headers={"Cookie": self.session.cookie})
            answer = link.getresponse()
            if answer.status != 200:
                raise OSError(f"the download answered {answer.status}")
            record, size = manifest.put(Record(f"vcenter:{path}", local)), 0
            with folder.open(f"{local}.part", "wb") as file:
                while (data := answer.read(1 << 20)) and size < MOST_BUNDLE:
                    file.write(data)
                    size += len(data)
            folder.finish(record, manifest)
            manifest.bytes += size
        finally:
            link.close()


def _event(event: Any) -> dict[str, Any]:
    # Whom it is about, when, what kind, and its words. HA names a failed host elsewhere.
    failed = getattr(event, "failedHost", None) or event.host
    kind = getattr(event, "eventTypeId", None) or type(event).__name__.rpartition(".")[2]
    return {
        "host": _name(failed.name) if failed is not None else None, "time": _stamp(event.createdTime), "kind": _plain(kind),
        "vm": _name(event.vm.name) if event.vm is not None else None, "text": _plain(event.fullFormattedMessage),
    }  # fmt: skip


def _document(what: str, host: str, taken: str, since: str | None, rows: list[dict[str, Any]]) -> bytes:
    head = json.dumps({"psod_vcenter": what, "host": host, "taken": taken, "events_since": since})
    return "\n".join([head, *(json.dumps(row) for row in rows), ""]).encode("ascii")
