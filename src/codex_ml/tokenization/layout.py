"""The tokenizer folder on disk: what every other tool calls a Hugging Face tokenizer, and nothing that can name code.

    tokenizer.json          model, vocabulary, special tokens; the one thing that cuts text at run time
    tokenizer_config.json   which tokens end, begin and pad; ours, also for a tokenizer that somebody else made
    chat_template.jinja     how messages become text; only where there is one
    tokenizer.model         beside it for the SentencePiece kinds, for tools that read that format

Special tokens stand behind the model's own vocabulary: a model whose vocabulary holds them could produce them from
text that spells them (Unigram and word-level models do).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.errors import UserError
from codex_ml.io import write_json, write_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END, PAD, UNK = "<|endoftext|>", "<|pad|>", "[UNK]"
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def special_tokens_of(wanted: Sequence[str], chat_template: str) -> list[str]:
    """END, PAD, those of the chat template, the user's own: each once, in this order.

    Args:
        wanted: tokenizer.special_tokens.
        chat_template: tokenizer.chat_template, "none" or "chatml".
    """
    return list(dict.fromkeys([END, PAD, *(CHATML_TOKENS if chat_template == "chatml" else ()), *wanted]))


def add_special_tokens(tokenizer: Tokenizer, tokens: Sequence[str], *, unk: str | None) -> None:
    """Give each token an id of its own behind the vocabulary; the unknown one, `unk`, keeps the one it has inside.

    Raises:
        UserError: when a token is ordinary text of this vocabulary, so that text would be cut into it.
    """
    from tokenizers import AddedToken

    taken = [token for token in tokens if token != unk and tokenizer.token_to_id(token) is not None]
    if taken:
        raise UserError(
            f"tokenizer.special_tokens: {taken[0]!r} is a piece of ordinary text for this vocabulary; choose a name "
            "that no text holds, such as <|name|>"
        )
    names = dict.fromkeys([*([unk] if unk else []), *tokens])
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])


def write_config(folder: Path, *, end: str, pad: str, bos: str | None, unk: str | None, extra: dict[str, Any]) -> None:
    """Write tokenizer_config.json, which `AutoTokenizer` reads."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end,
        "pad_token": pad,
        "clean_up_tokenization_spaces": False,  # it would eat blanks before punctuation: decode would not be lossless
        "split_special_tokens": True,  # a document that spells <|endoftext|> is data, never control
        **({"bos_token": bos} if bos else {}),
        **({"unk_token": unk} if unk else {}),
        **extra,
    }
    write_json(folder / "tokenizer_config.json", config)


def save_trained(
    tokenizer: Tokenizer, folder: Path, *, special_tokens: Sequence[str], unk: str | None, chat_template: str
) -> None:
    """Write the folder of a tokenizer trained here; its END is the BOS too, as GPT-2's is.

    Raises:
        UserError: see `add_special_tokens`.
    """
    add_special_tokens(tokenizer, special_tokens, unk=unk)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(folder / "tokenizer.json"))
    write_config(folder, end=END, pad=PAD, bos=END, unk=unk, extra={})
    if chat_template == "chatml":
        write_text(folder / "chat_template.jinja", CHATML)
