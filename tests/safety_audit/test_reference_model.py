"""A reference model in membership inference: known answers, and base models that cannot be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from codex_ml.core.errors import UserError
from codex_ml.core.hashing import hash_path
from codex_ml.modeling.train_files import BaseModelFiles, TrainedModel, Training
from codex_ml.safety_audit import membership as membership_module
from codex_ml.safety_audit.audit_job import PartResult, Reference
from codex_ml.safety_audit.audit_numbers import undeclared
from codex_ml.safety_audit.cost import work_of
from codex_ml.safety_audit.membership import membership
from codex_ml.safety_audit.reference_model import base_reference
from codex_ml.safety_audit.window_scores import reference_targets
from codex_ml.train.model.adapters import save_model

from .byte_audit import Bytes
from .test_membership import INSIDE, OUTSIDE, Recites, Uniform, gate, job, untrained

pytestmark = pytest.mark.usefixtures("torch_on_one_thread")

VOCABULARY = {"a": 0, "b": 1, "c": 2}


def compared(folder: Path, model: Any, reference: Any) -> PartResult:
    asked = job(folder, model)
    return membership(replace(asked, subject=replace(asked.subject, reference=Reference(lambda: reference))))


def test_a_uniform_reference_gives_the_order_of_the_loss(tmp_path: Path) -> None:
    """Its loss is ln V for every text, so the score is the loss minus a constant: area and interval are those of the loss."""
    found = compared(tmp_path, Recites(INSIDE[:40]), Uniform())
    numbers = found.part.numbers
    by_loss, by_reference = (numbers[f"auc_{name}"] for name in ("loss", "reference"))
    assert 0.5 < (by_loss.value or 0) < 1
    assert by_reference == by_loss


def test_a_model_that_is_its_own_reference_gives_exactly_one_half(tmp_path: Path) -> None:
    model = untrained()
    number = compared(tmp_path, model, model).part.numbers["auc_reference"]
    assert (number.value, number.low, number.high) == (0.5, 0.5, 0.5)


def test_what_the_base_model_knew_does_not_count_as_read_in_training(tmp_path: Path) -> None:
    """The base model knows the held-out text, so the loss calls it a member. The difference finds what training added."""

    class Both(Recites):
        def __init__(self) -> None:
            super().__init__([*INSIDE, *OUTSIDE])

    numbers = compared(tmp_path, Both(), Recites(OUTSIDE)).part.numbers
    assert numbers["auc_reference"].value == 1
    assert (numbers["auc_loss"].value or 0) < 0.7
    assert numbers["auc"].value == 1


def test_without_a_reference_its_score_is_not_measured_and_says_why(tmp_path: Path) -> None:
    def broken() -> Any:
        raise UserError("3 missing tensors")

    for reference, why in (
        (Reference(why="trained from scratch"), "trained from scratch"),
        (Reference(broken), "the reference model cannot be used: 3 missing tensors"),
    ):
        asked = job(tmp_path, untrained())
        found = membership(replace(asked, subject=replace(asked.subject, reference=reference)))
        number = found.part.numbers["auc_reference"]
        assert (number.value, number.why) == (None, why)
        assert undeclared(found) == set()
        assert gate(found).status == "pass"


@pytest.mark.parametrize("loss", [float("inf"), float("nan")])
def test_a_reference_without_a_finite_loss_voids_its_own_score_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: float
) -> None:
    def spoilt(asked: Any, windows: Any) -> list[Any]:
        first, *others = reference_targets(asked, windows)
        return [replace(first, nll=np.full_like(first.nll, loss)), *others]

    model = Recites(INSIDE[:40])
    alone = membership(job(tmp_path, model)).part.numbers
    monkeypatch.setattr(membership_module, "reference_targets", spoilt)
    numbers = compared(tmp_path, model, Uniform()).part.numbers
    reference = numbers.pop("auc_reference")
    assert (reference.value, reference.why) == (None, "the reference model gives no finite loss for some text")
    alone.pop("auc_reference")
    assert numbers == alone


def test_the_estimate_counts_the_windows_that_a_reference_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 windows of 30 tokens per side, and 15 % more for the spread."""
    monkeypatch.setattr(Bytes, "chat_template", None, raising=False)
    asked = job(tmp_path, untrained(), windows=400)
    other = replace(asked, subject=replace(asked.subject, reference=Reference(untrained)))
    scored = [work_of(how)["membership"].scored for how in (asked, other)]
    assert scored[1] - scored[0] == pytest.approx(1.15 * 2 * 400 * 30, abs=1)


def tokenizer(vocabulary: dict[str, int]) -> Any:
    special = {token: number for token, number in vocabulary.items() if token.startswith("[")}
    return SimpleNamespace(backend=Tokenizer(WordLevel(vocabulary, unk_token="a")), special=special)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base model, and the model that was trained from it, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for folder in ("models/base/theirs", "models/model"):
        Path(folder).mkdir(parents=True)
        save_model(untrained(), Path(folder))
    Tokenizer(WordLevel(VOCABULARY, unk_token="a")).save("models/base/theirs/tokenizer.json")
    return Path("models/base/theirs")


def found(base: Path | None, vocabulary: dict[str, int] = VOCABULARY, digest: str = "") -> Reference:
    files = None if base is None else BaseModelFiles(path=str(base), sha256=digest or hash_path(base).sha256)
    training = Training.model_construct(model=TrainedModel.model_construct(base=files))
    return base_reference(training, Path("models/model"), tokenizer(vocabulary), "cpu")


def test_the_base_model_is_loaded_with_the_settings_of_the_trained_model(base: Path) -> None:
    """Its own config.json is not read: what it says does not matter."""
    reference = found(base, {**VOCABULARY, "[PAD]": 3})  # a tokenizer may get further tokens later
    (base / "config.json").write_text("{}")
    assert reference.load is not None
    loaded, expected = reference.load().state_dict(), untrained().state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_a_base_model_that_cannot_be_compared_gives_the_reason(base: Path) -> None:
    other = found(base, {"a": 0, "b": 2, "c": 1})
    assert (other.load, other.why) == (
        None, "the base model models/base/theirs reads other tokens: 2 of 3 tokens have another id, or none",
    )  # fmt: skip
    assert found(base, {**VOCABULARY, "ab": 3, "abc": 4, "[PAD]": 5}).why == (
        "the base model models/base/theirs reads other tokens: the audited model reads 2 further pieces"
    )
    assert found(base, digest="0" * 64).why == "models/base/theirs does not hold the files that training started from"
    assert "trained from scratch" in found(None).why
    assert "is not a folder" in found(base / "model.safetensors").why
    (base / "tokenizer.json").write_text("[]")
    assert "cannot be read as a tokenizer" in found(base).why
    (base / "tokenizer.json").unlink()
    assert found(base).why == "the base model cannot be compared: models/base/theirs has no tokenizer.json"


def test_weights_that_do_not_fit_are_a_reason_too(base: Path, tmp_path: Path) -> None:
    reference = found(base)
    (base / "model.safetensors").write_bytes(b"x" * 100)
    asked = job(tmp_path, untrained())
    part = membership(replace(asked, subject=replace(asked.subject, reference=reference))).part
    assert part.numbers["auc_reference"].why.startswith("the reference model cannot be used: models/base/theirs")
    assert part.numbers["auc_loss"].value is not None
