"""How one gets into a host: secrets that show themselves to nobody, host keys, and one attempt a host.

A login that is refused is never tried again: ESXi locks an account after a few failures, and a wrong password tried on
a fleet would lock them all.
"""

from __future__ import annotations

import contextlib
import getpass
import importlib
import logging
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import paramiko
from paramiko.hostkeys import HostKeyEntry

from psodlib.collector.plan import Limits, Target
from psodlib.errors import CollectError, InputError, in_words, visible

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
# What happened on the way -> what to do. Only our own words and a server's made printable.
_WHY_NOT: tuple[tuple[Any, str], ...] = (
    (ConnectionRefusedError,
     "SSH is off: {place} refuses connections; start the service TSM-SSH (Host > Services > SSH), then run again"),
    ((socket.gaierror, UnicodeError), "the name {name} does not resolve; correct it or give an address"),
    (TimeoutError, "no answer from {place}; is the host up, is it an SSH server, does a firewall let SSH through?"),
    (paramiko.ssh_exception.IncompatiblePeer,
     "no common algorithms: the host only speaks SHA-1 SSH (ESXi 5.x); list it as legacy if you accept that"),
    (paramiko.ssh_exception.ChannelException, "the jump host does not pass on to {place}; check its AllowTcpForwarding"),
    ((EOFError, ConnectionError), "{place} closed the connection before the login ({told}); is it an SSH server?"),
    (OSError, "{place} cannot be reached ({told}); is the host up, and on this network?"),
    (Exception, "{place} does not speak SSH as expected ({told}); is it an SSH server?"),
)  # fmt: skip
PasswordSource = Callable[[str], str]  # user -> password
LogIn = Callable[[paramiko.Transport, str, str], object]  # (transport, host, user): one attempt

# Where nobody set up logging, Python would print paramiko's tracebacks, with a server's words in them.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


def printable(text: object, limit: int = 200) -> str:
    """Text of a server as one line that a terminal can bear: what cannot be printed is escaped."""
    return visible(str(text)[:limit])


class Secret:
    """A password that shows itself to nobody: not in a repr, a format, a pickle or a traceback of its holder."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The password; the one place to call it is the login itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not pickled")


def ask_password() -> PasswordSource:
    """Ask for the password at the terminal, once a user."""

    def read(user: str) -> str:
        try:
            return getpass.getpass(f"Password of {user}: ")
        except EOFError:
            raise InputError(f"no password of {user} was typed; without a terminal, take it from a command") from None

    return read


def password_from_keyring(service: str = "psod") -> PasswordSource:
    """Take the password from the system's keyring, by the package ``keyring`` where it is installed."""

    def read(user: str) -> str:
        try:
            found = importlib.import_module("keyring").get_password(service, user)
        except ImportError:
            raise InputError("keyring is not installed; install it, or take the password from a command") from None
        except Exception as error:  # each backend has its own errors, and their words may hold what they were asked
            raise InputError(f"the keyring failed ({type(error).__name__}); is it unlocked?") from None
        if not found:
            raise InputError(f"the keyring holds nothing for {user}; store it with: keyring set {service} {user}")
        return str(found)

    return read


def password_from_command(words: Sequence[str]) -> PasswordSource:
    """Take the password from the first line that a command prints, e.g. a password manager's."""
    if isinstance(words, str) or not words:
        raise InputError("a password command is a list of words, e.g. ['pass', 'show', 'esxi/{user}']")

    def read(user: str) -> str:
        try:
            done = subprocess.run([word.replace("{user}", user) for word in words], stdout=subprocess.PIPE, timeout=120)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"the password command failed ({type(error).__name__}); run it by hand") from None
        first = done.stdout.decode("utf-8", "replace").split("\n")[0].rstrip("\r")
        if done.returncode or not first:
            raise InputError(f"the password command gave no password (exit code {done.returncode}); run it by hand")
        return first

    return read


def check_source(password: object) -> None:
    """Refuse what is no way to get a password."""
    if not callable(password):
        raise InputError("password must be a way to get it (ask_password(), password_from_keyring(), "
                         "password_from_command([...])), never the password itself")  # fmt: skip


