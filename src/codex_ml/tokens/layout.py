"""The tokenizer folder on disk: a Hugging Face tokenizer without any key that can name code.

    tokenizer.json          model, vocabulary, special tokens; the only file that encodes text at run time
    tokenizer_config.json   the end, begin and pad tokens; written by this project, also for a local tokenizer
    chat_template.jinja     how messages become text; only if there is a chat template
    additional_chat_templates/NAME.jinja   more chat templates by name, such as tool_use for records with tools
    tokenizer.model         the SentencePiece kinds only, for tools that read that format
    kind.json               tokenizer.kind; no other file of the folder holds it
    added_pieces.json       only with tokenizer.add_pieces: of which old tokens each new one consists

Special tokens get ids after the model's own vocabulary: if the vocabulary held them, the model could produce them from
text that spells them (Unigram and word-level models do).

Used by: tokenizer, which writes the folder, and all who load it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.core.contract import Contract
from codex_ml.core.errors import UserError
from codex_ml.core.io import write_json, write_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END, PAD, UNK = "<|endoftext|>", "<|pad|>", "[UNK]"
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
KIND, ADDED = "kind.json", "added_pieces.json"
FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")  # without the templates
TEMPLATE, TEMPLATES = "chat_template.jinja", "additional_chat_templates"  # as transformers names them
# Messages as in OpenAI's ChatML; tools and calls as in Hermes and Qwen 2.5. Without `{% generation %}`, which other
# Jinja readers do not support.
CHATML = """\
{%- macro text_of(content) -%}
    {%- if content is string -%}{{- content -}}
    {%- else -%}
        {%- for part in content -%}
            {%- if part.type != 'text' -%}{{- raise_exception('chatml writes parts of type text only') -}}{%- endif -%}
            {{- part.text -}}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- if tools -%}
    {{- '<|im_start|>system\\nYou may call these functions:\\n<tools>\\n' -}}
    {%- for tool in tools -%}{{- tool | tojson + '\\n' -}}{%- endfor -%}
    {{- '</tools>\\nWrite each call as <tool_call>{"name": ..., "arguments": {...}}</tool_call>.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' -}}
    {%- if message.content -%}{{- text_of(message.content) -}}{%- endif -%}
    {%- for call in message.tool_calls or [] -%}
        {%- set call = call.function or call -%}
        {{- '\\n' if not loop.first or message.content -}}
        {{- '<tool_call>\\n{"name": ' + call.name | tojson + ', "arguments": ' -}}
        {{- call.arguments if call.arguments is string else call.arguments | tojson -}}
        {{- '}\\n</tool_call>' -}}
    {%- endfor -%}
    {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def special_tokens_of(own: Sequence[str], chat_template: str) -> list[str]:
    """END, PAD, the tokens of the chat template, the user's own tokens: each once, in this order.

    Args:
        own: tokenizer.special_tokens.
        chat_template: tokenizer.chat_template, "none" or "chatml".
    """
    return list(dict.fromkeys([END, PAD, *(CHATML_TOKENS if chat_template == "chatml" else ()), *own]))


def add_special_tokens(tokenizer: Tokenizer, tokens: Sequence[str], *, unk: str | None) -> None:
    """Give each token a new id after the vocabulary. The unknown token `unk` keeps its id inside the vocabulary.

    Raises:
        UserError: when a token is already in the vocabulary, so that ordinary text could become it.
    """
    from tokenizers import AddedToken

    taken = [token for token in tokens if token != unk and tokenizer.token_to_id(token) is not None]
    if taken:
        raise UserError(
            f"tokenizer.special_tokens: {taken[0]!r} is already an ordinary token of this vocabulary; choose a name "
            "that is not in any text, such as <|name|>"
        )
    names = dict.fromkeys([*([unk] if unk else []), *tokens])
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])


def write_config(folder: Path, *, end: str, pad: str, bos: str | None, unk: str | None, extra: dict[str, Any]) -> None:
    """Write tokenizer_config.json, which `AutoTokenizer` reads.

    It does not set `split_special_tokens`: transformers would then split the control tokens of the chat template too.
    In this project `TextTokenizer` encodes special tokens in text as data, whatever this file says.
    """
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end,
        "pad_token": pad,
        "clean_up_tokenization_spaces": False,  # it removes spaces before punctuation, so decode would lose text
        **({"bos_token": bos} if bos else {}),
        **({"unk_token": unk} if unk else {}),
        **extra,
    }
    write_json(folder / "tokenizer_config.json", config)


class TokenizerKind(Contract):
    """kind.json of a tokenizer folder.

    Attributes:
        kind: what tokenizer.kind was when the folder was made: "local", or how the tokenizer was trained.
    """

    written_by = "tokenizer"

    kind: str


def write_kind(folder: Path, kind: str) -> None:
    """Write kind.json."""
    TokenizerKind(kind=kind).write(folder / KIND)


def read_kind(folder: Path) -> str:
    """What kind.json says.

    Raises:
        UserError: when it is missing or damaged.
    """
    return TokenizerKind.read(folder / KIND).kind


class AddedPieces(Contract):
    """added_pieces.json of a tokenizer folder: what tokenizer.add_pieces added.

    Attributes:
        first: id of the first new piece. The pieces have the last ids of the vocabulary.
        old_ids: per new piece, the ids of the old tokens whose texts are its text.
    """

    written_by = "tokenizer"

    first: int
    old_ids: list[list[int]]


def read_added_pieces(folder: Path) -> list[list[int]]:
    """The old ids of each new piece, which have the last ids of the vocabulary; [] without new pieces.

    Raises:
        UserError: when the file is damaged.
    """
    return AddedPieces.read(folder / ADDED).old_ids if (folder / ADDED).is_file() else []


def save_trained_tokenizer(
    tokenizer: Tokenizer, folder: Path, *, special_tokens: Sequence[str], unk: str | None, chat_template: str
) -> None:
    """Write the folder of a tokenizer trained by this project. END is also its BOS, as in GPT-2.

    Raises:
        UserError: see `add_special_tokens`.
    """
    add_special_tokens(tokenizer, special_tokens, unk=unk)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(folder / "tokenizer.json"))
    write_config(folder, end=END, pad=PAD, bos=END, unk=unk, extra={})
    if chat_template == "chatml":
        write_templates(folder, {"default": CHATML})


def write_templates(folder: Path, templates: Mapping[str, str]) -> None:
    """Write each chat template, byte for byte, to the path where transformers looks for its name."""
    for name, source in templates.items():
        file = folder / TEMPLATE if name == "default" else folder / TEMPLATES / f"{name}.jinja"
        file.parent.mkdir(exist_ok=True)
        write_text(file, source)


def read_templates(folder: Path) -> dict[str, str]:
    """Name -> source of the chat templates that `write_templates` wrote."""
    files = {"default": folder / TEMPLATE} if (folder / TEMPLATE).is_file() else {}
    files |= {file.stem: file for file in sorted((folder / TEMPLATES).glob("*.jinja"))}
    return {name: file.read_bytes().decode("utf-8") for name, file in files.items()}
