"""The endpoint, streamed and not, and `codex-ml generate` write the same text for the same seed."""

from __future__ import annotations

import queue
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from codex_ml.cli.text_session import TextSession
from codex_ml.inference.sampling import Sampling
from codex_ml.serve.api_requests import CompletionRequest
from codex_ml.serve.batch_engine import BatchEngine
from codex_ml.serve.engine_rows import Progress, Reports, Wanted
from codex_ml.serve.prompt_encoder import PromptEncoder, Served
from codex_ml.tokens.text_tokenizer import TextTokenizer

from ..inference.test_text_stream import END, SPELT, bytes_as

MOST = 40


class AtRandom:
    """A model without a cache that finds a few tokens probable, whatever it reads."""

    device = torch.device("cpu")
    config = SimpleNamespace(is_encoder_decoder=False, max_position_embeddings=4096)

    def __init__(self, vocabulary: int) -> None:
        self.logits = torch.zeros(vocabulary)
        self.logits[[number for number in (259, 260) if number < vocabulary]] = 6.0
        self.logits[bytes_as("b\n\u00e9\u4e2d")] = 5.0
        self.logits[END] = 3.0

    def forward(self, input_ids: Any, use_cache: bool) -> Any:
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, -1))

    __call__ = forward


def deliver(reports: Reports) -> None:
    for row, progress in reports:
        row.report(progress)


def served_texts(served: Served, seed: int, *, stream: bool) -> dict[int, str]:
    """What the engine reports of the two texts of one request, joined."""
    asked = {"prompt": "b", "max_tokens": MOST, "stop": ["\n\n", "bbb"], "n": 2, "stream": stream, "top_p": 1.0}
    request = CompletionRequest.model_validate({**asked, "temperature": 1.0})
    reports: queue.Queue[Any] = queue.Queue()
    texts = {0: "", 1: ""}
    engine = BatchEngine(served.model, served.tokenizer, max_batch=2, max_waiting=2, deliver=deliver)
    try:
        engine.submit(PromptEncoder(served).wanted(request, ["b"], seed), lambda *given: reports.put(given))
        open_texts = 2
        while open_texts:
            number, progress = reports.get(timeout=30)
            assert progress.finished != "error"
            texts[number] += progress.text
            open_texts -= progress.finished is not None
    finally:
        engine.close()
    return texts


def kept(pieces: list[str], piece: str) -> bool:
    pieces.append(piece)
    return True


@pytest.mark.parametrize("seeds", [5, pytest.param(12, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", sorted(SPELT))
def test_the_endpoint_and_the_command_write_the_same_text(kind: str, seeds: int) -> None:
    tokenizer: TextTokenizer = SPELT[kind]
    model = AtRandom(tokenizer.vocab_size)
    loaded: Any = SimpleNamespace(model=model, tokenizer=tokenizer, length=4096, training=None)
    sampling = Sampling(MOST, temperature=1.0, top_p=1.0, stop=("\n\n", "bbb"))
    served, changed = Served(model, tokenizer, "5" * 64), 0
    for seed in range(seeds):
        session = TextSession(loaded, None, sampling, MOST, say=print)
        prompt = session.continued("b")
        pieces: list[str] = []
        alone = session.write(prompt, "b", seed=seed, show=partial(kept, pieces))
        both = [one.text for one in session.write_all(prompt, "b", seed=seed, count=2)]
        assert served_texts(served, seed, stream=True) == served_texts(served, seed, stream=False)
        assert served_texts(served, seed, stream=True) == dict(enumerate(both))
        assert alone.text == "".join(pieces) == both[0]
        changed += "\ufffd" in both[0]
    assert changed, "a text with bytes that are no character is among them"


def test_a_tokenizer_that_changes_its_mind_fails_its_text_alone() -> None:
    class Fickle(TextTokenizer):
        """Decodes four tokens and more in capitals."""

        def decode(self, ids: Any) -> str:
            text = super().decode(ids)
            return text.upper() if len(ids) > 3 else text

    plain = SPELT["sentencepiece"]
    fickle = Fickle(**{name: getattr(plain, name) for name in TextTokenizer.__dataclass_fields__})
    model = AtRandom(plain.vocab_size)
    model.logits = torch.zeros(plain.vocab_size)
    model.logits[260] = 99.0
    ended: queue.Queue[tuple[int, Progress]] = queue.Queue()
    engine = BatchEngine(model, fickle, max_batch=2, max_waiting=2, deliver=deliver)
    wanted = [Wanted([2], Sampling(most), "", 0, 1, frozenset({END}), streamed=True) for most in (6, 3)]
    try:
        engine.submit(wanted, lambda number, one: ended.put((number, one)) if one.finished else None)
        found = dict(ended.get(timeout=30) for _ in wanted)
    finally:
        engine.close()
    assert (found[0].finished, found[0].text) == ("error", "")
    assert (found[1].finished, found[1].tokens) == ("length", 3)
