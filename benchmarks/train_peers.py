"""The training loops that benchmarks/train.py compares, each in a process of its own.

    python benchmarks/train_peers.py JOB

JOB is JSON (`Job`). The process builds its model, compiles, warms up and writes one line to stdout. Then it reads a
number of steps from stdin, takes these steps, answers with the seconds, and repeats this until stdin ends. torch's hook
after each optimizer step paces all loops, so no loop needs a change: a round lasts from one update of the weights to
another and includes everything that the loop does between them.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

END, PAD = 0, 1
FOREVER = 100_000  # steps; only the end of stdin ends a run
SEED = 1


@dataclass(frozen=True)
class Shape:
    """A Llama shape with tied embeddings, and the rows of a step."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    vocabulary: int
    seq_len: int = 256
    rows: int = 16

    @property
    def parameters(self) -> int:
        """Number of weights, the tied matrix once: embedding; per layer 7 matrices and 2 norms; last norm."""
        layer = 4 * self.hidden**2 + 3 * self.hidden * self.ffn + 2 * self.hidden
        return self.vocabulary * self.hidden + self.layers * layer + self.hidden

    @property
    def flops_per_token(self) -> int:
        """6 N + 12 L d T, forward and backward (Kaplan et al., arXiv:2001.08361, 2.1; PaLM, arXiv:2204.02311, B).

        N counts the tied matrix once, as the output projection: the lookup of a row costs nothing.
        """
        return 6 * self.parameters + 12 * self.layers * self.hidden * self.seq_len


SHAPES = {
    "7m": Shape(layers=6, hidden=256, ffn=688, heads=4, vocabulary=8192),
    "small": Shape(layers=4, hidden=192, ffn=512, heads=4, vocabulary=4096),
    "one-layer": Shape(layers=1, hidden=64, ffn=128, heads=2, vocabulary=512),
    "tiny": Shape(layers=1, hidden=32, ffn=64, heads=2, vocabulary=64, seq_len=16, rows=2),
}


@dataclass(frozen=True)
class Job:
    """The work of one process."""

    peer: str  # a name in PEERS
    shape: str  # a name in SHAPES
    precision: str  # "fp32" or "bf16"
    compile: bool
    threads: int
    warm_up: int  # steps before the first round
    packed: str = ""  # folder of packed rows for `ours`; empty: it writes its own


