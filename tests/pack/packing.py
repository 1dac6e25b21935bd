"""Streams for the tests of packing, and a reference with plain lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from codex_ml.modeling.pack_files import Packed
from codex_ml.modeling.rows import IGNORE
from codex_ml.pack.fitting import Example
from codex_ml.pack.row_writer import StreamFormat, write_stream

END, PAD = 0, 1


def example(ids, trained=None, *, chat=False, canary=False):
    marks = None if trained is None else np.array(trained, dtype=bool)
    return Example(np.array(ids, dtype=np.uint32), marks, chat=chat, canary=canary)


def pack(folder: Path, examples, *, seq_len=8, dtype="<u2", name="train", layout="packed", begin=None):
    """Write a stream and pack.json; lists of ids are documents of plain text."""
    made = (e if isinstance(e, Example) else example(e) for e in examples)
    stream = write_stream(folder, name, made, StreamFormat(END, np.dtype(dtype), seq_len, begin, layout))
    file = folder / "pack.json"
    streams = Packed.read(file).streams if file.is_file() else {}
    begin = END if begin is None else begin
    about = {"dtype": dtype, "seq_len": seq_len, "layout": layout, "vocab_size": 512, "tokenizer_kind": "byte_bpe"}
    about["loss_on"] = "completions"
    Packed(**about, begin=begin, end=END, pad=PAD, streams={**streams, name: stream}).write(file)
    return stream.as_json()


def slow_batch(rows):
    """Inputs, labels and positions of every row, token by token from the row table."""
    found = {"input_ids": [], "labels": [], "position_ids": []}
    tokens, mask = rows.tokens.tolist(), [True] * len(rows.tokens) if rows.mask is None else rows.mask.tolist()
    for row in range(len(rows)):
        inputs, labels, positions = [], [], []
        for piece in range(int(rows.first[row]), int(rows.first[row + 1])):
            start, length = rows.pieces[piece].tolist()
            inputs += tokens[start : start + length]
            labels += [tokens[at] if mask[at] else IGNORE for at in range(start + 1, start + length + 1)]
            positions += range(length)
        filler = rows.seq_len - len(inputs)
        found["input_ids"].append(inputs + [PAD] * filler)
        found["labels"].append(labels + [IGNORE] * filler)
        found["position_ids"].append([*positions, *range(filler)])
    return found
