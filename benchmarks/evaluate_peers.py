"""The ways to score a text that benchmarks/evaluate.py compares, each in a process of its own.

    python benchmarks/evaluate_peers.py JOB

JOB is JSON (`ScoringJob`). The process builds its model, scores the documents once to compile and to warm up, and
writes one line to stdout. Then it reads a number from stdin, scores the documents that many times, answers, and repeats
this until stdin ends (turns.py).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from train_shapes import END, SEED, SHAPES, Shape, documents, llama  # noqa: E402

Score = Callable[[], tuple[float, int]]  # scores all documents: (nats, targets)


@dataclass(frozen=True)
class ScoringJob:
    """The work of one process."""

    peer: str  # a name in PEERS
    shape: str  # a name in SHAPES
    load: str  # "full" or "ragged"
    tokens: int
    threads: int


def texts(job: ScoringJob) -> list[np.ndarray]:
    """Return the tokens of each document with the END before and after it: (n,) int64.

    "full": documents that fill whole windows. "ragged": lengths as in source files, of which the last window of each
    is not full.
    """
    shape = SHAPES[job.shape]
    if job.load == "full":
        rng = np.random.Generator(np.random.PCG64(SEED))
        return list(rng.integers(2, shape.vocabulary, (job.tokens // (4 * shape.seq_len), 4 * shape.seq_len + 1)))
    return [np.concatenate([[END], ids, [END]]).astype(np.int64) for ids in documents(shape, tokens=job.tokens)]


def _ours(job: ScoringJob, *, precision: Any, compiled: bool) -> Score:
    """`score` as stages/evaluate.py calls it, with all it measures: accuracies and calibration too."""
    from codex_ml.inference.likelihood import Scoring, score
    from codex_ml.modeling.examples import Scorable
    from codex_ml.modeling.hardware import Hardware, make_deterministic, settle_compiler

    shape = SHAPES[job.shape]
    hardware = Hardware("cpu", precision, compiled, job.threads, "")
    make_deterministic(hardware, seed=SEED)
    settle_compiler(hardware, seq_len=shape.seq_len)
    model: Any = llama(shape, attention="eager").eval()
    items = [Scorable(tokens, np.arange(len(tokens)) > 0, "", True) for tokens in texts(job)]
    scoring = Scoring(shape.seq_len, batch_size=shape.rows, precision=precision, compile=compiled)

    def run() -> tuple[float, int]:
        scores = list(score(model, items, scoring))
        return sum(one.nll for one in scores), sum(one.tokens for one in scores)

    return run


def ours(job: ScoringJob) -> Score:
    """What `evaluate.precision` bf16 or auto gives for many tokens."""
    return _ours(job, precision="bf16", compiled=True)


def ours_eager(job: ScoringJob) -> Score:
    """What `evaluate.precision` bf16 gives for few tokens."""
    return _ours(job, precision="bf16", compiled=False)


def ours_fp32(job: ScoringJob) -> Score:
    """The default."""
    return _ours(job, precision="fp32", compiled=False)


def bare(job: ScoringJob) -> Score:
    """A compiled forward pass and loss over full rows: the upper bound for ours. Documents run into each other."""
    import torch
    from torch.nn.functional import cross_entropy

    shape = SHAPES[job.shape]
    torch.set_num_threads(job.threads)
    model: Any = llama(shape, attention="eager").eval()
    rows = list(_rows(texts(job), shape))

    def loss(inputs: Any, labels: Any) -> Any:
        logits = model(input_ids=inputs, use_cache=False).logits.float().flatten(0, 1)
        return cross_entropy(logits, labels.flatten(), reduction="sum")

    step = torch.compile(loss, dynamic=False)

    def run() -> tuple[float, int]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return sum(float(step(*row)) for row in rows), len(rows) * shape.rows * shape.seq_len

    return run


def _rows(documents: list[np.ndarray], shape: Shape) -> Iterator[tuple[Any, Any]]:
    """Inputs and labels (rows, seq_len) int64 of the documents as one stream, without the last part of a batch."""
    import torch

    stream = torch.from_numpy(np.concatenate([document[:-1] for document in documents]))
    size = shape.rows * shape.seq_len
    for begin in range(0, len(stream) - size, size):
        inputs, labels = stream[begin : begin + size], stream[begin + 1 : begin + size + 1]
        yield inputs.view(shape.rows, -1), labels.view(shape.rows, -1)


def script(job: ScoringJob, *, rows: int = 1) -> Score:
    """The perplexity script of transformers' documentation: float32, windows of one stream, `labels`, no compiler.

    Its attention is SDPA, the default of transformers, and `loss` is the mean over the shifted labels.
    """
    import torch

    shape = SHAPES[job.shape]
    torch.set_num_threads(job.threads)
    model: Any = llama(shape, attention="sdpa").eval()
    stream = torch.from_numpy(np.concatenate([document[:-1] for document in texts(job)]))
    size = rows * shape.seq_len
    batches = [stream[begin : begin + size].view(rows, -1) for begin in range(0, len(stream) - size + 1, size)]

    def run() -> tuple[float, int]:
        nats, count = 0.0, 0
        for batch in batches:
            with torch.no_grad():
                loss = model(batch, labels=batch.clone()).loss
            scored = batch.numel() - rows  # the first token of each window is not a target
            nats, count = nats + float(loss) * scored, count + scored
        return nats, count

    return run


def script_rows(job: ScoringJob) -> Score:
    """The same script with as many windows per forward pass as ours has."""
    return script(job, rows=SHAPES[job.shape].rows)


@dataclass(frozen=True)
class Peer:
    """A way to score, and its settings in words."""

    prepare: Callable[[ScoringJob], Score]
    settings: str
    allocator: bool = False


LOADS = {
    "full": "documents that fill whole windows",
    "ragged": "documents with the lengths of source files, whose last windows are not full",
}
PEERS = {
    "ours": Peer(ours, "score(): bf16 autocast, full windows compiled, eager attention, our allocator settings", True),
    "ours-eager": Peer(ours_eager, "score(): bf16 autocast, no compiler", True),
    "ours-fp32": Peer(ours_fp32, "score(): float32, no compiler, the default", True),
    "bare": Peer(
        bare, "torch.compile of forward and summed cross-entropy, bf16 autocast, rows full, our allocator", True
    ),
    "script": Peer(script, "transformers' documented script: float32, no compiler, SDPA, one window per pass"),
    "script-rows": Peer(script_rows, "the same script with the rows of ours per pass"),
}


def command(job: ScoringJob) -> list[str]:
    """Return the command of the process of a job."""
    return [sys.executable, str(Path(__file__).resolve()), json.dumps(job.__dict__)]


def main() -> None:
    """Run the job of the command line. stdout is for answers; prints of libraries go to stderr."""
    job = ScoringJob(**json.loads(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    started, cpu = time.perf_counter(), time.process_time()
    run = PEERS[job.peer].prepare(job)
    times = 1
    while True:
        for _ in range(times):
            nats, count = run()  # the same each time
        spent = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
        print(json.dumps({**spent, "nats": nats, "targets": count * times}), file=answers, flush=True)
        if not (line := sys.stdin.readline()):
            return
        times, started, cpu = int(line), time.perf_counter(), time.process_time()


if __name__ == "__main__":
    main()
