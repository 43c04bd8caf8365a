"""What a logged-in connection can do: list, read from an offset, run. Over SFTP where it is, else by the shell.

Names that a server lists are compared with a pattern of plain characters before anything is done with them; its texts are
bytes in files, never a command, a path of ours or something printed.
"""

from __future__ import annotations

import contextlib
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

BLOCK = 32 << 10
AHEAD = 32  # read requests of one block under way: 1 MiB, whatever the file's size
PIECE = 64 << 10  # block size of dd: a seek costs the host nothing, where `tail -c +N` would read all that comes before
MAX_OUTPUT = 16 << 20  # bytes of one command
MAX_LISTED = 20_000  # names of one folder
MAX_LISTING = 4 << 20  # letters of them together
LONGEST_NAME = 255  # bytes; no file system of ESXi has longer ones
LONGEST = 4  # times the patience with a silent command: that long it may go on writing
STATUS_LIMIT = 5.0  # seconds from a command's last byte to its exit code
HASHES = ("sha256sum", "md5sum")  # busybox has at least the second
# What a shell says of a command, or of an option, that an old busybox does not have.
_LACKS = re.compile(rb"not found|invalid option|unrecognized|illegal option")
_STAT_ROW = re.compile(r"(?P<size>\d{1,18}) (?P<mtime>\d{1,12}) (?P<mode>[0-9a-f]{1,8}) (?P<name>.+)", re.ASCII)
_LS_ROW = re.compile(
    r"(?P<kind>[-bcdlps])\S{9,11} +\d+ +\S+ +\S+ +(?P<size>\d{1,18}) +\w{3} +\d+ +[\d:]{4,5} (?P<name>.+)", re.ASCII
)


class RemoteError(Exception):
    """One file or command did not work; the connection still does."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A plain file as the host lists it: size in bytes, mtime in seconds since 1970 (0 where it cannot tell)."""

    path: str
    size: int
    mtime: int


@dataclass(frozen=True, slots=True)
class Output:
    """A command's end: ``code`` None where the server tells none; ``cut`` why its output is not taken to the end, ""
    where it is; ``hung`` where it cost so much time that it was left alone."""

    data: bytes
    error: bytes
    code: int | None
    cut: str = ""
    hung: bool = False

    @property
    def complaint(self) -> str:
        """The first line that a failed command wrote, made printable."""
        words = printable((self.error or self.data).decode("utf-8", "replace").strip().split("\n")[0], 120)
        return words or f"no output, exit code {self.code}"


