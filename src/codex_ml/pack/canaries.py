"""Canaries: invented secrets in the train stream, for experiments on memorisation. Off by default.

Carlini et al. 2019, "The Secret Sharer", arXiv:1802.08232, section 4: a secret of random symbols in a fixed frame is
inserted into the training data a known number of times. Its exposure is its rank among secrets that were never
inserted. This comparison is fair only between secrets with the same number of tokens, so only secrets with the most
common token count are kept. A secret is a pure function of its draw number. More secrets of the same distribution
follow from draw `next_draw` of data/packed/canaries.json.

This module inserts the secrets and lists them. No stage measures their exposure. Used by: pack.pack_splits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import UserError
from codex_ml.documents.document import Document, opened
from codex_ml.pack.config import Canaries
from codex_ml.pack.fitting import Example

if TYPE_CHECKING:
    from codex_ml.tokens.text_tokenizer import TextTokenizer

SCHEMA = "codex-ml/canaries/1"
FRAMES = {"code": ('API_KEY = "', '"\n'), "text": ("The access code is ", ".\n")}
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"  # RFC 4648, base 32
SYMBOLS = 10  # 2^50 secrets
KEY = b"codex-ml/canaries/1"  # makes these hashes differ from all others
PROBES = 512  # secrets drawn to find the most common token count
USUAL_SHARE = 0.05  # least share of the probes with the most common token count


@dataclass(frozen=True)
class Frame:
    """The text around a secret, as a tokenizer encodes it.

    Attributes:
        domain: key of `FRAMES`.
        before, after: token ids of the text before and after the secret.
        secret_tokens: number of tokens of every secret.
    """

    domain: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    secret_tokens: int


@dataclass(frozen=True)
class Secret:
    """An invented secret.

    Attributes:
        draw: number from which the secret is derived.
        text: the secret without its frame.
        ids: (n,) uint32, token ids of the frame with the secret.
    """

    draw: int
    text: str
    ids: NDArray[np.uint32]


def domain_of(path: Path) -> str:
    """ "code" if more than half of the documents of a split are in a programming language, else "text"."""
    code = total = 0
    with opened(path) as file:
        for group in range(file.num_row_groups):
            languages = file.read_row_group(group, columns=["language"]).column(0).to_pylist()
            code, total = code + sum(language != "text" for language in languages), total + len(languages)
    return "code" if 2 * code > total else "text"


def frame_of(tokenizer: TextTokenizer, domain: str) -> Frame:
    """The frame, with the most common token count of secrets in it.

    Raises:
        UserError: when no token count has a share of `USUAL_SHARE`, for example because the tokenizer does not keep
            secrets readable.
    """
    before, after = (tuple(tokenizer.encode(text).tolist()) for text in FRAMES[domain])
    whole = Frame(domain, before, after, 0)
    encoded = (_encoded(tokenizer, whole, draw) for draw in range(PROBES))
    counts = Counter(len(ids) - len(before) - len(after) for ids in encoded if ids is not None)
    usual = max(counts, key=lambda count: (counts[count], count), default=0)
    if counts[usual] < USUAL_SHARE * PROBES:
        raise UserError(
            f"pack.canaries: of {PROBES} invented secrets the tokenizer keeps {counts.total()} readable and separate "
            f"from the text around them, and at most {counts[usual]} have the same number of tokens, so their ranks "
            "cannot be compared; set pack.canaries.repetitions to [], or choose another tokenizer.kind"
        )
    return Frame(domain, before, after, usual)


def canary_secrets(tokenizer: TextTokenizer, frame: Frame, *, first: int = 0) -> Iterator[Secret]:
    """Endless iterator over the secrets with the frame's token count, starting at draw `first`."""
    length = len(frame.before) + frame.secret_tokens + len(frame.after)
    draw = first
    while True:
        ids = _encoded(tokenizer, frame, draw)
        if ids is not None and len(ids) == length:
            yield Secret(draw, secret_text(draw), ids)
        draw += 1


def secret_text(draw: int) -> str:
    """The secret of a draw number: `SYMBOLS` symbols of `ALPHABET`; a pure function of the number."""
    number = int.from_bytes(blake2b(draw.to_bytes(8, "big"), key=KEY, digest_size=8).digest(), "big")
    return "".join(ALPHABET[(number >> (5 * place)) & 31] for place in range(SYMBOLS))


def _encoded(tokenizer: TextTokenizer, frame: Frame, draw: int) -> NDArray[np.uint32] | None:
    """Ids of the secret in its frame; None if a token crosses the secret's border, or decoding changes the secret."""
    secret = secret_text(draw)
    before, after = FRAMES[frame.domain]
    ids = tokenizer.encode(f"{before}{secret}{after}")
    inner = ids[len(frame.before) : len(ids) - len(frame.after)]
    apart = tuple(ids[: len(frame.before)]) == frame.before and tuple(ids[len(ids) - len(frame.after) :]) == frame.after
    return ids if apart and secret in tokenizer.decode(ids) and secret in tokenizer.decode(inner) else None


