"""How much memory it takes to ask a model: its weights, one forward pass over windows, and texts that it writes.

Texts may be few and short, so the lower bounds of passes and texts are 0: only the weights are certain.

Used by: evaluate, safety_audit; `codex-ml check`. Needs no torch.
"""

from __future__ import annotations

from codex_ml.modeling.memory_need import BASE, FLOAT, MemoryNeed, MemoryPart, ModelShape

LOGITS = 1 << 26  # numbers of the logits of one forward pass: 256 MiB in float32


def scoring_part(shape: ModelShape, *, batch_size: int, length: int) -> MemoryPart:
    """One forward pass over windows of `length` targets, as `likelihood.score_windows` runs it."""
    tokens = max(1, min(batch_size * length, LOGITS // max(1, shape.vocabulary)))
    rows = max(1, tokens // length)
    logits = rows * length * shape.vocabulary * FLOAT
    layer = rows * length * (3 * shape.inner + 4 * shape.hidden + 3 * shape.heads * length) * FLOAT
    return MemoryPart("one pass", 0, logits * 3 // 2 + layer)


def writing_part(shape: ModelShape, *, texts: int, length: int) -> MemoryPart:
    """Texts of up to `length` tokens, prompt included, that are written at once: keys, values, and the next logits."""
    cache = 2 * shape.layers * shape.keys * length * FLOAT
    return MemoryPart("texts", 0, texts * (2 * cache + 4 * shape.vocabulary * FLOAT))


def asking_need(stage: str, shape: ModelShape, scoring: MemoryPart, writing: MemoryPart, *, device: str) -> MemoryNeed:
    """The need of a stage that scores windows and writes texts, one after the other."""
    larger = max(scoring, writing, key=lambda part: part.likely)
    weights = FLOAT * shape.weights
    parts = (MemoryPart("process", *BASE), MemoryPart("weights", weights, weights), larger)
    return MemoryNeed(stage, parts, "GPU" if device == "cuda" else "machine")
