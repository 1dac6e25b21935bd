"""Documents are split where the settings say, so that the prompt is what training saw and the reference what follows."""

from __future__ import annotations

import json

import pytest

from codex_ml.core.errors import UserError
from codex_ml.documents.document import Document
from codex_ml.evaluate.completion_prompts import LONGEST, NotCompleted, PromptMaker, weight_of
from codex_ml.evaluate.config import Completions

CODE = "".join(
    f"def function_{i}(value):\n    total = value + {i}\n    # tie the knot\n    return total\n\n\n" for i in range(8)
)
KINDS = ("byte_bpe", "unigram", "sentencepiece_bpe")


def document(text=None, *, id="a", language="python", **fields):
    return Document(source="s", path="p.py", id=id, group="", licence="MIT", language=language, text=text, **fields)


def maker(tokenizer, **settings):
    return PromptMaker(tokenizer, Completions(**{"max_tokens": 40, **settings}))


@pytest.mark.parametrize(
    ("kind", "split_at"),
    [*((kind, split_at) for kind in KINDS for split_at in ("token", "line")), ("byte_bpe", "function"),
     ("sentencepiece_bpe", "function")],
)  # fmt: skip
def test_the_prompt_is_the_begin_of_the_document_as_training_saw_it(loaded, kind, split_at):
    tokenizer = loaded(kind)
    whole = tokenizer.encode(CODE).tolist()
    for number in range(12):
        found = maker(tokenizer, split_at=split_at).make(document(CODE, id=str(number)))
        assert found.kind == split_at
        assert found.ids.tolist() == [tokenizer.begin, *whole[: len(found.ids) - 1]]
        assert CODE.startswith(found.prompt + found.reference)
        assert found.prompt
        assert found.reference
        assert tokenizer.encode(found.reference).size <= 42


@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_of_lines_has_whole_lines_and_the_output_is_cut_to_as_many(loaded, kind):
    for number in range(12):
        found = maker(loaded(kind), split_at="line").make(document(CODE, id=str(number)))
        rest = CODE[len(found.prompt) + len(found.reference) :]
        assert rest == "" or rest.startswith("\n")
        assert found.prompt.endswith("\n") or found.reference.startswith("\n")
        assert found.cut(found.reference) == found.reference
        assert found.cut(found.reference + "\nmore") == found.reference
        assert found.cut("one line") == "one line"


def test_a_line_longer_than_the_limit_is_cut_at_the_limit(loaded):
    found = maker(loaded("byte_bpe"), split_at="line", max_tokens=3).make(document("x = 1\n" + "value + 1" * 40))
    assert (found.prompt, found.cut_reference) in {("x = 1", True), ("x = 1\n", True)}
    assert loaded("byte_bpe").encode(found.reference).size <= 3


def test_a_token_may_cross_the_end_of_every_signature(loaded):
    """The unigram tokenizer has tokens of several words; this one joins the begin of each body to its signature."""
    with pytest.raises(NotCompleted, match="body of at most 40 tokens that begins between two tokens of the document"):
        maker(loaded("unigram"), split_at="function").make(document(CODE))


def test_a_function_is_completed_by_its_body(loaded):
    found = maker(loaded("byte_bpe"), split_at="function").make(document(CODE))
    number = int(found.prompt.rstrip().removesuffix("(value):").rsplit("_", 1)[1])
    assert found.reference.strip("\n") == f"    total = value + {number}\n    # tie the knot\n    return total"
    assert not found.cut_reference
    assert found.cut(found.reference + "\n\n\ndef other():\n    pass") == found.reference


@pytest.mark.parametrize(
    ("split_at", "text", "language", "why"),
    [
        ("token", "", "text", "has too few tokens to be split"),
        ("line", "no line break at all", "text", "has no line break between two tokens with text on both sides"),
        ("line", "\n\n  \n", "text", "has no line break"),
        ("function", "int f() { return 1; }", "c", "is not Python, and functions are found in Python only"),
        ("function", "def f(:\n", "python", "is not valid Python"),
        ("function", "x = 1\n", "python", "has no function with a body of its own lines"),
        (
            "function",
            "def f():\n" + "    value = 1\n" * 90,
            "python",
            "has no function with a body of at most 40 tokens",
        ),
        ("function", "#" * (LONGEST + 1), "python", f"is longer than {LONGEST} characters"),
    ],
)
def test_a_document_that_cannot_be_split_says_why(loaded, split_at, text, language, why):
    with pytest.raises(NotCompleted, match=why):
        maker(loaded("byte_bpe"), split_at=split_at).make(document(text, language=language))


