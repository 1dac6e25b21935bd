"""Check that training, evaluation and audit fit into the memory of this machine, before any work and without torch.

The stages compare again when they start, with the real vocabulary and the device that torch finds.

Used by: workspace, `codex-ml check`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from codex_ml.cli.param_rules import Params
from codex_ml.core.errors import UserError
from codex_ml.core.machine_memory import GPU_DEVICES, gpu_memory, machine_memory, refuse_too_many
from codex_ml.core.parallel import WORKER_BYTES
from codex_ml.core.sections import PARAMS
from codex_ml.evaluate.evaluation_memory import fit_evaluation
from codex_ml.modeling.memory_need import ModelShape
from codex_ml.safety_audit.audit_memory import fit_audit
from codex_ml.train.model.model_shape import model_shape
from codex_ml.train.training_memory import TrainingSize, fit_training

FEWEST = 258  # tokens of a trained vocabulary, which ends early where the corpus is small


def too_large(params: Params) -> Iterator[str]:
    """Workers, and stages, whose lower bound exceeds the memory."""
    try:
        refuse_too_many("runtime.workers", params.runtime.workers, WORKER_BYTES)
    except UserError as error:
        yield f"{PARAMS}: {error}"
    for fit in _stages(params, least=True):
        try:
            fit()
        except UserError as error:
            yield f"{PARAMS}: {error}"


def memory_warnings(params: Params) -> Iterator[str]:
    """Stages whose estimate exceeds the memory, or whose lower bound does if the vocabulary gets its whole size."""
    for fit in _stages(params, least=False):
        try:
            warning = fit()
        except UserError as error:
            warning = f"with a vocabulary of {params.tokenizer.vocab_size:,} tokens, {error}"
        if warning:
            yield f"{PARAMS}: {warning}"


def _stages(params: Params, *, least: bool) -> Iterator[Callable[[], str]]:
    """One comparison per stage that asks a model; none where the shape or the device is known to the stage only."""
    has_gpu = any(Path(device).exists() for device in GPU_DEVICES)
    device, memory = params.runtime.device, machine_memory()
    if device == "cuda" and (found := gpu_memory()) is not None:
        memory = found
    elif device == "auto" and not has_gpu:
        device = "cpu"
    elif device != "cpu":
        return
    fewer = least and params.tokenizer.kind != "local"
    shape = model_shape(params.model, FEWEST if fewer else params.tokenizer.vocab_size)
    if shape is None:
        return
    yield lambda: fit_training(_training(params, shape, device), memory)
    yield lambda: fit_evaluation(shape, params.evaluate, memory, length=params.pack.seq_len, device=device)
    yield lambda: fit_audit(shape, params.safety_audit, memory, device=device)


def _training(params: Params, shape: ModelShape, device: str) -> TrainingSize:
    return TrainingSize(shape, params.model, params.train, params.runtime, params.pack.seq_len, device)
