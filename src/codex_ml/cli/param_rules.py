"""All of params.yaml: the sections of every stage, and the rules across sections.

`codex-ml check` and each stage at its start validate the whole file, so that the first stage of a run refuses what the
last one would refuse. A key in the section of a stage changes bytes; a key that changes no byte is in `runtime`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from codex_ml.cli.keys_without_effect import SOURCE_WITHOUT_EFFECT, WITHOUT_EFFECT, value_and_default, without_effect
from codex_ml.cli.param_upgrade import VERSION, of_this_version
from codex_ml.core.config import Runtime, Section, Seed
from codex_ml.core.paths import SAMPLE_BENCHMARKS
from codex_ml.core.sections import PARAMS, validate
from codex_ml.core.yaml import parse_yaml, read_text
from codex_ml.evaluate.config import Evaluate
from codex_ml.fetch.config import Fetch
from codex_ml.ingest.config import Ingest
from codex_ml.pack.config import Pack
from codex_ml.report.config import Report
from codex_ml.safety_audit.config import SafetyAudit
from codex_ml.split.config import Split
from codex_ml.tokenizer.config import Tokenizer
from codex_ml.train.config import Lora, Model, Train
from codex_ml.train.presets import FROM_PRESET

UINT16_TOKENS = 2**16
OWN_KEYS = ("gpt2", "gpt_neox", "t5")  # architectures in which no two heads share keys and values


class Params(Section):
    """params.yaml, whole."""

    version: int = Field(VERSION, ge=1, le=VERSION, description="Of the form of this file")
    seed: Seed = 1
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
    def _rules_hold(self) -> Params:
        for rule in RULES:
            for message in rule(self):
                raise ValueError(message)
        return self


def _every_value_counts(params: Params) -> Iterator[str]:
    for message in without_effect(params, WITHOUT_EFFECT):
        yield message
    for number, source in enumerate(params.ingest.sources):
        for message in without_effect(source, SOURCE_WITHOUT_EFFECT):
            yield f"ingest.sources.{number}.{message}"


def _rows_are_shared(params: Params) -> Iterator[str]:
    rows = params.train.micro_batch_size * params.train.accumulation
    if params.runtime.processes and rows % params.runtime.processes:
        yield (
            f"runtime.processes {params.runtime.processes} cannot share the {params.train.micro_batch_size} x "
            f"{params.train.accumulation} rows of a step evenly; choose a divisor of micro_batch_size x accumulation"
        )


def _shards_can_be_trained(params: Params) -> Iterator[str]:
    if params.runtime.sharding == "none":
        return
    for found, instead in (
        (params.train.compile == "on" and "train.compile on", "auto or off"),
        (params.train.precision == "fp16" and "train.precision fp16", "bf16, fp32 or auto"),
        (params.model.quantization != "none" and f"model.quantization {params.model.quantization}", "none"),
        (_trains_rows(params) and "tokenizer.add_pieces under model.lora", "0, or all weights (model.lora.rank: 0)"),
    ):
        if found:
            yield f"runtime.sharding full cannot be combined with {found}; use {instead}"


def _trains_rows(params: Params) -> bool:
    """Whether adapters train rows of the embedding too."""
    return bool(params.tokenizer.add_pieces and params.model.lora.rank)


def _rows_of_new_pieces_are_whole(params: Params) -> Iterator[str]:
    if params.model.quantization != "none" and _trains_rows(params):
        yield (
            f"model.quantization {params.model.quantization} cannot be combined with tokenizer.add_pieces "
            f"{params.tokenizer.add_pieces}: the adapter is merged into the original weights, which have no rows for "
            "the new pieces; use none, or add no pieces"
        )


def _sections_agree(params: Params) -> Iterator[str]:
    if params.model.path:  # its own config.json has the number of positions; train and safety_audit compare
        return
    if params.pack.seq_len > params.model.max_positions:
        yield (
            f"pack.seq_len {params.pack.seq_len} is longer than the model's positions; "
            f"raise model.max_positions ({params.model.max_positions}) or lower pack.seq_len"
        )
    if params.pack.dtype == "uint16" and params.tokenizer.vocab_size > UINT16_TOKENS:
        yield (
            f"tokenizer.vocab_size {params.tokenizer.vocab_size} does not fit pack.dtype uint16 "
            f"(at most {UINT16_TOKENS} tokens); use uint32 or auto"
        )
    window = params.safety_audit.prefix_tokens + params.safety_audit.suffix_tokens
    if window > params.model.max_positions:
        yield (
            f"safety_audit.prefix_tokens + suffix_tokens is {window}, longer than model.max_positions "
            f"{params.model.max_positions}"
        )
    if params.safety_audit.sample_tokens > params.model.max_positions:
        yield (
            f"safety_audit.sample_tokens {params.safety_audit.sample_tokens} is longer than model.max_positions "
            f"{params.model.max_positions}"
        )


def _a_model_on_disk_has_one_rate(params: Params) -> Iterator[str]:
    if not params.model.path:
        return
    if params.train.optimizer == "muon":
        yield "train.optimizer muon is for a model from scratch, and model.path names a trained one; use auto or adamw"
    if params.train.embedding_lr is not None:
        yield (
            f"train.embedding_lr {params.train.embedding_lr} has no effect with model.path, whose weights all train at "
            "train.lr; write null"
        )
    momentum, default = value_and_default(params, "train.momentum")
    if momentum != default:
        yield (
            f"train.momentum {momentum} has no effect with model.path, whose weights train with AdamW; remove it, or "
            f"write {default}, its default"
        )


def _windows_of_the_audit_fit_into_rows(params: Params) -> Iterator[str]:
    window = params.safety_audit.prefix_tokens + params.safety_audit.suffix_tokens
    if window > params.pack.seq_len:
        yield (
            f"safety_audit.prefix_tokens + suffix_tokens is {window}, longer than a row (pack.seq_len "
            f"{params.pack.seq_len}), so no window of the audit fits into one; lower them"
        )


def _adapters_keep_the_tokenizer_of_the_model(params: Params) -> Iterator[str]:
    if params.model.lora.rank and params.tokenizer.kind != "local":
        yield (
            f"model.lora.rank {params.model.lora.rank} leaves the embedding as it is, but tokenizer.kind "
            f"{params.tokenizer.kind} makes a new tokenizer; use the model's own (tokenizer.kind: local), or train "
            "all weights (model.lora.rank: 0)"
        )


def _heads_share_keys_where_they_can(params: Params) -> Iterator[str]:
    model = params.model
    if not model.path and model.architecture in OWN_KEYS and model.kv_heads not in (0, model.heads):
        yield f"model.kv_heads: {model.architecture} cannot share heads of keys and values; use 0"


def _encoder_decoder_has_its_rows(params: Params) -> Iterator[str]:
    if not params.model.is_encoder_decoder:
        return
    if params.pack.layout != "padded":
        yield "pack.layout packed puts several documents into a row, but model.architecture t5 reads one; use padded"
    if params.train.compile == "on":
        yield (
            "train.compile on needs batches of one shape, but batches of model.architecture t5 are as long as "
            "their longest encoder input; use auto or off"
        )


def _generated_text_fits(params: Params) -> Iterator[str]:
    if params.evaluate.stride > params.pack.seq_len:
        yield (
            f"evaluate.stride {params.evaluate.stride} is longer than a window of the model (pack.seq_len "
            f"{params.pack.seq_len}); use at most {params.pack.seq_len}, or 0 for disjoint windows"
        )
    completions, code = params.evaluate.completions, params.evaluate.code
    if completions.documents and completions.max_tokens >= params.pack.seq_len:
        yield (
            f"evaluate.completions.max_tokens {completions.max_tokens} leaves no room for a prompt in a row "
            f"(pack.seq_len {params.pack.seq_len}); lower it, or set evaluate.completions.documents to 0"
        )
    if params.evaluate.benchmarks and not params.model.path and code.max_tokens >= params.model.max_positions:
        yield (
            f"evaluate.code.max_tokens {code.max_tokens} leaves no room for a prompt, because the model sees "
            f"model.max_positions {params.model.max_positions} tokens; lower it"
        )


def _named_benchmarks_are_fetched(params: Params) -> Iterator[str]:
    named = {
        "split.benchmarks": [benchmark.path for benchmark in params.split.benchmarks],
        "evaluate.benchmarks": list(params.evaluate.benchmarks),
    }
    keys = [key for key, paths in named.items() if any(Path(path).is_relative_to(SAMPLE_BENCHMARKS) for path in paths)]
    if keys and not params.fetch.benchmarks:
        yield (
            f"fetch.benchmarks is false, so {SAMPLE_BENCHMARKS} is empty; remove its files from {' and '.join(keys)} "
            "(without other files: []), or set fetch.benchmarks to true"
        )


# Each yields one message per mistake; the first message of the first rule that is broken is shown.
RULES = (
    _every_value_counts,
    _rows_are_shared,
    _shards_can_be_trained,
    _rows_of_new_pieces_are_whole,
    _sections_agree,
    _a_model_on_disk_has_one_rate,
    _windows_of_the_audit_fit_into_rows,
    _adapters_keep_the_tokenizer_of_the_model,
    _heads_share_keys_where_they_can,
    _encoder_decoder_has_its_rows,
    _generated_text_fits,
    _named_benchmarks_are_fetched,
)


def load_params(path: Path = PARAMS) -> Params:
    """Read and validate a whole params file.

    Raises:
        UserError: the first problem, as one line: file, line, key, what was found, what is allowed.
    """
    text = read_text(path)
    return validate_params(parse_yaml(text, str(path)), text=text, name=str(path))


def validate_params(value: Any, *, text: str = "", name: str = str(PARAMS)) -> Params:
    """Validate all parameters, already parsed; see `load_params`."""
    with of_this_version(value, text, name):
        return validate(Params, value, text=text, name=name)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of params.yaml, for editors."""
    schema = Params.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "params.yaml of codex-ml"
    sizes = schema["$defs"]["Model"]["properties"]
    for keys, names in ((sizes, FROM_PRESET), (schema["$defs"]["Lora"]["properties"], Lora.model_fields)):
        for key in names:
            keys[key] = {"anyOf": [keys[key], {"type": "null"}], "description": "null: the preset's, else the default"}
    return schema
