"""Pack: encode the splits into memory-mapped token streams that training and the audit read by position."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from codex_ml.stage import Stage, log, run_stage


def main(stage: Stage) -> None:
    from codex_ml.data.documents import count_documents, read_documents
    from codex_ml.data.pack import stream_dtype, write_stream
    from codex_ml.io import atomic_folder, write_json
    from codex_ml.progress import track
    from codex_ml.tokenization.tokenizer import load_tokenizer

    settings = stage.params.pack
    tokenizer = load_tokenizer(stage.dep("models/tokenizer"))
    vocab_size, end, pad = tokenizer.vocab_size, tokenizer.end, tokenizer.pad
    dtype = stream_dtype(vocab_size, settings.dtype)
    streams = {}
    with atomic_folder(stage.out("data/packed")) as folder:
        for part in ("train", "val", "test"):
            file = stage.dep(f"data/splits/{part}.parquet")
            documents = track(
                read_documents(file), f"pack {part}", count_documents(file), "documents", style=stage.runtime.progress
            )
            texts = (document.content for document in documents)
            streams[part] = write_stream(folder, part, tokenizer.encode_documents(texts), end=end, dtype=dtype)
            log.info("pack: %s %s", part, streams[part])
        about = {"dtype": dtype.str, "seq_len": settings.seq_len, "vocab_size": vocab_size, "end": end, "pad": pad}
        write_json(folder / "pack.json", {**about, "streams": streams})
    write_json(stage.metrics, streams)


if __name__ == "__main__":
    run_stage("pack", main, help=__doc__)
