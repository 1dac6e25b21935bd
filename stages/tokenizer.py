"""Tokenizer: train a byte-level BPE on the train split, whole documents, and measure it on the validation split."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from codex_ml.stage import Stage, log, run_stage


def main(stage: Stage) -> None:
    from codex_ml.data.documents import count_documents, read_documents
    from codex_ml.io import atomic_folder, write_json
    from codex_ml.progress import track
    from codex_ml.tokenization.tokenizer import load_tokenizer, measure, save_tokenizer, train_byte_bpe

    settings = stage.params.tokenizer
    file = stage.dep("data/splits/train.parquet")
    documents = track(
        read_documents(file), "tokenizer", count_documents(file), "documents", style=stage.runtime.progress
    )
    texts = (document.content for document in documents)
    tokenizer = train_byte_bpe(texts, settings.vocab_size)
    with atomic_folder(stage.out("models/tokenizer")) as folder:
        save_tokenizer(tokenizer, folder)
    held_out = (document.content for document in read_documents(stage.dep("data/splits/val.parquet")))
    numbers = measure(load_tokenizer(Path("models/tokenizer")), held_out)
    write_json(stage.metrics, numbers)
    log.info("tokenizer: %s", numbers)


if __name__ == "__main__":
    run_stage("tokenizer", main, help=__doc__)
