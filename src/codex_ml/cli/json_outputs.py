"""What each command prints with --json, and its JSON Schema.

A schema comes from the class that the command fills, so no copy of it can become stale.

Used by: `codex-ml schema --of`, completion.
"""

from __future__ import annotations

from importlib import import_module
from types import GenericAlias
from typing import Any, Literal, NamedTuple

from codex_ml.core.errors import UserError

Form = Literal["object", "array", "lines"]
FORMS: dict[Form, str] = {
    "object": "One JSON object.",
    "array": "One JSON array.",
    "lines": "One JSON object per line; this is the schema of a line.",
}


class JsonOutput(NamedTuple):
    """The output of a command: module and name of the class, and whether it is one object or many."""

    module: str
    name: str
    form: Form = "object"


# The words after codex-ml -> the output. `doctor --last-error` prints another object than `doctor`.
OUTPUTS = {
    "audit": JsonOutput("inference.audit_files", "Audit"),
    "compare": JsonOutput("inference.comparison_files", "Comparisons"),
    "doctor": JsonOutput("cli.diagnosis.doctor_finding", "Diagnosis"),
    "doctor --last-error": JsonOutput("cli.diagnosis.doctor_finding", "LastError"),
    "evaluate": JsonOutput("inference.evaluate_files", "Evaluation"),
    "export adapter": JsonOutput("cli.model_export", "ExportedFolder"),
    "export gguf": JsonOutput("cli.model_export", "ExportedFile"),
    "export merged": JsonOutput("cli.model_export", "ExportedFolder"),
    "export tokenizer": JsonOutput("cli.model_export", "ExportedFolder"),
    "folds": JsonOutput("cli.cross_validation", "FoldsResult"),
    "generate": JsonOutput("cli.generated_text", "GenerateReport"),
    "ledger forget": JsonOutput("cli.ledger_counts", "ForgottenContents"),
    "ledger show": JsonOutput("cli.ledger_counts", "SplitLedgerCounts"),
    "lineage": JsonOutput("cli.history.stage_chain", "LineageStep", "array"),
    "logs": JsonOutput("core.events", "LogLine", "lines"),
    "merge": JsonOutput("cli.history.unite", "MergeResult"),
    "pack show": JsonOutput("cli.pack_step", "Row", "lines"),
    "params upgrade": JsonOutput("cli.param_upgrade", "ParamUpgrade"),
    "plan": JsonOutput("cli.planning.plan_schema", "ReproPlan"),
    "plugins list": JsonOutput("cli.plugin_list", "PluginList"),
    "policy try": JsonOutput("policy.filters", "ScreenedText"),
    "runs": JsonOutput("cli.run_history", "RunList"),
    "sweep": JsonOutput("cli.sweeping.sweep_result", "SweepResult"),
    "tokenizer compare": JsonOutput("cli.tokenizer_output", "TokenizerComparison"),
    "tokenizer decode": JsonOutput("cli.tokenizer_output", "DecodedText"),
    "tokenizer encode": JsonOutput("cli.tokenizer_output", "EncodedText"),
    "tokenizer special": JsonOutput("cli.tokenizer_validation", "SpecialTokens"),
    "tokenizer stats": JsonOutput("cli.tokenizer_output", "TokenizerStats"),
    "tokenizer validate": JsonOutput("cli.tokenizer_validation", "TokenizerValidation"),
    "track": JsonOutput("cli.tracked_results", "SentList"),
    "verify": JsonOutput("cli.checks.hash_chain", "Verification"),
}


def output_schema(command: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of what a command prints with --json; no object may have a key that it does not name.

    Args:
        command: a key of OUTPUTS, with or without the word codex-ml.

    Raises:
        UserError: for a command without --json.
    """
    name = " ".join(command.split()).removeprefix("codex-ml ")
    if name not in OUTPUTS:
        raise UserError(f"--of {command[:60]}: no such command prints JSON; these do: {', '.join(OUTPUTS)}")
    output = OUTPUTS[name]
    shape = getattr(import_module(f"codex_ml.{output.module}"), output.name)
    schema = _closed(GenericAlias(list, (shape,)) if output.form == "array" else shape)
    told = " ".join(filter(None, [FORMS[output.form], schema.get("description")]))
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"codex-ml {name} --json"}
    return {**schema, **head, "description": told}


def _closed(shape: Any) -> dict[str, Any]:
    """The schema of a class; a dataclass allows no further key, as a `Contract` does by itself."""
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
    from pydantic_core import core_schema

    class Closed(GenerateJsonSchema):
        def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
            return {**super().dataclass_schema(schema), "additionalProperties": False}

    return TypeAdapter(shape).json_schema(mode="serialization", schema_generator=Closed)
