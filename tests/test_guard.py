"""Tests of the code pass in every clone: none opens what belongs to its user, and the gate on push runs no other."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import sitecustomize

from codex_ml.core.yaml import read_yaml

ROOT = Path(__file__).parents[1]
WHAT = "which belongs to the user; take tests/project, or mark it `shipped`"


@pytest.mark.parametrize(
    "name", ["params.yaml", "data/policy.yaml", "dvc.lock", "reports/x/metrics.json", "data/raw/mine"]
)
@pytest.mark.parametrize("spelling", ["{root}/{name}", "{root}/src/../{name}", "{name}"])
def test_a_file_of_the_user_cannot_be_opened(monkeypatch, name, spelling):
    monkeypatch.chdir(ROOT)
    with pytest.raises(AssertionError, match=WHAT):
        open(spelling.format(root=ROOT, name=name)).close()  # noqa: PTH123
    with pytest.raises(AssertionError, match=WHAT):
        os.listdir(ROOT / "reports")  # noqa: PTH208


def test_a_child_process_cannot_either(run_python):
    done = run_python("-c", "open('params.yaml')", cwd=ROOT)
    assert done.returncode == 1
    assert WHAT in done.stderr
    assert run_python("-c", "open('dvc.yaml')", cwd=ROOT).returncode == 0


def test_the_same_name_elsewhere_and_our_code_can(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    assert (ROOT / "dvc.yaml").read_bytes()
    assert not sitecustomize.owned(f"{ROOT}-of-somebody/params.yaml")
    assert not sitecustomize.owned(f"{ROOT}/tests/project/params.yaml")


@pytest.mark.shipped
def test_what_is_marked_shipped_can():
    assert (ROOT / "params.yaml").read_bytes()


def test_the_gate_on_push_is_the_fast_target_and_waits_for_code_only():
    (gate,) = (
        hook for hook in read_yaml(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"] if hook["id"] == "test-fast"
    )
    assert gate["stages"] == ["pre-push"]
    assert "always_run" not in gate
    fresh = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "-n", "-o", "setup", "test-fast"]
    done = subprocess.run(command, env=fresh, cwd=ROOT, capture_output=True, text=True, check=True)
    words = done.stdout.replace("\\\n", " ").split()
    assert words == gate["entry"].replace("sh .ci/hook", ".venv/bin/python -P").split()
    for marker in ("shipped", "costly", "slow", "gpu", "pipeline"):
        assert f"not {marker}" in gate["entry"]


def test_every_file_that_counts_as_costly_exists():
    """A file that was renamed would run before every push again."""
    names = re.findall(r'"(test_\w+\.py)"', (ROOT / "tests/conftest.py").read_text(encoding="utf-8"))
    assert len(names) > 20
    assert set(names) <= {file.name for file in (ROOT / "tests").rglob("test_*.py")}
