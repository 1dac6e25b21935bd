"""Measure the speed of a run, in tokens and operations per second, and as a share of the machine's peak (MFU)."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any

from codex_ml.train.run import Run

if TYPE_CHECKING:
    import torch
    from torch import nn

SIZE, ROUNDS = {"cpu": 1024, "cuda": 4096}, 5  # side of the matrices that measure the peak; 0.2 s on a slow CPU


def flops_per_token(model: nn.Module, seq_len: int) -> float:
    """Floating point operations per token, forward and backward: 6 N + 12 L d T (Chowdhery et al. 2022, appendix B).

    N: parameters, tied ones once; L: layers; d: hidden size; T: tokens per row, as if each attended to all. For an
    encoder-decoder this is an upper bound: its encoder reads half of a text.
    """
    config: Any = model.config
    layers, hidden = config.num_hidden_layers, config.hidden_size
    return float(6 * sum(p.numel() for p in model.parameters()) + 12 * layers * hidden * seq_len)


@cache  # of a process: it is a property of the machine
def matmul_peak(device: torch.device, precision: str) -> float:
    """Measure the operations per second of a large square matrix product in this precision; the best of ROUNDS."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    size, rng = SIZE[device.type], torch.Generator(device).manual_seed(0)  # own RNG: must not advance the run's
    left, right = (torch.randn(size, size, dtype=dtype, device=device, generator=rng) for _ in range(2))
    best = float("inf")
    for _ in range(ROUNDS):
        _wait(device)
        start = time.perf_counter()
        torch.mm(left, right)
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _wait(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Throughput:
    """Trained tokens per second, operations per second and MFU (their share of the measured peak) since the last call.

    A trained token is a target of the loss. The model computes on the other places of a row too: on filler at its end,
    and on prompts that are read only. These count for the operations, and `untrained` is their share.
    """

    def __init__(self, run: Run) -> None:
        precision = {"no": "fp32"}.get(run.accelerator.mixed_precision, run.accelerator.mixed_precision)
        self._run, self._places = run, run.rows_a_step * run.rows.seq_len
        self._flops = flops_per_token(run.model, run.rows.seq_len)
        self._peak = matmul_peak(run.accelerator.device, precision) * run.accelerator.num_processes
        self.restart(run.step)

    def restart(self, step: int) -> None:
        """Start counting at this step, so that earlier work, such as compiling, is in no rate."""
        self._step, self._time, self._trained = step, time.monotonic(), self._run.trained_tokens

    def since_last(self, step: int) -> dict[str, float]:
        """Return the speeds since the last call, for the log of timings; empty if no step was done since then."""
        if step == self._step:
            return {}
        now = time.monotonic()
        places, trained = (step - self._step) * self._places, self._run.trained_tokens - self._trained
        seconds = max(1e-9, now - self._time)
        self._step, self._time, self._trained = step, now, self._run.trained_tokens
        flops = places / seconds * self._flops
        return {
            "tokens_per_second": round(trained / seconds, 1),
            "untrained": round(1 - trained / places, 4),
            "tflops": round(flops / 1e12, 4),
            "mfu": round(flops / self._peak, 4),
        }
