"""Speed of scoring and of other ways to score on one model, in turns within one run; memory by number of documents.

    python benchmarks/evaluate.py --rounds 5
    python benchmarks/evaluate.py --load ragged --only ours --only script-rows
    python benchmarks/evaluate.py memory

Each way runs in a process of its own (evaluate_peers.py), so that allocator settings and compiled kernels are separate.
They take turns: one scores while the others wait on a pipe. Run it on idle cores, or with `--threads 1 --clock cpu`.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from evaluate_peers import LOADS, PEERS, ScoringJob, command  # noqa: E402
from measuring import cpu_name  # noqa: E402
from train_shapes import SHAPES  # noqa: E402
from turns import Process, loop_environment  # noqa: E402

from codex_ml.core.cores import cores  # noqa: E402

app = typer.Typer(help=__doc__)

# Smallest acceptable ratio of the speed of `ours` to each other way, on 2 cores with bf16 in hardware.
WANTED = {"bare": 0.95, "script": 2.2, "script-rows": 2.2}


@app.callback(invoke_without_command=True)
def speed(
    context: typer.Context,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are printed.")] = 5,
    batches: Annotated[int, typer.Option(min=1, help="Full batches of tokens per round and way.")] = 8,
    only: Annotated[list[str] | None, typer.Option(help=f"Ways, of: {', '.join(PEERS)}.")] = None,
    shape: Annotated[str, typer.Option(help=f"Model, of: {', '.join(SHAPES)}.")] = "7m",
    load: Annotated[str, typer.Option(help=f"Documents, of: {', '.join(LOADS)}.")] = "full",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = cores(),
    clock: Annotated[
        str, typer.Option(help="seconds of the wall, or cpu: with one thread, on cores that are busy.")
    ] = ("seconds"),
) -> None:
    """Measure scored targets per second of each way, and the ratios."""
    if context.invoked_subcommand:
        return
    names = list(dict.fromkeys(only or PEERS))
    choices = ((load, LOADS), (shape, SHAPES), (clock, ("seconds", "cpu")), *((name, PEERS) for name in names))
    for value, allowed in choices:
        if value not in allowed:
            raise typer.BadParameter(f"{value} is none of: {', '.join(allowed)}")
    describe(shape, load, threads)
    tokens = batches * SHAPES[shape].rows * SHAPES[shape].seq_len
    speeds: dict[str, list[float]] = {name: [] for name in names}
    with TemporaryDirectory() as temporary, ExitStack() as stack:
        processes, folder = {}, Path(temporary)
        for name in names:
            job = ScoringJob(name, shape, load, tokens, threads)
            environment = loop_environment(
                threads=threads, kernels=folder / f"{name}-kernels", allocator=PEERS[name].allocator
            )
            process = Process(command(job), environment, folder / f"{name}.log")
            processes[name] = stack.enter_context(process)
        for name, process in processes.items():
            answer = process.answer()
            mean = answer["nats"] / answer["targets"]
            print(f"{name:12s} warm after {answer[clock]:.0f} s, {mean:.4f} nats per target", file=sys.stderr)
        for _ in range(rounds):
            for name, process in processes.items():
                answer = process.steps(1)
                speeds[name].append(answer["targets"] / answer[clock])
    tell(speeds)


def describe(name: str, load: str, threads: int) -> None:
    """Print the model, the documents, the machine and the versions."""
    import torch
    import transformers

    shape = SHAPES[name]
    print(f"{shape.parameters / 1e6:.2f} M parameters ({name}: {shape}); {load}: {LOADS[load]}")
    print(f"{cpu_name()}, {threads} threads, {torch.backends.cpu.get_cpu_capability()}", end="")
    print(f"; torch {torch.__version__}, transformers {transformers.__version__}")


def tell(speeds: dict[str, list[float]]) -> None:
    """Print the table, and the ratios with their spread over the rounds."""
    for name, found in speeds.items():
        print(f"{name:12s} {median(found):8.0f} targets per second ({min(found):.0f} to {max(found):.0f})")
        print(f"    {PEERS[name].settings}")
    for name in [name for name in speeds if "ours" in speeds and name in WANTED]:
        ratios = [own / theirs for own, theirs in zip(speeds["ours"], speeds[name], strict=True)]
        print(f"ours / {name:12s} {median(ratios):.2f} (rounds {min(ratios):.2f} to {max(ratios):.2f}; ", end="")
        print(f"with bf16 at least {WANTED[name]:.2f} is expected)")


@app.command()
def memory(
    small: Annotated[int, typer.Option(min=1, help="Documents.")] = 1_000,
    large: Annotated[int, typer.Option(min=1, help="Documents.")] = 100_000,
) -> None:
    """Compare the peak of resident memory while scoring few and many short documents.

    The model has one layer of width 8, so that its own memory hides nothing.
    """
    peaks, program = [], [sys.executable, str(HERE / "evaluate_memory.py")]
    with TemporaryDirectory() as temporary:
        environment = loop_environment(threads=1, kernels=Path(temporary), allocator=True)
        for count in (small, large):
            test = str(Path(temporary) / "test.parquet")
            for task in (["write", str(count), test], ["score", test]):
                done = subprocess.run([*program, *task], env=environment, capture_output=True, text=True, check=False)
                if done.returncode:
                    sys.exit(done.stderr[-3000:])
            peaks.append(float(done.stdout.split()[-1]))
            print(f"{count:7,d} documents: peak {peaks[-1]:.0f} MiB")
    print(f"grows by {peaks[1] - peaks[0]:.0f} MiB (at most 50 are expected)")


if __name__ == "__main__":
    app()
