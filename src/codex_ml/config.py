"""The schema of params.yaml: every knob with its default, unit and bounds, in one place.

A key of a stage's section changes bytes, so that stage depends on it. A key that changes no byte lives in `runtime`,
which no stage depends on.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from codex_ml.errors import UserError
from codex_ml.yaml import line_of, parse_yaml

PARAMS = Path("params.yaml")
UINT16_TOKENS = 2**16

# What people type who come from other trainers; only used to say the right name.
SYNONYMS = {
    "learning_rate": "lr",
    "batch_size": "micro_batch_size",
    "per_device_train_batch_size": "micro_batch_size",
    "gradient_accumulation_steps": "accumulation",
    "grad_accum": "accumulation",
    "steps": "max_steps",
    "iterations": "max_steps",
    "warmup": "warmup_steps",
    "grad_clip": "clip_norm",
    "block_size": "seq_len",
    "context_length": "seq_len",
    "n_layer": "layers",
    "num_hidden_layers": "layers",
    "n_head": "heads",
    "num_attention_heads": "heads",
    "n_embd": "hidden_size",
    "d_model": "hidden_size",
    "validation": "val",
    "license": "licence",
    "licenses": "licences",
    "max_grad_norm": "clip_norm",
    "random_seed": "seed",
}


class Section(BaseModel):
    """Base of all sections: unknown keys and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_silent_conversion(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name or ""].annotation
        if annotation in (int, float) and isinstance(value, bool | str):
            raise ValueError(f"a number is wanted, without quotes; found {value!r}")
        if annotation is str and not isinstance(value, str):
            raise ValueError(f"a text is wanted; put quotes around {value!r}")
        if annotation is bool and not isinstance(value, bool):
            raise ValueError(f"true or false is wanted; found {value!r}")
        return value


Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class Fetch(Section):
    """`fetch`: the sample corpus."""

    sample: bool = Field(True, description="Download the wheels of data/sample.lock; false for your own data only")


class Source(Section):
    """One place that documents come from."""

    kind: Literal["wheels", "files", "jsonl"] = Field(
        description="wheels: a folder of Python wheels; files: a folder of text or code; jsonl: a JSON Lines file"
    )
    path: str = Field(min_length=1, description="Folder or file, relative to the repository")
    licence: str = Field("unknown", description="SPDX expression of documents that do not carry their own")
    glob: str = Field("**/*.py", description="Which files of a folder or an archive are documents")

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise ValueError("only a relative path inside the repository can be traced; copy or link the data there")
        return path


class Ingest(Section):
    """`ingest`: which documents, from where, under which licence."""

    sources: tuple[Source, ...] = Field((Source(kind="wheels", path="data/raw/sample"),), min_length=1)
    max_document_bytes: Positive = Field(1_000_000, description="Longer documents are left out, counted and listed")


class Split(Section):
    """`split`: what may be trained on, and a test set that is clean of it."""

    val: float = Field(0.05, gt=0, lt=1, allow_inf_nan=False, description="Share of documents for validation")
    test: float = Field(0.05, gt=0, lt=1, allow_inf_nan=False, description="Share of documents for the final test")
    near_duplicate: float = Field(
        0.7,
        ge=0.5,
        le=1,
        allow_inf_nan=False,
        description="Jaccard similarity of 5-word shingles from which two are one",
    )
    salt: str = Field("codex-ml", min_length=1, description="Key of the split; another one deals all documents anew")
    licences: tuple[str, ...] = Field(
        ("MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC", "PSF-2.0", "Python-2.0", "0BSD", "Unlicense"),
        description="SPDX identifiers that may be trained on",
    )
    unknown_licence: Literal["drop", "keep"] = Field("drop", description="What happens to documents without a licence")

    @model_validator(mode="after")
    def _train_is_left(self) -> Split:
        if self.val + self.test >= 1:
            raise ValueError(f"val + test is {self.val + self.test:g}; it must be below 1 so that train is not empty")
        return self


class Tokenizer(Section):
    """`tokenizer`: how text is cut."""

    kind: Literal["byte_bpe"] = Field(
        "byte_bpe", description="byte_bpe: byte-level BPE as GPT-2's, lossless on any text"
    )
    vocab_size: int = Field(4096, ge=258, le=2**24, description="Tokens, the 256 bytes and 2 special ones included")


class Pack(Section):
    """`pack`: the exact token stream that step N sees."""

    seq_len: int = Field(256, ge=8, description="Tokens a row")
    dtype: Literal["auto", "uint16", "uint32"] = Field("auto", description="auto: uint16 up to 65,536 tokens")


