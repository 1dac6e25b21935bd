"""Choose device, precision, threads and compilation once per run, and make torch deterministic.

Used by: train, evaluate, safety_audit.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace

from codex_ml.core.config import Runtime
from codex_ml.core.errors import UserError
from codex_ml.core.ranks import local_rank, local_world_size
from codex_ml.core.side_note import note_resolved
from codex_ml.core.variables import OURS

# Number of steps from which compiling (about 45 s on 2 cores) pays off. Measured with 2.6 M parameters: it saves 5 % of
# a step in float32 on AVX2, and more than half in bf16 on AVX-512.
COMPILE_FROM_STEPS = {"fp32": 2000, "bf16": 200}
# Number of tokens from which compiling the forward pass of evaluation pays off in bf16
COMPILE_FROM_TOKENS = 5_000_000
VECTOR = 16  # float32 numbers in the widest vector of a CPU (AVX-512)


@dataclass(frozen=True)
class Hardware:
    """What a run uses; part of its fingerprint, because results differ in the last bits."""

    device: str  # "cpu" or "cuda"
    precision: str  # "fp32", "bf16" or "fp16"
    compile: bool
    threads: int
    capability: str  # instruction set or GPU, as torch names it


def choose_hardware(
    runtime: Runtime,
    *,
    threads: int,
    precision: str = "auto",
    compile: str = "auto",
    max_steps: int = 0,
    compiles: bool = True,
) -> Hardware:
    """Resolve every `auto`.

    Args:
        precision, compile, max_steps: of `train` in params.yaml.
        compiles: whether `auto` may compile: batches of many shapes compile again and again, and shards do not compile.

    Raises:
        UserError: when params.yaml names something that this machine does not have.
    """
    import torch

    cuda = torch.cuda.is_available()
    if runtime.device == "cuda" and not cuda:
        raise UserError("runtime.device: cuda was asked for, but torch finds no GPU; use auto or cpu")
    device = "cuda" if cuda and runtime.device != "cpu" else "cpu"
    if device == "cuda" and (place := local_rank()) is not None:
        _take_own_gpu(place)
    has_bf16 = _has_bf16(device)
    if precision == "bf16" and not has_bf16:
        raise UserError(f"train.precision: this {device} has no bf16 in hardware; use fp32 or auto")
    if precision == "fp16" and device == "cpu":
        raise UserError("train.precision: fp16 is for GPUs, a CPU has no scaled half precision; use fp32, bf16 or auto")
    if precision == "auto":
        precision = "bf16" if has_bf16 else "fp32"
    compiler = _has_compiler(device)
    if compile == "on" and not compiler:
        raise UserError(
            "train.compile: torch.compile needs a C++ compiler on a CPU and finds none; install g++ or use off"
        )
    earned = max_steps >= COMPILE_FROM_STEPS["fp32" if precision == "fp32" and device == "cpu" else "bf16"]
    compiled = compile == "on" or (compile == "auto" and compiler and earned and compiles)
    capability = torch.cuda.get_device_name() if device == "cuda" else torch.backends.cpu.get_cpu_capability()
    return Hardware(device, precision, compiled, threads, capability)


def _take_own_gpu(place: int) -> None:
    """Make the GPU of this process the current one, before anything is placed on one; else all use the first."""
    import torch

    if place >= (gpus := torch.cuda.device_count()):
        raise UserError(f"process {place} of this machine has no GPU: torch finds {gpus}; start one process per GPU")
    torch.cuda.set_device(place)


def _has_compiler(device: str) -> bool:
    """Whether torch.compile has the compiler that it calls; on a GPU it brings its own."""
    return device == "cuda" or bool(shutil.which("g++") or shutil.which("clang++"))


def _has_bf16(device: str) -> bool:
    """Whether the device multiplies bf16 in hardware (AVX-512 BF16, AMX, Arm BF16); emulation is slower."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))


def make_deterministic(hardware: Hardware, *, seed: int) -> None:
    """Make equal inputs give equal bits, also under torch.compile, with cold caches and after a resume."""
    note_resolved(**vars(hardware))
    import random

    import numpy as np
    import torch

    # without a workspace of fixed size cuBLAS may give other bits, and torch refuses to call it
    for name, value in OURS.items():
        os.environ.setdefault(name, value)
    torch.set_num_threads(max(1, hardware.threads // local_world_size()))
    torch.use_deterministic_algorithms(True)
    # by default this mode also fills every new tensor, 8 % of a step here, to make reads of it repeatable; torch's own
    # operators do not read what they did not write
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries draw from the global state
    torch.manual_seed(seed)


def settle_compiler(hardware: Hardware, *, seq_len: int) -> None:
    """Make torch.compile on a CPU reproducible for rows whose length is not a multiple of its vectors.

    For these rows, the tail of a loop that does not fill a vector is compiled number by number. As a vector, the tail
    would load memory after the end of a tensor into its unused lanes. SLEEF's sin and cos choose their method by the
    largest value of all lanes. So the last bits of the rotary angles would depend on unrelated memory: with rows of 8
    tokens, about half of equal runs differed. Other rows keep their kernels.
    """
    if not (hardware.compile and hardware.device == "cpu" and seq_len % VECTOR):
        return
    from torch._inductor import config

    config.cpp.enable_loop_tail_vec = False


def inference_device(runtime: Runtime, *, threads: int) -> str:
    """Return the device for evaluation and audit; set threads and determinism as in training."""
    hardware = choose_hardware(runtime, threads=threads, precision="fp32", compile="off")
    make_deterministic(hardware, seed=0)
    return hardware.device


def scoring_hardware(runtime: Runtime, *, threads: int, precision: str, tokens: int, seq_len: int) -> Hardware:
    """Return the hardware of an evaluation; set threads and determinism as in training.

    float32 is never compiled: it is for results that are equal in all digits, and hardly faster compiled.

    Args:
        precision: `evaluate.precision`.
        tokens: how many will be scored, roughly.
        seq_len: tokens per window.

    Raises:
        UserError: for bf16 on a machine that does not have it.
    """
    plain = choose_hardware(runtime, threads=threads, precision="fp32", compile="off")
    if precision == "bf16" and not _has_bf16(plain.device):
        raise UserError(f"evaluate.precision: this {plain.device} has no bf16 in hardware; use fp32 or auto")
    low = precision != "fp32" and _has_bf16(plain.device)
    compiled = low and tokens >= COMPILE_FROM_TOKENS and _has_compiler(plain.device)
    hardware = replace(plain, precision="bf16" if low else "fp32", compile=compiled)
    make_deterministic(hardware, seed=0)
    settle_compiler(hardware, seq_len=seq_len)
    return hardware


def device_memory(device: str) -> int:
    """Bytes that a run may use on its device: those of the GPU, or of this machine."""
    if device == "cpu":
        from codex_ml.core.machine_memory import machine_memory

        return machine_memory()
    import torch

    return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
