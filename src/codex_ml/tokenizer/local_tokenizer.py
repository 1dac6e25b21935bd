"""Kind `local`: a tokenizer that somebody else made becomes a folder of ours. Its files are hostile until proven tame.

A Hugging Face folder with tokenizer.json, a SentencePiece .model, or a GGUF file, which brings one too. What it may
hold is listed in `allowed`; what cuts text, regular expressions among it, is tried in a limited child first; the
configuration is written anew. Taken as they are: the vocabulary, the rules, all chat templates byte for byte. Left out:
padding, truncation, dropout, and every key that this project does not need. A post-processor that puts BOS before a
text is written anew, for other programs: this one encodes pieces of text and puts BOS before documents itself.
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
from codex_ml.tokenizer.sentencepiece_file import CONTROL, UNKNOWN, SentencePieceModel, read_model
from codex_ml.tokenizer.sentencepiece_model import HARD
from codex_ml.tokenizer.trials import sentencepiece_trial, tokenizer_trial
from codex_ml.tokens.layout import (
    CHATML,
    CHATML_TOKENS,
    PAD,
    write_config,
    write_templates,
)

log = logging.getLogger("codex_ml")

CONFIGS = ("tokenizer_config.json", "special_tokens_map.json", "config.json")
SAMPLE_CHARACTERS = 200_000
PROBES = [*HARD, *(c * 4000 + "!" for c in "a Zé0_.-\n\t'\"中"), "ab " * 2000 + "\0", "aA0 .\n" * 1000 + "\x7f"]


def import_tokenizer(path: Path, texts: Texts, settings: Settings, folder: Path) -> None:
    """Write our folder for the foreign tokenizer at `path`.

    pad: the tokenizer's own, else its unknown token, else the end token: filler is told by its place and never
    trained on, and another token would need a row of the embedding that the model at hand may not have.

    Args:
        path: folder with tokenizer.json or one .model file, a .model file, or a .gguf file.
        texts: some are encoded in the child, and for SentencePiece compared.
        folder: an empty folder.

    Raises:
        UserError: what is wrong with which file, and what is allowed.
    """
    if path.suffix == ".gguf" and path.is_file():
        with tempfile.TemporaryDirectory(prefix="codex-ml-gguf-") as unpacked:
            unpack_tokenizer(path, Path(unpacked) / "tokenizer")
            _import(Path(unpacked) / "tokenizer", texts, settings, folder)
        return
    refuse_left_out(path)
    _import(path, texts, settings, folder)


def _import(path: Path, texts: Texts, settings: Settings, folder: Path) -> None:
    """See `import_tokenizer`; what we unpacked of a GGUF file may lie where DVC hashes nothing."""
    source, model_file = find_files(path)
    probe = [*PROBES, *sample_of(texts, characters=SAMPLE_CHARACTERS)]
    if model_file:
        description, model, data = _from_sentencepiece(model_file, probe)
        write_bytes(folder / "tokenizer.model", data)
        processor = None
    else:
        raw = read_foreign_json(source, SIZES["tokenizer.json"])
        description, model, processor = checked_description(raw, source), None, raw.get("post_processor")
    special = {token["id"]: token["content"] for token in description["added_tokens"] if token.get("special")}
    # what lies beside a lone file belongs to anything
    configs = [read_foreign_config(path, name) if path.is_dir() else {} for name in CONFIGS]
    named = named_tokens(configs[:2], configs[2], processor, special)
    if model:
        _name_pieces(model, named)
    templates = read_chat_templates(path) if path.is_dir() else {}
    extra = list(settings.special_tokens)
    if not templates and settings.chat_template == "chatml":
        templates, extra = {"default": CHATML}, [*CHATML_TOKENS, *extra]
    _add_tokens(description, extra)
    _mark_special(description, named, path)
    if "bos" in named and adds_bos(configs[0], processor, sentencepiece=model is not None):
        description["post_processor"] = bos_processor(named["bos"], _ids(description)[named["bos"]])
    _try(description, probe, source)
    write_json(folder / "tokenizer.json", description)
    write_templates(folder, templates)
    pad = named.get("pad") or _other(named.get("unk"), named["eos"]) or named["eos"]
    if "pad" not in named:
        log.info("tokenizer: %s names no pad token; %s fills rows, which no loss sees", path, pad)
    write_config(folder, end=named["eos"], pad=pad, bos=named.get("bos"), unk=named.get("unk"), extra={})


def _other(token: str | None, than: str) -> str | None:
    return token if token != than else None


def _ids(description: dict[str, Any]) -> dict[str, int]:
    vocabulary = vocabulary_of(description["model"], Path("tokenizer.json"))
    return {**vocabulary, **{token["content"]: token["id"] for token in description["added_tokens"]}}


def _added(content: str, number: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **flags, "special": True}


def _add_tokens(description: dict[str, Any], contents: Iterable[str]) -> None:
    """Make these texts special tokens: one that is there keeps its id, the others get those after the largest."""
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
    """The tokens with a role are special ones, so that no text becomes them.

    Raises:
        UserError: without an end token, or with one that is not in the vocabulary.
    """
    if "eos" not in named:
        raise UserError(
            f"{path} names no eos_token, which has to end every document; in a folder, let tokenizer_config.json hold "
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


def _from_sentencepiece(file: Path, probe: list[str]) -> tuple[dict[str, Any], SentencePieceModel, bytes]:
    data = read_bytes(file, SIZES["model"])
    model = read_model(data, file)
    with (
        tempfile.TemporaryDirectory() as scratch,
        LimitedChild(sentencepiece_trial, seconds=30, once=True, folder=Path(scratch)) as child,
    ):
        made = Path(scratch) / "tokenizer.json"
        try:
            child.ask({"file": str(file.resolve()), "name": str(file), "texts": probe, "to": str(made)})
        except UserError as error:
            raise UserError(f"{file} cannot be used: {error}") from None
        description = checked_description(read_foreign_json(made, SIZES["tokenizer.json"]), file)
    return description, model, data


def _name_pieces(model: SentencePieceModel, named: dict[str, str]) -> None:
    """Roles by the usual names of control pieces, where no configuration names them."""
    control = {text for text, _, kind in model.pieces if kind == CONTROL}
    usual = {"eos": ("</s>", "<eos>", "<|endoftext|>"), "bos": ("<s>", "<bos>"), "pad": ("<pad>", PAD)}
    for role, names in usual.items():
        found = next((name for name in names if name in control), None)
        if found:
            named.setdefault(role, found)
    named.setdefault("unk", next(text for text, _, kind in model.pieces if kind == UNKNOWN))


def _try(description: dict[str, Any], probe: Iterable[str], file: Path) -> None:
    """Load and use it where it can do no harm, before this process does.

    Raises:
        UserError: what the child said; or a special token that text is cut into.
    """
    special = {token["content"]: token["id"] for token in description["added_tokens"] if token["special"]}
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
                f"{file}: the special token {text!r} is ordinary text for its vocabulary, so a document could forge it"
            )


def _is_unknown(description: dict[str, Any], text: str) -> bool:
    """Whether this is the token for what is not in the vocabulary: unknown text does become it."""
    model = description["model"]
    return bool(
        text == model.get("unk_token") or (model["type"] == "Unigram" and _ids(description)[text] == model["unk_id"])
    )
