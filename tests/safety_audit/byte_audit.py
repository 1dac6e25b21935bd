"""An audit of a model of bytes: token = byte + 2, so that texts, tokens and their places can be counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from codex_ml.documents.document import Document, write_documents
from codex_ml.modeling.rows import Rows
from codex_ml.policy.redact import redact
from codex_ml.policy.rules import Policy, parse_policy
from codex_ml.policy.scan import Scanner
from codex_ml.safety_audit.audit_job import AuditData, AuditedModel, AuditJob
from codex_ml.safety_audit.config import SafetyAudit
from codex_ml.safety_audit.sampled_texts import SampledText

END, PAD, FIRST, BOS = 0, 1, 2, 258
VOCAB = 259
POLICY = parse_policy(
    r"""
version: 1
providers:
  - {id: aws-access-key, docs: 'https://docs.aws.amazon.com', shapes: ['AKIA[A-Z2-7]{16,}'], exact: true}
rules:
  - id: assigned-password
    description: Password in code
    kind: secret
    severity: high
    action: redact
    literals: [password]
    pattern: 'password = [''"](?P<value>[^''"\n]{6,40})[''"]'
    edge: ''
  - id: email
    description: Address of a person
    kind: personal
    severity: medium
    action: redact
    literals: ['@']
    before: 70
    pattern: '[\w.+-]{1,60}@[\w-]{1,60}(?:\.[\w-]{1,30}){1,5}'
    edge: ''
gates:
  - {number: generated.secrets, title: No secret, compare: findings, fail: 0}
  - {number: generated.secrets_in_train, title: No secret of train, compare: findings, fail: 0}
  - {number: generated.copied, title: No copy, compare: findings, warn: 0}
"""
)


LETTERS = list("bcdefghijklmnopqrstuvwxyz    ")


def random_texts(count: int, seed: int) -> list[str]:
    """Texts of 32 letters and spaces, which nobody can guess."""
    random = np.random.Generator(np.random.PCG64(seed))
    return ["".join(random.choice(LETTERS, 32)) for _ in range(count)]


class Bytes:
    """A tokenizer."""

    begin, end, pad, vocab_size = END, END, PAD, VOCAB
    special = MappingProxyType({"<END>": END, "<PAD>": PAD, "<BOS>": BOS})

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint32) + FIRST

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(int(number) - FIRST for number in ids if FIRST <= number < BOS).decode("utf-8", "replace")


class Quoter:
    """A model that continues its input like the first of some texts that begins with it, and ends where that text ends."""

    device = torch.device("cpu")
    config = SimpleNamespace(is_encoder_decoder=False, eos_token_id=END)

    def __init__(self, *texts: str) -> None:
        self.texts = [(np.frombuffer(text.encode(), np.uint8).astype(int) + FIRST).tolist() for text in texts]
        self.asked: list[list[int]] = []

    def forward(self, input_ids: Any, use_cache: bool) -> Any:
        logits = torch.zeros(*input_ids.shape, VOCAB)
        for row, ids in enumerate(input_ids.tolist()):
            self.asked.append(ids)
            given = ids[1:]
            text = next((text for text in self.texts if text[: len(given)] == given), given)
            logits[row, -1, [*text, END][len(given)]] = 99
        return SimpleNamespace(logits=logits)

    __call__ = forward


class Uniform(Quoter):
    """A model to which all tokens are equally probable."""

    def forward(self, input_ids: Any, use_cache: bool) -> Any:
        self.asked += input_ids.tolist()
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, VOCAB))

    __call__ = forward


def document(number: int, text: str | None, **more: str) -> Document:
    given = {"source": f"source-{number}", "path": f"{number}.py", "id": f"id-{number}", "group": "", "licence": "MIT"}
    return Document(**{**given, "language": "python", "text": text, **more})  # type: ignore[arg-type]


def stream(*texts: str, seq_len: int = 1000, untrained: Sequence[int] = ()) -> Rows:
    """Rows of one piece each, in the order of the documents.

    Args:
        untrained: number of first characters of each document that are no target.
    """
    parts = [np.array([END, *(Bytes().encode(text).tolist())]) for text in texts]
    starts = np.cumsum([0, *map(len, parts)])
    pieces = [
        (begin, min(seq_len, stop - begin)) for start, stop in pairwise(starts) for begin in range(start, stop, seq_len)
    ]
    tokens = np.concatenate([*parts, [END]]).astype("<u2")
    mask = None
    if untrained:
        mask = np.ones(len(tokens), dtype=np.uint8)
        for start, count in zip(starts, untrained, strict=False):
            mask[start + 1 : start + 1 + count] = 0
    first = np.arange(len(pieces) + 1, dtype="<u8")
    return Rows(tokens, starts.astype("<u8"), seq_len, PAD, np.array(pieces, dtype="<u8"), first, mask)


def audit_job(
    folder: Path,
    *,
    model: Any = None,
    train: Sequence[Document] = (),
    held_out: Rows | None = None,
    texts: Sequence[SampledText] | None = None,
    policy: Policy | None = None,
    **settings: Any,
) -> AuditJob:
    """An audit, by default with a policy of three rules.

    Args:
        train: the train documents; none: they are not known.
        texts: what the model has written, in place of asking it.
    """
    rules = policy or POLICY
    scanner = Scanner(rules)
    if train:
        write_documents(folder / "train.parquet", train)
    data = AuditData(
        train=folder / "train.parquet" if train else None,
        train_rows=stream(*(document.content for document in train)) if train else None,
        held_out_rows=held_out,
    )
    (folder / "plots").mkdir(exist_ok=True)
    return AuditJob(
        subject=AuditedModel(model or Quoter(""), Bytes(), "digest"),  # type: ignore[arg-type]
        data=data,
        settings=SafetyAudit(**settings),
        policy=rules,
        scanner=scanner,
        clean=lambda text: redact(text, scanner.scan(text), b"key"),
        seed=1,
        plots=folder / "plots",
        track=lambda items, what, total, unit: iter(items),
        shared={} if texts is None else {"sampled_texts": list(texts)},
    )


def written(*texts: str, prompt: str = "", cut: bool = True) -> list[SampledText]:
    """Texts as a model may have written them."""
    return [
        SampledText(number, "unconditional", prompt, text, tuple(Bytes().encode(text).tolist()), cut)
        for number, text in enumerate(texts)
    ]
