"""Host keys, credentials, and one attempt a host.

A login that is refused is never tried again: ESXi locks an account after a few failures, and a wrong password tried on a
fleet would lock them all.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import paramiko
from paramiko.hostkeys import HostKeyEntry

from psodlib.collector.credentials import Credentials, Secret
from psodlib.collector.hosts import Target
from psodlib.collector.plan import Limits
from psodlib.errors import CollectError, InputError

MAX_REFUSALS = 3
REFUSED_TOO_OFTEN = "stopped after three refused logins in a row; check the password or key on one host, then run again"
RESOLVER_LOOK = 0.1  # seconds between two looks whether a name's resolving was cut off
# Switched off unless a host is listed as legacy: SHA-1 and older everywhere, and ciphers nobody should speak any more.
_OLD = {
    "kex": ["diffie-hellman-group-exchange-sha1", "diffie-hellman-group14-sha1", "diffie-hellman-group1-sha1"],
    "keys": ["ssh-rsa"],
    "pubkeys": ["ssh-rsa"],
    "macs": ["hmac-sha1", "hmac-sha1-96", "hmac-md5", "hmac-md5-96"],
    "ciphers": ["3des-cbc", "aes128-cbc", "aes192-cbc", "aes256-cbc"],
}
# A 5.x server takes no other signature of an RSA user key, and does not say so.
_LEGACY = {"pubkeys": ["rsa-sha2-512", "rsa-sha2-256"]}
_PASSWORD_PROMPT = re.compile(
    r"(?!.*\b(?:new|current|old|retype|re-enter|again|change|one-time|otp)\b).{0,80}password.{0,80}", re.I | re.S
)
_EXPIRED = re.compile(r"\b(?:new|current|old|retype|change|expired)\b", re.I)


# Where nobody set up logging, Python would print paramiko's tracebacks, with a server's words in them.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


def printable(text: object, limit: int = 200) -> str:
    """Text of a server as one line that a terminal can bear: what cannot be printed is escaped."""
    cut = str(text)[:limit]
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in cut)


class Gate:
    """Lets logins through, and shuts after three refusals in a row.

    While refusals and logins under way could together reach three, further logins wait for an answer: a wrong password
    reaches three hosts, not three and a poolful.
    """

    def __init__(self) -> None:
        self._state = threading.Condition()
        self._refused = 0
        self._under_way = 0
        self._proven = False
        self.shut = ""  # why nobody is let through any more

    @contextlib.contextmanager
    def attempt(self, host: str) -> Iterator[None]:
        """Surround one login."""
        with self._state:
            self._state.wait_for(self._open)
            if self.shut:
                raise NotTried(host, f"not tried: {self.shut}")
            self._under_way += 1
        outcome = None
        try:
            yield
            outcome = True
        except _Refused:
            outcome = False
            raise
        finally:
            with self._state:
                self._under_way -= 1
                if outcome is not None:
                    self._proven = outcome or (self._proven and self._refused == 0)
                    self._refused = 0 if outcome else self._refused + 1
                    if self._refused >= MAX_REFUSALS:
                        self.shut = self.shut or REFUSED_TOO_OFTEN
                self._state.notify_all()

    def _open(self) -> bool:
        under_way = 0 if self._proven and not self._refused else self._under_way
        return bool(self.shut) or self._refused + under_way < MAX_REFUSALS

    def close(self, why: str) -> None:
        """Let nobody through any more."""
        with self._state:
            self.shut = self.shut or why
            self._state.notify_all()


class NotTried(CollectError):
    """The run stopped before this host's login."""


class _Refused(CollectError):
    # The server looked at the credential and said no.
    pass


# --- host keys --------------------------------------------------------------------------------------------------------


def _add(keys: paramiko.HostKeys, line: str, number: int) -> None:
    with contextlib.suppress(paramiko.SSHException):  # a kind of key that this library does not know
        entry = HostKeyEntry.from_line(line, number)
        for name in entry.hostnames or () if entry else ():
            keys.add(name, entry.key.get_name(), entry.key)


