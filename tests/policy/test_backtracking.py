"""An expression whose time can explode is refused when the policy is read; the rules that people write are not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from codex_ml.core.errors import UserError
from codex_ml.policy.backtracking import explodes
from codex_ml.policy.rules import parse_policy

EXPLOSIVE = [
    r"(a+)+$", r"(?:a*)*b", r"(a|a?)+$", r"(\w+\s?)*$", r"(.*,)+x", r"(a?b?)*c", r"((a{1,60}){1,20})b", r"(x+x+)+y",
    r"([a-z]+\d*)+!", r"^(?:(?:[^:]|::)+:?)+$", r"(?:\s*\w*)*;", r"a(?:(?:b+)+c)?", r"(?=(a+)+$)x",
    r"(?:a|a)*$", r"(?:,x?x?)+$", r"(?:,(?:x|x))+$", r"(?:[a-z ]+ *,)+$", r"(?:a*.b)+$",
]  # fmt: skip
TAME = [
    r"(?:a+)++$", r"(?>a+)+$", r"([^,]*,)+x", r"(?:\d{1,3}\.){3}\d{1,3}", r"[A-Za-z0-9]{20,}", r"(?:ab|cd)+", r"x.*y.*z",
    r"(?:[A-Za-z0-9-]{1,60}\.){1,6}[a-z]{2,9}", r"(?:all|any|the)(?: (?:all|any|the)){0,4}", r"(a)\1+", r"(?:a{3})+",
    r"(?:[a-z](?:[a-z-]{0,61}[a-z])?\.)+$",
]  # fmt: skip


@pytest.mark.parametrize("expression", EXPLOSIVE)
def test_an_expression_that_can_explode_is_known(expression):
    assert explodes(expression)


@pytest.mark.parametrize("expression", TAME)
def test_an_expression_that_cannot_explode_is_let_through(expression):
    assert not explodes(expression)


@pytest.mark.parametrize("key", ["pattern", "gate", "run", "until", "allow", "allow_before", "allow_after"])
def test_a_policy_with_such_an_expression_is_refused_with_its_rule_and_line(key):
    value = "['(a+)+$']" if key.startswith("allow") else "'(a+)+$'"
    pattern = "" if key == "pattern" else "    pattern: abc\n"
    text = (
        "version: 1\nrules:\n  - id: mine\n    description: x\n    kind: secret\n    severity: low\n    action: redact\n"
        f"    literals: [abc]\n{pattern}    {key}: {value}\n"
    )
    with pytest.raises(UserError, match=r"rule mine: .*can explode") as caught:
        parse_policy(text, name="policy.yaml")
    assert "\n" not in str(caught.value) and "(a+)++" in str(caught.value)


def test_the_first_of_the_list_does_explode():
    """The control: forty letters keep `re` busy for longer than the child may live."""
    code = "import re; re.search(r'(a+)+$', 'a' * 40 + '!')"
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", code], timeout=2, check=False)
