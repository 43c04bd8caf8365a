"""Known issues: reading a file, and which conditions a crash meets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from psodlib.errors import RuleError
from psodlib.records import Crash, Frame
from psodlib.triage.known_issues import load_issues, match_issues

HEAD = '[[issue]]\nid = "X1"\ntitle = "t"\nsource = "s"\nsure = "weak"\nremedy = "r"\n'
HPSA = Crash(
    kind="page_fault", guilty_module="hpsa", esxi_version="5.5.0", message="#PF Exception 14", text="@BlueScreen: #PF"
)


def own(tmp_path, text: str):
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return file


def only(tmp_path, conditions: str):
    return [issue for issue in load_issues(own(tmp_path, HEAD + conditions)) if issue.id == "X1"]


def test_shipped_issues_say_how_sure_they_are():
    issues = load_issues()
    assert {"KB2075978", "KB316522", "c03543898", "KB395129"} <= {issue.id for issue in issues}
    assert all(issue.sure in ("verified", "reported", "weak") and issue.source and issue.remedy for issue in issues)


@pytest.mark.parametrize(
    ("version", "held", "unknown"),
    [("5.5.0.58", ("module", "versions", "esxi"), ()), (None, ("module", "esxi"), ("versions",))],
)
def test_the_incident_is_known(version, held, unknown):
    (match,) = match_issues(HPSA, version)
    assert match.issue.id == "KB2075978"
    assert (match.held, match.failed, match.unknown) == (held, (), unknown)
    assert match.full is (version is not None)


@pytest.mark.parametrize("version", ["5.5.0.50", "5.5.0.60", "5.5.0.44", "5.5.0.580"])
def test_another_version_is_not_it(version):
    assert match_issues(HPSA, version) == ()


def test_another_esxi_or_module_is_not_it():
    assert match_issues(replace(HPSA, esxi_version="6.0.0"), "5.5.0.58") == ()
    assert match_issues(replace(HPSA, guilty_module="lpfc"), "5.5.0.58") == ()


@pytest.mark.parametrize(
    ("crash", "issue"),
    [
        (Crash(kind="not_implemented", message="NOT_IMPLEMENTED bora/vmkernel/main/world.c:2307"), "KB316522"),
        (Crash(kind="tlb_timeout", message="PCPU 3 locked up. Failed to ack TLB invalidate.", esxi_version="5.0.0"), "c03543898"),
        (Crash(kind="spin_count", frames=(Frame(function="hpilo_isr"),)), "KB395129"),
        (Crash(kind="panic", frames=(Frame(function="PCIEDPC_EDRHandler"),)), "KB394393"),
        (Crash(kind="nmi", message="LINT1/NMI (motherboard nonmaskable interrupt), undiagnosed."), "KB399748"),
        (Crash(kind="page_fault", guilty_module="hpsa", esxi_version="6.0.0", text="<4>hpsa 0000:03:00.0: out of memory"), "c04302261"),
    ],
)  # fmt: skip
def test_shipped_issues_match(crash, issue):
    assert [match.issue.id for match in match_issues(crash)] == [issue]


def test_a_kind_alone_is_no_match():
    assert match_issues(Crash(kind="spin_count", message="Spin count exceeded (x) - possible deadlock")) == ()
    assert match_issues(Crash()) == ()


@pytest.mark.parametrize(
    ("spans", "version", "holds"),
    [
        ('">=5.5.0.50,<5.5.0.60"', "5.5.0.58", True),
        ('">=5.5.0.50,<5.5.0.60"', "5.5.0.60", False),
        ('">=5.5.0.50,<5.5.0.60"', "5.5.0.114", False),
        ('">5.5.0.74"', "5.5.0.114", True),
        ('">5.5.0.58"', "5.5.0.58", False),
        ('">=5.5.0.58,<=5.5.0.58"', "5.5.0.58", True),
        ('"<=5.5.0.44", "5.5.0.58"', "5.5.0.58", True),
        ('"5.5.0.58"', "5.5.0.58-1OEM.550.0.0.1331820", True),
    ],
)
def test_ranges(tmp_path, spans, version, holds):
    issues = only(tmp_path, f'module = "hpsa"\nversions = [{spans}]\n')
    assert bool(match_issues(HPSA, version, issues)) is holds


def test_builds_come_from_the_host_or_the_caller(tmp_path):
    issues = only(tmp_path, 'module = "hpsa"\nbuilds = [">=1331820,<1892794"]\n')
    assert match_issues(HPSA, None, issues)[0].unknown == ("builds",)
    assert match_issues(HPSA, None, issues, esxi_build="1746018")[0].full
    assert match_issues(HPSA, None, issues, esxi_build="1892794") == ()


def test_full_matches_come_first(tmp_path):
    issues = only(tmp_path, 'module = "hpsa"\n')
    assert [match.issue.id for match in match_issues(HPSA, None, [*load_issues(), *issues])] == ["X1", "KB2075978"]


def test_a_users_entry_replaces_a_shipped_one(tmp_path):
    text = HEAD.replace("X1", "KB2075978") + 'module = "hpsa"\n'
    issues = load_issues(own(tmp_path, text))
    assert [issue.title for issue in issues if issue.id == "KB2075978"] == ["t"]


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("[[issue]\n", 1, "no TOML"),
        ("a = 1\n", 1, r"\[\[issue\]\]"),
        (HEAD + 'module = "hpsa"\nversion = ["1"]\n', 8, "unknown key 'version'"),
        (HEAD + 'module = "hpsa"\nversions = "1"\n', 8, "list of texts"),
        (HEAD + 'module = "hpsa"\nversions = ["=> 1"]\n', 8, "no range"),
        (HEAD + "module = 3\n", 7, "expected a text"),
        (HEAD + 'stack = ["("]\n', 7, "no regular expression"),
        (HEAD + 'message = ["x"]\nkinds = ["boom"]\n', 8, "no crash kind"),
        (HEAD + 'module = "x"\n' + HEAD.replace("weak", "sure") + 'module = "x"\n', 12, "sure is 'sure'"),
        (HEAD, 2, "nothing to know the issue by"),
        ('[[issue]]\nid = "X"\n', 2, "'title' is missing"),
        (HEAD.replace("X1", "X;1") + 'module = "x"\n', 2, "hold none"),
    ],
)
def test_a_bad_entry_is_named_by_file_and_line(tmp_path, text, line, problem):
    file = own(tmp_path, text)
    with pytest.raises(RuleError, match=problem) as error:
        load_issues(file)
    assert (error.value.file, error.value.line) == (str(file), line)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RuleError, match=r"none\.toml"):
        load_issues(tmp_path / "none.toml")
