"""Make the tokenizer and the embedding of a model agree before the first step."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger("codex_ml")


def embedding_rows(model: PreTrainedModel) -> int:
    """Return the number of rows of the input embedding."""
    weight: Any = model.get_input_embeddings().weight
    return int(weight.shape[0])


def fit_vocabulary(model: PreTrainedModel, vocab_size: int, *, resize: bool = False, seed: int = 0) -> None:
    """Check that every id has an embedding row, or resize the embedding to exactly `vocab_size` rows.

    More rows than ids are accepted: many models pad their vocabulary to a round number.

    Args:
        vocab_size: ids of the tokenizer, added and special ones included (`len(tokenizer)`).
        resize: whether the tokenizer is not the model's own. Then rows are cut off or added; transformers draws the
            added rows as the architecture defines. Equal seeds give equal rows.

    Raises:
        UserError: when an id would have no row and `resize` is False.
    """
    import torch

    rows = embedding_rows(model)
    if resize and rows != vocab_size:
        torch.manual_seed(seed)
        model.resize_token_embeddings(vocab_size, mean_resizing=False)
        log.info("model: embedding of %d rows resized to the %d tokens of the tokenizer", rows, vocab_size)
    elif vocab_size > rows:
        raise UserError(
            f"the tokenizer has {vocab_size} tokens, but the model's embedding has {rows} rows; use the model's own "
            "tokenizer (tokenizer.kind: local) or one of at most as many tokens"
        )


def add_rows(model: PreTrainedModel, vocab_size: int, pieces: Sequence[Sequence[int]], *, seed: int) -> None:
    """Start the rows of pieces that tokenizer.add_pieces added: each is the mean of the rows of its old pieces.

    It is the start of Fast Vocabulary Transfer (Gee et al. 2022, arXiv:2402.09977). It applies to the embedding, and to
    the rows and the bias of an output head of its own.

    Args:
        model: has a row for every old id, see `fit_vocabulary`; gets rows for the new ones, if it has no spare rows.
        vocab_size: ids of the tokenizer, the new ones included. The pieces have the last ids.
        pieces: old ids per new piece; nothing happens without pieces.
        seed: of the draws of transformers, which the means replace.
    """
    import torch

    if not pieces:
        return
    if vocab_size > embedding_rows(model):
        torch.manual_seed(seed)
        model.resize_token_embeddings(vocab_size, mean_resizing=False)
    head = model.get_output_embeddings()
    found: Any = (model.get_input_embeddings().weight, getattr(head, "weight", None), getattr(head, "bias", None))
    with torch.no_grad():
        for tensor in {id(tensor): tensor for tensor in found if tensor is not None}.values():
            for number, old in enumerate(pieces, vocab_size - len(pieces)):
                tensor[number] = tensor[list(old)].mean(0)
    log.info("model: %d added pieces start with the mean of the rows of their old pieces", len(pieces))
