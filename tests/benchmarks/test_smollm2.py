"""The settings of benchmarks/smollm2.py are those of its page, and params.yaml around them changes nothing."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from codex_ml.cli.param_rules import validate_params
from codex_ml.core.yaml import read_yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def smollm2(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/smollm2.py, which is not a package."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("smollm2")


def test_the_page_shows_the_settings_that_were_measured(smollm2: ModuleType) -> None:
    page = (ROOT / "docs/smollm2.md").read_text(encoding="utf-8")
    assert re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) == [smollm2.yaml_of(smollm2.SETTINGS)]


@pytest.mark.shipped
def test_the_other_keys_of_params_yaml_leave_the_training_as_it_was_measured(
    smollm2: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page says: change these keys, leave the others. The benchmark itself has the defaults of the others."""
    monkeypatch.chdir(ROOT)
    params = read_yaml(ROOT / "params.yaml")
    together = {**params, **{name: {**params[name], **values} for name, values in smollm2.SETTINGS.items()}}
    followed, measured = validate_params(together).train, validate_params(smollm2.SETTINGS).train
    assert followed.model_dump(exclude={"log_every"}) == measured.model_dump(exclude={"log_every"})