def test_the_place_depends_on_the_name_of_the_document(loaded):
    places = {maker(loaded("byte_bpe"), split_at="token").make(document(CODE, id=id)).prompt for id in "abcabc"}
    assert len(places) == 3


@pytest.mark.parametrize("split_at", ["line", "function"])
def test_models_with_other_tokenizers_complete_the_same_place(loaded, split_at):
    """Where a token of neither crosses it; one may need the line break in the prompt and the other in the output."""
    prompts = [
        [maker(loaded(kind), split_at=split_at).make(document(CODE, id=id)).prompt.rstrip() for id in "abcdef"]
        for kind in ("byte_bpe", "sentencepiece_bpe")
    ]
    assert prompts[0] == prompts[1]


def test_half_a_character_is_no_prompt(loaded):
    tokenizer = loaded("byte_bpe")
    for number in range(20):
        found = maker(tokenizer, split_at="token").make(document("a€€€€€€b", id=str(number)))
        assert found.prompt + found.reference == "a€€€€€€b"


def test_a_long_text_is_read_up_to_a_limit(loaded):
    found = maker(loaded("byte_bpe"), split_at="line").make(document("x = 1\n" * LONGEST))
    assert len(found.prompt) <= LONGEST


@pytest.mark.parametrize("split_at", ["token", "line", "function"])
def test_a_record_is_completed_after_its_prompt(loaded, split_at):
    tokenizer = loaded("byte_bpe")
    record = document(prompt="def f():\n", completion="    return 1\n", meta='{"weight": 2.5}')
    found = maker(tokenizer, split_at=split_at).make(record)
    assert (found.kind, found.prompt, found.reference) == ("record", "def f():\n", "    return 1\n")
    assert found.ids.tolist() == [tokenizer.begin, *tokenizer.encode("def f():\n").tolist()]
    assert (found.weight, found.cut_reference, found.cut("any\ntext")) == (2.5, False, "any\ntext")
    short = maker(tokenizer, max_tokens=2).make(record)
    assert short.cut_reference
    assert short.reference == tokenizer.decode(tokenizer.encode("    return 1\n")[:2])
    empty = maker(tokenizer).make(document(prompt="", completion="x"))
    assert empty.ids.tolist() == [tokenizer.begin]
    with pytest.raises(NotCompleted, match="has an empty completion"):
        maker(tokenizer).make(document(prompt="a", completion=""))


def chat(*turns):
    messages = [{"role": role, "content": content} for role, content in turns]
    return document(messages=json.dumps(messages), language="text")


def test_a_chat_is_completed_from_its_last_answer_on_by_the_prompt_that_training_saw(loaded):
    from codex_ml.tokens.chat import encode_chat

    tokenizer = loaded("byte_bpe", chat_template="chatml")
    turns = [("user", "one?"), ("assistant", "two"), ("user", "three?"), ("assistant", "four tie")]
    found = maker(tokenizer).make(chat(*turns))
    ids, _ = encode_chat(tokenizer, [{"role": role, "content": content} for role, content in turns])
    assert found.kind == "chat"
    assert found.ids.tolist() == ids[: len(found.ids)].tolist()
    assert tokenizer.decode(ids[len(found.ids) :]).startswith("four tie")
    assert found.reference == "four tie"
    assert "three?" in found.prompt
    assert "four" not in found.prompt
    with pytest.raises(NotCompleted, match="has no answer that is a text"):
        maker(tokenizer).make(chat(("user", "one?")))
    with pytest.raises(NotCompleted, match="has no answer that is a text"):
        maker(tokenizer).make(document(messages='[{"role": "assistant", "content": null}]'))


def test_a_chat_needs_a_template(loaded):
    with pytest.raises(UserError, match="chat_template"):
        maker(loaded("byte_bpe")).make(chat(("user", "a"), ("assistant", "b")))


@pytest.mark.parametrize("weight", ["-1", '"heavy"', "true", "[1]", "1e999", "NaN"])
def test_a_weight_must_be_a_number(weight):
    with pytest.raises(UserError, match=r"the weight of the document a of s is .*; allowed: a number of at least 0"):
        weight_of(document("x", meta=f'{{"weight": {weight}}}'))


@pytest.mark.parametrize(
    ("meta", "weight"), [("", 1.0), ("{}", 1.0), ('{"weight": null}', 1.0), ('{"weight": 0}', 0.0)]
)
def test_a_document_without_a_weight_weighs_one(meta, weight):
    assert weight_of(document("x", meta=meta)) == weight
