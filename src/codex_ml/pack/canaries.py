"""Plant canaries: decide whether, draw them, place them between the documents of the train stream, and count them.

`codex_ml.modeling.canary_secrets` says what a canary is. Canaries are inserted after deduplication and redaction, which
would remove them. Used by: pack.pack_splits, stages/pack.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.yaml import read_text
from codex_ml.documents.document import Document, opened
from codex_ml.modeling.canary_files import Canary, CanaryFrame, CanaryList
from codex_ml.modeling.canary_secrets import KEY, canary_secrets, count_in_stream, random_frame, unlikely_frame
from codex_ml.pack.config import Canaries
from codex_ml.pack.fitting import Example

if TYPE_CHECKING:
    from codex_ml.tokens.text_tokenizer import TextTokenizer


def whether_to_plant(settings: Canaries, train: Path, sample_lock: Path) -> tuple[bool, str]:
    """Decide whether canaries are planted, and say why. With `plant: sample`, one document of another source suffices
    to plant none: the data of a user gets no invented secrets unless the user asks for them.

    Args:
        train: Parquet file of the train documents.
        sample_lock: file that pins the sample corpus, one `name==version ...` per line, as the sources are named.
    """
    if settings.plant != "sample":
        return settings.plant == "always", f"pack.canaries.plant is {settings.plant}"
    pinned = {line.split()[0] for line in read_text(sample_lock).splitlines() if line.strip()}
    other = sorted({source for source in _column(train, "source") if source not in pinned})
    if other:
        return False, f"pack.canaries.plant is sample, and {other[0]} is not of {sample_lock}"
    return True, "pack.canaries.plant is sample, and all train documents are of the sample"


def domain_of(path: Path) -> str:
    """ "code" if more than half of the documents of a split are in a programming language, else "text"."""
    code = total = 0
    for language in _column(path, "language"):
        code, total = code + (language != "text"), total + 1
    return "code" if 2 * code > total else "text"


def _column(path: Path, name: str) -> Iterator[Any]:
    with opened(path) as file:
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group, columns=[name]).column(0).to_pylist()


@dataclass(frozen=True)
class CanaryPlan:
    """Which secrets are inserted, and where.

    Attributes:
        inserted: (secret, number of copies) per canary.
        controls: secrets that are never inserted.
        copies: (document, index in `inserted`) per copy, ascending: the copy is inserted before this document.
    """

    frame: CanaryFrame
    inserted: tuple[tuple[Canary, int], ...]
    controls: tuple[Canary, ...]
    copies: tuple[tuple[int, int], ...]

    @property
    def texts(self) -> list[str]:
        return [secret.text for secret in (*(secret for secret, _ in self.inserted), *self.controls)]

    def listing(self, documents: Sequence[int]) -> CanaryList:
        """Contents of data/packed/canaries.json: every secret, and the documents of the stream that hold it.

        Args:
            documents: numbers of the inserted documents in the stream, in the order of `copies`.
        """
        where: list[list[int]] = [[] for _ in self.inserted]
        for (_, number), document in zip(self.copies, documents, strict=True):
            where[number].append(document)
        return CanaryList(
            frame=self.frame,
            next_draw=self.controls[-1].draw + 1,
            repetitions=[count for _, count in self.inserted],
            planted=[
                secret.model_copy(update={"documents": where[number]})
                for number, (secret, _) in enumerate(self.inserted)
            ],
            controls=list(self.controls),
        )


def plan_canaries(
    tokenizer: TextTokenizer, settings: Canaries, frame: CanaryFrame, *, documents: int, seq_len: int
) -> CanaryPlan:
    """Draw the canaries, and their positions among `documents` documents. A pure function of the arguments.

    Raises:
        UserError: when a canary is longer than a row.
    """
    length = frame.most_tokens + 1  # with the END
    if length > seq_len:
        raise UserError(
            f"pack.canaries: a canary has up to {length} tokens, but pack.seq_len is {seq_len}; raise pack.seq_len, "
            "or set pack.canaries.plant to never"
        )
    repetitions = [count for count, each in zip(settings.repetitions, settings.each, strict=True) for _ in range(each)]
    drawn = list(islice(canary_secrets(tokenizer, frame), len(repetitions) + settings.controls))
    copies = sorted(
        (_place(number, copy, documents), number) for number, count in enumerate(repetitions) for copy in range(count)
    )
    inserted = tuple(zip(drawn, repetitions, strict=False))
    return CanaryPlan(frame, inserted, tuple(drawn[len(repetitions) :]), tuple(copies))


def frame_for(settings: Canaries, tokenizer: TextTokenizer, domain: str, texts: Iterable[str]) -> CanaryFrame:
    """The frame of the chosen design.

    Args:
        texts: what the tokenizer encodes of the train documents; only the design "unlikely" reads it.

    Raises:
        UserError: see `random_frame` and `unlikely_frame`.
    """
    if settings.design == "random":
        return random_frame(tokenizer, domain)
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for ids in tokenizer.encode_documents(texts):
        counts += np.bincount(ids, minlength=len(counts))
    return unlikely_frame(tokenizer, domain, counts)


def _place(number: int, copy: int, documents: int) -> int:
    digest = blake2b(number.to_bytes(8, "big") + copy.to_bytes(8, "big"), key=KEY + b"/place", digest_size=8).digest()
    return int.from_bytes(digest, "big") % (documents + 1)


def with_canaries(examples: Iterable[Example], plan: CanaryPlan) -> Iterator[Example]:
    """Yield the examples, with each copy of a canary before its document; copies after the last example come last."""
    copies = iter([*plan.copies, None])
    pending = next(copies)
    ids = [np.array(secret.ids, dtype=np.uint32) for secret, _ in plan.inserted]
    for number, example in enumerate(examples):
        while pending and pending[0] <= number:
            yield Example(ids[pending[1]], canary=True)
            pending = next(copies)
        yield example
    while pending:
        yield Example(ids[pending[1]], canary=True)
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
                "pack.canaries invents; remove it from the corpus, or set pack.canaries.plant to never"
            )
        yield document


def check_counts(tokens: NDArray[Any], found: CanaryList) -> None:
    """Check that the packed stream holds each canary as often as planned, and no control.

    Args:
        tokens: (n,) the train stream.

    Raises:
        CheckFailed: names the first canary with another count, by its draw number.
    """
    canaries = [*found.planted, *found.controls]
    expected = [*found.repetitions, *[0] * len(found.controls)]
    for canary, count, times in zip(canaries, count_in_stream(tokens, canaries), expected, strict=True):
        if count != times:
            raise CheckFailed(
                f"the train rows hold the canary of draw {canary.draw} {count} times; {times} were expected"
            )
