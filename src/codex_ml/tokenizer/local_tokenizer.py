"""Kind `local`: import a foreign tokenizer into a folder of this project. Its files are treated as hostile.

The source is a Hugging Face folder with tokenizer.json, a SentencePiece .model, or a GGUF file, which holds a
tokenizer too. `allowed` lists what tokenizer.json may hold. A limited child process first tries the model and the
regular expressions.

    kept unchanged   the vocabulary, the rules, all chat templates byte for byte
    removed          padding, truncation, dropout, and every key that this project does not need
    rewritten        the configuration, and a post-processor that puts BOS before a text

The post-processor is for other programs: this project encodes parts of documents, and adds BOS to documents itself.
Used by: tokenizer.training.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from codex_ml.core.child import LimitedChild
from codex_ml.core.errors import UserError
from codex_ml.core.io import write_bytes, write_json
from codex_ml.tokenizer.added_pieces import add_pieces, backend_of, growth_of, require_expandable
from codex_ml.tokenizer.allowed import checked_description, vocabulary_of
from codex_ml.tokenizer.config import Tokenizer as Settings
from codex_ml.tokenizer.foreign_files import (
    SIZES,
    find_files,
    read_bytes,
    read_chat_templates,
    read_foreign_config,
    read_foreign_json,
    refuse_left_out,
)
from codex_ml.tokenizer.gguf_tokenizer import unpack_tokenizer
from codex_ml.tokenizer.roles import adds_bos, bos_processor, named_tokens
from codex_ml.tokenizer.sample import Texts, sample_of
from codex_ml.tokenizer.sentencepiece_model import HARD
from codex_ml.tokenizer.trials import sentencepiece_trial, tokenizer_trial
from codex_ml.tokens.layout import (
    ADDED,
    CHATML,
    CHATML_TOKENS,
    PAD,
    write_config,
    write_templates,
)
from codex_ml.tokens.tokenizer_files import VocabularyGrowth

log = logging.getLogger("codex_ml")

CONFIGS = ("tokenizer_config.json", "special_tokens_map.json", "config.json")
SAMPLE_CHARACTERS = 200_000
PROBES = [*HARD, *(c * 4000 + "!" for c in "a Zé0_.-\n\t'\"中\u2581"), "ab " * 2000 + "\0", "aA0 .\n" * 1000 + "\x7f"]


def import_tokenizer(
    path: Path, texts: Texts, settings: Settings, folder: Path, *, held_out: Texts | None = None
) -> VocabularyGrowth | None:
    """Write the tokenizer folder for the foreign tokenizer at `path`.

    The pad token is the tokenizer's own, else its unknown token, else its end token. Padding is recognised by its
    position and never trained on, so any id serves; a new token would need an embedding row that the model may not
    have.

    Args:
        path: folder with tokenizer.json or one .model file, a .model file, or a .gguf file.
        texts: the first ones are encoded in the child process; for SentencePiece the ids are compared with it. With
            settings.add_pieces all are read, three times.
        folder: an empty folder.
        held_out: the val split, on which added pieces are measured; `texts` if None.

    Returns:
        the gain of the added pieces; None without settings.add_pieces.

    Raises:
        UserError: says what is wrong with which file, and what is allowed.
    """
    if path.suffix == ".gguf" and path.is_file():
        with tempfile.TemporaryDirectory(prefix="codex-ml-gguf-") as unpacked:
            unpack_tokenizer(path, Path(unpacked) / "tokenizer")
            return _import(Path(unpacked) / "tokenizer", texts, settings, folder, held_out or texts)
    refuse_left_out(path)
    return _import(path, texts, settings, folder, held_out or texts)


def _import(path: Path, texts: Texts, settings: Settings, folder: Path, held_out: Texts) -> VocabularyGrowth | None:
    """See `import_tokenizer`. Does not check DVC's hashes: an unpacked GGUF file is in a temporary folder."""
    source, model_file = find_files(path)
    probe = [*PROBES, *sample_of(texts, characters=SAMPLE_CHARACTERS)]
    if model_file:
        description, pieces, data = _from_sentencepiece(model_file, probe)
        write_bytes(folder / "tokenizer.model", data)
        processor = None
    else:
        raw = read_foreign_json(source, SIZES["tokenizer.json"])
        description, pieces, processor = checked_description(raw, source), None, raw.get("post_processor")
    if settings.add_pieces:
        require_expandable(description, source)
    special = {token["id"]: token["content"] for token in description["added_tokens"] if token.get("special")}
    # files beside a single .model file may belong to another tokenizer
    configs = [read_foreign_config(path, name) if path.is_dir() else {} for name in CONFIGS]
    named = named_tokens(configs[:2], configs[2], processor, special)
    if pieces:
        _name_pieces(pieces, named)
    templates = read_chat_templates(path) if path.is_dir() else {}
    extra = list(settings.special_tokens)
    if not templates and settings.chat_template == "chatml":
        templates, extra = {"default": CHATML}, [*CHATML_TOKENS, *extra]
    _add_tokens(description, extra)
    _mark_special(description, named, path)
    if "bos" in named and adds_bos(configs[0], processor, sentencepiece=pieces is not None):
        description["post_processor"] = bos_processor(named["bos"], _ids(description)[named["bos"]])
    _try(description, probe, source)
    growth = None
    if settings.add_pieces:
        smaller, (description, added) = description, add_pieces(description, texts, settings.add_pieces)
        _try(description, probe, source)
        added.write(folder / ADDED)
        splits = {"train": texts, "val": held_out}
        growth = growth_of(backend_of(smaller), backend_of(description), splits, len(added.old_ids))
    write_json(folder / "tokenizer.json", description)
    write_templates(folder, templates)
    pad = named.get("pad") or _other(named.get("unk"), named["eos"]) or named["eos"]
    if "pad" not in named:
        log.info("tokenizer: %s names no pad token; %s pads the rows and has no loss", path, pad)
    write_config(folder, end=named["eos"], pad=pad, bos=named.get("bos"), unk=named.get("unk"), extra={})
    return growth


