"""The settings before the first tensor that make equal inputs give equal bits."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from codex_ml.core.config import Runtime
from codex_ml.modeling.hardware import inference_device, make_deterministic

pytestmark = pytest.mark.usefixtures("one_thread")


def draw():
    return random.random(), np.random.rand(2).tolist(), torch.rand(2).tolist()  # noqa: NPY002


def test_seed_decides_what_every_generator_draws(recipe):
    found = []
    for seed in (1, 1, 2):
        make_deterministic(recipe.HARDWARE, seed=seed)
        found.append(draw())
    assert found[0] == found[1]
    for one, other in zip(found[1], found[2], strict=True):
        assert one != other


def test_threads_and_algorithms_are_fixed(recipe):
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(2)
    make_deterministic(recipe.HARDWARE, seed=1)
    assert torch.get_num_threads() == recipe.HARDWARE.threads == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory


def test_evaluation_is_as_deterministic_as_training():
    torch.use_deterministic_algorithms(False)
    assert inference_device(Runtime(device="cpu"), threads=1) == "cpu"
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1
