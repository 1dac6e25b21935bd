"""`codex-ml check` refuses a model that cannot fit into this machine, and warns of one that may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from codex_ml.cli.checks import memory_fit
from codex_ml.cli.checks.memory_fit import memory_warnings, too_large
from codex_ml.cli.param_rules import Params, load_params, validate_params
from codex_ml.core.errors import UserError
from codex_ml.modeling import trained_model
from codex_ml.modeling.trained_model import load_model

GIB = 1 << 30
LARGE: dict[str, Any] = {
    "model": {"hidden_size": 4096, "intermediate_size": 14336, "layers": 32, "heads": 32, "max_positions": 512},
    "train": {"compile": "off", "precision": "fp32"},
}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    """A machine of 24 GiB without a GPU."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(memory_fit, "GPU_DEVICES", ())
    monkeypatch.setattr(memory_fit, "machine_memory", lambda: 24 * GIB)


def params_with(**sections: Any) -> Params:
    return validate_params(sections)


@pytest.mark.usefixtures("machine")
def test_what_cannot_fit_is_refused_for_each_stage_that_needs_the_model() -> None:
    lines = list(too_large(params_with(**LARGE)))
    assert [line.split(" needs ")[0] for line in lines] == [
        f"params.yaml: {name}" for name in ("train", "evaluate", "safety_audit")
    ]
    assert all("and this machine has 24.0 GiB; " in line for line in lines)


@pytest.mark.usefixtures("machine")
def test_what_may_not_fit_is_a_warning_and_not_refused() -> None:
    params = params_with(train={"micro_batch_size": 800, "compile": "off"}, pack={"seq_len": 256})
    assert list(too_large(params)) == []
    (line,) = memory_warnings(params)
    assert line.startswith("params.yaml: train may need ")
    assert line.endswith("; train.micro_batch_size 400 would fit")


@pytest.mark.usefixtures("machine")
def test_a_vocabulary_may_end_early_so_its_size_is_only_in_the_estimate() -> None:
    params = params_with(tokenizer={"vocab_size": 2**24}, pack={"dtype": "uint32"})
    assert list(too_large(params)) == []
    line = next(memory_warnings(params))
    assert line.startswith("params.yaml: with a vocabulary of 16,777,216 tokens, train needs at least ")


@pytest.mark.usefixtures("machine")
def test_the_parameters_of_a_project_give_no_line() -> None:
    assert list(too_large(load_params())) == list(memory_warnings(load_params())) == []


@pytest.mark.parametrize(("device", "gpu", "lines"), [("auto", True, 0), ("cpu", True, 3), ("cuda", True, 3)])
@pytest.mark.usefixtures("machine")
def test_the_memory_is_that_of_the_device(monkeypatch, tmp_path, device: str, gpu: bool, lines: int) -> None:
    """With auto and a GPU only the stage knows which device it takes."""
    monkeypatch.setattr(memory_fit, "GPU_DEVICES", (str(tmp_path),) if gpu else ())
    monkeypatch.setattr(memory_fit, "gpu_memory", lambda: 16 * GIB)
    found = list(too_large(params_with(**LARGE, runtime={"device": device})))
    assert len(found) == lines
    assert all(f"this {'GPU has 16.0' if device == 'cuda' else 'machine has 24.0'} GiB" in line for line in found)


def test_a_model_that_does_not_fit_is_not_loaded(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "model.safetensors").open("r+b").truncate(3 * GIB)  # a hole: it takes no disk
    monkeypatch.setattr(trained_model, "device_memory", lambda device: 2 * GIB)
    with pytest.raises(
        UserError, match=r" needs at least 3.2 GiB of memory \(weights 3.0 GiB, process 0.2 GiB\), and this machine"
    ):
        load_model(tmp_path)
