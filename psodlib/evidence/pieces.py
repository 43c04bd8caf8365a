"""Text -> pieces: one log line each, whatever joined, masked or escaped it on its way, with its prefix read and its role known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from ahocorasick_rs import BytesAhoCorasick, MatchKind

from psodlib.evidence.dress import line_at, plain, undressed, wrapped_at
from psodlib.evidence.psod_lines import ANCHORS, ISO, NUMBER, OPENERS, ROLES, UPTIME

LINE_LIMIT = 1 << 16
_OWN_REACH = 256  # bytes before which a line's own prefix begins

# Where a log line begins inside another, because a scraper joined the two.
_CUT = re.compile(
    rb"(?:(?:\d{4}|YYYY)-[\dM]{2}-[\dD]{2}T[\dH]{2}:[\dM]{2}:[\dS]{2}(?:\.[\dXMS]{1,9})?Z?[ \t]{1,4})?"
    rb"(?:\d{1,6}:\d\d:\d\d:\d\d\.\d{3} )?cpu[\d#X]{1,6}:[\d#X]{1,12}(?: opID=[\w@\-]{1,64})?\)"
    rb"|(?P<banner>(?:Version Details: ?)?[.\\^\x1b\[;\dm]{0,40}VMware ESX(?:i| Server)?(?: [\d.#X]{1,12})? \[(?:Release)?build-[\d#X]{1,12}(?: \w{1,12})?\]?(?:\^?\[0m)?)"
    rb"|(?:(?:Panic|PSOD|Crash) [Mm]essage: {0,4})?@BlueScreen:(?: ?#[A-Z]{2} Exception)?"
    rb"|(?:BlueScreen: ?)?#[A-Z]{2} Exception"
    rb"|(?:Code starts?(?: at|:) ?0(?:x|\xc3\x97|&#215;)[\da-fA-F#Xx]{1,16} )?VMK uptime:"
    rb"|Code start: ?0x"
    rb"|Backtrace for current CPU"
    rb"|(?:Panic: \d{1,5}: )?Saved backtrace(?: from)?: pcpu"
    rb"|(?<=[\da-f#X]{6})(?=[A-Z][A-Za-z]\w{3,80}@vmkernel#nover)|(?<=nover)VMware (?:vSphere|ESX)"
    rb"|(?<= )#\d{1,3} {1,2}(?:0x[\da-f]{1,16} in )?[A-Za-z_]\w{2,80} \("
    rb"|System has encountered a Hardware Error|(?<= )(?:cr0=0x|\*PCPU\d{1,5}:\d)"
    rb"|(?:pcpu \d{1,5} [\w ]{1,30}: )?0x(?:[\da-fA-F#X]{1,16}|x{4,16}) ?: ?\\{0,2}\[ ?0x"
)
# Nothing but a second `cpu3:960)` can be cut in a line in which none of these stands: each way above holds one (a test says so).
_CUT_WORDS = re.compile(
    rb"BlueScreen:| Exception|build-|Hardware Error| cr0=0x| \*PCPU|Code start|VMK uptime:"
    rb"| #\d|nover|Backtrace for|aved backtrace|\[ ?0x"
)
# Its second half may stand on the same line, and was not joined.
_SUMMARY = re.compile(rb"\s*(?:Panic|PSOD|Crash) Details: ")
_TITLE = re.compile(rb"\s{0,8}[A-Z#]\w")  # behind a banner
_BLANK = re.compile(rb"(?:[\0\s]|\x1b\[[0-9;]{0,20}[A-Za-z])*")

_MAIL_GUARD = re.compile(r"\[?\[email protected\](?:\]\([^)\s]{1,200}\))?")
_MASKED = re.compile(
    r"0x[0-9a-fA-F]{0,16}[#X*]|cpu[#X<]|worldID=[#X<]|world (?:[#X<]{2}|x{4})|0xx{4,}|0#{3}|<[A-Z][A-Z_ ]{0,20}>|0x[A-Z]{1,9}[G-WYZ]|YYYY-|PCPU ?[#X]{1,9}(?!\w)"
)

# A line as a host writes it into its own file, which is as nearly all are.
_OWN_PREFIX = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z (?:(?:In|Wa|Al|Er|Cr|Em|No|Db)\(\d{1,3}\)\+? (vmkernel: )?)?cpu(\d{1,5}):(\d{1,12})\)",
    re.ASCII,
)
# The end of a log prefix, tried in this order within its reach, and what may stand before it.
_PREFIX_REACH = 300
_WHOLE = 1000  # letters of a line that nobody broke, or only a hostile hand
_REST = ("", "cut", "bare_symbol")  # what the rest of a broken line looks like
_ENDLESS = re.compile(r"(?:\b(?:addr|IP|in|world|VMK|ESXi?|stack:|uptime:|start:)|[@-])$")
_ENDS = re.compile(r"(?:stack:|uptime:|(?:addr|IP|@) ?0x|world \d)")
_WHOLE_END = re.compile(r"(?:addr 0x[\da-fA-F#X]{1,16}|\))$")
_DIGITS = re.compile(r"[\da-fA-F#X]{1,15}(?!\S)")
_ANEW = re.compile(r"[A-Z]\w*: |[-+=]{3}|[\]}]")
_BROKEN = ("header", "message", "frame", "code_start", "details")  # what is long enough to be broken
_PREFIX_ENDS = (
    ("cpu", re.compile(rf"cpu(?P<pcpu>{NUMBER}):(?P<world>{NUMBER})(?:\s+opID=[^\s)]{{1,80}})?\)")),
    ("vmk", re.compile(r"(?:^|\s)vmk(?:ernel|warning|alert)(?:\[\d{1,9}\]|\s(?:\d{1,9}|-))?(?::|\s\S{1,40}\s(?:-|\[[^\]]{1,100}\]))(?:\s|$)")),
    ("Log", re.compile(r"(?:^|\s)(?:[A-Z][a-z]\(\d{1,3}\)\+? +)?Log[A-Z]\w{0,12}(?:\[\d{1,9}\])?:(?:\s|$)")),
)  # fmt: skip
_STAMP = re.compile(ISO)
_PRIORITY = re.compile(r"(?:\d{1,5} )?<\d{1,3}>(?:1 )?")
_TOKENS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("time", _STAMP),
    ("program", re.compile(r"vmk(?:ernel|warning|alert)(?:\[\d{1,9}\])?:?")),
    ("nothing", re.compile(
        rf"{UPTIME}|<\d{{1,3}}>|(?:In|Wa|Al|Er|Cr|Em|No|Db)\(\d{{1,3}}\)\+?|TSC:|\d{{1,20}}|-|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec|"
        r"\d\d:\d\d:\d\d|\d{4}-\d\d-\d\d|(?i:local\d\.\w{1,10})")),
    ("masked", re.compile(r"\[?[YMDHSTZ:.\-]{8,40}\]?|(?:<[\w:.\-]{1,30}>|[TZ:.\-]){1,40}|[XY#:.TZ\-]{8,40}")),
    ("host", re.compile(r"[A-Za-z0-9](?:[\w.:\-]{0,251}[\w])?")),
)  # fmt: skip


FINDER = BytesAhoCorasick(list(ANCHORS), matchkind=MatchKind.LeftmostFirst)


def regions(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The stretches worth a closer look, at whole lines, each with its offset and its first line's number."""
    spans: list[tuple[int, int]] = []
    for _, at, _ in FINDER.find_matches_as_indexes(data):
        joins = spans and at - 4096 <= spans[-1][1]
        spans[-1:] = [(spans[-1][0], at + 8192)] if joins else [*spans[-1:], (max(0, at - 4096), at + 8192)]
    line, counted = 1, 0
    for begin, stop in spans:
        begin, end = data.rfind(b"\n", 0, begin) + 1, data.find(b"\n", stop)
        line, counted = line + data.count(b"\n", counted, begin), begin
        yield data[begin : end if end >= 0 else len(data)], begin, line


