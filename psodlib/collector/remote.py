"""What a logged-in connection can do: list, read from an offset, run. Over SFTP where it is, else by the shell.

Names that a server lists are compared with a pattern of plain characters before anything is done with them; its texts are
bytes in files, never a command, a path of ours or something printed.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import stat
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import paramiko
from paramiko.sftp import CMD_DATA, CMD_READ, int64

from psodlib.collector.login import Connection, printable
from psodlib.errors import CollectError

__all__ = ["Entry", "Output", "Remote", "RemoteError"]

BLOCK = 32 << 10
AHEAD = 32  # read requests of one block under way: 1 MiB, whatever the file's size
MAX_OUTPUT = 16 << 20  # bytes of one command
MAX_LISTED = 20_000  # names of one folder
HASHES = ("sha256sum", "md5sum")  # busybox has at least the second


class RemoteError(Exception):
    """One file or command did not work; the connection still does."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A plain file as the host lists it: size in bytes, mtime in seconds since 1970."""

    path: str
    size: int
    mtime: int


@dataclass(frozen=True, slots=True)
class Output:
    """A command's end: ``code`` None where the server tells none; ``cut`` where it wrote more than we take."""

    data: bytes
    error: bytes
    code: int | None
    cut: bool = False


@dataclass
class Remote:
    """The files and commands of one host.

    Parameters
    ----------
    link : Connection
        Logged in.
    sftp : bool
        Try SFTP first.
    """

    link: Connection
    sftp: bool = True
    odd_names: list[str] = field(default_factory=list)  # listed names that were refused, made printable
    _files: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.sftp:
            self.link.touch("opening SFTP")
            try:
                self._files = paramiko.SFTPClient.from_transport(self.link.transport)
            except (paramiko.SSHException, EOFError, OSError):
                self.link.touch()  # raises if we were cut off; else the host has no SFTP
        self.sftp = self._files is not None

    def run(self, command: str, limit: int = MAX_OUTPUT) -> Output:
        """Run one of our own commands and take its output.

        Parameters
        ----------
        command : str
            Built from the plan and checked names alone.
        limit : int
            Bytes of output that are taken.

        Returns
        -------
        Output
            Never raises on the command's failure.
        """
        self.link.touch(f"running {command.split()[0]}")
        with self._channel(command) as channel:
            parts: dict[bool, list[bytes]] = {False: [], True: []}
            taken = 0
            while taken <= limit:
                ended = channel.eof_received or channel.closed
                # Both streams are drained, or a full one would stop the host's command.
                is_error = not channel.recv_ready() and channel.recv_stderr_ready()
                if is_error or channel.recv_ready():
                    parts[is_error].append(channel.recv_stderr(BLOCK) if is_error else channel.recv(BLOCK))
                    taken += len(parts[is_error][-1])
                    self.link.touch()
                elif ended:
                    break
                else:
                    time.sleep(0.003)
            code = None if taken > limit else channel.recv_exit_status()
            self._check_alive()
            return Output(
                b"".join(parts[False])[:limit],
                b"".join(parts[True])[:4096],
                None if code == -1 else code,
                taken > limit,
            )

    def listing(self, folder: str, name: re.Pattern[str]) -> list[Entry] | None:
        """The plain files of a folder whose names match, links followed.

        Parameters
        ----------
        folder : str
            Of the plan.
        name : re.Pattern
            Must match the whole name.

        Returns
        -------
        list of Entry or None
            By name; None where the folder is not there.
        """
        self.link.touch(f"listing {folder}")
        rows = self._listed_by_sftp(folder, name) if self.sftp else self._listed_by_shell(folder)
        if rows is None:
            return None
        found: dict[str, Entry] = {}
        for told, size, mtime, mode in rows:
            if not name.fullmatch(told):
                self._note_odd(told)
            elif stat.S_ISREG(mode) and size >= 0:
                found.setdefault(told, Entry(f"{folder}/{told}", size, mtime))
        return [found[key] for key in sorted(found)]

    def read(self, path: str, offset: int, size: int) -> Iterator[bytes]:
        """Bytes of a file, at most ``size`` from ``offset``; fewer where the server ends early.

        Parameters
        ----------
        path : str
            From ``listing``.
        offset, size : int
            Bytes.

        Yields
        ------
        bytes
            Blocks.

        Raises
        ------
        RemoteError
            The file cannot be read.
        """
        self.link.touch(f"reading {path}")
        blocks = self._read_by_sftp(path, offset, size) if self.sftp else self._read_by_shell(path, offset, size)
        with contextlib.closing(blocks):
            for block in blocks:
                self.link.touch()
                yield block

    def hash_of(self, path: str, size: int) -> tuple[str, str] | None:
        """Hash that the host itself computes of a file's first bytes.

        Parameters
        ----------
        path : str
            From ``listing``.
        size : int
            Bytes.

        Returns
        -------
        (name, hexadecimal) or None
            None where the host has no tool for it.
        """
        for tool in HASHES:
            said = self.run(f"head -c {size} {shlex.quote(path)} | {tool}", 4096)
            match = re.match(rb"([0-9a-f]{32,64})\b", said.data)
            if match:
                return tool.removesuffix("sum"), match[1].decode()
        return None

    def size(self, path: str) -> int | None:
        """Size of a file now; None where it is gone."""
        if not self.sftp:
            said = self.run(f"stat -L -c %s {shlex.quote(path)}", 4096).data.strip()
            return int(said) if re.fullmatch(rb"\d{1,18}", said) else None
        self.link.touch(f"looking at {path}")
        try:
            return int(self._files.stat(path).st_size or 0)
        except (paramiko.SSHException, EOFError) as error:
            self._lost(error)
        except OSError as error:
            if not self._alive():
                self._lost(error)
        return None

    @contextlib.contextmanager
    def _channel(self, command: str) -> Iterator[paramiko.Channel]:
        transport = self.link.transport
        assert transport is not None
        try:
            channel = transport.open_session(timeout=self.link.patience)
            try:
                channel.exec_command(command)
                yield channel
            finally:
                channel.close()
        except (paramiko.SSHException, EOFError, OSError) as error:
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        # The connection's end, in the words of who ended it.
        self.link.touch()
        raise CollectError(
            self.link.target.name,
            f"the connection broke while {self.link.doing} ({printable(error) or type(error).__name__}); what came is kept, "
            "the next run goes on",
        ) from None

    def _note_odd(self, told: str) -> None:
        # Only names that no honest host has are worth telling; other files of the folder are not ours.
        shown = printable(told, 120)
        if not re.fullmatch(r"[\w.+@ ,:~-]+", told) and shown not in self.odd_names and len(self.odd_names) < 50:
            self.odd_names.append(shown)

    def _listed_by_sftp(self, folder: str, name: re.Pattern[str]) -> list[tuple[str, int, int, int]] | None:
        rows = []
        try:
            told = []
            for attributes in self._files.listdir_iter(
                folder
            ):  # to its end: answers of other requests may not come between
                told.append(attributes.filename)
                self.link.touch()
                if len(told) > MAX_LISTED:
                    raise CollectError(
                        self.link.target.name, f"{folder} lists more than {MAX_LISTED} names; not collected from"
                    )
            for filename in told:
                info = self._files.stat(f"{folder}/{filename}") if name.fullmatch(filename) else None
                rows.append(
                    (filename, info.st_size or 0, info.st_mtime or 0, info.st_mode or 0)
                    if info
                    else (filename, 0, 0, 0)
                )
        except (paramiko.SSHException, EOFError) as error:
            self._lost(error)
        except CollectError:
            raise
        except OSError as error:
            if not self._alive():
                self._lost(error)
            return rows or None
        return rows

    def _listed_by_shell(self, folder: str) -> list[tuple[str, int, int, int]] | None:
        said = self.run(f"cd {shlex.quote(folder)} && stat -L -c '%s %Y %f %n' -- *", 4 << 20)
        lines = said.data.decode("utf-8", "surrogateescape").split("\n")
        rows = []
        for line in lines[:MAX_LISTED]:
            match = re.fullmatch(r"(\d{1,18}) (\d{1,12}) ([0-9a-f]{1,8}) (.+)", line)
            if match:
                rows.append((match[4], int(match[1]), int(match[2]), int(match[3], 16)))
            elif line:
                self._note_odd(line)  # the second half of a name with a line break
        return rows if rows or said.code == 0 else None

    def _read_by_sftp(self, path: str, offset: int, size: int) -> Generator[bytes, None, None]:
        try:
            file = self._files.open(path, "rb")
            try:
                yield from _Ahead(self._files, file.handle).blocks(offset, size)
            finally:
                if self._alive():
                    file.close()
        except (paramiko.SSHException, EOFError) as error:
            self._lost(error)
        except OSError as error:
            if not self._alive():
                self._lost(error)
            raise RemoteError(printable(error)) from None

    def _read_by_shell(self, path: str, offset: int, size: int) -> Generator[bytes, None, None]:
        name = shlex.quote(path)
        with self._channel(f"tail -c +{offset + 1} {name}" if offset else f"cat {name}") as channel:
            left = size
            while left and (block := channel.recv(min(BLOCK, left))):
                left -= len(block)
                yield block
            self._check_alive()
            if left == size and size:
                raise RemoteError(
                    printable(channel.recv_stderr(400).decode("utf-8", "replace").strip()) or "nothing came"
                )

    def _check_alive(self) -> None:
        if not self._alive():
            self._lost(EOFError())

    def _alive(self) -> bool:
        transport = self.link.transport
        return transport is not None and transport.is_active() and not self.link.why


