"""Models and rows of train.py: Llama shapes, and random documents packed as stage pack does it.

Used by: train.py, train_peers.py.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

END, PAD = 0, 1
SEED = 1


@dataclass(frozen=True)
class Shape:
    """A Llama shape with tied embeddings, and the rows of a step."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    vocabulary: int
    seq_len: int = 256
    rows: int = 16

    @property
    def model(self) -> Any:
        """The section `model` of params.yaml."""
        from codex_ml.train.config import Model

        return Model(
            hidden_size=self.hidden, intermediate_size=self.ffn, layers=self.layers, heads=self.heads,
            max_positions=self.seq_len,
        )  # fmt: skip

    @property
    def parameters(self) -> int:
        """Number of weights, the tied matrix once: embedding; per layer 7 matrices and 2 norms; last norm."""
        layer = 4 * self.hidden**2 + 3 * self.hidden * self.ffn + 2 * self.hidden
        return self.vocabulary * self.hidden + self.layers * layer + self.hidden

    @property
    def flops_per_token(self) -> int:
        """6 N + 12 L d T, forward and backward (Kaplan et al., arXiv:2001.08361, 2.1; PaLM, arXiv:2204.02311, B).

        N counts the tied matrix once, as the output projection: the lookup of a row costs nothing.
        """
        return 6 * self.parameters + 12 * self.layers * self.hidden * self.seq_len


SHAPES = {
    "7m": Shape(layers=6, hidden=256, ffn=688, heads=4, vocabulary=8192),
    "small": Shape(layers=4, hidden=192, ffn=512, heads=4, vocabulary=4096),
    "one-layer": Shape(layers=1, hidden=64, ffn=128, heads=2, vocabulary=512),
    "sample": Shape(layers=4, hidden=128, ffn=352, heads=4, vocabulary=4096, rows=8),
    "tiny": Shape(layers=1, hidden=32, ffn=64, heads=2, vocabulary=64, seq_len=16, rows=2),
}


def documents(shape: Shape, *, tokens: int) -> Iterator[np.ndarray]:
    """Yield random documents of at least `tokens` tokens together; lengths as in source files, median 300."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    supply = rng.integers(2, shape.vocabulary, size=2**20, dtype=np.uint32)  # reused: drawing takes most of the time
    lengths = np.clip(rng.lognormal(math.log(300), 1.2, size=2**12), 1, 20_000).astype(int).tolist()
    begin = written = 0
    while written < tokens:
        for length in lengths:
            begin = (begin + 7919) % (len(supply) - length)
            yield supply[begin : begin + length]
            written += length + 1
            if written >= tokens:
                return


def write_packed(folder: Path, shape: Shape, *, tokens: int) -> None:
    """Write a folder like data/packed, of random documents, with the streams train and val."""
    from codex_ml.modeling.pack_files import Packed
    from codex_ml.modeling.rows import stream_dtype
    from codex_ml.pack.fitting import Example
    from codex_ml.pack.row_writer import StreamFormat, write_stream

    dtype = stream_dtype(shape.vocabulary)
    sizes = {"train": tokens, "val": 16 * shape.seq_len}
    streams = {
        name: write_stream(
            folder, name, map(Example, documents(shape, tokens=size)), StreamFormat(END, dtype, shape.seq_len)
        )
        for name, size in sizes.items()
    }
    Packed(
        dtype=dtype.str,
        seq_len=shape.seq_len,
        layout="packed",
        tokenizer_kind="byte_bpe",
        vocab_size=shape.vocabulary,
        begin=END,
        end=END,
        pad=PAD,
        loss_on="completions",
        streams=streams,
    ).write(folder / "pack.json")


def random_rows(shape: Shape) -> np.ndarray:
    """Return rows of random tokens, int64 (1024, seq_len + 1), for the loops that read no packed documents."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    return rng.integers(2, shape.vocabulary, size=(1024, shape.seq_len + 1))


def llama(shape: Shape, *, attention: str) -> Any:
    """Build the model; every loop gets the same weights."""
    from codex_ml.train.model.build import build_model

    model = build_model(shape.model, vocab_size=shape.vocabulary, end=END, pad=PAD, seed=SEED)
    model.set_attn_implementation(attention)
    return model
