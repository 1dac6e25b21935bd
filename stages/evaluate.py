"""Evaluate: likelihood of the test split, generated text and executed code, every number with an interval.

If the tokenizer does not reproduce every test document, there is no bits per byte, because the tokens are not the whole
text.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from codex_ml.core.config import Section, Seed
from codex_ml.core.stage import Stage, log, run_stage
from codex_ml.evaluate.config import Evaluate
from codex_ml.modeling.process import prepare_process


class Params(Section):
    """What this stage reads of params.yaml."""

    seed: Seed = 1
    evaluate: Evaluate = Evaluate()


def main(stage: Stage[Params]) -> None:
    from codex_ml.core.record import cpu_threads
    from codex_ml.evaluate.evaluation import evaluate, headlines
    from codex_ml.evaluate.job import EvaluationData, Subject
    from codex_ml.modeling.hardware import choose_hardware, inference_device
    from codex_ml.modeling.train_files import Training
    from codex_ml.modeling.trained_model import load_model
    from codex_ml.policy.cleaner import load_cleaner
    from codex_ml.tokens.text_tokenizer import load_tokenizer

    folder = stage.dep("models/model")
    training = Training.read(folder / "training.json")
    threads = cpu_threads(training.hardware.threads)
    device = inference_device(stage.runtime, threads=threads)
    hardware = choose_hardware(stage.runtime, threads=threads, precision=stage.params.evaluate.precision, compile="off")
    subject = Subject(
        model=load_model(folder, device=device),
        tokenizer=load_tokenizer(folder),
        length=training.seq_len,
        loss_on=training.loss_on,
        precision="bf16" if hardware.precision == "bf16" else "fp32",
        digest=stage.record["deps"]["models/model"]["sha256"],
    )
    data = EvaluationData(
        test=stage.dep("data/splits/test.parquet"),
        train=stage.dep("data/splits/train.parquet"),
        redact=load_cleaner(*map(stage.dep, ("data/policy.yaml", "data/detectors.lock", "data/redaction_key"))),
    )
    for name in ("details.json", "metrics.json", "results", "plots"):
        stage.out(f"reports/evaluate/{name}")
    found = evaluate(
        subject, data, stage.params.evaluate, stage.metrics.parent, seed=stage.params.seed, track=stage.track
    )
    for note in found.notes:
        log.warning("evaluate: %s", note)
    for line in headlines(found):
        log.info("evaluate: %s", line)


if __name__ == "__main__":
    run_stage("evaluate", main, Params, prepare=prepare_process)
