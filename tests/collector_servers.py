"""Private SSH servers on loopback that look like ESXi hosts, and one that lies.

`Esx` is OpenSSH in a mount and process namespace of its own: a small root with `/var/core`, `/var/run/log`, `/scratch` and
commands replayed by PATH from recorded outputs. It needs root, `unshare` and sshd. `Liar` is paramiko's server in this process,
for what OpenSSH cannot be made to do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

START_LIMIT = 10.0
LIFE = 900  # seconds after which a server dies, should its test be killed
REPLAY = """#!/bin/sh
# Replays a recorded output; what was not recorded is the system's own command, or does not exist.
name=${0##*/}
key=$(printf '%s' "$name $*" | /usr/bin/tr '/' '!')
if [ -f "/replay/$key" ]; then
  [ -f "/replay/$key.slow" ] && /usr/bin/sleep "$(/usr/bin/cat "/replay/$key.slow")"
  exec /usr/bin/cat "/replay/$key"
fi
if [ "$name" = esxcfg-dumppart ] && [ -f "/replay/dump-log" ]; then
  [ -f /replay/dump-slow ] && /usr/bin/sleep "$(/usr/bin/cat /replay/dump-slow)"
  exec /usr/bin/cp /replay/dump-log "./$(printf '%s' "${2##*/}" | /usr/bin/sed s/zdump/log/)"
fi
[ -f /replay/applets ] && exec /usr/bin/busybox "$name" "$@"
[ -x "/usr/bin/$name" ] && exec "/usr/bin/$name" "$@"
echo "$name: not found" >&2
exit 127
"""
COMMANDS = ("date", "uptime", "uname", "localcli", "esxcli", "cat", "vmkload_mod", "esxcfg-module", "esxcfg-dumppart",
            "vmkdump_extract", "sha256sum", "df")  # fmt: skip
# What our remote commands need of a host that has busybox instead of coreutils; `OLD_APPLETS` lacks what a bare build lacks.
APPLETS = ("sh", "stat", "ls", "dd", "mkdir", "rm", "sha256sum", "md5sum", "cat")
OLD_APPLETS = tuple(name for name in APPLETS if name not in ("stat", "sha256sum"))
OUTPUTS = {
    "uptime ": " 10:00:00 up 29 days, 20:14:10, load average: 0.05, 0.04, 0.05\n",
    "uname -a": "VMkernel {name} 5.5.0 #1 SMP Release build-1331820 Sep 18 2013 23:08:31 x86_64 GNU/Linux\n",
    "localcli system version get": "   Product: VMware ESXi\n   Version: 5.5.0\n   Build: Releasebuild-1331820\n   Update: 0\n",
    "localcli system stats uptime get": "2578450166000\n",
    "localcli software vib list": "Name       Version                        Vendor           Acceptance Level  Install Date\n"
    "---------  -----------------------------  ---------------  ----------------  ------------\n"
    "scsi-hpsa  {installed}-1OEM.550.0.0.1331820  Hewlett-Packard  VMwareCertified   2014-03-20\n",
    "cat /proc/scsi/hpsa/*": "HP HPSA Driver (v {loaded}-1OEM)\nhpsa0: SCSI host: 2 nr_cmds: 1020\nc0b0t0l1 00 0x01000040 0x00000000\n",
    "localcli hardware platform get": "Platform Information\n   Product Name: ProLiant DL380p Gen8\n   Vendor Name: HP\n   Serial Number: CZ1\n",
    # ESXi's own df: bytes, and every volume whatever is asked
    "df -k /scratch/.": "Filesystem        Bytes         Used    Available Use% Mounted on\n"
    "VMFS-5     249376538624  20971520000 228405018624   8% /vmfs/volumes/52f\n"
    "vfat          261853184    163409920     98443264  62% /vmfs/volumes/b1a\n",
    "esxcfg-module -q": "vmkernel\nvmklinux_9\nhpsa\n",
}  # fmt: skip


def why_no_sshd() -> str:
    """Why an `Esx` cannot be had here; empty where it can."""
    if os.geteuid() != 0:
        return "not root: a private sshd needs its own mounts"
    for tool in ("/usr/sbin/sshd", shutil.which("unshare"), shutil.which("ssh-keygen")):
        if not tool or not os.path.exists(tool):
            return "sshd, unshare or ssh-keygen is missing (openssh-server, util-linux)"
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, timeout=10, check=False
    )
    return "" if done.returncode == 0 else "this machine forbids mount namespaces"


needs_sshd = pytest.mark.skipif(bool(why_no_sshd()), reason=why_no_sshd() or "sshd is here")


needs_busybox = pytest.mark.skipif(
    not os.path.exists("/usr/bin/busybox"), reason="busybox is missing (package busybox-static)"
)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def make_key(path: Path, kind: str = "ecdsa") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True, timeout=30)
    return path


class Esx:
    """One ESXi-like host behind a real sshd."""

    def __init__(self, root: Path, name: str = "esx01", loaded: str = "5.5.0.58", installed: str = "5.5.0.58") -> None:
        self.root, self.name, self.port = root, name, free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.path = "/esx:/usr/bin:/bin"
        for folder in [
            "usr",
            "dev",
            "proc",
            "tmp",
            "root",
            "run/sshd",
            "run/log",
            "var/core",
            "vmfs/volumes/52f/.locker",
            "replay",
            "esx",
            "etc",
        ]:
            (root / folder).mkdir(parents=True)
        links = {"var/run": "../run", "scratch": "vmfs/volumes/52f/.locker"}
        for link, target in ({name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")} | links).items():
            (root / link).symlink_to(target)
        for file in ("passwd", "group", "shadow", "nsswitch.conf", "ld.so.cache", "ssh/moduli", "login.defs"):
            if os.path.exists(f"/etc/{file}"):
                (root / "etc" / file).parent.mkdir(exist_ok=True)
                shutil.copy(f"/etc/{file}", root / "etc" / file)
        (root / "etc/pam.d").mkdir()
        (root / "etc/pam.d/sshd").write_text(
            "auth required pam_unix.so\naccount required pam_unix.so\nsession required pam_permit.so\npassword required pam_unix.so\n"
        )
        (root / "replay/tool").write_text(REPLAY)
        (root / "replay/tool").chmod(0o755)
        for command in COMMANDS:
            (root / "esx" / command).symlink_to("/replay/tool")
        for command, text in OUTPUTS.items():
            self.record(command, text.format(name=name, loaded=loaded, installed=installed))
        self.record("date ", time.strftime("%a %b %d %H:%M:%S UTC %Y\n", time.gmtime()))
        self.log("vmksummary.log", "2014-05-31T15:00:01Z heartbeat: up 29d19h16m41s, 25 VMs; [[3411 vmx 1kB]] []\n")
        minutes = [f"2014-05-31T15:{i // 60:02}:{i % 60:02}.123Z cpu1:4097)" for i in range(3000)]
        self.log("vmkernel.log", "".join(f"{at}ScsiDeviceIO: 2331: line {i}\n" for i, at in enumerate(minutes)))
        for number in (0, 1):
            self.log(f"vmkernel.{number}.gz", os.urandom(50_000))

    def record(self, command: str, output: str) -> None:
        (self.root / "replay" / command.replace("/", "!")).write_text(output)

    def only_busybox(self, applets: tuple[str, ...] = APPLETS) -> None:
        """Take away coreutils: what is not replayed is an applet, or is not there."""
        (self.root / "replay/applets").touch()
        for name in applets:
            if name not in COMMANDS:
                (self.root / "esx" / name).symlink_to("/usr/bin/busybox")
        for name in set(COMMANDS) & set(APPLETS) - set(applets):
            (self.root / "esx" / name).unlink()
        self.path = "/esx"

    def log(self, name: str, content: str | bytes, folder: str = "run/log") -> Path:
        path = self.root / folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def start(
        self, *, user_key: Path, host_key: Path, options: str = "", sftp: bool = True, before: str = "", passwords: str = "no",
    ) -> Esx:  # fmt: skip
        shutil.copy(f"{user_key}.pub", self.root / "auth")
        shutil.copy(host_key, self.root / "hostkey")
        (self.root / "hostkey").chmod(0o600)
        (self.root / "sshd.conf").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey /hostkey\nAuthorizedKeysFile /auth\nStrictModes no\nPidFile none\n"
            f"PermitRootLogin yes\nPasswordAuthentication {passwords}\nMaxStartups 200\nMaxSessions 20\nLogLevel VERBOSE\nSetEnv PATH={self.path}\n"
            + ("Subsystem sftp internal-sftp\n" if sftp else "") + (options or "UsePAM no\nKbdInteractiveAuthentication no\n")
        )  # fmt: skip
        mounts = "".join(f"mount --rbind /{d} {self.root}/{d}\n" for d in ("usr", "dev", "proc"))
        script = f"set -e\nmount --make-rprivate /\n{mounts}{before}\nexec chroot {self.root} /usr/sbin/sshd -D -e -f /sshd.conf"
        with (self.root / "sshd.log").open("wb") as log:
            words = [*f"timeout -s KILL {LIFE} unshare --mount --pid --fork --kill-child sh -c".split(), script]
            self.process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + START_LIMIT
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"sshd did not start: {self.said()[-500:]}")

    def said(self) -> str:
        return (self.root / "sshd.log").read_text("utf-8", "replace")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
            # the sshd of the inner process group ends a moment later; until then it holds the port, and answers
            end = time.monotonic() + START_LIMIT
            while time.monotonic() < end:
                try:
                    socket.create_connection(("127.0.0.1", self.port), 1).close()
                except OSError:
                    return
                time.sleep(0.02)


@contextlib.contextmanager
def serving(work: Path, *hosts: Esx) -> Iterator[dict[str, Path]]:
    """Start hosts, and stop them whatever happens; gives the private ``key`` and the inventory ``hosts`` with which to visit them."""
    key, host_key = make_key(work / "user"), make_key(work / "host")
    rows = [f"{host.name},127.0.0.1,{host.port}\n" for host in hosts]
    (work / "hosts.csv").write_text("".join(["host,address,port\n", *rows]))
    try:
        for host in hosts:
            host.start(user_key=key, host_key=host_key)
        yield {"key": key, "hosts": work / "hosts.csv"}
    finally:
        for host in hosts:
            host.stop()


class Liar:
    """paramiko's own server with one SFTP file whose answers a test makes up; ``lie`` names the lie."""

    def __init__(self, lie: str = "", password: str = "", content: bytes = b"x" * 400_000) -> None:
        self.lie, self.password, self.content = lie, password, content
        self.key = paramiko.ECDSAKey.generate()
        self.attempts: list[str] = []
        self.ended = threading.Event()
        self.transports: list[paramiko.Transport] = []
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.sock.getsockname()[1])
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while not self.ended.is_set():
            try:
                sock, _ = self.sock.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.lie == "silent":
                self.transports.append(sock)  # type: ignore[arg-type]
                continue
            transport = paramiko.Transport(sock)
            transport.add_server_key(self.key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files, liar=self, transport=transport)
            self.transports.append(transport)
            with contextlib.suppress(Exception):
                transport.start_server(event=threading.Event(), server=_Door(self))

    def stop(self) -> None:
        self.ended.set()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)  # wakes accept
        self.sock.close()
        for transport in self.transports:
            transport.close()
        self.thread.join(5)