class Pace:
    """Hook that lets a loop take as many steps as stdin says, and reports how long they took."""

    def __init__(self, warm_up: int, answers: Any) -> None:
        self._left, self._answers, self._started = warm_up, answers, time.perf_counter()

    def __call__(self, *_: object) -> None:
        self._left -= 1
        if self._left:
            return
        print(json.dumps({"seconds": time.perf_counter() - self._started}), file=self._answers, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise SystemExit
        self._left, self._started = int(line), time.perf_counter()


def documents(shape: Shape, *, tokens: int) -> Iterator[np.ndarray]:
    """Yield random documents of at least `tokens` tokens together; lengths as in source files, median 300."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    supply = rng.integers(2, shape.vocabulary, size=2**20, dtype=np.uint32)  # reused: drawing takes most of the time
    lengths = np.clip(rng.lognormal(math.log(300), 1.2, size=2**12), 1, 20_000).astype(int).tolist()
    begin = written = 0
    while written < tokens:
        for length in lengths:
            begin = (begin + 7919) % (len(supply) - length)
            yield supply[begin : begin + length]
            written += length + 1
            if written >= tokens:
                return


def write_packed(folder: Path, shape: Shape, *, tokens: int) -> None:
    """Write a folder like data/packed, of random documents, with the streams train and val."""
    from codex_ml.modeling.pack_files import Packed
    from codex_ml.modeling.rows import stream_dtype
    from codex_ml.pack.examples import Example
    from codex_ml.pack.row_writer import StreamFormat, write_stream

    dtype = stream_dtype(shape.vocabulary)
    sizes = {"train": tokens, "val": 16 * shape.seq_len}
    streams = {
        name: write_stream(
            folder, name, map(Example, documents(shape, tokens=size)), StreamFormat(END, dtype, shape.seq_len)
        )
        for name, size in sizes.items()
    }
    Packed(
        dtype=dtype.str,
        seq_len=shape.seq_len,
        layout="packed",
        tokenizer_kind="byte_bpe",
        vocab_size=shape.vocabulary,
        begin=END,
        end=END,
        pad=PAD,
        streams=streams,
    ).write(folder / "pack.json")


def random_rows(shape: Shape) -> np.ndarray:
    """Return rows of random tokens, int64 (1024, seq_len + 1), for the loops that read no packed documents."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    return rng.integers(2, shape.vocabulary, size=(1024, shape.seq_len + 1))


def llama(shape: Shape, *, attention: str) -> Any:
    """Build the model; every loop gets the same weights."""
    from codex_ml.train.config import Model
    from codex_ml.train.model.build import build_model

    sizes = {"hidden_size": shape.hidden, "intermediate_size": shape.ffn, "layers": shape.layers, "heads": shape.heads}
    settings = Model(**sizes, max_positions=shape.seq_len)
    model = build_model(settings, vocab_size=shape.vocabulary, end=END, pad=PAD, seed=SEED)
    model.set_attn_implementation(attention)
    return model


def ours(job: Job) -> None:
    """`train_model` as stages/train.py calls it; no validation or checkpoint is inside a round."""
    from codex_ml.core.config import Runtime
    from codex_ml.modeling.hardware import choose_hardware, make_deterministic
    from codex_ml.modeling.rows import Rows
    from codex_ml.train.config import Train
    from codex_ml.train.loop import train_model
    from codex_ml.train.recipe import Recipe, RunFolders

    shape = SHAPES[job.shape]
    settings = Train(
        max_steps=FOREVER,
        micro_batch_size=shape.rows,
        eval_every=FOREVER,
        checkpoint_every=FOREVER,
        log_every=5,
        precision=job.precision,
        compile="on" if job.compile else "off",
    )
    runtime = Runtime(device="cpu", progress="off")
    hardware = choose_hardware(
        runtime,
        threads=job.threads,
        precision=settings.precision,
        compile=settings.compile,
        max_steps=settings.max_steps,
    )
    make_deterministic(hardware, seed=SEED)
    with TemporaryDirectory() as temporary:
        folder, packed = Path(temporary), Path(job.packed or temporary)
        if not job.packed:
            write_packed(packed, shape, tokens=1_000_000)
        train_model(
            llama(shape, attention="eager"),
            Recipe(
                train=settings,
                runtime=runtime,
                hardware=hardware,
                seed=SEED,
                rows=Rows.open(packed, "train"),
                val_rows=Rows.open(packed, "val"),
                tokenizer="",
            ),
            RunFolders(folder / "scratch", folder / "curves", folder / "logs", folder / "logs"),
            parameters={},
        )


def bare(job: Job) -> None:
    """Train with a minimal PyTorch loop: the upper bound for ours."""
    import torch
    from torch.nn.functional import cross_entropy

    from codex_ml.core.config import Runtime
    from codex_ml.modeling.hardware import choose_hardware, make_deterministic

    hardware = choose_hardware(Runtime(device="cpu"), threads=job.threads, precision=job.precision, compile="off")
    make_deterministic(hardware, seed=SEED)
    shape = SHAPES[job.shape]
    model, data = llama(shape, attention="eager"), random_rows(shape)
    model.train()

    # the loss is not compiled: compiled it is slower (133 against 104 ms for 4096 x 8192 logits on AVX2)
    forward = torch.compile(model, dynamic=False) if job.compile else model
    optimizer = torch.optim.AdamW(_groups(model, 0.1), lr=1e-3, betas=(0.9, 0.95), fused=True)
    for step in range(FOREVER):
        rows = torch.from_numpy(data[np.arange(step * shape.rows, (step + 1) * shape.rows) % len(data)])
        with _autocast(job.precision):
            logits = forward(input_ids=rows[:, :-1], use_cache=False).logits
        loss = cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 50)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def trainer(job: Job, *, attention: str = "sdpa", **settings: Any) -> None:
    """Train with transformers' Trainer on rows as in run_clm: input_ids, an attention_mask of ones, labels."""
    import torch
    from transformers import Trainer, TrainingArguments, default_data_collator

    shape = SHAPES[job.shape]
    torch.set_num_threads(job.threads)
    rows = torch.from_numpy(random_rows(shape)[:, :-1])
    ones = torch.ones(shape.seq_len, dtype=torch.int64)
    data = [{"input_ids": row, "attention_mask": ones, "labels": row} for row in rows]
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=FOREVER,
            per_device_train_batch_size=shape.rows,
            use_cpu=True,
            save_strategy="no",
            **settings,
        )
        model = llama(shape, attention=attention)
        Trainer(model=model, args=arguments, train_dataset=data, data_collator=default_data_collator).train()


