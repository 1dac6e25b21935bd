"""What every command prints with --json after a real run is valid by the schema that `codex-ml schema --of` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from workspace import Finished, Workspace

from codex_ml.cli.json_outputs import OUTPUTS, output_schema

from ..json_schema_checker import problems

VAL, TEST = "data/splits/val.parquet", "data/splits/test.parquet"
SHORT = ("windows=4", "samples=2", "prefix_tokens=6", "suffix_tokens=6", "sample_tokens=8")
HEADER = b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + b"\0" * 4  # safetensors of one number
# Command -> (words after it, standard input, exit codes). "{out}" is a new path, "{adapter}" a model with an adapter.
WORDS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "audit": (
        f"--model models/model --train {VAL} --held-out {TEST} " + " ".join(f"-S {key}" for key in SHORT),
        "",
        (0, 1),
    ),
    "compare": ("HEAD workspace", "", (0,)),
    "doctor": ("", "", (0, 1)),
    "doctor --last-error": ("", "", (0,)),
    "evaluate": (f"--model models/model --data {TEST} -S completions.documents=2", "", (0,)),
    "export adapter": ("--model {adapter} --out {out}", "", (0,)),
    "export gguf": ("--out {out}", "", (0,)),
    "export merged": ("--out {out}", "", (0,)),
    "export tokenizer": ("--out {out}", "", (0,)),
    "generate": ("--n 2 --max-tokens 4", "def add(a, b):", (0,)),
    "ledger forget": ("--gone --reason asked --dry-run", "", (0,)),
    "ledger show": ("", "", (0,)),
    "lineage": ("models/model", "", (0,)),
    "logs": ("--stage train", "", (0,)),
    "merge": ("", "", (0,)),
    "pack show": ("--step 1", "", (0,)),
    "params upgrade": ("--check", "", (0,)),
    "plan": ("", "", (0, 3)),
    "plugins list": ("", "", (0,)),
    "policy try": ("", "write to jane.roe" + "@acme-lab.org", (0,)),
    "runs": ("", "", (0,)),
    "tokenizer compare": (f"models/tokenizer models/model {TEST}", "", (0,)),
    "tokenizer decode": ("5 6 7", "", (0,)),
    "tokenizer encode": ("--file - --pad-to 9", "a b", (0,)),
    "tokenizer special": ("", "", (0,)),
    "tokenizer stats": (TEST, "", (0,)),
    "tokenizer validate": (TEST, "", (0,)),
    "verify": ("models/model", "", (0,)),
}
SLOW = {  # experiments of DVC, one stage long
    "folds": ("2 -S train.max_steps=6", "", (0,)),
    "sweep": (
        "--set tokenizer.vocab_size=choice(390,400) --method grid --metric tokenizer.bytes_per_token:max",
        "",
        (0,),
    ),
}


def test_every_command_with_json_runs_here() -> None:
    """Except `track`, which needs a tracker: tests/cli/test_track.py."""
    assert (WORDS | SLOW).keys() | {"track"} == OUTPUTS.keys()


def printed(workspace: Workspace, name: str, tmp_path: Path) -> str:
    """The standard output of a command with --json."""
    (tmp_path / "lora/adapter").mkdir(parents=True)
    (tmp_path / "lora/adapter/adapter_config.json").write_bytes(b"{}")
    (tmp_path / "lora/adapter/adapter_model.safetensors").write_bytes(WEIGHTS)
    words, given, codes = (WORDS | SLOW)[name]
    words = words.format(out=tmp_path / "new", adapter=tmp_path / "lora")
    main = "import sys; sys.path.insert(0, 'src'); from codex_ml.cli.main import main; main()"
    done = workspace.run("python", "-c", main, *name.split(), *words.split(), "--json", check=False, input=given)
    assert done.returncode in codes, done.stderr
    assert done.stdout.isascii()
    return done.stdout


def values(text: str, form: str) -> list[Any]:
    """The JSON values of an output, each to be compared with the schema."""
    return [json.loads(line) for line in text.splitlines()] if form == "lines" else [json.loads(text)]


def _check(workspace: Workspace, name: str, tmp_path: Path) -> None:
    found = values(printed(workspace, name, tmp_path), OUTPUTS[name].form)
    assert found, "something is printed"
    assert [problem for value in found for problem in problems(value, output_schema(name))] == []


COSTLY = (
    "audit",
    "compare",
    "doctor",
    "evaluate",
    "export gguf",
    "generate",
    "plan",
)  # seconds; they import torch or DVC


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in COSTLY else name for name in WORDS]
)
def test_what_is_printed_fits_the_schema(finished: Finished, name: str, tmp_path: Path) -> None:
    _check(finished.workspace, name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_what_experiments_print_fits_the_schema(pipeline: Workspace, name: str, tmp_path: Path) -> None:
    for key, value in (("user.name", "Test"), ("user.email", "test@example.org")):
        pipeline.run("git", "config", key, value)
    _check(pipeline, name, tmp_path)
