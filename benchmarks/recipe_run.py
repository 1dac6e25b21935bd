"""Train one setting of recipe.py in a process of its own and print its record, one line of JSON.

    python benchmarks/recipe_run.py JOB

JOB is JSON (`RecipeJob`). recipe.py sets the variables of allocator, threads and compiler.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from measuring import cpu_name  # noqa: E402
from recipe_settings import ROWS, SIZES, VALIDATIONS  # noqa: E402

from codex_ml.train.config import Model, Train  # noqa: E402

NEVER = 10**9
DIGITS = 5


@dataclass(frozen=True)
class RecipeJob:
    """A run.

    Attributes:
        setting, size: names in recipe_settings.py.
        steps: budget, in steps of ROWS rows.
        content: `Setting.content` of the setting.
        data: folder with packed/ and, if `test`, splits/ and the tokenizer.
        test: whether to measure bits per byte on the test split, as evaluate does.
        precision, compile: of `train`.
    """

    setting: str
    size: str
    seed: int
    steps: int
    content: dict[str, Any]
    threads: int
    data: str
    test: bool = False
    precision: str = "auto"
    compile: bool = True

    @property
    def model(self) -> Model:
        """The shape."""
        return Model.model_validate({**SIZES[self.size].model, **self.content["model"]})

    @property
    def train(self) -> Train:
        """The section `train` of this run: as many steps as the budget has rows for, at most half of them warm-up."""
        recipe = self.content["recipe"]
        steps = max(1, self.steps * ROWS // (recipe["micro_batch_size"] * recipe["accumulation"]))
        of_run = {
            "max_steps": steps, "eval_every": max(1, steps // VALIDATIONS), "eval_rows": 128, "log_every": 5,
            "checkpoint_every": NEVER, "precision": self.precision, "compile": "on" if self.compile else "off",
            "threads": self.threads,
        }  # fmt: skip
        warmup = recipe["warmup_steps"]
        return Train.model_validate({**recipe, **of_run, "warmup_steps": min(warmup, max(1, steps // 2))})


def command(job: RecipeJob) -> list[str]:
    """Return the command that starts this file for a job."""
    return [sys.executable, __file__, json.dumps(asdict(job))]


def origin() -> dict[str, str]:
    """Return what a record says about its machine and its day."""
    import torch

    return {"torch": torch.__version__, "machine": cpu_name(), "date": date.today().isoformat()}


def change_groups(changes: dict[str, dict[str, float]]) -> None:
    """Let the optimizers of this process differ from the library's, by kind of parameter (`Setting.groups`)."""
    from codex_ml.train import run
    from codex_ml.train.optimizer import parameter_kinds

    build = run.build_optimizer

    def changed(model: Any, train: Train, plan: Any, *, precision: str) -> Any:
        optimizer = build(model, train, plan, precision=precision)
        kinds = {id(p): kind for (_, p), kind in zip(_trained(model), parameter_kinds(model).values(), strict=True)}
        for group in optimizer.param_groups:
            (kind,) = {kinds[id(parameter)] for parameter in group["params"]}
            change = changes.get(kind, {})
            group["peak"] *= change.get("rate", 1)
            group["weight_decay"] = change.get("weight_decay", group["weight_decay"])
        return optimizer

    run.build_optimizer = changed


def _trained(model: Any) -> list[tuple[str, Any]]:
    from codex_ml.train.model.adapters import trainable_parameters

    return list(trainable_parameters(model).items())


def record_of(job: RecipeJob) -> dict[str, Any]:
    """Train, and return the record of the run."""
    from codex_ml.core.config import Runtime
    from codex_ml.core.strict_json import parse_json
    from codex_ml.modeling.hardware import make_deterministic
    from codex_ml.modeling.rows import Rows
    from codex_ml.train.history import HISTORY
    from codex_ml.train.loop import train_model
    from codex_ml.train.model.prepare import trainable_model
    from codex_ml.train.recipe import Recipe, RunFolders, hardware_for, optimizer_plan

    train, runtime, packed = job.train, Runtime(device="cpu", progress="off"), Path(job.data) / "packed"
    rows, val_rows = (Rows.open(packed, name) for name in ("train", "val"))
    shape = job.model.model_copy(update={"max_positions": rows.seq_len})
    hardware, plan = hardware_for(shape, train, runtime), optimizer_plan(shape, train)
    make_deterministic(hardware, seed=job.seed)
    change_groups(job.content["groups"])
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = trainable_model(shape, train, packed, device="cpu", seed=job.seed, scratch=folder / "models")
        recipe = Recipe(train, plan, runtime, hardware, job.seed, rows, val_rows, tokenizer="")
        started = time.monotonic()
        train_model(
            model, recipe, RunFolders(folder / "run", folder / "curves", folder / "logs", folder / "logs"),
            record={"params": {}, "environment": {}},
        )  # fmt: skip
        seconds = time.monotonic() - started
        history = [parse_json(line) for line in (folder / "run" / HISTORY).read_bytes().splitlines()]
        events = [parse_json(line) for line in (folder / "logs/events.ndjson").read_bytes().splitlines()]
        bits = test_bits_per_byte(model, Path(job.data), rows.seq_len, folder / "trained") if job.test else None
    tokens = rows.seq_len * train.micro_batch_size * train.accumulation
    return {
        "setting": job.setting, "size": job.size, "seed": job.seed, "budget": job.steps, **job.content,
        "rates": {"lr": plan.lr, "embedding_lr": plan.embedding_lr},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": train.max_steps, "tokens": tokens * train.max_steps,
        "val": {point["step"]: round(point["val/loss"], DIGITS) for point in history if "val/loss" in point},
        "test_bits_per_byte": bits,
        "seconds_per_step": round(median(seconds_per_step(e, tokens) for e in events if "step" in e), DIGITS),
        "seconds": round(seconds, 1),
        "threads": hardware.threads, "precision": hardware.precision, "compile": hardware.compile,
        **origin(),
    }  # fmt: skip


def seconds_per_step(event: dict[str, Any], places: int) -> float:
    """Seconds of a step with this many places in its rows; the rate in the log counts trained tokens only."""
    return places * (1 - float(event["untrained"])) / float(event["tokens_per_second"])


def test_bits_per_byte(model: Any, data: Path, seq_len: int, folder: Path) -> float:
    """Score the test split with the saved model, in float32, as stages/evaluate.py does."""
    from codex_ml.documents.document import read_documents
    from codex_ml.inference.likelihood import Scoring, score
    from codex_ml.modeling.examples import scorables
    from codex_ml.modeling.trained_model import load_model
    from codex_ml.tokens.text_tokenizer import load_tokenizer
    from codex_ml.train.model.adapters import save_model

    save_model(model, folder)
    tokenizer, test = load_tokenizer(data.parent / "models/tokenizer"), data / "splits/test.parquet"
    items = scorables(read_documents(test), tokenizer, loss_on="completions", length=seq_len)
    scores = score(load_model(folder), items, Scoring(seq_len))
    size = sum(len(document.content.encode()) for document in read_documents(test))
    return round(sum(one.nll for one in scores) / math.log(2) / size, DIGITS)


def main() -> None:
    """Run the job of the command line. stdout has the record alone; prints of libraries go to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(record_of(RecipeJob(**json.loads(sys.argv[1])))), file=answers, flush=True)


if __name__ == "__main__":
    main()
