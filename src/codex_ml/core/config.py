"""What all sections of params.yaml share: unknown keys and silent conversions are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from codex_ml.core.bounds import (
    LONGEST_BYTES,
    MOST_ITEMS,
    MOST_KEPT,
    MOST_ROWS,
    MOST_STEPS,
    MOST_TOKENS,
)
from codex_ml.core.plugins import BuiltInOr

TRACKERS = ("tensorboard", "mlflow", "wandb")  # built in; all write files on this machine
BASE_FOLDER = Path("models/base")  # foreign models, tokenizers and runs; a dependency of the stages that read it


class Section(BaseModel):
    """Base of all sections: unknown keys and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_silent_conversion(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name or ""].annotation
        wanted = {annotation, *(get_args(kind)[0] if get_args(kind) else kind for kind in get_args(annotation))}
        if wanted & {int, float} and isinstance(value, bool | str):
            raise ValueError(f"expected a number without quotes, found {value!r}")
        if annotation is str and not isinstance(value, str):
            raise ValueError(f"expected a string; put quotes around {value!r}")
        if annotation is bool and not isinstance(value, bool):
            raise ValueError(f"expected true or false, found {value!r}")
        return value


def _in_base_folder(path: str) -> str:
    if path and (not Path(path).is_relative_to(BASE_FOLDER) or ".." in Path(path).parts or Path(path) == BASE_FOLDER):
        raise ValueError(f"the pipeline depends only on files below {BASE_FOLDER}; put it there")
    return path


Steps = Annotated[int, Field(gt=0, le=MOST_STEPS)]
BatchRows = Annotated[int, Field(gt=0, le=MOST_ROWS)]
TokenCount = Annotated[int, Field(gt=0, le=MOST_TOKENS)]
ItemCount = Annotated[int, Field(ge=0, le=MOST_ITEMS)]
Kept = Annotated[int, Field(gt=0, le=MOST_KEPT)]
Characters = Annotated[int, Field(ge=0, le=LONGEST_BYTES)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
BasePath = Annotated[str, AfterValidator(_in_base_folder)]
Seed = Annotated[int, Field(ge=0, lt=2**32, description="Seed of initialisation, data order, sampling and bootstrap")]


HookEvent = Literal["stage_started", "stage_finished", "stage_failed", "stage_interrupted", "checkpoint", "gate_failed"]


class EventHook(Section):
    """A program or a plug-in that gets an event of a run as JSON on its standard input."""

    command: tuple[str, ...] = Field((), description="Program and arguments; no shell reads them")
    plugin: Annotated[str, BuiltInOr("hooks", ("",))] = Field("", description="Or a plug-in, called with the event")
    events: tuple[HookEvent, ...] = Field(
        ("stage_finished", "stage_failed", "gate_failed"), description="Names of events; docs/watch.md lists them"
    )
    seconds: float = Field(10.0, gt=0, le=3600, description="Time limit; the stage waits this long at most")

    @model_validator(mode="after")
    def _calls_one_thing(self) -> EventHook:
        if bool(self.command) == bool(self.plugin):
            raise ValueError("a hook needs either `command` or `plugin`")
        if self.command and not self.command[0]:
            raise ValueError("the first item of `command` is the program; it is empty")
        return self


class Runtime(Section):
    """`runtime`: settings that do not change a byte of the result; no stage depends on them."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    progress: Literal["auto", "plain", "off"] = Field("auto", description="auto: a bar on a terminal, lines elsewhere")
    workers: int = Field(
        0, ge=0, le=1024, description="Processes of ingest and split; 0: one per core within the quota"
    )
    processes: int = Field(
        1,
        ge=0,
        le=1024,
        description="Training processes on this machine, each with one GPU or a share of the cores; 0: one per GPU",
    )
    sharding: Literal["none", "full"] = Field(
        "none", description="full: each process holds a part of the weights, gradients and optimizer state (FSDP)"
    )
    keep_checkpoints: Kept = Field(2, description="Complete checkpoints kept while training")
    resume: bool = Field(True, description="false: an interrupted training starts at its first step again")
    trackers: tuple[Annotated[str, BuiltInOr("trackers", TRACKERS)], ...] = Field(
        (),
        description="Trackers that also record the curves, each with the extra of its name; or one of a package",
    )
    prometheus_port: int = Field(0, ge=0, le=65535, description="Port on 127.0.0.1 for metrics while training; 0: none")
    monitor_seconds: float = Field(5.0, ge=0.1, le=3600, description="Time between two samples of the system monitor")
    nvml: bool = Field(True, description="Whether the monitor asks NVIDIA's library about the GPUs")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Of screen and log file")
    log_bytes: int = Field(
        10_000_000, ge=10_000, le=LONGEST_BYTES, description="Size at which a log goes on in a new file"
    )
    log_files: Kept = Field(5, description="Older files of each log that stay")
    on_event: tuple[EventHook, ...] = Field(
        (), max_length=100, description="Programs and plug-ins that are called with events"
    )
