"""Tokenizer: train the one of params.yaml on the train split, whole documents, or take a local one; measure on val."""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from codex_ml.stage import Stage, log, run_stage


def main(stage: Stage) -> None:
    from codex_ml.data.documents import count_documents, read_documents
    from codex_ml.io import atomic_folder, write_json
    from codex_ml.progress import track
    from codex_ml.tokenization.measure import measure
    from codex_ml.tokenization.tokenizer import load_tokenizer
    from codex_ml.tokenization.train import train_tokenizer

    settings = stage.params.tokenizer
    stage.dep(settings.path or "models/base")
    train, val = (stage.dep(f"data/splits/{part}.parquet") for part in ("train", "val"))

    def texts() -> Iterator[str]:
        documents = track(
            read_documents(train), "tokenizer", count_documents(train), "documents", style=stage.runtime.progress
        )
        return (document.content for document in documents)

    with atomic_folder(stage.out("models/tokenizer")) as folder:
        train_tokenizer(
            texts,
            settings,
            folder,
            held_out=lambda: (document.content for document in read_documents(val)),
        )
    numbers = measure(
        load_tokenizer(Path("models/tokenizer")),
        ((document.language, document.content) for document in read_documents(val)),
    )
    write_json(stage.metrics, numbers)
    log.info("tokenizer: %s", {name: value for name, value in numbers.items() if name != "languages"})
    if numbers["lossless"] < 1:
        log.info(
            "tokenizer: %.2f %% of the texts do not come back whole; bits per byte of such a tokenizer say nothing",
            100 - 100 * numbers["lossless"],
        )


if __name__ == "__main__":
    run_stage("tokenizer", main, help=__doc__)
