"""`codex-ml check` in the temporary copy that DVC makes for an experiment: all code there is tracked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codex_ml.cli.checks.code import code_problems
from codex_ml.core.pipeline import load_pipeline

SCRIPT = """\
from codex_ml.cli.checks.code import code_problems
from codex_ml.core.pipeline import load_pipeline
open("problems.txt", "w").write(repr(list(code_problems(load_pipeline()))))
"""
PIPELINE = """\
stages:
  ingest:
    cmd: {python} stages/ingest.py
    deps: [stages/ingest.py, src/lib]
    params: [seed]
    outs: [problems.txt]
"""


def test_a_staged_file_comes_along_staged_and_a_loose_one_stays_behind(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"PYTHONPATH": str(repository / "src"), "DVC_SITE_CACHE_DIR": str(tmp_path / ".dvc/tmp/site")}
    environment = {**os.environ, **settings, "DVC_NO_ANALYTICS": "1"}

    def run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, env=environment)

    files = {
        "dvc.yaml": PIPELINE.format(python=sys.executable),
        "params.yaml": "seed: 1\n",
        ".gitignore": "/problems.txt\n",
        "stages/ingest.py": SCRIPT,
        "src/lib/a.py": "",
    }
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    run("git", "init", "-q")
    run("git", "config", "user.name", "T")
    run("git", "config", "user.email", "t@example.invalid")
    run(sys.executable, "-m", "dvc", "init", "-q")
    run("git", "add", ".")
    run("git", "commit", "-qm", "start")
    for name in ("staged", "loose"):
        Path(f"src/lib/{name}.py").write_text("")
    run("git", "add", "src/lib/staged.py")
    assert "src/lib/loose.py" in next(code_problems(load_pipeline()))
    run(sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", "copy", "-S", "seed=2")
    run(sys.executable, "-m", "dvc", "exp", "apply", "copy")
    assert Path("problems.txt").read_text() == "[]"
