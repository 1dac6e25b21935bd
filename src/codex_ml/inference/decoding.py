"""Compute the logits of the next tokens of a batch of texts, one token at a time, with the keys and values cached.

Texts of unequal length are padded on the left, so that their last tokens stand in one column. A mask hides the padding
and each text has its own positions. Where a model does not take positions, and in the decoder of an encoder-decoder,
only texts of equal length share a batch, so that nothing is padded; `batch_key` says which texts may.

Used by: generation, serve.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from codex_ml.modeling.encoder_decoder import is_encoder_decoder

if TYPE_CHECKING:
    from torch import Tensor

FILL = 0  # id of the padding; the mask hides it


def _takes(model: Any, name: str) -> bool:
    return name in inspect.signature(model.forward).parameters


def _cache_name(model: Any) -> str | None:
    """Return the parameter for cached keys and values, which transformers renamed; None for a model without a cache."""
    return next((name for name in ("cache", "past_key_values") if _takes(model, name)), None)


def _can_be_padded(model: Any) -> bool:
    return _takes(model, "position_ids") and _cache_name(model) is not None


def batch_key(model: Any, ids: Sequence[int], read: int) -> int:
    """Return a number that is equal for all texts that may share a batch.

    Args:
        ids, read: of one text, as in `start_decoder`.
    """
    if is_encoder_decoder(model):
        return len(ids) - read
    return 0 if _can_be_padded(model) else len(ids)


def start_decoder(model: Any, texts: Sequence[Sequence[int]], read: Sequence[int]) -> CausalDecoder | PairDecoder:
    """Return the decoder of a batch of texts with one `batch_key`.

    Args:
        texts: the token ids of each text so far, at least one per text.
        read: number of first tokens of each text that the encoder reads; all of them for a decoder-only model. The
            other tokens are the first that the decoder wrote.
    """
    return PairDecoder(model, texts, read) if is_encoder_decoder(model) else CausalDecoder(model, texts)


def _options(model: Any) -> dict[str, Any]:
    last = {"logits_to_keep": 1} if _takes(model, "logits_to_keep") else {}
    return {"use_cache": _cache_name(model) is not None, **last}


class CausalDecoder:
    """A decoder-only model on a batch of texts.

    Attributes:
        logits: (texts, vocab) float32, of the next token of each text.
    """

    def __init__(self, model: Any, texts: Sequence[Sequence[int]]) -> None:
        import torch

        width = max(map(len, texts))
        ids = torch.tensor([[FILL] * (width - len(text)) + list(map(int, text)) for text in texts]).to(model.device)
        self.model, self.options, self.ids = model, _options(model), ids
        self.mask: Tensor | None = None
        if _can_be_padded(model):
            lengths = torch.tensor([len(text) for text in texts]).to(model.device)
            self.mask = (torch.arange(width, device=model.device) >= width - lengths[:, None]).long()
        self.cache: Any = None
        if name := _cache_name(model):
            from transformers import DynamicCache

            self.cache = DynamicCache(config=model.config)
            self.options[name] = self.cache
        self._forward(ids)

    def _forward(self, ids: Tensor) -> None:
        given: dict[str, Any] = {"input_ids": ids}
        if self.mask is not None:
            given["attention_mask"] = self.mask
            given["position_ids"] = (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        self.logits = self.model(**given, **self.options).logits[:, -1].float()

    def add(self, tokens: Tensor) -> None:
        """Add one token to each text, (texts,) int64, and compute the logits of the next one."""
        import torch

        if self.mask is not None:
            self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        new = tokens[:, None]
        if self.cache is None:  # the model reads the whole texts again
            new = self.ids = torch.cat([self.ids, new], dim=1)
        self._forward(new)

    def keep(self, texts: Tensor) -> None:
        """Keep only these texts: (kept,) int64, their places in the batch."""
        self.ids, self.mask = self.ids[texts], None if self.mask is None else self.mask[texts]
        if self.cache is not None:
            self.cache.reorder_cache(texts)

    @property
    def joinable(self) -> bool:
        """Whether other texts may join this batch: it is padded, and each layer caches the keys of all tokens."""
        from transformers.cache_utils import DynamicLayer

        return self.mask is not None and all(type(layer) is DynamicLayer for layer in self.cache.layers)

    def join(self, other: CausalDecoder) -> None:
        """Add the texts of another batch of the same model after those of this one. Both must be `joinable`.

        The shorter batch gets padding on its left: keys and values of 0, which the mask hides. Keys carry their
        positions already, so nothing is computed again, and `logits` are those of both batches.
        """
        import torch

        assert self.mask is not None
        assert other.mask is not None
        width = max(self.mask.shape[1], other.mask.shape[1])
        longest = max(self.ids.shape[1], other.ids.shape[1])
        self.ids = torch.cat([_pad_left(self.ids, longest, 1), _pad_left(other.ids, longest, 1)])
        for ours, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            ours.keys = torch.cat([_pad_left(ours.keys, width, -2), _pad_left(theirs.keys, width, -2)])
            ours.values = torch.cat([_pad_left(ours.values, width, -2), _pad_left(theirs.values, width, -2)])
        self.mask = torch.cat([_pad_left(self.mask, width, 1), _pad_left(other.mask, width, 1)])
        self.logits = torch.cat([self.logits, other.logits])

    def trim(self) -> None:
        """Remove the columns that are padding in all texts of a `joinable` batch, once its longest text has left."""
        assert self.mask is not None
        blank = int(self.mask.argmax(-1).min())
        if blank:
            self.mask = self.mask[:, blank:]
            for layer in self.cache.layers:
                layer.keys, layer.values = layer.keys[:, :, blank:], layer.values[:, :, blank:]


def _pad_left(values: Tensor, width: int, dimension: int) -> Tensor:
    """Add zeros before the first entries of a dimension, counted from the end if negative, until it has `width`."""
    import torch

    after = values.dim() - 1 - dimension if dimension >= 0 else -1 - dimension  # dimensions after this one
    return torch.nn.functional.pad(values, [0, 0] * after + [width - values.shape[dimension], 0])


class PairDecoder:
    """An encoder-decoder on a batch of texts: the encoder has read the first tokens of each.

    The encoder's input is padded on the right: absolute positions count from its first token.

    Attributes:
        logits: (texts, vocab) float32, of the next token of each text.
    """

    def __init__(self, model: Any, texts: Sequence[Sequence[int]], read: Sequence[int]) -> None:
        import torch
        from transformers import DynamicCache, EncoderDecoderCache

        width = max(read)
        first = [[*map(int, text[:n]), *[FILL] * (width - n)] for text, n in zip(texts, read, strict=True)]
        said = [list(map(int, text[n:])) for text, n in zip(texts, read, strict=True)]
        self.model = model
        self.cache: Any = EncoderDecoderCache(DynamicCache(), DynamicCache())
        counts = torch.tensor(read).to(model.device)
        self.mask = (torch.arange(width, device=model.device) < counts[:, None]).long()
        encoder = model.get_encoder()
        self.encoded = encoder(input_ids=torch.tensor(first).to(model.device), attention_mask=self.mask)[0]
        start = model.config.decoder_start_token_id
        self._forward(torch.tensor([[start, *row] for row in said]).to(model.device))

    def _forward(self, ids: Tensor) -> None:
        output = self.model(
            encoder_outputs=(self.encoded,),
            attention_mask=self.mask,
            decoder_input_ids=ids,
            use_cache=True,
            **{str(_cache_name(self.model)): self.cache},
        )
        self.logits = output.logits[:, -1].float()

    def add(self, tokens: Tensor) -> None:
        """Add one token to each text, (texts,) int64, and compute the logits of the next one."""
        self._forward(tokens[:, None])

    def keep(self, texts: Tensor) -> None:
        """Keep only these texts: (kept,) int64, their places in the batch."""
        self.mask, self.encoded = self.mask[texts], self.encoded[texts]
        self.cache.reorder_cache(texts)
