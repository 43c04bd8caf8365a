"""Exports of log platforms: a crash in the message column is the host's, whatever wrote the rows and in whatever order."""

from __future__ import annotations

import csv
import io
import json
import random
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from conftest import LONG
from hypothesis import given, settings
from hypothesis import strategies as st

from psodlib import load
from psodlib.evidence.archives import Item
from psodlib.evidence.artifacts import read_artifact
from psodlib.evidence.exports import _moment, is_export, read_export
from psodlib.evidence.reading import read_item
from psodlib.evidence.sources import iter_items
from psodlib.evidence.vmkernel import read_vmkernel
from psodlib.records import FileReading

STAMP = "2023-02-03T04:05:06.{:03d}Z"
SCREEN = [
    "cpu3:2100041)@BlueScreen: #PF Exception 14 in world 2100041:ntg3-poll IP 0x42001b2c1d11 addr 0x10",
    "cpu3:2100041)PTEs:0x8100063;0x0;",
    "cpu3:2100041)Code start: 0x42001a000000 VMK uptime: 12:03:04:05.678",
    'cpu3:2100041)0x451a0899bd40:[0x42001b2c1d11]ntg3_tx_done@(ntg3)#<None>+0x51 stack: 0x0, "quoted"',
    "cpu3:2100041)0x451a0899bdb0:[0x42001b2c2e22]ntg3_poll@(ntg3)#<None>+0x1f2 stack: 0x0",
    "cpu3:2100041)0x451a0899bfe0:[0x42001a1b3c44]CpuSched_StartWorld@vmkernel#nover+0x86 stack: 0x0",
    "cpu3:2100041)base fs=0x0 gs=0x420040c00000 Kgs=0x0",
]
Rows = list[tuple[str, str, str]]  # time, host, message


def rows_of(host: str, *, own_time: bool = True) -> Rows:
    times = [STAMP.format(at) for at in range(len(SCREEN))]
    return [(time, host, f"{time} {line}" if own_time else line) for time, line in zip(times, SCREEN, strict=True)]


def delimited(header: list[str], rows: list[list[Any]], delimiter: str = ",") -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    return out.getvalue()


def lines(rows: list[Any]) -> str:
    return "\n".join(json.dumps(row) for row in rows)


def nanos(time: str) -> str:
    return str((1675397106000 + int(time[20:23])) * 1_000_000)