class HostKeys:
    """The project's known_hosts: unknown keys are refused unless trusted on first use, changed keys always."""

    def __init__(self, path: str | Path, trust_first_use: bool = False) -> None:
        self.path, self.trust = Path(path), trust_first_use
        self._lock = threading.Lock()
        self._keys = paramiko.HostKeys()
        self.trusted: list[str] = []  # "host fingerprint", for the user to compare
        self._revoked: set[str] = set()  # in base64, of whatever host: what somebody lost is good nowhere
        if self.path.exists():
            try:
                for number, line in enumerate(self.path.read_text("utf-8").splitlines(), start=1):
                    self._learn(line.strip(), number)
            except Exception as error:
                raise InputError(f"{self.path}: not a known_hosts file ({type(error).__name__})") from None

    def _learn(self, line: str, number: int) -> None:
        # A certificate authority's line makes no key known: this library cannot check what it signed.
        words = line.split()
        if words[:1] == ["@revoked"] and len(words) > 3:
            self._revoked.add(words[3])
        elif words and not line.startswith(("#", "@")):
            _add(self._keys, line, number)

    def types(self, name: str) -> list[str]:
        """Key types that are known of a host."""
        with self._lock:
            return list((self._keys.lookup(name) or {}).keys())

    def check(self, target: Target, key: paramiko.PKey) -> str:
        """Compare a server's key with what is known; give its fingerprint."""
        with self._lock:
            if key.get_base64() in self._revoked:
                raise CollectError(target.name, f"host key REVOKED ({key.fingerprint}): {self.path} says so. Nothing was sent; the host "
                                                "needs a new key")  # fmt: skip
            known = self._keys.lookup(target.key_name)
            if known and self._keys.check(target.key_name, key):
                return str(key.fingerprint)
            if known:
                raise CollectError(target.name, f"host key CHANGED, now {key.fingerprint}: a reinstalled host, or somebody in "
                                                f"between. Nothing was sent. If the host was reinstalled, remove {self._lines_of(target.key_name)} of {self.path}")  # fmt: skip
            if not self.trust:
                raise CollectError(target.name, f"host key unknown ({key.fingerprint}); compare it at the host's console, then add it "
                                                f"to {self.path} or run once with trust on first use")  # fmt: skip
            line = f"{target.key_name} {key.get_name()} {key.get_base64()}\n"
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab+") as file:
                    if file.tell() and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
                        line = f"\n{line}"  # or it would spoil the line of another host
                    file.write(line.encode("ascii"))
            except OSError as error:
                raise CollectError(target.name, f"its host key cannot be written to {self.path} ({error.strerror}), so it is not "
                                                "trusted; nothing was sent") from None  # fmt: skip
            self._keys.add(target.key_name, key.get_name(), key)
            self.trusted.append(f"{target.name} {key.fingerprint}")
            return str(key.fingerprint)

    def _lines_of(self, name: str) -> str:
        found = []
        for number, line in enumerate(self.path.read_text("utf-8").splitlines(), start=1):
            _add(alone := paramiko.HostKeys(), line.strip(), number)
            found += [str(number)] if alone.lookup(name) else []
        return f"line{'s' * (len(found) > 1)} {', '.join(found)}"


# --- connecting -------------------------------------------------------------------------------------------------------


@dataclass
class Connection:
    """One host's connection, watched from outside: whoever waits too long is cut off.

    The clock of ``patience`` starts anew with every sign of life; ``ends`` is the end of the whole visit. Both in
    seconds of ``time.monotonic``.
    """

    target: Target
    ends: float
    patience: float
    doing: str = "connecting"
    transport: paramiko.Transport | None = None
    fingerprint: str = ""
    why: str = ""  # set by who cut it off
    last: float = field(default_factory=time.monotonic)
    socks: list[Any] = field(default_factory=list, repr=False)

    def touch(self, doing: str = "") -> None:
        """A sign of life; raises where the connection was cut off meanwhile."""
        self.last = time.monotonic()
        self.doing = doing or self.doing
        self.check()

    def check(self) -> None:
        """Raise where the connection was cut off meanwhile."""
        if self.why:
            raise CollectError(self.target.name, self.why)

    def overdue(self, now: float) -> str:
        """Why it should be cut off; "" while all is well."""
        if now > self.ends:
            return f"the time limit of the visit passed while {self.doing}; what came is kept, the next run goes on"
        if now - self.last > self.patience:
            return f"nothing came for {self.patience:.0f} s while {self.doing}; what came is kept, the next run goes on"
        return ""

    def cut(self, why: str) -> None:
        """End it from another thread; whoever waits on it wakes with an error."""
        self.why = self.why or why
        for sock in self.socks:
            for end in (partial(sock.shutdown, socket.SHUT_RDWR), sock.close):
                with contextlib.suppress(OSError):
                    end()

    def close(self) -> None:
        """The ordinary end."""
        if self.transport is not None:
            self.transport.close()
        for sock in self.socks:
            with contextlib.suppress(OSError):
                sock.close()


