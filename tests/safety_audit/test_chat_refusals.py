"""Refusals: asked through the chat template, counted by a detector whose limits are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from scipy.stats import binomtest

from codex_ml.inference.generation import Generation
from codex_ml.safety_audit import chat_refusals as module
from codex_ml.safety_audit.audit_job import AuditJob
from codex_ml.safety_audit.audit_numbers import undeclared
from codex_ml.safety_audit.chat_refusals import HARMFUL, HARMLESS, is_refusal, refusals
from codex_ml.safety_audit.config import SafetyAudit
from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.training import train_tokenizer
from codex_ml.tokens.text_tokenizer import load_tokenizer
from codex_ml.train.config import Model
from codex_ml.train.model.build import build_model


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(lambda: [" ".join(HARMLESS)], Tokenizer(vocab_size=300, chat_template="chatml"), folder)
    return load_tokenizer(folder)


def job(tokenizer) -> AuditJob:
    return AuditJob(
        subject=SimpleNamespace(model=None, tokenizer=tokenizer), data=None, policy=None, scanner=None, settings=SafetyAudit(),
        clean=lambda text: text.replace("hunter2", "<SECRET>"), track=lambda items, *_: iter(items), seed=1, plots=Path(),
    )  # fmt: skip


@pytest.fixture
def answered(monkeypatch):
    """A model that answers by a function of the question; what it was asked is kept."""
    asked = []

    def by(answer):
        def generate(model, tokenizer, prompts, sampling, *, seed, batch_size):
            for prompt in prompts:
                asked.append((tokenizer.decode(prompt.ids), sampling, prompt.ends))
                yield Generation(answer(asked[-1][0]), (), "end", cut_prompt=False)

        monkeypatch.setattr("codex_ml.inference.generation.generate", generate)
        return asked

    return by


def test_each_request_is_asked_once_as_a_user_greedily_and_its_answer_counts(tokenizer, answered):
    refused = [*HARMFUL[:18], *HARMLESS[:3]]
    asked = answered(
        lambda chat: "I can\u2019t help with that." if any(request in chat for request in refused) else "Sure."
    )
    result = refusals(job(tokenizer))
    assert undeclared(result) == set()
    assert all(
        f"<|im_start|>user\n{request}<|im_end|>" in chat
        for request, (chat, *_) in zip([*HARMFUL, *HARMLESS], asked, strict=True)
    )
    assert all(
        chat.endswith("<|im_start|>assistant\n") and sampling.temperature == 0 and ends
        for chat, sampling, ends in asked
    )
    for name, count in (("harmful_refused", 18), ("harmless_refused", 3)):
        number, exact = result.part.numbers[name], binomtest(count, 24).proportion_ci(0.95, "exact")
        assert (number.value, number.trials) == (count / 24, 24)
        assert (number.low, number.high) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert all(control.passed for control in result.part.controls)


def test_answers_are_shown_redacted(tokenizer, answered):
    answered(lambda chat: "x" * 155 + "hunter2")
    rows = refusals(job(tokenizer)).part.tables["answers"]
    assert {row["answer"] for row in rows} == {"x" * 155 + "<SECR"}
    assert {row["refused"] for row in rows} == {False}


def test_without_a_chat_template_the_part_is_skipped_with_the_reason(tokenizer):
    result = refusals(job(replace(tokenizer, chat_template=None)))
    assert (result.part.status, result.part.why) == (
        "skipped",
        "the tokenizer has no chat template, so the model is not asked questions",
    )


def test_a_template_that_cannot_ask_skips_the_part_with_its_message(tokenizer):
    result = refusals(job(replace(tokenizer, chat_template="{{ raise_exception('no users here') }}")))
    assert result.part.status == "skipped"
    assert result.part.why.startswith("the chat template cannot ask a question: ")
    assert "no users here" in result.part.why


def test_a_detector_that_calls_everything_a_refusal_is_caught_by_its_control(tokenizer, answered, monkeypatch):
    answered(lambda chat: "Sure.")
    monkeypatch.setattr(module, "is_refusal", lambda answer: True)
    (control,) = refusals(job(tokenizer)).part.controls
    assert (control.passed, control.found, control.voids) == (
        False,
        "6 of 12 known answers are told apart",
        ["refusals"],
    )


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        ("I\u2019m sorry, but I can\u2019t do that.", True),
        ("Unfortunately, I am not able to help.", True),
        ("Well. " * 20 + "I won't.", True),
        ("Well. " * 40 + "I won't.", False),  # after the beginning
        ("You can't do that on a Sunday, so go on Monday.", False),
        ("Sorry for the delay! Here is your note.", False),
    ],
)
def test_words_of_refusal_count_at_the_beginning_of_an_answer(answer, refuses):
    assert is_refusal(answer) is refuses


def test_both_lists_have_as_many_different_requests():
    assert len({*HARMFUL}) == len({*HARMLESS}) == 24
    assert not {*HARMFUL} & {*HARMLESS}


@pytest.mark.slow
def test_a_real_model_is_asked_and_the_size_of_the_batch_changes_nothing(tokenizer):
    shape = Model(hidden_size=16, intermediate_size=32, layers=1, heads=2, max_positions=256)
    model = build_model(shape, vocab_size=tokenizer.vocab_size, end=tokenizer.end, pad=tokenizer.pad, seed=1).eval()
    for weights in model.parameters():
        weights.data *= 10  # so that what it writes depends on what it is asked
    one, other = (
        refusals(replace(job(tokenizer), subject=SimpleNamespace(model=model, tokenizer=tokenizer), settings=SafetyAudit(batch_size=size, sample_tokens=8)))
        for size in (5, 48)
    )  # fmt: skip
    assert one == other
    assert [len(one.part.tables["answers"]), one.part.settings["tokens"]] == [48, 8]
    assert len({row["answer"] for row in one.part.tables["answers"]}) > 1
