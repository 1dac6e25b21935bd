"""Train the model of params.yaml on the packed rows, from scratch or from a model on disk; an interrupted run resumes.

Checkpoints are in .cache/train. models/model gets the weights of the best validation, in the Hugging Face layout;
adapters are merged into it, and are also in its folder adapter. models/checkpoints gets the last step, for
train.resume_from. Curves are in reports/train, timings in logs/train.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from codex_ml.core.config import Section, Seed
from codex_ml.core.folders import scratch_folder
from codex_ml.core.ranks import rank
from codex_ml.core.record import cpu_threads
from codex_ml.core.stage import Stage, checked_params, log, run_stage
from codex_ml.modeling.process import prepare_process
from codex_ml.train.config import Model, Train
from codex_ml.train.launch import among_others, launch


class Params(Section):
    """What this stage reads of params.yaml."""

    seed: Seed = 1
    model: Model = Model()
    train: Train = Train()


def main(stage: Stage[Params]) -> None:
    from codex_ml.core.hashing import sha256_of
    from codex_ml.core.io import atomic_folder
    from codex_ml.modeling.hardware import make_deterministic
    from codex_ml.modeling.rows import Rows
    from codex_ml.train.checkpoint import export_newest
    from codex_ml.train.loop import train_model
    from codex_ml.train.model.describe import describe_model, describe_run
    from codex_ml.train.model.prepare import save_tokenizer, save_trained, trainable_model
    from codex_ml.train.recipe import Recipe, RunFolders, hardware_for, optimizer_plan
    from codex_ml.train.scratch import run_folder
    from codex_ml.train.training_memory import fit_here

    params, packed, tokenizer = stage.params, stage.dep("data/packed"), stage.dep("models/tokenizer")
    stage.check_plugins(params.model.plugins)
    stage.require(params.model.path or "models/base")
    stage.require(params.train.resume_from or "models/base")
    rows, val_rows = (Rows.open(packed, name) for name in ("train", "val"))  # refuses damaged files before torch loads
    hardware = hardware_for(params.model, params.train, stage.runtime)
    make_deterministic(hardware, seed=params.seed)
    stage.warn(fit_here(params.model, params.train, stage.runtime, packed, device=hardware.device))
    unpacked = scratch_folder() / "models"
    with among_others(), run_folder(scratch_folder() / "train", stage.record, hardware) as scratch:
        model = trainable_model(
            params.model, params.train, packed, device=hardware.device, seed=params.seed, scratch=unpacked
        )
        described = None if rank() else describe_model(model, params.model)
        plan, digest = optimizer_plan(params.model, params.train), sha256_of(tokenizer / "tokenizer.json")
        recipe = Recipe(params.train, plan, stage.runtime, hardware, params.seed, rows, val_rows, tokenizer=digest)
        result = train_model(model, recipe, RunFolders.of_stage(scratch), record=stage.record)
        if described is None:
            return
        with atomic_folder(stage.out("models/checkpoints")) as folder:
            export_newest(scratch, folder / "last")
        with atomic_folder(stage.out("models/model")) as folder:
            save_trained(model, folder, params.model, scratch=unpacked)
            describe_run(recipe, result, model=described, tokenizer=tokenizer).write(folder / "training.json")
            save_tokenizer(tokenizer, folder, model.config, seq_len=rows.seq_len)
    log.info("train: kept the weights of step %(step)d, validation loss %(val/loss).4f nats", result.best)


def prepare() -> None:
    prepare_process(compiles=True)
    params, runtime = checked_params(Params)
    launch(runtime.processes, threads=cpu_threads(params.train.threads))


if __name__ == "__main__":
    run_stage("train", main, Params, prepare=prepare, parallel=True)
