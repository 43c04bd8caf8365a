"""One readable file, or one archive -> all that it says: look at its beginning, send it to the reader of its kind, note where it stood."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import chain
from typing import BinaryIO, cast

import msgspec

from psodlib.evidence.archives import Item
from psodlib.evidence.artifacts import KINDS, problem_of_unknown, read_artifact, read_book, recognise
from psodlib.evidence.artifacts.sheets import is_workbook
from psodlib.evidence.artifacts.terminal import BOUNDARY, has_prompt
from psodlib.evidence.dress import worn
from psodlib.evidence.encodings import Recoded, decoded, encoding_of
from psodlib.evidence.exports import COLUMNS, is_export, read_export
from psodlib.evidence.heads import Heads
from psodlib.evidence.psod import find_crashes
from psodlib.evidence.sources import Unit, open_unit
from psodlib.evidence.streams import BLOCK, HASHED, Stream
from psodlib.evidence.syslog import SYSLOG_LINE, is_syslog, read_syslog
from psodlib.evidence.vmkernel import may_tell, opens_in, read_vmkernel
from psodlib.records import FileReading, Problem

FIRST = 4 << 10  # bytes that tell a log
SNIFFED = 64 << 10
MAX_NULS = 4 << 20
MAX_CAPTURE = 16 << 20  # bytes of a terminal's capture that are looked at for outputs
MAX_BOOK = 256 << 20  # bytes of a workbook
_VMKERNEL_WORDS = (b"@BlueScreen:", b"VMK uptime: ", b"Code start: 0x")
_VMKERNEL_PREFIX = re.compile(rb"cpu(?<=\bcpu)\d{1,4}:\d{1,10}[^)\n]{0,80}\)")
# Files that are no text and no evidence: what they are, and the first bytes by which they are known.
_NO_TEXT = {
    "picture": ("a picture", (b"\x89PNG", b"\xff\xd8\xff", b"GIF8")),
    "document": ("a document (PDF, Word, an archive of one)", (b"%PDF", b"PK\x03\x04", b"\xd0\xcf\x11\xe0")),
    "program": ("a program", (b"\x7fELF",)),
    "table": ("a Parquet file", (b"PAR1",)),
    "database": ("a database", (b"SQLite format 3",)),
    "binary": ("no text and nothing that is known here", ()),
}
# What stands in lines and is no text of theirs; of each, a byte that tells at once that there is none.
_MARKS = (
    (b"\x1b", re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]"), b""), (b"\0", re.compile(rb"\0+"), b""), (b"\r", re.compile(rb"\r\n"), b"\n"),
    (b"\xc2", re.compile(rb"\xc2\xa0"), b" "), (b"\\", re.compile(rb"\\(?=[\[\]~])"), b""),
)  # fmt: skip
_CONTROLS = bytes([*range(9), *range(14, 27), *range(28, 32), 127])
_LOG_NAME = re.compile(r"zdump|vmkernel|log|\.txt$|psod|crash", re.IGNORECASE)
_KERNEL_WORDS = re.compile(
    r"0x[0-9a-f]{6,}|BlueScreen|Backtrace|PCPU|Spin count|Exception \d|ALERT|WARNING|heartbeat|\bcpu\b|\besxcli |\bvm(?:nic|hba)\d",
    re.IGNORECASE,
)
# Headings with blank lines around, fences, rules of tables, links: two of them make a text a document.
_MARKDOWN = re.compile(
    r"(?:\A|\n\n)#{1,6} [A-Z][^\n:]*(?=\n\s*\n)|^(?:```|~~~|\|?(?: ?:?-{3,}:? ?\|)+ ?(?::?-{3,}:?)? ?$)|\[[^\]\n]{1,80}\]\(\w[^)\s]{1,300}\)",
    re.MULTILINE,
)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~).*$", re.MULTILINE)
_STAMPED = re.compile(r"^(?:<\d+>)?(?:\d{4}-\d\d-\d\d[T ]\d\d:\d\d|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d )")
# Folders of a bundle or collection that hold hundreds of outputs and settings which say nothing of crashes.
_SIDE_FOLDERS = re.compile(r"(?:^|/)(?:commands|etc|proc|usr|json|action|vmfs|var/lib)/")
# What else a beginning may show, behind the kinds of artifacts; all in one pass. Each is looked for again by its own pattern.
_VMKERNEL, _SYSLOG, _BOUNDARY, _DOCUMENT, _EXPORT = range(len(KINDS), len(KINDS) + 5)
_HEADS = Heads(
    [
        *(kind.pattern.pattern for kind in KINDS),
        "|".join(word.decode() for word in _VMKERNEL_WORDS) + "|" + _VMKERNEL_PREFIX.pattern.decode(),
        SYSLOG_LINE,
        BOUNDARY,
        _MARKDOWN.pattern,
        r"\A\W*[\[{]|\A[\w:.+-]+\t\S+\t\{|\A(?:(?:#TYPE |\"?sep=)[^\n]*\n|\s*\n)*[^\n]*(?i:"
        + "|".join(COLUMNS["message"][:4])
        + "|msg|line|log|body|content)",
    ]
)


def read_unit(unit: Unit) -> tuple[list[FileReading], list[Problem]]:
    """All that one file, or one archive with all its members, says: a pure function of its bytes, wherever it runs."""
    readings: list[FileReading] = []
    problems: list[Problem] = []
    passed: Counter[str] = Counter()
    members = size = 0
    for found in open_unit(unit):
        if isinstance(found, Problem):
            problems.append(found)
            continue
        told = read_item(found)
        readings += told
        members += found.source != unit.source
        if members and all(reading.irrelevant for reading in told):
            passed[told[0].kind if told else "other"] += 1
            size += found.size
    if passed:  # an archive's members of no use are not listed one by one
        kinds = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in passed.most_common())
        detail = f"{passed.total():,} of {members:,} members hold nothing of use here ({kinds}; {size / 1e6:,.1f} MB as stored); told by their content"
        problems.append(Problem(source=unit.source, problem="unused", detail=detail))
    return readings, problems


def read_units(units: Sequence[Unit]) -> list[tuple[Unit, bytes]]:
    """Several, each packed: a worker's task. It stands here because a worker that makes no table need not import what makes them."""
    encode = msgspec.msgpack.Encoder().encode
    return [(unit, encode(read_unit(unit))) for unit in units]


