"""A tokenizer folder for other tools: the Hugging Face layout, and the older files that some still read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from codex_ml.cli.model_export import refuse_export_target
from codex_ml.core.io import atomic_folder, write_json, write_text
from codex_ml.tokens.layout import FILES, read_templates, write_templates
from codex_ml.tokens.text_tokenizer import load_tokenizer


def export_tokenizer(folder: Path, to: Path) -> list[str]:
    """Copy the tokenizer's files byte for byte; BPE kinds get vocab.json and merges.txt beside them.

    Args:
        folder: as the tokenizer stage writes it, or a model's.
        to: a folder that does not exist yet.

    Returns:
        the names of the files written, sorted.

    Raises:
        UserError: when `to` exists or `folder` has no tokenizer.
    """
    refuse_export_target(to, folder)
    description = json.loads(load_tokenizer(folder).backend.to_str())
    with atomic_folder(to) as new:
        for name in FILES:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, new / name)
        write_templates(new, read_templates(folder))
        model = description["model"]
        if model["type"] == "BPE":
            write_json(new / "vocab.json", model["vocab"])
            # a piece holds no space: byte-level BPE and SentencePiece both write another character for it
            lines = (" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"])
            write_text(new / "merges.txt", "#version: 0.2\n" + "".join(f"{line}\n" for line in lines))
        return sorted(str(file.relative_to(new)) for file in new.rglob("*") if file.is_file())
