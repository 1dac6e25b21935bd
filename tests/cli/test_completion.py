"""A shell completes options and names, through the protocol that the scripts of `--install-completion` speak."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from codex_ml.cli import completion
from codex_ml.cli import main as cli
from codex_ml.cli.init import RECIPES
from codex_ml.cli.json_outputs import OUTPUTS
from codex_ml.cli.param_rules import json_schema
from codex_ml.cli.sweeping.trial_proposals import METHODS
from codex_ml.core.events import LEVELS
from codex_ml.core.plugins import KINDS
from codex_ml.safety_audit.config import SIZES

STAGES = ["fetch", "ingest", "split", "tokenizer", "pack", "train", "evaluate", "safety_audit", "report"]
RUN = "20260131-110000-00000a"


@pytest.fixture
def here(workspace: Path) -> Path:
    """The current folder is a copy of the repository with a schema, metrics and a log."""
    Path("params.schema.json").write_text(json.dumps(json_schema()), encoding="utf-8")
    for stage, numbers in {"train": {"val": {"loss": 1.5}, "step": 3, "note": "x"}, "evaluate": {"a\nb": 1}}.items():
        Path(f"reports/{stage}").mkdir(parents=True, exist_ok=True)
        Path(f"reports/{stage}/metrics.json").write_text(json.dumps(numbers), encoding="utf-8")
    Path("reports/split").mkdir(exist_ok=True)
    Path("reports/split/metrics.json").write_text("{ damaged", encoding="utf-8")
    Path("logs").mkdir(exist_ok=True)
    Path("logs/train.ndjson").write_text(json.dumps({"run": RUN}) + "\n{half a", encoding="utf-8")
    return workspace


@pytest.fixture
def complete(monkeypatch, capsys):
    """What bash gets for the words that were typed; the last one is completed."""

    def complete(line: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["codex-ml"])
        monkeypatch.setattr(sys.modules["__main__"], "__package__", None, raising=False)  # not `python -m pytest`
        monkeypatch.setenv("_CODEX_ML_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        assert (exit_.value.code, captured.err) == (0, "")
        return list(filter(None, captured.out.splitlines()))

    return complete


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("codex-ml plan ", STAGES),
        ("codex-ml plan --json t", ["tokenizer", "train"]),
        ("codex-ml runs --stage p", ["pack"]),
        ("codex-ml logs --stage sa", ["safety_audit"]),
        ("codex-ml logs --run ", ["last", RUN]),
        ("codex-ml logs --level ", list(LEVELS)),
        ("codex-ml sweep --method ", list(METHODS)),
        ("codex-ml audit --size ", list(SIZES)),
        ("codex-ml plugins list --kind ", list(KINDS)),
        ("codex-ml init ", list(RECIPES)),
        ("codex-ml schema --of ledger", [name for name in OUTPUTS if name.startswith("ledger")]),
        ("codex-ml sweep --metric train.v", ["train.val.loss:min", "train.val.loss:max"]),
        ("codex-ml sweep --metric evaluate", []),  # its only name has a line break
        ("codex-ml sweep --metric split", []),  # the file is damaged
        ("codex-ml sweep --metric train.best", ["train.best_val_loss:min", "train.best_val_loss:max"]),
        ("codex-ml sweep --set train.warmup", ["train.warmup_steps="]),
        ("codex-ml folds -S runtime.log_l", ["runtime.log_level="]),
        ("codex-ml folds -S runtime.log_level", [f"runtime.log_level={level}" for level in LEVELS]),
        ("codex-ml evaluate -S str", ["stride="]),
        ("codex-ml audit -S wind", ["windows="]),
        ("codex-ml verify models/m", ["models/model"]),
        ("codex-ml lineage models/t", ["models/tokenizer"]),
        ("codex-ml generate --max", ["--max-tokens"]),
        ("codex-ml tokenizer v", ["validate"]),
    ],
)
def test_bash_completes(here, complete, line, expected):
    assert complete(line) == expected


def test_names_of_presets_follow_their_key(here, complete):
    presets = complete("codex-ml sweep --set model.preset")
    assert "model.preset=tiny" in presets
    assert all(preset.startswith("model.preset=") for preset in presets)


def test_names_are_found_from_a_subfolder_and_none_outside(here, complete, monkeypatch, tmp_path):
    monkeypatch.chdir(here / "data")
    assert complete("codex-ml plan t") == ["tokenizer", "train"]
    monkeypatch.chdir(tmp_path)
    for line in ("codex-ml plan ", "codex-ml sweep --metric ", "codex-ml folds -S ", "codex-ml verify "):
        assert complete(line) == []


def test_a_file_that_cannot_be_read_gives_no_names_and_no_message(here, complete):
    Path("dvc.yaml").write_bytes(b"\xff: [")
    Path("params.schema.json").unlink()
    os.mkfifo("params.schema.json")
    os.mkfifo("logs/pack.ndjson")
    for line in ("codex-ml plan ", "codex-ml verify ", "codex-ml sweep --set "):
        assert complete(line) == []
    assert complete("codex-ml logs --run ") == ["last", RUN]


HEAVY = ("torch", "transformers", "pandas", "numpy", "scipy", "dvc", "tokenizers", "pyarrow", "codex_ml.core.contract")
ASK = f"""
import sys
from codex_ml.cli.main import main
sys.argv = ["codex-ml"]
try:
    main()
finally:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (
            {"_CODEX_ML_COMPLETE": "complete_bash", "COMP_WORDS": "codex-ml plan t", "COMP_CWORD": "2"},
            "tokenizer\ntrain",
        ),
        ({"_CODEX_ML_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "codex-ml plan t"}, '"tokenizer"\n"train"'),
        (
            {"_CODEX_ML_COMPLETE": "complete_fish", "_TYPER_COMPLETE_ARGS": "codex-ml plan t"}
            | {"_TYPER_COMPLETE_FISH_ACTION": "get-args"},
            "tokenizer\ntrain",
        ),
    ],
    ids=["bash", "zsh", "fish"],
)
def test_each_shell_gets_the_names_without_heavy_imports(here, run_python, environment, expected):
    done = run_python("-c", ASK, env=environment)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert expected in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_asks_for_our_command(run_python, shell):
    done = run_python("-c", ASK, env={"_CODEX_ML_COMPLETE": f"source_{shell}"})
    assert done.returncode == 0
    assert f"_CODEX_ML_COMPLETE=complete_{shell}" in done.stdout


def test_the_kinds_of_plugins_are_those_of_the_registry():
    assert list(completion.KINDS) == list(KINDS)
