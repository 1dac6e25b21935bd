"""Membership inference with models whose answer is known, and mutations that its controls must notice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from codex_ml.inference.audit_files import Gate
from codex_ml.inference.targets import Targets
from codex_ml.modeling.train_files import Training
from codex_ml.policy.gate_rules import GateRule
from codex_ml.safety_audit import membership_controls, membership_scores
from codex_ml.safety_audit.audit_job import AuditJob, PartResult
from codex_ml.safety_audit.audit_numbers import undeclared
from codex_ml.safety_audit.gates import decide
from codex_ml.safety_audit.membership import POINTS, membership
from codex_ml.safety_audit.membership import areas as number_of_areas
from codex_ml.safety_audit.window_scores import score_all
from codex_ml.statistics.roc import Scores
from codex_ml.train.config import Model
from codex_ml.train.model.build import build_model

from .byte_audit import END, FIRST, PAD, VOCAB, audit_job, document, random_texts, stream

pytestmark = pytest.mark.usefixtures("torch_on_one_thread")

GATE = GateRule(number="membership.auc", title="No score tells them apart", compare="low", fail=0.6)
SCORES = ("auc_loss", "auc_zlib", "auc_min_k", "auc_min_k_plus")
MEMBERS, HELD_OUT = 110, 105


INSIDE, OUTSIDE = random_texts(MEMBERS, 1), random_texts(HELD_OUT, 2)


class Recites:
    """A model that knows which byte follows each eight bytes of some texts. Elsewhere it prefers some letter a little.

    Args:
        shift: how many places too early it gives its predictions; 1 is the classical mistake.
    """

    device = torch.device("cpu")
    config = SimpleNamespace(is_encoder_decoder=False, eos_token_id=END)

    def __init__(self, known: Sequence[str], shift: int = 0) -> None:
        self.shift = shift
        after: dict[tuple[int, ...], set[int]] = {}
        for text in known:
            ids = [END, *(byte + FIRST for byte in text.encode())]
            for at in range(1, len(ids)):
                after.setdefault(tuple(ids[max(0, at - 8) : at]), set()).add(ids[at])
        self.next = {context: next(iter(ids)) for context, ids in after.items() if len(ids) == 1}

    def forward(self, input_ids: Any, use_cache: bool) -> Any:
        logits = torch.zeros(*input_ids.shape, VOCAB)
        for row, ids in enumerate(input_ids.tolist()):
            for place, last in enumerate(ids):
                logits[row, place, FIRST + ord("a") + (7 * last + 3) % 26] = 1
                if (token := self.next.get(tuple(ids[max(0, place - 7) : place + 1]))) is not None:
                    logits[row, place, token] = 9
        return SimpleNamespace(logits=logits.roll(self.shift, dims=1))

    __call__ = forward


class Uniform(Recites):
    """A model to which all tokens are equally probable."""

    def __init__(self) -> None:
        super().__init__([])

    def forward(self, input_ids: Any, use_cache: bool) -> Any:
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, VOCAB))

    __call__ = forward


def untrained() -> Any:
    shape = Model(hidden_size=16, intermediate_size=24, layers=1, heads=2, max_positions=64)
    return build_model(shape, vocab_size=VOCAB, end=END, pad=PAD, seed=4).eval()


def job(
    folder: Path, model: Any, inside: Sequence[str] = INSIDE, outside: Sequence[str] = OUTSIDE, **settings: Any
) -> AuditJob:
    train = [document(number, text) for number, text in enumerate(inside)]
    how = {"prefix_tokens": 10, "suffix_tokens": 20, **settings}
    return audit_job(folder, model=model, train=train, held_out=stream(*outside), **how)


def gate(found: PartResult) -> Gate:
    return decide([GATE], {found.name: found.part}, found.findings, confidence=0.95)[0]


def areas(found: PartResult) -> list[float | None]:
    return [found.part.numbers[name].value for name in SCORES]


def failed(found: PartResult) -> list[str]:
    return [control.name for control in found.part.controls if not control.passed]


@pytest.fixture(scope="module")
def overfit(tmp_path_factory: pytest.TempPathFactory) -> tuple[PartResult, Path]:
    asked = job(tmp_path_factory.mktemp("overfit"), Recites(INSIDE))
    return membership(asked), asked.plots


def test_an_overfit_model_gives_area_one_and_fails(overfit: tuple[PartResult, Path]) -> None:
    found, _ = overfit
    assert undeclared(found) == set()
    assert areas(found) == [1, 1, 1, 1]
    assert failed(found) == []
    assert found.part.settings["documents"] == {"train": MEMBERS, "held-out": HELD_OUT}
    assert gate(found).status == "fail"


def test_true_positives_need_as_many_held_out_documents_as_the_share_says(overfit: tuple[PartResult, Path]) -> None:
    numbers = overfit[0].part.numbers
    assert numbers["tpr_at_1_percent"].value == 1
    rarer = numbers["tpr_at_01_percent"]
    assert (rarer.value, rarer.trials, rarer.needed) == (None, HELD_OUT, 1000)
    assert "1000 are needed" in rarer.why


def test_the_curves_are_thinned_and_end_at_one(overfit: tuple[PartResult, Path]) -> None:
    head, *lines = (overfit[1] / "roc.csv").read_text().splitlines()
    assert head == "score,fpr,tpr"
    rows = [line.split(",") for line in lines]
    for name in ("loss", "zlib", "min_k", "min_k_plus"):
        points = [(float(false), float(true)) for score, false, true in rows if score == name]
        assert points[0] == (0, 1)
        assert points[-1] == (1, 1)
        assert points == sorted(points)
        assert 2 < len(points) <= POINTS


def test_swapped_sets_give_the_rest_of_the_area_and_are_invalid(tmp_path: Path) -> None:
    """The model's own text is the held-out text, so it does not score below it."""
    found = membership(job(tmp_path, Recites(OUTSIDE)))
    assert areas(found) == [0, 0, 0, 0]
    assert failed(found) == [membership_controls.OWN_TEXT]
    assert gate(found).status == "invalid"