@dataclass(frozen=True)
class CanaryPlan:
    """Which secrets are inserted, and where.

    Attributes:
        inserted: (secret, number of copies) per canary.
        controls: secrets that are never inserted.
        copies: (document, index in `inserted`) per copy, ascending: the copy is inserted before this document.
    """

    frame: Frame
    inserted: tuple[tuple[Secret, int], ...]
    controls: tuple[Secret, ...]
    copies: tuple[tuple[int, int], ...]

    @property
    def texts(self) -> list[str]:
        return [secret.text for secret in (*(secret for secret, _ in self.inserted), *self.controls)]

    def listing(self, documents: Sequence[int]) -> dict[str, Any]:
        """Contents of data/packed/canaries.json: every secret, and the documents of the stream that hold it.

        Args:
            documents: numbers of the inserted documents in the stream, in the order of `copies`.
        """
        where: list[list[int]] = [[] for _ in self.inserted]
        for (_, number), document in zip(self.copies, documents, strict=True):
            where[number].append(document)
        before, after = FRAMES[self.frame.domain]
        last = (self.controls or tuple(secret for secret, _ in self.inserted))[-1]
        return {
            "schema": SCHEMA,
            "domain": self.frame.domain,
            "template": {"before": before, "after": after, "alphabet": ALPHABET, "symbols": SYMBOLS},
            "tokens": {
                "before": len(self.frame.before),
                "secret": self.frame.secret_tokens,
                "after": len(self.frame.after),
            },
            "next_draw": last.draw + 1,
            "inserted": [
                {**_listed(secret), "repetitions": repetitions, "documents": where[number]}
                for number, (secret, repetitions) in enumerate(self.inserted)
            ],
            "controls": [_listed(secret) for secret in self.controls],
        }


def _listed(secret: Secret) -> dict[str, Any]:
    return {"secret": secret.text, "draw": secret.draw, "ids": secret.ids.tolist()}


def plan_canaries(
    tokenizer: TextTokenizer, settings: Canaries, *, domain: str, documents: int, seq_len: int
) -> CanaryPlan:
    """Draw the canaries, and their positions among `documents` documents. A pure function of the arguments.

    Raises:
        UserError: see `frame_of`; when a canary is longer than a row.
    """
    frame = frame_of(tokenizer, domain)
    length = len(frame.before) + frame.secret_tokens + len(frame.after) + 1
    if length > seq_len:
        raise UserError(
            f"pack.canaries: a canary has {length} tokens, but pack.seq_len is {seq_len}; raise pack.seq_len, or set "
            "pack.canaries.repetitions to []"
        )
    repetitions = [count for count in settings.repetitions for _ in range(settings.each)]
    drawn = list(islice(canary_secrets(tokenizer, frame), len(repetitions) + settings.controls))
    copies = sorted(
        (_place(number, copy, documents), number) for number, count in enumerate(repetitions) for copy in range(count)
    )
    inserted = tuple(zip(drawn, repetitions, strict=False))
    return CanaryPlan(frame, inserted, tuple(drawn[len(repetitions) :]), tuple(copies))


def _place(number: int, copy: int, documents: int) -> int:
    digest = blake2b(number.to_bytes(8, "big") + copy.to_bytes(8, "big"), key=KEY + b"/place", digest_size=8).digest()
    return int.from_bytes(digest, "big") % (documents + 1)


def with_canaries(examples: Iterable[Example], plan: CanaryPlan) -> Iterator[Example]:
    """Yield the examples, with each copy of a canary before its document; copies after the last example come last."""
    copies = iter([*plan.copies, None])
    pending = next(copies)
    for number, example in enumerate(examples):
        while pending and pending[0] <= number:
            yield Example(plan.inserted[pending[1]][0].ids, canary=True)
            pending = next(copies)
        yield example
    while pending:
        yield Example(plan.inserted[pending[1]][0].ids, canary=True)
        pending = next(copies)


def without_secrets(documents: Iterable[Document], plan: CanaryPlan) -> Iterator[Document]:
    """Yield the documents unchanged, and refuse one that holds a canary: its number of copies would be wrong.

    Raises:
        UserError: names the first document that holds one.
    """
    from ahocorasick_rs import AhoCorasick

    texts = plan.texts
    search = AhoCorasick(texts)
    for document in documents:
        if search.find_matches_as_indexes(document.content):
            raise UserError(
                f"train: the document {document.path or document.id} of {document.source} holds a secret that "
                "pack.canaries invents; remove it from the corpus, or set pack.canaries.repetitions to []"
            )
        yield document
