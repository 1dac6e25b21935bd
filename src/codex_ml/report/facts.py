"""Read and check everything that the page and the model card show, from the files that the other stages wrote."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from codex_ml.core.errors import UserError
from codex_ml.core.record import Record, record_path
from codex_ml.core.strict_json import parse_json
from codex_ml.documents.ingest_files import IngestDetails
from codex_ml.documents.split_files import Manifest, PolicyFinding, SplitMetrics
from codex_ml.inference.audit_files import Audit, AuditFinding, GeneratedSample
from codex_ml.inference.evaluate_files import Evaluation
from codex_ml.modeling.pack_files import PackDetails
from codex_ml.modeling.train_files import BaseModelFiles, Training, TrainMetrics
from codex_ml.report.evaluation_facts import ResultTables, load_tables
from codex_ml.report.input_files import Find, existing
from codex_ml.tokens.tokenizer_files import TokenizerDetails

STAGES = ("fetch", "ingest", "split", "tokenizer", "pack", "train", "evaluate", "safety_audit")
MODEL, HITS, CURVES = "models/model", "data/splits/findings.ndjson", "reports/train/plots"
# Languages of documents, as `ingest` names them, that are not programming languages.
NOT_CODE = {"text", "other", "markdown", "restructuredtext", "tex", "html", "xml", "json", "yaml", "toml", "ini"}
HITS_A_RULE = 20  # findings that are shown per rule; the manifest counts all
MAX_HEADER = 100 << 20  # bytes; the safetensors library refuses longer ones too

Point = tuple[int, float]  # (global_step, value)


@dataclass(frozen=True)
class Facts:
    """The data of the report. Its texts are of unknown origin: show them through `safe_text` only."""

    title: str
    ingest: IngestDetails
    split: SplitMetrics
    manifest: Manifest
    hits: tuple[PolicyFinding, ...]  # findings of the text policy in the corpus, the first HITS_A_RULE of each rule
    tokenizer: TokenizerDetails
    pack: PackDetails
    train: TrainMetrics
    training: Training
    parameters: int  # numbers in the model's weight files; tied ones count once
    curves: dict[str, tuple[Point, ...]]  # by name; "train/embedding_lr" is empty where one rate trained all
    evaluation: Evaluation
    results: ResultTables
    audit: Audit
    findings: tuple[AuditFinding, ...]
    samples: tuple[str, ...]
    lineage: dict[str, Record]  # by stage, in the order of the pipeline

    @property
    def licences(self) -> tuple[tuple[str, int], ...]:
        """(SPDX expression, training documents), most frequent first."""
        counts = self.manifest.splits.train.licences
        return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def base(self) -> BaseModelFiles | None:
        """The model that training started from; None if it was trained from scratch."""
        return self.training.model.base

    @property
    def passes(self) -> float:
        """How often the model had seen each training row when its weights were kept."""
        return self.training.global_step * self.training.rows_a_step / self.pack.train.rows

    @property
    def is_plain_text(self) -> bool:
        """Whether every token was a target: no prompt, no chat, and no BOS of a foreign tokenizer."""
        return self.pack.train.targets == self.pack.train.tokens - 1

    @property
    def is_code(self) -> bool:
        """Whether most training documents are in a programming language."""
        languages = self.manifest.splits.train.languages
        return 2 * sum(count for name, count in languages.items() if name not in NOT_CODE) > sum(languages.values())

    @property
    def has_bits(self) -> bool:
        """Whether the model has bits per byte: not if its tokenizer loses text, or that metric was not chosen."""
        bits = self.evaluation.documents.metrics.get("bits_per_byte")
        return bits is not None and bits.value is not None

    @property
    def confidence(self) -> float:
        return self.evaluation.confidence


def load_facts(find: Find, *, title: str) -> Facts:
    """Read every input of the report.

    Args:
        find: returns the file for a path of dvc.yaml, such as `Stage.dep`.

    Raises:
        UserError: when an input is missing or does not have the expected form (the message names the stage to run), or
            evaluation and audit measured different models.
    """
    lineage = {stage: Record.read(find(record_path(stage).as_posix()), stage=stage) for stage in STAGES}
    _refuse_two_models(lineage)
    training = Training.read(find(f"{MODEL}/training.json"))
    evaluation = Evaluation.read(find("reports/evaluate/details.json"))
    return Facts(
        title=title,
        ingest=IngestDetails.read(find("reports/ingest/details.json")),
        split=SplitMetrics.read(find("reports/split/metrics.json")),
        manifest=Manifest.read(find("reports/split/manifest.json")),
        hits=_first_of_each_rule(PolicyFinding.read_lines(find(HITS))),
        tokenizer=TokenizerDetails.read(find("reports/tokenizer/details.json")),
        pack=PackDetails.read(find("reports/pack/details.json")),
        train=TrainMetrics.read(find("reports/train/metrics.json")),
        training=training,
        parameters=_parameters(existing(find, MODEL, "train")),
        curves=_curves(find, training),
        evaluation=evaluation,
        results=load_tables(find, evaluation),
        audit=Audit.read(find("reports/safety_audit/audit.json")),
        findings=tuple(AuditFinding.read_array(find("reports/safety_audit/findings.json"))),
        samples=tuple(s.text for s in GeneratedSample.read_lines(find("reports/safety_audit/samples.ndjson"))),
        lineage=lineage,
    )


def _first_of_each_rule(hits: Iterable[PolicyFinding]) -> tuple[PolicyFinding, ...]:
    """Sorted by rule, and limited per rule, so that a thousand mail addresses do not hide three passwords."""
    seen: Counter[str] = Counter()
    first = []
    for hit in hits:
        seen[hit.rule] += 1
        if seen[hit.rule] <= HITS_A_RULE:
            first.append(hit)
    return tuple(sorted(first, key=attrgetter("rule")))


def _refuse_two_models(lineage: dict[str, Record]) -> None:
    hashes = {stage: lineage[stage].deps.get(MODEL) for stage in ("evaluate", "safety_audit")}
    if hashes["evaluate"] != hashes["safety_audit"] or not hashes["evaluate"]:
        raise UserError(
            f"evaluate and safety_audit read different {MODEL}: {hashes}; one page cannot describe two models. "
            "Run `dvc repro` without --single-item"
        )


def _curves(find: Find, training: Training) -> dict[str, tuple[Point, ...]]:
    curves = {name: _curve(find, name) for name in ("train/loss", "val/loss", "train/lr", "train/grad_norm")}
    has_two_rates = training.optimizer.embedding_lr is not None
    return {**curves, "train/embedding_lr": _curve(find, "train/embedding_lr") if has_two_rates else ()}


def _curve(find: Find, name: str) -> tuple[Point, ...]:
    """The points of a DVCLive TSV, without values that are not finite."""
    path = f"{CURVES}/metrics/{name}.tsv"
    with existing(find, path, "train").open(encoding="utf-8", newline="") as lines:
        try:
            rows = [(int(row["step"]), float(row[name.split("/")[1]])) for row in csv.DictReader(lines, delimiter="\t")]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is not a DVCLive curve ({error}); `dvc repro train` makes it anew") from None
    return tuple((step, value) for step, value in rows if math.isfinite(value))


def _parameters(folder: Path) -> int:
    """The number of parameters in the weight files, from their safetensors headers: 8 bytes of length, then JSON."""
    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            try:
                if length > MAX_HEADER:
                    raise ValueError(f"a header of {length} bytes")
                header = parse_json(handle.read(length))
                total += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(f"{file} is not a safetensors file ({error}); `dvc repro train` makes it") from None
    if not total:
        raise UserError(f"{folder} has no weights (*.safetensors); `dvc repro train` makes them")
    return total
