"""Find the files of a foreign tokenizer, limit their size, and read them. The files are treated as hostile.

Used by: `local_tokenizer`, and `codex-ml check`, which does not load the tokenizer.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from codex_ml.core.errors import UserError
from codex_ml.core.strict_json import parse_json_file
from codex_ml.core.tree import is_left_out
from codex_ml.tokens.layout import TEMPLATE, TEMPLATES

SIZES = {"tokenizer.json": 64 << 20, "model": 16 << 20, "config": 1 << 20, "template": 64 << 10}  # bytes, at most
TEMPLATE_NAME = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_.\-]{0,63}")  # the name becomes a file name
TEMPLATES_MOST = 32
READ = (".json", ".model", ".jinja")  # the suffixes of all files that are read


def check_source(path: Path) -> None:
    """Check without loading a foreign tokenizer that its files exist and that its chat templates can be read.

    Raises:
        UserError: names the file and what is wrong with it.
    """
    if path.suffix == ".gguf" and path.is_file():
        return
    find_files(path)
    refuse_left_out(path)
    if path.is_dir():
        read_chat_templates(path)


def refuse_left_out(path: Path) -> None:
    """Refuse the folder if DVC does not hash one of the files that are read from it.

    Raises:
        UserError: names the file.
    """
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.suffix in READ and is_left_out(file):
            raise UserError(f"{file} is in no hash: DVC leaves it out (.dvcignore); remove that pattern, or the file")


def find_files(path: Path) -> tuple[Path, Path | None]:
    """(the file to name in messages, the .model file or None for tokenizer.json).

    Raises:
        UserError: when there is neither a tokenizer.json nor exactly one .model file.
    """
    if path.is_dir():
        if (path / "tokenizer.json").is_file():
            return path / "tokenizer.json", None
        models = sorted(path.glob("*.model"))
        if len(models) == 1:
            return models[0], models[0]
        raise UserError(
            f"{path} holds neither a tokenizer.json nor one SentencePiece .model file (found {len(models)}); convert "
            "an older folder with transformers' save_pretrained first"
        )
    if path.suffix == ".model" and path.is_file():
        return path, path
    raise UserError(f"tokenizer.path {path}: no such folder, .model or .gguf file; put it below models/base")


def read_bytes(path: Path, most: int) -> bytes:
    """Contents of a regular file of at most `most` bytes.

    Raises:
        UserError: when it is not a regular file, or larger.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a regular file")
    if (size := path.stat().st_size) > most:
        raise UserError(f"{path} has {size} bytes; at most {most} are read")
    return path.read_bytes()


def read_foreign_json(path: Path, most: int) -> Any:
    """The JSON object in a file of at most `most` bytes.

    Raises:
        UserError: see `read_bytes`; when the file does not hold a JSON object.
    """
    value = parse_json_file(read_bytes(path, most), str(path))
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return value


def read_foreign_config(folder: Path, name: str) -> dict[str, Any]:
    """The configuration file `name`; {} if it does not exist."""
    value: dict[str, Any] = read_foreign_json(folder / name, SIZES["config"]) if (folder / name).is_file() else {}
    return value


def read_chat_templates(folder: Path) -> dict[str, str]:
    """Name -> chat template, found as transformers finds them: in files, else in tokenizer_config.json.

    Raises:
        UserError: for a template that is too large or not UTF-8, or a name that cannot be a file name.
    """
    files = {"default": folder / TEMPLATE} if (folder / TEMPLATE).is_file() else {}
    files |= {file.name.removesuffix(".jinja"): file for file in sorted((folder / TEMPLATES).glob("*.jinja"))}
    data = {name: (file, read_bytes(file, SIZES["template"])) for name, file in files.items()}
    if not data and (file := folder / "tokenizer_config.json").is_file():
        named = _named_templates(read_foreign_json(file, SIZES["config"]).get("chat_template"), file)
        data = {name: (file, source.encode("utf-8", "surrogatepass")) for name, source in named.items()}
    if len(data) > TEMPLATES_MOST:
        raise UserError(f"{folder} has {len(data)} chat templates; at most {TEMPLATES_MOST} are read")
    return {name: _source(name, *found) for name, found in data.items()}


def _named_templates(value: Any, file: Path) -> dict[str, str]:
    """The templates of tokenizer_config.json: one text, or a list of {"name": ..., "template": ...}."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    entries = [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
    texts = [isinstance(entry.get(key), str) for entry in entries for key in ("name", "template")]
    if not isinstance(value, list) or len(texts) != 2 * len(value) or not all(texts):
        raise UserError(f'{file}: chat_template must be a text or a list of {{"name": ..., "template": ...}}')
    return {entry["name"]: entry["template"] for entry in entries}


def _source(name: str, file: Path, data: bytes) -> str:
    if not TEMPLATE_NAME.fullmatch(name):
        raise UserError(
            f"{file}: a chat template has the name {name[:80]!r}; allowed: up to 64 letters, digits, dots, _ and -"
        )
    if len(data) > SIZES["template"]:
        raise UserError(f"{file}: the chat template has {len(data)} bytes; at most {SIZES['template']} are read")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: the chat template is not UTF-8 ({error})") from None
