"""Train: a Llama-shaped model from scratch on the packed stream; an interrupted run goes on from its last checkpoint.

Checkpoints lie in .cache/train/<fingerprint of parameters, inputs, code and hardware>. The output is the best
checkpoint by validation loss, in the plain Hugging Face layout. Curves: reports/train, timings: logs/train.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

import shutil
from functools import partial

from codex_ml.stage import Stage, log, run_stage, scratch_folder
from codex_ml.training.process import prepare_process


def main(stage: Stage) -> None:
    from codex_ml.data.pack import Rows
    from codex_ml.io import atomic_folder, read_json, write_json
    from codex_ml.modeling.build import build_model, parameter_count
    from codex_ml.training.device import choose_hardware, make_deterministic
    from codex_ml.training.loop import train_model
    from codex_ml.training.scratch import run_folder

    params, packed = stage.params, stage.dep("data/packed")
    hardware = choose_hardware(params.train, stage.runtime, threads=stage.record["environment"]["threads"])
    make_deterministic(hardware, seed=params.seed)
    about = read_json(packed / "pack.json")
    model = build_model(
        params.model, vocab_size=about["vocab_size"], end=about["end"], pad=about["pad"], seed=params.seed
    )
    log.info("train: %.2f M parameters, %s", parameter_count(model) / 1e6, hardware)
    rows = params.train.micro_batch_size * params.train.accumulation
    seen = {"seed": params.seed, "rows_a_step": rows, "seq_len": about["seq_len"]}
    with run_folder(scratch_folder() / "train", stage.record, hardware) as scratch:
        best = train_model(
            model,
            Rows.open(packed, "train"),
            Rows.open(packed, "val"),
            train=params.train,
            runtime=stage.runtime,
            hardware=hardware,
            seed=params.seed,
            scratch=scratch,
            curves=Path("reports/train"),
            events=Path("logs/train/events.ndjson"),
        )
        with atomic_folder(stage.out("models/model")) as folder:
            model.save_pretrained(folder)
            write_json(folder / "training.json", {**seen, "global_step": best["step"]})
            for file in ("tokenizer.json", "tokenizer_config.json"):  # byte for byte, so that no setting creeps in
                shutil.copyfile(stage.dep("models/tokenizer") / file, folder / file)
        shutil.rmtree(scratch)
    log.info("train: kept the weights of step %d, validation loss %.4f nats", best["step"], best["val/loss"])


if __name__ == "__main__":
    run_stage("train", main, help=__doc__, prepare=partial(prepare_process, compiles=True))
