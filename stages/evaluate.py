"""Evaluate: bits per byte, perplexity and token accuracy on the test split, with intervals, compared with zlib.

zlib at level 9 compresses each document alone, as the model reads each document alone. If the tokenizer does not
reproduce every test document, the stage writes no bits per byte, because the tokens are not the whole text.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from codex_ml.core.config import Section, Seed
from codex_ml.core.stage import Stage, log, run_stage
from codex_ml.evaluate.config import Evaluate
from codex_ml.modeling.process import prepare_process

COMPARED = ("bits_per_byte", "lossy", "zlib_bits_per_byte", "perplexity", "token_accuracy", "documents")


class Params(Section):
    """What this stage reads of params.yaml."""

    seed: Seed = 1
    evaluate: Evaluate = Evaluate()


def main(stage: Stage[Params]) -> None:
    from codex_ml.core.io import write_text
    from codex_ml.core.record import cpu_threads
    from codex_ml.documents.document import count_documents, read_documents
    from codex_ml.evaluate.summary import by_source, document_score, summary
    from codex_ml.inference.evaluate_files import DocumentScore
    from codex_ml.inference.likelihood import Scoring, score
    from codex_ml.modeling.examples import Scorable, scorables
    from codex_ml.modeling.hardware import inference_device
    from codex_ml.modeling.train_files import Training
    from codex_ml.modeling.trained_model import load_model
    from codex_ml.tokens.text_tokenizer import load_tokenizer

    settings, folder = stage.params.evaluate, stage.dep("models/model")
    training = Training.read(folder / "training.json")
    model = load_model(folder, device=inference_device(stage.runtime, threads=cpu_threads(training.hardware.threads)))
    tokenizer = load_tokenizer(folder)
    test = stage.dep("data/splits/test.parquet")
    found = scorables(read_documents(test), tokenizer, loss_on=training.loss_on, length=training.seq_len)
    pairs = [(d, item) for d, item in zip(read_documents(test), found, strict=True) if isinstance(item, Scorable)]
    scores = score(model, (item for _, item in pairs), Scoring(training.seq_len, batch_size=settings.batch_size))
    scores = stage.track(scores, "evaluate", count_documents(test), "documents")
    rows = [document_score(d, item.text, one) for (d, item), one in zip(pairs, scores, strict=True)]
    lossy = sum(not item.lossless for _, item in pairs)
    result = summary(rows, settings, seed=stage.params.seed, lossy=lossy)
    DocumentScore.write_lines(stage.out("reports/evaluate/documents.ndjson"), rows)
    write_text(stage.out("reports/evaluate/by_source.csv"), by_source(rows, lossy=lossy))
    stage.write_numbers(result.as_json(), compared=COMPARED)
    if result.lossy:
        perplexity = "not finite" if result.perplexity is None else result.perplexity
        log.warning("evaluate: WARNING: %s", result.lossy.reason)
        log.info("evaluate: perplexity %s per token on test, no bits per byte", perplexity)
    else:
        log.info("evaluate: %s bits per byte on test, zlib %s", result.bits_per_byte, result.zlib_bits_per_byte)


if __name__ == "__main__":
    run_stage("evaluate", main, Params, prepare=prepare_process)
