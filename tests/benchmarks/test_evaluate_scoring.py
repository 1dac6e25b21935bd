"""benchmarks/evaluate_peers.py: each way scores the targets that it says it scores, and they cost the same."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "evaluate_peers.py"
TOKENS = 256  # of the shape "tiny": 4 documents of 4 windows of 16 targets


@pytest.fixture(scope="module")
def peers() -> Iterator[ModuleType]:
    """benchmarks/evaluate_peers.py, which is no package."""
    spec = importlib.util.spec_from_file_location("evaluate_peers", FILE)
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    yield module
    sys.path[:] = path
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)
    for name in (spec.name, "train_shapes"):
        del sys.modules[name]


def job(peers: ModuleType, load: str = "full") -> object:
    return peers.ScoringJob("ours", "tiny", load, TOKENS, 1)


def by_hand(peers: ModuleType, rows: np.ndarray) -> float:
    """Nats of the targets of rows (n, width + 1), in float64."""
    model = peers.llama(peers.SHAPES["tiny"], attention="eager").eval().double()
    tokens = torch.from_numpy(rows)
    with torch.no_grad():
        logprobs = model(input_ids=tokens[:, :-1]).logits.log_softmax(-1)
    return -float(logprobs.gather(-1, tokens[:, 1:, None]).sum())


def test_ours_scores_every_token_but_the_first(peers):
    nats, targets = peers.ours_fp32(job(peers))()
    windows = np.concatenate([[text[at : at + 17] for at in range(0, 64, 16)] for text in peers.texts(job(peers))])
    assert targets == TOKENS == windows[:, 1:].size
    assert nats == pytest.approx(by_hand(peers, windows), rel=1e-6)
    assert peers.ours_eager(job(peers))() == (pytest.approx(nats, rel=2**-7), TOKENS)


def test_the_script_of_transformers_scores_all_but_the_first_token_of_each_window(peers):
    stream = np.concatenate([text[:-1] for text in peers.texts(job(peers))])
    windows = stream.reshape(-1, 16)
    for run in (peers.script(job(peers)), peers.script_rows(job(peers))):
        assert run() == (pytest.approx(by_hand(peers, windows), rel=1e-5), TOKENS - len(windows))


def test_the_bare_loop_scores_full_rows(peers, monkeypatch):
    """The compiler is left out; the last part of a batch of two rows has no label for its last token."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    nats, targets = peers.bare(job(peers))()
    stream = np.concatenate([text[:-1] for text in peers.texts(job(peers))])
    windows = np.stack([stream[at : at + 17] for at in range(0, 224, 16)])
    assert targets == 224
    assert nats == pytest.approx(by_hand(peers, windows), rel=2**-7)


def test_ragged_documents_have_an_end_before_and_after(peers):
    texts = peers.texts(job(peers, "ragged"))
    assert all(text[0] == text[-1] == peers.END for text in texts)
    assert sum(len(text) - 1 for text in texts) >= TOKENS
