"""From documents to examples: the loss mask is right, every example has a target, every cut or drop is listed.

The shapes are those of huggingface/trl 6668 and 5826 (no supervised token) and OpenRLHF 393 (two BOS).
"""

import json

import numpy as np
import pytest

from codex_ml.core.errors import UserError
from codex_ml.documents.document import Document
from codex_ml.modeling.examples import texts_of
from codex_ml.pack.config import Pack
from codex_ml.pack.fitting import BadChats, Note, encode_examples

from .byte_tokenizer import FIRST, ByteTokenizer

CHATML = "{{ messages }}"


def document(id="d", **content):
    return Document("web", "p", id, "", "MIT", "text", **content)


def chat(*said, id="c"):
    messages = [{"role": role, "content": content} for role, content in said]
    return document(id, messages=json.dumps(messages))


def encode(*documents, seq_len=16, template=CHATML, tokenizer=None, **settings):
    """(examples, notes)"""
    notes, tokenizer = [], tokenizer or ByteTokenizer(template)
    encoded = tokenizer.encode_documents(texts_of(documents))
    pack = Pack(seq_len=seq_len, **settings)
    found = list(encode_examples(documents, encoded, tokenizer, pack, name="train", note=notes.append))
    assert next(encoded, None) is None
    return found, notes


def shown(example):
    """The example as text: trained tokens in capitals, token 0 as a full stop, and " END" if the END is trained."""
    marks = np.ones(len(example.ids) + 1, dtype=bool) if example.trained is None else example.trained
    letters = ["." if token == 0 else chr(token - FIRST) for token in example.ids.tolist()]
    return "".join(c.upper() if m else c for c, m in zip(letters, marks, strict=False)) + (" END" if marks[-1] else "")


def record(prompt, completion, id="r"):
    return document(id, prompt=prompt, completion=completion)


def test_text_is_trained_on_all_tokens_and_not_cut():
    (short, long, empty), notes = encode(document(text="abc"), document(text="x" * 100), document(text=""))
    assert [shown(e) for e in (short, long, empty)] == ["ABC END", "X" * 100 + " END", " END"]
    assert (short.trained, short.chat, notes) == (None, False, [])


@pytest.mark.parametrize(
    ("prompt", "completion", "expected"),
    [
        ("ask:", " yes", "ask: YES END"),
        ("ask:", "", "ask: END"),
        ("", "free", "FREE END"),
        ("ask:", None, "ask: END"),
        (None, "free", "FREE END"),
    ],
)
def test_the_loss_is_on_the_completion_and_the_end(prompt, completion, expected):
    (found,), notes = encode(record(prompt, completion))
    assert (shown(found), notes) == (expected, [])


def test_loss_on_all_of_a_record():
    (found,), _ = encode(record("ask:", " yes"), loss_on="all")
    assert found.trained is None


def test_the_prompt_is_encoded_as_at_generation():
    """Prompt and completion are encoded separately: a tokenizer that merges across the border would give other ids."""

    class Pairs(ByteTokenizer):
        def encode(self, text):
            return super().encode(text[::2])

    (found,), _ = encode(record("abc", "de"), tokenizer=Pairs())
    assert [chr(token - FIRST) for token in found.ids] == ["a", "c", "d"]


@pytest.mark.parametrize(
    ("prompt", "completion", "expected", "reason"),
    [
        ("p" * 11, "yes!", "p" * 11 + "YES! END", ""),  # END, 15 tokens: a row
        ("q" + "p" * 11, "yes!", "p" * 11 + "YES! END", "cut_prompt"),
        ("q" * 90 + "p" * 14, "y", "p" * 14 + "Y END", "cut_prompt"),
        ("q" * 90 + "p" * 15, "", "p" * 15 + " END", "cut_prompt"),
        ("p:", "y" * 99, "p:" + "Y" * 13, "cut_completion"),
        ("", "y" * 99, "Y" * 15, "cut_completion"),
        ("q" * 90 + "p" * 7, "y" * 99, "p" * 7 + "Y" * 8, "cut_both"),
        ("q" * 90 + "p" * 7, "y" * 8, "p" * 7 + "Y" * 8 + " END", "cut_prompt"),
    ],
)
def test_a_long_record_is_cut_to_a_row_with_a_trained_token(prompt, completion, expected, reason):
    (found,), notes = encode(record(prompt, completion))
    assert shown(found) == expected
    assert len(found.ids) <= 15
    tokens = len(prompt) + len(completion)
    assert notes == ([Note(0, "web", "p", "r", "cut", reason, tokens)] if reason else [])


