"""The shape of the model that a run will train, from params.yaml or from the headers of its files: nothing is loaded.

Used by: stages/train.py; `codex-ml check`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from codex_ml.modeling.memory_need import ModelShape, shape_of
from codex_ml.train.config import Model
from codex_ml.train.model.build import sizes
from codex_ml.train.model.foreign import checked_config, weight_files


def model_shape(model: Model, vocabulary: int) -> ModelShape | None:
    """The shape of a model from scratch, or of the folder in `model.path`.

    Args:
        vocabulary: tokens of the tokenizer; a model on disk has its own.

    Returns:
        None where the shape is not known before the work: a GGUF file, or an architecture of a package.

    Raises:
        UserError: when the folder is damaged.
    """
    if model.path:
        return _shape_on_disk(Path(model.path))
    if model.plugins["architectures"]:
        return None
    config = {**sizes(model), "model_type": model.architecture}
    return shape_of(config, vocabulary=vocabulary, tied=model.tie_embeddings)


def _shape_on_disk(folder: Path) -> ModelShape | None:
    """The sizes of config.json, and the numbers that the headers of the weights count."""
    if not folder.is_dir():
        return None
    config, files = checked_config(folder), weight_files(folder)
    numbers = sum(math.prod(entry.shape) for entries in files.values() for entry in entries.values())
    vocabulary = config.get("vocab_size")
    if not isinstance(vocabulary, int) or vocabulary < 1:
        return None
    shape = shape_of(config, vocabulary=vocabulary, tied=bool(config.get("tie_word_embeddings", True)))
    return None if shape is None else replace(shape, matrices=max(numbers - shape.embeddings, 0))
