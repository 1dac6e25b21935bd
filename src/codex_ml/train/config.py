"""The sections `model` and `train` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from codex_ml.core.bounds import (
    MOST_HEADS,
    MOST_LAYERS,
    MOST_RECORDS,
    MOST_STEP_ROWS,
    MOST_STEPS,
    MOST_THREADS,
    WIDEST,
    WIDEST_INNER,
)
from codex_ml.core.config import BasePath, BatchRows, Kept, Number, Section, Share, Steps, TokenCount
from codex_ml.core.plugins import BuiltInOr
from codex_ml.train.presets import is_plugin, with_preset

ARCHITECTURES = ("llama", "qwen2", "qwen3", "mistral", "gpt2", "gpt_neox", "t5")


def _steps_or_share(value: int | float) -> int | float:
    if value < 0 or (isinstance(value, float) and not value < 1):
        raise ValueError(f"expected a whole number of steps, or a share of max_steps below 1; found {value}")
    if value > MOST_STEPS:
        raise ValueError(f"expected at most {MOST_STEPS} steps; found {value}")
    return value


StepsOrShare = Annotated[
    int | float,
    AfterValidator(_steps_or_share),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": MOST_STEPS}),
]


class Lora(Section):
    """`model.lora`: low-rank adapters instead of all weights (Hu et al. 2021, arXiv:2106.09685)."""

    rank: int = Field(0, ge=0, le=WIDEST, description="Rank of each adapter; 0 trains all weights")
    alpha: float = Field(16, gt=0, allow_inf_nan=False, description="Scale: alpha / rank")
    dropout: Share = 0.0
    targets: tuple[str, ...] = Field(
        (), description="Ends of module names, such as q_proj, or all-linear; each must match a module"
    )
    rslora: bool = Field(False, description="Scale by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732)")
    dora: bool = Field(
        False, description="Train magnitudes and directions separately (Liu et al. 2024, arXiv:2402.09353)"
    )

    bias: Literal["none", "all", "lora_only"] = Field(
        "none", description="Which biases train too: none, all of the model, or those of the targets (lora_only)"
    )

    @model_validator(mode="after")
    def _targets_of_adapters(self) -> Lora:
        if self.rank and not self.targets:
            raise ValueError("targets is empty; name the modules that get an adapter, or all-linear")
        return self


class Model(Section):
    """`model`: the shape of a model to train from scratch, or the path of a model to train further."""

    preset: str = Field(
        "", description="Name in models/presets.yaml, or a preset of an installed package; gives what is null here"
    )
    architecture: Annotated[str, BuiltInOr("architectures", ARCHITECTURES)] = Field(
        "llama", description="Built in, or an architecture of an installed package"
    )
    hidden_size: int = Field(192, gt=0, le=WIDEST)
    intermediate_size: int = Field(512, gt=0, le=WIDEST_INNER)
    layers: int = Field(4, gt=0, le=MOST_LAYERS)
    heads: int = Field(4, gt=0, le=MOST_HEADS)
    kv_heads: int = Field(
        0, ge=0, le=MOST_HEADS, description="Heads of keys and values, shared by groups of queries; 0: as many as heads"
    )
    max_positions: TokenCount = Field(256, description="Longest sequence in tokens; at least pack.seq_len")
    tie_embeddings: bool = Field(True, description="Share one matrix between input embedding and output head")
    dropout: Share = 0.0
    path: BasePath = Field("", description="Folder or GGUF file of a causal model below models/base; it sets the sizes")
    lora: Lora = Lora()
    quantization: Literal["none", "8bit", "4bit"] = Field(
        "none", description="Precision of the frozen weights under a LoRA adapter; needs the extra `quantization`"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, value: Any) -> Any:
        return with_preset(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _heads_divide(self) -> Model:
        if not self.path and self.hidden_size % (2 * self.heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of 2 x heads (2 x {self.heads}): "
                "rotary embeddings rotate pairs within a head"
            )
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        if self.lora.rank and not self.path:
            raise ValueError("lora needs a trained model to adapt; name one in path, or set lora.rank to 0")
        if self.quantization != "none" and not self.lora.rank:
            raise ValueError(f"quantization {self.quantization} is for frozen weights; set lora.rank above 0")
        return self

    @property
    def plugins(self) -> dict[str, tuple[str, ...]]:
        """Kind of plug-ins -> what the section names of it."""
        own = not self.path and self.architecture not in ARCHITECTURES
        return {
            "architectures": (self.architecture,) if own else (),
            "presets": (self.preset,) if is_plugin(self.preset) else (),
        }

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether the model has an encoder and a decoder; a model on disk (`path`) never has."""
        return self.architecture == "t5" and not self.path