def test_drop_and_fail_give_no_example_for_a_long_record():
    found, notes = encode(record("p" * 16, "y", id="long"), record("p", "y"), too_long="drop")
    assert [shown(e) for e in found] == ["pY END"]
    assert notes == [Note(0, "web", "p", "long", "drop", "too_long", 17)]
    message = (
        r"^train: the record long of web has 17 tokens, but a row holds at most 15; raise pack\.seq_len, or set "
        r"pack\.too_long to cut or drop$"
    )
    with pytest.raises(UserError, match=message):
        encode(record("p" * 16, "y", id="long"), too_long="fail")


@pytest.mark.parametrize("too_long", ["cut", "drop", "fail"])
@pytest.mark.parametrize("loss_on", ["completions", "all"])
def test_an_empty_record_is_dropped_and_listed(too_long, loss_on):
    found, notes = encode(record("", ""), record("a", "b"), record(None, ""), too_long=too_long, loss_on=loss_on)
    assert len(found) == 1
    assert notes == [
        Note(0, "web", "p", "r", "drop", "empty", 0),
        Note(2, "web", "p", "r", "drop", "empty", 0),
    ]


def test_the_answers_of_a_chat_and_their_ends_are_trained(chats):
    (found,), notes = encode(chat(("user", "hi"), ("assistant", "yo"), ("user", "ok")), seq_len=64)
    assert shown(found) == "<user:hi><assistant:YO>.<user:ok>"
    assert np.flatnonzero(found.trained).tolist() == [20, 21, 22, 23]
    assert (found.chat, notes) == (True, [])


def test_loss_on_all_of_a_chat_excludes_only_its_first_token(chats):
    (found,), _ = encode(chat(("user", "hi"), ("assistant", "yo")), seq_len=64, loss_on="all")
    assert found.trained.tolist() == [False, *[True] * (len(found.ids) - 1), False]


def test_a_chat_without_an_answer_is_dropped_and_listed(chats):
    found, notes = encode(chat(("user", "hi"), id="x"), chat())
    assert found == []
    assert [(n.id, n.action, n.reason, n.tokens) for n in notes] == [
        ("x", "drop", "untrained", 9),
        ("c", "drop", "untrained", 0),
    ]
    assert len(encode(chat(("user", "hi")), loss_on="all")[0]) == 1


def test_a_long_chat_is_cut_like_a_record(chats):
    """A row of 16 inputs holds 17 tokens of a chat, whose last is a target only."""
    said = chat(("user", "hello"), ("assistant", "y" * 30))
    (found,), notes = encode(said)
    assert shown(found) == "sistant:" + "Y" * 9
    assert [(n.action, n.reason) for n in notes] == [("cut", "cut_both")]
    (found,), notes = encode(chat(("user", "hello"), ("assistant", "y")))
    assert shown(found) == "lo><assistant:Y>."
    assert [(n.action, n.reason) for n in notes] == [("cut", "cut_prompt")]


def test_a_chat_that_cannot_be_rendered_is_named(chats):
    with pytest.raises(UserError, match=r"^train: the chat c of web: the tokenizer has no chat template$"):
        encode(chat(("user", "hi"), ("assistant", "yo")), template=None)


def test_messages_and_tools_reach_the_template_as_values(monkeypatch):
    import sys
    from types import SimpleNamespace

    seen = []

    def spy(tokenizer, messages, tools):
        seen.append((messages, tools))
        return SimpleNamespace(ids=np.array([5, 6], dtype=np.uint32), trained=np.array([False, True]))

    monkeypatch.setitem(sys.modules, "codex_ml.tokens.chat", SimpleNamespace(encode_conversation=spy))
    encode(document(messages='[{"role": "user", "content": null}]', tools='[{"name": "f"}]'), document(messages="[]"))
    assert seen == [([{"role": "user", "content": None}], [{"name": "f"}]), ([], None)]


