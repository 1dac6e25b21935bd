"""The table of recipe.py: recipes, and changes of one thing at a time; model sizes.

`recipe_of` and `settings` use the keys of `train` and `model` of params.yaml, and its rates: those of hidden size 768.
To try something else, add a line to CHANGES or RECIPES.

Used by: recipe.py, recipe_run.py, recipe_page.py.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from codex_ml.core.yaml import parse_yaml  # noqa: E402
from codex_ml.train.config import Train  # noqa: E402
from codex_ml.train.recipe import EMBEDDING_RATIO, WIDTH  # noqa: E402

PARAMS = ROOT / "params.yaml"
ROWS = 8  # rows per step in which budgets are counted: `steps` x ROWS rows, whatever a setting takes per step
VALIDATIONS = 12  # per run
# Keys of `train` that are no part of a recipe: they say how long a run is, what it writes and where it computes.
OF_A_RUN = (
    "max_steps", "max_skipped_steps", "early_stopping", "eval_every", "eval_rows", "checkpoint_every", "log_every",
    "keep_best", "resume_from", "activation_checkpointing", "attention", "precision", "compile", "threads",
)  # fmt: skip


@dataclass(frozen=True)
class Size:
    """A Llama shape, as keys of `model`, and the usual budget in steps of ROWS rows."""

    model: dict[str, Any]
    steps: int


SIZES = {
    "toy": Size({"hidden_size": 32, "intermediate_size": 64, "layers": 1, "heads": 2}, 12),  # for a first try
    "tiny": Size({"hidden_size": 128, "intermediate_size": 352, "layers": 4, "heads": 4}, 600),  # the sample's
    "small": Size({"hidden_size": 256, "intermediate_size": 688, "layers": 8, "heads": 4}, 600),
    "medium": Size({"hidden_size": 512, "intermediate_size": 1376, "layers": 7, "heads": 8}, 300),
}


@dataclass(frozen=True)
class Setting:
    """A recipe that is trained.

    Attributes:
        title: what it is, for the page.
        section: of the page.
        recipe: every key of `train` that belongs to a recipe.
        model: keys of `model` that differ from those of the size.
        groups: changes by kind of parameter ("matrix", "embedding", "vector") that params.yaml has no key for:
            "weight_decay" replaces the decay, "rate" multiplies the rate.
    """

    title: str
    section: str
    recipe: dict[str, Any]
    model: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def content(self) -> dict[str, Any]:
        """What decides the result, apart from size, seed and steps."""
        return {"recipe": self.recipe, "model": self.model, "groups": self.groups}


def at_width(rate: float, width: int) -> float:
    """Return the rate of params.yaml that gives `rate` at this hidden size."""
    return float(f"{rate * (width / WIDTH) ** 0.5:.6g}")


def recipe_of(train: dict[str, Any]) -> dict[str, Any]:
    """Return every key of a recipe, without null or auto; one that `train` lacks has the library's default.

    A key that the recipe does not use is 0, so that two recipes are equal where they do the same.
    """
    known = {key: value for key, value in train.items() if key in Train.model_fields and value is not None}
    whole = Train.model_validate({**known, "max_steps": 10**6}).model_dump(exclude=set(OF_A_RUN))
    if whole["embedding_lr"] is None:
        whole["embedding_lr"] = EMBEDDING_RATIO * whole["lr"]
    if whole["optimizer"] == "auto":
        whole["optimizer"] = "muon"
    unused = {"momentum": whole["optimizer"] == "adamw", "decay_steps": whole["schedule"] != "wsd"}
    whole |= {key: 0 for key, is_unused in unused.items() if is_unused}
    return whole


def _one_rate(rate: float, **changes: Any) -> dict[str, Any]:
    """AdamW with one rate, as at hidden size 128."""
    same = at_width(rate, 128)
    return {**ADAMW, "lr": same, "embedding_lr": same, **changes}


ADAMW = {
    "optimizer": "adamw", "schedule": "cosine", "min_lr_ratio": 0.1, "warmup_steps": 50, "weight_decay": 0.1,
    "beta1": 0.9, "beta2": 0.95, "clip_norm": 1.0, "micro_batch_size": 8, "accumulation": 1,
}  # fmt: skip
RECIPES = {  # name: title, keys of `train`; their embeddings decay as the matrices do
    "one-rate": ("AdamW, one rate", _one_rate(3e-3)),
    "one-rate-half": ("AdamW, one rate, half", _one_rate(1.5e-3)),
    "one-rate-double": ("AdamW, one rate, double", _one_rate(6e-3)),
    "one-rate-warmup-300": ("AdamW, one rate, double, warm-up 300", _one_rate(6e-3, warmup_steps=300)),
    "two-rates": (
        "AdamW, two rates",
        {**ADAMW, "lr": at_width(1.5e-3, 128), "embedding_lr": at_width(24e-3, 128)},
    ),
}
MAIN, RATES, SCHEDULE, REST = "Optimizer", "Rates", "Schedule", "Everything else"


@dataclass(frozen=True)
class Change:
    """One change of the default: keys of `train`, or factors of its values; keys of `model`; of groups."""

    title: str
    section: str
    train: dict[str, Any] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, dict[str, float]] = field(default_factory=dict)


CHANGES = {
    "adamw": Change("AdamW for the matrices too", MAIN, {"optimizer": "adamw"}),
    "lr-half": Change("`train.lr` halved", RATES, times={"lr": 0.5}),
    "lr-double": Change("`train.lr` doubled", RATES, times={"lr": 2}),
    "embedding-half": Change("`train.embedding_lr` halved", RATES, times={"embedding_lr": 0.5}),
    "embedding-double": Change("`train.embedding_lr` doubled", RATES, times={"embedding_lr": 2}),
    "both-half": Change("both rates halved", RATES, times={"lr": 0.5, "embedding_lr": 0.5}),
    "both-double": Change("both rates doubled", RATES, times={"lr": 2, "embedding_lr": 2}),
    "vectors-eighth": Change("norms at an eighth of the rate of embeddings", RATES, groups={"vector": {"rate": 1 / 8}}),
    "warmup-10": Change("10 steps of warm-up", SCHEDULE, {"warmup_steps": 10}),
    "warmup-50": Change("50 steps of warm-up", SCHEDULE, {"warmup_steps": 50}),
    "warmup-100": Change("100 steps of warm-up", SCHEDULE, {"warmup_steps": 100}),
    "cosine-0.1": Change("cosine to a tenth", SCHEDULE, {"schedule": "cosine", "min_lr_ratio": 0.1}),
    "cosine-0": Change("cosine to 0", SCHEDULE, {"schedule": "cosine", "min_lr_ratio": 0.0}),
    "linear-0.1": Change("linear to a tenth", SCHEDULE, {"schedule": "linear", "min_lr_ratio": 0.1}),
    "linear-0": Change("linear to 0", SCHEDULE, {"schedule": "linear", "min_lr_ratio": 0.0}),
    "wsd": Change(
        "wsd, linear to 0 in the second half", SCHEDULE,
        {"schedule": "wsd", "decay_steps": 0.5, "min_lr_ratio": 0.0},
    ),
    "decay-0": Change("no weight decay", REST, {"weight_decay": 0.0}),
    "decay-0.1": Change("weight decay 0.1", REST, {"weight_decay": 0.1}),
    "decay-0.3": Change("weight decay 0.3", REST, {"weight_decay": 0.3}),
    "embedding-decay-0.1": Change(
        "weight decay 0.1 of embeddings", REST, groups={"embedding": {"weight_decay": 0.1}}
    ),
    "momentum-0.85": Change("momentum 0.85", REST, {"momentum": 0.85}),
    "momentum-0.9": Change("momentum 0.9", REST, {"momentum": 0.9}),
    "momentum-0.95": Change("momentum 0.95", REST, {"momentum": 0.95}),
    "beta1-0.8": Change("`train.beta1` 0.8", REST, {"beta1": 0.8}),
    "beta2-0.95": Change("`train.beta2` 0.95", REST, {"beta2": 0.95}),
    "beta2-0.99": Change("`train.beta2` 0.99", REST, {"beta2": 0.99}),
    "clip-0.3": Change("`train.clip_norm` 0.3", REST, {"clip_norm": 0.3}),
    "rows-4": Change("4 rows per step", REST, {"micro_batch_size": 4, "accumulation": 1}),
    "rows-8": Change("8 rows per step", REST, {"micro_batch_size": 8, "accumulation": 1}),
    "rows-16": Change("16 rows per step", REST, {"micro_batch_size": 16, "accumulation": 1}),
    "untied": Change("an output head of its own", REST, model={"tie_embeddings": False}),
    "qk-norm": Change("norms of queries and keys (`qwen3`)", REST, model={"architecture": "qwen3"}),
}  # fmt: skip


def settings() -> dict[str, Setting]:
    """Return every setting by name: the recipe of params.yaml as `default`, RECIPES, and CHANGES of the default.

    A change to a value that the default has already is left out.
    """
    default = recipe_of(parse_yaml(PARAMS.read_text(encoding="utf-8"), PARAMS.name)["train"])
    found = {"default": Setting("the default of `params.yaml`", MAIN, default)}
    for name, (title, train) in RECIPES.items():
        found[name] = Setting(
            title, MAIN, recipe_of(train), groups={"embedding": {"weight_decay": train["weight_decay"]}}
        )
    for name, change in CHANGES.items():
        scaled = {key: float(f"{default[key] * factor:.6g}") for key, factor in change.times.items()}
        recipe = recipe_of({**default, **change.train, **scaled})
        setting = Setting(change.title, change.section, recipe, change.model, change.groups)
        if setting.content != found["default"].content:
            found[name] = setting
    return found
