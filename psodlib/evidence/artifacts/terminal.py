"""A capture of several outputs -> each with its command and the host that its prompt or heading names."""

from __future__ import annotations

import re

import re2  # type: ignore[import-untyped]

from psodlib.evidence.artifacts.findings import Part
from psodlib.evidence.heads import loosened

MAX_PROMPT = 2000  # characters of a line with a prompt

# Words that begin a command whose prompt was lost or is a bare `#`, as people paste them.
_COMMANDS = (
    r"(?:esxcli|localcli|esxcfg-\w+|vmkload_mod|vmkdump_extract|vmkchdev|ethtool|vmware -\w|vim-cmd|uname|uptime|smbiosDump|"
    r"cat /(?:proc|var|etc|scratch)|date$|grep |zcat |less |tail |head |reboot|lspci|ls |cd )"
)
_NAME = r"(?P<host>[A-Za-z0-9][\w-]{0,62}(?:\.[\w-]{1,63}){0,6}|\d{1,3}(?:\.\d{1,3}){3})"
_FULL = r"(?P<host>[A-Za-z0-9][\w-]{0,62}(?:\.[\w-]{1,63}){1,6}|\d{1,3}(?:\.\d{1,3}){3})"


def _table(*rows: tuple[str, str, str]) -> tuple[tuple[str, str, re.Pattern[str]], ...]:
    return tuple((name, sample, re.compile(pattern)) for name, sample, pattern in rows)


# Name, sample, pattern with `command` and, where the prompt has one, `host`.
PROMPTS = _table(
    ("esxi 6+", "[root@esx01:~] esxcli system version get", r"[ \t]{0,12}\[[\w.-]{1,32}@(?P<host>[\w.-]{1,255}):[^\]\s]{0,255}\]\s*(?P<command>\S.*)?$"),
    ("bash", "[root@esx01 ~]# vmware -v", r"[ \t]{0,12}\[[\w.-]{1,32}@(?P<host>[\w.-]{1,255}) [^\]\s]{0,255}\]\s*[#$]\s*(?P<command>\S.*)?$"),
    ("vMA", "vi-admin@vma:~[esx01.lab]> esxcli system module get -m hpsa", r"[ \t]{0,12}[\w.-]{1,32}@[\w.-]{1,255}:[^\[\s]{0,255}\[(?P<host>[\w.-]{1,255})\]>\s*(?P<command>\S.*)?$"),
    ("user@host", "root@esx01:~# vmware -v", r"[ \t]{0,12}[\w.-]{1,32}@(?P<host>[\w.-]{1,255}):\S{0,255}[#$>]\s+(?P<command>\S.*)?$"),
    ("ash", "~ # cat /proc/scsi/hpsa/2", r"[ \t]{0,12}(?:~|/\S{0,255}) [#$](?:\s+(?P<command>\S.*))?$"),
    ("PowerShell", "PS C:\\> plink root@esx01 vmware -v", r"(?:PS|(?:vSphere )?PowerCLI) [A-Za-z]:\\[^>\n]{0,200}> ?(?P<command>\S.*)?$"),
    ("user", "[root] esxcfg-nics -l", rf"[ \t]{{0,12}}\[root\]\s*(?P<command>{_COMMANDS}.*)$"),
    ("bare", "# esxcli software vib list", rf"(?:[#$>] ?)?(?P<command>{_COMMANDS}.*)$"),
)  # fmt: skip