def test_documents_of_all_forms_keep_their_order(chats):
    talk = chat(("user", "a"), ("assistant", "b"))
    found, notes = encode(
        document(text="one"),
        talk,
        talk,
        record("", ""),
        record("two", "three"),
        talk,
        document(text="four"),
        seq_len=64,
    )
    said = "<user:a><assistant:B>."
    assert [shown(e) for e in found] == ["ONE END", said, said, "twoTHREE END", said, "FOUR END"]
    assert [note.row for note in notes] == [3]


@pytest.fixture
def refusing(monkeypatch):
    """A template that cannot write "bad", and does not show which part of "odd" is the answer."""
    import sys
    from types import SimpleNamespace

    from codex_ml.tokens.rendering import ChatRefused, UnstableTemplate

    def encode_conversation(tokenizer, messages, tools, *, answers=True):
        said = messages[0]["content"]
        if said in ("bad", "odd") and answers:
            raise {"bad": ChatRefused("no such turn"), "odd": UnstableTemplate("not told")}[said]
        ids = tokenizer.encode("ab" if answers else said)
        return SimpleNamespace(ids=ids, trained=np.array([not answers] * (len(ids) - 1) + [True]))

    monkeypatch.setitem(sys.modules, "codex_ml.tokens.chat", SimpleNamespace(encode_conversation=encode_conversation))


def test_all_chats_that_cannot_be_rendered_are_named_and_nothing_is_packed(refusing):
    asked = [chat(("user", said), id=f"c{i}") for i, said in enumerate(["good", "bad", "odd", "good"])]
    with pytest.raises(BadChats) as error:
        encode(*asked, chat(("human", "hi"), id="c4"))
    assert str(error.value) == (
        "train: 3 chats cannot be used; change them, or set pack.bad_chats to drop:\n"
        "  the chat c1 of web: no such turn\n  the chat c2 of web: not told\n  the chat c4 of web: the role 'human' is not "
        "allowed; allowed: system, developer, user, assistant, tool, function, ipython"
    )
    placed = str(BadChats("train", error.value.bad, {("web", "c2"): "data/raw/a.jsonl:7"}))
    assert "\n  the chat c2 of web (data/raw/a.jsonl:7): not told\n" in placed
    with pytest.raises(BadChats, match=r"^train: the chat c1 of web: no such turn$"):
        encode(asked[1])


def test_at_most_twenty_bad_chats_are_named(refusing):
    with pytest.raises(BadChats, match="train: at least 20 chats cannot be used") as error:
        encode(*(chat(("user", "bad"), id=f"c{i}") for i in range(20)), chat(("user", "never reached")))
    assert str(error.value).count("\n") == 20 and "c19" in str(error.value)


def test_bad_chats_are_dropped_and_listed_on_request(refusing):
    found, notes = encode(*(chat(("user", said), id=said) for said in ("bad", "good", "odd")), bad_chats="drop")
    assert len(found) == 1
    assert [(n.row, n.id, n.action, n.reason) for n in notes] == [
        (0, "bad", "drop", "bad_chat"),
        (2, "odd", "drop", "bad_chat"),
    ]


def test_loss_on_all_needs_no_located_answers(refusing):
    (found,), notes = encode(chat(("user", "odd")), loss_on="all")
    assert (found.trained.tolist(), notes) == ([False, True, True, False], [])


def test_a_completion_continues_its_prompt_if_the_tokenizer_puts_a_space_before_a_text(tmp_path):
    """SentencePiece's dummy prefix: "ask:" and "yes", encoded as two texts, would become "ask: yes"."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    from codex_ml.tokens.layout import write_config
    from codex_ml.tokens.text_tokenizer import load_tokenizer

    letters = {letter: i for i, letter in enumerate("\u2581\naskye:.")}
    made = Tokenizer(models.BPE({**letters, "ye": len(letters)}, [("y", "e")]))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    made.add_special_tokens([AddedToken("<end>", special=True, normalized=False)])
    made.save(str(tmp_path / "tokenizer.json"))
    write_config(tmp_path, end="<end>", pad="<end>", bos=None, unk=None, extra={})
    tokenizer = load_tokenizer(tmp_path)
    for prompt, completion in (("ask:", "yes"), ("ask:", " yes"), ("ask:", "\nyes"), ("", "yes")):
        (found,), _ = encode(record(prompt, completion), tokenizer=tokenizer)
        assert tokenizer.decode(found.ids) == prompt + completion
        if prompt:
            assert found.ids[: np.argmax(found.trained)].tolist() == tokenizer.encode(prompt).tolist()
