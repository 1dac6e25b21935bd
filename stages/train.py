"""Train: the model of params.yaml on the packed rows, from scratch or on; an interrupted run goes on where it was.

Checkpoints lie in .cache/train/<fingerprint of parameters, inputs, code and hardware>. The outputs are the weights of
the best validation, in the plain Hugging Face layout (with adapters: merged, and beside it adapter/), and in
models/checkpoints the last step with all that another run needs to go on from it (train.resume_from). Curves:
reports/train; timings: logs/train.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from codex_ml.core.config import Section, Seed
from codex_ml.core.ranks import rank
from codex_ml.core.record import cpu_threads
from codex_ml.core.stage import Stage, checked_params, log, logs_folder, run_stage, scratch_folder
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
    from codex_ml.core.io import atomic_folder, read_json, write_json
    from codex_ml.modeling.hardware import choose_hardware, make_deterministic
    from codex_ml.modeling.rows import Rows
    from codex_ml.train.checkpoint import export_newest
    from codex_ml.train.loop import train_model
    from codex_ml.train.model.describe import describe_model, tokenizer_kind
    from codex_ml.train.model.prepare import attention_for, make_trainable, prepare_model, save_tokenizer, save_trained
    from codex_ml.train.recipe import Recipe, RunFolders
    from codex_ml.train.scratch import run_folder

    params, packed, tokenizer = stage.params, stage.dep("data/packed"), stage.dep("models/tokenizer")
    stage.require(params.model.path or "models/base")
    stage.require(params.train.resume_from or "models/base")
    hardware = choose_hardware(
        stage.runtime,
        threads=cpu_threads(params.train.threads),
        precision=params.train.precision,
        compile=params.train.compile,
        max_steps=params.train.max_steps,
        compiles=not params.model.is_encoder_decoder and stage.runtime.sharding == "none",
    )
    make_deterministic(hardware, seed=params.seed)
    about, unpacked = read_json(packed / "pack.json"), scratch_folder() / "models"
    with among_others(), run_folder(scratch_folder() / "train", stage.record, hardware) as scratch:
        prepared = prepare_model(
            params.model,
            about,
            attention=attention_for(params.train, hardware.device),
            seed=params.seed,
            new_tokenizer=about["tokenizer_kind"] != "local",
            scratch=unpacked,
        )
        model = make_trainable(prepared, params.model, params.train, seed=params.seed)
        log.info("train: %s", hardware)
        facts = {} if rank() else {"model": describe_model(model, params.model), "tokenizer": tokenizer_kind(tokenizer)}
        recipe = Recipe(
            train=params.train,
            runtime=stage.runtime,
            hardware=hardware,
            seed=params.seed,
            rows=Rows.open(packed, "train"),
            val_rows=Rows.open(packed, "val"),
            tokenizer=sha256_of(tokenizer / "tokenizer.json"),
        )
        logs, trackers = logs_folder() / "train", logs_folder(shared=True) / "train"
        folders = RunFolders(scratch, curves=Path("reports/train"), logs=logs, trackers=trackers)
        result = train_model(model, recipe, folders, parameters=stage.record["params"])
        if rank():
            return
        with atomic_folder(stage.out("models/checkpoints")) as folder:
            export_newest(scratch, folder / "last")
        with atomic_folder(stage.out("models/model")) as folder:
            save_trained(model, folder, params.model, scratch=unpacked)
            rows = params.train.micro_batch_size * params.train.accumulation
            seen = {"seed": params.seed, "rows_a_step": rows, "seq_len": about["seq_len"]}
            steps = {"global_step": result.best["step"], **result.details}
            used = {
                "device": hardware.device,
                "precision": hardware.precision,
                "compile": hardware.compile,
                "threads": params.train.threads,
            }
            write_json(folder / "training.json", {**seen, **steps, **facts, "hardware": used})
            save_tokenizer(tokenizer, folder, model.config, seq_len=about["seq_len"])
    best = result.best
    log.info("train: kept the weights of step %d, validation loss %.4f nats", best["step"], best["val/loss"])


def prepare() -> None:
    prepare_process(compiles=True)
    params, runtime = checked_params(Params)
    launch(runtime.processes, threads=cpu_threads(params.train.threads))


if __name__ == "__main__":
    run_stage("train", main, Params, prepare=prepare, parallel=True)