@dataclass(slots=True)
class Piece:
    """One log line, or what was one before a scraper joined it to another."""

    start: int  # bytes into the input
    end: int
    line: int
    body: str
    time: datetime | None = None
    pcpu: int | None = None
    world: int | None = None
    host: str | None = None
    prefixed: bool = False
    received: bool = False  # the time stands before the program's name: who received the line may have written it
    role: str = ""
    match: re.Match[str] | None = None
    damage: set[str] = field(default_factory=set)
    width: int = 0  # of the line that it ends

    def group(self, name: str) -> str | None:
        """What its role's pattern calls so, if it does."""
        return self.match.groupdict().get(name) if self.match else None


def split_pieces(data: bytes, offset: int, line: int) -> Iterator[Piece]:
    """The pieces of a text that begins at a byte and a line, whole where a terminal or a mail broke its lines."""
    width, is_filled = wrapped_at(data)
    held: Piece | None = None
    for piece in _pieces_in(data, offset, line):
        fills = is_filled and held is not None and held.width == width and not _ENDS.match(piece.body)
        rest = piece.body if piece.role in _REST and not piece.prefixed else ""
        if held and rest and _goes_on(held, rest, width, fills):
            held.body += piece.body if fills else f" {piece.body}"
            held.end, held.width = piece.end, piece.width
            _find_role(held)
            continue
        if held:
            yield held
        held = piece
    if held:
        yield held


