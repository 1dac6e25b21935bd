"""logs/errors.ndjson: each failure once, with its cause and the command that helps, and without a secret."""

import logging
import os

import pytest

from codex_ml.core.error_log import ErrorLine, last_error, recorded_failures
from codex_ml.core.errors import CheckFailed, UserError, one_line_errors
from codex_ml.core.strict_json import parse_json

TOKEN = "ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789"  # the shape of a GitHub token


def work(error, said):
    if said:
        logging.getLogger("codex_ml").warning(said)
    raise error


def fail(where, error, *, said=""):
    with pytest.raises(SystemExit), recorded_failures(where), one_line_errors():
        work(error, said)
    return last_error()


@pytest.mark.parametrize(
    ("where", "error", "exit_code", "suggestion"),
    [
        ("pack", UserError("data/x is missing; `dvc repro split` makes it"), 2, "dvc repro split"),
        ("pack", UserError("params.yaml: `pack.seq_len` is too small"), 2, "codex-ml check"),
        ("train", CheckFailed("the loss is not finite"), 1, "dvc repro train"),
        ("codex-ml verify", CheckFailed("one file differs"), 1, "codex-ml check"),
        ("train", ZeroDivisionError("by zero"), 1, "python -P stages/train.py --debug"),
        ("codex-ml tokenizer export", KeyError("x"), 1, "codex-ml tokenizer export --debug"),
        ("train", OSError(28, "No space left on device", "models/model"), 1, "codex-ml check"),
    ],
    ids=repr,
)
def test_a_failure_names_its_place_its_code_and_the_command(workspace, where, error, exit_code, suggestion):
    line = fail(where, error, said="train: starting at step 0 of 5")
    assert (line.where, line.kind, line.exit_code) == (where, type(error).__name__, exit_code)
    assert line.step == "train: starting at step 0 of 5"
    assert line.suggestion == suggestion
    assert bool(line.traceback) is isinstance(error, ZeroDivisionError | KeyError)


def test_the_message_is_that_of_the_screen_and_the_causes_follow(workspace, capsys):
    try:
        try:
            raise ValueError("bad byte \x1b[2J")
        except ValueError as inner:
            raise CheckFailed("cannot read it") from inner
    except CheckFailed as error:
        line = fail("pack", error)
    assert capsys.readouterr().err == f"error: {line.message}\n"
    assert line.context == {"causes": ["ValueError: bad byte \\x1b[2J"]}
    try:
        raise UserError("no cause is shown") from None
    except UserError as error:
        assert fail("pack", error).context == {}


def test_no_secret_is_in_message_cause_step_or_traceback(workspace):
    try:
        raise ValueError(f"token {TOKEN}")
    except ValueError as error:
        line = fail("pack", RuntimeError(f"key {TOKEN}", error), said=f"reading {TOKEN}")
    text = (workspace / "logs/errors.ndjson").read_text()
    assert TOKEN not in text
    assert "<SECRET:github-token:" in line.message
    assert "<SECRET:github-token:" in line.traceback
    assert ErrorLine.model_validate(parse_json(text)) == line


def test_a_suggested_command_holds_no_secret(workspace):
    line = fail("fetch", UserError(f"cannot read it; run `git clone https://u:{TOKEN}@example.org/x`"))
    assert TOKEN not in (workspace / "logs/errors.ndjson").read_text()
    assert line.suggestion == "codex-ml check"
    line = fail("fetch", UserError("cannot read it; run `git status -s`"))
    assert line.suggestion == "git status -s"


def test_outside_a_repository_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fail("codex-ml check", UserError("no")) is None
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_is_no_error(workspace):
    assert fail("train", KeyboardInterrupt()) is None


def test_a_full_disk_leaves_the_message_and_the_exit_code(workspace, monkeypatch, capsys):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(SystemExit) as exit_, recorded_failures("pack"), one_line_errors():
        raise UserError("no")
    monkeypatch.undo()
    assert (exit_.value.code, capsys.readouterr().err) == (2, "error: no\n")


def test_a_command_records_its_name_without_its_arguments(workspace, run_python):
    done = run_python("-m", "codex_ml", "lineage", "secret/argument", cwd=workspace)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    line = last_error()
    assert (line.where, f"error: {line.message}\n") == ("codex-ml lineage", done.stderr)
