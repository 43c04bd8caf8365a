"""One crash's text -> ``Crash``: blocks of pieces, and what a block says.

The text goes through three steps, each a table or a short function::

    text -> pieces (one log line each, joined lines cut) -> blocks (the pieces of one crash) -> Crash

What a line can be stands in ``psod_lines``. Whether a block is a crash is decided once, by ``is_crash``, for pasted text and
for logs alike. Damage is a value; nothing here raises on text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from operator import attrgetter
from typing import Any

from psodlib.evidence.encodings import decoded, encoding_of
from psodlib.evidence.pieces import Piece, moment_of, read_count, regions, split_pieces
from psodlib.evidence.psod_lines import EXCEPTIONS, HEX, KINDS, NUMBER, OPENERS
from psodlib.records import DAMAGE, Crash, Frame, Module

_DEBUGGED = ("debugged", "gdb")  # a debugger's frames, the former in the kernel's own source
_FRAMES = ("frame", "symbol", *_DEBUGGED)
_MESSAGES = ("header", "message", "requested", "title")
# Any of these says that the host stopped, whatever stands beside it.
_FATAL = ("header", "message", "code_start", "details", "other_cpu", "fatal", "requested")
# What says so only where one of the others stands beside it, as on a purple screen.
_BESIDE = {
    "product": ("registers", "arm_pc", "cpu_list", "world", "base", *_FRAMES),
    "uptime": ("product", "title", "backtrace", "saved", "cpu_list", "world", *_FRAMES),
}
# Of these the prefix and the words tell who crashed.
_SPEAKING = ("code_start", "message", "fatal", "requested", *_FRAMES)
_PRINTING = (("details",), ("backtrace",), ("cpu_list",), ("other_cpu",))
_BEGINS = OPENERS | {"registers", "arm_pc", "world", "lockup", "other_product"}
# A backtrace under one of these is logged by a host that lives on, unless something fatal stands beside it.
_LIVES_ON = ("backtrace", "lockup")
_LOGGING = re.compile(r"LogBacktrace|Log_Backtrace|Util_.{0,80}Backtrace|Backtrace_Log")
_TABLES = re.compile(r"\s+PTEs:")  # of pages; what stands behind is no message
_PANICKING = re.compile(r"_?v?Panic|vmk_v?Panic|PanicvPanic|panic$")

_GAP = 12  # lines of something else that a block outlives: other PCPUs go on logging for a moment
_LONG_GAP = 2000  # the same, where stamps say that it is still that moment
_SAME_MOMENT = timedelta(seconds=2)
_MOMENTS = timedelta(seconds=20)
_NESTED = timedelta(minutes=1)  # a second panic while the first is being dumped; no host boots this fast
_ANOTHER_DAY = timedelta(minutes=10)
_FORETOLD = 40  # lines of hardware errors that belong to the crash behind them
_PIECE_LIMIT = 20_000  # lines of one crash; 512 PCPUs with 30 frames each stay below

# --------------------------------------------------------------------------------------------------------------------
# Blocks: the pieces of one crash.


@dataclass(slots=True)
class _Block:
    pieces: list[Piece] = field(default_factory=list)
    gap: int = 0
    last: Piece | None = None  # the last line with a time that belongs to the crash
    firsts: dict[str, Piece] = field(default_factory=dict)

    def add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.gap = 0 if piece.role or not piece.body else self.gap + 1
        if piece.role:
            self.firsts.setdefault(piece.role, piece)
            self.last = piece if piece.time else self.last

    def first(self, *roles: str) -> Piece | None:
        return next((piece for role, piece in self.firsts.items() if role in roles), None)

    def has(self, *roles: str) -> bool:
        return not self.firsts.keys().isdisjoint(roles)

    def ends_before(self, piece: Piece) -> bool:
        if len(self.pieces) >= _PIECE_LIMIT or piece.role == "boot" or _apart(self.last, piece, _ANOTHER_DAY):
            return True
        if self.gap > _GAP and (self.gap > _LONG_GAP or _apart(self.last, piece, _MOMENTS) is not False):
            return True
        return _begins_another(self, piece)


def blocks_in(data: bytes, offset: int = 0, line: int = 1) -> Iterator[tuple[_Block, bytes, int]]:
    """The blocks of a text that begins at a byte and a line of its file, each with its stretch of the text and where that begins."""
    for part, at, lines in regions(data):
        for block in _grouped(split_pieces(part, offset + at, line + lines - 1)):
            yield block, part, offset + at


def _grouped(pieces: Iterable[Piece]) -> Iterator[_Block]:
    block: _Block | None = None
    previous: Piece | None = None
    foretold: list[Piece] = []  # what the hardware reported right before
    for piece in pieces:
        if piece.role == "bare_symbol":  # a name alone is a frame only below something that says so
            piece.role = "symbol" if block and block.has(*_FATAL, *_FRAMES, *_LIVES_ON) else ""
        if block and block.ends_before(piece):
            yield block
            block = None
        if block:
            block.add(piece)
        elif piece.role in _BEGINS:
            block = _Block()
            # A panic text that no table knows stands, alone and without prefix, right before `Code start`.
            alone = previous and " " in previous.body and not (previous.role or previous.prefixed)
            if previous and alone and piece.role in ("code_start", "uptime"):
                previous.role = "title"
                foretold = [previous]
            for told in (*foretold, piece):
                block.add(told)
        foretold = [*foretold, piece][-_FORETOLD:] if piece.role == "detail" and not block else []
        previous = piece if piece.body else previous
    if block:
        yield block


def _begins_another(block: _Block, piece: Piece) -> bool:
    # Does this piece open the next crash, or does it belong to the block? It belongs until something contradicts.
    if piece.role in ("header", "message", "requested"):
        return _is_other_message(block, piece)
    if piece.role in ("product", "details"):
        if _apart(block.last, piece, _NESTED) is False:
            return False
        first = block.firsts.get(piece.role)
        whole = block.has("registers", *_FRAMES) and block.has(*_MESSAGES)
        return (first is not None and block.pieces[-1] is not first) or (whole and not piece.prefixed)
    if piece.role in ("code_start", "uptime") and (known := block.first("code_start", "uptime")):
        before, now = _span(known.group("uptime")), _span(piece.group("uptime"))
        return before is not None and now is not None and abs(before - now) > _NESTED
    return False


def _is_other_message(block: _Block, piece: Piece) -> bool:
    known = block.first("header") or block.first("message", "requested", "title")
    traced, ended = block.has(*_FRAMES), block.has("code_start", "uptime")
    if known is None:
        # A dump prints backtrace and product before the message; pasted frames without either are another crash's.
        of_the_dump = block.has("product", "backtrace", "saved", "other_cpu", "details")
        if piece.role == "header":
            return ended
        return traced and not of_the_dump and _apart(block.pieces[-1], piece) is not False
    one, other = _plain(known.group("message") or known.body), _plain(piece.group("message") or piece.body)
    alike = one and other and (one.startswith(other) or other.startswith(one)) and not _apart(known, piece, _NESTED)
    if alike or not _plain(piece.group("message")):  # nothing is said where a text is cut
        return False
    nested = _apart(known, piece, _NESTED) is False
    if piece.role == "header" and known.role == "header":
        return not (ended and nested and known.host == piece.host)
    told = [_message_facts(said.group("message")) for said in (known, piece)]
    worlds = {facts["world_id"] for facts in told if None not in (facts["exception"], facts["world_id"])}
    return (traced or ended or len(worlds) == 2) and not nested


def _apart(one: Piece | None, other: Piece, span: timedelta = _SAME_MOMENT) -> bool | None:
    # By more than this? None where nothing tells: a receiver's stamp and the host's own differ by whatever the clocks do.
    if one is None or one.time is None or other.time is None or one.received != other.received:
        return None
    return abs(one.time - other.time) > span


def _plain(message: str | None) -> str:
    # Letters and figures alone: what two prints of one message share.
    text = _TABLES.split(message or "", 1)[0].replace("\\x", "")
    return re.sub(r"[^0-9a-z]", "", text.lower())[:200]


# --------------------------------------------------------------------------------------------------------------------
# What is a crash.


def is_crash(block: _Block) -> bool:
    """A fatal form, a product line with what a purple screen shows around it, or a backtrace of a host that panics."""
    if _is_joke(block):
        return False
    if block.has(*_FATAL) or any(block.has(role) and block.has(*beside) for role, beside in _BESIDE.items()):
        return True
    frames = [piece for piece in block.pieces if piece.role in _FRAMES]
    if all(piece.role in _DEBUGGED for piece in frames):
        return any(piece.role == "debugged" for piece in frames)  # of a core dump of the vmkernel
    functions = [piece.group("function") or "" for piece in frames]
    # Where each PCPU's own area and tables lie, the kernel prints on its way into a panic alone.
    if block.has("world") or any(map(_PANICKING.match, functions[:6])):
        return True
    # Whether a line that tells of a living host speaks of these frames: written as they are, and in their moment.
    head = frames[0]
    lives_on = any(
        piece.prefixed == head.prefixed and not _apart(piece, head) for piece in block.pieces if piece.role in _LIVES_ON
    )
    # A host that lives on prints several words of the stack, a purple screen one; the last line may be cut, and tells neither.
    logged = head.pcpu is not None and head.role == "frame"
    logged &= len(frames) == 1 or any("," in (piece.group("stack") or "") for piece in frames[:-1])
    return not (lives_on or logged or any(map(_LOGGING.search, functions)))


def looks_like_crash(block: _Block) -> bool:
    """Worth a word where it is not taken: more than the banner of a boot, and no backtrace of a host that lives on."""
    return _is_joke(block) or block.has("saved") or (block.has(*_FRAMES) and not block.has(*_LIVES_ON))


def _is_joke(block: _Block) -> bool:
    # A screen of another product without one real address.
    if not block.has("other_product") or block.has("product"):
        return False
    return not any(
        _address(text)
        for piece in block.pieces
        if piece.role or not piece.prefixed
        for text in re.findall(r"0x[0-9a-fA-F]{6,16}\b", piece.body[:4096])
    )


# --------------------------------------------------------------------------------------------------------------------
# Crash: what a block says.


def read_crash(block: _Block, data: bytes, offset: int, source: str | None = None) -> Crash:
    """What a block says, whose stretch of text begins at a byte of its file."""
    # It begins behind the warnings that foretold it, and ends with its last line of a known role.
    roles = [piece.role for piece in block.pieces]
    first = next(i for i, role in enumerate(roles) if role not in ("", "lockup"))
    last = max(i for i, role in enumerate(roles) if role not in ("", "elided", "screen"))
    pieces = block.pieces[first : last + 1]
    raw = data[pieces[0].start - offset : pieces[-1].end - offset]
    message = _message_of(block.first("header") or block.first("message") or block.first("requested"), pieces)
    facts = _message_facts(message)
    spoken = [_first(pieces, attrgetter(what), ("header",), _SPEAKING) for what in ("pcpu", "world")]
    printed = [_first(pieces, _told(what, read_count), *_PRINTING) for what in ("pcpu", "world")]
    # The PCPU and the world that crashed: by the prefix of its lines, its message (of a world the first), what else is printed.
    pcpu = _either(spoken[0], facts["pcpu"], printed[0])
    frames = _frames_of(pieces, pcpu)
    product = block.firsts.get("product")
    version, build = ((product and product.group(name)) or "#" for name in ("version", "build"))
    crash = facts | {
        "host": next((piece.host for piece in pieces if piece.role and piece.host), None),
        "time": _first(pieces, attrgetter("time"), ("header",), ("code_start",), ("message", *_FRAMES), {*roles})
        or moment_of(_first(pieces, _told("time", str), ("details",)) or ""),
        "esxi_version": None if re.search("[#X]", version) else version,
        "esxi_build": None if re.search("[#X]", build) else build,
        "kind": _kind_of(message, facts["exception"], frames, block),
        "message": message,
        "pcpu": pcpu,
        "world_id": _either(facts["world_id"], spoken[1], printed[1]),
        "world_name": facts["world_name"] or _first(pieces, _told("name", str), ("details",), ("cpu_list",)),
        "ip": _either(facts["ip"], _first(pieces, _register_ip, ("registers", "arm_pc", "other_cpu"))),
        "code_start": _first(pieces, _told("code_start", _address), ("code_start",)),
        "uptime": _first(pieces, _told("uptime", _span), ("code_start",), ("uptime",), ("details",)),
    }
    identity = _identity(crash, facts["ip"], frames)
    return Crash(
        **crash,
        crash_id=identity,
        deliberate=bool(message and KINDS[0][2].search(message)),
        damage=_damage(pieces, crash, frames, raw),
        source=source,
        line=pieces[0].line,
        offset=pieces[0].start,
        sha256=hashlib.sha256(raw).hexdigest(),
        text=raw.decode("utf-8", "backslashreplace"),
        frames=tuple(Frame(crash_id=identity, **frame) for frame in frames),
        # The vmkernel prints 0 for itself in its map: that is "not said", its place is `Code start`.
        modules=tuple(
            Module(
                crash_id=identity, host=crash["host"], time=crash["time"], module=piece.group("module") or "", source=source,
                base=_address(piece.group("base")) or None, data=_address(piece.group("data")) or None, bss=_address(piece.group("bss")) or None,
            )
            for piece in pieces
            if piece.role == "module_map"
        ),
    )  # fmt: skip


def _first(pieces: list[Piece], told: Callable[[Piece], Any], *roles: Collection[str]) -> Any:
    # What the first of these pieces tells that tells it at all; those of the first roles before all others.
    return next((value for role in roles for p in pieces if p.role in role and (value := told(p)) is not None), None)


def _told(name: str, read: Callable[[Any], Any]) -> Callable[[Piece], Any]:
    return lambda piece: read(text) if (text := piece.group(name)) else None


def _either(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _register_ip(piece: Piece) -> Any:
    return _either(_address(piece.group("ip")), _address(_found(_REGISTER_IP, piece.body)))


def _message_of(told: Piece | None, pieces: list[Piece]) -> str | None:
    piece = told or _screen_message(pieces)
    if piece is None:
        return None
    text = (piece.match.groupdict() if piece.match else {}).get("message", piece.body[:4000]) or ""
    text = re.sub(r"\.{3}\s*\Z", "", _TABLES.split(text, 1)[0].strip()).rstrip()
    return (text.removesuffix('"') if text.count('"') % 2 else text) or None  # a cell's last line


def _screen_message(pieces: list[Piece]) -> Piece | None:
    before = None
    for piece in pieces:
        if piece.role == "title" or (piece.role == "lockup" and piece.body.startswith("NMI IPI")):
            return piece
        if before and before.role == "product" and piece.role in ("", "detail") and piece.body and not piece.prefixed:
            return piece
        before = piece if piece.role or piece.body else before
    return None


_EXCEPTION = re.compile(r"[Ee]xception\s*(?:type\s*)?\(?(\d{1,3})\)?(?:\s|$)")
_IN_WORLD = re.compile(
    rf"(?:\bin world |\(cpu \d{{1,5}}, world |\bCPU \d{{1,5}} / World )(?P<world>{NUMBER})(?:\s?:\s?(?P<name>\S(?:.{{0,80}}?\S)??)"
    r"(?=\s+(?:IP|ip|@|at|addr|SP|\(ec)\s?(?:[0O][x×]|\d|x|<|#)|\s+PTEs:|[.,]?\s*$))?"
)
_MESSAGE_IP = re.compile(rf"\b(?:IP|ip|PC)[:=]?\s*({HEX})|\s@\s*({HEX})")
_MESSAGE_ADDRESS = re.compile(rf"\baddr[:=]?\s*({HEX})|far_el2 ({HEX})")
_ON_PCPU = re.compile(
    r"\bon (?:PCPU|pcpu|CPU|cpu)\s*(\d{1,5})\b|\bCPU (\d{1,5}) / World|\(Src 0x[0-9a-f]{1,8}, CPU(\d{1,5})\b|\(cpu (\d{1,5}), world"
)
_REGISTER_IP = re.compile(rf"\b(?:r|e)?ip=({HEX})")


def _message_facts(message: str | None) -> dict[str, Any]:
    text = message or ""
    exception, world = _found(_EXCEPTION, text), _IN_WORLD.search(text)
    return {
        "exception": int(exception) if exception else None,
        "pcpu": read_count(_found(_ON_PCPU, text)),
        "world_id": read_count(world["world"]) if world else None,
        "world_name": _told_name(world["name"]) if world else None,
        "ip": _address(_found(_MESSAGE_IP, text)),
        "fault_address": _address(_found(_MESSAGE_ADDRESS, text)),
    }


def _found(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return found[found.lastindex or 0] if found else None


def _address(text: str | None) -> int | None:
    try:
        value = int(text.replace("×", "x").replace("O", "0", 1), 16) if text else None
    except ValueError:
        return None
    return value if value is not None and value < 1 << 64 else None


def _span(text: str | None) -> timedelta | None:
    if not text:
        return None
    days, hours, minutes = map(int, text.split(":")[:3])
    seconds = float(text.rsplit(":", 1)[1])
    return timedelta(days, seconds, hours=hours, minutes=minutes) if days <= 73_000 else None


# What masks, scrapers and the vmkernel print for "not told".
_PLACEHOLDER = re.compile(r"[#X*]{1,80}|x{3,80}|<None>|<[A-Z][A-Z_ ]{0,20}>|example\.com|")


def _told_name(text: str | None) -> str | None:
    return None if text is None or _PLACEHOLDER.fullmatch(text) else text


def _kind_of(message: str | None, exception: int | None, frames: list[dict[str, Any]], block: _Block) -> str:
    for kind, _, pattern in KINDS:
        if message and pattern.search(message):
            return kind
    if exception is not None:
        return EXCEPTIONS.get(exception, "other")
    if block.has("fatal"):
        return "machine_check"
    main = [frame["function"] or "" for frame in frames if frame["backtrace"] == 0]
    return "panic" if any(map(_PANICKING.match, main[:6])) else "other"


@dataclass(slots=True, eq=False)
class _Trace:
    # A run of frames of one PCPU. A saved one was logged for another PCPU than the one that panicked.
    pcpu: int | None = None
    saved: bool = False
    announced: bool = False  # stands behind the header or `Code start`
    pieces: list[Piece] = field(default_factory=list)


def _traces(pieces: list[Piece]) -> list[_Trace]:
    traces = [_Trace()]
    for piece in pieces:
        trace = traces[-1]
        if piece.role in ("saved", "backtrace"):
            traces.append(_Trace(read_count(piece.group("pcpu")), piece.role == "saved", trace.announced))
        elif piece.role in ("header", "code_start", "uptime"):
            traces.append(_Trace(announced=True))
        elif piece.role in _FRAMES:
            # `pcpu 118 Heartbeat NMI: 0x...` says at each frame whose it is; a frame without that ends such a run.
            tagged = read_count(piece.group("pcpu")) if piece.group("why") else None
            if piece.group("why"):
                goes_on = trace.saved and trace.pcpu == tagged
            else:  # a debugger prints the same stack again
                end = trace.pieces[-1] if trace.pieces else None
                twice = end and (end.role in _DEBUGGED) is not (piece.role in _DEBUGGED)
                goes_on = not twice and not (end and trace.saved and end.group("why"))
            if not goes_on:
                traces.append(_Trace(tagged, tagged is not None, trace.announced))
            traces[-1].pieces.append(piece)
    return [trace for trace in traces if trace.pieces]


def _frames_of(pieces: list[Piece], pcpu: int | None) -> list[dict[str, Any]]:
    traces = _traces(pieces)
    main = [trace for trace in traces if not trace.saved]
    if not main and pcpu is not None:  # the only trace of the panicking PCPU is the one its NMI saved
        main = [trace for trace in traces if trace.pcpu == pcpu]
    frames = []
    if main:
        # The same stack may be logged twice: with five words before the header, with one behind it. The latter counts,
        # unless it is only the beginning of the former.
        best = next((trace for trace in main if trace.announced), main[0])
        for trace in main:
            same = (a.group("ip") == b.group("ip") for a, b in zip(best.pieces, trace.pieces, strict=False))
            best = trace if len(trace.pieces) > len(best.pieces) and all(same) else best
        frames = [_frame(piece, 0, index, best.pcpu) for index, piece in enumerate(best.pieces)]
    saved: dict[int | None, list[Piece]] = {}
    for trace in traces:
        if trace.saved and trace not in main:
            saved.setdefault(trace.pcpu, []).extend(trace.pieces)
    for number, (other, told) in enumerate(saved.items(), start=1):
        frames += [_frame(piece, number, index, other) for index, piece in enumerate(told)]
    if frames and _ends_in_a_frame(pieces):  # how much of the symbol is left, nobody knows
        frames[-1] |= dict.fromkeys(("function", "module", "module_version", "offset", "module_evidence"))
    return frames


def _ends_in_a_frame(pieces: list[Piece]) -> bool:
    # The text stops inside a frame: its neighbours print stack words, it does not get that far.
    before = any(piece.group("stack") for piece in pieces[:-1] if piece.role == "frame")
    return before and pieces[-1].role == "frame" and not pieces[-1].group("stack")


def _frame(piece: Piece, backtrace: int, index: int, pcpu: int | None) -> dict[str, Any]:
    module = _told_name((piece.group("module") or "").strip("()"))
    offset = _address(piece.group("offset") or piece.group("plain_offset"))
    return {
        "backtrace": backtrace,
        "pcpu": piece.pcpu if pcpu is None and backtrace == 0 else pcpu,
        "index": index,
        "frame_pointer": _address(piece.group("fp")),
        "address": _address(piece.group("ip")),
        "function": _told_name(piece.group("function")),
        "module": module,
        "module_version": _told_name(piece.group("version")),
        "offset": offset if offset is not None and offset < 1 << 63 else None,
        "stack": _address(piece.group("word")),
        "module_evidence": "printed" if module else None,
    }


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufffd]|\\x[89a-f][0-9a-f]")


def _damage(pieces: list[Piece], crash: dict[str, Any], frames: list[dict[str, Any]], raw: bytes) -> str:
    found = set().union(*(piece.damage for piece in pieces if piece.role))
    roles = [piece.role for piece in pieces]
    framed = [i for i, role in enumerate(roles) if role in _FRAMES]
    message = crash["message"]
    torn = "cut" in roles or _ends_in_a_frame(pieces)
    odd = b"\0" in raw or any(frame["function"] is None for frame in frames) or _CONTROL.search(message or "")
    signs = {
        "no_header": message is None,
        "no_frames": not frames,
        "cut_head": message is None and roles[0] in (*_FRAMES, "code_start", "registers"),
        "cut_backtrace": torn or (framed and "elided" in roles[framed[0] : framed[-1] + 2]),
        "cut_line": torn,
        "garbled": odd,
        "no_time": crash["time"] is None,
    }
    return ";".join(word for word in DAMAGE if word in found or signs.get(word))


def _identity(crash: dict[str, Any], ip: int | None, frames: list[dict[str, Any]]) -> str:
    # What every copy of one crash prints alike. Neither host nor wall clock: a receiver rewrites both. But without an
    # uptime nothing tells a crash from the next one of the same world at the same place, so then the second counts.
    uptime, time = crash["uptime"], crash["time"]
    main = next((frame for frame in frames if frame["backtrace"] == 0), None)
    shared = [
        *(crash[name] for name in ("kind", "exception", "world_id")),
        ip, crash["fault_address"], crash["code_start"],
        uptime // timedelta(milliseconds=1) if uptime is not None else None,
        (main["frame_pointer"], main["address"], main["function"]) if main else None,
        _plain(crash["message"]),
        *([int(time.timestamp())] if uptime is None and time is not None else []),
    ]  # fmt: skip
    return hashlib.sha256(repr(tuple(shared)).encode()).hexdigest()[:16]


def find_crashes(text: str | bytes) -> list[Crash]:
    """All crashes of one log's text, a pasted screen or a cut backtrace, in the order of the text."""
    if not isinstance(text, str) and encoding_of(text):
        text = decoded(text)
    data = text.encode("utf-8", "backslashreplace") if isinstance(text, str) else bytes(text)
    return [read_crash(block, part, start) for block, part, start in blocks_in(data) if is_crash(block)]
