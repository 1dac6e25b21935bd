"""How much memory an audit needs, and which of its parameters can be lowered.

Used by: stages/safety_audit.py, sampled_texts; `codex-ml check`. Needs no torch.
"""

from __future__ import annotations

from codex_ml.inference.scoring_memory import asking_need, scoring_part, writing_part
from codex_ml.modeling.memory_need import Lowered, MemoryNeed, ModelShape, check_fit
from codex_ml.safety_audit.config import SafetyAudit

TOGETHER = 4  # texts per batch for each window per forward pass: a step of generation reads one token per text
OTHERWISE = "use a smaller model, or a machine with more memory"


def audit_need(shape: ModelShape, settings: SafetyAudit, *, device: str) -> MemoryNeed:
    """The need of `safety_audit`, without a reference model.

    Args:
        device: "cpu" or "cuda".
    """
    window = settings.prefix_tokens + settings.suffix_tokens
    texts = min(TOGETHER * settings.batch_size, settings.sizes.samples)
    scoring = scoring_part(shape, batch_size=settings.batch_size, length=window)
    writing = writing_part(shape, texts=texts, length=settings.prefix_tokens + settings.sample_tokens)
    return asking_need("safety_audit", shape, scoring, writing, device=device)


def fit_audit(shape: ModelShape, settings: SafetyAudit, memory: int, *, device: str) -> str:
    """Refuse an audit that cannot fit; see `check_fit`."""

    def with_key(key: str) -> Lowered:
        def need(value: int) -> MemoryNeed:
            return audit_need(shape, settings.model_copy(update={key: value}), device=device)

        return Lowered(f"safety_audit.{key}", getattr(settings, key), need)

    lowered = [with_key("batch_size"), with_key("sample_tokens")]
    return check_fit(audit_need(shape, settings, device=device), memory, lowered, otherwise=OTHERWISE)
