"""Everything the page and the model card say, read once and strictly from what the stages before have written."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from codex_ml.core.errors import UserError
from codex_ml.core.io import read_json
from codex_ml.core.record import record_path
from codex_ml.core.strict_json import parse_json, parse_json_file
from codex_ml.report.shapes import (
    AuditNumbers,
    Base,
    DocumentScore,
    Evaluation,
    Finding,
    Gate,
    Hit,
    IngestNumbers,
    Manifest,
    PackNumbers,
    Point,
    Record,
    Sample,
    Shape,
    SourceScore,
    SplitNumbers,
    TokenizerNumbers,
    Training,
    TrainNumbers,
)

STAGES = ("fetch", "ingest", "split", "tokenizer", "pack", "train", "evaluate", "safety_audit")
MODEL, HITS, CURVES = "models/model", "data/splits/findings.ndjson", "reports/train/plots"
# Languages of documents, as `ingest` names them, that are no programming languages.
NOT_CODE = {"text", "other", "markdown", "restructuredtext", "tex", "html", "xml", "json", "yaml", "toml", "ini"}
HITS_A_RULE = 20  # that are shown; all are counted in the manifest
MAX_HEADER = 100 << 20  # bytes; the safetensors library refuses longer ones too

Find = Callable[[str], Path]  # from a path of dvc.yaml to the file: `Stage.dep`


@dataclass(frozen=True)
class Facts:
    """What the report knows. Texts in it are data of unknown origin: show them through `safe_text` only."""

    title: str
    ingest: IngestNumbers
    split: SplitNumbers
    manifest: Manifest
    hits: tuple[Hit, ...]  # of what the text policy found in the corpus, the first HITS_A_RULE of each rule
    tokenizer: TokenizerNumbers
    pack: PackNumbers
    train: TrainNumbers
    training: Training
    parameters: int  # numbers in the model's weight files; tied ones count once
    curves: dict[str, tuple[Point, ...]]  # "train/loss", "val/loss", "train/lr", "train/grad_norm"
    evaluation: Evaluation
    sources: tuple[SourceScore, ...]
    documents: tuple[DocumentScore, ...]
    audit: AuditNumbers
    verdict: str  # "pass", "fail" or "invalid"
    gates: tuple[Gate, ...]
    findings: tuple[Finding, ...]
    samples: tuple[str, ...]
    lineage: dict[str, Record]  # by stage, in the order of the pipeline

    @property
    def licences(self) -> tuple[tuple[str, int], ...]:
        """(SPDX expression, training documents), most frequent first."""
        counts = self.manifest.splits.train.licences
        return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def base(self) -> Base | None:
        """The model that was trained on; None from scratch."""
        return self.training.model.base

    @property
    def is_plain_text(self) -> bool:
        """Whether every token was a target: no prompt, no chat, no BOS of a tokenizer that somebody else made."""
        return self.pack.train.targets == self.pack.train.tokens - 1

    @property
    def is_code(self) -> bool:
        """Whether most training documents are in a programming language."""
        languages = self.manifest.splits.train.languages
        return 2 * sum(count for name, count in languages.items() if name not in NOT_CODE) > sum(languages.values())

    @property
    def confidence(self) -> float:
        return float(self.lineage["evaluate"].params["evaluate"]["confidence"])


def load_facts(find: Find, *, title: str) -> Facts:
    """Read every input of the report.

    Args:
        find: gives the file for a path of dvc.yaml, such as `Stage.dep`.

    Raises:
        UserError: when an input is missing or has another shape, naming the stage to run; when evaluation and audit
            measured different models.
    """
    lineage = {stage: _read(find, record_path(stage).as_posix(), Record) for stage in STAGES}
    _refuse_two_models(lineage)
    audit = _object(find, "reports/safety_audit/audit.json")
    verdict = _verdict(audit)
    return Facts(
        title=title,
        ingest=_read(find, "reports/ingest/details.json", IngestNumbers),
        split=_read(find, "reports/split/metrics.json", SplitNumbers),
        manifest=_read(find, "reports/split/manifest.json", Manifest),
        hits=_first_of_each_rule(_rows(find, HITS, Hit, stage="split")),
        tokenizer=_read(find, "reports/tokenizer/details.json", TokenizerNumbers),
        pack=_read(find, "reports/pack/details.json", PackNumbers),
        train=_read(find, "reports/train/metrics.json", TrainNumbers),
        training=_shape(read_json(_existing(find, f"{MODEL}/training.json", "train")), Training, MODEL, "train"),
        parameters=_parameters(_existing(find, MODEL, "train")),
        curves={name: _curve(find, name) for name in ("train/loss", "val/loss", "train/lr", "train/grad_norm")},
        evaluation=_read(find, "reports/evaluate/details.json", Evaluation),
        sources=_sources(_existing(find, "reports/evaluate/by_source.csv", "evaluate")),
        documents=tuple(_rows(find, "reports/evaluate/documents.ndjson", DocumentScore)),
        audit=_read(find, "reports/safety_audit/audit.json", AuditNumbers),
        verdict=verdict,
        gates=tuple(_shape(gate, Gate, "audit.json", "safety_audit") for gate in audit.get("gates") or ()),
        findings=_list(find, "reports/safety_audit/findings.json", Finding),
        samples=tuple(sample.text for sample in _rows(find, "reports/safety_audit/samples.ndjson", Sample)),
        lineage=lineage,
    )


S = TypeVar("S", bound=Shape)


def _existing(find: Find, path: str, stage: str) -> Path:
    file = find(path)
    if not file.exists():
        raise UserError(f"{path} is missing; `dvc repro {stage}` makes it")
    return file


def _stage_of(path: str) -> str:
    return Path(path).parts[1]  # reports/<stage>/...


def _object(find: Find, path: str) -> dict[str, Any]:
    value = read_json(_existing(find, path, _stage_of(path)))
    if not isinstance(value, dict):
        raise UserError(f"{path}: a JSON object is wanted; `dvc repro {_stage_of(path)}` makes it anew")
    return value


def _read(find: Find, path: str, shape: type[S]) -> S:
    return _shape(_object(find, path), shape, path, _stage_of(path))


def _rows(find: Find, path: str, shape: type[S], *, stage: str | None = None) -> Iterator[S]:
    stage = stage or _stage_of(path)
    with _existing(find, path, stage).open("rb") as lines:  # bytes, so that only LF ends a line
        for number, line in enumerate(lines, 1):
            yield _shape(parse_json_file(line, path, line=number), shape, f"{path}:{number}", stage)


def _first_of_each_rule(hits: Iterable[Hit]) -> tuple[Hit, ...]:
    """By rule, so that three passwords are seen among a thousand mail addresses."""
    seen: Counter[str] = Counter()
    first = []
    for hit in hits:
        seen[hit.rule] += 1
        if seen[hit.rule] <= HITS_A_RULE:
            first.append(hit)
    return tuple(sorted(first, key=attrgetter("rule")))


def _list(find: Find, path: str, shape: type[S]) -> tuple[S, ...]:
    values = read_json(_existing(find, path, _stage_of(path)))
    if not isinstance(values, list):
        raise UserError(f"{path}: a JSON array is wanted; `dvc repro {_stage_of(path)}` makes it anew")
    return tuple(_shape(value, shape, path, _stage_of(path)) for value in values)


def _shape(value: Any, shape: type[S], where: str, stage: str) -> S:
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{where}: {key}: {first['msg']}; `dvc repro {stage}` makes it anew") from None


def _verdict(audit: dict[str, Any]) -> str:
    verdict = audit.get("verdict")
    if verdict not in ("pass", "fail", "invalid"):
        raise UserError(f"reports/safety_audit/audit.json: verdict {verdict!r}; pass, fail or invalid is wanted")
    return str(verdict)


def _refuse_two_models(lineage: dict[str, Record]) -> None:
    hashes = {stage: lineage[stage].deps.get(MODEL) for stage in ("evaluate", "safety_audit")}
    if hashes["evaluate"] != hashes["safety_audit"] or not hashes["evaluate"]:
        raise UserError(
            f"evaluate and safety_audit read different {MODEL}: {hashes}; one page cannot speak of two models. "
            "Run `dvc repro` without --single-item"
        )


def _curve(find: Find, name: str) -> tuple[Point, ...]:
    """A DVCLive TSV. Values that are not finite leave a gap."""
    path = f"{CURVES}/metrics/{name}.tsv"
    with _existing(find, path, "train").open(encoding="utf-8", newline="") as lines:
        try:
            rows = [(int(row["step"]), float(row[name.split("/")[1]])) for row in csv.DictReader(lines, delimiter="\t")]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is no DVCLive curve ({error}); `dvc repro train` makes it anew") from None
    return tuple((step, value) for step, value in rows if math.isfinite(value))


def _sources(file: Path) -> tuple[SourceScore, ...]:
    with file.open(encoding="utf-8", newline="") as lines:
        try:
            return tuple(
                SourceScore(
                    source=row["source"],
                    bits_per_byte=float(row["bits_per_byte"]) if row["bits_per_byte"] else None,
                    zlib_bits_per_byte=float(row["zlib_bits_per_byte"]),
                    documents=int(row["documents"]),
                )
                for row in csv.DictReader(lines)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{file} is not what evaluate writes ({error}); `dvc repro evaluate` makes it") from None


def _parameters(folder: Path) -> int:
    """Numbers in the weight files, from the safetensors headers: 8 bytes of length, then JSON with the shapes."""
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
                raise UserError(f"{file} is no safetensors file ({error}); `dvc repro train` makes it") from None
    if not total:
        raise UserError(f"{folder} holds no weights (*.safetensors); `dvc repro train` makes them")
    return total
