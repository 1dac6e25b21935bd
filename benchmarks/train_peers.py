"""The training loops that benchmarks/train.py compares, each in a process of its own.

    python benchmarks/train_peers.py JOB

JOB is JSON (`Job`). The process builds its model, compiles, warms up and writes one line to stdout. Then it reads a
number of steps from stdin, takes these steps, answers with the seconds, and repeats this until stdin ends (turns.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from train_shapes import SEED, SHAPES, llama, random_rows, write_packed  # noqa: E402
from turns import take_turns  # noqa: E402

FOREVER = 100_000  # steps; only the end of stdin ends a run


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


def ours(job: Job, *, optimizer: str = "auto") -> None:
    """`train_model` as stages/train.py calls it; no validation or checkpoint is inside a round."""
    from codex_ml.core.config import Runtime
    from codex_ml.modeling.hardware import choose_hardware, make_deterministic
    from codex_ml.modeling.rows import Rows
    from codex_ml.train.config import Train
    from codex_ml.train.loop import train_model
    from codex_ml.train.recipe import Recipe, RunFolders, optimizer_plan

    shape = SHAPES[job.shape]
    settings = Train(
        optimizer=optimizer,
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
                optimizer=optimizer_plan(shape.model, settings),
                runtime=runtime,
                hardware=hardware,
                seed=SEED,
                rows=Rows.open(packed, "train"),
                val_rows=Rows.open(packed, "val"),
                tokenizer="",
            ),
            RunFolders(folder / "scratch", folder / "curves", folder / "logs", folder / "logs"),
            record={"params": {}, "environment": {}},
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
        "attention, Muon and fused AdamW, clip 1, finite check, curves every 5 steps; our allocator settings",
    ),
    "ours-adamw": Peer(
        lambda job: ours(job, optimizer="adamw"),
        True,
        "ours with train.optimizer adamw: fused AdamW for the matrices too, with the same two rates",
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
    """Run the job of the command line."""
    job = Job(**json.loads(sys.argv[1]))
    with take_turns(job.warm_up):
        PEERS[job.peer].run(job)


def command(job: Job) -> list[str]:
    """Return the command that starts this file for a job."""
    return [sys.executable, __file__, json.dumps(asdict(job))]


if __name__ == "__main__":
    main()
