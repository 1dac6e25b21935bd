"""How soon `--help` of each command answers, and the completion of a name.

    python benchmarks/start.py                              # this checkout
    python benchmarks/start.py --other ../main --runs 20    # the commands that both have, in turns

Each answer is a process of its own. A first one of each command is not counted: it compiles the modules. The median of
the rest is printed, in milliseconds of wall time and of CPU time; other load on the machine changes the first.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parents[1]
LIST = """
import json, typer
from codex_ml.cli.main import whole_app
group = typer.main.get_command(whole_app())
print(json.dumps([[], *([name, *inner] for name, command in group.commands.items()
    for inner in [[], *([below] for below in getattr(command, "commands", {}))])]))
"""
MAIN = "import sys; sys.argv[0] = 'codex-ml'; from codex_ml.cli.main import main; main()"
COMPLETION = {"_CODEX_ML_COMPLETE": "complete_bash", "COMP_WORDS": "codex-ml plan t", "COMP_CWORD": "2"}
Cost = tuple[float, float]  # milliseconds: wall, CPU


def commands(checkout: Path) -> list[list[str]]:
    """The words of every command and group of a checkout, [] for the list of commands."""
    done = subprocess.run([sys.executable, "-c", LIST], env=environment(checkout), capture_output=True, check=True)
    found: list[list[str]] = json.loads(done.stdout)
    return found


def environment(checkout: Path, **more: str) -> dict[str, str]:
    """The caller's, with the library of a checkout."""
    return {**os.environ, "PYTHONPATH": str(checkout / "src"), **more}


def cost(checkout: Path, words: list[str], **more: str) -> Cost:
    """Run a command in a process of its own."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", MAIN, *words],
        env=environment(checkout, **more),
        cwd=checkout,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return 1000 * wall, 1000 * cpu


def median(costs: list[Cost]) -> str:
    """The medians of both times, as columns."""
    walls, cpus = zip(*costs, strict=True)
    return f"{statistics.median(walls):>8.0f} {statistics.median(cpus):>8.0f}"


def main(
    other: Annotated[Path | None, typer.Option(help="Another checkout, measured in turns.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Answers of each command.")] = 5,
) -> None:
    """Measure every command."""
    checkouts = [ROOT, *([other.resolve()] if other else [])]
    lists = [commands(checkout) for checkout in checkouts]
    shared = [words for words in lists[0] if all(words in each for each in lists)]
    rows: list[tuple[str, list[str], dict[str, str]]] = [
        (" ".join([*words, "--help"]), [*words, "--help"], {}) for words in shared
    ]
    rows.append(("completion of a stage", [], COMPLETION))
    print(f"{'':<28}" + "".join(f"{checkout.name[:16]:>17}" for checkout in checkouts))
    print(f"{'':<28}" + f"{'wall ms':>8} {'CPU ms':>8}" * len(checkouts))
    for name, words, more in rows:
        costs: list[list[Cost]] = [[] for _ in checkouts]
        for number in range(runs + 1):
            for mine, checkout in zip(costs, checkouts, strict=True):
                found = cost(checkout, words, **more)
                if number:
                    mine.append(found)
        print(f"{name:<28}" + "".join(map(median, costs)), flush=True)


if __name__ == "__main__":
    typer.run(main)
