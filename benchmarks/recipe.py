"""The benchmark that chose the default recipe: it trains a table of settings, races other recipes, and writes the page.

    python benchmarks/recipe.py list
    python benchmarks/recipe.py run --only default --only one-rate --seed 1 --seed 2 --seed 3 --test
    python benchmarks/recipe.py run --size small --steps 300 --workers 2
    python benchmarks/recipe.py race
    python benchmarks/recipe.py write

Run `dvc repro pack` before. recipe_settings.py has the table. A finished run is one line of benchmarks/recipe.ndjson,
and a run that is there already is not repeated. benchmarks/recipe_race.ndjson has the last race. `write` makes
docs/recipe.md of both.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import recipe_race  # noqa: E402
from recipe_run import RecipeJob, command, origin  # noqa: E402
from recipe_settings import ROOT, SIZES, recipe_of, settings  # noqa: E402
from turns import Process, loop_environment  # noqa: E402

from codex_ml.core.cores import cores  # noqa: E402
from codex_ml.core.errors import UserError  # noqa: E402
from codex_ml.core.io import write_text  # noqa: E402

app = typer.Typer(help=__doc__, no_args_is_help=True)
RECORD = HERE / "recipe.ndjson"
RACE = HERE / "recipe_race.ndjson"
DATA = ROOT / "data"


def read_runs(record: Path) -> list[dict[str, Any]]:
    """Return the finished runs, each with every key that a recipe has today."""
    if not record.is_file():
        return []
    runs = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    return [{**run, "recipe": recipe_of(run["recipe"])} for run in runs]


def is_done(job: RecipeJob, runs: list[dict[str, Any]]) -> bool:
    """Whether there is a run of the same content, size, seed and budget, and with the test split if that is wanted.

    It is compiled or not, as the job is, and has the job's precision unless this is auto.
    """
    wanted = {"size": job.size, "seed": job.seed, "budget": job.steps, "compile": job.compile, **job.content}
    if job.precision != "auto":
        wanted["precision"] = job.precision
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
    require(data, *(("packed", "splits") if test else ("packed",)))
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


def require(data: Path, *folders: str) -> None:
    """Refuse a folder of data that lacks one of these."""
    for folder in folders:
        if not (data / folder).is_dir():
            raise typer.BadParameter(f"{data / folder} is missing; run `dvc repro pack`")


def chosen_precision(precision: str, threads: int) -> str:
    """Return what `auto` is on this machine."""
    from codex_ml.core.config import Runtime
    from codex_ml.modeling.hardware import choose_hardware

    try:
        return choose_hardware(Runtime(device="cpu"), threads=threads, precision=precision, compile="off").precision
    except UserError as error:
        raise typer.BadParameter(str(error)) from None


def in_turns(jobs: list[RecipeJob], turn: int) -> dict[str, dict[str, Any]]:
    """Train the racers in turns of `turn` steps of 8 rows; return the curve of each.

    Returns:
        "steps": of 8 rows; "loss": after them; "clock": seconds of training until then; "start": seconds from the start
        of the loop to the end of the first step, which compiles. The clock counts this step as an average one.
    """
    curves: dict[str, dict[str, Any]] = {}
    with TemporaryDirectory() as temporary, ExitStack() as stack:
        processes = {}
        for job in jobs:
            own = loop_environment(
                threads=job.threads, kernels=Path(temporary) / f"{job.setting}-kernels",
                allocator=bool(recipe_race.RACERS[job.setting].setting),
            )  # fmt: skip
            log = Path(temporary) / f"{job.setting}.log"
            processes[job.setting] = stack.enter_context(Process(recipe_race.command(job), own, log))
            first = processes[job.setting].answer()
            curves[job.setting] = {"own": [1], "loss": [first["loss"]], "rounds": [], "start": first["seconds"]}
            print(f"{job.setting:15s} compiled after {first['seconds']:.0f} s", file=sys.stderr)
        while any(curves[job.setting]["own"][-1] < recipe_race.own_steps(job) for job in jobs):
            for job in jobs:
                curve, total = curves[job.setting], recipe_race.own_steps(job)
                if number := steps_of_turn(turn, total, job.steps, done=curve["own"][-1]):
                    answer = processes[job.setting].steps(number)
                    curve["own"].append(curve["own"][-1] + number)
                    curve["loss"].append(answer["loss"])
                    curve["rounds"].append(answer["seconds"])
            print(f"{job.setting}: step {curve['own'][-1]}, {curve['loss'][-1]:.4f} nats", file=sys.stderr)
    return {job.setting: as_curve(curves[job.setting], job.steps / recipe_race.own_steps(job)) for job in jobs}


def steps_of_turn(turn: int, total: int, budget: int, *, done: int) -> int:
    """Return the next steps of a racer: its part of `turn` steps of 8 rows, at least one until it has `total`."""
    return min(max(1, turn * total // budget), total - done)


def as_curve(found: dict[str, Any], rows: float) -> dict[str, Any]:
    """Return a curve as `in_turns` does; `rows` is the number of steps of 8 rows in an own step."""
    average = sum(found["rounds"]) / max(1, found["own"][-1] - 1)
    clock = [average, *(average + seconds for seconds in accumulate(found["rounds"]))]
    return {
        "steps": [own * rows for own in found["own"]],
        "loss": [round(loss, 5) for loss in found["loss"]],
        "clock": [round(seconds, 3) for seconds in clock],
        "start": round(found["start"], 1),
    }


@app.command()
def race(
    only: Annotated[list[str] | None, typer.Option(help=f"Racers, of: {', '.join(recipe_race.RACERS)}.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights and rows.")] = 1,
    size: Annotated[str, typer.Option(help=f"Model, of: {', '.join(SIZES)}.")] = "tiny",
    steps: Annotated[int, typer.Option(min=0, help="Steps of 8 rows; 0: the usual number of the size.")] = 0,
    turn: Annotated[int, typer.Option(min=1, help="Steps of 8 rows in a turn; the loss is measured after each.")] = 20,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16, for the loops that use it.")] = "auto",
    compile: Annotated[bool, typer.Option("--compile/--no-compile", help="torch.compile, likewise.")] = True,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = cores(),
    data: Annotated[Path, typer.Option(help="Folder with packed/.")] = DATA,
    record: Annotated[Path, typer.Option(help="One JSON object per racer; it is replaced.")] = RACE,
) -> None:
    """Train other projects' recipes and ours in turns, on the same rows, and record the loss by seconds."""
    racers = recipe_race.RACERS
    if wrong := [*(set(only or ()) - set(racers)), *({size} - set(SIZES))]:
        raise typer.BadParameter(f"{wrong[0]} is neither a racer ({', '.join(racers)}) nor a size ({', '.join(SIZES)})")
    require(data, "packed")
    known, kind = settings(), chosen_precision(precision, threads)
    jobs = [
        RecipeJob(
            name, size, seed, steps or SIZES[size].steps, known[racers[name].setting or "default"].content,
            threads, str(data.resolve()), precision=kind, compile=compile,
        )
        for name in dict.fromkeys(only or racers)
    ]  # fmt: skip
    curves = in_turns(jobs, turn)
    about = {"size": size, "seed": seed, "threads": threads, "precision": kind, "compile": compile, **origin()}
    lines = [json.dumps({"racer": name, **curve, **about}) for name, curve in curves.items()]
    write_text(record, "\n".join(lines) + "\n")
    for line in lines:
        run = json.loads(line)
        print(
            f"{run['racer']:15s} {run['loss'][-1]:.4f} nats, {run['clock'][-1]:.0f} s and {run['start']:.0f} s to start"
        )


@app.command()
def write(
    page: Annotated[Path, typer.Option(help="The page to write.")] = ROOT / "docs/recipe.md",
    record: Annotated[Path, typer.Option(help="Finished runs.")] = RECORD,
    race: Annotated[Path, typer.Option(help="The last race.")] = RACE,
) -> None:
    """Write the page of the recipe from the records."""
    try:
        text = written(record, race)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    write_text(page, text)


def written(record: Path, race: Path) -> str:
    """Return the text of the page."""
    from recipe_page import Runs, page

    raced = [json.loads(line) for line in race.read_text(encoding="utf-8").splitlines()] if race.is_file() else []
    return page(Runs(settings(), read_runs(record)), raced)


def told(run: dict[str, Any]) -> str:
    """Return one line about a run."""
    bits = "" if run["test_bits_per_byte"] is None else f", {run['test_bits_per_byte']:.4f} test bits per byte"
    return (
        f"{run['setting']:22s} seed {run['seed']}: {list(run['val'].values())[-1]:.4f} nats after {run['steps']} steps"
        f"{bits}, {1000 * run['seconds_per_step']:.0f} ms per step, {run['seconds']:.0f} s"
    )


if __name__ == "__main__":
    app()
