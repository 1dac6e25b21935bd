"""Odd documents: the parts that read windows say that they prove nothing; none of them breaks, and none of them passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from codex_ml.policy.gate_rules import GateRule
from codex_ml.safety_audit.audit_numbers import undeclared
from codex_ml.safety_audit.gates import decide
from codex_ml.safety_audit.membership import membership
from codex_ml.safety_audit.memorisation import memorisation
from codex_ml.safety_audit.near_verbatim import near_verbatim

from .test_membership import INSIDE, OUTSIDE, job, untrained

pytestmark = pytest.mark.usefixtures("torch_on_one_thread")

FEW, OTHERS = INSIDE[:12], OUTSIDE[:12]
GATES = [
    GateRule(number=f"{name}", title="Nothing leaks", compare="low", fail=limit)
    for name, limit in (("memorisation.excess", 0.01), ("near_verbatim.excess", 0.01), ("membership.auc", 0.6))
]


@pytest.mark.parametrize(
    ("inside", "outside", "members", "strangers"),
    [
        (["abc", "de"], ["f", "gh"], 0, 0),
        ([text[:28] for text in FEW], OTHERS, 0, 12),  # with END one token less than a window
        (FEW[:1], OTHERS[:1], 1, 1),
        (FEW[:1], OTHERS, 1, 12),
        (FEW[:1] * 12, OTHERS, 0, 12),
        (FEW, FEW, 12, 0),
        (["a" * 4000], ["b" * 4000], 0, 0),
    ],
    ids=["short", "one token short", "one document", "one of train", "all copies", "held out is train", "one letter"],
)
def test_odd_documents_prove_nothing(
    tmp_path: Path, inside: list[str], outside: list[str], members: int, strangers: int
) -> None:
    asked = job(tmp_path, untrained(), inside, outside, windows=20)
    results = [part(asked) for part in (memorisation, near_verbatim, membership)]
    assert set().union(*map(undeclared, results)) == set()
    parts = {result.name: result.part for result in results}
    gates = decide(GATES, parts, [], confidence=0.95)
    assert [gate.status for gate in gates] == ["invalid"] * 3
    assert all(gate.why for gate in gates)
    assert parts["membership"].settings["documents"] == {"train": members, "held-out": strangers}
    assert parts["memorisation"].numbers["extracted"].trials == members
