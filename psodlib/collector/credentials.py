"""The one way to log in of a run, and secrets that show themselves to nobody."""

from __future__ import annotations

import getpass
import importlib
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko

from psodlib.errors import InputError

PasswordSource = Callable[[str], str]  # user -> password


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
    return lambda user: getpass.getpass(f"Password of {user}: ")


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


@dataclass(frozen=True)
class Credentials:
    """The one way to log in of a run: a key, the agent's keys, or a password."""

    key: paramiko.PKey | None = field(default=None, repr=False)
    agent: bool = False
    passwords: dict[str, Secret] = field(default_factory=dict, repr=False)  # by user

    @classmethod
    def gather(
        cls, users: Sequence[str], key: str | Path | None, agent: bool, password: PasswordSource | None
    ) -> Credentials:
        """Load the key or ask for each user's password, before any host is visited."""
        if password is not None:
            check_source(password)
        if (key is not None and agent) or (password is not None and agent) or not (key or agent or password):
            raise InputError("give one way to log in: a key, the agent, or a source of the password")
        if key is not None:
            return cls(key=_load_key(Path(key), password))
        if agent or password is None:
            return cls(agent=True)
        return cls(passwords={user: Secret(password(user)) for user in dict.fromkeys(users)})


def _load_key(path: Path, password: PasswordSource | None) -> paramiko.PKey:
    try:
        return paramiko.PKey.from_path(path)
    except (paramiko.PasswordRequiredException, TypeError):  # cryptography says TypeError of an encrypted key
        if password is None:
            raise InputError(f"{path}: the key is encrypted; also give a source of its passphrase") from None
    except Exception as error:
        raise InputError(f"{path}: no private key that can be used ({type(error).__name__})") from None
    try:
        return paramiko.PKey.from_path(path, passphrase=password(str(path)).encode())
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: the passphrase does not open the key ({type(error).__name__})") from None
