"""Known issues: reading a file, and which conditions a crash meets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from psodlib.errors import RuleError
from psodlib.records import Crash, Frame
from psodlib.triage import known_issues
from psodlib.triage.crashes import parse_crashes
from psodlib.triage.known_issues import AREAS, exposed, load_issues

SHIPPED = load_issues()
# A sample that bears another entry's sign too: every undiagnosed NMI is one, whatever else its stack tells.
SHARED = {"KB345237": {"KB1804"}}

HEAD = '[[issue]]\nid = "X1"\ntitle = "t"\nsource = "s"\nsure = "weak"\nremedy = "r"\n'
HPSA = Crash(
    kind="page_fault", guilty_module="hpsa", esxi_version="5.5.0", message="#PF Exception 14", text="@BlueScreen: #PF",
    frames=(Frame(function="hpsa_scan_start"),),
)  # fmt: skip
SIGN = 'stack = ["hpsa_scan_start"]\n'


def match_issues(crash, version=None, issues=None, **facts):
    return known_issues.match_issues(replace(crash, driver_version=version, **facts), issues)


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


def test_there_are_issues_of_every_area():
    areas = [issue.area for issue in SHIPPED]
    assert len(SHIPPED) >= 40 and set(areas) == set(AREAS) and min(areas.count(area) for area in AREAS) >= 4
    assert len({issue.id for issue in SHIPPED}) == len(SHIPPED)


@pytest.mark.parametrize("issue", SHIPPED, ids=lambda issue: issue.id)
def test_a_sample_matches_its_own_issue_and_no_other(issue):
    (crash,) = parse_crashes(issue.sample)
    matches = {match.issue.id: match for match in match_issues(crash, issues=SHIPPED)}
    assert set(matches) == {issue.id} | SHARED.get(issue.id, set())
    assert set(matches[issue.id].unknown) <= {"versions"}  # no text alone tells the loaded driver


@pytest.mark.parametrize(
    "issue", [issue for issue in SHIPPED if issue.stack or issue.message or issue.text], ids=lambda i: i.id
)
def test_a_sample_without_its_sign_is_no_match(issue):
    (crash,) = parse_crashes(issue.sample)
    frames = (Frame(function="Timer_BHHandler"),)
    bare = replace(crash, frames=frames, message="#PF Exception 14", text="@BlueScreen: x")
    assert issue.id not in {match.issue.id for match in match_issues(bare, issues=SHIPPED)}


@pytest.mark.parametrize("version", ["5.5.0.58", None])
def test_the_incident_is_known(version):
    (match,) = match_issues(HPSA, version)
    assert match.issue.id == "KB2075978"
    assert match.unknown == (() if version else ("versions",))
    assert {*match.held, *match.unknown} == {"module", "esxi", "versions", "stack"}


def test_a_version_without_a_sign_is_exposed_and_no_match(tmp_path):
    other = replace(HPSA, frames=(Frame(function="hpsa_eh_abort_handler"),))
    assert match_issues(other, "5.5.0.58") == ()
    assert [issue.id for issue in exposed(SHIPPED, "hpsa", "5.5.0.58")] == ["KB2075978"]
    others = (("hpsa", "5.5.0.60"), ("hpsa", None), ("lpfc", "5.5.0.58"))
    assert not any(exposed(SHIPPED, *one) for one in others)
    assert [issue.id for issue in exposed(SHIPPED, "i40en", "1.10.9.0")] == ["KB370976"]
    alone = only(tmp_path, 'module = "hpsa"\nversions = ["5.5.0.58"]\n')
    assert match_issues(HPSA, "5.5.0.58", alone) == () and exposed(alone, "hpsa", "5.5.0.58") == tuple(alone)
    assert exposed(only(tmp_path, 'module = "hpsa"\n'), "hpsa", "5.5.0.58") == ()


def test_bytes_that_are_no_text_hide_no_sign():
    crash = replace(HPSA, guilty_module=None, text="\udcff <4>hpsa 0000:03:00.0: out of memory \udc80")
    assert "c04302261" in {match.issue.id for match in match_issues(crash, issues=SHIPPED)}


def test_a_rule_that_backtracks_elsewhere_takes_linear_time(tmp_path):
    issues = only(tmp_path, 'text = ["(x+x+)+y"]\n')
    assert match_issues(replace(HPSA, text="x" * 200_000), None, issues) == ()  # for ever in Python's own engine
    assert not match_issues(replace(HPSA, text="x" * 200_000 + "y"), None, issues)[0].unknown


@pytest.mark.parametrize(
    "fact",
    [*({"version": one} for one in ("5.5.0.50", "5.5.0.60", "5.5.0.44", "5.5.0.580")), {"esxi_version": "6.0.0"}, {"guilty_module": "lpfc"},
     {"frames": ()}],
)  # fmt: skip
def test_another_version_release_module_or_stack_is_not_it(fact):
    assert match_issues(HPSA, **{"version": "5.5.0.58", **fact}) == ()


@pytest.mark.parametrize(
    ("crash", "issue"),
    [
        (Crash(kind="not_implemented", message="NOT_IMPLEMENTED bora/vmkernel/main/world.c:2307"), "KB316522"),
        (Crash(kind="tlb_timeout", message="PCPU 3 locked up. Failed to ack TLB invalidate.", esxi_version="5.0.0"), "c03543898"),
        (Crash(kind="spin_count", frames=(Frame(function="hpilo_isr"),)), "KB395129"),
        (Crash(kind="panic", frames=(Frame(function="PCIEDPC_EDRHandler"),)), "KB394393"),
        (Crash(kind="nmi", message="LINT1/NMI (motherboard nonmaskable interrupt), undiagnosed."), "KB1804"),
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
    [('">=5.5.0.50,<5.5.0.60"', "5.5.0.58", True), ('">=5.5.0.50,<5.5.0.60"', "5.5.0.60", False),
     ('">=5.5.0.50,<5.5.0.60"', "5.5.0.114", False), ('">5.5.0.74"', "5.5.0.114", True),
     ('">5.5.0.58"', "5.5.0.58", False), ('">=5.5.0.58,<=5.5.0.58"', "5.5.0.58", True),
     ('"<=5.5.0.44", "5.5.0.58"', "5.5.0.58", True), ('"5.5.0.58"', "5.5.0.58-1OEM.550.0.0.1331820", True)],
)  # fmt: skip
def test_ranges(tmp_path, spans, version, holds):
    issues = only(tmp_path, f'module = "hpsa"\nversions = [{spans}]\n{SIGN}')
    assert bool(match_issues(HPSA, version, issues)) is holds


def test_builds_come_from_the_host_or_the_caller(tmp_path):
    issues = only(tmp_path, f'module = "hpsa"\nbuilds = [">=1331820,<1892794"]\n{SIGN}')
    assert match_issues(HPSA, None, issues)[0].unknown == ("builds",)
    assert not match_issues(HPSA, None, issues, esxi_build="1746018")[0].unknown
    assert match_issues(HPSA, None, issues, esxi_build="1892794") == ()


def test_full_matches_come_first(tmp_path):
    issues = only(tmp_path, f'module = "hpsa"\n{SIGN}')
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
        (HEAD + 'text = ["a"]\nmessage = ["x(?=y)"]\n', 8, "no lookaround"),
        (HEAD + 'message = ["(a)\\\\1"]\n', 7, "no regular expression"),
        (HEAD + 'text = ["((a{1000}){1000}){9}"]\n', 7, "no regular expression"),
        (HEAD + 'module = "x"\narea = "disk"\n', 8, "area is 'disk', expected one of storage"),
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
    with pytest.raises(RuleError, match=r"none\.toml: cannot be read"):
        load_issues(tmp_path / "none.toml")
