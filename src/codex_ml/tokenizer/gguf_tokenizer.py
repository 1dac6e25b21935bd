"""Convert the tokenizer of a GGUF file to a Hugging Face folder, which is then imported like any foreign folder.

Used by: tokenizer.local_tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from codex_ml.core.gguf_file import load_reader, unpack

KEPT = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "additional_chat_templates")


def unpack_tokenizer(path: Path, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and the chat templates of a GGUF file; see `gguf_file.unpack`."""
    unpack(path, folder, tokenizer_writer)


def tokenizer_writer() -> Callable[[dict[str, Any]], None]:
    """Import what `write_tokenizer` needs, in the child process, and return `write_tokenizer`."""
    from transformers import AutoTokenizer  # noqa: F401

    load_reader()
    return write_tokenizer


def write_tokenizer(request: dict[str, Any]) -> None:
    """Write the tokenizer of `file` to the folder `to`."""
    from transformers import AutoTokenizer

    source, target = Path(request["file"]), Path(request["to"])
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
    tokenizer.save_pretrained(target)
    for file in target.iterdir():
        if file.name not in KEPT:
            file.unlink()
