"""Exports of log platforms: rows that carry host, time and message -> the same lines as a syslog receiver would have kept them.

One reader for all of them, with one table of column names: Splunk, Elastic and Kibana, Log Insight, Graylog, Loki, Sentinel, journald; as
delimited text, JSON, or JSON by the line. The message's own words come first, then the columns. Rows may come newest first or in
any order.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import accumulate, chain, islice, pairwise
from operator import itemgetter
from typing import Any, BinaryIO, NamedTuple

from psodlib.evidence.artifacts.findings import ISO_STAMP, numbered_blocks, numbered_lines
from psodlib.evidence.artifacts.sheets import Row, delimited_rows, headed, json_values, key_of
from psodlib.evidence.pieces import bounded, moment_of
from psodlib.evidence.streams import noted
from psodlib.evidence.syslog import parse_host_line, read_syslog, renumbered
from psodlib.evidence.vmkernel import opens_in
from psodlib.records import FileReading, Problem

MAX_ROWS = 2_000_000
MAX_JSON = 256 << 20  # bytes of a JSON text that is no JSON by the line
MAX_DEPTH = 8  # of JSON in JSON
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# What we look for -> the names it goes by, as `key_of` gives them; nested names are joined. The first that a row has is taken.
COLUMNS: dict[str, tuple[str, ...]] = {
    "message": ("raw", "message", "syslogmessage", "text", "eventoriginal", "fullmessage", "msg", "rawmessage", "line", "logmessage", "log",
                "eventmessage", "body", "content", "rawstring", "textpayload", "payload", "utf8payload"),
    "time": ("time", "isodate", "@timestamp", "timestamp", "timegeneratedutc", "timegenerated", "eventtime", "realtimetimestamp",
             "sourcerealtimetimestamp", "messagetimems", "datetime", "receivedtime", "date", "ts"),
    "host": ("logsysloghostname", "loghostname", "hosthostname", "hostname", "syslogsourcehost", "vmwhost", "vmhost", "esxhost", "host",
             "hostname", "computer", "labelshost", "labelshostname", "streamhost", "streamhostname", "fieldshost", "sourcehost", "logsource", "source", "hostip"),
    "program": ("processname", "appname", "programname", "program", "syslogprogram", "syslogidentifier", "logsyslogappname", "ident",
                "streamapp", "labelsapp", "application", "tag", "service"),
}  # fmt: skip
# Objects that hold a row's own fields.
_WRAPS = ("_source", "result", "_raw_event")
_STAMP = re.compile(rf"(?P<stamp>{ISO_STAMP})[: ]\s*(?P<rest>.*)", re.DOTALL)
_PRIORITY = re.compile(r"<\d{1,3}>1?\s?")
_PROGRAM = re.compile(r"(?:[A-Z][a-z]\(\d{1,3}\)\+? +)?(?P<program>[A-Za-z][\w.-]{0,40})(?:\[\d{1,9}\])?: ")
_FLUENTD = re.compile(r"([\w:.+-]{19,40})\t([\w.*-]{1,80})\t\{(?=\s*\")")  # its stamp and tag stand before each object
_WITHIN = r'{"@timestamp": "\1", "tag": "\2", '
_SEVERITY = re.compile(r"[A-Z][a-z]\(\d{1,3}\)\+? +")
# A line that only the vmkernel prints.
_KERNELS = re.compile(
    r"cpu\d{1,4}:\d{1,10}|@BlueScreen|VMware ESX.{0,40}build-|0x[0-9a-f]{8,16}:\[0x|Code start: |#(?:PF|GP|DF|UD) Exception|TSC: \d|VMB: "
)
_PROGRAMS = {"vmkernel", "vmkwarning", "vmkalert", "vobd", "hostd", "vpxa", "esxupdate", "vmksummary", "heartbeat", "bootstop"}  # fmt: skip
_SCREEN = ("Code start: ", "@BlueScreen: ")
_HOST = re.compile(r"[A-Za-z0-9](?:[\w.:-]{0,253}[\w-])?", re.ASCII)
_PROGRAM_NAME = re.compile(r"[A-Za-z][\w./-]{0,40}", re.ASCII)
# Times as people's tools print them; the first that fits is taken.
_FORMATS = ("%b %d, %Y @ %H:%M:%S.%f", "%b %d, %Y @ %H:%M:%S", "%m/%d/%Y, %I:%M:%S.%f %p", "%m/%d/%Y, %I:%M:%S %p", "%m/%d/%Y %I:%M:%S %p",
            "%m/%d/%Y %H:%M:%S.%f", "%m/%d/%Y %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y, %H:%M:%S", "%d/%b/%Y:%H:%M:%S %z", "%a %b %d %H:%M:%S %Y")  # fmt: skip


class _Line(NamedTuple):
    line: int
    host: str
    program: str
    message: str
    column_time: datetime | None
    own_time: datetime | None


def is_export(text: str) -> bool:
    """Whether a text begins like rows with a message and a host or a time."""
    first = _FLUENTD.sub(_WITHIN, text.lstrip("\ufeff \n\r\t"), count=1)
    if first[:1] in ("{", "["):
        return any(_is_row(row) for row in _first_objects(first))
    lines = list(enumerate(text.split("\n", 20)[:20], 1))
    try:
        cells = next(delimited_rows(line for line in lines if len(line[1]) < 20_000), (1, []))[1]
    except csv.Error:
        return False
    return _is_row(dict.fromkeys((key_of(cell) for cell in cells), "x"))


def _is_row(row: Row) -> bool:
    # A message alone is any table's; with a time, or with a host, it is a log's.
    has = {name: any(alias in row for alias in aliases) for name, aliases in COLUMNS.items()}
    return has["message"] and (has["time"] or has["host"]) and len(row) > 1


def read_export(
    stream: BinaryIO, source: str, read_part: Callable[[BinaryIO, str, str], list[FileReading]]
) -> list[FileReading]:
    """Read an export's messages as the logs of the hosts that its rows name."""
    problems: list[Problem] = []
    rows = _in_order(list(_rows(stream, source, problems)))
    last: dict[str, str] = {}
    lines = [(line.encode("utf-8", "backslashreplace"), row.line) for row in rows for line in _as_syslog(row, last)]
    numbers = [number for _, number in lines]
    readings = read_syslog(BytesIO(b"\n".join(line for line, _ in lines)), source, read_part)
    readings = [renumbered(reading, numbers) for reading in readings]
    if all(reading.irrelevant for reading in readings):
        detail = f"an export of {len(rows)} log rows, in which nothing of an ESXi host was found"
        problems.append(noted(source, "unused", detail))
    if problems:
        readings.append(FileReading(source=source, kind="export", problems=tuple(problems)))
    return [replace(reading, kind=reading.kind.replace("syslog:", "export:", 1)) for reading in readings]


