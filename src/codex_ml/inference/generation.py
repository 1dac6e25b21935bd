"""Generate text with a model, the same text for the same seed, whatever the batch and the order of the prompts.

Texts are generated in batches of prompts of similar length. A text that has ended leaves its batch. The logits of a
text depend on its batch in the last bits only (the order of sums), which matters only where two tokens are equally
probable to the last bit.

>>> prompts = [Prompt(ids=(0, 17, 4), key="doc", sample=n) for n in range(3)]  # doctest: +SKIP
>>> [text.text for text in generate(model, tokenizer, prompts, Sampling(64), seed=1, batch_size=8)]  # doctest: +SKIP

Used by: evaluate, safety_audit, text_stream.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import UserError
from codex_ml.inference.decoding import batch_key, start_decoder
from codex_ml.inference.growing_text import Ending, Finished, GrowingText
from codex_ml.inference.sampling import Sampling, draw_keys, next_tokens
from codex_ml.modeling.encoder_decoder import is_encoder_decoder
from codex_ml.modeling.positions import reach

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from codex_ml.tokens.text_tokenizer import TextTokenizer

BUFFER = 16  # batches that are sorted by length at once
REQUEST_KEY = "generate"  # of the prompt of a person or a client: its text depends on the seed and its number only


@dataclass(frozen=True)
class Prompt:
    """What a text continues.

    Attributes:
        ids: at least one token id, the begin token included, as the model saw them in training.
        key: name of the prompt; it and the number of the sample decide the random keys.
        sample: number of the sample, from 0.
        ends: further ids that end the text, such as the end of a turn of a chat; END always does.
        read: number of ids that the encoder of an encoder-decoder reads, the decoder begins with the others; None: all.
    """

    ids: Sequence[int] | NDArray[np.integer[Any]]
    key: str
    sample: int = 0
    ends: tuple[int, ...] = ()
    read: int | None = None

    def __post_init__(self) -> None:
        if not len(self.ids) or (self.read is not None and not 0 < self.read <= len(self.ids)):
            raise ValueError(f"the prompt {self.key!r} has {len(self.ids)} ids, of which the encoder reads {self.read}")


@dataclass(frozen=True)
class Generation:
    """A text that a model wrote.

    Attributes:
        text: without the prompt and without what ended it.
        tokens: all new ids except the END; they include those of the stop string.
        finished: "end" (END or the end of a turn), "stop" (a stop string) or "length" (`max_tokens`).
        cut_prompt: whether the prompt lost tokens on its left, because the model cannot see as many at once.
    """

    text: str
    tokens: tuple[int, ...]
    finished: Finished
    cut_prompt: bool


def generate(
    model: Any,
    tokenizer: TextTokenizer,
    prompts: Iterable[Prompt],
    sampling: Sampling,
    *,
    seed: int,
    batch_size: int,
) -> Iterator[Generation]:
    """Yield one text per prompt, in order. Memory does not grow with the number of prompts.

    A prompt that leaves no room for `max_tokens` new tokens loses tokens on its left; a begin token stays.

    Raises:
        UserError: when the model cannot see `max_tokens` tokens and a prompt at once.
        CheckFailed: when the model's logits are not keys.
    """
    room = prompt_room(model, sampling)
    remaining = iter(prompts)
    while buffer := [fit_prompt(model, tokenizer, prompt, room) for prompt in islice(remaining, BUFFER * batch_size)]:
        order = sorted(range(len(buffer)), key=lambda at: (buffer[at].batch_key, len(buffer[at].ids)))
        done: dict[int, Generation] = {}
        for _, group in groupby(order, key=lambda at: buffer[at].batch_key):
            while batch := list(islice(group, batch_size)):
                texts = _generate_batch(model, tokenizer, [buffer[at] for at in batch], sampling, seed)
                done |= zip(batch, texts, strict=True)
        yield from (done[at] for at in range(len(buffer)))


def prompt_room(model: Any, sampling: Sampling) -> int | None:
    """Return the most tokens of a prompt; None without a limit. The last new token is never read: it needs no position.

    The encoder and the decoder of an encoder-decoder have positions of their own.

    Raises:
        UserError: when the model cannot see `max_tokens` tokens.
    """
    positions = min((limit for limit in (reach(model.config), sampling.context) if limit), default=None)
    if positions is None:
        return None
    if sampling.max_tokens > positions:
        raise UserError(
            f"max_tokens {sampling.max_tokens} exceeds the {positions} tokens that the model sees at once; lower it"
        )
    return positions if is_encoder_decoder(model) else positions - sampling.max_tokens + 1


@dataclass(frozen=True)
class FittedPrompt:
    """A prompt that the model can see at once; only those with equal `batch_key` may share a batch."""

    prompt: Prompt
    ids: list[int]
    read: int
    batch_key: int

    @property
    def cut(self) -> bool:
        return len(self.ids) < len(self.prompt.ids)


def fit_prompt(model: Any, tokenizer: TextTokenizer, prompt: Prompt, room: int | None) -> FittedPrompt:
    """Return a prompt without the tokens on its left for which there is no room; a begin token stays."""
    ids = [int(number) for number in prompt.ids]
    said = 0 if prompt.read is None else len(ids) - prompt.read
    if room is not None and (excess := len(ids) - room) > 0:
        begin = ids[:1] if ids[0] == tokenizer.begin and room > 1 else []
        ids = begin + ids[excess + len(begin) :]
    read = max(len(ids) - said, 1)
    return FittedPrompt(prompt, ids, read, batch_key(model, ids, read))


def start_text(fitted: FittedPrompt, tokenizer: TextTokenizer, sampling: Sampling) -> GrowingText:
    """The text that a model will write after a prompt."""
    ending = Ending(frozenset({tokenizer.end, *fitted.prompt.ends}), tuple(sampling.stop), sampling.max_tokens)
    return GrowingText(tokenizer, fitted.ids, ending)


def ended_text(fitted: FittedPrompt, text: GrowingText) -> Generation | None:
    """The text after a prompt if it has ended."""
    if text.finished is None:
        return None
    return Generation(text.text, tuple(text.tokens), text.finished, fitted.cut)


def _generate_batch(
    model: Any, tokenizer: TextTokenizer, batch: Sequence[FittedPrompt], sampling: Sampling, seed: int
) -> list[Generation]:
    import numpy as np
    import torch

    most = sampling.max_tokens
    texts = [start_text(fitted, tokenizer, sampling) for fitted in batch]
    drawn = [draw_keys(seed, fitted.prompt.key, fitted.prompt.sample, most) for fitted in batch]
    done: dict[int, Generation] = {}
    alive = list(range(len(batch)))  # places in `batch` of the rows of the decoder
    with torch.inference_mode():
        keys = torch.from_numpy(np.stack(drawn)).to(model.device)
        decoder = start_decoder(model, [fitted.ids for fitted in batch], [fitted.read for fitted in batch])
        seen = seen_tokens(model, batch, decoder.logits) if sampling.repetition_penalty != 1 else None
        for step in range(most):
            chosen = next_tokens(decoder.logits, sampling, keys[:, step], seen)
            for row, token in enumerate(chosen.tolist()):
                place = alive[row]
                texts[place].add(token)
                if (ended := ended_text(batch[place], texts[place])) is not None:
                    done[place] = ended
            rows = [row for row, place in enumerate(alive) if place not in done]
            if not rows:
                break
            if len(rows) < len(alive):
                kept = torch.tensor(rows).to(model.device)
                decoder.keep(kept)
                chosen, keys, seen = chosen[kept], keys[kept], None if seen is None else seen[kept]
                alive = [alive[row] for row in rows]
            if seen is not None:
                seen.scatter_(1, chosen[:, None], True)
            decoder.add(chosen)
    return [done[place] for place in range(len(batch))]


def seen_tokens(model: Any, batch: Sequence[FittedPrompt], logits: Any) -> Any:
    """Return (texts, vocab) bool, the tokens of each text; in an encoder-decoder those that the decoder reads."""
    import torch

    pair = is_encoder_decoder(model)
    seen = torch.zeros(logits.shape, dtype=torch.bool)
    for row, fitted in enumerate(batch):
        ids = [model.config.decoder_start_token_id, *fitted.ids[fitted.read :]] if pair else fitted.ids
        seen[row, ids] = True
    return seen.to(logits.device)
