"""One crash's text -> ``Crash``: blocks of pieces, and what a block says.

The text goes through three steps, each a table or a short function::

    text -> pieces (one log line each, joined lines cut) -> blocks (the pieces of one crash) -> Crash

What a line can be stands in ``psod_lines``. Whether a block is a crash is decided once, by ``is_crash``, for pasted text and
for logs alike. Damage is a value; nothing here raises on text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from psodlib.evidence.pieces import Piece, moment_of, read_count, regions, split_pieces
from psodlib.evidence.psod_lines import EXCEPTIONS, HEX, KINDS, NUMBER, OPENERS
from psodlib.records import DAMAGE, Crash, Frame, Module

_DEBUGGED = ("debugged", "gdb")  # a debugger's frames, the former in the kernel's own source
_FRAMES = ("frame", "symbol", *_DEBUGGED)
_SCREEN = ("registers", "arm_pc", "cpu_list", "world", "base", *_FRAMES)
_MESSAGES = ("header", "message", "requested", "title")
_SHOWN = ("product", "title", "backtrace", "saved", "cpu_list", "world", *_FRAMES)
# Any of these says that the host stopped, whatever stands beside it.
_FATAL = ("header", "message", "code_start", "details", "other_cpu", "fatal", "requested")
_BEGINS = OPENERS | {"registers", "arm_pc", "world", "lockup", "other_product"}
# A backtrace under one of these is logged by a host that lives on, unless something fatal stands beside it.
_LIVES_ON = ("backtrace", "lockup")
_LOGGING = re.compile(r"LogBacktrace|Log_Backtrace|Util_.{0,80}Backtrace|Backtrace_Log")
_PANICKING = re.compile(r"_?v?Panic|vmk_v?Panic|PanicvPanic|panic$")

_GAP = 12  # lines of something else that a block outlives: other PCPUs go on logging for a moment
_LONG_GAP = 2000  # the same, where stamps say that it is still that moment
_SAME_MOMENT = timedelta(seconds=2)
_MOMENTS = timedelta(seconds=20)
_NESTED = timedelta(minutes=1)  # a second panic while the first is being dumped; no host boots this fast
_ANOTHER_DAY = timedelta(minutes=10)
_FORETOLD = 40  # lines of hardware errors that belong to the crash behind them
_PIECE_LIMIT = 20_000  # lines of one crash; 512 PCPUs with 30 frames each stay below
_ADDRESS_LIMIT = 1 << 64

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
        found = [self.firsts[role] for role in roles if role in self.firsts]
        return min(found, key=lambda piece: piece.start) if found else None

    def has(self, *roles: str) -> bool:
        return any(role in self.firsts for role in roles)

    def is_over(self, piece: Piece) -> bool:
        if len(self.pieces) >= _PIECE_LIMIT or piece.role == "boot":
            return True
        if self.gap <= _GAP:
            return False
        return not self.is_near(piece, _MOMENTS) or self.gap > _LONG_GAP

    def is_near(self, piece: Piece, span: timedelta) -> bool:
        return self.last is not None and _near(self.last, piece, span)


def group_blocks(pieces: Iterable[Piece]) -> Iterator[_Block]:
    block: _Block | None = None
    previous: Piece | None = None
    foretold: list[Piece] = []  # what the hardware reported right before
    for piece in pieces:
        if piece.role == "bare_symbol":  # a name alone is a frame only below something that says so
            piece.role = "symbol" if block and block.has(*_FATAL, *_FRAMES, *_LIVES_ON) else ""
        if block and (block.is_over(piece) or _begins_another(block, piece)):
            yield block
            block = None
        if block:
            block.add(piece)
        elif piece.role in _BEGINS:
            block = _Block()
            for told in foretold:
                block.add(told)
            if previous and piece.role in ("code_start", "uptime") and _is_title(previous):
                previous.role = "title"
                block.add(previous)
            block.add(piece)
        foretold = [*foretold, piece][-_FORETOLD:] if piece.role == "detail" and not block else []
        previous = piece
    if block:
        yield block


def _is_title(piece: Piece) -> bool:
    # A panic text that no table knows stands, alone and without prefix, right before `Code start`.
    return not piece.role and bool(piece.body) and not piece.prefixed


def _begins_another(block: _Block, piece: Piece) -> bool:
    # Does this piece open the next crash, or does it belong to the block? It belongs until something contradicts.
    if block.last and _comparable(block.last, piece) and not block.is_near(piece, _ANOTHER_DAY):
        return True
    if piece.role in ("header", "message", "requested"):
        return _other_message(block, piece)
    if piece.role in ("product", "details"):
        if block.is_near(piece, _NESTED):
            return False
        first = block.first(piece.role)
        whole = block.has("registers", *_FRAMES) and block.has(*_MESSAGES)
        return (first is not None and block.pieces[-1] is not first) or (whole and not piece.prefixed)
    if piece.role in ("code_start", "uptime"):
        known = block.first("code_start", "uptime")
        uptimes = [_span(one.group("uptime")) for one in (known, piece) if one]
        return len(uptimes) == 2 and None not in uptimes and abs(uptimes[0] - uptimes[1]) > _NESTED  # type: ignore[operator]
    return False


def _other_message(block: _Block, piece: Piece) -> bool:
    known = block.first("header") or block.first("message", "requested", "title")
    traced, ended = block.has(*_FRAMES), block.has("code_start", "uptime")
    if known is None:
        # A dump prints backtrace and product before the message; pasted frames without either are another crash's.
        of_the_dump = block.has("product", "backtrace", "saved", "other_cpu", "details")
        return ended if piece.role == "header" else traced and not (of_the_dump or _near(block.pieces[-1], piece))
    if _alike(known, piece) or not _plain(piece.group("message")):  # nothing is said where a text is cut
        return False
    if piece.role == "header" and known.role == "header":
        return not (ended and _near(known, piece, _NESTED) and known.host == piece.host)
    told = [_message_facts(one.group("message")) for one in (known, piece)]
    elsewhere = len({one.world_id for one in told if None not in (one.exception, one.world_id)}) == 2
    return (traced or ended or elsewhere) and not _near(known, piece, _NESTED)


def _comparable(one: Piece, other: Piece) -> bool:
    # A receiver's stamp and the host's own differ by whatever the clocks do.
    return one.time is not None and other.time is not None and one.received == other.received


def _near(one: Piece, other: Piece, span: timedelta = _SAME_MOMENT) -> bool:
    return _comparable(one, other) and abs(one.time - other.time) <= span  # type: ignore[operator]


def _alike(one: Piece, other: Piece) -> bool:
    a, b = _plain(one.group("message") or one.body), _plain(other.group("message") or other.body)
    together = not _comparable(one, other) or _near(one, other, _NESTED)
    return together and bool(a) and bool(b) and (a.startswith(b) or b.startswith(a))


def _plain(message: str | None) -> str:
    # Letters and figures alone: what two prints of one message share.
    text = re.split(r"\s+PTEs:", message or "", maxsplit=1)[0].replace("\\x", "")
    return re.sub(r"[^0-9a-z]", "", text.lower())[:200]


# --------------------------------------------------------------------------------------------------------------------
# What is a crash.


def is_crash(block: _Block) -> bool:
    # A fatal form, a product line with what a purple screen shows around it, or a backtrace of a host that panics.
    if _is_joke(block):
        return False
    if (
        block.has(*_FATAL)
        or (block.has("product") and block.has(*_SCREEN))
        or (block.has("uptime") and block.has(*_SHOWN))
    ):
        return True
    return _is_backtrace_of_a_panic([piece for piece in block.pieces if piece.role in _FRAMES], block)


def looks_like_crash(block: _Block) -> bool:
    # Worth a word where it is not taken: more than the banner of a boot, and no backtrace of a host that lives on.
    if _is_joke(block) or block.has("saved"):
        return True
    frames = [piece for piece in block.pieces if piece.role in _FRAMES]
    return bool(frames) and not block.has(*_LIVES_ON)


def _is_backtrace_of_a_panic(frames: list[Piece], block: _Block) -> bool:
    if not frames or all(piece.role in _DEBUGGED for piece in frames):
        return any(piece.role == "debugged" for piece in frames)  # of a core dump of the vmkernel
    functions = [piece.group("function") or "" for piece in frames]
    if any(_PANICKING.match(function) for function in functions[:6]):
        return True
    # Where each PCPU's own area and tables lie, the kernel prints on its way into a panic alone.
    lives_on = any(_goes_with(piece, frames[0]) for piece in block.pieces if piece.role in _LIVES_ON)
    return block.has("world") or not (_is_logged(frames) or lives_on)


def _goes_with(said: Piece, frame: Piece) -> bool:
    # Whether a line that tells of a living host speaks of these frames: written as they are, and in their moment.
    return said.prefixed == frame.prefixed and (not _comparable(said, frame) or _near(said, frame))


def _is_logged(frames: list[Piece]) -> bool:
    # A host that lives on prints several words of the stack, a purple screen one; the last line may be cut, and tells neither.
    if any(_LOGGING.search(piece.group("function") or "") for piece in frames):
        return True
    if frames[0].pcpu is None or frames[0].role != "frame":
        return False
    whole = frames[:-1]
    return not whole or any("," in (piece.group("stack") or "") for piece in whole)


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


def read_crash(block: _Block, data: bytes, offset: int) -> Crash:
    pieces = _trimmed(block.pieces)
    raw = data[pieces[0].start - offset : pieces[-1].end - offset]
    message = _message_of(
        block.first("header") or block.first("message") or block.first("requested") or _screen_message(pieces)
    )
    facts = _message_facts(message)
    pcpu = _of_whom(pieces, "pcpu", facts.pcpu)
    frames = _frames_of(_traces(pieces), pcpu)
    if frames and _ends_in_a_frame(pieces):  # how much of the symbol is left, nobody knows
        lost = dict.fromkeys(("function", "module", "module_version", "offset", "module_evidence"))
        frames[-1] = replace(frames[-1], **lost)  # type: ignore[arg-type]
    main = [frame for frame in frames if frame.backtrace == 0]
    product = block.first("product")
    crash = Crash(
        host=next((piece.host for piece in pieces if piece.role and piece.host), None),
        time=_time_of(pieces),
        esxi_version=_unmasked(product, "version"),
        esxi_build=_unmasked(product, "build"),
        kind=_kind_of(message, facts, main, block),
        message=message,
        exception=facts.exception,
        pcpu=pcpu,
        world_id=_of_whom(pieces, "world", facts.world_id),
        world_name=facts.world_name or _first_told(pieces, "name", "details", "cpu_list"),
        ip=facts.ip if facts.ip is not None else _register_ip(pieces),
        fault_address=facts.fault_address,
        code_start=_address(_first_told(pieces, "code_start", "code_start")),
        uptime=_span(_first_told(pieces, "uptime", "code_start", "uptime", "details")),
        deliberate=bool(message and KINDS[0][2].search(message)),
        damage="",
        line=pieces[0].line,
        offset=pieces[0].start,
        sha256=hashlib.sha256(raw).hexdigest(),
        text=raw.decode("utf-8", "backslashreplace"),
    )
    identity = _identity(crash, facts, main)
    return replace(
        crash,
        crash_id=identity,
        damage=_damage(pieces, crash, frames, raw),
        frames=tuple(replace(frame, crash_id=identity) for frame in frames),
        modules=tuple(
            replace(module, crash_id=identity, host=crash.host, time=crash.time) for module in _module_map(pieces)
        ),
    )


def _trimmed(pieces: list[Piece]) -> list[Piece]:
    # A crash begins behind the warnings that foretold it, and ends with its last line of a known role.
    first = next(i for i, piece in enumerate(pieces) if piece.role and piece.role != "lockup")
    last = max(i for i, piece in enumerate(pieces) if piece.role and piece.role not in ("elided", "screen"))
    return pieces[first : last + 1]


def _first_told(pieces: list[Piece], name: str, *roles: str) -> str | None:
    return next((text for role in roles for p in pieces if p.role == role and (text := p.group(name))), None)


def _screen_message(pieces: list[Piece]) -> Piece | None:
    told = [piece for piece in pieces if piece.role or piece.body]
    for before, piece in zip([None, *told], told, strict=False):
        if piece.role == "title" or (piece.role == "lockup" and piece.body.startswith("NMI IPI")):
            return piece
        if before and before.role == "product" and piece.role in ("", "detail") and not piece.prefixed:
            return piece
    return None


def _message_of(piece: Piece | None) -> str | None:
    if piece is None:
        return None
    text = (piece.match.groupdict() if piece.match else {}).get("message", piece.body[:4000]) or ""
    text = re.split(r"\s+PTEs:", text, maxsplit=1)[0]
    text = re.sub(r"\.{3}\s*\Z", "", text.strip()).rstrip()
    return text or None


class _Facts(NamedTuple):
    exception: int | None = None
    pcpu: int | None = None
    world_id: int | None = None
    world_name: str | None = None
    ip: int | None = None
    fault_address: int | None = None


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


def _message_facts(message: str | None) -> _Facts:
    text = message or ""
    exception, world, pcpu = _EXCEPTION.search(text), _IN_WORLD.search(text), _ON_PCPU.search(text)
    return _Facts(
        exception=int(exception[1]) if exception else None,
        pcpu=read_count(pcpu[pcpu.lastindex or 0]) if pcpu else None,
        world_id=read_count(world["world"]) if world else None,
        world_name=_told_name(world["name"]) if world else None,
        ip=_found_address(_MESSAGE_IP, text),
        fault_address=_found_address(_MESSAGE_ADDRESS, text),
    )


def _found_address(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return _address(found[found.lastindex or 0]) if found else None


def _address(text: str | None) -> int | None:
    try:
        value = int(text.replace("×", "x").replace("O", "0", 1), 16) if text else None
    except ValueError:
        return None
    return value if value is not None and value < _ADDRESS_LIMIT else None


def _span(text: str | None) -> timedelta | None:
    if not text:
        return None
    days, hours, minutes = map(int, text.split(":")[:3])
    seconds = float(text.rsplit(":", 1)[1])
    return timedelta(days, seconds, hours=hours, minutes=minutes) if days <= 73_000 else None


def _kind_of(message: str | None, facts: _Facts, frames: list[Frame], block: _Block) -> str:
    if message:
        for kind, _, pattern in KINDS:
            if pattern.search(message):
                return kind
    if facts.exception is not None:
        return EXCEPTIONS.get(facts.exception, "other")
    if block.first("fatal"):
        return "machine_check"
    panicking = any(_PANICKING.match(frame.function or "") for frame in frames[:6])
    return "panic" if panicking else "other"


def _time_of(pieces: list[Piece]) -> datetime | None:
    for roles in (("header",), ("code_start",), ("message", *_FRAMES), None):
        for piece in pieces:
            if piece.time and (roles is None or piece.role in roles):
                return piece.time
    return moment_of(_first_told(pieces, "time", "details") or "")


def _unmasked(piece: Piece | None, name: str) -> str | None:
    text = piece.group(name) if piece else None
    return None if text is None or re.search("[#X]", text) else text


_SPEAKING = (("header",), ("code_start", "message", "fatal", "requested", *_FRAMES))


def _of_whom(pieces: list[Piece], what: Literal["pcpu", "world"], told: int | None) -> int | None:
    # The PCPU or the world that crashed: by the prefix of its lines, its message (of a world the first), what else is printed.
    spoken = [getattr(piece, what) for roles in _SPEAKING for piece in pieces if piece.role in roles]
    printed = [
        read_count(piece.group(what))
        for role in ("details", "backtrace", "cpu_list", "other_cpu")
        for piece in pieces
        if piece.role == role
    ]
    own = [*spoken, told] if what == "pcpu" else [told, *spoken]
    return next((value for value in (*own, *printed) if value is not None), None)


_INNER_IP = re.compile(rf"\b(?:r|e)?ip=({HEX})")


def _register_ip(pieces: list[Piece]) -> int | None:
    for piece in pieces:
        if piece.role in ("registers", "arm_pc", "other_cpu") and (found := _address(piece.group("ip"))) is not None:
            return found
        if piece.role == "registers" and (found := _found_address(_INNER_IP, piece.body)) is not None:
            return found
    return None


class _Trace(NamedTuple):
    # A run of frames of one PCPU. A saved one was logged for another PCPU than the one that panicked.
    pcpu: int | None
    saved: bool
    announced: bool  # stands behind the header or `Code start`
    pieces: list[Piece]

    def goes_on_with(self, frame: Piece) -> bool:
        # `pcpu 118 Heartbeat NMI: 0x...` says at each frame whose it is; a frame without that ends such a run.
        if frame.group("why"):
            return self.saved and self.pcpu == read_count(frame.group("pcpu"))
        if self.pieces and (self.pieces[-1].role in _DEBUGGED) is not (frame.role in _DEBUGGED):
            return False  # the same stack again, by a debugger
        return not (self.saved and self.pieces and self.pieces[-1].group("why"))


def _traces(pieces: list[Piece]) -> list[_Trace]:
    traces = [_Trace(None, False, False, [])]
    for piece in pieces:
        trace = traces[-1]
        if piece.role in ("saved", "backtrace"):
            traces.append(_Trace(read_count(piece.group("pcpu")), piece.role == "saved", trace.announced, []))
        elif piece.role in ("header", "code_start", "uptime"):
            traces.append(_Trace(None, False, True, []))
        elif piece.role in _FRAMES:
            if not trace.goes_on_with(piece):
                tagged = read_count(piece.group("pcpu")) if piece.group("why") else None
                traces.append(_Trace(tagged, tagged is not None, trace.announced, []))
            traces[-1].pieces.append(piece)
    return [trace for trace in traces if trace.pieces]


def _frames_of(traces: list[_Trace], pcpu: int | None) -> list[Frame]:
    main = [trace for trace in traces if not trace.saved]
    if not main and pcpu is not None:  # the only trace of the panicking PCPU is the one its NMI saved
        main = [trace for trace in traces if trace.pcpu == pcpu]
    frames: list[Frame] = []
    if main:
        chosen = _fullest(main)
        frames = [_frame(piece, 0, index, chosen.pcpu) for index, piece in enumerate(chosen.pieces)]
    saved: dict[int | None, list[Piece]] = {}
    for trace in traces:
        if trace.saved and not any(trace is other for other in main):
            saved.setdefault(trace.pcpu, []).extend(trace.pieces)
    for number, (other, pieces) in enumerate(saved.items(), start=1):
        frames += [_frame(piece, number, index, other) for index, piece in enumerate(pieces)]
    return frames


def _fullest(traces: list[_Trace]) -> _Trace:
    # The same stack may be logged twice: with five words before the header, with one behind it. The latter counts, unless it
    # is only the beginning of the former.
    best = next((trace for trace in traces if trace.announced), traces[0])
    for trace in traces:
        if len(trace.pieces) > len(best.pieces) and all(
            a.group("ip") == b.group("ip") for a, b in zip(best.pieces, trace.pieces, strict=False)
        ):
            best = trace
    return best


def _ends_in_a_frame(pieces: list[Piece]) -> bool:
    # The text stops inside a frame: its neighbours print stack words, it does not get that far.
    before = any(piece.group("stack") for piece in pieces[:-1] if piece.role == "frame")
    return before and pieces[-1].role == "frame" and not pieces[-1].group("stack")


# What masks, scrapers and the vmkernel print for "not told".
_PLACEHOLDER = re.compile(r"[#X*]{1,80}|x{3,80}|<None>|<[A-Z][A-Z_ ]{0,20}>|example\.com|")


def _told_name(text: str | None) -> str | None:
    return None if text is None or _PLACEHOLDER.fullmatch(text) else text


def _frame(piece: Piece, backtrace: int, index: int, pcpu: int | None) -> Frame:
    module = _told_name((piece.group("module") or "").strip("()"))
    offset = _address(piece.group("offset") or piece.group("plain_offset"))
    return Frame(
        backtrace=backtrace,
        pcpu=piece.pcpu if pcpu is None and backtrace == 0 else pcpu,
        index=index,
        frame_pointer=_address(piece.group("fp")),
        address=_address(piece.group("ip")),
        function=_told_name(piece.group("function")),
        module=module,
        module_version=_told_name(piece.group("version")),
        offset=offset if offset is not None and offset < 1 << 63 else None,
        stack=_address(piece.group("word")),
        module_evidence="printed" if module else None,
    )


def _module_map(pieces: list[Piece]) -> list[Module]:
    # The vmkernel prints 0 for itself: that is "not said", its place is `Code start`.
    return [
        Module(
            module=piece.group("module") or "",
            base=_address(piece.group("base")) or None,
            data=_address(piece.group("data")) or None,
            bss=_address(piece.group("bss")) or None,
        )
        for piece in pieces
        if piece.role == "module_map"
    ]


def _damage(pieces: list[Piece], crash: Crash, frames: list[Frame], raw: bytes) -> str:
    found = set().union(*(piece.damage for piece in pieces if piece.role))
    if crash.message is None:
        found.add("no_header")
    if not frames:
        found.add("no_frames")
    if crash.time is None:
        found.add("no_time")
    roles = [piece.role for piece in pieces]
    if crash.message is None and roles[0] in (*_FRAMES, "code_start", "registers"):
        found.add("cut_head")
    framed = [i for i, role in enumerate(roles) if role in _FRAMES]
    if framed and "elided" in roles[framed[0] : framed[-1] + 2]:
        found.add("cut_backtrace")
    if "cut" in roles or _ends_in_a_frame(pieces):
        found |= {"cut_line", "cut_backtrace"}
    if b"\0" in raw or any(frame.function is None for frame in frames) or _CONTROL.search(crash.message or ""):
        found.add("garbled")
    return ";".join(word for word in DAMAGE if word in found)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufffd]|\\x[89a-f][0-9a-f]")


def _identity(crash: Crash, facts: _Facts, frames: list[Frame]) -> str:
    # What every copy of one crash prints alike. Neither host nor wall clock: a receiver rewrites both. But without an
    # uptime nothing tells a crash from the next one of the same world at the same place, so then the second counts.
    milliseconds = crash.uptime // timedelta(milliseconds=1) if crash.uptime is not None else None
    innermost = (frames[0].frame_pointer, frames[0].address, frames[0].function) if frames else None
    shared = (
        crash.kind, crash.exception, crash.world_id, facts.ip, crash.fault_address, crash.code_start, milliseconds, innermost,
        _plain(crash.message),
    )  # fmt: skip
    if crash.uptime is None and crash.time is not None:
        shared = (*shared, int(crash.time.timestamp()))  # type: ignore[assignment]
    return hashlib.sha256(repr(shared).encode()).hexdigest()[:16]


def find_crashes(text: str | bytes) -> list[Crash]:
    """All crashes of one log's text, a pasted screen or a cut backtrace, in the order of the text."""
    data = text.encode("utf-8", "backslashreplace") if isinstance(text, str) else bytes(text)
    return [
        read_crash(block, part, start)
        for part, start, line in regions(data)
        for block in group_blocks(split_pieces(part, start, line))
        if is_crash(block)
    ]
