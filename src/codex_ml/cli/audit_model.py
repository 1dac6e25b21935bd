"""Audit any model with any documents, with the function that the stage `safety_audit` calls.

Documents are packed by the code of the stage `pack`, so the audit sees them in rows, as in the pipeline.
Used by: `codex-ml audit`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.cli.measure_model import PACKED, POLICY, go_offline
from codex_ml.cli.measure_options import naming_options
from codex_ml.cli.model_and_data import LoadedModel, ModelChoice, documents_file, is_split, load_any_model, shown_below
from codex_ml.cli.param_changes import Changeable, with_changes
from codex_ml.cli.param_rules import Params, load_params
from codex_ml.cli.scratch_folder import scratch_folder
from codex_ml.cli.unchanged_files import UnchangedFiles
from codex_ml.core.errors import UserError
from codex_ml.core.io import atomic_folder
from codex_ml.core.progress import track
from codex_ml.core.sections import validate
from codex_ml.safety_audit.accepted import read_accepted, refuse_expired
from codex_ml.safety_audit.config import SafetyAudit

if TYPE_CHECKING:
    from codex_ml.inference.audit_files import Audit
    from codex_ml.safety_audit.audit_job import AuditData, Reference

TRAIN, TEST = Path("data/splits/train.parquet"), Path("data/splits/test.parquet")
EVALUATION = Path("reports/evaluate")
INSTEAD = {"size": "use --size", "on_fail": "the exit code gives the verdict; leave it out"}


@dataclass(frozen=True)
class AuditInputs:
    """What is audited.

    Attributes:
        model: a folder or a GGUF file.
        train, held_out: documents that the model was trained on, and documents that it has not seen; None: not known.
        kind: of both, as in `ingest.sources`; None: from their names. A split needs no kind.
        reference: a model that has not read the training documents: a folder or a GGUF file; None: the base model of
            the pipeline's own model, if it has one.
    """

    model: Path
    train: Path | None = None
    held_out: Path | None = None
    kind: str | None = None
    reference: Path | None = None


def audit_settings(changes: Sequence[str] | None, size: str | None) -> SafetyAudit:
    """The section `safety_audit` of params.yaml with changes of single keys.

    Args:
        changes: `key=value` with keys of safety_audit; the value is YAML.
        size: "small" or "full"; numbers of windows and samples in params.yaml then give way to those of the size.

    Raises:
        UserError: for a change of another form, an unknown key, or a value that is not allowed.
    """
    values: dict[str, Any] = load_params().safety_audit.model_dump(mode="json")
    if size is not None:
        values |= {"windows": None, "samples": None} | validate_size(size)
    values = with_changes(values, changes, Changeable("safety_audit", "windows=1000", INSTEAD))
    return validate(SafetyAudit, values, name="-S")


def validate_size(size: str) -> dict[str, str]:
    """The key `size`, if the value is allowed; raises as `audit_settings`."""
    return {"size": validate(SafetyAudit, {"size": size}, name="--size").size}


def options_of_audit(changes: Sequence[str] | None) -> dict[str, str]:
    """The option for each key of params.yaml that the command line sets; see `naming_options`."""
    keys = [change.partition("=")[0].removeprefix("safety_audit.") for change in changes or ()]
    return {f"safety_audit.{key}": f"-S {key}" for key in keys} | {"ingest.sources": "--kind"}


def audit_model(settings: SafetyAudit, inputs: AuditInputs, target: Path, *, say: Callable[[str], None]) -> Audit:
    """Audit offline and write the audit folder, which appears complete.

    Args:
        say: is called with one sentence at a time: what was refused, the estimate of the time.

    Raises:
        UserError: for a model, documents, a policy or settings that cannot be used.
        CheckFailed: when the acceptance of a finding has expired.
    """
    go_offline()
    from codex_ml.modeling.canary_files import hide_canaries
    from codex_ml.policy.cleaner import load_cleaner
    from codex_ml.policy.scan import Scanner
    from codex_ml.safety_audit.audit_job import AuditedModel, AuditJob
    from codex_ml.safety_audit.audit_numbers import load_audit_policy
    from codex_ml.safety_audit.battery import check_lengths, run_battery
    from codex_ml.safety_audit.reference_model import base_reference

    params, rules = load_params(), load_audit_policy(Path(POLICY[0]))
    clean = hide_canaries(load_cleaner(*map(Path, POLICY)), PACKED)
    accepted = read_accepted(clean=clean)
    refuse_expired(accepted, clean=clean)
    _refuse_pointless(inputs)
    with scratch_folder() as scratch:
        files, notes = _documents(inputs, scratch, params, clean)
        any_file = files.get("train") or files.get("held-out")
        model_files = UnchangedFiles(inputs.model)
        loaded = load_any_model(ModelChoice(inputs.model, None, "fp32"), params.runtime, any_file, scratch)
        check_lengths(loaded.model.config, settings)
        piped = loaded.own and _is(inputs.train, TRAIN) and _is(inputs.held_out, TEST)
        data = _pipeline_data() if piped else _packed_data(files, loaded, settings, params, scratch)
        if piped and loaded.training and inputs.reference is None:
            reference = base_reference(loaded.training, inputs.model, loaded.tokenizer, str(loaded.model.device))
        else:
            reference = _reference(inputs.reference, loaded, settings, params, scratch)
        digest = model_files.digest()
        job = AuditJob(
            AuditedModel(loaded.model, loaded.tokenizer, digest, loaded.training if piped else None, reference),
            data,
            settings,
            rules,
            Scanner(rules),
            clean,
            params.seed,
            plots=scratch,
            track=partial(track, style=params.runtime.progress),
        )
        for note in notes:
            say(note)
        with atomic_folder(target) as folder:
            return run_battery(job, folder, accepted=accepted, say=say)


def _is(path: Path | None, other: Path) -> bool:
    return path is not None and path.resolve() == other.resolve()


def _refuse_pointless(inputs: AuditInputs) -> None:
    """Refuse inputs that do not exist or that contradict each other, before any is read."""
    train, held_out = inputs.train, inputs.held_out
    named = {"--model": inputs.model, "--train": train, "--held-out": held_out, "--reference": inputs.reference}
    for option, path in named.items():
        if path is not None and not path.exists():
            raise UserError(f"{option} {path} does not exist; name a file or a folder that does")
    if train is not None and held_out is not None and train.resolve() == held_out.resolve():
        raise UserError(f"--train and --held-out are both {train}; name documents that the model has not seen")
    files = [path for path in (train, held_out) if path is not None]
    if inputs.reference is not None and len(files) < 2:
        raise UserError("--reference is for membership inference, which needs --train and --held-out; name both")
    if inputs.kind is not None and not files:
        raise UserError(f"--kind {inputs.kind} is for documents, and neither --train nor --held-out names any")
    if inputs.kind not in (None, "parquet") and all(map(is_split, files)):
        raise UserError(f"--kind {inputs.kind}: {files[0]} is a split, which is a Parquet file; leave --kind out")


def _documents(
    inputs: AuditInputs, scratch: Path, params: Params, clean: Callable[[str], str]
) -> tuple[dict[str, Path], list[str]]:
    """The documents as Parquet files, by the option that names them, and what to say about them."""
    files, notes = {}, []
    train, held_out = inputs.train, inputs.held_out
    for option, path, other in (("train", train, held_out), ("held-out", held_out, train)):
        if path is None:
            continue
        folder = scratch / option
        folder.mkdir()
        with naming_options({"ingest.sources": f"--{option}"}):
            below = shown_below(path, other)
            files[option], refused = documents_file(path, inputs.kind, folder, params.runtime, clean, below=below)
        if refused:
            notes.append(f"note: --{option}: {refused}")
        if not is_split(path):
            notes.append(
                f"note: --{option}: the documents are audited as they are. The text policy is not applied to them, "
                "because it would hide what a model that has read them can repeat"
            )
    return files, notes


def _reference(
    path: Path | None, loaded: LoadedModel, settings: SafetyAudit, params: Params, scratch: Path
) -> Reference:
    """The model of --reference.

    Raises:
        UserError: if it cannot be loaded, or reads other tokens than the audited model.
    """
    from codex_ml.modeling.positions import check_length
    from codex_ml.safety_audit.audit_job import Reference
    from codex_ml.safety_audit.reference_model import other_tokens
    from codex_ml.train.model.vocabulary import embedding_rows

    if path is None:
        return Reference(why="no reference model is named; --reference MODEL names one")
    folder = scratch / "reference"
    folder.mkdir()
    other = load_any_model(ModelChoice(path, None, "fp32"), params.runtime, None, folder)
    different = other_tokens(other.tokenizer.backend.get_vocab(with_added_tokens=True), loaded.tokenizer)
    rows = embedding_rows(other.model)
    if not different and rows < loaded.tokenizer.vocab_size:
        different = f"it has {rows} embedding rows for {loaded.tokenizer.vocab_size} ids"
    if different:
        raise UserError(
            f"--reference {path} reads other tokens than the model: {different}; name a model with the same tokenizer"
        )
    if other.model.config.is_encoder_decoder != loaded.model.config.is_encoder_decoder:
        raise UserError(f"--reference {path}: one of both models is an encoder-decoder; name a model of the same kind")
    check_length(other.model.config, settings.prefix_tokens + settings.suffix_tokens, f"--reference {path}: a window")
    return Reference(lambda: other.model)


def _pipeline_data() -> AuditData:
    """What stages/safety_audit.py reads, for the model of the pipeline and its splits."""
    from codex_ml.modeling.rows import Rows
    from codex_ml.safety_audit.audit_job import AuditData
    from codex_ml.safety_audit.split_reports import SplitReports

    return AuditData(
        train=TRAIN,
        held_out=TEST,
        train_rows=Rows.open(PACKED, "train"),
        held_out_rows=Rows.open(PACKED, "test"),
        packed=PACKED,
        split=SplitReports.read(),
        evaluation=EVALUATION,
    )


def _packed_data(
    files: dict[str, Path], loaded: LoadedModel, settings: SafetyAudit, params: Params, scratch: Path
) -> AuditData:
    """Pack the documents into rows as long as the model's windows, without canaries."""
    from codex_ml.documents.document import write_documents
    from codex_ml.modeling.rows import Rows
    from codex_ml.pack.config import Canaries
    from codex_ml.pack.pack_splits import pack_splits
    from codex_ml.safety_audit.audit_job import AuditData

    if not files:
        return AuditData()
    window = settings.prefix_tokens + settings.suffix_tokens
    if window > loaded.length:
        raise UserError(
            f"safety_audit.prefix_tokens + suffix_tokens is {window}, longer than the {loaded.length} tokens of a row "
            "of this model; lower them with -S"
        )
    none, packed = scratch / "none.parquet", scratch / "packed"
    write_documents(none, ())
    packed.mkdir()
    pack_splits(
        packed,
        {"train": files.get("train", none), "val": none, "test": files.get("held-out", none)},
        loaded.tokenizer,
        params.pack.model_copy(update={"seq_len": loaded.length, "dtype": "auto", "canaries": Canaries()}),
        kind="local",
        style=params.runtime.progress,
    )
    return AuditData(
        train=files.get("train"),
        held_out=files.get("held-out"),
        train_rows=Rows.open(packed, "train") if "train" in files else None,
        held_out_rows=Rows.open(packed, "test") if "held-out" in files else None,
        packed=packed,
    )