def _goes_on(held: Piece, rest: str, width: int, fills: bool) -> bool:
    # No word behind it had room on its line, or it cannot end there. Many a message ends in an address, and many a word behind
    # it has no room on the longest line.
    if len(held.body) > _WHOLE:
        return False
    if width and held.role in _BROKEN and held.width + len(rest.partition(" ")[0]) >= width:
        is_whole = _WHOLE_END.search(held.body) and not (fills and _DIGITS.match(rest))
        return not (is_whole or held.body.endswith((".", ";")) or _ANEW.match(rest))
    is_odd = _ENDLESS.search(held.body[-40:]) or _ENDS.match(rest)
    return is_odd is not None and bool(held.role or held.body[:1] == "#")


def _pieces_in(data: bytes, offset: int, line: int) -> Iterator[Piece]:
    position = 0
    while position < len(data):
        end, behind = line_at(data, position)
        if data[position : position + 1] == b"\0":  # what a crash left of a file begins with blocks never written
            position = end - len(data[position:end].lstrip(b"\0"))
        begin, stop, stamp = undressed(data, position, end)
        cuts = _cuts(data, begin, stop)
        joined = len(cuts) > (3 if _SUMMARY.match(data, position, end) else 2)
        before: Piece | None = None
        for start, stop in pairwise(cuts):
            piece = _piece(data[start:stop], offset + start, line)
            if joined:
                piece.damage.add("joined_lines")
            if before is None:
                piece.start = offset + position
                if stamp and not piece.time:
                    piece.time, piece.received = moment_of(stamp), True
            elif before.role == "product" and not piece.prefixed:  # one print: the banner and its message
                piece.time, piece.pcpu, piece.world = before.time, before.pcpu, before.world
            if stop == cuts[-1]:
                piece.width = len(data[position:end].rstrip(b" \r"))
            before = piece
            yield piece
        position, line = behind, line + data.endswith(b"\n", end, behind)


def opens_crash(data: bytes) -> bool:
    """Whether one of these lines can open a crash: an anchor alone may stand in any line."""
    return any(piece.role in OPENERS for piece in split_pieces(data, 0, 1))


def _cuts(data: bytes, start: int, end: int) -> list[int]:
    # Where the log lines begin that a scraper joined into data[start:end], and its end.
    cuts, previous_end, first = [start], start, True
    behind = data.find(b"cpu", start, min(end, start + _OWN_REACH)) + 1 or start
    if data.find(b"cpu", behind, end) < 0 and not _CUT_WORDS.search(data, start, end):
        return [start, end]
    for match in _CUT.finditer(data, start, end):
        begin = match.start()
        before = data[start:begin] if first and begin - start <= _PREFIX_REACH else b"x"
        own_prefix = first and b"cpu" in match[0] and begin - start < _OWN_REACH
        # What stands before it may be nothing, its own prefix or a receiver's.
        if not (_BLANK.fullmatch(data, previous_end, begin) or own_prefix or not read_line(before).body):
            cuts.append(begin)
        if match["banner"] and _TITLE.match(data, match.end(), end):
            cuts.append(match.end())
        previous_end, first = match.end(), False
    return [*cuts, end]


