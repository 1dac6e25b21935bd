"""Load any model and any documents for an evaluation or an audit outside the pipeline.

A model may be a folder that this pipeline trained, a Hugging Face folder, or a GGUF file; documents may come from any
kind of source that `ingest` reads. Both may be hostile. Used by: `codex-ml evaluate`, `codex-ml compare`,
`codex-ml audit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from codex_ml.core.errors import UserError
from codex_ml.documents.document import PUBLISHED, opened, read_documents, write_documents

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from codex_ml.core.config import Runtime
    from codex_ml.documents.document import Document
    from codex_ml.evaluate.job import Subject
    from codex_ml.modeling.hardware import Hardware
    from codex_ml.modeling.train_files import Training
    from codex_ml.tokens.text_tokenizer import TextTokenizer

OWN = Path("models/model")  # written here; every other folder is foreign, whatever lies in it
LONGEST = 1024  # tokens per window of a foreign model, unless the user says otherwise
NAMES = ("source", "path", "id", "group")  # of a document; results list them
PACKED = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True)
class ModelChoice:
    """Which model is evaluated, and how.

    Attributes:
        path: a folder or a GGUF file.
        window: tokens per window; None: as training.json of the folder says, else its positions up to `LONGEST`.
        precision: as `evaluate.precision`.
        base: the model that the adapter in `path` belongs to; None: `path` is a whole model.
    """

    path: Path
    window: int | None
    precision: Literal["fp32", "bf16", "auto"]
    base: Path | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A model of any origin in memory.

    Attributes:
        training: training.json of its folder, if there is one; a foreign folder can say anything there.
        own: whether it is the folder that the stage `train` writes.
        length: tokens per window.
    """

    model: PreTrainedModel
    tokenizer: TextTokenizer
    hardware: Hardware
    training: Training | None
    own: bool
    length: int


def load_subject(choice: ModelChoice, runtime: Runtime, data: Path, scratch: Path) -> Subject:
    """Load a model with its tokenizer for an evaluation; see `load_any_model`."""
    from codex_ml.cli.unchanged_files import UnchangedFiles
    from codex_ml.evaluate.job import Subject
    from codex_ml.modeling.pack_files import PLAIN

    files = UnchangedFiles(choice.path)
    loaded = load_any_model(choice, runtime, data, scratch)
    return Subject(
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        length=loaded.length,
        loss_on=loaded.training.loss_on if loaded.training else "completions",
        template=loaded.training.template if loaded.training else PLAIN,
        precision="bf16" if loaded.hardware.precision == "bf16" else "fp32",
        digest=files.digest(),
        compile=loaded.hardware.compile and not loaded.model.config.is_encoder_decoder,
    )


def load_any_model(choice: ModelChoice, runtime: Runtime, data: Path | None, scratch: Path) -> LoadedModel:
    """Load a model with its tokenizer.

    Args:
        data: Parquet file of documents, for the trial of a foreign tokenizer; None: only the built-in texts are tried.
        scratch: an existing folder for files that are unpacked.

    Raises:
        UserError: when model or tokenizer cannot be used together, or the window is longer than the model can see.
    """
    from codex_ml.core.record import cpu_threads
    from codex_ml.modeling.examples import rough_tokens
    from codex_ml.modeling.hardware import scoring_hardware
    from codex_ml.modeling.positions import check_length, longest_sequence
    from codex_ml.modeling.train_files import Training
    from codex_ml.modeling.trained_model import load_model
    from codex_ml.tokens.text_tokenizer import load_tokenizer

    path = choice.path
    if not path.exists():
        raise UserError(f"{path} does not exist; --model names a folder of a model or a GGUF file")
    own = path.resolve() == OWN.resolve()
    training = Training.read(path / "training.json") if (path / "training.json").is_file() else None
    hardware = scoring_hardware(
        runtime,
        threads=cpu_threads(training.hardware.threads if training and own else 0),
        precision=choice.precision,
        tokens=0 if data is None else rough_tokens(data),
        seq_len=choice.window or (training.seq_len if training else LONGEST),
    )
    if own:
        model, tokenizer = load_model(path, device=hardware.device), load_tokenizer(path)
    else:
        model, tokenizer = _foreign(choice, hardware.device, data=data, scratch=scratch)
    length = choice.window or (training.seq_len if training else min(LONGEST, longest_sequence(model.config)[0]))
    check_length(model.config, length, "--window")
    return LoadedModel(model, tokenizer, hardware, training, own, length)


def _foreign(
    choice: ModelChoice, device: str, *, data: Path | None, scratch: Path
) -> tuple[PreTrainedModel, TextTokenizer]:
    from codex_ml.tokenizer.config import Tokenizer
    from codex_ml.tokenizer.local_tokenizer import import_tokenizer
    from codex_ml.tokens.text_tokenizer import load_tokenizer
    from codex_ml.train.model.local_adapter import load_adapted
    from codex_ml.train.model.local_model import load_local
    from codex_ml.train.model.vocabulary import embedding_rows

    def texts() -> Iterator[str]:
        return iter(()) if data is None else (document.content for document in read_documents(data))

    path = choice.path
    model: Any
    if choice.base is None:
        model = load_local(path, attention="eager", scratch=scratch)
    else:
        model = load_adapted(path, choice.base, attention="eager", scratch=scratch)
        path = path if (path / "tokenizer.json").is_file() else choice.base  # an adapter may bring its tokenizer
    folder = scratch / "tokenizer"
    folder.mkdir()
    import_tokenizer(path, texts, Tokenizer(kind="local", path="models/base/tokenizer"), folder)
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size > (rows := embedding_rows(model)):
        raise UserError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} ids, but the model has {rows} embedding rows; they do "
            "not belong together"
        )
    return model.to(device).eval(), tokenizer


