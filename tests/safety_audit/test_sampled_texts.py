"""The texts of an audit: half of them without a prompt, repeatable, after prompts as the model reads them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from codex_ml.safety_audit.sampled_texts import human_texts, sampled_texts

from .byte_audit import BOS, END, PAD, Bytes, Quoter, Uniform, audit_job, stream

HELD_OUT = ["import os\nprint(os.name)\n", "def f(x):\n    return x\n", "class A:\n    pass\n# the end\n"]


def numbers(text):
    return Bytes().encode(text).tolist()


def test_half_of_the_texts_continue_the_first_tokens_of_different_held_out_documents(tmp_path):
    model = Quoter(*HELD_OUT)
    job = audit_job(tmp_path, model=model, held_out=stream(*HELD_OUT), samples=6, prefix_tokens=5, sample_tokens=8)
    texts = sampled_texts(job)
    assert [text.kind for text in texts] == ["unconditional", "document"] * 3
    assert [text.text for text in texts[::2]] == [HELD_OUT[0][:8]] * 3
    assert sorted((text.prompt, text.text) for text in texts[1::2]) == sorted((t[:5], t[5:13]) for t in HELD_OUT)
    assert [END, *numbers("impor")] in model.asked
    assert [text.ids for text in texts] == [tuple(numbers(text.text)) for text in texts]
    assert all(text.cut for text in texts)


def test_a_text_begins_with_the_begin_token_of_the_tokenizer(tmp_path, monkeypatch):
    """Whatever the model's own configuration says."""
    monkeypatch.setattr(Bytes, "begin", BOS)
    model = Uniform()
    sampled_texts(audit_job(tmp_path, model=model, samples=4, sample_tokens=1))
    assert model.asked == [[BOS]] * 4


def test_a_record_is_continued_after_its_prompt(tmp_path):
    """Its mask says where the prompt ends, also where the prompt is longer than the prompts of texts."""
    held_out = stream("question?answer", "2+2=4", untrained=(9, 4))
    job = audit_job(
        tmp_path, model=Quoter("question?answer", "2+2=4"), held_out=held_out, samples=4, prefix_tokens=2,
        sample_tokens=50,
    )  # fmt: skip
    texts = [text for text in sampled_texts(job) if text.prompt]
    assert sorted((t.kind, t.prompt, t.text, t.cut) for t in texts) == [
        ("record", "2+2=", "4", False),
        ("record", "question?", "answer", False),
    ]
    assert sorted(text.text for text in human_texts(job)) == ["4", "answer"]


def test_padding_that_a_model_writes_is_no_text(tmp_path):
    """Counted as tokens it would be evidence against copies."""

    class Padder(Quoter):
        def forward(self, input_ids, use_cache):
            return SimpleNamespace(logits=torch.nn.functional.one_hot(torch.full_like(input_ids, PAD), 259) * 99.0)

        __call__ = forward

    texts = sampled_texts(audit_job(tmp_path, model=Padder(), samples=2, sample_tokens=60))
    assert [(text.text, text.ids, text.empty) for text in texts] == [("", (), True)] * 2


def test_a_short_document_gives_half_of_itself(tmp_path):
    job = audit_job(tmp_path, model=Quoter("abcd"), held_out=stream("abcd", "x"), samples=2, sample_tokens=9)
    assert [(text.prompt, text.text) for text in sampled_texts(job)] in (
        [("", "abcd"), ("ab", "cd")],
        [("", "abcd"), ("x", "")],
    )


def test_few_documents_give_several_texts_with_other_random_numbers(tmp_path):
    job = audit_job(tmp_path, model=Uniform(), held_out=stream("one document"), samples=8, sample_tokens=6)
    texts = sampled_texts(job)
    assert {text.prompt for text in texts[1::2]} == {"one do"}
    assert len({text.ids for text in texts}) == 8


@pytest.mark.parametrize("batch_size", [1, 3])
def test_neither_batches_nor_a_second_run_change_a_text(tmp_path, batch_size):
    def texts(size, **more):
        job = audit_job(
            tmp_path, model=Uniform(), held_out=stream(*HELD_OUT), samples=8, sample_tokens=12, batch_size=size, **more
        )
        return sampled_texts(job)

    assert texts(batch_size) == texts(16) == texts(16)


def test_the_texts_are_generated_once(tmp_path):
    model = Quoter("abc")
    job = audit_job(tmp_path, model=model, samples=2)
    first, asked = sampled_texts(job), len(model.asked)
    assert sampled_texts(job) is first
    assert len(model.asked) == asked


def test_without_held_out_documents_no_text_has_a_prompt(tmp_path):
    job = audit_job(tmp_path, model=Quoter("abc"), samples=5)
    assert {text.kind for text in sampled_texts(job)} == {"unconditional"}
    assert human_texts(job) == []


def test_human_text_is_as_long_as_the_samples(tmp_path):
    job = audit_job(tmp_path, held_out=stream(*HELD_OUT), samples=2, sample_tokens=8)
    texts = human_texts(job)
    assert len(texts) == 2
    assert {text.text for text in texts} < {text[:8] for text in HELD_OUT}
    assert all(text.cut for text in texts)
    assert len(human_texts(audit_job(tmp_path, held_out=stream(*HELD_OUT), samples=9))) == 3


def test_human_text_ends_where_a_text_of_the_model_would(tmp_path, monkeypatch):
    """At END or at another end of a turn; what comes after it is another text."""
    (turn,) = numbers("|")
    monkeypatch.setattr(Quoter, "config", SimpleNamespace(is_encoder_decoder=False, eos_token_id=[END, turn]))
    (text,) = human_texts(audit_job(tmp_path, held_out=stream("abc|def"), samples=9))
    assert (text.text, text.ids, text.cut) == ("abc", tuple(numbers("abc")), False)


def test_human_text_that_is_whole_is_not_cut(tmp_path):
    """The END of a document is no text."""
    (text,) = human_texts(audit_job(tmp_path, held_out=stream("abcdef"), samples=9))
    assert (text.text, text.cut) == ("abcdef", False)