# Headings that scripts print above an output: as prompts, with `host` or `command` or neither, which ends an output and no more.
HEADINGS = _table(
    ("fabric", "[esx01.lab] run: esxcli software vib list", r"\[" + _NAME + r"\] (?:run|sudo): (?P<command>.{1,400})$"),
    ("fabric task", "[esx01.lab] Executing task 'vibs'", r"\[" + _NAME + r"\] (?:Executing task|put:|download:|upload:)"),
    ("ansible", "esx01.lab | CHANGED | rc=0 >>", _NAME + r" \| (?:CHANGED|SUCCESS|FAILED)\b"),
    ("pssh", "[3] 10:00:01 [SUCCESS] esx01.lab", r"\[\d{1,5}\] \d\d:\d\d:\d\d \[(?:SUCCESS|FAILURE)\] " + _NAME),
    ("host by word", "########## ESXi 10.54.159.14 ##########",
     r"[ \t]*(?:[=#*~-]{2,80}|\+{2,80})[ \t]*(?:(?:ESXi?|VM)?[ _-]?[Hh]ost(?:name)?|HOST(?:NAME)?|ESXi?|[Ss]erver)[ \t]*[:=]?[ \t]+" + _NAME + r"[ \t]*(?:[=#*~-]{2,80}|\+{2,80})?[ \t]*$"),
    ("host by its form", "===== esx01.lab =====", r"[ \t]*[=#*~-]{3,80}[ \t]*(?:[\w /-]{0,40}(?:[Hh]ost|HOST|ESXi?)[\w /-]{0,40}: ?)?" + _FULL + r"[ \t]*:?[ \t]*(?:[=#*~-]{2,80})?[ \t]*$"),
    ("command", "### vmware -vl", rf"[ \t]*(?:[=#*~-]{{1,80}}|\$|>)[ \t]*(?P<command>{_COMMANDS}[^\n]{{0,400}}?)[ \t]*:?[ \t]*(?:[=#*~-]{{1,80}})?[ \t]*$"),
    ("host by its name", "== esx01", r"[ \t]*[=#*~-]{2,80}[ \t]*(?P<host>(?i:(?:[a-z][a-z-]{0,20})?esxi?[a-z-]{0,20}\d{1,4}[a-z]{0,3}))[ \t]*:?[ \t]*(?:[=#*~-]{2,80})?[ \t]*$"),
    ("ruled", "===== VIB LIST:", r"[ \t]*(?:[=#*~]{2,80}|-{3,80})[ \t]*(?P<title>[A-Za-z][^=#*~|\n]{0,80}?)[ \t]*(?:[=#*~-]{2,80})?[ \t]*$"),
    ("nicinfo.sh", "NIC:  vmnic0", r"(?:NIC: {1,4})?(?P<command>vmnic\d{1,4})[ \t]*$"),
)  # fmt: skip
# Fabric puts its host before each line of an output.
_PREFIX = re.compile(r"\[" + _NAME + r"\] (?:out|err): ?(?P<text>.*)$")
# `Host: esx01` alone, above an output.
_HOST_LINE = re.compile(
    r"[ \t]{0,4}(?:(?:ESXi?|VM)[ _-]?[Hh]ost|[Hh]ost ?[Nn]ame|Host|HOST)[ \t]*[:=][ \t]*" + _NAME + r"[ \t]*$"
)

_COMMENT = re.compile(r"^[ \t]*# ?")
_NO_HOST = re.compile(
    r"(?i)\.(?:log|txt|gz|csv|sh|json|xml|py|ps1|cfg|conf)$|^esxi-?(?:5[015]|6[057]|[789]0)\d?(?:u\d\w?)?$"
)
_FIELD = re.compile(r"([ \t]*)[A-Za-z][\w ()/.-]{0,60}?[ \t]{0,40}:(?:[ \t]|$)")
# A command sent to another host than the prompt's.
_FAR = re.compile(
    r"(?:(?:ssh|plink|sshpass)(?:\.exe)? (?:[^@\n]{0,200}[ \t])?[\w.-]{1,32}@|[^\n]{0,200}?(?:Get-VMHost(?: -Name)?|-VMHost) [\"']?)"
    + _NAME
    + r"(?=[ \t\"'|)]|$)"
)

# All of them in one search, at the speed of RE2: most texts hold none. It needs no bounds, and counting them would cost it its memory.
_ANY = "|".join(
    loosened(pattern.pattern) for pattern in (*(row[2] for row in (*PROMPTS, *HEADINGS)), _HOST_LINE, _PREFIX)
)
BOUNDARY = f"^(?:{_ANY})".replace(r"\s*", "[ \t]*").replace(r"\s+", "[ \t]+")  # for one pass with other patterns
_BOUNDARY = re2.compile("(?m)" + BOUNDARY)


