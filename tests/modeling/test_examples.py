"""Evaluation asks of a model what training taught it: the same tokens, the same targets, by the same code.

Cases C038 (records without a target) and C040 (two BOS) of their kind, as they are scored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codex_ml.core.errors import UserError
from codex_ml.documents.document import Document, write_documents
from codex_ml.inference.likelihood import Scoring, score, windows_of
from codex_ml.modeling.examples import Scorable, Unscored, rough_tokens, scorables, texts_of
from codex_ml.modeling.rows import IGNORE, Rows, stream_dtype
from codex_ml.pack.config import Pack
from codex_ml.pack.fitting import encode_examples
from codex_ml.pack.row_writer import StreamFormat, write_stream
from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.training import train_tokenizer
from codex_ml.tokens.chat import encode_prompt
from codex_ml.tokens.text_tokenizer import TextTokenizer, load_tokenizer
from codex_ml.train.config import Model
from codex_ml.train.loss import summed_loss
from codex_ml.train.model.build import build_model

pytestmark = pytest.mark.usefixtures("torch_on_one_thread")

CORPUS = "def add(left, right):\n    return left + right\n\nAsk me; I answer. Caf\u00e9 \u4e2d\u6587.\n"
ROW = 64
WITH_BOS = "{{ bos_token }}{% for m in messages %}{{ m.role + ':' + m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizer")
    settings = Tokenizer(vocab_size=330, chat_template="chatml", special_tokens=("<s>",))
    train_tokenizer(lambda: [CORPUS * 3], settings, out)
    return out


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> TextTokenizer:
    return load_tokenizer(folder)


def document(**content: Any) -> Document:
    return Document("web", "p", "d", "", "MIT", "text", **content)


def text(content: str) -> Document:
    return document(text=content)


def record(prompt: str | None, completion: str | None) -> Document:
    return document(prompt=prompt, completion=completion)


def chat(*said: tuple[str, str], **more: Any) -> Document:
    return document(messages=json.dumps([{"role": role, "content": content, **more} for role, content in said]))


TALK = (("user", "add"), ("assistant", "left + right"), ("user", "Caf\u00e9?"), ("assistant", "return \u4e2d"))
DOCUMENTS = {
    "text": [text("def add(left, right):\n"), text("I answer."), text("Caf\u00e9 \u4e2d\u6587.")],
    "records": [record("Ask ", "me;"), record("", "I answer"), record("def add(", ""), record(None, "\u4e2d")],
    "chats": [chat(*TALK[:2]), chat(("system", "I"), *TALK), chat(("user", "a"), ("assistant", ""))],
}


def packed(tmp_path: Path, documents: list[Document], tokenizer: TextTokenizer, loss_on: Any, length: int) -> Rows:
    """The rows that `pack` builds, one document or piece of one in each."""
    settings = Pack(seq_len=length, layout="padded", loss_on=loss_on)
    encoded = tokenizer.encode_documents(texts_of(documents))
    examples = encode_examples(documents, encoded, tokenizer, settings, name="val", note=lambda note: None)
    dtype = stream_dtype(tokenizer.vocab_size)
    form = StreamFormat(tokenizer.end, dtype, length, tokenizer.begin, layout="padded")
    stream = write_stream(tmp_path, "val", examples, form)
    tokens, starts, pieces, first = (
        np.fromfile(tmp_path / f"val.{part}", dtype=kind)
        for part, kind in (("bin", dtype), ("starts", "<u8"), ("pieces", "<u8"), ("rows", "<u8"))
    )
    mask = np.fromfile(tmp_path / "val.mask", dtype=np.uint8) if stream.masked else None
    return Rows(tokens, starts, length, tokenizer.pad, pieces.reshape(-1, 2), first, mask)


@cache
def _trained(architecture: str, vocabulary: int, end: int, pad: int) -> Any:
    """A model that a few steps have moved away from its start, so that no token costs as much as another."""
    shape = Model(architecture=architecture, hidden_size=16, intermediate_size=32, layers=1, heads=2)
    model = build_model(shape, vocab_size=vocabulary, end=end, pad=pad, seed=5)
    ids = torch.from_numpy(np.random.Generator(np.random.PCG64(1)).integers(0, vocabulary, (4, 17)))
    row = {"input_ids": ids[:, :-1], "labels": ids[:, 1:], "position_ids": torch.arange(16).expand(4, 16)}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(10):
        (summed_loss(model, row) / 64).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.mark.parametrize("loss_on", ["completions", "all"])
@pytest.mark.parametrize("kind", list(DOCUMENTS))
@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_the_nats_of_evaluation_are_the_loss_of_the_packed_rows(tmp_path, tokenizer, architecture, kind, loss_on):
    """One document per row, so that the rows are those of validation; the loss is what train sums over them."""
    documents = DOCUMENTS[kind]
    model = _trained(architecture, tokenizer.vocab_size, tokenizer.end, tokenizer.pad)
    rows = packed(tmp_path, documents, tokenizer, loss_on, ROW)
    found = list(scorables(documents, tokenizer, loss_on=loss_on, length=ROW))
    assert len(rows) == len(documents) == len(found)
    for number, one in enumerate(score(model, found, Scoring(ROW))):
        batch = {key: torch.from_numpy(value) for key, value in rows.batch(np.array([number])).items()}
        with torch.no_grad():
            loss = float(summed_loss(model, batch))
        assert one.tokens == int((batch["labels"] != IGNORE).sum()) > 0
        assert one.nll == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("document", [*DOCUMENTS["text"], text(CORPUS * 2)])
def test_a_text_is_cut_into_the_rows_of_pack(tmp_path, tokenizer, document):
    (found,) = scorables([document], tokenizer, loss_on="completions", length=16)
    rows = packed(tmp_path, [document], tokenizer, "completions", 16)
    windows = list(windows_of(found.tokens, found.scored, Scoring(16)))
    assert len(windows) == len(rows)
    for number, window in enumerate(windows):
        assert (
            window.tokens[:-1].tolist() == rows.batch(np.array([number]))["input_ids"][0, : len(window.scored)].tolist()
        )
        assert window.scored.all()


@pytest.mark.parametrize(
    "document",
    [
        record("p " * 40, "short"),
        record("p:", CORPUS * 2),
        record("p " * 40, CORPUS * 2),
        record("p " * 40, ""),
        chat(("user", "p " * 40), ("assistant", "short")),
        chat(("user", "p " * 40), ("assistant", CORPUS * 2), ("user", "q"), ("assistant", "last")),
    ],
)
def test_the_first_window_of_a_long_record_is_the_row_of_pack_and_its_whole_completion_is_scored(
    tmp_path, tokenizer, document
):
    """pack cuts the same record to one row, in which END is no target after a cut completion."""
    (found,) = scorables([document], tokenizer, loss_on="completions", length=32)
    batch = packed(tmp_path, [document], tokenizer, "completions", 32).batch(np.array([0]))
    window = next(windows_of(found.tokens, found.scored, Scoring(32)))
    assert window.tokens[:-1].tolist() == batch["input_ids"][0, : len(window.scored)].tolist()
    trained = batch["labels"][0] != IGNORE
    assert (window.scored[trained[: len(window.scored)]]).all()
    assert window.scored.sum() - trained.sum() in (0, 1)
    spelt = [token for token in found.tokens[found.scored].tolist() if token not in tokenizer.special.values()]
    assert tokenizer.decode(spelt) == found.text
    whole = (
        "".join(m["content"] for m in json.loads(document.messages) if m["role"] == "assistant")
        if document.messages
        else document.completion
    )
    assert found.text == whole and found.lossless


def test_with_a_loss_on_all_tokens_every_byte_of_a_long_record_is_scored(tokenizer):
    (found,) = scorables([record("p " * 40, CORPUS)], tokenizer, loss_on="all", length=16)
    assert tokenizer.decode(found.tokens[1:-1]) == found.text == "p " * 40 + CORPUS
    assert found.scored.tolist() == [False] + [True] * (len(found.tokens) - 1)


def test_no_record_without_a_target_goes_unseen(tokenizer):
    """Like case C038: a prompt longer than the row, an empty completion, both empty, a long completion, no answer."""
    documents = [
        record("p " * 99, "a"),
        record("p " * 99, ""),
        record("", ""),
        record("p", "a" * 99),
        text(""),
        chat(TALK[0]),
        chat(),
    ]
    found = list(scorables(documents, tokenizer, loss_on="completions", length=16))
    reasons = [one.reason if isinstance(one, Unscored) else "" for one in found]
    assert reasons == ["", "", "empty", "", "empty", "untrained", "untrained"]
    assert [one.why for one in found if isinstance(one, Unscored)] == [
        *["the document has no token"] * 2,
        *["the chat has no answer of the model"] * 2,
    ]
    model = _trained("llama", tokenizer.vocab_size, tokenizer.end, tokenizer.pad)
    scored = [one for one in found if isinstance(one, Scorable)]
    assert [one.text for one in scored] == ["a", "", "a" * 99]
    for one in score(model, scored, Scoring(16)):
        assert one.tokens > 0 and math.isfinite(one.nll) and one.nll > 0


def test_there_is_one_bos_and_a_prompt_for_generation_is_a_prefix(folder):
    """Like case C040: the template writes BOS and the post-processor adds it too."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = replace(load_tokenizer(folder), chat_template=WITH_BOS)
    tokenizer = replace(tokenizer, bos=tokenizer.special["<s>"])
    bos = tokenizer.bos
    tokenizer.backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    documents = [text("I answer"), record("Ask ", "me"), record("", "me"), chat(*TALK[:2])]
    found = list(scorables(documents, tokenizer, loss_on="completions", length=ROW))
    for one in found:
        assert (one.tokens == bos).sum() == 1 and one.tokens[0] == bos and not one.scored[0]
    *_, asked, free, talk = found
    prompt = encode_prompt(tokenizer, [{"role": "user", "content": "add"}])
    assert talk.tokens[: int(np.argmax(talk.scored))].tolist() == prompt.tolist()
    assert asked.tokens[: int(np.argmax(asked.scored))].tolist() == [bos, *tokenizer.encode("Ask ")]
    assert int(np.argmax(free.scored)) == 1
    assert [one.tokens[-1] for one in found] == [tokenizer.end] * 4
    assert [one.text for one in found] == ["I answer", "me", "me", "left + right"]