class _Door(paramiko.ServerInterface):
    def __init__(self, liar: Liar) -> None:
        self.liar = liar
        self.step = 0

    def get_allowed_auths(self, username: str) -> str:
        return "keyboard-interactive" if self.liar.password else "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self.liar.attempts.append("publickey")
        return paramiko.AUTH_SUCCESSFUL if self.liar.lie != "refuse" else paramiko.AUTH_FAILED

    def check_auth_interactive(self, username: str, submethods: str) -> object:
        self.liar.attempts.append("keyboard-interactive")
        if self.liar.lie == "token":
            return paramiko.InteractiveQuery("", "", ("Enter your one-time password: ", False))
        if self.liar.lie == "two":
            return paramiko.InteractiveQuery("", "", ("Password: ", False), ("Passcode: ", False))
        if self.liar.lie == "echo":
            return paramiko.InteractiveQuery("", "", ("Password: ", True))
        return paramiko.InteractiveQuery("", "", ("Password: ", False))

    def check_auth_interactive_response(self, responses: list[str]) -> object:
        self.liar.attempts.append("answer")
        if self.liar.lie == "expired" and self.step == 0:
            self.step = 1
            return paramiko.InteractiveQuery("", "You are required to change your password", ("New password: ", False))
        return paramiko.AUTH_SUCCESSFUL if responses == [self.liar.password] else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        answer = threading.Timer(
            0.01, self._answer, (channel, command.decode())
        )  # after the request's own confirmation
        answer.daemon = True
        answer.start()
        return True

    def _answer(self, channel: paramiko.Channel, command: str) -> None:
        with contextlib.suppress(Exception):
            if self.liar.lie == "stall-command" and command == "uptime":
                self.liar.ended.wait(30)
            if self.liar.lie == "flood" and command == "uptime":
                while not channel.closed:
                    channel.sendall(b"flood \x1b[2J" * 4000)
            if self.liar.lie == "drip" and command == "uptime":
                while not channel.closed and not self.liar.ended.wait(0.1):
                    channel.sendall(b"drop ")
            if self.liar.lie == "stderr" and command == "uptime":
                for _ in range(100):
                    channel.sendall_stderr(b"x" * 32768)
            if command == "date":
                now = time.gmtime(time.time() + 7200 * (self.liar.lie == "clock"))
                channel.sendall(time.strftime("%a %b %d %H:%M:%S UTC %Y\n", now).encode())
            channel.send_exit_status(0 if command == "date" else 1)
            channel.shutdown_write()
            channel.close()


