"""The schema of params.yaml: every knob with its default, unit and bounds, in one place.

A key of a stage's section changes bytes, so that stage depends on it. A key that changes no byte lives in `runtime`,
which no stage depends on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

UINT16_TOKENS = 2**16


class Section(BaseModel):
    """Base of all sections: unknown keys and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_silent_conversion(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name or ""].annotation
        wanted = {annotation, *(get_args(kind)[0] if get_args(kind) else kind for kind in get_args(annotation))}
        if wanted & {int, float} and isinstance(value, bool | str):
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


Count = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Limits(Section):
    """Limits on `data.quality.Signals`; null switches one off. A text on a limit is kept."""

    max_line_length: Count | None = Field(1000, description="Characters of the longest line; minified and data files")
    max_mean_line_length: Number | None = Field(100, description="Characters of the average line")
    min_alphanumeric_share: Share | None = Field(0.25, description="Letters and digits of any script")
    min_alphabetic_share: Share | None = Field(None, description="Letters of any script")
    max_digit_share: Share | None = Field(None, description="Digits and other numbers")
    min_comment_share: Share | None = Field(None, description="Lines that begin with a comment, of all lines")
    max_comment_share: Share | None = Field(None, description="The same, upwards: files that are a licence and no code")
    min_compression_ratio: Number | None = Field(0.05, description="LZ4 size through size; repetition goes below")
    max_blob_share: Share | None = Field(0.5, description="Characters in long runs of base64 or hexadecimal digits")
    min_html_text_share: Share | None = Field(0.2, description="Visible text of an HTML file")
    min_lines: Count | None = Field(None, description="Lines of a document, at least")
    max_lines: Count | None = Field(None, description="Lines of a document, at most")
    drop_generated: bool = Field(True, description="Drop files whose first 10 lines say that a program wrote them")
    drop_xml: bool = Field(True, description="Drop files that begin with an XML header, whatever they are called")


# A paragraph of prose is one line: the limits on lines find minified code and would drop most books.
PROSE = Limits(max_line_length=None, max_mean_line_length=None)
LANGUAGES = dict.fromkeys(("text", "markdown", "restructuredtext"), PROSE)


class Quality(Limits):
    """`split.quality`: limits for all languages, and what differs in some."""

    languages: dict[str, Limits] = Field(
        LANGUAGES, description="html: {max_line_length: null}; text, markdown, restructuredtext have no line limits"
    )

    @field_validator("languages")
    @classmethod
    def _beside_the_defaults(cls, languages: dict[str, Limits]) -> dict[str, Limits]:
        return LANGUAGES | {name.lower(): limits for name, limits in languages.items()}


Kind = Literal["jsonl", "csv", "tsv", "parquet", "datasets", "files", "wheels", "sdists", "zip", "tar", "git"]


class Fields(Section):
    """Names of the fields of a record, for `jsonl`, `csv`, `tsv`, `parquet` and `datasets`."""

    text: str = "text"
    prompt: str = "prompt"
    completion: str = "completion"
    messages: str = "messages"
    tools: str = "tools"
    id: str = "id"
    group: str = Field("group", description="Records with the same value are never in different splits")
    licence: str = Field("licence", description="SPDX expression; a field called license is found too")
    language: str = "language"


class Source(Section):
    """One place that documents come from."""

    kind: Kind = Field(
        description="jsonl, csv, tsv: files, also .gz .zst .bz2 .xz; parquet; datasets: a folder that Hugging Face "
        "datasets saved; files: a folder of code or text; wheels, sdists: a folder of Python packages; zip; tar; git: "
        "a local repository at a revision"
    )
    path: str = Field(min_length=1, description="File, folder or glob, relative to the repository")
    name: str = Field("", max_length=200, description="What its documents are said to come from; empty: the path")
    glob: str = Field("**/*.py", min_length=1, description="Which files of a folder or an archive are documents")
    include: tuple[str, ...] = Field((), description="More globs, besides glob")
    exclude: tuple[str, ...] = Field((), description="Globs of files that are left out")
    gitignore: bool = Field(True, description="files: leave out what a .gitignore of the folder leaves out")
    revision: str = Field("HEAD", min_length=1, description="git: branch, tag or commit")
    fields: Fields = Fields()
    licence: str = Field("unknown", description="SPDX expression of documents that do not carry their own")
    group: Literal["none", "source", "folder"] = Field(
        "none", description="What stays in one split: source: all of an archive or repository; folder: a top folder"
    )
    bad_records: Literal["fail", "skip"] = Field("fail", description="skip: list what cannot be read, and go on")
    max_bad_records: Positive = Field(1000, description="Where skip gives up too")

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise ValueError("only a relative path inside the repository can be traced; copy or link the data there")
        return path

    @property
    def label(self) -> str:
        return self.name or self.path


class Ingest(Section):
    """`ingest`: which documents, from where, under which licence."""

    sources: tuple[Source, ...] = Field((Source(kind="wheels", path="data/raw/sample"),), min_length=1)
    max_document_bytes: Positive = Field(1_000_000, description="Longer documents are left out, counted and listed")


class Benchmark(Section):
    """Test questions of others that must not be trained on."""

    path: str = Field(min_length=1, description="JSON Lines, also .gz, below data/benchmarks")
    fields: tuple[str, ...] = Field(("prompt", "canonical_solution"), min_length=1, description="Texts of an item")

    @field_validator("path")
    @classmethod
    def _declared(cls, path: str) -> str:
        if not Path(path).is_relative_to("data/benchmarks") or ".." in Path(path).parts:
            raise ValueError("only files below data/benchmarks are dependencies of split; put the file there")
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
        description="Jaccard similarity of 5-word shingles from which two are one",
    )
    salt: str = Field("codex-ml", min_length=1, description="Key of the split; another one deals all documents anew")
    ledger: bool = Field(True, description="What data/split_ledger.ndjson lists keeps its split; false: by hash only")
    folds: int = Field(0, ge=0, le=1000, description="Folds of cross-validation; 0: val by its share")
    fold: int = Field(0, ge=0, description="The fold that is val")
    stratify: str = Field("", description="Field whose values get equal shares: language, licence, source or of meta")
    licences: tuple[str, ...] = Field(
        ("MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC", "PSF-2.0", "Python-2.0", "0BSD", "Unlicense"),
        description="SPDX identifiers that may be trained on",
    )
    unknown_licence: Literal["drop", "keep"] = Field("drop", description="What happens to documents without a licence")
    quality: Quality = Quality()
    policy: Literal["enforce", "off"] = Field("enforce", description="data/policy.yaml; off is told everywhere")
    benchmarks: tuple[Benchmark, ...] = ()
    contaminated: Literal["report", "drop"] = Field("drop", description="Train documents that hold benchmark items")

    @model_validator(mode="after")
    def _train_is_left(self) -> Split:
        if self.val + self.test >= 1:
            raise ValueError(f"val + test is {self.val + self.test:g}; it must be below 1 so that train is not empty")
        if self.folds == 1 or (self.folds and self.fold >= self.folds):
            raise ValueError(f"fold {self.fold} of {self.folds} folds; folds is 0 or at least 2, fold is below it")
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
    workers: int = Field(0, ge=0, le=1024, description="Processes of ingest and split, 0 for one a core")
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
