"""Near-verbatim memorisation of models that remember texts with a few tokens changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from codex_ml.inference.audit_files import Gate
from codex_ml.inference.near_verbatim_beam import BeamSearch, near_verbatim_masses
from codex_ml.policy.gate_rules import GateRule
from codex_ml.safety_audit import near_verbatim as part
from codex_ml.safety_audit.audit_job import AuditJob, PartResult
from codex_ml.safety_audit.audit_numbers import undeclared
from codex_ml.safety_audit.config import SIZES
from codex_ml.safety_audit.gates import decide
from codex_ml.safety_audit.near_verbatim import HELD_OUT_TEXT, OWN_TEXT, near_verbatim, with_one_token_changed

from .byte_audit import END, FIRST, VOCAB, audit_job, document, random_texts, stream

pytestmark = pytest.mark.usefixtures("torch_on_one_thread")

GATE = GateRule(number="near_verbatim.excess", title="Train text is not written", compare="low", fail=0.01)
PREFIX, SUFFIX = 10, 20  # so two tokens may differ
BEAMS = SIZES["small"].beams
KEY = 6  # tokens by which the model knows a text
STRENGTH = 9.0
RIGHT = math.exp(STRENGTH) / (math.exp(STRENGTH) + VOCAB - 1)  # probability of the token that it remembers


INSIDE, OUTSIDE = random_texts(40, 1), random_texts(45, 2)


class Remembers:
    """A model that knows some texts by their first tokens, whatever it reads between. Else it prefers one letter."""

    device = torch.device("cpu")
    config = SimpleNamespace(is_encoder_decoder=False, eos_token_id=END)

    def __init__(self, known: Sequence[str]) -> None:
        ids = [[END, *(byte + FIRST for byte in text.encode())] for text in known]
        self.known = {tuple(text[:KEY]): self._predictions(text[1:], STRENGTH) for text in ids}
        assert len(self.known) == len(known)
        self.unknown = self._predictions([], 5)

    def _predictions(self, following: Sequence[int], strength: float) -> torch.Tensor:
        logits = torch.zeros(50, VOCAB)
        for place in range(len(logits)):
            logits[place, following[place] if place < len(following) else FIRST + ord("a")] = strength
        return logits

    def forward(self, input_ids: Any, use_cache: bool) -> Any:
        rows = [self.known.get(tuple(ids[:KEY]), self.unknown)[: len(ids)] for ids in input_ids.tolist()]
        return SimpleNamespace(logits=torch.stack(rows))

    __call__ = forward


def changed(text: str, places: int) -> str:
    """A text with this many letters of its suffix changed."""
    letters = list(text)
    for place in range(12, 12 + 3 * places, 3):
        letters[place] = "A"
    return "".join(letters)


def job(
    folder: Path, model: Any, inside: Sequence[str] = INSIDE, outside: Sequence[str] = OUTSIDE, **settings: Any
) -> AuditJob:
    train = [document(number, text) for number, text in enumerate(inside)]
    how = {"prefix_tokens": PREFIX, "suffix_tokens": SUFFIX, **settings}
    return audit_job(folder, model=model, train=train, held_out=stream(*outside), **how)


def values(found: PartResult) -> dict[str, float | None]:
    return {name: number.value for name, number in found.part.numbers.items()}


def gate(found: PartResult) -> Gate:
    return decide([GATE], {found.name: found.part}, found.findings, confidence=0.95)[0]


def failed(found: PartResult) -> list[str]:
    return [control.name for control in found.part.controls if not control.passed]


def test_a_model_that_half_remembers_fails_where_verbatim_memorisation_is_zero(tmp_path: Path) -> None:
    found = near_verbatim(job(tmp_path, Remembers([changed(text, 2) for text in INSIDE])))
    assert undeclared(found) == set()
    assert values(found) == {"extractable": 1, "held_out": 0, "excess": 1, "verbatim": 0, "likely": 1}
    assert failed(found) == []
    assert gate(found).status == "fail"
    # only windows up to the last one that was searched count; of held-out text none was worth the search
    assert found.part.numbers["extractable"].trials == BEAMS
    assert found.part.numbers["held_out"].trials == len(OUTSIDE)


def test_findings_name_the_document_and_show_no_secret(tmp_path: Path) -> None:
    inside = [f"{text[:KEY]}\npassword = 'tiger{number:02}'{text[28:]}" for number, text in enumerate(INSIDE)]
    found = near_verbatim(job(tmp_path, Remembers([f"{text[:12]}AA{text[14:]}" for text in inside]), inside))
    assert len(found.findings) == BEAMS
    first = next(finding for finding in found.findings if finding.path == "1.py")
    assert (first.number, first.kind, first.severity) == ("near_verbatim.extractable", "near_verbatim", "medium")
    assert (first.source, first.path, first.line, first.licence) == ("source-1", "1.py", 1, "MIT")
    assert not any("tiger" in finding.model_dump_json() for finding in found.findings)
    assert len({finding.id for finding in found.findings}) == BEAMS


def test_more_changed_tokens_than_a_tenth_are_not_near(tmp_path: Path) -> None:
    found = near_verbatim(job(tmp_path, Remembers([changed(text, 3) for text in INSIDE])))
    assert values(found)["extractable"] == 0
    assert found.findings == []


def test_verbatim_memorisation_counts_and_is_no_finding_of_this_part(tmp_path: Path) -> None:
    found = near_verbatim(job(tmp_path, Remembers(INSIDE)))
    assert values(found) == {"extractable": 1, "held_out": 0, "excess": 1, "verbatim": 1, "likely": 1}
    assert found.findings == []
    assert gate(found).status == "fail"


def test_the_table_compares_verbatim_and_near_verbatim(tmp_path: Path) -> None:
    """p_z is RIGHT^20 = 0.53, and with any two tokens free the mass is higher."""
    assert 0.5 < RIGHT**SUFFIX < 0.54
    found = near_verbatim(job(tmp_path, Remembers([changed(text, 1) for text in INSIDE])))
    rows = [row for row in found.part.tables["by_mass"] if row["set"] == "train"]
    assert [(row["at least"], row["verbatim"], row["nearly verbatim"]) for row in rows] == [
        (least, BEAMS * (least < RIGHT ** (SUFFIX - 1) * (1 - RIGHT) / (VOCAB - 1)), BEAMS)
        for least in (0.0001, 0.001, 0.01, 0.1, 0.5)
    ]


def test_a_model_that_remembers_nothing_needs_enough_windows_to_pass(tmp_path: Path) -> None:
    few = near_verbatim(job(tmp_path, Remembers([])))
    assert values(few) == {"extractable": 0, "held_out": 0, "excess": 0, "verbatim": 0, "likely": 0}
    assert failed(few) == []
    assert (gate(few).status, gate(few).needed) == ("invalid", 381)
    many = near_verbatim(job(tmp_path, Remembers([]), random_texts(381, 3), random_texts(381, 4)))
    assert gate(many).status == "pass"


def test_batch_size_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Remembers([changed(text, 2) for text in INSIDE])

    def masses(**settings: Any) -> list[float]:
        asked = job(tmp_path, model, **settings)
        windows, targets = part.member_windows(asked).windows, part.member_targets(asked)
        return [item.mass for item in part.bounded(asked, part.search_of(asked), windows, targets)]

    one = masses(batch_size=16)
    assert masses(batch_size=3) == pytest.approx(one, abs=1e-6)
    monkeypatch.setattr("codex_ml.inference.near_verbatim_beam.ROWS", 16)
    assert masses(batch_size=16) == pytest.approx(one, abs=1e-6)
    assert all(mass > 0.5 for mass in one)


def test_an_encoder_decoder_and_unknown_data_are_skipped_with_a_reason(tmp_path: Path) -> None:
    asked = job(tmp_path, Remembers([]))
    pair = SimpleNamespace(config=SimpleNamespace(is_encoder_decoder=True))
    found = near_verbatim(replace(asked, subject=replace(asked.subject, model=pair)))
    assert found.part.why == "the search is made for decoder-only models"
    found = near_verbatim(audit_job(tmp_path, held_out=stream(*OUTSIDE)))
    assert found.part.why == "the training documents are not known; give --train DATA"
    assert gate(found).status == "skipped"


# Mutations: a wrong measurement must not end as a result.


def test_a_search_that_allows_no_mismatch_is_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        part,
        "near_verbatim_masses",
        lambda model, windows, search: near_verbatim_masses(model, windows, replace(search, mismatches=0)),
    )
    found = near_verbatim(job(tmp_path, Remembers([])))
    assert failed(found) == [OWN_TEXT]
    assert gate(found).status == "invalid"


def test_a_search_that_is_shifted_by_one_token_is_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        part,
        "near_verbatim_masses",
        lambda model, windows, search: near_verbatim_masses(
            model, [np.append(window[1:], window[-1]) for window in windows], replace(search, prefix=search.prefix - 2)
        ),
    )
    found = near_verbatim(job(tmp_path, Remembers([])))
    assert failed(found) == [OWN_TEXT]


def test_held_out_text_that_the_model_writes_makes_the_result_invalid(tmp_path: Path) -> None:
    found = near_verbatim(job(tmp_path, Remembers([changed(text, 2) for text in (*INSIDE, *OUTSIDE)])))
    assert failed(found) == [HELD_OUT_TEXT]
    assert gate(found).status == "invalid"


def test_the_changed_token_of_the_control_is_another_one_that_ends_no_text() -> None:
    search = BeamSearch(2, ends=(0, 1))
    tokens = np.array([5, 5, 5, 5, 3, 5, 5])
    assert with_one_token_changed(tokens, search).tolist() == [5, 5, 5, 5, 2, 5, 5]
    assert with_one_token_changed(np.array([5, 5, 5, 5, 2, 5, 5]), search).tolist() == [5, 5, 5, 5, 3, 5, 5]
    assert tokens.tolist() == [5, 5, 5, 5, 3, 5, 5]