@dataclass(frozen=True)
class Access:
    """How a run logs in to its hosts."""

    user: str  # of hosts that name none
    credentials: Credentials = field(repr=False)
    keys: HostKeys
    limits: Limits
    gate: Gate = field(default_factory=Gate)


def connect(link: Connection, access: Access) -> None:
    """Connect, check the host's key, log in once."""
    target, through = link.target, None
    try:
        if target.jump is not None:
            jump = _open(link, target.jump, None, access)
            _log_in(link, jump, target.jump, access)
            place, here = (target.address, target.port), ("127.0.0.1", 0)
            through = jump.open_channel("direct-tcpip", place, here, timeout=access.limits.connect)
        link.transport = _open(link, target, through, access)
        _log_in(link, link.transport, target, access)
    except CollectError:
        raise
    except Exception as error:  # paramiko raises whatever its threads met
        raise CollectError(target.name, link.why or _why_not_connected(error, target)) from None


def _open(link: Connection, target: Target, channel: Any, access: Access) -> paramiko.Transport:
    # A transport whose server has proved a key that we know.
    limit = access.limits.connect
    sock = channel or _dialled(link, target, limit)
    if channel is not None:
        link.socks.append(sock)
    else:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # many small requests: none may wait for another
    link.touch()
    transport = paramiko.Transport(sock, disabled_algorithms=_LEGACY if target.legacy else _OLD)
    transport.banner_timeout = transport.handshake_timeout = limit
    options = transport.get_security_options()
    rsa = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")  # signatures of one kind of key
    known = [name for kind in access.keys.types(target.key_name) for name in (rsa if kind == "ssh-rsa" else (kind,))]
    # Ask for the key that we know, or another one would look like a change.
    wanted = [name for name in known if name in options.key_types]
    options.key_types = (*wanted, *(name for name in options.key_types if name not in wanted))
    transport.start_client(timeout=limit)
    try:
        proved = transport.get_remote_server_key()
    except paramiko.SSHException:  # start_client returns as if all were well when its time is over
        raise TimeoutError from None
    link.fingerprint = access.keys.check(target, proved)
    return transport


def _dialled(link: Connection, target: Target, limit: float) -> socket.socket:
    # As socket.create_connection, but within one limit for all addresses, and whoever cuts the link off ends it at once. A
    # resolver without an answer waits longer than any limit of ours, and nothing wakes it: it is left behind in its thread.
    ends, failed = time.monotonic() + limit, OSError("no address")
    places: Future[list[Any]] = Future()

    def resolve() -> None:
        try:
            places.set_result(socket.getaddrinfo(target.address, target.port, type=socket.SOCK_STREAM))
        except OSError as error:
            places.set_exception(error)
        except UnicodeError:  # a part of the name is empty, or longer than DNS knows
            places.set_exception(socket.gaierror("no such name"))

    threading.Thread(target=resolve, daemon=True).start()
    while not wait([places], timeout=RESOLVER_LOOK).done:
        link.check()
        if time.monotonic() > ends:
            raise socket.gaierror("no answer from the resolver")
    for family, kind, protocol, _, place in places.result():
        sock = socket.socket(family, kind, protocol)
        link.socks.append(sock)
        link.touch()
        try:
            sock.settimeout(max(0.01, ends - time.monotonic()))
            sock.connect(place)
            sock.settimeout(limit)
            return sock
        except OSError as error:
            failed = error
            sock.close()
    raise failed


