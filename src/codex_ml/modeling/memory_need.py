"""How much memory a stage needs, from the shape of its model and its parameters, before any work.

Each part of a need has a lower bound and an estimate. A stage, and `codex-ml check`, refuses work whose lower bound
exceeds the memory that there is, and warns where the estimate does: what fits is never refused.

Used by: train.training_memory, inference.scoring_memory; `codex-ml check`. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_ml.core.errors import UserError
from codex_ml.core.machine_memory import GIB

FLOAT = 4  # bytes
BASE = (200 << 20, 400 << 20)  # of a process with torch and transformers; measured: 274 MB of its own, 373 in all
UNGATED = ("gpt2", "gpt_neox", "gpt_bigcode", "codegen", "phi", "starcoder2")  # two matrices per feed-forward layer
LEARNT_POSITIONS = ("gpt2", "gpt_bigcode")


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that decide its memory.

    Attributes:
        matrices: numbers in the matrices of hidden layers.
        embeddings: numbers in the embeddings and the output head.
        queries, keys: width of all heads of queries, and of keys.
    """

    matrices: int
    embeddings: int
    vocabulary: int
    hidden: int
    inner: int
    layers: int
    heads: int
    queries: int
    keys: int

    @property
    def weights(self) -> int:
        """Numbers in the model, without norms and biases."""
        return self.matrices + self.embeddings


def shape_of(config: Mapping[str, Any], *, vocabulary: int, tied: bool) -> ModelShape | None:
    """The shape that a config.json of transformers describes; None where a size is missing or is not a number.

    >>> shape_of({"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16},
    ...          vocabulary=32, tied=True).weights
    1536
    """
    hidden = _size(config, "hidden_size", "n_embd", "d_model")
    layers = _size(config, "num_hidden_layers", "n_layer", "num_layers")
    heads = _size(config, "num_attention_heads", "n_head", "num_heads")
    if not (hidden and layers and heads):
        return None
    kind, pair = config.get("model_type", ""), bool(config.get("d_kv"))
    inner = _size(config, "intermediate_size", "n_inner", "d_ff") or 4 * hidden
    head = _size(config, "head_dim", "d_kv") or hidden // heads
    queries = heads * head
    keys = head if config.get("multi_query") else (_size(config, "num_key_value_heads") or heads) * head
    attention = 2 * hidden * (queries + keys)
    feed_forward = (2 if kind in UNGATED else 3) * hidden * inner
    layer = 3 * attention + 2 * feed_forward if pair else attention + feed_forward  # a pair: encoder and decoder
    positions = _size(config, "n_positions", "max_position_embeddings") or 0
    embeddings = vocabulary * hidden * (1 if tied else 2) + (positions * hidden if kind in LEARNT_POSITIONS else 0)
    return ModelShape(layers * layer, embeddings, vocabulary, hidden, inner, layers, heads, queries, keys)


def _size(config: Mapping[str, Any], *names: str) -> int | None:
    found = next((config[name] for name in names if config.get(name) is not None), None)
    return found if isinstance(found, int) and found > 0 else None


@dataclass(frozen=True)
class MemoryPart:
    """One part of what a stage needs: a lower bound and an estimate, bytes."""

    name: str
    least: int
    likely: int


@dataclass(frozen=True)
class MemoryNeed:
    """What a stage needs at its peak.

    Attributes:
        device: where it is needed: "machine" or "GPU".
    """

    stage: str
    parts: tuple[MemoryPart, ...]
    device: str = "machine"

    @property
    def least(self) -> int:
        return sum(part.least for part in self.parts)

    @property
    def likely(self) -> int:
        return sum(part.likely for part in self.parts)


@dataclass(frozen=True)
class Lowered:
    """A parameter that can be lowered.

    Attributes:
        need: what the stage needs with a smaller value.
    """

    key: str
    value: int
    need: Callable[[int], MemoryNeed]

    def fitting(self, memory: int) -> int | None:
        """The largest value, halved again and again, with which the estimate fits; None if there is none."""
        value = self.value // 2
        while value and self.need(value).likely > memory:
            value //= 2
        return value or None


def refuse_large_model(folder: Path, memory: int) -> None:
    """Refuse a model that cannot be loaded in float32.

    Args:
        folder: a model folder that this program wrote.
        memory: bytes of the device.

    Raises:
        UserError: see `check_fit`.
    """
    size = (folder / "model.safetensors").stat().st_size  # written in float32
    need = MemoryNeed(str(folder), (MemoryPart("process", *BASE), MemoryPart("weights", size, size)))
    check_fit(need, memory, (), otherwise="use a smaller model, or a machine with more memory")


def check_fit(need: MemoryNeed, memory: int, lowered: Iterable[Lowered], *, otherwise: str) -> str:
    """Compare a need with the memory that there is.

    Args:
        memory: bytes.
        otherwise: what to do where none of the parameters helps alone.

    Returns:
        a warning where the estimate exceeds the memory, but the lower bound does not; else "".

    Raises:
        UserError: where even the lower bound exceeds the memory.
    """
    if need.likely <= memory:
        return ""
    fitting = ((parameter.key, parameter.fitting(memory)) for parameter in lowered)
    advice = next((f"{key} {value} would fit" for key, value in fitting if value is not None), otherwise)
    if need.least > memory:
        raise UserError(f"{_described(need, 'least', 'needs at least', memory)}; {advice}")
    return f"{_described(need, 'likely', 'may need', memory)}; {advice}"


def _described(need: MemoryNeed, bound: str, how: str, memory: int) -> str:
    sizes = sorted(((getattr(part, bound), part.name) for part in need.parts), reverse=True)
    shown = ", ".join(f"{name} {_gib(size)}" for size, name in sizes[:3] if size > GIB // 20)
    total = _gib(sum(size for size, _ in sizes))
    return f"{need.stage} {how} {total} of memory ({shown}), and this {need.device} has {_gib(memory)}"


def _gib(size: int) -> str:
    return f"{size / GIB:,.1f} GiB"
