"""Many texts at once: the texts of `generate`, whoever runs beside them, and places that are freed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from codex_ml.inference.decoding import start_decoder
from codex_ml.inference.generation import Prompt, generate
from codex_ml.inference.sampling import Sampling
from codex_ml.serve.batch_engine import BatchEngine, QueueFull
from codex_ml.serve.engine_rows import EngineRow, Progress, Wanted
from codex_ml.serve.prompt_encoder import Served
from codex_ml.train.config import Model
from codex_ml.train.model.build import build_model

SIZES = {"hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 2}


@contextmanager
def engine_of(served: Served, **sizes: int) -> Iterator[BatchEngine]:
    def deliver(reports: list[tuple[EngineRow, Progress]]) -> None:
        for row, progress in reports:
            row.report(progress)

    engine = BatchEngine(
        served.model, served.tokenizer, **{"max_batch": 8, "max_waiting": 64, **sizes}, deliver=deliver
    )
    try:
        yield engine
    finally:
        engine.close()


def wanted(served: Served, text: str, number: int = 0, **more: object) -> Wanted:
    sampling = {"max_tokens": 24, "temperature": 0.9, "top_p": 0.95, **more.pop("sampling", {})}
    ids = [served.tokenizer.begin, *served.tokenizer.encode(text).tolist()]
    given = {"key": "k", "sample": number, "seed": 5, "ends": frozenset({served.tokenizer.end}), **more}
    return Wanted(ids, Sampling(**sampling), **given)


def answers(engine: BatchEngine, asked: list[Wanted]) -> list[Progress]:
    """Submit all, one by one, and wait for their ends."""
    arrived: queue.Queue[tuple[int, Progress]] = queue.Queue()
    for place, one in enumerate(asked):
        engine.submit([one], lambda _, progress, place=place: arrived.put((place, progress)))
    found = dict(arrived.get(timeout=30) for _ in asked)
    return [found[place] for place in range(len(asked))]


def texts_of_generate(served: Served, asked: list[Wanted]) -> list[str]:
    return [
        next(
            generate(
                served.model, served.tokenizer, [Prompt(one.ids, one.key, one.sample)], one.sampling, seed=one.seed,
                batch_size=1,
            )
        ).text
        for one in asked
    ]  # fmt: skip


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "qwen3"])
def test_texts_that_join_a_running_batch_have_the_logits_of_one_read_alone(architecture: str) -> None:
    model = build_model(
        Model(architecture=architecture, max_positions=64, **SIZES), vocab_size=60, end=0, pad=1, seed=3
    )
    model.eval()

    def alone(*texts: list[int]) -> torch.Tensor:
        return torch.stack([start_decoder(model, [ids], [len(ids)]).logits[0] for ids in texts])

    with torch.inference_mode():
        decoder = start_decoder(model, [[2, 3, 4, 5, 6], [7, 8]], [5, 2])
        decoder.add(torch.tensor([20, 21]))
        decoder.join(start_decoder(model, [[9] * 12, [10, 11, 12]], [12, 3]))
        assert torch.allclose(decoder.logits[2:], alone([9] * 12, [10, 11, 12]), atol=1e-5)
        decoder.add(torch.tensor([30, 31, 32, 33]))
        four = alone([2, 3, 4, 5, 6, 20, 30], [7, 8, 21, 31], [*[9] * 12, 32], [10, 11, 12, 33])
        assert torch.allclose(decoder.logits, four, atol=1e-5)
        decoder.keep(torch.tensor([1, 3]))
        decoder.trim()
        assert decoder.mask.shape == (2, 4), "the padding of the long text has left with it"
        assert decoder.cache.layers[0].keys.shape[2] == 4
        decoder.add(torch.tensor([40, 41]))
        assert torch.allclose(decoder.logits, alone([7, 8, 21, 31, 40], [10, 11, 12, 33, 41]), atol=1e-5)


@pytest.mark.parametrize("architecture", ["t5", "mistral"])
def test_models_whose_texts_cannot_be_joined_write_the_texts_of_generate(tiny: Served, architecture: str) -> None:
    sizes = {"vocab_size": tiny.tokenizer.vocab_size, "end": tiny.tokenizer.end, "pad": tiny.tokenizer.pad}
    model = build_model(Model(architecture=architecture, max_positions=64, **SIZES), **sizes, seed=3).eval()
    if architecture == "mistral":
        model.config.sliding_window = 16
    served = Served(model, tiny.tokenizer, "d")
    asked = [wanted(served, f"def f{n}" * (1 + n % 3), n, sampling={"max_tokens": 6 + n}) for n in range(7)]
    with engine_of(served, max_batch=3) as engine:
        found = answers(engine, asked)
    assert [one.text for one in found] == texts_of_generate(served, asked)


def test_neighbours_that_come_and_go_do_not_change_a_text(tiny: Served) -> None:
    """Twenty texts of unequal lengths and settings, in batches of five, are those of `generate` one by one."""
    asked = [
        wanted(
            tiny,
            "def f"[: 1 + n % 5] * (1 + n % 4),
            n,
            sampling={"max_tokens": 3 + 7 * (n % 4), "temperature": n % 3 / 2},
        )
        for n in range(20)
    ]
    with engine_of(tiny, max_batch=5) as engine:
        found = answers(engine, asked)
        assert engine.counts.running == engine.counts.waiting == 0
    assert [one.text for one in found] == texts_of_generate(tiny, asked)
    assert len({one.text for one in found}) > 10
    assert {one.finished for one in found} <= {"length", "end"}


def test_a_streamed_text_is_the_whole_text_in_pieces_and_no_piece_ends_in_a_stop_string(tiny: Served) -> None:
    whole = texts_of_generate(tiny, [wanted(tiny, "def f(", sampling={"max_tokens": 60})])[0]
    stop = next(whole[at : at + 2] for at in range(15, 50) if whole[at : at + 2].isascii())
    sampling = {"max_tokens": 60, "stop": (stop,)}
    pieces: queue.Queue[Progress] = queue.Queue()
    with engine_of(tiny) as engine:
        engine.submit([wanted(tiny, "def f(", streamed=True, sampling=sampling)], lambda _, one: pieces.put(one))
        found = [pieces.get(timeout=30)]
        while not found[-1].finished:
            found.append(pieces.get(timeout=30))
    assert len(found) > 5
    assert "".join(one.text for one in found) == whole[: whole.index(stop)]
    assert found[-1].finished == "stop"


def test_scores_are_the_logarithms_of_the_model_for_its_tokens(tiny: Served) -> None:
    asked = wanted(tiny, "def f(", top=3, sampling={"max_tokens": 8})
    with engine_of(tiny) as engine:
        [found] = answers(engine, [asked])
    ids = torch.tensor([[*asked.ids, *(one.token for one in found.scores)]])
    with torch.inference_mode():
        expected = tiny.model(ids).logits[0].float().log_softmax(-1)[len(asked.ids) - 1 : -1]
    assert [one.logprob for one in found.scores] == pytest.approx(
        [float(row[one.token]) for row, one in zip(expected, found.scores, strict=True)], abs=1e-4
    )
    for row, one in zip(expected, found.scores, strict=True):
        assert [token for token, _ in one.top] == row.topk(3).indices.tolist()
    assert found.scores[0].start == 0
    assert found.scores[-1].end == len(found.text)


def test_a_cancelled_text_frees_its_place_for_one_that_waits(tiny: Served, parrot) -> None:
    endless = parrot("a" * 400)
    step = threading.Semaphore(0)
    endless.model.wait = step.acquire
    ended: queue.Queue[str] = queue.Queue()
    asked = [wanted(endless, "?", sampling={"max_tokens": n, "temperature": 0}) for n in (300, 2)]
    with engine_of(endless, max_batch=1) as engine:
        [first] = engine.submit(asked[:1], lambda _, one: ended.put("first"))
        engine.submit(asked[1:], lambda _, one: ended.put("second"))
        step.release(3)
        first.cancel()
        step.release(10)
        assert ended.get(timeout=30) == "second"
        assert engine.counts.steps <= 8, "the first text would have taken 300 steps"
    assert ended.empty()


def test_a_request_of_more_texts_than_may_wait_is_refused_as_a_whole(tiny: Served) -> None:
    with engine_of(tiny, max_batch=2, max_waiting=1) as engine, pytest.raises(QueueFull):
        engine.submit([wanted(tiny, "a", n) for n in range(4)], print)


def test_a_model_that_fails_ends_its_texts_and_not_the_engine(tiny: Served, parrot, caplog) -> None:
    broken = parrot("abc")
    broken.model.wait = lambda: (_ for _ in ()).throw(RuntimeError("secret prompt"))
    with engine_of(broken) as engine:
        [first] = answers(engine, [wanted(broken, "?")])
        broken.model.wait = lambda: None
        [second] = answers(engine, [wanted(broken, "?", sampling={"temperature": 0})])
    assert (first.finished, second.text, second.finished) == ("error", "abc", "end")
    assert "RuntimeError" in caplog.text
    assert "secret prompt" not in caplog.text


def test_logits_that_are_no_numbers_end_the_texts_with_an_error(tiny: Served, parrot, caplog) -> None:
    broken = parrot("abc")
    broken.model.value = float("nan")
    with engine_of(broken) as engine:
        assert answers(engine, [wanted(broken, "?")])[0].finished == "error"
    assert "the model's logits are NaN" in caplog.text