def test_a_uniform_model_gives_one_half_by_ties(tmp_path: Path) -> None:
    found = membership(job(tmp_path, Uniform()))
    for name in ("auc_loss", "auc_min_k", "auc_min_k_plus"):
        number = found.part.numbers[name]
        assert (number.value, number.low, number.high) == (0.5, 0.5, 0.5)


def test_an_untrained_model_gives_one_half_within_its_error_and_passes(tmp_path: Path) -> None:
    found = membership(job(tmp_path, untrained()))
    error = math.sqrt((MEMBERS + HELD_OUT + 1) / (12 * MEMBERS * HELD_OUT))
    assert all(abs((area or 0) - 0.5) < 3 * error for area in areas(found))
    assert failed(found) == []
    assert gate(found).status == "pass"


def test_batch_size_changes_nothing_and_two_runs_are_equal(tmp_path: Path) -> None:
    model = untrained()
    one, again, other = (membership(job(tmp_path, model, batch_size=size)) for size in (16, 16, 3))
    assert one.part == again.part
    assert areas(one) == pytest.approx(areas(other), abs=1e-6)


def test_few_documents_are_no_evidence_that_nothing_leaks(tmp_path: Path) -> None:
    """104 of a side cannot tell the largest of four areas from one of 0.5 if it is 0.6; 105 can."""
    z = NormalDist().inv_cdf(1 - 0.05 / 4 / 2)
    assert [z * math.sqrt((2 * n + 1) / (12 * n * n)) <= 0.1 for n in (104, 105)] == [False, True]
    found = [membership(job(tmp_path, untrained(), INSIDE, OUTSIDE[:count])) for count in (104, 105)]
    assert [gate(result).status for result in found] == ["invalid", "pass"]
    assert gate(found[0]).why == "104 trials; 105 are needed to prove this limit"


def test_the_largest_area_has_the_interval_of_the_largest_of_four() -> None:
    """Bonferroni: 98.75 % for the largest of four areas, so that one of four useless scores rarely looks useful."""
    inside = [float(place % 7) for place in range(MEMBERS)]
    outside = [float(place % 7) for place in range(HELD_OUT)]
    found = dict.fromkeys(membership_scores.SCORES, Scores.of(inside, outside))
    numbers = number_of_areas(found, "", trials=HELD_OUT, confidence=0.95, seed=3)
    wider = Scores.of(inside, outside).area_interval(confidence=0.9875, seed=3)
    narrower = Scores.of(inside, outside).area_interval(confidence=0.95, seed=3)
    assert (numbers["auc"].low, numbers["auc"].high) == (wider.low, wider.high)
    assert {(numbers[name].low, numbers[name].high) for name in SCORES} == {(narrower.low, narrower.high)}
    assert wider.low < narrower.low < 0.5 < narrower.high < wider.high


