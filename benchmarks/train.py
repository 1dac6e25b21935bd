"""Speed of the training loop and of other loops on one model, in turns within one run; memory by corpus size.

    python benchmarks/train.py --rounds 5 --steps 5
    python benchmarks/train.py --shape small --only ours --only bare
    python benchmarks/train.py memory --small 100 --large 2000

Each loop runs in a process of its own (train_peers.py), so that allocator settings and compiled kernels are separate.
The loops take turns: one trains while the others wait on a pipe. Run it on idle cores.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from measuring import cpu_name, measure  # noqa: E402
from train_peers import PEERS, Job, command  # noqa: E402
from train_shapes import SHAPES, Shape, write_packed  # noqa: E402
from turns import Process, loop_environment  # noqa: E402

from codex_ml.core.cores import cores  # noqa: E402
from codex_ml.core.errors import UserError  # noqa: E402

app = typer.Typer(help=__doc__)
WARM_UP = 2  # steps; the first compiles

# Smallest acceptable ratio of `ours` to each other loop, on 2 cores with bf16; then the share of the matmul peak.
# A step of Muon may take 1.06 times a step of AdamW.
WANTED = {"ours-adamw": 0.943, "bare": 0.97, "trainer": 2.4, "trainer-fast": 1.3, "trainer-ours": 1.0, "nanogpt": 2.4}
WANTED_SHARE = 0.62


def environment(job: Job, folder: Path) -> dict[str, str]:
    """Return the environment of the process of a loop."""
    kernels = folder / f"{job.peer}-kernels"
    return loop_environment(threads=job.threads, kernels=kernels, allocator=PEERS[job.peer].allocator)


def matmul_peak(shape: Shape, *, precision: str, threads: int) -> float:
    """Return the FLOP/s of the fastest of these products: those of the model, and squares of 1024 and 2048."""
    import torch

    torch.set_num_threads(threads)
    tokens, d = shape.rows * shape.seq_len, shape.hidden
    sizes = [(tokens, d, d), (tokens, d, shape.ffn), (tokens, shape.ffn, d), (tokens, d, shape.vocabulary)]
    sizes += [(tokens, shape.vocabulary, d), (d, tokens, shape.vocabulary), (1024, 1024, 1024), (2048, 2048, 2048)]
    best = 0.0
    for m, k, n in sizes:
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        left, right, out = (torch.zeros(*size, dtype=kind).normal_() for size in ((m, k), (k, n), (m, n)))
        for _ in range(6):
            start = time.perf_counter()
            torch.mm(left, right, out=out)
            best = max(best, 2 * m * k * n / (time.perf_counter() - start))
    return best


def chosen_hardware(precision: str, threads: int) -> Any:
    """Return the hardware settings that `auto` resolves to on this machine.

    Raises:
        UserError: if bf16 was requested and the CPU does not have it.
    """
    from codex_ml.core.config import Runtime
    from codex_ml.modeling.hardware import choose_hardware

    return choose_hardware(Runtime(device="cpu"), threads=threads, precision=precision, compile="off")


@app.callback(invoke_without_command=True)
def speed(
    context: typer.Context,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are printed.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps per round and loop.")] = 5,
    only: Annotated[list[str] | None, typer.Option(help=f"Loops, of: {', '.join(PEERS)}.")] = None,
    shape: Annotated[str, typer.Option(help=f"Model, of: {', '.join(SHAPES)}.")] = "7m",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    compile: Annotated[
        bool, typer.Option("--compile/--no-compile", help="torch.compile, in loops that use it.")
    ] = True,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = cores(),
) -> None:
    """Measure tokens per second of each loop, the ratios, and the share of the matmul peak that ours reaches."""
    if context.invoked_subcommand:
        return
    names = list(dict.fromkeys(only or PEERS))
    if wrong := [*(set(names) - set(PEERS)), *({shape} - set(SHAPES))]:
        raise typer.BadParameter(f"{wrong[0]} is neither a loop ({', '.join(PEERS)}) nor a shape ({', '.join(SHAPES)})")
    try:
        hardware = chosen_hardware(precision, threads)
    except UserError as error:
        raise typer.BadParameter(str(error)) from None
    describe(shape, hardware, compiled=compile)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    peak = 0.0
    with TemporaryDirectory() as temporary, ExitStack() as stack:
        processes = {}
        for name in names:
            job = Job(name, shape, hardware.precision, compile, threads, WARM_UP)
            log = Path(temporary) / f"{name}.log"
            processes[name] = stack.enter_context(Process(command(job), environment(job, Path(temporary)), log))
        for name, process in processes.items():
            print(f"{name:13s} compiled and warm after {process.answer()['seconds']:.0f} s", file=sys.stderr)
        for _ in range(rounds):
            for name, process in processes.items():
                seconds[name].append(process.steps(steps)["seconds"] / steps)
            peak = max(peak, matmul_peak(SHAPES[shape], precision=hardware.precision, threads=threads))
    tell(SHAPES[shape], seconds, peak=peak, precision=hardware.precision)


def describe(name: str, hardware: Any, *, compiled: bool) -> None:
    """Print the model, the machine and the versions."""
    import torch
    import transformers

    shape = SHAPES[name]
    print(f"{shape.parameters / 1e6:.2f} M parameters ({name}: {shape})")
    print(f"{cpu_name()}, {hardware.threads} threads, {hardware.capability}, {hardware.precision}", end="")
    print(
        f"; torch {torch.__version__}, transformers {transformers.__version__}, compile {'on' if compiled else 'off'}"
    )
    if hardware.precision == "fp32":
        print("fp32: not comparable with the bf16 figures, which need a CPU with bf16 (AVX-512 BF16, AMX, Arm BF16)")


def tell(shape: Shape, seconds: dict[str, list[float]], *, peak: float, precision: str) -> None:
    """Print the table, the ratios with their spread over the rounds, and the share of the peak."""
    tokens = shape.rows * shape.seq_len
    for name, found in seconds.items():
        middle = median(found)
        print(f"{name:13s} {tokens / middle:8.0f} tok/s, {1000 * middle:.0f} ms per step ", end="")
        print(f"({1000 * min(found):.0f} to {1000 * max(found):.0f})\n    {PEERS[name].settings}")
    print(f"{precision} matmul peak {peak / 1e9:.0f} GFLOP/s: the best of the model's products and of squares")
    if "ours" not in seconds:
        return
    for name in [name for name in seconds if name in WANTED]:
        ratios = [theirs / own for theirs, own in zip(seconds[name], seconds["ours"], strict=True)]
        print(f"ours / {name:13s} {median(seconds[name]) / median(seconds['ours']):.2f} ", end="")
        print(f"(rounds {min(ratios):.2f} to {max(ratios):.2f}; with bf16 at least {WANTED[name]:.2f} is expected)")
    share = shape.flops_per_token * tokens / median(seconds["ours"]) / peak
    print(f"ours uses {share:.1%} of the peak (with bf16 at least {WANTED_SHARE:.0%} is expected), counting ", end="")
    print(f"6 N + 12 L d T = {shape.flops_per_token / 1e6:.1f} MFLOP per token")


@app.command()
def memory(
    small: Annotated[int, typer.Option(min=1, help="MB of tokens.")] = 100,
    large: Annotated[int, typer.Option(min=1, help="MB of tokens.")] = 2000,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 4,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = cores(),
) -> None:
    """Compare the peak of private memory while training on few and on many tokens.

    The model has one small layer, because equal runs of a larger model differ by 70 MiB through the allocator.
    """
    shape, peaks = "one-layer", []
    for megabytes in (small, large):
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_packed(folder, SHAPES[shape], tokens=megabytes * 1_000_000 // 2)  # uint16
            job = Job("ours", shape, "fp32", False, threads, steps, packed=temporary)
            run = measure(command(job), folder, environment(job, folder))
            peaks.append(run.peak)
            print(f"{megabytes:6d} MB of tokens: peak {run.peak:.0f} MiB over {steps} steps")
    print(f"grows by {peaks[1] - peaks[0]:.0f} MiB (at most 50 are expected)")


if __name__ == "__main__":
    app()
