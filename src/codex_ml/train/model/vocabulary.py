"""Make tokenizer and embedding agree before the first step, not at the first id that has no row."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger("codex_ml")


def embedding_rows(model: PreTrainedModel) -> int:
    """Tokens that the model has an input vector for."""
    weight: Any = model.get_input_embeddings().weight
    return int(weight.shape[0])


def fit_vocabulary(model: PreTrainedModel, vocab_size: int, *, resize: bool = False, seed: int = 0) -> None:
    """Check that every id has an embedding row, or give the model exactly `vocab_size` rows.

    More rows than ids is how models pad their vocabulary to a round number; that is accepted.

    Args:
        vocab_size: ids of the tokenizer, added and special ones included (`len(tokenizer)`).
        resize: the tokenizer is not the model's own, so its ids mean something else: rows are cut off or added. Added
            ones are drawn as transformers draws them for the architecture, the same for the same seed.

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