class EarlyStopping(Section):
    """`train.early_stopping`: end a run whose validation loss does not improve (loss < best - min_delta)."""

    patience: int | None = Field(
        None,
        ge=0,
        le=MOST_STEPS,
        description="Validations in a row without improvement that end the run; 0 means 1; null: never end it",
    )
    min_delta: Number = Field(0.0, description="Nats by which the loss must fall, at least, to be an improvement")


class Train(Section):
    """`train`: the recipe of the optimisation."""

    optimizer: Literal["auto", "adamw", "muon"] = Field(
        "auto", description="Of the matrices; auto: muon for a model from scratch, adamw for model.path"
    )
    lr: float = Field(
        1e-3,
        gt=0,
        lt=10,
        allow_inf_nan=False,
        description="Peak learning rate: from scratch of matrices, times sqrt(768 / hidden_size); else of all weights",
    )
    embedding_lr: float | None = Field(
        None,
        gt=0,
        lt=100,
        allow_inf_nan=False,
        description="From scratch: the same of embeddings, output head, norms and biases; null: 8 x lr",
    )
    momentum: Share = Field(0.9, description="Of muon: decay of the averaged gradient")
    schedule: Literal["cosine", "linear", "constant", "wsd", "inverse_sqrt"] = Field(
        "cosine", description="Learning rate after warm-up; wsd: constant, then decay_steps of linear decay"
    )
    min_lr_ratio: float = Field(
        0.1, ge=0, le=1, allow_inf_nan=False, description="Last learning rate of the decay, as a share of lr"
    )
    warmup_steps: StepsOrShare = Field(50, description="Steps of linear warm-up; below 1 a share of max_steps")
    decay_steps: StepsOrShare = Field(0.2, description="wsd: steps of decay at the end; below 1 a share of max_steps")
    max_steps: Steps = Field(600, description="Optimizer steps")
    micro_batch_size: BatchRows = Field(16, description="Rows per forward pass")
    accumulation: int = Field(1, gt=0, le=MOST_STEP_ROWS, description="Forward passes per optimizer step")
    weight_decay: float = Field(0.1, ge=0, lt=1, allow_inf_nan=False)
    beta1: Share = 0.9
    beta2: Share = 0.95
    clip_norm: float = Field(1.0, gt=0, allow_inf_nan=False, description="Largest global L2 norm of the gradient")
    z_loss: Number = Field(0.0, description="Weight of log(Z)^2 per target (PaLM, arXiv:2204.02311, 5: 1e-4)")
    label_smoothing: Share = Field(0.0, description="Share of the target spread over all tokens")
    ema: Share = Field(0.0, description="Decay of averaged weights; these are then validated and kept; 0: no averaging")
    max_skipped_steps: int = Field(
        0,
        ge=0,
        le=MOST_STEPS,
        description="Updates that may be skipped because the loss or gradient is not finite; one more ends the run",
    )
    early_stopping: EarlyStopping = EarlyStopping()
    eval_every: Steps = Field(100, description="Steps between validations")
    eval_rows: int = Field(256, gt=0, le=MOST_RECORDS, description="Validation rows, the same ones each time")
    checkpoint_every: Steps = Field(50, description="Steps between checkpoints; a crash loses at most as many")
    log_every: Steps = Field(10, description="Steps between points of the curves")
    keep_best: Kept = Field(1, description="How many of the best validations keep their weights in models/checkpoints")
    resume_from: BasePath = Field(
        "", description="Copy of models/checkpoints below models/base; training continues from its last step"
    )
    activation_checkpointing: bool = Field(False, description="Recompute activations instead of storing them")
    attention: Literal["auto", "eager", "sdpa"] = Field(
        "auto", description="auto: eager on a CPU (faster there when compiled), sdpa on a GPU"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the hardware has it"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="auto: use torch.compile if the run is long enough to pay for compiling"
    )
    threads: int = Field(
        0,
        ge=0,
        le=MOST_THREADS,
        description="CPU threads; 0: all cores within the quota; the number affects the last bits",
    )

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Train:
        if self.steps_of(self.warmup_steps) > self.max_steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} is longer than max_steps {self.max_steps}")
        if (
            self.schedule == "wsd"
            and self.steps_of(self.warmup_steps) + self.steps_of(self.decay_steps) > self.max_steps
        ):
            raise ValueError(f"warmup_steps and decay_steps together are longer than max_steps {self.max_steps}")
        return self

    @model_validator(mode="after")
    def _rows_of_a_step_are_bounded(self) -> Train:
        if (rows := self.micro_batch_size * self.accumulation) > MOST_STEP_ROWS:
            raise ValueError(
                f"micro_batch_size x accumulation is {rows} rows per step, at most {MOST_STEP_ROWS} are allowed; lower "
                "one of them"
            )
        return self

    def steps_of(self, steps: int | float) -> int:
        """Return a number of steps; a float is a share of `max_steps`."""
        return steps if isinstance(steps, int) else round(steps * self.max_steps)
