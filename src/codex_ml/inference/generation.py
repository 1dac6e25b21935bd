"""Generate text with a model, the same text for the same seed.

Used by: safety_audit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codex_ml.modeling.encoder_decoder import is_encoder_decoder

if TYPE_CHECKING:
    from torch import Tensor

    from codex_ml.tokens.text_tokenizer import TextTokenizer


def continued(model: Any, prefixes: Tensor, **sampling: Any) -> Tensor:
    """Return the prefixes, each with the model's continuation: (n, prefix + new) int64.

    An encoder-decoder continues as in the first half of a row: the encoder reads the first token, the decoder the
    others.

    Args:
        prefixes: (n, prefix) int64.
        sampling: arguments of the model's `generate`.
    """
    import torch

    read = prefixes
    if is_encoder_decoder(model):
        read, start = prefixes[:, :1], torch.full_like(prefixes[:, :1], model.config.decoder_start_token_id)
        sampling["decoder_input_ids"] = torch.cat([start, prefixes[:, 1:]], dim=1)
    output: Tensor = model.generate(read, attention_mask=torch.ones_like(read), **sampling)
    return torch.cat([read, output[:, 1:]], dim=1) if is_encoder_decoder(model) else output


def sample_texts(
    model: Any, tokenizer: TextTokenizer, *, count: int, tokens: int, batch_size: int = 32, seed: int
) -> list[str]:
    """Sample texts without a prompt, at temperature 1 from the whole distribution, each up to `tokens` tokens or END.

    Each sample begins as a document does: with the tokenizer's BOS, or with END if it has none.
    """
    import torch

    end, pad = tokenizer.end, tokenizer.pad
    torch.manual_seed(seed)
    texts: list[str] = []
    while len(texts) < count:
        size = min(batch_size, count - len(texts))
        start = torch.full((size, 1), tokenizer.begin, dtype=torch.int64, device=model.device)
        with torch.inference_mode():
            output = continued(
                model,
                start,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=tokens,
                eos_token_id=end,
                pad_token_id=pad,
            )
        for row in output[:, 1:].cpu().tolist():
            kept = row[: row.index(end)] if end in row else row
            texts.append(tokenizer.decode([token for token in kept if token != pad]))
    return texts
