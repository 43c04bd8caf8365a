"""A vCenter's session: the certificate before the password, one login, calls that survive its end once, lists by pages.

And the events that it tells: those that mean something to us, from the oldest kept on, each given to its host.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import socket
import ssl
import threading
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from psodlib.collector.login import PasswordSource, Secret, check_source, printable
from psodlib.collector.pool import MAX_POOL
from psodlib.errors import CollectError, InputError, in_words
from psodlib.evidence.artifacts.vcenter import AWAY, OF_CLUSTER, meaning_of

PORT = 443
CONNECT = 15.0  # seconds to connect, and that an answer may take
ANSWER = 120.0
PAGE = 100  # objects a page of properties
MOST_NAME = 255
LOGINS = 2  # of one run: a session that ends in the middle is opened again once
EVENTS = 1_000  # a page; vCenter's own limit
MOST = 500_000
KEPT_DAYS = 30  # vCenter's own default
MOST_SPOILT = 1_000  # that cannot be read
LOST = 3  # times that a collector may be lost
# How far a failover may lie from the event that names the host.
BEFORE, AFTER = timedelta(minutes=10), timedelta(hours=1)
MOST_LOST = 200  # events of lost hosts around one failover that are looked at
Row = dict[str, Any]
_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?")
Found = tuple[Any, dict[str, Any]]  # an object and its properties
T = TypeVar("T")


class CallFailed(Exception):
    """One call failed, and vCenter still answers others; ``silent`` where nothing came at all."""

    def __init__(self, msg: str, silent: bool = False) -> None:
        super().__init__(msg)
        self.msg, self.silent = msg, silent


class Session:
    """One login, and its calls; several threads may ask at once."""

    def __init__(
        self, address: str, user: str, password: PasswordSource, thumbprint: str | None, ca_file: str | Path | None
    ) -> None:
        place = _ADDRESS.fullmatch(address)
        if place is None or not 0 < int(place["port"] or PORT) < 65536:
            raise InputError(f"{printable(address)!r} is no address; expected vcenter.example.com, or with :443")
        check_source(password)
        if thumbprint and ca_file:
            raise InputError("give a thumbprint or a file of authorities, not both")
        self.vim, vmodl, self._connect, self._disconnect = _pyvmomi()
        self.fault, self.lost = vmodl.MethodFault, vmodl.fault.ManagedObjectNotFound
        self.invalid = vmodl.fault.InvalidArgument
        self.query = vmodl.query.PropertyCollector
        self.host, self.port = place["host"].strip("[]"), int(place["port"] or PORT)
        self.context = _trusted(self.host, self.port, thumbprint, ca_file)
        self._user, self._password = user, Secret(password(user))
        self._lock, self._logins = threading.Lock(), 1

    def __enter__(self) -> Session:
        fault = self.vim.fault
        try:
            self.service = self._connect(
                host=self.host, port=self.port, user=self._user, pwd=self._password.reveal(), sslContext=self.context,
                disableSslCertValidation=False, httpConnectionTimeout=ANSWER,
            )  # fmt: skip
        except fault.InvalidLogin:
            raise self.error(f"the user {printable(self._user)} or the password is wrong; it was tried once") from None
        except fault.NoPermission:
            raise self.error(f"the user {printable(self._user)} may not log in") from None
        except Exception as error:  # its words may hold what was sent
            raise self.error(f"the login failed ({type(error).__name__})") from None
        self.service._stub.poolSize = MAX_POOL  # or every call beyond the fifth at once would dial anew
        self.content = self.service.RetrieveContent()
        return self

    def __exit__(self, *_: object) -> None:
        for end in (partial(self._disconnect, self.service), self.service._stub.DropConnections):
            with contextlib.suppress(Exception):
                end()

    def error(self, why: str) -> CollectError:
        """What ends the whole run."""
        return CollectError(self.host, why)

    def call(self, ask: Callable[[], T]) -> T:
        """A call that only reads: where the session has ended it is opened again, once, and the call made again."""
        while True:
            login = self._logins
            try:
                return ask()
            except self.vim.fault.NotAuthenticated:
                self._open_again(login)
            except ssl.SSLCertVerificationError:
                raise self.error("its certificate is another one than at the start; nothing more was sent") from None
            except (OSError, http.client.HTTPException) as error:
                raise self._probed(error) from None

    def _open_again(self, login: int) -> None:
        with self._lock:
            if self._logins != login:  # somebody else has
                return
            if self._logins >= LOGINS:
                raise self.error("the session ended twice; run it again to go on")
            self._logins += 1
            try:
                self.content.sessionManager.Login(self._user, self._password.reveal())
            except Exception as error:
                raise self.error(f"the session ended, and the second login failed ({type(error).__name__})") from None

    def _probed(self, error: Exception) -> Exception:
        # One host that answers nothing costs that host; a vCenter that answers nothing ends the run.
        try:
            self.service.CurrentTime()
        except Exception:
            return self.error(f"it answers no more ({type(error).__name__}); run it again to go on")
        silent = isinstance(error, TimeoutError)
        return CallFailed(f"no answer within {ANSWER:.0f} s" if silent else type(error).__name__, silent)

    def objects(self, kind: Any, properties: tuple[str, ...]) -> list[Found]:
        """Every object of a kind with these properties."""
        # Views and pages end with their session: after another login the list begins anew.
        try:
            try:
                return self.call(lambda: self._listed(kind, properties))
            except self.lost:
                self.call(self.service.CurrentTime)
                return self.call(lambda: self._listed(kind, properties))
        except (CollectError, CallFailed, self.fault):
            raise
        except Exception:  # one value that pyVmomi does not know spoils the page that it comes in
            named = self.call(lambda: self._listed(kind, ("name",)))
            return [(found, self._one_by_one(found, properties)) for found, _ in named]

    def _one_by_one(self, found: Any, properties: tuple[str, ...]) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for names in (properties, *((name,) for name in properties)):
            with contextlib.suppress(self.fault, AttributeError, ValueError, TypeError, KeyError):
                told |= self.call(partial(self._pages, type(found), names, {"obj": found}))[0][1]
            if len(names) > 1 and told:
                break
        return told

    def _listed(self, kind: Any, properties: tuple[str, ...]) -> list[Found]:
        view = self.content.viewManager.CreateContainerView(self.content.rootFolder, [kind], True)
        try:
            step = self.query.TraversalSpec(name="view", path="view", skip=False, type=type(view))
            return self._pages(kind, properties, {"obj": view, "skip": True, "selectSet": [step]})
        finally:
            with contextlib.suppress(Exception):
                view.Destroy()

    def _pages(self, kind: Any, properties: tuple[str, ...], begin: dict[str, Any]) -> list[Found]:
        asked = self.query.FilterSpec(
            objectSet=[self.query.ObjectSpec(**begin)],
            propSet=[self.query.PropertySpec(type=kind, pathSet=list(properties), all=False)],
        )
        collector, found = self.content.propertyCollector, []
        page = collector.RetrievePropertiesEx([asked], self.query.RetrieveOptions(maxObjects=PAGE))
        while page:
            found += [(one.obj, {prop.name: prop.val for prop in one.propSet or ()}) for one in page.objects]
            page = collector.ContinueRetrievePropertiesEx(page.token) if page.token else None
        return found


def _pyvmomi() -> tuple[Any, Any, Any, Any]:
    try:
        from pyVim.connect import Disconnect, SmartConnect
        from pyVmomi import vim, vmodl
    except ImportError:
        raise InputError("pyVmomi is not installed; install psodlib with its extra `vcenter`") from None
    # pyVmomi makes a class when it is first named; a fault that nobody has named yet is a KeyError when it comes.
    fault = vim.fault
    assert all((fault.NoPermission, fault.InvalidLogin, fault.NotAuthenticated, vmodl.fault.ManagedObjectNotFound))
    return vim, vmodl, SmartConnect, Disconnect


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
        seen = thumbprint_of(ssl.get_server_certificate((host, port), timeout=CONNECT))
        raise CollectError(
            host, f"its certificate is not trusted ({error.verify_message}); compare its SHA-256, {seen}, and give it with --thumbprint, or "
            "the authority with --ca-file") from None  # fmt: skip
    except FileNotFoundError:
        raise InputError(f"{ca_file}: no such file of authorities") from None
    except (OSError, ValueError) as error:
        why = f"cannot be reached on port {port} ({printable(in_words(error))})"
        raise CollectError(host, why) from None
    seen = thumbprint_of(pem)
    if re.sub(r"[^0-9A-F]", "", thumbprint.upper()) != seen.replace(":", ""):
        raise CollectError(host, f"it shows the SHA-256 {seen}, not the one that was given; no password was sent")
    pinned = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    pinned.check_hostname = False
    pinned.load_verify_locations(cadata=pem)
    pinned.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return pinned


def thumbprint_of(pem: str) -> str:
    """The SHA-256 of a certificate, as vCenter's own pages print it."""
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def plain(value: Any) -> Any:
    """A word of vCenter as one line that a terminal can bear; a time as text, where it bears its zone."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat() if value.tzinfo else None
    return value if isinstance(value, bool) else printable(str(value), 1000) if value not in (None, "") else None


def name_of(value: Any) -> str | None:
    """A name of the inventory, which comes with %2f, %5c and %25 for what a path cannot hold."""
    words = "" if value is None else str(value).replace("%2f", "/").replace("%5c", "\\").replace("%25", "%")
    return printable(words, MOST_NAME) or None


def words_of(error: Exception) -> str:
    """What went wrong, in vCenter's words where it has some."""
    return printable(str(getattr(error, "msg", None) or type(error).__name__))