def test_unknown_data_is_skipped_and_still_writes_the_table(tmp_path: Path) -> None:
    found = membership(audit_job(tmp_path, held_out=stream(*OUTSIDE)))
    assert found.part.status == "skipped"
    assert (tmp_path / "plots" / "roc.csv").read_text() == "score,fpr,tpr\n"
    assert gate(found).status == "skipped"


# Mutations: a wrong measurement must not end as a result.


def shifted(model: Recites, windows: Any, *, batch_size: int) -> Any:
    copy = Recites([], shift=1)
    copy.next = model.next
    return score_all(copy, windows, batch_size=batch_size)


def test_scores_that_are_shifted_by_one_token_are_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership_controls, "score_all", shifted)
    monkeypatch.setattr("codex_ml.safety_audit.window_scores.score_all", shifted)
    found = membership(job(tmp_path, Recites(INSIDE)))
    assert membership_controls.OWN_TEXT in failed(found)
    assert gate(found).status == "invalid"


def test_scores_with_the_wrong_sign_are_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = membership_scores.membership_scores

    def wrong(targets: Targets, text: str) -> dict[str, float]:
        return {name: -value for name, value in scores(targets, text).items()}

    monkeypatch.setattr(membership_scores, "membership_scores", wrong)
    found = membership(job(tmp_path, Recites(INSIDE)))
    assert areas(found) == [0, 0, 0, 0]
    assert membership_controls.OWN_TEXT in failed(found)
    assert gate(found).status == "invalid"


def test_held_out_text_that_stands_in_train_is_no_held_out_text(tmp_path: Path) -> None:
    found = membership(job(tmp_path, Recites(INSIDE), INSIDE, INSIDE))
    assert found.part.numbers["auc"].value is None
    assert gate(found).status == "invalid"
    assert (
        gate(found).why
        == f"control {membership_controls.BLIND}: found 0 independent documents of one side are too few for 5 folds, expected low end at most 0.55"
    )


def test_sets_that_differ_as_texts_are_invalid_whatever_the_model_knows(tmp_path: Path) -> None:
    marked = [f"// {text[3:]}" for text in OUTSIDE]
    for model in (Recites(INSIDE), untrained()):
        found = membership(job(tmp_path, model, INSIDE, marked))
        assert (found.part.numbers["blind"].low or 0) > 0.9
        assert failed(found) == [membership_controls.BLIND]
        assert gate(found).status == "invalid"


def with_training(asked: AuditJob, steps: int) -> AuditJob:
    """The same job where each step read one row, and `steps` of them."""
    training = Training.model_construct(global_step=steps, rows_a_step=1, seed=1)
    return replace(asked, subject=replace(asked.subject, training=training))


def test_a_score_that_knows_train_text_that_was_never_read_is_invalid(tmp_path: Path) -> None:
    """Half of the rows were read, but the model knows all: the difference between the sets is not that it read them."""
    found = membership(with_training(job(tmp_path, Recites(INSIDE)), MEMBERS // 2))
    assert found.part.numbers["unseen"].value == 1
    assert failed(found) == [membership_controls.UNSEEN]
    assert found.part.settings["documents"]["train"] == MEMBERS // 2


@pytest.mark.parametrize("unread", [0, 1, 19])
def test_train_text_that_was_never_read_is_a_control_only_where_there_is_enough(tmp_path: Path, unread: int) -> None:
    """A bootstrap of one document has an interval without width, which would void any result."""
    found = membership(with_training(job(tmp_path, Recites(INSIDE)), MEMBERS - unread))
    assert "unseen" not in found.part.numbers
    assert failed(found) == []


def test_twenty_unread_documents_are_a_control(tmp_path: Path) -> None:
    found = membership(with_training(job(tmp_path, Recites(INSIDE)), MEMBERS - 20))
    assert found.part.numbers["unseen"].trials == 20
    assert failed(found) == [membership_controls.UNSEEN]


def test_a_model_that_gives_no_finite_score_is_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = membership_scores.membership_scores

    def broken(targets: Targets, text: str) -> dict[str, float]:
        found = scores(targets, text)
        return dict.fromkeys(found, math.nan) if text[0] == "b" else found

    monkeypatch.setattr(membership_scores, "membership_scores", broken)
    found = membership(job(tmp_path, Recites(INSIDE)))
    assert gate(found).status == "invalid"
    assert found.part.numbers["auc"].why == "the model gives no finite score for some text"