def _piece(raw: bytes, start: int, line: int) -> Piece:
    text = raw[:LINE_LIMIT].decode("utf-8", "backslashreplace").replace("\0", "").removesuffix("\r")
    text = plain(text).strip().replace("'@'", "@")
    guarded = "[email" in text
    piece = Piece(start, start + len(raw), line, _MAIL_GUARD.sub("@", text) if guarded else text)
    piece.damage |= {"garbled"} if guarded else set()
    _read_prefix(piece)
    _find_role(piece)
    return piece


def _find_role(piece: Piece) -> None:
    for role in ROLES if piece.body else ():
        if match := role.pattern.match(piece.body):
            piece.role, piece.match = role.name, match
            piece.damage |= {"masked"} if _MASKED.search(piece.body[:4096]) else set()
            break


def read_line(raw: bytes, line: int = 0) -> Piece:
    """A line as it stands, with its prefix read."""
    piece = Piece(0, 0, line, raw.decode("utf-8", "backslashreplace"))
    _read_prefix(piece)
    return piece


def _read_prefix(piece: Piece) -> None:
    # Everything before `cpuN:W)` or the program's name is stamps, host and the like, in whatever order a receiver put them.
    text = piece.body
    if own := _OWN_PREFIX.match(text):
        piece.time, piece.prefixed, piece.received = moment_of(own[1]), True, own[2] is not None
        piece.pcpu, piece.world, piece.body = int(own[3]), int(own[4]), text[own.end() :].strip()
        return
    # The first of its ends that is there, unless a header stands before it: then it is of a line joined behind.
    head = text[:_PREFIX_REACH]
    end = next((found for word, ends in _PREFIX_ENDS if word in head and (found := ends.search(head))), None)
    if end is None or "@BlueScreen" in head[: end.start()]:
        stamp = _STAMP.match(text)
        if stamp and text[stamp.end() : stamp.end() + 1] in ("", " ", "\t"):
            piece.time, piece.prefixed, text = moment_of(stamp[0]), True, text[stamp.end() :]
        piece.body = text.strip()
        return
    piece.prefixed, piece.body = True, text[end.end() :].strip()
    if counts := end.groupdict():
        piece.pcpu, piece.world = read_count(counts["pcpu"]), read_count(counts["world"])
        piece.damage |= set() if counts["pcpu"].isdigit() and counts["world"].isdigit() else {"masked"}
    host, program = None, False
    for token in _PRIORITY.sub("", text[: end.start()], count=2).split():
        meaning = next((name for name, pattern in _TOKENS if pattern.fullmatch(token)), "garbled")
        if meaning == "time":
            piece.time, piece.received = moment_of(token) or piece.time, not program
            meaning = "nothing" if token[0].isdigit() else "masked"
        piece.damage |= {meaning} & {"masked", "garbled"}
        program = program or meaning == "program"
        host = token if meaning == "host" else host
    program = program or "cpu" not in end[0]
    piece.received &= program
    piece.host = host if program and "garbled" not in piece.damage else None


_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?([+-]\d\d:?\d\d)?", re.ASCII)


def moment_of(text: str) -> datetime | None:
    """The moment that the stamp at a text's start names, in UTC; None for a masked one or one that cannot be."""
    found = _MOMENT.match(text)
    if not found:
        return None
    leap = text[17:19] == "60"  # a leap second is the next minute's first
    stamp = f"{text[:17]}59{found[0][19:]}" if leap else found[0]
    try:
        moment = datetime.fromisoformat(stamp if found[1] else f"{stamp}+00:00")
        moment = moment.astimezone(UTC) if found[1] else moment
        return bounded(moment + timedelta(seconds=1) if leap else moment)
    except (ValueError, OverflowError):
        return None


def bounded(moment: datetime) -> datetime | None:
    """The moment itself, or None outside 1990..2200."""
    return moment if 1990 <= moment.year < 2200 else None


def read_count(text: str | None) -> int | None:
    """A number that a 64-bit column holds."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None
