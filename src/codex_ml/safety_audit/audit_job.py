"""What every part of the audit gets: the model, the data, the settings, and what it gives back.

Used by: the parts of safety_audit, the stage, cli.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from codex_ml.inference.audit_files import AuditFinding, AuditPart, GeneratedSample
from codex_ml.modeling.rows import Rows
from codex_ml.modeling.train_files import Training
from codex_ml.policy.rules import Policy
from codex_ml.policy.scan import Scanner
from codex_ml.safety_audit.config import SafetyAudit
from codex_ml.safety_audit.split_reports import SplitReports

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from codex_ml.tokens.text_tokenizer import TextTokenizer

Result = TypeVar("Result")
NO_TRAIN = "the training documents are not known; give --train DATA"
NO_HELD_OUT = "the held-out documents are not known; give --held-out DATA"
Track = Callable[[Iterable[Any], str, int, str], Iterator[Any]]  # (items, what, total, unit), as `Stage.track`


@dataclass(frozen=True)
class Reference:
    """A model that has not read the training documents, to compare the audited model with.

    Attributes:
        load: loads it; it must read the same tokens. None: there is none.
        why: the reason for which there is none.
    """

    load: Callable[[], PreTrainedModel] | None = None
    why: str = "no reference model is known"


@dataclass(frozen=True)
class AuditedModel:
    """The model that is audited.

    Attributes:
        digest: SHA-256 of its folder or file.
        training: how it was trained; None for a foreign model, of which all rows of `AuditData.train_rows` count as
            seen.
        reference: such as the model that the training started from.
    """

    model: PreTrainedModel
    tokenizer: TextTokenizer
    digest: str
    training: Training | None = None
    reference: Reference = Reference()


@dataclass(frozen=True)
class AuditData:
    """What the model was trained on, and what was held out. None: not known, and the parts that need it are skipped.

    Attributes:
        train, held_out: Parquet files of the documents.
        train_rows, held_out_rows: the same documents as the model reads them.
        packed: folder of the packed rows; canaries.json lies in it if canaries were planted.
        split: what `split` reports about the documents.
        evaluation: result folder of `evaluate` for the same model.
    """

    train: Path | None = None
    held_out: Path | None = None
    train_rows: Rows | None = None
    held_out_rows: Rows | None = None
    packed: Path | None = None
    split: SplitReports | None = None
    evaluation: Path | None = None

    @property
    def missing_rows(self) -> str:
        """Which documents are not known, and the option of `codex-ml audit` that names them; "" where both are."""
        missing = [
            why for rows, why in ((self.train_rows, NO_TRAIN), (self.held_out_rows, NO_HELD_OUT)) if rows is None
        ]
        return ", and ".join(missing)


@dataclass(frozen=True)
class AuditJob:
    """One audit, as a part sees it.

    Attributes:
        policy, scanner: the text policy and the scanner of its rules.
        clean: replaces in a text every value that the policy does not allow.
        plots: folder for the small tables of pictures; it exists.
        track: iterates over items and shows the progress.
        shared: what `once` has computed, by name; `dataclasses.replace` keeps it.
    """

    subject: AuditedModel
    data: AuditData
    settings: SafetyAudit
    policy: Policy
    scanner: Scanner
    clean: Callable[[str], str]
    seed: int
    plots: Path
    track: Track
    shared: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Result]) -> Result:
        """Return `make()`, which is computed once per audit: several parts ask for the same windows or texts."""
        if name not in self.shared:
            self.shared[name] = make()
        result: Result = self.shared[name]
        return result


@dataclass(frozen=True)
class PartResult:
    """What a part of the battery gives back.

    Attributes:
        name: of the part: memorisation, canaries, ...
        samples: texts that the model wrote, for samples.ndjson.
    """

    name: str
    part: AuditPart
    findings: list[AuditFinding] = field(default_factory=list)
    samples: list[GeneratedSample] = field(default_factory=list)


def skipped(name: str, title: str, why: str) -> PartResult:
    """The result of a part that could not run."""
    return PartResult(name, AuditPart(status="skipped", title=title, why=why))
