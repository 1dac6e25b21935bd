"""Evaluate: likelihood of the test split, generated text and executed code, every number with an interval.

If the tokenizer does not reproduce every test document, there is no bits per byte, because the tokens are not the whole
text.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from codex_ml.core.config import Section, Seed
from codex_ml.core.stage import Stage, checked_params, log, run_stage
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
    from codex_ml.inference.evaluate_files import PLOT_FILES
    from codex_ml.modeling.canary_files import hide_canaries
    from codex_ml.modeling.examples import rough_tokens
    from codex_ml.modeling.hardware import scoring_hardware
    from codex_ml.modeling.train_files import Training
    from codex_ml.modeling.trained_model import load_model
    from codex_ml.policy.cleaner import load_cleaner
    from codex_ml.tokens.text_tokenizer import load_tokenizer

    folder, test = stage.dep("models/model"), stage.dep("data/splits/test.parquet")
    training = Training.read(folder / "training.json")
    hardware = scoring_hardware(
        stage.runtime,
        threads=cpu_threads(training.hardware.threads),
        precision=stage.params.evaluate.precision,
        tokens=rough_tokens(test),
        seq_len=training.seq_len,
    )
    subject = Subject(
        model=load_model(folder, device=hardware.device),
        tokenizer=load_tokenizer(folder),
        length=training.seq_len,
        loss_on=training.loss_on,
        template=training.template,
        precision="bf16" if hardware.precision == "bf16" else "fp32",
        digest=stage.record["deps"]["models/model"]["sha256"],
        compile=hardware.compile and not training.model.encoder_decoder,
    )
    clean = load_cleaner(*map(stage.dep, ("data/policy.yaml", "data/detectors.lock", "data/redaction_key")))
    redact = hide_canaries(clean, stage.dep("data/packed"))
    data = EvaluationData(test=test, train=stage.dep("data/splits/train.parquet"), redact=redact)
    for benchmark in stage.params.evaluate.benchmarks:
        stage.require(benchmark)
    for name in ("details.json", "metrics.json", "results", *(f"plots/{plot}" for plot in PLOT_FILES)):
        stage.out(f"reports/evaluate/{name}")
    found = evaluate(
        subject, data, stage.params.evaluate, stage.metrics.parent, seed=stage.params.seed, track=stage.track
    )
    for note in found.notes:
        log.warning("evaluate: %s", note)
    stage.announce(headlines(found))


def prepare() -> None:
    prepare_process(compiles=checked_params(Params)[0].evaluate.precision != "fp32")


if __name__ == "__main__":
    run_stage("evaluate", main, Params, prepare=prepare)