def read_item(item: Item) -> list[FileReading]:
    """Read one file, whatever it is.

    Notes
    -----
    Content never raises: damage and trouble stand in ``problems``.
    """
    with item.open() as stream:
        try:
            readings = _read(stream, item)
        except Exception as error:  # the last guard: a bug in a reader must not cost the other files
            readings = _nothing(
                item, "", "unreadable", f"{type(error).__name__}: {error}; please report this with the file"
            )
    several = len({reading.host for reading in readings if reading.host}) > 1
    placed = []
    for index, reading in enumerate(readings):
        host = reading.host or next((fact.host for fact in reading.facts if fact.host), None)
        if reading.kind.startswith("syslog:") and item.hint_kind == "bundle":
            host = None  # a bundle's name is the stronger word; syslog lines often have the short name
        # A file of several hosts, or a table of a fleet, says nothing of whose folder it lies in.
        anyones = host is not None and (several or reading.kind.startswith(("table", "export")))
        placed.append(replace(
            reading, host=host, hint=None if anyones else item.hint, sha256=None if reading.irrelevant else stream.sha256, size=stream.count,
            mtime=item.mtime, collected=item.collected, problems=reading.problems + (tuple(stream.problems) if index == 0 else ()),
        ))  # fmt: skip
    return placed


def _nothing(item: Item, kind: str, problem: str = "", detail: str = "") -> list[FileReading]:
    # It is known to be of no use, or something is wrong with it.
    problems = (Problem(source=item.source, problem=problem, detail=detail),) if problem else ()
    return [FileReading(source=item.source, kind=kind, problems=problems, irrelevant=not problem)]


def _read(stream: Stream, item: Item) -> list[FileReading]:
    head = stream.peek(FIRST)
    found = _HEADS.found(head)
    if found and found[-1] < len(KINDS) and KINDS[found[0]].is_log and b"\0" not in head and head[:1] != b"\xef":
        kind = recognise(_text(head), "", found)
        if kind is not None and kind.is_log:
            return read_artifact(cast(BinaryIO, stream), item.source, item.name, _taken(item), kind)
    head = stream.peek(SNIFFED)
    if not head and stream.problems:
        return [FileReading(source=item.source, kind="")]
    if not head:
        return _nothing(item, "", "empty", "no bytes in it")
    if not head.strip(b"\0"):  # a file whose host crashed may begin with blocks that were never written
        whole = stream.peek(MAX_NULS)
        head = whole.lstrip(b"\0")[:SNIFFED]
        detail = f"begins with {len(whole) - len(whole.lstrip(bytes(1)))} NULs or more: what stood there is lost"
        stream.problems.append(Problem(source=item.source, problem="bad_line", line=1, detail=detail))
    if is_workbook(head):
        told = read_book(stream.read(MAX_BOOK), item.source, _taken(item))
        return _of_binary("document", item) if told[0].kind == "document" else told
    encoding, text = encoding_of(head), head
    if encoding is not None or b"\0" in head or head[:1] in (b"\xff", b"\xfe"):
        wide = encoding not in (None, "utf-8-sig")
        text = decoded(head[: len(head) & ~1] if wide else head).encode("utf-8", "backslashreplace")
    bare = _bare(text).lstrip()
    if len(bare) > FIRST or bare is not head:
        found = _HEADS.found(bare)
    if encoding is None and not (_VMKERNEL in found and is_vmkernel(head)) and (kind_of_binary := binary_kind(head)):
        if kind_of_binary != "binary" or not is_vmkernel(stream.peek(MAX_NULS)):  # a log may stand behind junk
            return _of_binary(kind_of_binary, item)
        detail = "begins with bytes that are no text; what stands behind them is read"
        stream.problems.append(Problem(source=item.source, problem="not_text", line=1, detail=detail))
    return _read_text(stream, encoding, text, item, found)


