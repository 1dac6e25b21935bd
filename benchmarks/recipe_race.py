"""The training recipes that `recipe.py race` compares, each in a process of its own, on the same rows and model shape.

    python benchmarks/recipe_race.py JOB

JOB is JSON (`RecipeJob`) whose setting is a name in RACERS. The processes take turns (turns.py). After each turn, a
process measures the validation loss outside the clock: on the same rows, in float32, with document mask, in a copy of
its model. The loops are written after the published code of each project, around the same Llama from the same weights.
The other loops see rows without document mask, as their projects do.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from recipe_run import NEVER, RecipeJob, change_groups  # noqa: E402
from recipe_settings import ROWS, WIDTH  # noqa: E402
from turns import take_turns  # noqa: E402

from codex_ml.modeling.pack_files import Packed  # noqa: E402
from codex_ml.modeling.rows import IGNORE, Rows  # noqa: E402

VAL_ROWS = 128


@dataclass(frozen=True)
class Race:
    """What a loop gets: its job, the model at its start, and the rows."""

    job: RecipeJob
    model: Any
    rows: Rows

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield inputs and shifted labels of ROWS rows that are drawn at random: each (ROWS, seq_len) int64."""
        import torch

        rng = np.random.Generator(np.random.PCG64(self.job.seed))
        while True:
            batch = self.rows.batch(rng.integers(0, len(self.rows), ROWS))
            yield torch.from_numpy(batch["input_ids"]), torch.from_numpy(batch["labels"])

    def compiled(self, module: Any) -> Any:
        """Return the module, compiled if the job says so."""
        import torch

        return torch.compile(module, dynamic=False) if self.job.compile else module


def llama(job: RecipeJob, *, attention: str, tied: bool = True) -> Any:
    """Build the model of a job; equal arguments give equal weights."""
    from codex_ml.train.model.build import build_model

    packed = Packed.read(Path(job.data) / "packed/pack.json")
    shape = job.model.model_copy(update={"max_positions": packed.seq_len, "tie_embeddings": tied})
    model = build_model(shape, vocab_size=packed.vocab_size, end=packed.end, pad=packed.pad, seed=job.seed)
    model.set_attn_implementation(attention)
    return model


def validation(model: Any, copy: Any, val_rows: Rows) -> Callable[[], dict[str, float]]:
    """Return a function that measures the loss of `model`: mean nats per target of the rows that training takes.

    Args:
        copy: a model of the same shape, which gets the weights, so that no loop's compiled or autocast forward is used.
    """
    import torch

    from codex_ml.train.loss import summed_loss

    chosen = np.linspace(0, len(val_rows) - 1, min(VAL_ROWS, len(val_rows))).astype(np.int64)
    pairs = list(zip(copy.parameters(), model.parameters(), strict=True))
    copy.eval()

    def measure() -> dict[str, float]:
        loss, targets = 0.0, 0
        with torch.no_grad():
            for to, weights in pairs:
                to.copy_(weights)
            for part in np.array_split(chosen, math.ceil(len(chosen) / ROWS)):
                batch = val_rows.batch(part)
                loss += float(summed_loss(copy, {key: torch.from_numpy(value) for key, value in batch.items()}))
                targets += int((batch["labels"] != IGNORE).sum())
        return {"loss": loss / targets}

    return measure


def ours(race: Race) -> None:
    """`train_model` as stages/train.py calls it."""
    from codex_ml.core.config import Runtime
    from codex_ml.modeling.hardware import make_deterministic
    from codex_ml.train.loop import train_model
    from codex_ml.train.recipe import Recipe, RunFolders, hardware_for, optimizer_plan

    job, runtime = race.job, Runtime(device="cpu", progress="off")
    train = job.train.model_copy(update={"eval_every": NEVER})
    hardware = hardware_for(job.model, train, runtime)
    make_deterministic(hardware, seed=job.seed)
    change_groups(job.content["groups"])
    plan = optimizer_plan(job.model, train)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        recipe = Recipe(train, plan, runtime, hardware, job.seed, race.rows, race.rows, tokenizer="")
        folders = RunFolders(folder / "run", folder / "curves", folder / "logs", folder / "logs")
        train_model(race.model, recipe, folders, record={"params": {}, "environment": {}})