FORMS = {
    "Splunk CSV": lambda rows: delimited(["_time", "host", "source", "_raw"], [[t, "collector", "udp:514", f"<166>{t} {h} vmkernel: {m.split(' ', 1)[1]}"] for t, h, m in rows]),
    "Splunk JSON": lambda rows: lines([{"preview": False, "offset": at, "result": {"_raw": m, "_time": t, "host": h}} for at, (t, h, m) in enumerate(rows)]),
    "Splunk results": lambda rows: json.dumps({"preview": False, "results": [{"_raw": m, "_time": t, "host": h} for t, h, m in rows]}, indent=1),
    "Splunk rows": lambda rows: json.dumps({"fields": ["_time", "host", "_raw"], "rows": [list(row) for row in rows]}),
    "Elastic by the line": lambda rows: lines([{"_index": "x", "_source": {"@timestamp": t, "host": {"name": h}, "message": m}} for t, h, m in rows]),
    "Elastic hits": lambda rows: json.dumps({"took": 1, "hits": {"total": 7, "hits": [
        {"_id": "x", "_source": {"@timestamp": t, "host": {"name": "shipper"}, "log": {"syslog": {"hostname": h, "appname": "vmkernel"}}, "message": m}} for t, h, m in rows]}}),
    "Elastic bulk": lambda rows: "\n".join('{"index": {"_index": "x"}}\n' + json.dumps({"@timestamp": t, "hostname": h, "message": m}) for t, h, m in rows),
    "Kibana fields": lambda rows: lines([{"fields": {"@timestamp": [t], "host.name": [h], "message": [m]}} for t, h, m in rows]),
    "Kibana CSV": lambda rows: delimited(["@timestamp", "host.name", "message"], [[f"Feb 3, 2023 @ 04:05:06.{t[20:23]}", h, m] for t, h, m in rows]),
    "Kibana CSV, semicolons": lambda rows: delimited(["message", "host.hostname", "@timestamp"], [[m, h, t] for t, h, m in rows], ";"),
    "Log Insight CSV": lambda rows: delimited(["text", "timestamp", "source", "hostname", "appname"], [[m, t, "10.0.0.7", h, "vmkernel"] for t, h, m in rows]),
    "Log Insight JSON": lambda rows: json.dumps({"complete": True, "events": [
        {"text": m, "timestamp": int(nanos(t)) // 10**6, "fields": [{"name": "hostname", "content": h}, {"name": "appname", "content": "vmkernel"}]} for t, h, m in rows]}),
    "Graylog CSV": lambda rows: delimited(["timestamp", "source", "message"], [[t, h, m] for t, h, m in rows]),
    "Sentinel CSV": lambda rows: delimited(["TimeGenerated [UTC]", "Computer", "ProcessName", "SyslogMessage"], [[f"2/3/2023, 4:05:06.{t[20:23]} AM", h, "vmkernel", m] for t, h, m in rows]),
    "Loki": lambda rows: json.dumps({"data": {"result": [{"stream": {"host": h, "app": "vmkernel"}, "values": [[nanos(t), m]]} for t, h, m in rows]}}),
    "syslog-ng JSON": lambda rows: lines([{"PROGRAM": "vmkernel", "ISODATE": t, "HOST": h, "DATE": "Feb  3 04:05:06", "MESSAGE": m} for t, h, m in rows]),
    "Datadog CSV": lambda rows: delimited(["Date", "Host", "Service", "Message"], [[t, h, "vmkernel", m] for t, h, m in rows]),
    "Grafana CSV": lambda rows: delimited(["Time", "Line", "labels"], [[t, m, json.dumps({"host": h, "app": "vmkernel"})] for t, h, m in rows]),
    "Sumo CSV": lambda rows: delimited(["_messagetimems", "_messagetime", "_raw", "_sourcehost"], [[int(nanos(t)) // 10**6, "02/03/2023 04:05:06", m, h] for t, h, m in rows]),
    "LogScale JSON": lambda rows: lines([{"@timestamp": int(nanos(t)) // 10**6, "host": h, "@rawstring": m} for t, h, m in rows]),
    "Log Analytics answer": lambda rows: json.dumps({"tables": [{"name": "PrimaryResult", "columns": [{"name": "TimeGenerated"}, {"name": "Computer"}, {"name": "SyslogMessage"}], "rows": [list(row) for row in rows]}]}),
    "QRadar CSV": lambda rows: delimited(["Log Source", "Time", "Payload"], [[h, "Feb 3, 2023, 4:05:06 AM", f"<166>{t} {h} vmkernel: {m.split(' ', 1)[1]}"] for t, h, m in rows]),
    "Fluentd": lambda rows: "\n".join(f"{t[:19]}+00:00\tesx.syslog\t" + json.dumps({"host": h, "ident": "vmkernel", "message": m}) for t, h, m in rows),
    "journal JSON": lambda rows: lines([{"__REALTIME_TIMESTAMP": nanos(t)[:-3], "_HOSTNAME": h, "SYSLOG_IDENTIFIER": "vmkernel", "MESSAGE": m} for t, h, m in rows]),
}  # fmt: skip


def read(text: str) -> list[FileReading]:
    def part(stream: BinaryIO, source: str, kind: str) -> list[FileReading]:
        return [read_vmkernel(stream, source)] if kind == "vmkernel" else read_artifact(stream, source, "x")

    assert is_export(text)
    return read_export(BytesIO(text.encode()), "export", part)


def crashes(readings: list[FileReading]) -> list[tuple[Any, ...]]:
    found = [(reading.host, crash) for reading in readings for crash in reading.crashes]
    return [(host, one.time and one.time.isoformat(), one.world_name, len(one.frames)) for host, one in found]


WHOLE = ("2023-02-03T04:05:06+00:00", "ntg3-poll", 3)


@pytest.mark.parametrize("order", ["oldest first", "newest first"])
@pytest.mark.parametrize("own_time", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_a_crash_in_an_export(form: str, own_time: bool, order: str) -> None:
    rows = rows_of("esx-e1.lab", own_time=own_time)
    if form in ("Splunk CSV", "QRadar CSV"):  # its message is the whole line
        rows = rows_of("esx-e1.lab")
    text = FORMS[form](rows[::-1] if order == "newest first" else rows)
    (crash,) = crashes(read(text))
    assert crash == ("esx-e1.lab", *WHOLE)


@settings(max_examples=40 * LONG, deadline=None)
@given(
    st.sampled_from(sorted(FORMS)), st.randoms(use_true_random=False), st.integers(0, 20),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]), st.booleans(),
)  # fmt: skip
def test_rows_in_any_order_among_other_hosts_rows(
    tmp_path_factory: pytest.TempPathFactory, form: str, chance: random.Random, others: int, encoding: str, crlf: bool
) -> None:
    rows = rows_of("esx-e1.lab")
    for at in range(others):
        time = STAMP.format(chance.randrange(0, 999))
        rows.append((time, chance.choice(["esx-e2.lab", "esx-e3.lab"]), f"{time} cpu1:20{at:04d})Hello: {at}: ok"))
    chance.shuffle(rows)
    text = FORMS[form](rows).replace("\r\n", "\n")
    path = tmp_path_factory.mktemp("export") / "rows.txt"
    path.write_bytes((text.replace("\n", "\r\n") if crlf else text).encode(encoding))
    (item,) = iter_items(path)
    assert isinstance(item, Item)
    assert crashes(read_item(item)) == [("esx-e1.lab", *WHOLE)]


@pytest.mark.parametrize("order", ["oldest first", "newest first"])
@pytest.mark.parametrize("form", ["Datadog CSV", "Grafana CSV", "Graylog CSV"])
def test_times_to_the_second_leave_the_screens_order(form: str, order: str) -> None:
    rows = [("2023-02-03T04:05:06Z", host, line) for _, host, line in rows_of("esx-e1.lab", own_time=False)]
    assert crashes(read(FORMS[form](rows[::-1] if order == "newest first" else rows))) == [("esx-e1.lab", *WHOLE)]


def test_labels_that_are_none() -> None:
    text = delimited(["Time", "Line", "labels"], [["2023-02-03T04:05:06Z", line, "{app=x"] for line in SCREEN])
    assert crashes(read(text)) == [(None, *WHOLE)]


def test_the_row_of_the_export_is_the_crashs_line() -> None:
    rows = rows_of("esx-e1.lab")
    (reading,) = read(FORMS["Log Insight CSV"](rows[::-1]))
    assert reading.crashes[0].line == len(rows) + 1 and reading.kind.startswith("export:")


def test_a_message_of_several_lines_and_other_programs() -> None:
    rows = [
        [
            "2023-02-03T04:05:06.000Z",
            "esx-e1",
            "\n".join(f"{STAMP.format(at)} {line}" for at, line in enumerate(SCREEN)),
        ],
        ["2023-02-03T03:00:01Z", "esx-e2", "heartbeat: up 3d1h0m0s, 7 VMs; [[1 vmx 1kB]] []"],
    ]
    readings = read(delimited(["_time", "host", "_raw"], rows))
    assert crashes(readings) == [("esx-e1", *WHOLE)]
    assert [
        alive.boot.isoformat()
        for reading in readings
        for alive in reading.alive
        if reading.host == "esx-e2" and alive.boot
    ] == ["2023-01-31T02:00:01+00:00"]


@pytest.mark.parametrize("cut", [40, 200])
def test_an_export_that_was_cut_says_so(cut: int) -> None:
    readings = read(FORMS["Splunk results"](rows_of("esx-e1"))[:-cut])
    assert len(crashes(readings)) == 1
    assert [problem.problem for reading in readings for problem in reading.problems] == ["truncated"]


@pytest.mark.parametrize(
    "text",
    ['{"hosts": ["esx01"], "files": 12}', '[{"Name": "lpfc", "Version": "1.2", "Vendor": "x"}]', "Name,Version,Vendor\nlpfc,1,x\n", "Host,Cluster\nesx1,A\n",
     "a message for you: the host is up at this time\n", "", "{", '{"a":', "2023-02-03T04:05:06.000Z cpu1:2)message, host, time\n"],
)  # fmt: skip
def test_what_is_no_export(text: str) -> None:
    assert not is_export(text)


def test_an_export_without_a_host_of_ours_is_named(tmp_path: Path) -> None:
    rows = [["2023-02-03T04:05:06Z", "www1", "GET /index.html 200"]]
    (tmp_path / "web.csv").write_text(delimited(["_time", "host", "_raw"], rows))
    fleet = load(tmp_path, jobs=1)
    assert fleet.hosts.empty and fleet.problems["problem"].tolist() == ["unused"]


@pytest.mark.parametrize(
    ("text", "iso"),
    [("1675397106", "04:05:06.000"), ("1675397106.25", "04:05:06.250"), ("1675397106250", "04:05:06.250"), ("1675397106250000000", "04:05:06.250"),
     ("2023-02-03T05:05:06.250+0100", "04:05:06.250"), ("2023-02-03 04:05:06.250 UTC", "04:05:06.250"), ("Feb 3, 2023 @ 04:05:06.250", "04:05:06.250"),
     ("2/3/2023, 4:05:06.250 AM", "04:05:06.250"), ("03.02.2023 04:05:06", "04:05:06.000")],
)  # fmt: skip
def test_times_as_platforms_print_them(text: str, iso: str) -> None:
    assert _moment(text) == datetime.fromisoformat(f"2023-02-03T{iso}Z")


@pytest.mark.parametrize(
    "text", ["", "yesterday", "32.13.2023 04:05:06", "99999999999999999999", "31/Dec/9999:23:59:59 -1200"]
)
def test_what_is_no_time(text: str) -> None:
    assert _moment(text) is None