def way_in(users: Iterable[str], key: str | Path | None, agent: bool, password: PasswordSource | None) -> LogIn:
    """A run's one way to log in; the key is loaded, or each user's password asked for, before any host is visited."""
    if password is not None:
        check_source(password)
    if agent + (key is not None or password is not None) != 1:
        raise InputError("give one way to log in: a key (--key), the agent (--agent) or a password (--ask-password)")
    if key is not None:
        loaded = _load_key(Path(key), password)
        return lambda transport, host, user: transport.auth_publickey(user, loaded)
    if password is None:
        return _by_agent
    secrets = {user: Secret(password(user)) for user in dict.fromkeys(users)}
    return lambda transport, host, user: _by_password(transport, host, user, secrets[user])


def _load_key(path: Path, password: PasswordSource | None) -> paramiko.PKey:
    wrong = "no private key that can be used"
    try:
        try:
            return paramiko.PKey.from_path(path)
        except (paramiko.PasswordRequiredException, TypeError):  # cryptography says TypeError of an encrypted key
            if password is None:
                raise InputError(f"{path}: the key is encrypted; also give a source of its passphrase") from None
            wrong = "the passphrase does not open the key"
            return paramiko.PKey.from_path(path, passphrase=password(str(path)).encode())
    except InputError:
        raise
    except Exception as error:
        told = in_words(error) if isinstance(error, OSError) else type(error).__name__
        raise InputError(f"{path}: {wrong} ({told})") from None


class NotTried(CollectError):
    """The run stopped before this host's login."""


class _Refused(CollectError):
    # The server looked at the credential and said no.
    pass


class Gate:
    """Lets logins through, and shuts after three refusals in a row.

    While refusals and logins under way could together reach three, further logins wait for an answer: a wrong password
    reaches three hosts, not three and a poolful.
    """

    def __init__(self) -> None:
        self._state = threading.Condition()
        self._refused = self._under_way = 0
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
                self.shut = self.shut or (REFUSED_TOO_OFTEN if self._refused >= MAX_REFUSALS else "")
                self._state.notify_all()

    def _open(self) -> bool:
        under_way = 0 if self._proven and not self._refused else self._under_way
        return bool(self.shut) or self._refused + under_way < MAX_REFUSALS

    def close(self, why: str) -> None:
        """Let nobody through any more."""
        with self._state:
            self.shut = self.shut or why
            self._state.notify_all()


def _add(keys: paramiko.HostKeys, line: str, number: int) -> None:
    with contextlib.suppress(paramiko.SSHException):  # a kind of key that this library does not know
        entry = HostKeyEntry.from_line(line, number)
        for name in entry.hostnames or () if entry else ():
            keys.add(name, entry.key.get_name(), entry.key)


