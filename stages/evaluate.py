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
    from codex_ml.inference.likelihood import score_documents
    from codex_ml.modeling.hardware import inference_device
    from codex_ml.modeling.train_files import Training
    from codex_ml.modeling.trained_model import load_model
    from codex_ml.tokens.lossless import RoundTrip
    from codex_ml.tokens.text_tokenizer import load_tokenizer

    settings, folder = stage.params.evaluate, stage.dep("models/model")
    training = Training.read(folder / "training.json")
    model = load_model(folder, device=inference_device(stage.runtime, threads=cpu_threads(training.hardware.threads)))
    tokenizer = load_tokenizer(folder)
    test, trip = stage.dep("data/splits/test.parquet"), RoundTrip("test")
    scores = score_documents(
        model,
        trip.watch(tokenizer, read_documents(test)),
        end=tokenizer.end,
        begin=tokenizer.begin,
        length=training.seq_len,
        batch_size=settings.batch_size,
    )
    scores = stage.track(scores, "evaluate", count_documents(test), "documents")
    rows = [document_score(document, score) for document, score in zip(read_documents(test), scores, strict=True)]
    chats = sum(document.messages is not None for document in read_documents(test))
    found = summary(rows, settings, seed=stage.params.seed, lossy=trip.lossy, chats=chats)
    DocumentScore.write_lines(stage.out("reports/evaluate/documents.ndjson"), rows)
    write_text(stage.out("reports/evaluate/by_source.csv"), by_source(rows, lossy=trip.lossy))
    stage.write_numbers(found.as_json(), compared=COMPARED)
    if chats:
        log.warning(
            "evaluate: %d chats are scored as lines of `role: content`, not as the chat template writes them", chats
        )
    if found.lossy:
        perplexity = "not finite" if found.perplexity is None else found.perplexity
        log.warning("evaluate: WARNING: %s", found.lossy.reason)
        log.info("evaluate: perplexity %s per token on test, no bits per byte", perplexity)
    else:
        log.info("evaluate: %s bits per byte on test, zlib %s", found.bits_per_byte, found.zlib_bits_per_byte)


if __name__ == "__main__":
    run_stage("evaluate", main, Params, prepare=prepare_process)