def test_a_chat_is_scored_on_what_its_template_marks_and_control_tokens_spell_nothing(tokenizer):
    (found,) = scorables([chat(*TALK)], tokenizer, loss_on="completions", length=ROW)
    assert tokenizer.decode(found.tokens[found.scored]) == "left + right<|im_end|>return \u4e2d<|im_end|>"
    assert found.text == "left + rightreturn \u4e2d" and found.lossless
    (found,) = scorables([chat(*TALK[:2])], tokenizer, loss_on="all", length=ROW)
    assert found.text == "user\nadd\nassistant\nleft + right\n" and found.lossless
    assert found.scored.tolist() == [False] + [True] * (len(found.tokens) - 1)


def test_the_text_of_a_chat_is_what_the_template_writes_of_it(tokenizer):
    """A call is scored as the model would write it, not as the record stores it."""
    call = {"function": {"name": "add", "arguments": {"left": 1}}}
    messages = [{"role": "user", "content": "add"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    (found,) = scorables([document(messages=json.dumps(messages))], tokenizer, loss_on="completions", length=ROW)
    assert found.text == '<tool_call>\n{"name": "add", "arguments": {"left": 1}}\n</tool_call>' and found.lossless


def test_bad_chats_are_unscored_with_the_reason_and_a_missing_template_is_an_error(tokenizer):
    bad = chat(("human", "hi"))
    unstable = replace(
        tokenizer, chat_template="{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    (found,) = scorables([bad], tokenizer, loss_on="completions", length=ROW)
    assert found.reason == "bad_chat" and found.why.startswith("the role 'human' is not allowed; allowed: system,")
    (found,) = scorables([chat(*TALK)], unstable, loss_on="completions", length=ROW)
    assert found.reason == "bad_chat" and "writes earlier messages differently" in found.why
    (found,) = scorables([chat(*TALK)], unstable, loss_on="all", length=ROW)
    assert found.text == "".join(content for _, content in TALK)  # the first token, 4, is an input only
    with pytest.raises(UserError, match=r"^evaluate: the chat d of web: the tokenizer has no chat template"):
        list(scorables([chat(*TALK)], replace(tokenizer, chat_template=None), loss_on="all", length=ROW))


def lower_case(folder: Path) -> TextTokenizer:
    """A tokenizer that loses capitals."""
    from tokenizers import normalizers

    tokenizer = load_tokenizer(folder)
    tokenizer.backend.normalizer = normalizers.Lowercase()
    return tokenizer


@pytest.mark.parametrize(
    ("document", "lossless"),
    [
        (text("small"), True),
        (text("Capital"), False),
        (record("Capital ", "small"), True),
        (record("small ", "Capital"), False),
        (record("", "Capital"), False),
        (chat(("user", "Capital"), ("assistant", "small")), True),
        (chat(("user", "small"), ("assistant", "Capital")), False),
    ],
)
def test_only_the_scored_text_must_be_given_back(folder, document, lossless):
    (found,) = scorables([document], lower_case(folder), loss_on="completions", length=ROW)
    assert found.lossless is lossless
    assert found.text in (document.content, document.completion, "small", "Capital")


def test_a_completion_that_a_dummy_space_precedes_is_lossless(tmp_path):
    """SentencePiece's rule: decoding a text drops its first space, so a completion is decoded after a token."""
    settings = Tokenizer(kind="sentencepiece_bpe", vocab_size=300, chat_template="chatml")
    train_tokenizer(lambda: [CORPUS * 3], settings, tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    documents = [text("I answer"), record("Ask", " me"), record("Ask", "me"), record("", "me"), chat(*TALK)]
    found = list(scorables(documents, tokenizer, loss_on="completions", length=ROW))
    assert [one.text for one in found] == ["I answer", " me", "me", "me", "left + rightreturn \u4e2d"]
    assert all(one.lossless for one in found)


def test_documents_of_all_forms_keep_their_order_and_a_stream_is_read_as_needed(tokenizer):
    """Chats have no text for the bulk encoder; it must not read through all of them to fill its batch."""
    read = 0

    def documents() -> Iterator[Document]:
        nonlocal read
        for number in range(100_000):
            read += 1
            yield (text("I answer"), chat(*TALK), record("Ask ", "me"))[number % 3] if number < 6 else chat(*TALK * 20)

    found = scorables(documents(), tokenizer, loss_on="completions", length=ROW)
    texts = [next(found).text for _ in range(6)]
    assert texts == ["I answer", "left + rightreturn \u4e2d", "me"] * 2
    assert read < 2_000


def test_tokens_are_estimated_from_the_footer(tmp_path):
    """300,000 bytes of text. Parquet adds lengths and statistics: less than a tenth, where documents are many."""
    documents = [text("\u00e9" * 500)] * 200 + [record("p" * 500, "c" * 500)] * 100
    write_documents(tmp_path / "d.parquet", documents)
    assert 75_000 <= rough_tokens(tmp_path / "d.parquet") < 82_500