class HostKeys:
    """The project's known_hosts: unknown keys are refused unless trusted on first use, changed keys always."""

    def __init__(self, path: str | Path, trust_first_use: bool = False) -> None:
        self.path, self.trust = Path(path), trust_first_use
        self._lock, self._keys = threading.Lock(), paramiko.HostKeys()
        self.trusted: list[str] = []  # "host fingerprint", for the user to compare
        self._revoked: set[str] = set()  # in base64, of whatever host: what somebody lost is good nowhere
        try:
            for number, line in self._lines() if self.path.exists() else ():
                # A certificate authority's line makes no key known: this library cannot check what it signed.
                words = line.split()
                if words[:1] == ["@revoked"] and len(words) > 3:
                    self._revoked.add(words[3])
                elif words and not line.startswith(("#", "@")):
                    _add(self._keys, line, number)
        except Exception as error:
            raise InputError(f"{self.path}: not a known_hosts file ({type(error).__name__})") from None

    def _lines(self) -> Iterator[tuple[int, str]]:
        return enumerate(map(str.strip, self.path.read_text("utf-8").splitlines()), start=1)

    def types(self, name: str) -> list[str]:
        """Key types that are known of a host."""
        with self._lock:
            return list((self._keys.lookup(name) or {}).keys())

    def check(self, target: Target, key: paramiko.PKey) -> str:
        """Compare a server's key with what is known; give its fingerprint."""
        name, shown = target.key_name, str(key.fingerprint)
        with self._lock:
            known = self._keys.lookup(name)
            if key.get_base64() in self._revoked:
                why = f"host key REVOKED ({shown}): {self.path} says so. Nothing was sent; the host needs a new key"
            elif known and self._keys.check(name, key):
                return shown
            elif known:
                why = (f"host key CHANGED, now {shown}: a reinstalled host, or somebody in between. Nothing was sent. "
                       f"If the host was reinstalled, remove {self._lines_of(name)} of {self.path}")  # fmt: skip
            elif not self.trust:
                why = (f"host key unknown ({shown}); compare it at the host's console, then add it to {self.path} "
                       "or run once with trust on first use")  # fmt: skip
            else:
                why = self._write(f"{name} {key.get_name()} {key.get_base64()}\n")
            if why:
                raise CollectError(target.name, why)
            self._keys.add(name, key.get_name(), key)
            self.trusted.append(f"{target.name} {shown}")
            return shown

    def _write(self, line: str) -> str:
        # Gives why it could not be done.
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                if file.tell() and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
                    line = f"\n{line}"  # or it would spoil the line of another host
                file.write(line.encode("ascii"))
        except OSError as error:
            why = f"cannot be written to {self.path} ({error.strerror}), so it is not trusted"
            return f"its host key {why}; nothing was sent"
        return ""

    def _lines_of(self, name: str) -> str:
        found = []
        for number, line in self._lines():
            _add(alone := paramiko.HostKeys(), line, number)
            found += [str(number)] if alone.lookup(name) else []
        return f"line{'s' * (len(found) > 1)} {', '.join(found)}"


@dataclass(frozen=True)
class Access:
    """How a run logs in to its hosts."""

    user: str  # of hosts that name none
    log_in: LogIn
    keys: HostKeys
    limits: Limits
    gate: Gate = field(default_factory=Gate)


