"""Whether a tokenizer is lossless: decode(encode(text)) == text, code point by code point.

Used by: tokenizer, which lists the documents that lose text, and evaluate, which reports bits per byte only if nothing
is lost. The list names documents and offsets, never the text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import tee
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from codex_ml.tokens.confined_tokenizer import naming_document

if TYPE_CHECKING:
    from codex_ml.tokens.text_tokenizer import TextTokenizer

NAMED = 20  # lossy documents listed per split; all are counted
DIGITS = 6


class NamedText(Protocol):
    """The fields of `codex_ml.documents.document.Document` that are read here."""

    @property
    def id(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def content(self) -> str: ...


@dataclass(frozen=True)
class Loss:
    """A document that decodes to a different text.

    Attributes:
        id, source, path: of the document.
        character: offset, in characters, of the first difference.
        characters: length of the document.
        lost: number of its characters that the decoded text does not hold, regardless of order.
    """

    split: str
    id: str
    source: str
    path: str
    character: int
    characters: int
    lost: int


@dataclass
class RoundTrip:
    """Counts over the documents of one split so far.

    Attributes:
        documents, characters: numbers of all documents and of all their characters.
        lossy: number of documents that decode to a different text.
        lost: number of characters that are lost in them.
        named: the first `NAMED` lossy documents.
    """

    split: str
    documents: int = 0
    lossy: int = 0
    characters: int = 0
    lost: int = 0
    named: list[Loss] = field(default_factory=list)

    def watch(self, tokenizer: TextTokenizer, documents: Iterable[NamedText]) -> Iterator[NDArray[np.uint32]]:
        """Yield the ids of each document, in order: (n,) uint32. Counts each document when it is yielded.

        Holds one batch of documents in memory.
        """
        ahead, behind = tee(documents)
        ids_of = tokenizer.encode_documents(document.content for document in ahead)
        for document in behind:
            with naming_document(self.split, document):
                ids = next(ids_of)
                decoded = tokenizer.decode(ids)
            self._add(document, decoded)
            yield ids

    def _add(self, document: NamedText, decoded: str) -> None:
        text = document.content
        self.documents += 1
        self.characters += len(text)
        if decoded == text:
            return
        lost = (Counter(text) - Counter(decoded)).total()
        self.lossy += 1
        self.lost += lost
        if len(self.named) < NAMED:
            place = (document.id, document.source, document.path)
            shorter = min(len(text), len(decoded))
            first = next((at for at, (a, b) in enumerate(zip(text, decoded, strict=False)) if a != b), shorter)
            self.named.append(Loss(self.split, *place, first, len(text), lost))


def lossless_share(trips: Iterable[RoundTrip]) -> float:
    """Share of the documents that decode to their own text; 1 only if all do."""
    documents, lossy = (sum(numbers) for numbers in zip(*((t.documents, t.lossy) for t in trips), strict=True))
    return share_of(documents - lossy, documents)


def share_of(part: int, whole: int) -> float:
    """part / whole, rounded to `DIGITS` digits. Less than 1 if part < whole, also after rounding; 1 if whole is 0."""
    rounded = round(part / whole, DIGITS) if whole else 1.0
    return rounded if part == whole else min(rounded, 1 - 10**-DIGITS)


def numbers(trips: Iterable[RoundTrip]) -> dict[str, Any]:
    """For details.json: `lossless`, and in `lost` the lossy documents per split and the share of lost characters."""
    trips = list(trips)
    characters = sum(trip.characters for trip in trips)
    lost = round(sum(trip.lost for trip in trips) / max(characters, 1), DIGITS)
    return {"lossless": lossless_share(trips), "lost": {**{t.split: t.lossy for t in trips}, "characters": lost}}


def rows(trips: Iterable[RoundTrip]) -> list[dict[str, Any]]:
    """For lost.json: the first `NAMED` lossy documents of each split."""
    return [asdict(loss) for trip in trips for loss in trip.named]


def loss_summary(trips: Iterable[RoundTrip]) -> str:
    """How much text is lost, and where the first losses are, in one line; "" if nothing is lost."""
    trips = list(trips)
    lossy = [trip for trip in trips if trip.lossy]
    if not lossy:
        return ""
    counts = ", ".join(f"{trip.lossy:,} of {trip.documents:,} of {trip.split}" for trip in lossy)
    share = 100 * sum(trip.lost for trip in trips) / max(sum(trip.characters for trip in trips), 1)
    places = "; ".join(
        f"{loss.split} {loss.id} ({' '.join(filter(None, (loss.source, loss.path)))}) from character {loss.character}"
        for trip in lossy
        for loss in trip.named[:2]
    )
    return f"{counts} documents decode to a different text, {share:.2f} % of the characters are lost: {places}"
