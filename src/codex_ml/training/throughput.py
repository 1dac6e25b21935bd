"""How fast a run is, and which share of what the machine can do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from codex_ml.training.run import Run

if TYPE_CHECKING:
    import torch
    from torch import nn

SIZE, ROUNDS = {"cpu": 1024, "cuda": 4096}, 5  # of the matrices that find the peak; 5 take 0.2 s on a slow CPU


def flops_per_token(model: nn.Module, seq_len: int) -> float:
    """Floating point operations of forward and backward: 6 N + 12 L d T (Chowdhery et al. 2022, appendix B).

    N: parameters, tied ones once; L: layers; d: hidden size; T: tokens a row, as if all were looked at. Of an
    encoder-decoder this is an upper bound: its encoder reads half of a text.
    """
    config: Any = model.config
    layers, hidden = config.num_hidden_layers, config.hidden_size
    return float(6 * sum(p.numel() for p in model.parameters()) + 12 * layers * hidden * seq_len)


def matmul_peak(device: torch.device, precision: str) -> float:
    """Operations a second of a large square matrix product in this precision, the best of a few."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    size, dice = SIZE[device.type], torch.Generator(device).manual_seed(0)  # of its own: the run's numbers stay
    left, right = (torch.randn(size, size, dtype=dtype, device=device, generator=dice) for _ in range(2))
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
    """Tokens a second, operations a second and their share of the measured peak (MFU), since the last time."""

    def __init__(self, run: Run) -> None:
        precision = {"no": "fp32"}.get(run.accelerator.mixed_precision, run.accelerator.mixed_precision)
        self._tokens = run.rows_a_step * run.rows.seq_len
        self._flops = flops_per_token(run.model, run.rows.seq_len)
        self._peak = matmul_peak(run.accelerator.device, precision) * run.accelerator.num_processes
        self._step, self._time = run.step, time.monotonic()

    def restart(self, step: int) -> None:
        """Count from here: what came before, such as compiling, is in no rate."""
        self._step, self._time = step, time.monotonic()

    def since_last(self, step: int) -> dict[str, float]:
        """Numbers for the log of timings; none when no step was done since the last time."""
        if step == self._step:
            return {}
        now = time.monotonic()
        rate = (step - self._step) * self._tokens / max(1e-9, now - self._time)
        self._step, self._time = step, now
        flops = rate * self._flops
        return {
            "tokens_per_second": round(rate, 1),
            "tflops": round(flops / 1e12, 4),
            "mfu": round(flops / self._peak, 4),
        }
