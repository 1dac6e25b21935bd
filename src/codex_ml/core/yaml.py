"""Read YAML with the eyes of DVC: version 1.2, through the same library and loader that DVC uses.

PyYAML follows YAML 1.1, where `3e-4` is a text and `no` is false; a stage that read it so would train with another
recipe than the one in dvc.lock.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from codex_ml.core.conflicts import refuse_conflict
from codex_ml.core.errors import UserError

MAX_BYTES = 256 * 1024


def parse_yaml(text: str, name: str) -> Any:
    """Parse one YAML 1.2 document; an empty one is an empty mapping.

    Raises:
        UserError: for a syntax error, a tab, a key given twice, or conflict markers of a merge; the message starts with
            `name:line`.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise UserError(f"{name} is larger than {MAX_BYTES // 1024} KiB; parameters are not the place for data")
    refuse_conflict(text, name)  # first: between braces, markers are values to YAML
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = " ".join((error.problem or "not YAML").split())
        if "\\t" in problem:
            problem = "a tab cannot indent YAML; use spaces"
        raise UserError(f"{name}:{line}: {problem}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{name}: not YAML: {' '.join(str(error).split())[:200]}") from None
    return {} if value is None else value


def read_yaml(path: Path) -> Any:
    """Read a YAML 1.2 file.

    Raises:
        UserError: when the file is missing, is no regular file, is not UTF-8, or is not YAML.
    """
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Read a UTF-8 file that a person edits.

    Raises:
        UserError: when it is missing, is no regular file (reading a pipe would wait for ever), or is not UTF-8.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a regular file; put the file of that name there")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `git checkout {path}` brings back the committed one") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start})") from None


def line_of(text: str, keys: tuple[str | int, ...]) -> int | None:
    """Line (from 1) at which the node under `keys` is written, or of the nearest parent that is."""
    node = YAML(typ="rt", pure=True).load(text)
    line = None
    for key in keys:
        try:
            line = (node.lc.key(key) if hasattr(node, "keys") else node.lc.item(key))[0] + 1
            node = node[key]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line
