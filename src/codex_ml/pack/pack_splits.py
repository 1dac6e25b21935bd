"""Pack the three splits into data/packed. Used by: stages/pack.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from codex_ml.core.errors import UserError
from codex_ml.core.progress import track
from codex_ml.core.strict_json import dump_json
from codex_ml.documents.document import Document, count_documents, read_documents
from codex_ml.modeling.canary_files import CANARIES
from codex_ml.modeling.examples import texts_of
from codex_ml.modeling.pack_files import (
    PLAIN,
    RECORDS,
    CanaryCounts,
    PackDetails,
    Packed,
    PackedStream,
    PromptTemplate,
    StreamDetails,
)
from codex_ml.modeling.prompt_template import template_named, templated
from codex_ml.modeling.rows import Rows, stream_dtype
from codex_ml.pack.canaries import (
    CanaryPlan,
    check_counts,
    domain_of,
    frame_for,
    plan_canaries,
    with_canaries,
    without_secrets,
)
from codex_ml.pack.config import Pack
from codex_ml.pack.fitting import Example, Note, encode_examples
from codex_ml.pack.row_writer import StreamFormat, write_stream

if TYPE_CHECKING:
    from codex_ml.tokens.text_tokenizer import TextTokenizer

REASONS = ("cut_prompt", "cut_completion", "cut_both", "too_long", "empty", "untrained")
DROPS = ("too_long", "empty", "untrained", "bad_chat")


@dataclass
class _Packer:
    """Packs one split after the other into `folder`, with the same settings.

    Attributes:
        template: how records with a prompt become text.
        records: open file that lists the records that are cut or dropped.
        turn_ends: ids of the special tokens that end a trained answer of a chat; grows with each split.
    """

    folder: Path
    tokenizer: TextTokenizer
    settings: Pack
    form: StreamFormat
    style: str
    records: IO[bytes]
    template: PromptTemplate
    turn_ends: set[int] = field(default_factory=set)

    def read(self, file: Path) -> Iterator[Document]:
        """The documents of a split, in the form of the template."""
        return templated(read_documents(file), self.template)

    def pack(self, name: str, file: Path, canaries: CanaryPlan | None) -> tuple[PackedStream, StreamDetails]:
        """Encode the documents of the split `name`, and write its stream."""
        tokenizer, reasons, count = self.tokenizer, Counter[str](), count_documents(file)
        documents = track(self.read(file), f"pack {name}", count, "documents", style=self.style)
        if canaries:
            documents = without_secrets(documents, canaries)
        note = partial(_note, self.records, name, reasons)
        encoded = tokenizer.encode_documents(texts_of(self.read(file)))
        examples = encode_examples(documents, encoded, tokenizer, self.settings, name=name, note=note)
        examples = _seen_ends(examples, tokenizer, self.turn_ends)
        if canaries:
            examples = with_canaries(examples, canaries)
        stream = write_stream(self.folder, name, examples, self.form)
        _require_targets(name, count, reasons)
        details = StreamDetails(
            documents=stream.documents,
            tokens=stream.tokens,
            targets=stream.targets,
            rows=stream.rows,
            cut_documents=stream.cut_documents,
            fill=stream.fill,
            records={reason: reasons[reason] for reason in {**dict.fromkeys(REASONS), **reasons}},
        )
        return stream, details


def pack_splits(
    folder: Path, files: Mapping[str, Path], tokenizer: TextTokenizer, settings: Pack, *, kind: str, style: str
) -> PackDetails:
    """Encode the splits and write the files of data/packed to `folder`.

    These are the files of `codex_ml.modeling.rows`; records.ndjson, the list of records that were cut or dropped; and
    where there are canaries (invented secrets) canaries.json.

    Args:
        folder: an empty folder.
        files: train, val and test -> file of their documents. Canaries are inserted into "train" only.
        settings: canaries are planted if `pack.canaries.plant` is "always"; the caller decides "sample".
        kind: tokenizer.kind, for pack.json.
        style: how progress is shown, see `codex_ml.core.progress`.

    Raises:
        UserError: see `stream_dtype`, `encode_examples`, `frame_for`, `plan_canaries` and `without_secrets`.
        CheckFailed: see `check_counts`.
    """
    dtype = stream_dtype(tokenizer.vocab_size, settings.dtype)
    form = StreamFormat(tokenizer.end, dtype, settings.seq_len, tokenizer.begin, settings.layout)
    streams: dict[str, PackedStream] = {}
    details: dict[str, Any] = {}
    template = template_named(settings.template)
    canaries = _planned(tokenizer, settings, files["train"], template)
    with (folder / RECORDS).open("wb") as records:
        packer = _Packer(folder, tokenizer, settings, form, style, records, template)
        for name, file in files.items():
            streams[name], details[name] = packer.pack(name, file, canaries if name == "train" else None)
    rare: dict[str, Any] = {} if template == PLAIN else {"template": template}
    rare |= {"added_pieces": list(map(list, tokenizer.added_pieces))} if tokenizer.added_pieces else {}
    Packed(
        dtype=dtype.str,
        seq_len=settings.seq_len,
        layout=settings.layout,
        tokenizer_kind=kind,
        vocab_size=tokenizer.vocab_size,
        begin=tokenizer.begin,
        end=tokenizer.end,
        pad=tokenizer.pad,
        loss_on=settings.loss_on,
        streams=streams,
        **rare,
        **_turn_ends(tokenizer, packer.turn_ends),
    ).write(folder / "pack.json")
    if canaries:
        listing = canaries.listing(streams["train"].canaries)
        check_counts(Rows.open(folder, "train").tokens, listing)
        listing.write(folder / CANARIES)
        details["canaries"] = CanaryCounts(
            design=canaries.frame.design,
            different=len(canaries.inserted),
            inserted=len(canaries.copies),
            controls=len(canaries.controls),
        )
    return PackDetails(**details)


def _require_targets(name: str, count: int, reasons: Counter[str]) -> None:
    """Refuse a split whose records are all dropped; else the model would be trained on canaries alone."""
    dropped = {reason: reasons[reason] for reason in DROPS if reasons[reason]}
    if count and name != "test" and sum(dropped.values()) == count:
        why = ", ".join(f"{number} {reason}" for reason, number in dropped.items())
        raise UserError(
            f"{name}: none of its {count} records has a token to train ({why}); a chat needs an answer, "
            "and a long record needs a larger pack.seq_len or pack.too_long: cut"
        )


def _seen_ends(examples: Iterable[Example], tokenizer: TextTokenizer, ends: set[int]) -> Iterator[Example]:
    """Yield the same examples, and add the special tokens that end a trained answer of a chat to `ends`."""
    for example in examples:
        if example.chat and example.trained is not None:
            trained = example.trained
            lasts = example.ids[trained[:-1] & ~trained[1:]]
            ends |= {int(number) for number in lasts} & set(tokenizer.special.values())
        yield example


def _turn_ends(tokenizer: TextTokenizer, ends: set[int]) -> dict[str, Any]:
    """The entry `turn_ends` of pack.json: special tokens that end a turn, from the records and from the template.

    Empty if there are none besides the tokenizer's END.
    """
    if tokenizer.chat_template is not None:
        from codex_ml.tokens.chat import turn_ends

        ends = ends | set(turn_ends(tokenizer))
    return {"turn_ends": sorted(ends - {tokenizer.end})} if ends - {tokenizer.end} else {}


def _planned(tokenizer: TextTokenizer, settings: Pack, file: Path, template: PromptTemplate) -> CanaryPlan | None:
    if settings.canaries.plant != "always":
        return None
    texts = texts_of(templated(read_documents(file), template))
    frame = frame_for(settings.canaries, tokenizer, domain_of(file), texts)
    documents = count_documents(file)
    return plan_canaries(tokenizer, settings.canaries, frame, documents=documents, seq_len=settings.seq_len)


def _note(records: IO[bytes], name: str, reasons: Counter[str], note: Note) -> None:
    reasons[note.reason] += 1
    records.write(dump_json({"split": name, **asdict(note)}, indent=None).encode("utf-8", "backslashreplace"))
