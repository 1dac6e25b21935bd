"""A command names the model that it used, or fails: not the one that took its place meanwhile."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from codex_ml.cli import unchanged_files
from codex_ml.cli.unchanged_files import UnchangedFiles
from codex_ml.core.errors import UserError
from codex_ml.core.hashing import hash_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("config.json", "weights", "deep/part"):
        file = tmp_path / "model" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("one")
    return tmp_path / "model"


def replaced(folder: Path) -> None:
    (folder.parent / "new").write_text("two")
    (folder.parent / "new").replace(folder / "weights")


def other_folder(folder: Path) -> None:
    folder.rename(folder.with_name("old"))
    folder.mkdir()
    for name in ("config.json", "weights"):
        (folder / name).write_text("one")


def written(folder: Path) -> None:
    (folder / "deep/part").write_text("two")
    os.utime(folder / "deep/part", ns=(1, 1))


CHANGES = {
    "a file replaced": replaced,
    "a folder replaced": other_folder,
    "a file written in place": written,
    "a file more": lambda folder: (folder / "added").write_text(""),
    "a file less": lambda folder: (folder / "deep/part").unlink(),
    "no model left": lambda folder: (folder / "config.json").unlink(),
}


def test_the_digest_is_that_of_the_files(folder: Path) -> None:
    files = UnchangedFiles(folder)
    (folder / "weights").chmod(0o600)
    assert files.digest() == hash_path(folder).sha256
    assert UnchangedFiles(folder / "weights").digest() == hash_path(folder / "weights").sha256


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_refused(folder: Path, change: str) -> None:
    files = UnchangedFiles(folder)
    CHANGES[change](folder)
    with pytest.raises(UserError, match=f"^{folder} changed while it was in use; run the command again$"):
        files.digest()


def test_a_single_file_that_changed_is_refused(folder: Path) -> None:
    files = UnchangedFiles(folder / "weights")
    replaced(folder)
    with pytest.raises(UserError, match="weights changed while it was in use"):
        files.digest()


def test_a_folder_without_a_model_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unchanged_files, "walk", None)
    UnchangedFiles(tmp_path)
    UnchangedFiles(tmp_path / "none")


LOADED = SimpleNamespace(
    model=SimpleNamespace(config=SimpleNamespace(eos_token_id=0, is_encoder_decoder=False)),
    tokenizer=None,
    hardware=SimpleNamespace(precision="fp32", compile=False),
    training=None,
    length=8,
)


@pytest.mark.parametrize("command", ["serve", "evaluate"])
def test_a_model_that_is_replaced_after_it_was_loaded_is_not_named(
    folder: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    from codex_ml.cli import measure_model, model_and_data, serving
    from codex_ml.tokens import chat

    change = [False]

    def load(*_: object) -> SimpleNamespace:
        if change[0]:
            replaced(folder)
        return LOADED

    def digest() -> str:
        if command == "serve":
            return serving.load_served(folder, threads=0).digest
        choice = model_and_data.ModelChoice(folder, None, "fp32")
        return model_and_data.load_subject(choice, None, folder, folder).digest  # type: ignore[arg-type]

    monkeypatch.setattr(model_and_data, "load_any_model", load)
    monkeypatch.setattr(measure_model, "go_offline", lambda: None)
    monkeypatch.setattr(chat, "turn_ends", lambda _: ())
    assert digest() == hash_path(folder).sha256
    change[0] = True
    with pytest.raises(UserError, match="changed while it was in use"):
        digest()
