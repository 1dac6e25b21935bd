"""A compiled run has the promises of a plain one: equal bytes each time, also after an interruption."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from codex_ml.training import loop
from codex_ml.training import step as step_module
from codex_ml.training.checkpoint import load_newest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a compiler"),
]


def test_compiled_run_resumes_with_the_same_bytes_and_agrees_with_a_plain_one(recipe, monkeypatch, tmp_path):
    import torch
    from accelerate.state import AcceleratorState
    from torch._dynamo.utils import counters

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    compiled = recipe.Hardware("cpu", "fp32", compile=True, threads=1, capability="test")
    schedule = step_module.learning_rate

    def stop(step, train):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return schedule(step, train)

    def run(name, hardware):
        recipe.seed_everything()
        (tmp_path / name).mkdir(exist_ok=True)
        torch._dynamo.reset()
        counters.clear()
        AcceleratorState._reset_state(reset_partial_state=True)  # it would keep the first run's choice of a compiler
        recipe.train(tmp_path / name, model=recipe.tiny_model(), hardware=hardware, max_steps=4)
        return load_newest(tmp_path / name / "scratch")

    plain, whole = run("plain", recipe.HARDWARE), run("whole", compiled)
    with monkeypatch.context() as patch:
        patch.setattr(step_module, "learning_rate", stop)
        with pytest.raises(loop.Interrupted):
            run("resumed", compiled)
    resumed = run("resumed", compiled)
    assert counters["stats"]["unique_graphs"] > 0

    assert resumed.state == whole.state
    for part in ("weights", "best", "optimizer"):
        for name, expected in getattr(whole, part).items():
            assert torch.equal(getattr(resumed, part)[name], expected), name
    for ours, theirs in zip(whole.state["history"], plain.state["history"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