def _other(token: str | None, than: str) -> str | None:
    return token if token != than else None


def _ids(description: dict[str, Any]) -> dict[str, int]:
    vocabulary = vocabulary_of(description["model"], Path("tokenizer.json"))
    return {**vocabulary, **{token["content"]: token["id"] for token in description["added_tokens"]}}


def _added(content: str, number: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **flags, "special": True}


def _add_tokens(description: dict[str, Any], contents: Iterable[str]) -> None:
    """Make these texts special tokens. An existing token keeps its id; a new one gets the next id after the largest."""
    ids = _ids(description)
    by_content = {token["content"]: token for token in description["added_tokens"]}
    for content in contents:
        if content in by_content:
            by_content[content]["special"] = True
        else:
            ids.setdefault(content, max(ids.values()) + 1)
            by_content[content] = _added(content, ids[content])
            description["added_tokens"].append(by_content[content])


def _mark_special(description: dict[str, Any], named: dict[str, str], path: Path) -> None:
    """Mark the tokens with a role as special, so that text cannot become them.

    Raises:
        UserError: when there is no end token, or a token with a role is not in the vocabulary.
    """
    if "eos" not in named:
        raise UserError(
            f"{path} names no eos_token, which must end every document; in a folder, add to tokenizer_config.json "
            '{"eos_token": "..."} with a token of its vocabulary or of tokenizer.special_tokens'
        )
    ids = _ids(description)
    by_content = {token["content"]: token for token in description["added_tokens"]}
    for role, content in named.items():
        if content not in ids:
            raise UserError(f"{path}: {role}_token {content!r} is not in its vocabulary")
        if content in by_content:
            by_content[content]["special"] = True
        else:
            description["added_tokens"].append(_added(content, ids[content]))
    description["added_tokens"].sort(key=lambda token: token["id"])


def _from_sentencepiece(file: Path, probe: list[str]) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """tokenizer.json of a .model file, the names of its pieces (see `try_sentencepiece`), and its bytes."""
    data = read_bytes(file, SIZES["model"])
    with (
        tempfile.TemporaryDirectory() as scratch,
        LimitedChild(sentencepiece_trial, seconds=30, once=True, folder=Path(scratch)) as child,
    ):
        made = Path(scratch) / "tokenizer.json"
        copy = Path(scratch) / "theirs.model"  # what is tried is what is kept
        write_bytes(copy, data)
        try:
            pieces = child.ask({"file": str(copy), "name": str(file), "texts": probe, "to": str(made)})
        except UserError as error:
            told = str(error)
            raise UserError(told if told.startswith(str(file)) else f"{file} cannot be used: {told}") from None
        description = checked_description(read_foreign_json(made, SIZES["tokenizer.json"]), file)
    return description, pieces, data


def _name_pieces(pieces: dict[str, Any], named: dict[str, str]) -> None:
    """Find roles by the usual names of control pieces, if no configuration names them."""
    usual = {"eos": ("</s>", "<eos>", "<|endoftext|>"), "bos": ("<s>", "<bos>"), "pad": ("<pad>", PAD)}
    for role, names in usual.items():
        found = next((name for name in names if name in pieces["control"]), None)
        if found:
            named.setdefault(role, found)
    named.setdefault("unk", pieces["unknown"])


def _try(description: dict[str, Any], probe: Iterable[str], file: Path) -> None:
    """Load and use the tokenizer in a limited child process, before this process does.

    Raises:
        UserError: with the child's error; when text can become a special token.
    """
    special = {token["content"]: token["id"] for token in description["added_tokens"] if token.get("special")}
    texts = [*probe, *special]
    with (
        tempfile.TemporaryDirectory() as scratch,
        LimitedChild(tokenizer_trial, seconds=20, once=True, folder=Path(scratch)) as child,
    ):
        write_json(Path(scratch) / "tokenizer.json", description)
        try:
            found = child.ask({"file": str(Path(scratch).resolve() / "tokenizer.json"), "texts": texts})
        except UserError as error:
            raise UserError(f"{file} cannot be used: {error}") from None
    for text, ids in zip(special, found[len(texts) - len(special) :], strict=True):
        if special[text] in ids and not _is_unknown(description, text):
            raise UserError(
                f"{file}: the special token {text!r} is also an ordinary token, so a document could forge it"
            )


def _is_unknown(description: dict[str, Any], text: str) -> bool:
    """Whether this is the unknown token. Text that is not in the vocabulary rightly becomes it."""
    model = description["model"]
    return bool(
        text == model.get("unk_token") or (model["type"] == "Unigram" and _ids(description)[text] == model["unk_id"])
    )