def kind_of(path: Path) -> str:
    """The kind of source that a file name says.

    Raises:
        UserError: where the name does not say it.

    >>> kind_of(Path("data/held_out.jsonl.gz"))
    'jsonl'
    """
    from codex_ml.ingest.readers import ENDINGS

    name = path.name.lower()
    for ending in PACKED:
        name = name.removesuffix(ending)
    kind = next((kind for kind, endings in ENDINGS.items() if name.endswith(endings)), None)
    if kind is None or path.is_dir():
        raise UserError(f"{path}: the name does not say what it holds; add --kind, such as --kind files")
    return kind


def is_split(path: Path) -> bool:
    """Whether a file has the form of the pipeline's splits, such as data/splits/test.parquet."""
    if path.suffix != ".parquet" or not path.is_file():
        return False
    with opened(path) as file:
        return bool(file.schema_arrow.names == PUBLISHED)


def documents_file(
    path: Path,
    kind: str | None,
    scratch: Path,
    runtime: Runtime,
    redact: Callable[[str], str],
    *,
    below: Path | None = None,
) -> tuple[Path, str]:
    """The documents of any source as a Parquet file.

    Args:
        kind: as in `ingest.sources`; None: from the name of the file.
        scratch: an existing folder for that file.
        redact: the text policy, for the names of documents.
        below: where given, a record of a table, which has no path, gets its file below this folder and its line as one:
            "a.jsonl:3".

    Returns:
        (Parquet file, what was refused in one sentence, "" for nothing).

    Raises:
        UserError: when there is no such source, it cannot be read, or it has no documents.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; name a file or a folder of documents")
    if is_split(path):
        return path, ""
    read, refused = _ingested(path, kind or kind_of(path), scratch, runtime)
    made = scratch / "documents.parquet"
    documents = (_with_line(document, below) if below else document for document in read_documents(read))
    write_documents(made, (_published(document, redact) for document in documents))
    return made, refused


def _with_line(document: Document, below: Path) -> Document:
    """The record of a table with its place below a folder as its path: results hold no absolute path."""
    place = Path(document.place).absolute()
    return document if document.path else replace(document, path=place.relative_to(below).as_posix())


def shown_below(path: Path, other: Path | None) -> Path:
    """The folder below which names of documents of `path` are not those of documents of `other`.

    >>> shown_below(Path("/data/a/x.jsonl"), Path("/data/b/x.jsonl"))
    PosixPath('/data')
    """
    path = path.absolute()
    own, others = path.parts[::-1], () if other is None else other.absolute().parts[::-1]
    same = next((number for number, part in enumerate(own) if number >= len(others) or part != others[number]), 0)
    return path.parents[same] if same or not path.is_dir() else path


def _published(document: Document, redact: Callable[[str], str]) -> Document:
    """The document with the names under which results list it, as they may be published."""
    return replace(document, **{name: redact(getattr(document, name)) for name in NAMES})


def _ingested(path: Path, kind: str, scratch: Path, runtime: Runtime) -> tuple[Path, str]:
    from codex_ml.core.parallel import shared_workers, workers_for
    from codex_ml.core.progress import progress
    from codex_ml.core.sections import validate
    from codex_ml.ingest.config import Ingest, Source
    from codex_ml.ingest.corpus import spilling
    from codex_ml.ingest.corpus_writer import write_corpus
    from codex_ml.ingest.readers import source_bytes
    from codex_ml.ingest.sources import Tally, read_sources

    name = path.resolve().name[:200] or kind  # never a path of this machine
    given = {"kind": kind, "path": "data", "name": name, "bad_records": "skip"}
    source = validate(Source, given, name="--kind").model_copy(update={"path": str(path)})  # in any folder
    settings, tally, made = Ingest().model_copy(update={"sources": (source,)}), Tally(), scratch / "read.parquet"
    size = source_bytes(source)
    workers = workers_for(size, runtime.workers)
    with shared_workers(workers), spilling(scratch / "spills") as spills:
        with progress("read", size, "bytes", style=runtime.progress) as advance:
            for _ in read_sources(settings, spills, tally, workers=workers, advance=advance):
                pass
        reasons = ", ".join(f"{count} x {reason}" for reason, count in tally.reasons.most_common(3))
        if not tally.documents:
            raise UserError(f"{path} has no documents ({reasons or 'no file matches'}); is {kind} its kind?")
        with progress("sort", tally.bytes, "bytes", style=runtime.progress) as advance:
            write_corpus(made, spills, workers=workers, advance=advance)
    refused = f"{tally.refused} of {tally.documents + tally.refused} records were refused: {reasons}"
    return made, refused if tally.refused else ""