class _Ahead:
    # Reads a file with a bounded number of requests under way. paramiko's own prefetch asks for a whole file at once, from a
    # thread of its own, and waits for ever where a server ends a file early; so its two lower calls are used here.
    def __init__(self, files: Any, handle: bytes) -> None:
        self._files, self._handle = files, handle
        self._answers: dict[int, bytes | Exception] = {}

    def blocks(self, offset: int, size: int) -> Iterator[bytes]:
        end, asked = offset + size, offset
        waiting: deque[tuple[int, int, int]] = deque()
        while waiting or asked < end:
            while asked < end and len(waiting) < AHEAD:
                wanted = min(BLOCK, end - asked)
                waiting.append((self._ask(asked, wanted), asked, wanted))
                asked += wanted
            number, at, wanted = waiting.popleft()
            while wanted:  # a server may give less than was asked for
                block = self._take(number)
                if not block:
                    return
                yield block[:wanted]
                at, wanted = at + len(block), max(0, wanted - len(block))
                number = self._ask(at, wanted) if wanted else 0

    def _ask(self, offset: int, size: int) -> int:
        return int(self._files._async_request(self, CMD_READ, self._handle, int64(offset), size))

    def _take(self, number: int) -> bytes:
        while number not in self._answers:
            self._files._read_response()
        answer = self._answers.pop(number)
        if isinstance(answer, EOFError):
            return b""
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _async_response(self, kind: int, message: Any, number: int) -> None:
        # Called by paramiko for every answer to one of our numbers.
        if kind == CMD_DATA:
            self._answers[number] = message.get_string()
            return
        try:
            self._files._convert_status(message)
            self._answers[number] = OSError("neither data nor an error came")
        except Exception as error:
            self._answers[number] = error


def same_hash(data: Any, said: tuple[str, str]) -> bool:
    """Whether a local file has the hash that the host said.

    Parameters
    ----------
    data : BinaryIO
        Open at its start.
    said : (name, hexadecimal)
        From ``Remote.hash_of``.

    Returns
    -------
    bool
        True where they agree.
    """
    return hashlib.file_digest(data, said[0]).hexdigest() == said[1]
