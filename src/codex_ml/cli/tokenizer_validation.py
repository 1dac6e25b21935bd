"""Whether a tokenizer's folder is whole: its files agree, its ids are in range, and no text of a corpus is lost.

Used by: `codex-ml tokenizer validate`, `codex-ml tokenizer special`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from codex_ml.core.contract import Contract
from codex_ml.core.errors import UserError
from codex_ml.core.io import read_json
from codex_ml.tokenizer.sentencepiece_model import prove_equal
from codex_ml.tokens.lossless import NamedText, RoundTrip, loss_summary
from codex_ml.tokens.text_tokenizer import TextTokenizer

PROBED = 200  # texts that tokenizer.model encodes too
ROLES = ("eos", "bos", "pad")


class SpecialToken(Contract):
    """A token that is no text. `roles`: end, begin, pad, unknown, added (in the chat template or by the user)."""

    id: int
    token: str
    roles: list[str]


class TokenizerCheck(Contract):
    """A check of `codex-ml tokenizer validate`.

    Attributes:
        passed: None where there is nothing to check.
        detail: what was checked, or what is wrong.
    """

    name: str
    passed: bool | None
    detail: str


class SpecialTokens(Contract):
    """What `codex-ml tokenizer special --json` prints."""

    special: list[SpecialToken]


class TokenizerValidation(Contract):
    """What `codex-ml tokenizer validate --json` prints; `passed` says whether no check failed."""

    checks: list[TokenizerCheck]
    passed: bool


def special_tokens(tokenizer: TextTokenizer) -> list[SpecialToken]:
    """The special tokens by id, with their roles."""
    held = {"end": tokenizer.end, "begin": tokenizer.begin, "pad": tokenizer.pad, "unknown": tokenizer.unk}
    names = {number: text for text, number in tokenizer.special.items()}
    names |= {
        number: tokenizer.backend.id_to_token(number) or ""
        for number in held.values()
        if number is not None and number not in names
    }
    return [
        SpecialToken(id=number, token=names[number], roles=[r for r, own in held.items() if own == number] or ["added"])
        for number in sorted(names)
    ]


def validate_tokenizer(folder: Path, tokenizer: TextTokenizer, documents: Iterable[NamedText]) -> list[TokenizerCheck]:
    """Check a loaded tokenizer; memory does not grow with the corpus.

    Args:
        folder: of the tokenizer, or of a model that holds one.
        documents: of the corpus.

    Raises:
        UserError: when there is no document.
    """
    trip, largest, probe = RoundTrip("the corpus"), -1, list[str]()

    def watched() -> Iterable[NamedText]:
        for document in documents:
            if len(probe) < PROBED:
                probe.append(document.content)
            yield document

    for ids in trip.watch(tokenizer, watched()):
        largest = max(largest, int(ids.max())) if len(ids) else largest
    if not trip.documents:
        raise UserError("the corpus has no document to validate the tokenizer on")
    rows, agreed = _model(folder, tokenizer)
    limit = tokenizer.vocab_size if rows is None else min(rows, tokenizer.vocab_size)
    return [
        TokenizerCheck(
            name="lossless",
            passed=not trip.lossy,
            detail=loss_summary([trip]) or f"{trip.documents} documents decode to their own text",
        ),
        TokenizerCheck(
            name="ids in range", passed=largest < limit, detail=f"the largest id is {largest}, of {limit} that exist"
        ),
        _same_as_one_by_one(tokenizer, probe),
        agreed,
        _sentencepiece(folder, tokenizer, probe),
    ]


def _same_as_one_by_one(tokenizer: TextTokenizer, probe: list[str]) -> TokenizerCheck:
    """Whether bulk encoding gives the ids of the tokenizer itself."""
    pairs = zip(tokenizer.encode_documents(iter(probe)), map(tokenizer.encode, probe), strict=True)
    differ = sum(not np.array_equal(bulk, single) for bulk, single in pairs)
    detail = f"{differ} of {len(probe)} texts get other ids in bulk" if differ else f"{len(probe)} texts get equal ids"
    return TokenizerCheck(name="bulk encoding", passed=not differ, detail=detail)


def _model(folder: Path, tokenizer: TextTokenizer) -> tuple[int | None, TokenizerCheck]:
    """The embedding rows of the model beside the tokenizer, and whether its config.json has the same special ids."""
    name, file = "config.json", folder / "config.json"
    if not file.is_file():
        return None, TokenizerCheck(name=name, passed=None, detail="no model in the folder")
    config = read_json(file)
    config = config if isinstance(config, dict) else {}
    rows = config.get("vocab_size")
    if not isinstance(rows, int) or rows < tokenizer.vocab_size:
        detail = f"vocab_size is {rows}, but the tokenizer has {tokenizer.vocab_size} ids"
        return rows if isinstance(rows, int) else None, TokenizerCheck(name=name, passed=False, detail=detail)
    own = {"eos": tokenizer.end, "bos": tokenizer.begin, "pad": tokenizer.pad}
    wrong = []
    for role in ROLES:
        found = config.get(f"{role}_token_id")
        if own[role] not in (found if isinstance(found, list) else [found]):
            wrong.append(f"{role}_token_id is {found}, but the tokenizer has {own[role]}")
    detail = "; ".join(wrong) or f"the same special ids; {rows} embedding rows"
    return rows, TokenizerCheck(name=name, passed=not wrong, detail=detail)


def _sentencepiece(folder: Path, tokenizer: TextTokenizer, probe: list[str]) -> TokenizerCheck:
    name, file = "tokenizer.model", folder / "tokenizer.model"
    if not file.is_file():
        return TokenizerCheck(name=name, passed=None, detail="no SentencePiece file in the folder")
    try:
        prove_equal(tokenizer.backend, file.read_bytes(), probe)
    except Exception:  # a damaged file raises what the library likes; a message may quote a document
        detail = "it does not give the ids of tokenizer.json"
        return TokenizerCheck(name=name, passed=False, detail=detail)
    return TokenizerCheck(name=name, passed=True, detail=f"gives the ids of tokenizer.json for {len(probe)} texts")
