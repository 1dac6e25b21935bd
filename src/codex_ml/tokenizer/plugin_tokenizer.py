"""Train a tokenizer with another package (entry point `codex_ml.tokenizers`): texts, size -> `tokenizers.Tokenizer`.

The result is data: models/tokenizer holds its tokenizer.json, and no later stage imports the package.
Used by: stages/tokenizer.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from codex_ml.core.errors import UserError
from codex_ml.core.plugin_lock import load_locked
from codex_ml.core.plugins import UnusablePlugin
from codex_ml.tokenizer.sample import Texts

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def train_plugin(name: str, texts: Texts, size: int) -> Tokenizer:
    """Call the plug-in with `texts` and `size`, and check what it returns.

    Args:
        texts: each call starts a new pass over the documents of train.
        size: largest number of tokens, without special tokens.

    Raises:
        UserError: when it cannot be imported, raises, or returns something else or more tokens. The message leaves out
            its own error text, because that may quote a document.
    """
    from tokenizers import Tokenizer

    train = load_locked("tokenizers", name)
    try:
        made = train(texts, size)
        tokenizer = Tokenizer.from_str(made) if isinstance(made, str) else made
    except (OSError, UserError):
        raise
    except Exception as error:
        raise UnusablePlugin("tokenizers", name, f"failed: {type(error).__name__}") from None
    if not isinstance(tokenizer, Tokenizer):
        found = type(tokenizer).__name__
        raise UnusablePlugin("tokenizers", name, f"must return a tokenizers.Tokenizer or its JSON; it returned {found}")
    if (count := tokenizer.get_vocab_size()) > size:
        raise UnusablePlugin("tokenizers", name, f"returned {count} tokens for a vocabulary of {size}")
    if not count:
        raise UnusablePlugin("tokenizers", name, "returned an empty vocabulary")
    return tokenizer