def _bare(head: bytes) -> bytes:
    for sign, pattern, plain in _MARKS:
        head = pattern.sub(plain, head) if sign in head else head
    dress = worn(head[:8192].decode("latin-1"))
    return dress.sub("", head.decode("latin-1")).encode("latin-1") if dress else head


def _text(head: bytes) -> str:
    return _bare(head).decode("utf-8", "backslashreplace")


def _read_text(stream: Stream, encoding: str | None, head: bytes, item: Item, found: list[int]) -> list[FileReading]:
    text_of = _recoded(stream, encoding)
    name = item.name.rpartition("/")[2]
    # What people say of an incident is the write-up's, what a collection says of itself the report's: no evidence.
    if name == "incident.toml" or (name == "manifest.json" and b'"clock_offset"' in head):
        return _nothing(item, "account")

    def read_part(part: BinaryIO, source: str, kind: str) -> list[FileReading]:
        if kind == "vmkernel":
            return [read_vmkernel(part, source)]
        return read_artifact(part, source, item.name, item.collected)

    if _EXPORT in found and is_export(_text(head)):
        return read_export(text_of, item.source, read_part)
    if _SYSLOG in found and is_syslog(head):
        return read_syslog(text_of, item.source, read_part)
    text = _text(head) if found else ""
    like_vmkernel = _VMKERNEL in found and is_vmkernel(head) and not _is_json(text)
    # Nothing that the head looks like wins over a crash in it.
    crashes = find_crashes(head) if opens_in(head) and not _is_json(_text(head)) else []
    has_outputs = _BOUNDARY in found and has_prompt(text)
    if _DOCUMENT in found and len(_MARKDOWN.findall(text)) > 1:  # what it quotes may be all of it
        fenced = sum(map(len, _FENCE.split(text)[1::2])) if has_outputs else 0
        if 2 * max(fenced, sum(len(crash.text) for crash in crashes)) < len(text):
            # Else it may be another host's, another day's: nobody took it as evidence.
            if not (crashes or has_outputs):
                return _nothing(item, "document")
            detail = "outputs of a host, no evidence; put what it quotes into a file of its own"
            if crashes:
                detail = "a crash, no evidence of a host; `parse_crashes` reads what it quotes"
            return _nothing(item, "", "unknown_format", f"a document that quotes {detail}")
    if has_outputs or (crashes and not like_vmkernel):
        # A capture of a terminal may hold outputs and a dump log's text: both readers see all of it.
        seen: list[bytes] = []
        while sum(map(len, seen)) < MAX_CAPTURE and (block := text_of.read(BLOCK)):
            seen.append(block)
        readings = read_artifact(io.BytesIO(b"".join(seen)), item.source, item.name, _taken(item))
        both = Stream(chain(seen, iter(partial(text_of.read, BLOCK), b"")), item.source)
        log = read_vmkernel(cast(BinaryIO, both), item.source)
        readings += [log] if like_vmkernel or log.crashes else []
        return readings or _of_unknown(head, item)
    kinds = [place for place in found if place < len(KINDS)]
    kind = recognise(text, name.removesuffix(".txt"), kinds) if kinds and not like_vmkernel else None
    if kind is not None:
        told = read_artifact(text_of, item.source, item.name, _taken(item), kind)
        silent = [one for one in told if not one.facts and [problem.problem for problem in one.problems] == ["unused"]]
        if silent == told and stream.again and opens_in(head):  # a document of one text that is a crash
            with stream.again() as fresh:
                log = read_vmkernel(_recoded(fresh, encoding), item.source)
            told, silent = ([log], []) if log.crashes else (told, silent)
        noise = silent if _is_one_of_hundreds(item) else []
        return [replace(one, problems=(), irrelevant=True) if one in noise else one for one in told]
    if like_vmkernel:
        return [read_vmkernel(text_of, item.source)]
    reading = _searched(stream, encoding, item)
    # A text that does not look like vmkernel's: a stamp alone makes no sign of life.
    unread = reading and any(problem.problem == "unread_crash" for problem in reading.problems)
    if reading and (unread or reading.crashes or reading.drivers or reading.modules):
        return [reading]
    return _of_unknown(head, item)