def nanogpt(race: Race, *, lr: float, warmup: int, beta2: float, decay_steps: int) -> None:
    """nanoGPT's train.py on a CPU: float32, AdamW that is not fused, cosine to a tenth, decay 0.1, clip 1."""
    import torch

    matrices = [p for p in race.model.parameters() if p.ndim >= 2]
    vectors = [p for p in race.model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, beta2))

    def rate(step: int) -> float:
        if step < warmup:
            return lr * (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1, decay_steps - warmup))
        return lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))

    def before_step(step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate(step)

    _plain_loop(race, [optimizer], before_step, autocast=nullcontext)


def nanochat(race: Race) -> None:
    """nanochat's recipe of its first release; its output head has a rate of its own, so it is a matrix of its own.

    Rates: 0.2 of the embedding and 0.004 of the head, times (width / 768)^-0.5; 0.02 of the matrices, with Muon and the
    factor sqrt(max(1, rows / columns)). Momentum from 0.85 to 0.95 in 300 steps. Rates fall to 0 in the last fifth.
    Norms, which nanochat's model does not have, get the rate of the head.
    """
    import torch

    model, steps = race.model, race.job.steps
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    hidden = [p for p in model.parameters() if p is not embedding and p is not head]
    scale = (model.config.hidden_size / WIDTH) ** -0.5
    groups = [
        {"params": [embedding], "lr": 0.2 * scale},
        {"params": [head, *(p for p in hidden if p.ndim < 2)], "lr": 0.004 * scale},
    ]
    adamw = torch.optim.AdamW(groups, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0, fused=True)
    matrices = [p for p in hidden if p.ndim == 2]
    muon = torch.optim.Muon(matrices, lr=0.02, momentum=0.85, weight_decay=0.0, adjust_lr_fn="original")
    peaks = [(group, group["lr"]) for optimizer in (muon, adamw) for group in optimizer.param_groups]

    def before_step(step: int) -> None:
        for group, peak in peaks:
            group["lr"] = peak * min(1.0, (steps - step) / max(1, round(0.2 * steps)))
        share = min(step / 300, 1)
        muon.param_groups[0]["momentum"] = (1 - share) * 0.85 + share * 0.95

    autocast: Any = nullcontext
    if race.job.precision == "bf16":
        autocast = lambda: torch.autocast("cpu", torch.bfloat16)  # noqa: E731
    _plain_loop(race, [muon, adamw], before_step, autocast=autocast)


def _plain_loop(
    race: Race, optimizers: list[Any], before_step: Callable[[int], None], *, autocast: Callable[[], Any]
) -> None:
    """Train: mean loss over the targets of ROWS rows, clip 1. The last of the optimizers must be AdamW (turns.Pace)."""
    import torch
    from torch.nn.functional import cross_entropy

    forward = race.compiled(race.model)
    for step, (inputs, labels) in enumerate(race.batches()):
        before_step(step)
        with autocast():
            logits = forward(input_ids=inputs, use_cache=False).logits
        cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE).backward()
        torch.nn.utils.clip_grad_norm_(race.model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)


def trainer(race: Race, **settings: Any) -> None:
    """transformers' Trainer: 5e-5 with linear decay, no warm-up, no weight decay, AdamW (0.9, 0.999), clip 1."""
    import torch
    from transformers import Trainer, TrainingArguments, default_data_collator

    inputs = torch.from_numpy(race.rows.batch(np.arange(len(race.rows)))["input_ids"])
    labels = inputs.masked_fill(inputs == race.rows.pad, IGNORE)
    ones = torch.ones(race.rows.seq_len, dtype=torch.int64)
    data: Any = [
        {"input_ids": row, "attention_mask": ones, "labels": own} for row, own in zip(inputs, labels, strict=True)
    ]
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=race.job.steps, per_device_train_batch_size=ROWS, use_cpu=True,
            save_strategy="no", report_to="none", seed=race.job.seed, **settings,
        )  # fmt: skip
        Trainer(model=race.model, args=arguments, train_dataset=data, data_collator=default_data_collator).train()


def faster_trainer(race: Race) -> None:
    """That Trainer with the settings that its users switch on for speed."""
    trainer(race, bf16=race.job.precision == "bf16", torch_compile=race.job.compile)


@dataclass(frozen=True)
class Racer:
    """A recipe of the race.

    Attributes:
        title: for the page.
        run: its loop.
        setting: our own loop's, in the table of settings; it has our attention and allocator settings too.
        tied: whether embedding and output head are one matrix.
    """

    title: str
    run: Callable[[Race], None]
    setting: str = ""
    tied: bool = True

    @property
    def attention(self) -> str:
        """Eager is faster under our compiled loop on a CPU; the other projects use SDPA."""
        return "eager" if self.setting else "sdpa"


RACERS = {
    "ours": Racer("the default of `params.yaml`", ours, "default"),
    "ours-one-rate": Racer("our loop, AdamW with one rate", ours, "one-rate"),
    "nanogpt": Racer(
        "nanoGPT, settings of its Shakespeare example: AdamW 1e-3 (0.9, 0.99), warm-up 100, cosine to a tenth over the "
        "run; float32, compiled",
        lambda race: nanogpt(race, lr=1e-3, warmup=100, beta2=0.99, decay_steps=race.job.steps),
    ),
    "nanogpt-gpt2": Racer(
        "nanoGPT, defaults: AdamW 6e-4 (0.9, 0.95), warm-up 2000; float32, compiled",
        lambda race: nanogpt(race, lr=6e-4, warmup=2000, beta2=0.95, decay_steps=600_000),
    ),
    "trainer": Racer("Hugging Face Trainer, defaults: AdamW 5e-5, linear decay; float32, not compiled", trainer),
    "trainer-fast": Racer("the same with `torch_compile` and, where the CPU has it, `bf16`", faster_trainer),
    "nanochat": Racer(
        "nanochat, settings of its first release: Muon 0.02, AdamW 0.2 and 0.004 by width, momentum 0.85 to 0.95, last "
        "fifth to 0; output head of its own; compiled, bf16 where the CPU has it",
        nanochat,
        tied=False,
    ),
}  # fmt: skip


def own_steps(job: RecipeJob) -> int:
    """Return the steps of a racer; only our loop may take other rows per step than ROWS."""
    return job.train.max_steps if RACERS[job.setting].setting else job.steps


def command(job: RecipeJob) -> list[str]:
    """Return the command that starts this file for a job."""
    return [sys.executable, __file__, json.dumps(asdict(job))]


def main() -> None:
    """Run the job of the command line."""
    import torch

    job = RecipeJob(**json.loads(sys.argv[1]))
    racer, packed = RACERS[job.setting], Path(job.data) / "packed"
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    model = llama(job, attention=racer.attention, tied=racer.tied)
    model.train()
    copy = llama(job, attention="eager", tied=racer.tied)
    with take_turns(1, validation(model, copy, Rows.open(packed, "val"))):
        racer.run(Race(job, model, Rows.open(packed, "train")))


if __name__ == "__main__":
    main()
