"""What a shell completes: stages, metrics, presets, keys of params.yaml, results, runs, and names that we define.

A shell waits for the answer. So these functions read a few small files and import nothing heavy: no pydantic, no torch.
A file that cannot be read gives no names, because here no message can be shown; the command itself says what is wrong.

Used by: the options and arguments of the commands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from codex_ml.core.repository_root import find_top

DEFAULT_METRIC = "train.best_val_loss"
RUNS = 20  # newest run ids that are offered
Names = Callable[[Path], Iterable[str]]


def commands_with_json(incomplete: str) -> list[str]:
    """The commands that print JSON."""
    from codex_ml.cli.json_outputs import OUTPUTS

    return [name for name in OUTPUTS if name.startswith(incomplete)]


def stage_names(incomplete: str) -> list[str]:
    """The stages of dvc.yaml."""
    return _matching(incomplete, _stages)


def result_paths(incomplete: str) -> list[str]:
    """The outputs of the stages, as they are written from the top folder."""
    from codex_ml.core.pipeline import load_pipeline

    return _matching(
        incomplete, lambda top: (out for spec in load_pipeline(top / "dvc.yaml").values() for out in spec.outs)
    )


def metrics_to_rank(incomplete: str) -> list[str]:
    """STAGE.NAME:min and STAGE.NAME:max of every number that a stage has written."""
    return _matching(incomplete, lambda top: (f"{name}:{way}" for name in _metrics(top) for way in ("min", "max")))


def run_ids(incomplete: str) -> list[str]:
    """`last`, and the ids of the newest runs in the logs of this checkout."""
    return _matching(incomplete, _runs)


def param_settings(incomplete: str) -> list[str]:
    """KEY= of params.yaml; KEY=VALUE where the key is typed and its values are known."""
    return _matching(incomplete, lambda top: _settings(top, incomplete, ""))


def evaluate_keys(incomplete: str) -> list[str]:
    """The same for the keys of `evaluate`, without that word."""
    return _matching(incomplete, lambda top: _settings(top, incomplete, "evaluate."))


def audit_keys(incomplete: str) -> list[str]:
    """The same for the keys of `safety_audit`, without that word."""
    return _matching(incomplete, lambda top: _settings(top, incomplete, "safety_audit."))


def one_of(*names: str) -> Callable[[str], list[str]]:
    """A completion that offers these names."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def plugin_kinds(incomplete: str) -> list[str]:
    """The kinds of plug-ins that packages here offer, and those that we define."""
    return one_of(*KINDS)(incomplete)


KINDS = (  # the keys of core.plugins.KINDS: that module imports pydantic
    "architectures", "augmenters", "detectors", "hooks", "metrics", "presets", "readers", "templates", "tokenizers",
    "trackers",
)  # fmt: skip


def _matching(incomplete: str, names: Names) -> list[str]:
    """The names that begin so, each once; none outside of a repository, and none of a file that cannot be read.

    A name with a line break or another control character is left out: the shell would show it as it is.
    """
    with suppress(Exception):
        if top := find_top(Path.cwd()):
            return [name for name in dict.fromkeys(names(top)) if name.startswith(incomplete) and name.isprintable()]
    return []


def _stages(top: Path) -> Iterator[str]:
    from codex_ml.core.pipeline import load_pipeline

    yield from load_pipeline(top / "dvc.yaml")


def _metrics(top: Path) -> Iterator[str]:
    yield DEFAULT_METRIC
    for stage in _stages(top):
        with suppress(OSError, ValueError):
            yield from _numbers(_read(top / f"reports/{stage}/metrics.json"), stage)


def _read(file: Path) -> Any:
    """A JSON file; {} where there is none, or a pipe, which would not end."""
    return json.loads(file.read_bytes()) if file.is_file() else {}


def _numbers(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name


def _runs(top: Path) -> Iterator[str]:
    """From the last lines of each log: a log can be large."""
    found = set()
    for file in filter(Path.is_file, (top / "logs").glob("*.ndjson")):
        with file.open("rb") as handle:
            handle.seek(max(file.stat().st_size - (1 << 16), 0))
            for line in handle.read().splitlines():
                with suppress(ValueError, KeyError, TypeError):
                    found.add(str(json.loads(line)["run"]))
    yield "last"
    yield from sorted(found, reverse=True)[:RUNS]


def _settings(top: Path, incomplete: str, section: str) -> Iterator[str]:
    schema = _read(top / "params.schema.json")
    for key, part in _leaves(schema, schema, ""):
        if key.startswith(section):
            key = key.removeprefix(section)
            values = list(_values(top, section + key, part)) if incomplete.startswith(key) else []
            yield from (f"{key}={value}" for value in values or [""])


def _leaves(part: dict[str, Any], schema: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(dotted key, its schema) of every key that holds a value."""
    part = _resolved(part, schema)
    if name and "properties" not in part:
        yield name, part
    for key, inner in part.get("properties", {}).items():
        yield from _leaves(inner, schema, f"{name}.{key}" if name else key)


def _resolved(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in part:
        return dict(schema["$defs"][part["$ref"].rpartition("/")[2]])
    return part


def _values(top: Path, key: str, part: dict[str, Any]) -> Iterator[str]:
    """The values of a key that are known: names of presets, enumerated texts, true and false."""
    if key == "model.preset":
        from codex_ml.core.yaml import read_yaml

        yield from map(str, read_yaml(top / "models/presets.yaml"))
        return
    for each in [part, *part.get("anyOf", [])]:
        yield from (str(value) for value in each.get("enum", []))
        if each.get("type") == "boolean":
            yield from ("true", "false")
