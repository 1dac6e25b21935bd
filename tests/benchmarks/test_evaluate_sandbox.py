"""benchmarks/evaluate_sandbox.py: each way runs to its end, and the table has a row for each."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from codex_ml.core.errors import UserError
from codex_ml.sandbox.ladder import RUNGS, open_sandbox


def works(rung: str) -> bool:
    try:
        open_sandbox(rung)
    except UserError:
        return False
    return True


def test_the_table_has_each_way_that_this_machine_can_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    importlib.import_module("evaluate_sandbox").main(runs=1)
    rows = re.findall(
        r"^\| ([a-z -]+?) \| [\d.]+ \| -?[\d.]+(?: \(more than 15\))? \| [\d.]+ \|$", capsys.readouterr().out, re.M
    )
    usable = [rung for rung in RUNGS if works(rung)]
    assert rows == ["bare", *(f"{rung} {way}" for rung in usable for way in ("program", "trial"))]
