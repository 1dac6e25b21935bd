"""The benchmark that chose the default recipe: it trains a table of settings, races other recipes, and writes the page.

    python benchmarks/recipe.py list
    python benchmarks/recipe.py run --only default --only one-rate --seed 1 --seed 2 --seed 3 --test
    python benchmarks/recipe.py run --size small --steps 300 --workers 2

Run `dvc repro pack` before. recipe_settings.py has the table. A finished run is one line of benchmarks/recipe.ndjson,
and a run that is there already is not repeated.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any

import typer

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from recipe_run import RecipeJob, command  # noqa: E402
from recipe_settings import ROOT, SIZES, recipe_of, settings  # noqa: E402
from turns import loop_environment  # noqa: E402

from codex_ml.core.cores import cores  # noqa: E402

app = typer.Typer(help=__doc__, no_args_is_help=True)
RECORD = HERE / "recipe.ndjson"
DATA = ROOT / "data"


def read_runs(record: Path) -> list[dict[str, Any]]:
    """Return the finished runs, each with every key that a recipe has today."""
    if not record.is_file():
        return []
    runs = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    return [{**run, "recipe": recipe_of(run["recipe"])} for run in runs]


def is_done(job: RecipeJob, runs: list[dict[str, Any]]) -> bool:
    """Whether there is a run of the same content, size, seed and budget, and with the test split if that is wanted."""
    wanted = {"size": job.size, "seed": job.seed, "budget": job.steps, **job.content}
    return any(
        all(run[key] == value for key, value in wanted.items()) and not (job.test and run["test_bits_per_byte"] is None)
        for run in runs
    )


def kernels(threads: int) -> Path:
    """Return the folder of compiled kernels; a run that finds them starts 40 s sooner."""
    return ROOT / f".cache/recipe/kernels-{threads}"


def train(jobs: list[RecipeJob], workers: int) -> Iterator[tuple[RecipeJob, str, str]]:
    """Train the jobs, `workers` at a time; yield each with its record, or "" and the end of its stderr."""

    def one(job: RecipeJob) -> tuple[RecipeJob, str, str]:
        own = loop_environment(threads=job.threads, kernels=kernels(job.threads), allocator=True)
        done = subprocess.run(command(job), env=own, check=False, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            return job, "", f"exit status {done.returncode}\n{done.stderr[-1000:].strip()}"
        return job, done.stdout, ""

    with ThreadPoolExecutor(workers) as pool:
        for future in as_completed([pool.submit(one, job) for job in jobs]):
            yield future.result()


@app.command(name="list")
def list_settings() -> None:
    """Print the settings and the sizes."""
    for name, setting in settings().items():
        print(f"{name:22s} {setting.title}")
    for name, size in SIZES.items():
        print(f"--size {name:15s} {size.model}, {size.steps} steps")


@app.command()
def run(
    only: Annotated[list[str] | None, typer.Option(help="Settings; all if none is named.")] = None,
    seed: Annotated[list[int], typer.Option(help="Give it several times for intervals.")] = [1],  # noqa: B006
    size: Annotated[str, typer.Option(help=f"Model, of: {', '.join(SIZES)}.")] = "tiny",
    steps: Annotated[int, typer.Option(min=0, help="Steps of 8 rows; 0: the usual number of the size.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time; they share the cores.")] = 1,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    compile: Annotated[bool, typer.Option("--compile/--no-compile", help="torch.compile.")] = True,
    test: Annotated[bool, typer.Option("--test", help="Measure bits per byte on the test split too.")] = False,
    data: Annotated[Path, typer.Option(help="Folder with packed/ and splits/.")] = DATA,
    record: Annotated[Path, typer.Option(help="Finished runs, one JSON object per line.")] = RECORD,
) -> None:
    """Train each setting with each seed; append each finished run to the record. Exit with 1 if one fails."""
    known = settings()
    if wrong := [*(set(only or ()) - set(known)), *({size} - set(SIZES))]:
        raise typer.BadParameter(
            f"{wrong[0]} is neither a setting ({', '.join(known)}) nor a size ({', '.join(SIZES)})"
        )
    for folder in ("packed", "splits") if test else ("packed",):
        if not (data / folder).is_dir():
            raise typer.BadParameter(f"{data / folder} is missing; run `dvc repro pack`")
    jobs = [
        RecipeJob(
            name, size, number, steps or SIZES[size].steps, known[name].content,
            threads=max(1, cores() // workers), data=str(data.resolve()), test=test, precision=precision,
            compile=compile,
        )
        for number in dict.fromkeys(seed) for name in dict.fromkeys(only or known)
    ]  # fmt: skip
    runs, failed = read_runs(record), 0
    todo = [job for job in jobs if not is_done(job, runs)]
    print(f"{len(jobs) - len(todo)} runs are in {record.name}, {len(todo)} to train", file=sys.stderr)
    for job, line, error in train(todo, workers):
        if error:
            failed += 1
            print(f"{job.setting}, seed {job.seed}: {error}", file=sys.stderr)
            continue
        with record.open("a", encoding="utf-8") as lines:
            lines.write(line)
        print(told(json.loads(line)), flush=True)
    if failed:
        raise typer.Exit(1)


def told(run: dict[str, Any]) -> str:
    """Return one line about a run."""
    bits = "" if run["test_bits_per_byte"] is None else f", {run['test_bits_per_byte']:.4f} test bits per byte"
    return (
        f"{run['setting']:22s} seed {run['seed']}: {list(run['val'].values())[-1]:.4f} nats after {run['steps']} steps"
        f"{bits}, {1000 * run['seconds_per_step']:.0f} ms per step, {run['seconds']:.0f} s"
    )


if __name__ == "__main__":
    app()