class Model(Section):
    """`model`: the shape of the Llama that is trained from scratch."""

    hidden_size: Positive = 192
    intermediate_size: Positive = 512
    layers: Positive = 4
    heads: Positive = 4
    max_positions: Positive = Field(256, description="Longest sequence in tokens; at least pack.seq_len")

    @model_validator(mode="after")
    def _heads_divide(self) -> Model:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of 2 x heads (2 x {self.heads}): "
                "rotary embeddings turn pairs within a head"
            )
        return self


class Train(Section):
    """`train`: the recipe of the optimisation."""

    lr: float = Field(1e-3, gt=0, lt=10, allow_inf_nan=False, description="Peak learning rate of AdamW")
    min_lr_ratio: float = Field(0.1, ge=0, le=1, allow_inf_nan=False, description="Cosine ends at this share of lr")
    warmup_steps: int = Field(50, ge=0, description="Steps of linear warm-up")
    max_steps: int = Field(600, ge=1, description="Optimizer steps")
    micro_batch_size: Positive = Field(16, description="Rows a forward pass")
    accumulation: Positive = Field(1, description="Forward passes an optimizer step")
    weight_decay: float = Field(0.1, ge=0, lt=1, allow_inf_nan=False)
    beta1: Share = 0.9
    beta2: Share = 0.95
    clip_norm: float = Field(1.0, gt=0, allow_inf_nan=False, description="Largest global L2 norm of the gradient")
    eval_every: Positive = Field(100, description="Steps between validations")
    eval_rows: Positive = Field(256, description="Validation rows, the same ones each time")
    checkpoint_every: Positive = Field(50, description="Steps between checkpoints; an interruption loses no more")
    log_every: Positive = Field(10, description="Steps between points of the curves")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where the hardware has it")
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="auto: torch.compile where a run of this length earns it back"
    )
    threads: int = Field(0, ge=0, description="CPU threads, 0 for all cores; other numbers give other last bits")

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Train:
        if self.warmup_steps > self.max_steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} is longer than max_steps {self.max_steps}")
        return self


class Evaluate(Section):
    """`evaluate`: how good, with what confidence."""

    bootstrap: int = Field(1000, ge=100, le=1_000_000, description="Resamples of documents for the intervals")
    confidence: float = Field(0.95, gt=0.5, lt=1, allow_inf_nan=False)
    batch_size: Positive = Field(8, description="Windows a forward pass; another number gives other last bits")


class SafetyAudit(Section):
    """`safety_audit`: what the model leaks, copies or emits."""

    windows: int = Field(200, ge=20, description="Windows of train text, and as many of test text as control")
    prefix_tokens: int = Field(50, ge=1, description="Tokens of context given")
    suffix_tokens: int = Field(50, ge=1, description="Tokens the model must reproduce, all of them")
    samples: int = Field(32, ge=1, description="Generated texts that are scanned")
    sample_tokens: int = Field(128, ge=1, description="Tokens a generated text")
    enforce: bool = Field(False, description="true: a failed gate ends the pipeline with exit code 1")


class Report(Section):
    """`report`: one page for people."""

    title: str = Field("codex-ml sample model", min_length=1, max_length=200)


class Runtime(Section):
    """`runtime`: what changes no byte of the result; no stage depends on it."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    progress: Literal["auto", "plain", "off"] = Field("auto", description="auto: a bar on a terminal, lines elsewhere")
    keep_checkpoints: Positive = Field(2, description="Complete checkpoints kept while training")


class Params(Section):
    """params.yaml, whole."""

    seed: int = Field(1, ge=0, lt=2**32, description="Seed of initialisation, data order, sampling and bootstrap")
    fetch: Fetch = Fetch()
    ingest: Ingest = Ingest()
    split: Split = Split()
    tokenizer: Tokenizer = Tokenizer()
    pack: Pack = Pack()
    model: Model = Model()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    safety_audit: SafetyAudit = SafetyAudit()
    report: Report = Report()
    runtime: Runtime = Runtime()

    @model_validator(mode="after")
    def _sections_agree(self) -> Params:
        if self.pack.seq_len > self.model.max_positions:
            raise ValueError(
                f"pack.seq_len {self.pack.seq_len} is longer than the model's positions; "
                f"raise model.max_positions ({self.model.max_positions}) or lower pack.seq_len"
            )
        if self.pack.dtype == "uint16" and self.tokenizer.vocab_size > UINT16_TOKENS:
            raise ValueError(
                f"tokenizer.vocab_size {self.tokenizer.vocab_size} does not fit pack.dtype uint16 "
                f"(at most {UINT16_TOKENS} tokens); use uint32 or auto"
            )
        window = self.safety_audit.prefix_tokens + self.safety_audit.suffix_tokens
        if window > self.model.max_positions:
            raise ValueError(
                f"safety_audit.prefix_tokens + suffix_tokens is {window}, longer than model.max_positions "
                f"{self.model.max_positions}"
            )
        if self.safety_audit.sample_tokens > self.model.max_positions:
            raise ValueError(
                f"safety_audit.sample_tokens {self.safety_audit.sample_tokens} is longer than model.max_positions "
                f"{self.model.max_positions}"
            )
        return self


def load_params(path: Path = PARAMS) -> Params:
    """Read and validate a params file.

    Raises:
        UserError: the first problem, as one line: file, line, key, what was found, what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run this from the repository's top folder") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start})") from None
    return validate_params(parse_yaml(text, str(path)), text=text, name=str(path))


