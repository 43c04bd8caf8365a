"""What mails, chats, terminals, containers and data formats put around a text's lines, and where these end in it."""

from __future__ import annotations

import html
import re
from itertools import pairwise

from psodlib.evidence.psod_lines import ISO

# What may stand before a line, one behind the other, each with a sample. A mark may end the line too.
DRESSES: tuple[tuple[str, str], ...] = (
    ("| ", r"(?P<mark>[>|`]|\+(?!0x[\da-f]{1,5} )|[-*#](?=[ \t])|//|\*\*(?=[@#*\w])"
     r"|\xe2\x94[\x82\x83]|\xe2(?:\x95\x91|\x80\xa2|\x96\xaa|\x97\x8f)|\xc2\xb7)"),
    ("1.3.2016, 10:11:12 AM ", r"(?:\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4},?[ \t])?"
     r"\d\d?:\d\d(?::\d\d(?:[.,]\d{1,6})?)?(?:[ \t]?[AP]M)?(?=[ \t])"),
    # A line's number, which a stamp, a classic uptime or a list of CPUs is not.
    ("1041:", r"(?!\d{4}-\d\d-\d\d|\d{1,6}:\d\d:\d\d|\d{1,5}:\d{1,12}/)"
     r"\d{1,7}(?:[-:](?!\S{1,40} (?:IP|ip|@|addr) ?0x)|\t|[.)][ \t])"),
    ("   17 ", r"(?<=[ \t>])\d{1,7}(?=[ \t]|</td>)"),
    ("<td class='n'>", r"</?[a-z]{1,10}(?: [^<>\n]{0,300})?>"),
    (r"C:\logs\vmkernel.log:17:", r"(?:[A-Za-z]:)?[\w./~\\-]{1,200}\.(?:log|txt|gz|\d{1,3})[:-](?:\d{1,7}[:-])?"),
    ("esx-a.example.org: ", r"(?:[\w-]{1,63}\.){1,8}[\w-]{1,63}:(?=[ \t])"),
    # Who said it and when; the kernel's own words are no names of people.
    ("[10:11 AM] ann.admin: ", r"\[[\w.@:/, -]{3,60}\](?: out:|(?:(?<=[ ,[]\d\d:\d\d\])|(?<=[AP]M\])) "
     r"(?!Code|VMK|Panic|PSOD|Crash|COS|World|NMI|BUG|[A-Z]\w{0,40}:? \d|[A-Z]{4}|Version|Module|Saved)"
     r"[\w., -]{1,40}:)?(?=[ \t])"),
    ("<ann> ", r"<[\w.-]{1,40}>(?=[ \t])"),
    ("AA> ", "[A-Z]{2,3}>"),
    ("syslog-1  | ", r"[\w.-]{1,60}[ \t]{1,8}(?=\|[ \t])"),
    ("2016-03-01T01:00:00Z stdout F ", rf"(?P<stamp>{ISO})"
     r"[ \t](?:std(?:out|err)[ \t][FP](?=[ \t])|\{[^{}\n]{1,300}\})"),
    # A string of several lines, which does not end here; a container's line, or one of a list. What a document names
    # its message is told of a crash.
    ('{"ticket": 17, "text": "',
     r'(?:[\[{][ \t]{0,4})?(?:(?:"[^"\n]{0,80}"|[\w.+-]{1,40})[ \t]{0,4}[:,][ \t]{0,4}){1,8}"'
     r'(?=(?:[^"\\]|\\.){0,4000}$)'),
    ('{"log":"', r'\[?(?:\{"(?:log|line|message|msg|text|_raw|MESSAGE)": ?)?(?P<quote>["\'])'),
    ('17,2016-03-01,"', r'(?:(?:[\w.:/+-]{0,60}|"[^"\n]{0,80}"),){1,12}(?=")'),
    (r"\pard\f0\fs20 ", r"(?:\\[a-z]{1,20}-?\d{0,6}){1,12}(?= )"),
)  # fmt: skip
_DRESS = re.compile(
    rf"(?:[ \t]{{0,40}}(?:{'|'.join(pattern for _, pattern in DRESSES)})[ \t]{{0,8}}){{1,6}}".encode("latin-1")
)
_BARE = re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]{8,18}Z (?!std|\{)|cpu\d|0x|@")  # as nearly all lines begin
_COUNTED = re.compile(rb"(\d{1,5}) (?=<\d{1,3}>)")
# A line's end, or what became of one in a string, a page or a document. CR and NEL end none: they stand in messages.
# Each way begins with a letter of its own, by which the search passes over all others.
_LINE_END = re.compile(
    rb"(?:\\n|\\r\\n|\\par\b|<(?:br|BR|/p|/P|/div|/DIV|/tr|/TR|/li|/LI|/title|body|/?pre|/?PRE)\b[^<>\n]{0,300}>"
    rb"|<!\[CDATA\[|\]\]>|\[/?code\]|\x0b|\xe2\x80[\xa8\xa9])\r?\n?|\n"
)  # fmt: skip
# What all lines of an output may wear. Numbers must follow each other: a device's address begins with one too.
_WORN = tuple(
    re.compile(rf"(?m)^[ \t]{{0,40}}{pattern}")
    for pattern in (
        r"(?:(?:> ?){0,8}[|│] ?(?=[^|│\n]{0,1000}$)|(?:> ?){1,8})",
        r"(\d{1,7})(?:\t|: ?| {1,2})",
        r"\[[^\]\n]{0,40}\d:\d\d[^\]\n]{0,20}\] (?:[\w., -]{1,40}: )?",
    )
)
_MARKED = re.compile(r"\n[ \t]{0,40}[>|│\[\d]")  # what each of them begins with; nearly all outputs have none
# What a page, a template, a terminal or markdown made of a line.
_ANSI = re.compile(r"(?:\x1b|\^\[|ESC|\\x1b|\\033|\\e)\[[0-9;]{0,20}[A-Za-z]")
_TAG = re.compile(
    r"</?(?:br|p|div|span|pre|code|tt|td|th|tr|li|time|table|tbody|html|body|font|b|i|a|strong|em|text)\b[^<>]{0,300}>"
    r"|\{\{[<%][^{}]{0,100}[>%]\}\}",
    re.IGNORECASE,
)
_ESCAPED = re.compile(r"(?<! [A-Z]:)\\{1,2}([\[\](){}_*#@+<>~|:./\"'-])")
_UNICODE = re.compile(r"\\u(?!d[89a-f])([\da-f]{4})")
_ODD_BLANKS = str.maketrans({"\u00a0": " ", "\u200b": None, "\ufeff": None})


def plain(text: str) -> str:
    """A line as it was printed, before it stood in a page or a document."""
    if "[" in text:
        text = _ANSI.sub("", text)
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    if "\\" in text:
        text = _ESCAPED.sub(r"\1", _UNICODE.sub(lambda code: chr(int(code[1], 16)), text))
    return text if text.isascii() else text.translate(_ODD_BLANKS)


def worn(text: str) -> re.Pattern[str] | None:
    """What most lines of an output wear, if they do."""
    if not _MARKED.search(f"\n{text[:1024]}"):
        return None
    lines = [line for line in text[:8192].split("\n", 40)[:40] if line.strip()]
    for pattern in _WORN:
        found = [match for line in lines if (match := pattern.match(line))]
        numbers = [int(match[1]) for match in found] if pattern.groups else []
        if 2 * len(found) > len(lines) and len(numbers) != 1 and all(b - a == 1 for a, b in pairwise(numbers)):
            return pattern
    return None


def line_at(data: bytes, start: int) -> tuple[int, int]:
    """Where the line that begins at a byte ends, and where the next begins."""
    found = _LINE_END.search(data, start)
    end, behind = found.span() if found else (len(data), len(data))
    if counted := _COUNTED.match(data, start, end):  # syslog over TCP, kept as it came: it says how long it is
        stop = counted.end() + int(counted[1])
        return (stop, stop) if _COUNTED.match(data, stop, end) else (end, behind)
    return end, behind


def wrapped_at(data: bytes) -> tuple[int, bool]:
    """The width at which a text's lines were broken, 0 if they were not, and whether in the middle of words.

    A mail's words had no room on the line before them; a terminal fills a line.
    """
    lines = [line.rstrip(b" \r") for line in data.split(b"\n")]
    width = max(map(len, lines))
    if not 60 <= width <= 160:
        return 0, False
    full = sum(len(line) == width for line in lines)
    broken = sum(len(line) + len(other.partition(b" ")[0]) >= width for line, other in pairwise(lines) if other)
    is_terminal = width in (80, 132)
    return width if broken > 2 or (broken and is_terminal) else 0, full > 1 or is_terminal


def undressed(data: bytes, start: int, end: int) -> tuple[int, int, str]:
    """Where a line begins and ends without what somebody else put around it, and when that was."""
    if _BARE.match(data, start, end) or not (dress := _DRESS.match(data, start, end)):
        return start, end, ""
    text = data[dress.end() : end].rstrip(b" \t\r")
    if dress["quote"]:
        text = text.removesuffix(b",").removesuffix(dress["quote"])
    elif dress["mark"] and dress["mark"] != b"#":  # which also masks a number
        text = text.removesuffix(dress["mark"])
    return dress.end(), dress.end() + len(text), (dress["stamp"] or b"").decode()