@dataclass
class Remote:
    """The files and commands of one host."""

    link: Connection  # logged in
    sftp: bool = True  # try SFTP first
    quiet: float = 30  # seconds without a byte after which a command is left alone
    odd_names: list[str] = field(default_factory=list)  # listed names that were refused, made printable
    left: list[str] = field(default_factory=list)  # folders of ours that the host did not say it has removed
    _files: Any = field(default=None, repr=False)
    _has_stat: bool = True  # busybox's stat with a format; without it `ls` must do, which tells no exact time
    _hashes: tuple[str, ...] = HASHES

    def __post_init__(self) -> None:
        if self.sftp:
            self.link.touch("opening SFTP")
            try:
                self._files = paramiko.SFTPClient.from_transport(self.link.transport)
            except (paramiko.SSHException, EOFError, OSError):
                self.link.touch()  # raises if we were cut off; else the host has no SFTP
        self.sftp = self._files is not None

    def run(self, command: str, limit: int = MAX_OUTPUT, quiet: float | None = None) -> Output:
        """Run one of our own commands and take its output."""
        quiet = self.quiet if quiet is None else quiet
        usual = self.link.patience
        self.link.touch(f"running {command.split()[0]}")
        # A command that hangs costs itself; the watch, which would cost the whole visit, looks on a little longer.
        self.link.patience = max(usual, quiet + 2 * STATUS_LIMIT)
        try:
            with self._channel(command) as channel:
                return self._taken(channel, limit, quiet)
        except RemoteError as error:
            return Output(b"", str(error).encode(), None)
        finally:
            self.link.patience = usual
            self.link.touch()

    def _taken(self, channel: paramiko.Channel, limit: int, quiet: float) -> Output:
        parts: dict[bool, list[bytes]] = {False: [], True: []}
        taken, hung, cut = 0, False, ""
        heard = begun = time.monotonic()
        while not cut and not hung:
            ended = channel.eof_received or channel.closed
            # Both streams are drained, or a full one would stop the host's command.
            is_error = not channel.recv_ready() and channel.recv_stderr_ready()
            if is_error or channel.recv_ready():
                parts[is_error].append(channel.recv_stderr(BLOCK) if is_error else channel.recv(BLOCK))
                taken += len(parts[is_error][-1])
                heard = time.monotonic()
                self.link.touch()
                if taken > limit:
                    cut = f"cut after {limit:,} bytes, the most that is taken of a command"
                elif heard - begun > LONGEST * quiet:  # a drop now and then is no answer either
                    cut, hung = f"cut after {heard - begun:.0f} s, it was still writing", True
            elif ended:
                break
            else:
                hung = time.monotonic() - heard > quiet
                time.sleep(0.003)
        told = not cut and not hung and channel.status_event.wait(STATUS_LIMIT)
        if not self._alive():
            self._lost(EOFError())
        code = channel.exit_status if told and channel.exit_status != -1 else None
        error = b"".join(parts[True])[:4096]
        if hung and not cut:
            error = f"gave nothing for {quiet:.0f} s; left alone".encode()
        return Output(b"".join(parts[False])[:limit], error, code, cut, hung)

    @contextlib.contextmanager
    def workshop(self, folder: str) -> Iterator[bool]:
        """A folder of our own on the host, for as long as the block runs.

        The host itself removes it when the standard input of the shell that made it ends: when we say so, and just as
        well when the connection breaks.
        """
        self.link.touch(f"making {folder}")
        words = f"mkdir -m 700 {folder} && echo made && {{ trap '' HUP PIPE; cat >/dev/null; rm -rf {folder} && echo gone; }}"
        with contextlib.ExitStack() as stack:  # a channel that does not open is a RemoteError
            keeper = stack.enter_context(self._channel(words))
            made = keeper.recv(5) == b"made\n"
            held = stack.pop_all()  # what goes wrong in the block is the block's own
        try:
            if made:
                self.left.append(folder)
            yield made
        finally:
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                keeper.settimeout(self.quiet)
                keeper.shutdown_write()
                if made and keeper.recv(5) == b"gone\n":
                    self.left.remove(folder)
            with contextlib.suppress(CollectError):
                held.close()

    def listing(self, folder: str, name: re.Pattern[str]) -> list[Entry] | None:
        """The plain files of a folder whose names match, links followed."""
        self.link.touch(f"listing {folder}")
        rows = self._listed_by_sftp(folder) if self.sftp else self._listed_by_shell(folder, "*")
        if rows is None:
            return None
        found: dict[str, Entry] = {}
        for told, *info in rows:
            if len(told) > LONGEST_NAME or not name.fullmatch(told):
                self._note_odd(told)
                continue
            if self.sftp and not stat.S_ISREG(info[2]):
                info = self._stat(f"{folder}/{told}") or info
            size, mtime, mode = info
            if stat.S_ISREG(mode) and size >= 0:
                found.setdefault(told, Entry(f"{folder}/{told}", size, mtime))
        return [found[key] for key in sorted(found)]

    def read(self, path: str, offset: int, size: int) -> Iterator[bytes]:
        """Bytes of a file, at most ``size`` from ``offset``; fewer where the server ends early."""
        self.link.touch(f"reading {path}")
        blocks = self._read_by_sftp(path, offset, size) if self.sftp else self._read_by_shell(path, offset, size)
        with contextlib.closing(blocks):
            for block in blocks:
                self.link.touch()
                yield block

    def hash_of(self, path: str, size: int) -> tuple[str, str] | None:
        """Hash that the host itself computes of a file's first bytes."""
        # By dd, for not every busybox knows `head -c`, and a failed one would give the hash of nothing.
        whole, rest = divmod(size, PIECE)
        parts = [f"dd bs={PIECE} count={whole};"] * bool(whole) + [f"dd bs={rest} count=1;"] * bool(rest)
        for tool in self._hashes:
            said = self.run(f"{{ {' '.join(parts) or ':;'} }} <{shlex.quote(path)} 2>/dev/null | {tool}", 4096)
            match = re.match(rb"([0-9a-f]{32,64})\b", said.data)
            if match:
                self._hashes = (tool,)
                return tool.removesuffix("sum"), match[1].decode()
        return None

    def size(self, path: str) -> int | None:
        """Size of a file now; None where it is gone."""
        if not self.sftp:
            folder, _, name = path.rpartition("/")
            rows = self._listed_by_shell(folder, shlex.quote(name))
            return rows[0][1] if rows and rows[0][0] == name else None
        self.link.touch(f"looking at {path}")
        info = self._stat(path)
        return None if info is None else info[0]

    @contextlib.contextmanager
    def _asked(self, *bearable: type[Exception]) -> Iterator[None]:
        # What can be borne costs what was asked for; all else is the connection's end.
        try:
            yield
        except CollectError:
            raise
        except (paramiko.SSHException, EOFError, OSError) as error:
            if isinstance(error, bearable) and self._alive():
                raise RemoteError(printable(error) or type(error).__name__) from None
            self._lost(error)

    @contextlib.contextmanager
    def _channel(self, command: str) -> Iterator[paramiko.Channel]:
        # A channel that the host closes costs what it was for, no more.
        transport = self.link.transport
        assert transport is not None
        with self._asked(Exception), contextlib.closing(transport.open_session(timeout=self.link.patience)) as channel:
            channel.exec_command(command)
            yield channel

    def _stat(self, path: str) -> list[int] | None:
        # Size, mtime and mode of what a link leads to; None where it leads nowhere.
        with contextlib.suppress(RemoteError), self._asked(OSError):
            return _numbers(self._files.stat(path))
        return None

    def _lost(self, error: Exception) -> None:
        # The connection's end, in the words of who ended it.
        self.link.touch()
        why = f"the connection broke while {self.link.doing} ({printable(error) or type(error).__name__})"
        raise CollectError(self.link.target.name, f"{why}; what came is kept, the next run goes on") from None

    def _note_odd(self, told: str) -> None:
        # Only names that no honest host has are worth telling; other files of the folder are not ours.
        shown = printable(told, 120)
        honest = len(told) <= LONGEST_NAME and re.fullmatch(r"[\w.+@ ,:~-]+", told, re.ASCII)
        if not honest and shown not in self.odd_names and len(self.odd_names) < 50:
            self.odd_names.append(shown)

    def _listed_by_sftp(self, folder: str) -> list[tuple[Any, ...]] | None:
        rows, letters = [], 0
        with contextlib.suppress(RemoteError), self._asked(OSError):
            # To its end: answers of other requests may not come between. One answer holds a log folder's names and the next
            # its end; paramiko's 50 requests at once were three quarters of the processor time of a visit without commands.
            for info in self._files.listdir_iter(folder, read_aheads=2):
                self.link.touch()
                rows.append((info.filename, *_numbers(info)))
                letters += len(info.filename) + len(info.longname or "")
                if len(rows) > MAX_LISTED or letters > MAX_LISTING:
                    most = f"{MAX_LISTED:,} names, or names of {MAX_LISTING:,} letters"
                    raise CollectError(self.link.target.name, f"{folder} lists more than {most}; not collected from")
            return rows
        return None

    def _listed_by_shell(self, folder: str, names: str) -> list[tuple[Any, ...]] | None:
        place = f"cd {shlex.quote(folder)} &&"
        if self._has_stat:
            said = self.run(f"{place} stat -L -c '%s %Y %f %n' -- {names}", MAX_LISTING)
            self._has_stat = bool(said.data) or not _LACKS.search(said.error)
        if not self._has_stat:
            said = self.run(f"{place} ls -lnLd -- {names}", MAX_LISTING)
        rows = []
        for line in said.data.decode("utf-8", "surrogateescape").split("\n")[:MAX_LISTED]:
            if match := (_STAT_ROW if self._has_stat else _LS_ROW).fullmatch(line):
                row = match.groupdict()
                mode = int(row["mode"], 16) if self._has_stat else stat.S_IFREG * (row["kind"] == "-")
                rows.append((row["name"], int(row["size"]), int(row.get("mtime", 0)), mode))
            elif line:
                self._note_odd(line)  # the second half of a name with a line break
        return rows if rows or said.code == 0 else None

    def _read_by_sftp(self, path: str, offset: int, size: int) -> Generator[bytes, None, None]:
        # With a bounded number of requests under way. paramiko's own prefetch asks for a whole file at once, from its own
        # thread, and waits for ever where a server ends a file early; so two lower calls are used here, in their order.
        end, asked, step, waiting = offset + size, offset, BLOCK, deque[int]()
        with self._asked(OSError):
            file = self._files.open(path, "rb")
            try:
                while offset < end:
                    while asked < end and len(waiting) < AHEAD:
                        wanted = min(step, end - asked)
                        waiting.append(
                            self._files._async_request(type(None), CMD_READ, file.handle, int64(asked), wanted)
                        )
                        asked += wanted
                    kind, message = self._files._read_response(waiting.popleft())
                    if kind != CMD_DATA:
                        raise OSError("neither data nor an error came")
                    block = message.get_string()
                    if not block:
                        return
                    wanted = min(step, end - offset)
                    offset += min(wanted, len(block))
                    yield block[:wanted]
                    if len(block) < wanted:  # a server may give less: what else is under way is not where we go on from
                        asked, step = offset, len(block)
                        waiting.clear()
            except EOFError:
                return
            finally:
                if self._alive():
                    file.close()

    def _read_by_shell(self, path: str, offset: int, size: int) -> Generator[bytes, None, None]:
        name, skip = shlex.quote(path), offset % PIECE
        count = -(-(skip + size) // PIECE)
        part = f"dd if={name} bs={PIECE} skip={offset // PIECE} count={count}"
        with self._channel(part if offset or count == 1 else f"cat {name}") as channel:
            left = size
            while left and (block := channel.recv(BLOCK)):
                wanted = block[skip : skip + left]
                skip = max(0, skip - len(block))
                left -= len(wanted)
                yield wanted
            if not self._alive():
                self._lost(EOFError())
            if left == size and size:
                told = channel.recv_stderr(400).decode("utf-8", "replace").strip()
                raise RemoteError(printable(told) or "nothing came")

    def _alive(self) -> bool:
        transport = self.link.transport
        return transport is not None and transport.is_active() and not self.link.why


def _numbers(info: Any) -> list[int]:
    return [info.st_size or 0, info.st_mtime or 0, info.st_mode or 0]