# --- syntaxes -> rows -------------------------------------------------------------------------------------------------


def _rows(stream: BinaryIO, source: str, problems: list[Problem]) -> Iterator[_Line]:
    lines = ((number, _FLUENTD.sub(_WITHIN, line, count=1)) for number, line in numbered_lines(numbered_blocks(stream)))
    first = next((line for line in lines if line[1].strip()), (1, ""))
    given = chain([first], lines)
    is_json = first[1].lstrip("\ufeff ")[:1] in ("{", "[")
    count = 0
    try:
        for line, fields in _json_objects(given) if is_json else _delimited(given):
            if row := _row(line, fields):
                count += 1
                if count > MAX_ROWS:
                    raise ValueError(f"more than {MAX_ROWS:,} rows; split the export")
                yield row
    except (ValueError, RecursionError, csv.Error) as error:
        detail = f"an export that is damaged, cut short or too long ({str(error)[:200]}); the {count} rows before that are used"
        problems.append(noted(source, "truncated", detail, first[0]))


def _delimited(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
    for number, fields in headed(delimited_rows(lines)):
        if fields.get("labels", "").startswith("{"):  # Grafana
            with suppress(ValueError, AttributeError, RecursionError):
                fields = _collected(json.loads(fields["labels"]), "labels") | fields
        yield number, fields


def _first_objects(text: str) -> Iterator[Row]:
    # The first rows of a JSON text of which only the head is at hand: whole objects, wherever they begin.
    decoder = json.JSONDecoder()
    for match in islice(re.finditer(r"\{", text), 40):
        with suppress(ValueError, RecursionError):
            yield from islice(_flattened(decoder.raw_decode(text, match.start())[0]), 5)


def _json_objects(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
    # One object a line, or one JSON text over all lines.
    held: list[str] = []
    begin, size = 1, 0
    for number, line in lines:
        if not held and line.lstrip("\ufeff ").startswith("{") and line.rstrip().endswith(("}", "},")):
            with suppress(ValueError):
                value = json.loads(line.strip("\ufeff \r,"))
                yield from ((number, fields) for fields in _flattened(value))
                continue
        begin = begin if held else number
        held.append(line)
        size += len(line) + 1
        if size > MAX_JSON:
            raise ValueError(f"JSON of more than {MAX_JSON >> 20} MB in one piece; export it by the line")
    for number, value in json_values("\n".join(held), begin, within=True):
        yield from ((number, fields) for fields in _flattened(value))


def _flattened(value: Any, depth: int = 0) -> Iterator[Row]:
    # Objects that have a message, however deep in answers and hits they stand; fields by their joined names.
    if depth > MAX_DEPTH or not isinstance(value, (dict, list)):
        return
    inner: Iterable[Any] = value
    if isinstance(value, dict):
        columns = value.get("columns") or value.get("fields")
        cells = value.get("rows") or value.get("values")
        if isinstance(columns, list) and isinstance(cells, list):
            names = [key_of(str(name.get("name", "") if isinstance(name, dict) else name)) for name in columns]
            rows = (row for row in cells if isinstance(row, list))
            yield from ({name: _text(cell) for name, cell in zip(names, row, strict=False)} for row in rows)
            return
        fields = _collected(value)
        if _is_row(fields):
            yield fields
            return
        if isinstance(value.get("stream"), dict) and isinstance(value.get("values"), list):  # Loki
            labels = _collected(value["stream"])
            pairs = (pair for pair in value["values"] if isinstance(pair, list) and len(pair) > 1)
            yield from (labels | {"time": _text(pair[0]), "message": _text(pair[1])} for pair in pairs)
            return
        inner = value.values()
    for item in inner:
        yield from _flattened(item, depth + 1)


def _collected(value: dict[str, Any], prefix: str = "", depth: int = 0) -> Row:
    fields: Row = {}
    for name, item in value.items():
        key = prefix if name in _WRAPS else prefix + key_of(str(name))
        if isinstance(item, dict) and depth < MAX_DEPTH:
            fields = _collected(item, key, depth + 1) | fields
        elif isinstance(item, list) and item and all(isinstance(one, dict) and "name" in one for one in item[:50]):
            for one in item[:200]:  # Log Insight: {"name": "hostname", "content": "esx01"}
                fields.setdefault(key_of(str(one["name"])), _text(one.get("content", one.get("value"))))
        elif not isinstance(item, list) or (len(item) == 1 and not isinstance(item[0], (dict, list))):
            fields.setdefault(key, _text(item[0] if isinstance(item, list) else item))
    return fields


def _text(value: Any) -> str:
    return "" if value is None or isinstance(value, (dict, list)) else str(value)


# --- rows -> lines ----------------------------------------------------------------------------------------------------


def _row(line: int, fields: Row) -> _Line | None:
    told = {name: next(filter(None, map(fields.get, aliases)), "") for name, aliases in COLUMNS.items()}
    message = _PRIORITY.sub("", told["message"].lstrip("\ufeff \t"), count=1)
    host, program = told["host"].strip(), told["program"].strip()
    host = host if _HOST.fullmatch(host) and host.count(":") != 1 else ""
    program = program if _PROGRAM_NAME.fullmatch(program) else ""
    times = (_moment(told["time"]), moment_of(message)) if message.strip() else ()
    return _Line(line, host, program, message, *times) if times else None


def _moment(text: str) -> datetime | None:
    # A time in any of the ways that platforms print it.
    text = text.strip()
    if re.fullmatch(r"\d{9,19}(?:\.\d{1,9})?", text):
        whole, _, part = text.partition(".")
        scale = 10 ** max(0, len(whole) - 10)
        value = int(whole) * 1_000_000 // scale + (int(part[:6].ljust(6, "0")) if part and scale == 1 else 0)
        return bounded(_EPOCH + timedelta(microseconds=value))
    if moment := moment_of(text):
        return moment
    for form in _FORMATS:
        with suppress(ValueError):
            found = datetime.strptime(text, form)
            return bounded(found if found.tzinfo else found.replace(tzinfo=UTC))
    return None


def _in_order(rows: list[_Line]) -> list[_Line]:
    # Oldest first. A row whose message bears no time of its own stays behind the one that it followed.
    times = [row.own_time or row.column_time for row in rows]
    known = [time for time in times if time]
    falls = sum((later < earlier) - (later > earlier) for earlier, later in pairwise(known))
    if falls == 0:  # times to the second leave a screen's lines equal: where the code starts stands behind the header
        places = {word: at for at, row in reversed(list(enumerate(rows))) for word in _SCREEN if word in row.message}
        falls = _SCREEN[0] in places and places[_SCREEN[0]] < places.get(_SCREEN[1], 0)
    if falls > 0:
        rows, times = rows[::-1], times[::-1]
    filled = list(accumulate(times, lambda last, time: time or last, initial=known[0] if known else None))[1:]
    return [row for _, row in sorted(zip(filled, rows, strict=True), key=itemgetter(0))] if known else rows


def _as_syslog(row: _Line, last: dict[str, str]) -> Iterator[str]:
    # `stamp host program: text`, from the message's own head or from the columns.
    first, *more = row.message.split("\n")
    own = _STAMP.match(first)
    stamp = own["stamp"] if own else None
    if own is None and row.column_time:
        stamp = f"{row.column_time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
    rest = own["rest"] if own else first
    if parse_host_line(first.encode("utf-8", "backslashreplace")) is not None:
        yield from (first, *more)
        return
    named = _PROGRAM.match(rest)
    if named and named["program"].lower() in _PROGRAMS:
        program, rest = named["program"], rest[named.end() :]
    elif _KERNELS.match(_SEVERITY.sub("", rest)):
        program, rest = "vmkernel", _SEVERITY.sub("", rest)
    elif row.program:
        program = row.program.rpartition("/")[2]
    elif opens_in(rest.encode("utf-8", "backslashreplace")):
        program = "vmkernel"
    else:
        program = last.get(row.host, "export")  # more of what was said before; else nobody knows whose it is
    last[row.host] = program
    yield rest if stamp is None else f"{stamp} {row.host or 'localhost'} {program}: {rest}"
    yield from more
