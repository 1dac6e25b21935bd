"""How much memory an evaluation needs, and which of its parameters can be lowered.

Used by: stages/evaluate.py, executed_code; `codex-ml check`. Needs no torch.
"""

from __future__ import annotations

from codex_ml.evaluate.config import Evaluate
from codex_ml.inference.scoring_memory import asking_need, scoring_part, writing_part
from codex_ml.modeling.memory_need import Lowered, MemoryNeed, ModelShape, check_fit

PROGRAMS = 32  # that are generated at once, at least: a token of a small model costs one pass over its layers
OTHERWISE = "use a smaller model, or a machine with more memory"


def evaluation_need(shape: ModelShape, settings: Evaluate, *, length: int, device: str) -> MemoryNeed:
    """The need of `evaluate` for windows of `length` tokens.

    Args:
        device: "cpu" or "cuda".
    """
    batch = settings.batch_size
    texts = max(batch, PROGRAMS) if settings.benchmarks else min(batch, settings.completions.documents)
    scoring = scoring_part(shape, batch_size=batch, length=length)
    return asking_need("evaluate", shape, scoring, writing_part(shape, texts=texts, length=length), device=device)


def fit_evaluation(shape: ModelShape, settings: Evaluate, memory: int, *, length: int, device: str) -> str:
    """Refuse an evaluation that cannot fit; see `check_fit`."""

    def with_batch(size: int) -> MemoryNeed:
        return evaluation_need(shape, settings.model_copy(update={"batch_size": size}), length=length, device=device)

    lowered = [Lowered("evaluate.batch_size", settings.batch_size, with_batch)]
    return check_fit(with_batch(settings.batch_size), memory, lowered, otherwise=OTHERWISE)
