"""Rule lists load, explain every line, and name file and line of a bad one."""

from __future__ import annotations

import pytest

from psodlib.errors import RuleError
from psodlib.triage.lists import RULES, matcher, read_rules

LISTS = {
    "irrelevant.txt": {}, "prefix.txt": {"mapped": True}, "sentinel.txt": {}, "plumbing.txt": {}, "strip.txt": {"mapped": True},
    "other_names.txt": {"mapped": True}, "modules.txt": {"mapped": True}, "warnings.txt": {"mapped": True},
    "symbol_prefixes.txt": {"mapped": True, "plain": True},
}  # fmt: skip


@pytest.mark.parametrize("file", LISTS)
def test_every_list_of_the_package_loads(file):
    rules = read_rules(file, **LISTS[file])
    assert rules
    assert all(rule.reason for rule in rules)


def test_no_list_is_forgotten():
    assert {path.name for path in RULES.glob("*.txt")} == set(LISTS)


@pytest.mark.parametrize(
    ("line", "kind", "problem"),
    [
        ("Panic", {}, "reason"),
        ("Panic  #", {}, "reason"),
        ("(  # unbalanced", {}, "no regular expression"),
        ("a -> b", {"mapped": True}, "reason"),
        ("a  # reason", {"mapped": True}, "-> value"),
        ("a  -> b  # reason", {}, "without ->"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, kind, problem):
    file = tmp_path / "mine.txt"
    file.write_text(f"# head\n\n{line}\n", encoding="utf-8")
    with pytest.raises(RuleError, match=problem) as error:
        read_rules(file, **kind)
    assert (error.value.file, error.value.line) == (str(file), 3)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RuleError, match=r"none\.txt"):
        read_rules(tmp_path / "none.txt")


def test_a_line_is_pattern_value_reason(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text('a b|c  -> d e  # why # not\nx  -> ""  # gone\n', encoding="utf-8")
    one, two = read_rules(file, mapped=True)
    assert (one.pattern, one.value, one.reason, one.line) == ("a b|c", "d e", "why # not", 1)
    assert two.value == ""


def test_a_rule_matches_the_whole_text(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("Panic  # first\nPan.*  # second\n", encoding="utf-8")
    rules = [matcher(file)(text) for text in ("Panic", "Panics", "xPanic")]
    assert [rule and rule.line for rule in rules] == [1, 2, None]