class _Files(paramiko.SFTPServerInterface):
    NAMES = ("vmkernel.log", "../../../etc/passwd", "vmkernel.0.gz/../../x", "a'b;rm -rf ~.log", "x\n10 10 81a4 vmkernel.9.gz",
             "\x1b[2Jvmkernel.1.gz", "vmkernel.2.gz", "..")  # fmt: skip

    def __init__(self, server: _Door, liar: Liar, transport: paramiko.Transport) -> None:
        super().__init__(server)
        self.liar, self.transport, self.looked = liar, transport, 0

    def _attr(self, name: str) -> paramiko.SFTPAttributes:
        attr = paramiko.SFTPAttributes()
        attr.filename, attr.st_mode, attr.st_mtime, attr.st_size = name, 0o100644, 1_400_000_000, len(self.liar.content)
        if self.liar.lie == "size":
            attr.st_size += 1000
        if self.liar.lie == "huge":
            attr.st_size = 1 << 60
        return attr

    def list_folder(self, path: str) -> object:
        if path != "/var/run/log":
            return paramiko.SFTP_NO_SUCH_FILE
        if self.liar.lie == "crowd":  # 2,000 names of 50 kB
            return [self._attr(f"vmkernel.log{number:050000d}") for number in range(2000)]
        if self.liar.lie == "long":
            return [self._attr(name) for name in (self.NAMES[0], "x" * 5000, "vmkernel.\u0663.gz")]
        return [self._attr(name) for name in (self.NAMES if self.liar.lie == "names" else self.NAMES[:1])]

    def stat(self, path: str) -> object:
        return self._attr(path.rpartition("/")[2])

    def open(self, path: str, flags: int, attr: object) -> object:
        handle = paramiko.SFTPHandle(flags)
        handle.read = self._read  # type: ignore[method-assign]
        return handle

    def _read(self, offset: int, length: int) -> object:
        if self.liar.lie == "stall" and offset > 150_000:
            self.liar.ended.wait(30)
        if self.liar.lie == "disconnect" and offset > 150_000:
            self.transport.close()
            return paramiko.SFTP_FAILURE
        if self.liar.lie == "short":  # less than was asked for, another time less still
            length = min(length, 7001 if offset < 1_000_000 else 20_000)
        if self.liar.lie == "slow":
            self.liar.ended.wait(0.1)
        if self.liar.lie == "failure":
            return paramiko.SFTP_PERMISSION_DENIED
        return self.liar.content[offset : offset + length] or paramiko.SFTP_EOF


@contextlib.contextmanager
def lying(lie: str, **options: object) -> Iterator[Liar]:
    liar = Liar(lie, **options)  # type: ignore[arg-type]
    try:
        yield liar
    finally:
        liar.stop()
