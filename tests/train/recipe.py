"""A training run that takes half a second; as a script, a server that runs it in forked processes, which can be killed.

Forking from a process that has all loaded, but never ran a backward pass, saves ten seconds a run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codex_ml.core.config import Runtime
from codex_ml.documents.document import Document
from codex_ml.modeling.hardware import Hardware, make_deterministic
from codex_ml.modeling.pack_files import Packed
from codex_ml.modeling.rows import Rows
from codex_ml.pack.config import Pack
from codex_ml.pack.fitting import encode_examples
from codex_ml.pack.row_writer import StreamFormat, write_stream
from codex_ml.train import loop
from codex_ml.train.config import Lora, Model, Train
from codex_ml.train.history import History
from codex_ml.train.model.adapters import add_adapters
from codex_ml.train.model.build import build_model
from codex_ml.train.recipe import OptimizerPlan, Recipe, RunFolders
from codex_ml.train.run import Run
from codex_ml.train.throughput import matmul_peak

END, PAD, VOCAB, SEQ_LEN = 0, 1, 64, 8
# 95 tokens with END between them: 12 rows of 8, the last one with 6 targets; some documents have a single token
LENGTHS = (7, 1, 12, 3, 1, 20, 2, 9, 4, 1, 14, 8)
ENVIRONMENT = {"python": "3.11.7", "machine": "x86_64", "threads": 1, "packages": {"torch": "2.13.0"}}
HARDWARE = Hardware("cpu", "fp32", compile=False, threads=1, capability="test")


def packed(lengths: Sequence[int], *, seed: int, seq_len: int = SEQ_LEN) -> Rows:
    """Documents of random tokens in the format of data/packed, cut into rows by position: every row but the last is full."""
    dice = np.random.Generator(np.random.PCG64(seed))
    parts = [np.append(END, dice.integers(2, VOCAB, size=length)) for length in lengths]
    starts = np.cumsum([0, *map(len, parts)])
    begins = np.union1d(starts[:-1], np.arange(0, starts[-1], seq_len)).astype(int)
    pieces = np.stack([begins, np.diff([*begins, starts[-1]])], axis=1).astype("<u8")
    first = np.flatnonzero([*(begins % seq_len == 0), True])
    tokens = np.concatenate([*parts, [END]]).astype("<u2")
    return Rows(tokens, starts.astype("<u8"), seq_len, PAD, pieces, first.astype("<u8"))


class Letters:
    """A tokenizer that splits a text into characters."""

    def encode(self, text: str) -> np.ndarray[Any, np.dtype[np.uint32]]:
        return np.array([ord(character) for character in text], dtype=np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


def padded(folder: Path, count: int, *, seed: int) -> Rows:
    """Records of random tokens, one per row, trained on their completions; written and read as `pack` and `train` do."""
    dice = np.random.Generator(np.random.PCG64(seed))
    parts = [dice.integers(2, VOCAB, size=size).astype("<u4") for size in dice.integers(1, 6, size=2 * count)]
    records = [Document("web", "", str(n), "", "MIT", "text", prompt="p", completion="c") for n in range(count)]
    pack = Pack(seq_len=SEQ_LEN, layout="padded", loss_on="completions", too_long="cut")
    tokenizer: Any = Letters()  # asked only whether two texts are one text when joined: the parts are ids already
    examples = encode_examples(records, iter(parts), tokenizer, pack, name="train", note=lambda note: None)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = np.dtype("<u2")
    stream = write_stream(folder, "train", examples, StreamFormat(END, dtype, SEQ_LEN, layout=pack.layout))
    about: dict[str, Any] = {
        "dtype": dtype.str,
        "seq_len": SEQ_LEN,
        "layout": pack.layout,
        "vocab_size": VOCAB,
        "tokenizer_kind": "byte_bpe",
        "loss_on": pack.loss_on,
    }
    Packed(**about, begin=END, end=END, pad=PAD, streams={"train": stream}).write(folder / "pack.json")
    return Rows.open(folder, "train")


def tiny_model(*, layers: int = 1, positions: int = 64, dropout: float = 0.0, intermediate_size: int = 24) -> Any:
    shape = Model(hidden_size=16, intermediate_size=intermediate_size, layers=layers, heads=2, max_positions=positions)
    model = build_model(shape, vocab_size=VOCAB, end=END, pad=PAD, seed=1)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = dropout
    return model


def settings(**changes: Any) -> Train:
    """12 rows: with 2 x 1 rows per step an epoch has 6 steps, with 2 x 3 it has 2."""
    small = {"lr": 0.02, "warmup_steps": 2, "max_steps": 10, "micro_batch_size": 2}
    often = {"log_every": 1, "eval_every": 2, "checkpoint_every": 2}
    return Train(**{**small, **often, **changes})


def plan_of(train: Train) -> OptimizerPlan:
    """AdamW with one rate, unless the settings name Muon or a rate of embeddings; sizes do not scale a rate."""
    if train.optimizer == "muon" or train.embedding_lr:
        name = "muon" if train.optimizer == "muon" else "adamw"
        return OptimizerPlan(name, train.lr, train.embedding_lr or 2 * train.lr)
    return OptimizerPlan("adamw", train.lr)


def train(
    folder: Path,
    *,
    model: Any = None,
    rows: Rows | None = None,
    val_rows: Rows | None = None,
    seed: int = 3,
    tokenizer: str = "",
    lora: bool = False,
    lora_dropout: float = 0.2,
    layout: str = "packed",
    keep: int = 2,
    hardware: Hardware = HARDWARE,
    gpu: str = "",
    sharding: str = "none",
    resume: bool = True,
    scratch: Path | None = None,
    trackers: Sequence[str] = (),
    **changes: Any,
) -> Any:
    """Train into `folder`; returns the model as `train_model` leaves it and what it returns.

    The model has dropout, so a resumed run that draws other random numbers ends with other weights.

    Args:
        gpu: precision on a GPU; empty for the CPU.
        lora: train adapters, which have dropout too, of a model that stays.
        layout: "padded" trains on 12 records with a prompt and validates on 5 others.
    """
    if gpu:
        hardware = Hardware("cuda", gpu, compile=False, threads=1, capability="test")
        make_deterministic(hardware, seed=0)
    if model is None:
        model = tiny_model(dropout=0.3)
    if lora:
        model = add_adapters(model, Lora(rank=2, dropout=lora_dropout, targets=("q_proj", "down_proj")), seed=2)
    if layout == "padded":
        rows, val_rows = (padded(folder / f"{n} records", n, seed=n) for n in (12, 5))
    else:
        rows, val_rows = rows or packed(LENGTHS, seed=1), val_rows or packed((9, 1, 13), seed=2)
    outcome = loop.train_model(
        model,
        Recipe(
            train=settings(**changes),
            optimizer=plan_of(settings(**changes)),
            runtime=Runtime(progress="off", keep_checkpoints=keep, sharding=sharding, resume=resume, trackers=trackers),
            hardware=hardware,
            seed=seed,
            rows=rows,
            val_rows=val_rows,
            tokenizer=tokenizer,
        ),
        RunFolders(scratch or folder / "scratch", curves=folder / "curves", logs=folder, trackers=folder),
        record={"params": {}, "environment": ENVIRONMENT},
    )
    return model, outcome.best


def seed_everything() -> None:
    """Do what `make_deterministic` does in the stage, before the model is built."""
    import random

    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_between_steps(step: int) -> None:
    """Die when `step` steps are done and saved, before anything of the next one."""
    optimizer_step = loop.optimizer_step

    def deadly(run: Run) -> dict[str, float]:
        if run.step == step:
            _die()
        return optimizer_step(run)

    loop.optimizer_step = deadly


def _kill_in_save(step: int, file: str) -> None:
    """Die with half of `file` of the checkpoint of `step` on the disk."""
    import safetensors.torch

    save = safetensors.torch.save_file

    def deadly(tensors: Any, path: Path) -> None:
        save(tensors, path)
        path = Path(path)
        inside = path.name == file and f"step-{step:08d}" in path.parent.name
        if inside or (file == "best" and f".{step:08d}.safetensors" in path.name):
            os.truncate(path, path.stat().st_size // 2)
            _die()

    safetensors.torch.save_file = deadly


def _kill_in_history(step: int, history: str) -> None:
    """Die with half of a line of `step` in the history ("line"), or after its last line, before the checkpoint ("mark")."""
    append, mark = History.append, History.mark

    def half(self: History, point: dict[str, Any]) -> None:
        append(self, point)
        if point["step"] == step:
            os.truncate(self.file, self.bytes - 9)
            _die()

    def deadly(self: History) -> dict[str, Any]:
        found = mark(self)
        if list(self.points())[-1]["step"] == step:
            _die()
        return found

    if history == "line":
        History.append = half
    else:
        History.mark = deadly


def _run(order: dict[str, Any], rank: dict[str, str]) -> None:
    """Follow the order as one process of a run; never return."""
    os.chdir(order["folder"])
    os.environ.update(rank)
    seed_everything()
    if kill := order.get("kill"):
        deadly = {"file": _kill_in_save, "history": _kill_in_history}
        next((deadly[key] for key in deadly if key in kill), _kill_between_steps)(**kill)
    changes = order["changes"]
    if "model" in order:
        changes["model"] = tiny_model(**order["model"]).double()
    status = 1
    try:
        train(Path(order["folder"]), **changes)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _serve() -> None:
    """A line of JSON in, {"folder", "kill", "changes", "model", "ranks"}; the exit status of each process out.

    "model" asks for a tiny model in double precision; "ranks" lists the environment variables of each process.
    """
    import accelerate  # noqa: F401 - loaded here once, not in each child
    import dvclive  # noqa: F401
    import peft  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.optim.AdamW(tiny_model().parameters())
    # what a process does once takes most of the time of such a run; a rank counts its device
    for device in ("cpu", "cpu:0"):
        matmul_peak(torch.device(device), "fp32")
    add_adapters(tiny_model(), Lora(rank=2, targets=("q_proj",)), seed=2)
    for line in sys.stdin:
        order = json.loads(line)
        children = []
        for rank in order.get("ranks", [{}]):
            if (child := os.fork()) == 0:
                _run(order, rank)
            children.append(child)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)


if __name__ == "__main__":
    _serve()