class Connection:
    """One host's connection, watched from outside: whoever waits too long is cut off.

    The clock of ``patience`` starts anew with every sign of life; ``ends`` is the end of the whole visit. Both in
    seconds of ``time.monotonic``.
    """

    def __init__(self, target: Target, access: Access) -> None:
        self.target, self.access = target, access
        self.begun = self.last = time.monotonic()
        self.ends, self.patience = self.begun + access.limits.total, access.limits.connect + 5
        self.doing, self.fingerprint = "connecting", ""
        self.why = ""  # set by who cut it off
        self.transport: paramiko.Transport | None = None
        self._socks: list[Any] = []

    def touch(self, doing: str = "") -> None:
        """A sign of life; raises where the connection was cut off meanwhile."""
        self.last, self.doing = time.monotonic(), doing or self.doing
        if self.why:
            raise CollectError(self.target.name, self.why)

    def overdue(self, now: float) -> str:
        """Why it should be cut off; "" while all is well."""
        why = "the time limit of the visit passed" if now > self.ends else ""
        if not why and now - self.last > self.patience:
            why = f"nothing came for {self.patience:.0f} s"
        return why and f"{why} while {self.doing}; what came is kept, the next run goes on"

    def cut(self, why: str) -> None:
        """End it from another thread; whoever waits on it wakes with an error."""
        self.why = self.why or why
        for sock in self._socks:
            for end in (partial(sock.shutdown, socket.SHUT_RDWR), sock.close):
                with contextlib.suppress(OSError):
                    end()

    def close(self) -> None:
        """The ordinary end."""
        for end in filter(None, (self.transport, *self._socks)):
            with contextlib.suppress(OSError):
                end.close()

    def open(self) -> None:
        """Connect, check the host's key, log in once."""
        target, through = self.target, None
        try:
            if target.jump is not None:
                jump = self._logged_in(target.jump, None)
                there, here = (target.address, target.port), ("127.0.0.1", 0)
                through = jump.open_channel("direct-tcpip", there, here, timeout=self.access.limits.connect)
                self._socks.append(through)
            self._logged_in(target, through)
        except CollectError:
            raise
        except Exception as error:  # paramiko raises whatever its threads met
            kind = EOFError() if "banner" in str(error).lower() else error
            words = next(words for kinds, words in _WHY_NOT if isinstance(kind, kinds))
            place, told = f"{target.address}:{target.port}", printable(in_words(error)) or type(error).__name__
            why = words.format(place=place, name=target.address, told=told)
            raise CollectError(target.name, self.why or why) from None

    def _logged_in(self, target: Target, channel: Any) -> paramiko.Transport:
        # A transport whose server has proved a key that we know, and took our credential.
        limit, keys = self.access.limits.connect, self.access.keys
        sock = channel or self._dialled(target, limit)
        self.touch()
        self.transport = transport = paramiko.Transport(sock, disabled_algorithms=_LEGACY if target.legacy else _OLD)
        transport.banner_timeout = transport.handshake_timeout = limit
        options = transport.get_security_options()
        rsa = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")  # signatures of one kind of key
        known = [name for kind in keys.types(target.key_name) for name in (rsa if kind == "ssh-rsa" else (kind,))]
        # Ask for the key that we know, or another one would look like a change.
        wanted = [name for name in known if name in options.key_types]
        options.key_types = (*wanted, *(name for name in options.key_types if name not in wanted))
        transport.start_client(timeout=limit)
        try:
            proved = transport.get_remote_server_key()
        except paramiko.SSHException:  # start_client returns as if all were well when its time is over
            raise TimeoutError from None
        self.fingerprint = keys.check(target, proved)
        self._log_in(transport, target)
        return transport

    def _dialled(self, target: Target, limit: float) -> socket.socket:
        # As socket.create_connection, but within one limit for all addresses, and whoever cuts the link off ends it at once. A
        # resolver without an answer waits longer than any limit of ours, and nothing wakes it: it is left behind in its thread.
        ends, failed = time.monotonic() + limit, OSError("no address")
        places: Future[list[Any]] = Future()

        def resolve() -> None:
            try:
                places.set_result(socket.getaddrinfo(target.address, target.port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:  # a part of the name is empty, or longer than DNS knows
                places.set_exception(error)

        threading.Thread(target=resolve, daemon=True).start()
        while not wait([places], timeout=RESOLVER_LOOK).done:
            self.touch()
            if time.monotonic() > ends:
                raise socket.gaierror("no answer from the resolver")
        for family, kind, protocol, _, place in places.result():
            sock = socket.socket(family, kind, protocol)
            self._socks.append(sock)
            self.touch()
            try:
                sock.settimeout(max(0.01, ends - time.monotonic()))
                sock.connect(place)
                sock.settimeout(limit)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # no small request waits for another
                return sock
            except OSError as error:
                failed = error
                sock.close()
        raise failed

    def _log_in(self, transport: paramiko.Transport, target: Target) -> None:
        transport.auth_timeout = limit = self.access.limits.login
        self.patience = float("inf")  # waiting for the gate is not the host's fault
        with self.access.gate.attempt(target.name):
            self.patience = limit
            self.touch("logging in")
            try:
                self.access.log_in(transport, target.name, target.user or self.access.user)
            except paramiko.BadAuthenticationType as error:
                offered = printable(", ".join(error.allowed_types))
                why = f"the host does not take this way of logging in; it offers: {offered}"
                raise _Refused(target.name, why) from None
            except paramiko.AuthenticationException as error:
                if "timeout" in str(error).lower():
                    why = f"no answer to the login within {limit:.0f} s; try again later"
                    raise CollectError(target.name, why) from None
                raise _Refused(target.name, "login refused: wrong user, password or key, or the host is in lockdown mode (take it out of "
                                            "lockdown or add the user to its exception users), or the account is locked (wait 15 "
                                            "minutes); not tried again")  from None  # fmt: skip


def _by_agent(transport: paramiko.Transport, host: str, user: str) -> None:
    with contextlib.closing(paramiko.Agent()) as agent:
        keys = agent.get_keys()
        if not keys:
            raise CollectError(host, "the SSH agent holds no key; add one with ssh-add")
        transport.auth_publickey(user, keys[0])  # one key: each further one would be a further attempt


def _by_password(transport: paramiko.Transport, host: str, user: str, secret: Secret) -> None:
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
