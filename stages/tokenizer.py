"""Tokenizer: train a tokenizer on the whole documents of train, or import a local one.

Measures it on val. Counts the documents of train, val and test that decode to a different text (details.json), and
lists the first ones in reports/tokenizer/lost.json.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from codex_ml.core.config import Section
from codex_ml.core.stage import Stage, log, run_stage
from codex_ml.tokenizer.config import Tokenizer

COMPARED = ("vocab_size", "bytes_per_token", "lossless")


class Params(Section):
    """The sections of params.yaml that this stage reads."""

    tokenizer: Tokenizer = Tokenizer()


def main(stage: Stage[Params]) -> None:
    from codex_ml.core.io import atomic_folder, write_json
    from codex_ml.documents.document import count_documents, read_documents
    from codex_ml.tokenizer.measure import tokenizer_metrics
    from codex_ml.tokenizer.training import train_tokenizer
    from codex_ml.tokens import lossless
    from codex_ml.tokens.text_tokenizer import load_tokenizer
    from codex_ml.tokens.tokenizer_files import TokenizerDetails

    settings = stage.params.tokenizer
    stage.check_plugins(settings.plugins)
    stage.require(settings.path or "models/base")
    files = {part: stage.dep(f"data/splits/{part}.parquet") for part in ("train", "val", "test")}
    train, val = files["train"], files["val"]

    def texts() -> Iterator[str]:
        documents = stage.track(read_documents(train), "tokenizer", count_documents(train), "documents")
        return (document.content for document in documents)

    with atomic_folder(stage.out("models/tokenizer")) as folder:
        growth = train_tokenizer(
            texts,
            settings,
            folder,
            held_out=lambda: (document.content for document in read_documents(val)),
        )
    tokenizer = load_tokenizer(Path("models/tokenizer"))
    trips = [lossless.RoundTrip(part) for part in files]
    for trip, file in zip(trips, files.values(), strict=True):
        ids = trip.watch(tokenizer, read_documents(file))
        for _ in stage.track(ids, f"decode {trip.split}", count_documents(file), "documents"):
            pass
    numbers = tokenizer_metrics(tokenizer, ((document.language, document.content) for document in read_documents(val)))
    numbers |= lossless.numbers(trips) | ({"growth": growth.as_json()} if growth else {})
    write_json(stage.out("reports/tokenizer/lost.json"), lossless.rows(trips))
    stage.write_numbers(TokenizerDetails.model_validate(numbers).as_json(), compared=COMPARED)
    log.info(
        "tokenizer: %s", {name: value for name, value in numbers.items() if name not in ("languages", "lost", "growth")}
    )
    if lost := lossless.loss_summary(trips):
        log.warning("tokenizer: WARNING: %s; evaluate gives no bits per byte if test loses text", lost)


if __name__ == "__main__":
    run_stage("tokenizer", main, Params)
