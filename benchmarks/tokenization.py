"""Speed of encoding texts to uint16 arrays: our engine and `tokenizers` in turns; all ids are compared.

    python benchmarks/tokenization.py                               # data/splits/train.parquet, vocabulary 4096
    python benchmarks/tokenization.py other.parquet --rounds 9

Rows:
    encode_batch         the default call of tokenizers
    encode_batch_fast    the same without offsets
    ours                 with the default dependencies: tiktoken over the trained merges
    ours + gigatoken     with the extra `fast`, if it is installed

The file is not called tokenize.py, because that name would hide Python's own module for all scripts of this folder.

Each runs in one process on all cores, on texts in memory. Our time includes the test that our engine makes before it is
used. `tokenizers` has its default settings. Special tokens in a text are data for all of them.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from codex_ml.core.cores import cores  # noqa: E402
from codex_ml.documents.document import read_documents  # noqa: E402
from codex_ml.tokenizer.config import Tokenizer as Settings  # noqa: E402
from codex_ml.tokenizer.training import train_tokenizer  # noqa: E402
from codex_ml.tokens import engine  # noqa: E402
from codex_ml.tokens.text_tokenizer import TextTokenizer, load_tokenizer  # noqa: E402

Arrays = list[np.ndarray[Any, np.dtype[np.uint16]]]
PEERS_BATCH = 1000  # documents per call; larger batches made encode_batch slower


def main(
    path: Annotated[Path, typer.Argument(help="Parquet file of documents.")] = Path("data/splits/train.parquet"),
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 5,
    vocab_size: Annotated[int, typer.Option(help="Vocabulary of the byte-level BPE that is trained first.")] = 4096,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")] = None,
) -> None:
    """Measure and compare; exit with 1 if any ids differ."""
    texts = [document.content for document in read_documents(path)]
    size = sum(len(text.encode("utf-8")) for text in texts)
    with tempfile.TemporaryDirectory() as scratch:
        train_tokenizer(lambda: iter(texts), Settings(vocab_size=vocab_size), Path(scratch))
        tokenizer = load_tokenizer(Path(scratch))
    ways = contenders(tokenizer)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    expected, differing = None, dict.fromkeys(ways, 0)
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            found = way(texts)
            seconds[name].append(time.perf_counter() - start)
            expected = expected or found
            differing[name] += sum(not np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
    base = statistics.median(seconds["encode_batch"])
    rows = {}
    for name, times in seconds.items():
        middle = statistics.median(times)
        rows[name] = {
            "MB/s": round(size / middle / 1e6, 2),
            "ratio": round(base / middle, 2),
            "differing": differing[name],
        }
        typer.echo(
            f"{name:<18} {size / middle / 1e6:8.2f} MB/s {base / middle:7.2f}x   texts that differ: {differing[name]}"
        )
    versions = {
        name: version(name) for name in ("tokenizers", "tiktoken", "gigatoken") if importlib.util.find_spec(name)
    }
    about = {
        "bytes": size,
        "documents": len(texts),
        "rounds": rounds,
        "cores": cores(),
        "versions": versions,
        "rows": rows,
    }
    typer.echo(f"{size} bytes, {len(texts)} documents, {cores()} cores, medians of {rounds}; {versions}")
    if json_out:
        json_out.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    raise typer.Exit(1 if any(differing.values()) else 0)


def contenders(tokenizer: TextTokenizer) -> dict[str, Callable[[list[str]], Arrays]]:
    """Return, by name, functions from texts to uint16 arrays of ids."""

    def peer(call: Callable[..., Any]) -> Callable[[list[str]], Arrays]:
        def encode(texts: list[str]) -> Arrays:
            batches = (texts[start : start + PEERS_BATCH] for start in range(0, len(texts), PEERS_BATCH))
            return [np.array(e.ids, dtype=np.uint16) for b in batches for e in call(b, add_special_tokens=False)]

        return encode

    def ours(texts: list[str]) -> Arrays:
        for make in (engine.gigatoken_engine, engine.tiktoken_engine):
            make.cache_clear()  # an engine that remembers the previous round would be too fast
        return [ids.astype(np.uint16) for ids in tokenizer.encode_documents(texts)]

    def without_extra(texts: list[str]) -> Arrays:
        with hidden("gigatoken"):
            return ours(texts)

    backend = tokenizer.backend
    ways = {
        "encode_batch": peer(backend.encode_batch),
        "encode_batch_fast": peer(backend.encode_batch_fast),
        "ours": without_extra,
    }
    return {**ways, "ours + gigatoken": ours} if importlib.util.find_spec("gigatoken") else ways


@contextmanager
def hidden(name: str) -> Iterator[None]:
    """Hide this package from the choice of an engine."""
    find = importlib.util.find_spec
    engine.importlib.util.find_spec = lambda wanted, *rest: None if wanted == name else find(wanted, *rest)
    try:
        yield
    finally:
        engine.importlib.util.find_spec = find


if __name__ == "__main__":
    typer.run(main)
