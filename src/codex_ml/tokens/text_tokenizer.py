"""The tokenizer at run time. Packing, evaluation, the audit and the commands all encode text with it.

Text is data: text that spells a special token is encoded as ordinary text, and no special token is added around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.conflicts import refuse_conflict
from codex_ml.core.errors import UserError, one_line
from codex_ml.core.io import read_json
from codex_ml.core.out_of_memory import is_out_of_memory
from codex_ml.core.pipeline import remedy
from codex_ml.tokens.confined_tokenizer import confined
from codex_ml.tokens.layout import read_added_pieces, read_templates

if TYPE_CHECKING:
    from tokenizers import Tokenizer

OTHERWISE = "name the folder of a whole tokenizer"


@dataclass(frozen=True)
class TextTokenizer:
    """A loaded tokenizer folder.

    Attributes:
        end: id that ends every document (EOS).
        pad: id that fills rows; equals `end` where a foreign tokenizer has no other.
        bos: id of the begin token (BOS); None if there is none.
        unk: id of the unknown token; None if the vocabulary covers every text.
        vocab_size: largest id + 1, added tokens included: the number of rows that an embedding needs.
        chat_template: Jinja source, byte for byte; None if there is none.
        special: text -> id of all special tokens.
        backend: the `tokenizers` object, or one that uses it in a limited child (tokens.confined_tokenizer). It does
            not recognise special tokens in text.
        named_templates: name -> Jinja source of the other chat templates.
        added_pieces: old ids of each piece that tokenizer.add_pieces added; these pieces have the last ids.
    """

    end: int
    pad: int
    bos: int | None
    unk: int | None
    vocab_size: int
    chat_template: str | None
    special: dict[str, int]
    backend: Tokenizer = field(repr=False)
    named_templates: Mapping[str, str] = field(default_factory=dict, repr=False)
    added_pieces: Sequence[Sequence[int]] = field(default=(), repr=False)

    @property
    def begin(self) -> int:
        """Id that begins every document: BOS, else EOS (as in lm-evaluation-harness, `prefix_token_id`).

        A model that was trained with a BOS needs it: Gemma-7b has a perplexity of 5.9e9 without BOS and 3.46 with it
        (EleutherAI/lm-evaluation-harness 1465).
        """
        return self.end if self.bos is None else self.bos

    def encode(self, text: str) -> NDArray[np.uint32]:
        """Ids of one text: (n,) uint32, without special tokens."""
        from codex_ml.tokens.engine import panics_as_errors

        with panics_as_errors():
            return np.array(self.backend.encode(text, add_special_tokens=False).ids, dtype=np.uint32)

    def encode_documents(self, texts: Iterable[str]) -> Iterator[NDArray[np.uint32]]:
        """Ids of each text, in order: (n,) uint32. The fastest engine that is proven to give the same ids encodes."""
        from codex_ml.tokens.engine import encode_all

        return encode_all(self.backend, texts)

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        """Text of ids. Special tokens are spelt out, and white space is not cleaned up."""
        return str(self.backend.decode([int(number) for number in ids], skip_special_tokens=False))


def load_tokenizer(folder: Path) -> TextTokenizer:
    """Load a folder that the tokenizer stage wrote, or a model folder, which holds a copy of it.

    Raises:
        UserError: when a file is missing or is not a tokenizer, or the end or pad token is not in it.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError(f"{file} is missing; {remedy(file, OTHERWISE)}")
    backend = _load_backend(file)
    settings = folder / "tokenizer_config.json"
    config = read_json(settings)
    ids = {role: _role_id(backend, config, role, folder) for role in ("eos", "pad", "bos", "unk")}
    if ids["eos"] is None or ids["pad"] is None:
        missing = "eos_token" if ids["eos"] is None else "pad_token"
        raise UserError(f"{settings} names no {missing}; {remedy(settings, OTHERWISE)}")
    templates = read_templates(folder)
    special = {t.content: number for number, t in backend.get_added_tokens_decoder().items() if t.special}
    return TextTokenizer(
        end=ids["eos"],
        pad=ids["pad"],
        bos=ids["bos"],
        unk=ids["unk"],
        vocab_size=max(backend.get_vocab(with_added_tokens=True).values()) + 1,
        chat_template=templates.pop("default", None),
        special=special,
        backend=backend,
        named_templates=templates,
        added_pieces=read_added_pieces(folder),
    )


def _load_backend(file: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_file(str(file))
    except BaseException as error:  # the Rust library raises PanicException, which is not an Exception
        if isinstance(error, KeyboardInterrupt | SystemExit) or is_out_of_memory(error):
            raise
        refuse_conflict(file.read_bytes(), str(file))
        raise UserError(f"{file} cannot be read as a tokenizer: {one_line(error)}") from None
    if backend.get_vocab_size(with_added_tokens=True) == 0:
        raise UserError(f"{file} cannot be read as a tokenizer: its vocabulary is empty")
    backend.encode_special_tokens = True
    return confined(backend)


def _role_id(backend: Tokenizer, config: Any, role: str, folder: Path) -> int | None:
    token = config.get(f"{role}_token") if isinstance(config, dict) else None
    token = token.get("content") if isinstance(token, dict) else token
    if token is None:
        return None
    number = backend.token_to_id(token) if isinstance(token, str) else None
    if number is None:
        raise UserError(f"{folder / 'tokenizer_config.json'}: {role}_token {token!r} is not in the vocabulary")
    return int(number)
