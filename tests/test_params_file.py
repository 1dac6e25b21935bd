"""`dvc exp run -S` changes the line of the key that it sets, and leaves the rest of params.yaml as people wrote it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codex_ml.cli.param_rules import validate_params
from codex_ml.core.yaml import read_yaml
from codex_ml.train.config import Model, Train
from codex_ml.train.recipe import optimizer_plan

ROOT = Path(__file__).parents[1]
FILES = [
    pytest.param(ROOT / "tests/project/params.yaml", id="of an invented user"),
    pytest.param(ROOT / "params.yaml", id="as shipped", marks=pytest.mark.shipped),
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC project in a Git repository, with one stage that reads params.yaml."""
    for name in [name for name in os.environ if name.startswith(("GIT_", "DVC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    folder = tmp_path / "project"
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (folder / ".gitignore").write_text("/.dvc/tmp\n/.dvc/cache\n/out\n")
    (folder / "dvc.yaml").write_text("stages: {a: {cmd: echo > out, outs: [out], params: [train]}}\n")
    return folder


@pytest.mark.parametrize("file", FILES)
def test_an_experiment_leaves_every_other_line_as_it_was(project: Path, file: Path) -> None:
    def run(*command: str) -> None:
        subprocess.run(command, cwd=project, check=True, capture_output=True)

    def changed(*settings: str) -> dict[str, str]:
        """Line before -> line after an experiment with these settings."""
        run("git", "checkout", "--quiet", "params.yaml")
        run(sys.executable, "-m", "dvc", "exp", "run", *(word for key in settings for word in ("-S", key)))
        after = (project / "params.yaml").read_text(encoding="utf-8").split("\n")
        return {old: new for old, new in zip(before, after, strict=True) if old != new}

    text = file.read_text(encoding="utf-8")
    (project / "params.yaml").write_text(text, encoding="utf-8")
    before = text.split("\n")
    run("git", "init", "--quiet")
    run("git", "config", "user.name", "Test")
    run("git", "config", "user.email", "test@example.org")
    run("git", "add", ".")
    run("git", "commit", "--quiet", "-m", "all")
    (lr,) = (line for line in before if line.startswith("  lr: "))
    comment = lr.index("#")
    assert changed("train.lr=123e-4") == {lr: "  lr: 0.0123".ljust(comment) + lr[comment:]}
    several = changed("model.layers=2", "split.salt=other", "train.embedding_lr=2e-2")  # the first and last are empty
    assert {old.split()[0]: new.split()[1] for old, new in several.items()} == {
        "layers:": "2",
        "salt:": "other",
        "embedding_lr:": "0.02",
    }


@pytest.mark.parametrize("file", FILES)
def test_the_stated_multiple_of_lr_is_the_one_that_is_used(file: Path) -> None:
    plan = optimizer_plan(Model(), Train(lr=1.0))
    assert plan.embedding_lr is not None
    multiple = f"{plan.embedding_lr / plan.lr:g} x lr"
    (line,) = (line for line in file.read_text(encoding="utf-8").split("\n") if line.startswith("  embedding_lr:"))
    assert line.endswith(f"empty: {multiple}")
    assert str(Train.model_fields["embedding_lr"].description).endswith(f"null: {multiple}")


@pytest.mark.parametrize("file", FILES)
def test_a_model_on_disk_asks_for_no_other_value_of_train(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    params = read_yaml(file)
    validate_params({**params, "model": {**params["model"], "path": "models/base/theirs"}})


LISTS = ("split.licences", "split.benchmarks", "tokenizer.special_tokens", "pack.canaries.repetitions", "pack.canaries.each",
         "model.lora.targets", "runtime.trackers")  # fmt: skip


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("key", LISTS)
def test_a_list_that_is_set_and_emptied_again_leaves_a_file_that_dvc_reads(
    tmp_path: Path, file: Path, key: str
) -> None:
    """A comment on the line of a list key would break the file: DVC moves it when it writes the list."""
    from dvc.utils.serialize import load_yaml, modify_yaml

    *sections, leaf = key.split(".")
    copy = tmp_path / "params.yaml"
    copy.write_bytes(file.read_bytes())
    before = load_yaml(str(copy))
    for items in (["a", "b"], []):
        with modify_yaml(str(copy)) as document:
            inner = document
            for section in sections:
                inner = inner[section]
            inner[leaf] = items
        after = load_yaml(str(copy))
        parent = after
        for section in sections:
            parent = parent[section]
        assert parent[leaf] == items
    expected = before
    for section in sections:
        expected = expected[section]
    expected[leaf] = []
    assert after == before
