"""How much memory a training run needs: weights, gradients, optimizer state, averaged weights and one pass.

    weights     4 bytes each, under every precision: autocast converts copies
    gradients   4 bytes per trained number, from the backward pass to the update
    optimizer   AdamW keeps two numbers per trained number, Muon one per number of a matrix
    one pass    what the forward pass keeps for the backward pass: logits, and per layer the inputs of its products and,
                with eager attention, one share per head and pair of tokens

The lower bound leaves out what a compiler may compute again. On a GPU the loop halves the rows when memory ends, so
there it counts the fewest rows that the loop can come to.

Used by: run, stages/train.py; `codex-ml check`. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from codex_ml.core.config import Runtime
from codex_ml.modeling.hardware import COMPILE_FROM_STEPS, device_memory
from codex_ml.modeling.memory_need import BASE, FLOAT, UNGATED, Lowered, MemoryNeed, MemoryPart, ModelShape, check_fit
from codex_ml.modeling.pack_files import Packed
from codex_ml.train.config import Model, Train
from codex_ml.train.model.model_shape import model_shape

BATCH_BYTES = 24  # ids, labels and positions of a token, as int64
FROZEN = {"none": 4.0, "8bit": 1.0, "4bit": 0.5}  # bytes per frozen number
# What a layer keeps per token, in numbers: multiples of its width, of its inner width, and of heads x tokens.
# The estimates fit the measured peaks in docs/plan.md.
KEPT_LIKELY, KEPT_LEAST, KEPT_UNGATED = (14, 5, 2), (4, 2, 1), (14, 9, 2)
OTHERWISE = "use a smaller model (model.preset, model.path), adapters (model.lora), or a machine with more memory"


@dataclass(frozen=True)
class TrainingSize:
    """What decides the memory of a run.

    Attributes:
        shape: of the model from scratch, or of the one in `model.path`.
        device: "cpu" or "cuda".
    """

    shape: ModelShape
    model: Model
    train: Train
    runtime: Runtime
    seq_len: int
    device: str

    @property
    def processes(self) -> int:
        return max(1, self.runtime.processes)

    @property
    def may_compile(self) -> bool:
        few = self.train.max_steps < min(COMPILE_FROM_STEPS.values())
        return self.train.compile == "on" or (self.train.compile == "auto" and not few)

    @property
    def eager(self) -> bool:
        return self.train.attention == "eager" or (self.train.attention == "auto" and self.device == "cpu")


def training_need(size: TrainingSize) -> MemoryNeed:
    """The memory of all processes of a run on a CPU, or of one GPU."""
    shape, model, train = size.shape, size.model, size.train
    trained, adapted = _trained(size), bool(model.lora.rank)
    sharded = size.runtime.sharding == "full"
    copies = size.processes if size.device == "cpu" else 1
    share = 1 if sharded and size.device == "cpu" else copies  # numbers of all processes that sharding divides
    frozen = int(FROZEN[model.quantization] * shape.matrices) + FLOAT * shape.embeddings
    loading = 2 if model.path and adapted else 1  # the tensors of the files, and the model
    weights = MemoryPart("weights", copies * frozen, copies * frozen * loading)
    state = MemoryPart("optimizer", *(share * FLOAT * n for n in _optimizer(size, trained)))
    average = share * FLOAT if train.ema else 0
    parts = [
        MemoryPart("processes", copies * BASE[0], copies * BASE[1]),
        weights,
        state,
        MemoryPart("averaged weights", average * trained[0], average * trained[1]),
    ]
    gradients = [share * FLOAT * number for number in trained]
    one_pass = _pass(size)
    beside = train.accumulation > 1  # then the gradients of the passes before are there during a pass
    least = gradients[0] + one_pass.least if beside else max(gradients[0], one_pass.least)
    likely = gradients[1] + one_pass.likely
    named = "gradients" if gradients[0] > one_pass.least else "one pass"
    name = "gradients and one pass" if beside else named
    return MemoryNeed("train", (*parts, MemoryPart(name, least, likely)), "GPU" if size.device == "cuda" else "machine")


def lowered(size: TrainingSize) -> Iterator[Lowered]:
    """What can be lowered, the parameter that costs the result least first."""

    def with_train(key: str) -> Lowered:
        def need(value: int) -> MemoryNeed:
            return training_need(replace(size, train=size.train.model_copy(update={key: value})))

        return Lowered(f"train.{key}", getattr(size.train, key), need)

    yield with_train("micro_batch_size")
    yield Lowered("pack.seq_len", size.seq_len, lambda value: training_need(replace(size, seq_len=value)))
    if not size.model.path:
        yield Lowered("model.layers", size.shape.layers, lambda value: training_need(_with_layers(size, value)))
        yield Lowered("runtime.processes", size.processes, lambda value: training_need(_with_processes(size, value)))


def fit_training(size: TrainingSize, memory: int) -> str:
    """Refuse a run that cannot fit; see `check_fit`."""
    return check_fit(training_need(size), memory, lowered(size), otherwise=OTHERWISE)


def fit_here(model: Model, train: Train, runtime: Runtime, packed: Path, *, device: str) -> str:
    """Refuse a run on these packed rows that cannot fit on this device; see `check_fit`.

    Args:
        packed: folder of the packed rows.
    """
    found = Packed.read(packed / "pack.json")
    shape = model_shape(model, found.vocab_size)
    if shape is None:
        return ""
    return fit_training(TrainingSize(shape, model, train, runtime, found.seq_len, device), device_memory(device))


def _with_layers(size: TrainingSize, layers: int) -> TrainingSize:
    shape = size.shape
    return replace(size, shape=replace(shape, layers=layers, matrices=shape.matrices * layers // shape.layers))


def _with_processes(size: TrainingSize, processes: int) -> TrainingSize:
    return replace(size, runtime=size.runtime.model_copy(update={"processes": processes}))


def _trained(size: TrainingSize) -> tuple[int, int]:
    """Lower bound and estimate of the numbers that are trained."""
    shape, rank = size.shape, size.model.lora.rank
    if not rank:
        return shape.weights, shape.weights
    widths = 2 * (shape.hidden + shape.queries) + 2 * (shape.hidden + shape.keys) + 3 * (shape.hidden + shape.inner)
    return 0, min(shape.weights, rank * shape.layers * widths)


def _optimizer(size: TrainingSize, trained: tuple[int, int]) -> tuple[int, int]:
    """Lower bound and estimate of the numbers of its state."""
    muon = not size.model.path and size.train.optimizer != "adamw"
    if not muon:
        return 2 * trained[0], 2 * trained[1]
    number = size.shape.matrices + 2 * size.shape.embeddings
    return number, number


def _pass(size: TrainingSize) -> MemoryPart:
    """What one pass of a process keeps, and the ids of the rows of a step."""
    shape, train = size.shape, size.train
    own = max(1, train.micro_batch_size * train.accumulation // size.processes)
    rows = fewest = largest_pass(own, train.micro_batch_size)
    while size.device == "cuda" and size.processes == 1 and not fewest % 2:
        fewest //= 2
    copies = size.processes if size.device == "cpu" else 1
    kept = 2 if train.precision in ("auto", "bf16", "fp16") else FLOAT
    usual = KEPT_UNGATED if size.model.architecture in UNGATED and not size.model.path else KEPT_LIKELY
    least_layer, likely_layer = (_of_a_layer(size, kinds) for kinds in (KEPT_LEAST, usual))
    again = likely_layer if train.activation_checkpointing else 0  # one layer at a time
    if train.activation_checkpointing:
        least_layer = likely_layer = shape.hidden
    if size.may_compile:
        least_layer = 0
    masks = size.seq_len * (FLOAT + 1)
    logits = shape.vocabulary * FLOAT
    least = shape.layers * least_layer * kept + (logits if size.may_compile else 2 * logits) + masks
    likely = (shape.layers * likely_layer + again) * FLOAT + 4 * logits + 2 * masks
    ids = own * size.seq_len * BATCH_BYTES
    if size.model.is_encoder_decoder:  # its batches are as long as their longest record
        least, ids = 0, 0
    tokens = size.seq_len * copies
    return MemoryPart("one pass", fewest * tokens * least + copies * ids, rows * tokens * likely + copies * ids)


def _of_a_layer(size: TrainingSize, kinds: tuple[int, int, int]) -> int:
    """Numbers that a layer keeps per token."""
    width, inner, pairs = kinds
    shape = size.shape
    attention = pairs * shape.heads * size.seq_len if size.eager else 0
    return width * shape.hidden + inner * shape.inner + attention


def largest_pass(own: int, limit: int) -> int:
    """Return the largest divisor of `own`, the rows of a process, that is at most `limit`: rows per forward pass."""
    return max(rows for rows in range(1, min(limit, own) + 1) if own % rows == 0)
