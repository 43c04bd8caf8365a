"""Text -> judged crashes, and why they were judged so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO

from psodlib.errors import InputError
from psodlib.evidence.psod import find_crashes
from psodlib.evidence.vmkernel import read_vmkernel
from psodlib.records import Crash, Frame, Precursor, Reason
from psodlib.triage.frames import irrelevant_rule, junk, telling_frames
from psodlib.triage.guilt import find_guilty
from psodlib.triage.known_issues import Issue, match_issues
from psodlib.triage.modules import is_plumbing
from psodlib.triage.precursors import Said, hear_host
from psodlib.triage.signature import SIGNATURE_VERSION, frame_name, sign

# What nobody would take for a log's text: one word that ends as the names of logs do.
_PATH = re.compile(r"(?:[\w.~:-]{0,255}[/\\]){0,40}[\w.-]{0,255}(?:\.(?:log|txt|gz|tgz|zip)|(?:log|dump)\.\d{1,3})")


def parse_crashes(text: str | bytes) -> list[Crash]:
    """All crashes in one log's text, with guilt and signature.

    Parameters
    ----------
    text : str or bytes
        A dump log, a vmkernel log, a screen's transcript, or any part of one. Bytes are read as UTF-8; bytes that are
        none survive.

    Returns
    -------
    list of Crash
        In the order of the text; empty when there is no crash. Damage is said in ``damage`` and never raises. What text
        alone cannot tell (``driver_version``, ``known_issues``, a file) stays None.

    Raises
    ------
    InputError
        A file's name in place of its text.

    Examples
    --------
    >>> log = "@BlueScreen: #PF Exception 14 in world 2097:hpsa IP 0x418018b7e594 addr 0x0"
    >>> [crash.kind for crash in parse_crashes(log)]
    ['page_fault']
    """
    if not isinstance(text, (str, bytes)) or (isinstance(text, str) and _PATH.fullmatch(text)):
        raise InputError(
            f"found {str(text)[:200]!r}, which looks like a file's name; expected the text in it: "
            "parse_crashes(open(file, 'rb').read()), or psodlib.load(file) for files and folders"
        )
    crashes = find_crashes(text)
    if not crashes:
        return []
    # What the same text said before the crash is evidence too; behind the last one it is another boot's, whatever its clock says.
    data = text.encode("utf-8", "backslashreplace") if isinstance(text, str) else text
    reading = read_vmkernel(BytesIO(data), "")
    before = tuple(p for p in reading.precursors if (p.line or 0) < (crashes[-1].line or 0))
    said = hear_host([replace(reading, crashes=tuple(crashes), precursors=before)])
    return [judge(crash, said) for crash in crashes]


def judge(crash: Crash, precursors: Said | Sequence[Precursor] = ()) -> Crash:
    """A crash with its frames' modules, its guilty module, its signature and the reasons for both filled in."""
    verdict = find_guilty(crash, precursors)
    crash = verdict.crash
    signed = sign(crash, verdict.device)
    reasons = [Reason("signature", note) for note in signed.notes]
    reasons += [Reason("suspect", f"{one.why} ({one.evidence})", one.module, one.score) for one in verdict.suspects]
    reasons += [Reason("doubt", note) for note in verdict.notes]
    return replace(
        crash, guilty_module=verdict.module, guilty_function=verdict.function, guilt=verdict.guilt,
        deliberate=crash.deliberate or verdict.guilt == "deliberate", signature=signed.signature,
        proto_signature=signed.proto_signature, reasons=tuple(reasons),
    )  # fmt: skip


def with_issues(crash: Crash, issues: Sequence[Issue] | None = None) -> Crash:
    """A judged crash with the known issues that it does not contradict, and why they are thought of."""
    ids = []
    reasons = [reason for reason in crash.reasons if reason.about != "known_issue"]
    for match in match_issues(crash, issues=issues):
        issue, untold = match.issue, f"; cannot be told: {', '.join(match.unknown)}" if match.unknown else ""
        words = f"{issue.id} ({issue.sure}): {issue.title}; held: {', '.join(match.held)}{untold}. {issue.remedy}"
        reasons.append(Reason("known_issue", words, issue.module))
        ids.append(issue.id)
    return replace(crash, known_issues=";".join(ids) or None, reasons=tuple(reasons))


def explain(crash: Crash, precursors: Said | Sequence[Precursor] = ()) -> str:
    """Why a crash got its signature and its guilty module, for reading.

    Parameters
    ----------
    crash : Crash
        Any crash; one of ``fleet.crash(id)`` or ``parse_crashes`` is judged, and its ``reasons`` are only formatted.
    precursors : Said or sequence of Precursor
        Warnings of its host, for a crash that is not judged yet.

    Returns
    -------
    str
        Lines: the crash, every frame with what was made of it, the evidence against each suspect, the known issues with
        the conditions that held and those that the evidence leaves open, each rule's notes, the doubts.
    """
    if not isinstance(crash, Crash):
        raise InputError(f"found {str(crash)[:80]!r}; expected a crash: explain(fleet.crash({str(crash)[:80]!r}))")
    if not crash.reasons:
        crash = judge(crash, precursors)
    if crash.known_issues is None:
        crash = with_issues(crash)
    where = f"in {crash.guilty_function}" if crash.guilty_function else "not on the stack"
    culprit = f"{crash.guilty_module}, {where}" if crash.guilty_module else "nobody"
    telling = set(telling_frames(crash))
    lines = [
        f"crash      {crash.crash_id or '?'}  {crash.host or 'host unknown'}  {crash.time or 'time unknown'}",
        f"message    {crash.message or 'not in the text'}",
        f"kind       {crash.kind}" + (f"; damaged: {crash.damage}" if crash.damage else ""),
        f"signature  {crash.signature}   (rules of version {SIGNATURE_VERSION})",
        f"guilty     {culprit}; evidence: {crash.guilt}",
        "", "frames (backtrace.number, innermost first)",
        *([_frame_line(frame, frame in telling) for frame in crash.frames] or ["  none in the text"]),
    ]  # fmt: skip
    for about, title, nothing in (
        ("suspect", "suspects, strongest first", "nobody"),
        ("known_issue", "known issues that it does not contradict", "none"),
        ("signature", "why this signature", "no rule changed it"),
        ("doubt", "what to know before believing it", "nothing against it in the text"),
    ):
        reasons = [reason for reason in crash.reasons if reason.about == about]
        names = [f"{one.module:16} " if one.module and about == "suspect" else "" for one in reasons]
        told = [f"  {name}{one.text}" for name, one in zip(names, reasons, strict=True)]
        lines += ["", title, *(told or [f"  {nothing}"])]
    return "\n".join(lines)


def _frame_line(frame: Frame, telling: bool) -> str:
    how = "" if frame.module_evidence in (None, "printed") else f" ({frame.module_evidence})"
    module, name = f"{frame.module or '?'}{how}", frame_name(frame)
    if not telling:
        remark = "not the backtrace that can tell"
    elif rule := irrelevant_rule(name):
        remark = f"irrelevant: {rule.reason}"
    elif junk(frame):
        remark = "junk: no function is that long"
    elif frame.module is None:
        remark = "module unknown"
    else:
        remark = "plumbing" if is_plumbing(frame.module) else "suspect"
    return f"  {frame.backtrace}.{frame.index:<3} {name:40} {module:28} {remark}"