def find_prompt(line: str) -> re.Match[str] | None:
    """The prompt and command that a line shows, if it shows one."""
    return _first_of(PROMPTS, line)


def _first_of(table: tuple[tuple[str, str, re.Pattern[str]], ...], line: str) -> re.Match[str] | None:
    return next((match for _, _, pattern in table if (match := pattern.match(line))), None)


def _is_host(name: str, by_prompt: bool) -> bool:
    # `ESXi 6.7.0`, `ESXi67U3` and `vmkernel.log` stand in headings too.
    if re.fullmatch(r"\d{1,3}(?:\.\d{1,3}){3}", name):
        return True
    plain = re.search(r"[a-z]", name, re.IGNORECASE) and not _NO_HOST.search(name)
    return bool(plain) and not name.lower().startswith("localhost") and (by_prompt or bool(re.search(r"[\d.-]", name)))


def _is_field_like(line: str, other: str) -> bool:
    # Two `Key: value` lines at one depth are of one record.
    one, two = _FIELD.match(line), _FIELD.match(other)
    return one is not None and two is not None and one[1] == two[1]


def split_terminal(part: Part) -> list[tuple[str | None, Part]]:
    """Split a capture at its prompts and headings."""
    host: str | None = None
    outputs: list[tuple[str | None, Part]] = []
    lines: list[tuple[int, str]] = []
    command = part.command

    def close() -> None:
        if any(text.strip() for _, text in lines):
            outputs.append((host, Part(part.source, list(lines), command, part.when)))
        lines.clear()

    given = list(part.lines)
    for index, (number, text) in enumerate(given):
        prefix = _PREFIX.match(text) if text.startswith("[") else None
        if prefix:
            if prefix["host"] != host:
                close()
                host = prefix["host"]
            text = prefix["text"]
        prompt = match = None
        if _BOUNDARY.match(text):
            prompt = find_prompt(text)
            match = prompt or _first_of(HEADINGS, text)
        if match is None and (match := _HOST_LINE.match(text)):
            beside = [given[at][1] for at in (index - 1, index + 1) if 0 <= at < len(given)]
            match = None if any(_is_field_like(other, text) for other in beside) else match
        if match is None:
            lines.append((number, text))
            continue
        close()
        told = match.groupdict()
        named = told.get("host")
        if named is not None and (prompt is not None or _is_host(named, by_prompt=False)):
            host = named if _is_host(named, by_prompt=True) else None
        command = told.get("command") or told.get("title") or ""
        far = _FAR.match(command)
        host = far["host"] if far else host
    close()
    return outputs


def has_prompt(text: str) -> bool:
    """Whether any line of a text shows a prompt with a command, or a heading above an output."""
    begins = (match.start() for match in _BOUNDARY.finditer(text))
    return any(_is_boundary(text[at : at + MAX_PROMPT].partition("\n")[0]) for at in begins)


def _is_boundary(line: str) -> bool:
    if prompt := find_prompt(line):
        return bool(prompt["command"])
    return bool(_PREFIX.match(line) or _HOST_LINE.match(line) or _first_of(HEADINGS, line))


def output_lines(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """An output's lines as they were printed: without the signs of a comment, whole where a terminal broke a table at its width."""
    if any(text.strip() for _, text in lines) and all(text.lstrip()[:1] in ("#", "") for _, text in lines):
        lines = [(number, _COMMENT.sub("", text)) for number, text in lines]
    broken = next((i for i in range(1, len(lines)) if _is_dashes(lines[i - 1][1]) and _is_dashes(lines[i][1])), None)
    if broken is None or len(lines[broken - 1][1]) < 40:
        return lines
    width, room = len(lines[broken - 1][1]), 1
    joined: list[tuple[int, str]] = []
    for number, text in lines:
        if room == 0 and text.strip():
            joined[-1] = (joined[-1][0], joined[-1][1] + text)
        else:
            joined.append((number, text))
        room = width - len(text)
    return joined


def _is_dashes(text: str) -> bool:
    return len(text.strip()) > 1 and not text.strip(" -")
