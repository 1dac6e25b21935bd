"""Out of memory is one line that names the parameters of the stage, whatever library ran out of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch

from codex_ml.cli.param_rules import Params
from codex_ml.core.errors import CheckFailed, UserError, one_line_errors
from codex_ml.core.out_of_memory import LOWER, ended_without_memory, is_out_of_memory
from codex_ml.core.sections import known_keys
from codex_ml.modeling.trained_model import load_fitting
from codex_ml.train.model.probe import check_isolation

HUGE = 1 << 55  # bytes; no address space has as many


class PanicException(BaseException):
    """As the Rust libraries raise it."""


def raising(error: BaseException) -> Callable[[], None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


FORMS = {
    "Python": lambda: bytearray(HUGE),
    "NumPy": lambda: np.zeros(HUGE, np.uint8),
    "Arrow": lambda: pa.allocate_buffer(HUGE),
    "torch on a CPU": lambda: torch.empty(HUGE, dtype=torch.uint8),
    "torch on a GPU": raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")),
    "cuBLAS": raising(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
    "C++": raising(RuntimeError("std::bad_alloc")),
    "Rust": raising(PanicException("capacity overflow")),
    "the kernel": raising(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))),
}


@pytest.mark.parametrize("stage", LOWER)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_names_the_parameters_of_every_stage(form: str, stage: str, capsys) -> None:
    with pytest.raises(SystemExit) as exit_, one_line_errors(stage=stage):
        FORMS[form]()
    assert exit_.value.code == 1
    assert capsys.readouterr().err == f"error: out of memory; lower {LOWER[stage]}\n"


def test_what_the_lines_name_are_parameters() -> None:
    keys = set(known_keys(Params))
    named = {word.strip(",()") for line in LOWER.values() for word in line.split() if "." in word}
    assert named <= keys
    assert {
        line.split()[0].split(".")[0] for stage, line in LOWER.items() if stage in ("train", "evaluate", "pack")
    } == {
        "train",
        "evaluate",
        "pack",
    }


@pytest.mark.parametrize(
    "error", [UserError("line 3: std::bad_alloc"), CheckFailed("not enough memory"), ValueError("x")]
)
def test_a_message_that_quotes_the_words_is_not_out_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    ("code", "ended"), [(-9, True), (137, True), (-6, True), (134, True), (-15, False), (1, False), (0, False)]
)
def test_a_killed_or_aborted_process_most_likely_had_no_memory(code: int, ended: bool) -> None:
    assert ended_without_memory(code) == ended


def test_a_model_that_does_not_fit_into_memory_is_not_called_damaged(tmp_path) -> None:
    class Hungry:
        @staticmethod
        def from_pretrained(*_: object, **__: object) -> None:
            torch.empty(HUGE, dtype=torch.uint8)

    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        load_fitting(Hungry, tmp_path, tmp_path)


def test_a_probe_without_memory_does_not_blame_the_architecture() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    model.forward = raising(MemoryError())
    with pytest.raises(MemoryError):
        check_isolation(model)