def faster_trainer(job: Job, *, attention: str = "sdpa") -> None:
    """Train with the Trainer and the settings that its users switch on for speed."""
    trainer(job, attention=attention, bf16=job.precision == "bf16", torch_compile=job.compile)


def nanogpt(job: Job) -> None:
    """Train with nanoGPT's loop and published settings; on a CPU these mean no autocast and no fused AdamW."""
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    shape = SHAPES[job.shape]
    torch.set_num_threads(job.threads)
    torch.manual_seed(SEED)
    data = random_rows(shape).flatten().astype(np.uint16)

    class WithLoss(nn.Module):
        """A model that returns its loss, as nanoGPT's does."""

        def __init__(self) -> None:
            super().__init__()
            self.model = llama(shape, attention="sdpa")

        def forward(self, inputs: Any, targets: Any) -> Any:
            logits = self.model(input_ids=inputs, use_cache=False).logits
            return cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)

    def batch() -> tuple[Any, Any]:
        begins = torch.randint(len(data) - shape.seq_len, (shape.rows,)).tolist()
        both = [
            torch.stack(
                [torch.from_numpy(data[b + shift : b + shift + shape.seq_len].astype(np.int64)) for b in begins]
            )
            for shift in (0, 1)
        ]
        return both[0], both[1]

    plain = WithLoss()
    model = torch.compile(plain) if job.compile else plain
    optimizer = torch.optim.AdamW(_groups(plain, 0.1), lr=6e-4, betas=(0.9, 0.95))
    inputs, targets = batch()
    for step in range(FOREVER):
        for group in optimizer.param_groups:
            group["lr"] = 6e-4 * min(1.0, (step + 1) / 2000)
        loss = model(inputs, targets)
        inputs, targets = batch()  # nanoGPT prefetches here, while a GPU computes
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 10 == 0:
            print(f"step {step}: loss {loss.item():.4f}")


def _groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Return parameter groups: weight decay for matrices, none for vectors, as in ours and in nanoGPT."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _autocast(precision: str) -> Any:
    import torch

    return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()


@dataclass(frozen=True)
class Peer:
    """A loop, whether its process has our allocator settings, and the description that is printed."""

    run: Callable[[Job], None]
    allocator: bool
    settings: str


PEERS = {
    "ours": Peer(
        ours,
        True,
        "codex_ml.train.loop.train_model: packed documents with document mask, deterministic algorithms, eager "
        "attention, fused AdamW, clip 1, finite check, curves every 5 steps; our allocator settings",
    ),
    "bare": Peer(
        bare,
        True,
        "bare PyTorch loop, our settings: eager attention, compiled model, fused AdamW, clip 1, "
        "deterministic algorithms; no document mask, no log, no check; our allocator settings",
    ),
    "trainer": Peer(trainer, False, "transformers' Trainer at the defaults of run_clm: fp32, SDPA, not compiled"),
    "trainer-fast": Peer(
        faster_trainer, False, "that Trainer with torch_compile, and with bf16 where this CPU has it; SDPA"
    ),
    "trainer-ours": Peer(
        lambda job: faster_trainer(job, attention="eager"),
        True,
        "trainer-fast with eager attention and our allocator settings",
    ),
    "nanogpt": Peer(
        nanogpt,
        False,
        "nanoGPT's loop as it runs on a CPU, around the same Llama: fp32, SDPA, compiled, AdamW (0.9, 0.95) that is "
        "not fused, weight decay 0.1 on matrices, clip 1, loss read every 10 steps",
    ),
}


def main() -> None:
    """Run the job of the command line. stdout is for answers; prints of a loop go to stderr."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = Job(**json.loads(sys.argv[1]))
    register_optimizer_step_post_hook(Pace(job.warm_up, answers))
    PEERS[job.peer].run(job)


def command(job: Job) -> list[str]:
    """Return the command that starts this file for a job."""
    return [sys.executable, __file__, json.dumps(asdict(job))]


if __name__ == "__main__":
    main()
