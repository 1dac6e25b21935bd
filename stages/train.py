"""Train: the model of params.yaml on the packed rows, from scratch or on; an interrupted run goes on where it was.

Checkpoints lie in .cache/train/<fingerprint of parameters, inputs, code and hardware>. The outputs are the weights of
the best validation, in the plain Hugging Face layout (with adapters: merged, and beside it adapter/), and in
models/checkpoints the last step with all that another run needs to go on from it (train.resume_from). Curves:
reports/train; timings: logs/train.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from codex_ml.core.ranks import rank
from codex_ml.core.record import cpu_threads
from codex_ml.core.stage import Stage, checked_params, log, logs_folder, run_stage, scratch_folder
from codex_ml.modeling.process import prepare_process
from codex_ml.train.launch import among_others, launch


def main(stage: Stage) -> None:
    from codex_ml.core.io import atomic_folder, read_json, sha256_of, write_json
    from codex_ml.modeling.hardware import choose_hardware, make_deterministic
    from codex_ml.modeling.rows import Rows
    from codex_ml.train.checkpoint import export_newest
    from codex_ml.train.loop import train_model
    from codex_ml.train.model.describe import describe_model, tokenizer_kind
    from codex_ml.train.model.prepare import prepare_model, save_tokenizer, save_trained
    from codex_ml.train.scratch import run_folder

    params, packed, tokenizer = stage.params, stage.dep("data/packed"), stage.dep("models/tokenizer")
    stage.dep(params.model.path or "models/base")
    stage.dep(params.train.resume_from or "models/base")
    hardware = choose_hardware(
        params.train,
        stage.runtime,
        threads=stage.record["environment"]["threads"],
        compiles=not params.model.is_encoder_decoder and stage.runtime.sharding == "none",
    )
    make_deterministic(hardware, seed=params.seed)
    about, unpacked = read_json(packed / "pack.json"), scratch_folder() / "models"
    with among_others(), run_folder(scratch_folder() / "train", stage.record, hardware) as scratch:
        model = prepare_model(
            params.model,
            params.train,
            about,
            seed=params.seed,
            device=hardware.device,
            new_tokenizer=params.tokenizer.kind != "local",
            scratch=unpacked,
        )
        log.info("train: %s", hardware)
        facts = {} if rank() else {"model": describe_model(model, params.model), "tokenizer": tokenizer_kind(tokenizer)}
        outcome = train_model(
            model,
            Rows.open(packed, "train"),
            Rows.open(packed, "val"),
            train=params.train,
            runtime=stage.runtime,
            hardware=hardware,
            seed=params.seed,
            scratch=scratch,
            curves=Path("reports/train"),
            logs=logs_folder() / "train",
            trackers=logs_folder(shared=True) / "train",
            config=stage.record["params"],
            tokenizer=sha256_of(tokenizer / "tokenizer.json"),
        )
        if rank():
            return
        with atomic_folder(stage.out("models/checkpoints")) as folder:
            export_newest(scratch, folder / "last")
        with atomic_folder(stage.out("models/model")) as folder:
            save_trained(model, folder, params.model, scratch=unpacked)
            rows = params.train.micro_batch_size * params.train.accumulation
            seen = {"seed": params.seed, "rows_a_step": rows, "seq_len": about["seq_len"]}
            steps = {"global_step": outcome.best["step"], **outcome.details}
            used = {"device": hardware.device, "precision": hardware.precision, "compile": hardware.compile}
            write_json(folder / "training.json", {**seen, **steps, **facts, "hardware": used})
            save_tokenizer(tokenizer, folder, model.config, seq_len=about["seq_len"])
    best = outcome.best
    log.info("train: kept the weights of step %d, validation loss %.4f nats", best["step"], best["val/loss"])


def prepare() -> None:
    prepare_process(compiles=True)
    settings = checked_params()
    launch(settings.runtime.processes, threads=cpu_threads(settings))


if __name__ == "__main__":
    run_stage("train", main, help=__doc__, prepare=prepare, parallel=True)
