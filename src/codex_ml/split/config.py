"""The section `split` of params.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from codex_ml.core.bounds import MOST_FOLDS
from codex_ml.core.config import Characters, Number, Section, Share
from codex_ml.core.plugins import BuiltInOr
from codex_ml.documents.licences import PERMISSIVE


class Limits(Section):
    """Limits on `documents.signals.Signals`. null switches a limit off. A text exactly at a limit is kept."""

    max_line_length: Characters | None = Field(
        1000, description="Characters in the longest line; minified and data files"
    )
    max_mean_line_length: Number | None = Field(100, description="Characters in the average line")
    min_alphanumeric_share: Share | None = Field(0.25, description="Share of letters and digits of any script")
    min_alphabetic_share: Share | None = Field(None, description="Share of letters of any script")
    max_digit_share: Share | None = Field(None, description="Share of digits and other numbers")
    min_comment_share: Share | None = Field(None, description="Share of lines that begin with a comment")
    max_comment_share: Share | None = Field(None, description="The same share, at most; licence texts without code")
    min_compression_ratio: Number | None = Field(0.05, description="LZ4 size / size; repetitive text has a low ratio")
    max_blob_share: Share | None = Field(0.5, description="Share of long runs of base64 or hexadecimal digits")
    min_html_text_share: Share | None = Field(0.2, description="Share of visible text in an HTML file")
    min_lines: Characters | None = Field(None, description="Lines per document, at least")
    max_lines: Characters | None = Field(None, description="Lines per document, at most")
    drop_generated: bool = Field(True, description="Drop files whose first 10 lines say that a program wrote them")
    drop_xml: bool = Field(True, description="Drop files that begin with an XML header, whatever their name is")


# A paragraph of prose is one line. The limits on line lengths find minified code, and would drop most books.
PROSE = Limits(max_line_length=None, max_mean_line_length=None)
LANGUAGES = dict.fromkeys(("text", "markdown", "restructuredtext"), PROSE)


class Quality(Limits):
    """`split.quality`: limits for all languages, and exceptions per language."""

    languages: dict[str, Limits] = Field(
        LANGUAGES, description="html: {max_line_length: null}; text, markdown, restructuredtext have no line limits"
    )

    @field_validator("languages")
    @classmethod
    def _beside_the_defaults(cls, languages: dict[str, Limits]) -> dict[str, Limits]:
        return LANGUAGES | {name.lower(): limits for name, limits in languages.items()}


AUGMENTERS = ("rename_identifiers",)  # built in


class Benchmark(Section):
    """Items of a public benchmark that must not be trained on."""

    path: str = Field(min_length=1, description="JSON Lines, also .gz, below data/benchmarks")
    fields: tuple[str, ...] = Field(
        ("prompt", "canonical_solution"), min_length=1, description="Fields of an item that hold its text"
    )

    @field_validator("path")
    @classmethod
    def _declared(cls, path: str) -> str:
        if not Path(path).is_relative_to("data/benchmarks") or ".." in Path(path).parts:
            raise ValueError("only files below data/benchmarks are a dep of split; move the file there")
        return path


class Split(Section):
    """`split`: what may be trained on, and a test set that is clean of it."""

    val: float = Field(0.05, gt=0, lt=1, allow_inf_nan=False, description="Share of documents for validation")
    test: float = Field(0.05, gt=0, lt=1, allow_inf_nan=False, description="Share of documents for the final test")
    near_duplicate: float = Field(
        0.7,
        ge=0.5,
        le=1,
        allow_inf_nan=False,
        description="Two documents are near-duplicates from this Jaccard similarity of 5-word shingles on",
    )
    salt: str = Field("codex-ml", min_length=1, description="Key of the split; another key deals all documents again")
    ledger: bool = Field(True, description="Documents in data/split_ledger keep their split; false: by hash only")
    folds: int = Field(0, ge=0, le=MOST_FOLDS, description="Folds of cross-validation; 0: val has the share split.val")
    fold: int = Field(0, ge=0, lt=MOST_FOLDS, description="The fold that is val")
    stratify: str = Field(
        "", description="Field whose values each get these shares: language, licence, source, group or a field of meta"
    )
    licences: tuple[str, ...] = Field(
        PERMISSIVE,
        description="SPDX identifiers that may be trained on; LicenseRef-NAME for a licence of your own",
    )
    unknown_licence: Literal["drop", "keep"] = Field("drop", description="What happens to documents without a licence")
    quality: Quality = Quality()
    policy: Literal["enforce", "off"] = Field("enforce", description="data/policy.yaml; off is shown in all reports")
    augment: tuple[Annotated[str, BuiltInOr("augmenters", AUGMENTERS)], ...] = Field(
        (),
        max_length=100,
        description="Augmenters that add changed copies to train: rename_identifiers, or one of a package",
    )
    benchmarks: tuple[Benchmark, ...] = ()
    contaminated: Literal["report", "drop"] = Field("drop", description="What happens to documents that hold items")

    @property
    def plugins(self) -> dict[str, tuple[str, ...]]:
        """Kind of plug-ins -> what the section names of it."""
        return {"augmenters": tuple(name for name in self.augment if name not in AUGMENTERS)}

    @model_validator(mode="after")
    def _train_is_left(self) -> Split:
        if self.val + self.test >= 1:
            raise ValueError(f"val + test is {self.val + self.test:g}; it must be below 1 so that train is not empty")
        if self.folds == 1 or (self.folds and self.fold >= self.folds):
            raise ValueError(f"fold {self.fold} of {self.folds} folds; folds must be 0 or at least 2, fold below it")
        return self