def _log_in(link: Connection, transport: paramiko.Transport, target: Target, access: Access) -> None:
    user, credentials, limit = target.user or access.user, access.credentials, access.limits.login
    transport.auth_timeout = limit
    link.patience = float("inf")  # waiting for the gate is not the host's fault
    with access.gate.attempt(target.name):
        link.patience = limit
        link.touch("logging in")
        try:
            if credentials.key is not None:
                transport.auth_publickey(user, credentials.key)
            elif credentials.agent:
                with contextlib.closing(paramiko.Agent()) as agent:
                    keys = agent.get_keys()
                    if not keys:
                        raise CollectError(target.name, "the SSH agent holds no key; add one with ssh-add")
                    transport.auth_publickey(user, keys[0])  # one key: each further one would be a further attempt
            else:
                _log_in_by_password(transport, target.name, user, credentials.passwords[user])
        except paramiko.BadAuthenticationType as error:
            offered = printable(", ".join(error.allowed_types))
            words = f"the host does not take this way of logging in; it offers: {offered}"
            raise _Refused(target.name, words) from None
        except paramiko.AuthenticationException as error:
            if "timeout" in str(error).lower():
                words = f"no answer to the login within {limit:.0f} s; try again later"
                raise CollectError(target.name, words) from None
            raise _Refused(target.name, "login refused: wrong user, password or key, or the host is in lockdown mode (take it out of "
                                        "lockdown or add the user to its exception users), or the account is locked (wait 15 "
                                        "minutes); not tried again")  from None  # fmt: skip


def _log_in_by_password(transport: paramiko.Transport, host: str, user: str, secret: Secret) -> None:
    # ESXi offers keyboard-interactive only; asking for "none" costs no attempt and tells what is offered.
    try:
        transport.auth_none(user)
        return
    except paramiko.BadAuthenticationType as error:
        offered: Sequence[str] = error.allowed_types
    if "keyboard-interactive" not in offered:
        transport.auth_password(user, secret.reveal(), fallback=False)
        return
    given, refused = False, ""

    def answer(title: str, instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
        # The password's prompt once, and nothing else ever.
        nonlocal given, refused
        if not prompts:
            return []
        text, echo = prompts[0]
        if len(prompts) == 1 and not echo and not given and _PASSWORD_PROMPT.fullmatch(text.strip()):
            given = True
            return [secret.reveal()]
        refused = f"the host asks for more than a password ({printable(text, 60)!r}); use a key for it"
        if given and len(prompts) == 1:
            refused = "login refused: the password was not taken; not tried again (or the host is in lockdown mode)"
        asked = " ".join((title, instructions, *(prompt for prompt, _ in prompts)))
        if _EXPIRED.search(asked[:2000]):
            refused = "the password has expired: the host asks for a new one; log in by hand and change it"
        raise paramiko.SSHException("prompt refused")  # ends the connection, so that nothing is answered

    try:
        transport.auth_interactive(user, answer)
    except Exception:
        if refused:
            raise _Refused(host, refused) from None
        raise


def _why_not_connected(error: Exception, target: Target) -> str:
    # What happened on the way -> what to do. Only our own words and a server's made printable.
    place = f"{target.address}:{target.port}"
    if isinstance(error, ConnectionRefusedError):
        return f"SSH is off: {place} refuses connections; start the service TSM-SSH (Host > Services > SSH), then run again"
    if isinstance(error, socket.gaierror):
        return f"the name {target.address} does not resolve; correct it or give an address"
    if isinstance(error, (TimeoutError, socket.timeout)):
        return f"no answer from {place}; is the host up, is it an SSH server, does a firewall let SSH through?"
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        return "no common algorithms: the host only speaks SHA-1 SSH (ESXi 5.x); list it as legacy if you accept that"
    if isinstance(error, paramiko.ssh_exception.ChannelException):
        return f"the jump host does not pass on to {place}; check AllowTcpForwarding there"
    if isinstance(error, (EOFError, ConnectionError)) or "banner" in str(error).lower():
        return f"{place} closed the connection before the login ({printable(error) or type(error).__name__}); is it an SSH server?"
    return f"{type(error).__name__}: {printable(error)}"
