"""A capture of a terminal -> the commands in it, each with its output and the host that its prompt names."""

from __future__ import annotations

import re

from psodlib.evidence.artifacts.findings import Part

__all__ = ["PROMPTS", "PROMPT_LINE", "find_prompt", "has_prompt", "split_terminal"]

MAX_PROMPT = 2000  # characters of a line with a prompt

# Words that begin a command whose prompt was lost or is a bare `#`, as people paste them.
_COMMANDS = (
    r"(?:esxcli|localcli|esxcfg-\w+|vmkload_mod|vmkdump_extract|vmkchdev|ethtool|vmware -\w|vim-cmd|uname|uptime|smbiosDump|"
    r"cat /(?:proc|var|etc|scratch)|date$|grep |zcat |less |tail |head |reboot|lspci|ls |cd )"
)
# Name, sample, pattern with `command` and, where the prompt has one, `host`.
PROMPTS: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple(
    (name, sample, re.compile(pattern))
    for name, sample, pattern in (
        ("esxi 6+", "[root@esx01:~] esxcli system version get", r"\[[\w.-]{1,32}@(?P<host>[\w.-]{1,255}):[^\]\s]{0,255}\]\s*(?P<command>\S.*)?$"),
        ("bash", "[root@esx01 ~]# vmware -v", r"\[[\w.-]{1,32}@(?P<host>[\w.-]{1,255}) [^\]\s]{0,255}\]\s*[#$]\s*(?P<command>\S.*)?$"),
        ("vMA", "vi-admin@vma:~[esx01.lab]> esxcli system module get -m hpsa", r"[\w.-]{1,32}@[\w.-]{1,255}:[^\[\s]{0,255}\[(?P<host>[\w.-]{1,255})\]>\s*(?P<command>\S.*)?$"),
        ("user@host", "root@esx01:~# vmware -v", r"[\w.-]{1,32}@(?P<host>[\w.-]{1,255}):\S{0,255}[#$>]\s+(?P<command>\S.*)?$"),
        ("ash", "~ # cat /proc/scsi/hpsa/2", r"(?:~|/\S{0,255}) [#$](?:\s+(?P<command>\S.*))?$"),
        ("user", "[root] esxcfg-nics -l", rf"\[root\]\s*(?P<command>{_COMMANDS}.*)$"),
        ("bare", "# esxcli software vib list", rf"(?:[#$>] ?)?(?P<command>{_COMMANDS}.*)$"),
    )
)  # fmt: skip

PROMPT_LINE = f"^(?:{'|'.join(pattern.pattern for *_, pattern in PROMPTS)})"  # for one pass with other patterns
# All of them in one search, which begins with a literal so that it runs from line to line.
_ANY_PROMPT = re.compile(
    "\n(?=" + "|".join(re.sub(r"\?P<\w+>", "?:", pattern.pattern) for *_, pattern in PROMPTS) + ")", re.MULTILINE
)


def find_prompt(line: str) -> re.Match[str] | None:
    """The prompt and command that a line shows, if it shows one."""
    return next((match for _, _, pattern in PROMPTS if (match := pattern.match(line))), None)


def split_terminal(part: Part) -> list[tuple[str | None, Part]]:
    """Split a capture at its prompts."""
    host: str | None = None
    outputs: list[tuple[str | None, Part]] = []
    lines: list[tuple[int, str]] = []
    command = part.command

    def close() -> None:
        if any(text.strip() for _, text in lines):
            outputs.append((host, Part(part.source, list(lines), command, part.when)))
        lines.clear()

    for number, text in part.lines:
        match = find_prompt(text)
        if match is None:
            lines.append((number, text))
            continue
        close()
        named = match.groupdict().get("host")
        if named is not None:
            host = None if named.lower().startswith("localhost") else named
        command = match["command"] or ""
    close()
    return outputs


def has_prompt(text: str) -> bool:
    """Whether any line of a text shows a prompt with a command."""
    starts = (match.end() - 1 for match in _ANY_PROMPT.finditer("\n" + text))
    found = (find_prompt(text[start : start + MAX_PROMPT].partition("\n")[0]) for start in starts)
    return any(match is not None and match["command"] for match in found)
