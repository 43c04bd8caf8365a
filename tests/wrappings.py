"""The wrappings in which a crash text lies in evidence: a file's name, and what becomes of the bytes."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable

STAMP = b"2016-03-01T00:%02d:%02d.000Z "
CALM = b'cpu%d:3342%d)ScsiDeviceIO: 2338: Cmd(0x4124003e0a00) 0x1a, CmdSN 0x%x from world 0 to dev "naa.6005" failed H:0x0 D:0x2 P:0x0\n'


def calm(number: int) -> bytes:
    """So many lines of an ordinary log."""
    return b"".join(STAMP % (n // 60 % 60, n % 60) + CALM % (n % 32, n % 10, n) for n in range(number))


def behind(prefix: bytes) -> Callable[[bytes], bytes]:
    """The text with something before each line."""
    return lambda text: b"".join(prefix + line + b"\n" for line in text.rstrip(b"\n").split(b"\n"))


def stamped(text: bytes) -> bytes:
    """The text with the vmkernel's own prefix where it has none."""
    own = b"2016-03-01T01:00:00.000Z cpu5:3301)"
    return b"".join((b"" if b"cpu" in line[:80] else own) + line + b"\n" for line in text.rstrip(b"\n").split(b"\n"))


def bundled(text: bytes) -> bytes:
    """The text as a vmkernel log in a support bundle."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        info = tarfile.TarInfo("esx-esx01.example.org-2016-03-01--00.00-12345/var/run/log/vmkernel.log")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    return target.getvalue()


WRAPPINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "alone": ("a.log", lambda text: text),
    "in a log": ("vmkernel.log", lambda text: calm(300) + text.rstrip(b"\n") + b"\n" + calm(300)),
    "CRLF": ("a.log", lambda text: text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")),
    "gz": ("a.log.gz", gzip.compress),
    "bundle": ("esx-esx01.example.org-2016-03-01--00.00-12345.tgz", bundled),
    "UTF-16": ("a.txt", lambda text: text.decode("utf-8", "backslashreplace").encode("utf-16")),
    "3164": ("syslog.log", behind(b"<181>2016-03-01T01:00:00.000Z esx01.example.org vmkernel: ")),
    "BSD": ("syslog.log", behind(b"Mar  1 01:00:00 esx01 vmkernel: ")),
    "5424": ("syslog.log", behind(b"<181>1 2016-03-01T01:00:00.000Z esx01.example.org vmkernel 2097 - - ")),
    "relay": ("syslog.log", behind(b"Mar  1 01:00:00 10.0.0.1 <181>2016-03-01T01:00:00.000Z esx01.example.org vmkernel: ")),
    "8.0": ("vmkernel.log", behind(b"2016-03-01T01:00:00.000Z In(182) vmkernel: ")),
    "stamp": ("vmkernel.log", stamped),
}  # fmt: skip


def _lines(form: str) -> Callable[[bytes], bytes]:
    """Each line in such a form: `{n}` is its number, `{line}` what stands in it."""
    return lambda text: b"".join(
        form.encode().replace(b"{n}", b"%7d" % n).replace(b"{line}", line) + b"\n"
        for n, line in enumerate(text.rstrip(b"\n").split(b"\n"), 1)
    )


def _escaped(text: bytes) -> str:
    return json.dumps(text.decode("utf-8", "replace"))


DRESSES: dict[str, Callable[[bytes], bytes]] = {
    "a mail's bars": _lines("| {line}"),
    "a reply's reply": _lines("> | {line}"),
    "a chat": _lines("[10:11 AM] ann.admin: {line}"),
    "a chat with dates": _lines("[1/3/2016 10:11] Admin, Ann: {line}"),
    "a channel": _lines("10:11 <ann> {line}"),
    "cat -n": _lines("{n}\t{line}"),
    "grep -n": _lines("1041:{line}"),
    "grep of a file": _lines("/var/log/vmkernel.log:1041:{line}"),
    "Select-String": _lines("C:\\logs\\vmkernel.log:17:{line}"),
    "less -N": _lines("{n} {line}"),
    "a viewer": _lines("{n}   │ {line}"),
    "a box": _lines("│ {line}          │"),
    "a comment": _lines("# {line}"),
    "a patch": _lines("+{line}"),
    "a list of strings": _lines('  "{line}",'),
    "a fence of ticks": _lines("`{line}`"),
    "a console server": _lines("[2016-03-01 01:00:07] {line}"),
    "containers": _lines("syslog-1  | {line}"),
    "kubectl": _lines("2016-03-01T01:00:00.000000000Z stdout F {line}"),
    "logcli": _lines('2016-03-01T01:00:00Z {host="esx-a", job="syslog"} {line}'),
    "a page's table": _lines("<tr><td class='n'>{n}</td><td>{line}</td></tr>"),
    "a page of one line": lambda text: b"<p>" + b"<br />".join(text.rstrip(b"\n").split(b"\n")) + b"</p>\n",
    "rich text": lambda text: b"{\\rtf1\\ansi\n\\pard\\f0\\fs20 " + text.replace(b"\n", b"\\par\n") + b"}\n",
    "a string": lambda text: b'{"ticket": "INC1", "description": ' + _escaped(text).encode() + b"}\n",
    "a cell": lambda text: b'id,created,text\n17,2016-03-01,"' + text.rstrip(b"\n") + b'"\n',
    "blanks behind": _lines("{line}                    \r"),
    "UTF-16": lambda text: text.decode("utf-8", "replace").encode("utf-16"),
}
