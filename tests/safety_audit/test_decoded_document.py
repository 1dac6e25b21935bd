"""A document is decoded and scanned once, whatever the number of findings in it, and offsets are those of a full decode."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from codex_ml.safety_audit.decoded_document import DecodedDocument, DecodedDocuments

TEXT = "def größe(x):\n    return x  # 日本語 über alles \U0001f600\n\n\n" * 40


def trained(kind: str) -> Tokenizer:
    if kind == "wordpiece":
        backend = Tokenizer(models.WordPiece(unk_token="?"))
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=80, special_tokens=["?"], show_progress=False)
    elif kind == "metaspace":
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=80, show_progress=False)
    else:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=290, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
    backend.train_from_iterator([TEXT], trainer)
    return backend


class Counted:
    """A job whose tokenizer and policy count what they read."""

    def __init__(self, backend: Tokenizer, ids: list[int]) -> None:
        self.decoded = self.scanned = 0
        self.backend = backend
        self.subject = SimpleNamespace(tokenizer=SimpleNamespace(decode=self._decode, begin=-1, end=-1))
        self.scanner = SimpleNamespace(scan=self._scan)
        starts = np.array([0, len(ids)], dtype=np.int64)
        self.rows = SimpleNamespace(tokens=np.array(ids, dtype=np.int64), starts=starts)

    def _decode(self, ids: Any) -> str:
        self.decoded += len(ids)
        return self.backend.decode([int(number) for number in ids], skip_special_tokens=False)

    def _scan(self, text: str) -> list[Any]:
        self.scanned += len(text)
        return []


@pytest.fixture(params=["byte_level", "wordpiece", "metaspace"])
def job(request: pytest.FixtureRequest) -> Any:
    backend = trained(request.param)
    return Counted(backend, backend.encode(TEXT).ids)


def test_offsets_are_those_of_a_full_decode_in_any_order(job: Any) -> None:
    count = len(job.rows.tokens)
    document = DecodedDocument(job, job.rows, 0)
    order = np.random.default_rng(0).permutation(count)[:300].tolist()
    for position in order:
        before = job.backend.decode(job.rows.tokens[:position].tolist(), skip_special_tokens=False)
        expected = len(before if document.text.startswith(before) else before.rstrip("\ufffd"))
        found = document.offset(position)
        assert found == expected, position


@pytest.mark.parametrize("findings", [10, 400])
def test_the_cost_follows_the_document_and_not_the_number_of_findings(findings: int) -> None:
    backend = trained("byte_level")
    job: Any = Counted(backend, backend.encode("def f(x):\n    return x\n" * 2000).ids)
    count = len(job.rows.tokens)
    documents = DecodedDocuments(job, job.rows)
    for position in np.linspace(0, count - 1, findings).astype(int).tolist():
        document = documents.of(0)
        document.offset(position)
        assert document.values == []
    assert count <= job.decoded <= 2 * count + 3 * findings
    assert job.scanned == len(document.text)