class Events:
    """The events of the asked span, and what of them is missing."""

    def __init__(self, session: Session, since: datetime | None, taken: datetime) -> None:
        self.session, self.missing = session, list[str]()
        self.oldest: datetime | None = None
        self._rows: dict[int, Row] = {}
        self._spoilt = 0
        days = KEPT_DAYS
        with contextlib.suppress(Exception):
            days = max(int(session.content.setting.QueryOptions("event.maxAge")[0].value), 1)
        self._begin = since or taken - timedelta(days=days)
        self._begin = self._begin if self._begin.tzinfo else self._begin.replace(tzinfo=UTC)
        try:
            # Host-days are known from the oldest event that is kept, whatever it tells, and no further back.
            first = session.call(self._first)
            if not first:
                self.missing.append("events: none came, so no host-days count from boot times; may the user see them?")
                return
            self.oldest = max(self._begin, min(event.createdTime for event in first))
            types = self._types()
            session.call(lambda: self._read(types))
        except CollectError:
            raise
        except Exception as error:
            # A crash may be among them: no host-days without it.
            self.oldest = None
            self.missing.append(f"events: the rest is lost, so no host-days count from boot times ({words_of(error)})")
        if self._spoilt:
            self.missing.append(f"events: {self._spoilt} could not be read")

    def _first(self) -> list[Any]:
        with self._collector([]) as collector:
            return list(collector.ReadNextEvents(EVENTS) or ())

    def _types(self) -> list[str]:
        # The ids that mean something to us, of those that this vCenter knows; all events where it does not say.
        with contextlib.suppress(Exception):
            known = self.session.content.eventManager.description.eventInfo
            ids = [(_short(one.key), one.fullFormat.partition("|")[0]) for one in known]
            words = {word if kind in ("EventEx", "ExtendedEvent") else kind for kind, word in ids}
            return sorted(word for word in words if meaning_of(word))
        return []

    @contextlib.contextmanager
    def _collector(self, types: list[str]) -> Iterator[Any]:
        session, spec, create = (
            self.session,
            self.session.vim.event.EventFilterSpec,
            self.session.content.eventManager.CreateCollectorForEvents,
        )
        asked = {"time": spec.ByTime(beginTime=self._begin), "disableFullMessage": False}
        try:
            collector = create(spec(eventTypeId=types, **asked) if types else spec(**asked))
        except session.fault as error:
            if not types or isinstance(error, session.vim.fault.NotAuthenticated):
                raise
            types.clear()  # this vCenter does not take such a filter
            collector = create(spec(**asked))
        try:
            yield collector
        finally:
            with contextlib.suppress(Exception):
                collector.DestroyCollector()

    def _read(self, types: list[str]) -> None:
        # A collector may be lost, and one event spoils its page: both go on from the last event that was read, the second in
        # smaller pages.
        size, lost = EVENTS, 0
        while True:
            try:
                with self._collector(types) as collector:
                    while len(self._rows) < MOST:
                        try:
                            page = collector.ReadNextEvents(size)
                        except (OSError, http.client.HTTPException, self.session.fault):
                            raise
                        except Exception:
                            if size > 1:
                                size //= 10
                                break
                            self._spoilt, size = self._spoilt + 1, EVENTS
                            if self._spoilt > MOST_SPOILT:
                                raise
                            continue
                        if not page:
                            return
                        self._rows |= {event.key: _row(event) for event in page}
                        self._begin = max(self._begin, *(event.createdTime for event in page))
                    else:
                        raise CallFailed(f"more than {MOST:,}; give a later since")
            except self.session.lost:
                lost += 1
                if lost > LOST:
                    raise

    def by_host(
        self, clusters: Mapping[str, str | None], names: Mapping[str, str]
    ) -> tuple[dict[str, list[Row]], set[str]]:
        """Each host's events, by its id, and the names of hosts that are gone; of each host its cluster's id, of each name its host's.

        A failover's events name the cluster and the hosts that took the machines over. They are given to the host of that cluster
        which vSphere HA, or else vCenter, had lost just then; to several, if several were lost.
        """
        told: dict[str, list[Row]] = {}
        gone: set[str] = set()
        for row in self._rows.values():
            known = row["id"] if row["id"] in clusters else names.get(row["host"] or "")
            if known is None and row["host"]:
                gone.add(row["host"])
            elif known is not None and meaning_of(row["kind"]) not in OF_CLUSTER:
                told.setdefault(known, []).append(row)
        away: dict[str | None, list[tuple[str, str]]] = defaultdict(list)  # cluster -> (time, host), in order
        for host, rows in told.items():
            away[clusters[host]] += [(row["time"], host) for row in rows if meaning_of(row["kind"]) in AWAY]
        for lost in away.values():
            lost.sort()
        for row in self._rows.values():
            if meaning_of(row["kind"]) in OF_CLUSTER:
                time, lost = datetime.fromisoformat(row["time"]), away[row["cluster"] or clusters.get(row["id"])]
                first, last = ((time - AFTER).isoformat(), ""), ((time + BEFORE).isoformat(), "~")
                hosts = {host for _, host in lost[bisect_left(lost, first) : bisect_right(lost, last)][:MOST_LOST]}
                for host in hosts:
                    told[host].append({**row, "among": len(hosts)})
        return told, gone


def _row(event: Any) -> Row:
    # Whom it is about, when, what kind, and its words. HA names a failed host elsewhere.
    host = getattr(event, "failedHost", None) or getattr(event, "sourceHost", None) or event.host
    cluster = event.computeResource
    return {
        "id": host.host._moId if host is not None else None, "host": name_of(host.name) if host is not None else None,
        "cluster": cluster.computeResource._moId if cluster is not None else None, "time": plain(event.createdTime),
        "kind": plain(getattr(event, "eventTypeId", None) or _short(type(event))),
        "vm": name_of(event.vm.name) if event.vm is not None else None, "words": plain(event.fullFormattedMessage),
    }  # fmt: skip


def _short(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]
