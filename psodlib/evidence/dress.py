"""What mails, chats, editors, terminals, containers and data formats put around the lines of a text, and where the lines end in it."""

from __future__ import annotations

import re

from psodlib.evidence.psod_lines import ISO

# What may stand before a line, one behind the other, each with a sample. A mark may end the line too.
DRESSES: tuple[tuple[str, str], ...] = (
    ("| ", r"(?P<mark>[>|`+]|[-*#](?=[ \t])|//|\*\*(?=[@#*\w])|\xe2\x94[\x82\x83]|\xe2(?:\x95\x91|\x80\xa2|\x96\xaa|\x97\x8f)|\xc2\xb7)"),
    ("1.3.2016, 10:11:12 AM ", r"(?:\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4},?[ \t])?\d\d?:\d\d(?::\d\d(?:[.,]\d{1,6})?)?(?:[ \t]?[AP]M)?(?=[ \t])"),
    # A line's number, which a stamp, a classic uptime or a list of CPUs is not.
    ("1041:", r"(?!\d{4}-\d\d-\d\d|\d{1,6}:\d\d:\d\d|\d{1,5}:\d{1,12}/)\d{1,7}(?:[-:\t]|[.)][ \t])"),
    ("   17 ", r"(?<=[ \t>])\d{1,7}(?=[ \t]|</td>)"),
    ("<td class='n'>", r"</?[a-z]{1,10}(?: [^<>\n]{0,300})?>"),
    (r"C:\logs\vmkernel.log:17:", r"(?:[A-Za-z]:)?[\w./~\\-]{1,200}\.(?:log|txt|gz|\d{1,3})[:-](?:\d{1,7}[:-])?"),
    ("esx-a.example.org: ", r"(?:[\w-]{1,63}\.){1,8}[\w-]{1,63}:(?=[ \t])"),
    # Who said it and when; the kernel's own words are no names of people.
    ("[10:11 AM] ann.admin: ", r"\[[\w.@:/, -]{3,60}\](?: out:|(?:(?<=[ ,[]\d\d:\d\d\])|(?<=[AP]M\])) "
     r"(?!Code|VMK|Panic|PSOD|Crash|COS|World|NMI|BUG|[A-Z]\w{0,40}:? \d|[A-Z]{4}|Version|Module|Saved)[\w., -]{1,40}:)?(?=[ \t])"),
    ("<ann> ", r"<[\w.-]{1,40}>(?=[ \t])"),
    ("AA> ", "[A-Z]{2,3}>"),
    ("syslog-1  | ", r"[\w.-]{1,60}[ \t]{1,8}(?=\|[ \t])"),
    ("2016-03-01T01:00:00Z stdout F ", ISO + r"[ \t](?:std(?:out|err)[ \t][FP](?=[ \t])|\{[^{}\n]{1,300}\})"),
    # A string of several lines, which does not end here; a container's line, or one of a list. What else a document calls its
    # message is told of a crash.
    ('{"ticket": 17, "text": "', r'(?:[\[{][ \t]{0,4})?(?:(?:"[^"\n]{0,80}"|[\w.+-]{1,40})[ \t]{0,4}[:,][ \t]{0,4}){1,8}"(?=(?:[^"\\]|\\.){0,4000}$)'),
    ('{"log":"', r'\[?(?:\{"(?:log|line|message|msg|text|_raw|MESSAGE)": ?)?(?P<quote>["\'])'),
    ('17,2016-03-01,"', r'(?:(?:[\w.:/+-]{0,60}|"[^"\n]{0,80}"),){1,12}(?=")'),
    (r"\pard\f0\fs20 ", r"(?:\\[a-z]{1,20}-?\d{0,6}){1,12}(?= )"),
)  # fmt: skip
_DRESS = re.compile(
    rf"(?:[ \t]{{0,40}}(?:{'|'.join(pattern for _, pattern in DRESSES)})[ \t]{{0,8}}){{1,6}}".encode("latin-1")
)
_BARE = re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]{8,18}Z (?!std|\{)|cpu\d|0x|@")  # as nearly all lines begin
_COUNTED = re.compile(rb"(\d{1,5}) (?=<\d{1,3}>)")
# A line's end, or what became of one in a string, a page or a document. CR, NEL and their like end none: they stand in messages.
_LINE_END = re.compile(
    rb"\n|(?:(?:\\r)?\\n|\\par\b|<(?:br|/p|/div|/tr|/li|/title|body|/?pre)\b[^<>\n]{0,300}>|<!\[CDATA\[|\]\]>|\[/?code\]"
    rb"|\x0b|\xe2\x80[\xa8\xa9])\r?\n?", re.IGNORECASE
)  # fmt: skip


def line_at(data: bytes, start: int) -> tuple[int, int]:
    """Where the line that begins at a byte ends, and where the next begins."""
    found = _LINE_END.search(data, start)
    end, behind = found.span() if found else (len(data), len(data))
    if counted := _COUNTED.match(data, start, end):  # syslog over TCP, kept as it came: it says how long it is
        stop = counted.end() + int(counted[1])
        return (stop, stop) if _COUNTED.match(data, stop, end) else (end, behind)
    return end, behind


def undressed(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Where a line begins and ends without what somebody else put around it."""
    if _BARE.match(data, start, end) or not (dress := _DRESS.match(data, start, end)):
        return start, end
    text = data[dress.end() : end].rstrip(b" \t\r")
    if dress["quote"]:
        text = text.removesuffix(b",").removesuffix(dress["quote"])
    elif dress["mark"] and dress["mark"] != b"#":  # which also masks a number
        text = text.removesuffix(dress["mark"])
    return dress.end(), dress.end() + len(text)