def _searched(stream: Stream, encoding: str | None, item: Item) -> FileReading | None:
    # Most texts say nothing: one quick search of all of it, and another reading from its start where that found something.
    if stream.again is None or item.size > HASHED:
        return read_vmkernel(_recoded(stream, encoding), item.source)
    if not may_tell(iter(partial(_recoded(stream, encoding).read, BLOCK), b"")):
        return None
    with stream.again() as fresh:
        reading = read_vmkernel(_recoded(fresh, encoding), item.source)
        stream.count, stream.stored = fresh.count, fresh
    return reading


def _recoded(stream: Stream, encoding: str | None) -> BinaryIO:
    return cast(BinaryIO, Stream(Recoded(stream, encoding), stream.source))


def is_vmkernel(head: bytes) -> bool:
    """Whether the beginning of a text looks like the vmkernel's own lines."""
    return any(word in head for word in _VMKERNEL_WORDS) or _VMKERNEL_PREFIX.search(head) is not None


def _is_json(text: str) -> bool:
    # A document may quote log lines; JSON lines, one message each, are a log.
    try:
        return text[:1] in "[{" and isinstance(json.loads(text), (dict, list))
    except (ValueError, RecursionError):
        return False


def _taken(item: Item) -> datetime | None:
    # When an output was printed: a bundle's name, or the stamp that its archive kept. A loose file's stamp is often a copy's.
    return item.collected or (item.mtime if "!" in item.source else None)


def _is_one_of_hundreds(item: Item) -> bool:
    # A bundle has hundreds of outputs and settings that look like something and say nothing.
    return item.hint_kind == "bundle" or _SIDE_FOLDERS.search(item.name) is not None


# --- what is none of ours ---------------------------------------------------------------------------------------------


def binary_kind(head: bytes) -> str | None:
    """What bytes are that are no text. Text may begin with a run of NULs: a dump log is a ring buffer."""
    kind = next((kind for kind, (_, magic) in _NO_TEXT.items() if head.startswith(magic)), None)
    odd = len(head) - len(head.translate(None, _CONTROLS))
    nuls = head.count(0) if odd else 0
    # Packed bytes may hold few enough control characters by chance, and hold no words of UTF-8 for long.
    wrong = 0 if head.isascii() else len(head) - len(head.decode("utf-8", "ignore").encode())
    return kind or ("binary" if 10 * (odd - nuls) > len(head) - nuls > 0 or 4 * wrong > len(head) else None)


def _of_binary(kind: str, item: Item) -> list[FileReading]:
    if kind == "binary" and _LOG_NAME.search(item.name.rpartition("/")[2]):
        detail = "named like a log or dump and no text; on a host, `vmkdump_extract -l` or `esxcfg-dumppart -L` makes the text of a dump"
        return _nothing(item, "", "not_text", detail)
    if "!" in item.source or _is_one_of_hundreds(item):  # counted by its archive
        return _nothing(item, kind)
    return _nothing(item, "", "unused", f"{_NO_TEXT[kind][0]}; if it shows a crash, put its text into a .txt beside it")


def _of_unknown(head: bytes, item: Item) -> list[FileReading]:
    if _is_one_of_hundreds(item) and not head.isspace():
        return _nothing(item, "other_output")
    if kind := _irrelevant_kind(_text(head)):
        return _nothing(item, kind)
    return [FileReading(source=item.source, kind="", problems=(problem_of_unknown(item.source),))]


def _irrelevant_kind(text: str) -> str | None:
    lines = [line for line in text.split("\n")[:400] if line.strip()]
    some = lines[:40]
    if 2 * sum(bool(_STAMPED.match(line)) for line in some) > len(some):
        return "other_log"
    words = [word.strip(".,;:()*_`'\"-") for line in lines for word in line.split()]
    is_prose = 10 * sum(word.isalpha() for word in words) > 6 * len(words) and len(words) >= 4 * len(lines)
    kind = "other_json" if _is_json(text) else "prose" if is_prose and lines else None
    return kind if kind and not _KERNEL_WORDS.search(text) else None  # a slow search, and few come here