def validate_params(value: Any, *, text: str = "", name: str = str(PARAMS)) -> Params:
    """Validate parsed parameters; see `load_params`."""
    if not isinstance(value, dict):
        raise UserError(f"{name}: a mapping of sections is wanted, found {type(value).__name__}")
    try:
        return Params.model_validate(value)
    except ValidationError as error:
        details = _independent([dict(problem) for problem in error.errors(include_url=False)])
        # a misspelt key explains the others, so it is told first
        first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
        message = _explain(first)
        line = line_of(text, _keys_to_show(first["loc"], message)) if text else None
        where = f"{name}:{line}" if line else name
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        raise UserError(f"{where}: {message}{more}") from None


def _independent(problems: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out that a list became too short because one of its items is wrong."""
    places = [problem["loc"] for problem in problems]

    def has_inner(place: tuple[int | str, ...]) -> bool:
        return any(len(other) > len(place) and other[: len(place)] == place for other in places)

    return [problem for problem in problems if problem["type"] != "too_short" or not has_inner(problem["loc"])]


def _keys_to_show(place: tuple[int | str, ...], message: str) -> tuple[int | str, ...]:
    """Where to point at: the place of the problem, or the first key that a message about two sections names."""
    if place:
        return place
    named = next((word for word in message.replace(",", " ").split() if word in set(known_keys())), "")
    return tuple(named.split("."))


def _explain(problem: dict[str, Any]) -> str:
    dotted = ".".join(str(key) for key in problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = nearest_key(dotted)
        return f"{dotted} is not a parameter" + (f"; did you mean {near}?" if near else "")
    message = str(problem["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    message = message.replace("a valid dictionary or instance of", "a mapping with the keys of").replace(
        "tuple", "list"
    )
    found = "" if problem["type"] == "value_error" else f"; found {problem['input']!r}"
    return f"{dotted}: {message}{found}" if dotted else message


def known_keys(model: type[BaseModel] = Params, prefix: str = "") -> Iterator[str]:
    """Dotted names of every parameter, in the order of the schema."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from known_keys(annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def nearest_key(dotted: str) -> str | None:
    """The known parameter that a misspelt one most likely means, or None.

    Looked for in this order: the usual name of it in other trainers, the same name in another section, a similar name
    in this section, a similar dotted name anywhere.
    """
    section, _, leaf = dotted.rpartition(".")
    keys = list(known_keys())
    if section.startswith("ingest.sources."):
        keys += [f"{section}.{name}" for name in Source.model_fields]
    usual = difflib.get_close_matches(leaf, list(SYNONYMS), n=1, cutoff=0.85)
    leaf = SYNONYMS[usual[0]] if usual else leaf
    wanted = f"{section}.{leaf}" if section else leaf
    if wanted in keys:
        return wanted
    here = {key.rpartition(".")[2]: key for key in keys if key.rpartition(".")[0] == section}
    same = [key for key in keys if key.rpartition(".")[2] == leaf]
    similar = difflib.get_close_matches(leaf, list(here), n=1, cutoff=0.6)
    anywhere = difflib.get_close_matches(dotted, [*keys, *Params.model_fields], n=1, cutoff=0.75)
    return next(iter([*same, *(here[name] for name in similar), *anywhere]), None)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of params.yaml, for editors."""
    schema = Params.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "params.yaml of codex-ml"
    return schema
