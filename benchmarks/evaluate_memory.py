"""Score short documents with a tiny model, and print the peak of resident memory in MiB.

    python benchmarks/evaluate_memory.py write 100000 test.parquet
    python benchmarks/evaluate_memory.py score test.parquet

The documents are read from Parquet, encoded and scored as by stage evaluate; only sums are kept. Used by: evaluate.py.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from codex_ml.documents.document import Document, read_documents, write_documents  # noqa: E402

TEXT = "def add(left, right):\n    return left + right\n"


def documents(count: int) -> Iterator[Document]:
    """Yield documents of all three forms, 40 to 50 characters each; every third is a prompt with its completion."""
    for number in range(count):
        name = f"{number:06d}"
        about = ("bench", f"{name}.py", name, "", "MIT", "python")
        if number % 3:
            yield Document(*about, text=f"# {name}\n{TEXT}")
        else:
            yield Document(*about, prompt=f"# {name}\ndef add(left, right):\n", completion="    return left + right\n")


def measure(test: Path) -> None:
    """Score the documents of a file."""
    import torch

    from codex_ml.inference.likelihood import Scoring, score
    from codex_ml.modeling.examples import Scorable, scorables
    from codex_ml.tokenizer.config import Tokenizer
    from codex_ml.tokenizer.training import train_tokenizer
    from codex_ml.tokens.text_tokenizer import load_tokenizer
    from codex_ml.train.config import Model
    from codex_ml.train.model.build import build_model

    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        train_tokenizer(lambda: [TEXT * 9], Tokenizer(vocab_size=300), Path(folder))
        tokenizer = load_tokenizer(Path(folder))
    shape, ids = Model(hidden_size=8, intermediate_size=8, layers=1, heads=1), tokenizer.vocab_size
    model = build_model(shape, vocab_size=ids, end=tokenizer.end, pad=tokenizer.pad, seed=1).eval()
    found = scorables(read_documents(test), tokenizer, loss_on="completions", length=256)
    items, sums = (item for item in found if isinstance(item, Scorable)), [0, 0.0]
    for one in score(model, items, Scoring(256)):
        sums = [sums[0] + 1, sums[1] + one.nll]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts it in KiB
    print(f"{sums[0]} documents, {sums[1]:.0f} nats, peak {peak:.1f}")


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write_documents(Path(sys.argv[3]), documents(int(sys.argv[2])))
    else:
        measure(Path(sys.argv[2]))
