"""Contracts of the files in which `train` describes the model.

Used by: train, which writes them; evaluate, safety_audit and report, which read them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from codex_ml.core.contract import Contract
from codex_ml.modeling.pack_files import PLAIN, LossOn, PromptTemplate


class BaseModelFiles(Contract):
    """The model that training started from: its folder or file, and the hash of its content."""

    path: str
    sha256: str


class AdapterShape(Contract):
    """LoRA: adapters of rank `rank` on `modules` modules, with `trained` parameters in all.

    Attributes:
        added_pieces: added pieces whose rows of the embedding train too; absent where there are none.
    """

    rank: int
    alpha: float
    modules: int
    trained: int
    added_pieces: int = 0


class TrainedModel(Contract):
    """Shape and origin of the model, read from the model and its files.

    Attributes:
        architecture: model_type of its config.json.
        layers: layers; of an encoder-decoder, those of the encoder (the decoder has as many).
        positions: tokens that it can see at once; None for relative positions.
        base: the model it started from; None if it was trained from scratch.
        lora: None if all weights were trained.
        quantization: precision of the frozen weights under the adapters.
    """

    architecture: str
    encoder_decoder: bool
    layers: int
    hidden_size: int
    heads: int
    positions: int | None
    base: BaseModelFiles | None
    lora: AdapterShape | None
    quantization: str


class UsedOptimizer(Contract):
    """The optimizer and the peak of its learning rates.

    Attributes:
        name: "muon" or "adamw"; Muon updates the hidden matrices, and AdamW everything else.
        lr: of the hidden matrices; of all weights where `embedding_lr` is None.
        embedding_lr: of embeddings, the output head, norms and biases.
    """

    name: Literal["muon", "adamw"]
    lr: float
    embedding_lr: float | None


class UsedHardware(Contract):
    """The hardware settings that decide the last bits of the result.

    Attributes:
        device: "cpu" or "cuda".
        compile: whether torch.compile was on.
        threads: `train.threads`; 0 is all cores within the quota.
    """

    device: str
    precision: str
    compile: bool
    threads: int


class ContinuedRun(Contract):
    """A run that this one continues from `step`; `changed` has {"before", "now"} by name of a parameter."""

    step: int
    changed: dict[str, dict[str, Any]]
    best_measured_again: bool


class Training(Contract):
    """models/model/training.json.

    Attributes:
        global_step: the step whose weights were kept.
        rows_a_step: rows per optimizer step.
        seq_len: tokens per row.
        micro_batch_size: rows per forward pass of one process.
        processes: numbers of processes, in order; more than one if the run resumed with a different number.
        tokenizer: kind of the tokenizer, such as "byte-level BPE".
        loss_on: `pack.loss_on`, the tokens of a record that were trained; a model that was trained elsewhere is asked
            for completions.
        template: how records with a prompt became text; absent where they are as they are.
    """

    written_by = "train"

    seed: int
    rows_a_step: int
    seq_len: int
    global_step: int
    stopped_early: bool
    skipped_steps: int
    micro_batch_size: int
    processes: list[int]
    continued: list[ContinuedRun]
    model: TrainedModel
    tokenizer: str
    optimizer: UsedOptimizer
    hardware: UsedHardware
    loss_on: LossOn = "completions"
    template: PromptTemplate = PLAIN


class TrainMetrics(Contract):
    """reports/train/metrics.json, which DVCLive writes: the last losses in nats per token, and the best one."""

    written_by = "train"

    step: int
    best_step: int
    best_val_loss: float
    train: dict[str, float] = Field(default_factory=dict)
    val: dict[str, float] = Field(default_factory=dict)
