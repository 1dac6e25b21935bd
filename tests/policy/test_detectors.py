"""A detector of another package runs when the policy names it; a detector that fails is never skipped silently."""

from __future__ import annotations

import pickle
from importlib.metadata import EntryPoint

import pytest

from codex_ml.core import plugins
from codex_ml.core.errors import UserError
from codex_ml.policy.rules import parse_policy
from codex_ml.policy.scan import Scanner

GROUP = "codex_ml.detectors"
POLICY = """version: 1
detectors: [mine]
rules:
  - {id: named, description: d, kind: personal, severity: low, action: allow, literals: [zz], pattern: zz}
"""


def names(text):
    """A detector that knows one person."""
    return [("person", i, i + 4) for i in range(len(text)) if text.startswith("Jane", i)]


def install(monkeypatch, detector, count=1):
    class Point(EntryPoint):
        def load(self):
            if isinstance(detector, ImportError):
                raise detector
            return detector

    points = [Point("mine", f"package{i}:detector", GROUP) for i in range(count)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == GROUP else [])


def test_its_findings_count_like_any_other(monkeypatch):
    install(monkeypatch, names)
    scanner = Scanner(parse_policy(POLICY))
    (finding,) = scanner.scan("hello\n Jane!")
    assert (finding.rule, finding.action, finding.severity, finding.line, finding.column) == (
        "person",
        "redact",
        "high",
        2,
        2,
    )
    assert pickle.loads(pickle.dumps(scanner)).scan("Jane")  # noqa: S301 - our own bytes


def test_a_rule_of_the_policy_with_its_id_says_what_happens(monkeypatch):
    install(monkeypatch, lambda text: [("named", 0, 1)])
    assert [(f.action, f.severity) for f in Scanner(parse_policy(POLICY)).scan("a")] == [("allow", "low")]


@pytest.mark.parametrize(
    ("detector", "count", "message"),
    [
        (names, 0, "detector 'mine' is not installed; installed are: none"),
        (names, 2, "detector 'mine' is offered by 2 packages"),
        (ImportError("x"), 1, "cannot be imported"),
        ("text", 1, "is not callable, but str"),
    ],
)
def test_one_that_cannot_be_loaded_stops_the_run(monkeypatch, detector, count, message):
    install(monkeypatch, detector, count)
    with pytest.raises(UserError, match=message):
        Scanner(parse_policy(POLICY))


def raising(text):
    raise RuntimeError(text)


def lazily_raising(text):
    yield ("person", 0, 1)
    raise KeyError(text)


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        (raising, "failed: RuntimeError"),
        (lazily_raising, "failed: KeyError"),
        (lambda text: 3, "failed: TypeError"),
        (lambda text: [("person", 0)], "failed: ValueError"),
        (lambda text: [("person", 0, 99)], "0 <= start < end <= 6, found a int and a int, 0 and 99"),
        (lambda text: [("person", -1, 2)], "-1 and 2"),
        (lambda text: [("person", 2, 2)], "2 and 2"),
        (lambda text: [("person", 0.0, 2)], "a float and a int"),
        (lambda text: [("person", False, 2)], "a bool and a int"),
        (lambda text: [("Not an id", 0, 2)], "the rule id must match"),
        (lambda text: [(3, 0, 2)], "the rule id must match"),
    ],
)
def test_one_that_fails_stops_the_run_and_its_message_holds_no_text(monkeypatch, detector, message):
    install(monkeypatch, detector)
    with pytest.raises(UserError) as caught:
        Scanner(parse_policy(POLICY)).scan("SECRET")
    assert message in str(caught.value)
    assert "SECRET" not in str(caught.value)
